//! A simulated provider: the real store on a disk in memory, and the thin shell around it.
//!
//! The shell does what the daemon does, in the same order: it looks who may ask, calls the store, and signs what the
//! store says. What it does not have is a network, a runtime and limits on memory other than requests per client. A
//! store has a committer thread of its own; every call here waits for it, so that never two of them run at once and a
//! run stays what its seed says.

use crate::options::Lie;
use seedbank_formats::keys::SigningKey;
use seedbank_formats::receipt::{Answer, Receipt, Statement};
use seedbank_formats::{Asked, FragmentId, PublicKey, Timestamp, slice};
use seedbank_protocol::messages::{
    ClaimAction, ClaimAnswer, ClaimResult, ProblemCode, SignedBytes, decode_claim_requests,
    encode_claim_answers,
};
use seedbank_store::testing::{Effect, Fault, MemDisk, Operation, chosen};
use seedbank_store::{
    Access, ClaimError, Config, Disk, Mode, NewClaim, Put, PutError, PutStart, ReadError, Release, Renewal,
    SliceAnswer, Store, StoreId, Stored,
};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Whose store every simulated one is: disks are copies of one that was created once.
pub(crate) const STORE: StoreId = StoreId([7; 32]);

/// Seconds that trash is kept.
pub(crate) const GRACE_S: u64 = 7 * 86_400;

/// Requests of one client that a provider works on at once.
pub(crate) const SLOTS_PER_CLIENT: usize = 24;

/// Bytes before a fragment's own in its record, by `docs/formats/store.md`.
const HEADER_BYTES: u64 = 80;

/// A question.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Put { fragment: FragmentId, bytes: Arc<Vec<u8>>, until: Timestamp, access: Access, asked: Asked },
    Get { fragment: FragmentId, range: Range<u64> },
    Proof { fragment: FragmentId, range: Range<u64> },
    Claims { requests: Vec<u8>, asked: Asked },
}

impl Request {
    /// What it says in a trace.
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Request::Put { .. } => "put",
            Request::Get { .. } => "get",
            Request::Proof { .. } => "prove",
            Request::Claims { .. } => "claims",
        }
    }
}

/// What comes back.
#[derive(Debug, Clone)]
pub(crate) enum Response {
    Receipt(Vec<u8>),
    Bytes(Vec<u8>),
    Proof(Vec<u8>),
    Claims(Vec<u8>),
    Problem(ProblemCode),
}

/// What an honest answer promises or takes back, for the checker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    /// It signed that it has taken the fragment, and that the client's claim is durable.
    Stored { fragment: FragmentId, until: Timestamp, asked: Asked },
    /// It signed that the client's claim lasts longer. It did not look at the bytes.
    Renewed { fragment: FragmentId, until: Timestamp, asked: Asked },
    /// A release took the client's claim.
    Released { fragment: FragmentId },
    /// A release came late, and took nothing.
    Kept,
    /// It said that it has no such fragment.
    Denied { fragment: FragmentId },
    /// It signed that the fragment's bytes rotted.
    Rotten { fragment: FragmentId },
}

/// Whether a put has its answer already.
pub(crate) enum Begun {
    Answered(Response, Vec<Word>),
    Arriving(Put),
}

/// One provider.
pub(crate) struct Provider {
    pub(crate) key: SigningKey,
    pub(crate) public: PublicKey,
    pub(crate) lie: Option<Lie>,
    config: Config,
    pub(crate) disk: MemDisk,
    /// `None` while it is down.
    pub(crate) store: Option<Store>,
    /// How far its wall clock is ahead, in seconds.
    pub(crate) ahead_s: i64,
    /// The latest that its wall clock ever said.
    pub(crate) latest: Timestamp,
    /// By how much its answers take longer than usual.
    pub(crate) slowness: u64,
    /// Fragments on their way in, by call and arrival: a request that arrives twice is worked on twice.
    pub(crate) arriving: BTreeMap<(u64, u64), Put>,
    /// Requests that are worked on, by client.
    pub(crate) slots: BTreeMap<usize, usize>,
    /// How often it was started.
    pub(crate) boots: u64,
}

fn problem(error: &PutError) -> Response {
    Response::Problem(match error {
        PutError::Length(_) | PutError::WrongLength { .. } => ProblemCode::BadRequest,
        PutError::OverQuota { .. } => ProblemCode::OverQuota,
        PutError::Full => ProblemCode::DiskFull,
        PutError::ReadOnly { .. } => ProblemCode::ReadOnly,
        PutError::WrongHash { .. } => ProblemCode::HashMismatch,
    })
}

impl Provider {
    pub(crate) fn new(key: SigningKey, lie: Option<Lie>, disk: MemDisk, volume_bytes: u64) -> Provider {
        let mut config = Config::new(STORE, 1 << 30);
        config.reserve_bytes = 0;
        config.grace_s = GRACE_S;
        config.quotas.others_bytes = 1 << 28;
        config.volume_bytes = volume_bytes;
        config.pack_below_bytes = 16 * 1024;
        config.journal_slack_bytes = 4096;
        let public = key.public();
        let mut provider = Provider {
            key,
            public,
            lie,
            config,
            disk,
            store: None,
            ahead_s: 0,
            latest: Timestamp(0),
            slowness: 1,
            arriving: BTreeMap::new(),
            slots: BTreeMap::new(),
            boots: 0,
        };
        provider.boot().expect("a fresh store opens");
        provider
    }

    /// Opens the store as it is on the disk.
    pub(crate) fn boot(&mut self) -> Result<(), seedbank_store::OpenError> {
        self.boots += 1;
        self.store = Some(Store::open(Arc::new(self.disk.clone()), self.config.clone())?);
        Ok(())
    }

    /// Power goes off: what was not synced is lost, kept or torn as `choose` says.
    pub(crate) fn lose_power(&mut self, choose: &mut dyn FnMut(usize) -> usize) {
        self.disk.power_off_at(self.disk.steps());
        let after = self.disk.crash(&mut |pending| chosen(pending, choose));
        self.arriving.clear();
        self.slots.clear();
        self.store = None;
        self.disk = after;
    }

    pub(crate) fn is_up(&self) -> bool {
        self.store.is_some()
    }

    /// Whether its disk still answers: power may go off during a call of the store.
    pub(crate) fn has_power(&self) -> bool {
        self.disk.list("").is_ok()
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.mode() == Mode::ReadWrite)
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("only a provider that is up is asked")
    }

    pub(crate) fn fill_disk(&self) {
        if !self.is_up() {
            return;
        }
        for operation in [Operation::Write, Operation::Create] {
            let (path, effect) = (String::new(), Effect::Fails(28));
            self.disk.inject(Fault { operation, path, skip: 0, times: u64::MAX, effect });
        }
    }

    pub(crate) fn fail_sync(&self) {
        if !self.is_up() {
            return;
        }
        let (path, effect) = (String::new(), Effect::Fails(5));
        self.disk.inject(Fault { operation: Operation::Sync, path, skip: 0, times: 1, effect });
    }

    fn receipt(
        &self,
        client: PublicKey,
        fragment: FragmentId,
        length: u64,
        until: Timestamp,
        now: Timestamp,
    ) -> Vec<u8> {
        Receipt { provider: self.public, client, fragment, length, until, time: now }.sign(&self.key)
    }

    /// The answer for what is durable now.
    pub(crate) fn acknowledge(
        &self,
        client: PublicKey,
        stored: &Stored,
        asked: Asked,
        now: Timestamp,
    ) -> (Response, Vec<Word>) {
        let Stored { id: fragment, length, until } = *stored;
        let receipt = self.receipt(client, fragment, length, until, now);
        (Response::Receipt(receipt), vec![Word::Stored { fragment, until, asked }])
    }

    pub(crate) fn begin_put(
        &self,
        client: PublicKey,
        (fragment, length): (FragmentId, u64),
        (until, access, asked): (Timestamp, Access, Asked),
        now: Timestamp,
    ) -> Begun {
        if until <= now {
            return Begun::Answered(Response::Problem(ProblemCode::BadRequest), Vec::new());
        }
        let claim = NewClaim { client, until, access, asked };
        match self.store().begin_put(fragment, length, claim, now) {
            Ok(PutStart::Receive(put)) => Begun::Arriving(put),
            Ok(PutStart::Held(stored)) => {
                let (response, words) = self.acknowledge(client, &stored, asked, now);
                Begun::Answered(response, words)
            }
            Err(error) => Begun::Answered(problem(&error), Vec::new()),
        }
    }

    pub(crate) fn finish_put(
        &self,
        client: PublicKey,
        mut put: Put,
        (bytes, asked): (&[u8], Asked),
        now: Timestamp,
    ) -> (Response, Vec<Word>) {
        let pieces = bytes.len() / 2;
        let written = put.write(&bytes[..pieces]).and_then(|()| put.write(&bytes[pieces..]));
        match written.and_then(|()| put.finish(now)) {
            Ok(stored) => self.acknowledge(client, &stored, asked, now),
            Err(error) => (problem(&error), Vec::new()),
        }
    }

    /// Who may read, as the daemon decides it. Readers with tokens are its own tests' matter.
    fn standing(&self, client: &PublicKey, fragment: &FragmentId, now: Timestamp) -> Result<(), Response> {
        let grants = self.store().access(fragment, now).unwrap_or_default();
        if grants.is_empty() {
            return Err(Response::Problem(ProblemCode::NotFound));
        }
        let open = grants.iter().any(|grant| grant.client == *client || grant.access == Access::Public);
        if open { Ok(()) } else { Err(Response::Problem(ProblemCode::TokenRefused)) }
    }

    pub(crate) fn get(
        &self,
        client: &PublicKey,
        fragment: FragmentId,
        range: &Range<u64>,
        now: Timestamp,
    ) -> (Response, Vec<Word>) {
        let denied = vec![Word::Denied { fragment }];
        if let Err(refusal) = self.standing(client, &fragment, now) {
            let absent = matches!(refusal, Response::Problem(ProblemCode::NotFound));
            return (refusal, if absent { denied } else { Vec::new() });
        }
        match self.store().read(&fragment, range.clone()) {
            Ok(bytes) => (Response::Bytes(bytes), Vec::new()),
            Err(ReadError::Absent(_)) => (Response::Problem(ProblemCode::NotFound), denied),
            Err(ReadError::Rotten(_)) => (Response::Problem(ProblemCode::Rotten), Vec::new()),
            Err(ReadError::OutOfRange { .. }) => (Response::Problem(ProblemCode::RangeOutside), Vec::new()),
            Err(ReadError::Disk(_)) => (Response::Problem(ProblemCode::Internal), Vec::new()),
        }
    }

    pub(crate) fn prove(
        &self,
        client: &PublicKey,
        fragment: FragmentId,
        range: &Range<u64>,
        now: Timestamp,
    ) -> (Response, Vec<Word>) {
        let (answer, slice, words) = match self.standing(client, &fragment, now) {
            Err(Response::Problem(ProblemCode::NotFound)) => {
                (Answer::Absent, Vec::new(), vec![Word::Denied { fragment }])
            }
            Err(refusal) => return (refusal, Vec::new()),
            Ok(()) => match self.store().slice(&fragment, range.clone()) {
                Ok(SliceAnswer::Proven(slice)) => {
                    (Answer::Slice(FragmentId::of(&slice).0), slice, Vec::new())
                }
                Ok(SliceAnswer::Rotten) => (Answer::Rotten, Vec::new(), vec![Word::Rotten { fragment }]),
                Err(ReadError::Absent(_)) => (Answer::Absent, Vec::new(), vec![Word::Denied { fragment }]),
                Err(_) => return (Response::Problem(ProblemCode::Internal), Vec::new()),
            },
        };
        // What was noted of rot becomes durable before anything else happens.
        let _refused = self.store().release(&self.public, &[], Asked(0), now);
        (Response::Proof(self.statement(fragment, range, answer, &slice, now)), words)
    }

    /// A signed statement and the slice that it covers.
    pub(crate) fn statement(
        &self,
        fragment: FragmentId,
        range: &Range<u64>,
        answer: Answer,
        slice: &[u8],
        time: Timestamp,
    ) -> Vec<u8> {
        let (start, end) = (range.start, range.end);
        let statement = Statement { provider: self.public, fragment, start, end, answer, time };
        let mut bytes = statement.sign(&self.key);
        bytes.extend_from_slice(slice);
        bytes
    }

    pub(crate) fn claims(
        &self,
        client: PublicKey,
        requests: &[u8],
        asked: Asked,
        now: Timestamp,
    ) -> (Response, Vec<Word>) {
        let Ok(requests) = decode_claim_requests(requests) else {
            return (Response::Problem(ProblemCode::BadRequest), Vec::new());
        };
        match self.change_claims(client, &requests, asked, now) {
            Ok((answers, words)) => (Response::Claims(encode_claim_answers(&answers)), words),
            Err(ClaimError::TooMany(_)) => (Response::Problem(ProblemCode::TooLarge), Vec::new()),
            Err(ClaimError::Full) => (Response::Problem(ProblemCode::DiskFull), Vec::new()),
            Err(ClaimError::ReadOnly { .. }) => (Response::Problem(ProblemCode::ReadOnly), Vec::new()),
        }
    }

    fn change_claims(
        &self,
        client: PublicKey,
        requests: &[seedbank_protocol::messages::ClaimRequest],
        asked: Asked,
        now: Timestamp,
    ) -> Result<(Vec<ClaimAnswer>, Vec<Word>), ClaimError> {
        let (mut renewals, mut releases, mut words) = (Vec::new(), Vec::new(), Vec::new());
        for request in requests {
            match request.action {
                ClaimAction::Renew(until) => renewals.push((request.fragment, until)),
                ClaimAction::Release => releases.push(request.fragment),
            }
        }
        let renewed =
            if renewals.is_empty() { Vec::new() } else { self.store().renew(&client, &renewals, asked)? };
        let released = if releases.is_empty() {
            Vec::new()
        } else {
            self.store().release(&client, &releases, asked, now)?
        };
        let (mut renewed, mut released) = (renewed.into_iter(), released.into_iter());
        let mut answers = Vec::new();
        for request in requests {
            let fragment = request.fragment;
            let result = match request.action {
                ClaimAction::Release => match released.next().expect("the store answers every release") {
                    Release::Released => {
                        words.push(Word::Released { fragment });
                        ClaimResult::Released
                    }
                    Release::Absent => ClaimResult::Released,
                    Release::Kept => {
                        words.push(Word::Kept);
                        ClaimResult::Kept
                    }
                },
                ClaimAction::Renew(_) => match renewed.next().expect("the store answers every renewal") {
                    Renewal::Renewed { length, until } => {
                        words.push(Word::Renewed { fragment, until, asked });
                        ClaimResult::Receipt(SignedBytes(self.receipt(client, fragment, length, until, now)))
                    }
                    Renewal::Absent => ClaimResult::Absent,
                    Renewal::Rotten => ClaimResult::Rotten,
                },
            };
            answers.push(ClaimAnswer { fragment, result });
        }
        Ok((answers, words))
    }

    /// Lets claims expire and gives space back, until there is nothing more to do.
    pub(crate) fn upkeep(&self, now: Timestamp) {
        const BUDGET_BYTES: u64 = 1 << 20;
        let Some(store) = &self.store else { return };
        if store.expire(now).is_err() {
            return;
        }
        while store.collect(now, BUDGET_BYTES).is_ok_and(|collected| collected.more) {}
    }

    /// What is wrong with how much it has under way: a client has so many requests at once and no more, each has its
    /// space on the disk set aside, and nothing else has.
    pub(crate) fn overload(&self, lengths: impl Fn(u64) -> u64) -> Option<String> {
        let store = self.store.as_ref()?;
        let requests: usize = self.slots.values().sum();
        if let Some((client, busy)) = self.slots.iter().find(|(_, busy)| **busy > SLOTS_PER_CLIENT) {
            return Some(format!("works on {busy} requests of c{client}, {SLOTS_PER_CLIENT} are allowed"));
        }
        if requests != self.arriving.len() {
            return Some(format!("counts {requests} requests and works on {}", self.arriving.len()));
        }
        let record = |length| HEADER_BYTES + length + slice::outboard_len(length);
        let wanted: u64 = self.arriving.keys().map(|(call, _)| record(lengths(*call))).sum();
        let reserved = store.usage().ok()?.reserved_bytes;
        (reserved != wanted).then(|| format!("keeps {reserved} bytes for what arrives, which are {wanted}"))
    }

    /// Whether it has the right bytes of a fragment, whatever it says.
    pub(crate) fn has(&self, fragment: &FragmentId) -> bool {
        let Some(store) = &self.store else { return false };
        let Some(info) = store.fragment(fragment) else { return false };
        store.read(fragment, 0..info.length).is_ok_and(|bytes| FragmentId::of(&bytes) == *fragment)
    }
}

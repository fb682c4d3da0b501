//! The providers as this process sees them: dialled by key, with what it learnt about each.
//!
//! Addresses are hints that come from the catalog, a placement map or a head. Estimates and verdicts live as long as
//! the process; whoever wants to keep them reads them at the end.

mod requests;

use crate::pay::{Payer, Reads};
use crate::recent::Recent;
use bytes::Bytes;
use seedbank_formats::keys::SigningKey;
use seedbank_formats::receipt::ReaderToken;
use seedbank_formats::{FragmentId, PublicKey, Timestamp};
use seedbank_protocol::hedging::{Hedging, Leave, Wish};
use seedbank_protocol::latency::{LatencyPolicy, LatencyTable, Sample};
use seedbank_protocol::moment::Moment;
use seedbank_protocol::read_exchange::Verdict;
use seedbank_transport::{CallError, PeerAddress, ProviderClient};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::mem::discriminant;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

/// A reader token is good for so long; a leaked one is of no use to another key anyway.
const TOKEN_SECONDS: u64 = 3600;
/// A token is renewed this long before its end, so that clocks may differ a little.
const TOKEN_RENEW_SECONDS: u64 = 600;

/// Findings kept: of more, somebody has looked at the first ones long ago.
const FINDINGS_MAX: usize = 1024;
/// Slices kept as evidence, together. One liar is shown by one slice; a fragment's can have 5 MiB.
const EVIDENCE_BYTES_MAX: usize = 32 << 20;

/// Questions of blame that go on in the background. Each keeps one range and its proof; of what is dropped above this,
/// the next read of the same holder asks again.
const BLAMES_MAX: usize = 16;

/// How long a holder is not asked for a fragment that it was found not to have. Then it may have been repaired.
const LOST_FOR: Duration = Duration::from_secs(600);
/// Holders remembered for lost fragments.
const LOST_MAX: u64 = 65_536;

/// Whoever was given up sooner has hardly been asked: less is the scheduler's jitter.
const SILENCE_MIN: Duration = Duration::from_millis(20);

/// So often in a row may others be faster than a provider's answer before it is taken to be silent.
const SILENCES_MAX: u32 = 3;

/// Sources of decodes under way, together: one decode needs k times its range, at most a whole segment. This bounds
/// memory, and what hedging adds to a link that is full already.
const DECODE_KIB_MAX: usize = 64 * 1024;

/// A provider that was found wrong, with what shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Who.
    pub provider: PublicKey,
    /// Of which fragment.
    pub fragment: FragmentId,
    /// Which bytes of it.
    pub range: Range<u64>,
    /// What was found.
    pub verdict: Verdict,
    /// The provider's signed statement, when there is one.
    pub statement: Option<Bytes>,
    /// The slice that the statement covers: with it, anyone can check a liar.
    pub slice: Option<Bytes>,
}

/// What was moved and from whom, since this process began.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Requests for ranges, plain and with proof, those that were given up included.
    pub range_requests: AtomicU64,
    /// Bytes of their answers.
    pub range_bytes: AtomicU64,
    /// Requests that asked for proof: all of metadata, and of chunks when somebody was slow, gone or wrong.
    pub proofs: AtomicU64,
    /// Ranges that had to be decoded from other fragments.
    pub decodes: AtomicU64,
    /// Fragments sent.
    pub fragments_sent: AtomicU64,
    /// Bytes of fragments sent.
    pub bytes_sent: AtomicU64,
    asked: Mutex<BTreeMap<PublicKey, u64>>,
}

impl Traffic {
    /// Requests for ranges by the provider that was asked.
    #[must_use]
    pub fn asked(&self) -> BTreeMap<PublicKey, u64> {
        self.asked.lock().expect("a map clone does not panic").clone()
    }

    pub(crate) fn decoded(&self) {
        self.decodes.fetch_add(1, Ordering::Relaxed);
    }

    fn ask(&self, provider: &PublicKey) {
        self.range_requests.fetch_add(1, Ordering::Relaxed);
        *self.asked.lock().expect("a map insert does not panic").entry(*provider).or_default() += 1;
    }
}

/// Connections to providers, their addresses, and what is known of their speed and honesty.
pub struct Network {
    client: ProviderClient,
    started: Instant,
    addresses: RwLock<HashMap<PublicKey, String>>,
    latency: Mutex<LatencyTable>,
    hedging: Mutex<Hedging>,
    findings: Mutex<Vec<Finding>>,
    answered: Mutex<BTreeSet<PublicKey>>,
    failing: Mutex<BTreeMap<PublicKey, String>>,
    /// What providers said when they took no fragment.
    refusals: Mutex<BTreeMap<PublicKey, String>>,
    /// How often in a row a provider was given up before it answered.
    silences: Mutex<BTreeMap<PublicKey, u32>>,
    blames: Mutex<JoinSet<()>>,
    lost: Mutex<Recent<(PublicKey, FragmentId), Instant>>,
    decode_kib: Arc<Semaphore>,
    /// Pays for what is read; without it, only what is free is read.
    reads: Option<Arc<Reads>>,
    /// Counters.
    pub traffic: Traffic,
}

impl Network {
    /// Calls providers with `client`.
    #[must_use]
    pub fn new(client: ProviderClient) -> Network {
        Network::with_policy(client, LatencyPolicy::default())
    }

    /// Calls providers with `client`, and hedges reads by `policy`.
    #[must_use]
    pub fn with_policy(client: ProviderClient, policy: LatencyPolicy) -> Network {
        Network {
            client,
            started: Instant::now(),
            addresses: RwLock::default(),
            latency: Mutex::new(LatencyTable::new(policy)),
            hedging: Mutex::default(),
            findings: Mutex::default(),
            answered: Mutex::default(),
            failing: Mutex::default(),
            refusals: Mutex::default(),
            silences: Mutex::default(),
            blames: Mutex::default(),
            lost: Mutex::new(Recent::new(LOST_MAX)),
            decode_kib: Arc::new(Semaphore::new(DECODE_KIB_MAX)),
            reads: None,
            traffic: Traffic::default(),
        }
    }

    /// Pays for reads with `reads`.
    #[must_use]
    pub fn paying(self, reads: Arc<Reads>) -> Network {
        Network { reads: Some(reads), ..self }
    }

    /// Who pays, in a network that is paid.
    #[must_use]
    pub fn payer(&self) -> Option<&Arc<Payer>> {
        self.reads.as_ref().map(|reads| reads.payer())
    }

    /// Vouchers that providers have taken from this process.
    #[must_use]
    pub fn vouchers(&self) -> u64 {
        self.reads.as_ref().map_or(0, |reads| reads.vouchers())
    }

    /// The key that providers know this process by.
    #[must_use]
    pub fn identity(&self) -> PublicKey {
        self.client.public()
    }

    /// Learns where providers may be reached.
    pub fn learn<'a>(&self, addresses: impl IntoIterator<Item = (&'a PublicKey, &'a str)>) {
        let mut known = self.addresses.write().expect("nothing panics while it holds the addresses");
        for (key, address) in addresses {
            known.insert(*key, address.to_owned());
        }
    }

    /// Learns where providers may be reached of which nothing is known yet. Hints in heads and maps are as old as those:
    /// they never replace what the books or a person said.
    pub fn hint<'a>(&self, addresses: impl IntoIterator<Item = (&'a PublicKey, &'a String)>) {
        let mut known = self.addresses.write().expect("nothing panics while it holds the addresses");
        for (key, address) in addresses {
            known.entry(*key).or_insert_with(|| address.clone());
        }
    }

    /// Where a provider may be reached; an empty hint when nothing is known.
    #[must_use]
    pub fn peer(&self, key: &PublicKey) -> PeerAddress {
        let known = self.addresses.read().expect("nothing panics while it holds the addresses");
        PeerAddress { key: *key, address: known.get(key).cloned().unwrap_or_default() }
    }

    /// Time on this process's own monotonic clock.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment(self.started.elapsed())
    }

    /// Waits until then; for ever when there is nothing to wait for.
    pub(crate) fn sleep_until(&self, moment: Option<Moment>) -> impl Future<Output = ()> + use<> {
        let at = moment.map(|moment| tokio::time::Instant::from_std(self.started + moment.0));
        async move {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        }
    }

    pub(crate) fn latency(&self) -> MutexGuard<'_, LatencyTable> {
        self.latency.lock().expect("nothing panics while it holds the estimates")
    }

    fn hedging(&self) -> MutexGuard<'_, Hedging> {
        self.hedging.lock().expect("nothing panics while it holds the hedging")
    }

    /// Whether a hedge may be sent whose time has come.
    pub(crate) fn leave(&self, wish: &Wish, now: Moment) -> Leave {
        self.hedging().leave(wish, now)
    }

    /// Whether a provider owes an answer for so long that nobody should wait for it.
    pub(crate) fn owes_answer(&self, provider: &PublicKey) -> bool {
        self.hedging().is_silent(provider, self.now())
    }

    /// Remembers how a call went.
    fn note<T>(&self, provider: &PublicKey, began: Instant, bytes: u64, result: &Result<T, CallError>) {
        match result {
            Ok(_) => {
                let total = began.elapsed();
                // The calls give whole bodies; the first byte of a short answer is as good as its last.
                let transfer = self
                    .latency()
                    .estimate(provider)
                    .and_then(|estimate| estimate.rate)
                    .map_or(Duration::ZERO, |rate| {
                        Duration::from_secs_f64(bytes_f64(bytes) / bytes_f64(rate.max(1)))
                    });
                let first_byte = total.saturating_sub(transfer).max(total / 8);
                self.latency().record(*provider, Sample { first_byte, total, bytes }, self.now());
                self.heard(provider);
            }
            Err(error) => self.failed(provider, error),
        }
    }

    fn heard(&self, provider: &PublicKey) {
        self.answered.lock().expect("a set insert does not panic").insert(*provider);
        self.failing.lock().expect("a map removal does not panic").remove(provider);
        self.silences.lock().expect("a map removal does not panic").remove(provider);
    }

    /// Remembers that a provider was given up after `waited` without an answer, because another was faster.
    pub(crate) fn outrun(&self, provider: &PublicKey, waited: Duration) {
        if waited < SILENCE_MIN {
            return;
        }
        self.latency().record_silence(*provider, waited, self.now());
        *self.silences.lock().expect("a map insert does not panic").entry(*provider).or_default() += 1;
    }

    /// Whether a provider has not answered lately before others did. It may be slow, or stalled: whoever has a choice
    /// asks others first.
    pub(crate) fn is_silent(&self, provider: &PublicKey) -> bool {
        let silences = self.silences.lock().expect("a map lookup does not panic");
        silences.get(provider).is_some_and(|silences| *silences >= SILENCES_MAX)
    }

    /// Remembers that a provider could not be reached or broke off. A refusal is an answer.
    fn failed(&self, provider: &PublicKey, error: &CallError) {
        if !matches!(error, CallError::Refused { .. }) {
            self.latency().record_failure(*provider, self.now());
            let mut failing = self.failing.lock().expect("a map insert does not panic");
            failing.insert(*provider, error.to_string());
        }
    }

    /// Whether a provider is taken to be down at this moment.
    pub(crate) fn is_down(&self, provider: &PublicKey) -> bool {
        self.latency().is_down(provider, self.now())
    }

    /// Treats a provider as down for a while: it did not even greet.
    pub(crate) fn presume_down(&self, provider: &PublicKey) {
        let now = self.now();
        let mut latency = self.latency();
        // The table takes one failure for bad luck.
        latency.record_failure(*provider, now);
        latency.record_failure(*provider, now);
    }

    /// Providers that answered at least once.
    #[must_use]
    pub fn answered(&self) -> BTreeSet<PublicKey> {
        self.answered.lock().expect("a set clone does not panic").clone()
    }

    /// Providers of which the last call failed, with the reason.
    #[must_use]
    pub fn failing(&self) -> BTreeMap<PublicKey, String> {
        self.failing.lock().expect("a map clone does not panic").clone()
    }

    /// Providers that refused to take a fragment, with what they last said.
    #[must_use]
    pub fn refusals(&self) -> BTreeMap<PublicKey, String> {
        self.refusals.lock().expect("a map clone does not panic").clone()
    }

    /// What providers were found out about, so far. [`Network::settle`] first, to miss nothing.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        self.findings.lock().expect("a vector clone does not panic").clone()
    }

    pub(crate) fn found(&self, mut finding: Finding) {
        let Finding { provider, fragment, verdict, .. } = finding;
        match verdict {
            // Nobody's fault but the writer's, whose reader hears of it from the read itself.
            Verdict::WriterFault => {
                tracing::warn!(%provider, %fragment, "fragment is stored as it was written, and does not open");
                return;
            }
            Verdict::Liar { .. } => {
                self.lost(provider, fragment);
                self.latency().doubt(provider, self.now());
            }
            // An honest word, about this fragment only.
            Verdict::Rotten | Verdict::Absent => self.lost(provider, fragment),
            Verdict::Suspect | Verdict::Evasive => self.latency().doubt(provider, self.now()),
        }
        let mut findings = self.findings.lock().expect("a vector push does not panic");
        let kind = discriminant(&verdict);
        let known = findings.iter().any(|other| {
            (other.provider, other.fragment, discriminant(&other.verdict)) == (provider, fragment, kind)
        });
        // One piece of evidence of each kind for a fragment is enough.
        if known || findings.len() >= FINDINGS_MAX {
            return;
        }
        let slice_bytes = |finding: &Finding| finding.slice.as_ref().map_or(0, Bytes::len);
        let kept: usize = findings.iter().map(slice_bytes).sum();
        if kept + slice_bytes(&finding) > EVIDENCE_BYTES_MAX {
            finding.slice = None;
        }
        findings.push(finding);
    }

    fn lost(&self, provider: PublicKey, fragment: FragmentId) {
        let mut lost = self.lost.lock().expect("a map insert does not panic");
        lost.put((provider, fragment), Instant::now(), 1);
    }

    /// Whether a provider was lately found not to have a fragment as it was written.
    pub(crate) fn is_lost(&self, provider: &PublicKey, fragment: &FragmentId) -> bool {
        let mut lost = self.lost.lock().expect("a map lookup does not panic");
        lost.get(&(*provider, *fragment)).is_some_and(|found| found.elapsed() < LOST_FOR)
    }

    /// Waits for room for the sources of a decode. Whoever has it waits for providers only, never for more of it.
    pub(crate) fn decode_room(
        &self,
        bytes: u64,
    ) -> impl Future<Output = OwnedSemaphorePermit> + Send + use<> {
        let kib = usize::try_from(bytes.div_ceil(1024)).unwrap_or(DECODE_KIB_MAX).clamp(1, DECODE_KIB_MAX);
        let kib = u32::try_from(kib).expect("at most 64 MiB in KiB");
        let room = Arc::clone(&self.decode_kib);
        async move { room.acquire_many_owned(kib).await.expect("the semaphore is never closed") }
    }

    /// Keeps a question of blame going after its bytes were found elsewhere.
    pub(crate) fn settle_later(&self, blame: impl Future<Output = ()> + Send + 'static) {
        let mut blames = self.blames.lock().expect("a spawn does not panic");
        while blames.try_join_next().is_some() {}
        if blames.len() < BLAMES_MAX {
            blames.spawn(blame);
        }
    }

    /// Waits for open questions of blame, and for vouchers that are on their way, at most so long.
    pub async fn settle(&self, patience: Duration) {
        if let Some(reads) = &self.reads {
            reads.settle(patience).await;
        }
        let mut blames = std::mem::take(&mut *self.blames.lock().expect("a take does not panic"));
        let all = async { while blames.join_next().await.is_some() {} };
        // Whoever does not answer in time is not found out about; nothing else depends on it.
        let _late = tokio::time::timeout(patience, all).await;
    }

    /// Remembers why a provider takes nothing, or gets nothing.
    pub(crate) fn refused(&self, provider: &PublicKey, reason: String) {
        self.refusals.lock().expect("a map insert does not panic").insert(*provider, reason);
    }
}

fn bytes_f64(bytes: u64) -> f64 {
    // Only an estimate of time comes of it, so the rounding of huge lengths does not matter.
    f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) * 1024.0 + 1.0
}

/// Makes reader tokens for one dataset, and keeps the newest.
pub(crate) struct Tokens {
    reader: Option<SigningKey>,
    bearer: PublicKey,
    current: Mutex<Option<(Timestamp, Bytes)>>,
}

impl Tokens {
    /// For a dataset whose readers sign with `reader`; a public one needs no token.
    pub(crate) fn new(reader: Option<SigningKey>, bearer: PublicKey) -> Tokens {
        Tokens { reader, bearer, current: Mutex::new(None) }
    }

    /// A token that is good for a while yet.
    pub(crate) fn get(&self) -> Option<Bytes> {
        let key = self.reader.as_ref()?;
        let now = wall_clock();
        let mut current = self.current.lock().expect("signing does not panic");
        match &*current {
            Some((until, token)) if now.plus_seconds(TOKEN_RENEW_SECONDS) < *until => Some(token.clone()),
            _ => {
                let until = now.plus_seconds(TOKEN_SECONDS);
                let token = ReaderToken { reader: key.public(), bearer: self.bearer, until };
                let bytes = Bytes::from(token.sign(key));
                *current = Some((until, bytes.clone()));
                Some(bytes)
            }
        }
    }
}

/// The wall clock, read at the edge: everything below takes time as an argument.
#[must_use]
pub fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::{EVIDENCE_BYTES_MAX, FINDINGS_MAX, Finding, Network};
    use bytes::Bytes;
    use seedbank_formats::keys::SigningKey;
    use seedbank_formats::{FragmentId, PublicKey};
    use seedbank_protocol::read_exchange::{RequestId, Verdict};
    use seedbank_transport::{ClientLimits, Identity, ProviderClient, TcpDial};

    const PROVIDER: PublicKey = PublicKey([1; 32]);

    fn network() -> Network {
        let identity = Identity::new(&SigningKey::from_seed([1; 32]));
        Network::new(ProviderClient::new(&identity, TcpDial, ClientLimits::default()))
    }

    fn fragment(number: usize) -> FragmentId {
        FragmentId::of(&number.to_le_bytes())
    }

    fn finding(number: usize, verdict: Verdict, slice_bytes: usize) -> Finding {
        Finding {
            provider: PROVIDER,
            fragment: fragment(number),
            range: 0..1,
            verdict,
            statement: Some(Bytes::from_static(b"signed")),
            slice: Some(Bytes::from(vec![0; slice_bytes])),
        }
    }

    #[test]
    fn one_piece_of_evidence_of_each_kind_is_kept_for_a_fragment() {
        let network = network();
        for request in 0..10 {
            network.found(finding(1, Verdict::Liar { evidence: RequestId(request) }, 10));
        }
        network.found(finding(1, Verdict::Rotten, 0));
        network.found(finding(2, Verdict::Liar { evidence: RequestId(0) }, 10));
        network.found(finding(3, Verdict::WriterFault, 10));
        let found: Vec<_> = network.findings().iter().map(|finding| finding.fragment).collect();
        assert_eq!(found, [fragment(1), fragment(1), fragment(2)]);
        assert!(network.is_lost(&PROVIDER, &fragment(1)) && network.is_lost(&PROVIDER, &fragment(2)));
        assert!(!network.is_lost(&PROVIDER, &fragment(3)), "the writer's fault is no provider's");
        assert!(!network.is_lost(&PublicKey([2; 32]), &fragment(1)));
    }

    #[test]
    fn evidence_is_bounded_and_what_was_signed_stays() {
        let network = network();
        let slice_bytes = EVIDENCE_BYTES_MAX / 4;
        for number in 0..FINDINGS_MAX + 10 {
            let slice_bytes = if number < 6 { slice_bytes } else { 0 };
            network.found(finding(number, Verdict::Liar { evidence: RequestId(0) }, slice_bytes));
        }
        let findings = network.findings();
        assert_eq!(findings.len(), FINDINGS_MAX);
        assert!(findings[..4].iter().all(|finding| finding.slice.is_some()));
        assert!(findings[4..6].iter().all(|finding| finding.slice.is_none() && finding.statement.is_some()));
    }

    #[test]
    fn silence_ends_with_an_answer() {
        let network = network();
        for _ in 0..10 {
            network.outrun(&PROVIDER, std::time::Duration::from_millis(5));
        }
        for _ in 0..3 {
            assert!(!network.is_silent(&PROVIDER));
            network.outrun(&PROVIDER, std::time::Duration::from_millis(50));
        }
        assert!(network.is_silent(&PROVIDER));
        network.heard(&PROVIDER);
        assert!(!network.is_silent(&PROVIDER));
    }
}

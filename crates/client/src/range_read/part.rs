//! One range of one fragment: an exchange, the bytes of its answers, and what they are worth.
//!
//! No request is made here: [`super::Reading`] sends what the exchange asks for and reports what comes back. Bytes are
//! *offered* one after another: plain ones that nobody has checked, ones with a proof, decoded ones. Whether they open
//! is the caller's to say, and the exchange hears of it only then.
//!
//! While a part waits for room for the sources of its decode, its clock stands still: nobody is slow who was not asked.

use super::fragment_len;
use super::in_flight::Ticket;
use crate::network::{Finding, Network};
use bytes::Bytes;
use seedbank_erasure::Decoder;
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::{FragmentId, PublicKey};
use seedbank_protocol::answers::judge;
use seedbank_protocol::hedging::{Leave, Wish};
use seedbank_protocol::messages::ProblemCode;
use seedbank_protocol::moment::Moment;
use seedbank_protocol::read_exchange::{
    Answer, Check, Mode, ReadExchange, ReadFailed, ReadFailure, ReadHedge, ReadOutcome, ReadOutput, ReadPlan,
    RequestId, Source, Verdict,
};
use seedbank_transport::{CallError, Proof};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// What a request came to.
pub(super) enum Answered {
    Plain(Bytes),
    Proven(Proof),
}

/// A provider's signed word that speaks against it.
pub(super) struct Evidence {
    index: usize,
    statement: Bytes,
    slice: Bytes,
}

/// Whether a part has more to offer than what was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejected {
    /// Something else is on its way, or everything has failed: the exchange says which.
    More,
    /// This was its last word.
    Final,
}

/// What becomes of the question to a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// It waits, the first of its decode, for room for so many bytes.
    First(u64),
    /// It waits with others.
    Another,
    /// It is asked at once, or nobody wants it.
    No,
}

/// What a decode is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// The wanted fragment.
    Wanted,
    /// All data fragments.
    AllData,
}

/// Bytes to be judged.
enum Offer {
    /// From the holder of the wanted bytes, whose request waits for the judgement.
    Asked { request: RequestId, provider: PublicKey, mode: Mode, bytes: Bytes },
    /// Decoded from proven sources: the exchange's own last word.
    Decoded(Bytes),
}

impl Offer {
    fn bytes(&self) -> &Bytes {
        match self {
            Offer::Asked { bytes, .. } | Offer::Decoded(bytes) => bytes,
        }
    }
}

/// Plain bytes that did not open.
struct Refused {
    provider: PublicKey,
    bytes: Bytes,
    /// Whether no other part could have been the wrong one.
    alone: bool,
}

struct Request {
    source: Source,
    mode: Mode,
    sent: Option<(Ticket, Moment)>,
}

/// Room for the sources of a decode.
enum Room {
    /// Nothing is decoded.
    Unasked,
    /// Sources wait for room, or for others who decode the same columns.
    Waiting { since: Moment, task: Option<Ticket>, requests: Vec<RequestId> },
    /// Kept as long as the sources are.
    Have { _room: OwnedSemaphorePermit },
}

pub(super) struct Part {
    placement: Arc<SegmentPlacement>,
    index: usize,
    range: Range<u64>,
    /// How long its holder may usually take.
    patience: Duration,
    exchange: ReadExchange,
    open: BTreeMap<RequestId, Request>,
    /// Proven ranges of other fragments.
    sources: BTreeMap<RequestId, Bytes>,
    room: Room,
    /// How long the clock has stood still.
    paused: Duration,
    /// Bytes to try, the first first.
    offers: VecDeque<Offer>,
    refused: Vec<Refused>,
    /// Verdicts without a signed word: they count once it is known that the provider was wrong.
    rumours: Vec<(PublicKey, Verdict)>,
    /// The right bytes, once they are known.
    truth: Option<Bytes>,
    /// What did not open although it was proven to be what was written.
    written_wrong: Option<String>,
    failed: Option<ReadFailed>,
    extent: Extent,
    /// What a decode of all data came to.
    columns: Option<BTreeMap<usize, Bytes>>,
    /// What others have decoded for this part, or why they can't.
    shared: Option<Result<Bytes, ReadFailed>>,
    abandoned: bool,
}

impl Part {
    /// `None` when the placement has no such fragment.
    pub(super) fn new(
        network: &Network,
        placement: &Arc<SegmentPlacement>,
        index: usize,
        range: Range<u64>,
        check: Check,
    ) -> Option<Part> {
        let plan = plan(network, placement, index, range.end - range.start, check)?;
        Some(Part::of_plan(network, placement, index, range, plan))
    }

    /// A range of all data fragments, from any `k` holders. The one of fragment `index` is somebody's reason to decode,
    /// so it comes late.
    pub(super) fn of_all(
        network: &Network,
        placement: &Arc<SegmentPlacement>,
        index: usize,
        range: Range<u64>,
    ) -> Option<Part> {
        let plan = plan_of_all(network, placement, index, range.end - range.start)?;
        let mut part = Part::of_plan(network, placement, index, range, plan);
        part.extent = Extent::AllData;
        Some(part)
    }

    fn of_plan(
        network: &Network,
        placement: &Arc<SegmentPlacement>,
        index: usize,
        range: Range<u64>,
        plan: ReadPlan,
    ) -> Part {
        Part {
            placement: Arc::clone(placement),
            index,
            range,
            patience: plan.hedge().first,
            exchange: ReadExchange::new(plan, network.now()),
            open: BTreeMap::new(),
            sources: BTreeMap::new(),
            room: Room::Unasked,
            paused: Duration::ZERO,
            offers: VecDeque::new(),
            refused: Vec::new(),
            rumours: Vec::new(),
            truth: None,
            written_wrong: None,
            failed: None,
            extent: Extent::Wanted,
            columns: None,
            shared: None,
            abandoned: false,
        }
    }

    /// Its bytes are known: nobody is asked.
    pub(super) fn give(&mut self, bytes: Bytes) {
        self.abandoned = true;
        self.truth = Some(bytes.clone());
        self.offers.push_back(Offer::Decoded(bytes));
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    pub(super) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    pub(super) fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// The bytes to try next. They stay the same until they are rejected.
    pub(super) fn offered(&self) -> Option<&Bytes> {
        self.offers.front().map(Offer::bytes)
    }

    /// Whether what it offers is not proven.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.offers.front(), Some(Offer::Asked { mode: Mode::Plain, .. }))
    }

    pub(super) fn failed(&self) -> Option<&ReadFailed> {
        self.failed.as_ref()
    }

    /// What was proven to be as it was written and did not open.
    pub(super) fn written_wrong(&self) -> Option<&str> {
        self.written_wrong.as_deref()
    }

    /// Whether nothing is to be expected of it any more, not even blame.
    pub(super) fn is_over(&self) -> bool {
        self.abandoned || self.exchange.is_over()
    }

    /// The exchange's clock.
    fn now(&self, now: Moment) -> Moment {
        let now = match &self.room {
            Room::Waiting { since, .. } => *since,
            Room::Unasked | Room::Have { .. } => now,
        };
        Moment(now.0.saturating_sub(self.paused))
    }

    /// When it wants to look at the time again.
    pub(super) fn wake(&self) -> Option<Moment> {
        match self.room {
            _ if self.abandoned => None,
            Room::Waiting { .. } => None,
            // Bytes are there and wait for other parts: no reason to ask for more of them.
            Room::Unasked if !self.offers.is_empty() => None,
            // Room for a decode is not to be held longer than needed.
            Room::Unasked | Room::Have { .. } => Some(self.exchange.poll_timeout()?.plus(self.paused)),
        }
    }

    /// Time has passed. What it hedges, `leave` has a say in.
    pub(super) fn handle_timeout(&mut self, now: Moment, leave: impl FnOnce(&Wish) -> Leave) {
        let Some(due) = self.wake().filter(|wake| *wake <= now) else { return };
        let requests = self.exchange.hedge_requests();
        let against = self.open.values().map(|open| open.source).find(|source| self.is_wanted(source.index));
        let against = against.map(|source| source.provider);
        let leave = match requests {
            0 => Leave::Given,
            requests => leave(&Wish { against, patience: self.patience, requests, due }),
        };
        match leave {
            Leave::Given => self.exchange.handle_timeout(self.now(now)),
            Leave::Later(then) => self.exchange.postpone(self.now(then)),
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<ReadOutput> {
        if self.abandoned { None } else { self.exchange.poll_output() }
    }

    fn fragment_id(&self, index: usize) -> FragmentId {
        self.placement.fragments[index].id
    }

    /// Whether a fragment's bytes are all that is wanted, as they are.
    fn is_wanted(&self, index: usize) -> bool {
        match self.extent {
            Extent::Wanted => self.placement.scheme.is_copies() || index == self.index,
            Extent::AllData => false,
        }
    }

    /// The exchange has asked for something.
    pub(super) fn asked(&mut self, request: RequestId, provider: PublicKey, index: usize, mode: Mode) {
        self.open.insert(request, Request { source: Source { index, provider }, mode, sent: None });
    }

    pub(super) fn question(&self, request: RequestId) -> Option<(Source, Mode)> {
        self.open.get(&request).map(|open| (open.source, open.mode))
    }

    pub(super) fn sent(&mut self, request: RequestId, task: Ticket, now: Moment) {
        if let Some(open) = self.open.get_mut(&request) {
            open.sent = Some((task, now));
        }
    }

    /// Ends a request; says whom it went to and how long that one has had, if it was sent at all.
    pub(super) fn cancel(&mut self, request: RequestId, now: Moment) -> Option<(PublicKey, Duration)> {
        let cancelled = self.open.remove(&request)?;
        let (task, since) = cancelled.sent?;
        task.cancel();
        Some((cancelled.source.provider, now.since(since)))
    }

    /// Whether a request is for one of the sources of a decode.
    pub(super) fn is_source(&self, request: RequestId) -> bool {
        self.open.get(&request).is_some_and(|open| !self.is_wanted(open.source.index))
    }

    /// Holds the question to a source back until there is room for the answer, or others have decoded the same.
    pub(super) fn hold(&mut self, request: RequestId, now: Moment) -> Held {
        if let Some(Err(_)) = self.shared {
            // Those who decode for many have tried everybody.
            self.open.remove(&request);
            self.exchange.handle_failure(request, ReadFailure::Unreachable, self.now(now));
            return Held::No;
        }
        match &mut self.room {
            Room::Unasked => {
                self.room = Room::Waiting { since: now, task: None, requests: vec![request] };
                Held::First(self.len().saturating_mul(self.placement.scheme.data() as u64))
            }
            Room::Waiting { requests, .. } => {
                requests.push(request);
                Held::Another
            }
            Room::Have { .. } => Held::No,
        }
    }

    pub(super) fn waits_for(&mut self, waiting: Ticket) {
        if let Room::Waiting { task, .. } = &mut self.room {
            *task = Some(waiting);
        }
    }

    /// Others have decoded the range, or failed to: answers the held questions for the sources.
    pub(super) fn has_columns(&mut self, result: Result<Bytes, ReadFailed>, now: Moment) {
        let Room::Waiting { since, requests, .. } = &mut self.room else { return };
        self.paused += now.since(*since);
        let (requests, is_there) = (std::mem::take(requests), result.is_ok());
        self.room = Room::Unasked;
        self.shared = Some(result);
        let now = self.now(now);
        for request in requests {
            if self.open.remove(&request).is_some() {
                if is_there {
                    self.exchange.handle_answer(request, Answer::Right, now);
                } else {
                    self.exchange.handle_failure(request, ReadFailure::Unreachable, now);
                }
            }
        }
    }

    /// What a decode of all data fragments came to, once.
    pub(super) fn take_columns(&mut self) -> Option<BTreeMap<usize, Bytes>> {
        self.columns.take()
    }

    /// There is room: the requests that were waiting for it, but for those that nobody wants any more.
    pub(super) fn has_room(&mut self, room: OwnedSemaphorePermit, now: Moment) -> Vec<RequestId> {
        match &mut self.room {
            Room::Waiting { since, requests, .. } => {
                self.paused += now.since(*since);
                let requests = std::mem::take(requests);
                self.room = Room::Have { _room: room };
                requests
            }
            Room::Unasked | Room::Have { .. } => Vec::new(),
        }
    }

    /// Takes an answer. What it gives is to be carried out with the outputs that follow from it.
    pub(super) fn answered(
        &mut self,
        request: RequestId,
        result: Result<Answered, CallError>,
        now: Moment,
    ) -> Option<Evidence> {
        // Cancelled just before it came.
        let Request { source, mode, .. } = self.open.remove(&request)?;
        let now = self.now(now);
        let bytes = match result {
            Ok(Answered::Plain(bytes)) => bytes,
            Ok(Answered::Proven(proof)) => match self.check(&proof) {
                Ok(bytes) => bytes,
                Err(answer) => {
                    self.exchange.handle_answer(request, answer, now);
                    let (statement, slice) = (proof.statement.bytes, proof.slice);
                    return Some(Evidence { index: source.index, statement, slice });
                }
            },
            Err(error) => {
                self.exchange.handle_failure(request, failure(&error), now);
                return None;
            }
        };
        if !self.is_wanted(source.index) {
            self.sources.insert(request, bytes);
            self.exchange.handle_answer(request, Answer::Right, now);
        } else if let Some(truth) = &self.truth {
            // A question of blame, answered after the bytes were found elsewhere.
            let answer = if *truth == bytes { Answer::Right } else { Answer::Unopened };
            self.exchange.handle_answer(request, answer, now);
        } else {
            self.offers.push_back(Offer::Asked { request, provider: source.provider, mode, bytes });
        }
        None
    }

    /// The proven bytes, or what the answer amounts to.
    fn check(&self, proof: &Proof) -> Result<Bytes, Answer> {
        judge(&proof.statement, &proof.slice, fragment_len(&self.placement)).map(Bytes::from)
    }

    /// What is offered opened.
    pub(super) fn accept(&mut self, now: Moment) {
        let Some(offer) = self.offers.pop_front() else { return };
        self.offers.clear();
        self.truth = Some(offer.bytes().clone());
        if let Offer::Asked { request, .. } = offer {
            self.exchange.handle_answer(request, Answer::Right, self.now(now));
        }
    }

    /// What is offered did not open, and this part is in question, `alone` or with others.
    pub(super) fn reject(&mut self, alone: bool, why: &str, now: Moment) -> Rejected {
        let now = self.now(now);
        match self.offers.pop_front() {
            Some(Offer::Asked { request, provider, mode: Mode::Plain, bytes }) => {
                self.refused.push(Refused { provider, bytes, alone });
                self.exchange.handle_answer(request, Answer::Unopened, now);
                Rejected::More
            }
            Some(Offer::Asked { request, mode: Mode::Proven, .. }) => {
                self.written_wrong = Some(why.to_owned());
                self.exchange.handle_answer(request, Answer::Unopened, now);
                Rejected::More
            }
            Some(decoded @ Offer::Decoded(_)) => {
                self.offers.push_front(decoded);
                Rejected::Final
            }
            None => Rejected::Final,
        }
    }

    /// The exchange has the bytes. Says whether they had to be decoded.
    pub(super) fn done(&mut self, outcome: &ReadOutcome) -> bool {
        match outcome {
            ReadOutcome::Direct { .. } => false,
            ReadOutcome::Decode { sources } => {
                let (bytes, is_decoded) = match &self.shared {
                    Some(Ok(bytes)) => (bytes.clone(), false),
                    Some(Err(_)) | None => (self.decode(sources), true),
                };
                self.truth = Some(bytes.clone());
                self.offers.push_front(Offer::Decoded(bytes));
                is_decoded
            }
        }
    }

    fn decode(&mut self, sources: &[(usize, RequestId)]) -> Bytes {
        match self.extent {
            Extent::Wanted => self.restore(sources, &[self.index]).remove(0),
            Extent::AllData => {
                let data = self.placement.scheme.data();
                let mut all: BTreeMap<usize, Bytes> = sources
                    .iter()
                    .filter(|(index, _)| *index < data)
                    .map(|(index, request)| (*index, self.sources[request].clone()))
                    .collect();
                let missing: Vec<usize> = (0..data).filter(|index| !all.contains_key(index)).collect();
                all.extend(missing.iter().copied().zip(self.restore(sources, &missing)));
                let own = all[&self.index].clone();
                self.columns = Some(all);
                own
            }
        }
    }

    /// Fragments that are not among the sources, from those.
    fn restore(&self, sources: &[(usize, RequestId)], wanted: &[usize]) -> Vec<Bytes> {
        if wanted.is_empty() {
            return Vec::new();
        }
        let indices: Vec<usize> = sources.iter().map(|(index, _)| *index).collect();
        let bytes: Vec<&[u8]> = sources.iter().map(|(_, request)| &self.sources[request][..]).collect();
        let len = bytes.first().map_or(0, |bytes| bytes.len());
        let mut decoded = vec![vec![0; len]; wanted.len()];
        let mut out: Vec<&mut [u8]> = decoded.iter_mut().map(Vec::as_mut_slice).collect();
        Decoder::new(self.placement.scheme, &indices, wanted)
            .expect("the exchange gives k distinct sources, and no wanted fragment is among them")
            .decode(&bytes, &mut out)
            .expect("proven ranges have the length that was asked for");
        decoded.into_iter().map(Bytes::from).collect()
    }

    /// The exchange has a verdict; gives what is to be told of it now.
    pub(super) fn verdict(
        &mut self,
        provider: PublicKey,
        verdict: Verdict,
        evidence: Option<&Evidence>,
    ) -> Option<Finding> {
        match verdict {
            Verdict::Suspect | Verdict::Evasive => {
                self.rumours.push((provider, verdict));
                None
            }
            Verdict::Liar { .. } | Verdict::Rotten | Verdict::Absent | Verdict::WriterFault => {
                Some(self.finding(provider, verdict, evidence))
            }
        }
    }

    fn finding(&self, provider: PublicKey, verdict: Verdict, evidence: Option<&Evidence>) -> Finding {
        Finding {
            provider,
            fragment: self.fragment_id(evidence.map_or(self.index, |evidence| evidence.index)),
            range: self.range(),
            verdict,
            statement: evidence.map(|evidence| evidence.statement.clone()),
            slice: evidence.map(|evidence| evidence.slice.clone()),
        }
    }

    /// After the exchange's outputs: gives back room that is not needed any more, and tells what is certain by now.
    pub(super) fn settle(&mut self, now: Moment) -> Vec<Finding> {
        let decodes = self.open.values().any(|open| !self.is_wanted(open.source.index));
        if !decodes {
            self.sources.clear();
            match std::mem::replace(&mut self.room, Room::Unasked) {
                Room::Waiting { since, task, .. } => {
                    self.paused += now.since(since);
                    task.iter().for_each(Ticket::cancel);
                }
                Room::Unasked | Room::Have { .. } => {}
            }
        }
        if self.truth.is_some() { self.tell_rumours() } else { Vec::new() }
    }

    /// Rumours about whoever was wrong. Plain bytes that were right all along say nothing against their provider: the
    /// wrong ones were another part's.
    fn tell_rumours(&mut self) -> Vec<Finding> {
        let rumours = std::mem::take(&mut self.rumours);
        let was_wrong = |provider: &PublicKey| {
            let refused = self.refused.iter().find(|refused| refused.provider == *provider);
            refused.is_none_or(|refused| match &self.truth {
                Some(truth) => refused.bytes != *truth,
                None => refused.alone,
            })
        };
        let wrong = rumours.into_iter().filter(|(provider, _)| was_wrong(provider));
        wrong.map(|(provider, verdict)| self.finding(provider, verdict, None)).collect()
    }

    pub(super) fn fail(&mut self, mut failed: ReadFailed) {
        if let Some(Err(shared)) = &self.shared {
            // Sources were asked for others as well: what those have met says who is of no use.
            let own = self.placement.fragments[self.index].holder;
            failed.reasons.retain(|(provider, _)| Some(*provider) == own);
            failed.reasons.extend_from_slice(&shared.reasons);
        }
        self.failed = Some(failed);
    }

    /// There is nothing to wait for, though bytes are missing.
    pub(super) fn stall(&mut self) {
        let needed = self.placement.scheme.data();
        self.failed.get_or_insert_with(|| ReadFailed { usable: 0, needed, reasons: Vec::new() });
        self.abandoned = true;
    }

    /// The read failed: what is known all the same.
    pub(super) fn give_up(&mut self) -> Vec<Finding> {
        self.offers.clear();
        self.tell_rumours()
    }

    /// Ends what is not just a question of blame.
    pub(super) fn drop_unfinished(&mut self) {
        if self.truth.is_none() {
            self.abandoned = true;
            let open = std::mem::take(&mut self.open);
            open.values().filter_map(|open| open.sent.as_ref()).for_each(|(task, _)| task.cancel());
            self.sources.clear();
            self.room = Room::Unasked;
        }
    }
}

/// Who holds something of a segment, the best for a range of so many bytes first, and those last who were found to
/// have lost it.
fn ranked(network: &Network, placement: &SegmentPlacement, bytes: u64) -> Vec<Source> {
    let fragments = placement.fragments.iter().enumerate();
    let mut sources: Vec<Source> = fragments
        .filter_map(|(index, fragment)| Some(Source { index, provider: fragment.holder? }))
        .collect();
    network.latency().rank(&mut sources, |source| source.provider, bytes, network.now());
    sources.sort_by_cached_key(|source| {
        (is_lost(network, placement, source), network.owes_answer(&source.provider))
    });
    sources
}

fn is_lost(network: &Network, placement: &SegmentPlacement, source: &Source) -> bool {
    network.is_lost(&source.provider, &placement.fragments[source.index].id)
}

/// When to ask others than `direct`, of whom the best is `others`' first.
fn hedge(network: &Network, direct: Option<PublicKey>, sources: &[Source], bytes: u64) -> ReadHedge {
    let others = sources.iter().map(|source| source.provider).filter(|provider| Some(*provider) != direct);
    let others: Vec<PublicKey> = others.collect();
    let (latency, now) = (network.latency(), network.now());
    let delay = |provider: &PublicKey| {
        if network.owes_answer(provider) {
            return Duration::ZERO;
        }
        latency.hedge_delay(provider, &others, bytes, now)
    };
    let first = direct.as_ref().map_or_else(Duration::default, delay);
    ReadHedge { first, next: others.first().map_or(first, delay) }
}

/// Whom to ask, in which order, and when to ask others as well. `None` when the placement has no such fragment.
fn plan(
    network: &Network,
    placement: &SegmentPlacement,
    index: usize,
    bytes: u64,
    check: Check,
) -> Option<ReadPlan> {
    let scheme = placement.scheme;
    let sources = ranked(network, placement, bytes);
    let is_direct = |source: &&Source| scheme.is_copies() || source.index == index;
    let direct = sources.iter().find(is_direct);
    let hedge = hedge(network, direct.map(|direct| direct.provider), &sources, bytes);
    let is_lost = |source: &Source| is_lost(network, placement, source);
    let usable = sources.iter().filter(|source| !is_direct(source) && !is_lost(source)).count();
    // A holder that was found without it is not asked again, as long as others are enough.
    if direct.is_some_and(is_lost) && !scheme.is_copies() && usable >= scheme.data() {
        return ReadPlan::around(scheme, index, &sources, check, hedge).ok();
    }
    ReadPlan::new(scheme, index, &sources, check, hedge).ok()
}

/// Whom to ask for all data fragments: first those that hold one, because their bytes are wanted themselves. The holder
/// of fragment `late` has been waited for already: it comes after the others that are there.
fn plan_of_all(network: &Network, placement: &SegmentPlacement, late: usize, bytes: u64) -> Option<ReadPlan> {
    let (scheme, mut sources) = (placement.scheme, ranked(network, placement, bytes));
    sources.sort_by_cached_key(|source| {
        let is_lost = is_lost(network, placement, source);
        let (holder, owes) = (&source.provider, network.owes_answer(&source.provider));
        let is_away = owes || network.is_down(holder) || network.is_silent(holder);
        (is_lost, is_away, source.index == late, source.index >= scheme.data())
    });
    let hedge = hedge(network, None, &sources, bytes);
    ReadPlan::of_any(scheme, &sources, hedge).ok()
}

/// What a failed call means for the exchange.
fn failure(error: &CallError) -> ReadFailure {
    match error {
        CallError::Unreachable { .. } | CallError::WrongPeer { .. } | CallError::WrongVersion { .. } => {
            ReadFailure::Unreachable
        }
        CallError::Refused { problem, .. } => match problem.code {
            ProblemCode::NotFound | ProblemCode::Rotten => ReadFailure::Missing,
            _ => ReadFailure::Refused,
        },
        CallError::Slow { .. } => ReadFailure::Slow,
        CallError::Malformed { .. } => ReadFailure::Garbled,
    }
}

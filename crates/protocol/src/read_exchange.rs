//! Reads one byte range of one fragment, in spite of slow, absent, rotten and lying holders.
//!
//! While all is well this is one plain request to the one holder, and nothing is decoded. When the holder is slow or
//! fails, the alternative starts: the same range of `k` other fragments, each with proof, to be decoded; for copies,
//! another copy. Whichever completes first wins and the rest is cancelled ("The Tail at Scale", Dean and Barroso,
//! 2013). A decode mixes its sources, so each must prove itself alone; a wrong source is replaced by another.
//!
//! **Blame.** Plain bytes that do not open prove nothing: the range is asked for again with a bao proof and a signed
//! statement, while the alternative runs. What comes back makes the verdict. This goes on after the bytes are found,
//! so outputs keep coming until [`ReadExchange::is_over`].
//!
//! This is a decision only. Bytes stay with the shell under their request's id, as do statements: it checks seals,
//! proofs and signatures, and reports what it found. Every request ends with an answer or a failure, since the
//! transport has deadlines; nothing here waits for a failure detector.

mod plan;
#[cfg(test)]
mod tests;

pub use plan::{Check, ReadHedge, ReadPlan, ReadPlanError, Source};

use crate::moment::Moment;
use seedbank_formats::PublicKey;
use std::collections::{BTreeMap, VecDeque};

/// Names one request of one exchange, and whatever the shell keeps of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// How a range is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The bytes alone.
    Plain,
    /// A signed statement and a slice that proves its bytes against the fragment's id.
    Proven,
}

/// What an answer turned out to be, once the shell has checked it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The bytes are right. Plain: the seal opened. Proven: the proof fits, and the seal, if the shell can tell,
    /// opened; for a source of a decode the proof is all there is.
    Right,
    /// The seal did not open. Plain: the bytes prove nothing. Proven: although the proof fits.
    Unopened,
    /// Proven only: the statement is signed and covers the slice, and the slice does not fit the fragment's id.
    Contradicted,
    /// Proven only: signed admission that the bytes rotted.
    Rotten,
    /// Proven only: signed admission that the fragment is not there.
    Absent,
}

/// Why a request gave no answer that can be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReadFailure {
    /// It said no.
    Refused,
    /// It said, unsigned, that it does not have the fragment or not intact.
    Missing,
    /// No connection was made.
    Unreachable,
    /// The connection broke, or the answer was cut short.
    Interrupted,
    /// The transport's deadlines passed.
    Slow,
    /// The answer is malformed: too long, badly signed, or a statement about something else. No evidence.
    Garbled,
}

/// What is known about a provider after a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It signed for bytes that are not the fragment's: anyone can check its statement and slice.
    Liar {
        /// The request whose statement and slice are the evidence.
        evidence: RequestId,
    },
    /// It admits, signed, that its bytes rotted.
    Rotten,
    /// It admits, signed, that it does not hold the fragment.
    Absent,
    /// It was wrong at first and right with proof: local ranking only.
    Suspect,
    /// It was wrong at first, and then gave no signed word: local ranking only.
    Evasive,
    /// It proved that it holds what was written, and that does not open: the writer's or the layout's fault, and
    /// never the provider's.
    WriterFault,
}

/// What the shell is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadOutput {
    /// Ask `provider` for the range of fragment `index`.
    Ask {
        /// The name of this request from now on.
        request: RequestId,
        /// Whom.
        provider: PublicKey,
        /// For which fragment.
        index: usize,
        /// Plain or with proof.
        mode: Mode,
    },
    /// Nobody waits for this request any more; its bytes may be dropped.
    Cancel {
        /// Which one.
        request: RequestId,
    },
    /// Tell whoever ranks or reports providers. May come before or after the result.
    Verdict {
        /// About whom.
        provider: PublicKey,
        /// What.
        verdict: Verdict,
    },
    /// The bytes are there.
    Done(ReadOutcome),
    /// They can't be had.
    Failed(ReadFailed),
}

/// Where the bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadOutcome {
    /// In the answer to this request.
    Direct {
        /// Which one.
        request: RequestId,
    },
    /// To be decoded from these `k` proven answers, by rising index. If what comes out does not open, the writer or
    /// the layout is at fault, and no other source can help.
    Decode {
        /// Index and request of each.
        sources: Vec<(usize, RequestId)>,
    },
}

/// Why a range can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("too few fragments can be read: usable={usable} needed={needed}{}", listed(.reasons))]
pub struct ReadFailed {
    /// Other fragments that may still be good: too few for a decode. Always 0 for copies.
    pub usable: usize,
    /// How many would do.
    pub needed: usize,
    /// What was wrong with whom, in the order in which it was noticed.
    pub reasons: Vec<(PublicKey, Reason)>,
}

/// Who was of no use, for people: each provider once, with the last that is known of it.
fn listed(reasons: &[(PublicKey, Reason)]) -> String {
    let last: BTreeMap<&PublicKey, &Reason> =
        reasons.iter().map(|(provider, reason)| (provider, reason)).collect();
    let told = last.iter().map(|(provider, reason)| match reason {
        Reason::Failure(failure) => format!("{} {failure:?}", provider.short()),
        Reason::Verdict(verdict) => format!("{} {verdict:?}", provider.short()),
    });
    let told: Vec<String> = told.collect();
    if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) }
}

/// Why one provider was of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It gave nothing that can be checked.
    Failure(ReadFailure),
    /// It gave something that was wrong.
    Verdict(Verdict),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// May give the wanted bytes as they are.
    Direct,
    /// Asks a provider again that gave wrong bytes or none. Its bytes are as good as direct ones.
    Blame,
    /// One of the sources of a decode.
    Part,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    source: Source,
    role: Role,
    mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Reading,
    /// The result is out; only blame is still on its way.
    Finished,
}

/// The state of one range's read.
#[derive(Debug)]
pub struct ReadExchange {
    plan: ReadPlan,
    phase: Phase,
    /// Holders of the wanted bytes that were not asked yet.
    direct: VecDeque<Source>,
    /// Holders of other fragments that were not asked yet.
    parts: VecDeque<Source>,
    decoding: bool,
    proven: BTreeMap<usize, RequestId>,
    requests: BTreeMap<RequestId, Request>,
    requests_made: u64,
    /// How many parts were usable when the decode was given up.
    usable_at_end: Option<usize>,
    hedge_at: Option<Moment>,
    reasons: Vec<(PublicKey, Reason)>,
    outputs: VecDeque<ReadOutput>,
}

impl ReadExchange {
    /// Begins: the first outputs are there at once.
    #[must_use]
    pub fn new(plan: ReadPlan, now: Moment) -> ReadExchange {
        let first_delay = plan.hedge.first;
        let mut exchange = ReadExchange {
            phase: Phase::Reading,
            direct: plan.direct.iter().copied().collect(),
            parts: plan.parts.iter().copied().collect(),
            plan,
            decoding: false,
            proven: BTreeMap::new(),
            requests: BTreeMap::new(),
            requests_made: 0,
            usable_at_end: None,
            hedge_at: None,
            reasons: Vec::new(),
            outputs: VecDeque::new(),
        };
        exchange.start_next(now);
        if !exchange.decoding {
            exchange.hedge_at = exchange.anything_left().then(|| now.plus(first_delay));
        }
        exchange.settle();
        exchange.handle_timeout(now);
        exchange
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<ReadOutput> {
        self.outputs.pop_front()
    }

    /// When to call [`ReadExchange::handle_timeout`] if nothing else happens. Ask again after every event.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Moment> {
        self.hedge_at
    }

    /// Whether the result is out and no request is open. The shell may drop the exchange earlier, and loses verdicts.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Finished && self.requests.is_empty()
    }

    /// The shell has checked the answer to `request`. Answers to cancelled requests change nothing.
    pub fn handle_answer(&mut self, request: RequestId, answer: Answer, now: Moment) {
        let Some(asked) = self.requests.remove(&request) else { return };
        match (answer, asked.mode, asked.role) {
            (Answer::Right, _, Role::Direct) => self.finish(ReadOutcome::Direct { request }),
            (Answer::Right, _, Role::Blame) => {
                self.verdict(asked, Verdict::Suspect);
                self.finish(ReadOutcome::Direct { request });
            }
            (Answer::Right | Answer::Unopened, _, Role::Part) => {
                self.proven.insert(asked.source.index, request);
            }
            (Answer::Unopened, Mode::Plain, Role::Direct | Role::Blame) => self.accuse(asked.source, now),
            (Answer::Unopened, Mode::Proven, Role::Direct | Role::Blame) => {
                self.verdict(asked, Verdict::WriterFault);
                self.proven_but_unopened(now);
            }
            (Answer::Contradicted, _, _) => self.condemn(asked, Verdict::Liar { evidence: request }, now),
            (Answer::Rotten, _, _) => self.condemn(asked, Verdict::Rotten, now),
            (Answer::Absent, _, _) => self.condemn(asked, Verdict::Absent, now),
        }
        self.settle();
    }

    /// There is no answer to `request`.
    pub fn handle_failure(&mut self, request: RequestId, failure: ReadFailure, now: Moment) {
        let Some(asked) = self.requests.remove(&request) else { return };
        match (asked.role, asked.mode, failure) {
            (Role::Blame, _, _) => self.verdict(asked, Verdict::Evasive),
            // Unsigned, it is only a rumour; signed, it tells the steward what to repair.
            (Role::Direct, Mode::Plain, ReadFailure::Missing | ReadFailure::Garbled) => {
                self.accuse(asked.source, now)
            }
            (Role::Direct | Role::Part, _, _) => {
                self.reasons.push((asked.source.provider, Reason::Failure(failure)));
            }
        }
        self.start_alternative(asked.role, now);
        self.settle();
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Moment) {
        // A loop for delays of zero. It ends, because each turn takes a source or finds none left.
        while self.hedge_at.is_some_and(|at| at <= now) {
            self.start_next(now);
            self.settle();
        }
    }

    /// How many requests a hedge at [`ReadExchange::poll_timeout`] would begin, for whoever has to pay for it. None: more
    /// sources for a decode belong to the hedge that began it.
    #[must_use]
    pub fn hedge_requests(&self) -> u32 {
        let decode = || u32::try_from(self.plan.scheme.data()).unwrap_or(u32::MAX);
        match (self.direct.is_empty(), self.decoding) {
            (false, _) => 1,
            (true, false) => decode(),
            (true, true) => 0,
        }
    }

    /// The next hedge is not to be before `until`. Failures start the alternative all the same.
    pub fn postpone(&mut self, until: Moment) {
        self.hedge_at = self.hedge_at.map(|_| until);
    }

    /// Asks whoever comes next: another holder of the same bytes, else the sources of a decode, else one more source for
    /// each that is missing. When several are gone, they are replaced together: one after the other, each would cost a
    /// delay.
    fn start_next(&mut self, now: Moment) {
        if let Some(source) = self.direct.pop_front() {
            let mode = match self.plan.check {
                Check::Seal => Mode::Plain,
                Check::Proof => Mode::Proven,
            };
            self.ask(source, Role::Direct, mode);
        } else if !self.decoding && self.decode_possible() {
            self.decoding = true;
            self.ask_missing_parts();
        } else if self.decoding {
            let missing = self.plan.scheme.data().saturating_sub(self.proven.len()).min(self.parts.len());
            for source in self.parts.drain(..missing).collect::<Vec<Source>>() {
                self.ask(source, Role::Part, Mode::Proven);
            }
        }
        self.hedge_at = self.anything_left().then(|| now.plus(self.plan.hedge.next));
    }

    fn anything_left(&self) -> bool {
        !self.direct.is_empty() || (!self.parts.is_empty() && self.decode_possible())
    }

    fn ask(&mut self, source: Source, role: Role, mode: Mode) {
        let request = RequestId(self.requests_made);
        self.requests_made += 1;
        self.requests.insert(request, Request { source, role, mode });
        let Source { index, provider } = source;
        self.outputs.push_back(ReadOutput::Ask { request, provider, index, mode });
    }

    /// Wrong bytes or a denial, unsigned: asks for the signed word, and for the bytes elsewhere.
    fn accuse(&mut self, source: Source, now: Moment) {
        self.ask(source, Role::Blame, Mode::Proven);
        self.start_alternative(Role::Direct, now);
    }

    fn condemn(&mut self, asked: Request, verdict: Verdict, now: Moment) {
        self.verdict(asked, verdict);
        self.start_alternative(asked.role, now);
    }

    fn verdict(&mut self, asked: Request, verdict: Verdict) {
        let provider = asked.source.provider;
        self.reasons.push((provider, Reason::Verdict(verdict)));
        self.outputs.push_back(ReadOutput::Verdict { provider, verdict });
    }

    /// Other copies have the same id, hence the same bytes, and are no use. Other fragments are: the writer may have
    /// damaged this one after it computed them.
    fn proven_but_unopened(&mut self, now: Moment) {
        if self.plan.scheme.is_copies() {
            self.direct.clear();
            self.cancel(|request| request.role == Role::Direct);
        } else {
            self.start_alternative(Role::Direct, now);
        }
    }

    /// After a request of this role came to nothing. Lost parts are replaced by [`ReadExchange::settle`], and for a
    /// blamed provider the alternative runs already.
    fn start_alternative(&mut self, role: Role, now: Moment) {
        if self.phase == Phase::Reading && role == Role::Direct && !self.decoding {
            self.start_next(now);
        }
    }

    fn parts_live(&self) -> usize {
        self.requests.values().filter(|request| request.role == Role::Part).count()
    }

    fn parts_usable(&self) -> usize {
        self.proven.len() + self.parts_live() + self.parts.len()
    }

    fn decode_possible(&self) -> bool {
        !self.plan.scheme.is_copies() && self.parts_usable() >= self.plan.scheme.data()
    }

    fn ask_missing_parts(&mut self) {
        while self.proven.len() + self.parts_live() < self.plan.scheme.data() {
            let Some(source) = self.parts.pop_front() else { return };
            self.ask(source, Role::Part, Mode::Proven);
        }
    }

    /// After every event: completes a decode, keeps it supplied, gives it up, or gives up altogether.
    fn settle(&mut self) {
        if self.phase == Phase::Finished {
            return;
        }
        if self.proven.len() >= self.plan.scheme.data() {
            let sources = self.proven.iter().map(|(index, request)| (*index, *request)).collect();
            return self.finish(ReadOutcome::Decode { sources });
        }
        if self.decoding && self.decode_possible() {
            self.ask_missing_parts();
        } else if self.decoding {
            self.usable_at_end = self.usable_at_end.or(Some(self.parts_usable()));
            self.cancel(|request| request.role == Role::Part);
        }
        if !self.anything_left() {
            self.hedge_at = None;
        }
        if self.requests.is_empty() && self.direct.is_empty() {
            self.fail();
        }
    }

    fn cancel(&mut self, which: impl Fn(&Request) -> bool) {
        let cancelled = self.requests.iter().filter(|(_, request)| which(request));
        let cancelled: Vec<RequestId> = cancelled.map(|(request, _)| *request).collect();
        for request in cancelled {
            self.requests.remove(&request);
            self.outputs.push_back(ReadOutput::Cancel { request });
        }
    }

    fn finish(&mut self, outcome: ReadOutcome) {
        if self.phase == Phase::Finished {
            return; // Blame that came late: the bytes were found elsewhere.
        }
        self.phase = Phase::Finished;
        self.hedge_at = None;
        self.cancel(|request| request.role != Role::Blame);
        self.outputs.push_back(ReadOutput::Done(outcome));
    }

    fn fail(&mut self) {
        self.phase = Phase::Finished;
        self.hedge_at = None;
        self.outputs.push_back(ReadOutput::Failed(ReadFailed {
            usable: self.usable_at_end.unwrap_or_else(|| self.parts_usable()),
            needed: self.plan.scheme.data(),
            reasons: std::mem::take(&mut self.reasons),
        }));
    }
}

//! Places the `n` fragments of one segment on `n` providers, in spite of slow and failing ones.
//!
//! A hedged write keeps its index: when a provider is slow, the *same* fragment also goes to a spare, the first receipt
//! wins and the loser's claim is released. One provider never ends up with two indices of one segment, because losing
//! it would then cost two fragments at once. Data indices come first for spares, so that a healthy read never decodes;
//! when no spare is left, a provider that took a parity index takes the data index instead and gives the parity up,
//! which is then reported as missing.
//!
//! This is a decision only: bytes, connections, signatures and clocks belong to the shell, which carries out the
//! outputs in order and reports back. It checks receipts before it reports them. It ends a cancelled request before it
//! sends the release that follows, and keeps reporting receipts that come late, even after the end: each gets its
//! release. Nothing is retried on the same provider, since reconnecting is the transport's business.

mod plan;
#[cfg(test)]
mod tests;

pub use plan::{Slot, StorePlan, StorePlanError, StorePolicy};

use crate::moment::Moment;
use seedbank_formats::PublicKey;
use std::collections::VecDeque;
use std::time::Duration;

/// Why one provider did not take a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreFailure {
    /// It said no: over quota, read-only, full. It holds nothing.
    Refused,
    /// No connection was made, and nothing was sent.
    Unreachable,
    /// The connection broke after bytes were sent. It may hold the fragment.
    Interrupted,
    /// It was given up because others were faster or time ran out. It may hold the fragment.
    Slow,
    /// It answered with a receipt that is false or for something else. It may hold anything.
    Liar,
}

impl StoreFailure {
    /// Whether the provider may have stored the fragment all the same, so that its claim must be released.
    fn may_hold(self) -> bool {
        match self {
            StoreFailure::Refused | StoreFailure::Unreachable => false,
            StoreFailure::Interrupted | StoreFailure::Slow | StoreFailure::Liar => true,
        }
    }
}

/// What the shell is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreOutput {
    /// Store fragment `index` on the provider; its `attempt` counts from 0 within the index.
    Send {
        /// Which fragment.
        index: usize,
        /// On whom.
        provider: PublicKey,
        /// How many providers were sent this index before.
        attempt: usize,
    },
    /// Stop sending; nobody waits for the answer any more.
    Cancel {
        /// Which fragment.
        index: usize,
        /// To whom.
        provider: PublicKey,
    },
    /// Give back the claim, which may or may not exist. Safe to repeat.
    Release {
        /// On which fragment.
        index: usize,
        /// On whom.
        provider: PublicKey,
    },
    /// The segment is placed well enough.
    Done(StoreOutcome),
    /// The segment is not placed, and all that was stored has been released.
    Failed(StoreFailed),
}

/// Who holds what in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOutcome {
    /// The holder of each index.
    pub holders: Vec<Option<PublicKey>>,
    /// The indices without a holder, to be completed later in this order: data first.
    pub missing: Vec<usize>,
    /// Every provider that disappointed, in the order in which it was noticed.
    pub failures: Vec<(PublicKey, StoreFailure)>,
}

/// Why a segment could not be placed. Choose other providers, or come back later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("too few providers took the segment: held={held} needed={minimum} data_missing={data_missing}")]
pub struct StoreFailed {
    /// Indices that had a holder.
    pub held: usize,
    /// How many were needed.
    pub minimum: usize,
    /// Data indices without a holder; always 0 for copies.
    pub data_missing: usize,
    /// Every provider that disappointed, in the order in which it was noticed.
    pub failures: Vec<(PublicKey, StoreFailure)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AttemptState {
    /// Sent, and not answered yet.
    Live,
    /// Its receipt came first.
    Holds,
    /// Failed, cancelled, or moved to another index: whatever it holds of this one is not wanted.
    Over,
}

#[derive(Debug)]
struct Attempt {
    provider: PublicKey,
    since: Moment,
    state: AttemptState,
    /// The parity index that the provider gives up if it gets this one.
    vacates: Option<usize>,
}

#[derive(Debug, Default)]
struct Index {
    holder: Option<PublicKey>,
    attempts: Vec<Attempt>,
}

impl Index {
    fn latest_live(&self) -> Option<Moment> {
        self.live().map(|attempt| attempt.since).max()
    }

    fn live(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|attempt| attempt.state == AttemptState::Live)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Placing,
    /// The result is out. Late receipts still get their release.
    Finished,
}

/// The state of one segment's placement.
#[derive(Debug)]
pub struct StoreExchange {
    plan: StorePlan,
    policy: StorePolicy,
    started: Moment,
    phase: Phase,
    indices: Vec<Index>,
    spares: VecDeque<PublicKey>,
    /// How long each receipt took, sorted. At most one per index.
    completions: Vec<Duration>,
    failures: Vec<(PublicKey, StoreFailure)>,
    outputs: VecDeque<StoreOutput>,
}

impl StoreExchange {
    /// Begins: the first outputs are there at once.
    #[must_use]
    pub fn new(plan: StorePlan, policy: StorePolicy, now: Moment) -> StoreExchange {
        let mut exchange = StoreExchange {
            indices: plan.slots.iter().map(|_| Index::default()).collect(),
            spares: plan.spares.iter().copied().collect(),
            plan,
            policy,
            started: now,
            phase: Phase::Placing,
            completions: Vec::new(),
            failures: Vec::new(),
            outputs: VecDeque::new(),
        };
        for index in 0..exchange.indices.len() {
            match exchange.plan.slots[index] {
                Slot::Held(provider) => exchange.indices[index].holder = Some(provider),
                Slot::Candidate(provider) => exchange.send(index, provider, None, now),
                Slot::Vacant => {}
            }
        }
        exchange.step(now);
        exchange
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<StoreOutput> {
        self.outputs.pop_front()
    }

    /// When to call [`StoreExchange::handle_timeout`] if nothing else happens. Ask again after every event.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Moment> {
        if self.phase == Phase::Finished {
            return None;
        }
        let delay = self.policy.hedge_delay(self.median());
        let hedges = self.unheld().filter(|&index| self.next_provider(index).is_some());
        hedges
            .filter_map(|index| Some(self.indices[index].latest_live()?.plus(delay)))
            .chain(self.stragglers_end())
            .chain([self.deadline()])
            .min()
    }

    /// A checked receipt of `provider` for fragment `index` came in, however late or often.
    pub fn handle_receipt(&mut self, index: usize, provider: PublicKey, now: Moment) {
        let Some(position) = self.position(index, provider) else {
            return; // Never asked: the shell reports only what it sent, so there is nothing to release.
        };
        match self.indices[index].attempts[position].state {
            AttemptState::Live => self.win(index, position, now),
            AttemptState::Holds => {}
            AttemptState::Over => self.outputs.push_back(StoreOutput::Release { index, provider }),
        }
        self.step(now);
    }

    /// `provider` will not answer for fragment `index`.
    pub fn handle_failure(&mut self, index: usize, provider: PublicKey, failure: StoreFailure, now: Moment) {
        let Some(position) = self.position(index, provider) else { return };
        let attempt = &mut self.indices[index].attempts[position];
        if attempt.state != AttemptState::Live {
            return; // Already decided without it.
        }
        attempt.state = AttemptState::Over;
        self.failures.push((provider, failure));
        if failure.may_hold() {
            self.outputs.push_back(StoreOutput::Release { index, provider });
        }
        self.step(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.step(now);
    }

    fn position(&self, index: usize, provider: PublicKey) -> Option<usize> {
        self.indices.get(index)?.attempts.iter().position(|attempt| attempt.provider == provider)
    }

    fn unheld(&self) -> impl Iterator<Item = usize> {
        self.indices.iter().enumerate().filter(|(_, index)| index.holder.is_none()).map(|(number, _)| number)
    }

    fn median(&self) -> Option<Duration> {
        self.completions.get(self.completions.len() / 2).copied()
    }

    fn deadline(&self) -> Moment {
        self.started.plus(self.policy.deadline)
    }

    fn send(&mut self, index: usize, provider: PublicKey, vacates: Option<usize>, now: Moment) {
        let attempts = &mut self.indices[index].attempts;
        self.outputs.push_back(StoreOutput::Send { index, provider, attempt: attempts.len() });
        attempts.push(Attempt { provider, since: now, state: AttemptState::Live, vacates });
    }

    /// Starts what is due, then sees whether this is the end.
    fn step(&mut self, now: Moment) {
        if self.phase == Phase::Finished {
            return;
        }
        self.start_attempts(now);
        let all_held = self.unheld().next().is_none();
        let waiting = self.indices.iter().any(|index| index.live().next().is_some());
        let stragglers_over = self.stragglers_end().is_some_and(|end| end <= now);
        if all_held || !waiting || self.out_of_reach() || stragglers_over || self.deadline() <= now {
            self.finish(now);
        }
    }

    fn start_attempts(&mut self, now: Moment) {
        let delay = self.policy.hedge_delay(self.median());
        let unheld: Vec<usize> = self.unheld().collect();
        for index in unheld {
            let due = self.indices[index].latest_live().is_none_or(|since| since.plus(delay) <= now);
            if !due {
                continue;
            }
            if let Some((provider, vacates)) = self.next_provider(index) {
                if vacates.is_none() {
                    self.spares.pop_front();
                }
                self.send(index, provider, vacates, now);
            }
        }
    }

    /// Who would get `index` next: a spare, or for a data index the holder of a parity index, which it gives up.
    fn next_provider(&self, index: usize) -> Option<(PublicKey, Option<usize>)> {
        if let Some(spare) = self.spares.front() {
            return Some((*spare, None));
        }
        let scheme = self.plan.scheme;
        if scheme.is_copies() || index >= scheme.data() {
            return None;
        }
        let parity = (scheme.data()..scheme.total()).rev();
        parity.into_iter().find_map(|parity| Some((self.movable(parity, index)?, Some(parity))))
    }

    /// The provider that took `parity` in this exchange, if it may be asked for `index` instead. Holders from before
    /// are left alone: somebody may be reading from them.
    fn movable(&self, parity: usize, index: usize) -> Option<PublicKey> {
        let holds = |attempt: &&Attempt| attempt.state == AttemptState::Holds;
        let provider = self.indices[parity].attempts.iter().find(holds)?.provider;
        let mut live = self.indices.iter().flat_map(Index::live);
        let moving = live.any(|attempt| attempt.vacates == Some(parity));
        (!moving && self.position(index, provider).is_none()).then_some(provider)
    }

    fn win(&mut self, index: usize, position: usize, now: Moment) {
        let attempts = &mut self.indices[index].attempts;
        let winner = &mut attempts[position];
        winner.state = AttemptState::Holds;
        let (provider, since, vacates) = (winner.provider, winner.since, winner.vacates);
        self.indices[index].holder = Some(provider);
        let took = now.since(since);
        let place = self.completions.partition_point(|other| *other <= took);
        self.completions.insert(place, took);
        if let Some(parity) = vacates {
            self.vacate(parity, provider);
        }
        self.cancel_live(index, |attempt| attempt.since < since);
    }

    /// Takes `parity` from its holder, which now holds a data index.
    fn vacate(&mut self, parity: usize, provider: PublicKey) {
        let position = self.position(parity, provider).expect("only a holder's index is vacated");
        self.indices[parity].attempts[position].state = AttemptState::Over;
        self.indices[parity].holder = None;
        self.outputs.push_back(StoreOutput::Release { index: parity, provider });
    }

    /// Ends the index's attempts under way. Not all of them were slow: a spare may only have come too late.
    fn cancel_live(&mut self, index: usize, slow: impl Fn(&Attempt) -> bool) {
        let live = |attempt: &&mut Attempt| attempt.state == AttemptState::Live;
        for attempt in self.indices[index].attempts.iter_mut().filter(live) {
            attempt.state = AttemptState::Over;
            let provider = attempt.provider;
            if slow(attempt) {
                self.failures.push((provider, StoreFailure::Slow));
            }
            self.outputs.push_back(StoreOutput::Cancel { index, provider });
            self.outputs.push_back(StoreOutput::Release { index, provider });
        }
    }

    fn held(&self) -> usize {
        self.indices.iter().filter(|index| index.holder.is_some()).count()
    }

    /// Data indices without a holder. Copies are all alike, so none of theirs is special.
    fn data_missing(&self) -> usize {
        let scheme = self.plan.scheme;
        if scheme.is_copies() { 0 } else { self.unheld().filter(|&index| index < scheme.data()).count() }
    }

    fn enough(&self) -> bool {
        self.held() >= self.plan.minimum && self.data_missing() == 0
    }

    /// Whether the minimum can't be reached even if every attempt under way succeeds.
    fn out_of_reach(&self) -> bool {
        let open = self.unheld().filter(|&index| self.indices[index].latest_live().is_some());
        self.held() + open.count() < self.plan.minimum
    }

    /// When the last attempts are given up: only once there is enough. A hedge is due earlier than this and counts as
    /// the latest attempt, so no spare is left by then.
    fn stragglers_end(&self) -> Option<Moment> {
        if !self.enough() {
            return None;
        }
        let latest = self.unheld().filter_map(|index| self.indices[index].latest_live()).max()?;
        Some(latest.plus(self.policy.straggler_delay(self.median())))
    }

    fn finish(&mut self, now: Moment) {
        self.phase = Phase::Finished;
        let delay = self.policy.hedge_delay(self.median());
        for index in 0..self.indices.len() {
            self.cancel_live(index, |attempt| attempt.since.plus(delay) <= now);
        }
        if !self.enough() {
            return self.fail();
        }
        self.outputs.push_back(StoreOutput::Done(StoreOutcome {
            holders: self.indices.iter().map(|index| index.holder).collect(),
            missing: self.unheld().collect(),
            failures: std::mem::take(&mut self.failures),
        }));
    }

    fn fail(&mut self) {
        let failed = StoreFailed {
            held: self.held(),
            minimum: self.plan.minimum,
            data_missing: self.data_missing(),
            failures: std::mem::take(&mut self.failures),
        };
        for (index, state) in self.indices.iter_mut().enumerate() {
            for attempt in state.attempts.iter_mut().filter(|attempt| attempt.state == AttemptState::Holds) {
                attempt.state = AttemptState::Over;
                self.outputs.push_back(StoreOutput::Release { index, provider: attempt.provider });
            }
        }
        self.outputs.push_back(StoreOutput::Failed(failed));
    }
}

//! How much hedging a reader allows itself, and against whom it needs no leave.
//!
//! A hedge asks for bytes that are on their way already. When one holder is slow that is cheap; when the reader's own
//! machine or link is full, every answer is late, and asking for more makes all of them later. So hedges are paid for
//! from a budget, as retries are elsewhere ("The Tail at Scale", Dean and Barroso, 2013, bounds them at 5 %): each
//! request earns a twentieth of one, and a few may be spent at once. A reader that was itself late to look at the clock
//! waits once more for as long: the answer may be here already.
//!
//! *Silence* needs no leave. A holder that has not given anything for a while, although it was asked, is not late in
//! its turn but gone, and then reading must go on elsewhere at once. It stays so until it is heard again. Failures don't
//! come here at all: a refused connection starts the alternative whatever the budget says.

use crate::latency::PROVIDERS_MAX;
use crate::moment::Moment;
use seedbank_formats::PublicKey;
use std::collections::BTreeMap;
use std::time::Duration;

/// Requests that earn a hedge of one request.
const REQUESTS_PER_HEDGE: u32 = 20;

/// Requests of hedges that may be spent at once: four decodes at `k = 4`, for a process that reads one range.
const BURST_REQUESTS: u32 = 16;

/// Whoever gave nothing for so long, and for longer than it usually needs, is silent. Readers must not be without bytes
/// for a second when several fall silent at once, so two of these and a decode fit into one.
const SILENCE: Duration = Duration::from_millis(250);

/// How soon to ask for leave again.
const AGAIN: Duration = Duration::from_millis(50);

/// Later than this after its time, and the process was waiting for a processor itself.
const LATE: Duration = Duration::from_millis(5);

/// What becomes of a hedge whose time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// It is sent now.
    Given,
    /// Not before then.
    Later(Moment),
}

/// A hedge whose time has come.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// Whom it does not wait for any longer, if it is one.
    pub against: Option<PublicKey>,
    /// How long that one may take for what it was asked.
    pub patience: Duration,
    /// How many requests it is.
    pub requests: u32,
    /// When it was due.
    pub due: Moment,
}

#[derive(Debug, Default)]
struct Peer {
    /// Requests under way.
    open: u32,
    /// Since when it owes an answer and gave none.
    quiet_since: Option<Moment>,
}

/// The hedging of one client.
#[derive(Debug)]
pub struct Hedging {
    /// In twentieths of a request.
    saved: u32,
    peers: BTreeMap<PublicKey, Peer>,
}

impl Default for Hedging {
    fn default() -> Hedging {
        Hedging { saved: BURST_REQUESTS * REQUESTS_PER_HEDGE, peers: BTreeMap::new() }
    }
}

impl Hedging {
    /// A provider was asked for something.
    pub fn asked(&mut self, provider: PublicKey, now: Moment) {
        self.saved = (self.saved + 1).min(BURST_REQUESTS * REQUESTS_PER_HEDGE);
        if self.peers.len() >= PROVIDERS_MAX {
            self.peers.retain(|_, peer| peer.open > 0);
        }
        let peer = self.peers.entry(provider).or_default();
        peer.open = peer.open.saturating_add(1);
        peer.quiet_since.get_or_insert(now);
    }

    /// A provider gave something, or broke off: it is not silent.
    pub fn heard(&mut self, provider: &PublicKey, now: Moment) {
        let Some(peer) = self.peers.get_mut(provider) else { return };
        peer.open = peer.open.saturating_sub(1);
        if peer.open == 0 {
            self.peers.remove(provider);
        } else {
            peer.quiet_since = Some(now);
        }
    }

    /// A question was taken back before there was an answer.
    pub fn taken_back(&mut self, provider: &PublicKey, now: Moment) {
        let Some(peer) = self.peers.get_mut(provider) else { return };
        peer.open = peer.open.saturating_sub(1);
        let was_silent = peer.quiet_since.is_some_and(|since| now.since(since) >= SILENCE);
        if peer.open == 0 && !was_silent {
            self.peers.remove(provider);
        }
    }

    /// Whether a provider owes an answer for too long by any measure. Whoever has a choice asks others.
    #[must_use]
    pub fn is_silent(&self, provider: &PublicKey, now: Moment) -> bool {
        self.quiet(provider, now) >= SILENCE
    }

    fn quiet(&self, provider: &PublicKey, now: Moment) -> Duration {
        let since = self.peers.get(provider).and_then(|peer| peer.quiet_since);
        since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// Decides about a hedge whose time has come, and pays for it.
    pub fn leave(&mut self, wish: &Wish, now: Moment) -> Leave {
        let late = now.since(wish.due);
        let quiet = wish.against.map_or(Duration::ZERO, |provider| self.quiet(&provider, now));
        let patience = wish.patience.max(SILENCE).saturating_add(late);
        if quiet >= patience {
            return Leave::Given;
        }
        let silent_at = now.plus(patience - quiet);
        if late >= LATE {
            return Leave::Later(now.plus(late).min(silent_at));
        }
        let price = wish.requests.saturating_mul(REQUESTS_PER_HEDGE);
        match self.saved.checked_sub(price) {
            Some(left) => {
                self.saved = left;
                Leave::Given
            }
            None => Leave::Later(now.plus(AGAIN).min(silent_at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AGAIN, BURST_REQUESTS, Hedging, Leave, REQUESTS_PER_HEDGE, SILENCE, Wish};
    use crate::moment::Moment;
    use proptest::prelude::{any, proptest};
    use seedbank_formats::PublicKey;
    use std::time::Duration;

    const START: Moment = Moment(Duration::from_secs(100));
    const PROVIDER: PublicKey = PublicKey([1; 32]);

    fn at(millis: u64) -> Moment {
        START.plus(Duration::from_millis(millis))
    }

    fn wish(requests: u32, due: Moment) -> Wish {
        Wish { against: Some(PROVIDER), patience: Duration::from_millis(20), requests, due }
    }

    fn spent() -> Hedging {
        let mut hedging = Hedging::default();
        assert_eq!(hedging.leave(&wish(BURST_REQUESTS, START), START), Leave::Given);
        hedging
    }

    #[test]
    fn hedges_of_a_busy_reader_are_a_twentieth_of_its_requests() {
        let mut hedging = spent();
        let mut given = 0;
        for nth in 0..10_000 {
            let now = at(nth);
            hedging.asked(PROVIDER, now);
            given += u32::from(hedging.leave(&wish(1, now), now) == Leave::Given);
            hedging.heard(&PROVIDER, now);
        }
        assert_eq!(given, 10_000 / REQUESTS_PER_HEDGE);
    }

    #[test]
    fn hedge_against_silence_needs_no_budget() {
        let mut hedging = spent();
        hedging.asked(PROVIDER, START);
        assert_eq!(hedging.leave(&wish(4, at(20)), at(20)), Leave::Later(at(20).plus(AGAIN)));
        assert_eq!(hedging.leave(&wish(4, at(240)), at(240)), Leave::Later(START.plus(SILENCE)));
        assert_eq!(hedging.leave(&wish(4, at(250)), at(250)), Leave::Given);
        // It gives something: it was only slow.
        hedging.asked(PROVIDER, at(300));
        hedging.heard(&PROVIDER, at(310));
        assert!(!hedging.is_silent(&PROVIDER, at(400)));
        assert_eq!(hedging.leave(&wish(4, at(400)), at(400)), Leave::Later(at(400).plus(AGAIN)));
    }

    #[test]
    fn who_usually_needs_long_is_not_silent_before() {
        let mut hedging = spent();
        hedging.asked(PROVIDER, START);
        let slow = Wish { patience: Duration::from_secs(3), ..wish(4, at(2_000)) };
        assert!(matches!(hedging.leave(&slow, at(2_000)), Leave::Later(_)));
        assert_eq!(hedging.leave(&Wish { due: at(3_000), ..slow }, at(3_000)), Leave::Given);
    }

    #[test]
    fn silence_lasts_until_the_provider_is_heard_and_a_short_question_is_none() {
        let mut hedging = Hedging::default();
        hedging.asked(PROVIDER, at(0));
        hedging.taken_back(&PROVIDER, at(5));
        assert!(!hedging.is_silent(&PROVIDER, at(10_000)), "it had no time to answer");
        hedging.asked(PROVIDER, at(10_000));
        hedging.taken_back(&PROVIDER, at(10_300));
        assert!(hedging.is_silent(&PROVIDER, at(11_000)));
        hedging.asked(PROVIDER, at(11_000));
        assert!(hedging.is_silent(&PROVIDER, at(11_001)), "it owes an answer since the first question");
        hedging.heard(&PROVIDER, at(11_002));
        assert!(!hedging.is_silent(&PROVIDER, at(12_000)));
    }

    #[test]
    fn who_was_late_to_look_waits_once_more_as_long() {
        let mut hedging = Hedging::default();
        hedging.asked(PROVIDER, START);
        assert_eq!(hedging.leave(&wish(4, at(20)), at(60)), Leave::Later(at(100)));
        assert_eq!(hedging.leave(&wish(4, at(100)), at(101)), Leave::Given);
    }

    proptest! {
        /// Whatever happens, a reader that waits for one holder gets leave before that one was silent for long.
        #[test]
        fn leave_comes_in_bounded_time(late in proptest::collection::vec(0_u64..40, 1..50), spend in any::<bool>()) {
            let mut hedging = if spend { spent() } else { Hedging::default() };
            hedging.asked(PROVIDER, START);
            let (mut due, mut late) = (at(20), late.into_iter().cycle());
            loop {
                let now = due.plus(Duration::from_millis(late.next().unwrap()));
                match hedging.leave(&wish(4, due), now) {
                    Leave::Given => break,
                    Leave::Later(next) => {
                        assert!(next > now);
                        due = next;
                    }
                }
                assert!(now < at(400), "no leave after {:?}", now.since(START));
            }
        }
    }
}

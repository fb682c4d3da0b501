//! How often the chain is asked about vouchers of lanes that never had one. Pure.
//!
//! Anybody can sign for a lane that the chain does not have, with keys that cost nothing. Asking about each would use up what an endpoint
//! allows, and proofs go through the same one.

use std::time::{Duration, Instant};

/// Questions that may come at once: a home that begins to read with many processes has a lane for each.
const AT_ONCE: u32 = 64;
/// In the long run, one in so much time.
const EVERY: Duration = Duration::from_millis(500);

/// What is left of both.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// When all that was asked would have been spread out.
    paid_until: Option<Instant>,
}

impl Strangers {
    /// Whether one may be asked about now; then it counts.
    pub(super) fn may_ask(&mut self, now: Instant) -> bool {
        let paid_until = self.paid_until.map_or(now, |until| until.max(now));
        let fits = paid_until + EVERY <= now + EVERY * AT_ONCE;
        if fits {
            self.paid_until = Some(paid_until + EVERY);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::{AT_ONCE, EVERY, Strangers};
    use std::time::Instant;

    #[test]
    fn many_may_come_at_once_and_then_a_few_in_a_while() {
        let (mut strangers, begin) = (Strangers::default(), Instant::now());
        let asked = (0..1_000).filter(|_| strangers.may_ask(begin)).count();
        assert_eq!(asked, usize::try_from(AT_ONCE).unwrap());
        assert!(!strangers.may_ask(begin + EVERY / 2));
        assert!(strangers.may_ask(begin + EVERY));
        assert!(!strangers.may_ask(begin + EVERY));
        let later = begin + EVERY * 10;
        assert_eq!((0..1_000).filter(|_| strangers.may_ask(later)).count(), 9);
        let rested = later + EVERY * 1_000;
        assert_eq!((0..1_000).filter(|_| strangers.may_ask(rested)).count(), asked);
    }
}

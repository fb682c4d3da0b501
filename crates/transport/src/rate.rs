//! How often somebody may do something: a bucket of turns for each, which fills at a steady rate.
//!
//! Whoever asks too often waits for a turn instead of being refused, so that an honest burst only takes longer and a
//! flood is as fast as everybody else's steady use.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;
use tokio::time::Instant;

/// Above this many, those who have all their turns again are forgotten.
const REMEMBERED: usize = 4_096;

/// How often one may act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run.
    pub per_second: u32,
    /// At once, after a rest.
    pub burst: u32,
}

impl Rate {
    fn one_turn(self) -> Duration {
        Duration::from_secs(1) / self.per_second.max(1)
    }

    /// How far ahead of the steady rate one may be.
    fn lead(self) -> Duration {
        self.one_turn() * self.burst.saturating_sub(1)
    }
}

/// Turns of everybody who acts.
#[derive(Debug)]
pub(crate) struct Rates<K> {
    rate: Rate,
    /// Whoever would wait longer gets no turn: a flood must not take the turns of the hours that follow.
    wait_max: Duration,
    /// When each would be level with the steady rate; no entry means long ago.
    level_at: HashMap<K, Instant>,
    forget_above: usize,
}

impl<K: Eq + Hash> Rates<K> {
    pub(crate) fn new(rate: Rate, wait_max: Duration) -> Rates<K> {
        Rates { rate, wait_max, level_at: HashMap::new(), forget_above: REMEMBERED }
    }

    /// Takes a turn, if one comes soon enough; says when.
    pub(crate) fn turn(&mut self, of: K, now: Instant) -> Option<Instant> {
        if self.level_at.len() >= self.forget_above {
            self.level_at.retain(|_, level_at| *level_at > now);
            // Those that are left are all busy: looking at them again soon would cost more than they do.
            self.forget_above = REMEMBERED.max(2 * self.level_at.len());
        }
        let level_at = self.level_at.entry(of).or_insert(now);
        let steady = (*level_at).max(now);
        let turn = steady.checked_sub(self.rate.lead()).map_or(now, |at| at.max(now));
        if turn > now + self.wait_max {
            return None;
        }
        *level_at = steady + self.rate.one_turn();
        Some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::{REMEMBERED, Rate, Rates};
    use std::time::Duration;
    use tokio::time::Instant;

    fn rates() -> Rates<char> {
        Rates::new(Rate { per_second: 10, burst: 5 }, Duration::from_secs(1))
    }

    fn waits(rates: &mut Rates<char>, now: Instant, turns: u32) -> Vec<u128> {
        (0..turns).map(|_| (rates.turn('a', now).unwrap() - now).as_millis()).collect()
    }

    #[test]
    fn burst_is_free_and_what_follows_keeps_the_rate() {
        let (mut rates, start) = (rates(), Instant::now());
        assert_eq!(waits(&mut rates, start, 8), [0, 0, 0, 0, 0, 100, 200, 300]);
        assert_eq!(rates.turn('b', start), Some(start), "others have turns of their own");
        let later = start + Duration::from_secs(10);
        assert_eq!(waits(&mut rates, later, 6), [0, 0, 0, 0, 0, 100]);
    }

    #[test]
    fn flood_takes_no_turns_beyond_the_longest_wait() {
        let (mut rates, start) = (rates(), Instant::now());
        let taken = (0..1_000).filter(|_| rates.turn('a', start).is_some()).count();
        assert_eq!(taken, 15);
        let later = start + Duration::from_secs(1);
        assert!(rates.turn('a', later).is_some(), "the turns of one second came back");
    }

    #[test]
    fn those_who_rest_are_forgotten() {
        let start = Instant::now();
        let mut rates = Rates::new(Rate { per_second: 10, burst: 5 }, Duration::from_secs(1));
        for key in 0..10 * REMEMBERED {
            rates.turn(key, start + Duration::from_millis(u64::try_from(key).unwrap()));
        }
        assert!(rates.level_at.len() <= REMEMBERED);
    }
}

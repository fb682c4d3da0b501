//! What is known about each endpoint, and in which order they are asked. Pure: time is an argument.

use std::time::Duration;
use tokio::time::Instant;

/// Whether an endpoint serves what it must.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Identity {
    #[default]
    Unchecked,
    Right,
    /// With what it serves instead. Never asked again.
    Wrong(String),
}

/// What is known about an endpoint.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    pub(super) identity: Identity,
    /// The newest block that it has shown.
    pub(super) head: u64,
    /// Others show another block at the same height.
    pub(super) disputed: bool,
    failures: u32,
    rests_until: Option<Instant>,
}

const REST_MIN: Duration = Duration::from_secs(1);
/// A rebooted node is back after minutes; one that is gone for good costs a question every so often.
const REST_MAX: Duration = Duration::from_secs(120);

impl Health {
    pub(super) fn answered(&mut self) {
        self.failures = 0;
        self.rests_until = None;
    }

    pub(super) fn shows(&mut self, head: u64) {
        self.head = head;
    }

    /// Rests twice as long as the last time.
    pub(super) fn failed(&mut self, now: Instant) -> Duration {
        let rest = REST_MIN.saturating_mul(1 << self.failures.min(16)).min(REST_MAX);
        self.failures = self.failures.saturating_add(1);
        self.rests_until = Some(now + rest);
        rest
    }

    pub(super) fn is_worth_asking(&self, now: Instant) -> bool {
        !matches!(self.identity, Identity::Wrong(_)) && !self.rests(now)
    }

    fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    pub(super) fn problem(&self, best: u64, lag_blocks_max: u64, now: Instant) -> Option<String> {
        if let Identity::Wrong(why) = &self.identity {
            return Some(why.clone());
        }
        if self.rests(now) {
            return Some("failed, and is asked again later".to_owned());
        }
        if self.disputed {
            return Some("shows another block than the others".to_owned());
        }
        let behind = best.saturating_sub(self.head);
        (behind > lag_blocks_max).then(|| format!("{behind} blocks behind"))
    }
}

pub(super) fn best_head(each: &[Health]) -> u64 {
    let right = |health: &&Health| !matches!(health.identity, Identity::Wrong(_)) && !health.disputed;
    each.iter().filter(right).map(|health| health.head).max().unwrap_or(0)
}

/// In which order to ask: as configured, but first those without a problem, then the ones that are behind, then the ones that rest, then
/// the ones whose word stands against others'. Never those that serve something else.
/// Among equals the one at the place `first` comes first.
pub(super) fn order(each: &[Health], first: usize, lag_blocks_max: u64, now: Instant) -> Vec<usize> {
    let best = best_head(each);
    let mut order: Vec<usize> =
        (0..each.len()).filter(|&at| !matches!(each[at].identity, Identity::Wrong(_))).collect();
    // Stable: the configured order decides among equals.
    order.sort_by_key(|&at| {
        let health = &each[at];
        let behind = health.head.saturating_add(lag_blocks_max) < best;
        (health.disputed, health.rests(now), behind, at != first)
    });
    // All wrong: ask them, so that the caller is told why each is.
    if order.is_empty() { (0..each.len()).collect() } else { order }
}

/// Those whose block is not the one that most show; among equally many, the party of the endpoint configured first is believed.
pub(super) fn minority(shown: &[(usize, [u8; 32])]) -> Vec<usize> {
    let votes = |hash: &[u8; 32]| shown.iter().filter(|(_, other)| other == hash).count();
    let Some(most) = shown.iter().map(|(_, hash)| votes(hash)).max() else { return Vec::new() };
    let believed = shown.iter().find(|(_, hash)| votes(hash) == most).map(|(_, hash)| *hash);
    shown.iter().filter(|(_, hash)| Some(*hash) != believed).map(|(at, _)| *at).collect()
}

#[cfg(test)]
mod tests {
    use super::{Health, Identity, REST_MAX, REST_MIN, minority, order};
    use std::time::Duration;
    use tokio::time::Instant;

    fn at(head: u64) -> Health {
        Health { identity: Identity::Right, head, ..Health::default() }
    }

    #[test]
    fn who_is_to_be_asked_first_comes_before_its_equals_only() {
        let now = Instant::now();
        assert_eq!(order(&[at(100), at(101), at(99)], 2, 10, now), [2, 0, 1]);
        assert_eq!(order(&[at(100), at(101), at(80)], 2, 10, now), [0, 1, 2], "it is behind");
        assert_eq!(order(&[at(100), at(101)], 7, 10, now), [0, 1], "there is no such one");
    }

    #[test]
    fn endpoints_are_asked_as_configured_while_all_is_well() {
        assert_eq!(order(&[at(100), at(101), at(99)], 0, 10, Instant::now()), [0, 1, 2]);
    }

    #[test]
    fn one_that_is_behind_is_asked_after_the_others() {
        assert_eq!(order(&[at(80), at(101), at(99)], 0, 10, Instant::now()), [1, 2, 0]);
    }

    #[test]
    fn one_of_another_chain_is_never_asked_beside_a_right_one() {
        let wrong = Health { identity: Identity::Wrong("chain 1".to_owned()), ..at(1_000_000) };
        assert_eq!(order(&[wrong, at(1)], 0, 10, Instant::now()), [1], "and its head counts for nothing");
    }

    #[test]
    fn one_that_failed_rests_and_comes_back() {
        let now = Instant::now();
        let mut failed = at(5);
        failed.failed(now);
        let each = [failed, at(5)];
        assert_eq!(order(&each, 0, 10, now), [1, 0]);
        assert_eq!(order(&each, 0, 10, now + REST_MIN), [0, 1]);
    }

    #[test]
    fn rests_double_up_to_a_bound_and_an_answer_ends_them() {
        let now = Instant::now();
        let mut health = at(5);
        let rests: Vec<Duration> = (0..40).map(|_| health.failed(now)).collect();
        assert_eq!(rests[..3], [REST_MIN, REST_MIN * 2, REST_MIN * 4]);
        assert_eq!(rests[39], REST_MAX);
        health.answered();
        assert_eq!(health.failed(now), REST_MIN);
    }

    #[test]
    fn the_head_of_a_disputed_endpoint_makes_no_other_look_behind() {
        let liar = Health { disputed: true, ..at(1_000_000) };
        assert_eq!(order(&[at(5), liar, at(6)], 0, 10, Instant::now()), [0, 2, 1]);
    }

    #[test]
    fn the_smaller_party_is_disbelieved_and_a_tie_goes_to_the_first_configured() {
        let (a, b) = ([1; 32], [2; 32]);
        assert_eq!(minority(&[(0, b), (1, a), (2, a)]), [0]);
        assert_eq!(minority(&[(0, b), (1, a)]), [1]);
        assert_eq!(minority(&[(0, a), (1, a)]), [0; 0]);
        assert_eq!(minority(&[]), [0; 0]);
    }
}

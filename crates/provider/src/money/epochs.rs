//! When what is due in an epoch is done, and when the operator is warned. Pure.

use seedbank_agreement::{Amount, Epoch, EpochClock};
use seedbank_formats::Timestamp;
use std::time::Duration;

/// How far an epoch has gone, in 64ths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Elapsed(u64);

impl Elapsed {
    /// At a time of the chain. A time outside the epoch counts as its nearest end.
    pub(crate) fn at(clock: &EpochClock, epoch: Epoch, time: Timestamp) -> Elapsed {
        let since = time.0.saturating_sub(clock.begin(epoch).0);
        let seconds = u64::from(clock.epoch_seconds.max(1));
        Elapsed(since.saturating_mul(64).checked_div(seconds).unwrap_or(64).min(64))
    }
}

/// How urgent a proof is that was not sent yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// It is early.
    None,
    /// Half of the epoch is over.
    Warning,
    /// A quarter of it is left.
    Alarm,
}

/// How urgent a missing proof is.
pub(crate) fn urgency(elapsed: Elapsed) -> Urgency {
    match elapsed.0 {
        48.. => Urgency::Alarm,
        32.. => Urgency::Warning,
        _ => Urgency::None,
    }
}

/// What posting costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gas {
    /// Nothing, as on the embedded chain, or its price was not seen yet.
    Free,
    /// Something.
    Costs,
}

/// Whether revisions that wait are posted now: when it costs nothing, at once; else twice an epoch, so that the many
/// revisions of a busy day are one. A steward looks at three quarters, so the first time is before.
pub(crate) fn posts_now(elapsed: Elapsed, posted_in_epoch: bool, gas: Gas) -> bool {
    match gas {
        Gas::Free => true,
        Gas::Costs => (elapsed.0 >= 40 && !posted_in_epoch) || elapsed.0 >= 60,
    }
}

/// Terms as far as their pay goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pay {
    pub(crate) rate: Amount,
    pub(crate) from: Epoch,
    pub(crate) end: Epoch,
}

/// Whether posting new terms is worth what it costs: the old ones have brought so much since they were posted, or the new ones bring so much
/// more. Otherwise their client may post them: dust that changes every epoch costs it, and not the provider.
pub(crate) fn is_worth_posting(new: Pay, old: Pay, cost: Amount) -> bool {
    let over = |rate: Amount, from: Epoch, end: Epoch| {
        Amount(rate.0.saturating_mul(u128::from(end.0.saturating_sub(from.0))))
    };
    let brought = over(old.rate, old.from, new.from);
    let more = over(new.rate.saturating_sub(old.rate), new.from, new.end);
    let longer = over(new.rate, old.end.max(new.from), new.end);
    brought.max(more).max(longer) >= cost
}

/// What a question brings that is answered in its epoch: the bond, and what silence would lose. That is the agreement's part of a miss,
/// and its pay from the epoch on with which it would end: the second after the question's.
pub(crate) fn answer_brings(bond: Amount, pay: Pay, asked: Epoch, slash_epochs: u32) -> Amount {
    let paid = pay.end.0.saturating_sub(asked.0.saturating_add(2));
    let epochs = u128::from(slash_epochs) + u128::from(paid);
    bond.saturating_add(Amount(pay.rate.0.saturating_mul(epochs)))
}

/// Which endpoint a round asks first. Usually the one that the operator prefers; now and then, and after failures, each other one: so an
/// endpoint that alone tells lies about the chain's state can't keep a provider from proving.
pub(crate) fn asked_first(round: u64, failures: u32, endpoints: usize) -> usize {
    const EVERY: u64 = 8;
    let others = endpoints.saturating_sub(1);
    let place = |number: u64, of: usize| {
        let of = u64::try_from(of).unwrap_or(u64::MAX);
        usize::try_from(number.checked_rem(of).unwrap_or(0)).unwrap_or(0)
    };
    if failures > 0 {
        place(failures.into(), endpoints)
    } else if others > 0 && round % EVERY == EVERY - 1 {
        1 + place(round / EVERY, others)
    } else {
        0
    }
}

/// By how many seconds the chain's newest block is older than it should be, if that is so much that the chain stands still, the endpoint
/// shows old blocks, or a clock is wrong.
pub(crate) fn stands_still(block: Timestamp, now: Timestamp, epoch_seconds: u32) -> Option<u64> {
    const ALLOWED_MIN: u64 = 300;
    let late = now.0.saturating_sub(block.0);
    (late > ALLOWED_MIN.max(u64::from(epoch_seconds) / 16)).then_some(late)
}

/// How long a transaction may wait in one round: short enough that half of an epoch is noticed when it is over.
pub(crate) fn patience(epoch_seconds: u32) -> Duration {
    (Duration::from_secs(u64::from(epoch_seconds)) / 16).max(Duration::from_secs(5))
}

/// How long to wait before the chain is looked at again.
pub(crate) fn pause(epoch_seconds: u32) -> Duration {
    const SHORTEST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(20);
    (Duration::from_secs(u64::from(epoch_seconds)) / 256).clamp(SHORTEST, LONGEST)
}

/// How long to wait after so many failures in a row.
pub(crate) fn pause_after(failures: u32, epoch_seconds: u32) -> Duration {
    let doubled = pause(epoch_seconds).saturating_mul(1 << failures.min(8));
    // However long the epoch is, a proof is tried again many times in it.
    doubled.min(Duration::from_secs(u64::from(epoch_seconds).div_ceil(32)).max(pause(epoch_seconds)))
}

#[cfg(test)]
mod tests {
    use super::{
        Elapsed, Gas, Pay, Urgency, answer_brings, asked_first, is_worth_posting, pause, pause_after,
        posts_now, stands_still, urgency,
    };
    use seedbank_agreement::{Amount, Epoch, EpochClock};
    use seedbank_formats::Timestamp;
    use std::time::Duration;

    const DAY: u32 = 86_400;

    fn at(second: u64) -> Elapsed {
        let clock = EpochClock { genesis: Timestamp(1_000), epoch_seconds: DAY };
        Elapsed::at(&clock, Epoch(2), Timestamp(1_000 + 2 * u64::from(DAY) + second))
    }

    #[test]
    fn operator_is_warned_at_half_and_alarmed_at_three_quarters_of_an_epoch() {
        let day = u64::from(DAY);
        assert_eq!(urgency(at(0)), Urgency::None);
        assert_eq!(urgency(at(day / 2 - 1)), Urgency::None);
        assert_eq!(urgency(at(day / 2)), Urgency::Warning);
        assert_eq!(urgency(at(day * 3 / 4 - 1)), Urgency::Warning);
        assert_eq!(urgency(at(day * 3 / 4)), Urgency::Alarm);
        assert_eq!(urgency(at(10 * day)), Urgency::Alarm);
    }

    #[test]
    fn revisions_are_posted_in_batches_before_the_epoch_ends() {
        let day = u64::from(DAY);
        assert!(posts_now(at(0), true, Gas::Free));
        assert!(!posts_now(at(day / 2), false, Gas::Costs));
        assert!(posts_now(at(day * 5 / 8), false, Gas::Costs), "before the steward looks");
        assert!(!posts_now(at(day * 3 / 4), true, Gas::Costs));
        assert!(posts_now(at(day * 15 / 16), true, Gas::Costs), "what came late");
    }

    #[test]
    fn terms_are_posted_that_bring_what_posting_costs_and_dust_is_left_to_its_client() {
        let pay = |rate, from, end| Pay { rate: Amount(rate), from: Epoch(from), end: Epoch(end) };
        let cost = Amount(1_000);
        let old = pay(100, 10, 30);
        assert!(!is_worth_posting(pay(100, 11, 30), old, cost), "changed in every epoch");
        assert!(!is_worth_posting(pay(1, 19, 30), old, cost));
        assert!(is_worth_posting(pay(1, 20, 30), old, cost), "ten epochs brought it");
        assert!(is_worth_posting(pay(200, 20, 30), old, cost));
        assert!(is_worth_posting(pay(153, 11, 30), old, cost), "it brings more");
        assert!(is_worth_posting(pay(100, 11, 40), old, cost), "it lasts longer");
        assert!(is_worth_posting(pay(0, 11, 30), old, Amount(0)), "free gas");
    }

    #[test]
    fn every_endpoint_is_asked_first_now_and_then_and_at_once_after_a_failure() {
        let rounds =
            |endpoints| -> Vec<usize> { (0..24).map(|round| asked_first(round, 0, endpoints)).collect() };
        assert_eq!(rounds(1), [0; 24]);
        let of_three = rounds(3);
        assert_eq!(of_three.iter().filter(|place| **place == 0).count(), 21);
        assert!(of_three.contains(&1) && of_three.contains(&2));
        assert_eq!((1..5).map(|failures| asked_first(3, failures, 2)).collect::<Vec<_>>(), [1, 0, 1, 0]);
        assert_eq!(asked_first(3, 1, 0), 0);
    }

    #[test]
    fn old_newest_block_is_noticed_and_a_pause_between_blocks_is_not() {
        let (block, five) = (Timestamp(1_000), 300);
        assert_eq!(stands_still(block, Timestamp(1_000 + five), 150), None);
        assert_eq!(stands_still(block, Timestamp(1_001 + five), 150), Some(301));
        assert_eq!(stands_still(block, Timestamp(1_000 + 5_400), DAY), None);
        assert_eq!(stands_still(block, Timestamp(500), DAY), None, "the chain may be ahead");
    }

    #[test]
    fn answer_brings_the_bond_and_what_silence_would_lose() {
        let pay = |end| Pay { rate: Amount(100), from: Epoch(1), end: Epoch(end) };
        assert_eq!(answer_brings(Amount(7), pay(20), Epoch(10), 2), Amount(7 + 200 + 800));
        assert_eq!(answer_brings(Amount(7), pay(12), Epoch(10), 2), Amount(207), "it ends then anyway");
        assert_eq!(answer_brings(Amount(7), pay(11), Epoch(10), 2), Amount(207));
        assert_eq!(answer_brings(Amount::MAX, pay(20), Epoch(u32::MAX), 2), Amount::MAX);
    }

    #[test]
    fn proof_is_tried_again_many_times_in_an_epoch() {
        assert_eq!(pause(DAY), Duration::from_secs(20));
        assert_eq!(pause(10), Duration::from_millis(200));
        let mut sum = Duration::ZERO;
        let tries = (0..).take_while(|failures| {
            sum += pause_after(*failures, DAY);
            sum < Duration::from_secs(u64::from(DAY))
        });
        assert!(tries.count() >= 32);
        assert!(pause_after(30, 10) <= Duration::from_secs(1));
    }
}

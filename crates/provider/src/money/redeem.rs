//! When vouchers are cashed. Pure.
//!
//! A voucher is worth nothing more on chain than in the book, and cashing costs gas: so it waits until a batch pays, until
//! it is old, or until its payer is about to leave.

use seedbank_agreement::{Amount, Lane};
use seedbank_formats::Timestamp;

/// Vouchers in one transaction: some 3 M gas.
pub(crate) const BATCH_MAX: usize = 50;
/// Gas of a batch itself, and of each voucher in it.
const BATCH_GAS: u64 = 60_000;
const VOUCHER_GAS: u64 = 60_000;

/// A lane's best voucher, as far as it was not cashed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// What cashing it brings.
    pub(crate) due: Amount,
    /// When the oldest part of that came.
    pub(crate) since: Timestamp,
    pub(crate) payer: Payer,
}

/// What the payer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payer {
    Stays,
    /// Its exit is announced: what is not cashed by then is lost.
    Leaves,
}

/// What decides whether cashing pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// A batch must bring so many times its gas.
    pub(crate) factor: u32,
    /// A voucher that is so old is cashed as soon as it is worth its own gas.
    pub(crate) age_s: u64,
    /// Token units for a unit of gas.
    pub(crate) gas_price: Amount,
}

/// Whether cashing a lane may bring more than its own gas, as far as the books know.
pub(crate) fn is_worth_asking(lane: &Lane, rules: &Rules) -> bool {
    let more = lane.promised().saturating_sub(lane.cover().redeemed);
    more.0 > u128::from(VOUCHER_GAS).saturating_mul(rules.gas_price.0)
}

/// The lanes to cash now, at most [`BATCH_MAX`].
pub(crate) fn due(waiting: &[Waiting], rules: &Rules, now: Timestamp) -> Vec<usize> {
    let cost = |gas: u64| u128::from(gas).saturating_mul(rules.gas_price.0);
    let own = cost(VOUCHER_GAS);
    let mut worth: Vec<usize> = (0..waiting.len()).filter(|at| waiting[*at].due.0 > own).collect();
    // A payer that leaves is cashed whatever it costs beside: there is no later.
    worth.sort_by_key(|at| (waiting[*at].payer == Payer::Stays, std::cmp::Reverse(waiting[*at].due)));
    worth.truncate(BATCH_MAX);

    let urgent = |at: &usize| {
        let voucher = &waiting[*at];
        let alone = voucher.due.0 > own.saturating_add(cost(BATCH_GAS));
        alone && (voucher.payer == Payer::Leaves || voucher.since.plus_seconds(rules.age_s) <= now)
    };
    let sum = worth.iter().fold(0u128, |sum, at| sum.saturating_add(waiting[*at].due.0));
    let count = u64::try_from(worth.len()).unwrap_or(u64::MAX);
    let gas = cost(BATCH_GAS + count * VOUCHER_GAS);
    let pays = !worth.is_empty() && sum >= gas.saturating_mul(u128::from(rules.factor));
    if pays || worth.iter().any(urgent) { worth } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::{BATCH_MAX, Payer, Rules, Waiting, due};
    use seedbank_agreement::Amount;
    use seedbank_formats::Timestamp;

    const NOW: Timestamp = Timestamp(1_000_000);
    const RULES: Rules = Rules { factor: 20, age_s: 1_000, gas_price: Amount(1) };

    fn voucher(units: u128) -> Waiting {
        Waiting { due: Amount(units), since: NOW, payer: Payer::Stays }
    }

    #[test]
    fn batch_waits_until_it_brings_a_multiple_of_its_gas() {
        let enough = 20 * (60_000 + 2 * 60_000);
        let half = voucher(enough / 2);
        assert_eq!(due(&[half, half], &RULES, NOW), [0, 1]);
        assert!(due(&[half, voucher(enough / 2 - 1)], &RULES, NOW).is_empty());
        assert!(due(&[], &RULES, NOW).is_empty());
    }

    #[test]
    fn old_voucher_is_cashed_once_it_is_worth_its_own_gas() {
        let old = Waiting { since: Timestamp(NOW.0 - 1_000), ..voucher(120_001) };
        assert_eq!(due(&[old], &RULES, NOW), [0]);
        assert!(due(&[Waiting { since: Timestamp(NOW.0 - 999), ..old }], &RULES, NOW).is_empty());
        assert!(due(&[Waiting { due: Amount(120_000), ..old }], &RULES, NOW).is_empty(), "gas would eat it");
    }

    #[test]
    fn payer_that_leaves_is_cashed_at_once_and_first() {
        let leaves = Waiting { payer: Payer::Leaves, ..voucher(130_000) };
        assert_eq!(due(&[voucher(1_000_000), leaves], &RULES, NOW), [1, 0]);
        let mut many = vec![voucher(10_000_000); BATCH_MAX + 5];
        many.push(leaves);
        let cashed = due(&many, &RULES, NOW);
        assert_eq!((cashed.len(), cashed[0]), (BATCH_MAX, BATCH_MAX + 5));
    }

    #[test]
    fn dust_is_left_out_of_a_batch_and_free_gas_takes_all() {
        assert_eq!(due(&[voucher(60_000), voucher(9_000_000)], &RULES, NOW), [1]);
        let free = Rules { gas_price: Amount(0), ..RULES };
        assert_eq!(due(&[voucher(1), voucher(0)], &free, NOW), [0]);
    }
}

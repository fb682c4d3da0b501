//! What is paid for gas, and when that is too much. Pure.

use crate::transaction::Fees;
use std::time::Duration;

/// How transactions are paid for and waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendPolicy {
    /// More gas than this is not offered: a call that needs more is a mistake, or must be split.
    pub gas_limit_max: u64,
    /// Above this price of a unit of gas, in wei, a transaction waits. None: any price is paid.
    pub gas_price_max: Option<u128>,
    /// How many blocks must hold a transaction, with its own, until it counts as done.
    pub confirmations: u64,
    /// How often a transaction is looked for.
    pub poll: Duration,
    /// A transaction that is in no block after this time is sent again at a higher price.
    pub stuck_after: Duration,
    /// Whoever waits for a transaction is told after this time that it is still pending.
    pub patience: Duration,
}

/// Room for four words.
const WORDS_GAS: u64 = 4 * 17_100;

impl SendPolicy {
    /// For the embedded chain, where a block is made for each transaction at once, and nobody reorganises.
    #[must_use]
    pub fn local() -> Self {
        Self {
            gas_limit_max: GAS_LIMIT_MAX,
            gas_price_max: None,
            confirmations: 1,
            poll: Duration::from_millis(20),
            stuck_after: Duration::from_secs(30),
            patience: Duration::from_secs(120),
        }
    }

    /// For a public chain with blocks every few seconds.
    #[must_use]
    pub fn public() -> Self {
        Self {
            gas_limit_max: GAS_LIMIT_MAX,
            gas_price_max: None,
            confirmations: 3,
            poll: Duration::from_secs(1),
            stuck_after: Duration::from_secs(60),
            patience: Duration::from_secs(20 * 60),
        }
    }

    /// The limit for a call that was estimated: what it does may cost more in the block that it gets into. Others may set to zero what
    /// it writes to, and a word that was zero costs 17,100 gas more (EIP-2929); our calls write few words that others write. Gas that
    /// is not used is not paid.
    pub(crate) fn limit(&self, estimate: u64) -> Result<u64, TooMuchGas> {
        if estimate > self.gas_limit_max {
            return Err(TooMuchGas { estimate, max: self.gas_limit_max });
        }
        Ok(estimate.saturating_add(estimate / 5).saturating_add(WORDS_GAS).min(self.gas_limit_max))
    }

    /// What to offer now, beside what was offered for the same nonce before.
    pub(crate) fn fees(&self, market: Market, before: Option<Fees>) -> Result<Fees, TooDear> {
        let least = before.map_or(0, |before| raised(before.max()));
        let cap = self.gas_price_max.unwrap_or(u128::MAX);
        let too_dear = |price| Err(TooDear { price, cap });
        match market {
            Market::Legacy { price } => {
                let price = price.max(least);
                if price > cap { too_dear(price) } else { Ok(Fees::Legacy { price }) }
            }
            Market::London { base, tip } => {
                // A replacement must offer more of both.
                let tip = match before {
                    Some(Fees::London { tip: before, .. }) => tip.max(raised(before)),
                    Some(Fees::Legacy { .. }) | None => tip,
                };
                let needed = base.saturating_add(tip).max(least);
                if needed > cap {
                    return too_dear(needed);
                }
                // Twice the base fee stays enough for six full blocks; what isn't needed isn't paid.
                let max = base.saturating_mul(2).saturating_add(tip).max(least).min(cap);
                Ok(Fees::London { max, tip })
            }
        }
    }
}

/// The largest call is a proof with K = 42 in the plain form, about 8.5 million; half of a block of BTTC.
const GAS_LIMIT_MAX: u64 = 15_000_000;

/// Nodes replace a waiting transaction only by one that offers a tenth more; a quarter gets through a rising market in few steps.
fn raised(price: u128) -> u128 {
    price.saturating_add(price / 4).saturating_add(1)
}

/// What gas costs now, in wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Market {
    Legacy { price: u128 },
    London { base: u128, tip: u128 },
}

/// More gas than is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMuchGas {
    pub(crate) estimate: u64,
    pub(crate) max: u64,
}

/// A higher price than is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooDear {
    pub(crate) price: u128,
    pub(crate) cap: u128,
}

#[cfg(test)]
mod tests {
    use super::{Market, SendPolicy, TooDear, TooMuchGas};
    use crate::transaction::Fees;

    fn capped(cap: u128) -> SendPolicy {
        SendPolicy { gas_price_max: Some(cap), ..SendPolicy::public() }
    }

    #[test]
    fn the_limit_leaves_room_for_words_that_others_clear_and_ends_at_the_cap() {
        let policy = SendPolicy { gas_limit_max: 200_000, ..SendPolicy::local() };
        assert_eq!(policy.limit(50_000), Ok(60_000 + 4 * 17_100));
        assert_eq!(policy.limit(199_000), Ok(200_000));
        assert_eq!(policy.limit(200_001), Err(TooMuchGas { estimate: 200_001, max: 200_000 }));
    }

    #[test]
    fn the_market_price_is_paid_up_to_the_cap_and_not_above() {
        let price = |price| Market::Legacy { price };
        assert_eq!(capped(100).fees(price(100), None), Ok(Fees::Legacy { price: 100 }));
        assert_eq!(capped(100).fees(price(101), None), Err(TooDear { price: 101, cap: 100 }));
        assert_eq!(
            SendPolicy::local().fees(price(0), None),
            Ok(Fees::Legacy { price: 0 }),
            "a chain without gas price"
        );
    }

    #[test]
    fn a_chain_with_london_is_offered_room_for_a_rising_base_fee_within_the_cap() {
        let market = Market::London { base: 50, tip: 2 };
        assert_eq!(capped(1_000).fees(market, None), Ok(Fees::London { max: 102, tip: 2 }));
        assert_eq!(capped(60).fees(market, None), Ok(Fees::London { max: 60, tip: 2 }));
        assert_eq!(capped(51).fees(market, None), Err(TooDear { price: 52, cap: 51 }));
    }

    #[test]
    fn a_replacement_offers_a_quarter_more_than_before_at_least() {
        let before = Some(Fees::Legacy { price: 100 });
        assert_eq!(capped(1_000).fees(Market::Legacy { price: 90 }, before), Ok(Fees::Legacy { price: 126 }));
        assert_eq!(
            capped(1_000).fees(Market::Legacy { price: 300 }, before),
            Ok(Fees::Legacy { price: 300 })
        );
        assert_eq!(
            capped(110).fees(Market::Legacy { price: 90 }, before),
            Err(TooDear { price: 126, cap: 110 })
        );
        let before = Some(Fees::London { max: 102, tip: 2 });
        let market = Market::London { base: 10, tip: 2 };
        assert_eq!(capped(1_000).fees(market, before), Ok(Fees::London { max: 128, tip: 3 }));
    }
}

//! What transactions cost, and how long the coin for them lasts. Pure.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A sum of the chain's own coin, in its smallest part. In JSON it is a string of digits: most readers' numbers have 53 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Wei(pub u128);

impl fmt::Display for Wei {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl Serialize for Wei {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Wei {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Wei, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Wei).map_err(serde::de::Error::custom)
    }
}

/// What a transaction was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    /// Entry in the registry, and stake.
    Register,
    /// Offers that became agreements.
    Open,
    /// Epochs closed, agreements moved on, seeds sealed.
    Advance,
    Prove,
    /// Clients' questions.
    Answer,
    /// Revisions.
    Post,
    /// Vouchers.
    Cash,
}

impl Work {
    /// As books and reports spell it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Work::Register => "register",
            Work::Open => "open",
            Work::Advance => "advance",
            Work::Prove => "prove",
            Work::Answer => "answer",
            Work::Post => "post",
            Work::Cash => "cash",
        }
    }

    /// What can't be put off to a later epoch.
    pub(crate) const EACH_EPOCH: [Work; 3] = [Work::Advance, Work::Prove, Work::Answer];
}

/// With coin for fewer epochs than this the operator is told: a holiday's worth.
const EPOCHS_LOW: u128 = 14;

/// For how many epochs the coin lasts, if that is so few that the operator should know. `an_epoch` is what the dearest of the last ones
/// cost; nothing is known of a chain on which none did.
pub(crate) fn runs_low(coin: Wei, an_epoch: Wei) -> Option<u128> {
    let lasts = coin.0.checked_div(an_epoch.0)?;
    (lasts < EPOCHS_LOW).then_some(lasts)
}

#[cfg(test)]
mod tests {
    use super::{Wei, runs_low};

    #[test]
    fn coin_for_less_than_a_fortnight_of_epochs_is_low_and_free_gas_never_is() {
        assert_eq!(runs_low(Wei(1_400), Wei(100)), None);
        assert_eq!(runs_low(Wei(1_399), Wei(100)), Some(13));
        assert_eq!(runs_low(Wei(99), Wei(100)), Some(0));
        assert_eq!(runs_low(Wei(0), Wei(0)), None);
    }

    #[test]
    fn sums_beyond_64_bits_survive_json() {
        let text = serde_json::to_string(&Wei(u128::MAX)).unwrap();
        assert_eq!(serde_json::from_str::<Wei>(&text).unwrap(), Wei(u128::MAX));
        assert!(serde_json::from_str::<Wei>("\"-1\"").is_err());
    }
}

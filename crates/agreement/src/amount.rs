//! Money: whole numbers of a token's smallest unit, never rounded by themselves.

use std::fmt;
use std::str::FromStr;

/// An amount of the token's smallest unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(pub u128);

impl Amount {
    /// Nothing.
    pub const ZERO: Amount = Amount(0);
    /// The most there can be.
    pub const MAX: Amount = Amount(u128::MAX);

    /// Both together, or `None` if no such amount exists.
    #[must_use]
    pub fn checked_add(self, other: Amount) -> Option<Amount> {
        self.0.checked_add(other.0).map(Amount)
    }

    /// What is left without `other`, or `None` if there is less.
    #[must_use]
    pub fn checked_sub(self, other: Amount) -> Option<Amount> {
        self.0.checked_sub(other.0).map(Amount)
    }

    /// So many times this, or `None` if no such amount exists.
    #[must_use]
    pub fn checked_mul(self, times: impl Into<u128>) -> Option<Amount> {
        self.0.checked_mul(times.into()).map(Amount)
    }

    /// The sum, at most [`Amount::MAX`].
    #[must_use]
    pub fn saturating_add(self, other: Amount) -> Amount {
        Amount(self.0.saturating_add(other.0))
    }

    /// What is left without `other`, at least nothing.
    #[must_use]
    pub fn saturating_sub(self, other: Amount) -> Amount {
        Amount(self.0.saturating_sub(other.0))
    }

    /// As whole tokens for people, of a token with so many decimals: `1.5`. Exact: no digit is dropped but zeros at the end.
    #[must_use]
    pub fn in_tokens(self, decimals: u8) -> String {
        let places = usize::from(decimals);
        let digits = format!("{:0>width$}", self.0, width = places + 1);
        let (whole, fraction) = digits.split_at(digits.len() - places);
        let fraction = fraction.trim_end_matches('0');
        if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
    }

    /// Reads what [`Amount::in_tokens`] shows: digits, at most one point.
    ///
    /// # Errors
    /// [`ParseAmountError`] for anything else, and for more digits behind the point than the token has.
    pub fn from_tokens(text: &str, decimals: u8) -> Result<Amount, ParseAmountError> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err(ParseAmountError::NotANumber);
        }
        let fraction = fraction.trim_end_matches('0');
        let missing = usize::from(decimals)
            .checked_sub(fraction.len())
            .ok_or(ParseAmountError::TooFine { decimals })?;
        let units = format!("{whole}{fraction}{}", "0".repeat(missing));
        units.parse().map(Amount).map_err(|_| ParseAmountError::TooMuch)
    }
}

/// Why a text is no amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseAmountError {
    /// Something but digits and one point.
    #[error("an amount has digits and at most one point")]
    NotANumber,
    /// The token can't be split so finely.
    #[error("the token has {decimals} digits behind the point")]
    TooFine {
        /// How finely it can be.
        decimals: u8,
    },
    /// More than 2^128 - 1 units.
    #[error("there is no such large amount")]
    TooMuch,
}

impl fmt::Display for Amount {
    /// In units.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl FromStr for Amount {
    type Err = ParseAmountError;

    /// Reads units.
    fn from_str(text: &str) -> Result<Amount, ParseAmountError> {
        Amount::from_tokens(text, 0)
    }
}

impl std::iter::Sum for Amount {
    /// # Panics
    /// If no such amount exists: no sum of money that exists reaches 2^128.
    fn sum<I: Iterator<Item = Amount>>(mut amounts: I) -> Amount {
        amounts
            .try_fold(Amount::ZERO, Amount::checked_add)
            .expect("all amounts of one token are below 2^128 units")
    }
}

impl serde::Serialize for Amount {
    /// As text: JSON's numbers are exact up to 2^53 only.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Amount {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Amount, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What an epoch costs, in the token's smallest unit: below 2^96, as the contracts hold it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "Amount", into = "Amount")]
pub struct Rate(u128);

/// The contracts hold rates below 2^96 only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rate is below 2^96 units an epoch")]
pub struct RateTooHigh;

impl Rate {
    /// Nothing.
    pub const ZERO: Rate = Rate(0);
    /// The highest.
    pub const MAX: Rate = Rate((1 << 96) - 1);

    /// So many units an epoch.
    ///
    /// # Errors
    /// [`RateTooHigh`] from 2^96 on.
    pub fn new(units: u128) -> Result<Rate, RateTooHigh> {
        if units <= Rate::MAX.0 { Ok(Rate(units)) } else { Err(RateTooHigh) }
    }

    /// Units an epoch.
    #[must_use]
    pub const fn units(self) -> u128 {
        self.0
    }

    /// What so many epochs cost. A rate has 96 bits and a number of epochs 32, so it always fits.
    #[must_use]
    pub fn over(self, epochs: u32) -> Amount {
        Amount(self.0 * u128::from(epochs))
    }
}

impl TryFrom<Amount> for Rate {
    type Error = RateTooHigh;

    fn try_from(amount: Amount) -> Result<Rate, RateTooHigh> {
        Rate::new(amount.0)
    }
}

impl From<Rate> for Amount {
    fn from(rate: Rate) -> Amount {
        Amount(rate.0)
    }
}

impl fmt::Display for Rate {
    /// In units.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::{Amount, ParseAmountError, Rate, RateTooHigh};
    use proptest::prelude::{any, proptest};

    #[test]
    fn whole_tokens_are_shown_without_a_point() {
        assert_eq!(Amount(0).in_tokens(18), "0");
        assert_eq!(Amount(1_500_000).in_tokens(6), "1.5");
        assert_eq!(Amount(2_000_000).in_tokens(6), "2");
        assert_eq!(Amount(1).in_tokens(18), "0.000000000000000001");
        assert_eq!(Amount(70).in_tokens(0), "70");
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1_000", "0x10", " 1", "1.5.0", "١"] {
            assert_eq!(Amount::from_tokens(text, 6), Err(ParseAmountError::NotANumber), "{text:?}");
        }
        assert_eq!(Amount::from_tokens("1.0000001", 6), Err(ParseAmountError::TooFine { decimals: 6 }));
        assert_eq!(
            Amount::from_tokens("1.5000000", 6),
            Ok(Amount(1_500_000)),
            "zeros at the end are no digits"
        );
        assert_eq!(Amount::from_tokens(&"9".repeat(40), 0), Err(ParseAmountError::TooMuch));
    }

    #[test]
    fn a_rate_has_96_bits() {
        assert_eq!(Rate::new(1 << 96), Err(RateTooHigh));
        assert_eq!(Rate::MAX.over(u32::MAX), Amount(((1 << 96) - 1) * u128::from(u32::MAX)));
        assert!(serde_json::from_str::<Rate>(&format!("\"{}\"", 1u128 << 96)).is_err());
    }

    proptest! {
        #[test]
        fn amounts_read_back_from_their_text(units in any::<u128>(), decimals in any::<u8>()) {
            let amount = Amount(units);
            assert_eq!(Amount::from_tokens(&amount.in_tokens(decimals), decimals), Ok(amount));
            assert_eq!(serde_json::from_str::<Amount>(&serde_json::to_string(&amount).unwrap()).unwrap(), amount);
        }
    }
}

//! From the prices that people compare to the whole units that are paid.
//!
//! Rent is quoted for a GiB (2^30 bytes) and a month of 30 days; reading for a GiB. What is paid is a whole number of units, so
//! something is rounded: always *up*, once, at the end. A payment is never below the price that was named, and above it by
//! less than one unit.

use crate::amount::{Amount, Rate};

/// Seconds of the month that rent is quoted for: 30 days.
pub const MONTH_SECONDS: u32 = 30 * 86_400;
const GIB: u128 = 1 << 30;

/// What a provider asks, or the most that a client pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Prices {
    /// Units for a GiB kept for 30 days.
    pub rent_per_gib_month: Amount,
    /// Units for a GiB read.
    pub egress_per_gib: Amount,
}

/// A price that can't be paid: the result is larger than any payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("that much can't be paid")]
pub struct TooDear;

impl Prices {
    /// Whether neither price is above `ceiling`'s.
    #[must_use]
    pub fn within(&self, ceiling: &Prices) -> bool {
        self.rent_per_gib_month <= ceiling.rent_per_gib_month && self.egress_per_gib <= ceiling.egress_per_gib
    }
}

/// What an epoch of keeping `bytes` costs, rounded up.
///
/// # Errors
/// [`TooDear`] if it is no rate.
pub fn rate_per_epoch(bytes: u64, rent_per_gib_month: Amount, epoch_seconds: u32) -> Result<Rate, TooDear> {
    let byte_seconds = u128::from(bytes) * u128::from(epoch_seconds);
    let units =
        mul_div_ceil(rent_per_gib_month.0, byte_seconds, GIB * u128::from(MONTH_SECONDS)).ok_or(TooDear)?;
    Rate::new(units).map_err(|_| TooDear)
}

/// The price of a GiB and month at which keeping `bytes` has this rate, rounded up. `None` for no bytes or epochs without length.
#[must_use]
pub fn rent_per_gib_month(rate: Rate, bytes: u64, epoch_seconds: u32) -> Option<Amount> {
    let byte_seconds = u128::from(bytes) * u128::from(epoch_seconds);
    mul_div_ceil(rate.units(), GIB * u128::from(MONTH_SECONDS), byte_seconds).map(Amount)
}

/// What reading `bytes` costs, rounded up.
///
/// # Errors
/// [`TooDear`] if it is no amount.
pub fn egress(bytes: u64, egress_per_gib: Amount) -> Result<Amount, TooDear> {
    mul_div_ceil(egress_per_gib.0, u128::from(bytes), GIB).map(Amount).ok_or(TooDear)
}

/// a * b / c, rounded up; `None` if c is zero or the result has more than 128 bits. The product may have 256.
fn mul_div_ceil(a: u128, b: u128, c: u128) -> Option<u128> {
    let (high, low) = mul_wide(a, b);
    if c == 0 || high >= c {
        return None;
    }
    // Long division by bits: the rest stays below c, and what it loses by doubling is kept apart.
    let (mut quotient, mut rest) = (0u128, high);
    for bit in (0..128).rev() {
        let beyond = rest >> 127;
        rest = rest << 1 | (low >> bit & 1);
        quotient <<= 1;
        if beyond == 1 || rest >= c {
            rest = rest.wrapping_sub(c);
            quotient |= 1;
        }
    }
    quotient.checked_add(u128::from(rest != 0))
}

/// The 256 bits of a * b.
fn mul_wide(a: u128, b: u128) -> (u128, u128) {
    const HALF: u128 = u64::MAX as u128;
    let (a_high, a_low, b_high, b_low) = (a >> 64, a & HALF, b >> 64, b & HALF);
    let low = a_low * b_low;
    let (first, second) = (a_high * b_low, a_low * b_high);
    let middle = (low >> 64) + (first & HALF) + (second & HALF);
    (a_high * b_high + (first >> 64) + (second >> 64) + (middle >> 64), middle << 64 | low & HALF)
}

#[cfg(test)]
mod tests {
    use super::{
        GIB, MONTH_SECONDS, Prices, TooDear, egress, mul_div_ceil, rate_per_epoch, rent_per_gib_month,
    };
    use crate::amount::{Amount, Rate};
    use proptest::prelude::{any, proptest};

    #[test]
    fn a_gib_for_a_month_costs_its_price() {
        let day = 86_400;
        assert_eq!(rate_per_epoch(1 << 30, Amount(3_000), day), Ok(Rate::new(100).unwrap()));
        assert_eq!(rate_per_epoch(1, Amount(1), day), Ok(Rate::new(1).unwrap()), "up, not to nothing");
        assert_eq!(rate_per_epoch(0, Amount(3_000), day), Ok(Rate::ZERO));
        assert_eq!(rate_per_epoch(u64::MAX, Amount::MAX, day), Err(TooDear));
        assert_eq!(egress(1, Amount(1)), Ok(Amount(1)));
        assert_eq!(egress(3 << 30, Amount(7)), Ok(Amount(21)));
        assert_eq!(egress(u64::MAX, Amount::MAX), Err(TooDear));
        assert_eq!(rent_per_gib_month(Rate::ZERO, 0, day), None);
    }

    #[test]
    fn both_prices_count_for_the_ceiling() {
        let prices =
            |rent, egress| Prices { rent_per_gib_month: Amount(rent), egress_per_gib: Amount(egress) };
        assert!(prices(5, 5).within(&prices(5, 5)));
        assert!(!prices(6, 5).within(&prices(5, 5)));
        assert!(!prices(5, 6).within(&prices(5, 5)));
    }

    proptest! {
        #[test]
        fn division_is_exact(a in any::<u64>(), b in any::<u64>(), c in 1..=u128::MAX) {
            assert_eq!(mul_div_ceil(u128::from(a), u128::from(b), c), Some((u128::from(a) * u128::from(b)).div_ceil(c)));
        }

        #[test]
        fn wide_products_divide_back(a in any::<u128>(), b in 1..=u128::MAX) {
            assert_eq!(mul_div_ceil(a, b, b), Some(a));
            assert_eq!(mul_div_ceil(b, a, b), Some(a));
        }

        #[test]
        fn a_rate_is_never_below_its_price_and_less_than_a_unit_above(
            bytes in any::<u64>(), rent in any::<u64>(), epoch in 1..=86_400u32
        ) {
            // Here the products fit: the rule itself can be written down.
            let bytes = bytes >> 20;
            let whole = u128::from(bytes) * u128::from(rent >> 8) * u128::from(epoch);
            let month = GIB * u128::from(MONTH_SECONDS);
            let rate = rate_per_epoch(bytes, Amount(u128::from(rent >> 8)), epoch).unwrap().units();
            assert!(rate * month >= whole && rate * month < whole + month);
        }

        #[test]
        fn the_price_of_a_rate_pays_it(bytes in 1..1u64 << 50, rate in 0..1u128 << 80, epoch in 1..=86_400u32) {
            let rate = Rate::new(rate).unwrap();
            let price = rent_per_gib_month(rate, bytes, epoch).unwrap();
            assert!(rate_per_epoch(bytes, price, epoch).unwrap() >= rate);
            if let Some(less) = price.checked_sub(Amount(1)) {
                assert!(rate_per_epoch(bytes, less, epoch).unwrap() <= rate);
            }
        }
    }
}

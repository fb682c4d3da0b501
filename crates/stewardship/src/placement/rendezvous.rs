//! Each provider's draw for a segment: the smaller, the better. Integers only, since platforms differ in the last bits
//! of a logarithm and placements must not.

use super::Candidate;
use seedbank_formats::SegmentNumber;
use std::time::Duration;

/// A provider this far away counts half as much as one next door. Also taken for those not measured yet.
const LATENCY_HALF: Duration = Duration::from_millis(100);

const GIB: u64 = 1 << 30;

/// Beyond this, more space does not attract more: one giant would otherwise be in every segment.
const SPACE_UNITS_MAX: u64 = 1 << 20;

/// What a provider at no distance weighs per unit of space: fine enough for latencies up to minutes.
const NEARNESS: u64 = 1 << 16;

/// An exponential variate with the candidate's weight as its rate, `-log2(u) / weight`: the smallest of several falls
/// on each with a chance proportional to its weight.
pub(super) fn score(candidate: &Candidate, segment: SegmentNumber, seed: u64) -> u128 {
    let (words, _) = candidate.provider.as_bytes().as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_be_bytes(*word));
    let draw = [segment.0].into_iter().chain(words).fold(mix(seed), |state, word| mix(state ^ word));
    (u128::from(minus_log2(draw)) << 64) / u128::from(weight(candidate))
}

/// Proportional to free space, and falling with latency. At least 1.
pub(super) fn weight(candidate: &Candidate) -> u64 {
    let space = (candidate.free / GIB).clamp(1, SPACE_UNITS_MAX);
    let half = LATENCY_HALF.as_micros();
    let latency = candidate.latency.unwrap_or(LATENCY_HALF).as_micros();
    let nearness = u128::from(NEARNESS) * half / half.saturating_add(latency);
    space * u64::try_from(nearness).expect("at most NEARNESS").max(1)
}

/// The finaliser of splitmix64 after one step (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
/// 2014).
pub(super) fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

const FRACTION_BITS: u32 = 40;

/// `-log2(draw / 2^64)` with 40 fractional bits, rounded up; 0 counts as 1. The fraction's bits come from squaring the
/// mantissa: its logarithm doubles, and each time it passes 1 the next bit is set.
pub(super) fn minus_log2(draw: u64) -> u64 {
    let draw = draw.max(1);
    let mut mantissa = u128::from(draw << draw.leading_zeros());
    let mut log2 = u64::from(draw.ilog2());
    for _ in 0..FRACTION_BITS {
        mantissa = (mantissa * mantissa) >> 63;
        let bit = mantissa >> 64;
        mantissa >>= bit;
        log2 = (log2 << 1) | u64::from(bit == 1);
    }
    (64 << FRACTION_BITS) - log2
}

#[cfg(test)]
mod tests {
    use super::{minus_log2, mix};
    use proptest::prelude::{any, proptest};

    #[test]
    fn mix_is_splitmix64() {
        // The first outputs of the reference implementation for the seed 1234567.
        assert_eq!(mix(1_234_567), 6_457_827_717_110_365_317);
        assert_eq!(mix(1_234_567_u64.wrapping_add(0x9e37_79b9_7f4a_7c15)), 3_203_168_211_198_807_973);
    }

    #[test]
    fn logarithms_of_powers_of_two_are_exact() {
        for power in 0_u32..64 {
            assert_eq!(minus_log2(1 << power), (64 - u64::from(power)) << 40);
        }
        assert_eq!(minus_log2(0), 64 << 40);
    }

    proptest! {
        #[test]
        #[expect(clippy::cast_precision_loss, reason = "compares with floating point")]
        fn logarithm_agrees_with_floating_point(draw in any::<u64>()) {
            let expected = 64.0 - (draw.max(1) as f64).log2();
            let actual = minus_log2(draw) as f64 / (1_u64 << 40) as f64;
            assert!((expected - actual).abs() < 1e-9, "{expected} {actual}");
        }
    }
}

//! Two shuffles per 32 bytes: a product is the product of the low nibble plus that of the high one, and a shuffle
//! looks sixteen nibbles up at once. This is ISA-L's AVX2 method, for processors without GFNI.
//!
//! The sums of up to four outputs over two vectors, with both nibbles of each, fill 12 of the 16 registers.
#![allow(unsafe_code)]

use crate::field::NIBBLES;
use crate::kernel::Tile;
use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_loadu_si256,
    _mm256_set1_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi64, _mm256_storeu_si256,
    _mm256_xor_si256,
};

pub(super) const OUTPUTS_MAX: usize = 4;

const VECTOR_BYTES: usize = 32;

/// Proof that this processor has AVX2: only [`Avx2::detect`] makes one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    /// Computes whole vectors and returns the first column that is left.
    pub(super) fn apply(self, tile: &Tile<'_>, outputs: &mut [&mut [u8]]) -> usize {
        // SAFETY: `self` exists, so the features that these functions are compiled for were detected.
        unsafe {
            match outputs.len() {
                1 => columns::<1, 4>(tile, outputs),
                2 => columns::<2, 4>(tile, outputs),
                3 => columns::<3, 2>(tile, outputs),
                4 => columns::<4, 2>(tile, outputs),
                count => unreachable!("a tile has 1 to {OUTPUTS_MAX} outputs, not {count}"),
            }
        }
    }
}

#[target_feature(enable = "avx2")]
fn columns<const OUTPUTS: usize, const VECTORS: usize>(tile: &Tile<'_>, outputs: &mut [&mut [u8]]) -> usize {
    let mut column = tile.columns.start;
    while tile.columns.end - column >= VECTORS * VECTOR_BYTES {
        step::<OUTPUTS, VECTORS>(tile, outputs, column);
        column += VECTORS * VECTOR_BYTES;
    }
    while tile.columns.end - column >= VECTOR_BYTES {
        step::<OUTPUTS, 1>(tile, outputs, column);
        column += VECTOR_BYTES;
    }
    column
}

/// `VECTORS` vectors of each output, from `column` on.
#[target_feature(enable = "avx2")]
#[inline]
fn step<const OUTPUTS: usize, const VECTORS: usize>(
    tile: &Tile<'_>,
    outputs: &mut [&mut [u8]],
    column: usize,
) {
    let range = column..column + VECTORS * VECTOR_BYTES;
    let mut sums = [[_mm256_setzero_si256(); VECTORS]; OUTPUTS];
    if tile.accumulate {
        for (sums, output) in sums.iter_mut().zip(outputs.iter()) {
            for (sum, bytes) in sums.iter_mut().zip(output[range.clone()].chunks_exact(VECTOR_BYTES)) {
                // SAFETY: `bytes` is exactly one vector long, and the load needs no alignment.
                *sum = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
            }
        }
    }
    let low_nibble = _mm256_set1_epi8(0x0F);
    for (source, coefficients) in tile.terms::<OUTPUTS>() {
        let mut low = [_mm256_setzero_si256(); VECTORS];
        let mut high = [_mm256_setzero_si256(); VECTORS];
        for (index, bytes) in source[range.clone()].chunks_exact(VECTOR_BYTES).enumerate() {
            // SAFETY: `bytes` is exactly one vector long, and the load needs no alignment.
            let vector = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
            low[index] = _mm256_and_si256(vector, low_nibble);
            high[index] = _mm256_and_si256(_mm256_srli_epi64::<4>(vector), low_nibble);
        }
        for (sums, &coefficient) in sums.iter_mut().zip(coefficients) {
            let (low_products, high_products) = tables(coefficient);
            for (sum, (&low, &high)) in sums.iter_mut().zip(low.iter().zip(&high)) {
                *sum = _mm256_xor_si256(*sum, _mm256_shuffle_epi8(low_products, low));
                *sum = _mm256_xor_si256(*sum, _mm256_shuffle_epi8(high_products, high));
            }
        }
    }
    for (sums, output) in sums.iter().zip(outputs.iter_mut()) {
        for (&sum, bytes) in sums.iter().zip(output[range.clone()].chunks_exact_mut(VECTOR_BYTES)) {
            // SAFETY: `bytes` is exactly one vector long, and the store needs no alignment.
            unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), sum) };
        }
    }
}

/// The products of `coefficient` with the low and with the high nibbles, each table in both halves of a register.
#[target_feature(enable = "avx2")]
#[inline]
fn tables(coefficient: u8) -> (__m256i, __m256i) {
    let (low, high) = NIBBLES[usize::from(coefficient)].split_at(16);
    // SAFETY: `low` and `high` are the 16-byte halves of a 32-byte table, and the loads need no alignment.
    let (low, high) =
        unsafe { (_mm_loadu_si128(low.as_ptr().cast()), _mm_loadu_si128(high.as_ptr().cast())) };
    (_mm256_broadcastsi128_si256(low), _mm256_broadcastsi128_si256(high))
}

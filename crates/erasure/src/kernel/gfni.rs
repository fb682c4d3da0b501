//! Bit matrices on 32 bytes at a time: `GF2P8AFFINEQB` with AVX2's registers, for processors without AVX-512.
//!
//! The sums of up to four outputs over two vectors are held in 8 of the 16 registers.
#![allow(unsafe_code)]

use crate::field::AFFINE;
use crate::kernel::Tile;
use std::arch::x86_64::{
    _mm256_gf2p8affine_epi64_epi8, _mm256_loadu_si256, _mm256_set1_epi64x, _mm256_setzero_si256,
    _mm256_storeu_si256, _mm256_xor_si256,
};

pub(super) const OUTPUTS_MAX: usize = 4;

const VECTOR_BYTES: usize = 32;

/// Proof that this processor has AVX2 and GFNI: only [`Gfni::detect`] makes one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Gfni(());

impl Gfni {
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("gfni")).then_some(Self(()))
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

#[target_feature(enable = "avx2,gfni")]
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
#[target_feature(enable = "avx2,gfni")]
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
    for (source, coefficients) in tile.terms::<OUTPUTS>() {
        let mut vectors = [_mm256_setzero_si256(); VECTORS];
        for (vector, bytes) in vectors.iter_mut().zip(source[range.clone()].chunks_exact(VECTOR_BYTES)) {
            // SAFETY: `bytes` is exactly one vector long, and the load needs no alignment.
            *vector = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
        }
        for (sums, &coefficient) in sums.iter_mut().zip(coefficients) {
            let matrix = _mm256_set1_epi64x(AFFINE[usize::from(coefficient)].cast_signed());
            for (sum, &vector) in sums.iter_mut().zip(&vectors) {
                *sum = _mm256_xor_si256(*sum, _mm256_gf2p8affine_epi64_epi8::<0>(vector, matrix));
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

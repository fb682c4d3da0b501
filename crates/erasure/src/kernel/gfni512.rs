//! Bit matrices on 64 bytes at a time: `GF2P8AFFINEQB` with AVX-512 registers.
//!
//! One instruction multiplies 64 bytes by a coefficient, so the sums of up to six outputs over four vectors are
//! held in 24 of the 32 registers, and each loaded source vector is used for all of them.
#![allow(unsafe_code)]

use crate::field::AFFINE;
use crate::kernel::Tile;
use std::arch::x86_64::{
    _mm512_gf2p8affine_epi64_epi8, _mm512_loadu_si512, _mm512_set1_epi64, _mm512_setzero_si512,
    _mm512_storeu_si512, _mm512_xor_si512,
};

pub(super) const OUTPUTS_MAX: usize = 6;

const VECTOR_BYTES: usize = 64;

/// Proof that this processor has AVX-512F and GFNI: only [`Gfni512::detect`] makes one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Gfni512(());

impl Gfni512 {
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("gfni")).then_some(Self(()))
    }

    /// Computes whole vectors and returns the first column that is left.
    pub(super) fn apply(self, tile: &Tile<'_>, outputs: &mut [&mut [u8]]) -> usize {
        // SAFETY: `self` exists, so the features that these functions are compiled for were detected.
        unsafe {
            match outputs.len() {
                1 => columns::<1, 8>(tile, outputs),
                2 => columns::<2, 4>(tile, outputs),
                3 => columns::<3, 4>(tile, outputs),
                4 => columns::<4, 4>(tile, outputs),
                5 => columns::<5, 4>(tile, outputs),
                6 => columns::<6, 4>(tile, outputs),
                count => unreachable!("a tile has 1 to {OUTPUTS_MAX} outputs, not {count}"),
            }
        }
    }
}

#[target_feature(enable = "avx512f,gfni")]
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
#[target_feature(enable = "avx512f,gfni")]
#[inline]
fn step<const OUTPUTS: usize, const VECTORS: usize>(
    tile: &Tile<'_>,
    outputs: &mut [&mut [u8]],
    column: usize,
) {
    let range = column..column + VECTORS * VECTOR_BYTES;
    let mut sums = [[_mm512_setzero_si512(); VECTORS]; OUTPUTS];
    if tile.accumulate {
        for (sums, output) in sums.iter_mut().zip(outputs.iter()) {
            for (sum, bytes) in sums.iter_mut().zip(output[range.clone()].chunks_exact(VECTOR_BYTES)) {
                // SAFETY: `bytes` is exactly one vector long, and the load needs no alignment.
                *sum = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
            }
        }
    }
    for (source, coefficients) in tile.terms::<OUTPUTS>() {
        let mut vectors = [_mm512_setzero_si512(); VECTORS];
        for (vector, bytes) in vectors.iter_mut().zip(source[range.clone()].chunks_exact(VECTOR_BYTES)) {
            // SAFETY: `bytes` is exactly one vector long, and the load needs no alignment.
            *vector = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
        }
        for (sums, &coefficient) in sums.iter_mut().zip(coefficients) {
            let matrix = _mm512_set1_epi64(AFFINE[usize::from(coefficient)].cast_signed());
            for (sum, &vector) in sums.iter_mut().zip(&vectors) {
                *sum = _mm512_xor_si512(*sum, _mm512_gf2p8affine_epi64_epi8::<0>(vector, matrix));
            }
        }
    }
    for (sums, output) in sums.iter().zip(outputs.iter_mut()) {
        for (&sum, bytes) in sums.iter().zip(output[range.clone()].chunks_exact_mut(VECTOR_BYTES)) {
            // SAFETY: `bytes` is exactly one vector long, and the store needs no alignment.
            unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), sum) };
        }
    }
}

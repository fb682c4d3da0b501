//! The kernel for any processor: one table lookup per byte. It also finishes what the vector kernels leave over.

use crate::field::PRODUCTS;
use crate::kernel::Tile;

/// Nothing is kept in registers, so the number is free; this one keeps a group's outputs in the cache.
pub(super) const OUTPUTS_MAX: usize = 4;

pub(super) fn apply(tile: &Tile<'_>, outputs: &mut [&mut [u8]]) {
    if tile.columns.is_empty() {
        return;
    }
    for (index, output) in outputs.iter_mut().enumerate() {
        let sums = &mut output[tile.columns.clone()];
        if !tile.accumulate {
            sums.fill(0);
        }
        for (source, coefficients) in tile.sources.iter().zip(tile.coefficients.chunks(tile.stride)) {
            let products = &PRODUCTS[usize::from(coefficients[index])];
            for (sum, &byte) in sums.iter_mut().zip(&source[tile.columns.clone()]) {
                *sum ^= products[usize::from(byte)];
            }
        }
    }
}

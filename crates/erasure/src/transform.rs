//! A matrix made ready to be applied to bytes: the one loop that encoding and decoding share.
//!
//! It checks shapes once, then cuts the work into tiles for a kernel. Memory is the bottleneck, not arithmetic,
//! and the tiles exist so that each byte of a cold source is fetched once: columns are short enough that all
//! sources and outputs of a column stay in the cache while every group of output rows passes over them.

use crate::kernel::{Kernel, Tile};

/// Sources and outputs of one column block together, in bytes: half of a 1 MiB second-level cache, since the
/// caller's hashing and the other hyper-thread want some too.
const BLOCK_BYTES_TOTAL: usize = 256 * 1024;

/// A block never gets shorter than this, whatever the number of fragments: below one page the hardware
/// prefetcher, which does not cross pages, has nothing to run ahead on.
const BLOCK_BYTES_MIN: usize = 4 * 1024;

/// More than 16 KiB per fragment gains nothing and only delays the reuse of what the cache holds.
const BLOCK_BYTES_MAX: usize = 16 * 1024;

/// Sources read side by side. Prefetchers follow a limited number of streams; with more sources than this the
/// sums rest in the first-level cache between tiles.
const TILE_SOURCES_MAX: usize = 10;

/// Slices handed to an encoder or decoder do not fit its matrix: the caller's mistake, or a peer's short answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Pass exactly one source slice per data fragment (encoding) or available fragment (decoding).
    #[error("wrong number of source slices: expected={expected} actual={actual}")]
    SourceCount {
        /// Slices the matrix needs.
        expected: usize,
        /// Slices that were passed.
        actual: usize,
    },
    /// Pass exactly one output slice per parity fragment (encoding) or wanted fragment (decoding).
    #[error("wrong number of output slices: expected={expected} actual={actual}")]
    OutputCount {
        /// Slices the matrix fills.
        expected: usize,
        /// Slices that were passed.
        actual: usize,
    },
    /// All slices must be as long as the first source.
    #[error("slices differ in length: expected={expected} actual={actual}")]
    Length {
        /// Bytes of the first source slice, or that the scheme asks for.
        expected: usize,
        /// Bytes of the first slice that differs.
        actual: usize,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Transform {
    /// The coefficient of source `s` in output `r` is at `s * outputs + r`: a kernel reads the coefficients of one
    /// source for a group of outputs side by side.
    coefficients: Box<[u8]>,
    sources: usize,
    outputs: usize,
}

impl Transform {
    /// `rows[r][s]` is the coefficient of source `s` in output `r`. Every row has `sources` coefficients.
    pub(crate) fn new(sources: usize, rows: &[Vec<u8>]) -> Self {
        assert!(rows.iter().all(|row| row.len() == sources), "a matrix row has one coefficient per source");
        let coefficients = (0..sources).flat_map(|source| rows.iter().map(move |row| row[source])).collect();
        Self { coefficients, sources, outputs: rows.len() }
    }

    /// Overwrites `outputs` with the matrix applied to `sources`, byte position by byte position.
    pub(crate) fn apply(
        &self,
        kernel: Kernel,
        sources: &[&[u8]],
        outputs: &mut [&mut [u8]],
    ) -> Result<(), ShapeError> {
        let len = self.check(sources, outputs)?;
        if outputs.is_empty() {
            return Ok(());
        }
        let groups = self.outputs.div_ceil(kernel.outputs_max());
        let group_outputs = self.outputs.div_ceil(groups);
        let tiles = self.sources.div_ceil(TILE_SOURCES_MAX);
        let tile_sources = self.sources.div_ceil(tiles);
        let block = (BLOCK_BYTES_TOTAL / (self.sources + self.outputs))
            .clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX)
            / BLOCK_BYTES_MIN
            * BLOCK_BYTES_MIN;

        for start in (0..len).step_by(block) {
            let columns = start..len.min(start + block);
            for (group, outputs) in outputs.chunks_mut(group_outputs).enumerate() {
                for (tile, sources) in sources.chunks(tile_sources).enumerate() {
                    let first = tile * tile_sources * self.outputs + group * group_outputs;
                    let tile = Tile {
                        coefficients: &self.coefficients[first..],
                        stride: self.outputs,
                        sources,
                        columns: columns.clone(),
                        accumulate: tile > 0,
                    };
                    kernel.apply(tile, outputs);
                }
            }
        }
        Ok(())
    }

    /// The common length of all slices.
    fn check(&self, sources: &[&[u8]], outputs: &[&mut [u8]]) -> Result<usize, ShapeError> {
        if sources.len() != self.sources {
            return Err(ShapeError::SourceCount { expected: self.sources, actual: sources.len() });
        }
        if outputs.len() != self.outputs {
            return Err(ShapeError::OutputCount { expected: self.outputs, actual: outputs.len() });
        }
        let expected = sources.first().map_or(0, |source| source.len());
        let mut lens =
            sources.iter().map(|source| source.len()).chain(outputs.iter().map(|output| output.len()));
        match lens.find(|&actual| actual != expected) {
            Some(actual) => Err(ShapeError::Length { expected, actual }),
            None => Ok(expected),
        }
    }
}

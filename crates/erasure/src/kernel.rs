//! Multiplies bytes by coefficients and adds them up, as fast as the processor at hand can.
//!
//! Four kernels do the same arithmetic: `scalar` everywhere, and on x86-64 `avx2` (nibble shuffles), `gfni` (bit
//! matrices on 32 bytes) and `gfni-512` (on 64 bytes). Which of them run is found at run time, because a binary for
//! unknown machines cannot be compiled for one of them. They compute identical bytes; the tests hold each against
//! `scalar`.
//!
//! The files below `kernel/` are the only ones in the workspace that may use `unsafe`, and use it for two things:
//! loads and stores of vectors inside slices whose bounds were just checked, and calls of functions compiled for
//! features that were just detected. Each vector kernel is a token type that only its own detection can make.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod gfni;
#[cfg(target_arch = "x86_64")]
mod gfni512;
mod scalar;

use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;

static AVAILABLE: LazyLock<Vec<Kernel>> = LazyLock::new(detect);

/// One way to do the arithmetic, known to run on this processor.
///
/// Encoders and decoders take the best one unless told otherwise; choosing is for tests and benches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kernel(Inner);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Inner {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Gfni(gfni::Gfni),
    #[cfg(target_arch = "x86_64")]
    Gfni512(gfni512::Gfni512),
}

/// A piece of a matrix product: some sources, some outputs, some columns of bytes.
pub(crate) struct Tile<'a> {
    /// The coefficient of source `s` in output `r` is at `s * stride + r`.
    pub(crate) coefficients: &'a [u8],
    pub(crate) stride: usize,
    pub(crate) sources: &'a [&'a [u8]],
    /// Positions within every source and output.
    pub(crate) columns: Range<usize>,
    /// Whether to add to what the outputs hold instead of overwriting it.
    pub(crate) accumulate: bool,
}

impl Kernel {
    /// Every kernel that runs on this processor, fastest first. Never empty: `scalar` is last and runs anywhere.
    pub fn available() -> &'static [Self] {
        &AVAILABLE
    }

    /// The fastest kernel that runs on this processor.
    pub fn best() -> Self {
        AVAILABLE[0]
    }

    /// A short stable name: `scalar`, `avx2`, `gfni` or `gfni-512`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Inner::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Inner::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Inner::Gfni(_) => "gfni",
            #[cfg(target_arch = "x86_64")]
            Inner::Gfni512(_) => "gfni-512",
        }
    }

    /// The most outputs that one tile may have: as many sums as the kernel keeps in registers.
    pub(crate) fn outputs_max(self) -> usize {
        match self.0 {
            Inner::Scalar => scalar::OUTPUTS_MAX,
            #[cfg(target_arch = "x86_64")]
            Inner::Avx2(_) => avx2::OUTPUTS_MAX,
            #[cfg(target_arch = "x86_64")]
            Inner::Gfni(_) => gfni::OUTPUTS_MAX,
            #[cfg(target_arch = "x86_64")]
            Inner::Gfni512(_) => gfni512::OUTPUTS_MAX,
        }
    }

    /// Computes one tile. Vector kernels do whole vectors and leave the rest, under 64 bytes, to `scalar`.
    pub(crate) fn apply(self, mut tile: Tile<'_>, outputs: &mut [&mut [u8]]) {
        match self.0 {
            Inner::Scalar => {}
            #[cfg(target_arch = "x86_64")]
            Inner::Avx2(kernel) => tile.columns.start = kernel.apply(&tile, outputs),
            #[cfg(target_arch = "x86_64")]
            Inner::Gfni(kernel) => tile.columns.start = kernel.apply(&tile, outputs),
            #[cfg(target_arch = "x86_64")]
            Inner::Gfni512(kernel) => tile.columns.start = kernel.apply(&tile, outputs),
        }
        scalar::apply(&tile, outputs);
    }
}

impl<'a> Tile<'a> {
    /// Each source with its coefficients in the first `OUTPUTS` outputs.
    fn terms<const OUTPUTS: usize>(
        &self,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8; OUTPUTS])> + use<'a, OUTPUTS> {
        self.sources.iter().zip(self.coefficients.chunks(self.stride)).map(|(&source, coefficients)| {
            (source, coefficients.first_chunk().expect("a tile has a coefficient for each source and output"))
        })
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Kernel({})", self.name())
    }
}

fn detect() -> Vec<Kernel> {
    #[cfg(target_arch = "x86_64")]
    let vector = [
        gfni512::Gfni512::detect().map(Inner::Gfni512),
        gfni::Gfni::detect().map(Inner::Gfni),
        avx2::Avx2::detect().map(Inner::Avx2),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let vector = [];
    vector.into_iter().flatten().chain([Inner::Scalar]).map(Kernel).collect()
}

#[cfg(test)]
mod tests {
    use super::Kernel;
    use crate::field::multiply;
    use crate::transform::Transform;

    fn pseudo_random(len: usize, mut state: u64) -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn scalar_kernel_is_always_there_and_last() {
        assert_eq!(Kernel::available().last().map(|kernel| kernel.name()), Some("scalar"));
        assert_eq!(Kernel::best(), Kernel::available()[0]);
    }

    /// Every count of outputs up to past the widest group, sources past one tile, lengths around every vector
    /// width, and offsets that no vector is aligned to.
    #[test]
    fn every_kernel_computes_the_definition_at_odd_lengths_and_offsets() {
        let lens = (0..=67).chain([95, 127, 128, 129, 255, 257, 383, 511, 513, 4095, 4097, 16_385 + 77]);
        let backing = pseudo_random(17_000 * 3, 1);
        for (case, len) in lens.enumerate() {
            for (sources_count, outputs_count) in
                [(1, 1), (2, 3), (3, 7), (11, 2), (5, 4), (23, 5), (4, 6), (2, 13)]
            {
                let rows: Vec<Vec<u8>> =
                    (0..outputs_count).map(|row| pseudo_random(sources_count, row + 99)).collect();
                let sources: Vec<&[u8]> =
                    (0..sources_count).map(|source| &backing[source * 1_001 + case % 5..][..len]).collect();
                let expected: Vec<Vec<u8>> = rows
                    .iter()
                    .map(|row| {
                        let byte = |i: usize| {
                            row.iter().zip(&sources).fold(0, |sum, (&c, source)| sum ^ multiply(c, source[i]))
                        };
                        (0..len).map(byte).collect()
                    })
                    .collect();
                let transform = Transform::new(sources_count, &rows);
                for &kernel in Kernel::available() {
                    // One byte on either side must survive, and the first of them spoils the alignment.
                    let mut outputs = vec![vec![0xA5; len + 2]; rows.len()];
                    let mut inner: Vec<&mut [u8]> =
                        outputs.iter_mut().map(|output| &mut output[1..=len]).collect();
                    transform.apply(kernel, &sources, &mut inner).unwrap();
                    for (output, expected) in outputs.iter().zip(&expected) {
                        assert_eq!(
                            &output[1..=len],
                            expected,
                            "{kernel:?} {sources_count} {outputs_count} {len}"
                        );
                        assert_eq!((output[0], output[len + 1]), (0xA5, 0xA5), "{kernel:?} wrote outside");
                    }
                }
            }
        }
    }

    #[test]
    fn every_kernel_multiplies_every_pair_of_bytes() {
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        let rows: Vec<Vec<u8>> = bytes.iter().map(|&byte| vec![byte]).collect();
        let transform = Transform::new(1, &rows);
        for &kernel in Kernel::available() {
            let mut outputs = vec![vec![0; 256]; 256];
            let mut slices: Vec<&mut [u8]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
            transform.apply(kernel, &[&bytes], &mut slices).unwrap();
            for (a, output) in (0..=u8::MAX).zip(&outputs) {
                assert!(
                    bytes.iter().zip(output).all(|(&b, &product)| product == multiply(a, b)),
                    "{kernel:?} {a}"
                );
            }
        }
    }
}

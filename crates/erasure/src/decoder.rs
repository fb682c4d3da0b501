//! From any `k` fragments, or one byte range of each, to the same range of any other fragments.

use crate::kernel::Kernel;
use crate::matrix;
use crate::scheme::Scheme;
use crate::transform::{ShapeError, Transform};

/// Rebuilds chosen fragments from `k` available ones, computing only what is wanted.
///
/// Making one solves for as many unknowns as data fragments are unavailable (O(k) for one, O(k^3) at worst); using
/// it costs one multiplication per byte, source and wanted fragment.
#[derive(Clone, Debug)]
pub struct Decoder {
    kernel: Kernel,
    transform: Transform,
}

/// Why no decoder can be made. Which fragments are named must change; trying again does not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecoderError {
    /// Name exactly `k` available fragments: fewer cannot decode, more would be read for nothing.
    #[error("decoding takes exactly k fragments: expected={expected} actual={actual}")]
    AvailableCount {
        /// `k`.
        expected: usize,
        /// Fragments that were named.
        actual: usize,
    },
    /// Name only fragments that the scheme has, available or wanted.
    #[error("no such fragment: index={index} total={total}")]
    NoSuchFragment {
        /// The index that is too high.
        index: usize,
        /// `n`; indices are below it.
        total: usize,
    },
    /// Name each fragment once among the available, and once among the wanted.
    #[error("fragment is named twice: index={index}")]
    Duplicate {
        /// The index that appears again.
        index: usize,
    },
}

impl Decoder {
    /// A decoder on the fastest kernel of this processor.
    ///
    /// `available` holds the indices of `k` distinct fragments, in the order in which their bytes will be passed;
    /// `wanted` holds distinct indices of data or parity fragments, in the order in which they will be written. A
    /// wanted fragment may also be available, and is then copied.
    ///
    /// # Errors
    /// When the number of available fragments is not `k`, or an index does not exist or is repeated.
    pub fn new(scheme: Scheme, available: &[usize], wanted: &[usize]) -> Result<Self, DecoderError> {
        Self::with_kernel(scheme, available, wanted, Kernel::best())
    }

    /// A decoder on a chosen kernel, for tests and benches. All kernels give identical bytes.
    ///
    /// # Errors
    /// As [`Decoder::new`].
    pub fn with_kernel(
        scheme: Scheme,
        available: &[usize],
        wanted: &[usize],
        kernel: Kernel,
    ) -> Result<Self, DecoderError> {
        if available.len() != scheme.data() {
            return Err(DecoderError::AvailableCount { expected: scheme.data(), actual: available.len() });
        }
        let sources = check_indices(scheme, available)?;
        let wanted = check_indices(scheme, wanted)?;
        let rows = matrix::decode_rows(scheme, &sources, &wanted);
        Ok(Self { kernel, transform: Transform::new(scheme.data(), &rows) })
    }

    /// Overwrites `out` with one byte range of the wanted fragments, given the same range of the available ones.
    ///
    /// Both are in the order given to [`Decoder::new`]; all slices have one length, any length. The range may be
    /// any part of the fragments, and different parts may be decoded in any order.
    ///
    /// # Errors
    /// When the number of slices or their lengths do not fit; `out` is then untouched.
    pub fn decode(&self, sources: &[&[u8]], out: &mut [&mut [u8]]) -> Result<(), ShapeError> {
        self.transform.apply(self.kernel, sources, out)
    }
}

fn check_indices(scheme: Scheme, indices: &[usize]) -> Result<Vec<u8>, DecoderError> {
    let mut checked: Vec<u8> = Vec::with_capacity(scheme.total());
    for &index in indices {
        let fragment = u8::try_from(index)
            .ok()
            .filter(|&fragment| fragment < scheme.total_u8())
            .ok_or(DecoderError::NoSuchFragment { index, total: scheme.total() })?;
        if checked.contains(&fragment) {
            return Err(DecoderError::Duplicate { index });
        }
        checked.push(fragment);
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use super::{Decoder, DecoderError};
    use crate::scheme::Scheme;
    use crate::transform::ShapeError;

    fn refusal(available: &[usize], wanted: &[usize]) -> DecoderError {
        Decoder::new(Scheme::new(3, 5).unwrap(), available, wanted).unwrap_err()
    }

    #[test]
    fn impossible_choices_of_fragments_are_refused() {
        for available in [&[][..], &[0, 1], &[0, 1, 2, 3]] {
            let actual = available.len();
            assert_eq!(refusal(available, &[4]), DecoderError::AvailableCount { expected: 3, actual });
        }
        assert_eq!(refusal(&[0, 1, 5], &[4]), DecoderError::NoSuchFragment { index: 5, total: 5 });
        assert_eq!(refusal(&[0, 1, 256], &[4]), DecoderError::NoSuchFragment { index: 256, total: 5 });
        assert_eq!(
            refusal(&[0, 1, 2], &[usize::MAX]),
            DecoderError::NoSuchFragment { index: usize::MAX, total: 5 }
        );
        assert_eq!(refusal(&[0, 1, 0], &[4]), DecoderError::Duplicate { index: 0 });
        assert_eq!(refusal(&[0, 1, 2], &[4, 3, 4]), DecoderError::Duplicate { index: 4 });
        assert_eq!(refusal(&[0, 1, 2], &[3; 1000]), DecoderError::Duplicate { index: 3 });
    }

    #[test]
    fn slices_that_do_not_fit_are_refused_untouched() {
        let decoder = Decoder::new(Scheme::new(2, 4).unwrap(), &[2, 3], &[0]).unwrap();
        let (bytes, mut out, mut other) = ([1; 10], [7; 10], [7; 10]);
        assert_eq!(
            decoder.decode(&[&bytes], &mut [&mut out]),
            Err(ShapeError::SourceCount { expected: 2, actual: 1 })
        );
        assert_eq!(
            decoder.decode(&[&bytes, &bytes], &mut [&mut out, &mut other]),
            Err(ShapeError::OutputCount { expected: 1, actual: 2 })
        );
        assert_eq!(
            decoder.decode(&[&bytes, &bytes[..9]], &mut [&mut out]),
            Err(ShapeError::Length { expected: 10, actual: 9 })
        );
        assert_eq!(
            decoder.decode(&[&bytes, &bytes], &mut [&mut out[..9]]),
            Err(ShapeError::Length { expected: 10, actual: 9 })
        );
        assert_eq!(out, [7; 10]);
    }

    #[test]
    fn wanting_nothing_computes_nothing() {
        let decoder = Decoder::new(Scheme::new(2, 4).unwrap(), &[2, 3], &[]).unwrap();
        decoder.decode(&[&[1], &[2]], &mut []).unwrap();
    }
}

//! From a segment to its parity fragments, a few columns at a time or all at once.

use crate::kernel::Kernel;
use crate::matrix;
use crate::scheme::Scheme;
use crate::transform::{ShapeError, Transform};

/// Columns in which [`Encoder::encode_segment`] goes, in bytes of each fragment.
///
/// It is the group size of the verified ranges that are kept beside fragments, so that a caller can hash one group
/// of each fragment per step, while the step's bytes are still in the second-level cache.
pub const COLUMN_BYTES: usize = 16 * 1024;

/// Computes the parity fragments of one scheme. Making one costs `k * (n - k)` table lookups; keep it anyway.
#[derive(Clone, Debug)]
pub struct Encoder {
    scheme: Scheme,
    kernel: Kernel,
    transform: Transform,
}

impl Encoder {
    /// An encoder on the fastest kernel of this processor.
    pub fn new(scheme: Scheme) -> Self {
        Self::with_kernel(scheme, Kernel::best())
    }

    /// An encoder on a chosen kernel, for tests and benches. All kernels give identical bytes.
    pub fn with_kernel(scheme: Scheme, kernel: Kernel) -> Self {
        let rows: Vec<Vec<u8>> = (scheme.data_u8()..scheme.total_u8())
            .map(|fragment| {
                (0..scheme.data_u8()).map(|column| matrix::coefficient(scheme, fragment, column)).collect()
            })
            .collect();
        Self { scheme, kernel, transform: Transform::new(scheme.data(), &rows) }
    }

    /// The scheme whose fragments this makes.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Overwrites `parity` with the same byte range of the parity fragments as `data` is of the data fragments.
    ///
    /// `data` holds `k` slices in order of fragment index, `parity` holds `n - k`; all have one length, any length.
    /// Parity at a position depends on data at that position only, so calling this on consecutive ranges gives the
    /// same fragments as calling it once. Calls with about [`COLUMN_BYTES`] leave everything in the cache for the
    /// caller to hash or send. For copies (`k = 1`) the output repeats the input.
    ///
    /// # Errors
    /// When the number of slices or their lengths do not fit; `parity` is then untouched.
    pub fn encode_columns(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), ShapeError> {
        self.transform.apply(self.kernel, data, parity)
    }

    /// Encodes a whole segment in steps of [`COLUMN_BYTES`], showing each step's bytes while they are hot.
    ///
    /// `segment` is the zero-padded segment, `k * L` bytes ([`Scheme::padded_len`]); `parity` receives the `n - k`
    /// parity fragments one after another, `(n - k) * L` bytes. After each step `visit(fragment, offset, bytes)` is
    /// called for fragments `0..n` in order, where `bytes` start at `offset` of that fragment; every fragment is
    /// shown whole, in order and once.
    ///
    /// # Errors
    /// When `segment` is not `k * L` bytes for an `L` that is a multiple of 64, or `parity` not `(n - k) * L`.
    /// Nothing is written or shown then.
    pub fn encode_segment(
        &self,
        segment: &[u8],
        parity: &mut [u8],
        mut visit: impl FnMut(usize, usize, &[u8]),
    ) -> Result<(), ShapeError> {
        let fragment_len = self.scheme.fragment_len(segment.len());
        let check = |fragments: usize, actual: usize| {
            let expected = fragments.saturating_mul(fragment_len);
            if actual == expected { Ok(()) } else { Err(ShapeError::Length { expected, actual }) }
        };
        check(self.scheme.data(), segment.len())?;
        check(self.scheme.parity(), parity.len())?;

        for start in (0..fragment_len).step_by(COLUMN_BYTES) {
            let columns = start..fragment_len.min(start + COLUMN_BYTES);
            let data: Vec<&[u8]> =
                segment.chunks_exact(fragment_len).map(|fragment| &fragment[columns.clone()]).collect();
            let mut parity: Vec<&mut [u8]> = parity
                .chunks_exact_mut(fragment_len)
                .map(|fragment| &mut fragment[columns.clone()])
                .collect();
            self.encode_columns(&data, &mut parity)?;
            let shown = data.iter().copied().chain(parity.iter().map(|slice| &**slice));
            shown.enumerate().for_each(|(fragment, bytes)| visit(fragment, start, bytes));
        }
        Ok(())
    }

    /// All `n` fragments of an unpadded segment, in order of index, each [`Scheme::fragment_len`] bytes.
    ///
    /// This copies the segment; the write path uses [`Encoder::encode_segment`].
    pub fn encode(&self, segment: &[u8]) -> Vec<Vec<u8>> {
        let fragment_len = self.scheme.fragment_len(segment.len());
        let mut fragments = vec![vec![0; fragment_len]; self.scheme.total()];
        let (data, parity) = fragments.split_at_mut(self.scheme.data());
        if fragment_len > 0 {
            for (fragment, bytes) in data.iter_mut().zip(segment.chunks(fragment_len)) {
                fragment[..bytes.len()].copy_from_slice(bytes);
            }
        }
        let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let mut parity: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        self.encode_columns(&data, &mut parity).expect("k and n - k slices of one length were just made");
        fragments
    }
}

#[cfg(test)]
mod tests {
    use super::{COLUMN_BYTES, Encoder};
    use crate::scheme::Scheme;
    use crate::transform::ShapeError;

    #[test]
    fn segment_is_shown_whole_and_in_order() {
        let scheme = Scheme::new(3, 5).unwrap();
        let encoder = Encoder::new(scheme);
        let segment: Vec<u8> = (0..=u8::MAX).cycle().take(3 * (2 * COLUMN_BYTES + 128)).collect();
        let fragments = encoder.encode(&segment);

        let mut parity = vec![0xFF; 2 * (2 * COLUMN_BYTES + 128)];
        let mut shown = vec![Vec::new(); 5];
        encoder
            .encode_segment(&segment, &mut parity, |fragment, offset, bytes| {
                assert_eq!(shown[fragment].len(), offset);
                shown[fragment].extend_from_slice(bytes);
            })
            .unwrap();
        assert_eq!(shown, fragments);
        assert_eq!(parity, fragments[3..].concat());
    }

    #[test]
    fn empty_segment_has_empty_fragments() {
        let encoder = Encoder::new(Scheme::new(2, 4).unwrap());
        assert_eq!(encoder.encode(&[]), vec![Vec::<u8>::new(); 4]);
        encoder.encode_segment(&[], &mut [], |_, _, _| panic!("there is nothing to show")).unwrap();
    }

    #[test]
    fn slices_that_do_not_fit_are_refused_untouched() {
        let encoder = Encoder::new(Scheme::new(2, 4).unwrap());
        let (mut a, mut b) = ([7; 64], [7; 63]);
        let data: &[u8] = &[1; 64];
        let mut parity: [&mut [u8]; 2] = [&mut a, &mut b];
        assert_eq!(
            encoder.encode_columns(&[data], &mut parity),
            Err(ShapeError::SourceCount { expected: 2, actual: 1 })
        );
        assert_eq!(
            encoder.encode_columns(&[data, data], &mut parity[..1]),
            Err(ShapeError::OutputCount { expected: 2, actual: 1 })
        );
        assert_eq!(
            encoder.encode_columns(&[data, data], &mut parity),
            Err(ShapeError::Length { expected: 64, actual: 63 })
        );
        assert_eq!(
            encoder.encode_columns(&[data, &data[1..]], &mut parity),
            Err(ShapeError::Length { expected: 64, actual: 63 })
        );
        assert_eq!((a, b), ([7; 64], [7; 63]));

        let no_visit = |_: usize, _: usize, _: &[u8]| panic!("nothing may be shown");
        assert_eq!(
            encoder.encode_segment(&[1; 100], &mut [0; 128], no_visit),
            Err(ShapeError::Length { expected: 128, actual: 100 })
        );
        assert_eq!(
            encoder.encode_segment(&[1; 128], &mut [0; 64], no_visit),
            Err(ShapeError::Length { expected: 128, actual: 64 })
        );
    }
}

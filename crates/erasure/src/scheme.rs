//! How many fragments a segment becomes, how many of them bring it back, and how long each is.

use std::fmt;

/// The most fragments one segment can have: field elements name the rows, and one value stays unused so that
/// counts fit a byte everywhere.
pub const TOTAL_MAX: usize = 255;

/// Every fragment's length is a multiple of this, so that columns start on cache lines and kernels meet no tail.
pub const FRAGMENT_ALIGNMENT_BYTES: usize = 64;

/// `k` data fragments out of `n` in total; any `k` of the `n` bring the segment back.
///
/// `k = 1` means `n` identical copies of the segment, with no matrix. A value of this type has
/// `1 <= k < n <= 255`, for which the Cauchy matrix is always MDS: every choice of `k` fragments suffices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scheme {
    data: u8,
    total: u8,
}

/// Why two numbers are not a [`Scheme`]. The numbers must change; trying again does not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SchemeError {
    /// Ask for at least one data fragment.
    #[error("a scheme needs at least one data fragment: total={total}")]
    NoData {
        /// Fragments in total that were asked for.
        total: usize,
    },
    /// Ask for more fragments in total: without parity or a second copy any loss is final.
    #[error("a scheme must survive a loss: data={data} total={total}")]
    NoRedundancy {
        /// Data fragments that were asked for.
        data: usize,
        /// Fragments in total that were asked for.
        total: usize,
    },
    /// Ask for fewer fragments in total.
    #[error("a scheme has at most 255 fragments: total={total}")]
    TooManyFragments {
        /// Fragments in total that were asked for.
        total: usize,
    },
}

impl Scheme {
    /// A scheme of `data` (`k`) fragments that carry the segment, and `total` (`n`) fragments counting those.
    ///
    /// # Errors
    /// Unless `1 <= data < total <= 255`.
    pub fn new(data: usize, total: usize) -> Result<Self, SchemeError> {
        if data == 0 {
            return Err(SchemeError::NoData { total });
        }
        if data >= total {
            return Err(SchemeError::NoRedundancy { data, total });
        }
        match (u8::try_from(data), u8::try_from(total)) {
            (Ok(data), Ok(total)) => Ok(Self { data, total }),
            _ => Err(SchemeError::TooManyFragments { total }),
        }
    }

    /// `k`: the fragments that carry the segment itself, and the number that brings it back. 1 for copies.
    pub fn data(self) -> usize {
        usize::from(self.data)
    }

    /// `n`: all fragments or copies.
    pub fn total(self) -> usize {
        usize::from(self.total)
    }

    /// `n - k`: the fragments computed from the others, and the number of losses survived.
    pub fn parity(self) -> usize {
        usize::from(self.total - self.data)
    }

    /// Whether fragments are identical copies (`k = 1`), which share one hash and need no decoding.
    pub fn is_copies(self) -> bool {
        self.data == 1
    }

    /// `L`: bytes of each fragment of a segment of `segment_len` bytes, `ceil(S / k)` rounded up to 64.
    ///
    /// Lengths beyond any memory give the largest multiple of 64 instead of overflowing, so that a hostile
    /// length fails where it is compared or allocated.
    pub fn fragment_len(self, segment_len: usize) -> usize {
        segment_len
            .div_ceil(self.data())
            .checked_next_multiple_of(FRAGMENT_ALIGNMENT_BYTES)
            .unwrap_or(usize::MAX - (FRAGMENT_ALIGNMENT_BYTES - 1))
    }

    /// `k * L`: bytes of the segment after zero padding, which is all data fragments one after another.
    ///
    /// Never overflows; see [`Scheme::fragment_len`].
    pub fn padded_len(self, segment_len: usize) -> usize {
        self.fragment_len(segment_len).saturating_mul(self.data())
    }

    pub(crate) fn data_u8(self) -> u8 {
        self.data
    }

    pub(crate) fn total_u8(self) -> u8 {
        self.total
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of {}", self.data, self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::{Scheme, SchemeError};

    #[test]
    fn scheme_is_refused_unless_it_survives_a_loss_and_fits_the_field() {
        assert_eq!(Scheme::new(0, 3), Err(SchemeError::NoData { total: 3 }));
        assert_eq!(Scheme::new(0, 0), Err(SchemeError::NoData { total: 0 }));
        assert_eq!(Scheme::new(1, 1), Err(SchemeError::NoRedundancy { data: 1, total: 1 }));
        assert_eq!(Scheme::new(4, 4), Err(SchemeError::NoRedundancy { data: 4, total: 4 }));
        assert_eq!(Scheme::new(5, 4), Err(SchemeError::NoRedundancy { data: 5, total: 4 }));
        assert_eq!(Scheme::new(4, 256), Err(SchemeError::TooManyFragments { total: 256 }));
        assert_eq!(Scheme::new(300, usize::MAX), Err(SchemeError::TooManyFragments { total: usize::MAX }));
        for (data, total) in [(1, 2), (1, 255), (254, 255), (4, 8)] {
            let scheme = Scheme::new(data, total).unwrap();
            assert_eq!((scheme.data(), scheme.total(), scheme.parity()), (data, total, total - data));
            assert_eq!(scheme.is_copies(), data == 1);
        }
        assert_eq!(Scheme::new(4, 8).unwrap().to_string(), "4 of 8");
    }

    #[test]
    fn fragment_length_is_the_share_rounded_up_to_64_bytes() {
        let (copies, coded) = (Scheme::new(1, 3).unwrap(), Scheme::new(4, 8).unwrap());
        for (segment, copy, fragment) in [
            (0, 0, 0),
            (1, 64, 64),
            (64, 64, 64),
            (65, 128, 64),
            (256, 256, 64),
            (257, 320, 128),
            (64 << 20, 64 << 20, 16 << 20),
        ] {
            assert_eq!(copies.fragment_len(segment), copy);
            assert_eq!(coded.fragment_len(segment), fragment);
            assert_eq!(coded.padded_len(segment), 4 * fragment);
        }
    }

    #[test]
    fn hostile_length_saturates() {
        let copies = Scheme::new(1, 3).unwrap();
        assert_eq!(copies.fragment_len(usize::MAX), usize::MAX - 63);
        assert_eq!(Scheme::new(3, 4).unwrap().padded_len(usize::MAX), usize::MAX);
    }
}

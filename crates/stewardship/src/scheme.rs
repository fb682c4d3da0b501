//! How many fragments a segment is coded into, and how many receipts are enough.

use seedbank_erasure::{Scheme, SchemeError};

/// A data fragment shorter than this isn't worth a request of its own: smaller segments are copied instead.
pub const DATA_FRAGMENT_BYTES_MIN: u64 = 64 * 1024;

/// Why no scheme fits the providers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChooseSchemeError {
    /// Find more providers that the rules count as distinct, or ask for fewer fragments.
    #[error("{wanted} fragments need {wanted} distinct providers: have {providers}")]
    TooFewProviders {
        /// Distinct providers there are.
        providers: usize,
        /// Fragments that were asked for; 2 is the least.
        wanted: usize,
    },
    /// The numbers are no scheme, whatever providers there are.
    #[error(transparent)]
    Scheme(#[from] SchemeError),
}

/// The scheme for so many distinct providers when the owner has no wish: as many losses survived as the number allows,
/// at 2 to 3 times the bytes, and from 8 providers on with some left over as spares.
///
/// # Errors
/// [`ChooseSchemeError::TooFewProviders`] for fewer than two: with a single holder any loss is final.
pub fn default_scheme(providers: usize) -> Result<Scheme, ChooseSchemeError> {
    let (data, total) = match providers {
        0 | 1 => return Err(ChooseSchemeError::TooFewProviders { providers, wanted: 2 }),
        2 => (1, 2),
        3 => (1, 3),
        4 => (2, 4),
        5 => (2, 5),
        6 => (3, 6),
        7 => (3, 7),
        8..=23 => (4, 8),
        24.. => (10, 20),
    };
    Ok(Scheme::new(data, total)?)
}

/// The scheme that the owner asks for, if there are enough distinct providers.
///
/// # Errors
/// [`ChooseSchemeError`] when the numbers are no scheme or providers are too few.
pub fn explicit_scheme(data: usize, total: usize, providers: usize) -> Result<Scheme, ChooseSchemeError> {
    let scheme = Scheme::new(data, total)?;
    if providers < total {
        return Err(ChooseSchemeError::TooFewProviders { providers, wanted: total });
    }
    Ok(scheme)
}

/// The scheme of one segment of `segment_bytes` bytes under a dataset's scheme: small segments become copies, as many
/// as survive the same number of losses.
#[must_use]
pub fn segment_scheme(scheme: Scheme, segment_bytes: u64) -> Scheme {
    let data = u64::try_from(scheme.data()).expect("at most 255");
    if segment_bytes >= data * DATA_FRAGMENT_BYTES_MIN {
        return scheme;
    }
    Scheme::new(1, scheme.parity() + 1).expect("a scheme has parity, so there are at least two copies")
}

/// The fewest receipts with which a segment counts as stored, when the owner has no wish: the data fragments and half
/// of the parity, rounded up. The rest is completed afterwards.
#[must_use]
pub fn default_receipts_min(scheme: Scheme) -> usize {
    scheme.data() + scheme.parity().div_ceil(2)
}

#[cfg(test)]
mod tests {
    use super::{
        ChooseSchemeError, DATA_FRAGMENT_BYTES_MIN, default_receipts_min, default_scheme, explicit_scheme,
        segment_scheme,
    };
    use seedbank_erasure::{Scheme, SchemeError};

    fn scheme(data: usize, total: usize) -> Scheme {
        Scheme::new(data, total).unwrap()
    }

    #[test]
    fn default_never_needs_more_providers_than_there_are() {
        for providers in 0..2 {
            let error = ChooseSchemeError::TooFewProviders { providers, wanted: 2 };
            assert_eq!(default_scheme(providers), Err(error));
        }
        for providers in 2..300 {
            assert!(default_scheme(providers).unwrap().total() <= providers);
        }
        for (providers, data, total) in [(2, 1, 2), (3, 1, 3), (7, 3, 7), (8, 4, 8), (23, 4, 8), (24, 10, 20)]
        {
            assert_eq!(default_scheme(providers), Ok(scheme(data, total)));
        }
    }

    #[test]
    fn explicit_scheme_is_refused_by_name_when_providers_are_too_few() {
        assert_eq!(explicit_scheme(4, 8, 8), Ok(scheme(4, 8)));
        let error = explicit_scheme(4, 8, 7).unwrap_err();
        assert_eq!(error.to_string(), "8 fragments need 8 distinct providers: have 7");
        assert_eq!(
            explicit_scheme(4, 4, 9),
            Err(ChooseSchemeError::Scheme(SchemeError::NoRedundancy { data: 4, total: 4 }))
        );
    }

    #[test]
    fn small_segments_become_copies_that_survive_as_many_losses() {
        let coded = scheme(4, 8);
        assert_eq!(segment_scheme(coded, 4 * DATA_FRAGMENT_BYTES_MIN), coded);
        let copies = segment_scheme(coded, 4 * DATA_FRAGMENT_BYTES_MIN - 1);
        assert_eq!((copies, copies.parity()), (scheme(1, 5), coded.parity()));
        assert_eq!(segment_scheme(scheme(1, 3), 0), scheme(1, 3));
    }

    #[test]
    fn enough_receipts_are_the_data_and_half_of_the_parity() {
        for (data, total, receipts) in [(4, 8, 6), (10, 20, 15), (1, 2, 2), (2, 5, 4), (1, 5, 3)] {
            assert_eq!(default_receipts_min(scheme(data, total)), receipts);
        }
    }
}

//! One pass over a closed segment: pad, code, hash. The only place where a segment's parity is computed.
//!
//! Nothing is copied: data fragments are slices of the buffer that the segment was sealed into, and parity fragments of
//! one other. Both are sent from there, and used again when the last fragment is held.

use crate::buffers::Buffers;
use bytes::Bytes;
use seedbank_erasure::{Encoder, Scheme};
use seedbank_formats::FragmentId;
use seedbank_formats::SegmentNumber;
use seedbank_formats::keys::KeyEpoch;
use seedbank_formats::placement::{FragmentPlacement, SegmentPlacement};
use seedbank_formats::segment::SealedSegment;
use seedbank_formats::slice::FragmentHasher;

/// A segment's fragments, ready to be sent. Copies share one buffer.
pub(crate) struct CodedSegment {
    pub(crate) number: SegmentNumber,
    pub(crate) epoch: KeyEpoch,
    pub(crate) scheme: Scheme,
    pub(crate) sealed_len: u32,
    pub(crate) footer_len: u32,
    pub(crate) fragments: Vec<(FragmentId, Bytes)>,
}

impl CodedSegment {
    /// The placement record with these holders, one slot for each fragment.
    pub(crate) fn placement(&self, holders: &[Option<seedbank_formats::PublicKey>]) -> SegmentPlacement {
        let fragments = self
            .fragments
            .iter()
            .zip(holders)
            .map(|((id, _), holder)| FragmentPlacement { id: *id, holder: *holder })
            .collect();
        SegmentPlacement {
            number: self.number,
            epoch: self.epoch,
            scheme: self.scheme,
            sealed_len: self.sealed_len,
            footer_len: self.footer_len,
            fragments,
        }
    }
}

/// Codes a segment. `scheme` is what the segment's length asks for already: copies for a small one. Memory comes from
/// `buffers` and goes back there.
pub(crate) fn code(segment: SealedSegment, scheme: Scheme, buffers: &Buffers) -> CodedSegment {
    let SealedSegment { number, epoch, mut bytes, footer_len, .. } = segment;
    let sealed_len = u32::try_from(bytes.len()).expect("a segment is at most 64 MiB");
    let fragment_len = scheme.fragment_len(bytes.len());
    bytes.resize(scheme.padded_len(bytes.len()), 0);
    let fragments = if scheme.is_copies() {
        let whole = buffers.share(bytes);
        vec![(FragmentId::of(&whole), whole); scheme.total()]
    } else {
        let mut parity = buffers.scratch(fragment_len * scheme.parity());
        let mut hashers: Vec<FragmentHasher> =
            (0..scheme.total()).map(|_| FragmentHasher::default()).collect();
        Encoder::new(scheme)
            .encode_segment(&bytes, &mut parity, |fragment, _, columns| hashers[fragment].update(columns))
            .expect("the segment was just padded, and the parity sized, for this scheme");
        let (data, parity) = (buffers.share(bytes), buffers.share(parity));
        let ranges = (0..scheme.total()).map(|index| {
            let (from, nth) =
                if index < scheme.data() { (&data, index) } else { (&parity, index - scheme.data()) };
            from.slice(nth * fragment_len..(nth + 1) * fragment_len)
        });
        hashers.into_iter().map(|hasher| hasher.finish().0).zip(ranges).collect()
    };
    CodedSegment { number, epoch, scheme, sealed_len, footer_len, fragments }
}

#[cfg(test)]
mod tests {
    use super::code;
    use crate::buffers::Buffers;
    use seedbank_erasure::Scheme;
    use seedbank_formats::keys::KeyEpoch;
    use seedbank_formats::segment::SealedSegment;
    use seedbank_formats::{FragmentId, SegmentNumber};

    fn segment(len: usize) -> SealedSegment {
        let bytes = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
        SealedSegment {
            number: SegmentNumber(3),
            epoch: KeyEpoch(0),
            bytes,
            footer_len: 100,
            items: Vec::new(),
        }
    }

    #[test]
    fn data_fragments_are_the_segment_and_every_id_is_its_plain_hash() {
        let coded = code(segment(1_000_003), Scheme::new(4, 8).unwrap(), &Buffers::default());
        let joined: Vec<u8> = coded.fragments[..4].iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
        assert_eq!(joined[..1_000_003], segment(1_000_003).bytes);
        assert!(joined[1_000_003..].iter().all(|byte| *byte == 0));
        assert!(coded.fragments.iter().all(|(id, bytes)| *id == FragmentId::of(bytes)));
    }

    #[test]
    fn memory_that_held_another_segment_makes_the_same_fragments() {
        let (buffers, scheme) = (Buffers::default(), Scheme::new(4, 8).unwrap());
        let fresh = code(segment(1_000_003), scheme, &Buffers::default()).fragments;
        let longer = code(segment(3_000_000), scheme, &buffers).fragments;
        let memory = longer[4].1.as_ptr();
        drop(longer);
        let reused = code(segment(1_000_003), scheme, &buffers).fragments;
        assert_eq!(reused[4].1.as_ptr(), memory);
        assert_eq!(reused, fresh);
    }

    #[test]
    fn copies_share_their_bytes_and_id() {
        let coded = code(segment(1_000), Scheme::new(1, 5).unwrap(), &Buffers::default());
        assert_eq!(coded.fragments.len(), 5);
        assert!(coded.fragments.iter().all(|fragment| *fragment == coded.fragments[0]));
        assert_eq!(coded.fragments[0].1.len(), 1_024);
    }
}

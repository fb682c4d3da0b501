//! The data that clients push: chunks, the segment they are sealed into, and its fragments.

use crate::random::Random;
use seedbank_erasure::{Encoder, Scheme};
use seedbank_formats::chunking::chunk_id;
use seedbank_formats::keys::SealKeys;
use seedbank_formats::seal::{Compression, Item, ItemKind};
use seedbank_formats::segment::SegmentBuilder;
use seedbank_formats::{FragmentId, SegmentNumber};
use std::ops::Range;
use std::sync::Arc;

/// What a client has to store: it is on the client's own disk and outlives every crash.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) chunks: Vec<Vec<u8>>,
    /// Chunks that the writer damages after sealing.
    pub(crate) damaged: Vec<usize>,
}

impl Source {
    pub(crate) fn new(random: &mut Random, chunk_bytes_max: u64, damage: u64) -> Source {
        let count = random.between(1, 5);
        let length = |random: &mut Random| usize::try_from(random.between(1, chunk_bytes_max));
        let chunks: Vec<Vec<u8>> = (0..count)
            .map(|_| {
                let length = length(random).expect("a chunk's length is an index");
                random.bytes(length)
            })
            .collect();
        let damaged = (0..chunks.len()).filter(|_| random.chance(damage)).collect();
        Source { chunks, damaged }
    }
}

/// One coded segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) scheme: Scheme,
    pub(crate) items: Vec<Item>,
    pub(crate) source: Source,
    pub(crate) fragments: Vec<(FragmentId, Arc<Vec<u8>>)>,
    /// Bytes of each fragment.
    pub(crate) length: u64,
}

impl Segment {
    pub(crate) fn new(keys: &SealKeys, number: SegmentNumber, scheme: Scheme, source: &Source) -> Segment {
        let mut builder = SegmentBuilder::new(keys, number, Vec::new());
        for chunk in &source.chunks {
            builder
                .push(ItemKind::Chunk, &chunk_id(chunk), chunk, Compression::Off)
                .expect("a few chunks fill no segment");
        }
        let mut sealed = builder.finish();
        for damaged in &source.damaged {
            let at = usize::try_from(sealed.items[*damaged].offset).expect("an offset is an index");
            sealed.bytes[at] ^= 1;
        }
        let fragments = Encoder::new(scheme).encode(&sealed.bytes);
        let length = fragments[0].len() as u64;
        let fragments =
            fragments.into_iter().map(|bytes| (FragmentId::of(&bytes), Arc::new(bytes))).collect();
        Segment { scheme, items: sealed.items, source: source.clone(), fragments, length }
    }

    /// The parts of fragments that a range of the segment lies in.
    pub(crate) fn split(&self, range: &Range<u64>) -> Vec<(usize, Range<u64>)> {
        if self.scheme.is_copies() {
            return vec![(0, range.clone())];
        }
        let (mut parts, mut start) = (Vec::new(), range.start);
        while start < range.end {
            let index = start / self.length;
            let end = range.end.min((index + 1) * self.length);
            let fragment = usize::try_from(index).expect("a segment has few fragments");
            parts.push((fragment, start - index * self.length..end - index * self.length));
            start = end;
        }
        parts
    }

    /// Where an item lies.
    pub(crate) fn range_of(&self, item: usize) -> Range<u64> {
        let Item { offset, sealed_len, .. } = self.items[item];
        u64::from(offset)..u64::from(offset) + u64::from(sealed_len)
    }
}

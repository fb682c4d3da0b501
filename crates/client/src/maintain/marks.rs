//! Which items of which segments are reachable: one bit an item, so that a shared chunk counts once.

use seedbank_formats::SegmentNumber;
use seedbank_formats::layout::Run;
use seedbank_formats::place::Place;
use seedbank_formats::segment::{Footer, SEGMENT_ITEMS_MAX};
use std::collections::BTreeMap;

/// Whether an item was marked already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Not before now.
    First,
    /// It was.
    Before,
}

/// A place that no item can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("segment {segment} has no item {index}")]
pub struct NoSuchItem {
    /// The segment.
    pub segment: SegmentNumber,
    /// The position.
    pub index: u32,
}

/// The reachable items. A segment takes as many bits as its last reachable item needs.
#[derive(Debug, Default)]
pub(super) struct Marks {
    segments: BTreeMap<SegmentNumber, Vec<u64>>,
}

impl Marks {
    pub(super) fn mark(&mut self, place: Place) -> Result<Seen, NoSuchItem> {
        let position = position(place)?;
        let words = self.segments.entry(place.segment).or_default();
        let (word, bit) = (position / 64, 1u64 << (position % 64));
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        let seen = if words[word] & bit == 0 { Seen::First } else { Seen::Before };
        words[word] |= bit;
        Ok(seen)
    }

    pub(super) fn mark_run(&mut self, run: &Run) -> Result<(), NoSuchItem> {
        let end = run.first.saturating_add(run.count);
        // First the last, so that a run that is too long is refused before it takes memory.
        let last = Place { segment: run.segment, index: end.saturating_sub(1) };
        position(last)?;
        (run.first..end).try_for_each(|index| self.mark(Place { segment: run.segment, index }).map(drop))
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = SegmentNumber> + '_ {
        self.segments.keys().copied()
    }

    /// Marked items of a segment, in order.
    pub(super) fn items(&self, segment: SegmentNumber) -> impl Iterator<Item = u32> + '_ {
        let words = self.segments.get(&segment).map(Vec::as_slice).unwrap_or_default();
        (0u32..).zip(words).flat_map(|(word, bits)| {
            (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word * 64 + bit)
        })
    }

    /// Sealed bytes of a segment's marked items.
    pub(super) fn live_bytes(&self, segment: SegmentNumber, footer: &Footer) -> Result<u64, NoSuchItem> {
        self.items(segment).try_fold(0, |sum, index| {
            let item = usize::try_from(index).ok().and_then(|index| footer.items.get(index));
            item.map(|item| sum + u64::from(item.sealed_len)).ok_or(NoSuchItem { segment, index })
        })
    }
}

fn position(place: Place) -> Result<usize, NoSuchItem> {
    let Place { segment, index } = place;
    usize::try_from(index)
        .ok()
        .filter(|index| *index < SEGMENT_ITEMS_MAX)
        .ok_or(NoSuchItem { segment, index })
}

#[cfg(test)]
mod tests {
    use super::{Marks, NoSuchItem, Seen};
    use proptest::prelude::{any, proptest};
    use seedbank_formats::layout::Run;
    use seedbank_formats::place::Place;
    use seedbank_formats::seal::{Codec, Item, ItemKind};
    use seedbank_formats::segment::{Footer, SEGMENT_ITEMS_MAX};
    use seedbank_formats::{ChunkId, SegmentNumber};
    use std::collections::BTreeSet;

    const SEGMENT: SegmentNumber = SegmentNumber(7);

    fn place(index: u32) -> Place {
        Place { segment: SEGMENT, index }
    }

    /// Item `i` takes `100 + i` bytes.
    fn footer(count: u32) -> Footer {
        let item = |index| Item {
            kind: ItemKind::Chunk,
            id: ChunkId([1; 32]),
            codec: Codec::Raw,
            offset: 0,
            sealed_len: 100 + index,
            plain_len: 72 + index,
        };
        Footer { items: (0..count).map(item).collect() }
    }

    #[test]
    fn an_item_counts_once_however_often_it_is_reached() {
        let mut marks = Marks::default();
        assert_eq!(marks.mark(place(3)), Ok(Seen::First));
        assert_eq!(marks.mark(place(3)), Ok(Seen::Before));
        marks.mark_run(&Run { segment: SEGMENT, first: 2, count: 3 }).unwrap();
        assert_eq!(marks.live_bytes(SEGMENT, &footer(5)), Ok(102 + 103 + 104));
        assert_eq!(marks.live_bytes(SegmentNumber(8), &footer(5)), Ok(0));
        assert_eq!(marks.segments().collect::<Vec<_>>(), [SEGMENT]);
    }

    #[test]
    fn places_beyond_a_segment_are_refused() {
        let max = u32::try_from(SEGMENT_ITEMS_MAX).unwrap();
        let mut marks = Marks::default();
        assert_eq!(marks.mark(place(max)), Err(NoSuchItem { segment: SEGMENT, index: max }));
        marks.mark_run(&Run { segment: SEGMENT, first: 1, count: u32::MAX }).unwrap_err();
        assert_eq!(marks.segments().count(), 0);
        marks.mark(place(9)).unwrap();
        assert_eq!(marks.live_bytes(SEGMENT, &footer(9)), Err(NoSuchItem { segment: SEGMENT, index: 9 }));
    }

    proptest! {
        #[test]
        fn marks_are_a_set(runs in proptest::collection::vec((0u32..8000, 0u32..190), 0..20), extra in any::<u8>()) {
            let mut marks = Marks::default();
            let mut expected = BTreeSet::new();
            for (first, count) in runs {
                marks.mark_run(&Run { segment: SEGMENT, first, count }).unwrap();
                expected.extend(first..first + count);
            }
            let fresh = expected.insert(u32::from(extra));
            assert_eq!(marks.mark(place(u32::from(extra))).unwrap() == Seen::First, fresh);
            assert_eq!(marks.items(SEGMENT).collect::<BTreeSet<_>>(), expected);
        }
    }
}

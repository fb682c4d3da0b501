//! Walks the whole placement map behind a head, page by page and segment by segment, in rising order.

use crate::heads::OpenedHead;
use crate::reader::{ReadError, Reader};
use seedbank_catalog::records::{NumberedList, NumberedPage};
use seedbank_formats::codec::DecodeError;
use seedbank_formats::numbered::{NumberedTree, PageAt, RADIX, numbered_id, page_of};
use seedbank_formats::pages::PageId;
use seedbank_formats::place::{Link, Place};
use seedbank_formats::placement::{ChildSegment, MapInner, MapLeaf, SegmentPlacement};
use seedbank_formats::seal::ItemKind;

use std::collections::VecDeque;
use std::sync::Arc;

/// A page of the map with the placements that it lists; an inner page lists none.
pub(super) struct MapPage {
    pub(super) page: NumberedPage,
    pub(super) segments: Vec<SegmentPlacement>,
}

/// A page that its parent has told of.
struct Pending {
    at: PageAt,
    /// The segment that it lies in.
    placement: Arc<SegmentPlacement>,
    index: u32,
    hash: PageId,
}

/// A walk over the pages of a map, each before those below it. Memory is one page's links a level.
pub(super) struct MapWalk {
    reader: Arc<Reader>,
    pending: Vec<Pending>,
}

impl MapWalk {
    pub(super) fn new(opened: &OpenedHead) -> MapWalk {
        let body = opened.body();
        let root = body.map.and_then(|root| {
            let Place { segment, index } = root.link.place;
            let placement = Arc::new(body.placement(segment)?.clone());
            Some(Pending {
                at: PageAt { level: root.level, page: 0 },
                placement,
                index,
                hash: root.link.hash,
            })
        });
        MapWalk { reader: Arc::clone(opened.reader()), pending: root.into_iter().collect() }
    }

    /// The next page.
    pub(super) async fn next(&mut self) -> Result<Option<MapPage>, ReadError> {
        let Some(here) = self.pending.pop() else { return Ok(None) };
        let (at, id) = (here.at, numbered_id(NumberedTree::Map, here.at));
        let bytes = self.reader.item_of(&here.placement, here.index, ItemKind::Named, &id).await?;
        let place = Place { segment: here.placement.number, index: here.index };
        let link = Link { place, hash: here.hash };
        link.check(&bytes)?;
        let segments = if at.level == 0 { self.leaf(at, &bytes)? } else { self.inner(&here, &bytes)? };
        let page = NumberedPage { list: NumberedList::Map, level: at.level, page: at.page, link };
        Ok(Some(MapPage { page, segments }))
    }

    fn leaf(&self, at: PageAt, bytes: &[u8]) -> Result<Vec<SegmentPlacement>, ReadError> {
        let leaf = MapLeaf::decode(bytes)?;
        self.reader.network().hint(&leaf.hints);
        if leaf.iter().any(|placement| page_of(placement.number.0, 0) != at) {
            let reason = "it lists segments of another page";
            return Err(ReadError::Broken(DecodeError::Invalid { format: "map leaf", reason }));
        }
        Ok(leaf.iter().cloned().collect())
    }

    fn inner(&mut self, here: &Pending, bytes: &[u8]) -> Result<Vec<SegmentPlacement>, ReadError> {
        let inner = MapInner::decode(bytes)?;
        self.reader.network().hint(&inner.hints);
        self.pending.extend(pages_below(here, &inner));
        Ok(Vec::new())
    }
}

/// The pages below an inner page, the lowest last: it is read next.
fn pages_below(here: &Pending, inner: &MapInner) -> Vec<Pending> {
    let below = (0..RADIX).rev().filter_map(|slot| {
        let child = inner.child(slot)?;
        let placement = match child.segment {
            ChildSegment::Same => Arc::clone(&here.placement),
            ChildSegment::Other(placement) => Arc::new(placement.clone()),
        };
        Some(Pending { at: here.at.child(slot)?, placement, index: child.index, hash: child.hash })
    });
    below.collect()
}

/// A walk over all segments of a dataset by rising number. What the head says of one goes before what the map says.
pub(super) struct SegmentWalk {
    map: MapWalk,
    leaf: VecDeque<SegmentPlacement>,
    locator: VecDeque<SegmentPlacement>,
}

impl SegmentWalk {
    pub(super) fn new(opened: &OpenedHead) -> SegmentWalk {
        let locator = opened.body().locator.iter().cloned().collect();
        SegmentWalk { map: MapWalk::new(opened), leaf: VecDeque::new(), locator }
    }

    /// The next segment.
    pub(super) async fn next(&mut self) -> Result<Option<SegmentPlacement>, ReadError> {
        while self.leaf.is_empty() {
            let Some(page) = self.map.next().await? else { break };
            self.leaf = page.segments.into();
        }
        Ok(lowest(&mut self.locator, &mut self.leaf))
    }
}

/// Takes the segment with the lowest number; of one that both have, the first's.
fn lowest(
    first: &mut VecDeque<SegmentPlacement>,
    second: &mut VecDeque<SegmentPlacement>,
) -> Option<SegmentPlacement> {
    let number = |list: &VecDeque<SegmentPlacement>| list.front().map(|placement| placement.number);
    match (number(first), number(second)) {
        (Some(a), Some(b)) if a == b => {
            second.pop_front();
            first.pop_front()
        }
        (Some(a), Some(b)) if a < b => first.pop_front(),
        (_, Some(_)) => second.pop_front(),
        (_, None) => first.pop_front(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Pending, lowest, pages_below};
    use seedbank_erasure::Scheme;
    use seedbank_formats::keys::KeyEpoch;
    use seedbank_formats::numbered::PageAt;
    use seedbank_formats::placement::{FragmentPlacement, MapInner, SegmentPlacement};
    use seedbank_formats::{ChunkId, FragmentId, SegmentNumber};
    use std::collections::VecDeque;
    use std::sync::Arc;

    fn placement(number: u64, sealed_len: u32) -> SegmentPlacement {
        SegmentPlacement {
            number: SegmentNumber(number),
            epoch: KeyEpoch(0),
            scheme: Scheme::new(1, 2).unwrap(),
            sealed_len,
            footer_len: 90,
            fragments: vec![FragmentPlacement { id: FragmentId([9; 32]), holder: None }; 2],
        }
    }

    #[test]
    fn segments_come_by_number_and_the_heads_word_goes_first() {
        let mut head: VecDeque<_> = [4, 7, 9].map(|number| placement(number, 100)).into();
        let mut map: VecDeque<_> = [1, 4, 8].map(|number| placement(number, 200)).into();
        let mut found = Vec::new();
        while let Some(placement) = lowest(&mut head, &mut map) {
            found.push((placement.number.0, placement.sealed_len));
        }
        assert_eq!(found, [(1, 200), (4, 100), (7, 100), (8, 200), (9, 100)]);
    }

    #[test]
    fn pages_below_are_found_in_their_own_segments_and_the_lowest_is_next() {
        let mut inner = MapInner::default();
        inner.put_in(0, 5, &placement(3, 100), ChunkId([1; 32]));
        inner.put_beside(63, 6, ChunkId([2; 32]));
        let here = Pending {
            at: PageAt { level: 1, page: 2 },
            placement: Arc::new(placement(8, 100)),
            index: 0,
            hash: ChunkId([0; 32]),
        };
        let below: Vec<_> = pages_below(&here, &inner)
            .iter()
            .map(|page| (page.at.page, page.placement.number.0, page.index))
            .collect();
        assert_eq!(below, [(128 + 63, 8, 6), (128, 3, 5)]);
    }
}

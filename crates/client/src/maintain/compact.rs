//! Compaction: writes the live items of segments that are mostly dead into new segments, and the layouts that named
//! their old places. Versions stay what they are, since nothing of their identity says where it lies.
//!
//! Nothing is given up here: when the next collection finds that no layout names the old segments any more, they go. So a
//! push that deduplicates against an old place at the same time is safe, and a compaction that is cut short has only
//! cost the bytes that it wrote.

use super::collect::{CollectError, Source, Walk, broken};
use super::marks::{Marks, NoSuchItem};
use super::refresh::{RefreshError, Writing};
use super::{Maintenance, StepError};
use crate::commit::Moved;
use crate::push::PushError;
use crate::reader::usize_of;
use seedbank_catalog::records::{LiveBytes, Relocation, VersionRecord};
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::keys::{KeyEpoch, SealKeys};
use seedbank_formats::layout::{ChildPlace, LayoutPage};
use seedbank_formats::place::Place;
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::seal::{Compression, Item, ItemKind, Opener};
use seedbank_formats::segment::SegmentBuilder;
use seedbank_formats::{ChunkId, DatasetId, SegmentNumber};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::PoisonError;

/// Segments compacted in one step: a place in memory for each of their items, and a few hundred megabytes to move.
const SEGMENTS_MAX: usize = 64;

/// Neighbouring items are read together, up to so many bytes.
const RUN_BYTES_MAX: u32 = 4 * 1024 * 1024;

/// A step must free so many sealed bytes: below, new metadata costs as much as it frees.
const FREED_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// Or so many segments: many small ones slow every reader down, however little they hold.
const FREED_SEGMENTS_MIN: usize = 16;

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compacted {
    /// Segments of which nothing is needed any more; the next collection gives them up.
    pub segments: u64,
    /// Items that were moved.
    pub items: u64,
    /// Their sealed bytes.
    pub bytes: u64,
    /// Layout pages that were written.
    pub layouts: u64,
}

/// Why a dataset was not compacted. It stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// What is stored can't be followed or read.
    #[error(transparent)]
    Read(#[from] CollectError),
    /// What was to be written can't be.
    #[error(transparent)]
    Write(#[from] RefreshError),
}

impl From<PushError> for CompactError {
    fn from(error: PushError) -> CompactError {
        CompactError::Write(error.into())
    }
}

impl From<CatalogError> for CompactError {
    fn from(error: CatalogError) -> CompactError {
        CompactError::Read(error.into())
    }
}

impl From<StepError> for CompactError {
    fn from(error: StepError) -> CompactError {
        CompactError::Read(error.into())
    }
}

impl From<NoSuchItem> for CompactError {
    fn from(error: NoSuchItem) -> CompactError {
        CompactError::Read(error.into())
    }
}

/// The segments to compact now, out of those below half live with their sealed lengths: the emptiest first. None, unless
/// it pays.
fn worth(candidates: &[(LiveBytes, u64)]) -> Vec<SegmentNumber> {
    let mut emptiest = candidates.to_vec();
    // Shares are compared crosswise, without division.
    emptiest.sort_by(|(one, one_len), (other, other_len)| {
        (u128::from(one.bytes) * u128::from(*other_len))
            .cmp(&(u128::from(other.bytes) * u128::from(*one_len)))
    });
    emptiest.truncate(SEGMENTS_MAX);
    let freed: u64 = emptiest.iter().map(|(live, len)| len.saturating_sub(live.bytes)).sum();
    let pays = freed >= FREED_BYTES_MIN || emptiest.len() >= FREED_SEGMENTS_MIN;
    if pays { emptiest.into_iter().map(|(live, _)| live.segment).collect() } else { Vec::new() }
}

impl Maintenance {
    /// Compacts what a collection found to be mostly dead, if it pays.
    ///
    /// # Errors
    /// [`CompactError`]; [`RefreshError::NotHere`] in it when the dataset can't be written here.
    pub async fn compact(
        &self,
        dataset: DatasetId,
        mostly_dead: &[LiveBytes],
    ) -> Result<Compacted, CompactError> {
        let numbers: Vec<SegmentNumber> = mostly_dead.iter().map(|live| live.segment).collect();
        let ask = move |books: &crate::SharedBooks| books.placements(dataset, numbers);
        let placements = self.ask::<_, CompactError>(ask).await?;
        let candidates: Vec<(LiveBytes, u64)> = mostly_dead
            .iter()
            .zip(&placements)
            .map(|(live, placement)| (*live, u64::from(placement.sealed_len)))
            .collect();
        let sources = worth(&candidates);
        if sources.is_empty() {
            return Ok(Compacted::default());
        }
        self.compact_segments(dataset, sources).await
    }

    /// Moves everything that is live out of these segments.
    ///
    /// # Errors
    /// [`CompactError`].
    pub async fn compact_segments(
        &self,
        dataset: DatasetId,
        mut sources: Vec<SegmentNumber>,
    ) -> Result<Compacted, CompactError> {
        // Segments of one key epoch follow each other.
        sources.sort_unstable();
        self.learn_addresses::<CompactError>().await?;
        let writing = self.begin_writing(dataset, "compaction").await?;
        let (moved, metadata, compacted) = self.move_out(&writing, sources).await?;
        self.finish_writing(writing, &moved, metadata).await?;
        Ok(compacted)
    }

    async fn move_out(
        &self,
        writing: &Writing,
        sources: Vec<SegmentNumber>,
    ) -> Result<(Moved, Option<SegmentBuilder>, Compacted), CompactError> {
        let (dataset, lease) = (writing.context.dataset.id, writing.uploader.lease);
        let pinned = sources.clone();
        self.ask::<_, CompactError>(move |books| books.use_segments(lease, pinned)).await?;
        let source = Source::new(self, dataset, writing.context.keys.clone());
        let placements = source.placements(sources.clone()).await?;
        let mut walk = Walk::new(source);

        let (mut marks, mut versions, mut before) = (Marks::default(), Vec::new(), None);
        loop {
            let some = self.versions_before(dataset, before).await?;
            let Some(last) = some.last() else { break };
            before = Some(last.ordinal);
            for version in &some {
                walk.mark_tree(version.tree, &mut marks).await?;
            }
            versions.extend(some);
        }

        let mut mover = Mover {
            writing,
            walk,
            sources: sources.into_iter().collect(),
            version_items: versions.iter().map(|version| version.version).collect(),
            moved: BTreeMap::new(),
            layouts: BTreeMap::new(),
            data: Shelf::default(),
            metadata: Shelf::default(),
            compacted: Compacted { segments: placements.len() as u64, ..Compacted::default() },
        };
        for placement in placements {
            mover.empty(placement, &marks).await?;
        }
        let mut relocations = Vec::new();
        for version in &versions {
            relocations.extend(mover.relocate_version(version).await?);
        }
        mover.data.close(writing).await?;
        // What goes on in the commit's segment must be sealed under the present key.
        if mover.metadata.epoch().is_some_and(|epoch| epoch != writing.context.keys.epoch) {
            mover.metadata.close(writing).await?;
        }
        let moved = Moved { relocations, leaving: mover.sources };
        Ok((moved, mover.metadata.builder.map(|(_, builder)| builder), mover.compacted))
    }
}

/// An open segment for items of one kind.
#[derive(Default)]
struct Shelf {
    builder: Option<(KeyEpoch, SegmentBuilder)>,
}

impl Shelf {
    fn epoch(&self) -> Option<KeyEpoch> {
        self.builder.as_ref().map(|(epoch, _)| *epoch)
    }

    /// Puts an item into the open segment, or into a new one when it is full or of another key epoch.
    async fn put(
        &mut self,
        writing: &Writing,
        keys: &SealKeys,
        id: &ChunkId,
        push: impl Fn(&mut SegmentBuilder) -> Option<u32>,
    ) -> Result<Place, CompactError> {
        if self.epoch().is_some_and(|epoch| epoch != keys.epoch()) {
            self.close(writing).await?;
        }
        loop {
            let builder = match &mut self.builder {
                Some((_, builder)) => builder,
                none => {
                    let number = writing.uploader.next_number()?;
                    &mut none.insert((keys.epoch(), SegmentBuilder::new(keys, number, Vec::new()))).1
                }
            };
            if let Some(index) = push(builder) {
                let place = Place { segment: builder.number(), index };
                let mut overlay = writing.uploader.overlay.lock().unwrap_or_else(PoisonError::into_inner);
                overlay.insert(*id, place);
                return Ok(place);
            }
            self.close(writing).await?;
        }
    }

    async fn close(&mut self, writing: &Writing) -> Result<(), CompactError> {
        if let Some((_, builder)) = self.builder.take() {
            writing.uploader.store(builder.finish()).await?;
        }
        Ok(())
    }
}

/// Moves items and remembers where they went.
struct Mover<'a> {
    writing: &'a Writing,
    walk: Walk,
    sources: BTreeSet<SegmentNumber>,
    version_items: BTreeSet<Place>,
    /// Where the items of the sources are now.
    moved: BTreeMap<Place, Place>,
    /// Where each layout that was visited is now, written anew or not.
    layouts: BTreeMap<Place, Place>,
    /// Chunks go here.
    data: Shelf,
    /// Pages, layouts and versions go here: metadata stays together.
    metadata: Shelf,
    compacted: Compacted,
}

type Relocated<'a> = Pin<Box<dyn Future<Output = Result<ChildPlace, CompactError>> + Send + 'a>>;

impl Mover<'_> {
    /// Copies a segment's chunks, pages and versions that are reached. Its layouts are written anew instead.
    async fn empty(&mut self, placement: SegmentPlacement, marks: &Marks) -> Result<(), CompactError> {
        let (segment, epoch) = (placement.number, placement.epoch);
        let source = self.walk.source.clone();
        let footer = source.footer(&placement).await?;
        let mut live: BTreeSet<u32> = marks.items(segment).collect();
        live.extend(
            self.version_items.iter().filter(|place| place.segment == segment).map(|place| place.index),
        );
        let mut items = Vec::with_capacity(live.len());
        for index in live {
            let place = Place { segment, index };
            let item = footer.items.get(usize_of(index)).ok_or(NoSuchItem { segment, index })?;
            let wanted = match item.kind {
                ItemKind::Chunk | ItemKind::Page => true,
                ItemKind::Named => self.version_items.contains(&place),
            };
            if wanted {
                items.push((place, *item));
            }
        }
        let keys = source.seal_keys(epoch)?;
        let mut reader = source.reader(placement);
        let mut left = items.as_slice();
        while let Some((_, first)) = left.first() {
            let (run, rest) = left.split_at(run_len(left));
            left = rest;
            let end = run.last().map_or(first.offset, |(_, last)| last.offset + last.sealed_len);
            let range = u64::from(first.offset)..u64::from(end);
            let bytes = reader.range(range).await.map_err(CollectError::from)?;
            for (place, item) in run {
                let start = usize_of(item.offset - first.offset);
                self.copy(keys, *place, item, &bytes[start..start + usize_of(item.sealed_len)]).await?;
            }
        }
        Ok(())
    }

    async fn copy(
        &mut self,
        keys: &SealKeys,
        place: Place,
        item: &Item,
        sealed: &[u8],
    ) -> Result<(), CompactError> {
        let mut plain = Vec::new();
        Opener::new().open(keys, item, sealed, &mut plain).map_err(|error| broken(place, error))?;
        let shelf = match item.kind {
            ItemKind::Chunk => &mut self.data,
            ItemKind::Page | ItemKind::Named => &mut self.metadata,
        };
        let push = |builder: &mut SegmentBuilder| builder.push_sealed(item, sealed).ok();
        let now = shelf.put(self.writing, keys, &item.id, push).await?;
        self.moved.insert(place, now);
        self.compacted.items += 1;
        self.compacted.bytes += u64::from(item.sealed_len);
        Ok(())
    }

    fn now(&self, place: Place) -> Place {
        self.moved.get(&place).copied().unwrap_or(place)
    }

    /// Where a version's items are now, if any of them moved.
    async fn relocate_version(
        &mut self,
        version: &VersionRecord,
    ) -> Result<Option<Relocation>, CompactError> {
        let tree = self.relocate(version.tree).await?;
        let relocation = Relocation { version: version.id, place: self.now(version.version), tree };
        let same = relocation.place == version.version && tree == version.tree;
        Ok((!same).then_some(relocation))
    }

    /// Where a page and its layout are now. Everything below is seen to first. As deep as the tree is high.
    fn relocate(&mut self, at: ChildPlace) -> Relocated<'_> {
        Box::pin(async move {
            let page = self.now(at.page);
            if let Some(layout) = self.layouts.get(&at.layout) {
                return Ok(ChildPlace { page, layout: *layout });
            }
            let (id, layout) = self.walk.layout(at).await?;
            let mut children = Vec::with_capacity(layout.children().len());
            for child in layout.children() {
                children.push(self.relocate(*child).await?);
            }
            let relocated = LayoutPage::describe(layout.places().map(|place| self.now(place)), children);
            let place = if relocated == layout && !self.sources.contains(&at.layout.segment) {
                at.layout
            } else {
                self.compacted.layouts += 1;
                let bytes = relocated.encode();
                let keys = self.writing.context.keys.current();
                let push = |builder: &mut SegmentBuilder| {
                    builder.push(ItemKind::Named, &id, &bytes, Compression::Auto).ok()
                };
                self.metadata.put(self.writing, keys, &id, push).await?
            };
            self.layouts.insert(at.layout, place);
            Ok(ChildPlace { page, layout: place })
        })
    }
}

/// How many items at the front follow each other closely enough to be read together.
fn run_len(items: &[(Place, Item)]) -> usize {
    let Some((_, first)) = items.first() else { return 0 };
    let mut end = first.offset;
    items
        .iter()
        .take_while(|(_, item)| {
            let goes_on = item.offset == end && item.offset + item.sealed_len - first.offset <= RUN_BYTES_MAX;
            end = item.offset + item.sealed_len;
            goes_on || item.offset == first.offset
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::{FREED_SEGMENTS_MIN, RUN_BYTES_MAX, SEGMENTS_MAX, run_len, worth};
    use seedbank_catalog::records::LiveBytes;
    use seedbank_formats::place::Place;
    use seedbank_formats::seal::{Codec, Item, ItemKind};
    use seedbank_formats::{ChunkId, SegmentNumber};

    const MIB: u64 = 1024 * 1024;

    fn candidate(number: u64, live: u64, sealed: u64) -> (LiveBytes, u64) {
        (LiveBytes { segment: SegmentNumber(number), bytes: live }, sealed)
    }

    #[test]
    fn a_compaction_must_free_bytes_or_segments() {
        assert!(worth(&[]).is_empty());
        assert!(worth(&[candidate(1, MIB, 16 * MIB)]).is_empty());
        assert_eq!(worth(&[candidate(1, 0, 16 * MIB)]), [SegmentNumber(1)]);
        let small: Vec<_> = (0..FREED_SEGMENTS_MIN as u64).map(|number| candidate(number, 10, 100)).collect();
        assert_eq!(worth(&small).len(), FREED_SEGMENTS_MIN);
        assert!(worth(&small[1..]).is_empty());
    }

    #[test]
    fn the_emptiest_come_first_and_the_rest_waits() {
        let many: Vec<_> = (0..100).map(|number| candidate(number, 1000 - number, 64 * MIB)).collect();
        let chosen = worth(&many);
        assert_eq!((chosen.len(), chosen[0]), (SEGMENTS_MAX, SegmentNumber(99)));
        let by_share = worth(&[candidate(1, 30 * MIB, 64 * MIB), candidate(2, 2, 10)]);
        assert_eq!(by_share, [SegmentNumber(2), SegmentNumber(1)]);
    }

    #[test]
    fn neighbours_are_read_together_up_to_a_length() {
        let item = |offset, sealed_len| {
            let (kind, id, codec) = (ItemKind::Chunk, ChunkId([1; 32]), Codec::Raw);
            let place = Place { segment: SegmentNumber(1), index: 0 };
            (place, Item { kind, id, codec, offset, sealed_len, plain_len: 0 })
        };
        assert_eq!(run_len(&[]), 0);
        assert_eq!(run_len(&[item(50, 10), item(60, 10), item(80, 10)]), 2);
        assert_eq!(run_len(&[item(50, RUN_BYTES_MAX), item(50 + RUN_BYTES_MAX, 1)]), 1);
        assert_eq!(run_len(&[item(50, RUN_BYTES_MAX + 7)]), 1);
    }
}

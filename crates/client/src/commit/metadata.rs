//! The metadata segment that a commit fills, and those before it that were full.

use crate::push::PushError;
use crate::reader::usize_of;
use crate::uploader::{Uploader, ask};
use seedbank_catalog::Books;
use seedbank_formats::keys::SealKeys;
use seedbank_formats::place::{Link, Place};
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::seal::{Compression, ItemKind};
use seedbank_formats::segment::{ITEM_OVERHEAD_BYTES, SEGMENT_ITEMS_MAX, SegmentBuilder};
use seedbank_formats::{ChunkId, SegmentNumber};
use std::sync::Arc;

/// The open metadata segment.
pub(super) struct Metadata<'a> {
    uploader: &'a Arc<Uploader>,
    keys: &'a SealKeys,
    builder: Option<SegmentBuilder>,
    /// Segments that were closed since the attempt began: the map that it writes does not know them.
    closed: Vec<SegmentPlacement>,
    sealed_bytes: u64,
}

impl<'a> Metadata<'a> {
    pub(super) fn new(
        uploader: &'a Arc<Uploader>,
        keys: &'a SealKeys,
        builder: Option<SegmentBuilder>,
    ) -> Metadata<'a> {
        Metadata { uploader, keys, builder, closed: Vec::new(), sealed_bytes: 0 }
    }

    /// Begins an attempt to commit: what was closed before is recorded, and so in the books' changes.
    pub(super) async fn begin(&mut self) -> Result<(), PushError> {
        self.closed.clear();
        self.open().await.map(drop)
    }

    /// The segment that the next item goes to.
    pub(super) async fn open(&mut self) -> Result<&mut SegmentBuilder, PushError> {
        if self.builder.is_none() {
            let lease = self.uploader.lease;
            let number = ask(&self.uploader.books, move |books| books.allocate_segments(lease, 1)).await?;
            self.builder = Some(SegmentBuilder::new(self.keys, number, Vec::new()));
        }
        Ok(self.builder.as_mut().expect("just made"))
    }

    /// Closes the open segment unless items of these lengths still fit, and gives the place of the first of them.
    pub(super) async fn make_room(&mut self, lengths: &[usize]) -> Result<Place, PushError> {
        let limit = self.uploader.segment_bytes();
        let wanted: usize = lengths.iter().map(|len| len + ITEM_OVERHEAD_BYTES).sum();
        let builder = self.open().await?;
        let fits = builder.sealed_len() + wanted <= limit
            && builder.items().len() + lengths.len() <= SEGMENT_ITEMS_MAX;
        if !fits && !builder.is_empty() {
            self.close().await?;
        }
        let builder = self.open().await?;
        let index = u32::try_from(builder.items().len()).expect("a segment has at most 8,192 items");
        Ok(Place { segment: builder.number(), index })
    }

    /// Adds an item for which there is room.
    pub(super) async fn put(
        &mut self,
        id: &ChunkId,
        plain: &[u8],
        compression: Compression,
    ) -> Result<Link, PushError> {
        let builder = self.open().await?;
        let number = builder.number();
        match builder.push(ItemKind::Named, id, plain, compression) {
            Ok(index) => Ok(Link::new(Place { segment: number, index }, plain)),
            Err(_full) => Err(PushError::ListTooLarge),
        }
    }

    /// Adds an item, in a new segment if the open one has no room.
    pub(super) async fn add(&mut self, id: &ChunkId, plain: &[u8]) -> Result<Link, PushError> {
        self.make_room(&[plain.len()]).await?;
        self.put(id, plain, Compression::Auto).await
    }

    /// Stores the open segment.
    pub(super) async fn close(&mut self) -> Result<(), PushError> {
        if let Some(builder) = self.builder.take() {
            let segment = builder.finish();
            self.sealed_bytes += u64::from(segment.sealed_len());
            self.closed.push(self.uploader.store(segment).await?);
        }
        Ok(())
    }

    /// Sealed bytes of all attempts, if the open segment were closed now.
    pub(super) fn sealed_bytes(&self) -> u64 {
        self.sealed_bytes + self.open_bytes() as u64
    }

    /// Bytes of the open segment, if it were closed now.
    pub(super) fn open_bytes(&self) -> usize {
        self.builder.as_ref().map_or(0, SegmentBuilder::sealed_len)
    }

    /// What the segments that were closed in this attempt take on all providers together.
    pub(super) fn closed_stored(&self) -> u64 {
        self.closed.iter().map(|placement| self.uploader.stored_len(usize_of(placement.sealed_len))).sum()
    }

    /// What only the head can locate.
    pub(super) fn closed(&self) -> &[SegmentPlacement] {
        &self.closed
    }

    /// Where a segment is that was closed in this attempt.
    pub(super) fn placement(&self, segment: SegmentNumber) -> Option<&SegmentPlacement> {
        self.closed.iter().find(|placement| placement.number == segment)
    }
}

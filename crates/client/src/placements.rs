//! Where segments are: asked of the owner's books, or read from the placement map behind a head.

use crate::reader::{ReadError, Reader};
use crate::uploader::SharedBooks;
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::head::HeadBody;
use seedbank_formats::numbered::{NumberedTree, PageAt, Root, numbered_id, page_of, slot_of};
use seedbank_formats::pages::PageId;
use seedbank_formats::place::{Link, Place};
use seedbank_formats::placement::{ChildSegment, MapInner, MapLeaf, SegmentPlacement};
use seedbank_formats::seal::ItemKind;
use seedbank_formats::{DatasetId, SegmentNumber};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Placements kept: about a kilobyte each.
const PLACEMENTS_KEPT: usize = 4096;

/// Why a segment's holders can't be found.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// The books don't know, or can't be asked.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The map behind the head has no such segment: the layout names one that is gone.
    #[error("the dataset's placement map has no segment {0}")]
    NotInMap(SegmentNumber),
}

/// Finds segments.
pub struct Placements {
    source: Source,
    known: Mutex<BTreeMap<SegmentNumber, Arc<SegmentPlacement>>>,
}

enum Source {
    Books { books: SharedBooks, dataset: DatasetId },
    Map { root: Option<Root> },
}

impl Placements {
    /// Asks the owner's books.
    #[must_use]
    pub fn of_books(books: SharedBooks, dataset: DatasetId) -> Placements {
        Placements { source: Source::Books { books, dataset }, known: Mutex::default() }
    }

    /// Walks the map behind a head. What the head itself says goes first.
    #[must_use]
    pub fn of_head(head: &HeadBody) -> Placements {
        let known = head.locator.iter().map(|placement| (placement.number, Arc::new(placement.clone())));
        Placements { source: Source::Map { root: head.map }, known: Mutex::new(known.collect()) }
    }

    pub(crate) async fn find(
        &self,
        reader: &Reader,
        segment: SegmentNumber,
    ) -> Result<Arc<SegmentPlacement>, ReadError> {
        if let Some(placement) = self.known(segment) {
            return Ok(placement);
        }
        match &self.source {
            Source::Books { books, dataset } => {
                let (books, dataset) = (Arc::clone(books), *dataset);
                let asked = tokio::task::spawn_blocking(move || books.placements(dataset, vec![segment]));
                let placements =
                    asked.await.map_err(|_| ReadError::Stopped)?.map_err(PlacementError::from)?;
                self.learn(placements);
            }
            Source::Map { root } => {
                let root = root.ok_or(PlacementError::NotInMap(segment))?;
                self.walk(reader, root, segment).await?;
            }
        }
        self.known(segment).ok_or_else(|| PlacementError::NotInMap(segment).into())
    }

    fn known(&self, segment: SegmentNumber) -> Option<Arc<SegmentPlacement>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&segment).map(Arc::clone)
    }

    fn learn(&self, placements: impl IntoIterator<Item = SegmentPlacement>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for placement in placements {
            if known.len() >= PLACEMENTS_KEPT && matches!(self.source, Source::Books { .. }) {
                known.pop_first();
            }
            // What came first came from the head, which knows better than the map.
            known.entry(placement.number).or_insert_with(|| Arc::new(placement));
        }
    }

    /// Reads the map's pages from the root down to the leaf of `segment`, and learns what the leaf says.
    async fn walk(&self, reader: &Reader, root: Root, segment: SegmentNumber) -> Result<(), ReadError> {
        let not_there = || ReadError::from(PlacementError::NotInMap(segment));
        let Place { segment: lies_in, index } = root.link.place;
        let mut here = self.known(lies_in).ok_or_else(not_there)?;
        let (mut index, mut hash, mut level) = (index, root.link.hash, root.level);
        loop {
            let at = if level == root.level { PageAt { level, page: 0 } } else { page_of(segment.0, level) };
            let bytes = read_page(reader, &here, index, at, hash).await?;
            if level == 0 {
                let leaf = MapLeaf::decode(&bytes)?;
                reader.network().hint(&leaf.hints);
                self.learn(leaf.iter().cloned());
                return Ok(());
            }
            let inner = MapInner::decode(&bytes)?;
            reader.network().hint(&inner.hints);
            let child = inner.child(slot_of(segment.0, level)).ok_or_else(not_there)?;
            if let ChildSegment::Other(placement) = child.segment {
                here = Arc::new(placement.clone());
            }
            (index, hash, level) = (child.index, child.hash, level - 1);
        }
    }
}

/// One page of the map, as its parent linked it.
async fn read_page(
    reader: &Reader,
    placement: &Arc<SegmentPlacement>,
    index: u32,
    at: PageAt,
    hash: PageId,
) -> Result<Vec<u8>, ReadError> {
    let id = numbered_id(NumberedTree::Map, at);
    let bytes = reader.item_of(placement, index, ItemKind::Named, &id).await?;
    Link { place: Place { segment: placement.number, index }, hash }.check(&bytes)?;
    Ok(bytes)
}

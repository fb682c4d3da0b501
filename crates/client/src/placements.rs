//! Where segments are: asked of the owner's books, or read from the placement map behind a head.
//!
//! What is known is kept, bounded. Fragments move while somebody reads, so what turns out to be of no use can be asked
//! for again: of the books, or of a newer head.

use crate::heads::newest_head;
use crate::reader::{ReadError, Reader};
use crate::recent::Recent;
use crate::uploader::SharedBooks;
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::head::HeadBody;
use seedbank_formats::numbered::{LEVELS_MAX, NumberedTree, PageAt, Root, numbered_id, page_of, slot_of};
use seedbank_formats::pages::PageId;
use seedbank_formats::place::{Link, Place};
use seedbank_formats::placement::{ChildSegment, MapInner, MapLeaf, SegmentPlacement};
use seedbank_formats::seal::ItemKind;
use seedbank_formats::{DatasetId, PublicKey, SegmentNumber};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OnceCell, Semaphore};

/// Placements kept: about a kilobyte each.
const PLACEMENTS_KEPT: u64 = 4096;

/// Leaves of the map kept: 64 placements each.
const LEAVES_KEPT: u64 = 64;

/// A newer head is looked for no more often than this: its owner does not move fragments every second, and a read of
/// something that is gone shall fail fast.
const RENEW_EVERY: Duration = Duration::from_secs(5);

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
}

enum Source {
    Books {
        books: SharedBooks,
        dataset: DatasetId,
        known: Mutex<Recent<SegmentNumber, Arc<SegmentPlacement>>>,
    },
    Head {
        map: Mutex<Arc<Map>>,
        /// Taken by whoever looks for a newer head.
        renewing: Semaphore,
        renewed: Mutex<Option<Instant>>,
    },
}

type Leaf = BTreeMap<SegmentNumber, Arc<SegmentPlacement>>;

/// The placement map as one head has it.
struct Map {
    sequence: u64,
    root: Option<Root>,
    /// What the head itself says: it knows better than the map.
    located: Leaf,
    /// Who may have a newer head.
    providers: BTreeSet<PublicKey>,
    leaves: Mutex<Recent<u64, Arc<OnceCell<Arc<Leaf>>>>>,
}

impl Placements {
    /// Asks the owner's books.
    #[must_use]
    pub fn of_books(books: SharedBooks, dataset: DatasetId) -> Placements {
        let known = Mutex::new(Recent::new(PLACEMENTS_KEPT));
        Placements { source: Source::Books { books, dataset, known } }
    }

    /// Walks the map behind the head of this sequence. What the head itself says goes first.
    #[must_use]
    pub fn of_head(body: &HeadBody, sequence: u64) -> Placements {
        let map = Mutex::new(Arc::new(Map::new(body, sequence)));
        Placements { source: Source::Head { map, renewing: Semaphore::new(1), renewed: Mutex::default() } }
    }

    pub(crate) async fn find(
        &self,
        reader: &Reader,
        segment: SegmentNumber,
    ) -> Result<Arc<SegmentPlacement>, ReadError> {
        match &self.source {
            Source::Books { books, dataset, known } => {
                if let Some(placement) = lock(known).get(&segment) {
                    return Ok(placement);
                }
                let found = Arc::new(ask(books, *dataset, segment).await?);
                lock(known).put(segment, Arc::clone(&found), 1);
                Ok(found)
            }
            Source::Head { map, .. } => {
                let map = Arc::clone(&lock(map));
                map.find(reader, segment).await
            }
        }
    }

    /// Asks again where a segment is that can't be read where it was. `None` when that brings nothing new.
    pub(crate) async fn find_anew(
        &self,
        reader: &Reader,
        stale: &SegmentPlacement,
    ) -> Option<Arc<SegmentPlacement>> {
        let segment = stale.number;
        let is_new = |found: &Arc<SegmentPlacement>| **found != *stale;
        match &self.source {
            Source::Books { books, dataset, known } => {
                let found = Arc::new(ask(books, *dataset, segment).await.ok()?);
                lock(known).put(segment, Arc::clone(&found), 1);
                Some(found).filter(is_new)
            }
            Source::Head { .. } => {
                // Somebody else may have looked meanwhile.
                if let Some(found) = self.find(reader, segment).await.ok().filter(is_new) {
                    return Some(found);
                }
                if !self.renew(reader).await {
                    return None;
                }
                self.find(reader, segment).await.ok().filter(is_new)
            }
        }
    }

    /// Looks for a newer head, unless that was done just now, and says whether there is one. Books are always new.
    pub(crate) async fn renew(&self, reader: &Reader) -> bool {
        let Source::Head { map, renewing, renewed } = &self.source else { return false };
        let old = Arc::clone(&lock(map));
        let _turn = renewing.acquire().await.expect("the semaphore is never closed");
        let now = Arc::clone(&lock(map));
        if now.sequence > old.sequence {
            return true;
        }
        let is_due = |at: &mut Option<Instant>| {
            let due = at.is_none_or(|at| at.elapsed() >= RENEW_EVERY);
            if due {
                *at = Some(Instant::now());
            }
            due
        };
        if !is_due(&mut lock(renewed)) {
            return false;
        }
        let Some(newer) = now.newer(reader).await else { return false };
        *lock(map) = Arc::new(newer);
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn ask(
    books: &SharedBooks,
    dataset: DatasetId,
    segment: SegmentNumber,
) -> Result<SegmentPlacement, ReadError> {
    let books = Arc::clone(books);
    let asked = tokio::task::spawn_blocking(move || books.placements(dataset, vec![segment]));
    let found = asked.await.map_err(|_| ReadError::Stopped)?.map_err(PlacementError::from)?;
    let found = found.into_iter().find(|placement| placement.number == segment);
    found.ok_or_else(|| PlacementError::NotInMap(segment).into())
}

impl Map {
    fn new(body: &HeadBody, sequence: u64) -> Map {
        let located = body.locator.iter().map(|placement| (placement.number, Arc::new(placement.clone())));
        let holders = body.locator.iter().flat_map(SegmentPlacement::holders);
        Map {
            sequence,
            root: body.map,
            located: located.collect(),
            providers: holders.chain(body.hints.keys().copied()).collect(),
            leaves: Mutex::new(Recent::new(LEAVES_KEPT)),
        }
    }

    /// The map behind a newer head, if one is found.
    async fn newer(&self, reader: &Reader) -> Option<Map> {
        let (network, keys) = (reader.network(), reader.keys());
        let mut providers: Vec<PublicKey> = self.providers.iter().copied().collect();
        network.latency().rank(&mut providers, |provider| *provider, 0, network.now());
        let newest = newest_head(network, &providers, keys.id, None).await.ok()?;
        let head = newest.head();
        if head.sequence() <= self.sequence || head.owner() != keys.owner {
            return None;
        }
        let body = head.open(keys.seal_keys(head.epoch())?).ok()?;
        network.hint(&body.hints);
        Some(Map::new(&body, head.sequence()))
    }

    async fn find(
        &self,
        reader: &Reader,
        segment: SegmentNumber,
    ) -> Result<Arc<SegmentPlacement>, ReadError> {
        if let Some(placement) = self.located.get(&segment) {
            return Ok(Arc::clone(placement));
        }
        let number = page_of(segment.0, 0).page;
        let slot = {
            let mut leaves = lock(&self.leaves);
            leaves.get(&number).unwrap_or_else(|| {
                let slot = Arc::default();
                leaves.put(number, Arc::clone(&slot), 1);
                slot
            })
        };
        let leaf = slot.get_or_try_init(|| self.walk(reader, segment)).await?;
        leaf.get(&segment).map(Arc::clone).ok_or_else(|| PlacementError::NotInMap(segment).into())
    }

    /// Reads the map's pages from the root down to the leaf of `segment`.
    async fn walk(&self, reader: &Reader, segment: SegmentNumber) -> Result<Arc<Leaf>, ReadError> {
        let not_there = || ReadError::from(PlacementError::NotInMap(segment));
        let root = self.root.ok_or_else(not_there)?;
        if root.level >= LEVELS_MAX || page_of(segment.0, root.level).page != 0 {
            return Err(not_there());
        }
        let Place { segment: lies_in, index } = root.link.place;
        let mut here = self.located.get(&lies_in).map(Arc::clone).ok_or_else(not_there)?;
        let (mut index, mut hash, mut level) = (index, root.link.hash, root.level);
        loop {
            let bytes = read_page(reader, &here, index, page_of(segment.0, level), hash).await?;
            if level == 0 {
                let leaf = MapLeaf::decode(&bytes)?;
                reader.network().hint(&leaf.hints);
                let placements = leaf.iter().map(|found| (found.number, Arc::new(found.clone())));
                return Ok(Arc::new(placements.collect()));
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

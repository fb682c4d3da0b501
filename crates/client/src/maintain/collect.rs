//! Collection: finds out what the retained versions still reach, so that the books may give up the rest.
//!
//! Layout pages say all: the chunks of a page, the pages below it and their layouts. So the walk reads layouts only, each
//! once over all versions, and marks what they name. What it reads decides what is deleted, so everything comes with
//! proof, and anything odd ends the collection with nothing collected.

use super::marks::{Marks, NoSuchItem, Seen};
use super::proven::{ProvenReader, TooFew};
use super::{Maintenance, StepError};
use crate::behind::{BehindError, Silence, check_newest};
use crate::dataset::{DatasetKeys, index_folder};
use crate::network::Tokens;
use seedbank_catalog::index::Index;
use seedbank_catalog::records::{Collected, LiveBytes, NumberedList, VersionRecord};
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::codec::DecodeError;
use seedbank_formats::keys::{KeyEpoch, SealKeys};
use seedbank_formats::layout::{ChildPlace, LayoutPage, layout_id};
use seedbank_formats::numbered::LEVELS_MAX;
use seedbank_formats::place::Place;
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::seal::{Item, ItemKind, OpenError, open};
use seedbank_formats::segment::{Footer, OpenSegmentError};
use seedbank_formats::{ChunkId, DatasetId, SegmentNumber, Timestamp};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::task::JoinSet;

/// Versions asked for at once.
const VERSIONS_AT_ONCE: u32 = 1000;

/// Metadata is read in pieces of this length, which a proof may cover: pages that are walked together lie together.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Pieces kept. Versions build on each other, so a walk goes back and forth between a few segments.
const WINDOWS_KEPT: usize = 12;

/// Footers kept for the walk, of at most 400 KiB each.
const FOOTERS_KEPT: usize = 32;

/// Footers read at once when everything is marked.
const FOOTERS_AT_ONCE: usize = 16;

/// What a collection found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collection {
    /// What the books did. Forget the doomed segments in the index.
    pub collected: Collected,
    /// Segments with reachable items.
    pub live_segments: u64,
    /// Sealed bytes of those items.
    pub live_bytes: u64,
}

/// Why a dataset was not collected. Nothing of it is given up then.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The books say no, or can't be asked.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The books are an old copy, or nobody can say whether they are.
    #[error(transparent)]
    Behind(#[from] BehindError),
    /// Collect where the key is.
    #[error("there is no key for dataset {0}")]
    NoKey(DatasetId),
    /// Collect where the key of this epoch is.
    #[error("there is no key for epoch {} of dataset {dataset}", .epoch.0)]
    NoEpoch {
        /// The dataset.
        dataset: DatasetId,
        /// The epoch.
        epoch: KeyEpoch,
    },
    /// Collect when more providers are there.
    #[error(transparent)]
    TooFew(#[from] TooFew),
    /// A page or a footer is not what it should be: a fault of whoever wrote it. A person must look.
    #[error("item {} of segment {} can't be followed: {reason}", .place.index, .place.segment)]
    Broken {
        /// Where.
        place: Place,
        /// What is wrong.
        #[source]
        reason: BrokenReason,
    },
    /// The process is ending.
    #[error("the collection was stopped")]
    Stopped,
}

/// What can be wrong with something that was written.
#[derive(Debug, thiserror::Error)]
pub enum BrokenReason {
    /// The segment's footer does not open.
    #[error(transparent)]
    Footer(#[from] OpenSegmentError),
    /// The item does not open.
    #[error(transparent)]
    Item(#[from] OpenError),
    /// The item is no layout page.
    #[error(transparent)]
    Layout(#[from] DecodeError),
    /// The place is beyond the segment.
    #[error(transparent)]
    NoSuchItem(#[from] NoSuchItem),
    /// Another kind of item lies there, or the layout of another page.
    #[error("another item lies there")]
    OtherItem,
}

impl From<StepError> for CollectError {
    fn from(error: StepError) -> CollectError {
        match error {
            StepError::Catalog(error) => CollectError::Catalog(error),
            StepError::Stopped => CollectError::Stopped,
        }
    }
}

impl From<NoSuchItem> for CollectError {
    fn from(error: NoSuchItem) -> CollectError {
        broken(Place { segment: error.segment, index: error.index }, error)
    }
}

pub(super) fn broken(place: Place, reason: impl Into<BrokenReason>) -> CollectError {
    CollectError::Broken { place, reason: reason.into() }
}

impl Maintenance {
    /// Marks what the dataset's versions reach, and has the books give up segments of which nothing is reached. Jobs
    /// release their fragments then.
    ///
    /// # Errors
    /// [`CollectError`]; nothing was given up then.
    pub async fn collect(&self, dataset: DatasetId, now: Timestamp) -> Result<Collection, CollectError> {
        let (_, keys) = self.dataset::<CollectError>(dataset).await?;
        let keys = keys.ok_or(CollectError::NoKey(dataset))?;
        // What old books take for dead may be what a newer version needs.
        check_newest(&self.books, &self.network, dataset, Silence::Refused).await?;
        let snapshot = self.ask::<_, CollectError>(move |books| books.collect_begin(dataset)).await?;
        let source = Source::new(self, dataset, keys);
        let mut marks = Marks::default();
        self.mark_lists(dataset, &mut marks).await?;
        let mut walk = Walk::new(source.clone());
        let mut known = 0;
        // A version that was committed meanwhile may build on one that was removed meanwhile, before its turn came.
        while let Some(newest) = self.mark_versions(dataset, known, &mut walk, &mut marks).await? {
            known = newest + 1;
        }
        drop(walk);
        let live = source.live_bytes(&marks).await?;
        let (live_segments, live_bytes) = (live.len() as u64, live.iter().map(|live| live.bytes).sum());
        let finish = move |books: &crate::SharedBooks| {
            let collected = books.collect_finish(dataset, snapshot, live)?;
            books.put_setting(collected_key(&dataset), now.0.to_string())?;
            Ok(collected)
        };
        let collected = self.ask::<_, CollectError>(finish).await?;
        self.forget(dataset, collected.doomed.clone()).await?;
        Ok(Collection { collected, live_segments, live_bytes })
    }

    /// Marks everything below the versions from the ordinal `known` on; gives the newest one's, if there is any.
    async fn mark_versions(
        &self,
        dataset: DatasetId,
        known: u64,
        walk: &mut Walk,
        marks: &mut Marks,
    ) -> Result<Option<u64>, CollectError> {
        let (mut newest, mut before) = (None, None);
        loop {
            let mut versions = self.versions_before(dataset, before).await?;
            versions.retain(|version| version.ordinal >= known);
            let (Some(first), Some(last)) = (versions.first(), versions.last()) else { return Ok(newest) };
            newest = newest.or(Some(first.ordinal));
            before = Some(last.ordinal);
            for version in &versions {
                marks.mark(version.version)?;
                walk.mark_tree(version.tree, marks).await?;
            }
        }
    }

    /// Some versions of a dataset, newest first.
    pub(super) async fn versions_before(
        &self,
        dataset: DatasetId,
        before: Option<u64>,
    ) -> Result<Vec<VersionRecord>, CollectError> {
        self.ask::<_, CollectError>(move |books| books.versions(dataset, before, VERSIONS_AT_ONCE)).await
    }

    /// When a dataset was last collected; `None` if it never was.
    ///
    /// # Errors
    /// [`StepError`].
    pub async fn last_collected(&self, dataset: DatasetId) -> Result<Option<Timestamp>, StepError> {
        let text = self.ask::<_, StepError>(move |books| books.setting(collected_key(&dataset))).await?;
        Ok(text.and_then(|text| text.parse().ok()).map(Timestamp))
    }

    /// Takes segments out of the deduplication index. If that fails, the next push that relies on one is told.
    async fn forget(&self, dataset: DatasetId, segments: Vec<SegmentNumber>) -> Result<(), CollectError> {
        let Some(dir) = self.index_dir.clone().filter(|_| !segments.is_empty()) else { return Ok(()) };
        let forgotten = tokio::task::spawn_blocking(move || {
            Index::open(&index_folder(&dir, &dataset), dataset)?.forget_segments(segments)
        });
        if let Err(error) = forgotten.await.map_err(|_ended| CollectError::Stopped)? {
            tracing::warn!(%error, %dataset, "index not told of collected segments");
        }
        Ok(())
    }

    /// The current pages of the dataset's numbered lists. The books keep their segments by themselves; marking them
    /// makes the sums right.
    async fn mark_lists(&self, dataset: DatasetId, marks: &mut Marks) -> Result<(), CollectError> {
        for list in [NumberedList::Map, NumberedList::Versions, NumberedList::Refs] {
            for level in 0..LEVELS_MAX {
                let last = i64::MAX.unsigned_abs();
                let ask = move |books: &crate::SharedBooks| books.pages(dataset, list, level, 0, last);
                let pages = self.ask::<_, CollectError>(ask).await?;
                if pages.is_empty() {
                    break;
                }
                for page in pages {
                    marks.mark(page.link.place)?;
                }
            }
        }
        Ok(())
    }
}

/// The setting that says when a dataset was last collected.
fn collected_key(dataset: &DatasetId) -> String {
    format!("collected/{dataset}")
}

/// Where a dataset's bytes come from.
#[derive(Clone)]
pub(super) struct Source {
    maintenance: Maintenance,
    dataset: DatasetId,
    keys: Arc<DatasetKeys>,
    tokens: Arc<Tokens>,
}

impl Source {
    pub(super) fn new(maintenance: &Maintenance, dataset: DatasetId, keys: DatasetKeys) -> Source {
        let tokens = Tokens::new(keys.reader_key(), maintenance.network.identity());
        Source { maintenance: maintenance.clone(), dataset, keys: Arc::new(keys), tokens: Arc::new(tokens) }
    }

    pub(super) async fn placements(
        &self,
        segments: Vec<SegmentNumber>,
    ) -> Result<Vec<SegmentPlacement>, CollectError> {
        let dataset = self.dataset;
        self.maintenance.ask::<_, CollectError>(move |books| books.placements(dataset, segments)).await
    }

    pub(super) fn reader(&self, placement: SegmentPlacement) -> ProvenReader {
        ProvenReader::new(&self.maintenance.network, &self.tokens, Arc::new(placement))
    }

    pub(super) fn seal_keys(&self, epoch: KeyEpoch) -> Result<&SealKeys, CollectError> {
        self.keys.seal_keys(epoch).ok_or(CollectError::NoEpoch { dataset: self.dataset, epoch })
    }

    pub(super) async fn footer(&self, placement: &SegmentPlacement) -> Result<Footer, CollectError> {
        let keys = self.seal_keys(placement.epoch)?;
        let (number, sealed_len) = (placement.number, placement.sealed_len);
        let start = u64::from(sealed_len.saturating_sub(placement.footer_len));
        let sealed = self.reader(placement.clone()).range(start..u64::from(sealed_len)).await?;
        Footer::open(keys, number, sealed_len, &sealed)
            .map_err(|error| broken(Place { segment: number, index: 0 }, error))
    }

    /// Sealed bytes of the marked items, by segment. A segment whose footer can't be had counts as wholly alive.
    async fn live_bytes(&self, marks: &Marks) -> Result<Vec<LiveBytes>, CollectError> {
        let segments: Vec<SegmentNumber> = marks.segments().collect();
        let mut live = Vec::with_capacity(segments.len());
        for some in segments.chunks(FOOTERS_AT_ONCE) {
            let mut footers = JoinSet::new();
            for placement in self.placements(some.to_vec()).await? {
                let source = self.clone();
                footers.spawn(async move {
                    let footer = source.footer(&placement).await;
                    (placement, footer)
                });
            }
            while let Some(read) = footers.join_next().await {
                let (placement, footer) = read.map_err(|_ended| CollectError::Stopped)?;
                let segment = placement.number;
                let bytes = match footer {
                    Ok(footer) => marks.live_bytes(segment, &footer)?,
                    Err(CollectError::TooFew(error)) => {
                        tracing::warn!(%error, "footer not read, segment counts as alive");
                        u64::from(placement.sealed_len)
                    }
                    Err(error) => return Err(error),
                };
                live.push(LiveBytes { segment, bytes });
            }
        }
        Ok(live)
    }
}

/// What the walk keeps of a segment.
struct Known {
    placement: SegmentPlacement,
    footer: Footer,
}

/// Reads layout pages, with a bounded memory of where it has been.
pub(super) struct Walk {
    pub(super) source: Source,
    footers: BTreeMap<SegmentNumber, Arc<Known>>,
    /// Pieces of segments, the newest last.
    windows: VecDeque<(SegmentNumber, u32, Arc<Vec<u8>>)>,
}

impl Walk {
    pub(super) fn new(source: Source) -> Walk {
        Walk { source, footers: BTreeMap::new(), windows: VecDeque::new() }
    }

    /// Marks everything below a tree's root.
    pub(super) async fn mark_tree(
        &mut self,
        root: ChildPlace,
        marks: &mut Marks,
    ) -> Result<(), CollectError> {
        let mut open_ends = vec![root];
        while let Some(at) = open_ends.pop() {
            marks.mark(at.page)?;
            // A layout belongs to one page: what lies below it is marked already.
            if marks.mark(at.layout)? == Seen::Before {
                continue;
            }
            let (_, layout) = self.layout(at).await?;
            layout.runs().iter().try_for_each(|run| marks.mark_run(run))?;
            open_ends.extend_from_slice(layout.children());
        }
        Ok(())
    }

    /// A page's layout, and the id under which it is sealed.
    pub(super) async fn layout(&mut self, at: ChildPlace) -> Result<(ChunkId, LayoutPage), CollectError> {
        let page = self.item(at.page, ItemKind::Page).await?.1;
        let (known, item) = self.item(at.layout, ItemKind::Named).await?;
        if item.id != layout_id(&page.id) {
            return Err(broken(at.layout, BrokenReason::OtherItem));
        }
        let sealed = self.bytes(&known.placement, &item).await?;
        let keys = self.source.seal_keys(known.placement.epoch)?;
        let plain = open(keys, &item, &sealed).map_err(|error| broken(at.layout, error))?;
        let layout = LayoutPage::decode(&plain).map_err(|error| broken(at.layout, error))?;
        Ok((item.id, layout))
    }

    async fn item(&mut self, place: Place, kind: ItemKind) -> Result<(Arc<Known>, Item), CollectError> {
        let known = self.known(place.segment).await?;
        let item = usize::try_from(place.index).ok().and_then(|index| known.footer.items.get(index)).copied();
        match item {
            Some(item) if item.kind == kind => Ok((known, item)),
            Some(_) => Err(broken(place, BrokenReason::OtherItem)),
            None => Err(NoSuchItem { segment: place.segment, index: place.index }.into()),
        }
    }

    async fn known(&mut self, segment: SegmentNumber) -> Result<Arc<Known>, CollectError> {
        if let Some(known) = self.footers.get(&segment) {
            return Ok(Arc::clone(known));
        }
        let placement = self.source.placements(vec![segment]).await?.pop();
        let gone = || CatalogError::SegmentGone { segments: vec![segment] };
        let placement = placement.ok_or_else(gone)?;
        let footer = self.source.footer(&placement).await?;
        let known = Arc::new(Known { placement, footer });
        while self.footers.len() >= FOOTERS_KEPT {
            // Versions are walked from the newest back, so the highest numbers are done with first.
            self.footers.pop_last();
        }
        self.footers.insert(segment, Arc::clone(&known));
        Ok(known)
    }

    /// An item's sealed bytes.
    async fn bytes(&mut self, placement: &SegmentPlacement, item: &Item) -> Result<Vec<u8>, CollectError> {
        // A footer's items lie within their segment, and an item is shorter than a window.
        let end = item.offset + item.sealed_len;
        let mut bytes = Vec::with_capacity(crate::reader::usize_of(item.sealed_len));
        let mut start = item.offset;
        while start < end {
            let first = start - start % WINDOW_BYTES;
            let window = self.window(placement, first).await?;
            let upto = end.min(first.saturating_add(WINDOW_BYTES));
            let within = crate::reader::usize_of(start - first)..crate::reader::usize_of(upto - first);
            bytes.extend_from_slice(&window[within]);
            start = upto;
        }
        Ok(bytes)
    }

    async fn window(
        &mut self,
        placement: &SegmentPlacement,
        first: u32,
    ) -> Result<Arc<Vec<u8>>, CollectError> {
        let segment = placement.number;
        let is_it = |window: &&(SegmentNumber, u32, Arc<Vec<u8>>)| window.0 == segment && window.1 == first;
        if let Some((_, _, bytes)) = self.windows.iter().find(is_it) {
            return Ok(Arc::clone(bytes));
        }
        let end = placement.sealed_len.min(first.saturating_add(WINDOW_BYTES));
        let range = u64::from(first)..u64::from(end);
        let bytes = Arc::new(self.source.reader(placement.clone()).range(range).await?);
        while self.windows.len() >= WINDOWS_KEPT {
            self.windows.pop_front();
        }
        self.windows.push_back((segment, first, Arc::clone(&bytes)));
        Ok(bytes)
    }
}

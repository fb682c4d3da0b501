//! Reads one dataset: items by their place, pages by their links, all verified.
//!
//! A reader needs the dataset's key and either the owner's books or a head: it finds segments through the placement map
//! itself. It keeps footers and small metadata segments in memory, bounded, and nothing on disk.

use crate::dataset::DatasetKeys;
use crate::network::{Network, Tokens};
use crate::placements::{PlacementError, Placements};
use crate::range_read::{self, RangeError};
use crate::uploader::SharedBooks;
use seedbank_formats::SegmentNumber;
use seedbank_formats::codec::DecodeError;
use seedbank_formats::ids::ChunkId;
use seedbank_formats::keys::{KeyEpoch, SealKeys};
use seedbank_formats::pages::PageId;
use seedbank_formats::place::{Link, Place};
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::seal::{Item, ItemKind, Opener};
use seedbank_formats::segment::Footer;
use seedbank_protocol::routes::PROOF_RANGE_BYTES_MAX;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;

/// A metadata segment up to this length is fetched whole with its first page: one round trip instead of several.
const WHOLE_BYTES_MAX: u32 = 1024 * 1024;

/// Footers kept. The largest takes 400 KiB, a usual one 50 KiB.
const SEGMENTS_KEPT: usize = 64;

/// One request for neighbouring items asks for no more: a slow holder is then noticed after a few MiB, and a wrong one
/// spoils no more. Sealed, it stays below what one proof may cover.
pub(crate) const RUN_BYTES_MAX: u64 = PROOF_RANGE_BYTES_MAX / 8 * 7;

/// Requests for metadata under way at once.
const METADATA_REQUESTS_MAX: usize = 8;

/// Why something of a dataset could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Bytes can't be had, or are not what was written.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// The segment's holders can't be found.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// What was written is broken: the key fits and the content does not. Only the dataset's writer can help.
    #[error("the dataset was written wrongly: {0}")]
    Broken(#[from] DecodeError),
    /// A place leads to another item than it should: the layout is wrong, and no wrong byte came of it.
    #[error("the layout is wrong: item {index} of segment {segment} is not {id}", index = .place.index, segment = .place.segment)]
    WrongPlace {
        /// Where it was looked for.
        place: Place,
        /// What was looked for.
        id: ChunkId,
    },
    /// An item was replaced by another of its name.
    #[error(transparent)]
    WrongItem(#[from] seedbank_formats::place::WrongItem),
    /// Sealed in an epoch whose key is not here.
    #[error("this home has no key for epoch {} of the dataset; ask its owner for access", .0.0)]
    NoKey(KeyEpoch),
    /// There is no such path in the version.
    #[error("no such path in this version: {0}")]
    NoSuchPath(String),
    /// The path is a folder or a link.
    #[error("{0} is not a file")]
    NotAFile(String),
    /// The task that read was stopped.
    #[error("reading was stopped")]
    Stopped,
}

/// An item to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) place: Place,
    pub(crate) kind: ItemKind,
    pub(crate) id: ChunkId,
}

/// What is known of a segment: its footer, and all of it when it is small.
struct Loaded {
    footer: Footer,
    whole: Option<Vec<u8>>,
}

type Slot = Arc<OnceCell<Arc<Loaded>>>;

/// Reads one dataset.
pub struct Reader {
    network: Arc<Network>,
    keys: DatasetKeys,
    tokens: Tokens,
    placements: Placements,
    segments: Mutex<BTreeMap<SegmentNumber, Slot>>,
    metadata_requests: Arc<Semaphore>,
}

impl Reader {
    /// A reader that finds segments through `placements`.
    #[must_use]
    pub fn new(network: Arc<Network>, keys: DatasetKeys, placements: Placements) -> Arc<Reader> {
        let tokens = Tokens::new(keys.reader_key(), network.identity());
        Arc::new(Reader {
            network,
            keys,
            tokens,
            placements,
            segments: Mutex::default(),
            metadata_requests: Arc::new(Semaphore::new(METADATA_REQUESTS_MAX)),
        })
    }

    /// A reader that asks the owner's books where segments are.
    #[must_use]
    pub fn of_books(books: &SharedBooks, network: &Arc<Network>, keys: &DatasetKeys) -> Arc<Reader> {
        let placements = Placements::of_books(Arc::clone(books), keys.id);
        Reader::new(Arc::clone(network), keys.clone(), placements)
    }

    /// The network that it reads from.
    #[must_use]
    pub fn network(&self) -> &Arc<Network> {
        &self.network
    }

    /// The dataset's keys.
    #[must_use]
    pub fn keys(&self) -> &DatasetKeys {
        &self.keys
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    fn seal_keys(&self, epoch: KeyEpoch) -> Result<&SealKeys, ReadError> {
        self.keys.seal_keys(epoch).ok_or(ReadError::NoKey(epoch))
    }

    /// Where a segment's fragments are.
    pub(crate) async fn placement(&self, segment: SegmentNumber) -> Result<Arc<SegmentPlacement>, ReadError> {
        self.placements.find(self, segment).await
    }

    fn slot(&self, segment: SegmentNumber) -> Slot {
        let mut segments = self.segments.lock().expect("nothing panics while it holds the segments");
        if let Some(slot) = segments.get(&segment) {
            return Arc::clone(slot);
        }
        while segments.len() >= SEGMENTS_KEPT {
            // Pulls walk forwards, so the lowest numbers are done with first.
            segments.pop_first();
        }
        Arc::clone(segments.entry(segment).or_default())
    }

    /// Footer of a segment whose placement is known; all of the segment when it is small and holds metadata.
    async fn load(
        &self,
        placement: &Arc<SegmentPlacement>,
        kind: ItemKind,
    ) -> Result<Arc<Loaded>, ReadError> {
        let slot = self.slot(placement.number);
        let loaded = slot
            .get_or_try_init(|| async {
                let keys = self.seal_keys(placement.epoch)?;
                let (number, sealed_len) = (placement.number, placement.sealed_len);
                let footer_start = u64::from(sealed_len.saturating_sub(placement.footer_len));
                let metadata = matches!(kind, ItemKind::Page | ItemKind::Named);
                let start = if metadata && sealed_len <= WHOLE_BYTES_MAX { 0 } else { footer_start };
                let skip = usize::try_from(footer_start - start).expect("at most 64 MiB");
                let range = start..u64::from(sealed_len);
                let open = |bytes: &[u8]| {
                    let sealed = bytes.get(skip..).unwrap_or_default();
                    let footer = Footer::open(keys, number, sealed_len, sealed)?;
                    let whole = (start == 0).then(|| bytes.to_vec());
                    Ok::<_, seedbank_formats::segment::OpenSegmentError>(Loaded { footer, whole })
                };
                let loaded = range_read::read(&self.network, &self.tokens, placement, range, open).await?;
                Ok::<_, ReadError>(Arc::new(loaded))
            })
            .await?;
        Ok(Arc::clone(loaded))
    }

    /// What lies in a segment whose placement is known already.
    pub(crate) async fn footer(&self, placement: &Arc<SegmentPlacement>) -> Result<Footer, ReadError> {
        Ok(self.load(placement, ItemKind::Chunk).await?.footer.clone())
    }

    /// One item of a segment whose placement is known already: how the placement map reads itself.
    pub(crate) async fn item_of(
        &self,
        placement: &Arc<SegmentPlacement>,
        index: u32,
        kind: ItemKind,
        id: &ChunkId,
    ) -> Result<Vec<u8>, ReadError> {
        let loaded = self.load(placement, kind).await?;
        let place = Place { segment: placement.number, index };
        let item = loaded.footer.find(index, kind, id).ok_or(ReadError::WrongPlace { place, id: *id })?;
        if let Some(plain) = self.open_loaded(placement, &loaded, item)? {
            return Ok(plain);
        }
        let mut plains = self.run(placement, std::slice::from_ref(item)).await?;
        Ok(plains.pop().expect("one item gives one plaintext"))
    }

    /// Opens an item of a segment that is in memory. `None`: it is not, or what is there does not open and the network
    /// is asked again, with blame.
    fn open_loaded(
        &self,
        placement: &SegmentPlacement,
        loaded: &Loaded,
        item: &Item,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let Some(whole) = &loaded.whole else { return Ok(None) };
        let range = usize_of(item.offset)..usize_of(item.offset.saturating_add(item.sealed_len));
        let Some(sealed) = whole.get(range) else { return Ok(None) };
        Ok(seedbank_formats::seal::open(self.seal_keys(placement.epoch)?, item, sealed).ok())
    }

    /// Reads neighbouring items of one segment: with one request while a proof may cover them all.
    async fn run(&self, placement: &Arc<SegmentPlacement>, items: &[Item]) -> Result<Vec<Vec<u8>>, ReadError> {
        let mut plains = Vec::with_capacity(items.len());
        let mut rest = items;
        while let Some(first) = rest.first() {
            let end = |item: &Item| u64::from(item.offset - first.offset) + u64::from(item.sealed_len);
            let fitting = rest.iter().take_while(|item| end(item) <= PROOF_RANGE_BYTES_MAX).count();
            let (now, later) = rest.split_at(fitting.max(1));
            rest = later;
            plains.extend(self.run_at_once(placement, now).await?);
        }
        Ok(plains)
    }

    /// Reads neighbouring items of one segment with one request.
    async fn run_at_once(
        &self,
        placement: &Arc<SegmentPlacement>,
        items: &[Item],
    ) -> Result<Vec<Vec<u8>>, ReadError> {
        let keys = self.seal_keys(placement.epoch)?;
        let (Some(first), Some(last)) = (items.first(), items.last()) else { return Ok(Vec::new()) };
        let range = u64::from(first.offset)..u64::from(last.offset) + u64::from(last.sealed_len);
        let open = |bytes: &[u8]| {
            let mut opener = Opener::new();
            items
                .iter()
                .map(|item| {
                    let start = usize_of(item.offset - first.offset);
                    let sealed = bytes.get(start..start + usize_of(item.sealed_len)).unwrap_or_default();
                    let mut plain = Vec::with_capacity(usize_of(item.plain_len).min(sealed.len() * 4));
                    opener.open(keys, item, sealed, &mut plain).map(|()| plain)
                })
                .collect::<Result<Vec<Vec<u8>>, _>>()
        };
        Ok(range_read::read(&self.network, &self.tokens, placement, range, open).await?)
    }

    /// The items of one segment between two positions, checked against their wanted ids.
    async fn run_of_segment(&self, wanted: &[Wanted]) -> Result<Vec<Vec<u8>>, ReadError> {
        let Some(first) = wanted.first() else { return Ok(Vec::new()) };
        let placement = self.placement(first.place.segment).await?;
        let loaded = self.load(&placement, first.kind).await?;
        let mut items = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let found = loaded.footer.find(wanted.place.index, wanted.kind, &wanted.id);
            items.push(*found.ok_or(ReadError::WrongPlace { place: wanted.place, id: wanted.id })?);
        }
        if loaded.whole.is_some() {
            let opened = items.iter().map(|item| self.open_loaded(&placement, &loaded, item));
            if let Some(plains) = opened.collect::<Result<Option<Vec<_>>, _>>()? {
                return Ok(plains);
            }
        }
        self.run(&placement, &items).await
    }

    /// Reads items in any order; neighbours share a request. The answers are in the order of `wanted`.
    pub(crate) async fn items(self: &Arc<Self>, wanted: &[Wanted]) -> Result<Vec<Vec<u8>>, ReadError> {
        if let [_one] = wanted {
            return self.run_of_segment(wanted).await;
        }
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by_key(|at| wanted[*at].place);
        order.dedup_by_key(|at| wanted[*at].place);
        let mut tasks: JoinSet<Result<Vec<(Place, Vec<u8>)>, ReadError>> = JoinSet::new();
        let mut rest = &order[..];
        while !rest.is_empty() {
            let run = neighbours(rest.iter().map(|at| wanted[*at].place));
            let (now, later) = rest.split_at(run.min(METADATA_RUN_ITEMS_MAX));
            rest = later;
            let run: Vec<Wanted> = now.iter().map(|at| wanted[*at]).collect();
            let (reader, requests) = (Arc::clone(self), Arc::clone(&self.metadata_requests));
            tasks.spawn(async move {
                let _permit = requests.acquire().await.map_err(|_closed| ReadError::Stopped)?;
                let plains = reader.run_of_segment(&run).await?;
                Ok(run.iter().map(|wanted| wanted.place).zip(plains).collect())
            });
        }
        let mut found: BTreeMap<Place, Vec<u8>> = BTreeMap::new();
        while let Some(run) = tasks.join_next().await {
            found.extend(run.map_err(|_stopped| ReadError::Stopped)??);
        }
        Ok(wanted.iter().map(|wanted| found[&wanted.place].clone()).collect())
    }

    /// A named item behind a link, as the owner linked it.
    pub(crate) async fn linked(self: &Arc<Self>, link: &Link, id: &ChunkId) -> Result<Vec<u8>, ReadError> {
        let wanted = Wanted { place: link.place, kind: ItemKind::Named, id: *id };
        let plain = self.run_of_segment(&[wanted]).await?.pop().expect("one item gives one plaintext");
        link.check(&plain)?;
        Ok(plain)
    }

    /// Plaintexts of neighbouring chunks of one segment, for bulk reads.
    pub(crate) async fn chunks(
        self: &Arc<Self>,
        first: Place,
        ids: &[ChunkId],
    ) -> Result<Vec<Vec<u8>>, ReadError> {
        let wanted: Vec<Wanted> = ids
            .iter()
            .zip(first.index..)
            .map(|(id, index)| Wanted {
                place: Place { segment: first.segment, index },
                kind: ItemKind::Chunk,
                id: *id,
            })
            .collect();
        self.run_of_segment(&wanted).await
    }
}

/// Neighbouring metadata items fetched at once: pages of some 16 KiB each.
const METADATA_RUN_ITEMS_MAX: usize = 64;

/// How many places at the front follow one another in one segment.
fn neighbours(mut places: impl Iterator<Item = Place>) -> usize {
    let Some(mut last) = places.next() else { return 0 };
    let mut count = 1;
    for place in places {
        if place.segment != last.segment || Some(place.index) != last.index.checked_add(1) {
            break;
        }
        last = place;
        count += 1;
    }
    count
}

pub(crate) fn usize_of(value: u32) -> usize {
    usize::try_from(value).expect("32 bits fit an index on every machine that this runs on")
}

/// A page together with where its children are.
pub(crate) fn page_wanted(place: Place, id: PageId) -> Wanted {
    Wanted { place, kind: ItemKind::Page, id }
}

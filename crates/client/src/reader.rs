//! Reads one dataset: items by their place, pages by their links, all verified.
//!
//! A reader needs the dataset's key and either the owner's books or a head: it finds segments through the placement map
//! itself. It keeps footers and small metadata segments in memory, bounded, and nothing on disk.
//!
//! Chunks are asked for plainly: their seal and their id prove them. Everything else is asked for with proof. A named
//! item's seal fits an older item of the same name as well, and of a public dataset everybody can seal another footer:
//! only the fragment's id, which hangs on the signed head, says which bytes the owner wrote.

use crate::columns::Columns;
use crate::dataset::DatasetKeys;
use crate::network::{Network, Tokens};
use crate::placements::{PlacementError, Placements};
use crate::range_read::{self, Pieces, RangeError, Unopened};
use crate::recent::Recent;
use crate::uploader::SharedBooks;
use seedbank_formats::SegmentNumber;
use seedbank_formats::codec::DecodeError;
use seedbank_formats::ids::ChunkId;
use seedbank_formats::keys::{KeyEpoch, SealKeys};
use seedbank_formats::pages::{PAGE_BYTES_MAX, PageId};
use seedbank_formats::place::{ChunkRef, Link, Place};
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::seal::{ITEM_PLAIN_BYTES_MAX, Item, ItemKind, Opener};
use seedbank_formats::segment::Footer;
use seedbank_protocol::read_exchange::Check;
use seedbank_protocol::routes::PROOF_RANGE_BYTES_MAX;
use seedbank_transport::{Buffer, Buffers};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;

/// A metadata segment up to this length is fetched whole with its first page: one round trip instead of several.
const WHOLE_BYTES_MAX: u32 = 1024 * 1024;

/// Memory for footers and whole metadata segments. The largest footer takes 400 KiB, a usual one 50 KiB.
const SEGMENT_BYTES_KEPT: u64 = 32 * 1024 * 1024;

/// Memory for pages and layouts: a thousand of them, with those near the roots always among them.
const PAGE_BYTES_KEPT: u64 = 16 * 1024 * 1024;

/// One request for neighbouring items asks for no more: a slow holder is then noticed after a few MiB, a wrong one
/// spoils no more, and the same range can be asked for with proof.
pub(crate) const RUN_BYTES_MAX: u64 = PROOF_RANGE_BYTES_MAX;

/// A run of chunks of this length is part of a bulk read: what it needs decoded, its neighbours will need as well.
const BULK_BYTES_MIN: u64 = 1024 * 1024;

/// Requests for metadata under way at once.
const METADATA_REQUESTS_MAX: usize = 8;

/// Neighbouring metadata items fetched at once: pages of some 16 KiB each.
const METADATA_RUN_ITEMS_MAX: usize = 64;

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
    /// An item is longer than its kind can be, or not as long as the page says that names it. Its writer made it so.
    #[error("item {id} has {bytes} bytes, which its page does not say: segment={segment}, item={index}", index = .place.index, segment = .place.segment)]
    WrongLength {
        /// Where it is.
        place: Place,
        /// What it is.
        id: ChunkId,
        /// How long it is.
        bytes: u32,
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
    /// Name a file in the folder, or pull the folder.
    #[error("{0} is not a file but a folder: name a file in it, or pull it with the pattern \"{0}/**\"")]
    IsAFolder(String),
    /// Name what the link points to.
    #[error("{0} is not a file but a symlink: name what it points to")]
    IsALink(String),
    /// The task that read was stopped.
    #[error("reading was stopped")]
    Stopped,
}

/// An item to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wanted {
    place: Place,
    kind: ItemKind,
    id: ChunkId,
    plain: PlainLength,
}

/// Bytes of an item's plaintext, as far as they are known before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum PlainLength {
    Exactly(u32),
    AtMost(usize),
}

impl Wanted {
    /// A chunk of a file.
    pub(crate) fn chunk(chunk: &ChunkRef, place: Place) -> Wanted {
        Wanted { place, kind: ItemKind::Chunk, id: chunk.id, plain: PlainLength::Exactly(chunk.len) }
    }

    /// A page of a tree or manifest.
    pub(crate) fn page(id: PageId, place: Place) -> Wanted {
        Wanted { place, kind: ItemKind::Page, id, plain: PlainLength::AtMost(PAGE_BYTES_MAX) }
    }

    /// What has a name instead of a hash, at most `bytes_max` long.
    pub(crate) fn named(id: ChunkId, place: Place, bytes_max: usize) -> Wanted {
        Wanted { place, kind: ItemKind::Named, id, plain: PlainLength::AtMost(bytes_max) }
    }

    /// The item in its segment's footer.
    fn find(&self, footer: &Footer) -> Result<Item, ReadError> {
        let Wanted { place, kind, id, plain } = *self;
        let item = footer.find(place.index, kind, &id).ok_or(ReadError::WrongPlace { place, id })?;
        let fits = match plain {
            PlainLength::Exactly(len) => item.plain_len == len,
            PlainLength::AtMost(bytes_max) => usize_of(item.plain_len) <= bytes_max,
        };
        if fits { Ok(*item) } else { Err(ReadError::WrongLength { place, id, bytes: item.plain_len }) }
    }
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
    tokens: Arc<Tokens>,
    placements: Placements,
    columns: Arc<Columns>,
    segments: Mutex<Recent<SegmentNumber, Slot>>,
    pages: Mutex<Recent<Wanted, Arc<Vec<u8>>>>,
    metadata_requests: Arc<Semaphore>,
    buffers: Arc<Buffers>,
}

/// Plaintexts of neighbouring items, one after another in one buffer.
pub(crate) struct Plains {
    buffer: Buffer,
    ends: Vec<usize>,
}

impl Plains {
    /// The plaintext of the item at this position.
    pub(crate) fn get(&self, position: usize) -> &[u8] {
        let start = position.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.buffer[start..self.ends[position]]
    }

    fn to_vecs(&self) -> Vec<Vec<u8>> {
        (0..self.ends.len()).map(|position| self.get(position).to_vec()).collect()
    }
}

impl Reader {
    /// A reader that finds segments through `placements`.
    #[must_use]
    pub fn new(network: Arc<Network>, keys: DatasetKeys, placements: Placements) -> Arc<Reader> {
        let tokens = Arc::new(Tokens::new(keys.reader_key(), network.identity()));
        Arc::new(Reader {
            network,
            keys,
            tokens,
            placements,
            columns: Columns::new(),
            segments: Mutex::new(Recent::new(SEGMENT_BYTES_KEPT)),
            pages: Mutex::new(Recent::new(PAGE_BYTES_KEPT)),
            metadata_requests: Arc::new(Semaphore::new(METADATA_REQUESTS_MAX)),
            buffers: Arc::default(),
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

    fn access(&self) -> (&Arc<Network>, &Arc<Tokens>) {
        (&self.network, &self.tokens)
    }

    fn seal_keys(&self, epoch: KeyEpoch) -> Result<&SealKeys, ReadError> {
        self.keys.seal_keys(epoch).ok_or(ReadError::NoKey(epoch))
    }

    /// Where a segment's fragments are.
    pub(crate) async fn placement(&self, segment: SegmentNumber) -> Result<Arc<SegmentPlacement>, ReadError> {
        match self.placements.find(self, segment).await {
            // The map itself may have moved.
            Err(ReadError::Range(RangeError::Unavailable { .. })) if self.placements.renew(self).await => {
                self.placements.find(self, segment).await
            }
            found => found,
        }
    }

    fn segments(&self) -> MutexGuard<'_, Recent<SegmentNumber, Slot>> {
        self.segments.lock().expect("nothing panics while it holds the segments")
    }

    fn slot(&self, placement: &SegmentPlacement, whole: bool) -> Slot {
        let mut segments = self.segments();
        segments.get(&placement.number).unwrap_or_else(|| {
            let slot = Slot::default();
            // An item takes a little more in memory than in a footer.
            let whole = if whole { placement.sealed_len } else { 0 };
            let bytes = u64::from(whole) + u64::from(placement.footer_len) / 3 * 4;
            segments.put(placement.number, Arc::clone(&slot), bytes);
            slot
        })
    }

    /// Footer of a segment whose placement is known; all of the segment when it is small and holds metadata.
    async fn load(
        &self,
        placement: &Arc<SegmentPlacement>,
        kind: ItemKind,
    ) -> Result<Arc<Loaded>, ReadError> {
        let (number, sealed_len) = (placement.number, placement.sealed_len);
        let is_whole = is_metadata(kind) && sealed_len <= WHOLE_BYTES_MAX;
        let slot = self.slot(placement, is_whole);
        let loaded = slot
            .get_or_try_init(|| async {
                let keys = self.seal_keys(placement.epoch)?;
                let footer_start = sealed_len.saturating_sub(placement.footer_len);
                let start = if is_whole { 0 } else { footer_start };
                let (skip, len) = (footer_start - start, sealed_len - start);
                let range = u64::from(start)..u64::from(sealed_len);
                let open = |pieces: &Pieces| {
                    let sealed = pieces.get(usize_of(skip)..usize_of(len)).unwrap_or_default();
                    let footer = Footer::open(keys, number, sealed_len, &sealed).map_err(|error| {
                        Unopened { at: u64::from(skip)..u64::from(len), why: error.to_string() }
                    })?;
                    let whole =
                        if is_whole { pieces.get(0..usize_of(len)).map(Cow::into_owned) } else { None };
                    Ok(Loaded { footer, whole })
                };
                let read = range_read::read(self.access(), placement, range, Check::Proof, None, open);
                Ok::<_, ReadError>(Arc::new(read.await?))
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
        let place = Place { segment: placement.number, index };
        let wanted = Wanted { place, kind, id: *id, plain: PlainLength::AtMost(ITEM_PLAIN_BYTES_MAX) };
        Ok(self.run_placed(placement, &[wanted]).await?.get(0).to_vec())
    }

    /// Reads neighbouring items of one segment into `plain`, with one request to each fragment that they touch.
    async fn run(
        &self,
        placement: &Arc<SegmentPlacement>,
        items: &[Item],
        plain: &mut [u8],
    ) -> Result<(), ReadError> {
        let keys = self.seal_keys(placement.epoch)?;
        let (Some(first), Some(last)) = (items.first(), items.last()) else { return Ok(()) };
        let check = if items.iter().any(|item| is_metadata(item.kind)) { Check::Proof } else { Check::Seal };
        let range = u64::from(first.offset)..u64::from(last.offset) + u64::from(last.sealed_len);
        let is_bulk = check == Check::Seal && range.end - range.start >= BULK_BYTES_MIN;
        let columns = is_bulk.then_some(&self.columns);
        let open = |pieces: &Pieces| open_items(keys, items, first.offset, |at| pieces.get(at), plain);
        Ok(range_read::read(self.access(), placement, range, check, columns, open).await?)
    }

    /// Neighbouring items of one segment, checked against what is wanted. Fragments that moved meanwhile are followed.
    async fn run_of_segment(&self, wanted: &[Wanted]) -> Result<Plains, ReadError> {
        let first = wanted.first().expect("nobody reads a run without items");
        let placement = self.placement(first.place.segment).await?;
        let failed = match self.run_placed(&placement, wanted).await {
            Err(error @ ReadError::Range(RangeError::Unavailable { .. })) => error,
            read => return read,
        };
        match self.placements.find_anew(self, &placement).await {
            Some(moved) => self.run_placed(&moved, wanted).await,
            None => Err(failed),
        }
    }

    async fn run_placed(
        &self,
        placement: &Arc<SegmentPlacement>,
        wanted: &[Wanted],
    ) -> Result<Plains, ReadError> {
        let kind = wanted.first().map_or(ItemKind::Chunk, |first| first.kind);
        let loaded = self.load(placement, kind).await?;
        let items: Vec<Item> =
            wanted.iter().map(|wanted| wanted.find(&loaded.footer)).collect::<Result<_, _>>()?;
        let ends = items.iter().scan(0, |end, item| {
            *end += usize_of(item.plain_len);
            Some(*end)
        });
        let ends: Vec<usize> = ends.collect();
        let mut plains = Plains { buffer: self.buffers.take(ends.last().copied().unwrap_or(0)), ends };
        if let Some(whole) = &loaded.whole {
            let keys = self.seal_keys(placement.epoch)?;
            let within = |at| whole.get(at).map(Cow::Borrowed);
            if open_items(keys, &items, 0, within, &mut plains.buffer).is_ok() {
                return Ok(plains);
            }
            // Something does not open and is asked for again, with blame.
        }
        let (mut rest, mut plain) = (&items[..], &mut plains.buffer[..]);
        while !rest.is_empty() {
            let (run, later) = rest.split_at(run_len(rest));
            let plain_len = run.iter().map(|item| usize_of(item.plain_len)).sum();
            let (now, after) = plain.split_at_mut(plain_len);
            self.run(placement, run, now).await?;
            (rest, plain) = (later, after);
        }
        Ok(plains)
    }

    fn pages(&self) -> MutexGuard<'_, Recent<Wanted, Arc<Vec<u8>>>> {
        self.pages.lock().expect("nothing panics while it holds the pages")
    }

    /// Reads items in any order; neighbours share a request. The answers are in the order of `wanted`. Pages and what
    /// has a name are kept for a while: what lies in a place is never another item.
    pub(crate) async fn items(self: &Arc<Self>, wanted: &[Wanted]) -> Result<Vec<Vec<u8>>, ReadError> {
        let mut order = wanted.to_vec();
        order.sort_unstable();
        // Two items that a wrong layout puts in one place stay two: each is checked for itself.
        order.dedup();
        let mut found: BTreeMap<Wanted, Arc<Vec<u8>>> = {
            let mut pages = self.pages();
            order.iter().filter_map(|wanted| Some((*wanted, pages.get(wanted)?))).collect()
        };
        order.retain(|wanted| !found.contains_key(wanted));
        let mut runs: VecDeque<Vec<Wanted>> = VecDeque::new();
        let mut rest = &order[..];
        while !rest.is_empty() {
            let run = neighbours(rest.iter().map(|wanted| wanted.place));
            let (now, later) = rest.split_at(run.min(METADATA_RUN_ITEMS_MAX));
            runs.push_back(now.to_vec());
            rest = later;
        }
        let mut tasks = JoinSet::new();
        // The last one is read by this task, and is the only one as a rule.
        let own = runs.pop_back();
        for run in runs {
            let reader = Arc::clone(self);
            tasks.spawn(async move { reader.metadata_run(run).await });
        }
        let mut read = Vec::new();
        if let Some(own) = own {
            read.extend(self.metadata_run(own).await?);
        }
        while let Some(run) = tasks.join_next().await {
            read.extend(run.map_err(|_stopped| ReadError::Stopped)??);
        }
        for (wanted, plain) in read {
            let plain = Arc::new(plain);
            if is_metadata(wanted.kind) {
                self.pages().put(wanted, Arc::clone(&plain), plain.len() as u64);
            }
            found.insert(wanted, plain);
        }
        Ok(wanted.iter().map(|wanted| Vec::clone(&found[wanted])).collect())
    }

    /// Neighbouring items, as soon as it is their turn.
    async fn metadata_run(&self, run: Vec<Wanted>) -> Result<Vec<(Wanted, Vec<u8>)>, ReadError> {
        let _permit = self.metadata_requests.acquire().await.map_err(|_closed| ReadError::Stopped)?;
        let plains = self.run_of_segment(&run).await?.to_vecs();
        Ok(run.into_iter().zip(plains).collect())
    }

    /// A named item behind a link, as the owner linked it.
    pub(crate) async fn linked(self: &Arc<Self>, link: &Link, id: &ChunkId) -> Result<Vec<u8>, ReadError> {
        let wanted = Wanted::named(*id, link.place, ITEM_PLAIN_BYTES_MAX);
        let plains = self.run_of_segment(&[wanted]).await?;
        link.check(plains.get(0))?;
        Ok(plains.get(0).to_vec())
    }

    /// Plaintexts of neighbouring chunks of one segment, for bulk reads.
    pub(crate) async fn chunks(
        self: &Arc<Self>,
        first: Place,
        chunks: &[ChunkRef],
    ) -> Result<Plains, ReadError> {
        let places = (first.index..).map(|index| Place { segment: first.segment, index });
        let wanted: Vec<Wanted> =
            chunks.iter().zip(places).map(|(chunk, place)| Wanted::chunk(chunk, place)).collect();
        self.run_of_segment(&wanted).await
    }
}

/// Whether an item needs more than its seal to be believed.
fn is_metadata(kind: ItemKind) -> bool {
    match kind {
        ItemKind::Chunk => false,
        ItemKind::Page | ItemKind::Named => true,
    }
}

thread_local! {
    /// Tables and buffers for what is compressed.
    static OPENER: RefCell<Opener> = RefCell::default();
}

/// Opens items one after another into `plain`, which has room for exactly them. `sealed` gives their bytes, by what
/// lies between them and the byte with the offset `start`.
fn open_items<'b>(
    keys: &SealKeys,
    items: &[Item],
    start: u32,
    sealed: impl Fn(Range<usize>) -> Option<Cow<'b, [u8]>>,
    plain: &mut [u8],
) -> Result<(), Unopened> {
    let mut plain = plain;
    OPENER.with_borrow_mut(|opener| {
        for item in items {
            let (own, rest) = plain.split_at_mut(usize_of(item.plain_len));
            plain = rest;
            // Items of a footer lie one behind another.
            let at = usize_of(item.offset - start);
            let end = at + usize_of(item.sealed_len);
            let bytes = sealed(at..end).unwrap_or_default();
            opener.open_into(keys, item, &bytes, own).map_err(|error| {
                let at = u64::from(item.offset - start);
                Unopened { at: at..at + u64::from(item.sealed_len), why: error.to_string() }
            })?;
        }
        Ok(())
    })
}

/// How many items at the front fit into one request; at least one.
fn run_len(items: &[Item]) -> usize {
    let mut bytes = 0;
    let fits = items.iter().take_while(|item| {
        bytes += u64::from(item.sealed_len);
        bytes <= RUN_BYTES_MAX
    });
    fits.count().max(1)
}

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

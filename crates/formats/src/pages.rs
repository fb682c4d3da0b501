//! Cuts a sequence of items into content-defined pages, and the sequence of those pages into pages, up to one root.
//!
//! The one implementation behind trees and manifests. Whether an item ends its page depends on the items since the
//! page's start and on nothing else, so equal sequences give equal pages anywhere, and after an edit the cuts soon fall
//! where they fell before: all pages but a few stay as they were.
//!
//! **The rule.** An item weighs its key, its encoded value and four bytes. From 4 KiB and two items on, an item of
//! weight *w* ends the page with probability *w* / 12 KiB: when a keyed hash of its level and key, whose first eight
//! bytes are read as a little-endian integer, is below *w* × ⌊(2^64 - 1) / 12,288⌋. From 64 KiB on, any item does. The
//! mean is then 16 KiB for short and long items alike: a hundred-odd files with one chunk each, or a few dozen with
//! sixteen. Smaller pages would cost more reads from the root to a leaf and more seals, larger ones more bytes for every
//! changed file. Weights ignore the prefix compression of paths, so an item's weight never depends on its neighbours.
//!
//! Two items at least: every level then has at most half the pages of the one below, and the building ends.
//!
//! Pages are named by [`page_id`] of their bytes. Storing and finding them is for the caller: see [`PageSource`].

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::ChunkId;
use crate::seal::page_id;
use std::sync::LazyLock;

/// What a tree or manifest page is called: [`page_id`] of its bytes.
pub type PageId = ChunkId;

/// No item ends a page before this weight.
const WEIGHT_MIN: usize = 4 * 1024;
/// The mean weight of what follows the minimum.
const WEIGHT_SPREAD: u64 = 12 * 1024;
/// Any item ends a page from this weight on.
const WEIGHT_FULL: usize = 64 * 1024;
/// What an item weighs beside key and value; no fewer than its two lengths take, so that no page is longer than its
/// weight and its header.
const ITEM_WEIGHT: usize = 4;
/// The largest page: a full one, with the largest item on top. Whoever reads pages allocates no more.
pub const PAGE_BYTES_MAX: usize = 80 * 1024;

const VERSION: u8 = 1;

static CUT_KEY: LazyLock<[u8; 32]> = LazyLock::new(|| blake3::derive_key("seedbank v1 page cut", b""));

/// Gives the bytes of pages. Whoever implements it has checked them against their id, as opening their seal does.
pub trait PageSource {
    /// Why a page could not be read.
    type Error: std::error::Error + 'static;

    /// The bytes of the page called `id`.
    ///
    /// # Errors
    /// When it can't be had.
    fn page(&self, id: &PageId) -> Result<Vec<u8>, Self::Error>;
}

impl<S: PageSource + ?Sized> PageSource for &S {
    type Error = S::Error;

    fn page(&self, id: &PageId) -> Result<Vec<u8>, S::Error> {
        (**self).page(id)
    }
}

/// Why a walk over pages stopped.
#[derive(Debug, thiserror::Error)]
pub enum WalkError<E: std::error::Error + 'static> {
    /// The source could not give a page; asking again later may help.
    #[error("a page could not be read: {page}")]
    Source {
        /// Which page.
        page: PageId,
        /// Why not.
        source: E,
    },
    /// A page has the right id, so its author wrote it like this: the tree is broken and no other copy helps.
    #[error("a page is broken: {page}")]
    Broken {
        /// Which page.
        page: PageId,
        /// What is wrong with it.
        #[source]
        reason: DecodeError,
    },
}

/// Items and bytes below a row. Sums stop at the largest number instead of overflowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    pub(crate) items: u64,
    pub(crate) bytes: u64,
}

impl Totals {
    pub(crate) fn plus(self, other: Totals) -> Totals {
        Totals {
            items: self.items.saturating_add(other.items),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// One row of a page: an item in a leaf, a child in an inner page.
pub(crate) trait Row {
    type Key;

    fn key(&self) -> &Self::Key;
    fn totals(&self) -> Totals;
    fn write_value(&self, writer: &mut Writer);
}

/// What kind of pages these are.
pub(crate) trait Shape {
    const NAME: &'static str;
    const MAGIC: &'static [u8; 4];
    type Key: Clone;
    type Child: Row<Key = Self::Key>;

    fn key_bytes(key: &Self::Key) -> &[u8];
    /// Writes a row's key, the row before it in the page being known.
    fn write_key(key: &Self::Key, previous: Option<&Self::Key>, writer: &mut Writer);
    /// The row that stands for a finished page, whose first key is `first`.
    fn child(first: Self::Key, page: PageId, totals: Totals) -> Self::Child;
}

/// A row's weight in the rule of cuts.
pub(crate) fn weight(key: &[u8], value_len: usize) -> usize {
    key.len() + value_len + ITEM_WEIGHT
}

fn ends_page(level: u8, key: &[u8], item_weight: usize, items: usize, page_weight: usize) -> bool {
    if items < 2 || page_weight < WEIGHT_MIN {
        return false;
    }
    if page_weight >= WEIGHT_FULL {
        return true;
    }
    let mut hasher = blake3::Hasher::new_keyed(&CUT_KEY);
    hasher.update(&[level]).update(key);
    let hash = hasher.finalize();
    let word = hash.as_bytes().first_chunk().expect("a hash has 32 bytes");
    u64::from_le_bytes(*word) < (item_weight as u64).saturating_mul(u64::MAX / WEIGHT_SPREAD)
}

/// A page that is being written.
pub(crate) struct OpenPage<S: Shape> {
    level: u8,
    writer: Writer,
    items: usize,
    weight: usize,
    keys: Option<(S::Key, S::Key)>,
    totals: Totals,
}

impl<S: Shape> OpenPage<S> {
    pub(crate) fn new(level: u8) -> OpenPage<S> {
        let mut writer = Writer::format(S::MAGIC, VERSION);
        writer.u8(level);
        OpenPage { level, writer, items: 0, weight: 0, keys: None, totals: Totals::default() }
    }

    /// Writes a row, and says whether it ends the page.
    pub(crate) fn add<R: Row<Key = S::Key>>(&mut self, row: &R) -> bool {
        let key = row.key();
        S::write_key(key, self.keys.as_ref().map(|(_, last)| last), &mut self.writer);
        let before_value = self.writer.written();
        row.write_value(&mut self.writer);
        let weight = weight(S::key_bytes(key), self.writer.written() - before_value);
        self.items += 1;
        self.weight += weight;
        self.totals = self.totals.plus(row.totals());
        match &mut self.keys {
            Some((_, last)) => last.clone_from(key),
            none => *none = Some((key.clone(), key.clone())),
        }
        ends_page(self.level, S::key_bytes(key), weight, self.items, self.weight)
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.writer.finish()
    }
}

/// Where a row of an inner page comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The page was written here.
    Built,
    /// The page is an old one, taken over with everything below it.
    Reused,
}

/// The open pages of all levels, leaves first. Bounded: one page a level.
pub(crate) struct Levels<S: Shape> {
    open: Vec<OpenPage<S>>,
    /// Of each level's open page, the first child: when it stays the only one of the topmost level, it is the root.
    first_child: Vec<Option<(PageId, Origin)>>,
}

/// The root of finished levels.
pub(crate) struct Top {
    pub(crate) page: PageId,
    pub(crate) totals: Totals,
    /// Whether it is an old page, which may have a single child and then is no root.
    pub(crate) is_reused: bool,
}

impl<S: Shape> Default for Levels<S> {
    fn default() -> Levels<S> {
        Levels { open: Vec::new(), first_child: Vec::new() }
    }
}

impl<S: Shape> Levels<S> {
    /// Adds the next item.
    pub(crate) fn push<R: Row<Key = S::Key>>(&mut self, item: &R, sink: &mut impl FnMut(PageId, Vec<u8>)) {
        self.ensure(0);
        if self.open[0].add(item) {
            self.close(0, sink);
        }
    }

    /// Adds a whole old page of `level` with everything below it. Only where [`Levels::is_at_cut`] says so.
    pub(crate) fn reuse(
        &mut self,
        level: u8,
        page: PageId,
        child: &S::Child,
        sink: &mut impl FnMut(PageId, Vec<u8>),
    ) {
        debug_assert!(self.is_at_cut(level), "an old page is taken over only where a new one would start");
        self.push_child(usize::from(level) + 1, (page, Origin::Reused), child, sink);
    }

    /// Whether a page of `level` would start with the next item, and so one of each level below.
    pub(crate) fn is_at_cut(&self, level: u8) -> bool {
        self.open.iter().take(usize::from(level) + 1).all(|page| page.items == 0)
    }

    fn ensure(&mut self, level: usize) {
        while self.open.len() <= level {
            let next = u8::try_from(self.open.len()).expect("each level has half the pages of the one below");
            self.open.push(OpenPage::new(next));
            self.first_child.push(None);
        }
    }

    fn push_child(
        &mut self,
        level: usize,
        page: (PageId, Origin),
        child: &S::Child,
        sink: &mut impl FnMut(PageId, Vec<u8>),
    ) {
        self.ensure(level);
        self.first_child[level].get_or_insert(page);
        if self.open[level].add(child) {
            self.close(level, sink);
        }
    }

    fn close(&mut self, level: usize, sink: &mut impl FnMut(PageId, Vec<u8>)) {
        let (page, child) = self.take(level, sink);
        self.push_child(level + 1, (page, Origin::Built), &child, sink);
    }

    fn take(&mut self, level: usize, sink: &mut impl FnMut(PageId, Vec<u8>)) -> (PageId, S::Child) {
        let here = &mut self.open[level];
        let next = OpenPage::new(here.level);
        let done = std::mem::replace(here, next);
        self.first_child[level] = None;
        let (totals, keys) = (done.totals, done.keys.clone());
        let bytes = done.finish();
        let id = page_id(&bytes);
        sink(id, bytes);
        let (first, _) = keys.expect("only pages with items are closed");
        (id, S::child(first, id, totals))
    }

    /// Closes what is open, from the leaves up.
    pub(crate) fn finish(mut self, sink: &mut impl FnMut(PageId, Vec<u8>)) -> Top {
        self.ensure(0);
        let mut level = 0;
        loop {
            let here = &self.open[level];
            let is_topmost = self.open[level + 1..].iter().all(|page| page.items == 0);
            if is_topmost {
                let totals = here.totals;
                return match (here.items, self.first_child[level]) {
                    (0, _) => {
                        assert_eq!(
                            level, 0,
                            "a level above the leaves exists because a page was pushed to it"
                        );
                        let bytes = OpenPage::<S>::new(0).finish();
                        let page = page_id(&bytes);
                        sink(page, bytes);
                        Top { page, totals, is_reused: false }
                    }
                    (1, Some((page, origin))) => Top { page, totals, is_reused: origin == Origin::Reused },
                    _ => Top { page: self.take(level, sink).0, totals, is_reused: false },
                };
            }
            if here.items > 0 {
                self.close(level, sink);
            }
            level += 1;
        }
    }
}

/// Reads a page's header, and gives the level and what follows.
pub(crate) fn read_header<'a, S: Shape>(bytes: &'a [u8]) -> Result<(u8, Reader<'a>), DecodeError> {
    if bytes.len() > PAGE_BYTES_MAX {
        return Err(DecodeError::OverLimit {
            format: S::NAME,
            field: "length",
            found: bytes.len() as u64,
            limit: PAGE_BYTES_MAX as u64,
        });
    }
    let mut reader = Reader::format(S::NAME, S::MAGIC, VERSION, bytes)?;
    let level = reader.u8()?;
    Ok((level, reader))
}

/// Counts the weight of a page that is being read, so that compressed paths can't ask for more memory than a page
/// may hold.
#[derive(Default)]
pub(crate) struct Weighed(usize);

impl Weighed {
    pub(crate) fn add(
        &mut self,
        reader: &Reader<'_>,
        key: &[u8],
        value_len: usize,
    ) -> Result<(), DecodeError> {
        if self.0 >= WEIGHT_FULL {
            return Err(reader.invalid("a page goes on after its largest weight"));
        }
        self.0 += weight(key, value_len);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{WEIGHT_FULL, WEIGHT_MIN, ends_page};

    #[test]
    fn pages_end_between_the_bounds_and_at_sixteen_kib_on_average() {
        for item_weight in [45, 110, 700] {
            let (mut pages, mut total) = (0u32, 0usize);
            let (mut items, mut page) = (0usize, 0usize);
            for number in 0u32..200_000 {
                items += 1;
                page += item_weight;
                if ends_page(0, &number.to_le_bytes(), item_weight, items, page) {
                    assert!(page >= WEIGHT_MIN && page < WEIGHT_FULL + item_weight);
                    (pages, total, items, page) = (pages + 1, total + page, 0, 0);
                }
            }
            let mean = total / usize::try_from(pages).unwrap();
            assert!((14_000..18_500).contains(&mean), "weight {item_weight}: mean {mean}");
        }
    }

    #[test]
    fn a_page_of_one_item_never_ends() {
        assert!(!ends_page(1, b"key", 5000, 1, 70_000));
        assert!(ends_page(1, b"key", 5000, 2, 70_000));
    }
}

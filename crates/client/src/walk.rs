//! Walks tree and manifest pages together with their layouts, in order, a few pages ahead.
//!
//! Pages prove themselves by their ids, which hang on the signed version, and each must be what the page above says:
//! of the level below, with those paths and those sums. So a file has exactly the bytes that its entry says, whatever
//! its author wrote. Layouts only say where to look. Memory is a few pages a level.

use crate::reader::{ReadError, Reader, Wanted};
use seedbank_formats::SegmentNumber;
use seedbank_formats::codec::DecodeError;
use seedbank_formats::layout::{ChildPlace, LayoutPage, layout_id};
use seedbank_formats::manifest::{ManifestChild, ManifestPage};
use seedbank_formats::pages::PageId;
use seedbank_formats::path::TreePath;
use seedbank_formats::place::{ChunkRef, Place};
use seedbank_formats::tree::{Content, Entry, Found, TreeChild, TreePage, TreeRoot};
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// Pages fetched ahead of a long walk on each of the two lowest levels: they lie beside each other, so this is usually
/// one request. A walk begins with one page and doubles, since most reads want no second one.
const PAGES_AHEAD_MAX: usize = 32;
const LEVELS_AHEAD: usize = 2;

/// The highest root. Pages have two rows at the least and hundreds as a rule: no tree that anybody could store is this
/// high.
const ROOT_LEVEL_MAX: u8 = 48;

/// No layout page is longer: 4,096 runs and as many children at their longest.
pub(crate) const LAYOUT_BYTES_MAX: usize = 256 * 1024;

/// A page that can be walked.
pub(crate) trait Walkable: Sized {
    /// What the page above, or the entry or version, says of a page.
    type Expected;
    /// What a walk is about.
    type Wanted;

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
    fn level(&self) -> u8;
    fn check(&self, id: PageId, expected: &Self::Expected) -> Result<(), DecodeError>;
    /// The pages below that may have something wanted; this page's first byte is at `start`.
    fn children(&self, expected: &Self::Expected, start: u64, wanted: &Self::Wanted) -> Vec<Child<Self>>;
}

/// A page below another.
pub(crate) struct Child<P: Walkable> {
    /// Its position among the page refs of the page above.
    position: usize,
    id: PageId,
    expected: P::Expected,
    start: u64,
}

/// What is known of a tree page before it is read.
#[derive(Clone)]
pub(crate) enum ExpectedTree {
    Root(TreeRoot),
    Below { level: u8, child: TreeChild, upper: Option<TreePath> },
}

impl ExpectedTree {
    /// Of the child at `position` of a page of which this is known.
    fn of_child(&self, level: u8, children: &[TreeChild], position: usize) -> ExpectedTree {
        let above = match self {
            ExpectedTree::Root(_) => None,
            ExpectedTree::Below { upper, .. } => upper.as_ref(),
        };
        let upper = children.get(position + 1).map(|next| &next.first).or(above).cloned();
        // A page of level 0 has no children.
        ExpectedTree::Below { level: level.saturating_sub(1), child: children[position].clone(), upper }
    }
}

impl Walkable for TreePage {
    type Expected = ExpectedTree;
    /// What every wanted path begins with.
    type Wanted = String;

    fn decode(bytes: &[u8]) -> Result<TreePage, DecodeError> {
        TreePage::decode(bytes)
    }

    fn level(&self) -> u8 {
        TreePage::level(self)
    }

    fn check(&self, id: PageId, expected: &ExpectedTree) -> Result<(), DecodeError> {
        match expected {
            ExpectedTree::Root(root) if self.totals(id) == *root => Ok(()),
            ExpectedTree::Root(_) => Err(invalid("a tree has other sums than its version says")),
            ExpectedTree::Below { level, child, upper } => self.check_below(*level, child, upper.as_ref()),
        }
    }

    fn children(&self, expected: &ExpectedTree, _start: u64, wanted: &String) -> Vec<Child<TreePage>> {
        let TreePage::Inner { level, children } = self else { return Vec::new() };
        let child = |position| Child {
            position,
            id: children[position].page,
            expected: expected.of_child(*level, children, position),
            start: 0,
        };
        let is_wanted = |position: &usize| {
            let first = children[*position].first.as_str();
            let next = children.get(position + 1).map(|next| next.first.as_str());
            (first <= wanted.as_str() || first.starts_with(wanted.as_str()))
                && next.is_none_or(|next| next > wanted.as_str())
        };
        (0..children.len()).filter(is_wanted).map(child).collect()
    }
}

/// What is known of a manifest page before it is read.
pub(crate) enum ExpectedManifest {
    Root { chunks: u64, bytes: u64 },
    Below { above: u8, child: ManifestChild },
}

impl Walkable for ManifestPage {
    type Expected = ExpectedManifest;
    /// Which bytes of the file.
    type Wanted = Range<u64>;

    fn decode(bytes: &[u8]) -> Result<ManifestPage, DecodeError> {
        ManifestPage::decode(bytes)
    }

    fn level(&self) -> u8 {
        ManifestPage::level(self)
    }

    fn check(&self, _id: PageId, expected: &ExpectedManifest) -> Result<(), DecodeError> {
        match expected {
            ExpectedManifest::Root { chunks, bytes }
                if (self.chunks(), self.bytes()) == (*chunks, *bytes) =>
            {
                Ok(())
            }
            ExpectedManifest::Root { .. } => Err(invalid("a manifest has other sums than its file")),
            ExpectedManifest::Below { above, child } => self.check_below(*above, child),
        }
    }

    fn children(
        &self,
        _expected: &ExpectedManifest,
        start: u64,
        wanted: &Range<u64>,
    ) -> Vec<Child<ManifestPage>> {
        let ManifestPage::Inner { level, children } = self else { return Vec::new() };
        let starts = starts(start, children.iter().map(|child| child.bytes));
        let below = children.iter().zip(starts).enumerate();
        below
            .filter(|(_, (child, start))| meets(*start, child.bytes, wanted))
            .map(|(position, (child, start))| Child {
                position,
                id: child.page,
                expected: ExpectedManifest::Below { above: *level, child: *child },
                start,
            })
            .collect()
    }
}

/// Where each of a row of stretches begins.
fn starts(first: u64, lengths: impl Iterator<Item = u64>) -> impl Iterator<Item = u64> {
    lengths.scan(first, |next, length| {
        let start = *next;
        *next = start.saturating_add(length);
        Some(start)
    })
}

fn meets(start: u64, length: u64, wanted: &Range<u64>) -> bool {
    start < wanted.end && wanted.start < start.saturating_add(length)
}

/// A page that was told of and not read yet.
struct Pending<P: Walkable> {
    id: PageId,
    place: ChildPlace,
    expected: P::Expected,
    start: u64,
}

/// A page that was read and checked.
struct Read<P: Walkable> {
    page: P,
    layout: LayoutPage,
    expected: P::Expected,
    start: u64,
}

/// The pages of one level under one parent.
struct Frame<P: Walkable> {
    ready: VecDeque<Read<P>>,
    pending: VecDeque<Pending<P>>,
    /// The level of the pages here; `None` of the root, which is alone.
    level: Option<u8>,
}

/// A walk over the leaves below one root.
pub(crate) struct Walk<P: Walkable> {
    reader: Arc<Reader>,
    frames: Vec<Frame<P>>,
    wanted: P::Wanted,
    /// Pages to fetch at once next time, by level.
    ahead: [usize; LEVELS_AHEAD],
    segments: BTreeSet<SegmentNumber>,
}

/// A leaf with its layout, and where its first byte is.
pub(crate) struct Leaf<P> {
    page: P,
    layout: LayoutPage,
    start: u64,
}

impl<P: Walkable> Walk<P> {
    /// Begins at a root page. Leaves that can't have anything wanted are left out.
    fn new(
        reader: &Arc<Reader>,
        id: PageId,
        place: ChildPlace,
        expected: P::Expected,
        wanted: P::Wanted,
    ) -> Walk<P> {
        let root = Pending { id, place, expected, start: 0 };
        let frame = Frame { ready: VecDeque::new(), pending: VecDeque::from([root]), level: None };
        Walk {
            reader: Arc::clone(reader),
            frames: vec![frame],
            wanted,
            ahead: [1; LEVELS_AHEAD],
            segments: BTreeSet::new(),
        }
    }

    /// The next leaf.
    async fn next_leaf(&mut self) -> Result<Option<Leaf<P>>, ReadError> {
        loop {
            let Some(frame) = self.frames.last_mut() else { return Ok(None) };
            if let Some(Read { page, layout, expected, start }) = frame.ready.pop_front() {
                if page.level() == 0 {
                    return Ok(Some(Leaf { page, layout, start }));
                }
                let children = page.children(&expected, start, &self.wanted);
                let pending = children
                    .into_iter()
                    .map(|Child { position, id, expected, start }| {
                        Ok(Pending { id, place: child_place(&layout, position)?, expected, start })
                    })
                    .collect::<Result<_, ReadError>>()?;
                // Checked against the root's level on the way down, so this is above 0.
                let level = page.level().checked_sub(1);
                self.frames.push(Frame { ready: VecDeque::new(), pending, level });
                continue;
            }
            let ahead = frame.level.and_then(|level| self.ahead.get_mut(usize::from(level)));
            let count = ahead.as_deref().copied().unwrap_or(1).min(frame.pending.len());
            let batch: Vec<Pending<P>> = frame.pending.drain(..count).collect();
            if batch.is_empty() {
                self.frames.pop();
                continue;
            }
            if let Some(ahead) = ahead {
                *ahead = (*ahead * 2).min(PAGES_AHEAD_MAX);
            }
            self.segments
                .extend(batch.iter().flat_map(|page| [page.place.page.segment, page.place.layout.segment]));
            let pages = fetch::<P>(&self.reader, batch).await?;
            let frame = self.frames.last_mut().expect("the frame that was just looked at");
            frame.ready = pages.into();
        }
    }
}

/// Pages and their layouts, read together and checked against what was said of them.
async fn fetch<P: Walkable>(
    reader: &Arc<Reader>,
    wanted: Vec<Pending<P>>,
) -> Result<Vec<Read<P>>, ReadError> {
    let items: Vec<Wanted> = wanted
        .iter()
        .flat_map(|Pending { id, place, .. }| {
            [Wanted::page(*id, place.page), Wanted::named(layout_id(id), place.layout, LAYOUT_BYTES_MAX)]
        })
        .collect();
    let plains = reader.items(&items).await?;
    let pairs = plains.chunks_exact(2).zip(wanted);
    pairs
        .map(|(pair, Pending { id, expected, start, .. })| {
            let page = P::decode(&pair[0])?;
            if page.level() > ROOT_LEVEL_MAX {
                return Err(invalid("a page is higher than any tree is").into());
            }
            page.check(id, &expected)?;
            Ok(Read { page, layout: LayoutPage::decode(&pair[1])?, expected, start })
        })
        .collect()
}

fn invalid(reason: &'static str) -> DecodeError {
    DecodeError::Invalid { format: "tree", reason }
}

/// A layout is not its page's.
fn wrong_layout() -> ReadError {
    DecodeError::Invalid { format: "layout page", reason: "it describes other refs than its page has" }.into()
}

fn child_place(layout: &LayoutPage, position: usize) -> Result<ChildPlace, ReadError> {
    layout.children().get(position).copied().ok_or_else(wrong_layout)
}

/// An entry of a tree with what its leaf's layout says of it.
#[derive(Debug, Clone)]
pub(crate) struct LocatedEntry {
    pub(crate) path: TreePath,
    pub(crate) entry: Entry,
    content: Located,
}

/// Where a file's bytes are.
#[derive(Debug, Clone)]
enum Located {
    /// In these chunks; none of an empty file and of what is no file.
    Chunks(Vec<(ChunkRef, Place)>),
    /// In the chunks that a manifest lists.
    Manifest { root: PageId, chunks: u64, place: ChildPlace },
}

impl LocatedEntry {
    /// The entry's chunks that have one of the `wanted` bytes, in order and with their places.
    pub(crate) fn chunks(&self, reader: &Arc<Reader>, wanted: Range<u64>) -> ChunkWalk {
        match &self.content {
            Located::Chunks(chunks) => ChunkWalk::of_chunks(chunks, 0, wanted),
            Located::Manifest { root, chunks, place } => {
                let expected = ExpectedManifest::Root { chunks: *chunks, bytes: self.entry.size() };
                let pages = Walk::new(reader, *root, *place, expected, wanted.clone());
                ChunkWalk { leaf: VecDeque::new(), pages: Some(pages), wanted }
            }
        }
    }
}

/// A chunk of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LocatedChunk {
    pub(crate) chunk: ChunkRef,
    pub(crate) place: Place,
    /// Where in the file its first byte is.
    pub(crate) start: u64,
}

/// Chunks of a file in order.
pub(crate) struct ChunkWalk {
    leaf: VecDeque<LocatedChunk>,
    pages: Option<Walk<ManifestPage>>,
    wanted: Range<u64>,
}

impl ChunkWalk {
    fn of_chunks(chunks: &[(ChunkRef, Place)], start: u64, wanted: Range<u64>) -> ChunkWalk {
        let starts = starts(start, chunks.iter().map(|(chunk, _)| u64::from(chunk.len)));
        let located = chunks.iter().zip(starts);
        let leaf = located
            .filter(|((chunk, _), start)| meets(*start, u64::from(chunk.len), &wanted))
            .map(|(&(chunk, place), start)| LocatedChunk { chunk, place, start })
            .collect();
        ChunkWalk { leaf, pages: None, wanted }
    }

    /// The next chunk.
    pub(crate) async fn next(&mut self) -> Result<Option<LocatedChunk>, ReadError> {
        loop {
            if let Some(chunk) = self.leaf.pop_front() {
                return Ok(Some(chunk));
            }
            let Some(pages) = &mut self.pages else { return Ok(None) };
            let Some(Leaf { page, layout, start }) = pages.next_leaf().await? else { return Ok(None) };
            let refs: Vec<ChunkRef> = page.chunk_refs().copied().collect();
            let places: Vec<Place> = layout.places().collect();
            if refs.len() != places.len() {
                return Err(wrong_layout());
            }
            let chunks: Vec<(ChunkRef, Place)> = refs.into_iter().zip(places).collect();
            self.leaf = ChunkWalk::of_chunks(&chunks, start, self.wanted.clone()).leaf;
        }
    }

    /// Segments of the pages that were read so far.
    pub(crate) fn page_segments(&self) -> impl Iterator<Item = SegmentNumber> + '_ {
        self.pages.iter().flat_map(|pages| pages.segments.iter().copied())
    }
}

/// A leaf's entries with their places.
fn located(page: TreePage, layout: &LayoutPage) -> Result<VecDeque<LocatedEntry>, ReadError> {
    let TreePage::Leaf(entries) = page else { return Ok(VecDeque::new()) };
    let (mut places, mut manifests) = (layout.places(), layout.children().iter().copied());
    let mut located = VecDeque::with_capacity(entries.len());
    for (path, entry) in entries {
        let content = match &entry {
            Entry::File { content: Content::Manifest { root, chunks, .. }, .. } => {
                let place = manifests.next().ok_or_else(wrong_layout)?;
                Located::Manifest { root: *root, chunks: *chunks, place }
            }
            Entry::File { content: Content::Chunks(chunks), .. } => {
                let chunks = chunks.iter().map(|chunk| Some((*chunk, places.next()?)));
                Located::Chunks(chunks.collect::<Option<_>>().ok_or_else(wrong_layout)?)
            }
            Entry::Folder | Entry::Symlink { .. } => Located::Chunks(Vec::new()),
        };
        located.push_back(LocatedEntry { path, entry, content });
    }
    if places.next().is_some() || manifests.next().is_some() {
        return Err(wrong_layout());
    }
    Ok(located)
}

/// All entries of a tree, in order.
pub(crate) struct EntryWalk {
    pages: Walk<TreePage>,
    leaf: VecDeque<LocatedEntry>,
}

impl EntryWalk {
    pub(crate) fn new(reader: &Arc<Reader>, root: &TreeRoot, place: ChildPlace) -> EntryWalk {
        EntryWalk::below(reader, root, place, String::new())
    }

    /// The entries whose paths begin with `prefix`, and some around them: reads the pages that may have such.
    pub(crate) fn below(
        reader: &Arc<Reader>,
        root: &TreeRoot,
        place: ChildPlace,
        prefix: String,
    ) -> EntryWalk {
        let pages = Walk::new(reader, root.page, place, ExpectedTree::Root(*root), prefix);
        EntryWalk { pages, leaf: VecDeque::new() }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<LocatedEntry>, ReadError> {
        loop {
            if let Some(entry) = self.leaf.pop_front() {
                return Ok(Some(entry));
            }
            let Some(Leaf { page, layout, .. }) = self.pages.next_leaf().await? else { return Ok(None) };
            self.leaf = located(page, &layout)?;
        }
    }

    /// Segments of the pages that were read so far.
    pub(crate) fn page_segments(&self) -> impl Iterator<Item = SegmentNumber> + '_ {
        self.pages.segments.iter().copied()
    }
}

/// One entry, found from the root: reads one page and its layout a level.
pub(crate) async fn find(
    reader: &Arc<Reader>,
    root: &TreeRoot,
    place: ChildPlace,
    path: &TreePath,
) -> Result<Option<LocatedEntry>, ReadError> {
    let mut next = Pending { id: root.page, place, expected: ExpectedTree::Root(*root), start: 0 };
    loop {
        let read = fetch::<TreePage>(reader, vec![next]).await?.pop();
        let Read { page, layout, expected, .. } = read.expect("one page was asked for");
        match (page.find(path), &page) {
            (Found::Below { position, child }, TreePage::Inner { level, children }) => {
                let (id, place) = (child.page, child_place(&layout, position)?);
                let expected = expected.of_child(*level, children, position);
                next = Pending { id, place, expected, start: 0 };
            }
            (Found::Entry { position, .. }, _) => return Ok(located(page, &layout)?.remove(position)),
            (Found::Absent | Found::Below { .. }, _) => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ChunkWalk, meets, starts};
    use seedbank_formats::place::{ChunkRef, Place};
    use seedbank_formats::{ChunkId, SegmentNumber};

    #[tokio::test]
    async fn chunks_are_given_when_they_have_a_wanted_byte_however_short_they_are() {
        let chunk = |index: u8, len| {
            let place = Place { segment: SegmentNumber(0), index: index.into() };
            (ChunkRef { id: ChunkId([index; 32]), len }, place)
        };
        let chunks = [chunk(0, 100), chunk(1, 100), chunk(2, 20), chunk(3, 50)];
        let came = async |wanted| {
            let mut walk = ChunkWalk::of_chunks(&chunks, 0, wanted);
            let mut came = Vec::new();
            while let Some(located) = walk.next().await.unwrap() {
                came.push((located.chunk.len, located.start));
            }
            came
        };
        assert_eq!(came(150..270).await, [(100, 100), (20, 200), (50, 220)]);
        assert_eq!(came(99..101).await, [(100, 0), (100, 100)]);
        assert_eq!(came(200..220).await, [(20, 200)]);
        assert_eq!(came(270..300).await, []);
        assert_eq!(came(0..u64::MAX).await.len(), 4);
    }

    #[test]
    fn stretches_that_claim_more_than_a_file_can_have_do_not_overflow() {
        let starts: Vec<u64> = starts(5, [u64::MAX, 7, 1].into_iter()).collect();
        assert_eq!(starts, [5, u64::MAX, u64::MAX]);
        assert!(meets(5, u64::MAX, &(6..7)));
        assert!(!meets(u64::MAX, 7, &(6..7)));
    }
}

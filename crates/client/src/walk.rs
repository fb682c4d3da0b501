//! Walks tree and manifest pages together with their layouts, in order, a few pages ahead.
//!
//! Pages prove themselves by their ids, which hang on the signed version; layouts only say where to look. Memory is
//! one batch of pages a level.

use crate::reader::{ReadError, Reader, Wanted, page_wanted};
use seedbank_formats::codec::DecodeError;
use seedbank_formats::layout::{ChildPlace, LayoutPage, layout_id};
use seedbank_formats::manifest::ManifestPage;
use seedbank_formats::pages::PageId;
use seedbank_formats::path::TreePath;
use seedbank_formats::place::{ChunkRef, Place};
use seedbank_formats::seal::ItemKind;
use seedbank_formats::tree::{Content, Entry, Found, TreePage};
use std::collections::VecDeque;
use std::sync::Arc;

/// Pages fetched ahead on each level: they lie beside each other, so this is usually one request.
const PAGES_AHEAD: usize = 32;

/// A page that can be walked.
pub(crate) trait Walkable: Sized {
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
    fn level(&self) -> u8;
    /// The pages below from the byte `skip` on, with their positions. What is left of `skip` lies below the first.
    fn children(&self, skip: &mut u64) -> Vec<(usize, PageId)>;
}

impl Walkable for TreePage {
    fn decode(bytes: &[u8]) -> Result<TreePage, DecodeError> {
        TreePage::decode(bytes)
    }

    fn level(&self) -> u8 {
        TreePage::level(self)
    }

    fn children(&self, _skip: &mut u64) -> Vec<(usize, PageId)> {
        match self {
            TreePage::Leaf(_) => Vec::new(),
            TreePage::Inner { .. } => self.page_refs().enumerate().collect(),
        }
    }
}

impl Walkable for ManifestPage {
    fn decode(bytes: &[u8]) -> Result<ManifestPage, DecodeError> {
        ManifestPage::decode(bytes)
    }

    fn level(&self) -> u8 {
        ManifestPage::level(self)
    }

    fn children(&self, skip: &mut u64) -> Vec<(usize, PageId)> {
        let ManifestPage::Inner { children, .. } = self else { return Vec::new() };
        let mut below = Vec::with_capacity(children.len());
        for (position, child) in children.iter().enumerate() {
            if below.is_empty() && *skip >= child.bytes {
                *skip -= child.bytes;
            } else {
                below.push((position, child.page));
            }
        }
        below
    }
}

/// The pages of one level under one parent.
struct Frame<P> {
    ready: VecDeque<(P, LayoutPage)>,
    pending: VecDeque<(PageId, ChildPlace)>,
    /// Every page here is below this level.
    below: Option<u8>,
}

/// A walk over the leaves below one root.
pub(crate) struct Walk<P> {
    reader: Arc<Reader>,
    frames: Vec<Frame<P>>,
    skip: u64,
}

impl<P: Walkable> Walk<P> {
    /// Begins at a root page; leaves that end before the byte `skip` are left out where pages know their bytes.
    pub(crate) fn new(reader: &Arc<Reader>, root: PageId, place: ChildPlace, skip: u64) -> Walk<P> {
        let frame = Frame { ready: VecDeque::new(), pending: VecDeque::from([(root, place)]), below: None };
        Walk { reader: Arc::clone(reader), frames: vec![frame], skip }
    }

    /// The next leaf and its layout.
    pub(crate) async fn next_leaf(&mut self) -> Result<Option<(P, LayoutPage)>, ReadError> {
        loop {
            let Some(frame) = self.frames.last_mut() else { return Ok(None) };
            if let Some((page, layout)) = frame.ready.pop_front() {
                if page.level() == 0 {
                    return Ok(Some((page, layout)));
                }
                let children = page.children(&mut self.skip);
                let pending = children
                    .into_iter()
                    .map(|(position, child)| Ok((child, child_place(&layout, position)?)))
                    .collect::<Result<_, ReadError>>()?;
                self.frames.push(Frame { ready: VecDeque::new(), pending, below: Some(page.level()) });
                continue;
            }
            let batch: Vec<(PageId, ChildPlace)> =
                frame.pending.drain(..frame.pending.len().min(PAGES_AHEAD)).collect();
            if batch.is_empty() {
                self.frames.pop();
                continue;
            }
            let below = frame.below;
            let pages = fetch::<P>(&self.reader, &batch).await?;
            if pages.iter().any(|(page, _)| below.is_some_and(|level| page.level() >= level)) {
                return Err(broken("a page is not of a level below its parent"));
            }
            let frame = self.frames.last_mut().expect("the frame that was just looked at");
            frame.ready = pages.into();
        }
    }
}

/// Pages and their layouts, read together.
async fn fetch<P: Walkable>(
    reader: &Arc<Reader>,
    wanted: &[(PageId, ChildPlace)],
) -> Result<Vec<(P, LayoutPage)>, ReadError> {
    let items: Vec<Wanted> = wanted
        .iter()
        .flat_map(|(id, place)| {
            let layout = Wanted { place: place.layout, kind: ItemKind::Named, id: layout_id(id) };
            [page_wanted(place.page, *id), layout]
        })
        .collect();
    let plains = reader.items(&items).await?;
    plains.chunks_exact(2).map(|pair| Ok((P::decode(&pair[0])?, LayoutPage::decode(&pair[1])?))).collect()
}

fn broken(reason: &'static str) -> ReadError {
    ReadError::Broken(DecodeError::Invalid { format: "tree", reason })
}

fn child_place(layout: &LayoutPage, position: usize) -> Result<ChildPlace, ReadError> {
    layout
        .children()
        .get(position)
        .copied()
        .ok_or_else(|| broken("a layout describes fewer pages than its page has"))
}

/// An entry of a tree with what its leaf's layout says of it.
#[derive(Debug, Clone)]
pub(crate) struct LocatedEntry {
    pub(crate) path: TreePath,
    pub(crate) entry: Entry,
    chunks: Vec<Place>,
    manifest: Option<ChildPlace>,
}

impl LocatedEntry {
    /// Where the entry's manifest begins, if it has one.
    pub(crate) fn pages(&self) -> impl Iterator<Item = ChildPlace> + use<> {
        self.manifest.into_iter()
    }

    /// The entry's chunks in order with their places, from the one that holds byte `offset` on.
    pub(crate) fn chunks(&self, reader: &Arc<Reader>, offset: u64) -> ChunkWalk {
        let Entry::File { content, .. } = &self.entry else { return ChunkWalk::default() };
        match (content, self.manifest) {
            (Content::Manifest { root, .. }, Some(place)) => ChunkWalk {
                leaf: VecDeque::new(),
                pages: Some(Walk::new(reader, *root, place, offset)),
                skip: 0,
                before: 0,
            },
            (Content::Chunks(chunks), _) => {
                let located = chunks.iter().copied().zip(self.chunks.iter().copied());
                ChunkWalk { leaf: located.collect(), pages: None, skip: offset, before: 0 }
            }
            (Content::Manifest { .. }, None) => ChunkWalk::default(),
        }
    }
}

/// A file's chunks in order.
#[derive(Default)]
pub(crate) struct ChunkWalk {
    leaf: VecDeque<(ChunkRef, Place)>,
    pages: Option<Walk<ManifestPage>>,
    /// Bytes still to be passed over; none once the first chunk has come.
    skip: u64,
    before: u64,
}

impl ChunkWalk {
    /// The next chunk and its place.
    pub(crate) async fn next(&mut self) -> Result<Option<(ChunkRef, Place)>, ReadError> {
        loop {
            while let Some((chunk, place)) = self.leaf.pop_front() {
                if self.skip >= u64::from(chunk.len) {
                    self.skip -= u64::from(chunk.len);
                    continue;
                }
                self.before = std::mem::take(&mut self.skip);
                return Ok(Some((chunk, place)));
            }
            let Some(pages) = &mut self.pages else { return Ok(None) };
            let Some((page, layout)) = pages.next_leaf().await? else { return Ok(None) };
            // Only the first leaf has bytes to skip; the walk keeps what is left for it.
            self.skip = std::mem::take(&mut pages.skip);
            self.leaf = page.chunk_refs().copied().zip(layout.places()).collect();
            if self.leaf.len() != page.chunk_refs().count() {
                return Err(broken("a layout describes fewer chunks than its page has"));
            }
        }
    }

    /// Bytes of the chunk that came last that lie before the offset that was asked for.
    pub(crate) fn skip(&self) -> u64 {
        self.before
    }
}

/// A leaf's entries with their places.
fn located(page: TreePage, layout: &LayoutPage) -> Result<VecDeque<LocatedEntry>, ReadError> {
    let TreePage::Leaf(entries) = page else { return Ok(VecDeque::new()) };
    let (mut places, mut manifests) = (layout.places(), layout.children().iter().copied());
    let mut located = VecDeque::with_capacity(entries.len());
    for (path, entry) in entries {
        let count = entry.chunk_refs().len();
        let chunks: Vec<Place> = places.by_ref().take(count).collect();
        let manifest = entry.manifest().and_then(|_| manifests.next());
        if chunks.len() != count || manifest.is_some() != entry.manifest().is_some() {
            return Err(broken("a layout describes fewer refs than its page has"));
        }
        located.push_back(LocatedEntry { path, entry, chunks, manifest });
    }
    Ok(located)
}

/// All entries of a tree, in order.
pub(crate) struct EntryWalk {
    pages: Walk<TreePage>,
    leaf: VecDeque<LocatedEntry>,
}

impl EntryWalk {
    pub(crate) fn new(reader: &Arc<Reader>, root: PageId, place: ChildPlace) -> EntryWalk {
        EntryWalk { pages: Walk::new(reader, root, place, 0), leaf: VecDeque::new() }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<LocatedEntry>, ReadError> {
        loop {
            if let Some(entry) = self.leaf.pop_front() {
                return Ok(Some(entry));
            }
            let Some((page, layout)) = self.pages.next_leaf().await? else { return Ok(None) };
            self.leaf = located(page, &layout)?;
        }
    }
}

/// One entry, found from the root: reads one page and its layout a level.
pub(crate) async fn find(
    reader: &Arc<Reader>,
    root: PageId,
    place: ChildPlace,
    path: &TreePath,
) -> Result<Option<LocatedEntry>, ReadError> {
    let (mut id, mut place, mut below) = (root, place, None);
    loop {
        let (page, layout) =
            fetch::<TreePage>(reader, &[(id, place)]).await?.pop().expect("one page was asked for");
        if below.is_some_and(|level| page.level() >= level) {
            return Err(broken("a page is not of a level below its parent"));
        }
        match page.find(path) {
            Found::Absent => return Ok(None),
            Found::Below { position, child } => {
                (id, place, below) = (child.page, child_place(&layout, position)?, Some(page.level()));
            }
            Found::Entry { position, .. } => {
                return Ok(located(page, &layout)?.remove(position));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ChunkWalk;
    use seedbank_formats::place::{ChunkRef, Place};
    use seedbank_formats::{ChunkId, SegmentNumber};

    #[tokio::test]
    async fn chunks_behind_the_first_are_given_however_short_they_are() {
        let chunk = |index: u8, len| {
            let place = Place { segment: SegmentNumber(0), index: index.into() };
            (ChunkRef { id: ChunkId([index; 32]), len }, place)
        };
        let leaf = [chunk(0, 100), chunk(1, 100), chunk(2, 20), chunk(3, 50)].into();
        let mut walk = ChunkWalk { leaf, pages: None, skip: 150, before: 0 };
        let mut came = Vec::new();
        while let Some((chunk, _)) = walk.next().await.unwrap() {
            came.push((chunk.len, walk.skip()));
        }
        assert_eq!(came, [(100, 50), (20, 0), (50, 0)]);
    }
}

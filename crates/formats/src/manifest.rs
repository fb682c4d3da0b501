//! The chunk list of a large file, in content-defined pages.
//!
//! A file of up to [`crate::tree::INLINE_CHUNKS_MAX`] chunks lists them in its tree entry; a longer list stands here, so
//! that an edit in the middle of a terabyte writes a few pages and a range read opens one page a level. A page is named
//! by what it lists: files that share a stretch of chunks share pages. `docs/formats/manifest.md` draws them.

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::ChunkId;
use crate::pages::{Levels, OpenPage, PageId, Row, Shape, Totals, Weighed, read_header};
use crate::place::ChunkRef;
use crate::tree::{is_chunk_length, read_chunk_ref};

/// A page of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestPage {
    /// Chunks in the file's order.
    Leaf(Vec<ChunkRef>),
    /// Pages of the level below, in the file's order.
    Inner {
        /// Its height above the leaves; 1 when its children are leaves.
        level: u8,
        /// The pages below.
        children: Vec<ManifestChild>,
    },
}

/// What an inner page knows of a page below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManifestChild {
    /// The page.
    pub page: PageId,
    /// Chunks below.
    pub chunks: u64,
    /// Bytes of those chunks.
    pub bytes: u64,
}

/// Where a byte of what a page lists is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundByte<'a> {
    /// In a chunk of this leaf.
    Chunk {
        /// Position in the leaf.
        position: usize,
        /// The chunk.
        chunk: &'a ChunkRef,
        /// Offset of the chunk's first byte, counted from the page's first.
        start: u64,
    },
    /// Below a child of this inner page.
    Below {
        /// Position in the inner page.
        position: usize,
        /// The child.
        child: &'a ManifestChild,
        /// Offset of the child's first byte, counted from the page's first.
        start: u64,
    },
    /// After the page's last byte.
    After,
}

impl ManifestPage {
    /// The page's bytes. A builder is the usual way to pages; this one cuts nothing.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            ManifestPage::Leaf(chunks) => {
                let mut page = OpenPage::<ManifestShape>::new(0);
                for chunk in chunks {
                    page.add(chunk);
                }
                page.finish()
            }
            ManifestPage::Inner { level, children } => {
                let mut page = OpenPage::<ManifestShape>::new(*level);
                for child in children {
                    page.add(child);
                }
                page.finish()
            }
        }
    }

    /// Reads a page.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are no page, or list a chunk that can't be.
    pub fn decode(bytes: &[u8]) -> Result<ManifestPage, DecodeError> {
        let (level, mut reader) = read_header::<ManifestShape>(bytes)?;
        let page = if level == 0 {
            let chunks = read_rows(&mut reader, |reader| {
                let chunk = read_chunk_ref(reader)?;
                if !is_chunk_length(chunk.len) {
                    return Err(reader.invalid("a chunk's length can't be"));
                }
                Ok((chunk.id, chunk))
            })?;
            ManifestPage::Leaf(chunks)
        } else {
            let children = read_rows(&mut reader, |reader| {
                let page = ChunkId(reader.array()?);
                Ok((page, ManifestChild { page, chunks: reader.varint()?, bytes: reader.varint()? }))
            })?;
            ManifestPage::Inner { level, children }
        };
        Ok(page)
    }

    /// Height above the leaves.
    #[must_use]
    pub fn level(&self) -> u8 {
        match self {
            ManifestPage::Leaf(_) => 0,
            ManifestPage::Inner { level, .. } => *level,
        }
    }

    /// Where the byte at `offset` is, counted from the first byte of what this page lists. Below a child, go on there
    /// with `offset - start`.
    #[must_use]
    pub fn find(&self, offset: u64) -> FoundByte<'_> {
        let mut start: u64 = 0;
        match self {
            ManifestPage::Leaf(chunks) => {
                for (position, chunk) in chunks.iter().enumerate() {
                    if offset - start < u64::from(chunk.len) {
                        return FoundByte::Chunk { position, chunk, start };
                    }
                    start += u64::from(chunk.len);
                }
            }
            ManifestPage::Inner { children, .. } => {
                for (position, child) in children.iter().enumerate() {
                    if offset - start < child.bytes {
                        return FoundByte::Below { position, child, start };
                    }
                    start += child.bytes;
                }
            }
        }
        FoundByte::After
    }

    /// The chunk refs in the page, in its order: what the runs of its layout page stand for.
    pub fn chunk_refs(&self) -> impl Iterator<Item = &ChunkRef> {
        match self {
            ManifestPage::Leaf(chunks) => chunks.iter(),
            ManifestPage::Inner { .. } => [].iter(),
        }
    }

    /// The pages below, in the page's order: what the children of its layout page stand for.
    pub fn page_refs(&self) -> impl Iterator<Item = PageId> {
        let children = match self {
            ManifestPage::Leaf(_) => &[][..],
            ManifestPage::Inner { children, .. } => children,
        };
        children.iter().map(|child| child.page)
    }

    /// Chunks in and below the page.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.sums().items
    }

    /// Bytes of those chunks.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.sums().bytes
    }

    /// Checks a page that was read for `child` of a page of `level`.
    ///
    /// # Errors
    /// [`DecodeError`] when it is of another level or has other sums: its author wrote it like this.
    pub fn check_below(&self, level: u8, child: &ManifestChild) -> Result<(), DecodeError> {
        let is_as_told = self.level().checked_add(1) == Some(level)
            && self.sums() == Totals { items: child.chunks, bytes: child.bytes };
        if is_as_told {
            return Ok(());
        }
        Err(DecodeError::Invalid {
            format: ManifestShape::NAME,
            reason: "a page is not what its parent says",
        })
    }

    fn sums(&self) -> Totals {
        let zero = Totals::default();
        match self {
            ManifestPage::Leaf(chunks) => chunks.iter().fold(zero, |sum, chunk| sum.plus(chunk.totals())),
            ManifestPage::Inner { children, .. } => {
                children.iter().fold(zero, |sum, child| sum.plus(child.totals()))
            }
        }
    }
}

/// Reads rows to the page's end. An empty manifest page does not exist.
fn read_rows<'a, T>(
    reader: &mut Reader<'a>,
    mut read: impl FnMut(&mut Reader<'a>) -> Result<(ChunkId, T), DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let (mut rows, mut weighed) = (Vec::new(), Weighed::default());
    while reader.remaining() > 0 {
        let before = reader.remaining();
        let (key, row) = read(reader)?;
        weighed.add(reader, key.as_bytes(), before - reader.remaining() - key.as_bytes().len())?;
        rows.push(row);
    }
    if rows.is_empty() {
        return Err(reader.invalid("a page has no rows"));
    }
    Ok(rows)
}

/// Takes a file's chunks in order and gives the finished pages, children before parents, in memory bounded by one
/// open page a level.
#[derive(Default)]
pub struct ManifestBuilder {
    levels: Levels<ManifestShape>,
}

impl ManifestBuilder {
    /// A builder without chunks.
    #[must_use]
    pub fn new() -> ManifestBuilder {
        ManifestBuilder::default()
    }

    /// Adds the next chunk. `sink` gets every page that this finishes.
    pub fn push(&mut self, chunk: ChunkRef, sink: &mut impl FnMut(PageId, Vec<u8>)) {
        self.levels.push(&chunk, sink);
    }

    /// Finishes the last pages and gives the root page. A file has a manifest only when it has more chunks than its
    /// entry may list, so there is at least one.
    #[must_use]
    pub fn finish(self, sink: &mut impl FnMut(PageId, Vec<u8>)) -> PageId {
        self.levels.finish(sink).page
    }
}

impl std::fmt::Debug for ManifestBuilder {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ManifestBuilder").finish_non_exhaustive()
    }
}

pub(crate) enum ManifestShape {}

impl Shape for ManifestShape {
    const NAME: &'static str = "manifest page";
    const MAGIC: &'static [u8; 4] = b"SBMP";
    type Key = ChunkId;
    type Child = ManifestChild;

    fn key_bytes(key: &ChunkId) -> &[u8] {
        key.as_bytes()
    }

    fn write_key(key: &ChunkId, _previous: Option<&ChunkId>, writer: &mut Writer) {
        writer.raw(key.as_bytes());
    }

    fn child(_first: ChunkId, page: PageId, totals: Totals) -> ManifestChild {
        ManifestChild { page, chunks: totals.items, bytes: totals.bytes }
    }
}

impl Row for ChunkRef {
    type Key = ChunkId;

    fn key(&self) -> &ChunkId {
        &self.id
    }

    fn totals(&self) -> Totals {
        Totals { items: 1, bytes: u64::from(self.len) }
    }

    fn write_value(&self, writer: &mut Writer) {
        writer.varint(u64::from(self.len));
    }
}

impl Row for ManifestChild {
    type Key = ChunkId;

    fn key(&self) -> &ChunkId {
        &self.page
    }

    fn totals(&self) -> Totals {
        Totals { items: self.chunks, bytes: self.bytes }
    }

    fn write_value(&self, writer: &mut Writer) {
        writer.varint(self.chunks);
        writer.varint(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::{FoundByte, ManifestBuilder, ManifestChild, ManifestPage};
    use crate::golden;
    use crate::ids::ChunkId;
    use crate::pages::PageId;
    use crate::place::ChunkRef;
    use proptest::prelude::{any, proptest};
    use std::collections::BTreeMap;

    fn chunk(number: u32) -> ChunkRef {
        ChunkRef { id: ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes()), len: 1 + number % 131_072 }
    }

    fn build(chunks: impl IntoIterator<Item = ChunkRef>) -> (PageId, BTreeMap<PageId, Vec<u8>>) {
        let mut pages = BTreeMap::new();
        let mut sink = |id, bytes: Vec<u8>| {
            pages.insert(id, bytes);
        };
        let mut builder = ManifestBuilder::new();
        for chunk in chunks {
            builder.push(chunk, &mut sink);
        }
        let root = builder.finish(&mut sink);
        (root, pages)
    }

    fn list(pages: &BTreeMap<PageId, Vec<u8>>, root: &PageId) -> Vec<ChunkRef> {
        let page = ManifestPage::decode(&pages[root]).unwrap();
        match &page {
            ManifestPage::Leaf(chunks) => chunks.clone(),
            ManifestPage::Inner { level, children } => {
                let below = children.iter().flat_map(|child| {
                    ManifestPage::decode(&pages[&child.page]).unwrap().check_below(*level, child).unwrap();
                    list(pages, &child.page)
                });
                below.collect()
            }
        }
    }

    #[test]
    fn a_list_reads_back_from_its_pages() {
        for count in [1, 17, 100, 5_000, 60_000] {
            let chunks: Vec<_> = (0..count).map(chunk).collect();
            let (root, pages) = build(chunks.iter().copied());
            assert_eq!(list(&pages, &root), chunks);
        }
    }

    #[test]
    fn an_insertion_into_a_terabyte_writes_few_pages() {
        let chunks: Vec<_> = (0..200_000).map(chunk).collect();
        let (_, old) = build(chunks.iter().copied());
        let mut edited = chunks;
        edited.splice(70_000..70_001, [chunk(900_001), chunk(900_002)]);
        let (_, new) = build(edited);
        let written: Vec<_> = new.iter().filter(|(id, _)| !old.contains_key(*id)).collect();
        let bytes: usize = written.iter().map(|(_, page)| page.len()).sum();
        assert!(written.len() <= 6 && bytes < 150_000, "{} pages, {bytes} bytes", written.len());
    }

    #[test]
    fn a_file_of_one_repeated_chunk_still_ends() {
        let (root, pages) = build(std::iter::repeat_n(chunk(3), 100_000));
        assert_eq!(list(&pages, &root).len(), 100_000);
        assert!(pages.len() < 20, "equal stretches share pages");
    }

    #[test]
    fn a_byte_is_found_from_the_root_down() {
        let chunks: Vec<_> = (0..20_000).map(chunk).collect();
        let (root, pages) = build(chunks.iter().copied());
        let mut start = 0u64;
        for (number, expected) in chunks.iter().enumerate() {
            if number % 997 == 0 {
                for offset in [start, start + u64::from(expected.len) - 1] {
                    let (mut page, mut rest) = (root, offset);
                    let found = loop {
                        match ManifestPage::decode(&pages[&page]).unwrap().find(rest) {
                            FoundByte::Chunk { chunk, start, .. } => break (*chunk, rest - start),
                            FoundByte::Below { child, start, .. } => {
                                (page, rest) = (child.page, rest - start)
                            }
                            FoundByte::After => panic!("byte {offset} is in the file"),
                        }
                    };
                    assert_eq!(found, (*expected, offset - start));
                }
            }
            start += u64::from(expected.len);
        }
        let page = ManifestPage::decode(&pages[&root]).unwrap();
        assert_eq!((page.chunks(), page.bytes()), (20_000, start));
        assert_eq!((page.find(start), page.find(u64::MAX)), (FoundByte::After, FoundByte::After));
    }

    #[test]
    fn pages_have_the_bytes_of_the_vectors() {
        let leaf = ManifestPage::Leaf((1..4).map(chunk).collect());
        let child = |number: u8| ManifestChild {
            page: ChunkId([number; 32]),
            chunks: 400 + u64::from(number),
            bytes: 30_000_000 << number,
        };
        let inner = ManifestPage::Inner { level: 1, children: vec![child(1), child(9)] };
        let vectors = include_str!("../../../testdata/manifest.txt");
        for (name, page) in [("leaf", leaf), ("inner", inner)] {
            golden::check(vectors, name, &page.encode());
            assert_eq!(ManifestPage::decode(&page.encode()), Ok(page));
        }
        let (root, pages) = build((0..5_000).map(chunk));
        golden::check(vectors, "root-of-5000", root.as_bytes());
        golden::check(vectors, "pages-of-5000", &[u8::try_from(pages.len()).unwrap()]);
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), level in 0u8..3) {
            let whole = [b"SBMP\x01".as_slice(), &[level], &bytes].concat();
            for bytes in [&bytes, &whole] {
                if let Ok(page) = ManifestPage::decode(bytes) {
                    assert_eq!(page.encode(), *bytes);
                    let _ = (page.find(5), page.chunks(), page.chunk_refs().count(), page.page_refs().count());
                }
            }
        }
    }
}

//! A version's tree: a sorted map from paths to entries, in content-defined pages.
//!
//! The same map gives the same root on any machine and in any order of edits, so a root names a tree. Pages hold ids
//! only, no places: moving bytes never changes a version. Folders exist through what is in them; only an empty one has an
//! entry of its own, and nothing lies below an entry. How pages are cut stands in [`crate::pages`], how they are found
//! in [`crate::layout`], and `docs/formats/tree.md` draws them.

mod build;
mod diff;
mod update;
mod walk;

pub use build::{BuildError, TreeBuilder};
pub use diff::{Change, Diff, diff};
pub use update::{UpdateError, update};
pub use walk::{Entries, get};

pub use crate::pages::{PageId, PageSource, WalkError};

use crate::chunking::CHUNK_BYTES_MAX;
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{ChunkId, Sha256};
use crate::pages::{OpenPage, Row, Shape, Totals, Weighed, read_header};
use crate::path::{PATH_BYTES_MAX, TargetError, TreePath};
use crate::place::ChunkRef;

/// Most chunk refs that stand in the entry itself. A longer list goes into manifest pages.
pub const INLINE_CHUNKS_MAX: usize = 16;

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File {
        /// Whether its owner may execute it. No other mode bit is kept: they mean nothing on another machine.
        executable: bool,
        /// Its bytes.
        size: u64,
        /// SHA-256 of the whole, for the tools that speak it.
        sha256: Sha256,
        /// Where its bytes are.
        content: Content,
    },
    /// An empty folder.
    Folder,
    /// A symlink that stays inside the tree ([`TreePath::check_symlink_target`]).
    Symlink {
        /// What it says, as it is.
        target: String,
    },
}

/// A file's chunks in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// At most [`INLINE_CHUNKS_MAX`] chunks; none of an empty file.
    Chunks(Vec<ChunkRef>),
    /// More chunks than that, in manifest pages.
    Manifest {
        /// The manifest's root page.
        root: PageId,
        /// How many chunks it lists.
        chunks: u64,
        /// The file's Xet hash. An inline list needs none: it is computed from the refs.
        xet: [u8; 32],
    },
}

/// Why an entry can't stand in a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// An inline list has too many chunks; it belongs into a manifest.
    #[error("an entry lists {chunks} chunks, the limit is {INLINE_CHUNKS_MAX}")]
    TooManyChunks {
        /// How many.
        chunks: usize,
    },
    /// A manifest has so few chunks that they belong into the entry.
    #[error("a manifest of {chunks} chunks belongs into the entry")]
    TooFewChunks {
        /// How many.
        chunks: u64,
    },
    /// A chunk is empty or larger than chunks can be.
    #[error("a chunk of {len} bytes can't be")]
    ChunkLength {
        /// Its length.
        len: u32,
    },
    /// The chunks do not add up to the file's size.
    #[error("the chunks have {chunks} bytes, the file has {size}")]
    Size {
        /// Sum of the chunks.
        chunks: u64,
        /// The file's size.
        size: u64,
    },
    /// A symlink leaves the tree.
    #[error(transparent)]
    Target(#[from] TargetError),
}

impl Entry {
    /// The file's bytes; 0 of a folder and of a symlink.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Entry::File { size, .. } => *size,
            Entry::Folder | Entry::Symlink { .. } => 0,
        }
    }

    /// The chunk refs that stand in the entry itself.
    #[must_use]
    pub fn chunk_refs(&self) -> &[ChunkRef] {
        match self {
            Entry::File { content: Content::Chunks(chunks), .. } => chunks,
            Entry::File { content: Content::Manifest { .. }, .. } | Entry::Folder | Entry::Symlink { .. } => {
                &[]
            }
        }
    }

    /// The root of its manifest, if it has one.
    #[must_use]
    pub fn manifest(&self) -> Option<PageId> {
        match self {
            Entry::File { content: Content::Manifest { root, .. }, .. } => Some(*root),
            Entry::File { content: Content::Chunks(_), .. } | Entry::Folder | Entry::Symlink { .. } => None,
        }
    }

    /// Whether it may stand at `path`.
    ///
    /// # Errors
    /// [`EntryError`] says why not.
    pub fn check(&self, path: &TreePath) -> Result<(), EntryError> {
        match self {
            Entry::File { size, content: Content::Chunks(chunks), .. } => {
                if chunks.len() > INLINE_CHUNKS_MAX {
                    return Err(EntryError::TooManyChunks { chunks: chunks.len() });
                }
                let wrong = chunks.iter().find(|chunk| !is_chunk_length(chunk.len));
                if let Some(chunk) = wrong {
                    return Err(EntryError::ChunkLength { len: chunk.len });
                }
                let sum = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
                if sum == *size { Ok(()) } else { Err(EntryError::Size { chunks: sum, size: *size }) }
            }
            Entry::File { content: Content::Manifest { chunks, .. }, .. } => {
                if *chunks > INLINE_CHUNKS_MAX as u64 {
                    Ok(())
                } else {
                    Err(EntryError::TooFewChunks { chunks: *chunks })
                }
            }
            Entry::Folder => Ok(()),
            Entry::Symlink { target } => Ok(path.check_symlink_target(target)?),
        }
    }
}

pub(crate) fn is_chunk_length(len: u32) -> bool {
    len > 0 && usize::try_from(len).is_ok_and(|len| len <= CHUNK_BYTES_MAX)
}

/// A page of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreePage {
    /// Entries by rising path.
    Leaf(Vec<(TreePath, Entry)>),
    /// Pages of the level below, by rising first path.
    Inner {
        /// Its height above the leaves; 1 when its children are leaves.
        level: u8,
        /// The pages below.
        children: Vec<TreeChild>,
    },
}

/// What an inner page knows of a page below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeChild {
    /// The first path below.
    pub first: TreePath,
    /// The page.
    pub page: PageId,
    /// Entries below.
    pub entries: u64,
    /// Bytes of all files below.
    pub bytes: u64,
}

/// What a page says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// The entry, and its position in this leaf.
    Entry {
        /// Position in the leaf.
        position: usize,
        /// The entry.
        entry: &'a Entry,
    },
    /// If the path is in the tree at all, it is below this child.
    Below {
        /// Position in the inner page.
        position: usize,
        /// The child.
        child: &'a TreeChild,
    },
    /// The path is not in the tree.
    Absent,
}

/// A root with what is below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeRoot {
    /// The root page.
    pub page: PageId,
    /// Entries in the tree.
    pub entries: u64,
    /// Bytes of all its files.
    pub bytes: u64,
}

/// How many refs of each kind stand before a position: where to look in the page's layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RefCounts {
    /// Chunk refs.
    pub chunks: usize,
    /// Page refs.
    pub pages: usize,
}

impl TreePage {
    /// The page's bytes. A builder is the usual way to pages; this one cuts nothing.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            TreePage::Leaf(entries) => {
                let mut page = OpenPage::<TreeShape>::new(0);
                for (path, entry) in entries {
                    page.add(&LeafRow { path, entry });
                }
                page.finish()
            }
            TreePage::Inner { level, children } => {
                let mut page = OpenPage::<TreeShape>::new(*level);
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
    /// [`DecodeError`] when the bytes are no page in canonical form, or hold an entry that can't be.
    pub fn decode(bytes: &[u8]) -> Result<TreePage, DecodeError> {
        let (level, mut reader) = read_header::<TreeShape>(bytes)?;
        let mut weighed = Weighed::default();
        if level == 0 {
            let mut entries: Vec<(TreePath, Entry)> = Vec::new();
            while reader.remaining() > 0 {
                let path = read_path(&mut reader, entries.last().map(|(path, _)| path))?;
                let before_value = reader.remaining();
                let entry = read_entry(&mut reader, &path)?;
                weighed.add(&reader, path.as_ref(), before_value - reader.remaining())?;
                entries.push((path, entry));
            }
            return Ok(TreePage::Leaf(entries));
        }
        let mut children: Vec<TreeChild> = Vec::new();
        while reader.remaining() > 0 {
            let first = read_path(&mut reader, children.last().map(|child| &child.first))?;
            let before_value = reader.remaining();
            let page = ChunkId(reader.array()?);
            let child = TreeChild { page, entries: reader.varint()?, bytes: reader.varint()?, first };
            weighed.add(&reader, child.first.as_ref(), before_value - reader.remaining())?;
            children.push(child);
        }
        if children.is_empty() {
            return Err(reader.invalid("an inner page has no children"));
        }
        Ok(TreePage::Inner { level, children })
    }

    /// The level of a page of which nothing else is wanted.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes don't begin like a page.
    pub fn level_of(bytes: &[u8]) -> Result<u8, DecodeError> {
        Ok(read_header::<TreeShape>(bytes)?.0)
    }

    /// Height above the leaves.
    #[must_use]
    pub fn level(&self) -> u8 {
        match self {
            TreePage::Leaf(_) => 0,
            TreePage::Inner { level, .. } => *level,
        }
    }

    /// What the page says of `path`.
    #[must_use]
    pub fn find(&self, path: &TreePath) -> Found<'_> {
        match self {
            TreePage::Leaf(entries) => match entries.binary_search_by(|(other, _)| other.cmp(path)) {
                Ok(position) => Found::Entry { position, entry: &entries[position].1 },
                Err(_) => Found::Absent,
            },
            TreePage::Inner { children, .. } => {
                let after = children.partition_point(|child| child.first <= *path);
                match after.checked_sub(1) {
                    Some(position) => Found::Below { position, child: &children[position] },
                    None => Found::Absent,
                }
            }
        }
    }

    /// The chunk refs in the page, in its order: what the runs of its layout page stand for.
    pub fn chunk_refs(&self) -> impl Iterator<Item = &ChunkRef> {
        self.leaf().iter().flat_map(|(_, entry)| entry.chunk_refs())
    }

    /// The page refs in the page, in its order: what the children of its layout page stand for. Manifest roots of a
    /// leaf, children of an inner page.
    pub fn page_refs(&self) -> impl Iterator<Item = PageId> {
        let children = match self {
            TreePage::Leaf(_) => &[][..],
            TreePage::Inner { children, .. } => children,
        };
        let manifests = self.leaf().iter().filter_map(|(_, entry)| entry.manifest());
        manifests.chain(children.iter().map(|child| child.page))
    }

    /// How many refs stand before the row at `position`: its first chunk ref and its page ref are found at these
    /// numbers in the page's layout.
    #[must_use]
    pub fn refs_before(&self, position: usize) -> RefCounts {
        match self {
            TreePage::Leaf(entries) => {
                entries.iter().take(position).fold(RefCounts::default(), |counts, (_, entry)| RefCounts {
                    chunks: counts.chunks + entry.chunk_refs().len(),
                    pages: counts.pages + usize::from(entry.manifest().is_some()),
                })
            }
            TreePage::Inner { children, .. } => RefCounts { chunks: 0, pages: position.min(children.len()) },
        }
    }

    /// The page with what is below it, if it is a root.
    #[must_use]
    pub fn totals(&self, page: PageId) -> TreeRoot {
        let Totals { items, bytes } = self.sums();
        TreeRoot { page, entries: items, bytes }
    }

    fn sums(&self) -> Totals {
        let zero = Totals::default();
        match self {
            TreePage::Leaf(entries) => {
                entries.iter().fold(zero, |sum, (path, entry)| sum.plus(LeafRow { path, entry }.totals()))
            }
            TreePage::Inner { children, .. } => {
                children.iter().fold(zero, |sum, child| sum.plus(child.totals()))
            }
        }
    }

    fn leaf(&self) -> &[(TreePath, Entry)] {
        match self {
            TreePage::Leaf(entries) => entries,
            TreePage::Inner { .. } => &[],
        }
    }

    fn first(&self) -> Option<&TreePath> {
        match self {
            TreePage::Leaf(entries) => entries.first().map(|(path, _)| path),
            TreePage::Inner { children, .. } => children.first().map(|child| &child.first),
        }
    }

    fn last(&self) -> Option<&TreePath> {
        match self {
            TreePage::Leaf(entries) => entries.last().map(|(path, _)| path),
            TreePage::Inner { children, .. } => children.last().map(|child| &child.first),
        }
    }

    /// Checks a page that was read for `child` of the page above: that it is of `level`, which is one below that page's,
    /// that it has the paths and sums which `child` says, and that it ends before `upper`, the first path of what comes
    /// after `child` if anything does.
    ///
    /// # Errors
    /// [`DecodeError`] when it is another: its author wrote it like this.
    pub fn check_below(
        &self,
        level: u8,
        child: &TreeChild,
        upper: Option<&TreePath>,
    ) -> Result<(), DecodeError> {
        let invalid = |reason| Err(DecodeError::Invalid { format: TreeShape::NAME, reason });
        if self.level() != level {
            return invalid("a page is not of the level below its parent");
        }
        if self.first() != Some(&child.first) || upper.is_some_and(|upper| self.last() >= Some(upper)) {
            return invalid("a page has other paths than its parent says");
        }
        if self.sums() != child.totals() {
            return invalid("a page has other sums than its parent says");
        }
        Ok(())
    }
}

pub(crate) enum TreeShape {}

/// A path and its entry, as a row of a leaf.
struct LeafRow<'a> {
    path: &'a TreePath,
    entry: &'a Entry,
}

impl Shape for TreeShape {
    const NAME: &'static str = "tree page";
    const MAGIC: &'static [u8; 4] = b"SBTP";
    type Key = TreePath;
    type Child = TreeChild;

    fn key_bytes(key: &TreePath) -> &[u8] {
        key.as_ref()
    }

    fn write_key(key: &TreePath, previous: Option<&TreePath>, writer: &mut Writer) {
        let bytes: &[u8] = key.as_ref();
        let shared = previous.map_or(0, |previous| shared_len(previous.as_ref(), bytes));
        writer.len(shared);
        writer.bytes(&bytes[shared..]);
    }

    fn child(first: TreePath, page: PageId, totals: Totals) -> TreeChild {
        TreeChild { first, page, entries: totals.items, bytes: totals.bytes }
    }
}

fn shared_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Row for TreeChild {
    type Key = TreePath;

    fn key(&self) -> &TreePath {
        &self.first
    }

    fn totals(&self) -> Totals {
        Totals { items: self.entries, bytes: self.bytes }
    }

    fn write_value(&self, writer: &mut Writer) {
        writer.raw(self.page.as_bytes());
        writer.varint(self.entries);
        writer.varint(self.bytes);
    }
}

impl Row for LeafRow<'_> {
    type Key = TreePath;

    fn key(&self) -> &TreePath {
        self.path
    }

    fn totals(&self) -> Totals {
        Totals { items: 1, bytes: self.entry.size() }
    }

    fn write_value(&self, writer: &mut Writer) {
        match self.entry {
            Entry::File { executable, size, sha256, content } => {
                let list = match content {
                    Content::Chunks(_) => KIND_INLINE,
                    Content::Manifest { .. } => KIND_MANIFEST,
                };
                writer.u8(list + u8::from(*executable));
                writer.varint(*size);
                writer.raw(sha256.as_bytes());
                match content {
                    Content::Chunks(chunks) => {
                        writer.len(chunks.len());
                        for chunk in chunks {
                            writer.raw(chunk.id.as_bytes());
                            writer.varint(u64::from(chunk.len));
                        }
                    }
                    Content::Manifest { root, chunks, xet } => {
                        writer.raw(root.as_bytes());
                        writer.varint(*chunks);
                        writer.raw(xet);
                    }
                }
            }
            Entry::Folder => writer.u8(KIND_FOLDER),
            Entry::Symlink { target } => {
                writer.u8(KIND_SYMLINK);
                writer.str(target);
            }
        }
    }
}

/// A file with inline chunks; one more when it is executable.
const KIND_INLINE: u8 = 0;
/// A file with a manifest; one more when it is executable.
const KIND_MANIFEST: u8 = 2;
const KIND_FOLDER: u8 = 4;
const KIND_SYMLINK: u8 = 5;

fn read_path(reader: &mut Reader<'_>, previous: Option<&TreePath>) -> Result<TreePath, DecodeError> {
    let previous: &[u8] = previous.map_or(&[], |path| path.as_ref());
    let shared = reader.len("a path's shared length", previous.len())?;
    let suffix = reader.bytes("a path's length", PATH_BYTES_MAX)?;
    if previous.get(shared).is_some_and(|byte| suffix.first() == Some(byte)) {
        return Err(reader.invalid("a path shares more with the one before than it says"));
    }
    let whole = [&previous[..shared], suffix].concat();
    if whole.as_slice() <= previous {
        return Err(reader.invalid("paths do not rise"));
    }
    let text = std::str::from_utf8(&whole).map_err(|_| reader.invalid("a path is not UTF-8"))?;
    TreePath::parse(text).map_err(|_| reader.invalid("a path could leave the tree"))
}

fn read_entry(reader: &mut Reader<'_>, path: &TreePath) -> Result<Entry, DecodeError> {
    let kind = reader.u8()?;
    let entry = match kind {
        0..=3 => {
            let (size, sha256) = (reader.varint()?, Sha256(reader.array()?));
            let content = if kind < KIND_MANIFEST {
                let count = reader.count("an entry's chunks", INLINE_CHUNKS_MAX, 33)?;
                let chunks = (0..count).map(|_| read_chunk_ref(reader)).collect::<Result<_, _>>()?;
                Content::Chunks(chunks)
            } else {
                let (root, chunks) = (ChunkId(reader.array()?), reader.varint()?);
                Content::Manifest { root, chunks, xet: reader.array()? }
            };
            Entry::File { executable: kind % 2 == 1, size, sha256, content }
        }
        KIND_FOLDER => Entry::Folder,
        KIND_SYMLINK => {
            Entry::Symlink { target: reader.str("a symlink's target", PATH_BYTES_MAX)?.to_owned() }
        }
        _ => return Err(reader.invalid("an unknown kind of entry")),
    };
    entry.check(path).map_err(|error| {
        reader.invalid(match error {
            EntryError::Target(_) => "a symlink leaves the tree",
            EntryError::TooFewChunks { .. } => "a manifest has too few chunks",
            EntryError::TooManyChunks { .. } => "an entry has too many chunks",
            EntryError::ChunkLength { .. } => "a chunk's length can't be",
            EntryError::Size { .. } => "chunks do not add up to the file's size",
        })
    })?;
    Ok(entry)
}

pub(crate) fn read_chunk_ref(reader: &mut Reader<'_>) -> Result<ChunkRef, DecodeError> {
    let id = ChunkId(reader.array()?);
    Ok(ChunkRef { id, len: reader.varint_u32("a chunk's length")? })
}

#[cfg(test)]
mod tests;

//! From the bytes of files to sealed segments: chunk, name, look up, seal, append.
//!
//! One [`Ingest`] belongs to one push and runs on one blocking thread. Closed segments leave through an [`Outlet`] that
//! makes it wait, so that a slow network stops the reading and memory stays at a few segments whatever the files' size.
//! It decides nothing about where fragments go and never waits for a receipt.
//!
//! A file's bytes are read into one buffer, cut and hashed there, and copied once: to their place in the segment, where
//! they are sealed. Segments get memory that was a segment before ([`crate::buffers`]).
//!
//! A chunk is stored once in a dataset, as long as the index knows of it. A page is stored unless the caller says that it
//! may be used again ([`crate::base`]) or this push has stored it.

use crate::push::PushError;
use crate::scan::{ReadStableError, StableFile};
use aws_lc_rs::digest;
use seedbank_catalog::index::{Index, Overlay};
use seedbank_formats::chunking::{CHUNK_BYTES_MAX, FileHasher, Tail, chunk_id, next_cut};
use seedbank_formats::keys::SealKeys;
use seedbank_formats::layout::{ChildPlace, LayoutPage, layout_id};
use seedbank_formats::manifest::{ManifestBuilder, ManifestPage};
use seedbank_formats::place::{ChunkRef, Place};
use seedbank_formats::seal::{Compression, ItemKind};
use seedbank_formats::segment::{SealedSegment, SegmentBuilder, SegmentFull};
use seedbank_formats::tree::{Content, INLINE_CHUNKS_MAX, PageId, TreePage};
use seedbank_formats::{ChunkId, SegmentNumber, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a file in memory at once: a few of the longest chunks, so that cutting rarely waits for more bytes.
const READ_BYTES: usize = 8 * CHUNK_BYTES_MAX;

/// Pages of manifests that are kept back until it is known that they are needed: those of some 14 GB of files.
const DRAFT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Manifest pages that are remembered so as not to store them twice: some 100 MB of memory.
const MANIFEST_PAGES_KEPT: usize = 1 << 20;

/// Segments that the push relies on are pinned when there are so many new ones, and whenever a segment is closed.
const UNPINNED_MAX: usize = 64;

/// Where closed segments go, and where their numbers come from.
pub(crate) trait Outlet {
    /// The next unused segment number.
    fn next_number(&mut self) -> Result<SegmentNumber, PushError>;
    /// Memory that any segment fits into.
    fn buffer(&mut self) -> Vec<u8>;
    /// Hands over a closed segment; waits while too many are under way.
    fn close(&mut self, segment: SealedSegment) -> Result<(), PushError>;
    /// Has segments of earlier pushes kept until this one ends.
    fn pin(&mut self, segments: Vec<SegmentNumber>) -> Result<(), PushError>;
    /// Fails when nobody waits for the push any more.
    fn check(&self) -> Result<(), PushError>;
}

/// What a push has read and made so far.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    /// Files whose contents were read.
    pub files_read: u64,
    /// Bytes read from files.
    pub bytes_read: u64,
    /// Bytes of chunks that were not stored yet, before sealing.
    pub bytes_new: u64,
    /// Bytes of chunks that were stored already.
    pub bytes_deduplicated: u64,
    /// Sealed bytes of new chunks and pages, with segment headers and footers, before coding.
    pub bytes_sealed: u64,
    /// The part of `bytes_sealed` in metadata segments.
    pub bytes_metadata: u64,
}

/// A file's identity: what its tree entry needs.
#[derive(Debug)]
pub(crate) struct FileContent {
    pub(crate) size: u64,
    pub(crate) sha256: Sha256,
    pub(crate) content: Content,
}

/// How segments are filled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filling {
    pub(crate) compression: Compression,
    /// No segment is longer, unless a single item is.
    pub(crate) segment_bytes: usize,
}

/// The pages of a manifest that are not stored yet, the root last.
type Draft = Vec<(PageId, Vec<u8>)>;

/// Turns files and pages into items of segments, each item once.
pub(crate) struct Ingest<'a, O> {
    keys: &'a SealKeys,
    filling: Filling,
    index: &'a Index,
    /// Items of segments that the index does not know yet.
    overlay: Arc<Mutex<Overlay>>,
    /// Segments of earlier pushes that this one deduplicates against.
    relied_on: BTreeSet<SegmentNumber>,
    unpinned: Vec<SegmentNumber>,
    data: Option<SegmentBuilder>,
    metadata: Option<SegmentBuilder>,
    outlet: O,
    /// Allocated once: files are read into it one after another.
    buffer: Box<[u8]>,
    /// Manifests of files that were read, by their root.
    drafts: BTreeMap<PageId, Draft>,
    draft_bytes: usize,
    /// Tree pages that are stored, as long as the page above is not.
    tree_pages: HashMap<PageId, ChildPlace>,
    /// Manifest pages that are stored.
    manifest_pages: HashMap<PageId, ChildPlace>,
    pub(crate) counts: Counts,
}

/// Which of the two streams an item joins: metadata stays together, so that finding a file reads few bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Data,
    Metadata,
}

impl<'a, O: Outlet> Ingest<'a, O> {
    pub(crate) fn new(
        keys: &'a SealKeys,
        filling: Filling,
        index: &'a Index,
        overlay: Arc<Mutex<Overlay>>,
        outlet: O,
    ) -> Self {
        Ingest {
            keys,
            filling,
            index,
            overlay,
            relied_on: BTreeSet::new(),
            unpinned: Vec::new(),
            data: None,
            metadata: None,
            outlet,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            drafts: BTreeMap::new(),
            draft_bytes: 0,
            tree_pages: HashMap::new(),
            manifest_pages: HashMap::new(),
            counts: Counts::default(),
        }
    }

    /// Fails when nobody waits for the push any more.
    pub(crate) fn check(&self) -> Result<(), PushError> {
        self.outlet.check()
    }

    /// Reads a file to its end and stores its chunks. Its manifest is kept back: see [`Ingest::store_manifest`].
    /// `progress` hears of every block of bytes.
    pub(crate) fn file(
        &mut self,
        file: &mut impl Bytes,
        progress: impl FnMut(u64),
    ) -> Result<FileContent, ReadFileError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = self.read(file, &mut buffer, progress);
        self.buffer = buffer;
        read
    }

    fn read(
        &mut self,
        file: &mut impl Bytes,
        buffer: &mut [u8],
        mut progress: impl FnMut(u64),
    ) -> Result<FileContent, ReadFileError> {
        let mut sha256 = digest::Context::new(&digest::SHA256);
        let mut xet = FileHasher::default();
        let mut chunks = ChunkList::default();
        // What is read and not cut yet.
        let (mut start, mut end) = (0, 0);
        let (mut size, mut tail) = (0u64, Tail::More);
        loop {
            while let Some(cut) = next_cut(&buffer[start..end], tail) {
                let reference = self.chunk(&buffer[start..start + cut])?;
                xet.push(reference.id, u64::from(reference.len));
                chunks.push(self, reference)?;
                start += cut;
            }
            if tail == Tail::End {
                break;
            }
            self.outlet.check()?;
            buffer.copy_within(start..end, 0);
            (start, end) = (0, end - start);
            let room = &mut buffer[end..];
            let read = file.fill(room)?;
            if read < room.len() {
                tail = Tail::End;
            }
            sha256.update(&room[..read]);
            end += read;
            size += read as u64;
            self.counts.bytes_read += read as u64;
            progress(read as u64);
        }
        self.counts.files_read += 1;
        let sha256 = sha256.finish();
        Ok(FileContent {
            size,
            sha256: Sha256(sha256.as_ref().try_into().expect("SHA-256 has 32 bytes")),
            content: chunks.finish(self, xet)?,
        })
    }

    /// Stores one chunk of a file unless it is there already.
    fn chunk(&mut self, chunk: &[u8]) -> Result<ChunkRef, PushError> {
        let id = chunk_id(chunk);
        let len = u32::try_from(chunk.len()).expect("a chunk is at most 128 KiB");
        if self.chunk_place(&id)?.is_some() {
            self.counts.bytes_deduplicated += u64::from(len);
        } else {
            self.counts.bytes_new += u64::from(len);
            let place = self.append(Stream::Data, ItemKind::Chunk, &id, chunk)?;
            self.overlay().insert(id, place);
        }
        Ok(ChunkRef { id, len })
    }

    fn overlay(&self) -> MutexGuard<'_, Overlay> {
        self.overlay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a chunk is stored, if it is. Its segment is pinned before long, if it is not of this push.
    pub(crate) fn chunk_place(&mut self, id: &ChunkId) -> Result<Option<Place>, PushError> {
        // Own scope: the index may wait for the disk, and the overlay is wanted elsewhere.
        let fresh = self.overlay().lookup(id);
        if fresh.is_some() {
            return Ok(fresh);
        }
        let found = self.index.lookup(id)?;
        if let Some(place) = found
            && self.relied_on.insert(place.segment)
        {
            self.unpinned.push(place.segment);
            if self.unpinned.len() >= UNPINNED_MAX {
                self.pin()?;
            }
        }
        Ok(found)
    }

    /// Has everything pinned that the push relies on so far.
    pub(crate) fn pin(&mut self) -> Result<(), PushError> {
        let segments = std::mem::take(&mut self.unpinned);
        if segments.is_empty() { Ok(()) } else { self.outlet.pin(segments) }
    }

    /// Where a manifest begins that was stored by this push, or may be used again.
    pub(crate) fn manifest_place(&self, root: &PageId) -> Option<ChildPlace> {
        self.manifest_pages.get(root).copied()
    }

    /// Whether the manifest of a file that was read waits to be stored.
    pub(crate) fn has_draft(&self, root: &PageId) -> bool {
        self.drafts.contains_key(root)
    }

    /// Uses stored manifest pages again.
    pub(crate) fn reuse_manifest(&mut self, pages: impl IntoIterator<Item = (PageId, ChildPlace)>) {
        self.manifest_pages.extend(pages);
    }

    /// Stores the manifest of a file that was read.
    pub(crate) fn store_manifest(&mut self, root: &PageId) -> Result<(), PushError> {
        let Some(draft) = self.drafts.remove(root) else { return Ok(()) };
        self.store_draft(draft)
    }

    fn store_draft(&mut self, draft: Draft) -> Result<(), PushError> {
        draft.iter().try_for_each(|(id, bytes)| self.manifest_page(*id, bytes))
    }

    fn manifest_page(&mut self, id: PageId, bytes: &[u8]) -> Result<(), PushError> {
        self.draft_bytes -= bytes.len();
        if self.manifest_pages.contains_key(&id) {
            return Ok(());
        }
        let page = ManifestPage::decode(bytes).expect("a page that the builder just encoded");
        let children = page.page_refs().map(|child| self.manifest_pages[&child]).collect::<Vec<ChildPlace>>();
        let chunks = page.chunk_refs().map(|chunk| chunk.id);
        let place = self.page_with_layout(id, bytes, chunks, children)?;
        self.manifest_pages.insert(id, place);
        Ok(())
    }

    /// Keeps a page of the manifest that is being built. When there are too many, all are stored.
    fn draft(&mut self, draft: &mut Draft, id: PageId, bytes: Vec<u8>) -> Result<(), PushError> {
        self.draft_bytes += bytes.len();
        draft.push((id, bytes));
        if self.draft_bytes < DRAFT_BYTES_MAX {
            return Ok(());
        }
        for draft in std::mem::take(&mut self.drafts).into_values() {
            self.store_draft(draft)?;
        }
        self.store_draft(std::mem::take(draft))
    }

    /// Uses a stored tree page again.
    pub(crate) fn reuse_tree_page(&mut self, id: PageId, page: &TreePage, place: ChildPlace) {
        self.forget_below(page);
        self.tree_pages.insert(id, place);
    }

    /// Stores a tree page, with a layout page beside it. Everything that it names must be stored or used again.
    pub(crate) fn store_tree_page(
        &mut self,
        id: PageId,
        bytes: &[u8],
        page: &TreePage,
    ) -> Result<(), PushError> {
        let pages = match page {
            TreePage::Leaf(_) => &self.manifest_pages,
            TreePage::Inner { .. } => &self.tree_pages,
        };
        let children = page.page_refs().map(|child| pages[&child]).collect();
        let chunks = page.chunk_refs().map(|chunk| chunk.id);
        let place = self.page_with_layout(id, bytes, chunks, children)?;
        self.forget_below(page);
        self.tree_pages.insert(id, place);
        Ok(())
    }

    /// Where a tree page is that was stored or used again, and has no page above yet.
    pub(crate) fn tree_page_place(&self, id: &PageId) -> Option<ChildPlace> {
        self.tree_pages.get(id).copied()
    }

    /// Nothing else names what this page names, and drafts of its files are no longer wanted.
    fn forget_below(&mut self, page: &TreePage) {
        match page {
            TreePage::Inner { children, .. } => {
                for child in children {
                    self.tree_pages.remove(&child.page);
                }
            }
            TreePage::Leaf(_) => {
                self.drafts.clear();
                self.draft_bytes = 0;
                if self.manifest_pages.len() > MANIFEST_PAGES_KEPT {
                    self.manifest_pages.clear();
                }
            }
        }
    }

    fn page_with_layout(
        &mut self,
        id: PageId,
        bytes: &[u8],
        chunks: impl Iterator<Item = ChunkId>,
        children: Vec<ChildPlace>,
    ) -> Result<ChildPlace, PushError> {
        let places = chunks
            .map(|chunk| self.chunk_place(&chunk)?.ok_or(PushError::Unplaced(chunk)))
            .collect::<Result<Vec<_>, _>>()?;
        let page = self.append(Stream::Metadata, ItemKind::Page, &id, bytes)?;
        let layout = LayoutPage::describe(places, children).encode();
        let layout = self.append(Stream::Metadata, ItemKind::Named, &layout_id(&id), &layout)?;
        Ok(ChildPlace { page, layout })
    }

    fn stream(&mut self, stream: Stream) -> &mut Option<SegmentBuilder> {
        match stream {
            Stream::Data => &mut self.data,
            Stream::Metadata => &mut self.metadata,
        }
    }

    fn append(
        &mut self,
        stream: Stream,
        kind: ItemKind,
        id: &ChunkId,
        plain: &[u8],
    ) -> Result<Place, PushError> {
        let Filling { compression, segment_bytes } = self.filling;
        loop {
            if self.stream(stream).is_none() {
                let number = self.outlet.next_number()?;
                let buffer = match stream {
                    // It will be filled, or the push is small: pages that are not written to cost nothing.
                    Stream::Data => self.outlet.buffer(),
                    Stream::Metadata => Vec::new(),
                };
                *self.stream(stream) = Some(SegmentBuilder::new(self.keys, number, buffer));
            }
            let builder = self.stream(stream).as_mut().expect("just made");
            let fits = builder.is_empty() || builder.sealed_len() + plain.len() <= segment_bytes;
            let pushed = if fits { builder.push(kind, id, plain, compression) } else { Err(SegmentFull) };
            match pushed {
                Ok(index) => return Ok(Place { segment: builder.number(), index }),
                Err(SegmentFull) => self.close(stream)?,
            }
        }
    }

    fn close(&mut self, stream: Stream) -> Result<(), PushError> {
        let Some(builder) = self.stream(stream).take() else { return Ok(()) };
        self.pin()?;
        let segment = builder.finish();
        self.counts.bytes_sealed += u64::from(segment.sealed_len());
        if stream == Stream::Metadata {
            self.counts.bytes_metadata += u64::from(segment.sealed_len());
        }
        self.outlet.close(segment)
    }

    /// Closes the open data segment, so that everything that files need is under way.
    pub(crate) fn close_data(&mut self) -> Result<(), PushError> {
        self.close(Stream::Data)
    }

    /// The open metadata segment, left open for what the commit adds.
    pub(crate) fn take_metadata(&mut self) -> Option<SegmentBuilder> {
        self.metadata.take()
    }
}

/// Bytes that are read once, from the first to the last.
pub(crate) trait Bytes {
    /// Fills `buffer`; fewer bytes than it holds are the last ones.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFileError>;
}

impl Bytes for StableFile {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFileError> {
        Ok(StableFile::fill(self, buffer)?)
    }
}

impl Bytes for Box<dyn Read + Send> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, ReadFileError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(PushError::ReadStream(error).into()),
            }
        }
        Ok(filled)
    }
}

/// Why a file could not be read into the dataset.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadFileError {
    /// The file's fault: it changed, or can't be read.
    #[error(transparent)]
    Read(#[from] ReadStableError),
    /// The push can't go on.
    #[error(transparent)]
    Push(#[from] PushError),
}

/// A file's chunk list: in the tree entry while it is short, in manifest pages when it is not.
#[derive(Default)]
struct ChunkList {
    count: u64,
    inline: Vec<ChunkRef>,
    manifest: Option<ManifestBuilder>,
    draft: Draft,
}

impl ChunkList {
    fn push<O: Outlet>(&mut self, ingest: &mut Ingest<'_, O>, chunk: ChunkRef) -> Result<(), PushError> {
        self.count += 1;
        if let Some(manifest) = &mut self.manifest {
            return feed(manifest, &mut self.draft, ingest, chunk);
        }
        self.inline.push(chunk);
        if self.inline.len() > INLINE_CHUNKS_MAX {
            let manifest = self.manifest.insert(ManifestBuilder::default());
            for chunk in self.inline.drain(..) {
                feed(manifest, &mut self.draft, ingest, chunk)?;
            }
        }
        Ok(())
    }

    fn finish<O: Outlet>(
        mut self,
        ingest: &mut Ingest<'_, O>,
        xet: FileHasher,
    ) -> Result<Content, PushError> {
        let Some(manifest) = self.manifest else { return Ok(Content::Chunks(self.inline)) };
        let (mut failed, draft) = (None, &mut self.draft);
        let root = manifest.finish(&mut |id, bytes: Vec<u8>| {
            if failed.is_none() {
                failed = ingest.draft(draft, id, bytes).err();
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        ingest.drafts.insert(root, self.draft);
        Ok(Content::Manifest { root, chunks: self.count, xet: xet.finish() })
    }
}

fn feed<O: Outlet>(
    manifest: &mut ManifestBuilder,
    draft: &mut Draft,
    ingest: &mut Ingest<'_, O>,
    chunk: ChunkRef,
) -> Result<(), PushError> {
    let mut failed = None;
    manifest.push(chunk, &mut |id, bytes: Vec<u8>| {
        if failed.is_none() {
            failed = ingest.draft(draft, id, bytes).err();
        }
    });
    failed.map_or(Ok(()), Err)
}

//! From the bytes of files to sealed segments: chunk, name, look up, seal, append.
//!
//! One [`Ingest`] belongs to one push and runs on one blocking thread. Closed segments leave through a bounded
//! channel, so that a slow network stops the reading and memory stays at a few segments whatever the files' size.
//! It decides nothing about where fragments go and never waits for a receipt.

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
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes read from a file at once: a few of the longest chunks, so that cutting rarely waits for more bytes.
const READ_BYTES: usize = 8 * CHUNK_BYTES_MAX;

/// Where closed segments go, and where their numbers come from.
pub(crate) trait Outlet {
    /// The next unused segment number.
    fn next_number(&mut self) -> Result<SegmentNumber, PushError>;
    /// Hands over a closed segment; waits while too many are under way.
    fn close(&mut self, segment: SealedSegment) -> Result<(), PushError>;
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

/// Turns files and pages into items of segments, each item once.
pub(crate) struct Ingest<'a, O> {
    keys: &'a SealKeys,
    compression: Compression,
    index: &'a Index,
    /// Items of this push, which the index does not know before their segment is recorded.
    overlay: Arc<Mutex<Overlay>>,
    /// Segments of earlier pushes that this one relies on.
    relied_on: BTreeSet<SegmentNumber>,
    data: Option<SegmentBuilder>,
    metadata: Option<SegmentBuilder>,
    outlet: O,
    buffer: Vec<u8>,
    pub(crate) counts: Counts,
}

/// Which of the two streams an item joins: metadata stays together, so that finding a file reads few bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Into {
    Data,
    Metadata,
}

impl<'a, O: Outlet> Ingest<'a, O> {
    pub(crate) fn new(
        keys: &'a SealKeys,
        compression: Compression,
        index: &'a Index,
        overlay: Arc<Mutex<Overlay>>,
        outlet: O,
    ) -> Self {
        Ingest {
            keys,
            compression,
            index,
            overlay,
            relied_on: BTreeSet::new(),
            data: None,
            metadata: None,
            outlet,
            buffer: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Reads a file to its end. `progress` hears of every block of bytes.
    pub(crate) fn file(
        &mut self,
        file: &mut StableFile,
        mut progress: impl FnMut(u64) -> Result<(), PushError>,
    ) -> Result<FileContent, ReadFileError> {
        let mut sha256 = digest::Context::new(&digest::SHA256);
        let mut xet = FileHasher::default();
        let mut chunks = ChunkList::default();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let (mut start, mut size, mut tail) = (0, 0u64, Tail::More);
        loop {
            while let Some(cut) = next_cut(&buffer[start..], tail) {
                let chunk = &buffer[start..start + cut];
                let reference = self.chunk(chunk)?;
                xet.push(reference.id, u64::from(reference.len));
                chunks.push(self, reference)?;
                start += cut;
            }
            if tail == Tail::End {
                break;
            }
            buffer.drain(..start);
            start = 0;
            let filled = buffer.len();
            buffer.resize(filled + READ_BYTES, 0);
            let read = file.fill(&mut buffer[filled..])?;
            if read < READ_BYTES {
                tail = Tail::End;
            }
            buffer.truncate(filled + read);
            sha256.update(&buffer[filled..]);
            size += read as u64;
            self.counts.bytes_read += read as u64;
            progress(read as u64)?;
        }
        self.buffer = buffer;
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
        if self.place(&id)?.is_some() {
            self.counts.bytes_deduplicated += u64::from(len);
        } else {
            self.counts.bytes_new += u64::from(len);
            self.append(Into::Data, ItemKind::Chunk, id, chunk)?;
        }
        Ok(ChunkRef { id, len })
    }

    /// Where an item is stored, if it is.
    pub(crate) fn place(&mut self, id: &ChunkId) -> Result<Option<Place>, PushError> {
        let fresh = self.overlay.lock().unwrap_or_else(PoisonError::into_inner).lookup(id);
        if fresh.is_some() {
            return Ok(fresh);
        }
        let found = self.index.lookup(id)?;
        if let Some(place) = found {
            self.relied_on.insert(place.segment);
        }
        Ok(found)
    }

    fn known_place(&mut self, id: &ChunkId) -> Result<Place, PushError> {
        self.place(id)?.ok_or(PushError::Unplaced(*id))
    }

    /// Stores a tree page unless it is there already, with a layout page beside it.
    pub(crate) fn tree_page(&mut self, id: PageId, bytes: &[u8]) -> Result<(), PushError> {
        if self.place(&id)?.is_some() {
            return Ok(());
        }
        let page = TreePage::decode(bytes).expect("a page that the builder just encoded");
        self.page_with_layout(id, bytes, page.chunk_refs().map(|chunk| chunk.id), page.page_refs())
    }

    fn manifest_page(&mut self, id: PageId, bytes: &[u8]) -> Result<(), PushError> {
        if self.place(&id)?.is_some() {
            return Ok(());
        }
        let page = ManifestPage::decode(bytes).expect("a page that the builder just encoded");
        self.page_with_layout(id, bytes, page.chunk_refs().map(|chunk| chunk.id), page.page_refs())
    }

    fn page_with_layout(
        &mut self,
        id: PageId,
        bytes: &[u8],
        chunks: impl Iterator<Item = ChunkId>,
        pages: impl Iterator<Item = PageId>,
    ) -> Result<(), PushError> {
        let places = chunks.map(|chunk| self.known_place(&chunk)).collect::<Result<Vec<_>, _>>()?;
        let children = pages
            .map(|page| {
                Ok(ChildPlace {
                    page: self.known_place(&page)?,
                    layout: self.known_place(&layout_id(&page))?,
                })
            })
            .collect::<Result<Vec<_>, PushError>>()?;
        self.append(Into::Metadata, ItemKind::Page, id, bytes)?;
        let layout = LayoutPage::describe(places, children).encode();
        self.append(Into::Metadata, ItemKind::Named, layout_id(&id), &layout)?;
        Ok(())
    }

    fn stream(&mut self, into: Into) -> &mut Option<SegmentBuilder> {
        match into {
            Into::Data => &mut self.data,
            Into::Metadata => &mut self.metadata,
        }
    }

    fn append(&mut self, into: Into, kind: ItemKind, id: ChunkId, plain: &[u8]) -> Result<Place, PushError> {
        let compression = self.compression;
        loop {
            if self.stream(into).is_none() {
                let number = self.outlet.next_number()?;
                *self.stream(into) = Some(SegmentBuilder::new(self.keys, number, Vec::new()));
            }
            let builder = self.stream(into).as_mut().expect("just made");
            match builder.push(kind, &id, plain, compression) {
                Ok(index) => {
                    let place = Place { segment: builder.number(), index };
                    self.overlay.lock().unwrap_or_else(PoisonError::into_inner).insert(id, place);
                    return Ok(place);
                }
                Err(SegmentFull) => self.close(into)?,
            }
        }
    }

    fn close(&mut self, into: Into) -> Result<(), PushError> {
        let Some(builder) = self.stream(into).take() else { return Ok(()) };
        let segment = builder.finish();
        self.counts.bytes_sealed += u64::from(segment.sealed_len());
        if into == Into::Metadata {
            self.counts.bytes_metadata += u64::from(segment.sealed_len());
        }
        self.outlet.close(segment)
    }

    /// Closes the open data segment, so that everything that files need is under way.
    pub(crate) fn close_data(&mut self) -> Result<(), PushError> {
        self.close(Into::Data)
    }

    /// The open metadata segment, left open for what the commit adds.
    pub(crate) fn take_metadata(&mut self) -> Option<SegmentBuilder> {
        self.metadata.take()
    }

    /// Segments of earlier pushes that this one deduplicated against.
    pub(crate) fn relied_on(&self) -> &BTreeSet<SegmentNumber> {
        &self.relied_on
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
}

impl ChunkList {
    fn push<O: Outlet>(&mut self, ingest: &mut Ingest<'_, O>, chunk: ChunkRef) -> Result<(), PushError> {
        self.count += 1;
        if let Some(manifest) = &mut self.manifest {
            return feed(manifest, ingest, chunk);
        }
        self.inline.push(chunk);
        if self.inline.len() > INLINE_CHUNKS_MAX {
            let manifest = self.manifest.insert(ManifestBuilder::default());
            for chunk in self.inline.drain(..) {
                feed(manifest, ingest, chunk)?;
            }
        }
        Ok(())
    }

    fn finish<O: Outlet>(self, ingest: &mut Ingest<'_, O>, xet: FileHasher) -> Result<Content, PushError> {
        let Some(manifest) = self.manifest else { return Ok(Content::Chunks(self.inline)) };
        let mut failed = None;
        let root = manifest.finish(&mut |id, bytes: Vec<u8>| {
            if failed.is_none() {
                failed = ingest.manifest_page(id, &bytes).err();
            }
        });
        failed.map_or(Ok(Content::Manifest { root, chunks: self.count, xet: xet.finish() }), Err)
    }
}

fn feed<O: Outlet>(
    manifest: &mut ManifestBuilder,
    ingest: &mut Ingest<'_, O>,
    chunk: ChunkRef,
) -> Result<(), PushError> {
    let mut failed = None;
    manifest.push(chunk, &mut |id, bytes: Vec<u8>| {
        if failed.is_none() {
            failed = ingest.manifest_page(id, &bytes).err();
        }
    });
    failed.map_or(Ok(()), Err)
}

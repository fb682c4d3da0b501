//! Writes a version's files into a folder, checks a version without writing, and reads ranges of files.

use crate::delivery::{Delivery, DeliveryError, Sink};
use crate::glob::{Filter, PathKind};
use crate::progress::Progress;
use crate::reader::{ReadError, Reader};
use crate::restore::{Destination, Existing, PartFile, RestoreError, RestoreOptions};
use crate::snapshot::Snapshot;
use crate::walk::{EntryWalk, LocatedChunk, LocatedEntry};
use aws_lc_rs::digest;
use seedbank_formats::Sha256;
use seedbank_formats::chunking::chunk_id;
use seedbank_formats::path::TreePath;
use seedbank_formats::tree::Entry;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A file up to this length that is there already is read and hashed in a moment.
const QUICK_BYTES_MAX: u64 = 64 * 1024;

/// What was delivered.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct PullReport {
    /// Files of the version that were asked for.
    pub files: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// Files that were there already.
    pub files_kept: u64,
    /// Bytes that were there already, in whole files and in interrupted ones.
    pub bytes_kept: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// Empty folders.
    pub folders: u64,
}

/// Why a pull stopped. What is written so far is right, and running it again goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The dataset can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The destination can't be written.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

impl From<DeliveryError<RestoreError>> for PullError {
    fn from(error: DeliveryError<RestoreError>) -> PullError {
        match error {
            DeliveryError::Read(error) => PullError::Read(error),
            DeliveryError::Sink(error) => PullError::Restore(error),
        }
    }
}

/// Writes the version's paths that pass `filter` into `dest`.
///
/// # Errors
/// [`PullError`].
pub async fn pull(
    reader: &Arc<Reader>,
    snapshot: &Snapshot,
    dest: &Path,
    filter: &Filter,
    options: RestoreOptions,
    progress: Arc<dyn Progress>,
) -> Result<PullReport, PullError> {
    let destination = Arc::new(Destination::open(dest, options)?);
    let sink = Writer { destination: Arc::clone(&destination), file: None };
    progress.total(snapshot.version.tree.entries, snapshot.version.tree.bytes);
    let mut delivery = Delivery::new(reader, sink, Arc::clone(&progress));
    let mut report = PullReport::default();
    let mut stopped = None;
    let planned = plan(reader, snapshot, &destination, filter, &progress, &mut delivery, &mut report).await;
    let planned = match planned {
        Ok(()) => Ok(()),
        Err(PullError::Read(error)) => Err(error),
        Err(PullError::Restore(error)) => {
            stopped = Some(error);
            Err(ReadError::Stopped)
        }
    };
    let delivered = delivery.finish(planned).await;
    if let Some(error) = stopped {
        return Err(error.into());
    }
    delivered?;
    let destination = Arc::into_inner(destination).expect("the delivering thread has ended");
    destination.finish()?;
    Ok(report)
}

async fn plan(
    reader: &Arc<Reader>,
    snapshot: &Snapshot,
    destination: &Arc<Destination>,
    filter: &Filter,
    progress: &Arc<dyn Progress>,
    delivery: &mut Delivery<Writer>,
    report: &mut PullReport,
) -> Result<(), PullError> {
    let prefix = filter.literal_prefix();
    let mut entries = EntryWalk::below(reader, &snapshot.version.tree, snapshot.root, prefix);
    while let Some(located) = entries.next().await? {
        let kind = match located.entry {
            Entry::Folder => PathKind::Folder,
            Entry::File { .. } | Entry::Symlink { .. } => PathKind::Other,
        };
        if !filter.keeps(located.path.as_str(), kind) {
            continue;
        }
        let (path, entry) = (&located.path, &located.entry);
        match entry {
            Entry::Folder => {
                report.folders += 1;
                tokio::task::block_in_place(|| destination.make_folder(path))?;
            }
            Entry::Symlink { target } => {
                report.symlinks += 1;
                destination.symlink(path, target)?;
            }
            Entry::File { size, executable, .. } => {
                report.files += 1;
                report.bytes += size;
                // For a small file there is little to look at: handing this thread's work to another costs more.
                let existing = if *size <= QUICK_BYTES_MAX {
                    destination.existing(path, entry)
                } else {
                    tokio::task::block_in_place(|| destination.existing(path, entry))
                }?;
                let is_whole = matches!(existing, Existing::Complete | Existing::OtherMode);
                let have = match existing {
                    Existing::Complete => *size,
                    Existing::OtherMode => {
                        tokio::task::block_in_place(|| destination.set_executable(path, *executable))?;
                        *size
                    }
                    Existing::Partial { .. } => verified_prefix(reader, destination, &located).await?,
                    Existing::Missing => 0,
                    Existing::Different => {
                        // Says now what would otherwise be said after a download.
                        tokio::task::block_in_place(|| {
                            destination.part_file(path).and_then(PartFile::discard)
                        })?;
                        0
                    }
                };
                report.bytes_kept += have;
                progress.advance(0, have);
                if is_whole {
                    report.files_kept += 1;
                    progress.advance(1, 0);
                } else {
                    delivery.file(&located, have).await?;
                }
            }
        }
    }
    Ok(())
}

/// How many bytes of an interrupted file are right, up to a chunk's end.
async fn verified_prefix(
    reader: &Arc<Reader>,
    destination: &Destination,
    located: &LocatedEntry,
) -> Result<u64, PullError> {
    let part = tokio::task::block_in_place(|| destination.part_file(&located.path))?;
    let size = located.entry.size();
    let mut chunks = located.chunks(reader, 0..size);
    let (mut have, mut buffer) = (0, Vec::new());
    while let Some(LocatedChunk { chunk, start, .. }) = chunks.next().await? {
        buffer.resize(usize::try_from(chunk.len).expect("a chunk is at most 128 KiB"), 0);
        let read = tokio::task::block_in_place(|| part.read_at(&mut buffer, start))?;
        if read < buffer.len() || chunk_id(&buffer) != chunk.id {
            break;
        }
        let end = start + u64::from(chunk.len);
        // Of a whole part the last chunk is written again: then it gets its name as any other.
        have = if end == size { start } else { end };
    }
    Ok(have)
}

/// Writes files beside their names and renames them when they are whole.
struct Writer {
    destination: Arc<Destination>,
    file: Option<(PartFile, bool)>,
}

impl Sink for Writer {
    type Error = RestoreError;

    fn begin(&mut self, path: &TreePath, entry: &Entry, have: u64) -> Result<(), RestoreError> {
        let mut part = self.destination.part_file(path)?;
        part.truncate_to(have)?;
        self.file = Some((part, matches!(entry, Entry::File { executable: true, .. })));
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        match &mut self.file {
            Some((part, _)) => part.append(bytes),
            None => Ok(()),
        }
    }

    fn end(&mut self) -> Result<(), RestoreError> {
        match self.file.take() {
            Some((part, executable)) => part.finish(executable),
            None => Ok(()),
        }
    }
}

/// A file whose whole does not have the SHA-256 that the version says: its author wrote a wrong entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} has SHA-256 {actual}, and the version says {expected}")]
pub struct WrongSha256 {
    /// The file.
    pub path: TreePath,
    /// What the version says.
    pub expected: Sha256,
    /// What its bytes have.
    pub actual: Sha256,
}

/// Why a version did not verify.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It reads, and is not what it says.
    #[error(transparent)]
    Sha256(#[from] WrongSha256),
}

/// Reads every byte of a version and checks chunk ids and whole-file SHA-256, without writing anything.
///
/// # Errors
/// [`VerifyError`] with the first thing that is wrong.
pub async fn verify(
    reader: &Arc<Reader>,
    snapshot: &Snapshot,
    progress: Arc<dyn Progress>,
) -> Result<PullReport, VerifyError> {
    progress.total(snapshot.version.tree.entries, snapshot.version.tree.bytes);
    let mut delivery = Delivery::new(reader, Checker { file: None }, progress);
    let mut report = PullReport::default();
    let planned = async {
        let mut entries = EntryWalk::new(reader, &snapshot.version.tree, snapshot.root);
        while let Some(located) = entries.next().await? {
            match &located.entry {
                Entry::Folder => report.folders += 1,
                Entry::Symlink { .. } => report.symlinks += 1,
                Entry::File { size, .. } => {
                    report.files += 1;
                    report.bytes += size;
                    delivery.file(&located, 0).await?;
                }
            }
        }
        Ok(())
    }
    .await;
    match delivery.finish(planned).await {
        Ok(()) => Ok(report),
        Err(DeliveryError::Read(error)) => Err(error.into()),
        Err(DeliveryError::Sink(error)) => Err(error.into()),
    }
}

/// Hashes whole files.
struct Checker {
    file: Option<(TreePath, Sha256, digest::Context)>,
}

impl Sink for Checker {
    type Error = WrongSha256;

    fn begin(&mut self, path: &TreePath, entry: &Entry, _have: u64) -> Result<(), WrongSha256> {
        if let Entry::File { sha256, .. } = entry {
            self.file = Some((path.clone(), *sha256, digest::Context::new(&digest::SHA256)));
        }
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), WrongSha256> {
        if let Some((_, _, hasher)) = &mut self.file {
            hasher.update(bytes);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), WrongSha256> {
        let Some((path, expected, hasher)) = self.file.take() else { return Ok(()) };
        let digest = hasher.finish();
        let actual = Sha256(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"));
        if actual == expected { Ok(()) } else { Err(WrongSha256 { path, expected, actual }) }
    }
}

/// Why a file could not be written out.
#[derive(Debug, thiserror::Error)]
pub enum CatError {
    /// It can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What it is written to is gone or full.
    #[error("writing failed")]
    Write(#[from] std::io::Error),
}

/// Writes bytes `range` of a file to `out`, in order; a range past the end is cut. Gives the bytes written. Up to a MiB is
/// written by the calling task, more by a thread of its own: an `out` that blocks for long blocks that task.
///
/// # Errors
/// [`CatError`].
pub async fn cat<W: Write + Send + 'static>(
    reader: &Arc<Reader>,
    snapshot: &Snapshot,
    path: &TreePath,
    range: Range<u64>,
    out: W,
) -> Result<u64, CatError> {
    let located = snapshot.find(reader, path).await?;
    let end = range.end.min(located.entry.size());
    if range.start >= end {
        return Ok(0);
    }
    let left = end - range.start;
    let sink = Cutter { out, skip: 0, left };
    let mut delivery = Delivery::new(reader, sink, Arc::new(crate::progress::Silent));
    let planned = delivery.range(&located, range.start..end).await;
    match delivery.finish(planned).await {
        Ok(()) => Ok(left),
        Err(DeliveryError::Read(error)) => Err(error.into()),
        Err(DeliveryError::Sink(error)) => Err(error.into()),
    }
}

/// Writes a stretch of one file.
struct Cutter<W> {
    out: W,
    skip: u64,
    left: u64,
}

impl<W: Write + Send + 'static> Sink for Cutter<W> {
    type Error = std::io::Error;

    fn begin(&mut self, _path: &TreePath, _entry: &Entry, have: u64) -> Result<(), std::io::Error> {
        self.skip = have;
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), std::io::Error> {
        let len = bytes.len() as u64;
        let from = self.skip.min(len);
        let to = len.min(from.saturating_add(self.left));
        let index = |offset| usize::try_from(offset).expect("an offset into bytes that are in memory");
        self.out.write_all(&bytes[index(from)..index(to)])?;
        self.skip -= from;
        self.left -= to - from;
        Ok(())
    }

    fn end(&mut self) -> Result<(), std::io::Error> {
        self.out.flush()
    }
}

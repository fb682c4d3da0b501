//! Walks what is pushed, reads the files that may have changed, and builds the tree.
//!
//! The walk runs on a thread of its own, a little ahead: it waits for the disk, and this one for hashes.
//!
//! A file that the cache knows is not read, and whether its content is stored is not asked either, until its leaf of the
//! tree is finished: most leaves are those of the version that the push builds on, and then all below is there. Of a new
//! leaf every file is looked up, and read after all if something of it is gone.

use crate::base::Base;
use crate::file_cache::FileCache;
use crate::ingest::{Ingest, Outlet, ReadFileError};
use crate::network::wall_clock;
use crate::progress::{Progress, Silent};
use crate::push::{PushError, PushOptions, Rehash, Stream};
use crate::reader::ReadError;
use crate::scan::{CaseCollisions, FileStamp, ReadStableError, Scan, ScanError, Scanned, What, read_stable};
use seedbank_catalog::records::Reliance;
use seedbank_formats::layout::ChildPlace;
use seedbank_formats::pages::PageId;
use seedbank_formats::path::TreePath;
use seedbank_formats::tree::{Content, Entry, TreeBuilder, TreePage, TreeRoot};
use seedbank_formats::{DatasetId, Timestamp};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

/// Of files from this length on, the manifest of their last version is read, so that only pages of it are written that
/// differ: below, it has so few pages that asking costs more.
const MANIFEST_COMPARED_BYTES: u64 = 128 * 1024 * 1024;

/// Entries handed from the walk to the reading at once: waking a thread costs as much as many entries.
const BATCH_ENTRIES: usize = 256;

/// Batches that wait: half a megabyte.
const BATCHES_AHEAD: usize = 4;

/// The reading half of a push.
pub(crate) struct Intake<'a, O> {
    pub(crate) ingest: Ingest<'a, O>,
    dataset: DatasetId,
    base: Option<Base>,
    relies_on: Option<Reliance>,
    cache: FileCache,
    rehash: Rehash,
    progress: &'a dyn Progress,
    /// The entries of the open leaf of the tree.
    leaf: Vec<(TreePath, Entry)>,
    /// Where those of them are that were not read; `None` of the others.
    unread: Vec<Option<PathBuf>>,
}

/// A tree all of whose pages are stored or used again.
pub(crate) struct TakenIn {
    pub(crate) root: TreeRoot,
    pub(crate) place: ChildPlace,
    /// What the tree was compared with, if there was anything and it could be read to the end.
    pub(crate) base: Option<Base>,
    /// The version whose pages are used again, if any are.
    pub(crate) relies_on: Option<Reliance>,
}

impl<'a, O: Outlet> Intake<'a, O> {
    pub(crate) fn new(
        ingest: Ingest<'a, O>,
        dataset: DatasetId,
        base: Option<Base>,
        cache: FileCache,
        rehash: Rehash,
        progress: &'a dyn Progress,
    ) -> Intake<'a, O> {
        let (leaf, unread) = (Vec::new(), Vec::new());
        Intake { ingest, dataset, base, relies_on: None, cache, rehash, progress, leaf, unread }
    }

    /// Takes in everything below the source. Data that was not stored has left through the outlet, but for what is in the
    /// open segments.
    pub(crate) fn take_in(&mut self, options: &PushOptions) -> Result<TakenIn, PushError> {
        let scan = Scan::new(&options.source, &options.filter, CaseCollisions::Refuse)?;
        let mut builder = TreeBuilder::new();
        ahead(scan, |scanned| {
            self.ingest.check()?;
            let Scanned { path, disk_path, what } = scanned?;
            let (entry, unread) = self.entry(&path, disk_path, what)?;
            self.add(&mut builder, path, entry, unread)
        })?;
        self.finish(builder)
    }

    /// Takes in a stream, which is the whole tree.
    pub(crate) fn take_in_stream(&mut self, stream: Stream) -> Result<TakenIn, PushError> {
        let Stream { path, mut bytes } = stream;
        let read = self.ingest.file(&mut bytes, |bytes| self.progress.advance(0, bytes));
        let read = read.map_err(|error| match error {
            ReadFileError::Read(error) => error.into(),
            ReadFileError::Push(error) => error,
        })?;
        self.progress.fresh(self.ingest.counts.bytes_new);
        self.progress.advance(1, 0);
        let entry =
            Entry::File { executable: false, size: read.size, sha256: read.sha256, content: read.content };
        let mut builder = TreeBuilder::new();
        self.add(&mut builder, path, entry, None)?;
        self.finish(builder)
    }

    /// Adds an entry; `unread` is where its file is, if that was not read.
    fn add(
        &mut self,
        builder: &mut TreeBuilder,
        path: TreePath,
        entry: Entry,
        unread: Option<PathBuf>,
    ) -> Result<(), PushError> {
        let mut finished = Vec::new();
        builder.push(&path, &entry, &mut |id, bytes| finished.push((id, bytes)))?;
        self.leaf.push((path, entry));
        self.unread.push(unread);
        finished.iter().try_for_each(|(id, bytes)| self.page(*id, bytes))
    }

    fn finish(&mut self, builder: TreeBuilder) -> Result<TakenIn, PushError> {
        let mut finished = Vec::new();
        let root = builder.finish(&mut |id, bytes| finished.push((id, bytes)));
        finished.iter().try_for_each(|(id, bytes)| self.page(*id, bytes))?;
        self.cache.flush();
        let place = self.ingest.tree_page_place(&root.page).ok_or(PushError::Unplaced(root.page))?;
        Ok(TakenIn { root, place, base: self.base.take(), relies_on: self.relies_on })
    }

    /// What stands at a path, and where it is if it was not read.
    fn entry(
        &mut self,
        path: &TreePath,
        disk_path: PathBuf,
        what: What,
    ) -> Result<(Entry, Option<PathBuf>), PushError> {
        let (stamp, executable) = match what {
            What::EmptyFolder => return Ok((Entry::Folder, None)),
            What::Symlink { target } => return Ok((Entry::Symlink { target }, None)),
            What::File { stamp, executable } => (stamp, executable),
        };
        let known = match self.rehash {
            Rehash::All => None,
            Rehash::Changed => self.cache.lookup(self.dataset, &disk_path, &stamp, executable),
        };
        if let Some(entry) = known {
            self.ingest.counts.bytes_deduplicated += entry.size();
            self.progress.advance(1, entry.size());
            return Ok((entry, Some(disk_path)));
        }
        if stamp.size >= MANIFEST_COMPARED_BYTES
            && let Some((root, place)) = self.ask_base(|base| base.manifest(path))
            && let Some(pages) = self.ask_base(|base| base.manifest_pages(root, place).map(Some))
        {
            self.ingest.reuse_manifest(pages);
        }
        Ok((self.read_file(&disk_path, self.progress)?, None))
    }

    /// Asks what the version before has. When it can't be read any more, the push goes on without it.
    fn ask_base<T>(&mut self, ask: impl FnOnce(&mut Base) -> Result<Option<T>, ReadError>) -> Option<T> {
        let base = self.base.as_mut()?;
        match ask(base) {
            // Every place that the version knows is asked for in order to be used again.
            Ok(Some(found)) => {
                self.relies_on = Some(base.reliance());
                Some(found)
            }
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(%error, "version before not read, all its metadata is written anew");
                self.base = None;
                None
            }
        }
    }

    /// Stores a finished page of the tree, unless the version before has it.
    fn page(&mut self, id: PageId, bytes: &[u8]) -> Result<(), PushError> {
        const BUILT: &str = "a page that the builder just encoded";
        let (page, mut unread) = match TreePage::level_of(bytes).expect(BUILT) {
            0 => (TreePage::Leaf(std::mem::take(&mut self.leaf)), std::mem::take(&mut self.unread)),
            _ => (TreePage::decode(bytes).expect(BUILT), Vec::new()),
        };
        let (level, first) = (page.level(), first_path(&page));
        let there = self.ask_base(|base| base.tree_page(id, level, first));
        if let Some(place) = there {
            self.ingest.reuse_tree_page(id, &page, place);
            return Ok(());
        }
        if let TreePage::Leaf(entries) = &page {
            for ((path, entry), unread) in entries.iter().zip(&mut unread) {
                self.provide(path, entry, unread.take())?;
            }
        }
        self.ingest.store_tree_page(id, bytes, &page)
    }

    /// Sees to it that everything that an entry of a new leaf names is stored. `unread` is where its file is, if that was
    /// not read.
    fn provide(&mut self, path: &TreePath, entry: &Entry, unread: Option<PathBuf>) -> Result<(), PushError> {
        if let Some(disk_path) = unread
            && !self.is_stored(path, entry)?
        {
            self.ingest.counts.bytes_deduplicated -= entry.size();
            // It was counted as done when it was passed over.
            if self.read_file(&disk_path, &Silent)? != *entry {
                return Err(ReadStableError::ChangedWhileRead(disk_path).into());
            }
        }
        let Some(root) = entry.manifest() else { return Ok(()) };
        if self.ingest.manifest_place(&root).is_none() && !self.reuse_manifest(path, root) {
            self.ingest.store_manifest(&root)?;
        }
        Ok(())
    }

    /// Whether everything that a file needs which was not read is there.
    fn is_stored(&mut self, path: &TreePath, entry: &Entry) -> Result<bool, PushError> {
        let Entry::File { content, .. } = entry else { return Ok(true) };
        match content {
            Content::Chunks(chunks) => {
                for chunk in chunks {
                    if self.ingest.chunk_place(&chunk.id)?.is_none() {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Content::Manifest { root, .. } => {
                let here = self.ingest.manifest_place(root).is_some() || self.ingest.has_draft(root);
                Ok(here || self.reuse_manifest(path, *root))
            }
        }
    }

    /// Uses the manifest again that the version before has at this path, if it is this one.
    fn reuse_manifest(&mut self, path: &TreePath, root: PageId) -> bool {
        let there = self.ask_base(|base| base.manifest(path));
        match there {
            Some((found, place)) if found == root => {
                self.ingest.reuse_manifest([(root, place)]);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Reads a file, once more if it changes meanwhile, and remembers what it held. The cache says what that is, not that
    /// it is stored, so nothing has to be waited for.
    fn read_file(&mut self, disk_path: &Path, progress: &dyn Progress) -> Result<Entry, PushError> {
        let mut attempts = 0;
        let (entry, stamp, started) = loop {
            attempts += 1;
            match self.read_once(disk_path, progress) {
                Err(ReadFileError::Read(ReadStableError::ChangedWhileRead(_))) if attempts == 1 => {}
                Err(ReadFileError::Read(error)) => return Err(error.into()),
                Err(ReadFileError::Push(error)) => return Err(error),
                Ok(read) => break read,
            }
        };
        if let Entry::File { executable, .. } = entry {
            self.cache.remember(self.dataset, disk_path, &stamp, executable, started, &entry);
        }
        Ok(entry)
    }

    fn read_once(
        &mut self,
        disk_path: &Path,
        progress: &dyn Progress,
    ) -> Result<(Entry, FileStamp, Timestamp), ReadFileError> {
        let started = wall_clock();
        let mut file = read_stable(disk_path)?;
        let executable = file.executable();
        let new_before = self.ingest.counts.bytes_new;
        let read = self.ingest.file(&mut file, |bytes| progress.advance(0, bytes))?;
        let stamp = file.finish()?;
        progress.fresh(self.ingest.counts.bytes_new - new_before);
        progress.advance(1, 0);
        let entry = Entry::File { executable, size: read.size, sha256: read.sha256, content: read.content };
        Ok((entry, stamp, started))
    }
}

/// Takes what a scan finds, in its order, while the scan goes on in a thread of its own.
fn ahead(
    mut scan: Scan<'_>,
    mut take: impl FnMut(Result<Scanned, ScanError>) -> Result<(), PushError>,
) -> Result<(), PushError> {
    let (found, batches) = sync_channel(BATCHES_AHEAD);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            loop {
                let batch: Vec<_> = scan.by_ref().take(BATCH_ENTRIES).collect();
                // Nobody listens any more when the push has failed.
                if batch.is_empty() || found.send(batch).is_err() {
                    break;
                }
            }
        });
        batches.into_iter().flatten().try_for_each(&mut take)
    })
}

/// The first path of a page or below it; an empty tree has none.
fn first_path(page: &TreePage) -> Option<&TreePath> {
    match page {
        TreePage::Leaf(entries) => entries.first().map(|(path, _)| path),
        TreePage::Inner { children, .. } => children.first().map(|child| &child.first),
    }
}

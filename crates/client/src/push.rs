//! Stores a folder as a dataset's next version.
//!
//! One blocking thread reads and seals ([`crate::ingest`]), a bounded number of tasks store closed segments
//! ([`crate::uploader`]), and the commit makes it one version ([`crate::commit`]). Whatever was stored before an
//! interruption is recorded, so running the same push again sends only what is missing.

use crate::commit::{self, Committed, NewTree};
use crate::dataset::{DatasetKeys, index_folder};
use crate::file_cache::FileCache;
use crate::glob::Filter;
use crate::ingest::{Counts, Ingest, Outlet, ReadFileError};
use crate::network::{Network, wall_clock};
use crate::progress::Progress;
use crate::reader::{ReadError, Reader};
use crate::scan::{
    CaseCollisions, FileStamp, ReadStableError, Scan, ScanError, Scanned, What, read_stable, survey,
};
use crate::snapshot::{Snapshot, SnapshotError};
use crate::uploader::{SharedBooks, Uploader, candidate};
use seedbank_catalog::index::{Index, IndexError};
use seedbank_catalog::records::{Contact, Dataset, LeaseId, Outcome, Provider, ProviderProfile};
use seedbank_catalog::{Books, CatalogError};
use seedbank_erasure::Scheme;
use seedbank_formats::head::SignHeadError;
use seedbank_formats::keys::SigningKey;
use seedbank_formats::layout::{ChildPlace, layout_id};
use seedbank_formats::path::TreePath;
use seedbank_formats::policy::Policy;
use seedbank_formats::seal::Compression;
use seedbank_formats::segment::{SealedSegment, SegmentBuilder};
use seedbank_formats::tree::{BuildError, Content, Entry, TreeBuilder, TreeRoot};
use seedbank_formats::version::SignVersionError;
use seedbank_formats::{ChunkId, PublicKey, SegmentNumber, Timestamp, VersionId};
use seedbank_protocol::messages::Accepting;
use seedbank_protocol::store_exchange::{StoreFailed, StoreFailure};
use seedbank_stewardship::placement::Unmet;
use seedbank_stewardship::scheme::ChooseSchemeError;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// A lease is renewed at every third of this, so that a push may stall for a while without losing it.
const LEASE_SECONDS: u64 = 30 * 60;

/// Segments that are coded or sent at once: one is sent while the next is coded. With the one being filled and one
/// waiting, memory is four segments of up to 64 MiB and two parities.
const SEGMENTS_UNDER_WAY: usize = 2;

/// A provider that does not answer a greeting in this time counts as down when the push begins.
const HELLO_PATIENCE: Duration = Duration::from_secs(3);

/// A push that meets collected segments forgets them and starts over; twice in a row is a fault.
const ATTEMPTS_MAX: u32 = 3;

/// What to push.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// A folder or a file.
    pub source: PathBuf,
    /// What to leave out.
    pub filter: Filter,
    /// The branch to move.
    pub branch: String,
    /// What changed.
    pub message: String,
    /// Whether files of unchanged size, times and inode are read all the same.
    pub rehash: Rehash,
    /// How new chunks are compressed.
    pub compression: Compression,
}

/// Whether to trust what is remembered of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rehash {
    /// Files that look unchanged are not read.
    Changed,
    /// Every file is read.
    All,
}

/// What a push works with.
pub struct PushContext {
    /// The owner's books.
    pub books: SharedBooks,
    /// The providers.
    pub network: Arc<Network>,
    /// Signs version and head.
    pub owner: SigningKey,
    /// The dataset's keys.
    pub keys: DatasetKeys,
    /// The dataset as the books have it.
    pub dataset: Dataset,
    /// The dataset's policy.
    pub policy: Policy,
    /// Folder of the deduplication indexes: one folder in it for each dataset.
    pub index_dir: PathBuf,
    /// Folder of the file cache.
    pub cache_dir: PathBuf,
}

/// What a push did.
#[derive(Debug, Clone)]
pub struct PushReport {
    /// The version; the branch's present one when nothing had changed.
    pub version: VersionId,
    /// Whether a version was made.
    pub made: Made,
    /// Entries of the tree.
    pub entries: u64,
    /// Bytes of all its files.
    pub bytes: u64,
    /// What was read and sealed.
    pub counts: Counts,
    /// Sealed bytes that this version added, metadata included, before coding.
    pub new_bytes: u64,
    /// The metadata's share of `new_bytes`.
    pub metadata_bytes: u64,
    /// Bytes that providers store for it, all together.
    pub stored_bytes: u64,
    /// Segments written.
    pub segments: u64,
    /// How segments are coded.
    pub scheme: Scheme,
    /// Fragments that found no holder yet; the steward completes them.
    pub missing: u64,
    /// Providers that hold something of it.
    pub holders: Vec<PublicKey>,
    /// Providers that disappointed.
    pub failures: BTreeMap<PublicKey, StoreFailure>,
    /// Providers that have the new head.
    pub heads: u64,
}

/// Whether a push made a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// A new one.
    Version,
    /// None: the tree is that of the branch's version.
    Nothing,
}

/// Why a push failed. What it stored so far is kept for the next run.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The folder can't be stored as it is.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A file can't be read, or keeps changing.
    #[error(transparent)]
    ReadFile(#[from] ReadStableError),
    /// A path is a file and a folder at once: the folder changed while it was walked.
    #[error(transparent)]
    Tree(#[from] BuildError),
    /// The books say no.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The deduplication index can't answer.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// There are too few providers for the scheme.
    #[error(transparent)]
    Scheme(#[from] ChooseSchemeError),
    /// There are too few providers that satisfy the policy.
    #[error(transparent)]
    Unmet(#[from] Unmet),
    /// Too few providers took a segment.
    #[error("segment {segment} could not be placed: {failed}")]
    NotPlaced {
        /// The segment.
        segment: SegmentNumber,
        /// Who failed, and how.
        #[source]
        failed: StoreFailed,
    },
    /// What is stored already can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The system gives no random numbers.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
    /// The version can't be signed as it is.
    #[error(transparent)]
    Version(#[from] SignVersionError),
    /// The head can't be signed.
    #[error(transparent)]
    Head(#[from] SignHeadError),
    /// More segments changed at once than one metadata segment can describe: push in parts.
    #[error("too many segments for one commit; push the folder in parts")]
    MapTooLarge,
    /// The branch's version can't be believed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// An item that a page refers to is not known: a fault of this program.
    #[error("item {0} has no place")]
    Unplaced(ChunkId),
    /// Another part of the push failed first, and tells why.
    #[error("the push was stopped")]
    Stopped,
}

/// Stores `options.source` as the next version on a branch.
///
/// # Errors
/// [`PushError`]. Running it again goes on where it stopped.
pub async fn push(
    context: &PushContext,
    options: &PushOptions,
    progress: Arc<dyn Progress>,
) -> Result<PushReport, PushError> {
    let (source, filter) = (options.source.clone(), options.filter.clone());
    let surveyed = tokio::task::spawn_blocking(move || survey(&source, &filter, CaseCollisions::Refuse));
    let survey = surveyed.await.map_err(|_| PushError::Stopped)??;
    if let Some(problem) = survey.problems.into_iter().next() {
        return Err(problem.into());
    }
    progress.total(survey.totals.files, survey.totals.bytes);
    let index =
        Arc::new(Index::open(&index_folder(&context.index_dir, &context.dataset.id), context.dataset.id)?);
    let mut attempt = 1;
    loop {
        match push_once(context, options, &index, &progress).await {
            Err(PushError::Catalog(CatalogError::SegmentGone { segments })) if attempt < ATTEMPTS_MAX => {
                attempt += 1;
                index.forget_segments(segments)?;
                FileCache::open(&context.cache_dir).forget_dataset(context.dataset.id);
            }
            result => return result,
        }
    }
}

async fn push_once(
    context: &PushContext,
    options: &PushOptions,
    index: &Arc<Index>,
    progress: &Arc<dyn Progress>,
) -> Result<PushReport, PushError> {
    let providers = greet(context).await?;
    let candidates = providers.iter().map(candidate).collect();
    let owner = format!("push of {} by process {}", options.source.display(), std::process::id());
    let (dataset, branch) = (context.dataset.id, options.branch.clone());
    let begun = context.books.begin_push(dataset, branch, owner, LEASE_SECONDS, 0)?;
    let lease = Lease { books: Arc::clone(&context.books), id: begun.lease };
    let keeper = lease.keep();
    let uploader = Arc::new(Uploader::new(
        Arc::clone(&context.books),
        Arc::clone(&context.network),
        Arc::clone(index),
        begun.lease,
        &context.keys,
        context.policy.clone(),
        candidates,
    )?);
    let read = ingest_all(context, options, &uploader, progress).await?;
    let parent = begun.parent.as_ref();
    let unchanged = match parent {
        Some(parent) => {
            let reader = Reader::of_books(&context.books, &context.network, &context.keys);
            let snapshot = Snapshot::open(&reader, parent.id, parent.version, parent.tree).await?;
            snapshot.version.tree.page == read.root.page
        }
        None => false,
    };
    let report = |version, made, committed: Option<Committed>| {
        let totals = uploader.totals();
        let (commit_bytes, heads) =
            committed.map_or((0, 0), |committed| (committed.sealed_bytes, committed.heads));
        let holders: std::collections::BTreeSet<PublicKey> =
            totals.segments.iter().flat_map(|segment| segment.holders().collect::<Vec<_>>()).collect();
        PushReport {
            version,
            made,
            entries: read.root.entries,
            bytes: read.root.bytes,
            counts: read.counts,
            new_bytes: read.counts.bytes_sealed + commit_bytes,
            metadata_bytes: read.counts.bytes_metadata + commit_bytes,
            stored_bytes: totals.bytes,
            segments: totals.segments.len() as u64,
            scheme: uploader.scheme(),
            missing: totals.missing,
            holders: holders.into_iter().collect(),
            failures: totals.failures,
            heads,
        }
    };
    if let (true, Some(parent)) = (unchanged, parent) {
        return Ok(report(parent.id, Made::Nothing, None));
    }
    let place = ChildPlace {
        page: index_place(&uploader, index, &read.root.page)?,
        layout: index_place(&uploader, index, &layout_id(&read.root.page))?,
    };
    let tree = NewTree { root: read.root, place, bytes_before: read.counts.bytes_sealed };
    let committed = commit::commit(context, &uploader, options, &tree, read.metadata).await?;
    drop(keeper);
    lease.forget();
    Ok(report(committed.version, Made::Version, Some(committed)))
}

/// A lease that ends when the push fails.
struct Lease {
    books: SharedBooks,
    id: LeaseId,
}

impl Lease {
    /// Renews the lease until the keeper is dropped.
    fn keep(&self) -> JoinSet<()> {
        let (books, id) = (Arc::clone(&self.books), self.id);
        let mut keeper = JoinSet::new();
        keeper.spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(LEASE_SECONDS / 3));
            ticks.tick().await;
            loop {
                ticks.tick().await;
                let books = Arc::clone(&books);
                let renewed = tokio::task::spawn_blocking(move || books.renew_lease(id, LEASE_SECONDS)).await;
                if let Ok(Err(error)) = renewed {
                    // The commit will say so if the lease is really lost.
                    tracing::warn!(%error, "push lease not renewed");
                }
            }
        });
        keeper
    }

    /// The commit has ended it.
    fn forget(mut self) {
        self.id = LeaseId(u64::MAX);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.id != LeaseId(u64::MAX)
            && let Err(error) = self.books.end_push(self.id)
        {
            tracing::warn!(%error, "push lease not ended; it runs out by itself");
        }
    }
}

/// Asks all providers who they are: what they say goes to the books, and who is silent is known to be down.
async fn greet(context: &PushContext) -> Result<Vec<Provider>, PushError> {
    let mut providers = context.books.providers()?;
    context.network.learn(providers.iter().map(|p| (&p.profile.key, p.profile.address.as_str())));
    let mut hellos = JoinSet::new();
    for key in providers.iter().map(|provider| provider.profile.key) {
        let network = Arc::clone(&context.network);
        hellos.spawn(async move {
            let began = std::time::Instant::now();
            let hello = tokio::time::timeout(HELLO_PATIENCE, network.hello(&key)).await;
            (key, hello.ok().and_then(Result::ok), began.elapsed())
        });
    }
    let mut contacts = Vec::new();
    while let Some(hello) = hellos.join_next().await {
        let Ok((key, hello, took)) = hello else { continue };
        let outcome = match &hello {
            Some(_) => Outcome::Answered { latency_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX) },
            None => Outcome::Failed,
        };
        contacts.push(Contact { provider: key, outcome });
        let Some(provider) = providers.iter_mut().find(|provider| provider.profile.key == key) else {
            continue;
        };
        match hello {
            Some(hello) => {
                provider.profile = ProviderProfile {
                    key,
                    address: provider.profile.address.clone(),
                    operator: hello.operator,
                    region: hello.region,
                    capacity_bytes: hello.capacity_bytes,
                    free_bytes: hello.free_bytes,
                    accepting: hello.accepting != Accepting::Nobody,
                };
                context.books.put_provider(provider.profile.clone())?;
            }
            None => context.network.presume_down(&key),
        }
    }
    context.books.record_contacts(contacts)?;
    Ok(providers)
}

/// What the reading thread leaves.
struct ReadAll {
    root: TreeRoot,
    metadata: Option<SegmentBuilder>,
    counts: Counts,
}

async fn ingest_all(
    context: &PushContext,
    options: &PushOptions,
    uploader: &Arc<Uploader>,
    progress: &Arc<dyn Progress>,
) -> Result<ReadAll, PushError> {
    let (closed, mut segments) = mpsc::channel::<SealedSegment>(1);
    let thread = {
        let outlet = Channel { uploader: Arc::clone(uploader), closed };
        let (keys, options, progress) = (context.keys.clone(), options.clone(), Arc::clone(progress));
        let (index, uploader) = (Arc::clone(&uploader.index), Arc::clone(uploader));
        let cache_dir = context.cache_dir.clone();
        tokio::task::spawn_blocking(move || {
            let overlay = Arc::clone(&uploader.overlay);
            let mut ingest = Ingest::new(keys.current(), options.compression, &index, overlay, outlet);
            let cache = FileCache::open(&cache_dir);
            let result = read_tree(&mut ingest, &keys, &options, cache, &*progress);
            let (root, files) = result?;
            ingest.close_data()?;
            let relied_on = ingest.relied_on().iter().copied().collect();
            uploader.books.use_segments(uploader.lease, relied_on)?;
            let read = ReadAll { root, counts: ingest.counts, metadata: ingest.take_metadata() };
            Ok::<_, PushError>((read, files))
        })
    };
    let slots = Arc::new(Semaphore::new(SEGMENTS_UNDER_WAY));
    let mut stores: JoinSet<Result<(), PushError>> = JoinSet::new();
    let mut failed = None;
    while let Some(segment) = segments.recv().await {
        let slot = Arc::clone(&slots).acquire_owned().await.map_err(|_closed| PushError::Stopped)?;
        while let Some(stored) = stores.try_join_next() {
            failed = failed.or(stored.unwrap_or(Err(PushError::Stopped)).err());
        }
        if failed.is_some() {
            break;
        }
        let uploader = Arc::clone(uploader);
        stores.spawn(async move {
            let _slot = slot;
            uploader.store(segment).await.map(|_placement| ())
        });
    }
    drop(segments);
    while let Some(stored) = stores.join_next().await {
        failed = failed.or(stored.unwrap_or(Err(PushError::Stopped)).err());
    }
    let read = thread.await.unwrap_or(Err(PushError::Stopped));
    if let Some(error) = failed {
        return Err(error);
    }
    let (read, files) = read?;
    files.remember(context);
    Ok(read)
}

/// Where the reading thread sends closed segments.
struct Channel {
    uploader: Arc<Uploader>,
    closed: mpsc::Sender<SealedSegment>,
}

impl Outlet for Channel {
    fn next_number(&mut self) -> Result<SegmentNumber, PushError> {
        self.uploader.next_number()
    }

    fn close(&mut self, segment: SealedSegment) -> Result<(), PushError> {
        self.closed.blocking_send(segment).map_err(|_ended| PushError::Stopped)
    }
}

/// Files that were read, to be remembered once everything that they need is stored.
#[derive(Default)]
struct FilesRead {
    files: Vec<(PathBuf, FileStamp, bool, Timestamp, Entry)>,
}

impl FilesRead {
    fn remember(self, context: &PushContext) {
        let mut cache = FileCache::open(&context.cache_dir);
        for (path, stamp, executable, started, entry) in self.files {
            cache.remember(context.dataset.id, &path, &stamp, executable, started, &entry);
        }
        cache.flush();
    }
}

fn read_tree<O: Outlet>(
    ingest: &mut Ingest<'_, O>,
    keys: &DatasetKeys,
    options: &PushOptions,
    mut cache: FileCache,
    progress: &dyn Progress,
) -> Result<(TreeRoot, FilesRead), PushError> {
    let mut builder = TreeBuilder::new();
    let mut read = FilesRead::default();
    for scanned in Scan::new(&options.source, &options.filter, CaseCollisions::Refuse)? {
        let Scanned { path, disk_path, what } = scanned?;
        let entry = match what {
            What::EmptyFolder => Entry::Folder,
            What::Symlink { target } => Entry::Symlink { target },
            What::File { stamp, executable } => {
                let known = match options.rehash {
                    Rehash::All => None,
                    Rehash::Changed => cache.lookup(keys.id, &disk_path, &stamp, executable),
                };
                match known {
                    Some(entry) if is_stored(ingest, &entry)? => {
                        ingest.counts.bytes_deduplicated += entry.size();
                        progress.advance(1, entry.size());
                        entry
                    }
                    _ => {
                        let (entry, stamp, started) = read_file(ingest, &disk_path, progress)?;
                        let executable = matches!(entry, Entry::File { executable: true, .. });
                        read.files.push((disk_path, stamp, executable, started, entry.clone()));
                        entry
                    }
                }
            }
        };
        add(&mut builder, ingest, &path, &entry)?;
    }
    let mut failed = None;
    let root = builder.finish(&mut |id, bytes: Vec<u8>| {
        if failed.is_none() {
            failed = ingest.tree_page(id, &bytes).err();
        }
    });
    failed.map_or(Ok((root, read)), Err)
}

fn add<O: Outlet>(
    builder: &mut TreeBuilder,
    ingest: &mut Ingest<'_, O>,
    path: &TreePath,
    entry: &Entry,
) -> Result<(), PushError> {
    let mut failed = None;
    builder.push(path, entry, &mut |id, bytes: Vec<u8>| {
        if failed.is_none() {
            failed = ingest.tree_page(id, &bytes).err();
        }
    })?;
    failed.map_or(Ok(()), Err)
}

/// Whether everything that a remembered entry needs is stored still.
fn is_stored<O: Outlet>(ingest: &mut Ingest<'_, O>, entry: &Entry) -> Result<bool, PushError> {
    let Entry::File { content, .. } = entry else { return Ok(false) };
    match content {
        // A manifest's chunks live as long as its pages do.
        Content::Manifest { root, .. } => {
            Ok(ingest.place(root)?.is_some() && ingest.place(&layout_id(root))?.is_some())
        }
        Content::Chunks(chunks) => {
            for chunk in chunks {
                if ingest.place(&chunk.id)?.is_none() {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}

/// Reads a file, once more if it changes meanwhile.
fn read_file<O: Outlet>(
    ingest: &mut Ingest<'_, O>,
    disk_path: &Path,
    progress: &dyn Progress,
) -> Result<(Entry, FileStamp, Timestamp), PushError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match read_file_once(ingest, disk_path, progress) {
            Err(ReadFileError::Read(ReadStableError::ChangedWhileRead(_))) if attempts == 1 => {}
            Err(ReadFileError::Read(error)) => return Err(error.into()),
            Err(ReadFileError::Push(error)) => return Err(error),
            Ok(read) => return Ok(read),
        }
    }
}

fn read_file_once<O: Outlet>(
    ingest: &mut Ingest<'_, O>,
    disk_path: &Path,
    progress: &dyn Progress,
) -> Result<(Entry, FileStamp, Timestamp), ReadFileError> {
    let started = wall_clock();
    let mut file = read_stable(disk_path)?;
    let executable = file.executable();
    let new_before = ingest.counts.bytes_new;
    let content = ingest.file(&mut file, |bytes| {
        progress.advance(0, bytes);
        Ok(())
    })?;
    let stamp = file.finish()?;
    progress.fresh(ingest.counts.bytes_new - new_before);
    progress.advance(1, 0);
    let entry =
        Entry::File { executable, size: content.size, sha256: content.sha256, content: content.content };
    Ok((entry, stamp, started))
}

fn index_place(
    uploader: &Uploader,
    index: &Index,
    id: &ChunkId,
) -> Result<seedbank_formats::place::Place, PushError> {
    let fresh = uploader.overlay.lock().unwrap_or_else(std::sync::PoisonError::into_inner).lookup(id);
    match fresh {
        Some(place) => Ok(place),
        None => index.lookup(id)?.ok_or(PushError::Unplaced(*id)),
    }
}

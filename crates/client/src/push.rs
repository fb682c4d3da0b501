//! Stores a folder as a dataset's next version.
//!
//! One blocking thread reads and seals ([`crate::intake`], [`crate::ingest`]), a bounded number of tasks store closed
//! segments ([`crate::uploader`]), and the commit makes it one version ([`crate::commit`]). Whatever was stored before an
//! interruption is recorded, so running the same push again sends only what is missing.

use crate::base::Base;
use crate::behind::{BehindError, Silence, check_newest};
use crate::commit::{self, NewTree};
use crate::dataset::DatasetKeys;
use crate::file_cache::FileCache;
use crate::glob::Filter;
use crate::ingest::{Counts, Filling, Ingest, Outlet};
use crate::intake::{Intake, TakenIn};
use crate::lease::Lease;
use crate::network::Network;
use crate::pay::AgreeError;
use crate::pay::payer::QuoteRefused;
use crate::progress::Progress;
use crate::reader::{ReadError, Reader};
use crate::reindex::open_index;
use crate::scan::{CaseCollisions, ReadStableError, ScanError, survey};
use crate::snapshot::SnapshotError;
use crate::uploader::{SharedBooks, Uploader, ask, candidate};
use seedbank_catalog::index::{Index, IndexError};
use seedbank_catalog::records::{Contact, Dataset, Outcome, Provider, ProviderProfile, VersionRecord};
use seedbank_catalog::{Books, CatalogError};
use seedbank_erasure::Scheme;
use seedbank_formats::checkpoint::RefName;
use seedbank_formats::head::SignHeadError;
use seedbank_formats::keys::SigningKey;
use seedbank_formats::path::TreePath;
use seedbank_formats::policy::Policy;
use seedbank_formats::seal::Compression;
use seedbank_formats::segment::{SEGMENT_BYTES_MAX, SealedSegment, SegmentBuilder};
use seedbank_formats::tree::BuildError;
use seedbank_formats::version::{MESSAGE_BYTES_MAX, SignVersionError};
use seedbank_formats::{ChunkId, PublicKey, SegmentNumber, VersionId};
use seedbank_protocol::messages::Accepting;
use seedbank_protocol::store_exchange::{StoreFailed, StoreFailure};
use seedbank_stewardship::placement::{Candidate, Intake as Taking, Unmet};
use seedbank_stewardship::scheme::ChooseSchemeError;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

/// Segments that are coded or sent at once: one is sent while the next is coded. With the one that is being filled and
/// the open metadata, a push takes less than 512 MiB.
const SEGMENTS_UNDER_WAY: usize = 2;

/// A provider that does not answer a greeting in this time counts as down when the push begins.
const HELLO_PATIENCE: Duration = Duration::from_secs(3);

/// How often a push begins anew when what it built on goes away under it. Each time somebody collected, compacted or
/// removed something in between; so often in a row is a fault.
const ATTEMPTS_MAX: u32 = 5;

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

/// Bytes that come once, such as standard input, and the file that they become.
pub struct Stream {
    /// The only path of the version.
    pub path: TreePath,
    /// Its bytes.
    pub bytes: Box<dyn Read + Send>,
}

/// Whether to trust what is remembered of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rehash {
    /// Files that look unchanged are not read.
    Changed,
    /// Every file is read.
    All,
}

/// How much a push may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushLimits {
    /// The longest segments, in bytes; [`SEGMENT_BYTES_MAX`] at most. Short ones take less memory and make more metadata.
    pub segment_bytes: usize,
}

impl Default for PushLimits {
    fn default() -> PushLimits {
        PushLimits { segment_bytes: SEGMENT_BYTES_MAX }
    }
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
    /// The books are an old copy.
    #[error(transparent)]
    Behind(#[from] BehindError),
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
    /// Too few providers signed for what they hold. What they hold stays for the next run.
    #[error("segment {segment} is not paid for by enough providers: {}", reasons(.refused))]
    Unsigned {
        /// The segment.
        segment: SegmentNumber,
        /// Who did not sign, and why.
        refused: BTreeMap<PublicKey, AgreeError>,
    },
    /// Providers can't be paid at all: there is no money, no chain, or no counter.
    #[error("providers can't be paid")]
    Pay(#[from] AgreeError),
    /// There would be enough providers if all of them could be paid.
    #[error("too few providers can be paid: {}", reasons(.refused))]
    Unpayable {
        /// Who can't, and why.
        refused: BTreeMap<PublicKey, QuoteRefused>,
        /// What is missing without them.
        #[source]
        source: Box<PushError>,
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
    /// More versions or refs changed at once than one metadata segment can list: half a million pages of them.
    #[error("too many versions or refs have changed for one commit")]
    ListTooLarge,
    /// The branch's version can't be believed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// An item that a page refers to is not known: a fault of this program.
    #[error("item {0} has no place")]
    Unplaced(ChunkId),
    /// The stream broke before its end, so that nobody knows what it would have been.
    #[error("reading the stream failed")]
    ReadStream(#[source] std::io::Error),
    /// Something that the push built on went away under it, and what was read can't be read again. Push it once more.
    #[error("the push has to begin anew, and a stream can be read only once: push it again")]
    StreamSpent,
    /// Another part of the push failed first, and tells why.
    #[error("the push was stopped")]
    Stopped,
}

/// Who did not do it, and why. Few of many say all.
fn reasons<E: std::fmt::Display>(refused: &BTreeMap<PublicKey, E>) -> String {
    const SHOWN_MAX: usize = 3;
    let shown: Vec<String> = refused
        .iter()
        .take(SHOWN_MAX)
        .map(|(provider, reason)| format!("provider {}: {reason}", &provider.to_string()[..8]))
        .collect();
    let more = refused.len().saturating_sub(SHOWN_MAX);
    if more == 0 { shown.join("; ") } else { format!("{}; and {more} more", shown.join("; ")) }
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
    push_within(context, options, PushLimits::default(), progress).await
}

/// The same within other limits than the usual ones.
///
/// # Errors
/// As [`push`].
pub async fn push_within(
    context: &PushContext,
    options: &PushOptions,
    limits: PushLimits,
    progress: Arc<dyn Progress>,
) -> Result<PushReport, PushError> {
    check(context, options)?;
    let (source, filter) = (options.source.clone(), options.filter.clone());
    let surveyed = tokio::task::spawn_blocking(move || survey(&source, &filter, CaseCollisions::Refuse));
    let survey = surveyed.await.map_err(|_| PushError::Stopped)??;
    if let Some(problem) = survey.problems.into_iter().next() {
        return Err(problem.into());
    }
    progress.total(survey.totals.files, survey.totals.bytes);
    attempts(context, options, limits, Input::Disk, progress).await
}

/// Stores one stream as the next version on a branch, in place of what is on a disk: `options.source` only tells people
/// where it came from. What an interrupted push has stored is found again when the same stream is pushed once more.
///
/// # Errors
/// [`PushError`].
pub async fn push_stream(
    context: &PushContext,
    options: &PushOptions,
    stream: Stream,
    progress: Arc<dyn Progress>,
) -> Result<PushReport, PushError> {
    check(context, options)?;
    let input = Input::Stream(Arc::new(Mutex::new(Some(stream))));
    attempts(context, options, PushLimits::default(), input, progress).await
}

/// Where bytes come from.
#[derive(Clone)]
enum Input {
    /// The source that the options name.
    Disk,
    /// A stream, for the first attempt that wants it.
    Stream(Arc<Mutex<Option<Stream>>>),
}

async fn attempts(
    context: &PushContext,
    options: &PushOptions,
    limits: PushLimits,
    input: Input,
    progress: Arc<dyn Progress>,
) -> Result<PushReport, PushError> {
    let mut candidates = greet(context).await?;
    let refused = quotes(context, &mut candidates).await?;
    let pushed = attempts_with(context, options, limits, input, progress, candidates).await;
    match pushed {
        Err(source @ (PushError::Unmet(_) | PushError::Scheme(_) | PushError::NotPlaced { .. }))
            if !refused.is_empty() =>
        {
            Err(PushError::Unpayable { refused, source: Box::new(source) })
        }
        pushed => pushed,
    }
}

async fn attempts_with(
    context: &PushContext,
    options: &PushOptions,
    limits: PushLimits,
    input: Input,
    progress: Arc<dyn Progress>,
    candidates: Vec<Candidate>,
) -> Result<PushReport, PushError> {
    // Before numbers are given out that newer books have given out already.
    check_newest(&context.books, &context.network, context.dataset.id, Silence::Tolerated).await?;
    let index = open_index(context).await?;
    let mut attempt = Attempt { context, options, limits, input, candidates, index, progress };
    // The lease of the attempt before keeps what that one has stored until this one has pinned it.
    let mut before: Option<Lease> = None;
    for attempts_left in (0..ATTEMPTS_MAX).rev() {
        let (lease, parent) = attempt.begin().await?;
        match attempt.run(&lease, parent).await {
            Ok(report) => {
                if report.made == Made::Version {
                    lease.forget();
                }
                return Ok(report);
            }
            Err(error) if attempts_left == 0 => return Err(error),
            Err(error) => attempt.index = attempt.forget(gone(error)?).await?,
        }
        drop(before.replace(lease));
    }
    unreachable!("the last attempt returns")
}

/// Refuses what could not be committed before anything is sent.
fn check(context: &PushContext, options: &PushOptions) -> Result<(), PushError> {
    context.policy.check().map_err(SignVersionError::from)?;
    branch_name(&options.branch)?;
    let bytes = options.message.len();
    if bytes > MESSAGE_BYTES_MAX {
        return Err(SignVersionError::MessageTooLong { bytes }.into());
    }
    Ok(())
}

pub(crate) fn branch_name(branch: &str) -> Result<RefName, PushError> {
    branch.parse().map_err(|_| {
        let reason = "a branch is 1 to 255 bytes without spaces and without @ : \\".to_owned();
        let name = branch.to_owned();
        CatalogError::InvalidName { name, reason }.into()
    })
}

/// The segments that the next attempt must do without. Fails with the error if beginning anew is no help.
fn gone(error: PushError) -> Result<Vec<SegmentNumber>, PushError> {
    match error {
        PushError::Catalog(CatalogError::SegmentGone { segments }) => Ok(segments),
        PushError::Catalog(CatalogError::NotDurable { segment, .. }) => Ok(vec![segment]),
        // What it was is no more, or where it was.
        PushError::Catalog(CatalogError::VersionGone { .. } | CatalogError::LeaseLost)
        | PushError::Unplaced(_) => Ok(Vec::new()),
        error => Err(error),
    }
}

/// What one run over the source works with.
struct Attempt<'a> {
    context: &'a PushContext,
    options: &'a PushOptions,
    limits: PushLimits,
    input: Input,
    candidates: Vec<Candidate>,
    index: Arc<Index>,
    progress: Arc<dyn Progress>,
}

impl Attempt<'_> {
    async fn begin(&self) -> Result<(Lease, Option<VersionRecord>), PushError> {
        let PushContext { books, network, dataset, .. } = self.context;
        let owner = format!("push of {} by process {}", self.options.source.display(), std::process::id());
        Lease::begin(books, network, dataset.id, self.options.branch.clone(), owner).await
    }

    async fn forget(&self, segments: Vec<SegmentNumber>) -> Result<Arc<Index>, PushError> {
        tracing::info!(?segments, "something that the push built on is gone, it begins anew");
        let index = Arc::clone(&self.index);
        let forgotten = tokio::task::spawn_blocking(move || {
            // Even without any: another process may have moved or forgotten items.
            index.forget_segments(segments).map(|()| index)
        });
        Ok(forgotten.await.map_err(|_ended| PushError::Stopped)??)
    }

    async fn run(&self, lease: &Lease, parent: Option<VersionRecord>) -> Result<PushReport, PushError> {
        let context = self.context;
        let uploader = Uploader::new(
            Arc::clone(&context.books),
            Arc::clone(&context.network),
            Arc::clone(&self.index),
            lease.id(),
            &context.keys,
            context.policy.clone(),
            self.candidates.clone(),
        )?;
        let uploader = Arc::new(uploader.with_segments_of(self.limits.segment_bytes));
        let base = self.base(parent.as_ref()).await?;
        let read = self.read(&uploader, base).await?;
        let TakenIn { root, place, base, relies_on } = read.tree;
        let is_same =
            |_: &&VersionRecord| base.as_ref().is_some_and(|base| base.is_same(root.page, &context.policy));
        let (version, made, committed) = match parent.as_ref().filter(is_same) {
            Some(parent) => (parent.id, Made::Nothing, None),
            None => {
                let bytes_before = read.counts.bytes_sealed;
                let tree = NewTree { root, place, relies_on, bytes_before };
                let committed =
                    commit::commit(context, &uploader, self.options, &tree, read.metadata).await?;
                (committed.version, committed.made, Some(committed))
            }
        };
        let totals = uploader.totals();
        let commit_bytes = committed.as_ref().map_or(0, |committed| committed.sealed_bytes);
        Ok(PushReport {
            version,
            made,
            entries: root.entries,
            bytes: root.bytes,
            counts: read.counts,
            new_bytes: read.counts.bytes_sealed + commit_bytes,
            metadata_bytes: read.counts.bytes_metadata + commit_bytes,
            stored_bytes: totals.bytes,
            segments: totals.segments,
            scheme: uploader.scheme(),
            missing: totals.missing,
            holders: totals.holders.into_iter().collect(),
            failures: totals.failures,
            heads: committed.map_or(0, |committed| committed.heads),
        })
    }

    /// The version whose pages may be used again: the branch's, or for a new branch the dataset's newest.
    async fn base(&self, parent: Option<&VersionRecord>) -> Result<Option<Base>, PushError> {
        let PushContext { books, network, keys, dataset, .. } = self.context;
        let dataset = dataset.id;
        let record = match parent {
            Some(parent) => Some(parent.clone()),
            None => ask(books, move |books| books.versions(dataset, None, 1)).await?.pop(),
        };
        let Some(record) = record else { return Ok(None) };
        match Base::open(Reader::of_books(books, network, keys), &record, Handle::current()).await {
            Ok(base) => Ok(Some(base)),
            // It may be damaged for good, and then a new version is what is needed most.
            Err(error) => {
                tracing::warn!(version = %record.id, %error, "version before not read, all its metadata is written anew");
                Ok(None)
            }
        }
    }

    /// Reads the source, and stores the segments that fill up meanwhile.
    async fn read(&self, uploader: &Arc<Uploader>, base: Option<Base>) -> Result<ReadAll, PushError> {
        let slots = Arc::new(Semaphore::new(SEGMENTS_UNDER_WAY));
        let (closed, mut segments) = mpsc::channel(SEGMENTS_UNDER_WAY);
        let outlet = Channel {
            uploader: Arc::clone(uploader),
            slots: Arc::clone(&slots),
            closed,
            runtime: Handle::current(),
        };
        let thread = self.reading(uploader, base, outlet);
        let mut stores: JoinSet<Result<(), PushError>> = JoinSet::new();
        let mut failed = None;
        while failed.is_none() {
            let (segment, slot) = tokio::select! {
                Some(stored) = stores.join_next() => {
                    failed = stored.unwrap_or(Err(PushError::Stopped)).err();
                    continue;
                }
                closed = segments.recv() => match closed {
                    Some(closed) => closed,
                    None => break,
                }
            };
            let uploader = Arc::clone(uploader);
            stores.spawn(async move {
                let _slot: OwnedSemaphorePermit = slot;
                uploader.store(segment).await.map(|_placement| ())
            });
        }
        // The thread notices at its next block that nobody waits for it.
        slots.close();
        drop(segments);
        while let Some(stored) = stores.join_next().await {
            failed = failed.or(stored.unwrap_or(Err(PushError::Stopped)).err());
        }
        let read = thread.await.unwrap_or(Err(PushError::Stopped));
        failed.map_or(read, Err)
    }

    /// The thread that reads.
    fn reading(
        &self,
        uploader: &Arc<Uploader>,
        base: Option<Base>,
        outlet: Channel,
    ) -> tokio::task::JoinHandle<Result<ReadAll, PushError>> {
        let filling =
            Filling { compression: self.options.compression, segment_bytes: uploader.segment_bytes() };
        let (keys, options, progress) =
            (self.context.keys.clone(), self.options.clone(), Arc::clone(&self.progress));
        let (index, overlay) = (Arc::clone(&self.index), Arc::clone(&uploader.overlay));
        let (cache_dir, input) = (self.context.cache_dir.clone(), self.input.clone());
        tokio::task::spawn_blocking(move || {
            let ingest = Ingest::new(keys.current(), filling, &index, overlay, outlet);
            let cache = FileCache::open(&cache_dir);
            let mut intake = Intake::new(ingest, keys.id, base, cache, options.rehash, &*progress);
            let tree = match input {
                Input::Disk => intake.take_in(&options)?,
                Input::Stream(stream) => {
                    let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
                    intake.take_in_stream(stream.ok_or(PushError::StreamSpent)?)?
                }
            };
            let mut ingest = intake.ingest;
            ingest.close_data()?;
            ingest.pin()?;
            Ok(ReadAll { tree, counts: ingest.counts, metadata: ingest.take_metadata() })
        })
    }
}

/// What the reading thread leaves.
struct ReadAll {
    tree: TakenIn,
    metadata: Option<SegmentBuilder>,
    counts: Counts,
}

/// Where the reading thread sends closed segments.
struct Channel {
    uploader: Arc<Uploader>,
    slots: Arc<Semaphore>,
    closed: mpsc::Sender<(SealedSegment, OwnedSemaphorePermit)>,
    runtime: Handle,
}

impl Outlet for Channel {
    fn next_number(&mut self) -> Result<SegmentNumber, PushError> {
        self.uploader.next_number()
    }

    fn buffer(&mut self) -> Vec<u8> {
        self.uploader.buffers.segment()
    }

    fn close(&mut self, segment: SealedSegment) -> Result<(), PushError> {
        // Waits here, with the segment that is full, so that no other is filled meanwhile.
        let slot = self.runtime.block_on(Arc::clone(&self.slots).acquire_owned());
        let slot = slot.map_err(|_closed| PushError::Stopped)?;
        self.closed.blocking_send((segment, slot)).map_err(|_ended| PushError::Stopped)
    }

    fn pin(&mut self, segments: Vec<SegmentNumber>) -> Result<(), PushError> {
        Ok(self.uploader.books.use_segments(self.uploader.lease, segments)?)
    }

    fn check(&self) -> Result<(), PushError> {
        if self.closed.is_closed() { Err(PushError::Stopped) } else { Ok(()) }
    }
}

/// Asks all providers that are there what they want to be paid, where they are paid; those that can't be get nothing.
async fn quotes(
    context: &PushContext,
    candidates: &mut [Candidate],
) -> Result<BTreeMap<PublicKey, QuoteRefused>, PushError> {
    let mut refused = BTreeMap::new();
    let Some(payer) = context.network.payer() else { return Ok(refused) };
    let mut asked = JoinSet::new();
    for candidate in candidates.iter().filter(|candidate| candidate.intake == Taking::Open) {
        let (payer, network, provider) =
            (Arc::clone(payer), Arc::clone(&context.network), candidate.provider);
        if network.is_down(&provider) {
            continue;
        }
        asked.spawn(async move { (provider, payer.payee(&network, &provider).await) });
    }
    while let Some(answer) = asked.join_next().await {
        let (provider, answer) = answer.map_err(|_ended| PushError::Stopped)?;
        let Err(error) = answer else { continue };
        if matches!(error, QuoteRefused::Chain(_)) {
            return Err(AgreeError::from(error).into());
        }
        context.network.refused(&provider, error.to_string());
        for candidate in candidates.iter_mut().filter(|candidate| candidate.provider == provider) {
            candidate.intake = Taking::Closed;
        }
        refused.insert(provider, error);
    }
    Ok(refused)
}

/// Asks all providers who they are: what they say goes to the books, and who is silent is known to be down.
async fn greet(context: &PushContext) -> Result<Vec<Candidate>, PushError> {
    let mut providers: Vec<Provider> = ask(&context.books, |books| books.providers()).await?;
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
    let (mut contacts, mut heard) = (Vec::new(), Vec::new());
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
                heard.push(provider.profile.clone());
            }
            None => context.network.presume_down(&key),
        }
    }
    ask(&context.books, move |books| {
        heard.into_iter().try_for_each(|profile| books.hear_provider(profile))?;
        books.record_contacts(contacts)?;
        // Names are resolved here, where waiting holds nobody up.
        Ok(providers.iter().map(candidate).collect())
    })
    .await
}

//! Makes an owner's books again from what providers hold: one dataset from its head, all of them from the home dataset.
//!
//! Everything of a dataset is read before the books hear of any of it. It waits meanwhile in an unlinked file ([`Spool`]),
//! so memory stays bounded, and a recovery that breaks off leaves no half-known dataset that a push could build on. Any of
//! it may be done again: the books keep what they have.
//!
//! What the network doesn't say is not recovered: when claims end (all are renewed), what providers did in the past, and
//! the file cache. A dataset of which something is lost is recovered without it, and the report says so.

mod footers;
mod map;
mod owner;
mod spool;

pub use owner::{
    DatasetOutcome, FindHeadError, RecoverOneError, RecoverOwnerError, RecoveredOwner, recover_owner,
};

use crate::dataset::{Visibility, index_folder};
use crate::heads::{ListPage, ListedVersion, OpenedHead, refs_of, versions_of};
use crate::home_dataset::policy_bytes;
use crate::reader::ReadError;
use crate::snapshot::{Snapshot, SnapshotError};
use crate::uploader::SharedBooks;
use map::{MapPage, MapWalk};
use seedbank_catalog::index::IndexError;
use seedbank_catalog::records::{
    Counts, Dataset, HeadRecord, NumberedList, NumberedPage, RefRecord, Restoration, VersionRecord,
};
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::{DatasetId, PublicKey, SegmentNumber, Timestamp, VersionId};
use spool::Spool;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::JoinSet;

/// Signed versions that are read at once: each lies in a metadata segment of its own.
const VERSIONS_AT_ONCE: usize = 8;

/// Why a dataset could not be recovered. The books know nothing of it then, or all of it; run it again.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A page of the map or of a list can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The books say no; [`CatalogError::NameTaken`] when another dataset has the name.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The deduplication index can't be written.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// What was read could not be kept until all is: look at the folder and its disk.
    #[error("can't use a temporary file in {}", path.display())]
    Disk {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The process is ending.
    #[error("recovery was stopped")]
    Stopped,
}

/// A dataset that is in the books again.
#[derive(Debug)]
pub struct Recovered {
    /// The dataset.
    pub dataset: DatasetId,
    /// Its name in the books.
    pub name: String,
    /// The sequence of the head that it was recovered from.
    pub sequence: u64,
    /// Versions.
    pub versions: u64,
    /// Branches and tags.
    pub refs: u64,
    /// Segments.
    pub segments: u64,
    /// Versions whose signed bytes can't be read or believed. They are in the books, without message and time.
    pub unread_versions: BTreeMap<VersionId, SnapshotError>,
    /// Segments whose footers can't be read. The next push may store again what they hold.
    pub unread_segments: Vec<SegmentNumber>,
    /// Everyone who holds something of it.
    pub holders: BTreeSet<PublicKey>,
}

/// Reads everything of a dataset but its data, and makes its books and its index from that. The books call it `name`.
///
/// # Errors
/// [`RecoverError`].
pub async fn recover_dataset(
    books: &SharedBooks,
    opened: &OpenedHead,
    name: &str,
    index_dir: &Path,
) -> Result<Recovered, RecoverError> {
    let mut collected = Collected::new(opened, name, Spool::create(index_dir)?);
    collected.locator()?;
    collected.map().await?;
    collected.versions().await?;
    collected.refs().await?;
    collected.head()?;
    let Collected { dataset, spool, mut recovered, .. } = collected;
    let folder = index_folder(index_dir, &recovered.dataset);
    recovered.unread_segments = footers::rebuild_index(opened, &folder).await?;
    let holders = opened.head().holders().to_vec();
    restore(books, dataset, spool, holders, recovered.sequence, index_dir.to_owned()).await?;
    Ok(recovered)
}

/// Tells the books what was read, and which providers have the head.
async fn restore(
    books: &SharedBooks,
    dataset: Dataset,
    spool: Spool,
    holders: Vec<PublicKey>,
    sequence: u64,
    index_dir: PathBuf,
) -> Result<(), RecoverError> {
    let books = Arc::clone(books);
    let restored = tokio::task::spawn_blocking(move || {
        let id = dataset.id;
        let _turn =
            recovery_turn(&index_dir).map_err(|source| RecoverError::Disk { path: index_dir, source })?;
        // When it was made is known only once all versions are read.
        spool.replay(|part| books.restore(Restoration { dataset: dataset.clone(), ..part }))?;
        holders.into_iter().try_for_each(|holder| books.mark_published(id, sequence, holder))?;
        Ok(())
    });
    restored.await.map_err(|_ended| RecoverError::Stopped)?
}

/// Waits until no other recovery tells these books anything: one that begins drops what another has told so far.
fn recovery_turn(index_dir: &Path) -> std::io::Result<File> {
    let path = index_dir.join("recovery.lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.lock()?;
    Ok(file)
}

/// What was read of a dataset so far.
struct Collected<'a> {
    opened: &'a OpenedHead,
    dataset: Dataset,
    counts: Counts,
    spool: Spool,
    segments: BTreeSet<SegmentNumber>,
    recovered: Recovered,
}

impl Collected<'_> {
    fn new<'a>(opened: &'a OpenedHead, name: &str, spool: Spool) -> Collected<'a> {
        let (checkpoint, keys, head) = (opened.checkpoint(), opened.reader().keys(), opened.head().head());
        let dataset = Dataset {
            id: keys.id,
            name: name.to_owned(),
            salt: keys.salt,
            owner: keys.owner,
            epoch: keys.epoch.max(checkpoint.epoch),
            public: keys.visibility == Visibility::Public,
            policy: policy_bytes(&checkpoint.policy),
            created: head.time(),
        };
        let counts = Counts {
            segments: checkpoint.next_segment.0,
            versions: checkpoint.version_count,
            refs: checkpoint.ref_count,
        };
        let recovered = Recovered {
            dataset: keys.id,
            name: name.to_owned(),
            sequence: head.sequence(),
            versions: 0,
            refs: 0,
            segments: 0,
            unread_versions: BTreeMap::new(),
            unread_segments: Vec::new(),
            holders: BTreeSet::new(),
        };
        Collected { opened, dataset, counts, spool, segments: BTreeSet::new(), recovered }
    }

    /// Keeps one part for the books.
    fn keep(&mut self, fill: impl FnOnce(&mut Restoration)) -> Result<(), RecoverError> {
        let mut part = Restoration {
            dataset: self.dataset.clone(),
            counts: self.counts,
            begins: None,
            segments: Vec::new(),
            versions: Vec::new(),
            refs: Vec::new(),
            pages: Vec::new(),
            head: None,
        };
        fill(&mut part);
        self.spool.push(&part)
    }

    fn count_segments(&mut self, segments: &[SegmentPlacement]) {
        self.recovered.segments += segments.len() as u64;
        self.recovered.holders.extend(segments.iter().flat_map(SegmentPlacement::holders));
    }

    /// The head's own segments. They come first, and begin the restoration: of a segment that the map lists too, the head knows better.
    fn locator(&mut self) -> Result<(), RecoverError> {
        let segments = self.opened.body().locator.clone();
        self.segments.extend(segments.iter().map(|segment| segment.number));
        self.count_segments(&segments);
        let sequence = self.recovered.sequence;
        self.keep(|part| (part.begins, part.segments) = (Some(sequence), segments))
    }

    async fn map(&mut self) -> Result<(), RecoverError> {
        let mut walk = MapWalk::new(self.opened);
        while let Some(MapPage { page, mut segments }) = walk.next().await? {
            segments.retain(|segment| !self.segments.contains(&segment.number));
            self.count_segments(&segments);
            self.keep(|part| (part.segments, part.pages) = (segments, vec![page]))?;
        }
        Ok(())
    }

    async fn versions(&mut self) -> Result<(), RecoverError> {
        let mut walk = self.opened.version_walk(u64::MAX);
        while let Some(page) = walk.next().await? {
            let listed = versions_of(&page)?;
            let mut versions = Vec::with_capacity(listed.len());
            for listed in listed.chunks(VERSIONS_AT_ONCE) {
                for (listed, snapshot) in snapshots(self.opened, listed).await? {
                    versions.push(self.version(&listed, snapshot));
                }
            }
            self.recovered.versions += versions.len() as u64;
            let page = numbered(NumberedList::Versions, &page);
            self.keep(|part| (part.versions, part.pages) = (versions, vec![page]))?;
        }
        Ok(())
    }

    /// The books' record of a version. What can't be read now must not be forgotten: it may be readable tomorrow.
    fn version(
        &mut self,
        listed: &ListedVersion,
        snapshot: Result<Snapshot, SnapshotError>,
    ) -> VersionRecord {
        let record = listed.record;
        let (time, message) = match snapshot {
            Ok(snapshot) => {
                self.dataset.created = self.dataset.created.min(snapshot.version.time);
                (snapshot.version.time, snapshot.version.message)
            }
            Err(error) => {
                self.recovered.unread_versions.insert(record.id, error);
                (Timestamp(0), String::new())
            }
        };
        VersionRecord {
            ordinal: listed.ordinal,
            id: record.id,
            version: record.version,
            tree: record.tree,
            new_bytes: record.new_bytes,
            stored_bytes: record.stored_bytes,
            time,
            message,
        }
    }

    async fn refs(&mut self) -> Result<(), RecoverError> {
        let mut walk = self.opened.ref_walk();
        while let Some(page) = walk.next().await? {
            let refs: Vec<RefRecord> = refs_of(&page)?
                .into_iter()
                .map(|listed| RefRecord {
                    slot: listed.slot,
                    name: listed.record.name.to_string(),
                    kind: listed.record.kind,
                    version: listed.record.version,
                })
                .collect();
            self.recovered.refs += refs.len() as u64;
            let page = numbered(NumberedList::Refs, &page);
            self.keep(|part| (part.refs, part.pages) = (refs, vec![page]))?;
        }
        Ok(())
    }

    fn head(&mut self) -> Result<(), RecoverError> {
        let head = HeadRecord {
            sequence: self.recovered.sequence,
            bytes: self.opened.head().bytes().to_vec(),
            segments: self.segments.iter().copied().collect(),
        };
        self.keep(|part| part.head = Some(head))
    }
}

fn numbered(list: NumberedList, page: &ListPage) -> NumberedPage {
    NumberedPage { list, level: page.at.level, page: page.at.page, link: page.link }
}

/// Reads and checks versions, in any order.
async fn snapshots(
    opened: &OpenedHead,
    listed: &[ListedVersion],
) -> Result<Vec<(ListedVersion, Result<Snapshot, SnapshotError>)>, RecoverError> {
    let mut reads = JoinSet::new();
    for listed in listed.iter().copied() {
        let reader = Arc::clone(opened.reader());
        reads.spawn(async move {
            let record = listed.record;
            (listed, Snapshot::open(&reader, record.id, record.version, record.tree).await)
        });
    }
    let mut snapshots = Vec::with_capacity(listed.len());
    while let Some(read) = reads.join_next().await {
        snapshots.push(read.map_err(|_ended| RecoverError::Stopped)?);
    }
    Ok(snapshots)
}

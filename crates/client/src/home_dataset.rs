//! The owner's list of datasets, which is itself a dataset: the *home dataset*, private, with the salt of all zeros.
//!
//! Its id follows from the owner's key alone, so a recovery phrase and one provider's address find it, and from it all
//! the others. Its tree has one small file a dataset. It is pushed like any dataset, by the same code: what is special is
//! only the name under which the books hold it, and what its files say. `docs/formats/home.md` draws them.

use crate::dataset::{DatasetKeys, Visibility};
use crate::glob::Filter;
use crate::heads::{OpenedHead, ResolveError};
use crate::progress::Silent;
use crate::push::{PushContext, PushError, PushOptions, PushReport, Rehash, push};
use crate::reader::{ReadError, Reader, Wanted};
use crate::snapshot::SnapshotError;
use crate::uploader::SharedBooks;
use crate::walk::{EntryWalk, LocatedChunk, LocatedEntry};
use seedbank_catalog::records::Dataset;
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::checkpoint::NAME_BYTES_MAX;
use seedbank_formats::codec::{DecodeError, Reader as Decoder, Writer};
use seedbank_formats::keys::{DatasetSecret, KeyEpoch, dataset_id};
use seedbank_formats::path::TreePath;
use seedbank_formats::policy::Policy;
use seedbank_formats::seal::Compression;
use seedbank_formats::{DatasetId, PublicKey, Timestamp};
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The name under which the books hold the home dataset. Lists for people leave it out, and nothing else may have it.
pub const HOME_DATASET_NAME: &str = ".home";

/// The salt of every owner's home dataset.
pub const HOME_DATASET_SALT: [u8; 32] = [0; 32];

/// Whoever revoked readers so often should have made a new dataset: all epochs' keys are derived to read one.
pub const EPOCHS_MAX: KeyEpoch = KeyEpoch(4096);

const MAGIC: &[u8; 4] = b"SBHR";
const FORMAT_VERSION: u8 = 1;
const FORMAT: &str = "home record";

/// Above what a record with the longest name takes.
const RECORD_BYTES_MAX: u64 = 1024;

const BRANCH: &str = "main";

/// Somebody else may change the list while it is pushed so often; each time it is pushed again.
const ATTEMPTS_MAX: u32 = 8;

/// Files of the list that are read with one batch of requests.
const FILES_AT_ONCE: usize = 64;

/// What the list says of one dataset: enough to find it and to derive its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeRecord {
    /// The dataset, which owner and salt name.
    pub dataset: DatasetId,
    /// What makes its id together with the owner's key.
    pub salt: [u8; 32],
    /// What its owner calls it.
    pub name: String,
    /// Whether its key is published.
    pub visibility: Visibility,
    /// The key epoch of new data. A head may know a later one.
    pub epoch: KeyEpoch,
}

impl HomeRecord {
    /// The record of a dataset of the books.
    #[must_use]
    pub fn of(dataset: &Dataset) -> HomeRecord {
        HomeRecord {
            dataset: dataset.id,
            salt: dataset.salt,
            name: dataset.name.clone(),
            visibility: if dataset.public { Visibility::Public } else { Visibility::Private },
            epoch: dataset.epoch,
        }
    }

    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::format(MAGIC, FORMAT_VERSION);
        writer.raw(self.dataset.as_bytes());
        writer.raw(&self.salt);
        writer.str(&self.name);
        writer.bool(self.visibility == Visibility::Public);
        writer.u32(self.epoch.0);
        writer.finish()
    }

    /// Reads the record of a dataset of `owner`.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are no record, or one of somebody else's dataset.
    pub fn decode(bytes: &[u8], owner: &PublicKey) -> Result<HomeRecord, DecodeError> {
        let mut reader = Decoder::format(FORMAT, MAGIC, FORMAT_VERSION, bytes)?;
        let dataset = DatasetId(reader.array()?);
        let salt = reader.array()?;
        let name = reader.str("the name", NAME_BYTES_MAX)?.to_owned();
        let visibility = if reader.bool()? { Visibility::Public } else { Visibility::Private };
        let epoch = KeyEpoch(reader.u32()?);
        if name.is_empty() || name.contains(char::is_control) {
            return Err(reader.invalid("a text can't name a dataset"));
        }
        if epoch > EPOCHS_MAX {
            let (found, limit) = (u64::from(epoch.0), u64::from(EPOCHS_MAX.0));
            return Err(DecodeError::OverLimit { format: FORMAT, field: "the key epoch", found, limit });
        }
        if dataset_id(owner, &salt) != dataset {
            return Err(reader.invalid("owner and salt name another dataset"));
        }
        reader.finish()?;
        Ok(HomeRecord { dataset, salt, name, visibility, epoch })
    }

    /// The name of its file in the list.
    #[must_use]
    pub fn file_name(&self) -> String {
        self.dataset.to_string()
    }
}

/// The keys of one of an owner's datasets up to `epoch`: `secret` derives a private one's, a public one's are published.
#[must_use]
pub fn owner_keys(
    owner: &PublicKey,
    salt: [u8; 32],
    visibility: Visibility,
    epoch: KeyEpoch,
    secret: impl Fn(&DatasetId, KeyEpoch) -> DatasetSecret,
) -> DatasetKeys {
    let id = dataset_id(owner, &salt);
    let secret = |epoch| match visibility {
        Visibility::Public => DatasetSecret::published(&id),
        Visibility::Private => secret(&id, epoch),
    };
    let secrets = (0..=epoch.0).map(KeyEpoch).map(|epoch| (epoch, secret(epoch))).collect();
    DatasetKeys::new(id, *owner, salt, visibility, secrets).expect("there is at least epoch 0")
}

/// The id of an owner's home dataset.
#[must_use]
pub fn home_dataset_id(owner: &PublicKey) -> DatasetId {
    dataset_id(owner, &HOME_DATASET_SALT)
}

/// An owner's home dataset in the books; made when it is not there yet.
///
/// # Errors
/// As [`Books::create_dataset`]; [`CatalogError::NameTaken`] when another dataset has its name.
pub fn ensure(books: &SharedBooks, owner: PublicKey, now: Timestamp) -> Result<Dataset, CatalogError> {
    let id = home_dataset_id(&owner);
    match books.dataset(id.to_string()) {
        Err(CatalogError::NoSuchDataset { .. }) => {}
        found => return found,
    }
    let dataset = Dataset {
        id,
        name: HOME_DATASET_NAME.to_owned(),
        salt: HOME_DATASET_SALT,
        owner,
        epoch: KeyEpoch(0),
        public: false,
        policy: policy_bytes(&Policy::default()),
        created: now,
    };
    match books.create_dataset(dataset.clone()) {
        Ok(()) => Ok(dataset),
        // Somebody else was quicker, or has the name for something else.
        Err(taken @ CatalogError::NameTaken { .. }) => books.dataset(id.to_string()).map_err(|_| taken),
        Err(error) => Err(error),
    }
}

/// A policy as the books keep it.
pub(crate) fn policy_bytes(policy: &Policy) -> Vec<u8> {
    serde_json::to_vec(policy).expect("a policy has string keys and no failing parts")
}

/// Why the list could not be published. Nothing else failed: a later publication says it all again.
#[derive(Debug, thiserror::Error)]
pub enum PublishListError {
    /// The books can't be asked.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The list could not be pushed.
    #[error(transparent)]
    Push(#[from] PushError),
    /// The list could not be written out to be pushed: look at the folder and its disk.
    #[error("can't use {}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Others keep changing the list: what they publish in the end says everything.
    #[error("the list of datasets changed too often while it was published")]
    Busy,
    /// The process is ending.
    #[error("publishing was stopped")]
    Stopped,
}

/// Makes the list as the books have it the home dataset's newest version. `context` is that of the home dataset
/// ([`ensure`]). Call it after a dataset was made, renamed or removed, or got another key epoch.
///
/// # Errors
/// [`PublishListError`].
pub async fn publish_list(context: &PushContext) -> Result<PushReport, PublishListError> {
    let mut list = list_of(context).await?;
    for _ in 0..ATTEMPTS_MAX {
        let report = push_list(context, &list).await?;
        // Of two who publish at once the second to commit may have read the books first: so each looks again.
        let now = list_of(context).await?;
        if now == list {
            return Ok(report);
        }
        list = now;
    }
    Err(PublishListError::Busy)
}

async fn list_of(context: &PushContext) -> Result<Vec<HomeRecord>, PublishListError> {
    let (books, home) = (Arc::clone(&context.books), context.dataset.clone());
    let asked = tokio::task::spawn_blocking(move || books.datasets()).await;
    Ok(records_of(&home, &asked.map_err(|_ended| PublishListError::Stopped)??))
}

/// The records of the datasets that belong into the list: the owner's, without the home dataset itself.
fn records_of(home: &Dataset, datasets: &[Dataset]) -> Vec<HomeRecord> {
    let mine = datasets.iter().filter(|dataset| dataset.owner == home.owner && dataset.id != home.id);
    mine.map(HomeRecord::of).collect()
}

async fn push_list(context: &PushContext, list: &[HomeRecord]) -> Result<PushReport, PublishListError> {
    let (scratch_dir, list) = (context.cache_dir.clone(), list.to_vec());
    let written = tokio::task::spawn_blocking(move || Scratch::write(&scratch_dir, &list)).await;
    let scratch = written.map_err(|_ended| PublishListError::Stopped)??;
    let options = PushOptions {
        source: scratch.list(),
        filter: Filter::default(),
        branch: BRANCH.to_owned(),
        message: String::new(),
        rehash: Rehash::All,
        compression: Compression::Auto,
    };
    let context = PushContext {
        books: Arc::clone(&context.books),
        network: Arc::clone(&context.network),
        owner: context.owner.clone(),
        keys: context.keys.clone(),
        dataset: context.dataset.clone(),
        policy: context.policy.clone(),
        index_dir: context.index_dir.clone(),
        // These files are gone in a moment: nobody needs to remember them.
        cache_dir: scratch.folder.clone(),
    };
    Ok(push(&context, &options, Arc::new(Silent)).await?)
}

/// A folder that holds the list while it is pushed. Names of datasets are private, so only the owner reads it.
#[derive(Debug)]
struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    fn write(dir: &Path, list: &[HomeRecord]) -> Result<Scratch, PublishListError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = dir.join(format!(".list-{}-{number}", std::process::id()));
        let scratch = Scratch { folder };
        // A process that died may have had our number.
        scratch.remove();
        scratch.make_folder(&scratch.folder)?;
        scratch.make_folder(&scratch.list())?;
        for record in list {
            let path = scratch.list().join(record.file_name());
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            file.and_then(|mut file| file.write_all(&record.encode()))
                .map_err(|source| PublishListError::Disk { path, source })?;
        }
        Ok(scratch)
    }

    fn make_folder(&self, path: &Path) -> Result<(), PublishListError> {
        let made = DirBuilder::new().mode(0o700).create(path);
        made.map_err(|source| PublishListError::Disk { path: path.to_owned(), source })
    }

    fn list(&self) -> PathBuf {
        self.folder.join("list")
    }

    fn remove(&self) {
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(folder = %self.folder.display(), %error, "folder could not be removed");
            }
            _ => {}
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The owner's datasets as the home dataset lists them.
#[derive(Debug, Default)]
pub struct HomeList {
    /// Datasets, by id.
    pub records: Vec<HomeRecord>,
    /// Files that say nothing that this build understands.
    pub unreadable: Vec<UnreadableRecord>,
}

/// A file of the list that is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} in the list of datasets can't be read: {reason}")]
pub struct UnreadableRecord {
    /// The file.
    pub path: TreePath,
    /// What is wrong with it.
    #[source]
    pub reason: DecodeError,
}

/// Reads the list from the home dataset; it is empty before the first publication.
///
/// # Errors
/// [`SnapshotError`] when the home dataset can't be read or believed. A wrong file in it is no error.
pub async fn read_list(home: &OpenedHead) -> Result<HomeList, SnapshotError> {
    let snapshot = match home.snapshot(None).await {
        Ok(snapshot) => snapshot,
        Err(ResolveError::Read(error)) => return Err(error.into()),
        Err(ResolveError::Snapshot(error)) => return Err(error),
        Err(
            ResolveError::NoVersion
            | ResolveError::NoSuchVersion { .. }
            | ResolveError::AmbiguousVersion { .. },
        ) => return Ok(HomeList::default()),
    };
    let mut entries = EntryWalk::new(home.reader(), &snapshot.version.tree, snapshot.root);
    let (mut list, mut batch) = (HomeList::default(), Vec::new());
    while let Some(located) = entries.next().await? {
        batch.push(located);
        if batch.len() == FILES_AT_ONCE {
            list.read(home.reader(), std::mem::take(&mut batch)).await?;
        }
    }
    list.read(home.reader(), batch).await?;
    Ok(list)
}

impl HomeList {
    async fn read(&mut self, reader: &Arc<Reader>, batch: Vec<LocatedEntry>) -> Result<(), ReadError> {
        let (mut paths, mut wanted) = (Vec::new(), Vec::new());
        for located in batch {
            match only_chunk(reader, &located).await? {
                Some(chunk) => {
                    paths.push(located.path);
                    wanted.push(chunk);
                }
                None => {
                    let reason = DecodeError::Invalid { format: FORMAT, reason: "it is no short file" };
                    self.unreadable.push(UnreadableRecord { path: located.path, reason });
                }
            }
        }
        let plains = if wanted.is_empty() { Vec::new() } else { reader.items(&wanted).await? };
        for (path, plain) in paths.into_iter().zip(plains) {
            self.take(path, &plain, &reader.keys().owner);
        }
        Ok(())
    }

    fn take(&mut self, path: TreePath, bytes: &[u8], owner: &PublicKey) {
        match HomeRecord::decode(bytes, owner) {
            Ok(record) if record.file_name() == path.as_str() => self.records.push(record),
            Ok(_) => {
                let reason =
                    DecodeError::Invalid { format: FORMAT, reason: "its file has another dataset's name" };
                self.unreadable.push(UnreadableRecord { path, reason });
            }
            Err(reason) => self.unreadable.push(UnreadableRecord { path, reason }),
        }
    }
}

/// Where the one chunk of a short file lies; `None` for everything else.
async fn only_chunk(reader: &Arc<Reader>, located: &LocatedEntry) -> Result<Option<Wanted>, ReadError> {
    if located.entry.size() > RECORD_BYTES_MAX {
        return Ok(None);
    }
    let mut chunks = located.chunks(reader, 0..RECORD_BYTES_MAX);
    let Some(LocatedChunk { chunk, place, .. }) = chunks.next().await? else { return Ok(None) };
    let is_only = chunks.next().await?.is_none();
    Ok(is_only.then_some(Wanted::chunk(&chunk, place)))
}

#[cfg(test)]
mod tests {
    use super::{
        EPOCHS_MAX, HOME_DATASET_NAME, HomeList, HomeRecord, Scratch, ensure, home_dataset_id, owner_keys,
        records_of,
    };
    use crate::dataset::Visibility;
    use crate::uploader::SharedBooks;
    use proptest::prelude::{any, proptest};
    use seedbank_catalog::records::Dataset;
    use seedbank_catalog::{Books, Catalog, CatalogError, Local};
    use seedbank_formats::codec::DecodeError;
    use seedbank_formats::keys::{DatasetSecret, KeyEpoch, dataset_id};
    use seedbank_formats::path::TreePath;
    use seedbank_formats::{DatasetId, PublicKey, Timestamp};
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    const OWNER: PublicKey = PublicKey([1; 32]);

    fn record(salt: u8) -> HomeRecord {
        HomeRecord {
            dataset: dataset_id(&OWNER, &[salt; 32]),
            salt: [salt; 32],
            name: "pinguine/größe".to_owned(),
            visibility: Visibility::Private,
            epoch: KeyEpoch(3),
        }
    }

    fn dataset(owner: PublicKey, salt: u8, name: &str) -> Dataset {
        Dataset {
            id: dataset_id(&owner, &[salt; 32]),
            name: name.to_owned(),
            salt: [salt; 32],
            owner,
            epoch: KeyEpoch(0),
            public: false,
            policy: Vec::new(),
            created: Timestamp(0),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn path(text: &str) -> TreePath {
        text.parse().unwrap()
    }

    #[test]
    fn a_record_is_the_committed_bytes_and_reads_back() {
        let public = HomeRecord { visibility: Visibility::Public, epoch: KeyEpoch(0), ..record(3) };
        let vectors = include_str!("../../../testdata/home-record.txt");
        for (name, record) in [("private", record(2)), ("public", public)] {
            let expected = vectors.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            assert_eq!(expected, Some(hex(&record.encode()).as_str()));
            assert_eq!(HomeRecord::decode(&record.encode(), &OWNER), Ok(record));
        }
    }

    #[test]
    fn records_that_can_not_be_are_refused() {
        let refused = |record: HomeRecord| HomeRecord::decode(&record.encode(), &OWNER).unwrap_err();
        refused(HomeRecord { dataset: DatasetId([9; 32]), ..record(2) });
        refused(HomeRecord { name: String::new(), ..record(2) });
        refused(HomeRecord { name: "a\nb".to_owned(), ..record(2) });
        refused(HomeRecord { name: "x".repeat(256), ..record(2) });
        let late = refused(HomeRecord { epoch: KeyEpoch(EPOCHS_MAX.0 + 1), ..record(2) });
        assert!(matches!(late, DecodeError::OverLimit { .. }));
        HomeRecord::decode(&record(2).encode(), &PublicKey([2; 32])).unwrap_err();
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_or_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let valid = record(2).encode();
            let whole = [b"SBHR\x01".as_slice(), &bytes].concat();
            let spliced = [&valid[..69], &bytes].concat();
            for bytes in [bytes, whole, spliced] {
                if let Ok(record) = HomeRecord::decode(&bytes, &OWNER) {
                    assert_eq!(record.encode(), bytes);
                }
            }
        }

        #[test]
        fn every_record_reads_back(name in "[^\\p{Cc}]{1,60}", salt in any::<u8>(), epoch in 0..=EPOCHS_MAX.0) {
            let record = HomeRecord { name, epoch: KeyEpoch(epoch), ..record(salt) };
            assert_eq!(HomeRecord::decode(&record.encode(), &OWNER), Ok(record));
        }
    }

    #[test]
    fn the_list_is_the_owners_datasets_without_the_list_itself() {
        let home = dataset(OWNER, 0, HOME_DATASET_NAME);
        let (mine, others) = (dataset(OWNER, 1, "a"), dataset(PublicKey([2; 32]), 1, "b"));
        assert_eq!(home.id, home_dataset_id(&OWNER));
        assert_eq!(records_of(&home, &[home.clone(), mine.clone(), others]), [HomeRecord::of(&mine)]);
    }

    #[test]
    fn the_list_lies_in_a_private_folder_for_as_long_as_it_is_pushed() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::write(dir.path(), &[record(1), record(2)]).unwrap();
        let mode = scratch.folder.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        for record in [record(1), record(2)] {
            assert_eq!(std::fs::read(scratch.list().join(record.file_name())).unwrap(), record.encode());
        }
        drop(scratch);
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn files_that_are_no_records_are_told_and_the_others_read() {
        let mut list = HomeList::default();
        list.take(path(&record(2).file_name()), &record(2).encode(), &OWNER);
        list.take(path(&record(3).file_name()), &record(2).encode(), &OWNER);
        list.take(path("notes.txt"), b"what is this?", &OWNER);
        assert_eq!(list.records, [record(2)]);
        let told: Vec<&str> = list.unreadable.iter().map(|unreadable| unreadable.path.as_str()).collect();
        assert_eq!(told, [record(3).file_name().as_str(), "notes.txt"]);
    }

    #[test]
    fn keys_reach_from_the_first_epoch_to_the_present_one() {
        let secret =
            |_: &DatasetId, epoch: KeyEpoch| DatasetSecret::new([u8::try_from(epoch.0).unwrap(); 32]);
        let keys = owner_keys(&OWNER, [7; 32], Visibility::Private, KeyEpoch(2), secret);
        assert_eq!((keys.id, keys.epoch), (dataset_id(&OWNER, &[7; 32]), KeyEpoch(2)));
        let secrets: Vec<u8> = keys.secrets().values().map(|secret| secret.expose()[0]).collect();
        assert_eq!(secrets, [0, 1, 2]);
        let public = owner_keys(&OWNER, [7; 32], Visibility::Public, KeyEpoch(1), secret);
        let published = DatasetSecret::published(&public.id);
        assert!(public.secrets().values().all(|secret| secret.expose() == published.expose()));
        assert_eq!(public.secrets().len(), 2);
    }

    #[test]
    fn the_home_dataset_is_made_once_and_its_name_is_its_own() {
        let books = || -> (tempfile::TempDir, SharedBooks) {
            let dir = tempfile::tempdir().unwrap();
            let catalog = Catalog::open(dir.path()).unwrap();
            (dir, Arc::new(Local::new(catalog, || Timestamp(5))))
        };
        let (_dir, fresh) = books();
        let made = ensure(&fresh, OWNER, Timestamp(1)).unwrap();
        assert_eq!((made.id, made.name.as_str()), (home_dataset_id(&OWNER), HOME_DATASET_NAME));
        assert_eq!(ensure(&fresh, OWNER, Timestamp(2)).unwrap(), made);
        let (_dir, taken) = books();
        taken.create_dataset(dataset(OWNER, 1, HOME_DATASET_NAME)).unwrap();
        let refused = ensure(&taken, OWNER, Timestamp(1)).unwrap_err();
        assert!(matches!(refused, CatalogError::NameTaken { .. }));
    }
}

//! Opening, closing and looking at a store.

use crate::config::Config;
use crate::disk::{Disk, is_full};
use crate::entry::Entry;
use crate::index::Index;
use crate::journal::{self, JOURNAL, Journal, JournalError};
use crate::marker::{self, MARKER, MARKER_LEN, MARKER_NEW, StoreId};
use crate::record::{LOOSE, Place, VOLUMES, loose_dirs, loose_name, record_len, volume_number, volume_path};
use crate::shared::{BALLAST, Ballast, Mode, Shared, Start};
use seedbank_formats::{DecodeError, FragmentId, PublicKey};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

/// The file of [`Store::probe`].
const PROBE: &str = "probe";
/// Enough for some ten thousand releases.
const BALLAST_BYTES_MAX: u64 = 1024 * 1024;

/// A provider's fragments, claims and heads. Calls block; they may come from many threads at once.
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    committer: Option<JoinHandle<()>>,
}

/// Why a folder can't become a store.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There is a store, or something else, already: choose an empty folder.
    #[error("the folder is not empty: it has {0:?}")]
    NotEmpty(String),
    /// The disk failed.
    #[error("can't create a store")]
    Disk(#[from] io::Error),
}

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder has no marker: the disk is not mounted, or the store was never created.
    #[error("the folder holds no store: is its disk mounted?")]
    NoMarker,
    /// The marker can't be read: restore it, or create the store elsewhere.
    #[error("the store's marker is damaged")]
    Marker(#[source] DecodeError),
    /// The folder is another store's: check the path.
    #[error("the folder belongs to store {0}")]
    WrongStore(StoreId),
    /// A setting is out of its bounds: correct it.
    #[error("bad setting: {0}")]
    Setting(&'static str),
    /// What the store holds can't be known: restore the journal, or give the store up.
    #[error("the store's journal can't be used")]
    Journal(#[from] JournalError),
    /// The disk failed.
    #[error("can't open the store")]
    Disk(#[from] io::Error),
}

/// What [`Store::probe`] found wrong.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The folder is not this store's any more. The store is read-only now.
    #[error("the store's marker is gone or wrong")]
    Marker,
    /// The disk can't write or doesn't give back what was written. The store is read-only now.
    #[error("the disk fails")]
    Disk(#[source] io::Error),
    /// The disk is full: not even the probe found room. Nothing else is wrong.
    #[error("the disk is full")]
    Full,
}

/// How much a store holds. Bytes are those of whole records, unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// What the store may take.
    pub capacity_bytes: u64,
    /// What it takes: claimed, trash, not yet compacted, and reserved for what is arriving.
    pub used_bytes: u64,
    /// What lies in trash.
    pub trash_bytes: u64,
    /// What is freed in volumes, but not yet given back to the disk.
    pub dead_bytes: u64,
    /// What is reserved for fragments that are arriving.
    pub reserved_bytes: u64,
    /// What new fragments could take: the smaller of what is left of capacity and of disk.
    pub free_bytes: u64,
    /// What the disk has left, the reserve in it.
    pub disk_free_bytes: u64,
    /// The journal.
    pub journal_bytes: u64,
    /// The bytes of heads themselves.
    pub head_bytes: u64,
    /// Fragments with a claim.
    pub fragments: u64,
    /// Fragments in trash.
    pub trash_fragments: u64,
    /// Fragments known to be rotten.
    pub rotten_fragments: u64,
    /// Claims on fragments.
    pub claims: u64,
    /// Clients with a claim.
    pub clients: u64,
    /// Datasets with a head.
    pub heads: u64,
    /// Volumes.
    pub volumes: u64,
    /// Changes that wait to become durable.
    pub uncommitted: u64,
    /// Batches of changes that became durable since the store was opened: each costs the journal one sync.
    pub commits: u64,
}

/// How much a client has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientUsage {
    /// Its claims.
    pub claims: u64,
    /// What they cost of its quota, in bytes; each at least [`crate::CLAIM_CHARGE_MIN`].
    pub charged_bytes: u64,
    /// Its quota, in bytes.
    pub quota_bytes: u64,
}

fn count(count: usize) -> u64 {
    u64::try_from(count).expect("usize has at most 64 bits")
}

fn make_dir(disk: &dyn Disk, path: &str) -> io::Result<()> {
    match disk.create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

impl Store {
    /// Makes an empty store in an empty folder. The marker is its last step: a creation that was cut short can be
    /// repeated.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn create(disk: &dyn Disk, store: StoreId) -> Result<(), CreateError> {
        // The last is what a file system of its own has at its root.
        let ours = [VOLUMES, LOOSE, JOURNAL, MARKER_NEW, "lost+found"];
        if let Some(name) = disk.list("")?.into_iter().find(|name| !ours.contains(&name.as_str())) {
            return Err(CreateError::NotEmpty(name));
        }
        make_dir(disk, VOLUMES)?;
        make_dir(disk, LOOSE)?;
        for dir in std::iter::once(VOLUMES.to_owned()).chain(loose_dirs()) {
            make_dir(disk, &dir)?;
            if let Some(name) = disk.list(&dir)?.first() {
                return Err(CreateError::NotEmpty(format!("{dir}/{name}")));
            }
        }
        disk.sync_dir(LOOSE)?;
        Journal::create(disk, store)?;
        // Under another name until it is whole: half a marker would neither open nor let the creation be repeated.
        if disk.list("")?.iter().any(|name| name == MARKER_NEW) {
            disk.remove(MARKER_NEW)?;
        }
        let file = disk.create(MARKER_NEW)?;
        file.write_at(0, &marker::encode(store))?;
        file.sync()?;
        disk.rename(MARKER_NEW, MARKER)?;
        disk.sync_dir("")?;
        Ok(())
    }

    /// Opens a store: reads the journal, removes what it doesn't know, notes what is missing, and starts the committer.
    ///
    /// # Errors
    /// [`OpenError`]. Nothing was changed then but a torn journal tail.
    pub fn open(disk: Arc<dyn Disk>, config: Config) -> Result<Store, OpenError> {
        if let Some(fault) = config.fault() {
            return Err(OpenError::Setting(fault));
        }
        check_marker(disk.as_ref(), config.store)?;
        let mut index = Index::default();
        let journal = Journal::open(disk.as_ref(), config.store, &mut |entry| index.apply(entry))?;
        journal::remove_unfinished(disk.as_ref())?;
        let mut missing = BTreeSet::new();
        let next_generation = tidy_loose(disk.as_ref(), &index, &mut missing)?;
        let (active, next_volume) = tidy_volumes(disk.as_ref(), &config, &mut index, &mut missing)?;
        let ballast = restore_ballast(disk.as_ref(), &config)?;
        let active = match active {
            Some((number, end)) => Some((number, end, disk.open(&volume_path(number))?)),
            None => None,
        };
        let journal_bytes = journal.end();
        let start = Start { index, active, next_volume, next_generation, ballast, journal_bytes };
        let shared = Arc::new(Shared::new(disk, config, start));
        let committer = {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name("store-commit".to_owned());
            thread.spawn(move || shared.run_commits(journal))?
        };
        let store = Store { shared, committer: Some(committer) };
        store.note_missing(&missing);
        Ok(store)
    }

    fn note_missing(&self, missing: &BTreeSet<FragmentId>) {
        if missing.is_empty() {
            return;
        }
        tracing::error!(fragments = missing.len(), "stored fragments are missing on the disk");
        for batch in missing.iter().collect::<Vec<_>>().chunks(crate::CLAIMS_PER_CALL_MAX) {
            let Ok(mut state) = self.shared.admit() else {
                return;
            };
            for id in batch {
                state.record(&Entry::Rotten { id: **id });
                state.record(&Entry::Moved { id: **id, place: None });
            }
            self.shared.submit(&mut state);
        }
    }

    /// Whether the store takes changes.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.shared.lock().mode.clone()
    }

    /// Turns the store read-only, for a reason that only the caller can see: a probe that doesn't come back.
    pub fn stop_writing(&self, reason: &str) {
        let _refusal = self.shared.fail(reason.to_owned());
    }

    /// Checks the disk: the marker is there and right, and bytes that are written and synced read back. It may block as
    /// long as the disk does, so the caller runs it on a thread of its own with a timeout. A failure other than a full
    /// disk turns the store read-only.
    ///
    /// # Errors
    /// [`ProbeError`].
    pub fn probe(&self) -> Result<(), ProbeError> {
        let shared = &self.shared;
        if check_marker(shared.disk.as_ref(), shared.config.store).is_err() {
            let _refusal = shared.fail("the store's marker is gone or wrong".to_owned());
            return Err(ProbeError::Marker);
        }
        match write_and_read(shared.disk.as_ref(), &shared.config.store.0) {
            Ok(()) => Ok(()),
            Err(error) if is_full(&error) => Err(ProbeError::Full),
            Err(error) => {
                let _refusal = shared.fail(format!("the disk's probe failed: {error}"));
                Err(ProbeError::Disk(error))
            }
        }
    }

    /// How much the store holds.
    ///
    /// # Errors
    /// When the disk can't say how much is free.
    pub fn usage(&self) -> io::Result<Usage> {
        let disk_free_bytes = self.shared.disk.free_space()?;
        let config = &self.shared.config;
        let state = self.shared.lock();
        let totals = state.index.totals();
        let (fragments, trash, clients) = state.index.counts();
        let used_bytes = state.used_bytes();
        let left_on_disk = disk_free_bytes.saturating_sub(config.reserve_bytes + state.reserved_bytes);
        Ok(Usage {
            capacity_bytes: config.capacity_bytes,
            used_bytes,
            trash_bytes: totals.trash_bytes,
            dead_bytes: totals.dead_bytes(),
            reserved_bytes: state.reserved_bytes,
            free_bytes: config.capacity_bytes.saturating_sub(used_bytes).min(left_on_disk),
            disk_free_bytes,
            journal_bytes: state.journal_bytes,
            head_bytes: totals.head_bytes,
            fragments: count(fragments - trash),
            trash_fragments: count(trash),
            rotten_fragments: totals.rotten,
            claims: totals.claims,
            clients: count(clients),
            heads: count(state.index.heads().count()),
            volumes: count(state.index.volumes().count()),
            uncommitted: state.uncommitted(),
            commits: state.commits,
        })
    }

    /// How much a client has.
    #[must_use]
    pub fn client_usage(&self, client: &PublicKey) -> ClientUsage {
        let (claims, charged_bytes) = self.shared.lock().index.client(client);
        ClientUsage { claims, charged_bytes, quota_bytes: self.shared.config.quotas.of(client) }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(committer) = self.committer.take()
            && committer.join().is_err()
        {
            tracing::error!("the store's committer panicked");
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Store({})", self.shared.config.store)
    }
}

fn check_marker(disk: &dyn Disk, store: StoreId) -> Result<(), OpenError> {
    let file = disk.open(MARKER).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpenError::NoMarker,
        _ => OpenError::Disk(error),
    })?;
    // One byte more than there should be: a longer file is not a marker.
    let length = file.length()?.min(count(MARKER_LEN + 1));
    let mut bytes = vec![0; usize::try_from(length).expect("a short file")];
    file.read_at(0, &mut bytes)?;
    match marker::decode(&bytes).map_err(OpenError::Marker)? {
        found if found == store => Ok(()),
        found => Err(OpenError::WrongStore(found)),
    }
}

fn write_and_read(disk: &dyn Disk, bytes: &[u8; 32]) -> io::Result<()> {
    let file = match disk.create(PROBE) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => disk.open(PROBE)?,
        created => created?,
    };
    file.write_at(0, bytes)?;
    file.sync()?;
    let mut read = [0; 32];
    file.read_at(0, &mut read)?;
    if read != *bytes {
        return Err(io::Error::other("the disk gives back other bytes than were written"));
    }
    Ok(())
}

/// Removes loose files that the index doesn't know, and collects fragments whose file is missing. Gives the first
/// generation that is free.
fn tidy_loose(disk: &dyn Disk, index: &Index, missing: &mut BTreeSet<FragmentId>) -> io::Result<u64> {
    let mut known: BTreeMap<u8, BTreeMap<String, FragmentId>> = BTreeMap::new();
    let mut next_generation = 1;
    for (id, fragment) in index.fragments_after(None) {
        if let Some(Place::Loose { generation }) = fragment.place {
            known.entry(id.as_bytes()[0]).or_default().insert(loose_name(id, generation), *id);
            next_generation = next_generation.max(generation + 1);
        }
    }
    for (first, dir) in (0..=u8::MAX).zip(loose_dirs()) {
        let mut expected = known.remove(&first).unwrap_or_default();
        for name in disk.list(&dir)? {
            if expected.remove(&name).is_none() {
                disk.remove(&format!("{dir}/{name}"))?;
            }
        }
        missing.extend(expected.into_values());
    }
    Ok(next_generation)
}

/// Removes volumes that the index doesn't need, cuts the newest one behind its last record, and collects fragments whose
/// record is missing. Gives the volume to go on with and where, and the first number that is free.
fn tidy_volumes(
    disk: &dyn Disk,
    config: &Config,
    index: &mut Index,
    missing: &mut BTreeSet<FragmentId>,
) -> io::Result<(Option<(u32, u64)>, u32)> {
    let mut lengths = BTreeMap::new();
    for name in disk.list(VOLUMES)? {
        match volume_number(&name) {
            Some(number) => {
                lengths.insert(number, disk.open(&volume_path(number))?.length()?);
            }
            None => disk.remove(&format!("{VOLUMES}/{name}"))?,
        }
    }
    let known = index.volumes().collect::<BTreeMap<_, _>>();
    let next_volume = lengths.keys().chain(known.keys()).max().map_or(1, |newest| newest + 1);
    for (id, fragment) in index.fragments_after(None) {
        if let Some(Place::Volume { number, offset }) = fragment.place {
            let end = u64::from(offset) + record_len(fragment.length);
            if lengths.get(&number).is_none_or(|length| *length < end) {
                missing.insert(*id);
            }
        }
    }
    let mut active = None;
    for (number, volume) in &known {
        match lengths.get(number) {
            Some(length) if volume.live > 0 => {
                let goes_on = number + 1 == next_volume && *length >= volume.end;
                if goes_on && volume.end < config.volume_bytes {
                    // Behind the last record may be a torn one that nobody was told of.
                    if *length > volume.end {
                        disk.open(&volume_path(*number))?.truncate(volume.end)?;
                    }
                    active = Some((*number, volume.end));
                } else {
                    index.grow_volume(*number, *length);
                }
            }
            _ if volume.live == 0 => index.remove_volume(*number),
            _ => {}
        }
    }
    for number in lengths.keys() {
        if known.get(number).is_none_or(|volume| volume.live == 0) {
            disk.remove(&volume_path(*number))?;
        }
    }
    Ok((active, next_volume))
}

/// Writes the ballast again if it was given up and there is room.
pub(crate) fn restore_ballast(disk: &dyn Disk, config: &Config) -> io::Result<Ballast> {
    let bytes = (config.reserve_bytes / 4).min(BALLAST_BYTES_MAX);
    let present = match disk.open(BALLAST) {
        Ok(file) => file.length()? >= bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if present {
        return Ok(Ballast::Present);
    }
    if disk.free_space()? < config.reserve_bytes + bytes {
        return Ok(Ballast::GivenUp);
    }
    // Bytes that no file system compresses away.
    let mut ballast = vec![0; usize::try_from(bytes).expect("at most a megabyte")];
    blake3::Hasher::new_derive_key("seedbank v1 store ballast").finalize_xof().fill(&mut ballast);
    let file = match disk.create(BALLAST) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => disk.open(BALLAST),
        created => created,
    };
    match file.and_then(|file| file.write_at(0, &ballast)) {
        Ok(()) => Ok(Ballast::Present),
        Err(error) if is_full(&error) => Ok(Ballast::GivenUp),
        Err(error) => Err(error),
    }
}

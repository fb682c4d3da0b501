//! What the store's operations share: the state behind one lock, and the committer behind a queue.
//!
//! An operation checks and changes the index under the lock and appends the same change to the open *batch*; so the
//! journal's order is the index's order. Then it waits. The committer takes the whole batch, syncs the volumes and
//! folders it touched, appends it to the journal as one frame, syncs that, and wakes everybody whose change is in it:
//! the more wait, the fewer syncs each costs. The index is thus ahead of the journal by at most one batch, and nobody is
//! told of a change that is not durable.
//!
//! After a failed sync the kernel may have dropped the bytes and report success next time. So the store never syncs
//! again: it turns read-only until it is opened anew.

use crate::config::Config;
use crate::disk::{Disk, DiskFile, is_full};
use crate::entry::{Claim, ClaimAccess, Entry, KeyNumber};
use crate::files::Files;
use crate::index::Index;
use crate::journal::{FRAME_BYTES_MAX, Journal, RewriteError};
use crate::record::{Header, Place, RecordKey, VOLUMES, record_len, volume_path};
use seedbank_formats::codec::Writer;
use seedbank_formats::{Asked, FragmentId, PublicKey, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// A batch above this takes no more changes until it is committed. Two such batches, each with one more change on top
/// (see [`crate::CLAIMS_PER_CALL_MAX`]), still fit into one frame: that happens when the disk was full at the first.
const BATCH_BYTES_FULL: usize = 256 * 1024;
const _: () = assert!(BATCH_BYTES_FULL * 3 < FRAME_BYTES_MAX);

/// The size of a rewritten journal's frames.
const SNAPSHOT_FRAME_BYTES: usize = 256 * 1024;

/// Whether the store takes changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// It does.
    ReadWrite,
    /// The disk failed. What is stored can still be read; reopening checks everything again.
    ReadOnly {
        /// What failed.
        reason: String,
    },
}

/// Why a change was not made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The disk is full. The change may still become durable later, which does no harm: nobody was told.
    Full,
    /// See [`Mode::ReadOnly`].
    ReadOnly { reason: String },
}

/// Bytes that are only there to be given up when the journal finds no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ballast {
    Present,
    GivenUp,
}

/// The file of [`Ballast`].
pub(crate) const BALLAST: &str = "ballast";

/// What waits for the next commit.
#[derive(Default)]
struct Batch {
    entries: Writer,
    volumes: BTreeMap<u32, Arc<dyn DiskFile>>,
    dirs: BTreeSet<String>,
}

/// The volume that new records go to.
struct Active {
    number: u32,
    end: u64,
    file: Arc<dyn DiskFile>,
}

/// Everything behind the lock.
pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) mode: Mode,
    /// Bytes of records that are still arriving, and what they will cost their clients.
    pub(crate) reserved_bytes: u64,
    pub(crate) reserved_charges: BTreeMap<PublicKey, u64>,
    /// The largest record that was refused for want of space and has not been taken since.
    pub(crate) wanted_bytes: u64,
    pub(crate) ballast: Ballast,
    pub(crate) journal_bytes: u64,
    /// Batches that were synced.
    pub(crate) commits: u64,
    /// Before this time no claim ends: nobody needs to look for any.
    pub(crate) no_end_before: Timestamp,
    /// Volumes that can't be emptied because their disk sectors can't be read.
    pub(crate) unmovable: BTreeSet<u32>,
    active: Option<Active>,
    /// Records per volume that are written, but not in the index yet.
    arriving: BTreeMap<u32, u64>,
    next_volume: u32,
    next_generation: u64,
    batch: Batch,
    /// Changes handed in, made durable, and refused by a full disk: counted in order.
    queued: u64,
    durable: u64,
    refused: u64,
    /// Whether something was handed in since the committer last looked.
    fresh: bool,
    closing: bool,
}

/// What the state is built from.
pub(crate) struct Start {
    pub(crate) index: Index,
    pub(crate) active: Option<(u32, u64, Arc<dyn DiskFile>)>,
    pub(crate) next_volume: u32,
    pub(crate) next_generation: u64,
    pub(crate) ballast: Ballast,
    pub(crate) journal_bytes: u64,
}

/// What all handles of one store point to.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) config: Config,
    pub(crate) record_key: RecordKey,
    pub(crate) files: Files,
    state: Mutex<State>,
    /// The committer waits here.
    work: Condvar,
    /// Everybody else waits here.
    done: Condvar,
}

/// A record that lies in a volume, but is not in the index yet. While it lives, the volume stays.
pub(crate) struct Appended {
    number: u32,
    offset: u32,
    file: Arc<dyn DiskFile>,
    shared: Arc<Shared>,
}

impl Appended {
    /// Where it lies.
    pub(crate) fn place(&self) -> Place {
        Place::Volume { number: self.number, offset: self.offset }
    }
}

impl Drop for Appended {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Some(count) = state.arriving.get_mut(&self.number) {
            *count -= 1;
            if *count == 0 {
                state.arriving.remove(&self.number);
            }
        }
    }
}

impl State {
    /// Changes the index and the open batch alike. The caller has checked that the change fits.
    pub(crate) fn record(&mut self, entry: &Entry) {
        self.index.apply(entry).expect("an operation checks under the lock what it then records");
        entry.write(&mut self.batch.entries);
    }

    /// Lets the next commit sync the volume of a record that is recorded in it.
    pub(crate) fn record_in_volume(&mut self, appended: &Appended, entry: &Entry) {
        self.batch.volumes.insert(appended.number, appended.file.clone());
        self.record(entry);
    }

    /// Lets the next commit sync the folder of a file that is recorded in it.
    pub(crate) fn record_in_dir(&mut self, dir: String, entry: &Entry) {
        self.batch.dirs.insert(dir);
        self.record(entry);
    }

    /// Gives a client its claim, or changes it: it never ends earlier than before. Gives its end.
    pub(crate) fn record_claim(
        &mut self,
        id: FragmentId,
        client: &PublicKey,
        access: crate::Access,
        (until, asked): (Timestamp, Asked),
    ) -> Timestamp {
        let client = self.record_key(client);
        let held = self.index.fragment(&id).and_then(|fragment| fragment.claim_of(client)).copied();
        let until = held.map_or(until, |held| held.until.max(until));
        let asked = held.map_or(asked, |held| held.asked.max(asked));
        let access = match access {
            crate::Access::Owner => ClaimAccess::Owner,
            crate::Access::Public => ClaimAccess::Public,
            crate::Access::Reader(reader) => ClaimAccess::Reader(self.record_key(&reader)),
        };
        let claim = Claim { client, access, until, asked };
        if held != Some(claim) {
            self.record(&Entry::Claimed { id, claim });
            self.no_end_before = self.no_end_before.min(until);
        }
        until
    }

    fn record_key(&mut self, key: &PublicKey) -> KeyNumber {
        self.index.number_of(key).unwrap_or_else(|| {
            let number = self.index.vacant_number();
            self.record(&Entry::Key { number, key: *key });
            number
        })
    }

    /// Bytes that the store takes or has promised.
    pub(crate) fn used_bytes(&self) -> u64 {
        let totals = self.index.totals();
        totals.volume_bytes + totals.loose_bytes + self.reserved_bytes
    }

    /// A number for a loose file that no file had before.
    pub(crate) fn generation(&mut self) -> u64 {
        self.next_generation += 1;
        self.next_generation - 1
    }

    /// Whether new records may go to this volume, or some are on their way.
    pub(crate) fn is_in_use(&self, number: u32) -> bool {
        self.active.as_ref().is_some_and(|active| active.number == number)
            || self.arriving.contains_key(&number)
    }

    /// Lets the next record begin a new volume, so that the present one can be compacted.
    pub(crate) fn retire_active_volume(&mut self) {
        self.active = None;
    }

    /// Whether the active volume takes another record.
    fn has_room(&self, size: u64, volume_bytes: u64) -> bool {
        self.active.as_ref().is_some_and(|active| active.end == 0 || active.end + size <= volume_bytes)
    }

    /// Changes that are not durable yet.
    pub(crate) fn uncommitted(&self) -> u64 {
        self.queued - self.durable.max(self.refused)
    }
}

impl Shared {
    pub(crate) fn new(disk: Arc<dyn Disk>, config: Config, start: Start) -> Shared {
        let state = State {
            index: start.index,
            mode: Mode::ReadWrite,
            reserved_bytes: 0,
            reserved_charges: BTreeMap::new(),
            wanted_bytes: 0,
            ballast: start.ballast,
            journal_bytes: start.journal_bytes,
            commits: 0,
            no_end_before: Timestamp(0),
            unmovable: BTreeSet::new(),
            active: start.active.map(|(number, end, file)| Active { number, end, file }),
            arriving: BTreeMap::new(),
            next_volume: start.next_volume,
            next_generation: start.next_generation,
            batch: Batch::default(),
            queued: 0,
            durable: 0,
            refused: 0,
            fresh: false,
            closing: false,
        };
        Shared {
            record_key: RecordKey::new(config.store),
            files: Files::new(disk.clone()),
            disk,
            config,
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Condvar::new(),
        }
    }

    /// The state, to look at.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a broken invariant of the store has already panicked elsewhere")
    }

    /// The state, to change: waits while the open batch is full.
    pub(crate) fn admit(&self) -> Result<MutexGuard<'_, State>, Refusal> {
        let mut state = self.lock();
        loop {
            if let Mode::ReadOnly { reason } = &state.mode {
                return Err(Refusal::ReadOnly { reason: reason.clone() });
            }
            if state.batch.entries.written() <= BATCH_BYTES_FULL {
                return Ok(state);
            }
            if state.refused == state.queued {
                // The disk was full, and nothing came in since: ask it again, but don't wait for the answer.
                state.fresh = true;
                self.work.notify_one();
                return Err(Refusal::Full);
            }
            state = self.done.wait(state).expect("a broken invariant has already panicked elsewhere");
        }
    }

    /// Hands in what was recorded since `admit`, without waiting.
    pub(crate) fn submit(&self, state: &mut State) {
        if state.batch.entries.written() > 0 {
            state.queued += 1;
            state.fresh = true;
            self.work.notify_one();
        }
    }

    /// Hands in what was recorded since `admit` and waits until that, and all before it, is durable.
    pub(crate) fn commit(&self, mut state: MutexGuard<'_, State>) -> Result<(), Refusal> {
        self.submit(&mut state);
        let ticket = state.queued;
        loop {
            if state.durable >= ticket {
                return Ok(());
            }
            if let Mode::ReadOnly { reason } = &state.mode {
                return Err(Refusal::ReadOnly { reason: reason.clone() });
            }
            if state.refused >= ticket {
                return Err(Refusal::Full);
            }
            state = self.done.wait(state).expect("a broken invariant has already panicked elsewhere");
        }
    }

    /// Turns the store read-only.
    pub(crate) fn fail(&self, reason: String) -> Refusal {
        let mut state = self.lock();
        if state.mode == Mode::ReadWrite {
            tracing::error!(%reason, "store turns read-only");
            state.mode = Mode::ReadOnly { reason: reason.clone() };
        }
        self.work.notify_all();
        self.done.notify_all();
        Refusal::ReadOnly { reason }
    }

    /// What a failed write means: a full disk passes, anything else ends all writing.
    pub(crate) fn write_failed(&self, what: &str, error: &io::Error) -> Refusal {
        if is_full(error) {
            return Refusal::Full;
        }
        self.fail(format!("{what}: {error}"))
    }

    /// Writes a record to the active volume. It is in no index and not durable yet.
    pub(crate) fn append_record(
        self: &Arc<Shared>,
        id: &FragmentId,
        data: &[u8],
        outboard: &[u8],
    ) -> Result<Appended, Refusal> {
        let length = u32::try_from(data.len()).expect("packed records are below 2 MiB");
        let appended = self.allocate(record_len(length))?;
        let mut record = Header { id: *id, length, place: appended.place() }.encode(&self.record_key);
        record.reserve_exact(data.len() + outboard.len());
        record.extend_from_slice(data);
        record.extend_from_slice(outboard);
        let written = appended.file.write_at(u64::from(appended.offset), &record);
        written.map_err(|error| self.write_failed("can't write a volume", &error))?;
        Ok(appended)
    }

    fn allocate(self: &Arc<Shared>, size: u64) -> Result<Appended, Refusal> {
        let mut state = self.admit()?;
        let mut spare = None;
        if !state.has_room(size, self.config.volume_bytes) {
            let number = state.next_volume;
            state.next_volume += 1;
            // Without the lock: while a disk hangs, everybody else must still learn how the store is.
            drop(state);
            let created = self.disk.create(&volume_path(number));
            let file = created.map_err(|error| self.write_failed("can't create a volume", &error))?;
            state = self.admit()?;
            if state.has_room(size, self.config.volume_bytes) {
                spare = Some(number);
            } else {
                state.batch.dirs.insert(VOLUMES.to_owned());
                state.active = Some(Active { number, end: 0, file });
            }
        }
        let active = state.active.as_mut().expect("a volume has room");
        let offset = u32::try_from(active.end).expect("a volume ends below 2 GiB");
        active.end += size;
        let (number, file) = (active.number, active.file.clone());
        state.index.grow_volume(number, u64::from(offset) + size);
        *state.arriving.entry(number).or_default() += 1;
        drop(state);
        if let Some(spare) = spare
            && let Err(error) = self.disk.remove(&volume_path(spare))
        {
            tracing::warn!(volume = spare, %error, "can't remove a volume that two made at once");
        }
        Ok(Appended { number, offset, file, shared: self.clone() })
    }

    /// Ends the committer once all that was handed in is durable or refused.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.work.notify_all();
    }

    /// The committer: runs until [`Shared::close`] or until the disk fails.
    pub(crate) fn run_commits(&self, mut journal: Journal) {
        // After a rewrite that found no room, the journal must grow before the next try.
        let mut rewrite_above = 0;
        while let Some(mut work) = self.next_work(journal.end(), rewrite_above) {
            match self.perform(&mut work, &mut journal) {
                Ok(Performed::Appended) => {}
                Ok(Performed::RewriteAbandoned) => {
                    rewrite_above = journal.end() + self.config.journal_slack_bytes;
                }
                Err(Failure::Full) => {
                    self.take_back(work);
                    continue;
                }
                Err(Failure::Disk(reason)) => {
                    self.fail(reason);
                    break;
                }
            }
            let mut state = self.lock();
            state.durable = work.through;
            state.commits += 1;
            state.journal_bytes = journal.end();
            self.done.notify_all();
        }
        // Whoever comes after the committer's end must not wait for it.
        let mut state = self.lock();
        if state.mode == Mode::ReadWrite {
            state.mode = Mode::ReadOnly { reason: "the store is closed".to_owned() };
        }
        self.done.notify_all();
    }

    fn next_work(&self, journal_end: u64, rewrite_above: u64) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if state.mode != Mode::ReadWrite {
                return None;
            }
            if state.fresh {
                break;
            }
            if state.closing {
                return None;
            }
            state = self.work.wait(state).expect("a broken invariant has already panicked elsewhere");
        }
        state.fresh = false;
        let needed = state.index.journal_estimate();
        let due = journal_end > needed * 2 + self.config.journal_slack_bytes && journal_end > rewrite_above;
        let snapshot = due.then(|| state.index.snapshot(SNAPSHOT_FRAME_BYTES));
        let batch = std::mem::take(&mut state.batch);
        let entries = batch.entries.finish();
        Some(Work { through: state.queued, entries, volumes: batch.volumes, dirs: batch.dirs, snapshot })
    }

    fn perform(&self, work: &mut Work, journal: &mut Journal) -> Result<Performed, Failure> {
        let failed = |what: &str, error: io::Error| Failure::Disk(format!("{what}: {error}"));
        for file in work.volumes.values() {
            file.sync().map_err(|error| failed("can't sync a volume", error))?;
        }
        for dir in &work.dirs {
            self.disk.sync_dir(dir).map_err(|error| match is_full(&error) {
                true => Failure::Full,
                false => failed("can't sync a folder", error),
            })?;
        }
        let mut performed = Performed::Appended;
        if let Some(snapshot) = work.snapshot.take() {
            // The index holds the batch already, so a rewritten journal does too.
            match journal.rewrite(self.disk.as_ref(), &snapshot) {
                Ok(()) => return Ok(Performed::Appended),
                Err(RewriteError::Unknown(error)) => return Err(failed("can't replace the journal", error)),
                Err(RewriteError::Abandoned(error)) => {
                    tracing::warn!(%error, "no room to rewrite the journal");
                    let _still_there = crate::journal::remove_unfinished(self.disk.as_ref());
                    performed = Performed::RewriteAbandoned;
                }
            }
        }
        match journal.append(&work.entries) {
            Err(error) if is_full(&error) => self.append_with_ballast(work, journal)?,
            Err(error) => return Err(failed("can't write the journal", error)),
            Ok(()) => {}
        }
        Ok(performed)
    }

    /// The last resort of a full disk: without it, not even a release could be written down.
    fn append_with_ballast(&self, work: &Work, journal: &mut Journal) -> Result<(), Failure> {
        {
            let mut state = self.lock();
            if state.ballast == Ballast::GivenUp {
                return Err(Failure::Full);
            }
            state.ballast = Ballast::GivenUp;
        }
        tracing::warn!("disk full: ballast given up");
        self.disk.remove(BALLAST).map_err(|_| Failure::Full)?;
        journal.append(&work.entries).map_err(|error| match is_full(&error) {
            true => Failure::Full,
            false => Failure::Disk(format!("can't write the journal: {error}")),
        })
    }

    /// Puts a batch that found no room back before what came since, and tells those who wait for it.
    fn take_back(&self, work: Work) {
        let mut state = self.lock();
        let mut entries = Writer::default();
        entries.raw(&work.entries);
        entries.raw(&std::mem::take(&mut state.batch.entries).finish());
        state.batch.entries = entries;
        state.batch.volumes.extend(work.volumes);
        state.batch.dirs.extend(work.dirs);
        state.refused = work.through;
        self.done.notify_all();
    }
}

/// A batch on its way.
struct Work {
    /// The last change in it.
    through: u64,
    entries: Vec<u8>,
    volumes: BTreeMap<u32, Arc<dyn DiskFile>>,
    dirs: BTreeSet<String>,
    /// The whole index with this batch, when it is time to write the journal anew.
    snapshot: Option<Vec<Vec<u8>>>,
}

enum Performed {
    Appended,
    RewriteAbandoned,
}

enum Failure {
    Full,
    Disk(String),
}

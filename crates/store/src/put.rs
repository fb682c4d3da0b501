//! Taking a fragment in.
//!
//! Space and quota are reserved before the first byte, bytes are hashed once as they arrive, and a fragment exists only
//! when its id, its bytes on the disk and its claim are all durable. A small fragment waits in memory and goes into a
//! volume; a large one goes straight to a file of its own.
//!
//! A client that holds a claim already gets it extended without sending anything, if the bytes are still right: they are
//! read for that. A client that doesn't must send the bytes even when they are here: fragment ids are no secret, and a
//! claim gives the right to read. What was sent takes the place of what lay here, which nobody may have looked at for
//! months: only bytes that were just hashed are signed for.

use crate::config::{FRAGMENT_BYTES_MAX, charge};
use crate::disk::DiskFile;
use crate::entry::Entry;
use crate::index::Health;
use crate::read::{Examined, Found};
use crate::record::{HEADER_LEN, Header, Place, loose_dir_of, loose_path, record_len};
use crate::shared::{Appended, Ballast, Refusal, Shared, State};
use crate::store::Store;
use seedbank_formats::slice::FragmentHasher;
use seedbank_formats::{Asked, FragmentId, PublicKey, Timestamp};
use std::sync::Arc;

/// Who may read a fragment by virtue of one claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The claim's client.
    Owner,
    /// Everybody.
    Public,
    /// The claim's client, and bearers of a token signed by this key.
    Reader(PublicKey),
}

/// The claim that comes with a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewClaim {
    /// Whose claim.
    pub client: PublicKey,
    /// Until when; at most [`crate::Config::pending_s_max`] seconds from now.
    pub until: Timestamp,
    /// Who may read.
    pub access: Access,
    /// When it asked; a release that it asked for earlier does not end the claim.
    pub asked: Asked,
}

/// What is durable now, and may be signed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The fragment.
    pub id: FragmentId,
    /// Its bytes.
    pub length: u64,
    /// Until when the client's claim lasts.
    pub until: Timestamp,
}

/// Whether bytes are needed.
#[derive(Debug)]
pub enum PutStart {
    /// No: the client's claim was here and is extended, durably.
    Held(Stored),
    /// Yes: feed them to this.
    Receive(Put),
}

/// Why a fragment was not taken. Nothing of it is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// No fragment has this length: the client is wrong.
    #[error("a fragment has 1 to {FRAGMENT_BYTES_MAX} bytes, not {0}")]
    Length(u64),
    /// The client must release something, or ask the operator.
    #[error("over quota: {charged_bytes} of {quota_bytes} bytes are taken")]
    OverQuota {
        /// The client's quota.
        quota_bytes: u64,
        /// What its claims and its fragments on the way take of it.
        charged_bytes: u64,
    },
    /// The client should go elsewhere; later there may be room.
    #[error("the store is full")]
    Full,
    /// The client should go elsewhere.
    #[error("the store is read-only: {reason}")]
    ReadOnly {
        /// Why.
        reason: String,
    },
    /// Fewer or more bytes came than were announced.
    #[error("{expected} bytes were announced and {received} came")]
    WrongLength {
        /// What was announced.
        expected: u64,
        /// What came, at least.
        received: u64,
    },
    /// The bytes are those of another fragment: the client or the path to it is broken.
    #[error("these are the bytes of fragment {actual}")]
    WrongHash {
        /// The id of what came.
        actual: FragmentId,
    },
}

impl From<Refusal> for PutError {
    fn from(refusal: Refusal) -> PutError {
        match refusal {
            Refusal::Full => PutError::Full,
            Refusal::ReadOnly { reason } => PutError::ReadOnly { reason },
        }
    }
}

/// A fragment on its way in. Dropping it gives everything up.
pub struct Put(Box<Arriving>);

struct Arriving {
    reservation: Reservation,
    id: FragmentId,
    length: u32,
    claim: NewClaim,
    /// Where the fragment lay when this put began.
    before: Option<Place>,
    hasher: FragmentHasher,
    received: u64,
    sink: Sink,
}

enum Sink {
    Packed(Vec<u8>),
    Loose(LooseFile),
}

/// A file that is removed again unless it is recorded.
struct LooseFile {
    shared: Arc<Shared>,
    id: FragmentId,
    generation: u64,
    file: Arc<dyn DiskFile>,
    recorded: bool,
}

impl Drop for LooseFile {
    fn drop(&mut self) {
        if !self.recorded {
            remove_loose(&self.shared, &self.id, self.generation);
        }
    }
}

/// Removes a loose file that nothing refers to. When that fails, the next opening does it.
pub(crate) fn remove_loose(shared: &Shared, id: &FragmentId, generation: u64) {
    if let Err(error) = shared.files.remove(&loose_path(id, generation)) {
        tracing::warn!(fragment = %id, %error, "can't remove a file");
    }
}

/// Space and quota that are promised to one put.
struct Reservation {
    shared: Arc<Shared>,
    client: PublicKey,
    bytes: u64,
    charge: u64,
}

impl Reservation {
    /// Gives the promise back, in the same step in which the index begins to count what it was for.
    fn redeem(&mut self, state: &mut State) {
        state.reserved_bytes -= std::mem::take(&mut self.bytes);
        let charge = std::mem::take(&mut self.charge);
        if let Some(reserved) = state.reserved_charges.get_mut(&self.client) {
            *reserved -= charge;
            if *reserved == 0 {
                state.reserved_charges.remove(&self.client);
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            let shared = self.shared.clone();
            self.redeem(&mut shared.lock());
        }
    }
}

impl State {
    /// A fragment on which a client has a claim.
    fn holding(&self, id: &FragmentId, length: u32, client: &PublicKey) -> Option<Found> {
        let fragment = self.index.fragment(id).filter(|fragment| fragment.length == length)?;
        fragment.claim_of(self.index.number_of(client)?)?;
        Some(Found { id: *id, length, health: fragment.health, place: fragment.place })
    }
}

impl Shared {
    /// Promises space for a record, or notes that it was wanted.
    pub(crate) fn check_space(
        &self,
        state: &mut State,
        free_on_disk: u64,
        bytes: u64,
    ) -> Result<(), Refusal> {
        let fits = state.used_bytes() + bytes <= self.config.capacity_bytes;
        let reserve = self.config.reserve_bytes + state.reserved_bytes;
        let fits_on_disk = free_on_disk >= reserve + bytes && state.ballast == Ballast::Present;
        if fits && fits_on_disk {
            if state.wanted_bytes <= bytes {
                state.wanted_bytes = 0;
            }
            return Ok(());
        }
        state.wanted_bytes = state.wanted_bytes.max(bytes);
        Err(Refusal::Full)
    }

    /// Bytes left on the disk. A disk that can't say is not written to.
    pub(crate) fn free_on_disk(&self) -> Result<u64, Refusal> {
        self.disk.free_space().map_err(|error| self.fail(format!("can't ask for free space: {error}")))
    }
}

impl Store {
    /// Begins to take a fragment of `length` bytes in. It blocks only when no bytes are needed.
    ///
    /// # Errors
    /// [`PutError`].
    pub fn begin_put(
        &self,
        id: FragmentId,
        length: u64,
        claim: NewClaim,
        now: Timestamp,
    ) -> Result<PutStart, PutError> {
        let shared = &self.shared;
        let valid = u32::try_from(length).ok().filter(|_| (1..=FRAGMENT_BYTES_MAX).contains(&length));
        let length_u32 = valid.ok_or(PutError::Length(length))?;
        let free_on_disk = shared.free_on_disk()?;
        if let Some(until) = self.extend(id, length_u32, &claim, now)? {
            return Ok(PutStart::Held(Stored { id, length, until }));
        }
        let mut state = shared.admit()?;
        let claimed = state.holding(&id, length_u32, &claim.client).is_some();
        let before = state.index.fragment(&id).and_then(|fragment| fragment.place);

        let quota_bytes = shared.config.quotas.of(&claim.client);
        let reserved = state.reserved_charges.get(&claim.client).copied().unwrap_or(0);
        let charged_bytes = state.index.client(&claim.client).1 + reserved;
        // Sending a fragment again whose bytes rotted costs nothing more.
        let charge = if claimed { 0 } else { charge(length_u32) };
        if charged_bytes + charge > quota_bytes {
            return Err(PutError::OverQuota { quota_bytes, charged_bytes });
        }
        let bytes = record_len(length_u32);
        shared.check_space(&mut state, free_on_disk, bytes)?;
        state.reserved_bytes += bytes;
        *state.reserved_charges.entry(claim.client).or_default() += charge;
        let generation = (length >= shared.config.pack_below_bytes).then(|| state.generation());
        drop(state);

        let reservation = Reservation { shared: shared.clone(), client: claim.client, bytes, charge };
        let sink = match generation {
            None => Sink::Packed(Vec::new()),
            Some(generation) => Sink::Loose(self.create_loose(id, length_u32, generation)?),
        };
        let arriving = Arriving {
            reservation,
            id,
            length: length_u32,
            claim,
            before,
            hasher: FragmentHasher::default(),
            received: 0,
            sink,
        };
        Ok(PutStart::Receive(Put(Box::new(arriving))))
    }

    /// Lets the client's claim last longer if there is one, and the fragment's bytes are right.
    fn extend(
        &self,
        id: FragmentId,
        length: u32,
        claim: &NewClaim,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Refusal> {
        let shared = &self.shared;
        let holding = shared.admit()?.holding(&id, length, &claim.client);
        let Some(found) = holding.filter(|found| found.health == Health::Sound) else { return Ok(None) };
        // Whatever speaks against what is here, the client has the right bytes.
        if !matches!(shared.examine(&found), Ok(Examined::Sound | Examined::Repaired)) {
            return Ok(None);
        }
        let mut state = shared.admit()?;
        if state.holding(&id, length, &claim.client) != Some(found) {
            return Ok(None);
        }
        let times = (self.pending(claim, now), claim.asked);
        let until = state.record_claim(id, &claim.client, claim.access, times);
        shared.commit(state)?;
        Ok(Some(until))
    }

    fn pending(&self, claim: &NewClaim, now: Timestamp) -> Timestamp {
        claim.until.min(now.plus_seconds(self.shared.config.pending_s_max))
    }

    fn create_loose(&self, id: FragmentId, length: u32, generation: u64) -> Result<LooseFile, Refusal> {
        let shared = self.shared.clone();
        let failed = |error| shared.write_failed("can't create a file", &error);
        let file = shared.disk.create(&loose_path(&id, generation)).map_err(failed)?;
        let header = Header { id, length, place: Place::Loose { generation } }.encode(&shared.record_key);
        let loose = LooseFile { shared: shared.clone(), id, generation, file, recorded: false };
        loose.file.write_at(0, &header).map_err(failed)?;
        Ok(loose)
    }
}

impl std::fmt::Debug for Put {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Put({} of {} bytes of {})", self.0.received, self.0.length, self.0.id)
    }
}

impl Put {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`PutError`]; the put can only be dropped then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), PutError> {
        self.0.write(bytes)
    }

    /// Checks that these were the fragment's bytes, and waits until they and the claim are durable.
    ///
    /// # Errors
    /// [`PutError`].
    pub fn finish(self, now: Timestamp) -> Result<Stored, PutError> {
        self.0.finish(now)
    }
}

impl Arriving {
    fn write(&mut self, bytes: &[u8]) -> Result<(), PutError> {
        let start = self.received;
        self.received += u64::try_from(bytes.len()).expect("usize has at most 64 bits");
        if self.received > u64::from(self.length) {
            return Err(self.wrong_length());
        }
        self.hasher.update(bytes);
        match &mut self.sink {
            Sink::Packed(held) => held.extend_from_slice(bytes),
            Sink::Loose(loose) => {
                let written = loose.file.write_at(HEADER_LEN + start, bytes);
                written.map_err(|error| loose.shared.write_failed("can't write a file", &error))?;
            }
        }
        Ok(())
    }

    fn wrong_length(&self) -> PutError {
        PutError::WrongLength { expected: u64::from(self.length), received: self.received }
    }

    fn finish(self, now: Timestamp) -> Result<Stored, PutError> {
        if self.received != u64::from(self.length) {
            return Err(self.wrong_length());
        }
        let Arriving { mut reservation, id, length, claim, before, hasher, sink, .. } = self;
        let shared = reservation.shared.clone();
        let (actual, outboard) = hasher.finish();
        if actual != id {
            return Err(PutError::WrongHash { actual });
        }
        // Declared before the lock is taken: both let go of what they hold under the lock.
        let (data, mut written) = match sink {
            Sink::Packed(data) => (data, None),
            Sink::Loose(loose) => {
                let end = HEADER_LEN + u64::from(length);
                loose
                    .file
                    .write_at(end, &outboard)
                    .map_err(|error| shared.write_failed("can't write a file", &error))?;
                // Here and not by the committer: files of their own have no sync to share, so let them sync at once.
                let synced = loose.file.sync();
                synced.map_err(|error| shared.fail(format!("can't sync a file: {error}")))?;
                (Vec::new(), Some(Written::InFile(loose)))
            }
        };

        let mut state = shared.admit()?;
        if written.is_none() && !has_come(&state, &id, before) {
            drop(state);
            written = Some(Written::InVolume(shared.append_record(&id, &data, &outboard)?));
            state = shared.admit()?;
        }
        reservation.redeem(&mut state);
        let replaced = state.index.fragment(&id).and_then(|fragment| fragment.place);
        // When the fragment came here another way in the meantime, the first one stays.
        let recorded = match &mut written {
            Some(written) if !has_come(&state, &id, before) => {
                written.record(&mut state, id, length);
                true
            }
            _ => false,
        };
        let until = claim.until.min(now.plus_seconds(shared.config.pending_s_max));
        let until = state.record_claim(id, &claim.client, claim.access, (until, claim.asked));
        shared.commit(state)?;
        if let (true, Some(Place::Loose { generation })) = (recorded, replaced) {
            remove_loose(&shared, &id, generation);
        }
        Ok(Stored { id, length: u64::from(length), until })
    }
}

/// Whether right bytes of a fragment came to a new place since it lay at `before`. Whoever writes a record has hashed its
/// bytes; one that lay there all the time may have rotted unnoticed.
fn has_come(state: &State, id: &FragmentId, before: Option<Place>) -> bool {
    let fragment = state.index.fragment(id);
    fragment.is_some_and(|fragment| fragment.health == Health::Sound && fragment.place != before)
}

/// Where the bytes are before the index knows it.
enum Written {
    InVolume(Appended),
    InFile(LooseFile),
}

impl Written {
    /// Tells the index.
    fn record(&mut self, state: &mut State, id: FragmentId, length: u32) {
        match self {
            Written::InVolume(appended) => {
                let place = appended.place();
                state.record_in_volume(appended, &Entry::Placed { id, length, place });
            }
            Written::InFile(loose) => {
                loose.recorded = true;
                let place = Place::Loose { generation: loose.generation };
                state.record_in_dir(loose_dir_of(&id), &Entry::Placed { id, length, place });
            }
        }
    }
}

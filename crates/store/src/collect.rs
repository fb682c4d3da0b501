//! Giving space back: trash whose time is over is freed, and volumes that are mostly dead are rewritten.
//!
//! While space is short, trash goes before its time, oldest first, and any volume with dead bytes may be rewritten:
//! a provider that is full must take fragments again as soon as others are released. Each call does a bounded amount of
//! work; the caller sets the pace.

use crate::config::CLAIMS_PER_CALL_MAX;
use crate::disk::{is_missing, is_unreadable};
use crate::entry::{Entry, Head};
use crate::index::Health;
use crate::put::remove_loose;
use crate::read::Found;
use crate::record::{Place, record_len, volume_path};
use crate::shared::{Appended, Ballast, Refusal, Shared, State};
use crate::store::{Store, restore_ballast};
use seedbank_formats::slice::FragmentHasher;
use seedbank_formats::{DatasetId, Timestamp};
use std::io;
use std::sync::Arc;

/// Records that are moved in one commit: few enough that a reader's retry is rare, many enough to share the syncs.
const MOVES_PER_COMMIT: usize = 64;

/// What a call of [`Store::collect`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Fragments freed from trash.
    pub fragments: u64,
    /// Bytes of their records.
    pub freed_bytes: u64,
    /// Bytes of records that were moved out of volumes.
    pub moved_bytes: u64,
    /// Volumes given back to the disk.
    pub volumes: u64,
    /// Whether the budget ended before the work.
    pub more: bool,
}

/// Why nothing more was collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// Not even the reserve had room. Try again later.
    #[error("the disk is full")]
    Full,
    /// Nothing may be written.
    #[error("the store is read-only: {reason}")]
    ReadOnly {
        /// Why.
        reason: String,
    },
    /// A volume can't be read for now. Try again later.
    #[error("the disk can't be read")]
    Disk(#[source] io::Error),
}

impl From<Refusal> for CollectError {
    fn from(refusal: Refusal) -> CollectError {
        match refusal {
            Refusal::Full => CollectError::Full,
            Refusal::ReadOnly { reason } => CollectError::ReadOnly { reason },
        }
    }
}

/// A record in a volume.
#[derive(Debug, Clone, Copy)]
struct Resident {
    found: Found,
    /// The dataset whose head it is; else it is a fragment.
    head_of: Option<DatasetId>,
}

/// A record that was copied out of its volume.
struct Move {
    resident: Resident,
    /// `None`: there was nothing left to copy.
    to: Option<Appended>,
    health: Health,
}

impl Shared {
    /// Bytes that are missing for what was last refused.
    fn shortage(&self, state: &State, free_on_disk: u64) -> u64 {
        let used = state.used_bytes() + state.wanted_bytes;
        let reserve = self.config.reserve_bytes + state.reserved_bytes + state.wanted_bytes;
        used.saturating_sub(self.config.capacity_bytes).max(reserve.saturating_sub(free_on_disk))
    }

    fn free_trash(&self, now: Timestamp, collected: &mut Collected) -> Result<(), Refusal> {
        let mut short = {
            let free_on_disk = self.free_on_disk()?;
            let state = self.lock();
            // What is dead already comes back by compaction.
            self.shortage(&state, free_on_disk).saturating_sub(state.index.totals().dead_bytes())
        };
        loop {
            let mut state = self.admit()?;
            let mut due = Vec::new();
            for (since, id, bytes) in state.index.trash() {
                let over = since.plus_seconds(self.config.grace_s) <= now;
                if due.len() == CLAIMS_PER_CALL_MAX || !(over || short > 0) {
                    break;
                }
                short = short.saturating_sub(bytes);
                due.push((id, bytes));
            }
            if due.is_empty() {
                return Ok(());
            }
            let mut files = Vec::new();
            for (id, bytes) in &due {
                let place = state.index.fragment(id).and_then(|fragment| fragment.place);
                if let Some(Place::Loose { generation }) = place {
                    files.push((*id, generation));
                }
                state.record(&Entry::Freed { id: *id });
                collected.fragments += 1;
                collected.freed_bytes += bytes;
            }
            self.commit(state)?;
            files.iter().for_each(|(id, generation)| remove_loose(self, id, *generation));
        }
    }

    fn remove_empty_volumes(&self, collected: &mut Collected) -> Result<(), Refusal> {
        let is_empty = |state: &State| {
            let empty = state
                .index
                .volumes()
                .filter(|(number, volume)| volume.live == 0 && !state.is_in_use(*number));
            empty.map(|(number, _)| number).collect::<Vec<_>>()
        };
        let state = self.admit()?;
        let empty = is_empty(&state);
        if empty.is_empty() {
            return Ok(());
        }
        // That they are empty must be durable before they go.
        self.commit(state)?;
        for number in empty {
            let mut state = self.lock();
            state.index.remove_volume(number);
            state.unmovable.remove(&number);
            drop(state);
            match self.files.remove(&volume_path(number)) {
                Ok(()) => collected.volumes += 1,
                Err(error) if is_missing(&error) => {}
                Err(error) => tracing::warn!(volume = number, %error, "can't remove a volume"),
            }
        }
        Ok(())
    }

    /// The volume that is worth rewriting most.
    fn next_to_compact(&self) -> Result<Option<u32>, Refusal> {
        let free_on_disk = self.free_on_disk()?;
        let mut state = self.lock();
        let short = self.shortage(&state, free_on_disk);
        // Moving records is in vain unless it makes enough room.
        let pressed = short > 0 && state.index.totals().dead_bytes() >= short;
        let choose = |state: &State| {
            let worth = state.index.volumes().filter(|(number, volume)| {
                let free_to_go = !state.is_in_use(*number) && !state.unmovable.contains(number);
                let mostly_dead = volume.live * 2 < volume.end;
                free_to_go && volume.live > 0 && (mostly_dead || (pressed && volume.dead() > 0))
            });
            worth.min_by_key(|(_, volume)| volume.live * 1000 / volume.end).map(|(number, _)| number)
        };
        if let Some(number) = choose(&state) {
            return Ok(Some(number));
        }
        if !pressed {
            return Ok(None);
        }
        state.retire_active_volume();
        Ok(choose(&state))
    }

    fn residents(&self, number: u32) -> Vec<Resident> {
        let state = self.lock();
        let here =
            |place: Option<Place>| matches!(place, Some(Place::Volume { number: n, .. }) if n == number);
        let fragments = state.index.fragments_after(None).filter(|(_, fragment)| here(fragment.place));
        let fragments = fragments.map(|(id, fragment)| Resident {
            found: Found { id: *id, length: fragment.length, health: fragment.health, place: fragment.place },
            head_of: None,
        });
        let heads = state.index.heads().filter(|(_, head)| here(head.place));
        let heads = heads.map(|(dataset, head)| Resident {
            found: Found { id: head.id, length: head.length, health: Health::Sound, place: head.place },
            head_of: Some(*dataset),
        });
        let mut residents = fragments.chain(heads).collect::<Vec<_>>();
        residents.sort_unstable_by_key(|resident| resident.found.place);
        residents
    }

    /// Moves up to `budget` bytes of records out of a volume; says how many.
    fn empty_volume(self: &Arc<Shared>, number: u32, budget: u64) -> Result<u64, CollectError> {
        let mut moved = 0;
        let mut moves = Vec::new();
        for resident in self.residents(number) {
            if moved >= budget {
                break;
            }
            moves.extend(self.copy(number, resident)?);
            moved += record_len(resident.found.length);
            if moves.len() >= MOVES_PER_COMMIT {
                self.record_moves(&mut moves)?;
            }
        }
        self.record_moves(&mut moves)?;
        Ok(moved)
    }

    /// Copies a record to the active volume. Wrong bytes are copied as they are, and known as such.
    fn copy(self: &Arc<Shared>, number: u32, resident: Resident) -> Result<Option<Move>, CollectError> {
        let found = &resident.found;
        let (data, stored_outboard) = match self.read_whole(found) {
            Ok(read) => read,
            Err(error) if is_missing(&error) => {
                return Ok(Some(Move { resident, to: None, health: Health::Rotten }));
            }
            Err(error) if is_unreadable(&error) => {
                // The sector may be readable again one day: leave it all where it is.
                self.note_rot(found);
                self.lock().unmovable.insert(number);
                return Ok(None);
            }
            Err(error) => return Err(CollectError::Disk(error)),
        };
        let mut hasher = FragmentHasher::default();
        hasher.update(&data);
        let (actual, outboard) = hasher.finish();
        let (health, outboard) = match actual == found.id {
            true => (Health::Sound, outboard),
            false => (Health::Rotten, stored_outboard),
        };
        let to = self.append_record(&found.id, &data, &outboard)?;
        Ok(Some(Move { resident, to: Some(to), health }))
    }

    fn record_moves(&self, moves: &mut Vec<Move>) -> Result<(), Refusal> {
        if moves.is_empty() {
            return Ok(());
        }
        let mut state = self.admit()?;
        for step in moves.iter() {
            record_move(&mut state, step);
        }
        self.commit(state)?;
        // Only now: each holds on to the volume that it went to, and lets go under the lock.
        moves.clear();
        Ok(())
    }
}

/// Tells the index of a move, unless the record went or was replaced in the meantime.
fn record_move(state: &mut State, step: &Move) {
    let Found { id, place, .. } = step.resident.found;
    let to = step.to.as_ref().map(Appended::place);
    let entry = match step.resident.head_of {
        Some(dataset) => {
            let head = state.index.head(&dataset).filter(|head| head.place == place).copied();
            head.map(|head| Entry::Head { dataset, head: Head { place: to, ..head } })
        }
        None => {
            let fragment = state.index.fragment(&id).filter(|fragment| fragment.place == place);
            let rotted = fragment.is_some_and(|fragment| fragment.health == Health::Sound)
                && step.health == Health::Rotten;
            let entry = fragment.map(|_| Entry::Moved { id, place: to });
            if rotted {
                tracing::error!(fragment = %id, "stored bytes don't match their id");
                state.record(&Entry::Rotten { id });
            }
            entry
        }
    };
    match (entry, &step.to) {
        (Some(entry), Some(appended)) => state.record_in_volume(appended, &entry),
        (Some(entry), None) => state.record(&entry),
        (None, _) => {}
    }
}

impl Store {
    /// Frees trash, gives empty volumes back to the disk, and moves at most about `budget_bytes` of records out of
    /// volumes that are mostly dead.
    ///
    /// # Errors
    /// [`CollectError`]; part of the work may be done then.
    pub fn collect(&self, now: Timestamp, budget_bytes: u64) -> Result<Collected, CollectError> {
        let shared = &self.shared;
        let mut collected = Collected::default();
        shared.free_trash(now, &mut collected)?;
        shared.remove_empty_volumes(&mut collected)?;
        while let Some(number) = shared.next_to_compact()? {
            if collected.moved_bytes >= budget_bytes {
                collected.more = true;
                break;
            }
            collected.moved_bytes += shared.empty_volume(number, budget_bytes - collected.moved_bytes)?;
            shared.remove_empty_volumes(&mut collected)?;
        }
        if shared.lock().ballast == Ballast::GivenUp {
            let ballast = restore_ballast(shared.disk.as_ref(), &shared.config);
            shared.lock().ballast =
                ballast.map_err(|error| shared.write_failed("can't write the ballast", &error))?;
        }
        Ok(collected)
    }
}

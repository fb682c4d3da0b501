//! Giving fragments out.

use crate::disk::{is_damage, is_missing, is_unreadable};
use crate::entry::{ClaimAccess, Entry};
use crate::index::Health;
use crate::put::Access;
use crate::record::{HEADER_LEN, Header, Place, file_of, record_len};
use crate::shared::{Mode, Shared};
use crate::store::Store;
use seedbank_formats::slice::{self, FragmentHasher};
use seedbank_formats::{FragmentId, PublicKey, Timestamp};
use std::io;
use std::ops::Range;

/// How much of a large fragment is read at once to hash it.
const PIECE_BYTES: u64 = 1024 * 1024;

/// Why bytes were not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The fragment is not here: ask another provider.
    #[error("fragment {0} is not stored here")]
    Absent(FragmentId),
    /// It is, but its bytes are not what they were: ask another provider.
    #[error("fragment {0} is rotten here")]
    Rotten(FragmentId),
    /// The range is not inside the fragment: ask for less.
    #[error("the range lies outside the fragment's {length} bytes")]
    OutOfRange {
        /// The fragment's bytes.
        length: u64,
    },
    /// Try again, or elsewhere.
    #[error("the disk can't be read")]
    Disk(#[source] io::Error),
}

/// An answer that can be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SliceAnswer {
    /// A slice that was checked against the fragment's id.
    Proven(Vec<u8>),
    /// The bytes of this range no longer match the id. It is noted.
    Rotten,
}

/// What is known of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentInfo {
    /// Its bytes.
    pub length: u64,
    /// Whether they are right, as far as anybody looked.
    pub health: Health,
}

/// One claim's word on who may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Whose claim.
    pub client: PublicKey,
    /// Who may read.
    pub access: Access,
}

/// A fragment as the index had it at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) id: FragmentId,
    pub(crate) length: u32,
    pub(crate) health: Health,
    pub(crate) place: Option<Place>,
}

/// What a look at all of a fragment's bytes showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Examined {
    /// All is right.
    Sound,
    /// The bytes are right; header or outboard were not, and are now.
    Repaired,
    /// The bytes are wrong or unreadable.
    Rotten,
    /// The fragment moved or went while we looked.
    Elsewhere,
}

impl Shared {
    fn find(&self, id: &FragmentId) -> Option<Found> {
        let state = self.lock();
        let fragment = state.index.claimed(id)?;
        Some(Found { id: *id, length: fragment.length, health: fragment.health, place: fragment.place })
    }

    /// Reads `into.len()` bytes of a record from `start` behind its header.
    fn read_record(&self, found: &Found, start: u64, into: &mut [u8]) -> io::Result<()> {
        let place = found.place.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let (path, offset) = file_of(&found.id, place);
        self.files.get(&path)?.read_at(offset + HEADER_LEN + start, into)
    }

    /// Reads a found record, wherever it moves to in the meantime.
    fn read_found<T>(
        &self,
        found: &mut Found,
        mut read: impl FnMut(&Found) -> io::Result<T>,
    ) -> Result<T, ReadError> {
        loop {
            match read(found) {
                Ok(value) => return Ok(value),
                Err(error) => match self.find(&found.id) {
                    None => return Err(ReadError::Absent(found.id)),
                    Some(again) if again.place != found.place => *found = again,
                    Some(_) if is_missing(&error) => {
                        self.note_rot(found);
                        return Err(ReadError::Rotten(found.id));
                    }
                    Some(_) => return Err(ReadError::Disk(error)),
                },
            }
        }
    }

    /// Notes that a fragment's bytes are wrong, if they are still those that we saw.
    pub(crate) fn note_rot(&self, found: &Found) {
        let mut state = self.lock();
        let same = state
            .index
            .fragment(&found.id)
            .is_some_and(|fragment| fragment.place == found.place && fragment.health == Health::Sound);
        if same {
            tracing::error!(fragment = %found.id, "stored bytes don't match their id");
            state.record(&Entry::Rotten { id: found.id });
            self.submit(&mut state);
        }
    }

    /// Reads and hashes a whole fragment. Header and outboard that don't fit right bytes are written anew in place: they
    /// follow from the bytes, so half a repair is found and repaired like the rot itself.
    pub(crate) fn examine(&self, found: &Found) -> io::Result<Examined> {
        let looked = self.look_at_all(found);
        let state = self.lock();
        let fragment = state.index.fragment(&found.id);
        if fragment.is_none_or(|fragment| fragment.place != found.place) {
            return Ok(Examined::Elsewhere);
        }
        drop(state);
        let looked = match looked {
            Err(error) if is_damage(&error) => None,
            looked => looked?,
        };
        let Some(outboard) = looked else {
            self.note_rot(found);
            return Ok(Examined::Rotten);
        };
        self.mend(found, &outboard)
    }

    /// The outboard as it must be, or `None` when the bytes are wrong.
    fn look_at_all(&self, found: &Found) -> io::Result<Option<Vec<u8>>> {
        let length = u64::from(found.length);
        let mut hasher = FragmentHasher::default();
        let mut piece = vec![0; usize_of(PIECE_BYTES.min(length))];
        let mut start = 0;
        while start < length {
            let now = usize_of(PIECE_BYTES.min(length - start));
            self.read_record(found, start, &mut piece[..now])?;
            hasher.update(&piece[..now]);
            start += PIECE_BYTES;
        }
        let (actual, outboard) = hasher.finish();
        Ok((actual == found.id).then_some(outboard))
    }

    fn mend(&self, found: &Found, outboard: &[u8]) -> io::Result<Examined> {
        let Some(place) = found.place else {
            return Ok(Examined::Rotten);
        };
        let may_write = self.lock().mode == Mode::ReadWrite;
        let (path, offset) = file_of(&found.id, place);
        let file = self.files.get(&path)?;
        let header = Header { id: found.id, length: found.length, place }.encode(&self.record_key);
        let behind = offset + HEADER_LEN + u64::from(found.length);
        let failed = |error: &io::Error| {
            let _refusal = self.fail(format!("can't repair a record: {error}"));
        };
        let mut examined = Examined::Sound;
        for (at, right) in [(offset, header.as_slice()), (behind, outboard)] {
            let mut stored = vec![0; right.len()];
            match file.read_at(at, &mut stored) {
                Err(error) if !is_damage(&error) => return Err(error),
                Ok(()) if stored == right => {}
                _ if !may_write => return Err(io::Error::other("a read-only store repairs nothing")),
                _ => {
                    tracing::warn!(fragment = %found.id, "damaged record repaired");
                    file.write_at(at, right).inspect_err(failed)?;
                    examined = Examined::Repaired;
                }
            }
        }
        if examined == Examined::Repaired {
            file.sync().inspect_err(failed)?;
        }
        Ok(examined)
    }

    /// All bytes of a small record behind its header: data and outboard, unchecked.
    pub(crate) fn read_whole(&self, found: &Found) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let length = u64::from(found.length);
        let mut data = vec![0; usize_of(record_len(found.length) - HEADER_LEN)];
        self.read_record(found, 0, &mut data)?;
        let outboard = data.split_off(usize_of(length));
        Ok((data, outboard))
    }
}

pub(crate) fn usize_of(value: u64) -> usize {
    usize::try_from(value).expect("at most the bytes of one fragment")
}

impl Store {
    /// What is known of a fragment; `None` when it is not here or lies in trash.
    #[must_use]
    pub fn fragment(&self, id: &FragmentId) -> Option<FragmentInfo> {
        let found = self.shared.find(id)?;
        Some(FragmentInfo { length: u64::from(found.length), health: found.health })
    }

    /// Who may read a fragment at `now`; `None` when it is not here.
    #[must_use]
    pub fn access(&self, id: &FragmentId, now: Timestamp) -> Option<Vec<Grant>> {
        let state = self.shared.lock();
        let claims = state.index.claimed(id)?.claims().iter().filter(|claim| claim.until >= now);
        let grants = claims.map(|claim| Grant {
            client: state.index.key(claim.client),
            access: match claim.access {
                ClaimAccess::Owner => Access::Owner,
                ClaimAccess::Public => Access::Public,
                ClaimAccess::Reader(number) => Access::Reader(state.index.key(number)),
            },
        });
        Some(grants.collect())
    }

    /// Bytes of a fragment as the disk gives them. They are not checked: a reader checks what it gets, and
    /// [`Store::slice`] is for what must be right.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&self, id: &FragmentId, range: Range<u64>) -> Result<Vec<u8>, ReadError> {
        let found = self.shared.find(id).ok_or(ReadError::Absent(*id))?;
        let length = u64::from(found.length);
        if range.start > range.end || range.end > length {
            return Err(ReadError::OutOfRange { length });
        }
        let mut bytes = vec![0; usize_of(range.end - range.start)];
        self.read_into(id, range.start, &mut bytes)?;
        Ok(bytes)
    }

    /// As [`Store::read`], into memory that the caller has: one call per piece of a long answer.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read_into(&self, id: &FragmentId, start: u64, into: &mut [u8]) -> Result<(), ReadError> {
        let mut found = self.shared.find(id).ok_or(ReadError::Absent(*id))?;
        let length = u64::from(found.length);
        let wanted = u64::try_from(into.len()).expect("usize has at most 64 bits");
        if start.checked_add(wanted).is_none_or(|end| end > length) {
            return Err(ReadError::OutOfRange { length });
        }
        if found.health == Health::Rotten {
            return Err(ReadError::Rotten(*id));
        }
        self.shared.read_found(&mut found, |found| self.shared.read_record(found, start, into))
    }

    /// Bytes of a fragment and some nodes of its outboard, as the disk gives them: what a proof of possession is made of. Nodes
    /// are named by where they begin in the outboard. Only these are read, so it costs the same however long the fragment is.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read_with_nodes(
        &self,
        id: &FragmentId,
        range: Range<u64>,
        nodes: &[u64],
    ) -> Result<(Vec<u8>, Vec<[u8; 64]>), ReadError> {
        let mut found = self.shared.find(id).ok_or(ReadError::Absent(*id))?;
        let length = u64::from(found.length);
        let outside = nodes.iter().any(|node| node.saturating_add(64) > slice::outboard_len(length));
        if range.start > range.end || range.end > length || outside {
            return Err(ReadError::OutOfRange { length });
        }
        self.shared.read_found(&mut found, |found| {
            let mut bytes = vec![0; usize_of(range.end - range.start)];
            self.shared.read_record(found, range.start, &mut bytes)?;
            let mut read = Vec::with_capacity(nodes.len());
            for node in nodes {
                let mut pair = [0; 64];
                self.shared.read_record(found, length + node, &mut pair)?;
                read.push(pair);
            }
            Ok((bytes, read))
        })
    }

    /// A slice for a range, checked against the fragment's id before it is given out. Ranges that are still right can be
    /// had of a rotten fragment too.
    ///
    /// # Errors
    /// [`ReadError`], but never [`ReadError::Rotten`]: that is an answer.
    pub fn slice(&self, id: &FragmentId, range: Range<u64>) -> Result<SliceAnswer, ReadError> {
        let shared = &self.shared;
        let mut found = shared.find(id).ok_or(ReadError::Absent(*id))?;
        let length = u64::from(found.length);
        let covered = slice::covered(length, &range).map_err(|_| ReadError::OutOfRange { length })?;
        // The second time is for a record that was repaired, or moved, after the first.
        for _ in 0..2 {
            let read = shared.read_found(&mut found, |found| {
                let mut data = vec![0; usize_of(covered.end - covered.start)];
                let mut outboard = vec![0; usize_of(slice::outboard_len(length))];
                let read = shared
                    .read_record(found, covered.start, &mut data)
                    .and_then(|()| shared.read_record(found, length, &mut outboard));
                match read {
                    Err(error) if is_unreadable(&error) => Ok(None),
                    read => read.map(|()| Some((data, outboard))),
                }
            });
            let read = match read {
                Err(ReadError::Rotten(_)) => return Ok(SliceAnswer::Rotten),
                read => read?,
            };
            if let Some((data, outboard)) = read {
                let slice = slice::encode(length, &outboard, &range, &data)
                    .expect("data and outboard have the lengths that the range asks for");
                if slice::verify(id, length, &range, &slice).is_ok() {
                    return Ok(SliceAnswer::Proven(slice));
                }
            }
            if found.health == Health::Rotten {
                return Ok(SliceAnswer::Rotten);
            }
            match shared.examine(&found).map_err(ReadError::Disk)? {
                Examined::Rotten => return Ok(SliceAnswer::Rotten),
                Examined::Sound | Examined::Repaired => {}
                Examined::Elsewhere => found = shared.find(id).ok_or(ReadError::Absent(*id))?,
            }
        }
        Err(ReadError::Disk(io::Error::other("the disk gives other bytes each time")))
    }
}

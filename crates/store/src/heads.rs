//! Keeping each dataset's newest head, so that a reader finds the dataset while its owner is away.
//!
//! The store compares sequence numbers only. Whether a head is signed by whom it should be is checked before it gets
//! here.

use crate::config::HEAD_BYTES_MAX;
use crate::disk::is_damage;
use crate::entry::{Entry, Head};
use crate::index::Health;
use crate::read::Found;
use crate::record::record_len;
use crate::shared::{Refusal, Shared};
use crate::store::Store;
use seedbank_formats::slice::FragmentHasher;
use seedbank_formats::{DatasetId, FragmentId};
use std::io;

/// A head as it was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredHead {
    /// Its sequence number.
    pub sequence: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Why a head can't be given.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// Its bytes rotted here: ask another provider. The owner may put it again.
    #[error("the head of sequence {sequence} is rotten here")]
    Rotten {
        /// The sequence number that is still known, and defended against lower ones.
        sequence: u64,
    },
    /// Try again, or elsewhere.
    #[error("the disk can't be read")]
    Disk(#[source] io::Error),
}

/// Why a head was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutHeadError {
    /// There is a head of a higher sequence, or another one of the same: look at it first.
    #[error("a head of sequence {} is here", newest.sequence)]
    Stale {
        /// What is here. Its bytes are empty when they rotted.
        newest: StoredHead,
    },
    /// Heads have 1 to [`HEAD_BYTES_MAX`] bytes.
    #[error("a head has 1 to {HEAD_BYTES_MAX} bytes, not {0}")]
    Length(usize),
    /// The client should go elsewhere.
    #[error("the store has no room for heads")]
    Full,
    /// The client should go elsewhere.
    #[error("the store is read-only: {reason}")]
    ReadOnly {
        /// Why.
        reason: String,
    },
}

impl From<Refusal> for PutHeadError {
    fn from(refusal: Refusal) -> PutHeadError {
        match refusal {
            Refusal::Full => PutHeadError::Full,
            Refusal::ReadOnly { reason } => PutHeadError::ReadOnly { reason },
        }
    }
}

impl Shared {
    fn newest(&self, dataset: &DatasetId) -> Option<Head> {
        self.lock().index.head(dataset).copied()
    }

    /// The head's bytes; `None` when they rotted.
    pub(crate) fn read_head(&self, head: &Head) -> io::Result<Option<Vec<u8>>> {
        let found = Found { id: head.id, length: head.length, health: Health::Sound, place: head.place };
        match self.read_whole(&found) {
            Ok((bytes, _)) => Ok((FragmentId::of(&bytes) == head.id).then_some(bytes)),
            Err(error) if is_damage(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As [`Shared::read_head`] of the newest head, wherever it moves to in the meantime.
    fn read_newest(&self, dataset: &DatasetId) -> io::Result<Option<(Head, Option<Vec<u8>>)>> {
        let Some(mut head) = self.newest(dataset) else {
            return Ok(None);
        };
        loop {
            let read = self.read_head(&head);
            match self.newest(dataset) {
                Some(again) if again != head && !matches!(read, Ok(Some(_))) => head = again,
                _ => return read.map(|bytes| Some((head, bytes))),
            }
        }
    }
}

impl Store {
    /// Whether there is a head of this dataset, readable or not.
    #[must_use]
    pub fn has_head(&self, dataset: &DatasetId) -> bool {
        self.shared.newest(dataset).is_some()
    }

    /// The newest head of a dataset, if there is one.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn head(&self, dataset: &DatasetId) -> Result<Option<StoredHead>, HeadError> {
        match self.shared.read_newest(dataset).map_err(HeadError::Disk)? {
            None => Ok(None),
            Some((head, Some(bytes))) => Ok(Some(StoredHead { sequence: head.sequence, bytes })),
            Some((head, None)) => Err(HeadError::Rotten { sequence: head.sequence }),
        }
    }

    /// Takes a head, durably, if none of a higher sequence and no other of the same is here. Putting the same head
    /// again is no fault, and heals it when it rotted.
    ///
    /// # Errors
    /// [`PutHeadError`].
    pub fn put_head(&self, dataset: &DatasetId, sequence: u64, bytes: &[u8]) -> Result<(), PutHeadError> {
        let shared = &self.shared;
        if bytes.is_empty() || bytes.len() > HEAD_BYTES_MAX {
            return Err(PutHeadError::Length(bytes.len()));
        }
        let length = u32::try_from(bytes.len()).expect("a head is far below 4 GiB");
        let mut hasher = FragmentHasher::default();
        hasher.update(bytes);
        let (id, outboard) = hasher.finish();
        let is_same = |head: &Head| head.sequence == sequence && head.id == id;

        if let Some(newest) = shared.newest(dataset) {
            // A head that can't be read is as good as a rotten one here: its sequence counts, its bytes don't.
            let (head, stored) = shared.read_newest(dataset).ok().flatten().unwrap_or((newest, None));
            if is_same(&head) && stored.is_some() {
                // It may be on its way to the disk for somebody else.
                return Ok(shared.commit(shared.admit()?)?);
            }
            if head.sequence >= sequence && !is_same(&head) {
                let bytes = stored.unwrap_or_default();
                return Err(PutHeadError::Stale { newest: StoredHead { sequence: head.sequence, bytes } });
            }
        }

        let free_on_disk = shared.free_on_disk()?;
        {
            let mut state = shared.admit()?;
            let before = state.index.head(dataset).map_or(0, |head| u64::from(head.length));
            let heads = state.index.totals().head_bytes - before + u64::from(length);
            if heads > shared.config.heads_bytes_max {
                return Err(PutHeadError::Full);
            }
            shared.check_space(&mut state, free_on_disk, record_len(length))?;
        }
        let appended = shared.append_record(&id, bytes, &outboard)?;
        let mut state = shared.admit()?;
        if let Some(head) = state.index.head(dataset).copied()
            && head.sequence >= sequence
            && !is_same(&head)
        {
            // Another came while this one was written.
            drop(state);
            let bytes = shared.read_head(&head).ok().flatten().unwrap_or_default();
            return Err(PutHeadError::Stale { newest: StoredHead { sequence: head.sequence, bytes } });
        }
        let head = Head { sequence, id, length, place: Some(appended.place()) };
        state.record_in_volume(&appended, &Entry::Head { dataset: *dataset, head });
        Ok(shared.commit(state)?)
    }
}

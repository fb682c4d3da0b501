//! Whether the daemon takes changes, as the last look at the disk says.
//!
//! A disk that *fails* turns the store itself read-only, until a person has looked and restarts the daemon. A disk that
//! only *hangs* fails nothing: the gate closes while a probe is late, so that clients go elsewhere at once instead of
//! waiting, and opens again when that probe comes back.

use seedbank_protocol::messages::{Problem, ProblemCode};
use seedbank_store::{Mode, Store};
use std::sync::{Mutex, PoisonError};

/// The gate, open at first.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    closed: Mutex<Option<String>>,
}

/// What passed through the gate's hinge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It was open and is closed now, or the other way round.
    Turned,
    /// It is as it was.
    Stayed,
}

impl Gate {
    fn set(&self, reason: Option<String>) -> Turn {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = if closed.is_some() == reason.is_some() { Turn::Stayed } else { Turn::Turned };
        *closed = reason;
        turn
    }

    /// Takes no changes from now on.
    pub(crate) fn close(&self, reason: &str) -> Turn {
        self.set(Some(reason.to_owned()))
    }

    /// Takes changes again, as far as the store does.
    pub(crate) fn open(&self) -> Turn {
        self.set(None)
    }

    /// Why no changes are taken, if so.
    pub(crate) fn closed_because(&self, store: &Store) -> Option<String> {
        match store.mode() {
            Mode::ReadOnly { reason } => Some(reason),
            Mode::ReadWrite => self.closed.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Lets changes through, or says why not.
    pub(crate) fn pass(&self, store: &Store) -> Result<(), Problem> {
        match self.closed_because(store) {
            None => Ok(()),
            Some(reason) => Err(read_only(&reason)),
        }
    }
}

/// The refusal of a change. What exactly fails is for the operator's log.
pub(crate) fn read_only(reason: &str) -> Problem {
    tracing::debug!(reason, "change refused");
    Problem::new(ProblemCode::ReadOnly, "this provider takes no changes at the moment: its disk needs care")
}

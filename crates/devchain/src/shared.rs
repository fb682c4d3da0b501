//! What the sequencer, the follower and the readers share.

use crate::clock::Clock;
use crate::genesis::Genesis;
use crate::recent::{Past, Recent, Undo};
use crate::store::{Store, StoreError};
use crate::waiting::Waiting;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

/// The chain as everybody sees it.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) genesis: Genesis,
    recent: RwLock<Recent>,
    clock: Mutex<Clock>,
    waiting: Mutex<Waiting>,
}

impl Shared {
    pub(crate) fn new(store: Store, genesis: Genesis, clock: Clock, waiting: Waiting) -> Shared {
        Shared {
            store,
            genesis,
            recent: RwLock::default(),
            clock: Mutex::new(clock),
            waiting: Mutex::new(waiting),
        }
    }

    /// Adds what new blocks changed, before they can be read.
    pub(crate) fn remember(&self, undos: Vec<(u64, Undo)>) {
        // Nobody panics while holding it, and what it holds is whole between any two statements.
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        for (number, undo) in undos {
            recent.push(number, undo);
        }
    }

    pub(crate) fn clock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state after block `number`; `None` if that is too long ago, or not yet.
    pub(crate) fn state_after(&self, number: u64) -> Result<Option<Past>, StoreError> {
        let newest = self.store.snapshot()?;
        let head = newest.head()?.map_or(0, |block| block.number());
        if number > head {
            return Ok(None);
        }
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        let undos = recent.between(number, head);
        Ok(undos.map(|undos| Past { newest, undos }))
    }
}

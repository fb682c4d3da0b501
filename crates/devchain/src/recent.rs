//! The state after each of the last blocks: what it takes to go back from the newest.
//!
//! Tools pin their reads to a block while others send transactions. It is kept in memory only: after a restart the past
//! begins with the newest block.

use crate::state::{Account, State};
use crate::store::{Snapshot, StoreError};
use alloy_primitives::{Address, B256, Bytes, U256};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Two hours of heartbeats. A tool that pins a block is done with it in minutes.
pub const STATES_KEPT: usize = 128;

/// What a block changed, as it was before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Undo {
    pub(crate) accounts: HashMap<Address, Option<Account>>,
    pub(crate) slots: HashMap<(Address, U256), U256>,
}

/// How to go back from the newest block.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    undos: VecDeque<(u64, Arc<Undo>)>,
}

impl Recent {
    /// Adds the next block's. It must be there before the block can be read.
    pub(crate) fn push(&mut self, number: u64, undo: Undo) {
        if self.undos.len() == STATES_KEPT {
            self.undos.pop_front();
        }
        self.undos.push_back((number, Arc::new(undo)));
    }

    /// How to go back from `head` to `number`, oldest first; `None` if that is too long ago.
    pub(crate) fn between(&self, number: u64, head: u64) -> Option<Vec<Arc<Undo>>> {
        if number == head {
            return Some(Vec::new());
        }
        let (first, _) = self.undos.front()?;
        if *first > number + 1 {
            return None;
        }
        let wanted = self.undos.iter().filter(|(of, _)| (number + 1..=head).contains(of));
        Some(wanted.map(|(_, undo)| Arc::clone(undo)).collect())
    }
}

/// The state as it was after some block.
pub(crate) struct Past {
    pub(crate) newest: Snapshot,
    pub(crate) undos: Vec<Arc<Undo>>,
}

impl State for Past {
    fn account(&self, address: Address) -> Result<Option<Account>, StoreError> {
        match self.undos.iter().find_map(|undo| undo.accounts.get(&address)) {
            Some(account) => Ok(*account),
            None => self.newest.account(address),
        }
    }

    fn code(&self, hash: B256) -> Result<Bytes, StoreError> {
        self.newest.code(hash)
    }

    fn slot(&self, address: Address, slot: U256) -> Result<U256, StoreError> {
        match self.undos.iter().find_map(|undo| undo.slots.get(&(address, slot))) {
            Some(value) => Ok(*value),
            None => self.newest.slot(address, slot),
        }
    }

    fn block_hash(&self, number: u64) -> Result<Option<B256>, StoreError> {
        self.newest.block_hash(number)
    }
}

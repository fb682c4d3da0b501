//! Transactions that came before their turn: those of a sender with a gap before them.

use crate::transaction::Transaction;
use alloy_primitives::{Address, B256};
use std::collections::{BTreeMap, HashMap};

/// A sender that is further ahead lost a transaction, and should find out.
pub const WAITING_PER_SENDER_MAX: usize = 64;

/// Keys cost nothing, so their number is no bound: this many transactions wait in all.
const WAITING_MAX: usize = 4_096;

/// Why a transaction may not wait.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WaitError {
    #[error(
        "nonce too high: transaction nonce {nonce}, next nonce {next}, and {WAITING_PER_SENDER_MAX} transactions of \
         this sender wait already: send nonce {next} first"
    )]
    SenderFull { nonce: u64, next: u64 },
    #[error(
        "nonce too high: transaction nonce {nonce}, next nonce {next}, and no more transactions may wait: send nonce {next}"
    )]
    Full { nonce: u64, next: u64 },
    #[error("already known")]
    Known,
    #[error(
        "replacement transaction underpriced: nonce {nonce} waits already; only a higher gas price replaces it"
    )]
    Underpriced { nonce: u64 },
}

/// All that wait.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    senders: HashMap<Address, BTreeMap<u64, Transaction>>,
    count: usize,
}

impl Waiting {
    /// Takes a transaction whose turn is later than `next`.
    pub(crate) fn add(&mut self, transaction: Transaction, next: u64) -> Result<(), WaitError> {
        let nonce = transaction.nonce();
        let own = self.senders.get(&transaction.sender());
        match own.and_then(|own| own.get(&nonce)) {
            Some(old) if old.hash() == transaction.hash() => return Err(WaitError::Known),
            Some(old) if price(&transaction) <= price(old) => return Err(WaitError::Underpriced { nonce }),
            Some(_) => {}
            None if own.is_some_and(|own| own.len() >= WAITING_PER_SENDER_MAX) => {
                return Err(WaitError::SenderFull { nonce, next });
            }
            None if self.count >= WAITING_MAX => return Err(WaitError::Full { nonce, next }),
            None => self.count += 1,
        }
        self.senders.entry(transaction.sender()).or_default().insert(nonce, transaction);
        Ok(())
    }

    /// Takes out the transaction whose turn it is.
    pub(crate) fn take(&mut self, sender: Address, nonce: u64) -> Option<Transaction> {
        let own = self.senders.get_mut(&sender)?;
        let taken = own.remove(&nonce);
        if own.is_empty() {
            self.senders.remove(&sender);
        }
        self.count -= usize::from(taken.is_some());
        taken
    }

    /// The transaction of this hash.
    pub(crate) fn find(&self, hash: B256) -> Option<&Transaction> {
        self.senders.values().flat_map(BTreeMap::values).find(|transaction| transaction.hash() == hash)
    }
}

fn price(transaction: &Transaction) -> u128 {
    alloy_consensus::Transaction::max_fee_per_gas(transaction.envelope())
}

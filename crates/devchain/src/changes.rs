//! What a block changed in the state, in one canonical order, and the hash chain over it.
//!
//! Two nodes that replay the same blocks come to the same changes, so equal commitments mean equal states. A commitment
//! is not a Merkle root: it proves nothing about one account without a replay.

use crate::state::{Account, State};
use crate::store::StoreError;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use revm::state::EvmState;
use std::collections::BTreeMap;

const COMMITMENT_DOMAIN: &[u8] = b"seedbank chain state v1";

/// A value before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change<T> {
    pub(crate) before: T,
    pub(crate) after: T,
}

/// Whether an account's storage goes as a whole before slots are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    Kept,
    /// The account destroyed itself.
    Wiped,
}

/// What changed of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccountChange {
    pub(crate) account: Change<Option<Account>>,
    pub(crate) storage: Storage,
    pub(crate) slots: BTreeMap<U256, Change<U256>>,
}

/// All that changed, by address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) accounts: BTreeMap<Address, AccountChange>,
    /// Code that was deployed, by its hash.
    pub(crate) code: BTreeMap<B256, Bytes>,
}

impl Changes {
    /// The coins that a chain starts with.
    pub(crate) fn genesis(balances: &BTreeMap<Address, U256>) -> Changes {
        let accounts = balances.iter().filter(|(_, balance)| !balance.is_zero()).map(|(address, balance)| {
            let account = Change { before: None, after: Some(Account::with_balance(*balance)) };
            (*address, AccountChange { account, storage: Storage::Kept, slots: BTreeMap::new() })
        });
        Changes { accounts: accounts.collect(), code: BTreeMap::new() }
    }

    /// What the EVM touched, reduced to what differs from the state before.
    pub(crate) fn from_evm(touched: EvmState, before: &impl State) -> Result<Changes, StoreError> {
        let mut changes = Changes::default();
        for (address, touched) in touched.into_iter().filter(|(_, account)| account.is_touched()) {
            let old = before.account(address)?;
            if touched.is_selfdestructed() {
                if old.is_some() {
                    let account = Change { before: old, after: None };
                    let gone = AccountChange { account, storage: Storage::Wiped, slots: BTreeMap::new() };
                    changes.accounts.insert(address, gone);
                }
                continue;
            }
            let info = &touched.info;
            let new = Account { nonce: info.nonce, balance: info.balance, code_hash: info.code_hash };
            let new = (!new.is_empty()).then_some(new);
            let slots: BTreeMap<U256, Change<U256>> = touched
                .changed_storage_slots()
                .map(|(slot, value)| {
                    (*slot, Change { before: value.original_value(), after: value.present_value() })
                })
                .collect();
            if old == new && slots.is_empty() {
                continue;
            }
            let deployed = new.is_some_and(|new| new.has_code())
                && old.map(|old| old.code_hash) != new.map(|new| new.code_hash);
            if let (true, Some(code)) = (deployed, &info.code) {
                changes.code.insert(info.code_hash, code.original_bytes());
            }
            let account = Change { before: old, after: new };
            changes.accounts.insert(address, AccountChange { account, storage: Storage::Kept, slots });
        }
        Ok(changes)
    }

    /// The next link of the hash chain.
    pub(crate) fn commitment(&self, previous: B256) -> B256 {
        let mut bytes = COMMITMENT_DOMAIN.to_vec();
        bytes.extend(previous.as_slice());
        bytes.extend(count(self.accounts.len()));
        for (address, change) in &self.accounts {
            bytes.extend(address.as_slice());
            match &change.account.after {
                None => bytes.push(0),
                Some(account) => {
                    bytes.push(1);
                    bytes.extend(account.nonce.to_be_bytes());
                    bytes.extend(account.balance.to_be_bytes::<32>());
                    bytes.extend(account.code_hash.as_slice());
                }
            }
            bytes.push(match change.storage {
                Storage::Kept => 0,
                Storage::Wiped => 1,
            });
            bytes.extend(count(change.slots.len()));
            for (slot, value) in &change.slots {
                bytes.extend(slot.to_be_bytes::<32>());
                bytes.extend(value.after.to_be_bytes::<32>());
            }
        }
        keccak256(bytes)
    }
}

fn count(number: usize) -> [u8; 8] {
    u64::try_from(number).expect("no machine counts past 64 bits").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::{AccountChange, Change, Changes, Storage};
    use crate::state::Account;
    use alloy_primitives::{Address, B256, U256};
    use std::collections::BTreeMap;

    fn changed(nonce: u64, slots: &[(u64, u64)]) -> Changes {
        let account = Account { nonce, ..Account::with_balance(U256::from(5)) };
        let slots = slots.iter().map(|(slot, value)| {
            (U256::from(*slot), Change { before: U256::ZERO, after: U256::from(*value) })
        });
        let change = AccountChange {
            account: Change { before: None, after: Some(account) },
            storage: Storage::Kept,
            slots: slots.collect(),
        };
        Changes { accounts: BTreeMap::from([(Address::repeat_byte(1), change)]), code: BTreeMap::new() }
    }

    #[test]
    fn commitment_depends_on_every_value_and_on_what_came_before() {
        let base = changed(1, &[(1, 2)]).commitment(B256::ZERO);
        assert_eq!(base, changed(1, &[(1, 2)]).commitment(B256::ZERO));
        assert_ne!(base, changed(1, &[(1, 2)]).commitment(B256::repeat_byte(1)));
        assert_ne!(base, changed(2, &[(1, 2)]).commitment(B256::ZERO));
        assert_ne!(base, changed(1, &[(1, 3)]).commitment(B256::ZERO));
        assert_ne!(base, changed(1, &[(2, 2)]).commitment(B256::ZERO));
        assert_ne!(base, changed(1, &[]).commitment(B256::ZERO));
        let mut wiped = changed(1, &[(1, 2)]);
        wiped.accounts.values_mut().for_each(|change| change.storage = Storage::Wiped);
        assert_ne!(base, wiped.commitment(B256::ZERO));
        let mut gone = changed(1, &[(1, 2)]);
        gone.accounts.values_mut().for_each(|change| change.account.after = None);
        assert_ne!(base, gone.commitment(B256::ZERO));
    }

    #[test]
    fn empty_block_moves_the_chain_on() {
        assert_ne!(Changes::default().commitment(B256::ZERO), B256::ZERO);
    }

    #[test]
    fn zero_balance_at_the_start_is_no_account() {
        let balances =
            BTreeMap::from([(Address::ZERO, U256::ZERO), (Address::repeat_byte(1), U256::from(1))]);
        assert_eq!(Changes::genesis(&balances).accounts.len(), 1);
    }
}

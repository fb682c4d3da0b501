//! Accounts, code and storage as the EVM reads them, wherever they are kept.

use crate::store::StoreError;
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256};
use revm::database_interface::{DBErrorMarker, DatabaseRef};
use revm::state::{AccountInfo, Bytecode};

/// One account, without its code and storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) nonce: u64,
    pub(crate) balance: U256,
    pub(crate) code_hash: B256,
}

impl Account {
    /// An account that holds coins and has done nothing.
    pub(crate) fn with_balance(balance: U256) -> Account {
        Account { nonce: 0, balance, code_hash: KECCAK256_EMPTY }
    }

    pub(crate) fn has_code(&self) -> bool {
        self.code_hash != KECCAK256_EMPTY
    }

    /// Empty accounts do not exist (EIP-161).
    pub(crate) fn is_empty(&self) -> bool {
        self.nonce == 0 && self.balance.is_zero() && !self.has_code()
    }
}

/// The state after some block.
pub(crate) trait State {
    fn account(&self, address: Address) -> Result<Option<Account>, StoreError>;
    fn code(&self, hash: B256) -> Result<Bytes, StoreError>;
    fn slot(&self, address: Address, slot: U256) -> Result<U256, StoreError>;
    /// The hash of a block of the past; `None` if there is no such block.
    fn block_hash(&self, number: u64) -> Result<Option<B256>, StoreError>;

    fn code_of(&self, address: Address) -> Result<Bytes, StoreError> {
        match self.account(address)? {
            Some(account) if account.has_code() => self.code(account.code_hash),
            Some(_) | None => Ok(Bytes::new()),
        }
    }

    fn nonce(&self, address: Address) -> Result<u64, StoreError> {
        Ok(self.account(address)?.map_or(0, |account| account.nonce))
    }
}

impl DBErrorMarker for StoreError {}

/// A state as the EVM wants it.
pub(crate) struct ForEvm<'a, S>(pub(crate) &'a S);

impl<S: State> DatabaseRef for ForEvm<'_, S> {
    type Error = StoreError;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, StoreError> {
        let account = self.0.account(address)?;
        Ok(account.map(|account| AccountInfo {
            balance: account.balance,
            nonce: account.nonce,
            code_hash: account.code_hash,
            code: None,
            ..AccountInfo::default()
        }))
    }

    fn code_by_hash_ref(&self, hash: B256) -> Result<Bytecode, StoreError> {
        Ok(Bytecode::new_legacy(self.0.code(hash)?))
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256, StoreError> {
        self.0.slot(address, slot)
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, StoreError> {
        // The EVM asks for the last 256 blocks only, and all of those are there.
        Ok(self.0.block_hash(number)?.unwrap_or_default())
    }
}

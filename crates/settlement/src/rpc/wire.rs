//! The parts of blocks, receipts and logs that this crate reads.

use alloy_primitives::{Address, B256, Bytes, U64, U256};
use serde::{Deserialize, Deserializer};

/// A block's header.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Block {
    #[serde(deserialize_with = "number")]
    pub(crate) number: u64,
    pub(crate) hash: B256,
    #[serde(deserialize_with = "number")]
    pub(crate) timestamp: u64,
    /// Absent on a chain without London.
    #[serde(default)]
    pub(crate) base_fee_per_gas: Option<U256>,
}

/// What became of a transaction.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Receipt {
    pub(crate) transaction_hash: B256,
    pub(crate) block_hash: B256,
    #[serde(deserialize_with = "number")]
    pub(crate) block_number: u64,
    /// 1 if it took effect.
    #[serde(deserialize_with = "number")]
    pub(crate) status: u64,
    #[serde(deserialize_with = "number")]
    pub(crate) gas_used: u64,
    #[serde(default)]
    pub(crate) effective_gas_price: Option<U256>,
    #[serde(default)]
    pub(crate) contract_address: Option<Address>,
    pub(crate) logs: Vec<Log>,
}

/// An event as the chain keeps it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Log {
    pub(crate) address: Address,
    pub(crate) topics: Vec<B256>,
    pub(crate) data: Bytes,
    pub(crate) block_hash: B256,
    #[serde(deserialize_with = "number")]
    pub(crate) block_number: u64,
    pub(crate) transaction_hash: B256,
    #[serde(deserialize_with = "number")]
    pub(crate) log_index: u64,
    /// Set by nodes on logs of a block that is no longer part of the chain.
    #[serde(default)]
    pub(crate) removed: bool,
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    U64::deserialize(from).map(|number| number.to::<u64>())
}

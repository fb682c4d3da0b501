//! What a chain starts with, and what stays fixed for as long as it exists.
//!
//! Everybody who replays the chain needs exactly this, and the hash of block 0 commits to it.

use alloy_primitives::{Address, B256, U256};
use revm::primitives::hardfork::SpecId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The chain id of a chain that was not given another: 0x5eed.
pub const CHAIN_ID_DEFAULT: u64 = 24_301;

/// Room for the largest batch of proofs, and what most public chains allow.
pub const BLOCK_GAS_DEFAULT: u64 = 30_000_000;

/// The rules that transactions run under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rules {
    /// Legacy and access-list transactions, no base fee: what BTTC's published node has.
    #[default]
    Berlin,
    /// Fee-market transactions too, with a base fee of 0.
    London,
}

impl Rules {
    pub(crate) fn spec(self) -> SpecId {
        match self {
            Rules::Berlin => SpecId::BERLIN,
            Rules::London => SpecId::LONDON,
        }
    }

    /// What headers say about it.
    pub(crate) fn base_fee(self) -> Option<u64> {
        match self {
            Rules::Berlin => None,
            Rules::London => Some(0),
        }
    }
}

/// The choices that a new chain is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenesisOptions {
    /// The rules that transactions run under.
    pub rules: Rules,
    /// The least price of gas. 0: gas costs nothing, whatever a transaction offers; nothing is taken from anyone.
    pub gas_price: u128,
    /// The most gas of one transaction, which is one block.
    pub block_gas: u64,
    /// Coins of the chain itself, by address. No contract of ours needs any.
    pub balances: BTreeMap<Address, U256>,
    /// The time of block 0, in seconds of the Unix epoch; now, if it is not said.
    pub timestamp: Option<u64>,
}

impl Default for GenesisOptions {
    fn default() -> GenesisOptions {
        GenesisOptions {
            rules: Rules::Berlin,
            gas_price: 0,
            block_gas: BLOCK_GAS_DEFAULT,
            balances: BTreeMap::new(),
            timestamp: None,
        }
    }
}

/// A chain's beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// The chain id that transactions are signed for.
    pub chain_id: u64,
    /// The rules that transactions run under.
    pub rules: Rules,
    /// The least price of gas; 0 if gas costs nothing.
    pub gas_price: u128,
    /// The most gas of one block.
    pub block_gas: u64,
    /// Who signs the headers.
    pub sequencer: Address,
    /// The time of block 0, in seconds of the Unix epoch.
    pub timestamp: u64,
    /// Coins at the start, by address.
    pub balances: BTreeMap<Address, U256>,
}

impl Genesis {
    pub(crate) fn new(options: &GenesisOptions, chain_id: u64, sequencer: Address, now: u64) -> Genesis {
        Genesis {
            chain_id,
            rules: options.rules,
            gas_price: options.gas_price,
            block_gas: options.block_gas,
            sequencer,
            timestamp: options.timestamp.unwrap_or(now),
            balances: options.balances.clone(),
        }
    }

    /// What the first state commitment chains on: everything here that block 0 does not state elsewhere.
    pub(crate) fn commitment_seed(&self) -> B256 {
        let mut bytes = b"seedbank chain genesis v1".to_vec();
        bytes.extend(self.chain_id.to_be_bytes());
        bytes.push(match self.rules {
            Rules::Berlin => 0,
            Rules::London => 1,
        });
        bytes.extend(self.gas_price.to_be_bytes());
        bytes.extend(self.block_gas.to_be_bytes());
        bytes.extend(self.sequencer.as_slice());
        bytes.extend(self.timestamp.to_be_bytes());
        alloy_primitives::keccak256(bytes)
    }
}

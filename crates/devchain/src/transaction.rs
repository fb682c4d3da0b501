//! A signed transaction: decoded, its sender recovered, and of a kind that this chain takes.

use crate::genesis::{Genesis, Rules};
use alloy_consensus::transaction::SignerRecoverable;
use alloy_consensus::{Transaction as _, TxEnvelope, TxType};
use alloy_eips::eip2718::{Decodable2718, Encodable2718};
use alloy_primitives::{Address, B256, Bytes};
use revm::context::TxEnv;

/// Twice the largest contract with its constructor's arguments, and ten times a batch of proofs.
pub const TRANSACTION_BYTES_MAX: usize = 256 << 10;

/// A transaction that may be executed here. [`Transaction::check`] is the only way to get one.
#[derive(Debug, Clone)]
pub(crate) struct Transaction {
    envelope: TxEnvelope,
    sender: Address,
    raw: Bytes,
}

/// Why bytes are no transaction for this chain: sign another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TransactionError {
    #[error("transaction of {0} bytes; at most {TRANSACTION_BYTES_MAX} are taken")]
    TooLong(usize),
    #[error("no transaction: {0}")]
    Malformed(String),
    #[error(
        "transaction type {kind} is not supported: this chain has {rules:?} rules; send a legacy transaction"
    )]
    Kind { kind: u8, rules: Rules },
    #[error("transaction without a chain id could be replayed elsewhere: sign it for chain {0} (EIP-155)")]
    NoChain(u64),
    #[error("transaction is signed for chain {signed}; this is chain {here}")]
    WrongChain { signed: u64, here: u64 },
    #[error("transaction's signature is invalid, or not in its low-s form")]
    Signature,
    #[error("exceeds block gas limit: transaction wants {wanted}, a block has {most}")]
    Gas { wanted: u64, most: u64 },
    #[error("transaction underpriced: gas price {offered}, at least {least} is wanted")]
    Underpriced { offered: u128, least: u128 },
}

impl Transaction {
    pub(crate) fn check(bytes: &[u8], genesis: &Genesis) -> Result<Transaction, TransactionError> {
        if bytes.len() > TRANSACTION_BYTES_MAX {
            return Err(TransactionError::TooLong(bytes.len()));
        }
        let envelope = TxEnvelope::decode_2718_exact(bytes)
            .map_err(|error| TransactionError::Malformed(error.to_string()))?;
        let (kind, rules) = (envelope.tx_type(), genesis.rules);
        let supported = match kind {
            TxType::Legacy | TxType::Eip2930 => true,
            TxType::Eip1559 => rules == Rules::London,
            TxType::Eip4844 | TxType::Eip7702 => false,
        };
        if !supported {
            return Err(TransactionError::Kind { kind: kind.into(), rules });
        }
        match envelope.chain_id() {
            None => return Err(TransactionError::NoChain(genesis.chain_id)),
            Some(signed) if signed != genesis.chain_id => {
                return Err(TransactionError::WrongChain { signed, here: genesis.chain_id });
            }
            Some(_) => {}
        }
        if envelope.gas_limit() > genesis.block_gas {
            return Err(TransactionError::Gas { wanted: envelope.gas_limit(), most: genesis.block_gas });
        }
        let offered = envelope.effective_gas_price(rules.base_fee());
        if offered < genesis.gas_price {
            return Err(TransactionError::Underpriced { offered, least: genesis.gas_price });
        }
        let sender = envelope.recover_signer().map_err(|_| TransactionError::Signature)?;
        // What is hashed, stored and replayed is the canonical encoding, whatever came in.
        let raw = Bytes::from(envelope.encoded_2718());
        Ok(Transaction { envelope, sender, raw })
    }

    pub(crate) fn envelope(&self) -> &TxEnvelope {
        &self.envelope
    }

    pub(crate) fn sender(&self) -> Address {
        self.sender
    }

    pub(crate) fn nonce(&self) -> u64 {
        self.envelope.nonce()
    }

    pub(crate) fn hash(&self) -> B256 {
        *self.envelope.tx_hash()
    }

    pub(crate) fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// What a unit of gas costs the sender.
    pub(crate) fn gas_price(&self, genesis: &Genesis) -> u128 {
        if genesis.gas_price == 0 { 0 } else { self.envelope.effective_gas_price(genesis.rules.base_fee()) }
    }

    /// As the EVM takes it.
    ///
    /// Free gas is a price of 0, not a check that is off: without the check of balances the EVM would make coins out of
    /// nothing for whoever sends some.
    pub(crate) fn environment(&self, genesis: &Genesis) -> TxEnv {
        let tx = &self.envelope;
        let price = self.gas_price(genesis);
        TxEnv {
            tx_type: tx.tx_type().into(),
            caller: self.sender,
            gas_limit: tx.gas_limit(),
            gas_price: price,
            gas_priority_fee: tx.is_dynamic_fee().then_some(price),
            kind: tx.kind(),
            value: tx.value(),
            data: tx.input().clone(),
            nonce: tx.nonce(),
            chain_id: tx.chain_id(),
            access_list: tx.access_list().cloned().unwrap_or_default(),
            ..TxEnv::default()
        }
    }
}

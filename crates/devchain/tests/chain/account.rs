//! Somebody with a key, who signs transactions.

use alloy_consensus::{SignableTransaction, TxEip2930, TxEnvelope, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, keccak256};
use k256::ecdsa::SigningKey;

/// A key.
pub(crate) struct Account {
    key: SigningKey,
    pub(crate) chain_id: u64,
}

impl Account {
    /// The same one for the same name.
    pub(crate) fn new(name: &str, chain_id: u64) -> Account {
        let key = SigningKey::from_slice(keccak256(name).as_slice()).unwrap();
        Account { key, chain_id }
    }

    pub(crate) fn address(&self) -> Address {
        Address::from_public_key(self.key.verifying_key())
    }

    pub(crate) fn sign<T: SignableTransaction<Signature>>(&self, transaction: T) -> Bytes
    where
        TxEnvelope: From<alloy_consensus::Signed<T>>,
    {
        let digest = transaction.signature_hash();
        let (signature, parity) = self.key.sign_prehash_recoverable(digest.as_slice()).unwrap();
        let signed = transaction.into_signed(Signature::from((signature, parity)));
        Bytes::from(TxEnvelope::from(signed).encoded_2718())
    }

    /// A legacy transaction with plenty of gas.
    pub(crate) fn legacy(&self, nonce: u64, to: TxKind, value: u64, input: impl Into<Bytes>) -> Bytes {
        self.sign(self.unsigned(nonce, to, value, input.into()))
    }

    pub(crate) fn unsigned(&self, nonce: u64, to: TxKind, value: u64, input: Bytes) -> TxLegacy {
        TxLegacy {
            chain_id: Some(self.chain_id),
            nonce,
            gas_price: 0,
            gas_limit: 1_000_000,
            to,
            value: U256::from(value),
            input,
        }
    }

    pub(crate) fn deploy(&self, nonce: u64, code: impl Into<Bytes>) -> Bytes {
        self.legacy(nonce, TxKind::Create, 0, code)
    }

    pub(crate) fn call(&self, nonce: u64, to: Address, input: impl Into<Bytes>) -> Bytes {
        self.legacy(nonce, TxKind::Call(to), 0, input)
    }

    /// The same as an access-list transaction.
    pub(crate) fn eip2930(&self, nonce: u64, to: Address) -> Bytes {
        self.sign(TxEip2930 {
            chain_id: self.chain_id,
            nonce,
            gas_price: 0,
            gas_limit: 100_000,
            to: TxKind::Call(to),
            value: U256::ZERO,
            access_list: alloy_eips::eip2930::AccessList::default(),
            input: Bytes::new(),
        })
    }
}

/// The hash of a signed transaction.
pub(crate) fn hash(raw: &Bytes) -> B256 {
    keccak256(raw)
}

//! Transactions: what is signed, for chains with and without London.

use crate::convert::word;
use alloy_consensus::{SignableTransaction, TxEip1559, TxLegacy};
use alloy_primitives::{B256, Bytes, Signature, TxKind, U256, hex};
use seedbank_agreement::WalletKey;

/// What is offered for each unit of gas, in wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fees {
    /// One price, on a chain without London.
    Legacy { price: u128 },
    /// The most that is paid with the base fee, and how much of it goes to the block's maker at most.
    London { max: u128, tip: u128 },
}

impl Fees {
    /// The most that a unit of gas can cost.
    pub(crate) fn max(self) -> u128 {
        match self {
            Self::Legacy { price } => price,
            Self::London { max, .. } => max,
        }
    }
}

/// All that a transaction says.
pub(crate) struct Unsigned<'a> {
    pub(crate) chain_id: u64,
    pub(crate) nonce: u64,
    pub(crate) to: TxKind,
    pub(crate) value: u128,
    pub(crate) data: &'a Bytes,
    pub(crate) gas_limit: u64,
    pub(crate) fees: Fees,
}

/// A signed transaction as nodes take it.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    pub(crate) raw: String,
    pub(crate) hash: B256,
}

impl Unsigned<'_> {
    pub(crate) fn sign(&self, key: &WalletKey) -> Signed {
        let Self { chain_id, nonce, to, gas_limit, .. } = *self;
        let value = U256::from(self.value);
        let input = self.data.clone();
        match self.fees {
            Fees::Legacy { price } => finish(
                TxLegacy { chain_id: Some(chain_id), nonce, gas_price: price, gas_limit, to, value, input },
                key,
            ),
            Fees::London { max, tip } => finish(
                TxEip1559 {
                    chain_id,
                    nonce,
                    gas_limit,
                    max_fee_per_gas: max,
                    max_priority_fee_per_gas: tip,
                    to,
                    value,
                    access_list: Default::default(),
                    input,
                },
                key,
            ),
        }
    }
}

fn finish<T: SignableTransaction<Signature> + alloy_consensus::transaction::RlpEcdsaEncodableTx>(
    transaction: T,
    key: &WalletKey,
) -> Signed {
    let signature = key.sign(&transaction.signature_hash().0);
    let bytes = signature.as_bytes();
    let (r, s) = (&bytes[..32], &bytes[32..64]);
    let signature = Signature::new(U256::from_be_slice(r), U256::from_be_slice(s), bytes[64] == 28);
    let signed = transaction.into_signed(signature);
    let mut raw = Vec::new();
    signed.eip2718_encode(&mut raw);
    Signed { raw: hex::encode_prefixed(&raw), hash: word(signed.hash().0) }
}

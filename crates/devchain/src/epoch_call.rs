//! A call that the sequencer itself makes in each epoch, before anybody else's transaction.
//!
//! A contract that draws a seed from the block before its first call in an epoch lets whoever calls first choose among blocks. Here nobody
//! can: the epoch's first block is an empty one, whose hash nobody knows before it is signed, and the next is this call. What is left is what
//! the sequencer could do anyway. To everybody who follows, it is a transaction like any other.

use crate::genesis::Genesis;
use crate::transaction::Transaction;
use alloy_consensus::{SignableTransaction, TxEnvelope, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, Bytes, Signature, TxKind, U256};
use k256::ecdsa::SigningKey;

/// Several times what sealing a seed takes.
const GAS_LIMIT: u64 = 500_000;

/// What is called, and how time is cut into epochs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochCall {
    /// The contract.
    pub contract: [u8; 20],
    /// What it is called with.
    pub input: Vec<u8>,
    /// When epoch 0 begins, in unix seconds.
    pub genesis: u64,
    /// Length of an epoch, not 0.
    pub epoch_seconds: u32,
}

/// A call, and when it was made last.
#[derive(Debug)]
pub(crate) struct EpochCaller {
    call: EpochCall,
    called_in: Option<u64>,
}

impl EpochCaller {
    pub(crate) fn new(call: EpochCall) -> EpochCaller {
        EpochCaller { call, called_in: None }
    }

    /// The call, if this is the first time that an epoch is seen; it is not due again in the same one, whatever becomes of it.
    pub(crate) fn take_due(&mut self, timestamp: u64) -> Option<&EpochCall> {
        let since = timestamp.checked_sub(self.call.genesis)?;
        let epoch = since / u64::from(self.call.epoch_seconds.max(1));
        let is_new = self.called_in.replace(epoch) != Some(epoch);
        is_new.then_some(&self.call)
    }
}

impl EpochCall {
    /// The transaction that makes it.
    pub(crate) fn sign(&self, genesis: &Genesis, key: &SigningKey, nonce: u64) -> Transaction {
        let unsigned = TxLegacy {
            chain_id: Some(genesis.chain_id),
            nonce,
            gas_price: genesis.gas_price,
            gas_limit: GAS_LIMIT.min(genesis.block_gas),
            to: TxKind::Call(Address::from(self.contract)),
            value: U256::ZERO,
            input: Bytes::copy_from_slice(&self.input),
        };
        let digest = unsigned.signature_hash();
        let (signature, parity) = key
            .sign_prehash_recoverable(digest.as_slice())
            .expect("a digest has 32 bytes, which can be signed");
        let signed = TxEnvelope::from(unsigned.into_signed(Signature::from((signature, parity))));
        Transaction::check(&signed.encoded_2718(), genesis)
            .expect("what was signed for this chain is one of its transactions")
    }
}

#[cfg(test)]
mod tests {
    use super::{EpochCall, EpochCaller};

    #[test]
    fn a_call_is_due_once_in_each_epoch_that_is_seen() {
        let call = EpochCall { contract: [1; 20], input: Vec::new(), genesis: 1_000, epoch_seconds: 100 };
        let mut caller = EpochCaller::new(call);
        let due: Vec<u64> = [999, 1_000, 1_000, 1_099, 1_100, 1_450, 1_499, 1_500]
            .into_iter()
            .filter(|timestamp| caller.take_due(*timestamp).is_some())
            .collect();
        assert_eq!(due, [1_000, 1_100, 1_450, 1_500]);
    }
}

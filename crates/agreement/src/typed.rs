//! EIP-712: what exactly is hashed when a message for a contract is signed.
//!
//! A digest binds the message to one contract on one chain, so that no signature can be shown to another.

use crate::abi::Words;
use crate::address::Address;
use crate::keccak::keccak256;
use crate::signature::{NobodysSignature, Signature, recover};
use crate::wallet::WalletKey;

/// Where a signature holds: a contract on a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Domain {
    /// The chain's id (EIP-155).
    pub chain_id: u64,
    /// The contract that checks the signature.
    pub contract: Address,
}

/// The names by which contracts separate their messages.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Name {
    StorageMarket,
    RetrievalChannels,
    DatasetRegistry,
    /// Checked by people's programs only, no contract.
    Quote,
}

impl Name {
    const fn text(self) -> &'static str {
        match self {
            Name::StorageMarket => "Seedbank StorageMarket",
            Name::RetrievalChannels => "Seedbank RetrievalChannels",
            Name::DatasetRegistry => "Seedbank DatasetRegistry",
            Name::Quote => "Seedbank Quote",
        }
    }
}

const DOMAIN: &str = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";

impl Domain {
    /// The digest of a message whose fields are `words`, of the type that `kind` writes out.
    pub(crate) fn digest(&self, name: Name, fields: &Words) -> [u8; 32] {
        let separator = Words::with_capacity(5)
            .bytes32(&keccak256(DOMAIN.as_bytes()))
            .bytes32(&keccak256(name.text().as_bytes()))
            .bytes32(&keccak256(b"1"))
            .uint(self.chain_id)
            .address(&self.contract)
            .keccak256();
        let mut bytes = [0; 66];
        bytes[..2].copy_from_slice(&[0x19, 0x01]);
        bytes[2..34].copy_from_slice(&separator);
        bytes[34..].copy_from_slice(&fields.keccak256());
        keccak256(&bytes)
    }
}

/// A message that wallets sign.
pub trait Typed {
    /// What is signed: the same 32 bytes that the contract hashes.
    fn digest(&self, domain: &Domain) -> [u8; 32];

    /// The message with a key's signature.
    fn sign(self, domain: &Domain, key: &WalletKey) -> Signed<Self>
    where
        Self: Sized,
    {
        let signature = key.sign(&self.digest(domain));
        Signed { message: self, signature }
    }
}

/// A message and somebody's signature. Who that is, only [`Signed::signer`] says; whether it may sign, the caller knows.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Signed<T> {
    /// What was signed.
    pub message: T,
    /// By whom.
    pub signature: Signature,
}

impl<T: Typed> Signed<T> {
    /// Who signed, if the signature was made for this contract.
    ///
    /// # Errors
    /// [`NobodysSignature`] if it is no key's. One that was made for another contract, chain or message mostly is *some* key's:
    /// compare.
    pub fn signer(&self, domain: &Domain) -> Result<Address, NobodysSignature> {
        recover(&self.message.digest(domain), &self.signature)
    }
}

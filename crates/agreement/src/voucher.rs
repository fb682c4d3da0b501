//! A promise to pay for reading: `RetrievalChannels.Voucher`.

use crate::abi::Words;
use crate::address::Address;
use crate::amount::Amount;
use crate::keccak::keccak256;
use crate::typed::{Domain, Name, Typed};

/// "The signer owes the payee this much in all, on the payer's account."
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Voucher {
    /// Whose money.
    pub payer: Address,
    /// For whom.
    pub payee: Address,
    /// Who signs: the payer, or a key that it gave a cap.
    pub signer: Address,
    /// All that this signer ever promised this payee.
    pub cumulative: Amount,
}

const TYPE: &str = "Voucher(address payer,address payee,address signer,uint128 cumulative)";

impl Typed for Voucher {
    fn digest(&self, domain: &Domain) -> [u8; 32] {
        let fields = Words::with_capacity(5)
            .bytes32(&keccak256(TYPE.as_bytes()))
            .address(&self.payer)
            .address(&self.payee)
            .address(&self.signer)
            .uint(self.cumulative.0);
        domain.digest(Name::RetrievalChannels, &fields)
    }
}

//! A client's offer to a provider: `StorageMarket.Proposal`.

use crate::abi::Words;
use crate::address::Address;
use crate::amount::{Amount, Rate};
use crate::epoch::Epoch;
use crate::hex;
use crate::keccak::keccak256;
use crate::typed::{Domain, Name, Typed};

hex::word! {
    /// The commitment to the fragments that a provider holds for a client: see [`crate::fragment_set`].
    SetRoot, "a set root"
}

hex::word! {
    /// A number that tells two proposals apart: random, used once.
    Nonce, "a nonce"
}

/// An offer. A provider that holds the data opens an agreement with it, once.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Proposal {
    /// Who pays.
    pub client: Address,
    /// Who stores.
    pub provider: Address,
    /// The set that the provider holds for the client.
    pub set_root: SetRoot,
    /// Bytes of the set.
    pub size: u64,
    /// What each proven epoch earns.
    pub rate_per_epoch: Rate,
    /// The first epoch that no longer belongs to the agreement.
    pub end_epoch: Epoch,
    /// Moved from the client's free balance; what the rate doesn't need is there for later revisions.
    pub escrow: Amount,
    /// Bytes that no revision may drop before `retained_until`.
    pub retained_bytes: u64,
    /// See `retained_bytes`.
    pub retained_until: Epoch,
    /// The last epoch in which the provider may accept.
    pub accept_by: Epoch,
    /// Tells two equal proposals apart.
    pub nonce: Nonce,
}

const TYPE: &str = "Proposal(address client,address provider,bytes32 setRoot,uint64 size,uint96 ratePerEpoch,\
    uint32 endEpoch,uint128 escrow,uint64 retainedBytes,uint32 retainedUntil,uint32 acceptBy,uint256 nonce)";

impl Typed for Proposal {
    fn digest(&self, domain: &Domain) -> [u8; 32] {
        let fields = Words::with_capacity(12)
            .bytes32(&keccak256(TYPE.as_bytes()))
            .address(&self.client)
            .address(&self.provider)
            .bytes32(&self.set_root.0)
            .uint(self.size)
            .uint(self.rate_per_epoch.units())
            .uint(self.end_epoch.0)
            .uint(self.escrow.0)
            .uint(self.retained_bytes)
            .uint(self.retained_until.0)
            .uint(self.accept_by.0)
            .bytes32(&self.nonce.0);
        domain.digest(Name::StorageMarket, &fields)
    }
}

//! New terms of an open agreement, signed by both sides: `StorageMarket.Revision`.

use crate::abi::Words;
use crate::amount::Rate;
use crate::epoch::{AgreementId, Epoch};
use crate::keccak::keccak256;
use crate::proposal::SetRoot;
use crate::typed::{Domain, Name, Typed};

/// New terms. They hold from `from_epoch` on, which is the epoch after the one in which they are posted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Revision {
    /// Whose terms.
    pub agreement: AgreementId,
    /// Above the agreement's last one.
    pub sequence: u32,
    /// The set that the provider then holds.
    pub set_root: SetRoot,
    /// Bytes of the set.
    pub size: u64,
    /// What each proven epoch then earns.
    pub rate_per_epoch: Rate,
    /// The first epoch in which the terms hold.
    pub from_epoch: Epoch,
    /// The first epoch in which they no longer hold.
    pub end_epoch: Epoch,
    /// Bytes that no revision may drop before `retained_until`.
    pub retained_bytes: u64,
    /// See `retained_bytes`.
    pub retained_until: Epoch,
}

const TYPE: &str = "Revision(uint32 agreement,uint32 sequence,bytes32 setRoot,uint64 size,uint96 ratePerEpoch,\
    uint32 fromEpoch,uint32 endEpoch,uint64 retainedBytes,uint32 retainedUntil)";

impl Typed for Revision {
    fn digest(&self, domain: &Domain) -> [u8; 32] {
        let fields = Words::with_capacity(10)
            .bytes32(&keccak256(TYPE.as_bytes()))
            .uint(self.agreement.0)
            .uint(self.sequence)
            .bytes32(&self.set_root.0)
            .uint(self.size)
            .uint(self.rate_per_epoch.units())
            .uint(self.from_epoch.0)
            .uint(self.end_epoch.0)
            .uint(self.retained_bytes)
            .uint(self.retained_until.0);
        domain.digest(Name::StorageMarket, &fields)
    }
}

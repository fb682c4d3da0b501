//! A dataset's new head, signed for somebody else to post: `DatasetRegistry.Publication`.

use crate::abi::Words;
use crate::hex;
use crate::keccak::keccak256;
use crate::typed::{Domain, Name, Typed};
use seedbank_formats::VersionId;

hex::word! {
    /// A dataset's name under its owner's address: keccak256(owner, name).
    NameId, "a name's id"
}

hex::word! {
    /// BLAKE3 of a signed head.
    HeadHash, "a head's hash"
}

/// A new head in place of exactly the one that its writer saw.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Publication {
    /// Whose head.
    pub id: NameId,
    /// Above the last one.
    pub sequence: u64,
    /// The head that this one replaces.
    pub previous_head: HeadHash,
    /// The newest version.
    pub version: VersionId,
    /// The signed head.
    pub head: HeadHash,
}

const TYPE: &str =
    "Publication(bytes32 id,uint64 sequence,bytes32 previousHead,bytes32 version,bytes32 head)";

impl Typed for Publication {
    fn digest(&self, domain: &Domain) -> [u8; 32] {
        let fields = Words::with_capacity(6)
            .bytes32(&keccak256(TYPE.as_bytes()))
            .bytes32(&self.id.0)
            .uint(self.sequence)
            .bytes32(&self.previous_head.0)
            .bytes32(self.version.as_bytes())
            .bytes32(&self.head.0);
        domain.digest(Name::DatasetRegistry, &fields)
    }
}

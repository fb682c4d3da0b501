//! Ids, units, manifests and the canonical bytes of everything that is hashed, sealed, signed or stored.
//!
//! Everything here is a pure function of its arguments: no clock, no randomness, no files. What both ends of a wire,
//! or this year's and next decade's program, must agree on stands here and nowhere else. Each format has a page in
//! `docs/formats/` and golden vectors in `testdata/`.

pub mod checkpoint;
pub mod chunking;
pub mod codec;
#[cfg(test)]
mod golden;
pub mod head;
pub mod ids;
pub mod keys;
pub mod layout;
pub mod manifest;
pub mod numbered;
pub mod pages;
pub mod path;
pub mod place;
pub mod placement;
pub mod policy;
pub mod receipt;
pub mod seal;
pub mod segment;
pub mod slice;
pub mod testing;
pub mod tree;
pub mod version;

pub use codec::DecodeError;
pub use ids::{
    Asked, ChunkId, DatasetId, FragmentId, PublicKey, SegmentNumber, Sha256, Signature, Timestamp, VersionId,
    from_hex,
};

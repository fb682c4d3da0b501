//! Fixtures for tests: bytes and folders that a seed describes, a comparison of two folders that misses nothing, what a
//! process does to its files ([`recording`]), the faults that a machine lets us inject under real processes, and a foreign node beside our chain.
//!
//! The checks of the workspace as a whole (who may depend on whom, licences, links in the documents) are this crate's
//! own test, `tests/workspace`. Nothing here is part of a program: other crates list it under `dev-dependencies`.

mod again;
mod bytes;
#[cfg(feature = "chain")]
pub mod chain;
mod compare;
mod faulty_disk;
mod foundry;
mod namespaces;
pub mod recording;
mod relay;
pub mod tools;
mod tree;

pub use again::Again;
pub use bytes::ByteStream;
pub use compare::{Difference, EntryKind, assert_same_folder, compare_folders};
pub use faulty_disk::{Call, FaultyDisk};
pub use foundry::{Anvil, foundry};
pub use namespaces::{Internet, Loss};
pub use relay::{Relay, Weather};
pub use tree::{TreeSpec, TreeSummary};

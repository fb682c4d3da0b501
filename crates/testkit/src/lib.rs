//! Fixtures for tests: bytes and folders that a seed describes, and a comparison of two folders that misses nothing.
//!
//! The checks of the workspace as a whole (who may depend on whom, licences, links in the documents) are this crate's
//! own test, `tests/workspace`. Nothing here is part of a program: other crates list it under `dev-dependencies`.

mod bytes;
mod compare;
mod tree;

pub use bytes::ByteStream;
pub use compare::{Difference, EntryKind, assert_same_folder, compare_folders};
pub use tree::{TreeSpec, TreeSummary};

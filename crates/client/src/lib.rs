//! Uploads and downloads: chunk, deduplicate, seal, encode, place, verify, retry.
//!
//! [`push`] makes a folder a version, [`pull`] makes a version a folder; between them stand the pieces that both the
//! command line and the steward use. Nothing here holds a key store or prints: keys come in, reports and progress go
//! out. Decisions about sending, hedging and blame are made in `seedbank-protocol`, about placement in
//! `seedbank-stewardship`; this crate carries them out.

mod base;
pub mod behind;
mod buffers;
mod claims;
mod coding;
mod columns;
mod commit;
pub mod dataset;
mod delivery;
pub mod file_cache;
pub mod glob;
mod greeting;
pub mod heads;
pub mod home_dataset;
mod ingest;
mod intake;
mod lease;
pub mod maintain;
pub mod network;
pub mod pay;
pub mod placements;
pub mod progress;
pub mod publish;
pub mod pull;
pub mod push;
mod range_read;
pub mod reader;
mod recent;
pub mod recover;
pub mod registry;
mod reindex;
pub mod restore;
pub mod scan;
pub mod snapshot;
mod upload;
mod uploader;
mod walk;

pub use range_read::RangeError;
pub use uploader::SharedBooks;

//! The steward's memory: datasets, versions, segments, placements and jobs, in SQLite; and the index of what exists.
//!
//! One process at a time keeps the books ([`Catalog`]); everyone else asks it with the same [`Request`]s over its
//! socket, through the same typed front ([`Books`]). A request is one transaction: it happened or it did not. There are
//! rows per dataset, version, segment and fragment, never per chunk: which chunks exist is said by [`index`], sorted
//! files beside the database that can be made again from the segments' footers.
//!
//! Nothing here talks to a provider, holds a key or reads a clock: what must be done elsewhere is left as a job, sealed
//! and signed bytes pass through unread, and the time comes with each request. `docs/catalog.md` draws the tables, the
//! life of a segment's row and the index files.

mod agreements;
mod catalog;
mod collection;
mod datasets;
mod error;
mod heads;
pub mod index;
mod jobs;
mod names;
mod operations;
mod providers;
mod pushes;
pub mod records;
mod restoration;
mod segments;
#[cfg(test)]
mod tests;
mod turn;
mod versions;

pub use catalog::{Catalog, Local};
pub use error::{CatalogError, OpenError};
pub use operations::{Books, Carrier, Request, Response};

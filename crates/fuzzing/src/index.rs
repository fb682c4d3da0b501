//! The catalog's index runs, compiled from the catalog's own files as they stand: a fuzzer need not build SQLite to
//! reach them.

#![allow(dead_code, reason = "only what reads is used")]

#[path = "../../catalog/src/index/filter.rs"]
mod filter;
#[path = "../../catalog/src/index/run.rs"]
mod run;

use seedbank_formats::{ChunkId, DatasetId};
use std::path::Path;

/// Reads all of a run, and looks for an id.
pub(crate) fn read_run(path: &Path, dataset: &DatasetId, id: &ChunkId) {
    let Ok(run) = run::Run::open(path, dataset, run::Span { first: 0, last: 0 }) else { return };
    drop(run.find(id));
    let mut scan = run::Scan::new(&run);
    while let Ok(Some(_)) = scan.next() {}
}

//! Uploads and downloads: chunk, deduplicate, seal, encode, place, verify, retry.

pub mod file_cache;
pub mod glob;
pub mod restore;
pub mod scan;

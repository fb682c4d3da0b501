//! Uploads and downloads: chunk, deduplicate, seal, encode, place, verify, retry.

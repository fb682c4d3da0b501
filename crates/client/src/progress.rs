//! What long work tells whoever watches. Calls come from several threads and must be cheap.

/// Hears how far a push, a pull or a check has come.
pub trait Progress: Send + Sync {
    /// The whole is known, or known better.
    fn total(&self, files: u64, bytes: u64);
    /// So many more files and bytes are done.
    fn advance(&self, files: u64, bytes: u64);
    /// So many of the bytes were stored for the first time.
    fn fresh(&self, bytes: u64);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn total(&self, _files: u64, _bytes: u64) {}
    fn advance(&self, _files: u64, _bytes: u64) {}
    fn fresh(&self, _bytes: u64) {}
}

//! The store's only way to a disk: two small traits, so that tests can take power away between any two calls.
//!
//! A path is relative to the store's folder, uses `/`, and is made by the store alone: no name from outside ever becomes
//! one. What the traits promise is what POSIX promises and no more: written bytes survive a crash only after
//! [`DiskFile::sync`], and a created, renamed or removed name only after [`Disk::sync_dir`] of its folder.

mod real;

pub use real::{LockError, RealDisk};

use std::io;
use std::sync::Arc;

/// A folder that belongs to one store.
pub trait Disk: Send + Sync {
    /// Creates an empty file and opens it.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken, else what the disk says.
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` when there is none, else what the disk says.
    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates a folder inside an existing one.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken, else what the disk says.
    fn create_dir(&self, path: &str) -> io::Result<()>;

    /// Gives a file another name in the same folder, replacing what had it, in one step.
    ///
    /// # Errors
    /// What the disk says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file's name. Open handles go on working.
    ///
    /// # Errors
    /// What the disk says.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// The names in a folder, in byte order. `""` is the store's own folder.
    ///
    /// # Errors
    /// What the disk says.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;

    /// Makes the names in a folder durable. `""` is the store's own folder.
    ///
    /// # Errors
    /// What the disk says. After an error nothing is known about the names, and asking again proves nothing.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;

    /// Bytes that can still be written.
    ///
    /// # Errors
    /// What the disk says.
    fn free_space(&self) -> io::Result<u64>;
}

/// An open file. Calls may come from several threads at once.
pub trait DiskFile: Send + Sync {
    /// Fills `into` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends earlier, else what the disk says.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`; a gap before it reads as zeros.
    ///
    /// # Errors
    /// `StorageFull` when there is no room, else what the disk says. Any part may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// The file's length in bytes.
    ///
    /// # Errors
    /// What the disk says.
    fn length(&self) -> io::Result<u64>;

    /// Cuts the file to `length` bytes.
    ///
    /// # Errors
    /// What the disk says.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Makes the file's bytes and length durable, but not its name.
    ///
    /// # Errors
    /// What the disk says. After an error the written bytes may be lost although a second call succeeds, so nobody may
    /// ask again and believe the answer (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).
    fn sync(&self) -> io::Result<()>;
}

/// Whether there was no room: on the disk, or for one more open file. These failures pass by themselves, and nothing
/// was done.
pub(crate) fn is_full(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        || matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

/// Whether a read failed because the stored bytes are gone or unreadable, rather than for want of memory or handles.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    is_missing(error) || is_unreadable(error)
}

/// Whether a read failed because the disk can't read its own sectors.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    error.raw_os_error() == Some(EIO)
}

/// Whether a read failed because the stored bytes are not there at all.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
}

//! A folder of the operating system.
//!
//! Everything is opened relative to a handle of the folder that is taken once, with the lock: a folder that is moved,
//! deleted or mounted over while the daemon runs can't make it write anywhere else.

use super::{Disk, DiskFile};
use crate::folder::make_folder;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Its presence means nothing, its lock does: the kernel releases that however the daemon ends.
const LOCK_FILE: &str = "lock";

/// Why a folder can't be used as a disk.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon runs on this folder: stop it, or use another folder.
    #[error("another process uses {0}")]
    InUse(PathBuf),
    /// The folder is missing or can't be used: check path, mount and permissions.
    #[error("can't use {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// A folder of the operating system, locked against other processes for as long as this lives. Files are made with
/// mode 0600 and folders with 0700.
#[derive(Debug)]
pub struct RealDisk {
    root: OwnedFd,
    /// Held, never read: closing it releases the lock.
    _lock: OwnedFd,
}

impl RealDisk {
    /// Makes the folder durably if there is none, then locks it.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn create(root: &Path) -> Result<RealDisk, LockError> {
        make_folder(root).map_err(|source| LockError::Folder { path: root.to_owned(), source })?;
        RealDisk::lock(root)
    }

    /// Locks an existing folder.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn lock(root: &Path) -> Result<RealDisk, LockError> {
        let folder =
            |error: rustix::io::Errno| LockError::Folder { path: root.to_owned(), source: error.into() };
        let root_fd =
            rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(folder)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = rustix::fs::openat(&root_fd, LOCK_FILE, flags, file_mode()).map_err(folder)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(RealDisk { root: root_fd, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::InUse(root.to_owned())),
            Err(error) => Err(folder(error)),
        }
    }

    fn open_dir(&self, dir: &str) -> io::Result<OwnedFd> {
        let dir = if dir.is_empty() { "." } else { inside(dir) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.root, dir, flags, Mode::empty())?)
    }

    fn open_file(&self, path: &str, extra: OFlags) -> io::Result<Arc<dyn DiskFile>> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | extra;
        let file = rustix::fs::openat(&self.root, inside(path), flags, file_mode())?;
        Ok(Arc::new(RealFile(File::from(file))))
    }
}

fn file_mode() -> Mode {
    Mode::RUSR | Mode::WUSR
}

/// The store makes every path itself, so one that leaves the folder is a broken invariant.
fn inside(path: &str) -> &str {
    let plain = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    assert!(plain, "a store path stays inside its folder: {path}");
    path
}

impl Disk for RealDisk {
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open_file(path, OFlags::CREATE | OFlags::EXCL)
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open_file(path, OFlags::empty())
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.root, inside(path), Mode::RWXU)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.root, inside(from), &self.root, inside(to))?)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.root, inside(path), AtFlags::empty())?)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(self.open_dir(dir)?)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let ours = name != "." && name != ".." && !(dir.is_empty() && name == LOCK_FILE);
            if ours {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.open_dir(dir)?)?)
    }

    fn free_space(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        // The length counts as data here: fdatasync(2) writes what is needed to read the data back.
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::{Disk, LockError, RealDisk};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn second_daemon_on_one_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = RealDisk::lock(folder.path()).unwrap();
        assert!(matches!(RealDisk::lock(folder.path()), Err(LockError::InUse(_))));
        drop(first);
        RealDisk::lock(folder.path()).unwrap();
    }

    #[test]
    fn files_and_folders_are_for_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("store");
        let disk = RealDisk::create(&root).unwrap();
        disk.create_dir("inner").unwrap();
        disk.create("inner/file").unwrap();
        let mode = |path: &str| std::fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(""), mode("inner"), mode("inner/file")), (0o700, 0o700, 0o600));
    }

    #[test]
    fn missing_folder_is_told_by_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("absent");
        assert!(matches!(RealDisk::lock(&absent), Err(LockError::Folder { path, .. }) if path == absent));
    }
}

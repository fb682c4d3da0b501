//! Writes a pulled tree to disk, and never outside its destination.
//!
//! What arrives is somebody else's tree, and what lies in the destination may be anybody's. So every path is walked
//! from the open destination folder, one component at a time, and no symlink on the way is followed. Content goes to a
//! *part file* beside its target, which is renamed when its writer has checked it: under a file's name stands the whole
//! file or nothing new. An interrupted pull leaves part files; the next one verifies and continues them.
//!
//! Nothing that is there already is lost by accident: a target with other content is replaced only by
//! [`Overwrite::Yes`], and a folder with something in it never.
//!
//! This module doesn't know chunks: whether the bytes of a part file are right is its writer's to say.

mod part_file;
mod place;

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use seedbank_formats::path::{TargetError, TreePath, fold_case};
use seedbank_formats::tree::Entry;

pub use part_file::PartFile;

use self::part_file::{part_len, part_name};
use self::place::MissingFolders;
use crate::scan::is_part_name;

const FOLDER_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What to do with a target that has other content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// It is an error that names it.
    #[default]
    No,
    /// It is replaced.
    Yes,
}

/// What a finished file has been through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// It is in the system's cache. A power cut may lose it, and then the pull can be run again.
    #[default]
    Cached,
    /// It and its name are on the disk.
    Synced,
}

/// Whether the destination's disk takes `A` and `a` for one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaseSensitivity {
    /// They are two.
    Sensitive,
    /// They are one.
    Insensitive,
}

/// How to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RestoreOptions {
    /// What to do with a target that has other content.
    pub overwrite: Overwrite,
    /// What a finished file has been through.
    pub durability: Durability,
}

/// What stands at an entry's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// The entry, byte for byte: nothing to do.
    Complete,
    /// The file's content under the other mode: [`Destination::set_executable`] makes it complete.
    OtherMode,
    /// Nothing under its name, but an interrupted pull left this much. It must be verified before it is used.
    Partial {
        /// Bytes in the part file.
        len: u64,
    },
    /// Nothing.
    Missing,
    /// Something else. A part file may lie beside it.
    Different,
}

/// Why an entry can't be written.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Choose another destination, or move what is in the way.
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// Remove the link if it is meant to be a folder: following it would write somewhere else.
    #[error("{} is a symlink where the dataset has a folder", .0.display())]
    SymlinkInTheWay(PathBuf),
    /// Move the folder: it is never removed with what is in it.
    #[error("{} is a folder that is not empty", .0.display())]
    FolderInTheWay(PathBuf),
    /// Ask to overwrite, or choose another destination.
    #[error("{} exists and has other content", .0.display())]
    AlreadyThere(PathBuf),
    /// Pull to a case-sensitive disk, or leave one out.
    #[error("{first} and {second} differ only in case, and the destination's disk takes them for one")]
    CaseCollision {
        /// The path that came first.
        first: String,
        /// The one that would overwrite it.
        second: String,
    },
    /// Leave the path out: the name is kept for unfinished files.
    #[error("the dataset has a file {0:?}, a name that is used for unfinished files")]
    ReservedName(String),
    /// Don't trust the dataset: no honest tree has such a link.
    #[error("the dataset has a symlink {path:?} to {target:?}, which is not made")]
    SymlinkTarget {
        /// The link.
        path: String,
        /// Where it points.
        target: String,
        /// What is wrong with that.
        #[source]
        source: TargetError,
    },
    /// Wait for the other pull into the same destination.
    #[error("{} is being written by another pull", .0.display())]
    Busy(PathBuf),
    /// Free some space and run the pull again: it goes on where it stopped.
    #[error("the disk is full: {}", .0.display())]
    DiskFull(PathBuf),
    /// Get permission, or choose another destination.
    #[error("permission denied: {}", .0.display())]
    PermissionDenied(PathBuf),
    /// Choose a shorter destination, or a disk that takes the name.
    #[error("the destination's disk can't hold a name this long: {}", .0.display())]
    NameTooLong(PathBuf),
    /// Nothing that a change to the command would help.
    #[error("can't write {}", .path.display())]
    Io {
        /// Where it happened.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
}

impl RestoreError {
    fn io(path: &Path, source: impl Into<io::Error>) -> RestoreError {
        let source = source.into();
        let path = path.to_owned();
        match Errno::from_io_error(&source) {
            Some(Errno::NOSPC | Errno::DQUOT) => RestoreError::DiskFull(path),
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => RestoreError::PermissionDenied(path),
            Some(Errno::NAMETOOLONG) => RestoreError::NameTooLong(path),
            Some(Errno::NOTDIR) => RestoreError::NotAFolder(path),
            Some(Errno::ISDIR | Errno::NOTEMPTY) => RestoreError::FolderInTheWay(path),
            _ => RestoreError::Io { path, source },
        }
    }
}

/// The folder that a tree is written to.
#[derive(Debug)]
pub struct Destination {
    folder: Arc<OwnedFd>,
    disk_path: PathBuf,
    options: RestoreOptions,
    /// On a case-insensitive disk: each path and each folder above one, under its folded name.
    names: Option<Mutex<HashMap<String, String>>>,
    /// Folders that were walked to last, by their path.
    walked: Mutex<VecDeque<(String, Arc<OwnedFd>)>>,
    /// Symlinks to make in the end.
    links: Mutex<Vec<(TreePath, String)>>,
}

impl Destination {
    /// Opens `path` as a destination and makes it if it is missing. The path itself is the user's and may lead through
    /// symlinks.
    ///
    /// # Errors
    /// [`RestoreError::NotAFolder`], [`RestoreError::PermissionDenied`], or what the disk says.
    pub fn open(path: &Path, options: RestoreOptions) -> Result<Destination, RestoreError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => RestoreError::NotAFolder(path.to_owned()),
            _ => RestoreError::io(path, error),
        };
        std::fs::create_dir_all(path).map_err(failed)?;
        let disk_path = std::fs::canonicalize(path).map_err(failed)?;
        let folder = rustix::fs::open(&disk_path, FOLDER_FLAGS, Mode::empty())
            .map_err(|error| RestoreError::io(path, error))?;
        let case = probe_case(&folder).map_err(|error| RestoreError::io(path, error))?;
        Ok(Destination::with_case(folder, disk_path, options, case))
    }

    fn with_case(
        folder: OwnedFd,
        disk_path: PathBuf,
        options: RestoreOptions,
        case: CaseSensitivity,
    ) -> Destination {
        let names = match case {
            CaseSensitivity::Sensitive => None,
            CaseSensitivity::Insensitive => Some(Mutex::default()),
        };
        let folder = Arc::new(folder);
        Destination { folder, disk_path, options, names, walked: Mutex::default(), links: Mutex::default() }
    }

    /// Whether the destination's disk takes `A` and `a` for one name.
    #[must_use]
    pub fn case(&self) -> CaseSensitivity {
        match self.names {
            Some(_) => CaseSensitivity::Insensitive,
            None => CaseSensitivity::Sensitive,
        }
    }

    /// Checks that the destination can hold a path beside all others admitted before. Every other operation does so
    /// too; a caller that asks for the whole tree first learns of a collision before a byte is fetched.
    ///
    /// # Errors
    /// [`RestoreError::CaseCollision`] or [`RestoreError::ReservedName`].
    pub fn admit(&self, path: &TreePath) -> Result<(), RestoreError> {
        let text = path.as_str();
        if text.split('/').any(is_part_name) {
            return Err(RestoreError::ReservedName(text.to_owned()));
        }
        let Some(names) = &self.names else {
            return Ok(());
        };
        let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = text.match_indices('/').map(|(end, _)| end).chain([text.len()]);
        for end in ends {
            let name = &text[..end];
            let first = names.entry(fold_case(name)).or_insert_with(|| name.to_owned());
            if first != name {
                let collision = RestoreError::CaseCollision { first: first.clone(), second: text.to_owned() };
                return Err(collision);
            }
        }
        Ok(())
    }

    /// Says what stands at an entry's place. A file of the right size is read and hashed.
    ///
    /// # Errors
    /// As the operations that write: a symlink where a folder should be, a name that can't be held, or what the disk
    /// says.
    pub fn existing(&self, path: &TreePath, entry: &Entry) -> Result<Existing, RestoreError> {
        self.admit(path)?;
        let place = match self.place(path, MissingFolders::Leave) {
            Ok(Some(place)) => place,
            Ok(None) => return Ok(Existing::Missing),
            Err(RestoreError::NotAFolder(_)) => return Ok(Existing::Different),
            Err(error) => return Err(error),
        };
        let Some(file_type) = place.file_type()? else {
            let is_file = matches!(entry, Entry::File { .. });
            let part = if is_file { part_len(&place)? } else { None };
            return Ok(part.map_or(Existing::Missing, |len| Existing::Partial { len }));
        };
        match (entry, file_type) {
            (Entry::File { executable, size, sha256, .. }, FileType::RegularFile) => {
                place.compare(*executable, *size, sha256)
            }
            (Entry::Folder, FileType::Directory) => Ok(Existing::Complete),
            (Entry::Symlink { target }, FileType::Symlink) => {
                let found = rustix::fs::readlinkat(&place.folder, place.name, Vec::new());
                let found = found.map_err(|error| place.error(error))?;
                let same = found.to_bytes() == target.as_bytes();
                Ok(if same { Existing::Complete } else { Existing::Different })
            }
            _ => Ok(Existing::Different),
        }
    }

    /// Makes a folder, and those above it.
    ///
    /// # Errors
    /// [`RestoreError::AlreadyThere`] if something else has its name, unless that may be overwritten.
    pub fn make_folder(&self, path: &TreePath) -> Result<(), RestoreError> {
        self.admit(path)?;
        let place = self.place_or_make(path)?;
        loop {
            match rustix::fs::mkdirat(&place.folder, place.name, Mode::from_raw_mode(0o777)) {
                Ok(()) => return self.options.sync(&place.folder, &place.disk_path),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(place.error(error)),
            }
            match (place.file_type()?, self.options.overwrite) {
                (Some(FileType::Directory), _) => return Ok(()),
                (Some(_), Overwrite::No) => return Err(RestoreError::AlreadyThere(place.disk_path)),
                (Some(_), Overwrite::Yes) => place.unlink(place.name)?,
                (None, _) => {}
            }
        }
    }

    /// Notes a symlink, which [`Destination::finish`] makes: as long as files are written there are no links of ours
    /// that anything could go through.
    ///
    /// # Errors
    /// [`RestoreError::SymlinkTarget`], or a name that can't be held.
    pub fn symlink(&self, path: &TreePath, target: &str) -> Result<(), RestoreError> {
        self.admit(path)?;
        if let Err(source) = path.check_symlink_target(target) {
            let (path, target) = (path.as_str().to_owned(), target.to_owned());
            return Err(RestoreError::SymlinkTarget { path, target, source });
        }
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.push((path.clone(), target.to_owned()));
        Ok(())
    }

    /// Makes the noted symlinks. Call it when all files are written.
    ///
    /// # Errors
    /// [`RestoreError::AlreadyThere`] if something else has a link's name, unless that may be overwritten.
    pub fn finish(self) -> Result<(), RestoreError> {
        let links = std::mem::take(&mut *self.links.lock().unwrap_or_else(PoisonError::into_inner));
        links.iter().try_for_each(|(path, target)| self.make_symlink(path, target))
    }

    fn make_symlink(&self, path: &TreePath, target: &str) -> Result<(), RestoreError> {
        let place = self.place_or_make(path)?;
        if place.file_type()? == Some(FileType::Symlink) {
            let found = rustix::fs::readlinkat(&place.folder, place.name, Vec::new());
            if found.is_ok_and(|found| found.to_bytes() == target.as_bytes()) {
                return Ok(());
            }
        }
        let part = part_name(place.name);
        // A link that an interrupted pull left under this name may point elsewhere.
        place.unlink(&part)?;
        rustix::fs::symlinkat(target, &place.folder, part.as_str()).map_err(|error| place.error(error))?;
        let renamed = self.options.rename(&place.folder, &part, place.name, &place.disk_path);
        if renamed.is_err() {
            place.unlink(&part)?;
        }
        renamed
    }

    /// Sets a finished file's executable bit.
    ///
    /// # Errors
    /// What the disk says.
    pub fn set_executable(&self, path: &TreePath, executable: bool) -> Result<(), RestoreError> {
        self.admit(path)?;
        let place = self.place_or_make(path)?;
        let file = place.open_regular()?;
        let metadata = file.metadata().map_err(|error| place.error(error))?;
        if !metadata.is_file() || metadata.nlink() != 1 {
            return Err(RestoreError::AlreadyThere(place.disk_path));
        }
        set_executable(&file, metadata.mode(), executable).map_err(|error| place.error(error))
    }

    /// Opens the part file of a file, as an interrupted pull left it or empty, and locks it.
    ///
    /// # Errors
    /// [`RestoreError::AlreadyThere`] if the file exists and may not be overwritten: ask [`Destination::existing`]
    /// first. [`RestoreError::Busy`] if another pull writes it.
    pub fn part_file(&self, path: &TreePath) -> Result<PartFile, RestoreError> {
        self.admit(path)?;
        let place = self.place_or_make(path)?;
        if self.options.overwrite == Overwrite::No && place.file_type()?.is_some() {
            return Err(RestoreError::AlreadyThere(place.disk_path));
        }
        PartFile::open(self.options, place)
    }
}

impl RestoreOptions {
    /// Gives a finished part its name, over what is there only if that may be overwritten.
    fn rename(&self, folder: &OwnedFd, part: &str, name: &str, disk_path: &Path) -> Result<(), RestoreError> {
        let renamed = match self.overwrite {
            Overwrite::No => rename_new(folder, part, name),
            Overwrite::Yes => rename_over(folder, part, name),
        };
        renamed.map_err(|error| match error {
            Errno::EXIST => RestoreError::AlreadyThere(disk_path.to_owned()),
            error => RestoreError::io(disk_path, error),
        })?;
        self.sync(folder, disk_path)
    }

    /// Syncs a folder after a change to its names, if asked for.
    fn sync(&self, folder: &OwnedFd, disk_path: &Path) -> Result<(), RestoreError> {
        match self.durability {
            Durability::Cached => Ok(()),
            Durability::Synced => {
                rustix::fs::fsync(folder).map_err(|error| RestoreError::io(disk_path, error))
            }
        }
    }
}

fn rename_new(folder: &OwnedFd, part: &str, name: &str) -> rustix::io::Result<()> {
    match rustix::fs::renameat_with(folder, part, folder, name, RenameFlags::NOREPLACE) {
        // Some network disks can't; then we look first.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Err(Errno::EXIST),
                Err(Errno::NOENT) => rustix::fs::renameat(folder, part, folder, name),
                Err(error) => Err(error),
            }
        }
        result => result,
    }
}

/// Renames over a file, a symlink or an empty folder.
fn rename_over(folder: &OwnedFd, part: &str, name: &str) -> rustix::io::Result<()> {
    match rustix::fs::renameat(folder, part, folder, name) {
        Err(Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY) => {
            match rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR) {
                Err(Errno::EXIST) => Err(Errno::NOTEMPTY),
                result => result,
            }?;
            rustix::fs::renameat(folder, part, folder, name)
        }
        result => result,
    }
}

/// Asks the disk itself, with a name that nobody else uses.
fn probe_case(folder: &OwnedFd) -> rustix::io::Result<CaseSensitivity> {
    static PROBES: AtomicU64 = AtomicU64::new(0);
    let tag = (rustix::process::getpid().as_raw_nonzero(), PROBES.fetch_add(1, Ordering::Relaxed));
    let name = format!(".Seedbank-Probe-{}-{}", tag.0, tag.1);
    let other = format!(".sEEDBANK-pROBE-{}-{}", tag.0, tag.1);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name.as_str(), flags, Mode::RUSR | Mode::WUSR)?;
    let found = rustix::fs::statat(folder, other.as_str(), AtFlags::SYMLINK_NOFOLLOW);
    rustix::fs::unlinkat(folder, name.as_str(), AtFlags::empty())?;
    match found {
        Ok(_) => Ok(CaseSensitivity::Insensitive),
        Err(Errno::NOENT) => Ok(CaseSensitivity::Sensitive),
        Err(error) => Err(error),
    }
}

/// Takes or gives the executable bit of a file with this `mode` wherever the umask let the file be read. The file was
/// made with 0644 minus the umask, which we can't ask for without changing it for other threads.
fn set_executable(file: &File, mode: u32, executable: bool) -> io::Result<()> {
    let mode = mode & 0o777;
    let wanted = if executable { mode | ((mode & 0o444) >> 2) } else { mode & !0o111 };
    if wanted == mode { Ok(()) } else { file.set_permissions(std::fs::Permissions::from_mode(wanted)) }
}

#[cfg(test)]
mod tests;

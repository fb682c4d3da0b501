//! A file of a pull under way: written beside its target, checked, and only then given its name.
//!
//! A part file outlives its writer. So it is locked while it is written, and what is found under its name is taken
//! only if it is a plain file with no other name: anybody may have put it there.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::place::Place;
use super::{Durability, RestoreError, RestoreOptions, set_executable};
use crate::scan::PART_SUFFIX;

/// The longest file name that common disks take.
const NAME_BYTES_MAX: usize = 255;

/// How often we try to get hold of a part file that others rename or replace at the same moment.
const OPEN_ATTEMPTS: u32 = 10;

/// A file being written, under another name until it is whole. Dropping it keeps it for the next pull.
#[derive(Debug)]
pub struct PartFile {
    options: RestoreOptions,
    folder: Arc<OwnedFd>,
    name: String,
    part: String,
    disk_path: PathBuf,
    file: File,
    mode: u32,
    len: u64,
    end: End,
}

/// Whether there may be bytes behind the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Clean,
    /// A write there failed.
    Torn,
}

impl PartFile {
    /// Opens and locks the part file of a place, or makes it.
    pub(super) fn open(options: RestoreOptions, place: Place<'_>) -> Result<PartFile, RestoreError> {
        let part = part_name(place.name);
        for _ in 0..OPEN_ATTEMPTS {
            if let Some((file, metadata)) = try_open(&place, &part)? {
                let Place { folder, name, disk_path } = place;
                let (name, mode, len, end) = (name.to_owned(), metadata.mode(), metadata.len(), End::Clean);
                return Ok(PartFile { options, folder, name, part, disk_path, file, mode, len, end });
            }
        }
        Err(RestoreError::Busy(place.disk_path))
    }

    /// Bytes it holds.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads from `offset` to fill `buffer`; fewer bytes mean that the part ends there. For checking what an
    /// interrupted pull left.
    ///
    /// # Errors
    /// What the disk says.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, RestoreError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let at = offset.saturating_add(bytes(filled));
            match self.file.read_at(&mut buffer[filled..], at) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(error)),
            }
        }
        Ok(filled)
    }

    /// Cuts off what is not right after `len` bytes. Does nothing if it is not longer.
    ///
    /// # Errors
    /// What the disk says.
    pub fn truncate_to(&mut self, len: u64) -> Result<(), RestoreError> {
        if len < self.len {
            self.file.set_len(len).map_err(|error| self.error(error))?;
            self.len = len;
        }
        Ok(())
    }

    /// Writes at the end.
    ///
    /// # Errors
    /// [`RestoreError::DiskFull`] or what the disk says. The part then holds what was there before, and maybe more
    /// behind it, which the next append overwrites.
    pub fn append(&mut self, data: &[u8]) -> Result<(), RestoreError> {
        if let Err(error) = self.file.write_all_at(data, self.len) {
            self.end = End::Torn;
            return Err(self.error(error));
        }
        self.len += bytes(data.len());
        Ok(())
    }

    /// Gives the file its mode and its name. The caller has checked every byte.
    ///
    /// # Errors
    /// [`RestoreError::AlreadyThere`] if the name was taken meanwhile, unless that may be overwritten;
    /// [`RestoreError::FolderInTheWay`]; what the disk says. The part stays.
    pub fn finish(self, executable: bool) -> Result<(), RestoreError> {
        if self.end == End::Torn {
            self.file.set_len(self.len).map_err(|error| self.error(error))?;
        }
        set_executable(&self.file, self.mode, executable).map_err(|error| self.error(error))?;
        if self.options.durability == Durability::Synced {
            self.file.sync_all().map_err(|error| self.error(error))?;
        }
        self.options.rename(&self.folder, &self.part, &self.name, &self.disk_path)
    }

    /// Removes the part.
    ///
    /// # Errors
    /// What the disk says.
    pub fn discard(self) -> Result<(), RestoreError> {
        rustix::fs::unlinkat(&self.folder, self.part.as_str(), AtFlags::empty())
            .map_err(|error| self.error(error))
    }

    fn error(&self, error: impl Into<io::Error>) -> RestoreError {
        RestoreError::io(&self.disk_path, error)
    }
}

/// The name of a file's part file. Names that would become too long are cut and told apart by their hash.
pub(super) fn part_name(name: &str) -> String {
    let whole = format!(".{name}{PART_SUFFIX}");
    if whole.len() <= NAME_BYTES_MAX {
        return whole;
    }
    let hash = digest::digest(&digest::SHA256, name.as_bytes());
    let hash: String = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let mut kept = NAME_BYTES_MAX - PART_SUFFIX.len() - hash.len() - 2;
    while !name.is_char_boundary(kept) {
        kept -= 1;
    }
    format!(".{}-{hash}{PART_SUFFIX}", &name[..kept])
}

/// Opens and locks a part file. `None`: it was renamed, or was none and is removed; try again.
fn try_open(place: &Place<'_>, part: &str) -> Result<Option<(File, Metadata)>, RestoreError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o644);
    let file = match rustix::fs::openat(&place.folder, part, flags, mode) {
        Ok(descriptor) => File::from(descriptor),
        // A symlink or a socket: not ours.
        Err(Errno::LOOP | Errno::NXIO) => {
            place.unlink(part)?;
            return Ok(None);
        }
        Err(error) => return Err(place.error(error)),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(RestoreError::Busy(place.disk_path.clone())),
        Err(error) => return Err(place.error(error)),
    }
    let metadata = file.metadata().map_err(|error| place.error(error))?;
    let named = match rustix::fs::statat(&place.folder, part, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(named) => named,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(place.error(error)),
    };
    if named.st_ino != metadata.ino() {
        // Another pull finished it between our opening and our lock.
        return Ok(None);
    }
    if !metadata.is_file() || metadata.nlink() != 1 {
        // Writing to a second name of a file would change the file under its first, wherever that is.
        place.unlink(part)?;
        return Ok(None);
    }
    Ok(Some((file, metadata)))
}

/// Bytes in the part file of a place, if there is one.
pub(super) fn part_len(place: &Place<'_>) -> Result<Option<u64>, RestoreError> {
    match rustix::fs::statat(&place.folder, part_name(place.name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile => {
            Ok(u64::try_from(found.st_size).ok())
        }
        Ok(_) | Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(place.error(error)),
    }
}

fn bytes(len: usize) -> u64 {
    u64::try_from(len).expect("a buffer's length fits 64 bits")
}

//! Where an entry goes: its folder, walked to from the destination without following a symlink, and its name in there.
//!
//! A tree comes in order, so the folder of one file is that of the next as a rule: the last few are kept open. An open
//! folder stays the folder that it was, whatever is put in its place meanwhile.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use aws_lc_rs::digest;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use seedbank_formats::Sha256;
use seedbank_formats::path::TreePath;

use super::{Destination, Existing, FOLDER_FLAGS, Overwrite, RestoreError};

/// One for whoever looks what is there, one for whoever writes behind it, and as many again at a folder's end.
const WALKED_MAX: usize = 4;

/// Bytes per read when content is compared: large enough for a disk's full speed, small beside everything else.
const COMPARE_BUFFER_BYTES: usize = 1 << 20;

/// An entry's place: its folder, open, and its name in there.
pub(super) struct Place<'a> {
    pub(super) folder: Arc<OwnedFd>,
    pub(super) name: &'a str,
    pub(super) disk_path: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MissingFolders {
    Make,
    Leave,
}

impl Destination {
    pub(super) fn place_or_make<'p>(&self, path: &'p TreePath) -> Result<Place<'p>, RestoreError> {
        Ok(self.place(path, MissingFolders::Make)?.expect("missing folders were made"))
    }

    /// Walks to the folder of a path without following a symlink. `None`: a folder is missing and was to be left so.
    pub(super) fn place<'p>(
        &self,
        path: &'p TreePath,
        missing: MissingFolders,
    ) -> Result<Option<Place<'p>>, RestoreError> {
        let text = path.as_str();
        let disk_path = self.disk_path.join(text);
        let Some((above, name)) = text.rsplit_once('/') else {
            return Ok(Some(Place { folder: Arc::clone(&self.folder), name: text, disk_path }));
        };
        if let Some(folder) = self.walked(above) {
            return Ok(Some(Place { folder, name, disk_path }));
        }
        let mut folder = Arc::clone(&self.folder);
        let mut walked = self.disk_path.clone();
        for component in above.split('/') {
            walked.push(component);
            let opened = rustix::fs::openat(&folder, component, FOLDER_FLAGS, Mode::empty());
            folder = Arc::new(match (opened, missing) {
                (Ok(inner), _) => inner,
                (Err(Errno::NOENT), MissingFolders::Leave) => return Ok(None),
                (Err(Errno::NOENT), MissingFolders::Make) => self.enter_new(&folder, component, &walked)?,
                (Err(error), missing) => {
                    let problem = not_entered(&folder, component, &walked, error);
                    let may_replace =
                        missing == MissingFolders::Make && self.options.overwrite == Overwrite::Yes;
                    if !may_replace || !matches!(problem, RestoreError::NotAFolder(_)) {
                        return Err(problem);
                    }
                    rustix::fs::unlinkat(&folder, component, AtFlags::empty())
                        .map_err(|error| RestoreError::io(&walked, error))?;
                    self.enter_new(&folder, component, &walked)?
                }
            });
        }
        self.remember(above, &folder);
        Ok(Some(Place { folder, name, disk_path }))
    }

    /// A folder that was walked to lately.
    fn walked(&self, path: &str) -> Option<Arc<OwnedFd>> {
        let walked = self.walked.lock().unwrap_or_else(PoisonError::into_inner);
        walked.iter().find(|(known, _)| known == path).map(|(_, folder)| Arc::clone(folder))
    }

    fn remember(&self, path: &str, folder: &Arc<OwnedFd>) {
        let mut walked = self.walked.lock().unwrap_or_else(PoisonError::into_inner);
        if walked.len() == WALKED_MAX {
            walked.pop_front();
        }
        walked.push_back((path.to_owned(), Arc::clone(folder)));
    }

    /// Makes and opens a folder, which another thread may do at the same moment.
    fn enter_new(&self, above: &OwnedFd, name: &str, walked: &Path) -> Result<OwnedFd, RestoreError> {
        match rustix::fs::mkdirat(above, name, Mode::from_raw_mode(0o777)) {
            Ok(()) => self.options.sync(above, walked)?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(RestoreError::io(walked, error)),
        }
        rustix::fs::openat(above, name, FOLDER_FLAGS, Mode::empty())
            .map_err(|error| not_entered(above, name, walked, error))
    }
}

/// Why a component of a path could not be opened as a folder.
fn not_entered(above: &OwnedFd, name: &str, walked: &Path, error: Errno) -> RestoreError {
    let found = rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW);
    match found.map(|found| FileType::from_raw_mode(found.st_mode)) {
        Ok(FileType::Symlink) => RestoreError::SymlinkInTheWay(walked.to_owned()),
        _ => RestoreError::io(walked, error),
    }
}

impl Place<'_> {
    pub(super) fn error(&self, error: impl Into<io::Error>) -> RestoreError {
        RestoreError::io(&self.disk_path, error)
    }

    /// What has the entry's name.
    pub(super) fn file_type(&self) -> Result<Option<FileType>, RestoreError> {
        match rustix::fs::statat(&self.folder, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(FileType::from_raw_mode(found.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.error(error)),
        }
    }

    pub(super) fn open_regular(&self) -> Result<File, RestoreError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.folder, self.name, flags, Mode::empty());
        file.map(File::from).map_err(|error| self.error(error))
    }

    pub(super) fn compare(
        &self,
        executable: bool,
        size: u64,
        sha256: &Sha256,
    ) -> Result<Existing, RestoreError> {
        let mut file = self.open_regular()?;
        let metadata = file.metadata().map_err(|error| self.error(error))?;
        if !metadata.is_file() || metadata.len() != size {
            return Ok(Existing::Different);
        }
        let found = hash(&mut file, size).map_err(|error| self.error(error))?;
        Ok(if found != *sha256 {
            Existing::Different
        } else if (metadata.mode() & 0o100 != 0) == executable {
            Existing::Complete
        } else if metadata.nlink() != 1 {
            // Its mode is also that of a name which may lie outside.
            Existing::Different
        } else {
            Existing::OtherMode
        })
    }

    /// Removes a name that is no folder; a missing one is fine.
    pub(super) fn unlink(&self, name: &str) -> Result<(), RestoreError> {
        match rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.error(error)),
        }
    }
}

/// Of a file that has `size` bytes.
fn hash(file: &mut File, size: u64) -> io::Result<Sha256> {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; usize::try_from(size).unwrap_or(usize::MAX).clamp(1, COMPARE_BUFFER_BYTES)];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => context.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let hash = context.finish();
    Ok(Sha256(hash.as_ref().try_into().expect("SHA-256 has 32 bytes")))
}

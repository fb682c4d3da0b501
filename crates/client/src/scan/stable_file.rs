//! Reads a file that others may write to, and says whether what was read is one state of it.
//!
//! There is no lock that all programs respect, so the file's stamp is compared before and after. This doesn't prevent a
//! change; it keeps a mixture of two states out of a dataset.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{FileStamp, is_executable};

/// Why a file could not be read as one state of it.
#[derive(Debug, thiserror::Error)]
pub enum ReadStableError {
    /// Somebody wrote to it, replaced or removed it in the meantime. Try once more, then tell the user.
    #[error("{} changed while it was read", .0.display())]
    ChangedWhileRead(PathBuf),
    /// Get permission, or exclude it.
    #[error("permission denied: {}", .0.display())]
    PermissionDenied(PathBuf),
    /// Nothing that trying again would help.
    #[error("can't read {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
}

/// A file being read, that notices if it changes meanwhile.
///
/// What was read may be used only after [`StableFile::finish`] agreed.
#[derive(Debug)]
pub struct StableFile {
    file: File,
    path: PathBuf,
    stamp: FileStamp,
    executable: bool,
    read: u64,
}

/// Opens a scanned file for one reading, and notes its state.
///
/// # Errors
/// [`ReadStableError::ChangedWhileRead`] if it is gone or no regular file any more.
pub fn read_stable(path: &Path) -> Result<StableFile, ReadStableError> {
    // Without NONBLOCK, a pipe that took the file's place would hang us.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let descriptor = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| match error {
        // LOOP: a symlink. NXIO: a socket.
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO => {
            ReadStableError::ChangedWhileRead(path.to_owned())
        }
        error => read_error(path, error.into()),
    })?;
    let file = File::from(descriptor);
    let stat = rustix::fs::fstat(&file).map_err(|error| read_error(path, error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(ReadStableError::ChangedWhileRead(path.to_owned()));
    }
    Ok(StableFile {
        file,
        path: path.to_owned(),
        stamp: FileStamp::of(&stat),
        executable: is_executable(&stat),
        read: 0,
    })
}

fn read_error(path: &Path, source: io::Error) -> ReadStableError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => ReadStableError::PermissionDenied(path.to_owned()),
        _ => ReadStableError::Io { path: path.to_owned(), source },
    }
}

impl StableFile {
    /// The file's state when it was opened, which may be newer than the scanned one.
    #[must_use]
    pub fn stamp(&self) -> &FileStamp {
        &self.stamp
    }

    /// Whether the owner may execute it.
    #[must_use]
    pub fn executable(&self) -> bool {
        self.executable
    }

    /// Fills `buffer` from where the last call ended. Fewer bytes than it holds: the file is at its end.
    ///
    /// # Errors
    /// [`ReadStableError::ChangedWhileRead`] as soon as the file is longer than it was; otherwise what the disk says.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, ReadStableError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_error(&self.path, error)),
            }
        }
        self.read = self.read.saturating_add(u64::try_from(filled).expect("a buffer's length fits 64 bits"));
        if self.read > self.stamp.size {
            // A log that is written faster than we read would never end.
            return Err(ReadStableError::ChangedWhileRead(self.path.clone()));
        }
        Ok(filled)
    }

    /// Says whether the bytes read are the whole file in one state, and gives that state.
    ///
    /// # Errors
    /// [`ReadStableError::ChangedWhileRead`] if the file changed, was replaced, or was not read to its end.
    pub fn finish(self) -> Result<FileStamp, ReadStableError> {
        let changed = || ReadStableError::ChangedWhileRead(self.path.clone());
        let open = rustix::fs::fstat(&self.file).map_err(|error| read_error(&self.path, error.into()))?;
        let named = match rustix::fs::lstat(&self.path) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Err(changed()),
            Err(error) => return Err(read_error(&self.path, error.into())),
        };
        let same = [&open, &named].into_iter().all(|stat| FileStamp::of(stat) == self.stamp);
        if same && self.read == self.stamp.size { Ok(self.stamp) } else { Err(changed()) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;

    use rustix::fs::{FileType, Mode};
    use tempfile::TempDir;

    use super::{ReadStableError, StableFile, read_stable};

    /// A folder with a file that holds its name.
    fn file() -> TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "file").unwrap();
        root
    }

    fn read_all(file: &mut StableFile) -> Result<Vec<u8>, ReadStableError> {
        let mut content = Vec::new();
        let mut buffer = [0; 3];
        loop {
            let count = file.fill(&mut buffer)?;
            content.extend_from_slice(&buffer[..count]);
            if count < buffer.len() {
                return Ok(content);
            }
        }
    }

    #[test]
    fn quiet_file_reads_whole() {
        let root = file();
        let mut file = read_stable(&root.path().join("file")).unwrap();
        assert_eq!(read_all(&mut file).unwrap(), b"file");
        assert_eq!(file.finish().unwrap().size, 4);
    }

    #[test]
    fn file_that_changes_while_it_is_read_is_noticed() {
        let changes: [fn(&Path); 5] = [
            |path| fs::OpenOptions::new().append(true).open(path).unwrap().write_all(b"more").unwrap(),
            |path| fs::write(path, "f").unwrap(),
            |path| fs::remove_file(path).unwrap(),
            |path| {
                fs::write(path.with_extension("new"), "file").unwrap();
                fs::rename(path.with_extension("new"), path).unwrap();
            },
            |path| {
                // Same size, and the old time set again.
                let before = fs::metadata(path).unwrap();
                // Until the disk's clock ticks.
                while fs::metadata(path).unwrap().ctime_nsec() == before.ctime_nsec() {
                    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
                    file.write_all(b"FILE").unwrap();
                    file.set_modified(before.modified().unwrap()).unwrap();
                }
            },
        ];
        for (index, change) in changes.iter().enumerate() {
            let root = file();
            let path = root.path().join("file");
            let mut file = read_stable(&path).unwrap();
            let mut buffer = [0; 2];
            file.fill(&mut buffer).unwrap();
            change(&path);
            let result = read_all(&mut file).and_then(|_| file.finish());
            assert!(matches!(result, Err(ReadStableError::ChangedWhileRead(_))), "change {index}");
        }
    }

    #[test]
    fn file_that_was_not_read_to_its_end_is_not_taken_for_whole() {
        let root = file();
        let file = read_stable(&root.path().join("file")).unwrap();
        assert!(file.finish().is_err());
    }

    #[test]
    fn link_or_pipe_in_the_place_of_a_file_is_not_read() {
        let root = file();
        symlink("file", root.path().join("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, root.path().join("pipe"), FileType::Fifo, Mode::RUSR, 0)
            .unwrap();
        for name in ["link", "pipe", "gone"] {
            let result = read_stable(&root.path().join(name));
            assert!(matches!(result, Err(ReadStableError::ChangedWhileRead(_))), "{name}");
        }
    }
}

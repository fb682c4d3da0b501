//! Are two folders the same? Paths, kinds, permissions, bytes and link targets.
//!
//! Times and owners are deliberately left out: a pulled folder has its own.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link, which is never followed.
    Symlink,
    /// A device, a socket or a pipe.
    Other,
}

/// One way in which two folders differ. Paths are relative to the folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Only the expected folder has it.
    Missing(PathBuf),
    /// Only the actual folder has it.
    Unexpected(PathBuf),
    /// Both have it, as different things.
    Kind {
        /// Where.
        path: PathBuf,
        /// What was expected.
        expected: EntryKind,
        /// What is there.
        actual: EntryKind,
    },
    /// Its permission bits differ.
    Mode {
        /// Where.
        path: PathBuf,
        /// What was expected.
        expected: u32,
        /// What is there.
        actual: u32,
    },
    /// Its bytes differ, or one of the two ends there.
    Bytes {
        /// Where.
        path: PathBuf,
        /// The first byte that differs.
        offset: u64,
    },
    /// The link points elsewhere.
    Target {
        /// Where.
        path: PathBuf,
        /// What was expected.
        expected: PathBuf,
        /// What is there.
        actual: PathBuf,
    },
}

/// Every difference between two folders, in the order of their paths.
///
/// # Errors
/// What the disk says.
pub fn compare_folders(expected: &Path, actual: &Path) -> io::Result<Vec<Difference>> {
    let (expected_entries, mut actual_entries) = (entries(expected)?, entries(actual)?);
    let mut differences = BTreeMap::new();
    for (path, metadata) in expected_entries {
        let difference = match actual_entries.remove(&path) {
            None => Some(Difference::Missing(path.clone())),
            Some(found) => compare_entry(expected, &metadata, actual, &found, &path)?,
        };
        if let Some(difference) = difference {
            differences.insert(path, difference);
        }
    }
    let unexpected = actual_entries.into_keys().map(|path| (path.clone(), Difference::Unexpected(path)));
    differences.extend(unexpected);
    Ok(differences.into_values().collect())
}

/// Fails the test when two folders differ.
///
/// # Panics
/// When they do, with the first differences, or when one can't be read.
pub fn assert_same_folder(expected: &Path, actual: &Path) {
    /// More than these say nothing new.
    const SHOWN_MAX: usize = 10;
    let differences = compare_folders(expected, actual).expect("both folders can be read");
    assert!(
        differences.is_empty(),
        "{} differences between {} and {}, first: {:#?}",
        differences.len(),
        expected.display(),
        actual.display(),
        &differences[..differences.len().min(SHOWN_MAX)]
    );
}

fn entries(root: &Path) -> io::Result<BTreeMap<PathBuf, Metadata>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                waiting.push(path.clone());
            }
            found.insert(path, metadata);
        }
    }
    Ok(found)
}

fn compare_entry(
    expected_root: &Path,
    expected: &Metadata,
    actual_root: &Path,
    actual: &Metadata,
    path: &Path,
) -> io::Result<Option<Difference>> {
    let (expected_kind, actual_kind) = (kind(expected), kind(actual));
    let path = path.to_owned();
    if expected_kind != actual_kind {
        return Ok(Some(Difference::Kind { path, expected: expected_kind, actual: actual_kind }));
    }
    if expected_kind == EntryKind::Symlink {
        let (expected, actual) =
            (fs::read_link(expected_root.join(&path))?, fs::read_link(actual_root.join(&path))?);
        return Ok((expected != actual).then_some(Difference::Target { path, expected, actual }));
    }
    let (expected_mode, actual_mode) = (mode(expected), mode(actual));
    if expected_mode != actual_mode {
        return Ok(Some(Difference::Mode { path, expected: expected_mode, actual: actual_mode }));
    }
    if expected_kind == EntryKind::File {
        let offset = first_different_byte(&expected_root.join(&path), &actual_root.join(&path))?;
        return Ok(offset.map(|offset| Difference::Bytes { path, offset }));
    }
    Ok(None)
}

fn kind(metadata: &Metadata) -> EntryKind {
    let file_type = metadata.file_type();
    if file_type.is_symlink() {
        EntryKind::Symlink
    } else if file_type.is_dir() {
        EntryKind::Folder
    } else if file_type.is_file() {
        EntryKind::File
    } else {
        EntryKind::Other
    }
}

fn mode(metadata: &Metadata) -> u32 {
    metadata.permissions().mode() & 0o7777
}

fn first_different_byte(expected: &Path, actual: &Path) -> io::Result<Option<u64>> {
    const BUFFER_BYTES: usize = 1 << 18;
    let mut expected = BufReader::with_capacity(BUFFER_BYTES, File::open(expected)?);
    let mut actual = BufReader::with_capacity(BUFFER_BYTES, File::open(actual)?);
    let mut offset = 0;
    loop {
        let (left, right) = (expected.fill_buf()?, actual.fill_buf()?);
        let common = left.len().min(right.len());
        if common == 0 {
            let both_ended = left.is_empty() && right.is_empty();
            return Ok((!both_ended).then_some(offset));
        }
        if left[..common] != right[..common] {
            let same = left.iter().zip(right).take_while(|(left, right)| left == right).count();
            return Ok(Some(offset + same as u64));
        }
        expected.consume(common);
        actual.consume(common);
        offset += common as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::{Difference, EntryKind, compare_folders};
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::{Path, PathBuf};

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("empty")).unwrap();
        fs::create_dir(folder.path().join("full")).unwrap();
        fs::write(folder.path().join("full/file"), [7; 300_000]).unwrap();
        fs::write(folder.path().join("full/short"), b"short").unwrap();
        symlink("full/file", folder.path().join("link")).unwrap();
        folder
    }

    fn differences_after(change: impl FnOnce(&Path)) -> Vec<Difference> {
        let (expected, actual) = (folder(), folder());
        assert_eq!(compare_folders(expected.path(), actual.path()).unwrap(), []);
        change(actual.path());
        compare_folders(expected.path(), actual.path()).unwrap()
    }

    #[test]
    fn one_changed_byte_is_found_where_it_is() {
        let found = differences_after(|root| {
            let mut bytes = vec![7; 300_000];
            bytes[290_001] = 8;
            fs::write(root.join("full/file"), bytes).unwrap();
        });
        assert_eq!(found, [Difference::Bytes { path: "full/file".into(), offset: 290_001 }]);
    }

    #[test]
    fn a_file_cut_short_differs_at_its_end() {
        let found = differences_after(|root| fs::write(root.join("full/short"), b"sho").unwrap());
        assert_eq!(found, [Difference::Bytes { path: "full/short".into(), offset: 3 }]);
    }

    #[test]
    fn missing_and_unexpected_entries_are_found_empty_folders_too() {
        let found = differences_after(|root| {
            fs::remove_dir(root.join("empty")).unwrap();
            fs::write(root.join("new"), b"").unwrap();
        });
        assert_eq!(found, [Difference::Missing("empty".into()), Difference::Unexpected("new".into())]);
    }

    #[test]
    fn kinds_modes_and_link_targets_are_compared() {
        let found = differences_after(|root| {
            fs::remove_dir(root.join("empty")).unwrap();
            fs::write(root.join("empty"), b"").unwrap();
            fs::set_permissions(root.join("full/short"), fs::Permissions::from_mode(0o755)).unwrap();
            fs::set_permissions(root.join("full/file"), fs::Permissions::from_mode(0o600)).unwrap();
            fs::remove_file(root.join("link")).unwrap();
            symlink("full/short", root.join("link")).unwrap();
        });
        assert_eq!(found.len(), 4);
        assert!(found.contains(&Difference::Kind {
            path: "empty".into(),
            expected: EntryKind::Folder,
            actual: EntryKind::File
        }));
        assert!(found.contains(&Difference::Target {
            path: "link".into(),
            expected: PathBuf::from("full/file"),
            actual: PathBuf::from("full/short")
        }));
        assert_eq!(
            found.iter().filter(|difference| matches!(difference, Difference::Mode { .. })).count(),
            2
        );
    }
}

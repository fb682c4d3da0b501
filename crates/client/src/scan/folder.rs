//! One folder's names: read from the disk, ordered as a tree wants them, and checked against each other.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use seedbank_formats::path::fold_case;

use super::ScanError;

/// A name that is kept.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) name: String,
    pub(super) kind: ChildKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChildKind {
    Folder,
    EmptyFolder,
    /// A regular file, as its folder says.
    File,
    /// Anything else, or the folder does not say.
    Other,
}

impl Child {
    /// Compares as the paths inside do: what is in folder `a` starts with `a/`.
    pub(super) fn cmp_in_tree(&self, other: &Child) -> Ordering {
        let (left, right) = (self.name.as_bytes(), other.name.as_bytes());
        let shared = left.len().min(right.len());
        left[..shared].cmp(&right[..shared]).then_with(|| self.byte(shared).cmp(&other.byte(shared)))
    }

    /// The byte at `at`, where a folder's name goes on with a slash.
    fn byte(&self, at: usize) -> Option<u8> {
        let slash = (self.kind == ChildKind::Folder && at == self.name.len()).then_some(b'/');
        self.name.as_bytes().get(at).copied().or(slash)
    }
}

/// Siblings whose names differ only in case. As paths collide exactly if two siblings on the way do, each folder can be
/// checked alone.
pub(super) fn case_collisions(disk_path: &Path, children: &[Child]) -> Vec<ScanError> {
    // Names that are written as they fold are all different, so each collision has one that is not; and most folders have
    // none of those.
    if children.iter().all(|child| is_plainly_folded(&child.name)) {
        return Vec::new();
    }
    let names = || children.iter().map(|child| child.name.as_str());
    let plain: HashSet<&str> = names().filter(|name| is_plainly_folded(name)).collect();
    let mut folded: HashMap<String, &str> = HashMap::new();
    let mut collisions = Vec::new();
    for name in names().filter(|name| !is_plainly_folded(name)) {
        let fold = fold_case(name);
        let plain = plain.get(fold.as_str()).copied();
        if let Some(first) = folded.insert(fold, name).or(plain) {
            collisions.push(ScanError::CaseCollision {
                first: disk_path.join(first),
                second: disk_path.join(name),
            });
        }
    }
    collisions
}

/// Whether the name folds to itself, as can be told without folding it.
fn is_plainly_folded(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase())
}

/// Opens a folder, and fails if a symlink took its place.
pub(super) fn open_folder(disk_path: &Path, how: OFlags) -> io::Result<OwnedFd> {
    let flags = how | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(disk_path, flags, Mode::empty())?)
}

/// A name in a folder.
pub(super) struct Found {
    pub(super) name: OsString,
    pub(super) is: FoundKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FoundKind {
    Folder,
    File,
    /// Anything else, or it can't be told.
    Other,
}

/// The names in a folder, in the order of the disk.
pub(super) struct ReadFolder {
    folder: rustix::fs::Dir,
    disk_path: PathBuf,
}

impl ReadFolder {
    pub(super) fn open(disk_path: &Path) -> io::Result<ReadFolder> {
        let descriptor = open_folder(disk_path, OFlags::RDONLY)?;
        Ok(ReadFolder { folder: rustix::fs::Dir::new(descriptor)?, disk_path: disk_path.to_owned() })
    }
}

impl Iterator for ReadFolder {
    type Item = io::Result<Found>;

    fn next(&mut self) -> Option<io::Result<Found>> {
        loop {
            let entry = match self.folder.read()? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error.into())),
            };
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let is = match entry.file_type() {
                FileType::Directory => FoundKind::Folder,
                FileType::RegularFile => FoundKind::File,
                // Some disks do not say.
                FileType::Unknown => {
                    let path = self.disk_path.join(OsStr::from_bytes(name));
                    match std::fs::symlink_metadata(path) {
                        Ok(metadata) if metadata.is_dir() => FoundKind::Folder,
                        Ok(metadata) if metadata.is_file() => FoundKind::File,
                        Ok(_) | Err(_) => FoundKind::Other,
                    }
                }
                _ => FoundKind::Other,
            };
            return Some(Ok(Found { name: OsString::from_vec(name.to_vec()), is }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Child, ChildKind, case_collisions};
    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
    use seedbank_formats::path::fold_case;
    use std::collections::BTreeMap;
    use std::path::Path;

    proptest! {
        #[test]
        fn every_name_but_the_first_of_a_fold_collides(names in btree_set("[abABéÉßKk\u{212a}]{1,2}", 0..20)) {
            let mut folds: BTreeMap<String, usize> = BTreeMap::new();
            for name in &names {
                *folds.entry(fold_case(name)).or_default() += 1;
            }
            let expected: usize = folds.values().map(|count| count - 1).sum();
            let children: Vec<Child> =
                names.iter().map(|name| Child { name: name.clone(), kind: ChildKind::File }).collect();
            prop_assert_eq!(case_collisions(Path::new("/"), &children).len(), expected, "{:?}", names);
        }

        #[test]
        fn order_is_that_of_the_paths_inside(names in btree_map("[ab.0-]{1,3}", proptest::bool::ANY, 0..20)) {
            let kind = |is_folder| if is_folder { ChildKind::Folder } else { ChildKind::File };
            let mut sorted: Vec<Child> = names
                .into_iter()
                .map(|(name, is_folder)| Child { name, kind: kind(is_folder) })
                .collect();
            sorted.sort_unstable_by(Child::cmp_in_tree);
            let slash = |child: &Child| if child.kind == ChildKind::Folder { "/" } else { "" };
            let keys: Vec<String> = sorted.iter().map(|child| child.name.clone() + slash(child)).collect();
            prop_assert!(keys.is_sorted(), "{:?}", keys);
        }
    }
}

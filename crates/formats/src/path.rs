//! Paths inside a dataset: relative, UTF-8, with `/` between components, and never able to leave the tree.
//!
//! A path names the same entry on every machine, so what some system reads differently is refused rather than
//! translated. A backslash is refused too: it parts folders on Windows, where a name with one could climb out. Case and
//! Unicode normalisation are kept as they are; [`case_collisions`] finds what a case-insensitive disk would merge.
//! Names that only some disks refuse (`CON`, a colon, a final dot) are left to whoever writes to such a disk.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// Longest component in bytes: what common file systems allow.
pub const COMPONENT_BYTES_MAX: usize = 255;
/// Longest path in bytes: Linux's `PATH_MAX`.
pub const PATH_BYTES_MAX: usize = 4096;

/// A checked path inside a dataset. Ordered by its bytes, as object listings are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Box<str>);

/// Why a text is not a path inside a dataset. The file must be renamed or left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It has no component.
    #[error("the path is empty")]
    Empty,
    /// It begins with a slash.
    #[error("the path is absolute")]
    Absolute,
    /// Two slashes follow each other, or one is last.
    #[error("the path has an empty component")]
    EmptyComponent,
    /// A component is `.` or `..`.
    #[error("the path has a component {0:?}, which names another folder")]
    Dots(&'static str),
    /// A byte is NUL, which no file system takes.
    #[error("the path has a NUL byte")]
    Nul,
    /// A byte is a backslash, which parts folders on some systems.
    #[error("the path has a backslash, which means another file on other systems")]
    Backslash,
    /// A component has more than [`COMPONENT_BYTES_MAX`] bytes.
    #[error("a component of the path has {bytes} bytes, the limit is {COMPONENT_BYTES_MAX}")]
    ComponentTooLong {
        /// How many it has.
        bytes: usize,
    },
    /// The whole has more than [`PATH_BYTES_MAX`] bytes.
    #[error("the path has {bytes} bytes, the limit is {PATH_BYTES_MAX}")]
    TooLong {
        /// How many it has.
        bytes: usize,
    },
}

/// Why a symlink's target can't be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It is empty.
    #[error("the symlink's target is empty")]
    Empty,
    /// It begins with a slash, so it means another file on every machine.
    #[error("the symlink's target is absolute")]
    Absolute,
    /// It climbs above the dataset's top.
    #[error("the symlink's target lies outside the tree")]
    Outside,
    /// A `..` follows a name. The name may be a symlink itself, so where that leads can't be told from the text.
    #[error("the symlink's target climbs up again after going down")]
    ClimbsAfterName,
    /// It has a NUL byte or a backslash.
    #[error("the symlink's target has a NUL byte or a backslash")]
    ForbiddenByte,
    /// It has more than [`PATH_BYTES_MAX`] bytes.
    #[error("the symlink's target has {bytes} bytes, the limit is {PATH_BYTES_MAX}")]
    TooLong {
        /// How many it has.
        bytes: usize,
    },
}

impl TreePath {
    /// Checks a text.
    ///
    /// # Errors
    /// [`PathError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<TreePath, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong { bytes: text.len() });
        }
        if text.starts_with('/') {
            return Err(PathError::Absolute);
        }
        for component in text.split('/') {
            check_component(component)?;
        }
        Ok(TreePath(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components from the top down; never none.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The last component.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&*self.0, |(_, name)| name)
    }

    /// The folder it lies in, unless that is the top.
    #[must_use]
    pub fn parent(&self) -> Option<TreePath> {
        self.0.rsplit_once('/').map(|(parent, _)| TreePath(parent.into()))
    }

    /// Every folder above it, from the top down.
    pub fn folders(&self) -> impl Iterator<Item = TreePath> + '_ {
        self.0.match_indices('/').map(|(at, _)| TreePath(self.0[..at].into()))
    }

    /// The path of `name` in this folder.
    ///
    /// # Errors
    /// [`PathError`] when the whole is no path. A `name` of several components is accepted.
    pub fn join(&self, name: &str) -> Result<TreePath, PathError> {
        TreePath::parse(&format!("{}/{name}", self.0))
    }

    /// Whether it lies anywhere below `folder`.
    #[must_use]
    pub fn is_below(&self, folder: &TreePath) -> bool {
        folder.reach(self) == Reach::Below
    }

    /// Checks that a symlink at this path stays inside the tree.
    ///
    /// `..` is allowed at the start only. What is above a symlink is always a real folder, so those climb as they read;
    /// after a name they would climb from wherever that name leads. So every symlink of a tree stays inside, through any
    /// chain of them. The target need not exist.
    ///
    /// # Errors
    /// [`TargetError`] says why not.
    pub fn check_symlink_target(&self, target: &str) -> Result<(), TargetError> {
        if target.is_empty() {
            return Err(TargetError::Empty);
        }
        if target.len() > PATH_BYTES_MAX {
            return Err(TargetError::TooLong { bytes: target.len() });
        }
        if target.contains(['\0', '\\']) {
            return Err(TargetError::ForbiddenByte);
        }
        if target.starts_with('/') {
            return Err(TargetError::Absolute);
        }
        let (mut height, mut descended) = (self.components().count() - 1, false);
        for component in target.split('/') {
            match component {
                "" | "." => {}
                ".." if descended => return Err(TargetError::ClimbsAfterName),
                ".." => height = height.checked_sub(1).ok_or(TargetError::Outside)?,
                _ => descended = true,
            }
        }
        Ok(())
    }

    /// Where `other` lies when this path is taken as a folder, in the order of paths.
    pub(crate) fn reach(&self, other: &TreePath) -> Reach {
        match other.0.as_bytes().strip_prefix(self.0.as_bytes()) {
            None if other < self => Reach::Before,
            None => Reach::After,
            Some(rest) => match rest.first().map(|byte| byte.cmp(&b'/')) {
                None | Some(Ordering::Less) => Reach::Between,
                Some(Ordering::Equal) => Reach::Below,
                Some(Ordering::Greater) => Reach::After,
            },
        }
    }
}

/// Where a path lies relative to a folder `f`. In byte order `f`, `f-x`, `f/y`, `f0` come in this sequence: what lies
/// below a folder is one run, but it does not follow the folder's own name at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Before the folder's name.
    Before,
    /// The name itself, or after it and before everything below.
    Between,
    /// Below the folder.
    Below,
    /// After everything below.
    After,
}

fn check_component(component: &str) -> Result<(), PathError> {
    match component {
        "" => return Err(PathError::EmptyComponent),
        "." => return Err(PathError::Dots(".")),
        ".." => return Err(PathError::Dots("..")),
        _ => {}
    }
    if component.len() > COMPONENT_BYTES_MAX {
        return Err(PathError::ComponentTooLong { bytes: component.len() });
    }
    if component.contains('\0') {
        return Err(PathError::Nul);
    }
    if component.contains('\\') {
        return Err(PathError::Backslash);
    }
    Ok(())
}

impl fmt::Display for TreePath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "TreePath({:?})", &*self.0)
    }
}

impl AsRef<[u8]> for TreePath {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl FromStr for TreePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<TreePath, PathError> {
        TreePath::parse(text)
    }
}

impl serde::Serialize for TreePath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for TreePath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<TreePath, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        TreePath::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A name as a case-insensitive disk compares it: Unicode lower case. Normalisation is not touched.
#[must_use]
pub fn fold_case(name: &str) -> String {
    name.to_lowercase()
}

/// Two paths that a case-insensitive disk would take for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseCollision {
    /// The path, or folder of a path, that came first.
    pub first: String,
    /// The one that differs from it by case only.
    pub second: String,
}

/// Paths and folders of paths that differ by case only, each against the first that folds as it does.
///
/// Two folders count as well: their files would end up in one, and a tree pushed from there would be another. Holds
/// every path in memory while it runs.
pub fn case_collisions<'a>(paths: impl IntoIterator<Item = &'a TreePath>) -> Vec<CaseCollision> {
    let mut seen: HashMap<String, &'a str> = HashMap::new();
    let mut reported = std::collections::HashSet::new();
    let mut collisions = Vec::new();
    for path in paths {
        let text = path.as_str();
        let ends = text.match_indices('/').map(|(at, _)| at).chain([text.len()]);
        for part in ends.map(|end| &text[..end]) {
            let first = *seen.entry(fold_case(part)).or_insert(part);
            if first != part && reported.insert(part) {
                collisions.push(CaseCollision { first: first.to_owned(), second: part.to_owned() });
            }
        }
    }
    collisions
}

#[cfg(test)]
mod tests {
    use super::{PathError, Reach, TargetError, TreePath, case_collisions};
    use proptest::prelude::proptest;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    #[test]
    fn paths_that_could_leave_the_tree_or_mean_another_file_are_refused() {
        let long = "a".repeat(256);
        let deep = "a/".repeat(2048) + "a";
        for (text, error) in [
            ("", PathError::Empty),
            ("/etc/passwd", PathError::Absolute),
            ("a//b", PathError::EmptyComponent),
            ("a/", PathError::EmptyComponent),
            ("a/../b", PathError::Dots("..")),
            ("..", PathError::Dots("..")),
            ("./a", PathError::Dots(".")),
            ("a\0b", PathError::Nul),
            ("..\\a", PathError::Backslash),
            (&long, PathError::ComponentTooLong { bytes: 256 }),
            (&deep, PathError::TooLong { bytes: 4097 }),
        ] {
            assert_eq!(TreePath::parse(text), Err(error), "{text:?}");
        }
        for text in ["a", "...", "a b/ç.txt", ".hidden", "C:", "a/b/c"] {
            assert_eq!(path(text).as_str(), text);
        }
    }

    #[test]
    fn a_path_knows_its_name_and_its_folders() {
        let path = path("a/b/c.txt");
        assert_eq!(path.name(), "c.txt");
        assert_eq!(path.parent().unwrap().as_str(), "a/b");
        assert_eq!(path.folders().map(|folder| folder.to_string()).collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!(path.parent().unwrap().join("d/e").unwrap().as_str(), "a/b/d/e");
        assert!(path.is_below(&TreePath::parse("a").unwrap()) && !path.is_below(&path));
    }

    #[test]
    fn symlinks_that_leave_the_tree_by_any_chain_are_refused() {
        let link = path("a/b/link");
        for target in ["x", "../x", "../../x", "../..", "./x//y/", "."] {
            assert_eq!(link.check_symlink_target(target), Ok(()), "{target}");
        }
        for (target, error) in [
            ("", TargetError::Empty),
            ("/x", TargetError::Absolute),
            ("../../../x", TargetError::Outside),
            ("x/../y", TargetError::ClimbsAfterName),
            ("x\\..", TargetError::ForbiddenByte),
            ("x\0", TargetError::ForbiddenByte),
        ] {
            assert_eq!(link.check_symlink_target(target), Err(error), "{target}");
        }
        assert_eq!(path("top").check_symlink_target(".."), Err(TargetError::Outside));
    }

    #[test]
    fn names_that_differ_by_case_collide_folders_too() {
        let paths =
            ["Data/a.txt", "data/b.txt", "readme", "README", "ÄRGER", "ärger", "other/readme"].map(path);
        let found = case_collisions(&paths);
        let found: Vec<_> = found.iter().map(|pair| (pair.first.as_str(), pair.second.as_str())).collect();
        assert_eq!(found, [("Data", "data"), ("readme", "README"), ("ÄRGER", "ärger")]);
    }

    #[test]
    fn what_lies_below_a_folder_is_one_run_in_the_order_of_paths() {
        let folder = path("f");
        let sorted = ["e", "f", "f!", "f-x", "f-x/y", "f/a", "f/z", "f0", "g"].map(path);
        assert!(sorted.is_sorted());
        let reaches = sorted.map(|other| folder.reach(&other));
        let (before, between, below, after) = (Reach::Before, Reach::Between, Reach::Below, Reach::After);
        assert_eq!(reaches, [before, between, between, between, between, below, below, after, after]);
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_kept(text in "[a./\\\\\0é]{0,12}") {
            if let Ok(path) = TreePath::parse(&text) {
                assert_eq!(path.as_str(), text);
                assert!(path.components().all(|part| !part.is_empty() && part != "." && part != ".."));
            }
        }
    }
}

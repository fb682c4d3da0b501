//! Walks a folder that is to be pushed, and reads its files without being fooled by a change.
//!
//! Entries come in the order of the version tree, which is the byte order of whole paths (`a-b` before `a/b`), so that
//! the tree can be built in one pass. Memory holds the names that are still to come of the folders on the way down and
//! nothing else: a folder of a million names takes a million names. Symlinks are entries, never followed. What a dataset
//! can't hold (a socket, a name that is not UTF-8, a link out of the tree) is an error that names it, and the walk goes on
//! after it, so that a first pass can list all of them.
//!
//! There is no snapshot: a file that appears or goes while the walk runs may be missed. One that changes while it is
//! read is noticed, see [`StableFile`].

mod folder;
mod stable_file;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use seedbank_formats::path::{PathError, TargetError, TreePath};

use folder::{Child, ChildKind, Found, FoundKind, ReadFolder, case_collisions, open_folder};
pub use stable_file::{ReadStableError, StableFile, read_stable};

use crate::glob::{Filter, PathKind};

/// How an interrupted pull calls an unfinished file: `.NAME` and this.
pub(crate) const PART_SUFFIX: &str = ".seedbank-part";

/// Whether a file name belongs to an unfinished file of a pull, on a disk that ignores case too.
pub(crate) fn is_part_name(name: &str) -> bool {
    let name = name.as_bytes();
    let suffix = name.len().checked_sub(PART_SUFFIX.len()).map(|start| &name[start..]);
    name.starts_with(b".") && suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(PART_SUFFIX.as_bytes()))
}

/// What identifies a file's content as long as nobody writes to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    /// Bytes.
    pub size: u64,
    /// Time of the last write, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Time of the last change to content or metadata, in nanoseconds since 1970. A tool that sets a file's mtime back
    /// still moves this one.
    pub ctime_ns: i64,
    /// Inode number.
    pub inode: u64,
    /// The device the inode is on.
    pub device: u64,
}

impl FileStamp {
    fn of(stat: &Stat) -> FileStamp {
        let nanoseconds = |seconds: i64, rest| {
            let rest = i64::try_from(rest).unwrap_or(i64::MAX);
            seconds.saturating_mul(1_000_000_000).saturating_add(rest)
        };
        FileStamp {
            // No system tells a negative one.
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
            inode: stat.st_ino,
            device: stat.st_dev,
        }
    }
}

/// Whether the owner may execute the file: the one permission a dataset keeps.
fn is_executable(stat: &Stat) -> bool {
    stat.st_mode & 0o100 != 0
}

/// One entry of a walked folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// Its path in the dataset.
    pub path: TreePath,
    /// Its absolute path on this machine.
    pub disk_path: PathBuf,
    /// What stands there.
    pub what: What,
}

/// What stands at a scanned path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A regular file.
    File {
        /// Size, times and place.
        stamp: FileStamp,
        /// Whether the owner may execute it.
        executable: bool,
    },
    /// A symlink that stays inside the tree.
    Symlink {
        /// Its target as stored.
        target: String,
    },
    /// A folder in which nothing is left after the excludes.
    EmptyFolder,
}

/// A thing a dataset can't hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialKind {
    /// A Unix socket.
    Socket,
    /// A named pipe.
    Fifo,
    /// A block or character device.
    Device,
}

impl std::fmt::Display for SpecialKind {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            SpecialKind::Socket => "socket",
            SpecialKind::Fifo => "named pipe",
            SpecialKind::Device => "device",
        })
    }
}

/// Why an entry can't be pushed.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// Ask for another path.
    #[error("no such file or folder: {}", .0.display())]
    NotFound(PathBuf),
    /// Rename or exclude it.
    #[error("the name is not UTF-8: {}", .0.display())]
    NotUtf8(PathBuf),
    /// Exclude it.
    #[error("a {kind} can't be stored: {}", .path.display())]
    Special {
        /// Where it stands.
        path: PathBuf,
        /// What it is.
        kind: SpecialKind,
    },
    /// Change or exclude it: whoever pulls the dataset would get a link to something else.
    #[error("the symlink {} to {target:?} can't be stored", .path.display())]
    SymlinkTarget {
        /// Where it stands.
        path: PathBuf,
        /// Where it points.
        target: String,
        /// What is wrong with that.
        #[source]
        source: TargetError,
    },
    /// Rename one, or allow it: on a case-insensitive disk one would overwrite the other.
    #[error("{} and {} differ only in case", .first.display(), .second.display())]
    CaseCollision {
        /// One of them.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// Rename or exclude it.
    #[error("{} can't be a path in a dataset", .path.display())]
    Path {
        /// Where it stands.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: PathError,
    },
    /// Finish the pull that left it, or remove or exclude it.
    #[error("{} is an unfinished file of an interrupted pull", .0.display())]
    Unfinished(PathBuf),
    /// Get permission, or exclude it.
    #[error("permission denied: {}", .0.display())]
    PermissionDenied(PathBuf),
    /// Nothing that a change to the command would help.
    #[error("can't read {}", .path.display())]
    Io {
        /// Where it happened.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
}

impl ScanError {
    fn io(path: &Path, source: io::Error) -> ScanError {
        match source.kind() {
            io::ErrorKind::NotFound => ScanError::NotFound(path.to_owned()),
            io::ErrorKind::PermissionDenied => ScanError::PermissionDenied(path.to_owned()),
            _ => ScanError::Io { path: path.to_owned(), source },
        }
    }
}

/// What to do with names that differ only in case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CaseCollisions {
    /// They are an error.
    #[default]
    Refuse,
    /// They are stored as they are.
    Allow,
}

/// How much there is to push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Regular files.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Symlinks and empty folders.
    pub others: u64,
}

impl Totals {
    /// Counts one more entry.
    pub fn add(&mut self, what: &What) {
        match what {
            What::File { stamp, .. } => {
                self.files += 1;
                self.bytes = self.bytes.saturating_add(stamp.size);
            }
            What::Symlink { .. } | What::EmptyFolder => self.others += 1,
        }
    }

    /// With files that are as large as those so far.
    fn with_more_files(self, more: u64) -> Totals {
        let files = self.files.saturating_add(more);
        let bytes = u128::from(self.bytes) * u128::from(files) / u128::from(self.files.max(1));
        Totals { files, bytes: u64::try_from(bytes).unwrap_or(u64::MAX), ..self }
    }
}

/// A walk over a folder or a single file, in tree order.
///
/// An entry-level error does not end it.
#[derive(Debug)]
pub struct Scan<'a> {
    filter: &'a Filter,
    case: CaseCollisions,
    /// The folders on the way down, outermost first.
    open: Vec<OpenFolder>,
    /// What is to be reported before the walk goes on, last first.
    problems: Vec<ScanError>,
    /// How many more files are looked at; `None`: all.
    looks_left: Option<u64>,
    /// Files that were not looked at.
    passed_over: u64,
}

#[derive(Debug)]
struct OpenFolder {
    disk_path: PathBuf,
    /// Path in the dataset; empty for the root.
    path: String,
    /// What is still to come, last first.
    children: Vec<Child>,
    /// Through which its files are looked at, so that the system need not come down from the root for each. Only the
    /// innermost folder has one: a tree may be deeper than a process may have files open.
    descriptor: Option<OwnedFd>,
}

impl OpenFolder {
    fn new(disk_path: PathBuf, path: String, children: Vec<Child>) -> OpenFolder {
        OpenFolder { disk_path, path, children, descriptor: None }
    }

    /// What the system says of a child, which is not followed if it is a symlink.
    fn stat(&mut self, name: &str) -> io::Result<Stat> {
        let descriptor = match &mut self.descriptor {
            Some(descriptor) => descriptor,
            none => none.insert(open_folder(&self.disk_path, OFlags::PATH)?),
        };
        Ok(rustix::fs::statat(descriptor, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

impl<'a> Scan<'a> {
    /// Starts a walk over `root`, which may be given as a symlink. A single file becomes a dataset of that one file,
    /// under its own name and whatever the filter says.
    ///
    /// # Errors
    /// [`ScanError::NotFound`] or [`ScanError::PermissionDenied`] for the root, or why a single file can't be stored.
    pub fn new(root: &Path, filter: &'a Filter, case: CaseCollisions) -> Result<Scan<'a>, ScanError> {
        let disk_path = std::fs::canonicalize(root).map_err(|error| ScanError::io(root, error))?;
        let metadata = std::fs::metadata(&disk_path).map_err(|error| ScanError::io(root, error))?;
        let mut scan =
            Scan { filter, case, open: Vec::new(), problems: Vec::new(), looks_left: None, passed_over: 0 };
        if metadata.is_dir() {
            let children = scan.list(&disk_path, "").map_err(|error| ScanError::io(root, error))?;
            scan.open.push(OpenFolder::new(disk_path, String::new(), children));
            return Ok(scan);
        }
        let name = disk_path.file_name().expect("only `/` has no name, and it is a folder");
        let name = name.to_str().ok_or_else(|| ScanError::NotUtf8(disk_path.clone()))?.to_owned();
        let folder = disk_path.parent().expect("a file has a folder").to_owned();
        let child = Child { name, kind: ChildKind::Other };
        scan.open.push(OpenFolder::new(folder, String::new(), vec![child]));
        Ok(scan)
    }

    /// The kept children of a folder in tree order, last first. Problems of single children are noted.
    fn list(&mut self, disk_path: &Path, path: &str) -> io::Result<Vec<Child>> {
        let mut children = Vec::new();
        let mut problems = Vec::new();
        for found in ReadFolder::open(disk_path)? {
            let Found { name, is } = found?;
            let name = match name.into_string() {
                Ok(name) => name,
                Err(name) => {
                    problems.push(ScanError::NotUtf8(disk_path.join(name)));
                    continue;
                }
            };
            if let Some(kind) = self.kept_as(disk_path, path, &name, is) {
                children.push(Child { name, kind });
            }
        }
        if self.case == CaseCollisions::Refuse {
            problems.extend(case_collisions(disk_path, &children));
        }
        children.sort_unstable_by(|left, right| right.cmp_in_tree(left));
        problems.reverse();
        self.problems.append(&mut problems);
        Ok(children)
    }

    /// What a child counts as; `None`: it is left out.
    fn kept_as(&self, disk_path: &Path, path: &str, name: &str, is: FoundKind) -> Option<ChildKind> {
        let kind = match is {
            FoundKind::File => ChildKind::File,
            FoundKind::Other => ChildKind::Other,
            FoundKind::Folder => return self.folder_kept_as(&disk_path.join(name), &join(path, name)),
        };
        let is_kept = self.filter.keeps_all() || self.filter.keeps(&join(path, name), PathKind::Other);
        is_kept.then_some(kind)
    }

    fn folder_kept_as(&self, disk_path: &Path, path: &str) -> Option<ChildKind> {
        if self.filter.excludes(path, PathKind::Folder) {
            None
        } else if self.is_empty(disk_path, path) {
            self.filter.keeps(path, PathKind::Folder).then_some(ChildKind::EmptyFolder)
        } else {
            self.filter.enters(path).then_some(ChildKind::Folder)
        }
    }

    /// Whether nothing is left in a folder after the excludes. One that can't be read is not empty: the walk will say
    /// what is wrong with it.
    fn is_empty(&self, disk_path: &Path, path: &str) -> bool {
        let Ok(mut entries) = ReadFolder::open(disk_path) else {
            return false;
        };
        entries.all(|entry| match entry {
            Ok(Found { name, is }) => name.to_str().is_some_and(|name| {
                let kind = if is == FoundKind::Folder { PathKind::Folder } else { PathKind::Other };
                self.filter.excludes(&join(path, name), kind)
            }),
            Err(_) => false,
        })
    }

    /// Looks at one child of the innermost folder. `None`: it is a folder, which was entered, or it is gone, or it is a
    /// file that is not looked at.
    fn visit(
        &mut self,
        disk_path: PathBuf,
        path: String,
        child: &Child,
    ) -> Option<Result<Scanned, ScanError>> {
        if is_part_name(&child.name) {
            return Some(Err(ScanError::Unfinished(disk_path)));
        }
        let tree_path = match TreePath::parse(&path) {
            Ok(tree_path) => tree_path,
            Err(source) => return Some(Err(ScanError::Path { path: disk_path, source })),
        };
        let what = match child.kind {
            ChildKind::Folder => match self.list(&disk_path, &path) {
                Ok(children) => {
                    self.enter(OpenFolder::new(disk_path, path, children));
                    return None;
                }
                Err(error) => Err(ScanError::io(&disk_path, error)),
            },
            ChildKind::EmptyFolder => Ok(What::EmptyFolder),
            ChildKind::File if !self.may_look() => return None,
            ChildKind::File | ChildKind::Other => {
                let folder = self.open.last_mut().expect("the folder that the child was taken from");
                look_at(folder, &child.name, &disk_path, &tree_path)
            }
        };
        match what {
            Ok(what) => Some(Ok(Scanned { path: tree_path, disk_path, what })),
            // Removed since its folder was listed: as if the walk had begun a moment later.
            Err(ScanError::NotFound(_)) => None,
            Err(error) => Some(Err(error)),
        }
    }

    fn enter(&mut self, folder: OpenFolder) {
        if let Some(above) = self.open.last_mut() {
            above.descriptor = None;
        }
        self.open.push(folder);
    }

    /// Whether one more file is looked at; if not, it is counted.
    fn may_look(&mut self) -> bool {
        match &mut self.looks_left {
            None => true,
            Some(0) => {
                self.passed_over += 1;
                false
            }
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<Scanned, ScanError>;

    fn next(&mut self) -> Option<Result<Scanned, ScanError>> {
        loop {
            if let Some(problem) = self.problems.pop() {
                return Some(Err(problem));
            }
            let folder = self.open.last_mut()?;
            let Some(child) = folder.children.pop() else {
                self.open.pop();
                continue;
            };
            let disk_path = folder.disk_path.join(&child.name);
            let path = join(&folder.path, &child.name);
            if let Some(result) = self.visit(disk_path, path, &child) {
                return Some(result);
            }
        }
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { [folder, "/", name].concat() }
}

/// What a child of a folder is, if it is no folder itself.
fn look_at(
    folder: &mut OpenFolder,
    name: &str,
    disk_path: &Path,
    path: &TreePath,
) -> Result<What, ScanError> {
    let stat = folder.stat(name).map_err(|error| ScanError::io(disk_path, error))?;
    let special = |kind| Err(ScanError::Special { path: disk_path.to_owned(), kind });
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            Ok(What::File { stamp: FileStamp::of(&stat), executable: is_executable(&stat) })
        }
        FileType::Symlink => {
            let target = std::fs::read_link(disk_path).map_err(|error| ScanError::io(disk_path, error))?;
            let target = target.into_os_string().into_string();
            let target = target.map_err(|_| ScanError::NotUtf8(disk_path.to_owned()))?;
            if let Err(source) = path.check_symlink_target(&target) {
                return Err(ScanError::SymlinkTarget { path: disk_path.to_owned(), target, source });
            }
            Ok(What::Symlink { target })
        }
        FileType::Socket => special(SpecialKind::Socket),
        FileType::Fifo => special(SpecialKind::Fifo),
        // It was no folder when its parent was listed; the next walk will see it as one.
        FileType::Directory => Err(ScanError::NotFound(disk_path.to_owned())),
        _ => special(SpecialKind::Device),
    }
}

/// What a first pass over a folder found.
#[derive(Debug, Default)]
pub struct Survey {
    /// What can be pushed. Of more than [`SURVEY_SIZES_MAX`] files the bytes are estimated from the first.
    pub totals: Totals,
    /// What can't, the first [`SURVEY_PROBLEMS_MAX`] of it.
    pub problems: Vec<ScanError>,
    /// How much can't, all of it.
    pub problem_count: u64,
}

/// How many problems a survey keeps: as many as a person reads.
pub const SURVEY_PROBLEMS_MAX: usize = 20;

/// Of so many files a survey asks for the size. Each question takes longer than all else that it does with a file, and of
/// more files than this the first say well enough how far a push has come.
pub const SURVEY_SIZES_MAX: u64 = 100_000;

/// Walks once without reading contents: totals for a progress bar, and everything that will be refused, before a byte
/// is sent.
///
/// # Errors
/// As [`Scan::new`].
pub fn survey(root: &Path, filter: &Filter, case: CaseCollisions) -> Result<Survey, ScanError> {
    survey_with(root, filter, case, SURVEY_SIZES_MAX)
}

fn survey_with(
    root: &Path,
    filter: &Filter,
    case: CaseCollisions,
    sizes_max: u64,
) -> Result<Survey, ScanError> {
    let mut survey = Survey::default();
    let mut scan = Scan::new(root, filter, case)?;
    scan.looks_left = Some(sizes_max);
    for scanned in scan.by_ref() {
        match scanned {
            Ok(scanned) => survey.totals.add(&scanned.what),
            Err(problem) => {
                survey.problem_count += 1;
                if survey.problems.len() < SURVEY_PROBLEMS_MAX {
                    survey.problems.push(problem);
                }
            }
        }
    }
    survey.totals = survey.totals.with_more_files(scan.passed_over);
    Ok(survey)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use proptest::prelude::{ProptestConfig, proptest};
    use rustix::fs::{FileType, Mode};
    use tempfile::TempDir;

    use super::{CaseCollisions, Scan, ScanError, Scanned, SpecialKind, What, survey};
    use crate::glob::Filter;

    /// Makes a tree from paths; one that ends in `/` is a folder. A file holds its own path.
    fn tree(paths: &[&str]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for path in paths {
            let disk_path = root.path().join(path);
            if path.ends_with('/') {
                fs::create_dir_all(disk_path).unwrap();
            } else {
                fs::create_dir_all(disk_path.parent().unwrap()).unwrap();
                fs::write(disk_path, path).unwrap();
            }
        }
        root
    }

    fn excluding(patterns: &[&str]) -> Filter {
        Filter::parse(&[], patterns).unwrap()
    }

    fn scan(root: &Path, filter: &Filter) -> (Vec<Scanned>, Vec<ScanError>) {
        let mut entries = Vec::new();
        let mut problems = Vec::new();
        for scanned in Scan::new(root, filter, CaseCollisions::Refuse).unwrap() {
            match scanned {
                Ok(scanned) => entries.push(scanned),
                Err(problem) => problems.push(problem),
            }
        }
        (entries, problems)
    }

    fn paths(entries: &[Scanned]) -> Vec<&str> {
        entries.iter().map(|entry| entry.path.as_str()).collect()
    }

    /// The one problem of a tree in which the file `fine` can be pushed.
    fn only_problem(root: &Path) -> ScanError {
        fs::write(root.join("fine"), "").unwrap();
        let (entries, mut problems) = scan(root, &Filter::default());
        assert_eq!(paths(&entries), ["fine"], "the walk goes on after a problem");
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems.remove(0)
    }

    #[test]
    fn entries_come_in_the_byte_order_of_whole_paths() {
        let root = tree(&["a/b", "a-b", "a.b", "a0", "b/c/d", "b/c-d", "b/e/", "c/", "c-d", "é", "z"]);
        let (entries, problems) = scan(root.path(), &Filter::default());
        assert!(problems.is_empty(), "{problems:?}");
        let expected = ["a-b", "a.b", "a/b", "a0", "b/c-d", "b/c/d", "b/e", "c", "c-d", "z", "é"];
        assert_eq!(paths(&entries), expected);
        assert_eq!(entries[6].what, What::EmptyFolder);
        assert_eq!(entries[7].what, What::EmptyFolder);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn any_tree_comes_sorted_and_whole(
            mut names in proptest::collection::btree_set("[ab.0-]([ab.0/-]{0,4}[ab0-])?", 1..20)
        ) {
            names.retain(|name| name.split('/').all(|part| !matches!(part, "" | "." | "..")));
            // A name can't be a file and a folder.
            let all: Vec<String> = names.iter().cloned().collect();
            names.retain(|name| !all.iter().any(|other| other.starts_with(&format!("{name}/"))));
            let root = tree(&names.iter().map(String::as_str).collect::<Vec<_>>());
            let (entries, problems) = scan(root.path(), &Filter::default());
            assert!(problems.is_empty(), "{problems:?}");
            assert_eq!(paths(&entries), names.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }

    #[test]
    fn file_is_told_with_its_size_and_mode() {
        let root = tree(&["plain", "tool"]);
        fs::set_permissions(root.path().join("tool"), Permissions::from_mode(0o755)).unwrap();
        let (entries, _) = scan(root.path(), &Filter::default());
        let files: Vec<(u64, bool)> = entries
            .iter()
            .map(|entry| match entry.what {
                What::File { stamp, executable } => (stamp.size, executable),
                _ => panic!("{entry:?}"),
            })
            .collect();
        assert_eq!(files, [(5, false), (4, true)]);
        assert_eq!(entries[0].disk_path, root.path().canonicalize().unwrap().join("plain"));
    }

    #[test]
    fn single_file_is_a_tree_of_one() {
        let root = tree(&["x/one"]);
        let (entries, problems) = scan(&root.path().join("x/one"), &Filter::default());
        assert!(problems.is_empty());
        assert_eq!(paths(&entries), ["one"]);
        assert_eq!(fs::read_to_string(&entries[0].disk_path).unwrap(), "x/one");
    }

    #[test]
    fn excluded_folder_is_not_walked() {
        let root = tree(&["keep/a", "skip/b", "mixed/c.tmp", "d.tmp"]);
        let _listener = UnixListener::bind(root.path().join("skip/socket")).unwrap();
        let (entries, problems) = scan(root.path(), &excluding(&["skip/", "*.tmp"]));
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(paths(&entries), ["keep/a", "mixed"]);
        assert_eq!(entries[1].what, What::EmptyFolder, "nothing is left of it");
    }

    #[test]
    fn included_paths_are_kept_and_other_folders_not_entered() {
        let root = tree(&["a/x.csv", "a/y.txt", "b/z.txt", "c/"]);
        let filter = Filter::parse(&["*.csv"], &[]).unwrap();
        assert_eq!(paths(&scan(root.path(), &filter).0), ["a/x.csv"]);
    }

    #[test]
    fn symlinks_inside_the_tree_are_entries_and_loops_end() {
        let root = tree(&["a/file"]);
        symlink("file", root.path().join("a/link")).unwrap();
        symlink("../a", root.path().join("a/loop")).unwrap();
        symlink("missing", root.path().join("dangling")).unwrap();
        let (entries, problems) = scan(root.path(), &Filter::default());
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(paths(&entries), ["a/file", "a/link", "a/loop", "dangling"]);
        assert_eq!(entries[2].what, What::Symlink { target: "../a".to_owned() });
    }

    #[test]
    fn symlinks_out_of_the_tree_are_refused() {
        for target in ["..", "../x", "/etc/passwd", "a/../../x"] {
            let root = tree(&[]);
            symlink(target, root.path().join("link")).unwrap();
            let problem = only_problem(root.path());
            assert!(matches!(problem, ScanError::SymlinkTarget { .. }), "{target}: {problem:?}");
        }
    }

    #[test]
    fn sockets_and_pipes_are_refused() {
        let root = tree(&[]);
        let _listener = UnixListener::bind(root.path().join("socket")).unwrap();
        assert!(matches!(only_problem(root.path()), ScanError::Special { kind: SpecialKind::Socket, .. }));
        let root = tree(&[]);
        rustix::fs::mknodat(rustix::fs::CWD, root.path().join("pipe"), FileType::Fifo, Mode::RUSR, 0)
            .unwrap();
        assert!(matches!(only_problem(root.path()), ScanError::Special { kind: SpecialKind::Fifo, .. }));
    }

    #[test]
    fn names_that_no_dataset_can_hold_are_refused() {
        let root = tree(&[]);
        fs::write(root.path().join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
        assert!(matches!(only_problem(root.path()), ScanError::NotUtf8(_)));
        let root = tree(&[".a.seedbank-part"]);
        assert!(matches!(only_problem(root.path()), ScanError::Unfinished(_)));
    }

    #[test]
    fn paths_that_are_too_long_are_refused() {
        let root = tree(&[]);
        // Below what a system call takes, one step at a time.
        let mut folder = std::fs::File::open(root.path()).map(std::os::fd::OwnedFd::from).unwrap();
        let name = "n".repeat(250);
        for _ in 0..20 {
            rustix::fs::mkdirat(&folder, &name, Mode::RWXU).unwrap();
            folder =
                rustix::fs::openat(&folder, &name, rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        let problem = only_problem(root.path());
        assert!(matches!(problem, ScanError::Path { .. } | ScanError::Io { .. }), "{problem:?}");
    }

    #[test]
    fn names_that_differ_in_case_collide_unless_allowed() {
        let root = tree(&["a/x", "A/y", "b/É", "b/é"]);
        let (_, problems) = scan(root.path(), &Filter::default());
        assert_eq!(problems.len(), 2);
        assert!(problems.iter().all(|problem| matches!(problem, ScanError::CaseCollision { .. })));
        let filter = Filter::default();
        let allowed = Scan::new(root.path(), &filter, CaseCollisions::Allow).unwrap();
        assert_eq!(allowed.filter_map(Result::ok).count(), 4);
        assert!(scan(root.path(), &excluding(&["A/", "É"])).1.is_empty(), "what is excluded can't collide");
    }

    #[test]
    fn missing_root_is_not_found() {
        let root = tree(&[]);
        let filter = Filter::default();
        let result = Scan::new(&root.path().join("none"), &filter, CaseCollisions::Refuse);
        assert!(matches!(result, Err(ScanError::NotFound(_))));
    }

    #[test]
    fn unreadable_folder_is_named() {
        let root = tree(&["locked/a"]);
        let locked = root.path().canonicalize().unwrap().join("locked");
        fs::set_permissions(&locked, Permissions::from_mode(0o000)).unwrap();
        // Root reads everything.
        if fs::read_dir(&locked).is_err() {
            assert!(matches!(only_problem(root.path()), ScanError::PermissionDenied(path) if path == locked));
        }
        fs::set_permissions(&locked, Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn survey_counts_what_can_be_pushed_and_lists_what_cannot() {
        let root = tree(&["a", "b/cc", "d/"]);
        symlink("/out", root.path().join("link")).unwrap();
        let survey = survey(root.path(), &Filter::default(), CaseCollisions::Refuse).unwrap();
        assert_eq!((survey.totals.files, survey.totals.bytes, survey.totals.others), (2, 5, 1));
        assert_eq!((survey.problems.len(), survey.problem_count), (1, 1));
    }

    #[test]
    fn survey_of_many_files_asks_for_few_sizes_and_still_finds_every_problem() {
        let root = tree(&["a", "b/bb", "b/cc", "z", ".a.seedbank-part"]);
        symlink("/out", root.path().join("link")).unwrap();
        let _listener = UnixListener::bind(root.path().join("b/socket")).unwrap();
        let survey = super::survey_with(root.path(), &Filter::default(), CaseCollisions::Refuse, 2).unwrap();
        assert_eq!((survey.totals.files, survey.totals.bytes), (4, 10), "twice `a` and `b/bb`");
        assert_eq!(survey.problem_count, 3, "{:?}", survey.problems);
    }

    #[test]
    fn folders_are_looked_into_again_after_those_below_them() {
        let root = tree(&["a", "b/c/d", "b/x", "e", "f/g", "h"]);
        let (entries, problems) = scan(root.path(), &Filter::default());
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(paths(&entries), ["a", "b/c/d", "b/x", "e", "f/g", "h"]);
        assert!(entries.iter().all(|entry| matches!(&entry.what, What::File { stamp, .. }
            if stamp.size == u64::try_from(entry.path.as_str().len()).unwrap())));
    }
}

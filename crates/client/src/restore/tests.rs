//! Trees restored to real folders, and what may stand in their way.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use aws_lc_rs::digest;
use rustix::fs::{FileType, Mode};
use seedbank_formats::Sha256;
use seedbank_formats::path::TreePath;
use seedbank_formats::tree::{Content, Entry};
use tempfile::TempDir;

use super::{
    CaseSensitivity, Destination, Durability, Existing, FOLDER_FLAGS, Overwrite, RestoreError,
    RestoreOptions, part_name,
};

const OVERWRITE: RestoreOptions =
    RestoreOptions { overwrite: Overwrite::Yes, durability: Durability::Cached };

fn path(text: &str) -> TreePath {
    TreePath::parse(text).unwrap()
}

fn file_entry(content: &[u8], executable: bool) -> Entry {
    Entry::File {
        executable,
        size: u64::try_from(content.len()).unwrap(),
        sha256: Sha256(digest::digest(&digest::SHA256, content).as_ref().try_into().unwrap()),
        content: Content::Chunks(Vec::new()),
    }
}

/// A folder that holds a destination `dest` and something that must not be touched.
fn sandbox() -> TempDir {
    let sandbox = tempfile::tempdir().unwrap();
    fs::create_dir(sandbox.path().join("outside")).unwrap();
    fs::write(sandbox.path().join("outside/victim"), "untouched").unwrap();
    sandbox
}

fn open(sandbox: &TempDir, options: RestoreOptions) -> Destination {
    Destination::open(&sandbox.path().join("dest"), options).unwrap()
}

fn open_insensitive(sandbox: &TempDir) -> Destination {
    let disk_path = sandbox.path().join("dest");
    fs::create_dir_all(&disk_path).unwrap();
    let folder = rustix::fs::open(&disk_path, FOLDER_FLAGS, Mode::empty()).unwrap();
    Destination::with_case(folder, disk_path, RestoreOptions::default(), CaseSensitivity::Insensitive)
}

fn write(destination: &Destination, name: &str, content: &[u8]) -> Result<(), RestoreError> {
    let mut part = destination.part_file(&path(name))?;
    part.truncate_to(0)?;
    part.append(content)?;
    part.finish(false)
}

/// Everything in a folder: paths, and contents or targets.
fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.path().strip_prefix(root).unwrap().display().to_string();
            let file_type = entry.file_type().unwrap();
            if file_type.is_dir() {
                lines.push(format!("{name}/"));
                folders.push(entry.path());
            } else if file_type.is_symlink() {
                lines.push(format!("{name} -> {}", fs::read_link(entry.path()).unwrap().display()));
            } else if file_type.is_file() {
                lines.push(format!("{name}={}", fs::read_to_string(entry.path()).unwrap()));
            } else {
                lines.push(format!("{name}?"));
            }
        }
    }
    lines.sort();
    lines
}

fn in_dest(sandbox: &TempDir) -> Vec<String> {
    assert_eq!(listing(&sandbox.path().join("outside")), ["victim=untouched"]);
    listing(&sandbox.path().join("dest"))
}

#[test]
fn tree_is_written_with_folders_modes_and_links() {
    for durability in [Durability::Cached, Durability::Synced] {
        let sandbox = sandbox();
        let destination = open(&sandbox, RestoreOptions { overwrite: Overwrite::No, durability });
        destination.symlink(&path("x/link"), "deep/er/file").unwrap();
        destination.make_folder(&path("x/empty")).unwrap();
        write(&destination, "x/deep/er/file", b"content").unwrap();
        let mut tool = destination.part_file(&path("tool")).unwrap();
        tool.append(b"#!").unwrap();
        assert!(in_dest(&sandbox).contains(&".tool.seedbank-part=#!".to_owned()));
        tool.finish(true).unwrap();
        destination.finish().unwrap();
        let expected = [
            "tool=#!",
            "x/",
            "x/deep/",
            "x/deep/er/",
            "x/deep/er/file=content",
            "x/empty/",
            "x/link -> deep/er/file",
        ];
        assert_eq!(in_dest(&sandbox), expected);
        let mode = |name: &str| fs::metadata(sandbox.path().join("dest").join(name)).unwrap().mode();
        assert_eq!(mode("tool") & 0o100, 0o100);
        assert_eq!(mode("x/deep/er/file") & 0o133, 0, "not executable, and written by its owner only");
    }
}

#[test]
fn second_run_finds_everything_complete() {
    let sandbox = sandbox();
    let entries = [
        ("file", file_entry(b"content", false)),
        ("folder", Entry::Folder),
        ("link", Entry::Symlink { target: "file".to_owned() }),
    ];
    let destination = open(&sandbox, RestoreOptions::default());
    for (name, entry) in &entries {
        assert_eq!(destination.existing(&path(name), entry).unwrap(), Existing::Missing);
    }
    write(&destination, "file", b"content").unwrap();
    destination.make_folder(&path("folder")).unwrap();
    destination.symlink(&path("link"), "file").unwrap();
    destination.finish().unwrap();
    let destination = open(&sandbox, RestoreOptions::default());
    for (name, entry) in &entries {
        assert_eq!(destination.existing(&path(name), entry).unwrap(), Existing::Complete);
    }
    destination.make_folder(&path("folder")).unwrap();
    destination.symlink(&path("link"), "file").unwrap();
    destination.finish().unwrap();
}

#[test]
fn what_exists_is_told_apart() {
    let sandbox = sandbox();
    let destination = open(&sandbox, RestoreOptions::default());
    write(&destination, "file", b"content").unwrap();
    destination.make_folder(&path("folder")).unwrap();
    let existing = |name: &str, entry: &Entry| destination.existing(&path(name), entry).unwrap();
    assert_eq!(existing("file", &file_entry(b"content", true)), Existing::OtherMode);
    assert_eq!(existing("file", &file_entry(b"CONTENT", false)), Existing::Different);
    assert_eq!(existing("file", &file_entry(b"longer content", false)), Existing::Different);
    assert_eq!(existing("file", &Entry::Folder), Existing::Different);
    assert_eq!(existing("file", &Entry::Symlink { target: "x".to_owned() }), Existing::Different);
    assert_eq!(existing("folder", &file_entry(b"", false)), Existing::Different);
    assert_eq!(existing("file/inside", &file_entry(b"", false)), Existing::Different);
    assert_eq!(existing("none/inside", &file_entry(b"", false)), Existing::Missing);
    destination.set_executable(&path("file"), true).unwrap();
    assert_eq!(existing("file", &file_entry(b"content", true)), Existing::Complete);
    destination.set_executable(&path("file"), false).unwrap();
    assert_eq!(existing("file", &file_entry(b"content", false)), Existing::Complete);
    let victim = sandbox.path().join("outside/victim");
    fs::hard_link(victim, sandbox.path().join("dest/linked")).unwrap();
    assert_eq!(existing("linked", &file_entry(b"untouched", false)), Existing::Complete);
    assert_eq!(existing("linked", &file_entry(b"untouched", true)), Existing::Different);
    assert!(destination.set_executable(&path("linked"), true).is_err());
}

#[test]
fn interrupted_file_goes_on_after_its_verified_part() {
    let sandbox = sandbox();
    let destination = open(&sandbox, RestoreOptions::default());
    let mut part = destination.part_file(&path("a/file")).unwrap();
    part.append(b"good").unwrap();
    part.append(b"torn").unwrap();
    drop(part);
    drop(destination);
    let destination = open(&sandbox, RestoreOptions::default());
    let found = destination.existing(&path("a/file"), &file_entry(b"goodmore", false)).unwrap();
    assert_eq!(found, Existing::Partial { len: 8 });
    let mut part = destination.part_file(&path("a/file")).unwrap();
    assert_eq!((part.len(), part.is_empty()), (8, false));
    let mut buffer = [0; 10];
    assert_eq!(part.read_at(&mut buffer, 0).unwrap(), 8);
    assert_eq!(&buffer[..8], b"goodtorn");
    assert_eq!(part.read_at(&mut buffer[..2], 4).unwrap(), 2);
    assert_eq!(&buffer[..2], b"to");
    part.truncate_to(4).unwrap();
    part.append(b"more").unwrap();
    part.finish(false).unwrap();
    assert_eq!(in_dest(&sandbox), ["a/", "a/file=goodmore"]);
}

#[test]
fn discarded_part_is_gone() {
    let sandbox = sandbox();
    let destination = open(&sandbox, RestoreOptions::default());
    let mut part = destination.part_file(&path("file")).unwrap();
    part.append(b"wrong").unwrap();
    part.discard().unwrap();
    assert!(in_dest(&sandbox).is_empty());
}

#[test]
fn part_is_written_by_one_at_a_time() {
    let sandbox = sandbox();
    let (first, second) =
        (open(&sandbox, RestoreOptions::default()), open(&sandbox, RestoreOptions::default()));
    let part = first.part_file(&path("file")).unwrap();
    assert!(matches!(second.part_file(&path("file")), Err(RestoreError::Busy(_))));
    part.finish(false).unwrap();
    assert!(matches!(second.part_file(&path("file")), Err(RestoreError::AlreadyThere(_))));
}

#[test]
fn other_content_is_replaced_only_on_request() {
    let sandbox = sandbox();
    write(&open(&sandbox, RestoreOptions::default()), "file", b"old").unwrap();
    let destination = open(&sandbox, RestoreOptions::default());
    assert!(matches!(destination.part_file(&path("file")), Err(RestoreError::AlreadyThere(_))));
    assert!(matches!(destination.make_folder(&path("file")), Err(RestoreError::AlreadyThere(_))));
    destination.symlink(&path("file"), "x").unwrap();
    assert!(matches!(destination.finish(), Err(RestoreError::AlreadyThere(_))));
    assert_eq!(in_dest(&sandbox), ["file=old"]);

    let destination = open(&sandbox, OVERWRITE);
    write(&destination, "file", b"new").unwrap();
    assert_eq!(in_dest(&sandbox), ["file=new"]);
    destination.make_folder(&path("file")).unwrap();
    assert_eq!(in_dest(&sandbox), ["file/"]);
    write(&destination, "file", b"over an empty folder").unwrap();
    write(&destination, "file/inside", b"over a file").unwrap();
    assert_eq!(in_dest(&sandbox), ["file/", "file/inside=over a file"]);
    destination.symlink(&path("file"), "x").unwrap();
    assert!(matches!(destination.finish(), Err(RestoreError::FolderInTheWay(_))));
    assert_eq!(in_dest(&sandbox), ["file/", "file/inside=over a file"]);
}

#[test]
fn file_that_appears_during_the_pull_is_not_replaced() {
    let sandbox = sandbox();
    let destination = open(&sandbox, RestoreOptions::default());
    let part = destination.part_file(&path("file")).unwrap();
    fs::write(sandbox.path().join("dest/file"), "somebody's").unwrap();
    assert!(matches!(part.finish(false), Err(RestoreError::AlreadyThere(_))));
    assert!(in_dest(&sandbox).contains(&"file=somebody's".to_owned()));
}

#[test]
fn planted_symlink_on_the_way_is_not_followed() {
    for options in [RestoreOptions::default(), OVERWRITE] {
        let sandbox = sandbox();
        let destination = open(&sandbox, options);
        symlink(sandbox.path().join("outside"), sandbox.path().join("dest/a")).unwrap();
        let in_the_way = |result: Result<(), RestoreError>| {
            assert!(matches!(&result, Err(RestoreError::SymlinkInTheWay(_))), "{result:?}");
        };
        in_the_way(write(&destination, "a/victim", b"evil"));
        in_the_way(write(&destination, "a/b/c", b"evil"));
        in_the_way(destination.make_folder(&path("a/folder")));
        in_the_way(destination.set_executable(&path("a/victim"), true));
        in_the_way(destination.existing(&path("a/victim"), &Entry::Folder).map(|_| ()));
        destination.symlink(&path("a/link"), "victim").unwrap();
        in_the_way(destination.finish());
        assert_eq!(in_dest(&sandbox).len(), 1);
    }
}

#[test]
fn planted_symlink_in_the_place_of_a_file_is_replaced_not_followed() {
    let sandbox = sandbox();
    let victim = sandbox.path().join("outside/victim");
    symlink_in_dest(&sandbox, &victim, "file");
    let destination = open(&sandbox, RestoreOptions::default());
    let found = destination.existing(&path("file"), &file_entry(b"untouched", false)).unwrap();
    assert_eq!(found, Existing::Different);
    assert!(matches!(write(&destination, "file", b"evil"), Err(RestoreError::AlreadyThere(_))));
    assert!(destination.set_executable(&path("file"), true).is_err());
    write(&open(&sandbox, OVERWRITE), "file", b"new").unwrap();
    assert_eq!(in_dest(&sandbox), ["file=new"]);
}

fn symlink_in_dest(sandbox: &TempDir, target: &Path, name: &str) {
    fs::create_dir_all(sandbox.path().join("dest")).unwrap();
    symlink(target, sandbox.path().join("dest").join(name)).unwrap();
}

#[test]
fn planted_part_files_are_replaced_not_written_through() {
    let plants: [fn(&Path, &Path); 4] = [
        |victim, part| symlink(victim, part).unwrap(),
        |victim, part| fs::hard_link(victim, part).unwrap(),
        |_, part| drop(UnixListener::bind(part).unwrap()),
        |_, part| {
            rustix::fs::mknodat(rustix::fs::CWD, part, FileType::Fifo, Mode::RWXU, 0).unwrap();
        },
    ];
    for (index, plant) in plants.iter().enumerate() {
        let sandbox = sandbox();
        let destination = open(&sandbox, RestoreOptions::default());
        let part = sandbox.path().join("dest/.file.seedbank-part");
        plant(&sandbox.path().join("outside/victim"), &part);
        write(&destination, "file", b"new").unwrap_or_else(|error| panic!("plant {index}: {error}"));
        assert_eq!(in_dest(&sandbox), ["file=new"], "plant {index}");
    }
}

#[test]
fn links_out_of_the_tree_and_reserved_names_are_refused() {
    let sandbox = sandbox();
    let destination = open(&sandbox, RestoreOptions::default());
    for target in ["../outside", "/etc", "a/../../x"] {
        let result = destination.symlink(&path("link"), target);
        assert!(matches!(result, Err(RestoreError::SymlinkTarget { .. })), "{target}");
    }
    for name in [".file.seedbank-part", "a/.b.SEEDBANK-part/c"] {
        assert!(matches!(destination.admit(&path(name)), Err(RestoreError::ReservedName(_))), "{name}");
    }
    destination.finish().unwrap();
    assert!(in_dest(&sandbox).is_empty());
}

#[test]
fn case_collisions_are_refused_where_the_disk_ignores_case() {
    let sandbox = sandbox();
    let destination = open_insensitive(&sandbox);
    assert_eq!(destination.case(), CaseSensitivity::Insensitive);
    write(&destination, "Data/a", b"1").unwrap();
    destination.admit(&path("Data/b")).unwrap();
    for name in ["data/x", "DATA", "Data/A"] {
        let result = write(&destination, name, b"2");
        assert!(matches!(result, Err(RestoreError::CaseCollision { .. })), "{name}: {result:?}");
    }
    assert_eq!(in_dest(&sandbox), ["Data/", "Data/a=1"]);
}

#[test]
fn disk_is_asked_whether_it_ignores_case_and_nothing_is_left() {
    let sandbox = sandbox();
    let destination = open(&sandbox, RestoreOptions::default());
    let probe = sandbox.path().join("outside");
    let ignores_case = fs::metadata(probe.with_file_name("OUTSIDE")).is_ok();
    assert_eq!(destination.case() == CaseSensitivity::Insensitive, ignores_case);
    assert!(in_dest(&sandbox).is_empty());
}

#[test]
fn destination_that_is_a_file_is_refused() {
    let sandbox = sandbox();
    let result = Destination::open(&sandbox.path().join("outside/victim"), RestoreOptions::default());
    assert!(matches!(result, Err(RestoreError::NotAFolder(_))), "{result:?}");
}

#[test]
fn unwritable_destination_is_named() {
    let sandbox = sandbox();
    let dest = sandbox.path().join("dest");
    fs::create_dir(&dest).unwrap();
    fs::set_permissions(&dest, Permissions::from_mode(0o555)).unwrap();
    // Root writes everywhere.
    if File::create(dest.join("probe")).is_err() {
        let result = Destination::open(&dest, RestoreOptions::default());
        assert!(matches!(result, Err(RestoreError::PermissionDenied(_))), "{result:?}");
    }
    fs::set_permissions(&dest, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn full_disk_and_quota_are_told_from_other_failures() {
    for (errno, full) in
        [(rustix::io::Errno::NOSPC, true), (rustix::io::Errno::DQUOT, true), (rustix::io::Errno::IO, false)]
    {
        let error = RestoreError::io(Path::new("file"), errno);
        assert_eq!(matches!(error, RestoreError::DiskFull(_)), full);
    }
    // A device that is always full.
    let full = File::options().write(true).open("/dev/full");
    if let Ok(mut full) = full {
        let error = std::io::Write::write_all(&mut full, b"x").unwrap_err();
        assert!(matches!(RestoreError::io(Path::new("file"), error), RestoreError::DiskFull(_)));
    }
}

#[test]
fn long_names_have_part_names_that_fit_and_differ() {
    let sandbox = sandbox();
    let destination = open(&sandbox, RestoreOptions::default());
    let (first, second) = ("é".repeat(127) + "a", "é".repeat(127) + "b");
    assert!(part_name(&first).len() <= 255);
    assert_ne!(part_name(&first), part_name(&second));
    write(&destination, &first, b"1").unwrap();
    write(&destination, &second, b"2").unwrap();
    assert_eq!(in_dest(&sandbox).len(), 2);
}

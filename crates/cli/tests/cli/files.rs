//! Folders to push.

use crate::network::files_below;
use crate::sandbox::wait_until;
use seedbank_testkit::{ByteStream, TreeSpec};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How many files [`write_specimen`] writes.
pub(crate) const SPECIMEN_FILES: u64 = 24 + 7;

/// Symlinks that it makes.
pub(crate) const SPECIMEN_SYMLINKS: u64 = 3;

/// Empty folders that it makes.
pub(crate) const SPECIMEN_EMPTY_FOLDERS: u64 = 2;

/// A folder with one of everything that a dataset can hold, about 4 MB.
pub(crate) fn write_specimen(folder: &Path, seed: u64) {
    TreeSpec::tiny(seed).write(folder).expect("the tree can be written");
    fs::create_dir_all(folder.join("empty/within")).expect("made");
    fs::create_dir(folder.join("ünïcødé 目录")).expect("made");
    fs::create_dir(folder.join("ünïcødé 目录/пусто")).expect("made");
    write(folder, "ünïcødé 目录/données 😀.csv", "α,β\n1,2\n".as_bytes());
    write(folder, "nothing", b"");
    write(folder, "one-byte", b"!");
    write(folder, "run.sh", b"#!/bin/sh\nexit 0\n");
    fs::set_permissions(folder.join("run.sh"), fs::Permissions::from_mode(0o755)).expect("set");
    // Sorts between `a` and `a/…` by bytes, where trees that compare by component go wrong.
    fs::create_dir(folder.join("a")).expect("made");
    write(folder, "a/below", b"below a");
    write(folder, "a-b", b"beside a");
    // More chunks than an entry names itself: it gets a manifest.
    write(folder, "long.bin", &ByteStream::bytes(seed + 1, 3_000_001));
    symlink("run.sh", folder.join("link")).expect("made");
    symlink("../one-byte", folder.join("a/up")).expect("made");
    symlink("nowhere/yet", folder.join("dangling")).expect("made");
}

/// Writes one file.
pub(crate) fn write(folder: &Path, name: &str, bytes: &[u8]) {
    fs::write(folder.join(name), bytes).expect("the file can be written");
}

/// Waits until no file of a folder was changed so recently that a second change could hide behind the same time.
pub(crate) fn wait_until_settled(folder: &Path) {
    const TICKS_S: i64 = 3;
    let changed =
        |path: &Path| fs::symlink_metadata(path).map_or(0, |metadata| metadata.ctime().max(metadata.mtime()));
    let newest = files_below(folder).iter().map(|path| changed(path)).max().unwrap_or(0);
    wait_until("the files to be old enough", Duration::from_secs(20), || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
        i64::try_from(now.as_secs()).expect("a time") >= newest + TICKS_S
    });
}

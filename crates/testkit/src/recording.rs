//! What a process does to its files, call by call, and the disks that this may leave when power fails.
//!
//! For programs whose files no trait of ours stands before, such as SQLite's: the process runs under `strace`, its calls
//! are read back ([`record_test`]) and repeated on a [`MemDisk`] ([`Recording::replay`]), which keeps apart what was synced and
//! what was not. So every state that a crash may leave can be made, written to a real folder ([`write_out`]) and opened by
//! the real recovery, as ALICE does (Pillai et al., OSDI 2014).
//!
//! A call that changes files and is not understood here is a panic, never left out: a checker that misses a write checks
//! nothing. Bytes that are written through a shared mapping can't be seen; SQLite's `-shm` file is the only one that may be
//! mapped so, holds nothing that lasts, and is left out altogether.

mod trace;

use seedbank_store::testing::{Dice, MemDisk, Sweep, each_crash};
use seedbank_store::{Disk, DiskFile};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use trace::Trace;

/// The file, beside the watched folder, that a recorded process writes lines to: what it has done so far.
pub const MARKS: &str = "marks";

/// One thing that a recorded process did. Paths are relative to the watched folder.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Open { handle: usize, path: String, truncate: bool },
    Write { handle: usize, at: At, bytes: Vec<u8> },
    Truncate { handle: usize, length: u64 },
    Sync { handle: usize },
    SyncFolder { path: String },
    Rename { from: String, to: String },
    Remove { path: String },
    MakeFolder { path: String },
    Mark(String),
}

/// Where a write goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Offset(u64),
    End,
}

/// What a process did to its files.
#[derive(Debug)]
pub struct Recording {
    calls: Vec<Call>,
}

/// Whether processes can be recorded here. Without `strace` the answer is no, said aloud, but on a machine that checks
/// changes (`CI` is set) that is an error: there a skipped check would look like one that passed.
///
/// # Panics
/// When `strace` is missing and `CI` is set.
#[must_use]
pub fn can_record() -> bool {
    let works =
        Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|it| it.success());
    assert!(works || std::env::var_os("CI").is_none(), "strace is missing or may not trace: install it");
    if !works {
        eprintln!("skipped: strace is missing or may not trace here");
    }
    works
}

/// Judges what a crash left on a disk, given what the process had said by then.
pub type CrashCheck<'a> = dyn FnMut(&MemDisk, &[String]) -> Result<(), String> + 'a;

/// Records another test of the running program, an ignored one that does what is to be watched, by its full name: what it
/// changes below a new folder in `folder`. As [`can_record`] says, nothing where nothing can be recorded.
///
/// # Panics
/// As [`can_record`], and when the test fails or does something that can't be repeated.
#[must_use]
pub fn record_test(folder: &Path, name: &str) -> Option<Recording> {
    if !can_record() {
        return None;
    }
    let root = folder.join("root");
    std::fs::create_dir(&root).expect("a new folder");
    let this = std::env::current_exe().expect("a test knows its program");
    Some(record(&root, &this, &["--exact", name, "--ignored"]))
}

/// Runs a program and records what it does below `root`. It finds `root` and the path of [`MARKS`], beside it, in the
/// environment variables `RECORDED_ROOT` and `RECORDED_MARKS`.
///
/// # Panics
/// When the program fails, or does something that can't be repeated.
fn record<A: AsRef<OsStr>>(root: &Path, program: &Path, arguments: &[A]) -> Recording {
    let beside = root.parent().expect("a watched folder has a parent");
    let (log, marks) = (beside.join("calls"), beside.join(MARKS));
    let output = Command::new("strace")
        .args(["-f", "-xx", "-s", "4000000", "-e", trace::CALLS, "-o"])
        .arg(&log)
        .arg("--")
        .arg(program)
        .args(arguments)
        .env("RECORDED_ROOT", root)
        .env("RECORDED_MARKS", &marks)
        .output()
        .expect("strace runs");
    assert!(
        output.status.success(),
        "the recorded program failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let log = std::fs::read_to_string(&log).expect("strace wrote its log, in ASCII");
    Recording { calls: Trace::new(root, &marks).read(&log) }
}

impl Recording {
    /// How many calls changed a file or folder, or made a change durable.
    #[must_use]
    pub fn len(&self) -> usize {
        self.calls.iter().filter(|call| !matches!(call, Call::Mark(_))).count()
    }

    /// Whether nothing was done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of the calls make something durable.
    #[must_use]
    pub fn syncs(&self) -> usize {
        self.calls.iter().filter(|call| matches!(call, Call::Sync { .. } | Call::SyncFolder { .. })).count()
    }

    /// The same without the calls that make what `wanted` chooses durable, by path: a checker that finds nothing wrong
    /// with that does not check.
    ///
    /// # Panics
    /// When there are none.
    #[must_use]
    pub fn without_syncs(&self, wanted: impl Fn(&str) -> bool) -> Recording {
        let mut paths = BTreeMap::new();
        let mut calls = Vec::new();
        for call in &self.calls {
            let dropped = match call {
                Call::Open { handle, path, .. } => {
                    paths.insert(*handle, path.clone());
                    false
                }
                Call::Sync { handle } => wanted(&paths[handle]),
                Call::SyncFolder { path } => wanted(&format!("{path}/")),
                _ => false,
            };
            if !dropped {
                calls.push(call.clone());
            }
        }
        assert!(calls.len() < self.calls.len(), "there are such syncs");
        Recording { calls }
    }

    /// Repeats the calls on an empty disk. Before each that changes something, and after the last, `visit` gets the disk
    /// and what the process had said until then.
    ///
    /// # Panics
    /// When the calls contradict each other.
    pub fn replay(&self, visit: &mut dyn FnMut(&MemDisk, &[String])) {
        let disk = MemDisk::default();
        let mut handles: BTreeMap<usize, Arc<dyn DiskFile>> = BTreeMap::new();
        let mut marks = Vec::new();
        for call in &self.calls {
            if let Call::Mark(text) = call {
                marks.push(text.clone());
                continue;
            }
            visit(&disk, &marks);
            repeat(&disk, &mut handles, call)
                .unwrap_or_else(|error| panic!("{call:?} can't be repeated: {error}"));
        }
        visit(&disk, &marks);
    }
}

impl Recording {
    /// Hands out every disk that may be left when power fails right after the process has said something, and at every so
    /// many calls between, with what it had said by then. Gives their number.
    ///
    /// # Errors
    /// What `check` first complains of, and where that was.
    pub fn each_crash(
        &self,
        sweep: Sweep,
        calls_between: u64,
        check: &mut CrashCheck<'_>,
    ) -> Result<usize, String> {
        let (mut states, mut call, mut said) = (0, 0, 0);
        let mut broken = Ok(());
        self.replay(&mut |disk, marks| {
            call += 1;
            let has_spoken = marks.len() > std::mem::replace(&mut said, marks.len());
            if broken.is_err() || !(has_spoken || call % calls_between == 0) {
                return;
            }
            states += each_crash(disk, sweep, &mut Dice::new(call), &mut |fates, next| {
                if broken.is_ok() {
                    broken = check(&next, marks).map_err(|why| {
                        format!("before call {call}, {fates:?} of {:?}: {why}", disk.pending())
                    });
                }
            });
        });
        broken.map(|()| states)
    }
}

fn repeat(
    disk: &MemDisk,
    handles: &mut BTreeMap<usize, Arc<dyn DiskFile>>,
    call: &Call,
) -> std::io::Result<()> {
    match call {
        Call::Open { handle, path, truncate } => {
            let file = match disk.open(path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => disk.create(path)?,
                opened => opened?,
            };
            if *truncate && file.length()? > 0 {
                file.truncate(0)?;
            }
            handles.insert(*handle, file);
            Ok(())
        }
        Call::Write { handle, at, bytes } => {
            let file = &handles[handle];
            let offset = match at {
                At::Offset(offset) => *offset,
                At::End => file.length()?,
            };
            file.write_at(offset, bytes)
        }
        Call::Truncate { handle, length } => handles[handle].truncate(*length),
        Call::Sync { handle } => handles[handle].sync(),
        Call::SyncFolder { path } => disk.sync_dir(path),
        Call::Rename { from, to } => disk.rename(from, to),
        Call::Remove { path } => disk.remove(path),
        Call::MakeFolder { path } => disk.create_dir(path),
        Call::Mark(_) => Ok(()),
    }
}

/// Writes all that is on a disk into an empty folder of the operating system.
///
/// # Panics
/// When the folder can't be written.
pub fn write_out(disk: &MemDisk, folder: &Path) {
    let done = "a folder for tests can be written";
    disk.folders().iter().for_each(|path| std::fs::create_dir(folder.join(path)).expect(done));
    disk.files().iter().for_each(|path| std::fs::write(folder.join(path), disk.bytes(path)).expect(done));
}

#[cfg(test)]
mod tests {
    use super::{Recording, can_record, record, write_out};
    use seedbank_store::testing::{kept, lost};
    use std::path::Path;

    fn shell(script: &str) -> Option<Recording> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().join("root");
        std::fs::create_dir(&root).expect("a new folder");
        can_record().then(|| record(&root, Path::new("/bin/sh"), &["-c", script]))
    }

    #[test]
    fn what_a_process_wrote_is_there_once_it_was_synced() {
        let script = r#"set -e; cd "$RECORDED_ROOT"; mkdir sub; printf one > sub/a; printf two >> sub/a
            echo half >> "$RECORDED_MARKS"; sync sub/a; sync sub; sync .; mv sub/a sub/b; echo all >> "$RECORDED_MARKS""#;
        let Some(recording) = shell(script) else { return };
        assert!(recording.syncs() >= 3);
        let mut last = None;
        recording.replay(&mut |disk, marks| {
            last = Some((disk.after(&disk.pending().iter().map(lost).collect::<Vec<_>>()), marks.to_vec()));
        });
        let (disk, marks) = last.expect("the end is visited");
        assert_eq!(marks, ["half", "all"]);
        assert_eq!((disk.files(), disk.bytes("sub/a")), (vec!["sub/a".to_owned()], b"onetwo".to_vec()));

        let mut files = Vec::new();
        recording.without_syncs(|path| path == "/").replay(&mut |disk, _| {
            files = disk.after(&disk.pending().iter().map(lost).collect::<Vec<_>>()).files();
        });
        assert_eq!(files, Vec::<String>::new(), "a folder without a name has no files");
    }

    #[test]
    fn disks_are_written_out_as_they_are() {
        let Some(recording) = shell(r#"cd "$RECORDED_ROOT"; mkdir sub; printf text > sub/file"#) else {
            return;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut last = None;
        recording.replay(&mut |disk, _| {
            last = Some(disk.after(&disk.pending().iter().map(kept).collect::<Vec<_>>()));
        });
        write_out(&last.expect("the end is visited"), folder.path());
        assert_eq!(std::fs::read(folder.path().join("sub/file")).expect("it is there"), b"text");
    }
}

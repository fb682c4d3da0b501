//! A folder for one test: its homes, its data, and every process that has to do with them.

use crate::program::{Invocation, is_alive, signal_process};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A folder that goes when the test ends, with all processes whose command line names it.
#[derive(Debug)]
pub(crate) struct Sandbox {
    folder: TempDir,
}

impl Sandbox {
    /// An empty one.
    pub(crate) fn new() -> Sandbox {
        let folder = tempfile::Builder::new().prefix("seedbank-test-").tempdir();
        Sandbox { folder: folder.expect("the temporary folder can be used") }
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An owner's home in it.
    pub(crate) fn home(&self, name: &str) -> Home {
        Home { root: self.path(name) }
    }

    /// Every process whose command line names this folder.
    pub(crate) fn processes(&self) -> Vec<i32> {
        processes_that_name(self.root())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.end_processes();
        self.unmount();
    }
}

impl Sandbox {
    fn end_processes(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let left = self.processes();
            if left.is_empty() || Instant::now() > deadline {
                return;
            }
            for pid in left {
                // One that was stopped by the test dies of this as well.
                signal_process(pid, Signal::KILL);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Takes away the disks that a test mounted in here, so that the folder can go.
    fn unmount(&self) {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
        for place in places.filter(|place| place.starts_with(self.root())) {
            let _unmounted = std::process::Command::new("umount").arg("--lazy").arg(place).status();
        }
    }
}

/// Every process whose command line holds this path.
pub(crate) fn processes_that_name(path: &Path) -> Vec<i32> {
    let path = path.as_os_str().as_encoded_bytes();
    let processes = std::fs::read_dir("/proc").expect("the processes can be listed");
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.windows(path.len()).any(|window| window == path)
        })
        .filter(|pid| is_alive(*pid))
        .collect()
}

/// An owner's home.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    root: PathBuf,
}

impl Home {
    /// The folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// `seedbank WORDS` for this home.
    pub(crate) fn seedbank(&self, words: &str) -> Invocation {
        Invocation::new(&self.root, words)
    }

    /// Makes keys without a passphrase, and writes the recovery phrase into a file.
    pub(crate) fn make_keys(&self, phrase: &Path) {
        self.seedbank("key init --insecure-no-passphrase --quiet --phrase-out").arg(phrase).succeeds();
    }
}

/// How long something may still take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    until: Instant,
}

impl Patience {
    pub(crate) fn new(time: Duration) -> Patience {
        Patience { until: Instant::now() + time }
    }

    pub(crate) fn is_over(self) -> bool {
        Instant::now() > self.until
    }

    pub(crate) fn pause(self) {
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Looks at a condition until it holds; fails the test when that takes longer than `time`.
pub(crate) fn wait_until(what: &str, time: Duration, mut holds: impl FnMut() -> bool) {
    let patience = Patience::new(time);
    while !holds() {
        assert!(!patience.is_over(), "waited {time:?} for {what}");
        patience.pause();
    }
}

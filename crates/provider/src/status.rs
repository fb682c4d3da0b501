//! What a running daemon says of itself on disk, for `provider status`: no port, no key and no permission is needed but
//! to read the folder.

use crate::config::CONFIG_FILE;
use crate::metrics::Counters;
use rustix::process::Pid;
use seedbank_formats::{PublicKey, Timestamp};
use seedbank_store::Usage;
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file's name in a provider's folder.
pub const STATUS_FILE: &str = "status.json";
const STATUS_FILE_NEW: &str = "status.json.new";
/// Ours have under 2 KiB.
const STATUS_BYTES_MAX: u64 = 64 * 1024;

/// A daemon's state, as it last wrote it down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its process.
    pub pid: u32,
    /// When that process began, in clock ticks since the machine did: the same number means the same process.
    pub process_start_ticks: Option<u64>,
    /// When the daemon began to serve.
    pub started: Timestamp,
    /// When this was written.
    pub written: Timestamp,
    /// The provider's key.
    pub key: PublicKey,
    /// Where clients connect to.
    pub address: SocketAddr,
    /// Where `/healthz` and `/metrics` are served.
    pub metrics: SocketAddr,
    /// Who runs it.
    pub operator: String,
    /// Where it stands.
    pub region: String,
    /// What it does.
    pub mode: Mode,
    /// What it holds; `None` when the disk could not say.
    pub usage: Option<StatusUsage>,
    /// What it did since it began.
    pub counters: Counters,
}

/// What a daemon does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Everything.
    ReadWrite,
    /// It serves, and takes no changes.
    ReadOnly {
        /// Why.
        reason: String,
    },
    /// It has ended in order.
    Stopped,
}

/// What a store holds, in bytes and counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusUsage {
    /// What it may take.
    pub capacity_bytes: u64,
    /// What it takes, trash and what is arriving included.
    pub used_bytes: u64,
    /// What new fragments may still take.
    pub free_bytes: u64,
    /// What lies in trash.
    pub trash_bytes: u64,
    /// What is free on the disk.
    pub disk_free_bytes: u64,
    /// Fragments with a claim.
    pub fragments: u64,
    /// Fragments known to be rotten.
    pub rotten_fragments: u64,
    /// Claims.
    pub claims: u64,
    /// Clients with a claim.
    pub clients: u64,
    /// Datasets with a head.
    pub heads: u64,
}

impl From<&Usage> for StatusUsage {
    fn from(usage: &Usage) -> StatusUsage {
        StatusUsage {
            capacity_bytes: usage.capacity_bytes,
            used_bytes: usage.used_bytes,
            free_bytes: usage.free_bytes,
            trash_bytes: usage.trash_bytes,
            disk_free_bytes: usage.disk_free_bytes,
            fragments: usage.fragments,
            rotten_fragments: usage.rotten_fragments,
            claims: usage.claims,
            clients: usage.clients,
            heads: usage.heads,
        }
    }
}

/// Whether the daemon that wrote a status is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Liveness {
    /// It runs.
    Running,
    /// It has ended in order.
    Stopped,
    /// It is gone without a word: killed, or the machine went down.
    Died,
}

/// A status, and whether it is still true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Whether the daemon is there.
    pub liveness: Liveness,
    /// What it last wrote.
    pub status: Status,
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// No provider was prepared there: check the path.
    #[error("{0} is not a provider's folder: it has no {CONFIG_FILE}")]
    NotAProvider(PathBuf),
    /// The provider never ran: start it with `provider run`.
    #[error("the provider in {0} has never run")]
    NeverRan(PathBuf),
    /// The file can't be read: check permissions.
    #[error("can't read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file is not a status: another version wrote it, or the disk did.
    #[error("{path} is not a status")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where the parser stopped.
        #[source]
        source: serde_json::Error,
    },
}

/// The state of the provider in `dir`, whether it runs or not.
///
/// # Errors
/// [`StatusError`].
pub fn status(dir: &Path) -> Result<StatusReport, StatusError> {
    let path = dir.join(STATUS_FILE);
    let read = |source| StatusError::Read { path: path.clone(), source };
    let length = match std::fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(match dir.join(CONFIG_FILE).exists() {
                true => StatusError::NeverRan(dir.to_owned()),
                false => StatusError::NotAProvider(dir.to_owned()),
            });
        }
        Err(error) => return Err(read(error)),
    };
    if length > STATUS_BYTES_MAX {
        return Err(read(io::Error::other("it is far too long")));
    }
    let bytes = std::fs::read(&path).map_err(read)?;
    let status: Status = serde_json::from_slice(&bytes)
        .map_err(|source| StatusError::Malformed { path: path.clone(), source })?;
    let alive = is_alive(status.pid, status.process_start_ticks);
    Ok(StatusReport { liveness: liveness(&status.mode, alive), status })
}

fn liveness(mode: &Mode, alive: bool) -> Liveness {
    match (mode, alive) {
        (Mode::Stopped, _) => Liveness::Stopped,
        (Mode::ReadWrite | Mode::ReadOnly { .. }, true) => Liveness::Running,
        (Mode::ReadWrite | Mode::ReadOnly { .. }, false) => Liveness::Died,
    }
}

/// Writes a status in one step: whoever reads sees the old one or the new one.
pub(crate) fn write(dir: &Path, status: &Status) -> io::Result<()> {
    let mut json = serde_json::to_vec_pretty(status).map_err(io::Error::other)?;
    json.push(b'\n');
    let new = dir.join(STATUS_FILE_NEW);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&json)?;
    std::fs::rename(&new, dir.join(STATUS_FILE))
}

/// Whether the process lives, and is the one that began then.
fn is_alive(pid: u32, start_ticks: Option<u64>) -> bool {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return false;
    };
    let exists = match rustix::process::test_kill_process(number) {
        Ok(()) | Err(rustix::io::Errno::PERM) => true,
        Err(_) => false,
    };
    let same = match (start_ticks, process_start_ticks(pid)) {
        (Some(then), Some(now)) => then == now,
        // Not every system tells.
        (None, _) | (_, None) => true,
    };
    exists && same
}

/// When a process began, from the kernel's word on it (proc(5), field 22 of `stat`).
pub(crate) fn process_start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{
        Liveness, Mode, Status, StatusError, is_alive, liveness, process_start_ticks, status, write,
    };
    use crate::config::CONFIG_FILE;
    use crate::metrics::Counters;
    use seedbank_formats::{PublicKey, Timestamp};

    fn example(mode: Mode) -> Status {
        Status {
            pid: std::process::id(),
            process_start_ticks: process_start_ticks(std::process::id()),
            started: Timestamp(5),
            written: Timestamp(9),
            key: PublicKey([1; 32]),
            address: "127.0.0.1:7410".parse().unwrap(),
            metrics: "[::1]:9".parse().unwrap(),
            operator: "acme".to_owned(),
            region: "eu".to_owned(),
            mode,
            usage: None,
            counters: Counters::default(),
        }
    }

    #[test]
    fn status_reads_back_and_replaces_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [Mode::ReadWrite, Mode::ReadOnly { reason: "x".to_owned() }, Mode::Stopped] {
            let written = example(mode);
            write(dir.path(), &written).unwrap();
            assert_eq!(status(dir.path()).unwrap().status, written);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn folders_without_a_status_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(status(dir.path()), Err(StatusError::NotAProvider(_))));
        std::fs::write(dir.path().join(CONFIG_FILE), "").unwrap();
        assert!(matches!(status(dir.path()), Err(StatusError::NeverRan(_))));
        std::fs::write(dir.path().join(super::STATUS_FILE), "{}").unwrap();
        assert!(matches!(status(dir.path()), Err(StatusError::Malformed { .. })));
    }

    #[test]
    fn process_is_known_by_its_number_and_its_beginning() {
        let (pid, ticks) = (std::process::id(), process_start_ticks(std::process::id()));
        assert!(is_alive(pid, ticks) && is_alive(pid, None));
        assert!(!is_alive(0, None) && !is_alive(u32::MAX, None));
        if let Some(ticks) = ticks {
            assert!(!is_alive(pid, Some(ticks + 1)));
        }
        assert_eq!(liveness(&Mode::ReadWrite, false), Liveness::Died);
        assert_eq!(liveness(&Mode::Stopped, true), Liveness::Stopped);
    }
}

//! A local network: provider processes and a steward process that this program starts, finds again and stops.
//!
//! Each process prints one JSON line on standard output once it serves, so nothing here waits by the clock for a
//! start. What runs is written to `network.json`, which is all that `down` and `status` need. A process is signalled
//! only while its command line still names our folder, so a recycled process id is never hit.

use crate::keystore::{PASSPHRASE_VARIABLE, replace_private};
use crate::local_chain::CHAIN;
use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The steward's name among the processes.
pub(crate) const STEWARD: &str = "steward";

/// A process that was asked to stop has this long before it is killed: a provider finishes its group commit.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// How often a process that is stopping is looked at.
const STOP_POLL: Duration = Duration::from_millis(20);

/// What a daemon prints when it serves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Serving {
    /// Its public key.
    pub(crate) key: String,
    /// Where peers reach it; the steward has its socket here.
    pub(crate) address: String,
    /// Address of `/healthz` and `/metrics`.
    pub(crate) metrics: Option<String>,
}

/// One process of the network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Process {
    /// `steward` or `provider-3`.
    pub(crate) name: String,
    /// Its process id.
    pub(crate) pid: i32,
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// What it said when it came up.
    #[serde(flatten)]
    pub(crate) serving: Serving,
}

impl Process {
    /// Whether the process still runs and is still ours.
    pub(crate) fn is_running(&self) -> bool {
        let Ok(command) = std::fs::read(format!("/proc/{}/cmdline", self.pid)) else { return false };
        if command.is_empty() {
            return is_ending(self.pid);
        }
        let dir = self.dir.as_os_str().as_encoded_bytes();
        !dir.is_empty() && command.windows(dir.len()).any(|window| window == dir)
    }

    /// Sends a signal, if the process is still ours.
    pub(crate) fn signal(&self, signal: Signal) {
        if let (true, Some(pid)) = (self.is_running(), Pid::from_raw(self.pid)) {
            // It may end between the look and the signal; then there is nothing to do.
            let _gone = kill_process(pid, signal);
        }
    }
}

/// Whether this is a process of this program that has no command line any more but still has its files, and so its
/// locks: one that is started in its place would be refused.
fn is_ending(pid: i32) -> bool {
    let own = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    match state_of(&stat, own.trim_end()) {
        None => false,
        // A zombie's other threads may not have ended yet.
        Some('Z' | 'X') => {
            std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|tasks| tasks.count() > 1)
        }
        Some(_) => true,
    }
}

/// The state letter of a process of this name, from its `/proc/PID/stat`.
fn state_of(stat: &str, name: &str) -> Option<char> {
    let rest = stat.split_once(" (")?.1.strip_prefix(name)?;
    rest.strip_prefix(") ")?.chars().next()
}

/// What `network.json` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Network {
    /// Providers first, in order, then the steward.
    pub(crate) processes: Vec<Process>,
}

impl Network {
    /// The network that was started from this home, if one was.
    pub(crate) fn load(dir: &Path) -> anyhow::Result<Option<Network>> {
        let path = dir.join("network.json");
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(
                serde_json::from_slice(&bytes)
                    .with_context(|| format!("{} is damaged; remove it and start again", path.display()))?,
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Writes `network.json`.
    pub(crate) fn save(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join("network.json");
        replace_private(&path, &serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("writing {}", path.display()))
    }

    /// Whether anything of it runs.
    pub(crate) fn is_running(&self) -> bool {
        self.processes.iter().any(Process::is_running)
    }

    /// The providers, in order.
    pub(crate) fn providers(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| process.name != STEWARD && process.name != CHAIN)
    }

    /// Asks every process to stop, the steward first, waits, and kills what is left. True if all stopped by themselves.
    pub(crate) fn stop(&self, dir: &Path) -> anyhow::Result<bool> {
        for process in self.processes.iter().rev() {
            process.signal(Signal::TERM);
        }
        let deadline = Instant::now() + STOP_GRACE;
        while self.is_running() && Instant::now() < deadline {
            std::thread::sleep(STOP_POLL);
        }
        let left: Vec<&Process> = self.processes.iter().filter(|process| process.is_running()).collect();
        for process in &left {
            process.signal(Signal::KILL);
        }
        match std::fs::remove_file(dir.join("network.json")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("removing network.json")
            }
            _ => Ok(left.is_empty()),
        }
    }
}

/// Whether the processes outlive this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// They stop when this program ends, however it ends.
    WithParent,
    /// They go on until `seedbank down`.
    Detached,
}

/// Processes that are being started: stopped again if the start fails half-way.
#[derive(Debug)]
pub(crate) struct Starting {
    children: Vec<Child>,
    network: Network,
    dir: PathBuf,
    lifetime: Lifetime,
}

impl Starting {
    /// Begins with nothing; logs and `network.json` go to `dir`.
    pub(crate) fn new(dir: &Path, lifetime: Lifetime) -> Starting {
        Starting {
            children: Vec::new(),
            network: Network { processes: Vec::new() },
            dir: dir.to_owned(),
            lifetime,
        }
    }

    /// Starts `seedbank ARGS`, whose command line must name `process_dir`, and waits until it says that it serves.
    pub(crate) fn start(&mut self, name: &str, process_dir: &Path, args: &[&str]) -> anyhow::Result<Serving> {
        let log_path = self.dir.join(format!("{name}.log"));
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&log_path)
            .with_context(|| format!("opening {}", log_path.display()))?;
        let program = std::env::current_exe().context("finding this program's own file")?;
        let mut command = Command::new(program);
        command.args(args).arg("--json").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        if self.lifetime == Lifetime::WithParent {
            command.arg("--with-parent");
        }
        if name != STEWARD {
            // Providers have no business with the owner's passphrase.
            command.env_remove(PASSPHRASE_VARIABLE);
        }
        // A process group of its own: Ctrl-C reaches this program alone, which then stops them in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
        let stdout = child.stdout.take().expect("stdout was piped");
        self.children.push(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).with_context(|| format!("waiting for {name}"))?;
        let Ok(serving) = serde_json::from_str::<Serving>(&line) else {
            let said = std::fs::read_to_string(&log_path).unwrap_or_default();
            let last: Vec<&str> = said.lines().rev().take(5).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            bail!("{name} did not start; its log {} ends with:\n{}", log_path.display(), last.join("\n"));
        };
        let pid = self.children.last().expect("just pushed").id();
        self.network.processes.push(Process {
            name: name.to_owned(),
            pid: i32::try_from(pid).expect("process ids fit 31 bits"),
            dir: process_dir.to_owned(),
            serving: serving.clone(),
        });
        Ok(serving)
    }

    /// Everything runs: writes `network.json` and gives the processes over.
    pub(crate) fn finish(mut self) -> anyhow::Result<Running> {
        self.network.save(&self.dir)?;
        let children = std::mem::take(&mut self.children);
        let network = std::mem::replace(&mut self.network, Network { processes: Vec::new() });
        Ok(Running { children, network, dir: self.dir.clone() })
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Best effort on the way out of an error that is already being told.
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// A network that runs as children of this program.
#[derive(Debug)]
pub(crate) struct Running {
    children: Vec<Child>,
    /// Who runs where.
    pub(crate) network: Network,
    dir: PathBuf,
}

impl Running {
    /// Stops everything and reaps it.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        for process in self.network.processes.iter().rev() {
            process.signal(Signal::TERM);
        }
        let deadline = Instant::now() + STOP_GRACE;
        for child in &mut self.children {
            while child.try_wait().context("waiting for a process to end")?.is_none() {
                if Instant::now() > deadline {
                    child.kill().context("killing a process that did not stop")?;
                }
                std::thread::sleep(STOP_POLL);
            }
        }
        self.network.stop(&self.dir).map(|_| ())
    }

    /// A process's folder.
    pub(crate) fn folder_of(&self, name: &str) -> anyhow::Result<PathBuf> {
        let process = self.network.processes.iter().find(|process| process.name == name);
        Ok(process.with_context(|| format!("no process is called {name}"))?.dir.clone())
    }

    /// Kills one process with SIGKILL and reaps it, as a crash would.
    pub(crate) fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let at = self
            .network
            .processes
            .iter()
            .position(|process| process.name == name)
            .with_context(|| format!("no process is called {name}"))?;
        self.children[at].kill().with_context(|| format!("killing {name}"))?;
        self.children[at].wait().with_context(|| format!("reaping {name}"))?;
        Ok(())
    }
}

/// Ends this process when its parent does. Called by daemons that were started with `--with-parent`.
pub(crate) fn end_with_parent() -> anyhow::Result<()> {
    let parent = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
        .context("asking to end with the parent")?;
    if rustix::process::getppid() != parent || parent == Some(Pid::INIT) {
        bail!("the process that started this one is gone already");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{is_ending, state_of};

    #[test]
    fn only_a_process_of_this_program_that_is_no_zombie_is_ending() {
        assert_eq!(state_of("12 (seedbank) D 1 12", "seedbank"), Some('D'));
        assert_eq!(state_of("12 (seedbank) Z 1 12", "seedbank"), Some('Z'));
        assert_eq!(state_of("12 (kworker/0:1) I 2 0", "seedbank"), None);
        assert_eq!(state_of("", "seedbank"), None);
        let pid = |id: u32| i32::try_from(id).unwrap();
        assert!(is_ending(pid(std::process::id())), "this one has its files");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let ended = pid(child.id());
        child.wait().unwrap();
        assert!(!is_ending(ended));
    }
}

//! A local network that `seedbank up` started, and what can happen to its processes and disks.

use crate::program::{
    Invocation, Outcome, Started, Surroundings, list_of, number_of, signal_process, text_of, wait_for_end,
};
use crate::sandbox::{Home, Sandbox};
use rustix::process::Signal;
use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// One process of the network.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) dir: PathBuf,
    pub(crate) key: String,
    pub(crate) address: String,
    /// Where it runs when it is started anew.
    pub(crate) surroundings: Surroundings,
    /// Set once the test has started it anew.
    child: Option<Started>,
}

impl Process {
    /// `KEY@HOST:PORT`.
    pub(crate) fn key_and_address(&self) -> String {
        format!("{}@{}", self.key, self.address)
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        match self.child.take() {
            Some(child) => drop(child.kill()),
            None => {
                signal_process(self.pid, Signal::KILL);
                wait_for_end(self.pid);
            }
        }
    }

    /// Ends one that the test had started anew, and gives what it had said.
    pub(crate) fn kill_and_hear(&mut self) -> Outcome {
        self.child.take().expect("it was started anew").kill()
    }

    /// Lets it hang: it keeps its connections and answers nothing.
    pub(crate) fn freeze(&self) {
        signal_process(self.pid, Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        signal_process(self.pid, Signal::CONT);
    }

    /// The folders in which a provider keeps fragments.
    fn fragment_folders(&self) -> [PathBuf; 2] {
        ["loose", "volumes"].map(|name| self.dir.join("data").join(name))
    }

    /// Bytes in the files that hold its fragments.
    pub(crate) fn fragment_bytes(&self) -> u64 {
        self.fragment_folders().iter().flat_map(|folder| files_below(folder)).map(|file| size(&file)).sum()
    }

    /// Flips one bit in every 4 KiB of its fragments, past the first 2 KiB of each file; says how many.
    pub(crate) fn flip_bits(&self) -> usize {
        let files = self.fragment_folders().into_iter().flat_map(|folder| files_below(&folder));
        files.map(|file| flip_bits(&file)).sum()
    }
}

fn size(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}

fn flip_bits(path: &Path) -> usize {
    const EVERY: usize = 4096;
    let len = size(path);
    let file = OpenOptions::new().read(true).write(true).open(path).expect("the fragment can be opened");
    let mut flips = 0;
    for at in (EVERY as u64 / 2..len).step_by(EVERY) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("it can be read");
        byte[0] ^= 0x20;
        file.write_all_at(&byte, at).expect("it can be written");
        flips += 1;
    }
    flips
}

/// The regular files below a folder.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut waiting) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => waiting.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                // Gone while we looked, or of another kind.
                _ => {}
            }
        }
    }
    found
}

/// Providers and a steward, in a sandbox.
#[derive(Debug)]
pub(crate) struct Network {
    // Before the sandbox, which ends what is left.
    pub(crate) providers: Vec<Process>,
    pub(crate) steward: Option<Process>,
    pub(crate) sandbox: Sandbox,
    pub(crate) home: Home,
    /// Where commands run.
    pub(crate) client: Surroundings,
}

impl Network {
    /// Starts a network in a new sandbox.
    pub(crate) fn up(providers: usize) -> Network {
        Network::up_in(Sandbox::new(), providers)
    }

    /// Starts a network in the home `home` of this sandbox.
    pub(crate) fn up_in(sandbox: Sandbox, count: usize) -> Network {
        let home = sandbox.home("home");
        let told = home.seedbank("up --no-chain --detach --quiet --providers").arg(count.to_string()).json();
        let (providers, steward) = Network::processes_of(&told);
        assert_eq!(providers.len(), count, "{told}");
        Network { providers, steward, sandbox, home, client: Surroundings::default() }
    }

    /// The providers, in order, and the steward that `up` or `status` tells of.
    pub(crate) fn processes_of(told: &Value) -> (Vec<Process>, Option<Process>) {
        let mut processes: Vec<(String, Process)> = list_of(&told["processes"])
            .iter()
            .map(|process| {
                let one = Process {
                    pid: i32::try_from(number_of(&process["pid"])).expect("a process id"),
                    dir: text_of(&process["dir"]).into(),
                    key: text_of(&process["key"]).to_owned(),
                    address: text_of(&process["address"]).to_owned(),
                    surroundings: Surroundings::default(),
                    child: None,
                };
                (text_of(&process["name"]).to_owned(), one)
            })
            .collect();
        processes.retain(|(name, _)| name != "chain");
        let steward = processes.pop_if(|(name, _)| name == "steward").map(|(_, steward)| steward);
        let numbered = |(at, (name, _)): (usize, &(String, Process))| *name == format!("provider-{}", at + 1);
        assert!(processes.iter().enumerate().all(numbered), "providers come in order: {told}");
        (processes.into_iter().map(|(_, provider)| provider).collect(), steward)
    }

    /// A path in the sandbox.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path(name)
    }

    /// Starts a provider again after its end, on the port that it had, as the system's service manager would.
    pub(crate) fn restart_provider(&mut self, at: usize) {
        let provider = &mut self.providers[at];
        pin_port(&provider.dir, &provider.address);
        let command = self.home.seedbank("provider run --json").within(&provider.surroundings);
        let mut child = command.arg(&provider.dir).start();
        let said = child.first_line();
        assert_eq!(text_of(&said["key"]), provider.key);
        assert_eq!(text_of(&said["address"]), provider.address);
        provider.pid = child.pid();
        provider.child = Some(child);
    }

    /// Ends the steward as a crash would.
    pub(crate) fn kill_steward(&mut self) {
        if let Some(steward) = &mut self.steward {
            steward.kill();
        }
    }

    /// Starts the steward again after its end.
    pub(crate) fn restart_steward(&mut self) {
        let Some(steward) = &mut self.steward else { return };
        let command = self.home.seedbank("steward run --json --metrics 127.0.0.1:0");
        let mut child = command.within(&steward.surroundings).start();
        child.first_line();
        steward.pid = child.pid();
        steward.child = Some(child);
    }

    /// Starts a provider anew in other surroundings.
    pub(crate) fn restart_provider_within(&mut self, at: usize, surroundings: Surroundings) {
        self.providers[at].kill();
        self.providers[at].surroundings = surroundings;
        self.restart_provider(at);
    }

    /// Tells the home where a provider is reached.
    pub(crate) fn tell_address(&self, at: usize, address: &str) {
        let key_and_address = format!("{}@{address}", self.providers[at].key);
        self.command("provider add").arg(key_and_address).succeeds();
    }

    /// A command of the owner.
    pub(crate) fn command(&self, words: &str) -> Invocation {
        self.home.seedbank(words).within(&self.client)
    }

    /// Pushes a folder and gives the report.
    pub(crate) fn push(&self, name: &str, folder: &Path) -> serde_json::Value {
        self.command("dataset push").arg(name).arg(folder).json()
    }

    /// Pulls into a folder and gives the report.
    pub(crate) fn pull(&self, name: &str, folder: &Path) -> serde_json::Value {
        self.command("dataset pull").arg(name).arg(folder).json()
    }

    /// Bytes of fragments that all providers hold.
    pub(crate) fn fragment_bytes(&self) -> u64 {
        self.providers.iter().map(Process::fragment_bytes).sum()
    }

    /// Asks all processes to end and waits until they have.
    pub(crate) fn end(&mut self) {
        let all = self.steward.iter_mut().chain(&mut self.providers);
        for process in all {
            signal_process(process.pid, Signal::TERM);
            match process.child.take() {
                Some(child) => drop(child.wait()),
                None => wait_for_end(process.pid),
            }
        }
    }
}

/// Makes a provider that had a port of the system's choice keep it.
pub(crate) fn pin_port(dir: &Path, address: &str) {
    let path = dir.join("provider.toml");
    let text = fs::read_to_string(&path).expect("the configuration can be read");
    let pinned: Vec<String> = text
        .lines()
        .map(|line| match line.strip_prefix("listen = ") {
            Some(_) => format!("listen = \"{address}\""),
            None => line.to_owned(),
        })
        .collect();
    fs::write(&path, pinned.join("\n")).expect("the configuration can be written");
}

//! A daemon in a process of its own: for limits that hold for a process, and for its memory and processor time.

use crate::support::{Caller, caller};
use seedbank_formats::PublicKey;
use seedbank_formats::keys::SigningKey;
use seedbank_provider::{CONFIG_FILE, InitOptions, RunOptions, init, run};
use seedbank_transport::PeerAddress;
use std::fs::File;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const FOLDER: &str = "SEEDBANK_TEST_DAEMON";

/// Not a test: what [`Daemon::start`] runs in the other process. Lines on its standard input let it take all
/// descriptors that are left, and give them back.
#[test]
#[ignore = "runs only as a process of other tests"]
fn serve() {
    let Some(dir) = std::env::var_os(FOLDER) else {
        return;
    };
    std::thread::spawn(|| {
        let mut held = Vec::new();
        for line in std::io::stdin().lines() {
            match line.unwrap().as_str() {
                "exhaust" => held.extend(std::iter::from_fn(|| File::open("/dev/null").ok())),
                "release" => held.clear(),
                other => panic!("what is {other}?"),
            }
            println!("done {}", held.len());
        }
        // Whoever started this is gone.
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let ready = |serving: seedbank_provider::Serving| println!("serving {}@{}", serving.key, serving.address);
    runtime.block_on(run(Path::new(&dir), RunOptions::default(), ready, std::future::pending())).unwrap();
}

/// The process; killed when this is dropped.
pub(crate) struct Daemon {
    child: Child,
    commands: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    pub(crate) peer: PeerAddress,
    _folder: tempfile::TempDir,
}

impl Daemon {
    /// Starts a daemon with more lines in its configuration, and with at most so many file descriptors.
    pub(crate) fn start(options: &InitOptions, first_lines: &str, descriptors: u32) -> Daemon {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("provider");
        init(&dir, options).unwrap();
        let path = dir.join(CONFIG_FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{first_lines}\n{text}")).unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -n $0; exec \"$@\"", &descriptors.to_string()])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "child::serve", "--ignored", "--nocapture"])
            .env(FOLDER, &dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let peer = Daemon::answer(&mut lines, "serving ").parse().unwrap();
        Daemon { child, commands, lines, peer, _folder: folder }
    }

    /// What stands behind `word` in the next line that has it. The test harness begins its line and does not end it.
    fn answer(lines: &mut Lines<BufReader<ChildStdout>>, word: &str) -> String {
        let mut found = lines.filter_map(|line| Some(line.unwrap().split_once(word)?.1.to_owned()));
        found.next().expect("the daemon lives")
    }

    /// Lets it do something with its descriptors; says how many it holds then.
    pub(crate) fn command(&mut self, command: &str) -> usize {
        writeln!(self.commands, "{command}").unwrap();
        Daemon::answer(&mut self.lines, "done ").parse().unwrap()
    }

    pub(crate) fn caller(&self, key: &SigningKey) -> Caller {
        caller(key, self.peer.clone())
    }

    pub(crate) fn key(&self) -> PublicKey {
        self.peer.key
    }

    /// The most memory that it ever had, in MiB.
    pub(crate) fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Processor time so far, in hundredths of a second.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().skip(11).take(2);
        fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

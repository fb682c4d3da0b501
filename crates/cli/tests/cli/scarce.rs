//! Processes that have too little: too few file descriptors, too little memory. They refuse or wait and stay up; and when
//! the system ends a client for want of memory it is as after any other crash.

use crate::aftermath::{assert_no_orphans, assert_reads_back};
use crate::files::{write, write_specimen};
use crate::frozen::wait_until_idle;
use crate::network::Network;
use crate::program::{Surroundings, is_alive, list_of};
use crate::sandbox::wait_until;
use seedbank_testkit::tools::{or_skip, run};
use seedbank_testkit::{ByteStream, assert_same_folder};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Sets how many files a process may have open; the hard limit stays, so that it can be raised again.
fn limit_files(pid: i32, files: u32) -> Result<(), String> {
    let limit = format!("--nofile={files}:");
    run(&["prlimit", "--pid", &pid.to_string(), &limit]).map(drop)
}

/// Files that a process has open.
fn open_files(pid: i32) -> u32 {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count();
    u32::try_from(open).expect("a few")
}

#[test]
fn providers_without_file_descriptors_refuse_and_serve_again_when_they_have_some() {
    let mut network = Network::up(8);
    let (tree, back) = (network.path("tree"), network.path("back"));
    write_specimen(&tree, 120);
    write(&tree, "large.bin", &ByteStream::bytes(120, 6_000_000));
    network.push("notes", &tree);
    // Two have none to spare: not one connection more, not one file.
    for provider in &network.providers[..2] {
        let limited = limit_files(provider.pid, open_files(provider.pid));
        if or_skip("want of file descriptors", limited).is_none() {
            return;
        }
    }
    let pulled = network.pull("notes", &back);
    assert_same_folder(&tree, &back);
    assert_eq!(list_of(&pulled["findings"]).len(), 0, "who has no descriptors is no liar: {pulled}");
    write(&tree, "more.bin", &ByteStream::bytes(121, 6_000_000));
    network.push("notes", &tree);
    assert_reads_back(&network, "notes", &tree);
    for provider in &network.providers[..2] {
        assert!(is_alive(provider.pid), "it stays up");
        limit_files(provider.pid, 1024).expect("raised");
    }
    wait_until("both to answer again", Duration::from_secs(20), || {
        let answers = |at: usize| {
            let address = network.providers[at].key_and_address();
            network.command("provider status").arg(address).run().code == Some(0)
        };
        answers(0) && answers(1)
    });
    write(&tree, "again.bin", &ByteStream::bytes(122, 6_000_000));
    network.push("notes", &tree);
    assert_reads_back(&network, "notes", &tree);
    assert_no_orphans(&mut network, "notes", &tree);
}

#[test]
fn a_client_and_a_steward_without_file_descriptors_say_so_or_get_by() {
    let mut network = Network::up(8);
    let tree = network.path("tree");
    write_specimen(&tree, 123);
    for files in [12, 16, 24, 32, 48, 64] {
        network.client = Surroundings::through(&["prlimit", &format!("--nofile={files}:{files}")]);
        for words in ["dataset push notes", "dataset pull notes"] {
            let folder = if words.contains("push") { tree.clone() } else { network.path("back") };
            let outcome = network.command(words).arg(&folder).run();
            let told = [
                "Too many open files",
                "has no version yet",
                "no dataset",
                "could not be placed",
                "can't be read",
            ];
            let told = told.iter().any(|words| outcome.stderr.contains(words));
            assert!(outcome.code == Some(0) || (outcome.code == Some(1) && told), "{files} files: {outcome}");
            assert!(!outcome.stderr.contains("panicked"), "{files} files: {outcome}");
            eprintln!("{files} files, {words}: exit code {:?}", outcome.code);
        }
    }
    network.client = Surroundings::default();
    let steward = network.steward.as_ref().expect("it runs").pid;
    limit_files(steward, open_files(steward)).expect("limited");
    // No connection is taken, so the command waits for the books, and goes on when they answer.
    write(&tree, "more.bin", &ByteStream::bytes(124, 1_000_000));
    let mut push = network.command("dataset push notes").arg(&tree).start();
    wait_until_idle(&mut push);
    assert!(push.is_running(), "{}", push.wait());
    limit_files(steward, 1024).expect("raised");
    assert!(is_alive(steward), "it stays up");
    push.wait().succeeded();
    assert_reads_back(&network, "notes", &tree);
    assert_no_orphans(&mut network, "notes", &tree);
}

/// A group of processes that may have so much memory together, page cache included. Version 1 of control groups.
struct MemoryGroup {
    folder: PathBuf,
}

impl MemoryGroup {
    fn make(name: &str, bytes: u64) -> Result<MemoryGroup, String> {
        let folder = PathBuf::from(format!("/sys/fs/cgroup/memory/seedbank-{}-{name}", std::process::id()));
        fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        fs::write(folder.join("memory.limit_in_bytes"), bytes.to_string())
            .map_err(|error| error.to_string())?;
        Ok(MemoryGroup { folder })
    }

    /// How processes get into it.
    fn surroundings(&self) -> Surroundings {
        let script = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", self.folder.display());
        Surroundings::through(&["sh", "-c", &script, "sh"])
    }

    /// How often the system ended a process of it for want of memory.
    fn kills(&self) -> u64 {
        let told = fs::read_to_string(self.folder.join("memory.oom_control")).unwrap_or_default();
        let kills = told.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.and_then(|kills| kills.parse().ok()).unwrap_or_default()
    }

    fn peak_mib(&self) -> u64 {
        let told = fs::read_to_string(self.folder.join("memory.max_usage_in_bytes")).unwrap_or_default();
        told.trim().parse::<u64>().unwrap_or_default() >> 20
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Its processes may need a moment to be gone; a group that stays does no harm.
        let _removed = fs::remove_dir(&self.folder);
    }
}

#[test]
fn a_provider_in_little_memory_pushes_back_and_holds_its_part() {
    let mut network = Network::up(8);
    let Some(group) = or_skip("a memory limit", MemoryGroup::make("provider", 96 << 20)) else { return };
    network.restart_provider_within(1, group.surroundings());
    let tree = network.path("tree");
    fs::create_dir(&tree).expect("made");
    write(&tree, "large.bin", &ByteStream::bytes(125, 80_000_000));
    let pushed = network.push("notes", &tree);
    assert_reads_back(&network, "notes", &tree);
    eprintln!("a provider in 96 MiB: {} MiB at most", group.peak_mib());
    assert_eq!(group.kills(), 0, "it stays below its limit by itself");
    assert!(network.providers[1].fragment_bytes() > 1_000_000, "and holds its part: {pushed}");
    assert_no_orphans(&mut network, "notes", &tree);
}

#[test]
fn a_client_in_little_memory_pushes_and_pulls_or_is_killed_and_completes_later() {
    let mut network = Network::up(8);
    let tree = network.path("tree");
    fs::create_dir(&tree).expect("made");
    write(&tree, "large.bin", &ByteStream::bytes(127, 20_000_000));
    network.push("notes", &tree);
    let first = network.path("first");
    fs::rename(&tree, &first).expect("moved");
    fs::create_dir(&tree).expect("made");
    write(&tree, "large.bin", &ByteStream::bytes(128, 100_000_000));
    for mebibytes in [24, 64, 512] {
        let name = format!("client-{mebibytes}");
        let Some(group) = or_skip("a memory limit", MemoryGroup::make(&name, mebibytes << 20)) else {
            return;
        };
        network.client = group.surroundings();
        let outcome = network.command("dataset push notes").arg(&tree).run();
        let back = network.path("back");
        let pulled = network.command("dataset pull notes").arg(&back).run();
        eprintln!(
            "{mebibytes} MiB: push {:?}/{:?}, pull {:?}/{:?}, {} MiB at most",
            outcome.code,
            outcome.signal,
            pulled.code,
            pulled.signal,
            group.peak_mib()
        );
        for outcome in [&outcome, &pulled] {
            let killed = outcome.signal == Some(9) && group.kills() > 0;
            assert!(outcome.code == Some(0) || killed, "{mebibytes} MiB: {outcome}");
        }
        if pulled.code == Some(0) {
            assert_same_folder(if outcome.code == Some(0) { &tree } else { &first }, &back);
        }
        let _partial = fs::remove_dir_all(&back);
        if mebibytes == 512 {
            assert_eq!((outcome.code, group.kills()), (Some(0), 0), "enough is enough: {outcome}");
        }
    }
    network.client = Surroundings::default();
    assert_reads_back(&network, "notes", &tree);
    assert_no_orphans(&mut network, "notes", &tree);
}

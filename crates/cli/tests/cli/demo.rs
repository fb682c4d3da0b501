//! `demo`, `up`, `down` and `status`.

use crate::network::Network;
use crate::program::{is_alive, list_of, number_of, text_of};
use crate::sandbox::{Sandbox, processes_that_name, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .expect("the folder can be listed")
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

/// A sandbox with a folder `temporary`, which is what the program takes for the system's.
fn sandbox() -> (Sandbox, PathBuf) {
    let sandbox = Sandbox::new();
    let temporary = sandbox.path("temporary");
    fs::create_dir(&temporary).expect("made");
    (sandbox, temporary)
}

fn check_story(story: &Value) {
    assert_eq!(story["verified"], true, "{story}");
    assert_eq!(list_of(&story["providers_lost"]).len(), 2, "{story}");
    assert!(number_of(&story["decoded_ranges"]) > 0, "{story}");
    let liars = list_of(&story["liars_named"]);
    assert!(!liars.is_empty(), "{story}");
    assert!(liars.iter().all(|liar| liar["signed"] == true && liar["verdict"] == "Rotten"), "{story}");
    let versions = list_of(&story["versions"]);
    assert_eq!(versions.len(), 2, "{story}");
    let fresh = |at: usize| number_of(&versions[at]["new_bytes"]);
    assert!(fresh(1) * 5 < fresh(0), "a few changed rows are little: {story}");
    assert!(number_of(&versions[0]["stored_bytes"]) > fresh(0), "{story}");
    check_ledger(&story["ledger"]);
    assert!(number_of(&story["files"]) >= 10 && number_of(&story["bytes"]) > 1_000_000, "{story}");
}

/// Whoever kept its data was paid for ten epochs, whoever did not for none; no token appeared or vanished.
fn check_ledger(ledger: &Value) {
    let units = |value: &Value| text_of(value).parse::<u128>().expect("an amount");
    let providers = list_of(&ledger["providers"]);
    assert!(providers.len() >= 5, "{ledger}");
    for provider in providers {
        let (proven, missed) = (number_of(&provider["proven"]), number_of(&provider["missed"]));
        let (rent, slashed) = (units(&provider["rent"]), units(&provider["slashed"]));
        match text_of(&provider["fate"]) {
            "honest" => assert!(proven == 10 && missed == 0 && rent > 0 && slashed == 0, "{provider}"),
            _ => assert!(proven == 0 && missed > 0 && rent == 0 && slashed > 0, "{provider}"),
        }
    }
    let refused: Vec<&str> = list_of(&ledger["refused"]).iter().map(|row| text_of(&row["attempt"])).collect();
    for attempt in ["claims rent", "one voucher twice", "withdraws escrow", "empties a channel"] {
        assert!(refused.iter().any(|refused| refused.contains(attempt)), "{attempt}: {ledger}");
    }
    let held: u128 = list_of(&ledger["holdings"]).iter().map(|holding| units(&holding["units"])).sum();
    assert_eq!(held, units(&ledger["made"]), "{ledger}");
}

#[test]
fn the_demo_tells_its_story_and_leaves_nothing() {
    let (sandbox, temporary) = sandbox();
    let home = sandbox.home("home");
    let story = home.seedbank("demo --json").env("TMPDIR", &temporary).succeeds();
    check_story(&story.json());
    assert_eq!(sandbox.processes(), Vec::<i32>::new());
    assert_eq!(entries(&temporary), Vec::<PathBuf>::new());
    assert!(!home.root().exists(), "the person's own home is none of the demo's business");
    assert!(!story.stderr.contains("WARN") && !story.stderr.contains("ERROR"), "{story}");
}

#[test]
fn the_demo_for_people_ends_with_a_table_and_takes_any_folder() {
    let (sandbox, temporary) = sandbox();
    let data = sandbox.path("data");
    crate::files::write_specimen(&data, 40);
    let told =
        sandbox.home("home").seedbank("demo --data").arg(&data).env("TMPDIR", &temporary).succeeds().text();
    let rows = [
        "files",
        "bytes",
        "new bytes",
        "stored bytes",
        "providers used",
        "providers lost",
        "liars named",
        "verified",
    ];
    for row in rows {
        assert!(told.lines().any(|line| line.trim_start().starts_with(row)), "no row {row:?} in\n{told}");
    }
    assert!(told.contains("every byte of both versions"), "{told}");
    assert_eq!(sandbox.processes(), Vec::<i32>::new());
    assert_eq!(entries(&temporary), Vec::<PathBuf>::new());
}

#[test]
fn a_kept_demo_runs_on_and_can_be_used_and_stopped() {
    let (sandbox, temporary) = sandbox();
    let story =
        sandbox.home("home").seedbank("demo --keep --json").env("TMPDIR", &temporary).succeeds().json();
    check_story(&story);
    let kept = PathBuf::from(text_of(&story["kept"]));
    assert_eq!(entries(&temporary), std::slice::from_ref(&kept));
    let home = sandbox.home(&format!("temporary/{}/home", name_of(&kept)));
    let status = home.seedbank("status").json();
    let network = list_of(&status["network"]);
    let running = network.iter().filter(|process| process["running"] == true).count();
    assert_eq!(running, network.len() - 2, "all but those that were killed: {status}");
    // Who was named is who was damaged.
    let damaged =
        network.iter().find(|process| process["name"] == story["disk_damaged"]).expect("it is one of them");
    for liar in list_of(&story["liars_named"]) {
        assert_eq!(liar["provider"], damaged["key"], "{story}");
    }
    for lost in list_of(&story["providers_lost"]) {
        let lost = network.iter().find(|process| process["name"] == *lost).expect("it is one of them");
        assert_eq!(lost["running"], false, "{status}");
    }
    let version = text_of(&story["versions"][0]["version"]);
    home.seedbank("dataset verify").arg(format!("field-notes@{version}")).succeeds();
    home.seedbank("down").succeeds();
    assert_eq!(processes_that_name(&kept), Vec::<i32>::new());
}

fn name_of(path: &Path) -> String {
    path.file_name().expect("a name").to_str().expect("UTF-8").to_owned()
}

#[test]
fn wrong_use_of_the_demo_is_told_plainly_and_leaves_nothing() {
    let (sandbox, temporary) = sandbox();
    let (home, data, empty) = (sandbox.home("home"), sandbox.path("data"), sandbox.path("empty"));
    crate::files::write_specimen(&data, 41);
    fs::create_dir(&empty).expect("made");
    let demo = |words: &str| home.seedbank(words).env("TMPDIR", &temporary);
    demo("demo --data").arg(sandbox.path("missing")).fails(1, "no such folder");
    demo("demo --data").arg(data.join("run.sh")).fails(1, "no such folder");
    demo("demo --providers 1 --data").arg(&data).fails(1, "need 2 distinct providers: have 1");
    demo("demo --providers 0").fails(2, "0 is not in 1..=64");
    std::os::unix::fs::symlink("/etc/passwd", data.join("out")).expect("made");
    demo("demo --data").arg(&data).fails(1, "can't be stored");
    assert_eq!(sandbox.processes(), Vec::<i32>::new());
    assert_eq!(entries(&temporary), Vec::<PathBuf>::new());
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let (sandbox, temporary) = sandbox();
    let home = sandbox.home("home");
    let mut demo = home.seedbank("demo").env("TMPDIR", &temporary).start();
    wait_until("providers to run", Duration::from_secs(30), || {
        sandbox.processes().len() > 4 || !demo.is_running()
    });
    demo.signal(Signal::INT);
    let outcome = demo.wait();
    assert_eq!(outcome.code, Some(1), "{outcome}");
    wait_until("its processes to end", Duration::from_secs(20), || sandbox.processes().is_empty());
    assert_eq!(entries(&temporary), Vec::<PathBuf>::new());
}

#[test]
fn a_network_starts_is_shown_and_stops_and_starts_again_with_its_data() {
    let network = Network::up(3);
    let tree = network.path("tree");
    crate::files::write_specimen(&tree, 42);
    network.push("notes", &tree);
    network.home.seedbank("up").fails(1, "a network runs already");
    let status = network.home.seedbank("status").json();
    assert_eq!((&status["providers_known"], &status["datasets"]), (&3.into(), &1.into()), "{status}");
    assert!(list_of(&status["network"]).iter().all(|process| process["running"] == true), "{status}");
    let pids: Vec<i32> = network.providers.iter().map(|provider| provider.pid).collect();
    let down = network.home.seedbank("down").json();
    assert_eq!(down["all_by_themselves"], true, "{down}");
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
    network.home.seedbank("down").fails(1, "no network was started");
    network.home.seedbank("dataset verify notes").fails(1, "can't be read");

    let network = Network::up_in(network.sandbox, 3);
    let back = network.path("back");
    network.pull("notes", &back);
    seedbank_testkit::assert_same_folder(&tree, &back);
}

#[test]
fn a_network_in_the_foreground_ends_with_ctrl_c_and_when_it_is_killed() {
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let sandbox = Sandbox::new();
        let mut up = sandbox.home("home").seedbank("up --providers 2 --json").start();
        let told = up.first_line();
        let pids: Vec<u64> =
            list_of(&told["processes"]).iter().map(|process| number_of(&process["pid"])).collect();
        up.signal(signal);
        let outcome = up.wait();
        assert_eq!(outcome.code, (signal != Signal::KILL).then_some(0), "{outcome}");
        let alive = |pid: &u64| is_alive(i32::try_from(*pid).expect("a process id"));
        wait_until("its processes to end", Duration::from_secs(20), || !pids.iter().any(alive));
    }
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_stays_behind() {
    let sandbox = Sandbox::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("it has an address").port();
    let home = sandbox.home("home");
    let refused =
        home.seedbank("up --providers 2 --detach --port").arg(port.to_string()).fails(1, "can't listen on");
    assert!(refused.stderr.contains(&port.to_string()), "{refused}");
    wait_until("nothing to run", Duration::from_secs(20), || sandbox.processes().is_empty());
    drop(taken);
    let network = Network::up_in(sandbox, 1);
    assert!(network.providers[0].address.ends_with(&format!(":{port}")), "it is free now");
}

//! Large trees in little memory: 4 GiB through eight providers, and the same with half of them killed on the way back.

use crate::network::{Network, files_below};
use crate::program::{number_of, peak_memory};
use crate::sandbox::wait_until;
use seedbank_testkit::{ByteStream, TreeSpec, assert_same_folder};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

const CLIENT_BYTES_MAX: u64 = 512 << 20;
const STEWARD_BYTES_MAX: u64 = 512 << 20;
const PROVIDER_BYTES_MAX: u64 = 256 << 20;

/// Minutes where a quiet machine takes seconds: this is about memory.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

fn told(what: &str, bytes: u64, time: Duration, client: u64) {
    let rate = bytes as f64 / time.as_secs_f64() / 1e6;
    eprintln!("{what}: {:.1} s, {rate:.0} MB/s, client peak {} MiB", time.as_secs_f64(), mib(client));
}

fn check_daemons(network: &Network) {
    let providers: Vec<u64> = network.providers.iter().map(|provider| peak_memory(provider.pid)).collect();
    let steward = network.steward.as_ref().map_or(0, |steward| peak_memory(steward.pid));
    let shown: Vec<u64> = providers.iter().map(|bytes| mib(*bytes)).collect();
    eprintln!("provider peaks {shown:?} MiB, steward peak {} MiB", mib(steward));
    assert!(providers.iter().all(|bytes| *bytes < PROVIDER_BYTES_MAX), "{shown:?} MiB");
    assert!(steward < STEWARD_BYTES_MAX, "{} MiB", mib(steward));
}

/// Runs a command to its good end; gives its report, its time and the most memory it had.
fn measured(network: &Network, words: &str, folder: &Path) -> (serde_json::Value, Duration, u64) {
    let started = Instant::now();
    let mut peak = 0;
    let command = network.home.seedbank(words).arg(folder).arg("--json").patience(PATIENCE).start();
    let outcome = command.wait_and_look(|pid| peak = peak.max(peak_memory(pid))).succeeded();
    assert!(peak < CLIENT_BYTES_MAX, "{words} took {} MiB", mib(peak));
    (outcome.json(), started.elapsed(), peak)
}

fn store_and_lose(huge_bytes: u64, small_files: u32) {
    let mut network = Network::up(8);
    let (tree, back) = (network.path("tree"), network.path("back"));
    let spec = TreeSpec {
        seed: 1,
        small_files,
        small_bytes: 100..=100_000,
        files_per_folder: 250,
        duplicates: small_files / 10,
        huge_bytes: Some(huge_bytes),
    };
    let summary = spec.write(&tree).expect("there is room for the tree");
    eprintln!("{summary:?}");
    let (pushed, time, peak) = measured(&network, "dataset push notes", &tree);
    told("push", summary.bytes, time, peak);
    assert_eq!(pushed["scheme"], serde_json::json!([4, 8]), "{pushed}");
    assert!(number_of(&pushed["new_bytes"]) < summary.distinct_bytes * 102 / 100, "{pushed}");
    eprintln!("new bytes {}, stored bytes {}", pushed["new_bytes"], pushed["stored_bytes"]);
    check_daemons(&network);

    let (_, time, peak) = measured(&network, "dataset pull notes", &back);
    told("pull", summary.bytes, time, peak);
    check_daemons(&network);
    assert_same_folder(&tree, &back);
    fs::remove_dir_all(&back).expect("removed");

    let started = Instant::now();
    let command = network.home.seedbank("dataset pull notes --json").arg(&back).patience(PATIENCE);
    let mut pull = command.start();
    let third = summary.bytes / 3;
    let written = || -> u64 {
        files_below(&back).iter().filter_map(|file| file.metadata().ok()).map(|m| m.len()).sum()
    };
    wait_until("a third to be read", PATIENCE, || written() > third || !pull.is_running());
    assert!(pull.is_running(), "the pull was quicker than its watcher");
    network.providers[..4].iter_mut().for_each(|provider| provider.kill());
    let mut peak = 0;
    let outcome = pull.wait_and_look(|pid| peak = peak.max(peak_memory(pid))).succeeded();
    told("pull that loses 4 of 8", summary.bytes, started.elapsed(), peak);
    eprintln!("{} ranges decoded", outcome.json()["decoded_ranges"]);
    assert!(number_of(&outcome.json()["decoded_ranges"]) > 0, "{outcome}");
    assert!(peak < CLIENT_BYTES_MAX, "{} MiB", mib(peak));
    assert_same_folder(&tree, &back);
}

#[test]
#[ignore = "needs 20 GB of disk and minutes"]
fn four_gibibytes_go_through_eight_providers_in_little_memory() {
    store_and_lose(3 << 30, 20_000);
}

#[test]
#[ignore = "needs 3 GB of disk and a minute"]
fn half_a_gibibyte_goes_through_eight_providers_in_little_memory() {
    store_and_lose(384 << 20, 2_500);
}

/// Writes `bytes` bytes of `seed`.
fn write_large(path: &Path, seed: u64, bytes: u64) {
    let mut file = fs::File::create(path).expect("made");
    std::io::copy(&mut ByteStream::new(seed).take(bytes), &mut file).expect("there is room");
}

#[test]
#[ignore = "needs 5 GB of disk and minutes"]
fn small_changes_of_large_datasets_store_little() {
    let network = Network::up(8);
    let pushed = |name: &str, folder: &Path| {
        let started = Instant::now();
        let command = network.home.seedbank("dataset push").arg(name).arg(folder).patience(PATIENCE);
        let report = command.json();
        let [fresh, metadata, stored] =
            ["new_bytes", "metadata_bytes", "stored_bytes"].map(|key| number_of(&report[key]));
        let (segments, time) = (&report["segments"], started.elapsed());
        eprintln!(
            "{name}: {fresh} new bytes ({metadata} metadata), {stored} stored, {segments} segments, {time:?}"
        );
        (fresh, metadata, time)
    };

    let inserted = network.path("inserted");
    fs::create_dir(&inserted).expect("made");
    let mut bytes = ByteStream::bytes(1, 200_000_000);
    fs::write(inserted.join("data.bin"), &bytes).expect("written");
    pushed("inserted", &inserted);
    bytes.splice(70_000_000..70_000_000, *b"eleven more");
    fs::write(inserted.join("data.bin"), &bytes).expect("written");
    drop(bytes);
    assert!(pushed("inserted", &inserted).0 < 500_000);

    let appended = network.path("appended");
    fs::create_dir(&appended).expect("made");
    write_large(&appended.join("data.bin"), 2, 500_000_000);
    pushed("appended", &appended);
    write_large(&appended.join("data.bin"), 2, 501_000_000);
    assert!(pushed("appended", &appended).0 < 1_500_000);

    let many = network.path("many");
    let spec = TreeSpec {
        seed: 3,
        small_files: 50_000,
        small_bytes: 2_400..=2_400,
        files_per_folder: 500,
        duplicates: 0,
        huge_bytes: None,
    };
    spec.write(&many).expect("there is room");
    let (_, _, time) = pushed("many", &many);
    assert!(time < Duration::from_secs(15), "50,000 files of 2.4 KB took {time:?}");

    let hundred_thousand = network.path("hundred-thousand");
    let spec = TreeSpec { seed: 4, small_files: 100_000, small_bytes: 100..=100, ..spec };
    spec.write(&hundred_thousand).expect("there is room");
    pushed("hundred-thousand", &hundred_thousand);
    fs::write(hundred_thousand.join("small/0100/050000.bin"), b"changed").expect("written");
    assert!(pushed("hundred-thousand", &hundred_thousand).1 < 200_000);
    for (name, folder) in [("inserted", &inserted), ("appended", &appended), ("many", &many)] {
        let back = network.path(&format!("back-{name}"));
        network.pull(name, &back);
        assert_same_folder(folder, &back);
    }
}

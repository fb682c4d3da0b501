//! A million files, spread and in one folder, empty and tiny: how long and how much memory each command takes.

use crate::network::Network;
use crate::program::{Outcome, number_of, peak_memory};
use seedbank_testkit::TreeSpec;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const FILES: u32 = 1_000_000;

/// Minutes where a quiet machine takes seconds: the limits here are of memory and of bytes.
const PATIENCE: Duration = Duration::from_secs(60 * 60);

/// A push has half a GiB for segments under way; a million names of one folder come on top.
const PUSH_BYTES_MAX: u64 = 640 << 20;
const LIST_BYTES_MAX: u64 = 64 << 20;

/// Runs a command on a folder, if there is one, and tells its time and the most memory it had.
fn measured(network: &Network, words: &str, folder: Option<&Path>, bytes_max: u64) -> Outcome {
    let started = Instant::now();
    let mut peak = 0;
    let command = network.home.seedbank(words).patience(PATIENCE);
    let command = folder.into_iter().fold(command, |command, folder| command.arg(folder));
    let outcome = command.start().wait_and_look(|pid| peak = peak.max(peak_memory(pid))).succeeded();
    eprintln!("{words}: {:.2} s, {} MiB", started.elapsed().as_secs_f64(), peak >> 20);
    assert!(peak < bytes_max, "{words} took {} MiB", peak >> 20);
    outcome
}

/// The system's own walk with a look at each file, which no scan can be quicker than.
fn tell_walk(tree: &Path) {
    let started = Instant::now();
    let walked = std::process::Command::new("find").arg(tree).args(["-size", "+1G"]).status();
    assert!(walked.expect("find can be run").success());
    eprintln!("find -size: {:.2} s", started.elapsed().as_secs_f64());
}

fn store(name: &str, bytes: u64, files_per_folder: u32) {
    let network = Network::up(8);
    let tree = network.path("tree");
    let spec = TreeSpec {
        seed: 1,
        small_files: FILES,
        small_bytes: bytes..=bytes,
        files_per_folder,
        duplicates: 0,
        huge_bytes: None,
    };
    eprintln!("{name}: {:?}", spec.write(&tree).expect("there is room for the tree"));
    let push = format!("dataset push {name} --json");
    let first = measured(&network, &push, Some(&tree), PUSH_BYTES_MAX).json();
    eprintln!("metadata {} bytes, stored {} bytes", first["metadata_bytes"], first["stored_bytes"]);
    assert_eq!(number_of(&first["entries"]), u64::from(FILES));

    tell_walk(&tree);
    let unchanged = measured(&network, &push, Some(&tree), PUSH_BYTES_MAX).json();
    assert_eq!((&unchanged["changed"], number_of(&unchanged["files_read"])), (&false.into(), 0));

    let file = format!("small/{:04}/777777.bin", 777_777 / files_per_folder);
    fs::write(tree.join(&file), "changed").expect("it can be written");
    let changed = measured(&network, &push, Some(&tree), PUSH_BYTES_MAX).json();
    assert_eq!(number_of(&changed["files_read"]), 1, "{changed}");
    // One leaf of some thousands, the pages above it, and the lists.
    assert!(number_of(&changed["metadata_bytes"]) < 256 << 10, "{changed}");

    let listed = measured(&network, &format!("dataset ls {name}"), None, LIST_BYTES_MAX);
    assert_eq!(listed.stdout.split(|byte| *byte == b'\n').count(), 1 + FILES as usize);
    measured(&network, &format!("dataset log {name}"), None, LIST_BYTES_MAX);
    let read = measured(&network, &format!("dataset cat {name}:{file}"), None, LIST_BYTES_MAX);
    assert_eq!(read.stdout, b"changed");
}

#[test]
#[ignore = "writes a million files, a minute or two"]
fn a_million_empty_files_are_stored_and_changed() {
    store("empty", 0, 1_000);
}

#[test]
#[ignore = "writes a million files, some minutes and 5 GB"]
fn a_million_tiny_files_are_stored_and_changed() {
    store("tiny", 64, 1_000);
}

#[test]
#[ignore = "writes a million files, a minute or two"]
fn a_folder_of_a_million_names_is_stored_and_changed() {
    store("flat", 0, FILES);
}

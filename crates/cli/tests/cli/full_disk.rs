//! A provider whose disk is full: it refuses, stays up, and serves what it has.

use crate::files::{write, write_specimen};
use crate::network::Network;
use crate::program::{number_of, text_of};
use seedbank_testkit::{ByteStream, assert_same_folder};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small disk in memory, gone with its sandbox.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts one; `None` where the person who runs the tests may not.
    fn mount(at: &Path, megabytes: u32) -> Option<SmallDisk> {
        let size = format!("size={megabytes}m,mode=700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output().ok()?;
        mounted.status.success().then(|| SmallDisk { at: at.to_owned() })
    }
}

/// Puts a folder of a stopped network on a small disk; `None` where that is not allowed.
fn move_to_small_disk(network: &Network, folder: &Path, megabytes: u32) -> Option<SmallDisk> {
    let aside = network.path("aside");
    fs::rename(folder, &aside).expect("moved");
    fs::create_dir(folder).expect("made");
    let disk = SmallDisk::mount(folder, megabytes);
    let copied = Command::new("cp").arg("-a").arg(aside.join(".")).arg(folder).status().expect("cp runs");
    assert!(copied.success());
    if disk.is_none() {
        eprintln!("skipped: no right to mount a disk");
    }
    disk
}

/// Writes zeros until nothing more fits.
fn fill(disk: &SmallDisk) -> PathBuf {
    let path = disk.at.join("filler");
    let mut file = fs::File::create(&path).expect("made");
    let full = std::io::copy(&mut std::io::repeat(0), &mut file).expect_err("the disk is small");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    path
}

#[test]
fn a_provider_with_a_full_disk_serves_and_starts_and_another_takes_its_place() {
    let network = Network::up(8);
    network.home.seedbank("down").succeeds();
    let dir = network.providers[2].dir.clone();
    let Some(disk) = move_to_small_disk(&network, &dir.join("data"), 24) else { return };
    // The daemon keeps a part of the disk free for itself.
    let toml = fs::read_to_string(dir.join("provider.toml")).expect("it is there");
    let kept: Vec<&str> = toml.lines().filter(|line| !line.starts_with("reserve")).collect();
    fs::write(dir.join("provider.toml"), format!("reserve = \"4MB\"\n{}\n", kept.join("\n")))
        .expect("written");
    let mut network = Network::up_in(network.sandbox, 8);
    let status_of = |network: &Network| {
        network.home.seedbank("provider status").arg(network.providers[2].key_and_address()).json()
    };

    let (tree, back) = (network.path("tree"), network.path("back"));
    write_specimen(&tree, 90);
    network.push("notes", &tree);
    assert!(network.providers[2].fragment_bytes() > 100_000, "all eight are used");
    let offered = number_of(&status_of(&network)["free_bytes"]);
    assert!((1..22_000_000).contains(&offered), "it offers no more than it has: {offered}");

    // Full to the last byte it goes on serving what it has, and starts again after a crash.
    let filler = fill(&disk);
    network.pull("notes", &back);
    assert_same_folder(&tree, &back);
    network.providers[2].kill();
    network.restart_provider(2);
    assert_eq!(number_of(&status_of(&network)["free_bytes"]), 0);
    let checked = network.home.seedbank("dataset verify notes").json();
    assert_eq!(checked["decoded_ranges"], 0, "its part is read from it: {checked}");

    // Who leaves the scheme to the program gets one for seven and is told; who asks for eight fragments is refused.
    write(&tree, "more.bin", &ByteStream::bytes(9, 6_000_000));
    let outcome = network.home.seedbank("dataset push notes --json").arg(&tree).succeeds();
    let pushed = outcome.json();
    assert_eq!(pushed["providers"], 7, "{pushed}");
    assert!(outcome.stderr.contains("coded 3 of 7 instead of 4 of 8"), "{outcome}");
    write(&tree, "and-more.bin", &ByteStream::bytes(10, 6_000_000));
    let asked = network.home.seedbank("dataset push notes --scheme 4/8").arg(&tree);
    asked.fails(1, "only 7 of 8 known ones are");
    let ninth = network.path("home/ninth");
    network
        .home
        .seedbank("provider init --listen 127.0.0.1:0 --operator ninth --capacity 1GB --open --quiet")
        .arg(&ninth)
        .succeeds();
    let mut daemon = network.home.seedbank("provider run --json").arg(&ninth).start();
    let said = daemon.first_line();
    let address = format!("{}@{}", text_of(&said["key"]), text_of(&said["address"]));
    network.home.seedbank("provider add").arg(&address).succeeds();
    let pushed = network.push("notes", &tree);
    assert_eq!(pushed["scheme"], serde_json::json!([4, 8]), "{pushed}");
    fs::remove_file(filler).expect("removed");
    write(&tree, "even-more.bin", &ByteStream::bytes(11, 6_000_000));
    network.push("notes", &tree);
    let all = network.path("all");
    network.pull("notes", &all);
    assert_same_folder(&tree, &all);
}

#[test]
fn a_pull_to_a_full_disk_says_so_and_goes_on_when_there_is_room() {
    let network = Network::up(3);
    let (tree, dest) = (network.path("tree"), network.path("dest"));
    write_specimen(&tree, 91);
    network.push("notes", &tree);
    fs::create_dir(&dest).expect("made");
    let Some(disk) = move_to_small_disk(&network, &dest, 16) else { return };
    let filler = fill(&disk);
    network.home.seedbank("dataset pull notes").arg(&dest).fails(1, "the disk is full");
    fs::remove_file(filler).expect("removed");
    network.pull("notes", &dest);
    assert_same_folder(&tree, &dest);
}

#[test]
fn a_push_whose_home_is_on_a_full_disk_fails_and_completes_when_there_is_room() {
    let network = Network::up(3);
    network.home.seedbank("down").succeeds();
    let Some(disk) = move_to_small_disk(&network, &network.home.root().join("catalog"), 16) else { return };
    let network = Network::up_in(network.sandbox, 3);
    let (tree, back) = (network.path("tree"), network.path("back"));
    write_specimen(&tree, 92);
    network.push("notes", &tree);
    let filler = fill(&disk);
    write(&tree, "more.bin", &ByteStream::bytes(9, 2_000_000));
    let refused = network.home.seedbank("dataset push notes").arg(&tree).run();
    if refused.code != Some(0) {
        // A little room may be left in the database's own files.
        refused.failed(1, "catalog");
    }
    fs::remove_file(filler).expect("removed");
    network.push("notes", &tree);
    network.pull("notes", &back);
    assert_same_folder(&tree, &back);
}

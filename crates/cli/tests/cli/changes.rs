//! Versions: what a change costs, and that every version stays what it was.

use crate::files::{wait_until_settled, write, write_specimen};
use crate::network::Network;
use crate::program::{list_of, number_of, text_of};
use seedbank_testkit::{ByteStream, assert_same_folder};
use serde_json::json;
use std::fs;
use std::path::Path;

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status().expect("cp can be run");
    assert!(copied.success());
}

#[test]
fn a_small_change_of_a_large_file_stores_little_and_both_versions_stay_readable() {
    let network = Network::up(8);
    let (tree, before) = (network.path("tree"), network.path("before"));
    fs::create_dir(&tree).expect("made");
    let mut bytes = ByteStream::bytes(1, 16_000_000);
    write(&tree, "large.bin", &bytes);
    let first = network.push("notes", &tree);
    copy(&tree, &before);
    let at = bytes.len() * 35 / 100;
    bytes.splice(at..at, *b"eleven more");
    write(&tree, "large.bin", &bytes);
    let second = network.push("notes", &tree);
    assert_ne!(first["version"], second["version"]);
    assert!(number_of(&second["new_bytes"]) < 500_000, "{second}");
    assert!(number_of(&second["metadata_bytes"]) < 200_000, "{second}");

    let back = network.path("back");
    network.pull("notes", &back);
    assert_same_folder(&tree, &back);
    let old = network.path("old");
    network.pull(&format!("notes@{}", &text_of(&first["version"])[..12]), &old);
    assert_same_folder(&before, &old);
}

#[test]
fn the_log_tells_versions_messages_refs_and_costs() {
    let network = Network::up(8);
    let tree = network.path("tree");
    write_specimen(&tree, 10);
    let push = |message: &str, more: &str| {
        let words = format!("dataset push notes {more}");
        network.home.seedbank(&words).arg(&tree).arg("--message").arg(message).json()
    };
    let first = push("first of all", "");
    fs::rename(tree.join("small"), tree.join("renamed")).expect("renamed");
    fs::remove_file(tree.join("huge.bin")).expect("removed");
    let second = push("renamed and removed", "");
    assert_eq!(second["new_bytes"], second["metadata_bytes"], "no content is new: {second}");
    write(&tree, "idea", b"for the side branch only");
    let third = push("", "--branch ideas");

    let log = network.home.seedbank("dataset log notes").json();
    let log = list_of(&log);
    let versions: Vec<_> = log.iter().map(|line| &line["version"]).collect();
    assert_eq!(versions, [&third["version"], &second["version"], &first["version"]]);
    let of = |at: usize, key: &str| log[at][key].clone();
    assert_eq!([of(0, "refs"), of(1, "refs"), of(2, "refs")], [json!(["ideas"]), json!(["main"]), json!([])]);
    assert_eq!(of(2, "message"), "first of all");
    assert_eq!(of(1, "new_bytes"), second["new_bytes"]);
    let parents = |reference: &str| {
        network.home.seedbank("dataset show").arg(format!("notes@{reference}")).json()["parents"].clone()
    };
    assert_eq!(parents("main"), json!([first["version"]]));

    // Version 1 still has what is gone since.
    let old = network.path("old");
    network.pull(&format!("notes@{}", text_of(&first["version"])), &old);
    assert!(old.join("huge.bin").exists() && old.join("small").exists() && !old.join("renamed").exists());
    let ideas = network.path("ideas");
    network.pull("notes@ideas", &ideas);
    assert_same_folder(&tree, &ideas);
}

#[test]
fn a_removed_dataset_is_gone_and_its_name_free_and_the_others_stay() {
    let network = Network::up(8);
    let (tree, other) = (network.path("tree"), network.path("other"));
    write_specimen(&tree, 11);
    write_specimen(&other, 12);
    network.push("notes", &tree);
    network.push("others", &other);
    network.home.seedbank("dataset rm notes").fails(1, "add --yes");
    let removed = network.home.seedbank("dataset rm notes --yes").json();
    assert!(number_of(&removed["segments_released"]) >= 1, "{removed}");
    network.home.seedbank("dataset log notes").fails(1, "no dataset is called \"notes\"");
    let back = network.path("back");
    network.pull("others", &back);
    assert_same_folder(&other, &back);
    network.push("notes", &other);
    let log = network.home.seedbank("dataset log notes").json();
    assert_eq!(list_of(&log).len(), 1, "{log}");
}

#[test]
fn one_version_can_be_removed_and_the_others_stay_exact() {
    let network = Network::up(8);
    let tree = network.path("tree");
    write_specimen(&tree, 13);
    let first = network.push("notes", &tree);
    write(&tree, "more", &ByteStream::bytes(77, 200_000));
    wait_until_settled(&tree);
    let second = network.push("notes", &tree);
    let newest = format!("notes@{}", text_of(&second["version"]));
    network.home.seedbank("dataset rm --yes").arg(&newest).fails(1, "is what main names");
    let oldest = format!("notes@{}", text_of(&first["version"]));
    network.home.seedbank("dataset rm --yes").arg(&oldest).succeeds();
    network.home.seedbank("dataset show").arg(&oldest).fails(1, "no version or ref is called");
    let back = network.path("back");
    network.pull("notes", &back);
    assert_same_folder(&tree, &back);
}

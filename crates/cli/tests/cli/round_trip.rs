//! What was pushed comes back: whole trees, parts of them, ranges of files.

use crate::files::{
    SPECIMEN_EMPTY_FOLDERS, SPECIMEN_FILES, SPECIMEN_SYMLINKS, wait_until_settled, write, write_specimen,
};
use crate::network::{Network, files_below};
use crate::program::{list_of, number_of, text_of};
use seedbank_testkit::assert_same_folder;
use std::fs;
use std::os::unix::fs::symlink;

#[test]
fn a_tree_of_every_kind_comes_back_exact_and_is_listed_shown_and_verified() {
    let network = Network::up(8);
    let (tree, back) = (network.path("tree"), network.path("back"));
    write_specimen(&tree, 1);
    let pushed = network.push("field/notes", &tree);
    assert_eq!(pushed["changed"], true, "{pushed}");
    assert_eq!(pushed["files_read"], SPECIMEN_FILES, "{pushed}");
    assert_eq!(pushed["scheme"], serde_json::json!([4, 8]), "{pushed}");
    assert_eq!(pushed["missing_fragments"], 0, "{pushed}");
    assert_eq!(pushed["failures"], serde_json::json!([]), "{pushed}");

    let pulled = network.pull("field/notes", &back);
    assert_same_folder(&tree, &back);
    assert_eq!(pulled["files"], SPECIMEN_FILES, "{pulled}");
    assert_eq!(pulled["symlinks"], SPECIMEN_SYMLINKS, "{pulled}");
    assert_eq!(pulled["folders"], SPECIMEN_EMPTY_FOLDERS, "{pulled}");
    assert_eq!(pulled["bytes"], pushed["bytes"], "{pulled}");
    assert_eq!(pulled["decoded_ranges"], 0, "a healthy read decodes nothing: {pulled}");
    assert_eq!(pulled["findings"], serde_json::json!([]), "{pulled}");

    let listed = network.home.seedbank("dataset ls field/notes").json();
    let entry = |path: &str| {
        let found = list_of(&listed).iter().find(|entry| entry["path"] == path);
        found.unwrap_or_else(|| panic!("{path} is not listed: {listed}")).clone()
    };
    assert_eq!(list_of(&listed).len() as u64, SPECIMEN_FILES + SPECIMEN_SYMLINKS + SPECIMEN_EMPTY_FOLDERS);
    assert_eq!(entry("nothing")["bytes"], 0);
    assert_eq!(
        entry("nothing")["sha256"],
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "the SHA-256 of nothing"
    );
    assert_eq!(entry("run.sh")["executable"], true);
    assert_eq!(entry("link")["target"], "run.sh");
    assert_eq!(entry("ünïcødé 目录/пусто")["kind"], "folder");
    let below = network.home.seedbank("dataset ls").arg("field/notes:a").json();
    let below: Vec<&str> = list_of(&below).iter().map(|entry| text_of(&entry["path"])).collect();
    assert_eq!(below, ["a/below", "a/up"], "a-b is not below a");

    let shown = network.home.seedbank("dataset show field/notes").json();
    assert_eq!(shown["version"], pushed["version"]);
    assert_eq!(text_of(&shown["revision"]), &text_of(&pushed["version"])[..40]);
    assert!(list_of(&shown["segments"]).iter().all(|segment| number_of(&segment["held"]) >= 5), "{shown}");
    let verified = network.home.seedbank("dataset verify field/notes").json();
    assert_eq!(verified["files"], SPECIMEN_FILES);
    let datasets = network.home.seedbank("dataset ls").json();
    assert_eq!(datasets[0]["name"], "field/notes", "{datasets}");
    assert_eq!(list_of(&datasets).len(), 1, "{datasets}");
}

#[test]
fn an_unchanged_tree_is_not_read_again_unless_asked() {
    let network = Network::up(8);
    let tree = network.path("tree");
    write_specimen(&tree, 2);
    wait_until_settled(&tree);
    let first = network.push("notes", &tree);
    let second = network.push("notes", &tree);
    assert_eq!(second["files_read"], 0, "{second}");
    assert_eq!(second["changed"], false, "{second}");
    assert_eq!(second["version"], first["version"]);
    let all = network.home.seedbank("dataset push notes --rehash").arg(&tree).json();
    assert_eq!(all["files_read"], SPECIMEN_FILES, "{all}");
    assert_eq!(all["new_bytes"], 0, "{all}");
    // A change that keeps size and mtime still moves the time of the last change to the inode.
    let path = tree.join("run.sh");
    let before = fs::metadata(&path).expect("it is there").modified().expect("it has a time");
    fs::write(&path, b"#!/bin/sh\nexit 7\n").expect("written");
    fs::File::options().write(true).open(&path).expect("opened").set_modified(before).expect("set");
    let changed = network.push("notes", &tree);
    assert_eq!((number_of(&changed["files_read"]), &changed["changed"]), (1, &true.into()), "{changed}");
    let back = network.path("back");
    network.pull("notes", &back);
    assert_same_folder(&tree, &back);
}

#[test]
fn ranges_of_a_file_are_its_bytes() {
    let network = Network::up(8);
    let tree = network.path("tree");
    write_specimen(&tree, 3);
    network.push("notes", &tree);
    let bytes = fs::read(tree.join("long.bin")).expect("it is there");
    let len = bytes.len();
    let ranges = [
        ("0-1", 0..1),
        ("-100", 0..100),
        ("0-3000001", 0..len),
        ("65536-131072", 65_536..131_072),
        ("1234567-2345678", 1_234_567..2_345_678),
        ("3000000-", 3_000_000..len),
        ("2999990-99999999999", 2_999_990..len),
        ("500-500", 0..0),
        ("3000001-", 0..0),
        ("18446744073709551614-", 0..0),
    ];
    for (range, expected) in ranges {
        let got = network.home.seedbank("dataset cat notes:long.bin --range").arg(range).succeeds();
        assert!(got.stdout == bytes[expected], "range {range} gave {} wrong bytes", got.stdout.len());
    }
    let whole = network.home.seedbank("dataset cat notes@main:long.bin").succeeds();
    assert!(whole.stdout == bytes, "the whole file");
    assert_eq!(network.home.seedbank("dataset cat notes:nothing").succeeds().stdout, b"");
    let named = network.home.seedbank("dataset cat").arg("notes:ünïcødé 目录/données 😀.csv").succeeds();
    assert_eq!(named.stdout, "α,β\n1,2\n".as_bytes());
}

#[test]
fn a_second_pull_keeps_what_is_there_and_replaces_only_when_asked() {
    let network = Network::up(8);
    let (tree, back) = (network.path("tree"), network.path("back"));
    write_specimen(&tree, 4);
    network.push("notes", &tree);
    network.pull("notes", &back);
    let again = network.pull("notes", &back);
    // The empty file has no bytes to keep.
    assert!(number_of(&again["files_kept"]) >= SPECIMEN_FILES - 3, "{again}");
    assert_eq!(again["bytes_kept"], again["bytes"], "{again}");

    write(&back, "a-b", b"my own notes");
    write(&back, "mine", b"not in the dataset");
    fs::remove_file(back.join("one-byte")).expect("removed");
    let refused =
        network.home.seedbank("dataset pull notes").arg(&back).fails(1, "exists and has other content");
    assert!(refused.stderr.contains("a-b"), "{refused}");
    assert_eq!(fs::read(back.join("a-b")).expect("it is there"), b"my own notes");
    network.home.seedbank("dataset pull notes --overwrite").arg(&back).succeeds();
    assert_eq!(fs::read(back.join("mine")).expect("a pull removes nothing"), b"not in the dataset");
    fs::remove_file(back.join("mine")).expect("removed");
    assert_same_folder(&tree, &back);
}

#[test]
fn nothing_is_written_through_a_link_or_over_a_full_folder() {
    let network = Network::up(8);
    let (tree, back, outside) = (network.path("tree"), network.path("back"), network.path("outside"));
    write_specimen(&tree, 5);
    network.push("notes", &tree);
    fs::create_dir(&outside).expect("made");
    fs::create_dir(&back).expect("made");
    symlink(&outside, back.join("a")).expect("made");
    for overwrite in ["", "--overwrite"] {
        let words = format!("dataset pull notes {overwrite}");
        network.home.seedbank(&words).arg(&back).fails(1, "is a symlink where the dataset has a folder");
    }
    assert_eq!(files_below(&outside), Vec::<std::path::PathBuf>::new());
    let full = network.path("full");
    fs::create_dir_all(full.join("one-byte/sub")).expect("made");
    network
        .home
        .seedbank("dataset pull notes --overwrite")
        .arg(&full)
        .fails(1, "is a folder that is not empty");
    let file = network.path("file");
    fs::write(&file, b"a file").expect("written");
    network.home.seedbank("dataset pull notes").arg(&file).fails(1, "is not a folder");
    assert_eq!(fs::read(&file).expect("it is there"), b"a file");
}

#[test]
fn patterns_choose_what_is_pushed_and_pulled() {
    let network = Network::up(8);
    let (tree, back) = (network.path("tree"), network.path("back"));
    write_specimen(&tree, 6);
    fs::create_dir(tree.join("cache")).expect("made");
    write(&tree, "cache/big.tmp", b"temporary");
    network.home.seedbank("dataset push notes --exclude cache/ --exclude *.tmp").arg(&tree).succeeds();
    fs::remove_dir_all(tree.join("cache")).expect("removed");
    network.pull("notes", &back);
    assert_same_folder(&tree, &back);

    let part = network.path("part");
    let pulled = network.home.seedbank("dataset pull notes --include a/ --include *.csv").arg(&part).json();
    assert_eq!(pulled["files"], 2, "{pulled}");
    assert_eq!(fs::read(part.join("a/below")).expect("chosen"), b"below a");
    assert_eq!(files_below(&part).len(), 2);
    let rest = network.path("rest");
    network
        .home
        .seedbank("dataset pull notes --exclude small/ --exclude copies --exclude *.bin")
        .arg(&rest)
        .succeeds();
    assert!(!rest.join("small").exists() && !rest.join("long.bin").exists() && rest.join("run.sh").exists());
    // The include that is missing comes afterwards, to the same place.
    network.pull("notes", &rest);
    assert_same_folder(&tree, &rest);
}

#[test]
fn one_file_can_be_pushed_and_public_datasets_and_schemes_can_be_chosen() {
    let network = Network::up(8);
    let tree = network.path("tree");
    write_specimen(&tree, 7);
    let pushed = network
        .home
        .seedbank("dataset push one --public --scheme 2/5 --zstd 3")
        .arg(tree.join("long.bin"))
        .json();
    assert_eq!(
        (&pushed["scheme"], number_of(&pushed["entries"])),
        (&serde_json::json!([2, 5]), 1),
        "{pushed}"
    );
    let back = network.path("back");
    network.pull("one", &back);
    assert!(
        fs::read(back.join("long.bin")).expect("it is there")
            == fs::read(tree.join("long.bin")).expect("it is")
    );
    let listed = network.home.seedbank("dataset ls").json();
    assert_eq!(listed[0]["public"], true, "{listed}");
}

//! Providers that die, rot, hang or vanish while data is read and written.

use crate::files::{write, write_specimen};
use crate::network::{Network, files_below};
use crate::program::{list_of, number_of, text_of};
use seedbank_testkit::{ByteStream, assert_same_folder};
use std::time::{Duration, Instant};

#[test]
fn two_dead_providers_and_a_rotten_disk_cost_nothing_but_time_and_the_rotten_one_is_named() {
    let mut network = Network::up(8);
    let (tree, back) = (network.path("tree"), network.path("back"));
    write_specimen(&tree, 30);
    network.push("notes", &tree);
    // Placement may put a segment's data where nothing is lost, one time in fourteen. Five segments are placed apart.
    for part in 1..5 {
        write(&tree, &format!("part-{part}.bin"), &ByteStream::bytes(300 + part, 600_000));
        network.push("notes", &tree);
    }
    network.providers[0].kill();
    network.providers[1].kill();
    assert!(network.providers[2].flip_bits() > 10);
    let pulled = network.pull("notes", &back);
    assert_same_folder(&tree, &back);
    assert!(number_of(&pulled["decoded_ranges"]) > 0, "{pulled}");
    for report in [pulled, network.home.seedbank("dataset verify notes").json()] {
        let dead = [&network.providers[0].key, &network.providers[1].key];
        let rotten = &network.providers[2].key;
        let findings = list_of(&report["findings"]);
        assert!(
            findings.iter().all(|finding| finding["provider"] == **rotten),
            "only the rotten one is blamed: {report}"
        );
        assert!(findings.iter().all(|finding| finding["signed"] == true), "with its own signature: {report}");
        let unreachable = list_of(&report["unreachable"]);
        let expected = |key: &&serde_json::Value| dead.iter().any(|dead| key == dead);
        assert!(unreachable.iter().all(|key| expected(&key)), "{report}");
        // The data may happen to be read around the rotten disk, but not by every read.
        assert!(!findings.is_empty() || !unreachable.is_empty(), "{report}");
    }
}

#[test]
fn each_rotten_disk_is_found_by_a_check_and_named_with_signed_evidence() {
    let network = Network::up(8);
    let tree = network.path("tree");
    write_specimen(&tree, 31);
    network.push("notes", &tree);
    for rotten in [0, 3, 5, 7] {
        network.providers[rotten].flip_bits();
    }
    let checked = network.home.seedbank("dataset verify notes").json();
    let findings = list_of(&checked["findings"]);
    assert!(!findings.is_empty(), "four of eight rot, so one of four that hold data does: {checked}");
    for finding in findings {
        let named =
            network.providers.iter().position(|provider| provider.key == text_of(&finding["provider"]));
        assert!(matches!(named, Some(0 | 3 | 5 | 7)), "{checked}");
        assert_eq!(finding["signed"], true, "{checked}");
        assert!(finding["verdict"] == "Rotten" || finding["verdict"] == "Lied", "{checked}");
    }
    let (back, told) = (network.path("back"), "signed evidence");
    let pulled = network.home.seedbank("dataset pull notes").arg(&back).succeeds();
    assert!(pulled.stderr.contains(told), "people are told as well: {pulled}");
    assert_same_folder(&tree, &back);
}

#[test]
fn as_many_losses_as_the_scheme_survives_are_survived() {
    for first in [0, 4] {
        let mut network = Network::up(8);
        let (tree, back) = (network.path("tree"), network.path("back"));
        write_specimen(&tree, 32);
        network.push("notes", &tree);
        network.providers[first..first + 4].iter_mut().for_each(|provider| provider.kill());
        network.pull("notes", &back);
        assert_same_folder(&tree, &back);
        let cut = network.home.seedbank("dataset cat notes:long.bin --range 1000000-1000100").succeeds();
        assert_eq!(cut.stdout, ByteStream::bytes(33, 3_000_001)[1_000_000..1_000_100]);
    }
}

#[test]
fn one_loss_too_many_is_an_error_that_comes_soon_and_says_so() {
    let mut network = Network::up(8);
    let tree = network.path("tree");
    write_specimen(&tree, 34);
    network.push("notes", &tree);
    network.providers[..5].iter_mut().for_each(|provider| provider.kill());
    let started = Instant::now();
    let dest = network.path("back");
    network.home.seedbank("dataset pull notes").arg(&dest).fails(1, "can't be read");
    network.home.seedbank("dataset verify notes").fails(1, "can't be read");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    // What they held is on their disks: with one of them back all is well again.
    network.restart_provider(0);
    network.pull("notes", &dest);
    assert_same_folder(&tree, &dest);
}

#[test]
fn providers_that_hang_are_read_around() {
    let network = Network::up(8);
    let (tree, back) = (network.path("tree"), network.path("back"));
    write_specimen(&tree, 35);
    network.push("notes", &tree);
    network.providers[0].freeze();
    network.providers[5].freeze();
    let started = Instant::now();
    network.pull("notes", &back);
    assert_same_folder(&tree, &back);
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

#[test]
fn a_push_does_without_a_provider_and_is_refused_when_too_few_are_left() {
    let mut network = Network::up(8);
    let (tree, back) = (network.path("tree"), network.path("back"));
    write_specimen(&tree, 36);
    network.providers[3].kill();
    let pushed = network.push("notes", &tree);
    assert_eq!(pushed["changed"], true, "{pushed}");
    network.pull("notes", &back);
    assert_same_folder(&tree, &back);
    network.providers[4..].iter_mut().for_each(|provider| provider.kill());
    write(&tree, "more", &ByteStream::bytes(1, 2_000_000));
    let started = Instant::now();
    let refused = network.home.seedbank("dataset push notes").arg(&tree).fails(1, "could not be placed");
    assert!(started.elapsed() < Duration::from_secs(60), "{refused}");
    // The old version is what there is.
    let log = network.home.seedbank("dataset log notes").json();
    assert_eq!(list_of(&log).len(), 1, "{log}");
    for at in [3, 4, 5, 6, 7] {
        network.restart_provider(at);
    }
    network.push("notes", &tree);
    network.home.seedbank("dataset pull notes").arg(&back).succeeds();
    assert_same_folder(&tree, &back);
}

#[test]
fn more_rot_than_the_scheme_survives_gives_an_error_that_names_the_rotten_and_never_a_wrong_byte() {
    let network = Network::up(8);
    let tree = network.path("tree");
    write_specimen(&tree, 37);
    network.push("notes", &tree);
    for provider in &network.providers[..5] {
        provider.flip_bits();
    }
    let dest = network.path("back");
    let outcome = network.home.seedbank("dataset pull notes").arg(&dest).run();
    assert!(matches!(outcome.code, Some(1 | 3)), "{outcome}");
    assert!(outcome.stderr.contains("signed evidence"), "{outcome}");
    // Small files lie in what is read first; each that has its name is right.
    for file in &files_below(&dest) {
        let name = file.strip_prefix(&dest).expect("it is below");
        if !name.to_string_lossy().ends_with(".seedbank-part") {
            let (is, should) =
                (std::fs::read(file).expect("read"), std::fs::read(tree.join(name)).expect("read"));
            assert!(is == should, "{}", name.display());
        }
    }
}

/// The books are the owner's own, but a disk may rot there too: nothing in them is believed without a proof.
#[test]
fn books_that_say_something_wrong_are_found_out() {
    let mut network = Network::up(8);
    let tree = network.path("tree");
    write_specimen(&tree, 38);
    network.push("notes", &tree);
    write(&tree, "more", &ByteStream::bytes(1, 300_000));
    network.push("notes", &tree);
    network.kill_steward();
    let books = network.home.root().join("catalog/catalog.sqlite");
    let change = |sql: &str| {
        let books = rusqlite::Connection::open(&books).expect("opened");
        books.execute_batch(&format!("PRAGMA foreign_keys = OFF; {sql}")).expect("changed");
    };
    let notes = "(SELECT number FROM datasets WHERE name = 'notes')";
    // What the killed steward had not merged into the file is merged when the last reader closes it.
    rusqlite::Connection::open(&books)
        .expect("opened")
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .expect("merged");
    let saved = std::fs::read(&books).expect("read");
    let changes = [
        // Version 2 lies where version 1 does.
        format!(
            "UPDATE versions SET (place_segment, place_item) = (SELECT place_segment, place_item FROM versions v \
             WHERE v.dataset = versions.dataset AND v.ordinal = versions.ordinal - 1) WHERE dataset = {notes} AND \
             ordinal = (SELECT max(ordinal) FROM versions WHERE dataset = {notes})"
        ),
        // Its tree is the one before.
        format!(
            "UPDATE versions SET (tree_segment, tree_item) = (SELECT tree_segment, tree_item FROM versions v \
             WHERE v.dataset = versions.dataset AND v.ordinal = versions.ordinal - 1) WHERE dataset = {notes} AND \
             ordinal = (SELECT max(ordinal) FROM versions WHERE dataset = {notes})"
        ),
        // It is another version than it says.
        format!(
            "UPDATE versions SET id = randomblob(32) WHERE dataset = {notes} AND \
             ordinal = (SELECT max(ordinal) FROM versions WHERE dataset = {notes}); \
             UPDATE refs SET version = (SELECT id FROM versions WHERE dataset = {notes} ORDER BY ordinal DESC) \
             WHERE dataset = {notes}"
        ),
    ];
    for sql in changes {
        change(&sql);
        let dest = network.path("back");
        let outcome = network.home.seedbank("dataset pull notes").arg(&dest).run();
        assert!(outcome.code == Some(3), "{sql}\n{outcome}");
        assert!(files_below(&dest).is_empty(), "{sql}\n{outcome}");
        std::fs::write(&books, &saved).expect("written");
    }
    // Fragments are not where they are said to be: read around, or from where they are.
    change("UPDATE fragments SET holder = (SELECT min(holder) FROM fragments) WHERE position < 2");
    let back = network.path("right");
    network.pull("notes", &back);
    assert_same_folder(&tree, &back);
}

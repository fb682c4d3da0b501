//! A lost home comes back from the phrase, and another home reads with a dataset's key: both without the owner's steward.

use crate::files::{write, write_specimen};
use crate::network::Network;
use crate::program::{list_of, number_of, text_of};
use crate::sandbox::{Home, Sandbox};
use seedbank_testkit::{ByteStream, assert_same_folder};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// A network whose owner wrote the phrase down, with two datasets of which one has two versions. The owner's home is
/// gone: no steward runs, and nothing of it can be read.
struct Lost {
    network: Network,
    phrase: PathBuf,
    tree: PathBuf,
    versions: Vec<Value>,
}

fn lose_a_home() -> Lost {
    let sandbox = Sandbox::new();
    let phrase = sandbox.path("phrase");
    sandbox.home("home").make_keys(&phrase);
    let mut network = Network::up_in(sandbox, 8);
    let (tree, other) = (network.path("tree"), network.path("other"));
    write_specimen(&tree, 50);
    write_specimen(&other, 51);
    let first = network.push("notes", &tree);
    write(&tree, "more.bin", &ByteStream::bytes(5, 300_000));
    let second = network.push("notes", &tree);
    network.home.seedbank("dataset push open/others --public").arg(&other).succeeds();
    network.kill_steward();
    for name in ["keys.sealed", "catalog", "index"] {
        let (from, to) = (network.home.root().join(name), network.path("gone").join(name));
        fs::create_dir_all(network.path("gone")).expect("made");
        if from.exists() {
            fs::rename(from, to).expect("moved");
        }
    }
    Lost { network, phrase, tree, versions: vec![first["version"].clone(), second["version"].clone()] }
}

fn recover(home: &Home, provider: &str, phrase: &Path) -> crate::program::Invocation {
    home.seedbank("key recover --insecure-no-passphrase --provider")
        .arg(provider)
        .arg("--phrase-file")
        .arg(phrase)
}

#[test]
fn the_phrase_and_one_address_bring_everything_back() {
    let Lost { network, phrase, tree, versions } = lose_a_home();
    let home = network.sandbox.home("recovered");
    let told = recover(&home, &network.providers[6].key_and_address(), &phrase).json();
    assert!(list_of(&told["datasets"]).iter().all(|dataset| dataset["recovered"] == true), "{told}");
    let listed = home.seedbank("dataset ls").json();
    let mut names: Vec<&str> = list_of(&listed).iter().map(|dataset| text_of(&dataset["name"])).collect();
    names.sort_unstable();
    assert_eq!(names, ["notes", "open/others"]);
    let log = home.seedbank("dataset log notes").json();
    let logged: Vec<Value> = list_of(&log).iter().rev().map(|line| line["version"].clone()).collect();
    assert_eq!(logged, versions);

    let (back, other, old) = (network.path("back"), network.path("other-back"), network.path("old"));
    home.seedbank("dataset pull notes").arg(&back).succeeds();
    assert_same_folder(&tree, &back);
    home.seedbank("dataset pull open/others").arg(&other).succeeds();
    assert_same_folder(&network.path("other"), &other);
    home.seedbank("dataset pull").arg(format!("notes@{}", text_of(&versions[0]))).arg(&old).succeeds();
    fs::remove_file(tree.join("more.bin")).expect("removed");
    assert_same_folder(&tree, &old);

    // The home goes on as if nothing had happened: what is stored already is not stored again.
    write(&tree, "after.txt", b"after the loss");
    let pushed = home.seedbank("dataset push notes").arg(&tree).json();
    assert!(number_of(&pushed["new_bytes"]) < 100_000, "{pushed}");
    let log = home.seedbank("dataset log notes").json();
    assert_eq!(list_of(&log).len(), 3, "{log}");
    // Once more is no harm, and finds what was added.
    let again = recover(&home, &network.providers[1].key_and_address(), &phrase).json();
    assert!(list_of(&again["datasets"]).iter().all(|dataset| dataset["recovered"] == true), "{again}");
}

#[test]
fn books_that_are_an_old_copy_are_refused_until_the_command_in_the_message_has_run() {
    let sandbox = Sandbox::new();
    let phrase = sandbox.path("phrase");
    sandbox.home("home").make_keys(&phrase);
    let mut network = Network::up_in(sandbox, 4);
    let (tree, catalog, old) =
        (network.path("tree"), network.home.root().join("catalog"), network.path("old"));
    write_specimen(&tree, 54);
    network.push("notes", &tree);
    network.kill_steward();
    copy_files(&catalog, &old);
    write(&tree, "second.bin", &ByteStream::bytes(6, 300_000));
    let second = network.push("notes", &tree);
    fs::rename(&catalog, network.path("newest")).expect("moved");
    copy_files(&old, &catalog);

    write(&tree, "third.txt", b"after the backup came back");
    let refused = network.home.seedbank("dataset push notes").arg(&tree).run();
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("the books are an old copy"), "{refused}");
    let command = refused.stderr.split('`').nth(1).expect("a command to type").replace("seedbank ", "");
    // What a reader finds is what the newest books wrote.
    let back = network.path("back");
    network.home.seedbank(&command).arg("--phrase-file").arg(&phrase).succeeds();
    let told = network.home.seedbank("dataset log notes").json();
    assert_eq!(list_of(&told)[0]["version"], second["version"], "{told}");
    network.restart_steward();
    let third = network.push("notes", &tree);
    assert!(number_of(&third["new_bytes"]) < 100_000, "{third}");
    network.pull("notes", &back);
    assert_same_folder(&tree, &back);
    assert_eq!(list_of(&network.home.seedbank("dataset log notes").json()).len(), 3);

    // Books that can't be read at all: the message's other way.
    network.kill_steward();
    let database =
        fs::OpenOptions::new().write(true).open(catalog.join("catalog.sqlite")).expect("the books");
    database.set_len(5000).expect("cut");
    fs::remove_file(catalog.join("catalog.sqlite-wal")).unwrap_or_default();
    network.home.seedbank("dataset ls").fails(1, "seedbank key recover");
    fs::rename(&catalog, network.path("damaged")).expect("moved");
    network.home.seedbank(&command).arg("--phrase-file").arg(&phrase).succeeds();
    let again = network.path("again");
    network.pull("notes", &again);
    assert_same_folder(&tree, &again);
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("listed");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

#[test]
fn recovery_works_with_as_many_providers_gone_as_the_scheme_survives() {
    let Lost { mut network, phrase, tree, .. } = lose_a_home();
    network.providers[..4].iter_mut().for_each(|provider| provider.kill());
    let home = network.sandbox.home("recovered");
    recover(&home, &network.providers[7].key_and_address(), &phrase).succeeds();
    let back = network.path("back");
    home.seedbank("dataset pull notes").arg(&back).succeeds();
    assert_same_folder(&tree, &back);
}

#[test]
fn wrong_and_strange_phrases_recover_nothing() {
    let Lost { network, phrase, .. } = lose_a_home();
    let address = network.providers[0].key_and_address();
    let words = fs::read_to_string(&phrase).expect("the phrase was written");
    let wrong = network.path("wrong");
    let attempt = |words: &str, message: &str| {
        fs::write(&wrong, words).expect("written");
        let home = network.sandbox.home("empty");
        recover(&home, &address, &wrong).fails(1, message);
        assert!(!home.root().join("keys.sealed").exists(), "no keys are made of {words:?}");
    };
    let mut swapped: Vec<&str> = words.split_whitespace().collect();
    swapped.swap(0, 23);
    if swapped[0] != swapped[23] {
        attempt(&swapped.join(" "), "don't belong together");
    }
    attempt(&words.replacen(swapped[1], "seedbank", 1), "not in the BIP-39 English word list");
    attempt("one two three", "has 24 words, this has 3");
    attempt("", "has 24 words, this has 0");
    let home = network.sandbox.home("empty");
    recover(&home, &address, &network.path("missing")).fails(1, "could not be read");
    recover(&home, "nonsense", &phrase).fails(2, "KEY@HOST:PORT");
    home.seedbank("key recover --insecure-no-passphrase --provider")
        .arg(&address)
        .fails(1, "no terminal to ask");

    // A right phrase, of somebody else: who has stored nothing there.
    let (stranger, strange) = (network.sandbox.home("stranger"), network.path("strange"));
    stranger.make_keys(&strange);
    let other = network.sandbox.home("other");
    let refused = recover(&other, &address, &strange).run();
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(!refused.stderr.contains("panicked") && refused.stderr.contains("error: "), "{refused}");
    let listed = other.seedbank("dataset ls").json();
    assert_eq!(listed, serde_json::json!([]), "nothing of the owner is seen");

    // Over a home that has another owner's keys.
    recover(&stranger, &address, &phrase).fails(1, "another owner's keys");
}

#[test]
fn another_home_reads_with_a_datasets_key_while_the_owner_is_off() {
    let mut network = Network::up(8);
    let tree = network.path("tree");
    write_specimen(&tree, 52);
    let pushed = network.push("notes", &tree);
    network.push("secret", &tree);
    let key = network.path("notes.key");
    network.home.seedbank("dataset key export notes").arg(&key).succeeds();
    assert_eq!(crate::secrets::mode(&key), 0o600);
    network.home.seedbank("dataset key export notes").arg(&key).fails(1, "notes.key");
    network.kill_steward();
    fs::rename(network.home.root().join("catalog"), network.path("hidden")).expect("moved");

    let reader = network.sandbox.home("reader");
    reader.seedbank("dataset key import").arg(&key).fails(1, "no keys at");
    reader.make_keys(&network.path("reader.phrase"));
    reader.seedbank("dataset key import --name theirs").arg(&key).succeeds();
    let back = network.path("back");
    let pulled = reader.seedbank("dataset pull theirs").arg(&back).json();
    assert_eq!(pulled["version"], pushed["version"]);
    assert_same_folder(&tree, &back);
    let cut = reader.seedbank("dataset cat theirs:long.bin --range 100-200").succeeds();
    assert_eq!(cut.stdout, ByteStream::bytes(53, 200)[100..]);
    reader.seedbank("dataset verify theirs").succeeds();
    let log = reader.seedbank("dataset log theirs").json();
    assert_eq!(list_of(&log).len(), 1, "{log}");
    let listed = reader.seedbank("dataset ls theirs").json();
    assert!(list_of(&listed).len() > 20, "{listed}");
    // The key opens one dataset, and reads only.
    reader.seedbank("dataset pull secret").arg(network.path("no")).fails(1, "no dataset is called");
    let refused = reader.seedbank("dataset push theirs").arg(&tree).run();
    assert_eq!(refused.code, Some(1), "{refused}");
    // With four providers gone as well.
    network.providers[2..6].iter_mut().for_each(|provider| provider.kill());
    let again = network.path("again");
    reader.seedbank("dataset pull theirs").arg(&again).succeeds();
    assert_same_folder(&tree, &again);
}

#[test]
fn damaged_dataset_keys_are_refused_and_import_nothing() {
    let network = Network::up(2);
    let tree = network.path("tree");
    write_specimen(&tree, 53);
    network.push("notes", &tree);
    let key = network.path("notes.key");
    network.home.seedbank("dataset key export notes").arg(&key).succeeds();
    let text = fs::read_to_string(&key).expect("written");
    let reader = network.sandbox.home("reader");
    reader.make_keys(&network.path("reader.phrase"));
    let middle = text.len() / 2;
    let other = if text.as_bytes()[middle] == b'7' { "8" } else { "7" };
    let flipped = format!("{}{other}{}", &text[..middle], &text[middle + 1..]);
    let cut = &text[..text.len() - 20];
    for (damaged, message) in [
        (flipped.as_str(), "damaged"),
        (cut, "damaged"),
        ("", "not a dataset key"),
        ("hello", "not a dataset key"),
    ] {
        fs::write(&key, damaged).expect("written");
        reader.seedbank("dataset key import").arg(&key).fails(1, message);
    }
    fs::write(&key, &text).expect("written");
    network.home.seedbank("dataset key import").arg(&key).fails(1, "is your own");
    let shown = reader.seedbank("key show").json();
    assert_eq!(shown["imported"], serde_json::json!([]), "{shown}");
}

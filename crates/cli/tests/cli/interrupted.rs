//! Pushes and pulls that end half-way, by Ctrl-C or by a crash, and go on when run again.

use crate::files::{write, write_specimen};
use crate::network::{Network, files_below};
use crate::program::{Started, list_of, number_of, text_of};
use crate::sandbox::{Sandbox, wait_until};
use rustix::process::Signal;
use seedbank_testkit::{ByteStream, assert_same_folder};
use std::fs;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn large_tree(folder: &Path, seed: u64, bytes: usize) {
    fs::create_dir(folder).expect("made");
    write(folder, "large.bin", &ByteStream::bytes(seed, bytes));
    write_specimen(&folder.join("specimen"), seed);
}

fn bytes_below(folder: &Path) -> u64 {
    files_below(folder).iter().filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// Starts a pull and stops all providers once it has written something: so it is in the middle, and stays there.
fn pull_until_the_middle(network: &Network, dest: &Path) -> Started {
    let mut pull = network.home.seedbank("dataset pull notes").arg(dest).start();
    wait_until("the pull to write", SOON, || bytes_below(dest) > 2_000_000 || !pull.is_running());
    network.providers.iter().for_each(|provider| provider.freeze());
    assert!(pull.is_running(), "the pull was quicker than its watcher: {}", pull.wait());
    pull
}

fn finish_pull(network: &Network, tree: &Path, dest: &Path) {
    network.providers.iter().for_each(|provider| provider.thaw());
    assert!(!dest.join("large.bin").exists(), "an unfinished file does not have its name yet");
    let pulled = network.pull("notes", dest);
    assert!(number_of(&pulled["bytes_kept"]) > 1_000_000, "what was there is kept: {pulled}");
    assert_same_folder(tree, dest);
}

#[test]
fn a_pull_goes_on_after_a_crash_and_after_ctrl_c() {
    let network = Network::up(8);
    let tree = network.path("tree");
    large_tree(&tree, 20, 48_000_000);
    network.push("notes", &tree);

    let dest = network.path("crashed");
    let outcome = pull_until_the_middle(&network, &dest).kill();
    assert_eq!(outcome.signal, Some(9), "{outcome}");
    finish_pull(&network, &tree, &dest);

    let dest = network.path("interrupted");
    let mut pull = pull_until_the_middle(&network, &dest);
    pull.signal(Signal::INT);
    pull.wait().failed(1, "run the same command again to go on");
    finish_pull(&network, &tree, &dest);
}

#[test]
fn a_push_goes_on_after_a_crash_and_sends_only_what_is_missing() {
    let network = Network::up(8);
    let tree = network.path("tree");
    // Three segments and a bit. Two are sent at once, so one is recorded when a third has begun.
    large_tree(&tree, 21, 220_000_000);
    let stored = || -> u64 { network.providers.iter().map(|provider| provider.fragment_bytes()).sum() };
    let mut push = network.home.seedbank("dataset push notes").arg(&tree).start();
    // Twice the bytes of a segment are its fragments.
    wait_until("the third segment to be sent", SOON, || stored() > 275_000_000 || !push.is_running());
    assert!(push.is_running(), "the push was quicker than its watcher: {}", push.wait());
    drop(push.kill());
    network
        .home
        .seedbank("dataset pull notes")
        .arg(network.path("too-early"))
        .fails(1, "the dataset has no version yet");
    let pushed = network.push("notes", &tree);
    assert!(number_of(&pushed["bytes_deduplicated"]) > 50_000_000, "{pushed}");
    let back = network.path("back");
    network.pull("notes", &back);
    assert_same_folder(&tree, &back);
}

#[test]
fn a_dataset_whose_first_push_crashed_can_be_recovered_once_the_push_is_through() {
    let sandbox = Sandbox::new();
    let phrase = sandbox.path("phrase");
    sandbox.home("home").make_keys(&phrase);
    let network = Network::up_in(sandbox, 8);
    let tree = network.path("tree");
    large_tree(&tree, 22, 30_000_000);
    let mut push = network.home.seedbank("dataset push notes").arg(&tree).start();
    let known = || list_of(&network.home.seedbank("dataset ls").json()).len();
    wait_until("the push to make the dataset", SOON, || known() == 1 || !push.is_running());
    assert!(push.is_running(), "the push was quicker than its watcher: {}", push.wait());
    drop(push.kill());
    network.push("notes", &tree);
    let home = network.sandbox.home("recovered");
    let recover = home.seedbank("key recover --insecure-no-passphrase --provider");
    recover.arg(network.providers[0].key_and_address()).arg("--phrase-file").arg(&phrase).succeeds();
    let listed = home.seedbank("dataset ls").json();
    let names: Vec<&str> = list_of(&listed).iter().map(|dataset| text_of(&dataset["name"])).collect();
    assert_eq!(names, ["notes"]);
}

//! Wall clocks that jump by a month, forth and back, while processes run.
//!
//! What holds: no jump of anyone's clock loses an acknowledged byte, ends a confirmed claim (they last 60 days and are
//! renewed in their second half) or names an honest provider a liar. An owner reads with any clock. What a client whose
//! clock is a month off a provider's can't have is a *new* claim there: the provider refuses, and says to compare clocks.

use crate::aftermath::{assert_no_orphans, assert_reads_back, clock};
use crate::files::{write, write_specimen};
use crate::network::Network;
use crate::program::{Surroundings, is_alive, list_of};
use crate::sandbox::wait_until;
use seedbank_testkit::ByteStream;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// A clock that a file sets while its process runs.
fn adjustable(file: &Path) -> Option<Surroundings> {
    let mut surroundings = clock("+0")?;
    set(file, "+0");
    surroundings.variables.retain(|(name, _)| name != "FAKETIME");
    for (name, value) in [("FAKETIME_TIMESTAMP_FILE", file.as_os_str()), ("FAKETIME_NO_CACHE", "1".as_ref())]
    {
        surroundings.variables.push((name.to_owned(), value.to_owned()));
    }
    Some(surroundings)
}

/// Sets the clock. The file is replaced, so that nobody reads half of it.
fn set(file: &Path, says: &str) {
    let staged = file.with_extension("staged");
    fs::write(&staged, format!("{says}\n")).expect("written");
    fs::rename(staged, file).expect("renamed");
}

#[test]
fn a_provider_and_the_steward_whose_clocks_jump_by_a_month_lose_nothing() {
    let mut network = Network::up(8);
    let (tree, of_provider, of_steward) =
        (network.path("tree"), network.path("provider.clock"), network.path("steward.clock"));
    let (Some(provider), Some(steward)) = (adjustable(&of_provider), adjustable(&of_steward)) else { return };
    network.restart_provider_within(4, provider);
    network.kill_steward();
    network.steward.as_mut().expect("there is one").surroundings = steward;
    network.restart_steward();
    write_specimen(&tree, 70);
    network.push("notes", &tree);
    for (number, says) in ["+30d", "-30d", "+0"].iter().enumerate() {
        for file in [&of_provider, &of_steward] {
            set(file, says);
            let verified = network.command("dataset verify notes").json();
            assert_eq!(list_of(&verified["findings"]).len(), 0, "{says}: {verified}");
            assert_eq!(list_of(&verified["unreachable"]).len(), 0, "{says}: {verified}");
            // With one clock a month off, enough others take what is new.
            write(&tree, "more.bin", &ByteStream::bytes(number as u64, 2_000_000));
            network.push("notes", &tree);
            assert_reads_back(&network, "notes", &tree);
        }
    }
    assert_no_orphans(&mut network, "notes", &tree);
}

#[test]
fn a_client_whose_clock_is_a_month_off_reads_everything_and_is_told_to_compare_clocks() {
    let mut network = Network::up(8);
    let tree = network.path("tree");
    let (Some(ahead), Some(behind)) = (clock("+30d"), clock("-30d")) else { return };
    write_specimen(&tree, 71);
    network.push("notes", &tree);
    for client in [&ahead, &behind] {
        network.client = client.clone();
        let verified = network.command("dataset verify notes").json();
        assert_eq!(list_of(&verified["findings"]).len(), 0, "{verified}");
        assert_reads_back(&network, "notes", &tree);
    }
    write(&tree, "more.bin", &ByteStream::bytes(1, 2_000_000));
    let refused = network.command("dataset push notes").arg(&tree).fails(1, "clock");
    assert!(refused.stderr.contains("compare the clocks"), "{refused}");
    network.client = ahead;
    network.push("notes", &tree);
    network.client = Surroundings::default();
    assert_reads_back(&network, "notes", &tree);
    let alive = network.providers.iter().all(|provider| is_alive(provider.pid));
    assert!(alive, "no provider minds");
    wait_until("the steward to answer", Duration::from_secs(20), || {
        network.command("dataset ls").run().code == Some(0)
    });
    assert_no_orphans(&mut network, "notes", &tree);
}

//! What must be true once a fault is over: everything acknowledged reads back exact, and nothing is left at providers
//! that the books do not know once collection has run.

use crate::network::{Network, Process};
use crate::program::{Surroundings, text_of};
use seedbank_formats::{PublicKey, Timestamp};
use seedbank_store::{Config, RealDisk, Store, StoreId};
use seedbank_testkit::tools::{or_skip, run};
use seedbank_testkit::{ByteStream, assert_same_folder};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// By then every lease and every claim that was never confirmed has run out.
const LATER_SECONDS: u64 = 2 * 86_400;

/// Where a wall clock says something else: the variables that make it so. Time that passes is not touched.
pub(crate) fn clock(says: &str) -> Option<Surroundings> {
    let library = run(&["sh", "-c", "ls /usr/lib/*/faketime/libfaketimeMT.so.1"]);
    let library =
        or_skip("a clock that jumps", library.map_err(|_| "libfaketime is not installed".to_owned()))?;
    let library = library.lines().next().expect("there is one").to_owned();
    let variables = [
        ("LD_PRELOAD", library),
        ("FAKETIME", says.to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("NO_FAKE_STAT", "1".to_owned()),
    ];
    Some(Surroundings::with(variables))
}

/// Pulls a version of a dataset and compares it byte for byte.
pub(crate) fn assert_reads_back(network: &Network, dataset: &str, tree: &Path) {
    let back = network.path("read-back");
    network.pull(dataset, &back);
    assert_same_folder(tree, &back);
    fs::remove_dir_all(back).expect("removed");
}

/// Collects a dataset once leases and unconfirmed claims have run out, ends the network, and compares what is claimed
/// on the providers' disks with what the books say they hold.
pub(crate) fn assert_no_orphans(network: &mut Network, dataset: &str, tree: &Path) {
    let Some(later) = clock(&format!("+{LATER_SECONDS}s")) else { return };
    let status = network.command("status").json();
    let owner: PublicKey = text_of(&status["owner"]).parse().expect("a key");
    // A version that can be removed, whose removal collects.
    let spare = network.path("spare");
    fs::create_dir(&spare).expect("made");
    fs::write(spare.join("spare"), ByteStream::bytes(1, 300_000)).expect("written");
    let version = text_of(&network.push(dataset, &spare)["version"]).to_owned();
    network.push(dataset, tree);
    if let Some(steward) = &mut network.steward {
        steward.kill();
    }
    let removal = network.command("dataset rm --yes").arg(format!("{dataset}@{version}")).within(&later);
    removal.succeeds();
    network.end();
    let books =
        rusqlite::Connection::open(network.home.root().join("catalog/catalog.sqlite")).expect("opened");
    for provider in &network.providers {
        let claimed = claims_on_disk(provider, &owner);
        let key: PublicKey = provider.key.parse().expect("a key");
        let mut listed =
            books.prepare("SELECT DISTINCT id FROM fragments WHERE holder = ?").expect("a query");
        let known: BTreeSet<[u8; 32]> = listed
            .query_map([key.0], |row| row.get(0))
            .expect("asked")
            .map(|id| id.expect("an id"))
            .collect();
        let orphans = claimed.difference(&known).count();
        let lost = known.difference(&claimed).count();
        assert_eq!(
            (orphans, lost),
            (0, 0),
            "orphans and lost fragments of {} at {}",
            known.len(),
            provider.dir.display()
        );
    }
}

/// The fragments that a client has claims on, with the time at which unconfirmed claims are over.
fn claims_on_disk(provider: &Process, client: &PublicKey) -> BTreeSet<[u8; 32]> {
    const PAGE: usize = 1000;
    let key: PublicKey = provider.key.parse().expect("a key");
    let disk = RealDisk::lock(&provider.dir.join("data")).expect("its process has ended");
    let store = Store::open(Arc::new(disk), Config::new(StoreId(key.0), 1 << 40)).expect("opened");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
    store.expire(Timestamp(now + LATER_SECONDS)).expect("expired");
    let (mut found, mut after) = (BTreeSet::new(), None);
    loop {
        let page = store.claims(client, after, PAGE);
        found.extend(page.claims.iter().map(|claim| claim.fragment.0));
        match page.next {
            Some(next) => after = Some(next),
            None => return found,
        }
    }
}

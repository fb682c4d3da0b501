//! A provider whose disk answers EIO: what it can't read others serve, and what it can't sync it never acknowledges.

use crate::aftermath::{assert_no_orphans, assert_reads_back};
use crate::files::{write, write_specimen};
use crate::network::Network;
use crate::program::{Surroundings, is_alive, list_of, number_of, text_of};
use crate::sandbox::wait_until;
use seedbank_formats::PublicKey;
use seedbank_testkit::tools::or_skip;
use seedbank_testkit::{ByteStream, Call, FaultyDisk};
use std::path::PathBuf;
use std::time::Duration;

/// The provider with the broken disk.
const BROKEN: usize = 2;

/// A network with a version, of which one provider is on a disk that can be told to fail.
fn network_with_faulty_disk(seed: u64) -> Option<(Network, FaultyDisk, PathBuf)> {
    let mut network = Network::up(8);
    let data = network.providers[BROKEN].dir.join("data");
    let disk = or_skip("a broken disk", FaultyDisk::build(network.sandbox.root(), &data))?;
    network.restart_provider_within(BROKEN, Surroundings::with(disk.variables()));
    let tree = network.path("tree");
    write_specimen(&tree, seed);
    write(&tree, "large.bin", &ByteStream::bytes(seed, 6_000_000));
    network.push("notes", &tree);
    assert!(network.providers[BROKEN].fragment_bytes() > 100_000, "all eight are used");
    Some((network, disk, tree))
}

/// How many fragments the books say that it holds.
fn held_by_the_broken(network: &Network) -> u64 {
    let books =
        rusqlite::Connection::open(network.home.root().join("catalog/catalog.sqlite")).expect("opened");
    let key: PublicKey = network.providers[BROKEN].key.parse().expect("a key");
    let sql = "SELECT count(*) FROM fragments WHERE holder = ?";
    books.query_row(sql, [key.0], |row| row.get(0)).expect("a number")
}

#[test]
fn what_a_disk_does_not_give_back_is_read_from_others_and_nobody_is_called_a_liar() {
    let Some((mut network, disk, tree)) = network_with_faulty_disk(60) else { return };
    disk.fail(Call::Read).expect("switched");
    for _ in 0..2 {
        let checked = network.command("dataset verify notes").json();
        for finding in list_of(&checked["findings"]) {
            assert_eq!(text_of(&finding["provider"]), network.providers[BROKEN].key, "{checked}");
            assert_ne!(finding["verdict"], "Lied", "{checked}");
        }
        assert_reads_back(&network, "notes", &tree);
    }
    assert!(is_alive(network.providers[BROKEN].pid), "it goes on serving what can be read");
    disk.heal(Call::Read).expect("switched");
    // The disk is whole again, and so is the provider, at the latest when it is started again.
    network.providers[BROKEN].kill();
    network.restart_provider(BROKEN);
    assert_reads_back(&network, "notes", &tree);
    assert_no_orphans(&mut network, "notes", &tree);
}

#[test]
fn what_a_disk_can_not_sync_is_never_acknowledged_and_the_operator_is_told() {
    for failing in [Call::Sync, Call::Write] {
        let Some((mut network, disk, tree)) = network_with_faulty_disk(61) else { return };
        let held = held_by_the_broken(&network);
        disk.fail(failing).expect("switched");
        write(&tree, "more.bin", &ByteStream::bytes(9, 6_000_000));
        let pushed = network.push("notes", &tree);
        assert_eq!(pushed["changed"], true, "the others hold enough: {pushed}");
        assert!(number_of(&pushed["missing_fragments"]) > 0, "{pushed}");
        assert_eq!(held_by_the_broken(&network), held, "{failing:?}: nothing new is counted on: {pushed}");
        wait_until("the operator to be told", Duration::from_secs(20), || {
            let status = network.command("provider status").arg(&network.providers[BROKEN].dir).succeeds();
            status.text().contains("READ ONLY")
        });
        assert_reads_back(&network, "notes", &tree);
        disk.heal(failing).expect("switched");
        let ended = network.providers[BROKEN].kill_and_hear();
        assert!(ended.stderr.contains("Input/output error"), "{failing:?}: the log says why: {ended}");
        network.restart_provider(BROKEN);
        assert_reads_back(&network, "notes", &tree);
        write(&tree, "and-more.bin", &ByteStream::bytes(10, 6_000_000));
        network.push("notes", &tree);
        assert!(held_by_the_broken(&network) > held, "it is used again");
        assert_no_orphans(&mut network, "notes", &tree);
    }
}

//! Disks that neither answer nor fail.

use super::{NOW, bytes, claim, client, config, created, open, put};
use crate::testing::{MemDisk, Operation};
use crate::{Config, Mode, PutError, PutStart, Store};
use seedbank_formats::{DatasetId, FragmentId};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

/// Runs `ask` on a thread of its own: a store that waits for its disk here fails the test instead of hanging it.
fn at_once<T: Send>(store: &Store, ask: impl FnOnce(&Store) -> T + Send, disk: &MemDisk) -> T {
    std::thread::scope(|scope| {
        let (told, answer) = channel();
        scope.spawn(move || told.send(ask(store)));
        let answer = answer.recv_timeout(Duration::from_secs(20));
        if answer.is_err() {
            disk.release();
        }
        answer.expect("an answer that needs no disk waits for none")
    })
}

fn wait_for_callers(disk: &MemDisk, callers: u64) {
    while disk.waiting() < callers {
        std::thread::yield_now();
    }
}

#[test]
fn who_only_asks_is_answered_while_any_call_of_a_put_hangs() {
    for operation in [Operation::Create, Operation::Write, Operation::Sync, Operation::SyncDir] {
        for length in [500, 9000] {
            let disk = created();
            let store = open(&disk);
            let held = bytes(1, 20_000);
            put(&store, 1, &held).unwrap();
            disk.hold(&[operation]);
            std::thread::scope(|scope| {
                let putting = scope.spawn(|| put(&store, 2, &bytes(2, length)));
                wait_for_callers(&disk, 1);
                let ask = |store: &Store| {
                    (
                        store.mode(),
                        store.claims(&client(1), None, 9).claims.len(),
                        store.usage().unwrap().fragments,
                    )
                };
                let (mode, claims, _) = at_once(&store, ask, &disk);
                assert_eq!((mode, claims), (Mode::ReadWrite, 1), "{operation:?}");
                let read = at_once(&store, |store| store.read(&FragmentId::of(&held), 0..20_000), &disk);
                assert_eq!(read.unwrap(), held);
                disk.release();
                putting.join().unwrap().unwrap();
            });
        }
    }
}

/// Whoever probes the disk and hears nothing ends the waiting.
#[test]
fn those_who_wait_for_a_sync_are_refused_when_writing_is_stopped() {
    let disk = created();
    let store = open(&disk);
    disk.hold(&[Operation::Sync]);
    std::thread::scope(|scope| {
        let puts: Vec<_> = (0..4)
            .map(|seed| {
                let store = &store;
                scope.spawn(move || put(store, 1, &bytes(seed, 500)))
            })
            .collect();
        while store.usage().unwrap().uncommitted < 4 {
            std::thread::yield_now();
        }
        at_once(&store, |store| store.stop_writing("the probe hangs"), &disk);
        for put in puts {
            assert_eq!(put.join().unwrap(), Err(PutError::ReadOnly { reason: "the probe hangs".to_owned() }));
        }
        let late = store.begin_put(FragmentId::of(b"late"), 4, claim(1), NOW);
        assert!(matches!(late, Err(PutError::ReadOnly { .. })));
        disk.release();
    });
}

#[test]
fn all_goes_on_when_the_disk_answers_again() {
    let disk = created();
    let store = open(&disk);
    disk.hang();
    std::thread::scope(|scope| {
        let putting = scope.spawn(|| put(&store, 1, &bytes(1, 500)));
        let probing = scope.spawn(|| store.probe());
        wait_for_callers(&disk, 2);
        assert_eq!(at_once(&store, Store::mode, &disk), Mode::ReadWrite);
        disk.release();
        putting.join().unwrap().unwrap();
        probing.join().unwrap().unwrap();
    });
    assert!(matches!(
        store.begin_put(FragmentId::of(&bytes(1, 500)), 500, claim(1), NOW),
        Ok(PutStart::Held(_))
    ));
}

/// A head took another's place, and only memory knows: the old one may be all that is left after a power failure.
#[test]
fn a_volume_goes_only_once_it_is_durable_that_nothing_in_it_is_needed() {
    let (disk, dataset) = (created(), DatasetId([7; 32]));
    // A volume of its own for each record.
    let config = Config { volume_bytes: 1, ..config() };
    let store = Store::open(Arc::new(disk.clone()), config).unwrap();
    store.put_head(&dataset, 1, &bytes(1, 500)).unwrap();
    let before = disk.files();
    disk.hold(&[Operation::Sync]);
    std::thread::scope(|scope| {
        let putting = scope.spawn(|| store.put_head(&dataset, 2, &bytes(2, 500)));
        wait_for_callers(&disk, 1);
        let (told, collected) = channel();
        let collecting = &store;
        scope.spawn(move || told.send(collecting.collect(NOW, 0)));
        let early = collected.recv_timeout(Duration::from_millis(300));
        let files = disk.files();
        disk.release();
        assert!(early.is_err(), "collected while the new head is not durable");
        assert!(before.iter().all(|file| files.contains(file)), "{before:?} became {files:?}");
        putting.join().unwrap().unwrap();
        assert_eq!(collected.recv().unwrap().unwrap().volumes, 1);
    });
}

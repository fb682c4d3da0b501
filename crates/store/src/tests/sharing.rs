//! Many at once.

use super::{bytes, created, open, put};
use crate::testing::{Dice, Operation};
use crate::{ReadError, Store};
use seedbank_formats::FragmentId;
use std::sync::atomic::{AtomicBool, Ordering};

/// Waits until so many changes stand in the queue.
fn wait_for(store: &Store, uncommitted: u64) {
    while store.usage().unwrap().uncommitted < uncommitted {
        std::thread::yield_now();
    }
}

#[test]
fn concurrent_puts_share_their_syncs() {
    let disk = created();
    let store = open(&disk);
    let before = disk.counters();
    disk.hold(&[Operation::Sync, Operation::SyncDir]);
    std::thread::scope(|scope| {
        for seed in 0..64 {
            let store = &store;
            scope.spawn(move || put(store, 1, &bytes(seed, 500)).unwrap());
        }
        wait_for(&store, 64);
        disk.release();
    });
    let calls = |operation| {
        let count = |counters: &crate::testing::Counters| counters.get(&operation).copied().unwrap_or(0);
        count(&disk.counters()) - count(&before)
    };
    // One batch that was caught alone, perhaps, and one with the rest: a volume and the journal for each.
    assert!(calls(Operation::Sync) <= 4, "{} file syncs for 64 puts", calls(Operation::Sync));
    assert!(calls(Operation::SyncDir) <= 2, "{} folder syncs for 64 puts", calls(Operation::SyncDir));
    assert_eq!(store.usage().unwrap().fragments, 64);
}

#[test]
fn nothing_is_acknowledged_before_its_sync() {
    let disk = created();
    let store = open(&disk);
    let answered = AtomicBool::new(false);
    disk.hold(&[Operation::Sync, Operation::SyncDir]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            put(&store, 1, &bytes(1, 500)).unwrap();
            answered.store(true, Ordering::SeqCst);
        });
        wait_for(&store, 1);
        assert!(!answered.load(Ordering::SeqCst));
        disk.release();
    });
    assert!(answered.load(Ordering::SeqCst));
}

#[test]
fn the_same_fragment_from_many_is_kept_once() {
    let disk = created();
    let store = open(&disk);
    for length in [2000, 9000] {
        let data = bytes(7, length);
        std::thread::scope(|scope| {
            for tag in 0..8 {
                let (store, data) = (&store, &data);
                scope.spawn(move || put(store, tag, data).unwrap());
            }
        });
        assert_eq!(store.access(&FragmentId::of(&data), super::NOW).unwrap().len(), 8);
    }
    let usage = store.usage().unwrap();
    assert_eq!((usage.fragments, usage.claims, usage.reserved_bytes), (2, 16, 0));
    let loose = disk.files().iter().filter(|path| path.starts_with("loose")).count();
    assert_eq!(loose, 1);
}

#[test]
fn readers_are_undisturbed_by_compaction() {
    let disk = created();
    let store = open(&disk);
    let contents = (0..60).map(|seed| bytes(seed, 3000)).collect::<Vec<_>>();
    let ids = contents.iter().map(|bytes| FragmentId::of(bytes)).collect::<Vec<_>>();
    for bytes in &contents {
        put(&store, 1, bytes).unwrap();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (store, contents, ids, done) = (&store, &contents, &ids, &done);
            scope.spawn(move || {
                let mut dice = Dice::new(seed);
                while !done.load(Ordering::SeqCst) {
                    let index = dice.pick(ids.len());
                    match store.read(&ids[index], 0..3000) {
                        Ok(bytes) => assert_eq!(bytes, contents[index]),
                        Err(error) => assert!(matches!(error, ReadError::Absent(_)), "{error}"),
                    }
                }
            });
        }
        for batch in ids.chunks(3) {
            store.release(&super::client(1), &batch[..2], super::LAST, super::NOW).unwrap();
            store.collect(super::NOW.plus_seconds(super::GRACE_S), 1 << 20).unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
    let usage = store.usage().unwrap();
    assert_eq!(usage.fragments, 20);
    assert!(usage.dead_bytes < 64 * 1024 + usage.used_bytes / 2, "{usage:?}");
}

#[test]
fn a_put_that_outlives_its_store_is_refused() {
    let disk = created();
    let store = open(&disk);
    let data = bytes(1, 2000);
    let start = store.begin_put(FragmentId::of(&data), 2000, super::claim(1), super::NOW).unwrap();
    drop(store);
    let crate::PutStart::Receive(mut put) = start else { panic!("not here yet") };
    put.write(&data).unwrap();
    assert!(matches!(put.finish(super::NOW), Err(crate::PutError::ReadOnly { .. })));
}

//! Quotas, capacity and full disks.

use super::{LAST, NOW, STORE, bytes, claim, client, config, created, killed, open, put, put_as};
use crate::testing::{MemDisk, MemDiskOptions};
use crate::{Config, Disk, NewClaim, PutError, PutHeadError, PutStart, Store};
use seedbank_formats::{DatasetId, FragmentId, Timestamp};
use std::sync::Arc;

fn open_with(disk: &MemDisk, config: Config) -> Store {
    Store::open(Arc::new(disk.clone()), config).unwrap()
}

#[test]
fn quotas_hold_for_stored_and_arriving_fragments() {
    let mut config = config();
    config.quotas.others_bytes = 0;
    config.quotas.clients.insert(client(1), 20_000);
    let store = open_with(&created(), config);
    assert!(matches!(put(&store, 2, &bytes(1, 10)), Err(PutError::OverQuota { quota_bytes: 0, .. })));
    put(&store, 1, &bytes(1, 10_000)).unwrap();
    let start = |seed| store.begin_put(FragmentId::of(&bytes(seed, 6000)), 6000, claim(1), NOW);
    let arriving = start(2).unwrap();
    let refused = start(3).unwrap_err();
    assert_eq!(refused, PutError::OverQuota { quota_bytes: 20_000, charged_bytes: 16_000 });
    drop(arriving);
    assert!(start(3).is_ok());
    assert_eq!(store.client_usage(&client(1)).charged_bytes, 10_000);
    // Small fragments count as 4 KiB: a quota bounds the index too.
    put(&store, 1, &bytes(4, 10)).unwrap();
    assert_eq!(store.client_usage(&client(1)).charged_bytes, 14_096);
    store.release(&client(1), &[FragmentId::of(&bytes(4, 10))], LAST, NOW).unwrap();
    assert_eq!(store.client_usage(&client(1)).charged_bytes, 10_000);
}

#[test]
fn first_claim_is_pending_and_a_renewal_confirms_it() {
    let config = Config { pending_s_max: 100, ..config() };
    let store = open_with(&created(), config);
    let stored = put(&store, 1, &bytes(1, 100)).unwrap();
    assert_eq!(stored.until, NOW.plus_seconds(100));
    let confirmed = NOW.plus_seconds(5000);
    store.renew(&client(1), &[(stored.id, confirmed)], LAST).unwrap();
    // Putting it again never shortens what was confirmed.
    assert_eq!(put(&store, 1, &bytes(1, 100)).unwrap().until, confirmed);
    let brief = NewClaim { until: Timestamp(NOW.0 + 5), ..claim(2) };
    assert_eq!(put_as(&store, brief, &bytes(1, 100), NOW).unwrap().until, brief.until);
    assert_eq!(store.expire(NOW.plus_seconds(6)).unwrap(), 1);
    assert_eq!(store.access(&stored.id, NOW).unwrap().len(), 1);
}

#[test]
fn claim_that_came_after_a_walk_and_ends_before_all_others_expires_in_time() {
    let store = open(&created());
    let until = |seconds, tag| NewClaim { until: NOW.plus_seconds(seconds), ..claim(tag) };
    put_as(&store, until(100, 1), &bytes(1, 100), NOW).unwrap();
    // Walks, and knows then that nothing ends before 100.
    assert_eq!(store.expire(NOW.plus_seconds(1)).unwrap(), 0);
    put_as(&store, until(10, 2), &bytes(1, 100), NOW).unwrap();
    assert_eq!(store.expire(NOW.plus_seconds(10)).unwrap(), 0);
    assert_eq!(store.expire(NOW.plus_seconds(11)).unwrap(), 1);
    assert_eq!(store.expire(NOW.plus_seconds(100)).unwrap(), 0);
    assert_eq!(store.expire(NOW.plus_seconds(101)).unwrap(), 1);
    assert!(store.fragment(&FragmentId::of(&bytes(1, 100))).is_none());
}

/// Fills the store and says what it took.
fn fill(store: &Store, length: usize) -> Vec<FragmentId> {
    let mut ids = Vec::new();
    for seed in 1000.. {
        match put(store, 1, &bytes(seed, length)) {
            Ok(stored) => ids.push(stored.id),
            Err(error) => {
                assert_eq!(error, PutError::Full);
                break;
            }
        }
    }
    ids
}

fn full_store_takes_again_after_a_release(store: &Store, length: usize) {
    let ids = fill(store, length);
    assert!(ids.len() > 4);
    ids.iter().for_each(|id| assert!(store.read(id, 0..length as u64).is_ok()));
    assert_eq!(put(store, 1, &bytes(1, length)), Err(PutError::Full));
    store.probe().unwrap();
    // The grace time is far from over, but space is short.
    let released = [ids[1], ids[3], ids[4]];
    store.release(&client(1), &released, LAST, NOW).unwrap();
    let collected = store.collect(NOW, 1 << 30).unwrap();
    assert!(collected.fragments > 0);
    put(store, 1, &bytes(1, length)).unwrap();
    let kept = ids.iter().filter(|id| !released.contains(id));
    kept.for_each(|id| assert!(store.read(id, 0..length as u64).is_ok()));
}

#[test]
fn full_disk_refuses_by_name_and_takes_again_after_a_release() {
    for length in [3000, 20_000] {
        let disk = MemDisk::new(MemDiskOptions { capacity_bytes: 500_000, ..MemDiskOptions::default() });
        Store::create(&disk, STORE).unwrap();
        let store = open_with(&disk, Config { reserve_bytes: 150_000, ..config() });
        full_store_takes_again_after_a_release(&store, length);
        assert!(disk.free_space().unwrap() > 50_000, "the reserve is nearly whole");
    }
}

#[test]
fn full_store_refuses_by_name_and_takes_again_after_a_release() {
    for length in [3000, 20_000] {
        let store = open_with(&created(), Config { capacity_bytes: 300_000, ..config() });
        full_store_takes_again_after_a_release(&store, length);
    }
}

#[test]
fn disk_that_others_filled_takes_releases_and_recovers() {
    let disk = MemDisk::new(MemDiskOptions { capacity_bytes: 500_000, ..MemDiskOptions::default() });
    Store::create(&disk, STORE).unwrap();
    let store = open_with(&disk, Config { reserve_bytes: 40_000, ..config() });
    let data = bytes(1, 20_000);
    let id = put(&store, 1, &data).unwrap().id;
    let PutStart::Receive(mut arriving) =
        store.begin_put(FragmentId::of(&bytes(2, 300)), 300, claim(1), NOW).unwrap()
    else {
        panic!("not here yet");
    };
    let foreign = disk.create("foreign").unwrap();
    foreign.write_at(0, &vec![1; usize::try_from(disk.free_space().unwrap()).unwrap()]).unwrap();

    assert_eq!(put(&store, 1, &bytes(3, 100)), Err(PutError::Full));
    arriving.write(&bytes(2, 300)).unwrap();
    assert_eq!(arriving.finish(NOW), Err(PutError::Full));
    assert_eq!(store.read(&id, 0..20_000).unwrap(), data);
    // The ballast makes room for the journal.
    store.release(&client(1), &[id], LAST, NOW).unwrap();
    assert_eq!(put(&store, 1, &bytes(3, 100)), Err(PutError::Full));

    disk.remove("foreign").unwrap();
    store.collect(NOW, 1 << 20).unwrap();
    put(&store, 1, &bytes(3, 100)).unwrap();
    assert_eq!(open(&killed(&disk)).usage().unwrap().fragments, 1);
}

#[test]
fn changes_refused_by_a_full_disk_are_kept_in_order_and_written_later() {
    let disk = MemDisk::new(MemDiskOptions { capacity_bytes: 200_000, ..MemDiskOptions::default() });
    Store::create(&disk, STORE).unwrap();
    let store = open(&disk);
    let ids = (0..3).map(|seed| put(&store, 1, &bytes(seed, 500)).unwrap().id).collect::<Vec<_>>();
    let foreign = disk.create("foreign").unwrap();
    foreign.write_at(0, &vec![1; usize::try_from(disk.free_space().unwrap()).unwrap()]).unwrap();
    assert!(store.release(&client(1), &ids[..1], LAST, NOW).is_err());
    assert!(store.release(&client(1), &ids[1..2], LAST, NOW).is_err());
    disk.remove("foreign").unwrap();
    store.release(&client(1), &ids[2..], LAST, NOW).unwrap();
    drop(store);
    let store = open(&killed(&disk));
    assert_eq!(store.usage().unwrap().trash_fragments, 3);
}

#[test]
fn heads_are_bounded_together() {
    let store = open_with(&created(), Config { heads_bytes_max: 1000, ..config() });
    store.put_head(&DatasetId([1; 32]), 1, &[1; 600]).unwrap();
    assert_eq!(store.put_head(&DatasetId([2; 32]), 1, &[2; 600]), Err(PutHeadError::Full));
    store.put_head(&DatasetId([1; 32]), 2, &[3; 900]).unwrap();
}

#[test]
fn volumes_below_half_are_rewritten_within_the_budget() {
    let disk = created();
    let store = open(&disk);
    let ids = (0..80).map(|seed| put(&store, 1, &bytes(seed, 3000)).unwrap().id).collect::<Vec<_>>();
    store.put_head(&DatasetId([1; 32]), 1, b"a head").unwrap();
    let volumes = store.usage().unwrap().volumes;
    let released = ids.iter().enumerate().filter(|(index, _)| index % 3 != 0).map(|(_, id)| *id);
    store.release(&client(1), &released.collect::<Vec<_>>(), LAST, NOW).unwrap();
    let over = NOW.plus_seconds(super::GRACE_S);
    let mut rounds = 0;
    while store.collect(over, 10_000).unwrap().more {
        rounds += 1;
    }
    assert!(rounds > 2, "the budget is small");
    assert!(store.usage().unwrap().volumes < volumes);
    drop(store);
    let store = open(&killed(&disk));
    for (seed, id) in ids.iter().enumerate().filter(|(index, _)| index % 3 == 0) {
        assert_eq!(store.read(id, 0..3000).unwrap(), bytes(seed as u64, 3000));
    }
    assert_eq!(store.head(&DatasetId([1; 32])).unwrap().unwrap().bytes, b"a head");
}

#[test]
fn the_journal_stays_small_while_claims_come_and_go() {
    let disk = created();
    let store = open(&disk);
    for round in 0..200 {
        let stored = put_as(&store, claim(1), &bytes(1, 100), NOW).unwrap();
        store.release(&client(1), &[stored.id], LAST, NOW.plus_seconds(round)).unwrap();
    }
    assert!(store.usage().unwrap().journal_bytes < 6000, "{:?}", store.usage());
}

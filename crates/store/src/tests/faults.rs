//! Disks that fail, lie or rot.

use super::{LAST, NOW, bytes, created, killed, open, put, try_open};
use crate::testing::{Effect, Fault, MemDisk, Operation};
use crate::{
    Disk, HeadError, Health, Mode, OpenError, ProbeError, PutError, ReadError, Renewal, ScrubCursor,
    SliceAnswer, Store,
};
use seedbank_formats::{DatasetId, FragmentId};

const EIO: i32 = 5;

fn fault(operation: Operation, path: &str, errno: i32) -> Fault {
    Fault { operation, path: path.to_owned(), skip: 0, times: 1, effect: Effect::Fails(errno) }
}

#[test]
fn failed_sync_is_never_repeated_or_acknowledged() {
    for (path, operation, length) in [
        ("journal", Operation::Sync, 500),
        ("volumes", Operation::Sync, 500),
        ("volumes", Operation::SyncDir, 500),
        ("loose", Operation::Sync, 9000),
        ("loose", Operation::SyncDir, 9000),
    ] {
        let disk = created();
        let store = open(&disk);
        let (kept, lost) = (bytes(1, 20_000), bytes(2, length));
        put(&store, 1, &kept).unwrap();
        disk.inject(fault(operation, path, EIO));
        assert!(matches!(put(&store, 1, &lost), Err(PutError::ReadOnly { .. })), "{path}");
        let Mode::ReadOnly { .. } = store.mode() else { panic!("{path}: still writes") };
        let syncs = disk.counters();
        assert!(matches!(put(&store, 1, &bytes(3, length)), Err(PutError::ReadOnly { .. })));
        assert!(store.release(&super::client(1), &[FragmentId::of(&kept)], LAST, NOW).is_err());
        assert_eq!(disk.counters().get(&operation), syncs.get(&operation), "{path} is synced again");
        assert_eq!(store.read(&FragmentId::of(&kept), 0..20_000).unwrap(), kept);
        // The disk lost what it failed to sync.
        let next = disk.crash(&mut crate::testing::lost);
        drop(store);
        let store = open(&next);
        assert_eq!(store.read(&FragmentId::of(&kept), 0..20_000).unwrap(), kept);
        assert!(matches!(store.read(&FragmentId::of(&lost), 0..1), Err(ReadError::Absent(_))));
        put(&store, 1, &lost).unwrap();
    }
}

#[test]
fn every_flipped_bit_of_a_record_is_found_by_scrub_and_by_slice() {
    // A packed fragment of one group, and a loose one of three with an outboard.
    for length in [2000, 40_000] {
        let data = bytes(1, length);
        let id = FragmentId::of(&data);
        let prepared = || {
            let disk = created();
            put(&open(&disk), 1, &data).unwrap();
            let disk = killed(&disk);
            let path = disk.files().into_iter().find(|path| path.contains('/')).unwrap();
            (open(&disk), disk, path)
        };
        let whole = prepared().1.bytes(&prepared().2).len();
        let (data_start, data_end) = (80, 80 + length);
        for at in [0, 40, 79, data_start, length / 2, data_end - 1, data_end, whole - 1] {
            if at >= whole {
                continue;
            }
            let in_data = (data_start..data_end).contains(&at);

            let (store, disk, path) = prepared();
            disk.flip_bit(&path, at, 5);
            let report = store.scrub_step(&mut ScrubCursor::default(), u64::MAX);
            assert!(report.finished);
            assert_eq!(report.rotten, if in_data { vec![id] } else { vec![] }, "byte {at}");
            assert_eq!(report.repaired, u64::from(!in_data), "byte {at}");

            let (store, disk, path) = prepared();
            disk.flip_bit(&path, at, 5);
            let answer = store.slice(&id, 0..length as u64).unwrap();
            assert_eq!(answer == SliceAnswer::Rotten, in_data, "byte {at}");
            if in_data {
                rotten_is_told_and_healed(&store, &disk, &data);
            }
        }
    }
}

fn rotten_is_told_and_healed(store: &Store, disk: &MemDisk, data: &[u8]) {
    let id = FragmentId::of(data);
    assert!(matches!(store.read(&id, 0..1), Err(ReadError::Rotten(_))));
    assert_eq!(store.claims(&super::client(1), None, 9).claims[0].health, Health::Rotten);
    assert_eq!(store.renew(&super::client(1), &[(id, super::FOREVER)], LAST).unwrap(), [Renewal::Rotten]);
    assert_eq!(store.usage().unwrap().rotten_fragments, 1);
    put(store, 1, data).unwrap();
    assert_eq!(store.read(&id, 0..data.len() as u64).unwrap(), data);
    assert_eq!(store.usage().unwrap().rotten_fragments, 0);
    let reopened = open(&killed(disk));
    assert_eq!(reopened.read(&id, 0..data.len() as u64).unwrap(), data);
}

#[test]
fn rot_is_remembered_across_openings() {
    let disk = created();
    let data = bytes(1, 40_000);
    let store = open(&disk);
    put(&store, 1, &data).unwrap();
    let path = disk.files().into_iter().find(|path| path.starts_with("loose")).unwrap();
    disk.flip_bit(&path, 20_000, 0);
    store.scrub_step(&mut ScrubCursor::default(), u64::MAX);
    drop(store);
    let store = open(&killed(&disk));
    let id = FragmentId::of(&data);
    assert!(matches!(store.read(&id, 0..1), Err(ReadError::Rotten(_))));
    // Groups that are still right can be had with proof.
    assert!(matches!(store.slice(&id, 39_000..40_000).unwrap(), SliceAnswer::Proven(_)));
    assert_eq!(store.slice(&id, 19_000..21_000).unwrap(), SliceAnswer::Rotten);
}

#[test]
fn missing_files_are_noticed_at_opening() {
    let disk = created();
    let (small, large) = (bytes(1, 2000), bytes(2, 9000));
    let store = open(&disk);
    put(&store, 1, &small).unwrap();
    put(&store, 1, &large).unwrap();
    drop(store);
    let disk = killed(&disk);
    for path in disk.files().iter().filter(|path| path.contains('/')) {
        disk.remove(path).unwrap();
    }
    let store = open(&disk);
    for data in [&small, &large] {
        assert!(matches!(store.read(&FragmentId::of(data), 0..1), Err(ReadError::Rotten(_))));
        assert_eq!(store.slice(&FragmentId::of(data), 0..1).unwrap(), SliceAnswer::Rotten);
        put(&store, 1, data).unwrap();
    }
    assert_eq!(store.usage().unwrap().rotten_fragments, 0);
}

#[test]
fn unreadable_sectors_make_a_fragment_rotten_until_they_read_again() {
    let disk = created();
    let data = bytes(1, 2000);
    let store = open(&disk);
    put(&store, 1, &data).unwrap();
    disk.inject(Fault { times: 2, ..fault(Operation::Read, "volumes", EIO) });
    assert_eq!(store.slice(&FragmentId::of(&data), 0..9).unwrap(), SliceAnswer::Rotten);
    let report = store.scrub_step(&mut ScrubCursor::default(), u64::MAX);
    assert_eq!(report.rotten, []);
    assert_eq!(store.fragment(&FragmentId::of(&data)).unwrap().health, Health::Sound);
}

#[test]
fn rotten_head_is_told_and_healed_but_not_replaced_by_an_older_one() {
    let disk = created();
    let dataset = DatasetId([7; 32]);
    let store = open(&disk);
    store.put_head(&dataset, 5, b"the head").unwrap();
    disk.flip_bit("volumes/00000001", 82, 0);
    assert!(matches!(store.head(&dataset), Err(HeadError::Rotten { sequence: 5 })));
    assert_eq!(store.scrub_step(&mut ScrubCursor::default(), u64::MAX).rotten_heads, [dataset]);
    assert!(store.put_head(&dataset, 4, b"an old head").is_err());
    store.put_head(&dataset, 5, b"the head").unwrap();
    assert_eq!(store.head(&dataset).unwrap().unwrap().bytes, b"the head");
}

#[test]
fn rot_in_the_journal_stops_the_opening() {
    let disk = created();
    let store = open(&disk);
    for seed in 0..3 {
        put(&store, 1, &bytes(seed, 100)).unwrap();
    }
    drop(store);
    let disk = killed(&disk);
    disk.flip_bit("journal", 77 + 60, 1);
    assert!(matches!(try_open(&disk), Err(OpenError::Journal(_))));
    assert!(disk.files().iter().any(|path| path.starts_with("volumes")), "nothing was removed");
}

#[test]
fn probe_tells_a_missing_marker_and_a_failing_disk() {
    let disk = created();
    let store = open(&disk);
    store.probe().unwrap();
    store.probe().unwrap();
    disk.inject(fault(Operation::Sync, "probe", EIO));
    assert!(matches!(store.probe(), Err(ProbeError::Disk(_))));
    assert!(matches!(store.mode(), Mode::ReadOnly { .. }));
    drop(store);
    let store = open(&disk);
    disk.remove("marker").unwrap();
    assert!(matches!(store.probe(), Err(ProbeError::Marker)));
    assert!(matches!(store.mode(), Mode::ReadOnly { .. }));
}

#[test]
fn caller_may_stop_the_writing() {
    let store = open(&created());
    store.stop_writing("the probe hangs");
    assert_eq!(store.mode(), Mode::ReadOnly { reason: "the probe hangs".to_owned() });
    let refused = put(&store, 1, &bytes(1, 100));
    assert_eq!(refused, Err(PutError::ReadOnly { reason: "the probe hangs".to_owned() }));
}

//! The store's promises, on every disk alike.

use super::{FOREVER, GRACE_S, LAST, NOW, STORE, bytes, claim, client, config, put, put_as};
use crate::testing::MemDisk;
use crate::{
    Access, Config, CreateError, Disk, Grant, Health, NewClaim, OpenError, PutError, PutHeadError, PutStart,
    ReadError, RealDisk, Release, Renewal, SliceAnswer, Store, StoreId, StoredHead,
};
use seedbank_formats::{DatasetId, FragmentId, Timestamp, slice};
use std::sync::Arc;

fn suite(disk: &Arc<dyn Disk>) {
    Store::create(disk.as_ref(), STORE).unwrap();
    assert!(matches!(Store::create(disk.as_ref(), STORE), Err(CreateError::NotEmpty(_))));
    let (small, large) = (bytes(1, 3000), bytes(2, 100_000));
    let (small_id, large_id) = (FragmentId::of(&small), FragmentId::of(&large));
    let dataset = DatasetId([7; 32]);
    {
        let store = Store::open(disk.clone(), config()).unwrap();
        takes_and_gives(&store, &small, &large);
        keeps_claims(&store, small_id, large_id);
        keeps_heads(&store, dataset);
        store.probe().unwrap();
    }
    let store = Store::open(disk.clone(), config()).unwrap();
    assert_eq!(store.read(&small_id, 0..3000).unwrap(), small);
    assert_eq!(store.read(&large_id, 0..100_000).unwrap(), large);
    assert_eq!(store.claims(&client(1), None, 10).claims.len(), 1);
    assert_eq!(store.head(&dataset).unwrap().unwrap().bytes, b"second");
    forgets(&store, small_id, large_id);
}

fn takes_and_gives(store: &Store, small: &[u8], large: &[u8]) {
    for data in [small, large] {
        let id = FragmentId::of(data);
        let length = data.len() as u64;
        assert!(matches!(store.read(&id, 0..1), Err(ReadError::Absent(_))));
        let stored = put(store, 1, data).unwrap();
        assert_eq!((stored.id, stored.length, stored.until), (id, length, FOREVER));
        assert_eq!(store.read(&id, 7..2000).unwrap(), data[7..2000]);
        assert!(matches!(store.read(&id, 7..length + 1), Err(ReadError::OutOfRange { .. })));
        assert!(matches!(
            store.read_into(&id, u64::MAX, &mut [0; 2]),
            Err(ReadError::OutOfRange { length: told }) if told == length
        ));
        let SliceAnswer::Proven(proof) = store.slice(&id, 100..2500).unwrap() else {
            panic!("fresh bytes are right");
        };
        assert_eq!(slice::verify(&id, length, &(100..2500), &proof).unwrap(), data[100..2500]);
        assert_eq!(store.fragment(&id).unwrap().health, Health::Sound);
    }
    assert!(matches!(store.slice(&FragmentId([9; 32]), 0..1), Err(ReadError::Absent(_))));
}

fn keeps_claims(store: &Store, small: FragmentId, large: FragmentId) {
    // A client that has no claim must send the bytes, one that has need not.
    let reader = NewClaim { access: Access::Reader(client(9)), ..claim(2) };
    let start = store.begin_put(large, 100_000, reader, NOW).unwrap();
    assert!(matches!(start, PutStart::Receive(_)));
    drop(start);
    put_as(store, reader, &bytes(2, 100_000), NOW).unwrap();
    assert!(matches!(store.begin_put(large, 100_000, reader, NOW), Ok(PutStart::Held(_))));
    let grants = [
        Grant { client: client(1), access: Access::Owner },
        Grant { client: client(2), access: Access::Reader(client(9)) },
    ];
    assert_eq!(store.access(&large, NOW).unwrap(), grants);

    let later = FOREVER.plus_seconds(5);
    let renewed = store.renew(&client(1), &[(large, later), (FragmentId([9; 32]), later)], LAST).unwrap();
    assert_eq!(renewed, [Renewal::Renewed { length: 100_000, until: later }, Renewal::Absent]);
    let shorter = store.renew(&client(1), &[(large, NOW)], LAST).unwrap();
    assert_eq!(shorter, [Renewal::Renewed { length: 100_000, until: later }]);

    let first = store.claims(&client(1), None, 1);
    let second = store.claims(&client(1), first.next, 1);
    let mut listed = [first.claims[0].fragment, second.claims[0].fragment];
    listed.sort_unstable();
    let mut expected = [small, large];
    expected.sort_unstable();
    assert_eq!(listed, expected);

    assert_eq!(
        store.release(&client(1), &[large, large], LAST, NOW).unwrap(),
        [Release::Released, Release::Absent]
    );
    assert!(store.read(&large, 0..1).is_ok(), "the other client's claim holds it");
    assert_eq!(store.client_usage(&client(1)).claims, 1);
}

fn keeps_heads(store: &Store, dataset: DatasetId) {
    assert_eq!(store.head(&dataset).unwrap(), None);
    store.put_head(&dataset, 1, b"first").unwrap();
    store.put_head(&dataset, 2, b"second").unwrap();
    store.put_head(&dataset, 2, b"second").unwrap();
    let newest = StoredHead { sequence: 2, bytes: b"second".to_vec() };
    for (sequence, bytes) in [(1, b"first!"), (2, b"other!")] {
        let refused = store.put_head(&dataset, sequence, bytes);
        assert_eq!(refused, Err(PutHeadError::Stale { newest: newest.clone() }));
    }
    assert_eq!(store.head(&dataset).unwrap(), Some(newest));
    assert_eq!(store.put_head(&dataset, 3, b""), Err(PutHeadError::Length(0)));
    assert!(matches!(store.put_head(&dataset, 3, &vec![0; 256 * 1024 + 1]), Err(PutHeadError::Length(_))));
}

fn forgets(store: &Store, small: FragmentId, large: FragmentId) {
    assert_eq!(store.expire(FOREVER).unwrap(), 0);
    let over = FOREVER.plus_seconds(1);
    assert_eq!(store.expire(over).unwrap(), 2);
    assert!(matches!(store.read(&small, 0..1), Err(ReadError::Absent(_))));
    let usage = store.usage().unwrap();
    assert_eq!((usage.fragments, usage.trash_fragments, usage.clients), (0, 2, 0));

    let early = store.collect(over, 1 << 20).unwrap();
    assert_eq!(early.fragments, 0, "the grace time is not over");
    // What lies in trash is held again by whoever sends it.
    put_as(store, NewClaim { until: Timestamp(u64::MAX), ..claim(1) }, &bytes(2, 100_000), over).unwrap();
    let late = store.collect(over.plus_seconds(GRACE_S), 1 << 20).unwrap();
    assert_eq!(late.fragments, 1);
    assert_eq!(store.read(&large, 0..100_000).unwrap(), bytes(2, 100_000));
    assert_eq!(store.usage().unwrap().trash_fragments, 0);
}

#[test]
fn memory() {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::default());
    suite(&disk);
}

#[test]
fn operating_system() {
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::lock(folder.path()).unwrap());
    suite(&disk);
}

#[test]
fn wrong_bytes_are_refused_and_leave_nothing() {
    let disk = super::created();
    let store = super::open(&disk);
    let before = disk.files();
    for length in [2000, 50_000] {
        let (right, mut wrong) = (bytes(1, length), bytes(1, length));
        wrong[length / 2] ^= 1;
        let announce = |store: &Store| {
            let id = FragmentId::of(&right);
            let start = store.begin_put(id, right.len() as u64, claim(1), NOW).unwrap();
            let PutStart::Receive(put) = start else { panic!("not here yet") };
            put
        };
        let mut put = announce(&store);
        put.write(&wrong).unwrap();
        assert_eq!(put.finish(NOW), Err(PutError::WrongHash { actual: FragmentId::of(&wrong) }));
        let mut put = announce(&store);
        put.write(&right[1..]).unwrap();
        assert!(matches!(put.finish(NOW), Err(PutError::WrongLength { .. })));
        let mut put = announce(&store);
        put.write(&right).unwrap();
        assert!(matches!(put.write(b"!"), Err(PutError::WrongLength { .. })));
        drop(put);
        drop(announce(&store));
    }
    assert_eq!(disk.files(), before);
    let usage = store.usage().unwrap();
    assert_eq!((usage.fragments, usage.used_bytes, usage.reserved_bytes), (0, 0, 0));
    for length in [0, 64 * 1024 * 1024 + 1] {
        assert!(matches!(
            store.begin_put(FragmentId([1; 32]), length, claim(1), NOW),
            Err(PutError::Length(_))
        ));
    }
}

#[test]
fn folder_that_is_not_this_store_is_refused_by_name() {
    let open = |disk: &MemDisk, config: Config| Store::open(Arc::new(disk.clone()), config);
    assert!(matches!(open(&MemDisk::default(), config()), Err(OpenError::NoMarker)));
    let disk = super::created();
    let other = Config { store: StoreId([6; 32]), ..config() };
    assert!(matches!(open(&disk, other), Err(OpenError::WrongStore(found)) if found == STORE));
    let broken = Config { volume_bytes: 1 << 31, ..config() };
    assert!(matches!(open(&disk, broken), Err(OpenError::Setting(_))));
    disk.flip_bit("marker", 20, 0);
    assert!(matches!(open(&disk, config()), Err(OpenError::Marker(_))));
    let disk = super::created();
    disk.remove("journal").unwrap();
    assert!(matches!(open(&disk, config()), Err(OpenError::Journal(_))));
}

//! Late and repeated requests about claims, and what a claim is worth whose bytes rotted unnoticed.

use super::{FOREVER, NOW, bytes, claim, client, created, killed, open, put, put_as};
use crate::testing::MemDisk;
use crate::{NewClaim, PutStart, Release, ScrubCursor, Store};
use seedbank_formats::{Asked, FragmentId};

fn put_at(store: &Store, asked: u64, data: &[u8]) {
    put_as(store, NewClaim { asked: Asked(asked), ..claim(1) }, data, NOW).unwrap();
}

fn release_at(store: &Store, asked: u64, id: FragmentId) -> Release {
    store.release(&client(1), &[id], Asked(asked), NOW).unwrap()[0]
}

#[test]
fn release_that_comes_late_keeps_what_was_put_again_since() {
    let disk = created();
    let data = bytes(1, 3000);
    let id = FragmentId::of(&data);
    let store = open(&disk);
    put_at(&store, 10, &data);
    assert_eq!(release_at(&store, 20, id), Release::Released);
    put_at(&store, 30, &data);
    assert_eq!(release_at(&store, 20, id), Release::Kept, "it comes twice");
    drop(store);
    let store = open(&killed(&disk));
    assert_eq!(release_at(&store, 20, id), Release::Kept, "and once more after a crash");
    assert_eq!(store.read(&id, 0..3000).unwrap(), data);
    assert_eq!(release_at(&store, 40, id), Release::Released);
    assert_eq!(release_at(&store, 20, id), Release::Absent);
}

#[test]
fn release_that_comes_late_keeps_what_was_put_or_renewed_once_more() {
    let store = open(&created());
    let (first, second) = (bytes(1, 3000), bytes(2, 3000));
    let ids = [FragmentId::of(&first), FragmentId::of(&second)];
    for data in [&first, &second] {
        put_at(&store, 10, data);
    }
    // Neither asks for more time than there is.
    put_at(&store, 30, &first);
    store.renew(&client(1), &[(ids[1], NOW)], Asked(30)).unwrap();
    // What was asked for before that comes late as well, and takes nothing back.
    put_at(&store, 15, &first);
    store.renew(&client(1), &[(ids[1], FOREVER)], Asked(15)).unwrap();
    for id in ids {
        assert_eq!(release_at(&store, 20, id), Release::Kept);
        assert_eq!(release_at(&store, 30, id), Release::Released);
    }
}

#[test]
fn claims_of_different_clients_are_not_compared() {
    let store = open(&created());
    let data = bytes(1, 3000);
    put_at(&store, 10, &data);
    put_as(&store, NewClaim { asked: Asked(500), ..claim(2) }, &data, NOW).unwrap();
    assert_eq!(release_at(&store, 20, FragmentId::of(&data)), Release::Released);
}

/// A record in a volume, and one in a file of its own, each with a bit of its data flipped that nobody noticed yet.
fn rotted_unnoticed(length: usize) -> (MemDisk, Store, Vec<u8>) {
    let disk = created();
    let store = open(&disk);
    let data = bytes(1, length);
    put(&store, 1, &data).unwrap();
    let path = disk.files().into_iter().find(|path| path.contains('/')).unwrap();
    disk.flip_bit(&path, 80 + length / 2, 3);
    (disk, store, data)
}

#[test]
fn what_is_signed_for_is_there_although_it_had_rotted_unnoticed() {
    for length in [2000, 9000] {
        for (who, put_by, in_trash) in
            [("its owner", 1, true), ("another", 2, true), ("another", 2, false), ("its owner", 1, false)]
        {
            let what = format!("{length} bytes, put again by {who}, in trash: {in_trash}");
            let (disk, store, data) = rotted_unnoticed(length);
            let id = FragmentId::of(&data);
            if in_trash {
                release_at(&store, 5, id);
            }
            let files = disk.files().len();
            put(&store, put_by, &data).unwrap();
            assert!(store.read(&id, 0..length as u64).unwrap() == data, "{what}");
            assert_eq!(store.usage().unwrap().rotten_fragments, 0, "{what}");
            assert_eq!(disk.files().len(), files, "what it replaced is gone: {what}");
            drop(store);
            let store = open(&killed(&disk));
            assert!(store.read(&id, 0..length as u64).unwrap() == data, "{what}");
            let report = store.scrub_step(&mut ScrubCursor::default(), u64::MAX);
            assert!(report.rotten.is_empty() && report.repaired == 0, "{what}: {report:?}");
        }
    }
}

#[test]
fn claim_on_right_bytes_is_extended_without_sending_them() {
    let store = open(&created());
    for length in [2000u32, 9000] {
        let data = bytes(u64::from(length), length as usize);
        put(&store, 1, &data).unwrap();
        let start = store.begin_put(FragmentId::of(&data), u64::from(length), claim(1), NOW).unwrap();
        assert!(matches!(start, PutStart::Held(_)), "{length}");
    }
}

#[test]
fn first_of_two_puts_at_once_stays_and_the_other_is_not_written() {
    for length in [2000, 9000] {
        let disk = created();
        let store = open(&disk);
        let data = bytes(1, length);
        let id = FragmentId::of(&data);
        let begin = |tag| {
            let PutStart::Receive(mut put) = store.begin_put(id, length as u64, claim(tag), NOW).unwrap()
            else {
                panic!("nobody has it");
            };
            put.write(&data).unwrap();
            put
        };
        let (first, second) = (begin(1), begin(2));
        first.finish(NOW).unwrap();
        let stored = store.usage().unwrap();
        second.finish(NOW).unwrap();
        let after = store.usage().unwrap();
        assert_eq!((after.fragments, after.used_bytes), (1, stored.used_bytes - stored.reserved_bytes));
        assert_eq!(disk.files().iter().filter(|path| path.contains('/')).count(), 1);
        assert!(store.read(&id, 0..length as u64).unwrap() == data);
    }
}

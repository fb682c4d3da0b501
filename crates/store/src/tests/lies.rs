//! Disks that say they did what they did not: writes that are lost, torn or end up elsewhere, syncs that sync nothing.
//!
//! What such a disk acknowledged may be gone. What must hold: nothing wrong is ever given out as proven, and a store that
//! opens says of each fragment and head that it is here, rotten or absent, and is right.

use super::{LAST, NOW, bytes, client, created, killed, open, put, try_open};
use crate::testing::{Effect, Fault, MemDisk, Operation, kept, lost};
use crate::{HeadError, Health, OpenError, ReadError, ScrubCursor, SliceAnswer, Store};
use seedbank_formats::{DatasetId, FragmentId, slice};

const DATASET: DatasetId = DatasetId([7; 32]);

fn contents() -> Vec<Vec<u8>> {
    [500, 3000, 9000, 700, 6000, 2000]
        .into_iter()
        .zip(1..)
        .map(|(length, seed)| bytes(seed, length))
        .collect()
}

/// Some of it after the fault, so that what follows a lie is seen too.
fn history(store: &Store) {
    for (number, content) in contents().iter().enumerate() {
        // A store that notices by itself refuses, which is as good.
        let _noticed = put(store, 1, content);
        let sequence = number as u64 + 1;
        let _noticed = store.put_head(&DATASET, sequence, &bytes(100 + sequence, 300));
    }
    let _noticed = store.release(&client(1), &[FragmentId::of(&contents()[0])], LAST, NOW);
}

/// Nothing wrong is given out, before and after a scrub; gives how many fragments are said to be rotten.
fn is_honest(store: &Store, what: &str) -> usize {
    let proven = |id: &FragmentId, content: &[u8]| match store.slice(id, 0..content.len() as u64) {
        Ok(SliceAnswer::Proven(proof)) => {
            slice::verify(id, content.len() as u64, &(0..content.len() as u64), &proof).unwrap();
            true
        }
        Ok(SliceAnswer::Rotten) => false,
        Err(ReadError::Absent(_)) => false,
        Err(error) => panic!("{what}: {error:?}"),
    };
    for content in contents() {
        proven(&FragmentId::of(&content), &content);
    }
    let report = store.scrub_step(&mut ScrubCursor::default(), u64::MAX);
    assert!(report.finished && report.skipped == 0, "{what}: {report:?}");
    let claims = store.claims(&client(1), None, 100).claims;
    for content in contents() {
        let id = FragmentId::of(&content);
        let Some(claim) = claims.iter().find(|claim| claim.fragment == id) else { continue };
        let right = proven(&id, &content);
        assert_eq!(claim.health == Health::Sound, right, "{what}: {id} is not as it is said to be");
        if right {
            assert_eq!(store.read(&id, 0..content.len() as u64).unwrap(), content, "{what}");
        } else {
            assert!(report.rotten.contains(&id), "{what}: the scrub missed {id}");
        }
    }
    match store.head(&DATASET) {
        Ok(None) => {}
        Ok(Some(head)) => assert_eq!(head.bytes, bytes(100 + head.sequence, 300), "{what}"),
        Err(HeadError::Rotten { .. }) => assert_eq!(report.rotten_heads, [DATASET], "{what}"),
        Err(error) => panic!("{what}: {error:?}"),
    }
    report.rotten.len() + report.rotten_heads.len()
}

/// Lets one call in turn go wrong in a history; gives how often damage was seen: while running, and at the next boot.
fn every_call(operation: Operation, path: &str, effect: Effect) -> (usize, usize) {
    let (mut seen_at_once, mut seen_at_boot) = (0, 0);
    for skip in 0..16 {
        let what = format!("{effect:?} in {operation:?} {skip} of {path}");
        let disk = created();
        let run = |disk: &MemDisk| {
            let store = open(disk);
            disk.inject(Fault { operation, path: path.to_owned(), skip, times: 1, effect });
            history(&store);
            store
        };
        let store = run(&disk);
        // The running store knows its index, whatever became of the journal.
        seen_at_once += is_honest(&store, &what);
        for fate in [kept, lost] {
            let disk = created();
            let store = run(&disk);
            let next = disk.crash(&mut { fate });
            drop(store);
            match try_open(&next) {
                Ok(store) => seen_at_boot += is_honest(&store, &what),
                Err(OpenError::Journal(_)) => seen_at_boot += 1,
                Err(error) => panic!("{what}: {error:?}"),
            }
        }
    }
    (seen_at_once, seen_at_boot)
}

#[test]
fn nothing_wrong_is_served_when_a_write_is_lost_torn_or_goes_elsewhere() {
    let effects = [Effect::Ignored, Effect::Torn, Effect::Misdirected(512), Effect::Misdirected(-700)];
    for (path, at_once) in [("volumes", true), ("loose", true), ("journal", false)] {
        for effect in effects {
            let (seen_at_once, seen_at_boot) = every_call(Operation::Write, path, effect);
            assert_eq!(seen_at_once > 0, at_once, "{effect:?} of {path}");
            assert!(seen_at_boot > 0, "{effect:?} of {path}");
        }
    }
}

#[test]
fn nothing_wrong_is_served_after_a_sync_that_did_nothing() {
    for path in ["volumes", "loose", "journal"] {
        assert_eq!(
            every_call(Operation::Sync, path, Effect::Ignored).0,
            0,
            "the running process sees what it wrote"
        );
    }
    for path in ["volumes", "loose"] {
        assert_eq!(every_call(Operation::SyncDir, path, Effect::Ignored).0, 0);
    }
}

#[test]
fn bytes_that_read_wrong_once_are_not_served_and_not_taken_for_rot() {
    let disk = created();
    let store = open(&disk);
    let content = bytes(1, 9000);
    put(&store, 1, &content).unwrap();
    let flipped = Fault {
        operation: Operation::Read,
        path: "loose".into(),
        skip: 0,
        times: 1,
        effect: Effect::Flipped,
    };
    disk.inject(flipped);
    let id = FragmentId::of(&content);
    assert!(matches!(store.slice(&id, 0..9000).unwrap(), SliceAnswer::Proven(_)));
    assert_eq!(store.fragment(&id).unwrap().health, Health::Sound);
}

/// The kernel gives back what it failed to write, until power fails: a restarted daemon must not believe it.
#[test]
fn what_a_failed_sync_dropped_is_not_believed_by_a_restarted_process() {
    let fails = |disk: &MemDisk, path: &str| {
        let effect = Effect::Fails(5);
        disk.inject(Fault { operation: Operation::Sync, path: path.to_owned(), skip: 0, times: 1, effect });
    };
    for path in ["journal", "volumes", "loose"] {
        let disk = created();
        let store = open(&disk);
        let content = bytes(1, if path == "loose" { 9000 } else { 500 });
        fails(&disk, path);
        put(&store, 1, &content).unwrap_err();
        let disk = disk.killed();
        drop(store);
        let store = open(&disk);
        // Whether it is still there or not: once acknowledged it stays.
        put(&store, 1, &content).unwrap();
        let next = disk.crash(&mut lost);
        drop(store);
        let id = FragmentId::of(&content);
        let store = open(&next);
        assert_eq!(store.read(&id, 0..content.len() as u64).unwrap(), content, "{path}");
        assert_eq!(store.claims(&client(1), None, 9).claims.len(), 1, "{path}");
        assert_eq!(is_honest(&store, path), 0);
    }
}

#[test]
fn half_a_write_and_a_full_disk_are_taken_back() {
    for path in ["volumes", "journal", "loose"] {
        let disk = created();
        let store = open(&disk);
        let (before, refused) = (bytes(1, 500), bytes(2, if path == "loose" { 9000 } else { 600 }));
        put(&store, 1, &before).unwrap();
        let effect = Effect::Half(28);
        disk.inject(Fault { operation: Operation::Write, path: path.to_owned(), skip: 0, times: 1, effect });
        let answer = put(&store, 1, &refused);
        disk.heal();
        // The journal has a reserve for this.
        assert_eq!(answer.is_ok(), path == "journal", "{path}: {answer:?}");
        put(&store, 1, &refused).unwrap();
        let disk = killed(&disk);
        drop(store);
        let store = open(&disk);
        for content in [&before, &refused] {
            assert_eq!(
                store.read(&FragmentId::of(content), 0..content.len() as u64).unwrap(),
                *content,
                "{path}"
            );
        }
    }
}

//! Long random histories under a seed, with power failing and processes dying on the way.

use super::leftovers;
use super::model::Model;
use crate::Store;
use crate::testing::{Dice, Fate, MemDisk, MemDiskOptions, Pending, Syncs, kept, lost};
use crate::tests::{STORE, bytes, claim, created, open, put_as, try_open};
use seedbank_formats::FragmentId;
use std::collections::BTreeSet;
use std::sync::Mutex;

/// What the disk does with unsynced changes.
fn fate(dice: &mut Dice) -> Box<dyn FnMut(&Pending) -> Fate> {
    let kind = dice.pick(4);
    let mut inner = Dice::new(dice.roll());
    Box::new(move |pending| match kind {
        0 => lost(pending),
        1 => kept(pending),
        _ => inner.fate(pending),
    })
}

/// Power fails, or the process alone dies and leaves what it wrote in the kernel's memory.
fn end(disk: &MemDisk, dice: &mut Dice) -> MemDisk {
    match dice.pick(3) {
        0 => disk.killed(),
        _ => disk.crash(&mut *fate(dice)),
    }
}

/// A history of operations under `seed` that ends badly three times.
fn history(seed: u64, options: MemDiskOptions) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let mut disk = MemDisk::new(options);
    Store::create(&disk, STORE).unwrap();
    // The question is what happens to fragments, not to a store that was never there.
    disk = disk.crash(&mut kept);
    let mut model = Model::new();
    for _ in 0..3 {
        while dice.pick(3) == 0 {
            // It ends while the store is being opened.
            disk.power_off_at(disk.steps() + dice.roll() % 12);
            let interrupted = try_open(&disk);
            let next = end(&disk, &mut dice);
            drop(interrupted);
            disk = next;
        }
        let store = try_open(&disk).map_err(|error| format!("{error:?}"))?;
        disk.power_off_at(disk.steps() + dice.roll() % 150);
        while model.step(&store, &mut dice).is_ok() {}
        let next = end(&disk, &mut dice);
        drop(store);
        disk = next;
        let store = try_open(&disk).map_err(|error| format!("{error:?}"))?;
        model.check(&store)?;
        leftovers(&store, &disk)?;
        // Killed again, or switched off, right after it was all seen to be there.
        let next = end(&disk, &mut dice);
        drop(store);
        disk = next;
    }
    let store = try_open(&disk).map_err(|error| format!("{error:?}"))?;
    model.check(&store)
}

fn violations(seeds: std::ops::Range<u64>, options: MemDiskOptions) -> BTreeSet<String> {
    seeds
        .filter_map(|seed| history(seed, options).err().map(|broken| format!("seed {seed}: {broken}")))
        .collect()
}

#[test]
fn acknowledged_changes_survive_random_crashes() {
    assert_eq!(violations(0..150, MemDiskOptions::default()), BTreeSet::new());
}

/// `SEEDBANK_SEED` is the first seed, `SEEDBANK_COUNT` their number.
#[test]
#[ignore = "minutes: as many random histories as one likes"]
fn acknowledged_changes_survive_many_random_crashes() {
    let given = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let clock = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let (first, count) = (given("SEEDBANK_SEED").unwrap_or(clock), given("SEEDBANK_COUNT").unwrap_or(20_000));
    println!("{count} histories from seed {first}");
    assert_eq!(violations(first..first + count, MemDiskOptions::default()), BTreeSet::new());
}

#[test]
fn without_any_of_the_file_syncs_random_histories_fail() {
    for path in ["", "journal", "volumes", "loose"] {
        let options = MemDiskOptions { file_syncs: Syncs::Ignored(path), ..MemDiskOptions::default() };
        assert!((0..60).any(|seed| history(seed, options).is_err()), "{path}");
    }
}

#[test]
fn without_any_of_the_folder_syncs_random_histories_fail() {
    for path in ["", "volumes", "loose"] {
        let options = MemDiskOptions { dir_syncs: Syncs::Ignored(path), ..MemDiskOptions::default() };
        assert!((0..60).any(|seed| history(seed, options).is_err()), "{path}");
    }
}

/// Groups that commit together depend on the machine's scheduling, so a failure here need not come back with its seed.
#[test]
fn acknowledged_changes_of_many_at_once_survive_a_crash() {
    for seed in 0..40 {
        let mut dice = Dice::new(seed);
        let start = created();
        let store = open(&start);
        start.power_off_at(start.steps() + 5 + dice.roll() % 120);
        let acknowledged = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for tag in 0..4_u8 {
                let (store, acknowledged) = (&store, &acknowledged);
                scope.spawn(move || {
                    for (number, length) in (0..30_u64).zip([300, 3000, 5000].into_iter().cycle()) {
                        // Half of them are the same for everybody.
                        let shared = if number % 2 == 0 { 0 } else { u64::from(tag) };
                        let data = bytes(number * 8 + shared, length);
                        if put_as(store, claim(tag), &data, super::NOW).is_err() {
                            return;
                        }
                        acknowledged.lock().unwrap().push((tag, data));
                    }
                });
            }
        });
        let next = start.crash(&mut *fate(&mut dice));
        drop(store);
        let store = open(&next);
        for (tag, data) in acknowledged.into_inner().unwrap() {
            let id = FragmentId::of(&data);
            assert_eq!(store.read(&id, 0..data.len() as u64).unwrap(), data, "seed {seed}");
            let held = store.claims(&claim(tag).client, None, 100).claims;
            assert!(held.iter().any(|info| info.fragment == id), "seed {seed}: a claim of {tag} is lost");
        }
        leftovers(&store, &next).unwrap();
    }
}

#[test]
fn killed_process_loses_nothing_acknowledged() {
    let mut disk = created();
    let mut model = Model::new();
    let mut dice = Dice::new(1);
    for _ in 0..5 {
        let store = open(&disk);
        for _ in 0..30 {
            model.step(&store, &mut dice).unwrap();
        }
        let next = disk.killed();
        drop(store);
        disk = next;
        model.check(&open(&disk)).unwrap();
    }
}

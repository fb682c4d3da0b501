//! Short histories, crashed at every call, with every disk that this may leave.

use super::model::{Model, content};
use super::{Checker, copy};
use crate::testing::{Dice, MemDisk, MemDiskOptions, Operation, Sweep, Syncs, each_crash, kept};
use crate::tests::{FOREVER, GRACE_S, NOW, STORE, bytes, config};
use crate::{Config, CreateError, Disk, OpenError, ScrubCursor, Store};
use seedbank_formats::FragmentId;
use std::sync::Arc;

/// Enough for every write of one operation, and few enough for a normal run.
const SWEEP: Sweep = Sweep { subsets_of_max: 6, samples: 6, tears_max: usize::MAX };
const NESTED_EVERY: usize = 40;

type History = fn(&Store, &mut Model) -> Result<(), ()>;

/// One that reaches every kind of change: both kinds of file, trash, compaction, a rewritten journal.
fn tour(store: &Store, model: &mut Model) -> Result<(), ()> {
    let id = |index| FragmentId::of(&content(index));
    let far = NOW.plus_seconds(1 << 20);
    for index in [0, 1, 2, 3] {
        model.put(store, 0, id(index), far)?;
    }
    model.put(store, 1, id(3), far)?;
    model.put_head(store)?;
    model.renew(store, 0, id(1), far.plus_seconds(5))?;
    for index in [1, 2, 3] {
        model.release(store, 0, id(index))?;
    }
    model.put_head(store)?;
    let grace_over = NOW.plus_seconds(2 * GRACE_S);
    store.collect(grace_over, 1 << 20).map_err(drop)?;
    for index in [5, 6] {
        model.put(store, 2, id(index), far)?;
    }
    model.release(store, 0, id(0))?;
    store.collect(grace_over, 1 << 20).map_err(drop)?;
    Ok(())
}

fn tour_config() -> Config {
    Config { volume_bytes: 4000, journal_slack_bytes: 300, ..config() }
}

/// A disk with a new store, all of it synced.
fn created(options: MemDiskOptions) -> MemDisk {
    let disk = MemDisk::new(options);
    Store::create(&disk, STORE).unwrap();
    disk.crash(&mut kept)
}

/// Runs `history` with power failing at each of its calls and after the last.
fn crash_everywhere(
    checker: &mut Checker,
    options: MemDiskOptions,
    history: History,
    sweep: Sweep,
) -> Result<(), String> {
    let start = created(options);
    for step in 0.. {
        let disk = copy(&start);
        let store = Store::open(Arc::new(disk.clone()), checker.config.clone()).unwrap();
        let stop_at = disk.steps() + step;
        disk.power_off_at(stop_at);
        let mut model = Model::new();
        let done = history(&store, &mut model);
        let checked = checker.check_all(&disk, &model, sweep, step);
        checked.map_err(|broken| format!("power off at call {step}: {broken}"))?;
        drop(store);
        if done.is_ok() && disk.steps() <= stop_at {
            return Ok(());
        }
    }
    unreachable!("a history ends")
}

#[test]
fn acknowledged_changes_survive_every_crash_of_a_short_history() {
    let mut checker = Checker::new(tour_config(), NESTED_EVERY);
    crash_everywhere(&mut checker, MemDiskOptions::default(), tour, SWEEP).unwrap();
    println!("{} disks, and {} after crashes of their recovery", checker.states, checker.nested_states);
    assert!(checker.states > 1000 && checker.nested_states > 300, "the history reaches what it should");
}

#[test]
#[ignore = "minutes: all subsets of up to 10 pending changes, and every recovery crashed again"]
fn acknowledged_changes_survive_every_crash_of_a_short_history_in_full() {
    let mut checker = Checker::new(tour_config(), 4);
    let sweep = Sweep { subsets_of_max: 10, samples: 200, tears_max: usize::MAX };
    crash_everywhere(&mut checker, MemDiskOptions::default(), tour, sweep).unwrap();
    println!("{} disks, and {} after crashes of their recovery", checker.states, checker.nested_states);
}

#[test]
fn short_history_reaches_a_rewritten_journal_and_both_kinds_of_file() {
    let disk = created(MemDiskOptions::default());
    let store = Store::open(Arc::new(disk.clone()), tour_config()).unwrap();
    tour(&store, &mut Model::new()).unwrap();
    let calls = disk.counters();
    for operation in [Operation::Rename, Operation::Remove, Operation::SyncDir, Operation::Create] {
        assert!(calls[&operation] > 0, "{operation:?}");
    }
    assert!(disk.files().iter().any(|path| path.starts_with("loose/")));
}

/// The checker sees what each kind of sync is for.
#[test]
fn without_any_of_the_syncs_the_short_history_fails() {
    let files = ["journal", "volumes", "loose"]
        .map(|path| MemDiskOptions { file_syncs: Syncs::Ignored(path), ..MemDiskOptions::default() });
    let folders = ["volumes", "loose"]
        .map(|path| MemDiskOptions { dir_syncs: Syncs::Ignored(path), ..MemDiskOptions::default() });
    for options in files.into_iter().chain(folders) {
        let start = MemDiskOptions { capacity_bytes: options.capacity_bytes, ..MemDiskOptions::default() };
        assert_ne!(options, start);
        let mut checker = Checker::new(tour_config(), usize::MAX);
        crash_everywhere(&mut checker, options, tour, SWEEP).expect_err(&format!("{options:?}"));
    }
}

/// A process that is killed leaves what it had not synced in the kernel's memory: the next one must not build on that.
#[test]
fn what_a_killed_process_left_unsynced_is_durable_before_anybody_is_told_of_it() {
    let mut checker = Checker::new(tour_config(), usize::MAX);
    let start = created(MemDiskOptions::default());
    let start_steps = {
        let disk = copy(&start);
        let _store = checker.open(&disk).unwrap();
        disk.steps()
    };
    for step in start_steps.. {
        let disk = copy(&start);
        let store = checker.open(&disk).unwrap();
        // Killed in this call, which came to its end.
        disk.power_off_at(step);
        let mut model = Model::new();
        let done = tour(&store, &mut model);
        let disk = disk.killed();
        drop(store);
        let store = checker.open(&disk).unwrap_or_else(|broken| panic!("killed at call {step}: {broken}"));
        model.check(&store).unwrap_or_else(|broken| panic!("killed at call {step}: {broken}"));
        let checked =
            checker.check_all(&disk, &model, Sweep { subsets_of_max: 2, samples: 3, tears_max: 2 }, step);
        checked.unwrap_or_else(|broken| panic!("killed at call {step}, then power off: {broken}"));
        drop(store);
        if done.is_ok() {
            break;
        }
    }
}

#[test]
fn cut_short_creation_can_be_repeated() {
    for step in 0.. {
        let disk = MemDisk::default();
        disk.power_off_at(step);
        let done = Store::create(&disk, STORE);
        disk.power_off();
        let sweep = Sweep { subsets_of_max: 6, samples: 4, tears_max: 9 };
        each_crash(&disk, sweep, &mut Dice::new(step), &mut |fates, next| match Store::open(
            Arc::new(next.clone()),
            config(),
        ) {
            Ok(_) => {}
            Err(OpenError::NoMarker) => {
                let again = Store::create(&next, STORE);
                assert!(again.is_ok(), "call {step}, {fates:?}: {again:?}");
                Store::open(Arc::new(next), config()).unwrap();
            }
            Err(error) => panic!("call {step}, {fates:?}: {error:?}"),
        });
        match done {
            Ok(()) => break,
            Err(CreateError::Disk(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Repairs are writes over what is there, where half of one does most harm.
#[test]
fn repair_that_was_cut_short_is_found_and_done_again() {
    let data = bytes(1, 40_000);
    let id = FragmentId::of(&data);
    let start = created(MemDiskOptions::default());
    let store = Store::open(Arc::new(start.clone()), config()).unwrap();
    crate::tests::put(&store, 1, &data).unwrap();
    drop(store);
    let start = start.crash(&mut kept);
    let path = start.files().into_iter().find(|path| path.starts_with("loose/")).unwrap();
    let end = start.bytes(&path).len() - 1;
    start.flip_bit(&path, 70, 1);
    start.flip_bit(&path, end, 1);
    for step in 0.. {
        let disk = copy(&start);
        let store = Store::open(Arc::new(disk.clone()), config()).unwrap();
        let stop_at = disk.steps() + step;
        disk.power_off_at(stop_at);
        store.scrub_step(&mut ScrubCursor::default(), u64::MAX);
        let finished = disk.steps() <= stop_at;
        disk.power_off();
        each_crash(&disk, SWEEP, &mut Dice::new(step), &mut |fates, next| {
            let store = Store::open(Arc::new(next.clone()), config()).unwrap();
            store.scrub_step(&mut ScrubCursor::default(), u64::MAX);
            let report = store.scrub_step(&mut ScrubCursor::default(), u64::MAX);
            assert_eq!((report.rotten.len(), report.repaired), (0, 0), "{fates:?}");
            assert_eq!(store.read(&id, 0..40_000).unwrap(), data);
            let claims = store.claims(&crate::tests::client(1), None, 9).claims;
            assert_eq!(claims.iter().map(|claim| claim.until).collect::<Vec<_>>(), [FOREVER]);
            assert_eq!(next.list("volumes").unwrap(), Vec::<String>::new());
        });
        drop(store);
        if finished {
            break;
        }
    }
}

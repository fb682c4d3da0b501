//! Power fails at any call: what was acknowledged is there and exact, and nothing torn is served.

use super::{GRACE_S, NOW, STORE, bytes, client, config, open, put_as, try_open};
use crate::testing::{Dice, MemDisk, MemDiskOptions, Syncs};
use crate::{
    Access, Config, Disk, Health, NewClaim, PutHeadError, Release, Renewal, ScrubCursor, SliceAnswer, Store,
};
use seedbank_formats::{DatasetId, FragmentId, Timestamp, slice};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const CLIENTS: usize = 3;
const FRAGMENTS: usize = 10;
const DATASET: DatasetId = DatasetId([7; 32]);

/// What was acknowledged about one claim.
#[derive(Debug, Clone, Copy)]
enum Truth {
    /// It lasts at least until then.
    Held { until: Timestamp },
    /// It is not there.
    Gone,
    /// Power failed before the answer.
    Open,
}

/// What was acknowledged.
struct Model {
    claims: BTreeMap<(u8, FragmentId), Truth>,
    contents: BTreeMap<FragmentId, Vec<u8>>,
    head: u64,
    now: Timestamp,
}

fn content(index: usize) -> Vec<u8> {
    // Packed ones, with and without an outboard, and loose ones.
    let length = [100, 3000, 4095, 5000, 40_000][index % 5];
    bytes(index as u64, length)
}

fn head_bytes(sequence: u64) -> Vec<u8> {
    bytes(sequence, 300)
}

impl Model {
    fn new() -> Model {
        let contents = (0..FRAGMENTS).map(content).map(|bytes| (FragmentId::of(&bytes), bytes)).collect();
        Model { claims: BTreeMap::new(), contents, head: 0, now: NOW }
    }

    fn id(&self, dice: &mut Dice) -> FragmentId {
        FragmentId::of(&content(dice.pick(FRAGMENTS)))
    }

    /// One random operation. `Err` once power is off.
    fn step(&mut self, store: &Store, dice: &mut Dice) -> Result<(), ()> {
        self.now = self.now.plus_seconds(10);
        let tag = u8::try_from(dice.pick(CLIENTS)).unwrap();
        let id = self.id(dice);
        let until = self.now.plus_seconds(dice.roll() % 400);
        match dice.pick(12) {
            0..=4 => self.put(store, tag, id, until),
            5 | 6 => self.release(store, tag, id),
            7 => self.renew(store, tag, id, until),
            8 => self.expire(store),
            9 => store.collect(self.now.plus_seconds(GRACE_S / 2), 20_000).map(drop).map_err(drop),
            10 => self.put_head(store),
            _ => {
                let report = store.scrub_step(&mut ScrubCursor::default(), 1 << 20);
                assert_eq!(report.rotten, [], "nothing rots here");
                Ok(())
            }
        }
    }

    fn put(&mut self, store: &Store, tag: u8, id: FragmentId, until: Timestamp) -> Result<(), ()> {
        let claim = NewClaim { client: client(tag), until, access: Access::Reader(client(tag + 100)) };
        match put_as(store, claim, &self.contents[&id], self.now) {
            Ok(stored) => {
                self.claims.insert((tag, id), Truth::Held { until: stored.until });
                Ok(())
            }
            Err(_) => {
                let truth = self.claims.entry((tag, id)).or_insert(Truth::Open);
                // A claim that was there stays, whatever became of the new one.
                if let Truth::Gone = truth {
                    *truth = Truth::Open;
                }
                Err(())
            }
        }
    }

    fn release(&mut self, store: &Store, tag: u8, id: FragmentId) -> Result<(), ()> {
        let answer = store.release(&client(tag), &[id], self.now);
        let truth = self.claims.entry((tag, id)).or_insert(Truth::Gone);
        let held = matches!(truth, Truth::Held { .. });
        match answer.as_deref() {
            Ok([answer]) => {
                assert!(!held || *answer == Release::Released, "a claim is missing while power is on");
                *truth = Truth::Gone;
                Ok(())
            }
            _ => {
                *truth = Truth::Open;
                Err(())
            }
        }
    }

    fn renew(&mut self, store: &Store, tag: u8, id: FragmentId, until: Timestamp) -> Result<(), ()> {
        match store.renew(&client(tag), &[(id, until)]).map_err(drop)?[..] {
            [Renewal::Renewed { until, .. }] => {
                self.claims.insert((tag, id), Truth::Held { until });
            }
            [Renewal::Absent] => {
                let truth = self.claims.insert((tag, id), Truth::Gone);
                assert!(!matches!(truth, Some(Truth::Held { .. })), "a claim is missing while power is on");
            }
            _ => panic!("nothing rots here"),
        }
        Ok(())
    }

    fn expire(&mut self, store: &Store) -> Result<(), ()> {
        let answer = store.expire(self.now);
        for truth in self.claims.values_mut() {
            match truth {
                Truth::Held { until } if *until < self.now => {
                    *truth = if answer.is_ok() { Truth::Gone } else { Truth::Open };
                }
                Truth::Held { .. } | Truth::Gone | Truth::Open => {}
            }
        }
        answer.map(drop).map_err(drop)
    }

    fn put_head(&mut self, store: &Store) -> Result<(), ()> {
        let sequence = self.head + 1;
        match store.put_head(&DATASET, sequence, &head_bytes(sequence)) {
            Ok(()) => self.head = sequence,
            // It had become durable although power failed before the answer.
            Err(PutHeadError::Stale { newest }) => self.head = newest.sequence,
            Err(_) => return Err(()),
        }
        Ok(())
    }

    /// Compares the store with what was acknowledged, and settles what was open.
    fn check(&mut self, store: &Store) -> Result<(), String> {
        for tag in 0..u8::try_from(CLIENTS).unwrap() {
            let listed = store.claims(&client(tag), None, 1000).claims;
            for info in &listed {
                let id = info.fragment;
                let bytes = &self.contents[&id];
                if info.health == Health::Rotten {
                    return Err(format!("{id} is served as rotten"));
                }
                let read = store.read(&id, 0..info.length).map_err(|error| error.to_string())?;
                if read != *bytes {
                    return Err(format!("{id} is torn"));
                }
                let all = 0..info.length;
                match store.slice(&id, all.clone()).map_err(|error| error.to_string())? {
                    SliceAnswer::Proven(proof) if slice::verify(&id, info.length, &all, &proof).is_ok() => {}
                    _ => return Err(format!("{id} can't be proven")),
                }
            }
            let listed = listed.iter().map(|info| (info.fragment, info.until)).collect::<BTreeMap<_, _>>();
            for id in self.contents.keys() {
                let truth = self.claims.entry((tag, *id)).or_insert(Truth::Gone);
                match (*truth, listed.get(id)) {
                    (Truth::Held { until }, Some(found)) if *found >= until => {}
                    (Truth::Gone, None) => {}
                    (Truth::Open, _) => {}
                    (truth, found) => return Err(format!("claim {tag} {id}: {truth:?}, found {found:?}")),
                }
                *truth = listed.get(id).map_or(Truth::Gone, |until| Truth::Held { until: *until });
            }
        }
        let report = store.scrub_step(&mut ScrubCursor::default(), u64::MAX);
        if !report.rotten.is_empty() || !report.rotten_heads.is_empty() || report.repaired > 0 {
            return Err(format!("damage: {report:?}"));
        }
        match store.head(&DATASET).map_err(|error| error.to_string())? {
            None if self.head == 0 => {}
            Some(head) if head.sequence >= self.head && head.bytes == head_bytes(head.sequence) => {
                self.head = head.sequence;
            }
            head => return Err(format!("head {} acknowledged, found {head:?}", self.head)),
        }
        Ok(())
    }
}

/// What the disk does with unsynced changes.
fn fate(dice: &mut Dice) -> Box<dyn FnMut(usize) -> usize> {
    let kind = dice.pick(4);
    let mut inner = Dice::new(dice.roll());
    Box::new(move |options| match kind {
        0 => 0,
        1 => options - 1,
        _ => inner.pick(options),
    })
}

/// A history of operations under `seed`, with power failing three times.
fn history(seed: u64, options: MemDiskOptions) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let mut disk = MemDisk::new(options);
    Store::create(&disk, STORE).unwrap();
    // The question is what happens to fragments, not to a store that was never there.
    disk = super::killed(&disk);
    let mut model = Model::new();
    for _ in 0..3 {
        if dice.pick(3) == 0 {
            // Power fails while the store is being opened.
            disk.power_off_at(disk.steps() + dice.roll() % 12);
            let interrupted = try_open(&disk);
            let next = disk.crash(&mut *fate(&mut dice));
            drop(interrupted);
            disk = next;
        }
        let store = try_open(&disk).map_err(|error| format!("{error:?}"))?;
        disk.power_off_at(disk.steps() + dice.roll() % 150);
        while model.step(&store, &mut dice).is_ok() {}
        let next = disk.crash(&mut *fate(&mut dice));
        drop(store);
        disk = next;
        let store = try_open(&disk).map_err(|error| format!("{error:?}"))?;
        model.check(&store)?;
        drop(store);
    }
    Ok(())
}

fn violations(seeds: std::ops::Range<u64>, options: MemDiskOptions) -> BTreeSet<String> {
    seeds
        .filter_map(|seed| history(seed, options).err().map(|broken| format!("seed {seed}: {broken}")))
        .collect()
}

#[test]
fn acknowledged_changes_survive_random_crashes() {
    assert_eq!(violations(0..120, MemDiskOptions::default()), BTreeSet::new());
}

#[test]
fn without_any_of_the_file_syncs_the_same_histories_fail() {
    for path in ["", "journal", "volumes", "loose"] {
        let options = MemDiskOptions { file_syncs: Syncs::Ignored(path), ..MemDiskOptions::default() };
        assert!(!violations(0..60, options).is_empty(), "{path}");
    }
}

#[test]
fn without_any_of_the_folder_syncs_the_same_histories_fail() {
    for path in ["", "volumes", "loose"] {
        let options = MemDiskOptions { dir_syncs: Syncs::Ignored(path), ..MemDiskOptions::default() };
        assert!(!violations(0..60, options).is_empty(), "{path}");
    }
}

/// A short history that reaches every kind of change: both kinds of file, trash, compaction, a rewritten journal.
fn tour(store: &Store, model: &mut Model) -> Result<(), ()> {
    let id = |index| FragmentId::of(&content(index));
    let far = NOW.plus_seconds(1 << 20);
    for index in [0, 1, 2, 3, 4] {
        model.put(store, 0, id(index), far)?;
    }
    model.put(store, 1, id(3), far)?;
    model.put_head(store)?;
    model.renew(store, 0, id(1), far.plus_seconds(5))?;
    for index in [1, 2, 3, 4] {
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

#[test]
fn acknowledged_changes_survive_a_crash_at_every_call() {
    let start = super::created();
    let run = |stop_at: Option<u64>, choose: &mut dyn FnMut(usize) -> usize| {
        let disk = super::killed(&start);
        let store = Store::open(Arc::new(disk.clone()), tour_config()).unwrap();
        if let Some(step) = stop_at {
            disk.power_off_at(step);
        }
        let mut model = Model::new();
        let done = tour(&store, &mut model);
        assert_eq!(done.is_err(), stop_at.is_some());
        let steps = disk.steps();
        let journal = disk.counters();
        let next = disk.crash(choose);
        drop(store);
        let store = Store::open(Arc::new(next.clone()), tour_config()).unwrap();
        model.check(&store).unwrap_or_else(|broken| panic!("power off at {stop_at:?}: {broken}"));
        // The store goes on from there.
        put_as(&store, super::claim(9), &bytes(99, 2000), NOW).unwrap();
        assert!(next.list("").unwrap().iter().all(|name| name != "journal.new"));
        (steps, journal)
    };
    let start_steps = {
        let disk = super::killed(&start);
        let _store = Store::open(Arc::new(disk.clone()), tour_config()).unwrap();
        disk.steps()
    };
    let (steps, calls) = run(None, &mut |_| 0);
    assert!(calls[&crate::testing::Operation::Rename] > 0, "the journal was rewritten");
    for step in start_steps..steps {
        run(Some(step), &mut |_| 0);
        run(Some(step), &mut |options| options - 1);
        // Every unsynced write is torn in its middle, and names are kept.
        run(Some(step), &mut |options| options / 2);
        let mut dice = Dice::new(step);
        run(Some(step), &mut |options| dice.pick(options));
    }
}

#[test]
fn killed_process_loses_nothing_acknowledged() {
    let mut disk = super::created();
    let mut model = Model::new();
    let mut dice = Dice::new(1);
    for _ in 0..5 {
        let store = open(&disk);
        for _ in 0..30 {
            model.step(&store, &mut dice).unwrap();
        }
        let next = super::killed(&disk);
        drop(store);
        disk = next;
        model.check(&open(&disk)).unwrap();
    }
}

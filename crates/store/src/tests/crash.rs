//! Power fails at any call, processes are killed, disks do with unsynced writes what they like: what was acknowledged is
//! there and exact, nothing torn is served, nothing is left over, and the store goes on.

mod model;
mod random;
mod short;

use super::{NOW, bytes, claim, put_as};
use crate::record::file_of;
use crate::testing::{Dice, MemDisk, Sweep, each_crash, lost};
use crate::{Config, Store};
use model::Model;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a boot after a crash must find, whatever was left of the disk.
struct Checker {
    config: Config,
    /// Of every so many disks, one is crashed again at every call of its recovery.
    nested_every: usize,
    states: usize,
    nested_states: usize,
}

impl Checker {
    fn new(config: Config, nested_every: usize) -> Checker {
        Checker { config, nested_every, states: 0, nested_states: 0 }
    }

    fn open(&self, disk: &MemDisk) -> Result<Store, String> {
        Store::open(Arc::new(disk.clone()), self.config.clone()).map_err(|error| format!("{error:?}"))
    }

    /// Boots from every disk that may be left of `disk`.
    fn check_all(&mut self, disk: &MemDisk, model: &Model, sweep: Sweep, seed: u64) -> Result<(), String> {
        disk.power_off();
        let mut broken = None;
        each_crash(disk, sweep, &mut Dice::new(seed), &mut |fates, next| {
            if broken.is_none() {
                let checked = self.check(&next, model);
                broken = checked.err().map(|why| format!("{why}, after {fates:?} of {:?}", disk.pending()));
            }
        });
        broken.map_or(Ok(()), Err)
    }

    fn check(&mut self, disk: &MemDisk, model: &Model) -> Result<(), String> {
        self.states += 1;
        if self.states.is_multiple_of(self.nested_every) {
            self.crash_recovery(disk, model)?;
        }
        self.boot(&copy(disk), model)
    }

    /// Recovers, compares, takes new work, and finds that after the next crash too.
    fn boot(&self, disk: &MemDisk, model: &Model) -> Result<(), String> {
        let mut model = model.clone();
        let store = self.open(disk)?;
        model.check(&store)?;
        leftovers(&store, disk)?;
        put_as(&store, claim(9), &bytes(99, 2000), NOW).map_err(|error| format!("no new work: {error:?}"))?;
        let next = disk.crash(&mut lost);
        drop(store);
        let store = self.open(&next)?;
        model.check(&store)?;
        let read = store.read(&seedbank_formats::FragmentId::of(&bytes(99, 2000)), 0..2000);
        read.map(drop).map_err(|error| format!("new work is lost: {error:?}"))
    }

    /// Lets power fail at every call of a recovery, and recovers from each of that again.
    fn crash_recovery(&mut self, disk: &MemDisk, model: &Model) -> Result<(), String> {
        for step in 0.. {
            let disk = copy(disk);
            disk.power_off_at(step);
            let interrupted = self.open(&disk);
            let mut broken = Ok(());
            disk.power_off();
            let sweep = Sweep { subsets_of_max: 4, samples: 2, tears_max: 3 };
            each_crash(&disk, sweep, &mut Dice::new(step), &mut |fates, next| {
                self.nested_states += 1;
                if broken.is_ok() {
                    let why = self.boot(&next, model);
                    broken =
                        why.map_err(|why| format!("{why}, after {fates:?} at call {step} of a recovery"));
                }
            });
            broken?;
            if disk.steps() <= step {
                drop(interrupted);
                return Ok(());
            }
        }
        unreachable!("a recovery ends")
    }
}

/// An equal disk on which all is synced.
fn copy(disk: &MemDisk) -> MemDisk {
    assert!(disk.pending().is_empty(), "a disk right after a crash has nothing pending");
    disk.after(&[])
}

/// Every file is one that the index knows.
fn leftovers(store: &Store, disk: &MemDisk) -> Result<(), String> {
    let state = store.shared.lock();
    let fragments = state.index.fragments_after(None).filter_map(|(id, it)| Some(file_of(id, it.place?).0));
    let heads = state.index.heads().filter_map(|(_, head)| Some(file_of(&head.id, head.place?).0));
    let known = fragments.chain(heads).collect::<BTreeSet<_>>();
    let own = ["marker", "journal", "ballast"];
    let left = disk.files().into_iter().filter(|path| !known.contains(path) && !own.contains(&path.as_str()));
    let left = left.collect::<Vec<_>>();
    if left.is_empty() { Ok(()) } else { Err(format!("left over: {left:?}")) }
}

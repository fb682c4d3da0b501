//! What a store has acknowledged, and comparing a store with it.

use crate::testing::Dice;
use crate::tests::{GRACE_S, NOW, bytes, client, put_as};
use crate::{Access, Health, NewClaim, PutHeadError, Release, Renewal, ScrubCursor, SliceAnswer, Store};
use seedbank_formats::{Asked, DatasetId, FragmentId, Timestamp, slice};
use std::collections::BTreeMap;
use std::sync::Arc;

const CLIENTS: usize = 3;
const FRAGMENTS: usize = 10;
const DATASET: DatasetId = DatasetId([7; 32]);

/// What was acknowledged about one claim.
#[derive(Debug, Clone, Copy)]
pub(super) enum Truth {
    /// It lasts at least until then.
    Held { until: Timestamp },
    /// It is not there.
    Gone,
    /// Power failed before the answer.
    Open,
}

/// What was acknowledged.
#[derive(Clone)]
pub(super) struct Model {
    claims: BTreeMap<(u8, FragmentId), Truth>,
    contents: Arc<BTreeMap<FragmentId, Vec<u8>>>,
    head: u64,
    pub(super) now: Timestamp,
}

pub(super) fn content(index: usize) -> Vec<u8> {
    // Packed ones, with and without an outboard, and loose ones.
    let length = [100, 3000, 4095, 5000, 40_000][index % 5];
    bytes(index as u64, length)
}

pub(super) fn head_bytes(sequence: u64) -> Vec<u8> {
    bytes(sequence, 300)
}

impl Model {
    pub(super) fn new() -> Model {
        let contents = (0..FRAGMENTS).map(content).map(|bytes| (FragmentId::of(&bytes), bytes)).collect();
        Model { claims: BTreeMap::new(), contents: Arc::new(contents), head: 0, now: NOW }
    }

    fn id(&self, dice: &mut Dice) -> FragmentId {
        FragmentId::of(&content(dice.pick(FRAGMENTS)))
    }

    /// One random operation. `Err` once power is off.
    pub(super) fn step(&mut self, store: &Store, dice: &mut Dice) -> Result<(), ()> {
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

    /// Time passes with every step.
    fn asked(&self) -> Asked {
        Asked(self.now.0)
    }

    pub(super) fn put(&mut self, store: &Store, tag: u8, id: FragmentId, until: Timestamp) -> Result<(), ()> {
        let claim = NewClaim {
            client: client(tag),
            until,
            access: Access::Reader(client(tag + 100)),
            asked: self.asked(),
        };
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

    pub(super) fn release(&mut self, store: &Store, tag: u8, id: FragmentId) -> Result<(), ()> {
        let answer = store.release(&client(tag), &[id], self.asked(), self.now);
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

    pub(super) fn renew(
        &mut self,
        store: &Store,
        tag: u8,
        id: FragmentId,
        until: Timestamp,
    ) -> Result<(), ()> {
        match store.renew(&client(tag), &[(id, until)], self.asked()).map_err(drop)?[..] {
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

    pub(super) fn put_head(&mut self, store: &Store) -> Result<(), ()> {
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
    pub(super) fn check(&mut self, store: &Store) -> Result<(), String> {
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

//! The store on a disk whose power fails: what was committed is there, whole, whatever became of the rest.

use super::{Store, StoreError, Writer};
use crate::block::Block;
use crate::changes::{AccountChange, Change, Changes, Storage};
use crate::header::SignedHeader;
use crate::state::{Account, State};
use alloy_consensus::Header;
use alloy_primitives::{Address, U256};
use redb::{Database, StorageBackend};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    /// One below `bound`.
    fn roll(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[derive(Debug, Clone)]
enum Unsynced {
    Length(usize),
    Write(usize, Vec<u8>),
}

impl Unsynced {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Unsynced::Length(length) => bytes.resize(*length, 0),
            Unsynced::Write(at, data) => {
                bytes.resize(bytes.len().max(at + data.len()), 0);
                bytes[*at..at + data.len()].copy_from_slice(data);
            }
        }
    }
}

/// A disk that forgets what was not synced, and whose power fails after so many calls.
#[derive(Debug)]
struct Surface {
    synced: Vec<u8>,
    unsynced: Vec<Unsynced>,
    seen: Vec<u8>,
    calls_left: u64,
}

#[derive(Debug, Clone)]
struct Disk(Arc<Mutex<Surface>>);

const SECTOR: usize = 512;

impl Disk {
    fn new(synced: Vec<u8>, calls_left: u64) -> Disk {
        let seen = synced.clone();
        Disk(Arc::new(Mutex::new(Surface { synced, unsynced: Vec::new(), seen, calls_left })))
    }

    /// What is on it when the power comes back: of the unsynced writes some, some in part, in no order.
    fn after_power_loss(&self, dice: &mut Dice) -> Vec<u8> {
        let surface = self.0.lock().unwrap();
        let mut bytes = surface.synced.clone();
        for one in &surface.unsynced {
            match (dice.roll(3), one) {
                (0, _) => {}
                (1, Unsynced::Write(at, data)) => {
                    let sectors = u64::try_from(data.len() / SECTOR).unwrap();
                    let kept = usize::try_from(dice.roll(sectors + 1)).unwrap() * SECTOR;
                    Unsynced::Write(*at, data[..kept].to_vec()).apply(&mut bytes);
                }
                (_, whole) => whole.apply(&mut bytes),
            }
        }
        bytes
    }

    fn call<T>(&self, work: impl FnOnce(&mut Surface) -> T) -> Result<T, io::Error> {
        let mut surface = self.0.lock().unwrap();
        surface.calls_left = surface.calls_left.saturating_sub(1);
        if surface.calls_left == 0 {
            return Err(io::Error::other("no power"));
        }
        Ok(work(&mut surface))
    }

    fn write(&self, change: Unsynced) -> Result<(), io::Error> {
        self.call(|surface| {
            change.apply(&mut surface.seen);
            surface.unsynced.push(change);
        })
    }
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        self.call(|surface| u64::try_from(surface.seen.len()).unwrap())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.call(|surface| out.copy_from_slice(&surface.seen[at(offset)..at(offset) + out.len()]))
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        self.write(Unsynced::Length(at(length)))
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.call(|surface| {
            surface.unsynced.clear();
            surface.synced = surface.seen.clone();
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        Disk::write(self, Unsynced::Write(at(offset), data.to_vec()))
    }
}

fn open(disk: &Disk) -> Result<Store, StoreError> {
    Store::of(Database::builder().create_with_backend(disk.clone())?)
}

const ACCOUNT: Address = Address::repeat_byte(7);

/// A block after this one, whose state says which number it has.
fn append(store: &Store, parent: Option<&Block>) -> Result<Block, StoreError> {
    let number = parent.map_or(0, |parent| parent.number() + 1);
    let parent_hash = parent.map(Block::hash).unwrap_or_default();
    let header = SignedHeader::known(Header { number, parent_hash, ..Header::default() });
    let block = Block { header, transaction: None };
    let account = |nonce| Account { nonce, ..Account::with_balance(U256::from(1)) };
    let before = number.checked_sub(1).map(account);
    let slot = Change { before: U256::ZERO, after: U256::from(number + 1) };
    let change = AccountChange {
        account: Change { before, after: Some(account(number)) },
        storage: Storage::Kept,
        slots: BTreeMap::from([(U256::from(number), slot)]),
    };
    let changes = Changes { accounts: BTreeMap::from([(ACCOUNT, change)]), code: BTreeMap::new() };
    let transaction = store.begin()?;
    Writer::open(&transaction)?.append(&block, None, &changes)?;
    transaction.commit()?;
    Ok(block)
}

/// Checks that blocks and state are whole, and gives the last block.
fn check(store: &Store, seed: u64) -> Option<Block> {
    let snapshot = store.snapshot().unwrap();
    let head = snapshot.head().unwrap();
    let number = head.as_ref().map(Block::number);
    assert_eq!(snapshot.account(ACCOUNT).unwrap().map(|account| account.nonce), number, "seed {seed}");
    let mut parent = None;
    for number in 0..number.map_or(0, |number| number + 1) {
        let block = snapshot.block(number).unwrap().unwrap();
        assert_eq!(block.header.header().parent_hash, parent.unwrap_or_default(), "seed {seed}");
        assert_eq!(
            snapshot.slot(ACCOUNT, U256::from(number)).unwrap(),
            U256::from(number + 1),
            "seed {seed}"
        );
        parent = Some(block.hash());
    }
    head
}

#[test]
fn what_was_committed_survives_the_loss_of_power_at_any_call() {
    const LIVES: u32 = 3;
    let mut survived = 0;
    // A database that is being made has another name, and is made again.
    let made = Disk::new(Vec::new(), u64::MAX);
    drop(open(&made).unwrap());
    let made = made.0.lock().unwrap().synced.clone();
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let mut bytes = made.clone();
        let mut acknowledged = None;
        for _ in 0..LIVES {
            let disk = Disk::new(bytes, 1 + dice.roll(400));
            if let Ok(store) = open(&disk) {
                let mut head = store.snapshot().and_then(|snapshot| snapshot.head()).ok().flatten();
                while let Ok(block) = append(&store, head.as_ref()) {
                    acknowledged = Some(block.number());
                    survived += 1;
                    head = Some(block);
                }
            }
            bytes = disk.after_power_loss(&mut dice);
            let repaired = Disk::new(bytes, u64::MAX);
            let head = check(&open(&repaired).unwrap(), seed).map(|head| head.number());
            assert!(
                head >= acknowledged,
                "seed {seed}: {acknowledged:?} was acknowledged, {head:?} is there"
            );
            assert!(
                head.map_or(0, |head| head + 1) <= acknowledged.map_or(0, |last| last + 1) + 1,
                "seed {seed}"
            );
            acknowledged = head;
            bytes = repaired.0.lock().unwrap().seen.clone();
        }
    }
    assert!(survived > 500, "the power lasted long enough for something: {survived}");
}

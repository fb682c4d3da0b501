//! Seeds as `EmbeddedBeacon` gives them.

use crate::challenge::Seed;
use crate::epoch::{Epoch, EpochClock};
use crate::keccak::keccak256;
use crate::typed::Domain;
use seedbank_formats::Timestamp;
use std::collections::BTreeMap;

/// What a contract sees of the block that it runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its number.
    pub number: u64,
    /// Its time.
    pub time: Timestamp,
    /// The hash of the one before.
    pub parent: [u8; 32],
}

/// Seeds of epochs from the hash of the block before the first call in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedBeacon {
    clock: EpochClock,
    domain: Domain,
    blocks_min: u32,
    seeds: BTreeMap<Epoch, (Seed, u64)>,
    ended_by: BTreeMap<Epoch, u64>,
    last_touched: Epoch,
}

impl EmbeddedBeacon {
    /// A beacon that was just deployed.
    #[must_use]
    pub fn new(clock: EpochClock, domain: Domain, blocks_min: u32) -> EmbeddedBeacon {
        EmbeddedBeacon {
            clock,
            domain,
            blocks_min,
            seeds: BTreeMap::new(),
            ended_by: BTreeMap::new(),
            last_touched: Epoch(0),
        }
    }

    /// When epochs begin.
    #[must_use]
    pub fn clock(&self) -> &EpochClock {
        &self.clock
    }

    /// An epoch's seed, once it is sealed.
    #[must_use]
    pub fn seed(&self, epoch: Epoch) -> Option<&Seed> {
        self.seeds.get(&epoch).map(|(seed, _)| seed)
    }

    /// Seals the seed of the epoch that the block lies in, unless that was done.
    pub(super) fn seal(&mut self, epoch: Epoch, block: &Block) {
        if self.seeds.contains_key(&epoch) {
            return;
        }
        // No block after this one can count for the epoch that had the last seed.
        let last = self.last_touched;
        if last != epoch && self.seeds.contains_key(&last) {
            self.ended_by.entry(last).or_insert(block.number);
        }
        self.last_touched = epoch;
        let seed = self.draw(epoch, block);
        self.seeds.insert(epoch, (seed, block.number));
    }

    /// Whether an epoch that is over counts: it had a seed, and enough blocks after it.
    pub(super) fn counts(&self, epoch: Epoch, block: &Block) -> bool {
        let Some((_, sealed)) = self.seeds.get(&epoch) else { return false };
        let end = self.ended_by.get(&epoch).copied().unwrap_or(block.number);
        end.checked_sub(*sealed).is_some_and(|blocks| blocks >= u64::from(self.blocks_min))
    }

    /// `abi.encode` with a text in it: its place stands first, its length and bytes last.
    fn draw(&self, epoch: Epoch, block: &Block) -> Seed {
        const TEXT: &[u8] = b"seedbank embedded beacon 1";
        let mut bytes = [0; 7 * 32];
        let word = |at: usize| at * 32..at * 32 + 32;
        bytes[word(0)][31] = 5 * 32;
        bytes[word(1)][24..].copy_from_slice(&self.domain.chain_id.to_be_bytes());
        bytes[word(2)][12..].copy_from_slice(&self.domain.contract.0);
        bytes[word(3)][28..].copy_from_slice(&epoch.0.to_be_bytes());
        bytes[word(4)].copy_from_slice(&block.parent);
        bytes[word(5)][31] = u8::try_from(TEXT.len()).expect("a short text");
        bytes[word(6)][..TEXT.len()].copy_from_slice(TEXT);
        keccak256(&bytes)
    }
}

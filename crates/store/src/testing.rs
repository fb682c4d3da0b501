//! A disk in memory that loses what was not synced, and the suite that every disk must pass.
//!
//! For tests of this crate and of whoever runs a store. [`MemDisk`] numbers every call that changes something:
//! [`MemDisk::power_off_at`] stops the world at one of them, and [`MemDisk::crash`] gives the disk as the next boot
//! finds it. Sweeping the number over a history tries every crash point; sweeping the choices tries what a disk may
//! have done with unsynced bytes. `crash` takes every decision from its argument, so that a run is repeated by a seed
//! ([`Dice`]) or enumerated in full.

mod conformance;
mod memory;

pub use conformance::disk_conformance;
pub use memory::{Counters, Fault, MemDisk, MemDiskOptions, Operation, Syncs};

/// A small seeded generator (SplitMix64, Steele et al. 2014), so that a failure is repeated by its seed.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The sequence that belongs to `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// The next 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `options`.
    ///
    /// # Panics
    /// When `options` is 0.
    pub fn pick(&mut self, options: usize) -> usize {
        let options = u64::try_from(options).expect("usize has at most 64 bits");
        usize::try_from(self.roll() % options).expect("below a usize")
    }
}

//! A disk in memory that loses what was not synced, and the suite that every disk must pass.
//!
//! For tests of this crate and of whoever runs a store, or keeps other files. [`MemDisk`] numbers every call that changes
//! something: [`MemDisk::power_off_at`] stops the world at one of them. [`each_crash`] then visits every disk that the next
//! boot may find, and [`MemDisk::crash`] gives the one with the fates that its caller chooses. Nothing here is random but
//! what comes from seeded [`Dice`], so a failure is repeated by its seed.

mod conformance;
mod crash;
mod memory;

pub use conformance::disk_conformance;
pub use crash::{Change, Fate, Pending, SECTOR_BYTES, Sweep, Tear, chosen, each_crash, kept, lost};
pub use memory::{Counters, Effect, Fault, MemDisk, MemDiskOptions, Operation, Syncs};

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

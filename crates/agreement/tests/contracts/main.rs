//! The rules of this crate beside the contracts' own bytecode, value by value: what `contracts/abi` holds runs in an EVM here.
//!
//! Every difference is a bug, in the one or in the other. Histories are drawn from seeds; a failure names its seed and step.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod abi;
mod channels;
mod detection;
mod digests;
mod evm;
mod histories;
mod hot_keys;
mod market;
mod possession;
mod stored;

/// A small seeded generator (Steele, Lea and Flood, "SplitMix", 2014), so that a failure is repeated by its seed.
#[derive(Debug, Clone)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let at = self.below(of.len() as u64);
        &of[usize::try_from(at).unwrap()]
    }

    fn word(&mut self) -> [u8; 32] {
        let mut word = [0; 32];
        word.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&self.next().to_be_bytes()));
        word
    }
}

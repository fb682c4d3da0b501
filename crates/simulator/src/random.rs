//! Every choice of a run, from its seed.

use seedbank_store::testing::Dice;
use std::time::Duration;

/// A seeded source of choices.
#[derive(Debug, Clone)]
pub(crate) struct Random(Dice);

impl Random {
    /// The choices that belong to `seed` for one `purpose`: what is drawn for one moves nothing of another.
    pub(crate) fn new(seed: u64, purpose: u64) -> Random {
        let mut mixer = Dice::new(seed);
        Random(Dice::new(mixer.roll() ^ purpose))
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0.roll() % limit
    }

    /// A number of `low..=high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// An index below `limit`, which is not 0.
    pub(crate) fn index(&mut self, limit: usize) -> usize {
        self.0.pick(limit)
    }

    /// Whether something happens that happens so often in a thousand times.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// One of several.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }

    /// A time of `low..=high` milliseconds, to the microsecond.
    pub(crate) fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(self.between(low * 1000, high * 1000))
    }

    /// Bytes that do not compress.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let words = length.div_ceil(8);
        let mut bytes: Vec<u8> = (0..words).flat_map(|_| self.0.roll().to_le_bytes()).collect();
        bytes.truncate(length);
        bytes
    }

    /// 32 bytes for a key or an id.
    pub(crate) fn key(&mut self) -> [u8; 32] {
        self.bytes(32).try_into().expect("32 bytes were drawn")
    }
}

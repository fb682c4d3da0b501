//! Bytes that look random and are the same everywhere for the same seed.
//!
//! The generator is the one behind the committed vectors (Knuth's MMIX constants, one byte a step from the top of the
//! state), so that a test can name the very bytes that a vector file talks about. It is no source of secrets.

use std::io::Read;

/// An endless stream of bytes, drawn by a seed.
#[derive(Debug, Clone)]
pub struct ByteStream {
    state: u64,
}

impl ByteStream {
    /// The stream of this seed, from its start.
    #[must_use]
    pub const fn new(seed: u64) -> ByteStream {
        ByteStream { state: seed }
    }

    /// The first `len` bytes of the stream of `seed`.
    #[must_use]
    pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        ByteStream::new(seed).fill(&mut bytes);
        bytes
    }

    /// Fills `out` with the next bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            *byte = self.next_byte();
        }
    }

    /// A number in `0..end`, from the next eight bytes.
    ///
    /// # Panics
    /// When `end` is 0: there is no such number.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "a number below zero was asked for");
        let mut drawn = [0; 8];
        self.fill(&mut drawn);
        u64::from_le_bytes(drawn) % end
    }

    fn next_byte(&mut self) -> u8 {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.state.to_be_bytes()[0]
    }
}

impl Read for ByteStream {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.fill(out);
        Ok(out.len())
    }
}

#[cfg(test)]
mod tests {
    use super::ByteStream;
    use std::io::Read;

    #[test]
    fn the_same_seed_draws_the_same_bytes_in_pieces_or_at_once() {
        let mut stream = ByteStream::new(9);
        let mut pieces = [0; 100];
        stream.fill(&mut pieces[..33]);
        stream.read_exact(&mut pieces[33..]).unwrap();
        assert_eq!(ByteStream::bytes(9, 100), pieces);
        assert_ne!(ByteStream::bytes(10, 100), pieces);
    }

    /// Worked out by hand from the constants: seed 0 steps to the increment, whose top byte is 0x14.
    #[test]
    fn first_byte_of_seed_zero_is_the_top_of_the_increment() {
        assert_eq!(ByteStream::bytes(0, 1), [0x14]);
    }

    #[test]
    fn numbers_stay_below_their_end() {
        let mut stream = ByteStream::new(1);
        assert!((0..1000).all(|_| stream.below(7) < 7));
        assert_eq!(stream.below(1), 0);
    }
}

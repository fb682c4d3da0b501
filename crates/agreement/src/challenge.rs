//! Which bytes an epoch asks for: the contracts' challenge arithmetic.
//!
//! The seed is known to nobody before the epoch begins, and nothing that a prover chooses goes into an offset.

use crate::abi::Words;
use crate::address::Address;
use crate::epoch::{AgreementId, Epoch};
use crate::keccak::keccak256;
use crate::typed::Domain;

/// Whose bytes are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Everything that a provider holds, as each epoch asks.
    Provider(Address),
    /// One agreement, as its client asked.
    Agreement(AgreementId),
}

/// An epoch's seed.
pub type Seed = [u8; 32];

/// The byte that challenge `index` of an epoch asks for, out of `total` bytes. `None` if there is no byte.
#[must_use]
pub fn challenge_offset(
    market: &Domain,
    subject: Subject,
    epoch: Epoch,
    seed: &Seed,
    index: u32,
    total: u64,
) -> Option<u64> {
    let words = Words::with_capacity(7);
    let words = match subject {
        Subject::Provider(_) => words.bytes32(&keccak256(b"seedbank challenge 1")),
        Subject::Agreement(_) => words.bytes32(&keccak256(b"seedbank question 1")),
    };
    let words = words.uint(market.chain_id).address(&market.contract);
    let words = match subject {
        Subject::Provider(provider) => words.address(&provider),
        Subject::Agreement(agreement) => words.uint(agreement.0),
    };
    let hash = words.uint(epoch.0).bytes32(seed).uint(index).keccak256();
    remainder(&hash, total)
}

/// The big-endian number modulo `divisor`.
fn remainder(number: &[u8; 32], divisor: u64) -> Option<u64> {
    let mut rest = 0u128;
    for part in number.chunks_exact(8) {
        let part = u64::from_be_bytes(part.try_into().expect("a chunk of 8 bytes"));
        rest = (rest << 64 | u128::from(part)).checked_rem(u128::from(divisor))?;
    }
    Some(u64::try_from(rest).expect("a remainder is below its divisor"))
}

#[cfg(test)]
mod tests {
    use super::remainder;

    #[test]
    fn remainders_of_256_bits() {
        let mut number = [0; 32];
        number[31] = 10;
        assert_eq!(remainder(&number, 7), Some(3));
        assert_eq!(remainder(&number, 0), None);
        // 2^256 - 1 = (2^64 - 1) (2^64 + 1) (2^128 + 1), and 2^4 = 1 modulo 5.
        assert_eq!(remainder(&[0xff; 32], u64::MAX), Some(0));
        assert_eq!(remainder(&[0xff; 32], 5), Some(0));
        assert_eq!(remainder(&[0xff; 32], 7), Some(1), "2^256 = 2^(3 * 85 + 1)");
    }
}

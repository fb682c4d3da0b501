//! Where an epoch's challenges fall: the contracts' arithmetic.
//!
//! The seed is known to nobody before the epoch begins, and nothing that a prover chooses goes into a draw. A challenge of a whole set falls on
//! pay first and on bytes then: on the agreement that earns a drawn unit of what the epoch pays, and in its set on a byte that is drawn anew.

use crate::abi::Words;
use crate::address::Address;
use crate::amount::Amount;
use crate::epoch::{AgreementId, Epoch};
use crate::keccak::keccak256;
use crate::typed::Domain;

/// Who is asked for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Everything that a provider holds, as each epoch asks.
    Provider(Address),
    /// One agreement, as its client asked.
    Agreement(AgreementId),
}

/// An epoch's seed.
pub type Seed = [u8; 32];

/// What an epoch's seed draws for one challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw([u8; 32]);

impl Draw {
    /// For challenge `index`.
    #[must_use]
    pub fn new(market: &Domain, subject: Subject, epoch: Epoch, seed: &Seed, index: u32) -> Draw {
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
        Draw(words.uint(epoch.0).bytes32(seed).uint(index).keccak256())
    }

    /// The unit of a set's pay whose agreement is asked. `None` if nothing is paid.
    #[must_use]
    pub fn unit(&self, pay: Amount) -> Option<Amount> {
        remainder(&self.0, pay.0).map(Amount)
    }

    /// The byte of the agreement's set, of `size` bytes. It does not hang on the unit. `None` if there is no byte.
    #[must_use]
    pub fn byte(&self, size: u64) -> Option<u64> {
        let byte = remainder(&keccak256(&self.0), size.into())?;
        Some(u64::try_from(byte).expect("a remainder is below its divisor"))
    }
}

/// The big-endian number modulo `divisor`, bit by bit: no type is twice as wide as a divisor of 128 bits.
fn remainder(number: &[u8; 32], divisor: u128) -> Option<u128> {
    if divisor == 0 {
        return None;
    }
    let mut rest = 0u128;
    for byte in number {
        for bit in (0..8).rev() {
            // Twice what is below the divisor, and a bit, is below twice the divisor, though perhaps not below 2^128.
            let carries = rest >> 127 == 1;
            rest = rest << 1 | u128::from(byte >> bit & 1);
            if carries || rest >= divisor {
                rest = rest.wrapping_sub(divisor);
            }
        }
    }
    Some(rest)
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
        assert_eq!(remainder(&number, 1), Some(0));
        // 2^256 - 1 = (2^64 - 1) (2^64 + 1) (2^128 + 1), and 2^4 = 1 modulo 5.
        assert_eq!(remainder(&[0xff; 32], u64::MAX.into()), Some(0));
        assert_eq!(remainder(&[0xff; 32], u128::MAX), Some(0));
        assert_eq!(remainder(&[0xff; 32], 5), Some(0));
        assert_eq!(remainder(&[0xff; 32], 7), Some(1), "2^256 = 2^(3 * 85 + 1)");
        // 2^128 = 5 and 2^256 = 25 modulo 2^128 - 5.
        assert_eq!(remainder(&[0xff; 32], u128::MAX - 4), Some(24));
    }
}

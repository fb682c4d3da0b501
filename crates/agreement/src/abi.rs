//! `abi.encode` of static types: each value in a word of 32 bytes of its own.

use crate::address::Address;
use crate::keccak::keccak256;

const WORD: usize = 32;

/// Values one after the other, as `abi.encode` lays them out.
pub(crate) struct Words(Vec<u8>);

impl Words {
    pub(crate) fn with_capacity(words: usize) -> Words {
        Words(Vec::with_capacity(words * WORD))
    }

    /// A `bytes32`.
    pub(crate) fn bytes32(mut self, bytes: &[u8; WORD]) -> Words {
        self.0.extend_from_slice(bytes);
        self
    }

    /// An unsigned number of any width up to 128 bits.
    pub(crate) fn uint(mut self, value: impl Into<u128>) -> Words {
        self.0.extend_from_slice(&[0; 16]);
        self.0.extend_from_slice(&value.into().to_be_bytes());
        self
    }

    /// An `address`.
    pub(crate) fn address(mut self, address: &Address) -> Words {
        self.0.extend_from_slice(&[0; 12]);
        self.0.extend_from_slice(&address.0);
        self
    }

    /// The hash of all of it.
    pub(crate) fn keccak256(&self) -> [u8; WORD] {
        keccak256(&self.0)
    }
}

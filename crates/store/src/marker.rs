//! The file that says whose folder this is.
//!
//! A provider whose disk is not mounted sees an empty folder. Without the marker it would answer "absent" for everything
//! that it holds and be judged for that, or fill the disk below the mount point.

use seedbank_formats::DecodeError;
use seedbank_formats::codec::{Reader, Writer};
use std::fmt;

/// The marker's path.
pub(crate) const MARKER: &str = "marker";
/// Where it is written before it takes its name.
pub(crate) const MARKER_NEW: &str = "marker.new";
/// Bytes of a marker.
pub(crate) const MARKER_LEN: usize = 4 + 1 + 32 + 16;
const MAGIC: &[u8; 4] = b"SBSM";
const VERSION: u8 = 1;

/// Which store this is. A provider uses its public key, so that a folder under another key is noticed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub [u8; 32]);

impl fmt::Display for StoreId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "StoreId({self})")
    }
}

fn checksum(body: &[u8]) -> [u8; 16] {
    truncated(&blake3::hash(body))
}

/// The first half of a hash: enough against accidents, which is all that a local checksum is for.
pub(crate) fn truncated(hash: &blake3::Hash) -> [u8; 16] {
    hash.as_bytes()[..16].try_into().expect("half of 32 bytes")
}

/// The marker's bytes.
pub(crate) fn encode(store: StoreId) -> Vec<u8> {
    let mut writer = Writer::format(MAGIC, VERSION);
    writer.raw(&store.0);
    let mut bytes = writer.finish();
    let checksum = checksum(&bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

/// Reads a marker.
pub(crate) fn decode(bytes: &[u8]) -> Result<StoreId, DecodeError> {
    let (body, found) =
        bytes.split_last_chunk::<16>().ok_or(DecodeError::Truncated { format: "store marker" })?;
    let mut reader = Reader::format("store marker", MAGIC, VERSION, body)?;
    let store = StoreId(reader.array()?);
    if checksum(body) != *found {
        return Err(reader.invalid("the checksum does not match"));
    }
    reader.finish()?;
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::{MARKER_LEN, StoreId, decode, encode};
    use proptest::prelude::{any, proptest};

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = encode(StoreId([7; 32]));
        assert_eq!(bytes.len(), MARKER_LEN);
        assert_eq!(decode(&bytes), Ok(StoreId([7; 32])));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            assert!(decode(&bytes).is_err());
        }
    }
}

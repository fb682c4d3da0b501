//! The names of things: 32-byte hashes and keys, each its own type so that two kinds can't be mixed.
//!
//! An id is shown and parsed as lower-case hex. Ordering is byte order.

use std::fmt;
use std::str::FromStr;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind}: expected {digits} hex digits")]
pub struct ParseIdError {
    kind: &'static str,
    digits: usize,
}

/// Parses exactly `N` bytes of lower- or upper-case hex.
#[must_use]
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).expect("two hex digits make one byte");
    }
    Some(bytes)
}

pub(crate) fn write_hex(bytes: &[u8], out: &mut fmt::Formatter<'_>) -> fmt::Result {
    for byte in bytes {
        write!(out, "{byte:02x}")?;
    }
    Ok(())
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first eight hex digits, for people.
            #[must_use]
            pub fn short(&self) -> String {
                self.to_string()[..8].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, out)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<$name, ParseIdError> {
                from_hex(text).map($name).ok_or(ParseIdError { kind: $kind, digits: $len * 2 })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

bytes_id! {
    /// The plain BLAKE3 hash of a fragment's bytes (`b3sum` agrees).
    FragmentId, 32, "fragment id"
}
bytes_id! {
    /// What a chunk or a page is called: a keyed BLAKE3 hash of its plaintext. Never shown to a provider.
    ChunkId, 32, "chunk id"
}
bytes_id! {
    /// A dataset: BLAKE3 over its owner's key and 32 random bytes, fixed at creation.
    DatasetId, 32, "dataset id"
}
bytes_id! {
    /// A version: BLAKE3 over its canonical body.
    VersionId, 32, "version id"
}
bytes_id! {
    /// SHA-256 of a whole file, for the tools that speak it.
    Sha256, 32, "SHA-256"
}
bytes_id! {
    /// An Ed25519 public key (RFC 8032): who a peer, an owner or a reader is.
    PublicKey, 32, "public key"
}
bytes_id! {
    /// An Ed25519 signature (RFC 8032).
    Signature, 64, "signature"
}

impl FragmentId {
    /// The id of these fragment bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> FragmentId {
        FragmentId(*blake3::hash(bytes).as_bytes())
    }
}

impl VersionId {
    /// The git-like revision: the first 40 hex digits.
    #[must_use]
    pub fn revision(&self) -> String {
        self.to_string()[..40].to_owned()
    }
}

/// A segment's number inside its dataset, given out by the dataset's catalog in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct SegmentNumber(pub u64);

impl fmt::Display for SegmentNumber {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

/// Seconds since 1970-01-01 00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This time `seconds` later, at most the end of time.
    #[must_use]
    pub const fn plus_seconds(self, seconds: u64) -> Timestamp {
        Timestamp(self.0.saturating_add(seconds))
    }
}

/// When a client asked for something, in milliseconds since 1970 by its own clock, and never the same twice. Nobody compares
/// it with another clock: it only tells a late repeat of an old request from what the same client has asked since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Asked(pub u64);

impl Asked {
    /// As late as anything that is asked in this second.
    #[must_use]
    pub const fn within(second: Timestamp) -> Asked {
        Asked(second.0.saturating_mul(1000).saturating_add(999))
    }
}

impl fmt::Display for Timestamp {
    /// As RFC 3339, in UTC. The calendar arithmetic is Howard Hinnant's `civil_from_days`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second_of_day) = (self.0 / 86_400, self.0 % 86_400);
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
        write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::{ChunkId, Timestamp};

    #[test]
    fn id_reads_back_from_its_hex() {
        let id = ChunkId([0xab; 32]);
        assert_eq!(id.to_string().parse::<ChunkId>(), Ok(id));
        assert!("ab".parse::<ChunkId>().is_err());
        assert!("zz".repeat(32).parse::<ChunkId>().is_err());
        assert!("é".repeat(32).parse::<ChunkId>().is_err());
    }

    #[test]
    fn timestamps_are_shown_as_rfc_3339() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp(951_782_400).to_string(), "2000-02-29T00:00:00Z");
        assert_eq!(Timestamp(1_798_761_599).to_string(), "2026-12-31T23:59:59Z");
    }
}

//! Bytes as the EVM's tools write them: hex behind `0x`.

use seedbank_formats::from_hex;
use std::fmt::{self, Write};

/// Reads exactly `N` bytes of hex, with or without `0x`, in either case.
pub(crate) fn read<const N: usize>(text: &str) -> Option<[u8; N]> {
    from_hex(text.strip_prefix("0x").unwrap_or(text))
}

/// Writes `0x` and the bytes in lower case.
pub(crate) fn write(bytes: &[u8], out: &mut fmt::Formatter<'_>) -> fmt::Result {
    out.write_str("0x")?;
    digits(bytes, out)
}

/// Writes the bytes in lower case.
pub(crate) fn digits(bytes: &[u8], out: &mut impl Write) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
}

/// 32 bytes with a name, shown and read as hex behind `0x`.
macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl std::fmt::Display for $name {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                crate::hex::write(&self.0, out)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(out, "{}({self})", stringify!($name))
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
                let wrong = || serde::de::Error::custom(concat!($kind, " has 64 hex digits"));
                crate::hex::read(&text).map($name).ok_or_else(wrong)
            }
        }
    };
}
pub(crate) use word;

//! The one way we turn values into canonical bytes and back.
//!
//! Every stored or signed format is written with [`Writer`] and read with [`Reader`], so that a value has exactly one
//! encoding: integers are little-endian or minimal LEB128, lengths come first, nothing is optional by omission.
//! Decoding is total: it checks a length before slicing and a limit before allocating, and trailing bytes are an error.
//! There is deliberately no derive and no reflection here: a format is drawn field by field in `docs/formats/`, and
//! its code should read like that page.

/// Why bytes are not the format they were said to be. The caller can only discard them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("{format} is cut short")]
    Truncated {
        /// The format that was being read.
        format: &'static str,
    },
    /// The value is complete and bytes are left over.
    #[error("{format} has {extra} bytes after its end")]
    TrailingBytes {
        /// The format that was being read.
        format: &'static str,
        /// How many bytes are left.
        extra: usize,
    },
    /// The first bytes are not this format's magic.
    #[error("these bytes are not a {format}: wrong magic")]
    WrongMagic {
        /// The format that was expected.
        format: &'static str,
    },
    /// A version of the format that this build does not know.
    #[error("{format} version {found} is not known here: a newer seedbank wrote it")]
    UnknownVersion {
        /// The format that was being read.
        format: &'static str,
        /// The version found.
        found: u8,
    },
    /// A count or length is above the format's limit.
    #[error("{format}: {field} is {found}, the limit is {limit}")]
    OverLimit {
        /// The format that was being read.
        format: &'static str,
        /// The field at fault.
        field: &'static str,
        /// The value found.
        found: u64,
        /// The largest value allowed.
        limit: u64,
    },
    /// A field holds a value that the format forbids, or is not in canonical form.
    #[error("{format}: {reason}")]
    Invalid {
        /// The format that was being read.
        format: &'static str,
        /// What is wrong, as a sentence fragment.
        reason: &'static str,
    },
}

/// Appends fields in canonical form.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Starts a format: its 4-byte magic and its version.
    #[must_use]
    pub fn format(magic: &[u8; 4], version: u8) -> Writer {
        let mut writer = Writer::default();
        writer.raw(magic);
        writer.u8(version);
        writer
    }

    /// Nothing yet, and room for so many bytes. What is secret is written into enough room: a buffer that grows leaves
    /// copies behind that nobody wipes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Writer {
        Writer { bytes: Vec::with_capacity(bytes) }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// A boolean as 0 or 1.
    pub fn bool(&mut self, value: bool) {
        self.bytes.push(u8::from(value));
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// Unsigned LEB128 in its shortest form.
    pub fn varint(&mut self, mut value: u64) {
        loop {
            let low = (value & 0x7f).to_le_bytes()[0];
            value >>= 7;
            if value == 0 {
                self.bytes.push(low);
                return;
            }
            self.bytes.push(low | 0x80);
        }
    }

    /// A count or length, as a varint.
    pub fn len(&mut self, value: usize) {
        self.varint(value as u64);
    }

    /// Bytes as they are, without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A length and then the bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.len(bytes.len());
        self.raw(bytes);
    }

    /// A length and then UTF-8.
    pub fn str(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Bytes written so far.
    #[must_use]
    pub fn written(&self) -> usize {
        self.bytes.len()
    }

    /// The finished bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads fields that [`Writer`] wrote, and refuses anything else.
#[derive(Debug)]
pub struct Reader<'a> {
    format: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads a value that has no magic of its own; `format` names it in errors.
    #[must_use]
    pub fn bare(format: &'static str, bytes: &'a [u8]) -> Reader<'a> {
        Reader { format, rest: bytes }
    }

    /// Opens a format: checks magic and version.
    ///
    /// # Errors
    /// [`DecodeError::WrongMagic`], [`DecodeError::UnknownVersion`] or [`DecodeError::Truncated`].
    pub fn format(
        format: &'static str,
        magic: &[u8; 4],
        version: u8,
        bytes: &'a [u8],
    ) -> Result<Reader<'a>, DecodeError> {
        let mut reader = Reader { format, rest: bytes };
        if reader.array::<4>()? != *magic {
            return Err(DecodeError::WrongMagic { format });
        }
        let found = reader.u8()?;
        if found != version {
            return Err(DecodeError::UnknownVersion { format, found });
        }
        Ok(reader)
    }

    /// An error of this format.
    #[must_use]
    pub fn invalid(&self, reason: &'static str) -> DecodeError {
        DecodeError::Invalid { format: self.format, reason }
    }

    /// `count` bytes as they are.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn raw(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or(DecodeError::Truncated { format: self.format })?;
        self.rest = rest;
        Ok(taken)
    }

    /// `N` bytes as an array.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let taken = self.raw(N)?;
        Ok(taken.try_into().expect("raw returned exactly N bytes"))
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// A boolean, which must be 0 or 1.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] or [`DecodeError::Invalid`].
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.invalid("a boolean is neither 0 nor 1")),
        }
    }

    /// Four bytes, little-endian.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A minimal LEB128 integer.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], or [`DecodeError::Invalid`] when it is longer than needed or above 64 bits.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.invalid("an integer is above 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(self.invalid("an integer is longer than it needs to be"));
                }
                return Ok(value);
            }
        }
        Err(self.invalid("an integer is above 64 bits"))
    }

    /// A varint that must fit into 32 bits.
    ///
    /// # Errors
    /// As [`Reader::varint`], and [`DecodeError::OverLimit`].
    pub fn varint_u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        let found = self.varint()?;
        u32::try_from(found).map_err(|_| DecodeError::OverLimit {
            format: self.format,
            field,
            found,
            limit: u64::from(u32::MAX),
        })
    }

    /// A count of at most `limit`, for a field named `field`.
    ///
    /// # Errors
    /// [`DecodeError::OverLimit`] before anything is allocated, or as [`Reader::varint`].
    pub fn len(&mut self, field: &'static str, limit: usize) -> Result<usize, DecodeError> {
        let found = self.varint()?;
        match usize::try_from(found) {
            Ok(count) if count <= limit => Ok(count),
            _ => Err(DecodeError::OverLimit { format: self.format, field, found, limit: limit as u64 }),
        }
    }

    /// A count of items that each take at least `item_bytes`, so that it can't ask for more memory than came in.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], or as [`Reader::len`].
    pub fn count(
        &mut self,
        field: &'static str,
        limit: usize,
        item_bytes: usize,
    ) -> Result<usize, DecodeError> {
        let count = self.len(field, limit)?;
        if count.saturating_mul(item_bytes) > self.rest.len() {
            return Err(DecodeError::Truncated { format: self.format });
        }
        Ok(count)
    }

    /// A length of at most `limit` and then the bytes.
    ///
    /// # Errors
    /// [`DecodeError::OverLimit`] or [`DecodeError::Truncated`].
    pub fn bytes(&mut self, field: &'static str, limit: usize) -> Result<&'a [u8], DecodeError> {
        let count = self.len(field, limit)?;
        self.raw(count)
    }

    /// A length of at most `limit` bytes and then UTF-8.
    ///
    /// # Errors
    /// As [`Reader::bytes`], and [`DecodeError::Invalid`] when it is not UTF-8.
    pub fn str(&mut self, field: &'static str, limit: usize) -> Result<&'a str, DecodeError> {
        let bytes = self.bytes(field, limit)?;
        std::str::from_utf8(bytes).map_err(|_| self.invalid("text is not UTF-8"))
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Ends the reading: nothing may be left.
    ///
    /// # Errors
    /// [`DecodeError::TrailingBytes`].
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(DecodeError::TrailingBytes { format: self.format, extra: self.rest.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::{DecodeError, Reader, Writer};
    use proptest::prelude::{any, proptest};

    #[test]
    fn integer_longer_than_needed_is_refused() {
        let mut reader = Reader::bare("test", &[0x80, 0x00]);
        assert!(matches!(reader.varint(), Err(DecodeError::Invalid { .. })));
    }

    #[test]
    fn count_above_what_came_in_is_refused_before_allocating() {
        let mut writer = Writer::default();
        writer.varint(1_000_000);
        let bytes = writer.finish();
        let mut reader = Reader::bare("test", &bytes);
        assert!(matches!(reader.count("items", usize::MAX, 32), Err(DecodeError::Truncated { .. })));
    }

    #[test]
    fn bytes_left_over_are_refused() {
        let mut reader = Reader::bare("test", &[1, 2]);
        reader.u8().unwrap();
        assert_eq!(reader.finish(), Err(DecodeError::TrailingBytes { format: "test", extra: 1 }));
    }

    proptest! {
        #[test]
        fn varint_round_trips(value in any::<u64>()) {
            let mut writer = Writer::default();
            writer.varint(value);
            let bytes = writer.finish();
            let mut reader = Reader::bare("test", &bytes);
            assert_eq!(reader.varint(), Ok(value));
            reader.finish().unwrap();
        }

        #[test]
        fn hostile_varint_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut reader = Reader::bare("test", &bytes);
            if let Ok(value) = reader.varint() {
                let mut writer = Writer::default();
                writer.varint(value);
                let again = writer.finish();
                assert_eq!(again, bytes[..again.len()]);
            }
        }
    }
}

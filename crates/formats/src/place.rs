//! Where an item lies, and how one item points at another.
//!
//! A place is a segment and a position in that segment's footer: the footer says offset, length and id. Places are
//! not part of anything's identity. They change when segments are compacted, so trees and manifests never hold them.

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{ChunkId, SegmentNumber};
use crate::seal::page_id;

/// An item's place: a segment, and which item of that segment's footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The segment.
    pub segment: SegmentNumber,
    /// The item's position in the segment's footer.
    pub index: u32,
}

/// One chunk of a file: what it is called and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkRef {
    /// The Xet chunk hash of its plaintext.
    pub id: ChunkId,
    /// Bytes of its plaintext.
    pub len: u32,
}

/// A named item's place together with the hash of its plaintext.
///
/// A named item's id says nothing about its bytes, and of a public dataset everybody has the key: without the hash, a
/// provider could answer with an older item of the same name, or with one of its own making. With it, everything that
/// hangs on a signed head is pinned by the owner's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Where the item lies.
    pub place: Place,
    /// [`page_id`] of its plaintext.
    pub hash: ChunkId,
}

/// A named item that is not the one its link was made for. Another provider, or the range's proof, has to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the item is not the one that was linked: segment={}, item={}", .place.segment, .place.index)]
pub struct WrongItem {
    /// Where it was read.
    pub place: Place,
}

impl Place {
    pub(crate) fn write(self, writer: &mut Writer) {
        writer.varint(self.segment.0);
        writer.varint(u64::from(self.index));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Place, DecodeError> {
        let segment = SegmentNumber(reader.varint()?);
        Ok(Place { segment, index: reader.varint_u32("an item's position")? })
    }
}

impl Link {
    /// The link to a named item whose plaintext is `plain`.
    #[must_use]
    pub fn new(place: Place, plain: &[u8]) -> Link {
        Link { place, hash: page_id(plain) }
    }

    /// Checks the plaintext that was read at the link's place.
    ///
    /// # Errors
    /// [`WrongItem`] when it is not what was linked.
    pub fn check(&self, plain: &[u8]) -> Result<(), WrongItem> {
        if page_id(plain) == self.hash { Ok(()) } else { Err(WrongItem { place: self.place }) }
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        self.place.write(writer);
        writer.raw(self.hash.as_bytes());
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Link, DecodeError> {
        Ok(Link { place: Place::read(reader)?, hash: ChunkId(reader.array()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::{Link, Place};
    use crate::ids::SegmentNumber;

    #[test]
    fn an_older_item_of_the_same_name_is_refused() {
        let place = Place { segment: SegmentNumber(3), index: 4 };
        let link = Link::new(place, b"new");
        assert_eq!(link.check(b"new"), Ok(()));
        assert_eq!(link.check(b"old").unwrap_err().place, place);
    }
}

//! How a fragment lies on the disk: a checksummed header, the fragment's bytes, its outboard.
//!
//! The same record stands in a volume, where small fragments are packed one after another, and alone in a file for a
//! large one. The header names fragment and place under a checksum that only one store computes, so that records can be
//! told apart on a disk whose journal is gone. The store itself never decodes one: it knows from the index what each
//! header must be, and compares. Data and outboard need no checksum: the fragment's id is the root of the tree over them.

use crate::marker::{StoreId, truncated};
use seedbank_formats::codec::Writer;
use seedbank_formats::{FragmentId, slice};

/// Bytes of a header.
pub(crate) const HEADER_LEN: u64 = 80;
const MAGIC: &[u8; 4] = b"SBSR";
const VERSION: u8 = 1;

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// In a volume, its header at `offset`.
    Volume {
        /// Which one.
        number: u32,
        /// First byte of the header.
        offset: u32,
    },
    /// Alone in a file. No two files of one store have the same generation.
    Loose {
        /// Which attempt at a file this is.
        generation: u64,
    },
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The root over the record's data.
    pub(crate) id: FragmentId,
    /// Bytes of data.
    pub(crate) length: u32,
    /// Where the record was written to.
    pub(crate) place: Place,
}

/// The key of one store's header checksums.
#[derive(Clone)]
pub(crate) struct RecordKey([u8; 32]);

impl RecordKey {
    /// The key of this store.
    pub(crate) fn new(store: StoreId) -> RecordKey {
        RecordKey(blake3::derive_key("seedbank v1 store record header", &store.0))
    }
}

impl Header {
    /// The header's bytes.
    pub(crate) fn encode(&self, key: &RecordKey) -> Vec<u8> {
        let mut writer = Writer::format(MAGIC, VERSION);
        let (kind, number, offset) = match self.place {
            Place::Volume { number, offset } => (0, u64::from(number), u64::from(offset)),
            Place::Loose { generation } => (1, generation, 0),
        };
        writer.u8(kind);
        writer.raw(&[0; 2]);
        writer.raw(self.id.as_bytes());
        writer.u64(u64::from(self.length));
        writer.u64(number);
        writer.u64(offset);
        let mut bytes = writer.finish();
        let checksum = truncated(&blake3::keyed_hash(&key.0, &bytes));
        bytes.extend_from_slice(&checksum);
        bytes
    }
}

/// Bytes of a whole record of `length` bytes of data.
pub(crate) fn record_len(length: u32) -> u64 {
    HEADER_LEN + u64::from(length) + slice::outboard_len(u64::from(length))
}

/// The file of a volume.
pub(crate) fn volume_path(number: u32) -> String {
    format!("{VOLUMES}/{number:08x}")
}

/// The volume that a file name in [`VOLUMES`] stands for.
pub(crate) fn volume_number(name: &str) -> Option<u32> {
    let number = u32::from_str_radix(name, 16).ok()?;
    (format!("{number:08x}") == name).then_some(number)
}

/// The folder of volumes.
pub(crate) const VOLUMES: &str = "volumes";
/// The folder of the folders of loose files.
pub(crate) const LOOSE: &str = "loose";

/// The folders of loose files: one for each first byte of a fragment id, so that none grows beyond reason.
pub(crate) fn loose_dirs() -> impl Iterator<Item = String> {
    (0..=u8::MAX).map(loose_dir)
}

fn loose_dir(first: u8) -> String {
    format!("{LOOSE}/{first:02x}")
}

/// The folder of a fragment's loose file.
pub(crate) fn loose_dir_of(id: &FragmentId) -> String {
    loose_dir(id.as_bytes()[0])
}

/// A fragment's loose file.
pub(crate) fn loose_path(id: &FragmentId, generation: u64) -> String {
    format!("{}/{}", loose_dir_of(id), loose_name(id, generation))
}

/// The name of a fragment's loose file in its folder.
pub(crate) fn loose_name(id: &FragmentId, generation: u64) -> String {
    format!("{id}-{generation:x}")
}

/// The file that a record lies in, and where in it its header begins.
pub(crate) fn file_of(id: &FragmentId, place: Place) -> (String, u64) {
    match place {
        Place::Volume { number, offset } => (volume_path(number), u64::from(offset)),
        Place::Loose { generation } => (loose_path(id, generation), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::{HEADER_LEN, Header, Place, RecordKey, volume_number, volume_path};
    use crate::marker::StoreId;
    use seedbank_formats::FragmentId;

    #[test]
    fn header_differs_by_store_fragment_and_place() {
        let key = RecordKey::new(StoreId([9; 32]));
        let place = Place::Volume { number: 3, offset: 4096 };
        let header = Header { id: FragmentId([1; 32]), length: 70_000, place };
        let bytes = header.encode(&key);
        assert_eq!(bytes.len() as u64, HEADER_LEN);
        let others = [
            Header { id: FragmentId([2; 32]), ..header }.encode(&key),
            Header { length: 70_001, ..header }.encode(&key),
            Header { place: Place::Volume { number: 3, offset: 4097 }, ..header }.encode(&key),
            Header { place: Place::Loose { generation: 3 }, ..header }.encode(&key),
            header.encode(&RecordKey::new(StoreId([8; 32]))),
        ];
        for other in others {
            assert_ne!(other[64..], bytes[64..], "the checksum covers everything");
        }
    }

    #[test]
    fn volume_is_known_by_its_name_only_in_full() {
        assert_eq!(volume_path(0x1f), "volumes/0000001f");
        assert_eq!(volume_number("0000001f"), Some(0x1f));
        assert_eq!(volume_number("1f"), None);
        assert_eq!(volume_number("+000001f"), None);
    }
}

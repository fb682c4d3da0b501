//! The journal's words: each is one change of the index.
//!
//! Public keys are written once and then named by a small number, because a provider with a million fragments has a
//! handful of clients.

use crate::record::Place;
use seedbank_formats::codec::{Reader, Writer};
use seedbank_formats::{Asked, DatasetId, DecodeError, FragmentId, PublicKey, Timestamp};

const FORMAT: &str = "store journal";

/// The number that a public key goes by in one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyNumber(pub(crate) u32);

/// Who may read, with keys as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimAccess {
    Owner,
    Public,
    Reader(KeyNumber),
}

/// A client's claim, with keys as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) client: KeyNumber,
    pub(crate) access: ClaimAccess,
    pub(crate) until: Timestamp,
    /// When the client last asked for it.
    pub(crate) asked: Asked,
}

/// The newest head of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) sequence: u64,
    /// The root over the head's bytes, which lie in a record like a fragment's.
    pub(crate) id: FragmentId,
    pub(crate) length: u32,
    /// `None`: its bytes are lost.
    pub(crate) place: Option<Place>,
}

/// One change of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// This number stands for this key from now on.
    Key { number: KeyNumber, key: PublicKey },
    /// The fragment's bytes are here and right. A new fragment has no claim yet.
    Placed { id: FragmentId, length: u32, place: Place },
    /// The client's claim is now this one.
    Claimed { id: FragmentId, claim: Claim },
    /// The client's claim is gone; with the last one the fragment goes to trash, since `at`.
    Released { id: FragmentId, client: KeyNumber, at: Timestamp },
    /// The fragment, which has no claim, lies in trash since then.
    Trashed { id: FragmentId, since: Timestamp },
    /// The fragment, which has no claim, is forgotten.
    Freed { id: FragmentId },
    /// The fragment's bytes are here now, in whatever state they were; `None`: they are lost.
    Moved { id: FragmentId, place: Option<Place> },
    /// The fragment's bytes don't match its id any more.
    Rotten { id: FragmentId },
    /// The dataset's head is now this one.
    Head { dataset: DatasetId, head: Head },
}

impl Entry {
    /// Appends the entry.
    pub(crate) fn write(&self, writer: &mut Writer) {
        match self {
            Entry::Key { number, key } => {
                writer.u8(0);
                write_number(*number, writer);
                writer.raw(key.as_bytes());
            }
            Entry::Placed { id, length, place } => {
                writer.u8(1);
                writer.raw(id.as_bytes());
                writer.varint(u64::from(*length));
                write_place(Some(*place), writer);
            }
            Entry::Claimed { id, claim } => {
                writer.u8(2);
                writer.raw(id.as_bytes());
                write_number(claim.client, writer);
                writer.varint(match claim.access {
                    ClaimAccess::Owner => 0,
                    ClaimAccess::Public => 1,
                    ClaimAccess::Reader(KeyNumber(number)) => 2 + u64::from(number),
                });
                writer.varint(claim.until.0);
                writer.varint(claim.asked.0);
            }
            Entry::Released { id, client, at } => {
                writer.u8(3);
                writer.raw(id.as_bytes());
                write_number(*client, writer);
                writer.varint(at.0);
            }
            Entry::Trashed { id, since } => {
                writer.u8(4);
                writer.raw(id.as_bytes());
                writer.varint(since.0);
            }
            Entry::Freed { id } => {
                writer.u8(5);
                writer.raw(id.as_bytes());
            }
            Entry::Moved { id, place } => {
                writer.u8(6);
                writer.raw(id.as_bytes());
                write_place(*place, writer);
            }
            Entry::Rotten { id } => {
                writer.u8(7);
                writer.raw(id.as_bytes());
            }
            Entry::Head { dataset, head } => {
                writer.u8(8);
                writer.raw(dataset.as_bytes());
                writer.varint(head.sequence);
                writer.raw(head.id.as_bytes());
                writer.varint(u64::from(head.length));
                write_place(head.place, writer);
            }
        }
    }

    /// Reads one entry.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Entry, DecodeError> {
        Ok(match reader.u8()? {
            0 => Entry::Key { number: read_number(reader)?, key: PublicKey(reader.array()?) },
            1 => {
                let (id, length) = (read_id(reader)?, reader.varint_u32("length")?);
                let place =
                    read_place(reader)?.ok_or_else(|| reader.invalid("a placed fragment has no place"))?;
                Entry::Placed { id, length, place }
            }
            2 => {
                let (id, client) = (read_id(reader)?, read_number(reader)?);
                let access = match reader.varint()? {
                    0 => ClaimAccess::Owner,
                    1 => ClaimAccess::Public,
                    number => ClaimAccess::Reader(KeyNumber(
                        u32::try_from(number - 2)
                            .map_err(|_| reader.invalid("a key's number is above 32 bits"))?,
                    )),
                };
                let (until, asked) = (read_time(reader)?, Asked(reader.varint()?));
                Entry::Claimed { id, claim: Claim { client, access, until, asked } }
            }
            3 => {
                Entry::Released { id: read_id(reader)?, client: read_number(reader)?, at: read_time(reader)? }
            }
            4 => Entry::Trashed { id: read_id(reader)?, since: read_time(reader)? },
            5 => Entry::Freed { id: read_id(reader)? },
            6 => Entry::Moved { id: read_id(reader)?, place: read_place(reader)? },
            7 => Entry::Rotten { id: read_id(reader)? },
            8 => Entry::Head {
                dataset: DatasetId(reader.array()?),
                head: Head {
                    sequence: reader.varint()?,
                    id: read_id(reader)?,
                    length: reader.varint_u32("length")?,
                    place: read_place(reader)?,
                },
            },
            _ => return Err(reader.invalid("an entry of an unknown kind")),
        })
    }
}

fn write_number(KeyNumber(number): KeyNumber, writer: &mut Writer) {
    writer.varint(u64::from(number));
}

fn read_number(reader: &mut Reader<'_>) -> Result<KeyNumber, DecodeError> {
    Ok(KeyNumber(reader.varint_u32("key number")?))
}

fn read_id(reader: &mut Reader<'_>) -> Result<FragmentId, DecodeError> {
    Ok(FragmentId(reader.array()?))
}

fn read_time(reader: &mut Reader<'_>) -> Result<Timestamp, DecodeError> {
    Ok(Timestamp(reader.varint()?))
}

fn write_place(place: Option<Place>, writer: &mut Writer) {
    match place {
        None => writer.u8(0),
        Some(Place::Volume { number, offset }) => {
            writer.u8(1);
            writer.varint(u64::from(number));
            writer.varint(u64::from(offset));
        }
        Some(Place::Loose { generation }) => {
            writer.u8(2);
            writer.varint(generation);
        }
    }
}

fn read_place(reader: &mut Reader<'_>) -> Result<Option<Place>, DecodeError> {
    match reader.u8()? {
        0 => Ok(None),
        1 => Ok(Some(Place::Volume {
            number: reader.varint_u32("volume")?,
            offset: reader.varint_u32("offset")?,
        })),
        2 => Ok(Some(Place::Loose { generation: reader.varint()? })),
        _ => Err(reader.invalid("a place of an unknown kind")),
    }
}

/// All entries of a frame's payload.
pub(crate) fn read_all(payload: &[u8]) -> Result<Vec<Entry>, DecodeError> {
    let mut reader = Reader::bare(FORMAT, payload);
    let mut entries = Vec::new();
    while reader.remaining() > 0 {
        entries.push(Entry::read(&mut reader)?);
    }
    Ok(entries)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Claim, ClaimAccess, Entry, Head, KeyNumber, read_all};
    use crate::record::Place;
    use proptest::prelude::{any, proptest};
    use seedbank_formats::codec::Writer;
    use seedbank_formats::{Asked, DatasetId, FragmentId, PublicKey, Timestamp};

    /// One entry of every kind.
    pub(crate) fn every_kind() -> Vec<Entry> {
        let id = FragmentId([1; 32]);
        let volume = Place::Volume { number: 2, offset: 300 };
        let (until, asked) = (Timestamp(1_900_000_000), Asked(1_899_999_999_999));
        let claim = |access| Claim { client: KeyNumber(0), access, until, asked };
        vec![
            Entry::Key { number: KeyNumber(0), key: PublicKey([2; 32]) },
            Entry::Placed { id, length: 65_536, place: volume },
            Entry::Claimed { id, claim: claim(ClaimAccess::Owner) },
            Entry::Claimed { id, claim: claim(ClaimAccess::Public) },
            Entry::Claimed { id, claim: claim(ClaimAccess::Reader(KeyNumber(7))) },
            Entry::Released { id, client: KeyNumber(0), at: Timestamp(1_900_000_001) },
            Entry::Trashed { id, since: Timestamp(1_900_000_002) },
            Entry::Freed { id },
            Entry::Moved { id, place: Some(Place::Loose { generation: 400 }) },
            Entry::Moved { id, place: None },
            Entry::Rotten { id },
            Entry::Head {
                dataset: DatasetId([3; 32]),
                head: Head { sequence: 5, id, length: 900, place: Some(volume) },
            },
        ]
    }

    #[test]
    fn every_kind_reads_back() {
        let mut writer = Writer::default();
        every_kind().iter().for_each(|entry| entry.write(&mut writer));
        assert_eq!(read_all(&writer.finish()).unwrap(), every_kind());
    }

    proptest! {
        #[test]
        fn hostile_entries_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(entries) = read_all(&bytes) {
                let mut writer = Writer::default();
                entries.iter().for_each(|entry| entry.write(&mut writer));
                assert_eq!(writer.finish(), bytes);
            }
        }
    }
}

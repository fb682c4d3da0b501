//! The catalog's checkpoint: what an owner's new machine, or a reader without the owner, must know of a dataset beside
//! its newest version.
//!
//! One named item ([`checkpoint_id`]), written with every commit, holds counters and settings and the roots of two
//! numbered trees: the list of versions, and the list of branches and tags. It is pinned by the link in the signed head.
//! It does not hold what can be rebuilt (the deduplication index) or found again (providers). `docs/formats/checkpoint.md`
//! draws it.

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{ChunkId, SegmentNumber, VersionId};
use crate::keys::KeyEpoch;
use crate::layout::ChildPlace;
use crate::numbered::{Root, root_level};
use crate::place::Place;
use crate::policy::Policy;
use crate::seal::named_id;
use std::fmt;
use std::str::FromStr;

const MAGIC: &[u8; 4] = b"SBCP";
const FORMAT_VERSION: u8 = 1;
const NAME: &str = "checkpoint";

/// Longest name of a dataset, a branch or a tag in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// Who may read a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Everyone: it is sealed under the published key.
    Public,
    /// Who holds its key.
    Private,
}

/// What a dataset's catalog knows, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// What the owner calls the dataset. A pointer: its id is what it is.
    pub name: String,
    /// Who may read it.
    pub visibility: Visibility,
    /// The key epoch of new data.
    pub epoch: KeyEpoch,
    /// The least segment number that was never given out.
    pub next_segment: SegmentNumber,
    /// What new versions ask for unless told otherwise.
    pub policy: Policy,
    /// The list of versions, by ordinal.
    pub versions: Option<Root>,
    /// Ordinals given out; removed versions keep theirs, with an empty record.
    pub version_count: u64,
    /// The list of refs, by slot.
    pub refs: Option<Root>,
    /// Slots given out; removed refs leave theirs empty.
    pub ref_count: u64,
    /// The slot of the branch that a reader gets who asks for none.
    pub default_ref: Option<u64>,
}

/// The id under which a dataset's checkpoint is sealed.
#[must_use]
pub fn checkpoint_id() -> ChunkId {
    named_id(b"checkpoint")
}

impl Checkpoint {
    /// The checkpoint's bytes.
    ///
    /// # Panics
    /// When a list's root does not fit its count, or the name is too long: the catalog makes no such.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.is_consistent(), "a checkpoint's roots fit its counts, and its name is short");
        let mut writer = Writer::format(MAGIC, FORMAT_VERSION);
        writer.str(&self.name);
        writer.bool(self.visibility == Visibility::Public);
        writer.u32(self.epoch.0);
        writer.u64(self.next_segment.0);
        self.policy.write(&mut writer);
        for (count, root) in [(self.version_count, &self.versions), (self.ref_count, &self.refs)] {
            writer.u64(count);
            if let Some(root) = root {
                root.write(&mut writer);
            }
        }
        writer.varint(self.default_ref.map_or(0, |slot| slot + 1));
        writer.finish()
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are no checkpoint.
    pub fn decode(bytes: &[u8]) -> Result<Checkpoint, DecodeError> {
        let mut reader = Reader::format(NAME, MAGIC, FORMAT_VERSION, bytes)?;
        let name = reader.str("the name", NAME_BYTES_MAX)?.to_owned();
        let visibility = if reader.bool()? { Visibility::Public } else { Visibility::Private };
        let epoch = KeyEpoch(reader.u32()?);
        let next_segment = SegmentNumber(reader.u64()?);
        let policy = Policy::read(&mut reader)?;
        let (version_count, versions) = read_list(&mut reader)?;
        let (ref_count, refs) = read_list(&mut reader)?;
        let default_ref = reader.varint()?.checked_sub(1);
        let checkpoint = Checkpoint {
            name,
            visibility,
            epoch,
            next_segment,
            policy,
            versions,
            version_count,
            refs,
            ref_count,
            default_ref,
        };
        if !checkpoint.is_consistent() {
            return Err(reader.invalid("a list's root does not fit its count"));
        }
        reader.finish()?;
        Ok(checkpoint)
    }

    fn is_consistent(&self) -> bool {
        let fits = |root: &Option<Root>, count| root.map(|root| root.level) == root_level(count);
        fits(&self.versions, self.version_count)
            && fits(&self.refs, self.ref_count)
            && self.default_ref.is_none_or(|slot| slot < self.ref_count)
            && self.name.len() <= NAME_BYTES_MAX
    }
}

fn read_list(reader: &mut Reader<'_>) -> Result<(u64, Option<Root>), DecodeError> {
    let count = reader.u64()?;
    let root = if count > 0 { Some(Root::read(reader)?) } else { None };
    Ok((count, root))
}

/// A record of the list of versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionRecord {
    /// The version.
    pub id: VersionId,
    /// Where its signed bytes lie.
    pub version: Place,
    /// Where its tree's root page and that page's layout lie.
    pub tree: ChildPlace,
    /// Bytes that were sealed for it and that no earlier version had.
    pub new_bytes: u64,
    /// What those take on all providers together.
    pub stored_bytes: u64,
}

impl VersionRecord {
    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.raw(self.id.as_bytes());
        self.version.write(&mut writer);
        self.tree.write(&mut writer);
        writer.varint(self.new_bytes);
        writer.varint(self.stored_bytes);
        writer.finish()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are no record of a version.
    pub fn decode(bytes: &[u8]) -> Result<VersionRecord, DecodeError> {
        let mut reader = Reader::bare("version record", bytes);
        let record = VersionRecord {
            id: VersionId(reader.array()?),
            version: Place::read(&mut reader)?,
            tree: ChildPlace::read(&mut reader)?,
            new_bytes: reader.varint()?,
            stored_bytes: reader.varint()?,
        };
        reader.finish()?;
        Ok(record)
    }
}

/// What a ref is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefKind {
    /// It moves with every commit to it.
    Branch,
    /// It stays where it was set.
    Tag,
}

/// The name of a branch or a tag: 1 to 255 bytes, with no white space, no control character and none of `@ : \`, which
/// would make `NAME@REF:PATH` ambiguous.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefName(String);

/// A text that can't name a branch or a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} can't name a branch or tag: use 1 to 255 bytes without spaces and without @ : \\")]
pub struct RefNameError(String);

impl RefName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RefName {
    type Err = RefNameError;

    fn from_str(text: &str) -> Result<RefName, RefNameError> {
        let is_wrong =
            |letter: char| letter.is_whitespace() || letter.is_control() || "@:\\".contains(letter);
        if text.is_empty() || text.len() > NAME_BYTES_MAX || text.contains(is_wrong) {
            return Err(RefNameError(text.to_owned()));
        }
        Ok(RefName(text.to_owned()))
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl serde::Serialize for RefName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for RefName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<RefName, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A record of the list of refs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefRecord {
    /// What it is called.
    pub name: RefName,
    /// Whether it moves.
    pub kind: RefKind,
    /// The version that it names.
    pub version: VersionId,
    /// That version's place in the list of versions.
    pub ordinal: u64,
}

impl RefRecord {
    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.str(self.name.as_str());
        writer.bool(self.kind == RefKind::Tag);
        writer.raw(self.version.as_bytes());
        writer.varint(self.ordinal);
        writer.finish()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are no record of a ref.
    pub fn decode(bytes: &[u8]) -> Result<RefRecord, DecodeError> {
        let mut reader = Reader::bare("ref record", bytes);
        let name = reader.str("the name", NAME_BYTES_MAX)?;
        let name = name.parse().map_err(|_| reader.invalid("a text can't name a ref"))?;
        let kind = if reader.bool()? { RefKind::Tag } else { RefKind::Branch };
        let record = RefRecord { name, kind, version: VersionId(reader.array()?), ordinal: reader.varint()? };
        reader.finish()?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::{Checkpoint, RefKind, RefName, RefRecord, VersionRecord, Visibility, checkpoint_id};
    use crate::golden;
    use crate::ids::{SegmentNumber, VersionId};
    use crate::keys::KeyEpoch;
    use crate::layout::ChildPlace;
    use crate::numbered::{RECORD_BYTES_MAX, Root};
    use crate::place::{Link, Place};
    use crate::policy::Policy;
    use proptest::prelude::{any, proptest};

    fn place(index: u32) -> Place {
        Place { segment: SegmentNumber(90), index }
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            name: "pinguine".to_owned(),
            visibility: Visibility::Private,
            epoch: KeyEpoch(1),
            next_segment: SegmentNumber(91),
            policy: Policy::default(),
            versions: Some(Root { level: 1, link: Link::new(place(4), b"versions") }),
            version_count: 65,
            refs: Some(Root { level: 0, link: Link::new(place(5), b"refs") }),
            ref_count: 2,
            default_ref: Some(0),
        }
    }

    fn version_record() -> VersionRecord {
        VersionRecord {
            id: VersionId([3; 32]),
            version: place(2),
            tree: ChildPlace { page: place(0), layout: place(1) },
            new_bytes: 40_000,
            stored_bytes: 90_000,
        }
    }

    fn ref_record() -> RefRecord {
        RefRecord {
            name: "release/2".parse().unwrap(),
            kind: RefKind::Tag,
            version: VersionId([4; 32]),
            ordinal: 64,
        }
    }

    #[test]
    fn checkpoint_and_records_have_the_bytes_of_the_vectors() {
        let vectors = include_str!("../../../testdata/checkpoint.txt");
        let empty = Checkpoint {
            versions: None,
            version_count: 0,
            refs: None,
            ref_count: 0,
            default_ref: None,
            ..checkpoint()
        };
        for (name, checkpoint) in [("checkpoint", checkpoint()), ("checkpoint-empty", empty)] {
            golden::check(vectors, name, &checkpoint.encode());
            assert_eq!(Checkpoint::decode(&checkpoint.encode()), Ok(checkpoint));
        }
        golden::check(vectors, "version-record", &version_record().encode());
        assert_eq!(VersionRecord::decode(&version_record().encode()), Ok(version_record()));
        golden::check(vectors, "ref-record", &ref_record().encode());
        assert_eq!(RefRecord::decode(&ref_record().encode()), Ok(ref_record()));
        golden::check(vectors, "checkpoint-id", checkpoint_id().as_bytes());
    }

    #[test]
    fn a_root_that_does_not_fit_its_count_is_refused() {
        let mut bytes = checkpoint().encode();
        // The count of versions follows magic, version, name, visibility, epoch, next segment and policy.
        let at = 5 + 9 + 1 + 4 + 8 + 6;
        assert_eq!(bytes[at], 65);
        bytes[at] = 64;
        assert!(Checkpoint::decode(&bytes).is_err());
    }

    #[test]
    fn names_that_make_a_reference_ambiguous_are_refused() {
        for text in ["", "a b", "a@b", "a:b", "a\\b", "a\nb", &"x".repeat(256)] {
            assert!(text.parse::<RefName>().is_err(), "{text:?}");
        }
        let longest =
            RefRecord { name: "é".repeat(127).parse().unwrap(), ordinal: u64::MAX, ..ref_record() };
        assert!(longest.encode().len() <= RECORD_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for bytes in [bytes.clone(), [b"SBCP\x01".as_slice(), &bytes].concat()] {
                if let Ok(checkpoint) = Checkpoint::decode(&bytes) {
                    assert_eq!(checkpoint.encode(), bytes);
                }
                if let Ok(record) = VersionRecord::decode(&bytes) {
                    assert_eq!(record.encode(), bytes);
                }
                if let Ok(record) = RefRecord::decode(&bytes) {
                    assert_eq!(record.encode(), bytes);
                }
            }
        }

        #[test]
        fn flipped_checkpoints_are_refused_or_canonical(at in any::<usize>(), bit in 0u8..8) {
            let mut bytes = checkpoint().encode();
            let index = at % bytes.len();
            bytes[index] ^= 1 << bit;
            if let Ok(checkpoint) = Checkpoint::decode(&bytes) {
                assert_eq!(checkpoint.encode(), bytes);
            }
        }
    }
}

//! A head: the signed record from which a reader with the key, and nobody else's help, finds everything of a dataset.
//!
//! Providers keep the head with the highest sequence that a dataset's owner signed, and see of it only what stands in
//! clear: owner, sequence, time and key epoch. The sealed body leads on: to the newest version and its tree, to the
//! placement map, and to the checkpoint. Its *locator* carries the placements of the segments that must be read before
//! the map can be; above all of the newest segment, which the map inside it can't list, since a segment can't name the
//! hashes of its own fragments. Named items are linked by hash, so all that is reached from a head is the owner's word.
//!
//! Which head is the newest is not decided here: readers ask several providers and take the highest sequence.
//! `docs/formats/head.md` draws it.

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{DatasetId, PublicKey, SegmentNumber, Timestamp, VersionId};
use crate::keys::{KeyEpoch, SealKeys, SignatureDomain, SigningKey, dataset_id};
use crate::layout::ChildPlace;
use crate::numbered::Root;
use crate::place::{Link, Place};
use crate::placement::{Hints, ReadProviders, SegmentPlacement, write_providers};
use crate::receipt::{SignedError, signed, split};
use crate::seal::{open_part, seal_part};

const MAGIC: &[u8; 4] = b"SBHD";
const FORMAT_VERSION: u8 = 1;
const NAME: &str = "head";
const BODY: &str = "head body";
/// Names the body's sealing key.
const PART: &[u8] = b"head body";

/// The largest head. Providers keep one of each dataset in memory's reach, and refuse more.
pub const HEAD_BYTES_MAX: usize = 256 * 1024;

/// A head whose signature was checked. Its body is still sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    owner: PublicKey,
    salt: [u8; 32],
    sequence: u64,
    time: Timestamp,
    epoch: KeyEpoch,
    body: Vec<u8>,
}

/// What a head's body says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadBody {
    /// The newest version; `None` before the first.
    pub version: Option<HeadVersion>,
    /// The placement map's root, which lies in a segment of the locator; `None` while all segments are in the locator.
    pub map: Option<Root>,
    /// The catalog's checkpoint.
    pub checkpoint: Link,
    /// Placements of the segments that are needed before the map can be read, by rising number. What stands here goes
    /// before what the map says.
    pub locator: Vec<SegmentPlacement>,
    /// Where the locator's holders were last reached. Of other providers none is written.
    pub hints: Hints,
}

/// Where the newest version is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadVersion {
    /// The version.
    pub id: VersionId,
    /// Where its signed bytes lie.
    pub version: Place,
    /// Where its tree's root page and that page's layout lie.
    pub tree: ChildPlace,
}

/// Why a head can't be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignHeadError {
    /// The keys are another dataset's than owner and salt name.
    #[error("the keys belong to dataset {keys}, owner and salt name {dataset}")]
    WrongDataset {
        /// The keys' dataset.
        keys: DatasetId,
        /// The dataset of owner and salt.
        dataset: DatasetId,
    },
    /// The locator is not sorted, or lacks the segment of the map's root.
    #[error("the locator is not sorted, or lacks the segment of the map's root")]
    Locator,
    /// The locator is too long: the roots must be written to fewer segments.
    #[error("the head has {bytes} bytes, the limit is {HEAD_BYTES_MAX}")]
    TooLarge {
        /// How many it has.
        bytes: usize,
    },
}

/// Why a head's body can't be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenHeadError {
    /// The keys are of another dataset, or of another epoch than the head was sealed in: get those of `epoch`.
    #[error("the keys are not those of dataset {dataset}, epoch {}", .epoch.0)]
    WrongKeys {
        /// The head's dataset.
        dataset: DatasetId,
        /// The head's key epoch.
        epoch: KeyEpoch,
    },
    /// The owner signed a body that these keys did not seal: the secret is not the dataset's.
    #[error("the head's seal does not open with this secret")]
    Seal,
    /// The body is no head body: its owner wrote it like this.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl Head {
    /// Seals a body and signs it as the head of the dataset of `owner` and `salt`.
    ///
    /// # Errors
    /// [`SignHeadError`] when it would not be accepted or not read back.
    pub fn sign(
        body: &HeadBody,
        keys: &SealKeys,
        owner: &SigningKey,
        salt: &[u8; 32],
        sequence: u64,
        time: Timestamp,
    ) -> Result<Vec<u8>, SignHeadError> {
        let dataset = dataset_id(&owner.public(), salt);
        if *keys.dataset() != dataset {
            return Err(SignHeadError::WrongDataset { keys: *keys.dataset(), dataset });
        }
        if !body.has_usable_locator() {
            return Err(SignHeadError::Locator);
        }
        let mut sealed = Vec::new();
        seal_part(keys, PART, &body.encode(), &mut sealed);
        let mut writer = Writer::format(MAGIC, FORMAT_VERSION);
        owner.public().write(&mut writer);
        writer.raw(salt);
        writer.u64(sequence);
        writer.u64(time.0);
        writer.u32(keys.epoch().0);
        writer.bytes(&sealed);
        let bytes = signed(writer.finish(), SignatureDomain::Head, owner);
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(SignHeadError::TooLarge { bytes: bytes.len() });
        }
        Ok(bytes)
    }

    /// Reads a head and checks the owner's signature. Whether it is the head of the dataset wanted is for the caller to
    /// compare ([`Head::dataset`]).
    ///
    /// # Errors
    /// [`SignedError`] when the bytes are no head or the signature does not fit.
    pub fn check(bytes: &[u8]) -> Result<Head, SignedError> {
        if bytes.len() > HEAD_BYTES_MAX {
            let (found, limit) = (bytes.len() as u64, HEAD_BYTES_MAX as u64);
            return Err(DecodeError::OverLimit { format: NAME, field: "length", found, limit }.into());
        }
        let (signed, signature) = split(bytes, NAME)?;
        let mut reader = Reader::format(NAME, MAGIC, FORMAT_VERSION, signed)?;
        let owner = PublicKey::read(&mut reader)?;
        let salt = reader.array()?;
        let sequence = reader.u64()?;
        let time = Timestamp(reader.u64()?);
        let epoch = KeyEpoch(reader.u32()?);
        let body = reader.bytes("the body", HEAD_BYTES_MAX)?.to_vec();
        reader.finish()?;
        owner.verify(SignatureDomain::Head, signed, &signature)?;
        Ok(Head { owner, salt, sequence, time, epoch, body })
    }

    /// Who signed.
    #[must_use]
    pub fn owner(&self) -> PublicKey {
        self.owner
    }

    /// What the dataset's id is made of beside the owner's key.
    #[must_use]
    pub fn salt(&self) -> &[u8; 32] {
        &self.salt
    }

    /// The dataset that owner and salt name.
    #[must_use]
    pub fn dataset(&self) -> DatasetId {
        dataset_id(&self.owner, &self.salt)
    }

    /// Of two heads of one dataset the one with the higher sequence is newer.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// When it was signed, by the owner's clock.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// The key epoch that its body is sealed in.
    #[must_use]
    pub fn epoch(&self) -> KeyEpoch {
        self.epoch
    }

    /// Opens the body.
    ///
    /// # Errors
    /// [`OpenHeadError`] says what is wrong, and which keys are needed.
    pub fn open(&self, keys: &SealKeys) -> Result<HeadBody, OpenHeadError> {
        let (dataset, epoch) = (self.dataset(), self.epoch);
        if *keys.dataset() != dataset || keys.epoch() != epoch {
            return Err(OpenHeadError::WrongKeys { dataset, epoch });
        }
        let body = open_part(keys, PART, &self.body).map_err(|_| OpenHeadError::Seal)?;
        Ok(HeadBody::decode(&body)?)
    }
}

impl HeadBody {
    /// A segment's placement, if the locator has it. If not, the map does.
    #[must_use]
    pub fn placement(&self, segment: SegmentNumber) -> Option<&SegmentPlacement> {
        self.locator.iter().find(|placement| placement.number == segment)
    }

    fn has_usable_locator(&self) -> bool {
        self.locator.is_sorted_by(|a, b| a.number < b.number)
            && self.map.is_none_or(|map| self.placement(map.link.place.segment).is_some())
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bool(self.version.is_some());
        if let Some(HeadVersion { id, version, tree }) = &self.version {
            writer.raw(id.as_bytes());
            version.write(&mut writer);
            tree.write(&mut writer);
        }
        writer.bool(self.map.is_some());
        if let Some(map) = &self.map {
            map.write(&mut writer);
        }
        self.checkpoint.write(&mut writer);
        let providers = write_providers(self.locator.iter(), &self.hints, &mut writer);
        writer.len(self.locator.len());
        for placement in &self.locator {
            placement.write(&providers, &mut writer);
        }
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<HeadBody, DecodeError> {
        let mut reader = Reader::bare(BODY, bytes);
        let version = if reader.bool()? {
            let id = VersionId(reader.array()?);
            let version = Place::read(&mut reader)?;
            Some(HeadVersion { id, version, tree: ChildPlace::read(&mut reader)? })
        } else {
            None
        };
        let map = if reader.bool()? { Some(Root::read(&mut reader)?) } else { None };
        let checkpoint = Link::read(&mut reader)?;
        let mut providers = ReadProviders::read(&mut reader)?;
        let count = reader.count("segments", HEAD_BYTES_MAX, 40)?;
        let locator = (0..count)
            .map(|_| SegmentPlacement::read(&mut providers, &mut reader))
            .collect::<Result<_, _>>()?;
        let hints = providers.finish(&reader)?;
        let body = HeadBody { version, map, checkpoint, locator, hints };
        if !body.has_usable_locator() {
            return Err(reader.invalid("the locator is not sorted, or lacks the map's root"));
        }
        reader.finish()?;
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::{HEAD_BYTES_MAX, Head, HeadBody, HeadVersion, OpenHeadError, SignHeadError};
    use crate::codec::DecodeError;
    use crate::golden;
    use crate::ids::{FragmentId, PublicKey, SegmentNumber, Timestamp, VersionId};
    use crate::keys::{DatasetSecret, KeyEpoch, SealKeys, SigningKey, dataset_id};
    use crate::layout::ChildPlace;
    use crate::numbered::Root;
    use crate::place::{Link, Place};
    use crate::placement::{FragmentPlacement, Hints, SegmentPlacement};
    use crate::receipt::SignedError;
    use proptest::prelude::{any, proptest};
    use seedbank_erasure::Scheme;

    const SALT: [u8; 32] = [6; 32];

    fn owner() -> SigningKey {
        SigningKey::from_seed([1; 32])
    }

    fn keys(epoch: u32, secret: u8) -> SealKeys {
        let dataset = dataset_id(&owner().public(), &SALT);
        SealKeys::new(dataset, KeyEpoch(epoch), &DatasetSecret::new([secret; 32]))
    }

    fn placement(number: u64) -> SegmentPlacement {
        let fragment = |holder: u8| FragmentPlacement {
            id: FragmentId([9; 32]),
            holder: Some(PublicKey([holder; 32])).filter(|_| holder > 0),
        };
        SegmentPlacement {
            number: SegmentNumber(number),
            epoch: KeyEpoch(1),
            scheme: Scheme::new(1, 3).unwrap(),
            sealed_len: 90_000,
            footer_len: 900,
            fragments: [20, 21, 0].map(fragment).to_vec(),
        }
    }

    fn body() -> HeadBody {
        let place = |index| Place { segment: SegmentNumber(90), index };
        HeadBody {
            version: Some(HeadVersion {
                id: VersionId([3; 32]),
                version: place(2),
                tree: ChildPlace { page: place(0), layout: place(1) },
            }),
            map: Some(Root { level: 1, link: Link::new(place(7), b"map") }),
            checkpoint: Link::new(place(8), b"checkpoint"),
            locator: vec![placement(89), placement(90)],
            hints: Hints::from([(PublicKey([20; 32]), "provider.example:7450".to_owned())]),
        }
    }

    fn sign(body: &HeadBody) -> Vec<u8> {
        Head::sign(body, &keys(1, 2), &owner(), &SALT, 17, Timestamp(1_900_000_000)).unwrap()
    }

    #[test]
    fn a_head_reads_back_and_shows_only_what_is_clear() {
        let bytes = sign(&body());
        golden::check(include_str!("../../../testdata/head.txt"), "head", &bytes);
        golden::check(include_str!("../../../testdata/head.txt"), "body", &body().encode());
        let head = Head::check(&bytes).unwrap();
        assert_eq!((head.owner(), head.salt(), head.sequence()), (owner().public(), &SALT, 17));
        assert_eq!((head.time(), head.epoch()), (Timestamp(1_900_000_000), KeyEpoch(1)));
        assert_eq!(head.dataset(), dataset_id(&owner().public(), &SALT));
        assert_eq!(head.open(&keys(1, 2)), Ok(body()));
        for secret in [&[3u8; 32], &[9; 32], &[20; 32]] {
            assert!(!bytes.windows(32).any(|window| window == secret), "ids and holders are sealed");
        }
    }

    #[test]
    fn a_head_opens_with_its_own_keys_only_and_says_which() {
        let head = Head::check(&sign(&body())).unwrap();
        let wrong = OpenHeadError::WrongKeys { dataset: head.dataset(), epoch: KeyEpoch(1) };
        assert_eq!(head.open(&keys(2, 2)), Err(wrong));
        assert_eq!(head.open(&keys(1, 3)), Err(OpenHeadError::Seal));
    }

    #[test]
    fn heads_that_could_not_be_used_are_not_signed() {
        let sign = |body: &HeadBody, salt: &[u8; 32]| {
            Head::sign(body, &keys(1, 2), &owner(), salt, 1, Timestamp(0)).unwrap_err()
        };
        assert!(matches!(sign(&body(), &[7; 32]), SignHeadError::WrongDataset { .. }));
        let unsorted = HeadBody { locator: vec![placement(90), placement(89)], ..body() };
        assert_eq!(sign(&unsorted, &SALT), SignHeadError::Locator);
        let without = HeadBody { locator: vec![placement(89)], ..body() };
        assert_eq!(sign(&without, &SALT), SignHeadError::Locator);
        let locator = (90..9000).map(placement).collect();
        assert!(matches!(sign(&HeadBody { locator, ..body() }, &SALT), SignHeadError::TooLarge { .. }));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let bytes = sign(&body());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Head::check(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_head_above_the_limit_is_refused_unread() {
        let refused = Head::check(&vec![0; HEAD_BYTES_MAX + 1]);
        assert!(matches!(refused, Err(SignedError::Decode(DecodeError::OverLimit { .. }))));
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_never_believed(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            assert!(Head::check(&bytes).is_err());
            assert!(Head::check(&[b"SBHD\x01".as_slice(), &bytes].concat()).is_err());
            if let Ok(body) = HeadBody::decode(&bytes) {
                assert_eq!(body.encode(), bytes);
            }
        }

        #[test]
        fn flipped_bodies_are_refused_or_canonical(at in any::<usize>(), bit in 0u8..8) {
            let mut bytes = body().encode();
            let index = at % bytes.len();
            bytes[index] ^= 1 << bit;
            if let Ok(body) = HeadBody::decode(&bytes) {
                assert_eq!(body.encode(), bytes);
            }
        }
    }
}

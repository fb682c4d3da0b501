//! A version: an immutable snapshot of a dataset, named by its hash and signed by its author.
//!
//! The id covers everything but the signature, so one id names tree, parents, policy and message, and a version read
//! from anywhere is checked against the id alone. It is sealed as a named item ([`version_item_id`]).
//! `docs/formats/version.md` draws it.

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{ChunkId, DatasetId, PublicKey, Timestamp, VersionId};
use crate::keys::{SignatureDomain, SigningKey};
use crate::pages::PageId;
use crate::policy::{Policy, PolicyError};
use crate::receipt::{SignedError, signed, split};
use crate::seal::named_id;
use crate::tree::TreeRoot;

const MAGIC: &[u8; 4] = b"SBVN";
const FORMAT_VERSION: u8 = 1;
const NAME: &str = "version";

/// Longest message in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Most parents of one version.
pub const PARENTS_MAX: usize = 64;

/// A snapshot of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The dataset that it belongs to.
    pub dataset: DatasetId,
    /// The versions that it follows, each once; none for the first, several for a merge.
    pub parents: Vec<VersionId>,
    /// Who made it, and signs. Whether that is the dataset's owner is for the caller to compare.
    pub author: PublicKey,
    /// What it is about, for people.
    pub message: String,
    /// When it was made, by its author's clock.
    pub time: Timestamp,
    /// What it holds.
    pub tree: TreeRoot,
    /// What its owner asks of placement.
    pub policy: Policy,
}

/// Why a version can't be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignVersionError {
    /// The message must be shorter.
    #[error("the message has {bytes} bytes, the limit is {MESSAGE_BYTES_MAX}")]
    MessageTooLong {
        /// How many it has.
        bytes: usize,
    },
    /// It names too many parents, or one twice.
    #[error("a version has at most {PARENTS_MAX} parents, each once")]
    Parents,
    /// The key is not the author's.
    #[error("the key is not the author's, {author}")]
    NotTheAuthor {
        /// Who would have to sign.
        author: PublicKey,
    },
    /// The policy contradicts itself.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// The id under which a version is sealed.
#[must_use]
pub fn version_item_id(version: &VersionId) -> ChunkId {
    named_id(&[b"version".as_slice(), version.as_bytes()].concat())
}

impl Version {
    fn body(&self) -> Vec<u8> {
        let mut writer = Writer::format(MAGIC, FORMAT_VERSION);
        writer.raw(self.dataset.as_bytes());
        writer.len(self.parents.len());
        for parent in &self.parents {
            writer.raw(parent.as_bytes());
        }
        self.author.write(&mut writer);
        writer.str(&self.message);
        writer.u64(self.time.0);
        writer.raw(self.tree.page.as_bytes());
        writer.varint(self.tree.entries);
        writer.varint(self.tree.bytes);
        self.policy.write(&mut writer);
        writer.finish()
    }

    /// The version's id and its signed bytes, by the author's key.
    ///
    /// # Errors
    /// [`SignVersionError`] when it would not read back.
    pub fn sign(&self, key: &SigningKey) -> Result<(VersionId, Vec<u8>), SignVersionError> {
        if self.message.len() > MESSAGE_BYTES_MAX {
            return Err(SignVersionError::MessageTooLong { bytes: self.message.len() });
        }
        if self.parents.len() > PARENTS_MAX || has_twice(&self.parents) {
            return Err(SignVersionError::Parents);
        }
        if key.public() != self.author {
            return Err(SignVersionError::NotTheAuthor { author: self.author });
        }
        self.policy.check()?;
        let body = self.body();
        Ok((id_of(&body), signed(body, SignatureDomain::Version, key)))
    }

    /// Reads a version, checks its author's signature and gives its id. Whether that is the id wanted, and the author
    /// the dataset's owner, is for the caller to compare.
    ///
    /// # Errors
    /// [`SignedError`] when the bytes are no version or the signature does not fit.
    pub fn check(bytes: &[u8]) -> Result<(VersionId, Version), SignedError> {
        let (body, signature) = split(bytes, NAME)?;
        let version = Version::read(body)?;
        version.author.verify(SignatureDomain::Version, body, &signature)?;
        Ok((id_of(body), version))
    }

    fn read(body: &[u8]) -> Result<Version, DecodeError> {
        let mut reader = Reader::format(NAME, MAGIC, FORMAT_VERSION, body)?;
        let dataset = DatasetId(reader.array()?);
        let count = reader.count("parents", PARENTS_MAX, 32)?;
        let parents = (0..count).map(|_| Ok(VersionId(reader.array()?))).collect::<Result<Vec<_>, _>>()?;
        if has_twice(&parents) {
            return Err(reader.invalid("a parent is named twice"));
        }
        let author = PublicKey::read(&mut reader)?;
        let message = reader.str("the message", MESSAGE_BYTES_MAX)?.to_owned();
        let time = Timestamp(reader.u64()?);
        let page: PageId = ChunkId(reader.array()?);
        let tree = TreeRoot { page, entries: reader.varint()?, bytes: reader.varint()? };
        let policy = Policy::read(&mut reader)?;
        reader.finish()?;
        Ok(Version { dataset, parents, author, message, time, tree, policy })
    }
}

fn id_of(body: &[u8]) -> VersionId {
    VersionId(blake3::derive_key("seedbank v1 version id", body))
}

fn has_twice(parents: &[VersionId]) -> bool {
    parents.iter().enumerate().any(|(at, parent)| parents[..at].contains(parent))
}

#[cfg(test)]
mod tests {
    use super::{MESSAGE_BYTES_MAX, SignVersionError, Version, version_item_id};
    use crate::golden;
    use crate::ids::{ChunkId, DatasetId, Timestamp, VersionId};
    use crate::keys::SigningKey;
    use crate::policy::Policy;
    use crate::receipt::SignedError;
    use crate::tree::TreeRoot;
    use proptest::prelude::{any, proptest};
    use seedbank_erasure::Scheme;

    fn key() -> SigningKey {
        SigningKey::from_seed([1; 32])
    }

    fn version() -> Version {
        Version {
            dataset: DatasetId([2; 32]),
            parents: vec![VersionId([3; 32]), VersionId([4; 32])],
            author: key().public(),
            message: "Fix the labels of März".to_owned(),
            time: Timestamp(1_900_000_000),
            tree: TreeRoot { page: ChunkId([5; 32]), entries: 344, bytes: 70_000_000_000 },
            policy: Policy {
                scheme: Some(Scheme::new(4, 8).unwrap()),
                minimum: Some(6),
                ..Policy::default()
            },
        }
    }

    #[test]
    fn a_version_reads_back_under_its_id() {
        let (id, bytes) = version().sign(&key()).unwrap();
        assert_eq!(Version::check(&bytes), Ok((id, version())));
        let vectors = include_str!("../../../testdata/version.txt");
        golden::check(vectors, "signed", &bytes);
        golden::check(vectors, "id", id.as_bytes());
        golden::check(vectors, "item-id", version_item_id(&id).as_bytes());
    }

    #[test]
    fn a_version_signed_by_another_key_is_refused() {
        let (_, bytes) = version().sign(&key()).unwrap();
        let (body, _) = bytes.split_at(bytes.len() - 64);
        let forged = crate::receipt::signed(
            body.to_vec(),
            crate::keys::SignatureDomain::Version,
            &SigningKey::from_seed([9; 32]),
        );
        assert!(matches!(Version::check(&forged), Err(SignedError::Signature(_))));
        let refused = version().sign(&SigningKey::from_seed([9; 32]));
        assert_eq!(refused, Err(SignVersionError::NotTheAuthor { author: key().public() }));
    }

    #[test]
    fn versions_that_would_not_read_back_are_not_signed() {
        let long = Version { message: "x".repeat(MESSAGE_BYTES_MAX + 1), ..version() };
        assert!(matches!(long.sign(&key()), Err(SignVersionError::MessageTooLong { .. })));
        let doubled = Version { parents: vec![VersionId([3; 32]); 2], ..version() };
        assert_eq!(doubled.sign(&key()), Err(SignVersionError::Parents));
        let policy = Policy { minimum: Some(9), ..version().policy };
        assert!(matches!(Version { policy, ..version() }.sign(&key()), Err(SignVersionError::Policy(_))));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let (_, bytes) = version().sign(&key()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Version::check(&flipped).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_never_believed(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            assert!(Version::check(&bytes).is_err());
            let whole = [b"SBVN\x01".as_slice(), &bytes].concat();
            assert!(Version::check(&whole).is_err());
            if let Ok(version) = Version::read(&whole) {
                assert_eq!(version.body(), whole);
            }
        }
    }
}

//! Ed25519 identities (RFC 8032) and the symmetric keys of a dataset.
//!
//! Every signature covers a domain tag, so that a signature made for one purpose can never be shown for another.
//! Secret keys have no `Display`, no `Debug` of their bytes and no serialisation: the key store in `cli` is the only
//! code that writes one down, sealed.

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{ChunkId, DatasetId, PublicKey, Signature};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// What a signature is for. The tag is signed with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureDomain {
    /// A dataset version.
    Version,
    /// A dataset's or an owner's head.
    Head,
    /// A provider's promise that it holds a fragment.
    Receipt,
    /// A reader's permission to fetch a dataset's fragments.
    ReaderToken,
    /// A provider's word for the bytes it answered with.
    Statement,
    /// That an identity is a wallet's.
    Binding,
}

impl SignatureDomain {
    fn tag(self) -> &'static [u8] {
        match self {
            SignatureDomain::Version => b"seedbank v1 version\0",
            SignatureDomain::Head => b"seedbank v1 head\0",
            SignatureDomain::Receipt => b"seedbank v1 receipt\0",
            SignatureDomain::ReaderToken => b"seedbank v1 reader token\0",
            SignatureDomain::Statement => b"seedbank v1 statement\0",
            SignatureDomain::Binding => b"seedbank v1 binding\0",
        }
    }
}

/// An Ed25519 signing key: a peer's, an owner's or a dataset's reader key.
pub struct SigningKey {
    seed: Zeroizing<[u8; 32]>,
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// The key whose RFC 8032 private key is `seed`.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> SigningKey {
        let seed = Zeroizing::new(seed);
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice())
            .expect("an Ed25519 seed of 32 bytes is always a key");
        let public =
            PublicKey(pair.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes"));
        SigningKey { seed, pair, public }
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The seed, for the key store and for TLS.
    #[must_use]
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// Signs `message` for one purpose.
    #[must_use]
    pub fn sign(&self, domain: SignatureDomain, message: &[u8]) -> Signature {
        let tagged = [domain.tag(), message].concat();
        Signature(self.pair.sign(&tagged).as_ref().try_into().expect("an Ed25519 signature has 64 bytes"))
    }
}

impl Clone for SigningKey {
    fn clone(&self) -> SigningKey {
        SigningKey::from_seed(*self.seed)
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "SigningKey(public {})", self.public)
    }
}

/// A signature that does not fit its key, purpose and message. Nothing that it covers may be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not fit")]
pub struct WrongSignature;

/// The points of small order (Ed25519 has eight), as the y coordinates that encode them with the sign bit cleared: 0, 1,
/// two of order eight, -1, and 0 and 1 once more, not reduced. For a key among them anybody makes signatures that fit.
const SMALL_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    point(0x01, 0x00, 0x00),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
    point(0xec, 0xff, 0x7f),
    point(0xed, 0xff, 0x7f),
    point(0xee, 0xff, 0x7f),
];

const fn point(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

impl PublicKey {
    /// Whether no secret belongs to this key, so that anybody can sign for it.
    #[must_use]
    pub fn is_anybodys(&self) -> bool {
        let mut y = self.0;
        y[31] &= 0x7f;
        SMALL_ORDER.contains(&y)
    }

    /// Checks a signature made for `domain` over `message`.
    ///
    /// # Errors
    /// [`WrongSignature`] when it does not fit, or the key is one for which anybody can sign.
    pub fn verify(
        &self,
        domain: SignatureDomain,
        message: &[u8],
        signature: &Signature,
    ) -> Result<(), WrongSignature> {
        if self.is_anybodys() {
            return Err(WrongSignature);
        }
        let tagged = [domain.tag(), message].concat();
        UnparsedPublicKey::new(&ED25519, &self.0).verify(&tagged, &signature.0).map_err(|_| WrongSignature)
    }
}

/// Which of a dataset's keys sealed something. Revoking a reader starts the next epoch for new data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct KeyEpoch(pub u32);

/// The secret that opens a dataset in one key epoch. Who holds it reads; nobody else does.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DatasetSecret([u8; 32]);

impl DatasetSecret {
    /// Wraps 32 secret bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> DatasetSecret {
        DatasetSecret(bytes)
    }

    /// The bytes, for the key store and for an exported key.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The published secret of a public dataset: everyone can derive it, so one code path serves both kinds.
    #[must_use]
    pub fn published(dataset: &DatasetId) -> DatasetSecret {
        DatasetSecret(blake3::derive_key("seedbank v1 published dataset secret", dataset.as_bytes()))
    }

    /// Signs reader tokens for this dataset: whoever can open it may fetch it.
    #[must_use]
    pub fn reader_key(&self) -> SigningKey {
        SigningKey::from_seed(blake3::derive_key("seedbank v1 reader signing key", &self.0))
    }
}

impl std::fmt::Debug for DatasetSecret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("DatasetSecret(..)")
    }
}

/// A dataset's sealing keys in one key epoch, derived from its secret.
#[derive(Clone, ZeroizeOnDrop)]
pub struct SealKeys {
    #[zeroize(skip)]
    dataset: DatasetId,
    #[zeroize(skip)]
    epoch: KeyEpoch,
    chunk: [u8; 32],
    nonce: [u8; 32],
    part: [u8; 32],
}

impl SealKeys {
    /// Derives the keys of `dataset` in `epoch`.
    #[must_use]
    pub fn new(dataset: DatasetId, epoch: KeyEpoch, secret: &DatasetSecret) -> SealKeys {
        // Dataset and epoch stand in the associated data as well. They are here so that one secret used twice (a
        // published one is, in every epoch) can't bring one key and nonce together with two of those.
        let mut material = Zeroizing::new([0; 32 + 32 + 4]);
        material[..32].copy_from_slice(secret.expose());
        material[32..64].copy_from_slice(dataset.as_bytes());
        material[64..].copy_from_slice(&epoch.0.to_le_bytes());
        SealKeys {
            dataset,
            epoch,
            chunk: blake3::derive_key("seedbank v1 chunk key", material.as_slice()),
            nonce: blake3::derive_key("seedbank v1 nonce key", material.as_slice()),
            part: blake3::derive_key("seedbank v1 part key", material.as_slice()),
        }
    }

    /// The dataset these keys belong to.
    #[must_use]
    pub fn dataset(&self) -> &DatasetId {
        &self.dataset
    }

    /// The key epoch these keys belong to.
    #[must_use]
    pub fn epoch(&self) -> KeyEpoch {
        self.epoch
    }

    /// The key that seals one chunk and nothing else.
    pub(crate) fn chunk_key(&self, id: &ChunkId) -> [u8; 32] {
        *blake3::keyed_hash(&self.chunk, id.as_bytes()).as_bytes()
    }

    /// The key that seals one named part (a segment's header, a head's body) and nothing else.
    pub(crate) fn part_key(&self, name: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.part, name).as_bytes()
    }

    /// The nonce for a payload as it will be sealed, followed by the codec's byte: it depends on every one of them, so
    /// that one key and nonce never seal two payloads. The codec comes last because a byte in front shifts the payload
    /// off BLAKE3's blocks: 64 KiB took 1.4 times as long that way.
    pub(crate) fn nonce(&self, payload_and_codec: &[u8]) -> [u8; 12] {
        let hash = blake3::keyed_hash(&self.nonce, payload_and_codec);
        *hash.as_bytes().first_chunk().expect("a hash is longer than a nonce")
    }
}

impl std::fmt::Debug for SealKeys {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "SealKeys(dataset {}, epoch {})", self.dataset, self.epoch.0)
    }
}

/// Seeds the placement of a dataset's segments. It is secret, or providers could look for keys that win for given segments.
#[must_use]
pub fn placement_seed(secret: &DatasetSecret) -> u64 {
    let seed = blake3::derive_key("seedbank v1 placement seed", secret.expose());
    u64::from_le_bytes(*seed.first_chunk().expect("a derived key has 32 bytes"))
}

/// What a private dataset is called where everyone can read it: 64 hex digits that whoever holds the secret of its first epoch
/// can tell, and from which nobody else learns the owner's name for it.
#[must_use]
pub fn hidden_name(dataset: &DatasetId, secret: &DatasetSecret) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("seedbank v1 hidden dataset name");
    hasher.update(secret.expose());
    hasher.update(dataset.as_bytes());
    hasher.finalize().to_hex().to_string()
}

/// The dataset id of an owner and 32 bytes chosen at creation.
#[must_use]
pub fn dataset_id(owner: &PublicKey, salt: &[u8; 32]) -> DatasetId {
    let mut hasher = blake3::Hasher::new_derive_key("seedbank v1 dataset id");
    hasher.update(owner.as_bytes());
    hasher.update(salt);
    DatasetId(*hasher.finalize().as_bytes())
}

impl PublicKey {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.raw(&self.0);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<PublicKey, DecodeError> {
        Ok(PublicKey(reader.array()?))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        DatasetSecret, KeyEpoch, SMALL_ORDER, SealKeys, SignatureDomain, SigningKey, WrongSignature,
    };
    use crate::ids::{DatasetId, PublicKey, Signature};
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    const DOMAINS: [SignatureDomain; 5] = [
        SignatureDomain::Version,
        SignatureDomain::Head,
        SignatureDomain::Receipt,
        SignatureDomain::ReaderToken,
        SignatureDomain::Statement,
    ];

    /// What a TLS 1.3 peer signs begins like this (RFC 8446, 4.4.3), for a server and for a client.
    fn handshakes() -> [Vec<u8>; 2] {
        ["server", "client"]
            .map(|side| [&[0x20; 64][..], format!("TLS 1.3, {side} CertificateVerify\0").as_bytes()].concat())
    }

    #[test]
    fn signature_for_one_purpose_is_refused_for_every_other() {
        let key = SigningKey::from_seed([7; 32]);
        for made_for in DOMAINS {
            let signature = key.sign(made_for, b"held");
            for shown_for in DOMAINS {
                let expected = if made_for == shown_for { Ok(()) } else { Err(WrongSignature) };
                assert_eq!(key.public().verify(shown_for, b"held", &signature), expected);
            }
            assert_eq!(key.public().verify(made_for, b"hold", &signature), Err(WrongSignature));
        }
    }

    /// No message can move the border between tag and message: what is signed for one purpose is never, as a whole, what
    /// is signed for another, nor a handshake's.
    #[test]
    fn no_tag_begins_another_or_a_handshake() {
        let mut tags: Vec<Vec<u8>> = DOMAINS.iter().map(|domain| domain.tag().to_vec()).collect();
        tags.extend(handshakes());
        for (at, tag) in tags.iter().enumerate() {
            let begins = |(other_at, other): (usize, &Vec<u8>)| other_at != at && other.starts_with(tag);
            assert!(!tags.iter().enumerate().any(begins), "{}", tag.escape_ascii());
        }
    }

    /// The group's order, little-endian. `S` and `S + L` sign alike by the equation alone.
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];

    #[test]
    fn changed_signatures_are_refused_and_so_is_a_second_form_of_a_right_one() {
        let key = SigningKey::from_seed([7; 32]);
        let signature = key.sign(SignatureDomain::Receipt, b"held");
        let verify =
            |signature: &Signature| key.public().verify(SignatureDomain::Receipt, b"held", signature);
        assert_eq!(verify(&signature), Ok(()));
        for bit in 0..512 {
            let mut flipped = signature;
            flipped.0[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verify(&flipped), Err(WrongSignature), "bit {bit}");
        }
        let (mut second, mut carry) = (signature, 0);
        for (byte, order) in second.0[32..].iter_mut().zip(L) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            [*byte, _] = sum.to_le_bytes();
            carry = sum >> 8;
        }
        assert_eq!(carry, 0, "S + L has 32 bytes");
        assert_eq!(verify(&second), Err(WrongSignature));
    }

    #[test]
    fn keys_that_anybody_can_sign_for_are_refused() {
        // R is the neutral point and S is 0: right for the neutral point as the key, whatever the message.
        let mut forged = Signature([0; 64]);
        forged.0[0] = 1;
        let neutral = PublicKey(SMALL_ORDER[1]);
        assert!(UnparsedPublicKey::new(&ED25519, &neutral.0).verify(b"anything", &forged.0).is_ok());
        for (y, sign) in SMALL_ORDER.iter().flat_map(|y| [(y, 0), (y, 0x80)]) {
            let mut key = PublicKey(*y);
            key.0[31] |= sign;
            assert!(key.is_anybodys());
            for message in [&b"anything"[..], b"at", b"all"] {
                assert_eq!(key.verify(SignatureDomain::Receipt, message, &forged), Err(WrongSignature));
            }
        }
        assert!(!SigningKey::from_seed([7; 32]).public().is_anybodys());
    }

    #[test]
    fn secrets_are_not_shown() {
        let secret = DatasetSecret::new([0x41; 32]);
        let keys = SealKeys::new(DatasetId([1; 32]), KeyEpoch(0), &secret);
        let shown = format!("{secret:?} {:?} {keys:?}", SigningKey::from_seed([0x42; 32]));
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        for secret in [[0x41; 32], [0x42; 32], keys.chunk, keys.nonce, keys.part] {
            let decimal = format!("{}, {}, {}", secret[0], secret[1], secret[2]);
            assert!(!shown.contains(&hex(&secret[..4])) && !shown.contains(&decimal), "{shown}");
        }
    }
}

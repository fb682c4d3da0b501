//! The bytes of `keys.sealed`: a header in clear that says how the key is made, and the sealed secrets.
//!
//! Randomness comes in as arguments and nothing here touches a disk. Three things can be wrong with such a file, and each is
//! told apart by what still fits: *damaged* (the checksum over everything does not fit), *wrong passphrase* (the
//! checksum fits, the passphrase check in the header does not), *altered* (both fit and the seal does not).
//! `docs/formats/keystore.md` draws the bytes.

use super::dataset_key::{DatasetKey, KEY_BYTES_MAX};
use super::passphrase::Passphrase;
use argon2::{Algorithm, Argon2, Params};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use seedbank_formats::DatasetId;
use seedbank_formats::codec::{DecodeError, Reader, Writer};
use std::collections::BTreeMap;
use std::fmt;
use zeroize::Zeroizing;

const MAGIC: &[u8; 4] = b"SBKS";
const VERSION: u8 = 1;
const FORMAT: &str = "key store";
const CHECKSUM_BYTES: usize = 16;
const TAG_BYTES: usize = 16;

/// One file for all of them: who reads more datasets than this of others keeps them in several homes.
pub(super) const IMPORTED_MAX: usize = 1024;

/// What a key store may take at most.
pub(super) const FILE_BYTES_MAX: usize = IMPORTED_MAX * (KEY_BYTES_MAX + 3) + 1024;

const UNPROTECTED_CONTEXT: &str = "seedbank v1 key store without passphrase";
const SEAL_CONTEXT: &str = "seedbank v1 key store seal key";
const CHECK_CONTEXT: &str = "seedbank v1 key store passphrase check";

/// What guessing one passphrase costs: Argon2id's memory, passes and lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GuessCost {
    /// Memory in KiB.
    pub(crate) memory_kib: u32,
    /// Passes over that memory.
    pub(crate) passes: u32,
    /// Lanes, filled one after another here.
    pub(crate) lanes: u32,
}

/// A tenth of a second or two on today's machines, and more memory than a guessing chip likes to give to each guess.
pub(crate) const GUESS_COST_DEFAULT: GuessCost = GuessCost { memory_kib: 64 * 1024, passes: 3, lanes: 1 };

/// A file that asks for more than this would stop a small machine, and no version of this program writes one.
const GUESS_COST_MAX: GuessCost = GuessCost { memory_kib: 1024 * 1024, passes: 64, lanes: 64 };

/// What opens the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Nothing: whoever reads the file has the keys. Only for throw-away networks, and never the silent default.
    None,
    /// A passphrase.
    Passphrase(GuessCost),
}

/// Why a sealed store does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnsealError {
    /// Some other file, or one of a later version.
    #[error(transparent)]
    Format(#[from] DecodeError),
    /// The disk or a copy changed it.
    #[error("the file is damaged: its checksum does not fit")]
    Damaged,
    /// The file is whole, and this passphrase does not open it.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// Checksum and passphrase fit, and the seal does not: somebody changed the file and repaired the checksum.
    #[error("the file was altered on purpose: passphrase and checksum fit, the seal does not")]
    Altered,
    /// Argon2 could not have its memory.
    #[error("not enough memory to check the passphrase")]
    OutOfMemory,
}

/// The secrets that the file keeps.
pub(super) struct Contents {
    /// The recovery phrase's bits: everything of the owner is derived from them.
    pub(super) entropy: Zeroizing<[u8; 32]>,
    /// Keys of others' datasets.
    pub(super) imported: BTreeMap<DatasetId, DatasetKey>,
}

impl Contents {
    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let keys: Vec<_> = self.imported.values().map(DatasetKey::encode).collect();
        // The lengths, and a few bytes before each.
        let bytes_max = 64 + keys.iter().map(|key| key.len() + 4).sum::<usize>();
        let mut writer = Writer::with_capacity(bytes_max);
        writer.raw(self.entropy.as_slice());
        writer.len(self.imported.len());
        for key in &keys {
            writer.bytes(key);
        }
        debug_assert!(writer.written() <= bytes_max, "the buffer did not grow");
        Zeroizing::new(writer.finish())
    }

    fn decode(bytes: &[u8]) -> Result<Contents, DecodeError> {
        let mut reader = Reader::bare(FORMAT, bytes);
        let entropy = Zeroizing::new(reader.array()?);
        let mut imported: BTreeMap<DatasetId, DatasetKey> = BTreeMap::new();
        for _ in 0..reader.count("imported keys", IMPORTED_MAX, 1)? {
            let key = DatasetKey::decode(reader.bytes("imported key", KEY_BYTES_MAX)?)?;
            let dataset = key.dataset();
            if imported.last_key_value().is_some_and(|(last, _)| *last >= dataset) {
                return Err(reader.invalid("imported keys are not in rising order"));
            }
            imported.insert(dataset, key);
        }
        reader.finish()?;
        Ok(Contents { entropy, imported })
    }
}

/// The part of the header that says how the key is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lock {
    pub(super) protection: Protection,
    salt: [u8; 16],
}

/// A lock, and the key that fits it. The passphrase is no longer needed.
pub(super) struct StoreKey {
    lock: Lock,
    seal: Zeroizing<[u8; 32]>,
    check: [u8; 16],
}

impl Lock {
    /// A new lock. `salt` must be fresh randomness.
    pub(super) fn new(protection: Protection, salt: [u8; 16]) -> Lock {
        Lock { protection, salt }
    }

    /// Reads which lock a file has, without a passphrase. Says nothing about the rest of the file.
    ///
    /// # Errors
    /// [`UnsealError::Format`] or [`UnsealError::Damaged`].
    pub(super) fn of(file: &[u8]) -> Result<Lock, UnsealError> {
        Ok(Opened::read(file)?.lock)
    }

    /// Makes the key; slow on purpose when there is a passphrase.
    ///
    /// # Errors
    /// [`UnsealError::OutOfMemory`].
    ///
    /// # Panics
    /// When the lock wants a passphrase and there is none: callers ask the lock first.
    pub(super) fn key(self, passphrase: Option<&Passphrase>) -> Result<StoreKey, UnsealError> {
        let mut root = Zeroizing::new([0; 32]);
        match self.protection {
            Protection::None => *root = blake3::derive_key(UNPROTECTED_CONTEXT, &self.salt),
            Protection::Passphrase(cost) => {
                let passphrase = passphrase.expect("a lock with a passphrase is given one");
                let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(root.len()))
                    .expect("the cost was checked when it was read or is the default");
                Argon2::new(Algorithm::Argon2id, argon2::Version::V0x13, params)
                    .hash_password_into(passphrase.as_bytes(), &self.salt, root.as_mut_slice())
                    .map_err(|_| UnsealError::OutOfMemory)?;
            }
        }
        let check = blake3::derive_key(CHECK_CONTEXT, root.as_slice());
        Ok(StoreKey {
            lock: self,
            seal: Zeroizing::new(blake3::derive_key(SEAL_CONTEXT, root.as_slice())),
            check: *check.first_chunk().expect("a derived key has 32 bytes"),
        })
    }

    fn write(self, writer: &mut Writer) {
        let (kind, cost) = match self.protection {
            Protection::None => (0, GuessCost { memory_kib: 0, passes: 0, lanes: 0 }),
            Protection::Passphrase(cost) => (1, cost),
        };
        writer.u8(kind);
        writer.u32(cost.memory_kib);
        writer.u32(cost.passes);
        writer.u32(cost.lanes);
        writer.raw(&self.salt);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Lock, DecodeError> {
        let kind = reader.u8()?;
        let cost = GuessCost { memory_kib: reader.u32()?, passes: reader.u32()?, lanes: reader.u32()? };
        let protection = match kind {
            0 if cost == (GuessCost { memory_kib: 0, passes: 0, lanes: 0 }) => Protection::None,
            1 if cost.is_allowed() => Protection::Passphrase(cost),
            0 | 1 => return Err(reader.invalid("the cost of a guess is out of bounds")),
            _ => return Err(reader.invalid("the kind of protection is not known")),
        };
        Ok(Lock { protection, salt: reader.array()? })
    }
}

impl GuessCost {
    fn is_allowed(self) -> bool {
        (1..=GUESS_COST_MAX.passes).contains(&self.passes)
            && (1..=GUESS_COST_MAX.lanes).contains(&self.lanes)
            && (8 * self.lanes..=GUESS_COST_MAX.memory_kib).contains(&self.memory_kib)
    }
}

/// A file whose checksum fits, taken apart.
struct Opened<'a> {
    /// Everything before the sealed bytes: it is authenticated with them.
    header: &'a [u8],
    lock: Lock,
    check: [u8; 16],
    nonce: [u8; 12],
    sealed: &'a [u8],
}

impl<'a> Opened<'a> {
    fn read(file: &'a [u8]) -> Result<Opened<'a>, UnsealError> {
        // Magic and version come first, so that a file of another kind or a later version is called that.
        Reader::format(FORMAT, MAGIC, VERSION, file)?;
        let (body, checksum) =
            file.split_last_chunk::<CHECKSUM_BYTES>().ok_or(DecodeError::Truncated { format: FORMAT })?;
        if *checksum != checksum_of(body) {
            return Err(UnsealError::Damaged);
        }
        let mut reader = Reader::format(FORMAT, MAGIC, VERSION, body)?;
        let lock = Lock::read(&mut reader)?;
        let check = reader.array()?;
        let nonce = reader.array()?;
        let (header, sealed) = body.split_at(body.len() - reader.remaining());
        Ok(Opened { header, lock, check, nonce, sealed })
    }
}

impl StoreKey {
    /// The whole file. `nonce` must be fresh randomness: one key seals again at every import.
    pub(super) fn seal(&self, contents: &Contents, nonce: [u8; 12]) -> Vec<u8> {
        let mut writer = Writer::format(MAGIC, VERSION);
        self.lock.write(&mut writer);
        writer.raw(&self.check);
        writer.raw(&nonce);
        let mut file = writer.finish();
        let mut sealed = contents.encode();
        let tag = self
            .aead()
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&file), &mut sealed)
            .expect("AES-GCM seals a few megabytes");
        file.extend_from_slice(&sealed);
        file.extend_from_slice(tag.as_ref());
        let checksum = checksum_of(&file);
        file.extend_from_slice(&checksum);
        file
    }

    /// Opens a file that has this key's lock.
    ///
    /// # Errors
    /// Any [`UnsealError`] but [`UnsealError::OutOfMemory`].
    pub(super) fn unseal(&self, file: &[u8]) -> Result<Contents, UnsealError> {
        let opened = Opened::read(file)?;
        if opened.check != self.check || opened.lock != self.lock {
            return Err(match opened.lock.protection {
                Protection::Passphrase(_) => UnsealError::WrongPassphrase,
                Protection::None => UnsealError::Altered,
            });
        }
        let mut bytes = Zeroizing::new(opened.sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(opened.nonce);
        self.aead()
            .open_in_place(nonce, Aad::from(opened.header), &mut bytes)
            .map_err(|_| UnsealError::Altered)?;
        let plain = bytes.len() - TAG_BYTES;
        Ok(Contents::decode(&bytes[..plain])?)
    }

    fn aead(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, self.seal.as_slice()).expect("an AES-256 key has 32 bytes");
        LessSafeKey::new(key)
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "StoreKey({:?})", self.lock.protection)
    }
}

fn checksum_of(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    *blake3::hash(body).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::{Contents, GuessCost, Lock, Protection, StoreKey, UnsealError, checksum_of};
    use crate::keystore::dataset_key::DatasetKey;
    use crate::keystore::passphrase::Passphrase;
    use proptest::prelude::{any, proptest};
    use seedbank_formats::PublicKey;
    use seedbank_formats::codec::DecodeError;
    use seedbank_formats::keys::{DatasetSecret, KeyEpoch};
    use std::collections::BTreeMap;
    use zeroize::Zeroizing;

    /// The cheapest that Argon2 allows.
    const CHEAP: GuessCost = GuessCost { memory_kib: 8, passes: 1, lanes: 1 };

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(text.as_bytes().to_vec())).unwrap()
    }

    fn contents() -> Contents {
        let imported = (0..3).map(|number| {
            let secrets = BTreeMap::from([(KeyEpoch(0), DatasetSecret::new([number; 32]))]);
            let key =
                DatasetKey::new(PublicKey([1; 32]), [number; 32], secrets, "notes", Vec::new()).unwrap();
            (key.dataset(), key)
        });
        Contents { entropy: Zeroizing::new([0x5e; 32]), imported: imported.collect() }
    }

    fn protected(text: &str) -> StoreKey {
        Lock::new(Protection::Passphrase(CHEAP), [7; 16]).key(Some(&passphrase(text))).unwrap()
    }

    fn with_checksum(mut body: Vec<u8>) -> Vec<u8> {
        let checksum = checksum_of(&body);
        body.extend_from_slice(&checksum);
        body
    }

    #[test]
    fn file_is_the_committed_one_and_opens() {
        let file = protected("correct horse").seal(&contents(), [9; 12]);
        let hex: String = file.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("../../../../testdata/keystore/keys-sealed.txt").trim_end());
        assert_eq!(Lock::of(&file).unwrap().protection, Protection::Passphrase(CHEAP));
        let opened = protected("correct horse").unseal(&file).unwrap();
        assert_eq!(*opened.entropy, [0x5e; 32]);
        assert_eq!(
            opened.imported.keys().collect::<Vec<_>>(),
            contents().imported.keys().collect::<Vec<_>>()
        );
    }

    #[test]
    fn wrong_passphrase_is_not_taken_for_damage() {
        let file = protected("correct horse").seal(&contents(), [9; 12]);
        assert_eq!(protected("correct house").unseal(&file).err(), Some(UnsealError::WrongPassphrase));
    }

    #[test]
    fn every_flipped_bit_is_called_damage_or_another_format() {
        let key = protected("correct horse");
        let file = key.seal(&contents(), [9; 12]);
        for index in 0..file.len() {
            let mut changed = file.clone();
            changed[index] ^= 1;
            let error = key.unseal(&changed).err().expect("a changed file does not open");
            match error {
                UnsealError::Damaged => assert!(index >= 5, "magic and version are looked at first"),
                UnsealError::Format(DecodeError::WrongMagic { .. }) => assert!(index < 4),
                UnsealError::Format(DecodeError::UnknownVersion { .. }) => assert_eq!(index, 4),
                other => panic!("byte {index}: {other}"),
            }
        }
    }

    #[test]
    fn repaired_checksum_does_not_hide_a_change() {
        let key = protected("correct horse");
        let file = key.seal(&contents(), [9; 12]);
        let body = &file[..file.len() - 16];
        // The last byte of the sealed secrets, then the first of the nonce, which is header.
        for index in [body.len() - 20, 50] {
            let mut changed = body.to_vec();
            changed[index] ^= 1;
            assert_eq!(key.unseal(&with_checksum(changed)).err(), Some(UnsealError::Altered));
        }
    }

    #[test]
    fn weaker_lock_is_not_accepted_in_place_of_the_passphrase() {
        let file = protected("correct horse").seal(&contents(), [9; 12]);
        let mut body = file[..file.len() - 16].to_vec();
        body[5] = 0;
        body[6..18].fill(0);
        let forged = with_checksum(body);
        let lock = Lock::of(&forged).unwrap();
        assert_eq!(lock.protection, Protection::None);
        assert_eq!(lock.key(None).unwrap().unseal(&forged).err(), Some(UnsealError::Altered));
    }

    #[test]
    fn store_without_passphrase_says_so_and_opens() {
        let lock = Lock::new(Protection::None, [3; 16]);
        let file = lock.key(None).unwrap().seal(&contents(), [9; 12]);
        let lock = Lock::of(&file).unwrap();
        assert_eq!(lock.protection, Protection::None);
        assert_eq!(*lock.key(None).unwrap().unseal(&file).unwrap().entropy, [0x5e; 32]);
    }

    #[test]
    fn costs_that_would_stop_the_machine_are_refused_before_they_are_paid() {
        let file = protected("correct horse").seal(&contents(), [9; 12]);
        for (at, value) in [(6, u32::MAX), (6, 7), (10, 0), (10, 65), (14, 0), (14, u32::MAX)] {
            let mut body = file[..file.len() - 16].to_vec();
            body[at..at + 4].copy_from_slice(&value.to_le_bytes());
            assert!(matches!(
                Lock::of(&with_checksum(body)),
                Err(UnsealError::Format(DecodeError::Invalid { .. }))
            ));
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_open(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            assert!(Lock::of(&bytes).is_err());
            let framed = with_checksum([b"SBKS\x01".as_slice(), &bytes].concat());
            assert!(protected("correct horse").unseal(&framed).is_err());
        }

        #[test]
        fn hostile_contents_are_refused_or_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(contents) = Contents::decode(&bytes) {
                assert_eq!(*contents.encode(), bytes);
            }
        }
    }
}

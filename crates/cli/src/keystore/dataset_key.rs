//! One dataset's key as one line of text, to hand to a reader: `seedbank-dataset-key-1:` and hex.
//!
//! Whoever holds it can find, fetch and open the dataset in the key epochs that it names, and nothing else of its
//! owner; it can't sign versions. `docs/formats/keystore.md` draws the bytes.

use seedbank_formats::codec::{DecodeError, Reader, Writer};
use seedbank_formats::keys::{DatasetSecret, KeyEpoch, dataset_id};
use seedbank_formats::{DatasetId, PublicKey};
use seedbank_protocol::address::is_host_and_port;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

const MAGIC: &[u8; 4] = b"SBDK";
const VERSION: u8 = 1;
const FORMAT: &str = "dataset key";
const TEXT_PREFIX: &str = "seedbank-dataset-key-1:";
const CHECKSUM_BYTES: usize = 8;

/// A dataset whose readers changed more often than this should be copied to a new one.
pub(super) const EPOCHS_MAX: usize = 256;
/// Any of them leads to the rest, so a few are enough.
const PROVIDERS_MAX: usize = 16;
const NAME_BYTES_MAX: usize = 255;
/// A host name has at most 253 bytes.
const ADDRESS_BYTES_MAX: usize = 260;
/// Above what the limits before this one allow together.
pub(super) const KEY_BYTES_MAX: usize = 16 * 1024;

/// Why a text is not a provider's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a provider address: expected KEY@HOST:PORT, with the provider's public key in hex")]
pub(crate) struct ParseProviderAddressError;

/// Where a provider may be reached. The key says who it is; the address is only a hint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProviderAddress {
    key: PublicKey,
    address: String,
}

impl ProviderAddress {
    /// Checks that `address` is a host and a port.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn new(key: PublicKey, address: &str) -> Result<ProviderAddress, ParseProviderAddressError> {
        if !is_host_and_port(address) {
            return Err(ParseProviderAddressError);
        }
        Ok(ProviderAddress { key, address: address.to_owned() })
    }

    /// Who answers there.
    pub(crate) fn key(&self) -> PublicKey {
        self.key
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl fmt::Display for ProviderAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}@{}", self.key, self.address)
    }
}

impl FromStr for ProviderAddress {
    type Err = ParseProviderAddressError;

    fn from_str(text: &str) -> Result<ProviderAddress, ParseProviderAddressError> {
        let (key, address) = text.split_once('@').ok_or(ParseProviderAddressError)?;
        ProviderAddress::new(key.parse().map_err(|_| ParseProviderAddressError)?, address)
    }
}

/// Why something is not a dataset key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DatasetKeyError {
    /// Some other text or file.
    #[error("this is not a dataset key: it does not begin with `{TEXT_PREFIX}`")]
    NotADatasetKey,
    /// Cut, or changed on the way; copy it again.
    #[error("the dataset key is damaged: copy the whole line again")]
    Damaged,
    /// The checksum fits, but the contents don't.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

/// What a reader of one dataset needs: who owns it, its secrets, and where to begin to look.
#[derive(Debug, Clone)]
pub(crate) struct DatasetKey {
    owner: PublicKey,
    salt: [u8; 32],
    secrets: BTreeMap<KeyEpoch, DatasetSecret>,
    name: String,
    providers: Vec<ProviderAddress>,
}

impl DatasetKey {
    /// Puts a key together. `name` is what the owner calls the dataset, a hint; of `providers` the first few are kept.
    ///
    /// # Errors
    /// [`DecodeError`] when there is no secret or too many, or the name is too long or has control characters.
    pub(crate) fn new(
        owner: PublicKey,
        salt: [u8; 32],
        secrets: BTreeMap<KeyEpoch, DatasetSecret>,
        name: &str,
        mut providers: Vec<ProviderAddress>,
    ) -> Result<DatasetKey, DecodeError> {
        providers.truncate(PROVIDERS_MAX);
        let key = DatasetKey { owner, salt, secrets, name: name.to_owned(), providers };
        // The reader's checks are the rules: what it refuses must not be written.
        DatasetKey::decode(&key.encode())
    }

    /// The dataset's id. It is computed from owner and salt, so it can't belong to another owner.
    pub(crate) fn dataset(&self) -> DatasetId {
        dataset_id(&self.owner, &self.salt)
    }

    /// Who signs the dataset's versions and heads.
    pub(crate) fn owner(&self) -> PublicKey {
        self.owner
    }

    /// The 32 bytes chosen when the dataset was made.
    pub(crate) fn salt(&self) -> &[u8; 32] {
        &self.salt
    }

    /// The secrets, by key epoch; at least one.
    pub(crate) fn secrets(&self) -> &BTreeMap<KeyEpoch, DatasetSecret> {
        &self.secrets
    }

    /// What the owner calls the dataset.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Providers that hold the dataset's head.
    pub(crate) fn providers(&self) -> &[ProviderAddress] {
        &self.providers
    }

    /// This key, with the secrets of an `older` key of the same dataset that it lacks, as far as there is room.
    pub(super) fn with_secrets_of(mut self, older: &DatasetKey) -> DatasetKey {
        for (epoch, secret) in older.secrets.iter().rev() {
            if self.secrets.len() < EPOCHS_MAX {
                self.secrets.entry(*epoch).or_insert_with(|| secret.clone());
            }
        }
        self
    }

    /// Canonical bytes, without a checksum: whatever holds them has its own.
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer::with_capacity(KEY_BYTES_MAX + CHECKSUM_BYTES);
        writer.raw(MAGIC);
        writer.u8(VERSION);
        writer.raw(self.owner.as_bytes());
        writer.raw(&self.salt);
        writer.len(self.secrets.len());
        for (epoch, secret) in &self.secrets {
            writer.u32(epoch.0);
            writer.raw(secret.expose());
        }
        writer.str(&self.name);
        writer.len(self.providers.len());
        for provider in &self.providers {
            writer.raw(provider.key.as_bytes());
            writer.str(&provider.address);
        }
        Zeroizing::new(writer.finish())
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that [`DatasetKey::encode`] would not write.
    pub(super) fn decode(bytes: &[u8]) -> Result<DatasetKey, DecodeError> {
        let mut reader = Reader::format(FORMAT, MAGIC, VERSION, bytes)?;
        let owner = PublicKey(reader.array()?);
        let salt = reader.array()?;
        let mut secrets = BTreeMap::new();
        for _ in 0..reader.count("epochs", EPOCHS_MAX, 36)? {
            let epoch = KeyEpoch(reader.u32()?);
            if secrets.last_key_value().is_some_and(|(last, _)| *last >= epoch) {
                return Err(reader.invalid("key epochs are not in rising order"));
            }
            secrets.insert(epoch, DatasetSecret::new(reader.array()?));
        }
        if secrets.is_empty() {
            return Err(reader.invalid("it holds no secret"));
        }
        let name = reader.str("name", NAME_BYTES_MAX)?.to_owned();
        if name.chars().any(char::is_control) {
            return Err(reader.invalid("the name has control characters"));
        }
        let mut providers = Vec::new();
        for _ in 0..reader.count("providers", PROVIDERS_MAX, 33)? {
            let key = PublicKey(reader.array()?);
            let address = reader.str("address", ADDRESS_BYTES_MAX)?;
            let provider = ProviderAddress::new(key, address)
                .map_err(|_| reader.invalid("a provider's address is not a host and a port"))?;
            providers.push(provider);
        }
        reader.finish()?;
        Ok(DatasetKey { owner, salt, secrets, name, providers })
    }

    /// The line to hand over, without a line end. It is a secret.
    pub(crate) fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = self.encode();
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        let digits = |byte: &u8| {
            [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        };
        let mut text = Zeroizing::new(String::with_capacity(TEXT_PREFIX.len() + bytes.len() * 2));
        text.push_str(TEXT_PREFIX);
        text.extend(bytes.iter().flat_map(digits));
        text
    }

    /// Reads the line; white space around it is ignored.
    ///
    /// # Errors
    /// Any [`DatasetKeyError`].
    pub(crate) fn parse(text: &str) -> Result<DatasetKey, DatasetKeyError> {
        let digits = text.trim().strip_prefix(TEXT_PREFIX).ok_or(DatasetKeyError::NotADatasetKey)?.as_bytes();
        let (pairs, odd) = digits.as_chunks::<2>();
        if !odd.is_empty() || pairs.len() > KEY_BYTES_MAX + CHECKSUM_BYTES {
            return Err(DatasetKeyError::Damaged);
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(pairs.len()));
        for [high, low] in pairs {
            let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
                return Err(DatasetKeyError::Damaged);
            };
            bytes.push(high << 4 | low);
        }
        let (body, found) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(DatasetKeyError::Damaged)?;
        if *found != checksum(body) {
            return Err(DatasetKeyError::Damaged);
        }
        Ok(DatasetKey::decode(body)?)
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    *blake3::hash(body).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::{DatasetKey, DatasetKeyError, ProviderAddress, TEXT_PREFIX};
    use proptest::prelude::{any, prop, proptest};
    use seedbank_formats::PublicKey;
    use seedbank_formats::keys::{DatasetSecret, KeyEpoch, dataset_id};
    use std::collections::BTreeMap;

    fn key() -> DatasetKey {
        let secrets = BTreeMap::from([
            (KeyEpoch(0), DatasetSecret::new([3; 32])),
            (KeyEpoch(7), DatasetSecret::new([4; 32])),
        ]);
        let providers = vec![
            ProviderAddress::new(PublicKey([5; 32]), "127.0.0.1:7410").unwrap(),
            ProviderAddress::new(PublicKey([6; 32]), "[2001:db8::1]:443").unwrap(),
        ];
        DatasetKey::new(PublicKey([1; 32]), [2; 32], secrets, "field notes, é", providers).unwrap()
    }

    #[test]
    fn text_is_the_committed_one_and_reads_back() {
        let committed = include_str!("../../../../testdata/keystore/dataset-key.txt");
        assert_eq!(*key().to_text(), committed.trim_end());
        let read = DatasetKey::parse(committed).unwrap();
        assert_eq!(read.dataset(), dataset_id(&PublicKey([1; 32]), &[2; 32]));
        assert_eq!(
            (read.owner(), *read.salt(), read.name()),
            (PublicKey([1; 32]), [2; 32], "field notes, é")
        );
        assert_eq!(read.secrets()[&KeyEpoch(7)].expose(), &[4; 32]);
        assert_eq!(read.providers()[1].address(), "[2001:db8::1]:443");
        assert_eq!(read.providers()[1].key(), PublicKey([6; 32]));
    }

    #[test]
    fn every_changed_or_missing_digit_is_noticed() {
        let text = key().to_text();
        for index in TEXT_PREFIX.len()..text.len() {
            let mut changed = text.as_bytes().to_vec();
            changed[index] = if changed[index] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(DatasetKey::parse(&changed).unwrap_err(), DatasetKeyError::Damaged);
            assert!(DatasetKey::parse(&text[..index]).is_err());
        }
        assert_eq!(DatasetKey::parse("hello").unwrap_err(), DatasetKeyError::NotADatasetKey);
        assert_eq!(DatasetKey::parse(&format!("{}é", *text)).unwrap_err(), DatasetKeyError::Damaged);
    }

    #[test]
    fn keys_that_could_not_be_read_are_not_made() {
        let one = BTreeMap::from([(KeyEpoch(0), DatasetSecret::new([3; 32]))]);
        let make =
            |secrets, name: &str| DatasetKey::new(PublicKey([1; 32]), [2; 32], secrets, name, Vec::new());
        assert!(make(one.clone(), "a").is_ok());
        assert!(make(BTreeMap::new(), "a").is_err());
        assert!(make(one.clone(), "a\nb").is_err());
        assert!(make(one, &"a".repeat(256)).is_err());
        let many = (0..257).map(|epoch| (KeyEpoch(epoch), DatasetSecret::new([3; 32]))).collect();
        assert!(make(many, "a").is_err());
    }

    #[test]
    fn only_the_first_providers_are_kept() {
        let one = BTreeMap::from([(KeyEpoch(0), DatasetSecret::new([3; 32]))]);
        let providers =
            (0..40).map(|number| ProviderAddress::new(PublicKey([number; 32]), "h:1").unwrap()).collect();
        let key = DatasetKey::new(PublicKey([1; 32]), [2; 32], one, "", providers).unwrap();
        assert_eq!(key.providers().len(), 16);
    }

    #[test]
    fn provider_addresses_name_a_key_a_host_and_a_port() {
        let hex = "05".repeat(32);
        for good in ["127.0.0.1:7410", "provider.example.org:1", "[::1]:65535"] {
            let text = format!("{hex}@{good}");
            assert_eq!(text.parse::<ProviderAddress>().unwrap().to_string(), text);
        }
        for bad in [
            "127.0.0.1",
            ":80",
            "host:0",
            "host:65536",
            "host:+80",
            "ho st:80",
            "[::1:80",
            "::1:80",
            "[x]:80",
            "h\n:1",
        ] {
            assert!(format!("{hex}@{bad}").parse::<ProviderAddress>().is_err(), "{bad:?}");
        }
        assert!("host:80".parse::<ProviderAddress>().is_err());
        assert!("05@host:80".parse::<ProviderAddress>().is_err());
    }

    #[test]
    fn secrets_are_not_shown_in_debug_output() {
        let shown = format!("{:?}", key());
        assert!(!shown.contains("0303") && !shown.contains("3, 3") && !shown.contains("4, 4"));
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_or_are_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(key) = DatasetKey::decode(&bytes) {
                assert_eq!(*key.encode(), bytes);
            }
        }

        #[test]
        fn flipped_bytes_are_refused_or_are_canonical(at in any::<prop::sample::Index>(), flip in 1..=255u8) {
            let mut bytes = key().encode().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok(key) = DatasetKey::decode(&bytes) {
                assert_eq!(*key.encode(), bytes);
            }
        }

        #[test]
        fn hostile_text_never_panics(text in "(seedbank-dataset-key-1:)?[0-9a-f]{0,200}.{0,3}") {
            assert!(DatasetKey::parse(&text).is_err());
        }
    }
}

//! What a provider signs, and what it asks to see: receipts, reader tokens and statements.
//!
//! Each is a fixed canonical body and an Ed25519 signature over its domain tag and body. Decoding gives the value and
//! its signature unchecked; `check` is the only way to a value that may be believed.

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{FragmentId, PublicKey, Signature, Timestamp};
use crate::keys::{SignatureDomain, SigningKey, WrongSignature};

/// A provider's promise: it holds these bytes for this client until then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Who holds the fragment, and signs.
    pub provider: PublicKey,
    /// For whom.
    pub client: PublicKey,
    /// What.
    pub fragment: FragmentId,
    /// How many bytes it has.
    pub length: u64,
    /// Until when the claim lasts.
    pub until: Timestamp,
    /// When the provider signed, by its own clock.
    pub time: Timestamp,
}

const RECEIPT_MAGIC: &[u8; 4] = b"SBRC";
const TOKEN_MAGIC: &[u8; 4] = b"SBRT";
const STATEMENT_MAGIC: &[u8; 4] = b"SBST";
const VERSION: u8 = 1;

impl Receipt {
    fn body(&self) -> Vec<u8> {
        let mut writer = Writer::format(RECEIPT_MAGIC, VERSION);
        self.provider.write(&mut writer);
        self.client.write(&mut writer);
        writer.raw(self.fragment.as_bytes());
        writer.u64(self.length);
        writer.u64(self.until.0);
        writer.u64(self.time.0);
        writer.finish()
    }

    /// The signed bytes, by the provider's key.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        signed(self.body(), SignatureDomain::Receipt, key)
    }

    /// Reads a receipt and checks the signature of the provider that it names.
    ///
    /// # Errors
    /// [`SignedError`] when the bytes are no receipt or the signature does not fit.
    pub fn check(bytes: &[u8]) -> Result<Receipt, SignedError> {
        let (body, signature) = split(bytes, "receipt")?;
        let mut reader = Reader::format("receipt", RECEIPT_MAGIC, VERSION, body)?;
        let receipt = Receipt {
            provider: PublicKey::read(&mut reader)?,
            client: PublicKey::read(&mut reader)?,
            fragment: FragmentId(reader.array()?),
            length: reader.u64()?,
            until: Timestamp(reader.u64()?),
            time: Timestamp(reader.u64()?),
        };
        reader.finish()?;
        receipt.provider.verify(SignatureDomain::Receipt, body, &signature)?;
        Ok(receipt)
    }
}

/// A permission to fetch every fragment whose claim names this reader key, for one bearer and a limited time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderToken {
    /// The dataset's reader key, which signs.
    pub reader: PublicKey,
    /// The TLS key that may present the token: a token seen on the wire is of no use to another.
    pub bearer: PublicKey,
    /// Until when it is good.
    pub until: Timestamp,
}

impl ReaderToken {
    fn body(&self) -> Vec<u8> {
        let mut writer = Writer::format(TOKEN_MAGIC, VERSION);
        self.reader.write(&mut writer);
        self.bearer.write(&mut writer);
        writer.u64(self.until.0);
        writer.finish()
    }

    /// The signed bytes, by the dataset's reader key.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        signed(self.body(), SignatureDomain::ReaderToken, key)
    }

    /// Reads a token and checks the signature of the reader key that it names. Whether that key may read a given
    /// fragment, whether the bearer is who asks and whether it is still good is for the caller to compare.
    ///
    /// # Errors
    /// [`SignedError`] when the bytes are no token or the signature does not fit.
    pub fn check(bytes: &[u8]) -> Result<ReaderToken, SignedError> {
        let (body, signature) = split(bytes, "reader token")?;
        let mut reader = Reader::format("reader token", TOKEN_MAGIC, VERSION, body)?;
        let token = ReaderToken {
            reader: PublicKey::read(&mut reader)?,
            bearer: PublicKey::read(&mut reader)?,
            until: Timestamp(reader.u64()?),
        };
        reader.finish()?;
        token.reader.verify(SignatureDomain::ReaderToken, body, &signature)?;
        Ok(token)
    }
}

/// What a provider says about a range it was asked for with proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It answered with a slice (proof and data together) of this BLAKE3 hash.
    Slice([u8; 32]),
    /// It looked, and its bytes no longer match the fragment's id: it admits the rot.
    Rotten,
    /// It does not hold the fragment.
    Absent,
}

/// A provider's signed word for one answer. With the slice beside it, anyone can check who was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Who answers, and signs.
    pub provider: PublicKey,
    /// About which fragment.
    pub fragment: FragmentId,
    /// First byte asked for.
    pub start: u64,
    /// One past the last byte asked for.
    pub end: u64,
    /// What it answered.
    pub answer: Answer,
    /// When the provider signed, by its own clock.
    pub time: Timestamp,
}

impl Statement {
    /// Bytes of an encoded statement with its signature.
    pub const ENCODED_LEN: usize = 5 + 32 + 32 + 8 + 8 + 1 + 32 + 8 + 64;

    fn body(&self) -> Vec<u8> {
        let mut writer = Writer::format(STATEMENT_MAGIC, VERSION);
        self.provider.write(&mut writer);
        writer.raw(self.fragment.as_bytes());
        writer.u64(self.start);
        writer.u64(self.end);
        let (kind, hash) = match self.answer {
            Answer::Slice(hash) => (0, hash),
            Answer::Rotten => (1, [0; 32]),
            Answer::Absent => (2, [0; 32]),
        };
        writer.u8(kind);
        writer.raw(&hash);
        writer.u64(self.time.0);
        writer.finish()
    }

    /// The signed bytes, by the provider's key.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        signed(self.body(), SignatureDomain::Statement, key)
    }

    /// Reads a statement and checks the signature of the provider that it names.
    ///
    /// # Errors
    /// [`SignedError`] when the bytes are no statement or the signature does not fit.
    pub fn check(bytes: &[u8]) -> Result<Statement, SignedError> {
        let (body, signature) = split(bytes, "statement")?;
        let mut reader = Reader::format("statement", STATEMENT_MAGIC, VERSION, body)?;
        let provider = PublicKey::read(&mut reader)?;
        let fragment = FragmentId(reader.array()?);
        let (start, end) = (reader.u64()?, reader.u64()?);
        let (kind, hash) = (reader.u8()?, reader.array::<32>()?);
        let answer = match (kind, hash == [0; 32]) {
            (0, _) => Answer::Slice(hash),
            (1, true) => Answer::Rotten,
            (2, true) => Answer::Absent,
            _ => return Err(reader.invalid("an unknown kind of answer").into()),
        };
        let time = Timestamp(reader.u64()?);
        reader.finish()?;
        provider.verify(SignatureDomain::Statement, body, &signature)?;
        Ok(Statement { provider, fragment, start, end, answer, time })
    }
}

/// Why signed bytes can't be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// They are not what they were said to be.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The key that they name did not sign them.
    #[error(transparent)]
    Signature(#[from] WrongSignature),
}

pub(crate) fn signed(mut body: Vec<u8>, domain: SignatureDomain, key: &SigningKey) -> Vec<u8> {
    let signature = key.sign(domain, &body);
    body.extend_from_slice(&signature.0);
    body
}

pub(crate) fn split<'a>(bytes: &'a [u8], format: &'static str) -> Result<(&'a [u8], Signature), DecodeError> {
    let (body, signature) = bytes.split_last_chunk::<64>().ok_or(DecodeError::Truncated { format })?;
    Ok((body, Signature(*signature)))
}

#[cfg(test)]
mod tests {
    use super::{Answer, ReaderToken, Receipt, SignedError, Statement};
    use crate::ids::{FragmentId, Timestamp};
    use crate::keys::SigningKey;
    use proptest::prelude::{any, proptest};

    fn key() -> SigningKey {
        SigningKey::from_seed([1; 32])
    }

    fn receipt() -> Receipt {
        Receipt {
            provider: key().public(),
            client: SigningKey::from_seed([2; 32]).public(),
            fragment: FragmentId([3; 32]),
            length: 65_536,
            until: Timestamp(2_000_000_000),
            time: Timestamp(1_900_000_000),
        }
    }

    #[test]
    fn receipt_signed_by_another_key_is_refused() {
        let forged = receipt().sign(&SigningKey::from_seed([9; 32]));
        assert!(matches!(Receipt::check(&forged), Err(SignedError::Signature(_))));
        assert_eq!(Receipt::check(&receipt().sign(&key())), Ok(receipt()));
    }

    #[test]
    fn statements_of_every_kind_read_back() {
        for answer in [Answer::Slice([5; 32]), Answer::Rotten, Answer::Absent] {
            let statement = Statement {
                provider: key().public(),
                fragment: FragmentId([3; 32]),
                start: 10,
                end: 20,
                answer,
                time: Timestamp(7),
            };
            let bytes = statement.sign(&key());
            assert_eq!(bytes.len(), Statement::ENCODED_LEN);
            assert_eq!(Statement::check(&bytes), Ok(statement));
        }
    }

    #[test]
    fn committed_vectors_are_what_signing_gives() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let token =
            ReaderToken { reader: key().public(), bearer: key().public(), until: Timestamp(1_900_000_000) };
        let (provider, fragment, time) = (key().public(), FragmentId([3; 32]), Timestamp(7));
        let statement =
            |answer| Statement { provider, fragment, start: 10, end: 20, answer, time }.sign(&key());
        let signed = [
            ("receipt", receipt().sign(&key())),
            ("reader-token", token.sign(&key())),
            ("statement-slice", statement(Answer::Slice([5; 32]))),
            ("statement-rotten", statement(Answer::Rotten)),
            ("statement-absent", statement(Answer::Absent)),
        ]
        .map(|(name, bytes)| format!("{name} {}", hex(&bytes)));
        let vectors = include_str!("../../../testdata/receipt-vectors.txt");
        let committed: Vec<&str> = vectors.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(signed[..], committed[..]);
    }

    #[test]
    fn every_flipped_bit_of_a_token_is_refused() {
        let token =
            ReaderToken { reader: key().public(), bearer: key().public(), until: Timestamp(1_900_000_000) };
        let bytes = token.sign(&key());
        assert_eq!(ReaderToken::check(&bytes), Ok(token));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(ReaderToken::check(&flipped).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_never_believed(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            assert!(Receipt::check(&bytes).is_err());
            assert!(ReaderToken::check(&bytes).is_err());
            assert!(Statement::check(&bytes).is_err());
        }
    }
}

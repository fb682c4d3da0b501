//! What client and provider say to each other in JSON, and how each message is checked when it comes in.
//!
//! Encoding can't fail. Decoding checks a length before it parses, and every limit of the message after. Messages that
//! only one version writes refuse unknown fields; [`Hello`] and [`Problem`] are read by peers older than their writer,
//! so unknown fields, features and codes are let pass there. Signed things (receipts, statements, tokens, heads) are
//! binary and live in `formats`.

use crate::payment::PaymentDue;
use crate::routes::{
    ALPN, CLAIMS_BATCH_MAX, CLAIMS_PAGE_MAX, JSON_BYTES_MAX, PROBLEM_BYTES_MAX, TOKEN_BYTES_MAX,
};
use seedbank_formats::{FragmentId, PublicKey, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why bytes are not the message that they should be. The peer does not speak the protocol, or a newer one.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Not JSON, or not of the message's shape.
    #[error("not a {message}")]
    Shape {
        /// The message expected.
        message: &'static str,
        /// Where the parser stopped.
        #[source]
        source: serde_json::Error,
    },
    /// More bytes or entries than the message may have.
    #[error("{message} is above its limit of {limit}")]
    OverLimit {
        /// The message expected.
        message: &'static str,
        /// The limit, in bytes or entries.
        limit: usize,
    },
    /// A value that the message forbids.
    #[error("{message}: {reason}")]
    Invalid {
        /// The message expected.
        message: &'static str,
        /// What is wrong, as a sentence fragment.
        reason: &'static str,
    },
}

pub(crate) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    serde_json::to_vec(message).expect("messages have text keys and no failing serialiser")
}

pub(crate) fn decode<T: DeserializeOwned>(
    message: &'static str,
    bytes: &[u8],
    bytes_max: usize,
) -> Result<T, MessageError> {
    if bytes.len() > bytes_max {
        return Err(MessageError::OverLimit { message, limit: bytes_max });
    }
    serde_json::from_slice(bytes).map_err(|source| MessageError::Shape { message, source })
}

/// Lower-case hex.
pub(crate) fn encode_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

/// The bytes of an even number of hex digits, at most `bytes_max` of them.
pub(crate) fn decode_hex(text: &str, bytes_max: usize) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || digits.len() / 2 > bytes_max {
        return None;
    }
    digits
        .chunks_exact(2)
        .map(|pair| {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            u8::try_from(high * 16 + low).ok()
        })
        .collect()
}

/// An amount in the smallest units of the payment token. In JSON a string of decimal digits: amounts outgrow the
/// 53 bits that many JSON readers keep of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TokenUnits(pub u128);

impl fmt::Display for TokenUnits {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

impl Serialize for TokenUnits {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TokenUnits {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<TokenUnits, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let one_spelling =
            text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        match text.parse() {
            Ok(units) if one_spelling => Ok(TokenUnits(units)),
            _ => Err(serde::de::Error::custom("an amount is not a string of decimal digits")),
        }
    }
}

/// What a provider asks for its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Prices {
    /// For holding 1 GiB (2^30 bytes) for 30 days.
    pub storage_per_gib_month: TokenUnits,
    /// For sending 1 GiB (2^30 bytes).
    pub retrieval_per_gib: TokenUnits,
}

/// From whom a provider takes new fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accepting {
    /// From any key.
    Anyone,
    /// From keys to which the operator grants a quota.
    KnownClients,
    /// From nobody at the moment: full, read-only or leaving. A word of a newer version is read as this.
    #[serde(other)]
    Nobody,
}

/// Optional abilities of version 1 that this build has; a provider lists its own in [`Hello::features`].
pub const FEATURES: [&str; 3] = ["claims", "heads", "proofs"];

/// Listed in [`Hello::features`] by a provider that is paid: it gives quotes and takes proposals, revisions and vouchers.
pub const FEATURE_PAYMENTS: &str = "payments";

/// Operators and regions are short names for people and for policies.
const NAME_BYTES_MAX: usize = 64;
/// Room for features of later versions.
const FEATURES_MAX: usize = 64;

/// Who a provider is, what it speaks, takes and costs. Its own word, signed by nothing but the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol and major version, [`ALPN`].
    pub protocol: String,
    /// Optional abilities, see [`FEATURES`]. Unknown ones are to be ignored.
    pub features: Vec<String>,
    /// Its key: the one that TLS proved.
    pub provider: PublicKey,
    /// Who runs it. Placement puts fragments of one segment on distinct operators.
    pub operator: String,
    /// Where it stands, in the operator's words, for example `eu-west`.
    pub region: String,
    /// Bytes that the operator offers in all.
    pub capacity_bytes: u64,
    /// Bytes that the asking key may still store: what is left of its quota and of the disk.
    pub free_bytes: u64,
    /// What it asks for.
    pub prices: Prices,
    /// From whom it takes new fragments.
    pub accepting: Accepting,
}

impl Hello {
    const NAME: &'static str = "hello";

    /// As JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a hello from JSON. Whether `provider` is the key that was dialled is for the caller to compare.
    ///
    /// # Errors
    /// [`MessageError`]; another major version is [`MessageError::Invalid`].
    pub fn decode(bytes: &[u8]) -> Result<Hello, MessageError> {
        let hello: Hello = decode(Hello::NAME, bytes, JSON_BYTES_MAX)?;
        let invalid = |reason| MessageError::Invalid { message: Hello::NAME, reason };
        if hello.protocol != ALPN {
            return Err(invalid("it speaks another version of the protocol"));
        }
        if !is_short_name(&hello.operator) || !is_short_name(&hello.region) {
            return Err(invalid("operator or region is too long or has control characters"));
        }
        if hello.features.len() > FEATURES_MAX || !hello.features.iter().all(|name| is_short_name(name)) {
            return Err(invalid("too many or too long features"));
        }
        Ok(hello)
    }
}

fn is_short_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control)
}

/// Why a provider refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// The request is malformed: the client is broken.
    BadRequest,
    /// The key read more than it has credit for: a voucher must come first. [`Problem::payment`] says for how much.
    PaymentRequired,
    /// The reader token is missing, expired, for another bearer, or not of a reader that the claim names.
    TokenRefused,
    /// This key is no client here: the operator grants it no quota.
    UnknownClient,
    /// The key's quota is used up.
    OverQuota,
    /// No such fragment, head or path.
    NotFound,
    /// The path has no such method.
    MethodNotAllowed,
    /// The provider holds a newer head. A PUT is answered with that head itself instead of a problem.
    StaleHead,
    /// The provider held the fragment, and its bytes no longer match its id. The proof route says so signed.
    Rotten,
    /// A body came without its length.
    LengthRequired,
    /// Body, batch or range is above the limit.
    TooLarge,
    /// The range is empty or does not lie inside the fragment.
    RangeOutside,
    /// The body is not the fragment that the path names: broken on the way, or a lie.
    HashMismatch,
    /// Too many requests of this key at once; try again after `retry_after_s`.
    Busy,
    /// The provider failed. Its log says how.
    Internal,
    /// The provider takes no changes: its disk failed a check, or it is leaving. Reads work.
    ReadOnly,
    /// No room on the disk.
    DiskFull,
    /// The provider does not speak this version of the protocol.
    UnknownVersion,
    /// A code of a newer version.
    #[serde(other)]
    Other,
}

impl ProblemCode {
    /// The HTTP status that carries it.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            ProblemCode::BadRequest => 400,
            ProblemCode::PaymentRequired => 402,
            ProblemCode::TokenRefused | ProblemCode::UnknownClient | ProblemCode::OverQuota => 403,
            ProblemCode::NotFound => 404,
            ProblemCode::MethodNotAllowed => 405,
            ProblemCode::StaleHead => 409,
            ProblemCode::Rotten => 410,
            ProblemCode::LengthRequired => 411,
            ProblemCode::TooLarge => 413,
            ProblemCode::RangeOutside => 416,
            ProblemCode::HashMismatch => 422,
            ProblemCode::Busy => 429,
            ProblemCode::Internal | ProblemCode::Other => 500,
            ProblemCode::ReadOnly => 503,
            ProblemCode::UnknownVersion => 505,
            ProblemCode::DiskFull => 507,
        }
    }
}

/// A refusal, with a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What programs decide by.
    pub code: ProblemCode,
    /// What people read.
    pub message: String,
    /// After how many seconds a repeat may succeed, if the provider knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// What must be paid, with [`ProblemCode::PaymentRequired`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment: Option<Box<PaymentDue>>,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

/// A longer message is no sentence.
const PROBLEM_MESSAGE_CHARS_MAX: usize = 300;

impl Problem {
    /// A problem without a time to wait.
    #[must_use]
    pub fn new(code: ProblemCode, message: impl Into<String>) -> Problem {
        Problem { code, message: message.into(), retry_after_s: None, payment: None }
    }

    /// A read that must be paid for first.
    #[must_use]
    pub fn payment_required(message: impl Into<String>, due: PaymentDue) -> Problem {
        Problem { payment: Some(Box::new(due)), ..Problem::new(ProblemCode::PaymentRequired, message) }
    }

    /// As JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a problem from JSON. Its message is cut and freed of control characters: it goes to people's terminals.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn decode(bytes: &[u8]) -> Result<Problem, MessageError> {
        let mut problem: Problem = decode("problem", bytes, PROBLEM_BYTES_MAX)?;
        problem.message = problem
            .message
            .chars()
            .take(PROBLEM_MESSAGE_CHARS_MAX)
            .map(|letter| if letter.is_control() { ' ' } else { letter })
            .collect();
        Ok(problem)
    }
}

/// What to do with one of the caller's claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ClaimAction {
    /// Make it last until then: confirms a pending claim, lengthens a confirmed one, never shortens it.
    Renew(Timestamp),
    /// Drop it. The bytes go when no claim is left.
    Release,
}

/// One entry of a batch of claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// Which fragment.
    pub fragment: FragmentId,
    /// What to do.
    pub action: ClaimAction,
}

/// Signed bytes in JSON, as hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBytes(pub Vec<u8>);

impl Serialize for SignedBytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encode_hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for SignedBytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<SignedBytes, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        decode_hex(&text, TOKEN_BYTES_MAX)
            .map(SignedBytes)
            .ok_or_else(|| serde::de::Error::custom("signed bytes are not hex, or too long"))
    }
}

/// What became of one entry of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ClaimResult {
    /// Renewed: the new receipt, signed.
    Receipt(SignedBytes),
    /// Released, or there was no claim to release.
    Released,
    /// Not released: the caller has asked for the claim again since it asked for the release.
    Kept,
    /// Not renewed: the provider does not hold the fragment for this client.
    Absent,
    /// Not renewed: the provider's bytes no longer match the id.
    Rotten,
}

/// The answer to one entry of a batch, in the batch's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimAnswer {
    /// Which fragment.
    pub fragment: FragmentId,
    /// What became of it.
    pub result: ClaimResult,
}

/// How firm a claim is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimState {
    /// Stored, not yet confirmed by the client's commit; it goes by itself.
    Pending,
    /// Confirmed.
    Confirmed,
    /// The provider noticed that its bytes no longer match the id.
    Rotten,
}

/// One claim of the caller, as the provider lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimRow {
    /// Which fragment.
    pub fragment: FragmentId,
    /// How many bytes it has.
    pub length: u64,
    /// Until when the claim lasts.
    pub until: Timestamp,
    /// How firm it is.
    pub state: ClaimState,
}

/// A batch of claims as JSON. At most [`CLAIMS_BATCH_MAX`] entries are understood.
#[must_use]
pub fn encode_claim_requests(requests: &[ClaimRequest]) -> Vec<u8> {
    encode(&requests)
}

/// Reads a batch of claims.
///
/// # Errors
/// [`MessageError`].
pub fn decode_claim_requests(bytes: &[u8]) -> Result<Vec<ClaimRequest>, MessageError> {
    decode_list("batch of claims", bytes, CLAIMS_BATCH_MAX)
}

/// The answers to a batch as JSON.
#[must_use]
pub fn encode_claim_answers(answers: &[ClaimAnswer]) -> Vec<u8> {
    encode(&answers)
}

/// Reads the answers to a batch. Receipts in it are not checked here.
///
/// # Errors
/// [`MessageError`].
pub fn decode_claim_answers(bytes: &[u8]) -> Result<Vec<ClaimAnswer>, MessageError> {
    decode_list("list of claim answers", bytes, CLAIMS_BATCH_MAX)
}

/// A page of claims as JSON, in rising order of fragment ids. An empty page is the end.
#[must_use]
pub fn encode_claims_page(rows: &[ClaimRow]) -> Vec<u8> {
    encode(&rows)
}

/// Reads a page of claims, which must be in strictly rising order.
///
/// # Errors
/// [`MessageError`].
pub fn decode_claims_page(bytes: &[u8]) -> Result<Vec<ClaimRow>, MessageError> {
    const NAME: &str = "page of claims";
    let rows: Vec<ClaimRow> = decode_list(NAME, bytes, CLAIMS_PAGE_MAX)?;
    if !rows.is_sorted_by(|left, right| left.fragment < right.fragment) {
        return Err(MessageError::Invalid { message: NAME, reason: "not in strictly rising order" });
    }
    Ok(rows)
}

fn decode_list<T: DeserializeOwned>(
    message: &'static str,
    bytes: &[u8],
    count_max: usize,
) -> Result<Vec<T>, MessageError> {
    let list: Vec<T> = decode(message, bytes, JSON_BYTES_MAX)?;
    if list.len() > count_max {
        return Err(MessageError::OverLimit { message, limit: count_max });
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::{
        Accepting, ClaimAction, ClaimAnswer, ClaimRequest, ClaimResult, ClaimRow, ClaimState, Hello,
        MessageError, Prices, Problem, ProblemCode, SignedBytes, TokenUnits, decode_claim_answers,
        decode_claim_requests, decode_claims_page, encode_claim_answers, encode_claim_requests,
        encode_claims_page,
    };
    use proptest::prelude::{any, proptest};
    use seedbank_formats::{FragmentId, PublicKey, Timestamp};

    fn hello() -> Hello {
        Hello {
            protocol: "seedbank/1".to_owned(),
            features: vec!["proofs".to_owned()],
            provider: PublicKey([7; 32]),
            operator: "example".to_owned(),
            region: "eu-west".to_owned(),
            capacity_bytes: 1 << 40,
            free_bytes: 1 << 39,
            prices: Prices {
                storage_per_gib_month: TokenUnits(1_000_000_000_000_000_000_000),
                retrieval_per_gib: TokenUnits(0),
            },
            accepting: Accepting::KnownClients,
        }
    }

    #[test]
    fn hello_of_a_newer_minor_version_is_understood() {
        let mut json: serde_json::Value = serde_json::from_slice(&hello().encode()).unwrap();
        json["moon_phase"] = "full".into();
        json["accepting"] = "left_handed_clients".into();
        let read = Hello::decode(json.to_string().as_bytes()).unwrap();
        assert_eq!(read, Hello { accepting: Accepting::Nobody, ..hello() });
        assert_eq!(Hello::decode(&hello().encode()).unwrap(), hello());
    }

    #[test]
    fn hello_of_another_major_version_or_with_hostile_names_is_refused() {
        let refused = [
            Hello { protocol: "seedbank/2".to_owned(), ..hello() },
            Hello { region: "\u{1b}[2J".to_owned(), ..hello() },
            Hello { operator: "x".repeat(65), ..hello() },
            Hello { features: vec![String::new(); 65], ..hello() },
        ];
        for hello in refused {
            assert!(matches!(Hello::decode(&hello.encode()), Err(MessageError::Invalid { .. })));
        }
    }

    #[test]
    fn problem_of_a_newer_version_is_understood_and_its_message_is_harmless() {
        let read =
            Problem::decode(br#"{"code":"on_holiday","message":"\u001b[31mback soon","more":1}"#).unwrap();
        assert_eq!(read, Problem::new(ProblemCode::Other, " [31mback soon"));
        let problem = Problem { retry_after_s: Some(3), ..Problem::new(ProblemCode::OverQuota, "no") };
        assert_eq!(problem.encode(), br#"{"code":"over_quota","message":"no","retry_after_s":3}"#);
    }

    #[test]
    fn documentation_shows_every_code_with_its_status() {
        let page = include_str!("../../../docs/protocol.md");
        for code in [
            ProblemCode::BadRequest,
            ProblemCode::PaymentRequired,
            ProblemCode::TokenRefused,
            ProblemCode::UnknownClient,
            ProblemCode::OverQuota,
            ProblemCode::NotFound,
            ProblemCode::MethodNotAllowed,
            ProblemCode::StaleHead,
            ProblemCode::Rotten,
            ProblemCode::LengthRequired,
            ProblemCode::TooLarge,
            ProblemCode::RangeOutside,
            ProblemCode::HashMismatch,
            ProblemCode::Busy,
            ProblemCode::Internal,
            ProblemCode::ReadOnly,
            ProblemCode::UnknownVersion,
            ProblemCode::DiskFull,
        ] {
            let word = serde_json::to_value(code).unwrap();
            let row = format!("| `{}` | {} |", word.as_str().unwrap(), code.status());
            assert!(page.contains(&row), "{row}");
        }
    }

    #[test]
    fn claims_are_written_as_documented() {
        let fragment = FragmentId([1; 32]);
        let id = fragment.to_string();
        let renew = ClaimRequest { fragment, action: ClaimAction::Renew(Timestamp(9)) };
        let release = ClaimRequest { fragment, action: ClaimAction::Release };
        let json = format!(
            r#"[{{"fragment":"{id}","action":{{"renew":9}}}},{{"fragment":"{id}","action":"release"}}]"#
        );
        assert_eq!(encode_claim_requests(&[renew, release]), json.as_bytes());
        assert_eq!(decode_claim_requests(json.as_bytes()).unwrap(), [renew, release]);

        let answers = [
            ClaimResult::Receipt(SignedBytes(vec![0xab])),
            ClaimResult::Released,
            ClaimResult::Kept,
            ClaimResult::Absent,
            ClaimResult::Rotten,
        ]
        .map(|result| ClaimAnswer { fragment, result });
        let json = String::from_utf8(encode_claim_answers(&answers)).unwrap();
        assert!(
            json.starts_with(&format!(r#"[{{"fragment":"{id}","result":{{"receipt":"ab"}}}}"#)),
            "{json}"
        );
        assert_eq!(decode_claim_answers(json.as_bytes()).unwrap(), answers);
    }

    #[test]
    fn unknown_fields_and_too_many_entries_are_refused() {
        let id = FragmentId([1; 32]);
        let json = format!(r#"[{{"fragment":"{id}","action":"release","force":true}}]"#);
        assert!(matches!(decode_claim_requests(json.as_bytes()), Err(MessageError::Shape { .. })));
        let many = vec![ClaimRequest { fragment: id, action: ClaimAction::Release }; 1_001];
        let bytes = encode_claim_requests(&many);
        assert!(matches!(decode_claim_requests(&bytes), Err(MessageError::OverLimit { limit: 1_000, .. })));
    }

    #[test]
    fn page_of_claims_must_rise() {
        let row = |byte| ClaimRow {
            fragment: FragmentId([byte; 32]),
            length: 5,
            until: Timestamp(9),
            state: ClaimState::Pending,
        };
        assert_eq!(decode_claims_page(&encode_claims_page(&[row(1), row(2)])).unwrap(), [row(1), row(2)]);
        for rows in [[row(2), row(1)], [row(1), row(1)]] {
            assert!(matches!(
                decode_claims_page(&encode_claims_page(&rows)),
                Err(MessageError::Invalid { .. })
            ));
        }
    }

    #[test]
    fn amounts_are_digits_in_a_string() {
        assert_eq!(serde_json::from_str::<TokenUnits>("\"12\"").unwrap(), TokenUnits(12));
        assert_eq!(serde_json::from_str::<TokenUnits>("\"0\"").unwrap(), TokenUnits(0));
        for refused in ["12", "\"-1\"", "\"+1\"", "\"\"", "\"1e3\"", "\"012\"", "\"00\""] {
            assert!(serde_json::from_str::<TokenUnits>(refused).is_err(), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Hello::decode(&bytes), Problem::decode(&bytes), decode_claim_requests(&bytes));
            let _ = (decode_claim_answers(&bytes), decode_claims_page(&bytes));
        }

        #[test]
        fn mangled_hello_is_refused_or_within_its_limits(at in any::<usize>(), byte in any::<u8>()) {
            let mut bytes = hello().encode();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(read) = Hello::decode(&bytes) {
                assert!(read.operator.len() <= 64 && read.protocol == "seedbank/1");
            }
        }
    }
}

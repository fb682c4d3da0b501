//! What a provider's signed answer must be to count as one.
//!
//! These checks stand between the wire and the exchanges: a receipt, statement or slice that passes here may be believed
//! or be shown to others. Whoever carries bytes calls them; nothing else decides what an answer is worth. An answer that
//! fails [`check_receipt`] or [`check_statement`] is malformed and proves nothing about its provider; one that fails only
//! [`judge`] is evidence.

use crate::read_exchange::Answer;
use seedbank_formats::receipt::{self, Receipt, SignedError, Statement};
use seedbank_formats::{FragmentId, PublicKey, slice};
use std::ops::Range;

/// Why an answer does not count: it is malformed, and no evidence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It is not what it should be, or signed by another key than it names.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// It answers another question.
    #[error("the {0} is about something else than what was asked")]
    Mismatch(&'static str),
}

/// What a receipt must be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiptQuestion {
    /// Who was asked.
    pub provider: PublicKey,
    /// Who asks.
    pub client: PublicKey,
    /// For which fragment.
    pub fragment: FragmentId,
    /// The fragment's bytes, where the asker knows them.
    pub length: Option<u64>,
}

/// The receipt, if it is signed and answers the question.
///
/// # Errors
/// [`AnswerError`].
pub fn check_receipt(bytes: &[u8], asked: &ReceiptQuestion) -> Result<Receipt, AnswerError> {
    let receipt = Receipt::check(bytes)?;
    let answers_this = receipt.provider == asked.provider
        && receipt.client == asked.client
        && receipt.fragment == asked.fragment
        && asked.length.is_none_or(|length| receipt.length == length);
    if answers_this { Ok(receipt) } else { Err(AnswerError::Mismatch("receipt")) }
}

/// The statement, if it is signed, answers the question and covers the slice that came with it.
///
/// # Errors
/// [`AnswerError`].
pub fn check_statement(
    statement: &[u8],
    slice: &[u8],
    provider: &PublicKey,
    fragment: &FragmentId,
    range: &Range<u64>,
) -> Result<Statement, AnswerError> {
    let statement = Statement::check(statement)?;
    let answers_this = statement.provider == *provider
        && statement.fragment == *fragment
        && (statement.start, statement.end) == (range.start, range.end);
    let covers_slice = match statement.answer {
        receipt::Answer::Slice(hash) => FragmentId::of(slice).0 == hash,
        receipt::Answer::Rotten | receipt::Answer::Absent => slice.is_empty(),
    };
    if answers_this && covers_slice { Ok(statement) } else { Err(AnswerError::Mismatch("statement")) }
}

/// The bytes that a checked statement and its slice prove for a fragment of `length` bytes, or what the answer amounts
/// to instead. It is evidence then, which anyone can check the same way.
///
/// # Errors
/// [`Answer::Rotten`], [`Answer::Absent`] or [`Answer::Contradicted`].
pub fn judge(statement: &Statement, slice: &[u8], length: u64) -> Result<Vec<u8>, Answer> {
    match statement.answer {
        receipt::Answer::Rotten => Err(Answer::Rotten),
        receipt::Answer::Absent => Err(Answer::Absent),
        receipt::Answer::Slice(_) => {
            let range = statement.start..statement.end;
            slice::verify(&statement.fragment, length, &range, slice).map_err(|_wrong| Answer::Contradicted)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AnswerError, ReceiptQuestion, check_receipt, check_statement, judge};
    use crate::read_exchange::Answer;
    use seedbank_formats::keys::SigningKey;
    use seedbank_formats::receipt::{self, Receipt, Statement};
    use seedbank_formats::slice::{self, FragmentHasher};
    use seedbank_formats::{FragmentId, PublicKey, Timestamp};

    fn key() -> SigningKey {
        SigningKey::from_seed([1; 32])
    }

    fn receipt() -> Receipt {
        Receipt {
            provider: key().public(),
            client: PublicKey([2; 32]),
            fragment: FragmentId([3; 32]),
            length: 64,
            until: Timestamp(20),
            time: Timestamp(10),
        }
    }

    #[test]
    fn receipt_counts_only_for_what_was_asked() {
        let right = receipt();
        let asked = ReceiptQuestion {
            provider: right.provider,
            client: right.client,
            fragment: right.fragment,
            length: Some(right.length),
        };
        assert_eq!(check_receipt(&right.sign(&key()), &asked), Ok(right.clone()));
        let other = SigningKey::from_seed([9; 32]);
        let wrong = [
            Receipt { client: PublicKey([7; 32]), ..right.clone() }.sign(&key()),
            Receipt { fragment: FragmentId([7; 32]), ..right.clone() }.sign(&key()),
            Receipt { length: 65, ..right.clone() }.sign(&key()),
            Receipt { provider: other.public(), ..right.clone() }.sign(&other),
        ];
        for bytes in wrong {
            assert_eq!(check_receipt(&bytes, &asked), Err(AnswerError::Mismatch("receipt")));
        }
        assert!(matches!(check_receipt(&right.sign(&other), &asked), Err(AnswerError::Signed(_))));
        let unknown_length = ReceiptQuestion { length: None, ..asked };
        let longer = Receipt { length: 65, ..right };
        assert_eq!(check_receipt(&longer.sign(&key()), &unknown_length), Ok(longer));
    }

    #[test]
    fn statement_counts_only_for_its_question_and_slice_and_is_evidence_when_the_slice_is_wrong() {
        let bytes = vec![5; 40_000];
        let mut hasher = FragmentHasher::default();
        hasher.update(&bytes);
        let (id, outboard) = hasher.finish();
        let (range, length) = (100..300, 40_000);
        let right = slice::encode(length, &outboard, &range, &bytes[..16_384]).unwrap();
        let statement = |answer, start| {
            let statement = Statement {
                provider: key().public(),
                fragment: id,
                start,
                end: 300,
                answer,
                time: Timestamp(7),
            };
            statement.sign(&key())
        };
        let of = |slice: &[u8]| receipt::Answer::Slice(FragmentId::of(slice).0);
        let check =
            |signed: &[u8], slice: &[u8]| check_statement(signed, slice, &key().public(), &id, &range);

        let checked = check(&statement(of(&right), 100), &right).unwrap();
        assert_eq!(judge(&checked, &right, length), Ok(vec![5; 200]));
        let mut flipped = right.clone();
        flipped[200] ^= 1;
        assert!(check(&statement(of(&right), 100), &flipped).is_err(), "the statement is for another slice");
        let lie = check(&statement(of(&flipped), 100), &flipped).unwrap();
        assert_eq!(judge(&lie, &flipped, length), Err(Answer::Contradicted));
        assert!(check(&statement(of(&right), 99), &right).is_err(), "another range");
        let denial = check(&statement(receipt::Answer::Absent, 100), b"").unwrap();
        assert_eq!(judge(&denial, b"", length), Err(Answer::Absent));
        assert!(check(&statement(receipt::Answer::Rotten, 100), b"more").is_err());
    }
}

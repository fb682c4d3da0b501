//! What client and provider say to each other about money, in JSON: quotes, proposals, revisions, vouchers, and what is owed.
//!
//! What is signed stands in `agreement`; no wallet's signature is checked here, and nothing is decided. Amounts are
//! strings of digits. A quote, a refusal and a page of a set are read by peers older than their writer, so unknown fields are let
//! pass there and unknown reasons read as `Other`; what is asked for refuses unknown fields.

use crate::messages::{MessageError, decode, decode_hex, encode};
use crate::routes::{
    FRAGMENT_BYTES_MAX, JSON_BYTES_MAX, SET_CHANGE_BYTES_MAX, SET_CHANGE_MAX, SET_PAGE_MAX, VOUCHER_BYTES_MAX,
};
use seedbank_agreement::{
    Address, AgreementId, Amount, Epoch, Proposal, Quote, Rate, Revision, SetRoot, Signature, Signed, Voucher,
};
use seedbank_formats::FragmentId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A transaction's hash: evidence that anyone can look up. In JSON `0x` and 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionHash(pub [u8; 32]);

impl fmt::Display for TransactionHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for TransactionHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl Serialize for TransactionHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TransactionHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<TransactionHash, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let lower_case = !text.bytes().any(|letter| letter.is_ascii_uppercase());
        let digits = text.strip_prefix("0x").filter(|_| lower_case);
        digits
            .and_then(|digits| decode_hex(digits, 32)?.try_into().ok())
            .map(TransactionHash)
            .ok_or_else(|| serde::de::Error::custom("a transaction's hash is 0x and 64 hex digits"))
    }
}

/// What a provider asks for, signed by its wallet or operator for its market, and where its contracts are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuoteAnswer {
    /// The chain on which it is paid.
    pub chain_id: u64,
    /// The directory of the contracts there. The market that the quote is signed for is the directory's.
    pub directory: Address,
    /// Prices, terms, and until when they hold.
    pub quote: Signed<Quote>,
    /// What an agreement must bring in all to be worth its gas to the provider. That changes with the price of gas, so nobody signs it: it saves
    /// an offer that would be refused. Zero from a provider that does not say.
    #[serde(default)]
    pub pay_min: Amount,
}

/// A fragment of a set: what is promised to be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetLeaf {
    /// Which fragment.
    pub fragment: FragmentId,
    /// Its bytes.
    pub length: u64,
    /// The epoch before which no revision may drop it; 0 for none.
    pub retain_until: Epoch,
}

/// Asks for a first agreement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposalRequest {
    /// The offer, signed by the client's wallet or by a signer that it authorised.
    pub proposal: Signed<Proposal>,
    /// This connection's key signs that it is that wallet's ([`seedbank_agreement::Binding`], for the registry of providers).
    pub binding: seedbank_formats::Signature,
    /// The set, in rising order of fragments, at most [`SET_CHANGE_MAX`]: more come by revisions.
    pub added: Vec<SetLeaf>,
}

/// What became of an offer. The same offer may be sent again and gets the same answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ProposalAnswer {
    /// It is an agreement, which begins with the next epoch.
    Accepted {
        /// Its number in the market.
        agreement: AgreementId,
        /// The transaction that opened it.
        transaction: TransactionHash,
    },
    /// The provider accepts, and its transaction is under way: ask again.
    Pending {
        /// After so many seconds.
        retry_after_s: u64,
    },
    /// No agreement.
    Refused(Refusal),
}

/// Asks for new terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevisionRequest {
    /// The sequence of the set that the difference starts from: the provider's last one; 0 is the proposal's.
    pub base_sequence: u32,
    /// What the set has more, in rising order of fragments. One that it has already gets the new `retain_until`.
    pub added: Vec<SetLeaf>,
    /// What it has less, in rising order.
    pub removed: Vec<FragmentId>,
    /// The terms with the new set, signed by the client's wallet or by a signer that it authorised.
    pub revision: Signed<Revision>,
}

/// What became of new terms. The same request may be sent again and gets the same answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RevisionAnswer {
    /// Both have signed: either may post it.
    Accepted {
        /// The signature of the provider's wallet or operator.
        signature: Signature,
    },
    /// The old terms stand.
    Refused(Refusal),
}

/// Why an offer or new terms were refused. Programs decide by `reason`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why.
    pub reason: RefusalReason,
    /// What people read.
    pub message: String,
    /// The provider's side, for comparison: of its set as it stands when the difference starts elsewhere, else of what it
    /// computed from the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<SetSummary>,
    /// The fragments that the reason is about, or some of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fragments: Vec<FragmentId>,
}

/// A set in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetSummary {
    /// The agreement's number; none before it is opened.
    pub agreement: Option<AgreementId>,
    /// Of the revision that it belongs to.
    pub sequence: u32,
    /// Its root.
    pub set_root: SetRoot,
    /// Its bytes.
    pub size: u64,
    /// What they cost an epoch.
    pub rate_per_epoch: Rate,
}

/// Why an offer or new terms were refused, by what the client does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// The difference starts from another set than the provider's, see `own`: list that, and send from there.
    Behind,
    /// Fragments are not here, not sound, or not claimed by this key: send them first.
    NotHeld,
    /// Fragments, or the retained bytes, would go before the time that was agreed.
    Retained,
    /// Root or size are not those of the set: compare with `own`.
    WrongSet,
    /// The rate is not what the quoted price makes of the size: ask for a quote.
    WrongRate,
    /// It begins or ends when it can't, or is shorter than the quote says.
    Epochs,
    /// The client's balance or the agreement's escrow does not cover it.
    Escrow,
    /// The provider's stake does not cover more.
    Stake,
    /// Not signed by the client's wallet, nor by a signer that it authorised.
    Signature,
    /// The connection's key is not bound to the client's wallet.
    Binding,
    /// Another provider's, another client's, or of no agreement that is open.
    WrongParty,
    /// There is an agreement with this client: revise that one, see `own`.
    Exists,
    /// The provider takes no new agreements.
    Leaving,
    /// The provider can't ask its chain at the moment: try again later.
    ChainUnreachable,
    /// A reason of a newer version.
    #[serde(other)]
    Other,
}

/// New terms with both signatures: what either may post.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedTerms {
    /// The terms, signed by the client's wallet or by a signer that it authorised.
    pub revision: Signed<Revision>,
    /// The signature of the provider's wallet or operator.
    pub provider: Signature,
}

/// A page of the set that a provider keeps for the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetPage {
    /// The set in short.
    pub set: SetSummary,
    /// The revision that made it so: without it a caller believes only what the chain says. None while the proposal's set
    /// stands, which the chain has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<SignedTerms>,
    /// Its leaves above the one that was asked for, in rising order. An empty page is the end.
    pub leaves: Vec<SetLeaf>,
}

/// Pays, for whoever holds the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoucherRequest {
    /// Signed by the voucher's signer.
    pub voucher: Signed<Voucher>,
}

/// What became of a voucher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum VoucherAnswer {
    /// It counts for this connection's key.
    Accepted(Standing),
    /// It does not.
    Refused(VoucherRefusal),
}

/// How a key stands with a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// What it read and did not pay.
    pub owed: Amount,
    /// What it paid ahead.
    pub prepaid: Amount,
    /// What it may read before it must pay.
    pub credit_bytes: u64,
}

/// Why a voucher was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoucherRefusal {
    /// What programs decide by.
    pub reason: VoucherReason,
    /// What people read.
    pub message: String,
    /// The highest amount of this lane that the provider has.
    pub cumulative: Amount,
    /// Up to which amount it takes vouchers of this lane: what the channel covers.
    pub covered: Amount,
}

/// Why a voucher was refused, by what the payer does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VoucherReason {
    /// Not the signer's signature: the payer is broken.
    Signature,
    /// For another payee.
    WrongPayee,
    /// Not above what the provider has: sign for more.
    Stale,
    /// Beyond what the channel covers: deposit, or raise the lane's cap.
    Uncovered,
    /// The payer's exit is under way: take it back, or pay from another channel.
    Exiting,
    /// The provider can't ask its chain at the moment: try again later.
    ChainUnreachable,
    /// A reason of a newer version.
    #[serde(other)]
    Other,
}

/// What must be paid before a read is answered; stands in the problem `payment_required`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentDue {
    /// What the key read and did not pay.
    pub owed: Amount,
    /// How much more a voucher must pay so that this read is answered.
    pub needed: Amount,
    /// What the key may still read on credit.
    pub credit_bytes: u64,
    /// Whom to pay: the provider's wallet.
    pub payee: Address,
    /// The price of 1 GiB.
    pub egress_per_gib: Amount,
}

/// As much as a refusal lists.
pub const REFUSAL_FRAGMENTS_MAX: usize = 1_000;

/// A longer message is no sentence.
const MESSAGE_CHARS_MAX: usize = 300;

/// A peer's sentence, fit for a terminal.
fn harmless(message: &str) -> String {
    let cut = message.chars().take(MESSAGE_CHARS_MAX);
    cut.map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

fn check_leaves(message: &'static str, leaves: &[SetLeaf], count_max: usize) -> Result<(), MessageError> {
    if leaves.len() > count_max {
        return Err(MessageError::OverLimit { message, limit: count_max });
    }
    if !leaves.is_sorted_by(|left, right| left.fragment < right.fragment) {
        return Err(MessageError::Invalid { message, reason: "fragments not in strictly rising order" });
    }
    if leaves.iter().any(|leaf| leaf.length == 0 || leaf.length > FRAGMENT_BYTES_MAX) {
        return Err(MessageError::Invalid { message, reason: "a fragment is empty or too long" });
    }
    Ok(())
}

impl Refusal {
    /// A refusal that names no fragments.
    #[must_use]
    pub fn new(reason: RefusalReason, message: impl Into<String>) -> Refusal {
        Refusal { reason, message: message.into(), own: None, fragments: Vec::new() }
    }

    fn check(&mut self, message: &'static str) -> Result<(), MessageError> {
        self.message = harmless(&self.message);
        if self.fragments.len() > REFUSAL_FRAGMENTS_MAX {
            return Err(MessageError::OverLimit { message, limit: REFUSAL_FRAGMENTS_MAX });
        }
        Ok(())
    }
}

impl QuoteAnswer {
    /// As JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a quote. Its signature is for the caller to check.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn decode(bytes: &[u8]) -> Result<QuoteAnswer, MessageError> {
        decode("quote", bytes, JSON_BYTES_MAX)
    }
}

impl ProposalRequest {
    const NAME: &'static str = "proposal";

    /// As JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads an offer: its set is in order and within bounds. Whether it is the set of the proposal's root is not checked.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn decode(bytes: &[u8]) -> Result<ProposalRequest, MessageError> {
        let request: ProposalRequest = decode(Self::NAME, bytes, SET_CHANGE_BYTES_MAX)?;
        check_leaves(Self::NAME, &request.added, SET_CHANGE_MAX)?;
        Ok(request)
    }
}

impl ProposalAnswer {
    const NAME: &'static str = "answer to a proposal";

    /// As JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn decode(bytes: &[u8]) -> Result<ProposalAnswer, MessageError> {
        let mut answer = decode(Self::NAME, bytes, JSON_BYTES_MAX)?;
        if let ProposalAnswer::Refused(refusal) = &mut answer {
            refusal.check(Self::NAME)?;
        }
        Ok(answer)
    }
}

impl RevisionRequest {
    const NAME: &'static str = "revision";

    /// As JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads new terms: the difference is in order, within bounds, and names no fragment twice.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn decode(bytes: &[u8]) -> Result<RevisionRequest, MessageError> {
        let request: RevisionRequest = decode(Self::NAME, bytes, SET_CHANGE_BYTES_MAX)?;
        let invalid = |reason| MessageError::Invalid { message: Self::NAME, reason };
        check_leaves(Self::NAME, &request.added, SET_CHANGE_MAX)?;
        if request.removed.len() > SET_CHANGE_MAX {
            return Err(MessageError::OverLimit { message: Self::NAME, limit: SET_CHANGE_MAX });
        }
        if !request.removed.is_sorted_by(|left, right| left < right) {
            return Err(invalid("removed fragments not in strictly rising order"));
        }
        let removed = |leaf: &SetLeaf| request.removed.binary_search(&leaf.fragment).is_ok();
        if request.added.iter().any(removed) {
            return Err(invalid("a fragment is added and removed"));
        }
        if request.revision.message.sequence <= request.base_sequence {
            return Err(invalid("its sequence is not above what it starts from"));
        }
        Ok(request)
    }
}

impl RevisionAnswer {
    const NAME: &'static str = "answer to a revision";

    /// As JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads an answer. The signature is for the caller to check.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn decode(bytes: &[u8]) -> Result<RevisionAnswer, MessageError> {
        let mut answer = decode(Self::NAME, bytes, JSON_BYTES_MAX)?;
        if let RevisionAnswer::Refused(refusal) = &mut answer {
            refusal.check(Self::NAME)?;
        }
        Ok(answer)
    }
}

impl SetPage {
    const NAME: &'static str = "page of a set";

    /// As JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a page, which must be in strictly rising order.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn decode(bytes: &[u8]) -> Result<SetPage, MessageError> {
        let page: SetPage = decode(Self::NAME, bytes, JSON_BYTES_MAX)?;
        check_leaves(Self::NAME, &page.leaves, SET_PAGE_MAX)?;
        Ok(page)
    }
}

impl VoucherRequest {
    /// As JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a voucher. Its signature is for the caller to check.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn decode(bytes: &[u8]) -> Result<VoucherRequest, MessageError> {
        decode("voucher", bytes, VOUCHER_BYTES_MAX)
    }
}

impl VoucherAnswer {
    /// As JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn decode(bytes: &[u8]) -> Result<VoucherAnswer, MessageError> {
        let mut answer = decode("answer to a voucher", bytes, JSON_BYTES_MAX)?;
        if let VoucherAnswer::Refused(refusal) = &mut answer {
            refusal.message = harmless(&refusal.message);
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests;

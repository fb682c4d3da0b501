//! Why a contract refuses, in types that callers can act on.

use crate::abi::{anchor, channels, datasets, market, token};
use crate::convert::{amount, from_abi};
use crate::rpc::RpcError;
use alloy_primitives::{Bytes, U256, hex};
use alloy_sol_types::{Revert, SolError, SolInterface};
use seedbank_agreement::{Address, AgreementId, Amount, Epoch};
use serde_json::Value;

/// Why a contract refuses a call. Nothing was changed by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "the fields are named as in the contracts, and the messages say what they are"
)]
pub enum Refusal {
    // --- money -----------------------------------------------------------------------------------------------------
    /// Deposit first, or ask for less.
    #[error("the free balance is {free} units, and {wanted} are wanted")]
    Balance { wanted: Amount, free: Amount },
    /// Get tokens first.
    #[error("the account has {balance} units of the token, and {needed} are needed")]
    TokenBalance { needed: Amount, balance: Amount },
    /// Approve first.
    #[error("the contract may take {allowance} units of the account's tokens, and {needed} are needed")]
    TokenAllowance { needed: Amount, allowance: Amount },
    /// Leave more, or close agreements first.
    #[error("{needed} units of the stake of {stake} must stay")]
    StakeNeeded { needed: Amount, stake: Amount },
    /// Deposit more into the channel, or promise less.
    #[error("the channel covers {deposit} units, and {promised} would be promised")]
    Uncovered { deposit: Amount, promised: Amount },
    /// Caps rise only; let an exit take the money.
    #[error("the lane's cap is {before} units and only rises; {cap} is less")]
    CapBelow { cap: Amount, before: Amount },
    /// Cancel the exit, or wait for its end.
    #[error("nothing new is promised while an exit is under way")]
    ExitUnderWay,
    /// Wait until then.
    #[error("the exit may happen from {exit_at} on (unix seconds; 0: none was announced)")]
    ExitNotDue { exit_at: u64 },
    /// There is nothing to take.
    #[error("there is nothing to take")]
    Nothing,

    // --- who ---------------------------------------------------------------------------------------------------------
    /// Use the right key.
    #[error("this key may not do that")]
    NotYours,
    /// Register first.
    #[error("{0} is not registered")]
    NotRegistered(Address),

    // --- agreements and proofs -----------------------------------------------------------------------------------------
    /// It is closed or never was: forget it.
    #[error("agreement {0} is not open")]
    NotOpen(AgreementId),
    /// Call `advance`, and `move_on` for agreements that are due.
    #[error("the provider's set is at epoch {set}, and it is epoch {current}")]
    Behind { set: Epoch, current: Epoch },
    /// Call `move_on` for the agreements that change with this epoch.
    #[error("{count} agreements change with this epoch and must be moved on first")]
    TermsDue { count: u32 },
    /// Seal the seed, or wait for the beacon.
    #[error("epoch {0} has no seed yet")]
    NoSeed(Epoch),
    /// Done: nothing is lost.
    #[error("epoch {0} is proven already")]
    AlreadyProven(Epoch),
    /// The provider holds nothing, so nothing is owed.
    #[error("there is nothing to prove")]
    NothingToProve,
    /// The proof does not show what is asked: rebuild it. Each of the next five says what is wrong.
    #[error("{expected} chunks are asked for, and {actual} were shown")]
    ProofCount { expected: u64, actual: u64 },
    #[error("the chunk with number {index} does not lead to its fragment")]
    WrongChunk { index: u64 },
    #[error("a fragment's path does not lead to the set's root")]
    WrongSetPath,
    #[error("the challenged byte is in another fragment than the one that was shown")]
    WrongFragment,
    #[error("a chunk or a path has the wrong length")]
    WrongShape,
    /// Close the agreement: the set stopped being proven.
    #[error("the provider's set is dead")]
    SetDead,
    /// It is alive: end the agreement by notice.
    #[error("the provider's set is not dead")]
    SetAlive,
    /// Wait for its answer.
    #[error("a question about this agreement is open")]
    QuestionOpen,
    /// It was answered, or never asked.
    #[error("no question about this agreement is open")]
    NoQuestion,
    /// Wait, or it is too late.
    #[error("the question is about epoch {0}")]
    QuestionTime(Epoch),
    /// Announce again, or wait.
    #[error("the release was announced in epoch {0} (0: not at all)")]
    ReleaseTime(Epoch),
    /// Wait for the deployment's first epoch.
    #[error("the deployment's first epoch has not begun")]
    BeforeGenesis,

    // --- names -------------------------------------------------------------------------------------------------------
    /// This owner uses the name.
    #[error("the name is in use")]
    NameTaken,
    /// Register it first.
    #[error("nothing is registered under this name")]
    UnknownName,
    /// Somebody published since: read what is there and decide again.
    #[error("somebody published sequence {sequence} since")]
    Moved { sequence: u64, head: [u8; 32] },
    /// It takes no heads any more.
    #[error("the dataset is frozen")]
    Frozen,
    /// The log was anchored at that length already.
    #[error("the log was anchored with {anchored} entries, which is not less than {size}")]
    NotLonger { size: u64, anchored: u64 },

    /// A mistake of this program, or a token with words of its own.
    #[error("the contract refused: {0}")]
    Other(String),
}

impl Refusal {
    /// What a reverted call says.
    pub(crate) fn decode(data: &[u8]) -> Self {
        market_refusal(data)
            .or_else(|| channels_refusal(data))
            .or_else(|| datasets_refusal(data))
            .or_else(|| other_refusal(data))
            .unwrap_or_else(|| {
                Self::Other(if data.is_empty() { "no reason given".to_owned() } else { hex::encode(data) })
            })
    }

    /// What an endpoint's error says about a call; None if it isn't about the call.
    pub(crate) fn of(error: &RpcError) -> Option<Self> {
        if let Some(data) = error.data.as_ref().and_then(revert_data) {
            return Some(Self::decode(&data));
        }
        let reverted = error.code == 3 || error.message.contains("revert");
        reverted.then(|| Self::Other(error.message.clone()))
    }
}

/// Nodes disagree on where the data of a revert is: bare, in an object, or behind a word.
fn revert_data(value: &Value) -> Option<Bytes> {
    match value {
        Value::String(text) => {
            let text = text.strip_prefix("Reverted ").unwrap_or(text);
            hex::decode(text.strip_prefix("0x")?).ok().map(Bytes::from)
        }
        Value::Object(fields) => fields.get("data").and_then(revert_data),
        _ => None,
    }
}

fn count(number: U256) -> u64 {
    number.saturating_to()
}

fn market_refusal(data: &[u8]) -> Option<Refusal> {
    use market::StorageMarket::StorageMarketErrors as E;
    Some(match E::abi_decode(data).ok()? {
        E::Balance(e) => Refusal::Balance { wanted: amount(e.wanted), free: amount(e.free) },
        E::NotYours(_) => Refusal::NotYours,
        E::NotOpen(e) => Refusal::NotOpen(AgreementId(e.agreement)),
        E::Behind(e) => Refusal::Behind { set: Epoch(e.setEpoch), current: Epoch(e.currentEpoch) },
        E::TermsDue(e) => Refusal::TermsDue { count: e.count },
        E::NoSeed(e) => Refusal::NoSeed(Epoch(e.epoch)),
        E::AlreadyProven(e) => Refusal::AlreadyProven(Epoch(e.epoch)),
        E::NothingToProve(_) => Refusal::NothingToProve,
        E::ProofCount(e) => Refusal::ProofCount { expected: count(e.expected), actual: count(e.actual) },
        E::WrongChunk(e) => Refusal::WrongChunk { index: count(e.index) },
        E::SetDead(_) => Refusal::SetDead,
        E::SetAlive(_) => Refusal::SetAlive,
        E::QuestionOpen(_) => Refusal::QuestionOpen,
        E::NoQuestion(_) => Refusal::NoQuestion,
        E::QuestionTime(e) => Refusal::QuestionTime(Epoch(e.epoch)),
        E::ReleaseTime(e) => Refusal::ReleaseTime(Epoch(e.announcedIn)),
        E::BeforeGenesis(_) => Refusal::BeforeGenesis,
        // From the libraries and contracts that it asks.
        E::WrongSetPath(_) => Refusal::WrongSetPath,
        E::WrongFragment(_) => Refusal::WrongFragment,
        E::SetPathLength(_)
        | E::FragmentLength(_)
        | E::ChunkIndex(_)
        | E::ChunkLength(_)
        | E::PathLength(_) => Refusal::WrongShape,
        E::NotRegistered(e) => Refusal::NotRegistered(from_abi(e.provider)),
        E::StakeNeeded(e) => Refusal::StakeNeeded { needed: amount(e.needed), stake: amount(e.stake) },
        other => Refusal::Other(format!("{other:?}")),
    })
}

fn channels_refusal(data: &[u8]) -> Option<Refusal> {
    use channels::RetrievalChannels::RetrievalChannelsErrors as E;
    Some(match E::abi_decode(data).ok()? {
        E::Uncovered(e) => Refusal::Uncovered { deposit: Amount(e.deposit), promised: Amount(e.promised) },
        E::CapBelow(e) => Refusal::CapBelow { cap: Amount(e.cap), before: Amount(e.before) },
        E::Leaving(_) => Refusal::ExitUnderWay,
        E::ExitNotDue(e) => Refusal::ExitNotDue { exit_at: e.exitAt },
        E::Nothing(_) => Refusal::Nothing,
        other => Refusal::Other(format!("{other:?}")),
    })
}

fn datasets_refusal(data: &[u8]) -> Option<Refusal> {
    use datasets::DatasetRegistry::DatasetRegistryErrors as E;
    Some(match E::abi_decode(data).ok()? {
        E::NotYours(_) => Refusal::NotYours,
        E::Exists(_) => Refusal::NameTaken,
        E::Unknown(_) => Refusal::UnknownName,
        E::Moved(e) => Refusal::Moved { sequence: e.sequence, head: e.head.0 },
        E::IsFrozen(_) => Refusal::Frozen,
        other => Refusal::Other(format!("{other:?}")),
    })
}

fn other_refusal(data: &[u8]) -> Option<Refusal> {
    use token::Token::TokenErrors as T;
    if let Ok(error) = T::abi_decode(data) {
        return Some(match error {
            T::ERC20InsufficientBalance(e) => {
                Refusal::TokenBalance { needed: amount(e.needed), balance: amount(e.balance) }
            }
            T::ERC20InsufficientAllowance(e) => {
                Refusal::TokenAllowance { needed: amount(e.needed), allowance: amount(e.allowance) }
            }
        });
    }
    if let Ok(anchor::AuditAnchor::AuditAnchorErrors::NotLonger(e)) =
        anchor::AuditAnchor::AuditAnchorErrors::abi_decode(data)
    {
        return Some(Refusal::NotLonger { size: e.size, anchored: e.anchored });
    }
    Revert::abi_decode(data).ok().map(|revert| Refusal::Other(revert.reason))
}

//! Why something is not done: what the contracts say in events and errors.

use crate::address::Address;
use crate::amount::Amount;
use crate::chunk_path::ChunkPathError;
use crate::epoch::{AgreementId, Epoch};
use crate::fragment_set::SetPathError;

/// Why an item of a batch is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Skip {
    /// Not signed by whom it must be, or by a key whose time or cap is over.
    Signature,
    /// Used before, too late, or older than what holds.
    Stale,
    /// Begins or ends when it can't.
    Epochs,
    /// Less is locked, or free to be locked, than the terms need.
    Escrow,
    /// The provider's stake does not cover the rate.
    Stake,
    /// Would drop what was promised to be kept.
    Retention,
    /// No such open agreement, or its set is dead.
    NotOpen,
    /// The client has an agreement with this provider.
    Exists,
    /// Bytes that can't be: none at the beginning, paid for nothing, or fewer than are retained.
    Size,
    /// The set must be brought to the current epoch first.
    Behind,
    /// The provider takes no new agreements.
    Leaving,
    /// A reason that this program doesn't know. [`Market`](super::Market) never gives it.
    Unknown,
}

/// In the contract's order. There, 0 is "not skipped", which no event says.
const SKIPS: [Skip; 11] = [
    Skip::Signature,
    Skip::Stale,
    Skip::Epochs,
    Skip::Escrow,
    Skip::Stake,
    Skip::Retention,
    Skip::NotOpen,
    Skip::Exists,
    Skip::Size,
    Skip::Behind,
    Skip::Leaving,
];

impl Skip {
    /// By its number in the contract: an ABI has no names for them.
    #[must_use]
    pub fn of(number: u8) -> Skip {
        let known = usize::from(number).checked_sub(1).and_then(|at| SKIPS.get(at));
        known.copied().unwrap_or(Skip::Unknown)
    }
}

/// Why a step is refused, as the contracts' errors have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The free balance holds less.
    #[error("{wanted} are wanted and {free} are free")]
    Balance {
        /// How much is wanted.
        wanted: Amount,
        /// How much there is.
        free: Amount,
    },
    /// Not that agreement's client, its provider or the provider's operator.
    #[error("that is somebody else's")]
    NotYours,
    /// No such open agreement.
    #[error("agreement {0} is not open")]
    NotOpen(AgreementId),
    /// The provider's set is not at the current epoch: move on what is due.
    #[error("the set is at epoch {set}, and it is epoch {current}")]
    Behind {
        /// Where the set is.
        set: Epoch,
        /// What time it is.
        current: Epoch,
    },
    /// Agreements whose terms change now must be moved on first.
    #[error("{0} agreements are due")]
    TermsDue(u32),
    /// This epoch is proven.
    #[error("epoch {0} is proven")]
    AlreadyProven(Epoch),
    /// The provider holds nothing that is paid for.
    #[error("there is nothing to prove")]
    NothingToProve,
    /// Exactly that many proofs are wanted.
    #[error("{expected} proofs are wanted, not {actual}")]
    ProofCount {
        /// How many are wanted.
        expected: u32,
        /// How many came.
        actual: usize,
    },
    /// A chunk doesn't lead to its fragment's id.
    #[error("chunk {0} is wrong")]
    WrongChunk(usize),
    /// A fragment's path is wrong.
    #[error(transparent)]
    SetPath(SetPathError),
    /// A chunk's path is none.
    #[error(transparent)]
    ChunkPath(ChunkPathError),
    /// The set is dead.
    #[error("the set is dead")]
    SetDead,
    /// The set is not dead.
    #[error("the set is alive")]
    SetAlive,
    /// There is a question open.
    #[error("a question is open")]
    QuestionOpen,
    /// There is none.
    #[error("no question is open")]
    NoQuestion,
    /// The question is about this epoch, whose time is not now.
    #[error("the question is about epoch {0}")]
    QuestionTime(Epoch),
    /// A release can be done two or three epochs after the one in which it was announced.
    #[error("the release was announced in epoch {0}")]
    ReleaseTime(Epoch),
    /// Nobody registered under this address.
    #[error("{0} is no provider")]
    NotRegistered(Address),
    /// Agreements and questions need so much of the stake; all of it while something is undecided.
    #[error("the stake of {stake} is needed")]
    StakeNeeded {
        /// What must stay; `None` while it is not known.
        needed: Option<Amount>,
        /// What there is.
        stake: Amount,
    },
    /// The deployment's first epoch has not begun.
    #[error("the first epoch has not begun")]
    BeforeGenesis,
    /// A number passes its range.
    #[error("a number is out of range")]
    Overflow,
}

#[cfg(test)]
mod tests {
    use super::{SKIPS, Skip};

    #[test]
    fn reasons_are_numbered_as_in_the_contract() {
        let source = include_str!("../../../../contracts/src/interfaces/IStorageMarket.sol");
        let body = source.split_once("enum Skip {").unwrap().1.split_once('}').unwrap().0;
        let names: Vec<&str> = body
            .lines()
            .map(|line| line.trim().trim_end_matches(','))
            .filter(|line| !line.is_empty() && !line.starts_with("//"))
            .collect();
        let ours: Vec<String> = SKIPS.iter().map(|skip| format!("{skip:?}")).collect();
        assert_eq!(names[0], "None");
        assert_eq!(names[1..], ours);
        assert_eq!(Skip::of(1), Skip::Signature);
        assert_eq!(Skip::of(0), Skip::Unknown);
        assert_eq!(Skip::of(12), Skip::Unknown);
    }
}

//! What a market knows about one provider: counted plainly, where the contracts have trees and accumulators.

use super::{Agreement, ProofSet, Refusal};
use crate::amount::Amount;
use crate::epoch::{AgreementId, Epoch};
use std::collections::{BTreeMap, BTreeSet};

/// What a market knows about a provider, whether it holds something or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    pub(super) set: ProofSet,
    /// Agreements and their bytes, laid end to end.
    pub(super) places: Vec<Option<(AgreementId, u64)>>,
    /// Places that were left, the last of which is taken first.
    pub(super) free_places: Vec<u32>,
    pub(super) proven: BTreeSet<Epoch>,
    pub(super) missed: BTreeSet<Epoch>,
    /// How many agreements change with an epoch that is still to come.
    pub(super) due_in: BTreeMap<Epoch, u32>,
}

impl Holdings {
    pub(super) fn size(&self) -> u64 {
        self.places.iter().flatten().map(|(_, size)| size).sum()
    }

    /// The agreement that holds a byte of all places laid end to end, and the byte's offset in it.
    pub(super) fn find(&self, offset: u64) -> Option<(AgreementId, u64)> {
        let mut rest = offset;
        for (id, size) in self.places.iter().flatten() {
            match rest.checked_sub(*size) {
                Some(beyond) => rest = beyond,
                None => return Some((*id, rest)),
            }
        }
        None
    }

    /// What an agreement's current terms earned in the epochs before `end`.
    pub(super) fn earned(&self, agreement: &Agreement, end: Epoch) -> Result<Amount, Refusal> {
        let Some(terms) = agreement.current else { return Ok(Amount::ZERO) };
        Ok(terms.rate_per_epoch.over(count(&self.proven, terms.from, end)?))
    }

    /// One more agreement changes with an epoch.
    pub(super) fn plan(&mut self, epoch: Epoch) {
        *self.due_in.entry(epoch).or_default() += 1;
    }

    /// One fewer does.
    pub(super) fn unplan(&mut self, epoch: Epoch) -> Result<(), Refusal> {
        let due = self.due_in.get_mut(&epoch).ok_or(Refusal::Overflow)?;
        *due = due.checked_sub(1).ok_or(Refusal::Overflow)?;
        Ok(())
    }
}

/// Epochs of a set in [from, end).
pub(super) fn count(epochs: &BTreeSet<Epoch>, from: Epoch, end: Epoch) -> Result<u32, Refusal> {
    if from > end {
        return Err(Refusal::Overflow);
    }
    u32::try_from(epochs.range(from..end).count()).map_err(|_| Refusal::Overflow)
}

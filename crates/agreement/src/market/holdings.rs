//! What a market knows about one provider: counted plainly, where the contracts have trees and accumulators.

use super::{Agreement, ProofSet, Refusal};
use crate::amount::{Amount, Rate};
use crate::epoch::{AgreementId, Epoch};
use std::collections::{BTreeMap, BTreeSet};

/// What a market knows about a provider, whether it holds something or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    pub(super) set: ProofSet,
    /// Agreements and their current rates, laid end to end.
    pub(super) places: Vec<Option<(AgreementId, Rate)>>,
    /// Places that were left, the last of which is taken first.
    pub(super) free_places: Vec<u32>,
    pub(super) proven: BTreeSet<Epoch>,
    pub(super) missed: BTreeSet<Epoch>,
    /// How many agreements change with an epoch that is still to come.
    pub(super) due_in: BTreeMap<Epoch, u32>,
}

impl Holdings {
    /// What an epoch earns.
    pub(super) fn rate(&self) -> Amount {
        self.places.iter().flatten().map(|(_, rate)| Amount::from(*rate)).sum()
    }

    /// The agreement that earns a unit of all places laid end to end.
    pub(super) fn find(&self, unit: Amount) -> Option<AgreementId> {
        let mut rest = unit;
        for (id, rate) in self.places.iter().flatten() {
            match rest.checked_sub((*rate).into()) {
                Some(beyond) => rest = beyond,
                None => return Some(*id),
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

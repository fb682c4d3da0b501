//! Whether an agreement that the chain does not show is gone. Pure.
//!
//! Letting go of a set is for good, and an endpoint may be behind, or lie: so no single look decides. What the books expected, such as the
//! end of the terms, is believed at the second look; what they did not expect only once no look has shown the agreement for some epochs.

use seedbank_agreement::{AgreementId, Epoch};
use std::collections::BTreeMap;

/// What nobody expected is believed after so many epochs without the agreement: so many that are missed end all agreements anyway.
const UNEXPECTED_EPOCHS: u32 = 5;

/// Whether the books can say why an agreement is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Its terms are over, its set has died, or the client has another one.
    Yes,
    No,
}

/// What is made of an agreement that was not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    /// Look again.
    Wait,
    /// It ended.
    Gone,
}

/// Agreements that were not shown when the chain was looked at last.
#[derive(Debug, Default)]
pub(crate) struct Absences {
    since: BTreeMap<AgreementId, (u64, Epoch)>,
}

impl Absences {
    /// The chain shows it.
    pub(crate) fn shown(&mut self, id: AgreementId) {
        self.since.remove(&id);
    }

    /// Whether it was not shown before, so that another look decides.
    pub(crate) fn waits(&self, id: AgreementId) -> bool {
        self.since.contains_key(&id)
    }

    /// The chain, at this block of this epoch, does not show it. `confirmations` blocks must hold what counts.
    pub(crate) fn denied(
        &mut self,
        id: AgreementId,
        (block, epoch): (u64, Epoch),
        confirmations: u64,
        expected: Expected,
    ) -> Judged {
        let Some((first, since)) = self.since.get(&id).copied() else {
            self.since.insert(id, (block, epoch));
            return Judged::Wait;
        };
        let is_deep = block >= first.saturating_add(confirmations.saturating_sub(1));
        let is_believed = match expected {
            Expected::Yes => true,
            Expected::No => epoch.0 >= since.0.saturating_add(UNEXPECTED_EPOCHS),
        };
        if !(is_deep && is_believed) {
            return Judged::Wait;
        }
        self.since.remove(&id);
        Judged::Gone
    }
}

#[cfg(test)]
mod tests {
    use super::{Absences, Expected, Judged, UNEXPECTED_EPOCHS};
    use seedbank_agreement::{AgreementId, Epoch};

    const ID: AgreementId = AgreementId(4);

    #[test]
    fn end_that_was_expected_is_believed_at_the_second_look_once_blocks_hold_it() {
        let mut absences = Absences::default();
        let mut look =
            |block, confirmations| absences.denied(ID, (block, Epoch(9)), confirmations, Expected::Yes);
        assert_eq!(look(100, 3), Judged::Wait);
        assert_eq!(look(101, 3), Judged::Wait, "no three blocks");
        assert_eq!(look(102, 3), Judged::Gone);
        assert_eq!(look(102, 1), Judged::Wait, "it begins anew");
        assert_eq!(look(102, 1), Judged::Gone);
    }

    #[test]
    fn agreement_that_should_be_there_is_missed_for_epochs_and_one_look_that_shows_it_is_enough() {
        let mut absences = Absences::default();
        let deny = |absences: &mut Absences, epoch| {
            absences.denied(ID, (u64::from(epoch) * 100, Epoch(epoch)), 1, Expected::No)
        };
        for epoch in 10..10 + UNEXPECTED_EPOCHS {
            assert_eq!(deny(&mut absences, epoch), Judged::Wait);
        }
        assert!(absences.waits(ID));
        absences.shown(ID);
        for epoch in 20..20 + UNEXPECTED_EPOCHS {
            assert_eq!(deny(&mut absences, epoch), Judged::Wait);
        }
        assert_eq!(deny(&mut absences, 20 + UNEXPECTED_EPOCHS), Judged::Gone);
    }
}

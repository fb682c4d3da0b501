//! What this home pays in rent, where all its processes find it: the budget is one for those that sign and those that read.
//!
//! Who has the books notes what they say; a rate that somebody is about to have signed counts from before the question until
//! the books have the answer. It is changed in a [`BudgetTurn`](super::lanes::BudgetTurn), and what is lost with
//! the file is there again when somebody next looks at the books.

use super::budget::monthly;
use super::lanes::{LaneError, disk, replace};
use seedbank_agreement::{Amount, Rate};
use seedbank_formats::PublicKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// A plan of a process that died counts so long: longer than any provider takes to open an agreement.
const PLAN_SECONDS: u64 = 900;

/// Rates, in units an epoch, by the providers' keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rents {
    agreed: BTreeMap<String, Amount>,
    planned: Vec<Plan>,
}

/// A rate that a process is about to agree on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    process: u32,
    provider: String,
    rate: Amount,
    until: u64,
}

fn file_of(dir: &Path) -> PathBuf {
    dir.join("rents.json")
}

impl Rents {
    /// What was noted; `None` before anybody did.
    pub(crate) fn read(dir: &Path) -> Result<Option<Rents>, LaneError> {
        let path = file_of(dir);
        match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(rents) => Ok(Some(rents)),
                Err(source) => Err(LaneError::Damaged { path, source }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(disk(&path)(error)),
        }
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<(), LaneError> {
        let path = file_of(dir);
        let bytes = serde_json::to_vec(self).expect("rents have text keys");
        replace(&path, &bytes).map_err(disk(&path))
    }

    /// Takes what the books say.
    pub(crate) fn note(&mut self, agreed: &BTreeMap<PublicKey, Rate>) {
        self.agreed = agreed.iter().map(|(provider, rate)| (provider.to_string(), rate.over(1))).collect();
    }

    pub(crate) fn plan(&mut self, process: u32, provider: &PublicKey, rate: Rate, now: u64) {
        self.forget(process, provider);
        let (provider, rate, until) = (provider.to_string(), rate.over(1), now.saturating_add(PLAN_SECONDS));
        self.planned.push(Plan { process, provider, rate, until });
    }

    /// Forgets what a process planned.
    pub(crate) fn forget(&mut self, process: u32, provider: &PublicKey) {
        let provider = provider.to_string();
        self.planned.retain(|plan| (plan.process, &plan.provider) != (process, &provider));
    }

    /// Forgets what processes planned that never said what came of it.
    pub(crate) fn clear(&mut self, now: u64) {
        // A plan from beyond its time is from a clock that has come back since.
        self.planned.retain(|plan| plan.until > now && plan.until <= now.saturating_add(PLAN_SECONDS));
    }

    /// What 30 days cost, beside one provider: the higher of what is agreed and planned with each.
    pub(crate) fn monthly(&self, beside: Option<&PublicKey>, now: u64, epoch_seconds: u32) -> Amount {
        let beside = beside.map(PublicKey::to_string);
        let mut rates = self.agreed.clone();
        for plan in self.planned.iter().filter(|plan| plan.until > now) {
            let known = rates.entry(plan.provider.clone()).or_default();
            *known = (*known).max(plan.rate);
        }
        let others = rates.into_iter().filter(|(provider, _)| Some(provider) != beside.as_ref());
        let month = |(_, rate): (String, Amount)| {
            Rate::new(rate.0).map_or(Amount::MAX, |rate| monthly(rate, epoch_seconds))
        };
        others.map(month).try_fold(Amount::ZERO, Amount::checked_add).unwrap_or(Amount::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::{PLAN_SECONDS, Rents};
    use seedbank_agreement::{Amount, Rate};
    use seedbank_formats::PublicKey;
    use std::collections::BTreeMap;

    const DAY: u32 = 86_400;

    fn key(number: u8) -> PublicKey {
        PublicKey([number; 32])
    }

    fn rate(units: u128) -> Rate {
        Rate::new(units).unwrap()
    }

    #[test]
    fn what_several_processes_plan_counts_beside_what_the_books_say() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Rents::read(dir.path()).unwrap(), None);
        let mut rents = Rents::default();
        rents.note(&BTreeMap::from([(key(1), rate(10)), (key(2), rate(20))]));
        rents.plan(7, &key(2), rate(25), 1000);
        rents.plan(8, &key(3), rate(5), 1000);
        rents.plan(8, &key(3), rate(6), 1000);
        rents.write(dir.path()).unwrap();
        let mut rents = Rents::read(dir.path()).unwrap().unwrap();
        assert_eq!(rents.monthly(None, 1000, DAY), Amount(30 * (10 + 25 + 6)));
        assert_eq!(rents.monthly(Some(&key(2)), 1000, DAY), Amount(30 * (10 + 6)));
        rents.forget(7, &key(3));
        rents.forget(8, &key(3));
        assert_eq!(rents.monthly(None, 1000, DAY), Amount(30 * (10 + 25)));
        assert_eq!(rents.monthly(None, 1000 + PLAN_SECONDS, DAY), Amount(30 * 30), "its process died");
    }

    #[test]
    fn plans_end_by_themselves_even_if_the_clock_was_ahead() {
        let mut rents = Rents::default();
        rents.plan(7, &key(2), rate(25), 1_000_000);
        rents.clear(1000);
        assert_eq!(rents, Rents::default());
        rents.plan(7, &key(2), rate(25), 1000);
        rents.clear(1001);
        assert_ne!(rents, Rents::default());
    }
}

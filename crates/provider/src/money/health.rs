//! What the operator should know of the money side now.

use crate::money::epochs::Urgency;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How the money side is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    Well,
    /// Look at it today: pay may be lost soon.
    Degraded(String),
    /// Look at it now: pay and stake are about to be lost, or were.
    Failing(String),
}

#[derive(Debug, Default)]
struct Troubles {
    chain: Option<String>,
    proof: Option<(Urgency, String)>,
    dead: Option<String>,
    work: Option<String>,
    entry: Option<String>,
    age: Option<String>,
    coin: Option<String>,
}

/// Keeps it.
#[derive(Debug, Default)]
pub(crate) struct MoneyHealth {
    troubles: Mutex<Troubles>,
}

impl MoneyHealth {
    fn lock(&self) -> MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The chain can't be asked, or can again.
    pub(crate) fn chain(&self, trouble: Option<String>) {
        self.lock().chain = trouble;
    }

    /// An epoch is not proven yet, and how urgent that is. True if that is news.
    pub(crate) fn proof(&self, trouble: Option<(Urgency, String)>) -> bool {
        let mut troubles = self.lock();
        let level = |trouble: &Option<(Urgency, String)>| trouble.as_ref().map(|(urgency, _)| *urgency);
        let news = level(&troubles.proof) != level(&trouble);
        troubles.proof = trouble;
        news
    }

    /// The set is dead, or begins anew.
    pub(crate) fn dead(&self, trouble: Option<String>) {
        self.lock().dead = trouble;
    }

    /// Something else failed, or works again.
    pub(crate) fn work(&self, trouble: Option<String>) {
        self.lock().work = trouble;
    }

    /// The registry does not say what was configured, or does again. True if that is news.
    pub(crate) fn entry(&self, trouble: Option<String>) -> bool {
        let mut troubles = self.lock();
        let news = troubles.entry != trouble;
        troubles.entry = trouble;
        news
    }

    /// Whether the registry does not say what was configured.
    pub(crate) fn has_entry_trouble(&self) -> bool {
        self.lock().entry.is_some()
    }

    /// The chain's newest block is old, or is new again.
    pub(crate) fn age(&self, trouble: Option<String>) {
        self.lock().age = trouble;
    }

    /// There is little coin left for gas, or enough again.
    pub(crate) fn coin(&self, trouble: Option<String>) {
        self.lock().coin = trouble;
    }

    /// What is the matter, if anything is.
    pub(crate) fn trouble(&self) -> Option<String> {
        match self.now() {
            Health::Well => None,
            Health::Degraded(why) | Health::Failing(why) => Some(why),
        }
    }

    /// The worst of it.
    pub(crate) fn now(&self) -> Health {
        let troubles = self.lock();
        if let Some(dead) = &troubles.dead {
            return Health::Failing(dead.clone());
        }
        match &troubles.proof {
            Some((Urgency::Alarm, why)) => return Health::Failing(why.clone()),
            Some((Urgency::Warning, why)) => return Health::Degraded(why.clone()),
            Some((Urgency::None, _)) | None => {}
        }
        let Troubles { chain, work, entry, age, coin, proof: _, dead: _ } = &*troubles;
        match [chain, work, entry, age, coin].into_iter().flatten().next() {
            Some(why) => Health::Degraded(why.clone()),
            None => Health::Well,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Health, MoneyHealth};
    use crate::money::epochs::Urgency;

    #[test]
    fn worst_trouble_is_told_and_a_level_is_news_once() {
        let health = MoneyHealth::default();
        assert_eq!(health.now(), Health::Well);
        health.chain(Some("no chain".to_owned()));
        assert_eq!(health.now(), Health::Degraded("no chain".to_owned()));
        let late = |urgency| Some((urgency, "late".to_owned()));
        assert!(health.proof(late(Urgency::Warning)));
        assert!(!health.proof(late(Urgency::Warning)));
        assert!(health.proof(late(Urgency::Alarm)));
        assert_eq!(health.now(), Health::Failing("late".to_owned()));
        assert!(health.proof(None));
        health.coin(Some("little coin".to_owned()));
        assert!(health.entry(Some("no entry".to_owned())));
        health.chain(None);
        assert_eq!(health.now(), Health::Degraded("no entry".to_owned()));
        assert!(health.has_entry_trouble() && health.entry(None));
        assert_eq!(health.now(), Health::Degraded("little coin".to_owned()));
        health.coin(None);
        assert_eq!(health.now(), Health::Well);
    }
}

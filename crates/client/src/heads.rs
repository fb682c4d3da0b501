//! A dataset as its head tells it: the newest head that providers have, and what is read through it without any books.
//!
//! A provider may hold an old head back or never have got the newest, so several are asked and the highest sequence
//! wins: one that lags is outvoted, and signatures keep all of them from inventing one. What nobody can see from outside
//! is that all who were asked lag; whoever remembers a sequence passes it as `at_least`. Below the head every page is
//! pinned by the link to it, so a public dataset, whose key everybody has, can't be forged either.
//!
//! Nothing is written here and nothing decides what a newer head means for books: see [`crate::recover`].

mod lists;
mod opened;

pub(crate) use lists::{ListPage, refs_of, versions_of};
pub use lists::{ListedRef, ListedVersion};
pub use opened::{OpenDatasetError, OpenedHead, ResolveError, open_dataset, open_public_dataset};

use crate::dataset::{DatasetKeys, Visibility};
use crate::home_dataset::{EPOCHS_MAX, owner_keys};
use crate::network::Network;
use bytes::Bytes;
use seedbank_formats::head::Head;
use seedbank_formats::keys::{DatasetSecret, KeyEpoch};
use seedbank_formats::receipt::SignedError;
use seedbank_formats::{DatasetId, PublicKey};
use seedbank_transport::CallError;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// So many heads are compared. Of three providers two may lag or lie without a reader being misled.
const QUORUM: usize = 3;

/// Providers asked at once when all of them count.
const ASKED_AT_ONCE_MAX: usize = 16;

/// Whoever does not give a head of at most 256 KiB in this time is passed over: others are waiting to be asked.
const PATIENCE: Duration = Duration::from_secs(5);

/// A head that is the dataset's, signed by its owner, and the newest that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedHead {
    bytes: Bytes,
    head: Head,
    holders: Vec<PublicKey>,
    behind: Vec<PublicKey>,
}

impl CheckedHead {
    /// What stands in clear.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Its signed bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Providers that gave it.
    #[must_use]
    pub fn holders(&self) -> &[PublicKey] {
        &self.holders
    }

    /// Providers that gave an older one: they lag, or hold it back.
    #[must_use]
    pub fn behind(&self) -> &[PublicKey] {
        &self.behind
    }

    /// The keys of a public dataset, for whoever knows no more of it than its id.
    ///
    /// # Errors
    /// [`OpenDatasetError::TooManyEpochs`] when no owner could have changed keys so often.
    pub fn published_keys(&self) -> Result<DatasetKeys, OpenDatasetError> {
        let (owner, salt, epoch) = (self.head.owner(), *self.head.salt(), self.epoch()?);
        let published = |dataset: &DatasetId, _| DatasetSecret::published(dataset);
        Ok(owner_keys(&owner, salt, Visibility::Public, epoch, published))
    }

    /// Its key epoch, if it is one that keys can be derived up to.
    pub(crate) fn epoch(&self) -> Result<KeyEpoch, OpenDatasetError> {
        let epoch = self.head.epoch();
        if epoch <= EPOCHS_MAX { Ok(epoch) } else { Err(OpenDatasetError::TooManyEpochs(epoch)) }
    }
}

/// Why a provider gave no head that counts.
#[derive(Debug, thiserror::Error)]
pub enum HeadFailure {
    /// It keeps none of this dataset.
    #[error("it has no head of this dataset")]
    None,
    /// It did not answer in time.
    #[error("it did not answer in time")]
    Slow,
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// What it gave is no head, or nobody signed it.
    #[error("what it gave is not signed: {0}")]
    Signature(#[source] SignedError),
    /// What it gave is another dataset's head.
    #[error("it gave the head of dataset {0}")]
    WrongDataset(DatasetId),
}

/// Why there is no head to go by.
#[derive(Debug, thiserror::Error)]
pub enum HeadsError {
    /// Ask other providers, or later.
    #[error("none of {} providers gave a head of dataset {dataset}{}", failures.len(), first_failure(failures))]
    NotFound {
        /// The dataset.
        dataset: DatasetId,
        /// Everyone who was asked, and why that did not help.
        failures: BTreeMap<PublicKey, HeadFailure>,
    },
    /// A newer head is known to exist, and no provider that was asked has it: ask others.
    #[error("providers have heads up to sequence {sequence} only, and {at_least} is known to exist")]
    TooOld {
        /// The newest one found.
        sequence: u64,
        /// The one that must exist.
        at_least: u64,
    },
    /// The owner signed two histories: a copy of the home was used beside it, or a recovered one beside the lost one. A
    /// person must say which of the two counts.
    #[error("the owner signed two different heads of sequence {}", one.head.sequence())]
    SignedTwice {
        /// One of them.
        one: Box<CheckedHead>,
        /// The other.
        other: Box<CheckedHead>,
    },
}

fn first_failure(failures: &BTreeMap<PublicKey, HeadFailure>) -> String {
    failures.iter().next().map_or_else(String::new, |(provider, failure)| format!("; {provider}: {failure}"))
}

/// What providers gave so far.
#[derive(Debug)]
struct Ballot {
    dataset: DatasetId,
    answered: usize,
    newest: Option<CheckedHead>,
    /// Another head of the newest one's sequence.
    rival: Option<CheckedHead>,
    failures: BTreeMap<PublicKey, HeadFailure>,
}

impl Ballot {
    fn new(dataset: DatasetId) -> Ballot {
        Ballot { dataset, answered: 0, newest: None, rival: None, failures: BTreeMap::new() }
    }

    fn count(&mut self, provider: PublicKey, answer: Result<Bytes, HeadFailure>) {
        match answer.and_then(|bytes| self.check(provider, bytes)) {
            Ok(head) => self.compare(head),
            Err(failure) => {
                self.failures.insert(provider, failure);
            }
        }
    }

    fn check(&self, provider: PublicKey, bytes: Bytes) -> Result<CheckedHead, HeadFailure> {
        let head = Head::check(&bytes).map_err(HeadFailure::Signature)?;
        if head.dataset() != self.dataset {
            return Err(HeadFailure::WrongDataset(head.dataset()));
        }
        Ok(CheckedHead { bytes, head, holders: vec![provider], behind: Vec::new() })
    }

    fn compare(&mut self, mut head: CheckedHead) {
        self.answered += 1;
        let Some(newest) = &mut self.newest else {
            self.newest = Some(head);
            return;
        };
        let (theirs, ours) = (head.head.sequence(), newest.head.sequence());
        if theirs < ours {
            newest.behind.append(&mut head.holders);
        } else if theirs > ours {
            head.behind.append(&mut newest.behind);
            head.behind.append(&mut newest.holders);
            head.behind.extend(self.rival.take().into_iter().flat_map(|rival| rival.holders));
            *newest = head;
        } else if head.bytes == newest.bytes {
            newest.holders.append(&mut head.holders);
        } else {
            match &mut self.rival {
                Some(rival) => rival.holders.append(&mut head.holders),
                none => *none = Some(head),
            }
        }
    }

    /// How many more answers are wanted. While all are too old, one more at a time.
    fn wanted(&self, quorum: usize, at_least: u64) -> usize {
        let found = self.newest.as_ref().map_or(0, |newest| newest.head.sequence());
        quorum.saturating_sub(self.answered).max(usize::from(found < at_least))
    }

    fn result(self, at_least: u64) -> Result<CheckedHead, HeadsError> {
        let Ballot { dataset, newest, rival, failures, .. } = self;
        let newest = newest.ok_or(HeadsError::NotFound { dataset, failures })?;
        let sequence = newest.head.sequence();
        if sequence < at_least {
            return Err(HeadsError::TooOld { sequence, at_least });
        }
        match rival {
            Some(rival) => Err(HeadsError::SignedTwice { one: Box::new(newest), other: Box::new(rival) }),
            None => Ok(newest),
        }
    }
}

/// The newest head that three of these providers have. More are asked, in this order, while fewer than three have given
/// one, or none is as new as `at_least`.
///
/// # Errors
/// [`HeadsError`].
pub async fn newest_head(
    network: &Arc<Network>,
    providers: &[PublicKey],
    dataset: DatasetId,
    at_least: Option<u64>,
) -> Result<CheckedHead, HeadsError> {
    ask(network, providers, dataset, at_least.unwrap_or(0), QUORUM).await
}

/// The newest head that any of these providers has: for an owner who goes on writing from it, and would sign a second
/// history from an older one.
///
/// # Errors
/// [`HeadsError`].
pub async fn newest_head_of_all(
    network: &Arc<Network>,
    providers: &[PublicKey],
    dataset: DatasetId,
) -> Result<CheckedHead, HeadsError> {
    ask(network, providers, dataset, 0, usize::MAX).await
}

async fn ask(
    network: &Arc<Network>,
    providers: &[PublicKey],
    dataset: DatasetId,
    at_least: u64,
    quorum: usize,
) -> Result<CheckedHead, HeadsError> {
    let mut known = BTreeSet::new();
    let mut waiting = providers.iter().copied().filter(|provider| known.insert(*provider));
    let (mut ballot, mut asked) = (Ballot::new(dataset), JoinSet::new());
    loop {
        let wanted = ballot.wanted(quorum, at_least);
        let more = wanted.min(ASKED_AT_ONCE_MAX).saturating_sub(asked.len());
        for provider in waiting.by_ref().take(more) {
            asked.spawn(ask_one(Arc::clone(network), provider, dataset));
        }
        if wanted == 0 {
            break;
        }
        let Some(answer) = asked.join_next().await else { break };
        // A task that was stopped has asked nobody: the process is ending.
        if let Ok((provider, answer)) = answer {
            ballot.count(provider, answer);
        }
    }
    ballot.result(at_least)
}

async fn ask_one(
    network: Arc<Network>,
    provider: PublicKey,
    dataset: DatasetId,
) -> (PublicKey, Result<Bytes, HeadFailure>) {
    let answer = match tokio::time::timeout(PATIENCE, network.get_head(&provider, dataset)).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => Err(HeadFailure::None),
        Ok(Err(error)) => Err(error.into()),
        Err(_elapsed) => Err(HeadFailure::Slow),
    };
    (provider, answer)
}

#[cfg(test)]
mod tests {
    use super::{Ballot, CheckedHead, HeadFailure, HeadsError};
    use bytes::Bytes;
    use seedbank_erasure::Scheme;
    use seedbank_formats::head::{Head, HeadBody};
    use seedbank_formats::keys::{DatasetSecret, KeyEpoch, SealKeys, SigningKey, dataset_id};
    use seedbank_formats::place::{Link, Place};
    use seedbank_formats::placement::{FragmentPlacement, Hints, SegmentPlacement};
    use seedbank_formats::{DatasetId, FragmentId, PublicKey, SegmentNumber, Timestamp};

    const SALT: [u8; 32] = [6; 32];

    fn owner() -> SigningKey {
        SigningKey::from_seed([1; 32])
    }

    fn dataset() -> DatasetId {
        dataset_id(&owner().public(), &SALT)
    }

    fn provider(number: u8) -> PublicKey {
        PublicKey([number; 32])
    }

    /// A head of `salt`'s dataset; heads of one sequence and another `time` differ.
    fn head(salt: [u8; 32], sequence: u64, time: u64) -> Bytes {
        let place = Place { segment: SegmentNumber(3), index: 0 };
        let placement = SegmentPlacement {
            number: SegmentNumber(3),
            epoch: KeyEpoch(0),
            scheme: Scheme::new(1, 2).unwrap(),
            sealed_len: 900,
            footer_len: 90,
            fragments: vec![FragmentPlacement { id: FragmentId([9; 32]), holder: None }; 2],
        };
        let body = HeadBody {
            version: None,
            map: None,
            checkpoint: Link::new(place, b"checkpoint"),
            locator: vec![placement],
            hints: Hints::new(),
        };
        let id = dataset_id(&owner().public(), &salt);
        let keys = SealKeys::new(id, KeyEpoch(0), &DatasetSecret::published(&id));
        Bytes::from(Head::sign(&body, &keys, &owner(), &salt, sequence, Timestamp(time)).unwrap())
    }

    fn ballot(answers: Vec<Result<Bytes, HeadFailure>>) -> Ballot {
        let mut ballot = Ballot::new(dataset());
        for (number, answer) in (1..).zip(answers) {
            ballot.count(provider(number), answer);
        }
        ballot
    }

    #[test]
    fn a_provider_with_an_old_head_is_outvoted_in_any_order() {
        let (old, new) = (head(SALT, 4, 0), head(SALT, 5, 0));
        for order in [[&old, &new, &new], [&new, &old, &new], [&new, &new, &old]] {
            let found = ballot(order.map(|head| Ok(head.clone())).into()).result(0).unwrap();
            assert_eq!((found.head().sequence(), found.bytes()), (5, &new));
            assert_eq!((found.holders().len(), found.behind().len()), (2, 1));
        }
    }

    #[test]
    fn heads_of_nobody_or_of_another_dataset_do_not_count() {
        let mut forged = head(SALT, 9, 0).to_vec();
        *forged.last_mut().unwrap() ^= 1;
        let answers = vec![
            Ok(Bytes::from(forged)),
            Ok(head([7; 32], 9, 0)),
            Err(HeadFailure::None),
            Ok(head(SALT, 1, 0)),
        ];
        let ballot = ballot(answers);
        assert_eq!(ballot.wanted(3, 0), 2);
        assert!(matches!(ballot.failures[&provider(1)], HeadFailure::Signature(_)));
        assert!(matches!(ballot.failures[&provider(2)], HeadFailure::WrongDataset(_)));
        assert_eq!(ballot.result(0).unwrap().holders(), [provider(4)]);
    }

    #[test]
    fn without_any_head_everyones_reason_is_told() {
        let found = ballot(vec![Err(HeadFailure::None), Err(HeadFailure::Slow)]).result(0);
        match found {
            Err(HeadsError::NotFound { failures, .. }) => assert_eq!(failures.len(), 2),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_head_older_than_a_known_one_is_refused_and_more_are_asked() {
        let ballot = ballot([1, 2, 3].map(|time| Ok(head(SALT, time, 0))).into());
        assert_eq!((ballot.wanted(3, 3), ballot.wanted(3, 4)), (0, 1));
        assert!(matches!(ballot.result(4), Err(HeadsError::TooOld { sequence: 3, at_least: 4 })));
    }

    #[test]
    fn two_histories_of_one_owner_are_told_unless_a_newer_head_ends_them() {
        let (one, other) = (head(SALT, 5, 1), head(SALT, 5, 2));
        let both = || vec![Ok(one.clone()), Ok(other.clone()), Ok(one.clone())];
        match ballot(both()).result(0) {
            Err(HeadsError::SignedTwice { one: a, other: b }) => {
                assert_eq!((a.bytes(), a.holders().len(), b.bytes()), (&one, 2, &other));
            }
            found => panic!("{found:?}"),
        }
        let ended: Vec<_> = both().into_iter().chain([Ok(head(SALT, 6, 0))]).collect();
        assert_eq!(ballot(ended).result(0).map(|found| found.behind().len()).unwrap(), 3);
    }

    #[test]
    fn anyone_derives_the_keys_of_a_public_dataset_from_its_head() {
        let bytes = head(SALT, 1, 0);
        let checked = CheckedHead {
            head: Head::check(&bytes).unwrap(),
            bytes,
            holders: Vec::new(),
            behind: Vec::new(),
        };
        let keys = checked.published_keys().unwrap();
        assert_eq!((keys.id, keys.owner), (dataset(), owner().public()));
        checked.head().open(keys.current()).unwrap();
    }
}

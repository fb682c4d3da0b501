//! From a phrase's keys and some providers to all of an owner's datasets.

use super::{RecoverError, Recovered, recover_dataset};
use crate::dataset::{DatasetKeys, Visibility};
use crate::greeting;
use crate::heads::{CheckedHead, HeadsError, OpenDatasetError, OpenedHead, newest_head_of_all};
use crate::home_dataset::{
    HOME_DATASET_NAME, HOME_DATASET_SALT, HomeRecord, UnreadableRecord, home_dataset_id, owner_keys,
    read_list,
};
use crate::network::Network;
use crate::pay::ChainError;
use crate::registry::Registries;
use crate::snapshot::SnapshotError;
use crate::uploader::SharedBooks;
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::keys::{DatasetSecret, KeyEpoch};
use seedbank_formats::{DatasetId, PublicKey};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// Each round asks the providers that the last one's head named. Honest heads name all there are in the first.
const ROUNDS_MAX: usize = 4;

/// Why no dataset at all could be recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverOwnerError {
    /// The home dataset can't be found or opened: try another provider.
    #[error("the list of datasets: {0}")]
    Home(#[source] FindHeadError),
    /// The list can't be read.
    #[error("the list of datasets: {0}")]
    List(#[source] SnapshotError),
    /// The books can't be written.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The process is ending.
    #[error("recovery was stopped")]
    Stopped,
}

/// Why there is no head to recover from.
#[derive(Debug, thiserror::Error)]
pub enum FindHeadError {
    /// It can't be found or opened.
    #[error(transparent)]
    Open(#[from] OpenDatasetError),
    /// The chain does not say which head is the least that counts.
    #[error("what the chain knows of it can't be asked: {0}")]
    Chain(#[from] ChainError),
}

/// Why one dataset could not be recovered; others may have been.
#[derive(Debug, thiserror::Error)]
pub enum RecoverOneError {
    /// Its head can't be found or opened.
    #[error(transparent)]
    Find(#[from] FindHeadError),
    /// What is behind the head can't be read, or the books say no.
    #[error(transparent)]
    Recover(#[from] RecoverError),
}

/// How the recovery of one dataset went.
#[derive(Debug)]
pub struct DatasetOutcome {
    /// The dataset.
    pub dataset: DatasetId,
    /// What the list calls it.
    pub name: String,
    /// What came of it.
    pub result: Result<Recovered, RecoverOneError>,
}

/// What was recovered of an owner.
#[derive(Debug)]
pub struct RecoveredOwner {
    /// The list of datasets itself, which goes on from here with the next change to it.
    pub home: DatasetOutcome,
    /// Every dataset of the list.
    pub datasets: Vec<DatasetOutcome>,
    /// Files of the list that say nothing that this build understands.
    pub unreadable: Vec<UnreadableRecord>,
    /// Providers that were added to the books.
    pub providers: Vec<PublicKey>,
    /// Providers that heads and maps name and that did not greet. They are not in the books.
    pub silent: Vec<PublicKey>,
}

/// Recovers an owner's books: the home dataset from `first`, whose addresses the network knows, and all datasets that it
/// lists from the providers that it names. `secret` derives private datasets' secrets. With `registries`, no head counts that
/// is older than the one that the chain knows.
///
/// # Errors
/// [`RecoverOwnerError`] when nothing can be recovered. A dataset that can't is reported, and the others go on.
pub async fn recover_owner(
    books: &SharedBooks,
    network: &Arc<Network>,
    owner: &PublicKey,
    secret: impl Fn(&DatasetId, KeyEpoch) -> DatasetSecret,
    first: &[PublicKey],
    registries: Option<&Registries>,
    index_dir: &Path,
) -> Result<RecoveredOwner, RecoverOwnerError> {
    let mut search = Search { books, network, registries, index_dir, known: first.to_vec() };
    let home_id = home_dataset_id(owner);
    let home_keys = |epoch| owner_keys(owner, HOME_DATASET_SALT, Visibility::Private, epoch, &secret);
    let found = search.open_newest(home_id, HOME_DATASET_NAME, home_keys).await;
    let home = found.map_err(RecoverOwnerError::Home)?;
    let list = read_list(&home).await.map_err(RecoverOwnerError::List)?;
    let result = search.recover(&home, HOME_DATASET_NAME).await;
    let home = DatasetOutcome { dataset: home_id, name: HOME_DATASET_NAME.to_owned(), result };
    let mut datasets = Vec::with_capacity(list.records.len());
    for record in list.records {
        let result = search.find_and_recover(&record, owner, &secret).await;
        datasets.push(DatasetOutcome { dataset: record.dataset, name: record.name, result });
    }
    let Greeted { added, silent } = add_providers(books, network, search.known).await?;
    Ok(RecoveredOwner { home, datasets, unreadable: list.unreadable, providers: added, silent })
}

/// Where to look, which grows with everything that is found.
struct Search<'a> {
    books: &'a SharedBooks,
    network: &'a Arc<Network>,
    registries: Option<&'a Registries>,
    index_dir: &'a Path,
    /// Providers that were named, in the order in which they were.
    known: Vec<PublicKey>,
}

impl Search<'_> {
    /// Adds providers, and says whether one is new.
    fn meet(&mut self, providers: impl IntoIterator<Item = PublicKey>) -> bool {
        let before = self.known.len();
        for provider in providers {
            if !self.known.contains(&provider) {
                self.known.push(provider);
            }
        }
        self.known.len() > before
    }

    /// The newest head of a dataset that any provider has of those known, and those that it leads to.
    async fn open_newest(
        &mut self,
        dataset: DatasetId,
        name: &str,
        keys: impl Fn(KeyEpoch) -> DatasetKeys,
    ) -> Result<OpenedHead, FindHeadError> {
        let least = match self.registries {
            Some(registries) => registries.least_head(name, &keys(KeyEpoch(0))).await?,
            None => None,
        };
        let opened = self.open_newest_of_all(dataset, keys).await?;
        let sequence = opened.head().head().sequence();
        match least {
            Some(at_least) if sequence < at_least => {
                Err(OpenDatasetError::from(HeadsError::TooOld { sequence, at_least }).into())
            }
            _ => Ok(opened),
        }
    }

    async fn open_newest_of_all(
        &mut self,
        dataset: DatasetId,
        keys: impl Fn(KeyEpoch) -> DatasetKeys,
    ) -> Result<OpenedHead, OpenDatasetError> {
        let head =
            newest_head_of_all(self.network, &self.known, dataset).await.map_err(OpenDatasetError::from)?;
        let mut opened = self.open(head, &keys).await?;
        for _ in 1..ROUNDS_MAX {
            if !self.meet(opened.body().hints.keys().copied()) {
                break;
            }
            match newest_head_of_all(self.network, &self.known, dataset).await {
                Ok(head) if head.head().sequence() > opened.head().head().sequence() => {
                    opened = self.open(head, &keys).await?;
                }
                Err(error @ HeadsError::SignedTwice { .. }) => return Err(error.into()),
                // Nobody else has a newer one, or whoever answered before no longer does.
                Ok(_) | Err(HeadsError::NotFound { .. } | HeadsError::TooOld { .. }) => break,
            }
        }
        Ok(opened)
    }

    async fn open(
        &self,
        head: CheckedHead,
        keys: impl Fn(KeyEpoch) -> DatasetKeys,
    ) -> Result<OpenedHead, OpenDatasetError> {
        let keys = keys(head.epoch()?);
        OpenedHead::open(self.network, &keys, head).await
    }

    async fn find_and_recover(
        &mut self,
        record: &HomeRecord,
        owner: &PublicKey,
        secret: impl Fn(&DatasetId, KeyEpoch) -> DatasetSecret,
    ) -> Result<Recovered, RecoverOneError> {
        // The list and the head are published one after the other: either may know the later epoch.
        let keys = |epoch: KeyEpoch| {
            owner_keys(owner, record.salt, record.visibility, epoch.max(record.epoch), &secret)
        };
        let opened = self.open_newest(record.dataset, &record.name, keys).await?;
        self.recover(&opened, &record.name).await
    }

    async fn recover(&mut self, opened: &OpenedHead, name: &str) -> Result<Recovered, RecoverOneError> {
        let recovered = recover_dataset(self.books, opened, name, self.index_dir).await?;
        self.meet(recovered.holders.iter().copied());
        Ok(recovered)
    }
}

struct Greeted {
    added: Vec<PublicKey>,
    silent: Vec<PublicKey>,
}

/// Greets providers, and adds those that answer to the books.
async fn add_providers(
    books: &SharedBooks,
    network: &Arc<Network>,
    providers: Vec<PublicKey>,
) -> Result<Greeted, RecoverOwnerError> {
    let profiles = greeting::greet(network, &providers).await.map_err(|_ended| RecoverOwnerError::Stopped)?;
    let added: BTreeSet<PublicKey> = profiles.iter().map(|profile| profile.key).collect();
    let books = Arc::clone(books);
    let put = move || {
        let known: BTreeSet<PublicKey> =
            books.providers()?.into_iter().map(|provider| provider.profile.key).collect();
        // Whoever the registry brought stays the registry's.
        profiles.into_iter().try_for_each(|profile| match known.contains(&profile.key) {
            true => books.hear_provider(profile),
            false => books.put_provider(profile),
        })
    };
    tokio::task::spawn_blocking(put).await.map_err(|_ended| RecoverOwnerError::Stopped)??;
    let silent = providers.into_iter().filter(|provider| !added.contains(provider)).collect();
    Ok(Greeted { added: added.into_iter().collect(), silent })
}

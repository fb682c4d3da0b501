//! What keeps datasets healthy: single bounded steps that somebody repeats at their own pace.
//!
//! Each step asks the books what is to be done, does a bounded part of it, and tells the books what came of it. A step
//! that is cut short leaves nothing half true: whatever it did not tell is done again. Nothing here decides when a
//! step runs, and nothing here holds a lease or a lock while it waits for a provider.

mod channels;
mod claims;
mod collect;
mod compact;
mod complete;
mod heads;
mod jobs;
mod marks;
mod orphans;
mod pay;
mod proven;
mod providers;
mod refresh;
mod registries;

pub use crate::claims::Renewed;
pub use collect::{CollectError, Collection};
pub use compact::{CompactError, Compacted};
pub use complete::{CompleteError, Completed};
pub use jobs::JobsDone;
pub use orphans::{CompareError, Compared};
pub use pay::{PayStepError, Paying};
pub use providers::Greeted;
pub use refresh::{RefreshError, Refreshed};
pub use registries::NamesPublished;

use self::jobs::Releasable;
use crate::dataset::DatasetKeys;
use crate::network::Network;
use crate::registry::Registries;
use crate::uploader::SharedBooks;
use seedbank_agreement::Amount;
use seedbank_catalog::records::{Collected, Dataset};
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::keys::SigningKey;
use seedbank_formats::{DatasetId, PublicKey, Timestamp};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// Finds the keys of a dataset of the books; `None` when they are not at hand.
pub type KeyLookup = Arc<dyn Fn(&Dataset) -> Option<DatasetKeys> + Send + Sync>;

/// Segments that are completed at once: each takes a fragment or more of memory.
const COMPLETIONS_MAX: usize = 1;

/// Why a step stopped early. What it did until then stands.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The books say no, or can't be asked.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The process is ending.
    #[error("the step was stopped")]
    Stopped,
}

/// Everything that the steps work with. Clones share it.
#[derive(Clone)]
pub struct Maintenance {
    books: SharedBooks,
    network: Arc<Network>,
    keys: KeyLookup,
    index_dir: Option<PathBuf>,
    owner: Option<Arc<SigningKey>>,
    registries: Option<Arc<Registries>>,
    completions: Arc<Semaphore>,
    releasable: Arc<Mutex<BTreeMap<DatasetId, Releasable>>>,
    /// How many doubts about a provider were asked about on the chain.
    asked: Arc<Mutex<BTreeMap<PublicKey, usize>>>,
    /// Monthly rent of fragments that found a holder and were not signed for yet.
    unsigned_rent: Arc<Mutex<Amount>>,
}

impl Maintenance {
    /// Works on these books, through this network.
    #[must_use]
    pub fn new(books: SharedBooks, network: Arc<Network>, keys: KeyLookup) -> Maintenance {
        let completions = Arc::new(Semaphore::new(COMPLETIONS_MAX));
        let (releasable, asked, unsigned_rent) = (Arc::default(), Arc::default(), Arc::default());
        let (index_dir, owner, registries) = (None, None, None);
        Maintenance {
            books,
            network,
            keys,
            index_dir,
            owner,
            registries,
            completions,
            releasable,
            asked,
            unsigned_rent,
        }
    }

    /// Also keeps the deduplication indices in this folder in step. Without it, the next push finds out by itself.
    #[must_use]
    pub fn with_index(self, index_dir: &Path) -> Maintenance {
        Maintenance { index_dir: Some(index_dir.to_owned()), ..self }
    }

    /// Also writes heads and moves data of this owner's datasets. Needs [`Maintenance::with_index`], too.
    #[must_use]
    pub fn signing(self, owner: Arc<SigningKey>) -> Maintenance {
        Maintenance { owner: Some(owner), ..self }
    }

    /// The books.
    #[must_use]
    pub fn books(&self) -> &SharedBooks {
        &self.books
    }

    /// The providers.
    #[must_use]
    pub fn network(&self) -> &Arc<Network> {
        &self.network
    }

    /// The datasets of the books.
    ///
    /// # Errors
    /// [`StepError`].
    pub async fn datasets(&self) -> Result<Vec<Dataset>, StepError> {
        self.ask::<_, StepError>(|books| books.datasets()).await
    }

    /// Whether a dataset's keys are at hand: without them it is neither completed nor collected.
    #[must_use]
    pub fn has_keys(&self, dataset: &Dataset) -> bool {
        (self.keys)(dataset).is_some()
    }

    /// Asks the books where waiting holds nobody else up.
    async fn ask<T, E>(
        &self,
        question: impl FnOnce(&SharedBooks) -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<CatalogError> + From<StepError>,
    {
        let books = Arc::clone(&self.books);
        let asked = tokio::task::spawn_blocking(move || question(&books)).await;
        Ok(asked.map_err(|_ended| StepError::Stopped)??)
    }

    /// A dataset as the books have it, and its keys if they are at hand.
    async fn dataset<E: From<CatalogError> + From<StepError>>(
        &self,
        dataset: DatasetId,
    ) -> Result<(Dataset, Option<DatasetKeys>), E> {
        let record = self.ask::<_, E>(move |books| books.dataset(dataset.to_string())).await?;
        let keys = (self.keys)(&record);
        Ok((record, keys))
    }

    /// Tells the network where providers were last reached.
    async fn learn_addresses<E: From<CatalogError> + From<StepError>>(&self) -> Result<(), E> {
        let providers = self.ask::<_, E>(|books| books.providers()).await?;
        self.network.learn(providers.iter().map(|p| (&p.profile.key, p.profile.address.as_str())));
        Ok(())
    }
}

/// Collects one dataset, for a process that does nothing else: see [`Maintenance::collect`].
///
/// # Errors
/// [`CollectError`].
pub async fn collect(
    books: &SharedBooks,
    network: &Arc<Network>,
    keys: &DatasetKeys,
    index_dir: &Path,
    now: Timestamp,
) -> Result<Collected, CollectError> {
    let (id, keys) = (keys.id, keys.clone());
    let lookup: KeyLookup = Arc::new(move |_dataset| Some(keys.clone()));
    let maintenance = Maintenance::new(Arc::clone(books), Arc::clone(network), lookup).with_index(index_dir);
    Ok(maintenance.collect(id, now).await?.collected)
}

/// Releases what is to be released at once, for a process that does nothing else: see
/// [`Maintenance::release`].
///
/// # Errors
/// [`StepError`].
pub async fn release(books: &SharedBooks, network: &Arc<Network>) -> Result<JobsDone, StepError> {
    Maintenance::new(Arc::clone(books), Arc::clone(network), Arc::new(|_dataset| None)).release().await
}

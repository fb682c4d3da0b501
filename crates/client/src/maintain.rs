//! What keeps datasets healthy: single bounded steps that somebody repeats at their own pace.
//!
//! Each step asks the books what is to be done, does a bounded part of it, and tells the books what came of it. A step
//! that is cut short leaves nothing half true: whatever it did not tell is done again. Nothing here decides when a
//! step runs, and nothing here holds a lease or a lock while it waits for a provider.

mod claims;
mod collect;
mod complete;
mod heads;
mod jobs;
mod marks;
mod proven;
mod providers;

pub use claims::Renewed;
pub use collect::{CollectError, Collection};
pub use complete::{CompleteError, Completed};
pub use jobs::JobsDone;
pub use providers::Greeted;

use crate::dataset::DatasetKeys;
use crate::network::Network;
use crate::uploader::SharedBooks;
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::DatasetId;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Finds a dataset's keys; `None` when they are not at hand.
pub type KeyLookup = Arc<dyn Fn(DatasetId) -> Option<DatasetKeys> + Send + Sync>;

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
    completions: Arc<Semaphore>,
}

impl Maintenance {
    /// Works on these books, through this network.
    #[must_use]
    pub fn new(books: SharedBooks, network: Arc<Network>, keys: KeyLookup) -> Maintenance {
        Maintenance { books, network, keys, completions: Arc::new(Semaphore::new(COMPLETIONS_MAX)) }
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

    /// Tells the network where providers were last reached.
    async fn learn_addresses<E: From<CatalogError> + From<StepError>>(&self) -> Result<(), E> {
        let providers = self.ask::<_, E>(|books| books.providers()).await?;
        self.network.learn(providers.iter().map(|p| (&p.profile.key, p.profile.address.as_str())));
        Ok(())
    }
}

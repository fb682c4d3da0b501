//! Keeps the books in step with the registry of providers, and the chain with the books' newest heads.

use super::{Maintenance, StepError};
use crate::pay::ChainError;
use crate::registry::Registries;
use crate::registry::discovery::{DiscoverError, Discovered};
use crate::registry::names::{NameError, Named};
use seedbank_formats::Timestamp;
use std::sync::Arc;

/// What became of the owner's names on the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NamesPublished {
    /// Datasets of which the chain has the newest head.
    pub current: u64,
    /// Heads that it was told of now.
    pub published: u64,
    /// Datasets that it could not be told of; the log says why.
    pub failed: u64,
}

impl Maintenance {
    /// Also finds providers in a chain's registry, and tells the chain of the owner's heads.
    #[must_use]
    pub fn registered(self, registries: Arc<Registries>) -> Maintenance {
        Maintenance { registries: Some(registries), ..self }
    }

    /// Looks at the registry of providers if that is due; `None` if not, or without a chain.
    ///
    /// # Errors
    /// [`DiscoverError`].
    pub async fn discover_providers(&self, now: Timestamp) -> Result<Option<Discovered>, DiscoverError> {
        match &self.registries {
            Some(registries) => registries.discover_if_due(&self.books, &self.network, now).await,
            None => Ok(None),
        }
    }

    /// Tells the chain of each head that it does not know yet.
    ///
    /// # Errors
    /// When the books can't be asked. A dataset that can't be named is logged, and the others go on.
    pub async fn publish_names(&self) -> Result<NamesPublished, StepError> {
        let mut names = NamesPublished::default();
        let Some(registries) = &self.registries else { return Ok(names) };
        for dataset in self.datasets().await? {
            let Some(keys) = (self.keys)(&dataset) else { continue };
            match registries.publish_name(&self.books, &dataset, &keys).await {
                Ok(Named::Published { sequence }) => {
                    tracing::info!(dataset = %dataset.id, sequence, "head published on the chain");
                    names.published += 1;
                }
                Ok(Named::Current) => names.current += 1,
                Ok(Named::Waits | Named::Unwanted) => {}
                Err(NameError::Catalog(error)) => return Err(error.into()),
                Err(NameError::Stopped) => return Err(StepError::Stopped),
                Err(error) => {
                    tracing::warn!(dataset = %dataset.id, %error, "head not published on the chain");
                    names.failed += 1;
                    // The others would fail of the same.
                    if matches!(
                        error,
                        NameError::Chain(ChainError::Unreachable(_) | ChainError::NoGas { .. })
                    ) {
                        break;
                    }
                }
            }
        }
        Ok(names)
    }
}

//! Sees to it that enough providers have each dataset's newest head.

use super::{Maintenance, StepError};
use crate::behind::{Silence, check_newest};
use crate::publish::{HEAD_COPIES_MAX, publish};
use crate::push::PushError;
use seedbank_catalog::Books;
use seedbank_formats::DatasetId;

impl Maintenance {
    /// Gives a dataset's newest head to providers that don't have it yet; says how many have it then.
    ///
    /// # Errors
    /// When the books can't be asked, or are an old copy.
    pub async fn publish_head(&self, dataset: DatasetId) -> Result<u64, PushError> {
        // Who has none yet would tell readers an old one.
        check_newest(&self.books, &self.network, dataset, Silence::Tolerated).await?;
        publish(&self.books, &self.network, dataset).await
    }

    /// Publishes every head that fewer providers have than could; says how many heads that were.
    ///
    /// # Errors
    /// When the books can't be asked.
    pub async fn publish_heads(&self) -> Result<u64, PushError> {
        let heads = self
            .ask::<_, PushError>(|books| {
                let providers = u32::try_from(books.providers()?.len()).unwrap_or(u32::MAX);
                books.pending_heads(providers.min(u32::try_from(HEAD_COPIES_MAX).expect("a small number")))
            })
            .await?;
        let mut published = 0;
        for head in heads {
            match self.publish_head(head.dataset).await {
                Ok(_copies) => published += 1,
                // The other datasets' heads may be published all the same.
                Err(PushError::Behind(error)) => {
                    tracing::error!(dataset = %head.dataset, %error, "head not published");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(published)
    }
}

impl From<StepError> for PushError {
    fn from(error: StepError) -> PushError {
        match error {
            StepError::Catalog(error) => PushError::Catalog(error),
            StepError::Stopped => PushError::Stopped,
        }
    }
}

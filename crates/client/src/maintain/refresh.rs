//! Writes a dataset's head anew when readers without the books would go wrong by the present one: fragments have moved,
//! or a version or ref is gone.

use super::complete::policy_of;
use super::{Maintenance, StepError};
use crate::behind::{Silence, check_newest};
use crate::commit::{Moved, rewrite};
use crate::dataset::index_folder;
use crate::lease::Lease;
use crate::push::{PushContext, PushError};
use crate::uploader::{Uploader, candidate};
use seedbank_catalog::index::Index;
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::DatasetId;
use seedbank_formats::checkpoint::RefKind;
use seedbank_formats::keys::SigningKey;
use seedbank_formats::segment::SegmentBuilder;
use std::path::PathBuf;
use std::sync::Arc;

/// What a step of refreshing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refreshed {
    /// Heads that were written.
    pub heads: u64,
    /// Datasets whose head could not be written now.
    pub failed: u64,
}

/// Why a head was not written. The present one stays.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// Do it where the owner's key, the dataset's key and its index are.
    #[error("dataset {0} can't be written here")]
    NotHere(DatasetId),
    /// The policy can't be read: set it anew.
    #[error("the policy of dataset {dataset} can't be read")]
    Policy {
        /// The dataset.
        dataset: DatasetId,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// As for a push.
    #[error(transparent)]
    Write(#[from] PushError),
}

impl From<CatalogError> for RefreshError {
    fn from(error: CatalogError) -> RefreshError {
        RefreshError::Write(error.into())
    }
}

impl From<StepError> for RefreshError {
    fn from(error: StepError) -> RefreshError {
        RefreshError::Write(error.into())
    }
}

/// A lease and what writes under it.
pub(super) struct Writing {
    pub(super) context: PushContext,
    pub(super) uploader: Arc<Uploader>,
    lease: Lease,
}

impl Maintenance {
    /// Writes the heads that are out of date.
    ///
    /// # Errors
    /// [`StepError`]. A head that can't be written is no error.
    pub async fn refresh_heads(&self) -> Result<Refreshed, StepError> {
        let stale = self.ask::<_, StepError>(|books| books.stale_heads()).await?;
        let mut refreshed = Refreshed::default();
        if !stale.is_empty() {
            self.learn_addresses::<StepError>().await?;
        }
        for dataset in stale {
            match self.refresh_head(dataset).await {
                Ok(()) => refreshed.heads += 1,
                Err(RefreshError::NotHere(_)) => {}
                Err(error) => {
                    tracing::warn!(%dataset, %error, "head not written");
                    refreshed.failed += 1;
                }
            }
        }
        Ok(refreshed)
    }

    /// Writes a dataset's head, with the pages of lists and placement map that have changed, and publishes it.
    ///
    /// # Errors
    /// [`RefreshError`].
    pub async fn refresh_head(&self, dataset: DatasetId) -> Result<(), RefreshError> {
        let writing = self.begin_writing(dataset, "head").await?;
        self.finish_writing(writing, &Moved::default(), None).await
    }

    /// Takes a lease on a dataset that is this owner's.
    pub(super) async fn begin_writing(
        &self,
        dataset: DatasetId,
        what: &str,
    ) -> Result<Writing, RefreshError> {
        let (record, keys) = self.dataset::<RefreshError>(dataset).await?;
        let not_here = || RefreshError::NotHere(dataset);
        let (keys, owner) = (keys.ok_or_else(not_here)?, self.owner.clone().ok_or_else(not_here)?);
        let index_dir = self.index_dir.clone().ok_or_else(not_here)?;
        if record.owner != owner.public() {
            return Err(not_here());
        }
        // A head of the books would take the newest one's place.
        let newest = check_newest(&self.books, &self.network, dataset, Silence::Refused).await;
        newest.map_err(PushError::from)?;
        let policy = policy_of(&record).map_err(|source| RefreshError::Policy { dataset, source })?;
        let text = format!("{what} of {} by process {}", record.name, std::process::id());
        let folder = index_folder(&index_dir, &dataset);
        let index = tokio::task::spawn_blocking(move || Index::open(&folder, dataset)).await;
        let index = Arc::new(index.map_err(|_ended| PushError::Stopped)?.map_err(PushError::from)?);
        let ask = move |books: &crate::SharedBooks| {
            let candidates: Vec<_> = books.providers()?.iter().map(candidate).collect();
            // A lease is taken on a branch, which nothing here moves.
            let branch = books.refs(dataset)?.into_iter().find(|found| found.kind == RefKind::Branch);
            let branch = branch.map_or_else(|| "main".to_owned(), |branch| branch.name);
            Ok((candidates, branch))
        };
        let (candidates, branch) = self.ask::<_, RefreshError>(ask).await?;
        let (books, network) = (Arc::clone(&self.books), Arc::clone(&self.network));
        let (lease, _parent) = Lease::begin(&books, &network, dataset, branch, text).await?;
        let uploader = Uploader::new(
            Arc::clone(&books),
            Arc::clone(&network),
            index,
            lease.id(),
            &keys,
            policy.clone(),
            candidates,
        );
        let uploader = Arc::new(uploader?);
        let context = PushContext {
            books,
            network,
            owner: SigningKey::from_seed(*owner.seed()),
            keys,
            dataset: record,
            policy,
            index_dir,
            // No files are read.
            cache_dir: PathBuf::new(),
        };
        Ok(Writing { context, uploader, lease })
    }

    /// Commits what was written, or ends the lease.
    pub(super) async fn finish_writing(
        &self,
        writing: Writing,
        moved: &Moved,
        metadata: Option<SegmentBuilder>,
    ) -> Result<(), RefreshError> {
        let sealed_bytes = rewrite(&writing.context, &writing.uploader, moved, metadata).await?;
        writing.lease.forget();
        tracing::info!(dataset = %writing.context.dataset.id, sealed_bytes, "head written");
        Ok(())
    }
}

//! A push's lease on its dataset: kept while the push runs, ended when it ends, however it ends.

use crate::claims::{self, PENDING_MARGIN_SECONDS};
use crate::network::{Network, wall_clock};
use crate::push::PushError;
use crate::uploader::{SharedBooks, ask};
use seedbank_catalog::Books;
use seedbank_catalog::records::{LeaseId, VersionRecord};
use seedbank_formats::DatasetId;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// A lease is renewed at every third of this, so that a push may stall for a while without losing it.
const HOLD_SECONDS: u64 = 30 * 60;

/// A running push's hold on the segments that it records and relies on. Dropping it ends it.
pub(crate) struct Lease {
    books: SharedBooks,
    id: LeaseId,
    keeper: Option<JoinSet<()>>,
}

impl Lease {
    /// Begins a push to a branch. Gives its lease and the branch's version.
    pub(crate) async fn begin(
        books: &SharedBooks,
        network: &Arc<Network>,
        dataset: DatasetId,
        branch: String,
        owner: String,
    ) -> Result<(Lease, Option<VersionRecord>), PushError> {
        let begin = move |books: &SharedBooks| books.begin_push(dataset, branch, owner, HOLD_SECONDS, 0);
        let begun = ask(books, begin).await?;
        let keeper = keep(books, network, dataset, begun.lease);
        let lease = Lease { books: Arc::clone(books), id: begun.lease, keeper: Some(keeper) };
        Ok((lease, begun.parent))
    }

    pub(crate) fn id(&self) -> LeaseId {
        self.id
    }

    /// A commit has ended it.
    pub(crate) fn forget(mut self) {
        self.keeper = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.keeper.take().is_some()
            && let Err(error) = self.books.end_push(self.id)
        {
            tracing::warn!(%error, "push lease not ended; it runs out by itself");
        }
    }
}

/// Renews the lease, and the claims on what is stored so far: a push may take longer than a pending claim lasts.
fn keep(books: &SharedBooks, network: &Arc<Network>, dataset: DatasetId, id: LeaseId) -> JoinSet<()> {
    let (books, network) = (Arc::clone(books), Arc::clone(network));
    let mut keeper = JoinSet::new();
    keeper.spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(HOLD_SECONDS / 3));
        ticks.tick().await;
        loop {
            ticks.tick().await;
            // The commit will say so if the lease is really lost.
            if let Err(error) = ask(&books, move |books| books.renew_lease(id, HOLD_SECONDS)).await {
                tracing::warn!(%error, "push lease not renewed");
            }
            let before = wall_clock().plus_seconds(PENDING_MARGIN_SECONDS);
            if let Err(error) = claims::renew_due(&books, &network, dataset, before).await {
                tracing::warn!(%error, "claims of the push not renewed");
            }
        }
    });
    keeper
}

//! `/healthz` and `/metrics` for the owner's own tools, over plain HTTP on a loopback address.

use crate::metrics::Metrics;
use http::StatusCode;
use seedbank_catalog::{Books, CatalogError};
use seedbank_client::SharedBooks;
use seedbank_transport::{Page, Pages};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Books that don't answer in this time are not healthy.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Rows counted for a gauge: whoever sees this number knows that it is many.
const COUNTED_MAX: u32 = 10_000;

/// What the two pages are made from.
pub(crate) struct Monitor {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) books: SharedBooks,
}

impl Pages for Monitor {
    async fn page(&self, path: &str) -> Option<Page> {
        match path {
            "/healthz" => Some(match self.refresh().await {
                Ok(()) => Page::text(StatusCode::OK, "ok\n"),
                Err(reason) => Page::text(StatusCode::SERVICE_UNAVAILABLE, format!("books: {reason}\n")),
            }),
            "/metrics" => {
                if let Err(reason) = self.refresh().await {
                    tracing::warn!(%reason, "books not counted");
                }
                Some(Page::metrics(self.metrics.encode()))
            }
            _ => None,
        }
    }
}

impl Monitor {
    /// Counts in the books. What fails here is why the steward is not healthy.
    async fn refresh(&self) -> Result<(), String> {
        let (books, metrics) = (Arc::clone(&self.books), Arc::clone(&self.metrics));
        let counted = tokio::task::spawn_blocking(move || {
            metrics.datasets.set(books.datasets()?.len() as u64);
            metrics.providers.set(books.providers()?.len() as u64);
            metrics.jobs_waiting.set(books.jobs(COUNTED_MAX)?.len() as u64);
            metrics.fragments_missing.set(books.missing_fragments(None, COUNTED_MAX)?.len() as u64);
            Ok::<_, CatalogError>(())
        });
        match timeout(ANSWER_WITHIN, counted).await {
            Ok(Ok(counted)) => counted.map_err(|error| error.to_string()),
            Ok(Err(_panicked)) => Err("a request failed inside".to_owned()),
            Err(_late) => Err("no answer in time".to_owned()),
        }
    }
}

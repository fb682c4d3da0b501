//! `/healthz` and `/metrics` for the operator's own tools, over plain HTTP on a loopback address.

use crate::gate::Gate;
use crate::metrics::Metrics;
use crate::money::{Health, Money};
use http::StatusCode;
use seedbank_store::Store;
use seedbank_transport::{Page, Pages};
use std::sync::Arc;

/// What the two pages are made from.
#[derive(Clone)]
pub(crate) struct Monitor {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) store: Arc<Store>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) money: Option<Arc<Money>>,
}

impl Pages for Monitor {
    async fn page(&self, path: &str) -> Option<Page> {
        match path {
            "/healthz" => Some(match self.gate.closed_because(&self.store) {
                None => match self.money.as_ref().map_or(Health::Well, |money| money.health.now()) {
                    Health::Well => Page::text(StatusCode::OK, "ok\n"),
                    Health::Degraded(why) => Page::text(StatusCode::OK, format!("degraded: {why}\n")),
                    Health::Failing(why) => {
                        Page::text(StatusCode::SERVICE_UNAVAILABLE, format!("failing: {why}\n"))
                    }
                },
                Some(reason) => Page::text(StatusCode::SERVICE_UNAVAILABLE, format!("read-only: {reason}\n")),
            }),
            "/metrics" => {
                // Free space is asked of the file system, which may block.
                let monitor = self.clone();
                let text = tokio::task::spawn_blocking(move || {
                    monitor.refresh();
                    monitor.metrics.encode()
                });
                Some(match text.await {
                    Ok(text) => Page::metrics(text),
                    Err(error) => {
                        tracing::error!(%error, "metrics failed");
                        Page::text(StatusCode::INTERNAL_SERVER_ERROR, "")
                    }
                })
            }
            _ => None,
        }
    }
}

impl Monitor {
    fn refresh(&self) {
        self.metrics.read_only.set(u64::from(self.gate.closed_because(&self.store).is_some()));
        if let Ok(usage) = self.store.usage() {
            self.metrics.store.set(&usage);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Monitor;
    use crate::metrics::Metrics;
    use seedbank_store::testing::MemDisk;
    use seedbank_store::{Config, Store, StoreId};
    use seedbank_transport::Pages;
    use std::sync::Arc;

    async fn page(monitor: &Monitor, path: &str) -> (u16, String) {
        let page = monitor.page(path).await.unwrap();
        (page.status.as_u16(), page.text)
    }

    #[tokio::test]
    async fn read_only_provider_is_not_healthy_and_says_why() {
        let (disk, id) = (MemDisk::default(), StoreId([1; 32]));
        Store::create(&disk, id).unwrap();
        let monitor = Monitor {
            metrics: Arc::new(Metrics::new()),
            store: Arc::new(Store::open(Arc::new(disk), Config::new(id, 1 << 30)).unwrap()),
            gate: Arc::default(),
            money: None,
        };
        assert_eq!(page(&monitor, "/healthz").await, (200, "ok\n".to_owned()));
        monitor.gate.close("the disk hangs");
        let expected = (503, "read-only: the disk hangs\n".to_owned());
        assert_eq!(page(&monitor, "/healthz").await, expected);
        assert!(page(&monitor, "/metrics").await.1.contains("seedbank_provider_read_only 1\n"));
        monitor.gate.open();
        assert_eq!(page(&monitor, "/healthz").await.0, 200);
        monitor.store.stop_writing("the disk fails");
        assert_eq!(page(&monitor, "/healthz").await.0, 503);
        assert_eq!(monitor.page("/").await, None);
    }
}

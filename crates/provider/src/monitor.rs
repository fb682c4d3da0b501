//! `/healthz` and `/metrics` for the operator's own tools, over plain HTTP on a loopback address.

use crate::gate::Gate;
use crate::metrics::Metrics;
use crate::upkeep::{Stop, stopped};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use seedbank_store::Store;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A few scrapers; more are a mistake.
const CONNECTIONS_MAX: usize = 16;
/// Scrapers reconnect; idle connections are not kept for them.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// However long a scraper takes, its connection ends then.
const CONNECTION_WITHIN: Duration = Duration::from_secs(60);
/// Out of file descriptors, an accept fails at once and again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the two pages are made from.
pub(crate) struct Monitor {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) store: Arc<Store>,
    pub(crate) gate: Arc<Gate>,
}

impl Monitor {
    /// Serves until `stop` turns true, or its sender is gone.
    pub(crate) async fn serve(self, listener: TcpListener, mut stop: Stop) {
        let monitor = Arc::new(self);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                Some(_ended) = connections.join_next() => {}
                accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(timeout(CONNECTION_WITHIN, Arc::clone(&monitor).connection(stream)));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accept failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        connections.shutdown().await;
    }

    async fn connection(self: Arc<Monitor>, stream: TcpStream) {
        let service = service_fn(|request| {
            let monitor = Arc::clone(&self);
            async move { Ok::<_, Infallible>(monitor.answer(&request).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_WITHIN)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "monitoring connection ended");
        }
    }

    async fn answer<B>(self: Arc<Monitor>, request: &Request<B>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz") => match self.gate.closed_because(&self.store) {
                None => page(StatusCode::OK, "text/plain; charset=utf-8", "ok\n".to_owned()),
                Some(reason) => {
                    let text = format!("read-only: {reason}\n");
                    page(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", text)
                }
            },
            (&Method::GET, "/metrics") => {
                // Free space is asked of the file system, which may block.
                let text = tokio::task::spawn_blocking(move || {
                    self.refresh();
                    self.metrics.encode()
                });
                match text.await {
                    Ok(text) => {
                        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                        page(StatusCode::OK, kind, text)
                    }
                    Err(error) => {
                        tracing::error!(%error, "metrics failed");
                        page(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", String::new())
                    }
                }
            }
            (&Method::GET, _) => {
                page(StatusCode::NOT_FOUND, "text/plain", "/healthz or /metrics\n".to_owned())
            }
            _ => page(StatusCode::METHOD_NOT_ALLOWED, "text/plain", String::new()),
        }
    }

    fn refresh(&self) {
        self.metrics.read_only.set(u64::from(self.gate.closed_because(&self.store).is_some()));
        if let Ok(usage) = self.store.usage() {
            self.metrics.store.set(&usage);
        }
    }
}

fn page(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::Monitor;
    use crate::metrics::Metrics;
    use http::{Method, Request};
    use http_body_util::BodyExt;
    use seedbank_store::testing::MemDisk;
    use seedbank_store::{Config, Store, StoreId};
    use std::sync::Arc;

    async fn page(monitor: &Arc<Monitor>, method: Method, path: &str) -> (u16, String) {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let (head, body) = Arc::clone(monitor).answer(&request).await.into_parts();
        let text = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), String::from_utf8(text.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn read_only_provider_is_not_healthy_and_says_why() {
        let (disk, id) = (MemDisk::default(), StoreId([1; 32]));
        Store::create(&disk, id).unwrap();
        let monitor = Arc::new(Monitor {
            metrics: Arc::new(Metrics::new()),
            store: Arc::new(Store::open(Arc::new(disk), Config::new(id, 1 << 30)).unwrap()),
            gate: Arc::default(),
        });
        assert_eq!(page(&monitor, Method::GET, "/healthz").await, (200, "ok\n".to_owned()));
        monitor.gate.close("the disk hangs");
        let expected = (503, "read-only: the disk hangs\n".to_owned());
        assert_eq!(page(&monitor, Method::GET, "/healthz").await, expected);
        assert!(page(&monitor, Method::GET, "/metrics").await.1.contains("seedbank_provider_read_only 1\n"));
        monitor.gate.open();
        assert_eq!(page(&monitor, Method::GET, "/healthz").await.0, 200);
        monitor.store.stop_writing("the disk fails");
        assert_eq!(page(&monitor, Method::GET, "/healthz").await.0, 503);
        assert_eq!(page(&monitor, Method::POST, "/metrics").await.0, 405);
        assert_eq!(page(&monitor, Method::GET, "/").await.0, 404);
    }
}

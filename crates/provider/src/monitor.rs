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

//! `/healthz` and `/metrics` for the owner's own tools, over plain HTTP on a loopback address.

use crate::metrics::Metrics;
use crate::run::{Stop, stopped};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use seedbank_catalog::{Books, CatalogError};
use seedbank_client::SharedBooks;
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
/// Books that don't answer in this time are not healthy.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Out of file descriptors, an accept fails at once and again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Rows counted for a gauge: whoever sees this number knows that it is many.
const COUNTED_MAX: u32 = 10_000;

/// What the two pages are made from.
pub(crate) struct Monitor {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) books: SharedBooks,
}

impl Monitor {
    /// Serves until the steward stops.
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
        const TEXT: &str = "text/plain; charset=utf-8";
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz") => match self.refresh().await {
                Ok(()) => page(StatusCode::OK, TEXT, "ok\n".to_owned()),
                Err(reason) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("books: {reason}\n")),
            },
            (&Method::GET, "/metrics") => {
                if let Err(reason) = self.refresh().await {
                    tracing::warn!(%reason, "books not counted");
                }
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                page(StatusCode::OK, kind, self.metrics.encode())
            }
            (&Method::GET, _) => page(StatusCode::NOT_FOUND, TEXT, "/healthz or /metrics\n".to_owned()),
            _ => page(StatusCode::METHOD_NOT_ALLOWED, TEXT, String::new()),
        }
    }

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

fn page(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

//! A few pages for the operator's own tools, over plain HTTP on an address that only they reach.

use crate::server::ACCEPT_PAUSE;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// A few scrapers; more are a mistake.
const CONNECTIONS_MAX: usize = 16;
/// Scrapers reconnect; idle connections are not kept for them.
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
/// However long a scraper takes, its connection ends then.
const CONNECTION_WITHIN: Duration = Duration::from_secs(60);

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// HTTP's word for how it went.
    pub status: StatusCode,
    /// Its content type.
    pub kind: &'static str,
    /// What stands on it.
    pub text: String,
}

impl Page {
    /// A page of plain text.
    #[must_use]
    pub fn text(status: StatusCode, text: impl Into<String>) -> Page {
        Page { status, kind: "text/plain; charset=utf-8", text: text.into() }
    }

    /// Metrics as Prometheus reads them.
    #[must_use]
    pub fn metrics(text: String) -> Page {
        Page {
            status: StatusCode::OK,
            kind: "application/openmetrics-text; version=1.0.0; charset=utf-8",
            text,
        }
    }
}

/// Makes pages.
pub trait Pages: Send + Sync + 'static {
    /// The page at a path; `None` when there is none.
    fn page(&self, path: &str) -> impl Future<Output = Option<Page>> + Send;
}

/// Serves pages until `stop` is over.
pub async fn serve_pages(listener: TcpListener, pages: impl Pages, stop: impl Future<Output = ()>) {
    let pages = Arc::new(pages);
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(timeout(CONNECTION_WITHIN, connection(Arc::clone(&pages), stream)));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn connection<P: Pages>(pages: Arc<P>, stream: TcpStream) {
    let service = service_fn(|request| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(answer(&*pages, &request).await) }
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

async fn answer<P: Pages, B>(pages: &P, request: &Request<B>) -> Response<Full<Bytes>> {
    let page = if request.method() == Method::GET {
        pages.page(request.uri().path()).await
    } else {
        Some(Page::text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"))
    };
    let page = page.unwrap_or_else(|| Page::text(StatusCode::NOT_FOUND, "/healthz or /metrics\n"));
    let mut response = Response::new(Full::new(Bytes::from(page.text)));
    *response.status_mut() = page.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(page.kind));
    response
}

#[cfg(test)]
mod tests {
    use super::{Page, Pages, answer, serve_pages};
    use http::{Method, Request, StatusCode};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::oneshot;

    struct One;

    impl Pages for One {
        async fn page(&self, path: &str) -> Option<Page> {
            (path == "/healthz").then(|| Page::text(StatusCode::OK, "ok\n"))
        }
    }

    #[tokio::test]
    async fn only_what_is_there_is_given_and_only_read() {
        for (method, path, expected) in
            [(Method::GET, "/healthz", 200), (Method::GET, "/", 404), (Method::POST, "/healthz", 405)]
        {
            let request = Request::builder().method(method).uri(path).body(()).unwrap();
            assert_eq!(answer(&One, &request).await.status().as_u16(), expected);
        }
    }

    #[tokio::test]
    async fn pages_are_served_until_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(serve_pages(listener, One, async {
            let _ = stopped.await;
        }));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\n\r\nok\n"), "{text}");
        stop.send(()).unwrap();
        serving.await.unwrap();
    }
}

//! JSON-RPC over HTTP/1.1: bodies in, bodies out, and who may connect.
//!
//! A web page in a browser on this machine can send requests here as well. It can't name JSON as its content type without
//! asking first, which is not granted, and it can't be served under a name of its own: only addresses and `localhost` are
//! taken for a host.

use crate::node::{Node, Stopped};
use crate::rpc;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// A caller that keeps a connection open without asking is let go; it connects again when it wants something.
const IDLE: Duration = Duration::from_secs(120);
/// The longest body at a megabit a second.
const BODY_WITHIN: Duration = Duration::from_secs(20);
/// Requests in flight have this long when the node is told to end: a commit, or a long call.
const GRACE: Duration = Duration::from_secs(5);
/// When the system has no descriptors left, asking again at once helps nobody.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Node {
    /// Serves the chain on a listener until `stop` is over, then ends in order.
    ///
    /// # Errors
    /// The chain stopped by itself.
    pub async fn serve(&self, listener: TcpListener, stop: impl Future<Output = ()>) -> Result<(), Stopped> {
        let local_only = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let hosts = if local_only { Hosts::Local } else { Hosts::Any };
        let (ending, ended) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        let outcome = loop {
            tokio::select! {
                biased;
                () = &mut stop => break Ok(()),
                why = self.stopped() => break Err(why),
                Some(_ended) = connections.join_next() => {}
                accepted = listener.accept(), if connections.len() < self.inner.limits.connections_max => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(self.connection(stream, hosts, ended.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accept failed");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        };
        drop(listener);
        ending.send_replace(true);
        let all_done = timeout(GRACE, async { while connections.join_next().await.is_some() {} });
        if all_done.await.is_err() {
            connections.shutdown().await;
        }
        outcome
    }

    fn connection(
        &self,
        stream: TcpStream,
        hosts: Hosts,
        mut ended: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let node = Arc::clone(&self.inner);
        async move {
            // A round trip is two small packets; neither may wait for the other.
            let _slower = stream.set_nodelay(true);
            let service = service_fn(move |request| {
                let node = Arc::clone(&node);
                async move { Ok::<_, Infallible>(respond(&node, hosts, request).await) }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE)
                .serve_connection(TokioIo::new(stream), service);
            let mut serving = std::pin::pin!(serving);
            let served = tokio::select! {
                served = &mut serving => served,
                () = told_to_end(&mut ended) => {
                    serving.as_mut().graceful_shutdown();
                    serving.await
                }
            };
            if let Err(error) = served {
                tracing::debug!(%error, "connection ended");
            }
        }
    }
}

async fn told_to_end(ended: &mut watch::Receiver<bool>) {
    // If nobody can tell any more, that is the end as well.
    let _told = ended.wait_for(|ended| *ended).await;
}

/// Which names a request may be made under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hosts {
    /// Addresses and `localhost`: whoever comes by another name was sent by a web page.
    Local,
    /// The listener was opened to the network, and whatever name it has there.
    Any,
}

async fn respond(
    node: &Arc<crate::node::Inner>,
    hosts: Hosts,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    if request.method() != Method::POST {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "JSON-RPC is asked with POST\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    if hosts == Hosts::Local && !is_local(request.headers()) {
        return plain(StatusCode::FORBIDDEN, "this node is called by its address or as localhost\n");
    }
    if !is_json(request.headers()) {
        return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type is application/json\n");
    }
    let bytes_max = node.limits.body_bytes_max;
    let body = timeout(BODY_WITHIN, Limited::new(request.into_body(), bytes_max).collect()).await;
    match body {
        Ok(Ok(body)) => json(StatusCode::OK, rpc::answer(node, &body.to_bytes()).await),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            json(StatusCode::PAYLOAD_TOO_LARGE, rpc::too_large(bytes_max))
        }
        Ok(Err(_)) => plain(StatusCode::BAD_REQUEST, "the body broke off\n"),
        Err(_) => plain(StatusCode::REQUEST_TIMEOUT, "the body took too long\n"),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

fn is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::{is_json, is_local};
    use http::HeaderMap;
    use http::header::{CONTENT_TYPE, HOST};

    #[test]
    fn only_addresses_and_localhost_are_local() {
        let host = |name: &str| HeaderMap::from_iter([(HOST, name.parse().unwrap())]);
        for name in ["127.0.0.1:7405", "127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:7405", "[::1]"] {
            assert!(is_local(&host(name)), "{name}");
        }
        for name in ["example.com", "example.com:7405", "127.0.0.1.example.com", "localhost.example.com", ""]
        {
            assert!(!is_local(&host(name)), "{name}");
        }
        assert!(!is_local(&HeaderMap::new()));
    }

    #[test]
    fn only_json_is_json() {
        let kind = |kind: &str| HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().unwrap())]);
        assert!(is_json(&kind("application/json")) && is_json(&kind("Application/JSON; charset=utf-8")));
        assert!(
            !is_json(&kind("text/plain"))
                && !is_json(&kind("application/jsonp"))
                && !is_json(&HeaderMap::new())
        );
    }
}

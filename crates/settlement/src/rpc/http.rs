//! HTTP/1.1 connections to one endpoint, kept open between questions.

use super::{EndpointFault, EndpointUrl, Scheme};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

/// An answer of logs is the largest there is; ranges are halved when one doesn't fit.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Questions in parallel are few; more idle connections than this would only keep the endpoint's sockets busy.
const IDLE_MAX: usize = 8;

/// A connection and the task that drives it, which ends with it.
struct Connection {
    send: SendRequest<Full<Bytes>>,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Connections to one endpoint.
pub(super) struct Connections {
    host: String,
    port: u16,
    /// As requests say it: without the port where that is the usual one.
    authority: String,
    path: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Mutex<Vec<Connection>>,
}

impl Connections {
    /// For `https` the system's certificate authorities are loaded here, once.
    pub(super) fn to(url: &EndpointUrl) -> Result<Self, io::Error> {
        let host = url.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = match url.scheme {
            Scheme::Http => None,
            Scheme::Https => {
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                Some((connector()?, name))
            }
        };
        let authority = match (url.scheme, url.port) {
            (Scheme::Http, 80) | (Scheme::Https, 443) => url.host.clone(),
            (_, port) => format!("{}:{port}", url.host),
        };
        let (port, path) = (url.port, url.path.clone());
        Ok(Self { host, port, authority, path, tls, idle: Mutex::new(Vec::new()) })
    }

    /// Posts one body and reads the whole answer.
    pub(super) async fn post(&self, body: Bytes) -> Result<Bytes, EndpointFault> {
        // An idle connection may have been closed by the other side meanwhile, which only shows when it is used. Every question of ours may
        // be asked twice: reads change nothing, and a signed transaction is the same transaction.
        while let Some(mut connection) = self.take_idle() {
            if let Ok(answer) = exchange(&mut connection, self.request(body.clone())).await {
                return self.finish(connection, answer);
            }
        }
        let mut connection = self.connect().await.map_err(EndpointFault::Unreachable)?;
        let answer = exchange(&mut connection, self.request(body))
            .await
            .map_err(|error| EndpointFault::Unreachable(io::Error::other(error)))?;
        self.finish(connection, answer)
    }

    fn finish(
        &self,
        connection: Connection,
        (status, body): (StatusCode, Bytes),
    ) -> Result<Bytes, EndpointFault> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX && !connection.send.is_closed() {
            idle.push(connection);
        }
        // Some nodes put JSON-RPC errors under an HTTP error status: their body says more than the status.
        if !status.is_success() && !body.starts_with(b"{") {
            return Err(EndpointFault::Garbled(format!("HTTP status {status}")));
        }
        Ok(body)
    }

    fn take_idle(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn request(&self, body: Bytes) -> Request<Full<Bytes>> {
        Request::builder()
            .method(Method::POST)
            .uri(&self.path)
            .header(HOST, &self.authority)
            // Public endpoints behind a content network turn away who doesn't say.
            .header(USER_AGENT, "seedbank")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .expect("host and path were parsed from a URI")
    }

    async fn connect(&self) -> Result<Connection, io::Error> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => handshake(TokioIo::new(stream)).await,
            Some((connector, name)) => {
                handshake(TokioIo::new(connector.connect(name.clone(), stream).await?)).await
            }
        }
    }
}

async fn handshake<S>(stream: S) -> Result<Connection, io::Error>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (send, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
    let driver = tokio::spawn(async move {
        // Its error is also that of the request in flight, where it is reported.
        drop(connection.await);
    });
    Ok(Connection { send, driver: driver.abort_handle() })
}

async fn exchange(
    connection: &mut Connection,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    connection.send.ready().await?;
    let response = connection.send.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
    Ok((status, body))
}

fn connector() -> Result<TlsConnector, io::Error> {
    let mut roots = RootCertStore::empty();
    // One unreadable file among the system's certificates is no reason to stop; having none at all is.
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        return Err(io::Error::other("this system has no certificate authorities: install ca-certificates"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

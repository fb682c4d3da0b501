//! JSON-RPC to one endpoint: a question, an answer, a deadline.
//!
//! What an endpoint says is not believed here beyond its shape. Which endpoint is asked, and what happens when one fails,
//! is [`crate::endpoints`]'s.

mod http;
mod wire;

pub(crate) use wire::{Block, Log, Receipt};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::timeout;

/// Where a JSON-RPC endpoint is.
///
/// Shown without its path: providers of endpoints put the caller's secret there.
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointUrl {
    scheme: Scheme,
    host: String,
    port: u16,
    path: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// Correct the address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the address of an endpoint: it has the form http://HOST:PORT/PATH or https://HOST/PATH")]
pub struct EndpointUrlError;

impl std::str::FromStr for EndpointUrl {
    type Err = EndpointUrlError;

    fn from_str(text: &str) -> Result<Self, EndpointUrlError> {
        let uri: ::http::Uri = text.parse().map_err(|_| EndpointUrlError)?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err(EndpointUrlError),
        };
        let authority = uri.authority().ok_or(EndpointUrlError)?;
        // A name and password would be dropped without a word.
        if authority.as_str().contains('@') {
            return Err(EndpointUrlError);
        }
        let port = uri.port_u16().unwrap_or(match scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { scheme, host: authority.host().to_owned(), port, path })
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointUrl({self})")
    }
}

/// What an endpoint answered instead of a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Deserialize)]
#[error("{message} (code {code})")]
pub struct RpcError {
    /// The JSON-RPC code; endpoints agree on few of them.
    pub code: i64,
    /// The endpoint's words.
    pub message: String,
    /// What a contract reverted with, where the endpoint passes it on.
    #[serde(default)]
    pub data: Option<Value>,
}

/// Why one endpoint gave no result.
#[derive(Debug, thiserror::Error)]
pub enum EndpointFault {
    /// No connection, or it broke. Ask another endpoint.
    #[error("no connection")]
    Unreachable(#[source] std::io::Error),
    /// Connected or not, it did not answer in time. Ask another endpoint.
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
    /// It answers, but not with JSON-RPC: overloaded, blocked, or something else listens there. Ask another endpoint.
    #[error("an answer that is no JSON-RPC: {0}")]
    Garbled(String),
    /// It answered with an error: about the question, or about itself.
    #[error("refused: {0}")]
    Refused(RpcError),
    /// Its head is behind what another endpoint has shown. Ask another endpoint, or wait.
    #[error("behind: its newest block is {head}, and {wanted} was seen")]
    Behind {
        /// Its newest block.
        head: u64,
        /// The block that must be known.
        wanted: u64,
    },
    /// It serves another chain, or other contracts than those that were expected. Remove it from the configuration.
    #[error("not the expected chain: {0}")]
    WrongChain(String),
}

/// One endpoint.
pub(crate) struct Endpoint {
    url: EndpointUrl,
    connections: http::Connections,
    deadline: Duration,
    next_id: AtomicU64,
}

impl Endpoint {
    /// Nothing is connected yet.
    pub(crate) fn new(url: EndpointUrl, deadline: Duration) -> Result<Self, std::io::Error> {
        let connections = http::Connections::to(&url)?;
        Ok(Self { url, connections, deadline, next_id: AtomicU64::new(1) })
    }

    pub(crate) fn url(&self) -> &EndpointUrl {
        &self.url
    }

    /// Asks once. The deadline holds for all of it: connecting, sending, and reading the whole answer.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        params: &Value,
    ) -> Result<T, EndpointFault> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let question = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        // On the heap: connecting with TLS makes a large future, which is part of every future that asks anything.
        let exchange = Box::pin(self.connections.post(question.to_string().into()));
        let body =
            timeout(self.deadline, exchange).await.map_err(|_| EndpointFault::Silent(self.deadline))??;
        parse(&body, id)
    }
}

#[derive(Deserialize)]
struct Answer {
    id: Option<u64>,
    result: Option<Value>,
    error: Option<RpcError>,
}

fn parse<T: DeserializeOwned>(body: &[u8], id: u64) -> Result<T, EndpointFault> {
    let garbled = |error: serde_json::Error| EndpointFault::Garbled(error.to_string());
    let answer: Answer = serde_json::from_slice(body).map_err(garbled)?;
    if let Some(error) = answer.error {
        return Err(EndpointFault::Refused(error));
    }
    if answer.id != Some(id) {
        return Err(EndpointFault::Garbled("the answer to another question".to_owned()));
    }
    // `result: null` is an answer ("no such block"), and deserialises to `None` where the caller expects that.
    serde_json::from_value(answer.result.unwrap_or(Value::Null)).map_err(garbled)
}

//! The node that is followed: asking it for its beginning and its blocks over plain HTTP.
//!
//! Nothing that it says is believed here; [`crate::follower`] checks it. There is no encryption: what is carried is public
//! and signed. Through a network that is not to know who follows, use a tunnel.

use alloy_primitives::Bytes;
use bytes::Buf;
use http::header::{CONTENT_TYPE, HOST};
use http::uri::Scheme;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A whole answer at a few megabits a second.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Twice what a node puts into one answer.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Where a chain is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leader {
    authority: String,
    uri: Uri,
}

/// What it did not tell. Asking again later may help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskLeaderError {
    /// The text is no URL that can be asked.
    #[error("{0:?} is not of the form http://HOST:PORT")]
    Url(String),
    /// It can't be reached, or broke off.
    #[error("{0} does not answer: {1}")]
    Unreachable(String, String),
    /// It is something else than a node of this kind, or refuses.
    #[error("{0} gave no usable answer: {1}")]
    Answer(String, String),
}

/// A block as it is handed on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct RawBlock {
    pub(crate) header: Bytes,
    pub(crate) transaction: Option<Bytes>,
}

impl Leader {
    pub(crate) fn new(url: &str) -> Result<Leader, AskLeaderError> {
        let wrong = || AskLeaderError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().filter(|_| uri.scheme() == Some(&Scheme::HTTP)).ok_or_else(wrong)?;
        let port = authority.port_u16().unwrap_or(80);
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(wrong());
        }
        Ok(Leader { authority: format!("{}:{port}", authority.host()), uri })
    }

    /// Asks one thing.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        params: Value,
    ) -> Result<T, AskLeaderError> {
        let asked = timeout(ANSWER_WITHIN, self.exchange(method, params)).await;
        asked.unwrap_or_else(|_| Err(self.unreachable(&"it takes too long")))
    }

    async fn exchange<T: DeserializeOwned>(&self, method: &str, params: Value) -> Result<T, AskLeaderError> {
        let stream = TcpStream::connect(&self.authority).await.map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.unreachable(&error))?;
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let request = Request::post(self.uri.path())
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(bytes::Bytes::from(body)))
            .map_err(|error| self.unreachable(&error))?;
        // With the answer the sender is dropped, and with it the connection ends.
        let asking = async move {
            let response = sender.send_request(request).await.map_err(|error| self.unreachable(&error))?;
            let limited = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            limited.map_err(|error| self.unreachable(&error))
        };
        // How the connection ended shows in the answer.
        let (body, _ended) = tokio::join!(asking, connection);
        let body = body?;
        let mut answer: Value = serde_json::from_reader(body.aggregate().reader())
            .map_err(|error| AskLeaderError::Answer(self.authority.clone(), error.to_string()))?;
        if let Some(error) = answer.get("error") {
            return Err(AskLeaderError::Answer(self.authority.clone(), error.to_string()));
        }
        serde_json::from_value(answer["result"].take())
            .map_err(|error| AskLeaderError::Answer(self.authority.clone(), error.to_string()))
    }

    fn unreachable(&self, why: &dyn std::fmt::Display) -> AskLeaderError {
        AskLeaderError::Unreachable(self.authority.clone(), why.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::Leader;

    #[test]
    fn only_plain_http_urls_are_taken() {
        for url in
            ["http://127.0.0.1:7405", "http://chain.example:1/", "http://[::1]:7405", "http://chain.example"]
        {
            assert!(Leader::new(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "127.0.0.1:7405",
            "https://127.0.0.1:7405",
            "http://",
            "http://a@b:1",
            "ftp://a:1",
            "http:// b",
        ] {
            assert!(Leader::new(url).is_err(), "{url}");
        }
        assert_eq!(Leader::new("http://chain.example").unwrap().authority, "chain.example:80");
    }
}

//! How a byte stream to a peer comes about. TLS and HTTP sit on any stream, so a dialler that punches holes or goes
//! through relays can take the place of plain TCP.

use seedbank_formats::PublicKey;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::str::FromStr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A peer: its key, and where it was last known to listen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct PeerAddress {
    /// Who it is.
    pub key: PublicKey,
    /// A hint: `host:port`, or what the dialler in use understands.
    pub address: String,
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}@{}", self.key, self.address)
    }
}

/// A text is not `KEY@HOST:PORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a peer address: expected KEY@HOST:PORT, where KEY is 64 hex digits")]
pub struct PeerAddressError;

impl FromStr for PeerAddress {
    type Err = PeerAddressError;

    fn from_str(text: &str) -> Result<PeerAddress, PeerAddressError> {
        let (key, address) = text.split_once('@').ok_or(PeerAddressError)?;
        let key = key.parse().map_err(|_| PeerAddressError)?;
        if address.is_empty() || address.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
            return Err(PeerAddressError);
        }
        Ok(PeerAddress { key, address: address.to_owned() })
    }
}

/// Any two-way stream of bytes.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream, whatever is beneath.
pub type BoxedStream = Box<dyn Stream>;

/// A stream on its way.
pub type DialFuture<'a> = Pin<Box<dyn Future<Output = io::Result<BoxedStream>> + Send + 'a>>;

/// Opens byte streams to peers. Who answers is proven above, by TLS.
pub trait Dial: Send + Sync + 'static {
    /// Opens a stream to where `peer` may be. The caller sets the deadline.
    fn dial<'a>(&'a self, peer: &'a PeerAddress) -> DialFuture<'a>;
}

/// Dials `host:port` over TCP.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpDial;

impl Dial for TcpDial {
    fn dial<'a>(&'a self, peer: &'a PeerAddress) -> DialFuture<'a> {
        Box::pin(async move {
            let stream = TcpStream::connect(&peer.address).await?;
            // Small requests must not wait for the acknowledgement of earlier ones.
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxedStream)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{PeerAddress, PeerAddressError};
    use seedbank_formats::PublicKey;

    #[test]
    fn peer_addresses_read_back() {
        let peer = PeerAddress { key: PublicKey([0xab; 32]), address: "[::1]:7410".to_owned() };
        assert_eq!(peer.to_string().parse(), Ok(peer));
        for refused in ["", "localhost:1", "zz@localhost:1", &format!("{}@", PublicKey([1; 32]))] {
            assert_eq!(refused.parse::<PeerAddress>(), Err(PeerAddressError), "{refused}");
        }
    }
}

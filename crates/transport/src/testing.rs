//! Proven streams without HTTP, for tests of peers that speak valid transport and anything at all above it.

use crate::dial::{BoxedStream, PeerAddress};
use crate::identity::Identity;
use crate::tls;
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connects to `peer` from this address of ours, without saying anything yet.
///
/// # Errors
/// The system's, or that `peer` has no IP address.
pub async fn dial_from(from: IpAddr, peer: &PeerAddress) -> io::Result<TcpStream> {
    let to: SocketAddr = peer.address.parse().map_err(io::Error::other)?;
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(from, 0))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A stream on which both ends have proven their keys.
///
/// # Errors
/// As [`dial_from`], and what fails in the handshake.
pub async fn connect_from(from: IpAddr, identity: &Identity, peer: &PeerAddress) -> io::Result<BoxedStream> {
    let stream = dial_from(from, peer).await?;
    Ok(Box::new(tls::connect(tls::client_config(identity, peer.key), stream).await?))
}

/// The next client's stream, when it has proven its key.
///
/// # Errors
/// What fails in the handshake.
pub async fn accept(identity: &Identity, listener: &TcpListener) -> io::Result<BoxedStream> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(tls::accept(tls::server_config(identity), stream).await?))
}

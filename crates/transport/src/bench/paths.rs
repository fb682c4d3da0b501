//! The three ways that bytes go: both ends of each.

use super::{Flow, TRANSFER_BYTES, Transport, identities};
use crate::body::Body;
use crate::client::{AnswerMax, Client, ClientLimits};
use crate::dial::{PeerAddress, TcpDial};
use crate::server::{Call, Handler, Server, ServerLimits};
use crate::tls;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Reads and writes of a raw stream: the same as our frames.
const PIECE_BYTES: usize = crate::FRAME_BYTES;

/// A client's end that can be asked to move so many bytes.
pub(super) trait Exchange: Send + Sized + 'static {
    /// Takes so many bytes.
    fn fetch(&mut self, bytes: u64) -> impl Future<Output = io::Result<()>> + Send;
    /// Gives so many bytes and waits until the server says that it has them.
    fn give(&mut self, bytes: u64) -> impl Future<Output = io::Result<()>> + Send;

    /// One of the two.
    fn transfer(&mut self, flow: Flow, bytes: u64) -> impl Future<Output = io::Result<()>> + Send {
        async move {
            match flow {
                Flow::Download => self.fetch(bytes).await,
                Flow::Upload => self.give(bytes).await,
            }
        }
    }
}

/// A client's stream to [`ServingRaw`]. A request is one byte for the direction and eight for the count.
#[derive(Debug)]
pub(super) struct Raw<S> {
    stream: S,
    buffer: Vec<u8>,
}

const TO_CLIENT: u8 = 0;
const TO_SERVER: u8 = 1;

impl<S> Raw<S> {
    fn new(stream: S) -> Raw<S> {
        Raw { stream, buffer: vec![0x5a; PIECE_BYTES] }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Raw<S> {
    async fn ask(&mut self, direction: u8, bytes: u64) -> io::Result<()> {
        let mut request = [direction; 9];
        request[1..].copy_from_slice(&bytes.to_le_bytes());
        self.stream.write_all(&request).await?;
        self.stream.flush().await
    }

    async fn take(&mut self, bytes: u64) -> io::Result<()> {
        let mut left = bytes;
        while left > 0 {
            let want = piece(left);
            let got = self.stream.read(&mut self.buffer[..want]).await?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= u64::try_from(got).expect("no more than was wanted");
        }
        Ok(())
    }

    async fn send(&mut self, bytes: u64) -> io::Result<()> {
        let mut left = bytes;
        while left > 0 {
            let now = piece(left);
            self.stream.write_all(&self.buffer[..now]).await?;
            left -= u64::try_from(now).expect("no more than was left");
        }
        self.stream.flush().await
    }

    /// Answers requests until the client goes.
    async fn answer(mut self) -> io::Result<()> {
        loop {
            let direction = self.stream.read_u8().await?;
            let bytes = self.stream.read_u64_le().await?;
            match direction {
                TO_CLIENT => self.send(bytes).await?,
                _ => {
                    self.take(bytes).await?;
                    self.send(1).await?;
                }
            }
        }
    }
}

fn piece(left: u64) -> usize {
    usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES)
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Exchange for Raw<S> {
    async fn fetch(&mut self, bytes: u64) -> io::Result<()> {
        self.ask(TO_CLIENT, bytes).await?;
        self.take(bytes).await
    }

    async fn give(&mut self, bytes: u64) -> io::Result<()> {
        self.ask(TO_SERVER, bytes).await?;
        self.send(bytes).await?;
        self.take(1).await
    }
}

/// A listening end without HTTP. Its connections end with it.
#[derive(Debug)]
pub(super) struct ServingRaw {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl ServingRaw {
    pub(super) async fn tcp() -> io::Result<ServingRaw> {
        ServingRaw::new(None).await
    }

    pub(super) async fn tls() -> io::Result<ServingRaw> {
        let (server, _client) = identities();
        ServingRaw::new(Some(TlsAcceptor::from(tls::server_config(&server)))).await
    }

    async fn new(acceptor: Option<TlsAcceptor>) -> io::Result<ServingRaw> {
        let listener = TcpListener::bind(any_local_port()).await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            // A client that goes ends its connection, and a listener that fails ends the measurement at its next call.
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    stream.set_nodelay(true)?;
                    match acceptor {
                        None => Raw::new(stream).answer().await,
                        Some(acceptor) => Raw::new(acceptor.accept(stream).await?).answer().await,
                    }
                });
            }
        });
        Ok(ServingRaw { address, accepting })
    }

    pub(super) async fn connect_tcp(&self) -> io::Result<Raw<TcpStream>> {
        tcp_client(self.address).await
    }

    pub(super) async fn connect_tls(&self) -> io::Result<Raw<TlsStream<TcpStream>>> {
        tls_client(self.address).await
    }
}

impl Drop for ServingRaw {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

pub(super) async fn tcp_client(address: SocketAddr) -> io::Result<Raw<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Raw::new(stream))
}

pub(super) async fn tls_client(address: SocketAddr) -> io::Result<Raw<TlsStream<TcpStream>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (server, client) = identities();
    let connector = TlsConnector::from(tls::client_config(&client, server.public()));
    Ok(Raw::new(connector.connect(tls::no_name(), stream).await?))
}

fn any_local_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// The listening end of our own client and server.
#[derive(Debug)]
pub(super) struct ServingHttp {
    address: SocketAddr,
    /// Ends when this is dropped.
    _server: Server,
}

/// Whichever listening end is wanted.
#[derive(Debug)]
pub(super) enum Serving {
    Raw(ServingRaw),
    Http(ServingHttp),
}

impl Serving {
    pub(super) async fn start(transport: Transport) -> io::Result<Serving> {
        Ok(match transport {
            Transport::Tcp => Serving::Raw(ServingRaw::tcp().await?),
            Transport::Tls => Serving::Raw(ServingRaw::tls().await?),
            Transport::Http => Serving::Http(ServingHttp::new().await?),
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Serving::Raw(raw) => raw.address,
            Serving::Http(http) => http.address,
        }
    }
}

/// Our client, of which one call at a time is made.
pub(super) struct Http {
    client: Client,
    peer: PeerAddress,
    data: Bytes,
}

struct Counts(Bytes);

impl Handler for Counts {
    async fn handle(&self, mut call: Call) -> Response<Body> {
        if call.request.method() == Method::GET {
            let count = call.request.uri().path().trim_start_matches('/').parse().unwrap_or(0);
            return Response::new(Body::from(self.0.slice(..self.0.len().min(count))));
        }
        let mut answer = Response::new(Body::empty());
        while let Some(piece) = call.request.body_mut().next().await {
            if piece.is_err() {
                *answer.status_mut() = StatusCode::BAD_REQUEST;
                break;
            }
        }
        answer
    }
}

impl ServingHttp {
    pub(super) async fn new() -> io::Result<ServingHttp> {
        let (identity, _client) = identities();
        let handler = Counts(transfer_data());
        let server = Server::bind(any_local_port(), &identity, ServerLimits::default(), handler).await?;
        Ok(ServingHttp { address: server.local_address(), _server: server })
    }

    pub(super) fn connect(&self) -> Http {
        http_client(self.address)
    }
}

pub(super) fn http_client(address: SocketAddr) -> Http {
    let (server, client) = identities();
    let peer = PeerAddress { key: server.public(), address: address.to_string() };
    Http { client: Client::new(&client, TcpDial, ClientLimits::default()), peer, data: transfer_data() }
}

fn transfer_data() -> Bytes {
    Bytes::from(vec![0x5a; usize::try_from(TRANSFER_BYTES).expect("16 MiB fit in memory")])
}

impl Http {
    async fn call(&self, request: Request<Bytes>, wanted: usize) -> io::Result<()> {
        let answer_max = AnswerMax { success: wanted, refusal: 0 };
        let answer = self.client.call(&self.peer, &request, answer_max).await.map_err(io::Error::other)?;
        if answer.status() != StatusCode::OK || answer.body().len() != wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

impl Exchange for Http {
    async fn fetch(&mut self, bytes: u64) -> io::Result<()> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = format!("/{bytes}").parse().expect("a number is a path");
        self.call(request, usize::try_from(bytes).unwrap_or(usize::MAX)).await
    }

    async fn give(&mut self, bytes: u64) -> io::Result<()> {
        let len = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.data.len());
        let mut request = Request::new(self.data.slice(..len));
        *request.method_mut() = Method::PUT;
        *request.uri_mut() = "/".parse().expect("a slash is a path");
        self.call(request, 0).await
    }
}

//! The calling side: a bounded pool of connections for each peer, one request in flight on each.
//!
//! A connection runs inside the call that uses it. There are no background tasks: a call that is dropped drops its
//! connection, and an idle connection costs a socket and nothing else.

use crate::Identity;
use crate::body::{Body, FRAME_BYTES};
use crate::buffers::{Buffer, Buffers};
use crate::dial::{BoxedStream, Dial, PeerAddress};
use crate::error::{CallError, MalformedAnswer, Phase};
use crate::pace::{Pace, Progress};
use crate::stalling::{Stalling, Traffic};
use crate::tls::{self, TlsStream};
use bytes::{Bytes, BytesMut};
use http::header::{EXPECT, HOST};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use seedbank_formats::PublicKey;
use seedbank_protocol::routes::{ALPN, HEADER_BYTES_MAX, UNASKED_BODY_BYTES_MAX};
use std::collections::HashMap;
use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout};

/// What a client uses and waits for.
#[derive(Debug, Clone, Copy)]
pub struct ClientLimits {
    /// Connections to one peer. Several hide each other's round trips; more than a few only share the same link.
    pub connections_per_peer: usize,
    /// Idle connections to all peers together, each a socket and some 100 KiB.
    pub idle_max: usize,
    /// How long a connection is kept idle: less than servers do, so that few requests meet one that closes.
    pub idle: Duration,
    /// How long a stream and its handshake may take.
    pub connect: Duration,
    /// How long an answer may take to begin after the request is sent.
    pub answer: Duration,
    /// How slowly bodies may go and come.
    pub progress: Progress,
}

impl Default for ClientLimits {
    fn default() -> ClientLimits {
        ClientLimits {
            connections_per_peer: 8,
            idle_max: 256,
            idle: Duration::from_secs(30),
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            progress: Progress::default(),
        }
    }
}

/// The longest body that a call takes, in bytes. Nothing beyond it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerMax {
    /// When the status says success.
    pub success: usize,
    /// Otherwise.
    pub refusal: usize,
}

/// What is read ahead of the caller. A quarter of it, as servers have, costs a tenth of a download's processor time.
const BUFFER_BYTES_MAX: usize = FRAME_BYTES;
/// More header lines than any of our answers has.
const HEADER_LINES_MAX: usize = 64;
/// Bodies from this length on are received into buffers that are used again: memory of a shorter one is cheap.
const POOLED_BYTES_MIN: usize = 64 * 1024;
/// Pools without connections are forgotten above this many peers.
const POOLS_MAX: usize = 1_024;

/// Makes HTTP requests to peers by their keys. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    identity: Identity,
    dial: Box<dyn Dial>,
    limits: ClientLimits,
    pools: Mutex<Pools>,
    buffers: Arc<Buffers>,
}

#[derive(Default)]
struct Pools {
    by_peer: HashMap<PublicKey, Pool>,
    idle: usize,
}

struct Pool {
    permits: Arc<Semaphore>,
    /// The longest idle first.
    idle: Vec<Connection>,
}

type Driver = http1::Connection<TokioIo<Stalling<TlsStream<BoxedStream>>>, Body>;

struct Connection {
    sender: http1::SendRequest<Body>,
    driver: Pin<Box<Driver>>,
    state: DriverState,
    traffic: Arc<Traffic>,
    idle_since: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DriverState {
    Running,
    /// Must not be polled again.
    Ended,
}

/// Whether a connection can serve another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Reuse,
    Close,
}

enum Failure {
    /// The connection broke, and nothing of an answer had come.
    ClosedUnanswered(io::Error),
    Closed(io::Error),
    Slow(Phase),
    Malformed(MalformedAnswer),
}

impl Client {
    /// A client that proves `identity` and opens streams with `dial`.
    #[must_use]
    pub fn new(identity: &Identity, dial: impl Dial, limits: ClientLimits) -> Client {
        Client(Arc::new(Inner {
            identity: identity.clone(),
            dial: Box::new(dial),
            limits,
            pools: Mutex::default(),
            buffers: Arc::default(),
        }))
    }

    /// The key that this client proves.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.0.identity.public()
    }

    /// How many connections wait for their next request.
    #[must_use]
    pub fn idle_connections(&self) -> usize {
        self.0.pools().idle
    }

    /// Makes a request to `peer` and reads the whole answer, whatever its status. Waits while all connections to that
    /// peer are in use. A request that met a closing idle connection is made once more on a fresh one, so it must be
    /// one that may be repeated; all of the protocol's are. Dropping the future closes the connection.
    ///
    /// # Errors
    /// [`CallError`], never `Refused`: what a status means is for the caller to say.
    pub async fn call(
        &self,
        peer: &PeerAddress,
        request: &Request<Bytes>,
        answer_max: AnswerMax,
    ) -> Result<Response<Bytes>, CallError> {
        let inner = &self.0;
        let permits = inner.pools().permits(peer.key, &inner.limits);
        let _permit = permits.acquire().await.expect("the semaphore is never closed");
        if let Some(connection) = inner.reuse(peer.key).await {
            match inner.exchange(connection, peer, request, answer_max).await {
                Err(Failure::ClosedUnanswered(_)) => {}
                outcome => return outcome.map_err(|failure| failure.of(peer)),
            }
        }
        let connection = inner.connect(peer).await?;
        inner.exchange(connection, peer, request, answer_max).await.map_err(|failure| failure.of(peer))
    }
}

impl Failure {
    fn of(self, peer: &PeerAddress) -> CallError {
        match self {
            Failure::ClosedUnanswered(source) | Failure::Closed(source) => unreachable_peer(peer, source),
            Failure::Slow(phase) => CallError::Slow { peer: peer.key, phase },
            Failure::Malformed(reason) => CallError::Malformed { peer: peer.key, reason },
        }
    }
}

fn unreachable_peer(peer: &PeerAddress, source: io::Error) -> CallError {
    CallError::Unreachable { peer: peer.key, address: peer.address.clone(), source }
}

impl Pools {
    fn permits(&mut self, peer: PublicKey, limits: &ClientLimits) -> Arc<Semaphore> {
        if self.by_peer.len() >= POOLS_MAX {
            self.by_peer.retain(|_, pool| !pool.idle.is_empty() || Arc::strong_count(&pool.permits) > 1);
        }
        let pool = self.by_peer.entry(peer).or_insert_with(|| Pool {
            permits: Arc::new(Semaphore::new(limits.connections_per_peer)),
            idle: Vec::new(),
        });
        Arc::clone(&pool.permits)
    }

    fn take(&mut self, peer: PublicKey) -> Option<Connection> {
        let connection = self.by_peer.get_mut(&peer)?.idle.pop()?;
        self.idle -= 1;
        Some(connection)
    }

    fn give_back(&mut self, peer: PublicKey, connection: Connection, limits: &ClientLimits) {
        if self.idle >= limits.idle_max {
            self.drop_stale(limits.idle);
        }
        let Some(pool) = self.by_peer.get_mut(&peer) else {
            return;
        };
        if self.idle < limits.idle_max {
            self.idle += 1;
            pool.idle.push(connection);
        }
    }

    fn drop_stale(&mut self, idle: Duration) {
        for pool in self.by_peer.values_mut() {
            let before = pool.idle.len();
            pool.idle.retain(|connection| connection.idle_since.elapsed() < idle);
            self.idle -= before - pool.idle.len();
        }
    }
}

impl Inner {
    fn pools(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle connection that still seems alive.
    async fn reuse(&self, peer: PublicKey) -> Option<Connection> {
        loop {
            let mut connection = self.pools().take(peer)?;
            if connection.idle_since.elapsed() >= self.limits.idle {
                continue;
            }
            // One look at the socket notices most peers that closed it.
            connection.drive(std::future::ready(())).await;
            if connection.state == DriverState::Running {
                return Some(connection);
            }
        }
    }

    async fn connect(&self, peer: &PeerAddress) -> Result<Connection, CallError> {
        match timeout(self.limits.connect, self.connect_unhurried(peer)).await {
            Ok(outcome) => outcome,
            Err(_late) => {
                Err(unreachable_peer(peer, io::Error::new(io::ErrorKind::TimedOut, "no connection in time")))
            }
        }
    }

    async fn connect_unhurried(&self, peer: &PeerAddress) -> Result<Connection, CallError> {
        let wrong_version = || CallError::WrongVersion { peer: peer.key, address: peer.address.clone() };
        let stream = self.dial.dial(peer).await.map_err(|error| unreachable_peer(peer, error))?;
        let config = tls::client_config(&self.identity, peer.key);
        let stream = tls::connect(config, stream).await.map_err(|error| {
            if let Some(wrong) = tls::wrong_key(&error) {
                CallError::WrongPeer { expected: peer.key, found: wrong.found, address: peer.address.clone() }
            } else if tls::is_wrong_version(&error) {
                wrong_version()
            } else {
                unreachable_peer(peer, error)
            }
        })?;
        if stream.protocol() != Some(ALPN.as_bytes()) {
            return Err(wrong_version());
        }
        let stream = Stalling::new(stream, self.limits.progress);
        let traffic = stream.traffic();
        let (sender, driver) = http1::Builder::new()
            .max_headers(HEADER_LINES_MAX)
            .max_header_size(HEADER_BYTES_MAX)
            .max_buf_size(BUFFER_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable_peer(peer, io::Error::other(error)))?;
        Ok(Connection {
            sender,
            driver: Box::pin(driver),
            state: DriverState::Running,
            traffic,
            idle_since: Instant::now(),
        })
    }

    async fn exchange(
        &self,
        mut connection: Connection,
        peer: &PeerAddress,
        request: &Request<Bytes>,
        answer_max: AnswerMax,
    ) -> Result<Response<Bytes>, Failure> {
        let (response, after) =
            connection.exchange(peer, request, answer_max, &self.limits, &self.buffers).await?;
        if after == After::Reuse {
            connection.idle_since = Instant::now();
            self.pools().give_back(peer.key, connection, &self.limits);
        }
        Ok(response)
    }
}

impl Connection {
    /// Runs the connection while `work` waits for it. How the connection ends is told to `work` by its own channels.
    async fn drive<F: Future>(&mut self, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|context| {
            if self.state == DriverState::Running && self.driver.as_mut().poll(context).is_ready() {
                self.state = DriverState::Ended;
            }
            work.as_mut().poll(context)
        })
        .await
    }

    async fn exchange(
        &mut self,
        peer: &PeerAddress,
        request: &Request<Bytes>,
        answer_max: AnswerMax,
        limits: &ClientLimits,
        buffers: &Arc<Buffers>,
    ) -> Result<(Response<Bytes>, After), Failure> {
        let received_before = self.traffic.received();
        let body_bytes = u64::try_from(request.body().len()).expect("bytes in memory are countable");
        let gated = body_bytes > UNASKED_BODY_BYTES_MAX;
        let request = prepare(peer, request, gated);

        let mut response = pin!(self.sender.send_request(request));
        let response = loop {
            let sent_before = self.traffic.sent();
            match timeout(limits.answer, self.drive(response.as_mut())).await {
                // The request is still on its way, and fast enough: the stream sees to that.
                Err(_late) if self.traffic.sent() > sent_before => {}
                Err(_late) => return Err(Failure::Slow(Phase::Answering)),
                Ok(Ok(response)) => break response,
                Ok(Err(error)) => {
                    return Err(classify(error, self.traffic.received() > received_before));
                }
            }
        };

        let (head, mut incoming) = response.into_parts();
        let limit = if head.status.is_success() { answer_max.success } else { answer_max.refusal };
        let announced =
            incoming.size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        if announced.is_some_and(|bytes| bytes > limit) {
            return Err(Failure::Malformed(MalformedAnswer::TooLong { limit }));
        }
        let mut body = Received::new(announced, buffers);
        let mut pace = Pace::new(limits.progress);
        loop {
            let frame = match pace.wait(self.drive(incoming.frame())).await {
                None => return Err(Failure::Slow(Phase::Receiving)),
                Some(None) => break,
                Some(Some(Err(error))) => return Err(classify(error, true)),
                Some(Some(Ok(frame))) => frame,
            };
            // Trailers say nothing in this protocol.
            if let Ok(piece) = frame.into_data() {
                if piece.len() > body.room(limit) {
                    return Err(Failure::Malformed(MalformedAnswer::TooLong { limit }));
                }
                pace.moved(piece.len());
                body.take(&piece);
            }
        }
        // A refused body was never sent, and the server waits for it or closes.
        let after = if gated && !head.status.is_success() { After::Close } else { self.settle().await };
        Ok((Response::from_parts(head, body.finish()), after))
    }

    /// Lets the connection notice that its exchange is over.
    async fn settle(&mut self) -> After {
        self.drive(std::future::ready(())).await;
        if self.state == DriverState::Running && self.sender.is_ready() { After::Reuse } else { After::Close }
    }
}

/// An answer's body as far as it came.
enum Received {
    /// As long as was announced.
    Announced { buffer: Buffer, filled: usize },
    /// Short, or of a length that nobody announced.
    Growing(BytesMut),
}

impl Received {
    fn new(announced: Option<usize>, buffers: &Arc<Buffers>) -> Received {
        match announced {
            Some(bytes) if bytes >= POOLED_BYTES_MIN => {
                Received::Announced { buffer: buffers.take(bytes), filled: 0 }
            }
            _ => Received::Growing(BytesMut::with_capacity(announced.unwrap_or(0))),
        }
    }

    /// How many more bytes may come.
    fn room(&self, limit: usize) -> usize {
        match self {
            Received::Announced { buffer, filled } => buffer.len() - filled,
            Received::Growing(body) => limit - body.len(),
        }
    }

    /// Takes a piece for which there is room.
    fn take(&mut self, piece: &[u8]) {
        match self {
            Received::Announced { buffer, filled } => {
                buffer[*filled..*filled + piece.len()].copy_from_slice(piece);
                *filled += piece.len();
            }
            Received::Growing(body) => body.extend_from_slice(piece),
        }
    }

    fn finish(self) -> Bytes {
        match self {
            Received::Announced { buffer, filled } => Bytes::from_owner(buffer).slice(..filled),
            Received::Growing(body) => body.freeze(),
        }
    }
}

fn prepare(peer: &PeerAddress, request: &Request<Bytes>, gated: bool) -> Request<Body> {
    let (mut head, body) = request.clone().into_parts();
    // HTTP/1.1 wants a host: a peer's name is its key.
    let host = HeaderValue::from_str(&peer.key.to_string()).expect("hex digits are a header value");
    head.headers.insert(HOST, host);
    if !gated {
        return Request::from_parts(head, Body::from(body));
    }
    head.headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
    let (open, gate) = oneshot::channel();
    let mut request = Request::from_parts(head, Body::gated(body, gate));
    let open = Mutex::new(Some(open));
    hyper::ext::on_informational(&mut request, move |answer| {
        if answer.status() == StatusCode::CONTINUE {
            let open = open.lock().unwrap_or_else(PoisonError::into_inner).take();
            // The body is gone if the exchange ended otherwise.
            let _ = open.map(|open| open.send(()));
        }
    });
    request
}

fn classify(error: hyper::Error, answered: bool) -> Failure {
    if error.is_parse() {
        return Failure::Malformed(MalformedAnswer::NotHttp(error));
    }
    let mut cause = error.source();
    while let Some(inner) = cause {
        let stalled =
            inner.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::TimedOut);
        if stalled {
            return Failure::Slow(Phase::Sending);
        }
        cause = inner.source();
    }
    let error = io::Error::new(io::ErrorKind::ConnectionAborted, error);
    if answered { Failure::Closed(error) } else { Failure::ClosedUnanswered(error) }
}

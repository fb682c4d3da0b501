//! The listening side: proves its key, learns its peer's, and hands each request to a handler.
//!
//! It knows no routes. It bounds what strangers can cost: connections, handshakes and time in them, header bytes, idle
//! time, requests of one key, and how slowly bodies may come and go.

use crate::Identity;
use crate::answer::answer_problem;
use crate::body::Body;
use crate::incoming::{Incoming, Waits};
use crate::pace::Progress;
use crate::rate::{Rate, Rates};
use crate::slots::{Slot, SlotLimits, Slots, Source};
use crate::stalling::Stalling;
use crate::tls::{self, TlsStream};
use http::header::EXPECT;
use http::{Request, Response};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use seedbank_formats::PublicKey;
use seedbank_protocol::messages::{Problem, ProblemCode};
use seedbank_protocol::routes::{ALPN, HEADER_BYTES_MAX};
use std::convert::Infallible;
use std::hash::Hash;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{debug, warn};

/// One request, and who made it.
#[derive(Debug)]
pub struct Call {
    /// The key that the client proved.
    pub peer: PublicKey,
    /// Where it called from.
    pub remote: SocketAddr,
    /// What it asks.
    pub request: Request<Incoming>,
}

/// Answers requests. When the client goes away, the future is dropped where it waits.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, call: Call) -> impl Future<Output = Response<Body>> + Send;
}

/// What a server puts up with.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// Connections in all. Each may hold some 100 KiB, and up to a few frames while its peer reads slowly.
    pub connections_max: usize,
    /// Connections from one IPv4 address or IPv6 /64: several processes of one team with their pools.
    pub connections_per_source_max: usize,
    /// Connections that have not proven a key yet. Above it the oldest makes room.
    pub handshakes_max: usize,
    /// The same from one IPv4 address or IPv6 /64.
    pub handshakes_per_source_max: usize,
    /// Connections of one key, wherever they come from.
    pub connections_per_key_max: usize,
    /// Handshakes of one IPv4 address or IPv6 /64. Each costs us a signature and two key exchanges, and its peer
    /// next to nothing.
    pub handshake_rate: Rate,
    /// Requests of one key. Beyond it they wait.
    pub request_rate: Rate,
    /// How long a peer may take to prove its key.
    pub handshake: Duration,
    /// How long a connection may take from the end of one answer to the end of the next request's headers. Clients
    /// drop idle connections sooner, so that they seldom send into one that closes.
    pub idle: Duration,
    /// How slowly bodies may come and answers be taken.
    pub progress: Progress,
}

impl Default for ServerLimits {
    fn default() -> ServerLimits {
        ServerLimits {
            connections_max: 512,
            connections_per_source_max: 256,
            handshakes_max: 128,
            handshakes_per_source_max: 64,
            connections_per_key_max: 128,
            handshake_rate: Rate { per_second: 50, burst: 512 },
            request_rate: Rate { per_second: 2_000, burst: 4_000 },
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            progress: Progress::default(),
        }
    }
}

impl ServerLimits {
    fn slots(&self) -> SlotLimits {
        SlotLimits {
            total: self.connections_max,
            of_source: self.connections_per_source_max,
            of_key: self.connections_per_key_max,
            handshakes_total: self.handshakes_max,
            handshakes_of_source: self.handshakes_per_source_max,
        }
    }
}

/// More header lines than any of our requests has.
const HEADER_LINES_MAX: usize = 64;

/// What is read ahead of a handler: four records. A connection keeps it while it is idle, so it is no larger than
/// speed asks for.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Out of file descriptors, an accept fails at once and again at once: wait for connections to end.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether to go on, or until when to finish.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Run,
    FinishBy(Instant),
}

/// A listening server. Dropping it ends its connections at once; [`Server::shutdown`] lets them finish.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    phase: watch::Sender<Phase>,
    slots: Arc<Slots>,
    /// Owns the tasks of all connections.
    accepting: JoinHandle<()>,
}

impl Server {
    /// Listens on `address` (port 0 for any) and serves until it is shut down.
    ///
    /// # Errors
    /// The system's, when it can't listen there.
    pub async fn bind<H: Handler>(
        address: SocketAddr,
        identity: &Identity,
        limits: ServerLimits,
        handler: H,
    ) -> io::Result<Server> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (phase, phases) = watch::channel(Phase::Run);
        let slots = Slots::new(limits.slots());
        let connections = Arc::new(Connections {
            tls: tls::server_config(identity),
            limits,
            handler,
            phases,
            handshakes: Mutex::new(Rates::new(limits.handshake_rate, limits.handshake)),
            requests: Mutex::new(Rates::new(limits.request_rate, limits.idle)),
        });
        let accepting = tokio::spawn(accept(listener, connections, Arc::clone(&slots)));
        Ok(Server { address, phase, slots, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections are open, those in their handshake included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.slots.count()
    }

    /// Stops listening, lets requests in flight finish for at most `grace`, and returns when no task is left.
    pub async fn shutdown(mut self, grace: Duration) {
        self.phase.send_replace(Phase::FinishBy(Instant::now() + grace));
        if let Err(error) = (&mut self.accepting).await {
            warn!(%error, "accepting task failed");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept<H: Handler>(listener: TcpListener, connections: Arc<Connections<H>>, slots: Arc<Slots>) {
    let mut tasks = JoinSet::new();
    let mut phases = connections.phases.clone();
    let deadline = loop {
        tokio::select! {
            biased;
            deadline = finish_by(&mut phases) => break deadline,
            Some(ended) = tasks.join_next() => log_panic(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, remote)) => {
                    let connections = Arc::clone(&connections);
                    let admitted = slots.admit(Source::from(remote.ip()), |slot| {
                        tasks.spawn(async move {
                            // Small answers must not wait for the acknowledgement of earlier ones.
                            let _ = stream.set_nodelay(true);
                            connections.serve(stream, remote, slot).await;
                        })
                    });
                    if !admitted {
                        debug!(%remote, "connection refused: too many");
                    }
                }
                // The peer gave up while it waited to be accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    let made_room = slots.evict();
                    warn!(%error, made_room, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    };
    drop(listener);
    let finished = timeout_at(deadline, async {
        while let Some(ended) = tasks.join_next().await {
            log_panic(ended);
        }
    });
    if finished.await.is_err() {
        debug!(left = tasks.len(), "connections cut at shutdown");
        tasks.shutdown().await;
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    match ended {
        Err(error) if error.is_panic() => warn!(%error, "connection task panicked"),
        _ => {}
    }
}

/// Waits for the order to finish. A server that is gone gave it as well.
async fn finish_by(phases: &mut watch::Receiver<Phase>) -> Instant {
    match phases.wait_for(|phase| matches!(phase, Phase::FinishBy(_))).await.as_deref() {
        Ok(Phase::FinishBy(deadline)) => *deadline,
        _ => Instant::now(),
    }
}

/// What all connections of a server share.
struct Connections<H> {
    tls: Arc<rustls::ServerConfig>,
    limits: ServerLimits,
    handler: H,
    phases: watch::Receiver<Phase>,
    handshakes: Mutex<Rates<Source>>,
    requests: Mutex<Rates<PublicKey>>,
}

/// Waits for a turn; says whether there is one.
async fn turn<K: Eq + Hash>(rates: &Mutex<Rates<K>>, of: K) -> bool {
    let now = Instant::now();
    let at = rates.lock().unwrap_or_else(PoisonError::into_inner).turn(of, now);
    match at {
        Some(at) if at > now => sleep_until(at).await,
        Some(_) => {}
        None => return false,
    }
    true
}

impl<H: Handler> Connections<H> {
    /// Serves one stream until either side ends it.
    async fn serve(&self, stream: TcpStream, remote: SocketAddr, slot: Slot) {
        let mut phases = self.phases.clone();
        let handshake = timeout(self.limits.handshake, async {
            // Who says nothing costs nothing, and takes nobody's turn.
            stream.readable().await?;
            if !turn(&self.handshakes, Source::from(remote.ip())).await {
                return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many handshakes from there"));
            }
            tls::accept(Arc::clone(&self.tls), stream).await
        });
        let stream = tokio::select! {
            biased;
            _ = finish_by(&mut phases) => return,
            outcome = handshake => match outcome {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return debug!(%remote, %error, "handshake failed"),
                Err(_late) => return debug!(%remote, "handshake too slow"),
            },
        };
        let Some(peer) = stream.peer() else {
            return debug!(%remote, "peer proved no key");
        };
        if stream.protocol() != Some(ALPN.as_bytes()) {
            debug!(%remote, %peer, "peer speaks no protocol of ours");
            return refuse_version(stream, self.limits.handshake).await;
        }
        if !slot.proven(peer) {
            return debug!(%remote, %peer, "connection refused: too many of this key");
        }
        self.serve_http(stream, peer, remote, &mut phases).await;
    }

    async fn serve_http<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: TlsStream<S>,
        peer: PublicKey,
        remote: SocketAddr,
        phases: &mut watch::Receiver<Phase>,
    ) {
        let service =
            service_fn(async |request| Ok::<_, Infallible>(self.answer(request, peer, remote).await));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.idle)
            .max_headers(HEADER_LINES_MAX)
            .max_header_size(HEADER_BYTES_MAX)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(TokioIo::new(Stalling::new(stream, self.limits.progress)), service);
        let mut connection = std::pin::pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            _ = finish_by(phases) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = outcome {
            debug!(%remote, %peer, %error, "connection ended");
        }
    }

    async fn answer(
        &self,
        request: Request<hyper::body::Incoming>,
        peer: PublicKey,
        remote: SocketAddr,
    ) -> Response<Body> {
        if !turn(&self.requests, peer).await {
            return answer_problem(&Problem::new(ProblemCode::Busy, "too many requests of this key"));
        }
        let waits = match request.headers().contains_key(EXPECT) {
            true => Waits::ForGoAhead,
            false => Waits::No,
        };
        let (head, body) = request.into_parts();
        let (body, mut returned) = Incoming::new(body, waits, self.limits.progress);
        let call = Call { peer, remote, request: Request::from_parts(head, body) };
        let response = self.handler.handle(call).await;
        if let Ok(unread) = returned.try_recv() {
            unread.drain().await;
        }
        response
    }
}

/// Tells a peer that negotiated no protocol what is spoken here, in words that any HTTP client shows.
async fn refuse_version<S: AsyncRead + AsyncWrite + Unpin>(mut stream: TlsStream<S>, deadline: Duration) {
    let problem = Problem::new(
        ProblemCode::UnknownVersion,
        format!("this peer speaks {ALPN}: negotiate it by TLS ALPN"),
    );
    let body = String::from_utf8(problem.encode()).expect("JSON is UTF-8");
    let answer = format!(
        "HTTP/1.1 {} HTTP Version Not Supported\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        problem.code.status(),
        body.len(),
    );
    let _ = timeout(deadline, async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
}

//! What the layers cost: the same bytes over plain TCP, over bare TLS, and through our client and server, on loopback
//! in the same run.

use crate::body::Body;
use crate::client::{AnswerMax, Client, ClientLimits};
use crate::dial::{PeerAddress, TcpDial};
use crate::identity::Identity;
use crate::server::{Call, Handler, Server, ServerLimits};
use crate::tls;
use bytes::Bytes;
use http::{Request, Response};
use seedbank_formats::keys::SigningKey;
use serde::Serialize;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// One transfer: the size of a fragment.
const TRANSFER_BYTES: u64 = 16 * 1024 * 1024;
/// Reads of a raw stream: the same as our frames.
const READ_BYTES: usize = crate::FRAME_BYTES;
/// The two sizes whose latency is measured: a small message, and a sealed chunk or two.
const SMALL_BYTES: u64 = 4 * 1024;
const LARGE_BYTES: u64 = 256 * 1024;

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub struct BenchPlan {
    /// Bytes to move for the rate, rounded up to whole transfers of 16 MiB.
    pub bytes: u64,
    /// Requests of each size for the latencies.
    pub requests: u32,
}

/// One transport's results.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TransportRow {
    /// `tcp`, `tls` or `http`.
    pub transport: &'static str,
    /// Server to client on one connection, 10^9 bytes per second.
    pub gigabytes_per_second: f64,
    /// Processor time of both ends together for 10^9 bytes; `None` where the system does not tell.
    pub cpu_seconds_per_gigabyte: Option<f64>,
    /// From a request to the last byte of its answer, one request at a time.
    pub latency_4_kib: Latency,
    /// The same for 256 KiB.
    pub latency_256_kib: Latency,
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Half of the requests were faster.
    pub p50_us: u64,
    /// One in a hundred was slower.
    pub p99_us: u64,
}

/// Measures all three transports, one after the other.
///
/// # Errors
/// The system's, when a local connection fails.
pub async fn run(plan: BenchPlan) -> io::Result<Vec<TransportRow>> {
    Ok(vec![
        measure("tcp", &plan, &mut raw_tcp().await?).await?,
        measure("tls", &plan, &mut raw_tls().await?).await?,
        measure("http", &plan, &mut over_http().await?).await?,
    ])
}

/// Something that can be asked for so many bytes.
trait Fetch {
    async fn fetch(&mut self, bytes: u64) -> io::Result<()>;
}

async fn measure(
    transport: &'static str,
    plan: &BenchPlan,
    path: &mut impl Fetch,
) -> io::Result<TransportRow> {
    path.fetch(TRANSFER_BYTES).await?;
    let transfers = plan.bytes.div_ceil(TRANSFER_BYTES).max(1);
    let cpu_before = cpu_seconds();
    let start = Instant::now();
    for _ in 0..transfers {
        path.fetch(TRANSFER_BYTES).await?;
    }
    let nanoseconds = Duration::max(start.elapsed(), Duration::from_nanos(1)).as_secs_f64() * 1e9;
    let cpu = cpu_before.zip(cpu_seconds()).map(|(before, after)| after - before);
    let bytes = u32::try_from(transfers).map_or(f64::INFINITY, f64::from) * 16.0 * 1024.0 * 1024.0;
    Ok(TransportRow {
        transport,
        gigabytes_per_second: bytes / nanoseconds,
        cpu_seconds_per_gigabyte: cpu.map(|seconds| seconds * 1e9 / bytes),
        latency_4_kib: latency(path, SMALL_BYTES, plan.requests).await?,
        latency_256_kib: latency(path, LARGE_BYTES, plan.requests).await?,
    })
}

/// Processor time of this process so far, from Linux's `/proc` in its hundredths of a second.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name may hold anything but ends with the last parenthesis; user and system time are fields 14 and 15.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some(f64::from(ticks()?) / 100.0 + f64::from(ticks()?) / 100.0)
}

async fn latency(path: &mut impl Fetch, bytes: u64, requests: u32) -> io::Result<Latency> {
    let mut times = Vec::new();
    for _ in 0..requests.max(1) {
        let start = Instant::now();
        path.fetch(bytes).await?;
        times.push(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    Ok(Latency { p50_us: at(50), p99_us: at(99) })
}

/// A client's stream to a task that answers each 8-byte count with so many bytes.
struct Raw<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Fetch for Raw<S> {
    async fn fetch(&mut self, bytes: u64) -> io::Result<()> {
        self.stream.write_all(&bytes.to_le_bytes()).await?;
        self.stream.flush().await?;
        let mut left = bytes;
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES);
            let got = self.stream.read(&mut self.buffer[..want]).await?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= u64::try_from(got).expect("no more than was wanted");
        }
        Ok(())
    }
}

async fn answer_counts<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    let data = vec![0x5a; READ_BYTES];
    loop {
        let mut left = stream.read_u64_le().await?;
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES);
            stream.write_all(&data[..now]).await?;
            left -= u64::try_from(now).expect("no more than was left");
        }
        stream.flush().await?;
    }
}

fn any_local_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Two connected sockets: the client's and the server's.
async fn connected() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(any_local_port()).await?;
    let client = TcpStream::connect(listener.local_addr()?).await?;
    let (server, _) = listener.accept().await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    Ok((client, server))
}

async fn raw_tcp() -> io::Result<Raw<TcpStream>> {
    let (client, server) = connected().await?;
    // Ends when the client's stream is dropped.
    tokio::spawn(answer_counts(server));
    Ok(Raw { stream: client, buffer: vec![0; READ_BYTES] })
}

async fn raw_tls() -> io::Result<impl Fetch> {
    let (client, server) = connected().await?;
    let (server_identity, client_identity) = identities();
    let acceptor = TlsAcceptor::from(tls::server_config(&server_identity));
    // Ends when the client's stream is dropped.
    tokio::spawn(async move { answer_counts(acceptor.accept(server).await?).await });
    let connector = TlsConnector::from(tls::client_config(&client_identity, server_identity.public()));
    let stream = connector.connect(tls::no_name(), client).await?;
    Ok(Raw { stream, buffer: vec![0; READ_BYTES] })
}

/// Throw-away keys for both ends.
fn identities() -> (Identity, Identity) {
    let identity = |seed| Identity::new(&SigningKey::from_seed([seed; 32]));
    (identity(1), identity(2))
}

struct Http {
    client: Client,
    peer: PeerAddress,
    /// Ends when this is dropped.
    _server: Server,
}

struct Counts(Bytes);

impl Handler for Counts {
    async fn handle(&self, call: Call) -> Response<Body> {
        let count = call.request.uri().path().trim_start_matches('/').parse().unwrap_or(0);
        Response::new(Body::from(self.0.slice(..self.0.len().min(count))))
    }
}

async fn over_http() -> io::Result<Http> {
    let (server_identity, client_identity) = identities();
    let data = vec![0x5a; usize::try_from(TRANSFER_BYTES).expect("16 MiB fit in memory")];
    let handler = Counts(Bytes::from(data));
    let server = Server::bind(any_local_port(), &server_identity, ServerLimits::default(), handler).await?;
    let peer = PeerAddress { key: server_identity.public(), address: server.local_address().to_string() };
    let client = Client::new(&client_identity, TcpDial, ClientLimits::default());
    Ok(Http { client, peer, _server: server })
}

impl Fetch for Http {
    async fn fetch(&mut self, bytes: u64) -> io::Result<()> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = format!("/{bytes}").parse().expect("a number is a path");
        let wanted = usize::try_from(bytes).unwrap_or(usize::MAX);
        let answer_max = AnswerMax { success: wanted, refusal: 0 };
        let answer = self.client.call(&self.peer, &request, answer_max).await.map_err(io::Error::other)?;
        if answer.body().len() != wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{BenchPlan, run};

    #[tokio::test]
    async fn every_transport_is_measured() {
        let rows = run(BenchPlan { bytes: 1, requests: 3 }).await.unwrap();
        let names: Vec<_> = rows.iter().map(|row| row.transport).collect();
        assert_eq!(names, ["tcp", "tls", "http"]);
        assert!(rows.iter().all(|row| row.gigabytes_per_second > 0.0));
        assert!(rows.iter().all(|row| row.latency_4_kib.p50_us <= row.latency_4_kib.p99_us));
    }
}

//! What the layers cost: the same bytes over plain TCP, over bare TLS, and through our client and server, on loopback
//! in the same run.
//!
//! [`run`] compares whole transports, both ends together; [`ends`] tells what one byte costs each end alone; and
//! [`RawTls`] answers single requests of a caller who wants to alternate them with something else.

mod ends;
mod paths;

pub use ends::{Ends, ends};

use crate::identity::Identity;
use paths::{Exchange, Http, Raw, ServingHttp, ServingRaw};
use seedbank_formats::keys::SigningKey;
use serde::Serialize;
use std::io;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

/// One transfer: the size of a fragment.
const TRANSFER_BYTES: u64 = 16 * 1024 * 1024;
/// The two sizes whose latency is measured: a small message, and a sealed chunk or two.
const SMALL_BYTES: u64 = 4 * 1024;
const LARGE_BYTES: u64 = 256 * 1024;
/// Connections of the rows with many: as many as a push or a pull has to its providers.
const CONNECTIONS: usize = 8;

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub struct BenchPlan {
    /// Bytes to move for each rate, rounded up to whole transfers of 16 MiB.
    pub bytes: u64,
    /// Requests of each size for the latencies.
    pub requests: u32,
}

/// Which layers bytes go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Plain TCP.
    Tcp,
    /// TLS 1.3 with our check of keys, and nothing above it.
    Tls,
    /// Our HTTP client and server on top.
    Http,
}

impl Transport {
    /// From the least to all.
    pub const ALL: [Transport; 3] = [Transport::Tcp, Transport::Tls, Transport::Http];

    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
            Transport::Http => "http",
        }
    }
}

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Flow {
    /// From the server, as a pull has them.
    Download,
    /// To the server, as a push has them.
    Upload,
}

/// One transport's results.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TransportRow {
    /// Which.
    pub transport: Transport,
    /// Server to client on one connection.
    pub download: Rate,
    /// Client to server on one connection.
    pub upload: Rate,
    /// Server to client on eight connections at once.
    pub download_8: Rate,
    /// Client to server on eight connections at once.
    pub upload_8: Rate,
    /// From a request to the last byte of its answer, one request at a time.
    pub latency_4_kib: Latency,
    /// The same for 256 KiB.
    pub latency_256_kib: Latency,
}

/// How fast, and at what cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    /// 10^9 bytes per second.
    pub gigabytes_per_second: f64,
    /// Processor time of both ends together for 10^9 bytes; `None` where the system does not tell.
    pub cpu_seconds_per_gigabyte: Option<f64>,
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
    let tcp = ServingRaw::tcp().await?;
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        streams.push(tcp.connect_tcp().await?);
    }
    let mut rows = vec![measure(Transport::Tcp, &plan, streams).await?];
    let tls = ServingRaw::tls().await?;
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        streams.push(tls.connect_tls().await?);
    }
    rows.push(measure(Transport::Tls, &plan, streams).await?);
    let http = ServingHttp::new().await?;
    let clients = (0..CONNECTIONS).map(|_| http.connect()).collect();
    rows.push(measure::<Http>(Transport::Http, &plan, clients).await?);
    Ok(rows)
}

/// One bare TLS connection to a task of this process that answers with as many bytes as it is asked for.
#[derive(Debug)]
pub struct RawTls {
    connection: Raw<TlsStream<TcpStream>>,
    _serving: ServingRaw,
}

impl RawTls {
    /// Connects on loopback.
    ///
    /// # Errors
    /// The system's, when a local connection fails.
    pub async fn connect() -> io::Result<RawTls> {
        let serving = ServingRaw::tls().await?;
        Ok(RawTls { connection: serving.connect_tls().await?, _serving: serving })
    }

    /// Asks for so many bytes and takes them.
    ///
    /// # Errors
    /// The system's, when the connection fails.
    pub async fn fetch(&mut self, bytes: u64) -> io::Result<()> {
        self.connection.fetch(bytes).await
    }
}

async fn measure<E: Exchange>(
    transport: Transport,
    plan: &BenchPlan,
    mut connections: Vec<E>,
) -> io::Result<TransportRow> {
    let mut one = vec![connections.remove(0)];
    let download = rate(Flow::Download, plan.bytes, &mut one).await?;
    let upload = rate(Flow::Upload, plan.bytes, &mut one).await?;
    let first = &mut one[0];
    let latency_4_kib = latency(first, SMALL_BYTES, plan.requests).await?;
    let latency_256_kib = latency(first, LARGE_BYTES, plan.requests).await?;
    connections.append(&mut one);
    let download_8 = rate(Flow::Download, plan.bytes, &mut connections).await?;
    let upload_8 = rate(Flow::Upload, plan.bytes, &mut connections).await?;
    Ok(TransportRow { transport, download, upload, download_8, upload_8, latency_4_kib, latency_256_kib })
}

/// Moves the bytes over all connections at once, after each has been warmed up.
async fn rate<E: Exchange>(flow: Flow, bytes: u64, connections: &mut Vec<E>) -> io::Result<Rate> {
    let count = u64::try_from(connections.len()).expect("a handful");
    let each = bytes.div_ceil(TRANSFER_BYTES * count).max(1);
    transfer_all(flow, 1, connections).await?;
    let cpu_before = cpu_seconds();
    let start = Instant::now();
    transfer_all(flow, each, connections).await?;
    let nanoseconds = Duration::max(start.elapsed(), Duration::from_nanos(1)).as_secs_f64() * 1e9;
    let cpu = cpu_before.zip(cpu_seconds()).map(|(before, after)| after - before);
    let moved = u32::try_from(each * count).map_or(f64::INFINITY, f64::from) * 16.0 * 1024.0 * 1024.0;
    Ok(Rate {
        gigabytes_per_second: moved / nanoseconds,
        cpu_seconds_per_gigabyte: cpu.map(|seconds| seconds * 1e9 / moved),
    })
}

async fn transfer_all<E: Exchange>(flow: Flow, transfers: u64, connections: &mut Vec<E>) -> io::Result<()> {
    let mut moving = JoinSet::new();
    for mut connection in connections.drain(..) {
        moving.spawn(async move {
            for _ in 0..transfers {
                connection.transfer(flow, TRANSFER_BYTES).await?;
            }
            io::Result::Ok(connection)
        });
    }
    while let Some(moved) = moving.join_next().await {
        connections.push(moved.map_err(io::Error::other)??);
    }
    Ok(())
}

/// Processor time of this process so far, from Linux's `/proc` in its hundredths of a second.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name may hold anything but ends with the last parenthesis; user and system time are fields 14 and 15.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some(f64::from(ticks()?) / 100.0 + f64::from(ticks()?) / 100.0)
}

async fn latency(path: &mut impl Exchange, bytes: u64, requests: u32) -> io::Result<Latency> {
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

/// Throw-away keys: the server's and the client's.
fn identities() -> (Identity, Identity) {
    let identity = |seed| Identity::new(&SigningKey::from_seed([seed; 32]));
    (identity(1), identity(2))
}

#[cfg(test)]
mod tests {
    use super::{BenchPlan, Flow, RawTls, Transport, ends, run};
    use std::time::Duration;

    #[tokio::test]
    async fn every_transport_is_measured_both_ways() {
        let rows = run(BenchPlan { bytes: 1, requests: 3 }).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.transport).collect::<Vec<_>>(), Transport::ALL);
        for row in rows {
            for rate in [row.download, row.upload, row.download_8, row.upload_8] {
                assert!(rate.gigabytes_per_second > 0.0);
            }
            assert!(row.latency_4_kib.p50_us <= row.latency_4_kib.p99_us);
        }
    }

    #[tokio::test]
    async fn raw_connection_brings_what_is_asked_for_again_and_again() {
        let mut raw = RawTls::connect().await.unwrap();
        for bytes in [1, 256 * 1024, 3] {
            raw.fetch(bytes).await.unwrap();
        }
    }

    #[test]
    fn each_end_is_measured_by_the_clock_of_its_own_thread() {
        // A clock that ticks once a look, for each thread apart: whoever looks twice has used one nanosecond.
        fn looks() -> Duration {
            thread_local!(static LOOKS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) });
            LOOKS.set(LOOKS.get() + 1);
            Duration::from_nanos(LOOKS.get())
        }
        for transport in Transport::ALL {
            for flow in [Flow::Download, Flow::Upload] {
                let ends = ends(transport, flow, 1, looks).unwrap();
                let transfer = 16.0 * 1024.0 * 1024.0;
                assert_eq!([ends.sender, ends.receiver], [1.0 / transfer; 2], "{transport:?} {flow:?}");
            }
        }
    }
}

//! Clients that prove their key and mean no good: honest work completes beside them, and memory is bounded.

use crate::child::Daemon;
use crate::support::{Caller, MIB, client_key, fragment, key, options, tomorrow};
use bytes::Bytes;
use seedbank_formats::FragmentId;
use seedbank_formats::keys::SigningKey;
use seedbank_protocol::routes::{Access, HEADER_ACCESS, HEADER_UNTIL, format_until};
use seedbank_provider::{ByteSize, InitOptions};
use seedbank_transport::testing::{connect_from, dial_from};
use seedbank_transport::{BoxedStream, Identity, PeerAddress};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

/// What no daemon of these tests may take: 48 MiB of bodies, records and HTTP of 256 connections, and the code.
const PEAK_MIB_MAX: u64 = 160;
const DESCRIPTORS: u32 = 1024;

fn elsewhere() -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))
}

/// A client with a quota of its own, as the worst ones have.
fn hostile_key() -> SigningKey {
    key(66)
}

fn known() -> InitOptions {
    let mut options = options();
    options.clients = [client_key(), hostile_key()].map(|key| (key.public(), ByteSize(400 << 20))).into();
    options
}

/// One kind of malice, going on until it is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Malice {
    /// Requests as small and as many as can be, each of them nonsense.
    TinyRequests,
    /// Asks for whole fragments and takes none of them.
    StalledReads,
    /// Announces fragments and sends a few bytes of each.
    SlowBodies,
    /// Lengths that are wrong, missing, enormous or said twice; headers without an end.
    WrongLengths,
    /// Connections that begin a handshake and never end it.
    HalfOpen,
    /// Handshakes without an end, one after the other.
    Handshakes,
}

const ALL: [Malice; 6] = [
    Malice::TinyRequests,
    Malice::StalledReads,
    Malice::SlowBodies,
    Malice::WrongLengths,
    Malice::HalfOpen,
    Malice::Handshakes,
];

async fn open(peer: &PeerAddress) -> std::io::Result<BoxedStream> {
    connect_from(elsewhere(), &Identity::new(&hostile_key()), peer).await
}

/// Reads whatever comes, for as long as it does.
async fn swallow(stream: &mut BoxedStream, mut bytes: usize) {
    let mut buffer = vec![0; 64 << 10];
    while bytes > 0 {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => bytes = bytes.saturating_sub(count),
        }
    }
}

fn put_head(id: FragmentId, rest: &str) -> String {
    format!(
        "PUT /v1/fragments/{id} HTTP/1.1\r\nhost: x\r\n{HEADER_UNTIL}: {}\r\n{HEADER_ACCESS}: owner\r\n{rest}\r\n\r\n",
        format_until(tomorrow())
    )
}

/// So many requests, none of which means anything, in long trains on one connection; says how many were taken.
async fn tiny_requests(peer: &PeerAddress, count: usize) -> usize {
    const TRAIN: usize = 500;
    let train = "GET /x HTTP/1.1\r\nhost: x\r\n\r\n".repeat(TRAIN);
    let Ok(stream) = open(peer).await else { return 0 };
    let (mut reader, mut writer) = tokio::io::split(stream);
    let drain = tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        while matches!(reader.read(&mut buffer).await, Ok(1..)) {}
    });
    let mut sent = 0;
    while sent < count && writer.write_all(train.as_bytes()).await.is_ok() {
        sent += TRAIN;
    }
    let _gone = writer.flush().await;
    let _gone = writer.shutdown().await;
    let _ended = drain.await;
    sent
}

async fn stalled_read(peer: &PeerAddress, id: FragmentId) {
    let Ok(mut stream) = open(peer).await else { return };
    let request = format!("GET /v1/fragments/{id} HTTP/1.1\r\nhost: x\r\n\r\n");
    let _gone = stream.write_all(request.as_bytes()).await;
    let _gone = stream.flush().await;
    swallow(&mut stream, 1).await;
    std::future::pending::<()>().await;
}

async fn slow_body(peer: &PeerAddress, seed: u64) {
    let Ok(mut stream) = open(peer).await else { return };
    let id = FragmentId::of(&seed.to_le_bytes());
    let head = put_head(id, "content-length: 8388608");
    let _gone = stream.write_all(head.as_bytes()).await;
    // Fast enough for every floor under the rate.
    while stream.write_all(&[7; 4096]).await.is_ok() && stream.flush().await.is_ok() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn wrong_lengths(peer: &PeerAddress) {
    let id = FragmentId::of(b"nothing");
    let endless = format!("GET /{} HTTP/1.1\r\n", "x".repeat(1 << 20));
    let requests = [
        put_head(id, "transfer-encoding: chunked") + "fffffff0\r\n" + &"x".repeat(1 << 20),
        put_head(id, "content-length: 18446744073709551615"),
        put_head(id, "content-length: 99999999999999999999999"),
        put_head(id, "content-length: -1"),
        put_head(id, "content-length: 5\r\ncontent-length: 6") + "123456",
        put_head(id, "content-length: 5") + &"x".repeat(1 << 20),
        put_head(id, "content-length: 0"),
        put_head(id, ""),
        endless,
        "\0".repeat(1 << 16),
    ];
    for request in requests.iter().cycle() {
        if let Ok(mut stream) = open(peer).await {
            let _gone = stream.write_all(request.as_bytes()).await;
            let _gone = stream.shutdown().await;
            swallow(&mut stream, 1 << 20).await;
        }
    }
}

/// Connections of which each stays as long as the next thousand.
async fn half_open(peer: &PeerAddress, count: usize) {
    let mut held = std::collections::VecDeque::new();
    for _ in 0..count {
        if let Ok(mut stream) = dial_from(elsewhere(), peer).await {
            // The first bytes of a hello.
            let _gone = stream.write_all(&[0x16, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3]).await;
            held.push_back(stream);
        }
        if held.len() > 300 {
            held.pop_front();
        }
    }
}

/// Begins to be malicious; goes on until the set is dropped.
fn begin(malice: Malice, peer: &PeerAddress, public: FragmentId) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let peer = peer.clone();
    match malice {
        Malice::TinyRequests => {
            for _ in 0..8 {
                let peer = peer.clone();
                tasks.spawn(async move { while tiny_requests(&peer, 50_000).await > 0 {} });
            }
        }
        Malice::StalledReads => {
            for _ in 0..100 {
                let peer = peer.clone();
                tasks.spawn(async move { stalled_read(&peer, public).await });
            }
        }
        Malice::SlowBodies => {
            for seed in 0..100 {
                let peer = peer.clone();
                tasks.spawn(async move { slow_body(&peer, seed).await });
            }
        }
        Malice::WrongLengths => {
            for _ in 0..4 {
                let peer = peer.clone();
                tasks.spawn(async move { wrong_lengths(&peer).await });
            }
        }
        Malice::HalfOpen => {
            tasks.spawn(async move { half_open(&peer, usize::MAX).await });
        }
        Malice::Handshakes => {
            for _ in 0..8 {
                let peer = peer.clone();
                tasks.spawn(async move {
                    loop {
                        let _refused = open(&peer).await.is_err();
                    }
                });
            }
        }
    }
    tasks
}

/// What an honest client does: stores a fragment, and reads all and parts of it.
async fn honest_work(client: &Caller, seed: u64) {
    let stored = fragment(seed, 2 * MIB);
    client.put(&stored, Access::Owner).await.unwrap();
    assert_eq!(client.get(&stored, None).await.unwrap(), stored.1);
    for start in [0u64, 100_000, 1_500_000] {
        let bytes =
            client.client.get_range(&client.peer, stored.0, start..start + 65_536, None).await.unwrap();
        let start = usize::try_from(start).unwrap();
        assert_eq!(bytes, stored.1.slice(start..start + 65_536));
    }
}

/// A fragment that everybody may read.
async fn public_fragment(client: &Caller) -> (FragmentId, Bytes) {
    let public = fragment(999, 8 * MIB);
    client.put(&public, Access::Public).await.unwrap();
    public
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_clients_are_served_beside_hostile_ones_in_bounded_memory() {
    for malice in ALL {
        let daemon = Daemon::start(&known(), "", DESCRIPTORS);
        let honest = daemon.caller(&client_key());
        let public = public_fragment(&honest).await;
        let tasks = begin(malice, &daemon.peer, public.0);
        for seed in 0..6 {
            let work = tokio::time::timeout(Duration::from_secs(60), honest_work(&honest, seed));
            work.await.unwrap_or_else(|_| panic!("{malice:?}: an honest client waits"));
            // A new connection is to be had as well.
            let fresh = daemon.caller(&client_key());
            fresh.client.hello(&fresh.peer).await.unwrap_or_else(|error| panic!("{malice:?}: {error}"));
        }
        drop(tasks);
        let peak = daemon.peak_mib();
        assert!(peak <= PEAK_MIB_MAX, "{malice:?}: {peak} MiB");
    }
}

async fn flood_of_tiny_requests(count: usize) {
    // The rate is out of the way: what is looked at is memory.
    let daemon = Daemon::start(&known(), "limits.requests_per_second = 1000000", DESCRIPTORS);
    let before = daemon.peak_mib();
    let mut floods = JoinSet::new();
    for _ in 0..4 {
        let peer = daemon.peer.clone();
        floods.spawn(async move { tiny_requests(&peer, count / 4).await });
    }
    let taken: usize = floods.join_all().await.into_iter().sum();
    assert!(taken >= count, "{taken} of {count}");
    let peak = daemon.peak_mib();
    println!("{count} requests: {before} MiB before, {peak} MiB after");
    assert!(peak <= before + 24, "{before} MiB before, {peak} MiB after");
    honest_work(&daemon.caller(&client_key()), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundred_thousand_tiny_requests_leave_nothing_behind() {
    flood_of_tiny_requests(100_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute"]
async fn million_tiny_requests_leave_nothing_behind() {
    flood_of_tiny_requests(1_000_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_half_open_handshakes_leave_nothing_behind() {
    let daemon = Daemon::start(&known(), "", DESCRIPTORS);
    half_open(&daemon.peer, 10_000).await;
    honest_work(&daemon.caller(&client_key()), 1).await;
    let peak = daemon.peak_mib();
    assert!(peak <= 64, "{peak} MiB");
}

/// Not a test of right or wrong: prints how much honest work is slowed by each malice. Attackers and daemon share this
/// machine's processors, so part of it is what the attackers themselves take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement of minutes; run it alone, in release"]
async fn how_much_hostile_clients_slow_honest_ones() {
    const ROUNDS: usize = 9;
    for malice in ALL {
        let daemon = Daemon::start(&known(), "", DESCRIPTORS);
        let honest = daemon.caller(&client_key());
        let public = public_fragment(&honest).await;
        honest_work(&honest, 1).await;
        let (mut calm, mut beside) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            for with in [false, true] {
                let tasks = with.then(|| begin(malice, &daemon.peer, public.0));
                if with {
                    // Until the flood stands.
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                let start = Instant::now();
                for seed in 0..8 {
                    let seed = u64::try_from(round).unwrap() * 16 + seed + u64::from(with) * 8;
                    honest_work(&honest, 1_000 + seed).await;
                }
                let took = start.elapsed().as_secs_f64();
                drop(tasks);
                if with { beside.push(took) } else { calm.push(took) }
            }
        }
        let mut ratios: Vec<_> = beside.iter().zip(&calm).map(|(beside, calm)| beside / calm).collect();
        ratios.sort_by(f64::total_cmp);
        println!(
            "{malice:?}: median {:.2}, from {:.2} to {:.2} over {ROUNDS} rounds; daemon's peak {} MiB",
            ratios[ROUNDS / 2],
            ratios[0],
            ratios[ROUNDS - 1],
            daemon.peak_mib(),
        );
    }
}

//! A provider that proves its key and answers everything wrongly: each call ends soon with an error that names it, and
//! takes little of what it is sent.

use crate::support::{CLIENT_SEED, SERVER_SEED, any_port, key, peer_at, short_client_limits};
use bytes::Bytes;
use seedbank_formats::{DatasetId, FragmentId, Timestamp};
use seedbank_protocol::messages::{ClaimAction, ClaimRequest};
use seedbank_protocol::routes::Access;
use seedbank_transport::testing::accept;
use seedbank_transport::{BoxedStream, CallError, Identity, PeerAddress, ProviderClient, TcpDial};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Malice {
    /// A body without a length that never ends.
    EndlessChunks,
    /// One of a terabyte.
    Terabyte,
    /// Interim answers, one after the other, and no last one.
    EndlessInterim,
    /// Header lines without an end.
    EndlessHeaders,
    /// A status line without an end.
    EndlessLine,
    /// What should come, one byte at a time.
    Trickle,
    /// A head that announces a body, and no body.
    Stall,
    /// Not a byte.
    Silence,
    /// Fewer bytes than announced, and the end.
    Short,
    /// Bytes that mean nothing, as many as announced.
    Garbage,
}

const ALL: [Malice; 10] = [
    Malice::EndlessChunks,
    Malice::Terabyte,
    Malice::EndlessInterim,
    Malice::EndlessHeaders,
    Malice::EndlessLine,
    Malice::Trickle,
    Malice::Stall,
    Malice::Silence,
    Malice::Short,
    Malice::Garbage,
];

/// What a client may take of an endless answer before it hangs up: its buffers, the sockets', and the longest answer.
const TAKEN_MAX: usize = 16 << 20;

const RANGE: std::ops::Range<u64> = 0..100_000;

/// The status and the header lines that the client hopes for.
fn hoped_for(request: &str) -> (&'static str, String) {
    let put = request.starts_with("PUT ");
    if request.contains("\r\nrange: ") {
        ("206 Partial Content", format!("content-range: bytes {}-{}/500000\r\n", RANGE.start, RANGE.end - 1))
    } else if put {
        ("201 Created", String::new())
    } else {
        ("200 OK", String::new())
    }
}

/// Says the same again and again while the client listens; counts what it took.
async fn forever(stream: &mut BoxedStream, bytes: &[u8], pause: Duration, taken: &AtomicUsize) {
    while stream.write_all(bytes).await.is_ok() && stream.flush().await.is_ok() {
        taken.fetch_add(bytes.len(), Ordering::Relaxed);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

async fn answer(mut stream: BoxedStream, malice: Malice, taken: Arc<AtomicUsize>) {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut request).await, Ok(1..)) {
            return;
        }
    }
    let (status, lines) = hoped_for(&String::from_utf8_lossy(&request).to_lowercase());
    let head = format!("HTTP/1.1 {status}\r\n{lines}");
    let at_once = Duration::ZERO;
    let (start, rest, pause) = match malice {
        Malice::EndlessChunks => {
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            (head + "transfer-encoding: chunked\r\n\r\n", chunk, at_once)
        }
        Malice::Terabyte => (head + "content-length: 1099511627776\r\n\r\n", "x".repeat(0x10000), at_once),
        Malice::EndlessInterim => (String::new(), "HTTP/1.1 103 Early Hints\r\n\r\n".to_owned(), at_once),
        Malice::EndlessHeaders => (head, "x-more: of the same\r\n".to_owned(), at_once),
        Malice::EndlessLine => ("HTTP/1.1 200 ".to_owned(), "O".repeat(1_000), at_once),
        Malice::Trickle => (head + "content-length: 300\r\n\r\n", "x".to_owned(), Duration::from_millis(10)),
        Malice::Stall => (head + "content-length: 300\r\n\r\n", String::new(), at_once),
        Malice::Silence => (String::new(), String::new(), at_once),
        Malice::Short => (head + "content-length: 300\r\n\r\nabc", String::new(), at_once),
        Malice::Garbage => (head + "content-length: 300\r\n\r\n" + &"{".repeat(300), String::new(), at_once),
    };
    let _gone = stream.write_all(start.as_bytes()).await;
    let _gone = stream.flush().await;
    if !rest.is_empty() {
        forever(&mut stream, rest.as_bytes(), pause, &taken).await;
    } else if malice == Malice::Short {
        let _gone = stream.shutdown().await;
    } else {
        // Until the client hangs up.
        let _ended = stream.read_to_end(&mut Vec::new()).await;
    }
}

/// Every call there is; the error of each, with its name.
async fn call_everything(
    client: &ProviderClient,
    peer: &PeerAddress,
) -> Vec<(&'static str, Option<CallError>)> {
    let (bytes, until) = (Bytes::from_static(b"a fragment"), Timestamp(2_000_000_000));
    let id = FragmentId::of(&bytes);
    let claim = [ClaimRequest { fragment: id, action: ClaimAction::Renew(until) }];
    let dataset = DatasetId([3; 32]);
    vec![
        ("hello", client.hello(peer).await.err()),
        ("put_fragment", client.put_fragment(peer, id, bytes.clone(), until, Access::Owner).await.err()),
        ("get_range", client.get_range(peer, id, RANGE, None).await.err()),
        ("get_proof", client.get_proof(peer, id, RANGE, None).await.err()),
        ("claims", client.claims(peer, &claim).await.err()),
        ("list_claims", client.list_claims(peer, None, 10).await.err()),
        ("put_head", client.put_head(peer, dataset, bytes).await.err()),
        ("get_head", client.get_head(peer, dataset).await.err()),
    ]
}

#[tokio::test]
async fn every_call_to_a_hostile_provider_ends_soon_and_takes_little() {
    for malice in ALL {
        let listener = TcpListener::bind(any_port()).await.unwrap();
        let peer = peer_at(listener.local_addr().unwrap());
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&taken);
        let serving = tokio::spawn(async move {
            let (identity, mut answers) = (Identity::new(&key(SERVER_SEED)), JoinSet::new());
            loop {
                if let Ok(stream) = accept(&identity, &listener).await {
                    answers.spawn(answer(stream, malice, Arc::clone(&counted)));
                }
            }
        });
        let client = ProviderClient::new(&Identity::new(&key(CLIENT_SEED)), TcpDial, short_client_limits());
        let calls = tokio::time::timeout(Duration::from_secs(60), call_everything(&client, &peer)).await;
        for (call, error) in calls.unwrap_or_else(|_| panic!("{malice:?}: a call does not end")) {
            // Whether a head is right says its signature, which is checked elsewhere.
            if error.is_none() && malice == Malice::Garbage && call.ends_with("_head") {
                continue;
            }
            let error = error.unwrap_or_else(|| panic!("{malice:?} was believed by {call}"));
            let named = match &error {
                CallError::Malformed { peer, .. }
                | CallError::Slow { peer, .. }
                | CallError::Unreachable { peer, .. } => *peer,
                other => panic!("{malice:?}, {call}: {other}"),
            };
            assert_eq!(named, peer.key, "{malice:?}, {call}");
        }
        serving.abort();
        let taken = taken.load(Ordering::Relaxed);
        assert!(taken <= 8 * TAKEN_MAX, "{malice:?}: {taken} bytes of 8 answers were taken");
    }
}

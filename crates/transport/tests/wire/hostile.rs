//! Strangers who speak no protocol, half of one, or too slowly; honest clients are served beside them.

use crate::support::{
    CLIENT_SEED, SOON, Script, assert_serves, client, fetch, key, raw_client, read_to_end, say_hello, serve,
    short_server_limits,
};
use bytes::Bytes;
use http::Response;
use seedbank_protocol::routes::ALPN;
use seedbank_transport::{
    Body, BoxedStream, Call, CallError, Client, ClientLimits, Dial, DialFuture, Identity, IncomingError,
    PeerAddress, ReaderGone, Server, ServerLimits,
};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;

#[tokio::test]
async fn garbage_instead_of_tls_is_dropped() {
    let (server, peer) = serve(ServerLimits::default(), say_hello).await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 1_000], &[0x16, 0x03, 0x01, 0xff, 0xff, 1, 2, 3, 4]]
    {
        let mut stream = TcpStream::connect(server.local_address()).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(answer.len() < 100, "at most an alert");
    }
    assert_serves(&peer).await;
}

#[tokio::test]
async fn garbage_instead_of_http_is_dropped() {
    let (server, peer) = serve(ServerLimits::default(), say_hello).await;
    for garbage in [&b"\x00\x01\x02 what\r\n\r\n"[..], b"GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n"] {
        let mut stream = raw_client(server.local_address(), &[ALPN]).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    }
    assert_serves(&peer).await;
}

#[tokio::test]
async fn open_handshakes_of_one_source_keep_nobody_out() {
    let limits = ServerLimits {
        connections_max: 8,
        connections_per_source_max: 6,
        handshakes_max: 6,
        handshakes_per_source_max: 4,
        ..ServerLimits::default()
    };
    let (server, peer) = serve(limits, say_hello).await;
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(TcpStream::connect(server.local_address()).await.unwrap());
    }
    assert_serves(&peer).await;
    assert!(server.connections() <= limits.connections_max);
}

#[tokio::test]
async fn handshake_that_does_not_end_is_cut() {
    let (server, peer) = serve(short_server_limits(), say_hello).await;
    let mut stream = TcpStream::connect(server.local_address()).await.unwrap();
    stream.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
    assert!(read_to_end(&mut stream).await.is_empty());
    assert_serves(&peer).await;
}

#[tokio::test]
async fn proven_connections_of_one_source_are_bounded_and_others_served() {
    let limits = ServerLimits { connections_per_source_max: 2, ..ServerLimits::default() };
    let (server, peer) = serve(limits, say_hello).await;
    let address = server.local_address();
    let mut held = Vec::new();
    for _ in 0..2 {
        // An answer shows that the server has finished its side of the handshake.
        let mut stream = raw_client(address, &[ALPN]).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        stream.read_u8().await.unwrap();
        held.push(stream);
    }
    let outcome = fetch(&client(ClientLimits::default()), &peer).await;
    assert!(matches!(outcome, Err(CallError::Unreachable { .. })), "{outcome:?}");

    let identity = Identity::new(&key(CLIENT_SEED));
    let elsewhere = Client::new(&identity, DialFromElsewhere, ClientLimits::default());
    assert_eq!(fetch(&elsewhere, &peer).await.unwrap(), "hello");
    drop(held);
}

/// Dials from another loopback address.
struct DialFromElsewhere;

impl Dial for DialFromElsewhere {
    fn dial<'a>(&'a self, peer: &'a PeerAddress) -> DialFuture<'a> {
        Box::pin(async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::from(([127, 0, 0, 2], 0)))?;
            let stream = socket.connect(peer.address.parse().map_err(io::Error::other)?).await?;
            Ok(Box::new(stream) as BoxedStream)
        })
    }
}

#[tokio::test]
async fn oversized_headers_are_refused() {
    let (server, peer) = serve(ServerLimits::default(), say_hello).await;
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(20_000));
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(100));
    for request in [long, many] {
        let mut stream = raw_client(server.local_address(), &[ALPN]).await.unwrap();
        let _ = stream.write_all(request.as_bytes()).await;
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));
    }
    assert_serves(&peer).await;
}

#[tokio::test]
async fn headers_that_do_not_end_are_cut() {
    let (server, peer) = serve(short_server_limits(), say_hello).await;
    let mut stream = raw_client(server.local_address(), &[ALPN]).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
    read_to_end(&mut stream).await;
    assert_serves(&peer).await;
}

#[tokio::test]
async fn body_that_comes_too_slowly_is_cut() {
    let (report, mut reports) = mpsc::channel(1);
    let (server, _) = serve(short_server_limits(), move |mut call: Call| {
        let report = report.clone();
        async move {
            let outcome = call.request.body_mut().read_all(1 << 20).await;
            report.send(outcome).await.unwrap();
            Response::new(Body::empty())
        }
    })
    .await;
    let mut stream = raw_client(server.local_address(), &[ALPN]).await.unwrap();
    stream.write_all(b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 500000\r\n\r\n").await.unwrap();
    // A byte at a time, each well within the window.
    let trickle = async {
        while stream.write_all(b"x").await.is_ok() && stream.flush().await.is_ok() {
            tokio::time::sleep(SOON / 10).await;
        }
    };
    tokio::select! {
        outcome = reports.recv() => assert!(matches!(outcome, Some(Err(IncomingError::TooSlow))), "{outcome:?}"),
        () = trickle => panic!("cut before it was reported"),
    }
}

#[tokio::test]
async fn client_that_does_not_take_its_answer_is_cut() {
    let (report, mut reports) = mpsc::channel(1);
    let (server, peer) = serve(short_server_limits(), move |_| {
        let report = report.clone();
        async move {
            let (sender, body) = Body::produced(1 << 40);
            tokio::spawn(async move {
                let piece = Bytes::from(vec![0; 256 * 1024]);
                while sender.send(piece.clone()).await.is_ok() {}
                report.send(ReaderGone).await.unwrap();
            });
            Response::new(body)
        }
    })
    .await;
    let mut stream = raw_client(server.local_address(), &[ALPN]).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(reports.recv().await, Some(ReaderGone));
    drop(peer);
}

#[tokio::test]
async fn body_above_the_readers_limit_is_refused_before_it_is_read() {
    let (server, _) = serve(ServerLimits::default(), async |mut call: Call| {
        let outcome = call.request.body_mut().read_all(10).await;
        Response::new(Body::from(format!("{outcome:?}").into_bytes()))
    })
    .await;
    let mut stream = raw_client(server.local_address(), &[ALPN]).await.unwrap();
    stream
        .write_all(b"PUT / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 11\r\n\r\n12345678901")
        .await
        .unwrap();
    let answer = String::from_utf8(read_to_end(&mut stream).await).unwrap();
    assert!(answer.contains("TooLong"), "{answer}");
}

#[tokio::test]
async fn address_in_use_is_told() {
    let (server, _) = serve(ServerLimits::default(), say_hello).await;
    let identity = Identity::new(&key(CLIENT_SEED));
    let again = Server::bind(server.local_address(), &identity, ServerLimits::default(), Script(say_hello));
    assert_eq!(again.await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    server.shutdown(Duration::from_secs(1)).await;
}

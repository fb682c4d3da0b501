//! Who is who: keys on both sides, and the protocol's version.

use crate::support::{
    RawServer, any_port, assert_serves, client, client_key, fetch, key, peer_at, raw_client, read_to_end,
    say_hello, serve,
};
use http::Response;
use seedbank_protocol::routes::ALPN;
use seedbank_transport::{Body, CallError, ClientLimits, PeerAddress, ServerLimits};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn handler_sees_the_key_that_the_client_proved() {
    let (_server, peer) = serve(ServerLimits::default(), async |call| {
        Response::new(Body::from(call.peer.to_string().into_bytes()))
    })
    .await;
    let seen = fetch(&client(ClientLimits::default()), &peer).await.unwrap();
    assert_eq!(seen, client_key().to_string().as_bytes());
}

#[tokio::test]
async fn another_peer_at_the_address_is_named_and_gets_no_request() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let (_server, peer) = serve(ServerLimits::default(), move |call| {
        counted.fetch_add(1, Ordering::Relaxed);
        say_hello(call)
    })
    .await;
    let dialled = PeerAddress { key: key(9).public(), address: peer.address.clone() };
    match fetch(&client(ClientLimits::default()), &dialled).await {
        Err(CallError::WrongPeer { expected, found, address }) => {
            assert_eq!((expected, found, address), (dialled.key, peer.key, peer.address));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(requests.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn client_without_our_protocol_is_told_what_is_spoken() {
    let (server, peer) = serve(ServerLimits::default(), say_hello).await;
    let mut stream = raw_client(server.local_address(), &[]).await.unwrap();
    stream.write_all(b"GET /v1/hello HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let answer = String::from_utf8(read_to_end(&mut stream).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 505 "), "{answer}");
    assert!(answer.contains("this peer speaks seedbank/1"), "{answer}");
    assert!(raw_client(server.local_address(), &["seedbank/2", "h2"]).await.is_err());
    assert_serves(&peer).await;
}

#[tokio::test]
async fn server_without_our_protocol_is_a_wrong_version() {
    for protocols in [&[][..], &["seedbank/2"]] {
        let (raw, peer) = RawServer::bind(protocols).await;
        let client = client(ClientLimits::default());
        let (_, outcome) = tokio::join!(raw.accept(), fetch(&client, &peer));
        assert!(matches!(outcome, Err(CallError::WrongVersion { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn both_versions_offered_settle_on_ours() {
    let (server, _) = serve(ServerLimits::default(), say_hello).await;
    let stream = raw_client(server.local_address(), &["seedbank/2", ALPN]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(ALPN.as_bytes()));
}

#[tokio::test]
async fn nobody_at_the_address_is_unreachable() {
    let (server, peer) = serve(ServerLimits::default(), say_hello).await;
    server.shutdown(std::time::Duration::ZERO).await;
    let outcome = fetch(&client(ClientLimits::default()), &peer).await;
    assert!(matches!(outcome, Err(CallError::Unreachable { .. })), "{outcome:?}");
}

/// A TLS record with a handshake message of TLS 1.2. Our build of rustls can't speak it, so it is written by hand.
fn tls12_record(message: u8, fields: &[&[u8]]) -> Vec<u8> {
    let random = [7; 32];
    let body = [&[&[3, 3][..], &random], fields].concat().concat();
    let length = u8::try_from(body.len()).expect("it is short");
    [&[0x16, 3, 3, 0, length + 4, message, 0, 0, length][..], &body].concat()
}

#[tokio::test]
async fn client_that_offers_only_an_older_tls_is_refused() {
    let (server, peer) = serve(ServerLimits::default(), say_hello).await;
    // No session id, two suites of TLS 1.2, no compression; X25519, Ed25519 and ECDSA as extensions.
    let hello = tls12_record(
        1,
        &[
            &[0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0],
            &[0, 18, 0, 10, 0, 4, 0, 2, 0, 29, 0, 13, 0, 6, 0, 4, 8, 7, 4, 3],
        ],
    );
    let mut stream = TcpStream::connect(server.local_address()).await.unwrap();
    stream.write_all(&hello).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert_eq!(answer, [0x15, 3, 3, 0, 2, 2, 70], "a fatal alert: protocol version");
    assert_serves(&peer).await;
}

#[tokio::test]
async fn server_that_answers_with_an_older_tls_is_refused() {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let peer = peer_at(listener.local_addr().unwrap());
    let client = client(ClientLimits::default());
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut start = [0; 5];
        stream.read_exact(&mut start).await.unwrap();
        let mut hello = vec![0; usize::from(u16::from_be_bytes([start[3], start[4]]))];
        stream.read_exact(&mut hello).await.unwrap();
        stream.write_all(&tls12_record(2, &[&[0, 0xc0, 0x2b, 0]])).await.unwrap();
        read_to_end(&mut stream).await
    };
    let (said, outcome) = tokio::join!(serve, fetch(&client, &peer));
    assert!(outcome.is_err(), "{outcome:?}");
    assert_eq!((said.len(), &said[..6]), (7, &[0x15, 3, 3, 0, 2, 2][..]), "a fatal alert and nothing else");
}

//! Who is who: keys on both sides, and the protocol's version.

use crate::support::{
    RawServer, assert_serves, client, client_key, fetch, key, raw_client, read_to_end, say_hello, serve,
};
use http::Response;
use seedbank_protocol::routes::ALPN;
use seedbank_transport::{Body, CallError, ClientLimits, PeerAddress, ServerLimits};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::AsyncWriteExt;

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

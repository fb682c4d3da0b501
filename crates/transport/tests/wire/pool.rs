//! Connections: reused, bounded, replaced when stale, closed when a request is dropped, and finished at shutdown.

use crate::support::{
    MAX, RawServer, Script, any_port, assert_serves, client, fetch, get, key, put, read_head, say_hello,
    serve, short_server_limits, write,
};
use bytes::Bytes;
use http::{Response, StatusCode};
use seedbank_formats::FragmentId;
use seedbank_protocol::routes::ALPN;
use seedbank_transport::{Body, Call, CallError, ClientLimits, Identity, PeerAddress, Server, ServerLimits};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Barrier, Semaphore, mpsc};

type Remotes = Arc<Mutex<HashSet<SocketAddr>>>;

fn note(remotes: &Remotes, call: &Call) {
    remotes.lock().unwrap().insert(call.remote);
}

#[tokio::test]
async fn requests_one_after_another_share_a_connection() {
    let remotes = Remotes::default();
    let seen = Arc::clone(&remotes);
    let (server, peer) = serve(ServerLimits::default(), move |call| {
        note(&seen, &call);
        say_hello(call)
    })
    .await;
    let client = client(ClientLimits::default());
    for _ in 0..20 {
        assert_eq!(fetch(&client, &peer).await.unwrap(), "hello");
    }
    assert_eq!(remotes.lock().unwrap().len(), 1);
    assert_eq!((server.connections(), client.idle_connections()), (1, 1));
}

#[tokio::test]
async fn requests_at_once_share_a_bounded_pool() {
    let remotes = Remotes::default();
    let seen = Arc::clone(&remotes);
    // Answers only when all three connections have a request: they do run at once.
    let together = Arc::new(Barrier::new(3));
    let (_server, peer) = serve(ServerLimits::default(), move |call| {
        note(&seen, &call);
        let together = Arc::clone(&together);
        async move {
            together.wait().await;
            say_hello(call).await
        }
    })
    .await;
    let client = client(ClientLimits { connections_per_peer: 3, ..ClientLimits::default() });
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..24 {
        let (client, peer) = (client.clone(), peer.clone());
        calls.spawn(async move { fetch(&client, &peer).await });
    }
    for outcome in calls.join_all().await {
        assert_eq!(outcome.unwrap(), "hello");
    }
    assert_eq!(remotes.lock().unwrap().len(), 3);
    assert_eq!(client.idle_connections(), 3);
}

#[tokio::test]
async fn idle_connections_are_bounded_over_all_peers() {
    let client = client(ClientLimits { idle_max: 1, ..ClientLimits::default() });
    let (_one, first) = serve(ServerLimits::default(), say_hello).await;
    for _ in 0..2 {
        fetch(&client, &first).await.unwrap();
    }
    let identity = Identity::new(&key(7));
    let other =
        Server::bind(any_port(), &identity, ServerLimits::default(), Script(say_hello)).await.unwrap();
    let second = PeerAddress { key: identity.public(), address: other.local_address().to_string() };
    fetch(&client, &second).await.unwrap();
    assert_eq!(client.idle_connections(), 1);
}

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

#[tokio::test]
async fn request_that_meets_a_closing_connection_is_made_again_once() {
    let (raw, peer) = RawServer::bind(&[ALPN]).await;
    let server = async {
        let mut first = raw.accept().await.unwrap();
        read_head(&mut first).await;
        write(&mut first, HELLO).await;
        read_head(&mut first).await;
        drop(first);
        let mut second = raw.accept().await.unwrap();
        read_head(&mut second).await;
        write(&mut second, HELLO).await;
        read_head(&mut second).await;
        drop(second);
        // The third request met a closing connection, and its repetition a new one that closes as well.
        let mut third = raw.accept().await.unwrap();
        read_head(&mut third).await;
        drop(third);
        raw.accept().await.unwrap();
    };
    let client = client(ClientLimits::default());
    let calls = async {
        assert_eq!(fetch(&client, &peer).await.unwrap(), "hello");
        assert_eq!(fetch(&client, &peer).await.unwrap(), "hello");
        let outcome = fetch(&client, &peer).await;
        assert!(matches!(outcome, Err(CallError::Unreachable { .. })), "{outcome:?}");
    };
    tokio::select! {
        () = server => panic!("a fourth connection"),
        () = calls => {}
    }
}

#[tokio::test]
async fn connection_that_the_server_closed_while_idle_is_replaced() {
    let (server, peer) = serve(short_server_limits(), say_hello).await;
    let client = client(ClientLimits::default());
    assert_eq!(fetch(&client, &peer).await.unwrap(), "hello");
    while server.connections() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fetch(&client, &peer).await.unwrap(), "hello");
}

/// Reports when it is dropped.
struct Dropped(mpsc::UnboundedSender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test]
async fn dropped_request_stops_its_handler_and_frees_its_place() {
    let (started, mut starts) = mpsc::unbounded_channel();
    let (dropped, mut drops) = mpsc::unbounded_channel();
    let (_server, peer) = serve(ServerLimits::default(), move |call: Call| {
        let (started, guard) = (started.clone(), Dropped(dropped.clone()));
        async move {
            if call.request.uri().path() == "/stuck" {
                let _guard = guard;
                started.send(()).unwrap();
                std::future::pending::<()>().await;
            }
            say_hello(call).await
        }
    })
    .await;
    let client = client(ClientLimits { connections_per_peer: 1, ..ClientLimits::default() });
    let stuck = get("/stuck");
    tokio::select! {
        outcome = client.call(&peer, &stuck, MAX) => panic!("{outcome:?}"),
        start = starts.recv() => assert_eq!(start, Some(())),
    }
    assert_eq!(drops.recv().await, Some(()));
    assert_eq!(fetch(&client, &peer).await.unwrap(), "hello");
}

#[tokio::test]
async fn large_body_arrives_whole() {
    let (_server, peer) = serve(ServerLimits::default(), async |mut call: Call| {
        assert_eq!(call.request.body().length(), Some(5_000_000));
        let mut whole = Vec::new();
        while let Some(piece) = call.request.body_mut().next().await {
            whole.extend_from_slice(&piece.unwrap());
        }
        Response::new(Body::from(FragmentId::of(&whole).to_string().into_bytes()))
    })
    .await;
    let body: Vec<u8> = (0..5_000_000u32).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[2]).collect();
    let id = FragmentId::of(&body);
    let client = client(ClientLimits::default());
    let request = put("/", body);
    for _ in 0..2 {
        let answer = client.call(&peer, &request, MAX).await.unwrap();
        assert_eq!(answer.body(), id.to_string().as_bytes());
    }
    assert_eq!(client.idle_connections(), 1);
}

#[tokio::test]
async fn refused_large_body_is_never_sent_and_short_one_leaves_the_connection_alive() {
    let remotes = Remotes::default();
    let seen = Arc::clone(&remotes);
    let (_server, peer) = serve(ServerLimits::default(), move |call| {
        note(&seen, &call);
        async move {
            let mut response = Response::new(Body::from(Bytes::from_static(b"no")));
            *response.status_mut() = StatusCode::FORBIDDEN;
            response
        }
    })
    .await;
    let client = client(ClientLimits::default());
    for _ in 0..3 {
        let answer = client.call(&peer, &put("/", vec![7; 200_000]), MAX).await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    }
    assert_eq!(remotes.lock().unwrap().len(), 1);
    for _ in 0..3 {
        let answer = client.call(&peer, &put("/", vec![7; 60_000_000]), MAX).await.unwrap();
        assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::FORBIDDEN, &b"no"[..]));
    }
    assert_eq!(client.idle_connections(), 0);
}

#[tokio::test]
async fn shutdown_lets_requests_in_flight_finish() {
    let (started, mut starts) = mpsc::unbounded_channel();
    let release = Arc::new(Semaphore::new(0));
    let released = Arc::clone(&release);
    let (server, peer) = serve(ServerLimits::default(), move |call: Call| {
        let (started, released) = (started.clone(), Arc::clone(&released));
        async move {
            started.send(()).unwrap();
            released.acquire().await.unwrap().forget();
            say_hello(call).await
        }
    })
    .await;
    let client = client(ClientLimits::default());
    let call = async {
        let answer = fetch(&client, &peer).await;
        (answer, fetch(&client, &peer).await)
    };
    let shutdown = async {
        starts.recv().await.unwrap();
        let mut shutdown = std::pin::pin!(server.shutdown(Duration::from_secs(60)));
        // Begin the shutdown before the handler may go on.
        tokio::select! {
            biased;
            () = &mut shutdown => panic!("a request is in flight"),
            () = tokio::task::yield_now() => {}
        }
        release.add_permits(1);
        shutdown.await;
    };
    let ((first, second), ()) = tokio::join!(call, shutdown);
    assert_eq!(first.unwrap(), "hello");
    assert!(matches!(second, Err(CallError::Unreachable { .. })), "{second:?}");
}

#[tokio::test]
async fn shutdown_cuts_what_does_not_finish_in_time() {
    let (dropped, mut drops) = mpsc::unbounded_channel();
    let (started, mut starts) = mpsc::unbounded_channel();
    let (server, peer) = serve(ServerLimits::default(), move |call: Call| {
        let (guard, started) = (Dropped(dropped.clone()), started.clone());
        async move {
            let _guard = guard;
            started.send(()).unwrap();
            std::future::pending::<()>().await;
            say_hello(call).await
        }
    })
    .await;
    let client = client(ClientLimits::default());
    let shutdown = async {
        starts.recv().await.unwrap();
        server.shutdown(Duration::from_millis(20)).await;
        drops.try_recv().expect("no task outlives the shutdown");
    };
    let (outcome, ()) = tokio::join!(fetch(&client, &peer), shutdown);
    assert!(matches!(outcome, Err(CallError::Unreachable { .. })), "{outcome:?}");
}

#[tokio::test]
async fn dropped_server_serves_no_more() {
    let (server, peer) = serve(ServerLimits::default(), say_hello).await;
    assert_serves(&peer).await;
    drop(server);
    let client = client(ClientLimits::default());
    // The tasks end at their next turn.
    while fetch(&client, &peer).await.is_ok() {}
}

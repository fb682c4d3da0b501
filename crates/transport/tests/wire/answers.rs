//! Servers that answer wrongly, partly, late or never.

use crate::support::{
    MAX, RawServer, SOON, client, fetch, get, put, read_head, serve, short_client_limits, write,
};
use bytes::Bytes;
use http::Response;
use seedbank_protocol::routes::ALPN;
use seedbank_transport::{
    AnswerMax, Body, Call, CallError, ClientLimits, MalformedAnswer, Phase, ServerLimits,
};
use std::time::{Duration, Instant};

/// What the client makes of a server that reads the request and then writes this, and waits for ever or closes.
async fn outcome_of(answer: &[u8], then: Then) -> Result<Bytes, CallError> {
    let (raw, peer) = RawServer::bind(&[ALPN]).await;
    let server = async {
        let mut stream = raw.accept().await.unwrap();
        read_head(&mut stream).await;
        write(&mut stream, answer).await;
        match then {
            Then::Close => drop(stream),
            Then::Wait => {}
        }
        std::future::pending::<()>().await;
    };
    let client = client(short_client_limits());
    tokio::select! {
        () = server => unreachable!("it waits for ever"),
        outcome = fetch(&client, &peer) => outcome,
    }
}

#[derive(Clone, Copy)]
enum Then {
    Close,
    Wait,
}

#[tokio::test]
async fn server_that_never_answers_is_slow() {
    let outcome = outcome_of(b"", Then::Wait).await;
    assert!(matches!(outcome, Err(CallError::Slow { phase: Phase::Answering, .. })), "{outcome:?}");
}

#[tokio::test]
async fn server_that_never_says_go_ahead_is_slow() {
    let (raw, peer) = RawServer::bind(&[ALPN]).await;
    let server = async {
        let mut stream = raw.accept().await.unwrap();
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    };
    let client = client(short_client_limits());
    let request = put("/", vec![0; 10_000_000]);
    tokio::select! {
        () = server => unreachable!("it waits for ever"),
        outcome = client.call(&peer, &request, MAX) => {
            assert!(matches!(outcome, Err(CallError::Slow { phase: Phase::Answering, .. })), "{outcome:?}");
        }
    }
}

#[tokio::test]
async fn upload_longer_than_the_answers_deadline_is_not_cut() {
    const BYTES: usize = 40_000_000;
    let (_server, peer) = serve(ServerLimits::default(), async |mut call: Call| {
        let mut taken = 0;
        while let Some(piece) = call.request.body_mut().next().await {
            let before = taken;
            taken += piece.unwrap().len();
            if before / (BYTES / 16) < taken / (BYTES / 16) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Response::new(Body::from(taken.to_string().into_bytes()))
    })
    .await;
    let limits = ClientLimits { answer: Duration::from_millis(500), ..ClientLimits::default() };
    let start = Instant::now();
    let answer = client(limits).call(&peer, &put("/", vec![0; BYTES]), MAX).await.unwrap();
    assert_eq!(answer.body(), BYTES.to_string().as_bytes());
    assert!(start.elapsed() > limits.answer);
}

#[tokio::test]
async fn server_that_closes_without_an_answer_is_unreachable() {
    let outcome = outcome_of(b"", Then::Close).await;
    assert!(matches!(outcome, Err(CallError::Unreachable { .. })), "{outcome:?}");
}

#[tokio::test]
async fn half_an_answer_is_none() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345";
    let outcome = outcome_of(half, Then::Close).await;
    assert!(matches!(outcome, Err(CallError::Unreachable { .. })), "{outcome:?}");
    let outcome = outcome_of(half, Then::Wait).await;
    assert!(matches!(outcome, Err(CallError::Slow { phase: Phase::Receiving, .. })), "{outcome:?}");
    let outcome = outcome_of(b"HTTP/1.1 200 O", Then::Close).await;
    assert!(matches!(outcome, Err(CallError::Unreachable { .. })), "{outcome:?}");
}

#[tokio::test]
async fn answer_that_is_no_http_is_malformed() {
    let outcome = outcome_of(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", Then::Wait).await;
    assert!(
        matches!(outcome, Err(CallError::Malformed { reason: MalformedAnswer::NotHttp(_), .. })),
        "{outcome:?}"
    );
    let endless = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'y'; 20_000]].concat();
    let outcome = outcome_of(&endless, Then::Wait).await;
    assert!(matches!(outcome, Err(CallError::Malformed { .. })), "{outcome:?}");
}

#[tokio::test]
async fn answer_that_is_too_long_is_not_read() {
    let announced = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n";
    let unannounced = [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n200000\r\n".to_vec(),
        vec![b'y'; MAX.success + 1],
    ]
    .concat();
    for answer in [&announced[..], &unannounced] {
        let outcome = outcome_of(answer, Then::Wait).await;
        assert!(
            matches!(
                outcome,
                Err(CallError::Malformed { reason: MalformedAnswer::TooLong { limit }, .. }) if limit == MAX.success
            ),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn answer_that_trickles_is_slow() {
    let (_server, peer) = serve(ServerLimits::default(), async |_| {
        let (sender, body) = Body::produced(1 << 19);
        tokio::spawn(async move {
            while sender.send(Bytes::from_static(b"x")).await.is_ok() {
                tokio::time::sleep(SOON / 10).await;
            }
        });
        Response::new(body)
    })
    .await;
    let outcome = fetch(&client(short_client_limits()), &peer).await;
    assert!(matches!(outcome, Err(CallError::Slow { phase: Phase::Receiving, .. })), "{outcome:?}");
}

#[tokio::test]
async fn producer_that_stops_early_breaks_the_answer_off() {
    let (_server, peer) = serve(ServerLimits::default(), async |_| {
        let (sender, body) = Body::produced(100);
        sender.send(Bytes::from_static(b"half")).await.unwrap();
        Response::new(body)
    })
    .await;
    let outcome = fetch(&client(ClientLimits::default()), &peer).await;
    assert!(matches!(outcome, Err(CallError::Unreachable { .. })), "{outcome:?}");
}

#[tokio::test]
async fn produced_body_arrives_whole() {
    let (_server, peer) = serve(ServerLimits::default(), async |_| {
        let (sender, body) = Body::produced(3_000_000);
        tokio::task::spawn_blocking(move || {
            for piece in 0..3u8 {
                sender.blocking_send(Bytes::from(vec![piece; 1_000_000])).unwrap();
            }
        });
        Response::new(body)
    })
    .await;
    let answer_max = AnswerMax { success: 3_000_000, refusal: 0 };
    let answer =
        client(ClientLimits::default()).call(&peer, &get("/"), answer_max).await.unwrap().into_body();
    let expected: Vec<u8> = (0..3u8).flat_map(|piece| vec![piece; 1_000_000]).collect();
    assert!(answer == expected);
}

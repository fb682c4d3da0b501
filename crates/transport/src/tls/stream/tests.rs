//! Our streams against rustls's own, and against whoever breaks the rules.

use super::super::record::{Content, Fault, OVERHEAD, PLAINTEXT_MAX};
use super::super::{accept, client_config, connect, no_name, server_config};
use super::{CHATTER_MAX, KEY_UPDATE, TlsStream};
use crate::Identity;
use rustls::{ClientConfig, ServerConfig};
use seedbank_formats::keys::SigningKey;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Smaller than any buffer, so that every write meets a full socket.
const SOCKET_BYTES: usize = 10_000;

fn identity(seed: u8) -> Identity {
    Identity::new(&SigningKey::from_seed([seed; 32]))
}

fn configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    (client_config(&identity(2), identity(1).public()), server_config(&identity(1)))
}

type Ours = TlsStream<DuplexStream>;

async fn ours() -> (Ours, Ours) {
    let ((client, server), (near, far)) = (configs(), duplex(SOCKET_BYTES));
    let (near, far) = tokio::join!(connect(client, near), accept(server, far));
    let (near, far) = (near.unwrap(), far.unwrap());
    assert_eq!((near.peer(), far.peer()), (Some(identity(1).public()), Some(identity(2).public())));
    assert_eq!((near.protocol(), far.protocol()), (Some(&b"seedbank/1"[..]), Some(&b"seedbank/1"[..])));
    (near, far)
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251).to_le_bytes()[0]).collect()
}

/// Sends bytes both ways at once, ends both directions, and checks what came.
async fn talk(near: impl AsyncRead + AsyncWrite + Unpin, far: impl AsyncRead + AsyncWrite + Unpin) {
    tokio::join!(half(near), half(far));
}

async fn half(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let sent = bytes(3_000_001);
    let (mut reader, mut writer) = split(stream);
    let write = async {
        // Pieces of all sizes around a record's, and of none.
        let mut rest = &sent[..];
        for piece in [1, 0, PLAINTEXT_MAX - 1, PLAINTEXT_MAX, PLAINTEXT_MAX + 1, 500_000].iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*piece));
            writer.write_all(now).await.unwrap();
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        writer.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let (read, ()) = tokio::join!(reader.read_to_end(&mut received), write);
    read.unwrap();
    assert!(received == sent);
}

#[tokio::test]
async fn both_ends_of_ours_understand_each_other() {
    let (near, far) = ours().await;
    talk(near, far).await;
}

#[tokio::test]
async fn our_client_and_server_understand_those_of_rustls() {
    let ((client, server), (near, far)) = (configs(), duplex(SOCKET_BYTES));
    let (near, far) = tokio::join!(connect(client, near), TlsAcceptor::from(server).accept(far));
    talk(near.unwrap(), far.unwrap()).await;

    let ((client, server), (near, far)) = (configs(), duplex(SOCKET_BYTES));
    let connector = TlsConnector::from(client);
    let (near, far) = tokio::join!(connector.connect(no_name(), near), accept(server, far));
    talk(near.unwrap(), far.unwrap()).await;
}

#[tokio::test]
async fn tickets_of_a_server_are_ignored() {
    let ((client, server), (near, far)) = (configs(), duplex(SOCKET_BYTES));
    let (mut client, mut server) = (Arc::unwrap_or_clone(client), Arc::unwrap_or_clone(server));
    server.send_tls13_tickets = 2;
    server.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    client.resumption = rustls::client::Resumption::in_memory_sessions(4);
    let (near, far) =
        tokio::join!(connect(Arc::new(client), near), TlsAcceptor::from(Arc::new(server)).accept(far));
    talk(near.unwrap(), far.unwrap()).await;
}

#[tokio::test]
async fn data_right_behind_the_last_flight_is_kept() {
    // rustls's client sends its last flight together with what was written, when nobody flushes before.
    let ((client, server), (near, mut wire)) = (configs(), duplex(1 << 20));
    let client = async {
        let mut near = TlsConnector::from(client).connect(no_name(), near).await.unwrap();
        near.write_all(&bytes(40_000)).await.unwrap();
        near.shutdown().await.unwrap();
        near
    };
    let (far, mut socket) = duplex(1 << 20);
    let relay = async {
        // The hello at once; what follows only when all of it has come.
        let mut flight = vec![0; 16 << 10];
        let length = wire.read(&mut flight).await.unwrap();
        socket.write_all(&flight[..length]).await.unwrap();
        let length = socket.read(&mut flight).await.unwrap();
        wire.write_all(&flight[..length]).await.unwrap();
        let mut rest = Vec::new();
        wire.read_to_end(&mut rest).await.unwrap();
        socket.write_all(&rest).await.unwrap();
        (wire, socket)
    };
    let server = async {
        let mut far = accept(server, far).await.unwrap();
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        received
    };
    let (_near, _relay, received) = tokio::join!(client, relay, server);
    assert!(received == bytes(40_000));
}

#[tokio::test]
async fn keys_are_renewed_in_time_and_when_the_peer_asks() {
    let (mut near, mut far) = ours().await;
    (near.records_per_key_max, far.records_per_key_max) = (3, 5);
    // Asks the other end for new keys, as rustls does when it renews its own.
    let [kind, a, b, c] = KEY_UPDATE;
    near.queue(Content::Handshake, &[kind, a, b, c, 1]);
    let super::Keys::Client(keys) = &mut near.keys else { unreachable!("a client") };
    near.sealer = keys.update_tx_secret().and_then(super::Sealer::new).unwrap();
    talk(near, far).await;
}

#[tokio::test]
async fn keys_are_renewed_together_with_rustls() {
    let ((client, server), (near, far)) = (configs(), duplex(SOCKET_BYTES));
    let (near, far) = tokio::join!(connect(client, near), TlsAcceptor::from(server).accept(far));
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    near.records_per_key_max = 3;
    // Asks for an update of ours, too.
    far.get_mut().1.refresh_traffic_keys().unwrap();
    talk(near, far).await;
}

#[tokio::test]
async fn stream_that_breaks_off_is_not_taken_for_one_that_ended() {
    let (mut near, mut far) = ours().await;
    near.write_all(b"part").await.unwrap();
    near.flush().await.unwrap();
    drop(near);
    let mut received = Vec::new();
    let error = far.read_to_end(&mut received).await.unwrap_err();
    assert_eq!((error.kind(), &received[..]), (ErrorKind::UnexpectedEof, &b"part"[..]));

    let (mut near, mut far) = ours().await;
    near.write_all(b"whole").await.unwrap();
    near.shutdown().await.unwrap();
    drop(near);
    assert_eq!(far.read_to_end(&mut Vec::new()).await.unwrap(), 5);
    assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0, "an end stays an end");
}

#[tokio::test]
async fn nothing_is_written_after_the_end() {
    let (mut near, _far) = ours().await;
    near.shutdown().await.unwrap();
    assert_eq!(near.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

fn fault(error: &io::Error) -> Fault {
    *error.get_ref().unwrap().downcast_ref::<Fault>().unwrap()
}

/// What the other end makes of records that `near` sends, and what it tells `near`.
async fn judged(records: &[(Content, &[u8])]) -> (Fault, Option<Fault>) {
    let (mut near, mut far) = ours().await;
    for (content, bytes) in records {
        near.queue(*content, bytes);
    }
    near.flush().await.unwrap();
    let mut received = Vec::new();
    let read = tokio::time::timeout(std::time::Duration::from_secs(5), far.read_to_end(&mut received)).await;
    let error = read.expect("the connection ends").unwrap_err();
    assert_eq!(far.read(&mut [0; 8]).await.map_err(|error| fault(&error)), Err(fault(&error)), "it stays so");
    assert!(far.write(b"x").await.is_err(), "nothing more is said to a peer that broke the rules");
    drop(far);
    let told = near.read(&mut [0; 8]).await.unwrap_err();
    (fault(&error), told.get_ref().map(|_| fault(&told)))
}

#[tokio::test]
async fn records_that_have_no_place_end_the_connection_with_an_alert() {
    let update = |wanted| [&KEY_UPDATE[..], &[wanted]].concat();
    for (content, bytes) in [
        (Content::Handshake, &[1, 0, 0, 0][..]),
        (Content::Handshake, &[]),
        (Content::Handshake, &update(2)),
        (Content::Handshake, &[&update(0)[..], &update(0)].concat()),
        // A ticket, from a client.
        (Content::Handshake, &[4, 0, 0, 0]),
    ] {
        assert_eq!(
            judged(&[(content, bytes)]).await,
            (Fault::Unexpected, Some(Fault::Alert(10))),
            "{bytes:?}"
        );
    }
    assert_eq!(judged(&[(Content::Alert, &[1])]).await, (Fault::Undecodable, Some(Fault::Alert(50))));
    // An alert is answered with silence.
    assert_eq!(judged(&[(Content::Alert, &[2, 80])]).await, (Fault::Alert(80), None));
    let chatter = vec![(Content::Data, &[][..]); usize::try_from(CHATTER_MAX).unwrap() + 1];
    assert_eq!(judged(&chatter).await, (Fault::Chatter, Some(Fault::Alert(10))));
}

#[tokio::test]
async fn chatter_between_data_is_put_up_with() {
    let (mut near, mut far) = ours().await;
    let canceled = (Content::Alert, &[1, 90][..]);
    for _ in 0..CHATTER_MAX {
        near.queue(canceled.0, canceled.1);
    }
    near.queue(Content::Data, b"data");
    for _ in 0..CHATTER_MAX {
        near.queue(Content::Data, b"");
    }
    near.shutdown().await.unwrap();
    // The end itself is one record too many.
    let mut received = Vec::new();
    let error = far.read_to_end(&mut received).await.unwrap_err();
    assert_eq!((fault(&error), &received[..]), (Fault::Chatter, &b"data"[..]));
}

#[tokio::test]
async fn changed_bytes_end_the_connection_behind_what_was_right() {
    let (near, far) = duplex(1 << 16);
    let (wire_near, mut wire_far) = (near, far);
    let (client, server) = configs();
    let (far_socket, mut relay) = duplex(1 << 16);
    let connected = async { tokio::join!(connect(client, wire_near), accept(server, far_socket)) };
    let carry = tokio::io::copy_bidirectional(&mut wire_far, &mut relay);
    let (mut near, mut far) = tokio::select! {
        (near, far) = connected => (near.unwrap(), far.unwrap()),
        _ = carry => unreachable!("nobody closes"),
    };
    near.write_all(b"right").await.unwrap();
    near.write_all(b"wrong").await.unwrap();
    near.flush().await.unwrap();
    let mut records = vec![0; 2 * (5 + OVERHEAD)];
    wire_far.read_exact(&mut records).await.unwrap();
    *records.last_mut().unwrap() ^= 1;
    relay.write_all(&records).await.unwrap();
    let mut received = Vec::new();
    let error = far.read_to_end(&mut received).await.unwrap_err();
    assert_eq!((fault(&error), &received[..]), (Fault::BadRecord, &b"right"[..]));
}

#[tokio::test]
async fn head_and_body_go_out_in_one_write() {
    let (mut near, mut far) = ours().await;
    let taken = near.write_vectored(&[IoSlice::new(b"head"), IoSlice::new(b""), IoSlice::new(b"body")]).await;
    assert_eq!(taken.unwrap(), 8);
    let mut received = [0; 8];
    far.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"headbody");
}

#[tokio::test]
async fn slow_socket_holds_the_writer_back() {
    let (mut near, far) = ours().await;
    let sent = tokio::time::timeout(std::time::Duration::ZERO, near.write_all(&bytes(1 << 20))).await;
    assert!(sent.is_err(), "a megabyte does not fit into buffers");
    drop(far);
}

#[tokio::test]
async fn idle_streams_hold_no_buffers() {
    let (mut near, mut far) = ours().await;
    near.write_all(b"hello").await.unwrap();
    near.flush().await.unwrap();
    far.read_exact(&mut [0; 5]).await.unwrap();
    assert!(tokio::time::timeout(std::time::Duration::ZERO, far.read(&mut [0; 5])).await.is_err());
    for stream in [&near, &far] {
        assert!(stream.inbox.is_released() && stream.outbox.is_released());
    }
}

#[tokio::test]
async fn handshake_with_nobody_or_with_garbage_fails() {
    for garbage in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0x16, 3, 1, 0x40, 0, 1], &[0x17; 20_000]] {
        let (far, mut near) = duplex(1 << 16);
        near.write_all(garbage).await.unwrap();
        near.shutdown().await.unwrap();
        assert!(accept(configs().1, far).await.is_err());
    }
}

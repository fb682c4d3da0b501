//! File descriptors that run out.

use crate::child::Daemon;
use crate::support::{MIB, client_key, fragment, key, options, refusal};
use seedbank_protocol::messages::ProblemCode;
use seedbank_protocol::routes::Access;
use seedbank_transport::Identity;
use seedbank_transport::testing::{connect_from, dial_from};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Leaves 48 for connections.
const FEW: u32 = 256;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_never_take_the_descriptors_of_the_store() {
    let daemon = Daemon::start(&options(), "", FEW);
    let honest = daemon.caller(&client_key());
    // Files of their own, so that each needs a descriptor.
    let stored: Vec<_> = (0..4).map(|seed| fragment(seed, 2 * MIB)).collect();
    for stored in &stored[..2] {
        honest.put(stored, Access::Owner).await.unwrap();
    }
    // Connections that prove keys and stay, until there are no more.
    let mut held = Vec::new();
    let mut refused = 0;
    for seed in 0..60 {
        match connect_from(THERE, &Identity::new(&key(seed + 100)), &daemon.peer).await {
            Ok(stream) => held.push(stream),
            Err(_) => refused += 1,
        }
    }
    // The client's side of a handshake ends before the server counts it: a few look open that aren't.
    assert!(refused > 0, "60 connections where 48 have room");
    let mut late = dial_from(HERE, &daemon.peer).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(5), late.read_u8()).await;
    assert!(told.expect("told at once").is_err(), "a connection too many is closed");
    // Who is connected is served as ever.
    for stored in &stored[2..] {
        honest.put(stored, Access::Owner).await.unwrap();
    }
    for stored in &stored {
        assert_eq!(honest.get(stored, None).await.unwrap(), stored.1);
    }
    drop(held);
    let again = daemon.caller(&client_key());
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        // The server learns that the others left when it next looks.
        match again.get(&stored[0], None).await {
            Ok(bytes) => break assert_eq!(bytes, stored[0].1),
            Err(error) => assert!(Instant::now() < until, "still refused: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_without_descriptors_refuses_loses_nothing_and_recovers() {
    let mut daemon = Daemon::start(&options(), "", FEW);
    let honest = daemon.caller(&client_key());
    let (before, during) = (fragment(1, 2 * MIB), fragment(2, 2 * MIB));
    honest.put(&before, Access::Owner).await.unwrap();
    // Connected already, to a volume that is open already.
    let connected = daemon.caller(&client_key());
    connected.put(&fragment(4, 100), Access::Owner).await.unwrap();

    assert!(daemon.command("exhaust") > 0);
    let ticks = daemon.cpu_ticks();
    assert_eq!(refusal(honest.put(&during, Access::Owner).await), ProblemCode::DiskFull);
    // What is open already can be used.
    let small = fragment(3, 100);
    connected.put(&small, Access::Owner).await.unwrap();
    assert_eq!(connected.get(&small, None).await.unwrap(), small.1);
    // Nobody can be accepted; nor does anybody's knocking keep the processor busy.
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(dial_from(THERE, &daemon.peer).await.unwrap());
    }
    let knocked = tokio::time::timeout(Duration::from_secs(1), waiting[0].read_u8()).await;
    assert!(!matches!(knocked, Ok(Ok(_))), "nothing is said before a handshake");
    let spent = daemon.cpu_ticks() - ticks;
    assert!(spent < 50, "{spent} hundredths of a second of processor time in a second without descriptors");

    daemon.command("release");
    honest.put(&during, Access::Owner).await.unwrap();
    let fresh = daemon.caller(&client_key());
    for stored in [&before, &during, &small] {
        assert_eq!(fresh.get(stored, None).await.unwrap(), stored.1);
    }
    assert_eq!(fresh.client.hello(&fresh.peer).await.unwrap().provider, daemon.key());
}

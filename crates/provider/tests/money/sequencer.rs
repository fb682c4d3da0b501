//! A chain whose sequencer is killed, and a key that somebody else uses too.

use crate::world::{World, all_is_well, run, stored, until};
use seedbank_agreement::Amount;
use seedbank_devchain::GenesisOptions;
use seedbank_settlement::{Chain, Wallet};
use seedbank_testkit::Again;
use seedbank_testkit::chain::{Act, Node, Proxy, config, policy, quiet};
use serde_json::json;
use std::path::Path;
use tokio::net::TcpListener;

const FOLDER: &str = "SEEDBANK_TEST_SEQUENCER";

/// Not a test: what another runs in another process.
#[test]
#[ignore = "runs only as a process of another test"]
fn sequence() {
    let Some(dir) = std::env::var_os(FOLDER) else {
        return;
    };
    run(async {
        let node = seedbank_devchain::Node::open(Path::new(&dir), quiet(GenesisOptions::default())).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("sequencing {}", listener.local_addr().unwrap());
        node.serve(listener, std::future::pending()).await.unwrap();
    });
}

/// A sequencer in a process of its own, and its address.
fn start(dir: &Path) -> (Again, String) {
    Again::start("sequencer::sequence", (FOLDER, dir), "sequencing ")
}

#[test]
fn sequencer_that_is_killed_again_and_again_costs_no_epoch_that_is_left_when_it_is_back() {
    run(async {
        let chain_dir = tempfile::tempdir().unwrap();
        let (mut sequencer, mut address) = start(chain_dir.path());
        // Clients find it at one address, whatever its port is.
        let proxy = Proxy::before(&address).await;
        let world = World::on(Node::at(proxy.address()), &[proxy.url()], "").await;
        let provider = world.start().await;
        let client = provider.client();
        world.agree(&client, &stored(1..3)).await;
        let mut sent = 0;
        for round in 0..3 {
            let epoch = world.next_epoch().await;
            eprintln!("epoch {epoch}");
            if round % 2 == 0 {
                // While the provider is sending: it has sent something more since the last round.
                until("the provider sends", || async { proxy.asked("eth_sendRawTransaction").len() > sent })
                    .await;
            } else {
                world.proven(epoch).await;
            }
            sequencer.kill();
            until("the provider notices, or is done", || async {
                provider.page("/healthz").await.1.contains("degraded")
            })
            .await;
            (sequencer, address) = start(chain_dir.path());
            proxy.turns_to(&address);
            world.proven(epoch).await;
            sent = proxy.asked("eth_sendRawTransaction").len();
        }
        let earned = Amount(3 * world.rate(600_000).units());
        assert_eq!(world.wallet.chain().market().free(world.payee).await.unwrap(), earned);
        until("the books have all of it", || async { world.report().agreements[0].earned == earned }).await;
        all_is_well(&provider).await;
    });
}

#[test]
fn key_that_another_process_uses_too_leaves_neither_a_gap_nor_an_unproven_epoch() {
    run(async {
        let world = World::new("").await;
        let (_provider, _, _) = world.earning().await;
        // Somebody sends ahead of its turn: a transaction that waits for the one before it.
        let ahead = Proxy::of(&world.node).await;
        let next =
            world.node.ask("eth_getTransactionCount", json!([world.payee.to_string(), "latest"])).await;
        let next = u64::from_str_radix(next.as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
        ahead.does(move |method, _| match method {
            "eth_getTransactionCount" => Act::Answer(json!(format!("{:#x}", next + 1))),
            _ => Act::Forward,
        });
        let chain = Chain::connect(&config(&[ahead.url()], &world.deployment)).await.unwrap();
        let other = Wallet::start(chain, world.provider_key(), policy());
        let waiting = {
            let other = other.clone();
            tokio::spawn(async move { other.token().mint(other.address(), Amount(7)).await })
        };
        until("it waits", || async { !ahead.asked("eth_sendRawTransaction").is_empty() }).await;
        world.proven_epoch().await;
        waiting.await.unwrap().unwrap();
        // Then both at once.
        ahead.does(|_, _| Act::Forward);
        let third = world.next_epoch().await;
        for sum in 1..6 {
            // Its turn may be taken, again and again.
            let _sent = other.token().mint(other.address(), Amount(sum)).await;
        }
        world.proven(third).await;
        world.proven_epoch().await;
        world.earned_epochs(4).await;
        other.stop().await;
    });
}

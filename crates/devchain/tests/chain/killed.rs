//! A sequencer that is killed while many send: whatever was acknowledged is there, and the chain is whole.
//!
//! The process that is killed is this test program itself, started again to run one of its tests.

use crate::account::{Account, hash};
use crate::contract::{counter, word};
use crate::harness::{Caller, number, quiet};
use alloy_primitives::{B256, U256};
use seedbank_devchain::Node;
use seedbank_testkit::Again;
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const DIR_VARIABLE: &str = "SEEDBANK_TEST_CHAIN_DIR";
const SAYS_PORT: &str = "listening on port ";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other tests start it as a process of its own"]
async fn process_that_is_killed() {
    let Some(dir) = std::env::var_os(DIR_VARIABLE) else { return };
    let node = Node::open(Path::new(&dir), quiet()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("\n{SAYS_PORT}{}", listener.local_addr().unwrap().port());
    node.serve(listener, std::future::pending()).await.unwrap();
}

fn start(dir: &Path) -> (Again, Caller) {
    let (process, port) = Again::start("killed::process_that_is_killed", (DIR_VARIABLE, dir), SAYS_PORT);
    (process, Caller { address: ([127, 0, 0, 1], port.parse().unwrap()).into() })
}

const SENDERS: u64 = 4;

/// Sends until the node is gone; gives what was acknowledged.
async fn load(
    caller: Caller,
    contract: alloy_primitives::Address,
    acknowledged: Arc<AtomicU64>,
) -> Vec<B256> {
    let all = Arc::new(Mutex::new(Vec::new()));
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let (all, acknowledged) = (Arc::clone(&all), Arc::clone(&acknowledged));
        senders.spawn(async move {
            let account = Account::new(&format!("sender {sender}"), seedbank_devchain::CHAIN_ID_DEFAULT);
            let next = json!([account.address(), "latest"]);
            for nonce in caller.number("eth_getTransactionCount", next).await.. {
                let raw = account.call(nonce, contract, word(1));
                if !caller.try_send_raw(&raw).await {
                    return;
                }
                all.lock().unwrap().push(hash(&raw));
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while let Some(ended) = senders.join_next().await {
        ended.unwrap();
    }
    let all = all.lock().unwrap();
    all.clone()
}

async fn kill_under_load(rounds: u64) {
    let dir = tempfile::tempdir().unwrap();
    let owner = Account::new("owner", seedbank_devchain::CHAIN_ID_DEFAULT);
    let (mut process, mut caller) = start(dir.path());
    let receipt = caller.succeed(&owner.deploy(0, counter())).await;
    let contract = receipt["contractAddress"].as_str().unwrap().parse().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..rounds {
        let count = Arc::new(AtomicU64::new(0));
        let loading = tokio::spawn(load(caller, contract, Arc::clone(&count)));
        // At another point of the commit in every round: after a few more acknowledgements.
        while count.load(Ordering::Relaxed) < 20 + 7 * round {
            assert!(!loading.is_finished(), "round {round}: nobody is answered any more");
            tokio::task::yield_now().await;
        }
        drop(process);
        acknowledged.extend(loading.await.unwrap());
        (process, caller) = start(dir.path());

        for hash in &acknowledged {
            assert_eq!(
                caller.receipt(*hash).await["status"],
                "0x1",
                "round {round}: {hash} was acknowledged"
            );
        }
        let height = caller.height().await;
        let mut parent = caller.block(0).await["hash"].clone();
        for height in 1..=height {
            let block = caller.block(height).await;
            assert_eq!((number(&block["number"]), &block["parentHash"]), (height, &parent));
            parent = block["hash"].clone();
        }
        // The state is that of the blocks: one for the contract, one for each time it was counted.
        let counted = caller.get("eth_call", json!([{"to": contract}])).await;
        assert_eq!(counted, json!(B256::from(U256::from(height - 1))));
        assert!(height > u64::try_from(acknowledged.len()).unwrap());
    }
    println!("{rounds} kills, {} transactions acknowledged, none lost", acknowledged.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_transaction_is_lost_when_the_sequencer_is_killed() {
    kill_under_load(3).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: see docs/reliability.md"]
async fn no_acknowledged_transaction_is_lost_in_ten_kills() {
    kill_under_load(10).await;
}

//! The chain's time, and moving it in tests.

use crate::contract::{counter, word};
use crate::harness::{Served, fresh, number, quiet, with_test_clock};
use alloy_primitives::{Address, Bytes};
use seedbank_devchain::{Config, EpochCall, GenesisOptions};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn weeks_pass_in_a_moment_and_stay_after_a_restart() {
    const WEEK: u64 = 604_800;
    let (dir, chain) = fresh(with_test_clock()).await;
    let start = number(&chain.block(0).await["timestamp"]);
    assert_eq!(chain.get("evm_increaseTime", json!([WEEK])).await, WEEK);
    assert_eq!(chain.get("evm_increaseTime", json!([format!("0x{WEEK:x}")])).await, 2 * WEEK);
    chain.succeed(&chain.account("owner").call(0, Address::ZERO, Bytes::new())).await;
    let then = number(&chain.block(1).await["timestamp"]);
    assert!((start + 2 * WEEK..start + 2 * WEEK + 600).contains(&then), "{start} {then}");
    chain.close().await;
    let chain = Served::open(dir.path(), with_test_clock()).await;
    chain.get("evm_mine", json!([])).await;
    let later = number(&chain.block(2).await["timestamp"]);
    assert!((then..then + 600).contains(&later), "{then} {later}");
}

#[tokio::test(flavor = "multi_thread")]
async fn next_block_has_the_time_that_was_set_and_the_clock_goes_on_from_there() {
    let (_dir, chain) = fresh(with_test_clock()).await;
    let start = number(&chain.block(0).await["timestamp"]);
    chain.get("evm_setNextBlockTimestamp", json!([start + 1_000_000])).await;
    chain.get("evm_mine", json!([3])).await;
    assert_eq!(chain.height().await, 3);
    assert_eq!(number(&chain.block(1).await["timestamp"]), start + 1_000_000);
    for height in 2..=3 {
        let time = number(&chain.block(height).await["timestamp"]);
        assert!((start + 1_000_000..start + 1_000_600).contains(&time), "{time}");
    }
    let past = chain.refused("evm_setNextBlockTimestamp", json!([start])).await;
    assert!(past.0 == -32_602 && past.1.contains("before the last block's"), "{past:?}");
    for wrong in [json!([]), json!(["soon"]), json!([-1]), json!([u64::MAX])] {
        assert_eq!(chain.refused("evm_setNextBlockTimestamp", wrong.clone()).await.0, -32_602);
        assert_eq!(chain.refused("evm_increaseTime", wrong).await.0, -32_602);
    }
    assert_eq!(chain.refused("evm_mine", json!([1_000_000])).await.0, -32_005);
}

#[tokio::test(flavor = "multi_thread")]
async fn clock_that_is_behind_the_chain_stands_still_until_it_has_caught_up() {
    let future = 10_000_000_000;
    let genesis = GenesisOptions { timestamp: Some(future), ..GenesisOptions::default() };
    let (_dir, chain) = fresh(Config { genesis, ..quiet() }).await;
    let owner = chain.account("owner");
    for nonce in 0..3 {
        chain.succeed(&owner.call(nonce, Address::ZERO, Bytes::new())).await;
        assert_eq!(number(&chain.block(nonce + 1).await["timestamp"]), future);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_begins_with_an_empty_block_and_the_sequencers_own_call_whoever_comes_first() {
    let (dir, chain) = fresh(with_test_clock()).await;
    let owner = chain.account("owner");
    let contract = chain.deploy(&owner, counter()).await;
    let call = EpochCall {
        contract: contract.0.0,
        input: word(1).to_vec(),
        genesis: number(&chain.block(0).await["timestamp"]),
        epoch_seconds: 1_000,
    };
    let sequencer = json!(chain.node.genesis().sequencer);
    // Where an epoch begins: nothing, then the call.
    let begins_at = async |chain: &Served, height: u64| {
        assert_eq!(
            chain.block(height).await["transactions"],
            json!([]),
            "nobody could know this block's hash"
        );
        let called = &chain.block(height + 1).await["transactions"][0];
        assert_eq!((&called["from"], &called["to"]), (&sequencer, &json!(contract)));
        let receipt = &chain.get("eth_getBlockReceipts", json!([format!("0x{:x}", height + 1)])).await[0];
        assert_eq!(receipt["status"], "0x1");
    };
    chain.node.call_each_epoch(call.clone()).await.unwrap();
    begins_at(&chain, 2).await;
    for nonce in 1..4 {
        chain.succeed(&owner.call(nonce, Address::ZERO, Bytes::new())).await;
    }
    assert_eq!(chain.height().await, 6, "once an epoch");
    // Somebody else is the first in the next one, and does not come first.
    chain.get("evm_increaseTime", json!([1_000])).await;
    let receipt = chain.succeed(&owner.call(4, contract, word(100))).await;
    begins_at(&chain, 7).await;
    assert_eq!(receipt["blockNumber"], "0x9");
    assert_eq!(receipt["logs"][0]["data"], json!(word(102)), "the sequencer's second call came before");
    chain.get("evm_increaseTime", json!([5_000])).await;
    chain.get("evm_mine", json!([1])).await;
    begins_at(&chain, 10).await;

    chain.close().await;
    let chain = Served::open(dir.path(), with_test_clock()).await;
    let height = chain.height().await;
    chain.node.call_each_epoch(call).await.unwrap();
    begins_at(&chain, height + 1).await;
    chain.succeed(&owner.call(5, Address::ZERO, Bytes::new())).await;
    assert_eq!(chain.height().await, height + 3);
}

//! The chain's time, and moving it in tests.

use crate::harness::{Served, fresh, number, quiet, with_test_clock};
use alloy_primitives::{Address, Bytes};
use seedbank_devchain::{Config, GenesisOptions};
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

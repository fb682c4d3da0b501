//! Sending: what is taken, what waits, what is refused, and what is there after a restart.

use crate::account::hash;
use crate::contract::{counter, word};
use crate::harness::{Served, fresh, number, quiet};
use alloy_consensus::TxLegacy;
use alloy_primitives::{Address, Bytes, TxKind, U256};
use seedbank_devchain::{
    Config, GenesisOptions, Limits, Node, OpenError, Rules, StoreError, WAITING_PER_SENDER_MAX,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[tokio::test(flavor = "multi_thread")]
async fn contract_is_deployed_called_and_read() {
    let (_dir, chain) = fresh(quiet()).await;
    let owner = chain.account("owner");
    let contract = chain.deploy(&owner, counter()).await;
    assert_eq!(contract, owner.address().create(0));
    let receipt = chain.succeed(&owner.call(1, contract, word(5))).await;
    assert_eq!(receipt["logs"][0]["data"], json!(word(5)));
    assert_eq!(receipt["effectiveGasPrice"], "0x0");
    let call = json!([{"to": contract}, "latest"]);
    assert_eq!(chain.get("eth_call", call).await, json!(word(5)));
    let code = chain.get("eth_getCode", json!([contract, "latest"])).await;
    assert_eq!(code.as_str().unwrap(), Bytes::copy_from_slice(&counter()[11..]).to_string());
    assert_eq!(chain.get("eth_getStorageAt", json!([contract, "0x0", "latest"])).await, json!(word(5)));
    assert_eq!(chain.height().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_a_restart() {
    let (dir, chain) = fresh(quiet()).await;
    let owner = chain.account("owner");
    let contract = chain.deploy(&owner, counter()).await;
    let sent = chain.send_raw(&owner.call(1, contract, word(7))).await;
    let ahead = owner.call(3, contract, word(2));
    chain.send_raw(&ahead).await;
    let (before, head) = (chain.receipt(sent).await, chain.node.head().unwrap());
    chain.close().await;

    let chain = Served::open(dir.path(), quiet()).await;
    assert_eq!(chain.node.head().unwrap(), head);
    assert_eq!(chain.receipt(sent).await, before);
    let waiting = chain.get("eth_getTransactionByHash", json!([hash(&ahead)])).await;
    assert_eq!(waiting["blockNumber"], Value::Null);
    chain.send_raw(&owner.call(2, contract, word(1))).await;
    assert_eq!(chain.get("eth_call", json!([{"to": contract}])).await, json!(word(10)));
    assert_eq!(chain.receipt(hash(&ahead)).await["status"], "0x1");
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_ahead_of_their_turn_wait_up_to_a_bound_and_run_in_order() {
    let (_dir, chain) = fresh(quiet()).await;
    let (owner, to) = (chain.account("owner"), Address::repeat_byte(1));
    let most = u64::try_from(WAITING_PER_SENDER_MAX).unwrap();
    for nonce in (1..=most).rev() {
        chain.send_raw(&owner.call(nonce, to, Bytes::new())).await;
    }
    let (code, message) =
        chain.refused("eth_sendRawTransaction", json!([owner.call(most + 1, to, Bytes::new())])).await;
    assert_eq!(code, -32_000);
    assert!(message.contains("next nonce 0") && message.contains("64"), "{message}");
    assert_eq!(chain.height().await, 0);
    assert_eq!(chain.number("eth_getTransactionCount", json!([owner.address(), "pending"])).await, 0);

    chain.send_raw(&owner.call(0, to, Bytes::new())).await;
    assert_eq!(chain.height().await, most + 1);
    assert_eq!(chain.number("eth_getTransactionCount", json!([owner.address(), "latest"])).await, most + 1);
    for number in 1..=most + 1 {
        let block = chain.block(number).await;
        assert_eq!(crate::harness::number(&block["transactions"][0]["nonce"]), number - 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_run_is_refused_and_changes_nothing() {
    let (_dir, chain) = fresh(quiet()).await;
    let (owner, to) = (chain.account("owner"), Address::repeat_byte(1));
    let plain = owner.call(0, to, Bytes::new());
    let unsigned = owner.unsigned(0, TxKind::Call(to), 0, Bytes::new());
    let mut torn = plain.to_vec();
    torn.truncate(plain.len() - 1);
    let mut trailing = plain.to_vec();
    trailing.push(0);
    let elsewhere = crate::account::Account::new("owner", 1);
    let refusals: Vec<(Bytes, &str)> = vec![
        (owner.legacy(0, TxKind::Call(to), 1, Bytes::new()), "insufficient funds"),
        (owner.sign(TxLegacy { gas_limit: 20_000, ..unsigned.clone() }), "intrinsic gas too low"),
        (owner.sign(TxLegacy { gas_limit: 30_000_001, ..unsigned.clone() }), "exceeds block gas limit"),
        (owner.sign(TxLegacy { chain_id: None, ..unsigned.clone() }), "EIP-155"),
        (elsewhere.call(0, to, Bytes::new()), "signed for chain 1"),
        (torn.into(), "no transaction"),
        (trailing.into(), "no transaction"),
        (Bytes::from(vec![0xff; 100]), "no transaction"),
        (Bytes::from(vec![0; 300 << 10]), "at most"),
        (Bytes::new(), "no transaction"),
    ];
    for (raw, expected) in refusals {
        let (_, message) = chain.refused("eth_sendRawTransaction", json!([raw])).await;
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(chain.height().await, 0);
    chain.succeed(&plain).await;
    let (_, message) = chain.refused("eth_sendRawTransaction", json!([plain])).await;
    assert_eq!(message, "already known");
    let other = owner.call(0, Address::repeat_byte(2), Bytes::new());
    let (_, message) = chain.refused("eth_sendRawTransaction", json!([other])).await;
    assert_eq!(message, "nonce too low: next nonce 1, tx nonce 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_higher_price_replaces_what_waits() {
    let (_dir, chain) = fresh(quiet()).await;
    let (owner, to) = (chain.account("owner"), Address::repeat_byte(1));
    let unsigned = owner.unsigned(1, TxKind::Call(to), 0, Bytes::new());
    let first = owner.sign(unsigned.clone());
    let same_price = owner.sign(TxLegacy { gas_limit: 50_000, ..unsigned.clone() });
    let dearer = owner.sign(TxLegacy { gas_price: 1, ..unsigned });
    chain.send_raw(&first).await;
    assert_eq!(chain.refused("eth_sendRawTransaction", json!([first])).await.1, "already known");
    let (_, message) = chain.refused("eth_sendRawTransaction", json!([same_price])).await;
    assert!(message.starts_with("replacement transaction underpriced"), "{message}");
    chain.send_raw(&dearer).await;
    chain.send_raw(&owner.call(0, to, Bytes::new())).await;
    assert_eq!(chain.receipt(hash(&dearer)).await["status"], "0x1");
    assert_eq!(chain.receipt(hash(&first)).await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_transaction_is_a_block_and_costs_nothing_where_gas_is_free() {
    let (_dir, chain) = fresh(quiet()).await;
    let owner = chain.account("owner");
    let contract = chain.deploy(&owner, crate::contract::reverter()).await;
    let unsigned = owner.unsigned(1, TxKind::Call(contract), 0, word(1));
    let offered = owner.sign(TxLegacy { gas_price: 1_000_000_000, ..unsigned });
    let sent = chain.send_raw(&offered).await;
    let receipt = chain.receipt(sent).await;
    assert_eq!((&receipt["status"], &receipt["effectiveGasPrice"]), (&json!("0x0"), &json!("0x0")));
    assert_eq!(receipt["logs"], json!([]));
    assert_eq!(chain.number("eth_getBalance", json!([owner.address(), "latest"])).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn coins_are_neither_made_nor_lost() {
    let probe = crate::account::Account::new("rich", 0);
    let (rich, poor) = (probe.address(), Address::repeat_byte(9));
    let genesis =
        GenesisOptions { balances: BTreeMap::from([(rich, U256::from(100))]), ..GenesisOptions::default() };
    let (_dir, chain) = fresh(Config { genesis, ..quiet() }).await;
    let owner = chain.account("rich");
    chain.succeed(&owner.legacy(0, TxKind::Call(poor), 60, Bytes::new())).await;
    let (_, message) = chain
        .refused("eth_sendRawTransaction", json!([owner.legacy(1, TxKind::Call(poor), 41, Bytes::new())]))
        .await;
    assert!(message.contains("insufficient funds"), "{message}");
    // Nor when it is only asked about.
    let ask = json!([{"from": poor, "to": rich, "value": "0x3d"}]);
    assert!(chain.refused("eth_call", ask).await.1.contains("lack of funds"), "a call makes no coins");
    assert_eq!(chain.number("eth_getBalance", json!([rich, "latest"])).await, 40);
    assert_eq!(chain.number("eth_getBalance", json!([poor, "latest"])).await, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn gas_that_has_a_price_is_paid_for() {
    let rich = crate::account::Account::new("rich", 0).address();
    let genesis = GenesisOptions {
        balances: BTreeMap::from([(rich, U256::from(1_000_000))]),
        gas_price: 10,
        ..GenesisOptions::default()
    };
    let (_dir, chain) = fresh(Config { genesis, ..quiet() }).await;
    let owner = chain.account("rich");
    let unsigned =
        TxLegacy { gas_limit: 21_000, ..owner.unsigned(0, TxKind::Call(Address::ZERO), 0, Bytes::new()) };
    let (_, message) = chain.refused("eth_sendRawTransaction", json!([owner.sign(unsigned.clone())])).await;
    assert!(message.contains("underpriced"), "{message}");
    assert_eq!(chain.get("eth_gasPrice", json!([])).await, "0xa");
    let receipt = chain.succeed(&owner.sign(TxLegacy { gas_price: 12, ..unsigned })).await;
    assert_eq!(receipt["effectiveGasPrice"], "0xc");
    let left = chain.number("eth_getBalance", json!([rich, "latest"])).await;
    assert_eq!(left, 1_000_000 - 12 * 21_000);
    let sequencer = chain.node.genesis().sequencer;
    assert_eq!(chain.number("eth_getBalance", json!([sequencer, "latest"])).await, 12 * 21_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn fee_market_transactions_need_london() {
    let dynamic = |account: &crate::account::Account| {
        account.sign(alloy_consensus::TxEip1559 {
            chain_id: account.chain_id,
            nonce: 0,
            gas_limit: 21_000,
            max_fee_per_gas: 5,
            max_priority_fee_per_gas: 1,
            to: TxKind::Call(Address::ZERO),
            ..Default::default()
        })
    };
    let (_dir, berlin) = fresh(quiet()).await;
    let (_, message) =
        berlin.refused("eth_sendRawTransaction", json!([dynamic(&berlin.account("owner"))])).await;
    assert!(message.contains("type 2") && message.contains("Berlin"), "{message}");
    assert_eq!(berlin.block(0).await.get("baseFeePerGas"), None);
    berlin.succeed(&berlin.account("owner").eip2930(0, Address::ZERO)).await;

    let genesis = GenesisOptions { rules: Rules::London, ..GenesisOptions::default() };
    let (_dir, london) = fresh(Config { genesis, ..quiet() }).await;
    assert_eq!(london.block(0).await["baseFeePerGas"], "0x0");
    assert_eq!(london.succeed(&dynamic(&london.account("owner"))).await["type"], "0x2");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_is_held_to_its_rate() {
    let limits = Limits { sends_per_second: 1, sends_burst: 2, ..Limits::default() };
    let (_dir, chain) = fresh(Config { limits, ..quiet() }).await;
    let (owner, other) = (chain.account("owner"), chain.account("other"));
    for nonce in 0..2 {
        chain.send_raw(&owner.call(nonce, Address::ZERO, Bytes::new())).await;
    }
    let (code, message) =
        chain.refused("eth_sendRawTransaction", json!([owner.call(2, Address::ZERO, Bytes::new())])).await;
    assert_eq!(code, -32_005);
    assert!(message.contains("1 a second"), "{message}");
    chain.send_raw(&other.call(0, Address::ZERO, Bytes::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn destroyed_contract_is_gone_with_its_storage() {
    let (_dir, chain) = fresh(quiet()).await;
    let owner = chain.account("owner");
    let contract = chain.deploy(&owner, crate::contract::mortal()).await;
    let slot = json!([contract, "0x0", "latest"]);
    assert_eq!(chain.get("eth_getStorageAt", slot.clone()).await, json!(word(1)));
    chain.succeed(&owner.call(1, contract, Bytes::new())).await;
    assert_eq!(chain.get("eth_getCode", json!([contract, "latest"])).await, "0x");
    assert_eq!(chain.get("eth_getStorageAt", slot).await, json!(word(0)));
    assert_eq!(chain.get("eth_getStorageAt", json!([contract, "0x0", "0x1"])).await, json!(word(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_at_once_lose_nothing() {
    let (_dir, chain) = fresh(quiet()).await;
    let chain = std::sync::Arc::new(chain);
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..8 {
        let chain = std::sync::Arc::clone(&chain);
        callers.spawn(async move {
            let account = chain.account(&format!("caller {caller}"));
            for nonce in 0..10 {
                let receipt = chain.succeed(&account.call(nonce, Address::ZERO, Bytes::new())).await;
                assert_eq!(receipt["transactionIndex"], "0x0");
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    assert_eq!(chain.height().await, 80);
    let mut parent = chain.block(0).await["hash"].clone();
    for height in 1..=80 {
        let block = chain.block(height).await;
        assert_eq!((number(&block["number"]), &block["parentHash"]), (height, &parent));
        parent = block["hash"].clone();
    }
}

#[test]
fn folder_is_held_by_one_process_and_keeps_its_chain() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(dir.path(), Config { chain_id: Some(5), ..quiet() }).unwrap();
    assert!(matches!(Node::open(dir.path(), quiet()), Err(OpenError::InUse(_))));
    drop(node);
    let other = Node::open(dir.path(), Config { chain_id: Some(6), ..quiet() });
    assert!(matches!(other, Err(OpenError::WrongChain { stored: 5, asked: 6, .. })));
    assert_eq!(Node::open(dir.path(), quiet()).unwrap().genesis().chain_id, 5);
    std::fs::remove_file(dir.path().join(seedbank_devchain::KEY_FILE)).unwrap();
    assert!(matches!(Node::open(dir.path(), quiet()), Err(OpenError::WrongKey { .. })));
}

#[test]
fn torn_database_is_refused_and_never_served() {
    let dir = tempfile::tempdir().unwrap();
    drop(Node::open(dir.path(), quiet()).unwrap());
    let path = dir.path().join(seedbank_devchain::DATABASE_FILE);
    let whole = std::fs::read(&path).unwrap();
    for torn in [Vec::new(), b"no database".to_vec(), whole[..whole.len() / 2].to_vec(), vec![0; whole.len()]]
    {
        std::fs::write(&path, &torn).unwrap();
        match Node::open(dir.path(), quiet()) {
            Err(OpenError::Store(StoreError::Damaged(_) | StoreError::Database(_))) => {}
            Err(other) => panic!("{other}"),
            Ok(node) => panic!("{} bytes of garbage were opened at {:?}", torn.len(), node.head()),
        }
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(Node::open(dir.path(), quiet()).unwrap().head().unwrap().0, 0);
    // Nor is a new chain begun in its place.
    std::fs::remove_file(&path).unwrap();
    let gone = Node::open(dir.path(), quiet());
    assert!(matches!(gone, Err(OpenError::Store(StoreError::Damaged(_)))));
}

#[test]
fn chain_whose_making_was_cut_short_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    for half_made in ["chain.redb.new", "sequencer.key.new"] {
        std::fs::write(dir.path().join(half_made), "half").unwrap();
    }
    drop(Node::open(dir.path(), quiet()).unwrap());
    assert!(!dir.path().join("chain.redb.new").exists() && !dir.path().join("sequencer.key.new").exists());
    // The key had not got its name yet.
    let key = dir.path().join(seedbank_devchain::KEY_FILE);
    std::fs::rename(&key, dir.path().join("sequencer.key.new")).unwrap();
    assert_eq!(Node::open(dir.path(), quiet()).unwrap().head().unwrap().0, 0);
    assert!(key.exists());
}

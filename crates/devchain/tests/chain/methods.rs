//! What tools ask for, and what they are answered.

use crate::account::hash;
use crate::contract::{block_hash, counter, endless, environment, reverter, word};
use crate::harness::{fresh, number, quiet, with_test_clock};
use alloy_primitives::{Address, Bytes, U256};
use seedbank_devchain::{Config, Limits};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn tools_learn_what_chain_this_is() {
    let (_dir, chain) = fresh(Config { chain_id: Some(1029), ..quiet() }).await;
    for (method, expected) in [
        ("eth_chainId", json!("0x405")),
        ("net_version", json!("1029")),
        ("eth_syncing", json!(false)),
        ("eth_accounts", json!([])),
        ("eth_gasPrice", json!("0x0")),
        ("eth_maxPriorityFeePerGas", json!("0x0")),
        ("eth_blockNumber", json!("0x0")),
    ] {
        assert_eq!(chain.get(method, json!([])).await, expected, "{method}");
    }
    let version = chain.get("web3_clientVersion", json!([])).await;
    assert!(version.as_str().unwrap().starts_with("seedbank/"));
    let history = chain.get("eth_feeHistory", json!(["0xa", "latest", [20.0]])).await;
    assert_eq!(history["baseFeePerGas"], json!(["0x0", "0x0"]));
    assert_eq!(history["reward"], json!([["0x0"]]));
    for method in
        ["eth_sendTransaction", "personal_sign", "eth_sign", "eth_getProof", "admin_peers", "evm_mine", ""]
    {
        assert_eq!(chain.refused(method, json!([])).await.0, -32_601, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn block_transaction_and_receipt_agree() {
    let (_dir, chain) = fresh(quiet()).await;
    let owner = chain.account("owner");
    let raw = owner.call(0, Address::repeat_byte(4), Bytes::from_static(b"hello"));
    let receipt = chain.succeed(&raw).await;
    let block = chain.block(1).await;
    let by_hash = chain.get("eth_getBlockByHash", json!([block["hash"], true])).await;
    assert_eq!(by_hash, block);
    let transaction = chain.get("eth_getTransactionByHash", json!([hash(&raw)])).await;
    assert_eq!(block["transactions"], json!([transaction]));
    assert_eq!(transaction["from"], json!(owner.address()));
    assert_eq!(transaction["input"], json!(Bytes::from_static(b"hello")));
    for field in ["blockHash", "blockNumber", "transactionIndex"] {
        assert_eq!(transaction[field], receipt[field], "{field}");
    }
    assert_eq!(chain.get("eth_getBlockReceipts", json!(["0x1"])).await, json!([receipt]));
    assert_eq!(chain.get("eth_getBlockReceipts", json!(["0x0"])).await, json!([]));
    let hashes = chain.get("eth_getBlockByNumber", json!(["latest", false])).await;
    assert_eq!(hashes["transactions"], json!([hash(&raw)]));
    for (method, params) in [
        ("eth_getBlockByNumber", json!(["0x9", true])),
        ("eth_getBlockByHash", json!([hash(&raw), true])),
        ("eth_getBlockReceipts", json!(["0x9"])),
        ("eth_getTransactionByHash", json!([block["hash"]])),
        ("eth_getTransactionReceipt", json!([block["hash"]])),
    ] {
        assert_eq!(chain.get(method, params).await, Value::Null, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn header_hash_is_the_one_that_every_tool_computes() {
    let (_dir, chain) = fresh(quiet()).await;
    chain.succeed(&chain.account("owner").deploy(0, counter())).await;
    let block = chain.block(1).await;
    let text = |name: &str| block[name].as_str().unwrap();
    let header = alloy_consensus::Header {
        parent_hash: text("parentHash").parse().unwrap(),
        ommers_hash: text("sha3Uncles").parse().unwrap(),
        beneficiary: text("miner").parse().unwrap(),
        state_root: text("stateRoot").parse().unwrap(),
        transactions_root: text("transactionsRoot").parse().unwrap(),
        receipts_root: text("receiptsRoot").parse().unwrap(),
        logs_bloom: text("logsBloom").parse().unwrap(),
        difficulty: text("difficulty").parse().unwrap(),
        number: number(&block["number"]),
        gas_limit: number(&block["gasLimit"]),
        gas_used: number(&block["gasUsed"]),
        timestamp: number(&block["timestamp"]),
        extra_data: text("extraData").parse().unwrap(),
        mix_hash: text("mixHash").parse().unwrap(),
        nonce: text("nonce").parse().unwrap(),
        ..Default::default()
    };
    assert_eq!(json!(header.hash_slow()), block["hash"]);
    let genesis = chain.node.genesis();
    let checked = seedbank_devchain::SignedHeader::check(
        &alloy_rlp::encode(&header),
        genesis.chain_id,
        genesis.sequencer,
    );
    assert_eq!(json!(checked.unwrap().hash()), block["hash"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn revert_is_told_with_its_bytes() {
    let (_dir, chain) = fresh(quiet()).await;
    let contract = chain.deploy(&chain.account("owner"), reverter()).await;
    for method in ["eth_call", "eth_estimateGas"] {
        let answer = chain.ask(method, json!([{"to": contract, "data": "0xdeadbeef"}])).await;
        assert_eq!(answer["error"]["code"], 3, "{method}");
        assert_eq!(answer["error"]["data"], "0xdeadbeef", "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn estimate_is_enough_and_not_much_more() {
    let (_dir, chain) = fresh(quiet()).await;
    let owner = chain.account("owner");
    let deploying =
        chain.number("eth_estimateGas", json!([{"from": owner.address(), "data": counter()}])).await;
    let contract = chain.deploy(&owner, counter()).await;
    let used = number(&chain.get("eth_getBlockReceipts", json!(["0x1"])).await[0]["gasUsed"]);
    assert!((used..=used + used / 50).contains(&deploying), "{deploying} for {used}");

    let call = json!([{"from": owner.address(), "to": contract, "input": word(3)}]);
    let estimate = chain.number("eth_estimateGas", call).await;
    let transaction = alloy_consensus::TxLegacy {
        gas_limit: estimate,
        ..owner.unsigned(1, alloy_primitives::TxKind::Call(contract), 0, word(3))
    };
    let used = number(&chain.succeed(&owner.sign(transaction)).await["gasUsed"]);
    assert!((used..=used + used / 10).contains(&estimate), "{estimate} for {used}");
    assert_eq!(chain.number("eth_estimateGas", json!([{"to": Address::ZERO}])).await, 21_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_call_ends_at_its_gas() {
    let (_dir, chain) = fresh(quiet()).await;
    let contract = chain.deploy(&chain.account("owner"), endless()).await;
    let (code, message) =
        chain.refused("eth_call", json!([{"to": contract, "gas": "0xffffffffffffffffffff"}])).await;
    assert_eq!((code, message.as_str()), (-32_000, "out of gas"));
    assert_eq!(chain.refused("eth_estimateGas", json!([{"to": contract}])).await.1, "out of gas");
}

#[tokio::test(flavor = "multi_thread")]
async fn call_runs_in_the_next_block_and_a_pinned_one_in_its_own() {
    let (_dir, chain) = fresh(quiet()).await;
    let contract = chain.deploy(&chain.account("owner"), environment()).await;
    let output = chain.get("eth_call", json!([{"to": contract}, "latest"])).await;
    let output: Bytes = output.as_str().unwrap().parse().unwrap();
    let words: Vec<U256> = output.chunks(32).map(U256::from_be_slice).collect();
    let block = chain.block(1).await;
    assert_eq!((words[0], words[2]), (U256::from(2), U256::from(1)));
    assert!(words[1] >= U256::from(number(&block["timestamp"])));
    let pinned = chain.get("eth_call", json!([{"to": contract}, {"blockHash": block["hash"]}])).await;
    let pinned: Bytes = pinned.as_str().unwrap().parse().unwrap();
    assert_eq!(U256::from_be_slice(&pinned[..32]), U256::from(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn block_hashes_reach_back_256_blocks() {
    let (_dir, chain) = fresh(with_test_clock()).await;
    let contract = chain.deploy(&chain.account("owner"), block_hash()).await;
    chain.get("evm_mine", json!([300])).await;
    // A call runs in block 302.
    let hash_of = async |number: u64| {
        let call = json!([{"to": contract, "input": word(number)}, "latest"]);
        chain.get("eth_call", call).await
    };
    for number in [301, 200, 46] {
        assert_eq!(hash_of(number).await, chain.block(number).await["hash"], "{number}");
    }
    for number in [45, 0, 302, 400] {
        assert_eq!(hash_of(number).await, json!(word(0)), "{number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recent_states_can_be_read_and_old_ones_are_said_to_be_gone() {
    let (_dir, chain) = fresh(quiet()).await;
    let owner = chain.account("owner");
    let contract = chain.deploy(&owner, counter()).await;
    let kept = u64::try_from(seedbank_devchain::STATES_KEPT).unwrap();
    for nonce in 1..=kept + 5 {
        chain.send_raw(&owner.call(nonce, contract, word(1))).await;
    }
    let at = |number: u64| json!([{"to": contract}, format!("0x{number:x}")]);
    let head = chain.height().await;
    for number in [head, head - 1, head - kept / 2, head - kept] {
        assert_eq!(chain.get("eth_call", at(number)).await, json!(word(number - 1)), "{number}");
        let count = json!([owner.address(), format!("0x{number:x}")]);
        assert_eq!(chain.number("eth_getTransactionCount", count).await, number);
    }
    let (code, message) = chain.refused("eth_call", at(head - kept - 1)).await;
    assert!(code == -32_001 && message.contains("no longer kept"), "{code} {message}");
    let (code, _) = chain.refused("eth_call", at(head + 1)).await;
    assert_eq!(code, -32_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_found_by_range_address_and_topic() {
    let (_dir, chain) =
        fresh(Config { limits: Limits { logs_max: 5, log_blocks_max: 20, ..Limits::default() }, ..quiet() })
            .await;
    let (owner, other) = (chain.account("owner"), chain.account("other"));
    let (one, two) = (chain.deploy(&owner, counter()).await, chain.deploy(&other, counter()).await);
    for nonce in 1..=3 {
        chain.send_raw(&owner.call(nonce, one, word(nonce))).await;
        chain.send_raw(&other.call(nonce, two, word(10 * nonce))).await;
    }
    let found = async |filter: Value| {
        let logs = chain.get("eth_getLogs", json!([filter])).await;
        let logs = logs.as_array().unwrap().iter();
        logs.map(|log| (number(&log["blockNumber"]), log["address"].as_str().unwrap().parse().unwrap()))
            .collect::<Vec<(u64, Address)>>()
    };
    let (from, to) = ("0x0", "latest");
    let topic = word(7);
    assert_eq!(
        found(json!({"fromBlock": from, "toBlock": to, "address": one})).await,
        [(3, one), (5, one), (7, one)]
    );
    assert_eq!(found(json!({"fromBlock": "0x5", "toBlock": "0x6"})).await, [(5, one), (6, two)]);
    assert_eq!(found(json!({"fromBlock": from, "address": [two], "topics": [topic]})).await.len(), 3);
    assert_eq!(
        found(json!({"fromBlock": from, "address": one, "topics": [[topic, word(8)]]})).await.len(),
        3
    );
    assert_eq!(found(json!({"fromBlock": from, "topics": [word(8)]})).await, []);
    assert_eq!(found(json!({"fromBlock": from, "topics": [null, topic]})).await, []);
    assert_eq!(found(json!({"fromBlock": "0x9"})).await, []);
    assert_eq!(found(json!({})).await, [(8, two)]);
    let hash = chain.block(8).await["hash"].clone();
    assert_eq!(found(json!({"blockHash": hash})).await, [(8, two)]);
    let (code, message) = chain.refused("eth_getLogs", json!([{"fromBlock": "0x0"}])).await;
    assert!(code == -32_005 && message.contains("more than 5 logs"), "{message}");
    for nonce in 4..20 {
        chain.send_raw(&owner.call(nonce, Address::ZERO, Bytes::new())).await;
    }
    let (code, message) = chain.refused("eth_getLogs", json!([{"fromBlock": "0x0", "address": one}])).await;
    assert!(code == -32_005 && message.contains("at most 20"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_gives_what_is_new_once_and_of_very_much_the_oldest_first() {
    let limits = Limits { logs_max: 3, log_blocks_max: 10, ..Limits::default() };
    let (_dir, chain) = fresh(Config { limits, ..with_test_clock() }).await;
    let owner = chain.account("owner");
    let contract = chain.deploy(&owner, counter()).await;
    chain.send_raw(&owner.call(1, contract, word(1))).await;
    let ours = json!([{"address": contract, "topics": [word(7)], "fromBlock": "0x0"}]);
    let logs = chain.get("eth_newFilter", ours.clone()).await;
    let until = chain.get("eth_newFilter", json!([{"address": contract, "toBlock": "0x4"}])).await;
    let blocks = chain.get("eth_newBlockFilter", json!([])).await;
    let pending = chain.get("eth_newPendingTransactionFilter", json!([])).await;
    let new = async |id: &Value| {
        let found = chain.get("eth_getFilterChanges", json!([id])).await;
        found.as_array().unwrap().clone()
    };
    let numbers = |logs: &[Value]| logs.iter().map(|log| number(&log["blockNumber"])).collect::<Vec<u64>>();
    assert!(new(&logs).await.is_empty() && new(&blocks).await.is_empty(), "what was before is not new");
    for nonce in 2..=8 {
        chain.send_raw(&owner.call(nonce, contract, word(1))).await;
    }
    assert_eq!(numbers(&new(&logs).await), [3, 4, 5]);
    assert_eq!(numbers(&new(&logs).await), [6, 7, 8]);
    assert_eq!(numbers(&new(&logs).await), [9]);
    assert!(new(&logs).await.is_empty());
    assert_eq!(numbers(&new(&until).await), [3, 4]);
    assert!(new(&until).await.is_empty() && new(&pending).await.is_empty());
    let hashes = new(&blocks).await;
    assert_eq!((hashes.len(), &hashes[6]), (7, &chain.block(9).await["hash"]));
    assert!(new(&blocks).await.is_empty());
    // Far behind: it catches up a piece at a time.
    chain.get("evm_mine", json!([25])).await;
    chain.send_raw(&owner.call(9, contract, word(1))).await;
    let mut found = Vec::new();
    for _ in 0..3 {
        found.extend(numbers(&new(&logs).await));
    }
    assert_eq!(found, [35]);
    // Everything is too much here, and that is said.
    assert_eq!(chain.refused("eth_getFilterLogs", json!([logs])).await.0, -32_005);
    assert_eq!(
        chain.get("eth_getFilterLogs", json!([until])).await,
        json!([]),
        "from the latest block to the fourth"
    );
    assert_eq!(chain.get("eth_uninstallFilter", json!([logs])).await, true);
    assert_eq!(chain.get("eth_uninstallFilter", json!([logs])).await, false);
    for (method, id) in [("eth_getFilterChanges", &logs), ("eth_getFilterLogs", &blocks)] {
        assert_eq!(chain.refused(method, json!([id])).await, (-32_000, "filter not found".to_owned()));
    }
    let one_block = json!([{"blockHash": chain.block(1).await["hash"]}]);
    assert_eq!(chain.refused("eth_newFilter", one_block).await.0, -32_602);
    for _ in 0..1_100 {
        chain.ask("eth_newFilter", ours.clone()).await;
    }
    assert_eq!(chain.refused("eth_newBlockFilter", json!([])).await.0, -32_005, "there is an end to them");
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeat_is_made_when_nothing_else_happens() {
    let every = std::time::Duration::from_millis(20);
    let (_dir, chain) = fresh(Config { block_time: Some(every), ..quiet() }).await;
    while chain.height().await < 3 {
        tokio::task::yield_now().await;
    }
    let block = chain.block(2).await;
    assert_eq!((&block["transactions"], &block["gasUsed"]), (&json!([]), &json!("0x0")));
}

//! The same transactions here and on `anvil --hardfork berlin`: the same receipts, gas, logs and state.
//!
//! Anvil is another node around the same EVM crate, with its own fees, receipts, bloom filters and state. In one thing it is
//! not Berlin: it refunds gas by London's rules (EIP-3529), so what is refunded is computed here by Berlin's.

use crate::account::{Account, hash};
use crate::contract::{block_hash, counter, endless, environment, mortal, reverter, word};
use crate::harness::{Caller, Served, fresh, number, quiet};
use alloy_consensus::TxLegacy;
use alloy_primitives::{Address, Bytes, TxKind, U64, U256};
use seedbank_devchain::{Config, GenesisOptions};
use seedbank_testkit::Anvil;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const CHAIN_ID: u64 = 1029;
const RICH: u64 = 1_000_000;

/// What a transaction gets back.
enum Refund {
    Nothing,
    /// Of the gas that it spent: this much, at most half of it; and this much by London's rules.
    Gas {
        berlin: u64,
        london: u64,
    },
}

/// Sends to both and compares what came of it.
async fn same(ours: &Served, anvil: &Caller, what: &str, raw: &Bytes, refund: Refund) -> Value {
    let mut receipts = Vec::new();
    for node in [ours, anvil as &Caller] {
        node.get("eth_sendRawTransaction", json!([raw])).await;
        let receipt = loop {
            let receipt = node.receipt(hash(raw)).await;
            if !receipt.is_null() {
                break receipt;
            }
        };
        receipts.push(receipt);
    }
    if let Refund::Gas { berlin, london } = refund {
        let spent = number(&receipts[1]["gasUsed"]) + london;
        assert!(london <= spent / 5, "{what}: the refund there is not cut");
        let expected = json!(U64::from(spent - berlin.min(spent / 2)));
        receipts[1]["gasUsed"] = expected.clone();
        receipts[1]["cumulativeGasUsed"] = expected;
    }
    for field in [
        "status",
        "gasUsed",
        "cumulativeGasUsed",
        "effectiveGasPrice",
        "logsBloom",
        "contractAddress",
        "transactionHash",
        "transactionIndex",
        "blockNumber",
        "from",
        "to",
        "type",
    ] {
        assert_eq!(receipts[0][field], receipts[1][field], "{what}: {field}");
    }
    let [ours, theirs] = [0, 1].map(|node| receipts[node]["logs"].as_array().unwrap().clone());
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (ours, theirs) in ours.iter().zip(&theirs) {
        for field in
            ["address", "topics", "data", "logIndex", "transactionHash", "transactionIndex", "removed"]
        {
            assert_eq!(ours[field], theirs[field], "{what}: {field} of a log");
        }
    }
    receipts.swap_remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn same_transactions_give_the_same_as_on_anvil() {
    let chain_id = CHAIN_ID.to_string();
    let rules =
        ["--hardfork", "berlin", "--gas-price", "0", "--gas-limit", "30000000", "--chain-id", &chain_id];
    let Some(node) = Anvil::start(&rules) else { return };
    let anvil = Caller { address: node.address() };
    let (owner, poor) = (Account::new("owner", CHAIN_ID), Address::repeat_byte(9));
    let balances = BTreeMap::from([(owner.address(), U256::from(RICH))]);
    let genesis = GenesisOptions { balances, ..GenesisOptions::default() };
    let (_dir, ours) = fresh(Config { chain_id: Some(CHAIN_ID), genesis, ..quiet() }).await;
    let rich = json!([owner.address(), U256::from(RICH)]);
    anvil.get("anvil_setBalance", rich).await;

    let mut nonce = 0;
    let mut deployed = BTreeMap::new();
    for (name, code) in [
        ("counter", counter()),
        ("reverter", reverter()),
        ("block hash", block_hash()),
        ("environment", environment()),
        ("endless", endless()),
        ("mortal", mortal()),
        ("nothing", Bytes::new()),
        ("constructor that says no", Bytes::from(vec![0x60, 0, 0x60, 0, 0xfd])),
        ("invalid opcode", Bytes::from(vec![0xfe])),
        ("opcode of a later fork", Bytes::from(vec![0x5f, 0x5f, 0xf3])),
    ] {
        let receipt = same(&ours, &anvil, name, &owner.deploy(nonce, code), Refund::Nothing).await;
        nonce += 1;
        deployed.insert(name, receipt["contractAddress"].as_str().unwrap().parse::<Address>().unwrap());
    }
    let calls: Vec<(&str, TxKind, u64, Bytes)> = vec![
        ("counter", TxKind::Call(deployed["counter"]), 0, word(5)),
        ("counter again", TxKind::Call(deployed["counter"]), 0, word(7)),
        (
            "counter to zero",
            TxKind::Call(deployed["counter"]),
            0,
            (U256::ZERO - U256::from(12)).to_be_bytes::<32>().into(),
        ),
        ("counter read", TxKind::Call(deployed["counter"]), 0, Bytes::new()),
        ("reverter", TxKind::Call(deployed["reverter"]), 0, Bytes::from_static(b"no")),
        ("reverter with coins", TxKind::Call(deployed["reverter"]), 5, Bytes::new()),
        ("endless", TxKind::Call(deployed["endless"]), 0, Bytes::new()),
        ("coins", TxKind::Call(poor), 1_000, Bytes::new()),
        ("coins to oneself", TxKind::Call(owner.address()), 1_000, Bytes::new()),
        ("coins to a contract", TxKind::Call(deployed["mortal"]), 10, Bytes::new()),
        ("the dead contract", TxKind::Call(deployed["mortal"]), 0, Bytes::new()),
        ("data to nobody", TxKind::Call(poor), 0, Bytes::from(vec![0, 1, 0, 2])),
        ("recovery", TxKind::Call(Address::with_last_byte(1)), 0, Bytes::from(vec![1; 128])),
        ("hash", TxKind::Call(Address::with_last_byte(2)), 0, Bytes::from(vec![1; 1000])),
        ("modular power", TxKind::Call(Address::with_last_byte(5)), 0, Bytes::from(vec![1; 96])),
        ("pairing", TxKind::Call(Address::with_last_byte(8)), 0, Bytes::new()),
        ("compression", TxKind::Call(Address::with_last_byte(9)), 0, Bytes::from(vec![0; 213])),
        (
            "precompile of a later fork",
            TxKind::Call(Address::with_last_byte(0x0b)),
            0,
            Bytes::from(vec![1; 256]),
        ),
    ];
    for (name, to, value, input) in calls {
        let refund = match name {
            "counter to zero" => Refund::Gas { berlin: 15_000, london: 4_800 },
            "coins to a contract" => Refund::Gas { berlin: 24_000, london: 0 },
            _ => Refund::Nothing,
        };
        same(&ours, &anvil, name, &owner.legacy(nonce, to, value, input), refund).await;
        nonce += 1;
    }
    let out_of_gas = TxLegacy {
        gas_limit: 30_000,
        ..owner.unsigned(nonce, TxKind::Call(deployed["counter"]), 0, word(1))
    };
    same(&ours, &anvil, "too little gas", &owner.sign(out_of_gas), Refund::Nothing).await;
    same(&ours, &anvil, "access list", &owner.eip2930(nonce + 1, deployed["counter"]), Refund::Nothing).await;

    for address in deployed.values().chain([&owner.address(), &poor]) {
        for method in ["eth_getBalance", "eth_getCode", "eth_getTransactionCount"] {
            let params = json!([address, "latest"]);
            let theirs = anvil.get(method, params.clone()).await;
            assert_eq!(ours.get(method, params).await, theirs, "{method} {address}");
        }
        let slot = json!([address, "0x0", "latest"]);
        let theirs = anvil.get("eth_getStorageAt", slot.clone()).await;
        assert_eq!(ours.get("eth_getStorageAt", slot).await, theirs, "{address}");
    }
    for call in [
        json!([{"from": owner.address(), "to": deployed["counter"], "input": word(3)}]),
        json!([{"from": owner.address(), "input": counter()}]),
        json!([{"from": owner.address(), "to": poor, "value": "0x1"}]),
    ] {
        let (mine, theirs) = (
            ours.number("eth_estimateGas", call.clone()).await,
            anvil.number("eth_estimateGas", call.clone()).await,
        );
        assert!(mine.abs_diff(theirs) <= theirs / 20, "{call}: {mine} here, {theirs} there");
    }
    let answer = ours.ask("eth_call", json!([{"to": deployed["reverter"], "data": "0x1234"}])).await;
    let theirs = anvil.ask("eth_call", json!([{"to": deployed["reverter"], "data": "0x1234"}])).await;
    assert_eq!(
        (&answer["error"]["code"], &answer["error"]["data"]),
        (&theirs["error"]["code"], &theirs["error"]["data"])
    );
}

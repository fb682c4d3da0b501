//! The tools that people have already: what they send and expect, unchanged.

use crate::contract::{counter, word};
use crate::harness::{Served, fresh, quiet};
use seedbank_testkit::foundry;
use seedbank_testkit::tools::or_skip;
use serde_json::{Value, json};
use std::path::Path;
use tokio::process::Command;

/// What `cast` prints when it succeeds.
async fn cast(program: &Path, chain: &Served, arguments: &[&str]) -> String {
    let run = Command::new(program)
        .args(arguments)
        .env("ETH_RPC_URL", format!("http://{}", chain.address))
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "cast {arguments:?}: {said}");
    String::from_utf8(run.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn cast_deploys_calls_and_reads() {
    let Some(program) = or_skip("another client", foundry("cast")) else { return };
    let (_dir, chain) = fresh(quiet()).await;
    let secret = format!("0x{}", "11".repeat(32));
    let send = ["send", "--legacy", "--json", "--private-key", &secret];
    let (code, input) = (counter().to_string(), word(5).to_string());

    let deployed = cast(&program, &chain, &[&send[..], &["--create", &code]].concat()).await;
    let deployed: Value = serde_json::from_str(&deployed).unwrap();
    let contract = deployed["contractAddress"].as_str().unwrap();
    let called = cast(&program, &chain, &[&send[..], &[contract, &input]].concat()).await;
    let called: Value = serde_json::from_str(&called).unwrap();
    assert_eq!((&called["status"], called["logs"].as_array().map(Vec::len)), (&json!("0x1"), Some(1)));

    assert_eq!(cast(&program, &chain, &["chain-id"]).await, "24301");
    assert_eq!(cast(&program, &chain, &["block-number"]).await, "2");
    assert_eq!(cast(&program, &chain, &["storage", contract, "0"]).await, input);
    assert_eq!(cast(&program, &chain, &["call", contract]).await, input);
    assert_eq!(cast(&program, &chain, &["nonce", called["from"].as_str().unwrap()]).await, "2");
    let hash = called["transactionHash"].as_str().unwrap();
    let transaction: Value =
        serde_json::from_str(&cast(&program, &chain, &["tx", hash, "--json"]).await).unwrap();
    assert_eq!(transaction["blockHash"], called["blockHash"]);
    let receipt: Value =
        serde_json::from_str(&cast(&program, &chain, &["receipt", hash, "--json"]).await).unwrap();
    assert_eq!((&receipt["status"], &receipt["gasUsed"]), (&called["status"], &called["gasUsed"]));
    let used =
        u64::from_str_radix(receipt["gasUsed"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
    let estimate: u64 = cast(&program, &chain, &["estimate", contract, &input]).await.parse().unwrap();
    assert!((used / 2..=2 * used).contains(&estimate), "{estimate} beside {used}");
    for (question, answer) in
        [("gas-price", "0"), ("client", concat!("seedbank/", env!("CARGO_PKG_VERSION")))]
    {
        assert_eq!(cast(&program, &chain, &[question]).await, answer, "{question}");
    }
    let logs = cast(&program, &chain, &["logs", "--from-block", "0", "--address", contract, "--json"]).await;
    let logs: Value = serde_json::from_str(&logs).unwrap();
    assert_eq!(logs[0]["data"], input);
    let block: Value =
        serde_json::from_str(&cast(&program, &chain, &["block", "2", "--full", "--json"]).await).unwrap();
    assert_eq!(block["transactions"][0]["hash"], hash);
}

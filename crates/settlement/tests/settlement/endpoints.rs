//! Endpoints that hang, lie, lag and answer nonsense, beside one that does not.

use crate::nodes::{Node, config, deployed, key, policy};
use seedbank_agreement::Amount;
use seedbank_settlement::{
    Chain, ChainConfig, ConnectError, Deployment, DeploymentError, EndpointFault, EndpointPolicy,
    EndpointUrl, ReadError, Wallet,
};
use seedbank_testkit::chain::{Act, Proxy};
use serde_json::{Value, json};
use std::time::Duration;

fn impatient(endpoints: &[EndpointUrl], deployment: &Deployment) -> ChainConfig {
    let policy = EndpointPolicy {
        deadline: Duration::from_millis(300),
        catch_up: Duration::from_millis(150),
        compare_every: Duration::ZERO,
        lag_blocks_max: 2,
    };
    ChainConfig { policy, ..config(endpoints, deployment) }
}

async fn node_and_proxy() -> (Node, Deployment, Wallet, Proxy) {
    let node = Node::embedded().await;
    let (deployment, wallet) = deployed(&node).await;
    let proxy = Proxy::of(&node).await;
    (node, deployment, wallet, proxy)
}

fn problem(chain: &Chain, at: usize) -> String {
    chain.endpoints()[at].problem.clone().unwrap_or_default()
}

#[tokio::test]
async fn an_endpoint_that_hangs_costs_one_deadline_and_then_rests() {
    let (node, deployment, wallet, proxy) = node_and_proxy().await;
    let config = impatient(&[proxy.url(), node.url()], &deployment);
    let chain = Chain::connect(&config).await.unwrap();
    chain.head().await.unwrap();
    proxy.does(|_, _| Act::Hang);
    chain.head().await.unwrap();
    let asked = proxy.count();
    for _ in 0..5 {
        chain.head().await.unwrap();
    }
    assert_eq!(proxy.count(), asked, "it is left alone while it rests");
    assert!(problem(&chain, 0).contains("failed"));
    wallet.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_hangs_from_the_start_does_not_keep_anyone_from_connecting() {
    let (node, deployment, wallet, proxy) = node_and_proxy().await;
    proxy.does(|_, _| Act::Hang);
    let chain = Chain::connect(&impatient(&[proxy.url(), node.url()], &deployment)).await.unwrap();
    chain.head().await.unwrap();
    let alone = Chain::connect(&impatient(&[proxy.url()], &deployment)).await.err().unwrap();
    let ConnectError::Unanswered(unanswered) = alone else { panic!("{alone}") };
    assert!(matches!(unanswered.faults[0].1, EndpointFault::Silent(_)));
    wallet.stop().await;
}

#[tokio::test]
async fn nonsense_endless_answers_closed_connections_and_refusals_make_another_endpoint_answer() {
    let (node, deployment, wallet, proxy) = node_and_proxy().await;
    for act in [Act::Nonsense, Act::Endless, Act::Close, Act::Refuse(-32005, "daily request count exceeded")]
    {
        proxy.does(|_, _| Act::Forward);
        let chain = Chain::connect(&impatient(&[proxy.url(), node.url()], &deployment)).await.unwrap();
        chain.head().await.unwrap();
        let bad = act.clone();
        proxy.does(move |_, _| bad.clone());
        chain.head().await.unwrap_or_else(|error| panic!("{act:?}: {error}"));
    }
    wallet.stop().await;
}

#[tokio::test]
async fn if_nobody_answers_each_endpoints_reason_is_told_and_no_secret() {
    let (_node, deployment, wallet, proxy) = node_and_proxy().await;
    let chain = Chain::connect(&impatient(&[proxy.url()], &deployment)).await.unwrap();
    proxy.does(|_, _| Act::Nonsense);
    let error = chain.head().await.unwrap_err().to_string();
    assert!(error.contains("no JSON-RPC") && error.contains("http://127.0.0.1:"), "{error}");
    assert!(!error.contains("secret"), "{error}");
    wallet.stop().await;
}

#[tokio::test]
async fn an_endpoint_of_another_chain_is_never_used() {
    let (node, deployment, wallet, proxy) = node_and_proxy().await;
    let other_chain = |method: &str, _: &Value| match method {
        "eth_chainId" => Act::Answer(json!("0x1")),
        _ => Act::Forward,
    };
    proxy.does(other_chain);
    let alone = Chain::connect(&impatient(&[proxy.url()], &deployment)).await.err().unwrap();
    let ConnectError::Unanswered(unanswered) = alone else { panic!("{alone}") };
    assert!(matches!(unanswered.faults[0].1, EndpointFault::WrongChain(_)));
    let chain = Chain::connect(&impatient(&[proxy.url(), node.url()], &deployment)).await.unwrap();
    chain.head().await.unwrap();
    let asked = proxy.count();
    chain.head().await.unwrap();
    assert_eq!(proxy.count(), asked);
    assert!(problem(&chain, 0).contains("chain 1 "), "{}", problem(&chain, 0));
    wallet.stop().await;
}

#[tokio::test]
async fn without_a_known_chain_most_endpoints_decide() {
    let (node, deployment, wallet, proxy) = node_and_proxy().await;
    proxy.does(|method, _| if method == "eth_chainId" { Act::Answer(json!("0x1")) } else { Act::Forward });
    let config =
        |endpoints: &[EndpointUrl]| ChainConfig { chain_id: None, ..impatient(endpoints, &deployment) };
    let of_three = Chain::connect(&config(&[proxy.url(), node.url(), node.url()])).await.unwrap();
    assert_eq!(of_three.deployment(), &deployment);
    let of_two = Chain::connect(&config(&[node.url(), proxy.url()])).await.unwrap();
    assert_eq!(of_two.deployment(), &deployment, "of equally many, the one configured first");
    wallet.stop().await;
}

#[tokio::test]
async fn other_code_in_any_contract_is_noticed() {
    let (node, deployment, wallet, proxy) = node_and_proxy().await;
    for contract in [deployment.market, deployment.registry, deployment.randomness, deployment.channels] {
        let at = contract.to_string().to_lowercase();
        proxy.does(move |method, params| {
            let asked = params[0].as_str().unwrap_or_default().to_lowercase();
            if method == "eth_getCode" && asked == at { Act::Answer(json!("0x6000")) } else { Act::Forward }
        });
        let alone = Chain::connect(&impatient(&[proxy.url()], &deployment)).await.err().unwrap();
        assert!(
            matches!(&alone, ConnectError::Deployment(DeploymentError::OtherCode { at, .. }) if *at == contract),
            "{alone}"
        );
        let chain = Chain::connect(&impatient(&[proxy.url(), node.url()], &deployment)).await.unwrap();
        chain.head().await.unwrap();
        assert!(problem(&chain, 0).contains("not the contract"), "{}", problem(&chain, 0));
    }
    wallet.stop().await;
}

/// Knows only the first `blocks` blocks, and nothing that happened after them.
fn stuck_at(blocks: u64) -> impl FnMut(&str, &Value) -> Act + Send + 'static {
    move |method, _| match method {
        "eth_blockNumber" => Act::Answer(json!(format!("{blocks:#x}"))),
        "eth_call" => Act::Answer(json!(format!("0x{}", "00".repeat(32)))),
        _ => Act::Forward,
    }
}

#[tokio::test]
async fn what_a_transaction_did_is_never_read_from_an_endpoint_that_does_not_know_it() {
    let (node, deployment, wallet, proxy) = node_and_proxy().await;
    let me = wallet.address();
    // Comparing is off, so that only the block of the transaction can show it.
    let mut config = impatient(&[proxy.url(), node.url()], &deployment);
    config.policy.compare_every = Duration::from_secs(3600);
    wallet.stop().await;
    let chain = Chain::connect(&config).await.unwrap();
    let wallet = Wallet::start(chain.clone(), key(1), policy());
    let before = chain.head().await.unwrap().number;
    let minted = wallet.token().mint(me, Amount(5)).await.unwrap();
    assert!(minted.block > before);
    proxy.does(stuck_at(before));
    assert_eq!(chain.token().balance_of(me).await.unwrap(), Amount(5));
    wallet.stop().await;
}

#[tokio::test]
async fn an_endpoint_far_behind_the_others_is_asked_after_them() {
    let (node, deployment, wallet, proxy) = node_and_proxy().await;
    let before = node.pass_blocks(1).await;
    let chain = Chain::connect(&impatient(&[proxy.url(), node.url()], &deployment)).await.unwrap();
    chain.head().await.unwrap();
    proxy.does(stuck_at(before));
    node.pass_blocks(5).await;
    chain.head().await.unwrap();
    assert!(problem(&chain, 0).contains("behind"), "{}", problem(&chain, 0));
    let me = wallet.address();
    wallet.token().mint(me, Amount(7)).await.unwrap();
    assert_eq!(chain.token().balance_of(me).await.unwrap(), Amount(7));
    wallet.stop().await;
}

#[tokio::test]
async fn a_block_that_the_others_do_not_have_costs_an_endpoint_its_place() {
    let (node, deployment, wallet, proxy) = node_and_proxy().await;
    node.pass_blocks(10).await;
    let fork = |method: &str, params: &Value| {
        let number = params[0].clone();
        if method == "eth_getBlockByNumber" && number != "latest" {
            let hash = format!("0x{}", "ab".repeat(32));
            Act::Answer(json!({ "number": number, "hash": hash, "timestamp": "0x1" }))
        } else {
            Act::Forward
        }
    };
    proxy.does(fork);
    let other = Proxy::of(&node).await;
    let config = impatient(&[proxy.url(), node.url(), other.url()], &deployment);
    let chain = Chain::connect(&config).await.unwrap();
    chain.head().await.unwrap();
    assert!(problem(&chain, 0).contains("another block"), "{}", problem(&chain, 0));
    let calls = proxy.asked("eth_call").len();
    chain.token().balance_of(wallet.address()).await.unwrap();
    assert_eq!(proxy.asked("eth_call").len(), calls, "it is asked last");
    wallet.stop().await;
}

#[tokio::test]
async fn a_lone_endpoint_that_is_behind_gets_a_while_to_catch_up() {
    let (_node, deployment, wallet, proxy) = node_and_proxy().await;
    wallet.stop().await;
    let chain = Chain::connect(&impatient(&[proxy.url()], &deployment)).await.unwrap();
    let wallet = Wallet::start(chain.clone(), key(1), policy());
    let before = chain.head().await.unwrap().number;
    let me = wallet.address();
    // The receipt came from a node that has the block; what answers next is one behind the same address that hasn't.
    wallet.token().mint(me, Amount(5)).await.unwrap();
    let mut late = 2;
    proxy.does(move |method, _| {
        if method == "eth_blockNumber" && late > 0 {
            late -= 1;
            return Act::Answer(json!(format!("{before:#x}")));
        }
        Act::Forward
    });
    assert_eq!(chain.token().balance_of(me).await.unwrap(), Amount(5));
    wallet.token().mint(me, Amount(5)).await.unwrap();
    proxy.does(stuck_at(before));
    let error = chain.token().balance_of(me).await.unwrap_err();
    let ReadError::Unanswered(unanswered) = error else { panic!("{error}") };
    assert!(matches!(unanswered.faults[0].1, EndpointFault::Behind { .. }));
    wallet.stop().await;
}

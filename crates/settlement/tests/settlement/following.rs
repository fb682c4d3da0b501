//! Following events: in order, whole, and taken back where the chain is.

use crate::nodes::{Node, config, deployed};
use seedbank_agreement::Amount;
use seedbank_settlement::{Chain, Cursor, Event, EventItem, EventPolicy, Events, MarketEvent, Wallet};
use seedbank_testkit::chain::{Act, Proxy};
use serde_json::json;

/// Sums of the deposits that are told, and blocks that are taken back.
async fn deposits(events: &mut Events) -> (Vec<u128>, Vec<u64>) {
    let (mut sums, mut retracted) = (Vec::new(), Vec::new());
    loop {
        let batch = events.poll().await.unwrap();
        for item in batch.items {
            match item {
                EventItem::Happened(happened) => {
                    if let Event::Market(MarketEvent::Deposited { sum, .. }) = happened.event {
                        sums.push(sum.0);
                    }
                }
                EventItem::Retracted { from_block } => retracted.push(from_block),
            }
        }
        if batch.caught_up {
            return (sums, retracted);
        }
    }
}

async fn depositor(node: &Node) -> Wallet {
    let (deployment, wallet) = deployed(node).await;
    wallet.token().mint(wallet.address(), Amount(1_000)).await.unwrap();
    wallet.token().approve(deployment.market, Amount(1_000)).await.unwrap();
    wallet
}

async fn deposit(wallet: &Wallet, sum: u128) -> u64 {
    wallet.market().deposit(wallet.address(), Amount(sum)).await.unwrap().block
}

#[tokio::test]
async fn events_come_once_and_in_order_across_restarts() {
    for node in Node::each().await {
        let wallet = depositor(&node).await;
        let policy = EventPolicy::default();
        let mut events = Events::new(wallet.chain(), Cursor::from_block(0), policy);
        for sum in 1..=3 {
            deposit(&wallet, sum).await;
        }
        assert_eq!(deposits(&mut events).await, (vec![1, 2, 3], vec![]));
        assert_eq!(deposits(&mut events).await, (vec![], vec![]));
        let stored = serde_json::to_string(events.cursor()).unwrap();
        deposit(&wallet, 4).await;
        let mut events = Events::new(wallet.chain(), serde_json::from_str(&stored).unwrap(), policy);
        assert_eq!(deposits(&mut events).await, (vec![4], vec![]));
        wallet.stop().await;
    }
}

#[tokio::test]
async fn ranges_shrink_until_the_endpoint_takes_them() {
    let node = Node::embedded().await;
    let wallet = depositor(&node).await;
    let mut expected = Vec::new();
    for sum in 1..=20 {
        deposit(&wallet, sum).await;
        expected.push(sum);
    }
    let proxy = Proxy::of(&node).await;
    proxy.does(|method, params| {
        let block = |name: &str| {
            u64::from_str_radix(params[0][name].as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
        };
        if method == "eth_getLogs" && block("toBlock") - block("fromBlock") >= 3 {
            return Act::Refuse(-32_000, "exceed maximum block range: 3");
        }
        Act::Forward
    });
    let chain = Chain::connect(&config(&[proxy.url()], wallet.chain().deployment())).await.unwrap();
    let mut events = Events::new(&chain, Cursor::from_block(0), EventPolicy::default());
    assert_eq!(deposits(&mut events).await, (expected, vec![]));
    wallet.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_refuses_even_one_block_is_an_error() {
    let node = Node::embedded().await;
    let wallet = depositor(&node).await;
    let proxy = Proxy::of(&node).await;
    let chain = Chain::connect(&config(&[proxy.url()], wallet.chain().deployment())).await.unwrap();
    proxy.does(
        |method, _| {
            if method == "eth_getLogs" { Act::Refuse(-32_601, "no such method") } else { Act::Forward }
        },
    );
    let mut events = Events::new(&chain, Cursor::from_block(0), EventPolicy::default());
    let error = loop {
        match events.poll().await {
            Ok(batch) => assert!(batch.items.is_empty() && !batch.caught_up),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("no such method"), "{error}");
    assert_eq!(events.cursor(), &Cursor::from_block(0));
    wallet.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_falls_behind_takes_nothing_back() {
    let node = Node::embedded().await;
    let wallet = depositor(&node).await;
    let proxy = Proxy::of(&node).await;
    let chain = Chain::connect(&config(&[proxy.url()], wallet.chain().deployment())).await.unwrap();
    let mut events = Events::new(&chain, Cursor::from_block(0), EventPolicy::default());
    let block = deposit(&wallet, 1).await;
    assert_eq!(deposits(&mut events).await.0, [1]);
    proxy.does(move |method, params| match method {
        "eth_blockNumber" => Act::Answer(json!(format!("{:#x}", block - 1))),
        "eth_getBlockByNumber" if params[0] == format!("{block:#x}") => Act::Answer(json!(null)),
        _ => Act::Forward,
    });
    assert_eq!(deposits(&mut events).await, (vec![], vec![]));
    proxy.does(|_, _| Act::Forward);
    deposit(&wallet, 2).await;
    assert_eq!(deposits(&mut events).await, (vec![2], vec![]));
    wallet.stop().await;
}

#[tokio::test]
async fn a_reorganisation_takes_back_what_is_gone_and_tells_what_came_instead() {
    let Some(node) = Node::anvil(&["--hardfork", "berlin"]) else { return };
    let wallet = depositor(&node).await;
    let mut events = Events::new(wallet.chain(), Cursor::from_block(0), EventPolicy::default());
    deposit(&wallet, 1).await;
    assert_eq!(deposits(&mut events).await.0, [1]);
    let block = deposit(&wallet, 2).await;
    assert_eq!(deposits(&mut events).await.0, [2]);
    deposit(&wallet, 3).await;
    assert_eq!(deposits(&mut events).await.0, [3]);
    node.ask("anvil_reorg", json!([2, []])).await;
    assert_eq!(deposits(&mut events).await, (vec![], vec![block]));
    deposit(&wallet, 4).await;
    assert_eq!(deposits(&mut events).await, (vec![4], vec![]));
    let mut from_start = Events::new(wallet.chain(), Cursor::from_block(0), EventPolicy::default());
    assert_eq!(deposits(&mut from_start).await.0, [1, 4]);
    wallet.stop().await;
}

#[tokio::test]
async fn with_confirmations_a_small_reorganisation_goes_unnoticed() {
    let Some(node) = Node::anvil(&["--hardfork", "berlin"]) else { return };
    let wallet = depositor(&node).await;
    let policy = EventPolicy { confirmations: 3, ..EventPolicy::default() };
    let mut events = Events::new(wallet.chain(), Cursor::from_block(0), policy);
    deposit(&wallet, 1).await;
    assert_eq!(deposits(&mut events).await.0, [0; 0]);
    node.pass_blocks(2).await;
    assert_eq!(deposits(&mut events).await.0, [1]);
    deposit(&wallet, 2).await;
    assert_eq!(deposits(&mut events).await, (vec![], vec![]));
    node.ask("anvil_reorg", json!([1, []])).await;
    node.pass_blocks(3).await;
    assert_eq!(
        deposits(&mut events).await,
        (vec![], vec![]),
        "it was never told, so there is nothing to take back"
    );
    wallet.stop().await;
}

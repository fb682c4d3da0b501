//! Sending when something is in the way: prices, pools, other senders, a chain that stands, a process that dies.

use crate::nodes::{Node, config, deployed, key, policy};
use alloy_consensus::{SignableTransaction, Transaction, TxEnvelope, TxLegacy};
use alloy_eips::{Decodable2718, Encodable2718};
use alloy_primitives::TxKind;
use seedbank_agreement::Amount;
use seedbank_formats::DatasetId;
use seedbank_formats::keys::SigningKey;
use seedbank_settlement::{Chain, Deployment, Refusal, SendError, SendPolicy, Wallet, WalletStatus, name_id};
use seedbank_testkit::chain::{Act, Proxy};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A wallet that sends through a proxy, and the proxy.
async fn through_proxy(node: &Node, policy: SendPolicy) -> (Deployment, Wallet, Proxy) {
    let (deployment, deployer) = deployed(node).await;
    deployer.stop().await;
    let proxy = Proxy::of(node).await;
    let chain = Chain::connect(&config(&[proxy.url()], &deployment)).await.unwrap();
    (deployment, Wallet::start(chain, key(1), policy), proxy)
}

fn hasty() -> SendPolicy {
    SendPolicy { stuck_after: Duration::from_millis(60), patience: Duration::from_millis(500), ..policy() }
}

fn sent(proxy: &Proxy) -> Vec<TxEnvelope> {
    let decode = |params: &Value| {
        let raw = alloy_primitives::hex::decode(params[0].as_str().unwrap()).unwrap();
        TxEnvelope::decode_2718(&mut raw.as_slice()).unwrap()
    };
    proxy.asked("eth_sendRawTransaction").iter().map(decode).collect()
}

async fn balance(wallet: &Wallet) -> Amount {
    wallet.chain().token().balance_of(wallet.address()).await.unwrap()
}

#[tokio::test]
async fn what_the_contract_would_refuse_is_not_sent() {
    for node in Node::each().await {
        let (deployment, wallet, proxy) = through_proxy(&node, policy()).await;
        let error = wallet.market().deposit(wallet.address(), Amount(1)).await.unwrap_err();
        let refused = Refusal::TokenAllowance { needed: Amount(1), allowance: Amount(0) };
        assert!(matches!(&error, SendError::Refused(refusal) if *refusal == refused), "{error}");
        wallet.token().approve(deployment.market, Amount(1)).await.unwrap();
        let error = wallet.market().deposit(wallet.address(), Amount(1)).await.unwrap_err();
        let refused = Refusal::TokenBalance { needed: Amount(1), balance: Amount(0) };
        assert!(matches!(&error, SendError::Refused(refusal) if *refusal == refused), "{error}");
        assert_eq!(sent(&proxy).len(), 1);
        wallet.stop().await;
    }
}

#[tokio::test]
async fn what_changes_between_the_check_and_the_block_is_told_as_reverted() {
    for node in Node::each().await {
        changed_between(&node).await;
    }
}

async fn changed_between(node: &Node) {
    let (_, wallet, proxy) = through_proxy(node, policy()).await;
    // As if it had been possible when it was asked, once.
    let mut checks = 0;
    proxy.does(move |method, _| match method {
        "eth_call" if checks == 0 => {
            checks += 1;
            Act::Answer(json!("0x"))
        }
        "eth_estimateGas" => Act::Answer(json!("0x30000")),
        _ => Act::Forward,
    });
    let error = wallet.market().withdraw(Amount(1), wallet.address()).await.unwrap_err();
    let SendError::Reverted { mined, refusal } = error else { panic!("{error}") };
    assert_eq!(refusal, Some(Refusal::Balance { wanted: Amount(1), free: Amount(0) }));
    assert!(mined.gas_used > 21_000);
    proxy.does(|_, _| Act::Forward);
    wallet.token().mint(wallet.address(), Amount(5)).await.unwrap();
    wallet.stop().await;
}

#[tokio::test]
async fn a_gas_spike_is_waited_out_and_said() {
    let node = Node::embedded().await;
    let policy = SendPolicy { gas_price_max: Some(1_000), ..policy() };
    let (_, wallet, proxy) = through_proxy(&node, policy).await;
    let dear = Arc::new(AtomicBool::new(true));
    let still_dear = Arc::clone(&dear);
    proxy.does(move |method, _| match method {
        "eth_gasPrice" if still_dear.load(Ordering::Relaxed) => Act::Answer(json!("0x3e9")),
        _ => Act::Forward,
    });
    let mut status = wallet.watch_status();
    let minting = {
        let wallet = wallet.clone();
        tokio::spawn(async move { wallet.token().mint(wallet.address(), Amount(5)).await })
    };
    status.wait_for(|status| *status == WalletStatus::TooDear { price: 1_001, cap: 1_000 }).await.unwrap();
    assert!(sent(&proxy).is_empty());
    dear.store(false, Ordering::Relaxed);
    minting.await.unwrap().unwrap();
    assert_eq!(proxy.asked("eth_estimateGas").len(), 2, "what was checked before the wait is checked again");
    wallet.stop().await;
}

#[tokio::test]
async fn a_price_that_stays_too_high_is_told_and_nothing_is_sent() {
    let node = Node::embedded().await;
    let (_, wallet, proxy) = through_proxy(&node, SendPolicy { gas_price_max: Some(1), ..hasty() }).await;
    proxy.does(|method, _| if method == "eth_gasPrice" { Act::Answer(json!("0x2")) } else { Act::Forward });
    let error = wallet.token().mint(wallet.address(), Amount(5)).await.unwrap_err();
    assert!(matches!(error, SendError::TooDear { price: 2, cap: 1 }), "{error}");
    assert!(sent(&proxy).is_empty());
    wallet.stop().await;
}

#[tokio::test]
async fn a_call_that_needs_more_gas_than_is_offered_is_not_sent() {
    for node in Node::each().await {
        too_much_gas(&node).await;
    }
}

async fn too_much_gas(node: &Node) {
    let (_, wallet, proxy) = through_proxy(node, SendPolicy { gas_limit_max: 21_000, ..policy() }).await;
    let error = wallet.token().mint(wallet.address(), Amount(5)).await.unwrap_err();
    assert!(matches!(error, SendError::TooMuchGas { max: 21_000, .. }), "{error}");
    assert!(sent(&proxy).is_empty());
    wallet.stop().await;
}

#[tokio::test]
async fn a_transaction_that_got_lost_is_sent_again_at_a_higher_price_with_the_same_nonce() {
    for node in Node::each().await {
        let (_, wallet, proxy) =
            through_proxy(&node, SendPolicy { patience: Duration::from_secs(20), ..hasty() }).await;
        let mut lost = 2;
        proxy.does(move |method, _| {
            if method == "eth_sendRawTransaction" && lost > 0 {
                lost -= 1;
                return Act::Answer(json!(format!("0x{}", "11".repeat(32))));
            }
            Act::Forward
        });
        wallet.token().mint(wallet.address(), Amount(5)).await.unwrap();
        assert_eq!(balance(&wallet).await, Amount(5));
        let sent = sent(&proxy);
        assert_eq!(sent.len(), 3);
        assert!(sent.windows(2).all(|pair| pair[0].nonce() == pair[1].nonce()));
        assert!(sent.windows(2).all(|pair| pair[0].max_fee_per_gas() * 11 / 10 <= pair[1].max_fee_per_gas()));
        assert!(sent.windows(2).all(|pair| pair[0].max_fee_per_gas() < pair[1].max_fee_per_gas()));
        wallet.stop().await;
    }
}

#[tokio::test]
async fn a_lost_answer_to_sending_does_not_make_it_happen_twice() {
    for node in Node::each().await {
        lost_answer(&node).await;
    }
}

async fn lost_answer(node: &Node) {
    let (_, wallet, proxy) =
        through_proxy(node, SendPolicy { patience: Duration::from_secs(20), ..hasty() }).await;
    let address = node.address().to_owned();
    let mut lost = 1;
    proxy.does(move |method, params| {
        if method == "eth_sendRawTransaction" && lost > 0 {
            lost -= 1;
            let question = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
            let address = address.clone();
            // It arrives, and the connection breaks before anybody is told.
            tokio::spawn(async move { crate::nodes::post(&address, &question).await });
            return Act::Nonsense;
        }
        Act::Forward
    });
    wallet.token().mint(wallet.address(), Amount(5)).await.unwrap();
    assert_eq!(balance(&wallet).await, Amount(5));
    wallet.stop().await;
}

#[tokio::test]
async fn on_a_chain_that_stands_still_it_is_pending_and_the_next_takes_its_place() {
    for node in Node::each().await {
        stands_still(&node).await;
    }
}

async fn stands_still(node: &Node) {
    let (_, wallet, proxy) = through_proxy(node, hasty()).await;
    proxy.does(|method, _| match method {
        "eth_sendRawTransaction" => Act::Answer(json!(format!("0x{}", "11".repeat(32)))),
        _ => Act::Forward,
    });
    let error = wallet.token().mint(wallet.address(), Amount(5)).await.unwrap_err();
    assert!(matches!(error, SendError::Pending), "{error}");
    let stuck = sent(&proxy).pop().unwrap();
    proxy.does(|_, _| Act::Forward);
    wallet.token().mint(wallet.address(), Amount(7)).await.unwrap();
    assert_eq!(balance(&wallet).await, Amount(7), "the first will never happen: its nonce is used");
    let replaced = sent(&proxy).pop().unwrap();
    assert_eq!(replaced.nonce(), stuck.nonce());
    assert!(replaced.max_fee_per_gas() > stuck.max_fee_per_gas());
    wallet.stop().await;
}

#[tokio::test]
async fn two_processes_with_one_key_get_all_their_transactions_done_once() {
    for node in Node::each().await {
        two_processes(&node).await;
    }
}

async fn two_processes(node: &Node) {
    let (deployment, first) = deployed(node).await;
    let second = Wallet::start(node.chain(&deployment).await, key(1), policy());
    // Not the same calls: those would be one transaction.
    let mint = |wallet: Wallet, sum: u128| async move {
        let mut done = 0;
        for _ in 0..10 {
            match wallet.token().mint(wallet.address(), Amount(sum)).await {
                Ok(_) => done += sum,
                Err(SendError::KeyInUse) => {}
                Err(other) => panic!("{other}"),
            }
        }
        done
    };
    let (one, two) = tokio::join!(mint(first.clone(), 1), mint(second.clone(), 100));
    assert_eq!(balance(&first).await, Amount(one + two));
    assert!(one + two > 0);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn many_callers_of_one_wallet_are_served_in_turn() {
    for node in Node::each().await {
        many_callers(&node).await;
    }
}

async fn many_callers(node: &Node) {
    let (_, wallet) = deployed(node).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let wallet = wallet.clone();
        tasks.spawn(async move {
            wallet.token().mint(wallet.address(), Amount(1)).await.map(|mined| mined.block)
        });
    }
    let mut blocks: Vec<u64> = tasks.join_all().await.into_iter().map(Result::unwrap).collect();
    blocks.sort_unstable();
    blocks.dedup();
    assert_eq!(blocks.len(), 20);
    assert_eq!(balance(&wallet).await, Amount(20));
    wallet.stop().await;
    let stopped = wallet.token().mint(wallet.address(), Amount(1)).await.unwrap_err();
    assert!(matches!(stopped, SendError::Stopped), "{stopped}");
}

/// A transaction of the first key that no wallet of ours sent, two ahead of its turn.
async fn send_ahead_of_its_turn(node: &Node, chain_id: u64) -> String {
    let me = json!([key(1).address().to_string(), "latest"]);
    let next = node.ask("eth_getTransactionCount", me).await;
    let unsigned = TxLegacy {
        chain_id: Some(chain_id),
        nonce: u64::from_str_radix(next.as_str().unwrap().trim_start_matches("0x"), 16).unwrap() + 2,
        gas_price: 100_000_000_000,
        gas_limit: 21_000,
        to: TxKind::Call([9; 20].into()),
        ..TxLegacy::default()
    };
    let signature = key(1).sign(&unsigned.signature_hash().0);
    let signature = alloy_primitives::Signature::try_from(signature.as_bytes().as_slice()).unwrap();
    let raw = TxEnvelope::from(unsigned.into_signed(signature)).encoded_2718();
    let hash = node.ask("eth_sendRawTransaction", json!([alloy_primitives::hex::encode_prefixed(raw)])).await;
    hash.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_gap_in_the_nonces_is_filled_in_order_and_what_waited_behind_it_is_passed() {
    for node in Node::each().await {
        let (deployment, wallet) = deployed(&node).await;
        wallet.stop().await;
        let ahead = send_ahead_of_its_turn(&node, deployment.chain_id).await;
        assert_eq!(node.ask("eth_getTransactionReceipt", json!([ahead])).await, Value::Null);
        let wallet = Wallet::start(node.chain(&deployment).await, key(1), policy());
        for _ in 0..4 {
            wallet.token().mint(wallet.address(), Amount(5)).await.unwrap();
        }
        assert_eq!(balance(&wallet).await, Amount(20));
        let receipt = node.ask("eth_getTransactionReceipt", json!([ahead])).await;
        assert_eq!(receipt["status"], "0x1", "its turn came after the second");
        wallet.stop().await;
    }
}

#[tokio::test]
async fn an_endpoint_that_hangs_when_it_is_sent_something_holds_nothing_up() {
    let node = Node::embedded().await;
    let (deployment, deployer) = deployed(&node).await;
    deployer.stop().await;
    let proxy = Proxy::of(&node).await;
    let mut config = config(&[proxy.url(), node.url()], &deployment);
    config.policy.deadline = Duration::from_millis(200);
    let wallet = Wallet::start(Chain::connect(&config).await.unwrap(), key(1), policy());
    proxy.does(|method, _| match method {
        "eth_sendRawTransaction" | "eth_getTransactionReceipt" => Act::Hang,
        _ => Act::Forward,
    });
    for sum in [5, 7] {
        wallet.token().mint(wallet.address(), Amount(sum)).await.unwrap();
    }
    assert_eq!(balance(&wallet).await, Amount(12));
    wallet.stop().await;
}

#[tokio::test]
async fn an_account_without_coin_is_told_so() {
    let Some(node) = Node::anvil(&["--hardfork", "berlin"]) else { return };
    let (deployment, deployer) = deployed(&node).await;
    let poor = Wallet::start(node.chain(&deployment).await, key(77), policy());
    let error = poor.token().mint(poor.address(), Amount(1)).await.unwrap_err();
    assert!(matches!(error, SendError::NoCoin { account } if account == poor.address()), "{error}");
    deployer.send_coin(poor.address(), 10u128.pow(18)).await.unwrap();
    poor.token().mint(poor.address(), Amount(1)).await.unwrap();
    deployer.stop().await;
    poor.stop().await;
}

/// Waits until the node has a transaction of the first key that is in no block.
async fn in_pool(node: &Node) {
    let count =
        |at: &'static str| node.ask("eth_getTransactionCount", json!([key(1).address().to_string(), at]));
    while count("pending").await == count("latest").await {
        tokio::task::yield_now().await;
    }
}

/// Registers a name, which can be done once.
async fn register(wallet: Wallet) -> Result<(), SendError> {
    let identity = SigningKey::from_seed([7; 32]);
    let word = wallet.chain().dataset_binding(wallet.address()).sign(&identity);
    wallet.datasets().register("once", DatasetId([1; 32]), identity.public(), &word).await.map(|_| ())
}

#[tokio::test]
async fn what_a_killed_process_left_in_the_pool_is_waited_for_and_not_done_again() {
    let Some(node) = Node::anvil(&["--hardfork", "berlin"]) else { return };
    let (deployment, deployer) = deployed(&node).await;
    deployer.stop().await;
    node.ask("evm_setAutomine", json!([false])).await;
    let url = node.url();
    let doomed = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let wallet = runtime.block_on(async {
            let chain = Chain::connect(&config(&[url], &deployment)).await.unwrap();
            Wallet::start(chain, key(1), policy())
        });
        runtime.spawn(register(wallet));
        (runtime, deployment)
    });
    let (runtime, deployment) = doomed.join().unwrap();
    in_pool(&node).await;
    // Killed: no task of it does anything any more.
    runtime.shutdown_background();
    let wallet = Wallet::start(node.chain(&deployment).await, key(1), policy());
    let mut status = wallet.watch_status();
    let again = tokio::spawn(register(wallet.clone()));
    status.wait_for(|status| matches!(status, WalletStatus::Waiting { .. })).await.unwrap();
    node.ask("evm_mine", json!([])).await;
    let error = again.await.unwrap().unwrap_err();
    assert!(matches!(error, SendError::Refused(Refusal::NameTaken)), "{error}");
    let id = name_id(wallet.address(), "once");
    assert!(wallet.chain().datasets().get(id).await.unwrap().is_some());
    wallet.stop().await;
}

#[tokio::test]
async fn a_transaction_counts_only_when_enough_blocks_hold_it_and_survives_a_reorganisation() {
    let Some(node) = Node::anvil(&["--hardfork", "berlin"]) else { return };
    let (deployment, deployer) = deployed(&node).await;
    deployer.stop().await;
    node.pass_blocks(3).await;
    node.ask("evm_setAutomine", json!([false])).await;
    let policy = SendPolicy { confirmations: 3, stuck_after: Duration::from_millis(300), ..policy() };
    let proxy = Proxy::of(&node).await;
    let chain = Chain::connect(&config(&[proxy.url()], &deployment)).await.unwrap();
    let wallet = Wallet::start(chain, key(1), policy);
    let minting = {
        let wallet = wallet.clone();
        tokio::spawn(async move { wallet.token().mint(wallet.address(), Amount(5)).await })
    };
    in_pool(&node).await;
    let first = node.pass_blocks(1).await;
    // Seen in its block, and not enough.
    let looks = proxy.asked("eth_blockNumber").len();
    while proxy.asked("eth_blockNumber").len() < looks + 3 {
        tokio::task::yield_now().await;
    }
    assert!(!minting.is_finished());
    node.ask("anvil_reorg", json!([1, []])).await;
    while !minting.is_finished() {
        node.pass_blocks(1).await;
    }
    let mined = minting.await.unwrap().unwrap();
    assert!(mined.block > first);
    assert_eq!(balance(&wallet).await, Amount(5));
    wallet.stop().await;
}

#[tokio::test]
async fn each_chain_gets_the_kind_of_transaction_that_it_takes() {
    for node in Node::each().await {
        let (_, wallet, proxy) = through_proxy(&node, policy()).await;
        wallet.token().mint(wallet.address(), Amount(5)).await.unwrap();
        assert!(sent(&proxy)[0].is_legacy());
        wallet.stop().await;
    }
    let Some(london) = Node::anvil(&["--hardfork", "london"]) else { return };
    let (_, wallet, proxy) = through_proxy(&london, policy()).await;
    wallet.token().mint(wallet.address(), Amount(5)).await.unwrap();
    assert!(sent(&proxy)[0].is_eip1559());
    wallet.stop().await;
}

#[tokio::test]
async fn what_would_move_money_again_is_not_sent_again_when_its_receipt_is_not_shown() {
    for node in Node::each().await {
        receipt_not_shown(&node).await;
    }
}

async fn receipt_not_shown(node: &Node) {
    let (deployment, wallet, proxy) = through_proxy(node, policy()).await;
    let own = wallet.address();
    wallet.token().mint(own, Amount(100)).await.unwrap();
    wallet.token().approve(deployment.market, Amount(80)).await.unwrap();
    wallet.market().deposit(own, Amount(40)).await.unwrap();
    proxy.does(|method, _| match method {
        "eth_getTransactionReceipt" => Act::Answer(json!(null)),
        _ => Act::Forward,
    });
    let before = sent(&proxy).len();
    let (market, token) = (wallet.market(), wallet.token());
    let other = key(2).address();
    let errors = [
        market.withdraw(Amount(10), own).await.unwrap_err(),
        market.deposit(own, Amount(3)).await.unwrap_err(),
        token.transfer(other, Amount(7)).await.unwrap_err(),
    ];
    assert_eq!(sent(&proxy).len(), before + errors.len(), "each once: {errors:?}");
    for (error, sent) in errors.iter().zip(&sent(&proxy)[before..]) {
        let SendError::Unseen { nonce, transactions } = error else { panic!("{error}") };
        assert_eq!((*nonce, transactions.as_slice()), (sent.nonce(), &[sent.tx_hash().0][..]));
        assert!(error.to_string().contains(&sent.tx_hash().to_string()), "{error}");
    }
    proxy.does(|_, _| Act::Forward);
    let free = wallet.chain().market().free(own).await.unwrap();
    assert_eq!((free, balance(&wallet).await), (Amount(33), Amount(60 + 10 - 3 - 7)));
    wallet.stop().await;
}

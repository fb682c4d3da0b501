//! Deploying, and recognising what was deployed.

use crate::nodes::{EPOCH, Node, config, deployed, key};
use seedbank_agreement::Amount;
use seedbank_settlement::{Chain, ConnectError, DeployError, DeploymentError, Settings, one_token};
use serde_json::json;

#[tokio::test]
async fn what_was_deployed_is_found_from_its_directory_and_recognised() {
    for node in Node::each().await {
        found_and_recognised(&node).await;
    }
}

async fn found_and_recognised(node: &Node) {
    let (deployment, wallet) = deployed(node).await;
    assert_eq!(wallet.chain().deployment(), &deployment);
    assert_eq!(deployment.parameters.token_symbol, "tSEED");
    assert_eq!(deployment.parameters.market.challenges, 3);
    let me = wallet.address();
    wallet.token().mint(me, Amount(5)).await.unwrap();
    assert_eq!(wallet.chain().token().balance_of(me).await.unwrap(), Amount(5));
    assert_eq!(wallet.chain().head().await.unwrap().epoch.unwrap().0, 0);
    node.pass(u64::from(EPOCH)).await;
    assert_eq!(wallet.chain().head().await.unwrap().epoch.unwrap().0, 1);
    wallet.stop().await;
}

#[tokio::test]
async fn an_address_without_a_directory_is_refused() {
    for node in Node::each().await {
        no_directory(&node).await;
    }
}

async fn no_directory(node: &Node) {
    let (mut deployment, wallet) = deployed(node).await;
    deployment.directory = key(9).address();
    let error = Chain::connect(&config(&[node.url()], &deployment)).await.err().unwrap();
    assert!(matches!(error, ConnectError::Deployment(DeploymentError::NoDirectory(_))), "{error}");
    deployment.directory = deployment.market;
    let error = Chain::connect(&config(&[node.url()], &deployment)).await.err().unwrap();
    assert!(matches!(
        error,
        ConnectError::Deployment(DeploymentError::OtherCode { contract: "Directory", .. })
    ));
    wallet.stop().await;
}

#[tokio::test]
async fn one_token_has_as_many_units_as_the_token_says() {
    for node in Node::each().await {
        units_of_one_token(&node).await;
    }
}

async fn units_of_one_token(node: &Node) {
    let (deployment, wallet) = deployed(node).await;
    let (url, id) = (node.url(), deployment.chain_id);
    let units = |token| one_token(&url, Some(id), token);
    assert_eq!(units(deployment.token).await.unwrap(), Amount(1_000_000_000_000_000_000));
    let silent = deployment.directory;
    assert!(matches!(units(silent).await, Err(DeployError::NoDecimals(token)) if token == silent));
    assert!(matches!(units(key(9).address()).await, Err(DeployError::NoToken(_))));
    let elsewhere = one_token(&url, Some(id + 1), deployment.token).await;
    assert!(matches!(elsewhere, Err(DeployError::Connect(_))));
    wallet.stop().await;
}

#[tokio::test]
async fn one_token_of_any_decimals_is_counted_or_refused() {
    let Some(node) = Node::anvil(&["--hardfork", "berlin"]) else { return };
    let token = key(9).address();
    for (decimals, units) in [(0, Some(1)), (6, Some(1_000_000)), (38, Some(10u128.pow(38))), (39, None)] {
        // Whatever is asked, it answers this number.
        let code = format!("0x60{decimals:02x}60005260206000f3");
        node.ask("anvil_setCode", json!([token.to_string(), code])).await;
        let found = one_token(&node.url(), None, token).await;
        match units {
            Some(units) => assert_eq!(found.unwrap(), Amount(units), "{decimals}"),
            None => assert!(matches!(found, Err(DeployError::NoDecimals(_))), "{decimals}"),
        }
    }
}

#[tokio::test]
async fn token_that_says_nothing_of_itself_is_counted_in_units() {
    for node in Node::each().await {
        let (silent, wallet) = deployed(&node).await;
        let token = Some(silent.directory);
        let (deployment, other) = node.deployed_with(|settings| Settings { token, ..settings }).await;
        let parameters = &deployment.parameters;
        assert_eq!((parameters.token_symbol.as_str(), parameters.token_decimals), ("units", 0));
        assert_eq!(
            Chain::connect(&config(&[node.url()], &deployment)).await.unwrap().deployment(),
            &deployment
        );
        wallet.stop().await;
        other.stop().await;
    }
}

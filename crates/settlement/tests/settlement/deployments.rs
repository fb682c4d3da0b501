//! Deploying, and recognising what was deployed.

use crate::nodes::{EPOCH, Node, config, deployed, key};
use seedbank_agreement::Amount;
use seedbank_settlement::{Chain, ConnectError, DeploymentError};

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

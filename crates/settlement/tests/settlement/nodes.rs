//! Nodes with contracts as these tests want them.

pub(crate) use seedbank_testkit::chain::{Node, config, key, policy, post};

use seedbank_agreement::Amount;
use seedbank_settlement::{Deployment, Settings, Wallet};

pub(crate) const EPOCH: u32 = 1_000;

/// New contracts with epochs of `EPOCH` seconds, and a wallet of their deployer.
pub(crate) async fn deployed(node: &Node) -> (Deployment, Wallet) {
    node.deployed_with(|mut settings| {
        (settings.market.challenges, settings.market.question_bond) = (3, Amount(500));
        Settings { epoch_seconds: EPOCH, ..settings }
    })
    .await
}

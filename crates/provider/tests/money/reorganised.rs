//! Chains that lose what they had: transactions that were done are done no more. On anvil, which does that when it is told to.

use crate::world::{EPOCH, World, accepted, run, set, stored, until};
use seedbank_agreement::Amount;
use seedbank_protocol::payment::{TransactionHash, VoucherAnswer};
use seedbank_protocol::routes::Access;
use seedbank_provider::Fate;
use seedbank_settlement::{Outcome, Wallet};
use seedbank_testkit::chain::{Act, Node, Proxy, policy};
use serde_json::json;

/// Gas is free, so that everything is sent as soon as there is a reason.
const FREE: [&str; 4] = ["--hardfork", "berlin", "--gas-price", "0"];

/// The provider is behind a proxy, which can keep it from sending.
async fn world(lines: &str) -> Option<(World, Proxy)> {
    let node = Node::anvil(&FREE)?;
    let proxy = Proxy::of(&node).await;
    let world = World::on(node, &[proxy.url()], lines).await;
    // Blocks to lose without losing what the test stands on.
    world.node.pass_blocks(3).await;
    Some((world, proxy))
}

/// Takes back all blocks from a transaction's on.
async fn undo(world: &World, transaction: TransactionHash) {
    let number = |value: &serde_json::Value| {
        u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    };
    let receipt = world.node.ask("eth_getTransactionReceipt", json!([transaction.to_string()])).await;
    let head = number(&world.node.ask("eth_blockNumber", json!([])).await);
    let depth = head - number(&receipt["blockNumber"]) + 1;
    world.node.ask("anvil_reorg", json!([depth, []])).await;
    let receipt = world.node.ask("eth_getTransactionReceipt", json!([transaction.to_string()])).await;
    assert!(receipt.is_null(), "the chain has lost it");
}

#[test]
fn agreement_and_revision_that_the_chain_lost_are_sent_again() {
    run(async {
        let Some((world, proxy)) = world("").await else { return };
        let provider = world.start().await;
        let client = provider.client();
        let two = stored(1..3);
        let (id, before) = world.agree(&client, &two).await;
        world.mute(&proxy);
        undo(&world, world.report().agreements[0].opened).await;
        let market = world.wallet.chain().market();
        assert!(market.get_agreement(id).await.unwrap().is_none());
        // Its number says that anvil draws the same transaction's block anew.
        proxy.does(|_, _| Act::Forward);
        until("the agreement is there again", || async {
            market.agreement_of(world.wallet.address(), world.payee).await.unwrap().is_some()
        })
        .await;
        until("the books have it once", || async {
            let agreements = world.report().agreements;
            agreements.len() == 1 && agreements[0].closed.is_none()
        })
        .await;
        let id = market.agreement_of(world.wallet.address(), world.payee).await.unwrap().unwrap_or(id);

        let three = stored(1..4);
        client.put(&three[2], Access::Owner).await.unwrap();
        let request = world.revision(id, 0, (&before, &set(&three))).await;
        accepted(client.client.revise(&client.peer, &request).await.unwrap());
        let sequence = || async { market.get_agreement(id).await.unwrap().unwrap().sequence };
        until("the revision is posted", || async { sequence().await == 1 }).await;
        world.mute(&proxy);
        world.node.ask("anvil_reorg", json!([1, []])).await;
        assert_eq!(sequence().await, 0, "it was in the last block");
        proxy.does(|_, _| Act::Forward);
        until("the revision is posted again", || async { sequence().await == 1 }).await;
        world.proven_epoch().await;
        until("the books have the pay", || async {
            world.report().agreements[0].earned == Amount::from(world.rate(900_000))
        })
        .await;
        assert_eq!(market.free(world.payee).await.unwrap(), Amount::from(world.rate(900_000)));
    });
}

#[test]
fn agreements_that_come_back_under_each_others_numbers_are_proven_for_whom_they_are() {
    run(async {
        let Some(node) = Node::anvil(&FREE) else { return };
        // Each of two endpoints shows another client's agreement under the number that the books have.
        let beside = Proxy::of(&node).await;
        let urls = [node.url(), beside.url()];
        let world = World::on(node, &urls, "").await;
        world.serve_anybody();
        let provider = world.start().await;
        let purse = Amount(world.rate(600_000).units() * 400);
        let (one, other) = (world.other_client(1, purse).await, world.other_client(2, purse).await);
        let mut agreements = Vec::new();
        for ((wallet, identity), fragments) in [(one, 1..2), (other, 2..4)] {
            let caller = provider.caller(&identity);
            agreements.push(world.agree_of((&wallet, &identity), &caller, &stored(fragments)).await);
        }
        let [first, second] = <[_; 2]>::try_from(agreements).unwrap();
        let opened = world.report().agreements[0].opened;
        provider.stop().await;
        undo(&world, opened).await;
        let chain = world.node.chain(&world.deployment).await;
        let provider_wallet = Wallet::start(chain, world.provider_key(), policy());
        let again = [second.1.proposal, first.1.proposal];
        let activated = provider_wallet.market().activate(&again).await.unwrap();
        assert_eq!(activated.agreements, [Ok(first.0), Ok(second.0)]);
        provider_wallet.stop().await;

        let _provider = world.start().await;
        let rates = [world.rate(600_000), world.rate(300_000)];
        until("the books have each under its number", || async {
            let rows = world.report().agreements;
            rows.iter().map(|row| row.rate).collect::<Vec<_>>() == rates.map(Amount::from)
        })
        .await;
        world.proven_epoch().await;
        let market = world.wallet.chain().market();
        let pay = rates.into_iter().map(Amount::from).sum();
        assert_eq!(market.free(world.payee).await.unwrap(), pay);
    });
}

#[test]
fn proof_that_the_chain_lost_is_not_counted_and_is_sent_again() {
    run(async {
        let Some((world, proxy)) = world("").await else { return };
        let (provider, _, epoch) = world.earning().await;
        let proof = || world.report().epochs.into_iter().find(|row| row.epoch == epoch);
        until("the books have the proof", || async { proof().is_some_and(|row| row.proof.is_some()) }).await;
        let first = proof().unwrap();
        assert_eq!((first.fate, first.amount), (Some(Fate::Earned), world.rate(600_000).into()));

        world.mute(&proxy);
        undo(&world, first.proof.unwrap()).await;
        let market = world.wallet.chain().market();
        assert_eq!(market.outcome(world.payee, epoch).await.unwrap(), Outcome::Nothing);
        until("the books take it back", || async {
            let row = proof().unwrap();
            row.fate.is_none() && row.amount == Amount(0) && row.proof.is_none()
        })
        .await;
        assert_eq!(world.report().agreements[0].earned, Amount(0));
        world.node.pass(u64::from(EPOCH) / 2).await;
        until("the operator is warned", || async {
            provider.page("/healthz").await.1.contains(&format!("epoch {epoch} is not proven"))
        })
        .await;

        proxy.does(|_, _| Act::Forward);
        world.proven(epoch).await;
        until("the books have it again", || async { proof().is_some_and(|row| row.proof.is_some()) }).await;
        let again = proof().unwrap();
        assert_eq!((again.fate, again.amount), (Some(Fate::Earned), first.amount));
        assert_eq!(world.report().agreements[0].earned, first.amount, "once");
        assert_eq!(market.free(world.payee).await.unwrap(), first.amount);

        // Seen only after the epoch is over, nothing can be done but tell the truth.
        world.mute(&proxy);
        undo(&world, again.proof.unwrap()).await;
        let next = world.next_epoch().await;
        proxy.does(|_, _| Act::Forward);
        world.proven(next).await;
        until("the books have the loss, and the second epoch's pay", || async {
            let is_lost = proof().is_some_and(|row| row.fate.is_some_and(|fate| fate != Fate::Earned));
            is_lost && world.report().agreements[0].earned == Amount::from(world.rate(600_000))
        })
        .await;
    });
}

#[test]
fn voucher_whose_cashing_the_chain_lost_waits_again_and_is_cashed_once() {
    run(async {
        // What was cashed is looked at again after a reorganisation and not every time.
        let Some((world, proxy)) = world("[chain.redeem]\nevery_s = 0\n").await else { return };
        let provider = world.start().await;
        let client = provider.client();
        world.open_channel(5_000, 4_000).await;
        let answer = client.client.pay(&client.peer, &world.voucher(600)).await.unwrap();
        assert!(matches!(answer, VoucherAnswer::Accepted(_)));
        let earned = || async { world.wallet.chain().channels().earned(world.payee).await.unwrap() };
        until("the voucher is cashed", || async { world.report().redemptions.len() == 1 }).await;
        assert_eq!(earned().await, Amount(600));

        world.mute(&proxy);
        undo(&world, world.report().redemptions[0].transaction).await;
        assert_eq!(earned().await, Amount(0));
        until("it waits again", || async {
            let report = world.report();
            report.redemptions.is_empty() && report.vouchers.first().is_some_and(|row| row.due == Amount(600))
        })
        .await;
        proxy.does(|_, _| Act::Forward);
        until("it is cashed again", || async { world.report().redemptions.len() == 1 }).await;
        assert_eq!(earned().await, Amount(600));
        let sum: u128 = world.report().redemptions.iter().map(|row| row.paid.0).sum();
        assert_eq!((sum, world.report().vouchers.len()), (600, 0));
    });
}

//! Gas that costs something, and coin that runs out.

use crate::world::{EPOCH, World, all_is_well, run, set, stored, until};
use seedbank_agreement::{Amount, Epoch};
use seedbank_protocol::payment::{ProposalAnswer, TransactionHash, VoucherAnswer};
use seedbank_protocol::routes::Access;
use seedbank_provider::{Fate, Wei};
use seedbank_settlement::Outcome;
use seedbank_testkit::chain::{Act, Node, Proxy};
use serde_json::json;

const PRICE: u128 = 1_000;
/// Gas of some hundred epochs.
const COIN: u128 = 1_000_000_000 * PRICE;

/// Gas has a price, the provider some coin for it, and an endpoint whose price the tests can raise.
async fn world(lines: &str, coin: u128) -> (World, Proxy) {
    let node = Node::embedded_at(PRICE).await;
    let proxy = Proxy::of(&node).await;
    let world = World::on(node, &[proxy.url()], &format!("gas_factor = 0\n{lines}")).await;
    world.wallet.send_coin(world.payee, coin).await.unwrap();
    (world, proxy)
}

#[test]
fn gas_above_the_cap_is_waited_out_with_warnings_and_the_epoch_is_proven_in_time() {
    run(async {
        let (world, proxy) = world(&format!("gas_price_max = {}", 2 * PRICE), COIN).await;
        let (provider, _, _) = world.earning().await;

        proxy.does(|method, _| match method {
            "eth_gasPrice" => Act::Answer(json!("0x7d1")),
            _ => Act::Forward,
        });
        let epoch = world.next_epoch().await;
        world.node.pass(u64::from(EPOCH) / 2).await;
        until("the operator is warned at half of the epoch", || async {
            let (status, text) = provider.page("/healthz").await;
            status == 200 && text.contains("gas costs 2001 wei, and at most 2000 is paid")
        })
        .await;
        world.node.pass(u64::from(EPOCH) / 4).await;
        until("it is alarmed at three quarters", || async {
            let (status, text) = provider.page("/healthz").await;
            status == 503 && text.contains("is not proven: gas costs 2001 wei")
        })
        .await;
        let sent = proxy.asked("eth_sendRawTransaction").len();
        let trouble = world.report().epochs.into_iter().find(|row| row.epoch == epoch).unwrap();
        assert!(trouble.fate.is_none() && trouble.reason.unwrap().contains("gas costs"));
        assert_eq!(proxy.asked("eth_sendRawTransaction").len(), sent, "nothing is sent at that price");

        proxy.does(|_, _| Act::Forward);
        world.proven(epoch).await;
        assert_eq!(world.epoch().await, epoch, "in its epoch");
        all_is_well(&provider).await;
        let market = world.wallet.chain().market();
        assert_eq!(market.free(world.payee).await.unwrap(), Amount(2 * world.rate(600_000).units()));
    });
}

#[test]
fn operator_is_told_long_before_the_coin_for_gas_is_used_up_and_what_it_went_for() {
    run(async {
        let (world, _proxy) = world("", COIN).await;
        let (provider, _, mut epoch) = world.earning().await;
        all_is_well(&provider).await;
        world.stands(epoch).await;
        let report = world.report();
        let standing = report.standing.unwrap();
        assert_eq!((standing.sender, standing.gas_price), (world.payee, Wei(PRICE)));
        let left = world.wallet.chain().coin(world.payee).await.unwrap();
        assert_eq!(standing.coin, Wei(left));
        let spent: u128 = report.costs.iter().map(|row| row.wei.0).sum();
        // The token's allowance is the only transaction that no kind of work stands for.
        assert!(spent <= COIN - left && COIN - left - spent < 60_000 * PRICE, "{spent} of {}", COIN - left);
        let of = |work: &str| report.costs.iter().find(|row| row.work == work).unwrap().clone();
        assert_eq!((of("prove").transactions, of("open").transactions), (1, 1));
        assert_eq!(of("prove").wei, Wei(u128::from(of("prove").gas) * PRICE));

        // Most of it is gone: enough for two epochs, and the operator is told while there is time.
        let an_epoch = (of("prove").wei.0 + of("advance").wei.0) * 2;
        provider.stop().await;
        drain(&world, left - an_epoch).await;
        let provider = world.start().await;
        until("the operator is told", || async {
            let (status, text) = provider.page("/healthz").await;
            status == 200 && text.contains(&format!("{} has coin for the gas of", world.payee))
        })
        .await;
        // Then it is used up: nothing is sent, nothing is lost but the epochs, and it goes on once there is coin.
        for _ in 0..2 {
            epoch = world.next_epoch().await;
            world.node.pass(u64::from(EPOCH) * 3 / 4).await;
            let told = || async {
                let (status, text) = provider.page("/healthz").await;
                status == 503 && text.contains("has not enough of the chain's coin to pay for gas")
            };
            let market = world.wallet.chain().market();
            let proven = || async { market.outcome(world.payee, epoch).await.unwrap() == Outcome::Proven };
            until("it is proven or the operator is alarmed", || async { proven().await || told().await })
                .await;
            if !proven().await {
                break;
            }
        }
        let market = world.wallet.chain().market();
        assert_eq!(market.outcome(world.payee, epoch).await.unwrap(), Outcome::Nothing);
        world.wallet.send_coin(world.payee, COIN).await.unwrap();
        world.proven(epoch).await;
        all_is_well(&provider).await;
        assert!(world.report().epochs.iter().all(|row| row.fate != Some(Fate::Missed)));
    });
}

/// Sends the provider's coin away, from outside the daemon.
async fn drain(world: &World, wei: u128) {
    let key = world.provider_key();
    let chain = world.node.chain(&world.deployment).await;
    let wallet = seedbank_settlement::Wallet::start(chain, key, seedbank_testkit::chain::policy());
    let gas = 21_000 * PRICE;
    wallet.send_coin(world.wallet.address(), wei - gas).await.unwrap();
    wallet.stop().await;
}

#[test]
fn vouchers_are_not_cashed_until_they_bring_more_than_their_gas_takes() {
    run(async {
        // A unit is worth a wei, so cashing a voucher costs some 120 million of them.
        let lines = "[chain.redeem]\nevery_s = 0\nfactor = 2\n";
        let (world, _proxy) = world(lines, COIN).await;
        let provider = world.start().await;
        let client = provider.client();
        world.open_channel(5_000_000_000, 4_000_000_000).await;
        let pay = |sum| {
            let (world, client) = (&world, &client);
            async move { client.client.pay(&client.peer, &world.voucher(sum)).await.unwrap() }
        };
        assert!(matches!(pay(1_000_000).await, VoucherAnswer::Accepted(_)));
        // Rounds go by in which it could be cashed.
        world.agree(&client, &stored(1..3)).await;
        let epoch = world.proven_epoch().await;
        world.stands(epoch).await;
        let report = world.report();
        assert!(report.redemptions.is_empty(), "it would cost more than it brings");
        assert_eq!(report.vouchers[0].due, Amount(1_000_000));

        assert!(matches!(pay(1_000_000_000).await, VoucherAnswer::Accepted(_)));
        until("the batch pays", || async {
            let report = world.report();
            report.redemptions.len() == 1 && report.costs.iter().any(|row| row.work == "cash")
        })
        .await;
        let report = world.report();
        let cost = report.costs.iter().find(|row| row.work == "cash").unwrap();
        assert!(report.redemptions[0].paid.0 > 2 * cost.wei.0, "{cost:?}");
    });
}

#[test]
fn after_a_restart_vouchers_are_cashed_at_the_price_of_gas_before_anything_was_sent() {
    run(async {
        // The registry needs no news of a port.
        let lines = "public_address = \"127.0.0.1:7410\"\n[chain.redeem]\nevery_s = 0\nfactor = 2\n";
        let (world, _proxy) = world(lines, COIN).await;
        let provider = world.start().await;
        world.open_channel(5_000_000_000, 4_000_000_000).await;
        let client = provider.client();
        let paid = client.client.pay(&client.peer, &world.voucher(1_000_000)).await.unwrap();
        assert!(matches!(paid, VoucherAnswer::Accepted(_)));
        provider.stop().await;
        let nonce = || world.node.ask("eth_getTransactionCount", json!([world.payee.to_string(), "latest"]));
        let sent = nonce().await;
        let epoch = world.next_epoch().await;

        let provider = world.start().await;
        until("a round is over", || async {
            world.report().standing.is_some_and(|standing| standing.epoch == epoch)
        })
        .await;
        assert!(world.report().redemptions.is_empty(), "it would cost more than it brings");
        assert_eq!(nonce().await, sent, "nothing was sent since");
        let client = provider.client();
        let paid = client.client.pay(&client.peer, &world.voucher(1_000_000_000)).await.unwrap();
        assert!(matches!(paid, VoucherAnswer::Accepted(_)));
        until("it is cashed", || async { world.report().redemptions.len() == 1 }).await;
    });
}

#[test]
fn offers_that_wait_come_after_the_proof_of_an_epoch_that_has_begun() {
    run(async {
        let (world, proxy) = world(&format!("gas_price_max = {}", 2 * PRICE), COIN).await;
        world.serve_anybody();
        let (provider, _, _) = world.earning().await;
        let kept = stored(3..4);
        let (wallet, identity) = world.other_client(1, Amount(world.rate(300_000).units() * 400)).await;
        let caller = provider.caller(&identity);
        caller.put(&kept[0], Access::Owner).await.unwrap();
        // Nothing is sent at this price.
        proxy.does(|method, _| match method {
            "eth_gasPrice" => Act::Answer(json!("0x7d1")),
            _ => Act::Forward,
        });
        let end = Epoch(world.epoch().await.0 + 30);
        let offer = world.offer_of(&wallet, &identity, &set(&kept), end).await;
        world.offer_that_waits(&caller, &offer).await;
        provider.stop().await;
        let epoch = world.next_epoch().await;
        proxy.does(|_, _| Act::Forward);

        let _provider = world.start().await;
        until("the offer is an agreement", || async { world.offers_under_way() == 0 }).await;
        world.earned_epochs(2).await;
        let report = world.report();
        let proof = report.epochs.iter().find(|row| row.epoch == epoch).unwrap().proof.unwrap();
        let opened = report.agreements.iter().find(|row| row.client == wallet.address()).unwrap().opened;
        let block = |transaction: TransactionHash| {
            let node = &world.node;
            async move {
                let receipt = node.ask("eth_getTransactionReceipt", json!([transaction.to_string()])).await;
                u64::from_str_radix(&receipt["blockNumber"].as_str().unwrap()[2..], 16).unwrap()
            }
        };
        assert!(block(proof).await < block(opened).await);
    });
}

#[test]
fn quote_says_what_an_agreement_must_bring_for_its_gas_and_less_is_refused() {
    run(async {
        let node = Node::embedded_at(PRICE).await;
        let url = node.url();
        let world = World::on(node, &[url], "").await;
        world.wallet.send_coin(world.payee, COIN).await.unwrap();
        let provider = world.start().await;
        let client = provider.client();
        let pay_min = || async { client.client.quote(&client.peer).await.unwrap().pay_min };
        // Some 400,000 gas, and a unit is worth a wei.
        until("gas was seen to cost something", || async { pay_min().await == Amount(400_000 * PRICE) })
            .await;
        let kept = stored(1..3);
        for fragment in &kept {
            client.put(fragment, Access::Owner).await.unwrap();
        }
        let offer = world.offer(&set(&kept), Epoch(world.epoch().await.0 + 30)).await;
        assert!(world.rate(600_000).over(29) < pay_min().await);
        let answer = client.client.propose(&client.peer, &offer).await.unwrap();
        let ProposalAnswer::Refused(refusal) = answer else { panic!("{answer:?}") };
        assert!(refusal.message.contains("less than the 400000000 units"), "{refusal:?}");
    });
}

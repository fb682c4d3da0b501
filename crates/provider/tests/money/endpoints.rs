//! Endpoints of the chain that hang, fail, are old or lie, under a provider.

use crate::world::{EPOCH, World, all_is_well, run, set, stored, until};
use seedbank_agreement::Amount;
use seedbank_protocol::payment::{RefusalReason, RevisionAnswer, VoucherAnswer, VoucherReason};
use seedbank_protocol::routes::Access;
use seedbank_settlement::Outcome;
use seedbank_testkit::chain::{Act, Node, Proxy};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// The provider asks the bad endpoint first, and has a good one beside it.
async fn beside_a_good_one() -> (World, Proxy) {
    let node = Node::embedded().await;
    let (bad, good) = (Proxy::of(&node).await, node.url());
    let world = World::on(node, &[bad.url(), good], "[chain.redeem]\nevery_s = 0\n").await;
    (world, bad)
}

/// The same block for ever.
fn frozen() -> impl FnMut(&str, &Value) -> Act + Send + 'static {
    let first: Arc<Mutex<Option<Value>>> = Arc::default();
    move |method, params| match method {
        "eth_blockNumber" => Act::Answer(json!("0x1")),
        "eth_getBlockByNumber" if params[0] == "latest" => {
            let mut first = first.lock().unwrap();
            Act::Answer(first.get_or_insert_with(|| old_block(0x1)).clone())
        }
        _ => Act::Forward,
    }
}

/// A block of long ago.
fn old_block(number: u64) -> Value {
    json!({
        "number": format!("{number:#x}"), "hash": format!("0x{}", "ab".repeat(32)),
        "parentHash": format!("0x{}", "cd".repeat(32)), "timestamp": "0x10000000",
    })
}

#[test]
fn endpoint_that_hangs_fails_or_is_old_does_not_keep_a_provider_from_proving_beside_a_good_one() {
    run(async {
        let (world, bad) = beside_a_good_one().await;
        let provider = world.start().await;
        world.agree(&provider.client(), &stored(1..3)).await;
        type Rule = Box<dyn FnMut(&str, &Value) -> Act + Send>;
        let rules: Vec<(&str, Rule)> = vec![
            ("hangs", Box::new(|_, _| Act::Hang)),
            ("breaks off", Box::new(|_, _| Act::Close)),
            ("answers nonsense", Box::new(|_, _| Act::Nonsense)),
            ("refuses everything", Box::new(|_, _| Act::Refuse(-32_005, "limit exceeded"))),
            (
                "reverts everything",
                Box::new(|method, _| match method {
                    "eth_call" | "eth_estimateGas" => Act::Refuse(3, "execution reverted"),
                    _ => Act::Forward,
                }),
            ),
            (
                "takes transactions and keeps them",
                Box::new(|method, _| match method {
                    "eth_sendRawTransaction" => Act::Answer(json!(format!("0x{}", "11".repeat(32)))),
                    _ => Act::Forward,
                }),
            ),
            ("stands still", Box::new(frozen())),
        ];
        let mut proven = 0;
        for (what, rule) in rules {
            bad.does(rule);
            let epoch = world.next_epoch().await;
            eprintln!("epoch {epoch}: the first endpoint {what}");
            world.proven(epoch).await;
            proven += 1;
        }
        bad.does(|_, _| Act::Forward);
        world.earned_epochs(proven).await;
        let earned = Amount(world.rate(600_000).units() * u128::try_from(proven).unwrap());
        assert_eq!(world.report().agreements[0].earned, earned);
        assert_eq!(world.wallet.chain().market().free(world.payee).await.unwrap(), earned);
    });
}

#[test]
fn endpoint_that_alone_denies_set_and_agreements_is_not_believed_beside_a_good_one() {
    run(async {
        let (world, bad) = beside_a_good_one().await;
        let provider = world.start().await;
        let kept = stored(1..3);
        world.agree(&provider.client(), &kept).await;
        world.proven_epoch().await;
        world.deny_market(&bad);
        world.proven_epoch().await;
        world.proven_epoch().await;
        let report = world.report();
        assert_eq!(report.agreements[0].closed, None, "one endpoint's word ends no agreement");
        bad.does(|_, _| Act::Forward);
        world.earned_epochs(3).await;
        assert!(provider.client().get(&kept[0], None).await.is_ok());
    });
}

#[test]
fn only_endpoint_that_lies_costs_no_voucher_and_gets_no_signature_and_the_operator_is_told() {
    run(async {
        let node = Node::embedded().await;
        let only = Proxy::of(&node).await;
        let world = World::on(node, &[only.url()], "[chain.redeem]\nevery_s = 0\n").await;
        let provider = world.start().await;
        let client = provider.client();
        let (id, before) = world.agree(&client, &stored(1..3)).await;
        world.proven_epoch().await;
        world.open_channel(5_000, 4_000).await;

        // It takes transactions, shows receipts that are of no block, and keeps them to itself.
        only.does(|method, params| match method {
            "eth_sendRawTransaction" => Act::Answer(json!(format!("0x{}", "11".repeat(32)))),
            "eth_getTransactionReceipt" => Act::Answer(json!({
                "transactionHash": params[0], "blockNumber": "0x5", "blockHash": format!("0x{}", "22".repeat(32)),
                "status": "0x1", "gasUsed": "0x5208", "effectiveGasPrice": "0x0", "logs": [], "contractAddress": null,
            })),
            _ => Act::Forward,
        });
        let answer = client.client.pay(&client.peer, &world.voucher(600)).await.unwrap();
        assert!(matches!(answer, VoucherAnswer::Accepted(_)));
        let epoch = world.next_epoch().await;
        world.node.pass(u64::from(EPOCH) / 2).await;
        until("rounds went by", || async { only.asked("eth_sendRawTransaction").len() > 5 }).await;
        let market = world.wallet.chain().market();
        assert_eq!(market.outcome(world.payee, epoch).await.unwrap(), Outcome::Nothing);
        assert_eq!(world.report().vouchers[0].due, Amount(600), "the voucher is kept");
        assert!(world.report().redemptions.is_empty(), "and nothing was cashed");

        // It hangs: the operator is told, and what depends on the chain is refused.
        only.does(|_, _| Act::Close);
        until("the operator is told", || async {
            provider.page("/healthz").await.1.contains("no endpoint of the chain answers")
        })
        .await;
        let answer = client.client.pay(&client.peer, &world.voucher(700)).await.unwrap();
        let VoucherAnswer::Refused(refusal) = answer else { panic!("nobody knows what it is worth") };
        assert_eq!(refusal.reason, VoucherReason::ChainUnreachable);
        let three = stored(1..4);
        client.put(&three[2], Access::Owner).await.unwrap();
        let request = world.revision(id, 0, (&before, &set(&three))).await;
        let answer = client.client.revise(&client.peer, &request).await.unwrap();
        let RevisionAnswer::Refused(refusal) = answer else { panic!("nobody knows whether it is covered") };
        assert_eq!(refusal.reason, RefusalReason::ChainUnreachable);

        // It shows blocks of long ago.
        only.does(frozen());
        until("the operator is told of old blocks", || async {
            provider.page("/healthz").await.1.contains("the newest block is")
        })
        .await;

        // It tells the truth again: the epoch is proven in time, and the voucher is cashed.
        only.does(|_, _| Act::Forward);
        world.proven(epoch).await;
        until("the voucher is cashed", || async {
            world.wallet.chain().channels().earned(world.payee).await.unwrap() == Amount(600)
        })
        .await;
        until("the books say the truth", || async {
            let report = world.report();
            report.redemptions.len() == 1
                && report.agreements[0].earned == Amount(2 * world.rate(600_000).units())
        })
        .await;
        all_is_well(&provider).await;
    });
}

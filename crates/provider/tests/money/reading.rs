//! Reads on credit, vouchers, and what is cashed.

use crate::support::{key, refusal};
use crate::world::{World, run, stored, until};
use seedbank_agreement::{Amount, Typed, WalletKey};
use seedbank_protocol::messages::ProblemCode;
use seedbank_protocol::payment::{VoucherAnswer, VoucherReason, VoucherRequest};
use seedbank_protocol::routes::Access;
use seedbank_transport::CallError;

/// Two fragments of 300,000 bytes for a key, and three in all.
const CREDIT: &str = "[chain.credit]\nper_key = 700_000\nper_network = 1_000_000\ntotal = 1_000_000\n[chain.redeem]\nevery_s = 0\n";

fn refused(answer: VoucherAnswer) -> VoucherReason {
    match answer {
        VoucherAnswer::Refused(refusal) => refusal.reason,
        VoucherAnswer::Accepted(standing) => panic!("{standing:?}"),
    }
}

#[test]
fn reader_pays_with_vouchers_that_are_covered_and_the_provider_cashes_them_once() {
    run(async {
        let world = World::new(CREDIT).await;
        let provider = world.start().await;
        let client = provider.client();
        let kept = stored(1..2);
        client.put(&kept[0], Access::Public).await.unwrap();
        client.get(&kept[0], None).await.unwrap();
        client.get(&kept[0], None).await.unwrap();
        let Err(CallError::Refused { problem, .. }) = client.get(&kept[0], None).await else {
            panic!("unpaid")
        };
        assert_eq!(problem.code, ProblemCode::PaymentRequired);
        let due = problem.payment.unwrap();
        // 293 KiB and a part of one each time.
        assert_eq!((due.owed, due.payee), (Amount(2 * 293), world.payee));
        assert_eq!(due.needed, Amount(3 * 293 - 684));

        let pay = |request: VoucherRequest| {
            let client = &client;
            async move { client.client.pay(&client.peer, &request).await.unwrap() }
        };
        // Nothing is deposited yet.
        assert_eq!(refused(pay(world.voucher(1_000)).await), VoucherReason::Uncovered);
        world.open_channel(5_000, 4_000).await;
        let channels = world.deployment.channels_domain();
        let forged = WalletKey::from_secret(&[8; 32]).unwrap();
        let forged = world.voucher(1_000).voucher.message.sign(&channels, &forged);
        assert_eq!(refused(pay(VoucherRequest { voucher: forged }).await), VoucherReason::Signature);
        let elsewhere = seedbank_agreement::Domain { chain_id: 5, ..channels };
        let replayed = world.voucher(1_000).voucher.message.sign(&elsewhere, &world.wallet_key);
        assert_eq!(refused(pay(VoucherRequest { voucher: replayed }).await), VoucherReason::Signature);
        let mut misdirected = world.voucher(1_000).voucher.message;
        misdirected.payee.0[0] ^= 1;
        let misdirected = misdirected.sign(&channels, &world.wallet_key);
        assert_eq!(refused(pay(VoucherRequest { voucher: misdirected }).await), VoucherReason::WrongPayee);
        assert_eq!(refused(pay(world.voucher(4_001)).await), VoucherReason::Uncovered);

        let VoucherAnswer::Accepted(standing) = pay(world.voucher(600)).await else {
            panic!("it is covered")
        };
        assert_eq!((standing.owed, standing.prepaid), (Amount(0), Amount(600 - 586)));
        assert_eq!(refused(pay(world.voucher(600)).await), VoucherReason::Stale);
        assert_eq!(refused(pay(world.voucher(599)).await), VoucherReason::Stale);
        client.get(&kept[0], None).await.unwrap();

        let cashed = || world.wallet.chain().channels().earned(world.payee);
        until("the voucher is cashed", || async { cashed().await.unwrap() == Amount(600) }).await;
        until("the books have it", || async { world.report().redemptions.len() == 1 }).await;
        let row = world.report().redemptions.remove(0);
        assert_eq!((row.paid, row.voucher.clone()), (Amount(600), world.voucher(600).voucher));
        assert_eq!(refused(pay(world.voucher(600)).await), VoucherReason::Stale, "cashed is no news");

        // A newer one is cashed for the difference, and none is taken while the payer leaves.
        assert!(matches!(pay(world.voucher(900)).await, VoucherAnswer::Accepted(_)));
        until("the difference is cashed", || async { cashed().await.unwrap() == Amount(900) }).await;
        world.wallet.channels().request_exit(world.payee, Amount(100)).await.unwrap();
        assert_eq!(refused(pay(world.voucher(1_000)).await), VoucherReason::Exiting);
        let sum: u128 = world.report().redemptions.iter().map(|row| row.paid.0).sum();
        assert_eq!(sum, 900);
    });
}

#[test]
fn fresh_keys_get_no_more_than_the_total_and_a_restart_gives_nothing_back() {
    run(async {
        let world = World::new(CREDIT).await;
        let provider = world.start().await;
        let kept = stored(1..2);
        provider.client().put(&kept[0], Access::Public).await.unwrap();
        let mut served = 0;
        for seed in 10..30 {
            let caller = provider.caller(&key(seed));
            match caller.get(&kept[0], None).await {
                Ok(_) => served += 1,
                Err(error) => assert_eq!(refusal::<()>(Err(error)), ProblemCode::PaymentRequired),
            }
        }
        assert_eq!(served, 3);
        provider.stop().await;
        let provider = world.start().await;
        let caller = provider.caller(&key(40));
        assert_eq!(refusal(caller.get(&kept[0], None).await), ProblemCode::PaymentRequired);
        // Who pays ahead needs no credit.
        world.open_channel(5_000, 4_000).await;
        let paid = caller.client.pay(&caller.peer, &world.voucher(300)).await.unwrap();
        assert!(matches!(paid, VoucherAnswer::Accepted(_)));
        assert!(caller.get(&kept[0], None).await.is_ok());
        assert_eq!(refusal(caller.get(&kept[0], None).await), ProblemCode::PaymentRequired);
        let proof = caller.client.get_proof(&caller.peer, kept[0].0, 0..300_000, None).await;
        assert_eq!(refusal(proof), ProblemCode::PaymentRequired, "proofs are reads");
    });
}

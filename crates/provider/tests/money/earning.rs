//! Epochs that are proven, and epochs that are not.

use crate::world::{World, accepted, run, set, stored, until};
use seedbank_agreement::{Amount, Epoch};
use seedbank_provider::Fate;
use seedbank_settlement::Outcome;
use std::os::unix::fs::FileExt;

fn fate(world: &World, epoch: Epoch) -> Option<Fate> {
    world.report().epochs.into_iter().find(|row| row.epoch == epoch).and_then(|row| row.fate)
}

#[test]
fn honest_provider_earns_every_epoch_and_its_books_say_by_which_proof() {
    run(async {
        let world = World::new("").await;
        let provider = world.start().await;
        let client = provider.client();
        let two = stored(1..3);
        let (id, before) = world.agree(&client, &two).await;
        let mut expected = Amount(0);
        for round in 0..5 {
            world.proven_epoch().await;
            let bytes = if round < 2 { 600_000 } else { 900_000 };
            expected = Amount(expected.0 + world.rate(bytes).units());
            if round == 1 {
                // From the next epoch on the client has a third fragment kept.
                let three = stored(1..4);
                client.put(&three[2], seedbank_protocol::routes::Access::Owner).await.unwrap();
                let request = world.revision(id, 0, (&before, &set(&three))).await;
                accepted(client.client.revise(&client.peer, &request).await.unwrap());
                world.posted(id, 1).await;
            }
        }
        assert_eq!(world.wallet.chain().market().free(world.payee).await.unwrap(), expected);

        world.earned_epochs(5).await;
        let report = world.report();
        assert_eq!(report.agreements.len(), 1);
        assert_eq!((report.agreements[0].earned, report.agreements[0].lost), (expected, Amount(0)));
        assert_eq!((report.agreements[0].sequence, report.agreements[0].bytes), (1, 900_000));
        assert!(report.epochs.iter().all(|row| row.proof.is_some() && row.reason.is_none()));
        assert_eq!(report.epochs[4].units[0].amount, Amount::from(world.rate(900_000)));
        assert_eq!(provider.page("/healthz").await, (200, "ok\n".to_owned()));
        assert!((provider.metric("seedbank_provider_money_proofs_total").await - 5.0).abs() < 0.1);
        // Five challenges of 16 KiB groups with a few nodes each, five times.
        let read = provider.metric("seedbank_provider_money_proof_read_bytes_total").await;
        assert!(read <= 25.0 * 17_500.0, "{read}");
    });
}

#[test]
fn provider_whose_data_is_gone_earns_nothing_from_the_next_epoch_and_says_why() {
    run(async {
        let world = World::new("").await;
        let provider = world.start().await;
        let client = provider.client();
        world.agree(&client, &stored(1..3)).await;
        world.proven_epoch().await;
        for path in provider.data_files().iter().filter(|path| path.to_string_lossy().contains("volume")) {
            let length = usize::try_from(std::fs::metadata(path).unwrap().len()).unwrap();
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&vec![0; length], 0).unwrap();
        }
        let second = world.next_epoch().await;
        world.node.pass(u64::from(crate::world::EPOCH) / 2).await;
        until("half of the epoch is over and the operator is warned", || async {
            provider
                .page("/healthz")
                .await
                .1
                .contains(&format!("epoch {second} is not proven: no proof: fragment"))
        })
        .await;
        world.next_epoch().await;
        until("the books have the miss", || async { fate(&world, second) == Some(Fate::Missed) }).await;
        let market = world.wallet.chain().market();
        assert_eq!(market.outcome(world.payee, second).await.unwrap(), Outcome::Missed);
        // Its pay for the first epoch, and the bounty for having recorded its own miss: a tenth of what was slashed.
        let rate = world.rate(600_000).units();
        assert_eq!(market.free(world.payee).await.unwrap(), Amount(rate + 2 * rate / 10));
        let report = world.report();
        let row = report.epochs.iter().find(|row| row.epoch == second).unwrap();
        assert!(row.reason.as_ref().unwrap().contains("rotten"), "{row:?}");
        assert!(row.proof.is_none() && row.slashed == Amount(2 * world.rate(600_000).units()));
        assert_eq!(report.agreements[0].earned, Amount::from(world.rate(600_000)));
        assert!(report.agreements[0].lost >= Amount::from(world.rate(600_000)));
    });
}

#[test]
fn provider_that_was_away_misses_what_passed_and_catches_up() {
    run(async {
        let world = World::new("").await;
        let (provider, _, first) = world.earning().await;
        provider.stop().await;
        let missed = world.next_epoch().await;
        // Somebody else seals it, so that the chain counts it.
        world.wallet.randomness().seal().await.unwrap();
        world.node.pass(1).await;
        let void = world.next_epoch().await;
        let back = world.next_epoch().await;
        let provider = world.start().await;
        world.proven(back).await;
        until("the books are settled", || async { fate(&world, void).is_some() }).await;
        assert_eq!(fate(&world, first), Some(Fate::Earned));
        assert_eq!(fate(&world, missed), Some(Fate::Missed));
        assert_eq!(fate(&world, void), Some(Fate::Void));
        let report = world.report();
        let row = report.epochs.iter().find(|row| row.epoch == missed).unwrap();
        assert!(row.reason.as_ref().unwrap().contains("did not run"), "{row:?}");
        assert_eq!(provider.page("/healthz").await.0, 200);
    });
}

#[test]
fn question_about_one_agreement_is_answered() {
    run(async {
        let world = World::new("").await;
        let (_provider, id, _) = world.earning().await;
        world.wallet.market().ask(id).await.unwrap();
        let asked = world.proven_epoch().await;
        let market = world.wallet.chain().market();
        until("the question is answered", || async { market.get_question(id).await.unwrap().is_none() })
            .await;
        assert_eq!(world.epoch().await, asked, "in its epoch");
    });
}

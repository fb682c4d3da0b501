//! The life of an agreement, a voucher and a name, against the real contracts.

use crate::nodes::Node;
use crate::parties::{Disk, PURSE, STAKE, Stage, stranger};
use seedbank_agreement::publication::HeadHash;
use seedbank_agreement::{Amount, Epoch, Publication, Signed, Typed, Voucher};
use seedbank_formats::{DatasetId, VersionId};
use seedbank_settlement::{
    Cursor, Event, EventItem, EventPolicy, Events, MarketEvent, Outcome, ReadError, Redeemed, Refusal,
    SendError, Skip, VoucherSkip, name_id,
};

fn refused<T: std::fmt::Debug>(result: Result<T, SendError>) -> Refusal {
    match result.unwrap_err() {
        SendError::Refused(refusal) => refusal,
        other => panic!("refused in another way: {other}"),
    }
}

#[tokio::test]
async fn an_agreement_is_proven_revised_questioned_missed_and_ended() {
    for node in Node::each().await {
        let stage = Stage::set(&node).await;
        agreement_story(&stage).await;
        stage.strike().await;
    }
}

async fn agreement_story(stage: &Stage<'_>) {
    let (client, provider, chain) = (&stage.client, &stage.provider, stage.chain());
    let me = provider.address();
    let entry = chain.registry().get(me).await.unwrap().unwrap();
    assert_eq!(entry.identity(chain), Some(stage.identity.public()));
    assert_eq!((entry.stake, entry.operator), (STAKE, me));
    assert_eq!(chain.registry().page(0, 10).await.unwrap(), [me]);

    // Opened, once.
    let disk = Disk::of(&[100_000, 1, 5_000, 1_024]);
    let now = stage.epoch().await;
    let proposal = stage.proposal(&disk.set(), 1_000, now);
    let forged = Signed { signature: stage.proposal(&disk.set(), 999, now).signature, ..proposal.clone() };
    let activation = provider.market().activate(&[forged, proposal.clone()]).await.unwrap();
    assert_eq!(activation.agreements[0], Err(Skip::Signature));
    let id = activation.agreements[1].unwrap();
    assert_eq!(provider.market().activate(&[proposal]).await.unwrap().agreements, [Err(Skip::Stale)]);
    let agreement = chain.market().get_agreement(id).await.unwrap().unwrap();
    assert_eq!((agreement.current, agreement.latest().unwrap().size), (None, disk.set().total()));
    assert_eq!(chain.market().agreement_of(client.address(), me).await.unwrap(), Some(id));

    // Proven in its first epoch, and paid once.
    let epoch = stage.next_epoch().await;
    assert_eq!(chain.market().changes_in(me, epoch).await.unwrap(), 1);
    let refusal = refused(provider.market().prove(me, &[]).await);
    assert_eq!(refusal, Refusal::TermsDue { count: 1 });
    stage.move_on(id).await;
    assert!(matches!(
        chain.market().challenges_of(me).await,
        Err(ReadError::Refused(Refusal::NoSeed(of))) if of == epoch
    ));
    let proofs = stage.proofs(&disk).await;
    assert_eq!(
        refused(provider.market().prove(me, &proofs[1..]).await),
        Refusal::ProofCount { expected: 3, actual: 2 }
    );
    let mut wrong = proofs.clone();
    wrong[1].chunk.chunk[0] ^= 1;
    assert_eq!(refused(provider.market().prove(me, &wrong).await), Refusal::WrongChunk { index: 1 });
    let before = stage.free(me).await;
    // Anyone may send it.
    stage.anyone.market().prove(me, &proofs).await.unwrap();
    assert_eq!(stage.free(me).await, Amount(before.0 + 1_000));
    assert_eq!(refused(provider.market().prove(me, &proofs).await), Refusal::AlreadyProven(epoch));
    assert_eq!(chain.market().outcome(me, epoch).await.unwrap(), Outcome::Proven);
    assert_eq!(chain.market().standing(id).await.unwrap().earned, Amount(1_000));

    // Revised: a fragment more from the next epoch on.
    let more = Disk::of(&[100_000, 1, 5_000, 1_024, 70_000]);
    let revision = stage.revision(id, 1, &more.set(), 1_500, epoch);
    let unsigned = (revision.0.clone(), revision.0.signature);
    let posted = stage.anyone.market().revise(&[unsigned, revision.clone(), revision]).await.unwrap();
    assert_eq!(posted.revisions, [Err(Skip::Signature), Ok(()), Err(Skip::Stale)]);
    client.market().ask(id).await.unwrap();
    let epoch = stage.next_epoch().await;
    stage.move_on(id).await;
    let proofs = stage.proofs(&more).await;
    provider.market().prove(me, &proofs).await.unwrap();

    // The question is answered out of the new set.
    assert_eq!(chain.market().get_question(id).await.unwrap().unwrap().epoch, epoch);
    let offsets = chain.market().question_of(id).await.unwrap();
    let answers: Vec<_> = offsets.iter().map(|offset| more.proof(*offset)).collect();
    let gas = provider.market().answer(id, &answers).await.unwrap().gas_used;
    let about = chain.deployment().parameters.answer_gas();
    assert!(about / 4 * 3 < gas && gas < about, "{gas}: paths are short here");
    assert_eq!(refused(provider.market().answer(id, &answers).await), Refusal::NoQuestion);

    // Missed: whoever records it gets a tenth of what it costs.
    stage.next_epoch().await;
    stage.anyone.randomness().seal().await.unwrap();
    stage.node.pass(1).await;
    let missed = stage.next_epoch().await.0 - 1;
    let bounty = stage.free(stage.anyone.address()).await;
    stage.anyone.market().advance(me, 10).await.unwrap();
    assert_eq!(chain.market().outcome(me, Epoch(missed)).await.unwrap(), Outcome::Missed);
    assert_eq!(chain.registry().stake_of(me).await.unwrap(), Amount(STAKE.0 - 3_000));
    assert_eq!(stage.free(stage.anyone.address()).await, Amount(bounty.0 + 300));
    assert_eq!(chain.market().get_set(me).await.unwrap().unwrap().misses, 1);

    // A question that nobody answers ends the agreement.
    let proofs = stage.proofs(&more).await;
    provider.market().prove(me, &proofs).await.unwrap();
    client.market().ask(id).await.unwrap();
    stage.next_epoch().await;
    let proofs = stage.proofs(&more).await;
    provider.market().prove(me, &proofs).await.unwrap();
    stage.node.pass(1).await;
    stage.next_epoch().await;
    stage.anyone.market().advance(me, 10).await.unwrap();
    stage.anyone.market().fail(id).await.unwrap();
    assert_eq!(chain.registry().stake_of(me).await.unwrap(), Amount(STAKE.0 - 6_000));
    stage.next_epoch().await;
    stage.move_on(id).await;
    assert_eq!(chain.market().get_agreement(id).await.unwrap(), None);
    assert_eq!(chain.market().get_set(me).await.unwrap(), None);
    assert_eq!(refused(client.market().terminate(id).await), Refusal::NotOpen(id));

    // Everything goes back to who owns it.
    let stake = chain.registry().stake_of(me).await.unwrap();
    let too_much = Amount(stake.0 + 1);
    assert!(matches!(
        refused(provider.registry().withdraw_stake(too_much, me).await),
        Refusal::StakeNeeded { .. }
    ));
    provider.registry().withdraw_stake(stake, me).await.unwrap();
    for wallet in [client, provider, &stage.anyone] {
        let free = stage.free(wallet.address()).await;
        wallet.market().withdraw(free, wallet.address()).await.unwrap();
    }
    let mut held = 0;
    for wallet in [client, provider, &stage.anyone] {
        held += chain.token().balance_of(wallet.address()).await.unwrap().0;
    }
    assert_eq!(held, 2 * PURSE.0, "no token appeared or vanished");
    assert_eq!(chain.token().balance_of(stage.deployment.market).await.unwrap(), Amount(0));
    let paid = of_market(stage, |event| match event {
        MarketEvent::Proven { paid, .. } => Some(*paid),
        _ => None,
    });
    assert_eq!(paid.await, [Amount(1_000), Amount(1_500), Amount(1_500), Amount(1_500)]);
}

/// What the market's events say, from the beginning.
async fn of_market<T>(stage: &Stage<'_>, pick: impl Fn(&MarketEvent) -> Option<T>) -> Vec<T> {
    let mut events =
        Events::new(stage.chain(), Cursor::from_block(0), EventPolicy { confirmations: 1, range_max: 7 });
    let mut picked = Vec::new();
    loop {
        let batch = events.poll().await.unwrap();
        for item in &batch.items {
            if let EventItem::Happened(happened) = item
                && let Event::Market(event) = &happened.event
            {
                picked.extend(pick(event));
            }
        }
        if batch.caught_up {
            return picked;
        }
    }
}

#[tokio::test]
async fn an_agreement_ends_after_its_notice_and_refunds_the_rest() {
    for node in Node::each().await {
        let stage = Stage::set(&node).await;
        let before = stage.free(stage.client.address()).await;
        let disk = Disk::of(&[3_000]);
        let id = stage.agreed(&disk, 100).await;
        assert_eq!(refused(stage.anyone.market().terminate(id).await), Refusal::NotYours);
        stage.client.market().terminate(id).await.unwrap();
        let end = stage.chain().market().get_agreement(id).await.unwrap().unwrap().latest().unwrap().end;
        let mut epoch = stage.epoch().await;
        assert_eq!(end.0, epoch.0 + 1 + stage.deployment.parameters.market.notice_epochs);
        let mut proven = 0;
        while epoch < end {
            let proofs = stage.proofs(&disk).await;
            stage.provider.market().prove(stage.provider.address(), &proofs).await.unwrap();
            proven += 1;
            epoch = stage.next_epoch().await;
        }
        stage.move_on(id).await;
        assert_eq!(stage.free(stage.client.address()).await, Amount(before.0 - proven * 100));
        assert_eq!(stage.free(stage.provider.address()).await, Amount(proven * 100));
        stage.strike().await;
    }
}

#[tokio::test]
async fn vouchers_are_paid_once_up_to_their_lanes_cap_and_the_rest_leaves_by_the_exit() {
    for node in Node::each().await {
        let stage = Stage::set(&node).await;
        voucher_story(&stage).await;
        stage.strike().await;
    }
}

async fn voucher_story(stage: &Stage<'_>) {
    let (payer, payee, chain) = (&stage.client, stage.provider.address(), stage.chain());
    payer.token().allow(stage.deployment.channels, Amount(10_000)).await.unwrap();
    payer.channels().deposit(payer.address(), payee, Amount(10_000)).await.unwrap();
    let signer = stranger();
    let over = refused(payer.channels().set_lane(payee, signer.address(), Amount(10_001)).await);
    assert_eq!(over, Refusal::Uncovered { deposit: Amount(10_000), promised: Amount(10_001) });
    payer.channels().set_lane(payee, signer.address(), Amount(6_000)).await.unwrap();
    let voucher = |cumulative| {
        let voucher = Voucher {
            payer: payer.address(),
            payee,
            signer: signer.address(),
            cumulative: Amount(cumulative),
        };
        voucher.sign(&stage.deployment.channels_domain(), &signer)
    };
    let forged = Signed { signature: voucher(1).signature, ..voucher(4_000) };
    let batch = [voucher(2_500), forged, voucher(2_500), voucher(7_000), voucher(8_000)];
    let redemption = stage.provider.channels().redeem(&batch).await.unwrap();
    let paid = |paid, cumulative, missing| Redeemed::Paid {
        paid: Amount(paid),
        cumulative: Amount(cumulative),
        missing: Amount(missing),
    };
    let skipped = |reason, missing| Redeemed::Skipped { reason, missing: Amount(missing) };
    assert_eq!(
        redemption.vouchers,
        [
            paid(2_500, 2_500, 0),
            skipped(VoucherSkip::Signature, 0),
            skipped(VoucherSkip::Stale, 0),
            paid(3_500, 6_000, 1_000),
            skipped(VoucherSkip::Uncovered, 2_000),
        ]
    );
    assert_eq!(chain.channels().earned(payee).await.unwrap(), Amount(6_000));
    stage.provider.channels().withdraw(payee).await.unwrap();
    assert_eq!(refused(stage.provider.channels().withdraw(payee).await), Refusal::Nothing);

    payer.channels().request_exit(payee, Amount(4_000)).await.unwrap();
    let exit = chain.channels().channel(payer.address(), payee).await.unwrap().exit.unwrap();
    assert_eq!(exit.sum, Amount(4_000));
    let early = refused(payer.channels().exit(payee, &[], payer.address()).await);
    assert_eq!(early, Refusal::ExitNotDue { exit_at: exit.at.0 });
    let promised = refused(payer.channels().set_lane(payee, signer.address(), Amount(7_000)).await);
    assert_eq!(promised, Refusal::ExitUnderWay);
    stage.node.pass(stage.deployment.parameters.exit_seconds).await;
    payer.channels().exit(payee, &[signer.address()], payer.address()).await.unwrap();
    let lane = chain.channels().lane(payer.address(), payee, signer.address()).await.unwrap();
    assert_eq!((lane.cap, lane.redeemed), (Amount(6_000), Amount(6_000)));
    assert_eq!(chain.token().balance_of(stage.deployment.channels).await.unwrap(), Amount(0));
}

#[tokio::test]
async fn a_name_points_at_its_newest_head_until_it_is_frozen_and_a_log_only_grows() {
    for node in Node::each().await {
        let stage = Stage::set(&node).await;
        name_story(&stage).await;
        stage.strike().await;
    }
}

async fn name_story(stage: &Stage<'_>) {
    let (owner, chain) = (&stage.client, stage.chain());
    let id = name_id(owner.address(), "weights");
    assert_eq!(chain.datasets().get(id).await.unwrap(), None);
    let key = &stage.identity;
    let word = chain.dataset_binding(owner.address()).sign(key);
    owner.datasets().register("weights", DatasetId([8; 32]), key.public(), &word).await.unwrap();
    assert_eq!(
        refused(owner.datasets().register("weights", DatasetId([8; 32]), key.public(), &word).await),
        Refusal::NameTaken
    );
    let publication = |sequence, previous: u8, head: u8| Publication {
        id,
        sequence,
        previous_head: HeadHash([previous; 32]),
        version: VersionId([head; 32]),
        head: HeadHash([head; 32]),
    };
    owner.datasets().publish(&publication(1, 0, 1)).await.unwrap();
    assert_eq!(refused(stage.anyone.datasets().publish(&publication(2, 1, 2)).await), Refusal::NotYours);
    let signed = publication(2, 1, 2).sign(&stage.deployment.datasets_domain(), &stage.client_key);
    stage.anyone.datasets().publish_signed(&signed).await.unwrap();
    assert_eq!(
        refused(owner.datasets().publish(&publication(3, 1, 3)).await),
        Refusal::Moved { sequence: 2, head: [2; 32] },
        "somebody published since"
    );
    let entry = chain.datasets().get(id).await.unwrap().unwrap();
    assert_eq!((entry.sequence, entry.head), (2, HeadHash([2; 32])));
    assert_eq!(entry.owner_key(chain), Some(key.public()));
    owner.datasets().freeze(id).await.unwrap();
    assert_eq!(refused(owner.datasets().publish(&publication(3, 2, 3)).await), Refusal::Frozen);

    owner.anchor([1; 32], 10, [2; 32]).await.unwrap();
    assert_eq!(
        refused(owner.anchor([1; 32], 10, [3; 32]).await),
        Refusal::NotLonger { size: 10, anchored: 10 }
    );
    assert_eq!(chain.anchored(owner.address(), [1; 32]).await.unwrap().unwrap().root, [2; 32]);
    assert_eq!(chain.anchored(owner.address(), [9; 32]).await.unwrap(), None);
}

#[tokio::test]
async fn squatted_keys_are_not_believed() {
    for node in Node::each().await {
        squatted_keys(&node).await;
    }
}

async fn squatted_keys(node: &Node) {
    let stage = Stage::set(node).await;
    let chain = stage.chain();
    let stolen = chain.binding(stage.provider.address()).sign(&stage.identity);
    let squatter = &stage.client;
    squatter.registry().register(stage.identity.public(), &stolen, "{}").await.unwrap();
    let entry = chain.registry().get(squatter.address()).await.unwrap().unwrap();
    assert_eq!(entry.claimed_identity, stage.identity.public());
    assert_eq!(entry.identity(chain), None);
    squatter
        .datasets()
        .register("stolen", DatasetId([1; 32]), stage.identity.public(), &stolen)
        .await
        .unwrap();
    let entry = chain.datasets().get(name_id(squatter.address(), "stolen")).await.unwrap().unwrap();
    assert_eq!(entry.owner_key(chain), None);
    stage.strike().await;
}

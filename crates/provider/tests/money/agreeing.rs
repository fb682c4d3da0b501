//! Offers and revisions that are refused, and ones that are asked for twice.

use crate::support::{client_key, fragment, key};
use crate::world::{World, accepted, retained, run, set, stored, until};
use seedbank_agreement::{Epoch, Rate, SetRoot, Typed, WalletKey};
use seedbank_protocol::messages::{ClaimAction, ClaimRequest};
use seedbank_protocol::payment::{
    ProposalAnswer, ProposalRequest, Refusal, RefusalReason, RevisionAnswer, RevisionRequest, SignedTerms,
};
use seedbank_protocol::routes::Access;
use seedbank_testkit::chain::{Act, Node, Proxy};
use seedbank_transport::ClaimOutcome;

fn refused(answer: RevisionAnswer) -> Refusal {
    match answer {
        RevisionAnswer::Refused(refusal) => refusal,
        RevisionAnswer::Accepted { .. } => panic!("it was signed"),
    }
}

fn no_agreement(answer: ProposalAnswer) -> RefusalReason {
    match answer {
        ProposalAnswer::Refused(refusal) => refusal.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn revision_is_signed_only_for_what_is_held_priced_and_promised() {
    run(async {
        let world = World::new("").await;
        let provider = world.start().await;
        let client = provider.client();
        let kept = stored(1..3);
        let (id, first) = world.agree(&client, &kept).await;
        let ask = |request: RevisionRequest| {
            let client = &client;
            async move { client.client.revise(&client.peer, &request).await.unwrap() }
        };
        let domain = world.deployment.market_domain();
        let more = stored(1..4);
        let wanted = world.revision(id, 0, (&first, &set(&more))).await;

        let missing = refused(ask(wanted.clone()).await);
        assert_eq!(
            (missing.reason, missing.fragments.as_slice()),
            (RefusalReason::NotHeld, &[more[2].0][..])
        );
        // Stored, but by somebody else.
        let other = provider.caller(&key(2));
        assert!(other.put(&more[2], Access::Public).await.is_err(), "strangers store nothing here");
        client.put(&more[2], Access::Owner).await.unwrap();

        let with = |change: &dyn Fn(&mut seedbank_agreement::Revision)| {
            let mut message = wanted.revision.message.clone();
            change(&mut message);
            RevisionRequest { revision: message.sign(&domain, &world.wallet_key), ..wanted.clone() }
        };
        let cases = [
            (RefusalReason::WrongSet, with(&|terms| terms.set_root = SetRoot([1; 32]))),
            (RefusalReason::WrongSet, with(&|terms| terms.size += 1)),
            (RefusalReason::WrongRate, with(&|terms| terms.rate_per_epoch = Rate::new(1).unwrap())),
            (RefusalReason::Epochs, with(&|terms| terms.from_epoch = Epoch(terms.from_epoch.0 - 1))),
            (RefusalReason::Epochs, with(&|terms| terms.end_epoch = Epoch(terms.end_epoch.0 - 1))),
            (RefusalReason::WrongParty, with(&|terms| terms.agreement.0 += 1)),
        ];
        for (reason, request) in cases {
            assert_eq!(refused(ask(request).await).reason, reason);
        }
        let stranger = WalletKey::from_secret(&[8; 32]).unwrap();
        let forged = RevisionRequest {
            revision: wanted.revision.message.clone().sign(&domain, &stranger),
            ..wanted.clone()
        };
        assert_eq!(refused(ask(forged.clone()).await).reason, RefusalReason::Signature);
        // Whoever may not sign is not told whether the difference fits: no set is made for it.
        let unfit = RevisionRequest { removed: vec![fragment(9, 10).0], ..forged };
        assert_eq!(refused(ask(unfit).await).reason, RefusalReason::Signature);

        let opened = client.client.list_set(&client.peer, None, 10).await.unwrap();
        assert_eq!((opened.set.sequence, opened.signed), (0, None), "the chain has what the proposal says");

        // Asked twice, signed once.
        let signature = accepted(ask(wanted.clone()).await);
        assert_eq!(accepted(ask(wanted.clone()).await), signature);
        let own = signature;
        let signer = seedbank_agreement::recover(&wanted.revision.message.digest(&domain), &own).unwrap();
        assert_eq!(signer, world.payee);

        // From an old set, and again from the one that is told.
        let promised = retained(&more, Epoch(world.epoch().await.0 + 20));
        let stale = world.revision(id, 0, (&first, &promised)).await;
        let stale = RevisionRequest {
            revision: seedbank_agreement::Revision { sequence: 5, ..stale.revision.message.clone() }
                .sign(&domain, &world.wallet_key),
            ..stale
        };
        let behind = refused(ask(stale).await);
        assert_eq!((behind.reason, behind.own.unwrap().sequence), (RefusalReason::Behind, 1));
        let page = client.client.list_set(&client.peer, None, 10).await.unwrap();
        assert_eq!((page.set.set_root, page.leaves.len()), (set(&more).root(), 3));
        let signed = SignedTerms { revision: wanted.revision.clone(), provider: signature };
        assert_eq!(page.signed, Some(signed), "whoever lost it can post it again");
        let rest = client.client.list_set(&client.peer, Some(page.leaves[1].fragment), 10).await.unwrap();
        assert_eq!(rest.leaves, page.leaves[2..]);
        let request = world.revision(id, 1, (&set(&more), &promised)).await;
        accepted(ask(request).await);

        let fewer = retained(&more[..2], Epoch(world.epoch().await.0 + 20));
        let dropping = world.revision(id, 2, (&promised, &fewer)).await;
        let refusal = refused(ask(dropping).await);
        assert_eq!(
            (refusal.reason, refusal.fragments.as_slice()),
            (RefusalReason::Retained, &[more[2].0][..])
        );

        // Whatever the client releases, the provider keeps what it has promised.
        let release = ClaimRequest { fragment: more[2].0, action: ClaimAction::Release };
        let released = client.client.claims(&client.peer, &[release]).await.unwrap();
        assert_eq!(released, [ClaimOutcome::Released]);
        world.proven_epoch().await;
        client.put(&more[2], Access::Owner).await.unwrap();
        assert!(client.get(&more[2], None).await.is_ok());
    });
}

#[test]
fn offer_that_is_not_the_clients_or_not_covered_is_refused() {
    run(async {
        let node = Node::embedded().await;
        let endpoint = Proxy::of(&node).await;
        let world = World::on(node, &[endpoint.url()], "").await;
        let provider = world.start().await;
        let client = provider.client();
        let kept = stored(1..3);
        let domain = world.deployment.market_domain();
        let offer = world.offer(&set(&kept), Epoch(world.epoch().await.0 + 30)).await;
        let ask = |request: ProposalRequest| {
            let client = &client;
            async move { client.client.propose(&client.peer, &request).await.unwrap() }
        };
        assert_eq!(no_agreement(ask(offer.clone()).await), RefusalReason::NotHeld);
        for fragment in &kept {
            client.put(fragment, Access::Owner).await.unwrap();
        }
        let with = |change: &dyn Fn(&mut seedbank_agreement::Proposal)| {
            let mut message = offer.proposal.message.clone();
            change(&mut message);
            ProposalRequest { proposal: message.sign(&domain, &world.wallet_key), ..offer.clone() }
        };
        let cases = [
            (RefusalReason::WrongParty, with(&|terms| terms.provider.0[0] ^= 1)),
            (RefusalReason::Escrow, with(&|terms| terms.escrow.0 = 1)),
            (RefusalReason::Escrow, with(&|terms| terms.escrow.0 = u128::MAX)),
            (RefusalReason::Epochs, with(&|terms| terms.end_epoch.0 = 3)),
        ];
        for (reason, request) in cases {
            assert_eq!(no_agreement(ask(request).await), reason);
        }
        // Another key's word, and another chain's.
        let binding = world.wallet.chain().binding(world.wallet.address());
        let bound = [
            binding.sign(&key(9)),
            seedbank_agreement::Binding { chain_id: 5, ..binding }.sign(&client_key()),
        ];
        for binding in bound {
            let refused = ask(ProposalRequest { binding, ..offer.clone() }).await;
            assert_eq!(no_agreement(refused), RefusalReason::Binding);
        }
        let elsewhere = seedbank_agreement::Domain { chain_id: 5, ..domain };
        let replayed = offer.proposal.message.clone().sign(&elsewhere, &world.wallet_key);
        let asked = || world.asked_about(&endpoint, world.wallet.address());
        let before = asked();
        let refused = ask(ProposalRequest { proposal: replayed, ..offer.clone() }).await;
        assert_eq!(no_agreement(refused), RefusalReason::Signature);
        assert_eq!(asked(), before + 1, "only whether that signer may sign");

        let (id, _) = world.agree(&client, &kept).await;
        let again = with(&|terms| terms.nonce.0[0] ^= 1);
        assert_eq!(no_agreement(ask(again).await), RefusalReason::Exists);
        let ProposalAnswer::Accepted { agreement, .. } = ask(offer.clone()).await else {
            panic!("it is accepted")
        };
        assert_eq!(agreement, id, "the same offer has the same answer");
    });
}

#[test]
fn offer_whose_money_is_gone_before_it_is_an_agreement_keeps_nothing_here() {
    run(async {
        let node = Node::embedded().await;
        let endpoint = Proxy::of(&node).await;
        let world = World::on(node, &[endpoint.url()], "").await;
        let provider = world.start().await;
        let client = provider.client();
        let kept = stored(1..3);
        for fragment in &kept {
            client.put(fragment, Access::Owner).await.unwrap();
        }
        let offer = world.offer(&set(&kept), Epoch(world.epoch().await.0 + 30)).await;
        world.mute(&endpoint);
        world.offer_that_waits(&client, &offer).await;
        let claims = || provider.metric("seedbank_provider_store_claims");
        assert!(claims().await == 4.0, "the client's, and the provider's own");
        let (market, own) = (world.wallet.market(), world.wallet.address());
        let all = world.wallet.chain().market().free(own).await.unwrap();
        market.withdraw(all, own).await.unwrap();
        endpoint.does(|_, _| Act::Forward);
        until("the offer is refused", || async { world.offers_under_way() == 0 }).await;
        until("the provider lets go of it", || async { claims().await == 2.0 }).await;
        assert!(world.report().agreements.is_empty());
        let answer = client.client.propose(&client.peer, &offer).await.unwrap();
        assert_eq!(no_agreement(answer), RefusalReason::Escrow);
    });
}

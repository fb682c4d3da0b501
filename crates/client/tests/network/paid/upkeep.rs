//! What the steward does about pay.

use super::ledger::{EPOCH_SECONDS, EXIT_SECONDS};
use super::till::Manner;
use super::{Paid, limits, noise, wallet};
use crate::read::provider::Conduct;
use seedbank_agreement::{Amount, Epoch};
use seedbank_catalog::Books;
use seedbank_catalog::records::AgreementState;
use seedbank_client::maintain::{KeyLookup, Maintenance, Paying};
use seedbank_client::network::{Network, wall_clock};
use seedbank_client::pay::Limits;
use seedbank_client::pay::agree::Terms;
use seedbank_client::pay::budget::monthly;
use seedbank_client::pay::chain::{Chain, Order, Proving};
use seedbank_client::pay::lanes::{Counter, Lane};
use seedbank_formats::{FragmentId, SegmentNumber};
use std::sync::Arc;
use std::time::Duration;

impl Paid {
    fn maintenance(&self, network: &Arc<Network>) -> Maintenance {
        let keys = self.world.keys.clone();
        let lookup: KeyLookup = Arc::new(move |_dataset| Some(keys.clone()));
        Maintenance::new(Arc::clone(&self.world.books), Arc::clone(network), lookup)
    }

    async fn pay(&self) -> Paying {
        self.maintenance(&self.network(limits())).pay().await.unwrap()
    }
}

async fn pushed() -> Paid {
    let paid = Paid::start(2, 4, 1 << 40).await;
    let source = paid.source(&[("a", &noise(1, 300_000))]);
    paid.world.push_through(&source, paid.network(limits())).await.unwrap();
    paid
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_network_needs_nothing() {
    let paid = pushed().await;
    let orders = paid.ledger.state().orders.len();
    let done = paid.pay().await;
    assert_eq!((done.open, done.signed, done.posted, done.failed), (4, 0, 0, 0));
    assert_eq!(paid.ledger.state().orders.len(), orders);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_providers_did_not_post_is_posted_late_in_the_epoch() {
    let paid = pushed().await;
    let source = paid.source(&[("b", &noise(2, 50_000))]);
    paid.world.push_through(&source, paid.network(limits())).await.unwrap();
    assert_eq!(paid.pay().await.posted, 0, "it is the providers' pay, and their turn");
    paid.ledger.state().elapsed = 70_000;
    assert_eq!(paid.pay().await.posted, 4);
    assert!(paid.ledger.state().open.values().all(|open| open.state.sequence == 1));
    assert_eq!(paid.pay().await.posted, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_posted_in_time_is_signed_again_and_terms_are_renewed() {
    let paid = pushed().await;
    let source = paid.source(&[("b", &noise(2, 50_000))]);
    paid.world.push_through(&source, paid.network(limits())).await.unwrap();
    paid.ledger.pass(1);
    assert_eq!(paid.pay().await.signed, 4);
    assert!(paid.tills.iter().all(|till| till.sequence() == 2));
    paid.ledger.state().elapsed = 80_000;
    assert_eq!(paid.pay().await.posted, 4);
    let end = |paid: &Paid| paid.ledger.state().open.values().next().unwrap().state.end;
    let before = end(&paid);
    paid.ledger.state().elapsed = 0;
    paid.ledger.pass(16);
    assert_eq!(paid.pay().await.signed, 4, "half of the term is over");
    paid.ledger.state().elapsed = 80_000;
    paid.pay().await;
    assert!(end(&paid) > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_proving_is_stopped_buried_and_what_it_held_moves() {
    let paid = pushed().await;
    let (key, wallet_of) = (paid.world.providers[2].key(), paid.tills[2].wallet.address());
    let locked = paid.ledger.state().open[&paid.tills[2].agreement().unwrap()].state.locked;
    let now = paid.ledger.state().epoch;
    paid.ledger.state().proving.insert(wallet_of, Proving { epoch: now, misses: 2, ..Proving::default() });
    paid.pay().await;
    let terminated = |order: &Order| *order == Order::Terminate(paid.tills[2].agreement().unwrap());
    assert_eq!(paid.ledger.state().orders.iter().filter(|order| terminated(order)).count(), 1);
    let stopped = |paid: &Paid| {
        let known = paid.world.books.agreements().unwrap();
        known.into_iter().find(|known| known.provider == key).unwrap().state
    };
    assert_eq!(stopped(&paid), AgreementState::Stopped);
    let accepting = paid.world.books.providers().unwrap();
    assert!(!accepting.iter().find(|known| known.profile.key == key).unwrap().profile.accepting);
    assert_eq!(paid.pay().await.stopped, 1, "once");
    assert_eq!(paid.ledger.state().orders.iter().filter(|order| terminated(order)).count(), 1);

    let free = |paid: &Paid| paid.ledger.state().free[&wallet().address()];
    let before = free(&paid);
    let dead = Proving { epoch: now, misses: 5, dead_at: Some(now), ..Proving::default() };
    paid.ledger.state().proving.insert(wallet_of, dead);
    let done = paid.pay().await;
    assert_eq!((done.closed, done.refunded), (1, locked));
    assert_eq!(free(&paid).checked_sub(before), Some(locked), "the refund arrived");
    let missing = paid.world.books.missing_fragments(None, 1000).unwrap();
    assert!(!missing.is_empty(), "others are to hold what it held");
    assert_eq!(paid.pay().await.closed, 0);
    assert_eq!(stopped(&paid), AgreementState::Stopped, "it is not taken for new");
}

#[tokio::test(flavor = "multi_thread")]
async fn notice_that_a_person_meant_to_give_is_given_and_nothing_is_renewed() {
    let paid = pushed().await;
    let id = paid.tills[1].agreement().unwrap();
    paid.world.books.set_agreement_state(paid.world.providers[1].key(), AgreementState::Stopped).unwrap();
    paid.ledger.pass(20);
    paid.pay().await;
    let notices = |paid: &Paid| {
        let state = paid.ledger.state();
        state.orders.iter().filter(|order| **order == Order::Terminate(id)).count()
    };
    assert_eq!((notices(&paid), paid.tills[1].sequence()), (1, 0));
    assert!(paid.tills[0].sequence() > 0, "the others' terms end soon");
    paid.pay().await;
    assert_eq!(notices(&paid), 1, "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_is_renewed_no_more() {
    let paid = pushed().await;
    paid.ledger.pass(20);
    paid.ledger.state().providers.values_mut().for_each(|entry| entry.leaving = true);
    let done = paid.pay().await;
    assert_eq!((done.signed, done.failed), (0, 0));
    paid.ledger.state().providers.values_mut().for_each(|entry| entry.leaving = false);
    assert!(paid.pay().await.signed > 0, "terms end soon");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_leaves_the_sets_by_the_steward() {
    let paid = pushed().await;
    let before: Vec<FragmentId> = paid.tills[0].fragments();
    paid.world.books.lose_fragments(paid.world.providers[0].key(), before[..1].to_vec()).unwrap();
    let done = paid.pay().await;
    assert_eq!(done.signed, 1);
    assert_eq!(paid.tills[0].fragments(), before[1..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_lost_data_is_asked_on_the_chain_once_and_its_agreement_ends_without_an_answer() {
    let paid = pushed().await;
    let network = paid.network(limits());
    let maintenance = paid.maintenance(&network);
    let first = (SegmentNumber(0), SegmentNumber(1 << 40));
    let segments = paid.world.books.segments_in(paid.world.keys.id, first.0, first.1, None).unwrap();
    let data = segments.iter().max_by_key(|segment| segment.sealed_len).unwrap();
    let provider = data.fragments[0].holder.unwrap();
    let nth = paid.world.providers.iter().position(|other| other.key() == provider).unwrap();
    paid.world.provider(provider).shelf.behave(Conduct::Rotten);
    let version = paid.world.books.versions(paid.world.keys.id, None, 1).unwrap()[0].id;
    let reading = paid.world.try_read(version, Arc::clone(&network)).await.unwrap();
    reading.cat("a", 0..300_000).await.unwrap();
    network.settle(Duration::from_secs(10)).await;
    let findings = network.findings();
    assert!(!findings.is_empty() && findings.iter().all(|finding| finding.provider == provider));
    paid.world.provider(provider).shelf.behave(Conduct::Honest);
    assert_eq!(maintenance.pay().await.unwrap().asked, 1);
    assert_eq!(maintenance.pay().await.unwrap().asked, 0);
    paid.ledger.pass(2);
    let id = paid.tills[nth].agreement().unwrap();
    maintenance.pay().await.unwrap();
    assert!(paid.ledger.state().orders.contains(&Order::Fail(id)));
    assert_eq!(paid.ledger.state().open[&id].state.end, Epoch(8));
    let known = paid.world.books.agreements().unwrap();
    let stopped = known.iter().find(|known| known.provider == provider).unwrap().state;
    assert_eq!(stopped, AgreementState::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_holds_goes_to_no_provider_that_is_too_dear_not_to_be_believed_or_beyond_the_budget() {
    let paid = pushed().await;
    let key = paid.world.providers[0].key();
    paid.world.books.lose_fragments(key, paid.tills[0].fragments()).unwrap();
    let complete = async |limits: Limits| {
        let network = paid.network(limits);
        paid.maintenance(&network).complete_missing(100, wall_clock()).await.unwrap()
    };
    let holds = || {
        let (first, last) = (SegmentNumber(0), SegmentNumber(1 << 40));
        let segments = paid.world.books.segments_in(paid.world.keys.id, first, last, None).unwrap();
        segments.iter().any(|segment| segment.holders().any(|holder| holder == key))
    };
    let missing = || paid.world.books.missing_fragments(None, 1000).unwrap().len();
    let before = *paid.tills[0].prices.lock().unwrap();
    paid.tills[0].prices.lock().unwrap().rent_per_gib_month = Amount(before.rent_per_gib_month.0 + 1);
    complete(limits()).await;
    assert!(!holds() && missing() > 0, "too dear, and the others hold a fragment already");
    *paid.tills[0].prices.lock().unwrap() = before;
    let entry = paid.ledger.state().providers.remove(&paid.tills[0].wallet.address()).unwrap();
    complete(limits()).await;
    assert!(!holds(), "nobody knows whose wallet it is");
    paid.ledger.state().providers.insert(paid.tills[0].wallet.address(), entry);
    paid.tills[0].set(Manner::QuotesThePast);
    complete(limits()).await;
    assert!(!holds(), "its quote has expired");
    paid.tills[0].set(Manner::Fair);
    let known = paid.world.books.agreements().unwrap();
    let rates = known.iter().filter_map(|known| Some(Terms::of(known)?.rate()));
    let rent: Amount = rates.map(|rate| monthly(rate, EPOCH_SECONDS)).sum();
    complete(Limits { per_month: rent, ..limits() }).await;
    assert!(!holds(), "the budget is spent");
    complete(limits()).await;
    assert!(holds() && missing() == 0);
    assert_eq!(paid.pay().await.failed, 0, "and it signs for them");
}

#[tokio::test(flavor = "multi_thread")]
async fn escrow_comes_back_from_an_agreement_about_much_less() {
    let paid = pushed().await;
    paid.world.books.lose_fragments(paid.world.providers[0].key(), paid.tills[0].fragments()).unwrap();
    assert_eq!(paid.pay().await.signed, 1);
    paid.ledger.state().elapsed = 80_000;
    assert_eq!(paid.pay().await.posted, 1);
    paid.ledger.state().elapsed = 0;
    paid.ledger.pass(1);
    let id = paid.tills[0].agreement().unwrap();
    let locked = paid.ledger.state().open[&id].state.locked;
    let free = |paid: &Paid| paid.ledger.state().free[&wallet().address()];
    let before = free(&paid);
    assert_eq!(paid.pay().await.announced, 1);
    assert_eq!(paid.pay().await.announced, 0, "once");
    paid.ledger.pass(2);
    paid.pay().await;
    assert_eq!(free(&paid).checked_sub(before), Some(locked), "it holds nothing any more");
    assert_eq!(paid.pay().await.announced, 0);
}

/// As if nobody had read there for long.
fn make_idle(paid: &Paid) {
    let dir = paid.world.folder.path().join("pay");
    let mut lane = Lane::take(&dir).unwrap();
    for till in &paid.tills {
        let payee = till.wallet.address();
        if let Some(counter) = lane.counter(&payee) {
            lane.set(&payee, Counter { used: 0, ..counter }, Amount::ZERO, 0).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_s_money_comes_back_when_nobody_needs_it_and_whoever_reads_there_again_is_served() {
    let paid = Paid::start(2, 3, 100_000).await;
    let bytes = noise(1, 900_000);
    let source = paid.source(&[("a", &bytes)]);
    let version = paid.world.push_through(&source, paid.network(limits())).await.unwrap().version;
    let read = async || {
        let network = paid.network(limits());
        let reading = paid.world.try_read(version, Arc::clone(&network)).await.unwrap();
        let got = reading.cat("a", 0..900_000).await.unwrap();
        network.settle(Duration::from_secs(10)).await;
        assert!(got == bytes);
    };
    read().await;
    let deposits = || -> Amount { paid.ledger.state().channels.values().map(|(deposit, _)| *deposit).sum() };
    let tokens = || paid.ledger.state().tokens[&wallet().address()];
    let channels = paid.ledger.state().channels.len();
    assert!(channels >= 2);
    make_idle(&paid);
    assert_eq!(paid.pay().await.announced, 0, "they hold something of ours");
    for provider in &paid.world.providers {
        paid.world.books.set_agreement_state(provider.key(), AgreementState::Stopped).unwrap();
    }
    read().await;
    assert_eq!(paid.pay().await.announced, 0, "somebody has just read there");
    make_idle(&paid);
    assert_eq!(paid.pay().await.announced, channels as u64);
    // Every channel is being left, and whoever reads stays.
    read().await;
    assert!(paid.ledger.state().exits.is_empty());
    make_idle(&paid);
    assert_eq!(paid.pay().await.announced, channels as u64);
    assert_eq!(paid.pay().await.returned, Amount::ZERO, "not before its time");
    paid.tills.iter().for_each(|till| till.redeem());
    paid.ledger.state().elapsed += EXIT_SECONDS;
    let (left, before) = (deposits(), tokens());
    let done = paid.pay().await;
    assert_eq!((done.returned, done.failed), (left, 0));
    assert_eq!(tokens().checked_sub(before), Some(left));
    assert_eq!(deposits(), Amount::ZERO);
    assert_eq!(paid.pay().await.raised, 0, "nobody reads there");
    // What the home remembers of its channels is wrong now.
    read().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_that_a_person_announced_is_the_person_s() {
    let paid = Paid::start(2, 3, 100_000).await;
    let source = paid.source(&[("a", &noise(1, 900_000))]);
    let version = paid.world.push_through(&source, paid.network(limits())).await.unwrap().version;
    let network = paid.network(limits());
    paid.world.try_read(version, Arc::clone(&network)).await.unwrap().cat("a", 0..900_000).await.unwrap();
    network.settle(Duration::from_secs(10)).await;
    drop(network);
    let (payee, deposit) =
        paid.ledger.state().channels.iter().next().map(|(payee, (sum, _))| (*payee, *sum)).unwrap();
    let chain = paid.ledger.of(wallet().address());
    chain.order(Order::RequestExit(payee, deposit)).await.unwrap();
    // Readers leave it alone, too, and read from the others.
    let network = paid.network(limits());
    let reading = paid.world.try_read(version, Arc::clone(&network)).await.unwrap();
    assert_eq!(reading.cat("a", 0..900_000).await.unwrap().len(), 900_000);
    network.settle(Duration::from_secs(10)).await;
    drop(network);
    assert!(paid.ledger.state().exits.contains_key(&payee));
    make_idle(&paid);
    for provider in &paid.world.providers {
        paid.world.books.set_agreement_state(provider.key(), AgreementState::Stopped).unwrap();
    }
    paid.ledger.state().elapsed += EXIT_SECONDS;
    assert_eq!(paid.pay().await.returned, Amount::ZERO);
    assert!(paid.ledger.state().exits.contains_key(&payee));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_signs_nothing_holds_no_other_up() {
    let paid = pushed().await;
    for nth in [0, 1] {
        let gone = paid.tills[nth].fragments()[..1].to_vec();
        paid.world.books.lose_fragments(paid.world.providers[nth].key(), gone).unwrap();
    }
    paid.tills[0].set(Manner::SignsNothing);
    let done = paid.pay().await;
    assert_eq!((done.signed, done.failed), (1, 1));
    assert_eq!(done.refunded, Amount::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_down_fails_the_step_and_nothing_else() {
    let paid = pushed().await;
    paid.ledger.state().is_down = true;
    paid.maintenance(&paid.network(limits())).pay().await.unwrap_err();
    paid.ledger.state().is_down = false;
    assert_eq!(paid.pay().await.open, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_pays_nobody_does_nothing() {
    let paid = pushed().await;
    let network = Arc::new(Network::new(seedbank_transport::ProviderClient::new(
        &seedbank_transport::Identity::new(&crate::read::world::owner()),
        seedbank_transport::TcpDial,
        seedbank_transport::ClientLimits::default(),
    )));
    assert_eq!(paid.maintenance(&network).pay().await.unwrap(), Paying::default());
}

//! A push in a paid network.

use super::till::Manner;
use super::{PLENTY, Paid, limits, noise, prices, wallet};
use seedbank_agreement::price::Prices;
use seedbank_agreement::{Amount, Epoch};
use seedbank_catalog::Books;
use seedbank_catalog::records::AgreementState;
use seedbank_client::pay::Limits;
use seedbank_client::pay::agree::{AgreeError, Agreeing, Purpose, Terms};
use seedbank_client::pay::chain::Order;
use seedbank_client::pay::payer::{FundsError, QuoteRefused};
use seedbank_client::push::PushError;
use seedbank_formats::FragmentId;
use std::collections::BTreeSet;

/// What the books say that a provider holds.
pub(crate) fn held(paid: &Paid, nth: usize) -> BTreeSet<FragmentId> {
    let segments = paid
        .world
        .books
        .segments_in(
            paid.world.keys.id,
            seedbank_formats::SegmentNumber(0),
            seedbank_formats::SegmentNumber(1 << 40),
            None,
        )
        .unwrap();
    let key = paid.world.providers[nth].key();
    let fragments = segments.iter().flat_map(|segment| &segment.fragments);
    fragments.filter(|fragment| fragment.holder == Some(key)).map(|fragment| fragment.id).collect()
}

pub(crate) fn signed(paid: &Paid, nth: usize) -> BTreeSet<FragmentId> {
    paid.tills[nth].fragments().into_iter().collect()
}

/// Whether books and provider have one set, with all that is held in it. What a failed push left may be in it, too, until it is
/// collected.
pub(crate) fn is_one_set(paid: &Paid, nth: usize) -> bool {
    let known = paid.world.books.agreements().unwrap();
    let key = paid.world.providers[nth].key();
    let known = known.into_iter().find(|known| known.provider == key).unwrap();
    let set = signed(paid, nth);
    known.pending.is_none()
        && known.sequence == paid.tills[nth].sequence()
        && usize::try_from(known.fragments).unwrap() == set.len()
        && held(paid, nth).is_subset(&set)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_has_everything_signed_and_covered_and_the_next_needs_no_transaction() {
    let paid = Paid::start(2, 4, 1 << 40).await;
    let source = paid.source(&[("a", &noise(1, 300_000))]);
    paid.world.push_through(&source, paid.network(limits())).await.unwrap();
    for nth in 0..4 {
        assert_eq!(signed(&paid, nth), held(&paid, nth), "provider {nth}");
        assert_eq!((paid.tills[nth].sequence(), paid.tills[nth].agreement().is_some()), (0, true));
    }
    let known = paid.world.books.agreements().unwrap();
    assert_eq!(known.len(), 4);
    for agreement in &known {
        assert!(agreement.pending.is_none() && agreement.state == AgreementState::Open);
        let Some(Terms::Proposal { proposal }) = Terms::of(agreement) else { panic!("{agreement:?}") };
        assert_eq!((proposal.size, proposal.end_epoch), (agreement.bytes, Epoch(36)));
    }
    let orders = paid.ledger.state().orders.len();
    let source = paid.source(&[("b", &noise(2, 200_000))]);
    paid.world.push_through(&source, paid.network(limits())).await.unwrap();
    for nth in 0..4 {
        assert_eq!(signed(&paid, nth), held(&paid, nth), "provider {nth}");
        assert_eq!(paid.tills[nth].sequence(), 1, "one revision, by the escrow that is there");
    }
    assert_eq!(paid.ledger.state().orders.len(), orders, "no transaction");
    for agreement in paid.world.books.agreements().unwrap() {
        assert!(Terms::of(&agreement).unwrap().posted().is_some(), "either side can post it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_more_than_the_ceiling_gets_nothing_and_is_named_with_both_prices() {
    let paid = Paid::start(2, 3, 1 << 40).await;
    let source = paid.source(&[("a", &noise(1, 100_000))]);
    let dear = Prices { rent_per_gib_month: Amount((1 << 40) + 7), ..prices() };
    paid.tills.iter().for_each(|till| *till.prices.lock().unwrap() = dear);
    let error = paid.world.push_through(&source, paid.network(limits())).await.unwrap_err();
    let text = error.to_string();
    let (asked, ceiling) = ((1u128 << 40) + 7, 1u128 << 40);
    assert!(text.contains(&asked.to_string()) && text.contains(&ceiling.to_string()), "{text}");
    assert!(text.contains("--rent-max"), "{text}");
    match error {
        PushError::Unpayable { refused, .. } => {
            assert!(refused.values().all(|reason| matches!(reason, QuoteRefused::Ceiling { .. })));
        }
        other => panic!("{other:?}"),
    }
    assert!(paid.ledger.state().orders.is_empty() && paid.tills[0].agreement().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_is_exhausted_says_so_and_nothing_is_committed() {
    let paid = Paid::start(2, 3, 1 << 40).await;
    let source = paid.source(&[("a", &noise(1, 100_000))]);
    let poor = Limits { per_month: Amount(1000), ..limits() };
    let error = paid.world.push_through(&source, paid.network(poor)).await.unwrap_err();
    assert!(matches!(&error, PushError::Pay(AgreeError::Funds(FundsError::Budget(_)))), "{error:?}");
    let told = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
    assert!(told.contains("budget of 1000 units a month is exhausted"), "{told}");
    assert!(paid.world.books.versions(paid.world.keys.id, None, 10).unwrap().is_empty());
    // What was stored is found again when there is money.
    let report = paid.world.push_through(&source, paid.network(limits())).await.unwrap();
    assert_eq!(report.counts.bytes_sealed, report.counts.bytes_metadata, "no data is sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_wallet_is_told_what_is_missing_and_a_faucet_fills_it() {
    let paid = Paid::start(1, 2, 1 << 40).await;
    let source = paid.source(&[("a", &noise(1, 100_000))]);
    paid.ledger.state().tokens.clear();
    paid.ledger.state().is_dear = true;
    let error = paid.world.push_through(&source, paid.network(limits())).await.unwrap_err();
    assert!(matches!(&error, PushError::Pay(AgreeError::Funds(FundsError::Short { .. }))), "{error:?}");
    paid.ledger.state().is_dear = false;
    let network = paid.network(limits());
    paid.world.push_through(&source, network.clone()).await.unwrap();
    assert!(network.payer().unwrap().made() > Amount::ZERO, "and it says so");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_sign_holds_nothing_of_the_push_and_too_few_fail_it() {
    let paid = Paid::start(2, 4, 1 << 40).await;
    let source = paid.source(&[("a", &noise(1, 100_000))]);
    paid.tills[0].set(Manner::SignsNothing);
    let report = paid.world.push_through(&source, paid.network(limits())).await.unwrap();
    assert!(report.missing > 0 && !report.holders.contains(&paid.world.providers[0].key()));
    assert!(held(&paid, 0).is_empty());
    assert!((1..4).all(|nth| signed(&paid, nth) == held(&paid, nth)));

    let source = paid.source(&[("b", &noise(2, 100_000))]);
    paid.tills.iter().for_each(|till| till.set(Manner::SignsNothing));
    let error = paid.world.push_through(&source, paid.network(limits())).await.unwrap_err();
    assert!(matches!(error, PushError::Unsigned { .. }), "{error:?}");
    assert_eq!(paid.world.books.versions(paid.world.keys.id, None, 10).unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_more_for_its_gas_than_an_agreement_brings_is_offered_nothing_until_it_wants_less() {
    let paid = Paid::start(2, 4, 1 << 40).await;
    let network = paid.network(limits());
    paid.tills[0].set(Manner::WantsMore);
    let source = paid.source(&[("a", &noise(1, 100_000))]);
    let report = paid.world.push_through(&source, network.clone()).await.unwrap();
    assert!(!report.holders.contains(&paid.world.providers[0].key()));
    // It would have signed.
    assert!(paid.tills[0].agreement().is_none() && held(&paid, 0).is_empty());
    assert!((1..4).all(|nth| signed(&paid, nth) == held(&paid, nth)));

    paid.tills[0].set(Manner::Fair);
    let source = paid.source(&[("b", &noise(2, 100_000))]);
    let report = paid.world.push_through(&source, network).await.unwrap();
    assert!(report.holders.contains(&paid.world.providers[0].key()), "the same process asks it again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_of_another_key_is_no_signature() {
    let paid = Paid::start(2, 4, 1 << 40).await;
    let source = paid.source(&[("a", &noise(1, 50_000))]);
    paid.world.push_through(&source, paid.network(limits())).await.unwrap();
    paid.tills[1].set(Manner::SignsFalsely);
    let source = paid.source(&[("b", &noise(2, 50_000))]);
    let report = paid.world.push_through(&source, paid.network(limits())).await.unwrap();
    assert!(!report.holders.contains(&paid.world.providers[1].key()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_lost_is_asked_for_again_and_both_have_one_set() {
    let paid = Paid::start(1, 2, 1 << 40).await;
    let source = paid.source(&[("a", &noise(1, 50_000))]);
    paid.tills[0].set(Manner::LosesAnswers);
    paid.world.push_through(&source, paid.network(limits())).await.unwrap_err();
    assert!(paid.tills[0].agreement().is_some(), "it has opened the agreement");
    assert!(paid.world.books.agreements().unwrap().iter().any(|known| known.pending.is_some()));
    paid.tills[0].set(Manner::Fair);
    paid.world.push_through(&source, paid.network(limits())).await.unwrap();
    assert!(is_one_set(&paid, 0));
    let open = paid.ledger.state().open.len();
    assert_eq!(open, 2, "one agreement each");

    // The same with a revision, whose epoch ends before anybody asks again.
    let source = paid.source(&[("b", &noise(2, 50_000))]);
    paid.tills[0].set(Manner::LosesAnswers);
    paid.world.push_through(&source, paid.network(limits())).await.unwrap_err();
    let ahead = paid.tills[0].sequence();
    paid.ledger.pass(1);
    paid.tills[0].set(Manner::Fair);
    paid.world.push_through(&source, paid.network(limits())).await.unwrap();
    assert!(paid.tills[0].sequence() > ahead);
    assert!(is_one_set(&paid, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn books_without_agreements_find_them_on_the_chain_and_take_the_providers_set() {
    let paid = Paid::start(1, 2, 1 << 40).await;
    let source = paid.source(&[("a", &noise(1, 50_000))]);
    paid.world.push_through(&source, paid.network(limits())).await.unwrap();
    for provider in &paid.world.providers {
        paid.world.books.drop_agreement(provider.key()).unwrap();
    }
    let source = paid.source(&[("b", &noise(2, 50_000))]);
    paid.world.push_through(&source, paid.network(limits())).await.unwrap();
    assert!((0..2).all(|nth| signed(&paid, nth) == held(&paid, nth)));
    assert_eq!(paid.ledger.state().open.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_while_the_chain_is_down_says_so_and_goes_on_when_it_is_back() {
    let paid = Paid::start(1, 2, 1 << 40).await;
    let source = paid.source(&[("a", &noise(1, 50_000))]);
    paid.ledger.state().is_down = true;
    let error = paid.world.push_through(&source, paid.network(limits())).await.unwrap_err();
    let told = std::error::Error::source(&error).unwrap().to_string();
    assert!(told.contains("chain can't be reached"), "{told}");
    paid.ledger.state().is_down = false;
    let network = paid.network(limits());
    paid.world.push_through(&source, network.clone()).await.unwrap();
    // With a quote at hand, it is the revision that fails.
    paid.ledger.state().is_down = true;
    let source = paid.source(&[("b", &noise(2, 50_000))]);
    let error = paid.world.push_through(&source, network.clone()).await.unwrap_err();
    assert!(matches!(&error, PushError::Pay(AgreeError::Chain(_))), "{error:?}");
    paid.ledger.state().is_down = false;
    paid.world.push_through(&source, network).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_outgrows_its_escrow_has_more_reserved() {
    let paid = Paid::start(1, 2, 1 << 40).await;
    let source = paid.source(&[("a", &noise(1, 50_000))]);
    paid.world.push_through(&source, paid.network(limits())).await.unwrap();
    let source = paid.source(&[("b", &noise(2, 20_000_000))]);
    paid.world.push_through(&source, paid.network(limits())).await.unwrap();
    let state = paid.ledger.state();
    let reserved = state.orders.iter().filter(|order| matches!(order, Order::Reserve(..))).count();
    assert_eq!(reserved, 2);
    let locked: Amount = state.open.values().map(|open| open.state.locked).sum();
    let (free, left) = (state.free[&wallet().address()], state.tokens[&wallet().address()]);
    assert_eq!(
        left.checked_add(free).unwrap().checked_add(locked),
        Some(PLENTY),
        "nothing is lost on the way"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hot_key_signs_and_is_authorised_for_what_the_budget_allows() {
    let paid = Paid::start(1, 2, 1 << 40).await;
    let source = paid.source(&[("a", &noise(1, 50_000))]);
    let per_month = Amount(1 << 40);
    paid.world.push_through(&source, paid.network(Limits { per_month, ..limits() })).await.unwrap();
    let state = paid.ledger.state();
    let caps: Vec<Amount> = state
        .orders
        .iter()
        .filter_map(|order| match order {
            Order::Authorize { cap, .. } => Some(*cap),
            _ => None,
        })
        .collect();
    assert!(!caps.is_empty() && caps.iter().all(|cap| *cap <= Amount(4 << 40)), "{caps:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_asked_when_everything_is_signed() {
    let paid = Paid::start(1, 2, 1 << 40).await;
    let source = paid.source(&[("a", &noise(1, 50_000))]);
    paid.world.push_through(&source, paid.network(limits())).await.unwrap();
    let network = paid.network(limits());
    let payer = network.payer().unwrap();
    let provider = paid.world.providers[0].key();
    let agreeing = Agreeing { payer, books: &paid.world.books, network: &network, provider };
    agreeing.run(Purpose::Upkeep).await.unwrap();
    assert_eq!(paid.tills[0].sequence(), 0);
    agreeing.run(Purpose::Renewal).await.unwrap();
    assert_eq!(paid.tills[0].sequence(), 1, "a renewal signs the same set for another term");
}

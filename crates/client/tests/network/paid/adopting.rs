//! Books that know less of an agreement than its provider, and providers that say so to have something signed for that nobody
//! stored.

use super::agreeing::{held, is_one_set, signed};
use super::till::{Lie, Manner, root_of};
use super::{Paid, limits, noise};
use seedbank_agreement::{Epoch, Typed, WalletKey};
use seedbank_catalog::records::{Agreement, SetDraft};
use seedbank_catalog::{Books, Catalog, Local};
use seedbank_client::SharedBooks;
use seedbank_client::behind::BehindError;
use seedbank_client::network::wall_clock;
use seedbank_client::pay::agree::{AgreeError, Agreeing, Purpose, Terms};
use seedbank_formats::FragmentId;
use seedbank_protocol::payment::{SetLeaf, SetPage, SetSummary, SignedTerms};
use std::sync::Arc;

impl Paid {
    async fn push(&self, name: &str, seed: u8) {
        let source = self.source(&[(name, &noise(seed, 50_000))]);
        self.world.push_through(&source, self.network(limits())).await.unwrap();
    }

    /// Has the first provider asked for something.
    async fn ask(&self, purpose: Purpose) -> Result<(), AgreeError> {
        let network = self.network(limits());
        let (payer, provider) = (network.payer().unwrap(), self.world.providers[0].key());
        Agreeing { payer, books: &self.world.books, network: &network, provider }.run(purpose).await
    }

    /// What the books know of the first provider's set.
    fn books_say(&self) -> (Vec<Agreement>, SetDraft) {
        let (books, provider) = (&self.world.books, self.world.providers[0].key());
        (books.agreements().unwrap(), books.draft_set(provider, None, 5_000).unwrap())
    }

    fn forget_agreements(&self) {
        for provider in &self.world.providers {
            self.world.books.drop_agreement(provider.key()).unwrap();
        }
    }

    fn first_terms(&self) -> Terms {
        let provider = self.world.providers[0].key();
        let known = self.world.books.agreements().unwrap();
        Terms::of(known.iter().find(|known| known.provider == provider).unwrap()).unwrap()
    }
}

fn leaf(number: u64, length: u64) -> SetLeaf {
    let mut id = [0xff; 32];
    id[24..].copy_from_slice(&number.to_be_bytes());
    SetLeaf { fragment: FragmentId(id), length, retain_until: Epoch(0) }
}

/// A page with a fragment that nobody stored, in a set that has it.
fn with_invented(page: SetPage, after: Option<FragmentId>) -> SetPage {
    let invented = leaf(1, 64 << 20);
    if after == Some(invented.fragment) {
        return page;
    }
    let mut leaves = page.leaves;
    leaves.push(invented);
    let all = leaves.iter().map(|leaf| (leaf.fragment, leaf.length)).collect();
    let (set_root, size) = root_of(&all);
    let set = SetSummary { set_root, size, ..page.set };
    SetPage { set, leaves, ..page }
}

/// The set of a page as the next revision, with the signatures of these keys.
fn resigned(page: SetPage, client: &WalletKey, provider: &WalletKey) -> SetPage {
    let mut revision = page.signed.as_ref().unwrap().revision.message.clone();
    let set = SetSummary { sequence: page.set.sequence + 1, ..page.set };
    (revision.sequence, revision.set_root, revision.size) = (set.sequence, set.set_root, set.size);
    let domain = super::ledger::place().market_domain();
    let signature = provider.sign(&revision.digest(&domain));
    let signed = SignedTerms { revision: revision.sign(&domain, client), provider: signature };
    SetPage { set, signed: Some(signed), ..page }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_lists_what_was_not_signed_is_not_believed_and_the_books_stay_as_they_were() {
    let paid = Paid::start(1, 2, 1 << 40).await;
    paid.push("a", 1).await;
    paid.push("b", 2).await;
    let till = &paid.tills[0];
    let old = till.page(None, 5_000);
    paid.push("c", 3).await;
    assert_eq!((old.set.sequence, till.sequence()), (1, 2));
    till.set(Manner::SaysBehind);
    let (own, stranger) = (till.wallet.clone(), WalletKey::from_secret(&[77; 32]).unwrap());
    let last = old.set;
    let lies: Vec<(&str, &str, Lie)> = vec![
        ("invented, under the last signatures", "another set", Box::new(with_invented)),
        (
            "invented, without a signature",
            "shows no signature of this home",
            Box::new(|page, after| {
                let mut page = SetPage { signed: None, ..with_invented(page, after) };
                page.set.sequence += 1;
                page
            }),
        ),
        (
            "invented, in another client's revision",
            "not signed by this home",
            Box::new(move |page, after| resigned(with_invented(page, after), &stranger, &own)),
        ),
        ("another agreement", "set of another agreement", {
            Box::new(|mut page, _| {
                page.set.agreement.as_mut().unwrap().0 += 1;
                page
            })
        }),
        ("an old revision", "and revision", Box::new(move |_, _| old.clone())),
        ("an old revision's set under the last number", "another set", {
            Box::new(move |mut page, _| {
                (page.set.set_root, page.set.size) = (last.set_root, last.size);
                page
            })
        }),
        ("one fragment in place of another", "are not the set that was signed for", {
            Box::new(|mut page, _| {
                let length = page.leaves.last().unwrap().length;
                *page.leaves.last_mut().unwrap() = leaf(1, length);
                page
            })
        }),
        ("one fragment less", "fewer bytes than its set", {
            Box::new(|mut page, _| {
                page.leaves.pop();
                page
            })
        }),
        ("a fragment more", "more bytes than its set", {
            Box::new(|mut page, _| {
                page.leaves.push(leaf(1, 1));
                page
            })
        }),
        ("wrong order", "", {
            Box::new(|mut page, _| {
                page.leaves.reverse();
                page
            })
        }),
        ("pages without end", "more bytes than its set", {
            Box::new(|page, after| {
                let next = after.map_or(0, |after| u64::from_be_bytes(after.0[24..].try_into().unwrap()) + 1);
                SetPage { leaves: (next..next + 5_000).map(|number| leaf(number, 1)).collect(), ..page }
            })
        }),
    ];
    let known = paid.books_say();
    for (what, told, lie) in lies {
        *till.lie.lock().unwrap() = Some(lie);
        let refused = paid.ask(Purpose::Renewal).await.expect_err(what);
        assert!(refused.to_string().contains(told), "{what}: {refused}");
        assert_eq!(paid.books_say(), known, "{what}");
        assert_eq!(till.sequence(), 2, "nothing is signed for it");
    }

    // Books that know nothing of it take nothing from such a list either.
    paid.forget_agreements();
    let known = paid.books_say();
    assert!(known.0.is_empty());
    let stranger = WalletKey::from_secret(&[77; 32]).unwrap();
    let own = till.wallet.clone();
    let lie: Lie = Box::new(move |page, after| resigned(with_invented(page, after), &stranger, &own));
    *till.lie.lock().unwrap() = Some(lie);
    let refused = paid.ask(Purpose::Upkeep).await.unwrap_err();
    assert!(refused.to_string().contains("not signed by this home"), "{refused}");
    assert_eq!(paid.books_say(), known);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_that_it_signed_and_shows_nothing_holds_nothing_of_the_push() {
    let paid = Paid::start(2, 4, 1 << 40).await;
    paid.push("a", 1).await;
    paid.tills[0].set(Manner::SaysSigned);
    *paid.tills[0].lie.lock().unwrap() = Some(Box::new(|mut page, _| {
        page.set.sequence += 1;
        page
    }));
    let source = paid.source(&[("b", &noise(2, 50_000))]);
    let report = paid.world.push_through(&source, paid.network(limits())).await.unwrap();
    assert!(!report.holders.contains(&paid.world.providers[0].key()));
    assert_eq!(paid.tills[0].sequence(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_over_can_be_posted_or_is_what_the_chain_has() {
    let paid = Paid::start(1, 2, 1 << 40).await;
    paid.push("a", 1).await;
    paid.forget_agreements();
    paid.ask(Purpose::Upkeep).await.unwrap();
    let opened = paid.first_terms();
    assert!(matches!(opened, Terms::Posted { sequence: 0, .. }), "{opened:?}");
    let state = paid.ledger.state().open[&paid.tills[0].agreement().unwrap()].state;
    assert_eq!((opened.rate(), opened.end()), (state.next_rate, state.end));
    paid.push("b", 2).await;
    let before = paid.first_terms();
    assert!(before.posted().is_some());
    paid.forget_agreements();
    paid.ask(Purpose::Upkeep).await.unwrap();
    assert_eq!(paid.first_terms(), before, "with both signatures");
    assert!(is_one_set(&paid, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_books_do_not_know_of_what_was_taken_over_goes_out_with_the_next_push() {
    let paid = Paid::start(1, 2, 1 << 40).await;
    paid.push("a", 1).await;
    paid.push("b", 2).await;
    let provider = paid.world.providers[0].key();
    let gone = paid.tills[0].fragments()[0];
    paid.world.books.lose_fragments(provider, vec![gone]).unwrap();
    paid.forget_agreements();
    paid.push("c", 3).await;
    assert!(!signed(&paid, 0).contains(&gone));
    assert_eq!(signed(&paid, 0), held(&paid, 0));
    assert!(is_one_set(&paid, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_of_the_books_takes_over_nothing_and_has_nothing_taken_out() {
    let mut paid = Paid::start(1, 2, 1 << 40).await;
    paid.push("a", 1).await;
    let folder = paid.world.folder.path().join("old");
    std::fs::create_dir(&folder).unwrap();
    let open = rusqlite::Connection::open(paid.world.folder.path().join("catalog/catalog.sqlite")).unwrap();
    open.execute("VACUUM INTO ?1", [folder.join("catalog.sqlite").to_str().unwrap()]).unwrap();
    paid.push("b", 2).await;
    let set = paid.tills[0].fragments();
    let old: SharedBooks = Arc::new(Local::new(Catalog::open(&folder).unwrap(), wall_clock));
    paid.world.books = old;
    let known = paid.books_say();
    let refused = paid.ask(Purpose::Renewal).await.unwrap_err();
    assert!(matches!(&refused, AgreeError::OldBooks(BehindError::Older { .. })), "{refused:?}");
    assert_eq!((paid.books_say(), paid.tills[0].fragments()), (known, set));
}

use super::{Disbelief, Facts, Listed, Listing, PAGES_MAX, believe};
use crate::pay::agree::{AgreedSet, Terms};
use crate::pay::chain::OnChain;
use seedbank_agreement::{
    Address, AgreementId, Amount, Domain, Epoch, Rate, Revision, SetRoot, Typed, WalletKey,
};
use seedbank_formats::FragmentId;
use seedbank_protocol::payment::{SetLeaf, SetPage, SetSummary, SignedTerms};
use seedbank_protocol::routes::{SET_FRAGMENTS_MAX, SET_PAGE_MAX};

const MARKET: Domain = Domain { chain_id: 7, contract: Address([7; 20]) };
const OTHER_CHAIN: Domain = Domain { chain_id: 8, ..MARKET };

const WALLET: u8 = 1;
const HOT: u8 = 2;
const PROVIDER: u8 = 3;
const OPERATOR: u8 = 4;
const STRANGER: u8 = 5;

fn key(number: u8) -> WalletKey {
    WalletKey::from_secret(&[number; 32]).unwrap()
}

fn rate(units: u128) -> Rate {
    Rate::new(units).unwrap()
}

/// The set of revision `sequence`, by a number.
fn summary(sequence: u32, root: u8) -> SetSummary {
    SetSummary {
        agreement: Some(AgreementId(4)),
        sequence,
        set_root: SetRoot([root; 32]),
        size: 100,
        rate_per_epoch: rate(9),
    }
}

fn revision(set: &SetSummary) -> Revision {
    Revision {
        agreement: set.agreement.unwrap(),
        sequence: set.sequence,
        set_root: set.set_root,
        size: set.size,
        rate_per_epoch: rate(5),
        from_epoch: Epoch(11),
        end_epoch: Epoch(40),
        retained_bytes: 0,
        retained_until: Epoch(0),
    }
}

fn signed_for(revision: Revision, domain: &Domain, client: u8, provider: u8) -> SignedTerms {
    let provider = key(provider).sign(&revision.digest(domain));
    SignedTerms { revision: revision.sign(domain, &key(client)), provider }
}

fn signed(set: &SetSummary) -> SignedTerms {
    signed_for(revision(set), &MARKET, HOT, OPERATOR)
}

/// The chain has the set 30 of revision 3.
fn chain() -> OnChain {
    OnChain {
        provider: key(PROVIDER).address(),
        sequence: 3,
        locked: Amount(700),
        earned: Amount(0),
        rate: rate(10),
        size: 1,
        next_rate: rate(6),
        last_root: SetRoot([30; 32]),
        last_size: 100,
        end: Epoch(36),
        ending: false,
        question: None,
        release: None,
    }
}

fn known(sequence: u32, root: u8) -> AgreedSet {
    AgreedSet { sequence, root: SetRoot([root; 32]), size: 100 }
}

fn judge(
    set: &SetSummary,
    signed: Option<&SignedTerms>,
    known: Option<AgreedSet>,
) -> Result<Terms, Disbelief> {
    let (chain, client) = (chain(), [key(WALLET).address(), key(HOT).address()]);
    let provider = [key(PROVIDER).address(), key(OPERATOR).address()];
    let facts = Facts {
        agreement: AgreementId(4),
        market: MARKET,
        client: &client,
        provider: &provider,
        chain: &chain,
        known,
    };
    believe(set, signed, &facts)
}

#[test]
fn a_set_that_both_signed_is_taken_with_its_signatures_whoever_of_a_side_signed() {
    let set = summary(4, 40);
    for (client, provider) in [(WALLET, PROVIDER), (WALLET, OPERATOR), (HOT, PROVIDER), (HOT, OPERATOR)] {
        let both = signed_for(revision(&set), &MARKET, client, provider);
        for known in [None, Some(known(2, 20)), Some(known(4, 40))] {
            let terms = judge(&set, Some(&both), known).unwrap();
            assert_eq!((terms.set(), terms.rate(), terms.end()), (known_of(&set), rate(5), Epoch(40)));
            let posted = terms.posted().unwrap();
            assert_eq!((posted.client, posted.provider), (both.revision.signature, both.provider));
        }
    }
}

fn known_of(set: &SetSummary) -> AgreedSet {
    AgreedSet { sequence: set.sequence, root: set.set_root, size: set.size }
}

#[test]
fn a_set_that_the_chain_has_needs_no_signature_and_brings_rate_and_end() {
    let set = summary(3, 30);
    let terms = judge(&set, None, None).unwrap();
    assert_eq!((terms.set(), terms.rate(), terms.end()), (known_of(&set), rate(6), Epoch(36)));
    assert_eq!(terms.posted(), None);
    assert!(matches!(judge(&set, Some(&signed(&set)), None), Ok(Terms::Revision { .. })));
    let by_a_former_operator = signed_for(revision(&set), &MARKET, HOT, STRANGER);
    assert!(matches!(judge(&set, Some(&by_a_former_operator), None), Ok(Terms::Posted { .. })));
    // What the chain has counts, whatever the provider signed beside it.
    assert!(judge(&set, None, Some(known(3, 31))).is_ok());
}

#[test]
fn a_set_that_this_home_did_not_sign_is_refused() {
    use Disbelief as D;
    let set = summary(4, 40);
    let with = |change: &dyn Fn(&mut Revision)| {
        let mut terms = revision(&set);
        change(&mut terms);
        Some(signed_for(terms, &MARKET, HOT, PROVIDER))
    };
    let by = |client, provider| Some(signed_for(revision(&set), &MARKET, client, provider));
    let cases = [
        (None, D::Unsigned(4)),
        (by(STRANGER, PROVIDER), D::NotOurs),
        (by(PROVIDER, PROVIDER), D::NotOurs),
        (Some(signed_for(revision(&set), &OTHER_CHAIN, HOT, PROVIDER)), D::NotOurs),
        (by(HOT, STRANGER), D::NotTheirs),
        (by(HOT, HOT), D::NotTheirs),
        (with(&|terms| terms.set_root = SetRoot([41; 32])), D::OtherTerms),
        (with(&|terms| terms.size -= 1), D::OtherTerms),
        (with(&|terms| terms.sequence = 5), D::OtherTerms),
        (with(&|terms| terms.agreement.0 = 5), D::OtherTerms),
    ];
    for (signed, disbelief) in cases {
        assert_eq!(judge(&set, signed.as_ref(), None).unwrap_err(), disbelief, "{signed:?}");
    }
    let foreign = SetSummary { agreement: Some(AgreementId(5)), ..set };
    assert_eq!(judge(&foreign, Some(&signed(&foreign)), None), Err(D::OtherAgreement));
    let before_it_opened = SetSummary { agreement: None, ..set };
    assert_eq!(judge(&before_it_opened, Some(&signed(&set)), None), Err(D::OtherAgreement));
}

#[test]
fn what_is_older_than_the_chain_or_the_books_is_refused_though_this_home_signed_it() {
    let (older, old, new) = (summary(2, 20), summary(4, 40), summary(5, 50));
    assert_eq!(judge(&older, Some(&signed(&older)), None), Err(Disbelief::Old { listed: 2, newest: 3 }));
    let told = judge(&old, Some(&signed(&old)), Some(known(5, 50)));
    assert_eq!(told, Err(Disbelief::Old { listed: 4, newest: 5 }));
    let posted = summary(3, 30);
    assert_eq!(judge(&posted, None, Some(known(5, 50))), Err(Disbelief::Old { listed: 3, newest: 5 }));
    assert!(judge(&new, Some(&signed(&new)), Some(known(5, 50))).is_ok());
    // A question that was refused, or one of two that were signed.
    let beside = summary(3, 31);
    assert_eq!(judge(&beside, Some(&signed(&beside)), None), Err(Disbelief::NotOnChain(3)));
    let larger = SetSummary { size: 101, ..posted };
    assert_eq!(judge(&larger, Some(&signed(&larger)), None), Err(Disbelief::NotOnChain(3)));
    assert_eq!(judge(&new, Some(&signed(&new)), Some(known(5, 51))), Err(Disbelief::TwoSets(5)));
}

fn leaf(number: u64, length: u64) -> SetLeaf {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_be_bytes());
    SetLeaf { fragment: FragmentId(id), length, retain_until: Epoch(0) }
}

fn of_size(size: u64) -> SetSummary {
    SetSummary { size, ..summary(4, 40) }
}

fn page(set: SetSummary, leaves: Vec<SetLeaf>) -> SetPage {
    SetPage { set, signed: None, leaves }
}

#[test]
fn a_list_is_whole_when_it_has_the_bytes_of_its_set() {
    let set = of_size(60);
    let mut listing = Listing::of(set);
    assert_eq!(listing.take(&page(set, vec![leaf(1, 10), leaf(2, 20)])), Ok(Listed::More));
    assert_eq!(listing.last, Some(leaf(2, 20).fragment));
    assert_eq!(listing.take(&page(of_size(61), vec![leaf(3, 30)])), Ok(Listed::Changed));
    assert_eq!(listing.take(&page(set, vec![leaf(3, 30)])), Ok(Listed::All));
    let empty = of_size(0);
    assert_eq!(Listing::of(empty).take(&page(empty, vec![])), Ok(Listed::All));
}

#[test]
fn a_list_in_another_order_with_more_or_with_less_is_refused() {
    let set = of_size(60);
    let lists: [(&[SetLeaf], Disbelief); 6] = [
        (&[leaf(2, 20), leaf(1, 10)], Disbelief::Order),
        (&[leaf(1, 10), leaf(1, 10)], Disbelief::Order),
        (&[leaf(1, 61)], Disbelief::TooLarge),
        (&[leaf(1, 60), leaf(2, 1)], Disbelief::TooLarge),
        (&[leaf(1, 1), leaf(2, u64::MAX)], Disbelief::TooLarge),
        (&[], Disbelief::TooSmall),
    ];
    for (leaves, disbelief) in lists {
        assert_eq!(Listing::of(set).take(&page(set, leaves.to_vec())), Err(disbelief), "{leaves:?}");
    }
    let mut listing = Listing::of(set);
    listing.take(&page(set, vec![leaf(5, 10)])).unwrap();
    for again in [5, 4] {
        let mut listing = Listing { set, ..listing };
        assert_eq!(listing.take(&page(set, vec![leaf(again, 10)])), Err(Disbelief::Order), "across pages");
    }
    assert_eq!(listing.take(&page(set, vec![])), Err(Disbelief::TooSmall));
}

#[test]
fn a_list_ends_however_many_fragments_and_pages_it_has() {
    let set = of_size(u64::MAX);
    let end = |per_page: u64| {
        let mut listing = Listing::of(set);
        (0u64..).find_map(|nth| {
            let leaves = (nth * per_page..(nth + 1) * per_page).map(|number| leaf(number, 1)).collect();
            listing.take(&page(set, leaves)).err().map(|error| (error, nth))
        })
    };
    let full = u64::try_from(SET_PAGE_MAX).unwrap();
    let pages = u64::try_from(SET_FRAGMENTS_MAX / SET_PAGE_MAX).unwrap();
    assert_eq!(end(full), Some((Disbelief::TooMany, pages)));
    assert_eq!(end(1), Some((Disbelief::Endless, u64::try_from(PAGES_MAX).unwrap())));
}

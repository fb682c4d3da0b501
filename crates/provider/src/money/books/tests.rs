use super::{Accounts, Books, BooksError, Fate, PendingProposal, Quoted, Terms};
use crate::money::gas::{Wei, Work};
use seedbank_agreement::credit::{Account, Network};
use seedbank_agreement::fragment_set::SetChange;
use seedbank_agreement::lane::Cover;
use seedbank_agreement::{
    Address, AgreementId, Amount, Domain, Epoch, Fragment, Lane, Nonce, Proposal, Rate, Revision, SetRoot,
    Typed, Voucher, WalletKey,
};
use seedbank_formats::{FragmentId, PublicKey, Timestamp};
use seedbank_protocol::payment::{ProposalRequest, SetLeaf, TransactionHash};

const DOMAIN: Domain = Domain { chain_id: 31_337, contract: Address([9; 20]) };
const ID: AgreementId = AgreementId(4);

fn wallet() -> WalletKey {
    WalletKey::from_secret(&[4; 32]).unwrap()
}

fn leaf(byte: u8) -> Fragment {
    Fragment { id: FragmentId([byte; 32]), length: u64::from(byte), retain_until: Epoch(0) }
}

fn offer(fragments: &[u8]) -> PendingProposal {
    let message = Proposal {
        client: wallet().address(),
        provider: Address([2; 20]),
        set_root: SetRoot([0; 32]),
        size: 7,
        rate_per_epoch: Rate::MAX,
        end_epoch: Epoch(40),
        escrow: Amount(u128::MAX),
        retained_bytes: 0,
        retained_until: Epoch(0),
        accept_by: Epoch(2),
        nonce: Nonce([8; 32]),
    };
    let added = fragments.iter().map(|byte| {
        let leaf = leaf(*byte);
        SetLeaf { fragment: leaf.id, length: leaf.length, retain_until: leaf.retain_until }
    });
    PendingProposal {
        digest: message.digest(&DOMAIN),
        key: PublicKey([1; 32]),
        request: ProposalRequest {
            proposal: message.sign(&DOMAIN, &wallet()),
            binding: seedbank_formats::Signature([5; 64]),
            added: added.collect(),
        },
        rent: Amount(3),
    }
}

fn opened(dir: &std::path::Path) -> Books {
    let mut books = Books::open(dir).unwrap();
    let offer = offer(&[1, 2, 3]);
    books.add_proposal(&offer, Timestamp(5)).unwrap();
    assert_eq!(books.proposals().unwrap(), std::slice::from_ref(&offer));
    books.open_agreement(&offer, ID, Epoch(3), TransactionHash([7; 32])).unwrap();
    books
}

/// Revision `sequence`, which puts some fragments and drops others.
fn revise(books: &mut Books, base: u32, sequence: u32, put: &[u8], dropped: &[u8]) -> bool {
    let message = Revision {
        agreement: ID,
        sequence,
        set_root: SetRoot([u8::try_from(sequence).unwrap(); 32]),
        size: u64::from(sequence),
        rate_per_epoch: Rate::new(u128::from(sequence)).unwrap(),
        from_epoch: Epoch(sequence + 10),
        end_epoch: Epoch(40),
        retained_bytes: 0,
        retained_until: Epoch(0),
    };
    let terms = Terms {
        sequence,
        set_root: message.set_root,
        size: message.size,
        rate: message.rate_per_epoch,
        from: message.from_epoch,
        end: message.end_epoch,
        retained_bytes: 0,
        retained_until: Epoch(0),
    };
    let change = SetChange {
        put: put.iter().map(|byte| (leaf(*byte).id, leaf(*byte))).collect(),
        dropped: dropped.iter().map(|byte| leaf(*byte).id).collect(),
    };
    let signed = message.sign(&DOMAIN, &wallet());
    let signature = signed.signature;
    books.add_revision(ID, base, &terms, &change, (&signed, &signature)).unwrap()
}

fn held(books: &Books, sequence: u32) -> Vec<u64> {
    books.leaves(ID, sequence).unwrap().iter().map(|leaf| leaf.length).collect()
}

#[test]
fn every_set_that_may_still_be_proven_is_kept_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut books = opened(dir.path());
    assert!(revise(&mut books, 0, 1, &[4], &[2]));
    assert!(!revise(&mut books, 0, 2, &[9], &[]), "it starts from a set that is no more");
    assert!(revise(&mut books, 1, 2, &[2], &[1]));
    drop(books);
    let mut books = Books::open(dir.path()).unwrap();
    assert_eq!(
        [held(&books, 0), held(&books, 1), held(&books, 2)],
        [vec![1, 2, 3], vec![1, 3, 4], vec![2, 3, 4]]
    );
    assert_eq!(books.agreement_of(wallet().address()).unwrap().unwrap().sequence, 2);
    let root = SetRoot([1; 32]);
    assert_eq!(books.terms_with(ID, (&root, 1), 2).unwrap().unwrap().sequence, 1);
    assert_eq!(books.terms_with(ID, (&root, 1), 0).unwrap(), None);

    // The chain has begun with the first revision: what only the proposal had can go.
    assert!(books.forget_leaves(ID, Some(1)).unwrap().is_empty(), "fragment 2 came back");
    assert_eq!(books.forget_leaves(ID, Some(2)).unwrap(), [leaf(1).id]);
    assert!(!books.is_promised(&leaf(1).id).unwrap() && books.is_promised(&leaf(2).id).unwrap());
    books.close_agreement(ID, Epoch(20)).unwrap();
    assert_eq!(books.forget_leaves(ID, None).unwrap().len(), 3);
    assert_eq!(books.agreement_of(wallet().address()).unwrap(), None);
}

#[test]
fn revisions_wait_until_they_are_posted_and_pay_from_their_epoch_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut books = opened(dir.path());
    revise(&mut books, 0, 1, &[4], &[]);
    revise(&mut books, 1, 2, &[5], &[]);
    assert!(books.unposted(Epoch(11)).unwrap().is_empty(), "a newer one took its place");
    let waiting = books.unposted(Epoch(12)).unwrap();
    assert_eq!((waiting.len(), waiting[0].0.message.sequence), (1, 2));
    assert_eq!(books.terms_in(ID, Epoch(12)).unwrap().unwrap().sequence, 0, "unposted is unpaid");
    books.mark_posted(ID, 2, Some(&TransactionHash([1; 32]))).unwrap();
    assert!(books.unposted(Epoch(12)).unwrap().is_empty());
    assert_eq!(books.terms_in(ID, Epoch(11)).unwrap().unwrap().sequence, 0);
    assert_eq!(books.terms_in(ID, Epoch(12)).unwrap().unwrap().sequence, 2);
    books.end_at(ID, 2, Epoch(15)).unwrap();
    assert_eq!(books.terms_in(ID, Epoch(15)).unwrap(), None);
    assert_eq!(books.terms_in(ID, Epoch(2)).unwrap(), None, "before it began");
}

#[test]
fn offer_is_remembered_with_what_became_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut books = Books::open(dir.path()).unwrap();
    let offer = offer(&[1]);
    assert_eq!(books.proposal_outcome(&offer.digest).unwrap(), None);
    books.add_proposal(&offer, Timestamp(5)).unwrap();
    assert_eq!(books.proposal_outcome(&offer.digest).unwrap(), Some(None));
    books.refuse_proposal(&offer.digest, "Escrow").unwrap();
    assert_eq!(books.proposal_outcome(&offer.digest).unwrap(), Some(Some("Escrow".to_owned())));
    assert!(books.proposals().unwrap().is_empty());
    books.add_proposal(&offer, Timestamp(6)).unwrap();
    books.open_agreement(&offer, ID, Epoch(3), TransactionHash([7; 32])).unwrap();
    assert_eq!(books.agreement_of_proposal(&offer.digest).unwrap().unwrap().id, ID);
}

#[test]
fn offers_wait_in_the_order_in_which_they_came() {
    let dir = tempfile::tempdir().unwrap();
    let books = Books::open(dir.path()).unwrap();
    for (byte, received) in [(1, 9), (2, 7), (3, 8)] {
        let mut offer = offer(&[byte]);
        offer.request.proposal.message.client = Address([byte; 20]);
        (offer.digest, offer.key) = ([byte; 32], PublicKey([byte % 2; 32]));
        books.add_proposal(&offer, Timestamp(received)).unwrap();
    }
    let bytes = |offers: Vec<PendingProposal>| offers.iter().map(|offer| offer.digest[0]).collect::<Vec<_>>();
    assert_eq!(bytes(books.proposals().unwrap()), [2, 3, 1]);
    assert_eq!(bytes(books.first_proposals(2).unwrap()), [2, 3], "the others are there in the next round");
    assert_eq!(bytes(books.proposals_of(&PublicKey([1; 32]), &[3; 32]).unwrap()), [1]);
}

#[test]
fn ledger_keeps_what_was_earned_and_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut books = opened(dir.path());
    books.note_trouble(Epoch(3), "the disk").unwrap();
    books.note_proof(Epoch(3), &TransactionHash([1; 32])).unwrap();
    books.settle(Epoch(3), Fate::Earned, Amount(0), &[(ID, Amount(u128::MAX))]).unwrap();
    books.note_trouble(Epoch(4), "fragment gone").unwrap();
    books.settle(Epoch(4), Fate::Missed, Amount(9), &[(ID, Amount(5))]).unwrap();
    books.note_trouble(Epoch(4), "too late to matter").unwrap();
    let epochs = books.epochs().unwrap();
    assert_eq!((epochs[0].fate, epochs[0].proof), (Some(Fate::Earned), Some(TransactionHash([1; 32]))));
    assert_eq!((epochs[1].trouble.as_deref(), epochs[1].slashed), (Some("fragment gone"), Amount(9)));
    let ledger = books.ledger().unwrap();
    assert_eq!((ledger[0].amount, ledger[1].fate), (Amount(u128::MAX), Fate::Missed));
}

#[test]
fn payment_is_kept_with_the_account_that_it_pays_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut books = Books::open(dir.path()).unwrap();
    let (payer, signer) = (Address([1; 20]), wallet().address());
    let cover = Cover { deposit: Amount(100), cap: Amount(100), ..Cover::default() };
    let mut lane = Lane::new(payer, Address([2; 20]), signer, cover);
    let voucher = Voucher { payer, payee: Address([2; 20]), signer, cumulative: Amount(30) };
    lane.accept(voucher.sign(&DOMAIN, &wallet()), &DOMAIN).unwrap();
    let key = PublicKey([6; 32]);
    let account = Account {
        network: Network::V6([1, 2, 3, 4, 5, 6]),
        owed: Amount(0),
        ahead: Amount(u128::MAX),
        since: Timestamp(7),
    };
    books
        .keep_payment((payer, signer), &lane, Timestamp(7), &Accounts::from([(key, Some(account))]), None)
        .unwrap();
    drop(books);
    let mut books = Books::look(dir.path()).unwrap().unwrap();
    assert_eq!(books.lane(payer, signer).unwrap(), Some((lane, Timestamp(7))));
    assert_eq!(books.accounts().unwrap(), [(key, account)]);
    books.keep_accounts(&Accounts::from([(key, None)]), Amount(0)).unwrap();
    assert!(books.accounts().unwrap().is_empty());
}

#[test]
fn books_of_another_wallet_and_of_a_newer_program_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Books::look(dir.path()).unwrap().is_none());
    let books = Books::open(dir.path()).unwrap();
    books.identify(&[("wallet", "a".to_owned())]).unwrap();
    books.identify(&[("wallet", "a".to_owned())]).unwrap();
    let other = books.identify(&[("wallet", "b".to_owned())]);
    assert!(matches!(other, Err(BooksError::Other { name: "wallet", .. })));
    books.connection.pragma_update(None, "user_version", 3).unwrap();
    drop(books);
    assert!(matches!(Books::open(dir.path()), Err(BooksError::Schema { found: 3, .. })));
    assert!(matches!(Books::look(dir.path()), Err(BooksError::Schema { found: 3, .. })));
}

#[test]
fn quotes_are_kept_until_they_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut books = Books::open(dir.path()).unwrap();
    let quote =
        |expires| Quoted { rent: Amount(1), egress: Amount(2), epochs_min: 3, expires: Timestamp(expires) };
    books.add_quote(&quote(10), Timestamp(0)).unwrap();
    books.add_quote(&quote(20), Timestamp(0)).unwrap();
    assert_eq!(books.quotes(Timestamp(10)).unwrap(), [quote(10), quote(20)]);
    assert_eq!(books.quotes(Timestamp(11)).unwrap(), [quote(20)]);
}

#[test]
fn books_from_before_costs_were_kept_get_their_table_and_keep_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let books = opened(dir.path());
    books.connection.execute_batch("DROP TABLE costs").unwrap();
    books.connection.pragma_update(None, "user_version", 1).unwrap();
    drop(books);
    let mut books = Books::open(dir.path()).unwrap();
    assert_eq!(books.agreements().unwrap().len(), 1);
    let huge = Wei(u128::MAX / 2);
    books.add_cost(Epoch(3), Work::Prove, 10, huge).unwrap();
    books.add_cost(Epoch(3), Work::Prove, 5, Wei(7)).unwrap();
    books.add_cost(Epoch(4), Work::Prove, 1, Wei(1)).unwrap();
    books.add_cost(Epoch(4), Work::Advance, 1, Wei(2)).unwrap();
    books.add_cost(Epoch(4), Work::Open, 1, huge).unwrap();
    let costs = Books::look(dir.path()).unwrap().unwrap().costs().unwrap();
    let shown: Vec<_> = costs.iter().map(|row| (row.work.as_str(), row.transactions, row.gas)).collect();
    assert_eq!(shown, [("advance", 1, 1), ("open", 1, 1), ("prove", 3, 16)]);
    assert_eq!(costs[2].wei, Wei(huge.0 + 8));
    assert_eq!(books.dearest_epoch(Epoch(3)).unwrap(), Wei(huge.0 + 7));
    assert_eq!(books.dearest_epoch(Epoch(4)).unwrap(), Wei(3), "what can wait does not count");
}

#[test]
fn agreement_that_the_chain_lost_is_an_offer_again_and_comes_back_as_it_was_or_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut books = opened(dir.path());
    let offer = offer(&[1, 2, 3]);
    assert!(books.proposals().unwrap().is_empty());
    assert!(books.offer_again(ID).unwrap());
    assert_eq!(books.proposals().unwrap(), std::slice::from_ref(&offer));
    assert!(books.offered_again().unwrap().contains(&ID));
    books.open_agreement(&offer, ID, Epoch(3), TransactionHash([8; 32])).unwrap();
    let row = books.agreement_of_proposal(&offer.digest).unwrap().unwrap();
    assert_eq!((row.id, row.opened), (ID, TransactionHash([8; 32])));
    // Another offer was faster: the number is another one.
    assert!(books.offer_again(ID).unwrap());
    let other = AgreementId(ID.0 + 1);
    books.open_agreement(&offer, other, Epoch(4), TransactionHash([9; 32])).unwrap();
    assert_eq!(books.agreements().unwrap().len(), 1);
    assert_eq!(books.leaves(other, 0).unwrap().len(), 3);
    assert!(books.leaves(ID, 0).unwrap().is_empty());
    // Once it has begun the chain does not lose it.
    books.forget_offers(Epoch(4)).unwrap();
    assert!(books.offer_again(other).unwrap());
    books.open_agreement(&offer, other, Epoch(4), TransactionHash([9; 32])).unwrap();
    books.forget_offers(Epoch(5)).unwrap();
    assert!(!books.offer_again(other).unwrap());
}

#[test]
fn number_that_is_anothers_after_a_reorganisation_is_taken_from_the_young_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut books = opened(dir.path());
    let (first, second) = (offer(&[1, 2, 3]), {
        let mut other = offer(&[4]);
        other.request.proposal.message.client = Address([3; 20]);
        PendingProposal { digest: [3; 32], key: PublicKey([2; 32]), ..other }
    });
    let next = AgreementId(ID.0 + 1);
    books.add_proposal(&second, Timestamp(6)).unwrap();
    books.open_agreement(&second, next, Epoch(3), TransactionHash([7; 32])).unwrap();
    // The chain has both again, each under the other's number.
    books.open_agreement(&first, next, Epoch(3), TransactionHash([8; 32])).unwrap();
    assert_eq!(books.proposals().unwrap(), std::slice::from_ref(&second));
    books.open_agreement(&second, ID, Epoch(3), TransactionHash([8; 32])).unwrap();
    let numbers = books.agreements().unwrap().into_iter().map(|row| (row.id, row.key)).collect::<Vec<_>>();
    assert_eq!(numbers, [(ID, second.key), (next, first.key)]);
    assert_eq!((held(&books, 0), books.leaves(next, 0).unwrap().len()), (vec![4], 3));

    books.forget_offers(Epoch(4)).unwrap();
    let third = PendingProposal { digest: [4; 32], ..second };
    assert!(books.open_agreement(&third, next, Epoch(4), TransactionHash([9; 32])).is_err());
    assert_eq!(books.leaves(next, 0).unwrap().len(), 3, "it is kept as it was");
}

#[test]
fn what_a_killed_daemon_may_have_served_is_nobodys_debt_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut books = Books::open(dir.path()).unwrap();
    assert_eq!(books.charge_what_was_lost(Timestamp(1)).unwrap(), Amount(0));
    books.keep_accounts(&Accounts::new(), Amount(30)).unwrap();
    assert_eq!(books.charge_what_was_lost(Timestamp(1)).unwrap(), Amount(30));
    assert_eq!(books.charge_what_was_lost(Timestamp(1)).unwrap(), Amount(0));
    books.keep_accounts(&Accounts::new(), Amount(12)).unwrap();
    assert_eq!(books.charge_what_was_lost(Timestamp(2)).unwrap(), Amount(12));
    let accounts = books.accounts().unwrap();
    assert_eq!((accounts.len(), accounts[0].1.owed), (1, Amount(42)));
}

#[test]
fn what_sets_dropped_is_counted_until_it_is_let_go_of_and_revisions_nobody_posted_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut books = opened(dir.path());
    let key = PublicKey([1; 32]);
    let dropped = |books: &Books| books.dropped_bytes(&key).unwrap() / 4_096;
    assert_eq!(dropped(&books), 0);
    assert!(revise(&mut books, 0, 1, &[4], &[2, 3]));
    assert!(revise(&mut books, 1, 2, &[2], &[]));
    assert_eq!(dropped(&books), 1, "one of them came back");
    // Both are for later epochs: 11 and 12.
    assert_eq!(books.terms_for(ID, Epoch(10)).unwrap(), 2);
    assert_eq!(books.dearer_unposted(Epoch(10), None).unwrap(), Amount(0), "cheaper than what was opened");
    assert!(revise(&mut books, 2, 3, &[5], &[]));
    books.prune_terms(ID, Epoch(12)).unwrap();
    assert!(books.terms(ID, 1).unwrap().is_some(), "somebody may have posted it");
    books.prune_terms(ID, Epoch(13)).unwrap();
    assert!(books.terms(ID, 1).unwrap().is_none() && books.terms(ID, 2).unwrap().is_some());
    books.forget_leaves(ID, Some(3)).unwrap();
    assert_eq!(dropped(&books), 0);

    // Closed by mistake it comes back with its set; closed for good the set is let go of.
    books.close_agreement(ID, Epoch(20)).unwrap();
    assert_eq!(dropped(&books), 4);
    assert!(books.closed_with_leaves(Epoch(20)).unwrap().is_empty());
    assert_eq!(books.closed_with_leaves(Epoch(21)).unwrap(), [ID]);
    books.reopen(ID).unwrap();
    assert_eq!((held(&books, 3).len(), dropped(&books)), (4, 0));
}

#[test]
fn refused_offers_and_lanes_that_brought_nothing_are_forgotten_after_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let mut books = Books::open(dir.path()).unwrap();
    let offer = offer(&[1]);
    books.add_proposal(&offer, Timestamp(5)).unwrap();
    books.forget_refused(Timestamp(100)).unwrap();
    assert_eq!(books.offers_under_way().unwrap(), 1);
    books.refuse_proposal(&offer.digest, "no").unwrap();
    assert_eq!(books.offers_under_way().unwrap(), 0);
    books.forget_refused(Timestamp(5)).unwrap();
    assert!(books.proposal_outcome(&offer.digest).unwrap().is_some());
    books.forget_refused(Timestamp(6)).unwrap();
    assert!(books.proposal_outcome(&offer.digest).unwrap().is_none());

    let own = wallet().address();
    let lane = Lane::new(own, Address([2; 20]), own, Cover::default());
    books.keep_lane((own, own), &lane, Timestamp(7)).unwrap();
    books.forget_lanes(&[(own, own)], Timestamp(7)).unwrap();
    assert_eq!(books.lanes().unwrap().len(), 1, "it had a voucher in the meantime");
    books.forget_lanes(&[(own, own)], Timestamp(8)).unwrap();
    assert!(books.lanes().unwrap().is_empty());
}

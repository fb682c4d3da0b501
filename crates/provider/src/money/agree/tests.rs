use super::{NewTerms, OFFERS_MAX, REVISIONS_MAX, Stop, fragment, terms_of};
use crate::money::Money;
use crate::money::books::PendingProposal;
use crate::money::testing::{SMALL, opened, put};
use rusqlite::{Connection, params};
use seedbank_agreement::fragment_set::SetChange;
use seedbank_agreement::{
    Address, AgreementId, Amount, Domain, Epoch, FragmentSet, Nonce, Proposal, Rate, Revision, Signature,
    Typed, WalletKey,
};
use seedbank_formats::{FragmentId, PublicKey};
use seedbank_protocol::payment::{ProposalRequest, RefusalReason, RevisionRequest, SetLeaf, TransactionHash};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

const DOMAIN: Domain = Domain { chain_id: 199, contract: Address([5; 20]) };
const KEY: PublicKey = PublicKey([2; 32]);
const ID: AgreementId = AgreementId(4);
const EPOCH: Epoch = Epoch(10);
const LENGTH: u64 = 100;

/// Has a client store a fragment of its own.
fn leaf(money: &Money, client: PublicKey, byte: u8) -> SetLeaf {
    let id = put(&money.store, client, &[byte; 100]);
    SetLeaf { fragment: id, length: LENGTH, retain_until: Epoch(0) }
}

fn set(leaves: &[SetLeaf]) -> FragmentSet {
    FragmentSet::new(leaves.iter().map(fragment)).unwrap()
}

/// As messages have them.
fn sorted(leaves: &[SetLeaf]) -> Vec<SetLeaf> {
    let mut leaves = leaves.to_vec();
    leaves.sort_unstable_by_key(|leaf| leaf.fragment);
    leaves
}

/// What a key offers for a wallet.
fn offer(money: &Money, key: PublicKey, wallet: u8, leaves: &[SetLeaf]) -> PendingProposal {
    let wallet = WalletKey::from_secret(&[wallet; 32]).unwrap();
    let set = set(leaves);
    let message = Proposal {
        client: wallet.address(),
        provider: money.address(),
        set_root: set.root(),
        size: set.total(),
        rate_per_epoch: Rate::new(7).unwrap(),
        end_epoch: Epoch(40),
        escrow: Amount(210),
        retained_bytes: 0,
        retained_until: Epoch(0),
        accept_by: EPOCH,
        nonce: Nonce([8; 32]),
    };
    PendingProposal {
        digest: message.digest(&DOMAIN),
        key,
        request: ProposalRequest {
            proposal: message.sign(&DOMAIN, &wallet),
            binding: seedbank_formats::Signature([5; 64]),
            added: sorted(leaves),
        },
        rent: Amount(3),
    }
}

/// New terms of an agreement about `before`, for its leaves and some more.
fn more(before: &[SetLeaf], fresh: &[SetLeaf]) -> NewTerms {
    let wallet = WalletKey::from_secret(&[1; 32]).unwrap();
    let (old, after) = (set(before), set(&[before, fresh].concat()));
    let message = |sequence, set: &FragmentSet| Revision {
        agreement: ID,
        sequence,
        set_root: set.root(),
        size: set.total(),
        rate_per_epoch: Rate::new(7).unwrap(),
        from_epoch: Epoch(EPOCH.0 + 1),
        end_epoch: Epoch(40),
        retained_bytes: 0,
        retained_until: Epoch(0),
    };
    NewTerms {
        id: ID,
        client: wallet.address(),
        rent: Amount(3),
        last: terms_of(&message(0, &old)),
        change: SetChange {
            put: fresh.iter().map(|leaf| (leaf.fragment, fragment(leaf))).collect(),
            dropped: BTreeSet::new(),
        },
        request: RevisionRequest {
            base_sequence: 0,
            added: sorted(fresh),
            removed: Vec::new(),
            revision: message(1, &after).sign(&DOMAIN, &wallet),
        },
        before: Arc::new(old),
        after,
    }
}

fn keep(money: &Money, key: PublicKey, new: &NewTerms) -> Result<Signature, Stop> {
    money.keep_terms(&key, new, new.request.revision.signature, EPOCH)
}

/// The fragments that the provider keeps for itself.
fn pinned(money: &Money) -> BTreeSet<FragmentId> {
    let page = money.store.claims(&money.identity.public(), None, 100);
    page.claims.into_iter().map(|claim| claim.fragment).collect()
}

fn ids(leaves: &[SetLeaf]) -> BTreeSet<FragmentId> {
    leaves.iter().map(|leaf| leaf.fragment).collect()
}

/// The books, as another program would write to them.
fn books(dir: &Path) -> Connection {
    Connection::open(dir.join("money.db")).unwrap()
}

/// Has nothing more fit into a table.
fn fill(dir: &Path, table: &str) {
    let full = format!("CREATE TRIGGER full BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'full'); END");
    books(dir).execute_batch(&full).unwrap();
}

fn reason<T>(stopped: Result<T, Stop>) -> RefusalReason {
    match stopped {
        Err(Stop::Refused(refusal)) => refusal.reason,
        Err(Stop::Problem(problem)) => panic!("{problem:?}"),
        Ok(_) => panic!("it is taken"),
    }
}

#[test]
fn offer_that_the_market_refused_is_let_go_of_but_for_what_others_need() {
    let dir = tempfile::tempdir().unwrap();
    let money = opened(dir.path());
    let leaves = [1, 2, 3].map(|byte| leaf(&money, KEY, byte));
    let offers =
        [(1, 0..2), (2, 1..3), (3, 2..3)].map(|(wallet, at)| offer(&money, KEY, wallet, &leaves[at]));
    assert!(offers.iter().all(|offer| money.take_offer(offer).is_ok()));
    assert_eq!(pinned(&money), ids(&leaves));
    // As it is when its client has withdrawn the money meanwhile.
    money.refuse_offer(&offers[0], "Escrow").unwrap();
    assert_eq!(pinned(&money), ids(&leaves[1..]), "another offer has the second fragment");
    money.books().open_agreement(&offers[1], ID, EPOCH, TransactionHash([7; 32])).unwrap();
    money.refuse_offer(&offers[2], "Escrow").unwrap();
    assert_eq!(pinned(&money), ids(&leaves[1..]), "a set has the third");
}

#[test]
fn offer_and_terms_that_fail_halfway_are_let_go_of() {
    let dir = tempfile::tempdir().unwrap();
    let money = opened(dir.path());
    let leaves = [1, 2].map(|byte| leaf(&money, KEY, byte));
    let first = offer(&money, KEY, 1, &leaves[..1]);
    fill(dir.path(), "proposals");
    assert!(money.take_offer(&first).is_err());
    assert!(pinned(&money).is_empty());
    books(dir.path()).execute_batch("DROP TRIGGER full").unwrap();
    assert!(money.take_offer(&first).is_ok());
    money.books().open_agreement(&first, ID, EPOCH, TransactionHash([7; 32])).unwrap();

    let new = more(&leaves[..1], &leaves[1..]);
    fill(dir.path(), "terms");
    assert!(keep(&money, KEY, &new).is_err());
    assert_eq!(pinned(&money), ids(&leaves[..1]), "what it had is in the set still");
    books(dir.path()).execute_batch("DROP TRIGGER full").unwrap();
    assert!(keep(&money, KEY, &new).is_ok());
    assert_eq!(pinned(&money), ids(&leaves));
}

#[test]
fn one_clients_offers_and_one_keys_are_bounded_and_so_are_all() {
    let dir = tempfile::tempdir().unwrap();
    let money = opened(dir.path());
    let leaves = [1, 2].map(|byte| leaf(&money, SMALL, byte));
    let first = offer(&money, SMALL, 1, &leaves);
    assert!(money.take_offer(&first).is_ok());
    let again = offer(&money, SMALL, 1, &leaves[..1]);
    assert_eq!(reason(money.take_offer(&again)), RefusalReason::Exists, "one of a client at a time");
    // A key can sign for many wallets, and its quota has room for two fragments.
    let beside = offer(&money, SMALL, 2, &leaves[..1]);
    assert_eq!(reason(money.take_offer(&beside)), RefusalReason::Other);
    money.refuse_offer(&first, "Escrow").unwrap();
    assert!(money.take_offer(&beside).is_ok());

    let other = leaf(&money, KEY, 3);
    let all_others = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1)
                      INSERT INTO proposals SELECT CAST(n AS BLOB), CAST(n AS BLOB), x'00', x'00', '0', 0, NULL FROM numbers";
    books(dir.path()).execute(all_others, [OFFERS_MAX - 1]).unwrap();
    let one_more = offer(&money, KEY, 3, &[other]);
    assert_eq!(reason(money.take_offer(&one_more)), RefusalReason::Other);
    books(dir.path()).execute("DELETE FROM proposals WHERE digest = CAST(1 AS BLOB)", []).unwrap();
    assert!(money.take_offer(&one_more).is_ok());
}

#[test]
fn revisions_of_one_agreement_are_bounded_in_number_and_in_what_its_key_may_store() {
    let dir = tempfile::tempdir().unwrap();
    let money = opened(dir.path());
    let leaves = [1, 2].map(|byte| leaf(&money, SMALL, byte));
    let first = offer(&money, SMALL, 1, &leaves[..1]);
    assert!(money.take_offer(&first).is_ok());
    money.books().open_agreement(&first, ID, EPOCH, TransactionHash([7; 32])).unwrap();
    let new = more(&leaves[..1], &leaves[1..]);

    // Nothing more is taken so soon after the market refused what this client had signed.
    money.note_refused(ID, EPOCH);
    assert_eq!(reason(keep(&money, SMALL, &new)), RefusalReason::Escrow);
    money.refused.lock().unwrap().clear();

    let too_much = more(&leaves[..1], &[leaves[1], leaf(&money, KEY, 3)]);
    assert_eq!(reason(keep(&money, SMALL, &too_much)), RefusalReason::Other);

    let all_others = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1)
                      INSERT INTO terms SELECT agreement, 100 + n, set_root, size, rate, ?2, end_epoch, 0, 0, NULL, NULL, NULL
                      FROM terms JOIN numbers WHERE sequence = 0";
    books(dir.path()).execute(all_others, params![REVISIONS_MAX, EPOCH.0 + 1]).unwrap();
    assert_eq!(reason(keep(&money, SMALL, &new)), RefusalReason::Epochs);
    books(dir.path()).execute("DELETE FROM terms WHERE sequence = 101", []).unwrap();
    assert!(keep(&money, SMALL, &new).is_ok());
}

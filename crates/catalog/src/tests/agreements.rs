//! What providers have signed for, what they are asked to sign, and what comes of a process that dies in between.

use super::{DATASET, Desk, HOUR, fragment, key, provider, segment};
use crate::error::CatalogError;
use crate::operations::Books;
use crate::records::{
    AdoptedTerms, AdoptionEnd, AgreementState, Holding, NewRevision, PendingRevision, Push, RevisionEnd,
    SetDraft, SetItem,
};
use seedbank_agreement::Epoch;
use seedbank_agreement::fragment_set::{Fragment, FragmentSet};
use seedbank_formats::{FragmentId, Timestamp};

/// Fragments of a test segment have so many bytes: half of 1000, rounded up to 64.
const LENGTH: u64 = 512;
const LIMIT: u32 = 5000;

fn item(segment: u64, index: u8) -> SetItem {
    SetItem { fragment: fragment(segment, index), length: LENGTH }
}

fn sorted(mut items: Vec<SetItem>) -> Vec<SetItem> {
    items.sort();
    items
}

fn root_of(items: &[SetItem]) -> [u8; 32] {
    let leaf = |item: &SetItem| Fragment { id: item.fragment, length: item.length, retain_until: Epoch(0) };
    FragmentSet::new(items.iter().map(leaf)).unwrap().root().0
}

fn revision(sequence: u32, draft: &SetDraft) -> NewRevision {
    NewRevision {
        provider: provider(0),
        sequence,
        added: draft.added.clone(),
        removed: draft.removed.clone(),
        request: format!("request {sequence}"),
    }
}

fn signed(sequence: u32) -> RevisionEnd {
    RevisionEnd::Signed { id: 7, signed: format!("terms {sequence}") }
}

impl Desk {
    /// Has provider 0 sign for what it holds; without a lease, and with sequence 0, by a proposal.
    fn sign(&self, sequence: u32, push: Option<&Push>) -> SetDraft {
        let draft = self.draft_set(provider(0), push.map(|push| push.lease), LIMIT).unwrap();
        self.begin_revision(revision(sequence, &draft)).unwrap();
        self.end_revision(provider(0), sequence, signed(sequence)).unwrap();
        draft
    }

    fn draft(&self) -> SetDraft {
        self.draft_set(provider(0), None, LIMIT).unwrap()
    }

    fn agreement(&self) -> crate::records::Agreement {
        self.agreements().unwrap().remove(0)
    }
}

#[test]
fn a_push_asks_for_its_own_fragments_and_upkeep_for_all() {
    let desk = Desk::new();
    let (old, mine) = (desk.push(), desk.push());
    desk.record(&old, old.first_segment.0);
    desk.record(&mine, mine.first_segment.0);
    let number = mine.first_segment.0;
    assert_eq!(desk.unagreed(Some(mine.lease)).unwrap(), [0, 1, 2, 3].map(provider));
    assert!(desk.unagreed(None).unwrap().is_empty(), "what is not committed is not anybody's");
    let draft = desk.draft_set(provider(0), Some(mine.lease), LIMIT).unwrap();
    assert_eq!(draft.added, [item(number, 0)]);
    assert_eq!((draft.root, draft.bytes, draft.fragments), (root_of(&draft.added), LENGTH, 1));
    desk.sign(0, Some(&mine));
    let left = desk.unagreed(Some(mine.lease)).unwrap();
    assert_eq!(left, [1, 2, 3].map(provider));
    assert_eq!(desk.lease_segments(mine.lease).unwrap(), [mine.first_segment]);

    desk.push_version(1);
    let committed = desk.draft();
    assert_eq!(committed.added.len(), 2, "the version's data and metadata");
    assert!(committed.removed.is_empty(), "a recorded segment's fragment stays until it is collected");
    assert_eq!(committed.bytes, 3 * LENGTH);
}

#[test]
fn what_is_given_up_goes_out_with_the_next_revision() {
    let desk = Desk::new();
    desk.push_version(1);
    let all = sorted(vec![item(0, 0), item(1, 0)]);
    assert_eq!(desk.sign(0, None).added, all);
    assert!(desk.unagreed(None).unwrap().iter().all(|other| *other != provider(0)));
    // Given to somebody else, and told to have been lost.
    let holding = Holding { provider: provider(5), until: Timestamp(3_000_000) };
    desk.set_holder(key(0, 0), Some(holding)).unwrap();
    let draft = desk.draft();
    assert_eq!((draft.added.len(), draft.removed.as_slice()), (0, &[fragment(0, 0)][..]));
    assert_eq!((draft.root, draft.bytes), (root_of(&[item(1, 0)]), LENGTH));
    assert!(desk.unagreed(None).unwrap().contains(&provider(0)));
    desk.sign(1, None);
    assert_eq!(desk.lose_fragments(provider(0), vec![fragment(1, 0), fragment(9, 9)]).unwrap(), 1);
    let empty = desk.sign(2, None);
    assert_eq!((empty.bytes, empty.fragments, empty.root), (0, 0, root_of(&[])));
    let agreement = desk.agreement();
    assert_eq!((agreement.sequence, agreement.fragments, agreement.bytes), (2, 0, 0));
    assert_eq!(agreement.signed.as_deref(), Some("terms 2"));
}

#[test]
fn what_was_asked_is_known_to_whoever_comes_after_a_crash() {
    let desk = Desk::new();
    desk.push_version(1);
    let draft = desk.draft();
    desk.begin_revision(revision(0, &draft)).unwrap();
    desk.begin_revision(revision(0, &draft)).unwrap();
    let pending = Some(PendingRevision { sequence: 0, request: "request 0".to_owned() });
    assert_eq!((desk.agreement().pending, desk.agreement().id), (pending, None));
    let stale = CatalogError::StaleRevision { provider: provider(0) };
    let other = NewRevision { request: "another".to_owned(), ..revision(0, &draft) };
    assert_eq!(desk.begin_revision(other).unwrap_err(), stale, "one question at a time");
    assert_eq!(desk.end_revision(provider(0), 1, signed(1)).unwrap_err(), stale);
    desk.end_revision(provider(0), 0, signed(0)).unwrap();
    desk.end_revision(provider(0), 0, signed(0)).unwrap();
    assert_eq!((desk.agreement().pending, desk.agreement().id), (None, Some(7)));
    assert_eq!(desk.agreement().fragments, 2);
    assert_eq!(desk.begin_revision(revision(0, &desk.draft())).unwrap_err(), stale, "it is an agreement now");
    assert_eq!(desk.begin_revision(revision(2, &desk.draft())).unwrap_err(), stale, "one after the other");
}

#[test]
fn what_is_refused_leaves_the_set_as_it_was() {
    let desk = Desk::new();
    desk.push_version(1);
    desk.sign(0, None);
    desk.push_version(2);
    desk.lose_fragments(provider(0), vec![fragment(0, 0)]).unwrap();
    let draft = desk.draft();
    assert_eq!((draft.added.len(), draft.removed.len()), (2, 1));
    desk.begin_revision(revision(1, &draft)).unwrap();
    desk.end_revision(provider(0), 1, RevisionEnd::Refused).unwrap();
    assert_eq!(desk.draft(), draft, "the same is asked again");
    assert_eq!((desk.agreement().sequence, desk.agreement().fragments), (0, 2));
    desk.sign(1, None);
    assert_eq!((desk.agreement().sequence, desk.agreement().signed.as_deref()), (1, Some("terms 1")));
    assert_eq!(desk.agreement().fragments, 3);
}

#[test]
fn large_sets_are_told_in_steps() {
    let desk = Desk::new();
    desk.push_version(1);
    let all = sorted(vec![item(0, 0), item(1, 0)]);
    let draft = desk.draft_set(provider(0), None, 1).unwrap();
    assert_eq!((draft.added.as_slice(), draft.more), (&all[..1], true));
    assert_eq!(draft.root, root_of(&all[..1]));
    desk.begin_revision(revision(0, &draft)).unwrap();
    desk.end_revision(provider(0), 0, signed(0)).unwrap();
    let rest = desk.draft_set(provider(0), None, 1).unwrap();
    assert_eq!((rest.added.as_slice(), rest.more, rest.root), (&all[1..], false, root_of(&all)));
}

fn adopted(sequence: u32, items: &[SetItem]) -> AdoptedTerms {
    let bytes = items.iter().map(|item| item.length).sum();
    AdoptedTerms { id: 7, sequence, root: root_of(items), bytes, signed: format!("terms {sequence}") }
}

#[test]
fn books_that_know_less_take_the_providers_set_once_it_is_whole() {
    let desk = Desk::new();
    desk.push_version(1);
    desk.sign(0, None);
    desk.set_agreement_state(provider(0), AgreementState::Stopped).unwrap();
    let before = desk.agreement();
    let theirs = sorted(vec![item(0, 0), item(50, 0), item(51, 0)]);
    let terms = adopted(12, &theirs);
    let cut = desk.begin_adoption(provider(0)).unwrap();
    desk.adopt(cut, theirs[..2].to_vec()).unwrap();
    assert_eq!((desk.agreement(), desk.draft().added.len()), (before, 0), "half of a list is none");
    let other = desk.begin_adoption(provider(5)).unwrap();
    let whole = desk.begin_adoption(provider(0)).unwrap();
    let stale = CatalogError::StaleRevision { provider: provider(0) };
    assert_eq!(desk.adopt(cut, theirs[2..].to_vec()).unwrap_err(), stale, "somebody began anew");
    assert_eq!(desk.end_adoption(cut, terms.clone()).unwrap_err(), stale);
    desk.adopt(whole, theirs[..2].to_vec()).unwrap();
    desk.adopt(whole, theirs[1..].to_vec()).unwrap();
    for _ in 0..2 {
        assert_eq!(desk.end_adoption(whole, terms.clone()).unwrap(), AdoptionEnd::Adopted);
    }
    assert_eq!(desk.end_adoption(whole, adopted(13, &theirs)).unwrap_err(), stale, "it has ended");
    let agreement = desk.agreement();
    assert_eq!((agreement.id, agreement.sequence, agreement.fragments), (Some(7), 12, 3));
    assert_eq!((agreement.bytes, agreement.signed.as_deref()), (3 * LENGTH, Some("terms 12")));
    assert_eq!(agreement.state, AgreementState::Stopped, "it stays given up");
    let draft = desk.draft();
    assert_eq!(draft.added, [item(1, 0)]);
    let mut gone: Vec<FragmentId> = vec![fragment(50, 0), fragment(51, 0)];
    gone.sort();
    assert_eq!(draft.removed, gone);
    desk.adopt(other, theirs).unwrap();
    desk.drop_adoption(other).unwrap();
    desk.drop_adoption(other).unwrap();
}

#[test]
fn a_list_that_is_not_the_set_of_its_terms_changes_nothing() {
    let desk = Desk::new();
    desk.push_version(1);
    desk.sign(0, None);
    let before = (desk.agreement(), desk.draft());
    let theirs = sorted(vec![item(0, 0), item(50, 0)]);
    let terms = adopted(12, &theirs);
    let longer = SetItem { length: LENGTH + 1, ..theirs[0] };
    let lists = [vec![theirs[0]], vec![longer, theirs[1]], vec![SetItem { length: 0, ..theirs[0] }], vec![]];
    for list in lists {
        let adoption = desk.begin_adoption(provider(0)).unwrap();
        desk.adopt(adoption, list.clone()).unwrap();
        assert_eq!(desk.end_adoption(adoption, terms.clone()).unwrap(), AdoptionEnd::OtherSet, "{list:?}");
        assert_eq!((desk.agreement(), desk.draft()), before);
        assert!(desk.adopt(adoption, list).is_err(), "it was dropped");
    }
    for terms in [AdoptedTerms { bytes: terms.bytes + 1, ..terms.clone() }, adopted(12, &theirs[..1])] {
        let adoption = desk.begin_adoption(provider(0)).unwrap();
        desk.adopt(adoption, theirs.clone()).unwrap();
        assert_eq!(desk.end_adoption(adoption, terms).unwrap(), AdoptionEnd::OtherSet);
    }
    assert_eq!((desk.agreement(), desk.draft()), before);
    // What is asked at the moment would be lost with the set that it changes.
    let adoption = desk.begin_adoption(provider(0)).unwrap();
    desk.adopt(adoption, theirs).unwrap();
    desk.begin_revision(revision(1, &desk.draft())).unwrap();
    let stale = CatalogError::StaleRevision { provider: provider(0) };
    assert_eq!(desk.end_adoption(adoption, terms).unwrap_err(), stale);
}

#[test]
fn a_push_signs_for_nothing_more_while_what_is_not_known_here_stays_in_the_set() {
    let desk = Desk::new();
    let push = desk.push();
    desk.record(&push, push.first_segment.0);
    let theirs = sorted(vec![item(50, 0), item(51, 0)]);
    let adoption = desk.begin_adoption(provider(0)).unwrap();
    desk.adopt(adoption, theirs.clone()).unwrap();
    desk.end_adoption(adoption, adopted(3, &theirs)).unwrap();
    let draft = desk.sign(4, Some(&push));
    assert_eq!(draft.added, [item(push.first_segment.0, 0)]);
    assert_eq!(draft.removed, [theirs[0].fragment, theirs[1].fragment]);
    assert_eq!((draft.root, draft.bytes), (root_of(&draft.added), LENGTH));

    // More than goes out at once is for the steward: a push that has nothing to add waits for none of it.
    let adoption = desk.begin_adoption(provider(0)).unwrap();
    desk.adopt(adoption, theirs.clone()).unwrap();
    desk.end_adoption(adoption, adopted(5, &theirs)).unwrap();
    let part = desk.draft_set(provider(0), Some(push.lease), 1).unwrap();
    assert_eq!((part.added.len(), part.removed.as_slice()), (1, &[theirs[0].fragment][..]));
    desk.begin_revision(revision(6, &part)).unwrap();
    desk.end_revision(provider(0), 6, signed(6)).unwrap();
    let rest = desk.draft_set(provider(0), Some(push.lease), 1).unwrap();
    assert!(rest.added.is_empty() && rest.removed.is_empty(), "{rest:?}");
    assert_eq!(desk.draft_set(provider(0), None, 1).unwrap().removed, [theirs[1].fragment]);
}

#[test]
fn whoever_was_given_up_takes_nothing_new() {
    let desk = Desk::new();
    desk.push_version(1);
    desk.sign(0, None);
    let accepts = || desk.providers().unwrap()[0].profile.accepting;
    assert!(accepts());
    desk.set_agreement_state(provider(0), AgreementState::Stopped).unwrap();
    assert_eq!((desk.agreement().state, accepts()), (AgreementState::Stopped, false));
    desk.set_agreement_state(provider(5), AgreementState::Stopped).unwrap();
    desk.drop_agreement(provider(0)).unwrap();
    desk.drop_agreement(provider(0)).unwrap();
    assert!(desk.agreements().unwrap().is_empty() && accepts());
    assert_eq!(desk.draft().added.len(), 2, "all of it is to be signed for anew");
}

#[test]
fn a_provider_that_is_let_in_again_is_no_longer_given_up() {
    let desk = Desk::new();
    desk.push_version(1);
    desk.sign(0, None);
    desk.set_agreement_state(provider(0), AgreementState::Stopped).unwrap();
    desk.remove_provider(provider(0)).unwrap();
    assert!(desk.agreements().unwrap().is_empty());
    desk.put_provider(super::profile(0)).unwrap();
    assert!(desk.providers().unwrap()[0].profile.accepting);
}

#[test]
fn fragments_of_collected_segments_leave_the_set_and_the_rest_stays() {
    let desk = Desk::new();
    let push = desk.begin_push(DATASET, "main".into(), "test".into(), HOUR, 10).unwrap();
    desk.record(&push, push.first_segment.0);
    let number = push.first_segment.0;
    let placed = segment(number);
    let draft = desk.draft_set(provider(0), Some(push.lease), LIMIT).unwrap();
    desk.begin_revision(revision(0, &draft)).unwrap();
    desk.end_revision(provider(0), 0, signed(0)).unwrap();
    desk.end_push(push.lease).unwrap();
    desk.now.set(desk.now.get() + 2 * HOUR);
    assert_eq!(desk.collect(&[]).doomed, [push.first_segment]);
    assert_eq!(desk.draft().removed, [placed.fragments[0].id]);
}

//! Where fragments and heads lie, and what becomes of them when a provider is gone.

use super::{DATASET, Desk, gone, key, map_change, profile, provider};
use crate::error::CatalogError;
use crate::operations::Books;
use crate::records::{
    Commit, Contact, DuePosition, FragmentKey, HeadRecord, Holding, Outcome, ProviderProfile, RenewedClaim,
    Work,
};
use seedbank_formats::{DatasetId, PublicKey, SegmentNumber, Timestamp};

#[test]
fn moved_fragments_make_the_head_stale_until_a_commit_says_so() {
    let desk = Desk::new();
    desk.push_version(1);
    let holding = Holding { provider: provider(5), until: Timestamp(3_000_000) };
    assert_eq!(desk.set_holder(key(0, 0), Some(holding)).unwrap(), Some(provider(0)));
    assert_eq!(desk.set_holder(key(0, 0), Some(holding)).unwrap(), Some(provider(5)));
    assert_eq!(desk.stale_heads().unwrap(), [DATASET]);
    let placement = desk.placements(DATASET, vec![SegmentNumber(0)]).unwrap().remove(0);
    assert_eq!(placement.fragments[0].holder, Some(provider(5)));

    let repair = desk.push();
    let base = desk.commit_base(repair.lease, None).unwrap();
    assert_eq!((base.branch, base.changes), (None, vec![map_change(0), map_change(1)]));
    desk.set_holder(key(1, 3), None).unwrap();
    desk.record(&repair, repair.first_segment.0);
    let head = HeadRecord { sequence: base.sequence, bytes: vec![5], segments: vec![repair.first_segment] };
    desk.commit(Commit {
        dataset: DATASET,
        lease: repair.lease,
        version: None,
        relies_on: None,
        relocations: Vec::new(),
        pages: Vec::new(),
        head,
        through: base.through,
        counts: base.counts,
        live: Vec::new(),
    })
    .unwrap();
    let left = desk.changes(DATASET).unwrap();
    assert_eq!(
        left,
        [map_change(1), map_change(repair.first_segment.0)],
        "what moved after the base is not lost"
    );
    assert_eq!(desk.stale_heads().unwrap(), [DATASET]);
    let job = Work::CompleteFragments { dataset: DATASET, segment: SegmentNumber(1) };
    assert!(desk.jobs(10).unwrap().iter().any(|found| found.work == job));
    assert_eq!(desk.set_holder(key(99, 0), None).unwrap_err(), gone(99));
}

#[test]
fn due_claims_are_given_page_by_page_each_once() {
    let desk = Desk::new();
    desk.push_version(1);
    for claim in 0..8 {
        let (index, until) = (claim % 4, Timestamp(if claim % 3 == 0 { 100 } else { 200 }));
        let fragment = key(u64::from(claim / 4), index);
        desk.set_holder(fragment, Some(Holding { provider: provider(index), until })).unwrap();
    }
    let page = |after, limit| desk.due_claims(Some(DATASET), Timestamp(300), after, limit).unwrap();
    let all = page(None, 100);
    assert_eq!(all.len(), 8);
    for limit in 1..9 {
        let (mut given, mut after) = (Vec::new(), None);
        loop {
            let some = page(after, limit);
            let Some(last) = some.last() else { break };
            after = Some(last.position());
            given.extend(some);
        }
        assert_eq!(given, all, "{limit} at a time");
    }
    // The dataset of the last one may be gone by then.
    let gone = DuePosition {
        until: Timestamp(200),
        key: FragmentKey { dataset: DatasetId([99; 32]), segment: SegmentNumber(5), index: 1 },
    };
    assert_eq!(page(Some(gone), 100).len(), 5, "those that end at the same time or later");
    let other = desk.due_claims(Some(DatasetId([99; 32])), Timestamp(300), None, 9).unwrap_err();
    assert!(matches!(other, CatalogError::NoSuchDataset { .. }), "{other}");
}

#[test]
fn claims_are_renewed_soonest_first_and_only_where_they_still_are() {
    let desk = Desk::new();
    desk.push_version(1);
    let later = Holding { provider: provider(0), until: Timestamp(5_000_000) };
    desk.set_holder(key(0, 0), Some(later)).unwrap();
    assert!(desk.due_claims(None, Timestamp(2_000_000), None, 100).unwrap().is_empty());
    let due = desk.due_claims(None, Timestamp(2_000_001), None, 100).unwrap();
    assert_eq!(due.len(), 7);
    assert_eq!(desk.due_claims(None, Timestamp(u64::MAX), None, 100).unwrap().last().unwrap().holding, later);
    let renew = |provider| {
        let holding = Holding { provider, until: Timestamp(9_000_000) };
        desk.renew_claims(vec![RenewedClaim { key: key(0, 1), holding }]).unwrap();
        desk.due_claims(None, Timestamp(2_000_001), None, 100).unwrap().len()
    };
    assert_eq!(renew(provider(7)), 7, "another provider holds it by now");
    assert_eq!(renew(provider(1)), 6);
}

#[test]
fn a_provider_that_is_gone_leaves_missing_fragments_and_jobs() {
    let desk = Desk::new();
    desk.push_version(1);
    let contact = |outcome| Contact { provider: provider(2), outcome };
    let stranger = Contact { provider: PublicKey([99; 32]), outcome: Outcome::Failed };
    desk.record_contacts(vec![
        contact(Outcome::Answered { latency_us: 900 }),
        contact(Outcome::Failed),
        stranger,
    ])
    .unwrap();
    let providers = desk.providers().unwrap();
    assert_eq!((providers.len(), providers[2].stats.latency_us, providers[2].stats.failures), (8, 900, 1));
    desk.put_provider(ProviderProfile { accepting: false, ..profile(2) }).unwrap();
    let known = desk.providers().unwrap().remove(2);
    assert_eq!(
        (known.profile.accepting, known.stats.requests, known.added),
        (false, 2, Timestamp(1_000_000))
    );

    assert_eq!(desk.remove_provider(provider(2)).unwrap(), 2);
    assert_eq!(
        desk.remove_provider(provider(2)).unwrap_err(),
        CatalogError::NoSuchProvider { key: provider(2) }
    );
    assert_eq!(desk.missing_fragments(None, 10).unwrap().len(), 2);
    assert_eq!(desk.stale_heads().unwrap(), [DATASET]);
    let complete = |job: &crate::records::Job| matches!(job.work, Work::CompleteFragments { .. });
    assert_eq!(desk.jobs(10).unwrap().iter().filter(|job| complete(job)).count(), 2);
}

#[test]
fn heads_are_pending_until_enough_providers_have_the_newest() {
    let desk = Desk::new();
    assert!(desk.pending_heads(3).unwrap().is_empty());
    desk.push_version(1);
    desk.mark_published(DATASET, 1, provider(0)).unwrap();
    desk.mark_published(DATASET, 1, provider(1)).unwrap();
    assert_eq!(desk.pending_heads(3).unwrap()[0].published, [provider(0), provider(1)]);
    assert!(desk.pending_heads(2).unwrap().is_empty());
    desk.push_version(2);
    let pending = desk.pending_heads(1).unwrap();
    assert_eq!((pending[0].sequence, pending[0].published.len()), (2, 0));
    desk.mark_published(DATASET, 2, provider(0)).unwrap();
    desk.mark_published(DATASET, 1, provider(0)).unwrap();
    assert!(desk.pending_heads(1).unwrap().is_empty(), "an old answer that comes late takes nothing back");
}

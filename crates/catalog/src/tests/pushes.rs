//! Pushes and commits: what becomes a version, and who comes second.

use super::{DATASET, Desk, HOUR, key, link, map_change, place, provider, segment, tree, version};
use crate::error::CatalogError;
use crate::operations::Books;
use crate::records::{
    BranchBase, ChangeNumber, Commit, HeadRecord, Holding, LiveDelta, NewVersion, NumberedList, NumberedPage,
    Reliance, Relocation, VersionRecord, Work,
};
use seedbank_formats::checkpoint::RefKind;
use seedbank_formats::layout::ChildPlace;
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::{SegmentNumber, Timestamp, VersionId};

#[test]
fn a_push_becomes_a_version_all_at_once() {
    let desk = Desk::new();
    let push = desk.push();
    assert_eq!((push.parent.clone(), push.first_segment), (None, SegmentNumber(0)));
    desk.record(&push, 0);
    assert!(desk.numbers().is_empty(), "it is not committed");
    let mine = desk.segments_in(DATASET, SegmentNumber(0), SegmentNumber(63), Some(push.lease)).unwrap();
    assert_eq!(mine, [segment(0)]);
    let commit = desk.prepare(push.lease, 1, 1);
    desk.commit(commit.clone()).unwrap();
    desk.commit(commit).expect("the answer was lost and the request repeated");

    assert_eq!(desk.numbers(), [0, 1]);
    let found = desk.resolve(DATASET, "main".into()).unwrap();
    assert_eq!(found.version, version(1, 1));
    assert_eq!(found.by.unwrap().kind, RefKind::Branch);
    assert_eq!(desk.head(DATASET).unwrap().unwrap().bytes, [1; 100]);
    let pages = desk.pages(DATASET, NumberedList::Map, 0, 0, 10).unwrap();
    assert_eq!(pages, [NumberedPage { list: NumberedList::Map, level: 0, page: 0, link: link(1, 3) }]);
    assert_eq!(
        desk.changes(DATASET).unwrap(),
        [map_change(1)],
        "the segment that holds the map can't be in it"
    );
    assert!(desk.stale_heads().unwrap().is_empty(), "and that alone is no reason for a new head");
    assert!(desk.leases(DATASET).unwrap().is_empty());
    let jobs = desk.take_jobs(10, 60).unwrap();
    assert!(matches!(jobs[..], [ref job] if job.work == Work::PublishHead { dataset: DATASET }), "{jobs:?}");

    let next = desk.push();
    assert_eq!((next.parent.unwrap().id, next.first_segment), (VersionId([1; 32]), SegmentNumber(10)));
    let usage = desk.usage(DATASET).unwrap();
    assert_eq!((usage.versions, usage.segments, usage.sealed_bytes, usage.live_bytes), (1, 2, 2000, 2000));
    assert_eq!(usage.stored_bytes, 2 * 4 * 512);
}

#[test]
fn of_two_pushes_the_second_is_told_the_new_parent_and_commits_again_without_sending() {
    let desk = Desk::new();
    let (one, two) = (desk.push(), desk.push());
    desk.record(&one, one.first_segment.0);
    desk.record(&two, two.first_segment.0);
    let first = desk.prepare(one.lease, 1, one.first_segment.0 + 1);
    let second = desk.prepare(two.lease, 2, two.first_segment.0 + 1);
    desk.commit(first).unwrap();
    let error = desk.commit(second).unwrap_err();
    assert_eq!(error, CatalogError::StaleParent { current: Some(VersionId([1; 32])) });
    let again = desk.prepare(two.lease, 2, two.first_segment.0 + 2);
    assert_eq!(again.version.as_ref().unwrap().record.ordinal, 1);
    desk.commit(again).unwrap();
    let versions = desk.versions(DATASET, None, 10).unwrap();
    assert_eq!(versions.iter().map(|version| version.id.0[0]).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(desk.versions(DATASET, Some(1), 10).unwrap().len(), 1);
}

#[test]
fn commits_on_a_base_that_changed_otherwise_are_told_to_take_a_new_one() {
    let desk = Desk::new();
    desk.push_version(1);
    let (repair, push) = (desk.push(), desk.push());
    let base = desk.commit_base(repair.lease, None).unwrap();
    let commit = desk.prepare(push.lease, 2, push.first_segment.0);
    desk.record(&repair, repair.first_segment.0);
    let head = HeadRecord { sequence: base.sequence, bytes: vec![9], segments: vec![repair.first_segment] };
    let moved = place(repair.first_segment.0, 4);
    let relocation =
        Relocation { version: VersionId([1; 32]), place: moved, tree: tree(repair.first_segment.0) };
    desk.commit(Commit {
        dataset: DATASET,
        lease: repair.lease,
        version: None,
        relies_on: None,
        relocations: vec![relocation],
        pages: Vec::new(),
        head,
        through: base.through,
        counts: base.counts,
        live: vec![LiveDelta { segment: SegmentNumber(0), bytes: -400 }],
    })
    .unwrap();
    assert_eq!(desk.resolve(DATASET, "main".into()).unwrap().version.tree, tree(repair.first_segment.0));
    assert_eq!(desk.commit(commit).unwrap_err(), CatalogError::StaleHead { sequence: 2 });
    // A tag takes the slot that a new branch was to get.
    let push = desk.begin_push(DATASET, "dev".into(), "test".into(), HOUR, 1).unwrap();
    let base = desk.commit_base(push.lease, Some("dev".into())).unwrap();
    assert_eq!(base.branch, Some(BranchBase { slot: 1, parent: None }));
    assert_eq!((base.published.versions, base.published.refs), (1, 1));
    assert_eq!((base.counts.versions, base.counts.refs), (2, 2));
    desk.create_ref(DATASET, "v1".into(), RefKind::Tag, VersionId([1; 32])).unwrap();
    desk.record(&push, push.first_segment.0);
    let record = VersionRecord { ordinal: base.ordinal, ..version(3, push.first_segment.0) };
    let new = NewVersion { record, branch: "dev".into(), base: base.branch.unwrap() };
    let commit = Commit {
        dataset: DATASET,
        lease: push.lease,
        version: Some(new),
        relies_on: None,
        relocations: Vec::new(),
        pages: Vec::new(),
        head: HeadRecord { sequence: base.sequence, bytes: vec![1], segments: Vec::new() },
        through: base.through,
        counts: base.counts,
        live: Vec::new(),
    };
    assert_eq!(desk.commit(commit.clone()).unwrap_err(), CatalogError::StaleHead { sequence: 2 });
    assert_eq!(desk.usage(DATASET).unwrap().live_bytes, 600 + 1000 + 1000 + 1000 + 1000);
    let future = Commit { through: ChangeNumber(u64::MAX), ..commit };
    assert!(desk.commit(future).is_err());
}

#[test]
fn a_commit_fails_when_the_version_whose_pages_it_uses_again_was_removed_or_moved() {
    let desk = Desk::new();
    let (_, first) = desk.push_version(1);
    let (_, second) = desk.push_version(2);
    let tree = |id: VersionId| desk.resolve(DATASET, id.to_string()).unwrap().version.tree;
    let push = desk.push();
    let metadata = push.first_segment.0;
    let as_it_was = |version| Some(Reliance { version, tree: tree(version) });
    let on_first = Commit { relies_on: as_it_was(first), ..desk.prepare(push.lease, 3, metadata) };
    let on_second = Commit { relies_on: as_it_was(second), ..desk.prepare(push.lease, 3, metadata) };

    desk.remove_version(DATASET, first).unwrap();
    assert_eq!(desk.commit(on_first).unwrap_err(), CatalogError::VersionGone { version: first });
    let elsewhere = ChildPlace { page: tree(second).page, layout: tree(second).page };
    let moved =
        Commit { relies_on: Some(Reliance { version: second, tree: elsewhere }), ..on_second.clone() };
    assert_eq!(desk.commit(moved).unwrap_err(), CatalogError::VersionGone { version: second });
    desk.commit(on_second).unwrap();
}

#[test]
fn segments_that_could_not_be_read_back_are_not_committed() {
    let desk = Desk::new();
    let push = desk.push();
    let mut thin = segment(0);
    thin.fragments[1..].iter_mut().for_each(|fragment| fragment.holder = None);
    desk.record_segment(push.lease, thin.clone(), Timestamp(9)).unwrap();
    desk.record_segment(push.lease, thin, Timestamp(9)).expect("the request was repeated");
    let commit = desk.prepare(push.lease, 1, 1);
    let error = desk.commit(commit.clone()).unwrap_err();
    assert_eq!(error, CatalogError::NotDurable { segment: SegmentNumber(0), held: 1, needed: 2 });
    let holding = Holding { provider: provider(6), until: Timestamp(2_000_000) };
    assert_eq!(desk.set_holder(key(0, 1), Some(holding)).unwrap(), None);
    desk.commit(commit).unwrap();
    let job = Work::CompleteFragments { dataset: DATASET, segment: SegmentNumber(0) };
    assert!(desk.jobs(10).unwrap().iter().any(|found| found.work == job));
    let missing = desk.missing_fragments(Some(DATASET), 10).unwrap();
    assert_eq!(missing.iter().map(|missing| missing.key).collect::<Vec<_>>(), [key(0, 2), key(0, 3)]);
    assert_eq!(desk.missing_fragments(None, 1).unwrap().len(), 1);
    // The late holder came after the base: the map lacks it, and the next head must say so.
    assert!(desk.changes(DATASET).unwrap().contains(&map_change(0)));

    for bad in [
        SegmentPlacement { fragments: Vec::new(), ..segment(2) },
        SegmentPlacement { footer_len: 2000, ..segment(2) },
        segment(5000),
    ] {
        let push = desk.push();
        let error = desk.record_segment(push.lease, bad, Timestamp(0)).unwrap_err();
        assert!(matches!(error, CatalogError::BadRequest { .. }), "{error}");
    }
}

#[test]
fn pages_are_found_by_the_segments_that_they_lie_in() {
    let desk = Desk::new();
    desk.push_version(1);
    let all = |list| desk.pages(DATASET, list, 0, 0, 99).unwrap();
    let everywhere: Vec<SegmentNumber> = desk.numbers().into_iter().map(SegmentNumber).collect();
    for list in [NumberedList::Map, NumberedList::Versions, NumberedList::Refs] {
        let present = all(list);
        assert_eq!(desk.pages_in(DATASET, list, everywhere.clone()).unwrap(), present);
        let segment = present[0].link.place.segment;
        assert_eq!(desk.pages_in(DATASET, list, vec![segment]).unwrap(), present);
        let others = everywhere.iter().copied().filter(|number| *number != segment).collect();
        assert_eq!(desk.pages_in(DATASET, list, others).unwrap(), []);
    }
}

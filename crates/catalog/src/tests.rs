//! The books as a whole: pushes, races, collection, crashes, hostile requests, old databases.

use crate::catalog::Catalog;
use crate::error::CatalogError;
use crate::operations::{Books, Carrier, Request, Response, answer};
use crate::records::{
    BranchBase, Change, ChangeNumber, Commit, Contact, Counts, Dataset, DuePosition, FragmentKey, HeadRecord,
    Holding, LeaseId, LiveBytes, LiveDelta, NewVersion, NumberedList, NumberedPage, Outcome, ProviderProfile,
    Push, Reliance, Relocation, RenewedClaim, Restoration, VersionRecord, Work,
};
use crate::turn::Turn;
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_oneof, proptest};
use rusqlite::{Connection, TransactionBehavior};
use seedbank_erasure::Scheme;
use seedbank_formats::checkpoint::RefKind;
use seedbank_formats::keys::KeyEpoch;
use seedbank_formats::layout::ChildPlace;
use seedbank_formats::place::{Link, Place};
use seedbank_formats::placement::{FragmentPlacement, SegmentPlacement};
use seedbank_formats::{ChunkId, DatasetId, FragmentId, PublicKey, SegmentNumber, Timestamp, VersionId};
use std::cell::{Cell, RefCell};
use std::path::Path;

const DATASET: DatasetId = DatasetId([0xd1; 32]);
const HOUR: u64 = 3600;

/// An open catalog on a folder of its own, with a clock that the test turns.
struct Desk {
    dir: tempfile::TempDir,
    catalog: RefCell<Catalog>,
    now: Cell<u64>,
}

impl Carrier for Desk {
    fn call(&self, request: Request) -> Result<Response, CatalogError> {
        // Every request and answer survives the steward's socket.
        let request: Request = serde_json::from_str(&serde_json::to_string(&request).unwrap()).unwrap();
        let response = self.catalog.borrow_mut().execute(request, Timestamp(self.now.get()));
        let text = serde_json::to_string(&response).unwrap();
        assert_eq!(serde_json::from_str::<Result<Response, CatalogError>>(&text).unwrap(), response);
        response
    }
}

impl Desk {
    fn empty() -> Desk {
        let dir = tempfile::tempdir().unwrap();
        let catalog = RefCell::new(Catalog::open(dir.path()).unwrap());
        Desk { dir, catalog, now: Cell::new(1_000_000) }
    }

    /// With one dataset and eight providers.
    fn new() -> Desk {
        let desk = Desk::empty();
        desk.create_dataset(dataset(DATASET, "penguins")).unwrap();
        (0..8).for_each(|number| desk.put_provider(profile(number)).unwrap());
        desk
    }

    fn push(&self) -> Push {
        self.begin_push(DATASET, "main".into(), "test".into(), HOUR, 10).unwrap()
    }

    fn record(&self, push: &Push, number: u64) {
        self.record_segment(push.lease, segment(number), Timestamp(2_000_000)).unwrap();
    }

    /// A commit of a version whose pages lie in this segment.
    fn prepare(&self, lease: LeaseId, seed: u8, metadata: u64) -> Commit {
        let base = self.commit_base(lease, Some("main".into())).unwrap();
        self.record_segment(lease, segment(metadata), Timestamp(2_000_000)).unwrap();
        let record = VersionRecord { ordinal: base.ordinal, ..version(seed, metadata) };
        let version = NewVersion { record, branch: "main".into(), base: base.branch.unwrap() };
        let list_page = |list| NumberedPage { list, level: 0, page: 0, link: link(metadata, 3) };
        Commit {
            dataset: DATASET,
            lease,
            version: Some(version),
            relies_on: None,
            relocations: Vec::new(),
            pages: [NumberedList::Map, NumberedList::Versions, NumberedList::Refs].map(list_page).to_vec(),
            head: HeadRecord {
                sequence: base.sequence,
                bytes: vec![seed; 100],
                segments: vec![SegmentNumber(metadata)],
            },
            through: base.through,
            counts: base.counts,
            live: Vec::new(),
        }
    }

    /// A whole push of one data segment and one of metadata.
    fn push_version(&self, seed: u8) -> (Push, VersionId) {
        let push = self.push();
        let first = push.first_segment.0;
        self.record(&push, first);
        let commit = self.prepare(push.lease, seed, first + 1);
        self.commit(commit).unwrap();
        (push, VersionId([seed; 32]))
    }

    fn collect(&self, live: &[(u64, u64)]) -> crate::records::Collected {
        let snapshot = self.collect_begin(DATASET).unwrap();
        self.collect_finish(DATASET, snapshot, live_bytes(live)).unwrap()
    }

    fn numbers(&self) -> Vec<u64> {
        let all = self.segments_in(DATASET, SegmentNumber(0), SegmentNumber(1000), None).unwrap();
        all.iter().map(|segment| segment.number.0).collect()
    }
}

fn live_bytes(live: &[(u64, u64)]) -> Vec<LiveBytes> {
    live.iter().map(|&(number, bytes)| LiveBytes { segment: SegmentNumber(number), bytes }).collect()
}

fn dataset(id: DatasetId, name: &str) -> Dataset {
    Dataset {
        id,
        name: name.into(),
        salt: [1; 32],
        owner: PublicKey([2; 32]),
        epoch: KeyEpoch(0),
        public: false,
        policy: vec![1, 2, 3],
        created: Timestamp(5),
    }
}

fn provider(number: u8) -> PublicKey {
    PublicKey([number; 32])
}

fn profile(number: u8) -> ProviderProfile {
    ProviderProfile {
        key: provider(number),
        address: format!("127.0.0.1:{number}"),
        operator: format!("operator {number}"),
        region: "eu".into(),
        capacity_bytes: 1 << 40,
        free_bytes: 1 << 39,
        accepting: true,
    }
}

fn fragment(segment: u64, index: u8) -> FragmentId {
    FragmentId(*blake3::hash(&[&segment.to_le_bytes()[..], &[index]].concat()).as_bytes())
}

/// 2 of 4, held by providers 0 to 3.
fn segment(number: u64) -> SegmentPlacement {
    let holder = |index: u8| FragmentPlacement { id: fragment(number, index), holder: Some(provider(index)) };
    SegmentPlacement {
        number: SegmentNumber(number),
        epoch: KeyEpoch(0),
        scheme: Scheme::new(2, 4).unwrap(),
        sealed_len: 1000,
        footer_len: 100,
        fragments: (0..4).map(holder).collect(),
    }
}

fn place(segment: u64, index: u32) -> Place {
    Place { segment: SegmentNumber(segment), index }
}

fn link(segment: u64, index: u32) -> Link {
    Link { place: place(segment, index), hash: ChunkId([9; 32]) }
}

fn tree(segment: u64) -> ChildPlace {
    ChildPlace { page: place(segment, 1), layout: place(segment, 2) }
}

fn version(seed: u8, segment: u64) -> VersionRecord {
    VersionRecord {
        ordinal: 0,
        id: VersionId([seed; 32]),
        version: place(segment, 0),
        tree: tree(segment),
        new_bytes: 1000,
        stored_bytes: 2000,
        time: Timestamp(7),
        message: "first".into(),
    }
}

fn key(segment: u64, index: u8) -> FragmentKey {
    FragmentKey { dataset: DATASET, segment: SegmentNumber(segment), index }
}

fn gone(segment: u64) -> CatalogError {
    CatalogError::SegmentGone { segments: vec![SegmentNumber(segment)] }
}

fn map_change(segment: u64) -> Change {
    Change { list: NumberedList::Map, number: segment }
}

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
fn removing_a_version_while_a_push_relies_on_its_segments_spares_them() {
    let desk = Desk::new();
    let (_, old) = desk.push_version(1);
    let (newer, _) = desk.push_version(2);
    let push = desk.push();
    desk.use_segments(push.lease, vec![SegmentNumber(0)]).unwrap();
    desk.remove_version(DATASET, old).unwrap();
    let newest = newer.first_segment.0;
    let live = [(newest, 900), (newest + 1, 900)];
    let collected = desk.collect(&live);
    assert_eq!((collected.doomed, collected.spared), (vec![SegmentNumber(1)], 1));
    let commit = desk.prepare(push.lease, 3, push.first_segment.0);
    desk.commit(commit).unwrap();
    assert!(desk.numbers().contains(&0));
    desk.now.set(desk.now.get() + 10 * HOUR);
    let without = desk.collect(&[(newest, 900), (newest + 1, 900), (push.first_segment.0, 900)]);
    assert_eq!(without.doomed, [SegmentNumber(0)], "had the new version not needed it after all");
}

#[test]
fn a_push_that_finds_a_collected_segment_in_its_index_is_told_so() {
    let desk = Desk::new();
    let (_, old) = desk.push_version(1);
    let (newer, _) = desk.push_version(2);
    let push = desk.push();
    let commit_naming = |segment| {
        let mut commit = desk.prepare(push.lease, 3, push.first_segment.0);
        commit.live = vec![LiveDelta { segment: SegmentNumber(segment), bytes: 10 }];
        commit
    };
    desk.remove_version(DATASET, old).unwrap();
    let newest = newer.first_segment.0;
    let collected = desk.collect(&[(newest, 900), (newest + 1, 900)]);
    assert_eq!(collected.doomed, [SegmentNumber(0), SegmentNumber(1)]);
    let both = vec![SegmentNumber(1), SegmentNumber(newest), SegmentNumber(0)];
    let error = desk.use_segments(push.lease, both).unwrap_err();
    assert_eq!(error, CatalogError::SegmentGone { segments: collected.doomed.clone() });
    assert_eq!(desk.commit(commit_naming(0)).unwrap_err(), gone(0));
    assert_eq!(desk.placements(DATASET, vec![SegmentNumber(0)]).unwrap_err(), gone(0));
    // Nothing of the failed requests stayed; without the segment the push goes on.
    let commit = desk.prepare(push.lease, 3, push.first_segment.0 + 1);
    desk.commit(commit).unwrap();
    assert!(!desk.numbers().iter().any(|number| *number < 2));

    let releases: Vec<_> = desk
        .take_jobs(100, 60)
        .unwrap()
        .into_iter()
        .filter_map(|job| match job.work {
            Work::ReleaseClaims { provider, fragments } => Some((provider, fragments)),
            _ => None,
        })
        .collect();
    assert_eq!(releases.len(), 8, "two segments, four holders each");
    assert!(releases.contains(&(provider(3), vec![fragment(1, 3)])));
}

#[test]
fn a_collection_spares_what_was_used_since_it_began_and_ends_leases_that_ran_out() {
    let desk = Desk::new();
    let (_, old) = desk.push_version(1);
    let (newer, _) = desk.push_version(2);
    desk.remove_version(DATASET, old).unwrap();
    let newest = newer.first_segment.0;
    let live = live_bytes(&[(newest, 900), (newest + 1, 900)]);

    let snapshot = desk.collect_begin(DATASET).unwrap();
    let push = desk.push();
    desk.use_segments(push.lease, vec![SegmentNumber(0)]).unwrap();
    desk.record(&push, push.first_segment.0);
    let commit = desk.prepare(push.lease, 3, push.first_segment.0 + 1);
    desk.commit(commit).unwrap();
    let collected = desk.collect_finish(DATASET, snapshot, live.clone()).unwrap();
    assert_eq!(collected.doomed, [SegmentNumber(1)]);
    assert_eq!(collected.spared, 3, "one used, two new");

    // A lease that ran out protects until a collection comes, and no longer.
    let sleeper = desk.push();
    desk.use_segments(sleeper.lease, vec![SegmentNumber(0)]).unwrap();
    desk.now.set(desk.now.get() + 2 * HOUR);
    desk.renew_lease(sleeper.lease, HOUR).unwrap();
    desk.now.set(desk.now.get() + 2 * HOUR);
    let live = [live, live_bytes(&[(push.first_segment.0, 900), (push.first_segment.0 + 1, 900)])].concat();
    let snapshot = desk.collect_begin(DATASET).unwrap();
    assert_eq!(desk.collect_finish(DATASET, snapshot, live).unwrap().doomed, [SegmentNumber(0)]);
    assert_eq!(desk.renew_lease(sleeper.lease, HOUR).unwrap_err(), CatalogError::LeaseLost);
    assert_eq!(desk.allocate_segments(sleeper.lease, 1).unwrap_err(), CatalogError::LeaseLost);
    let other = crate::records::Snapshot { change: ChangeNumber(u64::MAX / 2), ..snapshot };
    assert!(desk.collect_finish(DATASET, other, Vec::new()).is_err());
}

#[test]
fn an_interrupted_push_goes_on_from_what_it_recorded_unless_that_was_collected() {
    let desk = Desk::new();
    let first = desk.push();
    desk.record(&first, 0);
    desk.record(&first, 1);
    desk.end_push(first.lease).unwrap();
    desk.end_push(first.lease).unwrap();

    let second = desk.push();
    desk.use_segments(second.lease, vec![SegmentNumber(0)]).unwrap();
    let base = desk.commit_base(second.lease, Some("main".into())).unwrap();
    assert_eq!(base.changes, [map_change(0)], "what only others recorded is not for this commit");
    let commit = desk.prepare(second.lease, 1, second.first_segment.0);
    desk.commit(commit).unwrap();
    assert_eq!(desk.numbers(), [0, 10]);
    let collected = desk.collect(&[(0, 900), (10, 900)]);
    assert_eq!(collected.doomed, [SegmentNumber(1)]);
    let third = desk.push();
    assert_eq!(desk.use_segments(third.lease, vec![SegmentNumber(1)]).unwrap_err(), gone(1));
    let error = desk.record_segment(third.lease, segment(1), Timestamp(0)).unwrap_err();
    assert_eq!(error, gone(1), "a number is never used twice");
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
fn versions_are_found_by_ref_and_by_enough_digits() {
    let desk = Desk::new();
    desk.push_version(0xab);
    let id = VersionId([0xab; 32]);
    for text in [id.to_string(), id.revision(), "abababab".into(), "ABABABABA".into()] {
        assert_eq!(desk.resolve(DATASET, text).unwrap().version.id, id);
    }
    let missing = |text: &str| match desk.resolve(DATASET, text.into()).unwrap_err() {
        CatalogError::NoSuchVersion { near, .. } => near,
        other => panic!("{other}"),
    };
    assert_eq!(missing("mian"), ["main"]);
    for text in ["abababa", "abababac", "", "'; DROP TABLE versions", &"ab".repeat(33), "\u{0}"] {
        missing(text);
    }
    let mut twin = [0xab; 32];
    twin[31] = 0;
    let records = vec![VersionRecord { ordinal: 1, id: VersionId(twin), ..version(1, 1) }];
    desk.restore(restoration("penguins", DATASET, records)).unwrap();
    let error = desk.resolve(DATASET, "abababab".into()).unwrap_err();
    let candidates = vec![VersionId(twin), id];
    assert_eq!(error, CatalogError::AmbiguousVersion { text: "abababab".into(), candidates });
    assert_eq!(desk.resolve(DATASET, id.to_string()).unwrap().version.id, id);
}

#[test]
fn refs_are_made_moved_and_deleted_and_keep_their_versions() {
    let desk = Desk::new();
    let (_, one) = desk.push_version(1);
    let (_, two) = desk.push_version(2);
    let tag = desk.create_ref(DATASET, "v1".into(), RefKind::Tag, one).unwrap();
    assert_eq!(tag.slot, 1);
    let taken = CatalogError::NameTaken { name: "v1".into() };
    assert_eq!(desk.create_ref(DATASET, "v1".into(), RefKind::Tag, one).unwrap_err(), taken);
    let named = CatalogError::VersionInUse { version: one, refs: vec!["v1".into()] };
    assert_eq!(desk.remove_version(DATASET, one).unwrap_err(), named);
    let fixed = CatalogError::TagFixed { name: "v1".into() };
    assert_eq!(desk.move_ref(DATASET, "v1".into(), two, None).unwrap_err(), fixed);
    assert_eq!(desk.begin_push(DATASET, "v1".into(), String::new(), 1, 0).unwrap_err(), fixed);
    let stale = CatalogError::StaleParent { current: Some(two) };
    assert_eq!(desk.move_ref(DATASET, "main".into(), one, Some(one)).unwrap_err(), stale);
    desk.move_ref(DATASET, "main".into(), one, Some(two)).unwrap();
    assert!(desk.create_ref(DATASET, "deadbeef".into(), RefKind::Branch, one).is_err());
    assert!(desk.create_ref(DATASET, "x".into(), RefKind::Branch, VersionId([9; 32])).is_err());
    desk.delete_ref(DATASET, "main".into()).unwrap();
    assert!(matches!(desk.delete_ref(DATASET, "man".into()), Err(CatalogError::NoSuchVersion { .. })));
    desk.remove_version(DATASET, two).unwrap();
    assert!(matches!(desk.remove_version(DATASET, two), Err(CatalogError::NoSuchVersion { .. })));
    let dev = desk.create_ref(DATASET, "dev".into(), RefKind::Branch, one).unwrap();
    assert_eq!(dev.slot, 0, "the list stays dense");
    let changes = desk.changes(DATASET).unwrap();
    for (list, number) in [(NumberedList::Versions, 1), (NumberedList::Refs, 0), (NumberedList::Refs, 1)] {
        assert!(changes.contains(&Change { list, number }));
    }
    assert_eq!(desk.refs(DATASET).unwrap().len(), 2);
}

#[test]
fn datasets_are_found_by_name_or_id_renamed_and_removed() {
    let desk = Desk::new();
    let (push, _) = desk.push_version(1);
    let other = DatasetId([0xd2; 32]);
    assert!(matches!(desk.create_dataset(dataset(other, "penguins")), Err(CatalogError::NameTaken { .. })));
    assert!(matches!(desk.create_dataset(dataset(DATASET, "x")), Err(CatalogError::NameTaken { .. })));
    assert!(matches!(desk.create_dataset(dataset(other, "a b")), Err(CatalogError::InvalidName { .. })));
    desk.create_dataset(dataset(other, "vega")).unwrap();
    match desk.dataset("pinguins".into()).unwrap_err() {
        CatalogError::NoSuchDataset { near, .. } => assert_eq!(near, ["penguins"]),
        error => panic!("{error}"),
    }
    assert!(matches!(desk.rename_dataset(other, "penguins".into()), Err(CatalogError::NameTaken { .. })));
    desk.rename_dataset(other, "vega".into()).unwrap();
    desk.rename_dataset(other, "größe".into()).unwrap();
    desk.set_policy(other, vec![7; 300]).unwrap();
    desk.set_epoch(other, KeyEpoch(4)).unwrap();
    let found = desk.dataset(other.to_string()).unwrap();
    assert_eq!((found.name.as_str(), found.policy.len(), found.epoch), ("größe", 300, KeyEpoch(4)));
    assert_eq!(desk.datasets().unwrap().len(), 2);

    let running = desk.push();
    let removed = desk.remove_dataset(DATASET).unwrap();
    assert_eq!((removed.versions, removed.segments), (1, 2));
    assert_eq!(desk.renew_lease(running.lease, 1).unwrap_err(), CatalogError::LeaseLost);
    assert_eq!(
        desk.use_segments(running.lease, vec![push.first_segment]).unwrap_err(),
        CatalogError::LeaseLost
    );
    assert!(matches!(desk.head(DATASET), Err(CatalogError::NoSuchDataset { .. })));
    let jobs = desk.jobs(100).unwrap();
    assert!(jobs.iter().all(|job| matches!(job.work, Work::ReleaseClaims { .. })), "{jobs:?}");
    let released: usize = jobs
        .iter()
        .map(|job| if let Work::ReleaseClaims { fragments, .. } = &job.work { fragments.len() } else { 0 })
        .sum();
    assert_eq!((jobs.len(), released), (4, 8));
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

#[test]
fn jobs_are_kept_once_taken_for_a_time_and_rest_after_failures() {
    let desk = Desk::new();
    let work = || Work::RenewClaims { provider: provider(1) };
    let id = desk.add_job(work(), Timestamp(1_000_500)).unwrap();
    assert_eq!(desk.add_job(work(), Timestamp(1_000_900)).unwrap(), id);
    assert!(desk.take_jobs(10, 60).unwrap().is_empty(), "not due");
    desk.now.set(1_000_500);
    assert_eq!(desk.take_jobs(10, 60).unwrap().len(), 1);
    assert!(desk.take_jobs(10, 60).unwrap().is_empty(), "taken");
    desk.now.set(1_000_561);
    let job = desk.take_jobs(10, 60).unwrap().remove(0);
    assert_eq!((job.id, job.attempts), (id, 0));
    desk.fail_job(id, "no route".repeat(1000)).unwrap();
    let failed = desk.jobs(10).unwrap().remove(0);
    assert_eq!((failed.attempts, failed.last_error.unwrap().len()), (1, 500));
    assert!((1_000_576..1_000_581).contains(&failed.not_before.0), "{}", failed.not_before.0);

    desk.now.set(1_000_600);
    desk.take_jobs(10, 60).unwrap();
    assert_eq!(desk.add_job(work(), Timestamp(1_000_600)).unwrap(), id, "asked for again while it is done");
    desk.finish_job(id).unwrap();
    assert_eq!(desk.take_jobs(10, 60).unwrap().remove(0).attempts, 0, "so it is done once more");
    desk.finish_job(id).unwrap();
    desk.finish_job(id).unwrap();
    desk.fail_job(id, String::new()).unwrap();
    assert!(desk.jobs(10).unwrap().is_empty());
}

#[test]
fn a_release_never_names_what_the_provider_holds_by_the_books() {
    let desk = Desk::new();
    let spare = provider(6);
    let fragments = vec![fragment(0, 1), fragment(77, 0)];
    desk.add_job(Work::ReleaseClaims { provider: spare, fragments }, Timestamp(0)).unwrap();
    desk.push_version(1);
    desk.set_holder(key(0, 1), Some(Holding { provider: spare, until: Timestamp(2_000_000) })).unwrap();
    let jobs = desk.take_jobs(10, 60).unwrap();
    let kept = Work::ReleaseClaims { provider: spare, fragments: vec![fragment(77, 0)] };
    assert!(jobs.iter().any(|job| job.work == kept), "{jobs:?}");
    let too_many = Work::ReleaseClaims { provider: spare, fragments: vec![fragment(0, 0); 1001] };
    assert!(desk.add_job(too_many, Timestamp(0)).is_err());
}

#[test]
fn segments_of_which_little_lives_are_named_for_rewriting() {
    let desk = Desk::new();
    desk.push_version(1);
    let collected = desk.collect(&[(0, 499), (1, 700)]);
    assert_eq!((collected.rewrite, collected.doomed), (live_bytes(&[(0, 499)]), Vec::new()));
    assert_eq!(desk.usage(DATASET).unwrap().live_bytes, 499 + 700);
    let nothing = desk.collect(&[]);
    assert_eq!(nothing.doomed, [SegmentNumber(0)], "pages and versions lie in the other one");
    assert_eq!(desk.numbers(), [1]);
}

fn restoration(name: &str, id: DatasetId, versions: Vec<VersionRecord>) -> Restoration {
    Restoration {
        dataset: dataset(id, name),
        counts: Counts { segments: 20, versions: 9, refs: 3 },
        segments: Vec::new(),
        versions,
        refs: Vec::new(),
        pages: Vec::new(),
        head: None,
    }
}

#[test]
fn a_checkpoint_restores_a_dataset_in_parts() {
    let old = Desk::new();
    old.push_version(1);
    let head = old.head(DATASET).unwrap().unwrap();
    let part = Restoration {
        segments: old.segments_in(DATASET, SegmentNumber(0), SegmentNumber(99), None).unwrap(),
        refs: old.refs(DATASET).unwrap(),
        pages: old.pages(DATASET, NumberedList::Map, 0, 0, 99).unwrap(),
        head: Some(HeadRecord { sequence: 1, bytes: head.bytes.clone(), segments: vec![SegmentNumber(1)] }),
        ..restoration("penguins", DATASET, old.versions(DATASET, None, 99).unwrap())
    };
    let desk = Desk::empty();
    desk.restore(Restoration {
        segments: part.segments[..1].to_vec(),
        ..restoration("penguins", DATASET, Vec::new())
    })
    .unwrap();
    desk.restore(part.clone()).unwrap();
    desk.restore(part.clone()).expect("a part may come again");
    assert_eq!(desk.resolve(DATASET, "main".into()).unwrap(), old.resolve(DATASET, "main".into()).unwrap());
    assert_eq!(desk.numbers(), [0, 1]);
    assert_eq!(desk.head(DATASET).unwrap(), Some(head));
    assert_eq!(desk.due_claims(None, Timestamp(1), None, 99).unwrap().len(), 8, "all claims are due");
    let newest = Change { list: NumberedList::Map, number: 1 };
    assert_eq!(
        desk.changes(DATASET).unwrap(),
        [newest],
        "the map behind the head does not know its own segment"
    );
    let push = desk.push();
    assert_eq!(push.first_segment, SegmentNumber(20));
    let commit = desk.prepare(push.lease, 2, 20);
    assert_eq!((commit.version.as_ref().unwrap().record.ordinal, commit.head.sequence), (9, 2));
    desk.commit(commit).unwrap();
    let late = HeadRecord { sequence: 9, bytes: vec![9], segments: vec![SegmentNumber(500)] };
    desk.restore(Restoration { head: Some(late), ..restoration("penguins", DATASET, Vec::new()) }).unwrap();
    assert_eq!(desk.push().first_segment, SegmentNumber(501), "a number is never used twice");
    let thief = Restoration { dataset: dataset(DatasetId([0xee; 32]), "penguins"), ..part };
    assert!(matches!(desk.restore(thief), Err(CatalogError::NameTaken { .. })));
}

#[test]
fn settings_are_remembered() {
    let desk = Desk::empty();
    assert_eq!(desk.setting("owner".into()).unwrap(), None);
    desk.put_setting("owner".into(), "a".into()).unwrap();
    desk.put_setting("owner".into(), "b".into()).unwrap();
    assert_eq!(desk.setting("owner".into()).unwrap().as_deref(), Some("b"));
}

#[test]
fn an_answer_to_another_question_is_an_error() {
    struct Confused;
    impl Carrier for Confused {
        fn call(&self, _: Request) -> Result<Response, CatalogError> {
            Ok(Response::EndPush(()))
        }
    }
    assert!(matches!(Confused.datasets(), Err(CatalogError::Unreachable { .. })));
    std::sync::Arc::new(Confused).end_push(LeaseId(1)).unwrap();
}

/// Everything in a database, as text.
fn dump(connection: &Connection) -> String {
    let mut text = String::new();
    let tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'lifecycle' ORDER BY name";
    let mut tables = connection.prepare(tables).unwrap();
    let names: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    for name in names {
        let mut statement = connection.prepare(&format!("SELECT * FROM {name}")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<_> = (0..columns).map(|column| row.get_ref(column).unwrap()).collect();
            text.push_str(&format!("{name} {values:?}\n"));
        }
    }
    text
}

fn copy(from: &Path, to: &Path) {
    for entry in from.read_dir().unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Runs a request in a process that dies after `writes` changed rows. Says what the next process finds, and whether the
/// request got through.
fn killed_after(start: &Path, request: &Request, writes: u32) -> (String, bool) {
    let (dir, left) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy(start, dir.path());
    let mut catalog = Catalog::open(dir.path()).unwrap();
    let connection = &mut catalog.connection;
    // A tiny cache makes SQLite write to its log what is not committed, as a large transaction would.
    connection.execute_batch("PRAGMA cache_size = 1; CREATE TEMP TABLE budget (writes INTEGER)").unwrap();
    connection.execute("INSERT INTO temp.budget VALUES (?1)", [writes]).unwrap();
    let sql = "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    let tables: Vec<String> = {
        let mut names = connection.prepare(sql).unwrap();
        names.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    for (table, event) in
        tables.iter().flat_map(|table| ["INSERT", "UPDATE", "DELETE"].map(|event| (table, event)))
    {
        let trigger = format!(
            "CREATE TEMP TRIGGER {table}_{event} AFTER {event} ON main.{table} BEGIN
                 UPDATE budget SET writes = writes - 1;
                 SELECT RAISE(FAIL, 'killed') WHERE (SELECT writes FROM budget) < 0;
             END"
        );
        connection.execute_batch(&trigger).unwrap();
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let through = answer(&Turn { sql: &transaction, now: Timestamp(1_000_000) }, request.clone()).is_ok();
    if through {
        transaction.commit().unwrap();
        copy(dir.path(), left.path());
    } else {
        // Still open, and never to be ended: these are the files that a killed process leaves.
        copy(dir.path(), left.path());
        drop(transaction);
    }
    (dump(&Catalog::open(left.path()).unwrap().connection), through)
}

#[test]
fn a_kill_between_any_two_writes_leaves_the_old_books_or_the_new() {
    let desk = Desk::new();
    desk.push_version(1);
    let push = desk.push();
    desk.record(&push, push.first_segment.0);
    desk.set_holder(key(push.first_segment.0, 3), None).unwrap();
    let commit = desk.prepare(push.lease, 2, push.first_segment.0 + 1);
    let snapshot = desk.collect_begin(DATASET).unwrap();
    let requests = [
        Request::RecordSegment { lease: push.lease, placement: segment(12), claims_until: Timestamp(1) },
        Request::Commit { commit },
        Request::CollectFinish { dataset: DATASET, snapshot, live: Vec::new() },
        Request::RemoveProvider { provider: provider(1) },
        Request::RemoveDataset { dataset: DATASET },
    ];
    let start = tempfile::tempdir().unwrap();
    copy(desk.dir.path(), start.path());
    let old = dump(&desk.catalog.borrow().connection);
    for request in requests {
        let mut writes = 0;
        loop {
            let (found, through) = killed_after(start.path(), &request, writes);
            if through {
                assert_ne!(found, old, "{request:?}");
                break;
            }
            assert_eq!(found, old, "{request:?} killed after {writes} writes");
            writes += 1;
        }
        assert!(writes > 5, "{request:?} writes {writes} rows");
    }
}

#[test]
fn committed_requests_survive_a_kill_right_after_them() {
    let desk = Desk::new();
    desk.push_version(1);
    let left = tempfile::tempdir().unwrap();
    copy(desk.dir.path(), left.path());
    let mut reopened = Catalog::open(left.path()).unwrap();
    let request = Request::Resolve { dataset: DATASET, text: "main".into() };
    assert!(reopened.execute(request, Timestamp(0)).is_ok());
    assert_eq!(dump(&reopened.connection), dump(&desk.catalog.borrow().connection));
}

/// The books that schema 1 wrote, as `.dump` shows them.
const VERSION_1: &str = include_str!("../../../testdata/catalog/version-1.sql");

#[test]
fn books_of_schema_1_are_read_and_written() {
    let dir = tempfile::tempdir().unwrap();
    Connection::open(dir.path().join("catalog.sqlite")).unwrap().execute_batch(VERSION_1).unwrap();
    let catalog = RefCell::new(Catalog::open(dir.path()).unwrap());
    let desk = Desk { dir, catalog, now: Cell::new(1_000_000) };
    assert_eq!(desk.dataset("penguins".into()).unwrap(), dataset(DATASET, "penguins"));
    assert_eq!(desk.resolve(DATASET, "main".into()).unwrap().version, version(1, 1));
    assert_eq!(desk.placements(DATASET, vec![SegmentNumber(0)]).unwrap(), [segment(0)]);
    assert_eq!(desk.head(DATASET).unwrap().unwrap().published, [provider(4)]);
    assert_eq!(desk.providers().unwrap().len(), 8);
    assert_eq!(desk.leases(DATASET).unwrap().len(), 1);
    assert!(!desk.jobs(10).unwrap().is_empty());
    assert_eq!(desk.setting("owner".into()).unwrap().as_deref(), Some("somebody"));
    desk.push_version(2);
    let connection = &desk.catalog.borrow().connection;
    assert!(!connection.prepare("PRAGMA foreign_key_check").unwrap().exists([]).unwrap());
}

/// One request of each kind that takes more than numbers, all of them well-formed.
fn requests() -> Vec<Request> {
    let (text, lease) = (|| "main".to_owned(), LeaseId(1));
    let push = Push { lease, parent: None, first_segment: SegmentNumber(0) };
    let new = NewVersion {
        record: version(1, push.first_segment.0),
        branch: text(),
        base: BranchBase { slot: 0, parent: None },
    };
    let commit = Commit {
        dataset: DATASET,
        lease,
        version: Some(new),
        relies_on: None,
        relocations: Vec::new(),
        pages: vec![NumberedPage { list: NumberedList::Map, level: 0, page: 0, link: link(0, 0) }],
        head: HeadRecord { sequence: 1, bytes: vec![1], segments: vec![SegmentNumber(0)] },
        through: ChangeNumber(0),
        counts: Counts { segments: 0, versions: 1, refs: 1 },
        live: vec![LiveDelta { segment: SegmentNumber(0), bytes: -1 }],
    };
    let holding = Holding { provider: provider(1), until: Timestamp(1) };
    let release = Work::ReleaseClaims { provider: provider(1), fragments: vec![fragment(0, 0)] };
    let part = Restoration {
        segments: vec![segment(3)],
        head: Some(commit.head.clone()),
        ..restoration("restored", DATASET, vec![version(4, 3)])
    };
    vec![
        Request::PutSetting { key: text(), value: text() },
        Request::PutProvider { profile: profile(1) },
        Request::RecordContacts {
            contacts: vec![Contact { provider: provider(1), outcome: Outcome::Answered { latency_us: 1 } }],
        },
        Request::CreateDataset { dataset: dataset(DatasetId([5; 32]), "other") },
        Request::Dataset { name: text() },
        Request::RenameDataset { dataset: DATASET, name: text() },
        Request::BeginPush { dataset: DATASET, branch: text(), owner: text(), hold_seconds: 9, reserve: 9 },
        Request::AllocateSegments { lease, count: 3 },
        Request::RecordSegment { lease, placement: segment(0), claims_until: Timestamp(1) },
        Request::UseSegments { lease, segments: vec![SegmentNumber(0)] },
        Request::CommitBase { lease, branch: Some(text()) },
        Request::Commit { commit },
        Request::SegmentsIn {
            dataset: DATASET,
            first: SegmentNumber(0),
            last: SegmentNumber(9),
            lease: Some(lease),
        },
        Request::Pages { dataset: DATASET, list: NumberedList::Refs, level: 0, first: 0, last: 9 },
        Request::PagesIn { dataset: DATASET, list: NumberedList::Refs, segments: vec![SegmentNumber(0)] },
        Request::SetHolder { key: key(0, 0), holding: Some(holding) },
        Request::DueClaims {
            dataset: Some(DATASET),
            before: Timestamp(9),
            after: Some(DuePosition { until: Timestamp(1), key: key(0, 0) }),
            limit: 9,
        },
        Request::RenewClaims { claims: vec![RenewedClaim { key: key(0, 0), holding }] },
        Request::Resolve { dataset: DATASET, text: text() },
        Request::CreateRef {
            dataset: DATASET,
            name: text(),
            kind: RefKind::Branch,
            version: VersionId([1; 32]),
        },
        Request::MarkPublished { dataset: DATASET, sequence: 1, provider: provider(1) },
        Request::AddJob { work: release, not_before: Timestamp(1) },
        Request::TakeJobs { limit: 9, hold_seconds: 9 },
        Request::FailJob { job: crate::records::JobId(1), error: text() },
        Request::Restore { part },
    ]
}

fn hostile() -> impl Strategy<Value = serde_json::Value> {
    let text = prop_oneof![
        prop::sample::select(vec![
            "",
            "\u{0}",
            "../..",
            "' OR 1=1 --",
            "main",
            "deadbeef",
            "\u{202e}x",
            "-rf",
            "NaN",
            "branch",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,40}",
        "[0-9a-f]{64}",
        any::<bool>().prop_map(|long| "a".repeat(if long { 100_000 } else { 129 })),
    ];
    let number = prop::sample::select(vec![
        0u64,
        1,
        2,
        255,
        256,
        u64::from(u32::MAX),
        1 << 40,
        (1 << 63) - 1,
        1 << 63,
        u64::MAX,
    ]);
    prop_oneof![
        4 => text.prop_map(serde_json::Value::from),
        4 => number.prop_map(serde_json::Value::from),
        1 => any::<i64>().prop_map(serde_json::Value::from),
        1 => any::<f64>().prop_map(serde_json::Value::from),
        1 => prop::sample::select(vec!["null", "[]", "{}", "true", "[[[]]]"])
            .prop_map(|text| serde_json::from_str(text).unwrap()),
    ]
}

/// Puts `hostile` in place of the `at`-th value (modulo their number), counted from the leaves' side.
fn poison(value: &mut serde_json::Value, at: &mut usize, hostile: &serde_json::Value) -> bool {
    let inside = match value {
        serde_json::Value::Array(values) => values.iter_mut().any(|value| poison(value, at, hostile)),
        serde_json::Value::Object(fields) => fields.values_mut().any(|value| poison(value, at, hostile)),
        _ => false,
    };
    if inside {
        return true;
    }
    if *at == 0 {
        *value = hostile.clone();
        return true;
    }
    *at -= 1;
    false
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(48))]

    #[test]
    fn hostile_requests_are_errors_and_leave_whole_books(
        poisons in prop::collection::vec((any::<prop::sample::Index>(), 0..24usize, hostile()), 16),
    ) {
        let desk = Desk::new();
        let all = requests();
        for (which, mut at, hostile) in poisons {
            let mut json = serde_json::to_value(which.get(&all)).unwrap();
            poison(&mut json, &mut at, &hostile);
            // From bytes, as the socket gets them.
            let Ok(request) = serde_json::from_slice::<Request>(&serde_json::to_vec(&json).unwrap()) else { continue };
            let answer = desk.catalog.borrow_mut().execute(request.clone(), Timestamp(1_000_000));
            let broken = matches!(answer, Err(CatalogError::Corrupt { .. } | CatalogError::Disk { .. }));
            prop_assert!(!broken, "{request:?}: {answer:?}");
        }
        // Everything that was let in can be read.
        desk.datasets().unwrap();
        desk.providers().unwrap();
        desk.take_jobs(100, 1).unwrap();
        let connection = &desk.catalog.borrow().connection;
        prop_assert!(!connection.prepare("PRAGMA foreign_key_check").unwrap().exists([]).unwrap());
    }
}

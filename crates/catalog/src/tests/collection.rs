//! Collections beside pushes: what is spared, and what is given up.

use super::{DATASET, Desk, HOUR, fragment, gone, live_bytes, map_change, provider, segment};
use crate::error::CatalogError;
use crate::operations::Books;
use crate::records::{ChangeNumber, LiveDelta, Work};
use seedbank_formats::{SegmentNumber, Timestamp};

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
            Work::ReleaseClaims { provider, fragments, .. } => Some((provider, fragments)),
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

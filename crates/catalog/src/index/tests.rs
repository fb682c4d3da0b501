//! The index on a real disk, against a map.

use super::{FORGOTTEN_MAX, Index, IndexError, Overlay, Span, current, merge_depth, names};
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use seedbank_formats::place::Place;
use seedbank_formats::{ChunkId, DatasetId, SegmentNumber};
use std::collections::{BTreeMap, BTreeSet};

const DATASET: DatasetId = DatasetId([3; 32]);

fn id(number: u64) -> ChunkId {
    ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn place(segment: u64, index: u32) -> Place {
    Place { segment: SegmentNumber(segment), index }
}

fn items(segment: u64, ids: std::ops::Range<u64>) -> Vec<(ChunkId, Place)> {
    ids.zip(0..).map(|(number, index)| (id(number), place(segment, index))).collect()
}

#[test]
fn newest_place_wins_and_forgotten_segments_uncover_older_ones() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), DATASET).unwrap();
    index.add(items(1, 0..100)).unwrap();
    index.add(items(2, 50..60)).unwrap();
    let at = |number| index.lookup(&id(number)).unwrap();
    assert_eq!((at(49), at(50), at(200)), (Some(place(1, 49)), Some(place(2, 0)), None));
    index.forget_segments([SegmentNumber(2)]).unwrap();
    assert_eq!(at(50), Some(place(1, 50)));
    index.forget_segments([SegmentNumber(1)]).unwrap();
    assert_eq!((at(49), at(50)), (None, None));
    drop(index);
    let index = Index::open(dir.path(), DATASET).unwrap();
    assert_eq!(index.lookup(&id(50)).unwrap(), None);
}

#[test]
fn of_an_id_that_is_added_twice_at_once_the_last_counts() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), DATASET).unwrap();
    index.add(vec![(id(1), place(1, 1)), (id(2), place(1, 2)), (id(1), place(1, 3))]).unwrap();
    assert_eq!(index.lookup(&id(1)).unwrap(), Some(place(1, 3)));
    assert_eq!(index.items(), 2);
}

#[test]
fn runs_stay_few_and_every_item_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), DATASET).unwrap();
    for segment in 0..200 {
        index.add(items(segment, segment * 10..segment * 10 + 10 + segment % 7)).unwrap();
        assert!(index.runs() <= 10, "{} runs after {segment} segments", index.runs());
    }
    let files = names(dir.path()).unwrap();
    assert_eq!(files.iter().filter(|name| name.ends_with(".run")).count(), index.runs());
    assert!((0..2000).all(|number| index.lookup(&id(number)).unwrap().is_some()));
}

#[test]
fn merging_leaves_each_run_as_large_as_all_newer_ones() {
    let mut sizes: Vec<u64> = Vec::new();
    let (mut written, mut added) = (0, 0);
    for step in 0..5000u64 {
        let size = 1 + step * 7919 % 1000;
        sizes.insert(0, size);
        let depth = merge_depth(&sizes);
        let merged: u64 = sizes.drain(..depth).sum();
        sizes.insert(0, merged);
        (written, added) = (written + merged, added + size);
        let mut newer = 0;
        for size in &sizes {
            assert!(*size >= newer, "{sizes:?}");
            newer += size;
        }
        assert!(sizes.len() <= 24);
    }
    assert!(written < added * 14, "an item is rewritten {} times", written / added);
}

#[test]
fn readers_keep_reading_through_merges_and_see_news_when_they_refresh() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Index::open(dir.path(), DATASET).unwrap();
    writer.add(items(1, 0..50)).unwrap();
    let reader = Index::open(dir.path(), DATASET).unwrap();
    for segment in 2..10 {
        writer.add(items(segment, segment * 100..segment * 100 + 50)).unwrap();
    }
    assert_eq!(reader.lookup(&id(7)).unwrap(), Some(place(1, 7)), "its file has been deleted");
    assert_eq!(reader.lookup(&id(900)).unwrap(), None);
    reader.refresh().unwrap();
    assert_eq!(reader.lookup(&id(900)).unwrap(), Some(place(9, 0)));
}

#[test]
fn two_writers_and_readers_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for writer in 0..2u64 {
            let dir = dir.path();
            scope.spawn(move || {
                let index = Index::open(dir, DATASET).unwrap();
                for round in 0..25 {
                    let first = (round * 2 + writer) * 20;
                    index.add(items(round * 2 + writer, first..first + 20)).unwrap();
                    assert!(index.lookup(&id(first)).unwrap().is_some());
                }
            });
        }
        for _ in 0..50 {
            let reader = Index::open(dir.path(), DATASET).unwrap();
            reader.lookup(&id(0)).unwrap();
        }
    });
    let index = Index::open(dir.path(), DATASET).unwrap();
    assert!((0..1000).all(|number| index.lookup(&id(number)).unwrap().is_some()));
}

#[test]
fn missing_and_damaged_runs_ask_for_a_rebuild_which_mends_them() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), DATASET).unwrap();
    index.add(items(1, 0..100)).unwrap();
    index.add(items(2, 100..110)).unwrap();
    index.add(items(3, 110..111)).unwrap();
    index.forget_segments([SegmentNumber(3)]).unwrap();
    let runs: Vec<_> = names(dir.path()).unwrap().into_iter().filter(|name| name.ends_with(".run")).collect();
    assert!(runs.len() >= 2);
    let middle = dir.path().join(Span { first: 1, last: 1 }.file_name());
    let good = std::fs::read(&middle).unwrap();
    let damaged = || matches!(Index::open(dir.path(), DATASET), Err(IndexError::Damaged { .. }));
    std::fs::remove_file(&middle).unwrap();
    assert!(damaged());
    std::fs::write(&middle, &good[..good.len() - 1]).unwrap();
    assert!(damaged());

    let all = items(1, 0..100).into_iter().chain(items(2, 100..110));
    let rebuilt = Index::rebuild(dir.path(), DATASET, all).unwrap();
    let again = Index::open(dir.path(), DATASET).unwrap();
    for index in [rebuilt, again] {
        assert_eq!(index.runs(), 1);
        assert_eq!(index.lookup(&id(105)).unwrap(), Some(place(2, 5)));
        assert_eq!(index.lookup(&id(110)).unwrap(), None);
        index.add(items(4, 110..120)).unwrap();
    }
    assert!(Index::open(dir.path(), DatasetId([4; 32])).is_err());
}

#[test]
fn leftovers_of_a_killed_writer_are_ignored_and_swept() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), DATASET).unwrap();
    index.add(items(1, 0..10)).unwrap();
    let first = dir.path().join(Span { first: 0, last: 0 }.file_name());
    let copy = std::fs::read(&first).unwrap();
    index.add(items(2, 10..40)).unwrap();
    assert!(!first.exists(), "it was merged");
    // As if the writer had died between the rename of the merged run and the deletion of its sources.
    std::fs::write(&first, copy).unwrap();
    std::fs::write(dir.path().join("half.run.tmp"), b"half").unwrap();
    let index = Index::open(dir.path(), DATASET).unwrap();
    assert_eq!((index.runs(), index.items()), (1, 40));
    index.add(items(3, 50..51)).unwrap();
    assert!(!dir.path().join("half.run.tmp").exists());
    assert_eq!(index.lookup(&id(3)).unwrap(), Some(place(1, 3)));
}

#[test]
fn many_forgotten_segments_are_cleaned_out() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path(), DATASET).unwrap();
    index.add(items(1, 0..10)).unwrap();
    index.add(items(FORGOTTEN_MAX as u64 * 2, 10..15)).unwrap();
    index.forget_segments((0..=FORGOTTEN_MAX as u64).map(SegmentNumber)).unwrap();
    assert_eq!((index.runs(), index.items()), (1, 5));
    assert!(std::fs::metadata(dir.path().join("forgotten")).unwrap().len() < 100);
    assert_eq!(index.lookup(&id(3)).unwrap(), None);
    assert!(index.lookup(&id(12)).unwrap().is_some());
}

#[test]
fn runs_must_cover_every_addition() {
    let span = |first, last| Span { first, last };
    assert_eq!(current(vec![]), Some(vec![]));
    let merged = vec![span(0, 3), span(1, 2), span(4, 4), span(3, 3)];
    assert_eq!(current(merged), Some(vec![span(4, 4), span(0, 3)]));
    assert_eq!(current(vec![span(1, 2)]), None);
    assert_eq!(current(vec![span(0, 0), span(2, 2)]), None);
    assert_eq!(current(vec![span(0, 2), span(1, 4)]), None);
    assert_eq!(current(vec![span(0, u64::MAX)]), Some(vec![span(0, u64::MAX)]));
}

#[test]
fn overlay_gives_up_each_item_with_its_segment() {
    let mut overlay = Overlay::default();
    overlay.insert(id(1), place(5, 0));
    overlay.insert(id(2), place(5, 1));
    overlay.insert(id(2), place(6, 0));
    assert_eq!(overlay.lookup(&id(2)), Some(place(6, 0)));
    assert_eq!(overlay.take(SegmentNumber(5)), [(id(1), place(5, 0))]);
    assert_eq!(overlay.lookup(&id(1)), None);
    assert_eq!(overlay.take(SegmentNumber(6)), [(id(2), place(6, 0))]);
    assert_eq!(overlay.take(SegmentNumber(6)), []);
}

#[derive(Debug, Clone)]
enum Step {
    Add(u64, Vec<u64>),
    Forget(u64),
    Reopen,
    Rebuild,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..6u64, prop::collection::vec(0..300u64, 1..120)).prop_map(|(segment, ids)| Step::Add(segment, ids)),
        1 => (0..6u64).prop_map(Step::Forget),
        1 => any::<bool>().prop_map(|again| if again { Step::Reopen } else { Step::Rebuild }),
    ]
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(24))]

    #[test]
    fn index_knows_the_newest_place_unless_it_was_forgotten(steps in prop::collection::vec(step(), 1..14)) {
        let dir = tempfile::tempdir().unwrap();
        let mut index = Index::open(dir.path(), DATASET).unwrap();
        // All places that an id was given, newest last. Segment numbers are never used twice.
        let mut histories: BTreeMap<u64, Vec<Place>> = BTreeMap::new();
        let mut numbers: BTreeMap<u64, u64> = (0..6).map(|slot| (slot, slot)).collect();
        let mut forgotten = BTreeSet::new();
        for step in steps {
            match step {
                Step::Add(slot, ids) => {
                    let mut added = Vec::new();
                    for (number, item) in ids.iter().zip(0..) {
                        let place = place(numbers[&slot], item);
                        added.push((id(*number), place));
                        histories.entry(*number).or_default().push(place);
                    }
                    index.add(added).unwrap();
                }
                Step::Forget(slot) => {
                    let segment = numbers[&slot];
                    index.forget_segments([SegmentNumber(segment)]).unwrap();
                    forgotten.insert(SegmentNumber(segment));
                    numbers.insert(slot, segment + 6);
                }
                Step::Reopen => index = Index::open(dir.path(), DATASET).unwrap(),
                Step::Rebuild => {
                    let all = histories.iter().flat_map(|(number, places)| {
                        places.iter().map(|place| (id(*number), *place))
                    });
                    let live: Vec<_> =
                        all.filter(|(_, place)| !forgotten.contains(&place.segment)).collect();
                    index = Index::rebuild(dir.path(), DATASET, live).unwrap();
                }
            }
            for number in 0..300 {
                let found = index.lookup(&id(number)).unwrap();
                let places = histories.get(&number).map(Vec::as_slice).unwrap_or_default();
                match places.last() {
                    Some(newest) if !forgotten.contains(&newest.segment) => prop_assert_eq!(found, Some(*newest)),
                    // A merge may have dropped the older places, which is no more than a missed deduplication.
                    _ => {
                        let is_live = |found: Place| {
                            places.contains(&found) && !forgotten.contains(&found.segment)
                        };
                        prop_assert!(found.is_none_or(is_live));
                    }
                }
            }
        }
    }
}

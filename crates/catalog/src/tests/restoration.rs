//! Books that are made again, or brought up to date, from a head.

use super::{DATASET, Desk, dataset, fragment, provider, restoration, version};
use crate::error::CatalogError;
use crate::operations::Books;
use crate::records::{Change, HeadRecord, NumberedList, Restoration, Work};
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::{Asked, DatasetId, SegmentNumber, Timestamp};

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
fn an_old_copy_forgets_its_content_when_a_newer_head_is_restored_and_goes_on_from_that() {
    let (old, new) = (Desk::new(), Desk::new());
    for desk in [&old, &new] {
        desk.push_version(1);
    }
    let (second, _) = new.push_version(2);
    let (first_new, metadata) = (second.first_segment, SegmentNumber(second.first_segment.0 + 1));
    let push = old.push();
    old.record(&push, push.first_segment.0);
    let release =
        Work::ReleaseClaims { provider: provider(0), fragments: vec![fragment(77, 0)], asked: Asked(1) };
    old.add_job(release, Timestamp(0)).unwrap();
    // The newest head knows nothing of the first version, nor of its data.
    new.remove_version(DATASET, version(1, 1).id).unwrap();
    let head = new.head(DATASET).unwrap().unwrap();
    let named = vec![metadata];
    let segments: Vec<SegmentPlacement> =
        new.segments_in(DATASET, first_new, SegmentNumber(99), None).unwrap();
    let begin = Restoration {
        begins: Some(head.sequence),
        segments: segments[..1].to_vec(),
        ..restoration("penguins", DATASET, Vec::new())
    };
    let rest = Restoration {
        segments: segments[1..].to_vec(),
        refs: new.refs(DATASET).unwrap(),
        head: Some(HeadRecord { sequence: head.sequence, bytes: head.bytes.clone(), segments: named }),
        ..restoration("penguins", DATASET, new.versions(DATASET, None, 99).unwrap())
    };
    for part in [&begin, &begin, &rest] {
        old.restore(part.clone()).unwrap();
    }
    assert_eq!(old.refs(DATASET).unwrap(), new.refs(DATASET).unwrap());
    assert_eq!(old.versions(DATASET, None, 99).unwrap(), new.versions(DATASET, None, 99).unwrap());
    assert_eq!(old.numbers(), segments.iter().map(|segment| segment.number.0).collect::<Vec<_>>());
    assert_eq!(old.head(DATASET).unwrap().unwrap().bytes, head.bytes);
    assert!(matches!(old.use_segments(push.lease, Vec::new()), Err(CatalogError::LeaseLost)));
    let releases =
        old.jobs(99).unwrap().into_iter().filter(|job| matches!(job.work, Work::ReleaseClaims { .. }));
    assert_eq!(releases.count(), 1, "nothing that was forgotten is released");
    // The same head again, or an older one, takes nothing away.
    old.restore(begin.clone()).unwrap();
    old.restore(Restoration { begins: Some(1), ..begin }).unwrap();
    assert_eq!(old.versions(DATASET, None, 99).unwrap().len(), 1);
    assert!(old.push().first_segment.0 >= 20, "numbers that were given out stay so");
}

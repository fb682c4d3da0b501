//! Names: datasets, versions, refs, settings.

use super::{DATASET, Desk, dataset, restoration, version};
use crate::error::CatalogError;
use crate::operations::Books;
use crate::records::{Change, NumberedList, VersionRecord, Work};
use seedbank_formats::checkpoint::RefKind;
use seedbank_formats::keys::KeyEpoch;
use seedbank_formats::{DatasetId, VersionId};

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
fn settings_are_remembered() {
    let desk = Desk::empty();
    assert_eq!(desk.setting("owner".into()).unwrap(), None);
    desk.put_setting("owner".into(), "a".into()).unwrap();
    desk.put_setting("owner".into(), "b".into()).unwrap();
    assert_eq!(desk.setting("owner".into()).unwrap().as_deref(), Some("b"));
}

//! Pushing to providers that stall, refuse, fill up or go away.

use crate::harness::{Kind, MIB, Way, World, options};
use seedbank_catalog::Books;
use seedbank_catalog::records::Work;
use seedbank_client::progress::Silent;
use seedbank_client::pull::verify;
use seedbank_client::push::PushError;
use seedbank_client::reader::Reader;
use seedbank_client::snapshot::Snapshot;
use seedbank_erasure::Scheme;
use seedbank_formats::policy::Policy;
use seedbank_protocol::store_exchange::StoreFailure;
use seedbank_stewardship::placement::Rule;
use seedbank_testkit::ByteStream;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_of_ten_stalled_every_index_is_held_and_nothing_is_left_over() {
    let mut world = World::start(10, 4, 8).await;
    world.segment_bytes = MIB;
    let source = world.source("tree");
    fs::write(source.join("file"), ByteStream::bytes(1, 6 * MIB)).unwrap();
    // It greets, and stalls as soon as the first segment number is given out.
    let stalled = world.providers[3].key;
    let way = world.provider(&stalled).way();
    let context = world.hooked(move |request| {
        if matches!(request, seedbank_catalog::Request::AllocateSegments { .. }) {
            way.send_replace(Way::Stalled);
        }
    });
    let report = world.push_in(&context, &options(&source), Arc::new(Silent)).await.unwrap();
    assert_eq!(report.missing, 0);
    assert!(report.segments > 6 && !report.holders.contains(&stalled), "{report:?}");
    // No two fragments of a segment have one holder.
    for segment in world.segments() {
        let mut holders: Vec<_> = segment.holders().collect();
        holders.sort();
        holders.dedup();
        assert_eq!(holders.len(), segment.scheme.total());
    }
    let record = world.books.resolve(world.keys.id, "main".to_owned()).unwrap().version;
    // On a busy machine a healthy provider may seem slow, and then a read is hedged.
    let mut undisturbed = false;
    for _ in 0..5 {
        world.renew_network();
        let reader = Reader::of_books(&world.books, &world.network, &world.keys);
        let snapshot = Snapshot::open(&reader, record.id, record.version, record.tree).await.unwrap();
        verify(&reader, &snapshot, Arc::new(Silent)).await.unwrap();
        undisturbed |= world.network.traffic.decodes.load(Ordering::Relaxed) == 0;
    }
    assert!(undisturbed);

    // Once it is back, what it took after all is released, too.
    world.provider(&stalled).set(Way::Open);
    world.pass(60 * 60);
    world.maintenance().release().await.unwrap();
    assert!(
        !world.has_jobs(|work| matches!(work, Work::ReleaseClaims { .. })),
        "{:?}",
        world.books.jobs(100)
    );
    world.check_claims().await;
    assert_eq!(world.check_from_head(&source).await, report.version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn providers_that_refuse_are_passed_over_and_not_tried_first_again() {
    let mut kinds = vec![Kind::default(); 6];
    kinds[2].quota = 0;
    kinds[4].quota = 300 * 1024;
    let policy = Policy { scheme: Some(Scheme::new(2, 4).unwrap()), ..Policy::default() };
    let mut world = World::start_with(kinds, policy).await;
    world.segment_bytes = MIB;
    let source = world.source("tree");
    fs::write(source.join("file"), ByteStream::bytes(1, 8 * MIB)).unwrap();
    let report = world.push(&source).await;
    assert_eq!(report.missing, 0);
    assert!(!report.holders.contains(&world.providers[2].key));
    assert_eq!(
        report.failures.get(&world.providers[2].key).copied().unwrap_or(StoreFailure::Refused),
        StoreFailure::Refused
    );
    world.check_claims().await;
    assert_eq!(world.check_from_head(&source).await, report.version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_provider_costs_its_fragments_and_no_more_until_another_comes() {
    let mut kinds = vec![Kind::default(); 4];
    kinds[1].capacity = 17 << 20;
    let policy = Policy { scheme: Some(Scheme::new(2, 4).unwrap()), ..Policy::default() };
    let mut world = World::start_with(kinds, policy).await;
    world.segment_bytes = MIB;
    let source = world.source("tree");
    fs::write(source.join("file"), ByteStream::bytes(1, 40 * MIB)).unwrap();
    let report = world.push(&source).await;
    assert!(report.missing > 0, "{report:?}");
    // All data fragments are held: reads decode nothing.
    for segment in world.segments().iter().filter(|segment| !segment.scheme.is_copies()) {
        assert!(segment.fragments[..2].iter().all(|fragment| fragment.holder.is_some()), "{segment:?}");
    }
    assert_eq!(world.check_from_head(&source).await, report.version);

    world.add_provider(Kind::default()).await;
    let completed = world.maintenance().complete_missing(100, world.now()).await.unwrap();
    assert_eq!((completed.fragments, completed.still_missing), (report.missing, 0));
    world.maintenance().renew_claims(world.now()).await.unwrap();
    world.check_claims().await;
    // Its new holders are in the next head's map.
    world.maintenance().refresh_head(world.keys.id).await.unwrap();
    assert_eq!(world.check_from_head(&source).await, report.version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_that_can_t_be_met_say_which_rule_and_how_many_meet_it() {
    let world = World::start(3, 2, 4).await;
    let source = world.source("tree");
    let error = world.try_push(&options(&source)).await.unwrap_err();
    assert_eq!(error.to_string(), "4 fragments need 4 distinct providers: have 3");

    let same = |operator: &str| Kind { operator: Some(operator.to_owned()), ..Kind::default() };
    let policy = Policy { scheme: Some(Scheme::new(2, 4).unwrap()), ..Policy::default() };
    let kinds = vec![same("one"), same("one"), same("two"), same("three")];
    let world = World::start_with(kinds, policy).await;
    let source = world.source("tree");
    match world.try_push(&options(&source)).await.unwrap_err() {
        PushError::Unmet(unmet) => {
            assert_eq!((unmet.rule, unmet.satisfied, unmet.needed), (Rule::Operators, 3, 4));
        }
        other => panic!("{other:?}"),
    }

    // Too many full ones: the fewest receipts of 2 of 4 are 3.
    let mut kinds = vec![Kind::default(); 4];
    (kinds[0].capacity, kinds[1].capacity) = (16 << 20, 16 << 20);
    let policy = Policy { scheme: Some(Scheme::new(2, 4).unwrap()), ..Policy::default() };
    let world = World::start_with(kinds, policy).await;
    let source = world.source("tree");
    fs::write(source.join("file"), ByteStream::bytes(1, 40 * MIB)).unwrap();
    match world.try_push(&options(&source)).await.unwrap_err() {
        PushError::Unmet(unmet) => assert_eq!((unmet.rule, unmet.satisfied), (Rule::Space, 2)),
        other => panic!("{other:?}"),
    }
    assert!(world.books.leases(world.keys.id).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_goes_away_before_claims_are_confirmed_is_asked_again() {
    let world = World::start(5, 2, 4).await;
    let source = world.source("tree");
    fs::write(source.join("file"), ByteStream::bytes(1, MIB)).unwrap();
    // It stores its fragments, and is gone when the version is committed.
    let leaving = world.providers[0].key;
    let way = world.provider(&leaving).way();
    let context = world.hooked(move |request| {
        if matches!(request, seedbank_catalog::Request::Commit { .. }) {
            way.send_replace(Way::Closed);
        }
    });
    let progress = Arc::new(Silent);
    let report = world.push_in(&context, &options(&source), progress).await.unwrap();
    assert!(report.heads >= 4);
    let soon = world.now().plus_seconds(48 * 60 * 60);
    let due = world.books.due_claims(None, soon, None, 1000).unwrap();
    assert!(due.iter().all(|claim| claim.holding.provider == leaving), "{due:?}");
    assert_eq!(!due.is_empty(), report.holders.contains(&leaving));
    assert_eq!(world.check_from_head(&source).await, report.version);

    world.provider(&leaving).set(Way::Open);
    world.maintenance().renew_claims(world.now()).await.unwrap();
    world.check_claims().await;
}

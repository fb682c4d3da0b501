//! Claims that no book knows, against real providers.

use crate::network::World;
use seedbank_catalog::Books;
use seedbank_client::maintain::{CompareError, Compared};
use seedbank_client::network::wall_clock;
use seedbank_formats::{FragmentId, Timestamp};
use seedbank_testkit::TreeSpec;
use std::collections::BTreeSet;

const HOUR: u64 = 60 * 60;
const SIXTY_DAYS: u64 = 60 * 24 * HOUR;

/// What a comparison at that time counts; none of the tests has more than one page of claims.
async fn compare(world: &World, now: Timestamp) -> Compared {
    world.maintenance().compare_claims(now).await.unwrap()
}

/// All that each provider holds for the owner by its own list, and by the books.
async fn lists_agree(world: &World, others: &BTreeSet<FragmentId>) {
    for provider in &world.providers {
        let far = wall_clock().plus_seconds(1 << 30);
        let known = world.books.due_claims(None, far, None, 10_000).unwrap().into_iter();
        let known = known.filter(|claim| claim.holding.provider == provider.key).map(|claim| claim.fragment);
        let known: BTreeSet<FragmentId> = known.collect();
        let listed = world.claims(provider.key).await;
        let orphans: BTreeSet<FragmentId> = listed.difference(&known).copied().collect();
        assert!(known.is_subset(&listed), "what the books know stays");
        assert_eq!(orphans, *others);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lasting_claims_that_no_book_knows_are_released_after_a_day_and_no_others() {
    let world = World::start(4).await;
    let tree = world.folder.path().join("tree");
    TreeSpec::tiny(1).write(&tree).unwrap();
    let now = wall_clock();
    assert_eq!(compare(&world, now).await, Compared::default(), "it begins to look from now on");
    let pushed = world.push(&tree).await;
    let other = world.folder.path().join("other");
    TreeSpec::tiny(2).write(&other).unwrap();
    world.push_elsewhere(&other).await;
    let (lasting, pending) = (b"it came after it was given up", b"and this ends by itself");
    for provider in &world.providers {
        let until = wall_clock().plus_seconds(SIXTY_DAYS);
        world.leave_orphan(provider.key, lasting, Some(until)).await;
        world.leave_orphan(provider.key, pending, None).await;
    }
    let (lasting, pending) = (FragmentId::of(lasting), FragmentId::of(pending));

    let early = compare(&world, now.plus_seconds(23 * HOUR)).await;
    assert_eq!((early.orphans, early.finished), (0, 4));
    assert!(early.claims > 16, "{early:?}");
    let resting = compare(&world, now.plus_seconds(24 * HOUR)).await;
    assert_eq!(resting, Compared::default(), "a list is gone through once a day");
    lists_agree(&world, &BTreeSet::from([lasting, pending])).await;

    let later = compare(&world, now.plus_seconds(48 * HOUR)).await;
    assert_eq!((later.orphans, later.finished, later.unanswered), (4, 4, 0));
    world.maintenance().release().await.unwrap();
    lists_agree(&world, &BTreeSet::from([pending])).await;
    world.check(pushed.version).await;
    let again = compare(&world, now.plus_seconds(73 * HOUR)).await;
    assert_eq!((again.orphans, again.finished), (0, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_from_before_the_books_began_to_compare_are_left_to_end() {
    let world = World::start(2).await;
    let until = wall_clock().plus_seconds(SIXTY_DAYS);
    world.leave_orphan(world.providers[0].key, b"whose is it?", Some(until)).await;
    // Another home of the same owner stored it, and these books were made anew after.
    let made = wall_clock().plus_seconds(HOUR);
    assert_eq!(compare(&world, made).await, Compared::default());
    let compared = compare(&world, made.plus_seconds(48 * HOUR)).await;
    assert_eq!((compared.claims, compared.orphans), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn books_behind_a_providers_head_release_nothing() {
    let world = World::start(4).await;
    let tree = world.folder.path().join("tree");
    TreeSpec::tiny(3).write(&tree).unwrap();
    let now = wall_clock();
    compare(&world, now).await;
    world.push(&tree).await;
    let until = wall_clock().plus_seconds(SIXTY_DAYS);
    world.leave_orphan(world.providers[1].key, b"the other home stored it", Some(until)).await;
    world.publish_from_elsewhere().await;
    let compared = world.maintenance().compare_claims(now.plus_seconds(48 * HOUR)).await;
    assert!(matches!(compared, Err(CompareError::Behind(_))), "{compared:?}");
    let jobs = world.books.jobs(10).unwrap();
    assert!(jobs.iter().all(|job| !format!("{:?}", job.work).contains("Release")), "{jobs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provider_that_is_away_is_compared_with_when_it_is_back() {
    let mut world = World::start(2).await;
    let now = wall_clock();
    compare(&world, now).await;
    let key = world.providers[0].key;
    let until = wall_clock().plus_seconds(SIXTY_DAYS);
    world.leave_orphan(key, b"an orphan", Some(until)).await;
    let dir = world.take(key).stop().await;
    let compared = compare(&world, now.plus_seconds(48 * HOUR)).await;
    assert_eq!((compared.orphans, compared.unanswered, compared.finished), (0, 1, 1));
    world.resume(&dir).await;
    let compared = compare(&world, now.plus_seconds(48 * HOUR)).await;
    assert_eq!((compared.orphans, compared.unanswered, compared.finished), (1, 0, 1));
}

//! Each step against real providers.

use crate::network::World;
use seedbank_catalog::Books;
use seedbank_catalog::records::DueClaim;
use seedbank_client::maintain::{Compacted, Greeted, Refreshed};
use seedbank_client::network::wall_clock;
use seedbank_formats::{Asked, PublicKey};
use seedbank_testkit::TreeSpec;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn write_tree(folder: &Path, name: &str, seed: u64) -> PathBuf {
    let tree = folder.join(name);
    TreeSpec::tiny(seed).write(&tree).unwrap();
    tree
}

/// All claims in the books.
fn claims(world: &World) -> Vec<DueClaim> {
    world.books.due_claims(None, wall_clock().plus_seconds(1 << 30), None, 10_000).unwrap()
}

/// How many fragments each provider holds by the books.
fn holdings(world: &World) -> BTreeMap<PublicKey, usize> {
    let mut holdings = BTreeMap::new();
    for claim in claims(world) {
        *holdings.entry(claim.holding.provider).or_default() += 1;
    }
    holdings
}

/// Work until nothing is due.
async fn work(world: &World) -> u64 {
    let mut completed = 0;
    loop {
        let jobs = world.maintenance().work(wall_clock()).await.unwrap();
        completed += jobs.fragments_completed;
        if jobs.done + jobs.failed == 0 {
            return completed;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_providers_fragments_find_other_holders() {
    let mut world = World::start(6).await;
    let tree = write_tree(world.folder.path(), "tree", 1);
    let pushed = world.push(&tree).await;
    let before = holdings(&world);
    let total: usize = before.values().sum();
    let (lost, count) =
        before.iter().max_by_key(|(_, count)| **count).map(|(key, count)| (*key, *count)).unwrap();
    world.take(lost).stop().await;
    assert_eq!(world.books.forget_holdings(lost).unwrap(), count as u64);

    assert_eq!(work(&world).await, count as u64);
    assert!(world.books.missing_fragments(None, 10).unwrap().is_empty());
    let after = holdings(&world);
    assert_eq!(after.values().sum::<usize>(), total);
    assert!(!after.contains_key(&lost));
    world.check(pushed.version).await;

    // Readers who have only a head learn of it.
    assert!(world.check_from_head(pushed.version).await.contains(&lost));
    assert_eq!(world.maintenance().refresh_heads().await.unwrap().heads, 1);
    assert!(!world.check_from_head(pushed.version).await.contains(&lost));
    assert_eq!(world.maintenance().refresh_heads().await.unwrap(), Refreshed::default());
    world.check(pushed.version).await;

    // Every claim is a real one.
    let later = wall_clock().plus_seconds(40 * 24 * 60 * 60);
    let claimed = holdings(&world).values().sum::<usize>() as u64;
    let renewed = world.maintenance().renew_claims(later).await.unwrap();
    assert_eq!((renewed.renewed, renewed.lost, renewed.unanswered), (claimed, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_provider_does_not_have_any_more_is_noticed_and_completed() {
    let world = World::start(4).await;
    let tree = write_tree(world.folder.path(), "tree", 2);
    let pushed = world.push(&tree).await;
    let (key, count) = holdings(&world).into_iter().next().unwrap();
    // It throws away what nobody claims.
    let before = claims(&world);
    let fragments: Vec<_> =
        before.iter().filter(|claim| claim.holding.provider == key).map(|claim| claim.fragment).collect();
    world.network.release(&key, &fragments, Asked(u64::MAX)).await.unwrap();

    let later = wall_clock().plus_seconds(40 * 24 * 60 * 60);
    let renewed = world.maintenance().renew_claims(later).await.unwrap();
    assert_eq!(renewed.lost, count as u64);
    assert_eq!(work(&world).await, count as u64);
    // Where four providers hold four fragments the same one gets its own back. Of three copies the fourth may take one.
    let after: BTreeMap<_, _> =
        claims(&world).iter().map(|claim| (claim.key, claim.holding.provider)).collect();
    assert_eq!(after.len(), before.len());
    let split =
        |claim: &&DueClaim| before.iter().filter(|other| other.key.segment == claim.key.segment).count() == 4;
    assert!(before.iter().any(|claim| split(&claim) && claim.holding.provider == key));
    for claim in before.iter().filter(split) {
        assert_eq!(after[&claim.key], claim.holding.provider);
    }
    world.check(pushed.version).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_version_gives_back_what_no_other_needs() {
    let world = World::start(4).await;
    let first = write_tree(world.folder.path(), "first", 3);
    let first = world.push(&first).await;
    let second = write_tree(world.folder.path(), "second", 4);
    let second = world.push(&second).await;
    let nothing = world.maintenance().collect(world.keys.id, wall_clock()).await.unwrap();
    assert!(nothing.collected.doomed.is_empty(), "{nothing:?}");
    world.check(first.version).await;

    let before: usize = holdings(&world).values().sum();
    world.books.remove_version(world.keys.id, first.version).unwrap();
    let collection = world.maintenance().collect(world.keys.id, wall_clock()).await.unwrap();
    assert!(!collection.collected.doomed.is_empty(), "{collection:?}");
    assert!(collection.live_bytes < nothing.live_bytes);
    let released = world.maintenance().release().await.unwrap();
    assert!(released.done > 0 && released.failed == 0, "{released:?}");
    let after: usize = holdings(&world).values().sum();
    // Small segments have three copies, others four fragments.
    let freed = (before - after) / collection.collected.doomed.len();
    assert!((3..=4).contains(&freed), "{before} {after}");
    world.check(second.version).await;

    // Pushed again, its chunks are stored again.
    let again = world.push(&world.folder.path().join("first")).await;
    world.check(again.version).await;
    world.books.remove_dataset(world.keys.id).unwrap();
    let released = world.maintenance().release().await.unwrap();
    assert!(released.done > 0 && released.failed == 0, "{released:?}");
    assert!(holdings(&world).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn providers_are_greeted_and_heads_reach_those_that_come_later() {
    let mut world = World::start(4).await;
    let tree = write_tree(world.folder.path(), "tree", 5);
    world.push(&tree).await;
    world.add_provider(4).await;
    let gone = world.providers[0].key;
    world.take(gone).stop().await;
    let greeted = world.maintenance().greet_providers().await.unwrap();
    assert_eq!(greeted, Greeted { known: 5, answered: 4, accepting: 4 });
    let stats = world.books.providers().unwrap().into_iter().find(|p| p.profile.key == gone).unwrap().stats;
    assert!(stats.failures_in_row > 0);

    assert_eq!(world.maintenance().publish_heads().await.unwrap(), 1);
    assert_eq!(world.books.head(world.keys.id).unwrap().unwrap().published.len(), 5);
    assert_eq!(world.maintenance().publish_heads().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lives_in_mostly_dead_segments_moves_and_the_rest_goes() {
    let world = World::start(4).await;
    let tree = write_tree(world.folder.path(), "tree", 6);
    let first = world.push(&tree).await;
    std::fs::remove_file(tree.join("huge.bin")).unwrap();
    std::fs::remove_dir_all(tree.join("copies")).unwrap();
    let second = world.push(&tree).await;
    world.books.remove_version(world.keys.id, first.version).unwrap();

    let collection = world.maintenance().collect(world.keys.id, wall_clock()).await.unwrap();
    let mostly_dead = collection.collected.rewrite.clone();
    assert!(!mostly_dead.is_empty(), "{collection:?}");
    // It is too little to pay.
    let nothing = world.maintenance().compact(world.keys.id, &mostly_dead).await.unwrap();
    assert_eq!(nothing, Compacted::default());
    let sources: Vec<_> = mostly_dead.iter().map(|live| live.segment).collect();
    let compacted = world.maintenance().compact_segments(world.keys.id, sources.clone()).await.unwrap();
    assert!(compacted.items > 0 && compacted.layouts > 0, "{compacted:?}");
    world.check(second.version).await;
    world.check_from_head(second.version).await;

    let collection = world.maintenance().collect(world.keys.id, wall_clock()).await.unwrap();
    let doomed = collection.collected.doomed;
    assert!(sources.iter().all(|source| doomed.contains(source)), "{sources:?} {doomed:?}");
    world.maintenance().release().await.unwrap();
    world.check(second.version).await;
    world.check_from_head(second.version).await;

    // A push finds the moved items where they are now.
    std::fs::write(tree.join("new.txt"), "new").unwrap();
    let third = world.push(&tree).await;
    assert!(third.counts.bytes_new < 10, "{:?}", third.counts);
    world.check(third.version).await;
    world.check(second.version).await;
}

//! Pushes that are cut short, and pushes under which something changes.

use crate::harness::{MIB, World, options};
use seedbank_catalog::records::{Holding, RenewedClaim};
use seedbank_catalog::{Books, Request};
use seedbank_client::network::wall_clock;
use seedbank_client::progress::{Progress, Silent};
use seedbank_client::push::{Made, PushOptions};
use seedbank_formats::{Asked, VersionId};
use seedbank_testkit::ByteStream;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// Says when so many bytes were read.
struct Until {
    bytes: u64,
    read: AtomicU64,
    reached: Notify,
}

impl Progress for Until {
    fn total(&self, _files: u64, _bytes: u64) {}

    fn advance(&self, _files: u64, bytes: u64) {
        if self.read.fetch_add(bytes, Ordering::Relaxed) + bytes >= self.bytes {
            self.reached.notify_one();
        }
    }

    fn fresh(&self, _bytes: u64) {}
}

fn write_files(source: &Path) {
    for file in 0..6 {
        fs::write(source.join(format!("file-{file}")), ByteStream::bytes(file, 2 * MIB)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_was_cut_short_goes_on_where_it_was() {
    let mut world = World::start(4, 2, 4).await;
    world.segment_bytes = MIB;
    let source = world.source("tree");
    write_files(&source);
    // Cut after so many bytes were read, and whenever that was noticed.
    for mib in [1, 2, 4, 7, 9, 12] {
        let until =
            Arc::new(Until { bytes: mib * MIB as u64, read: AtomicU64::new(0), reached: Notify::new() });
        let context = world.context();
        let (options, progress) = (options(&source), Arc::clone(&until));
        tokio::select! {
            biased;
            () = until.reached.notified() => {}
            report = world.push_in(&context, &options, progress) => drop(report.unwrap()),
        }
    }
    let report = world.push(&source).await;
    assert_eq!(report.counts.bytes_new + report.counts.bytes_deduplicated, 12 * MIB as u64);
    assert_eq!(world.check_from_head(&source).await, report.version);
    // Every chunk was sent once, but for the segments that a cut left half placed: one that was being filled and two
    // under way each time.
    let sent = world.network.traffic.bytes_sent.load(Ordering::Relaxed);
    assert!(sent < 2 * (12 + 6 * 2 + 2) * MIB as u64, "{sent}");
    assert!(world.books.leases(world.keys.id).unwrap().is_empty());
    // What earlier runs stored is confirmed as well.
    let soon = world.now().plus_seconds(48 * 60 * 60);
    let committed: Vec<_> = world.segments().iter().map(|segment| segment.number).collect();
    let due = world.books.due_claims(None, soon, None, 1000).unwrap();
    assert!(!due.iter().any(|claim| committed.contains(&claim.key.segment)), "{due:?}");
}

/// Cuts a push short when everything but its version is stored. Gives what it sent.
async fn cut_before_the_commit(world: &World, source: &Path) -> u64 {
    let reached = Arc::new(Notify::new());
    let context = world.hooked({
        let reached = Arc::clone(&reached);
        move |request| {
            if matches!(request, Request::CommitBase { .. }) {
                reached.notify_one();
            }
        }
    });
    let options = options(source);
    tokio::select! {
        biased;
        () = reached.notified() => {}
        report = world.push_in(&context, &options, Arc::new(Silent)) => panic!("{report:?}"),
    }
    world.network.traffic.bytes_sent.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_again_when_only_the_commit_was_missing() {
    let mut world = World::start(4, 2, 4).await;
    world.segment_bytes = MIB;
    let source = world.source("tree");
    write_files(&source);
    let sent = cut_before_the_commit(&world, &source).await;
    assert!(sent >= 24 * MIB as u64);
    let report = world.push(&source).await;
    assert_eq!((report.made, report.counts.bytes_new), (Made::Version, 0));
    let again = world.network.traffic.bytes_sent.load(Ordering::Relaxed) - sent;
    assert!(again < 200_000, "{again}");
    assert_eq!(world.check_from_head(&source).await, report.version);
    world.check_claims().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_push_left_too_long_ago_is_sent_again() {
    let mut world = World::start(4, 2, 4).await;
    world.segment_bytes = MIB;
    let source = world.source("tree");
    write_files(&source);
    cut_before_the_commit(&world, &source).await;
    // A day later: the claims of one segment have ended, and the providers have thrown it away.
    let soon = wall_clock().plus_seconds(1);
    let due = world.books.due_claims(None, world.now().plus_seconds(48 * 60 * 60), None, 1000).unwrap();
    let segment = due[0].key.segment;
    for claim in due.into_iter().filter(|claim| claim.key.segment == segment) {
        world.network.release(&claim.holding.provider, &[claim.fragment], Asked(u64::MAX)).await.unwrap();
        let holding = Holding { until: soon, ..claim.holding };
        world.books.renew_claims(vec![RenewedClaim { key: claim.key, holding }]).unwrap();
    }
    let report = world.push(&source).await;
    assert!(report.counts.bytes_new > 0 && report.counts.bytes_new <= MIB as u64, "{report:?}");
    assert!(!world.segments().iter().any(|placement| placement.number == segment));
    assert_eq!(world.check_from_head(&source).await, report.version);
    // The metadata of the attempt that failed.
    world.maintenance().collect(world.keys.id, wall_clock()).await.unwrap();
    world.maintenance().release().await.unwrap();
    world.check_claims().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pushes_at_once_both_become_versions_and_send_their_data_once() {
    let mut world = World::start(4, 2, 4).await;
    world.segment_bytes = MIB;
    let (one, two) = (world.source("one"), world.source("two"));
    fs::write(one.join("one"), ByteStream::bytes(1, 3 * MIB)).unwrap();
    fs::write(two.join("two"), ByteStream::bytes(2, 3 * MIB)).unwrap();
    // The second is committed in between the first one's base and its commit.
    let two_pushed: Arc<Mutex<Option<VersionId>>> = Arc::default();
    let other = Arc::new(Mutex::new(Some((world.context(), options(&two)))));
    let runtime = tokio::runtime::Handle::current();
    let context = world.hooked({
        let two_pushed = Arc::clone(&two_pushed);
        move |request| {
            if matches!(request, Request::Commit { .. })
                && let Some((context, options)) = other.lock().unwrap().take()
            {
                let push = seedbank_client::push::push(&context, &options, Arc::new(Silent));
                *two_pushed.lock().unwrap() = Some(runtime.block_on(push).unwrap().version);
            }
        }
    });
    let report = world.push_in(&context, &options(&one), Arc::new(Silent)).await.unwrap();
    let two_version = two_pushed.lock().unwrap().take().unwrap();
    assert_eq!((report.made, report.counts.bytes_new), (Made::Version, 3 * MIB as u64));
    let sent = world.network.traffic.bytes_sent.load(Ordering::Relaxed);
    assert!(sent < 2 * 6 * MIB as u64 + 400_000, "{sent}");
    assert_eq!(world.check_from_head(&one).await, report.version);
    world.check(two_version, &two).await;
    let opened = world.open().await;
    assert_eq!(opened.snapshot(None).await.unwrap().version.parents, [two_version]);
    world.check_claims().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_tree_pushed_twice_at_once_is_one_version() {
    let world = World::start(2, 1, 2).await;
    let source = world.source("tree");
    fs::write(source.join("file"), "file").unwrap();
    let other = Mutex::new(Some((world.context(), options(&source))));
    let runtime = tokio::runtime::Handle::current();
    let context = world.hooked(move |request| {
        if matches!(request, Request::Commit { .. })
            && let Some((context, options)) = other.lock().unwrap().take()
        {
            let push = seedbank_client::push::push(&context, &options, Arc::new(Silent));
            assert_eq!(runtime.block_on(push).unwrap().made, Made::Version);
        }
    });
    let report = world.push_in(&context, &options(&source), Arc::new(Silent)).await.unwrap();
    assert_eq!(report.made, Made::Nothing);
    assert_eq!(world.books.versions(world.keys.id, None, 10).unwrap().len(), 1);
    assert_eq!(world.check_from_head(&source).await, report.version);
    assert!(world.books.leases(world.keys.id).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_pushes_to_four_branches_at_once_all_get_through() {
    let world = World::start(2, 1, 2).await;
    let mut pushes = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let source = world.source(name);
        fs::write(source.join(name), name).unwrap();
        pushes.push((source.clone(), PushOptions { branch: name.to_owned(), ..options(&source) }));
    }
    let (a, b, c, d) = tokio::join!(
        world.try_push(&pushes[0].1),
        world.try_push(&pushes[1].1),
        world.try_push(&pushes[2].1),
        world.try_push(&pushes[3].1)
    );
    for (report, (source, options)) in [a, b, c, d].into_iter().zip(&pushes) {
        let version = report.unwrap().version;
        world.check(version, source).await;
        let opened = world.open().await;
        assert_eq!(opened.snapshot(Some(&options.branch)).await.unwrap().id, version);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_removed_and_collected_under_a_push_that_builds_on_it_makes_it_begin_anew() {
    let world = World::start(4, 2, 4).await;
    let source = world.source("tree");
    for file in 0..300 {
        fs::write(source.join(format!("file-{file}")), ByteStream::bytes(file, 1000)).unwrap();
    }
    fs::write(source.join("large"), ByteStream::bytes(1, 3 * MIB)).unwrap();
    let first = world.push(&source).await;
    world.remember(first.version, &source).await;
    fs::write(source.join("file-7"), "changed").unwrap();

    // Before it commits, another tree takes its place, and everything of the first version goes.
    let other = world.source("other");
    fs::write(other.join("other"), "other").unwrap();
    let runtime = tokio::runtime::Handle::current();
    let (inner, maintenance) = (world.context(), world.maintenance());
    let removed = Arc::new(AtomicUsize::new(0));
    let context = world.hooked({
        let removed = Arc::clone(&removed);
        let (dataset, other) = (world.keys.id, options(&other));
        move |request| {
            if matches!(request, Request::CommitBase { .. }) && removed.fetch_add(1, Ordering::Relaxed) == 0 {
                runtime.block_on(async {
                    let push = seedbank_client::push::push(&inner, &other, Arc::new(Silent));
                    push.await.unwrap();
                    inner.books.remove_version(dataset, first.version).unwrap();
                    let collection = maintenance.collect(dataset, wall_clock()).await.unwrap();
                    assert!(!collection.collected.doomed.is_empty());
                    maintenance.release().await.unwrap();
                });
            }
        }
    });
    let report = world.push_in(&context, &options(&source), Arc::new(Silent)).await.unwrap();
    assert_eq!(report.made, Made::Version);
    // Its large file was not read at first.
    assert!(report.counts.bytes_read > 3 * MIB as u64, "{report:?}");
    world.check(report.version, &source).await;
    assert_eq!(world.check_from_head(&source).await, report.version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_that_are_collected_before_they_are_pinned_are_sent_again() {
    let world = World::start(4, 2, 4).await;
    let (source, other) = (world.source("tree"), world.source("other"));
    fs::write(source.join("file"), ByteStream::bytes(1, MIB)).unwrap();
    let first = world.push(&source).await;
    fs::write(other.join("other"), "other").unwrap();
    world.push(&other).await;
    fs::write(source.join("more"), "more").unwrap();
    let runtime = tokio::runtime::Handle::current();
    let maintenance = world.maintenance();
    let books = Arc::clone(&world.books);
    let done = AtomicUsize::new(0);
    let dataset = world.keys.id;
    let context = world.hooked(move |request| {
        if matches!(request, Request::UseSegments { .. }) && done.fetch_add(1, Ordering::Relaxed) == 0 {
            books.remove_version(dataset, first.version).unwrap();
            let collection = runtime.block_on(maintenance.collect(dataset, wall_clock())).unwrap();
            assert!(!collection.collected.doomed.is_empty());
            runtime.block_on(maintenance.release()).unwrap();
        }
    });
    let report = world.push_in(&context, &options(&source), Arc::new(Silent)).await.unwrap();
    assert!(report.counts.bytes_new >= MIB as u64);
    world.check(report.version, &source).await;
    assert_eq!(world.check_from_head(&source).await, report.version);
    world.maintenance().release().await.unwrap();
    world.check_claims().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_lease_is_taken_anew() {
    let world = World::start(2, 1, 2).await;
    let source = world.source("tree");
    fs::write(source.join("file"), ByteStream::bytes(1, MIB)).unwrap();
    let books = Arc::clone(&world.books);
    let done = AtomicUsize::new(0);
    let context = world.hooked(move |request| {
        if let Request::CommitBase { lease, .. } = request
            && done.fetch_add(1, Ordering::Relaxed) == 0
        {
            books.end_push(*lease).unwrap();
        }
    });
    let report = world.push_in(&context, &options(&source), Arc::new(Silent)).await.unwrap();
    assert_eq!((report.made, report.counts.bytes_new), (Made::Version, 0));
    assert_eq!(world.check_from_head(&source).await, report.version);
    assert!(world.books.leases(world.keys.id).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_a_compaction_moves_under_a_push_make_it_begin_anew() {
    let world = World::start(4, 2, 4).await;
    let source = world.source("tree");
    for file in 0..300 {
        fs::write(source.join(format!("file-{file}")), ByteStream::bytes(file, 1000)).unwrap();
    }
    fs::write(source.join("drop"), ByteStream::bytes(1, 4 * MIB)).unwrap();
    let first = world.push(&source).await;
    fs::remove_file(source.join("drop")).unwrap();
    let second = world.push(&source).await;
    world.remember(second.version, &source).await;
    world.books.remove_version(world.keys.id, first.version).unwrap();

    fs::write(source.join("new"), "new").unwrap();
    let runtime = tokio::runtime::Handle::current();
    let (maintenance, dataset) = (world.maintenance(), world.keys.id);
    let done = Arc::new(AtomicUsize::new(0));
    let context = world.hooked({
        let done = Arc::clone(&done);
        move |request| {
            if matches!(request, Request::Commit { .. }) && done.fetch_add(1, Ordering::Relaxed) == 0 {
                runtime.block_on(async {
                    let rewrite = maintenance.collect(dataset, wall_clock()).await.unwrap().collected.rewrite;
                    let sparse: Vec<_> = rewrite.iter().map(|live| live.segment).collect();
                    assert!(!sparse.is_empty());
                    maintenance.compact_segments(dataset, sparse.clone()).await.unwrap();
                    let doomed = maintenance.collect(dataset, wall_clock()).await.unwrap().collected.doomed;
                    assert!(doomed.iter().any(|segment| sparse.contains(segment)), "{doomed:?} {sparse:?}");
                    maintenance.release().await.unwrap();
                });
            }
        }
    });
    let report = world.push_in(&context, &options(&source), Arc::new(Silent)).await.unwrap();
    assert!(done.load(Ordering::Relaxed) > 1, "it was told to begin anew");
    assert_eq!((report.made, report.counts.bytes_new), (Made::Version, 0));
    world.check(report.version, &source).await;
    assert_eq!(world.check_from_head(&source).await, report.version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_t_be_committed_is_refused_before_anything_is_sent() {
    let world = World::start(2, 1, 2).await;
    let source = world.source("tree");
    fs::write(source.join("file"), ByteStream::bytes(1, MIB)).unwrap();
    for wrong in [
        PushOptions { branch: "no such: name".to_owned(), ..options(&source) },
        PushOptions { message: "x".repeat(65 * 1024), ..options(&source) },
    ] {
        world.try_push(&wrong).await.unwrap_err();
    }
    let _socket = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    world.try_push(&options(&source)).await.unwrap_err();
    assert_eq!(world.network.traffic.fragments_sent.load(Ordering::Relaxed), 0);
    assert!(world.books.leases(world.keys.id).unwrap().is_empty());
}

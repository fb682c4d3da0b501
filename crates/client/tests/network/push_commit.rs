//! What a commit writes, and that readers find it without the books.

use crate::harness::{MIB, Provider, Way, World, options};
use seedbank_catalog::index::Index;
use seedbank_catalog::records::{Counts, FragmentKey, Holding, NumberedList, NumberedPage, Restoration};
use seedbank_catalog::{Books, Carrier, CatalogError, Request, Response};
use seedbank_client::SharedBooks;
use seedbank_client::dataset::index_folder;
use seedbank_client::progress::Silent;
use seedbank_client::push::Made;
use seedbank_erasure::Scheme;
use seedbank_formats::checkpoint::RefKind;
use seedbank_formats::keys::KeyEpoch;
use seedbank_formats::numbered::root_level;
use seedbank_formats::place::{Link, Place};
use seedbank_formats::placement::{FragmentPlacement, SegmentPlacement};
use seedbank_formats::{ChunkId, FragmentId, SegmentNumber};
use seedbank_protocol::routes::Access;
use seedbank_testkit::ByteStream;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_smallest_trees_are_versions_like_any_other() {
    let world = World::start(2, 1, 2).await;
    let empty = world.source("empty");
    let links = world.source("links");
    symlink("nowhere", links.join("link")).unwrap();
    fs::create_dir(links.join("folder")).unwrap();
    let small = world.source("small");
    fs::write(small.join("empty"), "").unwrap();
    fs::write(small.join("one"), "1").unwrap();
    for source in [&empty, &links, &small, &empty] {
        let report = world.push(source).await;
        assert_eq!((report.made, report.missing), (Made::Version, 0));
        world.check(report.version, source).await;
        assert_eq!(world.check_from_head(source).await, report.version);
        assert_eq!(world.push(source).await.made, Made::Nothing);
    }
    // A single file is a dataset of that file.
    let alone = world.source("alone");
    fs::copy(small.join("one"), alone.join("one")).unwrap();
    let report = world.push(&small.join("one")).await;
    assert_eq!((report.entries, report.bytes, report.counts.bytes_new), (1, 1, 0));
    assert_eq!(world.check_from_head(&alone).await, report.version);
    world.check_claims().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_version_added_is_what_was_sealed_for_it() {
    let mut world = World::start(4, 2, 4).await;
    world.segment_bytes = MIB;
    let source = world.source("tree");
    let (mut sealed, mut stored) = (0, 0);
    for (round, len) in [(0u64, 3 * MIB), (1, 10), (2, 0), (3, 2 * MIB)] {
        fs::write(source.join(format!("file-{round}")), ByteStream::bytes(round, len)).unwrap();
        let report = world.push(&source).await;
        // The newest metadata segment is committed, too.
        let segments = world.segments();
        let now: u64 = segments.iter().map(|segment| u64::from(segment.sealed_len)).sum();
        let len = |placement: &SegmentPlacement| {
            let sealed = usize::try_from(placement.sealed_len).unwrap();
            (placement.scheme.fragment_len(sealed) * placement.scheme.total()) as u64
        };
        let stored_now: u64 = segments.iter().map(len).sum();
        assert_eq!((report.new_bytes, report.stored_bytes), (now - sealed, stored_now - stored));
        assert!(report.metadata_bytes <= report.new_bytes && report.metadata_bytes > 0);
        assert_eq!(
            report.counts.bytes_sealed + report.metadata_bytes - report.counts.bytes_metadata,
            report.new_bytes
        );
        (sealed, stored) = (now, stored_now);

        // Books, list of versions and report say the same.
        let record = world.books.resolve(world.keys.id, "main".to_owned()).unwrap().version;
        assert_eq!((record.new_bytes, record.stored_bytes), (report.new_bytes, report.stored_bytes));
        let listed = world.open().await.versions(None, 1).await.unwrap().remove(0).record;
        assert_eq!(listed.id, report.version);
        assert_eq!((listed.new_bytes, listed.stored_bytes), (report.new_bytes, report.stored_bytes));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_and_map_grow_by_levels_and_old_versions_stay_readable() {
    let world = World::start(2, 1, 2).await;
    let source = world.source("tree");
    let mut pushed = Vec::new();
    let mut push_one = async |round: usize, jump: u64| {
        // Numbers that nobody uses, as after many pushes.
        let lease = world.books.begin_push(world.keys.id, "main".to_owned(), "test".to_owned(), 60, jump);
        world.books.end_push(lease.unwrap().lease).unwrap();
        fs::write(source.join("round"), round.to_string()).unwrap();
        let report = world.push(&source).await;
        assert_eq!(report.made, Made::Version);
        assert_eq!(world.check_from_head(&source).await, report.version);
        pushed.push(report.version);
    };
    push_one(0, 0).await;
    push_one(1, 70).await;
    push_one(2, 64 * 64).await;
    push_one(3, 64 * 64).await;
    let main = world.books.resolve(world.keys.id, "main".to_owned()).unwrap().version.id;
    for tag in 0..66 {
        world.books.create_ref(world.keys.id, format!("tag-{tag}"), RefKind::Tag, main).unwrap();
    }
    for round in 4..68 {
        fs::write(source.join("round"), round.to_string()).unwrap();
        pushed.push(world.push(&source).await.version);
    }
    assert_eq!(world.check_from_head(&source).await, pushed[67]);

    let opened = world.open().await;
    assert_eq!(opened.body().map.unwrap().level, 2);
    assert_eq!(opened.checkpoint().versions.unwrap().level, 1);
    assert_eq!(opened.checkpoint().refs.unwrap().level, 1);
    let listed: Vec<_> = opened.versions(None, 1000).await.unwrap();
    assert_eq!(listed.iter().rev().map(|listed| listed.record.id).collect::<Vec<_>>(), pushed);
    assert_eq!(opened.refs().await.unwrap().len(), 67);
    for round in [0, 2, 3, 66] {
        fs::write(source.join("round"), round.to_string()).unwrap();
        world.check(pushed[round], &source).await;
        let opened = world.open().await;
        let snapshot = opened.snapshot(Some(&pushed[round].to_string())).await.unwrap();
        assert_eq!(snapshot.id, pushed[round]);
        assert!(!snapshot.segments(opened.reader()).await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_that_needs_several_segments_is_found_from_the_head() {
    let mut world = World::start(2, 1, 2).await;
    world.segment_bytes = 6 * 1024;
    let source = world.source("tree");
    for file in 0..600 {
        fs::write(source.join(format!("file-{file}")), ByteStream::bytes(file, 2400)).unwrap();
    }
    let report = world.push(&source).await;
    let opened = world.open().await;
    assert!(opened.body().locator.len() > 1, "{:?}", opened.body().locator.len());
    assert!(world.segments().len() > 30);
    assert_eq!(world.check_from_head(&source).await, report.version);
    world.check_claims().await;

    // What only the first head located is in the second one's map.
    fs::write(source.join("small"), "small").unwrap();
    let report = world.push(&source).await;
    assert_eq!(world.check_from_head(&source).await, report.version);
    assert!(report.new_bytes < 64 * 1024, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_that_moved_without_a_commit_are_found_by_a_new_head() {
    let mut world = World::start(5, 2, 4).await;
    let source = world.source("tree");
    fs::write(source.join("file"), ByteStream::bytes(1, MIB)).unwrap();
    let version = world.push(&source).await.version;
    // Enough commits for pages of the map to lie in several segments.
    let leave = world.books.begin_push(world.keys.id, "main".to_owned(), "test".to_owned(), 60, 100);
    world.books.end_push(leave.unwrap().lease).unwrap();
    fs::write(source.join("other"), "other").unwrap();
    let second = world.push(&source).await.version;
    assert_ne!(version, second);

    // Two new providers take over everything of the two that hold most, whatever segment it is of.
    let holders: BTreeSet<_> =
        world.segments().iter().flat_map(|segment| segment.holders().collect::<Vec<_>>()).collect();
    let leaving: Vec<_> = holders.into_iter().take(2).collect();
    for old in &leaving {
        let new = world.add_provider(Default::default()).await;
        let client = crate::harness::client();
        let address = |key| {
            let providers = world.books.providers().unwrap();
            let found = providers.into_iter().find(|found| found.profile.key == key).unwrap();
            seedbank_transport::PeerAddress { key, address: found.profile.address }
        };
        for segment in world.segments() {
            for (index, fragment) in (0u8..).zip(&segment.fragments) {
                if fragment.holder != Some(*old) {
                    continue;
                }
                let len = segment.scheme.fragment_len(usize::try_from(segment.sealed_len).unwrap()) as u64;
                let bytes = client.get_range(&address(*old), fragment.id, 0..len, None).await.unwrap();
                let until = world.now().plus_seconds(3600);
                let reader = world.keys.reader_key().unwrap().public();
                client
                    .put_fragment(&address(new), fragment.id, bytes, until, Access::Reader(reader))
                    .await
                    .unwrap();
                let key = FragmentKey { dataset: world.keys.id, segment: segment.number, index };
                world.books.set_holder(key, Some(Holding { provider: new, until })).unwrap();
            }
        }
    }
    for old in &leaving {
        world.provider(old).set(Way::Closed);
    }
    assert_eq!(world.books.stale_heads().unwrap(), [world.keys.id]);
    world.renew_network();
    assert_eq!(world.maintenance().refresh_heads().await.unwrap().heads, 1);
    assert_eq!(world.books.stale_heads().unwrap(), []);

    let decodes = |opened: &seedbank_client::heads::OpenedHead| {
        opened.reader().network().traffic.decodes.load(std::sync::atomic::Ordering::Relaxed)
    };
    let opened = world.open().await;
    let snapshot = opened.snapshot(None).await.unwrap();
    assert_eq!((snapshot.id, opened.head().head().sequence()), (second, 3));
    assert_eq!(world.check_from_head(&source).await, second);
    assert_eq!(decodes(&opened), 0);
    // The head is written anew again, and again with nothing to say: the map stays whole.
    world.maintenance().refresh_head(world.keys.id).await.unwrap();
    world.maintenance().refresh_head(world.keys.id).await.unwrap();
    assert_eq!(world.check_from_head(&source).await, second);
    fs::write(source.join("more"), "more").unwrap();
    let third = world.push(&source).await.version;
    assert_eq!(world.check_from_head(&source).await, third);
}

/// Books in which no claim is due: restored ones are all, and nobody has the fragments of these segments. Counts the rows
/// that it gives of lists that grow with the dataset.
struct NothingDue {
    books: SharedBooks,
    rows: Arc<AtomicUsize>,
}

impl Carrier for NothingDue {
    fn call(&self, request: Request) -> Result<Response, CatalogError> {
        if let Request::DueClaims { .. } = request {
            return Ok(Response::DueClaims(Vec::new()));
        }
        let response = self.books.call(request)?;
        let rows = match &response {
            Response::Pages(pages) | Response::PagesIn(pages) => pages.len(),
            Response::SegmentsIn(placements) | Response::Placements(placements) => placements.len(),
            Response::Versions(versions) => versions.len(),
            _ => 0,
        };
        self.rows.fetch_add(rows, Ordering::Relaxed);
        Ok(response)
    }
}

/// A dataset of so many segments that exist in the books only, with a map of which every page lies in another segment.
fn synthetic(world: &World, count: u64) {
    let placement = |number: u64| SegmentPlacement {
        number: SegmentNumber(number),
        epoch: KeyEpoch(0),
        scheme: Scheme::new(4, 8).unwrap(),
        sealed_len: 60 << 20,
        footer_len: 40_000,
        fragments: (0..8)
            .map(|index| FragmentPlacement {
                id: FragmentId(*blake3_like(number * 8 + index).first_chunk().unwrap()),
                holder: Some(world.providers[usize::try_from(index).unwrap()].key),
            })
            .collect(),
    };
    let mut pages = Vec::new();
    for level in 0..=root_level(count).unwrap() {
        let below = 1 << (6 * (u32::from(level) + 1));
        for page in 0..count.div_ceil(below) {
            let segment = SegmentNumber((page + 1) * below % count);
            let link = Link { place: Place { segment, index: 0 }, hash: ChunkId([level; 32]) };
            pages.push(NumberedPage { list: NumberedList::Map, level, page, link });
        }
    }
    let counts = Counts { segments: count, versions: 0, refs: 0 };
    let part = Restoration {
        dataset: world.dataset.clone(),
        counts,
        begins: None,
        segments: (0..count).map(placement).collect(),
        versions: Vec::new(),
        refs: Vec::new(),
        pages,
        head: Some(seedbank_catalog::records::HeadRecord {
            sequence: 1,
            bytes: vec![1],
            segments: Vec::new(),
        }),
    };
    // An index that knows nothing would be made again from footers that nobody has.
    let folder = index_folder(&world.folder.path().join("index"), &world.keys.id);
    let index = Index::open(&folder, world.keys.id).unwrap();
    index.add(vec![(ChunkId([1; 32]), Place { segment: SegmentNumber(0), index: 0 })]).unwrap();
    world.books.restore(part).unwrap();
}

/// Bytes that do not compress, as hashes.
fn blake3_like(seed: u64) -> Vec<u8> {
    ByteStream::bytes(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), 32)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_changed_file_beside_100_000_segments_writes_little_metadata() {
    let mut world = World::start(8, 4, 8).await;
    let rows = Arc::new(AtomicUsize::new(0));
    world.books = Arc::new(NothingDue { books: Arc::clone(&world.books), rows: Arc::clone(&rows) });
    synthetic(&world, 100_000);
    let source = world.source("tree");
    for file in 0..300 {
        fs::write(source.join(format!("file-{file}")), file.to_string()).unwrap();
    }
    world.push(&source).await;
    fs::write(source.join("file-7"), "changed").unwrap();
    rows.store(0, Ordering::Relaxed);
    let report = world.push(&source).await;
    let rows = rows.load(Ordering::Relaxed);
    assert!(rows < 600, "{rows} rows of the books were read, of 100,000 segments and 1,600 pages");
    assert_eq!(report.made, Made::Version);
    assert!(report.metadata_bytes < 200_000, "{} bytes", report.metadata_bytes);
    assert!(report.metadata_bytes > 10_000, "the map is not as full as it should be");
    // A moved fragment of an old segment, by itself.
    let key = FragmentKey { dataset: world.keys.id, segment: SegmentNumber(64 * 500), index: 3 };
    let holding = Holding { provider: world.providers[5].key, until: world.now() };
    world.books.set_holder(key, Some(holding)).unwrap();
    let before = world.sealed_bytes();
    world.maintenance().refresh_head(world.keys.id).await.unwrap();
    let wrote = world.sealed_bytes() - before;
    assert!(wrote < 200_000, "{wrote} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "makes a hundred thousand files"]
async fn one_changed_file_of_100_000_writes_little() {
    let world = World::start(8, 4, 8).await;
    let source = world.source("tree");
    for file in 0..100_000 {
        let folder = source.join(format!("folder-{}", file / 1000));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("file-{file}")), file.to_string()).unwrap();
    }
    let first = world.push(&source).await;
    world.remember(first.version, &source).await;
    fs::write(source.join("folder-50/file-50500"), "changed").unwrap();
    let started = std::time::Instant::now();
    let report = world.push(&source).await;
    println!("first {first:?}\nsecond {report:?} in {:?}", started.elapsed());
    assert_eq!(report.counts.files_read, 1);
    assert!(report.new_bytes < 200_000, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_without_a_version_builds_on_the_newest() {
    let world = World::start(2, 1, 2).await;
    let source = world.source("tree");
    fs::write(source.join("file"), ByteStream::bytes(3, 2 * MIB)).unwrap();
    let main = world.push(&source).await;
    let dev = seedbank_client::push::PushOptions { branch: "dev".to_owned(), ..options(&source) };
    let report = world.try_push(&dev).await.unwrap();
    assert_eq!((report.made, report.counts.bytes_new), (Made::Version, 0));
    // Its pages are main's.
    assert!(report.new_bytes < main.metadata_bytes, "{report:?} {main:?}");
    assert_ne!(report.version, main.version);
    assert_eq!(world.open().await.refs().await.unwrap().len(), 2);
    world.check(report.version, &source).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_does_not_wait_long_for_holders_that_fall_silent_when_it_commits() {
    let world = World::start(8, 4, 8).await;
    let source = world.source("tree");
    fs::write(source.join("file"), ByteStream::bytes(90, MIB)).unwrap();
    let ways: Vec<_> = world.providers[..4].iter().map(Provider::way).collect();
    let committed = Arc::new(OnceLock::new());
    let context = world.hooked({
        let committed = Arc::clone(&committed);
        move |request| {
            if matches!(request, Request::Commit { .. }) {
                for way in &ways {
                    way.send_replace(Way::Stalled);
                }
                committed.get_or_init(Instant::now);
            }
        }
    });
    let report = world.push_in(&context, &options(&source), Arc::new(Silent)).await.unwrap();
    let waited = committed.get().unwrap().elapsed();
    assert_eq!((report.made, report.heads), (Made::Version, 4));
    assert!(waited < Duration::from_secs(8), "{waited:?}: it would be ten seconds for each that is silent");
    world.check(report.version, &source).await;
    // The steward confirms what is left, when they are there again.
    world.providers[..4].iter().for_each(|provider| provider.set(Way::Open));
    let maintenance = world.maintenance();
    maintenance.renew_claims(world.now()).await.unwrap();
    world.check_claims().await;
}

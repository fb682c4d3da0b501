//! What a push does not send, read or write again.

use crate::harness::{MIB, World, options};
use seedbank_catalog::Books;
use seedbank_client::file_cache::FileCache;
use seedbank_client::network::wall_clock;
use seedbank_client::push::{Made, PushOptions, Rehash};
use seedbank_formats::chunking::chunk_id;
use seedbank_formats::place::ChunkRef;
use seedbank_formats::policy::Policy;
use seedbank_formats::tree::{Content, Entry};
use seedbank_formats::{ChunkId, Sha256};
use seedbank_testkit::{ByteStream, TreeSpec};
use std::fs;
use std::sync::atomic::Ordering;
use std::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_tree_is_not_read_and_leaves_nothing_behind() {
    let world = World::start(4, 2, 4).await;
    let source = world.source("tree");
    TreeSpec { huge_bytes: Some(3 * MIB as u64), ..TreeSpec::tiny(1) }.write(&source.join("files")).unwrap();
    let first = world.push(&source).await;
    world.remember(first.version, &source).await;
    let before = (world.segments(), world.books.head(world.keys.id).unwrap());
    let sent = world.network.traffic.fragments_sent.load(Ordering::Relaxed);

    for rehash in [Rehash::Changed, Rehash::All] {
        let report = world.try_push(&PushOptions { rehash, ..options(&source) }).await.unwrap();
        assert_eq!((report.made, report.version), (Made::Nothing, first.version));
        assert_eq!((report.new_bytes, report.stored_bytes, report.segments), (0, 0, 0));
        assert_eq!(report.counts.files_read == 0, rehash == Rehash::Changed, "{:?}", report.counts);
        assert_eq!(report.counts.bytes_deduplicated, first.bytes);
    }
    assert_eq!((world.segments(), world.books.head(world.keys.id).unwrap()), before);
    assert_eq!(world.network.traffic.fragments_sent.load(Ordering::Relaxed), sent);
    assert!(world.books.leases(world.keys.id).unwrap().is_empty());
    world.check_claims().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_policy_is_a_new_version_of_the_same_tree() {
    let mut world = World::start(4, 2, 4).await;
    let source = world.source("tree");
    fs::write(source.join("file"), "file").unwrap();
    let first = world.push(&source).await;
    world.policy = Policy { minimum: Some(3), ..world.policy };
    let second = world.push(&source).await;
    assert_eq!((second.made, second.counts.bytes_new), (Made::Version, 0));
    assert_ne!(first.version, second.version);
    assert_eq!(world.push(&source).await.made, Made::Nothing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_changed_file_is_the_only_one_that_is_read() {
    let world = World::start(4, 2, 4).await;
    let source = world.source("tree");
    for file in 0..2000 {
        let folder = source.join(format!("folder-{}", file % 10));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("file-{file}")), ByteStream::bytes(file, 100)).unwrap();
    }
    fs::write(source.join("large"), ByteStream::bytes(1, 4 * MIB)).unwrap();
    let first = world.push(&source).await;
    world.remember(first.version, &source).await;
    fs::write(source.join("folder-3/file-1003"), "changed").unwrap();
    let second = world.push(&source).await;
    assert_eq!((second.counts.files_read, second.counts.bytes_new), (1, 7));
    assert!(second.new_bytes < first.metadata_bytes / 4, "{second:?} after {first:?}");
    world.check(second.version, &source).await;
    assert_eq!(world.check_from_head(&source).await, second.version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_the_cache_knows_and_nobody_stores_are_read_after_all() {
    let world = World::start(2, 1, 2).await;
    let source = world.source("tree");
    fs::write(source.join("small"), "small").unwrap();
    fs::write(source.join("large"), ByteStream::bytes(1, 3 * MIB)).unwrap();
    // Another dataset was pushed from here, and was lost: the cache says what the files hold, and that is true.
    let elsewhere = World::start(2, 1, 2).await;
    let there = elsewhere.push(&source).await;
    elsewhere.remember(there.version, &source).await;
    fs::create_dir_all(world.folder.path().join("cache")).unwrap();
    fs::copy(
        elsewhere.folder.path().join("cache/file-cache.sqlite"),
        world.folder.path().join("cache/file-cache.sqlite"),
    )
    .unwrap();
    let report = world.push(&source).await;
    assert_eq!(report.counts.files_read, 2);
    assert_eq!(world.check_from_head(&source).await, report.version);

    // And one that lies is found out.
    let chunk = ChunkRef { id: chunk_id(b"other"), len: 5 };
    let lie = Entry::File {
        executable: false,
        size: 5,
        sha256: Sha256([7; 32]),
        content: Content::Chunks(vec![ChunkRef { id: ChunkId([9; 32]), ..chunk }]),
    };
    let mut cache = FileCache::open(&world.folder.path().join("cache"));
    world.remember_file(&mut cache, &source.join("small"), false, &lie);
    cache.flush();
    let error = world.try_push(&options(&source)).await.unwrap_err();
    assert!(error.to_string().contains("changed while it was read"), "{error}");
    // The reading has put the cache right.
    assert_eq!(world.push(&source).await.version, report.version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn going_back_to_an_older_tree_sends_no_data_even_when_its_version_was_removed() {
    let world = World::start(4, 2, 4).await;
    let (old, new) = (world.source("old"), world.source("new"));
    for (source, seed) in [(&old, 1), (&new, 2)] {
        fs::write(source.join("large"), ByteStream::bytes(seed, 3 * MIB)).unwrap();
        fs::write(source.join("small"), seed.to_string()).unwrap();
        fs::write(source.join("same"), ByteStream::bytes(9, MIB)).unwrap();
    }
    let first = world.push(&old).await;
    let second = world.push(&new).await;
    let third = world.push(&old).await;
    assert_eq!((third.made, third.counts.bytes_new), (Made::Version, 0));
    assert_ne!(third.version, first.version);
    assert_eq!(world.check_from_head(&old).await, third.version);

    // Now nothing but dead pages is left of the new tree: its chunks are gone.
    world.books.remove_version(world.keys.id, second.version).unwrap();
    let collection = world.maintenance().collect(world.keys.id, wall_clock()).await.unwrap();
    assert!(!collection.collected.doomed.is_empty());
    world.maintenance().release().await.unwrap();
    let fourth = world.push(&new).await;
    assert!(fourth.counts.bytes_new >= 3 * MIB as u64);
    world.check(fourth.version, &new).await;
    assert_eq!(world.check_from_head(&new).await, fourth.version);
    world.check(first.version, &old).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_or_damaged_index_is_made_again() {
    let world = World::start(4, 2, 4).await;
    let source = world.source("tree");
    fs::write(source.join("large"), ByteStream::bytes(1, 3 * MIB)).unwrap();
    world.push(&source).await;
    let folder = world.folder.path().join("index").join(world.keys.id.to_string());
    fs::remove_dir_all(&folder).unwrap();
    fs::write(source.join("small"), "small").unwrap();
    let report = world.push(&source).await;
    assert_eq!(report.counts.bytes_new, 5);
    for run in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        if run.metadata().unwrap().len() > 0 {
            fs::write(&run, "damage").unwrap();
        }
    }
    fs::write(source.join("other"), "other").unwrap();
    let report = world.push(&source).await;
    assert_eq!(report.counts.bytes_new, 5);
    assert_eq!(world.check_from_head(&source).await, report.version);
}

/// Pushes a file of so many bytes, then one with an edit, and gives the bytes that the edit added.
async fn edit(len: usize, edit: impl FnOnce(&mut Vec<u8>)) -> u64 {
    let world = World::start(4, 2, 4).await;
    let source = world.source("tree");
    let mut bytes = ByteStream::bytes(7, len);
    fs::write(source.join("file"), &bytes).unwrap();
    let started = Instant::now();
    world.push(&source).await;
    let first = started.elapsed();
    edit(&mut bytes);
    fs::write(source.join("file"), &bytes).unwrap();
    let started = Instant::now();
    let report = world.push(&source).await;
    println!("{len} bytes: pushed in {first:?}, edited in {:?}: {report:?}", started.elapsed());
    assert_eq!(world.check_from_head(&source).await, report.version);
    report.new_bytes
}

fn insert(bytes: &mut Vec<u8>) {
    let at = bytes.len() * 35 / 100;
    bytes.splice(at..at, *b"eleven more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eleven_bytes_inserted_into_20_mb_add_a_few_chunks() {
    let added = edit(20_000_000, insert).await;
    assert!(added < 500_000 - 18 * 5_600, "{added}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_kilobytes_appended_to_50_mb_add_about_as_much() {
    let added = edit(50_000_000, |bytes| bytes.extend(ByteStream::bytes(8, 100_000))).await;
    assert!(added < 400_000, "{added}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "pushes 200 MB"]
async fn eleven_bytes_inserted_into_200_mb_add_less_than_half_a_megabyte() {
    let added = edit(200_000_000, insert).await;
    assert!(added < 500_000, "{added}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "pushes 500 MB"]
async fn a_megabyte_appended_to_500_mb_adds_less_than_one_and_a_half() {
    let added = edit(500_000_000, |bytes| bytes.extend(ByteStream::bytes(8, 1_000_000))).await;
    assert!(added < 1_500_000, "{added}");
}

async fn many_small_files(count: u64) {
    let world = World::start(4, 2, 4).await;
    let source = world.source("tree");
    for file in 0..count {
        let folder = source.join(format!("folder-{}", file / 500));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("file-{file}")), ByteStream::bytes(file, 2400)).unwrap();
    }
    let started = Instant::now();
    let report = world.push(&source).await;
    println!("{count} files in {:?}: {report:?}", started.elapsed());
    // Data and metadata: at 8,192 items a segment.
    assert!(report.segments <= 2 + count / 8192, "{report:?}");
    assert_eq!(report.counts.bytes_new, count * 2400);
    assert!(report.new_bytes < count * 2700, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_files_are_packed_into_few_segments() {
    many_small_files(3_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "makes fifty thousand files"]
async fn fifty_thousand_small_files_are_packed_into_few_segments() {
    many_small_files(50_000).await;
}

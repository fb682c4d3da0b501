//! All is well: nothing is decoded, nobody is asked twice, and no more is fetched than is needed.

use super::provider::Conduct;
use super::world::{World, chunks, covering, patient};
use super::writer::ids;
use seedbank_client::dataset::Visibility;
use seedbank_client::glob::Filter;
use seedbank_client::progress::Silent;
use seedbank_client::pull::{CatError, pull, verify};
use seedbank_client::reader::ReadError;
use seedbank_client::restore::RestoreOptions;
use seedbank_testkit::{ByteStream, compare_folders};
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_ranges_fetch_the_sealed_chunks_that_they_cover_and_nothing_else() {
    let world = World::start(4, 8, Visibility::Private).await;
    let file = ByteStream::bytes(1, 3_000_000);
    let pushed = world.push_files(&[("big.bin", &file)]).await;
    let reading = world.read_patiently(pushed.version).await;
    let segment = reading.data_segment(&world).await;
    assert_eq!(reading.cat("big.bin", 0..1).await.unwrap(), file[..1]);
    let (mut dice, size) = (ByteStream::new(7), file.len() as u64);
    let mut across = 0;
    for _ in 0..60 {
        let start = dice.below(size);
        let end = (start + 1 + dice.below(200_000)).min(size);
        let before = reading.moved();
        let read = reading.cat("big.bin", start..end).await.unwrap();
        assert!(read[..] == file[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()]);
        let moved = reading.moved_since(before);
        let (fragments, bytes) = segment.cost(&covering(&file, &(start..end)));
        // The manifest of 46 chunks lies in a small metadata segment, which is in memory.
        assert_eq!((moved.requests, moved.bytes), (fragments, bytes), "{start}..{end}");
        assert_eq!((moved.proofs, moved.decodes), (0, 0));
        across += u64::from(fragments > 1);
    }
    assert!(across > 3, "some ranges lie across a border");
    assert!(reading.network.findings().is_empty() && reading.network.failing().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_version_comes_back_as_it_was() {
    let world = World::start(4, 8, Visibility::Public).await;
    let source = world.source();
    std::fs::create_dir_all(source.join("void/deep")).unwrap();
    std::os::unix::fs::symlink("big.bin", source.join("link")).unwrap();
    let (big, zeros) = (ByteStream::bytes(2, 5_000_000), vec![0; 20_000_000]);
    let twice = [&big[..700_000], &big[..700_000]].concat();
    let files: [(&str, &[u8]); 5] = [
        ("big.bin", &big),
        ("zeros.bin", &zeros),
        ("empty", b""),
        ("a/twice", &twice),
        ("a/short", b"hello"),
    ];
    let pushed = world.push_files(&files).await;
    let reading = world.read_patiently(pushed.version).await;
    assert_eq!(reading.moved().decodes, 0);
    let verified = verify(&reading.reader, &reading.snapshot, Arc::new(Silent)).await.unwrap();
    assert_eq!((verified.files, verified.symlinks, verified.folders), (5, 1, 1));
    let dest = world.folder.path().join("dest");
    let before = reading.moved();
    let (filter, options) = (Filter::default(), RestoreOptions::default());
    pull(&reading.reader, &reading.snapshot, &dest, &filter, options, Arc::new(Silent)).await.unwrap();
    let moved = reading.moved_since(before);
    assert_eq!(compare_folders(&source, &dest).unwrap(), []);
    assert_eq!((moved.decodes, moved.proofs), (0, 0));
    // Twenty megabytes of one chunk are one chunk.
    assert!(moved.bytes < 6_500_000, "{moved:?}");
    assert!(moved.requests < 24, "{moved:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_at_the_edges_are_cut_to_the_file() {
    let world = World::start(4, 8, Visibility::Private).await;
    let file = ByteStream::bytes(3, 400_000);
    let pushed = world.push_files(&[("some", &file), ("empty", b"")]).await;
    let reading = world.read_patiently(pushed.version).await;
    for (range, expected) in [
        (0..0, &file[..0]),
        (5..5, &file[..0]),
        (400_000..400_001, &file[..0]),
        (399_999..u64::MAX, &file[399_999..]),
        (u64::MAX - 1..u64::MAX, &file[..0]),
        (0..400_000, &file[..]),
    ] {
        assert!(reading.cat("some", range.clone()).await.unwrap() == expected, "{range:?}");
    }
    #[expect(clippy::reversed_empty_ranges, reason = "what a careless caller might ask for")]
    let reversed = reading.cat("some", 9..3).await.unwrap();
    assert!(reversed.is_empty());
    assert!(reading.cat("empty", 0..10).await.unwrap().is_empty());
    for chunk in chunks(&file) {
        let end = chunk.start + chunk.bytes.len() as u64;
        assert!(reading.cat("some", chunk.start..end).await.unwrap() == chunk.bytes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_parts_of_a_range_across_a_border_are_asked_for_at_once() {
    let world = World::start(4, 8, Visibility::Private).await;
    let file = ByteStream::bytes(4, 2_000_000);
    let pushed = world.push_files(&[("big.bin", &file)]).await;
    // Both stall, until others are asked.
    let reading = world.try_read(pushed.version, patient(Duration::from_secs(2))).await.unwrap();
    let segment = reading.data_segment(&world).await;
    reading.cat("big.bin", 1_999_999..2_000_000).await.unwrap();
    let before = reading.moved();
    let mut busy = Vec::new();
    for index in [0, 1] {
        let shelf = &world.provider(segment.holder(index)).shelf;
        shelf.behave_about(Conduct::Stalls, ids(&segment.placement));
        busy.push(shelf.reading());
    }
    let border = segment.fragment_len();
    let across = reading.cat("big.bin", border - 200_000..border + 200_000);
    let asked = async {
        for busy in &mut busy {
            busy.wait_for(|requests| *requests > 0).await.unwrap();
        }
        reading.moved_since(before)
    };
    let (read, moved) = tokio::join!(across, asked);
    // Both were asked plainly before anybody was asked for proof.
    assert_eq!((moved.requests, moved.proofs), (2, 0));
    let (start, end) =
        (usize::try_from(border - 200_000).unwrap(), usize::try_from(border + 200_000).unwrap());
    assert!(read.unwrap()[..] == file[start..end]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_a_folder_is_told_that_it_is_one() {
    let world = World::start(2, 3, Visibility::Private).await;
    let pushed = world.push_files(&[("birds/a.csv", b"1"), ("birds-too.csv", b"2")]).await;
    let reading = world.read(pushed.version).await;
    let asked = async |path| reading.cat(path, 0..1).await.unwrap_err();
    assert!(matches!(asked("birds").await, CatError::Read(ReadError::IsAFolder(path)) if path == "birds"));
    assert!(matches!(asked("bird").await, CatError::Read(ReadError::NoSuchPath(_))));
    assert!(matches!(asked("birds/b.csv").await, CatError::Read(ReadError::NoSuchPath(_))));
}

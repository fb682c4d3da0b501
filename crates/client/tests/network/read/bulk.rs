//! Bulk reads of segments that have lost several fragments: survivors are read once, not once for each that is lost.

use super::provider::Conduct;
use super::world::{Reading, Segment, World};
use super::writer::ids;
use seedbank_client::dataset::Visibility;
use seedbank_client::progress::Silent;
use seedbank_client::pull::verify;
use seedbank_formats::VersionId;
use seedbank_testkit::ByteStream;
use std::sync::Arc;

const BYTES: usize = 16 * 1024 * 1024;

async fn scene(seed: u64) -> (World, VersionId, Vec<u8>, Segment) {
    let world = World::start(4, 8, Visibility::Private).await;
    let file = ByteStream::bytes(seed, BYTES);
    let pushed = world.push_files(&[("big.bin", &file)]).await;
    let segment = world.read(pushed.version).await.data_segment(&world).await;
    assert_eq!(segment.placement.scheme.data(), 4);
    (world, pushed.version, file, segment)
}

/// Reads and checks everything; gives the bytes that were moved for it, in hundredths of what there is.
async fn percent(reading: &Reading) -> u64 {
    let before = reading.moved();
    verify(&reading.reader, &reading.snapshot, Arc::new(Silent)).await.unwrap();
    reading.moved_since(before).bytes * 100 / BYTES as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_half_of_the_holders_gone_a_pull_reads_each_survivor_once() {
    // Data fragments gone, and what a pull may move: k survivors bring all data back, and on top comes what was on its
    // way from its own holder already. Without sharing it would be 400 and 250.
    for (gone, percent_max) in [(&[0, 1, 2, 3][..], 115), (&[1, 3][..], 155)] {
        let (mut world, version, file, segment) = scene(61).await;
        for index in gone {
            world.kill(segment.holder(*index)).await;
        }
        let reading = world.read_patiently(version).await;
        let moved = percent(&reading).await;
        assert!(moved <= percent_max, "{gone:?}: {moved} %, {:?}", reading.moved());
        assert_eq!(reading.network.findings(), []);
        assert!(reading.cat("big.bin", 0..u64::MAX).await.unwrap() == file);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_that_rotted_or_are_held_back_are_decoded_together_as_well() {
    let (world, version, file, segment) = scene(62).await;
    let misbehave = |index: usize, conduct| {
        world.provider(segment.holder(index)).shelf.behave_about(conduct, ids(&segment.placement));
    };
    misbehave(0, Conduct::Rotten);
    misbehave(1, Conduct::Stalls);
    misbehave(2, Conduct::Lies);
    misbehave(3, Conduct::Absent);
    let reading = world.read(version).await;
    let moved = percent(&reading).await;
    // Wrong bytes and the proof that they are wrong are moved as well.
    assert!(moved <= 260, "{moved} %, {:?}", reading.moved());
    assert!(reading.cat("big.bin", 0..u64::MAX).await.unwrap() == file);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_random_read_around_a_loss_decodes_its_own_range_and_no_more() {
    let (mut world, version, file, segment) = scene(63).await;
    world.kill(segment.holder(0)).await;
    world.kill(segment.holder(1)).await;
    let reading = world.read_patiently(version).await;
    reading.cat("big.bin", 15_000_000..15_000_001).await.unwrap();
    let mut dice = ByteStream::new(64);
    for _ in 0..20 {
        let start = dice.below(2 * segment.fragment_len() - 200_000);
        let range = start..start + 100_000;
        let before = reading.moved();
        let read = reading.cat("big.bin", range.clone()).await.unwrap();
        let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
        assert!(read[..] == file[start..end]);
        // Four sources of at most three chunks; a proof covers whole groups, which are not counted.
        let moved = reading.moved_since(before);
        assert!(moved.bytes <= 4 * (100_000 + 2 * 131_072) && moved.decodes <= 2, "{moved:?}");
    }
}

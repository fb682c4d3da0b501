//! Providers go away: what is left is enough or it is not, and either is known soon.

use super::provider::Conduct;
use super::world::{Reading, World, owner, stranger};
use super::writer::{Writer, copies, file, ids, moved};
use seedbank_client::RangeError;
use seedbank_client::dataset::Visibility;
use seedbank_client::heads::{OpenedHead, open_dataset};
use seedbank_client::pull::{CatError, cat};
use seedbank_client::reader::ReadError;
use seedbank_erasure::Scheme;
use seedbank_formats::Timestamp;
use seedbank_formats::head::Head;
use seedbank_formats::layout::LayoutPage;
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::tree::Content;
use seedbank_protocol::routes::Access;
use seedbank_testkit::ByteStream;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Far above what refused connections take, and far below every deadline of the transport.
const SOON: Duration = Duration::from_secs(5);

fn is_unavailable<T>(read: &Result<T, CatError>) -> bool {
    matches!(read, Err(CatError::Read(ReadError::Range(RangeError::Unavailable { .. }))))
}

/// Reads everything, and pieces of it.
async fn reads_all(reading: &Reading, file: &[u8]) {
    assert!(reading.cat("big.bin", 0..u64::MAX).await.unwrap() == file);
    let (mut dice, size) = (ByteStream::new(5), file.len() as u64);
    for _ in 0..10 {
        let start = dice.below(size);
        let end = (start + 1 + dice.below(150_000)).min(size);
        let read = reading.cat("big.bin", start..end).await.unwrap();
        assert!(read[..] == file[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_four_of_eight_fragments_give_everything_back() {
    let mut world = World::start(4, 8, Visibility::Private).await;
    let file = ByteStream::bytes(11, 2_500_000);
    let pushed = world.push_files(&[("big.bin", &file)]).await;
    let segment = world.read(pushed.version).await.data_segment(&world).await;
    // Two data fragments, then a parity fragment, then all but exactly k.
    for (gone, index) in [(1, 0), (2, 2), (3, 5), (4, 3)] {
        world.kill(segment.holder(index)).await;
        let reading = world.read(pushed.version).await;
        reads_all(&reading, &file).await;
        assert!(reading.moved().decodes > 0, "{gone} gone");
        assert!(reading.network.findings().is_empty(), "to be gone is no lie");
    }
    world.kill(segment.holder(1)).await;
    let begun = Instant::now();
    let reading = world.read(pushed.version).await;
    let read = reading.cat("big.bin", 0..u64::MAX).await;
    assert!(is_unavailable(&read), "{read:?}");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_are_read_while_one_is_left() {
    let mut world = World::start(4, 8, Visibility::Public).await;
    let pushed = world.push_files(&[("big.bin", b"a short file")]).await;
    let segments = {
        let reading = world.read(pushed.version).await;
        reading.snapshot.segments(&reading.reader).await.unwrap()
    };
    assert!(segments.iter().all(|segment| segment.scheme == copies()));
    // Any four providers may go: five hold each segment.
    for provider in 0..4 {
        let key = world.providers[provider].key();
        world.kill(key).await;
        let reading = world.read(pushed.version).await;
        assert_eq!(reading.cat("big.bin", 0..100).await.unwrap(), b"a short file");
        assert_eq!(reading.moved().decodes, 0);
    }
}

/// A file in one segment, whose metadata lies in copies with all providers that are left.
fn one_file<'w>(world: &'w World, bytes: &[u8]) -> (Writer<'w>, SegmentPlacement, Reading) {
    let mut writer = Writer::new(world);
    let mut draft = writer.draft();
    let chunks: Vec<_> = bytes.chunks(100_000).map(|chunk| draft.chunk(chunk)).collect();
    let placement = writer.store(draft, Scheme::new(4, 8).unwrap());
    let layout = LayoutPage::describe(chunks.iter().map(|(_, place)| *place), []);
    let content = Content::Chunks(chunks.iter().map(|(chunk, _)| *chunk).collect());
    let reading = writer.version(vec![("big.bin", file(bytes.len() as u64, content))], &layout);
    (writer, placement, reading)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_without_a_holder_are_read_around() {
    let world = World::start(4, 8, Visibility::Private).await;
    let bytes = ByteStream::bytes(12, 1_500_000);
    let (writer, placement, reading) = one_file(&world, &bytes);
    let mut holders: Vec<_> = placement.fragments.iter().map(|fragment| fragment.holder).collect();
    for gone in [0, 3, 4, 6] {
        holders[gone] = None;
    }
    writer.placed.put(moved(&placement, &holders));
    assert!(reading.cat("big.bin", 0..u64::MAX).await.unwrap() == bytes);
    let before = reading.moved();
    holders[7] = None;
    writer.placed.put(moved(&placement, &holders));
    let fresh = writer.read(reading.snapshot.version.tree, reading.snapshot.root);
    let read = fresh.cat("big.bin", 0..10).await;
    assert!(is_unavailable(&read), "{read:?}");
    assert!(before.decodes > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_that_moved_after_they_were_looked_up_are_followed_once() {
    let world = World::start(4, 8, Visibility::Private).await;
    let bytes = ByteStream::bytes(13, 1_500_000);
    let (writer, placement, reading) = one_file(&world, &bytes);
    assert!(reading.cat("big.bin", 0..10).await.unwrap() == bytes[..10]);
    // Five of eight fragments move to the next provider, and where they were they are no more.
    let mut holders: Vec<_> = placement.fragments.iter().map(|fragment| fragment.holder).collect();
    holders[..5].rotate_left(1);
    let reader = world.keys.reader_key().unwrap().public();
    for (fragment, holder) in placement.fragments[..5].iter().zip(&holders) {
        let from = &world.provider(fragment.holder.unwrap()).shelf;
        let kept = from.fragment(&fragment.id).unwrap();
        world.provider(holder.unwrap()).shelf.keep(kept, Access::Reader(reader));
        from.behave_about(Conduct::Absent, [fragment.id]);
    }
    let stale = reading.cat("big.bin", 0..u64::MAX).await;
    assert!(is_unavailable(&stale), "the books say nothing new yet: {stale:?}");
    writer.placed.put(moved(&placement, &holders));
    assert!(reading.cat("big.bin", 0..u64::MAX).await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_without_books_finds_what_moved_by_a_newer_head() {
    let world = World::start(4, 8, Visibility::Private).await;
    let bytes = ByteStream::bytes(14, 1_500_000);
    world.push_files(&[("big.bin", &bytes)]).await;
    let network = stranger();
    network.learn(world.addresses().iter().map(|(key, address)| (key, address.as_str())));
    let providers: Vec<_> = world.providers.iter().map(super::provider::Provider::key).collect();
    let opened = open_dataset(&network, &world.keys, &providers, None).await.unwrap();
    let snapshot = opened.snapshot(None).await.unwrap();
    let reading = Reading {
        books: world.books.clone(),
        network: network.clone(),
        reader: opened.reader().clone(),
        snapshot,
    };
    assert!(reading.cat("big.bin", 0..10).await.unwrap() == bytes[..10]);
    // All but three fragments of the data move to the next provider, and nobody commits anything.
    let segment = reading.data_segment(&world).await;
    let mut holders: Vec<_> = segment.placement.fragments.iter().map(|fragment| fragment.holder).collect();
    holders[..5].rotate_left(1);
    let reader = world.keys.reader_key().unwrap().public();
    for (fragment, holder) in segment.placement.fragments[..5].iter().zip(&holders) {
        let from = &world.provider(fragment.holder.unwrap()).shelf;
        let kept = from.fragment(&fragment.id).unwrap();
        world.provider(holder.unwrap()).shelf.keep(kept, Access::Reader(reader));
        from.behave_about(Conduct::Absent, [fragment.id]);
    }
    assert!(is_unavailable(&reading.cat("big.bin", 0..u64::MAX).await));
    let mut body = opened.body().clone();
    body.locator.push(moved(&segment.placement, &holders));
    body.locator.sort_by_key(|placement| placement.number);
    let (salt, sequence) = (opened.head().head().salt(), opened.head().head().sequence() + 1);
    let head = Head::sign(&body, world.keys.current(), &owner(), salt, sequence, Timestamp(2)).unwrap();
    for provider in &world.providers {
        provider.shelf.keep_head(world.keys.id, head.clone().into());
    }
    // The reader has just looked for a newer head in vain, and does not look again at once.
    let fresh = OpenedHead::open(&network, &world.keys, opened.head().clone()).await.unwrap();
    let reading = Reading { reader: fresh.reader().clone(), ..reading };
    assert!(reading.cat("big.bin", 0..u64::MAX).await.unwrap() == bytes);
}

/// Remembers the longest time between two writes, and tells of the first.
struct Paced {
    first: Option<oneshot::Sender<()>>,
    last: Instant,
    gap: Arc<Mutex<Duration>>,
}

impl Write for Paced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let now = Instant::now();
        match self.first.take() {
            Some(first) => first.send(()).unwrap(),
            None => {
                let mut gap = self.gap.lock().unwrap();
                *gap = gap.max(now - self.last);
            }
        }
        self.last = now;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_the_holders_falling_silent_during_a_read_stops_it_for_a_moment_only() {
    let world = World::start(4, 8, Visibility::Private).await;
    let file = ByteStream::bytes(81, 90_000_000);
    let pushed = world.push_files(&[("big.bin", &file)]).await;
    let reading = world.read(pushed.version).await;
    let segment = reading.data_segment(&world).await;
    let silent: Vec<_> = [0, 1, 4, 5].map(|index| segment.holder(index)).into();
    let (first, has_begun) = oneshot::channel();
    let gap = Arc::new(Mutex::new(Duration::ZERO));
    let out = Paced { first: Some(first), last: Instant::now(), gap: Arc::clone(&gap) };
    let path = "big.bin".parse().unwrap();
    let read = cat(&reading.reader, &reading.snapshot, &path, 0..u64::MAX, out);
    let falls_silent = async {
        has_begun.await.unwrap();
        silent.iter().for_each(|key| world.provider(*key).shelf.behave(Conduct::Stalls));
    };
    let (told, ()) = tokio::join!(read, falls_silent);
    assert_eq!(told.unwrap(), file.len() as u64);
    assert!(reading.moved().decodes > 0);
    let gap = *gap.lock().unwrap();
    // A busy machine without optimisation decodes for seconds; whoever waits for the silent waits for the transport's
    // deadline, which is twice as long.
    assert!(gap < Duration::from_secs(15), "{gap:?}");
}

/// A bulk read that has given up waiting for a holder, when there are exactly as many left as are needed, and that holder
/// is one of them. Then it must be asked all the same: who does without it waits for those that are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_holder_is_not_done_without_when_exactly_as_many_are_left_as_are_needed() {
    let world = World::start(4, 8, Visibility::Private).await;
    let file = ByteStream::bytes(82, 16_000_000);
    let pushed = world.push_files(&[("big.bin", &file)]).await;
    let reading = world.read(pushed.version).await;
    let segment = reading.data_segment(&world).await;
    let behave = |index: usize, conduct| {
        world.provider(segment.holder(index)).shelf.behave_about(conduct, ids(&segment.placement));
    };
    behave(0, Conduct::ProvesOnly);
    (1..5).for_each(|index| behave(index, Conduct::Stalls));
    let begun = Instant::now();
    // All of it lies in the late holder's fragment.
    assert!(reading.cat("big.bin", 0..3_000_000).await.unwrap() == file[..3_000_000]);
    // Half of the transport's deadline, which those who are gone would let pass.
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

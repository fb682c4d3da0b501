//! Trees, manifests and layouts that no honest owner would write: a typed error, and never a wrong byte.

use super::provider::Conduct;
use super::world::{Reading, World};
use super::writer::{Draft, Writer, copies, file, leaf};
use seedbank_client::dataset::Visibility;
use seedbank_client::glob::Filter;
use seedbank_client::network::Finding;
use seedbank_client::progress::Silent;
use seedbank_client::pull::{CatError, PullError, pull};
use seedbank_client::reader::ReadError;
use seedbank_client::restore::{RestoreError, RestoreOptions};
use seedbank_formats::layout::{ChildPlace, LayoutPage};
use seedbank_formats::manifest::{ManifestChild, ManifestPage};
use seedbank_formats::pages::PageId;
use seedbank_formats::place::{ChunkRef, Place};
use seedbank_formats::tree::{Content, Entry, TreeChild, TreePage, TreeRoot};
use seedbank_formats::{ChunkId, SegmentNumber};
use seedbank_testkit::ByteStream;
use std::sync::Arc;

fn failure(read: Result<Vec<u8>, CatError>) -> ReadError {
    match read {
        Ok(bytes) => panic!("{} bytes were given", bytes.len()),
        Err(CatError::Read(error)) => error,
        Err(CatError::Write(error)) => panic!("{error}"),
    }
}

/// Chunks of one segment.
fn stored_chunks(writer: &mut Writer<'_>, sizes: &[usize]) -> (Vec<u8>, Vec<(ChunkRef, Place)>) {
    let bytes = ByteStream::bytes(31, sizes.iter().sum());
    let (mut draft, mut rest) = (writer.draft(), &bytes[..]);
    let placed = sizes.iter().map(|size| {
        let (chunk, later) = rest.split_at(*size);
        rest = later;
        draft.chunk(chunk)
    });
    let placed = placed.collect();
    writer.store(draft, copies());
    (bytes, placed)
}

fn inline(placed: &[(ChunkRef, Place)]) -> Entry {
    let chunks: Vec<ChunkRef> = placed.iter().map(|(chunk, _)| *chunk).collect();
    file(chunks.iter().map(|chunk| u64::from(chunk.len)).sum(), Content::Chunks(chunks))
}

fn places(placed: &[(ChunkRef, Place)]) -> Vec<Place> {
    placed.iter().map(|(_, place)| *place).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layouts_that_lead_elsewhere_are_noticed() {
    let world = World::start(4, 8, Visibility::Public).await;
    let mut writer = Writer::new(&world);
    let (bytes, placed) = stored_chunks(&mut writer, &[10_000, 20_000, 30_000]);
    let right = places(&placed);
    let mut read = async |places: &[Place]| {
        let layout = LayoutPage::describe(places.iter().copied(), []);
        writer.version(vec![("f", inline(&placed))], &layout).cat("f", 0..u64::MAX).await
    };
    assert!(read(&right).await.unwrap() == bytes);
    let [first, second, third] = right[..] else { unreachable!("three chunks") };
    let elsewhere = |segment, index| Place { segment: SegmentNumber(segment), index };
    for wrong in [
        [second, first, third],
        [first, first, third],
        [first, second, second],
        [first, second, elsewhere(third.segment.0, 99)],
        [first, second, elsewhere(third.segment.0, u32::MAX - 1)],
    ] {
        let error = failure(read(&wrong).await);
        assert!(matches!(error, ReadError::WrongPlace { .. }), "{wrong:?}: {error:?}");
    }
    let error = failure(read(&[first, second, elsewhere(1 << 60, 2)]).await);
    assert!(matches!(error, ReadError::Placement(_)), "{error:?}");
    for wrong in [&right[..2], &[first, second, third, third][..], &[]] {
        let error = failure(read(wrong).await);
        assert!(matches!(error, ReadError::Broken(_)), "{wrong:?}: {error:?}");
    }
}

/// A manifest page with its layout.
fn manifest_page(draft: &mut Draft, page: &ManifestPage, layout: &LayoutPage) -> (ManifestChild, ChildPlace) {
    let (id, place) = draft.page(&page.encode());
    let child = ManifestChild { page: id, chunks: page.chunks(), bytes: page.bytes() };
    (child, ChildPlace { page: place, layout: draft.layout(id, layout) })
}

fn manifest_leaf(draft: &mut Draft, placed: &[(ChunkRef, Place)]) -> (ManifestChild, ChildPlace) {
    let page = ManifestPage::Leaf(placed.iter().map(|(chunk, _)| *chunk).collect());
    manifest_page(draft, &page, &LayoutPage::describe(places(placed), []))
}

fn by_manifest(root: &ManifestChild) -> Content {
    Content::Manifest { root: root.page, chunks: root.chunks, xet: [0; 32] }
}

/// Twenty chunks under two leaves and a root, which `spoil` may change.
async fn read_manifest(
    writer: &mut Writer<'_>,
    spoil: impl FnOnce(&mut Vec<ManifestChild>, &mut Vec<ChildPlace>, &mut Content, &mut u64),
) -> (Vec<u8>, Reading) {
    let (bytes, placed) = stored_chunks(writer, &[9_000; 20]);
    let mut draft = writer.draft();
    let left = manifest_leaf(&mut draft, &placed[..10]);
    let right = manifest_leaf(&mut draft, &placed[10..]);
    let (mut children, mut below) = (vec![left.0, right.0], vec![left.1, right.1]);
    let (mut content, mut size) = (Content::Chunks(Vec::new()), 180_000);
    spoil(&mut children, &mut below, &mut content, &mut size);
    let root = ManifestPage::Inner { level: 1, children };
    let (root, place) = manifest_page(&mut draft, &root, &LayoutPage::describe([], below));
    writer.store(draft, copies());
    if content == Content::Chunks(Vec::new()) {
        content = by_manifest(&root);
    }
    let layout = LayoutPage::describe([], [place]);
    (bytes, writer.version(vec![("f", file(size, content))], &layout))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pages_that_a_layout_puts_in_one_place_stay_two() {
    let world = World::start(4, 8, Visibility::Private).await;
    let mut writer = Writer::new(&world);
    let (bytes, reading) = read_manifest(&mut writer, |_, _, _, _| {}).await;
    assert!(reading.cat("f", 0..u64::MAX).await.unwrap() == bytes);
    assert!(reading.cat("f", 85_000..95_001).await.unwrap() == bytes[85_000..95_001]);
    let (_, reading) = read_manifest(&mut writer, |_, below, _, _| below[1] = below[0]).await;
    let error = failure(reading.cat("f", 0..u64::MAX).await);
    assert!(matches!(error, ReadError::WrongPlace { .. }), "{error:?}");
    let (_, reading) = read_manifest(&mut writer, |_, below, _, _| below[1].page = below[0].page).await;
    let error = failure(reading.cat("f", 0..u64::MAX).await);
    assert!(matches!(error, ReadError::WrongPlace { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_that_do_not_add_up_are_refused_before_a_byte_is_given() {
    let world = World::start(4, 8, Visibility::Private).await;
    let mut writer = Writer::new(&world);
    let mut broken = async |spoil: fn(&mut Vec<ManifestChild>, &mut u64)| {
        let spoil = |children: &mut Vec<_>, _: &mut _, _: &mut _, size: &mut _| spoil(children, size);
        let (_, reading) = read_manifest(&mut writer, spoil).await;
        let error = failure(reading.cat("f", 0..170_000).await);
        assert!(matches!(error, ReadError::Broken(_)), "{error:?}");
    };
    broken(|_, size| *size += 1).await;
    broken(|_, size| *size -= 1).await;
    broken(|_, size| *size = u64::MAX).await;
    broken(|children, _| children[0].bytes -= 1).await;
    broken(|children, size| (children[1].bytes, *size) = (u64::MAX, u64::MAX)).await;
    broken(|children, _| children[1].chunks += 1).await;
    broken(|children, _| {
        children.pop();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_of_another_length_than_their_page_says_are_refused() {
    let world = World::start(4, 8, Visibility::Private).await;
    let mut writer = Writer::new(&world);
    let (_, placed) = stored_chunks(&mut writer, &[10_000, 20_000]);
    for (nth, len) in [(0, 9_999), (1, 1), (1, 128 * 1024)] {
        let mut lied = placed.clone();
        lied[nth].0.len = len;
        let layout = LayoutPage::describe(places(&placed), []);
        let reading = writer.version(vec![("f", inline(&lied))], &layout);
        let error = failure(reading.cat("f", 0..u64::MAX).await);
        assert!(matches!(error, ReadError::WrongLength { .. }), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_another_kind_or_level_are_refused() {
    let world = World::start(4, 8, Visibility::Private).await;
    let mut writer = Writer::new(&world);
    // A tree page where a manifest should be.
    let (_, reading) = read_manifest(&mut writer, |children, below, content, _| {
        below.clear();
        *content = Content::Manifest { root: children[0].page, chunks: 20, xet: [0; 32] };
    })
    .await;
    let error = failure(reading.cat("f", 0..10).await);
    assert!(matches!(error, ReadError::WrongPlace { .. } | ReadError::Broken(_)), "{error:?}");

    let (_, placed) = stored_chunks(&mut writer, &[10_000]);
    let mut read_tree = async |level: u8, child_level: Option<u8>, first: &str, root: Option<TreeRoot>| {
        let mut draft = writer.draft();
        let below = leaf(vec![("b", inline(&placed)), ("c", Entry::Folder)]);
        let below = match child_level {
            None => below,
            Some(level) => {
                let (id, _) = draft.page(&below.encode());
                TreePage::Inner { level, children: vec![tree_child(id, "b", &below)] }
            }
        };
        let (id, page) = draft.page(&below.encode());
        let place = ChildPlace { page, layout: draft.layout(id, &LayoutPage::describe(places(&placed), [])) };
        let root_page = TreePage::Inner { level, children: vec![tree_child(id, first, &below)] };
        let (root_id, page) = draft.page(&root_page.encode());
        let layout = draft.layout(root_id, &LayoutPage::describe([], [place]));
        writer.store(draft, copies());
        let reading = writer.read(root.unwrap_or(root_page.totals(root_id)), ChildPlace { page, layout });
        let found = reading.cat("b", 0..u64::MAX).await;
        let dest = world.folder.path().join("nowhere");
        let (filter, options) = (Filter::default(), RestoreOptions::default());
        let pulled =
            pull(&reading.reader, &reading.snapshot, &dest, &filter, options, Arc::new(Silent)).await;
        (found, pulled)
    };
    assert!(read_tree(1, None, "b", None).await.0.is_ok());
    let other_sums = TreeRoot { page: ChunkId([0; 32]), entries: 1, bytes: 1 };
    for (level, child_level, first, root) in [
        (2, None, "b", None),
        (1, Some(1), "b", None),
        (1, None, "a", None),
        (200, None, "b", None),
        (1, None, "b", Some(other_sums)),
    ] {
        let (found, pulled) = read_tree(level, child_level, first, root).await;
        let error = failure(found);
        assert!(matches!(error, ReadError::Broken(_) | ReadError::WrongPlace { .. }), "{error:?}");
        assert!(matches!(pulled, Err(PullError::Read(_))), "{pulled:?}");
    }
}

fn tree_child(page: PageId, first: &str, below: &TreePage) -> TreeChild {
    let totals = below.totals(page);
    TreeChild { first: first.parse().unwrap(), page, entries: totals.entries, bytes: totals.bytes }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_that_are_file_and_folder_at_once_do_not_leave_the_destination() {
    let world = World::start(4, 8, Visibility::Private).await;
    let mut writer = Writer::new(&world);
    let (_, placed) = stored_chunks(&mut writer, &[10_000]);
    let both = [placed[0], placed[0]];
    let layout = LayoutPage::describe(places(&both), []);
    let entries = vec![("a", inline(&placed)), ("a/b", inline(&placed))];
    let reading = writer.version(entries, &layout);
    let dest = world.folder.path().join("dest");
    let (filter, options) = (Filter::default(), RestoreOptions::default());
    let pulled = pull(&reading.reader, &reading.snapshot, &dest, &filter, options, Arc::new(Silent)).await;
    let refused = RestoreError::NotAFolder(dest.join("a"));
    assert!(
        matches!(&pulled, Err(PullError::Restore(error)) if error.to_string() == refused.to_string()),
        "{pulled:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_a_petabyte_in_forty_pages_is_read_where_it_is_wanted() {
    let world = World::start(4, 8, Visibility::Public).await;
    let mut writer = Writer::new(&world);
    let (bytes, placed) = stored_chunks(&mut writer, &[1_000; 17]);
    let mut draft = writer.draft();
    // Each page lists the one below twice.
    let (mut child, mut place) = manifest_leaf(&mut draft, &placed);
    for level in 1..=36 {
        let page = ManifestPage::Inner { level, children: vec![child, child] };
        let layout = LayoutPage::describe([], [place, place]);
        (child, place) = manifest_page(&mut draft, &page, &layout);
    }
    writer.store(draft, copies());
    let (size, layout) = (child.bytes, LayoutPage::describe([], [place]));
    assert_eq!(size, 17_000 << 36);
    let reading = writer.version(vec![("f", file(size, by_manifest(&child)))], &layout);
    let middle = size / 2 - 500;
    let expected = [&bytes[16_500..], &bytes[..500]].concat();
    assert!(reading.cat("f", middle..middle + 1_000).await.unwrap() == expected);
    assert!(reading.cat("f", size - 10..u64::MAX).await.unwrap() == bytes[16_990..]);
    assert!(reading.moved().requests < 40, "{:?}", reading.moved());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_a_public_dataset_s_key_can_not_forge_its_metadata() {
    let world = World::start(4, 8, Visibility::Public).await;
    let bytes = ByteStream::bytes(33, 600_000);
    let pushed = world.push_files(&[("f", &bytes)]).await;
    // Everybody lies, but one of the holders of each segment: footers and layouts would open if they were believed.
    let segments = {
        let reading = world.read(pushed.version).await;
        reading.snapshot.segments(&reading.reader).await.unwrap()
    };
    for segment in &segments {
        assert!(segment.scheme.total() >= 5);
    }
    let metadata = segments.iter().find(|segment| segment.scheme.is_copies()).unwrap();
    let honest = metadata.fragments[3].holder.unwrap();
    for provider in world.providers.iter().filter(|provider| provider.key() != honest) {
        let id = metadata.fragments[0].id;
        provider.shelf.forge(id, |bytes| forged(&world, metadata, bytes));
        provider.shelf.behave_about(Conduct::Honest, [id]);
    }
    let reading = world.read(pushed.version).await;
    assert!(reading.cat("f", 0..u64::MAX).await.unwrap() == bytes);
    let findings: Vec<Finding> = reading.network.findings();
    assert!(findings.iter().all(|finding| finding.provider != honest));
}

/// The same items in another order, sealed with the published key.
fn forged(world: &World, placement: &seedbank_formats::placement::SegmentPlacement, bytes: &[u8]) -> Vec<u8> {
    use seedbank_formats::segment::{Footer, SegmentBuilder};
    let keys = world.keys.seal_keys(placement.epoch).unwrap();
    let sealed_len = usize::try_from(placement.sealed_len).unwrap();
    let footer_at = sealed_len - usize::try_from(placement.footer_len).unwrap();
    let footer =
        Footer::open(keys, placement.number, placement.sealed_len, &bytes[footer_at..sealed_len]).unwrap();
    let mut builder = SegmentBuilder::new(keys, placement.number, Vec::new());
    for item in footer.items.iter().rev() {
        let start = usize::try_from(item.offset).unwrap();
        let end = start + usize::try_from(item.sealed_len).unwrap();
        builder.push_sealed(item, &bytes[start..end]).unwrap();
    }
    let mut forged = builder.finish().bytes;
    forged.resize(bytes.len(), 0);
    forged
}

//! What finding one file costs in a version of many.

use super::world::{Moved, Reading, World};
use super::writer::{Writer, file};
use seedbank_client::dataset::Visibility;
use seedbank_client::glob::Filter;
use seedbank_client::progress::Silent;
use seedbank_client::pull::{PullReport, pull, verify};
use seedbank_client::restore::RestoreOptions;
use seedbank_erasure::Scheme;
use seedbank_formats::layout::{ChildPlace, LayoutPage};
use seedbank_formats::pages::PageId;
use seedbank_formats::place::Place;
use seedbank_formats::segment::SEGMENT_ITEMS_MAX;
use seedbank_formats::tree::{Content, Entry, TreeBuilder, TreePage};
use seedbank_formats::{ChunkId, Sha256};
use std::collections::HashMap;
use std::sync::Arc;

const FILES: usize = 20_000;

fn path_of(nth: usize) -> String {
    format!("part-{:03}/sample-{nth:06}.txt", nth / 100)
}

fn text_of(nth: usize) -> String {
    format!("sample number {nth}, of twenty thousand")
}

fn scheme() -> Scheme {
    Scheme::new(4, 8).unwrap()
}

/// A version of many small files, each its own chunk.
fn many_files(world: &World) -> Reading {
    let mut writer = Writer::new(world);
    let (mut entries, mut chunk_places): (Vec<Entry>, HashMap<ChunkId, Place>) = (Vec::new(), HashMap::new());
    for batch in (0..FILES).collect::<Vec<_>>().chunks(SEGMENT_ITEMS_MAX) {
        let mut draft = writer.draft();
        for nth in batch {
            let text = text_of(*nth);
            let (chunk, place) = draft.chunk(text.as_bytes());
            chunk_places.insert(chunk.id, place);
            entries.push(file(text.len() as u64, Content::Chunks(vec![chunk])));
        }
        writer.store(draft, scheme());
    }
    let (mut draft, mut page_places): (_, HashMap<PageId, ChildPlace>) = (writer.draft(), HashMap::new());
    let mut store = |id: PageId, bytes: Vec<u8>| {
        let page = TreePage::decode(&bytes).unwrap();
        let chunks = page.chunk_refs().map(|chunk| chunk_places[&chunk.id]);
        let layout = LayoutPage::describe(chunks, page.page_refs().map(|page| page_places[&page]));
        let (_, place) = draft.page(&bytes);
        page_places.insert(id, ChildPlace { page: place, layout: draft.layout(id, &layout) });
    };
    let mut builder = TreeBuilder::new();
    for (nth, entry) in entries.iter_mut().enumerate() {
        if let Entry::File { sha256, .. } = entry {
            *sha256 = sha256_of(&text_of(nth));
        }
        builder.push(&path_of(nth).parse().unwrap(), entry, &mut store).unwrap();
    }
    let root = builder.finish(&mut store);
    writer.store(draft, scheme());
    writer.read(root, page_places[&root.page])
}

fn sha256_of(text: &str) -> Sha256 {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    Sha256(digest.as_ref().try_into().unwrap())
}

async fn pull_some(world: &World, reading: &Reading, pattern: &str) -> (PullReport, Moved) {
    let (filter, options) = (Filter::parse(&[pattern], &[]).unwrap(), RestoreOptions::default());
    let (reader, snapshot) = (&reading.reader, &reading.snapshot);
    let dest = world.folder.path().join(pattern.replace(['/', '*'], "-"));
    let pulled = pull(reader, snapshot, &dest, &filter, options, Arc::new(Silent)).await.unwrap();
    (pulled, reading.moved())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulling_one_file_fetches_metadata_bounded_by_that_file() {
    let world = World::start(4, 8, Visibility::Private).await;
    let all = many_files(&world);
    verify(&all.reader, &all.snapshot, Arc::new(Silent)).await.unwrap();
    let everything = all.moved();
    assert_eq!(everything.decodes, 0);
    // Footers are the largest part: with chunks this small, 344 KB for a full segment.
    const FOOTERS: u64 = 400_000;

    let one = all.again(&world);
    let bytes = one.cat(&path_of(12_345), 0..u64::MAX).await.unwrap();
    assert_eq!(bytes, text_of(12_345).as_bytes());
    let found = one.moved();
    assert!(found.requests <= 7 && found.bytes < FOOTERS, "{found:?}");
    assert!(everything.bytes > 6 * found.bytes, "{everything:?}");
    // The next file of the same leaf: its chunk alone.
    let before = one.moved();
    assert_eq!(one.cat(&path_of(12_346), 0..u64::MAX).await.unwrap(), text_of(12_346).as_bytes());
    let next = one.moved_since(before);
    assert_eq!((next.requests, next.proofs), (1, 0), "{next:?}");

    let (pulled, one) = pull_some(&world, &all.again(&world), &path_of(777)).await;
    assert_eq!((pulled.files, one.decodes), (1, 0));
    assert!(one.requests <= 7 && one.bytes < FOOTERS, "{one:?}");

    let (pulled, some) = pull_some(&world, &all.again(&world), "part-123/*").await;
    assert_eq!((pulled.files, some.decodes), (100, 0));
    assert!(some.requests <= 10 && some.bytes < FOOTERS + 50_000, "{some:?}");
}

//! Pages and records of a dataset's trees: written by whoever holds its key, honest or not.

use crate::canonical;
use crate::input::Input;
use seedbank_formats::checkpoint::{Checkpoint, RefRecord, VersionRecord};
use seedbank_formats::layout::LayoutPage;
use seedbank_formats::manifest::ManifestPage;
use seedbank_formats::numbered::{LinkPage, RADIX, RecordPage};
use seedbank_formats::placement::{MapInner, MapLeaf};
use seedbank_formats::seal::page_id;
use seedbank_formats::tree::{Found, TreePage};

/// Pages of the tree of paths; two of them, so that one may pretend to lie below the other.
pub(crate) fn run_tree(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let split = input.below(256) * 16;
    let bytes = input.rest();
    let (page, below) = bytes.split_at(split.min(bytes.len()));
    let below = canonical(below, TreePage::decode, TreePage::encode);
    let Some(page) = canonical(page, TreePage::decode, TreePage::encode) else { return };
    let totals = page.totals(page_id(bytes));
    let rows = match &page {
        TreePage::Leaf(entries) => {
            for (position, (path, entry)) in entries.iter().enumerate() {
                assert_eq!(page.find(path), Found::Entry { position, entry });
                entry.check(path).expect("entries are checked when they are read");
            }
            assert_eq!(totals.entries, entries.len() as u64);
            entries.len()
        }
        TreePage::Inner { children, .. } => {
            for (position, child) in children.iter().enumerate() {
                assert_eq!(page.find(&child.first), Found::Below { position, child });
                let upper = children.get(position + 1).map(|next| &next.first);
                if let Some(below) = &below {
                    drop(below.check_below(page.level() - 1, child, upper));
                }
            }
            children.len()
        }
    };
    let counts = page.refs_before(rows);
    assert_eq!((page.chunk_refs().count(), page.page_refs().count()), (counts.chunks, counts.pages));
}

/// All other pages, and the records in them.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = input.below(9);
    let bytes = input.rest();
    match kind {
        0 => manifest(bytes),
        1 => layout(bytes),
        2 => drop(canonical(bytes, RecordPage::decode, RecordPage::encode)),
        3 => drop(canonical(bytes, LinkPage::decode, LinkPage::encode)),
        4 => {
            if let Some(leaf) = canonical(bytes, MapLeaf::decode, MapLeaf::encode) {
                for placement in leaf.iter() {
                    assert_eq!(leaf.get(placement.number), Some(placement));
                    assert_eq!(placement.fragments.len(), placement.scheme.total());
                }
            }
        }
        5 => {
            if let Some(inner) = canonical(bytes, MapInner::decode, MapInner::encode) {
                drop((0..=RADIX).map(|slot| inner.child(slot)).collect::<Vec<_>>());
            }
        }
        6 => drop(canonical(bytes, Checkpoint::decode, Checkpoint::encode)),
        7 => drop(canonical(bytes, VersionRecord::decode, VersionRecord::encode)),
        _ => drop(canonical(bytes, RefRecord::decode, RefRecord::encode)),
    }
}

fn manifest(bytes: &[u8]) {
    let Some(page) = canonical(bytes, ManifestPage::decode, ManifestPage::encode) else { return };
    for offset in [0, 1, page.bytes() / 2, page.bytes().saturating_sub(1), page.bytes(), u64::MAX] {
        std::hint::black_box(page.find(offset));
    }
    assert!(page.chunk_refs().count() as u64 <= page.chunks());
    if let ManifestPage::Inner { children, .. } = &page {
        for child in children {
            drop(page.check_below(page.level() - 1, child));
        }
    }
}

fn layout(bytes: &[u8]) {
    let Some(page) = canonical(bytes, LayoutPage::decode, LayoutPage::encode) else { return };
    let places: Vec<_> = page.places().collect();
    assert!(places.len() <= 4096, "a page has room for fewer refs");
    for (nth, place) in places.iter().enumerate() {
        assert_eq!(page.place_of(nth), Some(*place));
        assert!(page.segments().contains(&place.segment));
    }
    assert_eq!(page.place_of(places.len()), None);
    assert_eq!(LayoutPage::describe(places, page.children().iter().copied()), page);
}

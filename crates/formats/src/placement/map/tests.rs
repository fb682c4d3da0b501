use super::{ChildSegment, MapInner, MapLeaf};
use crate::golden;
use crate::ids::{ChunkId, FragmentId, PublicKey, SegmentNumber};
use crate::keys::KeyEpoch;
use crate::numbered::{PageAt, pages_to_write, slot_of};
use crate::placement::{FragmentPlacement, Hints, SegmentPlacement};
use crate::seal::page_id;
use proptest::prelude::{any, proptest};
use seedbank_erasure::Scheme;
use std::collections::BTreeMap;

fn hash(number: u64) -> [u8; 32] {
    *blake3::hash(&number.to_le_bytes()).as_bytes()
}

/// A segment on providers chosen by its number out of 100; every seventh fragment has no holder.
fn placement(number: u64, data: usize, total: usize) -> SegmentPlacement {
    let scheme = Scheme::new(data, total).unwrap();
    let fragments = (0..total as u64).map(|index| FragmentPlacement {
        id: FragmentId(hash(number * 300 + if scheme.is_copies() { 0 } else { index })),
        holder: (index % 7 != 6).then(|| PublicKey(hash((number + index) % 100))),
    });
    SegmentPlacement {
        number: SegmentNumber(number),
        epoch: KeyEpoch(1),
        scheme,
        sealed_len: 60_000_000,
        footer_len: 90_000,
        fragments: fragments.collect(),
    }
}

fn hints() -> Hints {
    (0..100).map(|number| (PublicKey(hash(number)), format!("203.0.113.{number}:7450"))).collect()
}

#[test]
fn a_leaf_reads_back_with_the_hints_of_its_holders() {
    let mut leaf = MapLeaf { hints: hints(), ..MapLeaf::default() };
    for number in [128, 130, 191] {
        leaf.put(placement(number, 4, 8));
    }
    leaf.put(placement(131, 1, 5));
    let back = MapLeaf::decode(&leaf.encode()).unwrap();
    assert!(back.iter().eq(leaf.iter()));
    let holders: std::collections::BTreeSet<_> =
        leaf.iter().flat_map(|placement| placement.holders()).collect();
    assert!(back.hints.keys().eq(holders.iter()), "hints of holders and no others");
    assert_eq!(back.get(SegmentNumber(130)), Some(&placement(130, 4, 8)));
    assert_eq!((back.get(SegmentNumber(129)), back.get(SegmentNumber(66))), (None, None));
    leaf.remove(SegmentNumber(131));
    assert_eq!(leaf.get(SegmentNumber(131)), None);
}

#[test]
fn pages_below_are_found_after_the_page_above_has_moved() {
    let (first, second) = (placement(900, 1, 5), placement(901, 1, 5));
    let mut page = MapInner { hints: hints(), ..MapInner::default() };
    page.put_beside(3, 11, ChunkId([3; 32]));
    page.put_beside(4, 12, ChunkId([4; 32]));
    assert_eq!(page.child(3).unwrap().segment, ChildSegment::Same);
    // Written to segment 900; now read from there and written to 901 with one page below replaced.
    let mut page = MapInner::decode(&page.encode()).unwrap();
    page.leave(&first);
    page.put_beside(4, 2, ChunkId([5; 32]));
    let mut page = MapInner::decode(&page.encode()).unwrap();
    assert_eq!(page.child(3).unwrap().segment, ChildSegment::Other(&first));
    assert_eq!(page.child(4).unwrap().segment, ChildSegment::Same);
    page.leave(&second);
    page.put_beside(3, 9, ChunkId([6; 32]));
    assert_eq!(page.segments().map(|placement| placement.number.0).collect::<Vec<_>>(), [901]);
    let mut moved = second.clone();
    moved.fragments[0].holder = None;
    assert!(page.replace(&moved) && !page.replace(&first));
    assert_eq!(page.child(4).unwrap().segment, ChildSegment::Other(&moved));
}

#[test]
fn one_changed_segment_of_a_hundred_thousand_rewrites_under_100_kb_of_map() {
    // The worst placed map: every page below lies in a metadata segment of its own.
    let count = 100_000;
    for (data, total) in [(4, 8), (20, 30)] {
        let mut written = 0;
        let changed = pages_to_write(count, count, [70_001]);
        let mut below: Option<(PageAt, Vec<u8>)> = None;
        for at in changed {
            let bytes = if at.level == 0 {
                let mut leaf = MapLeaf { hints: hints(), ..MapLeaf::default() };
                (0..64).for_each(|slot| leaf.put(placement(at.page * 64 + slot, data, total)));
                leaf.encode()
            } else {
                let mut inner = MapInner { hints: hints(), ..MapInner::default() };
                for slot in 0..64 {
                    inner.put_beside(slot, 3, ChunkId(hash(slot as u64)));
                    inner.leave(&placement(count + slot as u64, 1, total - data + 1));
                }
                let (below, bytes) = below.unwrap();
                inner.put_beside(below.slot_in_parent(), 0, page_id(&bytes));
                inner.encode()
            };
            written += bytes.len();
            below = Some((at, bytes));
        }
        assert!(written < 100_000, "{data} of {total}: {written} bytes");
    }
}

#[test]
fn a_map_leads_from_its_root_to_every_segment() {
    // A toy network: pages by (segment, index), all of a commit in one segment.
    let mut store: BTreeMap<(u64, u32), Vec<u8>> = BTreeMap::new();
    let mut pages: BTreeMap<PageAt, (u64, u32)> = BTreeMap::new();
    let mut count = 0;
    for commit in 0..40u64 {
        let home = 1_000_000 + commit;
        let after = count + 1 + commit * 7 % 30;
        for (index, at) in (0..).zip(pages_to_write(count, after, count..after)) {
            let old = pages.get(&at).map(|(segment, index)| (*segment, store[&(*segment, *index)].clone()));
            let bytes = if at.level == 0 {
                let mut leaf = old.map_or_else(MapLeaf::default, |(_, page)| MapLeaf::decode(&page).unwrap());
                let here = (at.page * 64..at.page * 64 + 64).filter(|number| (count..after).contains(number));
                here.for_each(|number| leaf.put(placement(number, 2, 3)));
                leaf.encode()
            } else {
                let mut inner = old.map_or_else(MapInner::default, |(segment, page)| {
                    let mut inner = MapInner::decode(&page).unwrap();
                    inner.leave(&placement(segment, 1, 2));
                    inner
                });
                for slot in 0..64 {
                    let Some((segment, index)) = at.child(slot).and_then(|child| pages.get(&child)) else {
                        continue;
                    };
                    let hash = page_id(&store[&(*segment, *index)]);
                    if *segment == home {
                        inner.put_beside(slot, *index, hash);
                    } else if inner.child(slot).is_none() {
                        // The old root, under a new one: it lies where an earlier commit put it.
                        inner.put_in(slot, *index, &placement(*segment, 1, 2), hash);
                    }
                }
                inner.encode()
            };
            store.insert((home, index), bytes);
            pages.insert(at, (home, index));
        }
        count = after;
    }
    let root = *pages.keys().last().unwrap();
    for number in 0..count {
        let (mut at, mut place) = (root, pages[&root]);
        while at.level > 0 {
            let page = MapInner::decode(&store[&place]).unwrap();
            let child = page.child(slot_of(number, at.level)).unwrap();
            let segment = match child.segment {
                ChildSegment::Same => place.0,
                ChildSegment::Other(placement) => placement.number.0,
            };
            place = (segment, child.index);
            assert_eq!(page_id(&store[&place]), child.hash);
            at = at.child(slot_of(number, at.level)).unwrap();
        }
        let leaf = MapLeaf::decode(&store[&place]).unwrap();
        assert_eq!(leaf.get(SegmentNumber(number)), Some(&placement(number, 2, 3)));
    }
}

fn samples() -> (MapLeaf, MapInner) {
    let hints = Hints::from([(PublicKey(hash(2)), "198.51.100.7:7450".to_owned())]);
    let mut leaf = MapLeaf { hints: hints.clone(), ..MapLeaf::default() };
    leaf.put(placement(1, 2, 3));
    leaf.put(placement(2, 1, 2));
    let mut inner = MapInner { hints, ..MapInner::default() };
    inner.put_beside(0, 5, ChunkId([7; 32]));
    inner.leave(&placement(2, 1, 2));
    inner.put_beside(1, 6, ChunkId([8; 32]));
    (leaf, inner)
}

#[test]
fn pages_have_the_bytes_of_the_vectors() {
    let vectors = include_str!("../../../../../testdata/map.txt");
    let (leaf, inner) = samples();
    golden::check(vectors, "leaf", &leaf.encode());
    golden::check(vectors, "inner", &inner.encode());
    golden::check(vectors, "empty-leaf", &MapLeaf::default().encode());
}

#[test]
fn a_segment_in_the_slot_of_another_is_refused() {
    let mut leaf = MapLeaf::default();
    leaf.put(placement(1, 2, 3));
    leaf.put(placement(66, 2, 3));
    assert!(MapLeaf::decode(&leaf.encode()).is_err(), "66 belongs into the next leaf");
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for magic in [b"SBML", b"SBMI"] {
            let whole = [magic.as_slice(), &[1], &bytes].concat();
            let _ = (MapLeaf::decode(&whole), MapInner::decode(&whole), MapLeaf::decode(&bytes));
        }
    }

    #[test]
    fn flipped_pages_are_refused_or_canonical(at in any::<usize>(), bit in 0u8..8, cut in 0usize..3) {
        let (leaf, inner) = samples();
        for bytes in [leaf.encode(), inner.encode()] {
            let mut bytes = bytes;
            let index = at % bytes.len();
            bytes[index] ^= 1 << bit;
            bytes.truncate(bytes.len() - cut);
            if let Ok(page) = MapLeaf::decode(&bytes) {
                assert_eq!(page.encode(), bytes);
            }
            if let Ok(page) = MapInner::decode(&bytes) {
                assert_eq!(page.encode(), bytes);
            }
        }
    }
}

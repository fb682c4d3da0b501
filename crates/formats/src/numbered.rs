//! Trees over dense numbers: 64 records in a leaf, 64 pages in an inner page.
//!
//! The placement map, the list of versions and the list of refs are such trees. Numbers only grow, so a page is known by
//! its tree, level and number, and changing one record rewrites one page a level. Pages are named items
//! ([`numbered_id`]): a newer one replaces the older under the same id. What each is pinned by is the [`Link`] to it, up
//! to the root that a signed head or a checkpoint holds.
//!
//! Here stand the arithmetic, the leaves that hold records as bytes and the inner pages that hold links. The map's pages,
//! which can't use places, stand in [`crate::placement`]. `docs/formats/checkpoint.md` draws both.

use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::ChunkId;
use crate::place::Link;
use crate::seal::named_id;
use std::collections::BTreeSet;

/// Records in a leaf, and children of an inner page.
pub const RADIX: usize = 64;
const RADIX_BITS: u32 = 6;
/// Levels that cover every 64-bit number.
pub const LEVELS_MAX: u8 = 11;

/// Which tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NumberedTree {
    /// Segment number to [`crate::placement::SegmentPlacement`].
    Map,
    /// A version's ordinal to [`crate::checkpoint::VersionRecord`].
    Versions,
    /// A ref's slot to [`crate::checkpoint::RefRecord`].
    Refs,
}

/// A page's position in its tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageAt {
    /// Height above the leaves, which are at 0.
    pub level: u8,
    /// Number of the page in its level, from the left.
    pub page: u64,
}

/// A tree's root page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Root {
    /// Height above the leaves; 0 when the root is a leaf.
    pub level: u8,
    /// Where the page is. Its number is 0.
    pub link: Link,
}

/// The id under which a page is sealed.
#[must_use]
pub fn numbered_id(tree: NumberedTree, at: PageAt) -> ChunkId {
    let tree = match tree {
        NumberedTree::Map => 1,
        NumberedTree::Versions => 2,
        NumberedTree::Refs => 3,
    };
    named_id(&[b"numbered".as_slice(), &[tree, at.level], &at.page.to_le_bytes()].concat())
}

/// Height of the root of a tree that covers the numbers below `count`. `None` without any.
#[must_use]
pub fn root_level(count: u64) -> Option<u8> {
    let last = count.checked_sub(1)?;
    (0..LEVELS_MAX).find(|level| page_of(last, *level).page == 0)
}

/// The page of `level` that covers `number`.
#[must_use]
pub fn page_of(number: u64, level: u8) -> PageAt {
    let shift = RADIX_BITS * (u32::from(level) + 1);
    PageAt { level, page: number.checked_shr(shift).unwrap_or(0) }
}

/// The slot that leads to `number` in the page of `level` that covers it.
#[must_use]
pub fn slot_of(number: u64, level: u8) -> usize {
    let shifted = number.checked_shr(RADIX_BITS * u32::from(level)).unwrap_or(0);
    usize::try_from(shifted % RADIX as u64).expect("below 64")
}

impl PageAt {
    /// The page above.
    #[must_use]
    pub fn parent(self) -> PageAt {
        PageAt { level: self.level.saturating_add(1), page: self.page >> RADIX_BITS }
    }

    /// Its slot in the page above.
    #[must_use]
    pub fn slot_in_parent(self) -> usize {
        slot_of(self.page, 0)
    }

    /// The page below in `slot`, unless this one is a leaf or the slot's numbers are above 64 bits.
    #[must_use]
    pub fn child(self, slot: usize) -> Option<PageAt> {
        let first = self.page.checked_mul(RADIX as u64)?;
        let page = first.checked_add(u64::try_from(slot).ok()?)?;
        Some(PageAt { level: self.level.checked_sub(1)?, page })
    }
}

/// The pages to write when the records of `changed` numbers change and the tree grows from `before` numbers to `after`:
/// leaves first, each page before its parent, the root last.
///
/// A page that did not exist is written because a number of its changed, or because it leads from a higher root to the
/// old one. What it can't fill from old pages stays empty.
///
/// # Panics
/// When a changed number is not below `after`, or the tree would shrink.
#[must_use]
pub fn pages_to_write(before: u64, after: u64, changed: impl IntoIterator<Item = u64>) -> Vec<PageAt> {
    assert!(before <= after, "numbers are never taken back");
    let Some(root) = root_level(after) else { return Vec::new() };
    let mut pages = BTreeSet::new();
    for number in changed {
        assert!(number < after, "a changed number is one of the tree's");
        pages.extend((0..=root).map(|level| page_of(number, level)));
    }
    if let Some(old_root) = root_level(before) {
        pages.extend((old_root + 1..=root).map(|level| PageAt { level, page: 0 }));
    }
    pages.into_iter().collect()
}

/// The 64 slots of a page, each filled or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots<T>(Vec<Option<T>>);

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots((0..RADIX).map(|_| None).collect())
    }
}

impl<T> Slots<T> {
    /// What is in a slot.
    #[must_use]
    pub fn get(&self, slot: usize) -> Option<&T> {
        self.0.get(slot)?.as_ref()
    }

    /// Fills or empties a slot, and gives what was in it.
    ///
    /// # Panics
    /// When there is no such slot: there are [`RADIX`].
    pub fn set(&mut self, slot: usize, value: Option<T>) -> Option<T> {
        std::mem::replace(&mut self.0[slot], value)
    }

    /// The filled slots with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.0.iter().enumerate().filter_map(|(slot, value)| Some((slot, value.as_ref()?)))
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().flatten()
    }

    pub(crate) fn write(&self, writer: &mut Writer, mut value: impl FnMut(&mut Writer, &T)) {
        writer.u64(self.iter().fold(0, |filled, (slot, _)| filled | 1 << slot));
        for (_, filled) in self.iter() {
            value(writer, filled);
        }
    }

    pub(crate) fn read<'a>(
        reader: &mut Reader<'a>,
        mut value: impl FnMut(&mut Reader<'a>, usize) -> Result<T, DecodeError>,
    ) -> Result<Slots<T>, DecodeError> {
        let filled = reader.u64()?;
        let mut slots = Slots::default();
        for (slot, place) in slots.0.iter_mut().enumerate() {
            if filled & (1 << slot) != 0 {
                *place = Some(value(reader, slot)?);
            }
        }
        Ok(slots)
    }
}

const RECORDS_MAGIC: &[u8; 4] = b"SBNR";
const LINKS_MAGIC: &[u8; 4] = b"SBNL";
const VERSION: u8 = 1;
const RECORDS: &str = "record page";
const LINKS: &str = "link page";

/// Longest record. The longest that exist, refs, have a name of 255 bytes.
pub const RECORD_BYTES_MAX: usize = 1024;

/// A leaf of the list of versions or refs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordPage {
    /// Records as bytes of at most [`RECORD_BYTES_MAX`]: what they say is for `checkpoint`.
    pub records: Slots<Vec<u8>>,
}

impl RecordPage {
    /// The page's bytes.
    ///
    /// # Panics
    /// With a record above [`RECORD_BYTES_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::format(RECORDS_MAGIC, VERSION);
        self.records.write(&mut writer, |writer, record| {
            assert!(record.len() <= RECORD_BYTES_MAX, "records are short");
            writer.bytes(record);
        });
        writer.finish()
    }

    /// Reads a page.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are no record page.
    pub fn decode(bytes: &[u8]) -> Result<RecordPage, DecodeError> {
        let mut reader = Reader::format(RECORDS, RECORDS_MAGIC, VERSION, bytes)?;
        let records =
            Slots::read(&mut reader, |reader, _| Ok(reader.bytes("a record", RECORD_BYTES_MAX)?.to_vec()))?;
        reader.finish()?;
        Ok(RecordPage { records })
    }
}

/// An inner page of the list of versions or refs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkPage {
    /// The pages of the level below.
    pub children: Slots<Link>,
}

impl LinkPage {
    /// The page's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::format(LINKS_MAGIC, VERSION);
        self.children.write(&mut writer, |writer, link| link.write(writer));
        writer.finish()
    }

    /// Reads a page.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are no link page.
    pub fn decode(bytes: &[u8]) -> Result<LinkPage, DecodeError> {
        let mut reader = Reader::format(LINKS, LINKS_MAGIC, VERSION, bytes)?;
        let children = Slots::read(&mut reader, |reader, _| Link::read(reader))?;
        reader.finish()?;
        Ok(LinkPage { children })
    }
}

impl Root {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u8(self.level);
        self.link.write(writer);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Root, DecodeError> {
        let level = reader.u8()?;
        if level >= LEVELS_MAX {
            return Err(reader.invalid("a root is higher than numbers need"));
        }
        Ok(Root { level, link: Link::read(reader)? })
    }
}

#[cfg(test)]
mod tests {
    use super::{
        LinkPage, NumberedTree, PageAt, RecordPage, numbered_id, page_of, pages_to_write, root_level, slot_of,
    };
    use crate::golden;
    use crate::ids::SegmentNumber;
    use crate::place::{Link, Place};
    use proptest::prelude::{any, proptest};
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn the_root_is_as_high_as_its_numbers_need() {
        for (count, level) in [
            (0, None),
            (1, Some(0)),
            (64, Some(0)),
            (65, Some(1)),
            (4096, Some(1)),
            (4097, Some(2)),
            (100_000, Some(2)),
            (u64::MAX, Some(10)),
        ] {
            assert_eq!(root_level(count), level, "{count} numbers");
        }
    }

    #[test]
    fn one_change_writes_one_page_a_level_and_growth_leads_to_the_old_root() {
        let at = |level, page| PageAt { level, page };
        assert_eq!(pages_to_write(0, 0, []), []);
        assert_eq!(pages_to_write(100_000, 100_000, [70_000]), [at(0, 1093), at(1, 17), at(2, 0)]);
        assert_eq!(pages_to_write(64, 65, [64]), [at(0, 1), at(1, 0)]);
        assert_eq!(pages_to_write(64, 5000, [4999]), [at(0, 78), at(1, 0), at(1, 1), at(2, 0)]);
        assert_eq!(pages_to_write(0, 3, [0, 1, 2]), [at(0, 0)]);
    }

    proptest! {
        #[test]
        fn slots_lead_from_the_root_to_every_number(number in any::<u64>(), spread in 1u64..u64::MAX) {
            let count = number.saturating_add(spread);
            if number < count {
                let mut page = PageAt { level: root_level(count).unwrap(), page: 0 };
                while page.level > 0 {
                    let below = page.child(slot_of(number, page.level)).unwrap();
                    assert_eq!((below.parent(), below.slot_in_parent()), (page, slot_of(number, page.level)));
                    page = below;
                }
                assert_eq!(page, page_of(number, 0));
            }
        }

        #[test]
        fn what_is_written_agrees_with_a_naive_tree(
            before in 0u64..9000, grown in 0u64..9000, changed in proptest::collection::btree_set(0u64..18_000, 0..20)
        ) {
            let after = before + grown;
            let changed: BTreeSet<u64> =
                changed.into_iter().filter(|number| *number < after).chain(before..after).collect();
            // Naively: every page is the set of changed numbers below it; those with any are written.
            let mut level: BTreeMap<u64, bool> = (0..after).map(|number| (number, changed.contains(&number))).collect();
            let mut expected = Vec::new();
            for height in 0..=root_level(after).unwrap_or(0) {
                let mut above = BTreeMap::new();
                for (number, is_changed) in &level {
                    *above.entry(number / 64).or_insert(false) |= is_changed;
                }
                expected.extend(above.iter().filter(|(_, is_changed)| **is_changed).map(|(page, _)| {
                    PageAt { level: height, page: *page }
                }));
                level = above;
            }
            if after > 0 && !changed.is_empty() {
                assert_eq!(pages_to_write(before, after, changed), expected);
            }
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for magic in [b"SBNR", b"SBNL"] {
                let whole = [magic.as_slice(), &[1], &bytes].concat();
                if let Ok(page) = RecordPage::decode(&whole) {
                    assert_eq!(page.encode(), whole);
                }
                if let Ok(page) = LinkPage::decode(&whole) {
                    assert_eq!(page.encode(), whole);
                }
            }
        }
    }

    #[test]
    fn pages_have_the_bytes_of_the_vectors() {
        let vectors = include_str!("../../../testdata/checkpoint.txt");
        let mut records = RecordPage::default();
        records.records.set(0, Some(b"zero".to_vec()));
        records.records.set(63, Some(b"last".to_vec()));
        golden::check(vectors, "record-page", &records.encode());
        assert_eq!(RecordPage::decode(&records.encode()), Ok(records));
        let mut links = LinkPage::default();
        let link = Link::new(Place { segment: SegmentNumber(300), index: 7 }, b"page");
        links.children.set(5, Some(link));
        golden::check(vectors, "link-page", &links.encode());
        assert_eq!(LinkPage::decode(&links.encode()), Ok(links));
        let id = numbered_id(NumberedTree::Refs, PageAt { level: 2, page: 77 });
        golden::check(vectors, "numbered-id", id.as_bytes());
    }
}

//! The lists of versions and refs, walked page by page as they are linked.

use crate::reader::{ReadError, Reader};
use seedbank_formats::checkpoint::{RefRecord, VersionRecord};
use seedbank_formats::numbered::{LinkPage, NumberedTree, PageAt, RADIX, RecordPage, Root, numbered_id};
use seedbank_formats::place::Link;
use std::sync::Arc;

/// A version of the list of versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedVersion {
    /// Its number in the list: a later one is newer.
    pub ordinal: u64,
    /// What the list says of it.
    pub record: VersionRecord,
}

/// A branch or tag of the list of refs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRef {
    /// Its number in the list.
    pub slot: u64,
    /// What the list says of it.
    pub record: RefRecord,
}

/// A page of a list, as it was linked.
#[derive(Debug)]
pub(crate) struct ListPage {
    pub(crate) at: PageAt,
    pub(crate) link: Link,
    /// Records with their numbers, the highest first; none in an inner page.
    pub(crate) records: Vec<(u64, Vec<u8>)>,
}

/// A walk over all pages of a list of records, each page before those below it and the highest numbers first.
pub(crate) struct ListWalk {
    reader: Arc<Reader>,
    tree: NumberedTree,
    before: u64,
    pending: Vec<(PageAt, Link)>,
}

impl ListWalk {
    /// Leaves out numbers from `before` on, and pages that have only such.
    pub(super) fn new(reader: &Arc<Reader>, tree: NumberedTree, root: Option<Root>, before: u64) -> ListWalk {
        let pending = root.map(|root| (PageAt { level: root.level, page: 0 }, root.link));
        ListWalk { reader: Arc::clone(reader), tree, before, pending: pending.into_iter().collect() }
    }

    /// The next page.
    pub(crate) async fn next(&mut self) -> Result<Option<ListPage>, ReadError> {
        let Some((at, link)) = self.pending.pop() else { return Ok(None) };
        let bytes = self.reader.linked(&link, &numbered_id(self.tree, at)).await?;
        let records = if at.level == 0 {
            records_before(at, &RecordPage::decode(&bytes)?, self.before)
        } else {
            self.pending.extend(pages_before(at, &LinkPage::decode(&bytes)?, self.before));
            Vec::new()
        };
        Ok(Some(ListPage { at, link, records }))
    }
}

/// The records of a leaf with numbers below `before`, the highest first. A record without bytes is one that was removed.
fn records_before(at: PageAt, page: &RecordPage, before: u64) -> Vec<(u64, Vec<u8>)> {
    let first = first_number(at);
    let numbered =
        page.records.iter().map(|(slot, record)| (first.saturating_add(slot as u64), record.clone()));
    let mut records: Vec<_> =
        numbered.filter(|(number, record)| *number < before && !record.is_empty()).collect();
    records.reverse();
    records
}

/// The pages below an inner page that have numbers below `before`, the highest last.
fn pages_before(at: PageAt, page: &LinkPage, before: u64) -> Vec<(PageAt, Link)> {
    let below = page.children.iter().filter_map(|(slot, link)| Some((at.child(slot)?, *link)));
    below.filter(|(child, _)| first_number(*child) < before).collect()
}

/// The lowest number that a page covers.
fn first_number(at: PageAt) -> u64 {
    (0..=at.level).fold(at.page, |first, _| first.saturating_mul(RADIX as u64))
}

/// The versions of a leaf, the newest first.
pub(crate) fn versions_of(page: &ListPage) -> Result<Vec<ListedVersion>, ReadError> {
    let read = |(ordinal, record): &(u64, Vec<u8>)| {
        Ok(ListedVersion { ordinal: *ordinal, record: VersionRecord::decode(record)? })
    };
    page.records.iter().map(read).collect()
}

/// The refs of a leaf.
pub(crate) fn refs_of(page: &ListPage) -> Result<Vec<ListedRef>, ReadError> {
    let read =
        |(slot, record): &(u64, Vec<u8>)| Ok(ListedRef { slot: *slot, record: RefRecord::decode(record)? });
    page.records.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::{pages_before, records_before};
    use seedbank_formats::SegmentNumber;
    use seedbank_formats::numbered::{LinkPage, PageAt, RecordPage};
    use seedbank_formats::place::{Link, Place};

    #[test]
    fn lists_are_walked_from_the_highest_number_and_cut_below_one() {
        let link = |index| Link::new(Place { segment: SegmentNumber(1), index }, b"");
        let mut inner = LinkPage::default();
        let mut leaf = RecordPage::default();
        for slot in [0, 1, 5] {
            inner.children.set(slot, Some(link(u32::try_from(slot).unwrap())));
            leaf.records.set(slot, Some(vec![1; slot]));
        }
        let pages = |before| -> Vec<u64> {
            let at = PageAt { level: 1, page: 2 };
            pages_before(at, &inner, before).iter().map(|(child, _)| child.page).collect()
        };
        assert_eq!(pages(u64::MAX), [128, 129, 133]);
        assert_eq!((pages(129 * 64), pages(129 * 64 + 1)), (vec![128], vec![128, 129]));
        let numbers = |before| -> Vec<u64> {
            let at = PageAt { level: 0, page: 2 };
            records_before(at, &leaf, before).iter().map(|(number, _)| *number).collect()
        };
        assert_eq!((numbers(u64::MAX), numbers(133)), (vec![133, 129], vec![129]));
        let last = PageAt { level: 0, page: u64::MAX >> 6 };
        assert_eq!(records_before(last, &leaf, u64::MAX).len(), 2);
    }
}

//! The pages of numbered lists that a commit writes: the list of versions, that of refs, and the placement map.

use super::metadata::Metadata;
use super::{Moved, hints};
use crate::push::{PushContext, PushError};
use crate::uploader::{Uploader, ask};
use seedbank_catalog::records::{
    Change, CommitBase, Counts, NumberedList, NumberedPage, Relocation, VersionRecord as BookVersion,
};
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::SegmentNumber;
use seedbank_formats::checkpoint::{RefRecord, VersionRecord};
use seedbank_formats::numbered::{
    LinkPage, PageAt, RADIX, RecordPage, Root, numbered_id, page_of, pages_to_write, root_level, slot_of,
};
use seedbank_formats::place::{Link, Place};
use seedbank_formats::placement::{MapInner, MapLeaf, SegmentPlacement};
use seedbank_formats::seal::Compression;
use std::collections::{BTreeMap, BTreeSet};

/// The books are asked about so many segments at once, so that others get their turn.
const SEGMENTS_ASKED: usize = 1_000;

/// What pages are written from, and which have been.
pub(super) struct Lists<'a> {
    pub(super) context: &'a PushContext,
    pub(super) uploader: &'a Uploader,
    pub(super) base: &'a CommitBase,
    pub(super) moved: &'a Moved,
    /// What was written so far, the root of a list last.
    pub(super) pages: Vec<NumberedPage>,
}

/// The records that a list shall have in the leaves that are written, and the pages for it.
pub(super) struct ListPlan {
    list: NumberedList,
    pages: Vec<PageAt>,
    /// Pages below those that are written, as far as they exist.
    present: BTreeMap<PageAt, Link>,
    records: BTreeMap<u64, Vec<u8>>,
    /// The root, if nothing of the list is written.
    root: Option<Root>,
}

/// A page with its bytes and where it will be.
pub(super) struct Encoded {
    at: PageAt,
    pub(super) bytes: Vec<u8>,
    link: Link,
}

impl ListPlan {
    /// Says what a number's record shall be.
    pub(super) fn set(&mut self, number: u64, record: Vec<u8>) {
        self.records.insert(number, record);
    }

    /// The pages, if the first of them lies at `first` and the others follow; and the list's root.
    pub(super) fn encode(&self, first: Place) -> (Vec<Encoded>, Option<Root>) {
        let mut links = self.present.clone();
        let mut pages = Vec::with_capacity(self.pages.len());
        for (index, at) in (first.index..).zip(&self.pages) {
            let bytes = if at.level == 0 { self.leaf(*at) } else { inner(*at, &links) };
            let link = Link::new(Place { segment: first.segment, index }, &bytes);
            links.insert(*at, link);
            pages.push(Encoded { at: *at, bytes, link });
        }
        let written = pages.last().map(|page| Root { level: page.at.level, link: page.link });
        (pages, written.or(self.root))
    }

    fn leaf(&self, at: PageAt) -> Vec<u8> {
        let mut page = RecordPage::default();
        for (number, record) in self.records.range(numbers_of(at)) {
            page.records.set(slot_of(*number, 0), Some(record.clone()));
        }
        page.encode()
    }
}

fn inner(at: PageAt, links: &BTreeMap<PageAt, Link>) -> Vec<u8> {
    let mut page = LinkPage::default();
    for (slot, child) in children_of(at) {
        page.children.set(slot, links.get(&child).copied());
    }
    page.encode()
}

fn children_of(at: PageAt) -> impl Iterator<Item = (usize, PageAt)> {
    (0..RADIX).filter_map(move |slot| Some((slot, at.child(slot)?)))
}

/// The numbers whose records a leaf holds.
fn numbers_of(leaf: PageAt) -> std::ops::RangeInclusive<u64> {
    let first = leaf.page * RADIX as u64;
    first..=first + (RADIX as u64 - 1)
}

impl Lists<'_> {
    /// The pages to write, leaves first: those above changed numbers, `more` and those above it, those that are to leave
    /// their segment, and those that lead from a higher root to the old one.
    async fn pages_of(
        &self,
        list: NumberedList,
        changed: &BTreeSet<u64>,
        more: BTreeSet<PageAt>,
    ) -> Result<Vec<PageAt>, PushError> {
        let (before, after) = (given_out(&self.base.published, list), given_out(&self.base.counts, list));
        let mut pages: BTreeSet<PageAt> =
            pages_to_write(before, after, changed.iter().copied()).into_iter().collect();
        let root = root_level(after).unwrap_or(0);
        for mut page in self.lying_in(list, &self.moved.leaving).await?.into_iter().chain(more) {
            pages.insert(page);
            while page.level < root {
                page = page.parent();
                pages.insert(page);
            }
        }
        Ok(pages.into_iter().collect())
    }

    /// Present pages of a list that lie in one of these segments.
    async fn lying_in(
        &self,
        list: NumberedList,
        segments: &BTreeSet<SegmentNumber>,
    ) -> Result<BTreeSet<PageAt>, PushError> {
        let (dataset, mut found) = (self.context.dataset.id, BTreeSet::new());
        let segments: Vec<SegmentNumber> = segments.iter().copied().collect();
        for some in segments.chunks(SEGMENTS_ASKED).map(<[SegmentNumber]>::to_vec) {
            let inside = ask(&self.context.books, move |books| books.pages_in(dataset, list, some)).await?;
            found.extend(inside.iter().map(|page| PageAt { level: page.level, page: page.page }));
        }
        Ok(found)
    }

    /// Links to the present pages below `at`.
    async fn present_below(
        &self,
        list: NumberedList,
        at: PageAt,
    ) -> Result<BTreeMap<PageAt, Link>, PushError> {
        let level = at.level - 1;
        let (first, last) = numbers_of(at).into_inner();
        let dataset = self.context.dataset.id;
        let pages = ask(&self.context.books, move |books| books.pages(dataset, list, level, first, last));
        let pages = pages.await?.into_iter();
        Ok(pages.map(|page| (PageAt { level, page: page.page }, page.link)).collect())
    }

    /// The root that was written last, or the present one when nothing of the list was written.
    async fn root(&self, list: NumberedList) -> Result<Option<Root>, PushError> {
        if let Some(page) = self.pages.iter().rev().find(|page| page.list == list) {
            return Ok(Some(Root { level: page.level, link: page.link }));
        }
        let Some(level) = root_level(given_out(&self.base.published, list)) else { return Ok(None) };
        let dataset = self.context.dataset.id;
        let present = ask(&self.context.books, move |books| books.pages(dataset, list, level, 0, 0)).await?;
        Ok(present.first().map(|page| Root { level, link: page.link }))
    }

    async fn plan(&self, list: NumberedList, changed: &BTreeSet<u64>) -> Result<ListPlan, PushError> {
        let pages = self.pages_of(list, changed, BTreeSet::new()).await?;
        let mut present = BTreeMap::new();
        for at in pages.iter().filter(|at| at.level > 0) {
            present.extend(self.present_below(list, *at).await?);
        }
        let root = self.root(list).await?;
        Ok(ListPlan { list, pages, present, records: BTreeMap::new(), root })
    }

    /// The list of versions, with room for the record of a new one. Everything else is filled in.
    pub(super) async fn versions(
        &self,
        new: Option<u64>,
        relocated: &BTreeMap<u64, Relocation>,
    ) -> Result<ListPlan, PushError> {
        let mut changed = changed(&self.base.changes, NumberedList::Versions);
        changed.extend(new);
        changed.extend(relocated.keys());
        let mut plan = self.plan(NumberedList::Versions, &changed).await?;
        let dataset = self.context.dataset.id;
        for leaf in plan.pages.clone().into_iter().filter(|at| at.level == 0) {
            let numbers = numbers_of(leaf);
            let (end, most) = (numbers.end() + 1, u32::try_from(RADIX).expect("64"));
            let present = ask(&self.context.books, move |books| books.versions(dataset, Some(end), most));
            for version in present.await?.iter().filter(|version| numbers.contains(&version.ordinal)) {
                plan.set(version.ordinal, version_record(version, relocated).encode());
            }
        }
        Ok(plan)
    }

    /// The list of refs, with the one that moves if there is one.
    pub(super) async fn refs(&self, new: Option<(u64, &RefRecord)>) -> Result<ListPlan, PushError> {
        let mut changed = changed(&self.base.changes, NumberedList::Refs);
        changed.extend(new.map(|(slot, _)| slot));
        let mut plan = self.plan(NumberedList::Refs, &changed).await?;
        let dataset = self.context.dataset.id;
        let leaves: BTreeSet<PageAt> = plan.pages.iter().copied().filter(|at| at.level == 0).collect();
        let records = ask(&self.context.books, move |books| {
            let mut records = Vec::new();
            for found in books.refs(dataset)?.iter().filter(|found| leaves.contains(&page_of(found.slot, 0)))
            {
                // A name that is no ref name can't have been made here.
                let Ok(name) = found.name.parse() else { continue };
                let (kind, version) = (found.kind, found.version);
                let ordinal = match books.resolve(dataset, version.to_string()) {
                    Ok(resolved) => resolved.version.ordinal,
                    // Both went in between: the next head will say so.
                    Err(CatalogError::NoSuchVersion { .. }) => continue,
                    Err(error) => return Err(error),
                };
                records.push((found.slot, RefRecord { name, kind, version, ordinal }));
            }
            Ok(records)
        })
        .await?;
        for (slot, record) in records.iter().map(|(slot, record)| (*slot, record)).chain(new) {
            plan.set(slot, record.encode());
        }
        Ok(plan)
    }

    /// Writes the pages of a list that were encoded for where the next items go.
    pub(super) async fn put(
        &mut self,
        plan: &ListPlan,
        pages: Vec<Encoded>,
        compression: Compression,
        metadata: &mut Metadata<'_>,
    ) -> Result<(), PushError> {
        for Encoded { at, bytes, link } in pages {
            let written = metadata.put(&numbered_id(plan.list.into(), at), &bytes, compression).await?;
            assert_eq!(written, link, "pages are written where they were encoded for");
            self.pages.push(NumberedPage { list: plan.list, level: at.level, page: at.page, link });
        }
        Ok(())
    }

    /// Writes a list.
    pub(super) async fn write(
        &mut self,
        plan: &ListPlan,
        metadata: &mut Metadata<'_>,
    ) -> Result<Option<Root>, PushError> {
        let lengths = |pages: &[Encoded]| pages.iter().map(|page| page.bytes.len()).collect::<Vec<_>>();
        // Where it lies does not change a page's length much: a place takes a few bytes more or less.
        let (guess, _) = plan.encode(metadata.make_room(&[]).await?);
        let first =
            metadata.make_room(&lengths(&guess).iter().map(|len| len + 1024).collect::<Vec<_>>()).await?;
        let (pages, root) = plan.encode(first);
        self.put(plan, pages, Compression::Auto, metadata).await?;
        Ok(root)
    }

    /// Writes the placement map. It may take several segments: a page names the segments that those below it lie in.
    pub(super) async fn map(&mut self, metadata: &mut Metadata<'_>) -> Result<Option<Root>, PushError> {
        let list = NumberedList::Map;
        let mut changed = changed(&self.base.changes, list);
        // A map can't name the segment that it lies in, nor one that is not stored yet.
        let open = metadata.open().await?.number();
        changed.remove(&open.0);
        let placed_anew = changed.iter().copied().map(SegmentNumber).collect();
        let root = root_level(self.base.published.segments).unwrap_or(0);
        // A page carries the placements of the segments which those below it lie in.
        let lying = self.lying_in(list, &placed_anew).await?.into_iter();
        let parents = lying.filter(|page| page.level < root).map(PageAt::parent).collect();
        for at in self.pages_of(list, &changed, parents).await? {
            let below = if at.level == 0 { BTreeMap::new() } else { self.links_below(at).await? };
            let mut here = metadata.make_room(&[]).await?.segment;
            let bytes = loop {
                let bytes = match at.level {
                    0 => self.map_leaf(at).await?,
                    _ => self.map_inner(&below, here, metadata).await?,
                };
                // In another segment the page reads differently.
                match metadata.make_room(&[bytes.len()]).await?.segment {
                    same if same == here => break bytes,
                    other => here = other,
                }
            };
            let link = metadata.put(&numbered_id(list.into(), at), &bytes, Compression::Auto).await?;
            self.pages.push(NumberedPage { list, level: at.level, page: at.page, link });
        }
        self.root(list).await
    }

    async fn map_leaf(&self, at: PageAt) -> Result<Vec<u8>, PushError> {
        let (first, last) = numbers_of(at).into_inner();
        let (dataset, lease) = (self.context.dataset.id, Some(self.uploader.lease));
        let placements = ask(&self.context.books, move |books| {
            books.segments_in(dataset, SegmentNumber(first), SegmentNumber(last), lease)
        });
        let placements = placements.await?;
        let mut leaf = MapLeaf::default();
        leaf.hints = hints(self.context, &placements);
        placements.into_iter().for_each(|placement| leaf.put(placement));
        Ok(leaf.encode())
    }

    /// Links to the pages below: the new ones where there are, else the present ones.
    async fn links_below(&self, at: PageAt) -> Result<BTreeMap<PageAt, Link>, PushError> {
        let mut links = self.present_below(NumberedList::Map, at).await?;
        let (level, pages) = (at.level - 1, numbers_of(at));
        let new = self.pages.iter().filter(|page| page.list == NumberedList::Map && page.level == level);
        let new = new.filter(|page| pages.contains(&page.page));
        links.extend(new.map(|page| (PageAt { level, page: page.page }, page.link)));
        Ok(links)
    }

    async fn map_inner(
        &self,
        below: &BTreeMap<PageAt, Link>,
        here: SegmentNumber,
        metadata: &Metadata<'_>,
    ) -> Result<Vec<u8>, PushError> {
        let segments: BTreeSet<SegmentNumber> =
            below.values().map(|link| link.place.segment).filter(|segment| *segment != here).collect();
        let asked: Vec<SegmentNumber> =
            segments.iter().copied().filter(|segment| metadata.placement(*segment).is_none()).collect();
        let dataset = self.context.dataset.id;
        let mut placements: Vec<SegmentPlacement> =
            ask(&self.context.books, move |books| books.placements(dataset, asked)).await?;
        placements.extend(segments.iter().filter_map(|segment| metadata.placement(*segment)).cloned());
        let by_number: BTreeMap<SegmentNumber, &SegmentPlacement> =
            placements.iter().map(|placement| (placement.number, placement)).collect();
        let mut inner = MapInner::default();
        inner.hints = hints(self.context, &placements);
        for (at, link) in below {
            let Place { segment, index } = link.place;
            match by_number.get(&segment) {
                Some(placement) => inner.put_in(at.slot_in_parent(), index, placement, link.hash),
                None => inner.put_beside(at.slot_in_parent(), index, link.hash),
            }
        }
        Ok(inner.encode())
    }
}

fn changed(changes: &[Change], list: NumberedList) -> BTreeSet<u64> {
    changes.iter().filter(|change| change.list == list).map(|change| change.number).collect()
}

fn given_out(counts: &Counts, list: NumberedList) -> u64 {
    match list {
        NumberedList::Map => counts.segments,
        NumberedList::Versions => counts.versions,
        NumberedList::Refs => counts.refs,
    }
}

pub(super) fn version_record(record: &BookVersion, relocated: &BTreeMap<u64, Relocation>) -> VersionRecord {
    let moved = relocated.get(&record.ordinal);
    VersionRecord {
        id: record.id,
        version: moved.map_or(record.version, |moved| moved.place),
        tree: moved.map_or(record.tree, |moved| moved.tree),
        new_bytes: record.new_bytes,
        stored_bytes: record.stored_bytes,
    }
}

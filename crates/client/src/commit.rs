//! Makes what a push stored a version: the version itself, the changed pages of its lists, the placement map, the
//! checkpoint, and the signed head over all of it.
//!
//! Everything here goes into one metadata segment, which is stored like any other; then the books take it all in one
//! transaction. Whoever comes second builds on the first: nothing but this metadata is written again. A repair or a
//! compaction writes the same without a new version ([`rewrite`]).

use crate::network::wall_clock;
use crate::publish::publish;
use crate::push::{PushContext, PushError, PushOptions};
use crate::uploader::Uploader;
use seedbank_catalog::records::{
    Change, Commit, CommitBase, Counts, FragmentKey, HeadRecord, Holding, NewVersion, NumberedList,
    NumberedPage, RefRecord as BookRef, Relocation, RenewedClaim, VersionRecord as BookVersion,
};
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::checkpoint::{
    Checkpoint, RefKind, RefName, RefRecord, VersionRecord, Visibility, checkpoint_id,
};
use seedbank_formats::head::{Head, HeadBody, HeadVersion};
use seedbank_formats::layout::ChildPlace;
use seedbank_formats::numbered::{
    LinkPage, NumberedTree, PageAt, RADIX, RecordPage, Root, numbered_id, page_of, pages_to_write,
    root_level, slot_of,
};
use seedbank_formats::place::{Link, Place};
use seedbank_formats::placement::{Hints, MapInner, MapLeaf, SegmentPlacement};
use seedbank_formats::seal::{Compression, ItemKind};
use seedbank_formats::segment::{SEGMENT_BYTES_MAX, SEGMENT_ITEMS_MAX, SegmentBuilder, SegmentFull};
use seedbank_formats::tree::TreeRoot;
use seedbank_formats::version::{Version, version_item_id};
use seedbank_formats::{ChunkId, FragmentId, PublicKey, SegmentNumber, Timestamp, VersionId};
use seedbank_protocol::messages::{ClaimAction, ClaimRequest};
use seedbank_transport::ClaimOutcome;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Others may commit in between so often before this push gives up: each time they made progress.
const ATTEMPTS_MAX: u32 = 16;

/// What a commit confirms its claims for. The steward renews them when half of it is over.
pub(crate) const CLAIM_SECONDS: u64 = 60 * 24 * 60 * 60;

/// The checkpoint and the map must lie in one segment, so they begin in one that has at least this much room.
const ROOM_FOR_MAP: usize = SEGMENT_BYTES_MAX / 2;

/// A tree that is stored.
pub(crate) struct NewTree {
    pub(crate) root: TreeRoot,
    pub(crate) place: ChildPlace,
    /// Sealed bytes of the segments that were closed before the commit.
    pub(crate) bytes_before: u64,
}

/// What a commit did.
pub(crate) struct Committed {
    pub(crate) version: VersionId,
    /// Sealed bytes of the metadata that it wrote.
    pub(crate) sealed_bytes: u64,
    /// Providers that have the head.
    pub(crate) heads: u64,
}

/// Commits `tree` to the branch of `options`; `metadata` is the segment that holds its pages, still open.
pub(crate) async fn commit(
    context: &PushContext,
    uploader: &Arc<Uploader>,
    options: &PushOptions,
    tree: &NewTree,
    metadata: Option<SegmentBuilder>,
) -> Result<Committed, PushError> {
    let mut metadata = Metadata { uploader, context, builder: metadata, sealed_bytes: 0 };
    let mut attempt = 1;
    loop {
        // Its number must be among those that the base counts.
        metadata.make_room().await?;
        metadata.open()?;
        let base = context.books.commit_base(uploader.lease, Some(options.branch.clone()))?;
        let written = write(context, uploader, options, tree, &base, &mut metadata).await;
        match written {
            Ok(version) => {
                confirm_claims(context, uploader).await?;
                let heads = publish(&context.books, &context.network, context.dataset.id).await?;
                return Ok(Committed { version, sealed_bytes: metadata.sealed_bytes, heads });
            }
            Err(PushError::Catalog(CatalogError::StaleParent { .. } | CatalogError::StaleHead { .. }))
                if attempt < ATTEMPTS_MAX =>
            {
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// What moved, and what is to be left behind.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// Versions whose items moved.
    pub(crate) relocations: Vec<Relocation>,
    /// Segments in which no page of a list shall stay.
    pub(crate) leaving: BTreeSet<SegmentNumber>,
}

/// Publishes the present versions anew: what changed in their lists and in the placement map, what moved, and a new
/// head. Says how many sealed bytes of metadata that took.
pub(crate) async fn rewrite(
    context: &PushContext,
    uploader: &Arc<Uploader>,
    moved: &Moved,
    metadata: Option<SegmentBuilder>,
) -> Result<u64, PushError> {
    let mut metadata = Metadata { uploader, context, builder: metadata, sealed_bytes: 0 };
    let mut attempt = 1;
    loop {
        metadata.make_room().await?;
        metadata.open()?;
        let base = context.books.commit_base(uploader.lease, None)?;
        match write_same(context, uploader, moved, &base, &mut metadata).await {
            Ok(()) => {
                confirm_claims(context, uploader).await?;
                publish(&context.books, &context.network, context.dataset.id).await?;
                return Ok(metadata.sealed_bytes);
            }
            Err(PushError::Catalog(CatalogError::StaleHead { .. })) if attempt < ATTEMPTS_MAX => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

async fn write_same(
    context: &PushContext,
    uploader: &Arc<Uploader>,
    moved: &Moved,
    base: &CommitBase,
    metadata: &mut Metadata<'_>,
) -> Result<(), PushError> {
    let (books, dataset, time) = (&context.books, context.dataset.id, wall_clock());
    // A version may have been removed since its items moved.
    let mut relocated: BTreeMap<u64, Relocation> = BTreeMap::new();
    for relocation in &moved.relocations {
        match books.resolve(dataset, relocation.version.to_string()) {
            Ok(found) => drop(relocated.insert(found.version.ordinal, *relocation)),
            Err(CatalogError::NoSuchVersion { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let newest = books.versions(dataset, None, 1)?.pop().map(|newest| {
        let newest = version_record(&newest, &relocated);
        HeadVersion { id: newest.id, version: newest.version, tree: newest.tree }
    });
    let mut pages = NewPages { context, uploader, leaving: &moved.leaving, pages: Vec::new() };
    let versions = pages.versions(base, None, &relocated, metadata)?;
    let refs = pages.refs(base, None, metadata)?;
    let (pages, head, segment) = finish(pages, base, newest, versions, refs, time, metadata).await?;
    books.commit(Commit {
        dataset,
        lease: uploader.lease,
        version: None,
        relocations: relocated.into_values().collect(),
        pages,
        head: HeadRecord { sequence: base.sequence, bytes: head, segments: vec![segment] },
        counts: base.counts,
        through: base.through,
        live: Vec::new(),
    })?;
    Ok(())
}

/// Writes checkpoint and map, stores the metadata segment and signs the head over all of it. Gives the pages, the head
/// and the segment that it locates.
async fn finish(
    mut pages: NewPages<'_>,
    base: &CommitBase,
    version: Option<HeadVersion>,
    versions: Root,
    refs: Root,
    time: Timestamp,
    metadata: &mut Metadata<'_>,
) -> Result<(Vec<NumberedPage>, Vec<u8>, SegmentNumber), PushError> {
    let context = pages.context;
    let checkpoint = Checkpoint {
        name: context.dataset.name.clone(),
        visibility: if context.dataset.public { Visibility::Public } else { Visibility::Private },
        epoch: context.keys.epoch,
        next_segment: SegmentNumber(base.counts.segments),
        policy: context.policy.clone(),
        versions: Some(versions),
        version_count: base.counts.versions,
        refs: Some(refs),
        ref_count: base.counts.refs,
        default_ref: Some(0),
    };
    let checkpoint = in_one(metadata.put(&checkpoint_id(), &checkpoint.encode())?)?;
    let map = pages.map(base, metadata)?;
    let newest = metadata.close().await?.ok_or(PushError::Stopped)?;
    let segment = newest.number;
    let hints = hints(context, [&newest]);
    let body = HeadBody { version, map, checkpoint, hints, locator: vec![newest] };
    let keys = context.keys.current();
    let head = Head::sign(&body, keys, &context.owner, &context.keys.salt, base.sequence, time)?;
    Ok((pages.pages, head, segment))
}

/// The open metadata segment.
struct Metadata<'a> {
    uploader: &'a Arc<Uploader>,
    context: &'a PushContext,
    builder: Option<SegmentBuilder>,
    sealed_bytes: u64,
}

impl Metadata<'_> {
    fn open(&mut self) -> Result<&mut SegmentBuilder, PushError> {
        match &mut self.builder {
            Some(builder) => Ok(builder),
            none => {
                let number = self.uploader.next_number()?;
                Ok(none.insert(SegmentBuilder::new(self.context.keys.current(), number, Vec::new())))
            }
        }
    }

    /// Adds an item to the open segment.
    fn put(&mut self, id: &ChunkId, plain: &[u8]) -> Result<Result<Link, SegmentFull>, PushError> {
        let builder = self.open()?;
        let number = builder.number();
        Ok(builder
            .push(ItemKind::Named, id, plain, Compression::Auto)
            .map(|index| Link::new(Place { segment: number, index }, plain)))
    }

    /// Stores the open segment.
    async fn close(&mut self) -> Result<Option<SegmentPlacement>, PushError> {
        let Some(builder) = self.builder.take() else { return Ok(None) };
        let segment = builder.finish();
        self.sealed_bytes += u64::from(segment.sealed_len());
        self.uploader.store(segment).await.map(Some)
    }

    /// Makes sure that the map finds room beside its root.
    async fn make_room(&mut self) -> Result<(), PushError> {
        let builder = self.open()?;
        let is_roomy = builder.sealed_len() < SEGMENT_BYTES_MAX - ROOM_FOR_MAP
            && builder.items().len() < SEGMENT_ITEMS_MAX / 2;
        if !is_roomy {
            self.close().await?;
        }
        Ok(())
    }
}

async fn write(
    context: &PushContext,
    uploader: &Arc<Uploader>,
    options: &PushOptions,
    tree: &NewTree,
    base: &CommitBase,
    metadata: &mut Metadata<'_>,
) -> Result<VersionId, PushError> {
    let branch = base.branch.ok_or(PushError::Stopped)?;
    let time = wall_clock();
    let version = Version {
        dataset: context.dataset.id,
        parents: branch.parent.into_iter().collect(),
        author: context.owner.public(),
        message: options.message.clone(),
        time,
        tree: tree.root,
        policy: context.policy.clone(),
    };
    let (id, signed) = version.sign(&context.owner)?;
    let place = in_one(metadata.put(&version_item_id(&id), &signed)?)?.place;
    let stored_before = uploader.totals().bytes;
    let record = VersionRecord {
        id,
        version: place,
        tree: tree.place,
        new_bytes: tree.bytes_before + metadata.open()?.sealed_len() as u64,
        stored_bytes: stored_before,
    };
    let nothing_leaves = BTreeSet::new();
    let mut pages = NewPages { context, uploader, leaving: &nothing_leaves, pages: Vec::new() };
    let versions = pages.versions(base, Some(&record), &BTreeMap::new(), metadata)?;
    let new_ref = NewRef { branch: &options.branch, slot: branch.slot, version: id };
    let refs = pages.refs(base, Some(&new_ref), metadata)?;
    let newest = HeadVersion { id, version: place, tree: tree.place };
    let (written, head, segment) = finish(pages, base, Some(newest), versions, refs, time, metadata).await?;

    let record = BookVersion {
        ordinal: base.ordinal,
        id,
        version: place,
        tree: tree.place,
        new_bytes: tree.bytes_before + metadata.sealed_bytes,
        stored_bytes: uploader.totals().bytes,
        time,
        message: options.message.clone(),
    };
    context.books.commit(Commit {
        dataset: context.dataset.id,
        lease: uploader.lease,
        version: Some(NewVersion { record, branch: options.branch.clone(), base: branch }),
        relocations: Vec::new(),
        pages: written,
        head: HeadRecord { sequence: base.sequence, bytes: head, segments: vec![segment] },
        counts: base.counts,
        through: base.through,
        live: Vec::new(),
    })?;
    Ok(id)
}

/// The map's root and the checkpoint must lie in the segment that the head locates.
fn in_one(link: Result<Link, SegmentFull>) -> Result<Link, PushError> {
    link.map_err(|SegmentFull| PushError::MapTooLarge)
}

/// Where the holders of these segments were last reached.
fn hints<'a>(context: &PushContext, segments: impl IntoIterator<Item = &'a SegmentPlacement>) -> Hints {
    let holders: BTreeSet<PublicKey> = segments.into_iter().flat_map(SegmentPlacement::holders).collect();
    holders.into_iter().map(|holder| (holder, context.network.peer(&holder).address)).collect()
}

/// A branch that moves to a new version.
struct NewRef<'a> {
    branch: &'a str,
    slot: u64,
    version: VersionId,
}

/// Pages of numbered lists that this commit writes.
struct NewPages<'a> {
    context: &'a PushContext,
    uploader: &'a Uploader,
    /// Present pages in these segments are written anew.
    leaving: &'a BTreeSet<SegmentNumber>,
    pages: Vec<NumberedPage>,
}

impl NewPages<'_> {
    /// The pages to write, leaves first: those above changed numbers, `more` and those above it, and those that lead
    /// from a higher root to the old one.
    fn plan(
        base: &CommitBase,
        list: NumberedList,
        changed: &BTreeSet<u64>,
        more: BTreeSet<PageAt>,
    ) -> Vec<PageAt> {
        let (before, after) = (given_out(&base.published, list), given_out(&base.counts, list));
        let mut pages: BTreeSet<PageAt> =
            pages_to_write(before, after, changed.iter().copied()).into_iter().collect();
        let root = root_level(after).unwrap_or(0);
        for mut page in more {
            pages.insert(page);
            while page.level < root {
                page = page.parent();
                pages.insert(page);
            }
        }
        pages.into_iter().collect()
    }

    /// Links to the pages below `at`: the new ones where there are, else the present ones.
    fn children(&self, list: NumberedList, at: PageAt) -> Result<Vec<(usize, Link)>, PushError> {
        let level = at.level - 1;
        let first = at.page * RADIX as u64;
        let last = first + (RADIX as u64 - 1);
        let mut links: BTreeMap<u64, Link> = self
            .context
            .books
            .pages(self.context.dataset.id, list, level, first, last)?
            .into_iter()
            .map(|page| (page.page, page.link))
            .collect();
        let new = self.pages.iter().filter(|page| page.list == list && page.level == level);
        links.extend(
            new.filter(|page| (first..=last).contains(&page.page)).map(|page| (page.page, page.link)),
        );
        Ok(links.into_iter().map(|(page, link)| (slot_of(page, 0), link)).collect())
    }

    fn put(
        &mut self,
        list: NumberedList,
        at: PageAt,
        bytes: &[u8],
        metadata: &mut Metadata<'_>,
    ) -> Result<(), PushError> {
        let tree = match list {
            NumberedList::Map => NumberedTree::Map,
            NumberedList::Versions => NumberedTree::Versions,
            NumberedList::Refs => NumberedTree::Refs,
        };
        let link = in_one(metadata.put(&numbered_id(tree, at), bytes)?)?;
        self.pages.push(NumberedPage { list, level: at.level, page: at.page, link });
        Ok(())
    }

    /// Writes a list of records; `records` gives those of one leaf by slot.
    fn list(
        &mut self,
        base: &CommitBase,
        list: NumberedList,
        changed: &BTreeSet<u64>,
        metadata: &mut Metadata<'_>,
        records: impl Fn(u64) -> Result<Vec<(usize, Vec<u8>)>, PushError>,
    ) -> Result<Root, PushError> {
        let leaving = self.lying_in(base, list, self.leaving)?;
        for at in NewPages::plan(base, list, changed, leaving) {
            let bytes = if at.level == 0 {
                let mut page = RecordPage::default();
                for (slot, record) in records(at.page)? {
                    page.records.set(slot, Some(record));
                }
                page.encode()
            } else {
                let mut page = LinkPage::default();
                for (slot, link) in self.children(list, at)? {
                    page.children.set(slot, Some(link));
                }
                page.encode()
            };
            self.put(list, at, &bytes, metadata)?;
        }
        self.root(base, list)?.ok_or(PushError::Stopped)
    }

    /// The root that was written last, or the present one when nothing of the list was written.
    fn root(&self, base: &CommitBase, list: NumberedList) -> Result<Option<Root>, PushError> {
        if let Some(page) = self.pages.iter().rev().find(|page| page.list == list) {
            return Ok(Some(Root { level: page.level, link: page.link }));
        }
        let Some(level) = root_level(given_out(&base.published, list)) else { return Ok(None) };
        let present = self.context.books.pages(self.context.dataset.id, list, level, 0, 0)?;
        Ok(present.first().map(|page| Root { level, link: page.link }))
    }

    /// Present pages of a list that lie in one of these segments.
    fn lying_in(
        &self,
        base: &CommitBase,
        list: NumberedList,
        segments: &BTreeSet<SegmentNumber>,
    ) -> Result<BTreeSet<PageAt>, PushError> {
        let mut found = BTreeSet::new();
        let levels = root_level(given_out(&base.published, list)).map_or(0, |root| root + 1);
        for level in (0..levels).filter(|_| !segments.is_empty()) {
            let (dataset, last) = (self.context.dataset.id, i64::MAX.unsigned_abs());
            let pages = self.context.books.pages(dataset, list, level, 0, last)?;
            let inside = pages.iter().filter(|page| segments.contains(&page.link.place.segment));
            found.extend(inside.map(|page| PageAt { level, page: page.page }));
        }
        Ok(found)
    }

    /// The list of versions, with `new` if there is one.
    fn versions(
        &mut self,
        base: &CommitBase,
        new: Option<&VersionRecord>,
        relocated: &BTreeMap<u64, Relocation>,
        metadata: &mut Metadata<'_>,
    ) -> Result<Root, PushError> {
        let mut changed = changed(&base.changes, NumberedList::Versions);
        changed.extend(new.map(|_| base.ordinal));
        changed.extend(relocated.keys());
        let (books, dataset) = (Arc::clone(&self.context.books), self.context.dataset.id);
        let ordinal = base.ordinal;
        self.list(base, NumberedList::Versions, &changed, metadata, |page| {
            let first = page * RADIX as u64;
            let present = books.versions(dataset, Some(first + RADIX as u64), 64)?;
            let mut records: Vec<(usize, Vec<u8>)> = present
                .iter()
                .filter(|record| record.ordinal >= first && record.ordinal < ordinal)
                .map(|record| (slot_of(record.ordinal, 0), version_record(record, relocated).encode()))
                .collect();
            if let Some(new) = new.filter(|_| page_of(ordinal, 0).page == page) {
                records.push((slot_of(ordinal, 0), new.encode()));
            }
            Ok(records)
        })
    }

    /// The list of refs, with the branch that moves if there is one.
    fn refs(
        &mut self,
        base: &CommitBase,
        new: Option<&NewRef<'_>>,
        metadata: &mut Metadata<'_>,
    ) -> Result<Root, PushError> {
        let present = self.context.books.refs(self.context.dataset.id)?;
        let mut changed = changed(&base.changes, NumberedList::Refs);
        let mut records: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for present in present.iter().filter(|present| new.is_none_or(|new| new.slot != present.slot)) {
            if let Some(record) = self.ref_record(present)? {
                records.insert(present.slot, record.encode());
            }
        }
        if let Some(new) = new {
            let name: RefName = new.branch.parse().map_err(|_| {
                let (name, reason) = (new.branch.to_owned(), "it is no name of a branch".to_owned());
                PushError::Catalog(CatalogError::InvalidName { name, reason })
            })?;
            let record =
                RefRecord { name, kind: RefKind::Branch, version: new.version, ordinal: base.ordinal };
            records.insert(new.slot, record.encode());
            changed.insert(new.slot);
        }
        self.list(base, NumberedList::Refs, &changed, metadata, |page| {
            let first = page * RADIX as u64;
            let below = records.range(first..first + RADIX as u64);
            Ok(below.map(|(slot, record)| (slot_of(*slot, 0), record.clone())).collect())
        })
    }

    fn ref_record(&self, present: &BookRef) -> Result<Option<RefRecord>, PushError> {
        let resolved = self.context.books.resolve(self.context.dataset.id, present.version.to_string())?;
        // A name that is no ref name can't have been made here.
        let Ok(name) = present.name.parse() else { return Ok(None) };
        Ok(Some(RefRecord {
            name,
            kind: present.kind,
            version: present.version,
            ordinal: resolved.version.ordinal,
        }))
    }

    fn map(&mut self, base: &CommitBase, metadata: &mut Metadata<'_>) -> Result<Option<Root>, PushError> {
        let (list, dataset) = (NumberedList::Map, self.context.dataset.id);
        let mut changed = changed(&base.changes, list);
        let here = metadata.open()?.number();
        changed.extend(self.uploader.totals().segments.iter().map(|segment| segment.number.0));
        changed.remove(&here.0);
        let placed_anew = changed.iter().copied().map(SegmentNumber).collect();
        let root = root_level(base.published.segments).unwrap_or(0);
        // A page carries the placements of the segments which those below it lie in.
        let mut more: BTreeSet<PageAt> = self.lying_in(base, list, &placed_anew)?;
        more = more.into_iter().filter(|page| page.level < root).map(PageAt::parent).collect();
        more.extend(self.lying_in(base, list, self.leaving)?);
        for at in NewPages::plan(base, list, &changed, more) {
            let bytes = if at.level == 0 {
                let first = at.page * RADIX as u64;
                let last = SegmentNumber(first + (RADIX as u64 - 1));
                let lease = Some(self.uploader.lease);
                let placements =
                    self.context.books.segments_in(dataset, SegmentNumber(first), last, lease)?;
                let mut leaf = MapLeaf::default();
                leaf.hints = hints(self.context, &placements);
                placements.into_iter().for_each(|placement| leaf.put(placement));
                leaf.encode()
            } else {
                self.map_inner(at, here)?.encode()
            };
            self.put(list, at, &bytes, metadata)?;
        }
        self.root(base, list)
    }

    fn map_inner(&self, at: PageAt, here: SegmentNumber) -> Result<MapInner, PushError> {
        let children = self.children(NumberedList::Map, at)?;
        let others: BTreeSet<SegmentNumber> =
            children.iter().map(|(_, link)| link.place.segment).filter(|segment| *segment != here).collect();
        let asked =
            self.context.books.placements(self.context.dataset.id, others.iter().copied().collect())?;
        let placements: BTreeMap<SegmentNumber, &SegmentPlacement> =
            asked.iter().map(|placement| (placement.number, placement)).collect();
        let mut inner = MapInner::default();
        inner.hints = hints(self.context, &asked);
        for (slot, link) in children {
            let Place { segment, index } = link.place;
            if segment == here {
                inner.put_beside(slot, index, link.hash);
            } else {
                inner.put_in(slot, index, placements[&segment], link.hash);
            }
        }
        Ok(inner)
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

fn version_record(record: &BookVersion, relocated: &BTreeMap<u64, Relocation>) -> VersionRecord {
    let moved = relocated.get(&record.ordinal);
    VersionRecord {
        id: record.id,
        version: moved.map_or(record.version, |moved| moved.place),
        tree: moved.map_or(record.tree, |moved| moved.tree),
        new_bytes: record.new_bytes,
        stored_bytes: record.stored_bytes,
    }
}

/// Turns the pending claims of this push into lasting ones. A provider that can't be reached is asked again by the
/// steward, well before the pending claim ends.
async fn confirm_claims(context: &PushContext, uploader: &Uploader) -> Result<(), PushError> {
    let until = wall_clock().plus_seconds(CLAIM_SECONDS);
    let mut held: BTreeMap<PublicKey, Vec<(FragmentKey, FragmentId)>> = BTreeMap::new();
    for segment in uploader.totals().segments {
        for (index, fragment) in (0u8..).zip(&segment.fragments) {
            let key = FragmentKey { dataset: context.dataset.id, segment: segment.number, index };
            if let Some(holder) = fragment.holder {
                held.entry(holder).or_default().push((key, fragment.id));
            }
        }
    }
    let mut asked = tokio::task::JoinSet::new();
    for (provider, fragments) in held {
        let network = Arc::clone(&context.network);
        asked.spawn(async move {
            let renew = |(_, fragment): &(FragmentKey, FragmentId)| ClaimRequest {
                fragment: *fragment,
                action: ClaimAction::Renew(until),
            };
            let requests: Vec<ClaimRequest> = fragments.iter().map(renew).collect();
            let outcomes = network.claims(&provider, &requests).await.unwrap_or_default();
            let renewed =
                fragments.into_iter().zip(outcomes).filter_map(|((key, _), outcome)| match outcome {
                    ClaimOutcome::Renewed(receipt) => {
                        Some(RenewedClaim { key, holding: Holding { provider, until: receipt.until } })
                    }
                    ClaimOutcome::Released | ClaimOutcome::Absent | ClaimOutcome::Rotten => None,
                });
            renewed.collect::<Vec<_>>()
        });
    }
    while let Some(renewed) = asked.join_next().await {
        let renewed = renewed.map_err(|_| PushError::Stopped)?;
        if !renewed.is_empty() {
            context.books.renew_claims(renewed)?;
        }
    }
    Ok(())
}

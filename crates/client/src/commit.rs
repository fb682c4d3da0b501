//! Makes what a push stored a version: the version itself, the changed pages of its lists, the placement map, the
//! checkpoint, and the signed head over all of it.
//!
//! Everything here goes into one metadata segment, or into a few when very much has changed, which are stored like any
//! other; then the books take it all in one transaction. Whoever comes second builds on the first: nothing but this
//! metadata is written again. A repair or a compaction writes the same without a new version ([`rewrite`]).

mod agreed;
mod metadata;
mod pages;

use crate::claims::{self, PENDING_MARGIN_SECONDS};
use crate::maintain::release;
use crate::network::wall_clock;
use crate::publish::publish;
use crate::push::{Made, PushContext, PushError, PushOptions, branch_name};
use crate::reader::Reader;
use crate::snapshot::Snapshot;
use crate::uploader::{Uploader, ask};
use metadata::Metadata;
use pages::Lists;
use seedbank_catalog::records::{
    BranchBase, Commit, CommitBase, HeadRecord, NewVersion, NumberedPage, Reliance, Relocation,
    VersionRecord as BookVersion,
};
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::checkpoint::{
    Checkpoint, RefKind, RefRecord, VersionRecord, Visibility, checkpoint_id,
};
use seedbank_formats::head::{Head, HeadBody, HeadVersion};
use seedbank_formats::layout::ChildPlace;
use seedbank_formats::placement::{Hints, SegmentPlacement};
use seedbank_formats::seal::Compression;
use seedbank_formats::segment::{ITEM_OVERHEAD_BYTES, SegmentBuilder};
use seedbank_formats::tree::TreeRoot;
use seedbank_formats::version::{Version, version_item_id};
use seedbank_formats::{PublicKey, SegmentNumber, Timestamp, VersionId};
use seedbank_protocol::routes::PENDING_SECONDS_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Others may commit in between so often before this push gives up: each time they made progress.
const ATTEMPTS_MAX: u32 = 16;

/// What a commit confirms its claims for. The steward renews them when half of it is over.
pub(crate) const CLAIM_SECONDS: u64 = 60 * 24 * 60 * 60;

/// A provider that was too slow to store a fragment may be too slow to give it back, too.
const RELEASE_PATIENCE: Duration = Duration::from_secs(3);

/// A version's own length is part of what it says it added: the number is set so often until it fits itself.
const SIZING_ROUNDS_MAX: u32 = 8;

/// A tree that is stored.
pub(crate) struct NewTree {
    pub(crate) root: TreeRoot,
    pub(crate) place: ChildPlace,
    /// The version whose pages it uses again, if it does.
    pub(crate) relies_on: Option<Reliance>,
    /// Sealed bytes of the segments that were closed before the commit.
    pub(crate) bytes_before: u64,
}

/// What a commit did.
pub(crate) struct Committed {
    pub(crate) version: VersionId,
    /// Nothing, when somebody else had just committed the same tree.
    pub(crate) made: Made,
    /// Sealed bytes of the metadata that it wrote.
    pub(crate) sealed_bytes: u64,
    /// Providers that have the head.
    pub(crate) heads: u64,
}

/// What moved, and what is to be left behind.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// Versions whose items moved.
    pub(crate) relocations: Vec<Relocation>,
    /// Segments in which no page of a list shall stay.
    pub(crate) leaving: BTreeSet<SegmentNumber>,
}

/// Commits `tree` to the branch of `options`; `metadata` is the segment that holds its pages, still open.
pub(crate) async fn commit(
    context: &PushContext,
    uploader: &Arc<Uploader>,
    options: &PushOptions,
    tree: &NewTree,
    metadata: Option<SegmentBuilder>,
) -> Result<Committed, PushError> {
    // What an interrupted push left may be about to go, or gone.
    let soon = wall_clock().plus_seconds(PENDING_MARGIN_SECONDS);
    claims::renew_due(&context.books, &context.network, context.dataset.id, soon).await?;
    let mut metadata = Metadata::new(uploader, context.keys.current(), metadata);
    let mut attempt = 1;
    loop {
        // Its number must be among those that the base counts.
        metadata.begin().await?;
        let (lease, branch) = (uploader.lease, options.branch.clone());
        let base = ask(&context.books, move |books| books.commit_base(lease, Some(branch))).await?;
        match write(context, uploader, options, tree, &base, &mut metadata).await {
            Ok(version) => {
                let heads = follow_up(context, uploader).await?;
                let sealed_bytes = metadata.sealed_bytes();
                return Ok(Committed { version, made: Made::Version, sealed_bytes, heads });
            }
            Err(PushError::Catalog(CatalogError::StaleParent { current })) if attempt < ATTEMPTS_MAX => {
                if let Some(version) = current
                    && is_same(context, version, tree).await?
                {
                    let sealed_bytes = metadata.sealed_bytes();
                    return Ok(Committed { version, made: Made::Nothing, sealed_bytes, heads: 0 });
                }
            }
            Err(PushError::Catalog(CatalogError::StaleHead { .. })) if attempt < ATTEMPTS_MAX => {}
            Err(error) => return Err(error),
        }
        attempt += 1;
    }
}

/// Whether a version that came in between says what this one would say.
async fn is_same(context: &PushContext, version: VersionId, tree: &NewTree) -> Result<bool, PushError> {
    let dataset = context.dataset.id;
    let found = ask(&context.books, move |books| books.resolve(dataset, version.to_string())).await?;
    let reader = Reader::of_books(&context.books, &context.network, &context.keys);
    let present = Snapshot::open(&reader, version, found.version.version, found.version.tree).await?.version;
    Ok(present.tree.page == tree.root.page && present.policy == context.policy)
}

/// Publishes the present versions anew: what changed in their lists and in the placement map, what moved, and a new
/// head. Says how many sealed bytes of metadata that took.
pub(crate) async fn rewrite(
    context: &PushContext,
    uploader: &Arc<Uploader>,
    moved: &Moved,
    metadata: Option<SegmentBuilder>,
) -> Result<u64, PushError> {
    let mut metadata = Metadata::new(uploader, context.keys.current(), metadata);
    let mut attempt = 1;
    loop {
        metadata.begin().await?;
        let lease = uploader.lease;
        let base = ask(&context.books, move |books| books.commit_base(lease, None)).await?;
        match write_same(context, uploader, moved, &base, &mut metadata).await {
            Ok(()) => {
                follow_up(context, uploader).await?;
                return Ok(metadata.sealed_bytes());
            }
            Err(PushError::Catalog(CatalogError::StaleHead { .. })) if attempt < ATTEMPTS_MAX => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Turns pending claims into lasting ones, gives the head to providers and back what lost a race; says how many have the
/// head. The commit stands whatever comes of it: who can't be reached is asked again by the steward, well before a pending
/// claim ends. Fails only when another history was written meanwhile: then no reader will see this one.
async fn follow_up(context: &PushContext, uploader: &Uploader) -> Result<u64, PushError> {
    let PushContext { books, network, dataset, .. } = context;
    let pending = wall_clock().plus_seconds(PENDING_SECONDS_MAX + PENDING_MARGIN_SECONDS);
    let releases = async {
        if uploader.totals().orphans > 0 {
            // What is not done in this time stays a job.
            let _late = timeout(RELEASE_PATIENCE, release(books, network)).await;
        }
    };
    let (confirmed, published, ()) = tokio::join!(
        claims::renew_due(books, network, dataset.id, pending),
        publish(books, network, dataset.id),
        releases
    );
    match confirmed {
        Ok(claims) if claims.unanswered > 0 => {
            tracing::warn!(claims = claims.unanswered, "claims not confirmed yet");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "claims not confirmed yet"),
    }
    match published {
        Err(error @ PushError::Behind(_)) => Err(error),
        Err(error) => {
            tracing::warn!(%error, "head not published yet");
            Ok(0)
        }
        Ok(copies) => Ok(copies),
    }
}

async fn write(
    context: &PushContext,
    uploader: &Uploader,
    options: &PushOptions,
    tree: &NewTree,
    base: &CommitBase,
    metadata: &mut Metadata<'_>,
) -> Result<VersionId, PushError> {
    let branch = base.branch.expect("the base was asked for with a branch");
    let BranchBase { slot, parent } = branch;
    let mut version = Version {
        dataset: context.dataset.id,
        parents: parent.into_iter().collect(),
        author: context.owner.public(),
        message: options.message.clone(),
        time: wall_clock(),
        tree: tree.root,
        policy: context.policy.clone(),
    };
    let name = branch_name(&options.branch)?;
    let (id, signed) = loop {
        let (id, signed) = version.sign(&context.owner)?;
        if !is_known(context, id).await? {
            break (id, signed);
        }
        // The same tree was pushed to another branch within this second.
        version.time = version.time.plus_seconds(1);
    };
    let place = metadata.add(&version_item_id(&id), &signed).await?.place;
    let new = NewRecord {
        ordinal: base.ordinal,
        record: VersionRecord { id, version: place, tree: tree.place, new_bytes: 0, stored_bytes: 0 },
        bytes_before: tree.bytes_before,
        stored_before: uploader.totals().bytes,
    };
    let new_ref = RefRecord { name, kind: RefKind::Branch, version: id, ordinal: base.ordinal };
    let moved = Moved::default();
    let lists = Lists { context, uploader, base, moved: &moved, pages: Vec::new() };
    let newest = HeadVersion { id, version: place, tree: tree.place };
    let no_relocations = BTreeMap::new();
    let change = Change { new: Some(new), new_ref: Some((slot, &new_ref)), relocated: &no_relocations };
    let written = finish(lists, Some(newest), change, version.time, metadata).await?;

    agreed::agree(context, uploader).await?;

    let record = written.record.expect("a record was given");
    let record = BookVersion {
        ordinal: base.ordinal,
        id,
        version: place,
        tree: tree.place,
        new_bytes: record.new_bytes,
        stored_bytes: record.stored_bytes,
        time: version.time,
        message: options.message.clone(),
    };
    let commit = Commit {
        dataset: context.dataset.id,
        lease: uploader.lease,
        version: Some(NewVersion { record, branch: options.branch.clone(), base: branch }),
        relies_on: tree.relies_on,
        relocations: Vec::new(),
        pages: written.pages,
        head: written.head,
        counts: base.counts,
        through: base.through,
        live: Vec::new(),
    };
    ask(&context.books, move |books| books.commit(commit)).await?;
    Ok(id)
}

/// Whether there is such a version already.
async fn is_known(context: &PushContext, version: VersionId) -> Result<bool, PushError> {
    let dataset = context.dataset.id;
    ask(&context.books, move |books| match books.resolve(dataset, version.to_string()) {
        Ok(_) => Ok(true),
        Err(CatalogError::NoSuchVersion { .. }) => Ok(false),
        Err(error) => Err(error),
    })
    .await
}

async fn write_same(
    context: &PushContext,
    uploader: &Uploader,
    moved: &Moved,
    base: &CommitBase,
    metadata: &mut Metadata<'_>,
) -> Result<(), PushError> {
    let (dataset, time) = (context.dataset.id, wall_clock());
    let relocations = moved.relocations.clone();
    let (relocated, newest) = ask(&context.books, move |books| {
        // A version may have been removed since its items moved.
        let mut relocated: BTreeMap<u64, Relocation> = BTreeMap::new();
        for relocation in relocations {
            match books.resolve(dataset, relocation.version.to_string()) {
                Ok(found) => drop(relocated.insert(found.version.ordinal, relocation)),
                Err(CatalogError::NoSuchVersion { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((relocated, books.versions(dataset, None, 1)?.pop()))
    })
    .await?;
    let newest = newest.map(|newest| {
        let newest = pages::version_record(&newest, &relocated);
        HeadVersion { id: newest.id, version: newest.version, tree: newest.tree }
    });
    let lists = Lists { context, uploader, base, moved, pages: Vec::new() };
    let change = Change { new: None, new_ref: None, relocated: &relocated };
    let written = finish(lists, newest, change, time, metadata).await?;
    agreed::agree(context, uploader).await?;
    let commit = Commit {
        dataset,
        lease: uploader.lease,
        version: None,
        relies_on: None,
        relocations: relocated.into_values().collect(),
        pages: written.pages,
        head: written.head,
        counts: base.counts,
        through: base.through,
        live: Vec::new(),
    };
    ask(&context.books, move |books| books.commit(commit)).await
}

/// What a commit changes in the lists, beside what the books say.
struct Change<'a> {
    new: Option<NewRecord>,
    new_ref: Option<(u64, &'a RefRecord)>,
    relocated: &'a BTreeMap<u64, Relocation>,
}

/// A new version's record, but for what it adds.
struct NewRecord {
    ordinal: u64,
    record: VersionRecord,
    /// Sealed bytes that were stored for it before the commit.
    bytes_before: u64,
    /// What those take on all providers together.
    stored_before: u64,
}

/// What the books are told.
struct Written {
    pages: Vec<NumberedPage>,
    head: HeadRecord,
    record: Option<VersionRecord>,
}

/// Writes lists, map and checkpoint, stores the metadata and signs the head over all of it.
async fn finish(
    mut lists: Lists<'_>,
    version: Option<HeadVersion>,
    change: Change<'_>,
    time: Timestamp,
    metadata: &mut Metadata<'_>,
) -> Result<Written, PushError> {
    let (context, base) = (lists.context, lists.base);
    let plan = lists.refs(change.new_ref).await?;
    let refs = lists.write(&plan, metadata).await?;
    let map = lists.map(metadata).await?;
    let checkpoint = Checkpoint {
        name: context.dataset.name.clone(),
        visibility: if context.dataset.public { Visibility::Public } else { Visibility::Private },
        epoch: context.keys.epoch,
        next_segment: SegmentNumber(base.counts.segments),
        policy: context.policy.clone(),
        versions: None,
        version_count: base.counts.versions,
        refs,
        ref_count: base.counts.refs,
        default_ref: (base.counts.refs > 0).then_some(0),
    };
    let (checkpoint, record) = close_lists(&mut lists, checkpoint, change, metadata).await?;
    metadata.close().await?;

    let mut locator: Vec<SegmentPlacement> = metadata.closed().to_vec();
    // The map's root may be an old one.
    if let Some(root) = map.map(|root| root.link.place.segment)
        && metadata.placement(root).is_none()
    {
        let dataset = context.dataset.id;
        locator.extend(ask(&context.books, move |books| books.placements(dataset, vec![root])).await?);
    }
    locator.sort_by_key(|placement| placement.number);
    let segments = locator.iter().map(|placement| placement.number).collect();
    let body = HeadBody { version, map, checkpoint, hints: hints(context, &locator), locator };
    let keys = context.keys.current();
    let bytes = Head::sign(&body, keys, &context.owner, &context.keys.salt, base.sequence, time)?;
    let head = HeadRecord { sequence: base.sequence, bytes, segments };
    Ok(Written { pages: lists.pages, head, record })
}

/// Writes what comes last, the list of versions and the checkpoint. The new version's record says what the version added,
/// all of this included: these pages are not compressed, so that their length is known before they are sealed.
async fn close_lists(
    lists: &mut Lists<'_>,
    mut checkpoint: Checkpoint,
    change: Change<'_>,
    metadata: &mut Metadata<'_>,
) -> Result<(seedbank_formats::place::Link, Option<VersionRecord>), PushError> {
    let ordinal = change.new.as_ref().map(|new| new.ordinal);
    let mut plan = lists.versions(ordinal, change.relocated).await?;
    let mut new = change.new;
    let mut first = metadata.make_room(&[]).await?;
    for _ in 0..SIZING_ROUNDS_MAX {
        if let Some(new) = &new {
            plan.set(new.ordinal, new.record.encode());
        }
        let (pages, root) = plan.encode(first);
        checkpoint.versions = root;
        let mut lengths: Vec<usize> = pages.iter().map(|page| page.bytes.len()).collect();
        lengths.push(checkpoint.encode().len());
        let other = metadata.make_room(&lengths).await?;
        if other != first {
            first = other;
            continue;
        }
        let Some(new) = &mut new else { break };
        let added: usize = lengths.iter().map(|len| len + ITEM_OVERHEAD_BYTES).sum();
        let stored = lists.uploader.stored_len(metadata.open_bytes() + added);
        let closed: u64 = metadata.closed_stored();
        let sized = VersionRecord {
            new_bytes: new.bytes_before + metadata.sealed_bytes() + added as u64,
            stored_bytes: new.stored_before + closed + stored,
            ..new.record
        };
        if std::mem::replace(&mut new.record, sized) == sized {
            break;
        }
    }
    let (pages, root) = plan.encode(first);
    checkpoint.versions = root;
    lists.put(&plan, pages, Compression::Off, metadata).await?;
    let link = metadata.put(&checkpoint_id(), &checkpoint.encode(), Compression::Off).await?;
    Ok((link, new.map(|new| new.record)))
}

/// Where the holders of these segments were last reached.
fn hints<'a>(context: &PushContext, segments: impl IntoIterator<Item = &'a SegmentPlacement>) -> Hints {
    let holders: BTreeSet<PublicKey> = segments.into_iter().flat_map(SegmentPlacement::holders).collect();
    holders.into_iter().map(|holder| (holder, context.network.peer(&holder).address)).collect()
}

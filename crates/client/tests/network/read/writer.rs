//! Segments, pages and placements made by hand, as no push would make them.

use super::world::{FOR_EVER, Reading, World, patient};
use bytes::Bytes;
use seedbank_catalog::{Carrier, CatalogError, Request, Response};
use seedbank_client::SharedBooks;
use seedbank_client::reader::Reader;
use seedbank_client::snapshot::Snapshot;
use seedbank_erasure::{Encoder, Scheme};
use seedbank_formats::chunking::chunk_id;
use seedbank_formats::layout::{ChildPlace, LayoutPage, layout_id};
use seedbank_formats::pages::PageId;
use seedbank_formats::place::{ChunkRef, Place};
use seedbank_formats::placement::{FragmentPlacement, SegmentPlacement};
use seedbank_formats::seal::{Compression, ItemKind, page_id};
use seedbank_formats::segment::{SealedSegment, SegmentBuilder};
use seedbank_formats::tree::{Content, Entry, TreePage, TreeRoot};
use seedbank_formats::version::Version;
use seedbank_formats::{ChunkId, FragmentId, SegmentNumber, Sha256, Timestamp, VersionId};
use seedbank_protocol::routes::Access;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Books that know placements and nothing else.
#[derive(Default)]
pub(crate) struct Placed(Mutex<BTreeMap<SegmentNumber, SegmentPlacement>>);

impl Placed {
    pub(crate) fn put(&self, placement: SegmentPlacement) {
        self.0.lock().unwrap().insert(placement.number, placement);
    }
}

impl Carrier for Placed {
    fn call(&self, request: Request) -> Result<Response, CatalogError> {
        let Request::Placements { segments, .. } = request else {
            return Err(CatalogError::Unreachable { message: "not in these books".to_owned() });
        };
        let placed = self.0.lock().unwrap();
        let found = segments.iter().map(|segment| placed.get(segment).cloned());
        match found.collect() {
            Some(placements) => Ok(Response::Placements(placements)),
            None => Err(CatalogError::SegmentGone { segments }),
        }
    }
}

/// One who writes what it likes.
pub(crate) struct Writer<'w> {
    world: &'w World,
    pub(crate) placed: Arc<Placed>,
    next: u64,
}

/// A segment that is being written.
pub(crate) struct Draft(SegmentBuilder);

impl<'w> Writer<'w> {
    pub(crate) fn new(world: &'w World) -> Writer<'w> {
        Writer { world, placed: Arc::default(), next: 1 }
    }

    pub(crate) fn draft(&mut self) -> Draft {
        self.next += 1;
        Draft(SegmentBuilder::new(self.world.keys.current(), SegmentNumber(self.next), Vec::new()))
    }

    pub(crate) fn store(&self, draft: Draft, scheme: Scheme) -> SegmentPlacement {
        self.store_spoilt(draft, scheme, |_| {}, |_| {})
    }

    /// Stores a segment whose bytes are changed before it is coded, and whose fragments are changed before they are
    /// named. Fragment `i` lies with provider `i`.
    pub(crate) fn store_spoilt(
        &self,
        draft: Draft,
        scheme: Scheme,
        spoil_segment: impl FnOnce(&mut SealedSegment),
        spoil_fragments: impl FnOnce(&mut Vec<Vec<u8>>),
    ) -> SegmentPlacement {
        let mut segment = draft.0.finish();
        spoil_segment(&mut segment);
        let mut coded = if scheme.is_copies() {
            let mut padded = segment.bytes.clone();
            padded.resize(scheme.padded_len(padded.len()), 0);
            vec![padded; scheme.total()]
        } else {
            Encoder::new(scheme).encode(&segment.bytes)
        };
        spoil_fragments(&mut coded);
        let access = match self.world.keys.reader_key() {
            Some(reader) => Access::Reader(reader.public()),
            None => Access::Public,
        };
        let kept = coded.into_iter().map(Bytes::from).zip(&self.world.providers);
        let fragments = kept
            .map(|(bytes, provider)| FragmentPlacement {
                id: provider.shelf.keep(bytes, access),
                holder: Some(provider.key()),
            })
            .collect();
        let placement = SegmentPlacement {
            number: segment.number,
            epoch: segment.epoch,
            scheme,
            sealed_len: segment.sealed_len(),
            footer_len: segment.footer_len,
            fragments,
        };
        self.placed.put(placement.clone());
        placement
    }

    /// A reader of a tree, as a version would name it.
    pub(crate) fn read(&self, tree: TreeRoot, root: ChildPlace) -> Reading {
        let network = patient(FOR_EVER);
        network.learn(self.world.addresses().iter().map(|(key, address)| (key, address.as_str())));
        let books: SharedBooks = Arc::clone(&self.placed) as _;
        let reader = Reader::of_books(&books, &network, &self.world.keys);
        let version = Version {
            dataset: self.world.keys.id,
            parents: Vec::new(),
            author: self.world.keys.owner,
            message: String::new(),
            time: Timestamp(0),
            tree,
            policy: self.world.policy.clone(),
        };
        Reading { books, network, reader, snapshot: Snapshot { id: VersionId([0; 32]), version, root } }
    }

    /// A version of one leaf with these entries, whose layout is `layout`, in a metadata segment of copies.
    pub(crate) fn version(&mut self, entries: Vec<(&str, Entry)>, layout: &LayoutPage) -> Reading {
        let leaf = leaf(entries);
        let mut draft = self.draft();
        let (id, page) = draft.page(&leaf.encode());
        let root = ChildPlace { page, layout: draft.layout(id, layout) };
        self.store(draft, copies());
        self.read(leaf.totals(id), root)
    }
}

pub(crate) fn copies() -> Scheme {
    Scheme::new(1, 5).unwrap()
}

pub(crate) fn leaf(entries: Vec<(&str, Entry)>) -> TreePage {
    TreePage::Leaf(entries.into_iter().map(|(path, entry)| (path.parse().unwrap(), entry)).collect())
}

pub(crate) fn file(size: u64, content: Content) -> Entry {
    Entry::File { executable: false, size, sha256: Sha256([0; 32]), content }
}

impl Draft {
    pub(crate) fn chunk(&mut self, bytes: &[u8]) -> (ChunkRef, Place) {
        let id = chunk_id(bytes);
        let place = self.item(ItemKind::Chunk, id, bytes);
        (ChunkRef { id, len: u32::try_from(bytes.len()).unwrap() }, place)
    }

    pub(crate) fn page(&mut self, bytes: &[u8]) -> (PageId, Place) {
        let id = page_id(bytes);
        (id, self.item(ItemKind::Page, id, bytes))
    }

    pub(crate) fn layout(&mut self, page: PageId, layout: &LayoutPage) -> Place {
        self.item(ItemKind::Named, layout_id(&page), &layout.encode())
    }

    pub(crate) fn item(&mut self, kind: ItemKind, id: ChunkId, bytes: &[u8]) -> Place {
        let index = self.0.push(kind, &id, bytes, Compression::Off).unwrap();
        Place { segment: self.0.number(), index }
    }
}

/// The same segment with its fragments at other providers.
pub(crate) fn moved(placement: &SegmentPlacement, holders: &[Option<FragmentHolder>]) -> SegmentPlacement {
    let fragments = placement.fragments.iter().zip(holders);
    let fragments = fragments.map(|(fragment, holder)| FragmentPlacement { holder: *holder, ..*fragment });
    SegmentPlacement { fragments: fragments.collect(), ..placement.clone() }
}

pub(crate) type FragmentHolder = seedbank_formats::PublicKey;

/// The ids of a segment's fragments.
pub(crate) fn ids(placement: &SegmentPlacement) -> Vec<FragmentId> {
    placement.fragments.iter().map(|fragment| fragment.id).collect()
}

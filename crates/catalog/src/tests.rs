//! The books as a whole, as their callers meet them; here, what all of these tests build on.

mod agreements;
mod collection;
mod durable;
mod fragments;
mod hostile;
mod jobs;
mod names;
mod pushes;
mod registered;
mod restoration;

use crate::catalog::Catalog;
use crate::error::CatalogError;
use crate::operations::{Books, Carrier, Request, Response};
use crate::records::{
    Change, Commit, Counts, Dataset, FragmentKey, HeadRecord, LeaseId, LiveBytes, NewVersion, NumberedList,
    NumberedPage, ProviderProfile, Push, Restoration, VersionRecord,
};
use seedbank_erasure::Scheme;
use seedbank_formats::keys::KeyEpoch;
use seedbank_formats::layout::ChildPlace;
use seedbank_formats::place::{Link, Place};
use seedbank_formats::placement::{FragmentPlacement, SegmentPlacement};
use seedbank_formats::{ChunkId, DatasetId, FragmentId, PublicKey, SegmentNumber, Timestamp, VersionId};
use std::cell::{Cell, RefCell};

const DATASET: DatasetId = DatasetId([0xd1; 32]);
const HOUR: u64 = 3600;

/// An open catalog on a folder of its own, with a clock that the test turns.
struct Desk {
    dir: tempfile::TempDir,
    catalog: RefCell<Catalog>,
    now: Cell<u64>,
}

impl Carrier for Desk {
    fn call(&self, request: Request) -> Result<Response, CatalogError> {
        // Every request and answer survives the steward's socket.
        let request: Request = serde_json::from_str(&serde_json::to_string(&request).unwrap()).unwrap();
        let response = self.catalog.borrow_mut().execute(request, Timestamp(self.now.get()));
        let text = serde_json::to_string(&response).unwrap();
        assert_eq!(serde_json::from_str::<Result<Response, CatalogError>>(&text).unwrap(), response);
        response
    }
}

impl Desk {
    fn empty() -> Desk {
        let dir = tempfile::tempdir().unwrap();
        let catalog = RefCell::new(Catalog::open(dir.path()).unwrap());
        Desk { dir, catalog, now: Cell::new(1_000_000) }
    }

    /// With one dataset and eight providers.
    fn new() -> Desk {
        let desk = Desk::empty();
        desk.create_dataset(dataset(DATASET, "penguins")).unwrap();
        (0..8).for_each(|number| desk.put_provider(profile(number)).unwrap());
        desk
    }

    fn push(&self) -> Push {
        self.begin_push(DATASET, "main".into(), "test".into(), HOUR, 10).unwrap()
    }

    fn record(&self, push: &Push, number: u64) {
        self.record_segment(push.lease, segment(number), Timestamp(2_000_000)).unwrap();
    }

    /// A commit of a version whose pages lie in this segment.
    fn prepare(&self, lease: LeaseId, seed: u8, metadata: u64) -> Commit {
        let base = self.commit_base(lease, Some("main".into())).unwrap();
        self.record_segment(lease, segment(metadata), Timestamp(2_000_000)).unwrap();
        let record = VersionRecord { ordinal: base.ordinal, ..version(seed, metadata) };
        let version = NewVersion { record, branch: "main".into(), base: base.branch.unwrap() };
        let list_page = |list| NumberedPage { list, level: 0, page: 0, link: link(metadata, 3) };
        Commit {
            dataset: DATASET,
            lease,
            version: Some(version),
            relies_on: None,
            relocations: Vec::new(),
            pages: [NumberedList::Map, NumberedList::Versions, NumberedList::Refs].map(list_page).to_vec(),
            head: HeadRecord {
                sequence: base.sequence,
                bytes: vec![seed; 100],
                segments: vec![SegmentNumber(metadata)],
            },
            through: base.through,
            counts: base.counts,
            live: Vec::new(),
        }
    }

    /// A whole push of one data segment and one of metadata.
    fn push_version(&self, seed: u8) -> (Push, VersionId) {
        let push = self.push();
        let first = push.first_segment.0;
        self.record(&push, first);
        let commit = self.prepare(push.lease, seed, first + 1);
        self.commit(commit).unwrap();
        (push, VersionId([seed; 32]))
    }

    fn collect(&self, live: &[(u64, u64)]) -> crate::records::Collected {
        let snapshot = self.collect_begin(DATASET).unwrap();
        self.collect_finish(DATASET, snapshot, live_bytes(live)).unwrap()
    }

    fn numbers(&self) -> Vec<u64> {
        let all = self.segments_in(DATASET, SegmentNumber(0), SegmentNumber(1000), None).unwrap();
        all.iter().map(|segment| segment.number.0).collect()
    }
}

fn live_bytes(live: &[(u64, u64)]) -> Vec<LiveBytes> {
    live.iter().map(|&(number, bytes)| LiveBytes { segment: SegmentNumber(number), bytes }).collect()
}

fn dataset(id: DatasetId, name: &str) -> Dataset {
    Dataset {
        id,
        name: name.into(),
        salt: [1; 32],
        owner: PublicKey([2; 32]),
        epoch: KeyEpoch(0),
        public: false,
        policy: vec![1, 2, 3],
        created: Timestamp(5),
    }
}

fn provider(number: u8) -> PublicKey {
    PublicKey([number; 32])
}

fn profile(number: u8) -> ProviderProfile {
    ProviderProfile {
        key: provider(number),
        address: format!("127.0.0.1:{number}"),
        operator: format!("operator {number}"),
        region: "eu".into(),
        capacity_bytes: 1 << 40,
        free_bytes: 1 << 39,
        accepting: true,
    }
}

fn fragment(segment: u64, index: u8) -> FragmentId {
    FragmentId(*blake3::hash(&[&segment.to_le_bytes()[..], &[index]].concat()).as_bytes())
}

/// 2 of 4, held by providers 0 to 3.
fn segment(number: u64) -> SegmentPlacement {
    let holder = |index: u8| FragmentPlacement { id: fragment(number, index), holder: Some(provider(index)) };
    SegmentPlacement {
        number: SegmentNumber(number),
        epoch: KeyEpoch(0),
        scheme: Scheme::new(2, 4).unwrap(),
        sealed_len: 1000,
        footer_len: 100,
        fragments: (0..4).map(holder).collect(),
    }
}

fn place(segment: u64, index: u32) -> Place {
    Place { segment: SegmentNumber(segment), index }
}

fn link(segment: u64, index: u32) -> Link {
    Link { place: place(segment, index), hash: ChunkId([9; 32]) }
}

fn tree(segment: u64) -> ChildPlace {
    ChildPlace { page: place(segment, 1), layout: place(segment, 2) }
}

fn version(seed: u8, segment: u64) -> VersionRecord {
    VersionRecord {
        ordinal: 0,
        id: VersionId([seed; 32]),
        version: place(segment, 0),
        tree: tree(segment),
        new_bytes: 1000,
        stored_bytes: 2000,
        time: Timestamp(7),
        message: "first".into(),
    }
}

fn key(segment: u64, index: u8) -> FragmentKey {
    FragmentKey { dataset: DATASET, segment: SegmentNumber(segment), index }
}

fn gone(segment: u64) -> CatalogError {
    CatalogError::SegmentGone { segments: vec![SegmentNumber(segment)] }
}

fn map_change(segment: u64) -> Change {
    Change { list: NumberedList::Map, number: segment }
}

fn restoration(name: &str, id: DatasetId, versions: Vec<VersionRecord>) -> Restoration {
    Restoration {
        dataset: dataset(id, name),
        counts: Counts { segments: 20, versions: 9, refs: 3 },
        begins: None,
        segments: Vec::new(),
        versions,
        refs: Vec::new(),
        pages: Vec::new(),
        head: None,
    }
}

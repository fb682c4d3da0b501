//! Fragments with their bytes, as a provider's store keeps them.

use seedbank_agreement::chunk_path::{ChunkPath, chunk_path, reads};
use seedbank_agreement::epoch::Epoch;
use seedbank_agreement::fragment_set::{Fragment, FragmentSet};
use seedbank_agreement::market::Proof;
use seedbank_formats::FragmentId;
use seedbank_formats::slice::FragmentHasher;
use std::collections::BTreeMap;

pub(crate) struct Stored {
    bytes: Vec<u8>,
    outboard: Vec<u8>,
}

/// A store's fragments by id.
#[derive(Default)]
pub(crate) struct Store(BTreeMap<FragmentId, Stored>);

impl Store {
    /// Keeps bytes, and says as what.
    pub(crate) fn put(&mut self, bytes: Vec<u8>) -> Fragment {
        let mut hasher = FragmentHasher::default();
        hasher.update(&bytes);
        let (id, outboard) = hasher.finish();
        let length = bytes.len() as u64;
        self.0.insert(id, Stored { bytes, outboard });
        Fragment { id, length, retain_until: Epoch(0) }
    }

    /// Shows byte `offset` of a set.
    pub(crate) fn show(&self, set: &FragmentSet, offset: u64) -> Proof {
        let fragment = set.path(offset).expect("the set has that byte");
        let inside = fragment.locate(&set.root(), set.total(), offset).unwrap();
        let chunk = self.0[&fragment.fragment.id].show(inside);
        Proof { fragment, chunk }
    }

    pub(crate) fn show_chunk(&self, id: &FragmentId, offset: u64) -> ChunkPath {
        self.0[id].show(offset)
    }
}

impl Stored {
    fn show(&self, offset: u64) -> ChunkPath {
        let at = |offset: u64| usize::try_from(offset).unwrap();
        let length = self.bytes.len() as u64;
        let reads = reads(length, offset).unwrap();
        let node = |from: &u64| self.outboard[at(*from)..at(*from) + 64].try_into().unwrap();
        let nodes: Vec<[u8; 64]> = reads.nodes.iter().map(node).collect();
        let group = &self.bytes[at(reads.group.start)..at(reads.group.end)];
        chunk_path(length, offset, group, &nodes).unwrap()
    }
}

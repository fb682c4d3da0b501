//! Possession of one chunk: the chunk and the BLAKE3 chaining values beside its way to the fragment's id.
//!
//! A provider keeps each fragment's tree down to groups of 16 chunks ([`seedbank_formats::slice`]). For one chunk it reads that
//! group and the nodes on the way to it, about 17 KB however long the fragment is, and hashes the group once more. `Blake3Paths` of
//! the contracts takes what comes out; [`ChunkPath::root`] is the same check here.

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use seedbank_formats::FragmentId;
use seedbank_formats::slice::GROUP_BYTES;
use std::ops::Range;

/// Bytes of a chunk. A fragment's last one may have fewer.
pub const CHUNK_BYTES: u64 = 1024;
/// The contracts take fragments below so many bytes.
pub const LENGTH_LIMIT: u64 = 1 << 40;
const GROUP_CHUNKS: u64 = GROUP_BYTES / CHUNK_BYTES;
const NODE_BYTES: u64 = 64;

/// A chaining value.
pub type Chaining = [u8; 32];

/// A chunk and the chaining values beside its path, from the chunk's sibling up to the root's child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkPath {
    /// The chunk.
    pub chunk: Vec<u8>,
    /// What stands beside its path.
    pub siblings: Vec<Chaining>,
}

/// Why a chunk's path is none, as the contracts say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkPathError {
    /// No bytes, or more than a fragment may have.
    #[error("no fragment has {0} bytes")]
    FragmentLength(u64),
    /// The fragment has no chunk of that number.
    #[error("there is no chunk {index} in {length} bytes")]
    ChunkIndex {
        /// The number.
        index: u64,
        /// The fragment's bytes.
        length: u64,
    },
    /// A chunk is 1,024 bytes long, or what is left for the last one.
    #[error("the chunk has {actual} bytes, not {expected}")]
    ChunkLength {
        /// How many it must have.
        expected: u64,
        /// How many it has.
        actual: usize,
    },
    /// One sibling for each level, no more and no fewer.
    #[error("the path has {actual} siblings, not {expected}")]
    PathLength {
        /// How many it must have.
        expected: usize,
        /// How many it has.
        actual: usize,
    },
}

/// What has to be read to show one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reads {
    /// The group's bytes in the fragment.
    pub group: Range<u64>,
    /// Where the nodes on the way to the group begin in the fragment's outboard, 64 bytes each, from the top down.
    pub nodes: Vec<u64>,
}

/// What to read for the chunk that holds byte `offset` of a fragment of `length` bytes.
///
/// # Errors
/// [`ChunkPathError`] if the fragment or the chunk can't be.
pub fn reads(length: u64, offset: u64) -> Result<Reads, ChunkPathError> {
    let index = offset / CHUNK_BYTES;
    chunks(length, index)?;
    let group = index / GROUP_CHUNKS;
    let (mut groups, mut from, mut node) = (length.div_ceil(GROUP_BYTES), 0, 0);
    let mut nodes = Vec::new();
    while groups > 1 {
        nodes.push(node * NODE_BYTES);
        let left = left_of(groups);
        if group < from + left {
            (groups, node) = (left, node + 1);
        } else {
            // Pre-order: the left child's nodes stand between this one and the right child's.
            (groups, from, node) = (groups - left, from + left, node + left);
        }
    }
    Ok(Reads { group: group * GROUP_BYTES..((group + 1) * GROUP_BYTES).min(length), nodes })
}

/// The path of the chunk that holds byte `offset`, out of what [`reads`] asks for.
///
/// Nothing is checked against the fragment's id here: bytes that rotted give a path that leads elsewhere, which [`ChunkPath::root`]
/// shows before anybody is asked to pay for it.
///
/// # Errors
/// [`ChunkPathError`] if the fragment or the chunk can't be.
///
/// # Panics
/// If `group` or `nodes` are not what [`reads`] asks for.
pub fn chunk_path(
    length: u64,
    offset: u64,
    group: &[u8],
    nodes: &[[u8; 64]],
) -> Result<ChunkPath, ChunkPathError> {
    let wanted = reads(length, offset)?;
    assert!(
        group.len() as u64 == wanted.group.end - wanted.group.start && nodes.len() == wanted.nodes.len(),
        "the group and the nodes are those of the chunk"
    );
    let index = offset / CHUNK_BYTES;
    let mut siblings = Vec::new();
    let (mut groups, mut at) = (length.div_ceil(GROUP_BYTES), index / GROUP_CHUNKS);
    for node in nodes {
        let (left, right) = node.split_at(32);
        let left_groups = left_of(groups);
        let sibling = if at < left_groups {
            groups = left_groups;
            right
        } else {
            (groups, at) = (groups - left_groups, at - left_groups);
            left
        };
        siblings.push(sibling.try_into().expect("half of 64 bytes"));
    }
    // On in the group, whose tree is hashed from its bytes.
    let (mut bytes, mut start) = (group, wanted.group.start);
    while bytes.len() as u64 > CHUNK_BYTES {
        let middle = left_of((bytes.len() as u64).div_ceil(CHUNK_BYTES)) * CHUNK_BYTES;
        let (left, right) = bytes.split_at(usize::try_from(middle).expect("inside a group"));
        let sibling = if index * CHUNK_BYTES < start + middle {
            bytes = left;
            chaining(start + middle, right)
        } else {
            let sibling = chaining(start, left);
            (bytes, start) = (right, start + middle);
            sibling
        };
        siblings.push(sibling);
    }
    siblings.reverse();
    Ok(ChunkPath { chunk: bytes.to_vec(), siblings })
}

impl ChunkPath {
    /// The id of the only fragment of `length` bytes whose chunk `index` is this one beside these siblings.
    ///
    /// Index and length decide about the tree's shape, so they come from what was agreed, never from the prover.
    ///
    /// # Errors
    /// [`ChunkPathError`], for the same paths as in the contract.
    pub fn root(&self, index: u64, length: u64) -> Result<FragmentId, ChunkPathError> {
        let chunks = chunks(length, index)?;
        let expected = (length - index * CHUNK_BYTES).min(CHUNK_BYTES);
        if self.chunk.len() as u64 != expected {
            return Err(ChunkPathError::ChunkLength { expected, actual: self.chunk.len() });
        }
        let turns = turns(index, chunks);
        if self.siblings.len() != turns.len() {
            return Err(ChunkPathError::PathLength { expected: turns.len(), actual: self.siblings.len() });
        }
        let Some((top, below)) = self
            .siblings
            .split_last()
            .zip(turns.split_last())
            .map(|(s, t)| ((*s.0, *t.0), s.1.iter().zip(t.1)))
        else {
            return Ok(FragmentId::of(&self.chunk));
        };
        let mut value = chaining(index * CHUNK_BYTES, &self.chunk);
        for (sibling, turn) in below {
            let (left, right) = turn.order(&value, sibling);
            value = merge_subtrees_non_root(left, right, Mode::Hash);
        }
        let (left, right) = top.1.order(&value, &top.0);
        Ok(FragmentId(*merge_subtrees_root(left, right, Mode::Hash).as_bytes()))
    }
}

/// On which side of its parent a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

impl Side {
    fn order<'a>(self, own: &'a Chaining, sibling: &'a Chaining) -> (&'a Chaining, &'a Chaining) {
        match self {
            Side::Left => (own, sibling),
            Side::Right => (sibling, own),
        }
    }
}

/// The way from chunk `index` up to the root of a tree over `chunks` chunks.
fn turns(mut index: u64, mut chunks: u64) -> Vec<Side> {
    let mut turns = Vec::new();
    while chunks > 1 {
        let left = left_of(chunks);
        if index < left {
            chunks = left;
            turns.push(Side::Left);
        } else {
            (index, chunks) = (index - left, chunks - left);
            turns.push(Side::Right);
        }
    }
    turns.reverse();
    turns
}

/// How many chunks a fragment has, one of which is `index`.
fn chunks(length: u64, index: u64) -> Result<u64, ChunkPathError> {
    if length == 0 || length >= LENGTH_LIMIT {
        return Err(ChunkPathError::FragmentLength(length));
    }
    let chunks = length.div_ceil(CHUNK_BYTES);
    if index < chunks { Ok(chunks) } else { Err(ChunkPathError::ChunkIndex { index, length }) }
}

/// Leaves left of the middle of a tree: the largest power of two below their number.
fn left_of(leaves: u64) -> u64 {
    debug_assert!(leaves > 1, "one leaf has no middle");
    1 << (leaves - 1).ilog2()
}

fn chaining(start: u64, bytes: &[u8]) -> Chaining {
    blake3::Hasher::new().set_input_offset(start).update(bytes).finalize_non_root()
}

#[cfg(test)]
mod tests {
    use super::{CHUNK_BYTES, ChunkPath, ChunkPathError, chunk_path, reads};
    use proptest::prelude::{ProptestConfig, any, proptest};
    use seedbank_formats::FragmentId;
    use seedbank_formats::slice::FragmentHasher;

    fn fragment(length: u64) -> (Vec<u8>, FragmentId, Vec<u8>) {
        let bytes: Vec<u8> = (0..length).map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap()).collect();
        let mut hasher = FragmentHasher::default();
        hasher.update(&bytes);
        let (id, outboard) = hasher.finish();
        (bytes, id, outboard)
    }

    fn path(bytes: &[u8], outboard: &[u8], offset: u64) -> ChunkPath {
        let reads = reads(bytes.len() as u64, offset).unwrap();
        let at = |offset: u64| usize::try_from(offset).unwrap();
        let nodes: Vec<[u8; 64]> =
            reads.nodes.iter().map(|node| outboard[at(*node)..at(*node) + 64].try_into().unwrap()).collect();
        let group = &bytes[at(reads.group.start)..at(reads.group.end)];
        chunk_path(bytes.len() as u64, offset, group, &nodes).unwrap()
    }

    #[test]
    fn every_chunk_leads_to_its_fragments_id() {
        let group = 16 * 1024;
        for length in [
            1,
            63,
            1024,
            1025,
            2048,
            3000,
            group - 1,
            group,
            group + 1,
            2 * group + 1,
            5 * group - 3,
            37 * group + 5,
        ] {
            let (bytes, id, outboard) = fragment(length);
            for index in 0..length.div_ceil(CHUNK_BYTES) {
                let path = path(&bytes, &outboard, index * CHUNK_BYTES);
                assert_eq!(path.root(index, length), Ok(id), "chunk {index} of {length} bytes");
            }
        }
    }

    #[test]
    fn what_is_read_hardly_grows_with_the_fragment() {
        let largest = (1 << 40) - 1;
        let reads = reads(largest, largest - 1).unwrap();
        let bytes = (reads.group.end - reads.group.start) + 64 * reads.nodes.len() as u64;
        assert!(bytes <= 16 * 1024 + 26 * 64, "{bytes}");
    }

    #[test]
    fn nothing_else_leads_to_the_id() {
        let length = 70_001;
        let (bytes, id, outboard) = fragment(length);
        let index = 33;
        let good = path(&bytes, &outboard, index * CHUNK_BYTES + 7);
        for at in 0..good.chunk.len() {
            let mut changed = good.clone();
            changed.chunk[at] ^= 1;
            assert_ne!(changed.root(index, length), Ok(id), "byte {at}");
        }
        for at in 0..good.siblings.len() {
            let mut changed = good.clone();
            changed.siblings[at][5] ^= 0x80;
            assert_ne!(changed.root(index, length), Ok(id), "sibling {at}");
        }
        for other in (0..69).filter(|other| *other != index) {
            assert_ne!(good.root(other, length), Ok(id), "as chunk {other}");
        }
        let all = length.div_ceil(CHUNK_BYTES);
        assert_eq!(good.root(all, length), Err(ChunkPathError::ChunkIndex { index: all, length }));
        assert_eq!(good.root(0, 0), Err(ChunkPathError::FragmentLength(0)));
        assert_eq!(good.root(0, 1 << 40), Err(ChunkPathError::FragmentLength(1 << 40)));
        let depth = good.siblings.len();
        let mut longer = good.clone();
        longer.siblings.push([0; 32]);
        let wrong = ChunkPathError::PathLength { expected: depth, actual: depth + 1 };
        assert_eq!(longer.root(index, length), Err(wrong));
        let mut shorter = good;
        shorter.chunk.pop();
        assert_eq!(
            shorter.root(index, length),
            Err(ChunkPathError::ChunkLength { expected: 1024, actual: 1023 })
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_byte_of_any_fragment_can_be_shown(length in 1..40 * 16 * 1024u64, offset in any::<u64>()) {
            let (bytes, id, outboard) = fragment(length);
            let offset = offset % length;
            let path = path(&bytes, &outboard, offset);
            assert_eq!(path.root(offset / CHUNK_BYTES, length), Ok(id));
        }
    }
}

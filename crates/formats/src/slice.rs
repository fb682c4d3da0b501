//! Verified ranges of a fragment: its BLAKE3 tree in 16 KiB groups, and slices that prove themselves against its id.
//!
//! The root of this tree *is* the fragment's id, so there is no second tree over stored bytes. An outboard holds the
//! inner nodes above groups of 16 chunks in pre-order, 64 bytes a node (0.39 % of the data): the layout of bao
//! (Jack O'Connor, "Bao", 2017) with chunk groups and without its length prefix. A slice is the pre-order walk of the
//! nodes above a range, with each group of the range in its place.
//!
//! The fragment's length is not part of a slice: whoever checks one knows it from the placement map or the receipt.

use crate::ids::FragmentId;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use std::ops::Range;

/// Bytes of one group: the unit that a range is rounded to.
pub const GROUP_BYTES: u64 = 16 * 1024;
const GROUP_LEN: usize = 16 * 1024;
const NODE_LEN: usize = 64;

/// Up to here a length can be rounded to whole groups. No fragment is nearly as long.
const LENGTH_MAX: u64 = u64::MAX - GROUP_BYTES;

type ChainingValue = [u8; 32];

/// Why a slice does not prove its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    /// A hash on the way down does not match: proof or data are wrong.
    #[error("slice does not match the fragment's id")]
    Mismatch,
    /// Fewer or more bytes than the range and length need.
    #[error("slice has the wrong length")]
    WrongLength,
    /// The range is empty, reversed or outside the fragment.
    #[error("range lies outside the fragment")]
    OutOfRange,
}

/// Number of groups of a fragment of `len` bytes; an empty one still has a group.
fn group_count(len: u64) -> u64 {
    len.div_ceil(GROUP_BYTES).max(1)
}

/// Bytes of the outboard of a fragment of `len` bytes.
#[must_use]
pub fn outboard_len(len: u64) -> u64 {
    (group_count(len) - 1) * NODE_LEN as u64
}

/// Groups in the left subtree above `groups` groups: the largest power of two below it.
fn left_groups(groups: u64) -> u64 {
    debug_assert!(groups > 1, "a single group is a leaf");
    1 << (groups - 1).ilog2()
}

/// Hashes a fragment as it arrives, in pieces of any size, and keeps what the outboard needs.
#[derive(Debug)]
pub struct FragmentHasher {
    group: blake3::Hasher,
    group_filled: usize,
    /// Finished groups, without the last one.
    finished: Vec<ChainingValue>,
}

impl Default for FragmentHasher {
    fn default() -> FragmentHasher {
        FragmentHasher { group: blake3::Hasher::new(), group_filled: 0, finished: Vec::new() }
    }
}

impl FragmentHasher {
    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // A full group is closed only when more follows: the last group may turn out to be the root.
            if self.group_filled == GROUP_LEN {
                self.finished.push(self.group.finalize_non_root());
                // `reset` keeps the old input offset, so a new hasher it is.
                self.group = blake3::Hasher::new();
                self.group.set_input_offset(self.finished.len() as u64 * GROUP_BYTES);
                self.group_filled = 0;
            }
            let (now, later) = bytes.split_at(bytes.len().min(GROUP_LEN - self.group_filled));
            self.group.update(now);
            self.group_filled += now.len();
            bytes = later;
        }
    }

    /// The fragment's id and its outboard.
    #[must_use]
    pub fn finish(mut self) -> (FragmentId, Vec<u8>) {
        if self.finished.is_empty() {
            return (FragmentId(*self.group.finalize().as_bytes()), Vec::new());
        }
        self.finished.push(self.group.finalize_non_root());
        let mut outboard = vec![0; (self.finished.len() - 1) * NODE_LEN];
        let (left, right) = build(&self.finished, &mut outboard);
        (FragmentId(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()), outboard)
    }
}

/// Fills `nodes` with the pre-order of the tree above `groups` (two or more), and gives the children of its top.
fn build(groups: &[ChainingValue], nodes: &mut [u8]) -> (ChainingValue, ChainingValue) {
    let middle = usize::try_from(left_groups(groups.len() as u64)).expect("a part of a slice's length");
    let (left_groups, right_groups) = groups.split_at(middle);
    let (top, below) = nodes.split_at_mut(NODE_LEN);
    let (left_nodes, right_nodes) = below.split_at_mut((left_groups.len() - 1) * NODE_LEN);
    let left = subtree(left_groups, left_nodes);
    let right = subtree(right_groups, right_nodes);
    top[..32].copy_from_slice(&left);
    top[32..].copy_from_slice(&right);
    (left, right)
}

fn subtree(groups: &[ChainingValue], nodes: &mut [u8]) -> ChainingValue {
    if let [group] = groups {
        return *group;
    }
    let (left, right) = build(groups, nodes);
    merge_subtrees_non_root(&left, &right, Mode::Hash)
}

/// The range rounded outwards to whole groups: the bytes that a slice for `range` carries.
///
/// # Errors
/// [`SliceError::OutOfRange`] when the range is empty or not inside a fragment of `len` bytes.
pub fn covered(len: u64, range: &Range<u64>) -> Result<Range<u64>, SliceError> {
    if range.start >= range.end || range.end > len || len > LENGTH_MAX {
        return Err(SliceError::OutOfRange);
    }
    let start = range.start / GROUP_BYTES * GROUP_BYTES;
    Ok(start..range.end.next_multiple_of(GROUP_BYTES).min(len))
}

/// The slice for `range` of a fragment of `len` bytes, from its outboard and the bytes `data` of [`covered`].
///
/// # Errors
/// [`SliceError::OutOfRange`] for a bad range, [`SliceError::WrongLength`] when `outboard` or `data` have not the
/// length that the fragment and the range ask for. The bytes themselves are not checked here.
pub fn encode(len: u64, outboard: &[u8], range: &Range<u64>, data: &[u8]) -> Result<Vec<u8>, SliceError> {
    let covered = covered(len, range)?;
    let fits = data.len() as u64 == covered.end - covered.start && outboard.len() as u64 == outboard_len(len);
    if !fits {
        return Err(SliceError::WrongLength);
    }
    let mut slice = Vec::with_capacity(data.len() + 64 * 32);
    let mut walk = Encode { outboard, data, covered, slice: &mut slice };
    walk.node(0..group_count(len), 0, len);
    Ok(slice)
}

struct Encode<'a> {
    outboard: &'a [u8],
    data: &'a [u8],
    covered: Range<u64>,
    slice: &'a mut Vec<u8>,
}

impl Encode<'_> {
    fn node(&mut self, groups: Range<u64>, node: u64, len: u64) {
        let bytes = group_bytes(&groups, len);
        if bytes.end <= self.covered.start || bytes.start >= self.covered.end {
            return;
        }
        if groups.end - groups.start == 1 {
            let at = index(bytes.start - self.covered.start);
            self.slice.extend_from_slice(&self.data[at..at + index(bytes.end - bytes.start)]);
            return;
        }
        let at = index(node) * NODE_LEN;
        self.slice.extend_from_slice(&self.outboard[at..at + NODE_LEN]);
        let left = left_groups(groups.end - groups.start);
        self.node(groups.start..groups.start + left, node + 1, len);
        self.node(groups.start + left..groups.end, node + left, len);
    }
}

fn group_bytes(groups: &Range<u64>, len: u64) -> Range<u64> {
    groups.start * GROUP_BYTES..(groups.end * GROUP_BYTES).min(len)
}

fn index(value: u64) -> usize {
    usize::try_from(value).expect("an offset into bytes that are in memory")
}

/// Checks a slice against the fragment's id and gives the bytes of `range`, exactly.
///
/// # Errors
/// [`SliceError`] when the range is bad, or proof or data do not fit the id; then no byte is returned.
pub fn verify(id: &FragmentId, len: u64, range: &Range<u64>, slice: &[u8]) -> Result<Vec<u8>, SliceError> {
    let covered = covered(len, range)?;
    let mut walk = Verify { rest: slice, covered: covered.clone(), len, data: Vec::new() };
    walk.data.reserve(slice.len().min(index(covered.end - covered.start)));
    walk.node(0..group_count(len), id.as_bytes(), Top::Root)?;
    if !walk.rest.is_empty() {
        return Err(SliceError::WrongLength);
    }
    let mut data = walk.data;
    data.truncate(index(range.end - covered.start));
    data.drain(..index(range.start - covered.start));
    Ok(data)
}

#[derive(Clone, Copy)]
enum Top {
    Root,
    Inner,
}

struct Verify<'a> {
    rest: &'a [u8],
    covered: Range<u64>,
    len: u64,
    data: Vec<u8>,
}

impl Verify<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], SliceError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(SliceError::WrongLength)?;
        self.rest = rest;
        Ok(taken)
    }

    fn node(&mut self, groups: Range<u64>, expected: &ChainingValue, top: Top) -> Result<(), SliceError> {
        let bytes = group_bytes(&groups, self.len);
        if bytes.end <= self.covered.start || bytes.start >= self.covered.end {
            return Ok(());
        }
        if groups.end - groups.start == 1 {
            let taken = self.take(index(bytes.end - bytes.start))?.to_vec();
            let mut hasher = blake3::Hasher::new();
            let actual = match top {
                Top::Root => *hasher.update(&taken).finalize().as_bytes(),
                Top::Inner => hasher.set_input_offset(bytes.start).update(&taken).finalize_non_root(),
            };
            if actual != *expected {
                return Err(SliceError::Mismatch);
            }
            self.data.extend_from_slice(&taken);
            return Ok(());
        }
        let pair = self.take(NODE_LEN)?;
        let left_value: ChainingValue = pair[..32].try_into().expect("half of 64 bytes");
        let right_value: ChainingValue = pair[32..].try_into().expect("half of 64 bytes");
        let actual = match top {
            Top::Root => *merge_subtrees_root(&left_value, &right_value, Mode::Hash).as_bytes(),
            Top::Inner => merge_subtrees_non_root(&left_value, &right_value, Mode::Hash),
        };
        if actual != *expected {
            return Err(SliceError::Mismatch);
        }
        let left = left_groups(groups.end - groups.start);
        self.node(groups.start..groups.start + left, &left_value, Top::Inner)?;
        self.node(groups.start + left..groups.end, &right_value, Top::Inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{FragmentHasher, SliceError, covered, encode, outboard_len, verify};
    use crate::ids::FragmentId;
    use bao_tree::io::outboard::PreOrderMemOutboard;
    use proptest::prelude::{ProptestConfig, any, proptest};

    fn data(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from((i * 7 + i / 251) % 256).unwrap()).collect()
    }

    fn hashed(data: &[u8], step: usize) -> (FragmentId, Vec<u8>) {
        let mut hasher = FragmentHasher::default();
        data.chunks(step.max(1)).for_each(|piece| hasher.update(piece));
        hasher.finish()
    }

    #[test]
    fn id_is_plain_blake3_and_outboard_is_baos_at_every_edge() {
        let group = 16 * 1024;
        for len in [
            0,
            1,
            64,
            1024,
            group - 1,
            group,
            group + 1,
            2 * group,
            3 * group + 5,
            16 * group,
            37 * group + 1,
        ] {
            let data = data(len);
            let (id, outboard) = hashed(&data, 1000);
            assert_eq!(id, FragmentId::of(&data), "length {len}");
            assert_eq!(outboard.len() as u64, outboard_len(len as u64));
            let oracle = PreOrderMemOutboard::create(&data, bao_tree::BlockSize::from_chunk_log(4));
            assert_eq!(outboard, oracle.data, "length {len}");
            assert_eq!(id.as_bytes(), oracle.root.as_bytes());
        }
    }

    #[test]
    fn every_flipped_bit_of_a_slice_is_noticed() {
        let data = data(40_000);
        let (id, outboard) = hashed(&data, 4096);
        let range = 17_000..17_100;
        let covered = covered(40_000, &range).unwrap();
        let bytes = &data[usize::try_from(covered.start).unwrap()..usize::try_from(covered.end).unwrap()];
        let slice = encode(40_000, &outboard, &range, bytes).unwrap();
        assert_eq!(verify(&id, 40_000, &range, &slice).unwrap(), data[17_000..17_100]);
        for bit in (0..slice.len() * 8).step_by(5) {
            let mut flipped = slice.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verify(&id, 40_000, &range, &flipped), Err(SliceError::Mismatch), "bit {bit}");
        }
        assert_eq!(verify(&id, 40_000, &range, &slice[..slice.len() - 1]), Err(SliceError::WrongLength));
        let longer = [&slice[..], &[0]].concat();
        assert_eq!(verify(&id, 40_000, &range, &longer), Err(SliceError::WrongLength));
    }

    #[test]
    fn ranges_outside_the_fragment_are_refused() {
        let (id, _) = hashed(&data(100), 100);
        for range in [0..101, 5..5, 100..101] {
            assert_eq!(verify(&id, 100, &range, &[]), Err(SliceError::OutOfRange));
        }
    }

    #[test]
    fn lengths_at_the_end_of_numbers_are_refused() {
        for (len, range) in [(u64::MAX, u64::MAX - 1..u64::MAX), (u64::MAX, 0..1), (u64::MAX - 16_383, 5..6)]
        {
            assert_eq!(covered(len, &range), Err(SliceError::OutOfRange));
            assert_eq!(verify(&FragmentId([0; 32]), len, &range, &[0; 640]), Err(SliceError::OutOfRange));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_range_verifies(
            len in 1usize..12 * 16 * 1024, a in any::<u64>(), b in any::<u64>(), step in 1usize..40_000
        ) {
            let data = data(len);
            let (id, outboard) = hashed(&data, step);
            let len = len as u64;
            let (a, b) = (a % len, b % len);
            let range = a.min(b)..a.max(b) + 1;
            let covered = covered(len, &range).unwrap();
            let at = |offset: u64| usize::try_from(offset).unwrap();
            let slice = encode(len, &outboard, &range, &data[at(covered.start)..at(covered.end)]).unwrap();
            assert_eq!(verify(&id, len, &range, &slice).unwrap(), data[at(range.start)..at(range.end)]);
        }

        #[test]
        fn hostile_slices_never_verify(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            assert!(verify(&FragmentId([7; 32]), 50_000, &(0..200), &bytes).is_err());
        }
    }
}

//! The fragments that a provider holds for one client, as one root: `FragmentSets` of the contracts.
//!
//! Leaves are sorted strictly by fragment id and every node adds up the bytes below it, so a byte offset belongs to exactly one
//! fragment and the path to it shows which. A node without a partner moves up as it is.
//!
//! Cost for n fragments: about 110 bytes each in memory; two hashes each to build. A change moves all leaves behind it to other
//! places, so it costs what is hashed anew to the right of the first change; leaves that stay are not hashed again, and a change
//! that moves nothing (a longer promise) costs its own path only. `benches/agreement.rs` has the figures for a million.

use crate::abi::Words;
use crate::epoch::Epoch;
use crate::keccak::keccak256;
use crate::proposal::SetRoot;
use seedbank_formats::FragmentId;
use std::collections::{BTreeMap, BTreeSet};

type Hash = [u8; 32];

/// The contracts take paths of at most so many levels.
const LEVELS_MAX: usize = 40;

/// One fragment of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// The BLAKE3 hash of its bytes.
    pub id: FragmentId,
    /// Its bytes, at least one.
    pub length: u64,
    /// The epoch up to which client and provider agreed to keep it, or 0.
    pub retain_until: Epoch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node {
    hash: Hash,
    sum: u64,
}

/// Hashes of the words that separate leaves, nodes and roots.
struct Tags {
    leaf: Hash,
    node: Hash,
    root: Hash,
}

impl Tags {
    fn new() -> Tags {
        Tags {
            leaf: keccak256(b"seedbank set leaf 1"),
            node: keccak256(b"seedbank set node 1"),
            root: keccak256(b"seedbank set root 1"),
        }
    }

    fn leaf(&self, fragment: &Fragment) -> Hash {
        Words::with_capacity(4)
            .bytes32(&self.leaf)
            .bytes32(fragment.id.as_bytes())
            .uint(fragment.length)
            .uint(fragment.retain_until.0)
            .keccak256()
    }

    fn node(&self, left: &Node, right: &Node) -> Hash {
        Words::with_capacity(5)
            .bytes32(&self.node)
            .bytes32(&left.hash)
            .uint(left.sum)
            .bytes32(&right.hash)
            .uint(right.sum)
            .keccak256()
    }

    fn root(&self, top: &Node) -> SetRoot {
        SetRoot(Words::with_capacity(3).bytes32(&self.root).bytes32(&top.hash).uint(top.sum).keccak256())
    }
}

/// A set of fragments with its tree.
#[derive(Debug, Clone)]
pub struct FragmentSet {
    /// Sorted strictly by id.
    fragments: Vec<Fragment>,
    /// From the leaves up; the last level is the root's node. Empty for an empty set.
    levels: Vec<Vec<Node>>,
}

/// Why fragments make no set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// One id twice. Copies of one fragment at one provider are one fragment.
    #[error("fragment {0} is in the set twice")]
    Twice(FragmentId),
    /// A fragment without bytes can't be asked for, so it can't be paid for.
    #[error("fragment {0} has no bytes")]
    NoBytes(FragmentId),
    /// Something to be dropped is not there.
    #[error("fragment {0} is not in the set")]
    Missing(FragmentId),
    /// More than 2^64 - 1 bytes.
    #[error("the set has more bytes than can be counted")]
    TooLarge,
}

/// What becomes of a set.
#[derive(Debug, Clone, Default)]
pub struct SetChange {
    /// New fragments, and ones whose promise changes.
    pub put: BTreeMap<FragmentId, Fragment>,
    /// Fragments that go.
    pub dropped: BTreeSet<FragmentId>,
}

impl FragmentSet {
    /// The set of these fragments, in any order.
    ///
    /// # Errors
    /// [`SetError`] if they make no set.
    pub fn new(fragments: impl IntoIterator<Item = Fragment>) -> Result<FragmentSet, SetError> {
        let mut fragments: Vec<Fragment> = fragments.into_iter().collect();
        fragments.sort_unstable_by_key(|fragment| fragment.id);
        if let Some(twice) = fragments.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(SetError::Twice(twice[0].id));
        }
        FragmentSet { fragments: Vec::new(), levels: Vec::new() }.replaced(fragments)
    }

    /// The set after a change. This one stays as it is: the provider signs for the one and still proves the other.
    ///
    /// # Errors
    /// [`SetError`] if it makes no set.
    pub fn changed(&self, change: &SetChange) -> Result<FragmentSet, SetError> {
        if let Some(id) = change.dropped.iter().find(|id| self.get(id).is_none()) {
            return Err(SetError::Missing(*id));
        }
        let mut fragments = Vec::with_capacity(self.fragments.len() + change.put.len());
        let mut put = change.put.iter().map(|(id, fragment)| Fragment { id: *id, ..*fragment }).peekable();
        for fragment in &self.fragments {
            while let Some(new) = put.next_if(|new| new.id < fragment.id) {
                fragments.push(new);
            }
            match put.next_if(|new| new.id == fragment.id) {
                Some(new) => fragments.push(new),
                None if change.dropped.contains(&fragment.id) => {}
                None => fragments.push(*fragment),
            }
        }
        fragments.extend(put);
        self.replaced(fragments)
    }

    /// The tree over other fragments, which are sorted; what is at the same place in both is not hashed again.
    fn replaced(&self, fragments: Vec<Fragment>) -> Result<FragmentSet, SetError> {
        if let Some(empty) = fragments.iter().find(|fragment| fragment.length == 0) {
            return Err(SetError::NoBytes(empty.id));
        }
        let total = fragments.iter().try_fold(0u64, |sum, fragment| sum.checked_add(fragment.length));
        total.ok_or(SetError::TooLarge)?;
        let tags = Tags::new();
        let mut levels = Vec::new();
        let mut level = self.leaves(&tags, &fragments);
        for height in 0.. {
            if level.len() < 2 {
                break;
            }
            let old = (self.levels.get(height), self.levels.get(height + 1));
            let above = parents(&tags, &level, old.0.zip(old.1));
            levels.push(level);
            level = above;
        }
        if !level.is_empty() {
            levels.push(level);
        }
        Ok(FragmentSet { fragments, levels })
    }

    /// Leaves of fragments, by a walk along both sorted lists.
    fn leaves(&self, tags: &Tags, fragments: &[Fragment]) -> Vec<Node> {
        let known = self.levels.first().map_or(&[][..], Vec::as_slice);
        let mut before = self.fragments.iter().zip(known).peekable();
        fragments
            .iter()
            .map(|fragment| {
                while before.next_if(|(old, _)| old.id < fragment.id).is_some() {}
                match before.peek() {
                    Some((old, node)) if *old == fragment => **node,
                    _ => Node { hash: tags.leaf(fragment), sum: fragment.length },
                }
            })
            .collect()
    }

    /// What is signed for the set.
    #[must_use]
    pub fn root(&self) -> SetRoot {
        // No contract opens an empty set; a root for it is needed where a client drops the last fragment.
        let empty = Node { hash: [0; 32], sum: 0 };
        Tags::new().root(self.levels.last().map_or(&empty, |top| &top[0]))
    }

    /// Bytes of all fragments.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.levels.last().map_or(0, |top| top[0].sum)
    }

    /// The fragments, sorted by id.
    #[must_use]
    pub fn fragments(&self) -> &[Fragment] {
        &self.fragments
    }

    /// The fragment with this id.
    #[must_use]
    pub fn get(&self, id: &FragmentId) -> Option<&Fragment> {
        self.fragments.binary_search_by_key(id, |fragment| fragment.id).ok().map(|at| &self.fragments[at])
    }

    /// The way from the fragment that holds byte `offset` of the set to its root; `None` if the set has no such byte.
    #[must_use]
    pub fn path(&self, offset: u64) -> Option<SetPath> {
        if offset >= self.total() {
            return None;
        }
        let (mut at, mut rest, mut turns) = (0usize, offset, 0u64);
        let (mut hashes, mut sums) = (Vec::new(), Vec::new());
        for level in self.levels.iter().rev().skip(1) {
            at *= 2;
            // The last node of a level may have come up without a partner: then it is no turn and no sibling.
            let Some(right) = level.get(at + 1) else { continue };
            let left = &level[at];
            let sibling = if rest < left.sum {
                turns <<= 1;
                right
            } else {
                rest -= left.sum;
                at += 1;
                turns = turns << 1 | 1;
                left
            };
            hashes.push(sibling.hash);
            sums.push(sibling.sum);
        }
        hashes.reverse();
        sums.reverse();
        Some(SetPath { fragment: self.fragments[at], turns, hashes, sums })
    }

    /// The first fragment that `next` drops, shortens or promises for less although it was promised beyond `now`. An honest provider
    /// signs no such revision, whoever asks.
    #[must_use]
    pub fn broken_promise(&self, next: &FragmentSet, now: Epoch) -> Option<&Fragment> {
        self.fragments.iter().filter(|fragment| fragment.retain_until > now).find(|fragment| {
            next.get(&fragment.id).is_none_or(|kept| {
                kept.length != fragment.length || kept.retain_until < fragment.retain_until
            })
        })
    }
}

/// The nodes above a level. `old` are a level and the one above it, of which equal pairs are taken over.
fn parents(tags: &Tags, level: &[Node], old: Option<(&Vec<Node>, &Vec<Node>)>) -> Vec<Node> {
    level
        .chunks(2)
        .enumerate()
        .map(|(at, pair)| {
            let [left, right] = pair else { return pair[0] };
            if let Some((below, above)) = old
                && below.get(2 * at..2 * at + 2) == Some(pair)
            {
                return above[at];
            }
            // The total was found to have 64 bits, and no part of it is larger.
            Node { hash: tags.node(left, right), sum: left.sum + right.sum }
        })
        .collect()
}

/// One fragment of a set and its way to the root: `FragmentSets.Path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetPath {
    /// The fragment.
    pub fragment: Fragment,
    /// Bit i is set if at level i, counted from the leaf, the path is the right child.
    pub turns: u64,
    /// Hashes beside the path, from the leaf up.
    pub hashes: Vec<[u8; 32]>,
    /// Bytes below each of them.
    pub sums: Vec<u64>,
}

/// Why a path doesn't show a byte, as the contracts say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SetPathError {
    /// The leaf and its siblings don't lead to the root.
    #[error("the path does not lead to the set's root")]
    WrongSetPath,
    /// The offset lies outside the fragment that was shown.
    #[error("the byte lies in another fragment")]
    WrongFragment,
    /// Not as many sums as hashes, a turn above them, or more levels than a set can have.
    #[error("the path has the wrong length")]
    SetPathLength,
    /// The sums pass 2^64.
    #[error("the path's sums overflow")]
    Overflow,
}

impl SetPath {
    /// The offset in the fragment of byte `offset` of the set of `total` bytes with that root, if the path shows it.
    ///
    /// # Errors
    /// [`SetPathError`], for the same paths as in the contract.
    pub fn locate(&self, root: &SetRoot, total: u64, offset: u64) -> Result<u64, SetPathError> {
        let levels = self.hashes.len();
        if levels != self.sums.len() || levels > LEVELS_MAX || self.turns >> levels != 0 {
            return Err(SetPathError::SetPathLength);
        }
        let tags = Tags::new();
        let mut node = Node { hash: tags.leaf(&self.fragment), sum: self.fragment.length };
        let mut before = 0u64;
        for (level, (&hash, &sum)) in self.hashes.iter().zip(&self.sums).enumerate() {
            let sibling = Node { hash, sum };
            let sum = node.sum.checked_add(sum).ok_or(SetPathError::Overflow);
            let hash = if self.turns >> level & 1 == 1 {
                before = before.checked_add(sibling.sum).ok_or(SetPathError::Overflow)?;
                tags.node(&sibling, &node)
            } else {
                tags.node(&node, &sibling)
            };
            node = Node { hash, sum: sum? };
        }
        if node.sum != total || tags.root(&node) != *root {
            return Err(SetPathError::WrongSetPath);
        }
        match offset.checked_sub(before) {
            Some(inside) if inside < self.fragment.length => Ok(inside),
            _ => Err(SetPathError::WrongFragment),
        }
    }
}

#[cfg(test)]
mod tests;

//! Content-defined chunks, exactly as the open Xet scheme cuts and names them, so that Hugging Face's client and we
//! speak of the same chunks.
//!
//! A chunk ends where the gear hash of the last 64 bytes has its 16 highest bits clear, at the earliest after 8 KiB and
//! at the latest after 128 KiB. Bytes that can't influence the first allowed cut are skipped, not hashed. Checked
//! against vectors made with the reference crates (`testdata/xet-vectors.txt`).

use crate::ids::ChunkId;
use gearhash::Hasher;

/// Shortest chunk, but for the last of a file.
pub const CHUNK_BYTES_MIN: usize = 8 * 1024;
/// One byte in so many ends a chunk, once the minimum is passed. On random bytes the mean length is 62 KiB: the
/// minimum, and this as far as the maximum lets it.
pub const CHUNK_BYTES_TARGET: usize = 64 * 1024;
/// Longest chunk.
pub const CHUNK_BYTES_MAX: usize = 128 * 1024;

/// Bytes that the gear hash remembers: it shifts left by one bit a byte.
const WINDOW: usize = 64;
const MASK: u64 = ((CHUNK_BYTES_TARGET - 1) as u64) << 48;

const CHUNK_KEY: [u8; 32] = [
    102, 151, 245, 119, 91, 149, 80, 222, 49, 53, 203, 172, 165, 151, 24, 28, 157, 228, 33, 16, 155, 235, 43,
    88, 180, 208, 176, 75, 147, 173, 242, 41,
];
const NODE_KEY: [u8; 32] = [
    1, 126, 197, 199, 165, 71, 41, 150, 253, 148, 102, 102, 180, 138, 2, 230, 93, 221, 83, 111, 55, 199, 109,
    210, 248, 99, 82, 230, 74, 83, 113, 63,
];

/// Whether more bytes of the file may follow those at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// The file goes on: a cut is only certain where the hash or the maximum makes one.
    More,
    /// The bytes at hand are all that is left: the last chunk ends with them.
    End,
}

/// Length of the first chunk of `data`, which starts at a chunk's start. `None` when more bytes are needed to tell
/// (never with [`Tail::End`], unless `data` is empty).
#[must_use]
pub fn next_cut(data: &[u8], tail: Tail) -> Option<usize> {
    let end = data.len().min(CHUNK_BYTES_MAX);
    let mut at = (CHUNK_BYTES_MIN - WINDOW - 1).min(end);
    let mut hasher = Hasher::default();
    while let Some(step) = hasher.next_match(&data[at..end], MASK) {
        at += step;
        // A match before the minimum depends on fewer bytes than the window has, so it means nothing.
        if at >= CHUNK_BYTES_MIN {
            return Some(at);
        }
    }
    if end == CHUNK_BYTES_MAX {
        return Some(end);
    }
    match tail {
        Tail::End if end > 0 => Some(end),
        Tail::End | Tail::More => None,
    }
}

/// The id of a data chunk: Xet's chunk hash.
#[must_use]
pub fn chunk_id(chunk: &[u8]) -> ChunkId {
    ChunkId(*blake3::keyed_hash(&CHUNK_KEY, chunk).as_bytes())
}

/// Xet's hash of a whole file, fed with its chunks in order.
///
/// The reference merges a list of nodes into a shorter one until a single node is left. Where a group of nodes ends
/// depends on that group's hashes alone, so here every level merges as its nodes arrive and keeps at most one open
/// group: memory is logarithmic in the file's length, eight nodes for each of at most log3(chunks) levels.
#[derive(Debug, Default)]
pub struct FileHasher {
    levels: Vec<Level>,
    /// The text of the group being merged, kept for its memory.
    text: String,
}

/// One level of the aggregation: the group that is still open, and whether it ever closed one.
#[derive(Debug, Default)]
struct Level {
    open: Vec<(ChunkId, u64)>,
    closed: u64,
    only: Option<(ChunkId, u64)>,
}

/// Groups have at most this many members (twice the mean branching factor of 4, and one).
const GROUP_MAX: usize = 9;
/// A group may close from its third member on.
const GROUP_MIN: usize = 3;

impl FileHasher {
    /// Takes the next chunk's id and length.
    pub fn push(&mut self, id: ChunkId, len: u64) {
        self.push_level(0, (id, len));
    }

    fn push_level(&mut self, level: usize, node: (ChunkId, u64)) {
        if self.levels.len() == level {
            self.levels.push(Level::default());
        }
        let here = &mut self.levels[level];
        here.open.push(node);
        // The reference reads a hash as four little-endian words and takes the last one modulo 4.
        let natural = node.0.0[24].is_multiple_of(4);
        if here.open.len() == GROUP_MAX || (here.open.len() >= GROUP_MIN && natural) {
            let merged = merge(&here.open, &mut self.text);
            here.open.clear();
            self.close(level, merged);
        }
    }

    fn close(&mut self, level: usize, merged: (ChunkId, u64)) {
        let here = &mut self.levels[level];
        here.closed += 1;
        // The first node of a level is held back: if it stays the only one it is the root, and no level follows.
        match (here.closed, here.only.take()) {
            (1, _) => here.only = Some(merged),
            (_, Some(first)) => {
                self.push_level(level + 1, first);
                self.push_level(level + 1, merged);
            }
            (_, None) => self.push_level(level + 1, merged),
        }
    }

    /// The file's hash; all zeros for an empty file.
    #[must_use]
    pub fn finish(mut self) -> [u8; 32] {
        let mut level = 0;
        while level < self.levels.len() {
            let here = &mut self.levels[level];
            if here.closed == 0 && here.open.len() == 1 {
                return salted(here.open[0].0);
            }
            if !here.open.is_empty() {
                let merged = merge(&here.open, &mut self.text);
                here.open.clear();
                self.close(level, merged);
            }
            if let Some((root, _)) = self.levels[level].only {
                return salted(root);
            }
            level += 1;
        }
        [0; 32]
    }
}

fn salted(root: ChunkId) -> [u8; 32] {
    *blake3::keyed_hash(&[0; 32], root.as_bytes()).as_bytes()
}

fn merge(group: &[(ChunkId, u64)], text: &mut String) -> (ChunkId, u64) {
    text.clear();
    let mut total = 0;
    for (id, len) in group {
        push_xet_hex(text, &id.0);
        text.push_str(" : ");
        text.push_str(&len.to_string());
        text.push('\n');
        total += len;
    }
    (ChunkId(*blake3::keyed_hash(&NODE_KEY, text.as_bytes()).as_bytes()), total)
}

/// A hash as Xet writes it: four little-endian 64-bit words, each as 16 hex digits.
#[must_use]
pub fn xet_hex(hash: &[u8; 32]) -> String {
    let mut text = String::with_capacity(64);
    push_xet_hex(&mut text, hash);
    text
}

fn push_xet_hex(text: &mut String, hash: &[u8; 32]) {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    for byte in hash.chunks_exact(8).flat_map(|word| word.iter().rev()) {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, FileHasher, Tail, chunk_id, next_cut, xet_hex};

    /// The input of the committed vectors: a 64-bit LCG (Knuth's MMIX constants), one byte a step from its top.
    fn stream(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed;
        let mut step = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        (0..len).map(|_| step()).collect()
    }

    fn chunks(data: &[u8]) -> Vec<usize> {
        let (mut rest, mut lengths) = (data, Vec::new());
        while let Some(cut) = next_cut(rest, Tail::End) {
            lengths.push(cut);
            rest = &rest[cut..];
        }
        lengths
    }

    #[test]
    fn cuts_and_hashes_are_those_of_the_reference_crates() {
        let vectors = include_str!("../../../testdata/xet-vectors.txt");
        let mut checked = 0;
        for line in vectors.lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<&str> = line.split(' ').collect();
            let (kind, seed, len) = (fields[0], fields[1].parse().unwrap(), fields[2].parse().unwrap());
            let data = match kind {
                "random" => stream(seed, len),
                "zeros" => vec![0; len],
                _ => stream(seed, 1000).into_iter().cycle().take(len).collect(),
            };
            let (mut rest, mut hasher, mut first) = (&data[..], FileHasher::default(), String::from("-"));
            let lengths = chunks(&data);
            for len in &lengths {
                let id = chunk_id(&rest[..*len]);
                if first == "-" {
                    first = xet_hex(&id.0);
                }
                hasher.push(id, *len as u64);
                rest = &rest[*len..];
            }
            let lengths = lengths.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
            let lengths =
                if lengths.len() > 400 { format!("fnv:{:016x}", fnv(lengths.as_bytes())) } else { lengths };
            assert_eq!(fields[3..], [first, xet_hex(&hasher.finish()), lengths][..], "{kind} {seed} {len}");
            checked += 1;
        }
        assert!(checked > 20, "the vectors are there");
    }

    fn fnv(bytes: &[u8]) -> u64 {
        bytes
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
    }

    #[test]
    fn cuts_do_not_depend_on_how_much_is_read_ahead() {
        let data = stream(3, 700_000);
        let whole = next_cut(&data, Tail::End).unwrap();
        assert_eq!(next_cut(&data[..CHUNK_BYTES_MAX], Tail::More), Some(whole));
        assert_eq!(next_cut(&data[..CHUNK_BYTES_MIN / 2], Tail::More), None);
        assert_eq!(next_cut(&[], Tail::End), None);
        assert_eq!(next_cut(&[1], Tail::End), Some(1));
    }

    #[test]
    fn inserted_bytes_change_few_chunks() {
        let old = stream(9, 4_000_000);
        let mut new = old.clone();
        new.splice(1_400_000..1_400_000, *b"eleven byte");
        let ids = |data: &[u8]| {
            let mut rest = data;
            let mut ids = std::collections::BTreeSet::new();
            while let Some(cut) = next_cut(rest, Tail::End) {
                ids.insert(chunk_id(&rest[..cut]));
                rest = &rest[cut..];
            }
            ids
        };
        assert!(ids(&new).difference(&ids(&old)).count() <= 2);
    }
}

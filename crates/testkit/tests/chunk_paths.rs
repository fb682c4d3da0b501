//! The vectors by which the contracts' BLAKE3 verifier is judged: made by the `blake3` crate, which shares nothing with it.
//!
//! They are committed, so that the contracts' tests need no Rust. Here they are made again and compared; after a change of what is
//! asked for, `cargo test -p seedbank-testkit --test chunk_paths -- --ignored` writes them anew.

use blake3::hazmat::{HasherExt, left_subtree_len};
use std::fmt::Write as _;
use std::path::PathBuf;

const CHUNK: usize = 1024;
const MIB: usize = 1024 * 1024;

/// Around every border: words, blocks, chunks, powers of two chunks; lengths in between; and the largest fragments in use.
const LENGTHS: [usize; 43] = [
    1,
    3,
    4,
    31,
    32,
    33,
    63,
    64,
    65,
    95,
    96,
    97,
    127,
    128,
    129,
    191,
    1_000,
    1_023,
    1_024,
    1_025,
    2_047,
    2_048,
    2_049,
    3_072,
    3_073,
    4_096,
    5_197,
    7 * CHUNK,
    8 * CHUNK,
    8 * CHUNK + 1,
    31 * CHUNK + 100,
    64 * CHUNK,
    100_000,
    MIB - 1,
    MIB + 1,
    5_000_000,
    5_000_001,
    16 * MIB - 64,
    16 * MIB,
    16 * MIB + 1,
    50_000_000,
    64 * MIB - 1,
    64 * MIB,
];

/// The input of BLAKE3's own test vectors: a period that is no power of two, so that no two neighbouring blocks are alike.
fn input(length: usize) -> Vec<u8> {
    (0u8..251).cycle().take(length).collect()
}

/// First, second, middle, last but one and last chunk, as far as they differ.
fn positions(length: usize) -> Vec<usize> {
    let chunks = length.div_ceil(CHUNK);
    let mut found = vec![0, 1, chunks / 2, chunks.saturating_sub(2), chunks - 1];
    found.retain(|index| *index < chunks);
    found.sort_unstable();
    found.dedup();
    found
}

/// Chaining values beside the way from a chunk up to the root.
fn siblings(data: &[u8], index: usize) -> Vec<[u8; 32]> {
    let (mut from, mut to) = (0, data.len());
    let mut beside = Vec::new();
    while to - from > CHUNK {
        let length = u64::try_from(to - from).expect("a usize fits");
        let middle = from + usize::try_from(left_subtree_len(length)).expect("no longer than the whole");
        let (other_from, other_to) = if index * CHUNK < middle {
            let other = (middle, to);
            to = middle;
            other
        } else {
            let other = (from, middle);
            from = middle;
            other
        };
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(u64::try_from(other_from).expect("a usize fits"));
        beside.push(hasher.update(&data[other_from..other_to]).finalize_non_root());
    }
    beside.reverse();
    beside
}

/// One vector a line, so that a change shows what changed.
fn vectors() -> String {
    let hex = |bytes: &[u8; 32]| format!("\"0x{}\"", blake3::Hash::from_bytes(*bytes).to_hex());
    let mut lines = Vec::new();
    for length in LENGTHS {
        let data = input(length);
        let root = hex(blake3::hash(&data).as_bytes());
        for index in positions(length) {
            let siblings: Vec<String> = siblings(&data, index).iter().map(hex).collect();
            let mut line = String::new();
            write!(
                line,
                "{{\"index\":{index},\"length\":{length},\"root\":{root},\"siblings\":[{}]}}",
                siblings.join(",")
            )
            .expect("a String takes all");
            lines.push(line);
        }
    }
    format!("{{\"vectors\":[\n{}\n]}}\n", lines.join(",\n"))
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../contracts/test/vectors/blake3-paths.json")
}

#[test]
fn committed_vectors_are_what_the_blake3_crate_says() {
    let committed = std::fs::read_to_string(file()).expect("the vectors are committed");
    assert!(committed == vectors(), "the vectors differ: write them anew if what is asked for changed");
}

#[test]
#[ignore = "writes the committed vectors"]
fn write_the_vectors() {
    std::fs::write(file(), vectors()).expect("the folder is there");
}

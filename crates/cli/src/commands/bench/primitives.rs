//! How fast one core does each stage of the data path, beside the raw primitive that the stage is made of.
//!
//! Rates are 10^9 input bytes per second, the best of many short rounds: what another process takes meanwhile makes
//! some rounds slow, not the best one.

use super::data::Noise;
use super::meter::float;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest;
use seedbank_erasure::{Encoder, Kernel, Scheme};
use seedbank_formats::DatasetId;
use seedbank_formats::chunking::{Tail, chunk_id, next_cut};
use seedbank_formats::keys::{DatasetSecret, KeyEpoch, SealKeys};
use seedbank_formats::seal::{Compression, Item, ItemKind, Opener, Sealer};
use seedbank_formats::slice::FragmentHasher;
use serde::Serialize;
use std::hint::black_box;
use std::time::{Duration, Instant};
use tokio::task::{block_in_place, yield_now};

const CHUNK_BYTES: usize = 64 * 1024;
const FRAGMENT_BYTES: usize = 8 << 20;
const SEGMENT_BYTES: usize = 64 << 20;

/// Each rate is looked for so long.
const PATIENCE: Duration = Duration::from_millis(300);
/// A round handles about so many bytes: milliseconds, long beside the clock and short beside a time slice.
const ROUND_BYTES: usize = 8 << 20;

/// 10^9 bytes per second of one core.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Rates {
    /// The erasure kernel that this processor runs.
    pub(crate) kernel: &'static str,
    /// Copying 64 MiB that no cache holds.
    pub(crate) memcpy: f64,
    /// Raw SHA-256, as each whole file gets it.
    pub(crate) sha256: f64,
    /// Raw keyed BLAKE3 of 64 KiB.
    pub(crate) blake3_keyed: f64,
    /// Raw AES-256-GCM of 64 KiB.
    pub(crate) aes_256_gcm_seal: f64,
    /// Raw AES-256-GCM of 64 KiB, opened.
    pub(crate) aes_256_gcm_open: f64,
    /// Stage: finding chunks with the gear hash.
    pub(crate) chunk: f64,
    /// Stage: a chunk's id.
    pub(crate) chunk_id: f64,
    /// Stage: sealing a chunk that does not compress, with the attempt to.
    pub(crate) seal: f64,
    /// Stage: opening a chunk and checking its id.
    pub(crate) open: f64,
    /// Stage: all parity of a segment, per segment byte.
    pub(crate) encode: f64,
    /// Stage: a fragment's id and outboard, per fragment byte.
    pub(crate) fragment_hash: f64,
    /// Stages together: parity, ids and outboards of a segment's fragments in one pass, per segment byte.
    pub(crate) code: f64,
}

/// Measures all of them, one after the other, on one thread.
pub(crate) async fn measure(scheme: Scheme) -> Rates {
    let mut stream = vec![0; SEGMENT_BYTES];
    block_in_place(|| Noise::new(1).fill(&mut stream));
    let chunk = stream[..CHUNK_BYTES].to_vec();
    let mut target = vec![0; SEGMENT_BYTES];
    let memcpy = best(SEGMENT_BYTES, || black_box(&mut target).copy_from_slice(black_box(&stream))).await;
    drop(target);
    let piece = &stream[..ROUND_BYTES];
    let sha256 = best(ROUND_BYTES, || {
        black_box(digest::digest(&digest::SHA256, black_box(piece)));
    });
    let sha256 = sha256.await;
    let cut = best(ROUND_BYTES, || {
        let mut rest = black_box(piece);
        while let Some(cut) = next_cut(rest, Tail::End) {
            rest = &rest[cut..];
        }
    });
    let cut = cut.await;
    let [blake3_keyed, id, aes_256_gcm_seal, aes_256_gcm_open] = raw_chunk(&chunk).await;
    let [seal, open] = sealing(&chunk).await;
    let [encode, fragment_hash, code] = coding(scheme, stream).await;
    Rates {
        kernel: Kernel::best().name(),
        memcpy,
        sha256,
        blake3_keyed,
        aes_256_gcm_seal,
        aes_256_gcm_open,
        chunk: cut,
        chunk_id: id,
        seal,
        open,
        encode,
        fragment_hash,
        code,
    }
}

async fn raw_chunk(chunk: &[u8]) -> [f64; 4] {
    let blake3 = best_of_chunks(|| {
        black_box(blake3::keyed_hash(&[7; 32], black_box(chunk)));
    });
    let blake3 = blake3.await;
    let id = best_of_chunks(|| {
        black_box(chunk_id(black_box(chunk)));
    });
    let id = id.await;
    let key = UnboundKey::new(&AES_256_GCM, &[3; 32]).expect("AES-256 takes 32 bytes");
    let key = LessSafeKey::new(key);
    let nonce = || Nonce::assume_unique_for_key([5; 12]);
    let mut work = chunk.to_vec();
    let seal = best_of_chunks(|| {
        let sealed = key.seal_in_place_separate_tag(nonce(), Aad::empty(), black_box(&mut work));
        let _tag = black_box(sealed.expect("64 KiB can be sealed"));
    });
    let seal = seal.await;
    let mut sealed = chunk.to_vec();
    key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed).expect("64 KiB can be sealed");
    let mut plain = vec![0; chunk.len()];
    let (text, tag) = sealed.split_at(chunk.len());
    let open = best_of_chunks(|| {
        let opened = key.open_separate_gather(nonce(), Aad::empty(), black_box(text), tag, &mut plain);
        opened.expect("what was just sealed opens");
    });
    [blake3, id, seal, open.await]
}

async fn sealing(chunk: &[u8]) -> [f64; 2] {
    let keys = SealKeys::new(DatasetId([1; 32]), KeyEpoch(0), &DatasetSecret::new([2; 32]));
    let id = chunk_id(chunk);
    let (mut sealer, mut out) = (Sealer::new(), Vec::with_capacity(2 * chunk.len()));
    let seal = best_of_chunks(|| {
        out.clear();
        sealer.seal(&keys, ItemKind::Chunk, &id, black_box(chunk), Compression::Auto, &mut out);
    });
    let seal = seal.await;
    out.clear();
    let sealed = sealer.seal(&keys, ItemKind::Chunk, &id, chunk, Compression::Auto, &mut out);
    let plain_len = u32::try_from(chunk.len()).expect("64 KiB");
    let item = Item {
        kind: ItemKind::Chunk,
        id,
        codec: sealed.codec,
        offset: 0,
        sealed_len: sealed.sealed_len,
        plain_len,
    };
    let (mut opener, mut plain) = (Opener::new(), Vec::with_capacity(chunk.len()));
    let open = best_of_chunks(|| {
        plain.clear();
        opener.open(&keys, &item, black_box(&out), &mut plain).expect("what was just sealed opens");
    });
    [seal, open.await]
}

async fn coding(scheme: Scheme, mut segment: Vec<u8>) -> [f64; 3] {
    segment.resize(scheme.padded_len(segment.len()), 0);
    let len = segment.len();
    let encoder = Encoder::new(scheme);
    let mut parity = vec![0; scheme.fragment_len(len) * scheme.parity()];
    let encode = best(len, || {
        encoder.encode_segment(black_box(&segment), &mut parity, |_, _, _| {}).expect("the lengths fit");
    });
    let encode = encode.await;
    let fragment = &segment[..FRAGMENT_BYTES];
    let hash = best(FRAGMENT_BYTES, || {
        let mut hasher = FragmentHasher::default();
        hasher.update(black_box(fragment));
        drop(black_box(hasher.finish()));
    });
    let hash = hash.await;
    let code = best(len, || {
        let mut hashers: Vec<FragmentHasher> =
            (0..scheme.total()).map(|_| FragmentHasher::default()).collect();
        let coded = encoder.encode_segment(black_box(&segment), &mut parity, |fragment, _, columns| {
            hashers[fragment].update(columns);
        });
        coded.expect("the lengths fit");
        hashers.into_iter().for_each(|hasher| drop(black_box(hasher.finish())));
    });
    [encode, hash, code.await]
}

async fn best_of_chunks(mut round: impl FnMut()) -> f64 {
    best(ROUND_BYTES, || (0..ROUND_BYTES / CHUNK_BYTES).for_each(|_| round())).await
}

/// The best rate of a round that handles so many bytes. Gives way between rounds, so that Ctrl-C is heard.
async fn best(bytes: usize, mut round: impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut shortest = Duration::MAX;
    while shortest == Duration::MAX || begun.elapsed() < PATIENCE {
        let at = Instant::now();
        block_in_place(&mut round);
        shortest = shortest.min(at.elapsed());
        yield_now().await;
    }
    float(bytes as u64) / (shortest.as_secs_f64() * 1e9).max(1.0)
}

//! The client's stages: from a file to fragments, and back.

use super::Measured;
use crate::commands::bench::data::Noise;
use crate::commands::bench::references::Reference;
use crate::commands::bench::timing::{CHUNK_BYTES, PIECE_BYTES, best, best_of_chunks};
use anyhow::Context;
use aws_lc_rs::digest;
use seedbank_client::restore::{Destination, RestoreOptions};
use seedbank_client::scan::{ReadStableError, read_stable};
use seedbank_erasure::{Decoder, Encoder, Scheme};
use seedbank_formats::chunking::{CHUNK_BYTES_MAX, Tail, chunk_id, next_cut};
use seedbank_formats::keys::{DatasetSecret, KeyEpoch, SealKeys};
use seedbank_formats::path::TreePath;
use seedbank_formats::place::ChunkRef;
use seedbank_formats::seal::{Compression, Item, ItemKind, Opener, Sealer};
use seedbank_formats::segment::{SEGMENT_BUFFER_BYTES, SegmentBuilder};
use seedbank_formats::slice::FragmentHasher;
use seedbank_formats::tree::{Content, Entry, TreeBuilder};
use seedbank_formats::{ChunkId, DatasetId, SegmentNumber, Sha256};
use std::hint::black_box;
use std::path::Path;
use tokio::task::block_in_place;

const SEGMENT_BYTES: usize = 64 << 20;
const ROUND_BYTES: usize = 8 << 20;
/// What a push reads of a file at once.
const READ_BYTES: usize = 8 * CHUNK_BYTES_MAX;
/// Entries of a tree whose pages are built: a few hundred pages.
const TREE_ENTRIES: u32 = 20_000;

pub(super) async fn measure(scheme: Scheme, folder: &Path) -> anyhow::Result<Vec<Measured>> {
    let mut stream = vec![0; SEGMENT_BYTES];
    block_in_place(|| Noise::new(2).fill(&mut stream));
    let mut stages = vec![reading(folder, &stream).await?];
    stages.extend(hashing(&stream[..ROUND_BYTES]).await);
    stages.extend(sealing(&stream[..CHUNK_BYTES]).await);
    stages.push(copying(&stream).await);
    stages.extend(coding(scheme, stream.clone()).await);
    stages.push(pages().await);
    stages.push(writing(folder, &stream[..ROUND_BYTES]).await?);
    Ok(stages)
}

fn push(stage: &'static str, nanoseconds: f64, made_of: Vec<(Reference, f64)>) -> Measured {
    Measured { path: "push", stage, per: "file", nanoseconds, made_of }
}

fn pull(stage: &'static str, nanoseconds: f64, made_of: Vec<(Reference, f64)>) -> Measured {
    Measured { path: "pull", stage, per: "file", nanoseconds, made_of }
}

async fn reading(folder: &Path, stream: &[u8]) -> anyhow::Result<Measured> {
    let path = folder.join("read");
    std::fs::write(&path, stream).with_context(|| format!("writing {}", path.display()))?;
    let mut buffer = vec![0; READ_BYTES];
    let mut read_once = || -> Result<(), ReadStableError> {
        let mut file = read_stable(&path)?;
        while file.fill(black_box(&mut buffer))? == READ_BYTES {}
        file.finish().map(|_stamp| ())
    };
    let mut failed = None;
    let read = best(stream.len(), || failed = failed.take().or(read_once().err())).await;
    failed.map_or(Ok(()), Err)?;
    std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    Ok(push("scan and read", read, vec![(Reference::FileRead, 1.0)]))
}

async fn hashing(piece: &[u8]) -> [Measured; 3] {
    let cut = best(piece.len(), || {
        let mut rest = black_box(piece);
        while let Some(cut) = next_cut(rest, Tail::End) {
            rest = &rest[cut..];
        }
    });
    let cut = cut.await;
    let chunk = &piece[..CHUNK_BYTES];
    let id = best_of_chunks(|| {
        black_box(chunk_id(black_box(chunk)));
    });
    let id = id.await;
    let sha256 = best(piece.len(), || {
        let mut context = digest::Context::new(&digest::SHA256);
        piece.chunks(READ_BYTES).for_each(|read| context.update(black_box(read)));
        black_box(context.finish());
    });
    [
        push("find chunks", cut, vec![(Reference::GearHash, 1.0)]),
        push("chunk id", id, vec![(Reference::Blake3Keyed, 1.0)]),
        push("file SHA-256", sha256.await, vec![(Reference::Sha256, 1.0)]),
    ]
}

fn keys() -> SealKeys {
    SealKeys::new(DatasetId([1; 32]), KeyEpoch(0), &DatasetSecret::new([2; 32]))
}

/// A chunk as it lies in a segment, and what a footer says of it.
fn sealed_item(keys: &SealKeys, chunk: &[u8], compression: Compression) -> (Item, Vec<u8>) {
    let (id, mut bytes) = (chunk_id(chunk), Vec::new());
    let sealed = Sealer::new().seal(keys, ItemKind::Chunk, &id, chunk, compression, &mut bytes);
    let item = Item {
        kind: ItemKind::Chunk,
        id,
        codec: sealed.codec,
        offset: 0,
        sealed_len: sealed.sealed_len,
        plain_len: u32::try_from(chunk.len()).expect("64 KiB"),
    };
    (item, bytes)
}

async fn sealing(chunk: &[u8]) -> [Measured; 3] {
    let (keys, id) = (keys(), chunk_id(chunk));
    let (mut sealer, mut out) = (Sealer::new(), Vec::with_capacity(2 * chunk.len()));
    let mut seal = async |compression| {
        let sealed = best_of_chunks(|| {
            out.clear();
            sealer.seal(&keys, ItemKind::Chunk, &id, black_box(chunk), compression, &mut out);
        });
        sealed.await
    };
    let plain = seal(Compression::Off).await;
    let tried = seal(Compression::Auto).await;
    let (item, sealed) = sealed_item(&keys, chunk, Compression::Auto);
    let (mut opener, mut plain_out) = (Opener::new(), Vec::with_capacity(chunk.len()));
    let open = best_of_chunks(|| {
        plain_out.clear();
        opener.open(&keys, &item, black_box(&sealed), &mut plain_out).expect("what was just sealed opens");
    });
    // A difference of two best times: below nothing is noise.
    let attempt = (tried - plain).max(1e-6);
    [
        push("attempt to compress", attempt, vec![(Reference::Lz4Probe, 1.0)]),
        push("nonce and seal", plain, vec![(Reference::Aes256GcmSeal, 1.0)]),
        pull(
            "open and check id",
            open.await,
            vec![(Reference::Aes256GcmOpen, 1.0), (Reference::Blake3Keyed, 1.0)],
        ),
    ]
}

/// Sealed chunks into a whole segment, footer and all.
async fn copying(stream: &[u8]) -> Measured {
    let keys = keys();
    let chunk = &stream[..CHUNK_BYTES];
    let (item, sealed) = sealed_item(&keys, chunk, Compression::Off);
    let count = SEGMENT_BYTES / CHUNK_BYTES - 8;
    let mut buffer = Vec::with_capacity(SEGMENT_BUFFER_BYTES);
    let copied = best(count * CHUNK_BYTES, || {
        let mut builder = SegmentBuilder::new(&keys, SegmentNumber(1), std::mem::take(&mut buffer));
        for _ in 0..count {
            builder.push_sealed(&item, black_box(&sealed)).expect("it has room for them");
        }
        buffer = builder.finish().bytes;
    });
    push("copy into segment", copied.await, vec![(Reference::Memcpy, 1.0)])
}

async fn coding(scheme: Scheme, mut segment: Vec<u8>) -> [Measured; 2] {
    segment.resize(scheme.padded_len(segment.len()), 0);
    let len = segment.len();
    let encoder = Encoder::new(scheme);
    let mut parity = vec![0; scheme.fragment_len(len) * scheme.parity()];
    let code = best(len, || {
        let mut hashers: Vec<FragmentHasher> =
            (0..scheme.total()).map(|_| FragmentHasher::default()).collect();
        let coded = encoder.encode_segment(black_box(&segment), &mut parity, |fragment, _, columns| {
            hashers[fragment].update(columns);
        });
        coded.expect("the lengths fit");
        hashers.into_iter().for_each(|hasher| drop(black_box(hasher.finish())));
    });
    let code = code.await;
    let fragment_len = scheme.fragment_len(len);
    let available: Vec<usize> = (1..=scheme.data()).collect();
    let decoder = Decoder::new(scheme, &available, &[0]).expect("a scheme has parity to decode from");
    let data = segment.chunks(fragment_len).chain(parity.chunks(fragment_len));
    let sources: Vec<&[u8]> = data.skip(1).take(scheme.data()).collect();
    let mut lost = vec![0; fragment_len];
    let decode = best(fragment_len, || {
        decoder.decode(black_box(&sources), &mut [&mut lost]).expect("the lengths fit");
    });
    let expansion = super::Times::Expansion.of(scheme);
    let parity_and_ids = vec![(Reference::ReedSolomon, 1.0), (Reference::Blake3, expansion)];
    [
        Measured { per: "segment", ..push("parity and fragment ids", code, parity_and_ids) },
        Measured {
            per: "rebuilt",
            ..pull("decode a lost fragment", decode.await, vec![(Reference::ReedSolomonRow, 1.0)])
        },
    ]
}

/// A tree of small files, by the bytes of its pages.
async fn pages() -> Measured {
    let entries: Vec<(TreePath, Entry)> = (0..TREE_ENTRIES)
        .map(|number| {
            let path = TreePath::parse(&format!("part-{:04}/{number:06}.bin", number / 100));
            let mut id = [0; 32];
            Noise::new(u64::from(number)).fill(&mut id);
            let chunks = vec![ChunkRef { id: ChunkId(id), len: 2400 }];
            let content = Content::Chunks(chunks);
            let entry = Entry::File { executable: false, size: 2400, sha256: Sha256(id), content };
            (path.expect("digits are a path"), entry)
        })
        .collect();
    let build = || {
        let (mut bytes, mut builder) = (0, TreeBuilder::new());
        let mut sink = |_, page: Vec<u8>| bytes += black_box(page).len();
        for (path, entry) in &entries {
            builder.push(path, entry, &mut sink).expect("the paths are in order");
        }
        let _root = builder.finish(&mut sink);
        bytes
    };
    let nanoseconds = best(build(), build).await;
    Measured {
        per: "pages",
        ..push("build metadata pages", nanoseconds, vec![(Reference::Blake3Keyed, 1.0)])
    }
}

async fn writing(folder: &Path, piece: &[u8]) -> anyhow::Result<Measured> {
    let destination = Destination::open(&folder.join("write"), RestoreOptions::default())?;
    let mut number = 0u32;
    let mut failed = None;
    let write = best(piece.len(), || {
        number += 1;
        let written = || -> anyhow::Result<()> {
            let mut part = destination.part_file(&TreePath::parse(&format!("file-{number}"))?)?;
            for bytes in piece.chunks(PIECE_BYTES) {
                part.append(black_box(bytes))?;
            }
            Ok(part.finish(false)?)
        };
        failed = failed.take().or(written().err());
    });
    let write = write.await;
    failed.map_or(Ok(()), Err)?;
    Ok(pull("write file", write, vec![(Reference::FileWrite, 1.0)]))
}

//! Rates of what every byte passes on its way to a fragment and back, each beside the bare primitive in the same run.
//!
//! Chunk-sized stages work on 64 KiB that lie in the cache, as they do when one chunk passes all stages in turn; rates
//! count plaintext bytes. `noise` does not compress, `text` is a made-up table that LZ4 shortens about fourfold.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use seedbank_formats::chunking::{FileHasher, Tail, chunk_id, next_cut};
use seedbank_formats::keys::{DatasetSecret, KeyEpoch, SealKeys};
use seedbank_formats::seal::{Compression, Item, ItemKind, Opener, Sealer};
use seedbank_formats::segment::{Footer, SEGMENT_BUFFER_BYTES, SegmentBuilder};
use seedbank_formats::slice::FragmentHasher;
use seedbank_formats::{ChunkId, DatasetId, SegmentNumber};
use std::hint::black_box;
use std::time::Duration;

const CHUNK_BYTES: usize = 64 * 1024;
const STREAM_BYTES: usize = 16 << 20;
const FRAGMENT_BYTES: usize = 8 << 20;

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// Rows of a table whose numbers are noise.
fn text(len: usize) -> Vec<u8> {
    let numbers = noise(len / 8);
    let rows = numbers.chunks_exact(4).flat_map(|row| {
        format!(
            "Adelie,Torgersen,{}.{},{},female,2007\n",
            30 + row[0] % 20,
            row[1] % 10,
            3000 + i32::from(row[2])
        )
        .into_bytes()
    });
    rows.collect::<Vec<u8>>().into_iter().cycle().take(len).collect()
}

fn keys() -> SealKeys {
    SealKeys::new(DatasetId([1; 32]), KeyEpoch(0), &DatasetSecret::new([2; 32]))
}

fn group<'a>(criterion: &'a mut Criterion, name: &str, bytes: usize) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::BytesDecimal(u64::try_from(bytes).expect("lengths fit 64 bits")));
    group
}

fn copy(criterion: &mut Criterion) {
    for (name, len) in [("64 KiB", CHUNK_BYTES), ("64 MiB", 64 << 20)] {
        let (source, mut target) = (vec![1_u8; len], vec![0_u8; len]);
        group(criterion, "memcpy", len).bench_function(name, |bencher| {
            bencher.iter(|| black_box(&mut target).copy_from_slice(black_box(&source)));
        });
    }
}

fn chunk(criterion: &mut Criterion) {
    for (name, stream) in [("noise", noise(STREAM_BYTES)), ("text", text(STREAM_BYTES))] {
        let mut group = group(criterion, &format!("chunk {name}"), STREAM_BYTES);
        group.bench_function("next_cut", |bencher| {
            bencher.iter(|| {
                let mut rest = black_box(&stream[..]);
                while let Some(cut) = next_cut(rest, Tail::End) {
                    rest = &rest[cut..];
                }
            });
        });
        group.bench_function("raw gearhash", |bencher| {
            bencher.iter(|| {
                let (mut rest, mut hasher) = (black_box(&stream[..]), gearhash::Hasher::default());
                while let Some(step) = hasher.next_match(rest, 0xffff << 48) {
                    rest = &rest[step..];
                }
            });
        });
    }
}

fn hash(criterion: &mut Criterion) {
    let chunk = noise(CHUNK_BYTES);
    let mut chunks = group(criterion, "hash 64 KiB", CHUNK_BYTES);
    chunks.bench_function("chunk_id", |bencher| bencher.iter(|| chunk_id(black_box(&chunk))));
    chunks.bench_function("raw keyed blake3", |bencher| {
        bencher.iter(|| blake3::keyed_hash(&[7; 32], black_box(&chunk)));
    });
    chunks.bench_function("file hash of its chunk", |bencher| {
        let (mut hasher, id) = (FileHasher::default(), ChunkId([4; 32]));
        bencher.iter(|| hasher.push(black_box(id), 65_536));
    });
    chunks.bench_function("sha-256", |bencher| {
        bencher.iter(|| digest::digest(&digest::SHA256, black_box(&chunk)));
    });
    chunks.finish();

    let fragment = noise(FRAGMENT_BYTES);
    let mut fragments = group(criterion, "hash 8 MiB", FRAGMENT_BYTES);
    fragments.bench_function("fragment outboard", |bencher| {
        bencher.iter(|| {
            let mut hasher = FragmentHasher::default();
            hasher.update(black_box(&fragment));
            hasher.finish()
        });
    });
    fragments.bench_function("raw blake3", |bencher| bencher.iter(|| blake3::hash(black_box(&fragment))));
}

fn seal(criterion: &mut Criterion) {
    let mut group = group(criterion, "seal 64 KiB", CHUNK_BYTES);
    let mut out = Vec::with_capacity(2 * CHUNK_BYTES);
    for (name, plain) in [("noise", noise(CHUNK_BYTES)), ("text", text(CHUNK_BYTES))] {
        for (how, compression) in [
            ("off", Compression::Off),
            ("auto", Compression::Auto),
            ("zstd 1", Compression::Zstd { level: 1 }),
        ] {
            let (mut sealer, id, keys) = (Sealer::new(), chunk_id(&plain), keys());
            group.bench_function(format!("{how}, {name}"), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    sealer.seal(&keys, ItemKind::Chunk, &id, black_box(&plain), compression, &mut out)
                });
            });
        }
    }
    let key = raw_key();
    let mut bytes = noise(CHUNK_BYTES);
    group.bench_function("raw aes-256-gcm", |bencher| {
        bencher.iter(|| {
            let nonce = Nonce::assume_unique_for_key([0; 12]);
            key.seal_in_place_separate_tag(nonce, Aad::empty(), black_box(&mut bytes)).expect("it seals")
        });
    });
}

fn raw_key() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[3; 32]).expect("a key has 32 bytes"))
}

fn open(criterion: &mut Criterion) {
    let mut group = group(criterion, "open 64 KiB", CHUNK_BYTES);
    let keys = keys();
    let mut plain_out = Vec::with_capacity(2 * CHUNK_BYTES);
    for (name, plain, compression) in [
        ("raw, noise", noise(CHUNK_BYTES), Compression::Off),
        ("lz4, text", text(CHUNK_BYTES), Compression::Auto),
        ("zstd 1, text", text(CHUNK_BYTES), Compression::Zstd { level: 1 }),
    ] {
        let (kind, id, mut bytes) = (ItemKind::Chunk, chunk_id(&plain), Vec::new());
        let sealed = Sealer::new().seal(&keys, kind, &id, &plain, compression, &mut bytes);
        let plain_len = u32::try_from(plain.len()).expect("a chunk is short");
        let item =
            Item { kind, id, codec: sealed.codec, offset: 0, sealed_len: sealed.sealed_len, plain_len };
        let mut opener = Opener::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                plain_out.clear();
                opener.open(&keys, &item, black_box(&bytes), &mut plain_out).expect("it opens");
            });
        });
    }
    let (key, mut sealed) = (raw_key(), noise(CHUNK_BYTES));
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), &mut sealed)
        .expect("it seals");
    plain_out.resize(CHUNK_BYTES, 0);
    group.bench_function("raw aes-256-gcm", |bencher| {
        bencher.iter(|| {
            let nonce = Nonce::assume_unique_for_key([0; 12]);
            key.open_separate_gather(nonce, Aad::empty(), black_box(&sealed), tag.as_ref(), &mut plain_out)
                .expect("it opens");
        });
    });
}

fn segment(criterion: &mut Criterion) {
    let stream = noise(60 << 20);
    let mut whole = group(criterion, "segment of 60 MiB", stream.len());
    let (keys, number) = (keys(), SegmentNumber(1));
    let mut buffer = Some(Vec::with_capacity(SEGMENT_BUFFER_BYTES));
    let mut build = || {
        let recycled = buffer.take().expect("it was put back");
        let mut builder = SegmentBuilder::new(&keys, number, recycled);
        for chunk in stream.chunks(CHUNK_BYTES) {
            builder
                .push(ItemKind::Chunk, &ChunkId([5; 32]), chunk, Compression::Auto)
                .expect("60 MiB fit a segment");
        }
        let segment = builder.finish();
        buffer = Some(segment.bytes);
    };
    whole.bench_function("build from noise", |bencher| bencher.iter(&mut build));
    whole.finish();

    let mut builder = SegmentBuilder::new(&keys, number, Vec::new());
    for chunk in stream.chunks(CHUNK_BYTES) {
        builder
            .push(ItemKind::Chunk, &chunk_id(chunk), chunk, Compression::Off)
            .expect("60 MiB fit a segment");
    }
    let segment = builder.finish();
    let footer_len = usize::try_from(segment.footer_len).expect("a footer is short");
    let footer = &segment.bytes[segment.bytes.len() - footer_len..];
    group(criterion, "footer of 960 items", footer_len).bench_function("open", |bencher| {
        bencher
            .iter(|| Footer::open(&keys, number, segment.sealed_len(), black_box(footer)).expect("it opens"));
    });
}

criterion_group!(benches, copy, chunk, hash, seal, open, segment);
criterion_main!(benches);

//! Encoding and decoding rates of every kernel, beside copying the same bytes in the same run.
//!
//! Encoding counts segment bytes. Decoding rebuilds one lost data fragment from the `k - 1` other data fragments
//! and one parity fragment, and counts the bytes of those `k` sources, which is the segment again: divide by `k`
//! for the rate of wanted bytes. The segment is cold, as a segment that was just received or sealed is.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use seedbank_erasure::{Decoder, Encoder, Kernel, Scheme};
use std::hint::black_box;
use std::time::Duration;

const SCHEMES: [(usize, usize); 4] = [(4, 8), (10, 20), (20, 40), (29, 80)];

const SEGMENT_BYTES: usize = 64 << 20;

/// The scalar kernel needs seconds for a whole segment, and memory is not what limits it.
const SEGMENT_BYTES_SCALAR: usize = 1 << 20;

fn segment(scheme: Scheme, kernel: Kernel) -> Vec<u8> {
    let bytes = if kernel.name() == "scalar" { SEGMENT_BYTES_SCALAR } else { SEGMENT_BYTES };
    (0..=u8::MAX).cycle().take(scheme.padded_len(bytes)).collect()
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group
}

fn bytes(slice: &[u8]) -> Throughput {
    Throughput::BytesDecimal(u64::try_from(slice.len()).expect("lengths fit 64 bits"))
}

fn memcpy(criterion: &mut Criterion) {
    let mut group = group(criterion, "memcpy");
    let source = vec![1_u8; SEGMENT_BYTES];
    let mut target = vec![0_u8; SEGMENT_BYTES];
    group.throughput(bytes(&source));
    group.bench_function("64 MiB", |bencher| {
        bencher.iter(|| black_box(&mut target).copy_from_slice(black_box(&source)));
    });
}

fn encode(criterion: &mut Criterion) {
    let mut group = group(criterion, "encode");
    for (data, total) in SCHEMES {
        let scheme = Scheme::new(data, total).expect("benched schemes are valid");
        for &kernel in Kernel::available() {
            let segment = segment(scheme, kernel);
            let mut parity = vec![0; segment.len() / data * scheme.parity()];
            let encoder = Encoder::with_kernel(scheme, kernel);
            group.throughput(bytes(&segment));
            group.bench_function(BenchmarkId::new(kernel.name(), scheme), |bencher| {
                bencher.iter(|| {
                    encoder
                        .encode_segment(black_box(&segment), &mut parity, |_, _, _| {})
                        .expect("lengths fit");
                    black_box(&mut parity);
                });
            });
        }
    }
}

fn decode_one_row(criterion: &mut Criterion) {
    let mut group = group(criterion, "decode one row");
    for (data, total) in SCHEMES {
        let scheme = Scheme::new(data, total).expect("benched schemes are valid");
        for &kernel in Kernel::available() {
            // Fragment 0 is lost and fragment k stands in for it. What the bytes are does not matter to the rate.
            let segment = segment(scheme, kernel);
            let sources: Vec<&[u8]> = segment.chunks_exact(segment.len() / data).collect();
            let available: Vec<usize> = (1..=data).collect();
            let decoder = Decoder::with_kernel(scheme, &available, &[0], kernel).expect("indices are valid");
            let mut rebuilt = vec![0; sources[0].len()];
            group.throughput(bytes(&segment));
            group.bench_function(BenchmarkId::new(kernel.name(), scheme), |bencher| {
                bencher.iter(|| {
                    decoder.decode(black_box(&sources), &mut [black_box(&mut rebuilt)]).expect("lengths fit");
                });
            });
        }
    }
}

criterion_group!(benches, memcpy, encode, decode_one_row);
criterion_main!(benches);

//! How fast the index answers with a million items in one run, and how fast it takes new ones in.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use seedbank_catalog::index::Index;
use seedbank_formats::place::Place;
use seedbank_formats::{ChunkId, DatasetId, SegmentNumber};
use std::hint::black_box;

const ITEMS: u64 = 1_000_000;
/// About as many items as a segment of 64 MiB holds.
const SEGMENT_ITEMS: u64 = 1_000;
const DATASET: DatasetId = DatasetId([1; 32]);

fn item(number: u64) -> (ChunkId, Place) {
    let id = ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes());
    let index = u32::try_from(number % SEGMENT_ITEMS).expect("it is below a thousand");
    (id, Place { segment: SegmentNumber(number / SEGMENT_ITEMS), index })
}

/// Numbers in an order that jumps over the whole range.
fn scattered() -> impl FnMut() -> u64 {
    let mut number = 0;
    move || {
        number = (number + 617_033) % ITEMS;
        number
    }
}

fn bench(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let index = Index::rebuild(dir.path(), DATASET, (0..ITEMS).map(item)).expect("the folder is writable");
    let ids: Vec<ChunkId> = (0..2 * ITEMS).map(|number| item(number).0).collect();
    let id = |number: u64| &ids[usize::try_from(number).expect("it is below two million")];

    let mut group = criterion.benchmark_group("index of 1,000,000 items");
    group.throughput(Throughput::Elements(1));
    let mut next = scattered();
    group.bench_function("hit", |bencher| {
        bencher.iter(|| assert!(index.lookup(black_box(id(next()))).expect("it is whole").is_some()));
    });
    let mut next = scattered();
    group.bench_function("miss", |bencher| {
        bencher.iter(|| assert!(index.lookup(black_box(id(ITEMS + next()))).expect("it is whole").is_none()));
    });
    group.throughput(Throughput::Elements(SEGMENT_ITEMS));
    group.sample_size(20);
    let mut segment = ITEMS / SEGMENT_ITEMS;
    group.bench_function("add a segment", |bencher| {
        bencher.iter_batched(
            || {
                segment += 1;
                (segment * SEGMENT_ITEMS..(segment + 1) * SEGMENT_ITEMS).map(item).collect::<Vec<_>>()
            },
            |items| index.add(items).expect("the folder is writable"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

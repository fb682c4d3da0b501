//! What a push of many small files that have not changed does with each: walk, file cache, tree.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use seedbank_client::file_cache::FileCache;
use seedbank_client::glob::Filter;
use seedbank_client::scan::{CaseCollisions, Scan, Scanned, What, survey};
use seedbank_formats::path::TreePath;
use seedbank_formats::place::ChunkRef;
use seedbank_formats::tree::{Content, Entry, PageId, PageSource, TreeBuilder, update};
use seedbank_formats::{ChunkId, DatasetId, Sha256, Timestamp};
use seedbank_testkit::TreeSpec;
use std::collections::HashMap;
use std::convert::Infallible;
use std::hint::black_box;
use std::time::Duration;

const FILES: u32 = 50_000;
const DATASET: DatasetId = DatasetId([1; 32]);

fn entry(number: usize) -> Entry {
    let id = *blake3_of(number);
    Entry::File {
        executable: false,
        size: 64,
        sha256: Sha256(id),
        content: Content::Chunks(vec![ChunkRef { id: ChunkId(id), len: 64 }]),
    }
}

/// Bytes that differ for each number, and look like a hash.
fn blake3_of(number: usize) -> Box<[u8; 32]> {
    let chunk = seedbank_formats::chunking::chunk_id(&number.to_le_bytes());
    Box::new(*chunk.as_bytes())
}

struct Pages(HashMap<PageId, Vec<u8>>);

impl PageSource for Pages {
    type Error = Infallible;

    fn page(&self, id: &PageId) -> Result<Vec<u8>, Infallible> {
        Ok(self.0[id].clone())
    }
}

fn bench(criterion: &mut Criterion) {
    let root = tempfile::tempdir().expect("a temporary folder can be made");
    let (tree, home) = (root.path().join("tree"), root.path().join("home"));
    std::fs::create_dir(&home).expect("the folder is writable");
    let spec = TreeSpec {
        seed: 1,
        small_files: FILES,
        small_bytes: 64..=64,
        files_per_folder: 1_000,
        duplicates: 0,
        huge_bytes: None,
    };
    spec.write(&tree).expect("the folder is writable");
    let filter = Filter::default();
    let scan = || Scan::new(&tree, &filter, CaseCollisions::Refuse).expect("it is there");
    let scanned: Vec<Scanned> = scan().collect::<Result<_, _>>().expect("nothing is wrong with it");

    let mut group = criterion.benchmark_group("50,000 files");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(u64::from(FILES)));
    group.bench_function("survey", |bencher| {
        bencher
            .iter(|| survey(black_box(&tree), &filter, CaseCollisions::Refuse).expect("it is there").totals);
    });
    group.bench_function("scan", |bencher| bencher.iter(|| scan().filter_map(Result::ok).count()));

    let mut cache = FileCache::open(&home);
    let later = Timestamp(u64::MAX);
    for (number, file) in scanned.iter().enumerate() {
        let What::File { stamp, executable } = &file.what else { continue };
        cache.remember(DATASET, &file.disk_path, stamp, *executable, later, &entry(number));
    }
    cache.flush();
    group.bench_function("file cache", |bencher| {
        bencher.iter(|| {
            let known = scanned.iter().filter(|file| match &file.what {
                What::File { stamp, executable } => {
                    cache.lookup(DATASET, &file.disk_path, stamp, *executable).is_some()
                }
                What::Symlink { .. } | What::EmptyFolder => false,
            });
            assert_eq!(known.count(), scanned.len());
        });
    });

    let entries: Vec<(TreePath, Entry)> =
        scanned.iter().enumerate().map(|(number, file)| (file.path.clone(), entry(number))).collect();
    let build = |sink: &mut dyn FnMut(PageId, Vec<u8>)| {
        let mut sink = |id, bytes| sink(id, bytes);
        let mut builder = TreeBuilder::new();
        for (path, entry) in &entries {
            builder.push(path, entry, &mut sink).expect("the paths rise");
        }
        builder.finish(&mut sink)
    };
    group.bench_function("tree built", |bencher| {
        bencher.iter(|| build(&mut |id, bytes| drop(black_box((id, bytes)))));
    });
    let mut pages = Pages(HashMap::new());
    let root = build(&mut |id, bytes| drop(pages.0.insert(id, bytes)));
    let changed = vec![(entries[entries.len() / 2].0.clone(), Some(entry(usize::MAX)))];
    group.bench_function("tree with one change", |bencher| {
        bencher.iter(|| {
            let sink = &mut |id, bytes| drop(black_box((id, bytes)));
            update(&pages, &root.page, changed.clone(), sink).expect("the tree is whole")
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);

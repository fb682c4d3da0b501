//! What a provider pays in CPU for being paid: sets of up to a million fragments, proofs of possession, signatures.

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, criterion_group, criterion_main};
use seedbank_agreement::chunk_path::{chunk_path, reads};
use seedbank_agreement::fragment_set::{Fragment, FragmentSet, SetChange};
use seedbank_agreement::{Address, Amount, Domain, Epoch, Typed, Voucher, WalletKey};
use seedbank_formats::FragmentId;
use seedbank_formats::slice::FragmentHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::time::Duration;

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group
}

fn fragment(number: u64) -> Fragment {
    Fragment { id: FragmentId::of(&number.to_le_bytes()), length: 8 << 20, retain_until: Epoch(0) }
}

/// A set of `count`; then a day's change of a thousand fragments, one fragment, and one promise; then a path.
fn sets(criterion: &mut Criterion) {
    for count in [1_000, 100_000, 1_000_000] {
        let mut group = group(criterion, &format!("set of {count}"));
        let fragments: Vec<Fragment> = (0..count).map(fragment).collect();
        group.bench_function("build", |bencher| {
            bencher.iter_batched(
                || fragments.clone(),
                |fragments| FragmentSet::new(fragments).expect("no id twice"),
                BatchSize::PerIteration,
            );
        });
        let set = FragmentSet::new(fragments).expect("no id twice");
        let put = |range: std::ops::Range<u64>| -> BTreeMap<FragmentId, Fragment> {
            range.map(fragment).map(|fragment| (fragment.id, fragment)).collect()
        };
        let thousand = SetChange {
            put: put(count..count + 500),
            dropped: (0..500).map(|number| fragment(number).id).collect(),
        };
        let one = SetChange { put: put(count..count + 1), dropped: BTreeSet::new() };
        let kept = Fragment { retain_until: Epoch(9), ..fragment(7) };
        let promise = SetChange { put: BTreeMap::from([(kept.id, kept)]), dropped: BTreeSet::new() };
        for (name, change) in
            [("change of 1,000", thousand), ("change of one", one), ("longer promise", promise)]
        {
            group.bench_function(name, |bencher| bencher.iter(|| black_box(set.changed(&change))));
        }
        let mut offset = 0;
        group.bench_function("path", |bencher| {
            bencher.iter(|| {
                offset = (offset + 0x9e37_79b9_7f4a_7c15_u64) % set.total();
                black_box(set.path(offset))
            });
        });
    }
}

/// One proof: the group and the nodes are read already.
fn possession(criterion: &mut Criterion) {
    let mut group = group(criterion, "chunk path");
    for length in [1_u64 << 20, 64 << 20] {
        let mut bytes = vec![0; usize::try_from(length).expect("it fits memory")];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        let mut hasher = FragmentHasher::default();
        hasher.update(&bytes);
        let (id, outboard) = hasher.finish();
        let at = |offset: u64| usize::try_from(offset).expect("it fits memory");
        let offset = length / 3;
        let reads = reads(length, offset).expect("a byte of the fragment");
        let node = |from: &u64| outboard[at(*from)..at(*from) + 64].try_into().expect("64 bytes");
        let nodes: Vec<[u8; 64]> = reads.nodes.iter().map(node).collect();
        let data = &bytes[at(reads.group.start)..at(reads.group.end)];
        let name = format!("{} MiB, {} bytes read", length >> 20, data.len() + 64 * nodes.len());
        group.bench_function(format!("{name}: make"), |bencher| {
            bencher.iter(|| black_box(chunk_path(length, offset, data, &nodes)));
        });
        let path = chunk_path(length, offset, data, &nodes).expect("a byte of the fragment");
        assert_eq!(path.root(offset / 1024, length), Ok(id));
        group.bench_function(format!("{name}: check"), |bencher| {
            bencher.iter(|| black_box(path.root(offset / 1024, length)));
        });
    }
}

fn signatures(criterion: &mut Criterion) {
    let mut group = group(criterion, "voucher");
    let channels = Domain { chain_id: 199, contract: Address([1; 20]) };
    let key = WalletKey::from_secret(&[7; 32]).expect("a secret key");
    let voucher = Voucher {
        payer: Address([2; 20]),
        payee: Address([3; 20]),
        signer: key.address(),
        cumulative: Amount(1_000),
    };
    group.bench_function("sign", |bencher| bencher.iter(|| black_box(voucher.clone().sign(&channels, &key))));
    let signed = voucher.clone().sign(&channels, &key);
    group.bench_function("recover", |bencher| bencher.iter(|| black_box(signed.signer(&channels))));
}

criterion_group!(benches, sets, possession, signatures);
criterion_main!(benches);

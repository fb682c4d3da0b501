//! The code as callers and other implementations see it: every loss that a scheme promises to survive, any range,
//! every kernel, and the bytes that ISA-L computes.

use proptest::prelude::{Just, Strategy, any, proptest};
use proptest::sample::subsequence;
use seedbank_erasure::{Decoder, Encoder, Kernel, Scheme};

/// Made by `crates/erasure/isal/vectors.c`, which also says how the input bytes are drawn.
const ISAL_VECTORS: &str = include_str!("../../../testdata/erasure/isal-vectors.txt");

fn drawn_bytes(mut state: u64, count: usize) -> Vec<u8> {
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..count).map(|_| next()).collect()
}

fn fnv1a<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> u64 {
    bytes
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The parity fragments of `data`, the data fragments one after another.
fn parity_of(scheme: Scheme, kernel: Kernel, data: &[u8]) -> Vec<Vec<u8>> {
    let length = data.len() / scheme.data();
    let mut parity = vec![vec![0; length]; scheme.parity()];
    let sources: Vec<&[u8]> = data.chunks_exact(length).collect();
    let mut slices: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
    Encoder::with_kernel(scheme, kernel)
        .encode_columns(&sources, &mut slices)
        .expect("the columns fit the scheme");
    parity
}

/// Decodes `wanted` in `range` and compares with the fragments themselves.
fn assert_decodes(
    scheme: Scheme,
    fragments: &[Vec<u8>],
    available: &[usize],
    wanted: &[usize],
    range: std::ops::Range<usize>,
    kernel: Kernel,
) {
    let decoder =
        Decoder::with_kernel(scheme, available, wanted, kernel).expect("the fragments fit the scheme");
    let sources: Vec<&[u8]> = available.iter().map(|&index| &fragments[index][range.clone()]).collect();
    let mut rebuilt = vec![vec![0xEE; range.len()]; wanted.len()];
    let mut out: Vec<&mut [u8]> = rebuilt.iter_mut().map(Vec::as_mut_slice).collect();
    decoder.decode(&sources, &mut out).expect("the ranges have one length");
    for (&index, rebuilt) in wanted.iter().zip(&rebuilt) {
        assert_eq!(
            rebuilt,
            &fragments[index][range.clone()],
            "{scheme}: {index} from {available:?} by {kernel:?}"
        );
    }
}

#[test]
fn every_sufficient_subset_of_up_to_twelve_fragments_gives_every_fragment() {
    for total in 2..=12 {
        let wanted: Vec<usize> = (0..total).collect();
        for data in 1..total {
            let scheme = Scheme::new(data, total).unwrap();
            let fragments = Encoder::new(scheme).encode(&drawn_bytes(7, data * 70 - 13));
            for subset in (0_u32..1 << total).filter(|subset| subset.count_ones() as usize == data) {
                let mut available: Vec<usize> = (0..total).filter(|index| subset >> index & 1 == 1).collect();
                // The order of sources is the caller's: alternate between rising and falling.
                if subset % 3 == 0 {
                    available.reverse();
                }
                let len = fragments[0].len();
                assert_decodes(scheme, &fragments, &available, &wanted, 0..len, Kernel::best());
            }
        }
    }
}

#[test]
fn copies_are_the_padded_segment() {
    let segment = drawn_bytes(3, 100);
    let mut padded = segment.clone();
    padded.resize(128, 0);
    for &kernel in Kernel::available() {
        let scheme = Scheme::new(1, 5).unwrap();
        assert_eq!(Encoder::with_kernel(scheme, kernel).encode(&segment), vec![padded.clone(); 5]);
    }
}

#[test]
fn data_fragments_are_the_segment_and_its_zero_padding() {
    let segment = drawn_bytes(4, 4 * 640 - 100);
    let fragments = Encoder::new(Scheme::new(4, 6).unwrap()).encode(&segment);
    let mut padded = segment;
    padded.resize(4 * 640, 0);
    assert_eq!(fragments[..4].concat(), padded);
}

/// A scheme, `k` of its fragments in any order, some wanted ones, a segment length, and a range in per mille.
fn losses() -> impl Strategy<Value = (Scheme, Vec<usize>, Vec<usize>, usize, (usize, usize), u64)> {
    (2..=255_usize).prop_flat_map(|total| (1..total, Just(total))).prop_flat_map(|(data, total)| {
        let all: Vec<usize> = (0..total).collect();
        (
            Just(Scheme::new(data, total).expect("1 <= data < total <= 255")),
            subsequence(all.clone(), data).prop_shuffle(),
            subsequence(all, 0..=total.min(9)).prop_shuffle(),
            1..20_000_usize,
            (0..=1000_usize, 0..=1000_usize),
            any::<u64>(),
        )
    })
}

proptest! {
    #[test]
    fn any_range_of_any_fragments_decodes_as_the_whole_does(
        (scheme, available, wanted, len, (from, to), seed) in losses()
    ) {
        let fragments = Encoder::new(scheme).encode(&drawn_bytes(seed, len));
        let fragment_len = scheme.fragment_len(len);
        let (from, to) = (fragment_len * from.min(to) / 1000, fragment_len * from.max(to) / 1000);
        for &kernel in Kernel::available() {
            assert_decodes(scheme, &fragments, &available, &wanted, from..to, kernel);
        }
    }

    #[test]
    fn no_choice_of_indices_panics(
        data in 1..20_usize,
        parity in 1..20_usize,
        available in proptest::collection::vec(0..45_usize, 0..22),
        wanted in proptest::collection::vec(any::<usize>(), 0..4),
    ) {
        let scheme = Scheme::new(data, data + parity).unwrap();
        let _ = Decoder::new(scheme, &available, &wanted);
    }
}

/// Encoding unit vectors reads the matrix off the encoder, so the hash covers what encoding really uses.
fn matrix_of(scheme: Scheme, kernel: Kernel) -> Vec<u8> {
    let mut identity = vec![0; scheme.data() * scheme.data()];
    for index in 0..scheme.data() {
        identity[index * scheme.data() + index] = 1;
    }
    let parity = parity_of(scheme, kernel, &identity).concat();
    [identity, parity].concat()
}

#[test]
fn matrices_and_parity_are_what_isal_computes() {
    let mut checked = 0;
    for line in ISAL_VECTORS.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let kind = words.next().unwrap();
        let words: Vec<&str> = words.collect();
        let number = |position: usize| words[position].parse::<usize>().unwrap();
        let scheme = Scheme::new(number(0), number(1)).unwrap();
        let expected = *words.last().unwrap();
        let parity = |kernel| {
            let length = number(2);
            let seed = scheme.data() * 65536 + scheme.total() * 256 + length % 256;
            parity_of(scheme, kernel, &drawn_bytes(u64::try_from(seed).unwrap(), scheme.data() * length))
        };
        for &kernel in Kernel::available() {
            let actual = match kind {
                "matrix" => format!("{:016x}", fnv1a(&matrix_of(scheme, kernel))),
                "hash" => format!("{:016x}", fnv1a(parity(kernel).iter().flatten())),
                "parity" => parity(kernel)[number(3) - scheme.data()]
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect(),
                _ => panic!("unknown kind of vector: {line}"),
            };
            assert_eq!(actual, expected, "{kernel:?}: {line}");
        }
        checked += 1;
    }
    assert!(checked > 40, "the vector file is cut short: {checked}");
}

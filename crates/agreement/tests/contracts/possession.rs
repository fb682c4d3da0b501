//! Chunk paths lead where the verifier says, of right ones and of wrong ones.

use crate::Dice;
use crate::abi::{Abi, Words, selector, word};
use crate::evm::{Deployment, PATHS};
use crate::market::PARAMETERS;
use crate::stored::Store;
use seedbank_agreement::chunk_path::{CHUNK_BYTES, ChunkPath, ChunkPathError};

fn arguments(path: &ChunkPath, index: u64, length: u64) -> [Abi; 4] {
    let siblings = path.siblings.iter().map(|sibling| Abi::Word(*sibling)).collect();
    [Abi::Bytes(path.chunk.clone()), Abi::uint(index), Abi::uint(length), Abi::Array(siblings)]
}

/// A refusal as the contract's revert.
pub(crate) fn revert(refusal: &ChunkPathError) -> Vec<u8> {
    let (signature, words) = match *refusal {
        ChunkPathError::FragmentLength(length) => ("FragmentLength(uint64)", vec![word(length)]),
        ChunkPathError::ChunkIndex { index, length } => {
            ("ChunkIndex(uint64,uint64)", vec![word(index), word(length)])
        }
        ChunkPathError::ChunkLength { expected, actual } => {
            ("ChunkLength(uint256,uint256)", vec![word(expected), word(actual as u64)])
        }
        ChunkPathError::PathLength { expected, actual } => {
            ("PathLength(uint256,uint256)", vec![word(expected as u64), word(actual as u64)])
        }
    };
    [&selector(signature)[..], &words.concat()].concat()
}

#[test]
fn chunk_paths_lead_where_the_verifier_says() {
    let deployment = Deployment::new(&PARAMETERS);
    let mut dice = Dice(0xb1a_4e3);
    let group = 16 * 1024;
    let mut lengths =
        vec![1, 2, 63, 64, 65, 1023, 1024, 1025, 2047, 2048, 2049, 3072, 5000, group - 1, group];
    lengths.extend([
        group + 1,
        2 * group,
        3 * group + 1023,
        7 * group + 1,
        64 * group,
        1 << 20,
        (1 << 20) + 1,
    ]);
    lengths.extend((0..30).map(|_| 1 + dice.below(400_000)));
    let mut checked = 0;
    for length in lengths {
        let mut store = Store::default();
        let bytes: Vec<u8> = (0..length).map(|_| u8::try_from(dice.below(256)).unwrap()).collect();
        let fragment = store.put(bytes);
        let chunks = length.div_ceil(CHUNK_BYTES);
        for index in [0, chunks - 1, dice.below(chunks), dice.below(chunks)] {
            let path = store.show_chunk(&fragment.id, index * CHUNK_BYTES);
            let told = deployment.ask(&PATHS, deployment.paths, "root", &arguments(&path, index, length));
            assert_eq!(Words::of(&told).word(), fragment.id.0, "chunk {index} of {length}");
            checked += 1;
            // Whatever is wrong with a path, both say the same of it.
            let (mut path, mut at, mut of) = (path, index, length);
            match dice.below(7) {
                0 => path.chunk[0] ^= 1,
                1 => path.chunk.push(0),
                2 => path.siblings.push(dice.word()),
                3 => drop(path.siblings.pop()),
                4 => at = dice.below(chunks + 2),
                5 => of = dice.below(2 * length),
                _ => path.siblings.iter_mut().for_each(|sibling| sibling[31] ^= 0x80),
            }
            let told = deployment.evm.ask(deployment.paths, PATHS.call("root", &arguments(&path, at, of)));
            let expected = path.root(at, of);
            match (&told, &expected) {
                (Ok(root), Ok(id)) => assert_eq!(Words::of(root).word(), id.0),
                (Err(told), Err(refusal)) => assert_eq!(*told, revert(refusal), "{refusal}"),
                _ => panic!("the verifier said {told:?}, and here it is {expected:?}"),
            }
        }
    }
    assert!(checked > 200);
}

#[test]
fn lengths_at_the_end_of_numbers_are_refused_alike() {
    let deployment = Deployment::new(&PARAMETERS);
    let path = ChunkPath { chunk: vec![7; 1023], siblings: vec![[1; 32]; 30] };
    let limit = 1 << 40;
    for length in [0, 1, 1023, limit - 1, limit, limit + 1, u64::MAX] {
        for index in [0, 1, limit / 1024 - 1, limit / 1024, u64::MAX] {
            let told =
                deployment.evm.ask(deployment.paths, PATHS.call("root", &arguments(&path, index, length)));
            let told = told.map(|root| Words::of(&root).word());
            assert_eq!(told, path.root(index, length).map(|id| id.0).map_err(|refusal| revert(&refusal)));
        }
    }
}

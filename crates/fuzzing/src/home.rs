//! Files of a home and of a provider's folder: keys at rest, keys handed over, configuration, index runs.

use crate::index;
use crate::input::Input;
use crate::keystore::{DatasetKey, ProviderAddress, dataset_key, open_unprotected};
use crate::provider_config::Config;
use seedbank_formats::{ChunkId, DatasetId};
use std::path::Path;

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.below(7) {
        0 => open_unprotected(input.rest()),
        1 => {
            // The checksum is no secret: whoever changes the file repairs it.
            let mut file = input.rest().to_vec();
            file.extend_from_slice(&blake3::hash(&file).as_bytes()[..16]);
            open_unprotected(&file);
        }
        2 => {
            if let Some(key) = dataset_key(input.rest()) {
                let text = key.to_text();
                let again = DatasetKey::parse(&text).expect("what was written reads back");
                assert_eq!(*again.to_text(), *text);
            }
        }
        3 => drop(str::from_utf8(input.rest()).map(DatasetKey::parse)),
        4 => {
            let Ok(text) = str::from_utf8(input.rest()) else { return };
            if let Ok(address) = text.parse::<ProviderAddress>() {
                assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
        5 => {
            let Ok(text) = str::from_utf8(input.rest()) else { return };
            drop(Config::parse(text, Path::new("provider.toml")));
        }
        _ => index_run(input),
    }
}

/// A run whose hashes all fit, around records, fences and counts of any kind.
fn index_run(mut input: Input<'_>) {
    const BLOCK: usize = 4096;
    let (count, blocks, filter_blocks) = (input.number(), input.below(4), input.below(4));
    let id = ChunkId(std::array::from_fn(|_| input.byte()));
    let noise = input.rest();
    let mut records = vec![0; blocks * BLOCK];
    records.iter_mut().zip(noise.iter().cycle()).for_each(|(to, from)| *to = *from);
    let mut tail = Vec::new();
    for block in records.chunks(BLOCK) {
        tail.extend_from_slice(&block[..8]);
        tail.extend_from_slice(&blake3::hash(block).as_bytes()[..8]);
    }
    tail.resize(tail.len() + filter_blocks * 32, 0xff);

    let mut header = b"SBIR\x01\0\0\0".to_vec();
    header.extend_from_slice(&[9; 32]);
    let filter_blocks = filter_blocks as u64;
    for number in [0, 0, count, 0, 0, filter_blocks] {
        header.extend_from_slice(&u64::to_le_bytes(number));
    }
    header.extend_from_slice(blake3::hash(&tail).as_bytes());
    header.resize(BLOCK - 32, 0);
    let hash = blake3::hash(&header);
    header.extend_from_slice(hash.as_bytes());

    let name = format!("seedbank-fuzzing-{}-{:?}.run", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, [header, records, tail].concat()).expect("the temporary folder takes a file");
    index::read_run(&path, &DatasetId([9; 32]), &id);
    std::fs::remove_file(&path).expect("it was just written");
}

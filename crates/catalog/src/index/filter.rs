//! The filter that answers for a run, from memory, that it does not hold an id.
//!
//! A split-block Bloom filter, as Parquet has it: an id sets one bit in each of the eight words of one block of 256 bits,
//! so that a question touches one cache line. Ids are hashes already, so their own bytes choose block and bits.

use seedbank_formats::ChunkId;

/// One in about 200 questions is passed on in vain. With 10 bits it would be one in 80, and an index has several runs.
const BITS_PER_KEY: u64 = 12;
const BITS_PER_BLOCK: u64 = 256;
/// Bytes of a block in a file.
pub(super) const BLOCK_BYTES: usize = 32;

/// Parquet's odd constants: each picks another five bits of the key.
const SALTS: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

#[derive(Debug)]
pub(super) struct Filter {
    blocks: Vec<[u32; 8]>,
}

impl Filter {
    /// An empty filter with room for so many ids.
    pub(super) fn for_keys(keys: u64) -> Filter {
        let blocks = keys.saturating_mul(BITS_PER_KEY).div_ceil(BITS_PER_BLOCK).max(1);
        let blocks = usize::try_from(blocks).expect("a filter of 12 bits a key fits where the keys fit");
        Filter { blocks: vec![[0; 8]; blocks] }
    }

    pub(super) fn insert(&mut self, id: &ChunkId) {
        let (block, bits) = self.place(id);
        for (word, bit) in self.blocks[block].iter_mut().zip(bits) {
            *word |= bit;
        }
    }

    /// `false` is certain.
    pub(super) fn may_hold(&self, id: &ChunkId) -> bool {
        let (block, bits) = self.place(id);
        self.blocks[block].iter().zip(bits).all(|(word, bit)| word & bit != 0)
    }

    /// The id's block and its bit in each of that block's words. The first half of an id orders it among others, so the
    /// second half is used here.
    fn place(&self, id: &ChunkId) -> (usize, [u32; 8]) {
        let [.., a, b, c, d, e, f, g, h, i, j, k, l, _, _, _, _] = id.0;
        let scaled = u128::from(u64::from_le_bytes([a, b, c, d, e, f, g, h])) * self.blocks.len() as u128;
        let block = usize::try_from(scaled >> 64).expect("the high half is below the number of blocks");
        let key = u32::from_le_bytes([i, j, k, l]);
        (block, SALTS.map(|salt| 1 << (key.wrapping_mul(salt) >> 27)))
    }

    pub(super) fn block_count(&self) -> usize {
        self.blocks.len()
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.blocks.iter().flatten().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Reads a filter back; `None` for bytes that are not whole blocks, or none.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Filter> {
        let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
        if blocks.is_empty() || !rest.is_empty() {
            return None;
        }
        let block = |bytes: &[u8; BLOCK_BYTES]| {
            let mut words = [0; 8];
            for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *word = u32::from_le_bytes(*bytes);
            }
            words
        };
        Some(Filter { blocks: blocks.iter().map(block).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::Filter;
    use seedbank_formats::ChunkId;

    fn id(number: u32) -> ChunkId {
        ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    #[test]
    fn every_id_is_found_and_few_others_are() {
        let mut filter = Filter::for_keys(20_000);
        (0..20_000).for_each(|number| filter.insert(&id(number)));
        let read = Filter::from_bytes(&filter.to_bytes()).unwrap();
        assert!((0..20_000).all(|number| read.may_hold(&id(number))));
        let wrong = (20_000..120_000).filter(|&number| read.may_hold(&id(number))).count();
        assert!(wrong < 1_000, "{wrong} of 100,000");
    }

    #[test]
    fn filter_of_nothing_holds_nothing() {
        let filter = Filter::for_keys(0);
        assert!(!filter.may_hold(&id(1)));
        assert!(Filter::from_bytes(&[]).is_none());
        assert!(Filter::from_bytes(&[0; 33]).is_none());
    }
}

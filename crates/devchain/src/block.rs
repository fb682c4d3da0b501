//! A block and what came of it, as they are stored: at most one transaction each.

use crate::header::SignedHeader;
use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes, Log};
use alloy_rlp::{Decodable, RlpDecodable, RlpEncodable};

/// A signed header and the transaction that it is about; a heartbeat has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) header: SignedHeader,
    pub(crate) transaction: Option<Bytes>,
}

const HASH_BYTES: usize = 32;

impl Block {
    pub(crate) fn number(&self) -> u64 {
        self.header.header().number
    }

    pub(crate) fn hash(&self) -> B256 {
        self.header.hash()
    }

    /// Hash, header, transaction. The hash is stored because it is asked for far more often than it changes.
    pub(crate) fn encoded(&self) -> Vec<u8> {
        let mut bytes = self.hash().to_vec();
        bytes.extend(self.header.encoded());
        if let Some(raw) = &self.transaction {
            bytes.extend(raw.iter());
        }
        bytes
    }

    /// Decodes what was stored; `None` if it is something else.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Block> {
        let mut rest = bytes.get(HASH_BYTES..)?;
        let header = SignedHeader::known(Header::decode(&mut rest).ok()?);
        let transaction = (!rest.is_empty()).then(|| Bytes::copy_from_slice(rest));
        (header.hash() == stored_hash(bytes)?).then_some(Block { header, transaction })
    }
}

/// The hash in a stored block.
pub(crate) fn stored_hash(bytes: &[u8]) -> Option<B256> {
    Some(B256::from_slice(bytes.get(..HASH_BYTES)?))
}

/// What came of a block's transaction.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub(crate) struct Receipt {
    pub(crate) sender: Address,
    pub(crate) succeeded: bool,
    pub(crate) gas_used: u64,
    pub(crate) logs: Vec<Log>,
}

impl Receipt {
    pub(crate) fn encoded(&self) -> Vec<u8> {
        alloy_rlp::encode(self)
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Receipt> {
        let receipt = Receipt::decode_rlp(&mut bytes)?;
        bytes.is_empty().then_some(receipt)
    }

    fn decode_rlp(bytes: &mut &[u8]) -> Option<Receipt> {
        <Receipt as Decodable>::decode(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::{Block, Receipt};
    use crate::header::SignedHeader;
    use alloy_consensus::Header;
    use alloy_primitives::{Address, B256, Bytes, Log};

    #[test]
    fn block_reads_back_and_its_hash_is_checked() {
        let header = SignedHeader::known(Header { number: 4, ..Header::default() });
        for transaction in [None, Some(Bytes::from_static(b"tx"))] {
            let block = Block { header: header.clone(), transaction };
            let bytes = block.encoded();
            assert_eq!(Block::decode(&bytes), Some(block));
            let mut torn = bytes.clone();
            torn[0] ^= 1;
            assert_eq!(Block::decode(&torn), None);
            assert_eq!(Block::decode(&bytes[..40]), None);
        }
        assert_eq!(Block::decode(&[]), None);
    }

    #[test]
    fn receipt_reads_back() {
        let log =
            Log::new_unchecked(Address::repeat_byte(1), vec![B256::repeat_byte(2)], Bytes::from_static(b"x"));
        let receipt =
            Receipt { sender: Address::repeat_byte(3), succeeded: true, gas_used: 21_000, logs: vec![log] };
        let mut bytes = receipt.encoded();
        assert_eq!(Receipt::decode(&bytes), Some(receipt));
        bytes.push(0);
        assert_eq!(Receipt::decode(&bytes), None);
    }
}

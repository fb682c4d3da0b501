//! Keccak-256 as Ethereum uses it: the padding from before SHA-3 was standardised.

use sha3::{Digest, Keccak256};

/// The hash of some bytes.
#[must_use]
pub fn keccak256(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::keccak256;
    use crate::hex;

    #[test]
    fn it_is_not_sha3() {
        let empty = "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470";
        assert_eq!(Some(keccak256(b"")), hex::read(empty));
        // The topic of every ERC-20 transfer.
        let transfer = "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";
        assert_eq!(Some(keccak256(b"Transfer(address,address,uint256)")), hex::read(transfer));
    }
}

//! Block headers: Ethereum's own, with the sequencer's signature in the extra data.
//!
//! A header's hash is what every Ethereum tool computes for it, so it covers the signature. The signature covers a domain
//! tag, the chain id and the header without it. `stateRoot` holds a hash chain over state changes ([`crate::changes`]),
//! not the root of a Merkle tree: nothing can be proven against it, everything can be replayed against it.

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes, Signature, keccak256};
use alloy_rlp::{Decodable, Encodable};
use k256::ecdsa::SigningKey;

const SEAL_DOMAIN: &[u8] = b"seedbank chain header v1";

/// r, s and the parity of y, as 27 or 28.
const SEAL_BYTES: usize = 65;

/// A header that somebody signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHeader {
    header: Header,
    hash: B256,
}

/// Why bytes are no header of this chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// They are no header at all.
    #[error("no header: {0}")]
    Malformed(alloy_rlp::Error),
    /// Its extra data is no canonical signature.
    #[error("the header of block {number} carries no canonical signature")]
    Unsigned {
        /// The block's number.
        number: u64,
    },
    /// Somebody else signed it.
    #[error("block {number} is signed by {signer}, not by the sequencer {sequencer}")]
    WrongSigner {
        /// The block's number.
        number: u64,
        /// Who did.
        signer: Address,
        /// Who should have.
        sequencer: Address,
    },
}

impl SignedHeader {
    /// Signs a header. What its extra data was is replaced.
    pub(crate) fn sign(mut header: Header, chain_id: u64, key: &SigningKey) -> SignedHeader {
        header.extra_data = Bytes::new();
        let (signature, recovery) = key
            .sign_prehash_recoverable(seal_digest(&header, chain_id).as_slice())
            .expect("a digest of 32 bytes can be signed");
        let signature = Signature::from((signature, recovery));
        header.extra_data = Bytes::copy_from_slice(&signature.as_bytes());
        SignedHeader::known(header)
    }

    /// A header that was checked before.
    pub(crate) fn known(header: Header) -> SignedHeader {
        let hash = header.hash_slow();
        SignedHeader { header, hash }
    }

    /// A header as it came from elsewhere, if `sequencer` signed it for this chain.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn check(mut bytes: &[u8], chain_id: u64, sequencer: Address) -> Result<SignedHeader, HeaderError> {
        let header = Header::decode(&mut bytes).map_err(HeaderError::Malformed)?;
        if !bytes.is_empty() {
            return Err(HeaderError::Malformed(alloy_rlp::Error::UnexpectedLength));
        }
        let number = header.number;
        let seal: [u8; SEAL_BYTES] =
            header.extra_data.as_ref().try_into().map_err(|_| HeaderError::Unsigned { number })?;
        let signature = Signature::from_raw_array(&seal).map_err(|_| HeaderError::Unsigned { number })?;
        // One encoding and one form of a signature, or one block would have several hashes.
        if signature.as_bytes() != seal || signature.normalize_s().is_some() {
            return Err(HeaderError::Unsigned { number });
        }
        let signer = signature
            .recover_address_from_prehash(&seal_digest(&unsigned(&header), chain_id))
            .map_err(|_| HeaderError::Unsigned { number })?;
        if signer != sequencer {
            return Err(HeaderError::WrongSigner { number, signer, sequencer });
        }
        Ok(SignedHeader::known(header))
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Its hash.
    #[must_use]
    pub fn hash(&self) -> B256 {
        self.hash
    }

    /// Its canonical bytes.
    #[must_use]
    pub fn encoded(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.header.length());
        self.header.encode(&mut bytes);
        bytes
    }
}

/// The header as it was before it was signed.
pub(crate) fn unsigned(header: &Header) -> Header {
    Header { extra_data: Bytes::new(), ..header.clone() }
}

fn seal_digest(unsigned: &Header, chain_id: u64) -> B256 {
    let mut bytes = SEAL_DOMAIN.to_vec();
    bytes.extend(chain_id.to_be_bytes());
    unsigned.encode(&mut bytes);
    keccak256(bytes)
}

/// The address of a key.
pub(crate) fn address_of(key: &SigningKey) -> Address {
    Address::from_public_key(key.verifying_key())
}

#[cfg(test)]
mod tests {
    use super::{HeaderError, SignedHeader, address_of};
    use alloy_consensus::Header;
    use alloy_primitives::{Bytes, U256};
    use alloy_rlp::Encodable;
    use k256::ecdsa::SigningKey;

    fn key(byte: u8) -> SigningKey {
        SigningKey::from_slice(&[byte; 32]).unwrap()
    }

    fn encoded(header: &Header) -> Vec<u8> {
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        bytes
    }

    #[test]
    fn signed_header_is_taken_from_its_signer_for_its_chain_only() {
        let signed = SignedHeader::sign(Header { number: 7, ..Header::default() }, 5, &key(1));
        let bytes = signed.encoded();
        assert_eq!(SignedHeader::check(&bytes, 5, address_of(&key(1))), Ok(signed.clone()));
        let other = SignedHeader::check(&bytes, 5, address_of(&key(2)));
        assert!(matches!(other, Err(HeaderError::WrongSigner { number: 7, .. })));
        let elsewhere = SignedHeader::check(&bytes, 6, address_of(&key(1)));
        assert!(matches!(elsewhere, Err(HeaderError::WrongSigner { number: 7, .. })));
    }

    #[test]
    fn changed_header_is_not_its_signers() {
        let signed = SignedHeader::sign(Header { timestamp: 9, ..Header::default() }, 5, &key(1));
        let mut changed = signed.header().clone();
        changed.timestamp = 10;
        assert!(SignedHeader::check(&encoded(&changed), 5, address_of(&key(1))).is_err());
    }

    #[test]
    fn second_form_of_a_signature_is_refused() {
        let signed = SignedHeader::sign(Header::default(), 5, &key(1));
        let seal = signed.header().extra_data.to_vec();
        let order =
            U256::from_str_radix("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)
                .unwrap();
        let mut high = seal.clone();
        let s = order - U256::from_be_slice(&seal[32..64]);
        high[32..64].copy_from_slice(&s.to_be_bytes::<32>());
        high[64] = if seal[64] == 27 { 28 } else { 27 };
        let mut plain_parity = seal.clone();
        plain_parity[64] -= 27;
        let mut long = seal.clone();
        long.push(0);
        for wrong in [high, plain_parity, long, Vec::new()] {
            let header = Header { extra_data: Bytes::from(wrong), ..signed.header().clone() };
            let checked = SignedHeader::check(&encoded(&header), 5, address_of(&key(1)));
            assert_eq!(checked, Err(HeaderError::Unsigned { number: 0 }));
        }
    }

    #[test]
    fn trailing_bytes_and_garbage_are_no_header() {
        let mut bytes = SignedHeader::sign(Header::default(), 5, &key(1)).encoded();
        bytes.push(0);
        for wrong in [&bytes[..], &[], &[0xf8], &[0xff; 64]] {
            let checked = SignedHeader::check(wrong, 5, address_of(&key(1)));
            assert!(matches!(checked, Err(HeaderError::Malformed(_))));
        }
    }
}

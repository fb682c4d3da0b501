//! That an Ed25519 identity and a wallet are one's: the identity's half of it.
//!
//! A registry entry says "this wallet names that identity", which anyone could claim. The identity signs "I am that wallet's, in
//! this registry on this chain". Both are checked when a provider is dialled and when a head is read; one alone counts for nothing.
//! The chain can't check Ed25519, so it only stores the signature.

use crate::address::Address;
use seedbank_formats::codec::Writer;
use seedbank_formats::keys::{SignatureDomain, SigningKey, WrongSignature};
use seedbank_formats::{PublicKey, Signature};

const MAGIC: &[u8; 4] = b"SBBN";
const VERSION: u8 = 1;

/// What an identity signs to be a wallet's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The chain's id.
    pub chain_id: u64,
    /// The registry that the entry stands in.
    pub contract: Address,
    /// The wallet that the entry is of.
    pub address: Address,
}

impl Binding {
    /// The bytes that are signed, behind the domain tag.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut writer = Writer::format(MAGIC, VERSION);
        writer.u64(self.chain_id);
        writer.raw(&self.contract.0);
        writer.raw(&self.address.0);
        writer.finish()
    }

    /// The identity's word for it.
    #[must_use]
    pub fn sign(&self, identity: &SigningKey) -> Signature {
        identity.sign(SignatureDomain::Binding, &self.bytes())
    }

    /// Whether `identity` gave its word.
    ///
    /// # Errors
    /// [`WrongSignature`] if not: then the entry is somebody's who squats on the key.
    pub fn check(&self, identity: &PublicKey, signature: &Signature) -> Result<(), WrongSignature> {
        identity.verify(SignatureDomain::Binding, &self.bytes(), signature)
    }
}

#[cfg(test)]
mod tests {
    use super::Binding;
    use crate::address::Address;
    use seedbank_formats::keys::SigningKey;

    #[test]
    fn a_binding_holds_for_one_wallet_in_one_registry_on_one_chain() {
        let identity = SigningKey::from_seed([1; 32]);
        let binding = Binding { chain_id: 199, contract: Address([2; 20]), address: Address([3; 20]) };
        let signature = binding.sign(&identity);
        assert!(binding.check(&identity.public(), &signature).is_ok());
        for other in [
            Binding { chain_id: 1029, ..binding },
            Binding { contract: Address([4; 20]), ..binding },
            Binding { address: Address([4; 20]), ..binding },
        ] {
            assert!(other.check(&identity.public(), &signature).is_err());
        }
        assert!(binding.check(&SigningKey::from_seed([2; 32]).public(), &signature).is_err(), "a squatter's");
    }

    #[test]
    fn bytes_are_drawn_once_and_for_all() {
        let binding =
            Binding { chain_id: 0x0102_0304, contract: Address([0xaa; 20]), address: Address([0xbb; 20]) };
        let expected = [&b"SBBN\x01\x04\x03\x02\x01\0\0\0\0"[..], &[0xaa; 20], &[0xbb; 20]].concat();
        assert_eq!(binding.bytes(), expected);
    }
}

//! Keys that own money: secp256k1, derived from the same 24 words as everything else.
//!
//! A wallet app that is given the words shows the same accounts: BIP-39 to a seed, BIP-32 down to m/44'/60'/0'/0/i. Signatures are
//! deterministic (RFC 6979): what is signed twice is the same signature.

use crate::address::Address;
use crate::derivation;
use crate::signature::{Signature, address_of};
use k256::ecdsa::SigningKey;
use std::fmt;
use zeroize::Zeroizing;

/// What a derived key is for. The main key can stay cold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalletRole {
    /// Owns what there is.
    Wallet,
    /// Signs vouchers and proposals up to a cap.
    HotSigner,
    /// Proves and signs revisions for a provider, and can't withdraw.
    Operator,
}

impl WalletRole {
    /// The last number of the key's path.
    #[must_use]
    pub const fn index(self) -> u32 {
        match self {
            WalletRole::Wallet => 0,
            WalletRole::HotSigner => 1,
            WalletRole::Operator => 2,
        }
    }
}

/// A secp256k1 key. Wiped when dropped.
#[derive(Clone)]
pub struct WalletKey {
    key: SigningKey,
    address: Address,
}

/// 32 bytes that are no secret key: zero, or not below the group's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no secret key")]
pub struct NoSecretKey;

/// A key that can't be derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeriveError {
    /// BIP-32 takes seeds of 16 to 64 bytes.
    #[error("a seed has 16 to 64 bytes, not {0}")]
    SeedLength(usize),
    /// One seed in 2^127 has no key at a path. Use another index.
    #[error("this seed has no key there")]
    NoKey,
}

impl WalletKey {
    /// The key with this secret.
    ///
    /// # Errors
    /// [`NoSecretKey`] for zero and for what is not below the group's order.
    pub fn from_secret(secret: &[u8; 32]) -> Result<WalletKey, NoSecretKey> {
        let key = SigningKey::from_slice(secret).map_err(|_| NoSecretKey)?;
        let address = address_of(key.verifying_key());
        Ok(WalletKey { key, address })
    }

    /// The key for a role, from the seed that BIP-39 makes of the words.
    ///
    /// # Errors
    /// See [`WalletKey::derive_index`].
    pub fn derive(seed: &[u8], role: WalletRole) -> Result<WalletKey, DeriveError> {
        WalletKey::derive_index(seed, role.index())
    }

    /// The key at m/44'/60'/0'/0/`index`.
    ///
    /// # Errors
    /// [`DeriveError`] for a seed of a length that BIP-32 doesn't know, and for one without a key there.
    pub fn derive_index(seed: &[u8], index: u32) -> Result<WalletKey, DeriveError> {
        let secret = derivation::ethereum_account(seed, index)?;
        WalletKey::from_secret(&secret).map_err(|NoSecretKey| DeriveError::NoKey)
    }

    /// Whose key it is.
    #[must_use]
    pub fn address(&self) -> Address {
        self.address
    }

    /// The secret, for the key store and for the signer of transactions.
    #[must_use]
    pub fn secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes().into())
    }

    /// Signs a digest. What the digest stands for is the caller's business: see [`crate::typed::Typed`].
    #[must_use]
    pub fn sign(&self, digest: &[u8; 32]) -> Signature {
        let (scalars, recovery) = self
            .key
            .sign_prehash_recoverable(digest)
            .expect("a digest of 32 bytes can be signed with every key");
        Signature::of_parts(&scalars, recovery.is_y_odd())
    }
}

impl fmt::Debug for WalletKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "WalletKey({})", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::{DeriveError, NoSecretKey, WalletKey, WalletRole};
    use crate::hex;

    #[test]
    fn the_words_of_every_tutorial_give_the_accounts_of_every_tutorial() {
        // BIP-39 seed of eleven times "test" and "junk", without a passphrase, and the first accounts that wallets show for it.
        let seed: [u8; 64] = hex::read(
            "9dfc3c64c2f8bede1533b6a79f8570e5943e0b8fd1cf77107adf7b72cef42185d564a3aee24cab43f80e3c4538087d70fc824eabbad596a23c97b6ee8322ccc0",
        )
        .unwrap();
        for (role, address) in [
            (WalletRole::Wallet, "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
            (WalletRole::HotSigner, "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"),
            (WalletRole::Operator, "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"),
        ] {
            assert_eq!(WalletKey::derive(&seed, role).unwrap().address().to_string(), address);
        }
        let first = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
        assert_eq!(hex::read(first), Some(*WalletKey::derive(&seed, WalletRole::Wallet).unwrap().secret()));
    }

    #[test]
    fn signatures_are_deterministic() {
        // RFC 6979 for secp256k1 with SHA-256, secret 1, message "Satoshi Nakamoto", the digest given as it is.
        let mut secret = [0; 32];
        secret[31] = 1;
        let key = WalletKey::from_secret(&secret).unwrap();
        let digest = hex::read("a0dc65ffca799873cbea0ac274015b9526505daaaed385155425f7337704883e").unwrap();
        let expected: [u8; 64] = hex::read(
            "934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d82442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5",
        )
        .unwrap();
        assert_eq!(key.sign(&digest).as_bytes()[..64], expected);
    }

    #[test]
    fn a_key_shows_its_address_only() {
        let key = WalletKey::from_secret(&[0x42; 32]).unwrap();
        assert_eq!(format!("{key:?}"), format!("WalletKey({})", key.address()));
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        assert_eq!(WalletKey::from_secret(&[0; 32]).unwrap_err(), NoSecretKey);
        assert_eq!(WalletKey::from_secret(&[0xff; 32]).unwrap_err(), NoSecretKey);
        assert_eq!(WalletKey::derive_index(&[0; 15], 0).unwrap_err(), DeriveError::SeedLength(15));
        assert_eq!(WalletKey::derive_index(&[0; 65], 0).unwrap_err(), DeriveError::SeedLength(65));
    }
}

//! Signatures in the one form that is accepted here: 65 bytes {r, s, v}, s in the lower half, v 27 or 28.
//!
//! The contracts also read the 64 bytes of EIP-2098. Nothing of ours makes them and nothing of ours takes them: one consent has
//! one encoding, so that nobody can tell two vouchers apart that are the same.

use crate::address::Address;
use crate::hex;
use k256::ecdsa::{RecoveryId, VerifyingKey};
use std::fmt;

/// A secp256k1 signature in its canonical form. It may still be nobody's.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature([u8; 65]);

/// Why bytes are no signature that is taken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// 64 bytes: ask for the long form.
    #[error("the compact form of EIP-2098 is not taken: send 65 bytes")]
    Compact,
    /// Neither form.
    #[error("a signature has 65 bytes, not {0}")]
    Length(usize),
    /// The mirror image of a signature. It fits as well, so taking it would give one consent two encodings.
    #[error("s is in the upper half: send its mirror image")]
    HighS,
    /// The last byte is neither 27 nor 28.
    #[error("v is 27 or 28, not {0}")]
    RecoveryByte(u8),
    /// r or s is zero or not below the group's order.
    #[error("r or s is no scalar")]
    Scalar,
}

/// No public key has this signature for this digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is nobody's")]
pub struct NobodysSignature;

impl Signature {
    /// Takes 65 bytes {r, s, v}.
    ///
    /// # Errors
    /// [`SignatureError`] says which rule of the canonical form the bytes break.
    pub fn from_bytes(bytes: &[u8]) -> Result<Signature, SignatureError> {
        let bytes: [u8; 65] = bytes.try_into().map_err(|_| match bytes.len() {
            64 => SignatureError::Compact,
            length => SignatureError::Length(length),
        })?;
        if !matches!(bytes[64], 27 | 28) {
            return Err(SignatureError::RecoveryByte(bytes[64]));
        }
        let scalars = k256::ecdsa::Signature::from_slice(&bytes[..64]).map_err(|_| SignatureError::Scalar)?;
        if scalars.normalize_s().is_some() {
            return Err(SignatureError::HighS);
        }
        Ok(Signature(bytes))
    }

    pub(crate) fn of_parts(scalars: &k256::ecdsa::Signature, odd: bool) -> Signature {
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&scalars.to_bytes());
        bytes[64] = 27 + u8::from(odd);
        Signature::from_bytes(&bytes).expect("made in the canonical form")
    }

    /// The 65 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 65] {
        &self.0
    }
}

/// Whose signature this is, of this digest.
///
/// # Errors
/// [`NobodysSignature`] if it is no key's.
pub fn recover(digest: &[u8; 32], signature: &Signature) -> Result<Address, NobodysSignature> {
    let scalars = k256::ecdsa::Signature::from_slice(&signature.0[..64]).expect("checked when it was made");
    let recovery = RecoveryId::new(signature.0[64] == 28, false);
    let key = VerifyingKey::recover_from_prehash(digest, &scalars, recovery).map_err(|_| NobodysSignature)?;
    Ok(address_of(&key))
}

pub(crate) fn address_of(key: &VerifyingKey) -> Address {
    let point = key.to_encoded_point(false);
    Address::of_point(point.as_bytes()[1..].try_into().expect("an uncompressed point has 65 bytes"))
}

impl fmt::Display for Signature {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, out)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Signature({self})")
    }
}

impl serde::Serialize for Signature {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Signature {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Signature, D::Error> {
        use serde::de::Error;
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        if hex::read::<64>(&text).is_some() {
            return Err(D::Error::custom(SignatureError::Compact));
        }
        let bytes: [u8; 65] =
            hex::read(&text).ok_or_else(|| D::Error::custom("a signature is 0x and 130 hex digits"))?;
        Signature::from_bytes(&bytes).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::{Signature, SignatureError, recover};
    use crate::wallet::WalletKey;

    /// The group's order.
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xba,
        0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
    ];

    fn mirrored(signature: &Signature) -> [u8; 65] {
        let mut bytes = *signature.as_bytes();
        let mut borrow = 0;
        for at in (0..32).rev() {
            let rest = i32::from(ORDER[at]) - i32::from(bytes[32 + at]) - borrow;
            borrow = i32::from(rest < 0);
            bytes[32 + at] = u8::try_from(rest & 255).unwrap();
        }
        bytes[64] = 27 + 28 - bytes[64];
        bytes
    }

    #[test]
    fn only_the_canonical_form_is_taken() {
        let key = WalletKey::from_secret(&[7; 32]).unwrap();
        let signature = key.sign(&[9; 32]);
        let bytes = *signature.as_bytes();
        assert_eq!(Signature::from_bytes(&bytes), Ok(signature));
        assert_eq!(Signature::from_bytes(&mirrored(&signature)), Err(SignatureError::HighS));
        assert_eq!(Signature::from_bytes(&bytes[..64]), Err(SignatureError::Compact));
        assert_eq!(Signature::from_bytes(&bytes[..63]), Err(SignatureError::Length(63)));
        assert_eq!(Signature::from_bytes(&[&bytes[..], &[0]].concat()), Err(SignatureError::Length(66)));
        let with = |from: usize, part: &[u8]| {
            let mut changed = bytes;
            changed[from..from + part.len()].copy_from_slice(part);
            Signature::from_bytes(&changed)
        };
        for v in [0, 1, 26, 29, 255] {
            assert_eq!(with(64, &[v]), Err(SignatureError::RecoveryByte(v)));
        }
        for scalar in [[0; 32], ORDER] {
            assert_eq!(with(0, &scalar), Err(SignatureError::Scalar));
            assert_eq!(with(32, &scalar), Err(SignatureError::Scalar));
        }
    }

    #[test]
    fn a_signature_has_one_signer() {
        let key = WalletKey::from_secret(&[7; 32]).unwrap();
        let signature = key.sign(&[9; 32]);
        assert_eq!(recover(&[9; 32], &signature), Ok(key.address()));
        assert_ne!(recover(&[8; 32], &signature), Ok(key.address()));
    }

    #[test]
    fn json_says_what_is_wrong() {
        let signature = WalletKey::from_secret(&[7; 32]).unwrap().sign(&[9; 32]);
        let text = serde_json::to_string(&signature).unwrap();
        assert_eq!(serde_json::from_str::<Signature>(&text).unwrap(), signature);
        let compact = format!("\"{}\"", &signature.to_string()[..2 + 128]);
        let error = serde_json::from_str::<Signature>(&compact).unwrap_err();
        assert!(error.to_string().contains("EIP-2098"), "{error}");
    }
}

//! BIP-32 private derivation: enough of it to reach m/44'/60'/0'/0/i.

use crate::wallet::DeriveError;
use aws_lc_rs::hmac;
use k256::elliptic_curve::PrimeField;
use k256::elliptic_curve::sec1::ToEncodedPoint;
use k256::{ProjectivePoint, Scalar};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Numbers from here on derive from the secret alone, so that a leaked child key doesn't give away its parent.
const HARDENED: u32 = 1 << 31;

#[derive(Zeroize, ZeroizeOnDrop)]
struct Node {
    secret: Scalar,
    chain: [u8; 32],
}

/// The secret at m/44'/60'/0'/0/`index`.
pub(crate) fn ethereum_account(seed: &[u8], index: u32) -> Result<Zeroizing<[u8; 32]>, DeriveError> {
    derive(seed, &[44 | HARDENED, 60 | HARDENED, HARDENED, 0, index])
}

fn derive(seed: &[u8], path: &[u32]) -> Result<Zeroizing<[u8; 32]>, DeriveError> {
    if !(16..=64).contains(&seed.len()) {
        return Err(DeriveError::SeedLength(seed.len()));
    }
    let (secret, chain) = halves(b"Bitcoin seed", seed)?;
    let mut node = Node { secret, chain };
    for &number in path {
        node = child(&node, number)?;
    }
    Ok(Zeroizing::new(node.secret.to_bytes().into()))
}

fn child(parent: &Node, number: u32) -> Result<Node, DeriveError> {
    let mut data = Zeroizing::new(Vec::with_capacity(37));
    if number >= HARDENED {
        data.push(0);
        data.extend_from_slice(&parent.secret.to_bytes());
    } else {
        let public = (ProjectivePoint::GENERATOR * parent.secret).to_affine().to_encoded_point(true);
        data.extend_from_slice(public.as_bytes());
    }
    data.extend_from_slice(&number.to_be_bytes());
    let (tweak, chain) = halves(&parent.chain, &data)?;
    let secret = tweak + parent.secret;
    if bool::from(secret.is_zero()) {
        return Err(DeriveError::NoKey);
    }
    Ok(Node { secret, chain })
}

fn halves(key: &[u8], data: &[u8]) -> Result<(Scalar, [u8; 32]), DeriveError> {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, key), data);
    let mut left: [u8; 32] = tag.as_ref()[..32].try_into().expect("half of 64 bytes");
    let right = tag.as_ref()[32..].try_into().expect("half of 64 bytes");
    let scalar = Option::<Scalar>::from(Scalar::from_repr(left.into()));
    left.zeroize();
    Ok((scalar.ok_or(DeriveError::NoKey)?, right))
}

#[cfg(test)]
mod tests {
    use super::{HARDENED, derive};
    use crate::hex;

    #[test]
    fn vectors_of_bip_32() {
        // Test vector 1, the private keys inside its extended keys.
        let seed: [u8; 16] = hex::read("000102030405060708090a0b0c0d0e0f").unwrap();
        let path = [HARDENED, 1, 2 | HARDENED, 2, 1_000_000_000];
        for (depth, secret) in [
            (0, "e8f32e723decf4051aefac8e2c93c9c5b214313817cdb01a1494b917c8436b35"),
            (1, "edb2e14f9ee77d26dd93b4ecede8d16ed408ce149b6cd80b0715a2d911a0afea"),
            (2, "3c6cb8d0f6a264c91ea8b5030fadaa8e538b020f0a387421a12de9319dc93368"),
            (3, "cbce0d719ecf7431d88e6a89fa1483e02e35092af60c042b1df2ff59fa424dca"),
            (4, "0f479245fb19a38a1954c5c7c0ebab2f9bdfd96a17563ef28a6a4b1a2a764ef4"),
            (5, "471b76e389e528d6de6d816857e012c5455051cad6660850e58372a6c3e6e7c8"),
        ] {
            assert_eq!(hex::read(secret), Some(*derive(&seed, &path[..depth]).unwrap()), "depth {depth}");
        }
    }

    #[test]
    fn a_secret_with_a_leading_zero_keeps_it() {
        // Test vector 3: implementations that dropped the zero derived another child.
        let seed: [u8; 64] = hex::read(
            "4b381541583be4423346c643850da4b320e46a87ae3d2a4e6da11eba819cd4acba45d239319ac14f863b8d5ab5a0d0c64d2e8a1e7d1457df2e5a3c51c73235be",
        )
        .unwrap();
        for (depth, secret) in [
            (0, "00ddb80b067e0d4993197fe10f2657a844a384589847602d56f0c629c81aae32"),
            (1, "491f7a2eebc7b57028e0d3faa0acda02e75c33b03c48fb288c41e2ea44e1daef"),
        ] {
            assert_eq!(
                hex::read(secret),
                Some(*derive(&seed, &[HARDENED][..depth]).unwrap()),
                "depth {depth}"
            );
        }
    }
}

//! Who this process is on the wire: an Ed25519 key, shown in TLS as a raw public key.

use crate::tls;
use rustls::crypto::aws_lc_rs::sign::any_eddsa_type;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use seedbank_formats::PublicKey;
use seedbank_formats::keys::SigningKey;
use std::sync::Arc;
use zeroize::Zeroizing;

/// PKCS #8 version 1 (RFC 8410) of an Ed25519 private key, up to the seed.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// A key that proves this end of every connection.
#[derive(Clone)]
pub struct Identity {
    public: PublicKey,
    certified: Arc<CertifiedKey>,
}

impl Identity {
    /// The identity of this key.
    #[must_use]
    pub fn new(key: &SigningKey) -> Identity {
        let mut pkcs8 = Zeroizing::new(PKCS8_PREFIX.to_vec());
        pkcs8.extend_from_slice(key.seed());
        let signer = any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_slice()))
            .expect("any 32 bytes are an Ed25519 seed");
        let spki = CertificateDer::from(tls::spki(&key.public()));
        Identity { public: key.public(), certified: Arc::new(CertifiedKey::new(vec![spki], signer)) }
    }

    /// The key by which peers know this end.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Identity({})", self.public)
    }
}

//! TLS 1.3 with raw public keys (RFC 7250) on both sides, and nothing else of TLS.
//!
//! Session tickets, resumption and early data are off: every connection proves both keys afresh, and no request can be
//! replayed. A client refuses a server with another key inside the handshake, before it shows its own.
//!
//! Handshake, key schedule and all decisions about them are rustls's; records after the handshake are `stream`'s.

mod buffers;
mod handshake;
mod record;
mod stream;

pub(crate) use handshake::{accept, connect};
pub(crate) use stream::TlsStream;

use crate::identity::Identity;
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    OtherError, PeerIncompatible, ServerConfig, SignatureScheme,
};
use seedbank_formats::PublicKey;
use seedbank_protocol::routes::ALPN;
use std::io;
use std::sync::{Arc, LazyLock};

/// `SubjectPublicKeyInfo` (RFC 8410) of an Ed25519 key, up to the key.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

static CRYPTO: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));

/// The `SubjectPublicKeyInfo` of a key: what it shows in place of a certificate.
pub(crate) fn spki(key: &PublicKey) -> Vec<u8> {
    [&SPKI_PREFIX[..], key.as_bytes()].concat()
}

/// The Ed25519 key in what a peer showed in place of a certificate, if it is one, and one that proves somebody.
fn key_of_spki(spki: &[u8]) -> Option<PublicKey> {
    let key = PublicKey(spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?);
    (!key.is_anybodys()).then_some(key)
}

/// The key that the other end of a finished handshake proved.
fn key_of(shown: Option<&[CertificateDer<'_>]>) -> Option<PublicKey> {
    match shown {
        Some([spki]) => key_of_spki(spki),
        _ => None,
    }
}

/// A server answered that is not the one dialled.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("another peer answers: {found}")]
pub(crate) struct WrongKey {
    pub(crate) found: PublicKey,
}

/// The key of the server that answered, if a handshake failed because of it.
pub(crate) fn wrong_key(error: &io::Error) -> Option<WrongKey> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::Other(OtherError(inner)) => inner.downcast_ref::<WrongKey>().copied(),
        _ => None,
    }
}

/// Whether a handshake failed because the server knows no protocol of ours.
pub(crate) fn is_wrong_version(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    matches!(cause, Some(Error::AlertReceived(AlertDescription::NoApplicationProtocol)))
}

pub(crate) fn server_config(identity: &Identity) -> Arc<ServerConfig> {
    let resolver = AlwaysResolvesServerRawPublicKeys::new(identity.certified());
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&CRYPTO))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the crypto library has TLS 1.3 suites")
        .with_client_cert_verifier(Arc::new(AnyClient))
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![ALPN.as_bytes().to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    // For `stream`, which seals and opens records itself.
    config.enable_secret_extraction = true;
    Arc::new(config)
}

pub(crate) fn client_config(identity: &Identity, server: PublicKey) -> Arc<ClientConfig> {
    let resolver = AlwaysResolvesClientRawPublicKeys::new(identity.certified());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&CRYPTO))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the crypto library has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ExpectedServer(server)))
        .with_client_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![ALPN.as_bytes().to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_secret_extraction = true;
    // A peer is its key: it has no name to indicate.
    config.enable_sni = false;
    Arc::new(config)
}

/// rustls wants a name even when none is indicated.
pub(crate) fn no_name() -> ServerName<'static> {
    ServerName::try_from("seedbank").expect("a valid host name")
}

fn algorithms() -> &'static WebPkiSupportedAlgorithms {
    &CRYPTO.signature_verification_algorithms
}

fn shown_key(end_entity: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<PublicKey, Error> {
    match key_of_spki(end_entity) {
        Some(key) if others.is_empty() => Ok(key),
        _ => Err(CertificateError::BadEncoding.into()),
    }
}

/// What both verifiers have in common: TLS 1.3, raw keys, Ed25519.
macro_rules! raw_key_proofs {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let spki = SubjectPublicKeyInfoDer::from(cert.as_ref());
            verify_tls13_signature_with_raw_key(message, &spki, signed, algorithms())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

/// Takes the server with this key and no other.
#[derive(Debug)]
struct ExpectedServer(PublicKey);

impl ServerCertVerifier for ExpectedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = shown_key(end_entity, intermediates)?;
        if found != self.0 {
            return Err(OtherError(Arc::new(WrongKey { found })).into());
        }
        Ok(ServerCertVerified::assertion())
    }

    raw_key_proofs!();
}

/// Takes any client that proves a key; what that key may do is decided for each request.
#[derive(Debug)]
struct AnyClient;

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        shown_key(end_entity, intermediates).map(|_| ClientCertVerified::assertion())
    }

    raw_key_proofs!();
}

#[cfg(test)]
mod tests {
    use super::{key_of_spki, spki};
    use seedbank_formats::PublicKey;

    #[test]
    fn key_reads_back_from_its_spki_and_from_nothing_else() {
        let key = PublicKey([7; 32]);
        let shown = spki(&key);
        assert_eq!(key_of_spki(&shown), Some(key));
        assert_eq!(key_of_spki(&shown[..43]), None);
        assert_eq!(key_of_spki(&[&shown[..], &[0]].concat()), None);
        assert_eq!(key_of_spki(&spki(&PublicKey([0; 32]))), None, "anybody proves this key");
        let mut x25519 = shown;
        x25519[8] = 0x6e;
        assert_eq!(key_of_spki(&x25519), None);
    }
}

//! Servers with scripted handlers, and both ends of TLS without our HTTP, for peers that misbehave.

use bytes::Bytes;
use http::{Request, Response};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_eddsa_type};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use seedbank_formats::PublicKey;
use seedbank_formats::keys::SigningKey;
use seedbank_transport::{
    AnswerMax, Body, Call, CallError, Client, ClientLimits, Handler, Identity, PeerAddress, Progress, Server,
    ServerLimits, TcpDial,
};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub(crate) const SERVER_SEED: u8 = 1;
pub(crate) const CLIENT_SEED: u8 = 2;

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32])
}

pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Far above what an honest local peer needs, far below what a person would wait.
pub(crate) const SOON: Duration = Duration::from_millis(150);

/// Limits whose deadlines pass while a test waits for them.
pub(crate) fn short_server_limits() -> ServerLimits {
    ServerLimits {
        handshake: SOON,
        idle: SOON,
        progress: Progress { window: SOON, bytes_min: 64 * 1024 },
        ..ServerLimits::default()
    }
}

pub(crate) fn short_client_limits() -> ClientLimits {
    ClientLimits {
        answer: SOON,
        progress: Progress { window: SOON, bytes_min: 64 * 1024 },
        ..ClientLimits::default()
    }
}

/// A handler from an async closure.
pub(crate) struct Script<F>(pub(crate) F);

impl<F, A> Handler for Script<F>
where
    F: Fn(Call) -> A + Send + Sync + 'static,
    A: Future<Output = Response<Body>> + Send,
{
    fn handle(&self, call: Call) -> impl Future<Output = Response<Body>> + Send {
        (self.0)(call)
    }
}

pub(crate) async fn serve<F, A>(limits: ServerLimits, script: F) -> (Server, PeerAddress)
where
    F: Fn(Call) -> A + Send + Sync + 'static,
    A: Future<Output = Response<Body>> + Send,
{
    let identity = Identity::new(&key(SERVER_SEED));
    let server = Server::bind(any_port(), &identity, limits, Script(script)).await.unwrap();
    let peer = peer_at(server.local_address());
    (server, peer)
}

pub(crate) fn peer_at(address: SocketAddr) -> PeerAddress {
    PeerAddress { key: key(SERVER_SEED).public(), address: address.to_string() }
}

pub(crate) async fn say_hello(_call: Call) -> Response<Body> {
    Response::new(Body::from(Bytes::from_static(b"hello")))
}

pub(crate) fn client(limits: ClientLimits) -> Client {
    Client::new(&Identity::new(&key(CLIENT_SEED)), TcpDial, limits)
}

pub(crate) fn get(path: &str) -> Request<Bytes> {
    Request::get(path).body(Bytes::new()).unwrap()
}

pub(crate) fn put(path: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    Request::put(path).body(body.into()).unwrap()
}

pub(crate) const MAX: AnswerMax = AnswerMax { success: 1 << 20, refusal: 1 << 10 };

/// The body of an answer to a plain GET.
pub(crate) async fn fetch(client: &Client, peer: &PeerAddress) -> Result<Bytes, CallError> {
    client.call(peer, &get("/"), MAX).await.map(Response::into_body)
}

pub(crate) async fn assert_serves(peer: &PeerAddress) {
    assert_eq!(fetch(&client(ClientLimits::default()), peer).await.unwrap(), "hello");
}

/// Reads to the end. A peer that closed hard has ended as well.
pub(crate) async fn read_to_end(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

fn certified(key: &SigningKey) -> Arc<CertifiedKey> {
    let pkcs8 = [
        &[0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20][..],
        key.seed(),
    ]
    .concat();
    let signer = any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8)).unwrap();
    let spki = signer.public_key().unwrap().to_vec();
    Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signer))
}

/// TLS to a server, with these protocols offered and a chance to send anything.
pub(crate) async fn raw_client(
    address: SocketAddr,
    protocols: &[&str],
) -> io::Result<client::TlsStream<TcpStream>> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified(&key(
            CLIENT_SEED,
        )))));
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("any").unwrap(), stream).await
}

/// A listener whose connections speak TLS as the server and then do as they please.
pub(crate) struct RawServer {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl RawServer {
    pub(crate) async fn bind(protocols: &[&str]) -> (RawServer, PeerAddress) {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(Arc::new(Anyone))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(&key(
                SERVER_SEED,
            )))));
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let listener = TcpListener::bind(any_port()).await.unwrap();
        let peer = peer_at(listener.local_addr().unwrap());
        (RawServer { listener, acceptor: TlsAcceptor::from(Arc::new(config)) }, peer)
    }

    pub(crate) async fn accept(&self) -> io::Result<server::TlsStream<TcpStream>> {
        let (stream, _) = self.listener.accept().await?;
        self.acceptor.accept(stream).await
    }
}

/// Reads one request without a body.
pub(crate) async fn read_head(stream: &mut server::TlsStream<TcpStream>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
}

pub(crate) async fn write(stream: &mut server::TlsStream<TcpStream>, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}

/// Believes whatever key it is shown.
#[derive(Debug)]
struct Anyone;

impl Anyone {
    fn proof(
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature_with_raw_key(
            message,
            &cert.as_ref().into(),
            signed,
            &algorithms,
        )
    }
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        unreachable!("TLS 1.2 is off")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Anyone::proof(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Anyone {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        unreachable!("TLS 1.2 is off")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Anyone::proof(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The key that the clients of these tests prove.
pub(crate) fn client_key() -> PublicKey {
    key(CLIENT_SEED).public()
}

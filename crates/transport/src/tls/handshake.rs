//! Carries rustls's handshake over a stream, and takes the keys over when it is done.

use super::stream::{Keys, Opened, TlsStream};
use super::{key_of, no_name, record};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, Error, ExtractedSecrets, ServerConfig};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Flights of both ends fit into one record each: keys instead of certificates, and no names.
const RECEIVED_MAX: usize = record::RECORD_MAX;

/// Proves our key to a server, and the server's to us.
pub(crate) async fn connect<S>(config: Arc<ClientConfig>, socket: S) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    finish(UnbufferedClientConnection::new(config, no_name()).map_err(broken)?, socket).await
}

/// Proves our key to a client, and the client's to us.
pub(crate) async fn accept<S>(config: Arc<ServerConfig>, socket: S) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    finish(UnbufferedServerConnection::new(config).map_err(broken)?, socket).await
}

pub(super) fn broken(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Either end of a handshake: rustls has the same calls on two types.
trait Party: std::ops::Deref<Target: std::ops::Deref<Target = CommonState>> {
    type Data;

    fn process<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn into_keys(self) -> Result<(ExtractedSecrets, Keys), Error>;
}

impl Party for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(received)
    }

    fn into_keys(self) -> Result<(ExtractedSecrets, Keys), Error> {
        let (secrets, keys): (_, KernelConnection<_>) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Keys::Client(keys)))
    }
}

impl Party for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(received)
    }

    fn into_keys(self) -> Result<(ExtractedSecrets, Keys), Error> {
        let (secrets, keys): (_, KernelConnection<_>) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Keys::Server(keys)))
    }
}

/// What a handshake wants next.
enum Step {
    Again,
    Send,
    Receive,
    Done,
}

/// The bytes of a handshake on their way.
struct Flights {
    received: Vec<u8>,
    to_send: Vec<u8>,
    /// What the peer sent right behind its last flight.
    early: Vec<u8>,
    peer_closed: bool,
}

impl Flights {
    fn step<P: Party>(&mut self, party: &mut P) -> Result<Step, Error> {
        let UnbufferedStatus { discard, state, .. } = party.process(&mut self.received);
        let step = match state {
            Err(error) => Err(error),
            Ok(ConnectionState::EncodeTlsData(mut message)) => {
                let start = self.to_send.len();
                if let Err(EncodeError::InsufficientSize(size)) = message.encode(&mut []) {
                    self.to_send.resize(start + size.required_size, 0);
                    let encoded = message.encode(&mut self.to_send[start..]);
                    debug_assert!(encoded.is_ok(), "the room that was asked for is there");
                }
                Ok(Step::Again)
            }
            Ok(ConnectionState::TransmitTlsData(sending)) => {
                // It goes before anything else is processed.
                sending.done();
                Ok(Step::Send)
            }
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                let mut outcome = Ok(Step::Again);
                while let Some(data) = traffic.next_record() {
                    match data {
                        Ok(data) => self.early.extend_from_slice(data.payload),
                        Err(error) => outcome = Err(error),
                    }
                }
                outcome
            }
            Ok(ConnectionState::PeerClosed) => {
                self.peer_closed = true;
                Ok(Step::Again)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Step::Receive),
            Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Done),
            Ok(ConnectionState::ReadEarlyData(_)) => Err(Error::General("early data is off".to_owned())),
            Ok(_) => Err(Error::General("closed".to_owned())),
        };
        self.received.drain(..discard);
        step
    }

    async fn send<S: AsyncWrite + Unpin>(&mut self, socket: &mut S) -> io::Result<()> {
        socket.write_all(&self.to_send).await?;
        self.to_send.clear();
        socket.flush().await
    }

    async fn receive<S: AsyncRead + Unpin>(&mut self, socket: &mut S) -> io::Result<()> {
        let room = RECEIVED_MAX.saturating_sub(self.received.len());
        if room == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a flight of the handshake is too long"));
        }
        let room = u64::try_from(room).expect("a record is countable");
        if self.peer_closed || (&mut *socket).take(room).read_buf(&mut self.received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Tells the peer why its handshake failed, if it listens.
    async fn send_alert<P: Party, S: AsyncWrite + Unpin>(&mut self, party: &mut P, socket: &mut S) {
        // And no further: what failed must not be looked at again.
        while party.wants_write() && matches!(self.step(party), Ok(Step::Again)) {}
        let _gone = self.send(socket).await;
    }
}

async fn finish<P: Party, S: AsyncRead + AsyncWrite + Unpin>(
    mut party: P,
    mut socket: S,
) -> io::Result<TlsStream<S>> {
    let mut flights = Flights {
        received: Vec::with_capacity(2_048),
        to_send: Vec::new(),
        early: Vec::new(),
        peer_closed: false,
    };
    loop {
        match flights.step(&mut party) {
            Ok(Step::Again) => {}
            Ok(Step::Send) => flights.send(&mut socket).await?,
            Ok(Step::Receive) => flights.receive(&mut socket).await?,
            Ok(Step::Done) => break,
            Err(error) => {
                flights.send_alert(&mut party, &mut socket).await;
                return Err(broken(error));
            }
        }
    }
    let opened = Opened {
        peer: key_of(party.peer_certificates()),
        protocol: party.alpn_protocol().map(<[u8]>::to_vec),
        early: flights.early,
        received: flights.received,
        peer_closed: flights.peer_closed,
    };
    let (secrets, keys) = party.into_keys().map_err(broken)?;
    TlsStream::new(socket, opened, secrets, keys).map_err(broken)
}

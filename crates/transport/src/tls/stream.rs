//! A connection after its handshake.
//!
//! rustls would copy every byte three times between the socket and its user, and ask the socket for one record at a
//! time. Here the keys are ours, the way the kernel would take them over: what is sent is encrypted straight from the
//! caller's bytes into the buffer that the socket takes, several records for each write; what is received is decrypted
//! where it lies and copied once, to the caller. rustls keeps the key schedule.
//!
//! Of what may come after a handshake this knows data, `close_notify`, key updates and (to ignore them) session
//! tickets. Everything else ends the connection.

use super::buffers::Buffer;
use super::handshake::broken;
use super::record::{Content, Fault, OVERHEAD, Opener, PLAINTEXT_MAX, RECORDS_PER_KEY_MAX, Sealer};
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{Error, ExtractedSecrets};
use seedbank_formats::PublicKey;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const WARNING: u8 = 1;
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;
const NEW_SESSION_TICKET: u8 = 4;
/// A key update is a whole message of one byte: whether an answer is wanted.
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];
/// Records in a row that carry no data. Each costs us work and the peer nothing.
const CHATTER_MAX: u32 = 32;
/// What must fit beside data: a key update and an alert.
const CONTROL_ROOM: usize = 2 * (OVERHEAD + KEY_UPDATE.len() + 1);

/// The key schedule, for updates.
pub(super) enum Keys {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

/// What a handshake gave, beside keys.
pub(super) struct Opened {
    pub(super) peer: Option<PublicKey>,
    pub(super) protocol: Option<Vec<u8>>,
    /// Data that came with the last flight, opened already.
    pub(super) early: Vec<u8>,
    /// Bytes behind that, not opened yet.
    pub(super) received: Vec<u8>,
    pub(super) peer_closed: bool,
}

/// A stream of plaintext over a stream of records.
pub(crate) struct TlsStream<S> {
    socket: S,
    peer: Option<PublicKey>,
    protocol: Option<Vec<u8>>,
    keys: Keys,
    opener: Opener,
    sealer: Sealer,
    records_per_key_max: u64,
    early: Vec<u8>,
    inbox: Buffer,
    /// Plaintext at the front of the inbox that nobody took yet, and the rest of its record behind it.
    plain: usize,
    trailer: usize,
    chatter: u32,
    incoming: Incoming,
    outbox: Buffer,
    outgoing: Outgoing,
    /// The peer asked for new keys of ours.
    update_wanted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Incoming {
    Open,
    /// The peer said that it sends no more.
    Ended,
    Failed(Fault),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outgoing {
    Open,
    /// We said that we send no more.
    Ended,
}

impl<S> TlsStream<S> {
    pub(super) fn new(
        socket: S,
        opened: Opened,
        secrets: ExtractedSecrets,
        keys: Keys,
    ) -> Result<TlsStream<S>, Error> {
        let mut inbox = Buffer::default();
        if !opened.received.is_empty() {
            inbox.room()[..opened.received.len()].copy_from_slice(&opened.received);
            inbox.fill(opened.received.len());
        }
        Ok(TlsStream {
            socket,
            peer: opened.peer,
            protocol: opened.protocol,
            keys,
            opener: Opener::new(secrets.rx)?,
            sealer: Sealer::new(secrets.tx)?,
            records_per_key_max: RECORDS_PER_KEY_MAX,
            early: opened.early,
            inbox,
            plain: 0,
            trailer: 0,
            chatter: 0,
            incoming: if opened.peer_closed { Incoming::Ended } else { Incoming::Open },
            outbox: Buffer::default(),
            outgoing: Outgoing::Open,
            update_wanted: false,
        })
    }

    /// The key that the other end proved.
    pub(crate) fn peer(&self) -> Option<PublicKey> {
        self.peer
    }

    /// What both ends agreed to speak.
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        self.protocol.as_deref()
    }

    /// Gives the caller what is opened; says whether that was anything.
    fn deliver(&mut self, out: &mut ReadBuf<'_>) -> bool {
        if !self.early.is_empty() {
            let count = self.early.len().min(out.remaining());
            out.put_slice(&self.early[..count]);
            self.early.drain(..count);
            return count > 0;
        }
        let count = self.plain.min(out.remaining());
        out.put_slice(&self.inbox.filled()[..count]);
        self.inbox.consume(count);
        self.plain -= count;
        if self.plain == 0 {
            self.inbox.consume(std::mem::take(&mut self.trailer));
        }
        count > 0
    }

    /// Opens the next whole record, if it is there. Says whether there was one.
    fn open_next(&mut self) -> Result<bool, Fault> {
        let Some(length) = Opener::record_len(self.inbox.filled())? else {
            return Ok(false);
        };
        let record = &mut self.inbox.filled_mut()[..length];
        let (content, plain) = self.opener.open(record)?;
        if content == Content::Data && !plain.is_empty() {
            self.chatter = 0;
            self.inbox.consume(plain.start);
            (self.plain, self.trailer) = (plain.len(), length - plain.end);
            return Ok(true);
        }
        self.chatter += 1;
        if self.chatter > CHATTER_MAX {
            return Err(Fault::Chatter);
        }
        match (content, &record[plain]) {
            (Content::Data, _) | (Content::Alert, [_, USER_CANCELED]) => {}
            (Content::Alert, [_, CLOSE_NOTIFY]) => self.incoming = Incoming::Ended,
            (Content::Alert, [_, alert]) => return Err(Fault::Alert(*alert)),
            (Content::Alert, _) => return Err(Fault::Undecodable),
            (Content::Handshake, [rest @ .., wanted @ (0 | 1)]) if rest == KEY_UPDATE => {
                self.update_wanted |= *wanted == 1;
                let secrets = match &mut self.keys {
                    Keys::Client(keys) => keys.update_rx_secret(),
                    Keys::Server(keys) => keys.update_rx_secret(),
                };
                self.opener = secrets.and_then(Opener::new).map_err(|_| Fault::Unexpected)?;
            }
            (Content::Handshake, [NEW_SESSION_TICKET, ..]) if matches!(self.keys, Keys::Client(_)) => {}
            (Content::Handshake, _) => return Err(Fault::Unexpected),
        }
        self.inbox.consume(length);
        Ok(true)
    }

    /// Appends a record to what is sent. The caller sees to the room.
    fn queue(&mut self, content: Content, bytes: &[u8]) {
        let length = self.sealer.seal(content, bytes, self.outbox.room());
        self.outbox.fill(length);
    }

    /// Changes our keys when the peer wishes so, or when they have served long enough.
    fn renew_keys(&mut self) -> io::Result<()> {
        if !self.update_wanted && self.sealer.sealed() < self.records_per_key_max {
            return Ok(());
        }
        let [kind, a, b, c] = KEY_UPDATE;
        self.queue(Content::Handshake, &[kind, a, b, c, 0]);
        let secrets = match &mut self.keys {
            Keys::Client(keys) => keys.update_tx_secret(),
            Keys::Server(keys) => keys.update_tx_secret(),
        };
        self.sealer = secrets.and_then(Sealer::new).map_err(broken)?;
        self.update_wanted = false;
        Ok(())
    }

    /// Seals as many bytes as there is room for; says how many.
    fn seal(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut taken = 0;
        for bytes in slices {
            for piece in bytes.chunks(PLAINTEXT_MAX) {
                if self.outbox.room().len() < piece.len() + OVERHEAD + CONTROL_ROOM {
                    return Ok(taken);
                }
                self.renew_keys()?;
                self.queue(Content::Data, piece);
                taken += piece.len();
            }
        }
        Ok(taken)
    }
}

impl<S: AsyncWrite + Unpin> TlsStream<S> {
    /// Hands everything that is sealed to the socket.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.filled().is_empty() {
            let sent = ready!(Pin::new(&mut self.socket).poll_write(context, self.outbox.filled()))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outbox.consume(sent);
        }
        self.outbox.release();
        Poll::Ready(Ok(()))
    }

    fn poll_write_slices(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.outgoing == Outgoing::Ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_drain(context))?;
        let taken = self.seal(slices)?;
        match self.poll_drain(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // What the socket did not take yet goes with the next write or flush.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken)),
        }
    }

    /// Remembers a peer's fault and tells it, if it can be told at once.
    fn fail(&mut self, context: &mut Context<'_>, fault: Fault) -> io::Error {
        self.incoming = Incoming::Failed(fault);
        if let (Some(alert), Outgoing::Open) = (fault.alert(), self.outgoing)
            && self.outbox.room().len() >= CONTROL_ROOM
        {
            self.queue(Content::Alert, &[FATAL, alert]);
            let _untold = self.poll_drain(context);
        }
        self.outgoing = Outgoing::Ended;
        io::Error::new(io::ErrorKind::InvalidData, fault)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut delivered = false;
        loop {
            delivered |= this.deliver(out);
            if out.remaining() == 0 {
                break;
            }
            match this.incoming {
                Incoming::Ended => break,
                Incoming::Failed(_) if delivered => break,
                Incoming::Failed(fault) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault)));
                }
                Incoming::Open => {}
            }
            match this.open_next() {
                Ok(true) => continue,
                Ok(false) if delivered => break,
                Ok(false) => {}
                Err(fault) => {
                    let error = this.fail(context, fault);
                    if delivered {
                        break;
                    }
                    return Poll::Ready(Err(error));
                }
            }
            let mut room = ReadBuf::new(this.inbox.room());
            let received = Pin::new(&mut this.socket).poll_read(context, &mut room);
            let count = room.filled().len();
            match received {
                Poll::Ready(Ok(())) if count > 0 => this.inbox.fill(count),
                Poll::Ready(Ok(())) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    this.inbox.release();
                    return Poll::Pending;
                }
            }
        }
        this.inbox.release();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_slices(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_slices(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(context))?;
        if self.outgoing == Outgoing::Open {
            self.queue(Content::Alert, &[WARNING, CLOSE_NOTIFY]);
            self.outgoing = Outgoing::Ended;
            ready!(self.poll_drain(context))?;
        }
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;

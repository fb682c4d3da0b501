//! Bodies that a server receives: read piece by piece, by a peer that may not dawdle.

use crate::pace::{Pace, Progress};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use seedbank_protocol::routes::UNASKED_BODY_BYTES_MAX;
use tokio::sync::oneshot;

/// Why a request's body can't be had. The connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum IncomingError {
    /// More bytes than the reader wants.
    #[error("the body is longer than {limit} bytes")]
    TooLong {
        /// The most that was wanted.
        limit: usize,
    },
    /// The client sends too slowly.
    #[error("the body comes too slowly")]
    TooSlow,
    /// The client went away, or what it sends is no HTTP.
    #[error("the body broke off")]
    Broken(#[source] hyper::Error),
}

/// A request's body. Unless it is read, a client that waits for the go-ahead does not send it; a short one that nobody
/// read is drained, so that the connection lives on.
#[derive(Debug)]
pub struct Incoming {
    body: Option<hyper::body::Incoming>,
    pace: Pace,
    waits: Waits,
    /// Takes the body back when it is dropped unread.
    back: Option<oneshot::Sender<Incoming>>,
}

/// Whether the client holds the body back until it is told to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    ForGoAhead,
    No,
}

impl Incoming {
    /// A body, and where it comes back to if it is not read to its end.
    pub(crate) fn new(
        body: hyper::body::Incoming,
        waits: Waits,
        progress: Progress,
    ) -> (Incoming, oneshot::Receiver<Incoming>) {
        let (back, returned) = oneshot::channel();
        (Incoming { body: Some(body), pace: Pace::new(progress), waits, back: Some(back) }, returned)
    }

    /// How many bytes are still to come, if the client said so; 0 when there is no body.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        match &self.body {
            Some(body) => body.size_hint().exact(),
            None => Some(0),
        }
    }

    /// The next bytes, or `None` at the end.
    ///
    /// # Errors
    /// [`IncomingError::TooSlow`] or [`IncomingError::Broken`].
    pub async fn next(&mut self) -> Option<Result<Bytes, IncomingError>> {
        self.waits = Waits::No;
        loop {
            let frame = match self.pace.wait(self.body.as_mut()?.frame()).await {
                None => return Some(Err(IncomingError::TooSlow)),
                Some(None) => {
                    self.body = None;
                    return None;
                }
                Some(Some(Err(error))) => return Some(Err(IncomingError::Broken(error))),
                Some(Some(Ok(frame))) => frame,
            };
            // Trailers say nothing in this protocol.
            if let Ok(bytes) = frame.into_data() {
                self.pace.moved(bytes.len());
                return Some(Ok(bytes));
            }
        }
    }

    /// The whole body, if it has at most `limit` bytes.
    ///
    /// # Errors
    /// [`IncomingError`].
    pub async fn read_all(&mut self, limit: usize) -> Result<Bytes, IncomingError> {
        let announced = self.length().unwrap_or(0);
        let capacity = usize::try_from(announced).unwrap_or(usize::MAX);
        if capacity > limit {
            return Err(IncomingError::TooLong { limit });
        }
        let mut whole = BytesMut::with_capacity(capacity);
        while let Some(piece) = self.next().await {
            let piece = piece?;
            if piece.len() > limit - whole.len() {
                return Err(IncomingError::TooLong { limit });
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// Reads and forgets what is left, if that is little and already on its way.
    pub(crate) async fn drain(mut self) {
        self.back = None;
        let short = self.length().is_some_and(|left| left <= UNASKED_BODY_BYTES_MAX);
        if short && self.waits == Waits::No {
            while let Some(Ok(_)) = self.next().await {}
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let (Some(back), Some(body)) = (self.back.take(), self.body.take()) {
            let pace = std::mem::replace(&mut self.pace, Pace::new(Progress::default()));
            // Nobody takes it back when the connection is gone.
            let _ = back.send(Incoming { body: Some(body), pace, waits: self.waits, back: None });
        }
    }
}

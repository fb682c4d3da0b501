//! Bodies that we send: bytes that are there already, or bytes that a producer makes as the peer takes them.

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot};

/// The pieces that a body is written in: large enough that their handling costs nothing beside their encryption,
/// small enough that a few in a queue cost no memory.
pub const FRAME_BYTES: usize = 256 * 1024;

/// One piece is being written while the next is made.
const FRAMES_WAITING: usize = 1;

/// A body of known length.
#[derive(Debug)]
pub struct Body(Kind);

#[derive(Debug)]
enum Kind {
    Whole(Bytes),
    /// Waits for the peer's go-ahead.
    Gated {
        gate: oneshot::Receiver<()>,
        rest: Bytes,
    },
    Produced {
        frames: mpsc::Receiver<Bytes>,
        remaining: u64,
    },
}

/// Why a body broke off. The connection is closed, so that the peer can't take a part for the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The producer stopped before the promised length.
    #[error("the body ended {missing} bytes early")]
    Short {
        /// How many bytes are missing.
        missing: u64,
    },
    /// The producer made more than it had promised.
    #[error("the body is longer than promised")]
    Long,
}

impl Body {
    /// No bytes.
    #[must_use]
    pub fn empty() -> Body {
        Body(Kind::Whole(Bytes::new()))
    }

    /// A body of exactly `length` bytes and the end that feeds it, from a task or from a blocking thread. The feeding
    /// end waits while the peer is slow; when it goes away early, the body breaks off.
    #[must_use]
    pub fn produced(length: u64) -> (BodySender, Body) {
        let (sender, frames) = mpsc::channel(FRAMES_WAITING);
        (BodySender { frames: sender }, Body(Kind::Produced { frames, remaining: length }))
    }

    /// A body that is held back until the other end of `gate` says so.
    pub(crate) fn gated(bytes: Bytes, gate: oneshot::Receiver<()>) -> Body {
        Body(Kind::Gated { gate, rest: bytes })
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        Body(Kind::Whole(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Body {
        Body::from(Bytes::from(bytes))
    }
}

fn next_frame(rest: &mut Bytes) -> Option<Result<Frame<Bytes>, BodyError>> {
    if rest.is_empty() {
        return None;
    }
    Some(Ok(Frame::data(rest.split_to(rest.len().min(FRAME_BYTES)))))
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).expect("bytes in memory are countable")
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Kind::Whole(rest) => Poll::Ready(next_frame(rest)),
            Kind::Gated { gate, rest } => match Pin::new(gate).poll(context) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(())) => {
                    let mut rest = std::mem::take(rest);
                    let frame = next_frame(&mut rest);
                    self.0 = Kind::Whole(rest);
                    Poll::Ready(frame)
                }
                Poll::Ready(Err(_closed)) => {
                    Poll::Ready(Some(Err(BodyError::Short { missing: length(rest) })))
                }
            },
            Kind::Produced { frames, remaining } => {
                if *remaining == 0 {
                    return Poll::Ready(None);
                }
                let Poll::Ready(frame) = frames.poll_recv(context) else {
                    return Poll::Pending;
                };
                let Some(frame) = frame else {
                    return Poll::Ready(Some(Err(BodyError::Short { missing: *remaining })));
                };
                match remaining.checked_sub(length(&frame)) {
                    None => Poll::Ready(Some(Err(BodyError::Long))),
                    Some(left) => {
                        *remaining = left;
                        Poll::Ready(Some(Ok(Frame::data(frame))))
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.0 {
            Kind::Whole(rest) | Kind::Gated { rest, .. } => length(rest),
            Kind::Produced { remaining, .. } => *remaining,
        })
    }
}

/// Feeds a produced body.
#[derive(Debug)]
pub struct BodySender {
    frames: mpsc::Sender<Bytes>,
}

/// Nobody reads the body any more: the producer can stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody reads the body any more")]
pub struct ReaderGone;

impl BodySender {
    /// Hands over the next piece, best of [`FRAME_BYTES`], and waits while the peer is slow.
    ///
    /// # Errors
    /// [`ReaderGone`].
    pub async fn send(&self, piece: Bytes) -> Result<(), ReaderGone> {
        self.frames.send(piece).await.map_err(|_| ReaderGone)
    }

    /// As [`BodySender::send`], for a thread that may block.
    ///
    /// # Errors
    /// [`ReaderGone`].
    pub fn blocking_send(&self, piece: Bytes) -> Result<(), ReaderGone> {
        self.frames.blocking_send(piece).map_err(|_| ReaderGone)
    }
}

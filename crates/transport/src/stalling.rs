//! A stream that fails when its peer takes bytes too slowly, and counts what comes and goes.
//!
//! HTTP has deadlines for what it reads; what it writes only waits. Without this a peer that stops reading would hold
//! a connection and its buffers for ever.

use crate::pace::Progress;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// Bytes of plaintext that went through a stream.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Traffic {
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// Wraps the plaintext side of a connection.
#[derive(Debug)]
pub(crate) struct Stalling<S> {
    stream: S,
    progress: Progress,
    /// Runs while `armed`: from the first write that had to wait.
    timer: Pin<Box<Sleep>>,
    armed: bool,
    moved: u64,
    traffic: Arc<Traffic>,
}

impl<S> Stalling<S> {
    pub(crate) fn new(stream: S, progress: Progress) -> Stalling<S> {
        Stalling {
            stream,
            progress,
            timer: Box::pin(sleep(progress.window)),
            armed: false,
            moved: 0,
            traffic: Arc::default(),
        }
    }

    /// Counts what comes and goes.
    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    fn wrote(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match outcome {
            Poll::Ready(Ok(bytes)) => {
                let wrote = u64::try_from(bytes).unwrap_or(u64::MAX);
                self.traffic.sent.fetch_add(wrote, Ordering::Relaxed);
                self.moved = self.moved.saturating_add(wrote);
                if self.moved >= self.progress.bytes_min {
                    self.armed = false;
                }
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.waiting(context).map(Err),
        }
    }

    fn emptied(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        match outcome {
            Poll::Ready(result) => {
                self.armed = false;
                Poll::Ready(result)
            }
            Poll::Pending => self.waiting(context).map(Err),
        }
    }

    fn waiting(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if !self.armed {
            self.armed = true;
            self.moved = 0;
            self.timer.as_mut().reset(Instant::now() + self.progress.window);
        }
        self.timer
            .as_mut()
            .poll(context)
            .map(|()| io::Error::new(io::ErrorKind::TimedOut, "the peer takes bytes too slowly"))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        let came = buffer.filled().len().saturating_sub(before);
        self.traffic.received.fetch_add(u64::try_from(came).unwrap_or(u64::MAX), Ordering::Relaxed);
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.emptied(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.emptied(context, outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::Stalling;
    use crate::pace::Progress;
    use std::io::ErrorKind;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    fn progress() -> Progress {
        Progress { window: Duration::from_secs(30), bytes_min: 1_000 }
    }

    #[tokio::test(start_paused = true)]
    async fn peer_that_stops_reading_is_noticed() {
        let (near, _far) = duplex(64);
        let error = Stalling::new(near, progress()).write_all(&[0; 100]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn peer_that_reads_a_byte_at_a_time_is_noticed_and_a_slow_but_fair_one_is_not() {
        for (pause, outcome) in
            [(Duration::from_secs(1), Err(ErrorKind::TimedOut)), (Duration::from_millis(20), Ok(()))]
        {
            let (near, mut far) = duplex(64);
            let reader = tokio::spawn(async move {
                while far.read_u8().await.is_ok() {
                    tokio::time::sleep(pause).await;
                }
            });
            let mut stream = Stalling::new(near, progress());
            assert_eq!(stream.write_all(&[0; 5_000]).await.map_err(|error| error.kind()), outcome);
            drop(stream);
            reader.await.unwrap();
        }
    }
}

//! How slow a peer may be: a floor under the rate, measured only while we wait for the peer.

use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The slowest that bytes may come or go. A deadline for each piece alone would let a peer hold a connection for ever
/// with one byte at a time; a deadline for the whole would punish long bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// How long we wait for `bytes_min`.
    pub window: Duration,
    /// How many bytes must move in a window, unless fewer are left.
    pub bytes_min: u64,
}

impl Default for Progress {
    /// 64 KiB in 30 seconds: some 2 KiB/s, slower than any link worth the connection.
    fn default() -> Progress {
        Progress { window: Duration::from_secs(30), bytes_min: 64 * 1024 }
    }
}

/// Measures one body against the floor.
#[derive(Debug)]
pub(crate) struct Pace {
    progress: Progress,
    left: Duration,
    moved: u64,
}

impl Pace {
    pub(crate) fn new(progress: Progress) -> Pace {
        Pace { progress, left: progress.window, moved: 0 }
    }

    /// Waits for the peer, and gives up when its window is used up.
    pub(crate) async fn wait<F: Future>(&mut self, peer: F) -> Option<F::Output> {
        let start = Instant::now();
        let output = timeout(self.left, peer).await.ok();
        self.left = self.left.saturating_sub(start.elapsed());
        output
    }

    /// Bytes came or went: enough of them open the next window.
    pub(crate) fn moved(&mut self, bytes: usize) {
        self.moved = self.moved.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if self.moved >= self.progress.bytes_min {
            self.moved = 0;
            self.left = self.progress.window;
        }
    }
}

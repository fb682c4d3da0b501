//! Looks at the memory of processes again and again, since the kernel remembers a peak only with mapped files in it.

use super::proc::{high_water_bytes, resident_bytes};
use super::thread_cpu;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two looks: short beside what it takes to fill a segment, and ten looks at `/proc` take a hundredth of it.
const EVERY: Duration = Duration::from_millis(25);

/// The thread that looks.
pub(super) struct Sampler {
    stop: Sender<()>,
    thread: JoinHandle<Sampled>,
}

/// What it saw.
#[derive(Debug, Default)]
pub(super) struct Sampled {
    /// Of each group, the most memory of its own that one process had at once.
    pub(super) resident: [u64; 3],
    /// The same with mapped files, as the kernel remembers it.
    pub(super) high_water: [u64; 3],
    /// What looking took.
    pub(super) cpu: Duration,
}

impl Sampler {
    /// Looks at three groups of processes until it is stopped.
    pub(super) fn start(groups: [Vec<String>; 3]) -> Sampler {
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || look(&groups, &stopped));
        Sampler { stop, thread }
    }

    /// Looks a last time.
    pub(super) fn stop(self) -> Sampled {
        // When the thread is gone already, joining says so.
        let _heard = self.stop.send(());
        self.thread.join().expect("looking at /proc does not panic")
    }
}

fn look(groups: &[Vec<String>; 3], stopped: &Receiver<()>) -> Sampled {
    let mut seen = Sampled::default();
    loop {
        let last = match stopped.recv_timeout(EVERY) {
            Err(RecvTimeoutError::Timeout) => false,
            // Whoever measured has given up when the other end is gone.
            Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
        };
        raise(&mut seen.resident, groups, resident_bytes);
        raise(&mut seen.high_water, groups, high_water_bytes);
        if last {
            seen.cpu = thread_cpu();
            return seen;
        }
    }
}

fn raise(peaks: &mut [u64; 3], groups: &[Vec<String>; 3], look: fn(&str) -> anyhow::Result<u64>) {
    for (peak, folders) in peaks.iter_mut().zip(groups) {
        // A process that ended holds nothing.
        let most = folders.iter().filter_map(|folder| look(folder).ok()).max();
        *peak = (*peak).max(most.unwrap_or(0));
    }
}

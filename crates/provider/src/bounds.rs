//! What requests take of the machine, counted and bounded: memory for bodies, requests of one key, threads at the disk.

use seedbank_formats::PublicKey;
use seedbank_protocol::messages::{Problem, ProblemCode};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bodies pass through memory in blocks of this many bytes: large enough that a disk reads in stretches, small enough
/// that some dozens fit.
pub(crate) const BLOCK_BYTES: usize = 1 << 20;

/// Threads that wait for the disk at once. Commits are shared by all that wait, so more threads mean fewer syncs for
/// each; a disk that hangs must not take thousands of them along.
const DISK_THREADS_MAX: usize = 48;

/// How long a request waits for memory or for the disk before it is sent away: less than clients wait for an answer.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// After how long a busy provider may be asked again.
const BUSY_RETRY_S: u64 = 2;

/// Memory is counted in units of this many bytes, because a semaphore counts in 32 bits.
const UNIT_BYTES: usize = 1024;

fn busy(message: &str) -> Problem {
    Problem { retry_after_s: Some(BUSY_RETRY_S), ..Problem::new(ProblemCode::Busy, message) }
}

/// Memory for bodies.
#[derive(Debug, Clone)]
pub(crate) struct Buffers {
    units: Arc<Semaphore>,
}

/// Memory that is taken; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Memory {
    _units: OwnedSemaphorePermit,
}

impl Buffers {
    /// This many bytes in all.
    pub(crate) fn new(bytes: u64) -> Buffers {
        let units = usize::try_from(bytes).unwrap_or(usize::MAX) / UNIT_BYTES;
        Buffers { units: Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))) }
    }

    /// Waits for memory, first come, first served.
    pub(crate) async fn take(&self, bytes: usize) -> Result<Memory, Problem> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let taken = Arc::clone(&self.units).acquire_many_owned(units);
        match tokio::time::timeout(WAIT_MAX, taken).await {
            Ok(units) => Ok(Memory { _units: units.expect("the semaphore is never closed") }),
            Err(_late) => Err(busy("too many bodies at once")),
        }
    }
}

/// Bytes that are counted until the last reference to them is dropped.
pub(crate) struct Counted<T> {
    bytes: Vec<u8>,
    _until_then: T,
}

impl<T> AsRef<[u8]> for Counted<T> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Lets `held` live as long as any part of `bytes` does.
pub(crate) fn counted<T: Send + 'static>(bytes: Vec<u8>, held: T) -> bytes::Bytes {
    bytes::Bytes::from_owner(Counted { bytes, _until_then: held })
}

/// The threads that wait for the disk.
#[derive(Debug, Clone)]
pub(crate) struct DiskThreads {
    threads: Arc<Semaphore>,
}

impl DiskThreads {
    pub(crate) fn new() -> DiskThreads {
        DiskThreads { threads: Arc::new(Semaphore::new(DISK_THREADS_MAX)) }
    }

    /// Runs blocking work. Once begun it is carried through, even when nobody waits for it any more.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let thread = Arc::clone(&self.threads).acquire_owned();
        let Ok(thread) = tokio::time::timeout(WAIT_MAX, thread).await else {
            return Err(busy("the disk is busy"));
        };
        let thread = thread.expect("the semaphore is never closed");
        let task = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(thread);
            done
        });
        task.await.map_err(|error| {
            tracing::error!(%error, "disk work panicked");
            Problem::new(ProblemCode::Internal, "the provider failed")
        })
    }
}

/// Requests in flight by key, so that one client can't take what all share.
#[derive(Debug)]
pub(crate) struct RequestSlots {
    per_client_max: usize,
    in_flight: Mutex<HashMap<PublicKey, usize>>,
}

/// One request's place; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct RequestSlot {
    client: PublicKey,
    slots: Arc<RequestSlots>,
}

impl RequestSlots {
    pub(crate) fn new(per_client_max: usize) -> Arc<RequestSlots> {
        Arc::new(RequestSlots { per_client_max, in_flight: Mutex::default() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PublicKey, usize>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more request of this key.
    pub(crate) fn enter(self: &Arc<RequestSlots>, client: PublicKey) -> Result<RequestSlot, Problem> {
        let mut in_flight = self.lock();
        let count = in_flight.entry(client).or_default();
        if *count >= self.per_client_max {
            return Err(busy("too many requests of this key at once"));
        }
        *count += 1;
        Ok(RequestSlot { client, slots: Arc::clone(self) })
    }
}

impl Drop for RequestSlot {
    fn drop(&mut self) {
        let mut in_flight = self.slots.lock();
        if let Some(count) = in_flight.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                in_flight.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Buffers, RequestSlots, counted};
    use seedbank_formats::PublicKey;
    use seedbank_protocol::messages::ProblemCode;

    #[tokio::test(start_paused = true)]
    async fn memory_comes_back_with_the_last_reference_to_the_bytes() {
        let buffers = Buffers::new(2048);
        let memory = buffers.take(2048).await.unwrap();
        let mut bytes = counted(vec![7; 2048], memory);
        let part = bytes.split_to(10);
        drop(bytes);
        assert_eq!(buffers.take(1).await.unwrap_err().code, ProblemCode::Busy);
        drop(part);
        assert!(buffers.take(2048).await.is_ok());
    }

    #[test]
    fn one_key_has_its_share_and_no_more() {
        let slots = RequestSlots::new(2);
        let (a, b) = (PublicKey([1; 32]), PublicKey([2; 32]));
        let first = slots.enter(a).unwrap();
        let _second = slots.enter(a).unwrap();
        assert_eq!(slots.enter(a).unwrap_err().code, ProblemCode::Busy);
        let _other = slots.enter(b).unwrap();
        drop(first);
        assert!(slots.enter(a).is_ok());
        drop((_second, _other));
        assert!(slots.lock().is_empty());
    }
}

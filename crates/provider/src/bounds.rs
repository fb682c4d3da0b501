//! What requests take of the machine, counted and bounded: memory for bodies, requests of one key, threads at the disk.
//!
//! A peer that sends or takes a body slowly holds the body's memory for as long; so each key has a share of that memory,
//! and waits for its own while others are served.

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
const DISK_THREADS_MAX: usize = 32;

/// How long a request waits for memory or for the disk before it is sent away: less than clients wait for an answer.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// After how long a busy provider may be asked again.
const BUSY_RETRY_S: u64 = 2;

/// Memory is counted in units of this many bytes, because a semaphore counts in 32 bits.
const UNIT_BYTES: usize = 1024;

/// Bodies up to this many bytes are left to the allocator; longer ones take a whole block.
const SMALL_BYTES: usize = 64 * 1024;

/// The units that hold so many bytes.
fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT_BYTES)
}

fn semaphore(units: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS)))
}

/// A refusal that passes soon.
pub(crate) fn busy(message: &str) -> Problem {
    Problem { retry_after_s: Some(BUSY_RETRY_S), ..Problem::new(ProblemCode::Busy, message) }
}

/// Memory for bodies.
#[derive(Debug, Clone)]
pub(crate) struct Buffers {
    units: Arc<Semaphore>,
    idle: Arc<IdleBlocks>,
}

/// Blocks that wait to be used again. Allocators keep freed blocks of this size scattered over the arenas of many
/// threads, several times of what is in use: so they are not given back.
#[derive(Debug, Default)]
struct IdleBlocks(Mutex<Vec<Vec<u8>>>);

impl IdleBlocks {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory that is taken; given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Memory {
    _units: OwnedSemaphorePermit,
    _of_share: OwnedSemaphorePermit,
}

/// Bytes of a body on its way, in memory that is counted for as long as this lives.
#[derive(Debug)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    idle: Arc<IdleBlocks>,
    _memory: Memory,
}

impl Buffers {
    /// This many bytes in all.
    pub(crate) fn new(bytes: u64) -> Buffers {
        let units = usize::try_from(bytes).unwrap_or(usize::MAX) / UNIT_BYTES;
        Buffers { units: semaphore(units), idle: Arc::default() }
    }

    /// Waits for memory of the request's key, then of all; first come, first served.
    pub(crate) async fn take(&self, slot: &RequestSlot, bytes: usize) -> Result<Memory, Problem> {
        let units = u32::try_from(units(bytes)).unwrap_or(u32::MAX);
        let taken = async {
            let of_share = Arc::clone(&slot.memory).acquire_many_owned(units).await;
            (of_share, Arc::clone(&self.units).acquire_many_owned(units).await)
        };
        match tokio::time::timeout(WAIT_MAX, taken).await {
            Ok((Ok(of_share), Ok(units))) => Ok(Memory { _units: units, _of_share: of_share }),
            Ok(_) => unreachable!("the semaphores are never closed"),
            Err(_late) => Err(busy("too many bodies at once")),
        }
    }

    /// Waits for memory for `bytes` bytes, at most [`BLOCK_BYTES`], and for `beside` more that somebody else allocates.
    /// Both at once: if each of many waited for the one while it held the other, nobody would get on. What the block
    /// holds at first means nothing.
    pub(crate) async fn block(
        &self,
        slot: &RequestSlot,
        bytes: usize,
        beside: usize,
    ) -> Result<Block, Problem> {
        debug_assert!(bytes <= BLOCK_BYTES, "longer bodies pass in several blocks");
        let small = bytes <= SMALL_BYTES;
        let capacity = if small { bytes } else { BLOCK_BYTES };
        let memory = self.take(slot, capacity.saturating_add(beside)).await?;
        let reused = if small { None } else { self.idle.lock().pop() };
        let mut block = reused.unwrap_or_else(|| Vec::with_capacity(capacity));
        block.resize(bytes, 0);
        Ok(Block { bytes: block, idle: Arc::clone(&self.idle), _memory: memory })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.bytes.capacity() == BLOCK_BYTES {
            self.idle.lock().push(std::mem::take(&mut self.bytes));
        }
    }
}

impl std::ops::Deref for Block {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl std::ops::DerefMut for Block {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

/// Bytes, and what must live as long as they do.
struct Counted<B, T> {
    bytes: B,
    _until_then: T,
}

impl<B: std::ops::Deref<Target = Vec<u8>>, T> AsRef<[u8]> for Counted<B, T> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Lets `held` live as long as any part of `bytes` does.
pub(crate) fn counted<B, T>(bytes: B, held: T) -> bytes::Bytes
where
    B: std::ops::Deref<Target = Vec<u8>> + Send + 'static,
    T: Send + 'static,
{
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

    /// Waits until no work is left.
    pub(crate) async fn idle(&self) {
        let all = u32::try_from(DISK_THREADS_MAX).expect("some dozens");
        let _all = self.threads.acquire_many(all).await.expect("the semaphore is never closed");
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

/// What each key has in flight, so that one client can't take what all share.
#[derive(Debug)]
pub(crate) struct RequestSlots {
    per_client_max: usize,
    memory_per_client: usize,
    in_flight: Mutex<HashMap<PublicKey, InFlight>>,
}

#[derive(Debug)]
struct InFlight {
    requests: usize,
    memory: Arc<Semaphore>,
}

/// One request's place; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct RequestSlot {
    client: PublicKey,
    /// What is left of the key's share of [`Buffers`].
    memory: Arc<Semaphore>,
    slots: Arc<RequestSlots>,
}

impl RequestSlots {
    /// So many requests of one key at once, with so many bytes of buffers.
    pub(crate) fn new(per_client_max: usize, bytes_per_client: u64) -> Arc<RequestSlots> {
        let memory_per_client = units(usize::try_from(bytes_per_client).unwrap_or(usize::MAX));
        Arc::new(RequestSlots { per_client_max, memory_per_client, in_flight: Mutex::default() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PublicKey, InFlight>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more request of this key.
    pub(crate) fn enter(self: &Arc<RequestSlots>, client: PublicKey) -> Result<RequestSlot, Problem> {
        let mut in_flight = self.lock();
        let entry = in_flight
            .entry(client)
            .or_insert_with(|| InFlight { requests: 0, memory: semaphore(self.memory_per_client) });
        if entry.requests >= self.per_client_max {
            return Err(busy("too many requests of this key at once"));
        }
        entry.requests += 1;
        Ok(RequestSlot { client, memory: Arc::clone(&entry.memory), slots: Arc::clone(self) })
    }
}

impl Drop for RequestSlot {
    fn drop(&mut self) {
        let mut in_flight = self.slots.lock();
        if let Some(entry) = in_flight.get_mut(&self.client) {
            entry.requests -= 1;
            if entry.requests == 0 {
                in_flight.remove(&self.client);
            }
        }
    }
}

/// Bytes of heads of new datasets that each key has put since the daemon began. Heads are kept for ever and count
/// towards no quota, so no key may fill the room for all of them.
#[derive(Debug)]
pub(crate) struct HeadShares {
    per_client_bytes: usize,
    taken: Mutex<HashMap<PublicKey, usize>>,
}

impl HeadShares {
    pub(crate) fn new(per_client_bytes: usize) -> HeadShares {
        HeadShares { per_client_bytes, taken: Mutex::default() }
    }

    /// Takes room for a new dataset's head.
    pub(crate) fn take(&self, client: PublicKey, bytes: usize) -> Result<(), Problem> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_client = taken.entry(client).or_default();
        if *of_client + bytes > self.per_client_bytes {
            let message = format!("heads of one key may take {} bytes here", self.per_client_bytes);
            return Err(Problem::new(ProblemCode::OverQuota, message));
        }
        *of_client += bytes;
        Ok(())
    }

    /// Gives room back for a head that was not kept.
    pub(crate) fn give_back(&self, client: PublicKey, bytes: usize) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_client) = taken.get_mut(&client) {
            *of_client = of_client.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_BYTES, Buffers, HeadShares, RequestSlot, RequestSlots, counted};
    use seedbank_formats::PublicKey;
    use seedbank_protocol::messages::ProblemCode;

    fn slot(bytes: u64) -> RequestSlot {
        RequestSlots::new(1, bytes).enter(PublicKey([1; 32])).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn memory_comes_back_with_the_last_reference_to_the_bytes() {
        let (buffers, slot) = (Buffers::new(2048), slot(2048));
        let memory = buffers.take(&slot, 2048).await.unwrap();
        let mut bytes = counted(Box::new(vec![7; 2048]), memory);
        let part = bytes.split_to(10);
        drop(bytes);
        assert_eq!(buffers.take(&slot, 1).await.unwrap_err().code, ProblemCode::Busy);
        drop(part);
        assert!(buffers.take(&slot, 2048).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn one_key_waits_for_its_own_memory_while_others_are_served() {
        let buffers = Buffers::new(4096);
        let slots = RequestSlots::new(8, 2048);
        let (greedy, modest) = (PublicKey([1; 32]), PublicKey([2; 32]));
        let (first, second) = (slots.enter(greedy).unwrap(), slots.enter(greedy).unwrap());
        let held = buffers.take(&first, 2048).await.unwrap();
        assert_eq!(buffers.take(&second, 1).await.unwrap_err().code, ProblemCode::Busy);
        assert!(buffers.take(&slots.enter(modest).unwrap(), 2048).await.is_ok());
        drop(held);
        assert!(buffers.take(&second, 2048).await.is_ok());
    }

    #[test]
    fn heads_of_one_key_leave_room_for_others() {
        let shares = HeadShares::new(100);
        let (a, b) = (PublicKey([1; 32]), PublicKey([2; 32]));
        shares.take(a, 60).unwrap();
        assert_eq!(shares.take(a, 41).unwrap_err().code, ProblemCode::OverQuota);
        shares.take(a, 40).unwrap();
        shares.take(b, 100).unwrap();
        shares.give_back(a, 10);
        shares.take(a, 10).unwrap();
    }

    #[tokio::test]
    async fn blocks_are_used_again_and_bounded() {
        let buffers = Buffers::new(u64::try_from(2 * BLOCK_BYTES).unwrap());
        let slot = slot(4 << 20);
        for _ in 0..5 {
            let one = buffers.block(&slot, BLOCK_BYTES, 0).await.unwrap();
            let two = buffers.block(&slot, 70_000, 0).await.unwrap();
            assert_eq!((one.len(), two.len()), (BLOCK_BYTES, 70_000));
            drop((counted(one, ()), two));
        }
        let small = buffers.block(&slot, 10, 0).await.unwrap();
        assert_eq!(small.len(), 10);
        drop(small);
        assert_eq!(buffers.idle.lock().len(), 2);
    }

    #[test]
    fn one_key_has_its_share_and_no_more() {
        let slots = RequestSlots::new(2, 0);
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

//! Memory for segments and their parity, used again and again by one push.
//!
//! A segment and its parity are 128 MiB. Memory of that size comes from the system page by page and goes back with its
//! last user, and to fault the pages in anew for every segment is a fifth of a push's processor time. So it comes back
//! here instead, with the last reference to its bytes, whoever holds that one. Nothing waits for a buffer: how many there
//! are at once is bounded by the segments under way.

use bytes::Bytes;
use seedbank_formats::segment::SEGMENT_BUFFER_BYTES;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Buffers that wait for a user: a segment that is being filled, and two under way with their parity. With more, a
/// push that had more under way for a while would keep their memory.
const BUFFERS_KEPT: usize = 5;

/// Buffers that nobody uses at the moment. Clones share them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Buffers {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Buffers {
    /// A buffer that takes any segment and its padding without growing. It is empty, and its memory may hold anything.
    pub(crate) fn segment(&self) -> Vec<u8> {
        let mut buffer = self.take(SEGMENT_BUFFER_BYTES);
        buffer.clear();
        buffer
    }

    /// A buffer of exactly `len` bytes that hold anything: whoever takes it writes them all.
    pub(crate) fn scratch(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.take(len);
        // Bytes that were in use before are left as they are.
        buffer.resize(len, 0);
        buffer
    }

    /// A buffer with room for so many bytes: the last one that came back, since more of it is in the caches.
    fn take(&self, capacity: usize) -> Vec<u8> {
        let mut free = self.free();
        let fitting = free.iter().rposition(|buffer| buffer.capacity() >= capacity);
        let taken = fitting.map(|index| free.remove(index));
        drop(free);
        // All are of a few sizes, so that any serves for what follows. Zeros fresh from the system take no memory until
        // they are written to.
        taken.unwrap_or_else(|| vec![0; capacity.next_multiple_of(SEGMENT_BUFFER_BYTES)])
    }

    /// The buffer's bytes, to be shared. The memory comes back when nobody has them any more.
    pub(crate) fn share(&self, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { buffer, home: self.clone() })
    }

    fn give(&self, buffer: Vec<u8>) {
        // Metadata grows in small buffers of its own.
        if buffer.capacity() < SEGMENT_BUFFER_BYTES {
            return;
        }
        let mut free = self.free();
        if free.len() < BUFFERS_KEPT {
            free.push(buffer);
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer whose bytes are shared.
struct Lent {
    buffer: Vec<u8>,
    home: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::{BUFFERS_KEPT, Buffers};
    use seedbank_formats::segment::SEGMENT_BUFFER_BYTES;

    #[test]
    fn memory_comes_back_with_the_last_reference_to_its_bytes() {
        let buffers = Buffers::default();
        let mut first = buffers.segment();
        assert!(first.is_empty() && first.capacity() >= SEGMENT_BUFFER_BYTES);
        first.extend_from_slice(b"sealed");
        let memory = first.as_ptr();
        let whole = buffers.share(first);
        let part = whole.slice(2..4);
        drop(whole);
        let other = buffers.segment();
        assert_ne!(other.as_ptr(), memory, "somebody still reads it");
        assert_eq!(part, b"al"[..]);
        drop(part);
        let again = buffers.scratch(100);
        assert_eq!(again.as_ptr(), memory);
    }

    #[test]
    fn scratch_has_its_length_whatever_was_there_before() {
        let buffers = Buffers::default();
        for len in [0, 1, SEGMENT_BUFFER_BYTES, 64, SEGMENT_BUFFER_BYTES + 1] {
            let scratch = buffers.scratch(len);
            assert_eq!(scratch.len(), len);
            drop(buffers.share(scratch));
        }
        // The longest serves for a segment, too.
        assert_eq!(buffers.free().len(), 2);
        assert!(buffers.segment().is_empty());
    }

    #[test]
    fn small_buffers_and_more_than_are_needed_go_back_to_the_system() {
        let buffers = Buffers::default();
        drop(buffers.share(vec![7; 1_000]));
        assert_eq!(buffers.free().len(), 0);
        let lent: Vec<_> = (0..BUFFERS_KEPT + 2).map(|_| buffers.share(buffers.scratch(1))).collect();
        drop(lent);
        assert_eq!(buffers.free().len(), BUFFERS_KEPT);
    }
}

//! Buffers that are used again and again: for answers as they come in, and for what is made of them.
//!
//! A bulk read moves gigabytes through a few MiB. Memory that is fresh from the system costs as much time as the
//! decryption into it, for it is cleared and mapped page by page; memory that was just used is also still in the
//! processor's cache. Buffers are never cleared: whoever takes one overwrites all of it before anybody reads.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// The smallest buffer: a usual chunk.
const BYTES_MIN: usize = 64 * 1024;

/// Buffers kept for later, together. While a read runs, few lie idle.
const IDLE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A larger buffer than this many times what is wanted is left for a larger wish.
const LARGER_MAX: usize = 4;

/// Keeps buffers between uses.
#[derive(Debug, Default)]
pub struct Buffers {
    idle: Mutex<Vec<Box<[u8]>>>,
}

impl Buffers {
    /// A buffer of `len` bytes with anything in it.
    #[must_use]
    pub fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let kept = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let fits = |bytes: &[u8]| bytes.len() >= len && bytes.len() / LARGER_MAX <= len.max(BYTES_MIN);
            // The one that was used last is the warmest.
            idle.iter().rposition(|bytes| fits(bytes)).map(|position| idle.remove(position))
        };
        let fresh = || vec![0; len.max(BYTES_MIN).next_power_of_two()].into_boxed_slice();
        Buffer { bytes: kept.unwrap_or_else(fresh), len, home: Arc::clone(self) }
    }

    fn give_back(&self, bytes: Box<[u8]>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept: usize = idle.iter().map(|bytes| bytes.len()).sum();
        if kept + bytes.len() <= IDLE_BYTES_MAX {
            idle.push(bytes);
        }
    }
}

/// A buffer in use. Dropping it gives it back.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
    len: usize,
    home: Arc<Buffers>,
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::{BYTES_MIN, Buffers, IDLE_BYTES_MAX};
    use std::sync::Arc;

    #[test]
    fn buffers_are_used_again_and_what_is_kept_is_bounded() {
        let buffers = Arc::new(Buffers::default());
        let first = buffers.take(100_000);
        assert_eq!(first.len(), 100_000);
        let at = first.as_ptr();
        drop(first);
        let again = buffers.take(90_000);
        assert_eq!((again.len(), again.as_ptr()), (90_000, at));
        // In use, so another is made.
        assert_ne!(buffers.take(90_000).as_ptr(), at);
        drop(again);
        let many: Vec<_> = (0..40).map(|_| buffers.take(1 << 20)).collect();
        drop(many);
        let kept: usize = buffers.idle.lock().unwrap().iter().map(|bytes| bytes.len()).sum();
        assert!(kept <= IDLE_BYTES_MAX && kept > IDLE_BYTES_MAX / 2, "{kept}");
    }

    #[test]
    fn large_buffer_is_not_spent_on_a_small_wish() {
        let buffers = Arc::new(Buffers::default());
        drop(buffers.take(8 << 20));
        drop(buffers.take(BYTES_MIN));
        assert_eq!(buffers.idle.lock().unwrap().len(), 2);
    }
}

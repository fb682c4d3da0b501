//! Buffers for records, shared by all connections of the process. A connection holds one only while bytes are on their
//! way, so idle ones cost nothing, and the allocator sees no traffic in the steady state.

use std::sync::{Mutex, PoisonError};

/// Eight full records: more saves no measurable time.
pub(super) const BUFFER_BYTES: usize = 8 * (super::record::PLAINTEXT_MAX + super::record::OVERHEAD) + 1024;

/// Buffers that are kept for later: as many as a busy process uses at once, 8 MiB.
const IDLE_MAX: usize = 64;

static IDLE: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// Bytes in a row in a buffer that is there only while some are.
#[derive(Default)]
pub(super) struct Buffer {
    bytes: Option<Box<[u8]>>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// The bytes that wait.
    pub(super) fn filled(&self) -> &[u8] {
        self.bytes.as_ref().map_or(&[], |bytes| &bytes[self.start..self.end])
    }

    pub(super) fn filled_mut(&mut self) -> &mut [u8] {
        self.bytes.as_mut().map_or(&mut [], |bytes| &mut bytes[self.start..self.end])
    }

    /// Room behind the bytes that wait.
    pub(super) fn room(&mut self) -> &mut [u8] {
        let bytes = self.bytes.get_or_insert_with(|| {
            let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
            idle.unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice())
        });
        if self.start > 0 {
            bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut bytes[self.end..]
    }

    /// So many bytes were put into the room.
    pub(super) fn fill(&mut self, count: usize) {
        self.end += count;
    }

    /// So many bytes are done with.
    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end, "only what waits can be consumed");
    }

    /// Gives the buffer back if nothing waits in it.
    pub(super) fn release(&mut self) {
        if self.start < self.end {
            return;
        }
        (self.start, self.end) = (0, 0);
        if let Some(bytes) = self.bytes.take() {
            let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE_MAX {
                idle.push(bytes);
            }
        }
    }
}

#[cfg(test)]
impl Buffer {
    pub(super) fn is_released(&self) -> bool {
        self.bytes.is_none()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        (self.start, self.end) = (0, 0);
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::Buffer;

    #[test]
    fn bytes_come_out_as_they_went_in_and_the_buffer_goes_when_none_are_left() {
        let mut buffer = Buffer::default();
        buffer.room()[..6].copy_from_slice(b"abcdef");
        buffer.fill(6);
        buffer.consume(4);
        buffer.room()[..2].copy_from_slice(b"gh");
        buffer.fill(2);
        assert_eq!(buffer.filled(), b"efgh");
        buffer.release();
        assert!(!buffer.is_released());
        buffer.consume(4);
        buffer.release();
        assert!(buffer.is_released() && buffer.filled().is_empty());
    }
}

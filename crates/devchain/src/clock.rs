//! The chain's time: what the next block's timestamp is.
//!
//! It follows the wall clock and never goes back: while the wall clock is behind the last block, new blocks carry the last
//! block's time. Several blocks may carry the same second. A test may move the clock ahead, where that was asked for.

/// Whether a test may move the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClockControl {
    /// The methods that move the clock do not exist.
    #[default]
    None,
    /// `evm_increaseTime`, `evm_setNextBlockTimestamp` and `evm_mine` exist.
    Test,
}

/// Beyond this a sum with a wall clock could overflow; it is the year 5138.
const TIMESTAMP_MAX: u64 = 100_000_000_000;

/// Why the clock was not moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClockError {
    #[error("timestamp {asked} is before the last block's, {last}")]
    Past { asked: u64, last: u64 },
    #[error("the clock can't be moved beyond {TIMESTAMP_MAX}")]
    TooFar,
}

/// The wall clock, moved ahead by tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Clock {
    offset_s: u64,
    next: Option<u64>,
}

impl Clock {
    pub(crate) fn with_offset(offset_s: u64) -> Clock {
        Clock { offset_s, next: None }
    }

    pub(crate) fn offset_s(&self) -> u64 {
        self.offset_s
    }

    /// The timestamp of a block that would be made now.
    pub(crate) fn peek(&self, wall: u64, parent: u64) -> u64 {
        self.next.unwrap_or(wall.saturating_add(self.offset_s)).max(parent)
    }

    /// The timestamp of the block that is made now. From a time that a test set, the clock goes on.
    pub(crate) fn take(&mut self, wall: u64, parent: u64) -> u64 {
        let timestamp = self.peek(wall, parent);
        if self.next.take().is_some() {
            self.offset_s = timestamp.saturating_sub(wall);
        }
        timestamp
    }

    /// Moves the clock ahead; gives how far it is ahead now.
    pub(crate) fn increase(&mut self, seconds: u64, wall: u64) -> Result<u64, ClockError> {
        let offset_s = self.offset_s.checked_add(seconds).ok_or(ClockError::TooFar)?;
        let ahead = wall.checked_add(offset_s).filter(|time| *time <= TIMESTAMP_MAX);
        ahead.ok_or(ClockError::TooFar)?;
        self.offset_s = offset_s;
        if let Some(next) = &mut self.next {
            *next = next.saturating_add(seconds).min(TIMESTAMP_MAX);
        }
        Ok(offset_s)
    }

    /// Sets the time of the next block.
    pub(crate) fn set_next(&mut self, timestamp: u64, parent: u64) -> Result<(), ClockError> {
        if timestamp < parent {
            return Err(ClockError::Past { asked: timestamp, last: parent });
        }
        if timestamp > TIMESTAMP_MAX {
            return Err(ClockError::TooFar);
        }
        self.next = Some(timestamp);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, ClockError};

    #[test]
    fn time_follows_the_wall_clock_and_never_goes_back() {
        let mut clock = Clock::default();
        assert_eq!(clock.take(100, 90), 100);
        assert_eq!(clock.take(100, 100), 100);
        assert_eq!(clock.take(40, 100), 100, "a wall clock that jumped back stands still");
        assert_eq!(clock.take(101, 100), 101);
    }

    #[test]
    fn time_that_a_test_set_is_where_the_clock_goes_on() {
        let mut clock = Clock::default();
        clock.set_next(500, 100).unwrap();
        assert_eq!(clock.peek(110, 100), 500);
        assert_eq!(clock.take(110, 100), 500);
        assert_eq!(clock.take(112, 500), 502);
        assert_eq!(clock.increase(50, 112), Ok(440));
        assert_eq!(clock.take(113, 502), 553);
    }

    #[test]
    fn clock_is_not_set_back_or_out_of_reach() {
        let mut clock = Clock::default();
        assert_eq!(clock.set_next(99, 100), Err(ClockError::Past { asked: 99, last: 100 }));
        assert_eq!(clock.set_next(u64::MAX, 100), Err(ClockError::TooFar));
        assert_eq!(clock.increase(u64::MAX, 100), Err(ClockError::TooFar));
        assert_eq!(clock, Clock::default());
    }
}

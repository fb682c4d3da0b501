//! Time as the exchanges see it: an argument, never a clock.
//!
//! The shell that drives an exchange reads its monotonic clock and passes the time since a start of its choice. Tests
//! pass any number they like. Wall-clock time, which may jump, is `formats::Timestamp` and has no place here.

use std::time::Duration;

/// A point on the caller's monotonic clock, as time since a start that the caller chose once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub Duration);

impl Moment {
    /// The start itself.
    pub const START: Moment = Moment(Duration::ZERO);

    /// This moment `later`, at most the end of time.
    #[must_use]
    pub const fn plus(self, later: Duration) -> Moment {
        Moment(self.0.saturating_add(later))
    }

    /// The time from `earlier` to this moment; zero when `earlier` is the later one.
    #[must_use]
    pub const fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

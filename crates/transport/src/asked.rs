//! When this process asked for a claim or its end.
//!
//! One count for the whole process, because a provider compares what one key has asked for, and a process asks with one
//! key through any number of clients. It follows the wall clock, so that the next process goes on above it, and never
//! goes back with it.

use seedbank_formats::Asked;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

static LAST: AtomicU64 = AtomicU64::new(0);

/// A moment later than all that were given out before.
#[must_use]
pub fn asked_now() -> Asked {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    next(&LAST, u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn next(last: &AtomicU64, now_ms: u64) -> Asked {
    let later = |last: u64| now_ms.max(last.saturating_add(1));
    let before = last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(later(last)));
    Asked(later(before.unwrap_or_else(|last| last)))
}

#[cfg(test)]
mod tests {
    use super::next;
    use seedbank_formats::Asked;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn moments_rise_although_the_clock_stands_or_goes_back() {
        let last = AtomicU64::new(0);
        let asked = [500, 500, 400, 900, 899].map(|now_ms| next(&last, now_ms));
        assert_eq!(asked, [500, 501, 502, 900, 901].map(Asked));
    }
}

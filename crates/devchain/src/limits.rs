//! How much one caller may ask for. Gas is free here, so something else must be scarce.

use alloy_primitives::Address;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What one caller may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one HTTP body.
    pub body_bytes_max: usize,
    /// Calls of one batch.
    pub batch_max: usize,
    /// Bytes of one answer; the rest of a batch is refused.
    pub answer_bytes_max: usize,
    /// Gas of one `eth_call` or estimate.
    pub call_gas_max: u64,
    /// `eth_call`s and estimates that run at the same time.
    pub calls_at_once_max: usize,
    /// Blocks that one log search spans.
    pub log_blocks_max: u64,
    /// Logs that one search gives.
    pub logs_max: usize,
    /// Connections at the same time.
    pub connections_max: usize,
    /// Transactions of one key, a second, over time.
    pub sends_per_second: u32,
    /// Transactions of one key at once.
    pub sends_burst: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            // A batch of the largest transactions, in hex, fits several times.
            body_bytes_max: 2 << 20,
            batch_max: 100,
            answer_bytes_max: 16 << 20,
            call_gas_max: 50_000_000,
            calls_at_once_max: 8,
            log_blocks_max: 100_000,
            logs_max: 10_000,
            connections_max: 256,
            // Ten times what a provider that redeems and proves without a pause comes to.
            sends_per_second: 1_000,
            sends_burst: 2_000,
        }
    }
}

/// Keys that are remembered. Of more than that at once, those that asked for least are forgotten first.
const KEYS_MAX: usize = 10_000;

/// How many transactions each key sent lately.
#[derive(Debug)]
pub(crate) struct SendRates {
    per_second: u32,
    burst: u32,
    keys: HashMap<Address, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// A key sent too much: it may send again after this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many transactions of one key: the limit is {per_second} a second; try again in {} ms", wait.as_millis().max(1))]
pub(crate) struct TooMany {
    per_second: u32,
    wait: Duration,
}

impl SendRates {
    pub(crate) fn new(limits: &Limits) -> SendRates {
        SendRates {
            per_second: limits.sends_per_second.max(1),
            burst: limits.sends_burst.max(1),
            keys: HashMap::new(),
        }
    }

    /// Counts one transaction of a key.
    pub(crate) fn take(&mut self, key: Address, now: Instant) -> Result<(), TooMany> {
        let (rate, burst) = (f64::from(self.per_second), f64::from(self.burst));
        if self.keys.len() >= KEYS_MAX && !self.keys.contains_key(&key) {
            self.forget_idle(now);
        }
        let bucket = self.keys.entry(key).or_insert(Bucket { left: burst, at: now });
        bucket.left = burst.min(bucket.left + now.duration_since(bucket.at).as_secs_f64() * rate);
        bucket.at = now;
        if bucket.left < 1.0 {
            let wait = Duration::from_secs_f64((1.0 - bucket.left) / rate);
            return Err(TooMany { per_second: self.per_second, wait });
        }
        bucket.left -= 1.0;
        Ok(())
    }

    /// Forgets whoever has all of its burst again, then, if need be, the half that has most left of it.
    fn forget_idle(&mut self, now: Instant) {
        let (rate, burst) = (f64::from(self.per_second), f64::from(self.burst));
        let left = |bucket: &Bucket| bucket.left + now.duration_since(bucket.at).as_secs_f64() * rate;
        self.keys.retain(|_, bucket| left(bucket) < burst);
        if self.keys.len() >= KEYS_MAX {
            let mut all: Vec<f64> = self.keys.values().map(left).collect();
            let (_, median, _) = all.select_nth_unstable_by(KEYS_MAX / 2, f64::total_cmp);
            let median = *median;
            self.keys.retain(|_, bucket| left(bucket) < median);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{KEYS_MAX, Limits, SendRates};
    use alloy_primitives::{Address, U160};
    use std::time::{Duration, Instant};

    fn rates() -> SendRates {
        SendRates::new(&Limits { sends_per_second: 10, sends_burst: 3, ..Limits::default() })
    }

    #[test]
    fn one_key_is_held_to_its_rate_and_others_are_not() {
        let (mut rates, start) = (rates(), Instant::now());
        let (one, other) = (Address::repeat_byte(1), Address::repeat_byte(2));
        for _ in 0..3 {
            assert!(rates.take(one, start).is_ok());
        }
        assert!(rates.take(one, start).is_err());
        assert!(rates.take(other, start).is_ok());
        assert!(rates.take(one, start + Duration::from_millis(100)).is_ok());
        assert!(rates.take(one, start + Duration::from_millis(100)).is_err());
    }

    #[test]
    fn keys_without_number_take_bounded_memory_and_free_nobody() {
        let (mut rates, start) = (rates(), Instant::now());
        let greedy = Address::repeat_byte(0xff);
        while rates.take(greedy, start).is_ok() {}
        for key in 0..3 * KEYS_MAX {
            let _taken = rates.take(Address::from(U160::from(key)), start);
        }
        assert!(rates.keys.len() <= KEYS_MAX);
        assert!(rates.take(greedy, start).is_err());
    }
}

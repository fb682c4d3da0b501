//! What each provider's answers have looked like lately: who to ask first, and how long to wait before hedging.
//!
//! Estimates are this client's own and stay on this machine: they order and time requests, and never decide what is
//! true or who is to blame. A hedge starts when an answer takes longer than nearly all of its kind ("The Tail at
//! Scale", Dean and Barroso, 2013): here the 95th percentile of the provider's own answers, but no more than twice what is
//! usual among the other holders, since a provider that is always slow would otherwise never be hedged. Averages are
//! exponentially weighted by one eighth, as round-trip times of TCP are (RFC 6298).
//!
//! Memory is bounded: [`PROVIDERS_MAX`] providers, [`WINDOW_ANSWERS`] answers of each.

use crate::moment::Moment;
use seedbank_formats::PublicKey;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// More providers than one client uses at a time; the one unheard of for longest is forgotten first.
pub const PROVIDERS_MAX: usize = 4096;

/// Enough answers for a 95th percentile that one outlier does not set, and few enough to forget yesterday's network.
pub const WINDOW_ANSWERS: usize = 64;

/// Shorter answers say nothing about a rate: they fit in the socket buffers.
const RATE_BYTES_MIN: u64 = 64 * 1024;

/// A range may take twice its usual transfer time before that counts as slow.
const TRANSFER_SLACK: u32 = 2;

/// Answers that a provider must give before it is ranked among the others again after it was doubted.
const DOUBT_ANSWERS: u32 = 32;

/// One failure may be a broken connection; two in a row are a provider that is down.
const FAILURES_BEFORE_DOWN: u32 = 2;

const DOWN_FIRST: Duration = Duration::from_secs(1);
const DOWN_DOUBLINGS_MAX: u32 = 6;

/// Bounds and defaults of hedging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatencyPolicy {
    /// Wait at least this long for a first byte: less is the scheduler's jitter.
    pub hedge_floor: Duration,
    /// Wait at most this long for a first byte, whatever was usual.
    pub hedge_cap: Duration,
    /// The wait for a first byte while nothing is known.
    pub hedge_unknown: Duration,
    /// The rate of a provider while nothing is known, in bytes per second.
    pub rate_unknown: u64,
}

impl Default for LatencyPolicy {
    fn default() -> LatencyPolicy {
        LatencyPolicy {
            hedge_floor: Duration::from_millis(20),
            hedge_cap: Duration::from_secs(2),
            hedge_unknown: Duration::from_millis(300),
            rate_unknown: 4 * 1024 * 1024,
        }
    }
}

/// One complete answer, as the shell measured it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// From the request to the first byte of the answer's body.
    pub first_byte: Duration,
    /// From the request to the last byte.
    pub total: Duration,
    /// Length of the body.
    pub bytes: u64,
}

/// What is expected of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// The average time to the first byte.
    pub first_byte: Duration,
    /// The time to the first byte that 95 of 100 answers keep.
    pub first_byte_p95: Duration,
    /// The average rate after the first byte, in bytes per second; `None` until a long answer came.
    pub rate: Option<u64>,
}

#[derive(Debug, Default)]
struct Record {
    first_byte: Option<Duration>,
    rate: Option<u64>,
    window: VecDeque<Duration>,
    p95: Duration,
    /// Good answers that it still owes.
    doubt: u32,
    failures_in_row: u32,
    down_until: Moment,
    heard: Moment,
}

/// The estimates of one client.
#[derive(Debug, Default)]
pub struct LatencyTable {
    policy: LatencyPolicy,
    records: BTreeMap<PublicKey, Record>,
}

impl LatencyTable {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(policy: LatencyPolicy) -> LatencyTable {
        LatencyTable { policy, records: BTreeMap::new() }
    }

    /// A provider answered in full.
    pub fn record(&mut self, provider: PublicKey, sample: Sample, now: Moment) {
        let record = self.record_mut(provider, now);
        record.first_byte = Some(blend(record.first_byte, sample.first_byte));
        if record.window.len() == WINDOW_ANSWERS {
            record.window.pop_front();
        }
        record.window.push_back(sample.first_byte);
        record.p95 = percentile_95(&record.window);
        if let Some(rate) = rate(sample) {
            record.rate = Some(record.rate.map_or(rate, |old| old - old / 8 + rate / 8));
        }
        record.doubt = record.doubt.saturating_sub(1);
        record.failures_in_row = 0;
        record.down_until = Moment::START;
    }

    /// A provider was cancelled after `waited` without a first byte, because another was faster. Its average rises if
    /// that is longer than usual. The window stays as it is: else hedging would teach itself to wait longer.
    pub fn record_silence(&mut self, provider: PublicKey, waited: Duration, now: Moment) {
        let record = self.record_mut(provider, now);
        if record.first_byte.is_none_or(|usual| usual < waited) {
            record.first_byte = Some(blend(record.first_byte, waited));
        }
    }

    /// A provider could not be reached or broke off. From the second time in a row it is taken to be down for a while,
    /// for 1 s at first and up to about a minute.
    pub fn record_failure(&mut self, provider: PublicKey, now: Moment) {
        let record = self.record_mut(provider, now);
        record.failures_in_row = record.failures_in_row.saturating_add(1);
        if let Some(doublings) = record.failures_in_row.checked_sub(FAILURES_BEFORE_DOWN) {
            let away = DOWN_FIRST * (1 << doublings.min(DOWN_DOUBLINGS_MAX));
            record.down_until = now.plus(away);
        }
    }

    /// A provider gave bytes that were wrong, without evidence. It comes after all others until it has answered well
    /// for a while.
    pub fn doubt(&mut self, provider: PublicKey, now: Moment) {
        self.record_mut(provider, now).doubt = DOUBT_ANSWERS;
    }

    /// What is known of a provider, if it ever answered.
    #[must_use]
    pub fn estimate(&self, provider: &PublicKey) -> Option<Estimate> {
        let record = self.records.get(provider)?;
        let first_byte = record.first_byte?;
        Some(Estimate { first_byte, first_byte_p95: record.p95.max(first_byte), rate: record.rate })
    }

    /// Whether a provider is taken to be down at this moment.
    #[must_use]
    pub fn is_down(&self, provider: &PublicKey, now: Moment) -> bool {
        self.records.get(provider).is_some_and(|record| now < record.down_until)
    }

    /// How long an answer of `bytes` bytes is expected to take.
    #[must_use]
    pub fn expected(&self, provider: &PublicKey, bytes: u64) -> Duration {
        let record = self.records.get(provider);
        let first_byte = record.and_then(|record| record.first_byte).unwrap_or(self.policy.hedge_unknown);
        first_byte.saturating_add(transfer_time(bytes, self.rate_of(provider)))
    }

    /// Sorts items by their provider, the best first: those that are up, then those not doubted, then by the expected
    /// time for `bytes` bytes, then by key, so that equal knowledge gives equal order.
    pub fn rank<T>(&self, items: &mut [T], provider: impl Fn(&T) -> PublicKey, bytes: u64, now: Moment) {
        items.sort_by_cached_key(|item| {
            let provider = provider(item);
            let doubted = self.records.get(&provider).is_some_and(|record| record.doubt > 0);
            (self.is_down(&provider, now), doubted, self.expected(&provider, bytes), provider)
        });
    }

    /// How long to wait for `bytes` bytes from `provider` before others are asked as well; `peers` are the others that
    /// could be asked. Zero when the provider is taken to be down.
    #[must_use]
    pub fn hedge_delay(
        &self,
        provider: &PublicKey,
        peers: &[PublicKey],
        bytes: u64,
        now: Moment,
    ) -> Duration {
        if self.is_down(provider, now) {
            return Duration::ZERO;
        }
        let own = self.p95_of(provider);
        let usual = median(peers.iter().filter_map(|peer| self.p95_of(peer)).collect());
        let bearable = usual.map(|usual| usual.saturating_mul(2));
        let first_byte = match (own, bearable) {
            (Some(own), Some(bearable)) => own.min(bearable),
            (Some(delay), None) | (None, Some(delay)) => delay,
            (None, None) => self.policy.hedge_unknown,
        };
        let rates = peers.iter().filter_map(|peer| self.records.get(peer)?.rate);
        let rate = self.rate_of(provider).max(median(rates.collect()).unwrap_or(0) / 2);
        let transfer = transfer_time(bytes, rate).saturating_mul(TRANSFER_SLACK);
        first_byte.max(self.policy.hedge_floor).min(self.policy.hedge_cap).saturating_add(transfer)
    }

    fn p95_of(&self, provider: &PublicKey) -> Option<Duration> {
        let record = self.records.get(provider)?;
        (!record.window.is_empty()).then_some(record.p95)
    }

    fn rate_of(&self, provider: &PublicKey) -> u64 {
        self.records.get(provider).and_then(|record| record.rate).unwrap_or(self.policy.rate_unknown)
    }

    fn record_mut(&mut self, provider: PublicKey, now: Moment) -> &mut Record {
        if !self.records.contains_key(&provider) && self.records.len() >= PROVIDERS_MAX {
            let forgotten = self.records.iter().min_by_key(|(_, record)| record.heard);
            let forgotten = *forgotten.expect("the table is full").0;
            self.records.remove(&forgotten);
        }
        let record = self.records.entry(provider).or_default();
        record.heard = now;
        record
    }
}

/// The average after one more value; the first value as it is.
fn blend(average: Option<Duration>, value: Duration) -> Duration {
    average.map_or(value, |average| (average - average / 8).saturating_add(value / 8))
}

/// The 95th percentile by nearest rank. `window` is not empty.
fn percentile_95(window: &VecDeque<Duration>) -> Duration {
    let mut sorted: Vec<Duration> = window.iter().copied().collect();
    sorted.sort_unstable();
    sorted[(sorted.len() * 95).div_ceil(100) - 1]
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// Bytes per second after the first byte; `None` when too little was sent to tell.
fn rate(sample: Sample) -> Option<u64> {
    let transfer = sample.total.saturating_sub(sample.first_byte).as_micros().max(1);
    let rate = u128::from(sample.bytes) * 1_000_000 / transfer;
    (sample.bytes >= RATE_BYTES_MIN).then(|| u64::try_from(rate).unwrap_or(u64::MAX))
}

fn transfer_time(bytes: u64, rate: u64) -> Duration {
    let micros = u128::from(bytes) * 1_000_000 / u128::from(rate.max(1));
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::{LatencyPolicy, LatencyTable, PROVIDERS_MAX, Sample, WINDOW_ANSWERS};
    use crate::moment::Moment;
    use proptest::prelude::{any, proptest};
    use seedbank_formats::PublicKey;
    use std::time::Duration;

    const NOW: Moment = Moment(Duration::from_secs(100));

    fn key(number: usize) -> PublicKey {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&u64::try_from(number).unwrap().to_be_bytes());
        PublicKey(bytes)
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn answer(first_byte: u64) -> Sample {
        Sample { first_byte: millis(first_byte), total: millis(first_byte + 10), bytes: 1 << 20 }
    }

    fn table(answers: &[(usize, u64)]) -> LatencyTable {
        let mut table = LatencyTable::new(LatencyPolicy::default());
        for (provider, first_byte) in answers {
            table.record(key(*provider), answer(*first_byte), NOW);
        }
        table
    }

    fn ranked(table: &LatencyTable, providers: &[usize], now: Moment) -> Vec<PublicKey> {
        let mut keys: Vec<PublicKey> = providers.iter().map(|number| key(*number)).collect();
        table.rank(&mut keys, |key| *key, 1 << 20, now);
        keys
    }

    #[test]
    fn faster_providers_are_ranked_first_and_strangers_by_the_default() {
        let table = table(&[(1, 700), (2, 5), (3, 40)]);
        assert_eq!(ranked(&table, &[1, 2, 3, 4], NOW), [key(2), key(3), key(4), key(1)]);
    }

    #[test]
    fn doubted_provider_comes_last_until_it_has_answered_well_for_a_while() {
        let mut table = table(&[(1, 5), (2, 50)]);
        table.doubt(key(1), NOW);
        assert_eq!(ranked(&table, &[1, 2], NOW), [key(2), key(1)]);
        for _ in 0..32 {
            table.record(key(1), answer(5), NOW);
        }
        assert_eq!(ranked(&table, &[1, 2], NOW), [key(1), key(2)]);
    }

    #[test]
    fn provider_is_down_after_two_failures_and_up_again_after_a_while_or_an_answer() {
        let mut table = table(&[(1, 5), (2, 50)]);
        table.record_failure(key(1), NOW);
        assert!(!table.is_down(&key(1), NOW));
        table.record_failure(key(1), NOW);
        assert!(table.is_down(&key(1), NOW));
        assert_eq!(table.hedge_delay(&key(1), &[key(2)], 0, NOW), Duration::ZERO);
        assert_eq!(ranked(&table, &[1, 2], NOW), [key(2), key(1)]);
        assert!(!table.is_down(&key(1), NOW.plus(millis(1_000))));
        for _ in 0..100 {
            table.record_failure(key(1), NOW);
        }
        assert!(table.is_down(&key(1), NOW.plus(millis(63_999))));
        assert!(!table.is_down(&key(1), NOW.plus(millis(64_000))));
        table.record(key(1), answer(5), NOW);
        assert!(!table.is_down(&key(1), NOW));
    }

    #[test]
    fn hedge_waits_for_the_provider_s_own_p95_between_floor_and_cap() {
        let mut answers: Vec<(usize, u64)> = (1..=60).map(|first_byte| (1, first_byte)).collect();
        assert_eq!(table(&answers).hedge_delay(&key(1), &[], 0, NOW), millis(57));
        answers.truncate(10);
        assert_eq!(table(&answers).hedge_delay(&key(1), &[], 0, NOW), millis(20));
        assert_eq!(table(&[(1, 9_000)]).hedge_delay(&key(1), &[], 0, NOW), millis(2_000));
        assert_eq!(table(&[]).hedge_delay(&key(1), &[], 0, NOW), millis(300));
    }

    #[test]
    fn provider_that_is_always_slow_is_hedged_as_its_peers_would_be() {
        let table = table(&[(1, 900), (2, 30), (3, 40), (4, 1_000)]);
        let peers = [key(2), key(3), key(4)];
        assert_eq!(table.hedge_delay(&key(1), &peers, 0, NOW), millis(80));
        assert_eq!(table.hedge_delay(&key(9), &peers, 0, NOW), millis(80));
    }

    #[test]
    fn long_ranges_are_given_their_transfer_time_twice() {
        let table = table(&[(1, 50)]);
        // 1 MiB in 10 ms, and 50 ms to the first byte.
        assert_eq!(table.expected(&key(1), 10 << 20), millis(150));
        assert_eq!(table.hedge_delay(&key(1), &[], 10 << 20, NOW), millis(250));
    }

    #[test]
    fn silence_lowers_the_rank_but_does_not_lengthen_the_hedge() {
        let mut table = table(&[(1, 30), (2, 40)]);
        let before = table.hedge_delay(&key(1), &[], 0, NOW);
        for _ in 0..100 {
            table.record_silence(key(1), millis(1_000), NOW);
        }
        assert_eq!(table.hedge_delay(&key(1), &[], 0, NOW), before);
        assert_eq!(ranked(&table, &[1, 2], NOW), [key(2), key(1)]);
    }

    #[test]
    fn table_forgets_whoever_it_has_not_heard_of_for_longest() {
        let mut table = LatencyTable::new(LatencyPolicy::default());
        for number in 0..PROVIDERS_MAX + 1 {
            let now = Moment(Duration::from_secs(u64::try_from(number).unwrap()));
            table.record(key(number), answer(5), now);
        }
        assert_eq!(table.records.len(), PROVIDERS_MAX);
        assert!(table.estimate(&key(0)).is_none());
        assert!(table.estimate(&key(PROVIDERS_MAX)).is_some());
    }

    proptest! {
        #[test]
        fn estimates_stay_within_what_was_seen(
            samples in proptest::collection::vec((0_u64..10_000, 0_u64..10_000, any::<u64>()), 1..200),
        ) {
            let mut table = LatencyTable::new(LatencyPolicy::default());
            for (first_byte, rest, bytes) in &samples {
                let (first_byte, total) = (millis(*first_byte), millis(first_byte + rest));
                table.record(key(1), Sample { first_byte, total, bytes: *bytes }, NOW);
            }
            let seen = || samples.iter().map(|(first_byte, _, _)| millis(*first_byte));
            let estimate = table.estimate(&key(1)).unwrap();
            assert!(estimate.first_byte <= seen().max().unwrap());
            assert!(estimate.first_byte + millis(1) >= seen().min().unwrap());
            // Naive: the smallest value that at least 95 of 100 in the window do not exceed.
            let window: Vec<Duration> = seen().skip(samples.len().saturating_sub(WINDOW_ANSWERS)).collect();
            let covers = |limit: &Duration| {
                window.iter().filter(|value| *value <= limit).count() * 100 >= window.len() * 95
            };
            let naive = window.iter().copied().filter(covers).min().unwrap();
            assert_eq!(estimate.first_byte_p95, naive.max(estimate.first_byte));
        }
    }
}

//! What a store exchange starts from: who may take which index, how few receipts are enough, and how patient to be.

use seedbank_erasure::Scheme;
use seedbank_formats::PublicKey;
use std::collections::BTreeSet;
use std::time::Duration;

/// Where one index stands before the exchange begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// An earlier exchange placed it: it is neither sent, moved nor released again.
    Held(PublicKey),
    /// It goes to this provider first.
    Candidate(PublicKey),
    /// It has no first choice and takes the next spare.
    Vacant,
}

/// A placement to carry out, checked: every index has its slot, no provider is named twice, and the minimum is one
/// from which the segment can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorePlan {
    pub(super) scheme: Scheme,
    pub(super) slots: Vec<Slot>,
    pub(super) spares: Vec<PublicKey>,
    pub(super) minimum: usize,
}

/// Why providers and numbers make no plan. The caller must choose others; trying again does not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StorePlanError {
    /// Find more providers, or use a scheme with fewer fragments.
    #[error("a segment of {needed} fragments needs as many providers: have {given}")]
    TooFewProviders {
        /// Providers or slots that were given.
        given: usize,
        /// Fragments of the scheme.
        needed: usize,
    },
    /// Name each provider once: nobody may hold two fragments of one segment.
    #[error("provider is named twice: {0}")]
    Repeated(PublicKey),
    /// Ask for at least the data fragments and at most all of them.
    #[error("the fewest receipts must be between {data} and {total}: {minimum}")]
    Minimum {
        /// What was asked for.
        minimum: usize,
        /// Data fragments of the scheme.
        data: usize,
        /// All fragments of the scheme.
        total: usize,
    },
}

impl StorePlan {
    /// Places a new segment: index `i` goes to `candidates[i]` first, and what follows the first `n` are spares, the
    /// preferred first. At least `minimum` indices, among them all data indices, must be held for success.
    ///
    /// # Errors
    /// [`StorePlanError`] when there are fewer than `n` candidates, one is repeated, or `minimum` is not in `k..=n`.
    pub fn fresh(
        scheme: Scheme,
        candidates: &[PublicKey],
        minimum: usize,
    ) -> Result<StorePlan, StorePlanError> {
        let needed = scheme.total();
        let (first, spares) = candidates
            .split_at_checked(needed)
            .ok_or(StorePlanError::TooFewProviders { given: candidates.len(), needed })?;
        let slots = first.iter().copied().map(Slot::Candidate).collect();
        StorePlan::new(scheme, slots, spares.to_vec(), minimum)
    }

    /// Completes a segment of which some indices are held already: the others take spares, data indices first.
    ///
    /// # Errors
    /// As [`StorePlan::fresh`]; `holders` has one entry per index.
    pub fn completing(
        scheme: Scheme,
        holders: &[Option<PublicKey>],
        spares: &[PublicKey],
        minimum: usize,
    ) -> Result<StorePlan, StorePlanError> {
        let slots = holders.iter().map(|holder| holder.map_or(Slot::Vacant, Slot::Held)).collect();
        StorePlan::new(scheme, slots, spares.to_vec(), minimum)
    }

    /// A plan with a slot for every index.
    ///
    /// # Errors
    /// As [`StorePlan::fresh`].
    pub fn new(
        scheme: Scheme,
        slots: Vec<Slot>,
        spares: Vec<PublicKey>,
        minimum: usize,
    ) -> Result<StorePlan, StorePlanError> {
        let (data, total) = (scheme.data(), scheme.total());
        if slots.len() != total {
            return Err(StorePlanError::TooFewProviders { given: slots.len(), needed: total });
        }
        if minimum < data || minimum > total {
            return Err(StorePlanError::Minimum { minimum, data, total });
        }
        let named = slots.iter().filter_map(|slot| match slot {
            Slot::Held(provider) | Slot::Candidate(provider) => Some(provider),
            Slot::Vacant => None,
        });
        let mut seen = BTreeSet::new();
        if let Some(provider) = named.chain(&spares).find(|provider| !seen.insert(**provider)) {
            return Err(StorePlanError::Repeated(*provider));
        }
        Ok(StorePlan { scheme, slots, spares, minimum })
    }
}

/// How long a store exchange waits before it sends a second copy, and before it does without.
///
/// The hedge follows "The Tail at Scale" (Dean and Barroso, 2013): a second request only when the first has taken
/// longer than nearly all of its kind. Its kind is the other fragments of the same segment, equal in size and sent
/// at the same time, so their median says what this network and this size take now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorePolicy {
    /// A fragment is sent to a spare, too, after this percentage of the median completion time so far.
    pub hedge_percent: u32,
    /// No hedge before this: jitter of a fast network is no sign of a slow provider.
    pub hedge_floor: Duration,
    /// No later than this, and the delay while nothing has completed.
    pub hedge_cap: Duration,
    /// Once the minimum is held and no spare is left, stragglers are given up after this percentage of the median.
    pub straggler_percent: u32,
    /// And never before this: a provider that syncs a busy disk may take seconds, one that hangs must not hold a
    /// segment up for longer.
    pub straggler_floor: Duration,
    /// The exchange ends this long after it began, one way or the other.
    pub deadline: Duration,
}

/// Slower links than this are taken for stalled.
const SLOWEST_BYTES_PER_SECOND: u64 = 256 * 1024;

impl StorePolicy {
    /// A policy for fragments of `bytes` bytes: hedge after three times the median, between 200 ms and the time that
    /// a slow link (256 KiB/s) needs plus two seconds; give stragglers ten times the median, two seconds at least; end
    /// after four caps.
    #[must_use]
    pub fn for_fragment(bytes: u64) -> StorePolicy {
        let cap = Duration::from_secs(2 + bytes / SLOWEST_BYTES_PER_SECOND);
        StorePolicy {
            hedge_percent: 300,
            hedge_floor: Duration::from_millis(200),
            hedge_cap: cap,
            straggler_percent: 1000,
            straggler_floor: Duration::from_secs(2),
            deadline: cap.saturating_mul(4),
        }
    }

    /// How long an attempt may take before a spare gets the same fragment.
    pub(super) fn hedge_delay(&self, median: Option<Duration>) -> Duration {
        let adaptive = median.map_or(self.hedge_cap, |median| percent_of(self.hedge_percent, median));
        adaptive.max(self.hedge_floor).min(self.hedge_cap)
    }

    /// How long an attempt may take before the segment does without it; without a median only the deadline says.
    pub(super) fn straggler_delay(&self, median: Option<Duration>) -> Duration {
        let adaptive = median.map_or(self.deadline, |median| percent_of(self.straggler_percent, median));
        adaptive.max(self.straggler_floor).min(self.deadline)
    }
}

fn percent_of(percent: u32, duration: Duration) -> Duration {
    duration.saturating_mul(percent) / 100
}

//! What the operator decides about a store.

use crate::marker::StoreId;
use seedbank_formats::PublicKey;
use std::collections::BTreeMap;

/// The most bytes that one fragment may have: a whole segment, when it is copied instead of coded.
pub const FRAGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The most bytes that one head may have.
pub const HEAD_BYTES_MAX: usize = 256 * 1024;
/// The most claims that one call may renew or release. One call is one frame of the journal.
pub const CLAIMS_PER_CALL_MAX: usize = 1000;
/// A claim counts at least this much against its client's quota, so that a quota bounds the index's memory too.
pub const CLAIM_CHARGE_MIN: u64 = 4096;

/// How a store behaves. `new` gives what suits most providers.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whose folder this must be.
    pub store: StoreId,
    /// Bytes that the store may take on its disk, the journal left out.
    pub capacity_bytes: u64,
    /// Bytes that stay free on the disk, so that releases, compaction and the journal work when it is full.
    pub reserve_bytes: u64,
    /// Seconds for which released fragments stay in trash while space is not short.
    pub grace_s: u64,
    /// The longest time, in seconds, that a claim lasts before its client renews it for the first time.
    pub pending_s_max: u64,
    /// Who may store how much.
    pub quotas: QuotaPolicy,
    /// Bytes of all heads together.
    pub heads_bytes_max: u64,
    /// A volume that has grown to this many bytes gets no more records. At most 1 GiB.
    pub volume_bytes: u64,
    /// Fragments below this many bytes are packed into volumes, others get a file each. At most 1 MiB: such a fragment
    /// is kept in memory until it is complete.
    pub pack_below_bytes: u64,
    /// Bytes that the journal may waste before it is written anew, beside those of the index's own size.
    pub journal_slack_bytes: u64,
}

impl Config {
    /// The defaults for a store of this size: a week of trash, a day for pending claims, volumes of 256 MiB, closed to
    /// unknown clients.
    #[must_use]
    pub fn new(store: StoreId, capacity_bytes: u64) -> Config {
        const MIB: u64 = 1024 * 1024;
        Config {
            store,
            capacity_bytes,
            reserve_bytes: 512 * MIB,
            grace_s: 7 * 86_400,
            pending_s_max: 86_400,
            quotas: QuotaPolicy::default(),
            heads_bytes_max: 64 * MIB,
            volume_bytes: 256 * MIB,
            pack_below_bytes: MIB,
            journal_slack_bytes: 4 * MIB,
        }
    }

    /// The first setting that is out of its bounds, as a sentence fragment.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        const MIB: u64 = 1024 * 1024;
        if self.volume_bytes > 1024 * MIB {
            return Some("volume_bytes is above 1 GiB");
        }
        if self.pack_below_bytes > MIB {
            return Some("pack_below_bytes is above 1 MiB");
        }
        None
    }
}

/// Who may store how much, in bytes.
#[derive(Debug, Clone, Default)]
pub struct QuotaPolicy {
    /// Clients with a quota of their own.
    pub clients: BTreeMap<PublicKey, u64>,
    /// Everybody else; 0 is a closed store.
    pub others_bytes: u64,
}

impl QuotaPolicy {
    /// The quota of a client, in bytes.
    #[must_use]
    pub fn of(&self, client: &PublicKey) -> u64 {
        self.clients.get(client).copied().unwrap_or(self.others_bytes)
    }
}

/// What a claim on a fragment of this many bytes costs of a quota, in bytes.
pub(crate) fn charge(length: u32) -> u64 {
    u64::from(length).max(CLAIM_CHARGE_MIN)
}

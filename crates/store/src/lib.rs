//! Keeps fragments on a provider's disks and finds rot before a reader does.
//!
//! A [`Store`] takes fragments in with their clients' claims, gives out plain and proven ranges, keeps each dataset's
//! newest head, and looks through everything at a paced rate. What it acknowledged is durable: file, folder and journal
//! are synced first, and waiting changes share those syncs. Small fragments are packed into append-only volumes, large
//! ones are files of their own, and an append-only journal says what exists. `docs/formats/store.md` draws the bytes.
//!
//! The layers, from the disk upwards: [`Disk`] is all that is asked of one; `record`, `journal` and `marker` are bytes
//! on it; `index` is the pure state machine that the journal's entries drive; `shared` commits changes in groups; and
//! each operation has a file: [`Put`] takes in, `read` gives out, `claims`, `heads`, `collect` and `scrub` do what they
//! say.
//!
//! Calls block and start no thread but the committer; time comes in as an argument. The store knows nothing of the
//! network, of signatures or of money: who may ask is decided before it is asked, and receipts are signed after.
//!
//! ```
//! use seedbank_formats::{Asked, FragmentId, PublicKey, Timestamp};
//! use seedbank_store::testing::MemDisk;
//! use seedbank_store::{Access, Config, NewClaim, PutStart, Store, StoreId};
//!
//! let disk = MemDisk::default();
//! Store::create(&disk, StoreId([1; 32]))?;
//! let mut config = Config::new(StoreId([1; 32]), 1 << 30);
//! config.quotas.others_bytes = 1 << 20;
//! let store = Store::open(std::sync::Arc::new(disk), config)?;
//!
//! let (bytes, now) = (b"a fragment is what erasure coding gives", Timestamp(1_900_000_000));
//! let (client, id) = (PublicKey([2; 32]), FragmentId::of(bytes));
//! let claim = NewClaim { client, until: now.plus_seconds(3600), access: Access::Owner, asked: Asked(1) };
//! if let PutStart::Receive(mut put) = store.begin_put(id, bytes.len() as u64, claim, now)? {
//!     put.write(bytes)?;
//!     put.finish(now)?;
//! }
//! assert_eq!(store.read(&id, 2..10)?, b"fragment");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod claims;
mod collect;
mod config;
mod disk;
mod entry;
mod files;
mod folder;
mod heads;
mod index;
mod journal;
mod marker;
mod put;
mod read;
mod record;
mod scrub;
mod shared;
mod store;
pub mod testing;

pub use claims::{ClaimError, ClaimInfo, ClaimPage, Release, Renewal};
pub use collect::{CollectError, Collected};
pub use config::{
    CLAIM_CHARGE_MIN, CLAIMS_PER_CALL_MAX, Config, FRAGMENT_BYTES_MAX, HEAD_BYTES_MAX, QuotaPolicy,
};
pub use disk::{Disk, DiskFile, LockError, RealDisk};
pub use folder::make_folder;
pub use heads::{HeadError, PutHeadError, StoredHead};
pub use index::Health;
pub use journal::JournalError;
pub use marker::StoreId;
pub use put::{Access, NewClaim, Put, PutError, PutStart, Stored};
pub use read::{FragmentInfo, Grant, ReadError, SliceAnswer};
pub use scrub::{ScrubCursor, ScrubCursorError, ScrubReport};
pub use shared::Mode;
pub use store::{ClientUsage, CreateError, OpenError, ProbeError, Store, Usage};

#[cfg(test)]
mod tests;

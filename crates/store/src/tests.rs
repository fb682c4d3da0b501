//! Tests of the whole store, on a disk in memory unless said otherwise.

mod claims;
mod conformance;
mod crash;
mod faults;
mod golden;
mod hanging;
mod lies;
mod sharing;
mod space;

use crate::testing::{MemDisk, kept};
use crate::{Access, Config, NewClaim, OpenError, PutError, PutStart, Store, StoreId, Stored};
use seedbank_formats::{Asked, FragmentId, PublicKey, Timestamp};
use std::sync::Arc;

const STORE: StoreId = StoreId([5; 32]);
const NOW: Timestamp = Timestamp(1_900_000_000);
const FOREVER: Timestamp = Timestamp(2_900_000_000);
/// Later than all that is asked for in the tests.
const LAST: Asked = Asked(u64::MAX);
const GRACE_S: u64 = 1000;

/// Small bounds, so that short tests cross them: 4 KiB is a large fragment, a volume holds 64 KiB.
fn config() -> Config {
    let mut config = Config::new(STORE, 1 << 26);
    config.reserve_bytes = 0;
    config.grace_s = GRACE_S;
    config.pending_s_max = u64::MAX;
    config.quotas.others_bytes = 1 << 30;
    config.volume_bytes = 64 * 1024;
    config.pack_below_bytes = 4096;
    config.journal_slack_bytes = 2048;
    config
}

fn created() -> MemDisk {
    let disk = MemDisk::default();
    Store::create(&disk, STORE).unwrap();
    disk
}

fn try_open(disk: &MemDisk) -> Result<Store, OpenError> {
    Store::open(Arc::new(disk.clone()), config())
}

fn open(disk: &MemDisk) -> Store {
    try_open(disk).unwrap()
}

fn client(tag: u8) -> PublicKey {
    PublicKey([tag; 32])
}

fn claim(tag: u8) -> NewClaim {
    NewClaim { client: client(tag), until: FOREVER, access: Access::Owner, asked: Asked(1) }
}

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn put_as(store: &Store, claim: NewClaim, bytes: &[u8], now: Timestamp) -> Result<Stored, PutError> {
    match store.begin_put(FragmentId::of(bytes), bytes.len() as u64, claim, now)? {
        PutStart::Held(stored) => Ok(stored),
        PutStart::Receive(mut put) => {
            for piece in bytes.chunks(1500) {
                put.write(piece)?;
            }
            put.finish(now)
        }
    }
}

fn put(store: &Store, tag: u8, bytes: &[u8]) -> Result<Stored, PutError> {
    put_as(store, claim(tag), bytes, NOW)
}

/// Reopens as after SIGKILL: everything written is there, synced or not.
fn killed(disk: &MemDisk) -> MemDisk {
    disk.crash(&mut kept)
}

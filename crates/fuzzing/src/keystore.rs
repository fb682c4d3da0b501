//! The command line's key store, compiled from its own files as they stand: it stays private there.

#![allow(dead_code, reason = "only what reads is used")]

#[path = "../../cli/src/keystore/dataset_key.rs"]
mod dataset_key;
#[path = "../../cli/src/keystore/passphrase.rs"]
mod passphrase;
#[path = "../../cli/src/keystore/sealed.rs"]
mod sealed;

pub(crate) use dataset_key::{DatasetKey, ProviderAddress};

/// Opens a store that has no passphrase. Others cost what their header says, on purpose.
pub(crate) fn open_unprotected(file: &[u8]) {
    let Ok(lock) = sealed::Lock::of(file) else { return };
    if lock.protection == sealed::Protection::None {
        drop(lock.key(None).and_then(|key| key.unseal(file)));
    }
}

/// Reads a dataset's key, and checks that it has one encoding.
pub(crate) fn dataset_key(bytes: &[u8]) -> Option<DatasetKey> {
    crate::canonical(bytes, DatasetKey::decode, |key| key.encode().to_vec())
}

//! What one needs to read a dataset: its id, its owner and its secrets by key epoch.

use seedbank_formats::keys::{DatasetSecret, KeyEpoch, SealKeys, SigningKey};
use seedbank_formats::{DatasetId, PublicKey};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where a dataset's deduplication index lies, in the folder of all of them. An index is one dataset's.
#[must_use]
pub fn index_folder(index_dir: &Path, dataset: &DatasetId) -> PathBuf {
    index_dir.join(dataset.to_string())
}

/// Whether a dataset's key is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Only key holders read it.
    Private,
    /// Anyone who knows its id reads it.
    Public,
}

/// A dataset's identity and keys.
#[derive(Debug, Clone)]
pub struct DatasetKeys {
    /// Its id.
    pub id: DatasetId,
    /// Whose signature its versions and heads must carry.
    pub owner: PublicKey,
    /// What makes the id together with the owner's key.
    pub salt: [u8; 32],
    /// Whether its key is published.
    pub visibility: Visibility,
    /// The epoch that seals new data.
    pub epoch: KeyEpoch,
    secrets: BTreeMap<KeyEpoch, DatasetSecret>,
    seals: BTreeMap<KeyEpoch, SealKeys>,
}

impl DatasetKeys {
    /// The keys of a dataset whose secrets are known for the epochs in `secrets`; new data is sealed in the last one.
    /// `None` when there is no secret at all.
    #[must_use]
    pub fn new(
        id: DatasetId,
        owner: PublicKey,
        salt: [u8; 32],
        visibility: Visibility,
        secrets: BTreeMap<KeyEpoch, DatasetSecret>,
    ) -> Option<DatasetKeys> {
        let epoch = *secrets.last_key_value()?.0;
        let seals =
            secrets.iter().map(|(epoch, secret)| (*epoch, SealKeys::new(id, *epoch, secret))).collect();
        Some(DatasetKeys { id, owner, salt, visibility, epoch, secrets, seals })
    }

    /// The sealing keys of an epoch, if its secret is known.
    #[must_use]
    pub fn seal_keys(&self, epoch: KeyEpoch) -> Option<&SealKeys> {
        self.seals.get(&epoch)
    }

    /// The sealing keys of the present epoch.
    #[must_use]
    pub fn current(&self) -> &SealKeys {
        &self.seals[&self.epoch]
    }

    /// Signs reader tokens; `None` for a public dataset, which needs none.
    #[must_use]
    pub fn reader_key(&self) -> Option<SigningKey> {
        match self.visibility {
            Visibility::Public => None,
            // One key for all epochs, so that a claim names one reader key.
            Visibility::Private => self.secrets.first_key_value().map(|(_, secret)| secret.reader_key()),
        }
    }

    /// Every epoch's secret, for handing the dataset's key on.
    #[must_use]
    pub fn secrets(&self) -> &BTreeMap<KeyEpoch, DatasetSecret> {
        &self.secrets
    }
}

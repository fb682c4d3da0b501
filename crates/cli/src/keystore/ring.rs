//! Every key of one owner, derived from the recovery phrase, and the keys of others' datasets that were handed over.
//!
//! Each purpose has its own derivation context, so that no key says anything about another. Keys that own money are derived
//! as wallets do it (BIP-32), so that any wallet app that is given the phrase shows the same accounts.

use super::dataset_key::{DatasetKey, EPOCHS_MAX, ProviderAddress};
use super::phrase::Phrase;
use seedbank_agreement::WalletKey;
use seedbank_agreement::wallet::{DeriveError, WalletRole};
use seedbank_formats::DatasetId;
use seedbank_formats::codec::DecodeError;
use seedbank_formats::keys::{DatasetSecret, KeyEpoch, SigningKey, dataset_id};
use std::collections::BTreeMap;
use std::fmt;
use zeroize::Zeroizing;

const IDENTITY_CONTEXT: &str = "seedbank v1 identity key";
const DATA_ROOT_CONTEXT: &str = "seedbank v1 data root key";
const DATASET_CONTEXT: &str = "seedbank v1 dataset secret";

/// The account of lane 0. Those before it have roles, and a few more may get some.
const FIRST_LANE: u32 = 16;

/// The keys of an unlocked home.
#[derive(Clone)]
pub(crate) struct KeyRing {
    identity: SigningKey,
    /// Money keys are derived when they are asked for: most commands never do.
    seed: Zeroizing<[u8; 64]>,
    data_root: Zeroizing<[u8; 32]>,
    imported: BTreeMap<DatasetId, DatasetKey>,
}

impl KeyRing {
    /// Derives the owner's keys from the phrase.
    pub(crate) fn new(phrase: &Phrase, imported: BTreeMap<DatasetId, DatasetKey>) -> KeyRing {
        let seed = phrase.seed();
        let identity = Zeroizing::new(blake3::derive_key(IDENTITY_CONTEXT, seed.as_slice()));
        KeyRing {
            identity: SigningKey::from_seed(*identity),
            seed: seed.clone(),
            data_root: Zeroizing::new(blake3::derive_key(DATA_ROOT_CONTEXT, seed.as_slice())),
            imported,
        }
    }

    /// The owner's key: signs versions and heads, and proves this home to providers.
    pub(crate) fn identity(&self) -> &SigningKey {
        &self.identity
    }

    /// The key of one of the owner's accounts.
    ///
    /// # Errors
    /// One phrase in 2^127 has none.
    pub(crate) fn wallet(&self, role: WalletRole) -> Result<WalletKey, DeriveError> {
        WalletKey::derive(self.seed.as_slice(), role)
    }

    /// The key that signs vouchers in lane `number`.
    ///
    /// # Errors
    /// As [`KeyRing::wallet`].
    pub(crate) fn lane(&self, number: u32) -> Result<WalletKey, DeriveError> {
        WalletKey::derive_index(self.seed.as_slice(), FIRST_LANE.saturating_add(number))
    }

    /// The secret of one of the owner's own datasets in one key epoch.
    pub(crate) fn dataset_secret(&self, dataset: &DatasetId, epoch: KeyEpoch) -> DatasetSecret {
        let mut hasher = blake3::Hasher::new_derive_key(DATASET_CONTEXT);
        hasher.update(self.data_root.as_slice());
        hasher.update(dataset.as_bytes());
        hasher.update(&epoch.0.to_le_bytes());
        DatasetSecret::new(*hasher.finalize().as_bytes())
    }

    /// Keys of others' datasets.
    pub(crate) fn imported(&self) -> &BTreeMap<DatasetId, DatasetKey> {
        &self.imported
    }

    /// The key of one of the owner's own datasets, to hand to a reader: all epochs from the first to `newest`.
    ///
    /// # Errors
    /// As [`DatasetKey::new`].
    pub(crate) fn export(
        &self,
        salt: [u8; 32],
        newest: KeyEpoch,
        name: &str,
        providers: Vec<ProviderAddress>,
    ) -> Result<DatasetKey, DecodeError> {
        let owner = self.identity.public();
        let dataset = dataset_id(&owner, &salt);
        // One more than a key may hold is enough to be refused.
        let epochs = (0..=newest.0).take(EPOCHS_MAX + 1).map(KeyEpoch);
        let secrets = epochs.map(|epoch| (epoch, self.dataset_secret(&dataset, epoch))).collect();
        DatasetKey::new(owner, salt, secrets, name, providers)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "KeyRing(owner {}, {} imported)", self.identity.public(), self.imported.len())
    }
}

#[cfg(test)]
mod tests {
    use super::KeyRing;
    use crate::keystore::phrase::Phrase;
    use seedbank_agreement::wallet::WalletRole;
    use seedbank_formats::keys::{KeyEpoch, dataset_id};
    use std::collections::BTreeMap;

    fn ring(entropy: u8) -> KeyRing {
        KeyRing::new(&Phrase::from_entropy(&[entropy; 32]), BTreeMap::new())
    }

    /// A phrase on paper must give the same keys for ever.
    #[test]
    fn derived_keys_are_the_committed_ones() {
        let ring = ring(0);
        let dataset = dataset_id(&ring.identity().public(), &[0; 32]);
        let secret = |epoch| {
            let secret = ring.dataset_secret(&dataset, KeyEpoch(epoch));
            secret.expose().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let wallet = |role| ring.wallet(role).unwrap().address();
        let lines = [
            format!("phrase {}", *Phrase::from_entropy(&[0; 32]).words()),
            format!("owner {}", ring.identity().public()),
            format!("home-dataset {dataset}"),
            format!("secret-0 {}", secret(0)),
            format!("secret-1 {}", secret(1)),
            format!("wallet {}", wallet(WalletRole::Wallet)),
            format!("hot-signer {}", wallet(WalletRole::HotSigner)),
            format!("operator {}", wallet(WalletRole::Operator)),
            format!("lane-0 {}", ring.lane(0).unwrap().address()),
        ];
        assert_eq!(
            lines.join("\n"),
            include_str!("../../../../testdata/keystore/derived-keys.txt").trim_end()
        );
    }

    #[test]
    fn phrases_datasets_and_epochs_have_unrelated_keys() {
        let (one, other) = (ring(1), ring(2));
        let (a, b) =
            (dataset_id(&one.identity().public(), &[1; 32]), dataset_id(&one.identity().public(), &[2; 32]));
        let secrets = [
            one.dataset_secret(&a, KeyEpoch(0)),
            one.dataset_secret(&a, KeyEpoch(1)),
            one.dataset_secret(&b, KeyEpoch(0)),
            other.dataset_secret(&a, KeyEpoch(0)),
        ];
        let distinct: std::collections::BTreeSet<_> = secrets.iter().map(|secret| *secret.expose()).collect();
        assert_eq!(distinct.len(), secrets.len());
        assert_ne!(one.identity().public(), other.identity().public());
    }

    #[test]
    fn exported_key_opens_every_epoch_so_far_and_no_later_one() {
        let ring = ring(1);
        let key = ring.export([9; 32], KeyEpoch(2), "notes", Vec::new()).unwrap();
        assert_eq!(key.dataset(), dataset_id(&ring.identity().public(), &[9; 32]));
        assert_eq!(key.secrets().len(), 3);
        for (epoch, secret) in key.secrets() {
            assert_eq!(secret.expose(), ring.dataset_secret(&key.dataset(), *epoch).expose());
        }
    }

    #[test]
    fn no_secret_is_shown_in_debug_output() {
        let ring = ring(1);
        assert_eq!(format!("{ring:?}"), format!("KeyRing(owner {}, 0 imported)", ring.identity().public()));
    }
}

//! From a name in the registry to a head that may be believed.
//!
//! The chain says which dataset a name means, whose key signs its heads, and the least sequence that counts. Providers give
//! the head. Both must agree: the key that signed the head is the one that gave its word for the owner's wallet, and no
//! provider can get away with an older head than the chain knows.

use super::Registries;
use super::names::{hash_of, registry_name};
use crate::dataset::DatasetKeys;
use crate::heads::{OpenDatasetError, OpenedHead, newest_head};
use crate::network::Network;
use crate::pay::ChainError;
use seedbank_agreement::Address;
use seedbank_agreement::publication::HeadHash;
use seedbank_formats::{DatasetId, PublicKey, VersionId};
use seedbank_settlement::{Chain, DatasetEntry, name_id};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What the registry says under a name, after its key gave its word for its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownName {
    /// The dataset.
    pub dataset: DatasetId,
    /// Whose signature its heads carry.
    pub owner_key: PublicKey,
    /// The least sequence that counts; 0 before the first head.
    pub sequence: u64,
    /// BLAKE3 of that head.
    pub head: HeadHash,
    /// Its version.
    pub version: VersionId,
    /// There are no further versions.
    pub frozen: bool,
}

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum LookUpError {
    /// What was known before may do.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Somebody wrote another's key into their own entry.
    #[error(
        "the registry's entry names a key that did not give its word for {owner}: it is not to be believed"
    )]
    Unbound {
        /// Whose entry it is.
        owner: Address,
    },
    /// Ask under the new owner.
    #[error("{before} gave the name to {now}, and the dataset with it")]
    GivenAway {
        /// Whose it was.
        before: Address,
        /// Whose it is.
        now: Address,
    },
}

/// Why a name's dataset can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenNamedError {
    /// Ask other providers, or later.
    #[error(transparent)]
    Open(#[from] OpenDatasetError),
    /// The registry's entry is of another owner than the dataset.
    #[error("the head is signed by {found}, and the registry's entry is bound to {expected}")]
    OtherOwner {
        /// Who signed the head.
        found: PublicKey,
        /// Whose entry it is.
        expected: PublicKey,
    },
    /// The owner signed two heads of one sequence.
    #[error("providers have another head {0} than the one that the owner published on the chain")]
    OtherHead(u64),
    /// The owner said that there would be no other version.
    #[error("the dataset is frozen on the chain at version {frozen}, and providers have a later one")]
    AfterFreeze {
        /// The last version.
        frozen: VersionId,
    },
}

/// What the registry says under an owner's name; `None` if nothing.
///
/// # Errors
/// [`LookUpError`].
pub async fn look_up(chain: &Chain, owner: Address, name: &str) -> Result<Option<KnownName>, LookUpError> {
    let entry = chain.datasets().get(name_id(owner, name)).await.map_err(ChainError::from)?;
    let Some(entry) = entry else { return Ok(None) };
    let bound = entry.owner_key(chain);
    believe(owner, entry, bound).map(Some)
}

fn believe(owner: Address, entry: DatasetEntry, bound: Option<PublicKey>) -> Result<KnownName, LookUpError> {
    if entry.owner != owner {
        return Err(LookUpError::GivenAway { before: owner, now: entry.owner });
    }
    let owner_key = bound.ok_or(LookUpError::Unbound { owner })?;
    let DatasetEntry { dataset, sequence, head, version, frozen, .. } = entry;
    Ok(KnownName { dataset, owner_key, sequence, head, version, frozen })
}

impl Registries {
    /// The sequence below which no head of one of the owner's datasets counts; `None` if the chain was not told of it, or the
    /// owner has given the name away since.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn least_head(&self, name: &str, keys: &DatasetKeys) -> Result<Option<u64>, ChainError> {
        let wallet = crate::pay::Chain::wallet(self.chain.as_ref());
        let chain = self.chain.chain().await?;
        let known = match look_up(chain, wallet, &registry_name(name, keys)).await {
            Ok(known) => known,
            Err(LookUpError::Chain(error)) => return Err(error),
            Err(LookUpError::Unbound { .. } | LookUpError::GivenAway { .. }) => None,
        };
        // A public name may be an earlier dataset's.
        Ok(known.filter(|known| known.dataset == keys.id && known.sequence > 0).map(|known| known.sequence))
    }
}

impl KnownName {
    /// Whether this is of the same dataset, and no older than `other`.
    #[must_use]
    pub fn goes_on(&self, other: &KnownName) -> bool {
        (self.dataset, self.owner_key) == (other.dataset, other.owner_key) && self.sequence >= other.sequence
    }
}

/// Opens the dataset that a name means, through the newest head that these providers have. Without keys it must be public.
///
/// # Errors
/// [`OpenNamedError`].
pub async fn open_named(
    network: &Arc<Network>,
    providers: &[PublicKey],
    name: &KnownName,
    keys: Option<&DatasetKeys>,
) -> Result<OpenedHead, OpenNamedError> {
    let least = Some(name.sequence).filter(|sequence| *sequence > 0);
    let head = newest_head(network, providers, name.dataset, least).await.map_err(OpenDatasetError::from)?;
    let (found, sequence) = (head.head().owner(), head.head().sequence());
    if found != name.owner_key {
        return Err(OpenNamedError::OtherOwner { found, expected: name.owner_key });
    }
    if sequence == name.sequence && hash_of(head.bytes()) != name.head {
        return Err(OpenNamedError::OtherHead(sequence));
    }
    let published;
    let keys = match keys {
        Some(keys) => keys,
        None => {
            published = head.published_keys()?;
            &published
        }
    };
    let opened = OpenedHead::open(network, keys, head).await?;
    // Repair and compaction write new heads of the same version.
    let version = opened.body().version.map(|version| version.id);
    if name.frozen && version != Some(name.version) {
        return Err(OpenNamedError::AfterFreeze { frozen: name.version });
    }
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::{KnownName, LookUpError, believe};
    use seedbank_agreement::Address;
    use seedbank_agreement::publication::HeadHash;
    use seedbank_formats::{DatasetId, PublicKey, VersionId};
    use seedbank_settlement::DatasetEntry;

    const OWNER: Address = Address([1; 20]);
    const KEY: PublicKey = PublicKey([2; 32]);

    fn entry() -> DatasetEntry {
        DatasetEntry {
            owner: OWNER,
            pending_owner: None,
            sequence: 7,
            frozen: false,
            dataset: DatasetId([3; 32]),
            version: VersionId([4; 32]),
            head: HeadHash([5; 32]),
            claimed_key: KEY,
            key_signature: None,
        }
    }

    #[test]
    fn an_entry_counts_for_its_owner_and_with_its_keys_word() {
        assert_eq!(believe(OWNER, entry(), Some(KEY)).unwrap().owner_key, KEY);
        assert!(matches!(believe(OWNER, entry(), None), Err(LookUpError::Unbound { .. })));
        let given = believe(Address([9; 20]), entry(), Some(KEY));
        assert!(matches!(given, Err(LookUpError::GivenAway { now: OWNER, .. })));
    }

    #[test]
    fn a_chain_that_went_back_does_not_go_on_from_what_was_known() {
        let known = believe(OWNER, entry(), Some(KEY)).unwrap();
        let at = |sequence| KnownName { sequence, ..known.clone() };
        assert!(at(7).goes_on(&known) && at(8).goes_on(&known));
        assert!(!at(6).goes_on(&known));
        assert!(!KnownName { dataset: DatasetId([8; 32]), ..at(9) }.goes_on(&known));
        assert!(!KnownName { owner_key: PublicKey([8; 32]), ..at(9) }.goes_on(&known));
    }
}

//! Tells the chain of a dataset's newest head, under a name that says no more than its owner wants.
//!
//! A public dataset stands under its own name. A private one stands under [`hidden_name`], which the owner's phrase and every
//! key that was handed over lead to, and which tells others nothing. A head is told once providers have it: what the chain
//! says is the least that readers accept. `docs/decisions/0008-names-on-the-chain.md` weighs it.

use super::{Naming, Registries};
use crate::dataset::{DatasetKeys, Visibility};
use crate::pay::ChainError;
use crate::uploader::SharedBooks;
use seedbank_agreement::Publication;
use seedbank_agreement::publication::{HeadHash, NameId};
use seedbank_catalog::records::Dataset;
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::head::{Head, OpenHeadError};
use seedbank_formats::keys::hidden_name;
use seedbank_formats::receipt::SignedError;
use seedbank_formats::{DatasetId, PublicKey, VersionId};
use seedbank_settlement::{DatasetEntry, Refusal, SendError, name_id};
use std::sync::Arc;

/// A reader asks several providers before it believes that there is no newer head: before so many have one, the chain is not told.
const COPIES_MIN: usize = 2;

/// Others of this home publish at the same moment no more often than this.
const ATTEMPTS_MAX: u32 = 4;

/// What became of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// The chain has the newest head.
    Current,
    /// The chain has it now.
    Published {
        /// Its sequence.
        sequence: u64,
    },
    /// There is no head yet, or too few providers have it.
    Waits,
    /// The owner does not want it named.
    Unwanted,
}

/// Why the chain was not told. Whoever knows the dataset still reads it.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// Try again later.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Choose another name: one that was used can't be given to another dataset.
    #[error(
        "on the chain, the name {name:?} is that of an earlier dataset, {dataset}; it can't be given to another one"
    )]
    Taken {
        /// The name.
        name: String,
        /// What it names.
        dataset: DatasetId,
    },
    /// The owner gave the entry away, or put another key into it.
    #[error("on the chain, the name {0:?} is bound to another key")]
    Foreign(String),
    /// No further heads, ever.
    #[error("on the chain, the dataset {0:?} is frozen")]
    Frozen(String),
    /// The books are an old copy: bring them up to date with `seedbank key recover`.
    #[error("the chain knows head {theirs} of dataset {name:?}, and these books only {ours}")]
    Behind {
        /// The dataset.
        name: String,
        /// The newest head of the books.
        ours: u64,
        /// The newest on the chain.
        theirs: u64,
    },
    /// An old copy of the books was written from.
    #[error("the chain knows another head {sequence} of dataset {name:?} than these books")]
    Forked {
        /// The dataset.
        name: String,
        /// The sequence of both.
        sequence: u64,
    },
    /// The books hold a head that is none.
    #[error(transparent)]
    Head(#[from] SignedError),
    /// The keys don't open the head.
    #[error(transparent)]
    Open(#[from] OpenHeadError),
    /// The books can't be asked.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The process is ending.
    #[error("naming was stopped")]
    Stopped,
}

/// What a dataset is called in the registry.
#[must_use]
pub fn registry_name(name: &str, keys: &DatasetKeys) -> String {
    match (keys.visibility, keys.secrets().first_key_value()) {
        (Visibility::Private, Some((_, secret))) => hidden_name(&keys.id, secret),
        _ => name.to_owned(),
    }
}

/// A head of ours that the chain may be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OurHead {
    sequence: u64,
    hash: HeadHash,
    version: VersionId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Nothing,
    Register,
    Publish { previous: HeadHash },
}

/// What is to be done to an entry so that it says `ours`. `bound` is the key that gave its word for the entry's owner.
fn plan(
    name: &str,
    entry: Option<&DatasetEntry>,
    bound: Option<PublicKey>,
    dataset: &Dataset,
    ours: &OurHead,
) -> Result<Plan, NameError> {
    let Some(entry) = entry else { return Ok(Plan::Register) };
    let name = || name.to_owned();
    if entry.dataset != dataset.id {
        return Err(NameError::Taken { name: name(), dataset: entry.dataset });
    }
    if bound != Some(dataset.owner) {
        return Err(NameError::Foreign(name()));
    }
    if entry.sequence > ours.sequence {
        return Err(NameError::Behind { name: name(), ours: ours.sequence, theirs: entry.sequence });
    }
    match (entry.sequence == ours.sequence, entry.head == ours.hash) {
        (true, true) => Ok(Plan::Nothing),
        (true, false) => Err(NameError::Forked { name: name(), sequence: ours.sequence }),
        (false, _) if entry.frozen => Err(NameError::Frozen(name())),
        (false, _) => Ok(Plan::Publish { previous: entry.head }),
    }
}

impl Registries {
    /// Sees to it that the chain has the newest head of one of the owner's datasets.
    ///
    /// # Errors
    /// [`NameError`].
    pub async fn publish_name(
        &self,
        books: &SharedBooks,
        dataset: &Dataset,
        keys: &DatasetKeys,
    ) -> Result<Named, NameError> {
        if !self.wants(dataset) {
            return Ok(Named::Unwanted);
        }
        let mut behind = None;
        for _ in 0..ATTEMPTS_MAX {
            match self.try_name(books, dataset, keys).await {
                // Another process of this home may have been faster: the books know.
                Err(error @ NameError::Behind { .. }) => behind = Some(error),
                Ok(Some(named)) => return Ok(named),
                Ok(None) => {}
                Err(error) => return Err(error),
            }
        }
        let busy = || ChainError::Unreachable("others keep publishing this dataset".to_owned());
        Err(behind.unwrap_or_else(|| busy().into()))
    }

    fn wants(&self, dataset: &Dataset) -> bool {
        dataset.owner == self.owner.public()
            && match self.naming {
                Naming::All => true,
                Naming::Public => dataset.public,
                Naming::Nothing => false,
            }
    }

    /// One attempt; `None` when somebody else changed the entry meanwhile.
    async fn try_name(
        &self,
        books: &SharedBooks,
        dataset: &Dataset,
        keys: &DatasetKeys,
    ) -> Result<Option<Named>, NameError> {
        let id = dataset.id;
        let look = move |books: &SharedBooks| Ok((books.head(id)?, books.providers()?.len()));
        let (head, providers) = ask(books, look).await?;
        let Some(head) = head.filter(|head| head.published.len() >= COPIES_MIN.min(providers.max(1))) else {
            return Ok(Some(Named::Waits));
        };
        let (ours, name) = (our_head(&head.bytes, keys)?, registry_name(&dataset.name, keys));
        let wallet = crate::pay::Chain::wallet(self.chain.as_ref());
        let at = name_id(wallet, &name);
        let chain = self.chain.chain().await?;
        let entry = chain.datasets().get(at).await.map_err(ChainError::from)?;
        let bound = entry.as_ref().and_then(|entry| entry.owner_key(chain));
        let previous = match plan(&dataset.name, entry.as_ref(), bound, dataset, &ours)? {
            Plan::Nothing => return Ok(Some(Named::Current)),
            Plan::Register => None,
            Plan::Publish { previous } => Some(previous),
        };
        let turn = self.chain.turn().await?;
        let sent = self.send(&turn.wallet, &name, at, dataset, &ours, previous).await;
        turn.end().await;
        match sent {
            Ok(()) => Ok(Some(Named::Published { sequence: ours.sequence })),
            Err(
                SendError::Refused(Refusal::Moved { .. } | Refusal::NameTaken)
                | SendError::Reverted { refusal: Some(Refusal::Moved { .. } | Refusal::NameTaken), .. },
            ) => Ok(None),
            Err(error) => match ChainError::from(error) {
                ChainError::Overtaken(_) => Ok(None),
                error => Err(error.into()),
            },
        }
    }

    async fn send(
        &self,
        wallet: &seedbank_settlement::Wallet,
        name: &str,
        id: NameId,
        dataset: &Dataset,
        ours: &OurHead,
        previous: Option<HeadHash>,
    ) -> Result<(), SendError> {
        let calls = wallet.datasets();
        let previous_head = match previous {
            Some(previous) => previous,
            None => {
                let word = wallet.chain().dataset_binding(wallet.address()).sign(&self.owner);
                calls.register(name, dataset.id, self.owner.public(), &word).await?;
                HeadHash([0; 32])
            }
        };
        let OurHead { sequence, version, hash } = *ours;
        calls.publish(&Publication { id, sequence, previous_head, version, head: hash }).await.map(drop)
    }
}

fn our_head(bytes: &[u8], keys: &DatasetKeys) -> Result<OurHead, NameError> {
    let head = Head::check(bytes)?;
    let seals = keys.seal_keys(head.epoch()).unwrap_or_else(|| keys.current());
    let version = head.open(seals)?.version.map_or(VersionId([0; 32]), |version| version.id);
    Ok(OurHead { sequence: head.sequence(), hash: hash_of(bytes), version })
}

/// The hash under which the registry knows a signed head.
pub(crate) fn hash_of(head: &[u8]) -> HeadHash {
    HeadHash(*blake3::hash(head).as_bytes())
}

async fn ask<T: Send + 'static>(
    books: &SharedBooks,
    question: impl FnOnce(&SharedBooks) -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, NameError> {
    let books = Arc::clone(books);
    let asked = tokio::task::spawn_blocking(move || question(&books)).await;
    Ok(asked.map_err(|_ended| NameError::Stopped)??)
}

#[cfg(test)]
mod tests {
    use super::{NameError, OurHead, Plan, plan};
    use seedbank_agreement::Address;
    use seedbank_agreement::publication::HeadHash;
    use seedbank_catalog::records::Dataset;
    use seedbank_formats::keys::{DatasetSecret, KeyEpoch, hidden_name};
    use seedbank_formats::{DatasetId, PublicKey, Timestamp, VersionId};
    use seedbank_settlement::DatasetEntry;

    const OWNER: PublicKey = PublicKey([1; 32]);

    fn dataset() -> Dataset {
        Dataset {
            id: DatasetId([2; 32]),
            name: "birds".to_owned(),
            salt: [0; 32],
            owner: OWNER,
            epoch: KeyEpoch(0),
            public: true,
            policy: Vec::new(),
            created: Timestamp(0),
        }
    }

    fn ours(sequence: u64) -> OurHead {
        let mark = u8::try_from(sequence).unwrap();
        OurHead { sequence, hash: HeadHash([mark; 32]), version: VersionId([mark; 32]) }
    }

    fn entry(sequence: u64) -> DatasetEntry {
        DatasetEntry {
            owner: Address([9; 20]),
            pending_owner: None,
            sequence,
            frozen: false,
            dataset: DatasetId([2; 32]),
            version: ours(sequence).version,
            head: ours(sequence).hash,
            claimed_key: OWNER,
            key_signature: None,
        }
    }

    fn planned(entry: Option<&DatasetEntry>, bound: Option<PublicKey>) -> Result<Plan, NameError> {
        plan("birds", entry, bound, &dataset(), &ours(5))
    }

    #[test]
    fn a_hidden_name_follows_from_dataset_and_secret_and_from_nothing_less() {
        let name = |dataset: u8, secret: u8| {
            hidden_name(&DatasetId([dataset; 32]), &DatasetSecret::new([secret; 32]))
        };
        // For ever: datasets stand on chains under it.
        assert_eq!(name(1, 2), "b833abe73a0eb0f01de562f7264c80767a0e1e538fe989223ce45011e811ae70");
        assert_ne!(name(1, 2), name(3, 2));
        assert_ne!(name(1, 2), name(1, 3));
    }

    #[test]
    fn a_new_name_is_registered_and_a_newer_head_replaces_the_one_that_was_seen() {
        assert_eq!(planned(None, None).unwrap(), Plan::Register);
        for before in [0, 4] {
            let previous = ours(before).hash;
            assert_eq!(planned(Some(&entry(before)), Some(OWNER)).unwrap(), Plan::Publish { previous });
        }
        assert_eq!(planned(Some(&entry(5)), Some(OWNER)).unwrap(), Plan::Nothing);
        let frozen = DatasetEntry { frozen: true, ..entry(5) };
        assert_eq!(planned(Some(&frozen), Some(OWNER)).unwrap(), Plan::Nothing, "it says all there is");
    }

    #[test]
    fn what_is_not_ours_to_replace_is_told_and_left() {
        let refused = |entry: DatasetEntry, bound| planned(Some(&entry), bound).unwrap_err();
        let other = DatasetEntry { dataset: DatasetId([3; 32]), ..entry(4) };
        assert!(matches!(refused(other, Some(OWNER)), NameError::Taken { .. }));
        assert!(matches!(refused(entry(4), None), NameError::Foreign(_)));
        assert!(matches!(refused(entry(4), Some(PublicKey([7; 32]))), NameError::Foreign(_)));
        assert!(matches!(refused(entry(6), Some(OWNER)), NameError::Behind { ours: 5, theirs: 6, .. }));
        let forked = DatasetEntry { head: HeadHash([0xff; 32]), ..entry(5) };
        assert!(matches!(refused(forked, Some(OWNER)), NameError::Forked { sequence: 5, .. }));
        let frozen = DatasetEntry { frozen: true, ..entry(4) };
        assert!(matches!(refused(frozen, Some(OWNER)), NameError::Frozen(_)));
    }
}

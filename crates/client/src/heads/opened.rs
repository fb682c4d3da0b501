//! A dataset behind a head: its checkpoint, its lists, and the version that a text names.

use super::lists::{ListWalk, ListedRef, ListedVersion, refs_of, versions_of};
use super::{CheckedHead, HeadsError, newest_head};
use crate::dataset::DatasetKeys;
use crate::home_dataset::EPOCHS_MAX;
use crate::network::Network;
use crate::placements::Placements;
use crate::reader::{ReadError, Reader};
use crate::snapshot::{Snapshot, SnapshotError};
use seedbank_formats::checkpoint::{Checkpoint, RefRecord, VersionRecord, checkpoint_id};
use seedbank_formats::codec::DecodeError;
use seedbank_formats::head::{HeadBody, OpenHeadError};
use seedbank_formats::keys::KeyEpoch;
use seedbank_formats::numbered::NumberedTree;
use seedbank_formats::{DatasetId, PublicKey, VersionId};
use std::sync::Arc;

/// An ambiguous id names so many versions that it fits, as the books do.
const CANDIDATES_MAX: usize = 5;

/// A version's id may be cut to so many hex digits, as in the books.
const ID_DIGITS_MIN: usize = 8;

/// Why a dataset can't be read from its head.
#[derive(Debug, thiserror::Error)]
pub enum OpenDatasetError {
    /// There is no head to go by.
    #[error(transparent)]
    Heads(#[from] HeadsError),
    /// The head does not open: the key is another dataset's.
    #[error(transparent)]
    Head(#[from] OpenHeadError),
    /// The checkpoint can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No owner changes keys so often.
    #[error("the head claims key epoch {}, and datasets have at most {}", .0.0, EPOCHS_MAX.0)]
    TooManyEpochs(KeyEpoch),
}

/// A dataset that is read through its head.
pub struct OpenedHead {
    head: CheckedHead,
    body: HeadBody,
    checkpoint: Checkpoint,
    reader: Arc<Reader>,
}

/// Why a text names no version.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The lists can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The version can't be read or believed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Ask for another version or ref.
    #[error("no version or ref is called {text:?}")]
    NoSuchVersion {
        /// What was asked for.
        text: String,
        /// All refs, by name.
        refs: Vec<String>,
    },
    /// Give more digits.
    #[error("{text:?} could be any of {} versions", candidates.len())]
    AmbiguousVersion {
        /// The digits given.
        text: String,
        /// Some of the versions it fits.
        candidates: Vec<VersionId>,
    },
    /// Nothing was pushed yet.
    #[error("the dataset has no version yet: push a folder to it")]
    NoVersion,
}

/// Opens a dataset of which the key is here through the newest head that providers have.
///
/// # Errors
/// [`OpenDatasetError`]. With [`HeadsError::SignedTwice`] either head can be opened with [`OpenedHead::open`].
pub async fn open_dataset(
    network: &Arc<Network>,
    keys: &DatasetKeys,
    providers: &[PublicKey],
    at_least: Option<u64>,
) -> Result<OpenedHead, OpenDatasetError> {
    let head = newest_head(network, providers, keys.id, at_least).await?;
    OpenedHead::open(network, keys, head).await
}

/// Opens a public dataset of which nothing but the id is known.
///
/// # Errors
/// [`OpenDatasetError`]; [`OpenHeadError::Seal`] when the dataset is private.
pub async fn open_public_dataset(
    network: &Arc<Network>,
    dataset: DatasetId,
    providers: &[PublicKey],
    at_least: Option<u64>,
) -> Result<OpenedHead, OpenDatasetError> {
    let head = newest_head(network, providers, dataset, at_least).await?;
    let keys = head.published_keys()?;
    OpenedHead::open(network, &keys, head).await
}

impl OpenedHead {
    /// Opens a head's body and reads the checkpoint behind it.
    ///
    /// # Errors
    /// [`OpenDatasetError`], except for [`OpenDatasetError::Heads`].
    pub async fn open(
        network: &Arc<Network>,
        keys: &DatasetKeys,
        head: CheckedHead,
    ) -> Result<OpenedHead, OpenDatasetError> {
        let epoch = head.head.epoch();
        let body = head.head.open(keys.seal_keys(epoch).ok_or(ReadError::NoKey(epoch))?)?;
        network.hint(&body.hints);
        let placements = Placements::of_head(&body, head.head.sequence());
        let reader = Reader::new(Arc::clone(network), keys.clone(), placements);
        let bytes = reader.linked(&body.checkpoint, &checkpoint_id()).await?;
        let checkpoint = Checkpoint::decode(&bytes).map_err(ReadError::from)?;
        Ok(OpenedHead { head, body, checkpoint, reader })
    }

    /// The head.
    #[must_use]
    pub fn head(&self) -> &CheckedHead {
        &self.head
    }

    /// What the head's body says.
    #[must_use]
    pub fn body(&self) -> &HeadBody {
        &self.body
    }

    /// Name, settings and counters.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Reads the dataset.
    #[must_use]
    pub fn reader(&self) -> &Arc<Reader> {
        &self.reader
    }

    /// At most `limit` versions, newest first, from below the ordinal `before`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn versions(&self, before: Option<u64>, limit: usize) -> Result<Vec<ListedVersion>, ReadError> {
        let mut walk = self.version_walk(before.unwrap_or(u64::MAX));
        let mut versions = Vec::new();
        while versions.len() < limit
            && let Some(page) = walk.next().await?
        {
            versions.extend(versions_of(&page)?);
        }
        versions.truncate(limit);
        Ok(versions)
    }

    /// All branches and tags, by name.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn refs(&self) -> Result<Vec<ListedRef>, ReadError> {
        let mut walk = self.ref_walk();
        let mut refs = Vec::new();
        while let Some(page) = walk.next().await? {
            refs.extend(refs_of(&page)?);
        }
        refs.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        Ok(refs)
    }

    /// A version of the list, read and checked.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub async fn snapshot_of(&self, record: &VersionRecord) -> Result<Snapshot, SnapshotError> {
        Snapshot::open(&self.reader, record.id, record.version, record.tree).await
    }

    /// The version that `text` names: a ref, a whole id or at least 8 digits of one. Without a text, the version of
    /// the default branch; of a dataset whose default branch was deleted, the newest version.
    ///
    /// # Errors
    /// [`ResolveError`].
    pub async fn snapshot(&self, text: Option<&str>) -> Result<Snapshot, ResolveError> {
        let Some(text) = text else { return self.default_snapshot().await };
        let refs = self.refs().await?;
        if let Some(found) = refs.iter().find(|listed| listed.record.name.as_str() == text) {
            return self.snapshot_of_ref(&found.record).await;
        }
        let missing = || {
            let refs = refs.iter().map(|listed| listed.record.name.to_string()).collect();
            ResolveError::NoSuchVersion { text: text.to_owned(), refs }
        };
        let digits = id_digits(text).ok_or_else(missing)?;
        let mut found = self.versions_starting_with(&digits).await?;
        match (found.pop(), found.is_empty()) {
            (Some(version), true) => Ok(self.snapshot_of(&version).await?),
            (Some(last), false) => {
                let candidates = found.iter().chain([&last]).map(|version| version.id).collect();
                Err(ResolveError::AmbiguousVersion { text: text.to_owned(), candidates })
            }
            (None, _) => Err(missing()),
        }
    }

    async fn default_snapshot(&self) -> Result<Snapshot, ResolveError> {
        if let Some(slot) = self.checkpoint.default_ref {
            let mut walk = self.ref_walk();
            while let Some(page) = walk.next().await? {
                if let Some(found) = refs_of(&page)?.into_iter().find(|listed| listed.slot == slot) {
                    return self.snapshot_of_ref(&found.record).await;
                }
            }
        }
        let newest = self.body.version.ok_or(ResolveError::NoVersion)?;
        Ok(Snapshot::open(&self.reader, newest.id, newest.version, newest.tree).await?)
    }

    async fn snapshot_of_ref(&self, named: &RefRecord) -> Result<Snapshot, ResolveError> {
        // Usually it is the newest version, and the head has said where that is.
        if let Some(newest) = self.body.version.filter(|newest| newest.id == named.version) {
            return Ok(Snapshot::open(&self.reader, newest.id, newest.version, newest.tree).await?);
        }
        let listed = self.versions(named.ordinal.checked_add(1), 1).await?.pop();
        let found =
            listed.filter(|listed| listed.ordinal == named.ordinal && listed.record.id == named.version);
        let found =
            found.ok_or_else(|| broken("list of refs", "a ref names a version that is not listed"))?;
        Ok(self.snapshot_of(&found.record).await?)
    }

    /// Versions whose id starts with these lower-case digits, at most a few.
    async fn versions_starting_with(&self, digits: &str) -> Result<Vec<VersionRecord>, ReadError> {
        let (mut walk, mut found) = (self.version_walk(u64::MAX), Vec::new());
        while found.len() < CANDIDATES_MAX
            && let Some(page) = walk.next().await?
        {
            let versions = versions_of(&page)?.into_iter().map(|listed| listed.record);
            found.extend(versions.filter(|version| version.id.to_string().starts_with(digits)));
        }
        found.truncate(CANDIDATES_MAX);
        Ok(found)
    }

    pub(crate) fn version_walk(&self, before: u64) -> ListWalk {
        ListWalk::new(&self.reader, NumberedTree::Versions, self.checkpoint.versions, before)
    }

    pub(crate) fn ref_walk(&self) -> ListWalk {
        ListWalk::new(&self.reader, NumberedTree::Refs, self.checkpoint.refs, u64::MAX)
    }
}

/// The digits of a version's id, whole or cut, in lower case; `None` when the text can't be one.
fn id_digits(text: &str) -> Option<String> {
    let is_id =
        (ID_DIGITS_MIN..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| text.to_ascii_lowercase())
}

fn broken(format: &'static str, reason: &'static str) -> ReadError {
    ReadError::Broken(DecodeError::Invalid { format, reason })
}

#[cfg(test)]
mod tests {
    use super::id_digits;

    #[test]
    fn ids_may_be_cut_to_eight_digits() {
        assert_eq!(id_digits("DEADbeef").as_deref(), Some("deadbeef"));
        assert_eq!(
            (id_digits("deadbee"), id_digits("deadbeeg"), id_digits(&"a".repeat(65))),
            (None, None, None)
        );
    }
}

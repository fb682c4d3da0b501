//! One version, checked: signed by the dataset's owner, with the place of its tree.

use crate::reader::{ReadError, Reader, Wanted};
use crate::walk::{self, EntryWalk, LocatedEntry};
use seedbank_formats::layout::ChildPlace;
use seedbank_formats::path::TreePath;
use seedbank_formats::place::Place;
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::receipt::SignedError;
use seedbank_formats::seal::ITEM_PLAIN_BYTES_MAX;
use seedbank_formats::tree::Entry;
use seedbank_formats::version::{Version, version_item_id};
use seedbank_formats::{PublicKey, VersionId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A version that its owner signed.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its id.
    pub id: VersionId,
    /// What was signed.
    pub version: Version,
    /// Where its tree's root page and that page's layout lie.
    pub root: ChildPlace,
}

/// The entries of a version, or those at and below one path, one after another. Memory is a few pages.
pub struct Listing {
    walk: EntryWalk,
    below: Option<TreePath>,
}

impl Listing {
    /// The next path and what it is.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn next(&mut self) -> Result<Option<(TreePath, Entry)>, ReadError> {
        while let Some(located) = self.walk.next().await? {
            let path = located.path;
            if self.below.as_ref().is_none_or(|folder| path == *folder || path.is_below(folder)) {
                return Ok(Some((path, located.entry)));
            }
        }
        Ok(None)
    }
}

/// Why a version can't be believed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is no version, or its signature does not fit.
    #[error("version {id} does not verify: {reason}")]
    Signature {
        /// The version.
        id: VersionId,
        /// What is wrong.
        #[source]
        reason: SignedError,
    },
    /// Another version lies in its place.
    #[error("version {wanted} was asked for, and {found} lies in its place")]
    WrongId {
        /// What was asked for.
        wanted: VersionId,
        /// What was found.
        found: VersionId,
    },
    /// Somebody else than the dataset's owner made it.
    #[error("version {id} is signed by {author}, who does not own the dataset")]
    WrongAuthor {
        /// The version.
        id: VersionId,
        /// Who signed.
        author: PublicKey,
    },
}

impl Snapshot {
    /// Reads a version's signed bytes at `place` and checks them.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub async fn open(
        reader: &Arc<Reader>,
        id: VersionId,
        place: Place,
        root: ChildPlace,
    ) -> Result<Snapshot, SnapshotError> {
        let wanted = Wanted::named(version_item_id(&id), place, ITEM_PLAIN_BYTES_MAX);
        let bytes = reader.items(&[wanted]).await?.pop().expect("one item was asked for");
        let checked = Version::check(&bytes);
        let (found, version) = checked.map_err(|reason| SnapshotError::Signature { id, reason })?;
        if found != id {
            return Err(SnapshotError::WrongId { wanted: id, found });
        }
        if version.author != reader.keys().owner || version.dataset != reader.keys().id {
            return Err(SnapshotError::WrongAuthor { id, author: version.author });
        }
        Ok(Snapshot { id, version, root })
    }

    /// All entries in order.
    #[must_use]
    pub fn entries(&self, reader: &Arc<Reader>) -> Listing {
        Listing { walk: EntryWalk::new(reader, &self.version.tree, self.root), below: None }
    }

    /// The entry at a path, or those below it if it is a folder. Reads no pages but those that may have such.
    #[must_use]
    pub fn entries_at(&self, reader: &Arc<Reader>, path: TreePath) -> Listing {
        let prefix = path.to_string();
        Listing { walk: EntryWalk::below(reader, &self.version.tree, self.root, prefix), below: Some(path) }
    }

    /// Placements of every segment that holds something of this version, pages included. Reads the whole tree and all
    /// manifests.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn segments(&self, reader: &Arc<Reader>) -> Result<Vec<Arc<SegmentPlacement>>, ReadError> {
        let mut numbers = BTreeSet::new();
        let mut entries = EntryWalk::new(reader, &self.version.tree, self.root);
        while let Some(located) = entries.next().await? {
            let mut chunks = located.chunks(reader, 0..u64::MAX);
            while let Some(chunk) = chunks.next().await? {
                numbers.insert(chunk.place.segment);
            }
            numbers.extend(chunks.page_segments());
        }
        numbers.extend(entries.page_segments());
        let mut placements = Vec::with_capacity(numbers.len());
        for number in numbers {
            placements.push(reader.placement(number).await?);
        }
        Ok(placements)
    }

    /// A path's entry: reads the pages from the root to it and no others.
    pub(crate) async fn find(
        &self,
        reader: &Arc<Reader>,
        path: &TreePath,
    ) -> Result<LocatedEntry, ReadError> {
        let Some(located) = walk::find(reader, &self.version.tree, self.root, path).await? else {
            return Err(self.no_such_file(reader, path).await);
        };
        match located.entry {
            Entry::File { .. } => Ok(located),
            Entry::Folder => Err(ReadError::IsAFolder(path.to_string())),
            Entry::Symlink { .. } => Err(ReadError::IsALink(path.to_string())),
        }
    }

    /// Why nothing has this path: a tree has no entry for a folder with something in it.
    async fn no_such_file(&self, reader: &Arc<Reader>, path: &TreePath) -> ReadError {
        let inside = format!("{path}/");
        let mut around = EntryWalk::below(reader, &self.version.tree, self.root, inside.clone());
        loop {
            match around.next().await {
                Ok(Some(found)) if found.path.as_str().starts_with(&inside) => {
                    return ReadError::IsAFolder(path.to_string());
                }
                Ok(Some(_)) => {}
                Ok(None) => return ReadError::NoSuchPath(path.to_string()),
                Err(error) => return error,
            }
        }
    }
}

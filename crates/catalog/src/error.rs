//! What can go wrong with the books, told by what the caller does next.

use seedbank_formats::{PublicKey, SegmentNumber, VersionId};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What whoever finds the books damaged does.
const MEND: &str =
    "move the folder `catalog` out of the home, then put a copy in its place or use `seedbank key recover`";

/// Why a request to the books failed. Nothing of the request took place.
///
/// It crosses the steward's socket, so that a process that asks a running steward learns as much as the steward.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CatalogError {
    /// Ask for another name; `near` are the likeliest.
    #[error("no dataset is called {name:?}{}", suggestion(.near))]
    NoSuchDataset {
        /// What was asked for.
        name: String,
        /// Names that differ by a few letters, best first.
        near: Vec<String>,
    },
    /// Choose another name, or remove what has it.
    #[error("{name:?} is taken")]
    NameTaken {
        /// The name, or the id of a dataset that is known already.
        name: String,
    },
    /// Choose a name that the rule allows.
    #[error("{name:?} can't be a name: {reason}")]
    InvalidName {
        /// What was asked for.
        name: String,
        /// The rule.
        reason: String,
    },
    /// The branch has moved: take a new base, make the version on the new parent, commit again. Nothing has to be sent
    /// to providers again but metadata.
    #[error("the branch has moved since: its version is now {}", version_or_none(.current))]
    StaleParent {
        /// The branch's version now; `None` when it doesn't exist.
        current: Option<VersionId>,
    },
    /// Someone else committed, or changed refs, in between: take a new base, write the metadata and commit again.
    #[error("another commit came first: the head's sequence is now {sequence}")]
    StaleHead {
        /// The newest head's sequence; 0 when there is none.
        sequence: u64,
    },
    /// The push was away for too long and a collection took place, or it has ended: begin a new one.
    #[error("this push is no longer known: it was away for too long, or has ended")]
    LeaseLost,
    /// Forget these segments in the index and send again what lay in them.
    #[error("segments were collected: {}", numbers(.segments))]
    SegmentGone {
        /// All of them, in rising order.
        segments: Vec<SegmentNumber>,
    },
    /// Read what is there now and begin again: the version is gone or its pages have moved, and what was used again of
    /// them may be gone, too.
    #[error("version {} was removed or moved while a push built on it", version.revision())]
    VersionGone {
        /// The version.
        version: VersionId,
    },
    /// Place more fragments before committing.
    #[error("segment {segment} has {held} fragments held, and {needed} are needed to read it")]
    NotDurable {
        /// The segment.
        segment: SegmentNumber,
        /// Distinct fragments that a provider holds.
        held: u32,
        /// Fragments that bring it back.
        needed: u32,
    },
    /// Ask for another version or ref; `near` are the likeliest.
    #[error("no version or ref is called {text:?}{}", suggestion(.near))]
    NoSuchVersion {
        /// What was asked for.
        text: String,
        /// Refs that differ by a few letters, best first.
        near: Vec<String>,
    },
    /// Give more digits.
    #[error("{text:?} could be any of {} versions", candidates.len())]
    AmbiguousVersion {
        /// The digits given.
        text: String,
        /// Some of the versions it fits.
        candidates: Vec<VersionId>,
    },
    /// Make a new tag: a tag names one version for ever.
    #[error("{name:?} is a tag, and a tag does not move")]
    TagFixed {
        /// The tag.
        name: String,
    },
    /// Move or delete the refs first.
    #[error("version {} is what {} names", version.revision(), refs.join(", "))]
    VersionInUse {
        /// The version.
        version: VersionId,
        /// Refs that point at it.
        refs: Vec<String>,
    },
    /// Add the provider first.
    #[error("provider {key} is not known here")]
    NoSuchProvider {
        /// Its key.
        key: PublicKey,
    },
    /// Take a new draft: somebody else has revised the agreement, or is about to.
    #[error("the agreement with provider {provider} is being revised by somebody else")]
    StaleRevision {
        /// The provider.
        provider: PublicKey,
    },
    /// The caller's mistake; trying again does not help.
    #[error("bad request: {reason}")]
    BadRequest {
        /// What is wrong, as a sentence fragment.
        reason: String,
    },
    /// The disk is full or failing: make room, or look at the disk, and try again.
    #[error("the catalog's disk failed: {message}")]
    Disk {
        /// What SQLite says.
        message: String,
    },
    /// The catalog holds what it should not: recover it from the network's checkpoint.
    #[error("the catalog is damaged: {message}; {MEND}")]
    Corrupt {
        /// What was found.
        message: String,
    },
    /// Whoever keeps the books could not be asked: try again, or look whether it runs.
    #[error("the catalog's keeper can't be reached: {message}")]
    Unreachable {
        /// What happened.
        message: String,
    },
}

impl CatalogError {
    pub(crate) fn bad(reason: impl Into<String>) -> CatalogError {
        CatalogError::BadRequest { reason: reason.into() }
    }
}

fn suggestion(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!(": did you mean {}?", near.join(" or ")) }
}

fn version_or_none(version: &Option<VersionId>) -> String {
    version.map_or_else(|| "none".to_owned(), |version| version.revision())
}

fn numbers(segments: &[SegmentNumber]) -> String {
    /// An error names a few segments; the field has them all.
    const SHOWN_MAX: usize = 8;
    let shown: Vec<String> = segments.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    let more = segments.len().saturating_sub(SHOWN_MAX);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

impl From<rusqlite::Error> for CatalogError {
    fn from(error: rusqlite::Error) -> CatalogError {
        use rusqlite::{Error, ErrorCode};
        let message = error.to_string();
        match error {
            // A number of the request that SQLite can't hold, such as one above 2^63.
            Error::ToSqlConversionFailure(_) => CatalogError::BadRequest { reason: message },
            Error::FromSqlConversionFailure(..) | Error::IntegralValueOutOfRange(..) => {
                CatalogError::Corrupt { message }
            }
            Error::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => CatalogError::Corrupt { message },
                ErrorCode::ConstraintViolation | ErrorCode::TooBig => {
                    CatalogError::BadRequest { reason: message }
                }
                _ => CatalogError::Disk { message },
            },
            _ => CatalogError::Disk { message },
        }
    }
}

/// Why a catalog could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Ask the process that has it, or stop it.
    #[error("the catalog in {} is in use by {}", dir.display(), holder(.pid))]
    Locked {
        /// The catalog's folder.
        dir: PathBuf,
        /// The process that holds it, when it could be read.
        pid: Option<u32>,
    },
    /// Install a newer Seedbank.
    #[error(
        "the catalog has schema {found}, and this program knows schemas up to {known}: a newer seedbank made it"
    )]
    TooNew {
        /// The catalog's schema.
        found: u32,
        /// The newest one known here.
        known: u32,
    },
    /// Point to another folder, or recover the catalog.
    #[error("{} is no catalog, or a damaged one; {MEND}", .0.display())]
    NotACatalog(PathBuf),
    /// Recover the catalog from the network's checkpoint, or put a backup in its place.
    #[error("the catalog is damaged: {0}; {MEND}")]
    Damaged(String),
    /// Look at the folder and its disk.
    #[error("can't use {}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Look at the folder and its disk.
    #[error("the catalog can't be opened")]
    Sqlite(#[source] rusqlite::Error),
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> OpenError {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                OpenError::Damaged(error.to_string())
            }
            _ => OpenError::Sqlite(error),
        }
    }
}

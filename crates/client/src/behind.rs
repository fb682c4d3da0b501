//! Whether the books are the newest that there were.
//!
//! Who puts an old copy of the books back (yesterday's backup) has books that are sound and wrong: they would give out
//! numbers again, sign a second history over the first, and give up what only the newer versions need. Providers hold the
//! newest head, which nobody but the owner can sign. So before anything is written, or given up, in a dataset's name, they
//! are asked. Renewing claims and finding holders need not ask: that harms nothing, whatever the books don't know.
//!
//! This finds an old copy. It is no lock: two homes that write at the same moment are found when their heads meet.

use crate::heads::{HeadFailure, HeadsError, newest_head_of_all};
use crate::network::Network;
use crate::publish::HEAD_COPIES_MAX;
use crate::push::PushError;
use crate::uploader::{SharedBooks, ask};
use seedbank_catalog::records::PendingHead;
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::head::Head;
use seedbank_formats::{DatasetId, PublicKey};
use std::cmp::Ordering;
use std::sync::Arc;

/// Why these books must not be written from. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BehindError {
    /// Bring the books up to date.
    #[error(
        "the books are an old copy: of dataset {name} they know head {ours}, and providers hold head {theirs}. \
         Nothing was changed. `seedbank key recover --provider {provider}@{address}` brings them up to date"
    )]
    Older {
        /// The dataset's name.
        name: String,
        /// The newest head of the books; 0 when they know none.
        ours: u64,
        /// The newest one that a provider has.
        theirs: u64,
        /// Such a provider.
        provider: PublicKey,
        /// Where it was reached.
        address: String,
    },
    /// An old copy of the books was written from: a person must say which of the two histories counts.
    #[error(
        "the books and the providers have two different heads {sequence} of dataset {name}: an old copy of the books was \
         written from. To go on with what providers have, move the folder `catalog` out of the home and use \
         `seedbank key recover --provider {provider}@{address}`"
    )]
    Forked {
        /// The dataset's name.
        name: String,
        /// The sequence that both have.
        sequence: u64,
        /// A provider with the other one.
        provider: PublicKey,
        /// Where it was reached.
        address: String,
    },
    /// Try again when providers answer.
    #[error("no provider answers that could have a newer head of dataset {name} than {ours}")]
    Silence {
        /// The dataset's name.
        name: String,
        /// The newest head of the books.
        ours: u64,
    },
    /// Providers have two histories, whatever the books say.
    #[error(transparent)]
    Heads(HeadsError),
    /// The books can't be asked.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The process is ending.
    #[error("the look for a newer head was stopped")]
    Stopped,
}

/// What it means when no provider answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Go on: nothing is given up, and what follows needs providers anyway.
    Tolerated,
    /// Stop, unless no provider was ever given a head.
    Refused,
}

/// Asks providers whether they have a newer head of a dataset than the books. Gives the sequence that was compared.
pub(crate) async fn check_newest(
    books: &SharedBooks,
    network: &Arc<Network>,
    dataset: DatasetId,
    silence: Silence,
) -> Result<u64, BehindError> {
    let look = move |books: &SharedBooks| {
        Ok((books.dataset(dataset.to_string())?.name, books.head(dataset)?, books.providers()?))
    };
    let (name, head, providers) = ask(books, look).await.map_err(stopped)?;
    network.learn(providers.iter().map(|p| (&p.profile.key, p.profile.address.as_str())));
    let published = head.map(|head| head.published).unwrap_or_default();
    let others = providers.iter().map(|p| p.profile.key).filter(|key| !published.contains(key));
    // Who has our head was most likely given the next one, too.
    let mut asked: Vec<PublicKey> = published.iter().copied().chain(others).collect();
    {
        let (latency, now) = (network.latency(), network.now());
        asked.retain(|provider| !latency.is_down(provider, now));
    }
    asked.truncate(HEAD_COPIES_MAX);
    let found = newest_head_of_all(network, &asked, dataset).await;
    // Only now: providers get a head once the books have it, and another push of theirs may have come in between.
    let head = ask(books, move |books| books.head(dataset)).await.map_err(stopped)?;
    let ours = head.as_ref().map_or(0, |head| head.sequence);
    match found {
        Ok(found) => {
            let holder = found.holders().first().copied().expect("a head was found at a provider");
            compare(network, name, head.as_ref(), found.bytes(), found.head(), holder)?;
        }
        Err(HeadsError::NotFound { failures, .. }) => {
            let is_answered = failures.values().any(|failure| matches!(failure, HeadFailure::None));
            if silence == Silence::Refused && !is_answered && !published.is_empty() {
                return Err(BehindError::Silence { name, ours });
            }
        }
        Err(error) => return Err(BehindError::Heads(error)),
    }
    Ok(ours)
}

/// Compares the books' newest head with one of the same dataset that a provider has, which is soundly signed.
pub(crate) fn compare(
    network: &Network,
    name: String,
    ours: Option<&PendingHead>,
    bytes: &[u8],
    theirs: &Head,
    provider: PublicKey,
) -> Result<(), BehindError> {
    let address = network.peer(&provider).address;
    let (sequence, theirs) = (ours.map_or(0, |ours| ours.sequence), theirs.sequence());
    match theirs.cmp(&sequence) {
        Ordering::Greater => Err(BehindError::Older { name, ours: sequence, theirs, provider, address }),
        Ordering::Equal if ours.is_some_and(|ours| ours.bytes != bytes) => {
            Err(BehindError::Forked { name, sequence, provider, address })
        }
        Ordering::Equal | Ordering::Less => Ok(()),
    }
}

fn stopped(error: PushError) -> BehindError {
    match error {
        PushError::Catalog(error) => BehindError::Catalog(error),
        // Asking the books fails in no other way.
        _ => BehindError::Stopped,
    }
}

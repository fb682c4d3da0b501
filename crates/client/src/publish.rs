//! Gives a dataset's newest head to providers, so that readers find it without its owner.

use crate::behind::compare;
use crate::network::Network;
use crate::push::PushError;
use crate::uploader::{SharedBooks, ask};
use bytes::Bytes;
use seedbank_catalog::Books;
use seedbank_formats::head::Head;
use seedbank_formats::{DatasetId, PublicKey};
use seedbank_transport::HeadPut;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// Readers ask three providers; with so many copies three are found even when most are away.
pub const HEAD_COPIES_MAX: usize = 16;

/// Once so many have it, nobody is waited for long.
const COPIES_ENOUGH: usize = 5;

/// Whoever does not take a head in this time gets it later, from the steward.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same, once half of those who were asked have it: the others may be gone.
const PATIENCE_FOR_REST: Duration = Duration::from_secs(2);

/// The same, once enough have it.
const PATIENCE_FOR_MORE: Duration = Duration::from_millis(500);

/// Gives the newest head to providers that don't have it yet, and says how many have it then.
///
/// # Errors
/// When the books can't be asked, or a provider has a head that these books don't know: [`PushError::Behind`]. One that
/// does not take it is no error.
pub async fn publish(
    books: &SharedBooks,
    network: &Arc<Network>,
    dataset: DatasetId,
) -> Result<u64, PushError> {
    let look = move |books: &SharedBooks| {
        Ok((books.dataset(dataset.to_string())?.name, books.head(dataset)?, books.providers()?))
    };
    let (name, Some(head), providers) = ask(books, look).await? else { return Ok(0) };
    network.learn(providers.iter().map(|p| (&p.profile.key, p.profile.address.as_str())));
    let mut missing: Vec<PublicKey> =
        providers.iter().map(|p| p.profile.key).filter(|key| !head.published.contains(key)).collect();
    {
        let (latency, now) = (network.latency(), network.now());
        missing.sort_by_key(|provider| latency.is_down(provider, now));
    }
    missing.truncate(HEAD_COPIES_MAX.saturating_sub(head.published.len()));
    let half = missing.len().div_ceil(2);
    let enough = COPIES_ENOUGH.min(head.published.len() + missing.len());

    let bytes = Bytes::from(head.bytes);
    let mut puts = JoinSet::new();
    for provider in missing {
        let (network, bytes) = (Arc::clone(network), bytes.clone());
        puts.spawn(async move { (provider, network.put_head(&provider, dataset, bytes).await) });
    }
    let (mut took, mut newer_heads) = (Vec::new(), Vec::new());
    let mut deadline = Instant::now() + PATIENCE;
    while let Ok(Some(put)) = timeout_at(deadline, puts.join_next()).await {
        let Ok((provider, Ok(put))) = put else { continue };
        match put {
            HeadPut::Stored => {
                took.push(provider);
                if took.len() >= half {
                    deadline = deadline.min(Instant::now() + PATIENCE_FOR_REST);
                }
                if head.published.len() + took.len() >= enough {
                    deadline = deadline.min(Instant::now() + PATIENCE_FOR_MORE);
                }
            }
            HeadPut::Newer(newer) => newer_heads.push((provider, newer)),
        }
    }
    let have = (head.published.len() + took.len()) as u64;
    let sequence = head.sequence;
    let newest = ask(books, move |books| {
        took.into_iter().try_for_each(|provider| books.mark_published(dataset, sequence, provider))?;
        books.head(dataset)
    });
    let newest = newest.await?;
    for (provider, bytes) in newer_heads {
        // None that counts when it isn't signed for this dataset, or another push of ours was faster.
        if let Some(theirs) = Head::check(&bytes).ok().filter(|theirs| theirs.dataset() == dataset) {
            compare(network, name.clone(), newest.as_ref(), &bytes, &theirs, provider)?;
        }
    }
    Ok(have)
}

//! Gives a dataset's newest head to providers, so that readers find it without its owner.

use crate::network::Network;
use crate::push::PushError;
use crate::uploader::SharedBooks;
use bytes::Bytes;
use seedbank_catalog::Books;
use seedbank_formats::head::Head;
use seedbank_formats::{DatasetId, PublicKey};
use seedbank_transport::HeadPut;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Readers ask three providers; with so many copies three are found even when most are away.
pub const HEAD_COPIES_MAX: usize = 16;

/// Whoever does not take a head in this time gets it later, from the steward.
const PATIENCE: Duration = Duration::from_secs(10);

/// Gives the newest head to providers that don't have it yet, and says how many have it then.
///
/// # Errors
/// When the books can't be asked. A provider that does not take it is no error.
pub async fn publish(
    books: &SharedBooks,
    network: &Arc<Network>,
    dataset: DatasetId,
) -> Result<u64, PushError> {
    let Some(head) = books.head(dataset)? else { return Ok(0) };
    let providers = books.providers()?;
    network.learn(providers.iter().map(|p| (&p.profile.key, p.profile.address.as_str())));
    let mut have: Vec<PublicKey> = head.published.clone();
    let missing: Vec<PublicKey> =
        providers.iter().map(|p| p.profile.key).filter(|key| !have.contains(key)).collect();
    let bytes = Bytes::from(head.bytes);
    let mut puts = JoinSet::new();
    for provider in missing.into_iter().take(HEAD_COPIES_MAX.saturating_sub(have.len())) {
        let (network, bytes) = (Arc::clone(network), bytes.clone());
        puts.spawn(async move {
            let put = network.put_head(&provider, dataset, bytes);
            (provider, tokio::time::timeout(PATIENCE, put).await)
        });
    }
    while let Some(put) = puts.join_next().await {
        let Ok((provider, Ok(Ok(put)))) = put else { continue };
        match put {
            HeadPut::Stored => {
                books.mark_published(dataset, head.sequence, provider)?;
                have.push(provider);
            }
            HeadPut::Newer(newer) => {
                // Somebody commits to this dataset from other books: a person must know.
                let sequence = Head::check(&newer).ok().map(|newer| newer.sequence());
                tracing::error!(%provider, %dataset, ours = head.sequence, theirs = ?sequence, "provider has a newer head");
            }
        }
    }
    Ok(have.len() as u64)
}

//! In a paid network a version counts only what providers have signed for: a receipt says that a fragment is there, a signed
//! set says that it is paid for and will be proven.
//!
//! Whoever does not sign holds nothing of this push: its fragments are for the steward to place elsewhere, as if it had been
//! too slow to take them. When too little is left of a segment, the push fails; what is stored stays for the next one.

use crate::pay::AgreeError;
use crate::pay::agree::{Agreeing, Purpose};
use crate::push::{PushContext, PushError};
use crate::uploader::{Uploader, ask};
use seedbank_catalog::Books;
use seedbank_catalog::records::{RELEASE_BATCH_MAX, Work};
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::{FragmentId, PublicKey};
use seedbank_protocol::payment::RefusalReason;
use seedbank_transport::asked_now;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// What a process that died has begun is ended in passing: nobody's push waits longer for it.
const BEGUN_PATIENCE: Duration = Duration::from_secs(5);

/// Has all providers sign that hold something of this push, and ends what a process that died has begun to ask others. Does
/// nothing in a network that is not paid.
pub(crate) async fn agree(context: &PushContext, uploader: &Uploader) -> Result<(), PushError> {
    let Some(payer) = context.network.payer() else { return Ok(()) };
    let lease = uploader.lease;
    let (providers, begun) = ask(&context.books, move |books| {
        let (providers, known) = (books.unagreed(Some(lease))?, books.agreements()?);
        let begun = known.into_iter().filter(|known| known.pending.is_some()).map(|known| known.provider);
        let begun: Vec<PublicKey> = begun.filter(|provider| !providers.contains(provider)).collect();
        Ok((providers, begun))
    })
    .await?;
    let mut asked = JoinSet::new();
    for provider in providers.into_iter().chain(begun.iter().copied()) {
        let (payer, books, network) =
            (Arc::clone(payer), Arc::clone(&context.books), Arc::clone(&context.network));
        let is_begun = begun.contains(&provider);
        asked.spawn(async move {
            let agreeing = Agreeing { payer: &payer, books: &books, network: &network, provider };
            let run = agreeing.run(Purpose::Push(lease));
            let answer = if is_begun {
                // Wherever it is cut, whoever comes next asks again.
                tokio::time::timeout(BEGUN_PATIENCE, run).await.unwrap_or(Ok(()))
            } else {
                run.await
            };
            (provider, answer)
        });
    }
    let mut refused = BTreeMap::new();
    while let Some(answer) = asked.join_next().await {
        let (provider, answer) = answer.map_err(|_ended| PushError::Stopped)?;
        match answer {
            Ok(()) => {}
            Err(error) if begun.contains(&provider) => {
                tracing::info!(%provider, %error, "a question of before is not answered yet");
            }
            Err(error) if is_ours(&error) => return Err(error.into()),
            Err(error) => drop(refused.insert(provider, error)),
        }
    }
    if refused.is_empty() { Ok(()) } else { give_up(context, uploader, refused).await }
}

/// Whether no other provider would do better.
fn is_ours(error: &AgreeError) -> bool {
    match error {
        AgreeError::Funds(_)
        | AgreeError::Chain(_)
        | AgreeError::Lane(_)
        | AgreeError::Catalog(_)
        | AgreeError::OldBooks(_)
        | AgreeError::Random(_)
        | AgreeError::Stopped => true,
        AgreeError::Refused { reason, .. } => {
            matches!(reason, RefusalReason::Escrow | RefusalReason::Signature | RefusalReason::Binding)
        }
        AgreeError::Quote(_) | AgreeError::TooDear(_) | AgreeError::Unbelievable(_) | AgreeError::Call(_) => {
            false
        }
    }
}

/// Counts these providers out, if enough others hold every segment.
async fn give_up(
    context: &PushContext,
    uploader: &Uploader,
    refused: BTreeMap<PublicKey, AgreeError>,
) -> Result<(), PushError> {
    let (dataset, lease) = (context.dataset.id, uploader.lease);
    let placements = ask(&context.books, move |books| {
        let segments = books.lease_segments(lease)?;
        books.placements(dataset, segments)
    })
    .await?;
    for placement in &placements {
        let signed = distinct_held(placement, |holder| !refused.contains_key(holder));
        if signed < uploader.minimum(placement.scheme) {
            return Err(PushError::Unsigned { segment: placement.number, refused });
        }
    }
    let mut lost: BTreeMap<PublicKey, BTreeSet<FragmentId>> = BTreeMap::new();
    for fragment in placements.iter().flat_map(|placement| &placement.fragments) {
        if let Some(holder) = fragment.holder
            && let Some(error) = refused.get(&holder)
        {
            tracing::debug!(provider = %holder, %error, "provider did not sign");
            lost.entry(holder).or_default().insert(fragment.id);
        }
    }
    for (provider, error) in &refused {
        tracing::warn!(%provider, %error, "provider did not sign, its fragments go elsewhere");
        context.network.refused(provider, error.to_string());
    }
    uploader.give_up(&refused, lost.values().map(|fragments| fragments.len() as u64).sum());
    let asked = asked_now();
    ask(&context.books, move |books| {
        for (provider, fragments) in lost {
            let fragments: Vec<FragmentId> = fragments.into_iter().collect();
            books.lose_fragments(provider, fragments.clone())?;
            for some in fragments.chunks(RELEASE_BATCH_MAX) {
                let work = Work::ReleaseClaims { provider, fragments: some.to_vec(), asked };
                books.add_job(work, crate::network::wall_clock())?;
            }
        }
        Ok(())
    })
    .await
}

/// Fragments of a segment, or copies of a small one, that are held by whoever counts.
fn distinct_held(placement: &SegmentPlacement, counts: impl Fn(&PublicKey) -> bool) -> usize {
    placement.holders().filter(|holder| counts(holder)).count()
}

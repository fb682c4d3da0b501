//! Renews our claims before they end. A provider without a claim may throw the fragment away.
//!
//! Who asks says which claims, and how often: a push confirms its own, the steward looks after all.

use crate::commit::CLAIM_SECONDS;
use crate::network::{Network, wall_clock};
use crate::push::PushError;
use crate::uploader::{SharedBooks, ask};
use seedbank_catalog::records::{DueClaim, FragmentKey, Holding, RenewedClaim};
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::{DatasetId, PublicKey, Timestamp};
use seedbank_protocol::messages::{ClaimAction, ClaimRequest};
use seedbank_protocol::routes::CLAIMS_BATCH_MAX;
use seedbank_transport::ClaimOutcome;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};

/// A pending claim is renewed when it has so long to go: half of its time.
pub(crate) const PENDING_MARGIN_SECONDS: u64 = 12 * 60 * 60;

/// Claims looked at together: what is in memory, and asked for in one transaction.
const DUE_TOGETHER: u32 = 10_000;

/// A provider that takes longer for a thousand claims is asked again by the steward.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whoever needs so much longer than half of the providers, and at least so long, is not waited for by a push.
const STRAGGLER_FACTOR: u32 = 4;
const STRAGGLER_FLOOR: Duration = Duration::from_secs(2);

/// What a round of renewals did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Renewed {
    /// Claims that last longer now.
    pub renewed: u64,
    /// Fragments that the provider does not have any more: others must hold them.
    pub lost: u64,
    /// Claims whose provider did not answer; they stay due.
    pub unanswered: u64,
}

impl Renewed {
    fn add(&mut self, other: Renewed) {
        self.renewed += other.renewed;
        self.lost += other.lost;
        self.unanswered += other.unanswered;
    }
}

/// What the books must be told after a provider's answers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tidings {
    renewed: Vec<RenewedClaim>,
    lost: Vec<FragmentKey>,
}

/// What becomes of providers that need much longer than others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stragglers {
    /// Each has the time that it may take.
    Await,
    /// Their claims stay due.
    Leave,
}

/// Which claims to renew.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    /// Those that end before this.
    pub(crate) before: Timestamp,
    /// Of this dataset only.
    pub(crate) dataset: Option<DatasetId>,
    /// Of this provider only.
    pub(crate) provider: Option<PublicKey>,
    /// How long to wait.
    pub(crate) stragglers: Stragglers,
}

/// Renews all claims of a dataset that end before `before`, at those who don't let a push wait.
pub(crate) async fn renew_due(
    books: &SharedBooks,
    network: &Arc<Network>,
    dataset: DatasetId,
    before: Timestamp,
) -> Result<Renewed, PushError> {
    let due = Due { before, dataset: Some(dataset), provider: None, stragglers: Stragglers::Leave };
    renew(books, network, due, wall_clock()).await
}

/// Renews claims, each provider's at once with the others'. Of those that have ended already and whose provider does not
/// answer, the books are told that nobody holds the fragment.
pub(crate) async fn renew(
    books: &SharedBooks,
    network: &Arc<Network>,
    which: Due,
    now: Timestamp,
) -> Result<Renewed, PushError> {
    let Due { before, dataset, provider, stragglers } = which;
    let mut total = Renewed::default();
    // Whoever did not answer once is not waited for again.
    let mut silent: BTreeSet<PublicKey> = BTreeSet::new();
    let mut after = None;
    loop {
        let mut due = ask(books, move |books| books.due_claims(dataset, before, after, DUE_TOGETHER)).await?;
        after = due.last().map(DueClaim::position);
        let is_last = due.len() < usize::try_from(DUE_TOGETHER).unwrap_or(usize::MAX);
        due.retain(|claim| provider.is_none_or(|only| claim.holding.provider == only));
        let (mut providers, mut waiting) = (JoinSet::new(), BTreeMap::new());
        for (provider, claims) in by_provider(due) {
            waiting.insert(provider, claims.len() as u64);
            let (books, network, is_silent) =
                (Arc::clone(books), Arc::clone(network), silent.contains(&provider));
            providers.spawn(async move {
                let renewed = if is_silent {
                    give_up(&books, provider, &claims, now).await
                } else {
                    renew_at(&books, &network, provider, &claims, now).await
                };
                renewed.map(|renewed| (provider, renewed))
            });
        }
        let (began, half) = (Instant::now(), waiting.len().div_ceil(2));
        let (mut answers, mut deadline) = (0, None);
        while let Some(renewed) = next_within(deadline, &mut providers).await {
            let (provider, (renewed, answered)) = renewed.map_err(|_ended| PushError::Stopped)??;
            total.add(renewed);
            waiting.remove(&provider);
            match answered {
                Answered::Yes => answers += 1,
                Answered::No => drop(silent.insert(provider)),
            }
            if stragglers == Stragglers::Leave && answers >= half && deadline.is_none() {
                deadline = Some(began + (began.elapsed() * STRAGGLER_FACTOR).max(STRAGGLER_FLOOR));
            }
        }
        // What they say now stays unheard. That does no harm: their claims are renewed once more.
        total.unanswered += waiting.into_values().sum::<u64>();
        if is_last {
            return Ok(total);
        }
    }
}

/// The next that ends, if one does before the deadline.
async fn next_within<T: 'static>(
    deadline: Option<Instant>,
    tasks: &mut JoinSet<T>,
) -> Option<Result<T, JoinError>> {
    match deadline {
        Some(deadline) => timeout_at(deadline, tasks.join_next()).await.ok().flatten(),
        None => tasks.join_next().await,
    }
}

/// Whether a provider answered all that it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answered {
    Yes,
    No,
}

/// What becomes of claims whose provider does not answer.
async fn give_up(
    books: &SharedBooks,
    provider: PublicKey,
    claims: &[DueClaim],
    now: Timestamp,
) -> Result<(Renewed, Answered), PushError> {
    let ended = claims.iter().filter(|claim| claim.holding.until <= now);
    let lost: Vec<FragmentKey> = ended.map(|claim| claim.key).collect();
    let mut total = Renewed { unanswered: (claims.len() - lost.len()) as u64, ..Renewed::default() };
    tell(books, provider, Tidings { renewed: Vec::new(), lost }, &mut total).await?;
    Ok((total, Answered::No))
}

async fn renew_at(
    books: &SharedBooks,
    network: &Network,
    provider: PublicKey,
    claims: &[DueClaim],
    now: Timestamp,
) -> Result<(Renewed, Answered), PushError> {
    let until = now.plus_seconds(CLAIM_SECONDS);
    let mut total = Renewed::default();
    let mut left = claims;
    while !left.is_empty() {
        let (batch, rest) = left.split_at(left.len().min(CLAIMS_BATCH_MAX));
        let renew =
            |claim: &DueClaim| ClaimRequest { fragment: claim.fragment, action: ClaimAction::Renew(until) };
        let requests: Vec<ClaimRequest> = batch.iter().map(renew).collect();
        let answer = tokio::time::timeout(PATIENCE, network.claims(&provider, &requests)).await;
        let tidings = match answer {
            Ok(Ok(outcomes)) => tidings(batch, outcomes),
            unanswered => {
                let error = unanswered.ok().and_then(Result::err);
                tracing::debug!(%provider, ?error, claims = left.len(), "claims not renewed");
                let (given_up, answered) = give_up(books, provider, left, now).await?;
                total.add(given_up);
                return Ok((total, answered));
            }
        };
        tell(books, provider, tidings, &mut total).await?;
        left = rest;
    }
    Ok((total, Answered::Yes))
}

fn tidings(claims: &[DueClaim], outcomes: Vec<ClaimOutcome>) -> Tidings {
    let mut tidings = Tidings::default();
    for (claim, outcome) in claims.iter().zip(outcomes) {
        match outcome {
            ClaimOutcome::Renewed(receipt) => {
                let holding = Holding { provider: claim.holding.provider, until: receipt.until };
                tidings.renewed.push(RenewedClaim { key: claim.key, holding });
            }
            ClaimOutcome::Absent | ClaimOutcome::Rotten => tidings.lost.push(claim.key),
            // Not an answer to a renewal; the transport refuses it.
            ClaimOutcome::Released | ClaimOutcome::Kept => {}
        }
    }
    tidings
}

async fn tell(
    books: &SharedBooks,
    provider: PublicKey,
    tidings: Tidings,
    total: &mut Renewed,
) -> Result<(), PushError> {
    let Tidings { renewed, lost } = tidings;
    total.renewed += renewed.len() as u64;
    total.lost += lost.len() as u64;
    if !lost.is_empty() {
        tracing::warn!(%provider, fragments = lost.len(), "provider lost fragments");
    }
    ask(books, move |books| {
        if !renewed.is_empty() {
            books.renew_claims(renewed)?;
        }
        for key in lost {
            match books.set_holder(key, None) {
                // It was collected meanwhile: nobody needs the fragment.
                Ok(_) | Err(CatalogError::SegmentGone { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    })
    .await
}

fn by_provider(claims: Vec<DueClaim>) -> BTreeMap<PublicKey, Vec<DueClaim>> {
    let mut by_provider: BTreeMap<PublicKey, Vec<DueClaim>> = BTreeMap::new();
    for claim in claims {
        by_provider.entry(claim.holding.provider).or_default().push(claim);
    }
    by_provider
}

#[cfg(test)]
mod tests {
    use super::{Tidings, by_provider, tidings};
    use seedbank_catalog::records::{DueClaim, FragmentKey, Holding};
    use seedbank_formats::{DatasetId, FragmentId, PublicKey, SegmentNumber, Timestamp};
    use seedbank_transport::ClaimOutcome;

    fn claim(provider: u8, index: u8) -> DueClaim {
        DueClaim {
            key: FragmentKey { dataset: DatasetId([1; 32]), segment: SegmentNumber(5), index },
            fragment: FragmentId([index; 32]),
            holding: Holding { provider: PublicKey([provider; 32]), until: Timestamp(7) },
        }
    }

    #[test]
    fn what_a_provider_lost_is_told_to_the_books() {
        let claims = [claim(1, 0), claim(1, 1), claim(1, 2)];
        let outcomes = vec![ClaimOutcome::Absent, ClaimOutcome::Released, ClaimOutcome::Rotten];
        let expected = Tidings { renewed: Vec::new(), lost: vec![claims[0].key, claims[2].key] };
        assert_eq!(tidings(&claims, outcomes), expected);
    }

    #[test]
    fn each_provider_is_asked_for_its_own() {
        let grouped = by_provider(vec![claim(1, 0), claim(2, 1), claim(1, 2)]);
        let sizes: Vec<_> = grouped.values().map(Vec::len).collect();
        assert_eq!(sizes, [2, 1]);
    }
}

//! Renews our claims before they end. A provider without a claim may throw the fragment away.

use super::{Maintenance, StepError};
use crate::commit::CLAIM_SECONDS;
use seedbank_catalog::Books;
use seedbank_catalog::records::{DueClaim, FragmentKey, Holding, RenewedClaim};
use seedbank_formats::{PublicKey, Timestamp};
use seedbank_protocol::messages::{ClaimAction, ClaimRequest};
use seedbank_protocol::routes::CLAIMS_BATCH_MAX;
use seedbank_transport::ClaimOutcome;
use std::collections::BTreeMap;
use tokio::task::JoinSet;

/// Claims looked at in one step. They come soonest first, and providers that don't answer leave theirs at the front: so
/// many that the others' still get their turn.
const DUE_MAX: u32 = 100_000;

/// What a step of renewals did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Renewed {
    /// Claims that last longer now.
    pub renewed: u64,
    /// Fragments that the provider does not have any more: others must hold them.
    pub lost: u64,
    /// Claims whose provider did not answer; they stay due.
    pub unanswered: u64,
}

/// What the books must be told after a provider's answers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tidings {
    renewed: Vec<RenewedClaim>,
    lost: Vec<FragmentKey>,
}

/// Claims are due when less than half of their time is left: months of a provider's absence don't end one.
fn due_before(now: Timestamp) -> Timestamp {
    now.plus_seconds(CLAIM_SECONDS / 2)
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
            ClaimOutcome::Released => {}
        }
    }
    tidings
}

fn by_provider(claims: Vec<DueClaim>) -> BTreeMap<PublicKey, Vec<DueClaim>> {
    let mut by_provider: BTreeMap<PublicKey, Vec<DueClaim>> = BTreeMap::new();
    for claim in claims {
        by_provider.entry(claim.holding.provider).or_default().push(claim);
    }
    by_provider
}

impl Maintenance {
    /// Renews the claims that have less than half of their time left. Pending claims of a push that could not confirm
    /// them are among these.
    ///
    /// # Errors
    /// [`StepError`]. A provider that does not answer is no error.
    pub async fn renew_claims(&self, now: Timestamp) -> Result<Renewed, StepError> {
        self.renew(now, None).await
    }

    /// The same for one provider.
    pub(super) async fn renew(&self, now: Timestamp, only: Option<PublicKey>) -> Result<Renewed, StepError> {
        self.learn_addresses::<StepError>().await?;
        let mut due =
            self.ask::<_, StepError>(move |books| books.due_claims(due_before(now), DUE_MAX)).await?;
        due.retain(|claim| only.is_none_or(|only| claim.holding.provider == only));
        let until = now.plus_seconds(CLAIM_SECONDS);
        let mut providers = JoinSet::new();
        for (provider, claims) in by_provider(due) {
            let this = self.clone();
            providers.spawn(async move { this.renew_at(provider, &claims, until).await });
        }
        let mut total = Renewed::default();
        while let Some(renewed) = providers.join_next().await {
            let renewed = renewed.map_err(|_ended| StepError::Stopped)??;
            total.renewed += renewed.renewed;
            total.lost += renewed.lost;
            total.unanswered += renewed.unanswered;
        }
        Ok(total)
    }

    async fn renew_at(
        &self,
        provider: PublicKey,
        claims: &[DueClaim],
        until: Timestamp,
    ) -> Result<Renewed, StepError> {
        let mut total = Renewed::default();
        let mut left = claims;
        while !left.is_empty() {
            let (batch, rest) = left.split_at(left.len().min(CLAIMS_BATCH_MAX));
            let renew = |claim: &DueClaim| ClaimRequest {
                fragment: claim.fragment,
                action: ClaimAction::Renew(until),
            };
            let requests: Vec<ClaimRequest> = batch.iter().map(renew).collect();
            let outcomes = match self.network.claims(&provider, &requests).await {
                Ok(outcomes) => outcomes,
                Err(error) => {
                    tracing::debug!(%provider, %error, claims = left.len(), "claims not renewed");
                    total.unanswered += left.len() as u64;
                    return Ok(total);
                }
            };
            let Tidings { renewed, lost } = tidings(batch, outcomes);
            total.renewed += renewed.len() as u64;
            total.lost += lost.len() as u64;
            if !lost.is_empty() {
                tracing::warn!(%provider, fragments = lost.len(), "provider lost fragments");
            }
            self.ask::<_, StepError>(move |books| {
                books.renew_claims(renewed)?;
                lost.into_iter().try_for_each(|key| books.set_holder(key, None).map(drop))
            })
            .await?;
            left = rest;
        }
        Ok(total)
    }
}

#[cfg(test)]
mod tests {
    use super::{Tidings, by_provider, due_before, tidings};
    use crate::commit::CLAIM_SECONDS;
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
    fn claims_are_due_in_their_second_half_and_pending_ones_at_once() {
        let now = Timestamp(1_000_000);
        assert!(now.plus_seconds(24 * 60 * 60) < due_before(now));
        assert!(now.plus_seconds(CLAIM_SECONDS) > due_before(now));
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

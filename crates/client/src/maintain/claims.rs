//! Renews our claims before they end. A provider without a claim may throw the fragment away.

use super::{Maintenance, StepError};
use crate::claims::{Due, Renewed, Stragglers, renew};
use crate::commit::CLAIM_SECONDS;
use crate::push::PushError;
use seedbank_formats::{PublicKey, Timestamp};

/// Claims are due when less than half of their time is left: months of a provider's absence don't end one.
fn due_before(now: Timestamp) -> Timestamp {
    now.plus_seconds(CLAIM_SECONDS / 2)
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
        let which =
            Due { before: due_before(now), dataset: None, provider: only, stragglers: Stragglers::Await };
        renew(&self.books, &self.network, which, now).await.map_err(|error| match error {
            PushError::Catalog(error) => StepError::Catalog(error),
            // Nothing but the books can fail here.
            _ => StepError::Stopped,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::due_before;
    use crate::commit::CLAIM_SECONDS;
    use seedbank_formats::Timestamp;

    #[test]
    fn claims_are_due_in_their_second_half_and_pending_ones_at_once() {
        let now = Timestamp(1_000_000);
        assert!(now.plus_seconds(24 * 60 * 60) < due_before(now));
        assert!(now.plus_seconds(CLAIM_SECONDS) > due_before(now));
    }
}

//! Finds claims that no book knows, and leaves them to be released.
//!
//! A PUT or a renewal that reaches a provider long after it was given up makes a claim that nobody wants, and a confirmed
//! one lasts for months, with the owner paying for it. Only the provider's own list shows it. So each list is gone
//! through about once a day, a few pages at a time, from a place that outlives the process.
//!
//! What is released is gone, so every doubt keeps a claim. Only a confirmed claim goes that no dataset of the books
//! knows, that was renewed since these books began to compare, and that nobody asked for during the last day: the
//! provider itself refuses a release that is older than the claim's last request. Books behind what providers have of
//! any head, as of a home that was put back from a copy or is used beside another one, release nothing at all.

use super::{Maintenance, StepError};
use crate::behind::BehindError;
use crate::commit::CLAIM_SECONDS;
use seedbank_catalog::records::Work;
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::{Asked, FragmentId, PublicKey, Timestamp};
use seedbank_protocol::messages::{ClaimRow, ClaimState};
use seedbank_protocol::routes::{CLAIMS_PAGE_MAX, PENDING_SECONDS_MAX};
use std::str::FromStr;
use std::time::Duration;

/// A claim is left alone until nobody has asked for it for so long: no push and no repair takes a day between a
/// confirmed claim and the books.
const AGE_SECONDS_MIN: u64 = 24 * 60 * 60;

/// A list is begun again so long after its end.
const REST_SECONDS: u64 = 24 * 60 * 60;

/// Pages of one provider in one step, of a thousand claims each: a million claims take less than two days.
const PAGES_MAX: usize = 4;

/// A provider that takes longer for a page is asked again later.
const PATIENCE: Duration = Duration::from_secs(10);

/// Since when these books compare.
const SINCE: &str = "claims compared since";

/// Why claims were not compared. None is released then.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The books say no, or can't be asked.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The books are an old copy, or nobody can say whether they are: what they don't know may be wanted.
    #[error(transparent)]
    Behind(#[from] BehindError),
    /// The process is ending.
    #[error("the comparison was stopped")]
    Stopped,
}

impl From<StepError> for CompareError {
    fn from(error: StepError) -> CompareError {
        match error {
            StepError::Catalog(error) => CompareError::Catalog(error),
            StepError::Stopped => CompareError::Stopped,
        }
    }
}

/// What a step of the comparison saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compared {
    /// Claims that providers listed.
    pub claims: u64,
    /// Those of them that no book knows; jobs release them.
    pub orphans: u64,
    /// Providers whose list was gone through to its end.
    pub finished: u64,
    /// Providers that did not answer.
    pub unanswered: u64,
}

/// Where the comparison with one provider goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cursor {
    /// After this fragment, or at the beginning.
    After(Option<FragmentId>),
    /// At the beginning, at this time.
    Rests(Timestamp),
}

impl Cursor {
    /// Where to go on now; `None` while it rests.
    fn due(self, now: Timestamp) -> Option<Option<FragmentId>> {
        match self {
            Cursor::After(after) => Some(after),
            // A clock that was set back makes nobody wait for years.
            Cursor::Rests(until) if until <= now || until > now.plus_seconds(REST_SECONDS) => Some(None),
            Cursor::Rests(_) => None,
        }
    }

    fn to_setting(self) -> String {
        match self {
            Cursor::After(after) => after.map_or_else(String::new, |after| format!("after {after}")),
            Cursor::Rests(until) => format!("rests {}", until.0),
        }
    }

    /// What can't be read means the beginning: comparing again does no harm.
    fn from_setting(text: &str) -> Cursor {
        match text.split_once(' ') {
            Some(("after", id)) => Cursor::After(FragmentId::from_str(id).ok()),
            Some(("rests", until)) => {
                until.parse().map_or(Cursor::After(None), |until| Cursor::Rests(Timestamp(until)))
            }
            _ => Cursor::After(None),
        }
    }
}

/// Whether a claim may be released if no book knows it. `since` is when these books began to compare.
fn is_ripe(claim: &ClaimRow, since: Timestamp, now: Timestamp) -> bool {
    let is_lasting = match claim.state {
        // It ends by itself within a day.
        ClaimState::Pending => false,
        ClaimState::Confirmed | ClaimState::Rotten => claim.until > now.plus_seconds(PENDING_SECONDS_MAX),
    };
    // Renewals ask for this long. A provider that granted less makes a claim look older than it is, and still refuses a
    // release that is older than the last request.
    let renewed = Timestamp(claim.until.0.saturating_sub(CLAIM_SECONDS));
    is_lasting && renewed >= since && renewed.plus_seconds(AGE_SECONDS_MIN) <= now
}

fn cursor_key(provider: &PublicKey) -> String {
    format!("claims compared with {provider}")
}

impl Maintenance {
    /// Compares a few pages of each provider's list of our claims with the books, and leaves jobs that release what no
    /// book knows. More may be due when claims were compared.
    ///
    /// # Errors
    /// [`CompareError`]. A provider that does not answer is no error.
    pub async fn compare_claims(&self, now: Timestamp) -> Result<Compared, CompareError> {
        let mut compared = Compared::default();
        let Some(since) = self.compares_since(now).await? else { return Ok(compared) };
        let providers = self.ask::<_, StepError>(|books| books.providers()).await?;
        let providers: Vec<PublicKey> = providers.iter().map(|provider| provider.profile.key).collect();
        let mut due = Vec::new();
        for provider in &providers {
            let key = cursor_key(provider);
            let text = self.ask::<_, StepError>(move |books| books.setting(key)).await?;
            let cursor = text.map_or(Cursor::After(None), |text| Cursor::from_setting(&text));
            due.extend(cursor.due(now).map(|after| (*provider, after)));
        }
        if due.is_empty() {
            return Ok(compared);
        }
        self.learn_addresses::<StepError>().await?;
        self.check_all_newest().await?;
        for (provider, after) in due {
            self.compare_with(provider, after, since, now, &mut compared).await?;
        }
        Ok(compared)
    }

    /// Since when these books compare; `None` the first time.
    async fn compares_since(&self, now: Timestamp) -> Result<Option<Timestamp>, StepError> {
        let text = self.ask::<_, StepError>(|books| books.setting(SINCE.to_owned())).await?;
        let since = text.and_then(|text| text.parse().ok()).map(Timestamp);
        if since.is_none() {
            self.ask::<_, StepError>(move |books| books.put_setting(SINCE.to_owned(), now.0.to_string()))
                .await?;
        }
        Ok(since)
    }

    async fn compare_with(
        &self,
        provider: PublicKey,
        mut after: Option<FragmentId>,
        since: Timestamp,
        now: Timestamp,
        compared: &mut Compared,
    ) -> Result<(), StepError> {
        for _ in 0..PAGES_MAX {
            let listed =
                tokio::time::timeout(PATIENCE, self.network.list_claims(&provider, after, CLAIMS_PAGE_MAX))
                    .await;
            let Ok(Ok(page)) = listed else {
                compared.unanswered += 1;
                return Ok(());
            };
            let cursor = match page.last() {
                Some(last) => Cursor::After(Some(last.fragment)),
                None => Cursor::Rests(now.plus_seconds(REST_SECONDS)),
            };
            compared.claims += page.len() as u64;
            compared.orphans += self.give_back_unknown(provider, &page, since, now).await?;
            let key = cursor_key(&provider);
            self.ask::<_, StepError>(move |books| books.put_setting(key, cursor.to_setting())).await?;
            match cursor {
                Cursor::After(last) => after = last,
                Cursor::Rests(_) => {
                    compared.finished += 1;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Leaves a job for the claims of a page that may be released; says how many.
    async fn give_back_unknown(
        &self,
        provider: PublicKey,
        page: &[ClaimRow],
        since: Timestamp,
        now: Timestamp,
    ) -> Result<u64, StepError> {
        let ripe = page.iter().filter(|claim| is_ripe(claim, since, now));
        let ripe: Vec<FragmentId> = ripe.map(|claim| claim.fragment).collect();
        if ripe.is_empty() {
            return Ok(0);
        }
        // What was asked for during the last day stays, whatever we believe of its age.
        let asked = Asked::within(Timestamp(now.0.saturating_sub(AGE_SECONDS_MIN)));
        let orphans = self
            .ask::<_, StepError>(move |books| {
                let fragments = books.unheld(provider, ripe)?;
                let orphans = fragments.len() as u64;
                if orphans > 0 {
                    books.add_job(Work::ReleaseClaims { provider, fragments, asked }, Timestamp(0))?;
                }
                Ok(orphans)
            })
            .await?;
        if orphans > 0 {
            tracing::info!(%provider, claims = orphans, "claims that no book knows are released");
        }
        Ok(orphans)
    }
}

#[cfg(test)]
mod tests {
    use super::{AGE_SECONDS_MIN, Cursor, REST_SECONDS, is_ripe};
    use crate::commit::CLAIM_SECONDS;
    use seedbank_formats::{FragmentId, Timestamp};
    use seedbank_protocol::messages::{ClaimRow, ClaimState};

    const NOW: Timestamp = Timestamp(1_900_000_000);
    const LONG_AGO: Timestamp = Timestamp(0);

    fn claim(state: ClaimState, renewed: u64) -> ClaimRow {
        let until = Timestamp(renewed + CLAIM_SECONDS);
        ClaimRow { fragment: FragmentId([1; 32]), length: 9, until, state }
    }

    #[test]
    fn only_claims_that_nobody_asked_for_in_a_day_are_ripe() {
        let yesterday = NOW.0 - AGE_SECONDS_MIN;
        for state in [ClaimState::Confirmed, ClaimState::Rotten] {
            assert!(is_ripe(&claim(state, yesterday), LONG_AGO, NOW));
            assert!(!is_ripe(&claim(state, yesterday + 1), LONG_AGO, NOW), "it is too new");
            assert!(!is_ripe(&claim(state, NOW.0 + 5), LONG_AGO, NOW), "the clock was set back");
        }
        assert!(!is_ripe(&claim(ClaimState::Pending, yesterday), LONG_AGO, NOW), "it ends by itself");
        let ending = claim(ClaimState::Confirmed, NOW.0 - CLAIM_SECONDS + AGE_SECONDS_MIN);
        assert!(!is_ripe(&ending, LONG_AGO, NOW), "and so does this one");
    }

    #[test]
    fn claims_from_before_the_books_are_never_ripe() {
        let yesterday = NOW.0 - AGE_SECONDS_MIN;
        assert!(is_ripe(&claim(ClaimState::Confirmed, yesterday), Timestamp(yesterday), NOW));
        assert!(!is_ripe(&claim(ClaimState::Confirmed, yesterday), Timestamp(yesterday + 1), NOW));
    }

    #[test]
    fn cursors_read_back_and_rest_for_a_day_at_most() {
        let after = Cursor::After(Some(FragmentId([7; 32])));
        let rests = Cursor::Rests(NOW);
        for cursor in [after, rests, Cursor::After(None)] {
            assert_eq!(Cursor::from_setting(&cursor.to_setting()), cursor);
        }
        for nonsense in ["after x", "rests -1", "rests", "x"] {
            assert_eq!(Cursor::from_setting(nonsense), Cursor::After(None));
        }
        assert_eq!(after.due(NOW), Some(Some(FragmentId([7; 32]))));
        assert_eq!(rests.due(NOW), Some(None));
        assert_eq!(rests.due(Timestamp(NOW.0 - 1)), None);
        assert_eq!(rests.due(Timestamp(NOW.0 - REST_SECONDS - 1)), Some(None), "the clock was set back");
    }
}

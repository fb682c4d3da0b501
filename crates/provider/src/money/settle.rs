//! The keeper's side of the books: what became of epochs, and what the chain says of agreements.

use crate::money::Money;
use crate::money::books::{AgreementRow, Books, BooksError, Fate, State};
use crate::service::now;
use seedbank_agreement::{Amount, Epoch};
use seedbank_formats::{Asked, FragmentId, Timestamp};
use seedbank_settlement::Agreement;
use seedbank_store::CLAIMS_PER_CALL_MAX;
use std::collections::BTreeSet;

/// The last epoch that was settled, in the books' `meta`.
const SETTLED: &str = "settled";
/// For so many epochs more the sets of closed agreements are kept.
const KEPT_EPOCHS: u32 = 1;
/// For how many seconds it is known why an offer was refused.
const REFUSED_S: u64 = 86_400;
/// Epochs that are settled again after a reorganisation.
const SETTLED_AGAIN: u32 = 2;

/// An epoch that was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settled {
    /// What it brought or would have brought.
    pub(super) sum: Amount,
    /// The books did not say so before.
    pub(super) is_news: bool,
}

impl Money {
    /// The first epoch that is not settled; `None` before the first agreement.
    pub(super) fn first_unsettled(&self) -> Result<Option<Epoch>, BooksError> {
        let books = self.books();
        if let Some(settled) = books.meta(SETTLED)?.and_then(|text| text.parse::<u32>().ok()) {
            return Ok(Some(Epoch(settled.saturating_add(1))));
        }
        let mut first: Option<Epoch> = None;
        for row in books.agreements()? {
            if let Some(terms) = books.terms(row.id, 0)? {
                first = Some(first.map_or(terms.from, |first| first.min(terms.from)));
            }
        }
        Ok(first)
    }

    /// What each agreement brings in an epoch.
    fn rates_in(&self, epoch: Epoch) -> Result<Vec<(seedbank_agreement::AgreementId, Amount)>, BooksError> {
        let books = self.books();
        let mut rates = Vec::new();
        for row in books.agreements()? {
            let is_over = matches!(row.state, State::Closed(closed) if closed <= epoch);
            if let Some(terms) = books.terms_in(row.id, epoch)?
                && !is_over
            {
                rates.push((row.id, terms.rate.into()));
            }
        }
        Ok(rates)
    }

    /// Has the last epochs settled again: the chain may say something else of them by now.
    pub(super) fn unsettle(&self, epoch: Epoch) -> Result<(), BooksError> {
        let books = self.books();
        let kept = books.meta(SETTLED)?.and_then(|text| text.parse::<u32>().ok());
        let again = epoch.0.saturating_sub(SETTLED_AGAIN);
        // Before the first epoch that was settled there may be nothing to go back to.
        if let (Some(kept), Some(first)) = (kept, again.checked_sub(1))
            && first < kept
        {
            books.set_meta(SETTLED, &first.to_string())?;
        }
        Ok(())
    }

    /// Closes an epoch in the books.
    pub(super) fn settle(
        &self,
        epoch: Epoch,
        fate: Fate,
        slashes: bool,
        slash_epochs: u32,
    ) -> Result<Settled, BooksError> {
        let rates = self.rates_in(epoch)?;
        let sum: Amount = rates.iter().map(|(_, rate)| *rate).sum();
        let slashed = if slashes { sum.0.saturating_mul(u128::from(slash_epochs)) } else { 0 };
        let mut books = self.books();
        let is_news = books.fate(epoch)? != Some(fate);
        if sum > Amount::ZERO {
            books.settle(epoch, fate, Amount(slashed), &rates)?;
        }
        books.set_meta(SETTLED, &epoch.to_string())?;
        Ok(Settled { sum, is_news })
    }

    /// Writes down that the present epoch is proven: its pay is final at once.
    pub(super) fn earned(&self, epoch: Epoch) -> Result<(), BooksError> {
        if self.books().fate(epoch)? == Some(Fate::Earned) {
            return Ok(());
        }
        let rates = self.rates_in(epoch)?;
        self.books().settle(epoch, Fate::Earned, Amount::ZERO, &rates)
    }

    /// Whether an epoch would bring something, and is not proven as far as the books know.
    pub(super) fn waits_for_pay(&self, epoch: Epoch) -> Result<bool, BooksError> {
        if self.books().fate(epoch)? == Some(Fate::Earned) {
            return Ok(false);
        }
        Ok(self.rates_in(epoch)?.iter().any(|(_, rate)| *rate > Amount::ZERO))
    }

    /// Writes down that the present epoch is not proven, whatever was written before. True if that is news.
    pub(super) fn unearned(&self, epoch: Epoch) -> Result<bool, BooksError> {
        let mut books = self.books();
        let was_earned = books.fate(epoch)? == Some(Fate::Earned);
        if was_earned {
            books.unearn(epoch)?;
        }
        Ok(was_earned)
    }

    /// The agreements whose sets are kept: open ones, and those that were closed just now.
    pub(super) fn compared_rows(&self, epoch: Epoch) -> Result<Vec<AgreementRow>, BooksError> {
        let mut rows = self.books().agreements()?;
        rows.retain(|row| match row.state {
            State::Open => true,
            State::Closed(at) => epoch.0 <= at.0.saturating_add(KEPT_EPOCHS),
        });
        Ok(rows)
    }

    /// Takes over what the chain says of an agreement, and lets go of what no set has any more.
    pub(super) fn compare(
        &self,
        row: &AgreementRow,
        agreement: &Agreement,
        epoch: Epoch,
    ) -> Result<(), BooksError> {
        let mut books = self.books();
        if row.state != State::Open {
            tracing::warn!(agreement = %row.id, "an agreement that was closed in the books runs on the chain: it goes on");
            books.reopen(row.id)?;
        }
        let lost = books.unmark_posted(row.id, agreement.sequence)?;
        if lost > 0 {
            tracing::warn!(agreement = %row.id, lost, "the chain lost revisions: they are posted again");
        }
        if agreement.sequence > 0 {
            books.mark_posted(row.id, agreement.sequence, None)?;
        }
        if let Some(latest) = agreement.latest() {
            books.end_at(row.id, agreement.sequence, latest.end)?;
        }
        // What was posted for the next epoch is needed still, and so is what was signed after it.
        let Some(current) = &agreement.current else { return Ok(()) };
        let current = books.terms_with(row.id, (&current.set_root, current.size), agreement.sequence)?;
        let Some(current) = current else { return Ok(()) };
        books.mark_posted(row.id, current.sequence, None)?;
        books.prune_terms(row.id, epoch)?;
        let gone = books.forget_leaves(row.id, Some(current.sequence))?;
        self.let_go_unless_offered(&books, &gone)
    }

    /// Forgets the sets of agreements that ended, once it is too late for that to have been a mistake.
    pub(super) fn forget_closed(&self, epoch: Epoch) -> Result<(), BooksError> {
        let mut books = self.books();
        books.forget_refused(Timestamp(now().0.saturating_sub(REFUSED_S)))?;
        for id in books.closed_with_leaves(Epoch(epoch.0.saturating_sub(KEPT_EPOCHS)))? {
            let gone = books.forget_leaves(id, None)?;
            self.let_go_unless_offered(&books, &gone)?;
        }
        Ok(())
    }

    /// Gives up own claims, but for those on fragments of offers under way, which are in no set yet. Books stay locked, so that nothing is
    /// promised in between.
    pub(super) fn let_go_unless_offered(&self, books: &Books, gone: &[FragmentId]) -> Result<(), BooksError> {
        if gone.is_empty() {
            return Ok(());
        }
        let mut keep = BTreeSet::new();
        for offer in books.proposals()? {
            keep.extend(offer.request.added.iter().map(|leaf| leaf.fragment));
        }
        let free: Vec<FragmentId> = gone.iter().filter(|id| !keep.contains(*id)).copied().collect();
        for batch in free.chunks(CLAIMS_PER_CALL_MAX) {
            let released = self.store.release(&self.identity.public(), batch, Asked(u64::MAX), now());
            if let Err(error) = released {
                // The next start looks again.
                tracing::warn!(%error, "own claims not released");
            }
        }
        Ok(())
    }

    /// Whether the chain has lost an agreement so young that it may: then its offer is under way again. If it ended instead, the offer is
    /// refused there.
    pub(super) fn offer_lost(&self, row: &AgreementRow, epoch: Epoch) -> Result<bool, BooksError> {
        let books = self.books();
        let is_young = books.terms(row.id, 0)?.is_some_and(|first| epoch <= first.from);
        let is_lost = is_young && books.offer_again(row.id)?;
        if is_lost {
            tracing::warn!(agreement = %row.id, "the chain lost an agreement: its offer is sent again");
        }
        Ok(is_lost)
    }

    /// Gives up own claims that an interrupted request or closing left behind.
    pub(super) fn drop_stale_claims(&self) -> Result<(), BooksError> {
        let mut after = None;
        loop {
            let page = self.store.claims(&self.identity.public(), after, CLAIMS_PER_CALL_MAX);
            self.let_go_unpromised(&self.books(), page.claims.iter().map(|claim| claim.fragment))?;
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }
}

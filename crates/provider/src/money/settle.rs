//! The keeper's side of the books: what became of epochs, and what the chain says of agreements.

use crate::money::Money;
use crate::money::books::{AgreementRow, BooksError, Fate, State};
use seedbank_agreement::{Amount, Epoch};
use seedbank_formats::FragmentId;
use seedbank_settlement::Agreement;
use std::collections::BTreeSet;

/// The last epoch that was settled, in the books' `meta`.
const SETTLED: &str = "settled";

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

    /// Closes an epoch in the books. Gives what it was about.
    pub(super) fn settle(
        &self,
        epoch: Epoch,
        fate: Fate,
        slashes: bool,
        slash_epochs: u32,
    ) -> Result<Amount, BooksError> {
        let rates = self.rates_in(epoch)?;
        let sum: Amount = rates.iter().map(|(_, rate)| *rate).sum();
        let slashed = if slashes { sum.0.saturating_mul(u128::from(slash_epochs)) } else { 0 };
        let mut books = self.books();
        if sum > Amount::ZERO {
            books.settle(epoch, fate, Amount(slashed), &rates)?;
        }
        books.set_meta(SETTLED, &epoch.to_string())?;
        Ok(sum)
    }

    /// Writes down that the present epoch is proven: its pay is final at once.
    pub(super) fn earned(&self, epoch: Epoch) -> Result<(), BooksError> {
        if self.books().fate(epoch)? == Some(Fate::Earned) {
            return Ok(());
        }
        let rates = self.rates_in(epoch)?;
        self.books().settle(epoch, Fate::Earned, Amount::ZERO, &rates)
    }

    /// Takes over what the chain says of an agreement, and lets go of what no set has any more.
    pub(super) fn compare(
        &self,
        row: &AgreementRow,
        found: Option<&Agreement>,
        epoch: Epoch,
    ) -> Result<(), BooksError> {
        let mut books = self.books();
        let gone = match found {
            None => {
                tracing::info!(agreement = %row.id, "agreement closed");
                books.close_agreement(row.id, epoch)?;
                books.forget_leaves(row.id, None)?
            }
            Some(agreement) => {
                if agreement.sequence > 0 {
                    books.mark_posted(row.id, agreement.sequence, None)?;
                }
                if let Some(latest) = agreement.latest() {
                    books.end_at(row.id, agreement.sequence, latest.end)?;
                }
                let current = match &agreement.current {
                    // What was posted for the next epoch is needed still, and so is what was signed after it.
                    Some(current) => {
                        books.terms_with(row.id, (&current.set_root, current.size), agreement.sequence)?
                    }
                    None => None,
                };
                match current {
                    Some(current) => books.forget_leaves(row.id, Some(current.sequence))?,
                    None => Vec::new(),
                }
            }
        };
        if gone.is_empty() {
            return Ok(());
        }
        // Fragments of offers under way are in no set yet. Books stay locked, so that nothing is promised in between.
        let mut keep = BTreeSet::new();
        for offer in books.proposals()? {
            keep.extend(offer.request.added.iter().map(|leaf| leaf.fragment));
        }
        self.let_go(&gone, &keep);
        Ok(())
    }

    /// Gives up own claims that an interrupted request or closing left behind.
    pub(super) fn drop_stale_claims(&self) {
        let books = self.books();
        let Ok(offers) = books.proposals() else { return };
        let keep: BTreeSet<FragmentId> =
            offers.iter().flat_map(|offer| offer.request.added.iter().map(|leaf| leaf.fragment)).collect();
        let mut after = None;
        loop {
            let page = self.store.claims(&self.identity.public(), after, seedbank_store::CLAIMS_PER_CALL_MAX);
            let stale: Vec<FragmentId> = page
                .claims
                .iter()
                .map(|claim| claim.fragment)
                .filter(|fragment| matches!(books.is_promised(fragment), Ok(false)))
                .collect();
            self.let_go(&stale, &keep);
            match page.next {
                Some(next) => after = Some(next),
                None => return,
            }
        }
    }
}

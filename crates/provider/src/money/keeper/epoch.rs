//! Bringing set and books to the present epoch.

use super::{COMPARED_ALWAYS, Keeper, RoundError};
use crate::money::absence::{Expected, Judged};
use crate::money::books::{AgreementRow, Fate, State};
use crate::money::gas::Work;
use seedbank_agreement::{Address, AgreementId, Amount, Epoch};
use seedbank_settlement::{Agreement, Chain, Outcome, ProofSet};
use std::collections::{BTreeMap, BTreeSet};
use tracing::{error, info, warn};

/// Agreements in one transaction that moves them on, at some 100,000 gas each.
const MOVE_ON_MAX: usize = 50;
/// Past epochs closed in one transaction: ten years of daily ones take a dozen.
const ADVANCE_MAX: u32 = 300;
/// Past epochs settled in one round.
const SETTLE_MAX: u32 = 1_000;

/// Whether a number is still the agreement that the books have under it: after a reorganisation it may be another's.
fn is_its(agreement: &Agreement, client: Address, provider: Address) -> bool {
    (agreement.client, agreement.provider) == (client, provider)
}

impl Keeper {
    /// Brings the set to the present epoch, whatever was missed while nobody looked.
    pub(super) async fn catch_up(&mut self, epoch: Epoch) -> Result<Option<ProofSet>, RoundError> {
        let own = self.own();
        let mut unexplained = false;
        loop {
            let Some(set) = self.wallet.chain().market().get_set(own).await? else { return Ok(None) };
            if let Some(dead) = set.dead_at {
                self.died = true;
                self.money.health.dead(Some(format!(
                    "the set is dead since epoch {dead}: too many epochs were missed, or the stake was too small"
                )));
                return Ok(Some(set));
            }
            self.money.health.dead(None);
            if set.due > 0 {
                let due = self.due(&set).await?;
                if due.is_empty() {
                    if unexplained {
                        return Err(RoundError::Unexplained { due: set.due, epoch: set.epoch });
                    }
                    // Somebody else may have moved them on between the two questions.
                    unexplained = true;
                    continue;
                }
                unexplained = false;
                for batch in due.chunks(MOVE_ON_MAX) {
                    let sent = self.wallet.market().move_on(batch).await;
                    self.paid(Work::Advance, sent).await?;
                }
            } else if set.epoch < epoch {
                let sent = self.wallet.market().advance(own, ADVANCE_MAX).await;
                self.paid(Work::Advance, sent).await?;
            } else {
                return Ok(Some(set));
            }
        }
    }

    /// Agreements whose terms begin or end with the set's epoch: those that the books expect; if the chain knows of more, all that the books
    /// have ever known; then those that the chain's events name.
    async fn due(&mut self, set: &ProofSet) -> Result<Vec<AgreementId>, RoundError> {
        let epoch = set.epoch;
        let known = self.money.blocking(move |money| money.books().due(epoch)).await?;
        let is_all = |due: &[AgreementId]| u32::try_from(due.len()).is_ok_and(|found| found >= set.due);
        let due = self.due_of(known, epoch).await?;
        if is_all(&due) {
            return Ok(due);
        }
        let rows = self.money.blocking(|money| money.books().agreements()).await?;
        let due = self.due_of(rows.into_iter().map(|row| row.id).collect(), epoch).await?;
        if is_all(&due) {
            return Ok(due);
        }
        let named = self.by_events().await?;
        let found = self.due_of(named, epoch).await?;
        Ok(due.into_iter().chain(found).collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn due_of(&self, ids: Vec<AgreementId>, epoch: Epoch) -> Result<Vec<AgreementId>, RoundError> {
        let found = self.agreements_of(ids).await?;
        let own = self.own();
        let is_due = |agreement: &Agreement| {
            agreement.provider == own
                && match (&agreement.next, &agreement.current) {
                    (Some(next), _) => next.from == epoch,
                    (None, Some(current)) => current.end == epoch,
                    (None, None) => false,
                }
        };
        let due = found.into_iter().filter(|(_, found)| found.as_ref().is_some_and(is_due));
        Ok(due.map(|(id, _)| id).collect())
    }

    /// Writes down what became of epochs that are over.
    pub(super) async fn settle(&mut self, epoch: Epoch, set: Option<&ProofSet>) -> Result<(), RoundError> {
        if self.unsettle {
            self.money.blocking(move |money| money.unsettle(epoch)).await?;
            self.unsettle = false;
        }
        let Some(first) = self.money.blocking(|money| money.first_unsettled()).await? else { return Ok(()) };
        let last = epoch.0.min(first.0.saturating_add(SETTLE_MAX));
        let slash_epochs = self.wallet.chain().deployment().parameters.market.slash_epochs;
        for past in first.0..last {
            let past = Epoch(past);
            let outcome = self.outcome(past).await?;
            let died = set.and_then(|set| set.dead_at).is_some_and(|dead| past.0.saturating_add(1) == dead.0);
            let fate = match outcome {
                Outcome::Proven => Fate::Earned,
                Outcome::Missed => Fate::Missed,
                // What killed the set without a slash: the stake was too small for it.
                Outcome::Nothing if died => Fate::Missed,
                Outcome::Nothing => Fate::Void,
            };
            let slashed = outcome == Outcome::Missed;
            let settled = self.money.blocking(move |money| money.settle(past, fate, slashed, slash_epochs));
            let settled = settled.await?;
            if settled.sum == Amount::ZERO {
                continue;
            }
            if settled.is_news {
                match fate {
                    Fate::Missed => error!(epoch = %past, "epoch missed: nothing earned, stake slashed"),
                    Fate::Void => warn!(epoch = %past, "epoch void: nothing earned"),
                    Fate::Earned => {}
                }
            }
            if self.counted < Some(past) {
                self.counted = Some(past);
                self.metrics.money.settled(fate);
            }
        }
        Ok(())
    }

    /// Compares the books' agreements with the chain.
    pub(super) async fn compare(&mut self, epoch: Epoch) -> Result<(), RoundError> {
        let again = self.money.blocking(|money| money.books().offered_again()).await?;
        let mut rows = self.money.blocking(move |money| money.compared_rows(epoch)).await?;
        rows.retain(|row| !again.contains(&row.id));
        if rows.len() > COMPARED_ALWAYS && self.compared_in == Some(epoch) {
            rows.retain(|row| self.absences.waits(row.id));
            if rows.is_empty() {
                return Ok(());
            }
        }
        let ids = rows.iter().map(|row| row.id).collect();
        let found: BTreeMap<AgreementId, Option<Agreement>> =
            self.agreements_of(ids).await?.into_iter().collect();
        let own = self.own();
        for row in rows {
            match found.get(&row.id).copied().flatten().filter(|found| is_its(found, row.client, own)) {
                Some(agreement) => {
                    self.absences.shown(row.id);
                    self.money.blocking(move |money| money.compare(&row, &agreement, epoch)).await?;
                }
                None => self.miss(row, epoch).await?,
            }
        }
        self.money.blocking(move |money| money.books().forget_offers(epoch)).await?;
        self.money.blocking(move |money| money.forget_closed(epoch)).await?;
        self.compared_in = Some(epoch);
        Ok(())
    }

    /// The chain does not show an agreement: decides whether that is believed.
    async fn miss(&mut self, row: AgreementRow, epoch: Epoch) -> Result<(), RoundError> {
        let (id, client, own) = (row.id, row.client, self.own());
        if row.state != State::Open {
            return Ok(());
        }
        let is_shown = |chain: Chain| async move {
            let found = chain.market().get_agreement(id).await?;
            Ok(found.is_some_and(|agreement| is_its(&agreement, client, own)))
        };
        if self.any_endpoint(is_shown).await {
            self.absences.shown(id);
            return Ok(());
        }
        if self.money.blocking(move |money| money.offer_lost(&row, epoch)).await? {
            return Ok(());
        }
        let other = self.wallet.chain().market().agreement_of(client, own).await?;
        let end = self.money.blocking(move |money| money.books().posted_end(id)).await?;
        let is_expected =
            self.died || end.is_none_or(|end| end <= epoch) || other.is_some_and(|other| other != id);
        let expected = if is_expected { Expected::Yes } else { Expected::No };
        if expected == Expected::No && !self.absences.waits(id) {
            warn!(agreement = %id, "the chain does not show an agreement that should run: its set is kept for now");
        }
        let confirmations = self.money.config.confirmations;
        match self.absences.denied(id, (self.block, epoch), confirmations, expected) {
            Judged::Wait => {}
            Judged::Gone => {
                info!(agreement = %id, "agreement closed");
                self.money.blocking(move |money| money.books().close_agreement(id, epoch)).await?;
            }
        }
        Ok(())
    }

    /// What became of an epoch. One that the books say was proven needs more than one endpoint's word to be anything else.
    pub(super) async fn outcome(&self, epoch: Epoch) -> Result<Outcome, RoundError> {
        let own = self.own();
        let outcome = self.wallet.chain().market().outcome(own, epoch).await?;
        if outcome == Outcome::Proven {
            return Ok(outcome);
        }
        let fate = self.money.blocking(move |money| money.books().fate(epoch)).await?;
        let proven = fate == Some(Fate::Earned)
            && self
                .any_endpoint(|chain| async move {
                    Ok(chain.market().outcome(own, epoch).await? == Outcome::Proven)
                })
                .await;
        Ok(if proven { Outcome::Proven } else { outcome })
    }
}

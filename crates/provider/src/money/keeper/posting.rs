//! Revisions and vouchers on their way to the chain.

use super::standing::mined;
use super::{Keeper, RoundError};
use crate::money::books::BooksError;
use crate::money::cash::CashError;
use crate::money::connect::ChainError;
use crate::money::epochs::{Elapsed, Pay, is_worth_posting, posts_now};
use crate::money::gas::Work;
use seedbank_agreement::{Epoch, Revision, Signature, Signed};
use seedbank_protocol::payment::TransactionHash;
use seedbank_settlement::{Head, Skip};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Revisions in one transaction.
const REVISIONS_MAX: usize = 50;

/// Gas of a revision's way: posted, begun.
const REVISION_GAS: u64 = 114_000;

/// A revision with both signatures.
type Both = (Signed<Revision>, Signature);

impl Keeper {
    /// Posts what clients and provider have signed for the next epoch.
    pub(super) async fn post(&mut self, head: &Head, epoch: Epoch) -> Result<(), RoundError> {
        let next = Epoch(epoch.0.saturating_add(1));
        let waiting = self.money.blocking(move |money| money.books().unposted(next)).await?;
        let waiting: Vec<_> = waiting
            .into_iter()
            .filter(|(signed, _)| {
                !self.refused.contains(&(signed.message.agreement, signed.message.sequence))
            })
            .collect();
        let elapsed = Elapsed::at(&self.wallet.chain().deployment().clock(), epoch, head.time);
        if waiting.is_empty() || !posts_now(elapsed, self.posted_in == Some(epoch), self.gas()) {
            return Ok(());
        }
        let waiting = self.that_may_be_posted(waiting).await?;
        for batch in waiting.chunks(REVISIONS_MAX) {
            let posted = self.wallet.market().revise(batch).await;
            self.note_cost(Work::Post, mined(posted.as_ref().map(|posted| &posted.mined))).await;
            let posted = posted?;
            self.posted_in = Some(epoch);
            let by = TransactionHash(posted.mined.transaction);
            for ((signed, _), outcome) in batch.iter().zip(posted.revisions) {
                let (id, sequence) = (signed.message.agreement, signed.message.sequence);
                match outcome {
                    Ok(()) => {
                        info!(agreement = %id, sequence, transaction = %by, "revision posted");
                        self.money
                            .blocking(move |money| money.books().mark_posted(id, sequence, Some(&by)))
                            .await?;
                    }
                    // The steward was faster.
                    Err(Skip::Stale) => {
                        self.money
                            .blocking(move |money| money.books().mark_posted(id, sequence, None))
                            .await?;
                    }
                    Err(Skip::Behind) => {}
                    Err(reason) => {
                        warn!(agreement = %id, sequence, ?reason, "revision refused by the market");
                        self.refused.insert((id, sequence));
                        if matches!(reason, Skip::Signature | Skip::Escrow) {
                            self.money.note_refused(id, epoch);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// What is worth its gas. A provider that leaves posts nothing that would keep it longer, although it was signed before.
    async fn that_may_be_posted(&self, waiting: Vec<Both>) -> Result<Vec<Both>, RoundError> {
        let entry = self.wallet.chain().registry().get(self.own()).await?;
        let leaves = entry.is_some_and(|entry| entry.leaving);
        let cost = self.money.config.worth(self.money.gas_price(), REVISION_GAS);
        let kept = self.money.blocking(move |money| -> Result<Vec<Both>, BooksError> {
            let books = money.books();
            let mut kept = Vec::new();
            for both in waiting {
                let Some(old) = books.posted_terms(both.0.message.agreement)? else { continue };
                let new = &both.0.message;
                let old = Pay { rate: old.rate.into(), from: old.from, end: old.end };
                let new = Pay { rate: new.rate_per_epoch.into(), from: new.from_epoch, end: new.end_epoch };
                let is_in_time = !leaves || new.end <= old.end;
                if is_in_time && is_worth_posting(new, old, cost) {
                    kept.push(both);
                }
            }
            Ok(kept)
        });
        Ok(kept.await?)
    }

    /// Cashes vouchers, now and then.
    pub(super) async fn cash(&mut self) -> Result<(), RoundError> {
        let every = Duration::from_secs(self.money.config.redeem.every_s);
        if self.cashed_at.is_some_and(|at| at.elapsed() < every) {
            return Ok(());
        }
        self.cashed_at = Some(Instant::now());
        let money = Arc::clone(&self.money);
        if self.recheck_cashed {
            money.recheck_cashed(&self.wallet).await?;
            self.recheck_cashed = false;
        }
        let gas_price = self.money.gas_price();
        let cashed = money.cash(&self.wallet, gas_price).await;
        let sent = match &cashed {
            Ok(cashed) => *cashed,
            Err(CashError::Chain(ChainError::Send(error))) => mined(Err(error)),
            Err(CashError::Chain(_) | CashError::Books(_)) => None,
        };
        self.note_cost(Work::Cash, sent).await;
        if cashed?.is_some() {
            self.metrics.money.redemptions.inc();
        }
        Ok(())
    }
}

//! Offers that were taken become agreements.

use super::standing::mined;
use super::{Keeper, RoundError};
use crate::money::books::PendingProposal;
use crate::money::gas::Work;
use seedbank_agreement::{AgreementId, Epoch, Proposal, Signed};
use seedbank_protocol::payment::TransactionHash;
use seedbank_settlement::{Agreement, SendError, Skip};
use std::collections::VecDeque;
use tracing::{info, warn};

/// Offers in one transaction, at some 222,000 gas each.
const OFFERS_MAX: usize = 40;
/// Transactions of one round: each waits for its blocks, and an epoch that begins meanwhile waits for it.
const ACTIVATIONS_MAX: u32 = 2;

/// The agreement of an offer, and the transaction that made it; or why the market refuses.
type Opened = Result<(AgreementId, TransactionHash), String>;

/// Whether an agreement, which nobody revised yet, is what an offer became. Its client may have moved its end forward since.
fn is_of(agreement: &Agreement, offer: &Proposal) -> bool {
    (agreement.client, agreement.provider, agreement.sequence) == (offer.client, offer.provider, 0)
        && agreement.latest().is_some_and(|terms| {
            (terms.set_root, terms.size, terms.rate_per_epoch)
                == (offer.set_root, offer.size, offer.rate_per_epoch)
                && terms.end <= offer.end_epoch
        })
}

/// What became of a batch.
enum Activated {
    /// Of each offer in it.
    Decided(Vec<Opened>),
    /// One of them can't be sent; nobody knows which.
    NotTogether,
}

/// The offers of one round, in the transactions that are to be tried.
struct Batches<T> {
    waiting: VecDeque<Vec<T>>,
    sent: u32,
}

impl<T> Batches<T> {
    fn of(offers: Vec<T>) -> Batches<T> {
        Batches { waiting: VecDeque::from([offers]), sent: 0 }
    }

    /// What is tried next, unless this round has sent enough.
    fn next(&mut self) -> Option<Vec<T>> {
        if self.sent >= ACTIVATIONS_MAX {
            return None;
        }
        self.waiting.pop_front().filter(|batch| !batch.is_empty())
    }

    /// One of them was sent.
    fn sent(&mut self) {
        self.sent += 1;
    }

    /// These can't be sent together: the one that it is about must not hold up the others.
    fn split(&mut self, mut batch: Vec<T>) {
        let second = batch.split_off(batch.len() / 2);
        self.waiting.extend([batch, second]);
    }
}

impl Keeper {
    pub(super) async fn open_agreements(&mut self, epoch: Epoch) -> Result<(), RoundError> {
        // The others are there in the next round.
        let offers = self.money.blocking(|money| money.books().first_proposals(OFFERS_MAX)).await?;
        let mut unknown = Vec::new();
        for offer in offers {
            // A transaction of an earlier run may have done it.
            match self.known(&offer.request.proposal).await? {
                Some(id) => self.note_opened(offer, Ok((id, TransactionHash([0; 32]))), epoch).await?,
                None => unknown.push(offer),
            }
        }
        let mut batches = Batches::of(unknown);
        while let Some(batch) = batches.next() {
            match self.activate(&batch).await? {
                Activated::Decided(outcomes) => {
                    // One that is refused before it is sent costs nothing.
                    if outcomes.iter().any(Result::is_ok) {
                        batches.sent();
                    }
                    for (offer, outcome) in batch.into_iter().zip(outcomes) {
                        self.note_opened(offer, outcome, epoch).await?;
                    }
                }
                Activated::NotTogether => batches.split(batch),
            }
        }
        Ok(())
    }

    /// The agreement that an offer became already.
    async fn known(&self, offer: &Signed<Proposal>) -> Result<Option<AgreementId>, RoundError> {
        let market = self.wallet.chain().market();
        let Some(id) = market.agreement_of(offer.message.client, self.own()).await? else { return Ok(None) };
        let found = market.get_agreement(id).await?;
        Ok(found.is_some_and(|agreement| is_of(&agreement, &offer.message)).then_some(id))
    }

    async fn activate(&mut self, offers: &[PendingProposal]) -> Result<Activated, RoundError> {
        let signed: Vec<Signed<Proposal>> =
            offers.iter().map(|offer| offer.request.proposal.clone()).collect();
        let sent = self.wallet.market().activate(&signed).await;
        self.note_cost(Work::Open, mined(sent.as_ref().map(|sent| &sent.mined))).await;
        match sent {
            Ok(activation) => {
                let transaction = TransactionHash(activation.mined.transaction);
                let opened = |outcome: Result<AgreementId, Skip>| {
                    outcome.map(|id| (id, transaction)).map_err(|skip| format!("{skip:?}"))
                };
                Ok(Activated::Decided(activation.agreements.into_iter().map(opened).collect()))
            }
            Err(SendError::Refused(_)) if offers.len() > 1 => Ok(Activated::NotTogether),
            Err(SendError::Refused(refusal)) => Ok(Activated::Decided(vec![Err(refusal.to_string())])),
            Err(error) => Err(error.into()),
        }
    }

    async fn note_opened(
        &self,
        offer: PendingProposal,
        opened: Opened,
        epoch: Epoch,
    ) -> Result<(), RoundError> {
        let client = offer.request.proposal.message.client;
        let agreement = match &opened {
            Ok((id, _)) => self.wallet.chain().market().get_agreement(*id).await?,
            Err(_) => None,
        };
        let from = agreement.and_then(|agreement| agreement.latest().map(|terms| terms.from));
        let from = from.unwrap_or(Epoch(epoch.0.saturating_add(1)));
        self.money
            .blocking(move |money| match opened {
                Ok((id, transaction)) => {
                    info!(agreement = %id, %client, "agreement opened");
                    money.books().open_agreement(&offer, id, from, transaction)
                }
                Err(why) => {
                    warn!(%client, why, "offer refused by the market");
                    money.refuse_offer(&offer, &why)
                }
            })
            .await?;
        self.money.offers.send_modify(|count| *count += 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{ACTIVATIONS_MAX, Batches};
    use std::collections::BTreeSet;

    #[test]
    fn round_sends_few_transactions_and_offers_that_spoil_them_are_found_while_the_others_go_on() {
        let spoil = [3, 17, 30];
        let (mut waiting, mut rounds): (BTreeSet<u32>, u32) = ((0..40).collect(), 0);
        while !waiting.is_empty() {
            let mut batches = Batches::of(waiting.iter().copied().collect());
            let mut sent = 0;
            while let Some(batch) = batches.next() {
                let spoilt = batch.iter().any(|offer| spoil.contains(offer));
                if spoilt && batch.len() > 1 {
                    batches.split(batch);
                    continue;
                }
                if !spoilt {
                    batches.sent();
                    sent += 1;
                }
                assert!(batch.iter().all(|offer| waiting.remove(offer)), "each is tried once");
            }
            assert!(sent <= ACTIVATIONS_MAX, "an epoch that begins would wait for {sent} transactions");
            rounds += 1;
        }
        assert!(rounds < 10, "{rounds} rounds");
        assert!(Batches::<u32>::of(Vec::new()).next().is_none());
    }
}

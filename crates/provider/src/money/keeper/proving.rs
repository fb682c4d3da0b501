//! The epoch's proof, and answers to clients' questions.

use super::{Keeper, RoundError, whole};
use crate::money::books::BooksError;
use crate::money::connect::ChainError;
use crate::money::epochs::{Elapsed, Pay, Urgency, answer_brings, urgency};
use crate::money::gas::Work;
use crate::money::prove::{ProveError, build};
use crate::service::now;
use seedbank_agreement::{AgreementId, Amount, Epoch};
use seedbank_protocol::payment::TransactionHash;
use seedbank_settlement::{Agreement, Mined, Outcome, Proof, ProofSet, Refusal, SendError};
use std::collections::{BTreeMap, BTreeSet};
use tracing::{error, info, warn};

impl Keeper {
    /// Proves the present epoch, if it is not proven.
    pub(super) async fn prove_epoch(&mut self, epoch: Epoch, set: &ProofSet) -> Result<(), RoundError> {
        if set.dead_at.is_some() || set.rate == Amount::ZERO {
            self.money.health.proof(None);
            return Ok(());
        }
        if self.outcome(epoch).await? == Outcome::Proven {
            self.money.health.proof(None);
            self.money.blocking(move |money| money.earned(epoch)).await?;
            return Ok(());
        }
        if self.money.blocking(move |money| money.unearned(epoch)).await? {
            warn!(%epoch, "the chain has no proof of this epoch any more: proving it again");
        }
        match self.prove(epoch).await {
            Ok(mined) => {
                info!(%epoch, transaction = %TransactionHash(mined.transaction), gas = mined.gas_used, "epoch proven");
                self.metrics.money.proofs.inc();
                self.money.health.proof(None);
                let transaction = TransactionHash(mined.transaction);
                let noted = self.money.blocking(move |money| {
                    money.books().note_proof(epoch, &transaction)?;
                    money.earned(epoch)
                });
                noted.await?;
                Ok(())
            }
            Err(RoundError::Chain(ChainError::Send(SendError::Refused(Refusal::AlreadyProven(_))))) => Ok(()),
            Err(error) => {
                self.metrics.money.proofs_failed.inc();
                Err(error)
            }
        }
    }

    /// Whatever kept a round from its end may keep the epoch from being proven: the operator is told while there is time. Where the chain says
    /// nothing, the time is this machine's.
    pub(super) async fn warn_if_unproven(&self, why: &str) -> Result<(), BooksError> {
        let deployment = self.wallet.chain().deployment();
        let time = self.time.max(now());
        let Some(epoch) = deployment.epoch_at(time) else { return Ok(()) };
        if !self.money.blocking(move |money| money.waits_for_pay(epoch)).await? {
            return Ok(());
        }
        let noted = why.to_owned();
        self.money.blocking(move |money| money.books().note_trouble(epoch, &noted)).await?;
        let urgency = urgency(Elapsed::at(&deployment.clock(), epoch, time));
        let text = format!("epoch {epoch} is not proven: {why}");
        if self.money.health.proof(Some((urgency, text))) {
            match urgency {
                Urgency::None => warn!(%epoch, why, "no proof yet: trying again"),
                Urgency::Warning => warn!(%epoch, why, "half of the epoch is over without a proof"),
                Urgency::Alarm => error!(%epoch, why, "a quarter of the epoch is left to prove it"),
            }
        }
        Ok(())
    }

    async fn prove(&mut self, epoch: Epoch) -> Result<Mined, RoundError> {
        let own = self.own();
        self.seal(epoch).await?;
        let challenges = self.wallet.chain().market().challenges_of(own).await?;
        let asked: Vec<(AgreementId, u64)> =
            challenges.iter().map(|challenge| (challenge.agreement, challenge.offset)).collect();
        let proofs = self.proofs(asked).await?;
        let sent = self.wallet.market().prove(own, &proofs).await;
        Ok(self.paid(Work::Prove, sent).await?)
    }

    async fn seal(&mut self, epoch: Epoch) -> Result<(), RoundError> {
        if self.wallet.chain().randomness().seed(epoch).await?.is_none() {
            let sent = self.wallet.randomness().seal().await;
            self.paid(Work::Advance, sent).await?;
        }
        Ok(())
    }

    async fn proofs(&self, asked: Vec<(AgreementId, u64)>) -> Result<Vec<Proof>, RoundError> {
        let ids: BTreeSet<AgreementId> = asked.iter().map(|(id, _)| *id).collect();
        let ids = ids.into_iter().collect();
        let mut terms = BTreeMap::new();
        for (id, agreement) in self.agreements_of(ids).await? {
            let current = agreement.and_then(|agreement| agreement.current);
            terms.insert(id, current.ok_or(ProveError::UnknownSet(id))?);
        }
        let built = self.money.blocking(move |money| {
            let sets = money.sets_of(&terms)?;
            build(&money.store, &sets, &asked)
        });
        let (proofs, cost) = built.await?;
        self.metrics.money.proof_bytes_read.inc_by(cost.bytes_read);
        Ok(proofs)
    }

    /// Answers clients' questions about their own agreements.
    pub(super) async fn answer(&mut self, epoch: Epoch) -> Result<(), RoundError> {
        self.find_questions(epoch).await?;
        let mut outcome = Ok(());
        for id in self.questions.1.clone() {
            match self.answer_one(id, epoch).await {
                Ok(mined) => {
                    info!(agreement = %id, gas = mined.gas_used, "question answered");
                    self.questions.1.remove(&id);
                }
                // Somebody else answered, or there was none.
                Err(RoundError::Chain(ChainError::Send(SendError::Refused(Refusal::NoQuestion)))) => {
                    self.questions.1.remove(&id);
                }
                Err(error) => {
                    warn!(agreement = %id, why = whole(&error), "question not answered");
                    outcome = Err(error);
                }
            }
        }
        outcome
    }

    /// Questions are put in the epoch before: so all of this one are there as soon as it begins.
    async fn find_questions(&mut self, epoch: Epoch) -> Result<(), RoundError> {
        if self.questions.0 == Some(epoch) {
            return Ok(());
        }
        let ids = self.open_rows().await?.into_iter().map(|row| row.id).collect();
        let found =
            self.ask_each(ids, |chain, id| async move { chain.market().get_question(id).await }).await?;
        let bonds: BTreeMap<AgreementId, Amount> = found
            .into_iter()
            .filter_map(|(id, question)| Some((id, question?)))
            .filter(|(_, question)| question.epoch == epoch)
            .map(|(id, question)| (id, question.bond))
            .collect();
        self.note_losses(epoch, &bonds).await?;
        self.questions = (Some(epoch), bonds.into_keys().collect());
        Ok(())
    }

    /// Tells of questions whose answers cost more than they bring. They are answered all the same: whether to go on at this price of gas
    /// the operator decides.
    async fn note_losses(
        &self,
        epoch: Epoch,
        bonds: &BTreeMap<AgreementId, Amount>,
    ) -> Result<(), RoundError> {
        if bonds.is_empty() {
            return Ok(());
        }
        let chain = self.wallet.chain();
        self.money.note_gas_price(chain.gas_price().await?);
        let parameters = &chain.deployment().parameters;
        let cost = self.money.config.in_units(self.money.gas_price(), parameters.answer_gas());
        for (id, agreement) in self.agreements_of(bonds.keys().copied().collect()).await? {
            let Some(terms) = agreement.as_ref().and_then(Agreement::latest) else { continue };
            let pay = Pay { rate: terms.rate_per_epoch.into(), from: terms.from, end: terms.end };
            let brings = answer_brings(bonds[&id], pay, epoch, parameters.market.slash_epochs);
            if cost > brings {
                warn!(agreement = %id, %cost, %brings, "answering a question costs more gas than its bond and what is lost by silence");
            }
        }
        Ok(())
    }

    async fn answer_one(&mut self, id: AgreementId, epoch: Epoch) -> Result<Mined, RoundError> {
        self.seal(epoch).await?;
        let offsets = self.wallet.chain().market().question_of(id).await?;
        let asked = offsets.into_iter().map(|offset| (id, offset)).collect();
        let proofs = self.proofs(asked).await?;
        let sent = self.wallet.market().answer(id, &proofs).await;
        Ok(self.paid(Work::Answer, sent).await?)
    }
}

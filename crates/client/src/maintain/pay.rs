//! Keeps what is paid and what is held in step: signs what moved, posts what was left, renews what ends, stops paying
//! whoever stops proving, and takes back what is left.
//!
//! Everything is asked of the chain each time, and done once more is done once: a step that was cut short harms nobody.

use super::{Maintenance, StepError};
use crate::network::wall_clock;
use crate::pay::agree::{AgreeError, Agreeing, Purpose, Terms, rates};
use crate::pay::chain::{ChainError, OnChain, Order};
use crate::pay::payer::{FundsError, Payer};
use crate::pay::upkeep::{Due, Moment, Signed, due};
use seedbank_agreement::{Address, AgreementId, Amount};
use seedbank_catalog::Books;
use seedbank_catalog::records::{Agreement, AgreementState};
use seedbank_formats::PublicKey;
use seedbank_protocol::payment::RefusalReason;
use seedbank_protocol::read_exchange::Verdict;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

/// What a round of paying did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paying {
    /// Agreements that are paid.
    pub open: u64,
    /// Providers that were given up and whose agreements are not closed yet.
    pub stopped: u64,
    /// Providers that signed for what had moved, or for another term.
    pub signed: u64,
    /// Revisions posted, since their provider had not.
    pub posted: u64,
    /// Questions asked on the chain.
    pub asked: u64,
    /// Agreements that came to an end.
    pub closed: u64,
    /// What came back from them.
    pub refunded: Amount,
    /// Lanes of reading processes that can promise more now.
    pub raised: u64,
    /// Agreements and channels of which it was announced that spare money comes back.
    pub announced: u64,
    /// What came back from channels that nobody needs any more.
    pub returned: Amount,
    /// Providers of which something could not be done; log lines say what.
    pub failed: u64,
}

/// Why paying stopped early. What it did until then stands.
#[derive(Debug, thiserror::Error)]
pub enum PayStepError {
    /// The books say no, or the process is ending.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The chain can't be asked; reads go on as far as channels cover them.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl From<seedbank_catalog::CatalogError> for PayStepError {
    fn from(error: seedbank_catalog::CatalogError) -> PayStepError {
        PayStepError::Step(error.into())
    }
}

impl Maintenance {
    /// Looks after all agreements. Does nothing in a network that is not paid.
    ///
    /// # Errors
    /// [`PayStepError`]. What can't be done for one provider holds no others up, and is no error.
    pub async fn pay(&self) -> Result<Paying, PayStepError> {
        let mut done = Paying::default();
        let Some(payer) = self.network.payer().map(Arc::clone) else { return Ok(done) };
        self.learn_addresses::<PayStepError>().await?;
        let chain = payer.chain();
        let clock = chain.place().clock;
        let (time, epoch) = (chain.time().await?, chain.epoch().await?);
        let moment = Moment {
            epoch,
            elapsed: time.saturating_sub(clock.begin(epoch).0),
            length: u64::from(clock.epoch_seconds),
        };
        let doubts = self.doubts();
        let known = self.ask::<_, PayStepError>(|books| books.agreements()).await?;
        if let Err(error) = payer.note_rates(&rates(&known, &payer), wall_clock()) {
            tracing::warn!(%error, "what rent costs is not noted for those who read");
            done.failed += 1;
        }
        for agreement in &known {
            let provider = agreement.provider;
            let doubts = doubts.get(&provider).copied().unwrap_or(0);
            match self.look_after(&payer, agreement, &moment, doubts, &mut done).await {
                Ok(()) => {}
                Err(LookError::Chain(error @ ChainError::Unreachable(_))) => return Err(error.into()),
                Err(LookError::Books(error)) => return Err(error),
                Err(error) => {
                    tracing::warn!(%provider, %error, "agreement not looked after");
                    done.failed += 1;
                }
            }
        }
        self.sign_what_moved(&payer, &mut done).await?;
        self.raise_lanes(&payer, &mut done).await?;
        self.leave_channels(&payer, time, &mut done).await?;
        Ok(done)
    }

    /// How often providers were found to lie, or signed to have lost something, since this process began.
    fn doubts(&self) -> BTreeMap<PublicKey, usize> {
        let mut doubts = BTreeMap::new();
        for finding in self.network.findings() {
            match finding.verdict {
                Verdict::Liar { .. } | Verdict::Rotten | Verdict::Absent => {
                    *doubts.entry(finding.provider).or_default() += 1;
                }
                Verdict::Suspect | Verdict::Evasive | Verdict::WriterFault => {}
            }
        }
        doubts
    }

    async fn look_after(
        &self,
        payer: &Arc<Payer>,
        agreement: &Agreement,
        moment: &Moment,
        doubts: usize,
        done: &mut Paying,
    ) -> Result<(), LookError> {
        let (provider, chain) = (agreement.provider, payer.chain());
        let Some(id) = agreement.id.map(AgreementId) else { return Ok(()) };
        let terms = Terms::of(agreement);
        let state = chain.agreement(id).await?;
        let Some(state) = state else { return self.let_go(agreement, done).await };
        let wallet = state.provider;
        let proving = chain.proving(wallet).await?;
        let is_stopped = agreement.state == AgreementState::Stopped;
        let posted = terms.as_ref().and_then(Terms::posted);
        let signed = Signed {
            sequence: agreement.sequence,
            from: posted.as_ref().map(|posted| posted.revision.from_epoch),
            is_stopped,
            // What was asked about is not asked again: only new findings are a new doubt.
            is_doubted: doubts > self.asked_about(&provider),
        };
        if is_stopped {
            done.stopped += 1
        } else {
            done.open += 1
        }
        for due in due(moment, &signed, &state, &proving, payer.limits().term_epochs) {
            // A later end would keep it from leaving.
            if due == Due::Renew && chain.provider(wallet).await?.is_some_and(|entry| entry.leaving) {
                continue;
            }
            tracing::debug!(%provider, agreement = %id, ?due, "due");
            match due {
                Due::Advance => drop(chain.order(Order::Advance(wallet)).await?),
                Due::MoveOn => drop(chain.order(Order::MoveOn(vec![id])).await?),
                Due::Bury => self.bury(payer, agreement, id, &state, done).await?,
                Due::Stop => self.stop(payer, agreement, id, wallet, moment).await?,
                Due::Fail => {
                    tracing::warn!(%provider, agreement = %id, "question was not answered, the agreement ends");
                    chain.order(Order::Fail(id)).await?;
                    self.set_state(provider, AgreementState::Stopped).await?;
                }
                Due::Ask => {
                    let _mark = payer.provide(chain.place().question_bond).await?;
                    chain.order(Order::Ask(id)).await?;
                    self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(provider, doubts);
                    done.asked += 1;
                }
                Due::Post => {
                    if let Some(revision) = posted.clone() {
                        chain.order(Order::Revise(vec![revision])).await?;
                        done.posted += 1;
                    }
                }
                Due::AnnounceRelease(spare) => {
                    chain.order(Order::AnnounceRelease(id, spare)).await?;
                    tracing::info!(%provider, agreement = %id, units = %spare, "spare escrow comes back in two epochs");
                    done.announced += 1;
                }
                Due::Release => drop(chain.order(Order::Release(id)).await?),
                Due::Renew => {
                    self.agree(payer, provider, Purpose::Renewal).await?;
                    done.signed += 1;
                }
            }
        }
        Ok(())
    }

    /// Gives notice to a provider that stopped proving, ended the agreement, or was given up by a person. Without proofs there
    /// is none to wait for.
    async fn stop(
        &self,
        payer: &Arc<Payer>,
        agreement: &Agreement,
        id: AgreementId,
        wallet: Address,
        moment: &Moment,
    ) -> Result<(), LookError> {
        let (provider, chain) = (agreement.provider, payer.chain());
        tracing::warn!(%provider, agreement = %id, "provider stopped proving, ended the agreement or was given up: nothing new is placed there");
        // From here on nothing new is placed there, whatever becomes of the transaction.
        self.set_state(provider, AgreementState::Stopped).await?;
        if chain.proving(wallet).await?.epoch < moment.epoch {
            chain.order(Order::Advance(wallet)).await?;
        }
        chain.order(Order::Terminate(id)).await?;
        Ok(())
    }

    /// What a dead set held is lost; what was locked for it comes back.
    async fn bury(
        &self,
        payer: &Arc<Payer>,
        agreement: &Agreement,
        id: AgreementId,
        state: &OnChain,
        done: &mut Paying,
    ) -> Result<(), LookError> {
        let provider = agreement.provider;
        self.set_state(provider, AgreementState::Stopped).await?;
        payer.chain().order(Order::CloseDead(id)).await?;
        done.refunded = done.refunded.saturating_add(state.locked);
        let lost = self.ask::<_, PayStepError>(move |books| books.forget_holdings(provider)).await?;
        tracing::warn!(%provider, agreement = %id, refund = %state.locked, fragments = lost, "provider's set is dead");
        done.closed += 1;
        Ok(())
    }

    /// An agreement that is closed on the chain: its money is back already. With a provider that was given up, what it held
    /// goes to others; with another, the next step makes a new one.
    async fn let_go(&self, agreement: &Agreement, done: &mut Paying) -> Result<(), LookError> {
        let provider = agreement.provider;
        match agreement.state {
            AgreementState::Stopped => {
                // Its row stays, so that it is not taken for new: a person lets it in again.
                let lost = self.ask::<_, PayStepError>(move |books| books.forget_holdings(provider)).await?;
                if lost > 0 {
                    tracing::warn!(%provider, fragments = lost, "provider was given up, its fragments go elsewhere");
                    done.closed += 1;
                }
            }
            AgreementState::Open => {
                tracing::info!(%provider, "agreement is closed");
                self.ask::<_, PayStepError>(move |books| books.drop_agreement(provider)).await?;
                done.closed += 1;
            }
        }
        Ok(())
    }

    fn asked_about(&self, provider: &PublicKey) -> usize {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.get(provider).copied().unwrap_or(0)
    }

    async fn set_state(&self, provider: PublicKey, state: AgreementState) -> Result<(), PayStepError> {
        self.ask::<_, PayStepError>(move |books| books.set_agreement_state(provider, state)).await
    }

    async fn agree(&self, payer: &Payer, provider: PublicKey, purpose: Purpose) -> Result<(), LookError> {
        let agreeing = Agreeing { payer, books: &self.books, network: &self.network, provider };
        match agreeing.run(purpose).await {
            Ok(()) => Ok(()),
            // By its own word it does not have them: others must.
            Err(AgreeError::Refused { reason: RefusalReason::NotHeld, fragments, .. })
                if !fragments.is_empty() =>
            {
                tracing::warn!(%provider, fragments = fragments.len(), "provider does not have fragments");
                self.ask::<_, PayStepError>(move |books| books.lose_fragments(provider, fragments)).await?;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Has providers sign for what was completed, moved and given up since they last did.
    async fn sign_what_moved(&self, payer: &Arc<Payer>, done: &mut Paying) -> Result<(), PayStepError> {
        // What was placed until now is signed for, or refused; what comes meanwhile counts for the next time.
        *self.unsigned_rent.lock().unwrap_or_else(PoisonError::into_inner) = Amount::ZERO;
        let (providers, known) =
            self.ask::<_, PayStepError>(|books| Ok((books.unagreed(None)?, books.agreements()?))).await?;
        let stopped: BTreeSet<PublicKey> = known
            .iter()
            .filter(|agreement| agreement.state == AgreementState::Stopped)
            .map(|agreement| agreement.provider)
            .collect();
        // What a process that died has asked waits for its answer.
        let begun = known.iter().filter(|agreement| agreement.pending.is_some());
        let providers: BTreeSet<PublicKey> =
            providers.into_iter().chain(begun.map(|agreement| agreement.provider)).collect();
        for provider in providers.into_iter().filter(|provider| !stopped.contains(provider)) {
            match self.agree(payer, provider, Purpose::Upkeep).await {
                Ok(()) => done.signed += 1,
                Err(LookError::Chain(error @ ChainError::Unreachable(_))) => return Err(error.into()),
                Err(LookError::Books(error)) => return Err(error),
                Err(error) => {
                    tracing::warn!(%provider, %error, "provider did not sign for what it holds");
                    done.failed += 1;
                }
            }
        }
        Ok(())
    }
}

/// Why something could not be done for one provider.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    #[error(transparent)]
    Chain(ChainError),
    #[error(transparent)]
    Books(PayStepError),
    #[error(transparent)]
    Agree(AgreeError),
}

impl From<ChainError> for LookError {
    fn from(error: ChainError) -> LookError {
        LookError::Chain(error)
    }
}

impl From<PayStepError> for LookError {
    fn from(error: PayStepError) -> LookError {
        LookError::Books(error)
    }
}

impl From<AgreeError> for LookError {
    fn from(error: AgreeError) -> LookError {
        match error {
            AgreeError::Chain(error) => LookError::Chain(error),
            AgreeError::Catalog(error) => LookError::Books(error.into()),
            AgreeError::Stopped => LookError::Books(StepError::Stopped.into()),
            error => LookError::Agree(error),
        }
    }
}

impl From<FundsError> for LookError {
    fn from(error: FundsError) -> LookError {
        AgreeError::from(error).into()
    }
}

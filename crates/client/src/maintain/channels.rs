//! Keeps channels filled from which somebody reads, and takes money back from those that nobody needs any more.

use super::pay::{LookError, PayStepError, Paying};
use super::{Maintenance, StepError};
use crate::network::wall_clock;
use crate::pay::agree::AgreeError;
use crate::pay::budget::lane_cap;
use crate::pay::chain::{ChainError, ChannelState, Order};
use crate::pay::lanes;
use crate::pay::payer::{Paid, Payer};
use crate::pay::upkeep::{ChannelDue, IDLE_SECONDS, leave};
use seedbank_agreement::{Address, Amount};
use seedbank_catalog::Books;
use seedbank_catalog::records::AgreementState;
use seedbank_formats::PublicKey;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Whether nobody has read from a provider for long.
fn is_idle(counter: &lanes::Counter) -> bool {
    counter.used.saturating_add(IDLE_SECONDS) < wall_clock().0
}

/// The lanes of this home at one payee.
struct Channel {
    provider: PublicKey,
    signers: Vec<Address>,
    is_idle: bool,
}

impl Maintenance {
    /// Raises lanes that have used half of what they may promise, so that no reader waits for a transaction.
    pub(super) async fn raise_lanes(
        &self,
        payer: &Arc<Payer>,
        done: &mut Paying,
    ) -> Result<(), PayStepError> {
        let dir = payer.dir().to_owned();
        let promised = tokio::task::spawn_blocking(move || lanes::promised(&dir)).await;
        let promised = match promised.map_err(|_ended| StepError::Stopped)? {
            Ok(promised) => promised,
            Err(error) => {
                tracing::warn!(%error, "lanes not looked at");
                done.failed += 1;
                return Ok(());
            }
        };
        for (number, payees) in promised {
            let Some(key) = (payer.keys().lanes)(number) else { continue };
            for (payee, counter) in payees {
                let Ok(payee) = payee.parse::<Address>() else { continue };
                match self.raise_lane(payer, key.address(), payee, counter).await {
                    Ok(true) => done.raised += 1,
                    Ok(false) => {}
                    Err(LookError::Chain(error @ ChainError::Unreachable(_))) => return Err(error.into()),
                    Err(error) => {
                        tracing::warn!(provider = %counter.provider, lane = number, %error, "lane not raised");
                        done.failed += 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes money back from channels with providers that hold nothing of ours and from which nobody reads any more: announces
    /// it, and takes it when its time is over. What a person announced is left to the person.
    pub(super) async fn leave_channels(
        &self,
        payer: &Arc<Payer>,
        time: u64,
        done: &mut Paying,
    ) -> Result<(), PayStepError> {
        let holding: BTreeSet<PublicKey> = self
            .ask::<_, PayStepError>(|books| books.agreements())
            .await?
            .into_iter()
            .filter(|agreement| agreement.fragments > 0 && agreement.state == AgreementState::Open)
            .map(|agreement| agreement.provider)
            .collect();
        let dir = payer.dir().to_owned();
        let promised = tokio::task::spawn_blocking(move || lanes::promised(&dir)).await;
        let Ok(promised) = promised.map_err(|_ended| StepError::Stopped)? else {
            // Whoever raises lanes has told why.
            return Ok(());
        };
        // A lane without a counter may have promised something before this home was recovered.
        let highest = promised.iter().map(|(number, _)| *number).max().unwrap_or(0);
        let signers: Vec<Address> = (0..=highest).filter_map(|number| payer.lane(number)).collect();
        let mut channels: BTreeMap<Address, Channel> = BTreeMap::new();
        for (payee, counter) in promised.into_iter().flat_map(|(_, payees)| payees) {
            let Ok(payee) = payee.parse::<Address>() else { continue };
            let new = || Channel { provider: counter.provider, signers: signers.clone(), is_idle: true };
            channels.entry(payee).or_insert_with(new).is_idle &= is_idle(&counter);
        }
        for (payee, channel) in channels {
            if !channel.is_idle || holding.contains(&channel.provider) {
                continue;
            }
            match self.leave_channel(payer, payee, &channel, time, done).await {
                Ok(()) => {}
                Err(LookError::Chain(error @ ChainError::Unreachable(_))) => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(provider = %channel.provider, %error, "channel not left");
                    done.failed += 1;
                }
            }
        }
        Ok(())
    }

    async fn leave_channel(
        &self,
        payer: &Payer,
        payee: Address,
        channel: &Channel,
        time: u64,
        done: &mut Paying,
    ) -> Result<(), LookError> {
        let (chain, dir, provider) = (payer.chain(), payer.dir(), channel.provider);
        let (mut state, mut covered) = (ChannelState::default(), Amount::ZERO);
        for signer in &channel.signers {
            state = chain.channel(payee, *signer).await?;
            if state.deposit == Amount::ZERO {
                lanes::forget_leaving(dir, &payee).map_err(AgreeError::from)?;
                return Ok(());
            }
            let left = state.cap.saturating_sub(state.redeemed);
            covered = covered.saturating_add(left);
        }
        let is_ours = lanes::is_leaving(dir, &payee);
        match leave(time, &state, covered) {
            ChannelDue::Announce(sum) => {
                lanes::note_leaving(dir, &payee).map_err(AgreeError::from)?;
                chain.order(Order::RequestExit(payee, sum)).await?;
                tracing::info!(%provider, %payee, units = %sum, "nobody reads there any more, the channel's money comes back");
                done.announced += 1;
            }
            ChannelDue::Take if is_ours => {
                let (signers, to) = (channel.signers.clone(), payer.wallet());
                chain.order(Order::Exit { payee, signers, to }).await?;
                lanes::forget_leaving(dir, &payee).map_err(AgreeError::from)?;
                let sum = state.leaving.min(state.deposit);
                tracing::info!(%provider, %payee, units = %sum, "the channel's money is back in the wallet");
                done.returned = done.returned.saturating_add(sum);
            }
            ChannelDue::Take | ChannelDue::Nothing => {}
        }
        Ok(())
    }

    async fn raise_lane(
        &self,
        payer: &Payer,
        signer: Address,
        payee: Address,
        counter: lanes::Counter,
    ) -> Result<bool, LookError> {
        if is_idle(&counter) {
            // Whoever reads there again raises it.
            return Ok(false);
        }
        let Paid::By(asks) =
            payer.payee_for_reads(&self.network, &counter.provider).await.map_err(AgreeError::from)?
        else {
            return Ok(false);
        };
        let chain = payer.chain();
        let state = chain.channel(payee, signer).await?;
        let cap = lane_cap(counter.cumulative, asks.prices.egress_per_gib, payer.limits())
            .map_err(AgreeError::from)?;
        let left = state.cap.saturating_sub(counter.cumulative);
        let full = cap.saturating_sub(counter.cumulative);
        if left.0 >= full.0 / 2 || state.exit_at.is_some() {
            return Ok(false);
        }
        let more = cap.saturating_sub(state.cap);
        let spending = payer.spent(Amount::ZERO, wall_clock()).map_err(AgreeError::from)?;
        if payer.limits().allow(&spending, more).is_err() {
            // A reader gets what is left of the budget in smaller steps, or is told.
            return Ok(false);
        }
        payer.raise(payee, signer, cap).await?;
        Ok(true)
    }
}

//! What the operator should know: how things stand, what they cost, and what is running out.

use super::{Keeper, RoundError, whole};
use crate::money::epochs::{Gas, stands_still};
use crate::money::gas::{Wei, Work, runs_low};
use crate::money::report::MoneyStanding;
use crate::service::now;
use seedbank_agreement::{Amount, Epoch};
use seedbank_settlement::{Head, Mined, Outcome, SendError};
use tracing::error;

/// How many epochs are looked back for what one costs.
const EPOCHS_COMPARED: u32 = 8;

/// The transaction that got into a block, whether it did what it should there or not.
pub(super) fn mined(sent: Result<&Mined, &SendError>) -> Option<Mined> {
    match sent {
        Ok(mined) | Err(SendError::Reverted { mined, .. }) => Some(*mined),
        Err(_) => None,
    }
}

impl Keeper {
    /// Writes down what a transaction cost, and watches its block from now on. Where that can't be written, what is due goes on: a full disk
    /// must not cost an epoch.
    pub(super) async fn note_cost(&mut self, work: Work, mined: Option<Mined>) {
        let Some(mined) = mined else { return };
        self.money.note_gas_price(mined.gas_price);
        self.anchor.saw(mined.block, mined.block_hash);
        let (epoch, gas) = (self.epoch, mined.gas_used);
        let wei = Wei(u128::from(gas).saturating_mul(mined.gas_price));
        if let Err(error) =
            self.money.blocking(move |money| money.books().add_cost(epoch, work, gas, wei)).await
        {
            error!(why = whole(&error), work = work.as_str(), gas, "a transaction's cost is not written");
        }
    }

    /// Does so for a transaction that was just sent, whatever became of it, and hands its outcome on.
    pub(super) async fn paid(
        &mut self,
        work: Work,
        sent: Result<Mined, SendError>,
    ) -> Result<Mined, SendError> {
        self.note_cost(work, mined(sent.as_ref())).await;
        sent
    }

    pub(super) fn gas(&self) -> Gas {
        if self.money.gas_price() == 0 { Gas::Free } else { Gas::Costs }
    }

    /// Tells of a newest block that is old.
    pub(super) fn note_age(&self, head: &Head) {
        let late = stands_still(head.time, now(), self.epoch_seconds());
        self.money.health.age(late.map(|late| {
            format!(
                "the newest block is {late} s old: the chain stands still, its endpoint shows old blocks, or a clock is wrong"
            )
        }));
    }

    /// Writes down how things stand, for `status`.
    pub(super) async fn note_standing(&self, epoch: Epoch) -> Result<(), RoundError> {
        let (chain, own, sender) = (self.wallet.chain(), self.own(), self.wallet.address());
        let (set, free, earned, stake, outcome, coin) = tokio::try_join!(
            chain.market().get_set(own),
            chain.market().free(own),
            chain.channels().earned(own),
            chain.registry().stake_of(own),
            chain.market().outcome(own, epoch),
            chain.coin(sender),
        )?;
        let since = Epoch(epoch.0.saturating_sub(EPOCHS_COMPARED));
        let an_epoch = self.money.blocking(move |money| money.books().dearest_epoch(since)).await?;
        self.money.health.coin(runs_low(Wei(coin), an_epoch).map(|epochs| {
            format!("{sender} has coin for the gas of {epochs} more epochs like the dearest of the last ones: send it some")
        }));
        let parameters = &chain.deployment().parameters;
        let standing = MoneyStanding {
            time: now(),
            epoch,
            proven: outcome == Outcome::Proven,
            agreements: set.map_or(0, |set| set.agreements),
            rate: set.map_or(Amount::ZERO, |set| set.rate),
            dead: set.is_some_and(|set| set.dead_at.is_some()),
            stake,
            free,
            vouchers_cashed: earned,
            readers_owe: self.money.owed_in_all(),
            token: parameters.token_symbol.clone(),
            token_decimals: parameters.token_decimals,
            sender,
            coin: Wei(coin),
            gas_price: Wei(self.money.gas_price()),
            trouble: self.money.health.trouble(),
        };
        self.metrics.money.set(&standing);
        let text = serde_json::to_string(&standing).expect("a standing has text keys");
        self.money.blocking(move |money| money.books().set_meta("standing", &text)).await?;
        Ok(())
    }
}

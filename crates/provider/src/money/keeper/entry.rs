//! Being in the registry, before anything else is done.

use super::{CONNECT_PAUSE, Keeper, whole};
use crate::money::connect::{ChainError, EntryTrouble, entry_trouble, profile, register};
use crate::money::gas::Work;
use tracing::{error, info, warn};

/// Whether the provider may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is in the registry, if not with all that the configuration says.
    Entered,
    /// Nobody can find it, or it may not act there.
    Outside,
}

impl Keeper {
    /// Enters the registry, or waits until the cold wallet did; and gives up claims that no set needs.
    pub(super) async fn start(&mut self) {
        while let Standing::Outside = self.be_entered().await {
            tokio::time::sleep(CONNECT_PAUSE).await;
        }
        if let Err(error) = self.money.blocking(|money| money.drop_stale_claims()).await {
            error!(why = whole(&error), "claims that no set needs are kept until the next start");
        }
    }

    /// Tries to have the registry say what the configuration says.
    pub(super) async fn be_entered(&mut self) -> Standing {
        let entered =
            if self.wallet.address() == self.own() { self.enter().await } else { self.is_entered().await };
        let Err(error) = entered else {
            self.money.health.entry(None);
            return Standing::Entered;
        };
        let why = whole(&error);
        let news = self.money.health.entry(Some(why.clone()));
        if news {
            warn!(why, "not in the registry as configured");
        }
        match error {
            // What is staked covers some, and quotes say today's prices; the rest may come later.
            ChainError::Tokens { .. } | ChainError::Entry(EntryTrouble::Old | EntryTrouble::Stake { .. }) => {
                Standing::Entered
            }
            ChainError::Entry(
                EntryTrouble::Absent | EntryTrouble::Identity | EntryTrouble::Operator { .. },
            )
            | ChainError::Read(_)
            | ChainError::Send(_)
            | ChainError::Books(_) => Standing::Outside,
        }
    }

    /// With the wallet's own key.
    async fn enter(&mut self) -> Result<(), ChainError> {
        let profile = profile(&self.entry, &self.money.prices);
        let mut sent = Vec::new();
        let (wallet, money) = (&self.wallet, &self.money);
        let entered = register(wallet, &money.identity, &profile, &money.config, None, &mut sent).await;
        for mined in sent {
            self.note_cost(Work::Register, Some(mined)).await;
        }
        entered
    }

    /// With an operator's key: only the wallet's changes the entry.
    async fn is_entered(&self) -> Result<(), ChainError> {
        let chain = self.wallet.chain();
        let entry = chain.registry().get(self.own()).await?;
        let profile = profile(&self.entry, &self.money.prices);
        let identity = self.money.identity.public();
        let is_bound = entry.as_ref().is_some_and(|entry| entry.identity(chain) == Some(identity));
        match entry_trouble(
            entry.as_ref(),
            is_bound,
            self.wallet.address(),
            &profile,
            self.money.config.stake,
        ) {
            Some(trouble) => Err(ChainError::Entry(trouble)),
            None => {
                info!(wallet = %self.own(), operator = %self.wallet.address(), "the registry names this operator");
                Ok(())
            }
        }
    }
}

//! Where the seeds of epochs come from: whichever beacon the deployment has.

use crate::abi::beacon::EmbeddedBeacon as Abi;
use crate::chain::{Chain, ReadError};
use crate::deployment::Deployment;
use crate::wallet::{Mined, SendError, Wallet};
use alloy_sol_types::SolCall;
use seedbank_agreement::Epoch;

/// Questions to the beacon. See [`Chain::randomness`].
#[derive(Clone, Copy)]
pub struct RandomnessReads<'a>(&'a Chain);

/// Calls of the beacon. See [`Wallet::randomness`].
#[derive(Clone, Copy)]
pub struct RandomnessCalls<'a>(&'a Wallet);

impl Deployment {
    /// The input of the call of [`Deployment::randomness`] that seals the current epoch's seed.
    #[must_use]
    pub fn seal_input(&self) -> Vec<u8> {
        Abi::sealCall {}.abi_encode()
    }
}

impl Chain {
    /// Questions to the deployment's beacon.
    #[must_use]
    pub fn randomness(&self) -> RandomnessReads<'_> {
        RandomnessReads(self)
    }
}

impl Wallet {
    /// Calls of the deployment's beacon.
    #[must_use]
    pub fn randomness(&self) -> RandomnessCalls<'_> {
        RandomnessCalls(self)
    }
}

impl RandomnessReads<'_> {
    /// An epoch's seed, if it has one.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn seed(self, epoch: Epoch) -> Result<Option<[u8; 32]>, ReadError> {
        let seed = self.read(Abi::seedCall { epoch: epoch.0 }).await?;
        Ok((!seed.is_zero()).then_some(seed.0))
    }

    /// Whether an epoch that is over counts.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn counts(self, epoch: Epoch) -> Result<bool, ReadError> {
        self.read(Abi::countsCall { epoch: epoch.0 }).await
    }

    async fn read<C: SolCall>(self, call: C) -> Result<C::Return, ReadError> {
        self.0.read(self.0.deployment().randomness, call).await
    }
}

impl RandomnessCalls<'_> {
    /// Seals the current epoch's seed if that can be done now. Anyone may, and it does nothing the second time; a beacon of two steps needs it
    /// twice, some blocks apart.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn seal(self) -> Result<Mined, SendError> {
        self.0.send(self.0.chain().deployment().randomness, Abi::sealCall {}).await
    }
}

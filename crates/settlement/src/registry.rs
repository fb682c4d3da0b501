//! `ProviderRegistry`: who the providers are, how they are dialled, and their stake.

use crate::abi::registry::ProviderRegistry as Abi;
use crate::chain::{Chain, ReadError, addresses};
use crate::convert::{from_abi, to_abi, word};
use crate::wallet::{Mined, SendError, Wallet};
use alloy_primitives::U256;
use seedbank_agreement::{Address, Amount, Binding};
use seedbank_formats::{PublicKey, Signature};

/// A provider's entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderEntry {
    /// Its wallet.
    pub provider: Address,
    /// The key that may prove, activate and sign revisions, but not withdraw.
    pub operator: Address,
    /// What it loses if it breaks its word.
    pub stake: Amount,
    /// It takes no new agreements.
    pub leaving: bool,
    /// The identity by which it claims to be dialled. Believed only by [`ProviderEntry::identity`].
    pub claimed_identity: PublicKey,
    /// That identity's word for it; None if it has the wrong length.
    pub identity_signature: Option<Signature>,
    /// Addresses, region, prices: JSON of the provider's own making.
    pub profile: String,
}

impl ProviderEntry {
    /// The identity, if it gave its word for this wallet in this registry. None: somebody squats on the key.
    #[must_use]
    pub fn identity(&self, chain: &Chain) -> Option<PublicKey> {
        let signature = self.identity_signature.as_ref()?;
        chain.binding(self.provider).check(&self.claimed_identity, signature).ok()?;
        Some(self.claimed_identity)
    }
}

/// Questions to the registry. See [`Chain::registry`].
#[derive(Clone, Copy)]
pub struct RegistryReads<'a>(&'a Chain);

/// Calls of the registry. See [`Wallet::registry`].
#[derive(Clone, Copy)]
pub struct RegistryCalls<'a>(&'a Wallet);

impl Chain {
    /// Questions to the registry of providers.
    #[must_use]
    pub fn registry(&self) -> RegistryReads<'_> {
        RegistryReads(self)
    }

    /// What an identity signs to be a wallet's in this registry.
    #[must_use]
    pub fn binding(&self, address: Address) -> Binding {
        let deployment = self.deployment();
        Binding { chain_id: deployment.chain_id, contract: deployment.registry, address }
    }
}

impl Wallet {
    /// Calls of the registry of providers.
    #[must_use]
    pub fn registry(&self) -> RegistryCalls<'_> {
        RegistryCalls(self)
    }
}

impl RegistryReads<'_> {
    /// A provider's entry; None if nobody registered under this address.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn get(self, provider: Address) -> Result<Option<ProviderEntry>, ReadError> {
        let found = self.read(Abi::getCall { provider: to_abi(provider) }).await?;
        if found.endpointKey.is_zero() {
            return Ok(None);
        }
        let identity_signature = <[u8; 64]>::try_from(found.endpointSignature.as_ref()).ok().map(Signature);
        Ok(Some(ProviderEntry {
            provider,
            operator: from_abi(found.operator),
            stake: Amount(found.stake),
            leaving: found.leaving,
            claimed_identity: PublicKey(found.endpointKey.0),
            identity_signature,
            profile: found.profile,
        }))
    }

    /// What a provider has at stake.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn stake_of(self, provider: Address) -> Result<Amount, ReadError> {
        self.read(Abi::stakeOfCall { provider: to_abi(provider) }).await.map(Amount)
    }

    /// Whether `key` may prove and sign revisions for a provider.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn acts(self, key: Address, provider: Address) -> Result<bool, ReadError> {
        self.read(Abi::actsCall { key: to_abi(key), provider: to_abi(provider) }).await
    }

    /// How many ever registered.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn count(self) -> Result<u64, ReadError> {
        self.read(Abi::countCall {}).await.map(|count: U256| count.saturating_to())
    }

    /// At most `size` providers in the order of their registration, after the first `from`.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn page(self, from: u64, size: u64) -> Result<Vec<Address>, ReadError> {
        let call = Abi::pageCall { from: U256::from(from), size: U256::from(size) };
        self.read(call).await.map(addresses)
    }

    async fn read<C: alloy_sol_types::SolCall>(self, call: C) -> Result<C::Return, ReadError> {
        self.0.read(self.0.deployment().registry, call).await
    }
}

impl RegistryCalls<'_> {
    /// Makes or changes the wallet's entry. `word` is the identity's, for [`Chain::binding`] of the wallet.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn register(
        self,
        identity: PublicKey,
        word_: &Signature,
        profile: &str,
    ) -> Result<Mined, SendError> {
        self.send(Abi::registerCall {
            endpointKey: word(identity.0),
            endpointSignature: word_.0.to_vec().into(),
            profile: profile.to_owned(),
        })
        .await
    }

    /// Names the wallet's hot key.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn set_operator(self, operator: Address) -> Result<Mined, SendError> {
        self.send(Abi::setOperatorCall { operator: to_abi(operator) }).await
    }

    /// Moves some of the wallet's free balance in the market to a provider's stake.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn add_stake(self, provider: Address, sum: Amount) -> Result<Mined, SendError> {
        self.send_once(Abi::addStakeCall { provider: to_abi(provider), amount: sum.0 }).await
    }

    /// Takes no new agreements. Registering again takes it back.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn leave(self) -> Result<Mined, SendError> {
        self.send(Abi::leaveCall {}).await
    }

    /// Moves stake that no agreement needs to an account's free balance in the market.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn withdraw_stake(self, sum: Amount, to: Address) -> Result<Mined, SendError> {
        self.send_once(Abi::withdrawStakeCall { amount: sum.0, to: to_abi(to) }).await
    }

    async fn send<C: alloy_sol_types::SolCall>(self, call: C) -> Result<Mined, SendError> {
        self.0.send(self.0.chain().deployment().registry, call).await
    }

    async fn send_once<C: alloy_sol_types::SolCall>(self, call: C) -> Result<Mined, SendError> {
        self.0.send_once(self.0.chain().deployment().registry, call).await
    }
}

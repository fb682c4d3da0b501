//! Finding the contracts, and entering the registry with the stake that the configuration says.

use crate::chain_config::ChainConfig;
use crate::money::Entry;
use seedbank_agreement::{Address, Amount, WalletKey};
use seedbank_formats::keys::SigningKey;
use seedbank_protocol::messages::Prices;
use seedbank_settlement::{
    Chain, ChainConfig as Endpoints, ConnectError, EndpointPolicy, EndpointUrl, EndpointUrlError, Mined,
    ReadError, SendError, SendPolicy, Wallet,
};
use serde_json::json;

/// Why there is no connection to the contracts.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Correct `chain.rpc`.
    #[error("chain.rpc: {url:?} is no endpoint")]
    Url {
        /// What was configured.
        url: String,
        /// Why not.
        #[source]
        source: EndpointUrlError,
    },
    /// Try again later, or correct `chain.rpc` and `chain.directory`.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// Why the chain did not do or say something.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// It says nothing.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It does not do it.
    #[error(transparent)]
    Send(#[from] SendError),
    /// Send tokens to the wallet.
    #[error("the wallet {wallet} has {has} units of the token, and {needed} more are to be staked")]
    Tokens {
        /// The wallet.
        wallet: Address,
        /// What it has.
        has: Amount,
        /// What is needed.
        needed: Amount,
    },
}

/// Connects to the contracts with a wallet's key.
pub(crate) async fn connect(config: &ChainConfig, key: &WalletKey) -> Result<Wallet, LinkError> {
    let endpoints = config
        .rpc
        .iter()
        .map(|url| url.parse::<EndpointUrl>().map_err(|source| LinkError::Url { url: url.clone(), source }));
    let endpoints = Endpoints {
        endpoints: endpoints.collect::<Result<_, _>>()?,
        directory: config.directory,
        chain_id: config.chain_id,
        policy: EndpointPolicy::default(),
    };
    let chain = Chain::connect(&endpoints).await?;
    Ok(Wallet::start(chain, key.clone(), policy(config)))
}

fn policy(config: &ChainConfig) -> SendPolicy {
    let local = |url: &String| {
        ["http://127.", "http://localhost", "http://[::1]"].iter().any(|start| url.starts_with(start))
    };
    let base = if config.rpc.iter().all(local) { SendPolicy::local() } else { SendPolicy::public() };
    SendPolicy { gas_price_max: config.gas_price_max, confirmations: config.confirmations, ..base }
}

/// What was done to be in the registry as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Registered {
    /// Nothing: it was.
    Unchanged,
    /// A transaction.
    By(Mined),
}

/// The registry's profile: where clients connect, and what they compare.
pub(crate) fn profile(entry: &Entry, prices: &Prices) -> String {
    json!({
        "address": entry.address,
        "operator": entry.operator,
        "region": entry.region,
        "rent_per_gib_month": prices.storage_per_gib_month.to_string(),
        "egress_per_gib": prices.retrieval_per_gib.to_string(),
    })
    .to_string()
}

/// Sees to it that the registry has this provider with its dial key, its profile and its stake. One that is leaving stays so.
pub(crate) async fn register(
    wallet: &Wallet,
    identity: &SigningKey,
    profile: &str,
    config: &ChainConfig,
) -> Result<Registered, ChainError> {
    let (chain, own) = (wallet.chain(), wallet.address());
    let entry = chain.registry().get(own).await?;
    let fits = entry.as_ref().is_some_and(|entry| {
        entry.leaving || (entry.identity(chain) == Some(identity.public()) && entry.profile == profile)
    });
    let mut done = Registered::Unchanged;
    if !fits {
        let word = chain.binding(own).sign(identity);
        let mined = wallet.registry().register(identity.public(), &word, profile).await?;
        tracing::info!(wallet = %own, "registered");
        done = Registered::By(mined);
    }
    let (stake, leaving) = entry.map_or((Amount::ZERO, false), |entry| (entry.stake, entry.leaving));
    let missing = config.stake.saturating_sub(stake);
    if missing > Amount::ZERO && !leaving {
        done = Registered::By(add_stake(wallet, missing, config).await?);
        tracing::info!(wallet = %own, %missing, "staked");
    }
    Ok(done)
}

/// Stakes from the free balance in the market, filled up from the wallet's tokens.
async fn add_stake(wallet: &Wallet, sum: Amount, config: &ChainConfig) -> Result<Mined, ChainError> {
    let (chain, own) = (wallet.chain(), wallet.address());
    let free = chain.market().free(own).await?;
    let to_deposit = sum.saturating_sub(free);
    if to_deposit > Amount::ZERO {
        let mut has = chain.token().balance_of(own).await?;
        if has < to_deposit && config.faucet {
            let minted = to_deposit.saturating_sub(has);
            wallet.token().mint(own, minted).await?;
            tracing::info!(%minted, "took test tokens from the faucet");
            has = to_deposit;
        }
        if has < to_deposit {
            return Err(ChainError::Tokens { wallet: own, has, needed: to_deposit });
        }
        wallet.token().allow(chain.deployment().market, to_deposit).await?;
        wallet.market().deposit(own, to_deposit).await?;
    }
    Ok(wallet.registry().add_stake(own, sum).await?)
}

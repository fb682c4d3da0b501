//! Finding the contracts, and entering the registry with the stake that the configuration says.

use crate::chain_config::ChainConfig;
use crate::money::Entry;
use crate::money::books::BooksError;
use crate::money::epochs::patience;
use seedbank_agreement::{Address, Amount, WalletKey};
use seedbank_formats::keys::SigningKey;
use seedbank_protocol::messages::Prices;
use seedbank_settlement::{
    Chain, ChainConfig as Endpoints, ConnectError, EndpointPolicy, EndpointUrl, EndpointUrlError, Mined,
    ProviderEntry, ReadError, SendError, SendPolicy, Wallet,
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
    /// Register with the wallet's key.
    #[error(transparent)]
    Entry(#[from] EntryTrouble),
    /// See there.
    #[error(transparent)]
    Books(#[from] BooksError),
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

/// What the registry should say before an operator's key can be used. The wallet's own key puts it right, with
/// `seedbank provider register DIR --wallet-key FILE`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryTrouble {
    /// Register.
    #[error("the wallet is in no entry of the registry: `provider register` with the wallet's key makes one")]
    Absent,
    /// Register again, from this folder.
    #[error(
        "the registry's entry has another dial key: `provider register` with the wallet's key changes it"
    )]
    Identity,
    /// Register again.
    #[error(
        "the registry names {named} as operator, not {own}: `provider register` with the wallet's key changes it"
    )]
    Operator {
        /// Who may act.
        named: Address,
        /// Who would like to.
        own: Address,
    },
    /// Register again, so that clients see what they are asked for.
    #[error(
        "the registry says another address or other prices: `provider register` with the wallet's key changes it"
    )]
    Old,
    /// Register again, with tokens in the wallet.
    #[error(
        "{missing} units of the configured stake are missing: `provider register` with the wallet's key adds them"
    )]
    Stake {
        /// How many.
        missing: Amount,
    },
}

/// What is wrong with an entry for an operator with this key, if anything is. `is_bound`: the dial key of the entry is this provider's, and has
/// signed for it.
pub(crate) fn entry_trouble(
    entry: Option<&ProviderEntry>,
    is_bound: bool,
    own: Address,
    profile: &str,
    stake: Amount,
) -> Option<EntryTrouble> {
    let Some(entry) = entry else { return Some(EntryTrouble::Absent) };
    let missing = stake.saturating_sub(entry.stake);
    if !is_bound {
        Some(EntryTrouble::Identity)
    } else if entry.operator != own {
        Some(EntryTrouble::Operator { named: entry.operator, own })
    } else if entry.leaving {
        // Nothing is to be changed any more.
        None
    } else if entry.profile != profile {
        Some(EntryTrouble::Old)
    } else if missing > Amount::ZERO {
        Some(EntryTrouble::Stake { missing })
    } else {
        None
    }
}

/// Connects to the contracts with the key that sends.
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
    let policy = policy(config);
    let patience = policy.patience.min(patience(chain.deployment().parameters.epoch_seconds));
    Ok(Wallet::start(chain, key.clone(), SendPolicy { patience, ..policy }))
}

fn policy(config: &ChainConfig) -> SendPolicy {
    let local = |url: &String| {
        ["http://127.", "http://localhost", "http://[::1]"].iter().any(|start| url.starts_with(start))
    };
    let base = if config.rpc.iter().all(local) { SendPolicy::local() } else { SendPolicy::public() };
    SendPolicy { gas_price_max: config.gas_price_max, confirmations: config.confirmations, ..base }
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

/// Sees to it that the registry has this provider with its dial key, its profile, its operator if it has one, and its stake. One that
/// is leaving stays so. `sent` gets the transactions that this took, also if it fails.
pub(crate) async fn register(
    wallet: &Wallet,
    identity: &SigningKey,
    profile: &str,
    config: &ChainConfig,
    operator: Option<Address>,
    sent: &mut Vec<Mined>,
) -> Result<(), ChainError> {
    let (chain, own) = (wallet.chain(), wallet.address());
    let entry = chain.registry().get(own).await?;
    let fits = entry.as_ref().is_some_and(|entry| {
        entry.leaving || (entry.identity(chain) == Some(identity.public()) && entry.profile == profile)
    });
    if !fits {
        let word = chain.binding(own).sign(identity);
        sent.push(wallet.registry().register(identity.public(), &word, profile).await?);
        tracing::info!(wallet = %own, "registered");
    }
    let operator = operator.unwrap_or(own);
    if entry.as_ref().map_or(own, |entry| entry.operator) != operator {
        sent.push(wallet.registry().set_operator(operator).await?);
        tracing::info!(wallet = %own, %operator, "operator named");
    }
    let (stake, leaving) = entry.map_or((Amount::ZERO, false), |entry| (entry.stake, entry.leaving));
    let missing = config.stake.saturating_sub(stake);
    if missing > Amount::ZERO && !leaving {
        add_stake(wallet, missing, config, sent).await?;
        tracing::info!(wallet = %own, %missing, "staked");
    }
    Ok(())
}

/// Stakes from the free balance in the market, filled up from the wallet's tokens.
async fn add_stake(
    wallet: &Wallet,
    sum: Amount,
    config: &ChainConfig,
    sent: &mut Vec<Mined>,
) -> Result<(), ChainError> {
    let (chain, own) = (wallet.chain(), wallet.address());
    let free = chain.market().free(own).await?;
    let to_deposit = sum.saturating_sub(free);
    if to_deposit > Amount::ZERO {
        let mut has = chain.token().balance_of(own).await?;
        if has < to_deposit && config.faucet {
            let minted = to_deposit.saturating_sub(has);
            sent.push(wallet.token().mint(own, minted).await?);
            tracing::info!(%minted, "took test tokens from the faucet");
            has = to_deposit;
        }
        if has < to_deposit {
            return Err(ChainError::Tokens { wallet: own, has, needed: to_deposit });
        }
        wallet.token().allow(chain.deployment().market, to_deposit).await?;
        sent.push(wallet.market().deposit(own, to_deposit).await?);
    }
    sent.push(wallet.registry().add_stake(own, sum).await?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{EntryTrouble, entry_trouble};
    use seedbank_agreement::{Address, Amount};
    use seedbank_formats::PublicKey;
    use seedbank_settlement::ProviderEntry;

    const OWN: Address = Address([1; 20]);

    #[test]
    fn operator_begins_once_the_wallet_has_named_it_for_this_folder() {
        let entry = ProviderEntry {
            provider: Address([2; 20]),
            operator: OWN,
            stake: Amount(5),
            leaving: false,
            claimed_identity: PublicKey([3; 32]),
            identity_signature: None,
            profile: "p".to_owned(),
        };
        let trouble = |entry: &ProviderEntry, bound| entry_trouble(Some(entry), bound, OWN, "p", Amount(5));
        assert_eq!(entry_trouble(None, false, OWN, "p", Amount(5)), Some(EntryTrouble::Absent));
        assert_eq!(trouble(&entry, true), None);
        assert_eq!(trouble(&entry, false), Some(EntryTrouble::Identity));
        let named = Address([9; 20]);
        let other = ProviderEntry { operator: named, ..entry.clone() };
        assert_eq!(trouble(&other, true), Some(EntryTrouble::Operator { named, own: OWN }));
        let old = ProviderEntry { profile: "q".to_owned(), ..entry.clone() };
        assert_eq!(trouble(&old, true), Some(EntryTrouble::Old));
        let poor = ProviderEntry { stake: Amount(3), ..entry };
        assert_eq!(trouble(&poor, true), Some(EntryTrouble::Stake { missing: Amount(2) }));
        let leaving = ProviderEntry { leaving: true, ..poor };
        assert_eq!(trouble(&leaving, true), None);
    }
}

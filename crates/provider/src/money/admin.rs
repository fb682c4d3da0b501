//! What an operator does by hand: register, collect what was earned, leave in order.
//!
//! A running daemon sends with the same key; both notice and take turns, so it need not be stopped. Where the folder holds an
//! operator's key only, the wallet's is given for the one command that needs it, and is kept nowhere.

use crate::chain_config::ChainConfig;
use crate::config::{Config, ConfigError};
use crate::identity_file::{self, IdentityError};
use crate::money::books::{Books, BooksError, State};
use crate::money::connect::{self, ChainError, LinkError};
use crate::money::{Entry, WalletFileError, wallet_file};
use seedbank_agreement::{Address, AgreementId, Amount, Epoch, WalletKey};
use seedbank_formats::PublicKey;
use seedbank_settlement::{ReadError, SendError, Wallet};
use serde::Serialize;
use std::net::SocketAddr;
use std::path::Path;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Correct the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Add the section.
    #[error("the configuration has no [chain]: this provider is not paid")]
    NotPaid,
    /// The daemon knows its port once it listens, and nobody knows which of several addresses others reach: configure it.
    #[error(
        "`listen` is {0}, which tells nobody where to connect: set `chain.public_address`; of an open port alone `provider run` tells the registry"
    )]
    NoAddress(SocketAddr),
    /// Restore the identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Restore the wallet.
    #[error(transparent)]
    Wallet(#[from] WalletFileError),
    /// Give the wallet's key.
    #[error(
        "this needs the key of the wallet {0}, which is not in this folder: give it with `--wallet-key FILE`"
    )]
    Cold(Address),
    /// Give the right wallet's key, or correct `chain.payee`.
    #[error(
        "this is the key of {given}, and the provider is paid as {payee}: give that wallet's key, or correct `chain.payee`"
    )]
    OtherWallet {
        /// Whose key it is.
        given: Address,
        /// Whose it should be.
        payee: Address,
    },
    /// See there.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// See there.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// See there.
    #[error(transparent)]
    Books(#[from] BooksError),
}

impl From<ReadError> for AdminError {
    fn from(error: ReadError) -> AdminError {
        AdminError::Chain(error.into())
    }
}

impl From<SendError> for AdminError {
    fn from(error: SendError) -> AdminError {
        AdminError::Chain(error.into())
    }
}

/// A provider as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RegistryEntry {
    /// Its wallet.
    pub wallet: Address,
    /// Who may act for it: the wallet itself, unless its key is kept elsewhere.
    pub operator: Address,
    /// Its dial key.
    pub key: PublicKey,
    /// What it has at stake, in token units.
    pub stake: Amount,
    /// It takes no new agreements.
    pub leaving: bool,
}

/// What was collected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Withdrawn {
    /// To whom.
    pub to: Address,
    /// Pay for proven epochs, and what else was free in the market.
    pub from_market: Amount,
    /// Pay for reads.
    pub from_channels: Amount,
}

/// How far an orderly exit is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exit {
    /// Agreements that still run, and the first epoch in which each does not.
    pub running: Vec<(AgreementId, Epoch)>,
    /// Stake that came free, in the market's balance; `withdraw` collects it.
    pub stake_freed: Amount,
}

struct Hands {
    config: ChainConfig,
    dir_config: Config,
    /// Sends as whoever is paid.
    wallet: Wallet,
    /// Sends as the operator, if that is another.
    operator: Option<Wallet>,
}

impl Hands {
    async fn rest(self) {
        self.wallet.stop().await;
        if let Some(operator) = self.operator {
            operator.stop().await;
        }
    }
}

/// `cold`: the key of the wallet that is paid, where the folder does not have it.
async fn hands(dir: &Path, cold: Option<WalletKey>) -> Result<Hands, AdminError> {
    let dir_config = Config::load(dir)?;
    let config = dir_config.chain.clone().ok_or(AdminError::NotPaid)?;
    let kept: WalletKey = wallet_file::load(&dir.join(&config.wallet))?;
    let payee = config.payee.unwrap_or(kept.address());
    let (key, operator) = match cold {
        Some(given) if given.address() != payee => {
            return Err(AdminError::OtherWallet { given: given.address(), payee });
        }
        Some(given) if given.address() == kept.address() => (given, None),
        Some(given) => (given, Some(kept)),
        None if kept.address() == payee => (kept, None),
        None => return Err(AdminError::Cold(payee)),
    };
    let wallet = connect::connect(&config, &key).await?;
    let operator = match operator {
        Some(key) => Some(connect::connect(&config, &key).await?),
        None => None,
    };
    Ok(Hands { config, dir_config, wallet, operator })
}

/// Enters the provider in `dir` in the registry, with the stake that its configuration says, and names its operator if it has one.
/// `provider run` does it as well where the folder has the wallet's key.
///
/// # Errors
/// [`AdminError`].
pub async fn register(dir: &Path, cold: Option<WalletKey>) -> Result<RegistryEntry, AdminError> {
    let hands = hands(dir, cold).await?;
    let Hands { config, dir_config, wallet, operator } = &hands;
    let identity = identity_file::load(dir)?;
    let listen = dir_config.listen;
    if config.public_address.is_none() && (listen.port() == 0 || listen.ip().is_unspecified()) {
        return Err(AdminError::NoAddress(listen));
    }
    let profile = connect::profile(&Entry::of(dir_config, config, listen), &dir_config.prices);
    let named = operator.as_ref().map(Wallet::address);
    connect::register(wallet, &identity, &profile, config, named, &mut Vec::new()).await?;
    let found = wallet.chain().registry().get(wallet.address()).await?;
    let (stake, leaving) = found.map_or((Amount::ZERO, false), |entry| (entry.stake, entry.leaving));
    let wallet = wallet.address();
    hands.rest().await;
    Ok(RegistryEntry { wallet, operator: named.unwrap_or(wallet), key: identity.public(), stake, leaving })
}

/// Sends everything that was earned, and what else is free, to `to`; to the wallet itself if nothing is said.
///
/// # Errors
/// [`AdminError`].
pub async fn withdraw(
    dir: &Path,
    to: Option<Address>,
    cold: Option<WalletKey>,
) -> Result<Withdrawn, AdminError> {
    let hands = hands(dir, cold).await?;
    let Hands { wallet, operator, .. } = &hands;
    let own = wallet.address();
    let to = to.unwrap_or(own);
    let from_channels = wallet.chain().channels().earned(own).await?;
    let mut from_market = Amount::ZERO;
    // A bounty is whose transaction it was.
    for wallet in std::iter::once(wallet).chain(operator) {
        let free = wallet.chain().market().free(wallet.address()).await?;
        if free > Amount::ZERO {
            wallet.market().withdraw(free, to).await?;
            from_market = from_market.checked_add(free).unwrap_or(Amount::MAX);
        }
    }
    if from_channels > Amount::ZERO {
        wallet.channels().withdraw(to).await?;
    }
    hands.rest().await;
    Ok(Withdrawn { to, from_market, from_channels })
}

/// Takes no new agreements, gives notice of those that run, and frees the stake when none is left. The daemon must go on proving until
/// then; call this again after that.
///
/// # Errors
/// [`AdminError`].
pub async fn exit(dir: &Path, cold: Option<WalletKey>) -> Result<Exit, AdminError> {
    let hands = hands(dir, cold).await?;
    let wallet = &hands.wallet;
    let (chain, own) = (wallet.chain().clone(), wallet.address());
    if chain.registry().get(own).await?.is_some_and(|entry| !entry.leaving) {
        wallet.registry().leave().await?;
    }
    let rows = match Books::look(dir)? {
        Some(books) => books.agreements()?,
        None => Vec::new(),
    };
    let mut running = Vec::new();
    for row in rows.into_iter().filter(|row| row.state == State::Open) {
        let Some(before) = chain.market().get_agreement(row.id).await? else { continue };
        wallet.market().terminate(row.id).await?;
        let after = chain.market().get_agreement(row.id).await?.unwrap_or(before);
        if let Some(terms) = after.latest() {
            running.push((row.id, terms.end));
        }
    }
    let mut stake_freed = Amount::ZERO;
    if chain.market().get_set(own).await?.is_none() {
        let stake = chain.registry().stake_of(own).await?;
        if stake > Amount::ZERO {
            wallet.registry().withdraw_stake(stake, own).await?;
            stake_freed = stake;
        }
    }
    hands.rest().await;
    Ok(Exit { running, stake_freed })
}

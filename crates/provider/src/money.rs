//! What the provider earns: quotes, agreements, proofs and vouchers.
//!
//! [`Money`] is what requests ask: it decides with `terms` and `agreement`'s lanes and credit, and writes down before it
//! answers. `keeper` is what goes on by itself: it sends transactions, proves every epoch, and settles the books. `books` is
//! the database of both. The provider's wallet signs nothing that is not in the books, and proves for no set but its own.
//!
//! A provider without a section `[chain]` has none of this.

mod absence;
mod admin;
mod agree;
mod books;
mod cash;
mod connect;
#[cfg(test)]
mod costs;
mod epochs;
mod gas;
mod health;
mod keeper;
mod prove;
mod reading;
mod redeem;
mod reorganised;
mod report;
mod settle;
mod strangers;
mod terms;
#[cfg(test)]
mod testing;
mod unwritten;
mod wallet_file;

pub use admin::{AdminError, Exit, RegistryEntry, Withdrawn, exit, register, withdraw};
pub use books::{BooksError, CostReport, Fate};
pub use connect::{ChainError, EntryTrouble, LinkError};
pub use gas::Wei;
pub use report::{
    AgreementReport, EpochReport, MoneyReport, MoneyStanding, RedemptionReport, ReportError, UnitReport,
    VoucherReport, report,
};
pub use wallet_file::{WalletFileError, create_wallet};

pub(crate) use health::{Health, MoneyHealth};
pub(crate) use keeper::keep;
pub(crate) use reading::Charged;
pub(crate) use wallet_file::keep_wallet;

use crate::chain_config::ChainConfig;
use crate::config::Config;
use crate::money::books::Books;
use crate::money::strangers::Strangers;
use crate::money::unwritten::Unwritten;
use seedbank_agreement::credit::{Credit, CreditLimits};
use seedbank_agreement::price::egress;
use seedbank_agreement::{Address, AgreementId, Amount, Epoch, FragmentSet, WalletKey};
use seedbank_formats::keys::SigningKey;
use seedbank_formats::{PublicKey, Timestamp};
use seedbank_protocol::messages::{Prices, Problem, ProblemCode};
use seedbank_settlement::Wallet;
use seedbank_store::Store;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::{Notify, watch};

/// Keys that may owe something at once.
const DEBTORS_MAX: usize = 65_536;
/// Fragments of sets that are kept in memory with their trees, at some 110 bytes each.
const CACHED_FRAGMENTS_MAX: usize = 500_000;

/// So many epochs after the market refused what a client had signed, its set grows no more.
const REFUSED_EPOCHS: u32 = 7;

/// A claim of the provider itself: until the set lets go of the fragment.
const PINNED_UNTIL: Timestamp = Timestamp(1 << 40);

/// Why there is no money side. The provider does not start then: an operator who asked to be paid wants to be.
#[derive(Debug, thiserror::Error)]
pub enum MoneyError {
    /// Restore the wallet's key.
    #[error(transparent)]
    Wallet(#[from] WalletFileError),
    /// Look at the database.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// Correct the price or the credit.
    #[error("the credit at this price is more than can be paid")]
    Credit,
}

/// Where the provider stands and whom it serves, as its registry entry says.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) address: String,
    pub(crate) operator: String,
    pub(crate) region: String,
}

impl Entry {
    /// Of a provider that listens there, unless the configuration says where others reach it.
    pub(crate) fn of(config: &Config, chain: &ChainConfig, listening: SocketAddr) -> Entry {
        Entry {
            address: chain.public_address.clone().unwrap_or_else(|| listening.to_string()),
            operator: config.operator.clone(),
            region: config.region.clone(),
        }
    }
}

/// The money side of a provider.
pub(crate) struct Money {
    pub(crate) config: ChainConfig,
    prices: Prices,
    /// What was quoted before the daemon began, and is honoured.
    quoted_before: Vec<books::Quoted>,
    /// Sends and signs: the wallet's own key, or its operator's.
    key: WalletKey,
    /// The wallet that is paid.
    payee: Address,
    identity: Arc<SigningKey>,
    store: Arc<Store>,
    books: Mutex<Books>,
    /// Set once the chain was reached.
    link: OnceLock<Wallet>,
    credit: Mutex<Credit>,
    /// What was read since accounts were last written down.
    unwritten: Mutex<Unwritten>,
    sets: Mutex<Sets>,
    /// Vouchers of lanes that never had one.
    strangers: Mutex<Strangers>,
    /// Keys whose voucher is looked at; their next one waits.
    paying: Mutex<HashMap<PublicKey, Arc<tokio::sync::Mutex<()>>>>,
    /// In wei; zero until it was seen.
    gas_price: Mutex<u128>,
    /// Agreements whose last revision the market refused, with the epoch.
    refused: Mutex<HashMap<AgreementId, Epoch>>,
    /// Told when there is something for the keeper.
    wake: Notify,
    /// Counts what the keeper did about offers.
    offers: watch::Sender<u64>,
    pub(crate) health: MoneyHealth,
}

impl Money {
    /// Opens wallet and books in a provider's folder.
    pub(crate) fn open(
        dir: &Path,
        config: &ChainConfig,
        prices: Prices,
        identity: Arc<SigningKey>,
        store: Arc<Store>,
    ) -> Result<Money, MoneyError> {
        let key = wallet_file::load(&dir.join(&config.wallet))?;
        let payee = config.payee.unwrap_or(key.address());
        let mut books = Books::open(dir)?;
        books.identify(&[("wallet", payee.to_string()), ("directory", config.directory.to_string())])?;
        let price = Amount(prices.retrieval_per_gib.0);
        let limit = |bytes| egress(bytes, price).map_err(|_| MoneyError::Credit);
        let limits = CreditLimits {
            per_key: limit(config.credit.per_key.0)?,
            per_network: limit(config.credit.per_network.0)?,
            total: limit(config.credit.total.0)?,
            keys_max: DEBTORS_MAX,
        };
        let lost = books.charge_what_was_lost(crate::service::now())?;
        if lost > Amount::ZERO {
            tracing::warn!(%lost, "the provider was killed while it served on credit: so much is set aside");
        }
        let credit = Credit::new(limits).with_accounts(books.accounts()?);
        Ok(Money {
            config: config.clone(),
            prices,
            quoted_before: books.quotes(crate::service::now())?,
            key,
            payee,
            identity,
            store,
            books: Mutex::new(books),
            link: OnceLock::new(),
            credit: Mutex::new(credit),
            unwritten: Mutex::new(Unwritten::of(limits.total)),
            sets: Mutex::default(),
            strangers: Mutex::default(),
            paying: Mutex::default(),
            gas_price: Mutex::default(),
            refused: Mutex::default(),
            wake: Notify::new(),
            offers: watch::Sender::new(0),
            health: MoneyHealth::default(),
        })
    }

    /// The wallet that is paid.
    pub(crate) fn address(&self) -> Address {
        self.payee
    }

    /// The chain, if it was reached.
    fn link(&self) -> Option<&Wallet> {
        self.link.get()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn credit(&self) -> MutexGuard<'_, Credit> {
        self.credit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The set of an agreement at a sequence, with its tree.
    fn set(&self, books: &Books, id: AgreementId, sequence: u32) -> Result<Arc<FragmentSet>, BooksError> {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = sets.get(&(id, sequence)) {
            return Ok(Arc::clone(set));
        }
        let leaves = books.leaves(id, sequence)?;
        let set = FragmentSet::new(leaves).expect("the books keep sets only, each fragment once");
        let set = Arc::new(set);
        cache(&mut sets, (id, sequence), Arc::clone(&set));
        Ok(set)
    }

    /// Keeps a set that was just computed; those before it may be proven still, and are read again when they are.
    fn keep_set(&self, id: AgreementId, sequence: u32, set: Arc<FragmentSet>) {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        sets.retain(|(of, at), _| *of != id || at.saturating_add(2) > sequence);
        cache(&mut sets, (id, sequence), set);
    }

    /// What a unit of gas costs, as it was seen last.
    fn gas_price(&self) -> u128 {
        *self.gas_price.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_gas_price(&self, wei: u128) {
        *self.gas_price.lock().unwrap_or_else(PoisonError::into_inner) = wei;
    }

    /// Notes that the market refused what a client had signed, by the client's fault.
    fn note_refused(&self, id: AgreementId, epoch: Epoch) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|_, at| at.0.saturating_add(REFUSED_EPOCHS) > epoch.0);
        refused.insert(id, epoch);
    }

    fn is_refused(&self, id: AgreementId, epoch: Epoch) -> bool {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.get(&id).is_some_and(|at| at.0.saturating_add(REFUSED_EPOCHS) > epoch.0)
    }

    /// Runs work that waits for the disk.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Money>,
        work: impl FnOnce(&Money) -> T + Send + 'static,
    ) -> T {
        let money = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || work(&money));
        task.await.expect("work on the books does not panic")
    }
}

/// The sets that are kept in memory.
type Sets = HashMap<(AgreementId, u32), Arc<FragmentSet>>;

/// Keeps a set, and no others if they are too many together.
fn cache(sets: &mut Sets, at: (AgreementId, u32), set: Arc<FragmentSet>) {
    let cached: usize = sets.values().map(|set| set.fragments().len()).sum();
    if cached + set.fragments().len() > CACHED_FRAGMENTS_MAX {
        sets.clear();
    }
    sets.insert(at, set);
}

/// The answer while the chain was never reached.
fn no_chain() -> Problem {
    let problem = Problem::new(ProblemCode::Busy, "this provider can't reach its chain at the moment");
    Problem { retry_after_s: Some(10), ..problem }
}

/// The answer when the books fail.
fn books_failed(error: &BooksError) -> Problem {
    tracing::error!(error = error as &(dyn std::error::Error + 'static), "money database failed");
    Problem::new(ProblemCode::Internal, "the provider failed: its log says how")
}

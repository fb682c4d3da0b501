//! Who pays: the owner's wallet on one chain, the keys that sign for it, and what a person allows.

use super::budget::{BudgetExhausted, Limits, Spending, deposit_missing, monthly};
use super::chain::{Authority, Chain, ChainError, Order, ProviderEntry};
use super::lanes::{self, BudgetTurn, LaneError, MONTH_SECONDS};
use super::rents::Rents;
use crate::network::{Network, wall_clock};
use seedbank_agreement::price::Prices;
use seedbank_agreement::quote::Wanted;
use seedbank_agreement::{Address, Amount, Binding, Domain, Quote, Rate, Signed, WalletKey};
use seedbank_formats::keys::SigningKey;
use seedbank_formats::{PublicKey, Timestamp};
use seedbank_protocol::messages::ProblemCode;
use seedbank_protocol::payment::QuoteAnswer;
use seedbank_transport::CallError;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A quote is asked for anew when it has so long to go.
const QUOTE_MARGIN_SECONDS: u64 = 60;

/// How long the hot signer may sign once it is authorised: longer than any term that is renewed in time.
const AUTHORITY_SECONDS: u64 = 365 * 86_400;

/// The authority is renewed when it has so long to go.
const AUTHORITY_MARGIN_SECONDS: u64 = 30 * 86_400;

/// Held by the process that looks for money until it has used it. Not the lock of the wallet: each of its transactions takes
/// that one.
const MONEY_LOCK: &str = "money.lock";

/// Makes the key of a lane.
pub type LaneKeys = Arc<dyn Fn(u32) -> Option<WalletKey> + Send + Sync>;

/// The keys that sign for a wallet. The wallet's own key sends transactions only, and stays with whoever made the chain.
#[derive(Clone)]
pub struct PayerKeys {
    /// By which this home is known to providers.
    pub identity: SigningKey,
    /// Signs proposals and revisions.
    pub signer: WalletKey,
    /// Sign vouchers, one in each process.
    pub lanes: LaneKeys,
}

/// Why a provider can't be paid. Nothing was sent to it for pay.
#[derive(Debug, thiserror::Error)]
pub enum QuoteRefused {
    /// Choose another, or raise the ceiling.
    #[error(
        "it asks {} units for a GiB and month and {} for a GiB read; the ceiling is {} and {}: raise it with `seedbank chain use \
         --rent-max {} --egress-max {}`",
        asked.rent_per_gib_month, asked.egress_per_gib, ceiling.rent_per_gib_month, ceiling.egress_per_gib,
        asked.rent_per_gib_month, asked.egress_per_gib
    )]
    Ceiling {
        /// What it asks.
        asked: Prices,
        /// What is accepted.
        ceiling: Prices,
    },
    /// It wants longer agreements than this home makes.
    #[error("it opens agreements of {epochs_min} epochs or more, and {term} are wanted")]
    Term {
        /// What it wants.
        epochs_min: u32,
        /// What this home makes.
        term: u32,
    },
    /// Agree on more, or choose another.
    #[error(
        "it takes agreements of {pay_min} units or more, for the gas that they cost, and this one brings {pay}"
    )]
    TooLittle {
        /// What it wants.
        pay_min: Amount,
        /// What the agreement would bring in all.
        pay: Amount,
    },
    /// It is paid elsewhere.
    #[error("it is paid by other contracts: chain {chain_id}, directory {directory}")]
    Elsewhere {
        /// Its chain.
        chain_id: u64,
        /// Its contracts.
        directory: Address,
    },
    /// Not what it says it is: an expired or forged quote, or an entry that belongs to another key.
    #[error("it is not to be believed: {0}")]
    Unbelievable(String),
    /// It can't be asked.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The chain can't be asked who it is.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// A provider that may be paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payee {
    /// Its wallet.
    pub wallet: Address,
    /// What it asks.
    pub prices: Prices,
    /// The shortest agreement.
    pub epochs_min: u32,
    /// What an agreement must bring, as gas was when it was asked: only its word, and no promise.
    pub pay_min: Amount,
    /// What it lets a reader owe.
    pub credit_bytes: u64,
    /// Until when it keeps to that.
    pub expires: Timestamp,
}

/// What a provider is to whoever pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paid {
    /// It takes no money.
    Free,
    /// It does.
    By(Payee),
}

/// Who pays. Clones share it.
pub struct Payer {
    chain: Arc<dyn Chain>,
    keys: PayerKeys,
    limits: Limits,
    dir: PathBuf,
    payees: Mutex<HashMap<PublicKey, (Paid, Timestamp)>>,
    /// With whom this process is about to agree.
    planned: Mutex<BTreeSet<PublicKey>>,
    authorised: tokio::sync::Mutex<Option<Authority>>,
    made: Mutex<Amount>,
    /// Free money that is about to be used.
    earmarked: Mutex<Amount>,
}

impl Payer {
    /// Pays through `chain` within `limits`, and keeps counters in `dir`, a folder of this deployment's own.
    #[must_use]
    pub fn new(chain: Arc<dyn Chain>, keys: PayerKeys, limits: Limits, dir: PathBuf) -> Payer {
        Payer {
            chain,
            keys,
            limits,
            dir,
            payees: Mutex::default(),
            planned: Mutex::default(),
            authorised: tokio::sync::Mutex::default(),
            made: Mutex::default(),
            earmarked: Mutex::default(),
        }
    }

    /// The chain.
    #[must_use]
    pub fn chain(&self) -> &Arc<dyn Chain> {
        &self.chain
    }

    /// What is allowed.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Where counters lie.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whose money it is.
    #[must_use]
    pub fn wallet(&self) -> Address {
        self.chain.wallet()
    }

    /// The key that signs proposals and revisions.
    #[must_use]
    pub fn signer(&self) -> Address {
        self.keys.signer.address()
    }

    /// The key that signs vouchers in a lane.
    #[must_use]
    pub fn lane(&self, number: u32) -> Option<Address> {
        (self.keys.lanes)(number).map(|key| key.address())
    }

    pub(crate) fn keys(&self) -> &PayerKeys {
        &self.keys
    }

    /// This home's word for whose wallet pays.
    pub(crate) fn binding(&self) -> Binding {
        let place = self.chain.place();
        Binding { chain_id: place.chain_id, contract: place.registry, address: self.wallet() }
    }

    /// Asks a provider what it wants, and checks that it is what it says, and not too dear to keep something there. Answers are
    /// kept for as long as the quote holds.
    ///
    /// # Errors
    /// [`QuoteRefused`].
    pub async fn payee(&self, network: &Network, provider: &PublicKey) -> Result<Paid, QuoteRefused> {
        let (paid, Limits { ceiling, term_epochs: term, .. }) =
            (self.asks(network, provider).await?, self.limits);
        match paid {
            Paid::By(Payee { prices: asked, .. }) if !asked.within(&ceiling) => {
                Err(QuoteRefused::Ceiling { asked, ceiling })
            }
            Paid::By(Payee { epochs_min, .. }) if epochs_min > term => {
                Err(QuoteRefused::Term { epochs_min, term })
            }
            Paid::By(_) | Paid::Free => Ok(paid),
        }
    }

    /// The same for reading alone: what it asks for keeping something does not matter then.
    ///
    /// # Errors
    /// [`QuoteRefused`].
    pub async fn payee_for_reads(
        &self,
        network: &Network,
        provider: &PublicKey,
    ) -> Result<Paid, QuoteRefused> {
        let (paid, ceiling) = (self.asks(network, provider).await?, self.limits.ceiling);
        match paid {
            Paid::By(Payee { prices: asked, .. }) if asked.egress_per_gib > ceiling.egress_per_gib => {
                Err(QuoteRefused::Ceiling { asked, ceiling })
            }
            Paid::By(_) | Paid::Free => Ok(paid),
        }
    }

    /// What a provider asks, and by its word and the chain's who it is.
    async fn asks(&self, network: &Network, provider: &PublicKey) -> Result<Paid, QuoteRefused> {
        let now = wall_clock();
        let known = self.payees.lock().unwrap_or_else(PoisonError::into_inner).get(provider).copied();
        if let Some((paid, until)) = known
            && now < until
        {
            return Ok(paid);
        }
        let quote = match network.quote(provider).await {
            Ok(quote) => quote,
            Err(CallError::Refused { problem, .. })
                if matches!(problem.code, ProblemCode::NotFound | ProblemCode::MethodNotAllowed) =>
            {
                let until = now.plus_seconds(3600);
                self.remember(provider, Paid::Free, until);
                return Ok(Paid::Free);
            }
            Err(error) => return Err(error.into()),
        };
        let place = self.chain.place();
        let QuoteAnswer { chain_id, directory, quote, pay_min } = quote;
        if (chain_id, directory) != (place.chain_id, place.directory) {
            return Err(QuoteRefused::Elsewhere { chain_id, directory });
        }
        let wallet = quote.message.provider;
        let operator = match self.chain.provider(wallet).await {
            Ok(Some(entry)) => {
                let binding = Binding { chain_id, contract: place.registry, address: wallet };
                check_entry(&entry, provider, &binding)?;
                entry.operator
            }
            Ok(None) => return Err(QuoteRefused::Unbelievable(format!("wallet {wallet} is not registered"))),
            // Whoever was paid before is who it was, and reads go on while the chain is down.
            Err(ChainError::Unreachable(_)) if self.was_paid(provider, &wallet) => {
                quote.signer(&place.market_domain()).unwrap_or(wallet)
            }
            Err(error) => return Err(error.into()),
        };
        let payee = Payee { pay_min, ..check_quote(&quote, operator, place.market_domain(), now)? };
        // A quote that is about to end is asked for again, however short it is.
        let until = Timestamp(payee.expires.0.saturating_sub(QUOTE_MARGIN_SECONDS));
        self.remember(provider, Paid::By(payee), until);
        Ok(Paid::By(payee))
    }

    /// Has a provider asked anew next time.
    pub(crate) fn forget_quote(&self, provider: &PublicKey) {
        self.payees.lock().unwrap_or_else(PoisonError::into_inner).remove(provider);
    }

    /// Whether a lane of this home has promised this wallet something as this provider's.
    fn was_paid(&self, provider: &PublicKey, wallet: &Address) -> bool {
        let known = lanes::promised(&self.dir).unwrap_or_default();
        known.iter().any(|(_, payees)| {
            payees.get(&wallet.to_string()).is_some_and(|counter| counter.provider == *provider)
        })
    }

    fn remember(&self, provider: &PublicKey, paid: Paid, until: Timestamp) {
        self.payees.lock().unwrap_or_else(PoisonError::into_inner).insert(*provider, (paid, until));
    }

    /// What is spent by the month: rent by these rates, and reads in the month of `now`.
    ///
    /// # Errors
    /// [`LaneError`].
    pub fn spending(
        &self,
        rates: impl IntoIterator<Item = Rate>,
        now: Timestamp,
    ) -> Result<Spending, LaneError> {
        let epoch_seconds = self.chain.place().clock.epoch_seconds;
        let rent = rates.into_iter().map(|rate| monthly(rate, epoch_seconds)).sum();
        Ok(Spending { rent, read: lanes::spent_in(&self.dir, now.0 / MONTH_SECONDS)? })
    }

    /// The same with the rent that all processes of this home have noted, or `rent` where none did.
    pub(crate) fn spent(&self, rent: Amount, now: Timestamp) -> Result<Spending, LaneError> {
        let epoch_seconds = self.chain.place().clock.epoch_seconds;
        let noted = Rents::read(&self.dir)?.map(|rents| rents.monthly(None, now.0, epoch_seconds));
        let read = lanes::spent_in(&self.dir, now.0 / MONTH_SECONDS)?;
        Ok(Spending { rent: noted.unwrap_or(rent), read })
    }

    /// Notes what the books say, for processes that don't read them.
    ///
    /// # Errors
    /// [`LaneError`].
    pub fn note_rates(&self, agreed: &BTreeMap<PublicKey, Rate>, now: Timestamp) -> Result<(), LaneError> {
        self.change_rents(now, |rents| rents.note(agreed))
    }

    fn change_rents(&self, now: Timestamp, change: impl FnOnce(&mut Rents)) -> Result<(), LaneError> {
        let _turn = BudgetTurn::wait(&self.dir)?;
        let known = Rents::read(&self.dir)?;
        let mut rents = known.clone().unwrap_or_default();
        rents.clear(now.0);
        change(&mut rents);
        if known.as_ref() == Some(&rents) { Ok(()) } else { rents.write(&self.dir) }
    }

    /// Plans to agree with a provider on a rate that costs `more` a month, beside what all others are paid: those that are
    /// asked at once, by whatever process of this home, don't share the last of the budget.
    pub(crate) fn plan(
        &self,
        provider: PublicKey,
        rate: Rate,
        agreed: &BTreeMap<PublicKey, Rate>,
        more: Amount,
        now: Timestamp,
    ) -> Result<(), PlanError> {
        let _turn = BudgetTurn::wait(&self.dir)?;
        let mut rents = Rents::read(&self.dir)?.unwrap_or_default();
        rents.clear(now.0);
        rents.note(agreed);
        let epoch_seconds = self.chain.place().clock.epoch_seconds;
        let rent = rents.monthly(Some(&provider), now.0, epoch_seconds);
        let read = lanes::spent_in(&self.dir, now.0 / MONTH_SECONDS)?;
        self.limits.allow(&Spending { rent, read }, more)?;
        rents.plan(std::process::id(), &provider, rate, now.0);
        rents.write(&self.dir)?;
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).insert(provider);
        Ok(())
    }

    /// Whether something is planned that the books may know by now.
    pub(crate) fn has_planned(&self, provider: &PublicKey) -> bool {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).contains(provider)
    }

    /// Forgets what was planned: the books know what came of it.
    pub(crate) fn planned(
        &self,
        provider: &PublicKey,
        agreed: &BTreeMap<PublicKey, Rate>,
        now: Timestamp,
    ) -> Result<(), LaneError> {
        self.change_rents(now, |rents| {
            rents.note(agreed);
            rents.forget(std::process::id(), provider);
        })?;
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).remove(provider);
        Ok(())
    }

    /// Sees to it that the hot signer may sign for so much escrow; sends a transaction when it may not.
    pub(crate) async fn authorise(&self, escrow: Amount) -> Result<(), ChainError> {
        let mut known = self.authorised.lock().await;
        let signer = self.keys.signer.address();
        if signer == self.wallet() {
            return Ok(());
        }
        let now = self.chain.time().await?;
        let is_enough = |authority: &Authority| {
            authority.cap >= escrow && authority.until > now.saturating_add(AUTHORITY_MARGIN_SECONDS)
        };
        // The cap shrinks as others use it, so it is asked for whenever money is to be committed.
        if escrow == Amount::ZERO && known.as_ref().is_some_and(is_enough) {
            return Ok(());
        }
        let found = self.chain.authority(signer).await?;
        if is_enough(&found) {
            *known = Some(found);
            return Ok(());
        }
        // What the budget of two months could lock: a stolen hot key can do no more.
        let budget = self.limits.per_month.checked_mul(4u32).unwrap_or(Amount::MAX);
        let authority = Authority { cap: budget.max(escrow), until: now.saturating_add(AUTHORITY_SECONDS) };
        let Authority { cap, until } = authority;
        self.chain.order(Order::Authorize { signer, cap, until }).await?;
        *known = Some(authority);
        Ok(())
    }

    /// Sees to it that the wallet has so many tokens. On a network whose token has a faucet, missing ones are made; says how
    /// many.
    ///
    /// # Errors
    /// [`FundsError`].
    pub async fn have(&self, amount: Amount) -> Result<Amount, FundsError> {
        let balances = self.chain.balances(self.wallet()).await?;
        let missing = amount.saturating_sub(balances.wallet);
        if missing == Amount::ZERO {
            return Ok(Amount::ZERO);
        }
        match self.chain.order(Order::Mint(missing)).await {
            Ok(_) => {}
            // A token that is worth something is not made by whoever asks.
            Err(ChainError::Refused(_)) => {
                return Err(FundsError::Short {
                    wanted: amount,
                    free: balances.free,
                    wallet: balances.wallet,
                });
            }
            Err(error) => return Err(error.into()),
        }
        tracing::info!(units = %missing, "the network's faucet made tokens, which are worth nothing");
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        *made = made.saturating_add(missing);
        Ok(missing)
    }

    /// Raises a lane's cap, with what the channel lacks for it out of the wallet.
    pub(crate) async fn raise(&self, payee: Address, signer: Address, cap: Amount) -> Result<(), FundsError> {
        let _others = self.turn().await?;
        // Lanes of other processes share the deposit, and may just have been raised.
        let state = self.chain.channel(payee, signer).await?;
        if state.cap >= cap {
            return Ok(());
        }
        let missing = deposit_missing(state.deposit, state.promised, state.cap, cap);
        if missing > Amount::ZERO {
            self.have(missing).await?;
            self.chain.order(Order::Fund(payee, missing)).await?;
        }
        self.chain.order(Order::SetLane { payee, signer, cap }).await?;
        Ok(())
    }

    /// Waits until no task of any process of this home is between looking for money and using it: what one has just made or left in the
    /// wallet, another would take.
    async fn turn(&self) -> Result<File, ChainError> {
        let dir = self.dir.clone();
        let unusable =
            |reason: String| ChainError::Unreachable(format!("{MONEY_LOCK} can't be taken: {reason}"));
        let locked = tokio::task::spawn_blocking(move || lanes::exclusive(&dir, MONEY_LOCK)).await;
        locked.map_err(|error| unusable(error.to_string()))?.map_err(|error| unusable(error.to_string()))
    }

    /// What the faucet made for this process.
    #[must_use]
    pub fn made(&self) -> Amount {
        *self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that so much lies free in the market beside what others of this process are about to use, out of the
    /// wallet. It is theirs again when the mark is dropped.
    pub(crate) async fn provide(&self, amount: Amount) -> Result<Earmark<'_>, FundsError> {
        let _others = self.turn().await?;
        let mark = Earmark::of(self, amount);
        let wanted = *self.earmarked.lock().unwrap_or_else(PoisonError::into_inner);
        if amount > Amount::ZERO {
            let free = self.chain.balances(self.wallet()).await?.free;
            let missing = wanted.saturating_sub(free);
            if missing > Amount::ZERO {
                self.have(missing).await?;
                self.chain.order(Order::Deposit(missing)).await?;
            }
        }
        Ok(mark)
    }
}

/// Money in the market that somebody is about to use.
pub(crate) struct Earmark<'a> {
    payer: &'a Payer,
    amount: Amount,
}

impl Earmark<'_> {
    fn of(payer: &Payer, amount: Amount) -> Earmark<'_> {
        let mut sum = payer.earmarked.lock().unwrap_or_else(PoisonError::into_inner);
        *sum = sum.saturating_add(amount);
        Earmark { payer, amount }
    }
}

impl Drop for Earmark<'_> {
    fn drop(&mut self) {
        let mut sum = self.payer.earmarked.lock().unwrap_or_else(PoisonError::into_inner);
        *sum = sum.saturating_sub(self.amount);
    }
}

/// Why a rate can't be planned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error(transparent)]
    Budget(#[from] BudgetExhausted),
    #[error(transparent)]
    Lane(#[from] LaneError),
}

/// Why there is no money for it.
#[derive(Debug, thiserror::Error)]
pub enum FundsError {
    /// Send tokens to the wallet.
    #[error(
        "{wanted} units are needed, and the wallet has {wallet} and {free} free in the market: send it tokens; on a local network \
         `seedbank wallet fund` makes some"
    )]
    Short {
        /// What is needed.
        wanted: Amount,
        /// What lies free in the market.
        free: Amount,
        /// What the wallet has.
        wallet: Amount,
    },
    /// It would be more than the budget allows.
    #[error(transparent)]
    Budget(#[from] BudgetExhausted),
    /// The chain does not do it.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// Whether wallet and dial key belong together, by both their words.
fn check_entry(entry: &ProviderEntry, provider: &PublicKey, binding: &Binding) -> Result<(), QuoteRefused> {
    let doubt = |reason: &str| Err(QuoteRefused::Unbelievable(reason.to_owned()));
    if entry.endpoint != *provider {
        return doubt("its wallet is registered for another key");
    }
    match binding.check(provider, &entry.binding) {
        Ok(()) => Ok(()),
        Err(_) => doubt("its registry entry is not signed by its key"),
    }
}

fn check_quote(
    signed: &Signed<Quote>,
    operator: Address,
    market: Domain,
    now: Timestamp,
) -> Result<Payee, QuoteRefused> {
    // Whether it is too dear depends on what it is wanted for.
    let ceiling = Prices { rent_per_gib_month: Amount::MAX, egress_per_gib: Amount::MAX };
    let quote = signed
        .check(&market, operator, now, &Wanted { ceiling, epochs: u32::MAX })
        .map_err(|error| QuoteRefused::Unbelievable(error.to_string()))?;
    Ok(Payee {
        wallet: quote.provider,
        prices: quote.prices,
        epochs_min: quote.epochs_min,
        pay_min: Amount::ZERO,
        credit_bytes: quote.credit_bytes,
        expires: quote.expires,
    })
}

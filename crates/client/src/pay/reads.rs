//! Pays for reads: vouchers ahead of need, and an answer to `payment_required`.
//!
//! One [`Reads`] is one process's. It counts what each provider sent, takes a lane when it first has to pay, and sends a
//! voucher in the background when half of the credit is used, so that reads hardly ever wait for one. Whoever asks for more
//! than can be owed gets nothing: the read fails there, and is tried at another holder like any other that fails.

use super::budget::Limits;
use super::budget::{Account, BudgetExhausted, lane_cap};
use super::chain::{ChainError, ChannelState, Order};
use super::lanes::{self, BudgetTurn, Counter, Lane, LaneError, MONTH_SECONDS};
use super::payer::{FundsError, Paid, Payee, Payer, QuoteRefused};
use crate::network::{Network, wall_clock};
use seedbank_agreement::price::{TooDear, egress};
use seedbank_agreement::{Address, Amount, Typed, Voucher, WalletKey};
use seedbank_formats::PublicKey;
use seedbank_protocol::messages::{Problem, ProblemCode};
use seedbank_protocol::payment::{
    PaymentDue, Standing, VoucherAnswer, VoucherReason, VoucherRefusal, VoucherRequest,
};
use seedbank_transport::{CallError, PeerAddress, ProviderClient};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinSet;

/// A provider learns of a raised cap from the chain, a moment after us.
const COVER_PATIENCE: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_secs(2), Duration::from_secs(5)];

/// Why a voucher was not taken, or not sent.
#[derive(Debug, thiserror::Error)]
pub enum PayError {
    /// It asks for more than can be owed.
    #[error("it asks for {needed} units more than was read from it")]
    Unfair {
        /// What it asks for.
        needed: Amount,
    },
    /// The lane has promised more than this home knows of: another copy of it has signed there. Use another lane.
    #[error("the lane has promised {promised} units already")]
    Overtaken {
        /// By the provider's word.
        promised: Amount,
    },
    /// Reads would cost more than a person allowed.
    #[error(transparent)]
    Budget(#[from] BudgetExhausted),
    /// There is no money for it.
    #[error(transparent)]
    Funds(#[from] FundsError),
    /// The channel can't be raised now.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// No lane, or its counter can't be kept.
    #[error(transparent)]
    Lane(#[from] LaneError),
    /// The phrase has no key for the lane.
    #[error("there is no key for lane {0}")]
    NoKey(u32),
    /// A price that nobody could pay.
    #[error(transparent)]
    TooDear(#[from] TooDear),
    /// The provider says no.
    #[error("it takes no voucher: {0}")]
    Refused(String),
    /// It can't be asked.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The process is ending.
    #[error("stopped")]
    Stopped,
}

/// What this process reads and pays. Clones of the network share it.
pub struct Reads {
    payer: Arc<Payer>,
    /// Rent of a month, which the budget counts beside reads until somebody notes what the books say.
    rent: Amount,
    /// The lanes, once there are any: one, unless a provider knows more of it than this home.
    lanes: tokio::sync::Mutex<Vec<Own>>,
    accounts: Mutex<HashMap<PublicKey, Arc<Running>>>,
    payments: Mutex<JoinSet<()>>,
}

/// A lane of this process, and what signs in it.
struct Own {
    lane: Arc<Mutex<Lane>>,
    key: WalletKey,
}

fn locked(lane: &Mutex<Lane>) -> MutexGuard<'_, Lane> {
    lane.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets a lane's counter, durably.
async fn keep(
    lane: &Arc<Mutex<Lane>>,
    payee: Address,
    counter: Counter,
    spent: Amount,
    month: u64,
) -> Result<(), PayError> {
    let lane = Arc::clone(lane);
    let kept = tokio::task::spawn_blocking(move || locked(&lane).set(&payee, counter, spent, month));
    Ok(kept.await.map_err(|_ended| PayError::Stopped)??)
}

/// How this process stands with one provider.
struct Running {
    sums: Mutex<Sums>,
    /// Vouchers that were taken.
    vouchers: AtomicU64,
    /// Held by whoever pays.
    promises: Arc<tokio::sync::Mutex<Promises>>,
}

/// The price of what was read, each read by itself: so the provider counts.
struct Sums {
    /// What the provider asks at present.
    payee: Payee,
    /// Of what came.
    spent: Amount,
    /// Of what was asked for.
    asked: Amount,
    /// Of requests that are under way.
    awaited: Amount,
}

/// What was promised to one provider since the process began.
#[derive(Default)]
struct Promises {
    /// In vouchers that it took.
    paid: Amount,
    /// In vouchers that it says are of no use to it, and can cash all the same.
    lost: Amount,
    /// What was paid ahead before, by its word.
    prepaid: Amount,
    /// What was not paid before, by its word.
    left: Amount,
    /// In which of this process's lanes.
    nth: usize,
    /// A voucher of which nobody knows whether it has it, and what it adds. It goes before any other.
    unsure: Option<(VoucherRequest, Amount)>,
}

impl Running {
    fn new(payee: Payee) -> Running {
        let sums = Sums { payee, spent: Amount::ZERO, asked: Amount::ZERO, awaited: Amount::ZERO };
        Running { sums: Mutex::new(sums), vouchers: AtomicU64::new(0), promises: Arc::default() }
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn payee(&self) -> Payee {
        self.sums().payee
    }

    fn account(&self, promises: &Promises, limits: &Limits) -> Result<Account, TooDear> {
        let Sums { payee, spent, asked, awaited } = *self.sums();
        Ok(Account {
            spent,
            asked,
            awaited,
            paid: promises.paid,
            prepaid: promises.prepaid,
            left: promises.left,
            trust: limits.trust(payee.credit_bytes, payee.prices.egress_per_gib)?,
        })
    }

    /// The provider's word for what is paid ahead, of which this process knows its own part.
    fn prepaid(&self, promises: &Promises, standing: &Standing) -> Amount {
        standing.prepaid.saturating_sub(promises.paid.saturating_sub(self.sums().spent))
    }
}

/// A read that is counted as long as it is under way.
pub(crate) struct Metered {
    running: Arc<Running>,
    cost: Amount,
    vouchers: u64,
}

impl Drop for Metered {
    fn drop(&mut self) {
        let mut sums = self.running.sums();
        sums.awaited = sums.awaited.saturating_sub(self.cost);
    }
}

impl Reads {
    /// Pays through `payer`, whose budget also pays `rent` a month.
    #[must_use]
    pub fn new(payer: Arc<Payer>, rent: Amount) -> Reads {
        Reads {
            payer,
            rent,
            lanes: tokio::sync::Mutex::default(),
            accounts: Mutex::default(),
            payments: Mutex::default(),
        }
    }

    /// Who pays.
    #[must_use]
    pub fn payer(&self) -> &Arc<Payer> {
        &self.payer
    }

    /// Vouchers that providers have taken.
    #[must_use]
    pub fn vouchers(&self) -> u64 {
        let accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.values().map(|running| running.vouchers.load(Ordering::Relaxed)).sum()
    }

    /// Begins a read of so many bytes; `None` where reads are free.
    ///
    /// # Errors
    /// [`CallError`] when the provider is too dear or can't be paid: it is not asked.
    pub(crate) async fn begin(
        &self,
        network: &Network,
        provider: &PublicKey,
        bytes: u64,
    ) -> Result<Option<Metered>, CallError> {
        // Asked for again when the quote ends, however long this process runs.
        let payee = match self.payer.payee_for_reads(network, provider).await {
            Ok(Paid::Free) => return Ok(None),
            Ok(Paid::By(payee)) => payee,
            Err(QuoteRefused::Call(error)) => return Err(error),
            Err(error) => return Err(refused(provider, &error)),
        };
        if payee.prices.egress_per_gib == Amount::ZERO {
            return Ok(None);
        }
        let cost = egress(bytes, payee.prices.egress_per_gib).map_err(|error| refused(provider, &error))?;
        let running = self.account(provider, payee);
        {
            let mut sums = running.sums();
            let (asked, awaited) = (sums.asked.checked_add(cost), sums.awaited.checked_add(cost));
            let (Some(asked), Some(awaited)) = (asked, awaited) else {
                return Err(refused(provider, &TooDear));
            };
            (sums.asked, sums.awaited) = (asked, awaited);
        }
        let vouchers = running.vouchers.load(Ordering::Relaxed);
        Ok(Some(Metered { running, cost, vouchers }))
    }

    fn account(&self, provider: &PublicKey, payee: Payee) -> Arc<Running> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let running = accounts.entry(*provider).or_insert_with(|| Arc::new(Running::new(payee)));
        if running.payee().wallet != payee.wallet {
            // What was promised to another wallet is no matter of this one.
            *running = Arc::new(Running::new(payee));
        }
        running.sums().payee = payee;
        Arc::clone(running)
    }

    /// Counts what came, and pays in the background when it is time.
    pub(crate) fn got(self: &Arc<Self>, read: &Metered, client: &ProviderClient, peer: &PeerAddress) {
        let running = &read.running;
        {
            let mut sums = running.sums();
            sums.spent = sums.spent.saturating_add(read.cost);
        }
        let Ok(promises) = Arc::clone(&running.promises).try_lock_owned() else { return };
        let account = running.account(&promises, self.payer.limits());
        if !account.is_ok_and(|account| account.ahead() > Amount::ZERO) {
            return;
        }
        let (this, running) = (Arc::clone(self), Arc::clone(running));
        let (client, peer) = (client.clone(), peer.clone());
        let mut payments = self.payments.lock().unwrap_or_else(PoisonError::into_inner);
        while payments.try_join_next().is_some() {}
        payments.spawn(async move {
            if let Err(error) = this.pay_ahead(&running, promises, &client, &peer).await {
                // The provider says so itself when its credit is used up, and then it is an error of the read.
                tracing::info!(provider = %peer.key, %error, "voucher not sent");
            }
        });
    }

    async fn pay_ahead(
        &self,
        running: &Running,
        mut promises: OwnedMutexGuard<Promises>,
        client: &ProviderClient,
        peer: &PeerAddress,
    ) -> Result<(), PayError> {
        // More may have come since it was due.
        let amount = running.account(&promises, self.payer.limits())?.ahead();
        if amount == Amount::ZERO {
            return Ok(());
        }
        self.pay(running, &mut promises, client, peer, amount).await
    }

    /// Answers a demand; then the read may be tried again.
    ///
    /// # Errors
    /// [`CallError`] with the provider's demand and why it is not met.
    pub(crate) async fn answer(
        &self,
        read: &mut Metered,
        client: &ProviderClient,
        peer: &PeerAddress,
        due: &PaymentDue,
    ) -> Result<(), CallError> {
        match self.pay_demanded(read, client, peer, due).await {
            Ok(()) => Ok(()),
            Err(PayError::Call(error)) => Err(error),
            Err(error) => Err(refused(&peer.key, &error)),
        }
    }

    async fn pay_demanded(
        &self,
        read: &mut Metered,
        client: &ProviderClient,
        peer: &PeerAddress,
        due: &PaymentDue,
    ) -> Result<(), PayError> {
        let running = &read.running;
        let mut promises = running.promises.lock().await;
        let vouchers = running.vouchers.load(Ordering::Relaxed);
        if std::mem::replace(&mut read.vouchers, vouchers) != vouchers {
            // Paid since this read was sent.
            return Ok(());
        }
        if due.payee != running.payee().wallet {
            return Err(PayError::Refused(
                "it wants to be paid at another wallet than its quote's".to_owned(),
            ));
        }
        let needed = due.needed;
        // It would not ask if anything were left of that.
        promises.prepaid = Amount::ZERO;
        let account = running.account(&promises, self.payer.limits())?;
        promises.left = account.left_of(due.owed);
        let paid = account.paid.checked_add(promises.lost).ok_or(TooDear)?;
        let account = Account { paid, left: promises.left, ..account };
        let amount = account.demanded(needed).ok_or(PayError::Unfair { needed })?;
        self.pay(running, &mut promises, client, peer, amount).await?;
        read.vouchers = running.vouchers.load(Ordering::Relaxed);
        Ok(())
    }

    /// Promises so much more, durably first, and has the provider take it.
    async fn pay(
        &self,
        running: &Running,
        promises: &mut Promises,
        client: &ProviderClient,
        peer: &PeerAddress,
        amount: Amount,
    ) -> Result<(), PayError> {
        let standing = match self.try_pay(running, promises, client, peer, amount).await {
            // A lane is given up once: whoever says so of each lane gets no voucher in each.
            Err(PayError::Overtaken { promised }) if promises.lost == Amount::ZERO => {
                tracing::warn!(provider = %peer.key, %promised, "a lane has promised more than this home knows of");
                if let Some((_, adds)) = promises.unsure.take() {
                    promises.lost = promises.lost.checked_add(adds).ok_or(TooDear)?;
                }
                self.leave(running, promises.nth).await?;
                self.try_pay(running, promises, client, peer, amount).await?
            }
            other => other?,
        };
        if let Some(standing) = standing {
            promises.prepaid = running.prepaid(promises, &standing);
            promises.left = running.account(promises, self.payer.limits())?.left_of(standing.owed);
        }
        running.vouchers.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn try_pay(
        &self,
        running: &Running,
        promises: &mut Promises,
        client: &ProviderClient,
        peer: &PeerAddress,
        amount: Amount,
    ) -> Result<Option<Standing>, PayError> {
        let (voucher, adds) = match promises.unsure.take() {
            Some(unsure) => unsure,
            None => (self.promise(running, &mut promises.nth, &peer.key, amount).await?, amount),
        };
        promises.unsure = Some((voucher.clone(), adds));
        let standing = self.deliver(running, client, peer, &voucher).await?;
        promises.unsure = None;
        promises.paid = promises.paid.checked_add(adds).ok_or(TooDear)?;
        Ok(standing)
    }

    /// Leaves a lane to whoever has signed in it, as far as this provider goes: what that promised, nobody here knows.
    async fn leave(&self, running: &Running, nth: usize) -> Result<(), PayError> {
        let payee = running.payee().wallet;
        let taken = self.lanes.lock().await;
        let Some(Own { lane, .. }) = taken.get(nth) else { return Ok(()) };
        let lane = Arc::clone(lane);
        let left = tokio::task::spawn_blocking(move || locked(&lane).forget(&payee));
        Ok(left.await.map_err(|_ended| PayError::Stopped)??)
    }

    async fn deliver(
        &self,
        running: &Running,
        client: &ProviderClient,
        peer: &PeerAddress,
        voucher: &VoucherRequest,
    ) -> Result<Option<Standing>, PayError> {
        let promised = voucher.voucher.message.cumulative;
        let mut is_mended = false;
        for patience in COVER_PATIENCE.map(Some).into_iter().chain([None]) {
            match client.pay(peer, voucher).await? {
                VoucherAnswer::Accepted(standing) => return Ok(Some(standing)),
                VoucherAnswer::Refused(refusal) => match (refusal.reason, patience) {
                    // It has this voucher: its answer was lost.
                    (VoucherReason::Stale, _) if refusal.cumulative == promised => return Ok(None),
                    (VoucherReason::Stale, _) if refusal.cumulative > promised => {
                        return Err(PayError::Overtaken { promised: refusal.cumulative });
                    }
                    (VoucherReason::Uncovered | VoucherReason::Exiting, Some(patience)) => {
                        if !std::mem::replace(&mut is_mended, true) {
                            self.mend(running, &voucher.voucher.message, &refusal).await?;
                        }
                        tokio::time::sleep(patience).await;
                    }
                    (VoucherReason::ChainUnreachable, Some(patience)) => tokio::time::sleep(patience).await,
                    _ => return Err(PayError::Refused(refusal.message)),
                },
            }
        }
        Err(PayError::Refused("it does not see what the channel covers".to_owned()))
    }

    /// Signs the lane's next voucher for this provider.
    async fn promise(
        &self,
        running: &Running,
        nth: &mut usize,
        provider: &PublicKey,
        amount: Amount,
    ) -> Result<VoucherRequest, PayError> {
        let (chain, payee) = (self.payer.chain(), running.payee().wallet);
        let now = wall_clock();
        let month = now.0 / MONTH_SECONDS;
        let mut taken = self.lanes.lock().await;
        let mut counter = self.counter(&mut taken, nth, payee, provider, month).await?;
        let Own { lane, key } = &taken[*nth];
        let signer = key.address();
        counter.cumulative = counter.cumulative.checked_add(amount).ok_or(TooDear)?;
        counter.used = now.0;
        if counter.cumulative > counter.cap {
            // Before any money goes into the channel; others of this home may spend what is left until it is there.
            let (payer, rent) = (Arc::clone(&self.payer), self.rent);
            let allowed = tokio::task::spawn_blocking(move || -> Result<(), PayError> {
                Ok(payer.limits().allow(&payer.spent(rent, now)?, amount)?)
            });
            allowed.await.map_err(|_ended| PayError::Stopped)??;
            let state = chain.channel(payee, signer).await?;
            counter.cap = self.cover(running, signer, counter.cumulative, &state).await?;
        }
        let voucher = Voucher { payer: self.payer.wallet(), payee, signer, cumulative: counter.cumulative };
        let voucher = voucher.sign(&chain.place().channels_domain(), key);
        let (lane, payer, rent) = (Arc::clone(lane), Arc::clone(&self.payer), self.rent);
        let kept = tokio::task::spawn_blocking(move || -> Result<(), PayError> {
            let _turn = BudgetTurn::wait(payer.dir())?;
            payer.limits().allow(&payer.spent(rent, now)?, amount)?;
            Ok(locked(&lane).set(&payee, counter, amount, month)?)
        });
        kept.await.map_err(|_ended| PayError::Stopped)??;
        Ok(VoucherRequest { voucher })
    }

    /// The counter of the first lane of this process, from the `nth` on, of which it is known what it promised this provider. A
    /// lane that may have promised something and has no counter was another home's before this one was recovered: what it
    /// promised, only the provider knows.
    async fn counter(
        &self,
        taken: &mut Vec<Own>,
        nth: &mut usize,
        payee: Address,
        provider: &PublicKey,
        month: u64,
    ) -> Result<Counter, PayError> {
        loop {
            if *nth == taken.len() {
                self.take_lane(taken).await?;
            }
            let Own { lane, key } = &taken[*nth];
            if let Some(counter) = locked(lane).counter(&payee) {
                return Ok(counter);
            }
            let ChannelState { redeemed, cap, .. } = self.payer.chain().channel(payee, key.address()).await?;
            if cap == redeemed {
                let counter = Counter { provider: *provider, cumulative: redeemed, cap, used: 0 };
                // From here on the lane is known to have promised nothing, wherever this process dies.
                keep(lane, payee, counter, Amount::ZERO, month).await?;
                return Ok(counter);
            }
            *nth += 1;
        }
    }

    /// Sees to it that the channel covers so much of a lane, and says what it covers.
    async fn cover(
        &self,
        running: &Running,
        signer: Address,
        cumulative: Amount,
        state: &ChannelState,
    ) -> Result<Amount, PayError> {
        let Payee { wallet: payee, prices, .. } = running.payee();
        let chain = self.payer.chain();
        if state.exit_at.is_some() && lanes::is_leaving(self.payer.dir(), &payee) {
            chain.order(Order::CancelExit(payee)).await?;
            lanes::forget_leaving(self.payer.dir(), &payee)?;
        }
        if cumulative <= state.cap {
            return Ok(state.cap);
        }
        let cap = lane_cap(cumulative, prices.egress_per_gib, self.payer.limits())?;
        match self.payer.raise(payee, signer, cap).await {
            Ok(()) => Ok(cap),
            // What is there may do for this voucher.
            Err(FundsError::Short { .. }) if cap > cumulative => {
                self.payer.raise(payee, signer, cumulative).await?;
                Ok(cumulative)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What this home remembers of a channel is wrong when its money was taken out of it meanwhile, or is about to be.
    async fn mend(
        &self,
        running: &Running,
        voucher: &Voucher,
        refusal: &VoucherRefusal,
    ) -> Result<(), PayError> {
        let Voucher { payee, signer, cumulative, .. } = *voucher;
        let state = self.payer.chain().channel(payee, signer).await?;
        if state.exit_at.is_some() && !lanes::is_leaving(self.payer.dir(), &payee) {
            // A person takes the money out: others are to be read from.
            return Err(PayError::Refused(refusal.message.clone()));
        }
        let cap = self.cover(running, signer, cumulative, &state).await?;
        let taken = self.lanes.lock().await;
        let Some(Own { lane, .. }) = taken.iter().find(|own| own.key.address() == signer) else {
            return Ok(());
        };
        let known = locked(lane).counter(&payee);
        match known {
            Some(counter) if counter.cap != cap => {
                let month = wall_clock().0 / MONTH_SECONDS;
                keep(lane, payee, Counter { cap, ..counter }, Amount::ZERO, month).await
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn take_lane(&self, taken: &mut Vec<Own>) -> Result<(), PayError> {
        let dir = self.payer.dir().to_owned();
        let lane = tokio::task::spawn_blocking(move || Lane::take(&dir)).await;
        let lane = lane.map_err(|_ended| PayError::Stopped)??;
        let number = lane.number();
        let key = (self.payer.keys().lanes)(number).ok_or(PayError::NoKey(number))?;
        taken.push(Own { lane: Arc::new(Mutex::new(lane)), key });
        Ok(())
    }

    /// Waits for vouchers that are on their way, at most so long.
    pub async fn settle(&self, patience: Duration) {
        let mut payments = std::mem::take(&mut *self.payments.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while payments.join_next().await.is_some() {} };
        // What is not sent in time is asked for by the provider when this home reads again.
        let _late = tokio::time::timeout(patience, all).await;
    }
}

/// A read that this home itself refuses, as the refusal that the provider would have sent.
fn refused(provider: &PublicKey, error: &(dyn std::error::Error + 'static)) -> CallError {
    let problem = Problem::new(ProblemCode::PaymentRequired, error.to_string());
    CallError::Refused { peer: *provider, problem }
}

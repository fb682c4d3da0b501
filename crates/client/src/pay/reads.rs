//! Pays for reads: vouchers ahead of need, and an answer to `payment_required`.
//!
//! One [`Reads`] is one process's. It counts what each provider sent, takes a lane when it first has to pay, and sends a
//! voucher in the background when half of the credit is used, so that reads hardly ever wait for one. Whoever asks for more
//! than can be owed gets nothing: the read fails there, and is tried at another holder like any other that fails.

use super::budget::{Account, BudgetExhausted, Spending, lane_cap};
use super::chain::{ChainError, ChannelState, Order};
use super::lanes::{self, Counter, Lane, LaneError, MONTH_SECONDS};
use super::payer::{FundsError, Paid, Payee, Payer, QuoteRefused};
use crate::network::{Network, wall_clock};
use seedbank_agreement::price::{TooDear, egress};
use seedbank_agreement::{Address, Amount, Typed, Voucher, WalletKey};
use seedbank_formats::PublicKey;
use seedbank_protocol::messages::{Problem, ProblemCode};
use seedbank_protocol::payment::{PaymentDue, VoucherAnswer, VoucherReason, VoucherRefusal, VoucherRequest};
use seedbank_transport::{CallError, PeerAddress, ProviderClient};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
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
    /// Rent of a month, which the budget counts beside reads.
    rent: Amount,
    lanes: Arc<tokio::sync::Mutex<Taken>>,
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

/// The lanes, once there are any: one, unless a provider knows more of it than this home.
#[derive(Default)]
struct Taken {
    own: Vec<Own>,
    /// What others had promised in this month when the lane was taken, and this process since.
    read: Amount,
}

/// How this process stands with one provider.
struct Running {
    payee: Payee,
    /// Bytes that came.
    got: AtomicU64,
    /// Bytes that were asked for.
    asked: AtomicU64,
    /// Bytes of requests that are under way.
    awaited: AtomicU64,
    /// Vouchers that were taken.
    vouchers: AtomicU64,
    is_paying: AtomicBool,
    promises: tokio::sync::Mutex<Promises>,
}

/// What was promised to one provider since the process began.
#[derive(Default)]
struct Promises {
    /// In vouchers that it took.
    paid: Amount,
    /// In which of this process's lanes.
    nth: usize,
    /// A voucher of which nobody knows whether it has it, and what it adds. It goes before any other.
    unsure: Option<(VoucherRequest, Amount)>,
}

impl Running {
    fn account(&self, paid: Amount) -> Result<Account, TooDear> {
        let price = |bytes| egress(bytes, self.payee.prices.egress_per_gib);
        Ok(Account {
            spent: price(self.got.load(Ordering::Relaxed))?,
            asked: price(self.asked.load(Ordering::Relaxed))?,
            awaited: price(self.awaited.load(Ordering::Relaxed))?,
            paid,
            credit: price(self.payee.credit_bytes)?,
        })
    }
}

/// A read that is counted as long as it is under way.
pub(crate) struct Metered {
    running: Arc<Running>,
    bytes: u64,
    vouchers: u64,
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.running.awaited.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Reads {
    /// Pays through `payer`, whose budget also pays `rent` a month.
    #[must_use]
    pub fn new(payer: Arc<Payer>, rent: Amount) -> Reads {
        Reads { payer, rent, lanes: Arc::default(), accounts: Mutex::default(), payments: Mutex::default() }
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
        let known = self.accounts.lock().unwrap_or_else(PoisonError::into_inner).get(provider).cloned();
        let running = match known {
            Some(running) => running,
            None => match self.payer.payee_for_reads(network, provider).await {
                Ok(Paid::Free) => return Ok(None),
                Ok(Paid::By(payee)) => self.account(provider, payee),
                Err(QuoteRefused::Call(error)) => return Err(error),
                Err(error) => return Err(refused(provider, &error)),
            },
        };
        if running.payee.prices.egress_per_gib == Amount::ZERO {
            return Ok(None);
        }
        running.asked.fetch_add(bytes, Ordering::Relaxed);
        running.awaited.fetch_add(bytes, Ordering::Relaxed);
        let vouchers = running.vouchers.load(Ordering::Relaxed);
        Ok(Some(Metered { running, bytes, vouchers }))
    }

    fn account(&self, provider: &PublicKey, payee: Payee) -> Arc<Running> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let running = accounts.entry(*provider).or_insert_with(|| {
            Arc::new(Running {
                payee,
                got: AtomicU64::new(0),
                asked: AtomicU64::new(0),
                awaited: AtomicU64::new(0),
                vouchers: AtomicU64::new(0),
                is_paying: AtomicBool::new(false),
                promises: tokio::sync::Mutex::default(),
            })
        });
        Arc::clone(running)
    }

    /// Counts what came, and pays in the background when it is time.
    pub(crate) fn got(self: &Arc<Self>, read: &Metered, client: &ProviderClient, peer: &PeerAddress) {
        let running = &read.running;
        running.got.fetch_add(read.bytes, Ordering::Relaxed);
        let Ok(paid) = running.promises.try_lock().map(|promises| promises.paid) else { return };
        let is_due = running.account(paid).is_ok_and(|account| account.ahead() > Amount::ZERO);
        if !is_due || running.is_paying.swap(true, Ordering::AcqRel) {
            return;
        }
        let (this, running) = (Arc::clone(self), Arc::clone(running));
        let (client, peer) = (client.clone(), peer.clone());
        let mut payments = self.payments.lock().unwrap_or_else(PoisonError::into_inner);
        while payments.try_join_next().is_some() {}
        payments.spawn(async move {
            if let Err(error) = this.pay_ahead(&running, &client, &peer).await {
                // The provider says so itself when its credit is used up, and then it is an error of the read.
                tracing::info!(provider = %peer.key, %error, "voucher not sent");
            }
            running.is_paying.store(false, Ordering::Release);
        });
    }

    async fn pay_ahead(
        &self,
        running: &Running,
        client: &ProviderClient,
        peer: &PeerAddress,
    ) -> Result<(), PayError> {
        let mut promises = running.promises.lock().await;
        let amount = running.account(promises.paid)?.ahead();
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
        if due.payee != running.payee.wallet {
            return Err(PayError::Refused(
                "it wants to be paid at another wallet than its quote's".to_owned(),
            ));
        }
        let needed = due.needed;
        let account = running.account(promises.paid)?;
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
        let (voucher, adds) = match promises.unsure.take() {
            Some(unsure) => unsure,
            None => (self.promise(running, &mut promises.nth, &peer.key, amount).await?, amount),
        };
        promises.unsure = Some((voucher.clone(), adds));
        self.deliver(running, client, peer, &voucher).await?;
        promises.unsure = None;
        promises.paid = promises.paid.checked_add(adds).ok_or(TooDear)?;
        running.vouchers.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn deliver(
        &self,
        running: &Running,
        client: &ProviderClient,
        peer: &PeerAddress,
        voucher: &VoucherRequest,
    ) -> Result<(), PayError> {
        let promised = voucher.voucher.message.cumulative;
        let mut is_mended = false;
        for patience in COVER_PATIENCE.map(Some).into_iter().chain([None]) {
            match client.pay(peer, voucher).await? {
                VoucherAnswer::Accepted(_) => return Ok(()),
                VoucherAnswer::Refused(refusal) => match (refusal.reason, patience) {
                    // It has this voucher, or one that is higher: its answer was lost.
                    (VoucherReason::Stale, _) if refusal.cumulative == promised => return Ok(()),
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
        let (chain, payee) = (self.payer.chain(), running.payee.wallet);
        let now = wall_clock();
        let month = now.0 / MONTH_SECONDS;
        let mut taken = self.lanes.lock().await;
        let mut counter = self.counter(&mut taken, nth, payee, provider, month).await?;
        let spending = Spending { rent: self.rent, read: taken.read };
        self.payer.limits().allow(&spending, amount)?;
        let Own { lane, key } = &taken.own[*nth];
        let signer = key.address();
        counter.cumulative = counter.cumulative.checked_add(amount).ok_or(TooDear)?;
        counter.used = now.0;
        if counter.cumulative > counter.cap {
            let state = chain.channel(payee, signer).await?;
            counter.cap = self.cover(running, signer, counter.cumulative, &state).await?;
        }
        let voucher = Voucher { payer: self.payer.wallet(), payee, signer, cumulative: counter.cumulative };
        let voucher = voucher.sign(&chain.place().channels_domain(), key);
        keep(lane, payee, counter, amount, month).await?;
        taken.read = taken.read.checked_add(amount).ok_or(TooDear)?;
        Ok(VoucherRequest { voucher })
    }

    /// The counter of the first lane of this process, from the `nth` on, of which it is known what it promised this provider. A
    /// lane that may have promised something and has no counter was another home's before this one was recovered: what it
    /// promised, only the provider knows.
    async fn counter(
        &self,
        taken: &mut Taken,
        nth: &mut usize,
        payee: Address,
        provider: &PublicKey,
        month: u64,
    ) -> Result<Counter, PayError> {
        loop {
            if *nth == taken.own.len() {
                self.take_lane(taken, month).await?;
            }
            let Own { lane, key } = &taken.own[*nth];
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
        let (chain, payee) = (self.payer.chain(), running.payee.wallet);
        if state.exit_at.is_some() && lanes::is_leaving(self.payer.dir(), &payee) {
            chain.order(Order::CancelExit(payee)).await?;
            lanes::forget_leaving(self.payer.dir(), &payee)?;
        }
        if cumulative <= state.cap {
            return Ok(state.cap);
        }
        let cap = lane_cap(cumulative, running.payee.prices.egress_per_gib)?;
        self.payer.raise(payee, signer, cap).await?;
        Ok(cap)
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
        let Some(Own { lane, .. }) = taken.own.iter().find(|own| own.key.address() == signer) else {
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

    async fn take_lane(&self, taken: &mut Taken, month: u64) -> Result<(), PayError> {
        let dir = self.payer.dir().to_owned();
        let is_first = taken.own.is_empty();
        let found = tokio::task::spawn_blocking(move || -> Result<(Lane, Option<Amount>), LaneError> {
            let lane = Lane::take(&dir)?;
            // What this process promises is added to it from here on.
            let read = if is_first { Some(lanes::spent_in(&dir, month)?) } else { None };
            Ok((lane, read))
        });
        let (lane, read) = found.await.map_err(|_ended| PayError::Stopped)??;
        let number = lane.number();
        let key = (self.payer.keys().lanes)(number).ok_or(PayError::NoKey(number))?;
        taken.own.push(Own { lane: Arc::new(Mutex::new(lane)), key });
        taken.read = read.unwrap_or(taken.read);
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

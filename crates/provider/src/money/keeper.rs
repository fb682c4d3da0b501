//! What goes on by itself: offers become agreements, revisions are posted, every epoch is proven, vouchers are cashed.
//!
//! One task, one transaction at a time, in the order of what would be lost first. Each round looks at the chain and does what is
//! due there; nothing is remembered that the chain or the books don't say, so a daemon that was away catches up by doing its
//! next round.

use crate::metrics::Metrics;
use crate::money::books::{AgreementRow, BooksError, Fate, State};
use crate::money::cash::CashError;
use crate::money::connect::{ChainError, LinkError, Registered, connect, profile, register};
use crate::money::epochs::{Elapsed, Gas, Urgency, pause, pause_after, posts_now, urgency};
use crate::money::prove::{ProveError, build};
use crate::money::report::MoneyStanding;
use crate::money::{Entry, Money};
use crate::upkeep::{Stop, stopped};
use seedbank_agreement::{AgreementId, Amount, Epoch, Proposal, Signed};
use seedbank_protocol::payment::TransactionHash;
use seedbank_settlement::{
    Agreement, Head, Mined, Outcome, Proof, ProofSet, ReadError, Refusal, SendError, Skip, Wallet,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tracing::{error, info, warn};

/// Agreements in one transaction that moves them on, at some 100,000 gas each.
const MOVE_ON_MAX: usize = 50;
/// Revisions in one transaction.
const REVISIONS_MAX: usize = 50;
/// Past epochs closed in one transaction: ten years of daily ones take a dozen.
const ADVANCE_MAX: u32 = 300;
/// Past epochs settled in one round.
const SETTLE_MAX: u32 = 1_000;
/// A chain that is gone for a while is asked again so often.
const CONNECT_PAUSE: Duration = Duration::from_secs(5);
/// Agreements beyond this many are compared with the chain once an epoch instead of every round.
const COMPARED_ALWAYS: usize = 20;

/// Why a round was not finished. The next one begins anew.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Books(#[from] BooksError),
    #[error("no proof")]
    Prove(#[from] ProveError),
}

impl From<ReadError> for RoundError {
    fn from(error: ReadError) -> RoundError {
        RoundError::Chain(ChainError::Read(error))
    }
}

impl From<SendError> for RoundError {
    fn from(error: SendError) -> RoundError {
        RoundError::Chain(ChainError::Send(error))
    }
}

impl From<CashError> for RoundError {
    fn from(error: CashError) -> RoundError {
        match error {
            CashError::Chain(error) => RoundError::Chain(error),
            CashError::Books(error) => RoundError::Books(error),
        }
    }
}

/// An error with all that it stands on, for people.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Keeps the money side up until the daemon ends.
pub(crate) async fn keep(money: Arc<Money>, entry: Entry, metrics: Arc<Metrics>, mut stop: Stop) {
    let mut until = stop.clone();
    let running = async {
        let wallet = link(&money).await;
        let mut keeper = Keeper::new(Arc::clone(&money), wallet, metrics);
        keeper.start(&entry).await;
        keeper.run().await;
    };
    tokio::select! {
        () = running => {}
        () = stopped(&mut until) => {}
    }
    if let Some(wallet) = money.link() {
        // The transaction under way is waited for, but not for ever.
        let _ended = timeout(Duration::from_secs(3), wallet.stop()).await;
    }
    if let Err(error) = money.blocking(|money| money.keep_accounts()).await {
        error!(error = whole(&error), "readers' accounts not written");
    }
    stopped(&mut stop).await;
}

/// Connects, however long it takes.
async fn link(money: &Money) -> Wallet {
    loop {
        match connect(&money.config, &money.key).await {
            Ok(wallet) => {
                money.health.chain(None);
                let wallet = money.link.get_or_init(|| wallet).clone();
                info!(wallet = %wallet.address(), market = %wallet.chain().deployment().market, "chain reached");
                return wallet;
            }
            Err(error) => {
                let why = whole(&error);
                match error {
                    LinkError::Url { .. } => error!(why, "no chain"),
                    LinkError::Connect(_) => warn!(why, "no chain"),
                }
                money.health.chain(Some(format!("the chain can't be reached: {why}")));
                tokio::time::sleep(CONNECT_PAUSE).await;
            }
        }
    }
}

struct Keeper {
    money: Arc<Money>,
    wallet: Wallet,
    metrics: Arc<Metrics>,
    /// Wei for a unit of gas, as the last transaction had it.
    gas_price: Option<u128>,
    /// The epoch in which revisions were posted last.
    posted_in: Option<Epoch>,
    /// The epoch in which everything was compared with the chain last.
    compared_in: Option<Epoch>,
    /// Revisions that the chain refused.
    refused: BTreeSet<(AgreementId, u32)>,
    cashed_at: Option<Instant>,
    failures: u32,
}

impl Keeper {
    fn new(money: Arc<Money>, wallet: Wallet, metrics: Arc<Metrics>) -> Keeper {
        Keeper {
            money,
            wallet,
            metrics,
            gas_price: None,
            posted_in: None,
            compared_in: None,
            refused: BTreeSet::new(),
            cashed_at: None,
            failures: 0,
        }
    }

    fn epoch_seconds(&self) -> u32 {
        self.wallet.chain().deployment().parameters.epoch_seconds
    }

    /// Enters the registry, and gives up claims that no set needs.
    async fn start(&mut self, entry: &Entry) {
        loop {
            let profile = profile(entry, &self.money.prices);
            let entered = register(&self.wallet, &self.money.identity, &profile, &self.money.config).await;
            match entered {
                Ok(Registered::Unchanged) => break,
                Ok(Registered::By(mined)) => {
                    self.paid(&mined);
                    break;
                }
                Err(error @ ChainError::Tokens { .. }) => {
                    // What is staked covers some; the rest may come later.
                    warn!(why = whole(&error), "stake not raised");
                    self.money.health.work(Some(whole(&error)));
                    break;
                }
                Err(error) => {
                    warn!(why = whole(&error), "not registered yet");
                    self.money.health.work(Some(format!("not registered: {}", whole(&error))));
                    tokio::time::sleep(CONNECT_PAUSE).await;
                }
            }
        }
        self.money.blocking(|money| money.drop_stale_claims()).await;
    }

    async fn run(&mut self) {
        loop {
            let rest = match self.round().await {
                Ok(()) => {
                    self.failures = 0;
                    self.money.health.chain(None);
                    pause(self.epoch_seconds())
                }
                Err(error) => {
                    let why = whole(&error);
                    warn!(why, "money round not finished");
                    match &error {
                        RoundError::Chain(_) => self.money.health.chain(Some(why)),
                        RoundError::Books(_) | RoundError::Prove(_) => self.money.health.work(Some(why)),
                    }
                    self.failures = self.failures.saturating_add(1);
                    pause_after(self.failures, self.epoch_seconds())
                }
            };
            if let Err(error) = self.money.blocking(|money| money.keep_accounts()).await {
                error!(why = whole(&error), "readers' accounts not written");
            }
            let _woken = timeout(rest, self.money.wake.notified()).await;
        }
    }

    /// Remembers what gas costs.
    fn paid(&mut self, mined: &Mined) {
        self.gas_price = Some(mined.gas_price);
    }

    fn gas(&self) -> Gas {
        if self.gas_price == Some(0) { Gas::Free } else { Gas::Costs }
    }

    async fn round(&mut self) -> Result<(), RoundError> {
        let head = self.wallet.chain().head().await?;
        let Some(epoch) = head.epoch else { return Ok(()) };
        self.open_agreements(epoch).await?;
        let set = self.catch_up(epoch).await?;
        self.settle(epoch, set.as_ref()).await?;
        let open = self.compare(epoch).await?;
        // Each is tried although another failed: a fragment that is gone must not keep revisions from being posted.
        let proven = match &set {
            Some(set) => self.prove_epoch(&head, epoch, set, &open).await,
            None => {
                self.money.health.proof(None);
                Ok(())
            }
        };
        let answered = match &set {
            Some(set) if set.questions > 0 && set.dead_at.is_none() => self.answer(epoch, &open).await,
            Some(_) | None => Ok(()),
        };
        let posted = self.post(&head, epoch).await;
        let cashed = self.cash().await;
        self.note_standing(epoch).await?;
        proven.and(answered).and(posted).and(cashed)?;
        self.money.health.work(None);
        Ok(())
    }

    /// Offers that were taken become agreements.
    async fn open_agreements(&mut self, epoch: Epoch) -> Result<(), RoundError> {
        let offers = self.money.blocking(|money| money.books().proposals()).await?;
        for offer in offers {
            let client = offer.request.proposal.message.client;
            let own = self.wallet.address();
            // A transaction of an earlier run may have done it.
            let known = match self.wallet.chain().market().agreement_of(client, own).await? {
                Some(id) if self.is_of_offer(id, &offer.request.proposal).await? => Some((id, [0; 32])),
                Some(_) | None => None,
            };
            let outcome = match known {
                Some(known) => Ok(known),
                None => {
                    match self.wallet.market().activate(std::slice::from_ref(&offer.request.proposal)).await {
                        Ok(activation) => {
                            self.paid(&activation.mined);
                            let agreement =
                                activation.agreements.first().copied().unwrap_or(Err(Skip::Unknown));
                            agreement
                                .map(|id| (id, activation.mined.transaction))
                                .map_err(|skip| format!("{skip:?}"))
                        }
                        Err(SendError::Refused(refusal)) => Err(refusal.to_string()),
                        Err(error) => return Err(error.into()),
                    }
                }
            };
            let opened = match &outcome {
                Ok((id, _)) => self.wallet.chain().market().get_agreement(*id).await?,
                Err(_) => None,
            };
            let from = opened.and_then(|agreement| agreement.latest().map(|terms| terms.from));
            let from = from.unwrap_or(Epoch(epoch.0.saturating_add(1)));
            self.money
                .blocking(move |money| match outcome {
                    Ok((id, transaction)) => {
                        info!(agreement = %id, %client, "agreement opened");
                        money.books().open_agreement(&offer, id, from, TransactionHash(transaction))
                    }
                    Err(why) => {
                        warn!(%client, why, "offer refused by the market");
                        money.books().refuse_proposal(&offer.digest, &why)
                    }
                })
                .await?;
            self.money.offers.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    async fn is_of_offer(&self, id: AgreementId, offer: &Signed<Proposal>) -> Result<bool, RoundError> {
        let agreement = self.wallet.chain().market().get_agreement(id).await?;
        let fits = |agreement: &Agreement| {
            agreement.sequence == 0
                && agreement.latest().is_some_and(|terms| {
                    terms.set_root == offer.message.set_root && terms.end == offer.message.end_epoch
                })
        };
        Ok(agreement.as_ref().is_some_and(fits))
    }

    /// Brings the set to the present epoch, whatever was missed while nobody looked.
    async fn catch_up(&mut self, epoch: Epoch) -> Result<Option<ProofSet>, RoundError> {
        let own = self.wallet.address();
        loop {
            let Some(set) = self.wallet.chain().market().get_set(own).await? else { return Ok(None) };
            if let Some(dead) = set.dead_at {
                self.money.health.dead(Some(format!(
                    "the set is dead since epoch {dead}: too many epochs were missed, or the stake was too small"
                )));
                return Ok(Some(set));
            }
            self.money.health.dead(None);
            if set.due > 0 {
                let due = self.due(set.epoch).await?;
                if due.is_empty() {
                    // Somebody else moved them on between the two questions.
                    continue;
                }
                for batch in due.chunks(MOVE_ON_MAX) {
                    let mined = self.wallet.market().move_on(batch).await?;
                    self.paid(&mined);
                }
            } else if set.epoch < epoch {
                let mined = self.wallet.market().advance(own, ADVANCE_MAX).await?;
                self.paid(&mined);
            } else {
                return Ok(Some(set));
            }
        }
    }

    /// Agreements whose terms begin or end with the set's epoch.
    async fn due(&self, epoch: Epoch) -> Result<Vec<AgreementId>, RoundError> {
        let mut due = Vec::new();
        for row in self.open_rows().await? {
            let Some(agreement) = self.wallet.chain().market().get_agreement(row.id).await? else { continue };
            let is_due = match (&agreement.next, &agreement.current) {
                (Some(next), _) => next.from == epoch,
                (None, Some(current)) => current.end == epoch,
                (None, None) => false,
            };
            if is_due {
                due.push(row.id);
            }
        }
        Ok(due)
    }

    async fn open_rows(&self) -> Result<Vec<AgreementRow>, RoundError> {
        let rows = self.money.blocking(|money| money.books().agreements()).await?;
        Ok(rows.into_iter().filter(|row| row.state == State::Open).collect())
    }

    /// Writes down what became of epochs that are over.
    async fn settle(&mut self, epoch: Epoch, set: Option<&ProofSet>) -> Result<(), RoundError> {
        let Some(first) = self.money.blocking(|money| money.first_unsettled()).await? else { return Ok(()) };
        let last = epoch.0.min(first.0.saturating_add(SETTLE_MAX));
        let parameters = self.wallet.chain().deployment().parameters.clone();
        for past in first.0..last {
            let past = Epoch(past);
            let outcome = self.wallet.chain().market().outcome(self.wallet.address(), past).await?;
            let died = set.and_then(|set| set.dead_at).is_some_and(|dead| past.0.saturating_add(1) == dead.0);
            let fate = match outcome {
                Outcome::Proven => Fate::Earned,
                Outcome::Missed => Fate::Missed,
                // What killed the set without a slash: the stake was too small for it.
                Outcome::Nothing if died => Fate::Missed,
                Outcome::Nothing => Fate::Void,
            };
            let slashed = outcome == Outcome::Missed;
            let settled = self
                .money
                .blocking(move |money| money.settle(past, fate, slashed, parameters.market.slash_epochs));
            if settled.await? > Amount::ZERO {
                match fate {
                    Fate::Missed => error!(epoch = %past, "epoch missed: nothing earned, stake slashed"),
                    Fate::Void => warn!(epoch = %past, "epoch void: nothing earned"),
                    Fate::Earned => {}
                }
                self.metrics.money.settled(fate);
            }
        }
        Ok(())
    }

    /// Compares the books' open agreements with the chain. Gives those that are open there.
    async fn compare(&mut self, epoch: Epoch) -> Result<BTreeMap<AgreementId, Agreement>, RoundError> {
        let rows = self.open_rows().await?;
        let mut open = BTreeMap::new();
        if rows.len() > COMPARED_ALWAYS && self.compared_in == Some(epoch) {
            return Ok(open);
        }
        for row in rows {
            let found = self.wallet.chain().market().get_agreement(row.id).await?;
            if let Some(agreement) = found {
                open.insert(row.id, agreement);
            }
            self.money.blocking(move |money| money.compare(&row, found.as_ref(), epoch)).await?;
        }
        self.compared_in = Some(epoch);
        Ok(open)
    }

    /// Proves the present epoch, if it is not proven; warns if that takes long.
    async fn prove_epoch(
        &mut self,
        head: &Head,
        epoch: Epoch,
        set: &ProofSet,
        open: &BTreeMap<AgreementId, Agreement>,
    ) -> Result<(), RoundError> {
        if set.dead_at.is_some() || set.rate == Amount::ZERO {
            self.money.health.proof(None);
            return Ok(());
        }
        let own = self.wallet.address();
        if self.wallet.chain().market().outcome(own, epoch).await? == Outcome::Proven {
            self.money.health.proof(None);
            self.money.blocking(move |money| money.earned(epoch)).await?;
            return Ok(());
        }
        let proven = self.prove(epoch, open).await;
        let elapsed = Elapsed::at(&self.wallet.chain().deployment().clock(), epoch, head.time);
        match proven {
            Ok(mined) => {
                info!(%epoch, transaction = %TransactionHash(mined.transaction), gas = mined.gas_used, "epoch proven");
                self.paid(&mined);
                self.metrics.money.proofs.inc();
                self.money.health.proof(None);
                let transaction = TransactionHash(mined.transaction);
                let noted = self.money.blocking(move |money| {
                    money.books().note_proof(epoch, &transaction)?;
                    money.earned(epoch)
                });
                noted.await?;
                Ok(())
            }
            Err(RoundError::Chain(ChainError::Send(SendError::Refused(Refusal::AlreadyProven(_))))) => Ok(()),
            Err(error) => {
                let why = whole(&error);
                self.metrics.money.proofs_failed.inc();
                let noted = why.clone();
                self.money.blocking(move |money| money.books().note_trouble(epoch, &noted)).await?;
                let urgency = urgency(elapsed);
                let text = format!("epoch {epoch} is not proven: {why}");
                if self.money.health.proof(Some((urgency, text))) {
                    match urgency {
                        Urgency::None => warn!(%epoch, why, "no proof yet: trying again"),
                        Urgency::Warning => warn!(%epoch, why, "half of the epoch is over without a proof"),
                        Urgency::Alarm => error!(%epoch, why, "a quarter of the epoch is left to prove it"),
                    }
                }
                Err(error)
            }
        }
    }

    async fn prove(
        &mut self,
        epoch: Epoch,
        open: &BTreeMap<AgreementId, Agreement>,
    ) -> Result<Mined, RoundError> {
        let (chain, own) = (self.wallet.chain().clone(), self.wallet.address());
        self.seal(epoch).await?;
        let challenges = chain.market().challenges_of(own).await?;
        let asked: Vec<(AgreementId, u64)> =
            challenges.iter().map(|challenge| (challenge.agreement, challenge.offset)).collect();
        let proofs = self.proofs(asked, open).await?;
        Ok(self.wallet.market().prove(own, &proofs).await?)
    }

    async fn seal(&mut self, epoch: Epoch) -> Result<(), RoundError> {
        if self.wallet.chain().randomness().seed(epoch).await?.is_none() {
            let mined = self.wallet.randomness().seal().await?;
            self.paid(&mined);
        }
        Ok(())
    }

    async fn proofs(
        &self,
        asked: Vec<(AgreementId, u64)>,
        open: &BTreeMap<AgreementId, Agreement>,
    ) -> Result<Vec<Proof>, RoundError> {
        let mut terms = BTreeMap::new();
        for (id, _) in &asked {
            if terms.contains_key(id) {
                continue;
            }
            let agreement = match open.get(id) {
                Some(agreement) => Some(*agreement),
                None => self.wallet.chain().market().get_agreement(*id).await?,
            };
            let current = agreement.and_then(|agreement| agreement.current);
            terms.insert(*id, current.ok_or(ProveError::UnknownSet(*id))?);
        }
        let built = self.money.blocking(move |money| {
            let sets = money.sets_of(&terms)?;
            build(&money.store, &sets, &asked)
        });
        let (proofs, cost) = built.await?;
        self.metrics.money.proof_bytes_read.inc_by(cost.bytes_read);
        Ok(proofs)
    }

    /// Answers clients' questions about their own agreements.
    async fn answer(
        &mut self,
        epoch: Epoch,
        open: &BTreeMap<AgreementId, Agreement>,
    ) -> Result<(), RoundError> {
        let chain = self.wallet.chain().clone();
        let mut outcome = Ok(());
        for row in self.open_rows().await? {
            let Some(question) = chain.market().get_question(row.id).await? else { continue };
            if question.epoch != epoch {
                continue;
            }
            self.seal(epoch).await?;
            let offsets = chain.market().question_of(row.id).await?;
            let asked = offsets.into_iter().map(|offset| (row.id, offset)).collect();
            let answered = match self.proofs(asked, open).await {
                Ok(proofs) => self.wallet.market().answer(row.id, &proofs).await.map_err(RoundError::from),
                Err(error) => Err(error),
            };
            match answered {
                Ok(mined) => {
                    info!(agreement = %row.id, bond = %question.bond, "question answered");
                    self.paid(&mined);
                }
                Err(error) => {
                    warn!(agreement = %row.id, why = whole(&error), "question not answered");
                    outcome = Err(error);
                }
            }
        }
        outcome
    }

    /// Posts what clients and provider have signed for the next epoch.
    async fn post(&mut self, head: &Head, epoch: Epoch) -> Result<(), RoundError> {
        let next = Epoch(epoch.0.saturating_add(1));
        let waiting = self.money.blocking(move |money| money.books().unposted(next)).await?;
        let waiting: Vec<_> = waiting
            .into_iter()
            .filter(|(signed, _)| {
                !self.refused.contains(&(signed.message.agreement, signed.message.sequence))
            })
            .collect();
        let elapsed = Elapsed::at(&self.wallet.chain().deployment().clock(), epoch, head.time);
        if waiting.is_empty() || !posts_now(elapsed, self.posted_in == Some(epoch), self.gas()) {
            return Ok(());
        }
        for batch in waiting.chunks(REVISIONS_MAX) {
            let posted = self.wallet.market().revise(batch).await?;
            self.paid(&posted.mined);
            self.posted_in = Some(epoch);
            let by = TransactionHash(posted.mined.transaction);
            for ((signed, _), outcome) in batch.iter().zip(posted.revisions) {
                let (id, sequence) = (signed.message.agreement, signed.message.sequence);
                match outcome {
                    Ok(()) => {
                        info!(agreement = %id, sequence, transaction = %by, "revision posted");
                        self.money
                            .blocking(move |money| money.books().mark_posted(id, sequence, Some(&by)))
                            .await?;
                    }
                    // The steward was faster.
                    Err(Skip::Stale) => {
                        self.money
                            .blocking(move |money| money.books().mark_posted(id, sequence, None))
                            .await?;
                    }
                    Err(Skip::Behind) => {}
                    Err(reason) => {
                        warn!(agreement = %id, sequence, ?reason, "revision refused by the market");
                        self.refused.insert((id, sequence));
                    }
                }
            }
        }
        Ok(())
    }

    /// Cashes vouchers, now and then.
    async fn cash(&mut self) -> Result<(), RoundError> {
        let every = Duration::from_secs(self.money.config.redeem.every_s);
        if self.cashed_at.is_some_and(|at| at.elapsed() < every) {
            return Ok(());
        }
        self.cashed_at = Some(Instant::now());
        // Before the first transaction nobody knows what gas costs: then only what is urgent would pay, and that can wait a round.
        let Some(gas_price) = self.gas_price else { return Ok(()) };
        let money = Arc::clone(&self.money);
        if let Some(mined) = money.cash(&self.wallet, gas_price).await? {
            self.paid(&mined);
            self.metrics.money.redemptions.inc();
        }
        Ok(())
    }

    /// Writes down how things stand, for `status`.
    async fn note_standing(&self, epoch: Epoch) -> Result<(), RoundError> {
        let (chain, own) = (self.wallet.chain(), self.wallet.address());
        let (set, free, earned, stake, outcome) = tokio::try_join!(
            chain.market().get_set(own),
            chain.market().free(own),
            chain.channels().earned(own),
            chain.registry().stake_of(own),
            chain.market().outcome(own, epoch),
        )?;
        let parameters = &chain.deployment().parameters;
        let standing = MoneyStanding {
            time: crate::service::now(),
            epoch,
            proven: outcome == Outcome::Proven,
            agreements: set.map_or(0, |set| set.agreements),
            rate: set.map_or(Amount::ZERO, |set| set.rate),
            dead: set.is_some_and(|set| set.dead_at.is_some()),
            stake,
            free,
            vouchers_cashed: earned,
            readers_owe: self.money.owed_in_all(),
            token: parameters.token_symbol.clone(),
            token_decimals: parameters.token_decimals,
            trouble: self.money.health.trouble(),
        };
        self.metrics.money.set(&standing);
        let text = serde_json::to_string(&standing).expect("a standing has text keys");
        self.money.blocking(move |money| money.books().set_meta("standing", &text)).await?;
        Ok(())
    }
}

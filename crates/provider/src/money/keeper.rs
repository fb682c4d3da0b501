//! What goes on by itself: offers become agreements, revisions are posted, every epoch is proven, vouchers are cashed.
//!
//! One task, one transaction at a time, in the order of what would be lost first. Each round looks at the chain and does what is
//! due there; nothing is remembered that the chain or the books don't say, so a daemon that was away catches up by doing its
//! next round. Chains are reorganised, and endpoints tell lies: what the books took for done is compared with the chain anew
//! whenever its past was replaced, and now and then every endpoint is the one that is believed first.

mod entry;
mod epoch;
mod opening;
mod posting;
mod proving;
mod search;
mod standing;

use crate::metrics::Metrics;
use crate::money::absence::Absences;
use crate::money::books::{AgreementRow, BooksError, State};
use crate::money::cash::CashError;
use crate::money::connect::{ChainError, LinkError, connect};
use crate::money::epochs::{asked_first, pause, pause_after};
use crate::money::prove::ProveError;
use crate::money::reorganised::{Anchor, Past};
use crate::money::{Entry, Money};
use crate::upkeep::{Stop, stopped};
use seedbank_agreement::{Address, AgreementId, Epoch};
use seedbank_formats::Timestamp;
use seedbank_settlement::{Agreement, Chain, Head, ReadError, SendError, Wallet};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{error, info, warn};

/// A chain that is gone for a while is asked again so often.
const CONNECT_PAUSE: Duration = Duration::from_secs(5);
/// Agreements beyond this many are compared with the chain once an epoch instead of every round.
const COMPARED_ALWAYS: usize = 20;
/// Questions about single agreements that are on their way at once: a far endpoint takes a tenth of a second for each.
const ASKED_AT_ONCE: usize = 16;

/// Why a round was not finished. The next one begins anew.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Books(#[from] BooksError),
    #[error("no proof")]
    Prove(#[from] ProveError),
    /// The set can't go on before they have: restore the books, or wait until the chain's past is read.
    #[error(
        "{due} agreements begin or end with epoch {epoch} that neither the books nor the chain's events name so far; the chain's past is read on, and if this lasts, restore a newer money.db"
    )]
    Unexplained { due: u32, epoch: Epoch },
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
        let mut keeper = Keeper::new(Arc::clone(&money), wallet, entry, metrics);
        keeper.start().await;
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
    if let Err(error) = money.blocking(|money| money.close_accounts()).await {
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
    /// What the registry should say.
    entry: Entry,
    metrics: Arc<Metrics>,
    /// The time that the chain was at.
    time: Timestamp,
    /// The newest block that was seen.
    block: u64,
    /// The epoch that costs are counted in.
    epoch: Epoch,
    /// The block that was seen last.
    anchor: Anchor,
    /// The epoch in which revisions were posted last.
    posted_in: Option<Epoch>,
    /// The epoch in which everything was compared with the chain last.
    compared_in: Option<Epoch>,
    /// Agreements that the chain did not show.
    absences: Absences,
    /// The set was seen dead.
    died: bool,
    /// The chain's past, where it has agreements that the books don't know.
    search: Option<search::Search>,
    /// The last epochs are settled again: the chain may say something else of them by now.
    unsettle: bool,
    /// The last epoch that was counted as over.
    counted: Option<Epoch>,
    /// Revisions that the chain refused.
    refused: BTreeSet<(AgreementId, u32)>,
    /// Agreements that are asked about in an epoch, and not answered yet.
    questions: (Option<Epoch>, BTreeSet<AgreementId>),
    cashed_at: Option<Instant>,
    /// Vouchers that were cashed are looked at again: the chain may have lost that.
    recheck_cashed: bool,
    rounds: u64,
    failures: u32,
}

impl Keeper {
    fn new(money: Arc<Money>, wallet: Wallet, entry: Entry, metrics: Arc<Metrics>) -> Keeper {
        Keeper {
            money,
            wallet,
            entry,
            metrics,
            time: Timestamp(0),
            block: 0,
            epoch: Epoch(0),
            anchor: Anchor::default(),
            posted_in: None,
            compared_in: None,
            absences: Absences::default(),
            died: false,
            search: None,
            unsettle: false,
            counted: None,
            refused: BTreeSet::new(),
            questions: (None, BTreeSet::new()),
            cashed_at: None,
            recheck_cashed: true,
            rounds: 0,
            failures: 0,
        }
    }

    /// The provider, who is paid: the wallet that sends may be its operator's.
    fn own(&self) -> Address {
        self.money.address()
    }

    fn epoch_seconds(&self) -> u32 {
        self.wallet.chain().deployment().parameters.epoch_seconds
    }

    async fn run(&mut self) {
        loop {
            let endpoints = self.wallet.chain().endpoints().len();
            self.wallet.chain().ask_first(asked_first(self.rounds, self.failures, endpoints));
            self.rounds = self.rounds.wrapping_add(1);
            let rest = match self.round().await {
                Ok(()) => {
                    self.failures = 0;
                    self.money.health.chain(None);
                    pause(self.epoch_seconds())
                }
                Err(error) => {
                    let why = whole(&error);
                    warn!(why, "money round not finished");
                    if let Err(error) = self.warn_if_unproven(&why).await {
                        error!(why = whole(&error), "trouble not written");
                    }
                    match &error {
                        RoundError::Chain(_) => self.money.health.chain(Some(why)),
                        RoundError::Books(_) | RoundError::Prove(_) | RoundError::Unexplained { .. } => {
                            self.money.health.work(Some(why))
                        }
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

    async fn round(&mut self) -> Result<(), RoundError> {
        let head = self.wallet.chain().head().await?;
        (self.time, self.block) = (head.time, head.number);
        self.note_age(&head);
        let Some(epoch) = head.epoch else { return Ok(()) };
        self.epoch = epoch;
        self.look_back(&head).await?;
        // What an epoch's pay and the stake hang on comes first, and waits for nothing that a proof does not need.
        let set = self.catch_up(epoch).await?;
        let proven = match &set {
            Some(set) => self.prove_epoch(epoch, set).await,
            None => {
                self.money.health.proof(None);
                Ok(())
            }
        };
        let answered = match &set {
            Some(set) if set.questions > 0 && set.dead_at.is_none() => self.answer(epoch).await,
            Some(_) | None => Ok(()),
        };
        // Each is tried although another failed: a fragment that is gone must not keep revisions from being posted.
        let settled = self.settle(epoch, set.as_ref()).await;
        let compared = self.compare(epoch).await;
        // What comes now is done if it is worth its gas.
        let priced = self.wallet.chain().gas_price().await.map(|price| self.money.note_gas_price(price));
        let priced = priced.map_err(RoundError::from);
        if self.money.health.has_entry_trouble() {
            self.be_entered().await;
        }
        let opened = self.open_agreements(epoch).await;
        let posted = self.post(&head, epoch).await;
        let cashed = self.cash().await;
        let noted = self.note_standing(epoch).await;
        proven
            .and(answered)
            .and(settled)
            .and(compared)
            .and(priced)
            .and(opened)
            .and(posted)
            .and(cashed)
            .and(noted)?;
        self.money.health.work(None);
        Ok(())
    }

    /// Notices that blocks were replaced, and has everything looked at again that may be gone with them.
    async fn look_back(&mut self, head: &Head) -> Result<(), RoundError> {
        let found = match self.anchor.asks(head) {
            Some(number) => self.wallet.chain().block_hash(number).await?,
            None => None,
        };
        match self.anchor.moves_to(head, found) {
            Past::Same | Past::Unknown => return Ok(()),
            Past::Replaced if self.rounds > 1 => {
                warn!(block = head.number, "the chain was reorganised: what was done is looked at again");
            }
            Past::Replaced => {}
        }
        self.compared_in = None;
        self.questions = (None, BTreeSet::new());
        self.recheck_cashed = true;
        self.cashed_at = None;
        self.unsettle = true;
        Ok(())
    }

    async fn open_rows(&self) -> Result<Vec<AgreementRow>, RoundError> {
        let rows = self.money.blocking(|money| money.books().agreements()).await?;
        Ok(rows.into_iter().filter(|row| row.state == State::Open).collect())
    }

    /// Whether any endpoint says so, if the one that is asked first does not: no single one's word takes anything away.
    async fn any_endpoint<F>(&self, says: impl Fn(Chain) -> F) -> bool
    where
        F: Future<Output = Result<bool, ReadError>>,
    {
        let chain = self.wallet.chain();
        let endpoints = chain.endpoints().len();
        if endpoints < 2 {
            return false;
        }
        let mut said = false;
        for place in 0..endpoints {
            chain.ask_first(place);
            said = says(chain.clone()).await.unwrap_or(false);
            if said {
                break;
            }
        }
        chain.ask_first(0);
        if said {
            warn!("an endpoint denies what another one shows: it is not believed");
        }
        said
    }

    /// Agreements as the chain has them; `None` for those that it does not have.
    async fn agreements_of(
        &self,
        ids: Vec<AgreementId>,
    ) -> Result<Vec<(AgreementId, Option<Agreement>)>, ReadError> {
        self.ask_each(ids, |chain, id| async move { chain.market().get_agreement(id).await }).await
    }

    /// Asks the chain about each agreement, some at a time. Answers are in rising order of their agreements.
    async fn ask_each<T, F>(
        &self,
        ids: Vec<AgreementId>,
        ask: impl Fn(Chain, AgreementId) -> F,
    ) -> Result<Vec<(AgreementId, T)>, ReadError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ReadError>> + Send + 'static,
    {
        let (mut asking, mut answers) = (JoinSet::new(), Vec::new());
        let mut ids = ids.into_iter();
        loop {
            for id in ids.by_ref().take(ASKED_AT_ONCE - asking.len()) {
                let answer = ask(self.wallet.chain().clone(), id);
                asking.spawn(async move { (id, answer.await) });
            }
            let Some(done) = asking.join_next().await else { break };
            let (id, answer) = done.expect("asking the chain does not panic");
            answers.push((id, answer?));
        }
        answers.sort_by_key(|(id, _)| *id);
        Ok(answers)
    }
}

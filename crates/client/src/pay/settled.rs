//! The chain that a home pays on, by `seedbank-settlement`: connected when it is first asked, so that what needs no chain
//! goes on without one.
//!
//! One key must not send from two processes at once. So every order takes a lock in the home first; readers of one home
//! that raise their lanes at the same moment stand in line.

use super::chain::{
    Authority, Balances, Chain, ChainError, ChannelState, Later, OnChain, Order, Place, ProviderEntry,
    Proving,
};
use super::lanes::exclusive;
use seedbank_agreement::{Address, AgreementId, Amount, Epoch, Rate, SetRoot, Signed, WalletKey};
use seedbank_formats::Timestamp;
use seedbank_settlement::{
    self as settlement, ChainConfig, ConnectError, Deployment, ReadError, Refusal, SendError, SendPolicy,
    Skip, Wallet,
};
use std::error::Error;
use std::fs::File;
use std::path::PathBuf;
use tokio::sync::OnceCell;

/// Held by the process whose transaction is under way.
const WALLET_LOCK: &str = "wallet.lock";

/// A provider that opens an agreement takes money at the same moment as ours arrives: what a transaction costs has changed then.
const TRIES_MAX: u32 = 3;

/// Epochs closed by one transaction.
const ADVANCE_MAX: u32 = 1_000;

impl Place {
    /// What clients need of a deployment.
    #[must_use]
    pub fn of(deployment: &Deployment) -> Place {
        Place {
            chain_id: deployment.chain_id,
            directory: deployment.directory,
            registry: deployment.registry,
            market: deployment.market,
            channels: deployment.channels,
            clock: deployment.clock(),
            question_bond: deployment.parameters.market.question_bond,
        }
    }
}

/// A deployment on a chain, for one wallet.
pub struct SettledChain {
    place: Place,
    deployment: Deployment,
    config: ChainConfig,
    key: WalletKey,
    policy: SendPolicy,
    dir: PathBuf,
    chain: OnceCell<settlement::Chain>,
}

impl SettledChain {
    /// Will ask the endpoints of `config` for `deployment`, and send with `key`; `dir` is this deployment's folder of the home.
    #[must_use]
    pub fn new(
        config: ChainConfig,
        deployment: Deployment,
        key: WalletKey,
        policy: SendPolicy,
        dir: PathBuf,
    ) -> SettledChain {
        let place = Place::of(&deployment);
        SettledChain { place, deployment, config, key, policy, dir, chain: OnceCell::new() }
    }

    /// The contracts, which are looked for when they are first asked something.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn chain(&self) -> Result<&settlement::Chain, ChainError> {
        self.chain
            .get_or_try_init(|| async {
                let chain = settlement::Chain::connect(&self.config).await?;
                if *chain.deployment() == self.deployment {
                    Ok(chain)
                } else {
                    let message = "the directory leads elsewhere than when it was chosen".to_owned();
                    Err(ChainError::WrongDeployment(message))
                }
            })
            .await
    }

    /// The wallet, for as long as no other process of this home sends with it.
    pub(crate) async fn turn(&self) -> Result<Turn, ChainError> {
        let dir = self.dir.clone();
        let locked = tokio::task::spawn_blocking(move || exclusive(&dir, WALLET_LOCK)).await;
        let unusable =
            |reason: String| ChainError::Unreachable(format!("{WALLET_LOCK} can't be taken: {reason}"));
        let lock = locked
            .map_err(|error| unusable(error.to_string()))?
            .map_err(|error| unusable(error.to_string()))?;
        let wallet = Wallet::start(self.chain().await?.clone(), self.key.clone(), self.policy);
        Ok(Turn { wallet, _lock: lock })
    }

    async fn send(&self, order: Order) -> Result<[u8; 32], ChainError> {
        let turn = self.turn().await?;
        let mut tries_left = TRIES_MAX;
        let done = loop {
            tries_left -= 1;
            match self.carry_out(&turn.wallet, order.clone()).await {
                Err(ChainError::Overtaken(why)) if tries_left > 0 => {
                    tracing::debug!(%why, "a transaction is sent again");
                }
                done => break done,
            }
        };
        turn.end().await;
        done
    }

    async fn carry_out(&self, wallet: &Wallet, order: Order) -> Result<[u8; 32], ChainError> {
        let (market, channels, token) = (wallet.market(), wallet.channels(), wallet.token());
        let own = self.key.address();
        let mined = match order {
            Order::Mint(sum) => token.mint(own, sum).await?,
            Order::Deposit(sum) => {
                token.allow(self.place.market, sum).await?;
                market.deposit(own, sum).await?
            }
            Order::Withdraw(sum, to) => market.withdraw(sum, to).await?,
            Order::Reserve(id, sum) => market.reserve(id, sum).await?,
            Order::AnnounceRelease(id, sum) => market.announce_release(id, sum).await?,
            Order::Release(id) => market.release(id).await?,
            Order::Terminate(id) => market.terminate(id).await?,
            Order::Authorize { signer, cap, until } => {
                market.authorize(signer, cap, Timestamp(until)).await?
            }
            Order::Revise(revisions) => {
                let signed: Vec<_> = revisions
                    .into_iter()
                    .map(|posted| {
                        (Signed { message: posted.revision, signature: posted.client }, posted.provider)
                    })
                    .collect();
                let done = market.revise(&signed).await?;
                for skipped in done.revisions {
                    match skipped {
                        // Somebody posted it, or a later one, just before.
                        Ok(()) | Err(Skip::Stale) => {}
                        Err(skip) => {
                            return Err(ChainError::Refused(format!("a revision is passed over: {skip:?}")));
                        }
                    }
                }
                done.mined
            }
            Order::Advance(provider) => market.advance(provider, ADVANCE_MAX).await?,
            Order::MoveOn(ids) => market.move_on(&ids).await?,
            Order::CloseDead(id) => market.close_dead(id).await?,
            Order::Ask(id) => market.ask(id).await?,
            Order::Fail(id) => market.fail(id).await?,
            Order::Fund(payee, sum) => {
                token.allow(self.place.channels, sum).await?;
                channels.deposit(own, payee, sum).await?
            }
            Order::SetLane { payee, signer, cap } => channels.set_lane(payee, signer, cap).await?,
            Order::RequestExit(payee, sum) => channels.request_exit(payee, sum).await?,
            Order::CancelExit(payee) => channels.cancel_exit(payee).await?,
            Order::Exit { payee, signers, to } => channels.exit(payee, &signers, to).await?,
        };
        Ok(mined.transaction)
    }

    async fn read_agreement(&self, id: AgreementId) -> Result<Option<OnChain>, ChainError> {
        let market = self.chain().await?.market();
        let Some(agreement) = market.get_agreement(id).await? else { return Ok(None) };
        let (standing, question, release) =
            tokio::try_join!(market.standing(id), market.get_question(id), market.get_release(id))?;
        let current = agreement.current.as_ref();
        let latest = agreement.latest();
        Ok(Some(OnChain {
            provider: agreement.provider,
            sequence: agreement.sequence,
            locked: standing.locked,
            earned: standing.earned,
            rate: current.map_or(Rate::ZERO, |terms| terms.rate_per_epoch),
            size: current.map_or(0, |terms| terms.size),
            next_rate: latest.map_or(Rate::ZERO, |terms| terms.rate_per_epoch),
            last_root: latest.map_or(SetRoot([0; 32]), |terms| terms.set_root),
            last_size: latest.map_or(0, |terms| terms.size),
            end: latest.map_or(Epoch(0), |terms| terms.end),
            ending: agreement.ending,
            question: question.map(|question| question.epoch),
            release: release.map(|release| release.epoch),
        }))
    }
}

/// A home's one wallet while this process sends with it.
pub(crate) struct Turn {
    pub(crate) wallet: Wallet,
    _lock: File,
}

impl Turn {
    /// Waits until nothing is under way, and lets the next one have it.
    pub(crate) async fn end(self) {
        self.wallet.stop().await;
    }
}

impl Chain for SettledChain {
    fn place(&self) -> &Place {
        &self.place
    }

    fn wallet(&self) -> Address {
        self.key.address()
    }

    fn epoch(&self) -> Later<'_, Epoch> {
        Box::pin(async {
            let head = self.chain().await?.head().await?;
            head.epoch.ok_or_else(|| ChainError::Refused("the first epoch has not begun".to_owned()))
        })
    }

    fn time(&self) -> Later<'_, u64> {
        Box::pin(async { Ok(self.chain().await?.head().await?.time.0) })
    }

    fn provider(&self, wallet: Address) -> Later<'_, Option<ProviderEntry>> {
        Box::pin(async move {
            let found = self.chain().await?.registry().get(wallet).await?;
            Ok(found.and_then(|entry| {
                // Signed by nobody, it is nobody's.
                let binding = entry.identity_signature?;
                let (endpoint, operator) = (entry.claimed_identity, entry.operator);
                Some(ProviderEntry { endpoint, binding, operator, leaving: entry.leaving })
            }))
        })
    }

    fn proving(&self, wallet: Address) -> Later<'_, Proving> {
        Box::pin(async move {
            let set = self.chain().await?.market().get_set(wallet).await?;
            Ok(set.map_or(Proving::default(), |set| Proving {
                epoch: set.epoch,
                due: set.due,
                misses: set.misses,
                dead_at: set.dead_at,
            }))
        })
    }

    fn agreement_with(&self, provider: Address) -> Later<'_, Option<AgreementId>> {
        Box::pin(
            async move { Ok(self.chain().await?.market().agreement_of(self.key.address(), provider).await?) },
        )
    }

    fn agreement(&self, id: AgreementId) -> Later<'_, Option<OnChain>> {
        Box::pin(self.read_agreement(id))
    }

    fn balances(&self, account: Address) -> Later<'_, Balances> {
        Box::pin(async move {
            let chain = self.chain().await?;
            let (token, market, channels) = (chain.token(), chain.market(), chain.channels());
            let (wallet, free, earned) =
                tokio::try_join!(token.balance_of(account), market.free(account), channels.earned(account))?;
            Ok(Balances { wallet, free, earned })
        })
    }

    fn authority(&self, signer: Address) -> Later<'_, Authority> {
        Box::pin(async move {
            let found = self.chain().await?.market().authority(self.key.address(), signer).await?;
            Ok(Authority { cap: found.cap, until: found.until.0 })
        })
    }

    fn channel(&self, payee: Address, signer: Address) -> Later<'_, ChannelState> {
        Box::pin(async move {
            let (channels, own) = (self.chain().await?.channels(), self.key.address());
            let (channel, lane) =
                tokio::try_join!(channels.channel(own, payee), channels.lane(own, payee, signer))?;
            Ok(ChannelState {
                deposit: channel.deposit,
                promised: channel.promised,
                exit_at: channel.exit.map(|exit| exit.at.0),
                leaving: channel.exit.map_or(Amount::ZERO, |exit| exit.sum),
                cap: lane.cap,
                redeemed: lane.redeemed,
            })
        })
    }

    fn order(&self, order: Order) -> Later<'_, [u8; 32]> {
        Box::pin(self.send(order))
    }
}

/// An error with its causes, in one line.
fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl From<ConnectError> for ChainError {
    fn from(error: ConnectError) -> ChainError {
        match error {
            ConnectError::Deployment(error) => ChainError::WrongDeployment(told(&error)),
            ConnectError::NoEndpoint | ConnectError::Unusable { .. } | ConnectError::Unanswered(_) => {
                ChainError::Unreachable(told(&error))
            }
        }
    }
}

impl From<ReadError> for ChainError {
    fn from(error: ReadError) -> ChainError {
        match error {
            ReadError::Unanswered(_) => ChainError::Unreachable(told(&error)),
            ReadError::Refused(refusal) => refusal.into(),
            ReadError::Unreadable { .. } => ChainError::WrongDeployment(told(&error)),
        }
    }
}

impl From<Refusal> for ChainError {
    fn from(refusal: Refusal) -> ChainError {
        ChainError::Refused(refusal.to_string())
    }
}

impl From<SendError> for ChainError {
    fn from(error: SendError) -> ChainError {
        match error {
            SendError::Refused(refusal) => refusal.into(),
            SendError::Reverted { refusal: Some(refusal), .. } => refusal.into(),
            SendError::Reverted { refusal: None, .. } => ChainError::Overtaken(told(&error)),
            SendError::TooMuchGas { .. } => ChainError::Refused(told(&error)),
            SendError::NoCoin { account } => ChainError::NoGas { wallet: account, message: told(&error) },
            SendError::Unseen { .. } => ChainError::Unseen(told(&error)),
            SendError::TooDear { .. }
            | SendError::Pending
            | SendError::KeyInUse
            | SendError::Unanswered(_)
            | SendError::Stopped => ChainError::Unreachable(told(&error)),
        }
    }
}

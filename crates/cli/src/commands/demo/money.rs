//! The second act: ten epochs of pay, with people who try to take more than they are owed.
//!
//! The honest providers are the demo's own processes and do all by themselves. Dishonest people are played from here, against the
//! same contracts: what they send is what anybody could send.

use super::ledger::{Holding, Ledger, Line, Refused, Told};
use super::line;
use crate::app::App;
use crate::local::Running;
use crate::local_chain::LocalChain;
use anyhow::{Context, bail};
use seedbank_agreement::chunk_path::ChunkPath;
use seedbank_agreement::fragment_set::{Fragment, SetPath};
use seedbank_agreement::wallet::{WalletKey, WalletRole};
use seedbank_agreement::{Address, AgreementId, Amount, Epoch, Signed, Typed as _, Voucher};
use seedbank_devchain::RemoteClock;
use seedbank_formats::FragmentId;
use seedbank_settlement::{
    Chain, ChannelEvent, Cursor, Event, EventItem, EventPolicy, Events, Outcome, Proof, Redeemed, SendError,
    SendPolicy, Wallet,
};
use std::time::{Duration, Instant};
use tokio::time::sleep;

const EPOCHS: u32 = 10;

/// A provider cashes vouchers every second; when so little was read that none was needed, there is none.
const CASH_PATIENCE: Duration = Duration::from_secs(10);

/// Providers prove within a second of an epoch's beginning; on a machine that is busy with other things this may take longer.
const PROOF_PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What was done to a provider before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Honest,
    Damaged,
    Offline,
}

impl Fate {
    const fn as_str(self) -> &'static str {
        match self {
            Fate::Honest => "honest",
            Fate::Damaged => "lost data, still claims",
            Fate::Offline => "offline",
        }
    }
}

/// A provider with an agreement.
struct Player {
    name: String,
    wallet: Address,
    agreement: AgreementId,
    fate: Fate,
}

struct Stage {
    chain: Chain,
    clock: RemoteClock,
    /// Anybody: records misses, and sends what dishonest people made.
    passer_by: Wallet,
    client: Address,
    players: Vec<Player>,
}

/// Plays the act and gives the ledger.
pub(super) async fn act(
    app: &App,
    inner: &App,
    running: &Running,
    chain: &LocalChain,
    killed: &[String],
    damaged: Option<&str>,
) -> anyhow::Result<Ledger> {
    let stage = set(inner, running, chain, killed, damaged).await?;
    line(
        app,
        &format!(
            "Ten epochs on the chain, whose clock the demo moves: {} providers have an agreement and must prove what they hold.",
            stage.players.len()
        ),
    );
    let mut claims: Vec<Refused> = Vec::new();
    let mut last = Epoch(0);
    for _ in 0..EPOCHS {
        let epoch = stage.next_epoch().await?;
        stage.record_misses().await?;
        stage.wait_for_proofs(epoch).await?;
        for player in stage.players.iter().filter(|player| player.fate == Fate::Damaged) {
            let attempt = format!("{} claims rent with bytes that it made up", player.name);
            let why = stage.claim(player).await?;
            match claims.iter_mut().find(|claim| claim.why == why) {
                Some(claim) => claim.times += 1,
                None => claims.push(Refused { attempt, times: 1, why }),
            }
        }
        // Blocks are the chain's pulse: an epoch without enough of them does not count.
        stage.clock.mine().await?;
        last = epoch;
    }
    stage.next_epoch().await?;
    stage.record_misses().await?;
    let mut refused = claims;
    refused.extend(stage.cash_twice(inner).await?);
    refused.extend(stage.take_what_is_owed(inner).await?);
    for Refused { attempt, times, why } in &refused {
        let often = if *times == 1 { String::new() } else { format!(", {times} times") };
        line(app, &format!("  {attempt}{often}: {why}."));
    }
    let ledger = stage.ledger(refused, last).await?;
    stage.passer_by.stop().await;
    Ok(ledger)
}

async fn set(
    inner: &App,
    running: &Running,
    chain: &LocalChain,
    killed: &[String],
    damaged: Option<&str>,
) -> anyhow::Result<Stage> {
    let clock = RemoteClock::new(&chain.url())?;
    let chain = chain.connect().await?;
    let passer_by = Wallet::start(chain.clone(), crate::local_chain::throw_away_key()?, SendPolicy::local());
    let client = inner.keys()?.wallet(WalletRole::Wallet)?.address();
    let mut players = Vec::new();
    let registry = chain.registry();
    for wallet in registry.page(0, registry.count().await?).await? {
        let Some(entry) = registry.get(wallet).await? else { continue };
        let Some(identity) = entry.identity(&chain) else { continue };
        let Some(agreement) = chain.market().agreement_of(client, wallet).await? else { continue };
        let name = super::damage::process_of(running, &identity)?;
        let fate = match () {
            () if killed.contains(&name) => Fate::Offline,
            () if damaged == Some(name.as_str()) => Fate::Damaged,
            () => Fate::Honest,
        };
        players.push(Player { name, wallet, agreement, fate });
    }
    players.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Stage { chain, clock, passer_by, client, players })
}

impl Stage {
    /// Goes on to the beginning of the next epoch, and says which one that is.
    async fn next_epoch(&self) -> anyhow::Result<Epoch> {
        let parameters = &self.chain.deployment().parameters;
        let now = self.chain.head().await?.time.0;
        let into = (now - parameters.genesis) % u64::from(parameters.epoch_seconds);
        self.clock.forward(u64::from(parameters.epoch_seconds) - into).await?;
        self.chain.head().await?.epoch.context("the chain is before its first epoch")
    }

    /// Closes the past epochs of whoever does not do so itself. Whoever records a miss gets a bounty.
    async fn record_misses(&self) -> anyhow::Result<()> {
        for player in self.players.iter().filter(|player| player.fate != Fate::Honest) {
            let market = self.passer_by.market();
            // Terms that begin with an epoch must be moved on before it can be closed.
            allow_refusal(market.advance(player.wallet, u32::MAX).await)?;
            allow_refusal(market.move_on(&[player.agreement]).await)?;
            allow_refusal(market.advance(player.wallet, u32::MAX).await)?;
        }
        Ok(())
    }

    async fn wait_for_proofs(&self, epoch: Epoch) -> anyhow::Result<()> {
        let deadline = Instant::now() + PROOF_PATIENCE;
        for player in self.players.iter().filter(|player| player.fate == Fate::Honest) {
            while self.chain.market().outcome(player.wallet, epoch).await? != Outcome::Proven {
                if Instant::now() > deadline {
                    bail!("{} did not prove epoch {epoch} in {} s", player.name, PROOF_PATIENCE.as_secs());
                }
                sleep(LOOK_AGAIN).await;
            }
        }
        Ok(())
    }

    /// Claims an epoch's pay with zeros in place of the bytes. Says what the contract says.
    async fn claim(&self, player: &Player) -> anyhow::Result<String> {
        let fragment = Fragment { id: FragmentId([0; 32]), length: 1024, retain_until: Epoch(0) };
        let proof = Proof {
            fragment: SetPath { fragment, turns: 0, hashes: Vec::new(), sums: Vec::new() },
            chunk: ChunkPath { chunk: vec![0; 1024], siblings: Vec::new() },
        };
        let challenges = usize::try_from(self.chain.deployment().parameters.market.challenges)?;
        let proofs = vec![proof; challenges];
        match self.passer_by.market().prove(player.wallet, &proofs).await {
            Err(SendError::Refused(why)) => Ok(why.to_string()),
            Err(error) => Err(error).context("claiming pay without data"),
            Ok(_) => bail!("the contract paid {} for bytes that it does not have", player.name),
        }
    }

    /// Cashes a voucher again that was cashed already, if one was.
    async fn cash_twice(&self, inner: &App) -> anyhow::Result<Option<Refused>> {
        let deadline = Instant::now() + CASH_PATIENCE;
        let cashed = loop {
            let found = self.events().await?.into_iter().rev().find_map(|event| match event {
                Event::Channels(ChannelEvent::Redeemed { payer, payee, signer, cumulative, .. }) => {
                    Some(Voucher { payer, payee, signer, cumulative })
                }
                _ => None,
            });
            match found {
                Some(voucher) => break voucher,
                None if Instant::now() > deadline => return Ok(None),
                None => sleep(LOOK_AGAIN).await,
            }
        };
        let name = self.name_of(cashed.payee);
        let digest = cashed.digest(&self.chain.deployment().channels_domain());
        // The payee has this signature; made again, it is the same, byte for byte.
        let signature = lane_key(inner, cashed.signer)?.sign(&digest);
        let again = self.passer_by.channels().redeem(&[Signed { message: cashed, signature }]).await?;
        match again.vouchers.as_slice() {
            [Redeemed::Skipped { reason, .. }] => Ok(Some(Refused {
                attempt: format!("{name} cashes one voucher twice"),
                times: 1,
                why: format!("passed over as {}, nothing paid", format!("{reason:?}").to_lowercase()),
            })),
            other => bail!("a voucher was paid twice: {other:?}"),
        }
    }

    /// The client tries to take out what is locked for others.
    async fn take_what_is_owed(&self, inner: &App) -> anyhow::Result<Vec<Refused>> {
        // Refused before anything is sent, so it takes no number from the transactions of the steward, which has the same key.
        let key = inner.keys()?.wallet(WalletRole::Wallet)?;
        let client = Wallet::start(self.chain.clone(), key, SendPolicy::local());
        let free = self.chain.market().free(self.client).await?;
        let too_much = free.checked_add(Amount(1)).context("more than there is")?;
        let locked = client.market().withdraw(too_much, self.client).await;
        let mut refused = vec![expect_refusal("the client withdraws escrow that pays for storage", locked)?];
        if let Some(player) = self.players.iter().find(|player| player.fate == Fate::Honest) {
            let exit = client.channels().exit(player.wallet, &[], self.client).await;
            refused.push(expect_refusal("the client empties a channel that its vouchers claim", exit)?);
        }
        client.stop().await;
        Ok(refused)
    }

    async fn ledger(&self, refused: Vec<Refused>, last: Epoch) -> anyhow::Result<Ledger> {
        let told = Told::of(&self.events().await?, last);
        let deployment = self.chain.deployment();
        let mut providers = Vec::new();
        for player in &self.players {
            providers.push(Line {
                name: player.name.clone(),
                fate: player.fate.as_str(),
                account: told.providers.get(&player.wallet).cloned().unwrap_or_default(),
                stake: self.chain.registry().stake_of(player.wallet).await?,
            });
        }
        let mut accounts = vec![
            ("market: escrow, free balances, stakes".to_owned(), deployment.market),
            ("registry".to_owned(), deployment.registry),
            ("channels: deposits and earnings".to_owned(), deployment.channels),
            ("the client's wallet".to_owned(), self.client),
            ("the passer-by's wallet".to_owned(), self.passer_by.address()),
        ];
        let registry = self.chain.registry();
        for wallet in registry.page(0, registry.count().await?).await? {
            accounts.push((format!("wallet of {}", self.name_of(wallet)), wallet));
        }
        let mut holdings = Vec::new();
        for (holder, account) in accounts {
            let units = self.chain.token().balance_of(account).await?;
            if units > Amount::ZERO {
                holdings.push(Holding { holder, units });
            }
        }
        Ok(Ledger {
            epochs: EPOCHS,
            token: deployment.parameters.token_symbol.clone(),
            decimals: deployment.parameters.token_decimals,
            providers,
            refused,
            compensated: told.compensated,
            bounties: told.bounties,
            refunded: told.refunded,
            holdings,
            made: self.chain.token().total_supply().await?,
        })
    }

    async fn events(&self) -> anyhow::Result<Vec<Event>> {
        let mut follow = Events::new(&self.chain, Cursor::from_block(0), EventPolicy::default());
        let mut all = Vec::new();
        loop {
            let batch = follow.poll().await?;
            for item in batch.items {
                match item {
                    EventItem::Happened(happened) => all.push(happened.event),
                    EventItem::Retracted { .. } => bail!("a chain of one sequencer was reorganised"),
                }
            }
            if batch.caught_up {
                return Ok(all);
            }
        }
    }

    fn name_of(&self, wallet: Address) -> String {
        let player = self.players.iter().find(|player| player.wallet == wallet);
        player.map_or_else(
            || format!("a provider without an agreement ({wallet})"),
            |player| player.name.clone(),
        )
    }
}

/// Somebody else may have been faster, or the set is dead.
fn allow_refusal<T>(result: Result<T, SendError>) -> anyhow::Result<()> {
    match result {
        Ok(_) | Err(SendError::Refused(_) | SendError::Reverted { .. }) => Ok(()),
        Err(error) => Err(error).context("recording a miss"),
    }
}

fn expect_refusal<T>(attempt: &str, result: Result<T, SendError>) -> anyhow::Result<Refused> {
    match result {
        Err(SendError::Refused(why)) => {
            Ok(Refused { attempt: attempt.to_owned(), times: 1, why: why.to_string() })
        }
        Err(error) => Err(error).with_context(|| attempt.to_owned()),
        Ok(_) => bail!("nobody stopped this: {attempt}"),
    }
}

/// The key of the lane that signs as `signer`.
fn lane_key(inner: &App, signer: Address) -> anyhow::Result<WalletKey> {
    const LANES: u32 = 64;
    let ring = inner.keys()?;
    for number in 0..LANES {
        let key = ring.lane(number)?;
        if key.address() == signer {
            return Ok(key);
        }
    }
    bail!("{signer} is no lane of this home")
}

//! The chain of a local network: one process that makes blocks, and the contracts on it.
//!
//! The contracts are deployed once, by a key that is thrown away, and pay with a test token that anyone may make. What was
//! deployed is remembered beside `network.json`, with the chain's port: it is the same at every start, because providers
//! and this home have it in their configuration.

use crate::keystore::{KeyRing, Phrase, replace_private};
use crate::local::Starting;
use anyhow::{Context, ensure};
use seedbank_agreement::wallet::{WalletKey, WalletRole};
use seedbank_agreement::{Address, Amount};
use seedbank_devchain::{Config, Node};
use seedbank_provider::ByteSize;
use seedbank_settlement::{Chain, ChainConfig, EndpointPolicy, EndpointUrl, SendPolicy, Settings, deploy};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// The chain's name among the processes.
pub(crate) const CHAIN: &str = "chain";

/// What is remembered of the chain, in the network's folder.
pub(crate) const REMEMBERED: &str = "chain.json";

/// A provider registers and stakes within a second of its start.
const STAKE_PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How time passes on the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// With the wall clock.
    Wall,
    /// As whoever asks the chain wants it: weeks in seconds.
    Moved,
}

/// How the chain is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The port of its JSON-RPC when it is made; 0 lets the system choose.
    pub(crate) port: u16,
    /// Length of an epoch.
    pub(crate) epoch_seconds: u32,
    /// How its time passes.
    pub(crate) clock: Clock,
    /// What a reader may owe a provider that is made with it; `None` for the provider's own default.
    pub(crate) credit: Option<ByteSize>,
}

/// A chain that serves, with contracts on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LocalChain {
    /// Its JSON-RPC.
    pub(crate) address: SocketAddr,
    /// The contract that lists all others.
    pub(crate) directory: Address,
}

impl LocalChain {
    /// Where its JSON-RPC is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The contracts on it.
    pub(crate) async fn connect(&self) -> anyhow::Result<Chain> {
        let config = ChainConfig {
            endpoints: vec![self.url().parse()?],
            directory: self.directory,
            chain_id: None,
            policy: EndpointPolicy::default(),
        };
        Chain::connect(&config).await.context("connecting to the local chain")
    }

    /// Waits until so many providers have registered and staked: before that nobody can agree on anything with them.
    pub(crate) async fn wait_for_stakes(&self, providers: u16, stake: Amount) -> anyhow::Result<()> {
        let chain = self.connect().await?;
        let registry = chain.registry();
        let deadline = Instant::now() + STAKE_PATIENCE;
        loop {
            let mut staked = 0;
            for wallet in registry.page(0, registry.count().await?).await? {
                if registry.stake_of(wallet).await? >= stake {
                    staked += 1;
                }
            }
            if staked >= u32::from(providers) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "only {staked} of {providers} providers have staked on the chain; their logs say why"
            );
            sleep(LOOK_AGAIN).await;
        }
    }

    /// The chain of a network's folder, if it has one.
    pub(crate) fn load(dir: &Path) -> anyhow::Result<Option<LocalChain>> {
        let path = dir.join(REMEMBERED);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| {
                format!("{} is damaged; remove the network's folder and start again", path.display())
            })?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }
}

/// Starts the chain of a network's folder, and makes it with its contracts when there is none.
pub(crate) async fn start(starting: &mut Starting, dir: &Path, plan: Plan) -> anyhow::Result<LocalChain> {
    let known = LocalChain::load(dir)?;
    let folder = dir.join(CHAIN);
    let (port, directory) = match &known {
        Some(chain) => (chain.address.port(), chain.directory),
        None => (plan.port, make(&folder, plan).await?),
    };
    let path = folder.to_str().context("the home's path is not UTF-8")?;
    let (listen, directory_text) = (format!("127.0.0.1:{port}"), directory.to_string());
    let mut args = vec!["chain", "run", "--dir", path, "--listen", &listen, "--directory", &directory_text];
    if plan.clock == Clock::Moved {
        args.push("--test-clock");
    }
    let serving = starting.start(CHAIN, &folder, &args)?;
    let address: SocketAddr = serving.address.parse().context("the chain's own address")?;
    if let Some(chain) = known {
        ensure!(chain.address == address, "the chain serves on {address}, not on {}", chain.address);
        return Ok(chain);
    }
    let chain = LocalChain { address, directory };
    replace_private(&dir.join(REMEMBERED), &serde_json::to_vec_pretty(&chain)?)
        .context("remembering the chain")?;
    Ok(chain)
}

/// Makes a chain with contracts on it; their directory. Here and not in the chain's own process, which is to know the contracts
/// from its beginning.
async fn make(folder: &Path, plan: Plan) -> anyhow::Result<Address> {
    let (dir, config) = (folder.to_owned(), Config { block_time: None, ..Config::default() });
    let node = spawn_blocking(move || Node::open(&dir, config)).await?.context("making the chain")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listening on this machine")?;
    let url: EndpointUrl = format!("http://{}", listener.local_addr()?).parse()?;
    let (end, ended) = oneshot::channel::<()>();
    let deploying = async {
        let deployed =
            deploy(&url, &throw_away_key()?, &settings(plan)?, SendPolicy::local(), |_, _| ()).await;
        drop(end);
        deployed.context("deploying the contracts")
    };
    let serving = async { Ok(node.serve(listener, async { drop(ended.await) }).await?) };
    let made = tokio::try_join!(deploying, serving);
    spawn_blocking(move || drop(node)).await?;
    Ok(made?.0.directory)
}

/// A key that is not kept: what is deployed with it has no owner.
pub(crate) fn throw_away_key() -> anyhow::Result<WalletKey> {
    Ok(KeyRing::new(&Phrase::generate()?, BTreeMap::new()).wallet(WalletRole::Wallet)?)
}

fn settings(plan: Plan) -> anyhow::Result<Settings> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
    let mut settings = Settings::local(now);
    settings.epoch_seconds = plan.epoch_seconds;
    settings.blocks_min = match plan.clock {
        // Half of the empty blocks that an epoch has anyway.
        Clock::Wall => plan.epoch_seconds / 120,
        // Time that jumps makes no blocks on its way.
        Clock::Moved => 1,
    };
    Ok(settings)
}

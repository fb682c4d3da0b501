//! Who pays for this home: its configuration, its keys and its chain put together.
//!
//! What the chain's contracts are is asked once, when the home begins to use them, and kept beside the counters: reads go
//! on with what channels cover while no endpoint answers.

use crate::app::App;
use crate::chain_config::ChainConfig;
use crate::keystore::{KeyRing, replace_private};
use anyhow::Context;
use seedbank_agreement::Amount;
use seedbank_agreement::wallet::WalletRole;
use seedbank_catalog::Books;
use seedbank_client::SharedBooks;
use seedbank_client::network::Network;
use seedbank_client::pay::agree::Terms;
use seedbank_client::pay::budget::monthly;
use seedbank_client::pay::{Payer, PayerKeys, SettledChain};
use seedbank_settlement::{
    Chain, ChainConfig as Endpoints, Deployment, EndpointPolicy, EndpointUrl, SendPolicy,
};
use seedbank_store::make_folder;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Who pays, and where; an error for a home that pays nobody.
pub(crate) async fn payer(app: &App) -> anyhow::Result<(Arc<Payer>, Deployment)> {
    let ring = app.keys()?;
    let found = payer_of(app, &ring).await?;
    found.context("this home pays nobody: choose a chain with `seedbank chain use`")
}

/// The same for keys that are open; `None` for a home that pays nobody.
pub(crate) async fn payer_of(app: &App, ring: &KeyRing) -> anyhow::Result<Option<(Arc<Payer>, Deployment)>> {
    let Some(config) = ChainConfig::load(&app.home.chain_file())? else { return Ok(None) };
    let (chain, deployment) = settled(app, ring, &config).await?;
    let dir = dir(app, &deployment);
    let lanes = ring.clone();
    let keys = PayerKeys {
        identity: ring.identity().clone(),
        signer: ring.wallet(WalletRole::HotSigner)?,
        lanes: Arc::new(move |number| lanes.lane(number).ok()),
    };
    let payer = Payer::new(Arc::new(chain), keys, config.budget.limits(), dir);
    Ok(Some((Arc::new(payer), deployment)))
}

/// The configured chain, for this home's wallet. It is asked nothing yet.
pub(crate) async fn settled(
    app: &App,
    ring: &KeyRing,
    config: &ChainConfig,
) -> anyhow::Result<(SettledChain, Deployment)> {
    let deployment = deployment(app, config).await?;
    let endpoints = endpoints(config, Some(deployment.chain_id))?;
    let policy = if is_local(config) { SendPolicy::local() } else { SendPolicy::public() };
    let (key, dir) = (ring.wallet(WalletRole::Wallet)?, dir(app, &deployment));
    Ok((SettledChain::new(endpoints, deployment.clone(), key, policy, dir), deployment))
}

/// Rent of 30 days by the books, which the budget for reads counts too.
pub(crate) fn rent(app: &App, books: &SharedBooks) -> anyhow::Result<Amount> {
    let Some(config) = ChainConfig::load(&app.home.chain_file())? else { return Ok(Amount::ZERO) };
    let Some(deployment) = kept(app, &config)? else { return Ok(Amount::ZERO) };
    let known = books.agreements()?;
    let rates = known.iter().filter_map(|agreement| Some(Terms::of(agreement)?.rate()));
    Ok(rates.map(|rate| monthly(rate, deployment.parameters.epoch_seconds)).sum())
}

/// The contracts behind the configured directory: as they were found before, else as the chain shows them now.
pub(crate) async fn deployment(app: &App, config: &ChainConfig) -> anyhow::Result<Deployment> {
    match kept(app, config)? {
        Some(deployment) => Ok(deployment),
        None => look(app, config).await,
    }
}

/// Finds the contracts on the chain, checks them, and keeps what was found.
pub(crate) async fn look(app: &App, config: &ChainConfig) -> anyhow::Result<Deployment> {
    let chain =
        Chain::connect(&endpoints(config, None)?).await.context("looking for the chain's contracts")?;
    let deployment = chain.deployment().clone();
    let path = kept_at(app, config);
    make_folder(&app.home.pay_dir()).with_context(|| format!("making {}", app.home.pay_dir().display()))?;
    let text = serde_json::to_vec(&deployment).context("a deployment as JSON")?;
    replace_private(&path, &text).with_context(|| format!("writing {}", path.display()))?;
    Ok(deployment)
}

/// Says what a local network's faucet made while something was paid.
pub(crate) fn tell_made(app: &App, network: &Network) {
    let made = network.payer().map_or(Amount::ZERO, |payer| payer.made());
    if made > Amount::ZERO {
        app.output.say(format_args!(
            "this network's faucet made {made} units of its token, which is worth nothing"
        ));
    }
}

fn kept(app: &App, config: &ChainConfig) -> anyhow::Result<Option<Deployment>> {
    let path = kept_at(app, config);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

fn kept_at(app: &App, config: &ChainConfig) -> PathBuf {
    app.home.pay_dir().join(format!("{}.json", config.chain.directory).to_lowercase())
}

/// Where counters of a deployment lie: another one's are another matter.
fn dir(app: &App, deployment: &Deployment) -> PathBuf {
    let name = format!("{}-{}", deployment.chain_id, deployment.directory).to_lowercase();
    app.home.pay_dir().join(name)
}

fn endpoints(config: &ChainConfig, chain_id: Option<u64>) -> anyhow::Result<Endpoints> {
    let url = |text: &String| text.parse::<EndpointUrl>().with_context(|| format!("endpoint {text:?}"));
    let endpoints = config.chain.rpc.iter().map(url).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Endpoints {
        endpoints,
        directory: config.chain.directory,
        chain_id,
        policy: EndpointPolicy::default(),
    })
}

/// Whether all endpoints are on this machine: an embedded chain makes a block for each transaction at once.
fn is_local(config: &ChainConfig) -> bool {
    const LOCAL: [&str; 3] = ["http://127.", "http://localhost", "http://[::1]"];
    config.chain.rpc.iter().all(|url| LOCAL.iter().any(|local| url.starts_with(local)))
}

//! `seedbank chain use` and `chain show`: on which chain this home pays, and how much it may.

use crate::app::App;
use crate::args::{Budget as Allowed, Names};
use crate::chain_config::{Budget, ChainConfig, ChainSection};
use crate::paying;
use anyhow::{Context, bail};
use seedbank_agreement::{Address, Amount};
use seedbank_client::registry::Naming;
use seedbank_settlement::Deployment;
use serde::Serialize;

#[derive(Serialize)]
struct Used {
    rpc: Vec<String>,
    directory: Address,
    chain_id: u64,
    market: Address,
    channels: Address,
    registry: Address,
    token: String,
    epoch_seconds: u32,
    names: Naming,
    budget: Budget,
}

/// Writes what was given, keeps the rest, and checks that the contracts are there.
pub(crate) async fn use_chain(
    app: &App,
    rpc: Vec<String>,
    directory: Option<Address>,
    names: Option<Names>,
    allowed: &Allowed,
) -> anyhow::Result<()> {
    let (config, deployment) = configure(app, rpc, directory, names, allowed).await?;
    app.output.data(&used(config, &deployment), text)?;
    Ok(())
}

/// The same without a word.
pub(crate) async fn configure(
    app: &App,
    rpc: Vec<String>,
    directory: Option<Address>,
    names: Option<Names>,
    allowed: &Allowed,
) -> anyhow::Result<(ChainConfig, Deployment)> {
    app.home.create()?;
    let path = app.home.chain_file();
    let mut config = match (ChainConfig::load(&path)?, directory) {
        (Some(config), _) => config,
        (None, Some(directory)) => {
            let chain = ChainSection { rpc: Vec::new(), directory, naming: Naming::default() };
            ChainConfig { chain, budget: Budget::default() }
        }
        (None, None) => bail!("this home uses no chain yet: give --rpc and --directory"),
    };
    if let Some(directory) = directory {
        config.chain.directory = directory;
    }
    if !rpc.is_empty() {
        config.chain.rpc = rpc;
    }
    if config.chain.rpc.is_empty() {
        bail!("give at least one endpoint with --rpc");
    }
    if let Some(names) = names {
        config.chain.naming = names.into();
    }
    let budget = &mut config.budget;
    let put = |place: &mut Amount, given: Option<Amount>| *place = given.unwrap_or(*place);
    put(&mut budget.rent_per_gib_month_max, allowed.rent_max);
    put(&mut budget.egress_per_gib_max, allowed.egress_max);
    put(&mut budget.per_month, allowed.budget);
    budget.term_epochs = allowed.term.unwrap_or(budget.term_epochs);
    // Contracts that are not what they should be are never paid: said here, and not by the first push.
    let deployment = paying::look(app, &config).await?;
    config.save(&path)?;
    Ok((config, deployment))
}

pub(crate) async fn show(app: &App) -> anyhow::Result<()> {
    let path = app.home.chain_file();
    let config = ChainConfig::load(&path)?.with_context(|| {
        format!("this home pays nobody: {} does not exist; see `seedbank chain use`", path.display())
    })?;
    let deployment = paying::deployment(app, &config).await?;
    app.output.data(&used(config, &deployment), text)?;
    Ok(())
}

fn used(config: ChainConfig, deployment: &Deployment) -> Used {
    Used {
        names: config.chain.naming,
        rpc: config.chain.rpc,
        directory: config.chain.directory,
        chain_id: deployment.chain_id,
        market: deployment.market,
        channels: deployment.channels,
        registry: deployment.registry,
        token: deployment.parameters.token_symbol.clone(),
        epoch_seconds: deployment.parameters.epoch_seconds,
        budget: config.budget,
    }
}

fn text(used: &Used) -> String {
    let Used { chain_id, directory, market, channels, registry, token, epoch_seconds, budget, .. } = used;
    let names = match used.names {
        Naming::All => "public datasets by their names, private ones hidden",
        Naming::Public => "public datasets only",
        Naming::Nothing => "none",
    };
    format!(
        "chain      {chain_id} at {}\ndirectory  {directory}\nmarket     {market}\nchannels   {channels}\nregistry   {registry}\ntoken      \
         {token}\nepochs     of {epoch_seconds} s\nceiling    {} units per GiB-month, {} per GiB read\nbudget     {} units a \
         month, agreements of {} epochs\nnames      {names}",
        used.rpc.join(", "),
        budget.rent_per_gib_month_max,
        budget.egress_per_gib_max,
        budget.per_month,
        budget.term_epochs
    )
}

impl From<Names> for Naming {
    fn from(names: Names) -> Naming {
        match names {
            Names::All => Naming::All,
            Names::Public => Naming::Public,
            Names::None => Naming::Nothing,
        }
    }
}

//! `seedbank chain`: the embedded chain, and which one this home uses.

use crate::app::App;
use crate::args::{Chain as Command, ChainRun};
use crate::commands::{chain_deploy, chain_use};
use crate::local::{Serving, end_with_parent};
use crate::stop::stop_signal;
use anyhow::{Context, bail};
use seedbank_agreement::Address;
use seedbank_devchain::{ClockControl, Config, EpochCall, Following, Node};
use seedbank_settlement::{Chain, ChainConfig, EndpointPolicy};
use serde::Serialize;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpListener;

pub(crate) async fn run(app: &App, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(options) => serve(app, &options).await,
        Command::Deploy(options) => chain_deploy::run(app, &options).await,
        Command::Use { rpc, directory, names, budget } => {
            chain_use::use_chain(app, rpc, directory, names, &budget).await
        }
        Command::Show => chain_use::show(app).await,
    }
}

/// What the daemon prints when it serves.
#[derive(Serialize)]
struct ServingChain {
    #[serde(flatten)]
    serving: Serving,
    url: String,
    chain_id: u64,
    block: u64,
}

async fn serve(app: &App, options: &ChainRun) -> anyhow::Result<()> {
    if options.with_parent {
        end_with_parent()?;
    }
    let address: SocketAddr =
        options.listen.parse().with_context(|| format!("--listen {:?} is no address", options.listen))?;
    if options.test_clock && !address.ip().is_loopback() {
        bail!("--test-clock lets every caller move the clock: listen on 127.0.0.1 with it");
    }
    let dir = match &options.dir {
        Some(dir) => dir.clone(),
        None => {
            app.home.create()?;
            app.home.chain_dir()
        }
    };
    let config = Config {
        chain_id: options.chain_id,
        block_time: (options.block_time > 0).then(|| Duration::from_secs(options.block_time)),
        clock: if options.test_clock { ClockControl::Test } else { ClockControl::None },
        ..Config::default()
    };
    let stop = stop_signal()?;
    let node = match &options.follow {
        None => tokio::task::spawn_blocking(move || Node::open(&dir, config)).await??,
        Some(url) => {
            let genesis_hash = options.genesis_hash.as_deref().map(str::parse).transpose();
            let genesis_hash = genesis_hash.context("--genesis-hash is no hash of 32 bytes")?;
            Node::follow(&dir, &Following { url: url.clone(), genesis_hash }, config).await?
        }
    };
    let listener = TcpListener::bind(address).await.with_context(|| format!("can't listen on {address}"))?;
    let address = listener.local_addr()?;
    let url = format!("http://{address}");
    let serving = async { anyhow::Ok(node.serve(listener, stop).await?) };
    let telling = async {
        if let Some(directory) = options.directory {
            seal_first(&node, &url, directory).await.context("--directory")?;
        }
        if let Some(file) = &options.port_file {
            let port = address.port().to_string();
            write_whole(file, &port).with_context(|| format!("can't write {}", file.display()))?;
        }
        let genesis = node.genesis();
        let line = ServingChain {
            serving: Serving {
                key: genesis.sequencer.to_string(),
                address: address.to_string(),
                metrics: None,
            },
            url: url.clone(),
            chain_id: genesis.chain_id,
            block: node.head()?.0,
        };
        tracing::info!(url = %line.url, chain_id = line.chain_id, block = line.block, "chain serves");
        // Whoever started this process may have gone; serving goes on.
        let _unheard = app.output.data(&line, |line| {
            format!("chain {} serves at {}, from block {}", line.chain_id, line.url, line.block)
        });
        Ok(())
    };
    let served = tokio::try_join!(serving, telling);
    // The last commit may be under way.
    tokio::task::spawn_blocking(move || drop(node)).await?;
    tracing::info!("chain stopped");
    served.map(|_| ())
}

/// Has each epoch of these contracts begin with its seed.
async fn seal_first(node: &Node, url: &str, directory: Address) -> anyhow::Result<()> {
    let config = ChainConfig {
        endpoints: vec![url.parse()?],
        directory,
        chain_id: Some(node.genesis().chain_id),
        policy: EndpointPolicy::default(),
    };
    let chain = Chain::connect(&config).await.context("looking for the contracts")?;
    let deployment = chain.deployment();
    let call = EpochCall {
        contract: deployment.randomness.0,
        input: deployment.seal_input(),
        genesis: deployment.parameters.genesis,
        epoch_seconds: deployment.parameters.epoch_seconds,
    };
    Ok(node.call_each_epoch(call).await?)
}

/// Whoever waits for the file finds all of it.
fn write_whole(file: &Path, text: &str) -> std::io::Result<()> {
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".new");
    std::fs::write(&unfinished, format!("{text}\n"))?;
    std::fs::rename(&unfinished, file)
}

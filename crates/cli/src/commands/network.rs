//! `seedbank up`, `down` and `status`: a whole network on this machine.

use crate::app::App;
use crate::args::Up;
use crate::chain_config::{Budget, ChainConfig, ChainSection};
use crate::commands::key::{self, Protect};
use crate::keystore::{KeyRing, Phrase, Protection};
use crate::local::{Lifetime, Network, Running, STEWARD, Starting};
use crate::local_chain::{self, Clock, LocalChain, Plan};
use crate::output::{Align, parse_bytes, table};
use crate::stop::stop_signal;
use anyhow::{Context, bail};
use seedbank_agreement::Amount;
use seedbank_catalog::Books;
use seedbank_catalog::records::ProviderProfile;
use seedbank_client::registry::Naming;
use seedbank_formats::PublicKey;
use seedbank_protocol::messages::{Prices, TokenUnits};
use seedbank_provider::{ByteSize, InitChain, InitOptions, InitWallet};
use seedbank_steward::open_books;
use serde::Serialize;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// What each provider of a local network offers.
const LOCAL_CAPACITY: ByteSize = ByteSize(1 << 40);

/// The units of one token of a local network.
const TOKEN: u128 = 1_000_000_000_000_000_000;

/// What each provider of a local network asks for: a token for a GiB and month, a tenth of one for a GiB read.
const LOCAL_PRICES: Prices =
    Prices { storage_per_gib_month: TokenUnits(TOKEN), retrieval_per_gib: TokenUnits(TOKEN / 10) };

/// What each provider of a local network stakes: enough for the rent of all that it may hold.
const LOCAL_STAKE: u128 = 1_000 * TOKEN;

/// Local providers claim one of so many sites in turn, so that rules about regions have something to do.
const REGIONS: [&str; 4] = ["north", "east", "south", "west"];

pub(crate) async fn up(app: &App, options: &Up) -> anyhow::Result<()> {
    let lifetime = if options.detach { Lifetime::Detached } else { Lifetime::WithParent };
    let credit = options.credit.as_ref().map(|credit| parse_bytes(credit).context("--credit")).transpose()?;
    let chain = (!options.no_chain).then_some(Plan {
        port: options.chain_port,
        epoch_seconds: options.epoch_seconds,
        clock: Clock::Wall,
        credit: credit.map(ByteSize),
    });
    let running = start(app, options.providers, options.port, chain, lifetime).await?;
    // Before anybody is told that it runs, and so may want it to stop.
    let stop = stop_signal()?;
    app.output.data(&running.network, |network| network_text(app, network))?;
    if options.detach {
        app.output.say(format_args!("`seedbank down` stops it"));
        return Ok(());
    }
    app.output.say(format_args!("Ctrl-C stops it"));
    stop.await;
    app.output.say(format_args!("stopping"));
    running.stop()
}

/// Starts providers and steward under this home, and before them a chain, if they are to be paid. A network that has a
/// chain keeps it.
pub(crate) async fn start(
    app: &App,
    providers: u16,
    port: u16,
    chain: Option<Plan>,
    lifetime: Lifetime,
) -> anyhow::Result<Running> {
    app.home.create()?;
    let dir = app.home.network_dir();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .with_context(|| format!("making {}", dir.display()))?;
    if let Some(network) = Network::load(&dir)?
        && network.is_running()
    {
        bail!(
            "a network runs already from {}; see `seedbank status`, stop it with `seedbank down`",
            dir.display()
        );
    }
    let ring = keys(app)?;
    let owner = ring.identity().public();
    let mut starting = Starting::new(&dir, lifetime);
    let clock = chain.map_or(Clock::Wall, |plan| plan.clock);
    let kept = LocalChain::load(&dir)?.map(|_| Plan { port: 0, epoch_seconds: 0, clock, credit: None });
    let plan = chain.or(kept);
    let chain = match plan {
        Some(plan) => Some(local_chain::start(&mut starting, &dir, plan).await?),
        None => None,
    };
    if let Some(chain) = &chain {
        pay_on(app, chain)?;
    }
    let mut profiles = Vec::new();
    for number in 1..=providers {
        let name = format!("provider-{number}");
        let folder = dir.join(&name);
        let operator = format!("operator-{number}");
        let region = REGIONS[usize::from(number) % REGIONS.len()].to_owned();
        if !folder.exists() {
            let listen_port =
                if port == 0 { 0 } else { port.checked_add(number - 1).context("--port is too high")? };
            let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let init = InitOptions {
                listen: SocketAddr::new(local, listen_port),
                metrics: SocketAddr::new(local, 0),
                capacity: LOCAL_CAPACITY,
                region: region.clone(),
                operator: Some(operator.clone()),
                clients: vec![(owner, LOCAL_CAPACITY)],
                prices: chain.as_ref().map(|_| LOCAL_PRICES).unwrap_or_default(),
                chain: chain.as_ref().map(earning_on),
                ..InitOptions::default()
            };
            seedbank_provider::init(&folder, &init)?;
            if let Some(plan) = &plan {
                tune(&folder, plan)?;
            }
        }
        let path = folder.to_str().context("the home's path is not UTF-8")?;
        let serving = starting.start(&name, &folder, &["provider", "run", path])?;
        let key: PublicKey = serving.key.parse().context("a provider's own key")?;
        profiles.push(ProviderProfile {
            key,
            address: serving.address,
            operator,
            region,
            capacity_bytes: LOCAL_CAPACITY.0,
            free_bytes: LOCAL_CAPACITY.0,
            accepting: true,
        });
    }
    if let Some(chain) = &chain {
        chain.wait_for_stakes(providers, Amount(LOCAL_STAKE)).await?;
    }
    let books = open_books(&app.books_paths())?;
    for profile in profiles {
        books.put_provider(profile)?;
    }
    drop(books);
    let home = app.home.root().to_str().context("the home's path is not UTF-8")?.to_owned();
    let mut args = vec!["steward", "run", "--metrics", "127.0.0.1:0", "--home", &home];
    let passphrase_file = app.passphrase_file.as_ref().map(|file| file.to_string_lossy().into_owned());
    if let Some(file) = &passphrase_file {
        args.extend(["--passphrase-file", file]);
    }
    starting.start(STEWARD, app.home.root(), &args)?;
    starting.finish()
}

/// Tells this home that it pays on `chain`, unless its owner has decided about that already.
fn pay_on(app: &App, chain: &LocalChain) -> anyhow::Result<()> {
    let path = app.home.chain_file();
    if ChainConfig::load(&path)?.is_some() {
        return Ok(());
    }
    let config = ChainConfig {
        chain: ChainSection { rpc: vec![chain.url()], directory: chain.directory, naming: Naming::default() },
        budget: Budget {
            rent_per_gib_month_max: Amount(2 * LOCAL_PRICES.storage_per_gib_month.0),
            egress_per_gib_max: Amount(2 * LOCAL_PRICES.retrieval_per_gib.0),
            per_month: Amount(10_000 * TOKEN),
            ..Budget::default()
        },
    };
    config.save(&path)?;
    Ok(())
}

/// How a provider is paid on `chain`, where tokens come from a faucet.
fn earning_on(chain: &LocalChain) -> InitChain {
    InitChain {
        rpc: vec![chain.url()],
        directory: chain.directory,
        stake: Amount(LOCAL_STAKE),
        faucet: true,
        wallet: InitWallet::Here,
    }
}

/// Tells a provider, whose folder was just prepared, what readers may owe it, and to want its money at once where weeks pass
/// in seconds.
fn tune(folder: &Path, plan: &Plan) -> anyhow::Result<()> {
    let mut text = String::new();
    if let Some(credit) = plan.credit {
        text.push_str(&format!("[chain.credit]\nper_key = \"{credit}\"\n"));
    }
    if plan.clock == Clock::Moved {
        text.push_str("[chain.redeem]\nevery_s = 1\n");
    }
    let path = folder.join(seedbank_provider::CONFIG_FILE);
    let mut file =
        OpenOptions::new().append(true).open(&path).with_context(|| format!("opening {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

/// This home's keys; a local network makes throw-away ones when there are none.
fn keys(app: &App) -> anyhow::Result<KeyRing> {
    if app.key_store().exists() {
        return app.keys();
    }
    let ring = key::create(app, &Phrase::generate()?, Protect::Insecurely)?;
    app.output.say(format_args!(
        "made keys without a passphrase for this local network: don't keep anything valuable under them"
    ));
    Ok(ring)
}

#[derive(Serialize)]
struct Down {
    stopped: usize,
    all_by_themselves: bool,
}

pub(crate) fn down(app: &App) -> anyhow::Result<()> {
    let dir = app.home.network_dir();
    let Some(network) = Network::load(&dir)? else {
        bail!("no network was started from {}", dir.display());
    };
    let running = network.processes.iter().filter(|process| process.is_running()).count();
    let all_by_themselves = network.stop(&dir)?;
    let down = Down { stopped: running, all_by_themselves };
    app.output.data(&down, |down| {
        let how = if down.all_by_themselves { "" } else { "; some had to be killed" };
        format!("{} processes stopped{how}", down.stopped)
    })?;
    Ok(())
}

#[derive(Serialize)]
struct Status {
    home: String,
    owner: Option<String>,
    protection: &'static str,
    steward: &'static str,
    network: Vec<ProcessStatus>,
    datasets: usize,
    providers_known: usize,
}

#[derive(Serialize)]
struct ProcessStatus {
    name: String,
    pid: i32,
    running: bool,
    key: String,
    address: String,
    metrics: Option<String>,
}

pub(crate) fn status(app: &App) -> anyhow::Result<()> {
    let network = Network::load(&app.home.network_dir())?;
    let processes: Vec<ProcessStatus> = network
        .iter()
        .flat_map(|network| &network.processes)
        .map(|process| ProcessStatus {
            name: process.name.clone(),
            pid: process.pid,
            running: process.is_running(),
            key: process.serving.key.clone(),
            address: process.serving.address.clone(),
            metrics: process.serving.metrics.clone(),
        })
        .collect();
    let store = app.key_store();
    let protection = if store.exists() {
        match store.protection()? {
            Protection::None => "none (insecure)",
            Protection::Passphrase(_) => "passphrase",
        }
    } else {
        "no keys yet"
    };
    // Status never asks for a passphrase, so a protected owner's key is shown by `key show` alone.
    let owner = if protection == "none (insecure)" {
        Some(app.keys()?.identity().public().to_string())
    } else {
        None
    };
    let (datasets, providers_known) = match app.home.root().exists() {
        true => {
            let books = app.books()?;
            (crate::source::own_datasets(&books)?.len(), books.providers()?.len())
        }
        false => (0, 0),
    };
    let steward = if seedbank_steward::SocketCarrier::connect(&app.home.steward_socket()).is_ok() {
        "running"
    } else {
        "not running"
    };
    let status = Status {
        home: app.home.root().display().to_string(),
        owner,
        protection,
        steward,
        network: processes,
        datasets,
        providers_known,
    };
    app.output.data(&status, status_text)?;
    Ok(())
}

fn status_text(status: &Status) -> String {
    let mut text = format!(
        "home       {}\nkeys       {}{}\nsteward    {}\nproviders  {} known\ndatasets   {}",
        status.home,
        status.owner.as_ref().map(|owner| format!("{owner}, ")).unwrap_or_default(),
        status.protection,
        status.steward,
        status.providers_known,
        status.datasets
    );
    if !status.network.is_empty() {
        let rows: Vec<Vec<String>> = status
            .network
            .iter()
            .map(|process| {
                vec![
                    process.name.clone(),
                    if process.running { process.pid.to_string() } else { "gone".to_owned() },
                    process.key[..process.key.len().min(8)].to_owned(),
                    process.address.clone(),
                    process
                        .metrics
                        .as_ref()
                        .map(|address| format!("http://{address}/metrics"))
                        .unwrap_or_default(),
                ]
            })
            .collect();
        text.push_str("\n\n");
        text.push_str(&table(
            &[
                ("process", Align::Left),
                ("pid", Align::Right),
                ("key", Align::Left),
                ("address", Align::Left),
                ("metrics", Align::Left),
            ],
            &rows,
        ));
    }
    text
}

fn network_text(app: &App, network: &Network) -> String {
    let mut lines = vec![format!(
        "{} providers and a steward run under {}",
        network.providers().count(),
        app.home.root().display()
    )];
    for process in &network.processes {
        lines.push(format!("  {:<12} pid {:<7} {}", process.name, process.pid, process.serving.address));
    }
    lines.join("\n")
}

//! `seedbank provider`: run one, or say which ones this home may use.

mod money;

use crate::app::App;
use crate::args::{Provider as Command, ProviderInit};
use crate::keystore::ProviderAddress;
use crate::local::{Serving, end_with_parent};
use crate::output::{Align, bytes, parse_bytes, table};
use crate::stop::stop_signal;
use anyhow::{Context, bail};
use seedbank_catalog::Books;
use seedbank_catalog::records::{Provider, ProviderProfile, ProviderSource};
use seedbank_formats::PublicKey;
use seedbank_protocol::messages::{Accepting, Hello, Prices, TokenUnits};
use seedbank_provider::{ByteSize, InitOptions, Liveness, Mode, RunOptions, Strangers};
use serde::Serialize;
use std::path::{Path, PathBuf};

pub(crate) async fn run(app: &App, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init(options) => init(app, &options),
        Command::Run { dir, with_parent } => serve(app, &dir, with_parent).await,
        Command::Status { target } => status(app, &target).await,
        Command::Register { dir, wallet } => money::register(app, &dir, &wallet).await,
        Command::Withdraw { dir, to, wallet } => money::withdraw(app, &dir, to.as_deref(), &wallet).await,
        Command::Exit { dir, wallet } => money::exit(app, &dir, &wallet).await,
        Command::Add { address } => add(app, &address).await,
        Command::Ls => list(app),
        Command::Rm { key } => remove(app, &key),
    }
}

#[derive(Serialize)]
struct Prepared {
    key: PublicKey,
    dir: PathBuf,
    /// The wallet that is paid, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    wallet: Option<String>,
    /// The key that acts for it, if that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    operator: Option<String>,
}

fn init(app: &App, options: &ProviderInit) -> anyhow::Result<()> {
    let capacity = ByteSize(parse_bytes(&options.capacity).context("--capacity")?);
    let listen =
        options.listen.parse().with_context(|| format!("--listen {:?} is no address", options.listen))?;
    let prices = Prices {
        storage_per_gib_month: TokenUnits(options.price_storage.into()),
        retrieval_per_gib: TokenUnits(options.price_egress.into()),
    };
    let strangers = if options.open { Strangers::Welcome { quota: capacity } } else { Strangers::Refused };
    let init = InitOptions {
        listen,
        capacity,
        region: options.region.clone(),
        operator: options.operator.clone(),
        prices,
        strangers,
        chain: money::init_chain(app, options)?,
        ..InitOptions::default()
    };
    let report = seedbank_provider::init(&options.dir, &init)?;
    let wallet = report.wallet.map(|wallet| wallet.to_string());
    let operator = report.operator.map(|operator| operator.to_string());
    let prepared = Prepared { key: report.key, dir: report.dir, wallet, operator };
    app.output.data(&prepared, |prepared| {
        let paid = match (&prepared.wallet, &prepared.operator) {
            (Some(wallet), None) => format!("it is paid as {wallet}: send it the stake and some coin for gas\n"),
            (Some(wallet), Some(operator)) => format!(
                "it is paid as {wallet}, and sends as {operator}: send that some coin for gas, and the wallet the stake and a little coin\n\
                 then name the operator with `seedbank provider register {} --wallet-key FILE` (or --wallet-of-home)\n",
                prepared.dir.display()
            ),
            (None, _) => String::new(),
        };
        format!(
            "provider {} is prepared in {dir}\n{paid}edit {dir}/provider.toml, then start it with `seedbank provider run {dir}`",
            prepared.key,
            dir = prepared.dir.display()
        )
    })?;
    Ok(())
}

async fn serve(app: &App, dir: &Path, with_parent: bool) -> anyhow::Result<()> {
    if with_parent {
        end_with_parent()?;
    }
    let output = app.output;
    let on_ready = move |serving: seedbank_provider::Serving| {
        let line = Serving {
            key: serving.key.to_string(),
            address: serving.address.to_string(),
            metrics: Some(serving.metrics.to_string()),
        };
        // Whoever started this process may have gone; serving goes on.
        let _unheard = output.data(&line, |line| {
            format!("provider {}@{} serves; metrics at {}", line.key, line.address, serving.metrics)
        });
    };
    seedbank_provider::run(dir, RunOptions::default(), on_ready, stop_signal()?).await?;
    Ok(())
}

#[derive(Serialize)]
struct Own {
    #[serde(flatten)]
    report: seedbank_provider::StatusReport,
    /// What it earned and lost, if it is paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    money: Option<seedbank_provider::MoneyReport>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Told {
    Own(Box<Own>),
    Other(Box<Hello>),
}

async fn status(app: &App, target: &str) -> anyhow::Result<()> {
    if let Ok(address) = target.parse::<ProviderAddress>() {
        let hello = greet(app, &address).await?;
        app.output.data(&Told::Other(Box::new(hello)), |told| match told {
            Told::Other(hello) => hello_text(&address, hello),
            Told::Own(_) => String::new(),
        })?;
        return Ok(());
    }
    let report = seedbank_provider::status(Path::new(target))?;
    let money = seedbank_provider::report(Path::new(target))?;
    let mut text = status_text(&report);
    if let Some(money) = &money {
        text.push_str(&money::text(money));
    }
    app.output.data(&Told::Own(Box::new(Own { report, money })), |_| text)?;
    Ok(())
}

fn status_text(report: &seedbank_provider::StatusReport) -> String {
    let status = &report.status;
    let liveness = match report.liveness {
        Liveness::Running => "running",
        Liveness::Stopped => "stopped",
        Liveness::Died => "gone without a word",
    };
    let mode = match &status.mode {
        Mode::ReadWrite => "read and write".to_owned(),
        Mode::ReadOnly { reason } => format!("READ ONLY: {reason}"),
        Mode::Stopped => "taking nothing".to_owned(),
    };
    let mut text = format!(
        "provider   {}@{}\nstate      {liveness}, {mode}\noperator   {} in {}\nmetrics    http://{}/metrics",
        status.key, status.address, status.operator, status.region, status.metrics
    );
    if let Some(usage) = &status.usage {
        text.push_str(&format!(
            "\nholds      {} in {} fragments for {} clients, {} of {} left\nrotten     {} fragments",
            bytes(usage.used_bytes),
            usage.fragments,
            usage.clients,
            bytes(usage.free_bytes),
            bytes(usage.capacity_bytes),
            usage.rotten_fragments
        ));
    }
    text
}

fn hello_text(address: &ProviderAddress, hello: &Hello) -> String {
    format!(
        "provider   {address}\noperator   {} in {}\noffers     {} of {} for this key\nprices     {} units per GiB-month, {} per GiB read\nspeaks     {} {}",
        hello.operator,
        hello.region,
        bytes(hello.free_bytes),
        bytes(hello.capacity_bytes),
        hello.prices.storage_per_gib_month.0,
        hello.prices.retrieval_per_gib.0,
        hello.protocol,
        hello.features.join(" ")
    )
}

/// Asks a provider who it is, under this home's key.
async fn greet(app: &App, address: &ProviderAddress) -> anyhow::Result<Hello> {
    let ring = app.keys()?;
    let network = app.network(&ring).await?;
    network.learn([(&address.key(), address.address())]);
    Ok(network.hello(&address.key()).await?)
}

async fn add(app: &App, address: &str) -> anyhow::Result<()> {
    let address: ProviderAddress = address.parse().context("a provider is KEY@HOST:PORT")?;
    let hello = greet(app, &address).await?;
    let profile = profile(&address, hello);
    app.books()?.put_provider(profile.clone())?;
    app.output.data(&profile, |profile| {
        let space = bytes(profile.free_bytes);
        format!("provider {} of {} may be used: it offers {space}", profile.key.short(), profile.operator)
    })?;
    Ok(())
}

pub(crate) fn profile(address: &ProviderAddress, hello: Hello) -> ProviderProfile {
    ProviderProfile {
        key: address.key(),
        address: address.address().to_owned(),
        operator: hello.operator,
        region: hello.region,
        capacity_bytes: hello.capacity_bytes,
        free_bytes: hello.free_bytes,
        accepting: hello.accepting != Accepting::Nobody,
    }
}

fn list(app: &App) -> anyhow::Result<()> {
    let providers = app.books()?.providers()?;
    app.output.data(&providers, |providers| {
        let rows: Vec<Vec<String>> = providers
            .iter()
            .map(|provider| {
                vec![
                    provider.profile.key.short(),
                    provider.profile.address.clone(),
                    provider.profile.operator.clone(),
                    provider.profile.region.clone(),
                    bytes(provider.profile.free_bytes),
                    source_text(provider),
                    provider.stats.last_seen.map_or("never".to_owned(), |time| time.to_string()),
                ]
            })
            .collect();
        table(
            &[
                ("key", Align::Left),
                ("address", Align::Left),
                ("operator", Align::Left),
                ("region", Align::Left),
                ("offers", Align::Right),
                ("from", Align::Left),
                ("last seen", Align::Left),
            ],
            &rows,
        )
    })?;
    Ok(())
}

/// How it came into the books, and whether the registry says that it goes.
fn source_text(provider: &Provider) -> String {
    let source = match (provider.source, provider.wallet) {
        (ProviderSource::Hand, None) => "hand",
        (ProviderSource::Hand, Some(_)) => "hand, registry",
        (ProviderSource::Registry, _) => "registry",
    };
    if provider.leaving { format!("{source}, leaving") } else { source.to_owned() }
}

#[derive(Serialize)]
struct Forgotten {
    key: PublicKey,
    fragments_to_move: u64,
}

fn remove(app: &App, key: &str) -> anyhow::Result<()> {
    let books = app.books()?;
    let matching: Vec<PublicKey> = books
        .providers()?
        .iter()
        .map(|provider| provider.profile.key)
        .filter(|provider| provider.to_string().starts_with(&key.to_lowercase()))
        .collect();
    let provider = match matching[..] {
        [provider] => provider,
        [] => bail!("no provider's key begins with {key:?}; see `seedbank provider ls`"),
        _ => bail!("{key:?} could be any of {} providers: give more digits", matching.len()),
    };
    let fragments = books.forget_holdings(provider)?;
    books.remove_provider(provider)?;
    app.output.data(&Forgotten { key: provider, fragments_to_move: fragments }, |forgotten| {
        format!(
            "provider {} is no longer used; a running steward moves its {} fragments elsewhere",
            forgotten.key.short(),
            forgotten.fragments_to_move
        )
    })?;
    Ok(())
}

//! `seedbank bench payments`: what paying for reads costs, beside the same reads for nothing.
//!
//! One local network gets a file, and this process reads it whole, again and again: from the providers as they are, which
//! are paid, and from the same providers on the same folders without a chain, in turn. All of it is started anew for each
//! round, so that no luck of one start stays on one side. All processor time of the network is counted, the chain's too.
//! What differs is vouchers, and that paid providers follow a chain. `--credit` makes vouchers as frequent as it takes to
//! see them; `--control` leaves the chain away on both sides and shows how far equal rounds lie apart.

use super::data::{Noise, write_file};
use super::limit::GIB;
use super::local::{push_options, say};
use super::meter::{Cost, Meter, cpu_seconds_of, float};
use super::timing::Spread;
use crate::app::App;
use crate::commands::dataset::{NewDataset, push_folder};
use crate::local::Lifetime;
use crate::local_chain::{self, CHAIN, Clock};
use crate::output::{Align, bytes, table};
use crate::scratch::Scratch;
use crate::source::{Opened, open};
use crate::target::Target;
use anyhow::{Context, bail};
use seedbank_client::pull;
use seedbank_formats::path::TreePath;
use seedbank_provider::ByteSize;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

const NAME: &str = "read";
const FILE: &str = "data.bin";
const SEED: u64 = 0x9a1d;

/// No epoch ends while something is measured: proofs are another matter.
const EPOCH_SECONDS: u32 = 86_400;

/// Vouchers that are on their way when a round ends belong to it.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to measure with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) size: u64,
    /// Reads of the whole file in each round.
    pub(crate) reads: u32,
    /// Rounds of each kind, in turn.
    pub(crate) pairs: u32,
    pub(crate) providers: u16,
    /// What a reader may owe a provider; `None` for the provider's own default.
    pub(crate) credit: Option<u64>,
    pub(crate) against: Against,
}

/// What stands beside unpaid rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Against {
    Paid,
    /// Other unpaid rounds.
    Control,
}

#[derive(Debug, Serialize)]
struct Report {
    size: u64,
    reads: u32,
    providers: u16,
    /// Data and total fragments.
    scheme: (usize, usize),
    credit_bytes: Option<u64>,
    beside: Against,
    pairs: Vec<Pair>,
    /// Processor seconds for each GiB, all processes together.
    with: Spread,
    without: Spread,
    /// Of each pair, the one over the other.
    ratio: Spread,
    vouchers_per_gib: f64,
    /// What all processes need more, for each voucher; `None` where none was sent.
    cpu_ms_per_voucher: Option<Spread>,
}

#[derive(Debug, Serialize)]
struct Pair {
    with: Round,
    without: Round,
}

/// Reads of one round.
#[derive(Debug, Serialize)]
struct Round {
    /// The chain's processor time counts as the providers' here.
    #[serde(flatten)]
    cost: Cost,
    /// Of this, the chain's.
    chain_cpu_seconds: f64,
    fetched_bytes: u64,
    vouchers: u64,
}

impl Round {
    fn cpu_per_gib(&self) -> f64 {
        self.cost.cpu_seconds.total() * GIB / float(self.cost.bytes.max(1))
    }
}

pub(crate) async fn run(app: &App, plan: &Plan) -> anyhow::Result<()> {
    let mut subject = Subject::make(app, *plan).await?;
    let mut pairs = Vec::new();
    for number in 1..=plan.pairs.max(1) {
        say(app, &format!("pair {number} of {}", plan.pairs));
        // Whatever changes with time changes for both.
        let pair = if number % 2 == 0 {
            let with = subject.round(plan.against).await?;
            Pair { with, without: subject.round(Against::Control).await? }
        } else {
            let without = subject.round(Against::Control).await?;
            Pair { with: subject.round(plan.against).await?, without }
        };
        pairs.push(pair);
    }
    let scheme = subject.scheme;
    subject.scratch.close()?;
    app.output.data(&report(plan, scheme, pairs), text)?;
    Ok(())
}

fn report(plan: &Plan, scheme: (usize, usize), pairs: Vec<Pair>) -> Report {
    let gib = float(pairs.iter().map(|pair| pair.with.cost.bytes).sum()) / GIB;
    let vouchers: u64 = pairs.iter().map(|pair| pair.with.vouchers).sum();
    let more = |pair: &Pair| {
        let more = pair.with.cost.cpu_seconds.total() - pair.without.cost.cpu_seconds.total();
        more * 1e3 / float(pair.with.vouchers.max(1))
    };
    Report {
        size: plan.size,
        reads: plan.reads,
        providers: plan.providers,
        scheme,
        credit_bytes: plan.credit,
        beside: plan.against,
        with: Spread::of(pairs.iter().map(|pair| pair.with.cpu_per_gib())),
        without: Spread::of(pairs.iter().map(|pair| pair.without.cpu_per_gib())),
        ratio: Spread::of(pairs.iter().map(|pair| pair.with.cpu_per_gib() / pair.without.cpu_per_gib())),
        vouchers_per_gib: float(vouchers) / gib.max(1e-9),
        cpu_ms_per_voucher: (vouchers > 0).then(|| Spread::of(pairs.iter().map(more))),
        pairs,
    }
}

/// The network with the file in it. It rests between rounds.
struct Subject<'a> {
    app: &'a App,
    plan: Plan,
    scratch: Scratch,
    /// Folders of providers.
    providers: Vec<PathBuf>,
    scheme: (usize, usize),
}

impl<'a> Subject<'a> {
    async fn make(app: &'a App, plan: Plan) -> anyhow::Result<Subject<'a>> {
        let scratch = Scratch::make("bench-payments")?;
        let folder = scratch.path("data");
        let file = folder.join(FILE);
        std::fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        write_file(&file, plan.size, &mut Noise::new(SEED))
            .await
            .with_context(|| format!("writing {}", file.display()))?;
        let mut subject = Subject { app, plan, scratch, providers: Vec::new(), scheme: (0, 0) };
        say(app, "a network and a file in it");
        let inner = subject.start(plan.against).await?;
        let network = &subject.scratch.running()?.network;
        subject.providers = network.providers().map(|provider| provider.dir.clone()).collect();
        let pushed = push_folder(&inner, NAME, &NewDataset::default(), &push_options(&folder)).await?;
        subject.scheme = (pushed.scheme.data(), pushed.scheme.total());
        subject.scratch.stop()?;
        Ok(subject)
    }

    async fn start(&mut self, against: Against) -> anyhow::Result<App> {
        let Plan { providers, credit, .. } = self.plan;
        let chain = match against {
            Against::Control => None,
            Against::Paid => Some(local_chain::Plan {
                port: 0,
                epoch_seconds: EPOCH_SECONDS,
                clock: Clock::Wall,
                credit: credit.map(ByteSize),
            }),
        };
        self.scratch.start(self.app, providers, chain, Lifetime::WithParent).await
    }

    async fn round(&mut self, against: Against) -> anyhow::Result<Round> {
        let kept = match against {
            Against::Paid => None,
            Against::Control => Some(Unpaid::make(&self.scratch.home()?.network_dir(), &self.providers)?),
        };
        let inner = self.start(against).await?;
        let measured = self.reads(&inner).await?;
        self.scratch.stop()?;
        if let Some(kept) = kept {
            kept.undo()?;
        }
        Ok(measured)
    }

    async fn reads(&self, inner: &App) -> anyhow::Result<Round> {
        let Plan { size, reads, .. } = self.plan;
        let network = &self.scratch.running()?.network;
        let meter = Meter::of(network);
        let chain = network.processes.iter().find(|process| process.name == CHAIN);
        let chain = chain.map(|chain| u32::try_from(chain.pid)).transpose().context("a process id")?;
        let Opened { reader, snapshot } = open(inner, &Target::parse(NAME)?).await?;
        let network = reader.network();
        let path = TreePath::parse(FILE)?;
        // What is done once is done before: connections, quotes, lanes and a first voucher, and what processes do when they start.
        pull::cat(&reader, &snapshot, &path, 0..size, std::io::sink()).await?;
        network.settle(PATIENCE).await;
        meter.at_rest(PATIENCE).await?;
        let chain_cpu = || chain.map_or(Ok(0.0), cpu_seconds_of);
        let counts = || (network.traffic.range_bytes.load(Ordering::Relaxed), network.vouchers());
        let (before, chain_before) = (counts(), chain_cpu()?);
        let begun = meter.begin()?;
        for _ in 0..reads.max(1) {
            let read = pull::cat(&reader, &snapshot, &path, 0..size, std::io::sink()).await?;
            if read != size {
                bail!("the file came back with {read} bytes instead of {size}");
            }
        }
        network.settle(PATIENCE).await;
        let cost = meter.end(begun, size * u64::from(reads.max(1)))?;
        let (after, chain_after) = (counts(), chain_cpu()?);
        Ok(Round {
            cost,
            chain_cpu_seconds: chain_after - chain_before,
            fetched_bytes: after.0 - before.0,
            vouchers: after.1 - before.1,
        })
    }
}

/// Providers whose chain is left away for a while, and the chain with them.
struct Unpaid {
    /// Configurations as they were.
    configs: Vec<(PathBuf, String)>,
    /// What a network remembers its chain by, and where that is meanwhile.
    chain: Option<(PathBuf, PathBuf)>,
}

impl Unpaid {
    fn make(network: &Path, providers: &[PathBuf]) -> anyhow::Result<Unpaid> {
        let mut configs = Vec::new();
        for folder in providers {
            let path = folder.join(seedbank_provider::CONFIG_FILE);
            let before =
                std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let mut config: toml::Table =
                before.parse().with_context(|| format!("parsing {}", path.display()))?;
            config.remove("chain");
            std::fs::write(&path, config.to_string())
                .with_context(|| format!("writing {}", path.display()))?;
            configs.push((path, before));
        }
        let remembered = network.join(local_chain::REMEMBERED);
        let chain = remembered.exists().then(|| (remembered.clone(), remembered.with_extension("aside")));
        if let Some((there, aside)) = &chain {
            std::fs::rename(there, aside).context("putting the chain aside")?;
        }
        Ok(Unpaid { configs, chain })
    }

    fn undo(self) -> anyhow::Result<()> {
        for (path, text) in self.configs {
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        match self.chain {
            Some((there, aside)) => std::fs::rename(aside, there).context("taking the chain back"),
            None => Ok(()),
        }
    }
}

fn text(report: &Report) -> String {
    let (data, total) = report.scheme;
    let told = |spread: &Spread| format!("{:.3} ({:.3}-{:.3})", spread.median, spread.min, spread.max);
    let of = |round: fn(&Pair) -> &Round, name: &str, all: &Spread| {
        let mean = |cpu: fn(&Round) -> f64| {
            let each = report.pairs.iter().map(|pair| {
                let round = round(pair);
                cpu(round) * GIB / float(round.cost.bytes.max(1))
            });
            format!("{:.3}", Spread::of(each).median)
        };
        vec![
            name.to_owned(),
            told(all),
            mean(|round| round.cost.cpu_seconds.client),
            mean(|round| round.cost.cpu_seconds.providers - round.chain_cpu_seconds),
            mean(|round| round.cost.cpu_seconds.steward),
            mean(|round| round.chain_cpu_seconds),
        ]
    };
    let first = if report.beside == Against::Paid { "with vouchers" } else { "control, unpaid" };
    let rows = table(
        &[
            ("reads", Align::Left),
            ("CPU s/GiB", Align::Right),
            ("client", Align::Right),
            ("providers", Align::Right),
            ("steward", Align::Right),
            ("chain", Align::Right),
        ],
        &[of(|pair| &pair.with, first, &report.with), of(|pair| &pair.without, "without", &report.without)],
    );
    let each = report.cpu_ms_per_voucher.as_ref().map_or(String::new(), |spread| {
        format!("; {:.2} ms ({:.2}-{:.2}) more for each", spread.median, spread.min, spread.max)
    });
    format!(
        "{} read {} times in each of {} pairs, {} providers, any {data} of {total} fragments; medians (lowest-highest)\n\n{rows}\
         ratio {}, {:.1} vouchers per GiB{each}",
        bytes(report.size),
        report.reads,
        report.pairs.len(),
        report.providers,
        told(&report.ratio),
        report.vouchers_per_gib
    )
}

//! `seedbank dataset`: push, pull, read, list, check, remove, hand on.

mod handing_on;
mod listing;
pub(crate) mod removal;

use crate::app::{App, dataset_keys};
use crate::args::{Dataset as Command, DatasetKey};
use crate::bar::Bar;
use crate::keystore::KeyRing;
use crate::output::{Output, bytes, duration, rate};
use crate::paying;
use crate::registries;
use crate::source::{Opened, open};
use crate::target::{Target, parse_range, parse_scheme};
use anyhow::{Context, bail};
use seedbank_catalog::records::Dataset;
use seedbank_catalog::{Books, CatalogError};
use seedbank_client::SharedBooks;
use seedbank_client::glob::Filter;
use seedbank_client::home_dataset::{self, home_dataset_id};
use seedbank_client::network::wall_clock;
use seedbank_client::pull::{self, PullReport};
use seedbank_client::push::{self, Made, PushContext, PushError, PushOptions, PushReport, Rehash, Stream};
use seedbank_client::restore::{Overwrite, RestoreOptions};
use seedbank_formats::keys::{KeyEpoch, dataset_id};
use seedbank_formats::path::TreePath;
use seedbank_formats::policy::Policy;
use seedbank_formats::seal::Compression;
use seedbank_stewardship::scheme::{default_scheme, explicit_scheme};
use serde::Serialize;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Open questions of blame are waited for this long at the end of a command.
const BLAME_PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn run(app: &App, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Push { name, path, file_name, message, exclude, rehash, public, scheme, branch, zstd } => {
            let stream = standard_input(&path, file_name.as_deref(), &exclude)?;
            let options = PushOptions {
                source: path,
                filter: Filter::parse::<String>(&[], &exclude)?,
                branch,
                message,
                rehash: if rehash { Rehash::All } else { Rehash::Changed },
                compression: zstd.map_or(Compression::Auto, |level| Compression::Zstd { level }),
            };
            let new = NewDataset { public, scheme: scheme.as_deref().map(parse_scheme).transpose()? };
            let began = Instant::now();
            let report = push_source(app, &name, &new, &options, stream, Listing::Published).await?;
            tell_rate(app.output, report.counts.bytes_read, began);
            app.output.data(&Pushed::new(&name, &report), |_| push_text(&name, &report))?;
            Ok(())
        }
        Command::Pull { name, dest, include, exclude, overwrite } => {
            let overwrite = if overwrite { Overwrite::Yes } else { Overwrite::No };
            let filter = Filter::parse(&include, &exclude)?;
            let began = Instant::now();
            let (opened, report) = pull_version(app, &name, &dest, &filter, overwrite).await?;
            tell_rate(app.output, report.bytes - report.bytes_kept, began);
            app.output.data(&Pulled::new(&opened, &report), |pulled| pull_text(pulled, &dest))?;
            Ok(())
        }
        Command::Cat { file, range } => cat(app, &file, range.as_deref()).await,
        Command::Ls { name: None } => listing::list_datasets(app),
        Command::Ls { name: Some(name) } => listing::list_files(app, &name).await,
        Command::Log { name } => listing::log(app, &name).await,
        Command::Show { name } => listing::show(app, &name).await,
        Command::Verify { name } => {
            let (opened, report) = verify_version(app, &name).await?;
            app.output.data(&Pulled::new(&opened, &report), |pulled| {
                format!(
                    "verified {} files, {} bytes, against version {}",
                    pulled.files, pulled.bytes, pulled.version
                )
            })?;
            Ok(())
        }
        Command::Rm { name, yes } => removal::remove(app, &name, yes).await,
        Command::Key(DatasetKey::Export { name, file }) => handing_on::export(app, &name, &file),
        Command::Key(DatasetKey::Import { file, name }) => handing_on::import(app, &file, name.as_deref()),
    }
}

/// What a dataset is made with, if it has to be made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NewDataset {
    pub(crate) public: bool,
    pub(crate) scheme: Option<seedbank_erasure::Scheme>,
}

/// Whether the owner's list of datasets, from which a recovery phrase finds them again, is to name this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listing {
    /// It is published when the dataset is new.
    Published,
    /// The dataset will not last: the list stays as it is.
    Untouched,
}

/// What `-` is called in its version when nothing else is said.
const STREAM_NAME: &str = "stdin";

/// Standard input, if that is what was named.
fn standard_input(path: &Path, name: Option<&str>, exclude: &[String]) -> anyhow::Result<Option<Stream>> {
    if path != Path::new("-") {
        if name.is_some() {
            bail!("--name names what comes from standard input: it goes with - for the path");
        }
        return Ok(None);
    }
    if !exclude.is_empty() {
        bail!("--exclude chooses from a folder, and - is one stream");
    }
    let path = TreePath::parse(name.unwrap_or(STREAM_NAME))?;
    Ok(Some(Stream { path, bytes: Box::new(std::io::stdin()) }))
}

/// Pushes a folder; makes the dataset if it is new.
pub(crate) async fn push_folder(
    app: &App,
    name: &str,
    new: &NewDataset,
    options: &PushOptions,
) -> anyhow::Result<PushReport> {
    push_source(app, name, new, options, None, Listing::Published).await
}

/// Pushes what the options name, or a stream in its place; makes the dataset if it is new.
pub(crate) async fn push_source(
    app: &App,
    name: &str,
    new: &NewDataset,
    options: &PushOptions,
    stream: Option<Stream>,
    listing: Listing,
) -> anyhow::Result<PushReport> {
    Target::dataset(name)?.of_an_owner()?;
    if stream.is_none() && !options.source.exists() {
        bail!("no such file or folder: {}", options.source.display());
    }
    let ring = app.keys()?;
    let books = app.books()?;
    let network = app.network_of(&ring, &books).await?;
    let registries = registries::of(app, &ring).await?;
    registries::discover(app, registries.as_ref(), &books, &network).await?;
    let providers = books.providers()?.len();
    if providers == 0 {
        bail!(
            "this home knows no provider: add some with `seedbank provider add KEY@HOST:PORT`, or run `seedbank up`"
        );
    }
    if let Some(scheme) = new.scheme {
        // Before it becomes the dataset's policy.
        explicit_scheme(scheme.data(), scheme.total(), providers)?;
    }
    let (dataset, made) = find_or_make(&ring, &books, name, new)?;
    let context = push_context(app, &ring, &books, &network, dataset.clone())?;
    let bar = Arc::new(Bar::new("push", app.output.is_quiet()));
    let progress = Arc::clone(&bar) as _;
    let pushed = match stream {
        None => push::push(&context, options, progress).await,
        Some(stream) => push::push_stream(&context, options, stream, progress).await,
    };
    bar.finish();
    if pushed.is_err() && made == DatasetMade::Now && books.usage(dataset.id)?.segments == 0 {
        // Nothing is stored that another try could go on with, so the name stays free.
        books.remove_dataset(dataset.id)?;
    }
    paying::tell_made(app, &network);
    let report = pushed.map_err(|error| with_reasons(error, &network))?;
    if let Some(wider) = narrowed_from(&context, &report, providers) {
        app.output.complain(format_args!(
            "only some of the {providers} known providers can take fragments now, so this push is coded {} of {} instead of \
             {} of {}: see `seedbank provider ls`; --scheme {}/{} refuses that",
            report.scheme.data(),
            report.scheme.total(),
            wider.data(),
            wider.total(),
            wider.data(),
            wider.total(),
        ));
    }
    if listing == Listing::Published {
        let home = if list_may_lack(&books, &dataset)? {
            Some(publish_list(app, &ring, &books, &network).await?)
        } else {
            None
        };
        let pushed: Vec<&Dataset> = std::iter::once(&dataset).chain(&home).collect();
        registries::name(app, &ring, registries.as_ref(), &books, &pushed).await?;
    }
    Ok(report)
}

/// The scheme that all known providers would allow, if a push that left the choice to the program had to do with less.
fn narrowed_from(
    context: &PushContext,
    report: &PushReport,
    providers: usize,
) -> Option<seedbank_erasure::Scheme> {
    if context.policy.scheme.is_some() || report.made == Made::Nothing {
        return None;
    }
    default_scheme(providers).ok().filter(|wider| wider.total() > report.scheme.total())
}

/// The error of a push that found too few takers, with what providers said: without it nobody could tell a full disk
/// from a clock that is wrong.
fn with_reasons(error: PushError, network: &seedbank_client::network::Network) -> anyhow::Error {
    if !matches!(error, PushError::NotPlaced { .. }) {
        return error.into();
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for reason in network.refusals().into_values().chain(network.failing().into_values()) {
        *reasons.entry(reason).or_default() += 1;
    }
    let mut reasons: Vec<(String, usize)> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, providers)| std::cmp::Reverse(*providers));
    /// What most of them said is what helps.
    const TOLD_MAX: usize = 3;
    let told: Vec<String> = reasons
        .iter()
        .take(TOLD_MAX)
        .map(|(reason, providers)| format!("{providers} of the providers: {reason}"))
        .collect();
    match told.is_empty() {
        true => error.into(),
        false => anyhow::Error::new(error).context(told.join("; ")),
    }
}

/// Whether the published list of datasets may be older than a dataset, whose first push may have been cut short.
fn list_may_lack(books: &SharedBooks, dataset: &Dataset) -> anyhow::Result<bool> {
    let list = match books.dataset(home_dataset_id(&dataset.owner).to_string()) {
        Err(CatalogError::NoSuchDataset { .. }) => return Ok(true),
        found => found?,
    };
    let newest = books.versions(list.id, None, 1)?;
    Ok(newest.first().is_none_or(|version| version.time <= dataset.created))
}

pub(crate) fn push_context(
    app: &App,
    ring: &KeyRing,
    books: &SharedBooks,
    network: &Arc<seedbank_client::network::Network>,
    dataset: Dataset,
) -> anyhow::Result<PushContext> {
    if dataset.owner != ring.identity().public() {
        bail!("dataset {:?} belongs to another owner: only its owner's key signs versions", dataset.name);
    }
    let policy =
        serde_json::from_slice(&dataset.policy).context("the dataset's policy in the books is damaged")?;
    Ok(PushContext {
        books: Arc::clone(books),
        network: Arc::clone(network),
        owner: ring.identity().clone(),
        keys: dataset_keys(ring, &dataset)?,
        dataset,
        policy,
        index_dir: app.home.index_dir(),
        cache_dir: app.home.root().to_owned(),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DatasetMade {
    Before,
    Now,
}

fn find_or_make(
    ring: &KeyRing,
    books: &SharedBooks,
    name: &str,
    new: &NewDataset,
) -> anyhow::Result<(Dataset, DatasetMade)> {
    match books.dataset(name.to_owned()) {
        Ok(mut dataset) => {
            if new.public && !dataset.public {
                bail!(
                    "dataset {name:?} is private; what is published can't be taken back, so make a new public one"
                );
            }
            if let Some(scheme) = new.scheme {
                let mut policy: Policy = serde_json::from_slice(&dataset.policy)?;
                if policy.scheme != Some(scheme) {
                    policy.scheme = Some(scheme);
                    dataset.policy = serde_json::to_vec(&policy)?;
                    books.set_policy(dataset.id, dataset.policy.clone())?;
                }
            }
            Ok((dataset, DatasetMade::Before))
        }
        Err(CatalogError::NoSuchDataset { .. }) => {
            let mut salt = [0; 32];
            getrandom::fill(&mut salt).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
            let owner = ring.identity().public();
            let policy = Policy { scheme: new.scheme, ..Policy::default() };
            let dataset = Dataset {
                id: dataset_id(&owner, &salt),
                name: name.to_owned(),
                salt,
                owner,
                epoch: KeyEpoch(0),
                public: new.public,
                policy: serde_json::to_vec(&policy)?,
                created: wall_clock(),
            };
            books.create_dataset(dataset.clone())?;
            Ok((dataset, DatasetMade::Now))
        }
        Err(error) => Err(error.into()),
    }
}

/// Publishes the owner's list of datasets, from which a recovery phrase finds them again.
async fn publish_list(
    app: &App,
    ring: &KeyRing,
    books: &SharedBooks,
    network: &Arc<seedbank_client::network::Network>,
) -> anyhow::Result<Dataset> {
    let home = home_dataset::ensure(books, ring.identity().public(), wall_clock())?;
    let context = push_context(app, ring, books, network, home.clone())?;
    home_dataset::publish_list(&context)
        .await
        .context("publishing the list of datasets, which recovery needs")?;
    Ok(home)
}

/// What a push prints as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Pushed {
    dataset: String,
    version: String,
    changed: bool,
    entries: u64,
    bytes: u64,
    files_read: u64,
    bytes_read: u64,
    bytes_deduplicated: u64,
    new_bytes: u64,
    metadata_bytes: u64,
    stored_bytes: u64,
    segments: u64,
    scheme: (usize, usize),
    providers: usize,
    missing_fragments: u64,
    heads: u64,
    failures: Vec<(String, String)>,
}

impl Pushed {
    pub(crate) fn new(name: &str, report: &PushReport) -> Pushed {
        Pushed {
            dataset: name.to_owned(),
            version: report.version.to_string(),
            changed: report.made == Made::Version,
            entries: report.entries,
            bytes: report.bytes,
            files_read: report.counts.files_read,
            bytes_read: report.counts.bytes_read,
            bytes_deduplicated: report.counts.bytes_deduplicated,
            new_bytes: report.new_bytes,
            metadata_bytes: report.metadata_bytes,
            stored_bytes: report.stored_bytes,
            segments: report.segments,
            scheme: (report.scheme.data(), report.scheme.total()),
            providers: report.holders.len(),
            missing_fragments: report.missing,
            heads: report.heads,
            failures: report
                .failures
                .iter()
                .map(|(key, why)| (key.to_string(), format!("{why:?}")))
                .collect(),
        }
    }
}

fn push_text(name: &str, report: &PushReport) -> String {
    let size = format!("{} entries, {}", report.entries, bytes(report.bytes));
    if report.made == Made::Nothing {
        return format!(
            "{name} is unchanged: version {} has this tree already ({size})",
            report.version.revision()
        );
    }
    let scheme = report.scheme;
    let mut text = format!(
        "{name} version {}\n  {size}\n  {} new before coding ({} of it metadata), {} stored on {} providers\n  \
         any {} of {} fragments bring a segment back; {} providers keep the head",
        report.version.revision(),
        bytes(report.new_bytes),
        bytes(report.metadata_bytes),
        bytes(report.stored_bytes),
        report.holders.len(),
        scheme.data(),
        scheme.total(),
        report.heads,
    );
    if report.missing > 0 {
        text.push_str(&format!(
            "\n  {} fragments have no holder yet; a running steward completes them",
            report.missing
        ));
    }
    for (provider, why) in &report.failures {
        text.push_str(&format!("\n  provider {} disappointed: {why:?}", provider.short()));
    }
    text
}

/// Pulls a version into a folder.
pub(crate) async fn pull_version(
    app: &App,
    name: &str,
    dest: &Path,
    filter: &Filter,
    overwrite: Overwrite,
) -> anyhow::Result<(Opened, PullReport)> {
    let opened = open(app, &Target::version(name)?).await?;
    let bar = Arc::new(Bar::new("pull", app.output.is_quiet()));
    let options = RestoreOptions { overwrite, ..RestoreOptions::default() };
    let pulled =
        pull::pull(&opened.reader, &opened.snapshot, dest, filter, options, Arc::clone(&bar) as _).await;
    bar.finish();
    opened.reader.network().settle(BLAME_PATIENCE).await;
    tell_findings(app.output, &opened);
    Ok((opened, pulled?))
}

/// Reads and checks everything of a version.
pub(crate) async fn verify_version(app: &App, name: &str) -> anyhow::Result<(Opened, PullReport)> {
    let opened = open(app, &Target::version(name)?).await?;
    let bar = Arc::new(Bar::new("verify", app.output.is_quiet()));
    let verified = pull::verify(&opened.reader, &opened.snapshot, Arc::clone(&bar) as _).await;
    bar.finish();
    opened.reader.network().settle(BLAME_PATIENCE).await;
    tell_findings(app.output, &opened);
    Ok((opened, verified?))
}

/// Says how fast it went.
fn tell_rate(output: Output, moved: u64, began: Instant) {
    let took = began.elapsed();
    output.say(format_args!("{} in {}, {}", bytes(moved), duration(took), rate(moved, took)));
}

/// Says who was found wrong on the way: each provider once for each kind of fault.
fn tell_findings(output: Output, opened: &Opened) {
    let mut told: BTreeMap<(String, String), (u64, bool)> = BTreeMap::new();
    for found in found(opened) {
        let (fragments, signed) = told.entry((found.provider, found.verdict)).or_default();
        *fragments += 1;
        *signed |= found.signed;
    }
    for ((provider, verdict), (fragments, signed)) in told {
        let evidence = if signed { " (signed evidence)" } else { "" };
        output
            .say(format_args!("provider {}: {verdict} for {fragments} fragments{evidence}", &provider[..8]));
    }
}

/// Somebody who was found wrong, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Found {
    /// The provider's process, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    pub(crate) provider: String,
    pub(crate) fragment: String,
    pub(crate) verdict: String,
    pub(crate) signed: bool,
}

/// What a pull or a check prints as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Pulled {
    version: String,
    files: u64,
    bytes: u64,
    files_kept: u64,
    bytes_kept: u64,
    symlinks: u64,
    folders: u64,
    range_requests: u64,
    range_bytes: u64,
    decoded_ranges: u64,
    findings: Vec<Found>,
    unreachable: Vec<String>,
}

impl Pulled {
    pub(crate) fn new(opened: &Opened, report: &PullReport) -> Pulled {
        let network = opened.reader.network();
        let load =
            |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        Pulled {
            version: opened.snapshot.id.to_string(),
            files: report.files,
            bytes: report.bytes,
            files_kept: report.files_kept,
            bytes_kept: report.bytes_kept,
            symlinks: report.symlinks,
            folders: report.folders,
            range_requests: load(&network.traffic.range_requests),
            range_bytes: load(&network.traffic.range_bytes),
            decoded_ranges: load(&network.traffic.decodes),
            findings: found(opened),
            unreachable: network.failing().keys().map(ToString::to_string).collect(),
        }
    }
}

/// Who was found wrong while reading.
pub(crate) fn found(opened: &Opened) -> Vec<Found> {
    let findings = opened.reader.network().findings();
    findings
        .iter()
        .map(|finding| Found {
            name: None,
            provider: finding.provider.to_string(),
            fragment: finding.fragment.to_string(),
            verdict: format!("{:?}", finding.verdict),
            signed: finding.statement.is_some(),
        })
        .collect()
}

fn pull_text(pulled: &Pulled, dest: &Path) -> String {
    let mut text = format!(
        "version {} in {}: {} files, {}",
        &pulled.version[..40],
        dest.display(),
        pulled.files,
        bytes(pulled.bytes)
    );
    if pulled.files_kept > 0 {
        text.push_str(&format!(
            "; {} files ({}) were there already",
            pulled.files_kept,
            bytes(pulled.bytes_kept)
        ));
    }
    if pulled.decoded_ranges > 0 {
        text.push_str(&format!("; {} ranges decoded around lost or wrong fragments", pulled.decoded_ranges));
    }
    text
}

async fn cat(app: &App, file: &str, range: Option<&str>) -> anyhow::Result<()> {
    let (target, path) = Target::file(file)?;
    let path = TreePath::parse(&path)?;
    let range = range.map(parse_range).transpose()?.unwrap_or(0..u64::MAX);
    let opened = open(app, &target).await?;
    // Not through the standard library's buffer, which looks for the ends of lines.
    let out = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let written = pull::cat(&opened.reader, &opened.snapshot, &path, range, out).await;
    match written {
        Err(pull::CatError::Write(error)) => Ok(crate::output::seen_enough(Err(error))?),
        other => Ok(other.map(|_bytes| ())?),
    }
}

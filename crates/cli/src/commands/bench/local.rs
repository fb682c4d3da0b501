//! `seedbank bench local`: push, pull and ranged reads through a fresh local network, with what they cost.

use super::data::{Noise, edit, write_file, write_small_files};
use super::limit::{Formulas, Path as Formula, cores};
use super::meter::{Cost, Meter, float};
use super::reads::{self, READ_BYTES, ReadPlan, Subject, VersionReads};
use super::references;
use super::report::{Disk, Edits, Limits, Push, Report, Round, report_text};
use crate::app::App;
use crate::commands::dataset::{NewDataset, pull_version, push_folder};
use crate::local::Lifetime;
use crate::output::{Output, Talk};
use crate::scratch::Scratch;
use crate::source::open;
use crate::target::Target;
use anyhow::{Context, bail};
use seedbank_client::glob::Filter;
use seedbank_client::push::{PushOptions, PushReport, Rehash};
use seedbank_client::restore::Overwrite;
use seedbank_formats::path::TreePath;
use seedbank_formats::seal::Compression;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

const LARGE: &str = "large";
const SMALL: &str = "small";
const FILE: &str = "data.bin";
const SEED: u64 = 0x5eed;

/// Each edit overwrites so many places with so many bytes.
const EDITS: u32 = 9;
const EDIT_PLACES: u32 = 16;
const EDIT_BYTES: usize = 4096;

const SMALL_FILES: u32 = 5000;
const SMALL_FILE_BYTES: usize = 2400;

/// A file that is pushed sooner after it was written is read again by the next push, which can't tell whether it was
/// written once more within one tick of a coarse clock.
pub(crate) const RACY: Duration = Duration::from_secs(4);

/// Reads at once in the round of many.
const READS_AT_ONCE: u32 = 8;

/// What to measure with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) size: u64,
    pub(crate) providers: u16,
    /// Pushes and pulls of the same bytes, each as a dataset of its own.
    pub(crate) rounds: u32,
    /// Reads in each round of reads.
    pub(crate) reads: u32,
    pub(crate) read_rounds: u32,
}

pub(crate) async fn run(app: &App, plan: &Plan) -> anyhow::Result<()> {
    if plan.size < READ_BYTES {
        bail!("--size must be at least 256KiB, the length of one read");
    }
    // What it is made of must be known before anything is measured.
    let formulas = Formulas::load()?;
    let mut scratch = Scratch::make("bench")?;
    let measured = measure(app, plan, &mut scratch).await?;
    say(app, "raw primitives");
    let references = references::measure(measured.scheme, &scratch.path("")).await?;
    scratch.close()?;
    let (push, pull) = (
        Round::median(&measured.rounds, |round| &round.push.cost),
        Round::median(&measured.rounds, |round| &round.pull),
    );
    let limit = |formula, cost: &Cost| formulas.limit(formula, &references, measured.scheme, cores(), cost);
    let limits =
        Limits { push: limit(Formula::Push, &push.push.cost), pull: limit(Formula::Pull, &pull.pull) };
    let report = Report {
        size: plan.size,
        providers: plan.providers,
        seed: SEED,
        scheme: (measured.scheme.data(), measured.scheme.total()),
        rounds: measured.rounds,
        push_unchanged: measured.push_unchanged,
        reads: measured.reads,
        edits: measured.edits,
        disk: measured.disk,
        references,
        limits,
    };
    app.output.data(&report, |report| report_text(report, &formulas))?;
    let decodes: u64 =
        report.reads.iter().flat_map(|version| &version.runs).map(|run| run.total.decodes).sum();
    if decodes > 0 {
        app.output.complain(format_args!(
            "{decodes} ranges were decoded although nothing was lost: some provider was too slow to wait for"
        ));
    }
    Ok(())
}

/// What needs the network.
struct Measurements {
    scheme: seedbank_erasure::Scheme,
    rounds: Vec<Round>,
    push_unchanged: Push,
    reads: Vec<VersionReads>,
    edits: Edits,
    disk: Disk,
}

async fn measure(app: &App, plan: &Plan, scratch: &mut Scratch) -> anyhow::Result<Measurements> {
    say(app, &format!("{} provider processes", plan.providers));
    let mut inner = scratch.start(app, plan.providers, None, Lifetime::WithParent).await?;
    inner.output = Output::new(app.output.format(), Talk::Quiet);
    let meter = Meter::of(&scratch.running()?.network);
    let (folder, small) = (scratch.path(LARGE), scratch.path(SMALL));
    let file = folder.join(FILE);
    let mut noise = Noise::new(SEED);
    std::fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
    write_small_files(&small, SMALL_FILES, SMALL_FILE_BYTES, &mut noise)
        .await
        .context("writing small files")?;
    write_file(&file, plan.size, &mut noise).await.with_context(|| format!("writing {}", file.display()))?;
    tokio::time::sleep(RACY).await;

    let mut rounds = Vec::new();
    let (mut first, mut stored_bytes) = (None, 0);
    for number in 1..=plan.rounds.max(1) {
        say(app, &format!("push and pull, round {number}"));
        // Chunks of another dataset have other keys: nothing of an earlier round is used again.
        let (large_name, small_name) = (format!("{LARGE}-{number}"), format!("{SMALL}-{number}"));
        let (report, push) = push_metered(&inner, &meter, &large_name, &folder).await?;
        let pulled = scratch.path("pulled");
        let pull = pull_metered(&inner, &meter, &large_name, &pulled).await?;
        std::fs::remove_dir_all(&pulled).with_context(|| format!("removing {}", pulled.display()))?;
        let (small_report, small_push) = push_metered(&inner, &meter, &small_name, &small).await?;
        // These stay: for some minutes after many files were removed, ext4 without a journal makes new ones ten times slower.
        let pulled = scratch.path(&format!("pulled-{number}"));
        let small_pull = pull_metered(&inner, &meter, &small_name, &pulled).await?;
        stored_bytes += report.stored_bytes + small_report.stored_bytes;
        first.get_or_insert(report);
        rounds.push(Round { push, pull, small_push, small_pull });
    }
    let first = first.expect("there is at least one round");
    let name = format!("{LARGE}-1");
    say(app, "push again, unchanged");
    let (_, push_unchanged) = push_metered(&inner, &meter, &name, &folder).await?;
    let mut version_reads = Vec::new();
    say(app, "reads of the first version");
    version_reads.push(read_version(&inner, &meter, &first, 1, &file, plan).await?);

    say(app, "small edits, each pushed");
    let mut edits = Vec::new();
    let mut newest = first.clone();
    for _ in 0..EDITS {
        edit(&file, EDIT_PLACES, EDIT_BYTES, &mut noise).context("editing the file")?;
        let (report, pushed) = push_metered(&inner, &meter, &name, &folder).await?;
        stored_bytes += report.stored_bytes;
        newest = report;
        edits.push(pushed);
    }
    say(app, "reads of the tenth version");
    version_reads.push(read_version(&inner, &meter, &newest, EDITS + 1, &file, plan).await?);

    let mut disk_bytes = 0;
    for provider in scratch.running()?.network.providers() {
        disk_bytes += disk_usage(&provider.dir)?;
    }
    let disk = Disk { stored_bytes, disk_bytes, ratio: float(disk_bytes) / float(stored_bytes.max(1)) };
    Ok(Measurements {
        scheme: first.scheme,
        rounds,
        push_unchanged,
        reads: version_reads,
        edits: Edits::of(&edits, u64::from(EDIT_PLACES) * EDIT_BYTES as u64),
        disk,
    })
}

async fn push_metered(
    app: &App,
    meter: &Meter,
    name: &str,
    folder: &Path,
) -> anyhow::Result<(PushReport, Push)> {
    let begun = meter.begin()?;
    let report = push_folder(app, name, &NewDataset::default(), &push_options(folder)).await?;
    let cost = meter.end(begun, report.bytes)?;
    Ok((report.clone(), Push::new(cost, &report)))
}

/// As a plain `seedbank dataset push` has them.
pub(crate) fn push_options(source: &Path) -> PushOptions {
    PushOptions {
        source: source.to_owned(),
        filter: Filter::default(),
        branch: "main".to_owned(),
        message: String::new(),
        rehash: Rehash::Changed,
        compression: Compression::Auto,
    }
}

async fn pull_metered(app: &App, meter: &Meter, name: &str, dest: &Path) -> anyhow::Result<Cost> {
    let begun = meter.begin()?;
    let (_, report) = pull_version(app, name, dest, &Filter::default(), Overwrite::No).await?;
    meter.end(begun, report.bytes)
}

async fn read_version(
    app: &App,
    meter: &Meter,
    report: &PushReport,
    version: u32,
    file: &Path,
    plan: &Plan,
) -> anyhow::Result<VersionReads> {
    let subject = Subject {
        opened: open(app, &Target::parse(&format!("{LARGE}-1@{}", report.version))?).await?,
        path: TreePath::parse(FILE)?,
        local: File::open(file).with_context(|| format!("opening {}", file.display()))?,
        size: plan.size,
    };
    let plan = ReadPlan { reads: plan.reads, rounds: plan.read_rounds, at_once: READS_AT_ONCE };
    reads::measure(subject, version, plan, meter).await
}

/// Bytes that a folder takes on its disk, in whole blocks.
pub(crate) fn disk_usage(folder: &Path) -> anyhow::Result<u64> {
    let reading = || format!("reading {}", folder.display());
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let metadata = match entry.metadata() {
            // A provider may be done with a file in the meantime.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            metadata => metadata.with_context(reading)?,
        };
        // `st_blocks` counts 512 bytes each, whatever the filesystem's blocks are.
        bytes += metadata.blocks() * 512;
        if metadata.is_dir() {
            bytes += disk_usage(&entry.path())?;
        }
    }
    Ok(bytes)
}

pub(crate) fn say(app: &App, what: &str) {
    app.output.say(format_args!("measuring: {what}"));
}

#[cfg(test)]
mod tests {
    use super::disk_usage;

    #[test]
    fn disk_usage_counts_files_in_folders_in_folders() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::write(folder.path().join("a/file"), vec![7; 100_000]).unwrap();
        assert!(disk_usage(folder.path()).unwrap() >= 100_000);
        assert!(disk_usage(&folder.path().join("none")).is_err());
    }
}

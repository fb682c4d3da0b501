//! `seedbank bench local`: push, pull and ranged reads through a fresh local network, with what they cost.

use super::budget::{self, Measured};
use super::data::{Noise, edit, write_file, write_small_files};
use super::meter::{Cost, Meter, float};
use super::primitives;
use super::reads::{self, READ_BYTES, Subject, VersionReads};
use super::report::{Disk, Edits, Limits, Push, Report, report_text};
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
use seedbank_transport::bench::{BenchPlan, TransportRow};
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
const RACY: Duration = Duration::from_secs(4);

const CONCURRENCIES: [u32; 2] = [1, 8];

/// The bare transports are a baseline here, not the question.
const TRANSPORT: BenchPlan = BenchPlan { bytes: 512 << 20, requests: 500 };

/// What to measure with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) size: u64,
    pub(crate) providers: u16,
    pub(crate) reads: u32,
}

pub(crate) async fn run(app: &App, plan: &Plan) -> anyhow::Result<()> {
    if plan.size < READ_BYTES {
        bail!("--size must be at least 256KiB, the length of one read");
    }
    let mut scratch = Scratch::make("bench")?;
    let measured = measure(app, plan, &mut scratch).await?;
    scratch.close()?;
    say(app, "raw primitives and stages");
    let rates = primitives::measure(measured.scheme).await;
    say(app, "bare transports");
    let transports = seedbank_transport::bench::run(TRANSPORT).await.context("a local connection failed")?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let wire = wire_nanoseconds(&transports);
    let of = |cost: &Cost| Measured {
        gigabytes_per_second: cost.gigabytes_per_second(),
        cpu_nanoseconds_per_byte: cost.cpu_nanoseconds_per_byte(),
    };
    let write = budget::write(&rates, measured.scheme, wire, cores, of(&measured.push.cost));
    let read = budget::read(&rates, wire, cores, of(&measured.pull));
    let report = Report {
        size: plan.size,
        providers: plan.providers,
        seed: SEED,
        scheme: (measured.scheme.data(), measured.scheme.total()),
        push: measured.push,
        push_unchanged: measured.push_unchanged,
        pull: measured.pull,
        reads: measured.reads,
        edits: measured.edits,
        small_push: measured.small_push,
        small_pull: measured.small_pull,
        disk: measured.disk,
        primitives: rates,
        transports,
        limits: Limits { write, read },
    };
    app.output.data(&report, report_text)?;
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
    push: Push,
    push_unchanged: Push,
    pull: Cost,
    reads: Vec<VersionReads>,
    edits: Edits,
    small_push: Push,
    small_pull: Cost,
    disk: Disk,
}

async fn measure(app: &App, plan: &Plan, scratch: &mut Scratch) -> anyhow::Result<Measurements> {
    say(app, &format!("{} provider processes", plan.providers));
    let mut inner = scratch.start(app, plan.providers, Lifetime::WithParent)?;
    inner.output = Output::new(app.output.format(), Talk::Quiet);
    let meter = Meter::of(&scratch.running()?.network);
    let folder = scratch.path(LARGE);
    let file = folder.join(FILE);
    let mut noise = Noise::new(SEED);
    std::fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
    write_file(&file, plan.size, &mut noise).await.with_context(|| format!("writing {}", file.display()))?;
    tokio::time::sleep(RACY).await;

    say(app, "push");
    let (first, push) = push_metered(&inner, &meter, LARGE, &folder).await?;
    say(app, "push again, unchanged");
    let (_, unchanged) = push_metered(&inner, &meter, LARGE, &folder).await?;
    say(app, "pull");
    let pull = pull_metered(&inner, &meter, LARGE, &scratch.path("pulled")).await?;
    let mut version_reads = Vec::new();
    say(app, "reads of the first version");
    version_reads.push(read_version(&inner, &meter, &first, 1, &file, plan).await?);

    say(app, "small edits, each pushed");
    let mut edits = Vec::new();
    let mut newest = first.clone();
    let mut stored_bytes = first.stored_bytes;
    for _ in 0..EDITS {
        edit(&file, EDIT_PLACES, EDIT_BYTES, &mut noise).context("editing the file")?;
        let (report, pushed) = push_metered(&inner, &meter, LARGE, &folder).await?;
        stored_bytes += report.stored_bytes;
        newest = report;
        edits.push(pushed);
    }
    say(app, "reads of the tenth version");
    version_reads.push(read_version(&inner, &meter, &newest, EDITS + 1, &file, plan).await?);

    say(app, &format!("{SMALL_FILES} small files"));
    let folder = scratch.path(SMALL);
    write_small_files(&folder, SMALL_FILES, SMALL_FILE_BYTES, &mut noise)
        .await
        .context("writing small files")?;
    let (report, small_push) = push_metered(&inner, &meter, SMALL, &folder).await?;
    stored_bytes += report.stored_bytes;
    let small_pull = pull_metered(&inner, &meter, SMALL, &scratch.path("pulled-small")).await?;

    let mut disk_bytes = 0;
    for provider in scratch.running()?.network.providers() {
        disk_bytes += disk_usage(&provider.dir)?;
    }
    let disk = Disk { stored_bytes, disk_bytes, ratio: float(disk_bytes) / float(stored_bytes.max(1)) };
    Ok(Measurements {
        scheme: first.scheme,
        push,
        push_unchanged: unchanged,
        pull,
        reads: version_reads,
        edits: Edits::of(&edits, u64::from(EDIT_PLACES) * EDIT_BYTES as u64),
        small_push,
        small_pull,
        disk,
    })
}

async fn push_metered(
    app: &App,
    meter: &Meter,
    name: &str,
    folder: &Path,
) -> anyhow::Result<(PushReport, Push)> {
    let options = PushOptions {
        source: folder.to_owned(),
        filter: Filter::default(),
        branch: "main".to_owned(),
        message: String::new(),
        rehash: Rehash::Changed,
        compression: Compression::Auto,
    };
    let begun = meter.begin()?;
    let report = push_folder(app, name, &NewDataset::default(), &options).await?;
    let cost = meter.end(&begun, report.bytes)?;
    let push = Push {
        cost,
        files_read: report.counts.files_read,
        new_bytes: report.new_bytes,
        metadata_bytes: report.metadata_bytes,
        stored_bytes: report.stored_bytes,
        segments: report.segments,
        missing_fragments: report.missing,
    };
    Ok((report, push))
}

async fn pull_metered(app: &App, meter: &Meter, name: &str, dest: &Path) -> anyhow::Result<Cost> {
    let begun = meter.begin()?;
    let (_, report) = pull_version(app, name, dest, &Filter::default(), Overwrite::No).await?;
    meter.end(&begun, report.bytes)
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
        opened: open(app, &Target::parse(&format!("{LARGE}@{}", report.version))?).await?,
        path: TreePath::parse(FILE)?,
        local: File::open(file).with_context(|| format!("opening {}", file.display()))?,
        size: plan.size,
    };
    reads::measure(subject, version, plan.reads, &CONCURRENCIES, meter).await
}

/// What our transport costs both ends together, in nanoseconds a byte.
fn wire_nanoseconds(transports: &[TransportRow]) -> f64 {
    let http = transports.iter().find(|row| row.transport == "http");
    let cost = http.map(|row| row.cpu_seconds_per_gigabyte.unwrap_or(1.0 / row.gigabytes_per_second));
    cost.unwrap_or(0.0)
}

/// Bytes that a folder takes on its disk, in whole blocks.
fn disk_usage(folder: &Path) -> anyhow::Result<u64> {
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

fn say(app: &App, what: &str) {
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

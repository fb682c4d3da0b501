//! `seedbank demo`: the whole story on this machine, told while it happens.
//!
//! Real processes, a real network between them, real files. It makes one folder under the system's temporary folder and
//! removes it, unless it is asked to keep it; the data that it is given is only read.

mod damage;
mod edit;
mod ledger;
mod money;

use crate::app::App;
use crate::args::Demo;
use crate::commands::dataset::{Found, NewDataset, found, pull_version, push_folder, verify_version};
use crate::local::{Lifetime, Running};
use crate::local_chain::{Clock, LocalChain, Plan};
use crate::output::{Align, bytes, count, duration, table};
use crate::scratch::Scratch;
use crate::source::{Opened, open};
use crate::target::Target;
use anyhow::{Context, bail};
use ledger::Ledger;
use seedbank_client::glob::Filter;
use seedbank_client::push::{PushOptions, PushReport, Rehash};
use seedbank_client::restore::Overwrite;
use seedbank_formats::PublicKey;
use seedbank_formats::seal::Compression;
use seedbank_provider::ByteSize;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

const DATASET: &str = "field-notes";

/// Short, so that providers look for the next epoch several times a second.
const EPOCH_SECONDS: u32 = 60;

/// Little, so that what little is read is paid, too.
const CREDIT: ByteSize = ByteSize(16 << 10);

/// Where the dataset that ships with the repository lies, beside the working folder or the build.
const SHIPPED: &str = "demo-data/field-notes";

/// What the demo prints as JSON.
#[derive(Debug, Serialize)]
struct Story {
    files: u64,
    bytes: u64,
    versions: Vec<VersionLine>,
    scheme: (usize, usize),
    providers: usize,
    providers_used: usize,
    providers_lost: Vec<String>,
    disk_damaged: Option<String>,
    liars_named: Vec<Found>,
    decoded_ranges: u64,
    verified: bool,
    ledger: Option<Ledger>,
    seconds: f64,
    kept: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct VersionLine {
    version: String,
    new_bytes: u64,
    metadata_bytes: u64,
    stored_bytes: u64,
}

pub(crate) async fn run(app: &App, options: &Demo) -> anyhow::Result<()> {
    let data = find_data(options.data.as_deref())?;
    let began = Instant::now();
    let mut scratch = Scratch::make("demo")?;
    let lifetime = if options.keep { Lifetime::Detached } else { Lifetime::WithParent };
    line(
        app,
        &format!(
            "Starting a chain, {} provider processes and one steward process, with throw-away keys that have no passphrase.",
            options.providers
        ),
    );
    let plan = Plan { port: 0, epoch_seconds: EPOCH_SECONDS, clock: Clock::Moved, credit: Some(CREDIT) };
    let inner = scratch.start(app, options.providers, Some(plan), lifetime).await?;
    let base = scratch.path("");
    let mut story = act(app, &inner, options, &data, &base, scratch.running_mut()?).await?;
    // What goes wrong before this, or an interruption, leaves nothing: nobody has been told where it is.
    if options.keep {
        story.kept = Some(scratch.keep());
    } else {
        scratch.close()?;
    }
    story.seconds = began.elapsed().as_secs_f64();
    app.output.data(&story, story_text)?;
    if !story.verified {
        bail!("what was read back is not what was stored");
    }
    if let Some(ledger) = &story.ledger
        && ledger.made != ledger.held()
    {
        bail!("tokens appeared or vanished");
    }
    Ok(())
}

async fn act(
    app: &App,
    inner: &App,
    options: &Demo,
    data: &Path,
    base: &Path,
    running: &mut Running,
) -> anyhow::Result<Story> {
    let work = base.join("work");
    edit::copy_tree(data, &work)?;
    let shown = std::env::current_dir().ok().and_then(|here| data.strip_prefix(here).ok()).unwrap_or(data);
    line(app, &format!("Storing {} as version 1.", shown.display()));
    let first = push(inner, &work, "as it came").await?;
    line(
        app,
        &format!(
            "  {} files, {}: sealed, cut into segments, each coded so that any {} of {} fragments bring it back.",
            count(first.counts.files_read),
            bytes(first.bytes),
            first.scheme.data(),
            first.scheme.total()
        ),
    );
    let original = base.join("original");
    std::fs::rename(&work, &original).context("keeping what was stored as version 1")?;
    edit::copy_tree(&original, &work)?;
    let changed = edit::change_rows(&work)?;
    line(app, &format!("Changing rows of {changed} and storing version 2."));
    let second = push(inner, &work, "rows changed").await?;
    line(
        app,
        &format!(
            "  {} of {} were new: the rest is in version 1 already.",
            bytes(second.new_bytes),
            bytes(second.bytes)
        ),
    );

    let opened = open(inner, &Target::parse(&format!("{DATASET}@{}", first.version))?).await?;
    let victims = choose_victims(&opened, &first).await?;
    drop(opened);
    let mut lost = Vec::new();
    for provider in &victims.to_kill {
        let name = damage::process_of(running, provider)?;
        running.kill(&name)?;
        line(app, &format!("Killed {name} with SIGKILL."));
        lost.push(name);
    }
    let mut damaged = None;
    if let Some(provider) = &victims.to_damage {
        let name = damage::process_of(running, provider)?;
        let flips = damage::flip_bits(&running.folder_of(&name)?)?;
        line(app, &format!("Flipped {flips} bits on the disk of {name}, which goes on serving."));
        damaged = Some(name);
    }

    line(app, "Reading both versions back and checking every byte against the signed versions.");
    let one = check(inner, base, &first, &original, "read-back-1").await?;
    let two = check(inner, base, &second, &work, "read-back-2").await?;
    let mut liars_named: Vec<Found> = Vec::new();
    for finding in one.found.into_iter().chain(two.found) {
        if !liars_named
            .iter()
            .any(|other| other.provider == finding.provider && other.verdict == finding.verdict)
        {
            liars_named.push(finding);
        }
    }
    for liar in &mut liars_named {
        let name = damage::process_of(running, &liar.provider.parse()?)?;
        liar.name = Some(name.clone());
        let evidence = if liar.signed { "over its own signature" } else { "without a signed word" };
        line(app, &format!("  {name} gave wrong bytes and was found out: {} {evidence}.", liar.verdict));
    }
    let ledger = match LocalChain::load(&inner.home.network_dir())? {
        Some(chain) => Some(money::act(app, inner, running, &chain, &lost, damaged.as_deref()).await?),
        None => None,
    };
    let holders: BTreeSet<PublicKey> = first.holders.iter().chain(&second.holders).copied().collect();
    Ok(Story {
        files: first.counts.files_read,
        bytes: first.bytes,
        scheme: (first.scheme.data(), first.scheme.total()),
        versions: [&first, &second].map(version_line).into(),
        providers: usize::from(options.providers),
        providers_used: holders.len(),
        providers_lost: lost,
        disk_damaged: damaged,
        liars_named,
        decoded_ranges: one.decoded + two.decoded,
        verified: one.same && two.same,
        ledger,
        seconds: 0.0,
        kept: None,
    })
}

/// A line of the story: on standard output for people, beside the data for programs.
fn line(app: &App, text: &str) {
    match app.output.format() {
        crate::output::DataFormat::Text => {
            // Who closed the pipe has heard enough; the work goes on all the same.
            let _unheard = app.output.data(&(), |()| text.to_owned());
        }
        crate::output::DataFormat::Json => app.output.say(format_args!("{text}")),
    }
}

fn find_data(chosen: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(chosen) = chosen {
        if !chosen.is_dir() {
            bail!("no such folder: {}", chosen.display());
        }
        return Ok(chosen.to_owned());
    }
    let beside_manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let beside_program = std::env::current_exe().ok();
    let starts = [std::env::current_dir().ok(), beside_manifest, beside_program];
    let folders = starts.iter().flatten().flat_map(|start| start.ancestors());
    folders.map(|folder| folder.join(SHIPPED)).find(|folder| folder.is_dir()).with_context(|| {
        format!(
            "the dataset that ships with the repository ({SHIPPED}) is not here; give another with --data DIR"
        )
    })
}

async fn push(app: &App, folder: &Path, message: &str) -> anyhow::Result<PushReport> {
    let options = PushOptions {
        source: folder.to_owned(),
        filter: Filter::default(),
        branch: "main".to_owned(),
        message: message.to_owned(),
        rehash: Rehash::Changed,
        compression: Compression::Auto,
    };
    push_folder(app, DATASET, &NewDataset::default(), &options).await
}

/// Whom the demo harms: holders of data fragments, so that reads must find a way around them.
struct Victims {
    to_kill: Vec<PublicKey>,
    to_damage: Option<PublicKey>,
}

async fn choose_victims(opened: &Opened, first: &PushReport) -> anyhow::Result<Victims> {
    let segments = opened.snapshot.segments(&opened.reader).await?;
    let largest = segments.iter().max_by_key(|segment| segment.sealed_len).context("nothing was stored")?;
    // One loss fewer than the scheme survives, since the damaged disk is a loss too.
    let kills = 2.min(first.scheme.parity().saturating_sub(1));
    let mut holders = largest.fragments.iter().filter_map(|fragment| fragment.holder);
    Ok(Victims { to_kill: holders.by_ref().take(kills).collect(), to_damage: holders.next() })
}

/// What reading one version back came to.
struct Checked {
    same: bool,
    found: Vec<Found>,
    decoded: u64,
}

async fn check(
    app: &App,
    base: &Path,
    report: &PushReport,
    expected: &Path,
    folder: &str,
) -> anyhow::Result<Checked> {
    use std::sync::atomic::Ordering::Relaxed;
    let name = format!("{DATASET}@{}", report.version);
    let dest = base.join(folder);
    let (pulled, _) = pull_version(app, &name, &dest, &Filter::default(), Overwrite::No).await?;
    let (verified, _) = verify_version(app, &name).await?;
    let same = edit::same_tree(expected, &dest)?;
    let decoded =
        [&pulled, &verified].iter().map(|opened| opened.reader.network().traffic.decodes.load(Relaxed)).sum();
    let found = found(&pulled).into_iter().chain(found(&verified)).collect();
    Ok(Checked { same, found, decoded })
}

fn version_line(report: &PushReport) -> VersionLine {
    VersionLine {
        version: report.version.revision(),
        new_bytes: report.new_bytes,
        metadata_bytes: report.metadata_bytes,
        stored_bytes: report.stored_bytes,
    }
}

fn story_text(story: &Story) -> String {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![row("files", count(story.files)), row("bytes", bytes(story.bytes))];
    for (number, version) in (1..).zip(&story.versions) {
        rows.push(row(&format!("version {number}"), version.version.clone()));
        let metadata = bytes(version.metadata_bytes);
        rows.push(row("  new bytes", format!("{} ({metadata} of it metadata)", bytes(version.new_bytes))));
        rows.push(row("  stored bytes", bytes(version.stored_bytes)));
    }
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let (data, total) = story.scheme;
    rows.push(row("scheme", format!("any {data} of {total} fragments")));
    rows.push(row("providers used", format!("{} of {}", story.providers_used, story.providers)));
    rows.push(row("providers lost", list(&story.providers_lost)));
    let liars: Vec<String> = story
        .liars_named
        .iter()
        .map(|liar| {
            let signed = if liar.signed { "signed" } else { "unsigned" };
            format!("{} ({}, {signed})", liar.name.as_deref().unwrap_or(&liar.provider), liar.verdict)
        })
        .collect();
    rows.push(row("liars named", list(&liars)));
    rows.push(row("ranges decoded", count(story.decoded_ranges)));
    rows.push(row("verified", if story.verified { "every byte of both versions" } else { "NO" }.to_owned()));
    rows.push(row("took", duration(std::time::Duration::from_secs_f64(story.seconds))));
    let mut text = format!("\n{}", table(&[("result", Align::Left), ("", Align::Left)], &rows));
    if let Some(ledger) = &story.ledger {
        text.push('\n');
        text.push_str(&ledger.text());
    }
    if let Some(kept) = &story.kept {
        text.push_str(&format!(
            "\nThe network runs on. To use it:\n  export SEEDBANK_HOME={home}\n  seedbank dataset ls\n  seedbank down\n\
             Everything is in {}; `rm -r` it when you are done.",
            kept.display(),
            home = kept.join("home").display()
        ));
    }
    text
}

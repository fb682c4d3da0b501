//! `seedbank bench metadata`: trees of many files, and what it costs to change one.
//!
//! Every step is a command of its own, as a person would type it, against a fresh local network.

use super::command;
use super::data::{Noise, write_files};
use super::limit::{GIB, Used};
use super::local::{RACY, say};
use super::meter::{Cost, Meter, float};
use crate::app::App;
use crate::local::Lifetime;
use crate::output::{Align, bytes, count, table};
use crate::scratch::Scratch;
use anyhow::Context;
use serde::Serialize;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Instant;

const SEED: u64 = 0x7ee5;
const SMALL_BYTES: usize = 2400;
const TINY_BYTES: usize = 8;

/// How many of each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) small_files: u32,
    pub(crate) tiny_files: u32,
    pub(crate) names: u32,
    pub(crate) providers: u16,
}

#[derive(Debug, Serialize)]
struct Report {
    seed: u64,
    providers: u16,
    trees: Vec<Tree>,
}

/// What was done with one tree.
#[derive(Debug, Serialize)]
struct Tree {
    name: &'static str,
    files: u32,
    bytes: u64,
    /// Making the files, for comparison.
    write_seconds: f64,
    push: Push,
    push_unchanged: Push,
    /// After one file was given other bytes.
    push_of_one_change: Push,
    pull: Option<Cost>,
    ls: Cost,
    log: Cost,
}

#[derive(Debug, Serialize)]
struct Push {
    #[serde(flatten)]
    cost: Cost,
    /// What it sealed: chunks, tree pages, layouts, version and lists.
    new_bytes: u64,
    metadata_bytes: u64,
    stored_bytes: u64,
    /// What providers gave to their disks, over what they were sent to store.
    written_per_stored: f64,
}

/// A tree to be made.
struct Kind {
    name: &'static str,
    files: u32,
    per_folder: u32,
    file_bytes: usize,
    pulled: bool,
}

pub(crate) async fn run(app: &App, plan: &Plan) -> anyhow::Result<()> {
    let kinds = [
        Kind {
            name: "small",
            files: plan.small_files,
            per_folder: 100,
            file_bytes: SMALL_BYTES,
            pulled: true,
        },
        Kind {
            name: "tiny",
            files: plan.tiny_files,
            per_folder: 1000,
            file_bytes: TINY_BYTES,
            pulled: false,
        },
        Kind { name: "one-folder", files: plan.names, per_folder: u32::MAX, file_bytes: 0, pulled: false },
    ];
    let mut scratch = Scratch::make("metadata")?;
    let inner = scratch.start(app, plan.providers, None, Lifetime::WithParent).await?;
    let meter = Meter::of(&scratch.running()?.network);
    let mut trees = Vec::new();
    for kind in kinds.iter().filter(|kind| kind.files > 0) {
        say(app, &format!("{} files of {} bytes", count(u64::from(kind.files)), kind.file_bytes));
        trees.push(tree(&inner, &meter, kind, &scratch).await?);
    }
    scratch.close()?;
    let report = Report { seed: SEED, providers: plan.providers, trees };
    app.output.data(&report, report_text)?;
    Ok(())
}

async fn tree(app: &App, meter: &Meter, kind: &Kind, scratch: &Scratch) -> anyhow::Result<Tree> {
    let Kind { name, files, per_folder, file_bytes, pulled } = *kind;
    let folder = scratch.path(name);
    let begun = Instant::now();
    write_files(&folder, files, per_folder, file_bytes, &mut Noise::new(SEED))
        .await
        .with_context(|| format!("writing {}", folder.display()))?;
    let write_seconds = begun.elapsed().as_secs_f64();
    tokio::time::sleep(RACY).await;
    let size = u64::from(files) * file_bytes as u64;
    let push = push(app, meter, name, &folder, size).await?;
    let push_unchanged = self::push(app, meter, name, &folder, size).await?;
    let changed = folder.join("part-0000/000000.bin");
    std::fs::write(&changed, b"changed").with_context(|| format!("writing {}", changed.display()))?;
    let push_of_one_change = self::push(app, meter, name, &folder, size).await?;
    let ls = command::run(app, meter, &["dataset", "ls", name].map(OsStr::new), size).await?;
    let log = command::run(app, meter, &["dataset", "log", name].map(OsStr::new), size).await?;
    // No tree is removed before the end: for some minutes after that, ext4 without a journal makes new files ten times
    // slower.
    let pull = if pulled {
        let dest = scratch.path("pulled");
        let args = [OsStr::new("dataset"), OsStr::new("pull"), OsStr::new(name), dest.as_os_str()];
        Some(command::run(app, meter, &args, size).await?)
    } else {
        None
    };
    let bytes = size;
    Ok(Tree { name, files, bytes, write_seconds, push, push_unchanged, push_of_one_change, pull, ls, log })
}

async fn push(app: &App, meter: &Meter, name: &str, folder: &Path, size: u64) -> anyhow::Result<Push> {
    let args = [OsStr::new("dataset"), OsStr::new("push"), OsStr::new(name), folder.as_os_str()];
    let (cost, printed) = command::run_json(app, meter, &args, size).await?;
    let number = |key: &str| {
        printed.get(key).and_then(Value::as_u64).with_context(|| format!("a push does not print {key}"))
    };
    let stored_bytes = number("stored_bytes")?;
    Ok(Push {
        written_per_stored: float(cost.written_bytes.providers) / float(stored_bytes.max(1)),
        cost,
        new_bytes: number("new_bytes")?,
        metadata_bytes: number("metadata_bytes")?,
        stored_bytes,
    })
}

fn report_text(report: &Report) -> String {
    let mut rows = Vec::new();
    for tree in &report.trees {
        let mut row = |what: &str, cost: &Cost, push: Option<&Push>| {
            let cpu = Used::by(cost).total * float(cost.bytes.max(1)) / GIB;
            let sizes = push.map_or(["-".to_owned(), "-".to_owned(), "-".to_owned()], |push| {
                let written = format!("{:.2}", push.written_per_stored);
                [bytes(push.metadata_bytes), bytes(push.new_bytes), written]
            });
            let [metadata, new, written] = sizes;
            rows.push(vec![
                format!("{}, {}", tree.name, count(u64::from(tree.files))),
                what.to_owned(),
                format!("{:.2}", cost.seconds),
                format!("{cpu:.2}"),
                bytes(cost.resident_peak_bytes.client),
                bytes(cost.high_water_bytes.client),
                bytes(cost.resident_peak_bytes.providers),
                bytes(cost.resident_peak_bytes.steward),
                metadata,
                new,
                written,
            ]);
        };
        row("push", &tree.push.cost, Some(&tree.push));
        row("push, unchanged", &tree.push_unchanged.cost, Some(&tree.push_unchanged));
        row("push of one change", &tree.push_of_one_change.cost, Some(&tree.push_of_one_change));
        if let Some(pull) = &tree.pull {
            row("pull", pull, None);
        }
        row("ls", &tree.ls, None);
        row("log", &tree.log, None);
    }
    table(
        &[
            ("tree", Align::Left),
            ("command", Align::Left),
            ("seconds", Align::Right),
            ("CPU s", Align::Right),
            ("client RSS", Align::Right),
            ("VmHWM", Align::Right),
            ("a provider", Align::Right),
            ("steward", Align::Right),
            ("metadata", Align::Right),
            ("new", Align::Right),
            ("written/stored", Align::Right),
        ],
        &rows,
    )
}

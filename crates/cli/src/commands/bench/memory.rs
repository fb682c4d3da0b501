//! `seedbank bench memory`: does what is needed depend on how much there is?
//!
//! A seeded stream of each length goes through `dataset push -` and comes back through `dataset cat` into a comparison
//! that keeps nothing. Each length has a network of its own, so that nothing is left of the one before.

use super::command::{Ends, start};
use super::data::Noise;
use super::limit::Used;
use super::local::say;
use super::meter::{Cost, Meter, float};
use crate::app::App;
use crate::local::Lifetime;
use crate::output::{Align, bytes, table};
use crate::scratch::Scratch;
use anyhow::{Context, bail};
use serde::Serialize;
use std::ffi::OsStr;
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, ChildStdout};

const NAME: &str = "stream";
const SEED: u64 = 0x57e4;
const PIECE_BYTES: usize = 1 << 20;

#[derive(Debug, Serialize)]
struct Report {
    seed: u64,
    providers: u16,
    runs: Vec<Run>,
    /// Of the longest stream over the shortest, memory of their own at most; `None` of a single length.
    growth: Option<Growth>,
}

#[derive(Debug, Serialize)]
struct Run {
    size: u64,
    push: Cost,
    cat: Cost,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Growth {
    push_client: f64,
    push_provider: f64,
    push_steward: f64,
    cat_client: f64,
    cat_provider: f64,
}

impl Growth {
    fn between(short: &Run, long: &Run) -> Growth {
        let ratio = |more: u64, less: u64| float(more) / float(less.max(1));
        let (less, more) = (short.push.resident_peak_bytes, long.push.resident_peak_bytes);
        let (cat_less, cat_more) = (short.cat.resident_peak_bytes, long.cat.resident_peak_bytes);
        Growth {
            push_client: ratio(more.client, less.client),
            push_provider: ratio(more.providers, less.providers),
            push_steward: ratio(more.steward, less.steward),
            cat_client: ratio(cat_more.client, cat_less.client),
            cat_provider: ratio(cat_more.providers, cat_less.providers),
        }
    }
}

pub(crate) async fn run(app: &App, sizes: &[u64], providers: u16) -> anyhow::Result<()> {
    let mut runs = Vec::new();
    for size in sizes {
        runs.push(through(app, *size, providers).await?);
    }
    let shortest = runs.iter().min_by_key(|run| run.size);
    let longest = runs.iter().max_by_key(|run| run.size);
    let growth = shortest.zip(longest).filter(|(short, long)| short.size < long.size);
    let growth = growth.map(|(short, long)| Growth::between(short, long));
    let report = Report { seed: SEED, providers, runs, growth };
    app.output.data(&report, report_text)?;
    Ok(())
}

/// One stream in and out again.
async fn through(app: &App, size: u64, providers: u16) -> anyhow::Result<Run> {
    say(app, &format!("a stream of {}", bytes(size)));
    let mut scratch = Scratch::make("memory")?;
    let inner = scratch.start(app, providers, None, Lifetime::WithParent).await?;
    let meter = Meter::of(&scratch.running()?.network);
    let args = ["dataset", "push", NAME, "-"].map(OsStr::new);
    let ends = Ends { input: Stdio::piped(), output: Stdio::null() };
    let mut pushing = start(&inner, &meter, &args, ends)?;
    let input = pushing.child().stdin.take().context("its input is a pipe")?;
    let (fed, cost) = tokio::join!(feed(input, size), pushing.wait(size));
    // Why it stopped reading is told by the one that reads.
    let (push, _) = cost?;
    fed.context("feeding the stream")?;
    let file = format!("{NAME}:stdin");
    let args = ["dataset", "cat", &file].map(OsStr::new);
    let ends = Ends { input: Stdio::null(), output: Stdio::piped() };
    let mut reading = start(&inner, &meter, &args, ends)?;
    let output = reading.child().stdout.take().context("its output is a pipe")?;
    let (checked, cost) = tokio::join!(check(output, size), reading.wait(size));
    let (cat, _) = cost?;
    checked?;
    scratch.close()?;
    Ok(Run { size, push, cat })
}

async fn feed(mut input: ChildStdin, size: u64) -> std::io::Result<()> {
    let mut noise = Noise::new(SEED);
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = size;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        noise.fill(&mut piece[..now]);
        input.write_all(&piece[..now]).await?;
        left -= now as u64;
    }
    input.shutdown().await
}

async fn check(mut output: ChildStdout, size: u64) -> anyhow::Result<()> {
    let mut noise = Noise::new(SEED);
    let (mut expected, mut read) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    let mut left = size;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        noise.fill(&mut expected[..now]);
        output.read_exact(&mut read[..now]).await.context("the stream came back too short")?;
        if read[..now] != expected[..now] {
            bail!("bytes {}-{} came back wrong", size - left, size - left + now as u64);
        }
        left -= now as u64;
    }
    if output.read(&mut read).await.context("reading past the end")? > 0 {
        bail!("the stream came back too long");
    }
    Ok(())
}

fn report_text(report: &Report) -> String {
    let row = |size: u64, what: &str, cost: &Cost| {
        let (own, high) = (cost.resident_peak_bytes, cost.high_water_bytes);
        vec![
            bytes(size),
            what.to_owned(),
            format!("{:.1}", cost.seconds),
            format!("{:.2}", Used::by(cost).total),
            bytes(own.client),
            bytes(high.client),
            bytes(own.providers),
            bytes(high.providers),
            bytes(own.steward),
            bytes(high.steward),
        ]
    };
    let rows: Vec<Vec<String>> = report
        .runs
        .iter()
        .flat_map(|run| [row(run.size, "push -", &run.push), row(run.size, "cat", &run.cat)])
        .collect();
    let text = table(
        &[
            ("stream", Align::Right),
            ("", Align::Left),
            ("seconds", Align::Right),
            ("CPU s/GiB", Align::Right),
            ("client RSS", Align::Right),
            ("VmHWM", Align::Right),
            ("a provider", Align::Right),
            ("VmHWM", Align::Right),
            ("steward", Align::Right),
            ("VmHWM", Align::Right),
        ],
        &rows,
    );
    let Some(growth) = report.growth else { return text };
    let Growth { push_client, push_provider, push_steward, cat_client, cat_provider } = growth;
    format!(
        "{text}longest over shortest: push client {push_client:.2}, provider {push_provider:.2}, steward {push_steward:.2}; \
         cat client {cat_client:.2}, provider {cat_provider:.2}"
    )
}

//! `seedbank bench stages`: each stage of a push and of a pull alone, by the code that a push and a pull run, beside
//! the reference primitives that it is made of.
//!
//! One thread, processor time. A stage's ratio says how much of what the machine could do is left: 0.5 means that the
//! primitives alone would take half as long.

mod client;
mod provider;

use super::limit::{Formulas, GIB, Times};
use super::references::{self, Reference, References};
use crate::app::App;
use crate::output::{Align, table};
use crate::scratch::Scratch;
use seedbank_erasure::{Kernel, Scheme};
use serde::Serialize;

/// One stage.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Stage {
    path: &'static str,
    stage: &'static str,
    /// Which bytes it is counted by.
    per: &'static str,
    /// 10^9 such bytes per second of one core.
    gigabytes_per_second: f64,
    cpu_seconds_per_gib: f64,
    /// What of the primitives it is made of, times so many.
    made_of: Vec<(Reference, f64)>,
    /// Rate of these alone.
    raw_gigabytes_per_second: Option<f64>,
    /// The stage's rate over theirs.
    ratio: Option<f64>,
}

/// What one stage is and what it cost.
pub(crate) struct Measured {
    pub(crate) path: &'static str,
    pub(crate) stage: &'static str,
    pub(crate) per: &'static str,
    pub(crate) nanoseconds: f64,
    pub(crate) made_of: Vec<(Reference, f64)>,
}

impl Measured {
    fn beside(self, references: &References) -> Stage {
        let Measured { path, stage, per, nanoseconds, made_of } = self;
        let raw: f64 = made_of.iter().map(|(name, times)| times * references.nanoseconds(*name)).sum();
        let raw = (!made_of.is_empty()).then_some(raw);
        Stage {
            path,
            stage,
            per,
            gigabytes_per_second: 1.0 / nanoseconds,
            cpu_seconds_per_gib: nanoseconds * GIB / 1e9,
            made_of,
            raw_gigabytes_per_second: raw.map(|raw| 1.0 / raw),
            ratio: raw.map(|raw| raw / nanoseconds),
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    scheme: (usize, usize),
    /// The erasure kernel that this processor runs.
    kernel: &'static str,
    /// 10^9 bytes per second of one core.
    references: References,
    stages: Vec<Stage>,
}

pub(crate) async fn run(app: &App, scheme: Scheme) -> anyhow::Result<()> {
    // What it is made of must be known before anything is measured.
    let formulas = Formulas::load()?;
    let scratch = Scratch::make("stages")?;
    let folder = scratch.path("");
    app.output.say(format_args!("measuring: raw primitives"));
    let references = references::measure(scheme, &folder).await?;
    app.output.say(format_args!("measuring: the client's stages"));
    let mut measured = client::measure(scheme, &folder).await?;
    app.output.say(format_args!("measuring: the provider's stages and the wire"));
    measured.extend(provider::measure(&folder, Times::Expansion.of(scheme)).await?);
    scratch.close()?;
    // In the order in which a byte meets them.
    measured.sort_by_key(|stage| stage.path != "push");
    let stages = measured.into_iter().map(|stage| stage.beside(&references)).collect();
    let report =
        Report { scheme: (scheme.data(), scheme.total()), kernel: Kernel::best().name(), references, stages };
    app.output.data(&report, |report| report_text(report, &formulas))?;
    Ok(())
}

fn report_text(report: &Report, formulas: &Formulas) -> String {
    let (data, total) = report.scheme;
    let rows: Vec<Vec<String>> = report
        .stages
        .iter()
        .map(|stage| {
            let made_of: Vec<String> = stage
                .made_of
                .iter()
                .map(|(name, times)| match times {
                    times if (times - 1.0).abs() < 1e-9 => name.name().to_owned(),
                    times => format!("{times:.3} {}", name.name()),
                })
                .collect();
            vec![
                stage.path.to_owned(),
                stage.stage.to_owned(),
                stage.per.to_owned(),
                format!("{:.2}", stage.gigabytes_per_second),
                format!("{:.3}", stage.cpu_seconds_per_gib),
                stage.raw_gigabytes_per_second.map_or("-".to_owned(), |raw| format!("{raw:.2}")),
                stage.ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
                made_of.join(" + "),
            ]
        })
        .collect();
    let stages = table(
        &[
            ("", Align::Left),
            ("stage", Align::Left),
            ("bytes of", Align::Left),
            ("GB/s a core", Align::Right),
            ("CPU s/GiB", Align::Right),
            ("raw GB/s", Align::Right),
            ("ratio", Align::Right),
            ("raw", Align::Left),
        ],
        &rows,
    );
    format!(
        "any {data} of {total} fragments, erasure kernel {}\n\n{}\n\n{}",
        report.kernel,
        references_table(&report.references, formulas).trim_end(),
        stages.trim_end()
    )
}

/// What the machine can do, and what that means.
pub(crate) fn references_table(references: &References, formulas: &Formulas) -> String {
    let rows: Vec<Vec<String>> = formulas
        .reference
        .iter()
        .map(|line| {
            let nanoseconds = references.nanoseconds(line.name);
            vec![
                line.name.name().to_owned(),
                format!("{:.2}", 1.0 / nanoseconds),
                format!("{:.3}", nanoseconds * GIB / 1e9),
                line.measures.clone(),
            ]
        })
        .collect();
    table(
        &[
            ("reference, one core", Align::Left),
            ("GB/s", Align::Right),
            ("CPU s/GiB", Align::Right),
            ("what", Align::Left),
        ],
        &rows,
    )
}

//! What `seedbank bench local` prints: one JSON object, or tables for people.

use super::limit::{Formulas, GIB, Limit, Used};
use super::meter::{Cost, float, whole};
use super::reads::{BesideRaw, MeanAndTail, READ_BYTES, VersionReads};
use super::references::References;
use super::stages::references_table;
use super::timing::Spread;
use crate::output::{Align, bytes, table};
use seedbank_client::push::PushReport;
use serde::Serialize;

/// Everything that was measured in one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) size: u64,
    pub(crate) providers: u16,
    pub(crate) seed: u64,
    /// Data and total fragments.
    pub(crate) scheme: (usize, usize),
    pub(crate) rounds: Vec<Round>,
    pub(crate) push_unchanged: Push,
    pub(crate) reads: Vec<VersionReads>,
    pub(crate) edits: Edits,
    pub(crate) disk: Disk,
    /// 10^9 bytes per second of one core.
    pub(crate) references: References,
    /// Of the rounds whose rate is the median.
    pub(crate) limits: Limits,
}

/// One round of whole pushes and pulls.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Round {
    pub(crate) push: Push,
    pub(crate) pull: Cost,
    pub(crate) small_push: Push,
    pub(crate) small_pull: Cost,
}

impl Round {
    /// The round with the median time of this kind; of two in the middle the slower.
    pub(crate) fn median(rounds: &[Round], of: fn(&Round) -> &Cost) -> &Round {
        let mut sorted: Vec<&Round> = rounds.iter().collect();
        sorted.sort_by(|a, b| of(a).seconds.total_cmp(&of(b).seconds));
        sorted[sorted.len() / 2]
    }
}

/// A push and what it stored.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Push {
    #[serde(flatten)]
    pub(crate) cost: Cost,
    /// Files whose contents were read.
    pub(crate) files_read: u64,
    pub(crate) new_bytes: u64,
    pub(crate) metadata_bytes: u64,
    pub(crate) stored_bytes: u64,
    /// What providers gave to their disks, over what they were sent to store.
    pub(crate) written_per_stored: f64,
    pub(crate) segments: u64,
    /// Fragments that the push left for later.
    pub(crate) missing_fragments: u64,
}

impl Push {
    pub(crate) fn new(cost: Cost, report: &PushReport) -> Push {
        Push {
            written_per_stored: float(cost.written_bytes.providers) / float(report.stored_bytes.max(1)),
            cost,
            files_read: report.counts.files_read,
            new_bytes: report.new_bytes,
            metadata_bytes: report.metadata_bytes,
            stored_bytes: report.stored_bytes,
            segments: report.segments,
            missing_fragments: report.missing,
        }
    }
}

/// Pushes of the large file after small edits; means over all of them.
#[derive(Debug, Serialize)]
pub(crate) struct Edits {
    pub(crate) pushes: usize,
    pub(crate) edited_bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) new_bytes: f64,
    pub(crate) metadata_bytes: f64,
    pub(crate) stored_bytes: f64,
}

impl Edits {
    pub(crate) fn of(pushes: &[Push], edited_bytes: u64) -> Edits {
        let count = float(pushes.len().max(1) as u64);
        let mean = |of: fn(&Push) -> u64| float(pushes.iter().map(of).sum()) / count;
        Edits {
            pushes: pushes.len(),
            edited_bytes,
            seconds: pushes.iter().map(|push| push.cost.seconds).sum::<f64>() / count,
            new_bytes: mean(|push| push.new_bytes),
            metadata_bytes: mean(|push| push.metadata_bytes),
            stored_bytes: mean(|push| push.stored_bytes),
        }
    }
}

/// What the providers' folders take.
#[derive(Debug, Serialize)]
pub(crate) struct Disk {
    /// Fragment bytes that the pushes sent.
    pub(crate) stored_bytes: u64,
    /// Blocks on the disk, indexes and journals included.
    pub(crate) disk_bytes: u64,
    pub(crate) ratio: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Limits {
    pub(crate) push: Limit,
    pub(crate) pull: Limit,
}

pub(crate) fn report_text(report: &Report, formulas: &Formulas) -> String {
    let (data, total) = report.scheme;
    let sections = [
        format!(
            "{} that do not compress, {} providers, any {data} of {total} fragments, {} rounds, seed {:#x}",
            bytes(report.size),
            report.providers,
            report.rounds.len(),
            report.seed
        ),
        work_table(report),
        reads_table(report),
        storage_text(report),
        references_table(&report.references, formulas),
        limit_table("push", &report.limits.push),
        limit_table("pull", &report.limits.pull),
    ];
    sections.map(|section| section.trim_end().to_owned()).join("\n\n")
}

fn work_table(report: &Report) -> String {
    let row = |name: &str, costs: Vec<&Cost>| {
        let seconds = Spread::of(costs.iter().map(|cost| cost.seconds));
        let rate = Spread::of(costs.iter().map(|cost| cost.bytes_per_second));
        let used = |of: fn(Used) -> f64| {
            let spread = Spread::of(costs.iter().map(|cost| of(Used::by(cost))));
            format!("{:.2}", spread.median)
        };
        let total = Spread::of(costs.iter().map(|cost| Used::by(cost).total));
        let most = |of: fn(&Cost) -> u64| bytes(costs.iter().map(|cost| of(cost)).max().unwrap_or(0));
        vec![
            name.to_owned(),
            format!("{:.2}", seconds.median),
            format!("{:.2}-{:.2}", seconds.min, seconds.max),
            format!("{}/s", bytes(whole(rate.median))),
            format!("{:.2}", total.median),
            format!("{:.2}-{:.2}", total.min, total.max),
            used(|used| used.client),
            used(|used| used.providers),
            used(|used| used.steward),
            most(|cost| cost.resident_peak_bytes.client),
            most(|cost| cost.high_water_bytes.client),
            most(|cost| cost.resident_peak_bytes.providers),
            most(|cost| cost.high_water_bytes.providers),
        ]
    };
    let of = |cost: fn(&Round) -> &Cost| report.rounds.iter().map(cost).collect();
    table(
        &[
            ("work, medians", Align::Left),
            ("seconds", Align::Right),
            ("spread", Align::Right),
            ("rate", Align::Right),
            ("CPU s/GiB", Align::Right),
            ("spread", Align::Right),
            ("client", Align::Right),
            ("providers", Align::Right),
            ("steward", Align::Right),
            ("client RSS", Align::Right),
            ("VmHWM", Align::Right),
            ("a provider", Align::Right),
            ("VmHWM", Align::Right),
        ],
        &[
            row("push", of(|round| &round.push.cost)),
            row("push, unchanged", vec![&report.push_unchanged.cost]),
            row("pull", of(|round| &round.pull)),
            row("push, small files", of(|round| &round.small_push.cost)),
            row("pull, small files", of(|round| &round.small_pull)),
        ],
    )
}

fn reads_table(report: &Report) -> String {
    let spread = |spread: Option<MeanAndTail>, wanted: f64| {
        spread.map_or(["-".to_owned(), "-".to_owned()], |spread| {
            [format!("{:.2}", spread.mean / wanted), format!("{:.2}", float(spread.p99) / wanted)]
        })
    };
    let mut rows = Vec::new();
    for version in &report.reads {
        for run in &version.runs {
            let [requests, requests_p99] = spread(run.per_read.map(|read| read.requests), 1.0);
            let [fetched, fetched_p99] = spread(run.per_read.map(|read| read.bytes), float(READ_BYTES));
            let [providers, providers_p99] = spread(run.per_read.map(|read| read.providers), 1.0);
            let beside = |of: fn(&BesideRaw) -> Spread| {
                run.beside_raw.as_ref().map_or("-".to_owned(), |raw| {
                    let Spread { median, min, max } = of(raw);
                    format!("{median:.2} ({min:.2}-{max:.2})")
                })
            };
            rows.push(vec![
                version.version.to_string(),
                run.concurrency.to_string(),
                format!("{:.2}", run.p50_ms),
                format!("{:.2}", run.p99_ms),
                beside(|raw| raw.ratio_p50),
                beside(|raw| raw.ratio_p99),
                format!("{:.0}", run.reads_per_second),
                format!("{:.2}", run.cpu_seconds.client * 1e3 / float(run.reads.max(1))),
                format!("{:.2}", run.cpu_seconds.providers * 1e3 / float(run.reads.max(1))),
                format!("{requests} / {requests_p99}"),
                format!("{fetched} / {fetched_p99}"),
                format!("{providers} / {providers_p99}"),
                run.total.proofs.to_string(),
                run.total.decodes.to_string(),
            ]);
        }
    }
    let cold: Vec<String> = report
        .reads
        .iter()
        .map(|version| {
            format!(
                "first read of version {} by a fresh process: {:.1} ms, {} requests, {}",
                version.version,
                version.cold.milliseconds,
                version.cold.moved.requests,
                bytes(version.cold.moved.bytes)
            )
        })
        .collect();
    let heading = [
        ("reads of version", Align::Left),
        ("at once", Align::Right),
        ("p50 ms", Align::Right),
        ("p99 ms", Align::Right),
        ("p50 / raw TLS", Align::Right),
        ("p99 / raw TLS", Align::Right),
        ("reads/s", Align::Right),
        ("CPU ms client", Align::Right),
        ("providers", Align::Right),
        ("requests", Align::Right),
        ("bytes / wanted", Align::Right),
        ("asked", Align::Right),
        ("proofs", Align::Right),
        ("decoded", Align::Right),
    ];
    format!(
        "{}/ raw TLS: over the same bytes on a bare connection in turn, median of rounds (spread); requests, bytes / wanted and asked: mean / p99 of single reads\n{}",
        table(&heading, &rows),
        cold.join("\n")
    )
}

fn storage_text(report: &Report) -> String {
    let Report { rounds, edits, disk, .. } = report;
    let Round { push, small_push, .. } = &rounds[0];
    let stored = |name: &str, push: &Push| {
        format!(
            "{name}: {} new of {} ({} of it metadata), {} stored in {} segments, {} fragments left for later, \
             {:.3} bytes written for each byte stored",
            bytes(push.new_bytes),
            bytes(push.cost.bytes),
            bytes(push.metadata_bytes),
            bytes(push.stored_bytes),
            push.segments,
            push.missing_fragments,
            push.written_per_stored
        )
    };
    [
        stored("large file", push),
        stored("small files", small_push),
        format!(
            "{} edits of {}, means: {:.2} s, {} new ({} of it metadata), {} stored",
            edits.pushes,
            bytes(edits.edited_bytes),
            edits.seconds,
            bytes(whole(edits.new_bytes)),
            bytes(whole(edits.metadata_bytes)),
            bytes(whole(edits.stored_bytes))
        ),
        format!(
            "disks: {} for {} of fragments, {:.3} for 1",
            bytes(disk.disk_bytes),
            bytes(disk.stored_bytes),
            disk.ratio
        ),
    ]
    .join("\n")
}

fn limit_table(name: &str, limit: &Limit) -> String {
    let line = |what: &str, nanoseconds: f64, seconds: f64, share: f64| {
        vec![
            what.to_owned(),
            format!("{nanoseconds:.2}"),
            format!("{seconds:.2}"),
            format!("{:.0} %", share * 100.0),
        ]
    };
    let mut rows: Vec<Vec<String>> = limit
        .terms
        .iter()
        .map(|term| line(&term.stage, term.nanoseconds_per_byte, term.cpu_seconds_per_gib, term.share))
        .collect();
    let share = |seconds: f64| seconds / limit.used.total;
    let mut sum =
        |what: &str, seconds: f64| rows.push(line(what, seconds * 1e9 / GIB, seconds, share(seconds)));
    sum("CPU limit", limit.cpu_seconds_per_gib);
    sum("overhead: in no stage above", limit.overhead_cpu_seconds_per_gib);
    sum("used", limit.used.total);
    sum("  by the client", limit.used.client);
    sum("  by the providers", limit.used.providers);
    sum("  by the steward", limit.used.steward);
    let heading = format!("{name}, stage");
    format!(
        "{}{name}: CPU limit {:.3} GB/s on {} cores, measured {:.3} GB/s, achieved {:.2}; cores busy {:.2}",
        table(
            &[
                (&heading, Align::Left),
                ("ns a byte", Align::Right),
                ("CPU s/GiB", Align::Right),
                ("share", Align::Right)
            ],
            &rows
        ),
        limit.limit_gigabytes_per_second,
        limit.cores,
        limit.measured_gigabytes_per_second,
        limit.achieved,
        limit.cores_busy
    )
}

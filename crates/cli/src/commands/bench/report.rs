//! What `seedbank bench local` prints: one JSON object, or tables for people.

use super::budget::Limit;
use super::meter::{Cost, float};
use super::primitives::Rates;
use super::reads::{READ_BYTES, Spread, VersionReads};
use super::transport_table;
use crate::output::{Align, bytes, table};
use seedbank_transport::bench::TransportRow;
use serde::Serialize;

/// Everything that was measured in one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) size: u64,
    pub(crate) providers: u16,
    pub(crate) seed: u64,
    /// Data and total fragments.
    pub(crate) scheme: (usize, usize),
    pub(crate) push: Push,
    pub(crate) push_unchanged: Push,
    pub(crate) pull: Cost,
    pub(crate) reads: Vec<VersionReads>,
    pub(crate) edits: Edits,
    pub(crate) small_push: Push,
    pub(crate) small_pull: Cost,
    pub(crate) disk: Disk,
    pub(crate) primitives: Rates,
    pub(crate) transports: Vec<TransportRow>,
    pub(crate) limits: Limits,
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
    pub(crate) segments: u64,
    /// Fragments that the push left for later.
    pub(crate) missing_fragments: u64,
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
    pub(crate) write: Limit,
    pub(crate) read: Limit,
}

pub(crate) fn report_text(report: &Report) -> String {
    let (data, total) = report.scheme;
    let sections = [
        format!(
            "{} that do not compress, {} providers, any {data} of {total} fragments, seed {:#x}",
            bytes(report.size),
            report.providers,
            report.seed
        ),
        work_table(report),
        reads_table(report),
        storage_text(report),
        primitives_table(&report.primitives),
        transport_table(&report.transports),
        limit_table("push", &report.limits.write),
        limit_table("pull", &report.limits.read),
    ];
    sections.map(|section| section.trim_end().to_owned()).join("\n\n")
}

fn work_table(report: &Report) -> String {
    let row = |name: &str, cost: &Cost| {
        vec![
            name.to_owned(),
            format!("{:.2}", cost.seconds),
            format!("{}/s", bytes(whole(cost.bytes_per_second))),
            format!("{:.2}", cost.cpu_seconds.client),
            format!("{:.2}", cost.cpu_seconds.providers),
            format!("{:.2}", cost.cpu_seconds.steward),
            bytes(cost.peak_bytes.client),
            bytes(cost.peak_bytes.provider),
            bytes(cost.peak_bytes.steward),
        ]
    };
    table(
        &[
            ("work", Align::Left),
            ("seconds", Align::Right),
            ("rate", Align::Right),
            ("CPU s client", Align::Right),
            ("providers", Align::Right),
            ("steward", Align::Right),
            ("peak client", Align::Right),
            ("a provider", Align::Right),
            ("steward", Align::Right),
        ],
        &[
            row("push", &report.push.cost),
            row("push, unchanged", &report.push_unchanged.cost),
            row("pull", &report.pull),
            row("push, small files", &report.small_push.cost),
            row("pull, small files", &report.small_pull),
        ],
    )
}

fn reads_table(report: &Report) -> String {
    let bare = report.transports.iter().find(|row| row.transport == "http");
    let bare_ms = bare.map(|row| float(row.latency_256_kib.p50_us) / 1e3);
    let spread = |spread: Option<Spread>, wanted: f64| {
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
            rows.push(vec![
                version.version.to_string(),
                run.concurrency.to_string(),
                format!("{:.2}", run.p50_ms),
                format!("{:.2}", run.p99_ms),
                bare_ms.map_or("-".to_owned(), |bare| format!("{:.1}", run.p50_ms / bare)),
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
        ("p50 / bare http", Align::Right),
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
        "{}requests, bytes / wanted and providers asked: mean / p99 of single reads\n{}",
        table(&heading, &rows),
        cold.join("\n")
    )
}

fn storage_text(report: &Report) -> String {
    let Report { push, small_push, edits, disk, .. } = report;
    let stored = |name: &str, push: &Push| {
        format!(
            "{name}: {} new of {} ({} of it metadata), {} stored in {} segments, {} fragments left for later",
            bytes(push.new_bytes),
            bytes(push.cost.bytes),
            bytes(push.metadata_bytes),
            bytes(push.stored_bytes),
            push.segments,
            push.missing_fragments
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

fn primitives_table(rates: &Rates) -> String {
    let row = |name: &str, rate: f64, raw: Option<(&str, f64)>| {
        vec![
            name.to_owned(),
            format!("{rate:.2}"),
            raw.map_or(String::new(), |(name, raw)| format!("{:.2} of {name}", rate / raw)),
        ]
    };
    let encode = format!("parity, per segment byte ({})", rates.kernel);
    table(
        &[("one core", Align::Left), ("GB/s", Align::Right), ("beside", Align::Left)],
        &[
            row("memcpy 64 MiB", rates.memcpy, None),
            row("SHA-256", rates.sha256, None),
            row("keyed BLAKE3, 64 KiB", rates.blake3_keyed, None),
            row("AES-256-GCM seal, 64 KiB", rates.aes_256_gcm_seal, None),
            row("AES-256-GCM open, 64 KiB", rates.aes_256_gcm_open, None),
            row("find chunks (gear hash)", rates.chunk, Some(("memcpy", rates.memcpy))),
            row("chunk id", rates.chunk_id, Some(("keyed BLAKE3", rates.blake3_keyed))),
            row("seal a chunk", rates.seal, Some(("AES-256-GCM seal", rates.aes_256_gcm_seal))),
            row("open a chunk", rates.open, Some(("AES-256-GCM open", rates.aes_256_gcm_open))),
            row(&encode, rates.encode, Some(("memcpy", rates.memcpy))),
            row("fragment id and outboard", rates.fragment_hash, Some(("keyed BLAKE3", rates.blake3_keyed))),
            row("parity, ids and outboards, per segment byte", rates.code, None),
        ],
    )
}

fn limit_table(name: &str, limit: &Limit) -> String {
    let mut rows: Vec<Vec<String>> = limit
        .terms
        .iter()
        .map(|term| vec![term.stage.to_owned(), format!("{:.2}", term.nanoseconds_per_byte)])
        .collect();
    rows.push(vec!["sum".to_owned(), format!("{:.2}", limit.nanoseconds_per_byte)]);
    rows.push(vec![
        "used by all processes".to_owned(),
        format!("{:.2}", limit.measured_cpu_nanoseconds_per_byte),
    ]);
    let heading = format!("CPU limit of {name}");
    format!(
        "{}{name}: {:.3} GB/s of {:.3} GB/s that {} cores allow, efficiency {:.2}",
        table(&[(&heading, Align::Left), ("ns a byte", Align::Right)], &rows),
        limit.measured_gigabytes_per_second,
        limit.limit_gigabytes_per_second,
        limit.cores,
        limit.efficiency
    )
}

/// A rate or mean as whole bytes, for showing.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "conversion saturates, and is only shown"
)]
fn whole(bytes: f64) -> u64 {
    bytes.round() as u64
}

//! What `seedbank bench network` prints.

use super::percentiles;
use crate::commands::bench::limit::Used;
use crate::commands::bench::meter::{Cost, float, whole};
use crate::commands::bench::reads::VersionReads;
use crate::output::{Align, bytes, table};
use seedbank_formats::PublicKey;
use seedbank_protocol::messages::Prices;
use seedbank_transport::CallError;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::time::Duration;

/// Everything that was measured in one run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) size: u64,
    pub(super) seed: u64,
    /// Data and total fragments.
    pub(super) scheme: (usize, usize),
    pub(super) stored_bytes: u64,
    pub(super) fragments: u64,
    /// Those that found a holder.
    pub(super) fragments_placed: u64,
    /// Of this process alone.
    pub(super) push: Cost,
    pub(super) pull: Cost,
    pub(super) reads: VersionReads,
    /// Token units for a GiB of user bytes.
    pub(super) storage_per_gib_month: f64,
    pub(super) retrieval_per_gib: f64,
    pub(super) providers: Vec<ProviderRow>,
    pub(super) regions: Vec<ByRegion>,
}

/// One provider.
#[derive(Debug, Serialize)]
pub(super) struct ProviderRow {
    pub(super) key: PublicKey,
    pub(super) operator: String,
    pub(super) region: String,
    /// `None`: it did not greet.
    pub(super) hello_ms: Option<f64>,
    pub(super) prices: Option<Prices>,
    /// Of the dataset, that it holds.
    pub(super) fragments: u64,
    #[serde(flatten)]
    pub(super) fetched: Fetched,
}

/// Ranges that were asked for, one at a time.
#[derive(Debug, Clone, Default)]
pub(super) struct Fetched {
    times_ms: Vec<f64>,
    bytes: u64,
    failed: u64,
    /// The first failure.
    why: Option<String>,
}

impl Fetched {
    pub(super) fn done(&mut self, took: Duration, bytes: u64) {
        self.times_ms.push(took.as_secs_f64() * 1e3);
        self.bytes += bytes;
    }

    pub(super) fn failed(&mut self, error: &CallError) {
        self.failed += 1;
        self.why.get_or_insert_with(|| error.to_string());
    }

    fn add(&mut self, more: &Fetched) {
        self.times_ms.extend(&more.times_ms);
        self.bytes += more.bytes;
        self.failed += more.failed;
        self.why = self.why.take().or_else(|| more.why.clone());
    }

    fn summary(&self) -> FetchedSummary {
        let reads = self.times_ms.len() as u64;
        let seconds = self.times_ms.iter().sum::<f64>() / 1e3;
        let found = (reads > 0).then(|| percentiles(self.times_ms.clone()));
        FetchedSummary {
            reads: reads + self.failed,
            succeeded: (reads + self.failed > 0).then(|| float(reads) / float(reads + self.failed)),
            p50_ms: found.map(|found| found.p50),
            p99_ms: found.map(|found| found.p99),
            bytes_per_second: found.map(|_| float(self.bytes) / seconds.max(1e-9)),
            failure: self.why.clone(),
        }
    }
}

#[derive(Serialize)]
struct FetchedSummary {
    reads: u64,
    /// Of all reads.
    succeeded: Option<f64>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    bytes_per_second: Option<f64>,
    failure: Option<String>,
}

impl Serialize for Fetched {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.summary().serialize(serializer)
    }
}

/// All providers of one region together.
#[derive(Debug, Serialize)]
pub(super) struct ByRegion {
    region: String,
    providers: u64,
    #[serde(flatten)]
    fetched: Fetched,
}

impl ByRegion {
    pub(super) fn of(providers: &[ProviderRow]) -> Vec<ByRegion> {
        let mut regions: BTreeMap<&str, ByRegion> = BTreeMap::new();
        for row in providers {
            let region = regions.entry(&row.region).or_insert_with(|| ByRegion {
                region: row.region.clone(),
                providers: 0,
                fetched: Fetched::default(),
            });
            region.providers += 1;
            region.fetched.add(&row.fetched);
        }
        regions.into_values().collect()
    }
}

pub(super) fn report_text(report: &Report) -> String {
    let (data, total) = report.scheme;
    let work = |name: &str, cost: &Cost| {
        format!(
            "{name}: {:.2} s, {}/s; this process {:.2} CPU s/GiB, RSS {}, VmHWM {}",
            cost.seconds,
            bytes(whole(cost.bytes_per_second)),
            Used::by(cost).client,
            bytes(cost.resident_peak_bytes.client),
            bytes(cost.high_water_bytes.client)
        )
    };
    let reads: Vec<String> = report
        .reads
        .runs
        .iter()
        .map(|run| {
            format!(
                "verified reads of 256 KiB, {} at once: p50 {:.2} ms, p99 {:.2} ms, {:.0} a second, {} decoded",
                run.concurrency, run.p50_ms, run.p99_ms, run.reads_per_second, run.total.decodes
            )
        })
        .collect();
    let head = format!(
        "{} that do not compress, any {data} of {total} fragments, {} stored, {} of {} fragments placed\n\
         keeping a GiB for a month: {}; reading a GiB: {}\n{}\n{}\n{}",
        bytes(report.size),
        bytes(report.stored_bytes),
        report.fragments_placed,
        report.fragments,
        price(report.storage_per_gib_month),
        price(report.retrieval_per_gib),
        work("push", &report.push),
        work("pull", &report.pull),
        reads.join("\n")
    );
    format!("{head}\n\n{}\n\n{}", providers_table(report).trim_end(), regions_table(report).trim_end())
}

fn price(units: f64) -> String {
    if units == 0.0 { "free".to_owned() } else { format!("{units:.2} token units") }
}

/// Reads, success, p50, p99 and rate.
fn fetched_cells(fetched: &Fetched) -> Vec<String> {
    let found = fetched.summary();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        found.reads.to_string(),
        or_dash(found.succeeded.map(|share| format!("{:.1} %", share * 100.0))),
        or_dash(found.p50_ms.map(|ms| format!("{ms:.2}"))),
        or_dash(found.p99_ms.map(|ms| format!("{ms:.2}"))),
        or_dash(found.bytes_per_second.map(|rate| format!("{}/s", bytes(whole(rate))))),
    ]
}

const FETCHED: [(&str, Align); 5] = [
    ("reads", Align::Right),
    ("succeeded", Align::Right),
    ("p50 ms", Align::Right),
    ("p99 ms", Align::Right),
    ("rate", Align::Right),
];

fn providers_table(report: &Report) -> String {
    let rows: Vec<Vec<String>> = report
        .providers
        .iter()
        .map(|row| {
            let prices = row.prices.map_or("-".to_owned(), |prices| {
                format!("{} / {}", prices.storage_per_gib_month, prices.retrieval_per_gib)
            });
            let mut cells = vec![
                row.key.short().to_string(),
                row.operator.clone(),
                row.region.clone(),
                prices,
                row.hello_ms.map_or("silent".to_owned(), |ms| format!("{ms:.2}")),
                row.fragments.to_string(),
            ];
            cells.extend(fetched_cells(&row.fetched));
            cells
        })
        .collect();
    let mut heading = vec![
        ("provider", Align::Left),
        ("operator", Align::Left),
        ("region", Align::Left),
        ("month / read", Align::Right),
        ("hello ms", Align::Right),
        ("fragments", Align::Right),
    ];
    heading.extend(FETCHED);
    table(&heading, &rows)
}

fn regions_table(report: &Report) -> String {
    let rows: Vec<Vec<String>> = report
        .regions
        .iter()
        .map(|row| {
            let mut cells = vec![row.region.clone(), row.providers.to_string()];
            cells.extend(fetched_cells(&row.fetched));
            cells
        })
        .collect();
    let mut heading = vec![("region", Align::Left), ("providers", Align::Right)];
    heading.extend(FETCHED);
    table(&heading, &rows)
}

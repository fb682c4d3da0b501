//! `seedbank bench`: what this machine does, beside what it could do.
//!
//! Every figure stands beside a baseline of the same run: a raw primitive, a bare transport, or the sum of all stages'
//! processor time. What the numbers mean is told in `docs/benchmarks.md`.

mod budget;
mod data;
mod local;
mod meter;
mod primitives;
mod reads;
mod report;

use crate::app::App;
use crate::args::Bench;
use crate::output::{Align, parse_bytes, table};
use anyhow::Context;
use seedbank_transport::bench::{BenchPlan, TransportRow};
use serde::Serialize;

/// Requests of each size when the transport itself is the question.
const TRANSPORT_REQUESTS: u32 = 2000;

pub(crate) async fn run(app: &App, command: Bench) -> anyhow::Result<()> {
    match command {
        Bench::Local { size, providers, reads } => {
            let size = parse_bytes(&size).context("--size")?;
            local::run(app, &local::Plan { size, providers, reads }).await
        }
        Bench::Transport { size } => {
            let bytes = parse_bytes(&size).context("--size")?;
            let rows =
                seedbank_transport::bench::run(BenchPlan { bytes, requests: TRANSPORT_REQUESTS }).await;
            let measured = Transports { bytes, transports: rows.context("a local connection failed")? };
            app.output.data(&measured, |measured| transport_table(&measured.transports))?;
            Ok(())
        }
    }
}

#[derive(Serialize)]
struct Transports {
    bytes: u64,
    transports: Vec<TransportRow>,
}

fn transport_table(rows: &[TransportRow]) -> String {
    let tcp = rows.iter().find(|row| row.transport == "tcp").map(|row| row.gigabytes_per_second);
    let lines: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.transport.to_owned(),
                format!("{:.2}", row.gigabytes_per_second),
                tcp.map_or("-".to_owned(), |tcp| format!("{:.2}", row.gigabytes_per_second / tcp)),
                row.cpu_seconds_per_gigabyte.map_or("-".to_owned(), |seconds| format!("{seconds:.2}")),
                row.latency_4_kib.p50_us.to_string(),
                row.latency_4_kib.p99_us.to_string(),
                row.latency_256_kib.p50_us.to_string(),
                row.latency_256_kib.p99_us.to_string(),
            ]
        })
        .collect();
    table(
        &[
            ("transport", Align::Left),
            ("GB/s", Align::Right),
            ("of tcp", Align::Right),
            ("CPU s/GB", Align::Right),
            ("4 KiB p50 us", Align::Right),
            ("p99 us", Align::Right),
            ("256 KiB p50 us", Align::Right),
            ("p99 us", Align::Right),
        ],
        &lines,
    )
}

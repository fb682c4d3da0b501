//! `seedbank bench transport`: our HTTP beside bare TLS and plain TCP, both ways, on one connection and on eight.

use crate::app::App;
use crate::output::{Align, table};
use anyhow::Context;
use seedbank_transport::bench::{BenchPlan, Rate, Transport, TransportRow};
use serde::Serialize;

/// Requests of each size.
const REQUESTS: u32 = 2000;

#[derive(Serialize)]
struct Report {
    bytes: u64,
    transports: Vec<TransportRow>,
}

pub(crate) async fn run(app: &App, bytes: u64) -> anyhow::Result<()> {
    let rows = seedbank_transport::bench::run(BenchPlan { bytes, requests: REQUESTS }).await;
    let report = Report { bytes, transports: rows.context("a local connection failed")? };
    app.output.data(&report, |report| transport_table(&report.transports))?;
    Ok(())
}

fn transport_table(rows: &[TransportRow]) -> String {
    type Of = fn(&TransportRow) -> Rate;
    let tcp = rows.iter().find(|row| row.transport == Transport::Tcp);
    let of_tcp = |row: &TransportRow, of: Of| {
        let beside = tcp.map(|tcp| of(row).gigabytes_per_second / of(tcp).gigabytes_per_second);
        beside.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))
    };
    let kinds: [(&str, Of); 4] = [
        ("download", |row| row.download),
        ("upload", |row| row.upload),
        ("download, 8 connections", |row| row.download_8),
        ("upload, 8 connections", |row| row.upload_8),
    ];
    let mut lines = Vec::new();
    for (kind, of) in kinds {
        for row in rows {
            let cpu = of(row).cpu_seconds_per_gigabyte;
            lines.push(vec![
                kind.to_owned(),
                row.transport.name().to_owned(),
                format!("{:.2}", of(row).gigabytes_per_second),
                of_tcp(row, of),
                cpu.map_or("-".to_owned(), |seconds| format!("{seconds:.2}")),
            ]);
        }
    }
    let rates = table(
        &[
            ("", Align::Left),
            ("transport", Align::Left),
            ("GB/s", Align::Right),
            ("of tcp", Align::Right),
            ("CPU s/GB", Align::Right),
        ],
        &lines,
    );
    let lines: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.transport.name().to_owned(),
                row.latency_4_kib.p50_us.to_string(),
                row.latency_4_kib.p99_us.to_string(),
                row.latency_256_kib.p50_us.to_string(),
                row.latency_256_kib.p99_us.to_string(),
            ]
        })
        .collect();
    let latencies = table(
        &[
            ("one request at a time", Align::Left),
            ("4 KiB p50 us", Align::Right),
            ("p99 us", Align::Right),
            ("256 KiB p50 us", Align::Right),
            ("p99 us", Align::Right),
        ],
        &lines,
    );
    format!("{}\n\n{}", rates.trim_end(), latencies.trim_end())
}

//! `seedbank bench`: what this machine or a network does, beside what it could do.
//!
//! Every figure stands beside a baseline of the same run: a raw primitive, a bare transport, or the sum of what the
//! machine's best code needs for the same work. What the numbers mean is told in `docs/benchmarks.md`.

mod chain;
mod command;
mod data;
mod limit;
mod local;
mod memory;
mod metadata;
mod meter;
mod network;
mod payments;
mod reads;
mod references;
mod report;
mod stages;
mod timing;
mod transport;

use crate::app::App;
use crate::args::Bench;
use crate::output::parse_bytes;
use crate::target::parse_scheme;
use anyhow::Context;

pub(crate) async fn run(app: &App, command: Bench) -> anyhow::Result<()> {
    match command {
        Bench::Stages { scheme } => stages::run(app, parse_scheme(&scheme)?).await,
        Bench::Local { size, providers, rounds, reads, read_rounds } => {
            let size = parse_bytes(&size).context("--size")?;
            local::run(app, &local::Plan { size, providers, rounds, reads, read_rounds }).await
        }
        Bench::Transport { size } => transport::run(app, parse_bytes(&size).context("--size")?).await,
        Bench::Network { size, reads } => {
            network::run(app, network::Plan { size: parse_bytes(&size).context("--size")?, reads }).await
        }
        Bench::Memory { sizes, providers } => {
            let sizes: Result<Vec<u64>, _> = sizes.iter().map(|size| parse_bytes(size)).collect();
            memory::run(app, &sizes.context("--sizes")?, providers).await
        }
        Bench::Chain { round_trips, senders, each, anvil } => {
            chain::run(app, &chain::Plan { round_trips, senders, each, anvil }).await
        }
        Bench::Payments { size, reads, pairs, providers, credit, control } => {
            let size = parse_bytes(&size).context("--size")?;
            let credit = credit.map(|credit| parse_bytes(&credit).context("--credit")).transpose()?;
            let against = if control { payments::Against::Control } else { payments::Against::Paid };
            payments::run(app, &payments::Plan { size, reads, pairs, providers, credit, against }).await
        }
        Bench::Metadata { small_files, tiny_files, names, providers } => {
            metadata::run(app, &metadata::Plan { small_files, tiny_files, names, providers }).await
        }
    }
}

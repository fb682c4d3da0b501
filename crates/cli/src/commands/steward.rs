//! `seedbank steward run`: the owner's daemon.

use crate::app::{App, dataset_keys};
use crate::args::Steward as Command;
use crate::local::{Serving, end_with_parent};
use crate::registries;
use crate::stop::stop_signal;
use anyhow::Context;
use seedbank_catalog::records::Dataset;
use seedbank_steward::RunOptions;
use std::sync::Arc;

pub(crate) async fn run(app: &App, command: Command) -> anyhow::Result<()> {
    let Command::Run { metrics, with_parent } = command;
    if with_parent {
        end_with_parent()?;
    }
    let metrics = metrics.parse().with_context(|| format!("--metrics {metrics:?} is no address"))?;
    app.home.create()?;
    let ring = Arc::new(app.keys()?);
    let (owner, key) = (ring.identity().clone(), ring.identity().public().to_string());
    let network = app.network(&ring).await?;
    let output = app.output;
    let on_ready = move |serving: seedbank_steward::Serving| {
        let line = Serving {
            key,
            address: serving.socket.display().to_string(),
            metrics: Some(serving.metrics.to_string()),
        };
        // Whoever started this process may have gone; serving goes on.
        let _unheard = output.data(&line, |line| {
            format!("the steward of {} serves on {}; metrics at {}", line.key, line.address, serving.metrics)
        });
    };
    let registries = registries::of(app, &ring).await?;
    let options = RunOptions { registries, ..RunOptions::new(metrics, app.home.index_dir()) };
    let paths = app.books_paths();
    let keys = move |dataset: &Dataset| dataset_keys(&ring, dataset).ok();
    seedbank_steward::run(&paths, options, network, owner, Arc::new(keys), on_ready, stop_signal()?).await?;
    Ok(())
}

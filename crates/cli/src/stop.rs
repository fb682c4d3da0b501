//! Being told to stop: Ctrl-C and SIGTERM.

use anyhow::Context;
use std::future::Future;
use tokio::signal::unix::{SignalKind, signal};

/// Resolves when this process is asked to end.
pub(crate) fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

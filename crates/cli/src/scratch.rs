//! A throw-away folder with a network in it, gone again however the work in it ends.

use crate::app::App;
use crate::commands::network::start;
use crate::home::Home;
use crate::local::{Lifetime, Running};
use crate::local_chain::Plan;
use anyhow::Context;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A push or pull that was stopped half-way may write a file or two more while its folder is removed.
const REMOVE_ATTEMPTS_MAX: u32 = 20;
const REMOVE_PAUSE: Duration = Duration::from_millis(50);

/// The folder, and the processes that serve from it.
pub(crate) struct Scratch {
    base: PathBuf,
    running: Option<Running>,
}

impl Scratch {
    /// Makes the folder `seedbank-PURPOSE-…` below the system's temporary one, for its owner alone.
    pub(crate) fn make(purpose: &str) -> anyhow::Result<Scratch> {
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
        let base =
            std::env::temp_dir().join(format!("seedbank-{purpose}-{:08x}", u32::from_le_bytes(random)));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&base);
        made.with_context(|| format!("making {}", base.display()))?;
        Ok(Scratch { base, running: None })
    }

    /// Starts a network in a home of its own, paid if there is a plan for a chain, and gives the program for that home.
    pub(crate) async fn start(
        &mut self,
        app: &App,
        providers: u16,
        chain: Option<Plan>,
        lifetime: Lifetime,
    ) -> anyhow::Result<App> {
        let inner = app.at(self.home()?);
        self.running = Some(start(&inner, providers, 0, chain, lifetime).await?);
        Ok(inner)
    }

    /// The network, once it runs.
    pub(crate) fn running(&self) -> anyhow::Result<&Running> {
        self.running.as_ref().context("the network has not been started")
    }

    /// The network, once it runs, to do it harm.
    pub(crate) fn running_mut(&mut self) -> anyhow::Result<&mut Running> {
        self.running.as_mut().context("the network has not been started")
    }

    /// The network's home.
    pub(crate) fn home(&self) -> anyhow::Result<Home> {
        Ok(Home::resolve(Some(&self.base.join("home")), None)?)
    }

    /// Stops the network, which can be started again.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.running.take().map_or(Ok(()), Running::stop)
    }

    /// Where the data goes.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    /// Stops the network and removes the folder.
    pub(crate) fn close(mut self) -> anyhow::Result<()> {
        self.clear()
    }

    /// Leaves everything as it is, processes that were started detached too; says where.
    pub(crate) fn keep(mut self) -> PathBuf {
        self.running = None;
        std::mem::take(&mut self.base)
    }

    fn clear(&mut self) -> anyhow::Result<()> {
        let stopped = self.stop();
        remove(&self.base)?;
        stopped
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.base.exists() {
            // On the way out of an error or an interruption, which is told already.
            let _cleared = self.clear();
        }
    }
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(_busy) if attempts < REMOVE_ATTEMPTS_MAX => std::thread::sleep(REMOVE_PAUSE),
            result => return result.with_context(|| format!("removing {}", folder.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Scratch;

    #[test]
    fn folder_is_gone_once_it_is_closed_or_forgotten() {
        let scratch = Scratch::make("test").unwrap();
        let folder = scratch.path("inside");
        std::fs::create_dir_all(&folder).unwrap();
        scratch.close().unwrap();
        assert!(!folder.parent().unwrap().exists());

        let scratch = Scratch::make("test").unwrap();
        let base = scratch.path("");
        assert!(base.exists());
        drop(scratch);
        assert!(!base.exists());

        let kept = Scratch::make("test").unwrap().keep();
        std::fs::remove_dir(kept).unwrap();
    }
}

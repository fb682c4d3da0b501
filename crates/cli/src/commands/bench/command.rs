//! One run of this program as a process of its own, as a person would start it, with what it cost.

use super::meter::{Cost, Meter};
use crate::app::App;
use anyhow::{Context, bail};
use serde_json::Value;
use std::ffi::OsStr;
use std::process::Stdio;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

/// A run that goes on. It ends with this value.
pub(crate) struct Running {
    child: Child,
    begun: super::meter::Begun,
    meter: Meter,
    told: String,
}

/// Where its standard input comes from and its output goes.
pub(crate) struct Ends {
    pub(crate) input: Stdio,
    pub(crate) output: Stdio,
}

impl Ends {
    /// Nothing in, and what comes out is not looked at.
    pub(crate) fn none() -> Ends {
        Ends { input: Stdio::null(), output: Stdio::null() }
    }
}

/// Starts `seedbank ARGS` for this home.
pub(crate) fn start(app: &App, meter: &Meter, args: &[&OsStr], ends: Ends) -> anyhow::Result<Running> {
    let told: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let told = format!("seedbank {}", told.join(" "));
    let program = std::env::current_exe().context("finding this program's own file")?;
    let mut command = Command::new(program);
    command.arg("--home").arg(app.home.root()).args(["--quiet", "--log", "error"]).args(args);
    command.stdin(ends.input).stdout(ends.output).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().with_context(|| format!("starting {told}"))?;
    let pid = child.id().context("a process that was just started has an id")?;
    let meter = meter.of_child(pid);
    let begun = meter.begin()?;
    Ok(Running { child, begun, meter, told })
}

impl Running {
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits until it has ended well, and gives what it printed if somebody wanted to know and nobody else reads it.
    pub(crate) async fn wait(mut self, bytes: u64) -> anyhow::Result<(Cost, String)> {
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let (printed, said) = tokio::join!(listen(stdout), listen(stderr));
        let status = self.child.wait().await.with_context(|| format!("waiting for {}", self.told))?;
        if !status.success() {
            bail!("{} ended with {status}: {}", self.told, said?.trim());
        }
        Ok((self.meter.end(self.begun, bytes)?, printed?))
    }
}

async fn listen(pipe: Option<impl AsyncRead + Unpin>) -> anyhow::Result<String> {
    let mut said = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut said).await.context("hearing what it says")?;
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// Runs it to its good end, without input and whatever it prints.
pub(crate) async fn run(app: &App, meter: &Meter, args: &[&OsStr], bytes: u64) -> anyhow::Result<Cost> {
    Ok(start(app, meter, args, Ends::none())?.wait(bytes).await?.0)
}

/// Runs it with `--json` to its good end and gives what it printed.
pub(crate) async fn run_json(
    app: &App,
    meter: &Meter,
    args: &[&OsStr],
    bytes: u64,
) -> anyhow::Result<(Cost, Value)> {
    let args: Vec<&OsStr> = args.iter().copied().chain([OsStr::new("--json")]).collect();
    let ends = Ends { input: Stdio::null(), output: Stdio::piped() };
    let (cost, printed) = start(app, meter, &args, ends)?.wait(bytes).await?;
    Ok((cost, serde_json::from_str(&printed).context("reading what a command printed")?))
}

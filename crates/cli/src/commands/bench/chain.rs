//! `seedbank bench chain`: the embedded chain beside anvil, asked the same in the same run.
//!
//! The two do not promise the same: here a transaction is on the disk before its sender hears of it, anvil keeps all in
//! memory. That price is what the figures show.

use super::meter::{cpu_seconds_of, float};
use super::timing::Spread;
use crate::app::App;
use crate::output::{Align, table};
use crate::scratch::Scratch;
use anyhow::{Context, bail};
use seedbank_devchain::load::{Measured, measure};
use serde::Serialize;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Anvil answers within a second of its start.
const START_WITHIN: Duration = Duration::from_secs(20);
const START_POLL: Duration = Duration::from_millis(20);

pub(crate) struct Plan {
    pub(crate) round_trips: u32,
    pub(crate) senders: u32,
    pub(crate) each: u32,
    pub(crate) anvil: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    round_trips: u32,
    senders: u32,
    each: u32,
    nodes: Vec<NodeReport>,
}

#[derive(Debug, Serialize)]
struct NodeReport {
    node: String,
    /// From the question for the nonce to the receipt.
    round_trip_ms: Spread,
    /// Of the send alone.
    send_ms: Spread,
    transactions_per_second: f64,
    /// The node's own, over the whole run.
    cpu_ms_per_transaction: f64,
}

pub(crate) async fn run(app: &App, plan: &Plan) -> anyhow::Result<()> {
    let scratch = Scratch::make("bench-chain")?;
    let mut nodes = vec![own(&scratch.path("chain"), plan).await?];
    match find_anvil(plan.anvil.as_deref())? {
        Some(anvil) => nodes.push(beside(&anvil, plan).await?),
        None => app.output.say(format_args!("no anvil here: nothing to compare with (npm ci in contracts/)")),
    }
    scratch.close()?;
    let report = Report { round_trips: plan.round_trips, senders: plan.senders, each: plan.each, nodes };
    app.output.data(&report, text)?;
    Ok(())
}

fn text(report: &Report) -> String {
    let milliseconds =
        |spread: &Spread| format!("{:.2} ({:.2}-{:.2})", spread.median, spread.min, spread.max);
    let rows: Vec<Vec<String>> = report
        .nodes
        .iter()
        .map(|node| {
            vec![
                node.node.clone(),
                milliseconds(&node.round_trip_ms),
                milliseconds(&node.send_ms),
                format!("{:.0}", node.transactions_per_second),
                format!("{:.2}", node.cpu_ms_per_transaction),
            ]
        })
        .collect();
    let head = format!(
        "{} transactions one after the other, then {} keys with {} each at the same time",
        report.round_trips, report.senders, report.each
    );
    let columns = [
        ("node", Align::Left),
        ("round trip ms", Align::Right),
        ("send ms", Align::Right),
        ("tx/s", Align::Right),
        ("CPU ms/tx", Align::Right),
    ];
    format!("{head}\n\n{}", table(&columns, &rows))
}

/// The embedded chain in a process of its own.
async fn own(dir: &Path, plan: &Plan) -> anyhow::Result<NodeReport> {
    let program = std::env::current_exe().context("finding this program's own file")?;
    let mut child = Command::new(program)
        .args(["chain", "run", "--listen", "127.0.0.1:0", "--json", "--with-parent", "--log", "error"])
        .arg("--dir")
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("starting the chain")?;
    let mut lines = BufReader::new(child.stdout.take().context("its output is a pipe")?).lines();
    let line = lines.next_line().await?.context("the chain did not start")?;
    let serving: crate::local::Serving =
        serde_json::from_str(&line).context("the chain said something else")?;
    report("seedbank", &mut child, serving.address.parse()?, plan).await
}

/// Anvil under the same rules.
async fn beside(anvil: &Path, plan: &Plan) -> anyhow::Result<NodeReport> {
    // It can't say which port the system gave it.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut child = Command::new(anvil)
        .args(["--hardfork", "berlin", "--gas-price", "0", "--silent", "--accounts", "1", "--port"])
        .arg(port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {}", anvil.display()))?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let deadline = Instant::now() + START_WITHIN;
    while tokio::net::TcpStream::connect(address).await.is_err() {
        if Instant::now() > deadline || child.try_wait()?.is_some() {
            bail!("{} does not serve", anvil.display());
        }
        tokio::time::sleep(START_POLL).await;
    }
    report("anvil", &mut child, address, plan).await
}

async fn report(
    node: &str,
    child: &mut Child,
    address: SocketAddr,
    plan: &Plan,
) -> anyhow::Result<NodeReport> {
    let pid = child.id().context("a process that was just started has an id")?;
    let before = cpu_seconds_of(pid)?;
    let measured = measure(address, plan.round_trips, plan.senders, plan.each).await;
    let measured: Measured = measured.with_context(|| format!("asking {node}"))?;
    let used = cpu_seconds_of(pid)? - before;
    child.kill().await.with_context(|| format!("ending {node}"))?;
    let milliseconds = |all: &[Duration]| Spread::of(all.iter().map(|one| one.as_secs_f64() * 1e3));
    Ok(NodeReport {
        node: node.to_owned(),
        round_trip_ms: milliseconds(&measured.round_trips),
        send_ms: milliseconds(&measured.sends),
        transactions_per_second: float(measured.transactions) / measured.elapsed.as_secs_f64().max(1e-9),
        cpu_ms_per_transaction: used * 1e3 / float(measured.transactions + u64::from(plan.round_trips)),
    })
}

/// The native program: what npm puts beside it is a script, which can be neither measured nor ended in its place.
fn find_anvil(named: Option<&Path>) -> anyhow::Result<Option<PathBuf>> {
    if let Some(named) = named {
        return if named.is_file() {
            Ok(Some(named.to_owned()))
        } else {
            bail!("{} is no file", named.display())
        };
    }
    let machine = if cfg!(target_arch = "aarch64") { "anvil-linux-arm64" } else { "anvil-linux-amd64" };
    let installed = Path::new("contracts/node_modules/@foundry-rs").join(machine).join("bin/anvil");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join("anvil"));
    Ok(std::iter::once(installed).chain(in_path).find(|file| file.is_file()))
}

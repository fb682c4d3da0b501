//! Foundry's programs, where `npm ci` in `contracts` puts them or wherever they are installed, and anvil as a second node beside ours.

use crate::tools::{find_tool, or_skip};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A program of Foundry's: `anvil`, `cast` or `forge`.
///
/// # Errors
/// What to do where it is missing.
pub fn foundry(name: &str) -> Result<PathBuf, String> {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts/node_modules/@foundry-rs");
    let machine = if cfg!(target_arch = "aarch64") { "linux-arm64" } else { "linux-amd64" };
    // Not the script in `.bin`: it leaves the program behind when it is ended, and says that it succeeded whatever happened.
    let ours = packages.join(format!("{name}-{machine}/bin/{name}"));
    let found = ours.is_file().then_some(ours).or_else(|| find_tool(name));
    found.ok_or_else(|| format!("{name} is not installed: npm ci in contracts/"))
}

/// A node of anvil's with one account that has coin. Ended when it is dropped.
#[derive(Debug)]
pub struct Anvil {
    child: Child,
    address: SocketAddr,
}

impl Anvil {
    /// The secret key of the account, which everybody knows.
    pub const RICH_KEY: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

    /// Starts one with these arguments beside its own; `None`, and a word about it, where there is no anvil.
    ///
    /// # Panics
    /// When it does not start, or where it may not be missing.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Option<Anvil> {
        let program = or_skip("a second node", foundry("anvil"))?;
        let mut child = Command::new(program)
            .args(["--port", "0", "--accounts", "1"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("anvil starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("Listening on ").map(|address| address.trim().to_owned()))
            .expect("anvil says where it listens");
        // It stops when nobody reads what it says.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Anvil { child, address: address.parse().expect("anvil says an address") })
    }

    /// Where its JSON-RPC is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("anvil can be ended");
    }
}

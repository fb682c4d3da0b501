//! Dependencies point one way: programs -> shells -> pure; tests may use anything, and nothing else may use them.

use crate::cargo;
use serde_json::Value;

/// Where a crate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    /// Decisions and formats: no clock, no randomness, no input or output.
    Pure,
    /// Effects: does what the pure crates decided.
    Shell,
    /// A daemon or a foreign protocol.
    Program,
    /// The two ways a person drives the network; they may start the programs.
    Front,
    /// Used by tests only.
    Test,
}

/// The layer of a crate of this workspace. A crate that is not here has no place yet: give it one first.
pub(crate) fn layer(name: &str) -> Option<Layer> {
    // Never published, and run by its short name.
    if name == "simulator" {
        return Some(Layer::Test);
    }
    let layer = match name.strip_prefix("seedbank-")? {
        "agreement" | "erasure" | "formats" | "protocol" | "stewardship" => Layer::Pure,
        "catalog" | "client" | "settlement" | "store" | "transport" => Layer::Shell,
        "provider" | "steward" | "devchain" => Layer::Program,
        "gateway-s3" | "gateway-hf" | "gateway-bittorrent" | "gateway-ipfs" => Layer::Program,
        "cli" | "console" => Layer::Front,
        "fuzzing" | "testkit" => Layer::Test,
        _ => return None,
    };
    Some(layer)
}

/// Runtimes, disks, networks, clocks and dice: whoever lists one of these can't be replayed from its arguments.
const EFFECTS: [&str; 17] = [
    "async-std",
    "chrono",
    "fastrand",
    "futures-executor",
    "getrandom",
    "hyper",
    "hyper-util",
    "mio",
    "rand",
    "reqwest",
    "rusqlite",
    "rustix",
    "rustls",
    "smol",
    "sqlx",
    "tokio",
    "tokio-rustls",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Program,
    Tests,
}

#[derive(Debug)]
struct Crate {
    name: String,
    dependencies: Vec<(String, Use)>,
}

fn workspace() -> Vec<Crate> {
    let metadata = cargo(&["metadata", "--offline", "--locked", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo metadata is JSON");
    let text = |value: &Value| value.as_str().expect("a name is text").to_owned();
    let list = |value: &Value| value.as_array().expect("a list").clone();
    list(&metadata["packages"])
        .iter()
        .map(|package| Crate {
            name: text(&package["name"]),
            dependencies: list(&package["dependencies"])
                .iter()
                .map(|dependency| {
                    let only_tests = dependency["kind"] == "dev";
                    (text(&dependency["name"]), if only_tests { Use::Tests } else { Use::Program })
                })
                .collect(),
        })
        .collect()
}

fn violations(workspace: &[Crate]) -> Vec<String> {
    let mut found = Vec::new();
    for one in workspace {
        let Some(from) = layer(&one.name) else {
            found.push(format!("{} has no layer", one.name));
            continue;
        };
        for (to, using) in &one.dependencies {
            if let Err(why) = may_use(&one.name, from, to, *using) {
                found.push(format!("{} -> {to}: {why}", one.name));
            }
        }
    }
    found
}

fn may_use(name: &str, from: Layer, to: &str, using: Use) -> Result<(), &'static str> {
    // `settlement` speaks to a chain, `devchain` is one.
    let knows_the_chain = matches!(name, "seedbank-settlement" | "seedbank-devchain");
    // The arithmetic of agreements is tested beside the contracts' own bytecode.
    let runs_contracts = name == "seedbank-agreement" && to == "revm" && using == Use::Tests;
    if (to.starts_with("alloy") || to.starts_with("revm")) && !knows_the_chain && !runs_contracts {
        return Err("only settlement and devchain know the EVM");
    }
    if using == Use::Tests {
        return Ok(());
    }
    let Some(target) = layer(to) else {
        let effect = from == Layer::Pure && EFFECTS.contains(&to);
        return if effect { Err("a pure crate lists no effect") } else { Ok(()) };
    };
    let allowed = match from {
        Layer::Pure => target == Layer::Pure,
        Layer::Shell | Layer::Program => matches!(target, Layer::Pure | Layer::Shell),
        Layer::Front => target != Layer::Test && target != Layer::Front,
        Layer::Test => true,
    };
    if allowed { Ok(()) } else { Err("dependencies point from programs to shells to pure crates") }
}

#[test]
fn dependencies_point_from_programs_to_shells_to_pure_crates() {
    let workspace = workspace();
    assert!(workspace.len() >= 12, "cargo metadata lists the workspace");
    assert_eq!(violations(&workspace), Vec::<String>::new());
}

#[test]
fn wrong_edges_are_found() {
    let wrong = |name: &str, to: &str, using| {
        let one = Crate { name: name.to_owned(), dependencies: vec![(to.to_owned(), using)] };
        violations(&[one]).len() == 1
    };
    assert!(wrong("seedbank-formats", "seedbank-store", Use::Program));
    assert!(wrong("seedbank-protocol", "tokio", Use::Program));
    assert!(wrong("seedbank-client", "seedbank-provider", Use::Program));
    assert!(wrong("seedbank-provider", "seedbank-steward", Use::Program));
    assert!(wrong("seedbank-gateway-s3", "seedbank-gateway-hf", Use::Program));
    assert!(wrong("seedbank-cli", "seedbank-testkit", Use::Program));
    assert!(wrong("seedbank-client", "simulator", Use::Program));
    assert!(wrong("seedbank-client", "alloy", Use::Tests));
    assert!(wrong("seedbank-agreement", "revm", Use::Program));
    assert!(wrong("seedbank-utils", "serde", Use::Program));
    assert!(!wrong("seedbank-formats", "tokio", Use::Tests));
    assert!(!wrong("seedbank-client", "seedbank-catalog", Use::Program));
    assert!(!wrong("seedbank-cli", "seedbank-provider", Use::Program));
    assert!(!wrong("seedbank-settlement", "alloy", Use::Program));
}

//! What a review of one change can't see: the shape of the whole workspace.
//!
//! Who depends on whom, which licences came in with a dependency, which lints the pure crates keep, whether the
//! documents' links lead somewhere. All of it works offline: cargo answers from what the build already has.

mod dependencies;
mod layers;
mod lints;
mod reliability;
mod secrets;
mod text;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the workspace's `Cargo.toml`.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace's folder exists")
}

/// What `cargo` with these arguments prints in the workspace's folder.
fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(arguments).current_dir(root()).output().expect("cargo starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?} failed: {errors}");
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

//! A provider whose wallet is kept in another home: its folder has an operator's key only.

use crate::files::write_specimen;
use crate::network::pin_port;
use crate::program::{list_of, text_of};
use crate::registries::forget_look;
use crate::sandbox::{Sandbox, wait_until};
use seedbank_testkit::assert_same_folder;
use serde_json::Value;
use std::time::Duration;

#[test]
fn a_provider_runs_with_an_operators_key_and_only_the_cold_wallet_registers_collects_and_leaves() {
    let sandbox = Sandbox::new();
    let home = sandbox.home("home");
    home.seedbank("up --providers 3 --detach --quiet").succeeds();
    let used = home.seedbank("chain show").json();
    let (url, directory) = (text_of(&used["rpc"][0]), text_of(&used["directory"]));

    let cold = sandbox.home("cold");
    cold.make_keys(&sandbox.path("cold.phrase"));
    let keys = cold.seedbank("key show").json();
    let dir = sandbox.path("provider");
    let prepared = cold
        .seedbank("provider init --open --listen 127.0.0.1:0 --operator cold --wallet-of-home --faucet --stake 5000000000")
        .args(["--rpc", url, "--directory", directory])
        .arg(&dir)
        .json();
    assert_eq!((&prepared["wallet"], &prepared["operator"]), (&keys["wallet"], &keys["operator"]));
    assert!(dir.join("operator.key").exists() && !dir.join("wallet.key").exists());

    // The port that it gets, once; it does nothing on the chain before the wallet has named it.
    let mut process = cold.seedbank("provider run --json").arg(&dir).start();
    pin_port(&dir, text_of(&process.first_line()["address"]));
    process.kill();
    let mut process = cold.seedbank("provider run --json").arg(&dir).start();
    let said = process.first_line();
    let nobody = sandbox.home("nobody");
    for words in ["provider register", "provider withdraw", "provider exit"] {
        nobody.seedbank(words).arg(&dir).fails(1, "needs the key of the wallet");
    }
    home.seedbank("provider register --wallet-of-home").arg(&dir).fails(1, "and the provider is paid as");
    let entry = cold.seedbank("provider register --wallet-of-home").arg(&dir).json();
    assert_eq!((&entry["wallet"], &entry["operator"]), (&keys["wallet"], &keys["operator"]));
    assert_eq!((&entry["stake"], &entry["key"]), (&"5000000000".into(), &said["key"]));

    let (tree, back) = (sandbox.path("tree"), sandbox.path("back"));
    write_specimen(&tree, 45);
    forget_look(&home);
    home.seedbank("dataset push notes").arg(&tree).succeeds();
    std::fs::write(tree.join("more"), vec![7; 100_000]).expect("written");
    home.seedbank("dataset push notes").arg(&tree).succeeds();
    let agreements = home.seedbank("agreement ls").json();
    let with_it = |agreement: &&Value| agreement["provider"] == said["key"];
    assert_eq!(list_of(&agreements).iter().filter(with_it).count(), 1, "{agreements}");
    home.seedbank("dataset pull notes").arg(&back).succeeds();
    assert_same_folder(&tree, &back);

    let standing = || cold.seedbank("provider status").arg(&dir).json()["money"]["standing"].clone();
    wait_until("the provider has looked at its agreement", Duration::from_secs(60), || {
        standing()["agreements"] == 1
    });
    assert_eq!(standing()["sender"], keys["operator"], "{}", standing());
    let withdrawn = cold.seedbank("provider withdraw --wallet-of-home").arg(&dir).json();
    assert_eq!(withdrawn["to"], keys["wallet"]);
    let leaving = cold.seedbank("provider exit --wallet-of-home").arg(&dir).json();
    assert_eq!(list_of(&leaving["running"]).len(), 1, "{leaving}");
    process.kill();
    home.seedbank("down").succeeds();
}

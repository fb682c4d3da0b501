//! A local network whose providers are paid.

use crate::files::write_specimen;
use crate::network::pin_port;
use crate::program::{list_of, text_of};
use crate::registries::{connect, forget_look, profile};
use crate::sandbox::{Sandbox, wait_until};
use seedbank_agreement::WalletKey;
use seedbank_formats::Signature;
use seedbank_settlement::{SendPolicy, Wallet};
use seedbank_testkit::assert_same_folder;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::runtime::Runtime;

const SOON: Duration = Duration::from_secs(60);

fn units(value: &Value) -> u128 {
    text_of(value).parse().expect("an amount")
}

#[test]
fn a_push_opens_an_agreement_with_each_provider_that_holds_something_and_a_second_start_goes_on() {
    let sandbox = Sandbox::new();
    let home = sandbox.home("home");
    let (tree, back) = (sandbox.path("tree"), sandbox.path("back"));
    write_specimen(&tree, 43);
    for round in 0..2 {
        let up = home.seedbank("up --providers 4 --detach --quiet").json();
        assert_eq!(list_of(&up["processes"]).len(), 6, "chain, providers, steward: {up}");
        std::fs::write(tree.join("round"), round.to_string()).expect("written");
        home.seedbank("dataset push notes").arg(&tree).succeeds();
        let agreements = home.seedbank("agreement ls").json();
        let agreements = list_of(&agreements);
        assert_eq!(agreements.len(), 4, "{agreements:?}");
        assert!(agreements.iter().all(|agreement| agreement["state"] == "open"), "{agreements:?}");
        let number = agreements[0]["agreement"].to_string();
        let shown = home.seedbank("agreement show").arg(&number).json();
        assert_eq!(shown["provider"], agreements[0]["provider"], "an agreement is found by its number");
        let by_key = home.seedbank("agreement show").arg(text_of(&shown["provider"])).json();
        assert_eq!(by_key["agreement"], agreements[0]["agreement"], "and by the provider's key");
        home.seedbank("agreement show 4000000000").fails(1, "see `seedbank agreement ls`");
        let wallet = home.seedbank("wallet show").json();
        assert!(units(&wallet["locked"]) > 0, "{wallet}");
        home.seedbank("down").succeeds();
    }
    home.seedbank("up --no-chain --providers 4 --detach --quiet").succeeds();
    home.seedbank("dataset pull notes").arg(&back).succeeds();
    assert_same_folder(&tree, &back);
    home.seedbank("down").succeeds();
}

#[test]
fn whoever_is_given_up_is_known_to_be_before_notice_is_given_and_notice_can_be_given_again() {
    let sandbox = Sandbox::new();
    let home = sandbox.home("home");
    home.seedbank("up --providers 4 --detach --quiet").succeeds();
    let tree = sandbox.path("tree");
    write_specimen(&tree, 46);
    home.seedbank("dataset push notes").arg(&tree).succeeds();
    let number = list_of(&home.seedbank("agreement ls").json())[0]["agreement"].to_string();
    let shown = || home.seedbank("agreement show").arg(&number).json();
    let before = shown();
    // While somebody else sends with the wallet, notice waits.
    let deployments = std::fs::read_dir(home.root().join("pay")).expect("listed");
    let deployment = deployments.map(|entry| entry.expect("read").path()).find(|path| path.is_dir());
    let wallet =
        std::fs::File::create(deployment.expect("a deployment").join("wallet.lock")).expect("opened");
    wallet.lock().expect("locked");
    let mut cut = home.seedbank("agreement terminate").arg(&number).start();
    wait_until("the provider to be given up", SOON, || shown()["state"] == "stopped");
    assert!(cut.is_running());
    cut.kill();
    assert_eq!(shown()["ends_before"], before["ends_before"], "notice was not given");
    drop(wallet);
    let ends = home.seedbank("agreement terminate").arg(&number).json()["ends_before"].clone();
    assert!(ends.as_u64() < before["ends_before"].as_u64(), "{ends} {before}");
    home.seedbank("down").succeeds();
}

#[test]
fn a_provider_of_ones_own_on_a_local_networks_chain_is_found_and_used_by_its_home_and_by_others() {
    let sandbox = Sandbox::new();
    let home = sandbox.home("home");
    let up = home.seedbank("up --providers 3 --detach --quiet").json();
    let used = home.seedbank("chain show").json();
    let (url, directory) = (text_of(&used["rpc"][0]), text_of(&used["directory"]));

    // By hand: prepared, run on a port that the system gives, then on that one, registered, and run.
    let by_hand = sandbox.home("by-hand");
    let prepare = |name: &str, paid: &[&str]| {
        let dir = sandbox.path(name);
        let init = by_hand.seedbank("provider init --open --listen 127.0.0.1:0 --operator").arg(name);
        init.args(paid).arg(&dir).succeeds();
        dir
    };
    let own = prepare("own", &["--rpc", url, "--directory", directory, "--stake", "5000000000", "--faucet"]);
    let mut process = by_hand.seedbank("provider run --json").arg(&own).start();
    pin_port(&own, text_of(&process.first_line()["address"]));
    process.kill();
    let entry = by_hand.seedbank("provider register").arg(&own).json();
    assert_eq!((&entry["stake"], &entry["leaving"]), (&"5000000000".into(), &false.into()));
    let mut process = by_hand.seedbank("provider run --json").arg(&own).start();
    let said = process.first_line();
    assert_eq!(entry["key"], said["key"]);

    // Somebody enters another that serves, but has not given its word for that wallet.
    let stolen = prepare("stolen", &[]);
    let mut victim = by_hand.seedbank("provider run --json").arg(&stolen).start();
    let stolen = victim.first_line();
    let runtime = Runtime::new().expect("a runtime");
    let chain = connect(&runtime, url, directory.parse().expect("an address"));
    runtime.block_on(async {
        let wallet =
            Wallet::start(chain, WalletKey::from_secret(&[9; 32]).expect("a key"), SendPolicy::local());
        let key = text_of(&stolen["key"]).parse().expect("a key");
        let calls = wallet.registry();
        let profile = profile(text_of(&stolen["address"]));
        calls.register(key, &Signature([7; 64]), &profile).await.expect("registered");
        wallet.stop().await;
    });

    let (tree, back) = (sandbox.path("tree"), sandbox.path("back"));
    write_specimen(&tree, 44);
    // The steward looked when it began.
    forget_look(&home);
    home.seedbank("dataset push notes --public").arg(&tree).succeeds();
    let told = home.seedbank("provider ls").json();
    let sources: BTreeMap<&str, &str> = list_of(&told)
        .iter()
        .map(|provider| (text_of(&provider["profile"]["key"]), text_of(&provider["source"])))
        .collect();
    assert_eq!(sources.len(), 4, "{told}");
    assert_eq!(sources[text_of(&said["key"])], "registry");
    let agreements = home.seedbank("agreement ls").json();
    let with_own = |agreement: &&Value| agreement["provider"] == said["key"];
    assert_eq!(list_of(&agreements).iter().filter(with_own).count(), 1, "{agreements}");

    // Another home finds all four where they are, and reads from them.
    let other = sandbox.home("other");
    other.make_keys(&sandbox.path("other.phrase"));
    let dear = ["1000000000000000000000000000"; 3];
    let limits = ["--rent-max", dear[0], "--egress-max", dear[1], "--budget", dear[2]];
    other.seedbank("chain use").args(["--rpc", url, "--directory", directory]).args(limits).succeeds();
    let name = format!("{}/notes", text_of(&home.seedbank("key show").json()["wallet"]));
    other.seedbank("dataset pull").arg(name).arg(&back).succeeds();
    assert_same_folder(&tree, &back);
    let told = other.seedbank("provider ls").json();
    for process in
        list_of(&up["processes"]).iter().filter(|one| text_of(&one["name"]).starts_with("provider-"))
    {
        let found = list_of(&told).iter().find(|provider| provider["profile"]["key"] == process["key"]);
        let found = found.unwrap_or_else(|| panic!("{told}"));
        assert_eq!(
            found["profile"]["address"], process["address"],
            "where it is, not where it was told to listen"
        );
    }
    assert_eq!(list_of(&told).len(), 4, "{told}");
    home.seedbank("down").succeeds();
}

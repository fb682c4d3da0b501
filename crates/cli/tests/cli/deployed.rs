//! Contracts that `chain deploy` puts on a chain, and all that works on them: from an empty chain to a read that is paid for, on the
//! embedded chain and on anvil.

use crate::chain::ask;
use crate::files::write_specimen;
use crate::program::{Invocation, Started, list_of, number_of, text_of};
use crate::sandbox::{Home, Sandbox, wait_until};
use seedbank_testkit::tools::or_skip;
use seedbank_testkit::{Anvil, assert_same_folder, foundry};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A token of the test token's.
const TOKEN: u128 = 1_000_000_000_000_000_000;
const STAKE: &str = "1000000000000000000000";
const PROVIDERS: usize = 3;
/// Whose key is 5a5a…
const DEPLOYER: &str = "0xa8049bB68181799124F98E467DD749e120abFA64";

/// A chain without contracts.
struct Bare {
    address: String,
    chain_id: u64,
    /// Held for as long as it serves.
    node: Serving,
    sandbox: Sandbox,
}

enum Serving {
    Embedded { _process: Started },
    Anvil { _node: Anvil },
}

impl Bare {
    fn embedded() -> Bare {
        let sandbox = Sandbox::new();
        let run = sandbox.home("operator").seedbank("chain run --listen 127.0.0.1:0 --chain-id 1029 --json");
        let mut process = run.start();
        let address = text_of(&process.first_line()["address"]).to_owned();
        Bare { address, chain_id: 1029, node: Serving::Embedded { _process: process }, sandbox }
    }

    fn anvil() -> Option<Bare> {
        let node = Anvil::start(&["--hardfork", "berlin", "--chain-id", "199"])?;
        let address = node.address().to_string();
        Some(Bare { address, chain_id: 199, node: Serving::Anvil { _node: node }, sandbox: Sandbox::new() })
    }

    fn each() -> impl Iterator<Item = Bare> {
        std::iter::once(Bare::embedded()).chain(Bare::anvil())
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Gives an account the chain's coin, where gas costs some.
    fn fund(&self, account: &Value) {
        if let Serving::Anvil { .. } = self.node {
            ask(&self.address, "anvil_setBalance", json!([account, "0x56bc75e2d63100000"]));
        }
    }

    fn key_file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.sandbox.path(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode is set");
        path
    }

    fn deploy(&self, key_file: &Path) -> Invocation {
        let home = self.sandbox.home("deployer");
        home.seedbank("chain deploy --blocks-min 1 --rpc").arg(self.url()).arg("--key-file").arg(key_file)
    }

    /// A home with keys, and coin for its wallet.
    fn home(&self, name: &str) -> Home {
        let home = self.sandbox.home(name);
        home.make_keys(&self.sandbox.path(&format!("{name}.phrase")));
        self.fund(&home.seedbank("key show").json()["wallet"]);
        home
    }

    /// A provider that wants its money soon, and the folder that it serves.
    fn provider(&self, number: usize, directory: &Value) -> (PathBuf, Started) {
        let dir = self.sandbox.path(&format!("provider-{number}"));
        let home = self.sandbox.home("operator");
        let prepared = home
            .seedbank("provider init --open --listen 127.0.0.1:0 --faucet --operator")
            .arg(format!("operator-{number}"))
            .args(["--price-storage", "1000000000000000000", "--price-egress", "100000000000000000"])
            .args([
                "--stake",
                "1000000000000000000000",
                "--rpc",
                &self.url(),
                "--directory",
                text_of(directory),
            ])
            .arg(&dir)
            .json();
        self.fund(&prepared["wallet"]);
        let configuration = fs::OpenOptions::new().append(true).open(dir.join("provider.toml"));
        configuration
            .expect("it was made")
            .write_all(b"[chain.credit]\nper_key = \"16KiB\"\n")
            .expect("written");
        home.seedbank("provider register")
            .arg(&dir)
            .fails(1, "of an open port alone `provider run` tells the registry");
        let mut process = home.seedbank("provider run --json").arg(&dir).start();
        process.first_line();
        wait_until("a provider to enter the registry", Duration::from_secs(60), || {
            home.seedbank("provider status").arg(&dir).json()["money"]["standing"]["stake"] == STAKE
        });
        (dir, process)
    }
}

#[test]
fn what_was_deployed_is_used_for_a_push_and_a_read_that_is_paid_for() {
    for bare in Bare::each() {
        let key_file = bare.key_file("deployer.hex", &format!("0x{}\n", "5a".repeat(32)), 0o600);
        if let Serving::Anvil { .. } = bare.node {
            bare.deploy(&key_file).fails(1, "has not enough of the chain's coin to pay for gas");
        }
        bare.fund(&json!(DEPLOYER));
        let chain_id = bare.chain_id.to_string();
        let deployed = bare.deploy(&key_file).arg("--chain-id").arg(chain_id).json();
        assert_eq!(deployed["chain_id"], bare.chain_id);
        assert_eq!(deployed["parameters"]["question_bond"], TOKEN.to_string());
        let directory = &deployed["directory"];

        let owner = bare.home("owner");
        owner.seedbank("chain show").fails(1, "see `seedbank chain use`");
        let limits = format!("--rent-max {} --egress-max {TOKEN} --budget {}", 2 * TOKEN, 10_000 * TOKEN);
        let used = owner
            .seedbank(&format!("chain use {limits} --rpc {} --directory {}", bare.url(), text_of(directory)))
            .json();
        assert_eq!((&used["market"], &used["token"]), (&deployed["market"], &json!("tSEED")));
        assert_eq!(owner.seedbank("chain show").json(), used);

        let providers: Vec<_> = (0..PROVIDERS).map(|number| bare.provider(number, directory)).collect();
        let (tree, back) = (bare.sandbox.path("tree"), bare.sandbox.path("back"));
        write_specimen(&tree, 77);
        owner.seedbank("dataset push notes").arg(&tree).succeeds();
        let found = owner.seedbank("provider ls").json();
        assert_eq!(list_of(&found).len(), PROVIDERS, "by nobody's hand: {found}");
        let agreements = owner.seedbank("agreement ls").json();
        assert_eq!(list_of(&agreements).len(), PROVIDERS, "{agreements}");
        owner.seedbank("dataset pull notes").arg(&back).succeeds();
        assert_same_folder(&tree, &back);
        let paid_for = providers.iter().filter(|(dir, _)| {
            let status = owner.seedbank("provider status").arg(dir).json();
            !list_of(&status["money"]["vouchers"]).is_empty()
        });
        assert!(paid_for.count() > 0, "what was read beyond the credit was paid for");
    }
}

#[test]
fn a_deployment_that_can_not_be_made_says_why_and_what_to_do() {
    let bare = Bare::embedded();
    let good = "5a".repeat(32);
    let private = bare.key_file("good.hex", &good, 0o600);
    for (name, text, mode, message) in [
        ("open.hex", good.as_str(), 0o644, "`chmod 600` it"),
        ("short.hex", &good[2..], 0o600, "holds no key: 64 hex digits"),
        ("words.hex", "twelve words that are a phrase", 0o600, "holds no key: 64 hex digits"),
        ("zero.hex", &"00".repeat(32), 0o600, "holds no key"),
    ] {
        let told = bare.deploy(&bare.key_file(name, text, mode)).fails(1, message);
        assert!(told.stderr.contains(name) && !told.stderr.contains(&good[2..]), "{told}");
    }
    bare.deploy(&bare.sandbox.path("nothing.hex")).fails(1, "can't read");
    bare.deploy(&private).arg("--chain-id").arg("199").fails(1, "chain 1029 instead of 199");
    let nobody = "0x00000000000000000000000000000000000000aa";
    bare.deploy(&private).arg("--token").arg(nobody).fails(1, "which should be the token");
    let home = bare.sandbox.home("deployer");
    let elsewhere = |url: &str| home.seedbank("chain deploy --rpc").arg(url).arg("--key-file").arg(&private);
    elsewhere("http://127.0.0.1:1").fails(1, "no connection");
    elsewhere("somewhere").fails(1, "--rpc");
    assert_eq!(ask(&bare.address, "eth_blockNumber", json!([])), "0x0", "nothing was sent");

    // Contracts of one chain are not there on another.
    let directory = bare.deploy(&private).json()["directory"].clone();
    let other = Bare::embedded();
    let user = other.home("user");
    let using = |url: &str, directory: &str| {
        user.seedbank("chain use").args(["--rpc", url, "--directory", directory])
    };
    using(&other.url(), text_of(&directory)).fails(1, "there is no directory of Seedbank contracts at");
    using(&bare.url(), nobody).fails(1, "there is no directory of Seedbank contracts at");
    user.seedbank("chain show").fails(1, "see `seedbank chain use`");
    using(&bare.url(), text_of(&directory)).succeeds();
}

#[test]
fn bond_of_a_question_is_a_token_or_what_is_said_and_is_told_with_what_an_answer_costs() {
    let bare = Bare::embedded();
    let key_file = bare.key_file("deployer.hex", &"5a".repeat(32), 0o600);
    let deployed = bare.deploy(&key_file).json();
    let deploy = |token: &str| bare.deploy(&key_file).arg("--token").arg(text_of(&deployed[token]));
    let says = |run: Invocation, what: &str| {
        let told = run.succeeds();
        assert!(String::from_utf8_lossy(&told.stdout).contains(what), "{what}: {told}");
    };
    says(deploy("token"), "question   1 tSEED of bond: compare it with about 5,427,030 gas");

    // A contract that is no token has no decimals either.
    let head = ask(&bare.address, "eth_blockNumber", json!([]));
    deploy("directory").fails(1, "or say it with --question-bond");
    assert_eq!(ask(&bare.address, "eth_blockNumber", json!([])), head, "nothing was sent");
    let said = deploy("directory").args(["--question-bond", "7", "--challenges", "7"]);
    says(said, "question   7 units of bond: compare it with about 1,809,010 gas");
}

#[test]
#[ignore = "forge compiles all contracts again, for half a minute"]
fn what_forge_script_deploys_is_recognised() {
    let Some(forge) = or_skip("a deployment by forge", foundry("forge")) else { return };
    let contracts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contracts");
    for bare in Bare::each() {
        bare.fund(&json!(DEPLOYER));
        let run = Command::new(&forge)
            .args([
                "script",
                "script/Deploy.s.sol",
                "--broadcast",
                "--legacy",
                "--json",
                "--rpc-url",
                &bare.url(),
            ])
            .args(["--private-key", &format!("0x{}", "5a".repeat(32))])
            .current_dir(&contracts)
            .env("FOUNDRY_BROADCAST", bare.sandbox.path("broadcast"))
            .envs([("EPOCH_SECONDS", "600"), ("BLOCKS_MIN", "1")])
            .output()
            .expect("forge can be run");
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
        let told = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut returned =
            told.filter_map(|line| line["returns"]["directory"]["value"].as_str().map(str::to_owned));
        let directory = returned.next().expect("it says where the directory is");
        let used = bare
            .home("user")
            .seedbank("chain use")
            .args(["--rpc", &bare.url(), "--directory", &directory])
            .json();
        assert_eq!((&used["epoch_seconds"], &used["chain_id"]), (&json!(600), &json!(bare.chain_id)));
        let question_bond = json!([{ "to": used["market"], "data": "0x2d835fb8" }, "latest"]);
        assert_eq!(ask(&bare.address, "eth_call", question_bond), format!("0x{TOKEN:064x}"));
    }
}

#[test]
fn a_chain_that_knows_its_contracts_seals_each_epoch_before_anybody_who_could_choose() {
    let bare = Bare::embedded();
    let key_file = bare.key_file("deployer.hex", &"5a".repeat(32), 0o600);
    let deployed = bare.deploy(&key_file).arg("--epoch-seconds").arg("1000").json();
    let directory = text_of(&deployed["directory"]);
    let Bare { sandbox, node, .. } = bare;
    drop(node);
    let run = |directory: &str| {
        let run = sandbox
            .home("operator")
            .seedbank("chain run --listen 127.0.0.1:0 --test-clock --json --directory");
        run.arg(directory)
    };
    run("0x00000000000000000000000000000000000000aa")
        .fails(1, "there is no directory of Seedbank contracts at");
    let mut process = run(directory).start();
    let said = process.first_line();
    let sealed = |number: u64| {
        let block =
            ask(text_of(&said["address"]), "eth_getBlockByNumber", json!([format!("0x{number:x}"), true]));
        let first = block["transactions"][0].clone();
        (first["from"].clone(), first["to"].clone())
    };
    let head = number_of(&said["block"]);
    let seal = (lower(&said["key"]), lower(&deployed["randomness"]));
    assert_eq!(sealed(head), seal, "the epoch under way, before anybody hears of the chain");
    ask(text_of(&said["address"]), "evm_increaseTime", json!([1000]));
    ask(text_of(&said["address"]), "evm_mine", json!([]));
    assert_eq!((sealed(head + 1), sealed(head + 2)), ((Value::Null, Value::Null), seal));
}

fn lower(address: &Value) -> Value {
    json!(text_of(address).to_lowercase())
}

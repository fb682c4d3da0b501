//! Providers, names and a whole home found through a chain: with providers that nobody added by hand, and without the owner's
//! steward.

use crate::files::{write, write_specimen};
use crate::network::pin_port;
use crate::program::{Invocation, Started, list_of, text_of};
use crate::sandbox::{Home, Sandbox, wait_until};
use seedbank_agreement::{Address, WalletKey};
use seedbank_formats::keys::SigningKey;
use seedbank_formats::{DatasetId, PublicKey, Signature};
use seedbank_settlement::{
    Chain, ChainConfig, DatasetEntry, Deployment, EndpointPolicy, SendPolicy, Settings, Wallet, deploy,
    name_id,
};
use seedbank_testkit::{ByteStream, assert_same_folder};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};
use tokio::runtime::Runtime;

/// So many providers, of which half may be gone.
const PROVIDERS: u8 = 4;

struct Provider {
    dir: PathBuf,
    process: Option<Started>,
    key: String,
    address: String,
}

/// A chain with contracts, and providers that are in its registry and in nobody's books.
struct World {
    providers: Vec<Provider>,
    chain_process: Option<Started>,
    url: String,
    deployment: Deployment,
    runtime: Runtime,
    // After the processes, whose remains it ends.
    sandbox: Sandbox,
}

impl World {
    fn start() -> World {
        let sandbox = Sandbox::new();
        let runtime = Runtime::new().expect("a runtime");
        let mut chain_process = chain(&sandbox, "127.0.0.1:0");
        let url = text_of(&chain_process.first_line()["url"]).to_owned();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
        let key = WalletKey::from_secret(&[1; 32]).expect("a key");
        let settings = Settings::local(now);
        let endpoint = url.parse().expect("an endpoint");
        let deployed = deploy(&endpoint, &key, &settings, SendPolicy::local(), |_, _| {});
        let deployment = runtime.block_on(deployed).expect("deployed");
        let mut world = World {
            providers: Vec::new(),
            chain_process: Some(chain_process),
            url,
            deployment,
            runtime,
            sandbox,
        };
        for number in 0..PROVIDERS {
            let provider = world.provider(number);
            world.squat(identity(&provider.dir).public());
            world.register(number, &provider.dir, &provider.address);
            world.providers.push(provider);
        }
        world
    }

    fn provider(&self, number: u8) -> Provider {
        let dir = self.sandbox.path(&format!("provider-{number}"));
        self.home("operators")
            .seedbank("provider init --open --listen 127.0.0.1:0 --operator")
            .arg(format!("operator-{number}"))
            .arg(&dir)
            .succeeds();
        let mut process = self.home("operators").seedbank("provider run --json").arg(&dir).start();
        let said = process.first_line();
        let (key, address) = (text_of(&said["key"]).to_owned(), text_of(&said["address"]).to_owned());
        Provider { dir, process: Some(process), key, address }
    }

    fn home(&self, name: &str) -> Home {
        self.sandbox.home(name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path(name)
    }

    fn chain(&self) -> Chain {
        connect(&self.runtime, &self.url, self.deployment.directory)
    }

    /// Has a key of a test send.
    fn send<T>(&self, number: u8, act: impl AsyncFnOnce(&Wallet) -> T) -> T {
        let chain = self.chain();
        self.runtime.block_on(async {
            let key = WalletKey::from_secret(&[number; 32]).expect("a key");
            let wallet = Wallet::start(chain, key, SendPolicy::local());
            let done = act(&wallet).await;
            wallet.stop().await;
            done
        })
    }

    /// Somebody claims a key before its own provider does, and leads those who believe it to an address of their own.
    fn squat(&self, key: PublicKey) {
        self.send(9, async |wallet| {
            let word = Signature([7; 64]);
            wallet.registry().register(key, &word, &profile("127.0.0.1:1")).await.expect("registered");
        });
    }

    fn register(&self, number: u8, dir: &Path, address: &str) {
        let identity = identity(dir);
        self.send(100 + number, async |wallet| {
            let word = wallet.chain().binding(wallet.address()).sign(&identity);
            wallet
                .registry()
                .register(identity.public(), &word, &profile(address))
                .await
                .expect("registered");
        });
    }

    /// `chain use` in a home with new keys.
    fn user(&self, name: &str) -> Home {
        let home = self.home(name);
        home.make_keys(&self.path(&format!("{name}.phrase")));
        self.on_chain(home.seedbank("chain use")).succeeds();
        home
    }

    fn on_chain(&self, command: Invocation) -> Invocation {
        command.arg("--rpc").arg(&self.url).arg("--directory").arg(self.deployment.directory.to_string())
    }

    fn entry(&self, owner: Address, name: &str) -> Option<DatasetEntry> {
        let chain = self.chain();
        self.runtime.block_on(chain.datasets().get(name_id(owner, name))).expect("the chain answers")
    }

    /// Starts a provider anew on another port, of which its entry tells.
    fn move_provider(&mut self, at: u8) {
        let provider = &mut self.providers[usize::from(at)];
        provider.process.take().expect("it runs").kill();
        let mut process =
            self.sandbox.home("operators").seedbank("provider run --json").arg(&provider.dir).start();
        provider.address = text_of(&process.first_line()["address"]).to_owned();
        provider.process = Some(process);
        let (dir, address) = (provider.dir.clone(), provider.address.clone());
        self.register(at, &dir, &address);
    }

    fn stop_providers(&mut self) {
        for provider in &mut self.providers {
            provider.process.take().expect("it runs").kill();
        }
    }

    fn start_providers(&mut self) {
        for provider in &mut self.providers {
            pin_port(&provider.dir, &provider.address);
            let mut process =
                self.sandbox.home("operators").seedbank("provider run --json").arg(&provider.dir).start();
            process.first_line();
            provider.process = Some(process);
        }
    }
}

/// The contracts that a directory lists, asked without the program.
pub(crate) fn connect(runtime: &Runtime, url: &str, directory: Address) -> Chain {
    let endpoints = vec![url.parse().expect("an endpoint")];
    let config = ChainConfig { endpoints, directory, chain_id: None, policy: EndpointPolicy::default() };
    runtime.block_on(Chain::connect(&config)).expect("the chain answers")
}

fn chain(sandbox: &Sandbox, listen: &str) -> Started {
    let command = sandbox.home("operators").seedbank("chain run --json --dir").arg(sandbox.path("chain"));
    command.arg("--listen").arg(listen).start()
}

fn identity(dir: &Path) -> SigningKey {
    let text = fs::read_to_string(dir.join("identity.key")).expect("a provider's key");
    let digits = text.trim();
    let byte = |at: usize| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("hex");
    SigningKey::from_seed(std::array::from_fn(byte))
}

pub(crate) fn profile(address: &str) -> String {
    serde_json::json!({
        "address": address, "operator": "somebody", "region": "here", "rent_per_gib_month": "0", "egress_per_gib": "0",
    })
    .to_string()
}

fn wallet_of(home: &Home) -> Address {
    text_of(&home.seedbank("key show").json()["wallet"]).parse().expect("an address")
}

fn key_of(home: &Home) -> String {
    text_of(&home.seedbank("key show").json()["owner"]).to_owned()
}

#[test]
fn a_home_that_knows_only_the_chain_finds_providers_datasets_and_its_own_past() {
    let mut world = World::start();
    let owner = world.user("owner");
    let (tree, notes) = (world.path("tree"), world.path("notes"));
    write_specimen(&tree, 60);
    write_specimen(&notes, 61);
    let pushed = owner.seedbank("dataset push birds/größe --public").arg(&tree).json();
    owner.seedbank("dataset push notes").arg(&notes).succeeds();
    let listed = owner.seedbank("provider ls").json();
    assert_eq!(list_of(&listed).len(), world.providers.len(), "{listed}");
    for provider in list_of(&listed) {
        let ours = world.providers.iter().find(|ours| ours.key == text_of(&provider["profile"]["key"]));
        assert_eq!(text_of(&provider["profile"]["address"]), ours.expect("a real one").address);
        assert_eq!(text_of(&provider["source"]), "registry");
    }
    let wallet = wallet_of(&owner);

    // What is public has its name on the chain; what is private has none that says anything.
    let entry = world.entry(wallet, "birds/größe").expect("it is there");
    assert_eq!(entry.owner_key(&world.chain()).expect("bound").to_string(), key_of(&owner));
    assert!(world.entry(wallet, "notes").is_none());
    let key = world.path("notes.key");
    owner.seedbank("dataset key export notes").arg(&key).succeeds();

    let reader = world.user("reader");
    let (name, back) = (format!("{wallet}/birds/größe"), world.path("back"));
    let pulled = reader.seedbank("dataset pull").arg(&name).arg(&back).json();
    assert_eq!(pulled["version"], pushed["version"]);
    assert_same_folder(&tree, &back);
    let lower = name.to_lowercase();
    reader.seedbank("dataset verify").arg(&lower).succeeds();
    let cut = reader.seedbank("dataset cat --range 100-200").arg(format!("{lower}:long.bin")).succeeds();
    assert_eq!(cut.stdout, ByteStream::bytes(61, 200)[100..]);
    assert!(list_of(&reader.seedbank("dataset ls").arg(&name).json()).len() > 20);
    assert_eq!(reader.seedbank("dataset show").arg(&name).json()["version"], pushed["version"]);
    assert_eq!(list_of(&reader.seedbank("dataset log").arg(&name).json()).len(), 1);
    reader.seedbank("dataset push").arg(&name).arg(&tree).fails(2, "can only be read");
    reader
        .seedbank("dataset pull")
        .arg(format!("{wallet}/fish"))
        .arg(&back)
        .fails(1, "told the chain of no dataset");

    // A private one needs its key, under whatever name it has here.
    let private = format!("{wallet}/notes");
    reader
        .seedbank("dataset pull")
        .arg(&private)
        .arg(world.path("no"))
        .fails(1, "told the chain of no dataset");
    reader.seedbank("dataset key import").arg(&key).succeeds();
    let notes_back = world.path("notes-back");
    reader.seedbank("dataset pull").arg(&private).arg(&notes_back).succeeds();
    assert_same_folder(&notes, &notes_back);

    // An entry that names the owner's key without its word, and one that names another's dataset as its own.
    let (victim, dataset) = (entry.claimed_key, entry.dataset);
    let thief = world.send(9, async |wallet| {
        let calls = wallet.datasets();
        calls.register("birds", dataset, victim, &Signature([7; 64])).await.expect("registered");
        let own = SigningKey::from_seed([9; 32]);
        let word = wallet.chain().dataset_binding(wallet.address()).sign(&own);
        calls.register("mine", dataset, own.public(), &word).await.expect("registered");
        calls.register("nowhere", DatasetId([9; 32]), own.public(), &word).await.expect("registered");
        wallet.address()
    });
    let no = world.path("no");
    for (stolen, message) in
        [("birds", "not to be believed"), ("mine", "is bound to"), ("nowhere", "gave a head")]
    {
        reader.seedbank("dataset pull").arg(format!("{thief}/{stolen}")).arg(&no).fails(1, message);
    }

    // The phrase and the chain bring everything back.
    let recovered = world.home("recovered");
    let recover = |world: &World| {
        let command = recovered.seedbank("key recover --insecure-no-passphrase --phrase-file");
        world.on_chain(command.arg(world.path("owner.phrase")))
    };
    let told = recover(&world).json();
    assert!(list_of(&told["datasets"]).iter().all(|dataset| dataset["recovered"] == true), "{told}");
    assert_eq!(list_of(&told["datasets"]).len(), 2, "{told}");
    let again = world.path("again");
    recovered.seedbank("dataset pull notes").arg(&again).succeeds();
    assert_same_folder(&notes, &again);
    write(&notes, "after.txt", b"after the loss");
    recovered.seedbank("dataset push notes").arg(&notes).succeeds();
    recover(&world).succeeds();

    // Whom the owner removes stays out, whoever leaves takes nothing new, and whoever moves is followed.
    owner.seedbank("provider rm").arg(&world.providers[0].key).succeeds();
    world.send(101, async |wallet| wallet.registry().leave().await.expect("it leaves"));
    let before = world.providers[2].address.clone();
    world.move_provider(2);
    forget_look(&owner);
    owner.seedbank("dataset push birds/größe").arg(&tree).succeeds();
    let listed = owner.seedbank("provider ls").json();
    let known = |at: usize| {
        let key = &world.providers[at].key;
        list_of(&listed).iter().find(|provider| text_of(&provider["profile"]["key"]) == key)
    };
    assert!(known(0).is_none(), "{listed}");
    let leaving = known(1).expect("it is read from");
    assert_eq!((&leaving["leaving"], &leaving["profile"]["accepting"]), (&true.into(), &false.into()));
    let moved = text_of(&known(2).expect("it is there")["profile"]["address"]);
    assert_eq!(moved, world.providers[2].address);
    assert_ne!(moved, before);
}

#[test]
fn without_the_chain_known_names_are_read_and_with_it_no_older_head_than_it_knows() {
    let mut world = World::start();
    let owner = world.user("owner");
    let tree = world.path("tree");
    write_specimen(&tree, 62);
    owner.seedbank("dataset push birds --public").arg(&tree).succeeds();
    let wallet = wallet_of(&owner);
    let (name, reader) = (format!("{wallet}/birds"), world.user("reader"));
    reader.seedbank("dataset verify").arg(&name).succeeds();
    let before = world.entry(wallet, "birds").expect("it is there").sequence;

    // The chain is down: what is known goes on, and says by what.
    world.chain_process.take().expect("it runs").kill();
    let back = world.path("back");
    let pulled = reader.seedbank("dataset pull").arg(&name).arg(&back).succeeds();
    assert!(pulled.stderr.contains("going by what it said before"), "{pulled}");
    assert_same_folder(&tree, &back);
    reader.seedbank("dataset pull").arg(format!("{wallet}/fish")).arg(&back).fails(1, "asking the chain");
    world.stop_providers();
    for provider in &world.providers {
        copy(&provider.dir, &provider.dir.with_extension("old"));
    }
    world.start_providers();
    write(&tree, "second.bin", &ByteStream::bytes(8, 300_000));
    let second = owner.seedbank("dataset push birds").arg(&tree).succeeds();
    assert!(second.stderr.contains("the chain was not told of it"), "{second}");

    // Once it is back, the steward tells it.
    let listen = world.url.trim_start_matches("http://").to_owned();
    let mut process = chain(&world.sandbox, &listen);
    process.first_line();
    world.chain_process = Some(process);
    let mut steward = owner.seedbank("steward run --json --metrics 127.0.0.1:0").start();
    steward.first_line();
    wait_until("the steward to tell the chain", Duration::from_secs(60), || {
        world.entry(wallet, "birds").is_some_and(|entry| entry.sequence > before)
    });
    steward.kill();
    reader.seedbank("dataset pull --overwrite").arg(&name).arg(&back).succeeds();
    assert_same_folder(&tree, &back);

    // Providers that all serve the old head are refused by whoever has the chain, and by whoever had it.
    world.stop_providers();
    for provider in &world.providers {
        fs::remove_dir_all(&provider.dir).expect("removed");
        copy(&provider.dir.with_extension("old"), &provider.dir);
    }
    world.start_providers();
    let stranger = world.user("stranger");
    let no = world.path("no");
    stranger.seedbank("dataset pull").arg(&name).arg(&no).fails(1, "is known to exist");
    world.chain_process.take().expect("it runs").kill();
    reader.seedbank("dataset pull").arg(&name).arg(&no).fails(1, "is known to exist");
}

/// Lets the next command look at the registry, as if minutes had passed.
pub(crate) fn forget_look(home: &Home) {
    let books = rusqlite::Connection::open(home.root().join("catalog/catalog.sqlite")).expect("the books");
    let looks = books.execute("DELETE FROM settings WHERE key LIKE 'registry-look-%'", []).expect("written");
    assert_eq!(looks, 1);
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp");
    assert!(copied.success());
}

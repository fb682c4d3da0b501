//! The client on a real chain in this process, with real providers that are paid there. Every port is whatever is free, and
//! nothing waits but for what the chain says.

// Helpers outside test functions are tests as well.
#![allow(clippy::unwrap_used)]

#[path = "network/harness.rs"]
#[allow(dead_code, reason = "shared with the tests of networks that are not paid")]
mod harness;

use harness::{Kind, World, options, owner};
use seedbank_agreement::price::Prices as Ceiling;
use seedbank_agreement::{Address, AgreementId, Amount, Epoch, WalletKey};
use seedbank_catalog::records::AgreementState;
use seedbank_catalog::{Books, Request};
use seedbank_client::maintain::{KeyLookup, Maintenance};
use seedbank_client::network::Network;
use seedbank_client::pay::lanes::{Counter, Lane};
use seedbank_client::pay::payer::Paid as Paying;
use seedbank_client::pay::{Limits, Payer, PayerKeys, Reads, SettledChain};
use seedbank_client::progress::Silent;
use seedbank_client::push::{PushContext, PushError, PushReport};
use seedbank_client::reader::Reader;
use seedbank_client::snapshot::Snapshot;
use seedbank_devchain::{ClockControl, Config, Node};
use seedbank_erasure::Scheme;
use seedbank_formats::policy::Policy;
use seedbank_protocol::messages::{Prices, TokenUnits};
use seedbank_settlement::{
    Chain, ChainConfig, Deployment, EndpointPolicy, EndpointUrl, MarketParameters, Outcome, SendPolicy,
    Settings, deploy,
};
use seedbank_transport::{ClientLimits, Identity, ProviderClient, TcpDial};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const EPOCH: u32 = 150;
const RENT: u128 = 1_000_000_000_000;
/// A unit for each KiB.
const EGRESS: u128 = 1 << 20;
const STAKE: Amount = Amount(100_000_000_000);
const PATIENCE: Duration = Duration::from_secs(60);

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain until {what}");
}

/// Asks the chain what no library of ours asks.
async fn ask(rpc: &str, method: &str, params: Value) -> Value {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let host = rpc.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let answer: Value = serde_json::from_str(body).unwrap();
    assert!(answer.get("error").is_none(), "{answer}");
    answer["result"].clone()
}

/// A chain, providers that are paid on it, and an owner who pays.
struct Paid {
    world: World,
    rpc: String,
    deployment: Deployment,
    chain: Chain,
    _chain_dir: tempfile::TempDir,
}

impl Paid {
    async fn start(providers: usize, data: usize, total: usize, credit: &str) -> Paid {
        let chain_dir = tempfile::tempdir().unwrap();
        let config = Config { clock: ClockControl::Test, block_time: None, ..Config::default() };
        let node = Arc::new(Node::open(chain_dir.path(), config).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rpc = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { node.serve(listener, std::future::pending()).await });
        let genesis = time(&rpc).await;
        let usual = Settings::local(genesis);
        let settings = Settings {
            blocks_min: 1,
            epoch_seconds: EPOCH,
            market: MarketParameters { challenges: 3, notice_epochs: 2, misses_max: 3, ..usual.market },
            exit_seconds: 60,
            ..usual
        };
        let url: EndpointUrl = rpc.parse().unwrap();
        let deployer = WalletKey::from_secret(&[77; 32]).unwrap();
        let deployment = deploy(&url, &deployer, &settings, SendPolicy::local(), |_, _| ()).await.unwrap();
        let chain = Chain::connect(&endpoints(&rpc, &deployment)).await.unwrap();
        let section = format!(
            "[chain]\nrpc = [\"{rpc}\"]\ndirectory = \"{}\"\nstake = {STAKE}\nepochs_min = 3\nfaucet = true\n{credit}\n",
            deployment.directory
        );
        let prices =
            Prices { storage_per_gib_month: TokenUnits(RENT), retrieval_per_gib: TokenUnits(EGRESS) };
        let kind = Kind { paid: Some((prices, section)), ..Kind::default() };
        let policy = Policy { scheme: Some(Scheme::new(data, total).unwrap()), ..Policy::default() };
        let world = World::start_with(vec![kind; providers], policy).await;
        let paid = Paid { world, rpc, deployment, chain, _chain_dir: chain_dir };
        let network = paid.network();
        let payer = network.payer().unwrap();
        for provider in &paid.world.providers {
            until("the provider can be paid, and its stake is there", || async {
                match payer.payee(&network, &provider.key).await {
                    Ok(Paying::By(payee)) => {
                        paid.chain.registry().stake_of(payee.wallet).await.unwrap() == STAKE
                    }
                    Ok(Paying::Free) | Err(_) => false,
                }
            })
            .await;
        }
        paid
    }

    /// What another process of the owner's home would use.
    fn network(&self) -> Arc<Network> {
        let ceiling = Ceiling { rent_per_gib_month: Amount(RENT), egress_per_gib: Amount(EGRESS) };
        let limits = Limits { ceiling, per_month: Amount(1 << 100), term_epochs: 8 };
        let keys = PayerKeys {
            identity: owner(),
            signer: WalletKey::from_secret(&[2; 32]).unwrap(),
            lanes: Arc::new(|number| {
                let mut secret = [3; 32];
                secret[..4].copy_from_slice(&(number + 1).to_be_bytes());
                WalletKey::from_secret(&secret).ok()
            }),
        };
        let dir = self.world.folder.path().join("pay");
        let chain = SettledChain::new(
            endpoints(&self.rpc, &self.deployment),
            self.deployment.clone(),
            wallet(),
            SendPolicy::local(),
            dir.clone(),
        );
        let payer = Arc::new(Payer::new(Arc::new(chain), keys, limits, dir));
        let client = ProviderClient::new(&Identity::new(&owner()), TcpDial, ClientLimits::default());
        let network = Network::new(client).paying(Arc::new(Reads::new(payer, Amount::ZERO)));
        let providers = self.world.books.providers().unwrap();
        network.learn(providers.iter().map(|known| (&known.profile.key, known.profile.address.as_str())));
        Arc::new(network)
    }

    async fn push(&self, source: &Path) -> Result<PushReport, PushError> {
        let context = PushContext { network: self.network(), ..self.world.context() };
        self.world.push_in(&context, &options(source), Arc::new(Silent)).await
    }

    /// Reads the file `a` of a version.
    async fn read(&self, network: &Arc<Network>, version: seedbank_formats::VersionId, length: u64) {
        let record = self.world.books.resolve(self.world.keys.id, version.to_string()).unwrap().version;
        let reader = Reader::of_books(&self.world.books, network, &self.world.keys);
        let snapshot = Snapshot::open(&reader, version, record.version, record.tree).await.unwrap();
        let path = "a".parse().unwrap();
        let read = seedbank_client::pull::cat(&reader, &snapshot, &path, 0..length, std::io::sink());
        assert_eq!(read.await.unwrap(), length);
        network.settle(Duration::from_secs(10)).await;
    }

    fn maintenance(&self) -> Maintenance {
        let keys = self.world.keys.clone();
        let lookup: KeyLookup = Arc::new(move |_dataset| Some(keys.clone()));
        Maintenance::new(Arc::clone(&self.world.books), self.network(), lookup)
    }

    async fn free(&self, account: Address) -> Amount {
        self.chain.market().free(account).await.unwrap()
    }

    async fn epoch(&self) -> Epoch {
        self.chain.head().await.unwrap().epoch.unwrap()
    }

    async fn pass(&self, seconds: u64) {
        ask(&self.rpc, "evm_increaseTime", json!([seconds])).await;
        ask(&self.rpc, "evm_mine", json!([])).await;
    }

    async fn next_epoch(&self) -> Epoch {
        let next = Epoch(self.epoch().await.0 + 1);
        let begin = self.deployment.clock().begin(next).0;
        self.pass(begin + 1 - time(&self.rpc).await).await;
        next
    }

    /// The wallets of all providers, in the order of `world.providers`.
    async fn payees(&self) -> Vec<Address> {
        let network = self.network();
        let mut payees = Vec::new();
        for provider in &self.world.providers {
            match network.payer().unwrap().payee(&network, &provider.key).await.unwrap() {
                Paying::By(payee) => payees.push(payee.wallet),
                Paying::Free => panic!("it takes money"),
            }
        }
        payees
    }

    async fn proven(&self, payee: Address, epoch: Epoch) {
        until(&format!("epoch {epoch} is proven"), || async {
            self.chain.market().outcome(payee, epoch).await.unwrap() == Outcome::Proven
        })
        .await;
    }

    fn ids(&self) -> BTreeMap<seedbank_formats::PublicKey, AgreementId> {
        let known = self.world.books.agreements().unwrap();
        known.iter().filter_map(|known| Some((known.provider, AgreementId(known.id?)))).collect()
    }
}

fn wallet() -> WalletKey {
    WalletKey::from_secret(&[1; 32]).unwrap()
}

fn endpoints(rpc: &str, deployment: &Deployment) -> ChainConfig {
    ChainConfig {
        endpoints: vec![rpc.parse().unwrap()],
        directory: deployment.directory,
        chain_id: Some(deployment.chain_id),
        policy: EndpointPolicy::default(),
    }
}

async fn time(rpc: &str) -> u64 {
    let block = ask(rpc, "eth_getBlockByNumber", json!(["latest", false])).await;
    u64::from_str_radix(block["timestamp"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

fn write(folder: &Path, name: &str, seed: u64, length: usize) {
    let mut state = seed;
    let mut next = || {
        // xorshift64: enough to defeat compression, and the same each time.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::fs::write(folder.join(name), (0..length).map(|_| next()).collect::<Vec<u8>>()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_pays_and_its_revisions_are_posted_and_proven() {
    let paid = Paid::start(3, 2, 3, "").await;
    let source = paid.world.source("source");
    write(&source, "a", 1, 400_000);
    paid.push(&source).await.unwrap();
    let payees = paid.payees().await;
    let epoch = paid.next_epoch().await;
    for payee in &payees {
        paid.proven(*payee, epoch).await;
        assert!(paid.free(*payee).await > Amount::ZERO, "it was paid");
    }
    write(&source, "b", 2, 300_000);
    paid.push(&source).await.unwrap();
    for id in paid.ids().into_values() {
        until("the provider posts what both signed", || async {
            paid.chain.market().get_agreement(id).await.unwrap().unwrap().sequence >= 1
        })
        .await;
    }
    let before: Vec<Amount> = {
        let mut sums = Vec::new();
        for payee in &payees {
            sums.push(paid.free(*payee).await);
        }
        sums
    };
    let epoch = paid.next_epoch().await;
    for (payee, before) in payees.iter().zip(before) {
        paid.proven(*payee, epoch).await;
        assert!(paid.free(*payee).await > before);
    }
    let done = paid.maintenance().pay().await.unwrap();
    assert_eq!((done.open, done.failed), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_stops_is_paid_no_longer_and_the_refund_arrives() {
    let mut paid = Paid::start(4, 2, 3, "").await;
    let source = paid.world.source("source");
    write(&source, "a", 1, 400_000);
    paid.push(&source).await.unwrap();
    let ids = paid.ids();
    let payees = paid.payees().await;
    let nth = paid.world.providers.iter().position(|provider| ids.contains_key(&provider.key)).unwrap();
    let (gone, id) = (paid.world.providers[nth].key, ids[&paid.world.providers[nth].key]);
    paid.world.providers[nth].end();
    let maintenance = paid.maintenance();
    let before = paid.free(wallet().address()).await;
    let locked = paid.chain.market().standing(id).await.unwrap().locked;
    for _ in 0..5 {
        let epoch = paid.next_epoch().await;
        for (other, payee) in payees.iter().enumerate() {
            // Theirs seal the epoch, so that it counts.
            if other != nth && ids.contains_key(&paid.world.providers[other].key) {
                paid.proven(*payee, epoch).await;
            }
        }
        paid.pass(u64::from(EPOCH) * 6 / 10).await;
        maintenance.pay().await.unwrap();
    }
    let known = paid.world.books.agreements().unwrap();
    let stopped = known.iter().find(|known| known.provider == gone).unwrap();
    assert_eq!(stopped.state, AgreementState::Stopped);
    assert!(paid.chain.market().get_agreement(id).await.unwrap().is_none(), "the agreement is closed");
    assert!(
        paid.free(wallet().address()).await.checked_sub(before) >= Some(locked),
        "{locked} of it came back"
    );
    assert_eq!(paid.free(payees[nth]).await, Amount::ZERO, "nothing was paid for nothing");
    let missing = paid.world.books.missing_fragments(None, 100).unwrap();
    assert!(!missing.is_empty(), "others are to hold what it held");
    maintenance.complete_missing(100, paid.world.now()).await.unwrap();
    assert!(paid.world.books.missing_fragments(None, 100).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_paid_by_vouchers_that_the_chain_covers() {
    let credit = "[chain.credit]\nper_key = \"1MiB\"\nper_network = \"8MiB\"\ntotal = \"16MiB\"";
    let paid = Paid::start(3, 2, 3, credit).await;
    let source = paid.world.source("source");
    write(&source, "a", 1, 12_000_000);
    let version = paid.push(&source).await.unwrap().version;
    let network = paid.network();
    paid.read(&network, version, 12_000_000).await;
    let (mut caps, own) = (Amount::ZERO, wallet().address());
    let lane = network.payer().unwrap().lane(0).unwrap();
    for payee in paid.payees().await {
        let channel = paid.chain.channels().channel(own, payee).await.unwrap();
        let found = paid.chain.channels().lane(own, payee, lane).await.unwrap();
        assert!(channel.promised <= channel.deposit);
        caps = caps.checked_add(found.cap).unwrap();
    }
    assert!(caps > Amount::ZERO, "lanes were funded as they were needed");
    let dir = paid.world.folder.path().join("pay");
    let promised: Amount = seedbank_client::pay::lanes::promised(&dir)
        .unwrap()
        .iter()
        .flat_map(|(_, payees)| payees.values())
        .map(|counter| counter.cumulative)
        .sum();
    // 12 MB at a unit a KiB, less what is owed on credit, more what is paid ahead.
    assert!((9_000..18_000).contains(&promised.0), "{promised}");
    assert!(network.payer().unwrap().chain().epoch().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn money_that_nothing_needs_any_more_comes_back_from_channels_and_agreements() {
    let credit = "[chain.credit]\nper_key = \"64KiB\"\nper_network = \"8MiB\"\ntotal = \"16MiB\"";
    let paid = Paid::start(3, 2, 3, credit).await;
    let source = paid.world.source("source");
    write(&source, "a", 1, 1_000_000);
    let version = paid.push(&source).await.unwrap().version;
    paid.read(&paid.network(), version, 1_000_000).await;
    let own = wallet().address();
    let mut channels = Vec::new();
    for payee in paid.payees().await {
        let channel = paid.chain.channels().channel(own, payee).await.unwrap();
        if channel.deposit > Amount::ZERO {
            channels.push(payee);
        }
    }
    assert!(channels.len() >= 2);
    // Nobody holds anything any more, and nobody has read for long.
    for provider in &paid.world.providers {
        paid.world.books.forget_holdings(provider.key).unwrap();
    }
    let mut lane = Lane::take(&paid.world.folder.path().join("pay")).unwrap();
    for payee in &channels {
        let counter = lane.counter(payee).unwrap();
        lane.set(payee, Counter { used: 0, ..counter }, Amount::ZERO, 0).unwrap();
    }
    drop(lane);
    let maintenance = paid.maintenance();
    let done = maintenance.pay().await.unwrap();
    assert_eq!((done.announced, done.returned, done.failed), (channels.len() as u64, Amount::ZERO, 0));
    assert_eq!(maintenance.pay().await.unwrap().returned, Amount::ZERO, "not before its time");
    paid.pass(61).await;
    let before = paid.chain.token().balance_of(own).await.unwrap();
    let done = maintenance.pay().await.unwrap();
    assert!(done.returned > Amount::ZERO && done.failed == 0, "{done:?}");
    assert_eq!(
        paid.chain.token().balance_of(own).await.unwrap().checked_sub(before),
        Some(done.returned),
        "it is in the wallet"
    );
    for payee in &channels {
        assert_eq!(paid.chain.channels().channel(own, *payee).await.unwrap().deposit, Amount::ZERO);
    }
    // Escrow of agreements about nothing follows, once what was signed is posted and holds.
    let locked = async || {
        let mut locked = Amount::ZERO;
        for id in paid.ids().into_values() {
            locked = locked.checked_add(paid.chain.market().standing(id).await.unwrap().locked).unwrap();
        }
        locked
    };
    let (free, mut epochs) = (paid.free(own).await, 0);
    let before = locked().await;
    assert!(before > Amount::ZERO);
    while locked().await > Amount::ZERO {
        assert!(epochs < 8, "{} are still locked", locked().await);
        epochs += 1;
        paid.next_epoch().await;
        paid.pass(u64::from(EPOCH) * 6 / 10).await;
        // Closes what is behind, then takes what is due.
        maintenance.pay().await.unwrap();
        maintenance.pay().await.unwrap();
    }
    let back = paid.free(own).await.checked_sub(free).unwrap();
    assert!(back > Amount(before.0 / 2), "{back} of {before}: the rest was earned");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_dies_between_signature_and_commit_leaves_both_sides_with_one_set() {
    let paid = Paid::start(3, 2, 3, "").await;
    let source = paid.world.source("source");
    write(&source, "a", 1, 400_000);
    let context = paid.world.hooked(|request| {
        // As good as killed: nothing of this request takes place, and nobody cleans up.
        assert!(!matches!(request, Request::Commit { .. }), "the process dies here");
    });
    let context = PushContext { network: paid.network(), ..context };
    let asked = options(&source);
    let died =
        tokio::spawn(
            async move { seedbank_client::push::push(&context, &asked, Arc::new(Silent)).await.is_ok() },
        );
    assert!(!died.await.unwrap_or(false));
    assert!(paid.world.books.versions(paid.world.keys.id, None, 10).unwrap().is_empty());
    assert_eq!(paid.ids().len(), 3, "they have signed");
    paid.push(&source).await.unwrap();
    let network = paid.network();
    let client = ProviderClient::new(&Identity::new(&owner()), TcpDial, ClientLimits::default());
    for known in paid.world.books.agreements().unwrap() {
        assert!(known.pending.is_none());
        let page = client.list_set(&network.peer(&known.provider), None, 1000).await.unwrap();
        assert_eq!((page.set.sequence, page.leaves.len() as u64), (known.sequence, known.fragments));
        assert_eq!(page.set.size, known.bytes);
    }
}

//! Nodes to test against, and their test clock.

use crate::foundry::Anvil;
use seedbank_agreement::WalletKey;
use seedbank_devchain::GenesisOptions;
use seedbank_settlement::{
    Chain, ChainConfig, Deployment, EndpointPolicy, EndpointUrl, SendPolicy, Settings, Wallet, deploy,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// A node of its own for one test.
pub struct Node {
    address: String,
    kind: Kind,
}

impl fmt::Debug for Node {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Node({})", self.address)
    }
}

enum Kind {
    /// Held for as long as it is asked.
    Anvil { _process: Anvil },
    /// Held for as long as it is served.
    Embedded { _stop: oneshot::Sender<()>, _dir: TempDir },
    /// Somebody else's.
    Elsewhere,
}

impl Node {
    /// None, and a word about it, where there is no anvil.
    pub fn anvil(arguments: &[&str]) -> Option<Self> {
        let process = Anvil::start(arguments)?;
        Some(Self { address: process.address().to_string(), kind: Kind::Anvil { _process: process } })
    }

    /// One that serves at this host and port already.
    #[must_use]
    pub fn at(address: &str) -> Self {
        Self { address: address.to_owned(), kind: Kind::Elsewhere }
    }

    /// The embedded chain, with a clock that tests move and no blocks but the tests' own.
    pub async fn embedded() -> Self {
        Self::embedded_with(GenesisOptions::default()).await
    }

    /// The same where gas costs so many wei, and the first key has coin.
    pub async fn embedded_at(gas_price: u128) -> Self {
        let rich = key(1).address().to_string().parse().unwrap();
        let balances = BTreeMap::from([(rich, "1000000000000000000000000".parse().unwrap())]);
        Self::embedded_with(GenesisOptions { gas_price, balances, ..GenesisOptions::default() }).await
    }

    async fn embedded_with(genesis: GenesisOptions) -> Self {
        let dir = TempDir::new().unwrap();
        let node = seedbank_devchain::Node::open(dir.path(), quiet(genesis)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let until = async { drop(stopped.await) };
            node.serve(listener, until).await.unwrap();
        });
        Self { address, kind: Kind::Embedded { _stop: stop, _dir: dir } }
    }

    /// One of each kind that there is here.
    pub async fn each() -> Vec<Self> {
        let berlin = Self::anvil(&["--hardfork", "berlin"]);
        std::iter::once(Self::embedded().await).chain(berlin).collect()
    }

    /// What its users configure.
    #[must_use]
    pub fn url(&self) -> EndpointUrl {
        format!("http://{}", self.address).parse().unwrap()
    }

    /// Host and port.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Asks the node directly.
    pub async fn ask(&self, method: &str, params: Value) -> Value {
        let answer =
            post(&self.address, &json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }))
                .await;
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// Lets time pass, and makes a block in which it has.
    pub async fn pass(&self, seconds: u64) {
        self.ask("evm_increaseTime", json!([seconds])).await;
        self.ask("evm_mine", json!([])).await;
    }

    /// Makes blocks; the number of the last.
    pub async fn pass_blocks(&self, count: u64) -> u64 {
        for _ in 0..count {
            self.ask("evm_mine", json!([])).await;
        }
        number(&self.ask("eth_blockNumber", json!([])).await)
    }

    /// The time of its newest block.
    pub async fn now(&self) -> u64 {
        let block = self.ask("eth_getBlockByNumber", json!(["latest", false])).await;
        number(&block["timestamp"])
    }

    /// A key with coin for gas.
    pub async fn funded(&self, number: u8) -> WalletKey {
        let key = key(number);
        if matches!(self.kind, Kind::Anvil { .. }) {
            self.ask("anvil_setBalance", json!([key.address().to_string(), "0x56bc75e2d63100000"])).await;
        }
        key
    }

    /// New contracts that count each block, changed by `settings`, and a wallet of their deployer: the first key.
    pub async fn deployed_with(&self, settings: impl FnOnce(Settings) -> Settings) -> (Deployment, Wallet) {
        let key = self.funded(1).await;
        let settings = settings(Settings { blocks_min: 1, ..Settings::local(self.now().await) });
        let deployment = deploy(&self.url(), &key, &settings, policy(), |_, _| {}).await.unwrap();
        let chain = self.chain(&deployment).await;
        (deployment, Wallet::start(chain, key, policy()))
    }

    /// A deployment through this node alone.
    pub async fn chain(&self, deployment: &Deployment) -> Chain {
        Chain::connect(&config(&[self.url()], deployment)).await.unwrap()
    }
}

/// A chain that makes blocks for transactions only, and whose clock its callers move.
#[must_use]
pub fn quiet(genesis: GenesisOptions) -> seedbank_devchain::Config {
    let clock = seedbank_devchain::ClockControl::Test;
    seedbank_devchain::Config { genesis, clock, block_time: None, ..seedbank_devchain::Config::default() }
}

fn number(quantity: &Value) -> u64 {
    u64::from_str_radix(quantity.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

/// Where a deployment is found.
#[must_use]
pub fn config(endpoints: &[EndpointUrl], deployment: &Deployment) -> ChainConfig {
    ChainConfig {
        endpoints: endpoints.to_vec(),
        directory: deployment.directory,
        chain_id: Some(deployment.chain_id),
        policy: EndpointPolicy { deadline: Duration::from_secs(10), ..EndpointPolicy::default() },
    }
}

/// Sends at once and looks often.
#[must_use]
pub fn policy() -> SendPolicy {
    SendPolicy { poll: Duration::from_millis(5), ..SendPolicy::local() }
}

/// The same for the same number.
#[must_use]
pub fn key(number: u8) -> WalletKey {
    WalletKey::from_secret(&[number; 32]).unwrap()
}

/// One request on a connection of its own, with no code in common with what is tested.
pub async fn post(address: &str, body: &Value) -> Value {
    try_post(address, body).await.expect("the node answers")
}

/// The same; None if nobody answers.
pub(super) async fn try_post(address: &str, body: &Value) -> Option<Value> {
    let body = body.to_string();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some(serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

//! Nodes to test against, and their test clock.

use seedbank_agreement::{Amount, WalletKey};
use seedbank_settlement::{
    Chain, ChainConfig, Deployment, EndpointPolicy, EndpointUrl, SendPolicy, Settings, Wallet, deploy,
};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// A node of its own for one test.
pub(crate) struct Node {
    address: String,
    kind: Kind,
}

enum Kind {
    Anvil(Child),
    /// Held for as long as it is served.
    Embedded {
        _stop: oneshot::Sender<()>,
        _dir: TempDir,
    },
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Kind::Anvil(child) = &mut self.kind {
            child.kill().and_then(|()| child.wait()).expect("anvil can be stopped");
        }
    }
}

fn find_anvil() -> Option<PathBuf> {
    // Not the script in `.bin`, which would leave the program behind when it is stopped.
    let local = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../contracts/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil");
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(local)
        .chain(std::env::split_paths(&path).map(|folder| folder.join("anvil")))
        .find(|candidate| candidate.is_file())
}

impl Node {
    /// None, and a word about it, where there is no anvil.
    pub(crate) fn anvil(arguments: &[&str]) -> Option<Self> {
        let Some(program) = find_anvil() else {
            eprintln!("skipped: there is no anvil; `npm ci` in `contracts` brings it");
            return None;
        };
        let mut child = Command::new(program)
            .args(["--port", "0", "--accounts", "1"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("anvil starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("Listening on ").map(|address| address.trim().to_owned()))
            .expect("anvil says where it listens");
        // It stops when nobody reads what it says.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { address, kind: Kind::Anvil(child) })
    }

    /// The embedded chain, with a clock that tests move and no blocks but the tests' own.
    pub(crate) async fn embedded() -> Self {
        let dir = TempDir::new().unwrap();
        let config = seedbank_devchain::Config {
            clock: seedbank_devchain::ClockControl::Test,
            block_time: None,
            ..seedbank_devchain::Config::default()
        };
        let node = seedbank_devchain::Node::open(dir.path(), config).unwrap();
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
    pub(crate) async fn each() -> Vec<Self> {
        let berlin = Self::anvil(&["--hardfork", "berlin"]);
        std::iter::once(Self::embedded().await).chain(berlin).collect()
    }

    pub(crate) fn url(&self) -> EndpointUrl {
        format!("http://{}", self.address).parse().unwrap()
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Asks the node directly.
    pub(crate) async fn ask(&self, method: &str, params: Value) -> Value {
        let answer =
            post(&self.address, &json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }))
                .await;
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// Lets time pass, and makes a block in which it has.
    pub(crate) async fn pass(&self, seconds: u64) {
        self.ask("evm_increaseTime", json!([seconds])).await;
        self.ask("evm_mine", json!([])).await;
    }

    /// Makes blocks; the number of the last.
    pub(crate) async fn pass_blocks(&self, count: u64) -> u64 {
        for _ in 0..count {
            self.ask("evm_mine", json!([])).await;
        }
        number(&self.ask("eth_blockNumber", json!([])).await)
    }

    pub(crate) async fn now(&self) -> u64 {
        let block = self.ask("eth_getBlockByNumber", json!(["latest", false])).await;
        number(&block["timestamp"])
    }

    /// A key with coin for gas.
    pub(crate) async fn funded(&self, number: u8) -> WalletKey {
        let key = key(number);
        if matches!(self.kind, Kind::Anvil(_)) {
            self.ask("anvil_setBalance", json!([key.address().to_string(), "0x56bc75e2d63100000"])).await;
        }
        key
    }

    /// New contracts with epochs of `EPOCH` seconds, and a wallet of their deployer.
    pub(crate) async fn deployed(&self) -> (Deployment, Wallet) {
        let key = self.funded(1).await;
        let usual = Settings::local(self.now().await);
        let mut settings = Settings { blocks_min: 1, epoch_seconds: EPOCH, ..usual };
        (settings.market.challenges, settings.market.question_bond) = (3, Amount(500));
        let deployment = deploy(&self.url(), &key, &settings, policy(), |_, _| {}).await.unwrap();
        let chain = self.chain(&deployment).await;
        (deployment, Wallet::start(chain, key, policy()))
    }

    pub(crate) async fn chain(&self, deployment: &Deployment) -> Chain {
        Chain::connect(&config(&[self.url()], deployment)).await.unwrap()
    }
}

fn number(quantity: &Value) -> u64 {
    u64::from_str_radix(quantity.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

pub(crate) const EPOCH: u32 = 1_000;

pub(crate) fn config(endpoints: &[EndpointUrl], deployment: &Deployment) -> ChainConfig {
    ChainConfig {
        endpoints: endpoints.to_vec(),
        directory: deployment.directory,
        chain_id: Some(deployment.chain_id),
        policy: EndpointPolicy { deadline: Duration::from_secs(10), ..EndpointPolicy::default() },
    }
}

pub(crate) fn policy() -> SendPolicy {
    SendPolicy { poll: Duration::from_millis(5), ..SendPolicy::local() }
}

pub(crate) fn key(number: u8) -> WalletKey {
    WalletKey::from_secret(&[number; 32]).unwrap()
}

/// One request on a connection of its own, with no code in common with what is tested.
pub(crate) async fn post(address: &str, body: &Value) -> Value {
    let body = body.to_string();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

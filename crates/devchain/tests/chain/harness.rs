//! A node that is served, and a caller of it.

use crate::account::Account;
use alloy_primitives::{Address, B256, Bytes};
use seedbank_devchain::{ClockControl, Config, Node, Stopped};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// No heartbeats: what a test counts are its own blocks.
pub(crate) fn quiet() -> Config {
    Config { block_time: None, ..Config::default() }
}

pub(crate) fn with_test_clock() -> Config {
    Config { clock: ClockControl::Test, ..quiet() }
}

/// Somebody who asks a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) address: SocketAddr,
}

/// A node that serves.
pub(crate) struct Served {
    caller: Caller,
    pub(crate) node: Arc<Node>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), Stopped>>,
}

impl Served {
    pub(crate) async fn open(dir: &Path, config: Config) -> Served {
        Served::of(Node::open(dir, config).unwrap()).await
    }

    pub(crate) async fn of(node: Node) -> Served {
        let node = Arc::new(node);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&node);
        let serving = tokio::spawn(async move {
            served
                .serve(listener, async {
                    let _dropped = stopped.await;
                })
                .await
        });
        Served { caller: Caller { address }, node, stop, serving }
    }

    /// Ends in order; the folder can be opened again.
    pub(crate) async fn close(self) {
        self.stop.send(()).unwrap();
        self.serving.await.unwrap().unwrap();
        let node = Arc::into_inner(self.node).expect("nobody else has the node");
        tokio::task::spawn_blocking(move || drop(node)).await.unwrap();
    }

    pub(crate) fn account(&self, name: &str) -> Account {
        Account::new(name, self.node.genesis().chain_id)
    }
}

impl Deref for Served {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl Caller {
    /// The result of a call that is answered.
    pub(crate) async fn get(&self, method: &str, params: Value) -> Value {
        let mut answer = self.ask(method, params).await;
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    /// Code and message of a call that is refused.
    pub(crate) async fn refused(&self, method: &str, params: Value) -> (i64, String) {
        let answer = self.ask(method, params).await;
        assert!(answer.get("result").is_none(), "{method}: {answer}");
        let error = &answer["error"];
        (error["code"].as_i64().unwrap(), error["message"].as_str().unwrap().to_owned())
    }

    pub(crate) async fn ask(&self, method: &str, params: Value) -> Value {
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        self.body(call.to_string().as_bytes()).await
    }

    /// The answer to a body, whatever it is.
    pub(crate) async fn body(&self, body: &[u8]) -> Value {
        let (_, answer) = self.post(body).await;
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{answer:?}: {error}"))
    }

    /// HTTP status and body of the answer.
    pub(crate) async fn post(&self, body: &[u8]) -> (u16, String) {
        self.send(&request(body)).await
    }

    /// Status and body of the answer to bytes as they are.
    pub(crate) async fn send(&self, request: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The node may answer and hang up before it has read everything.
        let _refused = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        let body = answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned());
        (status, body)
    }

    /// Sends, and says whether it was acknowledged; a node that died has not.
    pub(crate) async fn try_send_raw(&self, raw: &Bytes) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.address).await else { return false };
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransaction", "params": [raw]});
        if stream.write_all(&request(call.to_string().as_bytes())).await.is_err() {
            return false;
        }
        let mut answer = String::new();
        let whole = stream.read_to_string(&mut answer).await.is_ok();
        whole && answer.contains(&crate::account::hash(raw).to_string())
    }

    pub(crate) async fn send_raw(&self, raw: &Bytes) -> B256 {
        let hash = self.get("eth_sendRawTransaction", json!([raw])).await;
        assert_eq!(hash, json!(crate::account::hash(raw)));
        crate::account::hash(raw)
    }

    pub(crate) async fn receipt(&self, hash: B256) -> Value {
        self.get("eth_getTransactionReceipt", json!([hash])).await
    }

    /// Sends, and gives the receipt of what must succeed.
    pub(crate) async fn succeed(&self, raw: &Bytes) -> Value {
        let hash = self.send_raw(raw).await;
        let receipt = self.receipt(hash).await;
        assert_eq!(receipt["status"], "0x1", "{receipt}");
        receipt
    }

    /// Deploys a contract as this account's first transaction.
    pub(crate) async fn deploy(&self, by: &Account, code: Bytes) -> Address {
        let receipt = self.succeed(&by.deploy(0, code)).await;
        receipt["contractAddress"].as_str().unwrap().parse().unwrap()
    }

    /// A number of the node's.
    pub(crate) async fn number(&self, method: &str, params: Value) -> u64 {
        number(&self.get(method, params).await)
    }

    pub(crate) async fn height(&self) -> u64 {
        self.number("eth_blockNumber", json!([])).await
    }

    pub(crate) async fn block(&self, number: u64) -> Value {
        self.get("eth_getBlockByNumber", json!([format!("0x{number:x}"), true])).await
    }
}

/// A body as a whole HTTP request.
fn request(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A node in a new folder.
pub(crate) async fn fresh(config: Config) -> (TempDir, Served) {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::open(dir.path(), config).await;
    (dir, served)
}

pub(crate) fn number(quantity: &Value) -> u64 {
    let digits = quantity.as_str().and_then(|text| text.strip_prefix("0x"));
    u64::from_str_radix(digits.unwrap_or_else(|| panic!("{quantity} is no quantity")), 16).unwrap()
}

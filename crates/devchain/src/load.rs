//! A caller that measures: what one transaction takes from its signature to its receipt, and how many a node takes a second.
//!
//! It asks any node with Ethereum's JSON-RPC, so that this chain and another stand beside each other in one run. The work is
//! the same for both: a contract that adds a number to a slot and logs the sum.

use crate::header::address_of;
use alloy_consensus::{SignableTransaction, TxEnvelope, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, keccak256};
use bytes::Buf;
use http::Request;
use http::header::{CONTENT_TYPE, HOST};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use k256::ecdsa::SigningKey;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// PUSH1 length, DUP1, PUSH1 11, PUSH1 0, CODECOPY, PUSH1 0, RETURN; then what runs in a call: slot 0 plus the call's
/// first word, stored, and logged under topic 7.
const COUNTER: &str = "0x601680600b6000396000f36000546000350180600055600052600760206000a100";

/// A node that has a transaction and makes no block of it for so long never will.
const RECEIPT_WITHIN: Duration = Duration::from_secs(60);

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The node can't be asked.
    #[error("the node at {0} does not answer: {1}")]
    Unreachable(SocketAddr, String),
    /// It answers, but not as it must.
    #[error("{method}: {answer}")]
    Answer {
        /// What it was asked.
        method: &'static str,
        /// What it said.
        answer: String,
    },
}

/// What was measured of one node.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Of each transaction alone: nonce, estimate, send, receipt.
    pub round_trips: Vec<Duration>,
    /// Of the send alone, within the same.
    pub sends: Vec<Duration>,
    /// Transactions of all senders together.
    pub transactions: u64,
    /// How long all of them took.
    pub elapsed: Duration,
}

/// Asks a node `round_trips` times alone, then with `senders` keys at once for `each` transactions of each.
///
/// # Errors
/// [`LoadError`].
pub async fn measure(
    address: SocketAddr,
    round_trips: u32,
    senders: u32,
    each: u32,
) -> Result<Measured, LoadError> {
    let mut caller = Caller::connect(address).await?;
    let owner = Sender::new("owner", &mut caller).await?;
    let deployment = owner.sign(0, TxKind::Create, COUNTER.parse().expect("the contract is hex"));
    let receipt = caller.send(&deployment).await?;
    let contract = receipt["contractAddress"].as_str().and_then(|text| text.parse().ok());
    let contract: Address = contract.ok_or_else(|| wrong("eth_getTransactionReceipt", &receipt))?;
    let input = Bytes::from(U256::from(1).to_be_bytes::<32>());

    let (mut alone, mut sends) = (Vec::new(), Vec::new());
    for _ in 0..round_trips {
        let begun = Instant::now();
        // What a client that knows nothing asks before it sends.
        let nonce = caller.ask("eth_getTransactionCount", json!([owner.address(), "pending"])).await?;
        let nonce = number(&nonce).ok_or_else(|| wrong("eth_getTransactionCount", &nonce))?;
        let call = json!([{"from": owner.address(), "to": contract, "input": input}]);
        let _gas = caller.ask("eth_estimateGas", call).await?;
        let raw = owner.sign(nonce, TxKind::Call(contract), input.clone());
        let sent = Instant::now();
        let hash = caller.ask("eth_sendRawTransaction", json!([raw])).await?;
        sends.push(sent.elapsed());
        caller.receipt(&hash).await?;
        alone.push(begun.elapsed());
    }

    let mut ready = Vec::new();
    for index in 0..senders {
        let mut caller = Caller::connect(address).await?;
        let sender = Sender::new(&format!("sender {index}"), &mut caller).await?;
        let all: Vec<Bytes> = (0..u64::from(each))
            .map(|nonce| sender.sign(nonce, TxKind::Call(contract), input.clone()))
            .collect();
        ready.push((caller, all));
    }
    let begun = Instant::now();
    let mut sending = JoinSet::new();
    for (mut caller, all) in ready {
        sending.spawn(async move {
            let mut last = Value::Null;
            for raw in all {
                last = caller.ask("eth_sendRawTransaction", json!([raw])).await?;
            }
            caller.receipt(&last).await.map(|_| ())
        });
    }
    while let Some(ended) = sending.join_next().await {
        ended.map_err(|error| LoadError::Unreachable(address, error.to_string()))??;
    }
    let transactions = u64::from(senders) * u64::from(each);
    Ok(Measured { round_trips: alone, sends, transactions, elapsed: begun.elapsed() })
}

/// One key of the load. Everybody can know it: it owns nothing.
struct Sender {
    key: SigningKey,
    chain_id: u64,
}

impl Sender {
    async fn new(name: &str, caller: &mut Caller) -> Result<Sender, LoadError> {
        let key =
            SigningKey::from_slice(keccak256(name).as_slice()).expect("a hash is a key but once in 2^128");
        let chain_id = caller.ask("eth_chainId", json!([])).await?;
        let chain_id = number(&chain_id).ok_or_else(|| wrong("eth_chainId", &chain_id))?;
        Ok(Sender { key, chain_id })
    }

    fn address(&self) -> Address {
        address_of(&self.key)
    }

    fn sign(&self, nonce: u64, to: TxKind, input: Bytes) -> Bytes {
        let transaction = TxLegacy {
            chain_id: Some(self.chain_id),
            nonce,
            gas_price: 0,
            gas_limit: 200_000,
            to,
            value: U256::ZERO,
            input,
        };
        let digest: B256 = transaction.signature_hash();
        let (signature, parity) =
            self.key.sign_prehash_recoverable(digest.as_slice()).expect("a digest of 32 bytes can be signed");
        let signed = transaction.into_signed(Signature::from((signature, parity)));
        TxEnvelope::from(signed).encoded_2718().into()
    }
}

/// One connection, kept.
struct Caller {
    address: SocketAddr,
    sender: SendRequest<Full<bytes::Bytes>>,
}

impl Caller {
    async fn connect(address: SocketAddr) -> Result<Caller, LoadError> {
        let unreachable = |error: &dyn std::fmt::Display| LoadError::Unreachable(address, error.to_string());
        let stream = TcpStream::connect(address).await.map_err(|error| unreachable(&error))?;
        stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
        // It ends when the caller is dropped; how it ended shows in the next answer.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Caller { address, sender })
    }

    async fn ask(&mut self, method: &'static str, params: Value) -> Result<Value, LoadError> {
        let address = self.address;
        let unreachable = |error: &dyn std::fmt::Display| LoadError::Unreachable(address, error.to_string());
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let request = Request::post("/")
            .header(HOST, address.to_string())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(bytes::Bytes::from(body)))
            .map_err(|error| unreachable(&error))?;
        self.sender.ready().await.map_err(|error| unreachable(&error))?;
        let response = self.sender.send_request(request).await.map_err(|error| unreachable(&error))?;
        let body = response.into_body().collect().await.map_err(|error| unreachable(&error))?;
        let mut answer: Value =
            serde_json::from_reader(body.aggregate().reader()).map_err(|error| unreachable(&error))?;
        if answer.get("error").is_some() {
            return Err(wrong(method, &answer));
        }
        Ok(answer["result"].take())
    }

    async fn send(&mut self, raw: &Bytes) -> Result<Value, LoadError> {
        let hash = self.ask("eth_sendRawTransaction", json!([raw])).await?;
        self.receipt(&hash).await
    }

    /// The receipt of a transaction that must have succeeded.
    async fn receipt(&mut self, hash: &Value) -> Result<Value, LoadError> {
        let deadline = Instant::now() + RECEIPT_WITHIN;
        while Instant::now() < deadline {
            let receipt = self.ask("eth_getTransactionReceipt", json!([hash])).await?;
            match &receipt {
                Value::Null => {}
                receipt if receipt["status"] == "0x1" => return Ok(receipt.clone()),
                other => return Err(wrong("eth_getTransactionReceipt", other)),
            }
        }
        Err(wrong("eth_getTransactionReceipt", &Value::Null))
    }
}

fn number(quantity: &Value) -> Option<u64> {
    u64::from_str_radix(quantity.as_str()?.strip_prefix("0x")?, 16).ok()
}

fn wrong(method: &'static str, answer: &Value) -> LoadError {
    LoadError::Answer { method, answer: answer.to_string() }
}

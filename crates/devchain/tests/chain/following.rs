//! Followers: equal to what they follow, and stopped by what can't be so.

use crate::account::Account;
use crate::contract::{counter, word};
use crate::harness::{Served, fresh, quiet};
use alloy_consensus::Header;
use alloy_primitives::{Address, Bytes, Signature, U256, keccak256};
use alloy_rlp::{Decodable, Encodable};
use k256::ecdsa::SigningKey;
use seedbank_devchain::{Divergence, Following, Genesis, KEY_FILE, Node, OpenError, SignedHeader, Stopped};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

fn following(address: SocketAddr) -> Following {
    Following { url: format!("http://{address}"), genesis_hash: None }
}

/// Nothing here takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the follower has as many blocks.
async fn caught_up(follower: &Served, height: u64) {
    let wait = async {
        while follower.height().await < height {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, wait).await.expect("a follower keeps up");
}

#[tokio::test(flavor = "multi_thread")]
async fn follower_is_equal_in_everything_it_is_asked() {
    let (_dir, chain) = fresh(quiet()).await;
    let owner = chain.account("owner");
    let contract = chain.deploy(&owner, counter()).await;
    for nonce in 1..300 {
        chain.send_raw(&owner.call(nonce, contract, word(nonce))).await;
    }
    let copy = tempfile::tempdir().unwrap();
    let follower = Node::follow(copy.path(), &following(chain.address), quiet()).await.unwrap();
    let follower = Served::of(follower).await;
    caught_up(&follower, 300).await;
    assert_eq!(follower.node.head().unwrap(), chain.node.head().unwrap());
    assert_eq!(follower.node.genesis(), chain.node.genesis());
    let filter = json!([{"fromBlock": "0x0", "address": contract}]);
    for (method, params) in [
        ("eth_getBlockByNumber", json!(["latest", true])),
        ("eth_getBlockReceipts", json!(["0x5"])),
        ("eth_getLogs", filter),
        ("eth_call", json!([{"to": contract}])),
        ("eth_call", json!([{"to": contract}, "0xff"])),
        ("eth_getTransactionCount", json!([owner.address(), "latest"])),
        ("eth_getCode", json!([contract, "latest"])),
    ] {
        let expected = chain.get(method, params.clone()).await;
        assert_eq!(follower.get(method, params).await, expected, "{method}");
    }
    let raw = owner.call(300, contract, word(1));
    let (_, message) = follower.refused("eth_sendRawTransaction", json!([raw])).await;
    assert!(message.contains("follows the chain and takes no transactions"), "{message}");

    // It goes on where it was, after the other one made more.
    follower.close().await;
    chain.send_raw(&raw).await;
    let follower = Node::follow(copy.path(), &following(chain.address), quiet()).await.unwrap();
    let follower = Served::of(follower).await;
    caught_up(&follower, 301).await;
    assert_eq!(follower.node.head().unwrap(), chain.node.head().unwrap());

    // A follower can be followed.
    let second = tempfile::tempdir().unwrap();
    let second = Node::follow(second.path(), &following(follower.address), quiet()).await.unwrap();
    let second = Served::of(second).await;
    caught_up(&second, 301).await;
    assert_eq!(second.node.head().unwrap(), chain.node.head().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_chain_that_was_named_is_followed() {
    let (_dir, chain) = fresh(quiet()).await;
    let copy = tempfile::tempdir().unwrap();
    let named = Following { genesis_hash: Some(keccak256("another")), ..following(chain.address) };
    assert!(matches!(Node::follow(copy.path(), &named, quiet()).await, Err(OpenError::OtherChain { .. })));
    let nobody = Following { url: "http://127.0.0.1:1".to_owned(), genesis_hash: None };
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(Node::follow(empty.path(), &nobody, quiet()).await, Err(OpenError::Begin(_))));
}

/// A node that answers followers with what a test made up.
struct Liar {
    address: SocketAddr,
    _serving: tokio::task::JoinSet<()>,
}

impl Liar {
    async fn serve(genesis: &Genesis, blocks: Vec<Value>) -> Liar {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let genesis = json!(genesis);
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = Vec::new();
                let call: Value = loop {
                    let mut some = [0; 4096];
                    let read = stream.read(&mut some).await.unwrap();
                    asked.extend(&some[..read]);
                    let body = asked.windows(4).position(|four| four == b"\r\n\r\n").map(|end| end + 4);
                    if let Some(Ok(call)) = body.map(|body| serde_json::from_slice(&asked[body..])) {
                        break call;
                    }
                    assert!(read > 0, "it asks a whole question");
                };
                let result = if call["method"] == "seedbank_genesis" {
                    genesis.clone()
                } else {
                    let first = usize::try_from(call["params"][0].as_u64().unwrap()).unwrap();
                    let count = usize::try_from(call["params"][1].as_u64().unwrap()).unwrap();
                    json!(blocks.iter().skip(first).take(count).collect::<Vec<_>>())
                };
                let answer = json!({"jsonrpc": "2.0", "id": 1, "result": result}).to_string();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
                let _gone = stream.write_all(&[head.as_bytes(), answer.as_bytes()].concat()).await;
            }
        });
        Liar { address, _serving: serving }
    }
}

/// A chain with a deployment and two calls, as followers are told it, and the key that signed it.
struct Story {
    genesis: Genesis,
    blocks: Vec<Value>,
    key: SigningKey,
}

async fn story() -> Story {
    let (dir, chain) = fresh(quiet()).await;
    let owner = chain.account("owner");
    let contract = chain.deploy(&owner, counter()).await;
    chain.succeed(&owner.call(1, contract, word(1))).await;
    chain.succeed(&owner.call(2, contract, word(2))).await;
    let blocks = chain.get("seedbank_blocks", json!([0, 256])).await.as_array().unwrap().clone();
    let secret = std::fs::read_to_string(dir.path().join(KEY_FILE)).unwrap();
    let key = SigningKey::from_slice(&alloy_primitives::hex::decode(secret.trim()).unwrap()).unwrap();
    Story { genesis: chain.node.genesis().clone(), blocks, key }
}

impl Story {
    fn header(&self, number: usize) -> Header {
        let bytes: Bytes = self.blocks[number]["header"].as_str().unwrap().parse().unwrap();
        Header::decode(&mut bytes.as_ref()).unwrap()
    }

    /// Signs as the sequencer would, by what `docs/chain.md` says and no code of the node's.
    fn sign(&self, mut header: Header) -> Bytes {
        header.extra_data = Bytes::new();
        let mut bytes = b"seedbank chain header v1".to_vec();
        bytes.extend(self.genesis.chain_id.to_be_bytes());
        header.encode(&mut bytes);
        let (signature, parity) = self.key.sign_prehash_recoverable(keccak256(bytes).as_slice()).unwrap();
        header.extra_data = Signature::from((signature, parity)).as_bytes().into();
        alloy_rlp::encode(&header).into()
    }

    /// The story with another header in one place, signed.
    fn with(&self, number: usize, change: impl FnOnce(&mut Header)) -> Vec<Value> {
        let mut header = self.header(number);
        change(&mut header);
        let mut blocks = self.blocks.clone();
        blocks[number]["header"] = json!(self.sign(header));
        blocks
    }
}

async fn stopped_by(dir: &Path, genesis: &Genesis, blocks: Vec<Value>) -> Divergence {
    let liar = Liar::serve(genesis, blocks).await;
    let node = Node::follow(dir, &following(liar.address), quiet()).await.unwrap();
    match timeout(PATIENCE, node.stopped()).await.expect("the follower stops") {
        Stopped::Diverged(divergence) => divergence,
        Stopped::Failed(why) => panic!("{why}"),
    }
}

fn evidence(dir: &Path, number: u64) -> Value {
    let text = std::fs::read_to_string(dir.join(format!("evidence-{number}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn block_that_does_not_follow_stops_the_follower_with_evidence() {
    let story = story().await;
    let wrong: Vec<(&str, Vec<Value>)> = vec![
        ("its state differs", story.with(2, |header| header.state_root = keccak256("other"))),
        ("its gas differs", story.with(2, |header| header.gas_used += 1)),
        ("its receipt differs", story.with(2, |header| header.receipts_root = keccak256("other"))),
        ("its header differs", story.with(2, |header| header.difficulty = U256::from(2))),
        ("its header differs", story.with(2, |header| header.beneficiary = Address::ZERO)),
        ("its parent is", story.with(2, |header| header.parent_hash = keccak256("other"))),
        ("its time is before", story.with(2, |header| header.timestamp = 1)),
    ];
    for (expected, blocks) in wrong {
        let dir = tempfile::tempdir().unwrap();
        let divergence = stopped_by(dir.path(), &story.genesis, blocks).await;
        let Divergence::Invalid { number: 2, theirs, why } = &divergence else { panic!("{divergence}") };
        assert!(why.contains(expected), "{why}");
        let evidence = evidence(dir.path(), 2);
        let signed: Bytes = evidence["signed"][1].as_str().unwrap().parse().unwrap();
        let checked = SignedHeader::check(&signed, story.genesis.chain_id, story.genesis.sequencer).unwrap();
        assert_eq!(checked.hash(), *theirs);
        assert_eq!(evidence["what"], divergence.to_string());
        // What was right before it is kept.
        let reopened =
            Node::follow(dir.path(), &following(([127, 0, 0, 1], 1).into()), quiet()).await.unwrap();
        assert_eq!(reopened.head().unwrap().0, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn second_block_of_one_number_is_equivocation() {
    let story = story().await;
    let dir = tempfile::tempdir().unwrap();
    let honest = Liar::serve(&story.genesis, story.blocks.clone()).await;
    let follower = Node::follow(dir.path(), &following(honest.address), quiet()).await.unwrap();
    let follower = Served::of(follower).await;
    caught_up(&follower, 3).await;
    follower.close().await;

    let rewritten = story.with(3, |header| header.timestamp += 1);
    let divergence = stopped_by(dir.path(), &story.genesis, rewritten).await;
    assert!(matches!(divergence, Divergence::Equivocation { number: 3, .. }), "{divergence}");
    let evidence = evidence(dir.path(), 3);
    let mut hashes = Vec::new();
    for header in evidence["signed"].as_array().unwrap() {
        let bytes: Bytes = header.as_str().unwrap().parse().unwrap();
        let signed = SignedHeader::check(&bytes, story.genesis.chain_id, story.genesis.sequencer).unwrap();
        assert_eq!(signed.header().number, 3);
        hashes.push(signed.hash());
    }
    assert_ne!(hashes[0], hashes[1], "two signed blocks of one number");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_sequencer_did_not_sign_is_not_taken_and_convicts_nobody() {
    let story = story().await;
    let stranger = Account::new("stranger", story.genesis.chain_id);
    let mut unsigned = story.blocks.clone();
    unsigned[2]["header"] = json!(Bytes::from(alloy_rlp::encode(Header { number: 2, ..Header::default() })));
    let mut garbage = story.blocks.clone();
    garbage[2]["header"] = json!("0x00");
    let mut swapped = story.blocks.clone();
    swapped[2]["transaction"] = json!(stranger.call(0, Address::ZERO, Bytes::new()));
    let mut dropped = story.blocks.clone();
    dropped[2]["transaction"] = Value::Null;
    for blocks in [unsigned, garbage, swapped, dropped] {
        let dir = tempfile::tempdir().unwrap();
        let divergence = stopped_by(dir.path(), &story.genesis, blocks).await;
        assert!(matches!(divergence, Divergence::Unsigned(_)), "{divergence}");
        assert!(!dir.path().join("evidence-2.json").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beginning_that_does_not_fit_its_block_is_refused() {
    let story = story().await;
    let richer = Genesis { balances: [(Address::ZERO, U256::from(1))].into(), ..story.genesis.clone() };
    let liar = Liar::serve(&richer, story.blocks.clone()).await;
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        Node::follow(dir.path(), &following(liar.address), quiet()).await,
        Err(OpenError::Begin(_))
    ));
}

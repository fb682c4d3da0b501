//! The embedded chain as its operator meets it. What it answers is told by the tests of `devchain`.

use crate::program::text_of;
use crate::sandbox::Sandbox;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;

/// The result of a call of a node's JSON-RPC, or its error.
pub(crate) fn ask(address: &str, method: &str, params: Value) -> Value {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let mut stream = TcpStream::connect(address).expect("it serves");
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (_, body) = answer.split_once("\r\n\r\n").expect("an answer has a body");
    let answer: Value = serde_json::from_str(body).expect("the body is JSON");
    answer.get("result").or(answer.get("error")).expect("one of both").clone()
}

fn ask_daemon(serving: &Value, method: &str) -> Value {
    ask(text_of(&serving["address"]), method, json!([]))
}

#[test]
fn chain_serves_is_followed_and_ends_in_order() {
    let sandbox = Sandbox::new();
    let home = sandbox.home("home");
    let port_file = sandbox.root().join("port");
    let mut chain = home
        .seedbank("chain run --listen 127.0.0.1:0 --chain-id 1029 --json --port-file")
        .arg(&port_file)
        .start();
    let serving = chain.first_line();
    assert_eq!(ask_daemon(&serving, "eth_chainId"), "0x405");
    assert_eq!((&serving["chain_id"], &serving["block"]), (&json!(1029), &json!(0)));
    let port = std::fs::read_to_string(&port_file).expect("the file was written");
    let url = serving["url"].as_str().expect("it says its URL");
    assert!(url.ends_with(&format!(":{}", port.trim())), "{url} {port}");
    assert_eq!(ask_daemon(&serving, "evm_mine")["code"], -32_601);

    let mut follower =
        sandbox.home("other").seedbank("chain run --listen 127.0.0.1:0 --json --follow").arg(url).start();
    let following = follower.first_line();
    assert_eq!(following["key"], serving["key"]);
    assert_eq!(ask_daemon(&following, "eth_chainId"), "0x405");

    for mut daemon in [follower, chain] {
        daemon.signal(Signal::TERM);
        daemon.wait().succeeded();
    }
    // The same folder goes on, and only under its own chain id.
    home.seedbank("chain run --listen 127.0.0.1:0 --chain-id 5").fails(1, "holds chain 1029, not chain 5");
    let mut again = home.seedbank("chain run --listen 127.0.0.1:0 --test-clock --json").start();
    let serving = again.first_line();
    assert_eq!(ask_daemon(&serving, "evm_mine"), "0x0");
    home.seedbank("chain run --listen 127.0.0.1:0").fails(1, "another process has the chain");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_made() {
    let sandbox = Sandbox::new();
    let home = sandbox.home("home");
    home.seedbank("chain run --listen somewhere").fails(2, "is no address");
    home.seedbank("chain run --listen 0.0.0.0:0 --test-clock").fails(1, "lets every caller move the clock");
    home.seedbank("chain run --test-clock --follow http://127.0.0.1:1").fails(2, "cannot be used with");
    home.seedbank("chain run --follow ftp://127.0.0.1:1").fails(1, "is not of the form http://HOST:PORT");
    home.seedbank("chain run --chain-id 0").fails(2, "--chain-id");
    assert!(!home.root().join("chain/chain.redb").exists());
}

//! Moves the clock of a chain that was started for that.

use anyhow::{Context, bail, ensure};
use seedbank_settlement::Chain;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Answers are a number or a word.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);

/// A chain's clock. Asked seldom, over a connection for each question.
pub(super) struct ChainClock(pub(super) SocketAddr);

impl ChainClock {
    /// Goes on to the beginning of the next epoch, and says which one that is.
    pub(super) async fn next_epoch(&self, chain: &Chain) -> anyhow::Result<u32> {
        let parameters = &chain.deployment().parameters;
        let now = chain.head().await?.time.0;
        let into = (now - parameters.genesis) % u64::from(parameters.epoch_seconds);
        self.ask("evm_increaseTime", &json!([u64::from(parameters.epoch_seconds) - into]))?;
        self.ask("evm_mine", &json!([]))?;
        let epoch = chain.head().await?.epoch.context("the chain is before its first epoch")?;
        Ok(epoch.0)
    }

    /// Makes an empty block.
    pub(super) fn mine(&self) -> anyhow::Result<()> {
        self.ask("evm_mine", &json!([])).map(|_| ())
    }

    fn ask(&self, method: &str, params: &Value) -> anyhow::Result<Value> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let mut stream = TcpStream::connect_timeout(&self.0, PATIENCE).context("reaching the chain")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "POST / HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            self.0,
            body.len()
        )?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).context("the chain's answer")?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the chain's answer has no end")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{method}: {}", head.lines().next().unwrap_or_default());
        let answer: Value = serde_json::from_str(body).context("the chain's answer")?;
        match answer.get("error") {
            Some(error) => bail!("{method}: {error}"),
            None => Ok(answer["result"].clone()),
        }
    }
}

//! The methods that make blocks or move the clock.

use super::error::{Answer, RpcError};
use super::params::Params;
use crate::node::{AskError, Inner};
use crate::sequencer::{Command, MINE_MAX};
use crate::transaction::Transaction;
use serde_json::json;

impl From<AskError> for RpcError {
    fn from(error: AskError) -> RpcError {
        match error {
            AskError::Busy => RpcError::limit(error.to_string()),
            AskError::Stopping => RpcError::internal(error.to_string()),
            AskError::Follows => RpcError::refused(error),
        }
    }
}

/// Answers once the transaction is durable: in a block, or among those that wait for their turn.
pub(super) async fn raw_transaction(node: &Inner, params: &Params) -> Answer {
    let raw = params.bytes(0)?;
    let transaction = Transaction::check(&raw, &node.shared.genesis).map_err(RpcError::refused)?;
    node.count_send(transaction.sender()).map_err(|error| RpcError::limit(error.to_string()))?;
    let sent = node.ask(|reply| Command::Send(Box::new(transaction), reply)).await?;
    sent.map(|hash| json!(hash)).map_err(RpcError::refused)
}

/// The test clock.
pub(super) async fn clock(node: &Inner, method: &str, params: &Params) -> Answer {
    match method {
        "evm_increaseTime" => {
            let seconds = params.number(0)?;
            let ahead = node.ask(|reply| Command::IncreaseTime(seconds, reply)).await?;
            ahead.map(|seconds| json!(seconds)).map_err(RpcError::params)
        }
        "evm_setNextBlockTimestamp" => {
            let timestamp = params.number(0)?;
            let set = node.ask(|reply| Command::SetNextTimestamp(timestamp, reply)).await?;
            set.map(|()| json!(null)).map_err(RpcError::params)
        }
        _ => {
            let count = params.get(0).map_or(Ok(1), super::params::number)?;
            if count > MINE_MAX {
                return Err(RpcError::limit(format!("at most {MINE_MAX} blocks at once")));
            }
            node.ask(|reply| Command::Mine(count, reply)).await?;
            Ok(json!("0x0"))
        }
    }
}

//! JSON-RPC 2.0: one call or a batch in, one answer each out. What is wrong with a call is told in its answer.

mod call;
mod error;
mod filters;
mod logs;
mod params;
mod read;
mod render;
mod send;

use crate::clock::ClockControl;
use crate::node::Inner;
use error::{Answer, RpcError};
pub(crate) use filters::Filters;
use params::Params;
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers a whole HTTP body.
pub(crate) async fn answer(node: &Arc<Inner>, body: &[u8]) -> Vec<u8> {
    let response = match serde_json::from_slice(body) {
        Ok(Value::Array(calls)) => batch(node, calls).await,
        Ok(call) => Some(single(node, call).await.unwrap_or(Value::Null)).filter(|answer| !answer.is_null()),
        Err(error) => Some(envelope(Value::Null, Err(RpcError::parse(&error)))),
    };
    response.map_or(Vec::new(), |response| response.to_string().into_bytes())
}

/// What is answered to a body that is too large to be looked at.
pub(crate) fn too_large(bytes_max: usize) -> Vec<u8> {
    let error = RpcError::limit(format!("request of more than {bytes_max} bytes"));
    envelope(Value::Null, Err(error)).to_string().into_bytes()
}

async fn batch(node: &Arc<Inner>, calls: Vec<Value>) -> Option<Value> {
    if calls.is_empty() {
        return Some(envelope(Value::Null, Err(RpcError::invalid("an empty batch"))));
    }
    if calls.len() > node.limits.batch_max {
        let error =
            RpcError::limit(format!("batch of {} calls; at most {}", calls.len(), node.limits.batch_max));
        return Some(envelope(Value::Null, Err(error)));
    }
    let (mut answers, mut bytes) = (Vec::new(), 0);
    for call in calls {
        if bytes > node.limits.answer_bytes_max {
            let id = call.get("id").cloned().unwrap_or(Value::Null);
            answers.push(envelope(id, Err(RpcError::limit("the batch's answers are too large"))));
            continue;
        }
        if let Some(answer) = single(node, call).await {
            bytes += answer.to_string().len();
            answers.push(answer);
        }
    }
    (!answers.is_empty()).then_some(Value::Array(answers))
}

/// Answers one call; `None` if it is a notification, which wants no answer.
async fn single(node: &Arc<Inner>, call: Value) -> Option<Value> {
    let Value::Object(mut call) = call else {
        return Some(envelope(Value::Null, Err(RpcError::invalid("a call is an object"))));
    };
    let id = call.remove("id");
    let reply_to = match &id {
        None | Some(Value::Null | Value::String(_) | Value::Number(_)) => id.clone().unwrap_or(Value::Null),
        Some(_) => return Some(envelope(Value::Null, Err(RpcError::invalid("an id is a text or a number")))),
    };
    if call.get("jsonrpc").is_some_and(|version| version != "2.0") {
        return Some(envelope(reply_to, Err(RpcError::invalid("only JSON-RPC 2.0 is spoken"))));
    }
    let Some(Value::String(method)) = call.remove("method") else {
        return Some(envelope(reply_to, Err(RpcError::invalid("a call names its method"))));
    };
    let params = match call.remove("params") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(params)) => params,
        Some(_) => return Some(envelope(reply_to, Err(RpcError::params("params are a list")))),
    };
    let answer = dispatch(node, &method, Params(params)).await;
    if let Err(error) = &answer {
        tracing::debug!(%method, code = error.code, message = %error.message, "call refused");
    }
    id.map(|_| envelope(reply_to, answer))
}

fn envelope(id: Value, answer: Answer) -> Value {
    match answer {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(error) => json!({"jsonrpc": "2.0", "id": id, "error": error.to_json()}),
    }
}

async fn dispatch(node: &Arc<Inner>, method: &str, params: Params) -> Answer {
    match method {
        "eth_sendRawTransaction" => send::raw_transaction(node, &params).await,
        "eth_call" => on_a_thread(node, move |node| call::call(node, &params)).await,
        "eth_estimateGas" => on_a_thread(node, move |node| call::estimate_gas(node, &params)).await,
        "eth_getLogs" => on_a_thread(node, move |node| logs::get(node, &params)).await,
        "eth_newFilter" => on_a_thread(node, move |node| filters::new_logs(node, &params)).await,
        "eth_getFilterChanges" => on_a_thread(node, move |node| filters::changes(node, &params)).await,
        "eth_getFilterLogs" => on_a_thread(node, move |node| filters::all(node, &params)).await,
        "evm_increaseTime" | "evm_setNextBlockTimestamp" | "evm_mine" if node.clock == ClockControl::Test => {
            send::clock(node, method, &params).await
        }
        _ => {
            let Some(read) = read::method(method) else { return Err(RpcError::no_method(method)) };
            let node = Arc::clone(node);
            join(tokio::task::spawn_blocking(move || read(&node, &params)).await)
        }
    }
}

/// Runs what takes long, and not more of it at once than there may be.
async fn on_a_thread(node: &Arc<Inner>, work: impl FnOnce(&Inner) -> Answer + Send + 'static) -> Answer {
    let permit = Arc::clone(&node.calls).acquire_owned().await.map_err(|_| RpcError::internal("stopping"))?;
    let node = Arc::clone(node);
    let done = tokio::task::spawn_blocking(move || {
        let answer = work(&node);
        drop(permit);
        answer
    });
    join(done.await)
}

fn join(done: Result<Answer, tokio::task::JoinError>) -> Answer {
    done.unwrap_or_else(|error| {
        tracing::error!(%error, "call panicked");
        Err(RpcError::internal("a bug ended the call"))
    })
}

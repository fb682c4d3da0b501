//! Asking what a transaction would do: `eth_call` and `eth_estimateGas`.
//!
//! Asked about the latest block, a call runs as the next transaction would: in the next block, at the time that it would
//! have. What a call foresees and what a transaction then does differ only by what comes between.

use super::error::{Answer, RpcError};
use super::params::{self, BlockSelector, Params};
use super::read::next_timestamp;
use super::render::quantity;
use crate::execution::{Intent, block_environment, run};
use crate::node::Inner;
use crate::recent::Past;
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_primitives::{Address, B256, Bytes, TxKind};
use revm::context::result::{ExecutionResult, HaltReason};
use revm::context::{BlockEnv, TxEnv};
use serde_json::{Map, Value, json};

/// What a call's inner call may lose to the 1/64 that its caller keeps, and what sending a coin hands over.
const STIPEND: u64 = 2_300;

/// What a transaction costs that runs nothing.
const PLAIN_GAS: u64 = 21_000;

pub(super) fn call(node: &Inner, params: &Params) -> Answer {
    let (state, block) = environment(node, params)?;
    let transaction = transaction(node, params.object(0)?, node.limits.call_gas_max)?;
    match run(&node.shared.genesis, &state, block, transaction, Intent::Ask)?.result {
        ExecutionResult::Success { output, .. } => Ok(json!(output.into_data())),
        ExecutionResult::Revert { output, .. } => Err(RpcError::reverted(&output)),
        ExecutionResult::Halt { reason, .. } => Err(RpcError::refused(halted(&reason))),
    }
}

/// The least gas, within 1.5 percent, that the transaction succeeds with.
pub(super) fn estimate_gas(node: &Inner, params: &Params) -> Answer {
    let (state, block) = environment(node, params)?;
    let most = node.shared.genesis.block_gas.min(node.limits.call_gas_max);
    let asked = transaction(node, params.object(0)?, most)?;
    let with = |gas_limit: u64| {
        let transaction = TxEnv { gas_limit, ..asked.clone() };
        run(&node.shared.genesis, &state, block.clone(), transaction, Intent::Ask)
    };
    let mut high = asked.gas_limit;
    let spent = match with(high)?.result {
        ExecutionResult::Success { gas, .. } => gas.total_gas_spent(),
        ExecutionResult::Revert { output, .. } => return Err(RpcError::reverted(&output)),
        ExecutionResult::Halt { reason, .. } => return Err(RpcError::refused(halted(&reason))),
    };
    let succeeds = |gas_limit: u64| {
        Ok::<bool, RpcError>(match with(gas_limit) {
            Ok(ran) => ran.result.is_success(),
            // Less than the transaction costs before it begins.
            Err(crate::execution::ExecutionError::Refused(_)) => false,
            Err(error) => return Err(error.into()),
        })
    };
    // It can't succeed with less than it spent, so `low` always fails.
    let mut low = spent.saturating_sub(1);
    let likely = spent.saturating_add(STIPEND).saturating_mul(64) / 63;
    if spent == PLAIN_GAS && succeeds(spent)? {
        return Ok(quantity(spent));
    }
    if likely < high {
        if succeeds(likely)? { high = likely } else { low = likely }
    }
    while high - low > 1 && (high - low) > high / 64 {
        let middle = low + (high - low) / 2;
        if succeeds(middle)? { high = middle } else { low = middle }
    }
    Ok(quantity(high))
}

/// The state to run on and the block to run in.
fn environment(node: &Inner, params: &Params) -> Result<(Past, BlockEnv), RpcError> {
    if params.get(2).is_some_and(|overrides| overrides.as_object().is_none_or(|some| !some.is_empty())) {
        return Err(RpcError::params("state overrides are not supported"));
    }
    let selector = params.block(1)?;
    let (state, number) = selector.state(node)?;
    let block = state.newest.block(number)?.ok_or_else(|| RpcError::not_found("there is no such block"))?;
    let parent = block.header.header().timestamp;
    let (number, timestamp) = match selector {
        BlockSelector::Latest => (number + 1, next_timestamp(node, parent)),
        BlockSelector::Number(_) | BlockSelector::Hash(_) => (number, parent),
    };
    let genesis = &node.shared.genesis;
    let gas = genesis.block_gas.max(node.limits.call_gas_max);
    Ok((state, block_environment(genesis, number, timestamp, gas)))
}

/// The call as the EVM takes it. Gas costs nothing here, whatever price is named.
fn transaction(node: &Inner, fields: &Map<String, Value>, gas_max: u64) -> Result<TxEnv, RpcError> {
    let field = |name: &str| fields.get(name).filter(|value| !value.is_null());
    let data = match (field("input"), field("data")) {
        (Some(input), Some(data)) if input != data => {
            return Err(RpcError::params("input and data differ; give one of them"));
        }
        (Some(data), _) | (None, Some(data)) => params::bytes(data)?,
        (None, None) => Bytes::new(),
    };
    let chain_id = node.shared.genesis.chain_id;
    if field("chainId").map(params::number).transpose()?.is_some_and(|asked| asked != chain_id) {
        return Err(RpcError::params(format!("this is chain {chain_id}")));
    }
    let gas = field("gas").map(params::quantity).transpose()?;
    let gas_limit = gas.and_then(|gas| u64::try_from(gas).ok()).unwrap_or(gas_max).min(gas_max);
    let access_list = field("accessList").map(access_list).transpose()?;
    Ok(TxEnv {
        tx_type: u8::from(access_list.is_some()),
        caller: field("from").map(params::address).transpose()?.unwrap_or(Address::ZERO),
        gas_limit,
        gas_price: 0,
        kind: field("to").map(params::address).transpose()?.map_or(TxKind::Create, TxKind::Call),
        value: field("value").map(params::quantity).transpose()?.unwrap_or_default(),
        data,
        nonce: 0,
        chain_id: Some(chain_id),
        access_list: access_list.unwrap_or_default(),
        ..TxEnv::default()
    })
}

fn access_list(value: &Value) -> Result<AccessList, RpcError> {
    let wrong = || RpcError::params("an access list is a list of {address, storageKeys}");
    let items = value.as_array().ok_or_else(wrong)?.iter().map(|item| {
        let keys = item.get("storageKeys").and_then(Value::as_array).ok_or_else(wrong)?;
        let storage_keys: Result<Vec<B256>, RpcError> = keys.iter().map(params::hash).collect();
        let address = params::address(item.get("address").ok_or_else(wrong)?)?;
        Ok(AccessListItem { address, storage_keys: storage_keys? })
    });
    items.collect::<Result<Vec<AccessListItem>, RpcError>>().map(AccessList)
}

fn halted(reason: &HaltReason) -> String {
    match reason {
        HaltReason::OutOfGas(_) => "out of gas".to_owned(),
        other => format!("execution halted: {other:?}"),
    }
}

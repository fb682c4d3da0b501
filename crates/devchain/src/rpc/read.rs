//! The methods that only look.

use super::error::{Answer, RpcError};
use super::filters;
use super::params::{BlockSelector, Params};
use super::render::{self, Transactions, quantity};
use crate::block::Block;
use crate::follower::BLOCKS_AT_ONCE;
use crate::node::Inner;
use crate::sequencer::wall_clock;
use crate::state::State;
use alloy_primitives::{B256, Bytes, U128, U256};
use serde_json::{Value, json};

/// One method.
pub(super) type Read = fn(&Inner, &Params) -> Answer;

/// Blocks of one fee history: all of them say the same.
const FEE_HISTORY_MAX: u64 = 1_024;

/// The method of that name.
pub(super) fn method(name: &str) -> Option<Read> {
    let read: Read = match name {
        "eth_chainId" => |node, _| Ok(quantity(node.shared.genesis.chain_id)),
        "net_version" => |node, _| Ok(json!(node.shared.genesis.chain_id.to_string())),
        "net_listening" => |_, _| Ok(json!(true)),
        "web3_clientVersion" => |_, _| Ok(json!(concat!("seedbank/", env!("CARGO_PKG_VERSION")))),
        "eth_syncing" => |_, _| Ok(json!(false)),
        // Keys are never here.
        "eth_accounts" => |_, _| Ok(json!([])),
        "eth_blockNumber" => |node, _| Ok(quantity(BlockSelector::Latest.number(node)?.unwrap_or_default())),
        "eth_gasPrice" => |node, _| Ok(json!(U128::from(node.shared.genesis.gas_price))),
        "eth_maxPriorityFeePerGas" => |node, _| Ok(json!(U128::from(node.shared.genesis.gas_price))),
        "eth_feeHistory" => fee_history,
        "eth_newBlockFilter" => filters::new_blocks,
        "eth_newPendingTransactionFilter" => filters::new_pending,
        "eth_uninstallFilter" => filters::uninstall,
        "eth_getBalance" => |node, params| {
            let account = params.block(1)?.state(node)?.0.account(params.address(0)?)?;
            Ok(json!(account.map_or(U256::ZERO, |account| account.balance)))
        },
        "eth_getTransactionCount" => {
            |node, params| Ok(quantity(params.block(1)?.state(node)?.0.nonce(params.address(0)?)?))
        }
        "eth_getCode" => {
            |node, params| Ok(json!(params.block(1)?.state(node)?.0.code_of(params.address(0)?)?))
        }
        "eth_getStorageAt" => |node, params| {
            let (address, slot) = (params.address(0)?, params.slot(1)?);
            Ok(json!(B256::from(params.block(2)?.state(node)?.0.slot(address, slot)?)))
        },
        "eth_getBlockByNumber" => |node, params| block(node, params.block(0)?, params.flag(1)?),
        "eth_getBlockByHash" => {
            |node, params| block(node, BlockSelector::Hash(params.hash(0)?), params.flag(1)?)
        }
        "eth_getBlockReceipts" => block_receipts,
        "eth_getTransactionByHash" => transaction,
        "eth_getTransactionReceipt" => receipt,
        "seedbank_genesis" => |node, _| Ok(json!(node.shared.genesis)),
        "seedbank_blocks" => raw_blocks,
        _ => return None,
    };
    Some(read)
}

fn fee_history(node: &Inner, params: &Params) -> Answer {
    let count = params.number(0)?.clamp(1, FEE_HISTORY_MAX);
    let newest = params.block(1)?.number(node)?;
    let newest = newest.ok_or_else(|| RpcError::not_found("there is no such block"))?;
    let oldest = (newest + 1).saturating_sub(count);
    let blocks = usize::try_from(newest - oldest + 1).expect("at most 1024");
    let price = json!(U128::from(node.shared.genesis.gas_price));
    let percentiles = params.get(2).and_then(Value::as_array).map(Vec::len);
    let mut history = json!({
        "oldestBlock": quantity(oldest),
        "baseFeePerGas": vec!["0x0"; blocks + 1],
        "gasUsedRatio": vec![0.0; blocks],
    });
    if let Some(percentiles) = percentiles.filter(|count| (1..=100).contains(count)) {
        history["reward"] = json!(vec![vec![price; percentiles]; blocks]);
    }
    Ok(history)
}

fn find(node: &Inner, selector: BlockSelector) -> Result<Option<Block>, RpcError> {
    let snapshot = node.shared.store.snapshot()?;
    let number = match selector {
        BlockSelector::Latest => return Ok(snapshot.head()?),
        BlockSelector::Number(number) => Some(number),
        BlockSelector::Hash(hash) => snapshot.block_number(hash)?,
    };
    Ok(number.map(|number| snapshot.block(number)).transpose()?.flatten())
}

fn block(node: &Inner, selector: BlockSelector, whole: bool) -> Answer {
    let show = if whole { Transactions::Whole } else { Transactions::Hashes };
    match find(node, selector)? {
        Some(block) => Ok(render::block(&block, &node.shared.genesis, show)?),
        None => Ok(Value::Null),
    }
}

/// The receipt of a block's transaction.
fn receipt_in(node: &Inner, block: &Block) -> Result<Option<Value>, RpcError> {
    let genesis = &node.shared.genesis;
    let Some(transaction) = render::transaction_of(block, genesis)? else { return Ok(None) };
    let receipt = node.shared.store.snapshot()?.receipt(block.number())?;
    Ok(receipt.map(|receipt| render::receipt(&receipt, &transaction, block, genesis)))
}

fn block_receipts(node: &Inner, params: &Params) -> Answer {
    match find(node, params.block(0)?)? {
        Some(block) => Ok(json!(receipt_in(node, &block)?.into_iter().collect::<Vec<Value>>())),
        None => Ok(Value::Null),
    }
}

fn block_of(node: &Inner, transaction: B256) -> Result<Option<Block>, RpcError> {
    let snapshot = node.shared.store.snapshot()?;
    let number = snapshot.transaction_block(transaction)?;
    Ok(number.map(|number| snapshot.block(number)).transpose()?.flatten())
}

fn receipt(node: &Inner, params: &Params) -> Answer {
    match block_of(node, params.hash(0)?)? {
        Some(block) => Ok(receipt_in(node, &block)?.unwrap_or(Value::Null)),
        None => Ok(Value::Null),
    }
}

fn transaction(node: &Inner, params: &Params) -> Answer {
    let (hash, genesis) = (params.hash(0)?, &node.shared.genesis);
    // In this order: what leaves the waiting list while this looks is in a block then.
    let waiting = node.shared.waiting().find(hash).map(|one| render::transaction(one, genesis, None));
    if let Some(block) = block_of(node, hash)? {
        let transaction = render::transaction_of(&block, genesis)?;
        return Ok(transaction.map_or(Value::Null, |one| render::transaction(&one, genesis, Some(&block))));
    }
    Ok(waiting.unwrap_or(Value::Null))
}

/// Blocks as they were signed, for followers: from a number on, as many as there are and fit.
fn raw_blocks(node: &Inner, params: &Params) -> Answer {
    let (first, count) = (params.number(0)?, params.number(1)?.min(BLOCKS_AT_ONCE));
    let snapshot = node.shared.store.snapshot()?;
    let (mut blocks, mut bytes) = (Vec::new(), 0);
    for number in first..first.saturating_add(count) {
        let Some(block) = snapshot.block(number)? else { break };
        let header = Bytes::from(block.header.encoded());
        // Two digits a byte.
        bytes += 2 * (header.len() + block.transaction.as_ref().map_or(0, |raw| raw.len()));
        if bytes > node.limits.answer_bytes_max && !blocks.is_empty() {
            break;
        }
        blocks.push(json!({"header": header, "transaction": block.transaction}));
    }
    Ok(Value::Array(blocks))
}

/// The time that a block would have that was made now.
pub(super) fn next_timestamp(node: &Inner, parent: u64) -> u64 {
    node.shared.clock().peek(wall_clock(), parent)
}

//! Blocks, transactions, receipts and logs as Ethereum's JSON-RPC shows them.

use crate::block::{Block, Receipt};
use crate::execution::bloom;
use crate::genesis::Genesis;
use crate::store::StoreError;
use crate::transaction::Transaction;
use alloy_consensus::{Transaction as _, Typed2718};
use alloy_primitives::{B256, Log, U64, U128, U256};
use serde_json::{Value, json};

/// Whether a block is shown with its whole transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transactions {
    Hashes,
    Whole,
}

pub(super) fn quantity(number: u64) -> Value {
    json!(U64::from(number))
}

/// The transaction of a stored block.
pub(super) fn transaction_of(block: &Block, genesis: &Genesis) -> Result<Option<Transaction>, StoreError> {
    let Some(raw) = &block.transaction else { return Ok(None) };
    let transaction = Transaction::check(raw, genesis).map_err(|error| {
        StoreError::Damaged(format!("the transaction of block {} can't be read: {error}", block.number()))
    })?;
    Ok(Some(transaction))
}

pub(super) fn block(block: &Block, genesis: &Genesis, show: Transactions) -> Result<Value, StoreError> {
    let header = block.header.header();
    let transaction = transaction_of(block, genesis)?;
    let transactions: Vec<Value> = transaction
        .iter()
        .map(|one| match show {
            Transactions::Hashes => json!(one.hash()),
            Transactions::Whole => self::transaction(one, genesis, Some(block)),
        })
        .collect();
    let header_bytes = block.header.encoded().len();
    let bytes = header_bytes + block.transaction.as_ref().map_or(0, |raw| raw.len());
    let mut shown = json!({
        "number": quantity(header.number),
        "hash": block.hash(),
        "parentHash": header.parent_hash,
        "sha3Uncles": header.ommers_hash,
        "miner": header.beneficiary,
        "stateRoot": header.state_root,
        "transactionsRoot": header.transactions_root,
        "receiptsRoot": header.receipts_root,
        "logsBloom": header.logs_bloom,
        "difficulty": header.difficulty,
        "totalDifficulty": U256::from(header.number) + U256::from(1),
        "gasLimit": quantity(header.gas_limit),
        "gasUsed": quantity(header.gas_used),
        "timestamp": quantity(header.timestamp),
        "extraData": header.extra_data,
        "mixHash": header.mix_hash,
        "nonce": header.nonce,
        "size": U256::from(bytes),
        "uncles": [],
        "transactions": transactions,
    });
    if let Some(base_fee) = header.base_fee_per_gas {
        shown["baseFeePerGas"] = quantity(base_fee);
    }
    Ok(shown)
}

/// A transaction; of no block while it waits.
pub(super) fn transaction(transaction: &Transaction, genesis: &Genesis, block: Option<&Block>) -> Value {
    let tx = transaction.envelope();
    let signature = tx.signature();
    let parity = u64::from(signature.v());
    let price = tx.effective_gas_price(genesis.rules.base_fee());
    let mut shown = json!({
        "hash": transaction.hash(),
        "nonce": quantity(tx.nonce()),
        "blockHash": block.map(Block::hash),
        "blockNumber": block.map(|block| quantity(block.number())),
        "transactionIndex": block.map(|_| quantity(0)),
        "from": transaction.sender(),
        "to": tx.to(),
        "value": tx.value(),
        "gas": quantity(tx.gas_limit()),
        "gasPrice": U128::from(price),
        "input": tx.input(),
        "type": quantity(tx.ty().into()),
        "chainId": quantity(genesis.chain_id),
        "r": signature.r(),
        "s": signature.s(),
        "v": quantity(parity),
    });
    if tx.is_legacy() {
        shown["v"] = json!(U128::from(genesis.chain_id) * U128::from(2) + U128::from(35 + parity));
    } else {
        shown["yParity"] = quantity(parity);
        let access: Vec<Value> = tx
            .access_list()
            .into_iter()
            .flat_map(|list| list.iter())
            .map(|item| json!({"address": item.address, "storageKeys": item.storage_keys}))
            .collect();
        shown["accessList"] = json!(access);
    }
    if tx.is_dynamic_fee() {
        shown["maxFeePerGas"] = json!(U128::from(tx.max_fee_per_gas()));
        let tip = tx.max_priority_fee_per_gas().unwrap_or_default();
        shown["maxPriorityFeePerGas"] = json!(U128::from(tip));
    }
    shown
}

pub(super) fn receipt(
    receipt: &Receipt,
    transaction: &Transaction,
    block: &Block,
    genesis: &Genesis,
) -> Value {
    let tx = transaction.envelope();
    let created = tx.is_create().then(|| transaction.sender().create(tx.nonce()));
    let hash = transaction.hash();
    let logs: Vec<Value> =
        receipt.logs.iter().zip(0..).map(|(log, index)| self::log(log, index, block, hash)).collect();
    json!({
        "transactionHash": hash,
        "transactionIndex": quantity(0),
        "blockHash": block.hash(),
        "blockNumber": quantity(block.number()),
        "from": receipt.sender,
        "to": tx.to(),
        "contractAddress": created,
        "cumulativeGasUsed": quantity(receipt.gas_used),
        "gasUsed": quantity(receipt.gas_used),
        "effectiveGasPrice": U128::from(transaction.gas_price(genesis)),
        "logs": logs,
        "logsBloom": bloom(receipt),
        "status": quantity(receipt.succeeded.into()),
        "type": quantity(tx.ty().into()),
    })
}

pub(super) fn log(log: &Log, index: u64, block: &Block, transaction: B256) -> Value {
    json!({
        "address": log.address,
        "topics": log.topics(),
        "data": log.data.data,
        "blockHash": block.hash(),
        "blockNumber": quantity(block.number()),
        "blockTimestamp": quantity(block.header.header().timestamp),
        "transactionHash": transaction,
        "transactionIndex": quantity(0),
        "logIndex": quantity(index),
        "removed": false,
    })
}

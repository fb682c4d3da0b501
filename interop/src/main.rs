//! `seedbank-interop URL`: what anybody does with alloy's client, in its most usual way, against a node under Berlin's rules.
//!
//! It says at each step what was done. What does not come out as it should ends it with an error.

use alloy_primitives::{Address, B256, U256, hex};
use alloy_provider::network::{EthereumWallet, TransactionBuilder};
use alloy_provider::{Provider, ProviderBuilder};
use alloy_rpc_types_eth::{BlockId, BlockNumberOrTag, Filter, Log, TransactionRequest};
use alloy_signer_local::PrivateKeySigner;
use anyhow::{Context, Result, ensure};

/// The one account that has coin on a fresh anvil. Where gas costs nothing any will do.
const KEY: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

/// Deploys a contract that adds what it is called with to slot 0 and logs the sum under topic 7; a call without input gives slot 0.
const COUNTER: [u8; 49] = hex!(
    "602680600b6000396000f3"
    "36600f5760005460005260206000f35b6000546000350180600055600052600760206000a100"
);

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).context("give the URL of a node")?;
    let signer: PrivateKeySigner = KEY.parse()?;
    let me = signer.address();
    // With the fillers that alloy recommends: nonce, chain id, gas and its price.
    let node = ProviderBuilder::new().wallet(EthereumWallet::from(signer)).connect_http(url.parse()?);

    let chain_id = node.get_chain_id().await?;
    ensure!(node.get_net_version().await? == chain_id);
    let price = node.get_gas_price().await?;
    let history = node.get_fee_history(4, BlockNumberOrTag::Latest, &[20.0]).await?;
    ensure!(history.latest_block_base_fee().is_none_or(|fee| fee == 0), "a base fee before London");
    ensure!(node.estimate_eip1559_fees().await.is_err(), "London's fees are offered under Berlin's rules");
    println!("  chain {chain_id} of {}, gas at {price}", node.get_client_version().await?);

    let (other, value) = (Address::repeat_byte(0x77), node.get_balance(me).await?.min(U256::from(1_000)));
    let nonce = node.get_transaction_count(me).await?;
    let transfer = TransactionRequest::default().with_to(other).with_value(value);
    let receipt = node.send_transaction(transfer).await?.get_receipt().await?;
    ensure!(receipt.status() && receipt.gas_used == 21_000, "{receipt:?}");
    ensure!(u8::from(receipt.inner.tx_type()) == 0, "{receipt:?}");
    ensure!(node.get_balance(other).await? == value && node.get_transaction_count(me).await? == nonce + 1);
    println!("  sent {value} in block {}", receipt.block_number.context("in no block")?);

    let deploying = TransactionRequest::default().with_deploy_code(COUNTER);
    let receipt = node.send_transaction(deploying).await?.get_receipt().await?;
    let counter = receipt.contract_address.context("no contract was made")?;
    ensure!(receipt.status() && node.get_code_at(counter).await?.len() == 0x26, "{receipt:?}");
    let mut blocks = Vec::new();
    for number in 1..=3u8 {
        let call = TransactionRequest::default().with_to(counter).with_input(B256::with_last_byte(number));
        let pending = node.send_transaction(call).await?.with_required_confirmations(1);
        blocks.push(pending.get_receipt().await?.block_number.context("in no block")?);
    }
    let asked = node.call(TransactionRequest::default().with_to(counter)).await?;
    ensure!(asked[31] == 6, "{asked}");
    ensure!(node.get_storage_at(counter, U256::ZERO).await? == U256::from(6));
    let before =
        node.call(TransactionRequest::default().with_to(counter)).block(BlockId::number(blocks[1])).await?;
    ensure!(before[31] == 3, "the state after an earlier block: {before}");
    println!("  deployed {counter}, called it three times and read it");

    let all = Filter::new().address(counter).event_signature(B256::with_last_byte(7));
    let found = node.get_logs(&all.clone().from_block(0)).await?;
    let sums: Vec<u8> = found.iter().map(|log| log.data().data[31]).collect();
    ensure!(sums == [1, 3, 6], "{found:?}");
    let last = node.get_logs(&all.from_block(blocks[2]).to_block(blocks[2])).await?;
    ensure!(last.len() == 1 && last[0].block_number == Some(blocks[2]), "{last:?}");

    let watched = node.new_filter(&Filter::new().address(counter)).await?;
    let call = TransactionRequest::default().with_to(counter).with_input(B256::with_last_byte(4));
    node.send_transaction(call).await?.get_receipt().await?;
    let changes: Vec<Log> = node.get_filter_changes(watched).await?;
    ensure!(changes.len() == 1 && changes[0].data().data[31] == 10, "{changes:?}");
    ensure!(node.get_filter_changes::<Log>(watched).await?.is_empty(), "it was told before");
    ensure!(node.uninstall_filter(watched).await?, "the filter was there");

    let head = node.get_block_number().await?;
    let block = node
        .get_block_by_number(BlockNumberOrTag::Number(blocks[2]))
        .full()
        .await?
        .context("no such block")?;
    ensure!(block.header.hash == block.header.inner.hash_slow(), "another hash than its header's");
    ensure!(block.header.base_fee_per_gas.is_none(), "a base fee before London");
    let hash = block.transactions.hashes().next().context("the block is empty")?;
    let transaction = node.get_transaction_by_hash(hash).await?.context("no such transaction")?;
    ensure!(transaction.block_hash == Some(block.header.hash));
    let same = node.get_block_by_hash(block.header.hash).await?.context("no such block")?;
    ensure!(same.header.number == blocks[2]);
    for tag in [
        BlockNumberOrTag::Latest,
        BlockNumberOrTag::Safe,
        BlockNumberOrTag::Finalized,
        BlockNumberOrTag::Earliest,
    ] {
        ensure!(node.get_block_by_number(tag).await?.is_some(), "{tag}");
    }
    let receipts = node.get_block_receipts(BlockId::number(blocks[2])).await?.context("no receipts")?;
    ensure!(receipts.len() == 1 && receipts[0].transaction_hash == hash);
    println!("  logs, blocks up to {head}, transactions and receipts agree");
    Ok(())
}

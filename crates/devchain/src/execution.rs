//! Runs the EVM, and drafts the block that a transaction makes.
//!
//! The sequencer signs a draft; a follower compares the same draft, made from the same inputs, with what was signed.

use crate::block::Receipt;
use crate::changes::Changes;
use crate::genesis::Genesis;
use crate::header::SignedHeader;
use crate::state::{ForEvm, State};
use crate::store::StoreError;
use crate::transaction::Transaction;
use alloy_consensus::proofs::{calculate_receipt_root, calculate_transaction_root};
use alloy_consensus::{
    EMPTY_OMMER_ROOT_HASH, EMPTY_ROOT_HASH, Eip658Value, Header, Receipt as ConsensusReceipt,
    ReceiptEnvelope, ReceiptWithBloom, TxType,
};
use alloy_primitives::{Bloom, U256, logs_bloom};
use revm::context::result::{EVMError, ExecutionResult, InvalidTransaction, ResultAndState};
use revm::context::{BlockEnv, CfgEnv, TxEnv};
use revm::database_interface::WrapDatabaseRef;
use revm::primitives::hardfork::SpecId;
use revm::{Context, ExecuteEvm, MainBuilder, MainContext};

/// What the opcode of that name gives. It is a constant as on BTTC, where it says nothing useful either.
const DIFFICULTY: u64 = 1;

/// Whether a transaction is meant, or only asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    /// It becomes a block.
    Send,
    /// Anyone may ask what would come of it, under any name and nonce.
    Ask,
}

/// Why a transaction was not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecutionError {
    /// It can't be part of a block as things stand. Nothing changed.
    #[error("{0}")]
    Refused(InvalidTransaction),
    /// The state can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The machine itself failed, which only a bug makes it do.
    #[error("the EVM failed: {0}")]
    Evm(String),
}

/// Runs one transaction on a state, which stays as it is.
pub(crate) fn run(
    genesis: &Genesis,
    state: &impl State,
    block: BlockEnv,
    transaction: TxEnv,
    intent: Intent,
) -> Result<ResultAndState, ExecutionError> {
    let mut rules = CfgEnv::<SpecId>::new_with_spec(genesis.rules.spec()).with_chain_id(genesis.chain_id);
    rules.disable_nonce_check = intent == Intent::Ask;
    rules.disable_eip3607 = intent == Intent::Ask;
    let database = WrapDatabaseRef(ForEvm(state));
    let mut evm = Context::mainnet().with_db(database).with_cfg(rules).with_block(block).build_mainnet();
    evm.transact(transaction).map_err(|error| match error {
        EVMError::Transaction(why) => ExecutionError::Refused(why),
        EVMError::Database(error) => ExecutionError::Store(error),
        EVMError::Header(error) => ExecutionError::Evm(error.to_string()),
        EVMError::Custom(error) => ExecutionError::Evm(error),
        EVMError::CustomAny(error) => ExecutionError::Evm(error.to_string()),
    })
}

/// What a block's opcodes see.
pub(crate) fn block_environment(genesis: &Genesis, number: u64, timestamp: u64, gas_limit: u64) -> BlockEnv {
    BlockEnv {
        number: U256::from(number),
        beneficiary: genesis.sequencer,
        timestamp: U256::from(timestamp),
        gas_limit,
        basefee: 0,
        difficulty: U256::from(DIFFICULTY),
        prevrandao: None,
        ..BlockEnv::default()
    }
}

/// A block that nobody has signed yet, and what it does.
pub(crate) struct Draft {
    pub(crate) header: Header,
    pub(crate) receipt: Option<Receipt>,
    pub(crate) changes: Changes,
}

impl Draft {
    /// Block 0.
    pub(crate) fn genesis(genesis: &Genesis) -> Draft {
        let changes = Changes::genesis(&genesis.balances);
        let header = Header {
            state_root: changes.commitment(genesis.commitment_seed()),
            timestamp: genesis.timestamp,
            ..frame(genesis)
        };
        Draft { header, receipt: None, changes }
    }

    /// The block after `parent` with this transaction, or without any.
    pub(crate) fn next(
        genesis: &Genesis,
        state: &impl State,
        parent: &SignedHeader,
        timestamp: u64,
        transaction: Option<&Transaction>,
    ) -> Result<Draft, ExecutionError> {
        let number = parent.header().number + 1;
        let mut header = Header { parent_hash: parent.hash(), number, timestamp, ..frame(genesis) };
        let Some(transaction) = transaction else {
            let changes = Changes::default();
            header.state_root = changes.commitment(parent.header().state_root);
            return Ok(Draft { header, receipt: None, changes });
        };
        let block = block_environment(genesis, number, timestamp, genesis.block_gas);
        let ran = run(genesis, state, block, transaction.environment(genesis), Intent::Send)?;
        let changes = Changes::from_evm(ran.state, state)?;
        let (succeeded, gas_used) = (ran.result.is_success(), ran.result.tx_gas_used());
        let logs = match ran.result {
            ExecutionResult::Success { logs, .. } => logs,
            // What a failed transaction said, it did not say.
            ExecutionResult::Revert { .. } | ExecutionResult::Halt { .. } => Vec::new(),
        };
        let receipt = Receipt { sender: transaction.sender(), succeeded, gas_used, logs };
        header.state_root = changes.commitment(parent.header().state_root);
        header.transactions_root = calculate_transaction_root(std::slice::from_ref(transaction.envelope()));
        header.receipts_root =
            calculate_receipt_root(&[consensus_receipt(&receipt, transaction.envelope().tx_type())]);
        header.logs_bloom = bloom(&receipt);
        header.gas_used = gas_used;
        Ok(Draft { header, receipt: Some(receipt), changes })
    }
}

/// What is the same in every header.
fn frame(genesis: &Genesis) -> Header {
    Header {
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        beneficiary: genesis.sequencer,
        transactions_root: EMPTY_ROOT_HASH,
        receipts_root: EMPTY_ROOT_HASH,
        difficulty: U256::from(DIFFICULTY),
        gas_limit: genesis.block_gas,
        base_fee_per_gas: genesis.rules.base_fee(),
        ..Header::default()
    }
}

pub(crate) fn bloom(receipt: &Receipt) -> Bloom {
    logs_bloom(&receipt.logs)
}

fn consensus_receipt(receipt: &Receipt, kind: TxType) -> ReceiptEnvelope {
    let inner = ReceiptWithBloom {
        receipt: ConsensusReceipt {
            status: Eip658Value::Eip658(receipt.succeeded),
            cumulative_gas_used: receipt.gas_used,
            logs: receipt.logs.clone(),
        },
        logs_bloom: bloom(receipt),
    };
    match kind {
        TxType::Legacy => ReceiptEnvelope::Legacy(inner),
        TxType::Eip2930 => ReceiptEnvelope::Eip2930(inner),
        TxType::Eip1559 => ReceiptEnvelope::Eip1559(inner),
        TxType::Eip4844 => ReceiptEnvelope::Eip4844(inner),
        TxType::Eip7702 => ReceiptEnvelope::Eip7702(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::Draft;
    use crate::genesis::{Genesis, Rules};
    use crate::header::{SignedHeader, address_of};
    use alloy_primitives::{Address, U256, b256};
    use k256::ecdsa::SigningKey;

    #[test]
    fn block_zero_of_a_genesis_is_the_same_on_every_machine() {
        let key = SigningKey::from_slice(&[7; 32]).unwrap();
        let genesis = Genesis {
            chain_id: 199,
            rules: Rules::Berlin,
            gas_price: 3,
            block_gas: 30_000_000,
            sequencer: address_of(&key),
            timestamp: 1_700_000_000,
            balances: [(Address::repeat_byte(1), U256::from(5))].into(),
        };
        let draft = Draft::genesis(&genesis);
        let commitment = b256!("0xd5b6bb98c82a239e0f0a9827da4aabe13471ed07c89b002dd201ab143e92c82a");
        assert_eq!(draft.header.state_root, commitment, "a chain that exists could not be replayed any more");
        let signed = SignedHeader::sign(draft.header, genesis.chain_id, &key);
        let hash = b256!("0x167d1296d59185754bc53bb806bcfacc899c76e6eb83080e68d48f03b24ab10b");
        assert_eq!(signed.hash(), hash, "a chain that exists could not be followed any more");
    }
}

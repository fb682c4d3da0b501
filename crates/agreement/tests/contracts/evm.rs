//! A Berlin EVM in memory with one block a transaction, and the contracts of one deployment in it.

use crate::abi::{Abi, Artifact, Words, encode};
use revm::context::result::{ExecutionResult, Output};
use revm::context::{BlockEnv, CfgEnv, TxEnv};
use revm::database::{CacheDB, EmptyDB};
use revm::primitives::hardfork::SpecId;
use revm::primitives::{TxKind, U256};
use revm::{Context, DatabaseRef, ExecuteCommitEvm, ExecuteEvm, MainBuilder, MainContext};
use seedbank_agreement::market::Block;
use seedbank_agreement::{Address, Domain};
use seedbank_formats::Timestamp;
use std::collections::BTreeMap;
use std::sync::LazyLock;

pub(crate) const CHAIN_ID: u64 = 31_337;
const GAS: u64 = 100_000_000;

/// A log: its contract's address is known from its topic.
pub(crate) struct Log {
    pub(crate) topic: [u8; 32],
    pub(crate) data: Vec<u8>,
}

/// What a transaction did: what it returned and said, or its revert's bytes.
pub(crate) type Ran = Result<(Vec<u8>, Vec<Log>), Vec<u8>>;

/// A chain's state and its newest block.
#[derive(Clone)]
pub(crate) struct Evm {
    state: CacheDB<EmptyDB>,
    pub(crate) number: u64,
    pub(crate) time: Timestamp,
}

impl Evm {
    pub(crate) fn new(time: Timestamp) -> Evm {
        Evm { state: CacheDB::new(EmptyDB::default()), number: 1, time }
    }

    /// The block that runs now, as contracts see it.
    pub(crate) fn block(&self) -> Block {
        let parent = self.state.block_hash_ref(self.number - 1).unwrap().0;
        Block { number: self.number, time: self.time, parent }
    }

    fn environment(&self) -> (CfgEnv, BlockEnv) {
        let mut rules = CfgEnv::new_with_spec(SpecId::BERLIN).with_chain_id(CHAIN_ID);
        rules.disable_nonce_check = true;
        let block = BlockEnv {
            number: U256::from(self.number),
            timestamp: U256::from(self.time.0),
            gas_limit: GAS,
            basefee: 0,
            difficulty: U256::from(1),
            ..BlockEnv::default()
        };
        (rules, block)
    }

    fn run(&mut self, sender: Address, kind: TxKind, data: Vec<u8>) -> ExecutionResult {
        let (rules, block) = self.environment();
        let transaction = transaction(sender, kind, data);
        let mut evm =
            Context::mainnet().with_db(&mut self.state).with_cfg(rules).with_block(block).build_mainnet();
        evm.transact_commit(transaction).unwrap()
    }

    /// A new contract's address. Each deployment takes a sender of its own, whose nonce is 0.
    pub(crate) fn create(
        &mut self,
        artifact: &Artifact,
        libraries: &BTreeMap<String, Address>,
        arguments: &[Abi],
    ) -> Address {
        let mut code = artifact.creation.clone();
        for (placeholder, library) in &artifact.links {
            let address = libraries[library].to_string().trim_start_matches("0x").to_lowercase();
            code = code.replace(placeholder.as_str(), &address);
        }
        let digits =
            |at: usize| u8::from_str_radix(&code[at..at + 2], 16).expect("hex, with all libraries linked");
        let mut data: Vec<u8> = (0..code.len()).step_by(2).map(digits).collect();
        data.extend(encode(arguments));
        self.number += 1;
        let mut sender = [0xdd; 20];
        sender[12..].copy_from_slice(&self.number.to_be_bytes());
        match self.run(Address(sender), TxKind::Create, data) {
            ExecutionResult::Success { output: Output::Create(_, Some(at)), .. } => Address(at.into_array()),
            other => panic!("the deployment failed: {other:?}"),
        }
    }

    /// One transaction in the block that runs now.
    pub(crate) fn send(&mut self, sender: Address, to: Address, data: Vec<u8>) -> Ran {
        match self.run(sender, TxKind::Call(to.0.into()), data) {
            ExecutionResult::Success { output, logs, .. } => {
                let log = |log: revm::primitives::Log| Log {
                    topic: log.data.topics()[0].0,
                    data: log.data.data.to_vec(),
                };
                Ok((output.into_data().to_vec(), logs.into_iter().map(log).collect()))
            }
            ExecutionResult::Revert { output, .. } => Err(output.to_vec()),
            ExecutionResult::Halt { reason, .. } => panic!("the EVM stopped: {reason:?}"),
        }
    }

    /// Asks without changing anything.
    pub(crate) fn ask(&self, to: Address, data: Vec<u8>) -> Result<Vec<u8>, Vec<u8>> {
        let (rules, block) = self.environment();
        let database = revm::database_interface::WrapDatabaseRef(&self.state);
        let mut evm = Context::mainnet().with_db(database).with_cfg(rules).with_block(block).build_mainnet();
        let asked = transaction(Address::ZERO, TxKind::Call(to.0.into()), data);
        match evm.transact(asked).unwrap().result {
            ExecutionResult::Success { output, .. } => Ok(output.into_data().to_vec()),
            ExecutionResult::Revert { output, .. } => Err(output.to_vec()),
            ExecutionResult::Halt { reason, .. } => panic!("the EVM stopped: {reason:?}"),
        }
    }
}

fn transaction(sender: Address, kind: TxKind, data: Vec<u8>) -> TxEnv {
    TxEnv {
        caller: sender.0.into(),
        kind,
        data: data.into(),
        gas_limit: GAS,
        gas_price: 0,
        chain_id: Some(CHAIN_ID),
        ..TxEnv::default()
    }
}

macro_rules! artifacts {
    ($($name:ident = $file:literal;)*) => {
        $(pub(crate) static $name: LazyLock<Artifact> = LazyLock::new(|| {
            Artifact::parse(include_str!(concat!("../../../../contracts/abi/", $file, ".json")))
        });)*
    };
}

artifacts! {
    AGREEMENTS = "Agreements";
    BEACON = "EmbeddedBeacon";
    CHANNELS = "RetrievalChannels";
    DATASETS = "DatasetRegistry";
    MARKET = "StorageMarket";
    PATHS = "Blake3Paths";
    POSSESSION = "Possession";
    REGISTRY = "ProviderRegistry";
    TOKEN = "TestToken";
}

/// The parameters that tests deploy with.
pub(crate) const GENESIS: Timestamp = Timestamp(1_000_000);
pub(crate) const EPOCH_SECONDS: u32 = 1_000;
pub(crate) const BLOCKS_MIN: u32 = 2;
pub(crate) const EXIT_SECONDS: u64 = 2_500;

/// The contracts of one deployment.
#[derive(Clone)]
pub(crate) struct Deployment {
    pub(crate) evm: Evm,
    pub(crate) token: Address,
    pub(crate) beacon: Address,
    pub(crate) paths: Address,
    pub(crate) registry: Address,
    pub(crate) market: Address,
    pub(crate) channels: Address,
    pub(crate) datasets: Address,
}

impl Deployment {
    pub(crate) fn new(parameters: &seedbank_agreement::market::Parameters) -> Deployment {
        let mut evm = Evm::new(GENESIS);
        let none = BTreeMap::new();
        let token = evm.create(&TOKEN, &none, &[]);
        let clock = [Abi::uint(GENESIS.0), Abi::uint(EPOCH_SECONDS), Abi::uint(BLOCKS_MIN)];
        let beacon = evm.create(&BEACON, &none, &clock);
        let paths = evm.create(&PATHS, &none, &[]);
        let mut libraries = BTreeMap::new();
        for (name, artifact) in [("Agreements", &AGREEMENTS), ("Possession", &POSSESSION)] {
            libraries.insert(name.to_owned(), evm.create(artifact, &none, &[]));
        }
        let settings = Abi::Tuple(vec![
            Abi::address(token),
            Abi::address(beacon),
            Abi::address(paths),
            Abi::uint(parameters.challenges),
            Abi::uint(parameters.slash_epochs),
            Abi::uint(parameters.stake_epochs),
            Abi::uint(parameters.misses_max),
            Abi::uint(parameters.notice_epochs),
            Abi::uint(parameters.bounty_basis_points),
            Abi::uint(parameters.question_bond.0),
        ]);
        let market = evm.create(&MARKET, &libraries, &[settings]);
        let channels = evm.create(&CHANNELS, &none, &[Abi::address(token), Abi::uint(EXIT_SECONDS)]);
        let datasets = evm.create(&DATASETS, &none, &[]);
        let registry = Words::of(&evm.ask(market, MARKET.call("registry", &[])).unwrap()).address();
        Deployment { evm, token, beacon, paths, registry, market, channels, datasets }
    }

    pub(crate) fn domain(contract: Address) -> Domain {
        Domain { chain_id: CHAIN_ID, contract }
    }

    /// A question that has an answer.
    pub(crate) fn ask(&self, artifact: &Artifact, at: Address, function: &str, arguments: &[Abi]) -> Vec<u8> {
        let answer = self.evm.ask(at, artifact.call(function, arguments));
        answer.unwrap_or_else(|revert| panic!("{function}: {}", artifact.name_of(&revert)))
    }

    /// A transaction in a block of its own.
    pub(crate) fn send(
        &mut self,
        sender: Address,
        artifact: &Artifact,
        to: Address,
        function: &str,
        arguments: &[Abi],
    ) -> Ran {
        self.evm.send(sender, to, artifact.call(function, arguments))
    }
}

//! Puts a new set of contracts on a chain, in the order in which each needs the ones before.
//!
//! Nothing is owned by whoever deploys: the account pays the gas, and may later name a successor in the directory, which stops nothing. A
//! deployment that breaks off leaves contracts that nobody refers to; start again.

use crate::abi::{beacon, blockhash_beacon, channels, directory, market};
use crate::artifacts::{self, Artifact};
use crate::chain::{ConnectError, open};
use crate::convert::{from_abi, to_abi};
use crate::deployment::{Deployment, DeploymentError, decimals};
use crate::endpoints::{EndpointPolicy, Endpoints, Expected, Unanswered, chain_id_of};
use crate::rpc::{Endpoint, EndpointFault, EndpointUrl};
use crate::wallet::{SendError, SendPolicy, Sending, Twice};
use alloy_primitives::{Address as AbiAddress, Bytes, TxKind};
use alloy_sol_types::{SolCall, SolConstructor};
use seedbank_agreement::market::Parameters as MarketParameters;
use seedbank_agreement::{Address, Amount, WalletKey};
use serde_json::json;
use std::sync::Arc;

/// What a new deployment is made with. It holds for good: other values need another deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The chain that it is meant for; None takes whichever the endpoint serves.
    pub chain_id: Option<u64>,
    /// The token that is paid with; None makes a test token without worth.
    pub token: Option<Address>,
    /// Where seeds come from.
    pub beacon: Beacon,
    /// Blocks that must follow a seed in its epoch, else the chain stood still and the epoch doesn't count.
    pub blocks_min: u32,
    /// When epoch 0 begins, in unix seconds.
    pub genesis: u64,
    /// Length of an epoch.
    pub epoch_seconds: u32,
    /// What the market decides.
    pub market: MarketParameters,
    /// Time between the announcement of a channel's exit and the exit.
    pub exit_seconds: u64,
}

/// One test token: it has 18 decimals.
const TEST_TOKEN_UNITS: Amount = Amount(1_000_000_000_000_000_000);

/// Where seeds come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beacon {
    /// The block before the first call in an epoch: for a chain whose one sequencer is trusted not to choose.
    Embedded,
    /// A block some way ahead of the first call in an epoch, for a chain with many makers of blocks.
    Blockhash {
        /// How far ahead: more blocks than one maker makes in a row, and fewer than 256.
        delay_blocks: u32,
    },
}

impl Settings {
    /// What the documentation's defaults are, for the embedded chain: a day's epochs from `genesis` on, 21 challenges, a test token, and one
    /// of it for a question. With another token take [`one_token`] for that.
    #[must_use]
    pub fn local(genesis: u64) -> Self {
        Self {
            chain_id: None,
            token: None,
            beacon: Beacon::Embedded,
            // The embedded chain makes a block a minute even when there is nothing to do.
            blocks_min: 720,
            genesis,
            epoch_seconds: 86_400,
            market: MarketParameters {
                challenges: 21,
                slash_epochs: 2,
                stake_epochs: 14,
                misses_max: 5,
                notice_epochs: 14,
                bounty_basis_points: 1_000,
                question_bond: TEST_TOKEN_UNITS,
            },
            exit_seconds: 3 * 86_400,
        }
    }
}

/// Why contracts were not deployed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// See there.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Begin again when its cause is gone.
    #[error("{contract} was not deployed")]
    Send {
        /// Which one.
        contract: &'static str,
        /// Why.
        #[source]
        why: SendError,
    },
    /// Correct the address, or the chain: nothing was sent.
    #[error("there is no contract at {0}, which should be the token")]
    NoToken(Address),
    /// Say what is wanted in the token's units: nothing was sent.
    #[error("the token at {0} does not say how many units one of it has (`decimals()`)")]
    NoDecimals(Address),
    /// The endpoint says that it was made, and not where.
    #[error("the endpoint does not say where {contract} is")]
    NoAddress {
        /// Which one.
        contract: &'static str,
    },
    /// What was deployed does not read back as it should.
    #[error("what was deployed can't be read back")]
    ReadBack(#[source] DeploymentError),
}

/// Deploys all contracts, and tells of each as it is there.
///
/// # Errors
/// [`DeployError`]
pub async fn deploy(
    endpoint: &EndpointUrl,
    key: &WalletKey,
    settings: &Settings,
    policy: SendPolicy,
    mut made: impl FnMut(&'static str, Address),
) -> Result<Deployment, DeployError> {
    let rpc = EndpointPolicy::default();
    let Reached { opened, first, chain_id } = reach(endpoint, settings.chain_id, settings.token).await?;
    let endpoints = Arc::new(Endpoints::new(opened, &[0], Expected { chain_id, deployment: None }, rpc));
    let deployer = Deployer {
        endpoints: Arc::clone(&endpoints),
        sending: Sending::start(endpoints, key.clone(), policy),
    };
    let directory = deployer.all(settings, &mut made).await;
    deployer.sending.stop().await;
    Deployment::read(&first, chain_id, from_abi(directory?)).await.map_err(DeployError::ReadBack)
}

/// The units of one token.
///
/// # Errors
/// [`DeployError`]; nothing is sent.
pub async fn one_token(
    endpoint: &EndpointUrl,
    chain_id: Option<u64>,
    token: Address,
) -> Result<Amount, DeployError> {
    let Reached { first, .. } = reach(endpoint, chain_id, Some(token)).await?;
    let decimals = decimals(&first, to_abi(token)).await.map_err(|fault| unusable(endpoint, fault))?;
    let units = decimals.and_then(|decimals| 10u128.checked_pow(decimals.into()));
    units.map(Amount).ok_or(DeployError::NoDecimals(token))
}

/// The endpoint of a chain that can be deployed on.
struct Reached {
    /// It alone, as those who ask several want it.
    opened: Vec<Arc<Endpoint>>,
    first: Arc<Endpoint>,
    chain_id: u64,
}

/// Sees that it is the chain that is meant, and that the token is there.
async fn reach(
    endpoint: &EndpointUrl,
    meant: Option<u64>,
    token: Option<Address>,
) -> Result<Reached, DeployError> {
    let opened = open(std::slice::from_ref(endpoint), EndpointPolicy::default())?;
    let first = Arc::clone(&opened[0]);
    let chain_id = chain_id_of(&first).await.map_err(|fault| unusable(endpoint, fault))?;
    if let Some(meant) = meant.filter(|meant| *meant != chain_id) {
        let why = format!("chain {chain_id} instead of {meant}");
        return Err(unusable(endpoint, EndpointFault::WrongChain(why)));
    }
    if let Some(token) = token {
        let code: Bytes = first
            .ask("eth_getCode", &json!([to_abi(token), "latest"]))
            .await
            .map_err(|fault| unusable(endpoint, fault))?;
        if code.is_empty() {
            return Err(DeployError::NoToken(token));
        }
    }
    Ok(Reached { opened, first, chain_id })
}

fn unusable(endpoint: &EndpointUrl, fault: EndpointFault) -> DeployError {
    DeployError::Connect(ConnectError::Unanswered(Unanswered { faults: vec![(endpoint.clone(), fault)] }))
}

struct Deployer {
    endpoints: Arc<Endpoints>,
    sending: Sending,
}

impl Deployer {
    async fn all(
        &self,
        settings: &Settings,
        made: &mut impl FnMut(&'static str, Address),
    ) -> Result<AbiAddress, DeployError> {
        let mut listed: Vec<(&'static str, AbiAddress)> = Vec::new();
        let mut list = |name: &'static str, at: AbiAddress| {
            made(name, from_abi(at));
            listed.push((name, at));
            at
        };
        let token = match settings.token {
            Some(token) => to_abi(token),
            None => self.make(&artifacts::TEST_TOKEN, &[], &[]).await?,
        };
        list("Token", token);
        let randomness = list("Randomness", self.beacon(settings).await?);
        let chunk_paths = list("ChunkPaths", self.make(&artifacts::BLAKE3_PATHS, &[], &[]).await?);
        // Not listed: the market's code says where they are.
        let libraries = [
            ("Agreements", self.make(&artifacts::AGREEMENTS, &[], &[]).await?),
            ("Possession", self.make(&artifacts::POSSESSION, &[], &[]).await?),
        ];
        let arguments = market::StorageMarket::constructorCall {
            p: market::StorageMarket::Parameters {
                token,
                randomness,
                chunkPaths: chunk_paths,
                challenges: settings.market.challenges,
                slashEpochs: settings.market.slash_epochs,
                stakeEpochs: settings.market.stake_epochs,
                missesMax: settings.market.misses_max,
                noticeEpochs: settings.market.notice_epochs,
                bountyBasisPoints: settings.market.bounty_basis_points,
                questionBond: settings.market.question_bond.0,
            },
        };
        let market = self.make(&artifacts::STORAGE_MARKET, &libraries, &arguments.abi_encode()).await?;
        list("StorageMarket", market);
        // The market makes its registry itself.
        list("ProviderRegistry", self.registry_of(market).await?);
        let arguments = channels::RetrievalChannels::constructorCall {
            token_: token,
            exitSeconds_: settings.exit_seconds,
        };
        let channels = self.make(&artifacts::RETRIEVAL_CHANNELS, &[], &arguments.abi_encode()).await?;
        list("RetrievalChannels", channels);
        list("DatasetRegistry", self.make(&artifacts::DATASET_REGISTRY, &[], &[]).await?);
        list("AuditAnchor", self.make(&artifacts::AUDIT_ANCHOR, &[], &[]).await?);
        let (names, contracts) = listed.into_iter().map(|(name, at)| (name.to_owned(), at)).unzip();
        let herald_ = to_abi(self.sending.address);
        let arguments = directory::Directory::constructorCall { herald_, names, contracts };
        let directory = self.make(&artifacts::DIRECTORY, &[], &arguments.abi_encode()).await?;
        made("Directory", from_abi(directory));
        Ok(directory)
    }

    async fn beacon(&self, settings: &Settings) -> Result<AbiAddress, DeployError> {
        match settings.beacon {
            Beacon::Embedded => {
                let arguments = beacon::EmbeddedBeacon::constructorCall {
                    genesis_: settings.genesis,
                    epochSeconds_: settings.epoch_seconds,
                    blocksMin_: settings.blocks_min,
                };
                self.make(&artifacts::EMBEDDED_BEACON, &[], &arguments.abi_encode()).await
            }
            Beacon::Blockhash { delay_blocks } => {
                let arguments = blockhash_beacon::BlockhashBeacon::constructorCall {
                    genesis_: settings.genesis,
                    epochSeconds_: settings.epoch_seconds,
                    delay_: delay_blocks,
                    blocksMin_: settings.blocks_min,
                };
                self.make(&artifacts::BLOCKHASH_BEACON, &[], &arguments.abi_encode()).await
            }
        }
    }

    async fn make(
        &self,
        artifact: &'static Artifact,
        libraries: &[(&str, AbiAddress)],
        arguments: &[u8],
    ) -> Result<AbiAddress, DeployError> {
        let contract = artifact.name;
        let code = Bytes::from(artifact.creation_code(libraries, arguments));
        let receipt = self
            .sending
            .send(contract, TxKind::Create, 0, code, Twice::Harmless)
            .await
            .map_err(|why| DeployError::Send { contract, why })?;
        receipt.contract_address.ok_or(DeployError::NoAddress { contract })
    }

    async fn registry_of(&self, market: AbiAddress) -> Result<AbiAddress, DeployError> {
        let contract = "ProviderRegistry";
        let data = Bytes::from(market::StorageMarket::registryCall {}.abi_encode());
        let question = json!([{ "to": market, "data": data }, "latest"]);
        let answer: Bytes = self
            .endpoints
            .ask("eth_call", question)
            .await
            .map_err(|unanswered| DeployError::Send { contract, why: SendError::Unanswered(unanswered) })?;
        market::StorageMarket::registryCall::abi_decode_returns(&answer)
            .map_err(|_| DeployError::NoAddress { contract })
    }
}

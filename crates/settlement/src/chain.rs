//! What the chain says about a deployment.

use crate::convert::{from_abi, to_abi};
use crate::deployment::{Deployment, DeploymentError};
use crate::endpoints::{EndpointPolicy, EndpointStatus, Endpoints, Expected, Unanswered, chain_id_of};
use crate::refusal::Refusal;
use crate::rpc::{Block, Endpoint, EndpointFault, EndpointUrl};
use alloy_primitives::{Bytes, U256};
use alloy_sol_types::SolCall;
use seedbank_agreement::{Address, Epoch};
use seedbank_formats::Timestamp;
use serde_json::json;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Where the chain is and which contracts are meant.
#[derive(Debug, Clone)]
pub struct ChainConfig {
    /// In order of preference.
    pub endpoints: Vec<EndpointUrl>,
    /// The deployment's directory.
    pub directory: Address,
    /// The chain's id, if it is known: then an endpoint of another chain can't be taken for the right one whatever it shows.
    pub chain_id: Option<u64>,
    /// How endpoints are dealt with.
    pub policy: EndpointPolicy,
}

/// Why there is no connection to a deployment.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Configure at least one.
    #[error("no endpoint of a chain is configured")]
    NoEndpoint,
    /// The endpoint can't be used on this system, whatever it answers.
    #[error("{url} can't be used")]
    Unusable {
        /// Which one.
        url: EndpointUrl,
        /// Why.
        #[source]
        why: std::io::Error,
    },
    /// Try again later, or configure others.
    #[error(transparent)]
    Unanswered(Unanswered),
    /// Endpoints answer, and none has this deployment: correct the address, or the endpoints.
    #[error(transparent)]
    Deployment(DeploymentError),
}

/// Why a question to the chain has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Try again later.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// There is no answer as things are.
    #[error("{0}")]
    Refused(Refusal),
    /// An endpoint ran other code than ours: it is broken, or lies.
    #[error("an endpoint's answer to {question} can't be read")]
    Unreadable {
        /// The function that was called.
        question: &'static str,
    },
}

/// The newest block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: [u8; 32],
    /// Its time. A chain that stands still shows by this.
    pub time: Timestamp,
    /// The epoch that it lies in; None before the deployment's first one.
    pub epoch: Option<Epoch>,
}

/// A deployment on a chain, through one or more endpoints. Clones share connections.
#[derive(Clone)]
pub struct Chain {
    endpoints: Arc<Endpoints>,
    deployment: Arc<Deployment>,
}

impl Chain {
    /// Finds the deployment and checks it. Endpoints that are down or wrong do no harm as long as one is right.
    ///
    /// If they show different deployments, most of them decide, and among equally many the one configured first.
    ///
    /// # Errors
    /// [`ConnectError`]
    pub async fn connect(config: &ChainConfig) -> Result<Self, ConnectError> {
        let endpoints = open(&config.endpoints, config.policy)?;
        let (deployment, right) = find(&endpoints, config).await?;
        let deployment = Arc::new(deployment);
        let expected = Expected { chain_id: deployment.chain_id, deployment: Some(Arc::clone(&deployment)) };
        let endpoints = Arc::new(Endpoints::new(endpoints, &right, expected, config.policy));
        Ok(Self { endpoints, deployment })
    }

    /// Its contracts and parameters.
    #[must_use]
    pub fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// How each endpoint stands.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        self.endpoints.status()
    }

    pub(crate) fn endpoints_arc(&self) -> Arc<Endpoints> {
        Arc::clone(&self.endpoints)
    }

    /// The newest block.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn head(&self) -> Result<Head, ReadError> {
        let block: Block = self.endpoints.ask("eth_getBlockByNumber", json!(["latest", false])).await?;
        let time = Timestamp(block.timestamp);
        Ok(Head { number: block.number, hash: block.hash.0, time, epoch: self.deployment.epoch_at(time) })
    }

    /// The hash of the block at a height; None if the endpoint has none there. Another hash than before: the chain was reorganised.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn block_hash(&self, number: u64) -> Result<Option<[u8; 32]>, ReadError> {
        let question = json!([format!("{number:#x}"), false]);
        let block: Option<Block> = self.endpoints.ask("eth_getBlockByNumber", question).await?;
        Ok(block.map(|block| block.hash.0))
    }

    /// Asks another endpoint first from now on: the one at this place of the configuration, then the others in their order. Whoever takes
    /// turns with this depends on no single endpoint's word.
    pub fn ask_first(&self, place: usize) {
        self.endpoints.ask_first(place);
    }

    /// What a unit of gas costs at the moment, in wei.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn gas_price(&self) -> Result<u128, ReadError> {
        let wei: U256 = self.endpoints.ask("eth_gasPrice", json!([])).await?;
        Ok(wei.saturating_to())
    }

    /// How much of the chain's own coin an account has, in wei.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn coin(&self, account: Address) -> Result<u128, ReadError> {
        let wei: U256 = self.endpoints.ask("eth_getBalance", json!([to_abi(account), "latest"])).await?;
        Ok(wei.saturating_to())
    }

    /// Calls a function that changes nothing, as things are after the newest block.
    pub(crate) async fn read<C: SolCall>(&self, contract: Address, call: C) -> Result<C::Return, ReadError> {
        let data = Bytes::from(call.abi_encode());
        let question = json!([{ "to": to_abi(contract), "data": data }, "latest"]);
        let answer: Bytes = match self.endpoints.ask("eth_call", question).await {
            Ok(answer) => answer,
            Err(unanswered) => {
                return Err(match unanswered.refusal().and_then(Refusal::of) {
                    Some(refusal) => ReadError::Refused(refusal),
                    None => ReadError::Unanswered(unanswered),
                });
            }
        };
        C::abi_decode_returns(&answer).map_err(|_| ReadError::Unreadable { question: C::SIGNATURE })
    }
}

/// Opens endpoints without asking them anything.
pub(crate) fn open(urls: &[EndpointUrl], policy: EndpointPolicy) -> Result<Vec<Arc<Endpoint>>, ConnectError> {
    if urls.is_empty() {
        return Err(ConnectError::NoEndpoint);
    }
    urls.iter()
        .map(|url| match Endpoint::new(url.clone(), policy.deadline) {
            Ok(endpoint) => Ok(Arc::new(endpoint)),
            Err(why) => Err(ConnectError::Unusable { url: url.clone(), why }),
        })
        .collect()
}

/// Asks all endpoints for the deployment, and takes what most of them show; with the numbers of those that show it.
async fn find(
    endpoints: &[Arc<Endpoint>],
    config: &ChainConfig,
) -> Result<(Deployment, Vec<usize>), ConnectError> {
    let mut asked = JoinSet::new();
    for (at, endpoint) in endpoints.iter().enumerate() {
        let endpoint = Arc::clone(endpoint);
        let (directory, expected) = (config.directory, config.chain_id);
        asked.spawn(async move { (at, look(&endpoint, directory, expected).await) });
    }
    let mut answers: Vec<_> = asked.join_all().await;
    answers.sort_by_key(|(at, _)| *at);
    let (mut found, mut faults, mut wrong) = (Vec::new(), Vec::new(), None);
    for (at, answer) in answers {
        match answer {
            Ok(deployment) => found.push((at, deployment)),
            Err(DeploymentError::Endpoint(fault)) => faults.push((endpoints[at].url().clone(), fault)),
            Err(error) => wrong = wrong.or(Some(error)),
        }
    }
    let showing = |one: &Deployment| -> Vec<usize> {
        found.iter().filter(|(_, other)| other == one).map(|(at, _)| *at).collect()
    };
    // `max_by_key` takes the last of equals, so from the end: the one configured first.
    match found.iter().rev().max_by_key(|(_, deployment)| showing(deployment).len()) {
        Some((_, deployment)) => Ok((deployment.clone(), showing(deployment))),
        None => Err(match wrong {
            Some(error) => ConnectError::Deployment(error),
            None => ConnectError::Unanswered(Unanswered { faults }),
        }),
    }
}

async fn look(
    endpoint: &Endpoint,
    directory: Address,
    expected: Option<u64>,
) -> Result<Deployment, DeploymentError> {
    let chain_id = chain_id_of(endpoint).await.map_err(DeploymentError::Endpoint)?;
    if let Some(expected) = expected.filter(|expected| *expected != chain_id) {
        let why = format!("chain {chain_id} instead of {expected}");
        return Err(DeploymentError::Endpoint(EndpointFault::WrongChain(why)));
    }
    Deployment::read(endpoint, chain_id, directory).await
}

/// What a page of addresses is.
pub(crate) fn addresses(found: Vec<alloy_primitives::Address>) -> Vec<Address> {
    found.into_iter().map(from_abi).collect()
}

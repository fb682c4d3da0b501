//! One set of contracts on one chain: found from the address of its directory, and believed only as far as its code goes.
//!
//! Every contract of ours must have exactly the code that this program was built with; what its constructor decided is read from it. So
//! whoever names a directory can choose parameters, but not other rules.

use crate::abi::{beacon, channels, directory, market, token};
use crate::artifacts::{self, Artifact};
use crate::convert::{from_abi, to_abi};
use crate::refusal::Refusal;
use crate::rpc::{Endpoint, EndpointFault};
use alloy_primitives::{Address as AbiAddress, Bytes};
use alloy_sol_types::SolCall;
use seedbank_agreement::epoch::EpochClock;
use seedbank_agreement::market::Parameters as MarketParameters;
use seedbank_agreement::{Address, Amount, Domain, Epoch};
use seedbank_formats::Timestamp;
use serde_json::json;

/// Contracts that belong together, and what they were made with.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Deployment {
    /// The chain's id.
    pub chain_id: u64,
    /// Where all others were found.
    pub directory: Address,
    /// The one token.
    pub token: Address,
    /// `ProviderRegistry`.
    pub registry: Address,
    /// `StorageMarket`.
    pub market: Address,
    /// Where seeds come from.
    pub randomness: Address,
    /// `Blake3Paths`.
    pub chunk_paths: Address,
    /// `RetrievalChannels`.
    pub channels: Address,
    /// `DatasetRegistry`.
    pub datasets: Address,
    /// `AuditAnchor`.
    pub anchor: Address,
    /// What was decided for good.
    pub parameters: Parameters,
}

/// What a deployment decided for good.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Parameters {
    /// When epoch 0 begins, in unix seconds.
    pub genesis: u64,
    /// Length of an epoch.
    pub epoch_seconds: u32,
    /// What the market decided.
    #[serde(flatten)]
    pub market: MarketParameters,
    /// Time between the announcement of a channel's exit and the exit.
    pub exit_seconds: u64,
    /// What the token calls itself; nobody's promise. "units" if it has no name: ERC-20 does not ask for one.
    pub token_symbol: String,
    /// Digits behind the point of one token; 0 if it does not say.
    pub token_decimals: u8,
}

/// What each chunk adds to a question's answer, as `forge test` measures it with 21 of them in agreements of 64 GiB.
const ANSWER_GAS_PER_CHUNK: u64 = 258_430;

impl Parameters {
    /// About how much gas an answer to a question takes.
    #[must_use]
    pub fn answer_gas(&self) -> u64 {
        u64::from(self.market.challenges) * ANSWER_GAS_PER_CHUNK
    }
}

/// Why a directory leads to no deployment.
#[derive(Debug, thiserror::Error)]
pub enum DeploymentError {
    /// Ask another endpoint, or later.
    #[error(transparent)]
    Endpoint(EndpointFault),
    /// Correct the address, or the chain.
    #[error("there is no directory of Seedbank contracts at {0} on this chain")]
    NoDirectory(Address),
    /// It was deployed with another version of the contracts, or is a fraud: use the program that fits, and not this directory.
    #[error("the {contract} at {at} is not the contract that this program knows")]
    OtherCode {
        /// Which one.
        contract: &'static str,
        /// Where.
        at: Address,
    },
    /// The same.
    #[error("the directory lists no {0}")]
    Missing(&'static str),
    /// Its contracts belong to different deployments.
    #[error("the directory's contracts do not belong together: {0}")]
    Mixed(&'static str),
}

impl Deployment {
    /// The clock that all contracts share.
    #[must_use]
    pub fn clock(&self) -> EpochClock {
        EpochClock {
            genesis: Timestamp(self.parameters.genesis),
            epoch_seconds: self.parameters.epoch_seconds,
        }
    }

    /// The epoch that a time lies in; None before the first.
    #[must_use]
    pub fn epoch_at(&self, time: Timestamp) -> Option<Epoch> {
        self.clock().at(time)
    }

    /// Where proposals and revisions are signed for.
    #[must_use]
    pub fn market_domain(&self) -> Domain {
        Domain { chain_id: self.chain_id, contract: self.market }
    }

    /// Where vouchers are signed for.
    #[must_use]
    pub fn channels_domain(&self) -> Domain {
        Domain { chain_id: self.chain_id, contract: self.channels }
    }

    /// Where publications are signed for.
    #[must_use]
    pub fn datasets_domain(&self) -> Domain {
        Domain { chain_id: self.chain_id, contract: self.datasets }
    }

    /// Reads it through one endpoint, whose word it is.
    pub(crate) async fn read(
        endpoint: &Endpoint,
        chain_id: u64,
        directory: Address,
    ) -> Result<Self, DeploymentError> {
        let at = to_abi(directory);
        if code(endpoint, at).await?.is_empty() {
            return Err(DeploymentError::NoDirectory(directory));
        }
        expect(endpoint, at, [&artifacts::DIRECTORY]).await?;
        let listed = read(endpoint, at, directory::Directory::listCall {}).await?;
        let find = |contract: &'static str| {
            let entry = listed.iter().find(|entry| entry.name == contract);
            entry.map(|entry| entry.at).ok_or(DeploymentError::Missing(contract))
        };
        let market = find("StorageMarket")?;
        let channels = find("RetrievalChannels")?;
        let datasets = find("DatasetRegistry")?;
        let anchor = find("AuditAnchor")?;
        let (market_code, ..) = tokio::try_join!(
            expect(endpoint, market, [&artifacts::STORAGE_MARKET]),
            expect(endpoint, channels, [&artifacts::RETRIEVAL_CHANNELS]),
            expect(endpoint, datasets, [&artifacts::DATASET_REGISTRY]),
            expect(endpoint, anchor, [&artifacts::AUDIT_ANCHOR]),
        )?;
        for (library, at) in artifacts::STORAGE_MARKET.libraries(&market_code) {
            let artifact = artifacts::library(library).ok_or(DeploymentError::Missing("library"))?;
            expect(endpoint, at, [artifact]).await?;
        }
        use market::StorageMarket as M;
        let (token, registry, randomness, chunk_paths) = tokio::try_join!(
            read(endpoint, market, M::tokenCall {}),
            read(endpoint, market, M::registryCall {}),
            read(endpoint, market, M::randomnessCall {}),
            read(endpoint, market, M::chunkPathsCall {}),
        )?;
        tokio::try_join!(
            expect(endpoint, registry, [&artifacts::PROVIDER_REGISTRY]),
            expect(endpoint, randomness, [&artifacts::EMBEDDED_BEACON, &artifacts::BLOCKHASH_BEACON]),
            expect(endpoint, chunk_paths, [&artifacts::BLAKE3_PATHS]),
        )?;
        use beacon::EmbeddedBeacon as B;
        let (clock, channels_token) = tokio::try_join!(
            async {
                tokio::try_join!(
                    read(endpoint, randomness, B::genesisCall {}),
                    read(endpoint, randomness, B::epochSecondsCall {}),
                )
            },
            read(endpoint, channels, channels::RetrievalChannels::tokenCall {}),
        )?;
        if channels_token != token {
            return Err(DeploymentError::Mixed("channels and market have different tokens"));
        }
        let parameters = parameters(endpoint, market, channels, token).await?;
        if clock != (parameters.genesis, parameters.epoch_seconds) {
            return Err(DeploymentError::Mixed("market and randomness have different clocks"));
        }
        Ok(Self {
            chain_id,
            directory,
            token: from_abi(token),
            registry: from_abi(registry),
            market: from_abi(market),
            randomness: from_abi(randomness),
            chunk_paths: from_abi(chunk_paths),
            channels: from_abi(channels),
            datasets: from_abi(datasets),
            anchor: from_abi(anchor),
            parameters,
        })
    }
}

async fn parameters(
    endpoint: &Endpoint,
    market: AbiAddress,
    channels: AbiAddress,
    token: AbiAddress,
) -> Result<Parameters, DeploymentError> {
    use channels::RetrievalChannels as C;
    use market::StorageMarket as M;
    use token::Token as T;
    let (genesis, epoch_seconds, challenges, slash_epochs, stake_epochs, misses_max, notice_epochs) = tokio::try_join!(
        read(endpoint, market, M::genesisCall {}),
        read(endpoint, market, M::epochSecondsCall {}),
        read(endpoint, market, M::challengesCall {}),
        read(endpoint, market, M::slashEpochsCall {}),
        read(endpoint, market, M::stakeEpochsCall {}),
        read(endpoint, market, M::missesMaxCall {}),
        read(endpoint, market, M::noticeEpochsCall {}),
    )?;
    let (bounty_basis_points, question_bond, exit_seconds) = tokio::try_join!(
        read(endpoint, market, M::bountyBasisPointsCall {}),
        read(endpoint, market, M::questionBondCall {}),
        read(endpoint, channels, C::exitSecondsCall {}),
    )?;
    let (token_symbol, token_decimals) =
        tokio::try_join!(read_optional(endpoint, token, T::symbolCall {}), decimals(endpoint, token))
            .map_err(DeploymentError::Endpoint)?;
    Ok(Parameters {
        genesis,
        epoch_seconds,
        market: MarketParameters {
            challenges,
            slash_epochs,
            stake_epochs,
            misses_max,
            notice_epochs,
            bounty_basis_points,
            question_bond: Amount(question_bond),
        },
        exit_seconds,
        token_symbol: token_symbol.unwrap_or_else(|| "units".to_owned()),
        token_decimals: token_decimals.unwrap_or(0),
    })
}

/// Digits behind the point of one token, if it says so.
pub(crate) async fn decimals(endpoint: &Endpoint, token: AbiAddress) -> Result<Option<u8>, EndpointFault> {
    read_optional(endpoint, token, token::Token::decimalsCall {}).await
}

async fn code(endpoint: &Endpoint, at: AbiAddress) -> Result<Bytes, DeploymentError> {
    endpoint.ask("eth_getCode", &json!([at, "latest"])).await.map_err(DeploymentError::Endpoint)
}

async fn expect<const N: usize>(
    endpoint: &Endpoint,
    at: AbiAddress,
    one_of: [&'static Artifact; N],
) -> Result<Bytes, DeploymentError> {
    let code = code(endpoint, at).await?;
    if one_of.iter().any(|artifact| artifact.is(&code)) {
        return Ok(code);
    }
    let contract = one_of.first().map_or("contract", |artifact| artifact.name);
    Err(DeploymentError::OtherCode { contract, at: from_abi(at) })
}

async fn read<C: SolCall>(
    endpoint: &Endpoint,
    at: AbiAddress,
    call: C,
) -> Result<C::Return, DeploymentError> {
    let answer = ask(endpoint, at, &call).await.map_err(DeploymentError::Endpoint)?;
    C::abi_decode_returns(&answer).map_err(|error| {
        // The code is ours, so this endpoint did not run it.
        DeploymentError::Endpoint(EndpointFault::Garbled(format!("{}: {error}", C::SIGNATURE)))
    })
}

/// Reads what a contract of somebody else's need not have, or may have in another form.
async fn read_optional<C: SolCall>(
    endpoint: &Endpoint,
    at: AbiAddress,
    call: C,
) -> Result<Option<C::Return>, EndpointFault> {
    match ask(endpoint, at, &call).await {
        Ok(answer) => Ok(C::abi_decode_returns(&answer).ok()),
        Err(EndpointFault::Refused(error)) if Refusal::of(&error).is_some() => Ok(None),
        Err(fault) => Err(fault),
    }
}

async fn ask<C: SolCall>(endpoint: &Endpoint, at: AbiAddress, call: &C) -> Result<Bytes, EndpointFault> {
    let question = json!([{ "to": at, "data": Bytes::from(call.abi_encode()) }, "latest"]);
    endpoint.ask("eth_call", &question).await
}

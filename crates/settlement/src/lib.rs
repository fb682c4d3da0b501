//! The only crate that knows the EVM: contracts, what they say, what happens in them, and transactions to them.
//!
//! - [`Deployment`]: the contracts that belong together, found from one address and recognised by their code; [`deploy`] makes one.
//! - [`Chain`]: what the contracts say, through one or more endpoints of any EVM chain.
//! - [`Wallet`]: a key that sends transactions, one at a time, and waits for them.
//! - [`Events`]: what happened, in order, and taken back where the chain reorganised.
//!
//! Everything else in Seedbank speaks in the types of `seedbank-agreement`; no ABI, hash of a transaction's bytes or JSON-RPC leaves this
//! crate. What is decided from the answers (when to prove, whom to pay, what to give up) is not here.
//!
//! It stands on alloy's types and codecs, and has its own client and sender: failing over between endpoints, one nonce at a time, a cap
//! on the price and errors by what the caller does next are what this crate is for, and the general client would bring a hundred
//! crates to be kept from doing them its way.

mod abi;
mod anchor;
mod artifacts;
mod chain;
mod channels;
mod convert;
mod datasets;
mod deploy;
mod deployment;
mod endpoints;
mod events;
mod market;
mod randomness;
mod refusal;
mod registry;
mod rpc;
mod token;
mod transaction;
mod wallet;

pub use anchor::AnchoredHead;
pub use chain::{Chain, ChainConfig, ConnectError, Head, ReadError};
pub use channels::{Channel, ChannelCalls, ChannelReads, Exit, Lane, Redeemed, Redemption, VoucherSkip};
pub use datasets::{DatasetCalls, DatasetEntry, DatasetReads, name_id};
pub use deploy::{Beacon, DeployError, Settings, deploy, one_token};
pub use deployment::{Deployment, DeploymentError, Parameters};
pub use endpoints::{EndpointPolicy, EndpointStatus, Unanswered};
pub use events::{
    ChannelEvent, Cursor, DatasetEvent, Event, EventBatch, EventItem, EventPolicy, Events, EventsError,
    Happened, MarketEvent, RegistryEvent,
};
pub use market::{
    Activation, Agreement, Authority, Challenge, MarketCalls, MarketReads, Outcome, Proof, ProofSet,
    Question, Release, Revisions, Skip, Standing, Terms,
};
pub use randomness::{RandomnessCalls, RandomnessReads};
pub use refusal::Refusal;
pub use registry::{ProviderEntry, RegistryCalls, RegistryReads};
pub use rpc::{EndpointFault, EndpointUrl, EndpointUrlError, RpcError};
pub use seedbank_agreement::market::Parameters as MarketParameters;
pub use token::{TokenCalls, TokenReads};
pub use wallet::{Mined, SendError, SendPolicy, Wallet, WalletStatus};

//! The embedded chain: an EVM, one sequencer, a database in one file, and Ethereum's JSON-RPC.
//!
//! It exists so that a local or private network has its contracts without anybody else's chain, and so that a test of
//! money runs in seconds. Every transaction is a block of its own, durable before its sender hears of it. Gas is free by
//! default. What the one sequencer is trusted for, and what nobody has to trust it with, stands in `docs/chain.md`.
//!
//! What it is not: a consensus, an archive (the past state of the last blocks only), a wallet (it holds no accounts' keys).

mod block;
mod changes;
mod clock;
mod epoch_call;
mod execution;
mod follower;
mod genesis;
mod header;
mod key_file;
mod leader;
mod limits;
pub mod load;
mod node;
mod recent;
mod remote_clock;
mod rpc;
mod sequencer;
mod serve;
mod shared;
mod state;
mod store;
mod transaction;
mod waiting;

pub use clock::ClockControl;
pub use epoch_call::EpochCall;
pub use follower::{BeginError, Divergence};
pub use genesis::{BLOCK_GAS_DEFAULT, CHAIN_ID_DEFAULT, Genesis, GenesisOptions, Rules};
pub use header::{HeaderError, SignedHeader};
pub use key_file::{KEY_FILE, KeyError};
pub use leader::AskLeaderError;
pub use limits::Limits;
pub use node::{Config, Following, Node, OpenError, Stopped};
pub use recent::STATES_KEPT;
pub use remote_clock::RemoteClock;
pub use store::{DATABASE_FILE, StoreError};
pub use transaction::TRANSACTION_BYTES_MAX;
pub use waiting::WAITING_PER_SENDER_MAX;

//! Chains to test against: nodes whose clock a test moves, and endpoints that misbehave as a test says.
//!
//! Only with the feature `chain`, which brings an EVM and the contracts' bindings along.

// Everything here is part of a test.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

mod nodes;
mod proxy;

pub use nodes::{Node, config, key, policy, post, quiet};
pub use proxy::{Act, Proxy};

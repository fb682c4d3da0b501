//! The crate against real nodes, and against ones that misbehave.
//!
//! Every story of contracts and transactions runs on the embedded chain, and where `anvil` is found (`npm ci` in `contracts`, or on
//! the path), on `anvil --hardfork berlin` as well. What is about endpoints is the same with either node behind them, and what only
//! one of them can do (reorganise, charge for gas, keep a pool) runs there.

#![allow(clippy::unwrap_used)]

mod deployments;
mod endpoints;
mod following;
mod lifecycle;
mod nodes;
mod parties;
mod sending;

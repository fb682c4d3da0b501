//! The crate against real nodes, and against ones that misbehave.
//!
//! Every story runs on the embedded chain, and where `anvil` is found (`npm ci` in `contracts`, or on the
//! path), on `anvil --hardfork berlin` as well.

#![allow(clippy::unwrap_used)]

mod deployments;
mod endpoints;
mod following;
mod lifecycle;
mod nodes;
mod parties;
mod proxy;
mod sending;

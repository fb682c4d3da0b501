//! The chain as its callers meet it: a node on a port of the system's choice, asked over HTTP.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod account;
mod beside_anvil;
mod contract;
mod following;
mod harness;
mod hostile;
mod killed;
mod methods;
mod sending;
mod time;
mod tools;

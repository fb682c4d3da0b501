//! The chain as its callers meet it: a node on a port of the system's choice, asked over HTTP.

mod account;
mod contract;
mod following;
mod harness;
mod hostile;
mod killed;
mod methods;
mod sending;
mod time;

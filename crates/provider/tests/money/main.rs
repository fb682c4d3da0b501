//! A provider that is paid, in this process, on a chain in this process whose clock the tests move. Every port is whatever is
//! free, and nothing waits but for what the chain or the books say.

// Helpers outside test functions are tests as well.
#![allow(clippy::unwrap_used)]

mod agreeing;
mod crash;
mod earning;
mod endpoints;
mod gas;
mod many;
mod mistaken;
mod operator;
mod reading;
mod reorganised;
mod sequencer;
#[path = "../daemon/support.rs"]
#[allow(dead_code, reason = "shared with the tests of the daemon")]
mod support;
mod world;

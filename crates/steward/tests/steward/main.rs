//! The steward in this process: its socket and its end, and its steps against real providers.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod daemon;
mod network;
mod orphans;
mod upkeep;

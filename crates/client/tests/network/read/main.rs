//! Reading from providers that are slow, gone, rotten or lying, and what owners wrote who write nonsense.
//!
//! Providers keep everything in memory and misbehave as they are told, over real sockets all the same.

mod bulk;
mod cancelled;
mod damage;
mod healthy;
mod hostile_owner;
mod liars;
mod losses;
mod metadata;
pub(crate) mod provider;
mod real;
pub(crate) mod world;
mod writer;

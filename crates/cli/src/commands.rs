//! What each command does, one file a noun.

pub(crate) mod agreement;
pub(crate) mod bench;
pub(crate) mod chain;
pub(crate) mod chain_deploy;
pub(crate) mod chain_use;
pub(crate) mod dataset;
pub(crate) mod demo;
pub(crate) mod key;
pub(crate) mod network;
pub(crate) mod provider;
pub(crate) mod steward;
pub(crate) mod wallet;

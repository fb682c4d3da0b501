//! What a home finds and says in a chain's registries: who the providers are, and what its datasets are called.
//!
//! The registries hold claims. A provider's entry counts when the key in it gave its word for the wallet that wrote it, and
//! is dialled by that key, so nobody can pass for another. A dataset's entry counts when the head that providers give is
//! signed by the key that gave its word for the owner's wallet. What nobody gave their word for is passed over.
//!
//! Nothing here is needed to read what is known: without the chain, homes go on with what their books say.

pub mod discovery;
pub mod lookup;
pub mod names;
pub mod profile;

use crate::pay::SettledChain;
use seedbank_formats::keys::SigningKey;
use std::fmt;
use std::sync::Arc;

/// Which of the owner's datasets the chain is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Naming {
    /// Public ones under their names, private ones under names that only who holds their key can tell.
    #[default]
    All,
    /// Public ones only.
    Public,
    /// None.
    Nothing,
}

/// A chain's registries, as one owner uses them.
pub struct Registries {
    chain: Arc<SettledChain>,
    owner: SigningKey,
    naming: Naming,
}

impl Registries {
    /// Asks `chain`, and names the datasets of `owner` there by its wallet.
    #[must_use]
    pub fn new(chain: Arc<SettledChain>, owner: SigningKey, naming: Naming) -> Registries {
        Registries { chain, owner, naming }
    }

    /// The chain.
    #[must_use]
    pub fn chain(&self) -> &Arc<SettledChain> {
        &self.chain
    }
}

impl fmt::Debug for Registries {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Registries(owner {}, naming {:?})", self.owner.public(), self.naming)
    }
}

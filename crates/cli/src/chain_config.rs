//! `network.toml` of a home: the chain on which it pays, and how much it may. A home without the file pays nobody.

use crate::keystore::replace_private;
use seedbank_agreement::price::Prices;
use seedbank_agreement::{Address, Amount};
use seedbank_client::pay::Limits;
use seedbank_client::pay::budget::TERM_EPOCHS_DEFAULT;
use seedbank_client::registry::Naming;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// More endpoints than anybody has.
const ENDPOINTS_MAX: usize = 16;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChainConfigError {
    /// Correct the file, or write it anew with `seedbank chain use`.
    #[error("{} can't be read; correct it, or write it anew with `seedbank chain use`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: toml::de::Error,
    },
    /// Name one at least.
    #[error("{} names no endpoint, or more than {ENDPOINTS_MAX}; see `seedbank chain use --rpc`", .0.display())]
    Endpoints(PathBuf),
    /// Look at the disk.
    #[error("can't use {}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChainConfig {
    /// Where the chain is.
    pub(crate) chain: ChainSection,
    /// What may be paid.
    #[serde(default)]
    pub(crate) budget: Budget,
}

/// `[chain]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChainSection {
    /// JSON-RPC endpoints, the preferred first.
    pub(crate) rpc: Vec<String>,
    /// The contract that lists all others.
    pub(crate) directory: Address,
    /// Which datasets the chain is told of.
    #[serde(default)]
    pub(crate) naming: Naming,
}

/// `[budget]`, in token units. What is not said is zero: nothing is paid that nobody allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Budget {
    /// The highest rent for a GiB and month.
    pub(crate) rent_per_gib_month_max: Amount,
    /// The highest price of a GiB read.
    pub(crate) egress_per_gib_max: Amount,
    /// For rent and reads together, in 30 days.
    pub(crate) per_month: Amount,
    /// Epochs for which agreements are made.
    pub(crate) term_epochs: u32,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget {
            rent_per_gib_month_max: Amount::ZERO,
            egress_per_gib_max: Amount::ZERO,
            per_month: Amount::ZERO,
            term_epochs: TERM_EPOCHS_DEFAULT,
        }
    }
}

impl Budget {
    /// As the client takes it.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            ceiling: Prices {
                rent_per_gib_month: self.rent_per_gib_month_max,
                egress_per_gib: self.egress_per_gib_max,
            },
            per_month: self.per_month,
            term_epochs: self.term_epochs.max(1),
        }
    }
}

impl ChainConfig {
    /// Reads a home's file; `None` when it has none.
    ///
    /// # Errors
    /// [`ChainConfigError`].
    pub(crate) fn load(path: &Path) -> Result<Option<ChainConfig>, ChainConfigError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ChainConfigError::Disk { path: path.to_owned(), source }),
        };
        let config: ChainConfig = toml::from_str(&text)
            .map_err(|source| ChainConfigError::Unreadable { path: path.to_owned(), source })?;
        if config.chain.rpc.is_empty() || config.chain.rpc.len() > ENDPOINTS_MAX {
            return Err(ChainConfigError::Endpoints(path.to_owned()));
        }
        Ok(Some(config))
    }

    /// Replaces a home's file durably.
    ///
    /// # Errors
    /// [`ChainConfigError::Disk`].
    pub(crate) fn save(&self, path: &Path) -> Result<(), ChainConfigError> {
        let text = toml::to_string(self).expect("plain tables, texts and numbers are TOML");
        replace_private(path, text.as_bytes())
            .map_err(|source| ChainConfigError::Disk { path: path.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, ChainConfig, ChainConfigError, ChainSection};
    use seedbank_agreement::{Address, Amount};
    use seedbank_client::registry::Naming;

    fn config() -> ChainConfig {
        ChainConfig {
            chain: ChainSection {
                rpc: vec!["http://127.0.0.1:8545".to_owned()],
                directory: Address([7; 20]),
                naming: Naming::Public,
            },
            budget: Budget { per_month: Amount(u128::MAX), ..Budget::default() },
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("network.toml");
        assert_eq!(ChainConfig::load(&path).unwrap(), None, "a home without a chain");
        config().save(&path).unwrap();
        assert_eq!(ChainConfig::load(&path).unwrap(), Some(config()));
    }

    #[test]
    fn what_nobody_allowed_is_zero() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("network.toml");
        let text = format!("[chain]\nrpc = [\"http://x\"]\ndirectory = \"{}\"\n", Address([7; 20]));
        std::fs::write(&path, text).unwrap();
        let limits = ChainConfig::load(&path).unwrap().unwrap().budget.limits();
        assert_eq!((limits.per_month, limits.ceiling.rent_per_gib_month), (Amount::ZERO, Amount::ZERO));
        assert_eq!(limits.term_epochs, 30);
        assert_eq!(ChainConfig::load(&path).unwrap().unwrap().chain.naming, Naming::All);
    }

    #[test]
    fn unknown_keys_and_missing_endpoints_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("network.toml");
        std::fs::write(
            &path,
            "[chain]\nrpc = []\ndirectory = \"0x0707070707070707070707070707070707070707\"\n",
        )
        .unwrap();
        assert!(matches!(ChainConfig::load(&path), Err(ChainConfigError::Endpoints(_))));
        std::fs::write(&path, "[chian]\n").unwrap();
        assert!(matches!(ChainConfig::load(&path), Err(ChainConfigError::Unreadable { .. })));
    }
}

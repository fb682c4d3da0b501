//! What the operator decides, in `provider.toml`.
//!
//! The file is read into one struct and checked whole before anything is opened: a daemon that starts runs on a
//! configuration that makes sense. `docs/provider.md` describes every key; a key that is not known is an error, because
//! a misspelt limit would otherwise be no limit.

use crate::byte_size::ByteSize;
use crate::chain_config::{ChainConfig, UncheckedChain, Units};
use seedbank_formats::PublicKey;
use seedbank_protocol::messages::{Prices, TokenUnits};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The configuration's file name in a provider's folder.
pub const CONFIG_FILE: &str = "provider.toml";

/// Longer files are no configuration of ours: a thousand clients take 200 KB.
const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// The protocol's bound on names in `hello`.
const NAME_BYTES_MAX: usize = 64;
/// Fragments have up to 64 MiB: a smaller store would refuse most of them.
const CAPACITY_MIN: ByteSize = ByteSize(16 << 20);
/// The longest proof takes most of this.
const BUFFERS_MIN: ByteSize = ByteSize(16 << 20);
/// A year of trash is a forgotten disk.
const TRASH_GRACE_S_MAX: u64 = 366 * 86_400;

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect to; port 0 for any.
    pub listen: SocketAddr,
    /// Where `/healthz` and `/metrics` are served; port 0 for any.
    pub metrics: SocketAddr,
    /// Who runs the provider.
    pub operator: String,
    /// Where it stands.
    pub region: String,
    /// Bytes that the store may take on its disk.
    pub capacity: ByteSize,
    /// Bytes of the disk that stay free.
    pub reserve: ByteSize,
    /// Seconds for which released fragments stay in trash while space is not short.
    pub trash_grace_s: u64,
    /// How fast stored bytes are read and checked, in bytes per second; 0 for never.
    pub scrub_rate: ByteSize,
    /// What is asked for.
    pub prices: Prices,
    /// What keys that are not in `clients` may do.
    pub strangers: Strangers,
    /// Keys with a quota of their own.
    pub clients: BTreeMap<PublicKey, ByteSize>,
    /// What one client or all together may take of the machine.
    pub limits: Limits,
    /// How it is paid; `None` for one that is not.
    pub chain: Option<ChainConfig>,
}

/// What a provider does with keys that its operator does not list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strangers {
    /// They may read what claims allow them to, and store nothing.
    Refused,
    /// Each may store this much.
    Welcome {
        /// For each key.
        quota: ByteSize,
    },
}

/// What clients may take of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections from one IPv4 address or IPv6 /64.
    pub connections_per_address: usize,
    /// Connections of one key.
    pub connections_per_client: usize,
    /// Handshakes per second from one IPv4 address or IPv6 /64, in the long run.
    pub handshakes_per_second: u32,
    /// Requests of one key at once.
    pub requests_per_client: usize,
    /// Requests per second of one key, in the long run.
    pub requests_per_second: u32,
    /// Memory for the bodies of requests and answers.
    pub buffers: ByteSize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 256,
            connections_per_address: 192,
            connections_per_client: 128,
            handshakes_per_second: 50,
            requests_per_client: 128,
            requests_per_second: 2_000,
            buffers: ByteSize(48 << 20),
        }
    }
}

/// Where clients connect to unless the operator says otherwise.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7410);

/// What stays free on the disk unless the operator says otherwise: room for the journal, for compaction and for the
/// file system itself.
pub const RESERVE_DEFAULT: ByteSize = ByteSize(512 << 20);

/// What each unlisted key may store on an open provider unless the operator says otherwise.
pub const OPEN_QUOTA_DEFAULT: ByteSize = ByteSize(10_000_000_000);

/// Why there is no configuration to run on.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read: check the folder, or prepare one with `provider init`.
    #[error("can't read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The file is not the TOML that it should be, or has a key that nobody knows: correct it.
    #[error("{path} is not a provider's configuration")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        #[source]
        source: toml::de::Error,
    },
    /// A value makes no sense: correct it.
    #[error("{path}: {key} {reason}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Which key.
        key: &'static str,
        /// What is wrong, as the end of a sentence.
        reason: String,
    },
}

/// The file as it was written. Nothing in it may be believed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    #[serde(default = "listen_default")]
    listen: SocketAddr,
    #[serde(default = "metrics_default")]
    metrics: SocketAddr,
    #[serde(default)]
    metrics_beyond_loopback: bool,
    operator: String,
    region: String,
    capacity: ByteSize,
    #[serde(default = "reserve_default")]
    reserve: ByteSize,
    #[serde(default = "trash_grace_default")]
    trash_grace_s: u64,
    #[serde(default = "scrub_rate_default")]
    scrub_rate: ByteSize,
    #[serde(default)]
    open: bool,
    #[serde(default = "open_quota_default")]
    open_quota: ByteSize,
    #[serde(default)]
    prices: UncheckedPrices,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    clients: Vec<UncheckedClient>,
    chain: Option<UncheckedChain>,
}

fn listen_default() -> SocketAddr {
    LISTEN_DEFAULT
}

fn metrics_default() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}

fn reserve_default() -> ByteSize {
    RESERVE_DEFAULT
}

fn trash_grace_default() -> u64 {
    7 * 86_400
}

/// A terabyte in three days, at a cost that no disk notices.
fn scrub_rate_default() -> ByteSize {
    ByteSize(4_000_000)
}

fn open_quota_default() -> ByteSize {
    OPEN_QUOTA_DEFAULT
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct UncheckedPrices {
    storage_per_gib_month: Units,
    retrieval_per_gib: Units,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedClient {
    key: PublicKey,
    quota: ByteSize,
}

/// A wrong value: its key, and what is wrong with it.
type Fault = (&'static str, String);

impl Config {
    /// Reads and checks the configuration of the provider in `dir`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(dir: &Path) -> Result<Config, ConfigError> {
        let path = dir.join(CONFIG_FILE);
        let read = |source| ConfigError::Read { path: path.clone(), source };
        let length = std::fs::metadata(&path).map_err(read)?.len();
        if length > CONFIG_BYTES_MAX {
            return Err(read(std::io::Error::other(format!("it has more than {CONFIG_BYTES_MAX} bytes"))));
        }
        Config::parse(&std::fs::read_to_string(&path).map_err(read)?, &path)
    }

    /// Checks a configuration's text; `path` is where it came from, for messages.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] or [`ConfigError::Value`].
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let unchecked: Unchecked =
            toml::from_str(text).map_err(|source| ConfigError::Syntax { path: path.to_owned(), source })?;
        unchecked.check().map_err(|(key, reason)| ConfigError::Value { path: path.to_owned(), key, reason })
    }

    /// The quota of a key, in bytes.
    #[must_use]
    pub fn quota_of(&self, client: &PublicKey) -> ByteSize {
        let listed = self.clients.get(client).copied();
        listed.unwrap_or(match self.strangers {
            Strangers::Welcome { quota } => quota,
            Strangers::Refused => ByteSize(0),
        })
    }
}

impl Unchecked {
    fn check(self) -> Result<Config, Fault> {
        let loopback_only = !self.metrics_beyond_loopback && !self.metrics.ip().to_canonical().is_loopback();
        if loopback_only {
            let reason = "is not a loopback address: metrics name clients' habits to whoever can reach them; set \
                          metrics_beyond_loopback = true if that is wanted";
            return Err(("metrics", reason.to_owned()));
        }
        check_name("operator", &self.operator)?;
        check_name("region", &self.region)?;
        at_least("capacity", self.capacity, CAPACITY_MIN)?;
        if self.trash_grace_s > TRASH_GRACE_S_MAX {
            return Err(("trash_grace_s", format!("is above a year ({TRASH_GRACE_S_MAX})")));
        }
        let strangers = match self.open {
            true if self.open_quota == ByteSize(0) => {
                return Err(("open_quota", "is 0 although open = true".to_owned()));
            }
            true => Strangers::Welcome { quota: self.open_quota },
            false => Strangers::Refused,
        };
        let mut clients = BTreeMap::new();
        for client in self.clients {
            if clients.insert(client.key, client.quota).is_some() {
                return Err(("clients", format!("names {} twice", client.key)));
            }
        }
        Ok(Config {
            listen: self.listen,
            metrics: self.metrics,
            operator: self.operator,
            region: self.region,
            capacity: self.capacity,
            reserve: self.reserve,
            trash_grace_s: self.trash_grace_s,
            scrub_rate: self.scrub_rate,
            prices: Prices {
                storage_per_gib_month: TokenUnits(self.prices.storage_per_gib_month.0),
                retrieval_per_gib: TokenUnits(self.prices.retrieval_per_gib.0),
            },
            strangers,
            clients,
            limits: self.limits.check()?,
            chain: self.chain.map(UncheckedChain::check).transpose()?,
        })
    }
}

impl Limits {
    fn check(self) -> Result<Limits, Fault> {
        for (key, is_zero) in [
            ("limits.connections", self.connections == 0),
            ("limits.connections_per_address", self.connections_per_address == 0),
            ("limits.connections_per_client", self.connections_per_client == 0),
            ("limits.handshakes_per_second", self.handshakes_per_second == 0),
            ("limits.requests_per_client", self.requests_per_client == 0),
            ("limits.requests_per_second", self.requests_per_second == 0),
        ] {
            if is_zero {
                return Err((key, "is 0: nobody could be served".to_owned()));
            }
        }
        at_least("limits.buffers", self.buffers, BUFFERS_MIN)?;
        Ok(self)
    }

    /// What of the buffers one client may have: a third, but always enough for the longest proof.
    #[must_use]
    pub fn buffers_per_client(&self) -> u64 {
        BUFFERS_MIN.0.max(self.buffers.0 / 3)
    }
}

fn at_least(key: &'static str, size: ByteSize, least: ByteSize) -> Result<(), Fault> {
    if size < least { Err((key, format!("is {size}, below {least}"))) } else { Ok(()) }
}

/// Operators and regions are compared by placement and shown to people.
fn check_name(key: &'static str, name: &str) -> Result<(), Fault> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        let reason = format!("must have 1 to {NAME_BYTES_MAX} bytes and no control characters");
        return Err((key, reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Config, ConfigError, Limits, Strangers};
    use crate::byte_size::ByteSize;
    use seedbank_formats::PublicKey;
    use seedbank_protocol::messages::TokenUnits;
    use std::path::Path;

    const LEAST: &str = "operator = \"acme\"\nregion = \"eu\"\ncapacity = \"100GB\"\n";

    fn parse(more: &str) -> Result<Config, ConfigError> {
        Config::parse(&format!("{LEAST}{more}"), Path::new("provider.toml"))
    }

    fn wrong_key(more: &str) -> &'static str {
        match parse(more) {
            Err(ConfigError::Value { key, .. }) => key,
            other => panic!("{more}: {other:?}"),
        }
    }

    #[test]
    fn everything_but_name_place_and_size_has_a_default() {
        let config = parse("").unwrap();
        assert_eq!(config.listen.port(), 7410);
        assert!(config.listen.ip().is_loopback() && config.metrics.ip().is_loopback());
        assert_eq!(config.strangers, Strangers::Refused);
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.quota_of(&PublicKey([1; 32])), ByteSize(0));
    }

    #[test]
    fn every_key_is_understood() {
        let key = PublicKey([7; 32]);
        let config = parse(&format!(
            "listen = \"0.0.0.0:1\"\nmetrics = \"0.0.0.0:2\"\nmetrics_beyond_loopback = true\nreserve = 5\n\
             trash_grace_s = 60\nscrub_rate = \"5MB\"\nopen = true\nopen_quota = \"1GB\"\n\
             [prices]\nstorage_per_gib_month = 12\nretrieval_per_gib = \"340282366920938463463374607431768211455\"\n\
             [limits]\nconnections = 3\nconnections_per_address = 2\nconnections_per_client = 2\n\
             handshakes_per_second = 9\nrequests_per_client = 1\nrequests_per_second = 7\nbuffers = \"64MiB\"\n\
             [[clients]]\nkey = \"{key}\"\nquota = \"2TiB\"\n"
        ))
        .unwrap();
        assert_eq!(config.prices.retrieval_per_gib, TokenUnits(u128::MAX));
        assert_eq!(config.quota_of(&key), ByteSize(2 << 40));
        assert_eq!(config.quota_of(&PublicKey([8; 32])), ByteSize(1_000_000_000));
        assert_eq!((config.limits.connections, config.scrub_rate), (3, ByteSize(5_000_000)));
    }

    #[test]
    fn wrong_values_are_told_by_their_key() {
        let key = PublicKey([7; 32]);
        assert_eq!(wrong_key("metrics = \"192.0.2.1:9000\""), "metrics");
        assert_eq!(wrong_key("open = true\nopen_quota = 0"), "open_quota");
        assert_eq!(wrong_key("trash_grace_s = 99999999999"), "trash_grace_s");
        assert_eq!(wrong_key("[limits]\nconnections = 0"), "limits.connections");
        assert_eq!(wrong_key("[limits]\nbuffers = \"1MiB\""), "limits.buffers");
        let client = format!("[[clients]]\nkey = \"{key}\"\nquota = 1\n");
        assert_eq!(wrong_key(&client.repeat(2)), "clients");
        let text = LEAST.replace("100GB", "1MB");
        assert!(matches!(
            Config::parse(&text, Path::new("x")),
            Err(ConfigError::Value { key: "capacity", .. })
        ));
        let text = LEAST.replace("acme", "");
        assert!(matches!(
            Config::parse(&text, Path::new("x")),
            Err(ConfigError::Value { key: "operator", .. })
        ));
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_refused() {
        for more in [
            "capcity = 1",
            "[limits]\nrequest_per_client = 1",
            "[prices]\nstorage = 1",
            "[[clients]]\nkey = \"zz\"\nquota = 1",
            "[prices]\nretrieval_per_gib = -1",
            "reserve = -1",
            "listen = \"somewhere\"",
        ] {
            assert!(matches!(parse(more), Err(ConfigError::Syntax { .. })), "{more}");
        }
    }
}

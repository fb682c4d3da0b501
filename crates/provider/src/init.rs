//! Preparing a provider's folder: identity, configuration, an empty store.

use crate::byte_size::ByteSize;
use crate::chain_config::{OPERATOR_FILE, WALLET_FILE};
use crate::config::{
    CONFIG_FILE, Config, ConfigError, LISTEN_DEFAULT, OPEN_QUOTA_DEFAULT, RESERVE_DEFAULT, Strangers,
};
use crate::identity_file;
use crate::money::{WalletFileError, create_wallet, keep_wallet};
use seedbank_agreement::{Address, Amount, WalletKey};
use seedbank_formats::PublicKey;
use seedbank_protocol::messages::Prices;
use seedbank_store::{CreateError, LockError, RealDisk, Store, StoreId, make_folder};
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The store's folder inside a provider's.
pub const DATA_DIR: &str = "data";

/// The configuration until it is whole: its name says that the folder is.
const CONFIG_UNFINISHED: &str = "provider.toml.new";

/// What the operator says at the start; all of it can be changed in the file later.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Where clients connect to; port 0 for any.
    pub listen: SocketAddr,
    /// Where `/healthz` and `/metrics` are served, on loopback; port 0 for any.
    pub metrics: SocketAddr,
    /// Bytes that the store may take.
    pub capacity: ByteSize,
    /// Bytes of the disk that stay free.
    pub reserve: ByteSize,
    /// Where the provider stands.
    pub region: String,
    /// Who runs it; by default a name made from its key, so that two providers count as two operators only when
    /// somebody says so or both say nothing.
    pub operator: Option<String>,
    /// What is asked for.
    pub prices: Prices,
    /// What unlisted keys may do.
    pub strangers: Strangers,
    /// Keys with a quota of their own.
    pub clients: Vec<(PublicKey, ByteSize)>,
    /// Where it is paid; a provider without this serves for nothing.
    pub chain: Option<InitChain>,
}

/// Where a provider is paid.
#[derive(Debug, Clone)]
pub struct InitChain {
    /// JSON-RPC endpoints, in order of preference.
    pub rpc: Vec<String>,
    /// The directory of the contracts.
    pub directory: Address,
    /// What is staked at least, in token units.
    pub stake: Amount,
    /// Whether the stake may come from the token's own `mint`: test tokens of local networks only.
    pub faucet: bool,
    /// Who holds the key of the wallet that is paid.
    pub wallet: InitWallet,
}

/// Who holds the key of the wallet that is paid.
#[derive(Debug, Clone)]
pub enum InitWallet {
    /// The folder: a new one is made.
    Here,
    /// Somebody else. The folder gets an operator's key, which proves and signs and can't withdraw.
    Elsewhere {
        /// Whose wallet is paid.
        payee: Address,
        /// The operator's key; a new one if none is given.
        operator: Option<WalletKey>,
    },
}

impl Default for InitOptions {
    fn default() -> InitOptions {
        InitOptions {
            listen: LISTEN_DEFAULT,
            metrics: SocketAddr::new(LISTEN_DEFAULT.ip(), 0),
            capacity: ByteSize(100_000_000_000),
            reserve: RESERVE_DEFAULT,
            region: "unknown".to_owned(),
            operator: None,
            prices: Prices::default(),
            strangers: Strangers::Refused,
            clients: Vec::new(),
            chain: None,
        }
    }
}

/// What was prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitReport {
    /// The provider's new key.
    pub key: PublicKey,
    /// Its folder.
    pub dir: PathBuf,
    /// The wallet that it is paid with, if it is.
    pub wallet: Option<Address>,
    /// The key that acts for that wallet, if it is another.
    pub operator: Option<Address>,
}

/// Why a folder was not prepared.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The folder has something in it: choose another, or remove what an interrupted preparation left.
    #[error("{dir} is not empty: it has {name:?}")]
    NotEmpty {
        /// The folder.
        dir: PathBuf,
        /// Something in it.
        name: String,
    },
    /// An option makes no sense: correct it.
    #[error("bad option")]
    Option(#[source] ConfigError),
    /// The folder can't be written to: check path, permissions and space.
    #[error("can't prepare {path}")]
    Folder {
        /// What was to be made.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The store's folder can't be used.
    #[error("can't prepare the store's folder")]
    Data(#[from] LockError),
    /// The store can't be made.
    #[error("can't make the store")]
    Store(#[from] CreateError),
    /// The wallet can't be made.
    #[error("can't make the wallet")]
    Wallet(#[from] WalletFileError),
}

/// Prepares `dir`, which must be empty or absent. The configuration is written last: a folder that has one is whole.
///
/// # Errors
/// [`InitError`].
pub fn init(dir: &Path, options: &InitOptions) -> Result<InitReport, InitError> {
    let folder = |path: &Path| {
        let path = path.to_owned();
        move |source| InitError::Folder { path, source }
    };
    let key = identity_file::generate().map_err(folder(dir))?;
    let text = render(options, &key.public());
    let config_path = dir.join(CONFIG_FILE);
    // Before anything is made: what can't be run is not prepared.
    Config::parse(&text, &config_path).map_err(InitError::Option)?;

    make_folder(dir).map_err(folder(dir))?;
    if let Some(entry) = std::fs::read_dir(dir).map_err(folder(dir))?.next() {
        let name = entry.map_err(folder(dir))?.file_name().to_string_lossy().into_owned();
        return Err(InitError::NotEmpty { dir: dir.to_owned(), name });
    }
    identity_file::create(dir, &key).map_err(folder(dir))?;
    // Makes the identity's name durable, too, since it lies beside.
    let disk = RealDisk::create(&dir.join(DATA_DIR))?;
    Store::create(&disk, StoreId(key.public().0))?;
    let (wallet, operator) = match options.chain.as_ref().map(|chain| &chain.wallet) {
        None => (None, None),
        Some(InitWallet::Here) => (Some(create_wallet(dir, WALLET_FILE)?), None),
        Some(InitWallet::Elsewhere { payee, operator: None }) => {
            (Some(*payee), Some(create_wallet(dir, OPERATOR_FILE)?))
        }
        Some(InitWallet::Elsewhere { payee, operator: Some(key) }) => {
            (Some(*payee), Some(keep_wallet(dir, OPERATOR_FILE, key)?))
        }
    };
    let unfinished = dir.join(CONFIG_UNFINISHED);
    identity_file::create_private(&unfinished, text.as_bytes()).map_err(folder(&unfinished))?;
    std::fs::rename(&unfinished, &config_path).map_err(folder(&config_path))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(folder(dir))?;
    Ok(InitReport { key: key.public(), dir: dir.to_owned(), wallet, operator })
}

/// The configuration's text.
fn render(options: &InitOptions, key: &PublicKey) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let operator = options.operator.clone().unwrap_or_else(|| format!("operator-{}", key.short()));
    let (open, open_quota) = match options.strangers {
        Strangers::Refused => (false, OPEN_QUOTA_DEFAULT),
        Strangers::Welcome { quota } => (true, quota),
    };
    let InitOptions { listen, metrics, capacity, reserve, prices, .. } = options;
    let mut text = format!(
        "# A Seedbank provider. docs/provider.md describes every key; changes count from the next start.\n\
         # Sizes: \"500GB\" (powers of 1000), \"2TiB\" (powers of 1024), or a number of bytes.\n\
         \n\
         listen = \"{listen}\"\n\
         metrics = \"{metrics}\"\n\
         operator = {operator}\n\
         region = {region}\n\
         capacity = \"{capacity}\"\n\
         reserve = \"{reserve}\"\n\
         \n\
         # Whether keys that are not listed below may store, and how much each.\n\
         open = {open}\n\
         open_quota = \"{open_quota}\"\n\
         \n\
         # In the smallest units of the payment token.\n\
         [prices]\n\
         storage_per_gib_month = \"{storage}\"\n\
         retrieval_per_gib = \"{retrieval}\"\n",
        operator = quoted(&operator),
        region = quoted(&options.region),
        storage = prices.storage_per_gib_month,
        retrieval = prices.retrieval_per_gib,
    );
    for (client, quota) in &options.clients {
        write!(text, "\n[[clients]]\nkey = \"{client}\"\nquota = \"{quota}\"\n")
            .expect("writing to a string can't fail");
    }
    if options.clients.is_empty() {
        text.push_str("\n# [[clients]]\n# key = \"64 hex digits\"\n# quota = \"1TB\"\n");
    }
    if let Some(chain) = &options.chain {
        let rpc: Vec<String> = chain.rpc.iter().map(|url| quoted(url)).collect();
        write!(
            text,
            "\n# Where it is paid, and with which key. The stake is in the token's smallest units.\n[chain]\n\
             rpc = [{rpc}]\ndirectory = \"{directory}\"\nstake = \"{stake}\"\nfaucet = {faucet}\n",
            rpc = rpc.join(", "),
            directory = chain.directory,
            stake = chain.stake,
            faucet = chain.faucet,
        )
        .expect("writing to a string can't fail");
        if let InitWallet::Elsewhere { payee, .. } = &chain.wallet {
            write!(text, "wallet = \"{OPERATOR_FILE}\"\npayee = \"{payee}\"\n")
                .expect("writing to a string can't fail");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{DATA_DIR, InitError, InitOptions, init, render};
    use crate::byte_size::ByteSize;
    use crate::config::{CONFIG_FILE, Config, Strangers};
    use crate::identity_file::{self, IDENTITY_FILE};
    use seedbank_formats::PublicKey;
    use seedbank_protocol::messages::{Prices, TokenUnits};
    use seedbank_store::testing::{MemDisk, Sweep};
    use seedbank_store::{Config as StoreConfig, RealDisk, Store, StoreId};
    use seedbank_testkit::recording::{record_test, write_out};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::sync::Arc;

    #[test]
    fn options_read_back_from_the_file_that_they_are_written_to() {
        let client = PublicKey([4; 32]);
        let options = InitOptions {
            region: "a \"quoted\" \\ région".to_owned(),
            operator: Some("acme".to_owned()),
            capacity: ByteSize(123_456_789),
            prices: Prices { storage_per_gib_month: TokenUnits(u128::MAX), retrieval_per_gib: TokenUnits(7) },
            chain: Some(super::InitChain {
                rpc: vec!["http://127.0.0.1:8545".to_owned(), "https://rpc.example".to_owned()],
                directory: seedbank_agreement::Address([0xab; 20]),
                stake: seedbank_agreement::Amount(u128::MAX),
                faucet: true,
                wallet: super::InitWallet::Here,
            }),
            strangers: Strangers::Welcome { quota: ByteSize(1 << 30) },
            clients: vec![(client, ByteSize(5))],
            ..InitOptions::default()
        };
        let config = Config::parse(&render(&options, &PublicKey([1; 32])), Path::new(CONFIG_FILE)).unwrap();
        assert_eq!((config.region, config.prices), (options.region, options.prices));
        assert_eq!((config.capacity, config.strangers), (options.capacity, options.strangers));
        assert_eq!(config.clients[&client], ByteSize(5));
        let (chain, asked) = (config.chain.unwrap(), options.chain.unwrap());
        assert_eq!((chain.rpc, chain.directory), (asked.rpc, asked.directory));
        assert_eq!((chain.stake, chain.faucet), (asked.stake, asked.faucet));
    }

    #[test]
    fn prepared_folder_is_whole_and_private() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("provider");
        let report = init(&dir, &InitOptions::default()).unwrap();
        assert_eq!(identity_file::load(&dir).unwrap().public(), report.key);
        assert!(Config::load(&dir).unwrap().operator.contains(&report.key.short()));
        let mode = |name: &str| std::fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(""), mode(IDENTITY_FILE), mode(CONFIG_FILE), mode("data")),
            (0o700, 0o600, 0o600, 0o700)
        );
    }

    #[test]
    #[ignore = "the history that another test records"]
    fn recorded_preparation() {
        let Some(root) = std::env::var_os("RECORDED_ROOT") else { return };
        let options = InitOptions { region: "there".to_owned(), ..InitOptions::default() };
        init(&Path::new(&root).join("providers/one"), &options).unwrap();
        std::fs::write(std::env::var_os("RECORDED_MARKS").unwrap(), "prepared\n").unwrap();
    }

    /// A folder with a configuration has all else, and is there once it was said to be.
    fn check(disk: &MemDisk, marks: &[String]) -> Result<(), String> {
        let config = format!("providers/one/{CONFIG_FILE}");
        if !disk.files().contains(&config) {
            return if marks.is_empty() { Ok(()) } else { Err("it is gone".to_owned()) };
        }
        let left = tempfile::tempdir().unwrap();
        write_out(disk, left.path());
        let dir = left.path().join("providers/one");
        let config = Config::load(&dir).map_err(|error| error.to_string())?;
        if config.region != "there" {
            return Err("half a configuration is taken for all of it".to_owned());
        }
        // A written-out file has the usual mode.
        let identity = dir.join(IDENTITY_FILE);
        std::fs::set_permissions(&identity, PermissionsExt::from_mode(0o600)).map_err(|it| it.to_string())?;
        let key = identity_file::load(&dir).map_err(|error| error.to_string())?;
        let data = RealDisk::lock(&dir.join(DATA_DIR)).map_err(|error| error.to_string())?;
        let store = StoreConfig::new(StoreId(key.public().0), config.capacity.0);
        Store::open(Arc::new(data), store).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn power_failing_during_a_preparation_leaves_a_whole_provider_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let preparation = "init::tests::recorded_preparation";
        let Some(recording) = record_test(folder.path(), preparation) else { return };
        // Most calls make the store's 256 folders: few of those are looked at.
        let sweep = Sweep { subsets_of_max: 3, samples: 4, tears_max: 1 };
        let states = recording.each_crash(sweep, 3, &mut check).unwrap_or_else(|broken| panic!("{broken}"));
        println!("{states} disks after {} calls", recording.len());
        assert!(states > 50, "{states}");
        for folder in ["/", "providers/", "providers/one/"] {
            let without = recording.without_syncs(|path| path == folder);
            assert!(without.each_crash(sweep, u64::MAX, &mut check).is_err(), "{folder} need not be synced");
        }
    }

    #[test]
    fn folder_in_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("precious"), "x").unwrap();
        let refused = init(dir.path(), &InitOptions::default());
        assert!(matches!(refused, Err(InitError::NotEmpty { name, .. }) if name == "precious"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn bad_option_makes_no_folder() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("provider");
        let options = InitOptions { capacity: ByteSize(1), ..InitOptions::default() };
        assert!(matches!(init(&dir, &options), Err(InitError::Option(_))));
        assert!(!dir.exists());
    }
}

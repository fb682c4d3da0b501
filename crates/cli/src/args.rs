//! What can be typed: `seedbank noun verb`, its options and their units. Parsing only; every command acts elsewhere.

use clap::{Args, Parser, Subcommand, ValueEnum};
use seedbank_agreement::{Address, Amount};
use std::path::PathBuf;

/// Store versioned datasets on many independent providers, and read them back verified.
#[derive(Debug, Parser)]
#[command(name = "seedbank", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Where keys, catalog and caches live.
    #[arg(long, env = "SEEDBANK_HOME", global = true, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// Print data as JSON on standard output.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress bars.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// How much to log to standard error: error, warn, info, debug or trace.
    #[arg(long, env = "SEEDBANK_LOG", global = true, value_name = "LEVEL")]
    pub(crate) log: Option<String>,
    /// Log lines as text or JSON.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// Read the key store's passphrase from the first line of this file.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One line of text an event.
    Text,
    /// One JSON object an event.
    Json,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Tell the whole story on this machine: store, change, break, read back, verify. Exits by itself.
    Demo(Demo),
    /// Start a local network: providers (one process each) and a steward.
    Up(Up),
    /// Stop the local network.
    Down,
    /// Show what runs where, with every address and key id.
    Status,
    /// Datasets: push, pull, read, verify.
    #[command(subcommand)]
    Dataset(Dataset),
    /// Run a storage provider, or tell this home which providers it may use.
    #[command(subcommand)]
    Provider(Provider),
    /// Run the owner's daemon.
    #[command(subcommand)]
    Steward(Steward),
    /// The chain on which providers are paid: which one, and the embedded one.
    #[command(subcommand)]
    Chain(Chain),
    /// The owner's keys.
    #[command(subcommand)]
    Key(Key),
    /// What this home has to pay with.
    #[command(subcommand)]
    Wallet(Wallet),
    /// What is agreed with providers about pay.
    #[command(subcommand)]
    Agreement(Agreement),
    /// Measure this machine or a network.
    #[command(subcommand)]
    Bench(Bench),
    /// Print shell completions.
    Completions {
        /// The shell to complete for.
        shell: clap_complete::Shell,
    },
}

/// `seedbank demo`.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// The dataset to store instead of the one that comes along.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Provider processes to start.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) providers: u16,
    /// Leave the network running and its files in place.
    #[arg(long)]
    pub(crate) keep: bool,
}

/// `seedbank up`.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Provider processes to start.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) providers: u16,
    /// Return once everything runs; `seedbank down` stops it.
    #[arg(long)]
    pub(crate) detach: bool,
    /// First TCP port of the providers; 0 lets the system choose.
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
    /// Pay nobody: no chain, no contracts, no proofs.
    #[arg(long)]
    pub(crate) no_chain: bool,
    /// Port of the chain's JSON-RPC when it is made; 0 lets the system choose. It stays the same afterwards.
    #[arg(long, default_value_t = 0, conflicts_with = "no_chain")]
    pub(crate) chain_port: u16,
    /// Length of an epoch, in seconds, of a chain that is made: pay is proven once in each.
    #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(u32).range(60..=604_800), conflicts_with = "no_chain")]
    pub(crate) epoch_seconds: u32,
    /// Bytes that a reader may owe each provider that is made, as in 1MiB: a voucher is sent for about as many. Providers' own
    /// default otherwise.
    #[arg(long, value_name = "BYTES", conflicts_with = "no_chain")]
    pub(crate) credit: Option<String>,
}

/// `seedbank dataset`.
#[derive(Debug, Subcommand)]
pub(crate) enum Dataset {
    /// Store a folder as the dataset's next version.
    Push {
        /// The dataset's name; made if it is new.
        name: String,
        /// A folder or a file; - reads standard input, as one file, to its end.
        path: PathBuf,
        /// What the file from standard input is called in the version; `stdin` otherwise.
        #[arg(long = "name", value_name = "PATH")]
        file_name: Option<String>,
        /// What changed, for the log.
        #[arg(long, short, default_value = "")]
        message: String,
        /// Leave out paths that match (as in .gitignore; may be given more than once).
        #[arg(long, value_name = "PATTERN")]
        exclude: Vec<String>,
        /// Read every file, even if its size, time and inode are unchanged.
        #[arg(long)]
        rehash: bool,
        /// For a new dataset: seal it with a published key, so that anyone who knows its id may read it.
        #[arg(long)]
        public: bool,
        /// Data and total fragments of each segment, as K/N. Chosen from the number of providers otherwise.
        #[arg(long, value_name = "K/N")]
        scheme: Option<String>,
        /// Branch to move.
        #[arg(long, default_value = "main")]
        branch: String,
        /// Compress with zstd at this level instead of LZ4: smaller, slower to write and read.
        #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(i32).range(1..=19))]
        zstd: Option<i32>,
    },
    /// Write a version's files into a folder.
    Pull {
        /// NAME or NAME@REF; a REF is a branch, a tag or a version id's first digits. Others' datasets are named OWNER/NAME, with
        /// the owner's wallet address (0x...), as the chain knows them; a public one also by its id.
        name: String,
        /// The folder to write into.
        dest: PathBuf,
        /// Only paths that match.
        #[arg(long, value_name = "PATTERN")]
        include: Vec<String>,
        /// Leave out paths that match.
        #[arg(long, value_name = "PATTERN")]
        exclude: Vec<String>,
        /// Replace files that differ.
        #[arg(long)]
        overwrite: bool,
    },
    /// Print a file, or a range of it, to standard output.
    Cat {
        /// NAME[@REF]:PATH.
        file: String,
        /// Bytes FROM-TO, both counted from 0, TO excluded; either may be left out.
        #[arg(long, value_name = "FROM-TO", allow_hyphen_values = true)]
        range: Option<String>,
    },
    /// List datasets, or a version's files.
    Ls {
        /// NAME[@REF][:FOLDER]; all datasets when left out.
        name: Option<String>,
    },
    /// List a dataset's versions, newest first.
    Log {
        /// The dataset's name.
        name: String,
    },
    /// Show a version: id, author, size, placement.
    Show {
        /// NAME[@REF].
        name: String,
    },
    /// Read everything of a version and check every hash and signature, without writing files.
    Verify {
        /// NAME[@REF].
        name: String,
    },
    /// Remove a dataset, or one version, and free what nothing else needs.
    Rm {
        /// NAME, or NAME@VERSION for one version.
        name: String,
        /// Don't ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Hand a dataset's key to another home.
    #[command(subcommand)]
    Key(DatasetKey),
}

/// `seedbank dataset key`.
#[derive(Debug, Subcommand)]
pub(crate) enum DatasetKey {
    /// Write a dataset's key to a file (mode 0600). Who holds it can read the dataset.
    Export {
        /// The dataset's name.
        name: String,
        /// The file to write.
        file: PathBuf,
    },
    /// Take a dataset's key from a file.
    Import {
        /// The file to read.
        file: PathBuf,
        /// The name to use here instead of the owner's.
        #[arg(long)]
        name: Option<String>,
    },
}

/// `seedbank provider`.
#[derive(Debug, Subcommand)]
pub(crate) enum Provider {
    /// Prepare a folder: identity key, configuration, marker.
    Init(ProviderInit),
    /// Serve a prepared folder.
    Run {
        /// The provider's folder.
        dir: PathBuf,
        /// Stop when the process that started this one ends.
        #[arg(long, hide = true)]
        with_parent: bool,
    },
    /// Show a provider's state: as its operator with a folder, or as anyone with KEY@HOST:PORT.
    Status {
        /// The provider's folder, or KEY@HOST:PORT.
        target: String,
    },
    /// Enter the registry of providers, with the stake that the configuration says, and name the operator's key; where the folder has the
    /// wallet's own key `run` does it as well.
    Register {
        /// The provider's folder.
        dir: PathBuf,
        #[command(flatten)]
        wallet: ColdWallet,
    },
    /// Collect what was earned.
    Withdraw {
        /// The provider's folder.
        dir: PathBuf,
        /// To whom; the provider's own wallet if nothing is said.
        #[arg(long)]
        to: Option<String>,
        #[command(flatten)]
        wallet: ColdWallet,
    },
    /// Leave in order: no new agreements, notice of those that run, and the stake when none is left.
    Exit {
        /// The provider's folder.
        dir: PathBuf,
        #[command(flatten)]
        wallet: ColdWallet,
    },
    /// Allow this home's datasets to be placed on a provider.
    Add {
        /// KEY@HOST:PORT, as `provider status` prints it.
        address: String,
    },
    /// List the providers that this home may use.
    Ls,
    /// Stop placing on a provider.
    Rm {
        /// The provider's key, or its first digits.
        key: String,
    },
}

/// The wallet that is paid, where the provider's folder has an operator's key only.
#[derive(Debug, Args)]
pub(crate) struct ColdWallet {
    /// A file that only you read, with the secret key in hex of the wallet that is paid. It is not kept.
    #[arg(long, value_name = "FILE", conflicts_with = "wallet_of_home")]
    pub(crate) wallet_key: Option<PathBuf>,
    /// This home's wallet is the one that is paid.
    #[arg(long)]
    pub(crate) wallet_of_home: bool,
}

/// `seedbank provider init`.
#[derive(Debug, Args)]
pub(crate) struct ProviderInit {
    /// The folder to prepare; it must be empty or absent.
    pub(crate) dir: PathBuf,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:7410")]
    pub(crate) listen: String,
    /// Most bytes of fragments to hold, as in 500GB or 2TiB.
    #[arg(long, default_value = "100GB")]
    pub(crate) capacity: String,
    /// Where it stands, for placement rules: a country or a site.
    #[arg(long, default_value = "unknown")]
    pub(crate) region: String,
    /// Who runs it: fragments of one segment go to distinct operators.
    #[arg(long)]
    pub(crate) operator: Option<String>,
    /// Rent asked, in token units per GiB and month.
    #[arg(long, default_value_t = 0)]
    pub(crate) price_storage: u64,
    /// Egress asked, in token units per GiB.
    #[arg(long, default_value_t = 0)]
    pub(crate) price_egress: u64,
    /// Accept clients that are not listed in the configuration.
    #[arg(long)]
    pub(crate) open: bool,
    /// JSON-RPC endpoint of the chain on which it is paid; several in order of preference.
    #[arg(long, requires = "directory")]
    pub(crate) rpc: Vec<String>,
    /// Address of the contracts' directory on that chain.
    #[arg(long, requires = "rpc")]
    pub(crate) directory: Option<String>,
    /// What to stake, in token units: it must cover some epochs' pay of all agreements.
    #[arg(long, default_value = "0", requires = "directory")]
    pub(crate) stake: String,
    /// Take the stake from a test token's own mint, on a local network.
    #[arg(long, requires = "directory")]
    pub(crate) faucet: bool,
    /// Pay this wallet, whose key stays elsewhere: the folder gets an operator's key, which proves and signs and can't withdraw.
    #[arg(long, value_name = "ADDRESS", requires = "directory", conflicts_with = "wallet_of_home")]
    pub(crate) payee: Option<Address>,
    /// Pay this home's wallet; the folder gets this home's operator key, and no other.
    #[arg(long, requires = "directory")]
    pub(crate) wallet_of_home: bool,
}

/// `seedbank steward`.
#[derive(Debug, Subcommand)]
pub(crate) enum Steward {
    /// Serve this home's catalog and keep its datasets healthy.
    Run {
        /// Address of /healthz and /metrics.
        #[arg(long, default_value = "127.0.0.1:7400")]
        metrics: String,
        /// Stop when the process that started this one ends.
        #[arg(long, hide = true)]
        with_parent: bool,
    },
}

/// `seedbank chain`.
#[derive(Debug, Subcommand)]
pub(crate) enum Chain {
    /// Serve the chain in a folder over JSON-RPC; a new folder begins a new chain.
    Run(ChainRun),
    /// Put a new set of contracts on any EVM chain. What is decided here holds for good.
    Deploy(ChainDeploy),
    /// Pay providers on this chain, within these limits. What is not given stays as it is.
    Use {
        /// A JSON-RPC endpoint; may be given more than once, the preferred first.
        #[arg(long, value_name = "URL")]
        rpc: Vec<String>,
        /// The contract that lists all others.
        #[arg(long, value_name = "ADDRESS")]
        directory: Option<Address>,
        /// Which datasets the chain is told of; private ones stand there under names that only their key tells.
        #[arg(long, value_enum, value_name = "WHICH")]
        names: Option<Names>,
        #[command(flatten)]
        budget: Budget,
    },
    /// Show chain, contracts and limits.
    Show,
}

/// `seedbank chain run`.
#[derive(Debug, Args)]
pub(crate) struct ChainRun {
    /// The chain's folder; `chain` in the home otherwise.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Address of the JSON-RPC; port 0 lets the system choose. Beyond this machine only if you name such an address.
    #[arg(long, default_value = "127.0.0.1:7405")]
    pub(crate) listen: String,
    /// Chain id of a new chain; a chain that exists must have it.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u64).range(1..=9_007_199_254_740_991))]
    pub(crate) chain_id: Option<u64>,
    /// Seconds without a transaction after which an empty block is made; 0 makes none.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) block_time: u64,
    /// Let callers move the clock, for tests: evm_increaseTime, evm_setNextBlockTimestamp, evm_mine.
    #[arg(long)]
    pub(crate) test_clock: bool,
    /// The directory of contracts on this chain: the sequencer begins each epoch with sealing its seed, so that nobody who wants another
    /// seed can choose one.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "follow")]
    pub(crate) directory: Option<Address>,
    /// Replay and check the chain at this URL instead of making blocks. Transactions are not taken.
    #[arg(long, value_name = "URL", conflicts_with = "test_clock")]
    pub(crate) follow: Option<String>,
    /// The hash of block 0 of the chain to follow; the first answer is believed otherwise.
    #[arg(long, value_name = "HASH", requires = "follow")]
    pub(crate) genesis_hash: Option<String>,
    /// Write the port of the JSON-RPC to this file once it is served.
    #[arg(long, value_name = "FILE")]
    pub(crate) port_file: Option<PathBuf>,
    /// Stop when the process that started this one ends.
    #[arg(long, hide = true)]
    pub(crate) with_parent: bool,
}

/// `seedbank chain deploy`.
#[derive(Debug, Args)]
pub(crate) struct ChainDeploy {
    /// A JSON-RPC endpoint of the chain.
    #[arg(long, value_name = "URL")]
    pub(crate) rpc: String,
    /// A file that only you read, with the secret key in hex of an account that has the chain's coin for gas.
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: PathBuf,
    /// Deploy on this chain only; on whichever the endpoint serves otherwise.
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) chain_id: Option<u64>,
    /// The ERC-20 to pay with; a test token without worth otherwise.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) token: Option<Address>,
    /// Length of an epoch in seconds; a day otherwise.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) epoch_seconds: Option<u32>,
    /// When epoch 0 begins, in unix seconds; now otherwise.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) genesis: Option<u64>,
    /// Take seeds from a block so far ahead of an epoch's first call, for a chain with many makers of blocks: more blocks than one makes
    /// in a row, and fewer than 256. Without it seeds are the last block's hash, for a chain with one sequencer.
    #[arg(long, value_name = "BLOCKS", value_parser = clap::value_parser!(u32).range(1..256))]
    pub(crate) beacon_delay: Option<u32>,
    /// Blocks that must follow a seed in its epoch, else the epoch doesn't count; 720 otherwise.
    #[arg(long, value_name = "BLOCKS")]
    pub(crate) blocks_min: Option<u32>,
    /// Chunks asked for in an epoch; 21 otherwise.
    #[arg(long, value_name = "COUNT")]
    pub(crate) challenges: Option<u32>,
    /// Epochs' pay that a missed epoch costs; 2 otherwise.
    #[arg(long, value_name = "EPOCHS")]
    pub(crate) slash_epochs: Option<u32>,
    /// Epochs' pay that a provider's stake must cover; 14 otherwise.
    #[arg(long, value_name = "EPOCHS")]
    pub(crate) stake_epochs: Option<u32>,
    /// Misses one after the other that end a provider's agreements; 5 otherwise.
    #[arg(long, value_name = "EPOCHS")]
    pub(crate) misses_max: Option<u32>,
    /// Notice of either side; 14 otherwise.
    #[arg(long, value_name = "EPOCHS")]
    pub(crate) notice_epochs: Option<u32>,
    /// Share of a slash that goes to whoever records the miss, in 1/10,000; 1,000 otherwise.
    #[arg(long, value_name = "SHARE")]
    pub(crate) bounty_basis_points: Option<u32>,
    /// What a client pays for a question that is answered, in token units; one whole token otherwise. Answering should cost less gas than
    /// that is worth.
    #[arg(long, value_name = "UNITS")]
    pub(crate) question_bond: Option<Amount>,
    /// Seconds between the announcement of a channel's exit and the exit; three days otherwise.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) exit_seconds: Option<u64>,
    /// The most to pay for a unit of gas, in gwei; deploying waits above it. Any price otherwise.
    #[arg(long, value_name = "GWEI")]
    pub(crate) gas_price_max: Option<u64>,
    /// Blocks that must hold each contract, with its own, before the next is made.
    #[arg(long, value_name = "BLOCKS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) confirmations: u64,
}

/// `seedbank key`.
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make this home's keys and show the recovery phrase once.
    Init {
        /// Store the keys without a passphrase. For throw-away networks only.
        #[arg(long)]
        insecure_no_passphrase: bool,
        /// Write the recovery phrase to this new file (mode 0600) instead of showing it.
        #[arg(long, value_name = "FILE")]
        phrase_out: Option<PathBuf>,
    },
    /// Show public keys.
    Show,
    /// Rebuild an empty home from the recovery phrase, and a chain or one provider's address.
    Recover {
        /// Any provider that holds this owner's data, as KEY@HOST:PORT.
        #[arg(long, value_name = "KEY@HOST:PORT", required_unless_present = "directory")]
        provider: Option<String>,
        /// An endpoint of the chain whose registries are asked, and that the home uses from now on; may be given more than once.
        #[arg(long, value_name = "URL", requires = "directory")]
        rpc: Vec<String>,
        /// That chain's contract that lists all others.
        #[arg(long, value_name = "ADDRESS", requires = "rpc")]
        directory: Option<Address>,
        #[command(flatten)]
        budget: Budget,
        /// Read the phrase from this file instead of asking.
        #[arg(long, value_name = "FILE")]
        phrase_file: Option<PathBuf>,
        /// Store the keys without a passphrase. For throw-away networks only.
        #[arg(long)]
        insecure_no_passphrase: bool,
    },
}

/// Which datasets the chain is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Names {
    /// Public ones by their names, private ones under hidden names.
    All,
    /// Public ones.
    Public,
    /// None.
    None,
}

/// What may be paid, in token units.
#[derive(Debug, Args)]
pub(crate) struct Budget {
    /// The highest rent that is accepted, for a GiB and month.
    #[arg(long, value_name = "UNITS")]
    pub(crate) rent_max: Option<Amount>,
    /// The highest price of a GiB read that is accepted.
    #[arg(long, value_name = "UNITS")]
    pub(crate) egress_max: Option<Amount>,
    /// The most for rent and reads together, in 30 days.
    #[arg(long, value_name = "UNITS")]
    pub(crate) budget: Option<Amount>,
    /// Epochs for which agreements are made; the steward renews them.
    #[arg(long, value_name = "EPOCHS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) term: Option<u32>,
}

/// `seedbank wallet`. Amounts are in token units.
#[derive(Debug, Subcommand)]
pub(crate) enum Wallet {
    /// Show addresses, balances, what is locked, and the budget.
    Show,
    /// Move tokens from the wallet into the market, or into the channel with a provider. On a network whose token has a
    /// faucet, missing ones are made.
    Fund {
        /// Token units.
        amount: Amount,
        /// Into the channel with the provider whose key begins so.
        #[arg(long, value_name = "KEY")]
        provider: Option<String>,
    },
    /// Take free tokens out of the market, or out of the channel with a provider: there the first call announces it, and the
    /// same call again takes it when the time is over.
    Withdraw {
        /// Token units.
        amount: Amount,
        /// Where to; the wallet when left out.
        #[arg(long, value_name = "ADDRESS")]
        to: Option<Address>,
        /// Out of the channel with the provider whose key begins so.
        #[arg(long, value_name = "KEY")]
        provider: Option<String>,
    },
}

/// `seedbank agreement`.
#[derive(Debug, Subcommand)]
pub(crate) enum Agreement {
    /// List agreements: what each provider holds, what it costs, and how it proves.
    Ls,
    /// Show one agreement.
    Show {
        /// Its number, or the provider's key or its first digits.
        #[arg(value_name = "NUMBER|KEY")]
        agreement: String,
    },
    /// Give notice to a provider. Nothing new is placed there.
    Terminate {
        /// Its number, or the provider's key or its first digits.
        #[arg(value_name = "NUMBER|KEY")]
        agreement: String,
    },
}

/// `seedbank bench`.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Each stage of a push and a pull alone, beside the raw primitives that it is made of.
    Stages {
        /// Data and total fragments, as K/N.
        #[arg(long, default_value = "4/8", value_name = "K/N")]
        scheme: String,
    },
    /// Push, pull and ranged reads through a fresh local network.
    Local {
        /// Bytes of random data, as in 1GiB.
        #[arg(long, default_value = "1GiB")]
        size: String,
        /// Provider processes.
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
        providers: u16,
        /// Pushes and pulls, each of all the bytes; medians and spread are printed.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
        rounds: u32,
        /// Random 256 KiB reads in a round of reads.
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
        reads: u32,
        /// Rounds of reads, in turn with the same bytes over a bare connection.
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=99))]
        read_rounds: u32,
    },
    /// Our HTTP beside bare TLS and plain TCP on loopback.
    Transport {
        /// Bytes to move in each run, as in 1GiB.
        #[arg(long, default_value = "512MiB")]
        size: String,
    },
    /// The network that this home uses: what it costs and how fast it is, by provider and region. Pushes a throw-away
    /// dataset, reads it and removes it again; other datasets are not touched.
    Network {
        /// Bytes of random data, as in 64MiB.
        #[arg(long, default_value = "64MiB")]
        size: String,
        /// Random 256 KiB reads of each provider.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        reads: u32,
    },
    /// Memory of client, providers and steward while a stream is pushed and read back: the same for every length?
    Memory {
        /// Lengths of the streams, with commas between.
        #[arg(long, default_value = "1GiB,8GiB", value_delimiter = ',')]
        sizes: Vec<String>,
        /// Provider processes.
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
        providers: u16,
    },
    /// The embedded chain beside anvil, where that is installed: one transaction alone, and many at once.
    Chain {
        /// Transactions sent one after the other, each with nonce, estimate and receipt.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        round_trips: u32,
        /// Keys that send at the same time.
        #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=200))]
        senders: u32,
        /// Transactions of each of them.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        each: u32,
        /// The anvil to compare with; otherwise the one that is found in the path or in contracts/node_modules.
        #[arg(long, value_name = "FILE")]
        anvil: Option<PathBuf>,
    },
    /// What paying for reads costs: the same reads of a local network with pay and without, in turn.
    Payments {
        /// Bytes of random data, as in 1GiB.
        #[arg(long, default_value = "1GiB")]
        size: String,
        /// Reads of all the bytes in each round.
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        reads: u32,
        /// Rounds of each kind; medians and spread are printed.
        #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=99))]
        pairs: u32,
        /// Provider processes.
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
        providers: u16,
        /// Bytes that a reader may owe a provider, as in 1MiB: a voucher is sent for each. Providers' own default otherwise.
        #[arg(long, value_name = "BYTES", conflicts_with = "control")]
        credit: Option<String>,
        /// No pay on either side: how far equal rounds lie apart.
        #[arg(long)]
        control: bool,
    },
    /// Small files and large trees: push, pull, ls, log, and the commit of one change.
    Metadata {
        /// Files of 2,400 bytes.
        #[arg(long, default_value_t = 50_000, value_name = "COUNT")]
        small_files: u32,
        /// Files of 8 bytes in folders of 1,000.
        #[arg(long, default_value_t = 1_000_000, value_name = "COUNT")]
        tiny_files: u32,
        /// Empty files in one folder.
        #[arg(long, default_value_t = 1_000_000, value_name = "COUNT")]
        names: u32,
        /// Provider processes.
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
        providers: u16,
    },
}

//! The storage provider's daemon: keeps fragments for its clients and serves them by the protocol.
//!
//! [`init`] prepares a folder, [`run`] serves it until it is told to end, [`status`] says how it is from outside. This
//! crate wires: `seedbank-store` keeps the bytes, `seedbank-transport` carries requests, `seedbank-protocol` names the
//! routes. What is decided here is who may do what (`authority`, pure) and how much of the machine requests may take
//! (`bounds`); everything else carries that out.
//!
//! It holds no keys but its own, opens nothing that a client sealed, and contacts nobody but its chain, if it is paid: it
//! only answers. Money has a module of its own, and a database of its own.
//! `docs/provider.md` is the operator's page.

mod authority;
mod bounds;
mod byte_size;
mod chain_config;
mod config;
mod descriptors;
mod gate;
mod identity_file;
mod init;
mod metrics;
mod money;
mod monitor;
mod run;
mod service;
mod status;
mod tokens;
mod upkeep;

pub use byte_size::{ByteSize, ByteSizeError};
pub use chain_config::{ChainConfig, CreditConfig, OPERATOR_FILE, RedeemConfig, Units, WALLET_FILE};
pub use config::{
    CONFIG_FILE, Config, ConfigError, LISTEN_DEFAULT, Limits, OPEN_QUOTA_DEFAULT, RESERVE_DEFAULT, Strangers,
};
pub use identity_file::{IDENTITY_FILE, IdentityError};
pub use init::{DATA_DIR, InitChain, InitError, InitOptions, InitReport, InitWallet, init};
pub use metrics::Counters;
pub use money::{
    AdminError, AgreementReport, BooksError, ChainError, CostReport, EntryTrouble, EpochReport, Exit, Fate,
    LinkError, MoneyError, MoneyReport, MoneyStanding, RedemptionReport, RegistryEntry, ReportError,
    UnitReport, VoucherReport, WalletFileError, Wei, Withdrawn, create_wallet, exit, register, report,
    withdraw,
};
pub use run::{RunError, RunOptions, Serving, run};
pub use status::{Liveness, Mode, STATUS_FILE, Status, StatusError, StatusReport, StatusUsage, status};

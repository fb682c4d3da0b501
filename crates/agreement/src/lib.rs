//! What client and provider owe each other, and how either shows it: the arithmetic that the contracts check.
//!
//! Both sides of an agreement and the contracts must come to the same number, hash or verdict, always. So each rule stands here
//! once, as a pure function in checked integers, and tests run it beside the contracts' own bytecode:
//!
//! - *what is signed*: [`proposal`], [`revision`], [`voucher`], [`publication`], [`quote`] and their EIP-712 digests ([`typed`]),
//!   made and read with [`wallet`] keys and [`signature`]s, and the [`binding`] of a wallet to an Ed25519 identity;
//! - *what it costs*: [`amount`], [`price`];
//! - *what is proven*: [`fragment_set`], [`challenge`], [`chunk_path`];
//! - *what is owed for reading*: [`lane`], [`credit`];
//! - *what becomes of the money*: [`market`].
//!
//! No chain is asked and no clock is read here: `settlement` does the one, and the caller the other.

mod abi;
pub mod address;
pub mod amount;
pub mod binding;
pub mod challenge;
pub mod chunk_path;
pub mod credit;
mod derivation;
pub mod epoch;
pub mod fragment_set;
mod hex;
pub mod keccak;
pub mod lane;
pub mod market;
pub mod price;
pub mod proposal;
pub mod publication;
pub mod quote;
pub mod revision;
pub mod signature;
pub mod typed;
pub mod voucher;
pub mod wallet;

pub use address::Address;
pub use amount::{Amount, Rate};
pub use binding::Binding;
pub use challenge::Draw;
pub use chunk_path::{ChunkPath, chunk_path};
pub use credit::Credit;
pub use epoch::{AgreementId, Epoch, EpochClock};
pub use fragment_set::{Fragment, FragmentSet};
pub use lane::{Lane, Purse};
pub use market::Market;
pub use proposal::{Nonce, Proposal, SetRoot};
pub use publication::Publication;
pub use quote::Quote;
pub use revision::Revision;
pub use signature::{Signature, recover};
pub use typed::{Domain, Signed, Typed};
pub use voucher::Voucher;
pub use wallet::WalletKey;

//! Paying providers: for what they prove to hold, and for what they send.
//!
//! A home that names a chain pays there. Rent runs by agreements, one with each provider: the owner and the provider sign
//! which fragments it holds, and the market pays it for every epoch in which it proves that. Reads are paid by vouchers that
//! grow, one signed counter for each process and provider. What is paid at most, a person says; whatever costs more is
//! refused here, before anything is sent or read.
//!
//! [`budget`] decides, [`Payer`] does: it asks the chain through [`Chain`], signs with keys that it is given, and never
//! prints. A home without a chain has no payer, and nothing in this crate behaves differently then.

mod adoption;
pub mod agree;
pub mod budget;
pub mod chain;
pub mod lanes;
pub mod payer;
pub mod reads;
mod rents;
pub mod settled;
pub mod upkeep;

pub use agree::AgreeError;
pub use budget::Limits;
pub use chain::{Chain, ChainError};
pub use payer::{Payer, PayerKeys};
pub use reads::Reads;
pub use settled::SettledChain;

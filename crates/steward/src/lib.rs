//! The owner's daemon: keeps the books for every other process of the owner, and the datasets healthy.
//!
//! [`run`] is the daemon: it holds the catalog's lock, answers other processes on a socket, and repeats the steps of
//! `seedbank_client::maintain` at their pace. It decides nothing about bytes, providers or the books: it wires.
//! `docs/steward.md` is the owner's page.
//!
//! [`open_books`] is how any command gets at the books: through the running steward's socket, or, while none runs, by
//! keeping them itself.

mod books;
mod carrier;
mod metrics;
mod monitor;
mod rounds;
mod run;
mod socket;
mod wire;

pub use books::{BooksPaths, OpenBooksError, open_books};
pub use carrier::SocketCarrier;
pub use rounds::Pacing;
pub use run::{RunError, RunOptions, Serving, run};
pub use socket::BindError;

//! The owner's daemon: keeps the books for every other process of the owner, and the datasets healthy.
//!
//! [`open_books`] is how any command gets at the books: through the running steward's socket, or, while none runs, by
//! keeping them itself.

mod books;
mod carrier;
mod socket;
mod wire;

pub use books::{BooksPaths, OpenBooksError, SharedBooks, open_books};
pub use carrier::SocketCarrier;
pub use socket::BindError;

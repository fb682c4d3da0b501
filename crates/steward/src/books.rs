//! Opens an owner's books the way that is open: through the running steward, or by keeping them oneself for a while.

use crate::carrier::{SocketCarrier, absent};
use seedbank_catalog::{Catalog, Local, OpenError};
use seedbank_client::SharedBooks;
use seedbank_client::network::wall_clock;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where an owner's books are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BooksPaths {
    /// The catalog's folder, with its database and its lock.
    pub catalog: PathBuf,
    /// The socket on which a running steward answers.
    pub socket: PathBuf,
}

/// Why the books could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenBooksError {
    /// Another command keeps the books, or the catalog can't be used.
    #[error(transparent)]
    Catalog(#[from] OpenError),
    /// There is a steward, or something in its place, and it can't be asked.
    #[error("the steward's socket {} can't be used", socket.display())]
    Socket {
        /// The socket.
        socket: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// A steward that holds the catalog and has no socket yet is starting or stopping; another command that holds it is
/// usually short.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

/// How often socket and lock are looked at again.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// Opens the books: the running steward's if there is one, else this process keeps them until they are dropped.
///
/// # Errors
/// [`OpenBooksError`].
pub fn open_books(paths: &BooksPaths) -> Result<SharedBooks, OpenBooksError> {
    open_books_within(paths, LOCK_PATIENCE)
}

pub(crate) fn open_books_within(
    paths: &BooksPaths,
    patience: Duration,
) -> Result<SharedBooks, OpenBooksError> {
    let deadline = Instant::now() + patience;
    loop {
        match SocketCarrier::connect(&paths.socket) {
            Ok(carrier) => return Ok(Arc::new(carrier)),
            Err(error) if absent(&error) => {}
            Err(source) => return Err(OpenBooksError::Socket { socket: paths.socket.clone(), source }),
        }
        match Catalog::open(&paths.catalog) {
            Ok(catalog) => return Ok(Arc::new(Local::new(catalog, wall_clock))),
            Err(OpenError::Locked { .. }) if Instant::now() < deadline => std::thread::sleep(LOCK_POLL),
            Err(error) => return Err(error.into()),
        }
    }
}

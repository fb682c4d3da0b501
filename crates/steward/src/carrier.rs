//! The way to a running steward's books, for any number of threads of another process.
//!
//! Each call has a connection to itself, and leaves it for the next. A steward that was restarted meanwhile is found
//! again once, if that can't do anything twice.

use crate::wire::{self, LINE_PATIENCE, REPLY_BYTES_MAX, REQUEST_BYTES_MAX, Reply};
use seedbank_catalog::{Carrier, CatalogError, Request, Response};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The longest wait for a reply: requests queue for one database, and some read all rows of a dataset.
const REPLY_PATIENCE: Duration = Duration::from_secs(120);

/// A steward that restarts is back within this time.
const RESTART_PATIENCE: Duration = Duration::from_secs(3);

/// How often a steward that restarts is looked for.
const RESTART_POLL: Duration = Duration::from_millis(50);

/// Connections kept for later calls: as many threads as a push has that ask the books.
const IDLE_MAX: usize = 8;

/// Carries requests to a steward's socket. Blocks until they are answered.
#[derive(Debug)]
pub struct SocketCarrier {
    socket: PathBuf,
    idle: Mutex<Vec<BufReader<UnixStream>>>,
}

/// Why an exchange came to nothing.
enum Broken {
    /// The request did not leave whole: it was not done.
    Unsent(io::Error),
    /// It left, and the connection ended: it was done or not.
    Unanswered(io::Error),
    /// It left, and there was no answer in time, or none that can be read.
    Hopeless(io::Error),
}

impl Broken {
    fn into_error(self) -> io::Error {
        match self {
            Broken::Unsent(error) | Broken::Unanswered(error) | Broken::Hopeless(error) => error,
        }
    }
}

impl SocketCarrier {
    /// Connects to the steward that listens on `socket`.
    ///
    /// # Errors
    /// What the system says: `NotFound` and `ConnectionRefused` mean that no steward runs.
    pub fn connect(socket: &Path) -> io::Result<SocketCarrier> {
        let carrier = SocketCarrier { socket: socket.to_owned(), idle: Mutex::default() };
        let first = carrier.dial()?;
        carrier.keep(first);
        Ok(carrier)
    }

    fn dial(&self) -> io::Result<BufReader<UnixStream>> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(REPLY_PATIENCE))?;
        stream.set_write_timeout(Some(LINE_PATIENCE))?;
        Ok(BufReader::new(stream))
    }

    /// Dials again for a while, since a steward may be restarting.
    fn dial_patiently(&self) -> io::Result<BufReader<UnixStream>> {
        let deadline = Instant::now() + RESTART_PATIENCE;
        loop {
            match self.dial() {
                Err(error) if absent(&error) && Instant::now() < deadline => std::thread::sleep(RESTART_POLL),
                result => return result,
            }
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<BufReader<UnixStream>>> {
        // Nothing is half done while it is held.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, connection: BufReader<UnixStream>) {
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
    }

    fn exchange(&self, mut connection: BufReader<UnixStream>, line: &[u8]) -> Result<Reply, Broken> {
        connection.get_mut().write_all(line).map_err(Broken::Unsent)?;
        let mut answer = Vec::new();
        let limit = u64::try_from(REPLY_BYTES_MAX).unwrap_or(u64::MAX);
        (&mut connection).take(limit).read_until(b'\n', &mut answer).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Broken::Hopeless(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))
            }
            _ => Broken::Unanswered(error),
        })?;
        if answer.last() != Some(&b'\n') {
            return Err(if answer.len() == REPLY_BYTES_MAX {
                Broken::Hopeless(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"))
            } else {
                Broken::Unanswered(io::ErrorKind::UnexpectedEof.into())
            });
        }
        let reply = serde_json::from_slice(&answer)
            .map_err(|error| Broken::Hopeless(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        self.keep(connection);
        Ok(reply)
    }

    fn unreachable(&self, error: &io::Error) -> CatalogError {
        CatalogError::Unreachable { message: format!("{}: {error}", self.socket.display()) }
    }
}

impl Carrier for SocketCarrier {
    fn call(&self, request: Request) -> Result<Response, CatalogError> {
        let line = wire::line(&request);
        if line.len() > REQUEST_BYTES_MAX {
            let reason = format!("a request of {} bytes is too long for the steward's socket", line.len());
            return Err(CatalogError::BadRequest { reason });
        }
        let idle = self.idle().pop();
        let first = idle.map_or_else(|| self.dial(), Ok).map_err(Broken::Unsent);
        match first.and_then(|connection| self.exchange(connection, &line)) {
            Ok(reply) => return reply.into(),
            Err(Broken::Unanswered(error)) if !wire::repeatable(&request) => {
                return Err(self.unreachable(&error));
            }
            Err(Broken::Hopeless(error)) => return Err(self.unreachable(&error)),
            Err(Broken::Unsent(_) | Broken::Unanswered(_)) => {}
        }
        // Other connections that were left are most likely as dead as this one.
        self.idle().clear();
        let again = self.dial_patiently().map_err(Broken::Unsent);
        match again.and_then(|connection| self.exchange(connection, &line)) {
            Ok(reply) => reply.into(),
            Err(broken) => Err(self.unreachable(&broken.into_error())),
        }
    }
}

/// Whether an error of connecting says that nobody listens.
pub(crate) fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

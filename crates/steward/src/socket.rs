//! Serves the books on a Unix socket: one connection a caller, one line a request.
//!
//! Whoever can open the socket is the owner: it has mode 0600, and no request names a user. A line that is no request
//! gets an error and costs nothing else. Nothing here decides anything about the books.

#[cfg(test)]
mod tests;

use crate::carrier::absent;
use crate::wire::{self, LINE_PATIENCE, REQUEST_BYTES_MAX, Reply};
use seedbank_catalog::{Carrier, CatalogError, Request};
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections at once. Each may hold one request in memory; further callers wait in the system's queue.
const CONNECTIONS_MAX: usize = 64;

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Stop it first, or use another socket.
    #[error("{} is served already by {}", socket.display(), pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")))]
    InUse {
        /// The socket.
        socket: PathBuf,
        /// Who serves it, as the system says.
        pid: Option<i32>,
    },
    /// Look at the folder.
    #[error("can't listen on {}", socket.display())]
    Disk {
        /// The socket.
        socket: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Hears of every request that was done.
pub(crate) type Observer = Arc<dyn Fn(&Request) + Send + Sync>;

/// An open socket, which goes with this value.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens at `path`. The caller holds the catalog's lock, so what a killed steward left there is replaced.
    pub(crate) async fn bind(path: &Path) -> Result<Socket, BindError> {
        let disk = |source| BindError::Disk { socket: path.to_owned(), source };
        match UnixStream::connect(path).await {
            Ok(live) => {
                let pid = live.peer_cred().ok().and_then(|peer| peer.pid());
                return Err(BindError::InUse { socket: path.to_owned(), pid });
            }
            Err(error) if absent(&error) => {}
            Err(error) => return Err(disk(error)),
        }
        // Under its final name the socket has its mode from the first moment on. The other name is not longer, since
        // the system limits these paths.
        let staged = path.with_extension("new");
        match std::fs::remove_file(&staged) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(disk(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&staged).map_err(disk)?;
        std::fs::set_permissions(&staged, Permissions::from_mode(0o600))
            .and_then(|()| std::fs::rename(&staged, path))
            .map_err(disk)?;
        Ok(Socket { listener, path: path.to_owned() })
    }

    /// Answers callers until `stop` says so; then requests that have begun are answered, and that was it.
    pub(crate) async fn serve(
        self,
        books: Arc<dyn Carrier + Send + Sync>,
        observer: Observer,
        mut stop: watch::Receiver<bool>,
    ) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
                self.listener.accept().await.map(|(stream, _)| (stream, slot))
            };
            let accepted = tokio::select! {
                _ = stop.wait_for(|stopping| *stopping) => break,
                Some(_ended) = connections.join_next() => continue,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, slot)) => {
                    let (books, observer, stop) = (Arc::clone(&books), Arc::clone(&observer), stop.clone());
                    connections.spawn(async move {
                        if let Err(error) = converse(stream, &books, &observer, stop).await {
                            tracing::debug!(%error, "caller's connection ended");
                        }
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "steward's socket could not accept a caller");
                    // Most likely the process has no file descriptor left; callers that end give theirs back.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // New callers find no socket and wait for the lock; those here come to their end.
        drop(self);
        while connections.join_next().await.is_some() {}
    }
}

/// After a failed accept.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, socket = %self.path.display(), "socket could not be removed");
        }
    }
}

/// How a line was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Whole,
    TooLong,
    /// The caller went away in the middle.
    Torn,
}

async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
    max: usize,
) -> io::Result<Line> {
    line.clear();
    let limit = u64::try_from(max).unwrap_or(u64::MAX);
    reader.take(limit).read_until(b'\n', line).await?;
    Ok(match line.last() {
        Some(b'\n') => Line::Whole,
        _ if line.len() == max => Line::TooLong,
        _ => Line::Torn,
    })
}

/// One caller's requests, one after another.
async fn converse(
    stream: UnixStream,
    books: &Arc<dyn Carrier + Send + Sync>,
    observer: &Observer,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        // Between two requests a connection may rest, and end.
        tokio::select! {
            biased;
            filled = reader.fill_buf() => if filled?.is_empty() { return Ok(()) },
            _ = stop.wait_for(|stopping| *stopping) => return Ok(()),
        }
        let (reply, goes_on) =
            match timeout(LINE_PATIENCE, read_line(&mut reader, &mut line, REQUEST_BYTES_MAX)).await?? {
                Line::Whole => (answer(books, observer, std::mem::take(&mut line)).await, true),
                Line::TooLong => (refusal("the request is too long"), false),
                Line::Torn => return Ok(()),
            };
        timeout(LINE_PATIENCE, write.write_all(&reply)).await??;
        if !goes_on {
            // Where the next request would begin is not known.
            return Ok(());
        }
    }
}

fn refusal(reason: impl Into<String>) -> Vec<u8> {
    wire::line(&Reply::Error(CatalogError::BadRequest { reason: reason.into() }))
}

/// Has a line answered where waiting for the database holds nobody else up.
async fn answer(books: &Arc<dyn Carrier + Send + Sync>, observer: &Observer, line: Vec<u8>) -> Vec<u8> {
    let (books, observer) = (Arc::clone(books), Arc::clone(observer));
    let answered = tokio::task::spawn_blocking(move || {
        let request: Request = match serde_json::from_slice(&line) {
            Ok(request) => request,
            Err(error) => return refusal(format!("not a request: {error}")),
        };
        let result = books.call(request.clone());
        if result.is_ok() {
            observer(&request);
        }
        wire::line(&Reply::from(result))
    });
    answered.await.unwrap_or_else(|_panicked| {
        wire::line(&Reply::Error(CatalogError::Unreachable {
            message: "the steward failed at this request".to_owned(),
        }))
    })
}

//! What a byte costs the one who sends it and the one who receives it: each end on a thread and a runtime of its own,
//! whose processor time is read before and after.

use super::paths::{Exchange, Serving, http_client, tcp_client, tls_client};
use super::{Flow, TRANSFER_BYTES, Transport};
use serde::Serialize;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Nanoseconds of processor time for each byte, by end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ends {
    /// Of the one who sends.
    pub sender: f64,
    /// Of the one who receives.
    pub receiver: f64,
}

/// What the two threads tell each other.
enum Turn {
    Listening(SocketAddr),
    Begun,
}

/// Moves `bytes`, rounded up to whole transfers of 16 MiB, over one connection. `clock` tells the calling thread's
/// processor time so far.
///
/// # Errors
/// The system's, when a local connection fails.
pub fn ends(transport: Transport, flow: Flow, bytes: u64, clock: fn() -> Duration) -> io::Result<Ends> {
    let transfers = u32::try_from(bytes.div_ceil(TRANSFER_BYTES).max(1)).map_err(io::Error::other)?;
    let (turns, from_server) = mpsc::channel();
    let (mut to_server, told) = tokio::sync::mpsc::channel(1);
    let server = std::thread::spawn(move || serve(transport, &turns, told, clock));
    let client = std::thread::spawn(move || -> io::Result<Duration> {
        let Ok(Turn::Listening(address)) = from_server.recv() else { return Err(gone()) };
        let runtime = runtime()?;
        match transport {
            Transport::Tcp => {
                let path = runtime.block_on(tcp_client(address))?;
                ask(&runtime, path, flow, transfers, &mut to_server, &from_server, clock)
            }
            Transport::Tls => {
                let path = runtime.block_on(tls_client(address))?;
                ask(&runtime, path, flow, transfers, &mut to_server, &from_server, clock)
            }
            Transport::Http => {
                let path = http_client(address);
                ask(&runtime, path, flow, transfers, &mut to_server, &from_server, clock)
            }
        }
    });
    let client = client.join().map_err(|_panicked| gone())??;
    let server = server.join().map_err(|_panicked| gone())??;
    let bytes = f64::from(transfers) * 16.0 * 1024.0 * 1024.0;
    let each = |time: Duration| time.as_secs_f64() * 1e9 / bytes;
    Ok(match flow {
        Flow::Download => Ends { sender: each(server), receiver: each(client) },
        Flow::Upload => Ends { sender: each(client), receiver: each(server) },
    })
}

/// One thread, so that all that an end does counts.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the other end of a measurement is gone")
}

/// Serves until it is told that all was moved; gives the processor time since it was told that it begins.
fn serve(
    transport: Transport,
    turns: &mpsc::Sender<Turn>,
    mut told: tokio::sync::mpsc::Receiver<()>,
    clock: fn() -> Duration,
) -> io::Result<Duration> {
    runtime()?.block_on(async move {
        let serving = Serving::start(transport).await?;
        turns.send(Turn::Listening(serving.address())).map_err(|_gone| gone())?;
        told.recv().await.ok_or_else(gone)?;
        let begun = clock();
        turns.send(Turn::Begun).map_err(|_gone| gone())?;
        told.recv().await.ok_or_else(gone)?;
        Ok(clock() - begun)
    })
}

fn ask(
    runtime: &Runtime,
    mut path: impl Exchange,
    flow: Flow,
    transfers: u32,
    to_server: &mut tokio::sync::mpsc::Sender<()>,
    from_server: &mpsc::Receiver<Turn>,
    clock: fn() -> Duration,
) -> io::Result<Duration> {
    runtime.block_on(path.transfer(flow, TRANSFER_BYTES))?;
    to_server.blocking_send(()).map_err(|_gone| gone())?;
    let Ok(Turn::Begun) = from_server.recv() else { return Err(gone()) };
    let begun = clock();
    for _ in 0..transfers {
        runtime.block_on(path.transfer(flow, TRANSFER_BYTES))?;
    }
    let used = clock() - begun;
    to_server.blocking_send(()).map_err(|_gone| gone())?;
    Ok(used)
}

//! Runs a steward: takes the catalog's lock, serves the books, keeps the datasets healthy, and ends in order.

use crate::books::BooksPaths;
use crate::metrics::Metrics;
use crate::monitor::Monitor;
use crate::rounds::{Pacing, Rounds, Step};
use crate::socket::{BindError, Socket};
use seedbank_catalog::{Catalog, Local, OpenError, Request};
use seedbank_client::SharedBooks;
use seedbank_client::maintain::{KeyLookup, Maintenance};
use seedbank_client::network::{Network, wall_clock};
use seedbank_client::registry::Registries;
use seedbank_formats::keys::SigningKey;
use seedbank_transport::serve_pages;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

/// Tells background work when to end.
pub(crate) type Stop = watch::Receiver<bool>;

/// Waits for the end; a sender that is gone means the same.
pub(crate) async fn stopped(stop: &mut Stop) {
    let _gone = stop.wait_for(|stop| *stop).await;
}

/// A request that has begun takes a second; whoever takes longer repeats it with the next steward.
const GRACE_DEFAULT: Duration = Duration::from_secs(5);

/// How often it is looked whether the last request has let go of the books.
const CLOSE_POLL: Duration = Duration::from_millis(10);

/// How to run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Where `/healthz` and `/metrics` are served: a loopback address, port 0 for any.
    pub metrics: SocketAddr,
    /// The folder of the deduplication indexes.
    pub index_dir: PathBuf,
    /// How often background steps run.
    pub pacing: Pacing,
    /// The chain's registries, where providers are found and datasets are named; `None` without a chain.
    pub registries: Option<Arc<Registries>>,
    /// How long requests in flight may take when the steward is told to end.
    pub grace: Duration,
}

impl RunOptions {
    /// The usual pace.
    #[must_use]
    pub fn new(metrics: SocketAddr, index_dir: PathBuf) -> RunOptions {
        RunOptions { metrics, index_dir, pacing: Pacing::default(), registries: None, grace: GRACE_DEFAULT }
    }
}

/// A steward that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// Where other processes of the owner ask for the books.
    pub socket: PathBuf,
    /// Where `/healthz` and `/metrics` are served.
    pub metrics: SocketAddr,
}

/// Why a steward does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another process keeps the books (it is named), or the catalog can't be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The socket can't be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Choose a loopback address: metrics tell what an owner stores and when.
    #[error("{0} is not a loopback address, and metrics are for this machine alone")]
    NotLoopback(SocketAddr),
    /// The address is taken, or not this machine's: choose another.
    #[error("can't serve metrics on {address}")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A bug ended some background work; everything was stopped in order. Start again, and report it.
    #[error("background work ended by itself")]
    Background,
}

/// Keeps the books at `paths` and the datasets in them healthy until `shutdown` is over. `on_ready` is called once, when
/// other processes can connect. Datasets of which `keys` finds no keys are neither completed nor collected, and heads are
/// written for those that belong to `owner`.
///
/// # Errors
/// [`RunError`].
pub async fn run(
    paths: &BooksPaths,
    options: RunOptions,
    network: Arc<Network>,
    owner: SigningKey,
    keys: KeyLookup,
    on_ready: impl FnOnce(Serving),
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    if !options.metrics.ip().to_canonical().is_loopback() {
        return Err(RunError::NotLoopback(options.metrics));
    }
    let folder = paths.catalog.clone();
    let opened = spawn_blocking(move || Catalog::open(&folder)).await;
    let catalog = opened.map_err(|_panicked| RunError::Background)??;
    let local = Arc::new(Local::new(catalog, wall_clock));
    let books: SharedBooks = Arc::clone(&local) as SharedBooks;

    let listening = TcpListener::bind(options.metrics).await;
    let failed = |source| RunError::Metrics { address: options.metrics, source };
    let listener = listening.map_err(failed)?;
    let metrics_address = listener.local_addr().map_err(failed)?;
    let socket = Socket::bind(&paths.socket).await?;

    let metrics = Arc::new(Metrics::new());
    let maintenance = Maintenance::new(Arc::clone(&books), network, keys)
        .with_index(&options.index_dir)
        .signing(Arc::new(owner));
    let maintenance = match options.registries {
        Some(registries) => maintenance.registered(registries),
        None => maintenance,
    };
    let rounds = Arc::new(Rounds::new(maintenance, Arc::clone(&metrics), options.pacing));
    let (stop, stops) = watch::channel(false);
    let heard = Arc::clone(&rounds);
    let observer = Arc::new(move |request: &Request| heard.heard(request));
    let mut tasks = JoinSet::new();
    tasks.spawn(socket.serve(Arc::clone(&books), observer, stops.clone()));
    let (monitor, mut until) = (Monitor { metrics, books: Arc::clone(&books) }, stops.clone());
    tasks.spawn(serve_pages(listener, monitor, async move { stopped(&mut until).await }));
    for step in Step::ALL {
        tasks.spawn(Arc::clone(&rounds).repeat(step, stops.clone()));
    }
    drop((rounds, books, stops));

    let serving = Serving { socket: paths.socket.clone(), metrics: metrics_address };
    tracing::info!(socket = %serving.socket.display(), metrics = %serving.metrics, "steward serves");
    on_ready(serving);
    let outcome = tokio::select! {
        () = shutdown => Ok(()),
        ended = tasks.join_next() => {
            tracing::error!(?ended, "background work ended by itself");
            Err(RunError::Background)
        }
    };

    tracing::info!("steward stops");
    stop.send_replace(true);
    let ended = timeout(options.grace, async { while tasks.join_next().await.is_some() {} });
    if ended.await.is_err() {
        tracing::warn!("requests cut at shutdown");
        tasks.shutdown().await;
    }
    close(local, options.grace).await;
    tracing::info!("steward stopped");
    outcome
}

/// Closes the catalog, so that its lock is free when this returns. What still asks it is a step that was cut short, on
/// its way to notice.
async fn close(local: Arc<Local>, grace: Duration) {
    let last = async {
        while Arc::strong_count(&local) > 1 {
            sleep(CLOSE_POLL).await;
        }
    };
    if timeout(grace, last).await.is_err() {
        tracing::warn!("books still in use at shutdown");
    }
    // Closing writes to the disk.
    if spawn_blocking(move || drop(local)).await.is_err() {
        tracing::error!("closing the books panicked");
    }
}

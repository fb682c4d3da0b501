//! Runs a provider: opens what `init` prepared, serves it, keeps it up, and ends in order.

use crate::bounds::{Buffers, DiskThreads, HeadShares, RequestSlots};
use crate::config::{Config, ConfigError, Strangers};
use crate::descriptors::{self, TooFew};
use crate::gate::Gate;
use crate::identity_file::{self, IdentityError};
use crate::init::DATA_DIR;
use crate::metrics::Metrics;
use crate::money::{self, Entry, Money, MoneyError};
use crate::monitor::Monitor;
use crate::service::{Service, now};
use crate::status::{self, Mode, Status, StatusUsage};
use crate::tokens::CheckedTokens;
use crate::upkeep::{CursorFile, Stop, Upkeep, stopped};
use seedbank_formats::keys::SigningKey;
use seedbank_formats::{PublicKey, Timestamp};
use seedbank_protocol::routes::PENDING_SECONDS_MAX;
use seedbank_store::{LockError, OpenError, QuotaPolicy, RealDisk, Store, StoreId};
use seedbank_transport::{Identity, Rate, Server, ServerLimits, serve_pages};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use tracing::{error, info, warn};

/// Requests of whole fragments take a second or two; who takes longer asks again elsewhere.
const GRACE_DEFAULT: Duration = Duration::from_secs(5);
/// The processes of one team, all of whose connections open at the same moment, twice over.
const HANDSHAKES_BURST: u32 = 512;
/// An eighth of what the store keeps for all.
const HEADS_PER_CLIENT_BYTES: usize = 8 << 20;
/// Fresh enough for a person who looks.
const STATUS_EVERY: Duration = Duration::from_secs(2);

/// How to run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// How long requests in flight may take when the daemon is told to end.
    pub grace: Duration,
}

impl Default for RunOptions {
    fn default() -> RunOptions {
        RunOptions { grace: GRACE_DEFAULT }
    }
}

/// A provider that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serving {
    /// Its key.
    pub key: PublicKey,
    /// Where clients connect to.
    pub address: SocketAddr,
    /// Where `/healthz` and `/metrics` are served.
    pub metrics: SocketAddr,
}

/// Why a provider does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Correct the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Restore the identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Another daemon serves this folder: stop it first.
    #[error("another daemon serves {0}")]
    InUse(PathBuf),
    /// The store's folder can't be used: check disk, mount and permissions.
    #[error("can't use the store's folder")]
    Data(#[source] LockError),
    /// The store can't be opened: its message says what to do.
    #[error("can't open the store")]
    Store(#[from] OpenError),
    /// The address is taken, or not this machine's: change `listen` or `metrics`.
    #[error("can't listen on {address} ({key})")]
    Listen {
        /// Which key of the configuration says so.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Raise the limit (`ulimit -n`, `LimitNOFILE=`).
    #[error("the system allows {allowed} file descriptors, at least {needed} are needed")]
    Descriptors {
        /// What the limit is.
        allowed: u64,
        /// What it must be.
        needed: u64,
    },
    /// The money side can't be used: its message says what to do.
    #[error("can't be paid")]
    Money(#[from] MoneyError),
    /// A bug ended some background work; everything was stopped in order. Start again, and report it.
    #[error("background work ended by itself")]
    Background,
}

/// What is opened before anything is served.
struct Opened {
    config: Config,
    key: SigningKey,
    store: Store,
}

impl Opened {
    fn open(dir: &Path) -> Result<Opened, RunError> {
        let config = Config::load(dir)?;
        let key = identity_file::load(dir)?;
        let disk = RealDisk::lock(&dir.join(DATA_DIR)).map_err(|error| match error {
            LockError::InUse(_) => RunError::InUse(dir.to_owned()),
            error @ LockError::Folder { .. } => RunError::Data(error),
        })?;
        let store = Store::open(Arc::new(disk), store_config(&config, key.public()))?;
        Ok(Opened { config, key, store })
    }
}

fn store_config(config: &Config, key: PublicKey) -> seedbank_store::Config {
    let others_bytes = match config.strangers {
        Strangers::Refused => 0,
        Strangers::Welcome { quota } => quota.0,
    };
    let clients = config.clients.iter().map(|(client, quota)| (*client, quota.0)).collect();
    seedbank_store::Config {
        reserve_bytes: config.reserve.0,
        grace_s: config.trash_grace_s,
        pending_s_max: PENDING_SECONDS_MAX,
        quotas: QuotaPolicy { clients, others_bytes },
        ..seedbank_store::Config::new(StoreId(key.0), config.capacity.0)
    }
}

/// Serves the provider in `dir` until `shutdown` is over, then ends in order. `on_ready` is called once, when clients
/// can connect.
///
/// # Errors
/// [`RunError`].
pub async fn run(
    dir: &Path,
    options: RunOptions,
    on_ready: impl FnOnce(Serving),
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let folder = dir.to_owned();
    let opened = spawn_blocking(move || Opened::open(&folder)).await.map_err(|error| {
        error!(%error, "opening panicked");
        RunError::Background
    })??;
    let mut config = opened.config;
    let connections = descriptors::connections(config.limits.connections);
    config.limits.connections =
        connections.map_err(|TooFew { allowed, needed }| RunError::Descriptors { allowed, needed })?;
    let config = Arc::new(config);
    let (key, store) = (Arc::new(opened.key), Arc::new(opened.store));
    let (gate, metrics) = (Arc::new(Gate::default()), Arc::new(Metrics::new()));
    let room_wanted = Arc::new(Notify::new());

    let listen = |key, address| move |source| RunError::Listen { key, address, source };
    let monitor_listener =
        TcpListener::bind(config.metrics).await.map_err(listen("metrics", config.metrics))?;
    let metrics_address = monitor_listener.local_addr().map_err(listen("metrics", config.metrics))?;

    let money = open_money(dir, &config, &key, &store).await?;

    // The receiver hears nothing, ever: it notices when the last sender is gone.
    let (feeding, mut fed) = mpsc::channel::<()>(1);
    let disk = DiskThreads::new();
    let service = Service {
        config: Arc::clone(&config),
        key: Arc::clone(&key),
        store: Arc::clone(&store),
        gate: Arc::clone(&gate),
        metrics: Arc::clone(&metrics),
        tokens: Arc::new(CheckedTokens::default()),
        buffers: Buffers::new(config.limits.buffers.0),
        disk: disk.clone(),
        slots: RequestSlots::new(config.limits.requests_per_client, config.limits.buffers_per_client()),
        heads: Arc::new(HeadShares::new(HEADS_PER_CLIENT_BYTES)),
        room_wanted: Arc::clone(&room_wanted),
        money: money.clone(),
        feeding,
    };
    let identity = Identity::new(&key);
    let server = Server::bind(config.listen, &identity, server_limits(&config), service)
        .await
        .map_err(listen("listen", config.listen))?;
    let serving = Serving { key: key.public(), address: server.local_address(), metrics: metrics_address };

    let (stop, stops) = watch::channel(false);
    let mut background = JoinSet::new();
    let monitor = Monitor {
        metrics: Arc::clone(&metrics),
        store: Arc::clone(&store),
        gate: Arc::clone(&gate),
        money: money.clone(),
    };
    let mut until = stops.clone();
    background.spawn(serve_pages(monitor_listener, monitor, async move { stopped(&mut until).await }));
    let upkeep = Upkeep {
        store: Arc::clone(&store),
        gate: Arc::clone(&gate),
        metrics: Arc::clone(&metrics),
        room_wanted,
        scrub_rate: config.scrub_rate.0,
    };
    background.spawn(upkeep.clone().watch_disk(stops.clone()));
    background.spawn(upkeep.clone().collect(stops.clone()));
    background.spawn(upkeep.scrub(CursorFile::in_folder(dir), stops.clone()));
    if let Some(money) = money {
        if money.config.public_address.is_none() && serving.address.ip().is_unspecified() {
            error!(address = %serving.address, "clients can't connect to what the registry says: set chain.public_address");
        }
        // The port is known since the server listens.
        let entry = Entry::of(&config, &money.config, serving.address);
        background.spawn(money::keep(money, entry, Arc::clone(&metrics), stops.clone()));
    }
    let journalist = Journalist {
        dir: dir.to_owned(),
        serving,
        config: Arc::clone(&config),
        started: now(),
        store: Arc::clone(&store),
        gate,
        metrics: Arc::clone(&metrics),
    };
    if let Err(error) = journalist.write().await {
        warn!(%error, "can't write the status");
    }
    background.spawn(journalist.clone().keep_writing(stops));

    info!(key = %serving.key, address = %serving.address, metrics = %serving.metrics, "provider serves");
    on_ready(serving);

    let outcome = {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut tick = tokio::time::interval(STATUS_EVERY);
        loop {
            tokio::select! {
                () = &mut shutdown => break Ok(()),
                Some(ended) = background.join_next() => {
                    error!(?ended, "background work ended by itself");
                    break Err(RunError::Background);
                }
                _ = tick.tick() => {
                    metrics.connections.set(u64::try_from(server.connections()).unwrap_or(u64::MAX));
                }
            }
        }
    };

    info!("provider stops");
    server.shutdown(options.grace).await;
    stop.send_replace(true);
    let ended = timeout(options.grace, async {
        while background.join_next().await.is_some() {}
        let _none = fed.recv().await;
        disk.idle().await;
    });
    if ended.await.is_err() {
        warn!("background work cut at shutdown: the disk hangs");
        background.shutdown().await;
    }
    let last = journalist.status(Mode::Stopped);
    drop(journalist);
    close(store, options.grace).await;
    if let Err(error) = status::write(dir, &last) {
        warn!(%error, "can't write the status");
    }
    info!("provider stopped");
    outcome
}

/// The money side, if the configuration says that there is one.
async fn open_money(
    dir: &Path,
    config: &Arc<Config>,
    key: &Arc<SigningKey>,
    store: &Arc<Store>,
) -> Result<Option<Arc<Money>>, RunError> {
    let Some(chain) = config.chain.clone() else { return Ok(None) };
    let (dir, prices) = (dir.to_owned(), config.prices);
    let (key, store) = (Arc::clone(key), Arc::clone(store));
    let opened = spawn_blocking(move || Money::open(&dir, &chain, prices, key, store));
    let opened = opened.await.map_err(|error| {
        error!(%error, "opening panicked");
        RunError::Background
    })?;
    Ok(Some(Arc::new(opened?)))
}

fn server_limits(config: &Config) -> ServerLimits {
    // A team's processes behind one address all connect at the same moment, when their job starts.
    ServerLimits {
        connections_max: config.limits.connections,
        connections_per_source_max: config.limits.connections_per_address,
        handshakes_max: config.limits.connections,
        handshakes_per_source_max: config.limits.connections_per_address,
        connections_per_key_max: config.limits.connections_per_client,
        handshake_rate: Rate { per_second: config.limits.handshakes_per_second, burst: HANDSHAKES_BURST },
        request_rate: Rate {
            per_second: config.limits.requests_per_second,
            burst: config.limits.requests_per_second.saturating_mul(2),
        },
        ..ServerLimits::default()
    }
}

/// Ends the store's committer, which carries through what was handed in, and gives its folder free.
async fn close(store: Arc<Store>, grace: Duration) {
    let Some(store) = Arc::into_inner(store) else {
        warn!("store still in use at shutdown: the disk hangs");
        return;
    };
    if timeout(grace, spawn_blocking(move || drop(store))).await.is_err() {
        warn!("store not closed in time: the disk hangs");
    }
}

/// Keeps `status.json` fresh.
#[derive(Clone)]
struct Journalist {
    dir: PathBuf,
    serving: Serving,
    config: Arc<Config>,
    started: Timestamp,
    store: Arc<Store>,
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
}

impl Journalist {
    /// Writes until the daemon ends.
    async fn keep_writing(self, mut stop: Stop) {
        let mut failing = false;
        while timeout(STATUS_EVERY, stopped(&mut stop)).await.is_err() {
            match self.write().await {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    warn!(%error, "can't write the status");
                    failing = true;
                }
                Err(_) => {}
            }
        }
    }

    async fn write(&self) -> io::Result<()> {
        let journalist = self.clone();
        let written = spawn_blocking(move || {
            let mode = match journalist.gate.closed_because(&journalist.store) {
                None => Mode::ReadWrite,
                Some(reason) => Mode::ReadOnly { reason },
            };
            status::write(&journalist.dir, &journalist.status(mode))
        });
        written.await.map_err(io::Error::other)?
    }

    fn status(&self, mode: Mode) -> Status {
        let pid = std::process::id();
        Status {
            pid,
            process_start_ticks: status::process_start_ticks(pid),
            started: self.started,
            written: now(),
            key: self.serving.key,
            address: self.serving.address,
            metrics: self.serving.metrics,
            operator: self.config.operator.clone(),
            region: self.config.region.clone(),
            mode,
            usage: self.store.usage().ok().as_ref().map(StatusUsage::from),
            counters: self.metrics.counters(),
        }
    }
}

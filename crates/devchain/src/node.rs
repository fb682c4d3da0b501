//! A node: the chain in a folder, open, and made longer by this process alone: as its sequencer, or by following one.

use crate::block::Block;
use crate::clock::{Clock, ClockControl};
use crate::epoch_call::EpochCall;
use crate::execution::Draft;
use crate::follower::{BeginError, Divergence, FollowError, Follower, genesis_of};
use crate::genesis::{CHAIN_ID_DEFAULT, Genesis, GenesisOptions};
use crate::header::{SignedHeader, address_of};
use crate::key_file::{self, KeyError};
use crate::leader::Leader;
use crate::limits::{Limits, SendRates};
use crate::rpc::Filters;
use crate::sequencer::{self, Command, SendError, Sequencer, THREAD_NAME, wall_clock, write_genesis};
use crate::shared::Shared;
use crate::store::{Store, StoreError, Writer};
use crate::waiting::Waiting;
use alloy_primitives::{Address, B256};
use k256::ecdsa::SigningKey;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot, watch};

/// Commands that wait for the sequencer; with more, callers are told that it is busy.
const COMMANDS_MAX: usize = 1_024;

/// A minute of silence is a sign that the chain stands; the blocks in between cost a megabyte a day.
const BLOCK_TIME_DEFAULT: Duration = Duration::from_secs(60);

/// How a node runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The chain id of a new chain, [`CHAIN_ID_DEFAULT`] if none is named; a chain that exists must have it.
    pub chain_id: Option<u64>,
    /// What else a new chain starts with. A chain that exists keeps its own.
    pub genesis: GenesisOptions,
    /// An empty block is made when none was for so long; never, if there is no such time.
    pub block_time: Option<Duration>,
    /// Whether tests may move the clock.
    pub clock: ClockControl,
    /// What one caller may ask for.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            chain_id: None,
            genesis: GenesisOptions::default(),
            block_time: Some(BLOCK_TIME_DEFAULT),
            clock: ClockControl::None,
            limits: Limits::default(),
        }
    }
}

/// Why a chain can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Check the folder and its permissions.
    #[error("can't use the folder {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Another process serves this chain: stop it first.
    #[error("another process has the chain in {0}")]
    InUse(PathBuf),
    /// See the key's own error.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key file is gone or another one: restore it, or follow this chain from another folder.
    #[error("the sequencer's key of the chain in {path} is not here: it signs as {sequencer}")]
    WrongKey {
        /// The folder.
        path: PathBuf,
        /// The address that signs.
        sequencer: Address,
    },
    /// Name the right chain id, or another folder.
    #[error("{path} holds chain {stored}, not chain {asked}")]
    WrongChain {
        /// The folder.
        path: PathBuf,
        /// Its chain id.
        stored: u64,
        /// The one that was asked for.
        asked: u64,
    },
    /// See the store's own error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// See the error of the beginning.
    #[error("can't begin to follow")]
    Begin(#[from] BeginError),
    /// Follow a node of the right chain, or from another folder.
    #[error("the chain to follow begins with block {asked}, not with {found}")]
    OtherChain {
        /// The block 0 that is known or was named.
        asked: B256,
        /// The one that was found.
        found: B256,
    },
}

/// Why an open node stopped by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// Its disk or a bug ended it. What was acknowledged is there when it is started again.
    #[error("the chain stopped: {0}")]
    Failed(String),
    /// It followed a sequencer that contradicts itself. It must not be followed any further.
    #[error("the chain is not followed any further: {0}")]
    Diverged(#[from] Divergence),
}

impl From<FollowError> for Stopped {
    fn from(error: FollowError) -> Stopped {
        match error {
            FollowError::Diverged(divergence) => Stopped::Diverged(divergence),
            FollowError::Store(_) | FollowError::Evm(_) => Stopped::Failed(error.to_string()),
        }
    }
}

/// What is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Following {
    /// The JSON-RPC of a node that has the chain, as `http://HOST:PORT`.
    pub url: String,
    /// The hash of block 0. Whatever that node has is believed to be the chain, once, if it is not said.
    pub genesis_hash: Option<B256>,
}

/// An open chain. Closed when it is dropped, after the commit under way.
pub struct Node {
    pub(crate) inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
    stopped: watch::Receiver<Option<Stopped>>,
    /// Dropped to end a follower.
    following: Option<oneshot::Sender<()>>,
}

/// What requests work with.
pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) limits: Limits,
    pub(crate) clock: ClockControl,
    pub(crate) calls: Arc<Semaphore>,
    pub(crate) filters: Filters,
    rates: Mutex<SendRates>,
    maker: Mutex<Maker>,
}

/// Why the sequencer did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("the chain is busy: {COMMANDS_MAX} requests wait; try again")]
    Busy,
    #[error("the chain is stopping")]
    Stopping,
    #[error("this node follows the chain and takes no transactions: send to the sequencer")]
    Follows,
}

/// Who can be asked to make blocks.
enum Maker {
    Sequencer(SyncSender<Command>),
    /// Somebody else.
    Elsewhere,
    /// Nobody any more.
    Gone,
}

impl Inner {
    /// Asks the sequencer, and waits until what it says is durable.
    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, AskError> {
        let (reply, answer) = oneshot::channel();
        {
            let maker = self.maker.lock().unwrap_or_else(PoisonError::into_inner);
            let commands = match &*maker {
                Maker::Sequencer(commands) => commands,
                Maker::Elsewhere => return Err(AskError::Follows),
                Maker::Gone => return Err(AskError::Stopping),
            };
            commands.try_send(command(reply)).map_err(|error| match error {
                TrySendError::Full(_) => AskError::Busy,
                TrySendError::Disconnected(_) => AskError::Stopping,
            })?;
        }
        answer.await.map_err(|_| AskError::Stopping)
    }

    /// Counts a transaction against its sender's rate.
    pub(crate) fn count_send(&self, sender: Address) -> Result<(), SendError> {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.take(sender, Instant::now()).map_err(|error| SendError::Refused(error.to_string()))
    }
}

impl Node {
    /// Opens the chain in `dir`, or makes one there.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(dir: &Path, config: Config) -> Result<Node, OpenError> {
        std::fs::create_dir_all(dir).map_err(|source| OpenError::Folder { path: dir.to_owned(), source })?;
        let store = open_store(dir)?;
        let snapshot = store.snapshot()?;
        let (genesis, key) = match snapshot.genesis()? {
            Some(genesis) => {
                let path = || dir.to_owned();
                if let Some(asked) = config.chain_id.filter(|asked| *asked != genesis.chain_id) {
                    return Err(OpenError::WrongChain { path: path(), stored: genesis.chain_id, asked });
                }
                let sequencer = genesis.sequencer;
                let is_its = |key: &SigningKey| address_of(key) == sequencer;
                let key = match key_file::load(dir)?.filter(is_its) {
                    Some(key) => key,
                    None => {
                        // A crash may have come between block 0 and the key's name.
                        let key = key_file::load_new(dir)?.filter(is_its);
                        let key = key.ok_or_else(|| OpenError::WrongKey { path: path(), sequencer })?;
                        key_file::settle(dir)?;
                        key
                    }
                };
                (genesis, key)
            }
            None => {
                if key_file::load(dir)?.is_some() {
                    let gone = "it holds no chain, but the key of one is beside it".to_owned();
                    return Err(StoreError::Damaged(gone).into());
                }
                let key = key_file::create(dir)?;
                let chain_id = config.chain_id.unwrap_or(CHAIN_ID_DEFAULT);
                let genesis = Genesis::new(&config.genesis, chain_id, address_of(&key), wall_clock());
                let transaction = store.begin()?;
                write_genesis(&mut Writer::open(&transaction)?, &genesis, &key)?;
                transaction.commit().map_err(StoreError::from)?;
                key_file::settle(dir)?;
                (genesis, key)
            }
        };
        let snapshot = store.snapshot()?;
        let head = snapshot.head()?.ok_or_else(|| StoreError::Damaged("it has no blocks".to_owned()))?;
        let clock = Clock::with_offset(match config.clock {
            ClockControl::Test => snapshot.clock_offset()?,
            ClockControl::None => 0,
        });
        let waiting = sequencer::reload(snapshot.waiting()?, &genesis)?;
        drop(snapshot);

        let shared = Arc::new(Shared::new(store, genesis, clock, waiting));
        let (commands, received) = sync_channel(COMMANDS_MAX);
        let sequencer = Sequencer::new(Arc::clone(&shared), key, head.header, config.block_time);
        let work = move || sequencer.run(&received).map_err(|error| Stopped::Failed(error.to_string()));
        Node::start(dir, shared, config, Maker::Sequencer(commands), None, work)
    }

    /// Opens the follower's copy in `dir`, or begins one, and keeps up with the node that is followed.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn follow(dir: &Path, following: &Following, config: Config) -> Result<Node, OpenError> {
        let leader = Leader::new(&following.url).map_err(BeginError::Ask)?;
        std::fs::create_dir_all(dir).map_err(|source| OpenError::Folder { path: dir.to_owned(), source })?;
        let store = open_store(dir)?;
        if store.snapshot()?.genesis()?.is_none() {
            let (genesis, header) = genesis_of(&leader).await?;
            begin_copy(&store, &genesis, header)?;
        }
        let snapshot = store.snapshot()?;
        let missing = || StoreError::Damaged("it has no blocks".to_owned());
        let genesis = snapshot.genesis()?.ok_or_else(missing)?;
        let found = snapshot.block(0)?.ok_or_else(missing)?.hash();
        if let Some(asked) = following.genesis_hash.filter(|asked| *asked != found) {
            return Err(OpenError::OtherChain { asked, found });
        }
        if let Some(asked) = config.chain_id.filter(|asked| *asked != genesis.chain_id) {
            return Err(OpenError::WrongChain { path: dir.to_owned(), stored: genesis.chain_id, asked });
        }
        let head = snapshot.head()?.ok_or_else(missing)?;
        drop(snapshot);
        let shared = Arc::new(Shared::new(store, genesis, Clock::default(), Waiting::default()));
        let follower = Follower::new(Arc::clone(&shared), leader, head.header, dir);
        let (stop, told_to_stop) = oneshot::channel();
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| Stopped::Failed(error.to_string()))?;
            runtime.block_on(follower.run(told_to_stop)).map_err(Stopped::from)
        };
        let config = Config { clock: ClockControl::None, ..config };
        Node::start(dir, shared, config, Maker::Elsewhere, Some(stop), work)
    }

    /// Starts the thread that makes the chain longer.
    fn start(
        dir: &Path,
        shared: Arc<Shared>,
        config: Config,
        maker: Maker,
        following: Option<oneshot::Sender<()>>,
        work: impl FnOnce() -> Result<(), Stopped> + Send + 'static,
    ) -> Result<Node, OpenError> {
        let (stop, stopped) = watch::channel(None);
        let work = move || {
            if let Err(why) = work() {
                tracing::error!(%why, "chain stopped");
                stop.send_replace(Some(why));
            }
        };
        let thread = std::thread::Builder::new()
            .name(THREAD_NAME.to_owned())
            .spawn(work)
            .map_err(|source| OpenError::Folder { path: dir.to_owned(), source })?;
        let inner = Inner {
            shared,
            calls: Arc::new(Semaphore::new(config.limits.calls_at_once_max)),
            filters: Filters::default(),
            rates: Mutex::new(SendRates::new(&config.limits)),
            limits: config.limits,
            clock: config.clock,
            maker: Mutex::new(maker),
        };
        Ok(Node { inner: Arc::new(inner), thread: Some(thread), stopped, following })
    }

    /// What the chain started with.
    #[must_use]
    pub fn genesis(&self) -> &Genesis {
        &self.inner.shared.genesis
    }

    /// From now on the sequencer makes this call in each epoch, also in the present one, before anybody else's transaction. It does nothing
    /// the second time in an epoch only if the contract sees to that: after a start it is made once more.
    ///
    /// # Errors
    /// [`Stopped`], also for a node that follows: it makes no transactions.
    pub async fn call_each_epoch(&self, call: EpochCall) -> Result<(), Stopped> {
        let asked = self.inner.ask(|reply| Command::CallEachEpoch(call, reply)).await;
        asked.map_err(|error| Stopped::Failed(error.to_string()))
    }

    /// Number and hash of the last block.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn head(&self) -> Result<(u64, B256), StoreError> {
        let head = self.inner.shared.store.snapshot()?.head()?;
        head.map(|head| (head.number(), head.hash()))
            .ok_or_else(|| StoreError::Damaged("it has no blocks".to_owned()))
    }

    /// Waits until the chain stops by itself. It answers nothing from then on.
    pub async fn stopped(&self) -> Stopped {
        let mut stopped = self.stopped.clone();
        match stopped.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_else(|| Stopped::Failed(String::new())),
            // The thread is gone without a word: it panicked.
            Err(_) => Stopped::Failed("a bug ended it".to_owned()),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        *self.inner.maker.lock().unwrap_or_else(PoisonError::into_inner) = Maker::Gone;
        drop(self.following.take());
        if let Some(thread) = self.thread.take() {
            // A panic was told when it happened.
            let _panicked = thread.join();
        }
    }
}

fn begin_copy(store: &Store, genesis: &Genesis, header: SignedHeader) -> Result<(), StoreError> {
    let transaction = store.begin()?;
    {
        let mut writer = Writer::open(&transaction)?;
        writer.put_genesis(genesis)?;
        let block = Block { header, transaction: None };
        let _nothing_before = writer.append(&block, None, &Draft::genesis(genesis).changes)?;
    }
    Ok(transaction.commit()?)
}

fn open_store(dir: &Path) -> Result<Store, OpenError> {
    Store::open(dir).map_err(|error| match error {
        StoreError::Database(redb::Error::DatabaseAlreadyOpen) => OpenError::InUse(dir.to_owned()),
        error => OpenError::Store(error),
    })
}

//! The one that makes blocks: a thread that owns the chain's end.
//!
//! Commands that arrive while a commit is under way share the next one. An answer leaves only after the commit that it
//! speaks of, so whoever has it can pull the plug.

use crate::block::{Block, Receipt};
use crate::clock::ClockError;
use crate::epoch_call::{EpochCall, EpochCaller};
use crate::execution::{Draft, ExecutionError};
use crate::genesis::Genesis;
use crate::header::{SignedHeader, address_of};
use crate::recent::Undo;
use crate::shared::Shared;
use crate::state::State;
use crate::store::{StoreError, Writer};
use crate::transaction::Transaction;
use crate::waiting::{WaitError, Waiting};
use alloy_primitives::{Address, B256, Bytes};
use k256::ecdsa::SigningKey;
use revm::context::result::InvalidTransaction;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Commands that share a commit. A commit takes some milliseconds; more of them would only make the first one wait.
const BATCH_MAX: usize = 64;

/// Blocks of one `evm_mine`: some seconds of work.
pub(crate) const MINE_MAX: u64 = 10_000;

/// Why a transaction was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SendError {
    #[error("nonce too low: next nonce {next}, tx nonce {nonce}")]
    NonceTooLow { next: u64, nonce: u64 },
    #[error("already known")]
    Known,
    #[error(transparent)]
    Waiting(#[from] WaitError),
    #[error("{0}")]
    Refused(String),
}

pub(crate) type Reply<T> = oneshot::Sender<T>;

/// What the thread can be asked for.
pub(crate) enum Command {
    /// Make a block of a transaction, or keep it until its turn.
    Send(Box<Transaction>, Reply<Result<B256, SendError>>),
    /// Make so many empty blocks.
    Mine(u64, Reply<()>),
    /// Move the clock ahead by so many seconds; gives by how much it is ahead.
    IncreaseTime(u64, Reply<Result<u64, ClockError>>),
    /// From now on, make this call in each epoch before anybody else's transaction.
    CallEachEpoch(EpochCall, Reply<()>),
    /// Set the time of the next block.
    SetNextTimestamp(u64, Reply<Result<(), ClockError>>),
}

/// What is told once a commit is durable.
type Telling = Box<dyn FnOnce() + Send>;

fn telling<T: Send + 'static>(reply: Reply<T>, answer: T) -> Telling {
    // Who asked may have gone.
    Box::new(move || drop(reply.send(answer)))
}

/// The chain's end, and the key that moves it on.
pub(crate) struct Sequencer {
    shared: Arc<Shared>,
    key: SigningKey,
    head: SignedHeader,
    heartbeat: Option<Duration>,
    epoch_caller: Option<EpochCaller>,
}

/// Signs and writes block 0.
pub(crate) fn write_genesis(
    writer: &mut Writer<'_>,
    genesis: &Genesis,
    key: &SigningKey,
) -> Result<(), StoreError> {
    let draft = Draft::genesis(genesis);
    let header = SignedHeader::sign(draft.header, genesis.chain_id, key);
    writer.put_genesis(genesis)?;
    let _nothing_before = writer.append(&Block { header, transaction: None }, None, &draft.changes)?;
    Ok(())
}

/// What a batch has done so far, beside what it wrote.
#[derive(Default)]
struct Batch {
    undos: Vec<(u64, Undo)>,
    wrote: bool,
    tellings: Vec<Telling>,
}

impl Sequencer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        key: SigningKey,
        head: SignedHeader,
        heartbeat: Option<Duration>,
    ) -> Sequencer {
        Sequencer { shared, key, head, heartbeat, epoch_caller: None }
    }

    /// Works until nobody can ask for anything any more.
    ///
    /// # Errors
    /// The store failed. What the last batch asked for is not answered, and may or may not be durable.
    pub(crate) fn run(mut self, commands: &Receiver<Command>) -> Result<(), StoreError> {
        let mut last_block = Instant::now();
        loop {
            let received = match self.heartbeat {
                Some(every) => {
                    let left = every.saturating_sub(last_block.elapsed());
                    commands.recv_timeout(left)
                }
                None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let mut batch = match received {
                Ok(command) => vec![command],
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            batch.extend(commands.try_iter().take(BATCH_MAX - batch.len()));
            let before = self.head.hash();
            self.step(batch)?;
            if self.head.hash() != before {
                last_block = Instant::now();
            }
        }
    }

    /// Does all that was asked for, in one commit; makes a heartbeat if nothing was.
    fn step(&mut self, commands: Vec<Command>) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let transaction = shared.store.begin()?;
        let mut batch = Batch::default();
        {
            let mut writer = Writer::open(&transaction)?;
            if commands.is_empty() {
                self.empty_block(&mut writer, &mut batch)?;
            }
            for command in commands {
                self.obey(&mut writer, &mut batch, command)?;
            }
        }
        if batch.wrote {
            // Before the blocks can be seen, so that no reader finds a block without its past.
            self.shared.remember(batch.undos);
            transaction.commit()?;
        } else {
            transaction.abort()?;
        }
        batch.tellings.into_iter().for_each(|tell| tell());
        Ok(())
    }

    fn obey(
        &mut self,
        writer: &mut Writer<'_>,
        batch: &mut Batch,
        command: Command,
    ) -> Result<(), StoreError> {
        match command {
            Command::Send(transaction, reply) => {
                let answer = self.send(writer, batch, *transaction)?;
                batch.tellings.push(telling(reply, answer));
            }
            Command::Mine(count, reply) => {
                for _ in 0..count.min(MINE_MAX) {
                    self.empty_block(writer, batch)?;
                }
                batch.tellings.push(telling(reply, ()));
            }
            Command::CallEachEpoch(call, reply) => {
                self.epoch_caller = Some(EpochCaller::new(call));
                self.call_of_the_epoch(writer, batch)?;
                batch.tellings.push(telling(reply, ()));
            }
            Command::IncreaseTime(seconds, reply) => {
                let answer = self.shared.clock().increase(seconds, wall_clock());
                self.keep_clock(writer, batch)?;
                batch.tellings.push(telling(reply, answer));
            }
            Command::SetNextTimestamp(timestamp, reply) => {
                let answer = self.shared.clock().set_next(timestamp, self.head.header().timestamp);
                batch.tellings.push(telling(reply, answer));
            }
        }
        Ok(())
    }

    fn send(
        &mut self,
        writer: &mut Writer<'_>,
        batch: &mut Batch,
        transaction: Transaction,
    ) -> Result<Result<B256, SendError>, StoreError> {
        let (sender, nonce, hash) = (transaction.sender(), transaction.nonce(), transaction.hash());
        let next = writer.nonce(sender)?;
        if nonce < next {
            let known = writer.transaction_is_known(hash)?;
            return Ok(Err(if known { SendError::Known } else { SendError::NonceTooLow { next, nonce } }));
        }
        if nonce > next {
            let raw = transaction.raw().clone();
            if let Err(why) = self.shared.waiting().add(transaction, next) {
                return Ok(Err(why.into()));
            }
            writer.put_waiting(sender, nonce, &raw)?;
            batch.wrote = true;
            return Ok(Ok(hash));
        }
        if let Err(why) = self.block_of(writer, batch, &transaction)? {
            return Ok(Err(SendError::Refused(told(&why))));
        }
        self.release(writer, batch, sender, nonce + 1)?;
        Ok(Ok(hash))
    }

    /// Makes blocks of what waited for the nonce that was just used.
    fn release(
        &mut self,
        writer: &mut Writer<'_>,
        batch: &mut Batch,
        sender: Address,
        mut nonce: u64,
    ) -> Result<(), StoreError> {
        // What waited for the nonce itself was sent again, or replaced.
        if self.shared.waiting().take(sender, nonce - 1).is_some() {
            writer.remove_waiting(sender, nonce - 1)?;
        }
        loop {
            let Some(transaction) = self.shared.waiting().take(sender, nonce) else { return Ok(()) };
            writer.remove_waiting(sender, nonce)?;
            batch.wrote = true;
            if let Err(why) = self.block_of(writer, batch, &transaction)? {
                let hash = transaction.hash();
                tracing::warn!(%sender, nonce, %hash, %why, "waiting transaction dropped when its turn came");
                return Ok(());
            }
            nonce += 1;
        }
    }

    fn empty_block(&mut self, writer: &mut Writer<'_>, batch: &mut Batch) -> Result<(), StoreError> {
        let refused = self.block(writer, batch, None)?;
        assert!(refused.is_ok(), "a block without a transaction has nothing to refuse");
        Ok(())
    }

    fn block_of(
        &mut self,
        writer: &mut Writer<'_>,
        batch: &mut Batch,
        transaction: &Transaction,
    ) -> Result<Result<(), InvalidTransaction>, StoreError> {
        self.block(writer, batch, Some(transaction))
    }

    /// Makes the next block, and before it what an epoch begins with, unless the transaction can't be run.
    fn block(
        &mut self,
        writer: &mut Writer<'_>,
        batch: &mut Batch,
        transaction: Option<&Transaction>,
    ) -> Result<Result<(), InvalidTransaction>, StoreError> {
        self.call_of_the_epoch(writer, batch)?;
        Ok(self.append(writer, batch, transaction)?.map(|_receipt| ()))
    }

    /// Begins an epoch, if this is the first block of one.
    fn call_of_the_epoch(&mut self, writer: &mut Writer<'_>, batch: &mut Batch) -> Result<(), StoreError> {
        let Some(caller) = &mut self.epoch_caller else { return Ok(()) };
        let timestamp = self.shared.clock().peek(wall_clock(), self.head.header().timestamp);
        let Some(call) = caller.take_due(timestamp) else { return Ok(()) };
        let nonce = writer.nonce(address_of(&self.key))?;
        let transaction = call.sign(&self.shared.genesis, &self.key, nonce);
        let empty = self.append(writer, batch, None)?;
        assert!(empty.is_ok(), "a block without a transaction has nothing to refuse");
        match self.append(writer, batch, Some(&transaction))? {
            Ok(Some(receipt)) if receipt.succeeded => {}
            Ok(_) => tracing::error!(hash = %transaction.hash(), "the call of the epoch failed"),
            Err(why) => tracing::error!(%why, "the call of the epoch is refused"),
        }
        Ok(())
    }

    /// Makes the next block, unless its transaction can't be run.
    fn append(
        &mut self,
        writer: &mut Writer<'_>,
        batch: &mut Batch,
        transaction: Option<&Transaction>,
    ) -> Result<Result<Option<Receipt>, InvalidTransaction>, StoreError> {
        let (wall, parent) = (wall_clock(), self.head.header().timestamp);
        let timestamp = self.shared.clock().peek(wall, parent);
        let genesis = &self.shared.genesis;
        let draft = match Draft::next(genesis, &*writer, &self.head, timestamp, transaction) {
            Ok(draft) => draft,
            Err(ExecutionError::Refused(why)) => return Ok(Err(why)),
            Err(ExecutionError::Store(error)) => return Err(error),
            Err(ExecutionError::Evm(why)) => {
                // A bug, and one transaction's: the others must not suffer for it.
                tracing::error!(%why, "EVM failed");
                return Ok(Err(InvalidTransaction::Str(why.into())));
            }
        };
        let header = SignedHeader::sign(draft.header, genesis.chain_id, &self.key);
        let raw: Option<Bytes> = transaction.map(|transaction| transaction.raw().clone());
        let block = Block { header, transaction: raw };
        let receipt = transaction.map(Transaction::hash).zip(draft.receipt.as_ref());
        let undo = writer.append(&block, receipt, &draft.changes)?;
        let had_offset = self.shared.clock().offset_s();
        self.shared.clock().take(wall, parent);
        if self.shared.clock().offset_s() != had_offset {
            self.keep_clock(writer, batch)?;
        }
        batch.undos.push((block.number(), undo));
        batch.wrote = true;
        self.head = block.header;
        Ok(Ok(draft.receipt))
    }

    fn keep_clock(&self, writer: &mut Writer<'_>, batch: &mut Batch) -> Result<(), StoreError> {
        let offset_s = self.shared.clock().offset_s();
        batch.wrote = true;
        writer.put_clock_offset(offset_s)
    }
}

/// The refusal in the words that tools look for.
fn told(why: &InvalidTransaction) -> String {
    match why {
        InvalidTransaction::LackOfFundForMaxFee { fee, balance } => {
            format!("insufficient funds for gas * price + value: balance {balance}, needed {fee}")
        }
        InvalidTransaction::CallGasCostMoreThanGasLimit { initial_gas, gas_limit } => {
            format!("intrinsic gas too low: gas {gas_limit}, minimum needed {initial_gas}")
        }
        other => other.to_string(),
    }
}

/// Transactions that waited when the chain was closed.
pub(crate) fn reload(stored: Vec<Bytes>, genesis: &Genesis) -> Result<Waiting, StoreError> {
    let mut waiting = Waiting::default();
    for raw in stored {
        let transaction = Transaction::check(&raw, genesis)
            .map_err(|error| StoreError::Damaged(format!("a waiting transaction can't be read: {error}")))?;
        waiting
            .add(transaction, 0)
            .map_err(|error| StoreError::Damaged(format!("a waiting transaction has no place: {error}")))?;
    }
    Ok(waiting)
}

/// Seconds of the Unix epoch.
pub(crate) fn wall_clock() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // A machine that believes in 1969 makes blocks with their parents' time until it knows better.
    since.map_or(0, |since| since.as_secs())
}

/// How the thread is named.
pub(crate) const THREAD_NAME: &str = "sequencer";

//! Everything durable, in one redb file: state, blocks, receipts, indexes, waiting transactions.
//!
//! A block and all that it changes are written in one transaction, so the file holds a whole number of blocks however the
//! process ends. Readers see the last commit and are never in a writer's way.

use crate::block::{Block, Receipt, stored_hash};
use crate::changes::{Changes, Storage};
use crate::genesis::Genesis;
use crate::recent::Undo;
use crate::state::{Account, State};
use alloy_primitives::{Address, B256, Bloom, Bytes, U256};
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition,
    WriteTransaction,
};
use std::fs::File;
use std::io;
use std::path::Path;

#[cfg(test)]
mod tests;

/// The database's file name in a chain's folder.
pub const DATABASE_FILE: &str = "chain.redb";

/// Its name while it is made.
const UNFINISHED_FILE: &str = "chain.redb.new";

/// Enough for the working set of a busy local network; the rest is the system's cache.
const CACHE_BYTES: usize = 64 << 20;

/// Moves with what is stored.
const FORMAT: &[u8] = b"seedbank chain 1";

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const ACCOUNTS: TableDefinition<&[u8; 20], &[u8; 72]> = TableDefinition::new("accounts");
const CODE: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("code");
const SLOTS: TableDefinition<&[u8; 52], &[u8; 32]> = TableDefinition::new("slots");
const BLOCKS: TableDefinition<u64, &[u8]> = TableDefinition::new("blocks");
const NUMBERS: TableDefinition<&[u8; 32], u64> = TableDefinition::new("numbers");
const RECEIPTS: TableDefinition<u64, &[u8]> = TableDefinition::new("receipts");
const TRANSACTIONS: TableDefinition<&[u8; 32], u64> = TableDefinition::new("transactions");
/// Only blocks with logs have a row: heartbeats cost a search nothing.
const BLOOMS: TableDefinition<u64, &[u8; 256]> = TableDefinition::new("blooms");
/// Sender and nonce; hash and transaction.
const WAITING: TableDefinition<&[u8; 28], &[u8]> = TableDefinition::new("waiting");

const GENESIS_KEY: &str = "genesis";
const FORMAT_KEY: &str = "format";
const CLOCK_KEY: &str = "clock offset";

/// Why the store failed. Either way the process must end: what it holds in memory may be ahead of the disk.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Restore the folder from a copy, or start over and follow another node.
    #[error("the chain's database is damaged: {0}")]
    Damaged(String),
    /// Check disk and permissions, then start again: acknowledged transactions are there.
    #[error("the chain's database failed")]
    Database(#[source] redb::Error),
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> StoreError {
        match error.into() {
            redb::Error::Corrupted(what) => StoreError::Damaged(what),
            error => StoreError::Database(error),
        }
    }
}

fn damaged(what: impl Into<String>) -> StoreError {
    StoreError::Damaged(what.into())
}

/// The open database.
#[derive(Debug)]
pub(crate) struct Store {
    database: Database,
}

impl Store {
    /// Opens the database in `dir`, or makes an empty one.
    pub(crate) fn open(dir: &Path) -> Result<Store, StoreError> {
        let path = dir.join(DATABASE_FILE);
        if !path.exists() {
            create(dir)?;
        }
        Store::of(Database::builder().set_cache_size(CACHE_BYTES).open(&path)?)
    }

    /// Makes sure that it is one of ours, and that every table is there.
    fn of(database: Database) -> Result<Store, StoreError> {
        let store = Store { database };
        let transaction = store.begin()?;
        {
            // Opens every table, so that readers find them.
            let mut writer = Writer::open(&transaction)?;
            let format = writer.meta.get(FORMAT_KEY)?.map(|format| format.value().to_vec());
            match format {
                None => {
                    writer.meta.insert(FORMAT_KEY, FORMAT)?;
                }
                Some(format) if format == FORMAT => {}
                Some(format) => {
                    let format = String::from_utf8_lossy(&format).into_owned();
                    return Err(damaged(format!(
                        "it has format {format:?}, which this program does not know"
                    )));
                }
            }
        }
        transaction.commit()?;
        Ok(store)
    }

    pub(crate) fn begin(&self) -> Result<WriteTransaction, StoreError> {
        Ok(self.database.begin_write()?)
    }

    /// The state of the last commit.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Snapshot::open(&self.database.begin_read()?)
    }
}

/// Makes an empty database. It has its name once it is whole: a half-made file is no database, and would be refused for ever.
fn create(dir: &Path) -> Result<(), StoreError> {
    let unfinished = dir.join(UNFINISHED_FILE);
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    drop(Store::of(Database::create(&unfinished)?)?);
    std::fs::rename(&unfinished, dir.join(DATABASE_FILE))?;
    // Its name must survive a power cut, or the first acknowledged transactions would not.
    Ok(File::open(dir)?.sync_all()?)
}

/// What was committed last, as it stays for this reader.
pub(crate) struct Snapshot {
    meta: ReadOnlyTable<&'static str, &'static [u8]>,
    accounts: ReadOnlyTable<&'static [u8; 20], &'static [u8; 72]>,
    code: ReadOnlyTable<&'static [u8; 32], &'static [u8]>,
    slots: ReadOnlyTable<&'static [u8; 52], &'static [u8; 32]>,
    blocks: ReadOnlyTable<u64, &'static [u8]>,
    numbers: ReadOnlyTable<&'static [u8; 32], u64>,
    receipts: ReadOnlyTable<u64, &'static [u8]>,
    transactions: ReadOnlyTable<&'static [u8; 32], u64>,
    blooms: ReadOnlyTable<u64, &'static [u8; 256]>,
    waiting: ReadOnlyTable<&'static [u8; 28], &'static [u8]>,
}

impl Snapshot {
    fn open(transaction: &ReadTransaction) -> Result<Snapshot, StoreError> {
        Ok(Snapshot {
            meta: transaction.open_table(META)?,
            accounts: transaction.open_table(ACCOUNTS)?,
            code: transaction.open_table(CODE)?,
            slots: transaction.open_table(SLOTS)?,
            blocks: transaction.open_table(BLOCKS)?,
            numbers: transaction.open_table(NUMBERS)?,
            receipts: transaction.open_table(RECEIPTS)?,
            transactions: transaction.open_table(TRANSACTIONS)?,
            blooms: transaction.open_table(BLOOMS)?,
            waiting: transaction.open_table(WAITING)?,
        })
    }

    pub(crate) fn genesis(&self) -> Result<Option<Genesis>, StoreError> {
        let Some(stored) = self.meta.get(GENESIS_KEY)? else { return Ok(None) };
        let genesis = serde_json::from_slice(stored.value());
        genesis.map(Some).map_err(|error| damaged(format!("its genesis can't be read: {error}")))
    }

    /// By how many seconds a test moved the clock.
    pub(crate) fn clock_offset(&self) -> Result<u64, StoreError> {
        let Some(stored) = self.meta.get(CLOCK_KEY)? else { return Ok(0) };
        let bytes = stored.value().try_into().map_err(|_| damaged("its clock offset can't be read"))?;
        Ok(u64::from_be_bytes(bytes))
    }

    /// The last block.
    pub(crate) fn head(&self) -> Result<Option<Block>, StoreError> {
        let Some((number, stored)) = self.blocks.last()? else { return Ok(None) };
        decode_block(number.value(), stored.value()).map(Some)
    }

    pub(crate) fn block(&self, number: u64) -> Result<Option<Block>, StoreError> {
        let Some(stored) = self.blocks.get(number)? else { return Ok(None) };
        decode_block(number, stored.value()).map(Some)
    }

    pub(crate) fn block_number(&self, hash: B256) -> Result<Option<u64>, StoreError> {
        Ok(self.numbers.get(&hash.0)?.map(|number| number.value()))
    }

    pub(crate) fn transaction_block(&self, hash: B256) -> Result<Option<u64>, StoreError> {
        Ok(self.transactions.get(&hash.0)?.map(|number| number.value()))
    }

    pub(crate) fn receipt(&self, number: u64) -> Result<Option<Receipt>, StoreError> {
        let Some(stored) = self.receipts.get(number)? else { return Ok(None) };
        let receipt = Receipt::decode(stored.value());
        receipt.map(Some).ok_or_else(|| damaged(format!("the receipt of block {number} can't be read")))
    }

    /// The blocks from `first` to `last` that may hold logs that `wanted` wants, ascending.
    pub(crate) fn blocks_with_logs(
        &self,
        first: u64,
        last: u64,
        wanted: impl Fn(&Bloom) -> bool,
    ) -> Result<Vec<u64>, StoreError> {
        let mut found = Vec::new();
        for row in self.blooms.range(first..=last)? {
            let (number, bloom) = row?;
            if wanted(&Bloom::new(*bloom.value())) {
                found.push(number.value());
            }
        }
        Ok(found)
    }

    /// All transactions that wait for their turn.
    pub(crate) fn waiting(&self) -> Result<Vec<Bytes>, StoreError> {
        let mut all = Vec::new();
        for row in self.waiting.iter()? {
            all.push(Bytes::copy_from_slice(row?.1.value()));
        }
        Ok(all)
    }
}

fn decode_block(number: u64, stored: &[u8]) -> Result<Block, StoreError> {
    Block::decode(stored)
        .filter(|block| block.number() == number)
        .ok_or_else(|| damaged(format!("block {number} can't be read")))
}

impl State for Snapshot {
    fn account(&self, address: Address) -> Result<Option<Account>, StoreError> {
        account(&self.accounts, address)
    }

    fn code(&self, hash: B256) -> Result<Bytes, StoreError> {
        code(&self.code, hash)
    }

    fn slot(&self, address: Address, index: U256) -> Result<U256, StoreError> {
        slot(&self.slots, address, index)
    }

    fn block_hash(&self, number: u64) -> Result<Option<B256>, StoreError> {
        block_hash(&self.blocks, number)
    }
}

/// The tables of a write transaction, with all that was written in it so far.
pub(crate) struct Writer<'t> {
    meta: Table<'t, &'static str, &'static [u8]>,
    accounts: Table<'t, &'static [u8; 20], &'static [u8; 72]>,
    code: Table<'t, &'static [u8; 32], &'static [u8]>,
    slots: Table<'t, &'static [u8; 52], &'static [u8; 32]>,
    blocks: Table<'t, u64, &'static [u8]>,
    numbers: Table<'t, &'static [u8; 32], u64>,
    receipts: Table<'t, u64, &'static [u8]>,
    transactions: Table<'t, &'static [u8; 32], u64>,
    blooms: Table<'t, u64, &'static [u8; 256]>,
    waiting: Table<'t, &'static [u8; 28], &'static [u8]>,
}

impl<'t> Writer<'t> {
    pub(crate) fn open(transaction: &'t WriteTransaction) -> Result<Writer<'t>, StoreError> {
        Ok(Writer {
            meta: transaction.open_table(META)?,
            accounts: transaction.open_table(ACCOUNTS)?,
            code: transaction.open_table(CODE)?,
            slots: transaction.open_table(SLOTS)?,
            blocks: transaction.open_table(BLOCKS)?,
            numbers: transaction.open_table(NUMBERS)?,
            receipts: transaction.open_table(RECEIPTS)?,
            transactions: transaction.open_table(TRANSACTIONS)?,
            blooms: transaction.open_table(BLOOMS)?,
            waiting: transaction.open_table(WAITING)?,
        })
    }

    pub(crate) fn put_genesis(&mut self, genesis: &Genesis) -> Result<(), StoreError> {
        let text = serde_json::to_vec(genesis).expect("a genesis has string keys only");
        self.meta.insert(GENESIS_KEY, text.as_slice())?;
        Ok(())
    }

    pub(crate) fn put_clock_offset(&mut self, seconds: u64) -> Result<(), StoreError> {
        self.meta.insert(CLOCK_KEY, seconds.to_be_bytes().as_slice())?;
        Ok(())
    }

    /// Appends a block, its receipt and its changes; gives what it takes to see the state before it.
    pub(crate) fn append(
        &mut self,
        block: &Block,
        transaction: Option<(B256, &Receipt)>,
        changes: &Changes,
    ) -> Result<Undo, StoreError> {
        let number = block.number();
        self.blocks.insert(number, block.encoded().as_slice())?;
        self.numbers.insert(&block.hash().0, number)?;
        if let Some((hash, receipt)) = transaction {
            self.transactions.insert(&hash.0, number)?;
            self.receipts.insert(number, receipt.encoded().as_slice())?;
            if !receipt.logs.is_empty() {
                self.blooms.insert(number, &block.header.header().logs_bloom.0.0)?;
            }
        }
        for (hash, bytes) in &changes.code {
            self.code.insert(&hash.0, bytes.as_ref())?;
        }
        let mut undo = Undo::default();
        for (address, change) in &changes.accounts {
            undo.accounts.insert(*address, change.account.before);
            match &change.account.after {
                Some(account) => self.accounts.insert(&address.0.0, &encode_account(account))?,
                None => self.accounts.remove(&address.0.0)?,
            };
            if change.storage == Storage::Wiped {
                self.wipe(*address, &mut undo)?;
            }
            for (index, value) in &change.slots {
                undo.slots.insert((*address, *index), value.before);
                let key = slot_key(*address, *index);
                if value.after.is_zero() {
                    self.slots.remove(&key)?;
                } else {
                    self.slots.insert(&key, &value.after.to_be_bytes::<32>())?;
                }
            }
        }
        Ok(undo)
    }

    fn wipe(&mut self, address: Address, undo: &mut Undo) -> Result<(), StoreError> {
        let (first, last) = (slot_key(address, U256::ZERO), slot_key(address, U256::MAX));
        for row in self.slots.extract_from_if::<&[u8; 52], _>(&first..=&last, |_, _| true)? {
            let (key, value) = row?;
            let index = U256::from_be_slice(&key.value()[20..]);
            undo.slots.insert((address, index), U256::from_be_slice(value.value()));
        }
        Ok(())
    }

    pub(crate) fn put_waiting(&mut self, sender: Address, nonce: u64, raw: &[u8]) -> Result<(), StoreError> {
        self.waiting.insert(&waiting_key(sender, nonce), raw)?;
        Ok(())
    }

    pub(crate) fn remove_waiting(&mut self, sender: Address, nonce: u64) -> Result<(), StoreError> {
        self.waiting.remove(&waiting_key(sender, nonce))?;
        Ok(())
    }

    pub(crate) fn transaction_is_known(&self, hash: B256) -> Result<bool, StoreError> {
        Ok(self.transactions.get(&hash.0)?.is_some())
    }
}

impl State for Writer<'_> {
    fn account(&self, address: Address) -> Result<Option<Account>, StoreError> {
        account(&self.accounts, address)
    }

    fn code(&self, hash: B256) -> Result<Bytes, StoreError> {
        code(&self.code, hash)
    }

    fn slot(&self, address: Address, index: U256) -> Result<U256, StoreError> {
        slot(&self.slots, address, index)
    }

    fn block_hash(&self, number: u64) -> Result<Option<B256>, StoreError> {
        block_hash(&self.blocks, number)
    }
}

fn account(
    table: &impl ReadableTable<&'static [u8; 20], &'static [u8; 72]>,
    address: Address,
) -> Result<Option<Account>, StoreError> {
    let Some(stored) = table.get(&address.0.0)? else { return Ok(None) };
    let bytes: &[u8; 72] = stored.value();
    let (nonce, rest) = bytes.split_first_chunk::<8>().expect("72 bytes hold 8");
    let (balance, code_hash) = rest.split_at(32);
    Ok(Some(Account {
        nonce: u64::from_be_bytes(*nonce),
        balance: U256::from_be_slice(balance),
        code_hash: B256::from_slice(code_hash),
    }))
}

fn encode_account(account: &Account) -> [u8; 72] {
    let mut bytes = [0; 72];
    bytes[..8].copy_from_slice(&account.nonce.to_be_bytes());
    bytes[8..40].copy_from_slice(&account.balance.to_be_bytes::<32>());
    bytes[40..].copy_from_slice(account.code_hash.as_slice());
    bytes
}

fn code(
    table: &impl ReadableTable<&'static [u8; 32], &'static [u8]>,
    hash: B256,
) -> Result<Bytes, StoreError> {
    let stored = table.get(&hash.0)?.ok_or_else(|| damaged(format!("code {hash} is missing")))?;
    Ok(Bytes::copy_from_slice(stored.value()))
}

fn slot(
    table: &impl ReadableTable<&'static [u8; 52], &'static [u8; 32]>,
    address: Address,
    index: U256,
) -> Result<U256, StoreError> {
    let stored = table.get(&slot_key(address, index))?;
    Ok(stored.map_or(U256::ZERO, |stored| U256::from_be_slice(stored.value())))
}

fn block_hash(
    table: &impl ReadableTable<u64, &'static [u8]>,
    number: u64,
) -> Result<Option<B256>, StoreError> {
    let Some(stored) = table.get(number)? else { return Ok(None) };
    let hash = stored_hash(stored.value());
    hash.map(Some).ok_or_else(|| damaged(format!("block {number} can't be read")))
}

fn slot_key(address: Address, index: U256) -> [u8; 52] {
    let mut key = [0; 52];
    key[..20].copy_from_slice(address.as_slice());
    key[20..].copy_from_slice(&index.to_be_bytes::<32>());
    key
}

fn waiting_key(sender: Address, nonce: u64) -> [u8; 28] {
    let mut key = [0; 28];
    key[..20].copy_from_slice(sender.as_slice());
    key[20..].copy_from_slice(&nonce.to_be_bytes());
    key
}

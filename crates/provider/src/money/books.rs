//! What the provider knows about money, in a database of its own: `money.db`.
//!
//! Everything that was signed, accepted or earned is here before anybody hears of it: SQLite in WAL mode with
//! `synchronous=FULL`, so a commit is on disk when it returns. Nothing in it moves money; it is the evidence for what does.
//!
//! A set is kept as its fragments, each with the sequences between which it belongs to it: so the set that is proven now,
//! the one that was posted and the one that was agreed last are all there without copies.

mod agreements;
mod costs;
mod earnings;
mod reading;

pub(crate) use agreements::{AgreementRow, PendingProposal, State, Terms};
pub use costs::CostReport;
pub use earnings::Fate;
pub(crate) use earnings::LedgerRow;
pub(crate) use reading::{Accounts, RedemptionRow};

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use seedbank_agreement::{Address, Amount};
use seedbank_formats::Timestamp;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The database's file name in a provider's folder.
pub(crate) const BOOKS_FILE: &str = "money.db";

const SCHEMA_VERSION: i64 = 2;
/// Before costs were kept.
const WITHOUT_COSTS: i64 = 1;

/// Somebody who looks (`provider status`) holds a lock for milliseconds.
const BUSY: Duration = Duration::from_secs(10);

const SCHEMA: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE quotes (
    rent TEXT NOT NULL, egress TEXT NOT NULL, epochs_min INTEGER NOT NULL, expires INTEGER NOT NULL
) STRICT;
CREATE TABLE wallets (key BLOB PRIMARY KEY, client BLOB NOT NULL, binding BLOB NOT NULL) STRICT;
CREATE TABLE proposals (
    digest BLOB PRIMARY KEY, client BLOB NOT NULL UNIQUE, key BLOB NOT NULL, request BLOB NOT NULL,
    rent TEXT NOT NULL, received INTEGER NOT NULL, outcome TEXT
) STRICT;
CREATE TABLE agreements (
    id INTEGER PRIMARY KEY, client BLOB NOT NULL, key BLOB NOT NULL, proposal BLOB NOT NULL UNIQUE, rent TEXT NOT NULL,
    sequence INTEGER NOT NULL, opened BLOB NOT NULL, closed INTEGER
) STRICT;
CREATE INDEX agreements_of_client ON agreements (client);
CREATE TABLE terms (
    agreement INTEGER NOT NULL, sequence INTEGER NOT NULL, set_root BLOB NOT NULL, size INTEGER NOT NULL,
    rate TEXT NOT NULL, from_epoch INTEGER NOT NULL, end_epoch INTEGER NOT NULL, retained_bytes INTEGER NOT NULL,
    retained_until INTEGER NOT NULL, signed TEXT, signature TEXT, posted BLOB,
    PRIMARY KEY (agreement, sequence)
) STRICT, WITHOUT ROWID;
CREATE TABLE leaves (
    agreement INTEGER NOT NULL, fragment BLOB NOT NULL, since INTEGER NOT NULL, gone INTEGER,
    length INTEGER NOT NULL, retain_until INTEGER NOT NULL,
    PRIMARY KEY (agreement, fragment, since)
) STRICT, WITHOUT ROWID;
CREATE INDEX leaves_of_fragment ON leaves (fragment);
CREATE TABLE epochs (
    epoch INTEGER PRIMARY KEY, fate TEXT, trouble TEXT, proof BLOB, slashed TEXT
) STRICT;
CREATE TABLE ledger (
    agreement INTEGER NOT NULL, epoch INTEGER NOT NULL, fate TEXT NOT NULL, amount TEXT NOT NULL,
    PRIMARY KEY (agreement, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE lanes (
    payer BLOB NOT NULL, signer BLOB NOT NULL, lane TEXT NOT NULL, since INTEGER NOT NULL,
    PRIMARY KEY (payer, signer)
) STRICT, WITHOUT ROWID;
CREATE TABLE redemptions (
    txn BLOB NOT NULL, payer BLOB NOT NULL, signer BLOB NOT NULL, paid TEXT NOT NULL, cumulative TEXT NOT NULL,
    time INTEGER NOT NULL, voucher TEXT NOT NULL, PRIMARY KEY (txn, payer, signer)
) STRICT, WITHOUT ROWID;
CREATE TABLE accounts (
    key BLOB PRIMARY KEY, network BLOB NOT NULL, owed TEXT NOT NULL, ahead TEXT NOT NULL, since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

const COSTS: &str = "
CREATE TABLE costs (
    epoch INTEGER NOT NULL, work TEXT NOT NULL, transactions INTEGER NOT NULL, gas INTEGER NOT NULL, wei TEXT NOT NULL,
    PRIMARY KEY (epoch, work)
) STRICT, WITHOUT ROWID;
";

/// Why the books can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    /// Check the disk; what was promised is not signed without this.
    #[error("the provider's money database failed")]
    Database(#[from] rusqlite::Error),
    /// A newer program wrote it: use that one.
    #[error("{path} has schema {found}, and this program knows {SCHEMA_VERSION}")]
    Schema {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: i64,
    },
    /// The books are of another wallet, chain or market: restore the configuration, or move the file away once all is collected.
    #[error("the money database is of {name} {kept}, and the configuration says {configured}")]
    Other {
        /// What differs.
        name: &'static str,
        /// What the books are of.
        kept: String,
        /// What was configured.
        configured: String,
    },
}

/// The open books.
#[derive(Debug)]
pub(crate) struct Books {
    connection: Connection,
}

impl Books {
    /// Opens the books in a provider's folder, and makes them if there are none.
    pub(crate) fn open(dir: &Path) -> Result<Books, BooksError> {
        let path = dir.join(BOOKS_FILE);
        let connection = Connection::open(&path)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let mut books = Books { connection };
        books.upgrade(path)?;
        // What sets dropped is little beside what they have.
        books.connection.execute_batch(
            "CREATE INDEX IF NOT EXISTS leaves_dropped ON leaves (agreement, gone) WHERE gone IS NOT NULL",
        )?;
        Ok(books)
    }

    /// Opens them to look, beside a daemon that writes; `None` if there are none.
    pub(crate) fn look(dir: &Path) -> Result<Option<Books>, BooksError> {
        let path = dir.join(BOOKS_FILE);
        if !path.exists() {
            return Ok(None);
        }
        // Not read-only: the first look after a crash replays the log.
        let connection = Connection::open(&path)?;
        connection.busy_timeout(BUSY)?;
        let mut books = Books { connection };
        if books.version()? == 0 {
            return Ok(None);
        }
        books.upgrade(path)?;
        Ok(Some(books))
    }

    /// Makes the tables that are missing.
    fn upgrade(&mut self, path: PathBuf) -> Result<(), BooksError> {
        let missing: &[&str] = match self.version()? {
            0 => &[SCHEMA, COSTS],
            WITHOUT_COSTS => &[COSTS],
            SCHEMA_VERSION => return Ok(()),
            found => return Err(BooksError::Schema { path, found }),
        };
        let transaction = self.connection.transaction()?;
        for tables in missing {
            transaction.execute_batch(tables)?;
        }
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        transaction.commit()?;
        Ok(())
    }

    fn version(&self) -> rusqlite::Result<i64> {
        self.connection.pragma_query_value(None, "user_version", |row| row.get(0))
    }

    /// A value that was kept under a name.
    pub(crate) fn meta(&self, name: &str) -> Result<Option<String>, BooksError> {
        let found =
            self.connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0));
        Ok(found.optional()?)
    }

    /// Keeps a value under a name.
    pub(crate) fn set_meta(&self, name: &str, value: &str) -> Result<(), BooksError> {
        Ok(put_meta(&self.connection, name, value)?)
    }

    /// Whose books these are: kept the first time, compared from then on.
    pub(crate) fn identify(&self, what: &[(&'static str, String)]) -> Result<(), BooksError> {
        for (name, configured) in what {
            match self.meta(name)? {
                None => self.set_meta(name, configured)?,
                Some(kept) if kept == *configured => {}
                Some(kept) => return Err(BooksError::Other { name, kept, configured: configured.clone() }),
            }
        }
        Ok(())
    }

    /// Keeps prices that were quoted, and forgets those that ended.
    pub(crate) fn add_quote(&mut self, quote: &Quoted, now: Timestamp) -> Result<(), BooksError> {
        let transaction = self.connection.transaction()?;
        transaction.execute("DELETE FROM quotes WHERE expires < ?1", [now.0])?;
        transaction.execute(
            "INSERT INTO quotes VALUES (?1, ?2, ?3, ?4)",
            params![text(quote.rent), text(quote.egress), quote.epochs_min, quote.expires.0],
        )?;
        transaction.commit()?;
        Ok(())
    }

    /// Prices that were quoted and still hold.
    pub(crate) fn quotes(&self, now: Timestamp) -> Result<Vec<Quoted>, BooksError> {
        let mut found = self.connection.prepare_cached("SELECT * FROM quotes WHERE expires >= ?1")?;
        let rows = found.query_map([now.0], |row| {
            Ok(Quoted {
                rent: amount(row, 0)?,
                egress: amount(row, 1)?,
                epochs_min: row.get(2)?,
                expires: Timestamp(row.get(3)?),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// Prices that were quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quoted {
    pub(crate) rent: Amount,
    pub(crate) egress: Amount,
    pub(crate) epochs_min: u32,
    pub(crate) expires: Timestamp,
}

fn put_meta(connection: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", [name, value])?;
    Ok(())
}

/// SQLite's numbers have 63 bits.
fn text(amount: impl Into<Amount>) -> String {
    let amount: Amount = amount.into();
    amount.to_string()
}

fn amount(row: &Row<'_>, at: usize) -> rusqlite::Result<Amount> {
    parsed(row, at)
}

fn parsed<T>(row: &Row<'_>, at: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text: String = row.get(at)?;
    text.parse().map_err(|error| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, Box::new(error)))
}

fn bytes<const N: usize>(row: &Row<'_>, at: usize) -> rusqlite::Result<[u8; N]> {
    row.get(at)
}

fn address(row: &Row<'_>, at: usize) -> rusqlite::Result<Address> {
    bytes(row, at).map(Address)
}

fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, at: usize) -> rusqlite::Result<T> {
    let text: String = row.get(at)?;
    from_json(at, &text)
}

fn from_json<T: serde::de::DeserializeOwned>(at: usize, text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, Box::new(error)))
}

fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("what is kept has text keys and no failing serialiser")
}

#[cfg(test)]
mod tests;

//! The database file: opening it alone, bringing it up to date, and having requests answered in transactions.

use crate::error::{CatalogError, OpenError};
use crate::operations::{Carrier, Request, Response, answer};
use crate::turn::Turn;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use rustix::fs::{FlockOperation, flock};
use seedbank_formats::Timestamp;
use seedbank_store::make_folder;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The name of the database in its folder.
const DATABASE: &str = "catalog.sqlite";
/// Held by the one process that keeps the books; its content is that process's number.
const LOCK: &str = "catalog.lock";

/// "SBCA": marks a SQLite file as ours, so that another program's is refused.
const APPLICATION_ID: i32 = 0x5342_4341;

/// Entry `i` brings schema `i` to `i + 1`. Entries are never changed once released.
const MIGRATIONS: &[&str] = &[
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
    include_str!("schema/5.sql"),
];

/// A tool that looks at the database may hold it for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// All statements of all operations stay prepared.
const STATEMENTS_CACHED: usize = 160;

/// The open books. While this value lives, no other process can open them.
#[derive(Debug)]
pub struct Catalog {
    pub(crate) connection: Connection,
    /// Kept for its lock, which ends with it, after the connection has closed.
    _lock: File,
}

impl Catalog {
    /// Opens the catalog in `dir`, and makes both when they don't exist. If it was not closed in order last time, the
    /// whole database is checked first, which takes a while for a large one.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing has changed then, but that migrations before a failing one stay.
    pub fn open(dir: &Path) -> Result<Catalog, OpenError> {
        let disk = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Disk { path, source }
        };
        make_folder(dir).map_err(disk(dir))?;
        let lock = lock(dir)?;
        let path = dir.join(DATABASE);
        private_file(&path).map_err(disk(&path))?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(disk(dir))?;

        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(&path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
        let found = schema(&connection, path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
             PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;",
        )?;
        if found > 0 && !closed_in_order(&connection)? {
            tracing::info!("catalog was not closed in order, checking it");
            check(&connection)?;
            // The log may be in the kernel's memory only: its writer died before it was synced, or a sync failed. What
            // follows it would be lost with it, so all of it is written into the database, and that is synced.
            empty_log(&connection)?;
        }
        migrate(&mut connection, MIGRATIONS)?;
        connection.execute("UPDATE lifecycle SET clean = 0", [])?;
        // Whoever was taking a set in has to begin anew, and may never come back.
        connection.execute("DELETE FROM adoptions", [])?;
        Ok(Catalog { connection, _lock: lock })
    }

    /// Answers a request at the time `now`, in one transaction: when this returns `Ok`, it is on disk.
    ///
    /// # Errors
    /// As the operation says; nothing of it has happened then.
    pub fn execute(&mut self, request: Request, now: Timestamp) -> Result<Response, CatalogError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let response = answer(&Turn { sql: &transaction, now }, request)?;
        transaction.commit()?;
        Ok(response)
    }
}

impl Drop for Catalog {
    fn drop(&mut self) {
        // Failing here costs a check at the next opening, nothing else.
        if let Err(error) = self.connection.execute("UPDATE lifecycle SET clean = 1", []) {
            tracing::warn!(%error, "catalog could not be closed in order");
        }
    }
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK);
    let held = |source| OpenError::Disk { path: path.clone(), source };
    let mut file = private_file(&path).map_err(held)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let read = file.read_to_string(&mut text);
            let pid = read.ok().and_then(|_| text.trim().parse().ok());
            return Err(OpenError::Locked { dir: dir.to_owned(), pid });
        }
        Err(error) => return Err(held(error.into())),
    }
    let note = |file: &mut File| {
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        writeln!(file, "{}", std::process::id())
    };
    note(&mut file).map_err(held)?;
    Ok(file)
}

/// Opens a file for reading and writing that only its owner may read, and makes it when it doesn't exist.
fn private_file(path: &Path) -> std::io::Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

fn pragma<T: rusqlite::types::FromSql>(connection: &Connection, name: &str) -> rusqlite::Result<T> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

/// The database's schema; 0 for a new one.
fn schema(connection: &Connection, path: PathBuf) -> Result<u32, OpenError> {
    let application: i32 = pragma(connection, "application_id")?;
    let found: u32 = pragma(connection, "user_version")?;
    let tables: u32 = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    if application != APPLICATION_ID && (application, found, tables) != (0, 0, 0) {
        return Err(OpenError::NotACatalog(path));
    }
    let known = u32::try_from(MIGRATIONS.len()).expect("there are few migrations");
    if found > known {
        return Err(OpenError::TooNew { found, known });
    }
    Ok(found)
}

fn closed_in_order(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT clean FROM lifecycle", [], |row| row.get(0))
}

fn check(connection: &Connection) -> Result<(), OpenError> {
    let verdict: String = pragma(connection, "quick_check")?;
    if verdict == "ok" { Ok(()) } else { Err(OpenError::Damaged(verdict)) }
}

fn empty_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// Applies the migrations that the database lacks, each in its own transaction.
fn migrate(connection: &mut Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    let found: usize = pragma::<u32>(connection, "user_version")?.try_into().unwrap_or(usize::MAX);
    for (step, migration) in migrations.iter().enumerate().skip(found) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", i64::try_from(step + 1).unwrap_or(i64::MAX))?;
        transaction.commit()?;
        tracing::info!(schema = step + 1, "catalog migrated");
    }
    Ok(())
}

/// The books in this process, for any number of threads.
pub struct Local {
    catalog: Mutex<Catalog>,
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Local {
    /// Shares an open catalog; `clock` tells the time of each request.
    pub fn new(catalog: Catalog, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Local {
        Local { catalog: Mutex::new(catalog), clock: Box::new(clock) }
    }
}

impl Carrier for Local {
    fn call(&self, request: Request) -> Result<Response, CatalogError> {
        // A request that panicked left nothing behind: its transaction was rolled back.
        let mut catalog = self.catalog.lock().unwrap_or_else(PoisonError::into_inner);
        catalog.execute(request, (self.clock)())
    }
}

#[cfg(test)]
mod tests {
    use super::{Catalog, DATABASE, migrate, pragma};
    use crate::error::OpenError;
    use rusqlite::Connection;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_opener_is_told_who_has_the_catalog() {
        let dir = tempfile::tempdir().unwrap();
        let first = Catalog::open(dir.path()).unwrap();
        match Catalog::open(dir.path()) {
            Err(OpenError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        Catalog::open(dir.path()).unwrap();
    }

    #[test]
    fn files_are_for_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("a/b");
        let _catalog = Catalog::open(&home).unwrap();
        let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&home), 0o700);
        let files: Vec<_> = home.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 3, "database, lock and log: {files:?}");
        assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");
    }

    #[test]
    fn newer_schemas_and_foreign_databases_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        drop(Catalog::open(dir.path()).unwrap());
        let path = dir.path().join(DATABASE);
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = Catalog::open(dir.path()).unwrap_err();
        assert!(matches!(error, OpenError::TooNew { found: 99, .. }), "{error}");
        assert!(error.to_string().contains("newer seedbank"));

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(DATABASE);
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE birds (name TEXT)").unwrap();
        assert!(matches!(Catalog::open(dir.path()), Err(OpenError::NotACatalog(_))));
        std::fs::write(&path, vec![b'x'; 4096]).unwrap();
        assert!(matches!(Catalog::open(dir.path()), Err(OpenError::Damaged(_))));
    }

    #[test]
    fn damage_is_found_after_an_unclean_close_only() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(dir.path()).unwrap();
        let clean = || -> bool {
            let connection = Connection::open(dir.path().join(DATABASE)).unwrap();
            connection.query_row("SELECT clean FROM lifecycle", [], |row| row.get(0)).unwrap()
        };
        assert!(!clean());
        drop(catalog);
        assert!(clean());

        // A table whose index lacks a row is what quick_check finds and ordinary reading does not.
        let connection = Connection::open(dir.path().join(DATABASE)).unwrap();
        let break_index = "INSERT INTO settings (key, value) VALUES ('a', 'b');
             PRAGMA writable_schema = ON;
             UPDATE sqlite_master SET sql = replace(sql, 'value TEXT NOT NULL', 'value TEXT NOT NULL CHECK (value <> ''b'')')
             WHERE name = 'settings';";
        connection.execute_batch(break_index).unwrap();
        drop(connection);
        drop(Catalog::open(dir.path()).unwrap());
        Connection::open(dir.path().join(DATABASE))
            .unwrap()
            .execute("UPDATE lifecycle SET clean = 0", [])
            .unwrap();
        assert!(matches!(Catalog::open(dir.path()), Err(OpenError::Damaged(_))));
    }

    #[test]
    fn migration_that_fails_leaves_the_schema_before_it() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, &["CREATE TABLE a (x)"]).unwrap();
        let broken = ["unused", "ALTER TABLE a ADD COLUMN y; SELECT no_such_function()"];
        migrate(&mut connection, &broken).unwrap_err();
        assert_eq!(pragma::<u32>(&connection, "user_version").unwrap(), 1);
        connection.execute("SELECT y FROM a", []).unwrap_err();
        migrate(&mut connection, &["unused", "ALTER TABLE a ADD COLUMN y"]).unwrap();
        assert_eq!(pragma::<u32>(&connection, "user_version").unwrap(), 2);
    }
}

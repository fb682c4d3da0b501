//! What this machine knows about files it pushed before, so that an unchanged tree is pushed again without being read.
//!
//! A row says: the file of this path, with this size, these times and this inode, had this content. It does not say
//! that the content is still stored: the catalog is asked for that. The cache is no record of anything. It may be lost,
//! thrown away or written by an older build at any time, so nothing here fails: a cache that can't be read is one that
//! knows nothing, and what can't be written is read again next time.
//!
//! Lookups are quick when they come in the order of paths, as those of a walk do: rows that follow are read ahead, so that
//! a million files take a thousand queries.
//!
//! A file that was written to just before it was read is not remembered (git calls it *racy*): a second write inside
//! the same tick of the disk's clock would leave the same times.

use std::collections::VecDeque;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, params};
use seedbank_formats::path::TreePath;
use seedbank_formats::tree::{Entry, TreePage};
use seedbank_formats::{DatasetId, Timestamp};
use tracing::warn;

use crate::scan::FileStamp;

/// The cache's file inside its folder.
const FILE_NAME: &str = "file-cache.sqlite";

/// Raised with every change of the table: an older or newer cache is dropped.
const SCHEMA_VERSION: i64 = 1;

/// Rows per transaction: one sync of the log for all of them, and little to lose.
const BATCH_ROWS: usize = 2_000;

/// Rows read ahead at once: half a megabyte at most. It begins with one and doubles, since a lookup may be the only one.
const AHEAD_ROWS_MAX: usize = 1_024;

/// How long another process may hold the cache before we go on without it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The coarsest clock of a disk we may meet (FAT ticks every two seconds).
const CLOCK_TICK_S: u64 = 2;

const SCHEMA: &str = "
    CREATE TABLE file (
        dataset BLOB NOT NULL,
        path BLOB NOT NULL,
        size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        ctime_ns INTEGER NOT NULL,
        inode INTEGER NOT NULL,
        device INTEGER NOT NULL,
        executable INTEGER NOT NULL,
        entry BLOB NOT NULL,
        PRIMARY KEY (dataset, path)
    ) WITHOUT ROWID;
";

/// Whether a file's times tell apart the content read at `read_started` from any later one.
///
/// The times of both clocks are compared with a whole tick to spare; a file from the future is never trusted.
#[must_use]
pub fn is_racy(stamp: &FileStamp, read_started: Timestamp) -> bool {
    let seconds = |time_ns: i64| u64::try_from(time_ns / 1_000_000_000).unwrap_or(0);
    let written = seconds(stamp.mtime_ns).max(seconds(stamp.ctime_ns));
    written.saturating_add(CLOCK_TICK_S) >= read_started.0
}

/// What was read from a file, in the state that `stamp` describes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    dataset: DatasetId,
    path: Vec<u8>,
    stamp: FileStamp,
    executable: bool,
    /// The entry; `None` forgets the path.
    entry: Option<Vec<u8>>,
}

/// A row that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    path: Vec<u8>,
    stamp: FileStamp,
    executable: bool,
    entry: Vec<u8>,
}

/// All rows of a dataset over a stretch of paths, less those behind the last lookup.
#[derive(Debug)]
struct Ahead {
    dataset: DatasetId,
    /// Where the stretch begins: nothing is known of what is before.
    from: Vec<u8>,
    rows: VecDeque<Known>,
    /// The last path of the stretch; `None`: it goes on to the end.
    to: Option<Vec<u8>>,
    /// How many rows were asked for.
    limit: usize,
}

impl Ahead {
    fn covers(&self, dataset: DatasetId, path: &[u8]) -> bool {
        self.dataset == dataset
            && self.from.as_slice() <= path
            && self.to.as_ref().is_none_or(|to| path <= to.as_slice())
    }

    /// Goes to a path that is covered: forgets the rows before it.
    fn go_to(&mut self, path: &[u8]) {
        while self.rows.front().is_some_and(|row| row.path.as_slice() < path) {
            self.rows.pop_front();
        }
        self.from.clear();
        self.from.extend_from_slice(path);
    }

    /// How many rows to read for a path that is not covered: more if lookups went through half of these at least, and go
    /// on behind them.
    fn next_limit(&self, dataset: DatasetId, path: &[u8]) -> usize {
        let goes_on = self.dataset == dataset && self.to.as_ref().is_some_and(|to| to.as_slice() < path);
        if goes_on && self.rows.len() <= 1 + self.limit / 2 {
            (self.limit * 2).min(AHEAD_ROWS_MAX)
        } else {
            1
        }
    }
}

/// The cache. See the module.
#[derive(Debug)]
pub struct FileCache {
    file: PathBuf,
    /// `None`: it could not be opened, and knows nothing.
    connection: Option<Connection>,
    /// Rows to write with the next batch.
    pending: Vec<Row>,
    /// Rows that were read ahead.
    ahead: Option<Ahead>,
    /// How often rows were read.
    queries: u64,
}

impl FileCache {
    /// Opens the cache in `folder`, which must exist. A damaged or foreign one is deleted and made anew; if that fails
    /// too, the cache stays empty.
    #[must_use]
    pub fn open(folder: &Path) -> FileCache {
        let file = folder.join(FILE_NAME);
        let connection = connect(&file)
            .or_else(|error| if is_busy(&error) { Err(error) } else { replace(&file, &error) })
            .inspect_err(|error| warn!(file = %file.display(), %error, "going on without a file cache"))
            .ok();
        FileCache { file, connection, pending: Vec::new(), ahead: None, queries: 0 }
    }

    /// A cache that knows nothing and remembers nothing: every file is read.
    #[must_use]
    pub fn none() -> FileCache {
        FileCache { file: PathBuf::new(), connection: None, pending: Vec::new(), ahead: None, queries: 0 }
    }

    /// The entry of this file, as it was given to [`FileCache::remember`], if the file is in the same state.
    ///
    /// It says what the content is, not that it is still stored.
    #[must_use]
    pub fn lookup(
        &mut self,
        dataset: DatasetId,
        path: &Path,
        stamp: &FileStamp,
        executable: bool,
    ) -> Option<Entry> {
        let path = path.as_os_str().as_encoded_bytes();
        if let Err(error) = self.go_to(dataset, path) {
            self.recover(&error);
        }
        let known = self.ahead.as_ref()?.rows.front().filter(|known| known.path == path)?;
        let is_same = known.stamp == *stamp && known.executable == executable;
        let entry = if is_same { decode(&known.entry) } else { None };
        entry.filter(|entry| entry.size() == stamp.size)
    }

    /// Has the rows from a path on at hand.
    fn go_to(&mut self, dataset: DatasetId, path: &[u8]) -> rusqlite::Result<()> {
        let Some(connection) = &self.connection else { return Ok(()) };
        let ahead = match self.ahead.take() {
            Some(ahead) if ahead.covers(dataset, path) => ahead,
            other => {
                let limit = other.map_or(1, |ahead| ahead.next_limit(dataset, path));
                self.queries += 1;
                read_ahead(connection, dataset, path, limit)?
            }
        };
        self.ahead.insert(ahead).go_to(path);
        Ok(())
    }

    /// Notes what a file held. `read_started` is when its reading began.
    ///
    /// `stamp` must come from [`StableFile::finish`](crate::scan::StableFile::finish) of that reading. A racy file is
    /// forgotten instead.
    pub fn remember(
        &mut self,
        dataset: DatasetId,
        path: &Path,
        stamp: &FileStamp,
        executable: bool,
        read_started: Timestamp,
        entry: &Entry,
    ) {
        if self.connection.is_none() {
            return;
        }
        self.pending.push(Row {
            dataset,
            path: path.as_os_str().as_encoded_bytes().to_vec(),
            stamp: *stamp,
            executable,
            entry: (!is_racy(stamp, read_started)).then(|| encode(entry)),
        });
        if self.pending.len() >= BATCH_ROWS {
            self.flush();
        }
    }

    /// Writes what is noted. Also happens by itself, every so often and at the end.
    pub fn flush(&mut self) {
        let rows = std::mem::take(&mut self.pending);
        let Some(connection) = &mut self.connection else {
            return;
        };
        self.ahead = None;
        if let Err(error) = write(connection, &rows) {
            self.recover(&error);
        }
    }

    /// Forgets everything about a dataset, as when it is removed.
    pub fn forget_dataset(&mut self, dataset: DatasetId) {
        self.flush();
        let Some(connection) = &self.connection else {
            return;
        };
        if let Err(error) = connection.execute("DELETE FROM file WHERE dataset = ?1", params![dataset.0]) {
            self.recover(&error);
        }
    }

    /// Goes on after a failure: with an empty cache if the file is damaged, without one if the disk is. A busy one has
    /// only missed a batch.
    fn recover(&mut self, error: &rusqlite::Error) {
        if is_busy(error) {
            warn!(%error, "file cache is busy, some files will be read again");
            return;
        }
        self.connection = None;
        self.ahead = None;
        self.pending.clear();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                self.connection = replace(&self.file, error).ok();
            }
            _ => warn!(%error, "file cache failed, going on without it"),
        }
    }
}

impl Drop for FileCache {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The path that entries are kept under in the cache: a row has its own.
fn any_path() -> TreePath {
    TreePath::parse("file").expect("one plain component is a path")
}

/// An entry as a tree page of its own: the one encoding there is, with its version and all its checks.
fn encode(entry: &Entry) -> Vec<u8> {
    TreePage::Leaf(vec![(any_path(), entry.clone())]).encode()
}

fn decode(bytes: &[u8]) -> Option<Entry> {
    match TreePage::decode(bytes) {
        Ok(TreePage::Leaf(mut entries)) if entries.len() == 1 => entries.pop().map(|(_, entry)| entry),
        Ok(_) | Err(_) => None,
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn connect(file: &Path) -> rusqlite::Result<Connection> {
    // Hashes of private files are nobody else's business. SQLite gives its log the same mode. If this fails, so does
    // what follows, and says why.
    let _ = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(file);
    let mut connection = Connection::open(file)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    // Immediate, as two processes may come to an empty file at once.
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version != SCHEMA_VERSION {
        transaction.execute_batch("DROP TABLE IF EXISTS file;")?;
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    transaction.commit()?;
    // Fails now rather than in the middle of a push if the table is not as we made it.
    connection.prepare(FIND)?;
    connection.prepare(PUT)?;
    connection.set_prepared_statement_cache_capacity(8);
    Ok(connection)
}

/// Deletes an unusable cache and makes a new one.
fn replace(file: &Path, error: &rusqlite::Error) -> rusqlite::Result<Connection> {
    warn!(file = %file.display(), %error, "file cache dropped, it was not readable");
    delete(file);
    connect(file)
}

fn delete(file: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut path = file.as_os_str().to_owned();
        path.push(suffix);
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => warn!(path = %Path::new(&path).display(), %error, "can't delete the file cache"),
        }
    }
}

const FIND: &str = "
    SELECT path, size, mtime_ns, ctime_ns, inode, device, executable, entry FROM file
    WHERE dataset = ?1 AND path >= ?2 ORDER BY path LIMIT ?3";
const PUT: &str = "INSERT OR REPLACE INTO file VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
const FORGET: &str = "DELETE FROM file WHERE dataset = ?1 AND path = ?2";

/// Reads the row of a path, if there is one, and those that follow.
fn read_ahead(
    connection: &Connection,
    dataset: DatasetId,
    path: &[u8],
    limit: usize,
) -> rusqlite::Result<Ahead> {
    let mut find = connection.prepare_cached(FIND)?;
    let rows = find.query_map(params![dataset.0, path, limit], |row| {
        let unsigned = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
        Ok(Known {
            path: row.get(0)?,
            stamp: FileStamp {
                size: unsigned(1)?,
                mtime_ns: row.get(2)?,
                ctime_ns: row.get(3)?,
                inode: unsigned(4)?,
                device: unsigned(5)?,
            },
            executable: row.get(6)?,
            entry: row.get(7)?,
        })
    })?;
    let rows: VecDeque<Known> = rows.collect::<rusqlite::Result<_>>()?;
    let to = rows.back().filter(|_| rows.len() == limit).map(|row| row.path.clone());
    Ok(Ahead { dataset, from: path.to_vec(), rows, to, limit })
}

fn write(connection: &mut Connection, rows: &[Row]) -> rusqlite::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for row in rows {
        match &row.entry {
            Some(entry) => transaction.prepare_cached(PUT)?.execute(params![
                row.dataset.0,
                row.path,
                row.stamp.size.cast_signed(),
                row.stamp.mtime_ns,
                row.stamp.ctime_ns,
                row.stamp.inode.cast_signed(),
                row.stamp.device.cast_signed(),
                row.executable,
                entry,
            ])?,
            None => transaction.prepare_cached(FORGET)?.execute(params![row.dataset.0, row.path])?,
        };
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, Instant};

    use seedbank_formats::place::ChunkRef;
    use seedbank_formats::tree::{Content, Entry};
    use seedbank_formats::{ChunkId, DatasetId, Sha256, Timestamp};

    use super::{FILE_NAME, FileCache, is_racy};
    use crate::scan::FileStamp;

    const DATASET: DatasetId = DatasetId([7; 32]);
    const STAMP: FileStamp = FileStamp {
        size: 10,
        mtime_ns: 1_000_000_000_500,
        ctime_ns: 1_000_000_000_600,
        inode: u64::MAX,
        device: 3,
    };
    /// Long after the file was written.
    const LATER: Timestamp = Timestamp(1_010);

    /// An entry of [`STAMP`]'s size that holds its file's path.
    fn entry(path: &str) -> Entry {
        let mut id = [0; 32];
        id[..path.len()].copy_from_slice(path.as_bytes());
        Entry::File {
            executable: false,
            size: STAMP.size,
            sha256: Sha256(id),
            content: Content::Chunks(vec![ChunkRef { id: ChunkId(id), len: 10 }]),
        }
    }

    fn remember(cache: &mut FileCache, path: &str) {
        cache.remember(DATASET, Path::new(path), &STAMP, false, LATER, &entry(path));
    }

    fn lookup(cache: &mut FileCache, path: &str) -> Option<Entry> {
        cache.lookup(DATASET, Path::new(path), &STAMP, false)
    }

    #[test]
    fn unchanged_file_is_known_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = FileCache::open(folder.path());
        assert_eq!(lookup(&mut cache, "/a"), None);
        remember(&mut cache, "/a");
        drop(cache);
        let mut cache = FileCache::open(folder.path());
        assert_eq!(lookup(&mut cache, "/a"), Some(entry("/a")));
        assert_eq!(lookup(&mut cache, "/b"), None);
        for file in fs::read_dir(folder.path()).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().mode() & 0o077, 0, "nobody else may read it");
        }
    }

    #[test]
    fn any_difference_makes_a_file_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = FileCache::open(folder.path());
        remember(&mut cache, "/a");
        cache.flush();
        let path = Path::new("/a");
        let changed = [
            FileStamp { size: 11, ..STAMP },
            FileStamp { mtime_ns: 1, ..STAMP },
            FileStamp { ctime_ns: 1, ..STAMP },
            FileStamp { inode: 1, ..STAMP },
            FileStamp { device: 1, ..STAMP },
        ];
        for stamp in changed {
            assert_eq!(cache.lookup(DATASET, path, &stamp, false), None, "{stamp:?}");
        }
        assert_eq!(cache.lookup(DATASET, path, &STAMP, true), None);
        assert_eq!(cache.lookup(DatasetId([8; 32]), path, &STAMP, false), None);
        assert!(lookup(&mut cache, "/a").is_some());
    }

    #[test]
    fn file_written_just_before_it_was_read_is_racy() {
        assert!(!is_racy(&STAMP, Timestamp(1_003)));
        assert!(is_racy(&STAMP, Timestamp(1_002)));
        assert!(is_racy(&STAMP, Timestamp(900)), "from the future");
        assert!(is_racy(&FileStamp { ctime_ns: 1_009_000_000_000, ..STAMP }, Timestamp(1_010)));
        assert!(!is_racy(&FileStamp { mtime_ns: -5, ctime_ns: -5, ..STAMP }, Timestamp(1_010)));
    }

    #[test]
    fn entry_that_does_not_fit_its_file_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = FileCache::open(folder.path());
        remember(&mut cache, "/a");
        remember(&mut cache, "/b");
        cache.flush();
        let connection = rusqlite::Connection::open(folder.path().join(FILE_NAME)).unwrap();
        connection.execute("UPDATE file SET size = 11 WHERE path = CAST('/a' AS BLOB)", []).unwrap();
        connection.execute("UPDATE file SET entry = x'00' WHERE path = CAST('/b' AS BLOB)", []).unwrap();
        let grown = FileStamp { size: 11, ..STAMP };
        assert_eq!(cache.lookup(DATASET, Path::new("/a"), &grown, false), None);
        assert_eq!(lookup(&mut cache, "/b"), None);
    }

    #[test]
    fn racy_file_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = FileCache::open(folder.path());
        remember(&mut cache, "/a");
        cache.flush();
        cache.remember(DATASET, Path::new("/a"), &STAMP, false, Timestamp(1_001), &entry("/new"));
        cache.flush();
        assert_eq!(lookup(&mut cache, "/a"), None);
    }

    #[test]
    fn dataset_can_be_forgotten_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = FileCache::open(folder.path());
        let other = DatasetId([8; 32]);
        remember(&mut cache, "/a");
        cache.remember(other, Path::new("/a"), &STAMP, false, LATER, &entry("/other"));
        cache.flush();
        assert!(lookup(&mut cache, "/a").is_some());
        cache.forget_dataset(DATASET);
        assert_eq!(lookup(&mut cache, "/a"), None);
        assert!(cache.lookup(other, Path::new("/a"), &STAMP, false).is_some());
    }

    #[test]
    fn two_processes_share_a_cache() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = FileCache::open(folder.path());
        let mut second = FileCache::open(folder.path());
        assert_eq!(lookup(&mut first, "/a"), None);
        assert_eq!(lookup(&mut second, "/a"), None);
        remember(&mut first, "/a");
        first.flush();
        remember(&mut second, "/b");
        second.flush();
        assert!(lookup(&mut first, "/b").is_some());
        assert!(lookup(&mut second, "/a").is_some());
    }

    #[test]
    fn damaged_or_foreign_cache_is_made_anew() {
        let damages: [fn(&Path); 4] = [
            |file| fs::write(file, b"not a database, and long enough to be noticed as none of ours").unwrap(),
            |file| {
                let mut bytes = fs::read(file).unwrap();
                bytes[100..].fill(0xa5);
                fs::write(file, bytes).unwrap();
            },
            |file| {
                let connection = rusqlite::Connection::open(file).unwrap();
                connection.execute_batch("DROP TABLE file; CREATE TABLE file (x)").unwrap();
            },
            |file| {
                let connection = rusqlite::Connection::open(file).unwrap();
                connection.execute_batch("PRAGMA user_version = 99").unwrap();
            },
        ];
        for (index, damage) in damages.iter().enumerate() {
            let folder = tempfile::tempdir().unwrap();
            let mut cache = FileCache::open(folder.path());
            remember(&mut cache, "/a");
            drop(cache);
            damage(&folder.path().join(FILE_NAME));
            let mut cache = FileCache::open(folder.path());
            assert_eq!(lookup(&mut cache, "/a"), None, "damage {index}");
            remember(&mut cache, "/b");
            cache.flush();
            assert!(lookup(&mut cache, "/b").is_some(), "damage {index}");
        }
    }

    #[test]
    fn damage_found_by_a_lookup_empties_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = FileCache::open(folder.path());
        for number in 0..1_000 {
            remember(&mut cache, &format!("/{number}"));
        }
        drop(cache);
        let file = folder.path().join(FILE_NAME);
        let mut bytes = fs::read(&file).unwrap();
        // All pages but the first two, which describe the table and its root.
        bytes[8_192..].fill(0xa5);
        fs::write(&file, bytes).unwrap();
        let mut cache = FileCache::open(folder.path());
        assert_eq!(lookup(&mut cache, "/500"), None);
        remember(&mut cache, "/500");
        cache.flush();
        assert!(lookup(&mut cache, "/500").is_some());
    }

    #[test]
    fn cache_that_cannot_be_opened_knows_nothing() {
        let mut cache = FileCache::open(&PathBuf::from("/nonexistent/folder"));
        remember(&mut cache, "/a");
        cache.flush();
        assert_eq!(lookup(&mut cache, "/a"), None);
        assert_eq!(lookup(&mut FileCache::none(), "/a"), None);
    }

    fn remember_numbers(cache: &mut FileCache, numbers: impl Iterator<Item = u32>) {
        numbers.for_each(|number| remember(cache, &format!("/{number:06}")));
        cache.flush();
    }

    #[test]
    fn lookups_in_order_take_few_queries_however_many_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = FileCache::open(folder.path());
        remember_numbers(&mut cache, (0..20_000).step_by(2));
        // Every second one is unknown.
        let known = (0..20_000).filter(|number| lookup(&mut cache, &format!("/{number:06}")).is_some());
        assert_eq!(known.count(), 10_000);
        assert!(cache.queries < 30, "{} queries", cache.queries);
        assert!((0..1_000).all(|number| lookup(&mut cache, &format!("/later/{number:06}")).is_none()));
        assert!(cache.queries < 30, "nothing comes after, {} queries", cache.queries);
    }

    #[test]
    fn lookups_here_and_there_read_little_more_than_they_ask_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = FileCache::open(folder.path());
        remember_numbers(&mut cache, 0..2_000);
        for step in 0..2_000 {
            let number = step * 617 % 2_000;
            assert!(lookup(&mut cache, &format!("/{number:06}")).is_some(), "{number}");
            let ahead = cache.ahead.as_ref().unwrap();
            assert!(ahead.rows.len() <= 4, "{} rows for a lookup here and there", ahead.rows.len());
        }
    }

    #[test]
    fn same_path_may_be_asked_for_again_and_after_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = FileCache::open(folder.path());
        remember_numbers(&mut cache, 0..10);
        for _ in 0..3 {
            assert!(lookup(&mut cache, "/000003").is_some());
            assert!(lookup(&mut cache, "/000003x").is_none());
        }
        remember(&mut cache, "/000003x");
        cache.flush();
        assert!(lookup(&mut cache, "/000003x").is_some());
    }

    #[test]
    fn fifty_thousand_lookups_are_quick() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = FileCache::open(folder.path());
        let entry = entry("/data");
        let paths: Vec<PathBuf> =
            (0..50_000).map(|number| format!("/data/{number:06}.json").into()).collect();
        for path in &paths {
            cache.remember(DATASET, path, &STAMP, false, LATER, &entry);
        }
        cache.flush();
        let started = Instant::now();
        assert!(paths.iter().all(|path| cache.lookup(DATASET, path, &STAMP, false).is_some()));
        let elapsed = started.elapsed();
        assert!(elapsed < Duration::from_secs(3), "{elapsed:?} on a busy machine; 0.2 s on a quiet one");
    }
}

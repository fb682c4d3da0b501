//! Kills and old databases: a request is in the files or not, and what an older program wrote is read.

use super::{DATASET, Desk, dataset, fragment, key, provider, segment, version};
use crate::catalog::Catalog;
use crate::operations::{Books, Request, answer};
use crate::records::SetItem;
use crate::turn::Turn;
use rusqlite::{Connection, TransactionBehavior};
use seedbank_formats::{SegmentNumber, Timestamp};
use std::cell::{Cell, RefCell};
use std::path::Path;

/// Everything in a database, as text.
fn dump(connection: &Connection) -> String {
    let mut text = String::new();
    let tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'lifecycle' ORDER BY name";
    let mut tables = connection.prepare(tables).unwrap();
    let names: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    for name in names {
        let mut statement = connection.prepare(&format!("SELECT * FROM {name}")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<_> = (0..columns).map(|column| row.get_ref(column).unwrap()).collect();
            text.push_str(&format!("{name} {values:?}\n"));
        }
    }
    text
}

fn copy(from: &Path, to: &Path) {
    for entry in from.read_dir().unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Runs a request in a process that dies after `writes` changed rows. Says what the next process finds, and whether the
/// request got through.
fn killed_after(start: &Path, request: &Request, writes: u32) -> (String, bool) {
    let (dir, left) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy(start, dir.path());
    let mut catalog = Catalog::open(dir.path()).unwrap();
    let connection = &mut catalog.connection;
    // A tiny cache makes SQLite write to its log what is not committed, as a large transaction would.
    connection.execute_batch("PRAGMA cache_size = 1; CREATE TEMP TABLE budget (writes INTEGER)").unwrap();
    connection.execute("INSERT INTO temp.budget VALUES (?1)", [writes]).unwrap();
    let sql = "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    let tables: Vec<String> = {
        let mut names = connection.prepare(sql).unwrap();
        names.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    for (table, event) in
        tables.iter().flat_map(|table| ["INSERT", "UPDATE", "DELETE"].map(|event| (table, event)))
    {
        let trigger = format!(
            "CREATE TEMP TRIGGER {table}_{event} AFTER {event} ON main.{table} BEGIN
                 UPDATE budget SET writes = writes - 1;
                 SELECT RAISE(FAIL, 'killed') WHERE (SELECT writes FROM budget) < 0;
             END"
        );
        connection.execute_batch(&trigger).unwrap();
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    let through = answer(&Turn { sql: &transaction, now: Timestamp(1_000_000) }, request.clone()).is_ok();
    if through {
        transaction.commit().unwrap();
        copy(dir.path(), left.path());
    } else {
        // Still open, and never to be ended: these are the files that a killed process leaves.
        copy(dir.path(), left.path());
        drop(transaction);
    }
    (dump(&Catalog::open(left.path()).unwrap().connection), through)
}

#[test]
fn a_kill_between_any_two_writes_leaves_the_old_books_or_the_new() {
    let desk = Desk::new();
    desk.push_version(1);
    let push = desk.push();
    desk.record(&push, push.first_segment.0);
    desk.set_holder(key(push.first_segment.0, 3), None).unwrap();
    let commit = desk.prepare(push.lease, 2, push.first_segment.0 + 1);
    let snapshot = desk.collect_begin(DATASET).unwrap();
    let requests = [
        Request::RecordSegment { lease: push.lease, placement: segment(12), claims_until: Timestamp(1) },
        Request::Commit { commit },
        Request::CollectFinish { dataset: DATASET, snapshot, live: Vec::new() },
        Request::RemoveProvider { provider: provider(1) },
        Request::RemoveDataset { dataset: DATASET },
    ];
    let start = tempfile::tempdir().unwrap();
    copy(desk.dir.path(), start.path());
    let old = dump(&desk.catalog.borrow().connection);
    for request in requests {
        let mut writes = 0;
        loop {
            let (found, through) = killed_after(start.path(), &request, writes);
            if through {
                assert_ne!(found, old, "{request:?}");
                break;
            }
            assert_eq!(found, old, "{request:?} killed after {writes} writes");
            writes += 1;
        }
        assert!(writes > 5, "{request:?} writes {writes} rows");
    }
}

#[test]
fn committed_requests_survive_a_kill_right_after_them() {
    let desk = Desk::new();
    desk.push_version(1);
    let left = tempfile::tempdir().unwrap();
    copy(desk.dir.path(), left.path());
    let mut reopened = Catalog::open(left.path()).unwrap();
    let request = Request::Resolve { dataset: DATASET, text: "main".into() };
    assert!(reopened.execute(request, Timestamp(0)).is_ok());
    assert_eq!(dump(&reopened.connection), dump(&desk.catalog.borrow().connection));
}

#[test]
fn a_set_that_was_being_taken_in_is_dropped_when_the_books_are_opened_again() {
    let desk = Desk::new();
    let adoption = desk.begin_adoption(provider(0)).unwrap();
    desk.adopt(adoption, vec![SetItem { fragment: fragment(50, 0), length: 512 }]).unwrap();
    let left = tempfile::tempdir().unwrap();
    copy(desk.dir.path(), left.path());
    let reopened = Catalog::open(left.path()).unwrap();
    let rows = |catalog: &Catalog| -> u64 {
        let sql = "SELECT (SELECT count(*) FROM adoptions) + (SELECT count(*) FROM adopted)";
        catalog.connection.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!((rows(&desk.catalog.borrow()), rows(&reopened)), (2, 0));
}

/// The books that schema 1 wrote, as `.dump` shows them.
const VERSION_1: &str = include_str!("../../../../testdata/catalog/version-1.sql");

#[test]
fn books_of_schema_1_are_read_and_written() {
    let dir = tempfile::tempdir().unwrap();
    Connection::open(dir.path().join("catalog.sqlite")).unwrap().execute_batch(VERSION_1).unwrap();
    let catalog = RefCell::new(Catalog::open(dir.path()).unwrap());
    let desk = Desk { dir, catalog, now: Cell::new(1_000_000) };
    assert_eq!(desk.dataset("penguins".into()).unwrap(), dataset(DATASET, "penguins"));
    assert_eq!(desk.resolve(DATASET, "main".into()).unwrap().version, version(1, 1));
    assert_eq!(desk.placements(DATASET, vec![SegmentNumber(0)]).unwrap(), [segment(0)]);
    assert_eq!(desk.head(DATASET).unwrap().unwrap().published, [provider(4)]);
    assert_eq!(desk.providers().unwrap().len(), 8);
    assert_eq!(desk.leases(DATASET).unwrap().len(), 1);
    assert!(!desk.jobs(10).unwrap().is_empty());
    assert_eq!(desk.setting("owner".into()).unwrap().as_deref(), Some("somebody"));
    desk.push_version(2);
    let connection = &desk.catalog.borrow().connection;
    assert!(!connection.prepare("PRAGMA foreign_key_check").unwrap().exists([]).unwrap());
}

/// The log of a process that died may be in the kernel's memory only, or its sync may have failed: what is written behind
/// it would be lost with it.
#[test]
fn what_a_killed_process_left_in_the_log_is_in_the_database_before_anything_follows() {
    let desk = Desk::new();
    desk.push_version(1);
    let (left, alone) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    copy(desk.dir.path(), left.path());
    let _reopened = Catalog::open(left.path()).unwrap();
    std::fs::copy(left.path().join("catalog.sqlite"), alone.path().join("catalog.sqlite")).unwrap();
    let without_log = Catalog::open(alone.path()).unwrap();
    assert_eq!(dump(&without_log.connection), dump(&desk.catalog.borrow().connection));
}

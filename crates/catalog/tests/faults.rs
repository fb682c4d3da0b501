//! Disks that fail under the books, and files of the books that are not what they were.

use seedbank_catalog::{Books, Catalog, CatalogError, Local, OpenError};
use seedbank_formats::Timestamp;
use seedbank_testkit::recording::can_record;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

const SETTINGS: u32 = 10;

/// A process that is being started holds for a moment what this one has open, locks of the books among it.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn open(dir: &Path) -> Result<Local, OpenError> {
    Ok(Local::new(Catalog::open(dir)?, || Timestamp(1_000_000)))
}

/// A value that takes a page of its own.
fn value(number: u32) -> String {
    number.to_string().repeat(5000)
}

/// A process that keeps books on a failing disk, and says of each request what became of it.
#[test]
#[ignore = "another test runs it"]
fn kept_on_a_failing_disk() {
    let Some(dir) = std::env::var_os("BOOKS") else { return };
    let mut said = std::fs::File::create(std::env::var_os("SAID").expect("where to say it")).expect("a file");
    let books = match open(Path::new(&dir)) {
        Ok(books) => books,
        Err(OpenError::Disk { .. } | OpenError::Sqlite(_)) => return,
        Err(other) => panic!("{other:?}"),
    };
    for number in 0..SETTINGS {
        let answer = match books.put_setting(number.to_string(), value(number)) {
            Ok(()) => "done",
            Err(CatalogError::Disk { .. }) => "failed",
            Err(other) => panic!("{other:?}"),
        };
        writeln!(said, "{answer} {number}").expect("said");
    }
}

/// Runs that process with a fault; says how many requests failed. What it said is done must be there.
fn run_with(fault: &str) -> usize {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (dir, said) = (folder.path().join("books"), folder.path().join("said"));
    drop(open(&dir).expect("new books"));
    let this = std::env::current_exe().expect("a test knows its program");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e"])
        .arg(format!("inject={fault}"))
        .arg("--")
        .arg(this)
        .args(["--exact", "kept_on_a_failing_disk", "--ignored"])
        .env("BOOKS", &dir)
        .env("SAID", &said)
        .output()
        .expect("strace runs");
    assert!(output.status.success(), "{fault}: {}", String::from_utf8_lossy(&output.stdout));
    let books = open(&dir).unwrap_or_else(|error| panic!("{fault}: {error}"));
    let said = std::fs::read_to_string(said).unwrap_or_default();
    for number in said.lines().filter_map(|line| line.strip_prefix("done ")) {
        let found = books.setting(number.to_owned()).expect("it can be asked");
        assert_eq!(found, Some(value(number.parse().expect("a number"))), "{fault}: {number} of {said}");
    }
    books.put_setting("after".to_owned(), "the fault".to_owned()).expect("the disk is well again");
    said.lines().filter(|line| line.starts_with("failed")).count()
}

#[test]
fn what_was_acknowledged_is_there_and_what_failed_said_so_when_syncs_and_writes_fail() {
    if !can_record() {
        return;
    }
    let _turn = ONE_AT_A_TIME.lock().expect("no other test failed");
    let (mut failed, mut runs) = (0, 0);
    for when in [1, 4, 8, 12, 16, 20] {
        for fault in ["fsync,fdatasync:error=EIO", "pwrite64:error=ENOSPC", "pwrite64:error=EIO"] {
            // Once, and for as long as the process lives.
            for times in ["", "+"] {
                failed += run_with(&format!("{fault}:when={when}{times}"));
                runs += 1;
            }
        }
    }
    println!("{failed} requests failed in {runs} runs");
    assert!(failed > 5, "the faults strike: {failed}");
}

#[test]
fn books_that_are_cut_or_scribbled_over_are_errors_that_say_what_to_do() {
    let _turn = ONE_AT_A_TIME.lock().expect("no other test failed");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("books");
    let books = open(&dir).expect("new books");
    (0..SETTINGS).for_each(|number| books.put_setting(number.to_string(), value(number)).expect("a setting"));
    drop(books);
    let path = dir.join("catalog.sqlite");
    let whole = std::fs::read(&path).expect("the database");
    let mut damaged: Vec<Vec<u8>> =
        [1, 99, 100, 4095, 4096, whole.len() / 2, whole.len() - 4096].map(|len| whole[..len].to_vec()).into();
    for page in 0..whole.len() / 4096 {
        let mut scribbled = whole.clone();
        scribbled[page * 4096..page * 4096 + 200].fill(0x5a);
        damaged.push(scribbled);
    }
    let mut refused = 0;
    for bytes in damaged {
        std::fs::write(&path, bytes).expect("written");
        let _gone = std::fs::remove_file(dir.join("catalog.sqlite-wal"));
        let told = match open(&dir) {
            Err(error @ (OpenError::Damaged(_) | OpenError::NotACatalog(_))) => error.to_string(),
            Err(other) => panic!("{other:?}"),
            Ok(books) => {
                // A page that opening did not touch: it is told when it is read, and right or absent it is not.
                let answers = (0..SETTINGS).map(|number| (number, books.setting(number.to_string())));
                let wrong = answers.filter_map(|(number, answer)| match answer {
                    Ok(found) => {
                        assert!(
                            found.is_none_or(|found| found.len() == value(number).len()),
                            "half a value of {number}"
                        );
                        None
                    }
                    Err(error @ CatalogError::Corrupt { .. }) => Some(error.to_string()),
                    Err(other) => panic!("{other:?}"),
                });
                let Some(told) = wrong.last() else { continue };
                told
            }
        };
        assert!(told.contains("key recover"), "{told}");
        refused += 1;
    }
    assert!(refused > 10, "{refused}");
}

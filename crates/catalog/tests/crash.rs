//! Power fails at any call of a process that keeps books and index: every disk that this may leave is opened again, and
//! has all that was acknowledged and nothing by halves.
//!
//! SQLite's files can't be put behind a trait of ours, so a process runs a scripted history under `strace`, and its calls
//! are repeated on a disk that keeps apart what was synced (see `seedbank_testkit::recording`).

use rusqlite::Connection;
use seedbank_catalog::index::Index;
use seedbank_catalog::records::{
    Commit, Dataset, HeadRecord, NewVersion, NumberedList, NumberedPage, ProviderProfile, Push, VersionRecord,
};
use seedbank_catalog::{Books, Catalog, Local, OpenError};
use seedbank_erasure::Scheme;
use seedbank_formats::keys::KeyEpoch;
use seedbank_formats::layout::ChildPlace;
use seedbank_formats::place::{Link, Place};
use seedbank_formats::placement::{FragmentPlacement, SegmentPlacement};
use seedbank_formats::{ChunkId, DatasetId, FragmentId, PublicKey, SegmentNumber, Timestamp, VersionId};
use seedbank_store::testing::{MemDisk, Sweep};
use seedbank_testkit::recording::{Recording, record_test, write_out};
use std::io::Write;
use std::path::{Path, PathBuf};

const DATASET: DatasetId = DatasetId([0xd1; 32]);

/// The books and one dataset's index, in folders that they make themselves.
struct Session {
    books: Option<Local>,
    push: Option<Push>,
    home: PathBuf,
}

fn open_books(home: &Path) -> Result<Local, OpenError> {
    Ok(Local::new(Catalog::open(&home.join("home/catalog"))?, || Timestamp(1_000_000)))
}

fn open_index(home: &Path) -> Index {
    Index::open(&home.join("home/index/one"), DATASET).expect("a crash damages no index")
}

impl Session {
    fn books(&self) -> &Local {
        self.books.as_ref().expect("the books are open")
    }

    /// Records a segment of the push.
    fn record(&self, number: u64) {
        let push = self.push.as_ref().expect("the push was begun");
        let segment = placement(push.first_segment.0 + number);
        self.books().record_segment(push.lease, segment, Timestamp(2_000_000)).expect("a segment");
    }
}

fn place(segment: u64, index: u32) -> Place {
    Place { segment: SegmentNumber(segment), index }
}

fn item(number: u64) -> ChunkId {
    ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn items(segment: u64, numbers: std::ops::Range<u64>) -> Vec<(ChunkId, Place)> {
    numbers.zip(0..).map(|(number, index)| (item(number), place(segment, index))).collect()
}

fn placement(number: u64) -> SegmentPlacement {
    let fragment = |index: u8| FragmentPlacement {
        id: FragmentId(*blake3::hash(&[&number.to_le_bytes()[..], &[index]].concat()).as_bytes()),
        holder: Some(PublicKey([index; 32])),
    };
    SegmentPlacement {
        number: SegmentNumber(number),
        epoch: KeyEpoch(0),
        scheme: Scheme::new(2, 4).expect("a scheme"),
        sealed_len: 1000,
        footer_len: 100,
        fragments: (0..4).map(fragment).collect(),
    }
}

/// A commit of a version whose pages lie in the push's second segment.
fn commit_version(books: &Local, push: &Push) {
    let done = "a commit of the history";
    let base = books.commit_base(push.lease, Some("main".into())).expect(done);
    let segment = push.first_segment.0 + 1;
    let record = VersionRecord {
        ordinal: base.ordinal,
        id: VersionId([1; 32]),
        version: place(segment, 0),
        tree: ChildPlace { page: place(segment, 1), layout: place(segment, 2) },
        new_bytes: 1000,
        stored_bytes: 2000,
        time: Timestamp(7),
        message: "a version".into(),
    };
    let link = Link { place: place(segment, 3), hash: ChunkId([9; 32]) };
    let page = |list| NumberedPage { list, level: 0, page: 0, link };
    let branch = base.branch.expect("the base of a branch");
    let commit = Commit {
        dataset: DATASET,
        lease: push.lease,
        version: Some(NewVersion { record, branch: "main".into(), base: branch }),
        relies_on: None,
        relocations: Vec::new(),
        pages: [NumberedList::Map, NumberedList::Versions, NumberedList::Refs].map(page).to_vec(),
        head: HeadRecord {
            sequence: base.sequence,
            bytes: vec![1; 100],
            segments: vec![SegmentNumber(segment)],
        },
        through: base.through,
        counts: base.counts,
        live: Vec::new(),
    };
    books.commit(commit).expect(done);
}

/// What is done, one acknowledged step after another.
const STEPS: [fn(&mut Session); 17] = [
    |session| session.books = Some(open_books(&session.home).expect("new books")),
    |session| session.books().put_setting("owner".into(), "somebody".into()).expect("a setting"),
    |session| {
        let dataset = Dataset {
            id: DATASET,
            name: "penguins".into(),
            salt: [1; 32],
            owner: PublicKey([2; 32]),
            epoch: KeyEpoch(0),
            public: false,
            policy: vec![1, 2, 3],
            created: Timestamp(5),
        };
        session.books().create_dataset(dataset).expect("a dataset");
    },
    |session| {
        let profile = ProviderProfile {
            key: PublicKey([1; 32]),
            address: "127.0.0.1:1".into(),
            operator: "an operator".into(),
            region: "eu".into(),
            capacity_bytes: 1 << 40,
            free_bytes: 1 << 39,
            accepting: true,
        };
        session.books().put_provider(profile).expect("a provider");
    },
    |session| open_index(&session.home).add(items(0, 0..200)).expect("items"),
    |session| open_index(&session.home).add(items(1, 200..220)).expect("items"),
    // Merges with the one before.
    |session| open_index(&session.home).add(items(2, 210..250)).expect("items"),
    |session| open_index(&session.home).forget_segments([SegmentNumber(0)]).expect("a segment"),
    // More than a page of the log in one transaction.
    |session| session.books().put_setting("long".into(), "x".repeat(9_000)).expect("a setting"),
    |session| {
        let begun = session.books().begin_push(DATASET, "main".into(), "test".into(), 3600, 10);
        session.push = Some(begun.expect("a push"));
    },
    |session| session.record(0),
    |session| session.record(1),
    |session| commit_version(session.books(), session.push.as_ref().expect("the push was begun")),
    |session| session.books = None,
    |session| session.books = Some(open_books(&session.home).expect("books")),
    |session| session.books().put_setting("owner".into(), "somebody else".into()).expect("a setting"),
    |session| {
        drop(
            Index::rebuild(&session.home.join("home/index/one"), DATASET, items(3, 0..300))
                .expect("an index"),
        )
    },
];

/// Everything in books and index, as text; nothing for books that are not there.
fn dump(home: &Path) -> String {
    let path = home.join("home/catalog/catalog.sqlite");
    let mut text = String::new();
    if path.exists() {
        let connection = Connection::open(path).expect("books");
        let whole: String = connection
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .expect("books can be checked");
        assert_eq!(whole, "ok");
        let tables =
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'lifecycle' ORDER BY name";
        let mut tables = connection.prepare(tables).expect("a statement");
        let names = tables.query_map([], |row| row.get::<_, String>(0)).expect("tables");
        for name in names.map(|name| name.expect("a name")) {
            let mut statement = connection.prepare(&format!("SELECT * FROM {name}")).expect("a table");
            let columns = statement.column_count();
            let mut rows = statement.query([]).expect("rows");
            while let Some(row) = rows.next().expect("a row") {
                let values: Vec<_> = (0..columns).map(|at| row.get_ref(at).expect("a value")).collect();
                text += &format!("{name} {values:?}\n");
            }
        }
    }
    if home.join("home/index/one").exists() {
        let index = open_index(home);
        let found = (0..300).map(|number| index.lookup(&item(number)).expect("whole runs"));
        let found = found.zip(0..).filter_map(|(place, number)| Some((number, place?)));
        text +=
            &found.map(|(number, place): (u64, Place)| format!("{number} {place:?}\n")).collect::<String>();
    }
    text
}

/// What a process that died nowhere would leave after each number of steps.
fn expected() -> Vec<String> {
    let folder = scratch();
    let mut session = Session { books: None, push: None, home: folder.path().to_owned() };
    let mut dumps = vec![dump(folder.path())];
    for step in STEPS {
        step(&mut session);
        dumps.push(dump(folder.path()));
    }
    dumps
}

/// The process that is recorded.
#[test]
#[ignore = "run by the other tests, under strace"]
fn recorded_history() {
    let Some(home) = std::env::var_os("RECORDED_ROOT") else { return };
    let marks = std::env::var_os("RECORDED_MARKS").expect("a recorded process has both");
    let mut marks =
        std::fs::OpenOptions::new().append(true).create(true).open(marks).expect("a file for marks");
    let mut session = Session { books: None, push: None, home: home.into() };
    for (number, step) in STEPS.iter().enumerate() {
        writeln!(marks, "begin {number}").expect("a mark");
        step(&mut session);
        writeln!(marks, "done {number}").expect("a mark");
    }
}

/// In memory where there is such a folder: thousands of small disks are written and opened.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a temporary folder")
}

fn recording() -> Option<Recording> {
    record_test(scratch().path(), "recorded_history")
}

/// Opens what a crash left and compares it with what was acknowledged.
fn check(disk: &MemDisk, marks: &[String], expected: &[String]) -> Result<(), String> {
    let count = |word: &str| marks.iter().filter(|mark| mark.starts_with(word)).count();
    let (begun, done) = (count("begin"), count("done"));
    let folder = scratch();
    write_out(disk, folder.path());
    let books = open_books(folder.path()).map_err(|error| format!("the books don't open: {error:?}"))?;
    drop(books);
    if folder.path().join("home/index/one").exists() {
        Index::open(&folder.path().join("home/index/one"), DATASET).map_err(|error| error.to_string())?;
    }
    let found = dump(folder.path());
    // Opening makes books where the first step was lost.
    let is_new = done == 0 && found == expected[1];
    if found != expected[done] && found != expected[begun] && !is_new {
        return Err(format!("{done} of {begun} steps were acknowledged, and this is there:\n{found:.3000}"));
    }
    let books =
        open_books(folder.path()).map_err(|error| format!("the books don't open again: {error:?}"))?;
    books.put_setting("after".into(), "the crash".into()).map_err(|error| error.to_string())?;
    open_index(folder.path()).add(items(9, 500..510)).map_err(|error| error.to_string())?;
    Ok(())
}

/// Checks every disk that may be left right after something was acknowledged, and at every so many calls between; gives
/// their number.
fn check_all(
    recording: &Recording,
    expected: &[String],
    sweep: Sweep,
    calls_between: u64,
) -> Result<usize, String> {
    recording.each_crash(sweep, calls_between, &mut |disk, marks| check(disk, marks, expected))
}

const SWEEP: Sweep = Sweep { subsets_of_max: 3, samples: 3, tears_max: 1 };

#[test]
fn acknowledged_requests_survive_every_crash() {
    let Some(recording) = recording() else { return };
    let states = check_all(&recording, &expected(), SWEEP, 7).unwrap_or_else(|broken| panic!("{broken}"));
    println!("{states} disks after {} calls, {} of them syncs", recording.len(), recording.syncs());
    assert!(states > 300, "the history reaches what it should: {states}");
}

#[test]
#[ignore = "minutes: more subsets, and every write torn at every sector"]
fn acknowledged_requests_survive_every_crash_in_full() {
    let Some(recording) = recording() else { return };
    let sweep = Sweep { subsets_of_max: 6, samples: 60, tears_max: 12 };
    let states = check_all(&recording, &expected(), sweep, 1).unwrap_or_else(|broken| panic!("{broken}"));
    println!("{states} disks after {} calls, {} of them syncs", recording.len(), recording.syncs());
}

/// The checker sees what each kind of sync is for.
#[test]
fn without_any_of_the_syncs_the_same_history_fails() {
    let Some(recording) = recording() else { return };
    let expected = expected();
    type Wanted = fn(&str) -> bool;
    let kinds: [(&str, Wanted); 5] = [
        ("the log", |path| path.ends_with("-wal")),
        ("the folder of the books", |path| path == "home/catalog/"),
        ("runs of the index", |path| path.ends_with(".run.tmp")),
        ("the folder of the index", |path| path == "home/index/one/"),
        ("folders above", |path| path == "home/" || path == "/"),
    ];
    for (what, wanted) in kinds {
        let without = recording.without_syncs(wanted);
        assert!(
            check_all(&without, &expected, SWEEP, u64::MAX).is_err(),
            "without syncs of {what} nothing is lost"
        );
    }
}

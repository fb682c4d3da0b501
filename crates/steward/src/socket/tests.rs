use super::{BindError, Line, Socket, read_line};
use crate::books::{BooksPaths, open_books, open_books_within};
use crate::carrier::SocketCarrier;
use seedbank_catalog::{Books, Carrier, Catalog, CatalogError, Local, OpenError, Request, Response};
use seedbank_client::network::wall_clock;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A home with a served socket; stops when dropped.
struct Served {
    runtime: Runtime,
    stop: watch::Sender<bool>,
    serving: Option<JoinHandle<()>>,
    done: Arc<Mutex<Vec<Request>>>,
}

impl Served {
    fn start(paths: &BooksPaths) -> Served {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let books = Arc::new(Local::new(Catalog::open(&paths.catalog).unwrap(), wall_clock));
        let socket = runtime.block_on(Socket::bind(&paths.socket)).unwrap();
        let (stop, stopped) = watch::channel(false);
        let done = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&done);
        let observer = Arc::new(move |request: &Request| heard.lock().unwrap().push(request.clone()));
        let serving = Some(runtime.spawn(socket.serve(books, observer, stopped)));
        Served { runtime, stop, serving, done }
    }

    fn stop(mut self) {
        self.stop.send(true).unwrap();
        self.runtime.block_on(self.serving.take().unwrap()).unwrap();
    }
}

fn paths(dir: &Path) -> BooksPaths {
    BooksPaths { catalog: dir.join("catalog"), socket: dir.join("steward.sock") }
}

/// What a steward that was killed leaves: a socket file that nobody serves.
fn leave_stale_socket(path: &Path) {
    drop(UnixListener::bind(path).unwrap());
    assert!(path.exists());
}

#[test]
fn two_carriers_use_the_books_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path());
    let served = Served::start(&paths);
    assert_eq!(paths.socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let carriers = [(); 2].map(|()| SocketCarrier::connect(&paths.socket).unwrap());
    std::thread::scope(|scope| {
        for (nth, carrier) in carriers.iter().enumerate() {
            for thread in 0..2 {
                scope.spawn(move || {
                    for round in 0..50 {
                        let key = format!("{nth}/{thread}/{round}");
                        carrier.put_setting(key.clone(), "x".repeat(10_000)).unwrap();
                        assert_eq!(carrier.setting(key).unwrap().unwrap().len(), 10_000);
                    }
                });
            }
        }
    });
    assert_eq!(carriers[0].setting("1/1/49".to_owned()).unwrap().unwrap().len(), 10_000);
    assert_eq!(served.done.lock().unwrap().len(), 401);
    served.stop();
    assert!(!paths.socket.exists());
}

#[test]
fn errors_come_through_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path());
    let served = Served::start(&paths);
    let books = open_books(&paths).unwrap();
    let error = books.dataset("nothing".to_owned()).unwrap_err();
    assert_eq!(error, CatalogError::NoSuchDataset { name: "nothing".to_owned(), near: Vec::new() });
    assert!(served.done.lock().unwrap().is_empty());
    served.stop();
}

#[test]
fn garbage_gets_an_error_and_the_next_line_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path());
    let served = Served::start(&paths);
    let mut connection = BufReader::new(UnixStream::connect(&paths.socket).unwrap());
    let mut ask = |line: &[u8]| {
        connection.get_mut().write_all(line).unwrap();
        connection.get_mut().write_all(b"\n").unwrap();
        let mut answer = String::new();
        connection.read_line(&mut answer).unwrap();
        answer
    };
    let deep = [b'['; 100_000];
    let lines: [&[u8]; 9] = [
        b"",
        b"{",
        b"null",
        b"\xff\xfe\x00",
        b"\"providers\"",
        b"{\"providers\":{\"extra\":1}}",
        b"{\"setting\":{\"key\":7}}",
        b"{\"setting\":{\"key\":\"a\"}} {\"setting\":{\"key\":\"a\"}}",
        &deep,
    ];
    for line in lines {
        let answer = ask(line);
        assert!(answer.starts_with("{\"error\":{\"bad_request\":{\"reason\":\"not a request"), "{answer}");
    }
    assert_eq!(ask(b"{\"setting\":{\"key\":\"a\"}}"), "{\"ok\":{\"setting\":null}}\n");
    // Half a line and an end is no request either.
    let mut torn = UnixStream::connect(&paths.socket).unwrap();
    torn.write_all(b"{\"put_setting\":{\"key\":\"a\",\"value\":\"b\"}}").unwrap();
    drop(torn);
    assert_eq!(ask(b"{\"setting\":{\"key\":\"a\"}}"), "{\"ok\":{\"setting\":null}}\n");
    served.stop();
}

#[tokio::test]
async fn lines_have_a_longest_length() {
    let mut line = Vec::new();
    let mut read = async |text: &'static [u8], max| read_line(&mut &*text, &mut line, max).await.unwrap();
    assert_eq!(read(b"1234\n", 5).await, Line::Whole);
    assert_eq!(read(b"12345\n", 5).await, Line::TooLong);
    assert_eq!(read(b"1234", 5).await, Line::Torn);
}

#[test]
fn books_are_asked_of_the_steward_while_it_runs_and_kept_here_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path());
    let served = Served::start(&paths);
    match Catalog::open(&paths.catalog) {
        Err(OpenError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    open_books(&paths).unwrap().put_setting("a".to_owned(), "b".to_owned()).unwrap();
    assert_eq!(served.done.lock().unwrap().len(), 1);
    served.stop();

    let books = open_books(&paths).unwrap();
    assert_eq!(books.setting("a".to_owned()).unwrap().as_deref(), Some("b"));
    let second = open_books_within(&paths, Duration::ZERO).err().unwrap();
    assert!(second.to_string().contains(&format!("process {}", std::process::id())), "{second}");
}

#[test]
fn what_a_killed_steward_left_is_replaced_and_a_live_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path());
    leave_stale_socket(&paths.socket);
    let served = Served::start(&paths);
    open_books(&paths).unwrap().datasets().unwrap();
    match served.runtime.block_on(Socket::bind(&paths.socket)) {
        Err(BindError::InUse { pid, .. }) => assert_eq!(pid, i32::try_from(std::process::id()).ok()),
        other => panic!("{other:?}"),
    }
    served.stop();
    leave_stale_socket(&paths.socket);
    open_books(&paths).unwrap().datasets().unwrap();
}

#[test]
fn carrier_finds_a_restarted_steward_again() {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths(dir.path());
    let served = Served::start(&paths);
    let carrier = SocketCarrier::connect(&paths.socket).unwrap();
    carrier.put_setting("a".to_owned(), "b".to_owned()).unwrap();
    served.stop();
    let served = Served::start(&paths);
    assert_eq!(carrier.setting("a".to_owned()).unwrap().as_deref(), Some("b"));
    served.stop();
}

#[test]
fn what_may_have_been_done_is_not_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    // Reads one request from each connection and breaks it off, until a connection brings nothing.
    let server = std::thread::spawn(move || {
        let mut seen = Vec::new();
        for stream in listener.incoming() {
            let mut line = String::new();
            BufReader::new(stream.unwrap()).read_line(&mut line).unwrap();
            if line.is_empty() {
                return seen;
            }
            seen.push(line);
        }
        seen
    });
    let carrier = SocketCarrier::connect(&socket).unwrap();
    let removal =
        Request::DeleteRef { dataset: seedbank_formats::DatasetId([1; 32]), name: "old".to_owned() };
    assert!(matches!(carrier.call(removal), Err(CatalogError::Unreachable { .. })));
    assert!(matches!(carrier.call(Request::Datasets {}), Err(CatalogError::Unreachable { .. })));
    drop(UnixStream::connect(&socket).unwrap());
    let seen = server.join().unwrap();
    let counts =
        ["delete_ref", "datasets"].map(|name| seen.iter().filter(|line| line.contains(name)).count());
    assert_eq!(counts, [1, 2]);
}

#[test]
fn every_reply_survives_its_line() {
    use crate::wire::{Reply, line};
    for reply in [Reply::Ok(Response::PutSetting(())), Reply::Error(CatalogError::LeaseLost)] {
        assert_eq!(serde_json::from_slice::<Reply>(&line(&reply)).unwrap(), reply);
    }
}

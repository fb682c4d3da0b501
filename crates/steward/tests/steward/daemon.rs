//! A whole steward in this process: its socket, its lock, its pages, and its end.

use seedbank_catalog::{Books, Catalog, OpenError};
use seedbank_client::maintain::KeyLookup;
use seedbank_client::network::Network;
use seedbank_formats::keys::SigningKey;
use seedbank_formats::{DatasetId, VersionId};
use seedbank_steward::{BooksPaths, RunError, RunOptions, Serving, SocketCarrier, open_books, run};
use seedbank_transport::{ClientLimits, Identity, ProviderClient, TcpDial};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Steward {
    serving: Serving,
    end: oneshot::Sender<()>,
    running: JoinHandle<Result<(), RunError>>,
}

fn paths(home: &Path) -> BooksPaths {
    BooksPaths { catalog: home.join("catalog"), socket: home.join("steward.sock") }
}

fn options(home: &Path) -> RunOptions {
    RunOptions::new("127.0.0.1:0".parse().unwrap(), home.join("index"))
}

fn owner() -> SigningKey {
    SigningKey::from_seed([7; 32])
}

fn network() -> Arc<Network> {
    let identity = Identity::new(&owner());
    Arc::new(Network::new(ProviderClient::new(&identity, TcpDial, ClientLimits::default())))
}

fn no_keys() -> KeyLookup {
    Arc::new(|_dataset| None)
}

impl Steward {
    async fn start(home: &Path) -> Steward {
        let (ready, serving) = oneshot::channel();
        let (end, ended) = oneshot::channel::<()>();
        let (paths, options) = (paths(home), options(home));
        let running = tokio::spawn(async move {
            let on_ready = |serving| ready.send(serving).unwrap();
            let shutdown = async {
                // A test that fails drops the sender, which ends the steward as well.
                let _told = ended.await;
            };
            run(&paths, options, network(), owner(), no_keys(), on_ready, shutdown).await
        });
        Steward { serving: serving.await.expect("the steward comes up"), end, running }
    }

    async fn stop(self) {
        self.end.send(()).unwrap();
        self.running.await.unwrap().unwrap();
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: here\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Runs blocking code beside the steward.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_use_the_books_of_a_steward_that_shows_how_it_is() {
    let home = tempfile::tempdir().unwrap();
    let steward = Steward::start(home.path()).await;
    let (socket, metrics) = (steward.serving.socket.clone(), steward.serving.metrics);
    beside(move || {
        let carriers = [(); 2].map(|()| SocketCarrier::connect(&socket).unwrap());
        carriers[0].put_setting("a".to_owned(), "b".to_owned()).unwrap();
        assert_eq!(carriers[1].setting("a".to_owned()).unwrap().as_deref(), Some("b"));
        assert!(get(metrics, "/healthz").ends_with("\r\n\r\nok\n"));
        let page = get(metrics, "/metrics");
        assert!(page.contains("seedbank_steward_requests_total 2\n"), "{page}");
        assert!(page.contains("seedbank_steward_providers 0\n"), "{page}");
        assert!(get(metrics, "/elsewhere").starts_with("HTTP/1.1 404"));
    })
    .await;
    steward.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_steward_a_home_and_the_books_are_free_when_it_has_ended() {
    let home = tempfile::tempdir().unwrap();
    let steward = Steward::start(home.path()).await;
    let here = paths(home.path());
    let second =
        run(&here, options(home.path()), network(), owner(), no_keys(), |_| (), std::future::pending());
    match second.await {
        Err(RunError::Open(OpenError::Locked { pid, .. })) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    let here = paths(home.path());
    beside(move || {
        assert!(matches!(Catalog::open(&here.catalog), Err(OpenError::Locked { .. })));
        open_books(&here).unwrap().put_setting("a".to_owned(), "b".to_owned()).unwrap();
    })
    .await;
    steward.stop().await;

    let here = paths(home.path());
    assert!(!here.socket.exists());
    let catalog = Catalog::open(&here.catalog).unwrap();
    drop(catalog);
    let steward = Steward::start(home.path()).await;
    let kept = beside(move || open_books(&here).unwrap().setting("a".to_owned()).unwrap()).await;
    assert_eq!(kept.as_deref(), Some("b"));
    steward.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_request_leaves_the_steward_as_it_was() {
    let home = tempfile::tempdir().unwrap();
    let steward = Steward::start(home.path()).await;
    let here = paths(home.path());
    beside(move || {
        let books = open_books(&here).unwrap();
        books.remove_version(DatasetId([1; 32]), VersionId([2; 32])).unwrap_err();
        let mut garbage = std::os::unix::net::UnixStream::connect(&here.socket).unwrap();
        garbage.write_all(&[0xff; 1000]).unwrap();
        drop(garbage);
        assert!(books.datasets().unwrap().is_empty());
    })
    .await;
    steward.stop().await;
}

#[tokio::test]
async fn metrics_are_for_this_machine_alone() {
    let home = tempfile::tempdir().unwrap();
    let options = RunOptions { metrics: "0.0.0.0:0".parse().unwrap(), ..options(home.path()) };
    let refused =
        run(&paths(home.path()), options, network(), owner(), no_keys(), |_| (), std::future::pending())
            .await;
    assert!(matches!(refused, Err(RunError::NotLoopback(_))), "{refused:?}");
    assert!(!home.path().join("catalog").exists());
}

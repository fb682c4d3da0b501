//! A daemon and its callers.

use bytes::Bytes;
use seedbank_formats::keys::SigningKey;
use seedbank_formats::receipt::Receipt;
use seedbank_formats::{FragmentId, PublicKey, Timestamp};
use seedbank_protocol::messages::ProblemCode;
use seedbank_protocol::routes::Access;
use seedbank_provider::{ByteSize, CONFIG_FILE, InitOptions, RunError, RunOptions, Serving, init, run};
use seedbank_transport::{CallError, ClientLimits, Identity, PeerAddress, ProviderClient, Signed, TcpDial};
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) const MIB: usize = 1 << 20;
const DAY_S: u64 = 86_400;

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32])
}

/// The client whom every test provider knows.
pub(crate) fn client_key() -> SigningKey {
    key(1)
}

pub(crate) fn now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

pub(crate) fn tomorrow() -> Timestamp {
    now().plus_seconds(DAY_S)
}

/// Bytes that differ for each seed, and their id.
pub(crate) fn fragment(seed: u64, length: usize) -> (FragmentId, Bytes) {
    let mut bytes = vec![0; length];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for byte in &mut bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state.to_le_bytes()[0];
    }
    (FragmentId::of(&bytes), Bytes::from(bytes))
}

/// Options of a provider that listens anywhere and knows one client.
pub(crate) fn options() -> InitOptions {
    InitOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        capacity: ByteSize(1 << 30),
        reserve: ByteSize(1 << 20),
        region: "test".to_owned(),
        operator: Some("tester".to_owned()),
        clients: vec![(client_key().public(), ByteSize(256 << 20))],
        ..InitOptions::default()
    }
}

/// A running daemon. A test that ends without stopping it takes it down with its runtime.
pub(crate) struct Provider {
    pub(crate) dir: PathBuf,
    pub(crate) serving: Serving,
    /// Removed with this, unless the folder is somebody else's.
    folder: Option<tempfile::TempDir>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), RunError>>,
}

/// Starts a daemon on a fresh folder.
pub(crate) async fn start() -> Provider {
    start_with(&options(), "").await
}

/// The same with other options, and with more lines in its configuration.
pub(crate) async fn start_with(options: &InitOptions, first_lines: &str) -> Provider {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("provider");
    init(&dir, options).unwrap();
    let path = dir.join(CONFIG_FILE);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{first_lines}\n{text}")).unwrap();
    let mut provider = start_in(&dir).await.unwrap();
    provider.folder = Some(folder);
    provider
}

/// Starts a daemon on a prepared folder; gives the error if it ends before it serves.
pub(crate) async fn start_in(dir: &Path) -> Result<Provider, RunError> {
    let (ready, serving) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let folder = dir.to_owned();
    let mut running = tokio::spawn(async move {
        let on_ready = |serving| ready.send(serving).unwrap();
        run(&folder, RunOptions::default(), on_ready, async {
            let _ = stopped.await;
        })
        .await
    });
    tokio::select! {
        Ok(serving) = serving => {
            Ok(Provider { dir: dir.to_owned(), serving, folder: None, stop, running })
        }
        ended = &mut running => Err(ended.unwrap().expect_err("it ended without serving")),
    }
}

impl Provider {
    pub(crate) fn peer(&self) -> PeerAddress {
        PeerAddress { key: self.serving.key, address: self.serving.address.to_string() }
    }

    /// Ends it in order; its folder stays.
    pub(crate) async fn stop(self) -> (PathBuf, Option<tempfile::TempDir>) {
        self.stop.send(()).unwrap();
        self.running.await.unwrap().unwrap();
        (self.dir, self.folder)
    }

    /// Somebody who asks this provider.
    pub(crate) fn caller(&self, key: &SigningKey) -> Caller {
        caller(key, self.peer())
    }

    /// The known client.
    pub(crate) fn client(&self) -> Caller {
        self.caller(&client_key())
    }

    /// A page of the monitoring address: its status and its text.
    pub(crate) async fn page(&self, path: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(self.serving.metrics).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The value of a metric with these labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let (status, text) = self.page("/metrics").await;
        assert_eq!(status, 200);
        let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(found, _)| found == name));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    /// Every file below the data folder.
    pub(crate) fn data_files(&self) -> Vec<PathBuf> {
        let (mut files, mut waiting) = (Vec::new(), vec![self.dir.join("data")]);
        while let Some(folder) = waiting.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { waiting.push(path) } else { files.push(path) }
            }
        }
        files
    }

    /// Flips a byte of a stored fragment on the disk.
    pub(crate) fn rot(&self, bytes: &[u8], at: usize) {
        for path in self.data_files() {
            let mut stored = std::fs::read(&path).unwrap();
            let window = bytes.len().min(64);
            let Some(start) = stored.windows(window).position(|found| found == &bytes[..window]) else {
                continue;
            };
            stored[start + at] ^= 0x10;
            // In place: the daemon has the file open.
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &stored, 0).unwrap();
            return;
        }
        panic!("the fragment is not on the disk");
    }
}

/// Somebody who asks this peer.
pub(crate) fn caller(key: &SigningKey, peer: PeerAddress) -> Caller {
    let client = ProviderClient::new(&Identity::new(key), TcpDial, ClientLimits::default());
    Caller { client, peer }
}

/// Somebody with a key.
pub(crate) struct Caller {
    pub(crate) client: ProviderClient,
    pub(crate) peer: PeerAddress,
}

impl Caller {
    pub(crate) fn key(&self) -> PublicKey {
        self.client.public()
    }

    pub(crate) async fn put(
        &self,
        (id, bytes): &(FragmentId, Bytes),
        access: Access,
    ) -> Result<Signed<Receipt>, CallError> {
        self.client.put_fragment(&self.peer, *id, bytes.clone(), tomorrow(), access).await
    }

    /// Reads all of a fragment.
    pub(crate) async fn get(
        &self,
        (id, bytes): &(FragmentId, Bytes),
        token: Option<&[u8]>,
    ) -> Result<Bytes, CallError> {
        let length = u64::try_from(bytes.len()).unwrap();
        self.client.get_range(&self.peer, *id, 0..length, token).await
    }
}

/// The code of a refusal.
pub(crate) fn refusal<T: Debug>(answer: Result<T, CallError>) -> ProblemCode {
    match answer {
        Err(CallError::Refused { problem, .. }) => problem.code,
        other => panic!("not refused: {other:?}"),
    }
}

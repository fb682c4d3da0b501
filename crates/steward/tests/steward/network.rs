//! An owner and a few providers in this process, over real sockets.

use bytes::Bytes;
use seedbank_catalog::records::{Dataset, ProviderProfile};
use seedbank_catalog::{Books, Catalog, Local};
use seedbank_client::SharedBooks;
use seedbank_client::dataset::{DatasetKeys, Visibility};
use seedbank_client::glob::Filter;
use seedbank_client::maintain::{KeyLookup, Maintenance};
use seedbank_client::network::{Network, wall_clock};
use seedbank_client::placements::Placements;
use seedbank_client::progress::Silent;
use seedbank_client::pull::verify;
use seedbank_client::push::{PushContext, PushOptions, PushReport, Rehash, push};
use seedbank_client::reader::Reader;
use seedbank_client::snapshot::Snapshot;
use seedbank_erasure::Scheme;
use seedbank_formats::head::Head;
use seedbank_formats::keys::{DatasetSecret, KeyEpoch, SigningKey, dataset_id};
use seedbank_formats::policy::Policy;
use seedbank_formats::seal::Compression;
use seedbank_formats::{FragmentId, PublicKey, Timestamp, VersionId};
use seedbank_protocol::messages::{ClaimAction, ClaimRequest};
use seedbank_protocol::routes::Access;
use seedbank_provider::{ByteSize, InitOptions, RunError, RunOptions, Serving, init, run};
use seedbank_transport::{ClientLimits, Identity, PeerAddress, ProviderClient, TcpDial};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const SALT: [u8; 32] = [5; 32];

fn owner() -> SigningKey {
    SigningKey::from_seed([1; 32])
}

/// A dataset of the owner, and its keys.
fn dataset(name: &str, salt: [u8; 32], policy: &Policy) -> (Dataset, DatasetKeys) {
    let id = dataset_id(&owner().public(), &salt);
    let secrets = BTreeMap::from([(KeyEpoch(0), DatasetSecret::new([9; 32]))]);
    let keys = DatasetKeys::new(id, owner().public(), salt, Visibility::Private, secrets).unwrap();
    let dataset = Dataset {
        id,
        name: name.to_owned(),
        salt,
        owner: owner().public(),
        epoch: KeyEpoch(0),
        public: false,
        policy: serde_json::to_vec(policy).unwrap(),
        created: wall_clock(),
    };
    (dataset, keys)
}

/// A running provider.
pub(crate) struct Provider {
    pub(crate) dir: PathBuf,
    pub(crate) key: PublicKey,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), RunError>>,
}

impl Provider {
    async fn start(dir: &Path) -> (Provider, Serving) {
        let (ready, serving) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let folder = dir.to_owned();
        let running = tokio::spawn(async move {
            let on_ready = |serving| ready.send(serving).unwrap();
            let shutdown = async {
                let _told = stopped.await;
            };
            run(&folder, RunOptions::default(), on_ready, shutdown).await
        });
        let serving = serving.await.expect("the provider comes up");
        (Provider { dir: dir.to_owned(), key: serving.key, stop, running }, serving)
    }

    /// Ends it in order; its folder stays.
    pub(crate) async fn stop(self) -> PathBuf {
        self.stop.send(()).unwrap();
        self.running.await.unwrap().unwrap();
        self.dir
    }
}

/// The whole.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) providers: Vec<Provider>,
    pub(crate) books: SharedBooks,
    pub(crate) network: Arc<Network>,
    pub(crate) keys: DatasetKeys,
    dataset: Dataset,
    policy: Policy,
}

impl World {
    /// `count` providers of distinct operators, and a dataset coded as 2 of 4.
    pub(crate) async fn start(count: usize) -> World {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&folder.path().join("catalog")).unwrap();
        let books: SharedBooks = Arc::new(Local::new(catalog, wall_clock));
        let identity = Identity::new(&owner());
        let network =
            Arc::new(Network::new(ProviderClient::new(&identity, TcpDial, ClientLimits::default())));

        let policy = Policy { scheme: Some(Scheme::new(2, 4).unwrap()), ..Policy::default() };
        let (dataset, keys) = dataset("birds", SALT, &policy);
        books.create_dataset(dataset.clone()).unwrap();
        let mut world = World { folder, providers: Vec::new(), books, network, keys, dataset, policy };
        for nth in 0..count {
            world.add_provider(nth).await;
        }
        world
    }

    /// Starts one more provider and tells the books.
    pub(crate) async fn add_provider(&mut self, nth: usize) {
        let dir = self.folder.path().join(format!("provider-{nth}"));
        let options = InitOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            capacity: ByteSize(1 << 30),
            reserve: ByteSize(1 << 20),
            operator: Some(format!("operator-{nth}")),
            clients: vec![(owner().public(), ByteSize(1 << 30))],
            ..InitOptions::default()
        };
        init(&dir, &options).unwrap();
        self.resume(&dir).await;
    }

    /// Starts a provider on a folder that is prepared.
    pub(crate) async fn resume(&mut self, dir: &Path) {
        let (provider, serving) = Provider::start(dir).await;
        let profile = ProviderProfile {
            key: serving.key,
            address: serving.address.to_string(),
            operator: dir.file_name().unwrap().to_string_lossy().into_owned(),
            region: "here".to_owned(),
            capacity_bytes: 1 << 30,
            free_bytes: 1 << 30,
            accepting: true,
        };
        self.books.put_provider(profile).unwrap();
        self.providers.push(provider);
    }

    /// Takes a provider out of the world.
    pub(crate) fn take(&mut self, key: PublicKey) -> Provider {
        let position = self.providers.iter().position(|provider| provider.key == key).unwrap();
        self.providers.remove(position)
    }

    pub(crate) fn maintenance(&self) -> Maintenance {
        let keys = self.keys.clone();
        let lookup: KeyLookup = Arc::new(move |_dataset| Some(keys.clone()));
        let (books, network) = (Arc::clone(&self.books), Arc::clone(&self.network));
        Maintenance::new(books, network, lookup)
            .with_index(&self.folder.path().join("index"))
            .signing(Arc::new(owner()))
    }

    pub(crate) async fn push(&self, source: &Path) -> PushReport {
        self.push_to(&self.dataset, &self.keys, source).await
    }

    /// Pushes to another dataset of the same owner, which is made for it.
    pub(crate) async fn push_elsewhere(&self, source: &Path) -> PushReport {
        let (dataset, keys) = dataset("fish", [6; 32], &self.policy);
        self.books.create_dataset(dataset.clone()).unwrap();
        self.push_to(&dataset, &keys, source).await
    }

    /// Puts a fragment that no book knows, and makes its claim a lasting one if `renewed` says until when.
    pub(crate) async fn leave_orphan(&self, provider: PublicKey, bytes: &[u8], renewed: Option<Timestamp>) {
        let client = ProviderClient::new(&Identity::new(&owner()), TcpDial, ClientLimits::default());
        let known = self.books.providers().unwrap().into_iter();
        let known = known.map(|known| known.profile).find(|profile| profile.key == provider).unwrap();
        let peer = PeerAddress { key: provider, address: known.address };
        let (fragment, tomorrow) = (FragmentId::of(bytes), wall_clock().plus_seconds(80_000));
        let bytes = Bytes::copy_from_slice(bytes);
        client.put_fragment(&peer, fragment, bytes, tomorrow, Access::Owner).await.unwrap();
        if let Some(until) = renewed {
            let action = ClaimAction::Renew(until);
            client.claims(&peer, &[ClaimRequest { fragment, action }]).await.unwrap();
        }
    }

    /// Every claim that a provider lists.
    pub(crate) async fn claims(&self, provider: PublicKey) -> BTreeSet<FragmentId> {
        let page = self.network.list_claims(&provider, None, 1000).await.unwrap();
        page.iter().map(|claim| claim.fragment).collect()
    }

    /// Gives a provider a newer head than the books have, as another home of the same owner would.
    pub(crate) async fn publish_from_elsewhere(&self) {
        let known = self.books.head(self.keys.id).unwrap().unwrap();
        let head = Head::check(&known.bytes).unwrap();
        let keys = self.keys.seal_keys(head.epoch()).unwrap();
        let body = head.open(keys).unwrap();
        let newer = Head::sign(&body, keys, &owner(), &SALT, known.sequence + 1, wall_clock()).unwrap();
        self.network.put_head(&self.providers[0].key, self.keys.id, Bytes::from(newer)).await.unwrap();
    }

    async fn push_to(&self, dataset: &Dataset, keys: &DatasetKeys, source: &Path) -> PushReport {
        let context = PushContext {
            books: Arc::clone(&self.books),
            network: Arc::clone(&self.network),
            owner: owner(),
            keys: keys.clone(),
            dataset: dataset.clone(),
            policy: self.policy.clone(),
            index_dir: self.folder.path().join("index"),
            cache_dir: self.folder.path().join("cache"),
        };
        let options = PushOptions {
            source: source.to_owned(),
            filter: Filter::default(),
            branch: "main".to_owned(),
            message: "as it is".to_owned(),
            rehash: Rehash::All,
            compression: Compression::Auto,
        };
        push(&context, &options, Arc::new(Silent)).await.unwrap()
    }

    /// Reads all of a version back, from the present books, and checks it.
    pub(crate) async fn check(&self, version: VersionId) {
        let record = self.books.resolve(self.keys.id, version.to_string()).unwrap().version;
        let reader = Reader::of_books(&self.books, &self.network, &self.keys);
        let snapshot = Snapshot::open(&reader, version, record.version, record.tree).await.unwrap();
        verify(&reader, &snapshot, Arc::new(Silent)).await.unwrap();
    }

    /// Reads all of a version as somebody does who has the key and nothing else: from the head that providers have.
    /// Gives everybody who holds some of it, by the placement map.
    pub(crate) async fn check_from_head(&self, version: VersionId) -> BTreeSet<PublicKey> {
        let bytes = self.network.get_head(&self.providers[0].key, self.keys.id).await.unwrap().unwrap();
        let head = Head::check(&bytes).unwrap();
        let body = head.open(self.keys.seal_keys(head.epoch()).unwrap()).unwrap();
        let newest = body.version.unwrap();
        assert_eq!(newest.id, version);
        let reader = Reader::new(
            Arc::clone(&self.network),
            self.keys.clone(),
            Placements::of_head(&body, head.sequence()),
        );
        let snapshot = Snapshot::open(&reader, version, newest.version, newest.tree).await.unwrap();
        verify(&reader, &snapshot, Arc::new(Silent)).await.unwrap();
        let segments = snapshot.segments(&reader).await.unwrap();
        segments.iter().flat_map(|segment| segment.holders().collect::<Vec<_>>()).collect()
    }
}

//! An owner, its books, and providers that can be made to fail.

use seedbank_catalog::records::{Dataset, ProviderProfile, Work};
use seedbank_catalog::{Books, Carrier, Catalog, CatalogError, Local, Request, Response};
use seedbank_client::SharedBooks;
use seedbank_client::dataset::{DatasetKeys, Visibility};
use seedbank_client::file_cache::FileCache;
use seedbank_client::glob::Filter;
use seedbank_client::heads::{OpenedHead, open_dataset};
use seedbank_client::maintain::{KeyLookup, Maintenance};
use seedbank_client::network::{Network, wall_clock};
use seedbank_client::progress::{Progress, Silent};
use seedbank_client::pull::pull;
use seedbank_client::push::{
    PushContext, PushError, PushLimits, PushOptions, PushReport, Rehash, push_within,
};
use seedbank_client::reader::Reader;
use seedbank_client::restore::RestoreOptions;
use seedbank_client::scan::read_stable;
use seedbank_client::snapshot::Snapshot;
use seedbank_erasure::Scheme;
use seedbank_formats::keys::{DatasetSecret, KeyEpoch, SigningKey, dataset_id};
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::policy::Policy;
use seedbank_formats::seal::Compression;
use seedbank_formats::tree::Entry;
use seedbank_formats::{FragmentId, PublicKey, SegmentNumber, Timestamp, VersionId};
use seedbank_protocol::messages::{ClaimState, Prices};
use seedbank_provider::{
    ByteSize, CONFIG_FILE, InitOptions, RunError, RunOptions, WALLET_FILE, create_wallet, init, run,
};
use seedbank_transport::{ClientLimits, Identity, PeerAddress, ProviderClient, TcpDial};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

pub(crate) const MIB: usize = 1 << 20;

pub(crate) fn owner() -> SigningKey {
    SigningKey::from_seed([1; 32])
}

/// How the way to a provider is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    /// Connections are taken, and nothing goes through.
    Stalled,
    /// Nobody takes connections.
    Closed,
}

/// What a provider is like.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) capacity: u64,
    pub(crate) quota: u64,
    pub(crate) operator: Option<String>,
    /// What it asks, and its section about the chain on which it is paid.
    pub(crate) paid: Option<(Prices, String)>,
}

impl Default for Kind {
    fn default() -> Kind {
        Kind { capacity: 4 << 30, quota: 4 << 30, operator: None, paid: None }
    }
}

/// A running provider behind a way that can be closed.
pub(crate) struct Provider {
    pub(crate) key: PublicKey,
    way: watch::Sender<Way>,
    stop: Option<oneshot::Sender<()>>,
    _running: JoinHandle<Result<(), RunError>>,
    _gate: JoinHandle<()>,
}

impl Provider {
    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// Ends it for good.
    pub(crate) fn end(&mut self) {
        self.set(Way::Closed);
        drop(self.stop.take());
    }

    pub(crate) fn way(&self) -> watch::Sender<Way> {
        self.way.clone()
    }
}

/// Starts a provider behind a gate.
async fn start(folder: &Path, nth: usize, kind: Kind) -> (Provider, ProviderProfile) {
    let dir = folder.join(format!("provider-{nth}"));
    let operator = kind.operator.unwrap_or_else(|| format!("operator-{nth}"));
    let options = InitOptions {
        listen: "127.0.0.1:0".parse().unwrap(),
        capacity: ByteSize(kind.capacity),
        reserve: ByteSize(1 << 20),
        operator: Some(operator.clone()),
        clients: vec![(owner().public(), ByteSize(kind.quota))],
        prices: kind.paid.as_ref().map_or_else(Prices::default, |(prices, _)| *prices),
        ..InitOptions::default()
    };
    let section = kind.paid.map(|(_, section)| section);
    let (ready, serving) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(async move {
        let prepared = dir.clone();
        let prepare = move || {
            init(&prepared, &options).unwrap();
            if let Some(section) = section {
                create_wallet(&prepared, WALLET_FILE).unwrap();
                let config = prepared.join(CONFIG_FILE);
                let text = std::fs::read_to_string(&config).unwrap();
                std::fs::write(&config, format!("{text}\n{section}")).unwrap();
            }
        };
        tokio::task::spawn_blocking(prepare).await.unwrap();
        let on_ready = |serving| ready.send(serving).unwrap();
        run(&dir, RunOptions::default(), on_ready, async {
            let _told = stopped.await;
        })
        .await
    });
    let serving = serving.await.expect("the provider comes up");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (way, hears) = watch::channel(Way::Open);
    let gate = tokio::spawn(gate(listener, serving.address, hears));
    let profile = ProviderProfile {
        key: serving.key,
        address: address.to_string(),
        operator,
        region: "here".to_owned(),
        capacity_bytes: kind.capacity,
        free_bytes: kind.capacity,
        accepting: true,
    };
    (Provider { key: serving.key, way, stop: Some(stop), _running: running, _gate: gate }, profile)
}

/// Forwards connections as `way` says.
async fn gate(listener: TcpListener, target: SocketAddr, way: watch::Receiver<Way>) {
    while let Ok((mut near, _)) = listener.accept().await {
        let mut way = way.clone();
        tokio::spawn(async move {
            let Ok(mut far) = TcpStream::connect(target).await else { return };
            loop {
                let here = *way.borrow_and_update();
                match here {
                    Way::Open => tokio::select! {
                        _changed = way.changed() => {}
                        _ended = copy_bidirectional(&mut near, &mut far) => return,
                    },
                    Way::Stalled => {
                        if way.changed().await.is_err() {
                            return;
                        }
                    }
                    Way::Closed => return,
                }
            }
        });
    }
}

/// The whole.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) providers: Vec<Provider>,
    pub(crate) books: SharedBooks,
    pub(crate) network: Arc<Network>,
    pub(crate) keys: DatasetKeys,
    pub(crate) dataset: Dataset,
    pub(crate) policy: Policy,
    /// How short segments are.
    pub(crate) segment_bytes: usize,
    /// Added to the books' clock.
    skew: Arc<AtomicU64>,
}

/// Books that do something before they answer.
pub(crate) struct Hooked<F> {
    pub(crate) books: SharedBooks,
    pub(crate) before: F,
}

impl<F: Fn(&Request) + Send + Sync> Carrier for Hooked<F> {
    fn call(&self, request: Request) -> Result<Response, CatalogError> {
        (self.before)(&request);
        self.books.call(request)
    }
}

/// How to push.
pub(crate) fn options(source: &Path) -> PushOptions {
    PushOptions {
        source: source.to_owned(),
        filter: Filter::default(),
        branch: "main".to_owned(),
        message: "as it is".to_owned(),
        rehash: Rehash::Changed,
        compression: Compression::Auto,
    }
}

impl World {
    /// `count` usual providers of distinct operators, and a dataset coded by this scheme.
    pub(crate) async fn start(count: usize, data: usize, total: usize) -> World {
        let policy = Policy { scheme: Some(Scheme::new(data, total).unwrap()), ..Policy::default() };
        World::start_with(vec![Kind::default(); count], policy).await
    }

    pub(crate) async fn start_with(kinds: Vec<Kind>, policy: Policy) -> World {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("cache")).unwrap();
        let catalog = Catalog::open(&folder.path().join("catalog")).unwrap();
        let skew = Arc::new(AtomicU64::new(0));
        let clock = {
            let skew = Arc::clone(&skew);
            move || wall_clock().plus_seconds(skew.load(Ordering::Relaxed))
        };
        let books: SharedBooks = Arc::new(Local::new(catalog, clock));
        let salt = [5; 32];
        let id = dataset_id(&owner().public(), &salt);
        let secrets = BTreeMap::from([(KeyEpoch(0), DatasetSecret::new([9; 32]))]);
        let keys = DatasetKeys::new(id, owner().public(), salt, Visibility::Private, secrets).unwrap();
        let dataset = Dataset {
            id,
            name: "birds".to_owned(),
            salt,
            owner: owner().public(),
            epoch: KeyEpoch(0),
            public: false,
            policy: serde_json::to_vec(&policy).unwrap(),
            created: wall_clock(),
        };
        books.create_dataset(dataset.clone()).unwrap();
        let mut world = World {
            folder,
            providers: Vec::new(),
            books,
            network: network(),
            keys,
            dataset,
            policy,
            segment_bytes: 64 * MIB,
            skew,
        };
        let mut starting = JoinSet::new();
        for (nth, kind) in kinds.into_iter().enumerate() {
            let folder = world.folder.path().to_owned();
            starting.spawn(async move { (nth, start(&folder, nth, kind).await) });
        }
        let mut started: Vec<_> = starting.join_all().await;
        started.sort_by_key(|(nth, _)| *nth);
        started.into_iter().for_each(|(_, started)| world.take_in(started));
        world
    }

    /// Starts one more provider and tells the books.
    pub(crate) async fn add_provider(&mut self, kind: Kind) -> PublicKey {
        let started = start(self.folder.path(), self.providers.len(), kind).await;
        let key = started.0.key;
        self.take_in(started);
        key
    }

    fn take_in(&mut self, (provider, profile): (Provider, ProviderProfile)) {
        self.books.put_provider(profile).unwrap();
        self.providers.push(provider);
    }

    /// Forgets connections, estimates and verdicts, as another process would.
    pub(crate) fn renew_network(&mut self) {
        self.network = network_like(self);
    }

    /// Sets the books' clock forward.
    pub(crate) fn pass(&self, seconds: u64) {
        self.skew.fetch_add(seconds, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> Timestamp {
        wall_clock().plus_seconds(self.skew.load(Ordering::Relaxed))
    }

    pub(crate) fn provider(&self, key: &PublicKey) -> &Provider {
        self.providers.iter().find(|provider| provider.key == *key).unwrap()
    }

    pub(crate) fn context(&self) -> PushContext {
        PushContext {
            books: Arc::clone(&self.books),
            network: Arc::clone(&self.network),
            owner: owner(),
            keys: self.keys.clone(),
            dataset: self.dataset.clone(),
            policy: self.policy.clone(),
            index_dir: self.folder.path().join("index"),
            cache_dir: self.folder.path().join("cache"),
        }
    }

    /// A folder to push from, made new.
    pub(crate) fn source(&self, name: &str) -> PathBuf {
        let source = self.folder.path().join(name);
        std::fs::create_dir(&source).unwrap();
        source
    }

    pub(crate) async fn try_push(&self, options: &PushOptions) -> Result<PushReport, PushError> {
        self.push_in(&self.context(), options, Arc::new(Silent)).await
    }

    pub(crate) async fn push_in(
        &self,
        context: &PushContext,
        options: &PushOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<PushReport, PushError> {
        let limits = PushLimits { segment_bytes: self.segment_bytes };
        push_within(context, options, limits, progress).await
    }

    /// A push through books that do something before they answer.
    pub(crate) fn hooked(&self, before: impl Fn(&Request) + Send + Sync + 'static) -> PushContext {
        PushContext { books: Arc::new(Hooked { books: Arc::clone(&self.books), before }), ..self.context() }
    }

    /// Makes the file cache say what a version holds, as if its files had been read long after they were written.
    pub(crate) async fn remember(&self, version: VersionId, source: &Path) {
        let record = self.books.resolve(self.keys.id, version.to_string()).unwrap().version;
        let reader = Reader::of_books(&self.books, &self.network, &self.keys);
        let snapshot = Snapshot::open(&reader, version, record.version, record.tree).await.unwrap();
        let mut entries = snapshot.entries(&reader);
        let mut cache = FileCache::open(&self.folder.path().join("cache"));
        while let Some((path, entry)) = entries.next().await.unwrap() {
            if let Entry::File { executable, .. } = entry {
                self.remember_file(&mut cache, &source.join(path.as_str()), executable, &entry);
            }
        }
        cache.flush();
    }

    pub(crate) fn remember_file(&self, cache: &mut FileCache, path: &Path, executable: bool, entry: &Entry) {
        let path = path.canonicalize().unwrap();
        let stamp = *read_stable(&path).unwrap().stamp();
        let long_after = wall_clock().plus_seconds(3600);
        cache.remember(self.keys.id, &path, &stamp, executable, long_after, entry);
    }

    pub(crate) async fn push(&self, source: &Path) -> PushReport {
        self.try_push(&options(source)).await.unwrap()
    }

    pub(crate) fn maintenance(&self) -> Maintenance {
        let keys = self.keys.clone();
        let lookup: KeyLookup = Arc::new(move |_dataset| Some(keys.clone()));
        let (books, network) = (Arc::clone(&self.books), Arc::clone(&self.network));
        Maintenance::new(books, network, lookup)
            .with_index(&self.folder.path().join("index"))
            .signing(Arc::new(owner()))
    }

    /// Reads all of a version back through the books, and compares.
    pub(crate) async fn check(&self, version: VersionId, expected: &Path) {
        let record = self.books.resolve(self.keys.id, version.to_string()).unwrap().version;
        let reader = Reader::of_books(&self.books, &network_like(self), &self.keys);
        let snapshot = Snapshot::open(&reader, version, record.version, record.tree).await.unwrap();
        restore(&reader, &snapshot, expected).await;
    }

    /// Opens the dataset as somebody does who has the key and nothing else.
    pub(crate) async fn open(&self) -> OpenedHead {
        let providers: Vec<PublicKey> = self.providers.iter().map(|provider| provider.key).collect();
        open_dataset(&network_like(self), &self.keys, &providers, None).await.unwrap()
    }

    /// Reads the default version back without the books, and compares. Gives its id.
    pub(crate) async fn check_from_head(&self, expected: &Path) -> VersionId {
        let opened = self.open().await;
        let snapshot = opened.snapshot(None).await.unwrap();
        restore(opened.reader(), &snapshot, expected).await;
        snapshot.id
    }

    /// All committed segments.
    pub(crate) fn segments(&self) -> Vec<SegmentPlacement> {
        self.books.segments_in(self.keys.id, SegmentNumber(0), SegmentNumber(1 << 40), None).unwrap()
    }

    pub(crate) fn sealed_bytes(&self) -> u64 {
        self.segments().iter().map(|segment| u64::from(segment.sealed_len)).sum()
    }

    /// What a provider keeps for the owner.
    pub(crate) async fn claims_at(&self, provider: &Provider) -> BTreeMap<FragmentId, ClaimState> {
        let address = self.books.providers().unwrap().into_iter().find(|p| p.profile.key == provider.key);
        let peer = PeerAddress { key: provider.key, address: address.unwrap().profile.address };
        let client = client();
        let mut claims = BTreeMap::new();
        loop {
            let after = claims.last_key_value().map(|(fragment, _)| *fragment);
            let rows = client.list_claims(&peer, after, 1000).await.unwrap();
            if rows.is_empty() {
                return claims;
            }
            claims.extend(rows.into_iter().map(|row| (row.fragment, row.state)));
        }
    }

    /// What providers should keep, by the books.
    pub(crate) fn holdings(&self) -> BTreeMap<PublicKey, BTreeSet<FragmentId>> {
        let mut holdings: BTreeMap<PublicKey, BTreeSet<FragmentId>> = BTreeMap::new();
        for segment in self.segments() {
            for fragment in &segment.fragments {
                holdings
                    .entry(fragment.holder.expect("every index is held"))
                    .or_default()
                    .insert(fragment.id);
            }
        }
        holdings
    }

    /// Every provider that can be reached keeps exactly what the books say, under a lasting claim.
    pub(crate) async fn check_claims(&self) {
        let holdings = self.holdings();
        for provider in self.providers.iter().filter(|provider| *provider.way.borrow() == Way::Open) {
            let claims = self.claims_at(provider).await;
            let expected = holdings.get(&provider.key).cloned().unwrap_or_default();
            assert_eq!(claims.keys().copied().collect::<BTreeSet<_>>(), expected);
            let lasting = claims.values().all(|state| *state == ClaimState::Confirmed);
            assert!(lasting, "{claims:?}");
        }
    }

    pub(crate) fn has_jobs(&self, wanted: impl Fn(&Work) -> bool) -> bool {
        self.books.jobs(1000).unwrap().iter().any(|job| wanted(&job.work))
    }
}

pub(crate) fn client() -> ProviderClient {
    ProviderClient::new(&Identity::new(&owner()), TcpDial, ClientLimits::default())
}

fn network() -> Arc<Network> {
    Arc::new(Network::new(client()))
}

/// A fresh network that knows where this world's providers are, as a reader does who was given them.
fn network_like(world: &World) -> Arc<Network> {
    let network = network();
    let providers = world.books.providers().unwrap();
    network.learn(providers.iter().map(|p| (&p.profile.key, p.profile.address.as_str())));
    network
}

async fn restore(reader: &Arc<Reader>, snapshot: &Snapshot, expected: &Path) {
    let dest = tempfile::tempdir().unwrap();
    let dest = dest.path().join("pulled");
    let options = RestoreOptions::default();
    pull(reader, snapshot, &dest, &Filter::default(), options, Arc::new(Silent)).await.unwrap();
    seedbank_testkit::assert_same_folder(expected, &dest);
}

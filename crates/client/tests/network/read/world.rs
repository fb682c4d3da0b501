//! An owner with books, providers over real sockets, and readers with keys of their own.

use super::provider::Provider;
use bytes::Bytes;
use seedbank_catalog::records::{Dataset, ProviderProfile};
use seedbank_catalog::{Books, Catalog, Local};
use seedbank_client::SharedBooks;
use seedbank_client::dataset::{DatasetKeys, Visibility};
use seedbank_client::glob::Filter;
use seedbank_client::network::{Network, wall_clock};
use seedbank_client::progress::Silent;
use seedbank_client::pull::{CatError, cat};
use seedbank_client::push::{PushContext, PushError, PushOptions, PushReport, Rehash, push};
use seedbank_client::reader::Reader;
use seedbank_client::snapshot::{Snapshot, SnapshotError};
use seedbank_erasure::Scheme;
use seedbank_formats::chunking::{Tail, chunk_id, next_cut};
use seedbank_formats::keys::{DatasetSecret, KeyEpoch, SigningKey, dataset_id};
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::policy::Policy;
use seedbank_formats::seal::{Compression, Item};
use seedbank_formats::segment::Footer;
use seedbank_formats::{PublicKey, VersionId};
use seedbank_protocol::latency::LatencyPolicy;
use seedbank_transport::{ClientLimits, Identity, ProviderClient, TcpDial};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

const SALT: [u8; 32] = [5; 32];

pub(crate) fn owner() -> SigningKey {
    SigningKey::from_seed([1; 32])
}

/// A network of somebody who is not the owner: reads need a token.
pub(crate) fn stranger() -> Arc<Network> {
    stranger_within(ClientLimits::default())
}

/// One who asks others only after so long. With long enough a time, that this machine is busy costs no requests.
pub(crate) fn patient(hedge: Duration) -> Arc<Network> {
    let identity = Identity::new(&SigningKey::from_seed([2; 32]));
    let client = ProviderClient::new(&identity, TcpDial, ClientLimits::default());
    let policy = LatencyPolicy {
        hedge_floor: hedge,
        hedge_cap: hedge,
        hedge_unknown: hedge,
        ..LatencyPolicy::default()
    };
    Arc::new(Network::with_policy(client, policy))
}

/// Longer than any answer takes.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(60);

pub(crate) fn stranger_within(limits: ClientLimits) -> Arc<Network> {
    let identity = Identity::new(&SigningKey::from_seed([2; 32]));
    Arc::new(Network::new(ProviderClient::new(&identity, TcpDial, limits)))
}

/// The whole.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) providers: Vec<Provider>,
    pub(crate) books: SharedBooks,
    pub(crate) keys: DatasetKeys,
    pub(crate) policy: Policy,
    dataset: Dataset,
    others: Vec<(PublicKey, String)>,
}

/// One who reads, with a network of its own.
pub(crate) struct Reading {
    pub(crate) books: SharedBooks,
    pub(crate) network: Arc<Network>,
    pub(crate) reader: Arc<Reader>,
    pub(crate) snapshot: Snapshot,
}

/// What was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) proofs: u64,
    pub(crate) decodes: u64,
}

impl World {
    /// As many providers as the scheme has fragments, and a dataset.
    pub(crate) async fn start(data: usize, total: usize, visibility: Visibility) -> World {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&folder.path().join("catalog")).unwrap();
        let books: SharedBooks = Arc::new(Local::new(catalog, wall_clock));
        let id = dataset_id(&owner().public(), &SALT);
        let secret = match visibility {
            Visibility::Private => DatasetSecret::new([9; 32]),
            Visibility::Public => DatasetSecret::published(&id),
        };
        let secrets = BTreeMap::from([(KeyEpoch(0), secret)]);
        let keys = DatasetKeys::new(id, owner().public(), SALT, visibility, secrets).unwrap();
        let policy = Policy { scheme: Some(Scheme::new(data, total).unwrap()), ..Policy::default() };
        let dataset = Dataset {
            id,
            name: "birds".to_owned(),
            salt: SALT,
            owner: owner().public(),
            epoch: KeyEpoch(0),
            public: visibility == Visibility::Public,
            policy: serde_json::to_vec(&policy).unwrap(),
            created: wall_clock(),
        };
        books.create_dataset(dataset.clone()).unwrap();
        let mut world =
            World { folder, providers: Vec::new(), books, keys, policy, dataset, others: Vec::new() };
        for nth in 0..total {
            let provider = Provider::start(u8::try_from(nth).unwrap()).await;
            let profile = ProviderProfile {
                key: provider.key(),
                address: provider.address.clone(),
                operator: format!("operator-{nth}"),
                region: "here".to_owned(),
                capacity_bytes: 1 << 30,
                free_bytes: 1 << 30,
                accepting: true,
            };
            world.books.put_provider(profile).unwrap();
            world.providers.push(provider);
        }
        world
    }

    /// A folder with these files, pushed.
    pub(crate) async fn push_files(&self, files: &[(&str, &[u8])]) -> PushReport {
        let source = self.source();
        for (path, bytes) in files {
            let path = source.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        self.push(&source).await
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    pub(crate) async fn push(&self, source: &Path) -> PushReport {
        let identity = Identity::new(&owner());
        let network = Network::new(ProviderClient::new(&identity, TcpDial, ClientLimits::default()));
        self.push_through(source, Arc::new(network)).await.unwrap()
    }

    pub(crate) async fn push_through(
        &self,
        source: &Path,
        network: Arc<Network>,
    ) -> Result<PushReport, PushError> {
        let context = PushContext {
            books: Arc::clone(&self.books),
            network,
            owner: owner(),
            keys: self.keys.clone(),
            dataset: self.dataset.clone(),
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
        push(&context, &options, Arc::new(Silent)).await
    }

    /// A new reader of a version, who has a token and no history.
    pub(crate) async fn read(&self, version: VersionId) -> Reading {
        self.try_read(version, stranger()).await.unwrap()
    }

    /// The same for counting: it asks nobody else because somebody is slow.
    pub(crate) async fn read_patiently(&self, version: VersionId) -> Reading {
        self.try_read(version, patient(FOR_EVER)).await.unwrap()
    }

    pub(crate) async fn try_read(
        &self,
        version: VersionId,
        network: Arc<Network>,
    ) -> Result<Reading, SnapshotError> {
        network.learn(self.addresses().iter().map(|(key, address)| (key, address.as_str())));
        let reader = Reader::of_books(&self.books, &network, &self.keys);
        let record = self.books.resolve(self.keys.id, version.to_string()).unwrap().version;
        let snapshot = Snapshot::open(&reader, version, record.version, record.tree).await?;
        Ok(Reading { books: Arc::clone(&self.books), network, reader, snapshot })
    }

    pub(crate) fn addresses(&self) -> Vec<(PublicKey, String)> {
        let own = self.providers.iter().map(|provider| (provider.key(), provider.address.clone()));
        own.chain(self.others.iter().cloned()).collect()
    }

    /// A provider that is not of this harness.
    pub(crate) fn also(&mut self, key: PublicKey, address: String) {
        self.others.push((key, address));
    }

    pub(crate) fn provider(&self, key: PublicKey) -> &Provider {
        self.providers.iter().find(|provider| provider.key() == key).unwrap()
    }

    pub(crate) async fn kill(&mut self, key: PublicKey) {
        self.providers.iter_mut().find(|provider| provider.key() == key).unwrap().kill().await;
    }

    /// A segment as it was pushed.
    pub(crate) fn segment(&self, placement: &SegmentPlacement) -> Segment {
        let (data, sealed_len) = (placement.scheme.data(), usize::try_from(placement.sealed_len).unwrap());
        let mut bytes = Vec::new();
        for fragment in &placement.fragments[..data] {
            let shelf = &self.provider(fragment.holder.unwrap()).shelf;
            bytes.extend_from_slice(&shelf.fragment(&fragment.id).unwrap());
        }
        let footer_start = sealed_len - usize::try_from(placement.footer_len).unwrap();
        let keys = self.keys.seal_keys(placement.epoch).unwrap();
        let footer = &bytes[footer_start..sealed_len];
        let items = Footer::open(keys, placement.number, placement.sealed_len, footer).unwrap().items;
        Segment { placement: placement.clone(), items }
    }
}

/// What stands in a segment.
pub(crate) struct Segment {
    pub(crate) placement: SegmentPlacement,
    pub(crate) items: Vec<Item>,
}

impl Segment {
    pub(crate) fn fragment_len(&self) -> u64 {
        let sealed_len = usize::try_from(self.placement.sealed_len).unwrap();
        self.placement.scheme.fragment_len(sealed_len) as u64
    }

    /// The fragments that items lie in, and their sealed bytes.
    pub(crate) fn cost(&self, chunks: &[Chunk]) -> (u64, u64) {
        let find = |chunk: &Chunk| self.items.iter().find(|item| item.id == chunk_id(&chunk.bytes)).unwrap();
        let items: Vec<&Item> = chunks.iter().map(find).collect();
        let (first, last) = (items.first().unwrap(), items.last().unwrap());
        let (start, end) = (u64::from(first.offset), u64::from(last.offset + last.sealed_len));
        let fragments = (end - 1) / self.fragment_len() - start / self.fragment_len() + 1;
        (fragments, end - start)
    }

    pub(crate) fn holder(&self, index: usize) -> PublicKey {
        self.placement.fragments[index].holder.unwrap()
    }
}

impl Reading {
    /// One who reads the same patiently and knows nothing yet.
    pub(crate) fn again(&self, world: &World) -> Reading {
        let (books, network) = (Arc::clone(&self.books), patient(FOR_EVER));
        let snapshot = self.snapshot.clone();
        network.learn(world.addresses().iter().map(|(key, address)| (key, address.as_str())));
        let reader = Reader::of_books(&books, &network, &world.keys);
        Reading { books, network, reader, snapshot }
    }

    pub(crate) async fn cat(&self, path: &str, range: Range<u64>) -> Result<Vec<u8>, CatError> {
        let out = Collected::default();
        let path = path.parse().unwrap();
        let told = cat(&self.reader, &self.snapshot, &path, range, out.clone()).await?;
        let bytes = std::mem::take(&mut *out.0.lock().unwrap());
        assert_eq!(told, bytes.len() as u64, "what was told is what was written");
        Ok(bytes)
    }

    pub(crate) fn moved(&self) -> Moved {
        let traffic = &self.network.traffic;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Moved {
            requests: load(&traffic.range_requests),
            bytes: load(&traffic.range_bytes),
            proofs: load(&traffic.proofs),
            decodes: load(&traffic.decodes),
        }
    }

    pub(crate) fn moved_since(&self, before: Moved) -> Moved {
        let now = self.moved();
        Moved {
            requests: now.requests - before.requests,
            bytes: now.bytes - before.bytes,
            proofs: now.proofs - before.proofs,
            decodes: now.decodes - before.decodes,
        }
    }

    /// The version's largest segment: of these tests, the one that holds the data.
    pub(crate) async fn data_segment(&self, world: &World) -> Segment {
        let segments = self.snapshot.segments(&self.reader).await.unwrap();
        world.segment(segments.iter().max_by_key(|placement| placement.sealed_len).unwrap())
    }
}

/// A chunk of a file.
pub(crate) struct Chunk {
    pub(crate) start: u64,
    pub(crate) bytes: Bytes,
}

/// How a file is cut.
pub(crate) fn chunks(file: &[u8]) -> Vec<Chunk> {
    let (mut chunks, mut start) = (Vec::new(), 0);
    while let Some(cut) = next_cut(&file[start..], Tail::End) {
        chunks.push(Chunk { start: start as u64, bytes: Bytes::copy_from_slice(&file[start..start + cut]) });
        start += cut;
    }
    chunks
}

/// The chunks that have a byte of a range.
pub(crate) fn covering(file: &[u8], range: &Range<u64>) -> Vec<Chunk> {
    let meets =
        |chunk: &Chunk| chunk.start < range.end && range.start < chunk.start + chunk.bytes.len() as u64;
    chunks(file).into_iter().filter(meets).collect()
}

/// A writer that somebody can look into afterwards.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<u8>>>);

impl Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

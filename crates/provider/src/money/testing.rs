//! A provider's money side on a store of its own, without a chain.

use crate::chain_config::ChainConfig;
use crate::config::Config;
use crate::money::{Money, create_wallet};
use seedbank_formats::keys::SigningKey;
use seedbank_formats::{Asked, FragmentId, PublicKey, Timestamp};
use seedbank_protocol::messages::{Prices, TokenUnits};
use seedbank_store::{Access, Config as StoreConfig, NewClaim, PutStart, RealDisk, Store, StoreId};
use std::path::Path;
use std::sync::Arc;

const NOW: Timestamp = Timestamp(1_900_000_000);

/// A client with room for two small fragments. All others have as much as there is.
pub(super) const SMALL: PublicKey = PublicKey([6; 32]);

fn config() -> StoreConfig {
    let mut config = StoreConfig::new(StoreId([1; 32]), 8 << 30);
    (config.reserve_bytes, config.quotas.others_bytes) = (0, 8 << 30);
    config.quotas.clients.insert(SMALL, 10_000);
    config
}

/// A new store.
pub(super) fn store(dir: &Path) -> Arc<Store> {
    let disk = RealDisk::create(dir).unwrap();
    Store::create(&disk, config().store).unwrap();
    Arc::new(Store::open(Arc::new(disk), config()).unwrap())
}

/// Has a client store a fragment.
pub(super) fn put(store: &Store, client: PublicKey, bytes: &[u8]) -> FragmentId {
    let id = FragmentId::of(bytes);
    let until = NOW.plus_seconds(3_600);
    let claim = NewClaim { client, until, access: Access::Owner, asked: Asked(1) };
    let PutStart::Receive(mut put) = store.begin_put(id, bytes.len() as u64, claim, NOW).unwrap() else {
        panic!("each fragment is put once")
    };
    put.write(bytes).unwrap();
    put.finish(NOW).unwrap();
    id
}

/// The money side of a provider in a folder, which is prepared if it is empty.
pub(super) fn opened(dir: &Path) -> Money {
    let data = dir.join("data");
    if !data.exists() {
        create_wallet(dir, "wallet.key").unwrap();
        let _made = store(&data);
    }
    let text = "operator = \"a\"\nregion = \"b\"\ncapacity = \"1GB\"\n[chain]\nrpc = [\"http://127.0.0.1:1\"]\n\
                directory = \"0x00000000000000000000000000000000000000ab\"\n";
    let chain: ChainConfig = Config::parse(text, dir).unwrap().chain.unwrap();
    let prices =
        Prices { storage_per_gib_month: TokenUnits(1), retrieval_per_gib: TokenUnits(1_000_000_000_000_000) };
    let identity = Arc::new(SigningKey::from_seed([3; 32]));
    let disk = RealDisk::lock(&data).unwrap();
    let store = Store::open(Arc::new(disk), config()).unwrap();
    Money::open(dir, &chain, prices, identity, Arc::new(store)).unwrap()
}

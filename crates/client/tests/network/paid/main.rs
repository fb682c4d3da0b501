//! A network that is paid: what a push has signed, what reads pay, and what comes of those who don't keep to it.
//!
//! Providers are those of `read`, with a till; the chain is a ledger in memory.

mod adopting;
mod agreeing;
mod ledger;
mod reading;
pub(crate) mod till;
mod upkeep;

use crate::read::world::{World, owner};
use ledger::Ledger;
use seedbank_agreement::price::Prices;
use seedbank_agreement::{Amount, WalletKey};
use seedbank_client::dataset::Visibility;
use seedbank_client::network::Network;
use seedbank_client::pay::{Limits, Payer, PayerKeys, Reads};
use seedbank_transport::{ClientLimits, Identity, ProviderClient, TcpDial};
use std::sync::Arc;
use till::Till;

/// Enough for everything here.
const PLENTY: Amount = Amount(1 << 80);

/// What providers ask: a GiB costs 2^30 units, so a byte costs one.
fn prices() -> Prices {
    Prices { rent_per_gib_month: Amount(1 << 40), egress_per_gib: Amount(1 << 30) }
}

fn limits() -> Limits {
    Limits { ceiling: prices(), per_month: PLENTY, term_epochs: 30 }
}

fn wallet() -> WalletKey {
    WalletKey::from_secret(&[1; 32]).unwrap()
}

/// Providers with tills, and an owner with a wallet.
struct Paid {
    world: World,
    ledger: Ledger,
    tills: Vec<Arc<Till>>,
}

impl Paid {
    /// `total` providers, of which segments need `data`; readers may owe `credit_bytes`.
    async fn start(data: usize, total: usize, credit_bytes: u64) -> Paid {
        let world = World::start(data, total, Visibility::Private).await;
        let ledger = Ledger::default();
        ledger.state().epoch.0 = 5;
        ledger.state().tokens.insert(wallet().address(), PLENTY);
        let tills = world
            .providers
            .iter()
            .zip(0..)
            .map(|(provider, nth)| {
                provider.shelf.open_till(|key| Till::open(key, nth, &ledger, prices(), credit_bytes))
            })
            .collect();
        Paid { world, ledger, tills }
    }

    fn payer(&self, limits: Limits) -> Arc<Payer> {
        let keys = PayerKeys {
            identity: owner(),
            signer: WalletKey::from_secret(&[2; 32]).unwrap(),
            lanes: Arc::new(|number| {
                let mut secret = [3; 32];
                secret[..4].copy_from_slice(&(number + 1).to_be_bytes());
                WalletKey::from_secret(&secret).ok()
            }),
        };
        let dir = self.world.folder.path().join("pay");
        Arc::new(Payer::new(self.ledger.of(wallet().address()), keys, limits, dir))
    }

    /// What another process of the same home would use.
    fn network(&self, limits: Limits) -> Arc<Network> {
        let identity = Identity::new(&owner());
        let network = Network::new(ProviderClient::new(&identity, TcpDial, ClientLimits::default()));
        let network = network.paying(Arc::new(Reads::new(self.payer(limits), Amount::ZERO)));
        network.learn(self.world.addresses().iter().map(|(key, address)| (key, address.as_str())));
        Arc::new(network)
    }

    fn source(&self, files: &[(&str, &[u8])]) -> std::path::PathBuf {
        let source = self.world.source();
        for (path, bytes) in files {
            std::fs::create_dir_all(&source).unwrap();
            std::fs::write(source.join(path), bytes).unwrap();
        }
        source
    }
}

/// Bytes that don't compress.
fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let mut next = || {
        // xorshift64: enough to defeat compression, and the same each time.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

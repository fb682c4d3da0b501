//! What every command shares: the home, the keys once they are open, the books, the network and how to talk.

use crate::args::Global;
use crate::home::Home;
use crate::keystore::{KeyRing, KeyStore, PASSPHRASE_VARIABLE, PassphraseSource};
use crate::output::{DataFormat, Output, Talk};
use crate::paying;
use anyhow::bail;
use seedbank_agreement::Amount;
use seedbank_catalog::Books;
use seedbank_catalog::records::Dataset;
use seedbank_client::SharedBooks;
use seedbank_client::dataset::{DatasetKeys, Visibility};
use seedbank_client::home_dataset::owner_keys;
use seedbank_client::network::Network;
use seedbank_client::pay::Reads;
use seedbank_formats::DatasetId;
use seedbank_steward::{BooksPaths, open_books};
use seedbank_transport::{ClientLimits, Identity, ProviderClient, TcpDial};
use std::path::PathBuf;
use std::sync::Arc;

/// One run of the program.
pub(crate) struct App {
    pub(crate) home: Home,
    pub(crate) output: Output,
    pub(crate) passphrase: PassphraseSource,
    pub(crate) passphrase_file: Option<PathBuf>,
}

impl App {
    pub(crate) fn new(global: &Global) -> anyhow::Result<App> {
        let home = Home::resolve(global.home.as_deref(), std::env::var_os("HOME"))?;
        let format = if global.json { DataFormat::Json } else { DataFormat::Text };
        let talk = if global.quiet { Talk::Quiet } else { Talk::Tell };
        let passphrase = PassphraseSource::choose(
            global.passphrase_file.as_deref(),
            std::env::var_os(PASSPHRASE_VARIABLE),
        );
        Ok(App {
            home,
            output: Output::new(format, talk),
            passphrase,
            passphrase_file: global.passphrase_file.clone(),
        })
    }

    /// The same program for another home, such as the demo's own. It does not talk: whoever uses it tells the story.
    pub(crate) fn at(&self, home: Home) -> App {
        App {
            home,
            output: Output::new(self.output.format(), Talk::Quiet),
            passphrase: PassphraseSource::choose(None, None),
            passphrase_file: None,
        }
    }

    pub(crate) fn key_store(&self) -> KeyStore {
        KeyStore::new(self.home.key_file())
    }

    /// Opens the keys, asking for the passphrase if they have one.
    pub(crate) fn keys(&self) -> anyhow::Result<KeyRing> {
        Ok(self.key_store().open(&self.passphrase)?)
    }

    pub(crate) fn books_paths(&self) -> BooksPaths {
        BooksPaths { catalog: self.home.catalog_dir(), socket: self.home.steward_socket() }
    }

    /// The books: the running steward's, or this process's own for as long as it runs.
    pub(crate) fn books(&self) -> anyhow::Result<SharedBooks> {
        self.home.create()?;
        Ok(open_books(&self.books_paths())?)
    }

    /// Connections to providers under this home's identity, which pay where the home pays.
    pub(crate) async fn network(&self, ring: &KeyRing) -> anyhow::Result<Arc<Network>> {
        self.network_beside(ring, Amount::ZERO).await
    }

    async fn network_beside(&self, ring: &KeyRing, rent: Amount) -> anyhow::Result<Arc<Network>> {
        let identity = Identity::new(ring.identity());
        let network = Network::new(ProviderClient::new(&identity, TcpDial, ClientLimits::default()));
        Ok(Arc::new(match paying::payer_of(self, ring).await? {
            Some((payer, _)) => network.paying(Arc::new(Reads::new(payer, rent))),
            None => network,
        }))
    }

    /// Connections that know where the books' providers are.
    pub(crate) async fn network_of(
        &self,
        ring: &KeyRing,
        books: &SharedBooks,
    ) -> anyhow::Result<Arc<Network>> {
        let network = self.network_beside(ring, paying::rent(self, books)?).await?;
        let providers = books.providers()?;
        network.learn(providers.iter().map(|p| (&p.profile.key, p.profile.address.as_str())));
        Ok(network)
    }
}

/// The keys of a dataset of the books.
pub(crate) fn dataset_keys(ring: &KeyRing, dataset: &Dataset) -> anyhow::Result<DatasetKeys> {
    let visibility = if dataset.public { Visibility::Public } else { Visibility::Private };
    if !dataset.public && dataset.owner != ring.identity().public() {
        bail!("dataset {:?} belongs to another owner, and its key is not here", dataset.name);
    }
    let secret = |id: &DatasetId, epoch| ring.dataset_secret(id, epoch);
    Ok(owner_keys(&dataset.owner, dataset.salt, visibility, dataset.epoch, secret))
}

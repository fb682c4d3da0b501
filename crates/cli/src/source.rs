//! Where a version that somebody named comes from: the books of this home, or a key that its owner handed over.

use crate::app::{App, dataset_keys};
use crate::keystore::{self, KeyRing};
use crate::registries;
use crate::target::{Target, wallet_and_name};
use anyhow::Context;
use seedbank_agreement::Address;
use seedbank_agreement::wallet::WalletRole;
use seedbank_catalog::records::Dataset;
use seedbank_catalog::{Books, CatalogError};
use seedbank_client::SharedBooks;
use seedbank_client::dataset::{DatasetKeys, Visibility};
use seedbank_client::heads::{self, OpenedHead, ResolveError};
pub(crate) use seedbank_client::home_dataset::HOME_DATASET_NAME;
use seedbank_client::reader::Reader;
use seedbank_client::registry::lookup;
use seedbank_client::snapshot::Snapshot;
use seedbank_formats::keys::DatasetSecret;
use seedbank_formats::{DatasetId, PublicKey, Timestamp, VersionId};
use std::sync::Arc;

/// The branch that is meant when none is named.
const DEFAULT_BRANCH: &str = "main";

/// A version, ready to be read.
pub(crate) struct Opened {
    pub(crate) reader: Arc<Reader>,
    pub(crate) snapshot: Snapshot,
}

/// Datasets that the owner made, without the list of them.
pub(crate) fn own_datasets(books: &SharedBooks) -> anyhow::Result<Vec<Dataset>> {
    let mut datasets = books.datasets()?;
    datasets.retain(|dataset| dataset.name != HOME_DATASET_NAME);
    Ok(datasets)
}

/// Opens the version that `target` names.
pub(crate) async fn open(app: &App, target: &Target) -> anyhow::Result<Opened> {
    let ring = app.keys()?;
    let books = app.books()?;
    if let Some((owner, name)) = target.wallet()? {
        if let Some(dataset) = own_named(&ring, &books, owner, name)? {
            return open_own(app, &ring, &books, &dataset, target).await;
        }
        let opened = open_named(app, &ring, &books, owner, name).await?;
        let snapshot = opened.snapshot(target.reference.as_deref()).await?;
        return Ok(Opened { reader: Arc::clone(opened.reader()), snapshot });
    }
    let missing = match books.dataset(target.name.clone()) {
        Ok(dataset) => return open_own(app, &ring, &books, &dataset, target).await,
        Err(error @ CatalogError::NoSuchDataset { .. }) => error,
        Err(error) => return Err(error.into()),
    };
    if let Some(key) = imported(&ring, &target.name) {
        return open_imported(app, &ring, key, target).await;
    }
    match target.name.parse::<DatasetId>() {
        Ok(public) => open_public(app, &ring, &books, public, target).await,
        Err(_no_id) => Err(missing.into()),
    }
}

/// The dataset of these books that a name on the chain means, if it is one of this home's own.
fn own_named(
    ring: &KeyRing,
    books: &SharedBooks,
    owner: Address,
    name: &str,
) -> anyhow::Result<Option<Dataset>> {
    if ring.wallet(WalletRole::Wallet)?.address() != owner {
        return Ok(None);
    }
    match books.dataset(name.to_owned()) {
        Err(CatalogError::NoSuchDataset { .. }) => Ok(None),
        found => Ok(Some(found?)),
    }
}

/// Opens a dataset that its owner told the chain of, through the providers of the chain's registry.
async fn open_named(
    app: &App,
    ring: &KeyRing,
    books: &SharedBooks,
    owner: Address,
    name: &str,
) -> anyhow::Result<OpenedHead> {
    let registries = registries::of(app, ring).await?.context(
        "OWNER/NAME is looked up on a chain, and this home uses none: see `seedbank chain use --rpc URL --directory ADDRESS`",
    )?;
    let network = app.network_of(ring, books).await?;
    registries::discover(app, Some(&registries), books, &network).await?;
    let found = registries::find(app, &registries, ring, owner, name).await?;
    let mut providers: Vec<PublicKey> =
        books.providers()?.iter().map(|provider| provider.profile.key).collect();
    for address in found.key.iter().flat_map(|key| key.providers()) {
        network.hint([(&address.key(), &address.address().to_owned())]);
        providers.push(address.key());
    }
    let keys = found.key.map(imported_keys).transpose()?;
    let opened = lookup::open_named(&network, &providers, &found.name, keys.as_ref()).await;
    opened.with_context(|| {
        format!(
            "{owner}/{name}, which the chain knows as dataset {} from head {} on",
            found.name.dataset, found.name.sequence
        )
    })
}

/// Opens somebody's public dataset by its id, through the providers that this home knows.
async fn open_public(
    app: &App,
    ring: &KeyRing,
    books: &SharedBooks,
    dataset: DatasetId,
    target: &Target,
) -> anyhow::Result<Opened> {
    let network = app.network_of(ring, books).await?;
    let providers: Vec<PublicKey> = books.providers()?.iter().map(|provider| provider.profile.key).collect();
    let opened = heads::open_public_dataset(&network, dataset, &providers, None).await?;
    let snapshot = opened.snapshot(target.reference.as_deref()).await?;
    Ok(Opened { reader: Arc::clone(opened.reader()), snapshot })
}

async fn open_own(
    app: &App,
    ring: &KeyRing,
    books: &SharedBooks,
    dataset: &Dataset,
    target: &Target,
) -> anyhow::Result<Opened> {
    let network = app.network_of(ring, books).await?;
    let reader = Reader::of_books(books, &network, &dataset_keys(ring, dataset)?);
    let reference = target.reference.clone().unwrap_or_else(|| DEFAULT_BRANCH.to_owned());
    let record = match books.resolve(dataset.id, reference) {
        // Only a dataset that something was pushed to has a head, and then a default branch as well.
        Err(CatalogError::NoSuchVersion { .. }) if books.head(dataset.id)?.is_none() => {
            return Err(ResolveError::NoVersion.into());
        }
        resolved => resolved?.version,
    };
    let snapshot = Snapshot::open(&reader, record.id, record.version, record.tree).await?;
    Ok(Opened { reader, snapshot })
}

fn imported<'a>(ring: &'a KeyRing, name: &str) -> Option<&'a keystore::DatasetKey> {
    ring.imported().values().find(|key| key.name() == name || key.dataset().to_string() == name)
}

async fn open_imported(
    app: &App,
    ring: &KeyRing,
    key: &keystore::DatasetKey,
    target: &Target,
) -> anyhow::Result<Opened> {
    let opened = open_head(app, ring, key).await?;
    let snapshot = opened.snapshot(target.reference.as_deref()).await?;
    Ok(Opened { reader: Arc::clone(opened.reader()), snapshot })
}

/// Finds the newest head of a dataset whose key was handed over.
async fn open_head(app: &App, ring: &KeyRing, key: &keystore::DatasetKey) -> anyhow::Result<OpenedHead> {
    let network = app.network(ring).await?;
    let providers: Vec<PublicKey> = key.providers().iter().map(keystore::ProviderAddress::key).collect();
    network.learn(providers.iter().zip(key.providers().iter().map(keystore::ProviderAddress::address)));
    Ok(heads::open_dataset(&network, &imported_keys(key)?, &providers, None).await?)
}

fn imported_keys(key: &keystore::DatasetKey) -> anyhow::Result<DatasetKeys> {
    let published = DatasetSecret::published(&key.dataset());
    let is_public = key.secrets().values().any(|secret| secret.expose() == published.expose());
    let visibility = if is_public { Visibility::Public } else { Visibility::Private };
    DatasetKeys::new(key.dataset(), key.owner(), *key.salt(), visibility, key.secrets().clone())
        .context("a dataset key holds at least one secret")
}

/// A version for `log`.
pub(crate) struct Logged {
    pub(crate) id: VersionId,
    pub(crate) time: Timestamp,
    pub(crate) message: String,
    pub(crate) refs: Vec<String>,
    pub(crate) new_bytes: u64,
    pub(crate) stored_bytes: u64,
}

/// A dataset's versions, newest first, with the refs that name each.
pub(crate) async fn versions(app: &App, name: &str) -> anyhow::Result<Vec<Logged>> {
    let ring = app.keys()?;
    let books = app.books()?;
    if let Some((owner, name)) = wallet_and_name(name)? {
        return match own_named(&ring, &books, owner, name)? {
            Some(dataset) => own_versions(&books, &dataset),
            None => imported_versions(&open_named(app, &ring, &books, owner, name).await?).await,
        };
    }
    match books.dataset(name.to_owned()) {
        Ok(dataset) => own_versions(&books, &dataset),
        Err(missing @ CatalogError::NoSuchDataset { .. }) => match imported(&ring, name) {
            Some(key) => imported_versions(&open_head(app, &ring, key).await?).await,
            None => Err(missing.into()),
        },
        Err(error) => Err(error.into()),
    }
}

fn own_versions(books: &SharedBooks, dataset: &Dataset) -> anyhow::Result<Vec<Logged>> {
    let refs = books.refs(dataset.id)?;
    let (mut versions, mut before) = (Vec::new(), None);
    loop {
        let page = books.versions(dataset.id, before, 1000)?;
        let Some(last) = page.last() else { return Ok(versions) };
        before = Some(last.ordinal);
        versions.extend(page.into_iter().map(|record| {
            Logged {
                refs: refs
                    .iter()
                    .filter(|named| named.version == record.id)
                    .map(|named| named.name.clone())
                    .collect(),
                id: record.id,
                time: record.time,
                message: record.message,
                new_bytes: record.new_bytes,
                stored_bytes: record.stored_bytes,
            }
        }));
    }
}

async fn imported_versions(opened: &OpenedHead) -> anyhow::Result<Vec<Logged>> {
    let refs = opened.refs().await?;
    let mut versions = Vec::new();
    for listed in opened.versions(None, usize::MAX).await? {
        let snapshot = opened.snapshot_of(&listed.record).await?;
        versions.push(Logged {
            refs: refs
                .iter()
                .filter(|named| named.record.version == listed.record.id)
                .map(|named| named.record.name.to_string())
                .collect(),
            id: listed.record.id,
            time: snapshot.version.time,
            message: snapshot.version.message,
            new_bytes: listed.record.new_bytes,
            stored_bytes: listed.record.stored_bytes,
        });
    }
    Ok(versions)
}

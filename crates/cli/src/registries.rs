//! The chain's registries, as this home uses them: for providers that nobody added by hand, for its own names, and for
//! datasets that others name OWNER/NAME.
//!
//! What was once believed of a name is kept in the home. So a pull goes on while the chain is down, and an endpoint that
//! lags or lies can't bring an older head back.

use crate::app::{App, dataset_keys};
use crate::chain_config::ChainConfig;
use crate::keystore::{DatasetKey, KeyRing, replace_private};
use crate::paying;
use anyhow::{Context, bail};
use seedbank_agreement::Address;
use seedbank_agreement::publication::NameId;
use seedbank_catalog::Books;
use seedbank_catalog::records::Dataset;
use seedbank_client::SharedBooks;
use seedbank_client::network::{Network, wall_clock};
use seedbank_client::pay::{Chain, ChainError};
use seedbank_client::registry::Registries;
use seedbank_client::registry::lookup::{KnownName, LookUpError, look_up};
use seedbank_client::registry::names::Named;
use seedbank_formats::keys::hidden_name;
use seedbank_settlement::name_id;
use seedbank_store::make_folder;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The registries that this home uses; `None` in a home without a chain.
pub(crate) async fn of(app: &App, ring: &KeyRing) -> anyhow::Result<Option<Arc<Registries>>> {
    let Some(config) = ChainConfig::load(&app.home.chain_file())? else { return Ok(None) };
    let (chain, _) = paying::settled(app, ring, &config).await?;
    Ok(Some(Arc::new(Registries::new(Arc::new(chain), ring.identity().clone(), config.chain.naming))))
}

/// Brings the books' providers up to date with the registry. One that can't be read keeps nobody from those that are known.
pub(crate) async fn discover(
    app: &App,
    registries: Option<&Arc<Registries>>,
    books: &SharedBooks,
    network: &Arc<Network>,
) -> anyhow::Result<()> {
    let Some(registries) = registries else { return Ok(()) };
    let now = wall_clock();
    let looked = if books.providers()?.is_empty() {
        registries.discover(books, network, now).await.map(Some)
    } else {
        registries.discover_if_due(books, network, now).await
    };
    match looked {
        Ok(Some(found)) if found.added > 0 => {
            app.output.say(format_args!("{} new providers in the registry", found.added));
        }
        Ok(_) => {}
        Err(error) => app.output.complain(format_args!(
            "the registry of providers can't be read, so only those that are known are used: {error}"
        )),
    }
    Ok(())
}

/// Tells the chain of the newest heads of datasets that were pushed. They are stored whatever comes of it.
pub(crate) async fn name(
    app: &App,
    ring: &KeyRing,
    registries: Option<&Arc<Registries>>,
    books: &SharedBooks,
    datasets: &[&Dataset],
) -> anyhow::Result<()> {
    let Some(registries) = registries else { return Ok(()) };
    for dataset in datasets {
        match registries.publish_name(books, dataset, &dataset_keys(ring, dataset)?).await {
            Ok(Named::Published { .. }) if dataset.public => app.output.say(format_args!(
                "readers find it as {}/{}",
                registries.chain().wallet(),
                dataset.name
            )),
            Ok(Named::Waits) => app.output.say(format_args!(
                "the chain is told of {} when more providers have its head; a running steward does that",
                dataset.name
            )),
            Ok(Named::Published { .. } | Named::Current | Named::Unwanted) => {}
            Err(error) => app.output.complain(format_args!(
                "{} is stored, and the chain was not told of it: {error}. A running steward tries again, and so does the next push",
                dataset.name
            )),
        }
    }
    Ok(())
}

/// A name that was found, with the key that was handed over for its dataset, if there is one.
pub(crate) struct Found<'a> {
    pub(crate) name: KnownName,
    pub(crate) key: Option<&'a DatasetKey>,
}

/// What an owner's name means: by the chain, or, while that is down, by what it said before.
pub(crate) async fn find<'a>(
    app: &App,
    registries: &Registries,
    ring: &'a KeyRing,
    owner: Address,
    name: &str,
) -> anyhow::Result<Found<'a>> {
    if let Some(known) = ask(app, registries, owner, name_id(owner, name), name).await? {
        return Ok(Found { key: ring.imported().get(&known.dataset), name: known });
    }
    // A private dataset stands under a name that its key leads to.
    for key in ring.imported().values().filter(|key| key.name() == name) {
        let Some((_, secret)) = key.secrets().first_key_value() else { continue };
        let hidden = hidden_name(&key.dataset(), secret);
        let Some(known) = ask(app, registries, owner, name_id(owner, &hidden), &hidden).await? else {
            continue;
        };
        if (known.dataset, known.owner_key) != (key.dataset(), key.owner()) {
            bail!("{owner}/{name} is another dataset than the one whose key is here");
        }
        return Ok(Found { name: known, key: Some(key) });
    }
    bail!(
        "{owner} has told the chain of no dataset {name:?}; a private one is found once its key is here (`seedbank dataset key \
         import`)"
    )
}

async fn ask(
    app: &App,
    registries: &Registries,
    owner: Address,
    id: NameId,
    name: &str,
) -> anyhow::Result<Option<KnownName>> {
    let path = kept_at(app, registries, id);
    let kept = kept(&path)?;
    let asked = match registries.chain().chain().await {
        Ok(chain) => look_up(chain, owner, name).await,
        Err(error) => Err(error.into()),
    };
    match (asked, kept) {
        (Ok(None), None) => Ok(None),
        (Ok(Some(known)), None) => {
            keep(app, &path, &known)?;
            Ok(Some(known))
        }
        (Ok(Some(known)), Some(kept)) if known.goes_on(&kept) => {
            if known != kept {
                keep(app, &path, &known)?;
            }
            Ok(Some(known))
        }
        (Ok(Some(known)), Some(kept))
            if (known.dataset, known.owner_key) == (kept.dataset, kept.owner_key) =>
        {
            app.output.complain(format_args!(
                "the chain's endpoint says that head {} is the newest, and head {} was seen there before: it lags or lies, so \
                 nothing older than that is read",
                known.sequence, kept.sequence
            ));
            Ok(Some(kept))
        }
        (Ok(_), Some(kept)) => bail!(
            "the chain's endpoint says other things of {owner}'s name than before, when it meant dataset {}; the contract does not \
             let that happen, so don't trust the endpoint. If you know better, remove {}",
            kept.dataset,
            path.display()
        ),
        (Err(LookUpError::Chain(ChainError::Unreachable(why))), Some(kept)) => {
            app.output.complain(format_args!(
                "the chain can't be asked ({why}); going by what it said before: head {} or newer",
                kept.sequence
            ));
            Ok(Some(kept))
        }
        (Err(error), _) => Err(error).with_context(|| format!("asking the chain about {owner}'s datasets")),
    }
}

fn kept_at(app: &App, registries: &Registries, id: NameId) -> PathBuf {
    let place = registries.chain().place();
    let deployment = format!("{}-{}", place.chain_id, place.directory).to_lowercase();
    app.home.names_dir().join(deployment).join(format!("{id}.json"))
}

fn kept(path: &Path) -> anyhow::Result<Option<KnownName>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(
            serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged: remove it", path.display()))?,
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

fn keep(app: &App, path: &Path, known: &KnownName) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(app.home.root());
    make_folder(folder).with_context(|| format!("making {}", folder.display()))?;
    let text = serde_json::to_vec(known).context("a name as JSON")?;
    replace_private(path, &text).with_context(|| format!("writing {}", path.display()))
}

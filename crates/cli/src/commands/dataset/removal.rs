//! `seedbank dataset rm`: removes, collects, and gives back what nothing else needs.

use super::publish_list;
use crate::app::{App, dataset_keys};
use crate::keystore::KeyRing;
use crate::target::Target;
use anyhow::{Context, bail};
use seedbank_catalog::Books;
use seedbank_catalog::index::Index;
use seedbank_catalog::records::Dataset;
use seedbank_client::SharedBooks;
use seedbank_client::dataset::index_folder;
use seedbank_client::file_cache::FileCache;
use seedbank_client::maintain::Maintenance;
use seedbank_client::network::wall_clock;
use seedbank_formats::{DatasetId, SegmentNumber};
use serde::Serialize;
use std::sync::Arc;

#[derive(Serialize)]
struct RemovedLine {
    dataset: String,
    version: Option<String>,
    segments_released: u64,
}

pub(super) async fn remove(app: &App, name: &str, yes: bool) -> anyhow::Result<()> {
    let target = Target::version(name)?.of_an_owner()?;
    let ring = app.keys()?;
    let books = app.books()?;
    let network = app.network_of(&ring, &books).await?;
    let dataset = books.dataset(target.name.clone())?;
    if !yes {
        let what =
            target.reference.as_ref().map_or("all versions".to_owned(), |text| format!("version {text}"));
        confirm(&format!("Remove {what} of {}? This can't be undone. [y/N] ", target.name))?;
    }
    let maintenance = maintenance(&ring, &books, &network, &dataset)?;
    let removed = match &target.reference {
        None => {
            let removed = books.remove_dataset(dataset.id)?;
            RemovedLine { dataset: target.name.clone(), version: None, segments_released: removed.segments }
        }
        Some(text) => {
            let resolved = books.resolve(dataset.id, text.clone())?;
            books.remove_version(dataset.id, resolved.version.id)?;
            let collection = maintenance.collect(dataset.id, wall_clock()).await?;
            forget_segments(app, dataset.id, collection.collected.doomed.clone())?;
            RemovedLine {
                dataset: target.name.clone(),
                version: Some(resolved.version.id.to_string()),
                segments_released: collection.collected.doomed.len() as u64,
            }
        }
    };
    if target.reference.is_none() {
        publish_list(app, &ring, &books, &network).await?;
    }
    // What providers do not take back now, a steward's next round does.
    maintenance.release().await?;
    app.output.data(&removed, |removed| {
        format!(
            "removed {}{}; {} segments are released",
            removed.dataset,
            removed.version.as_ref().map(|version| format!("@{}", &version[..40])).unwrap_or_default(),
            removed.segments_released
        )
    })?;
    Ok(())
}

/// Removes a whole dataset that the owner's published list of datasets does not name. What providers do not take back
/// now, a steward's next round does.
pub(crate) async fn remove_unlisted(app: &App, name: &str) -> anyhow::Result<()> {
    let ring = app.keys()?;
    let books = app.books()?;
    let network = app.network_of(&ring, &books).await?;
    let dataset = books.dataset(name.to_owned())?;
    let maintenance = maintenance(&ring, &books, &network, &dataset)?;
    books.remove_dataset(dataset.id)?;
    maintenance.release().await?;
    FileCache::open(app.home.root()).forget_dataset(dataset.id);
    let index = index_folder(&app.home.index_dir(), &dataset.id);
    match std::fs::remove_dir_all(&index) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", index.display()))
        }
        _ => Ok(()),
    }
}

/// The steps that a removal needs, for one dataset.
fn maintenance(
    ring: &KeyRing,
    books: &SharedBooks,
    network: &Arc<seedbank_client::network::Network>,
    dataset: &Dataset,
) -> anyhow::Result<Maintenance> {
    let keys = dataset_keys(ring, dataset)?;
    let lookup = move |wanted: &Dataset| (wanted.id == keys.id).then(|| keys.clone());
    Ok(Maintenance::new(Arc::clone(books), Arc::clone(network), Arc::new(lookup)))
}

/// The next push must not deduplicate against what is gone.
fn forget_segments(app: &App, dataset: DatasetId, doomed: Vec<SegmentNumber>) -> anyhow::Result<()> {
    Index::open(&index_folder(&app.home.index_dir(), &dataset), dataset)?.forget_segments(doomed)?;
    FileCache::open(app.home.root()).forget_dataset(dataset);
    Ok(())
}

fn confirm(question: &str) -> anyhow::Result<()> {
    use std::io::{BufRead, IsTerminal, Write};
    if !std::io::stdin().is_terminal() {
        bail!("nobody is there to confirm: add --yes");
    }
    write!(std::io::stderr(), "{question}")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if answer.trim().eq_ignore_ascii_case("y") { Ok(()) } else { bail!("nothing was removed") }
}

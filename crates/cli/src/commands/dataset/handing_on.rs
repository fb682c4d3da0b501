//! `seedbank dataset key`: hands a dataset's key to another home, and takes one.

use crate::app::{App, dataset_keys};
use crate::keystore::{self, ProviderAddress, create_private};
use anyhow::{Context, bail};
use seedbank_catalog::Books;
use seedbank_client::SharedBooks;
use seedbank_formats::DatasetId;
use serde::Serialize;
use std::path::Path;

#[derive(Serialize)]
struct KeyLine {
    dataset: DatasetId,
    name: String,
    file: String,
}

pub(super) fn export(app: &App, name: &str, file: &Path) -> anyhow::Result<()> {
    let ring = app.keys()?;
    let books = app.books()?;
    let dataset = books.dataset(name.to_owned())?;
    if dataset.owner != ring.identity().public() {
        bail!("dataset {name:?} belongs to another owner, who alone hands its key on");
    }
    let key = if dataset.public {
        let keys = dataset_keys(&ring, &dataset)?;
        keystore::DatasetKey::new(
            dataset.owner,
            dataset.salt,
            keys.secrets().clone(),
            name,
            addresses(&books)?,
        )?
    } else {
        ring.export(dataset.salt, dataset.epoch, name, addresses(&books)?)?
    };
    let mut text = key.to_text();
    text.push('\n');
    create_private(file, text.as_bytes()).with_context(|| format!("writing {}", file.display()))?;
    let line = KeyLine { dataset: dataset.id, name: name.to_owned(), file: file.display().to_string() };
    app.output.data(&line, |line| {
        format!("the key of {} is in {}: whoever has it can read the dataset", line.name, line.file)
    })?;
    Ok(())
}

/// Addresses of providers that are likely to have the head.
fn addresses(books: &SharedBooks) -> anyhow::Result<Vec<ProviderAddress>> {
    /// Enough to survive most of them being away, and short enough for a line of text.
    const ADDRESSES_MAX: usize = 8;
    let providers = books.providers()?;
    let addresses =
        providers.iter().filter_map(|p| ProviderAddress::new(p.profile.key, &p.profile.address).ok());
    Ok(addresses.take(ADDRESSES_MAX).collect())
}

pub(super) fn import(app: &App, file: &Path, name: Option<&str>) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let key = keystore::DatasetKey::parse(&text)?;
    let key = match name {
        None => key,
        Some(name) => keystore::DatasetKey::new(
            key.owner(),
            *key.salt(),
            key.secrets().clone(),
            name,
            key.providers().to_vec(),
        )?,
    };
    let line =
        KeyLine { dataset: key.dataset(), name: key.name().to_owned(), file: file.display().to_string() };
    app.key_store().import(&app.passphrase, key)?;
    app.output
        .data(&line, |line| format!("this home can now read {} ({})", line.name, line.dataset.short()))?;
    Ok(())
}

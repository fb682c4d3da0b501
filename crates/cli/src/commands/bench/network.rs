//! `seedbank bench network`: what the network that this home uses costs and how fast it is, by provider and region.
//!
//! A throw-away dataset is pushed, pulled, read and removed again, also after Ctrl-C. The owner's published list of
//! datasets never names it, and no other dataset is touched. The other ends run elsewhere, so there is no limit of
//! processors to compare with; the processor time is this process's.

mod report;

use super::data::{Noise, write_file};
use super::local::{push_options, say};
use super::meter::{Meter, float};
use super::reads::{READ_BYTES, Subject, measure_alone, percentiles};
use crate::app::App;
use crate::commands::dataset::removal::remove_unlisted;
use crate::commands::dataset::{Listing, NewDataset, pull_version, push_source};
use crate::scratch::Scratch;
use crate::source::open;
use crate::stop::stop_signal;
use crate::target::Target;
use anyhow::{Context, bail};
use report::{ByRegion, Fetched, ProviderRow, Report, report_text};
use seedbank_catalog::{Books, CatalogError};
use seedbank_client::SharedBooks;
use seedbank_client::glob::Filter;
use seedbank_client::restore::Overwrite;
use seedbank_formats::path::TreePath;
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::{FragmentId, PublicKey, SegmentNumber};
use seedbank_protocol::messages::{Hello, Prices};
use seedbank_transport::{ClientLimits, Identity, ProviderClient, TcpDial};
use std::collections::BTreeMap;
use std::fs::File;
use std::time::{Duration, Instant};

const FILE: &str = "data.bin";
const READS_AT_ONCE: u32 = 8;

/// A provider that does not greet in this time is told to be silent.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) size: u64,
    /// Reads of each provider.
    pub(crate) reads: u32,
}

pub(crate) async fn run(app: &App, plan: Plan) -> anyhow::Result<()> {
    if plan.size < READ_BYTES {
        bail!("--size must be at least 256KiB, the length of one read");
    }
    let stop = stop_signal()?;
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    let seed = u64::from_le_bytes(random);
    let name = format!("bench-{seed:016x}");
    let scratch = Scratch::make("network")?;
    let measured = tokio::select! {
        measured = measure(app, plan, &name, seed, &scratch) => measured,
        () = stop => Err(anyhow::anyhow!("interrupted")),
    };
    // However it ended. Whoever has no patience for this can remove it later by its name.
    let removed =
        remove(app, &name).await.with_context(|| format!("{name} is left: `seedbank dataset rm {name}`"));
    scratch.close()?;
    let report = measured?;
    removed?;
    app.output.data(&report, report_text)?;
    Ok(())
}

async fn remove(app: &App, name: &str) -> anyhow::Result<()> {
    // Own scope: the books may be a lock on this home.
    let found = app.books()?.dataset(name.to_owned());
    match found {
        Err(CatalogError::NoSuchDataset { .. }) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => remove_unlisted(app, name).await,
    }
}

async fn measure(app: &App, plan: Plan, name: &str, seed: u64, scratch: &Scratch) -> anyhow::Result<Report> {
    let meter = Meter::alone();
    let folder = scratch.path("data");
    let file = folder.join(FILE);
    std::fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
    write_file(&file, plan.size, &mut Noise::new(seed))
        .await
        .with_context(|| format!("writing {}", file.display()))?;

    say(app, "push");
    let begun = meter.begin()?;
    let options = push_options(&folder);
    let pushed = push_source(app, name, &NewDataset::default(), &options, None, Listing::Untouched).await?;
    let push = meter.end(begun, pushed.bytes)?;
    say(app, "pull");
    let begun = meter.begin()?;
    let (_, pulled) =
        pull_version(app, name, &scratch.path("pulled"), &Filter::default(), Overwrite::No).await?;
    let pull = meter.end(begun, pulled.bytes)?;
    say(app, "reads");
    let subject = Subject {
        opened: open(app, &Target::parse(name)?).await?,
        path: TreePath::parse(FILE)?,
        local: File::open(&file).with_context(|| format!("opening {}", file.display()))?,
        size: plan.size,
    };
    let reads = measure_alone(subject, plan.reads, READS_AT_ONCE, &meter).await?;
    say(app, "each provider");
    let books = app.books()?;
    let dataset = books.dataset(name.to_owned())?;
    let segments = books.segments_in(dataset.id, SegmentNumber(0), SegmentNumber(u64::MAX >> 1), None)?;
    let providers = providers(app, &books, &segments, plan, seed).await?;
    let prices: BTreeMap<PublicKey, Prices> =
        providers.iter().filter_map(|row| row.prices.map(|prices| (row.key, prices))).collect();
    let (storage, retrieval) = cost_per_gib(&segments, &prices, plan.size);
    let fragments: usize = segments.iter().map(|segment| segment.fragments.len()).sum();
    let placed = segments.iter().flat_map(|segment| &segment.fragments).filter(|one| one.holder.is_some());
    Ok(Report {
        size: plan.size,
        seed,
        scheme: (pushed.scheme.data(), pushed.scheme.total()),
        stored_bytes: pushed.stored_bytes,
        fragments: fragments as u64,
        fragments_placed: placed.count() as u64,
        push,
        pull,
        reads,
        storage_per_gib_month: storage,
        retrieval_per_gib: retrieval,
        regions: ByRegion::of(&providers),
        providers,
    })
}

/// Asks every provider of this home who it is, and reads ranges of what it holds of the dataset.
async fn providers(
    app: &App,
    books: &SharedBooks,
    segments: &[SegmentPlacement],
    plan: Plan,
    seed: u64,
) -> anyhow::Result<Vec<ProviderRow>> {
    let ring = app.keys()?;
    let network = app.network_of(&ring, books).await?;
    let client = ProviderClient::new(&Identity::new(ring.identity()), TcpDial, ClientLimits::default());
    let mut held: BTreeMap<PublicKey, Vec<(FragmentId, u64)>> = BTreeMap::new();
    for segment in segments {
        let len = segment.scheme.fragment_len(usize::try_from(segment.sealed_len)?);
        for fragment in &segment.fragments {
            if let Some(holder) = fragment.holder {
                held.entry(holder).or_default().push((fragment.id, len as u64));
            }
        }
    }
    let mut rows = Vec::new();
    for provider in books.providers()? {
        let key = provider.profile.key;
        let begun = Instant::now();
        let hello = tokio::time::timeout(HELLO_PATIENCE, client.hello(&network.peer(&key))).await;
        let hello: Option<Hello> = hello.ok().and_then(Result::ok);
        let hello_ms = hello.is_some().then(|| begun.elapsed().as_secs_f64() * 1e3);
        let mut fetched = Fetched::default();
        let fragments = held.get(&key).map(Vec::as_slice).unwrap_or_default();
        let mut noise = Noise::new(seed);
        for _ in 0..if fragments.is_empty() { 0 } else { plan.reads } {
            let pick = usize::try_from(noise.below(fragments.len() as u64))?;
            let (fragment, len) = fragments[pick];
            let want = READ_BYTES.min(len);
            let start = noise.below(len - want + 1);
            let begun = Instant::now();
            let got = client.get_range(&network.peer(&key), fragment, start..start + want, None).await;
            match got {
                Ok(bytes) => fetched.done(begun.elapsed(), bytes.len() as u64),
                Err(error) => fetched.failed(&error),
            }
        }
        let profile = provider.profile;
        rows.push(ProviderRow {
            key,
            operator: hello.as_ref().map_or(profile.operator, |hello| hello.operator.clone()),
            region: hello.as_ref().map_or(profile.region, |hello| hello.region.clone()),
            hello_ms,
            prices: hello.map(|hello| hello.prices),
            fragments: fragments.len() as u64,
            fetched,
        });
    }
    Ok(rows)
}

/// What a GiB of user bytes costs in token units: to keep for a month, and to read once while nothing is lost.
fn cost_per_gib(
    segments: &[SegmentPlacement],
    prices: &BTreeMap<PublicKey, Prices>,
    user_bytes: u64,
) -> (f64, f64) {
    let (mut storage, mut retrieval, mut data_bytes) = (0.0, 0.0, 0.0);
    for segment in segments {
        let len = segment.scheme.fragment_len(usize::try_from(segment.sealed_len).unwrap_or(usize::MAX));
        let len = float(len as u64);
        for (index, fragment) in segment.fragments.iter().enumerate() {
            let Some(prices) = fragment.holder.and_then(|holder| prices.get(&holder)) else { continue };
            let units = |units: u128| float(u64::try_from(units).unwrap_or(u64::MAX));
            storage += len * units(prices.storage_per_gib_month.0);
            if index < segment.scheme.data() {
                retrieval += len * units(prices.retrieval_per_gib.0);
                data_bytes += len;
            }
        }
    }
    (storage / float(user_bytes.max(1)), retrieval / f64::max(data_bytes, 1.0))
}

#[cfg(test)]
mod tests {
    use super::cost_per_gib;
    use seedbank_erasure::Scheme;
    use seedbank_formats::keys::KeyEpoch;
    use seedbank_formats::placement::{FragmentPlacement, SegmentPlacement};
    use seedbank_formats::{FragmentId, PublicKey, SegmentNumber};
    use seedbank_protocol::messages::{Prices, TokenUnits};

    #[test]
    fn storage_is_paid_for_all_fragments_and_reading_for_those_with_data() {
        let holder = |byte| PublicKey([byte; 32]);
        let fragments =
            (0..4u8).map(|byte| FragmentPlacement { id: FragmentId([byte; 32]), holder: Some(holder(byte)) });
        let segment = SegmentPlacement {
            number: SegmentNumber(0),
            epoch: KeyEpoch(0),
            scheme: Scheme::new(2, 4).unwrap(),
            sealed_len: 2_097_152,
            footer_len: 0,
            fragments: fragments.collect(),
        };
        let price = |storage, retrieval| Prices {
            storage_per_gib_month: TokenUnits(storage),
            retrieval_per_gib: TokenUnits(retrieval),
        };
        let prices = [(holder(0), price(10, 4)), (holder(1), price(10, 8)), (holder(2), price(20, 100))];
        let (storage, retrieval) = cost_per_gib(&[segment], &prices.into_iter().collect(), 2_097_152);
        assert!((storage - 20.0).abs() < 1e-9, "{storage}");
        assert!((retrieval - 6.0).abs() < 1e-9, "{retrieval}");
    }
}

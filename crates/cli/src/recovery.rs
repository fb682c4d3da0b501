//! `seedbank key recover`: a phrase, and a chain or one provider's address, bring an empty home back.

use crate::app::App;
use crate::args::Budget;
use crate::commands::chain_use;
use crate::commands::key::{self, Protect};
use crate::keystore::{Phrase, ProviderAddress};
use crate::registries;
use anyhow::{Context, bail};
use seedbank_agreement::{Address, Amount};
use seedbank_catalog::Books;
use seedbank_client::network::{Network, wall_clock};
use seedbank_client::pay::payer::{Paid, QuoteRefused};
use seedbank_client::recover::{DatasetOutcome, RecoveredOwner, recover_owner};
use seedbank_formats::PublicKey;
use serde::Serialize;
use std::sync::Arc;
use tokio::task::JoinSet;

#[derive(Serialize)]
struct Told {
    owner: String,
    datasets: Vec<DatasetLine>,
    providers: usize,
    silent_providers: Vec<String>,
    unreadable_records: usize,
}

#[derive(Serialize)]
struct DatasetLine {
    name: String,
    dataset: String,
    recovered: bool,
    versions: u64,
    segments: u64,
    error: Option<String>,
}

/// The chain that a recovered home uses from now on.
pub(crate) struct NewChain {
    pub(crate) rpc: Vec<String>,
    pub(crate) directory: Address,
    pub(crate) budget: Budget,
}

/// Makes the keys of `phrase` this home's, and fills its books from the network. Where to begin says `first`, or the registry
/// of the chain.
pub(crate) async fn recover(
    app: &App,
    phrase: &Phrase,
    first: Option<ProviderAddress>,
    chain: Option<NewChain>,
    protect: Protect,
) -> anyhow::Result<()> {
    app.home.create()?;
    let ring = if app.key_store().exists() {
        // An earlier try may have been cut short; any other phrase would mix two owners.
        let ring = app.keys()?;
        let wanted = crate::keystore::KeyRing::new(phrase, std::collections::BTreeMap::new());
        if ring.identity().public() != wanted.identity().public() {
            bail!(
                "this home has another owner's keys; recover into an empty one with SEEDBANK_HOME or --home"
            );
        }
        ring
    } else {
        key::create(app, phrase, protect)?
    };
    if let Some(NewChain { rpc, directory, budget }) = chain {
        chain_use::configure(app, rpc, Some(directory), None, &budget).await?;
    }
    let books = app.books()?;
    if books.datasets()?.iter().any(|dataset| dataset.name != crate::source::HOME_DATASET_NAME) {
        app.output.say(format_args!("this home has datasets already; what is missing is added"));
    }
    let network = app.network(&ring).await?;
    if let Some(first) = &first {
        network.learn([(&first.key(), first.address())]);
    }
    let registries = registries::of(app, &ring).await?;
    if let Some(registries) = &registries {
        registries
            .discover(&books, &network, wall_clock())
            .await
            .context("looking for providers on the chain")?;
    }
    let known = books.providers()?;
    network.learn(known.iter().map(|p| (&p.profile.key, p.profile.address.as_str())));
    let known = known.into_iter().map(|provider| provider.profile.key);
    let start: Vec<PublicKey> = first.iter().map(ProviderAddress::key).chain(known).collect();
    if start.is_empty() {
        bail!(
            "no provider that the chain's registry lists answers: try again later, or name one with --provider"
        );
    }
    let secret = |dataset: &_, epoch| ring.dataset_secret(dataset, epoch);
    // Before anything is read: what is too dear is not, and the reason alone helps nobody.
    let advice = advice(&network, &start).await;
    let recovered = recover_owner(
        &books,
        &network,
        &ring.identity().public(),
        secret,
        &start,
        registries.as_deref(),
        &app.home.index_dir(),
    )
    .await;
    let recovered = match (recovered, &advice) {
        (Err(error), Some(advice)) => return Err(anyhow::Error::from(error).context(advice.clone())),
        (recovered, _) => recovered?,
    };
    let told = told(ring.identity().public().to_string(), &recovered);
    app.output.data(&told, text)?;
    let failed = told.datasets.iter().filter(|line| !line.recovered).count();
    match (failed, advice) {
        (0, None) => Ok(()),
        (0, Some(advice)) => {
            app.output.complain(format_args!("{advice}"));
            Ok(())
        }
        (failed, None) => {
            bail!(
                "{failed} datasets could not be recovered; run the command again when more providers answer"
            )
        }
        (failed, Some(advice)) => bail!("{failed} datasets could not be recovered. {advice}"),
    }
}

/// What to type so that this home may pay the providers that it found; `None` when it may, or nobody wants money.
async fn advice(network: &Arc<Network>, providers: &[PublicKey]) -> Option<String> {
    let payer = network.payer()?;
    let (mut rent, mut egress) = (Amount::ZERO, Amount::ZERO);
    let mut is_short = false;
    let mut asking = JoinSet::new();
    for provider in providers {
        let (payer, network, provider) = (Arc::clone(payer), Arc::clone(network), *provider);
        asking.spawn(async move { payer.payee(&network, &provider).await });
    }
    for answer in asking.join_all().await {
        let (asked, is_refused) = match answer {
            Ok(Paid::By(payee)) => (payee.prices, false),
            Err(QuoteRefused::Ceiling { asked, .. }) => (asked, true),
            // It takes no money, or can't be asked: that is told elsewhere.
            Ok(Paid::Free) | Err(_) => continue,
        };
        rent = rent.max(asked.rent_per_gib_month);
        egress = egress.max(asked.egress_per_gib);
        is_short |= is_refused || payer.limits().per_month == Amount::ZERO;
    }
    let ceiling = payer.limits().ceiling;
    let (rent, egress) = (rent.max(ceiling.rent_per_gib_month), egress.max(ceiling.egress_per_gib));
    is_short.then(|| {
        format!(
            "Providers here want money, and this home may not pay all of them: what it reads and keeps there is what it may pay for. \
             `seedbank chain use --rent-max {rent} --egress-max {egress} --budget UNITS` allows the dearest of them, within a \
             budget for 30 days ({rent} units keep a GiB there for as long, {egress} read one); then run the same again"
        )
    })
}

fn told(owner: String, recovered: &RecoveredOwner) -> Told {
    Told {
        owner,
        datasets: recovered.datasets.iter().map(dataset_line).collect(),
        providers: recovered.providers.len(),
        silent_providers: recovered.silent.iter().map(ToString::to_string).collect(),
        unreadable_records: recovered.unreadable.len(),
    }
}

fn dataset_line(outcome: &DatasetOutcome) -> DatasetLine {
    let (name, dataset) = (outcome.name.clone(), outcome.dataset.to_string());
    match &outcome.result {
        Ok(recovered) => DatasetLine {
            name,
            dataset,
            recovered: true,
            versions: recovered.versions,
            segments: recovered.segments,
            error: None,
        },
        Err(error) => DatasetLine {
            name,
            dataset,
            recovered: false,
            versions: 0,
            segments: 0,
            error: Some(error.to_string()),
        },
    }
}

fn text(told: &Told) -> String {
    let mut text = format!(
        "recovered {} of {} datasets of {}; {} providers known",
        told.datasets.iter().filter(|line| line.recovered).count(),
        told.datasets.len(),
        told.owner,
        told.providers
    );
    for line in &told.datasets {
        let what = match &line.error {
            None => format!("{} versions in {} segments", line.versions, line.segments),
            Some(error) => format!("NOT RECOVERED: {error}"),
        };
        text.push_str(&format!("\n  {:<24} {what}", line.name));
    }
    if !told.silent_providers.is_empty() {
        text.push_str(&format!("\n  {} providers did not answer", told.silent_providers.len()));
    }
    text
}

//! `seedbank agreement`: with whom this home has agreed on what, what it costs, and how to end it.

use crate::app::App;
use crate::args::Agreement as Command;
use crate::output::{Align, bytes, table, tokens};
use crate::paying;
use anyhow::{Context, bail};
use seedbank_agreement::price::rent_per_gib_month;
use seedbank_agreement::{Address, AgreementId, Amount, Epoch, Rate};
use seedbank_catalog::Books;
use seedbank_catalog::records::{Agreement, AgreementState};
use seedbank_client::SharedBooks;
use seedbank_client::pay::Payer;
use seedbank_client::pay::agree::Terms;
use seedbank_client::pay::chain::Order;
use seedbank_formats::PublicKey;
use serde::Serialize;

pub(crate) async fn run(app: &App, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Ls => list(app).await,
        Command::Show { agreement } => show(app, &agreement).await,
        Command::Terminate { agreement } => terminate(app, &agreement).await,
    }
}

/// The provider of the books whose key begins so.
pub(crate) fn find(books: &SharedBooks, key: &str) -> anyhow::Result<PublicKey> {
    let known = books.providers()?.into_iter().map(|provider| provider.profile.key);
    let paid = books.agreements()?.into_iter().map(|agreement| agreement.provider);
    let mut matching: Vec<PublicKey> =
        known.chain(paid).filter(|provider| provider.to_string().starts_with(&key.to_lowercase())).collect();
    matching.sort();
    matching.dedup();
    match matching[..] {
        [provider] => Ok(provider),
        [] => bail!("no provider's key begins with {key:?}; see `seedbank provider ls`"),
        _ => bail!("{key:?} could be any of {} providers: give more digits", matching.len()),
    }
}

#[derive(Serialize)]
struct Line {
    provider: PublicKey,
    agreement: Option<u32>,
    state: &'static str,
    fragments: u64,
    bytes: u64,
    /// Of the last terms that both signed, and of those that the chain pays.
    sequence: u32,
    sequence_on_chain: Option<u32>,
    rate_per_epoch: Rate,
    rent_per_gib_month: Option<Amount>,
    locked: Option<Amount>,
    earned_by_present_terms: Option<Amount>,
    epoch: Epoch,
    ends_before: Option<Epoch>,
    missed_in_a_row: Option<u32>,
    wallet: Option<Address>,
    question_in: Option<Epoch>,
    waits_for_answer: bool,
}

async fn line(payer: &Payer, agreement: &Agreement) -> anyhow::Result<Line> {
    let chain = payer.chain();
    let terms = Terms::of(agreement);
    let state = match agreement.id {
        Some(id) => chain.agreement(AgreementId(id)).await?,
        None => None,
    };
    let proving = match &state {
        Some(state) => Some(chain.proving(state.provider).await?),
        None => None,
    };
    let rate = terms.as_ref().map_or(Rate::ZERO, Terms::rate);
    let words = match (&state, agreement.state, proving.and_then(|proving| proving.dead_at)) {
        (None, AgreementState::Open, _) if agreement.id.is_none() => "proposed",
        (None, _, _) => "closed",
        (Some(_), _, Some(_)) => "dead",
        (Some(_), AgreementState::Stopped, None) => "stopped",
        (Some(_), AgreementState::Open, None) => "open",
    };
    Ok(Line {
        provider: agreement.provider,
        agreement: agreement.id,
        state: words,
        fragments: agreement.fragments,
        bytes: agreement.bytes,
        sequence: agreement.sequence,
        sequence_on_chain: state.as_ref().map(|state| state.sequence),
        rate_per_epoch: rate,
        rent_per_gib_month: rent_per_gib_month(rate, agreement.bytes, chain.place().clock.epoch_seconds),
        locked: state.as_ref().map(|state| state.locked),
        earned_by_present_terms: state.as_ref().map(|state| state.earned),
        epoch: chain.epoch().await?,
        ends_before: state.as_ref().map(|state| state.end),
        missed_in_a_row: proving.map(|proving| proving.misses),
        wallet: state.as_ref().map(|state| state.provider),
        question_in: state.as_ref().and_then(|state| state.question),
        waits_for_answer: agreement.pending.is_some(),
    })
}

async fn list(app: &App) -> anyhow::Result<()> {
    let (payer, deployment) = paying::payer(app).await?;
    let (symbol, decimals) = (deployment.parameters.token_symbol, deployment.parameters.token_decimals);
    let mut lines = Vec::new();
    for agreement in app.books()?.agreements()? {
        lines.push(line(&payer, &agreement).await?);
    }
    app.output.data(&lines, |lines| {
        let number = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
        let rows: Vec<Vec<String>> = lines
            .iter()
            .map(|line| {
                vec![
                    line.provider.short(),
                    number(line.agreement.map(|id| id.to_string())),
                    line.state.to_owned(),
                    line.fragments.to_string(),
                    bytes(line.bytes),
                    tokens(line.rate_per_epoch.over(1), decimals),
                    number(line.rent_per_gib_month.map(|price| tokens(price, decimals))),
                    number(line.locked.map(|locked| tokens(locked, decimals))),
                    number(line.ends_before.map(|end| end.to_string())),
                    number(line.missed_in_a_row.map(|missed| missed.to_string())),
                ]
            })
            .collect();
        table(
            &[
                ("provider", Align::Left),
                ("number", Align::Right),
                ("state", Align::Left),
                ("fragments", Align::Right),
                ("size", Align::Right),
                (&format!("{symbol}/epoch"), Align::Right),
                (&format!("{symbol}/GiB-month"), Align::Right),
                ("locked", Align::Right),
                ("ends before", Align::Right),
                ("missed", Align::Right),
            ],
            &rows,
        )
    })?;
    Ok(())
}

/// The agreement of this number, or else the one with the provider whose key begins so.
fn agreement_with(books: &SharedBooks, number_or_key: &str) -> anyhow::Result<Agreement> {
    let mut known = books.agreements()?.into_iter();
    let number = number_or_key.parse().ok();
    if let Some(numbered) = known.clone().find(|agreement| agreement.id.is_some() && agreement.id == number) {
        return Ok(numbered);
    }
    let provider = find(books, number_or_key).with_context(|| {
        format!("{number_or_key:?} is neither an agreement's number nor its provider's key; see `seedbank agreement ls`")
    })?;
    known
        .find(|agreement| agreement.provider == provider)
        .with_context(|| format!("there is no agreement with provider {}", provider.short()))
}

async fn show(app: &App, number_or_key: &str) -> anyhow::Result<()> {
    let (payer, deployment) = paying::payer(app).await?;
    let agreement = agreement_with(&app.books()?, number_or_key)?;
    let line = line(&payer, &agreement).await?;
    app.output.data(&line, |line| {
        let or = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let parameters = &deployment.parameters;
        let units = |amount: Amount| {
            format!(
                "{amount} units ({} {})",
                tokens(amount, parameters.token_decimals),
                parameters.token_symbol
            )
        };
        format!(
            "provider    {}\nwallet      {}\nagreement   {}, {}\nholds       {} in {} fragments\nterms       revision {}, posted: {}\nrate        \
             {} an epoch, {} per GiB-month\nlocked      {}, {} earned by the present terms\nepoch       {}, ends before {}\nmissed      \
             {} in a row{}{}",
            line.provider,
            or(line.wallet.map(|wallet| wallet.to_string())),
            or(line.agreement.map(|id| id.to_string())),
            line.state,
            bytes(line.bytes),
            line.fragments,
            line.sequence,
            or(line.sequence_on_chain.map(|sequence| sequence.to_string())),
            units(line.rate_per_epoch.over(1)),
            or(line.rent_per_gib_month.map(units)),
            or(line.locked.map(units)),
            or(line.earned_by_present_terms.map(units)),
            line.epoch,
            or(line.ends_before.map(|end| end.to_string())),
            or(line.missed_in_a_row.map(|missed| missed.to_string())),
            line.question_in.map(|epoch| format!("\nasked       about epoch {epoch}")).unwrap_or_default(),
            if line.waits_for_answer { "\nwaits       for the provider's signature" } else { "" }
        )
    })?;
    Ok(())
}

#[derive(Serialize)]
struct Terminated {
    provider: PublicKey,
    agreement: u32,
    ends_before: Option<Epoch>,
    fragments_to_move: u64,
}

/// Gives notice, and has the steward move what the provider holds to others meanwhile.
async fn terminate(app: &App, number_or_key: &str) -> anyhow::Result<()> {
    let (payer, _) = paying::payer(app).await?;
    let books = app.books()?;
    let agreement = agreement_with(&books, number_or_key)?;
    let chain = payer.chain();
    let id = agreement.id.context("the provider has not opened the agreement yet")?;
    let state = chain.agreement(AgreementId(id)).await?.context("the agreement is closed already")?;
    // First: a steward that found the agreement ending and still wanted would have it renewed, whatever becomes of this process.
    books.set_agreement_state(agreement.provider, AgreementState::Stopped)?;
    let notice = async {
        if chain.proving(state.provider).await?.epoch < chain.epoch().await? {
            chain.order(Order::Advance(state.provider)).await?;
        }
        chain.order(Order::Terminate(AgreementId(id))).await
    };
    notice.await.with_context(|| {
        let provider = agreement.provider.short();
        format!(
            "nothing new is placed with provider {provider}, but notice is not given yet: a running steward gives it as soon \
             as it can, or run this again"
        )
    })?;
    let ends_before = chain.agreement(AgreementId(id)).await?.map(|state| state.end);
    let terminated = Terminated {
        provider: agreement.provider,
        agreement: id,
        ends_before,
        fragments_to_move: agreement.fragments,
    };
    app.output.data(&terminated, |told| {
        let end = told.ends_before.map_or("now".to_owned(), |end| format!("before epoch {end}"));
        format!(
            "agreement {} with provider {} ends {end}; it is paid until then for what it proves. Nothing new is placed there, and \
             a running steward moves its {} fragments when it has ended",
            told.agreement,
            told.provider.short(),
            told.fragments_to_move
        )
    })?;
    Ok(())
}

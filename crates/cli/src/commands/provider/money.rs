//! What a provider earns: entering the registry, collecting, leaving, and the part of `status` about it.

use crate::app::App;
use crate::args::{ColdWallet, ProviderInit};
use crate::commands::chain_deploy::read_key;
use crate::output::{Align, bytes, table};
use anyhow::Context;
use seedbank_agreement::wallet::WalletRole;
use seedbank_agreement::{Address, Amount, WalletKey};
use seedbank_provider::{Fate, InitChain, InitWallet, MoneyReport};
use std::fmt::Write as _;
use std::path::Path;

/// Epochs that people see; `--json` has all.
const EPOCHS_SHOWN: usize = 20;

/// Where a new provider is paid, if anything is said about it.
pub(super) fn init_chain(app: &App, options: &ProviderInit) -> anyhow::Result<Option<InitChain>> {
    let Some(directory) = &options.directory else { return Ok(None) };
    let wallet = match options.payee {
        Some(payee) => InitWallet::Elsewhere { payee, operator: None },
        None if options.wallet_of_home => {
            let ring = app.keys()?;
            let payee = ring.wallet(WalletRole::Wallet)?.address();
            InitWallet::Elsewhere { payee, operator: Some(ring.wallet(WalletRole::Operator)?) }
        }
        None => InitWallet::Here,
    };
    Ok(Some(InitChain {
        rpc: options.rpc.clone(),
        directory: directory.parse().context("--directory")?,
        stake: options.stake.parse().context("--stake")?,
        faucet: options.faucet,
        wallet,
    }))
}

/// The key of the wallet that is paid, where it is kept outside the provider's folder.
fn cold(app: &App, wallet: &ColdWallet) -> anyhow::Result<Option<WalletKey>> {
    match &wallet.wallet_key {
        Some(file) => read_key(file).map(Some),
        None if wallet.wallet_of_home => Ok(Some(app.keys()?.wallet(WalletRole::Wallet)?)),
        None => Ok(None),
    }
}

pub(super) async fn register(app: &App, dir: &Path, wallet: &ColdWallet) -> anyhow::Result<()> {
    let entry = seedbank_provider::register(dir, cold(app, wallet)?).await?;
    app.output.data(&entry, |entry| {
        let leaving = if entry.leaving { ", leaving" } else { "" };
        let operator = if entry.operator == entry.wallet {
            String::new()
        } else {
            format!(", operated by {}", entry.operator)
        };
        format!("registered as {} with a stake of {} units{operator}{leaving}", entry.wallet, entry.stake)
    })?;
    Ok(())
}

pub(super) async fn withdraw(
    app: &App,
    dir: &Path,
    to: Option<&str>,
    wallet: &ColdWallet,
) -> anyhow::Result<()> {
    let to = to.map(str::parse::<Address>).transpose().context("--to")?;
    let withdrawn = seedbank_provider::withdraw(dir, to, cold(app, wallet)?).await?;
    app.output.data(&withdrawn, |withdrawn| {
        format!(
            "{} units of rent and {} units of reads sent to {}",
            withdrawn.from_market, withdrawn.from_channels, withdrawn.to
        )
    })?;
    Ok(())
}

pub(super) async fn exit(app: &App, dir: &Path, wallet: &ColdWallet) -> anyhow::Result<()> {
    let exit = seedbank_provider::exit(dir, cold(app, wallet)?).await?;
    app.output.data(&exit, |exit| {
        if exit.running.is_empty() {
            return format!(
                "no agreement is left; {} units of stake came free: `seedbank provider withdraw` collects them",
                exit.stake_freed
            );
        }
        let mut text = "no new agreements are taken; keep the provider running until these end, then run this again".to_owned();
        for (agreement, end) in &exit.running {
            write!(text, "\nagreement {agreement} ends with epoch {end}").expect("writing to a string can't fail");
        }
        text
    })?;
    Ok(())
}

/// The part of `status` about money.
pub(super) fn text(money: &MoneyReport) -> String {
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| {
        text.push('\n');
        text.write_fmt(words).expect("writing to a string can't fail");
    };
    if let Some(wallet) = &money.wallet {
        line(format_args!("\nwallet     {wallet}"));
    }
    let sum = |fate: Fate| -> Amount {
        money.epochs.iter().filter(|row| row.fate == Some(fate)).map(|row| row.amount).sum()
    };
    match &money.standing {
        None => line(format_args!("chain      not reached yet")),
        Some(standing) => {
            let proven = if standing.proven { "proven" } else { "not proven yet" };
            line(format_args!("epoch      {}, {proven}, worth {}", standing.epoch, standing.rate));
            line(format_args!("stake      {}", standing.stake));
            line(format_args!("to collect {} of rent, {} of reads", standing.free, standing.vouchers_cashed));
            line(format_args!("on credit  readers owe {}", standing.readers_owe));
            line(format_args!(
                "gas        {} wei left at {}, a unit cost {}",
                standing.coin, standing.sender, standing.gas_price
            ));
            if let Some(trouble) = &standing.trouble {
                line(format_args!("TROUBLE    {trouble}"));
            }
        }
    }
    line(format_args!(
        "earned     {} of rent, {} of reads (in the token's smallest units)",
        sum(Fate::Earned),
        money.redemptions.iter().map(|row| row.paid).sum::<Amount>()
    ));
    line(format_args!("lost       {} in missed epochs, {} in void ones", sum(Fate::Missed), sum(Fate::Void)));
    for row in &money.costs {
        line(format_args!(
            "cost       {} wei to {} ({} gas in {} transactions)",
            row.wei, row.work, row.gas, row.transactions
        ));
    }
    for row in &money.agreements {
        let state = row.closed.map_or("open".to_owned(), |epoch| format!("closed in epoch {epoch}"));
        line(format_args!(
            "agreement  {} of {}: {state}, {}, {} an epoch, earned {}, lost {}, opened by {}",
            row.agreement,
            row.client,
            bytes(row.bytes),
            row.rate,
            row.earned,
            row.lost,
            row.opened
        ));
    }
    for row in &money.vouchers {
        line(format_args!("voucher    {} waits to be cashed, of {}", row.due, row.voucher.message.payer));
    }
    for row in &money.redemptions {
        line(format_args!("cashed     {} of {} by {}", row.paid, row.voucher.message.payer, row.transaction));
    }
    let first = money.epochs.len().saturating_sub(EPOCHS_SHOWN);
    let rows: Vec<Vec<String>> = money.epochs[first..]
        .iter()
        .map(|row| {
            let fate = match row.fate {
                Some(Fate::Earned) => "earned",
                Some(Fate::Missed) => "missed",
                Some(Fate::Void) => "void",
                None => "open",
            };
            let proof = row.proof.map(|proof| proof.to_string());
            let evidence = proof.or_else(|| row.reason.clone()).unwrap_or_default();
            vec![row.epoch.to_string(), fate.to_owned(), row.amount.to_string(), evidence]
        })
        .collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(
            &[
                ("epoch", Align::Right),
                ("", Align::Left),
                ("units", Align::Right),
                ("proof, or why not", Align::Left),
            ],
            &rows,
        ));
    }
    text
}

//! `seedbank wallet`: what this home has to pay with, where it lies, and how it moves. Amounts are in token units.

use crate::app::App;
use crate::args::Wallet as Command;
use crate::commands::agreement::find;
use crate::paying;
use anyhow::{Context, bail};
use seedbank_agreement::{Address, AgreementId, Amount};
use seedbank_catalog::Books;
use seedbank_client::network::wall_clock;
use seedbank_client::pay::agree::Terms;
use seedbank_client::pay::chain::Order;
use seedbank_client::pay::payer::Paid;
use seedbank_client::pay::{Payer, lanes};
use serde::Serialize;
use std::collections::BTreeSet;

pub(crate) async fn run(app: &App, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Show => show(app).await,
        Command::Fund { amount, provider } => fund(app, amount, provider.as_deref()).await,
        Command::Withdraw { amount, to, provider } => withdraw(app, amount, to, provider.as_deref()).await,
    }
}

#[derive(Serialize)]
struct Shown {
    wallet: Address,
    hot_signer: Address,
    token: String,
    decimals: u8,
    /// In the wallet itself.
    tokens: Amount,
    /// In the market, to be locked or withdrawn.
    free: Amount,
    /// Locked for agreements, and not earned by their providers.
    locked: Amount,
    /// In channels, for reads.
    channels: Amount,
    /// Rent of 30 days by what is agreed.
    rent_per_month: Amount,
    /// Promised for reads in this month.
    reads_this_month: Amount,
    budget_per_month: Amount,
}

async fn show(app: &App) -> anyhow::Result<()> {
    let (payer, deployment) = paying::payer(app).await?;
    let chain = payer.chain();
    let balances = chain.balances(payer.wallet()).await?;
    let known = app.books()?.agreements()?;
    let mut payees = payees(&payer)?;
    let mut locked = Amount::ZERO;
    for id in known.iter().filter_map(|agreement| agreement.id) {
        if let Some(state) = chain.agreement(AgreementId(id)).await? {
            locked = locked.checked_add(state.locked).context("more money than there is")?;
            payees.insert(state.provider);
        }
    }
    let mut channels = Amount::ZERO;
    for payee in payees {
        let state = chain.channel(payee, payer.signer()).await?;
        channels = channels.checked_add(state.deposit).context("more money than there is")?;
    }
    let rates = known.iter().filter_map(|agreement| Some(Terms::of(agreement)?.rate()));
    let spending = payer.spending(rates, wall_clock())?;
    let shown = Shown {
        wallet: payer.wallet(),
        hot_signer: payer.signer(),
        token: deployment.parameters.token_symbol.clone(),
        decimals: deployment.parameters.token_decimals,
        tokens: balances.wallet,
        free: balances.free,
        locked,
        channels,
        rent_per_month: spending.rent,
        reads_this_month: spending.read,
        budget_per_month: payer.limits().per_month,
    };
    app.output.data(&shown, |shown| {
        let units = |amount: Amount| format!("{amount} units ({} {})", amount.in_tokens(shown.decimals), shown.token);
        format!(
            "wallet      {}\nhot signer  {}\ntokens      {}\nfree        {}\nlocked      {}\nchannels    {}\nrent        {} a \
             month\nreads       {} this month\nbudget      {} a month",
            shown.wallet,
            shown.hot_signer,
            units(shown.tokens),
            units(shown.free),
            units(shown.locked),
            units(shown.channels),
            units(shown.rent_per_month),
            units(shown.reads_this_month),
            units(shown.budget_per_month)
        )
    })?;
    Ok(())
}

/// Wallets that lanes of this home promised something.
fn payees(payer: &Payer) -> anyhow::Result<BTreeSet<Address>> {
    let mut payees = BTreeSet::new();
    for (_, counters) in lanes::promised(payer.dir())? {
        for payee in counters.into_keys() {
            payees.insert(payee.parse().context("a lane's payee")?);
        }
    }
    Ok(payees)
}

#[derive(Serialize)]
struct Moved {
    amount: Amount,
    from: &'static str,
    to: String,
    /// What the faucet of a local network made for it.
    made: Amount,
    transaction: String,
}

fn told(app: &App, moved: &Moved) -> anyhow::Result<()> {
    app.output.data(moved, |moved| {
        let made = if moved.made == Amount::ZERO {
            String::new()
        } else {
            format!("; the network's faucet made {} units of them, which are worth nothing", moved.made)
        };
        format!(
            "{} units moved from {} to {}{made}\ntransaction {}",
            moved.amount, moved.from, moved.to, moved.transaction
        )
    })?;
    Ok(())
}

fn hex(hash: &[u8; 32]) -> String {
    format!("0x{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

async fn fund(app: &App, amount: Amount, provider: Option<&str>) -> anyhow::Result<()> {
    let (payer, _) = paying::payer(app).await?;
    let made = payer.have(amount).await?;
    let (order, to) = match provider {
        None => (Order::Deposit(amount), "the market".to_owned()),
        Some(provider) => {
            let payee = payee(app, &payer, provider).await?;
            (Order::Fund(payee, amount), format!("the channel with {payee}"))
        }
    };
    let transaction = hex(&payer.chain().order(order).await?);
    told(app, &Moved { amount, from: "the wallet", to, made, transaction })
}

async fn withdraw(
    app: &App,
    amount: Amount,
    to: Option<Address>,
    provider: Option<&str>,
) -> anyhow::Result<()> {
    let (payer, deployment) = paying::payer(app).await?;
    let chain = payer.chain();
    let to = to.unwrap_or_else(|| payer.wallet());
    let Some(provider) = provider else {
        let transaction = hex(&chain.order(Order::Withdraw(amount, to)).await?);
        let moved = Moved { amount, from: "the market", to: to.to_string(), made: Amount::ZERO, transaction };
        return told(app, &moved);
    };
    let payee = payee(app, &payer, provider).await?;
    let state = chain.channel(payee, payer.signer()).await?;
    match state.exit_at {
        None => {
            let transaction = hex(&chain.order(Order::RequestExit(payee, amount)).await?);
            app.output.say(format_args!(
                "announced: until it is over, the provider can cash what it was promised; run the same again in {} s",
                deployment.parameters.exit_seconds
            ));
            told(
                app,
                &Moved {
                    amount,
                    from: "the channel",
                    to: "its exit".to_owned(),
                    made: Amount::ZERO,
                    transaction,
                },
            )
        }
        Some(at) if at > chain.time().await? => {
            bail!(
                "the exit is announced, and due {}: run the same again then",
                seedbank_formats::Timestamp(at)
            )
        }
        Some(_) => {
            // Lanes of which nothing was used fall to what they redeemed, so that what stays still covers what stays promised.
            let mut signers = Vec::new();
            for (number, counters) in lanes::promised(payer.dir())? {
                if counters.contains_key(&payee.to_string())
                    && let Some(signer) = payer.lane(number)
                {
                    signers.push(signer);
                }
            }
            let transaction = hex(&chain.order(Order::Exit { payee, signers, to }).await?);
            let moved =
                Moved { amount, from: "the channel", to: to.to_string(), made: Amount::ZERO, transaction };
            told(app, &moved)
        }
    }
}

/// The wallet of a provider of the books.
async fn payee(app: &App, payer: &Payer, provider: &str) -> anyhow::Result<Address> {
    let books = app.books()?;
    let key = find(&books, provider)?;
    let ring = app.keys()?;
    let network = app.network_of(&ring, &books).await?;
    match payer.payee(&network, &key).await? {
        Paid::By(payee) => Ok(payee.wallet),
        Paid::Free => bail!("provider {} takes no money", key.short()),
    }
}

//! `seedbank wallet`: what this home has to pay with, where it lies, and how it moves. Amounts are in token units.

use crate::app::App;
use crate::args::Wallet as Command;
use crate::commands::agreement::find;
use crate::output::{Align, table};
use crate::paying;
use anyhow::{Context, bail};
use seedbank_agreement::{Address, AgreementId, Amount, Epoch};
use seedbank_catalog::Books;
use seedbank_catalog::records::Agreement;
use seedbank_client::network::wall_clock;
use seedbank_client::pay::agree::Terms;
use seedbank_client::pay::chain::Order;
use seedbank_client::pay::payer::Paid;
use seedbank_client::pay::upkeep::RELEASE_AFTER;
use seedbank_client::pay::{Payer, lanes};
use seedbank_formats::{PublicKey, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;

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
    /// What is locked where.
    agreements: Vec<LockedLine>,
    /// What lies in which channel.
    deposits: Vec<DepositLine>,
}

/// What is locked for one agreement.
#[derive(Serialize)]
struct LockedLine {
    provider: PublicKey,
    agreement: u32,
    locked: Amount,
    /// What its provider does not earn until then comes back with the agreement's end.
    ends_at: Timestamp,
    /// When escrow that nothing needs comes back, once that is announced.
    release_at: Option<Timestamp>,
}

/// What lies in one channel.
#[derive(Serialize)]
struct DepositLine {
    provider: PublicKey,
    wallet: Address,
    deposit: Amount,
    /// What processes of this home may promise at most, less what was cashed.
    covered: Amount,
    /// What they promised and the provider has not cashed.
    promised: Amount,
    /// What leaves, and from when on it may.
    leaving: Amount,
    leaves_at: Option<Timestamp>,
    lanes: Vec<LaneLine>,
}

/// What one process at a time promises.
#[derive(Serialize)]
struct LaneLine {
    lane: u32,
    promised: Amount,
    cap: Amount,
    cashed: Amount,
}

async fn show(app: &App) -> anyhow::Result<()> {
    let (payer, deployment) = paying::payer(app).await?;
    let chain = payer.chain();
    let balances = chain.balances(payer.wallet()).await?;
    let known = app.books()?.agreements()?;
    let agreements = agreements(&payer, &known).await?;
    let deposits = deposits(&payer).await?;
    let locked = sum(agreements.iter().map(|line| line.locked))?;
    let channels = sum(deposits.iter().map(|line| line.deposit))?;
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
        agreements,
        deposits,
    };
    app.output.data(&shown, text)?;
    Ok(())
}

fn sum(mut amounts: impl Iterator<Item = Amount>) -> anyhow::Result<Amount> {
    amounts.try_fold(Amount::ZERO, Amount::checked_add).context("more money than there is")
}

fn text(shown: &Shown) -> String {
    let units =
        |amount: Amount| format!("{amount} units ({} {})", amount.in_tokens(shown.decimals), shown.token);
    let all = format!(
        "wallet      {}\nhot signer  {}\ntokens      {}\nfree        {}; take it with `seedbank wallet withdraw`\nlocked      \
         {}\nchannels    {}\nrent        {} a month\nreads       {} this month\nbudget      {} a month",
        shown.wallet,
        shown.hot_signer,
        units(shown.tokens),
        units(shown.free),
        units(shown.locked),
        units(shown.channels),
        units(shown.rent_per_month),
        units(shown.reads_this_month),
        units(shown.budget_per_month)
    );
    let locked = shown.agreements.iter().map(|line| {
        let spare = line.release_at.map_or(String::new(), |at| format!("; what nothing needs from {at} on"));
        vec![
            line.provider.short(),
            format!("agreement {}", line.agreement),
            line.locked.to_string(),
            format!("what is not earned until the end, {}{spare}", line.ends_at),
        ]
    });
    let deposited = shown.deposits.iter().filter(|line| line.deposit > Amount::ZERO).map(|line| {
        let back = match line.leaves_at {
            Some(at) => format!("{} units from {at} on", line.leaving),
            None => "when it holds nothing and nobody reads there for a week".to_owned(),
        };
        vec![line.provider.short(), "channel".to_owned(), line.deposit.to_string(), back]
    });
    let rows: Vec<Vec<String>> = locked.chain(deposited).collect();
    if rows.is_empty() {
        return all;
    }
    let heading = [
        ("provider", Align::Left),
        ("where", Align::Left),
        ("units", Align::Right),
        ("comes back", Align::Left),
    ];
    format!("{all}\n\n{}", table(&heading, &rows))
}

async fn agreements(payer: &Payer, known: &[Agreement]) -> anyhow::Result<Vec<LockedLine>> {
    let (chain, clock) = (payer.chain(), payer.chain().place().clock);
    let mut lines = Vec::new();
    for (provider, id) in known.iter().filter_map(|known| Some((known.provider, known.id?))) {
        let Some(state) = chain.agreement(AgreementId(id)).await? else { continue };
        let release_at = state.release.map(|epoch| clock.begin(Epoch(epoch.0.saturating_add(RELEASE_AFTER))));
        let ends_at = clock.begin(state.end);
        lines.push(LockedLine { provider, agreement: id, locked: state.locked, ends_at, release_at });
    }
    Ok(lines)
}

/// Channels in which lanes of this home promised something.
async fn deposits(payer: &Payer) -> anyhow::Result<Vec<DepositLine>> {
    let mut lines: BTreeMap<Address, DepositLine> = BTreeMap::new();
    for (number, counters) in lanes::promised(payer.dir())? {
        let signer = payer.lane(number).with_context(|| format!("there is no key for lane {number}"))?;
        for (payee, counter) in counters {
            let payee: Address = payee.parse().context("a lane's payee")?;
            let state = payer.chain().channel(payee, signer).await?;
            let line = lines.entry(payee).or_insert_with(|| DepositLine {
                provider: counter.provider,
                wallet: payee,
                deposit: state.deposit,
                covered: state.promised,
                promised: Amount::ZERO,
                leaving: state.leaving,
                leaves_at: state.exit_at.map(Timestamp),
                lanes: Vec::new(),
            });
            let open = counter.cumulative.saturating_sub(state.redeemed);
            line.promised = line.promised.checked_add(open).context("more money than there is")?;
            line.lanes.push(LaneLine {
                lane: number,
                promised: counter.cumulative,
                cap: state.cap,
                cashed: state.redeemed,
            });
        }
    }
    Ok(lines.into_values().collect())
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
            lanes::forget_leaving(payer.dir(), &payee)?;
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
            bail!("the exit is announced, and due {}: run the same again then", Timestamp(at))
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
            lanes::forget_leaving(payer.dir(), &payee)?;
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

//! Every unit that was earned, with its evidence, and every unit that was lost, with the reason: from the books, whether the
//! daemon runs or not.

use crate::money::books::{Books, BooksError, CostReport, Fate, LedgerRow, State};
use crate::money::gas::Wei;
use seedbank_agreement::{Address, AgreementId, Amount, Epoch, Signed, Voucher};
use seedbank_formats::Timestamp;
use seedbank_protocol::payment::TransactionHash;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// See there.
    #[error(transparent)]
    Books(#[from] BooksError),
}

/// How the provider stood when its daemon last looked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoneyStanding {
    /// When that was.
    pub time: Timestamp,
    /// In which epoch.
    pub epoch: Epoch,
    /// Whether that is proven.
    pub proven: bool,
    /// Open agreements.
    pub agreements: u32,
    /// What the epoch earns if it is proven.
    pub rate: Amount,
    /// Too many epochs were missed.
    pub dead: bool,
    /// What is at stake.
    pub stake: Amount,
    /// What can be withdrawn from the market.
    pub free: Amount,
    /// What can be withdrawn from the channels.
    pub vouchers_cashed: Amount,
    /// What readers read and did not pay.
    pub readers_owe: Amount,
    /// What the token calls itself.
    pub token: String,
    /// Digits behind the point of one token.
    pub token_decimals: u8,
    /// The key that sends: the wallet's own, or its operator's.
    pub sender: Address,
    /// What it has for gas.
    pub coin: Wei,
    /// What a unit of gas costs, as it was seen last; 0 where gas is free or before it was seen.
    pub gas_price: Wei,
    /// What is the matter.
    pub trouble: Option<String>,
}

/// The whole money side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoneyReport {
    /// The wallet that is paid.
    pub wallet: Option<String>,
    /// As the daemon last saw the chain; none before it reached it.
    pub standing: Option<MoneyStanding>,
    /// All agreements there ever were.
    pub agreements: Vec<AgreementReport>,
    /// All epochs that brought or cost something.
    pub epochs: Vec<EpochReport>,
    /// Vouchers that were cashed.
    pub redemptions: Vec<RedemptionReport>,
    /// Vouchers that wait to be cashed.
    pub vouchers: Vec<VoucherReport>,
    /// What all of it cost.
    pub costs: Vec<CostReport>,
}

/// One agreement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgreementReport {
    /// Its number in the market.
    pub agreement: AgreementId,
    /// Whose wallet pays.
    pub client: Address,
    /// The transaction that opened it.
    pub opened: TransactionHash,
    /// The epoch in which it was found closed.
    pub closed: Option<Epoch>,
    /// Of the terms that both signed last.
    pub sequence: u32,
    /// Bytes of their set.
    pub bytes: u64,
    /// What they bring an epoch.
    pub rate: Amount,
    /// Everything it brought.
    pub earned: Amount,
    /// Everything it would have brought in epochs that were missed or void.
    pub lost: Amount,
}

/// One epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochReport {
    /// Which.
    pub epoch: Epoch,
    /// What became of it; none while it goes on.
    pub fate: Option<Fate>,
    /// What it brought or would have brought.
    pub amount: Amount,
    /// The proof's transaction.
    pub proof: Option<TransactionHash>,
    /// Why it was lost, or why there is no proof yet.
    pub reason: Option<String>,
    /// What the miss cost beside.
    pub slashed: Amount,
    /// By agreement.
    pub units: Vec<UnitReport>,
}

/// What one agreement brought in one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitReport {
    /// Which agreement.
    pub agreement: AgreementId,
    /// How much.
    pub amount: Amount,
}

/// A voucher that was cashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedemptionReport {
    /// The transaction.
    pub transaction: TransactionHash,
    /// When.
    pub time: Timestamp,
    /// What it brought.
    pub paid: Amount,
    /// The evidence.
    pub voucher: Signed<Voucher>,
}

/// A voucher that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoucherReport {
    /// Since when.
    pub since: Timestamp,
    /// What it will bring, as the chain was when it came.
    pub due: Amount,
    /// The evidence.
    pub voucher: Signed<Voucher>,
}

/// What an agreement brought, and what it would have.
#[derive(Default)]
struct Sums {
    earned: Amount,
    lost: Amount,
}

/// The money side of the provider in `dir`; `None` for one that was never paid.
///
/// # Errors
/// [`ReportError`].
pub fn report(dir: &Path) -> Result<Option<MoneyReport>, ReportError> {
    let Some(books) = Books::look(dir)? else { return Ok(None) };
    let ledger = books.ledger()?;
    let mut sums: BTreeMap<AgreementId, Sums> = BTreeMap::new();
    let mut units: BTreeMap<Epoch, Vec<UnitReport>> = BTreeMap::new();
    for LedgerRow { agreement, epoch, fate, amount } in ledger {
        let sums = sums.entry(agreement).or_default();
        let sum = if fate == Fate::Earned { &mut sums.earned } else { &mut sums.lost };
        *sum = sum.checked_add(amount).unwrap_or(Amount::MAX);
        units.entry(epoch).or_default().push(UnitReport { agreement, amount });
    }
    let mut agreements = Vec::new();
    for row in books.agreements()? {
        let terms = books.terms(row.id, row.sequence)?;
        let sums = sums.remove(&row.id).unwrap_or_default();
        agreements.push(AgreementReport {
            agreement: row.id,
            client: row.client,
            opened: row.opened,
            closed: match row.state {
                State::Open => None,
                State::Closed(epoch) => Some(epoch),
            },
            sequence: row.sequence,
            bytes: terms.map_or(0, |terms| terms.size),
            rate: terms.map_or(Amount::ZERO, |terms| terms.rate.into()),
            earned: sums.earned,
            lost: sums.lost,
        });
    }
    let epochs = books.epochs()?.into_iter().map(|row| {
        let units = units.remove(&row.epoch).unwrap_or_default();
        let reason = match row.fate {
            Some(Fate::Earned) => None,
            Some(Fate::Missed) => Some(row.trouble.unwrap_or_else(|| {
                "no proof was sent: the provider did not run, or had no chain".to_owned()
            })),
            Some(Fate::Void) => {
                Some("the chain had no seed or stood still: nobody is paid or slashed".to_owned())
            }
            None => row.trouble,
        };
        EpochReport {
            epoch: row.epoch,
            fate: row.fate,
            amount: units.iter().map(|unit| unit.amount).sum(),
            proof: row.proof.filter(|_| row.fate == Some(Fate::Earned)),
            reason,
            slashed: row.slashed,
            units,
        }
    });
    let epochs: Vec<EpochReport> = epochs.collect();
    let redemptions = books.redemptions()?.into_iter().map(|row| RedemptionReport {
        transaction: row.transaction,
        time: row.time,
        paid: row.paid,
        voucher: row.voucher,
    });
    let redemptions = redemptions.collect();
    let mut vouchers = Vec::new();
    for (_, _, lane, since) in books.lanes()? {
        let due = lane.redeemable();
        if due > Amount::ZERO
            && let Some(voucher) = lane.newest()
        {
            vouchers.push(VoucherReport { since, due, voucher: voucher.clone() });
        }
    }
    let standing = books.meta("standing")?.and_then(|text| serde_json::from_str(&text).ok());
    Ok(Some(MoneyReport {
        wallet: books.meta("wallet")?,
        standing,
        agreements,
        epochs,
        redemptions,
        vouchers,
        costs: books.costs()?,
    }))
}

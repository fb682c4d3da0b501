//! What the provider's transactions cost.

use super::{Books, BooksError};
use crate::money::gas::{Wei, Work};
use rusqlite::{OptionalExtension, Row, params};
use seedbank_agreement::Epoch;
use serde::{Deserialize, Serialize};

/// What one kind of work cost in gas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostReport {
    /// `register`, `open` agreements, `advance` epochs, `prove`, `answer` questions, `post` revisions, `cash` vouchers.
    pub work: String,
    /// How many transactions.
    pub transactions: u64,
    /// Gas that they took.
    pub gas: u64,
    /// What that cost.
    pub wei: Wei,
}

impl Books {
    /// Adds a transaction to what an epoch's work cost. One that a reorganisation took back later stays: the next one has its price too.
    pub(crate) fn add_cost(
        &mut self,
        epoch: Epoch,
        work: Work,
        gas: u64,
        wei: Wei,
    ) -> Result<(), BooksError> {
        let transaction = self.connection.transaction()?;
        let (at, name) = (epoch.0, work.as_str());
        let before = transaction
            .query_row("SELECT wei FROM costs WHERE epoch = ?1 AND work = ?2", params![at, name], |row| {
                wei_at(row, 0)
            })
            .optional()?;
        let sum = before.unwrap_or_default().0.saturating_add(wei.0).to_string();
        transaction.execute(
            "INSERT INTO costs VALUES (?1, ?2, 1, ?3, ?4) ON CONFLICT (epoch, work)
             DO UPDATE SET transactions = transactions + 1, gas = gas + ?3, wei = ?4",
            params![at, name, gas, sum],
        )?;
        transaction.commit()?;
        Ok(())
    }

    /// What each kind of work cost in all.
    pub(crate) fn costs(&self) -> Result<Vec<CostReport>, BooksError> {
        let mut found =
            self.connection.prepare_cached("SELECT work, transactions, gas, wei FROM costs ORDER BY work")?;
        let rows = found.query_map([], |row| {
            Ok(CostReport {
                work: row.get(0)?,
                transactions: row.get(1)?,
                gas: row.get(2)?,
                wei: wei_at(row, 3)?,
            })
        })?;
        let mut costs: Vec<CostReport> = Vec::new();
        for row in rows {
            let row = row?;
            match costs.last_mut().filter(|last| last.work == row.work) {
                Some(last) => {
                    last.transactions = last.transactions.saturating_add(row.transactions);
                    last.gas = last.gas.saturating_add(row.gas);
                    last.wei = Wei(last.wei.0.saturating_add(row.wei.0));
                }
                None => costs.push(row),
            }
        }
        Ok(costs)
    }

    /// What the dearest epoch since this one cost, of the work that no epoch can do without.
    pub(crate) fn dearest_epoch(&self, since: Epoch) -> Result<Wei, BooksError> {
        let mut found = self
            .connection
            .prepare_cached("SELECT epoch, work, wei FROM costs WHERE epoch >= ?1 ORDER BY epoch")?;
        let rows = found.query_map([since.0], |row| Ok((row.get(0)?, row.get(1)?, wei_at(row, 2)?)))?;
        let (mut dearest, mut sum, mut of) = (Wei(0), 0u128, None);
        for row in rows {
            let (epoch, work, wei): (u32, String, Wei) = row?;
            if of != Some(epoch) {
                (sum, of) = (0, Some(epoch));
            }
            if Work::EACH_EPOCH.iter().any(|each| each.as_str() == work) {
                sum = sum.saturating_add(wei.0);
            }
            dearest = dearest.max(Wei(sum));
        }
        Ok(dearest)
    }
}

fn wei_at(row: &Row<'_>, at: usize) -> rusqlite::Result<Wei> {
    super::parsed(row, at).map(Wei)
}

//! What became of each epoch, and what each agreement brought in it.

use super::{Books, BooksError, amount, text};
use rusqlite::{OptionalExtension, params};
use seedbank_agreement::{AgreementId, Amount, Epoch};
use seedbank_protocol::payment::TransactionHash;
use serde::{Deserialize, Serialize};

/// What became of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Proven and paid.
    Earned,
    /// Not proven: not paid, and part of the stake is gone.
    Missed,
    /// The chain stood still, or had no seed: neither paid nor slashed.
    Void,
}

impl Fate {
    /// As books and metrics spell it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Fate::Earned => "earned",
            Fate::Missed => "missed",
            Fate::Void => "void",
        }
    }

    fn parse(text: &str) -> Fate {
        match text {
            "earned" => Fate::Earned,
            "missed" => Fate::Missed,
            _ => Fate::Void,
        }
    }
}

/// One epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EpochRow {
    pub(crate) epoch: Epoch,
    /// None while it is not over.
    pub(crate) fate: Option<Fate>,
    /// What stood in the way of the proof last.
    pub(crate) trouble: Option<String>,
    /// The transaction that proved it.
    pub(crate) proof: Option<TransactionHash>,
    /// What a miss cost.
    pub(crate) slashed: Amount,
}

/// One agreement in one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LedgerRow {
    pub(crate) agreement: AgreementId,
    pub(crate) epoch: Epoch,
    pub(crate) fate: Fate,
    /// Earned, or what would have been.
    pub(crate) amount: Amount,
}

impl Books {
    /// Notes what stands in the way of an epoch's proof.
    pub(crate) fn note_trouble(&self, epoch: Epoch, trouble: &str) -> Result<(), BooksError> {
        self.connection.execute(
            "INSERT INTO epochs (epoch, trouble) VALUES (?1, ?2)
             ON CONFLICT (epoch) DO UPDATE SET trouble = ?2 WHERE fate IS NULL",
            params![epoch.0, trouble],
        )?;
        Ok(())
    }

    /// Notes the transaction that proved an epoch, before it is known to hold.
    pub(crate) fn note_proof(&self, epoch: Epoch, proof: &TransactionHash) -> Result<(), BooksError> {
        self.connection.execute(
            "INSERT INTO epochs (epoch, proof) VALUES (?1, ?2) ON CONFLICT (epoch) DO UPDATE SET proof = ?2",
            params![epoch.0, proof.0],
        )?;
        Ok(())
    }

    /// Closes an epoch in the books, with what each agreement brought.
    pub(crate) fn settle(
        &mut self,
        epoch: Epoch,
        fate: Fate,
        slashed: Amount,
        amounts: &[(AgreementId, Amount)],
    ) -> Result<(), BooksError> {
        let transaction = self.connection.transaction()?;
        transaction.execute(
            "INSERT INTO epochs (epoch, fate, slashed) VALUES (?1, ?2, ?3)
             ON CONFLICT (epoch) DO UPDATE SET fate = ?2, slashed = ?3",
            params![epoch.0, fate.as_str(), text(slashed)],
        )?;
        {
            let mut put =
                transaction.prepare_cached("INSERT OR REPLACE INTO ledger VALUES (?1, ?2, ?3, ?4)")?;
            for (agreement, sum) in amounts {
                put.execute(params![agreement.0, epoch.0, fate.as_str(), text(*sum)])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Takes back that an epoch was earned: the chain does not have its proof any more.
    pub(crate) fn unearn(&mut self, epoch: Epoch) -> Result<(), BooksError> {
        let transaction = self.connection.transaction()?;
        transaction.execute("UPDATE epochs SET fate = NULL, proof = NULL WHERE epoch = ?1", [epoch.0])?;
        transaction.execute("DELETE FROM ledger WHERE epoch = ?1", [epoch.0])?;
        transaction.commit()?;
        Ok(())
    }

    /// The fate of an epoch, if it is known.
    pub(crate) fn fate(&self, epoch: Epoch) -> Result<Option<Fate>, BooksError> {
        let found = self
            .connection
            .query_row("SELECT fate FROM epochs WHERE epoch = ?1", [epoch.0], |row| row.get(0))
            .optional()?;
        Ok(found.flatten().map(|text: String| Fate::parse(&text)))
    }

    /// All epochs.
    pub(crate) fn epochs(&self) -> Result<Vec<EpochRow>, BooksError> {
        let mut found = self
            .connection
            .prepare_cached("SELECT epoch, fate, trouble, proof, slashed FROM epochs ORDER BY epoch")?;
        let rows = found.query_map([], |row| {
            let fate: Option<String> = row.get(1)?;
            let proof: Option<[u8; 32]> = row.get(3)?;
            let slashed: Option<String> = row.get(4)?;
            Ok(EpochRow {
                epoch: Epoch(row.get(0)?),
                fate: fate.map(|text| Fate::parse(&text)),
                trouble: row.get(2)?,
                proof: proof.map(TransactionHash),
                slashed: slashed.and_then(|text| text.parse().ok()).unwrap_or_default(),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What each agreement brought in each epoch.
    pub(crate) fn ledger(&self) -> Result<Vec<LedgerRow>, BooksError> {
        let mut found = self
            .connection
            .prepare_cached("SELECT agreement, epoch, fate, amount FROM ledger ORDER BY epoch, agreement")?;
        let rows = found.query_map([], |row| {
            let fate: String = row.get(2)?;
            Ok(LedgerRow {
                agreement: AgreementId(row.get(0)?),
                epoch: Epoch(row.get(1)?),
                fate: Fate::parse(&fate),
                amount: amount(row, 3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

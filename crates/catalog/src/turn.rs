//! One request's turn at the books: an open transaction and the time at which it happens.
//!
//! The modules beside this one each add the operations of their subject to [`Turn`]. Here is only what all share.

use crate::error::CatalogError;
use crate::records::{ChangeNumber, NumberedList};
use rusqlite::{OptionalExtension, Params, Row, Transaction, params};
use seedbank_formats::{DatasetId, Timestamp};

/// Answers one request. All or nothing of what it does is kept.
pub(crate) struct Turn<'a> {
    pub(crate) sql: &'a Transaction<'a>,
    pub(crate) now: Timestamp,
}

/// A dataset's number in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DatasetNumber(pub(crate) i64);

/// Whether a change is worth a head of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Readers would go wrong, or miss a ref, until a new head says so.
    Urgent,
    /// The next commit says so in passing.
    CanWait,
}

impl Turn<'_> {
    pub(crate) fn run(&self, sql: &str, params: impl Params) -> Result<usize, CatalogError> {
        Ok(self.sql.prepare_cached(sql)?.execute(params)?)
    }

    /// The first row, if there is one.
    pub(crate) fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, CatalogError> {
        Ok(self.sql.prepare_cached(sql)?.query_row(params, read).optional()?)
    }

    pub(crate) fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, CatalogError> {
        let mut statement = self.sql.prepare_cached(sql)?;
        let rows = statement.query_map(params, read)?;
        Ok(rows.collect::<rusqlite::Result<Vec<T>>>()?)
    }

    /// Whether there is any row.
    pub(crate) fn any(&self, sql: &str, params: impl Params) -> Result<bool, CatalogError> {
        Ok(self.sql.prepare_cached(sql)?.exists(params)?)
    }

    pub(crate) fn number_of(&self, dataset: &DatasetId) -> Result<DatasetNumber, CatalogError> {
        self.one("SELECT number FROM datasets WHERE id = ?1", params![dataset.as_bytes()], |row| {
            Ok(DatasetNumber(row.get(0)?))
        })?
        .ok_or_else(|| CatalogError::NoSuchDataset { name: dataset.to_string(), near: Vec::new() })
    }

    /// Counts one more change to the dataset.
    pub(crate) fn next_change(&self, dataset: DatasetNumber) -> Result<ChangeNumber, CatalogError> {
        let sql = "UPDATE datasets SET change = change + 1 WHERE number = ?1 RETURNING change";
        let change = self.one(sql, [dataset.0], |row| row.get(0))?;
        Ok(ChangeNumber(change.expect("a dataset's number comes from its row, in this transaction")))
    }

    /// Notes that an entry of a numbered list is no longer what the newest head says.
    pub(crate) fn note_change(
        &self,
        dataset: DatasetNumber,
        list: NumberedList,
        number: u64,
        urgency: Urgency,
    ) -> Result<ChangeNumber, CatalogError> {
        let change = self.next_change(dataset)?;
        self.run(
            "INSERT INTO changes (dataset, list, number, change, urgent) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (dataset, list, number)
             DO UPDATE SET change = excluded.change, urgent = max(urgent, excluded.urgent)",
            params![dataset.0, list_name(list), number, change.0, urgency == Urgency::Urgent],
        )?;
        Ok(change)
    }

    /// Remembers a text under a key.
    pub(crate) fn put_setting(&self, key: String, value: String) -> Result<(), CatalogError> {
        let sql = "INSERT INTO settings (key, value) VALUES (?1, ?2)
                   ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        self.run(sql, [key, value]).map(drop)
    }

    pub(crate) fn setting(&self, key: String) -> Result<Option<String>, CatalogError> {
        self.one("SELECT value FROM settings WHERE key = ?1", [key], |row| row.get(0))
    }
}

pub(crate) fn list_name(list: NumberedList) -> &'static str {
    match list {
        NumberedList::Map => "map",
        NumberedList::Versions => "versions",
        NumberedList::Refs => "refs",
    }
}

/// Reads a list's name from a column.
pub(crate) fn list_at(row: &Row<'_>, column: usize) -> rusqlite::Result<NumberedList> {
    match row.get_ref(column)?.as_str()? {
        "map" => Ok(NumberedList::Map),
        "versions" => Ok(NumberedList::Versions),
        "refs" => Ok(NumberedList::Refs),
        other => Err(unknown(column, other)),
    }
}

/// A word in a column that this program doesn't know.
pub(crate) fn unknown(column: usize, word: &str) -> rusqlite::Error {
    let reason = format!("unknown word {word:?}");
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, reason.into())
}

//! Heads: the newest signed record of each dataset, and which providers have it.

use crate::error::CatalogError;
use crate::records::{Counts, HeadRecord, PendingHead};
use crate::turn::{DatasetNumber, Turn};
use rusqlite::{Row, params};
use seedbank_formats::{DatasetId, PublicKey};

const COLUMNS: &str =
    "SELECT d.id, h.sequence, h.bytes, h.dataset FROM heads h JOIN datasets d ON d.number = h.dataset";

fn head_at(row: &Row<'_>) -> rusqlite::Result<(DatasetNumber, PendingHead)> {
    let head = PendingHead {
        dataset: DatasetId(row.get(0)?),
        sequence: row.get(1)?,
        bytes: row.get(2)?,
        published: Vec::new(),
    };
    Ok((DatasetNumber(row.get(3)?), head))
}

impl Turn<'_> {
    pub(crate) fn head(&self, dataset: DatasetId) -> Result<Option<PendingHead>, CatalogError> {
        let number = self.number_of(&dataset)?;
        let head = self.one(&format!("{COLUMNS} WHERE h.dataset = ?1"), [number.0], head_at)?;
        head.map(|(number, head)| self.with_publications(number, head)).transpose()
    }

    pub(crate) fn pending_heads(&self, copies: u32) -> Result<Vec<PendingHead>, CatalogError> {
        let sql = format!(
            "{COLUMNS} WHERE ?1 > (SELECT count(*) FROM publications p
                 WHERE p.dataset = h.dataset AND p.sequence = h.sequence) ORDER BY d.id"
        );
        let heads = self.all(&sql, [copies], head_at)?;
        heads.into_iter().map(|(number, head)| self.with_publications(number, head)).collect()
    }

    fn with_publications(
        &self,
        dataset: DatasetNumber,
        head: PendingHead,
    ) -> Result<PendingHead, CatalogError> {
        let sql = "SELECT provider FROM publications WHERE dataset = ?1 AND sequence = ?2 ORDER BY provider";
        let published = self.all(sql, params![dataset.0, head.sequence], |row| Ok(PublicKey(row.get(0)?)))?;
        Ok(PendingHead { published, ..head })
    }

    pub(crate) fn mark_published(
        &self,
        dataset: DatasetId,
        sequence: u64,
        provider: PublicKey,
    ) -> Result<(), CatalogError> {
        let number = self.number_of(&dataset)?;
        self.run(
            "INSERT INTO publications (dataset, provider, sequence) VALUES (?1, ?2, ?3)
             ON CONFLICT (dataset, provider) DO UPDATE SET sequence = max(sequence, excluded.sequence)",
            params![number.0, provider.as_bytes(), sequence],
        )
        .map(drop)
    }

    pub(crate) fn stale_heads(&self) -> Result<Vec<DatasetId>, CatalogError> {
        // Before its first commit a dataset has no head that could be out of date.
        let sql = "SELECT d.id FROM datasets d JOIN heads h ON h.dataset = d.number
                   WHERE EXISTS (SELECT 1 FROM changes c WHERE c.dataset = d.number AND c.urgent = 1)
                   ORDER BY d.id";
        self.all(sql, [], |row| Ok(DatasetId(row.get(0)?)))
    }

    /// The newest head's sequence; 0 when there is none.
    pub(crate) fn sequence(&self, dataset: DatasetNumber) -> Result<u64, CatalogError> {
        let sql = "SELECT sequence FROM heads WHERE dataset = ?1";
        Ok(self.one(sql, [dataset.0], |row| row.get(0))?.unwrap_or(0))
    }

    /// What was given out by the newest head.
    pub(crate) fn published(&self, dataset: DatasetNumber) -> Result<Counts, CatalogError> {
        let sql = "SELECT segments, versions, refs FROM heads WHERE dataset = ?1";
        let published = self.one(sql, [dataset.0], |row| {
            Ok(Counts { segments: row.get(0)?, versions: row.get(1)?, refs: row.get(2)? })
        })?;
        Ok(published.unwrap_or_default())
    }

    pub(crate) fn put_head(
        &self,
        dataset: DatasetNumber,
        head: &HeadRecord,
        counts: &Counts,
    ) -> Result<(), CatalogError> {
        self.run(
            "INSERT INTO heads (dataset, sequence, bytes, segments, versions, refs)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (dataset) DO UPDATE SET
                 sequence = excluded.sequence, bytes = excluded.bytes, segments = excluded.segments,
                 versions = excluded.versions, refs = excluded.refs",
            params![dataset.0, head.sequence, head.bytes, counts.segments, counts.versions, counts.refs],
        )?;
        self.run("DELETE FROM head_segments WHERE dataset = ?1", [dataset.0])?;
        for segment in &head.segments {
            let sql = "INSERT OR IGNORE INTO head_segments (dataset, segment) VALUES (?1, ?2)";
            self.run(sql, params![dataset.0, segment.0])?;
        }
        Ok(())
    }
}

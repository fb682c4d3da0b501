//! Datasets: their names and what they take.

use crate::error::CatalogError;
use crate::names::{check_dataset_name, near};
use crate::records::{Dataset, Removed, Usage};
use crate::turn::Turn;
use rusqlite::{Row, params};
use seedbank_formats::keys::KeyEpoch;
use seedbank_formats::{DatasetId, PublicKey, Timestamp};

const COLUMNS: &str = "SELECT id, name, salt, owner, epoch, public, policy, created FROM datasets";

fn dataset_at(row: &Row<'_>) -> rusqlite::Result<Dataset> {
    Ok(Dataset {
        id: DatasetId(row.get(0)?),
        name: row.get(1)?,
        salt: row.get(2)?,
        owner: PublicKey(row.get(3)?),
        epoch: KeyEpoch(row.get(4)?),
        public: row.get(5)?,
        policy: row.get(6)?,
        created: Timestamp(row.get(7)?),
    })
}

impl Turn<'_> {
    pub(crate) fn create_dataset(&self, dataset: Dataset) -> Result<(), CatalogError> {
        check_dataset_name(&dataset.name)?;
        self.check_name_free(&dataset.name)?;
        if self.any("SELECT 1 FROM datasets WHERE id = ?1", [dataset.id.as_bytes()])? {
            return Err(CatalogError::NameTaken { name: dataset.id.to_string() });
        }
        self.insert_dataset(&dataset)
    }

    pub(crate) fn insert_dataset(&self, dataset: &Dataset) -> Result<(), CatalogError> {
        self.run(
            "INSERT INTO datasets (id, name, salt, owner, epoch, public, policy, created)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                dataset.id.as_bytes(),
                dataset.name,
                dataset.salt,
                dataset.owner.as_bytes(),
                dataset.epoch.0,
                dataset.public,
                dataset.policy,
                dataset.created.0
            ],
        )
        .map(drop)
    }

    pub(crate) fn check_name_free(&self, name: &str) -> Result<(), CatalogError> {
        if self.any("SELECT 1 FROM datasets WHERE name = ?1", [name])? {
            return Err(CatalogError::NameTaken { name: name.to_owned() });
        }
        Ok(())
    }

    pub(crate) fn dataset(&self, name: String) -> Result<Dataset, CatalogError> {
        let by_name = self.one(&format!("{COLUMNS} WHERE name = ?1"), [&name], dataset_at)?;
        if let Some(found) = by_name {
            return Ok(found);
        }
        if let Ok(id) = name.parse::<DatasetId>() {
            let by_id = self.one(&format!("{COLUMNS} WHERE id = ?1"), [id.as_bytes()], dataset_at)?;
            if let Some(found) = by_id {
                return Ok(found);
            }
        }
        let names = self.all("SELECT name FROM datasets", [], |row| row.get(0))?;
        Err(CatalogError::NoSuchDataset { near: near(&name, names), name })
    }

    pub(crate) fn datasets(&self) -> Result<Vec<Dataset>, CatalogError> {
        self.all(&format!("{COLUMNS} ORDER BY name"), [], dataset_at)
    }

    pub(crate) fn rename_dataset(&self, dataset: DatasetId, name: String) -> Result<(), CatalogError> {
        let number = self.number_of(&dataset)?;
        check_dataset_name(&name)?;
        let current: Option<String> =
            self.one("SELECT name FROM datasets WHERE number = ?1", [number.0], |row| row.get(0))?;
        if current.as_ref() == Some(&name) {
            return Ok(());
        }
        self.check_name_free(&name)?;
        self.run("UPDATE datasets SET name = ?2 WHERE number = ?1", params![number.0, name]).map(drop)
    }

    pub(crate) fn set_policy(&self, dataset: DatasetId, policy: Vec<u8>) -> Result<(), CatalogError> {
        let number = self.number_of(&dataset)?;
        self.run("UPDATE datasets SET policy = ?2 WHERE number = ?1", params![number.0, policy]).map(drop)
    }

    pub(crate) fn set_epoch(&self, dataset: DatasetId, epoch: KeyEpoch) -> Result<(), CatalogError> {
        let number = self.number_of(&dataset)?;
        self.run("UPDATE datasets SET epoch = ?2 WHERE number = ?1", params![number.0, epoch.0]).map(drop)
    }

    pub(crate) fn remove_dataset(&self, dataset: DatasetId) -> Result<Removed, CatalogError> {
        let number = self.number_of(&dataset)?;
        let Usage { versions, segments, .. } = self.usage(dataset)?;
        self.release_fragments(
            "SELECT holder, id FROM fragments WHERE dataset = ?1 AND holder IS NOT NULL",
            params![number.0],
        )?;
        // Refs go first: a version they name can't.
        self.run("DELETE FROM refs WHERE dataset = ?1", [number.0])?;
        self.run("DELETE FROM datasets WHERE number = ?1", [number.0])?;
        Ok(Removed { versions, segments })
    }

    pub(crate) fn usage(&self, dataset: DatasetId) -> Result<Usage, CatalogError> {
        let number = self.number_of(&dataset)?;
        let count = |sql: &str| -> Result<u64, CatalogError> {
            Ok(self.one(sql, [number.0], |row| row.get(0))?.unwrap_or(0))
        };
        // Every fragment is as long as `Scheme::fragment_len` says: a share of the segment, rounded up to 64 bytes.
        let sums = "SELECT count(*), coalesce(sum(sealed_len), 0), coalesce(sum(live_bytes), 0),
                        coalesce(sum((((sealed_len + data - 1) / data) + 63) / 64 * 64 * (
                            SELECT count(*) FROM fragments f WHERE f.dataset = s.dataset
                            AND f.segment = s.number AND f.holder IS NOT NULL)), 0)
                    FROM segments s WHERE dataset = ?1 AND state <> 'doomed'";
        let sums =
            self.one(sums, [number.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        let (segments, sealed_bytes, live_bytes, stored_bytes) = sums.unwrap_or_default();
        Ok(Usage {
            versions: count("SELECT count(*) FROM versions WHERE dataset = ?1")?,
            segments,
            sealed_bytes,
            live_bytes,
            stored_bytes,
            missing_fragments: count("SELECT count(*) FROM fragments WHERE dataset = ?1 AND holder IS NULL")?,
        })
    }
}

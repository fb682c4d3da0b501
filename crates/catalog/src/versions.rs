//! Versions and the refs that name them.

use crate::error::CatalogError;
use crate::names::{ID_DIGITS_MIN, check_ref_name, is_id_prefix, near};
use crate::records::{NumberedList, RefRecord, Resolved, VersionRecord, hex};
use crate::segments::place_at;
use crate::turn::{DatasetNumber, Turn, Urgency, unknown};
use rusqlite::{Row, params};
use seedbank_formats::checkpoint::RefKind;
use seedbank_formats::layout::ChildPlace;
use seedbank_formats::{DatasetId, Timestamp, VersionId};

/// An ambiguous id names so many versions that it fits.
const CANDIDATES_MAX: u32 = 5;

const COLUMNS: &str = "SELECT ordinal, id, place_segment, place_item, tree_segment, tree_item,
    layout_segment, layout_item, new_bytes, stored_bytes, time, message FROM versions";

fn version_at(row: &Row<'_>) -> rusqlite::Result<VersionRecord> {
    Ok(VersionRecord {
        ordinal: row.get(0)?,
        id: VersionId(row.get(1)?),
        version: place_at(row, 2)?,
        tree: ChildPlace { page: place_at(row, 4)?, layout: place_at(row, 6)? },
        new_bytes: row.get(8)?,
        stored_bytes: row.get(9)?,
        time: Timestamp(row.get(10)?),
        message: row.get(11)?,
    })
}

fn ref_at(row: &Row<'_>) -> rusqlite::Result<RefRecord> {
    let kind = match row.get_ref(2)?.as_str()? {
        "branch" => RefKind::Branch,
        "tag" => RefKind::Tag,
        other => return Err(unknown(2, other)),
    };
    Ok(RefRecord { slot: row.get(0)?, name: row.get(1)?, kind, version: VersionId(row.get(3)?) })
}

fn kind_name(kind: RefKind) -> &'static str {
    match kind {
        RefKind::Branch => "branch",
        RefKind::Tag => "tag",
    }
}

impl Turn<'_> {
    pub(crate) fn versions(
        &self,
        dataset: DatasetId,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<VersionRecord>, CatalogError> {
        let number = self.number_of(&dataset)?;
        let sql = format!(
            "{COLUMNS} WHERE dataset = ?1 AND (?2 IS NULL OR ordinal < ?2) ORDER BY ordinal DESC LIMIT ?3"
        );
        self.all(&sql, params![number.0, before, limit], version_at)
    }

    pub(crate) fn version(
        &self,
        dataset: DatasetNumber,
        id: &VersionId,
    ) -> Result<Option<VersionRecord>, CatalogError> {
        let sql = format!("{COLUMNS} WHERE dataset = ?1 AND id = ?2");
        self.one(&sql, params![dataset.0, id.as_bytes()], version_at)
    }

    /// Fails unless the version exists.
    fn check_version(&self, dataset: DatasetNumber, id: &VersionId) -> Result<VersionRecord, CatalogError> {
        let missing = || CatalogError::NoSuchVersion { text: id.to_string(), near: Vec::new() };
        self.version(dataset, id)?.ok_or_else(missing)
    }

    pub(crate) fn insert_version(
        &self,
        dataset: DatasetNumber,
        version: &VersionRecord,
    ) -> Result<(), CatalogError> {
        self.run(
            "INSERT INTO versions (dataset, ordinal, id, place_segment, place_item, tree_segment, tree_item,
                 layout_segment, layout_item, new_bytes, stored_bytes, time, message)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            params![
                dataset.0,
                version.ordinal,
                version.id.as_bytes(),
                version.version.segment.0,
                version.version.index,
                version.tree.page.segment.0,
                version.tree.page.index,
                version.tree.layout.segment.0,
                version.tree.layout.index,
                version.new_bytes,
                version.stored_bytes,
                version.time.0,
                version.message
            ],
        )
        .map(drop)
    }

    pub(crate) fn resolve(&self, dataset: DatasetId, text: String) -> Result<Resolved, CatalogError> {
        let number = self.number_of(&dataset)?;
        if let Some(by) = self.find_ref(number, &text)? {
            let version = self.check_version(number, &by.version)?;
            return Ok(Resolved { version, by: Some(by) });
        }
        if is_id_prefix(&text) {
            let mut found = self.versions_starting_with(number, &text.to_ascii_lowercase())?;
            match (found.pop(), found.is_empty()) {
                (Some(version), true) => return Ok(Resolved { version, by: None }),
                (Some(last), false) => {
                    let candidates = found.iter().chain([&last]).map(|version| version.id).collect();
                    return Err(CatalogError::AmbiguousVersion { text, candidates });
                }
                (None, _) => {}
            }
        }
        Err(self.no_such_ref(number, text)?)
    }

    /// Versions whose id starts with these lower-case digits, at most a few.
    fn versions_starting_with(
        &self,
        dataset: DatasetNumber,
        digits: &str,
    ) -> Result<Vec<VersionRecord>, CatalogError> {
        assert!(digits.len() >= ID_DIGITS_MIN, "a shorter text is not an id");
        let bound = |filler: char| {
            let padded: String = digits.chars().chain(std::iter::repeat(filler)).take(64).collect();
            hex::parse(&padded)
        };
        let sql = format!("{COLUMNS} WHERE dataset = ?1 AND id BETWEEN ?2 AND ?3 ORDER BY id LIMIT ?4");
        self.all(&sql, params![dataset.0, bound('0'), bound('f'), CANDIDATES_MAX], version_at)
    }

    pub(crate) fn remove_version(&self, dataset: DatasetId, version: VersionId) -> Result<(), CatalogError> {
        let number = self.number_of(&dataset)?;
        let record = self.check_version(number, &version)?;
        let sql = "SELECT name FROM refs WHERE dataset = ?1 AND version = ?2 ORDER BY name";
        let refs = self.all(sql, params![number.0, version.as_bytes()], |row| row.get(0))?;
        if !refs.is_empty() {
            return Err(CatalogError::VersionInUse { version, refs });
        }
        let sql = "DELETE FROM versions WHERE dataset = ?1 AND ordinal = ?2";
        self.run(sql, params![number.0, record.ordinal])?;
        self.note_change(number, NumberedList::Versions, record.ordinal, Urgency::Urgent).map(drop)
    }

    pub(crate) fn refs(&self, dataset: DatasetId) -> Result<Vec<RefRecord>, CatalogError> {
        let number = self.number_of(&dataset)?;
        let sql = "SELECT slot, name, kind, version FROM refs WHERE dataset = ?1 ORDER BY name";
        self.all(sql, [number.0], ref_at)
    }

    pub(crate) fn find_ref(
        &self,
        dataset: DatasetNumber,
        name: &str,
    ) -> Result<Option<RefRecord>, CatalogError> {
        let sql = "SELECT slot, name, kind, version FROM refs WHERE dataset = ?1 AND name = ?2";
        self.one(sql, params![dataset.0, name], ref_at)
    }

    fn no_such_ref(&self, dataset: DatasetNumber, text: String) -> Result<CatalogError, CatalogError> {
        let sql = "SELECT name FROM refs WHERE dataset = ?1";
        let names = self.all(sql, [dataset.0], |row| row.get(0))?;
        Ok(CatalogError::NoSuchVersion { near: near(&text, names), text })
    }

    /// The lowest number in the ref list that no ref has: the list stays dense.
    pub(crate) fn free_slot(&self, dataset: DatasetNumber) -> Result<u64, CatalogError> {
        let sql = "SELECT slot FROM refs WHERE dataset = ?1 ORDER BY slot";
        let taken: Vec<u64> = self.all(sql, [dataset.0], |row| row.get(0))?;
        let free = (0..).zip(&taken).find(|(slot, taken)| slot != *taken).map(|(slot, _)| slot);
        Ok(free.unwrap_or(taken.len() as u64))
    }

    pub(crate) fn insert_ref(&self, dataset: DatasetNumber, record: &RefRecord) -> Result<(), CatalogError> {
        let sql = "UPDATE datasets SET next_slot = max(next_slot, ?2 + 1) WHERE number = ?1";
        self.run(sql, params![dataset.0, record.slot])?;
        let kind = kind_name(record.kind);
        self.run(
            "INSERT INTO refs (dataset, slot, name, kind, version) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![dataset.0, record.slot, record.name, kind, record.version.as_bytes()],
        )
        .map(drop)
    }

    pub(crate) fn create_ref(
        &self,
        dataset: DatasetId,
        name: String,
        kind: RefKind,
        version: VersionId,
    ) -> Result<RefRecord, CatalogError> {
        let number = self.number_of(&dataset)?;
        check_ref_name(&name)?;
        if self.find_ref(number, &name)?.is_some() {
            return Err(CatalogError::NameTaken { name });
        }
        self.check_version(number, &version)?;
        let record = RefRecord { slot: self.free_slot(number)?, name, kind, version };
        self.insert_ref(number, &record)?;
        self.note_change(number, NumberedList::Refs, record.slot, Urgency::Urgent)?;
        Ok(record)
    }

    pub(crate) fn move_ref(
        &self,
        dataset: DatasetId,
        name: String,
        version: VersionId,
        from: Option<VersionId>,
    ) -> Result<(), CatalogError> {
        let number = self.number_of(&dataset)?;
        let Some(record) = self.find_ref(number, &name)? else {
            return Err(self.no_such_ref(number, name)?);
        };
        match record.kind {
            RefKind::Branch => {}
            RefKind::Tag => return Err(CatalogError::TagFixed { name }),
        }
        if from.is_some_and(|from| from != record.version) {
            return Err(CatalogError::StaleParent { current: Some(record.version) });
        }
        self.check_version(number, &version)?;
        self.point_ref(number, record.slot, &version)?;
        self.note_change(number, NumberedList::Refs, record.slot, Urgency::Urgent).map(drop)
    }

    pub(crate) fn point_ref(
        &self,
        dataset: DatasetNumber,
        slot: u64,
        version: &VersionId,
    ) -> Result<(), CatalogError> {
        let sql = "UPDATE refs SET version = ?3 WHERE dataset = ?1 AND slot = ?2";
        self.run(sql, params![dataset.0, slot, version.as_bytes()]).map(drop)
    }

    pub(crate) fn delete_ref(&self, dataset: DatasetId, name: String) -> Result<(), CatalogError> {
        let number = self.number_of(&dataset)?;
        let Some(record) = self.find_ref(number, &name)? else {
            return Err(self.no_such_ref(number, name)?);
        };
        self.run("DELETE FROM refs WHERE dataset = ?1 AND slot = ?2", params![number.0, record.slot])?;
        self.note_change(number, NumberedList::Refs, record.slot, Urgency::Urgent).map(drop)
    }
}

//! Segments and fragments: who holds what, until when, and what of it readers don't know yet.

use crate::error::CatalogError;
use crate::records::{
    Change, DueClaim, DuePosition, FragmentKey, Holding, LeaseId, MissingFragment, NumberedList,
    NumberedPage, RenewedClaim, Work,
};
use crate::turn::{DatasetNumber, Turn, Urgency, list_at, list_name};
use rusqlite::{Params, Row, params};
use seedbank_erasure::Scheme;
use seedbank_formats::keys::KeyEpoch;
use seedbank_formats::place::{Link, Place};
use seedbank_formats::placement::{FragmentPlacement, SegmentPlacement};
use seedbank_formats::{ChunkId, DatasetId, FragmentId, PublicKey, SegmentNumber, Timestamp};

/// What became of a segment. A number without a row is unused, or was doomed and is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SegmentState {
    /// A push placed it, and no version needs it yet.
    Recorded,
    /// A version needs it, or did at the last collection.
    Committed,
    /// Its fragments are given up. The row stays until a head says so.
    Doomed,
}

/// Reads a segment's state from a column.
pub(crate) fn state_at(row: &Row<'_>, column: usize) -> rusqlite::Result<SegmentState> {
    match row.get_ref(column)?.as_str()? {
        "recorded" => Ok(SegmentState::Recorded),
        "committed" => Ok(SegmentState::Committed),
        "doomed" => Ok(SegmentState::Doomed),
        other => Err(crate::turn::unknown(column, other)),
    }
}

const COLUMNS: &str = "SELECT s.number, s.epoch, s.data, s.total, s.sealed_len, s.footer_len FROM segments s";

/// A segment's row, without its fragments.
fn segment_at(row: &Row<'_>) -> rusqlite::Result<SegmentPlacement> {
    let scheme = Scheme::new(row.get(2)?, row.get(3)?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Integer, Box::new(error))
    })?;
    Ok(SegmentPlacement {
        number: SegmentNumber(row.get(0)?),
        epoch: KeyEpoch(row.get(1)?),
        scheme,
        sealed_len: row.get(4)?,
        footer_len: row.get(5)?,
        fragments: Vec::new(),
    })
}

impl Turn<'_> {
    pub(crate) fn segments_in(
        &self,
        dataset: DatasetId,
        first: SegmentNumber,
        last: SegmentNumber,
        lease: Option<LeaseId>,
    ) -> Result<Vec<SegmentPlacement>, CatalogError> {
        let number = self.number_of(&dataset)?;
        let sql = format!(
            "{COLUMNS} WHERE s.dataset = ?1 AND s.number BETWEEN ?2 AND ?3 AND (
                 s.state = 'committed' OR (s.state = 'recorded' AND EXISTS (
                     SELECT 1 FROM lease_uses u JOIN leases l ON l.id = u.lease
                     WHERE u.lease = ?4 AND l.dataset = s.dataset AND u.segment = s.number)))
             ORDER BY s.number"
        );
        self.load(number, &sql, params![number.0, first.0, last.0, lease.map(|lease| lease.0)])
    }

    pub(crate) fn placements(
        &self,
        dataset: DatasetId,
        segments: Vec<SegmentNumber>,
    ) -> Result<Vec<SegmentPlacement>, CatalogError> {
        let number = self.number_of(&dataset)?;
        let (mut found, mut gone) = (Vec::with_capacity(segments.len()), Vec::new());
        for segment in segments {
            match self.placement(number, segment)? {
                Some(placement) => found.push(placement),
                None => gone.push(segment),
            }
        }
        if gone.is_empty() { Ok(found) } else { Err(gone_error(gone)) }
    }

    /// A segment that is not doomed.
    pub(crate) fn placement(
        &self,
        dataset: DatasetNumber,
        segment: SegmentNumber,
    ) -> Result<Option<SegmentPlacement>, CatalogError> {
        let sql = format!("{COLUMNS} WHERE s.dataset = ?1 AND s.number = ?2 AND s.state <> 'doomed'");
        Ok(self.load(dataset, &sql, params![dataset.0, segment.0])?.pop())
    }

    fn load(
        &self,
        dataset: DatasetNumber,
        sql: &str,
        params: impl Params,
    ) -> Result<Vec<SegmentPlacement>, CatalogError> {
        let mut segments = self.all(sql, params, segment_at)?;
        for segment in &mut segments {
            let sql =
                "SELECT id, holder FROM fragments WHERE dataset = ?1 AND segment = ?2 ORDER BY position";
            segment.fragments = self.all(sql, params![dataset.0, segment.number.0], |row| {
                let holder = row.get::<_, Option<[u8; 32]>>(1)?.map(PublicKey);
                Ok(FragmentPlacement { id: FragmentId(row.get(0)?), holder })
            })?;
        }
        Ok(segments)
    }

    pub(crate) fn state(
        &self,
        dataset: DatasetNumber,
        segment: SegmentNumber,
    ) -> Result<Option<SegmentState>, CatalogError> {
        let sql = "SELECT state FROM segments WHERE dataset = ?1 AND number = ?2";
        self.one(sql, params![dataset.0, segment.0], |row| state_at(row, 0))
    }

    /// Fails with all of `segments` that are not there to be relied on.
    pub(crate) fn check_there(
        &self,
        dataset: DatasetNumber,
        segments: impl IntoIterator<Item = SegmentNumber>,
    ) -> Result<(), CatalogError> {
        let mut gone = Vec::new();
        for segment in segments {
            match self.state(dataset, segment)? {
                Some(SegmentState::Recorded | SegmentState::Committed) => {}
                Some(SegmentState::Doomed) | None => gone.push(segment),
            }
        }
        if gone.is_empty() { Ok(()) } else { Err(gone_error(gone)) }
    }

    /// Notes that a segment's placement is no longer what readers find in the map.
    pub(crate) fn note_placement_change(
        &self,
        dataset: DatasetNumber,
        segment: SegmentNumber,
        urgency: Urgency,
    ) -> Result<(), CatalogError> {
        self.note_change(dataset, NumberedList::Map, segment.0, urgency).map(drop)
    }

    pub(crate) fn pages(
        &self,
        dataset: DatasetId,
        list: NumberedList,
        level: u8,
        first: u64,
        last: u64,
    ) -> Result<Vec<NumberedPage>, CatalogError> {
        let number = self.number_of(&dataset)?;
        let sql = "SELECT page, segment, item, hash FROM pages
                   WHERE dataset = ?1 AND list = ?2 AND level = ?3 AND page BETWEEN ?4 AND ?5 ORDER BY page";
        self.all(sql, params![number.0, list_name(list), level, first, last], |row| {
            Ok(NumberedPage { list, level, page: row.get(0)?, link: link_at(row, 1)? })
        })
    }

    pub(crate) fn pages_in(
        &self,
        dataset: DatasetId,
        list: NumberedList,
        segments: Vec<SegmentNumber>,
    ) -> Result<Vec<NumberedPage>, CatalogError> {
        let number = self.number_of(&dataset)?;
        let sql = "SELECT level, page, segment, item, hash FROM pages
                   WHERE dataset = ?1 AND list = ?2 AND segment = ?3 ORDER BY level, page";
        let mut found = Vec::new();
        for segment in segments {
            found.extend(self.all(sql, params![number.0, list_name(list), segment.0], |row| {
                Ok(NumberedPage { list, level: row.get(0)?, page: row.get(1)?, link: link_at(row, 2)? })
            })?);
        }
        Ok(found)
    }

    pub(crate) fn put_page(&self, dataset: DatasetNumber, page: &NumberedPage) -> Result<(), CatalogError> {
        self.run(
            "INSERT INTO pages (dataset, list, level, page, segment, item, hash)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (dataset, list, level, page)
             DO UPDATE SET segment = excluded.segment, item = excluded.item, hash = excluded.hash",
            params![
                dataset.0,
                list_name(page.list),
                page.level,
                page.page,
                page.link.place.segment.0,
                page.link.place.index,
                page.link.hash.as_bytes()
            ],
        )
        .map(drop)
    }

    pub(crate) fn changes(&self, dataset: DatasetId) -> Result<Vec<Change>, CatalogError> {
        let number = self.number_of(&dataset)?;
        self.changes_for(number, None)
    }

    /// What a commit under this lease must write: everything but segments that only other pushes recorded.
    pub(crate) fn changes_for(
        &self,
        dataset: DatasetNumber,
        lease: Option<LeaseId>,
    ) -> Result<Vec<Change>, CatalogError> {
        let sql = "SELECT list, number FROM changes c WHERE dataset = ?1 AND NOT (list = 'map' AND EXISTS (
                       SELECT 1 FROM segments s WHERE s.dataset = ?1 AND s.number = c.number
                       AND s.state = 'recorded' AND NOT EXISTS (
                           SELECT 1 FROM lease_uses u WHERE u.lease = ?2 AND u.segment = s.number)))
                   ORDER BY list, number";
        self.all(sql, params![dataset.0, lease.map(|lease| lease.0)], |row| {
            Ok(Change { list: list_at(row, 0)?, number: row.get(1)? })
        })
    }

    pub(crate) fn set_holder(
        &self,
        key: FragmentKey,
        holding: Option<Holding>,
    ) -> Result<Option<PublicKey>, CatalogError> {
        let number = self.number_of(&key.dataset)?;
        let sql = "SELECT holder FROM fragments WHERE dataset = ?1 AND segment = ?2 AND position = ?3";
        let before = self
            .one(sql, params![number.0, key.segment.0, key.index], |row| row.get::<_, Option<[u8; 32]>>(0))?
            .ok_or_else(|| gone_error(vec![key.segment]))?
            .map(PublicKey);
        let (holder, until) = match &holding {
            Some(holding) => (Some(holding.provider), holding.until),
            None => (None, Timestamp(0)),
        };
        self.run(
            "UPDATE fragments SET holder = ?4, claim_until = ?5
             WHERE dataset = ?1 AND segment = ?2 AND position = ?3",
            params![number.0, key.segment.0, key.index, holder.as_ref().map(PublicKey::as_bytes), until.0],
        )?;
        if before != holder {
            // A segment that no head names yet gets into the map with its commit.
            let urgency = match self.state(number, key.segment)? {
                Some(SegmentState::Committed) => Urgency::Urgent,
                Some(SegmentState::Recorded | SegmentState::Doomed) | None => Urgency::CanWait,
            };
            self.note_placement_change(number, key.segment, urgency)?;
            if holder.is_none() && urgency == Urgency::Urgent {
                self.add_job(
                    Work::CompleteFragments { dataset: key.dataset, segment: key.segment },
                    self.now,
                )?;
            }
        }
        Ok(before)
    }

    pub(crate) fn missing_fragments(
        &self,
        dataset: Option<DatasetId>,
        limit: u32,
    ) -> Result<Vec<MissingFragment>, CatalogError> {
        let number = dataset.map(|dataset| self.number_of(&dataset)).transpose()?;
        let sql = "SELECT d.id, f.segment, f.position, f.id
                   FROM fragments f JOIN datasets d ON d.number = f.dataset
                   JOIN segments s ON s.dataset = f.dataset AND s.number = f.segment
                   WHERE f.holder IS NULL AND s.state = 'committed' AND (?1 IS NULL OR f.dataset = ?1)
                   ORDER BY f.dataset, f.segment, f.position LIMIT ?2";
        self.all(sql, params![number.map(|number| number.0), limit], |row| {
            Ok(MissingFragment { key: key_at(row)?, fragment: FragmentId(row.get(3)?) })
        })
    }

    pub(crate) fn due_claims(
        &self,
        dataset: Option<DatasetId>,
        before: Timestamp,
        after: Option<DuePosition>,
        limit: u32,
    ) -> Result<Vec<DueClaim>, CatalogError> {
        let only = dataset.map(|dataset| self.number_of(&dataset)).transpose()?.map(|number| number.0);
        let sql = "SELECT d.id, f.segment, f.position, f.id, f.holder, f.claim_until
                   FROM fragments f JOIN datasets d ON d.number = f.dataset
                   WHERE f.holder IS NOT NULL AND f.claim_until < ?1
                   AND (f.claim_until, f.dataset, f.segment, f.position) > (?3, ?4, ?5, ?6)
                   AND (?7 IS NULL OR f.dataset = ?7)
                   ORDER BY f.claim_until, f.dataset, f.segment, f.position LIMIT ?2";
        // A time beyond what a row can hold is after every claim.
        let before = i64::try_from(before.0).unwrap_or(i64::MAX);
        let (until, number, segment, index) = match after {
            None => (-1, 0, 0, 0),
            Some(DuePosition { until, key }) => {
                let until = i64::try_from(until.0).unwrap_or(i64::MAX);
                match self.number_of(&key.dataset) {
                    Ok(number) => (until, number.0, key.segment.0, key.index),
                    // It was removed with its claims: the others of that time are given, some of them once more.
                    Err(CatalogError::NoSuchDataset { .. }) => (until, 0, 0, 0),
                    Err(error) => return Err(error),
                }
            }
        };
        self.all(sql, params![before, limit, until, number, segment, index, only], |row| {
            Ok(DueClaim {
                key: key_at(row)?,
                fragment: FragmentId(row.get(3)?),
                holding: Holding { provider: PublicKey(row.get(4)?), until: Timestamp(row.get(5)?) },
            })
        })
    }

    pub(crate) fn renew_claims(&self, claims: Vec<RenewedClaim>) -> Result<(), CatalogError> {
        for RenewedClaim { key, holding } in claims {
            self.run(
                "UPDATE fragments SET claim_until = ?5
                 WHERE dataset = (SELECT number FROM datasets WHERE id = ?1)
                 AND segment = ?2 AND position = ?3 AND holder = ?4",
                params![
                    key.dataset.as_bytes(),
                    key.segment.0,
                    key.index,
                    holding.provider.as_bytes(),
                    holding.until.0
                ],
            )?;
        }
        Ok(())
    }
}

/// Reads an item's place from two columns.
pub(crate) fn place_at(row: &Row<'_>, first: usize) -> rusqlite::Result<Place> {
    Ok(Place { segment: SegmentNumber(row.get(first)?), index: row.get(first + 1)? })
}

/// Reads an item's place and hash from three columns.
pub(crate) fn link_at(row: &Row<'_>, first: usize) -> rusqlite::Result<Link> {
    Ok(Link { place: place_at(row, first)?, hash: ChunkId(row.get(first + 2)?) })
}

/// Reads dataset, segment and index from the first three columns.
pub(crate) fn key_at(row: &Row<'_>) -> rusqlite::Result<FragmentKey> {
    Ok(FragmentKey {
        dataset: DatasetId(row.get(0)?),
        segment: SegmentNumber(row.get(1)?),
        index: row.get(2)?,
    })
}

pub(crate) fn gone_error(mut segments: Vec<SegmentNumber>) -> CatalogError {
    segments.sort_unstable();
    segments.dedup();
    CatalogError::SegmentGone { segments }
}

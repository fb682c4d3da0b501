//! Pushes: leases, the segments that they record or rely on, and the commit that makes them count.
//!
//! A lease pins every segment that its push recorded or deduplicates against. A lease that ran out is not ended by the
//! clock alone but by the next collection, which is the only one that needs it gone: a laptop may sleep through it.

use crate::error::CatalogError;
use crate::names::check_ref_name;
use crate::records::{
    BranchBase, ChangeNumber, Commit, CommitBase, Counts, Lease, LeaseId, NewVersion, Push, RefRecord, Work,
};
use crate::segments::{SegmentState, state_at};
use crate::turn::{DatasetNumber, Turn, Urgency};
use rusqlite::params;
use seedbank_formats::checkpoint::RefKind;
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::{DatasetId, PublicKey, SegmentNumber, Timestamp, VersionId};
use std::collections::BTreeSet;

/// Numbers set aside in one request: at 64 MiB each, more than any push stores between two requests.
const SEGMENTS_RESERVED_MAX: u64 = 1 << 20;
/// A lease may run for a month. Longer ones would only block collections after a crash.
const HOLD_SECONDS_MAX: u64 = 31 * 24 * 60 * 60;
/// The owner's text is for people.
const OWNER_CHARS_MAX: usize = 200;

impl Turn<'_> {
    pub(crate) fn begin_push(
        &self,
        dataset: DatasetId,
        branch: String,
        owner: String,
        hold_seconds: u64,
        reserve: u64,
    ) -> Result<Push, CatalogError> {
        let number = self.number_of(&dataset)?;
        let parent = match self.branch(number, &branch)? {
            Some(found) => self.version(number, &found.version)?,
            None => None,
        };
        let owner: String = owner.chars().take(OWNER_CHARS_MAX).collect();
        let sql = "INSERT INTO leases (dataset, owner, until) VALUES (?1, ?2, ?3) RETURNING id";
        let until = self.lease_end(hold_seconds);
        let lease = self.one(sql, params![number.0, owner, until.0], |row| row.get(0))?;
        let lease = LeaseId(lease.expect("the statement inserts one row and returns it"));
        Ok(Push { lease, parent, first_segment: self.reserve(number, reserve)? })
    }

    fn lease_end(&self, hold_seconds: u64) -> Timestamp {
        self.now.plus_seconds(hold_seconds.min(HOLD_SECONDS_MAX))
    }

    /// The branch of this name, if it exists; fails when the name is a tag's or can't be a branch's.
    fn branch(&self, dataset: DatasetNumber, name: &str) -> Result<Option<RefRecord>, CatalogError> {
        check_ref_name(name)?;
        let found = self.find_ref(dataset, name)?;
        match found.as_ref().map(|found| found.kind) {
            Some(RefKind::Tag) => Err(CatalogError::TagFixed { name: name.to_owned() }),
            Some(RefKind::Branch) | None => Ok(found),
        }
    }

    fn reserve(&self, dataset: DatasetNumber, count: u64) -> Result<SegmentNumber, CatalogError> {
        if count > SEGMENTS_RESERVED_MAX {
            return Err(CatalogError::bad("too many segment numbers at once"));
        }
        let sql = "UPDATE datasets SET next_segment = next_segment + ?2 WHERE number = ?1
                   RETURNING next_segment - ?2";
        let first = self.one(sql, params![dataset.0, count], |row| row.get(0))?;
        Ok(SegmentNumber(first.expect("a dataset's number comes from its row, in this transaction")))
    }

    fn leased_dataset(&self, lease: LeaseId) -> Result<(DatasetNumber, DatasetId), CatalogError> {
        let sql =
            "SELECT d.number, d.id FROM leases l JOIN datasets d ON d.number = l.dataset WHERE l.id = ?1";
        self.one(sql, [lease.0], |row| Ok((DatasetNumber(row.get(0)?), DatasetId(row.get(1)?))))?
            .ok_or(CatalogError::LeaseLost)
    }

    pub(crate) fn allocate_segments(
        &self,
        lease: LeaseId,
        count: u64,
    ) -> Result<SegmentNumber, CatalogError> {
        let (number, _) = self.leased_dataset(lease)?;
        self.reserve(number, count)
    }

    pub(crate) fn renew_lease(&self, lease: LeaseId, hold_seconds: u64) -> Result<(), CatalogError> {
        let sql = "UPDATE leases SET until = ?2 WHERE id = ?1";
        match self.run(sql, params![lease.0, self.lease_end(hold_seconds).0])? {
            0 => Err(CatalogError::LeaseLost),
            _ => Ok(()),
        }
    }

    pub(crate) fn record_segment(
        &self,
        lease: LeaseId,
        placement: SegmentPlacement,
        claims_until: Timestamp,
    ) -> Result<(), CatalogError> {
        let (dataset, _) = self.leased_dataset(lease)?;
        if let Some(known) = self.placement(dataset, placement.number)? {
            return self.record_again(lease, dataset, &known, &placement);
        }
        let sql = "SELECT 1 FROM datasets WHERE number = ?1 AND next_segment > ?2";
        if !self.any(sql, params![dataset.0, placement.number.0])? {
            return Err(CatalogError::bad("the segment's number was not set aside"));
        }
        if self.state(dataset, placement.number)?.is_some() {
            return Err(CatalogError::SegmentGone { segments: vec![placement.number] });
        }
        self.insert_segment(dataset, &placement, SegmentState::Recorded, claims_until)?;
        self.note_placement_change(dataset, placement.number, Urgency::CanWait)?;
        self.pin(lease, placement.number)
    }

    /// A request may arrive twice when its answer was lost. The fragments are the same then.
    fn record_again(
        &self,
        lease: LeaseId,
        dataset: DatasetNumber,
        known: &SegmentPlacement,
        placement: &SegmentPlacement,
    ) -> Result<(), CatalogError> {
        let ids = |placement: &SegmentPlacement| -> Vec<_> {
            placement.fragments.iter().map(|fragment| fragment.id).collect()
        };
        if ids(known) != ids(placement) {
            return Err(CatalogError::bad("another segment has this number"));
        }
        self.touch(dataset, placement.number)?;
        self.pin(lease, placement.number)
    }

    pub(crate) fn insert_segment(
        &self,
        dataset: DatasetNumber,
        placement: &SegmentPlacement,
        state: SegmentState,
        claims_until: Timestamp,
    ) -> Result<(), CatalogError> {
        if placement.fragments.len() != placement.scheme.total() {
            return Err(CatalogError::bad("a segment has one fragment for each index of its scheme"));
        }
        if placement.footer_len > placement.sealed_len {
            return Err(CatalogError::bad("a footer is longer than its segment"));
        }
        let state = match state {
            SegmentState::Recorded => "recorded",
            SegmentState::Committed => "committed",
            SegmentState::Doomed => "doomed",
        };
        let used = self.next_change(dataset)?;
        self.run(
            "INSERT INTO segments
                 (dataset, number, epoch, data, total, sealed_len, footer_len, live_bytes, state, used)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?6, ?8, ?9)",
            params![
                dataset.0,
                placement.number.0,
                placement.epoch.0,
                u8::try_from(placement.scheme.data()).expect("a scheme has at most 255 fragments"),
                u8::try_from(placement.scheme.total()).expect("a scheme has at most 255 fragments"),
                placement.sealed_len,
                placement.footer_len,
                state,
                used.0
            ],
        )?;
        for (position, fragment) in (0u32..).zip(&placement.fragments) {
            let until = if fragment.holder.is_some() { claims_until } else { Timestamp(0) };
            self.run(
                "INSERT INTO fragments (dataset, segment, position, id, holder, claim_until)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    dataset.0,
                    placement.number.0,
                    position,
                    fragment.id.as_bytes(),
                    fragment.holder.as_ref().map(PublicKey::as_bytes),
                    until.0
                ],
            )?;
        }
        Ok(())
    }

    pub(crate) fn use_segments(
        &self,
        lease: LeaseId,
        segments: Vec<SegmentNumber>,
    ) -> Result<(), CatalogError> {
        let (dataset, _) = self.leased_dataset(lease)?;
        self.check_there(dataset, segments.iter().copied())?;
        for segment in segments {
            self.touch(dataset, segment)?;
            self.pin(lease, segment)?;
        }
        Ok(())
    }

    fn pin(&self, lease: LeaseId, segment: SegmentNumber) -> Result<(), CatalogError> {
        let sql = "INSERT OR IGNORE INTO lease_uses (lease, segment) VALUES (?1, ?2)";
        self.run(sql, params![lease.0, segment.0]).map(drop)
    }

    /// Notes that something came to rely on the segment: a collection that began earlier can't know of it.
    fn touch(&self, dataset: DatasetNumber, segment: SegmentNumber) -> Result<(), CatalogError> {
        let change = self.next_change(dataset)?;
        let sql = "UPDATE segments SET used = ?3 WHERE dataset = ?1 AND number = ?2";
        self.run(sql, params![dataset.0, segment.0, change.0]).map(drop)
    }

    pub(crate) fn commit_base(
        &self,
        lease: LeaseId,
        branch: Option<String>,
    ) -> Result<CommitBase, CatalogError> {
        let (dataset, _) = self.leased_dataset(lease)?;
        let sql = "SELECT next_segment, next_ordinal, next_slot, change FROM datasets WHERE number = ?1";
        let counters = self.one(sql, [dataset.0], |row| {
            let counts = Counts { segments: row.get(0)?, versions: row.get(1)?, refs: row.get(2)? };
            Ok((counts, ChangeNumber(row.get(3)?)))
        })?;
        let (given_out, through) = counters.expect("a lease's dataset exists: the row would go with it");
        let branch = branch.map(|branch| self.branch_base(dataset, &branch)).transpose()?;
        let counts = match branch {
            Some(BranchBase { slot, .. }) => {
                Counts { versions: given_out.versions + 1, refs: given_out.refs.max(slot + 1), ..given_out }
            }
            None => given_out,
        };
        Ok(CommitBase {
            branch,
            ordinal: given_out.versions,
            sequence: self.sequence(dataset)? + 1,
            published: self.published(dataset)?,
            counts,
            changes: self.changes_for(dataset, Some(lease))?,
            through,
        })
    }

    fn branch_base(&self, dataset: DatasetNumber, branch: &str) -> Result<BranchBase, CatalogError> {
        Ok(match self.branch(dataset, branch)? {
            Some(found) => BranchBase { slot: found.slot, parent: Some(found.version) },
            None => BranchBase { slot: self.free_slot(dataset)?, parent: None },
        })
    }

    pub(crate) fn commit(&self, commit: Commit) -> Result<(), CatalogError> {
        let dataset = self.number_of(&commit.dataset)?;
        if self.is_committed(dataset, &commit)? {
            return Ok(());
        }
        if self.leased_dataset(commit.lease)?.0 != dataset {
            return Err(CatalogError::bad("the lease is one of another dataset"));
        }
        let used = self.pinned(commit.lease)?;
        self.check_base(dataset, &commit)?;
        self.check_reliance(dataset, &commit)?;
        self.check_there(dataset, used.iter().copied().chain(named_segments(&commit)))?;
        self.check_durable(dataset, commit.lease)?;

        for segment in &used {
            self.touch(dataset, *segment)?;
            let sql = "UPDATE segments SET state = 'committed' WHERE dataset = ?1 AND number = ?2";
            self.run(sql, params![dataset.0, segment.0])?;
        }
        for delta in &commit.live {
            self.run(
                "UPDATE segments SET live_bytes = max(0, min(sealed_len, live_bytes + ?3))
                 WHERE dataset = ?1 AND number = ?2",
                params![dataset.0, delta.segment.0, delta.bytes],
            )?;
        }
        if let Some(version) = &commit.version {
            self.add_version(dataset, version)?;
        }
        for moved in &commit.relocations {
            self.run(
                "UPDATE versions SET place_segment = ?3, place_item = ?4, tree_segment = ?5, tree_item = ?6,
                     layout_segment = ?7, layout_item = ?8
                 WHERE dataset = ?1 AND id = ?2",
                params![
                    dataset.0,
                    moved.version.as_bytes(),
                    moved.place.segment.0,
                    moved.place.index,
                    moved.tree.page.segment.0,
                    moved.tree.page.index,
                    moved.tree.layout.segment.0,
                    moved.tree.layout.index
                ],
            )?;
        }
        for page in &commit.pages {
            self.put_page(dataset, page)?;
        }
        self.put_head(dataset, &commit.head, &commit.counts)?;
        self.clear_changes(dataset, commit.through)?;
        self.run("DELETE FROM leases WHERE id = ?1", [commit.lease.0])?;

        self.add_job(Work::PublishHead { dataset: commit.dataset }, self.now)?;
        for segment in used {
            self.complete_if_missing(commit.dataset, segment)?;
        }
        Ok(())
    }

    /// Whether this very commit took place already: the head is the signature over all of it.
    fn is_committed(&self, dataset: DatasetNumber, commit: &Commit) -> Result<bool, CatalogError> {
        let sql = "SELECT 1 FROM heads WHERE dataset = ?1 AND sequence = ?2 AND bytes = ?3";
        self.any(sql, params![dataset.0, commit.head.sequence, commit.head.bytes])
    }

    /// Fails unless everything is still as the commit's base told it.
    fn check_base(&self, dataset: DatasetNumber, commit: &Commit) -> Result<(), CatalogError> {
        let base =
            self.commit_base(commit.lease, commit.version.as_ref().map(|version| version.branch.clone()))?;
        let stale = Err(CatalogError::StaleHead { sequence: self.sequence(dataset)? });
        if let (Some(version), Some(branch)) = (&commit.version, base.branch) {
            if version.base.parent != branch.parent {
                return Err(CatalogError::StaleParent { current: branch.parent });
            }
            if version.base.slot != branch.slot || version.record.ordinal != base.ordinal {
                return stale;
            }
        }
        if commit.head.sequence != base.sequence {
            return stale;
        }
        let counts = (commit.counts.versions, commit.counts.refs);
        if commit.counts.segments > base.counts.segments || counts != (base.counts.versions, base.counts.refs)
        {
            return stale;
        }
        if commit.through > base.through {
            return Err(CatalogError::bad("the commit speaks of changes that have not happened"));
        }
        for moved in &commit.relocations {
            if self.version(dataset, &moved.version)?.is_none() {
                return stale;
            }
        }
        Ok(())
    }

    /// Fails when the version whose pages the commit uses again is not as it was. As long as it is, no collection gives up
    /// anything below it, and afterwards the new version keeps it.
    fn check_reliance(&self, dataset: DatasetNumber, commit: &Commit) -> Result<(), CatalogError> {
        let Some(reliance) = commit.relies_on else { return Ok(()) };
        match self.version(dataset, &reliance.version)? {
            Some(record) if record.tree == reliance.tree => Ok(()),
            Some(_) | None => Err(CatalogError::VersionGone { version: reliance.version }),
        }
    }

    /// Fails when a segment that no version needed so far could not be read back.
    fn check_durable(&self, dataset: DatasetNumber, lease: LeaseId) -> Result<(), CatalogError> {
        let sql = "SELECT s.number, s.state, s.data, (
                       SELECT count(*) FROM fragments f
                       WHERE f.dataset = s.dataset AND f.segment = s.number AND f.holder IS NOT NULL)
                   FROM lease_uses u JOIN segments s ON s.dataset = ?1 AND s.number = u.segment
                   WHERE u.lease = ?2";
        let rows = self.all(sql, params![dataset.0, lease.0], |row| {
            Ok((SegmentNumber(row.get(0)?), state_at(row, 1)?, row.get::<_, u32>(2)?, row.get::<_, u32>(3)?))
        })?;
        for (segment, state, needed, held) in rows {
            if state == SegmentState::Recorded && held < needed {
                return Err(CatalogError::NotDurable { segment, held, needed });
            }
        }
        Ok(())
    }

    fn pinned(&self, lease: LeaseId) -> Result<BTreeSet<SegmentNumber>, CatalogError> {
        let sql = "SELECT segment FROM lease_uses WHERE lease = ?1";
        Ok(self.all(sql, [lease.0], |row| Ok(SegmentNumber(row.get(0)?)))?.into_iter().collect())
    }

    fn add_version(&self, dataset: DatasetNumber, version: &NewVersion) -> Result<(), CatalogError> {
        let id: VersionId = version.record.id;
        if self.version(dataset, &id)?.is_some() {
            return Err(CatalogError::bad("the version exists already"));
        }
        self.insert_version(dataset, &version.record)?;
        let sql = "UPDATE datasets SET next_ordinal = next_ordinal + 1 WHERE number = ?1";
        self.run(sql, [dataset.0])?;
        match version.base.parent {
            Some(_) => self.point_ref(dataset, version.base.slot, &id),
            None => {
                let (slot, name) = (version.base.slot, version.branch.clone());
                self.insert_ref(dataset, &RefRecord { slot, name, kind: RefKind::Branch, version: id })
            }
        }
    }

    /// The head now says what happened up to `through`, but for segments that running pushes have yet to commit.
    fn clear_changes(&self, dataset: DatasetNumber, through: ChangeNumber) -> Result<(), CatalogError> {
        self.run(
            "DELETE FROM changes WHERE dataset = ?1 AND change <= ?2 AND NOT (list = 'map' AND EXISTS (
                 SELECT 1 FROM segments s WHERE s.dataset = ?1 AND s.number = changes.number
                 AND s.state = 'recorded'))",
            params![dataset.0, through.0],
        )?;
        self.run(
            "DELETE FROM segments WHERE dataset = ?1 AND state = 'doomed' AND NOT EXISTS (
                 SELECT 1 FROM changes c
                 WHERE c.dataset = ?1 AND c.list = 'map' AND c.number = segments.number)",
            [dataset.0],
        )
        .map(drop)
    }

    pub(crate) fn end_push(&self, lease: LeaseId) -> Result<(), CatalogError> {
        self.run("DELETE FROM leases WHERE id = ?1", [lease.0]).map(drop)
    }

    pub(crate) fn leases(&self, dataset: DatasetId) -> Result<Vec<Lease>, CatalogError> {
        let number = self.number_of(&dataset)?;
        let sql = "SELECT id, owner, until FROM leases WHERE dataset = ?1 ORDER BY id";
        self.all(sql, [number.0], |row| {
            Ok(Lease { id: LeaseId(row.get(0)?), dataset, owner: row.get(1)?, until: Timestamp(row.get(2)?) })
        })
    }
}

/// Every segment that a commit speaks of.
fn named_segments(commit: &Commit) -> BTreeSet<SegmentNumber> {
    let mut named: BTreeSet<SegmentNumber> = commit.live.iter().map(|delta| delta.segment).collect();
    named.extend(commit.pages.iter().map(|page| page.link.place.segment));
    named.extend(&commit.head.segments);
    if let Some(NewVersion { record, .. }) = &commit.version {
        named.extend([record.version.segment, record.tree.page.segment, record.tree.layout.segment]);
    }
    for moved in &commit.relocations {
        named.extend([moved.place.segment, moved.tree.page.segment, moved.tree.layout.segment]);
    }
    named
}

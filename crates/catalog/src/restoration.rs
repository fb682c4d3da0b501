//! Restoration: the books made again, or brought up to date, from what a checkpoint says.

use crate::error::CatalogError;
use crate::names::{check_dataset_name, check_ref_name};
use crate::records::Restoration;
use crate::segments::SegmentState;
use crate::turn::{DatasetNumber, Turn, Urgency};
use rusqlite::params;
use seedbank_formats::Timestamp;

/// A checkpoint does not say when claims end, so all are renewed at the first chance.
const CLAIMS_UNKNOWN: Timestamp = Timestamp(0);

impl Turn<'_> {
    pub(crate) fn restore(&self, part: Restoration) -> Result<(), CatalogError> {
        let dataset = self.restored_dataset(&part)?;
        for segment in &part.segments {
            if self.state(dataset, segment.number)?.is_none() {
                self.insert_segment(dataset, segment, SegmentState::Committed, CLAIMS_UNKNOWN)?;
                self.complete_if_missing(part.dataset.id, segment.number)?;
            }
        }
        for version in &part.versions {
            if self.version(dataset, &version.id)?.is_none() {
                self.insert_version(dataset, version)?;
            }
        }
        for record in &part.refs {
            check_ref_name(&record.name)?;
            if self.find_ref(dataset, &record.name)?.is_none() {
                self.insert_ref(dataset, record)?;
            }
        }
        for page in &part.pages {
            self.put_page(dataset, page)?;
        }
        if let Some(head) = &part.head
            && head.sequence >= self.sequence(dataset)?
        {
            self.put_head(dataset, head, &part.counts)?;
            // The map behind a head can't list the segments that only the head locates: the next one must.
            for segment in &head.segments {
                self.note_placement_change(dataset, *segment, Urgency::CanWait)?;
            }
        }
        Ok(())
    }

    fn forget_content(&self, dataset: DatasetNumber) -> Result<(), CatalogError> {
        for table in FORGOTTEN {
            self.run(&format!("DELETE FROM {table} WHERE dataset = ?1"), [dataset.0])?;
        }
        Ok(())
    }

    /// The dataset's number; made when it is not known yet.
    fn restored_dataset(&self, part: &Restoration) -> Result<DatasetNumber, CatalogError> {
        let dataset = &part.dataset;
        if !self.any("SELECT 1 FROM datasets WHERE id = ?1", [dataset.id.as_bytes()])? {
            check_dataset_name(&dataset.name)?;
            self.check_name_free(&dataset.name)?;
            self.insert_dataset(dataset)?;
        }
        let number = self.number_of(&dataset.id)?;
        if let Some(sequence) = part.begins
            && self.sequence(number)? < sequence
        {
            self.forget_content(number)?;
        }
        // The segment of a head's own metadata may have got its number after the counts were taken, and a number is never
        // used twice.
        let named = part.head.iter().flat_map(|head| head.segments.iter().copied());
        let segments = part.segments.iter().map(|segment| segment.number).chain(named);
        let next_segment = next_after(part.counts.segments, segments.map(|segment| segment.0));
        let ordinals = part.versions.iter().map(|version| version.ordinal);
        let next_ordinal = next_after(part.counts.versions, ordinals);
        self.run(
            "UPDATE datasets SET next_segment = max(next_segment, ?2),
                 next_ordinal = max(next_ordinal, ?3), next_slot = max(next_slot, ?4)
             WHERE number = ?1",
            params![number.0, next_segment, next_ordinal, part.counts.refs],
        )?;
        Ok(number)
    }
}

/// All that an old copy of the books says of a dataset's content; refs before the versions that they name. Numbers given
/// out stay given out. Nothing is released: what the newer state needs is not known yet. Leases end, since what they pin
/// is gone: their pushes begin anew.
const FORGOTTEN: [&str; 8] =
    ["refs", "versions", "segments", "pages", "changes", "heads", "publications", "leases"];

/// The least number that is at least `count` and above all of `used`.
fn next_after(count: u64, used: impl Iterator<Item = u64>) -> u64 {
    used.map(|number| number.saturating_add(1)).fold(count, u64::max)
}

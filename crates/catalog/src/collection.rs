//! Collection: which segments no version needs any more.
//!
//! The books can't mark: what a version needs is said by sealed pages, and the key is elsewhere. So whoever has it asks
//! for a snapshot, walks the retained versions, and comes back with what lives. Everything that happened since the
//! snapshot, or that a running push relies on, is spared: it gets its verdict next time.

use crate::error::CatalogError;
use crate::records::{ChangeNumber, Collected, LiveBytes, Snapshot};
use crate::segments::{SegmentState, state_at};
use crate::turn::{DatasetNumber, Turn, Urgency};
use rusqlite::params;
use seedbank_formats::{DatasetId, SegmentNumber};
use std::collections::{BTreeMap, BTreeSet};

/// A segment as a collection sees it.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    number: SegmentNumber,
    state: SegmentState,
    sealed_len: u64,
    used: ChangeNumber,
}

/// Why a segment stays whatever lives in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// Nothing holds it.
    None,
    /// The newest head, a current page or a version's root lies in it.
    Named,
    /// A running push recorded it or relies on it.
    Pinned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It stays as it is.
    Keep,
    /// It is dead as far as the caller saw, but the caller may not have seen all.
    Spare,
    /// Less than half of it lives.
    Rewrite,
    /// Nothing of it lives, and nothing will.
    Doom,
}

fn judge(candidate: &Candidate, snapshot: &Snapshot, hold: Hold, live: u64) -> Verdict {
    let seen_whole = candidate.number < snapshot.next_segment && candidate.used <= snapshot.change;
    match (candidate.state, hold, seen_whole) {
        (SegmentState::Doomed, _, _) => Verdict::Keep,
        (_, Hold::Pinned, _) | (_, _, false) if live == 0 => Verdict::Spare,
        (_, Hold::Pinned, _) | (_, _, false) => Verdict::Keep,
        (_, Hold::None, true) if live == 0 => Verdict::Doom,
        (SegmentState::Recorded, _, true) => Verdict::Keep,
        (SegmentState::Committed, _, true) if live.saturating_mul(2) < candidate.sealed_len => {
            Verdict::Rewrite
        }
        (SegmentState::Committed, _, true) => Verdict::Keep,
    }
}

impl Turn<'_> {
    pub(crate) fn collect_begin(&self, dataset: DatasetId) -> Result<Snapshot, CatalogError> {
        let number = self.number_of(&dataset)?;
        let sql = "SELECT change, next_segment FROM datasets WHERE number = ?1";
        let snapshot = self.one(sql, [number.0], |row| {
            Ok(Snapshot { change: ChangeNumber(row.get(0)?), next_segment: SegmentNumber(row.get(1)?) })
        })?;
        Ok(snapshot.expect("a dataset's number comes from its row, in this transaction"))
    }

    pub(crate) fn collect_finish(
        &self,
        dataset: DatasetId,
        snapshot: Snapshot,
        live: Vec<LiveBytes>,
    ) -> Result<Collected, CatalogError> {
        let number = self.number_of(&dataset)?;
        let now = self.collect_begin(dataset)?;
        if snapshot.change > now.change || snapshot.next_segment > now.next_segment {
            return Err(CatalogError::bad("the snapshot is not one of this dataset"));
        }
        let sql = "DELETE FROM leases WHERE dataset = ?1 AND until < ?2";
        self.run(sql, params![number.0, self.now.0])?;

        let live: BTreeMap<SegmentNumber, u64> =
            live.into_iter().map(|LiveBytes { segment, bytes }| (segment, bytes)).collect();
        let (pinned, named) = (self.pinned_by_any(number)?, self.named(number)?);
        let sql = "SELECT number, state, sealed_len, used FROM segments WHERE dataset = ?1 ORDER BY number";
        let candidates = self.all(sql, [number.0], |row| {
            Ok(Candidate {
                number: SegmentNumber(row.get(0)?),
                state: state_at(row, 1)?,
                sealed_len: row.get(2)?,
                used: ChangeNumber(row.get(3)?),
            })
        })?;

        let mut collected = Collected::default();
        for candidate in candidates {
            let segment = candidate.number;
            let bytes = live.get(&segment).copied().unwrap_or(0).min(candidate.sealed_len);
            let hold = if pinned.contains(&segment) {
                Hold::Pinned
            } else if named.contains(&segment) {
                Hold::Named
            } else {
                Hold::None
            };
            match judge(&candidate, &snapshot, hold, bytes) {
                Verdict::Keep => {}
                Verdict::Spare => collected.spared += 1,
                Verdict::Rewrite => collected.rewrite.push(LiveBytes { segment, bytes }),
                Verdict::Doom => {
                    self.doom(number, segment)?;
                    collected.doomed.push(segment);
                }
            }
            // What came to life since the snapshot is in the row and not in the caller's sum.
            self.run(
                "UPDATE segments SET live_bytes = ?3 WHERE dataset = ?1 AND number = ?2 AND used <= ?4",
                params![number.0, segment.0, bytes, snapshot.change.0],
            )?;
        }
        Ok(collected)
    }

    fn pinned_by_any(&self, dataset: DatasetNumber) -> Result<BTreeSet<SegmentNumber>, CatalogError> {
        let sql = "SELECT u.segment FROM lease_uses u JOIN leases l ON l.id = u.lease WHERE l.dataset = ?1";
        self.segment_set(dataset, sql)
    }

    /// Segments that the books themselves point into.
    fn named(&self, dataset: DatasetNumber) -> Result<BTreeSet<SegmentNumber>, CatalogError> {
        self.segment_set(
            dataset,
            "SELECT segment FROM pages WHERE dataset = ?1
             UNION SELECT segment FROM head_segments WHERE dataset = ?1
             UNION SELECT place_segment FROM versions WHERE dataset = ?1
             UNION SELECT tree_segment FROM versions WHERE dataset = ?1
             UNION SELECT layout_segment FROM versions WHERE dataset = ?1",
        )
    }

    fn segment_set(
        &self,
        dataset: DatasetNumber,
        sql: &str,
    ) -> Result<BTreeSet<SegmentNumber>, CatalogError> {
        Ok(self.all(sql, [dataset.0], |row| Ok(SegmentNumber(row.get(0)?)))?.into_iter().collect())
    }

    /// Gives a segment up. Its row stays until the map says so too, so that a push that still finds it in the index is
    /// told.
    fn doom(&self, dataset: DatasetNumber, segment: SegmentNumber) -> Result<(), CatalogError> {
        let which = params![dataset.0, segment.0];
        self.release_fragments(
            "SELECT holder, id FROM fragments WHERE dataset = ?1 AND segment = ?2 AND holder IS NOT NULL",
            which,
        )?;
        self.run("DELETE FROM fragments WHERE dataset = ?1 AND segment = ?2", which)?;
        self.run("UPDATE segments SET state = 'doomed' WHERE dataset = ?1 AND number = ?2", which)?;
        // Readers of what is retained never come here, so the map can wait.
        self.note_placement_change(dataset, segment, Urgency::CanWait)
    }
}

#[cfg(test)]
mod tests {
    use super::{Candidate, Hold, Verdict, judge};
    use crate::records::{ChangeNumber, Snapshot};
    use crate::segments::SegmentState;
    use seedbank_formats::SegmentNumber;

    #[test]
    fn only_what_the_caller_saw_whole_and_nobody_holds_is_doomed() {
        let snapshot = Snapshot { change: ChangeNumber(10), next_segment: SegmentNumber(5) };
        let segment = |number, used| Candidate {
            number: SegmentNumber(number),
            state: SegmentState::Committed,
            sealed_len: 100,
            used: ChangeNumber(used),
        };
        let old = segment(4, 10);
        assert_eq!(judge(&old, &snapshot, Hold::None, 0), Verdict::Doom);
        assert_eq!(judge(&old, &snapshot, Hold::None, 49), Verdict::Rewrite);
        assert_eq!(judge(&old, &snapshot, Hold::None, 50), Verdict::Keep);
        assert_eq!(judge(&old, &snapshot, Hold::Pinned, 0), Verdict::Spare);
        assert_eq!(judge(&old, &snapshot, Hold::Pinned, 1), Verdict::Keep);
        assert_eq!(judge(&old, &snapshot, Hold::Named, 0), Verdict::Rewrite);
        for newer in [segment(5, 1), segment(4, 11)] {
            assert_eq!(judge(&newer, &snapshot, Hold::None, 0), Verdict::Spare);
            assert_eq!(judge(&newer, &snapshot, Hold::None, 1), Verdict::Keep);
        }
        let recorded = Candidate { state: SegmentState::Recorded, ..old };
        assert_eq!(judge(&recorded, &snapshot, Hold::None, 0), Verdict::Doom);
        assert_eq!(judge(&recorded, &snapshot, Hold::None, 1), Verdict::Keep);
        let doomed = Candidate { state: SegmentState::Doomed, ..old };
        assert_eq!(judge(&doomed, &snapshot, Hold::None, 0), Verdict::Keep);
    }
}

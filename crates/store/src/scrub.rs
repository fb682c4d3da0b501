//! Finding rot before a reader does.

use crate::entry::{Entry, Head};
use crate::index::Health;
use crate::read::{Examined, Found};
use crate::record::record_len;
use crate::store::Store;
use seedbank_formats::{DatasetId, FragmentId};
use std::fmt;
use std::str::FromStr;

/// Where a scrub goes on. The default is the beginning; losing it costs only time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrubCursor(Next);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    FragmentAfter(Option<FragmentId>),
    HeadAfter(Option<DatasetId>),
}

impl Default for Next {
    fn default() -> Next {
        Next::FragmentAfter(None)
    }
}

/// As it is written down: `fragment` or `head`, and the id of the last one that was looked at, if there is one.
impl fmt::Display for ScrubCursor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Next::FragmentAfter(None) => out.write_str("fragment"),
            Next::FragmentAfter(Some(id)) => write!(out, "fragment {id}"),
            Next::HeadAfter(None) => out.write_str("head"),
            Next::HeadAfter(Some(dataset)) => write!(out, "head {dataset}"),
        }
    }
}

/// A text is no place of a scrub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a place of a scrub")]
pub struct ScrubCursorError;

impl FromStr for ScrubCursor {
    type Err = ScrubCursorError;

    fn from_str(text: &str) -> Result<ScrubCursor, ScrubCursorError> {
        let next = match text.split_once(' ') {
            None if text == "fragment" => Next::FragmentAfter(None),
            None if text == "head" => Next::HeadAfter(None),
            Some(("fragment", id)) => Next::FragmentAfter(Some(id.parse().map_err(|_| ScrubCursorError)?)),
            Some(("head", dataset)) => Next::HeadAfter(Some(dataset.parse().map_err(|_| ScrubCursorError)?)),
            _ => return Err(ScrubCursorError),
        };
        Ok(ScrubCursor(next))
    }
}

/// What a step of a scrub saw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScrubReport {
    /// Fragments and heads looked at.
    pub checked: u64,
    /// Bytes of their records.
    pub bytes: u64,
    /// Fragments whose bytes are wrong or unreadable, known before or not.
    pub rotten: Vec<FragmentId>,
    /// Datasets whose head is wrong or unreadable.
    pub rotten_heads: Vec<DatasetId>,
    /// Records whose bytes were right and the rest not, and is now.
    pub repaired: u64,
    /// Fragments that could not be looked at for want of memory or handles; the next round sees them.
    pub skipped: u64,
    /// Whether this step reached the end. The cursor stands at the beginning again.
    pub finished: bool,
}

impl Store {
    /// Reads and checks records from `cursor` on until about `budget_bytes` are read, at least one of them. The caller
    /// sets the pace: a whole round should take days, not the disk's whole bandwidth.
    pub fn scrub_step(&self, cursor: &mut ScrubCursor, budget_bytes: u64) -> ScrubReport {
        let mut report = ScrubReport::default();
        loop {
            match cursor.0 {
                Next::FragmentAfter(after) => match self.fragment_after(after) {
                    Some(found) => {
                        self.scrub_fragment(&found, &mut report);
                        cursor.0 = Next::FragmentAfter(Some(found.id));
                    }
                    None => cursor.0 = Next::HeadAfter(None),
                },
                Next::HeadAfter(after) => match self.head_after(after) {
                    Some((dataset, head)) => {
                        self.scrub_head(dataset, &head, &mut report);
                        cursor.0 = Next::HeadAfter(Some(dataset));
                    }
                    None => {
                        report.finished = true;
                        *cursor = ScrubCursor::default();
                        return report;
                    }
                },
            }
            if report.bytes >= budget_bytes && report.checked > 0 {
                return report;
            }
        }
    }

    fn fragment_after(&self, after: Option<FragmentId>) -> Option<Found> {
        let state = self.shared.lock();
        let (id, fragment) = state.index.fragments_after(after).next()?;
        let (length, health, place) = (fragment.length, fragment.health, fragment.place);
        Some(Found { id: *id, length, health, place })
    }

    fn head_after(&self, after: Option<DatasetId>) -> Option<(DatasetId, Head)> {
        let state = self.shared.lock();
        let next = state.index.heads().find(|(dataset, _)| after.is_none_or(|after| **dataset > after));
        next.map(|(dataset, head)| (*dataset, *head))
    }

    fn scrub_fragment(&self, found: &Found, report: &mut ScrubReport) {
        report.checked += 1;
        report.bytes += record_len(found.length);
        match self.shared.examine(found) {
            Ok(Examined::Sound) => self.absolve(found),
            Ok(Examined::Repaired) => {
                report.repaired += 1;
                self.absolve(found);
            }
            Ok(Examined::Rotten) => report.rotten.push(found.id),
            Ok(Examined::Elsewhere) => {}
            Err(error) => {
                tracing::warn!(fragment = %found.id, %error, "can't scrub a fragment");
                report.skipped += 1;
            }
        }
    }

    /// A fragment that was unreadable once and reads well now is not rotten any more.
    fn absolve(&self, found: &Found) {
        let (Health::Rotten, Some(place)) = (found.health, found.place) else {
            return;
        };
        let Ok(mut state) = self.shared.admit() else {
            return;
        };
        let same = state.index.fragment(&found.id).is_some_and(|fragment| fragment.place == found.place);
        if same {
            state.record(&Entry::Placed { id: found.id, length: found.length, place });
            self.shared.submit(&mut state);
        }
    }

    fn scrub_head(&self, dataset: DatasetId, head: &Head, report: &mut ScrubReport) {
        report.checked += 1;
        report.bytes += record_len(head.length);
        let read = self.shared.read_head(head);
        let same = self.shared.lock().index.head(&dataset) == Some(head);
        match read {
            Ok(Some(_)) => {}
            Ok(None) if same => report.rotten_heads.push(dataset),
            Ok(None) => {}
            Err(_) => report.skipped += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Next, ScrubCursor, ScrubCursorError};
    use seedbank_formats::{DatasetId, FragmentId};

    #[test]
    fn places_read_back_and_nothing_else_does() {
        let (id, dataset) = (FragmentId::of(b"x"), DatasetId([7; 32]));
        for next in [
            Next::FragmentAfter(None),
            Next::FragmentAfter(Some(id)),
            Next::HeadAfter(None),
            Next::HeadAfter(Some(dataset)),
        ] {
            assert_eq!(ScrubCursor(next).to_string().parse(), Ok(ScrubCursor(next)));
        }
        for text in ["", "head ", "fragment 12", "volume"] {
            assert_eq!(text.parse::<ScrubCursor>(), Err(ScrubCursorError), "{text}");
        }
    }
}

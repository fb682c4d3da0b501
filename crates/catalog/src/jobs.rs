//! Jobs: what has to be done elsewhere, kept until somebody says that it is done.
//!
//! A job is taken for a time, not for ever: if its taker dies, it comes free by itself. So whoever does a job must bear
//! to do it twice.

use crate::error::CatalogError;
use crate::records::{Job, JobId, RELEASE_BATCH_MAX, Work};
use crate::turn::Turn;
use rusqlite::{Params, Row, params};
use seedbank_formats::{Asked, DatasetId, FragmentId, PublicKey, Timestamp};
use std::collections::BTreeMap;

/// Most failures are a provider that restarts.
const BACKOFF_SECONDS_FIRST: u64 = 15;
/// A provider that was away for a day is tried four times a day: its claims last longer than that.
const BACKOFF_SECONDS_MAX: u64 = 6 * 60 * 60;
/// Errors are for people; a page of it is enough.
const ERROR_CHARS_MAX: usize = 500;

/// How long a job rests after its `attempts`-th failure: twice as long each time, up to a limit, and up to a quarter
/// longer depending on the job, so that those which failed together don't come back together.
fn backoff_seconds(job: JobId, attempts: u32) -> u64 {
    let doubled = BACKOFF_SECONDS_FIRST.checked_shl(attempts.saturating_sub(1).min(32)).unwrap_or(u64::MAX);
    let base = doubled.min(BACKOFF_SECONDS_MAX);
    // Fibonacci hashing spreads consecutive numbers evenly.
    let spread = job.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    base + ((base / 4 * spread) >> 32)
}

const COLUMNS: &str = "SELECT id, work, not_before, attempts, last_error FROM jobs";

fn job_at(row: &Row<'_>) -> rusqlite::Result<Job> {
    let work = serde_json::from_str(row.get_ref(1)?.as_str()?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error))
    })?;
    Ok(Job {
        id: JobId(row.get(0)?),
        work,
        not_before: Timestamp(row.get(2)?),
        attempts: row.get(3)?,
        last_error: row.get(4)?,
    })
}

impl Turn<'_> {
    pub(crate) fn add_job(&self, work: Work, not_before: Timestamp) -> Result<JobId, CatalogError> {
        let dataset = match &work {
            Work::CompleteFragments { dataset, .. } | Work::PublishHead { dataset } => {
                Some(self.number_of(dataset)?.0)
            }
            Work::RenewClaims { .. } => None,
            Work::ReleaseClaims { fragments, .. } if fragments.len() > RELEASE_BATCH_MAX => {
                return Err(CatalogError::bad("a release names more than 1000 fragments"));
            }
            Work::ReleaseClaims { .. } => None,
        };
        let text = serde_json::to_string(&work).expect("work has string keys and no maps");
        // Work that is asked for again may also be new work: it is done at once, and once more if it is being done.
        let id = self.one(
            "INSERT INTO jobs (key, dataset, work, not_before) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (key) DO UPDATE SET
                 not_before = min(not_before, excluded.not_before), again = held_until > 0
             RETURNING id",
            params![blake3::hash(text.as_bytes()).as_bytes(), dataset, text, not_before.0],
            |row| row.get(0),
        )?;
        Ok(JobId(id.expect("the statement inserts or updates one row and returns it")))
    }

    pub(crate) fn take_jobs(&self, limit: u32, hold_seconds: u64) -> Result<Vec<Job>, CatalogError> {
        let sql =
            format!("{COLUMNS} WHERE not_before <= ?1 AND held_until <= ?1 ORDER BY not_before, id LIMIT ?2");
        let mut jobs = self.all(&sql, params![self.now.0, limit], job_at)?;
        for job in &mut jobs {
            let until = self.now.plus_seconds(hold_seconds);
            self.run(
                "UPDATE jobs SET held_until = ?2, again = 0 WHERE id = ?1",
                params![job.id.0, until.0.max(1)],
            )?;
            if let Work::ReleaseClaims { provider, fragments, .. } = &mut job.work {
                self.keep_unheld(*provider, fragments)?;
            }
        }
        Ok(jobs)
    }

    pub(crate) fn unheld(
        &self,
        provider: PublicKey,
        mut fragments: Vec<FragmentId>,
    ) -> Result<Vec<FragmentId>, CatalogError> {
        if fragments.len() > RELEASE_BATCH_MAX {
            return Err(CatalogError::bad("more than 1000 fragments in one question"));
        }
        self.keep_unheld(provider, &mut fragments)?;
        Ok(fragments)
    }

    /// Leaves out what the provider holds by the books: a spare that lost a race may have become the holder since.
    fn keep_unheld(&self, provider: PublicKey, fragments: &mut Vec<FragmentId>) -> Result<(), CatalogError> {
        let mut unheld = Vec::with_capacity(fragments.len());
        for fragment in fragments.drain(..) {
            let sql = "SELECT 1 FROM fragments WHERE holder = ?1 AND id = ?2";
            if !self.any(sql, params![provider.as_bytes(), fragment.as_bytes()])? {
                unheld.push(fragment);
            }
        }
        *fragments = unheld;
        Ok(())
    }

    pub(crate) fn finish_job(&self, job: JobId) -> Result<(), CatalogError> {
        self.run("DELETE FROM jobs WHERE id = ?1 AND again = 0", [job.0])?;
        let sql = "UPDATE jobs SET again = 0, held_until = 0, attempts = 0, last_error = NULL WHERE id = ?1";
        self.run(sql, [job.0]).map(drop)
    }

    pub(crate) fn fail_job(&self, job: JobId, error: String) -> Result<(), CatalogError> {
        let sql = "SELECT attempts FROM jobs WHERE id = ?1";
        let Some(before) = self.one(sql, [job.0], |row| row.get::<_, u32>(0))? else {
            return Ok(());
        };
        let attempts = before.saturating_add(1);
        let not_before = self.now.plus_seconds(backoff_seconds(job, attempts));
        let error: String = error.chars().take(ERROR_CHARS_MAX).collect();
        self.run(
            "UPDATE jobs SET attempts = ?2, not_before = ?3, last_error = ?4, held_until = 0, again = 0
             WHERE id = ?1",
            params![job.0, attempts, not_before.0, error],
        )
        .map(drop)
    }

    pub(crate) fn jobs(&self, limit: u32) -> Result<Vec<Job>, CatalogError> {
        self.all(&format!("{COLUMNS} ORDER BY not_before, id LIMIT ?1"), [limit], job_at)
    }

    /// Leaves jobs that release what a query finds: columns holder and fragment id.
    pub(crate) fn release_fragments(&self, sql: &str, params: impl Params) -> Result<(), CatalogError> {
        let asked = Asked::within(self.now);
        let mut batches: BTreeMap<PublicKey, Vec<FragmentId>> = BTreeMap::new();
        let mut statement = self.sql.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        while let Some(row) = rows.next()? {
            let (provider, fragment) = (PublicKey(row.get(0)?), FragmentId(row.get(1)?));
            let batch = batches.entry(provider).or_default();
            batch.push(fragment);
            if batch.len() == RELEASE_BATCH_MAX {
                let fragments = std::mem::take(batch);
                self.add_job(Work::ReleaseClaims { provider, fragments, asked }, self.now)?;
            }
        }
        for (provider, fragments) in batches.into_iter().filter(|(_, fragments)| !fragments.is_empty()) {
            self.add_job(Work::ReleaseClaims { provider, fragments, asked }, self.now)?;
        }
        Ok(())
    }

    /// Leaves jobs that find holders for what a dataset's segment lacks.
    pub(crate) fn complete_if_missing(
        &self,
        dataset: DatasetId,
        segment: seedbank_formats::SegmentNumber,
    ) -> Result<(), CatalogError> {
        let number = self.number_of(&dataset)?;
        let sql = "SELECT 1 FROM fragments WHERE dataset = ?1 AND segment = ?2 AND holder IS NULL";
        if self.any(sql, params![number.0, segment.0])? {
            self.add_job(Work::CompleteFragments { dataset, segment }, self.now)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{BACKOFF_SECONDS_FIRST, BACKOFF_SECONDS_MAX, backoff_seconds};
    use crate::records::JobId;

    #[test]
    fn backoff_doubles_up_to_its_limit_and_spreads_jobs() {
        for attempts in 1..10 {
            let rest = backoff_seconds(JobId(1), attempts);
            let base = BACKOFF_SECONDS_FIRST << (attempts - 1);
            assert!((base..=base + base / 4).contains(&rest), "{attempts}: {rest}");
        }
        for attempts in [12, 63, 64, 65, u32::MAX] {
            let rest = backoff_seconds(JobId(9), attempts);
            assert!((BACKOFF_SECONDS_MAX..=BACKOFF_SECONDS_MAX * 5 / 4).contains(&rest));
        }
        let rests: std::collections::BTreeSet<_> =
            (0..100).map(|id| backoff_seconds(JobId(id), 12)).collect();
        assert!(rests.len() > 90);
    }
}

//! Does what the books have left to be done.

use super::{CompleteError, Maintenance, StepError};
use crate::behind::{BehindError, Silence, check_newest};
use crate::push::PushError;
use seedbank_catalog::records::{Job, Work};
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::Timestamp;
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Jobs of one step, which are done at once: most wait for a provider.
const JOBS_MAX: u32 = 8;

/// Jobs looked at for releases: each is one request of up to a thousand fragments.
const RELEASES_MAX: u32 = 32;

/// Rounds of releases before a command ends; the rest is for the steward.
const RELEASE_ROUNDS_MAX: u32 = 64;

/// Jobs that were taken for a look are free again after this time.
const GLANCE_SECONDS: u64 = 30;

/// A job that is not done after this time is free for another taker. The slowest completes a segment.
const HOLD_SECONDS: u64 = 60 * 60;

/// For so long nobody is asked again whether the books are the newest.
const RELEASABLE_FOR: Duration = Duration::from_secs(10 * 60);

/// A release that failed so often is given up: at four attempts a day, the claims have ended by themselves by then.
const RELEASE_ATTEMPTS_MAX: u32 = 300;

/// What a step of jobs did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobsDone {
    /// Jobs that are no more.
    pub done: u64,
    /// Jobs that will be tried again, later each time.
    pub failed: u64,
    /// Fragments that found a holder by these jobs.
    pub fragments_completed: u64,
}

/// When no provider knew a newer head of a dataset than the books, and which one the books had.
#[derive(Debug, Clone, Copy)]
pub(super) struct Releasable {
    asked: Instant,
    sequence: u64,
}

/// How one job went.
enum End {
    Done { fragments: u64 },
    Failed { reason: String },
}

impl Maintenance {
    /// Takes a few jobs that are due and does them. More may be due when all of them were done.
    ///
    /// # Errors
    /// [`StepError`]. A job that fails is no error.
    pub async fn work(&self, now: Timestamp) -> Result<JobsDone, StepError> {
        let next = self.ask::<_, StepError>(|books| books.jobs(JOBS_MAX)).await?;
        let may_release = self.may_release(&next).await;
        let jobs = self.ask::<_, StepError>(|books| books.take_jobs(JOBS_MAX, HOLD_SECONDS)).await?;
        if jobs.is_empty() {
            return Ok(JobsDone::default());
        }
        self.learn_addresses::<StepError>().await?;
        self.perform_all(jobs, now, &may_release).await
    }

    /// Whether anything may be given up, if that is among the jobs to come: by an old copy of the books something may be
    /// nobody's that a newer version needs. Asked before jobs are taken: the books leave out what is held as they know it
    /// then.
    async fn may_release(&self, next: &[Job]) -> Result<(), String> {
        if !next.iter().any(is_release) {
            return Err("it came after the look for newer heads".to_owned());
        }
        self.check_all_newest().await.map_err(|error| error.to_string())
    }

    pub(super) async fn check_all_newest(&self) -> Result<(), BehindError> {
        let known = self.ask::<_, StepError>(|books| {
            let mut known = Vec::new();
            for dataset in books.datasets()? {
                known.push((dataset.id, books.head(dataset.id)?.map_or(0, |head| head.sequence)));
            }
            Ok(known)
        });
        for (dataset, sequence) in known.await? {
            let last = self.releasable.lock().unwrap_or_else(PoisonError::into_inner).get(&dataset).copied();
            if last.is_some_and(|last| last.sequence == sequence && last.asked.elapsed() < RELEASABLE_FOR) {
                continue;
            }
            let asked = Instant::now();
            let sequence = match check_newest(&self.books, &self.network, dataset, Silence::Refused).await {
                Ok(sequence) => sequence,
                // It was removed meanwhile.
                Err(BehindError::Catalog(CatalogError::NoSuchDataset { .. })) => continue,
                Err(error) => return Err(error),
            };
            let found = Releasable { asked, sequence };
            self.releasable.lock().unwrap_or_else(PoisonError::into_inner).insert(dataset, found);
        }
        Ok(())
    }

    async fn perform_all(
        &self,
        jobs: Vec<Job>,
        now: Timestamp,
        may_release: &Result<(), String>,
    ) -> Result<JobsDone, StepError> {
        let mut running = JoinSet::new();
        for job in jobs {
            let this = self.clone();
            let refused = may_release.clone().err().filter(|_| is_release(&job));
            running.spawn(async move {
                let end = match refused {
                    Some(reason) => End::Failed { reason },
                    None => this.perform(&job, now).await,
                };
                (job, end)
            });
        }
        let mut total = JobsDone::default();
        while let Some(ended) = running.join_next().await {
            let (job, end) = ended.map_err(|_ended| StepError::Stopped)?;
            match end {
                End::Done { fragments } => {
                    total.done += 1;
                    total.fragments_completed += fragments;
                    self.ask::<_, StepError>(move |books| books.finish_job(job.id)).await?;
                }
                End::Failed { reason } => {
                    total.failed += 1;
                    tracing::info!(job = job.id.0, attempts = job.attempts, %reason, "job failed");
                    self.ask::<_, StepError>(move |books| books.fail_job(job.id, reason)).await?;
                }
            }
        }
        Ok(total)
    }

    /// Does the releases among the jobs that are due, and leaves all others to whoever comes next.
    ///
    /// # Errors
    /// [`StepError`]. A provider that does not answer is no error: its jobs stay.
    pub async fn release(&self) -> Result<JobsDone, StepError> {
        self.learn_addresses::<StepError>().await?;
        let mut total = JobsDone::default();
        let next = self.ask::<_, StepError>(|books| books.jobs(RELEASES_MAX)).await?;
        if !next.iter().any(is_release) {
            return Ok(total);
        }
        if let Err(error) = self.check_all_newest().await {
            tracing::warn!(%error, "nothing released");
            return Ok(total);
        }
        for _ in 0..RELEASE_ROUNDS_MAX {
            let mut jobs =
                self.ask::<_, StepError>(|books| books.take_jobs(RELEASES_MAX, GLANCE_SECONDS)).await?;
            jobs.retain(is_release);
            if jobs.is_empty() {
                break;
            }
            // Releases don't look at the time.
            let done = self.perform_all(jobs, Timestamp(0), &Ok(())).await?;
            total.done += done.done;
            total.failed += done.failed;
        }
        Ok(total)
    }

    async fn perform(&self, job: &Job, now: Timestamp) -> End {
        match &job.work {
            Work::ReleaseClaims { provider, fragments, asked } => {
                match self.network.release(provider, fragments, *asked).await {
                    Ok(()) => End::Done { fragments: 0 },
                    Err(_) if job.attempts >= RELEASE_ATTEMPTS_MAX => End::Done { fragments: 0 },
                    Err(error) => End::Failed { reason: error.to_string() },
                }
            }
            Work::CompleteFragments { dataset, segment } => {
                match self.complete_segment(*dataset, *segment, now).await {
                    Ok(completed) if completed.still_missing == 0 => {
                        End::Done { fragments: completed.fragments }
                    }
                    Ok(completed) => End::Failed {
                        reason: format!("{} fragments have no holder yet", completed.still_missing),
                    },
                    // It was collected, or removed with its dataset.
                    Err(CompleteError::Catalog(
                        CatalogError::SegmentGone { .. } | CatalogError::NoSuchDataset { .. },
                    )) => End::Done { fragments: 0 },
                    Err(error) => End::Failed { reason: error.to_string() },
                }
            }
            Work::PublishHead { dataset } => match self.publish_head(*dataset).await {
                Ok(0) => End::Failed { reason: "no provider took the head".to_owned() },
                // Whoever was away is tried again when all heads are looked at.
                Ok(_) | Err(PushError::Catalog(CatalogError::NoSuchDataset { .. })) => {
                    End::Done { fragments: 0 }
                }
                Err(error) => End::Failed { reason: error.to_string() },
            },
            Work::RenewClaims { provider } => match self.renew(now, Some(*provider)).await {
                Ok(renewed) if renewed.unanswered == 0 => End::Done { fragments: 0 },
                Ok(renewed) => {
                    End::Failed { reason: format!("{} claims were not answered", renewed.unanswered) }
                }
                Err(error) => End::Failed { reason: error.to_string() },
            },
        }
    }
}

fn is_release(job: &Job) -> bool {
    matches!(job.work, Work::ReleaseClaims { .. })
}

impl From<StepError> for BehindError {
    fn from(error: StepError) -> BehindError {
        match error {
            StepError::Catalog(error) => BehindError::Catalog(error),
            StepError::Stopped => BehindError::Stopped,
        }
    }
}

//! When which step of `client::maintain` runs. Steps say what they did; the pace is kept here and nowhere else.
//!
//! Every step has a loop of its own, so that a long one holds no other up. A step may be cut short at any await when
//! the steward stops: whatever it had not told the books is done again.

use crate::metrics::{Metrics, StepOutcome};
use crate::run::{Stop, stopped};
use seedbank_catalog::Request;
use seedbank_catalog::records::Dataset;
use seedbank_client::maintain::{CompactError, Compacted, Maintenance, Paying, RefreshError};
use seedbank_client::network::wall_clock;
use seedbank_formats::{DatasetId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::sleep;

/// A dataset is collected so long after the last time.
const COLLECT_EVERY_SECONDS: u64 = 24 * 60 * 60;

/// A collection that failed, most likely for want of providers, is tried again after this time.
const COLLECT_AGAIN: Duration = Duration::from_secs(60 * 60);

/// Segments completed in one sweep; jobs complete what a push has just left.
const COMPLETE_AT_ONCE: usize = 64;

/// How long each step rests after it has found nothing more to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacing {
    /// Greeting providers: how full they are, whether they answer.
    pub greet: Duration,
    /// Jobs, which most requests that make some wake at once.
    pub work: Duration,
    /// The sweep over fragments that nobody holds.
    pub complete: Duration,
    /// The sweep over claims in their second half.
    pub renew: Duration,
    /// The comparison of a few pages of each provider's list of our claims with the books. Each list is gone through
    /// about once a day.
    pub compare: Duration,
    /// The sweep over heads that too few providers have.
    pub publish: Duration,
    /// The look for heads by which readers without the books would go wrong, since fragments have moved. Each that is
    /// found costs a small segment, so one head stands for all that moved in this time.
    pub refresh: Duration,
    /// The look for datasets that are due for collection.
    pub collect: Duration,
    /// The look after agreements and channels, in a network that is paid.
    pub pay: Duration,
}

impl Default for Pacing {
    fn default() -> Pacing {
        Pacing {
            greet: Duration::from_secs(60),
            // A look costs one indexed query; the wait counts only for jobs that were put off.
            work: Duration::from_secs(5),
            complete: Duration::from_secs(5 * 60),
            renew: Duration::from_secs(10 * 60),
            compare: Duration::from_secs(10 * 60),
            publish: Duration::from_secs(10 * 60),
            refresh: Duration::from_secs(2 * 60),
            collect: Duration::from_secs(60),
            // An epoch's last quarter has many of these, however short epochs are in practice.
            pay: Duration::from_secs(60),
        }
    }
}

/// One kind of background work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Greet,
    Work,
    Complete,
    Renew,
    Compare,
    Publish,
    Refresh,
    Collect,
    Pay,
}

impl Step {
    pub(crate) const ALL: [Step; 9] = [
        Step::Greet,
        Step::Work,
        Step::Complete,
        Step::Renew,
        Step::Compare,
        Step::Publish,
        Step::Refresh,
        Step::Collect,
        Step::Pay,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Step::Greet => "greet",
            Step::Work => "work",
            Step::Complete => "complete",
            Step::Renew => "renew",
            Step::Compare => "compare",
            Step::Publish => "publish",
            Step::Refresh => "refresh",
            Step::Collect => "collect",
            Step::Pay => "pay",
        }
    }

    fn rest(self, pacing: &Pacing) -> Duration {
        match self {
            Step::Greet => pacing.greet,
            Step::Work => pacing.work,
            Step::Complete => pacing.complete,
            Step::Renew => pacing.renew,
            Step::Compare => pacing.compare,
            Step::Publish => pacing.publish,
            Step::Refresh => pacing.refresh,
            Step::Collect => pacing.collect,
            Step::Pay => pacing.pay,
        }
    }
}

/// What a request leaves to be done soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    Nothing,
    /// There are new jobs, most likely.
    Work,
    /// There is less to keep, and people wait to see it gone.
    Collect(DatasetId),
}

fn wake(request: &Request) -> Wake {
    match request {
        Request::RemoveVersion { dataset, .. } => Wake::Collect(*dataset),
        Request::Commit { .. }
        | Request::RemoveDataset { .. }
        | Request::ForgetHoldings { .. }
        | Request::LoseFragments { .. }
        | Request::RemoveProvider { .. }
        | Request::SetHolder { holding: None, .. }
        | Request::AddJob { .. }
        | Request::CollectFinish { .. } => Wake::Work,
        _ => Wake::Nothing,
    }
}

/// Whether a step should run again at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    Now,
    Later,
}

/// The background work of a steward.
pub(crate) struct Rounds {
    maintenance: Maintenance,
    metrics: Arc<Metrics>,
    pacing: Pacing,
    work: Notify,
    collect: Notify,
    /// Datasets that were asked to be collected.
    requested: Mutex<BTreeSet<DatasetId>>,
    /// When the collection of a dataset was last begun.
    attempted: Mutex<BTreeMap<DatasetId, Instant>>,
}

impl Rounds {
    pub(crate) fn new(maintenance: Maintenance, metrics: Arc<Metrics>, pacing: Pacing) -> Rounds {
        Rounds {
            maintenance,
            metrics,
            pacing,
            work: Notify::new(),
            collect: Notify::new(),
            requested: Mutex::default(),
            attempted: Mutex::default(),
        }
    }

    /// Hears of a request that another process had done.
    pub(crate) fn heard(&self, request: &Request) {
        self.metrics.requests.inc();
        match wake(request) {
            Wake::Nothing => {}
            Wake::Work => self.work.notify_one(),
            Wake::Collect(dataset) => {
                self.requested.lock().unwrap_or_else(PoisonError::into_inner).insert(dataset);
                self.collect.notify_one();
            }
        }
    }

    /// Runs one step again and again until the steward stops.
    pub(crate) async fn repeat(self: Arc<Rounds>, step: Step, mut stop: Stop) {
        loop {
            let began = Instant::now();
            let result = tokio::select! {
                biased;
                () = stopped(&mut stop) => return,
                result = self.run(step) => result,
            };
            let (outcome, more) = match result {
                Ok(more) => (StepOutcome::Done, more),
                Err(error) => {
                    tracing::warn!(step = step.as_str(), error = %chain(&*error), "background step failed");
                    (StepOutcome::Failed, More::Later)
                }
            };
            self.metrics.stepped(step, outcome, began.elapsed());
            if more == More::Later {
                tokio::select! {
                    biased;
                    () = stopped(&mut stop) => return,
                    () = self.rest(step) => {}
                }
            }
        }
    }

    /// Waits until a step is due again.
    async fn rest(&self, step: Step) {
        let woken = async {
            match step {
                Step::Work => self.work.notified().await,
                Step::Collect => self.collect.notified().await,
                Step::Greet
                | Step::Complete
                | Step::Renew
                | Step::Compare
                | Step::Publish
                | Step::Refresh
                | Step::Pay => std::future::pending().await,
            }
        };
        tokio::select! {
            () = woken => {}
            () = sleep(step.rest(&self.pacing)) => {}
        }
    }

    async fn run(&self, step: Step) -> Result<More, StepFailed> {
        let (maintenance, now) = (&self.maintenance, wall_clock());
        match step {
            Step::Greet => {
                match maintenance.discover_providers(now).await {
                    Ok(Some(found)) if found.added > 0 => {
                        tracing::info!(?found, "new providers in the registry")
                    }
                    Ok(_) => {}
                    // Those that are known are there all the same.
                    Err(error) => tracing::warn!(error = %chain(&error), "registry of providers not read"),
                }
                let greeted = maintenance.greet_providers().await?;
                self.metrics.providers.set(greeted.known);
                self.metrics.providers_answering.set(greeted.answered);
                Ok(More::Later)
            }
            Step::Work => {
                let jobs = maintenance.work(now).await?;
                self.metrics.jobs_done.inc_by(jobs.done);
                self.metrics.jobs_failed.inc_by(jobs.failed);
                self.metrics.fragments_completed.inc_by(jobs.fragments_completed);
                // One that failed rests by itself, so this comes to an end.
                Ok(if jobs.done + jobs.failed > 0 { More::Now } else { More::Later })
            }
            Step::Complete => {
                let completed = maintenance.complete_missing(COMPLETE_AT_ONCE, now).await?;
                self.metrics.fragments_completed.inc_by(completed.fragments);
                if completed.fragments > 0 {
                    tracing::info!(fragments = completed.fragments, "fragments completed");
                }
                Ok(More::Later)
            }
            Step::Renew => {
                let renewed = maintenance.renew_claims(now).await?;
                self.metrics.claims_renewed.inc_by(renewed.renewed);
                self.metrics.fragments_lost.inc_by(renewed.lost);
                if renewed.lost > 0 {
                    self.work.notify_one();
                }
                Ok(More::Later)
            }
            Step::Compare => {
                let compared = maintenance.compare_claims(now).await?;
                self.metrics.claims_compared.inc_by(compared.claims);
                self.metrics.claims_orphaned.inc_by(compared.orphans);
                if compared.orphans > 0 {
                    self.work.notify_one();
                }
                Ok(More::Later)
            }
            Step::Publish => {
                maintenance.publish_heads().await?;
                let names = maintenance.publish_names().await?;
                self.metrics.names_published.inc_by(names.published);
                self.metrics.names_failed.inc_by(names.failed);
                Ok(More::Later)
            }
            Step::Refresh => {
                let refreshed = maintenance.refresh_heads().await?;
                self.metrics.heads_written.inc_by(refreshed.heads);
                Ok(More::Later)
            }
            Step::Pay => {
                self.metrics.chain_answers.set(0);
                let paid = maintenance.pay().await?;
                self.metrics.chain_answers.set(1);
                self.metrics.paid(&paid);
                if paid != (Paying { open: paid.open, stopped: paid.stopped, ..Paying::default() }) {
                    let Paying {
                        open,
                        stopped,
                        signed,
                        posted,
                        asked,
                        closed,
                        refunded,
                        raised,
                        announced,
                        returned,
                        failed,
                    } = paid;
                    tracing::info!(
                        open, stopped, signed, posted, asked, closed, %refunded, raised, announced, %returned, failed,
                        "agreements looked after"
                    );
                }
                if paid.closed > 0 {
                    self.work.notify_one();
                }
                Ok(More::Later)
            }
            Step::Collect => {
                for dataset in self.due_collections(now).await? {
                    self.collect(dataset, now).await;
                }
                Ok(More::Later)
            }
        }
    }

    async fn due_collections(&self, now: Timestamp) -> Result<Vec<DatasetId>, StepFailed> {
        let requested = std::mem::take(&mut *self.requested.lock().unwrap_or_else(PoisonError::into_inner));
        let mut due = Vec::new();
        for dataset in self.maintenance.datasets().await? {
            let last = self.maintenance.last_collected(dataset.id).await?;
            let attempted =
                self.attempted.lock().unwrap_or_else(PoisonError::into_inner).get(&dataset.id).copied();
            let rested = attempted.is_none_or(|attempted| attempted.elapsed() >= COLLECT_AGAIN);
            let wanted = requested.contains(&dataset.id) || (rested && is_due(&dataset, last, now));
            if wanted && self.maintenance.has_keys(&dataset) {
                due.push(dataset.id);
            }
        }
        Ok(due)
    }

    async fn collect(&self, dataset: DatasetId, now: Timestamp) {
        self.attempted.lock().unwrap_or_else(PoisonError::into_inner).insert(dataset, Instant::now());
        let mostly_dead = match self.maintenance.collect(dataset, now).await {
            Ok(collection) => {
                let doomed = collection.collected.doomed.len();
                self.metrics.segments_collected.inc_by(doomed as u64);
                tracing::info!(%dataset, segments = doomed, live_bytes = collection.live_bytes, "dataset collected");
                self.work.notify_one();
                collection.collected.rewrite
            }
            Err(error) => {
                tracing::warn!(%dataset, error = %chain(&error), "dataset not collected");
                return;
            }
        };
        match self.maintenance.compact(dataset, &mostly_dead).await {
            Ok(compacted) if compacted.segments > 0 => {
                let Compacted { segments, items, bytes, layouts } = compacted;
                self.metrics.segments_compacted.inc_by(segments);
                tracing::info!(%dataset, segments, items, bytes, layouts, "dataset compacted");
            }
            // It does not pay, or the dataset is another owner's.
            Ok(_) | Err(CompactError::Write(RefreshError::NotHere(_))) => {}
            Err(error) => tracing::warn!(%dataset, error = %chain(&error), "dataset not compacted"),
        }
    }
}

/// Why a step stopped early.
type StepFailed = Box<dyn std::error::Error + Send + Sync>;

/// Whether a day has passed since a dataset was collected, or made.
fn is_due(dataset: &Dataset, last: Option<Timestamp>, now: Timestamp) -> bool {
    last.unwrap_or(dataset.created).plus_seconds(COLLECT_EVERY_SECONDS) <= now
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::{Wake, chain, is_due, wake};
    use seedbank_catalog::Request;
    use seedbank_catalog::records::{Dataset, FragmentKey};
    use seedbank_formats::keys::KeyEpoch;
    use seedbank_formats::{DatasetId, PublicKey, SegmentNumber, Timestamp, VersionId};

    const ID: DatasetId = DatasetId([1; 32]);

    #[test]
    fn what_leaves_work_wakes_the_workers() {
        let remove = Request::RemoveVersion { dataset: ID, version: VersionId([2; 32]) };
        assert_eq!(wake(&remove), Wake::Collect(ID));
        assert_eq!(wake(&Request::RemoveDataset { dataset: ID }), Wake::Work);
        let key = FragmentKey { dataset: ID, segment: SegmentNumber(1), index: 0 };
        assert_eq!(wake(&Request::SetHolder { key, holding: None }), Wake::Work);
        assert_eq!(wake(&Request::Datasets {}), Wake::Nothing);
    }

    #[test]
    fn a_dataset_is_collected_once_a_day() {
        let dataset = Dataset {
            id: ID,
            name: "birds".to_owned(),
            salt: [0; 32],
            owner: PublicKey([3; 32]),
            epoch: KeyEpoch(0),
            public: false,
            policy: Vec::new(),
            created: Timestamp(1_000_000),
        };
        let day = 24 * 60 * 60;
        assert!(!is_due(&dataset, None, Timestamp(1_000_000 + day - 1)));
        assert!(is_due(&dataset, None, Timestamp(1_000_000 + day)));
        assert!(!is_due(&dataset, Some(Timestamp(1_500_000)), Timestamp(1_500_000 + day - 1)));
    }

    #[test]
    fn errors_are_told_with_their_causes() {
        let inner = std::io::Error::other("the disk is full");
        let error = crate::BindError::Disk { socket: "/s".into(), source: inner };
        assert_eq!(chain(&error), "can't listen on /s: the disk is full");
    }
}

//! What the steward counts, for Prometheus.

use crate::rounds::Step;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use seedbank_client::maintain::Paying;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// From a look at the jobs to the collection of a large dataset.
const STEP_SECONDS: [f64; 12] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    step: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    step: &'static str,
    outcome: &'static str,
}

type Amount = Gauge<u64, AtomicU64>;

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepOutcome {
    /// It did what it could.
    Done,
    /// It stopped early; its log line says why.
    Failed,
}

/// The steward's metrics.
pub(crate) struct Metrics {
    registry: Registry,
    steps: Family<OutcomeLabels, Counter>,
    step_duration: Family<StepLabels, Histogram, fn() -> Histogram>,
    /// Requests that were done for other processes.
    pub(crate) requests: Counter,
    /// Fragments that found a holder.
    pub(crate) fragments_completed: Counter,
    /// Claims that last longer now.
    pub(crate) claims_renewed: Counter,
    pub(crate) claims_compared: Counter,
    pub(crate) claims_orphaned: Counter,
    /// Fragments that their holders did not have any more.
    pub(crate) fragments_lost: Counter,
    /// Jobs that were done.
    pub(crate) jobs_done: Counter,
    /// Jobs that will be tried again.
    pub(crate) jobs_failed: Counter,
    /// Heads written since fragments had moved, or versions or refs were gone.
    pub(crate) heads_written: Counter,
    /// Segments that collections gave up.
    pub(crate) segments_collected: Counter,
    /// Segments whose live items were moved into others.
    pub(crate) segments_compacted: Counter,
    /// Providers that the books know.
    pub(crate) providers: Amount,
    /// Providers that answered the last greeting.
    pub(crate) providers_answering: Amount,
    /// Datasets in the books.
    pub(crate) datasets: Amount,
    /// Fragments that nobody holds.
    pub(crate) fragments_missing: Amount,
    /// Jobs that wait.
    pub(crate) jobs_waiting: Amount,
    /// Whether the chain answered when agreements were last looked after; 0 in a network that is not paid.
    pub(crate) chain_answers: Amount,
    agreements_open: Amount,
    agreements_stopped: Amount,
    revisions_posted: Counter,
    questions_asked: Counter,
    agreements_closed: Counter,
    payments_failed: Counter,
    pub(crate) names_published: Counter,
    pub(crate) names_failed: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("seedbank_steward"),
            steps: Family::default(),
            step_duration: Family::new_with_constructor(|| Histogram::new(STEP_SECONDS)),
            requests: Counter::default(),
            fragments_completed: Counter::default(),
            claims_renewed: Counter::default(),
            claims_compared: Counter::default(),
            claims_orphaned: Counter::default(),
            fragments_lost: Counter::default(),
            jobs_done: Counter::default(),
            jobs_failed: Counter::default(),
            heads_written: Counter::default(),
            segments_collected: Counter::default(),
            segments_compacted: Counter::default(),
            providers: Amount::default(),
            providers_answering: Amount::default(),
            datasets: Amount::default(),
            fragments_missing: Amount::default(),
            jobs_waiting: Amount::default(),
            chain_answers: Amount::default(),
            agreements_open: Amount::default(),
            agreements_stopped: Amount::default(),
            revisions_posted: Counter::default(),
            questions_asked: Counter::default(),
            agreements_closed: Counter::default(),
            payments_failed: Counter::default(),
            names_published: Counter::default(),
            names_failed: Counter::default(),
        };
        metrics.register();
        // A counter that appears with its first event hides that event from rates.
        for step in Step::ALL.map(Step::as_str) {
            for outcome in [StepOutcome::Done, StepOutcome::Failed] {
                let _ = metrics.steps.get_or_create(&OutcomeLabels { step, outcome: outcome.as_str() });
            }
            let _ = metrics.step_duration.get_or_create(&StepLabels { step });
        }
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("steps", "Background steps by how they ended", self.steps.clone());
        registry.register_with_unit(
            "step_duration",
            "Time that background steps took",
            Unit::Seconds,
            self.step_duration.clone(),
        );
        for (name, help, counter) in [
            ("requests", "Requests to the books that were done for other processes", &self.requests),
            ("fragments_completed", "Fragments that found a holder", &self.fragments_completed),
            ("claims_renewed", "Claims renewed", &self.claims_renewed),
            (
                "claims_compared",
                "Claims that providers listed and the books were asked about",
                &self.claims_compared,
            ),
            (
                "claims_orphaned",
                "Claims that no book knew, and that were left to be released",
                &self.claims_orphaned,
            ),
            ("fragments_lost", "Fragments that their holders did not have any more", &self.fragments_lost),
            ("jobs_done", "Jobs done", &self.jobs_done),
            ("jobs_failed", "Jobs that failed and will be tried again", &self.jobs_failed),
            ("heads_written", "Heads written anew without a commit", &self.heads_written),
            ("segments_collected", "Segments given up by collections", &self.segments_collected),
            (
                "segments_compacted",
                "Segments whose live items were moved into others",
                &self.segments_compacted,
            ),
            ("revisions_posted", "Revisions posted since their provider had not", &self.revisions_posted),
            ("questions_asked", "Questions about agreements asked on the chain", &self.questions_asked),
            ("agreements_closed", "Agreements that came to an end", &self.agreements_closed),
            ("payments_failed", "Agreements and lanes that could not be looked after", &self.payments_failed),
            ("names_published", "Heads that the chain was told of", &self.names_published),
            ("names_failed", "Heads that the chain could not be told of", &self.names_failed),
        ] {
            registry.register(name, help, counter.clone());
        }
        for (name, help, gauge) in [
            ("providers", "Providers known", &self.providers),
            ("providers_answering", "Providers that answered the last greeting", &self.providers_answering),
            ("datasets", "Datasets", &self.datasets),
            ("fragments_missing", "Fragments that nobody holds, up to 10000", &self.fragments_missing),
            ("jobs_waiting", "Jobs not done yet, up to 10000", &self.jobs_waiting),
            (
                "chain_answers",
                "Whether the chain answered last, in a network that is paid",
                &self.chain_answers,
            ),
            ("agreements_open", "Agreements that are paid", &self.agreements_open),
            ("agreements_stopped", "Agreements with providers that were given up", &self.agreements_stopped),
        ] {
            registry.register(name, help, gauge.clone());
        }
    }

    /// Counts a step that ended.
    pub(crate) fn stepped(&self, step: Step, outcome: StepOutcome, took: Duration) {
        let (step, outcome) = (step.as_str(), outcome.as_str());
        self.steps.get_or_create(&OutcomeLabels { step, outcome }).inc();
        self.step_duration.get_or_create(&StepLabels { step }).observe(took.as_secs_f64());
    }

    /// Counts a round of paying.
    pub(crate) fn paid(&self, paid: &Paying) {
        self.agreements_open.set(paid.open);
        self.agreements_stopped.set(paid.stopped);
        self.revisions_posted.inc_by(paid.posted);
        self.questions_asked.inc_by(paid.asked);
        self.agreements_closed.inc_by(paid.closed);
        self.payments_failed.inc_by(paid.failed);
    }

    /// Everything in the text format of OpenMetrics.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a string can't fail");
        text
    }
}

impl StepOutcome {
    const fn as_str(self) -> &'static str {
        match self {
            StepOutcome::Done => "done",
            StepOutcome::Failed => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Metrics, StepOutcome};
    use crate::rounds::Step;
    use std::time::Duration;

    #[test]
    fn every_step_is_there_from_the_start_and_counts() {
        let metrics = Metrics::new();
        metrics.stepped(Step::Work, StepOutcome::Failed, Duration::from_millis(3));
        metrics.claims_renewed.inc_by(7);
        let text = metrics.encode();
        for expected in [
            "seedbank_steward_steps_total{step=\"work\",outcome=\"failed\"} 1\n",
            "seedbank_steward_steps_total{step=\"collect\",outcome=\"done\"} 0\n",
            "seedbank_steward_step_duration_seconds_count{step=\"work\"} 1\n",
            "seedbank_steward_claims_renewed_total 7\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in {text}");
        }
    }
}

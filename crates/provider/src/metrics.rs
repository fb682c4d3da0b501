//! What the daemon counts, for Prometheus and for `status.json`.

use crate::money::{Fate, MoneyStanding};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use seedbank_protocol::messages::ProblemCode;
use seedbank_protocol::routes::RouteName;
use seedbank_store::Usage;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// From a cached hello to a whole fragment on a slow disk.
const LATENCY_SECONDS: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    route: &'static str,
    code: &'static str,
}

type Amount = Gauge<u64, AtomicU64>;

/// The daemon's metrics. Those of the store are set when they are asked for.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<OutcomeLabels, Counter>,
    latency: Family<RouteLabels, Histogram, fn() -> Histogram>,
    body_bytes_in: Family<RouteLabels, Counter>,
    body_bytes_out: Family<RouteLabels, Counter>,
    /// Open connections.
    pub(crate) connections: Amount,
    /// What the store says of itself.
    pub(crate) store: StoreMetrics,
    /// Fragments that were read and checked.
    pub(crate) scrubbed_fragments: Counter,
    /// Their bytes.
    pub(crate) scrubbed_bytes: Counter,
    /// Times that everything was checked.
    pub(crate) scrub_rounds: Counter,
    /// Fragments that were found rotten, by scrubbing or by reading.
    pub(crate) rot_found: Counter,
    /// Disk probes that failed or took too long.
    pub(crate) probes_failed: Counter,
    /// 1 while the store takes no changes.
    pub(crate) read_only: Amount,
    /// What it earns. All zero for a provider that is not paid.
    pub(crate) money: MoneyMetrics,
}

/// The money side.
#[derive(Debug, Default)]
pub(crate) struct MoneyMetrics {
    /// Epochs that were proven.
    pub(crate) proofs: Counter,
    /// Tries that brought no proof.
    pub(crate) proofs_failed: Counter,
    /// Bytes that were read for proofs.
    pub(crate) proof_bytes_read: Counter,
    /// Batches of vouchers that were cashed.
    pub(crate) redemptions: Counter,
    epochs: Family<FateLabels, Counter>,
    agreements: Amount,
    epoch: Amount,
    epoch_proven: Amount,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FateLabels {
    fate: &'static str,
}

impl MoneyMetrics {
    /// Counts an epoch that is over.
    pub(crate) fn settled(&self, fate: Fate) {
        self.epochs.get_or_create(&FateLabels { fate: fate.as_str() }).inc();
    }

    /// Takes over how things stand.
    pub(crate) fn set(&self, standing: &MoneyStanding) {
        self.agreements.set(u64::from(standing.agreements));
        self.epoch.set(u64::from(standing.epoch.0));
        self.epoch_proven.set(u64::from(standing.proven));
    }

    fn register(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            ("proofs", "Epochs proven", &self.proofs),
            ("proofs_failed", "Tries to prove that failed", &self.proofs_failed),
            ("redemptions", "Batches of vouchers cashed", &self.redemptions),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register_with_unit(
            "proof_read",
            "Read for proofs",
            Unit::Bytes,
            self.proof_bytes_read.clone(),
        );
        registry.register("epochs", "Epochs that are over, by what became of them", self.epochs.clone());
        for (name, help, gauge) in [
            ("agreements", "Open agreements", &self.agreements),
            ("epoch", "The epoch that the chain is in", &self.epoch),
            ("epoch_proven", "1 when that is proven", &self.epoch_proven),
        ] {
            registry.register(name, help, gauge.clone());
        }
        for fate in [Fate::Earned, Fate::Missed, Fate::Void] {
            // A counter that appears with its first event hides that event from rates.
            let _ = self.epochs.get_or_create(&FateLabels { fate: fate.as_str() });
        }
    }
}

/// The store's state as gauges.
#[derive(Debug, Default)]
pub(crate) struct StoreMetrics {
    capacity_bytes: Amount,
    used_bytes: Amount,
    free_bytes: Amount,
    trash_bytes: Amount,
    disk_free_bytes: Amount,
    fragments: Amount,
    claims: Amount,
    clients: Amount,
    heads: Amount,
    rotten_fragments: Amount,
    volumes: Amount,
    journal_bytes: Amount,
    uncommitted: Amount,
    commits: Amount,
}

/// Sums for `status.json`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Requests answered.
    pub requests: u64,
    /// Of these, refused or failed.
    pub refused: u64,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of answers' bodies.
    pub bytes_out: u64,
    /// Fragments that scrubbing checked.
    pub scrubbed_fragments: u64,
    /// Fragments that were found rotten.
    pub rot_found: u64,
    /// Disk probes that failed.
    pub probes_failed: u64,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As it was asked.
    Done,
    /// With a problem.
    Refused(ProblemCode),
}

const ROUTES: [RouteName; 13] = [
    RouteName::Hello,
    RouteName::PutFragment,
    RouteName::GetFragment,
    RouteName::GetProof,
    RouteName::PostClaims,
    RouteName::ListClaims,
    RouteName::PutHead,
    RouteName::GetHead,
    RouteName::GetQuote,
    RouteName::PostProposal,
    RouteName::PostRevision,
    RouteName::ListSet,
    RouteName::PostVoucher,
];

/// Requests that name no route.
const NO_ROUTE: &str = "none";

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("seedbank_provider"),
            requests: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(LATENCY_SECONDS)),
            body_bytes_in: Family::default(),
            body_bytes_out: Family::default(),
            connections: Amount::default(),
            store: StoreMetrics::default(),
            scrubbed_fragments: Counter::default(),
            scrubbed_bytes: Counter::default(),
            scrub_rounds: Counter::default(),
            rot_found: Counter::default(),
            probes_failed: Counter::default(),
            read_only: Amount::default(),
            money: MoneyMetrics::default(),
        };
        metrics.register();
        // A counter that appears with its first event hides that event from rates.
        for route in ROUTES.map(RouteName::as_str) {
            let _ = metrics.requests.get_or_create(&OutcomeLabels { route, code: "ok" });
            let _ = metrics.latency.get_or_create(&RouteLabels { route });
        }
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "requests",
            "Requests by route and by the code of their answer",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "Time from a request's headers to its answer's headers",
            Unit::Seconds,
            self.latency.clone(),
        );
        registry.register_with_unit("received", "Request bodies", Unit::Bytes, self.body_bytes_in.clone());
        registry.register_with_unit("sent", "Answer bodies", Unit::Bytes, self.body_bytes_out.clone());
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register(
            "scrubbed_fragments",
            "Fragments read and checked",
            self.scrubbed_fragments.clone(),
        );
        let bytes = Unit::Bytes;
        registry.register_with_unit("scrubbed", "Bytes read and checked", bytes, self.scrubbed_bytes.clone());
        registry.register("scrub_rounds", "Times that everything was checked", self.scrub_rounds.clone());
        registry.register("rot_found", "Fragments found not to match their id", self.rot_found.clone());
        registry.register("probes_failed", "Disk probes failed or too slow", self.probes_failed.clone());
        registry.register("read_only", "1 while no changes are taken", self.read_only.clone());
        self.store.register(registry.sub_registry_with_prefix("store"));
        self.money.register(registry.sub_registry_with_prefix("money"));
    }

    /// Counts an answered request; `None` when it named no route.
    pub(crate) fn answered(&self, route: Option<RouteName>, outcome: Outcome, took: Duration) {
        let route = route.map_or(NO_ROUTE, RouteName::as_str);
        let code = match outcome {
            Outcome::Done => "ok",
            Outcome::Refused(code) => code_label(code),
        };
        self.requests.get_or_create(&OutcomeLabels { route, code }).inc();
        self.latency.get_or_create(&RouteLabels { route }).observe(took.as_secs_f64());
    }

    /// Counts bytes of a request's body.
    pub(crate) fn received(&self, route: RouteName, bytes: usize) {
        let counter = self.body_bytes_in.get_or_create(&RouteLabels { route: route.as_str() });
        counter.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// Counts bytes of an answer's body.
    pub(crate) fn sent(&self, route: RouteName, bytes: usize) {
        let counter = self.body_bytes_out.get_or_create(&RouteLabels { route: route.as_str() });
        counter.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// Everything in the text format of OpenMetrics.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a string can't fail");
        text
    }

    /// The sums since the start.
    pub(crate) fn counters(&self) -> Counters {
        let mut counters = Counters {
            scrubbed_fragments: self.scrubbed_fragments.get(),
            rot_found: self.rot_found.get(),
            probes_failed: self.probes_failed.get(),
            ..Counters::default()
        };
        for route in ROUTES.map(RouteName::as_str).into_iter().chain([NO_ROUTE]) {
            let done = self.count(route, "ok");
            let refused: u64 = CODES.into_iter().map(|code| self.count(route, code_label(code))).sum();
            counters.requests += done + refused;
            counters.refused += refused;
            let labels = RouteLabels { route };
            counters.bytes_in += self.body_bytes_in.get(&labels).map_or(0, |counter| counter.get());
            counters.bytes_out += self.body_bytes_out.get(&labels).map_or(0, |counter| counter.get());
        }
        counters
    }

    fn count(&self, route: &'static str, code: &'static str) -> u64 {
        self.requests.get(&OutcomeLabels { route, code }).map_or(0, |counter| counter.get())
    }
}

impl StoreMetrics {
    /// Takes over what the store says.
    pub(crate) fn set(&self, usage: &Usage) {
        for (gauge, value) in [
            (&self.capacity_bytes, usage.capacity_bytes),
            (&self.used_bytes, usage.used_bytes),
            (&self.free_bytes, usage.free_bytes),
            (&self.trash_bytes, usage.trash_bytes),
            (&self.disk_free_bytes, usage.disk_free_bytes),
            (&self.fragments, usage.fragments),
            (&self.claims, usage.claims),
            (&self.clients, usage.clients),
            (&self.heads, usage.heads),
            (&self.rotten_fragments, usage.rotten_fragments),
            (&self.volumes, usage.volumes),
            (&self.journal_bytes, usage.journal_bytes),
            (&self.uncommitted, usage.uncommitted),
            (&self.commits, usage.commits),
        ] {
            gauge.set(value);
        }
    }

    fn register(&self, registry: &mut Registry) {
        for (name, help, gauge) in [
            ("capacity", "Bytes that the operator offers", &self.capacity_bytes),
            ("used", "Bytes that fragments take on the disk", &self.used_bytes),
            ("free", "Bytes that new fragments may still take", &self.free_bytes),
            ("trash", "Bytes of fragments that nobody claims any more", &self.trash_bytes),
            ("disk_free", "Bytes that are free on the disk", &self.disk_free_bytes),
            ("journal", "Bytes of the journal", &self.journal_bytes),
        ] {
            registry.register_with_unit(name, help, Unit::Bytes, gauge.clone());
        }
        for (name, help, gauge) in [
            ("fragments", "Fragments that somebody claims", &self.fragments),
            ("claims", "Claims", &self.claims),
            ("clients", "Clients with claims", &self.clients),
            ("heads", "Heads", &self.heads),
            ("rotten_fragments", "Fragments known not to match their id", &self.rotten_fragments),
            ("volumes", "Files of packed fragments", &self.volumes),
            ("uncommitted", "Changes that wait for the disk", &self.uncommitted),
            ("commits", "Batches of changes that were synced since the daemon began", &self.commits),
        ] {
            registry.register(name, help, gauge.clone());
        }
    }
}

const CODES: [ProblemCode; 19] = [
    ProblemCode::BadRequest,
    ProblemCode::PaymentRequired,
    ProblemCode::TokenRefused,
    ProblemCode::UnknownClient,
    ProblemCode::OverQuota,
    ProblemCode::NotFound,
    ProblemCode::MethodNotAllowed,
    ProblemCode::StaleHead,
    ProblemCode::Rotten,
    ProblemCode::LengthRequired,
    ProblemCode::TooLarge,
    ProblemCode::RangeOutside,
    ProblemCode::HashMismatch,
    ProblemCode::Busy,
    ProblemCode::Internal,
    ProblemCode::ReadOnly,
    ProblemCode::DiskFull,
    ProblemCode::UnknownVersion,
    ProblemCode::Other,
];

/// A code as the protocol spells it.
pub(crate) const fn code_label(code: ProblemCode) -> &'static str {
    match code {
        ProblemCode::BadRequest => "bad_request",
        ProblemCode::PaymentRequired => "payment_required",
        ProblemCode::TokenRefused => "token_refused",
        ProblemCode::UnknownClient => "unknown_client",
        ProblemCode::OverQuota => "over_quota",
        ProblemCode::NotFound => "not_found",
        ProblemCode::MethodNotAllowed => "method_not_allowed",
        ProblemCode::StaleHead => "stale_head",
        ProblemCode::Rotten => "rotten",
        ProblemCode::LengthRequired => "length_required",
        ProblemCode::TooLarge => "too_large",
        ProblemCode::RangeOutside => "range_outside",
        ProblemCode::HashMismatch => "hash_mismatch",
        ProblemCode::Busy => "busy",
        ProblemCode::Internal => "internal",
        ProblemCode::ReadOnly => "read_only",
        ProblemCode::DiskFull => "disk_full",
        ProblemCode::UnknownVersion => "unknown_version",
        ProblemCode::Other => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::{CODES, Metrics, Outcome, code_label};
    use seedbank_protocol::messages::ProblemCode;
    use seedbank_protocol::routes::RouteName;
    use std::time::Duration;

    #[test]
    fn codes_are_labelled_as_the_protocol_spells_them() {
        for code in CODES {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{}\"", code_label(code)));
        }
    }

    #[test]
    fn answers_are_counted_by_route_and_code() {
        let metrics = Metrics::new();
        let took = Duration::from_millis(3);
        metrics.answered(Some(RouteName::Hello), Outcome::Done, took);
        metrics.answered(Some(RouteName::PutFragment), Outcome::Refused(ProblemCode::OverQuota), took);
        metrics.answered(None, Outcome::Refused(ProblemCode::NotFound), took);
        metrics.received(RouteName::PutFragment, 100);
        metrics.sent(RouteName::Hello, 7);
        let counters = metrics.counters();
        assert_eq!((counters.requests, counters.refused), (3, 2));
        assert_eq!((counters.bytes_in, counters.bytes_out), (100, 7));
        let text = metrics.encode();
        for line in [
            "seedbank_provider_requests_total{route=\"put_fragment\",code=\"over_quota\"} 1",
            "seedbank_provider_request_duration_seconds_count{route=\"hello\"} 1",
            "seedbank_provider_received_bytes_total{route=\"put_fragment\"} 100",
            "seedbank_provider_store_used_bytes 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}

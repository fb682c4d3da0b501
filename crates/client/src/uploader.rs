//! Stores closed segments: code, place, record, index. Knows the dataset's scheme and who may hold its fragments.

use crate::coding::code;
use crate::dataset::{DatasetKeys, Visibility};
use crate::network::{Network, wall_clock};
use crate::push::PushError;
use crate::range_read::fragment_len;
use crate::upload;
use seedbank_catalog::index::{Index, Overlay};
use seedbank_catalog::records::{LeaseId, Provider, Work};
use seedbank_catalog::{Books, Carrier};
use seedbank_erasure::Scheme;
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::policy::{Policy, Spread as Wish};
use seedbank_formats::segment::SealedSegment;
use seedbank_formats::{FragmentId, PublicKey, SegmentNumber, Timestamp};
use seedbank_protocol::routes::Access;
use seedbank_protocol::store_exchange::{StoreFailure, StorePlan};
use seedbank_stewardship::placement::{self, Candidate, Intake, Rules, Spread};
use seedbank_stewardship::scheme::{default_receipts_min, default_scheme, explicit_scheme, segment_scheme};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The books, shared by the tasks of one push.
pub type SharedBooks = Arc<dyn Carrier + Send + Sync>;

/// A pending claim lasts as long as a provider allows: a push that takes longer renews nothing, it commits.
const PENDING_SECONDS: u64 = 24 * 60 * 60;

/// What was stored by one push so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct StoredTotals {
    pub(crate) segments: Vec<SegmentPlacement>,
    pub(crate) bytes: u64,
    pub(crate) missing: u64,
    pub(crate) failures: BTreeMap<PublicKey, StoreFailure>,
}

/// Stores segments of one dataset.
pub(crate) struct Uploader {
    pub(crate) books: SharedBooks,
    pub(crate) network: Arc<Network>,
    pub(crate) index: Arc<Index>,
    pub(crate) overlay: Arc<Mutex<Overlay>>,
    pub(crate) lease: LeaseId,
    scheme: Scheme,
    policy: Policy,
    candidates: Vec<Candidate>,
    access: Access,
    seed: u64,
    totals: Mutex<StoredTotals>,
}

impl Uploader {
    pub(crate) fn new(
        books: SharedBooks,
        network: Arc<Network>,
        index: Arc<Index>,
        lease: LeaseId,
        keys: &DatasetKeys,
        policy: Policy,
        candidates: Vec<Candidate>,
    ) -> Result<Uploader, PushError> {
        let scheme = scheme_for(&policy, &candidates)?;
        let access = match (keys.visibility, keys.reader_key()) {
            (Visibility::Private, Some(reader)) => Access::Reader(reader.public()),
            (Visibility::Public, _) | (Visibility::Private, None) => Access::Public,
        };
        Ok(Uploader {
            books,
            network,
            index,
            overlay: Arc::default(),
            lease,
            scheme,
            policy,
            candidates,
            access,
            seed: placement_seed(keys),
            totals: Mutex::default(),
        })
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    pub(crate) fn totals(&self) -> StoredTotals {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next unused segment number.
    pub(crate) fn next_number(&self) -> Result<SegmentNumber, PushError> {
        Ok(self.books.allocate_segments(self.lease, 1)?)
    }

    /// Stores a segment: when this returns it is recorded, and its items are known to later pushes.
    pub(crate) async fn store(
        self: &Arc<Self>,
        segment: SealedSegment,
    ) -> Result<SegmentPlacement, PushError> {
        let scheme = segment_scheme(self.scheme, u64::from(segment.sealed_len()));
        let coded = tokio::task::spawn_blocking(move || code(segment, scheme))
            .await
            .map_err(|_| PushError::Stopped)?;
        let coded = Arc::new(coded);
        let fragment_bytes = coded.fragments.first().map_or(0, |(_, bytes)| bytes.len() as u64);
        let candidates = self.choose(coded.number, scheme, fragment_bytes)?;
        let plan = StorePlan::fresh(scheme, &candidates, self.minimum(scheme))
            .expect("placement gives distinct candidates, and the minimum is the scheme's");
        let until = wall_clock().plus_seconds(PENDING_SECONDS);
        let placed = upload::place(&self.network, &coded, plan, self.access, until).await;
        self.remember_orphans(&placed.orphans)?;
        let outcome =
            placed.result.map_err(|failed| PushError::NotPlaced { segment: coded.number, failed })?;
        let placement = coded.placement(&outcome.holders);
        self.record(&placement, until).await?;
        let held = outcome.holders.iter().flatten().count() as u64;
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.bytes += held * fragment_len(&placement);
        totals.missing += outcome.missing.len() as u64;
        totals.failures.extend(outcome.failures);
        totals.segments.push(placement.clone());
        Ok(placement)
    }

    /// Copies of a small segment survive as many losses as its fragments would; so many may be missing at first.
    fn minimum(&self, scheme: Scheme) -> usize {
        match self.policy.minimum {
            Some(minimum) if !scheme.is_copies() => usize::from(minimum).clamp(scheme.data(), scheme.total()),
            _ => default_receipts_min(scheme),
        }
    }

    async fn record(&self, placement: &SegmentPlacement, until: Timestamp) -> Result<(), PushError> {
        let (books, lease, placement) = (Arc::clone(&self.books), self.lease, placement.clone());
        let (index, overlay) = (Arc::clone(&self.index), Arc::clone(&self.overlay));
        let recorded = tokio::task::spawn_blocking(move || {
            let number = placement.number;
            books.record_segment(lease, placement, until)?;
            // Locked throughout, so that no reader finds an item in neither of the two.
            let mut overlay = overlay.lock().unwrap_or_else(PoisonError::into_inner);
            index.add(overlay.take(number))?;
            Ok(())
        });
        recorded.await.map_err(|_| PushError::Stopped)?
    }

    fn remember_orphans(&self, orphans: &[upload::Orphan]) -> Result<(), PushError> {
        let mut by_provider: BTreeMap<PublicKey, Vec<FragmentId>> = BTreeMap::new();
        for orphan in orphans {
            by_provider.entry(orphan.provider).or_default().push(orphan.fragment);
        }
        for (provider, fragments) in by_provider {
            self.books.add_job(Work::ReleaseClaims { provider, fragments }, wall_clock())?;
        }
        Ok(())
    }

    /// Who gets which fragment: those that are down come last, so that data fragments lie where they can be read.
    fn choose(
        &self,
        segment: SegmentNumber,
        scheme: Scheme,
        fragment_bytes: u64,
    ) -> Result<Vec<PublicKey>, PushError> {
        let rules = rules(&self.policy, &self.candidates, scheme, fragment_bytes);
        let placement = placement::place(&self.candidates, &rules, segment, self.seed)?;
        let mut candidates = placement.candidates();
        let (latency, now) = (self.network.latency(), self.network.now());
        candidates.sort_by_key(|provider| latency.is_down(provider, now));
        Ok(candidates)
    }
}

/// The scheme that a policy asks for, or the default for as many providers as the policy counts as distinct.
pub(crate) fn scheme_for(policy: &Policy, candidates: &[Candidate]) -> Result<Scheme, PushError> {
    let wide = Scheme::new(1, seedbank_erasure::TOTAL_MAX).expect("1 of 255 is a scheme");
    let distinct = placement::count_distinct(candidates, &rules(policy, candidates, wide, 0))?;
    match policy.scheme {
        None => Ok(default_scheme(distinct)?),
        Some(scheme) => Ok(explicit_scheme(scheme.data(), scheme.total(), distinct)?),
    }
}

/// The policy as placement rules. What is only preferred holds when there are enough providers for it.
pub(crate) fn rules(policy: &Policy, candidates: &[Candidate], scheme: Scheme, fragment_bytes: u64) -> Rules {
    let mut rules = Rules::new(scheme.total(), fragment_bytes);
    let spread = |wish: Wish| match wish {
        Wish::Ignore | Wish::Prefer => Spread::Any,
        Wish::Require => Spread::DISTINCT,
    };
    rules.operators = spread(policy.distinct.operators);
    rules.networks = spread(policy.distinct.networks);
    rules.regions = spread(policy.distinct.regions);
    let mut prefer = |wish: Wish, set: fn(&mut Rules)| {
        if wish == Wish::Prefer {
            let mut stricter = rules.clone();
            set(&mut stricter);
            if placement::count_distinct(candidates, &stricter)
                .is_ok_and(|distinct| distinct >= scheme.total())
            {
                rules = stricter;
            }
        }
    };
    prefer(policy.distinct.operators, |rules| rules.operators = Spread::DISTINCT);
    prefer(policy.distinct.networks, |rules| rules.networks = Spread::DISTINCT);
    prefer(policy.distinct.regions, |rules| rules.regions = Spread::DISTINCT);
    rules
}

/// Secret, so that no provider can find keys that win for given segments.
pub(crate) fn placement_seed(keys: &DatasetKeys) -> u64 {
    let (_, secret) = keys.secrets().last_key_value().expect("a dataset has a secret");
    seedbank_formats::keys::placement_seed(secret)
}

/// A provider of the books as placement sees it.
pub(crate) fn candidate(provider: &Provider) -> Candidate {
    let profile = &provider.profile;
    Candidate {
        provider: profile.key,
        operator: profile.operator.clone(),
        address: ip_of(&profile.address),
        region: profile.region.clone(),
        free: profile.free_bytes,
        latency: (provider.stats.latency_us > 0).then(|| Duration::from_micros(provider.stats.latency_us)),
        intake: if profile.accepting { Intake::Open } else { Intake::Closed },
    }
}

/// The network address of a hint. A name that does not resolve counts as one network with all others of its kind.
fn ip_of(address: &str) -> IpAddr {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return address.ip();
    }
    let resolved = address.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    resolved.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip())
}

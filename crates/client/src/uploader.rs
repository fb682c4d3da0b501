//! Stores closed segments: code, place, record, index. Knows the dataset's scheme and who may hold its fragments.

use crate::buffers::Buffers;
use crate::coding::code;
use crate::dataset::{DatasetKeys, Visibility};
use crate::network::{Network, wall_clock};
use crate::push::PushError;
use crate::range_read::fragment_len;
use crate::upload;
use seedbank_catalog::index::{Index, Overlay};
use seedbank_catalog::records::{LeaseId, Provider, Work};
use seedbank_catalog::{Books, Carrier, CatalogError};
use seedbank_erasure::Scheme;
use seedbank_formats::place::Place;
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::policy::{Policy, Spread as Wish};
use seedbank_formats::segment::{SEGMENT_BYTES_MAX, SealedSegment};
use seedbank_formats::{ChunkId, FragmentId, PublicKey, SegmentNumber, Timestamp};
use seedbank_protocol::routes::{Access, PENDING_SECONDS_MAX};
use seedbank_protocol::store_exchange::{Slot, StoreFailure, StorePlan};
use seedbank_stewardship::placement::{self, Candidate, Intake, Rule, Rules, Spread};
use seedbank_stewardship::scheme::{default_receipts_min, default_scheme, explicit_scheme, segment_scheme};
use seedbank_transport::asked_now;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The books, shared by the tasks of one push.
pub type SharedBooks = Arc<dyn Carrier + Send + Sync>;

/// Asks the books where waiting holds nobody up.
pub(crate) async fn ask<T: Send + 'static>(
    books: &SharedBooks,
    question: impl FnOnce(&SharedBooks) -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, PushError> {
    let books = Arc::clone(books);
    let asked = tokio::task::spawn_blocking(move || question(&books)).await;
    Ok(asked.map_err(|_ended| PushError::Stopped)??)
}

/// The longest that a segment's fragments may be together. Two segments are under way, and a push has half a GiB.
const CODED_BYTES_MAX: usize = SEGMENT_BYTES_MAX / 2 * 5;

/// With a single holder any loss is final.
const PROVIDERS_MIN: usize = 2;

/// What was stored by one push so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct StoredTotals {
    pub(crate) segments: u64,
    pub(crate) bytes: u64,
    pub(crate) missing: u64,
    /// Claims that were left to be released.
    pub(crate) orphans: u64,
    pub(crate) holders: BTreeSet<PublicKey>,
    pub(crate) failures: BTreeMap<PublicKey, StoreFailure>,
}

/// Stores segments of one dataset.
pub(crate) struct Uploader {
    pub(crate) books: SharedBooks,
    pub(crate) network: Arc<Network>,
    pub(crate) index: Arc<Index>,
    /// Items of segments that are not recorded yet.
    pub(crate) overlay: Arc<Mutex<Overlay>>,
    pub(crate) lease: LeaseId,
    /// Memory of segments and parity.
    pub(crate) buffers: Buffers,
    scheme: Scheme,
    segment_bytes: usize,
    policy: Policy,
    /// What providers have left is counted down as they take fragments.
    candidates: Mutex<Vec<Candidate>>,
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
            buffers: Buffers::default(),
            scheme,
            segment_bytes: segment_bytes(scheme),
            policy,
            candidates: Mutex::new(candidates),
            access,
            seed: placement_seed(keys),
            totals: Mutex::default(),
        })
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The same for segments of at most so many bytes.
    pub(crate) fn with_segments_of(self, segment_bytes: usize) -> Uploader {
        Uploader { segment_bytes: self.segment_bytes.min(segment_bytes), ..self }
    }

    /// How long segments may become.
    pub(crate) fn segment_bytes(&self) -> usize {
        self.segment_bytes
    }

    /// What a segment of this length takes on all its holders together.
    pub(crate) fn stored_len(&self, sealed_len: usize) -> u64 {
        let scheme = segment_scheme(self.scheme, sealed_len as u64);
        (scheme.fragment_len(sealed_len) * scheme.total()) as u64
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
        let items = items_of(&segment);
        let buffers = self.buffers.clone();
        let coded = tokio::task::spawn_blocking(move || code(segment, scheme, &buffers))
            .await
            .map_err(|_| PushError::Stopped)?;
        let fragment_bytes = coded.fragments.first().map_or(0, |(_, bytes)| bytes.len() as u64);
        let plan = self.plan(coded.number, scheme, fragment_bytes)?;
        let until = wall_clock().plus_seconds(PENDING_SECONDS_MAX);
        let placed = upload::place(&self.network, &coded, plan, self.access, until).await;
        self.learn(&placed, fragment_bytes);
        self.release_later(placed.orphans).await?;
        let outcome =
            placed.result.map_err(|failed| PushError::NotPlaced { segment: coded.number, failed })?;
        let placement = coded.placement(&outcome.holders);
        drop(coded);
        self.record(&placement, items, until).await?;
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.segments += 1;
        totals.bytes += placement.holders().count() as u64 * fragment_len(&placement);
        totals.missing += outcome.missing.len() as u64;
        totals.holders.extend(placement.holders());
        totals.failures.extend(outcome.failures);
        Ok(placement)
    }

    /// Copies of a small segment survive as many losses as its fragments would; so many may be missing at first.
    pub(crate) fn minimum(&self, scheme: Scheme) -> usize {
        match self.policy.minimum {
            Some(minimum) if !scheme.is_copies() => usize::from(minimum).clamp(scheme.data(), scheme.total()),
            _ => default_receipts_min(scheme),
        }
    }

    /// The books first: an item in the index is one of a segment that exists. The overlay last, so that nobody finds an
    /// item in neither.
    async fn record(
        &self,
        placement: &SegmentPlacement,
        items: Vec<(ChunkId, Place)>,
        until: Timestamp,
    ) -> Result<(), PushError> {
        let (books, lease, placement) = (Arc::clone(&self.books), self.lease, placement.clone());
        let (index, overlay) = (Arc::clone(&self.index), Arc::clone(&self.overlay));
        let recorded = tokio::task::spawn_blocking(move || {
            let number = placement.number;
            books.record_segment(lease, placement, until)?;
            index.add(items)?;
            drop(overlay.lock().unwrap_or_else(PoisonError::into_inner).take(number));
            Ok(())
        });
        recorded.await.map_err(|_| PushError::Stopped)?
    }

    /// Leaves claims that nobody wants to whoever does the jobs. It leaves out fragments that the provider holds for
    /// another segment: equal fragments share a claim.
    async fn release_later(&self, orphans: Vec<upload::Orphan>) -> Result<(), PushError> {
        if orphans.is_empty() {
            return Ok(());
        }
        self.totals.lock().unwrap_or_else(PoisonError::into_inner).orphans += orphans.len() as u64;
        let asked = asked_now();
        ask(&self.books, move |books| {
            let mut by_provider: BTreeMap<PublicKey, Vec<FragmentId>> = BTreeMap::new();
            for orphan in orphans {
                by_provider.entry(orphan.provider).or_default().push(orphan.fragment);
            }
            by_provider.into_iter().try_for_each(|(provider, fragments)| {
                books.add_job(Work::ReleaseClaims { provider, fragments, asked }, wall_clock()).map(drop)
            })
        })
        .await
    }

    /// Remembers what a placement showed of the providers, for the next ones.
    fn learn(&self, placed: &upload::Placed, fragment_bytes: u64) {
        let (holders, failures) = match &placed.result {
            Ok(outcome) => (outcome.holders.clone(), &outcome.failures),
            Err(failed) => (Vec::new(), &failed.failures),
        };
        let mut candidates = self.candidates.lock().unwrap_or_else(PoisonError::into_inner);
        for candidate in candidates.iter_mut() {
            if holders.contains(&Some(candidate.provider)) {
                candidate.free = candidate.free.saturating_sub(fragment_bytes);
            }
            if placed.closed.contains(&candidate.provider) {
                candidate.intake = Intake::Closed;
            }
        }
        drop(candidates);
        let (mut latency, now) = (self.network.latency(), self.network.now());
        for (provider, failure) in failures {
            // A send that was given up has no end of its own that would have been counted.
            if *failure == StoreFailure::Slow {
                latency.record_failure(*provider, now);
            }
        }
    }

    /// Counts out providers that did not sign for what they hold.
    pub(crate) fn give_up<T>(&self, refused: &BTreeMap<PublicKey, T>, fragments: u64) {
        let mut candidates = self.candidates.lock().unwrap_or_else(PoisonError::into_inner);
        for candidate in candidates.iter_mut().filter(|candidate| refused.contains_key(&candidate.provider)) {
            candidate.intake = Intake::Closed;
        }
        drop(candidates);
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.missing += fragments;
        totals.holders.retain(|holder| !refused.contains_key(holder));
    }

    /// Who gets which fragment: those that are down come last, so that data fragments lie where they can be read. When
    /// some providers are full or closed, the last fragments are left out, down to the fewest that the policy allows:
    /// they are completed later.
    fn plan(
        &self,
        segment: SegmentNumber,
        scheme: Scheme,
        fragment_bytes: u64,
    ) -> Result<StorePlan, PushError> {
        let candidates = self.candidates.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (minimum, mut wanted) = (self.minimum(scheme), scheme.total());
        let rules = rules(&self.policy, &candidates, scheme, fragment_bytes);
        let placement = loop {
            let fewer = Rules { needed: wanted, ..rules.clone() };
            match placement::place(&candidates, &fewer, segment, self.seed) {
                Ok(placement) => break placement,
                Err(unmet)
                    if (minimum..wanted).contains(&unmet.satisfied)
                        && placement::place(&with_room(&candidates), &rules, segment, self.seed).is_ok() =>
                {
                    wanted = unmet.satisfied;
                }
                Err(unmet) => return Err(unmet.into()),
            }
        };
        let mut chosen = placement.candidates();
        let (latency, now) = (self.network.latency(), self.network.now());
        chosen.sort_by_key(|provider| latency.is_down(provider, now));
        let spares = chosen.split_off(wanted);
        let vacant = std::iter::repeat(Slot::Vacant);
        let slots = chosen.into_iter().map(Slot::Candidate).chain(vacant).take(scheme.total()).collect();
        Ok(StorePlan::new(scheme, slots, spares, minimum)
            .expect("placement gives distinct candidates, and the minimum is the scheme's"))
    }
}

/// The same providers, if all of them had room.
fn with_room(candidates: &[Candidate]) -> Vec<Candidate> {
    let roomy =
        |candidate: &Candidate| Candidate { free: u64::MAX, intake: Intake::Open, ..candidate.clone() };
    candidates.iter().map(roomy).collect()
}

/// What is in a segment, for the index.
fn items_of(segment: &SealedSegment) -> Vec<(ChunkId, Place)> {
    let number = segment.number;
    (0..).zip(&segment.items).map(|(index, item)| (item.id, Place { segment: number, index })).collect()
}

/// How long segments may become. Their fragments are in memory all at once, so a scheme with much parity gets shorter
/// ones.
fn segment_bytes(scheme: Scheme) -> usize {
    if scheme.is_copies() {
        return SEGMENT_BYTES_MAX;
    }
    (CODED_BYTES_MAX / scheme.total() * scheme.data()).min(SEGMENT_BYTES_MAX)
}

/// The scheme that a policy asks for, or the default for as many providers as the policy counts as distinct. When there
/// would be enough of them but for a rule, the error names it.
pub(crate) fn scheme_for(policy: &Policy, candidates: &[Candidate]) -> Result<Scheme, PushError> {
    let needed = policy.scheme.map_or(PROVIDERS_MIN, Scheme::total);
    let wide = Scheme::new(1, seedbank_erasure::TOTAL_MAX).expect("1 of 255 is a scheme");
    let rules = Rules { needed, ..rules(policy, candidates, wide, 0) };
    match placement::place(candidates, &rules, SegmentNumber(0), 0) {
        Err(unmet) if unmet.rule != Rule::Known => return Err(unmet.into()),
        Ok(_) | Err(_) => {}
    }
    let wider = Rules { needed: wide.total(), ..rules };
    let distinct = placement::count_distinct(candidates, &wider)?;
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

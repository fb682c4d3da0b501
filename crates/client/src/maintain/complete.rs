//! Finds holders for fragments that nobody holds: rebuilds each from others and gives it to a provider that may have it.

use super::proven::{ProvenReader, TooFew};
use super::{Maintenance, StepError};
use crate::coding::CodedSegment;
use crate::commit::CLAIM_SECONDS;
use crate::dataset::{DatasetKeys, Visibility};
use crate::network::{Tokens, wall_clock};
use crate::pay::Payer;
use crate::pay::agree::rates;
use crate::pay::budget::{Spending, monthly};
use crate::pay::lanes::LaneError;
use crate::pay::payer::{Paid, Payee};
use crate::range_read::fragment_len;
use crate::upload;
use crate::uploader::{candidate, placement_seed, rules};
use bytes::Bytes;
use seedbank_agreement::price::rate_per_epoch;
use seedbank_agreement::{Amount, Rate};
use seedbank_catalog::records::{Dataset, FragmentKey, Holding, Work};
use seedbank_catalog::{Books, CatalogError};
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::policy::{Distinct, Policy, Spread as Wish};
use seedbank_formats::{DatasetId, FragmentId, PublicKey, SegmentNumber, Timestamp};
use seedbank_protocol::messages::{ClaimAction, ClaimRequest};
use seedbank_protocol::routes::{Access, PENDING_SECONDS_MAX};
use seedbank_protocol::store_exchange::{Slot, StoreFailed, StorePlan};
use seedbank_stewardship::placement::{Candidate, Intake, Rules, Unmet, count_distinct, place};
use seedbank_transport::{ClaimOutcome, asked_now};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use tokio::task::JoinSet;

/// Rebuilt fragments in memory at once, unless a single one is longer.
const REBUILT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Rows looked at in one step.
const MISSING_MAX: u32 = 10_000;

/// Providers that stand by in case the first choice is slow or refuses.
const SPARES: usize = 4;

/// What completing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Completed {
    /// Fragments that found a holder.
    pub fragments: u64,
    /// Fragments that nobody takes at present.
    pub still_missing: u64,
    /// Segments that could not be completed, for whatever reason.
    pub failed_segments: u64,
}

/// Why a segment could not be completed. What was placed stays.
#[derive(Debug, thiserror::Error)]
pub enum CompleteError {
    /// The books say no, or can't be asked.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Complete it where the key is: without it, nobody shows the other fragments.
    #[error("there is no key for dataset {0}")]
    NoKey(DatasetId),
    /// Complete it when more providers are there.
    #[error(transparent)]
    TooFew(#[from] TooFew),
    /// The fragments that are held don't make the one that is missing: the books, or whoever coded it, are wrong. A
    /// person must look.
    #[error("fragment {index} of segment {segment} does not come out of the others")]
    Inconsistent {
        /// The segment.
        segment: SegmentNumber,
        /// The fragment.
        index: usize,
    },
    /// The policy can't be read: set it anew.
    #[error("the policy of dataset {dataset} can't be read")]
    Policy {
        /// The dataset.
        dataset: DatasetId,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// What was paid for reads can't be told, so nobody knows what the budget has left.
    #[error(transparent)]
    Lane(#[from] LaneError),
    /// The process is ending.
    #[error("the step was stopped")]
    Stopped,
}

impl From<StepError> for CompleteError {
    fn from(error: StepError) -> CompleteError {
        match error {
            StepError::Catalog(error) => CompleteError::Catalog(error),
            StepError::Stopped => CompleteError::Stopped,
        }
    }
}

/// Why one fragment found no holder. It is tried again later.
#[derive(Debug, thiserror::Error)]
enum Unplaced {
    #[error(transparent)]
    Unmet(#[from] Unmet),
    #[error(transparent)]
    Refused(#[from] StoreFailed),
}

/// One segment's completion.
struct Task {
    dataset: DatasetId,
    policy: Policy,
    placement: Arc<SegmentPlacement>,
    /// Who holds what by now.
    holders: Vec<Option<PublicKey>>,
    candidates: Vec<Candidate>,
    /// What a fragment costs a month at each that wants money.
    rents: BTreeMap<PublicKey, Amount>,
    access: Access,
    seed: u64,
    now: Timestamp,
}

/// A dataset's policy as the books keep it; the default when none was set.
///
/// # Errors
/// When it is none.
pub(super) fn policy_of(dataset: &Dataset) -> Result<Policy, serde_json::Error> {
    if dataset.policy.is_empty() { Ok(Policy::default()) } else { serde_json::from_slice(&dataset.policy) }
}

/// Who may read a dataset's fragments beside its owner.
fn access(keys: &DatasetKeys) -> Access {
    match (keys.visibility, keys.reader_key()) {
        (Visibility::Private, Some(reader)) => Access::Reader(reader.public()),
        (Visibility::Public, _) | (Visibility::Private, None) => Access::Public,
    }
}

impl Maintenance {
    /// Completes up to `segments_max` segments, beginning elsewhere each time, so that those that can't be completed
    /// hold no others up.
    ///
    /// # Errors
    /// [`StepError`]. A segment that can't be completed is no error.
    pub async fn complete_missing(
        &self,
        segments_max: usize,
        now: Timestamp,
    ) -> Result<Completed, StepError> {
        let missing = self.ask::<_, StepError>(|books| books.missing_fragments(None, MISSING_MAX)).await?;
        let segments: BTreeSet<_> =
            missing.iter().map(|missing| (missing.key.dataset, missing.key.segment)).collect();
        let segments = rotated(segments.into_iter().collect(), now, segments_max);
        let mut total = Completed::default();
        if !segments.is_empty() {
            self.learn_addresses::<StepError>().await?;
        }
        for (dataset, segment) in segments {
            match self.complete_segment(dataset, segment, now).await {
                Ok(completed) => {
                    total.fragments += completed.fragments;
                    total.still_missing += completed.still_missing;
                    total.failed_segments += u64::from(completed.still_missing > 0);
                }
                Err(CompleteError::Stopped) => return Err(StepError::Stopped),
                Err(CompleteError::Catalog(error @ CatalogError::Unreachable { .. })) => {
                    return Err(error.into());
                }
                Err(error) => {
                    tracing::warn!(%dataset, %segment, %error, "segment not completed");
                    total.failed_segments += 1;
                }
            }
        }
        Ok(total)
    }

    /// Finds holders for all fragments of one segment that have none.
    ///
    /// # Errors
    /// [`CompleteError`].
    pub async fn complete_segment(
        &self,
        dataset: DatasetId,
        segment: SegmentNumber,
        now: Timestamp,
    ) -> Result<Completed, CompleteError> {
        let _turn = self.completions.acquire().await.map_err(|_closed| CompleteError::Stopped)?;
        let (record, keys) = self.dataset::<CompleteError>(dataset).await?;
        let keys = keys.ok_or(CompleteError::NoKey(dataset))?;
        let ask = move |books: &crate::SharedBooks| {
            let placement = books.placements(dataset, vec![segment])?.pop();
            let gone = || CatalogError::SegmentGone { segments: vec![segment] };
            // Names are resolved here, where waiting holds nobody up.
            let candidates: Vec<Candidate> = books.providers()?.iter().map(candidate).collect();
            Ok((placement.ok_or_else(gone)?, candidates))
        };
        let (placement, mut candidates) = self.ask::<_, CompleteError>(ask).await?;
        let placement = Arc::new(placement);
        let rents = self.affordable(&mut candidates, &placement).await?;
        let policy = policy_of(&record).map_err(|source| CompleteError::Policy { dataset, source })?;
        let holders = placement.fragments.iter().map(|fragment| fragment.holder).collect();
        let (access, seed) = (access(&keys), placement_seed(&keys));
        let mut task = Task {
            dataset,
            policy,
            placement: Arc::clone(&placement),
            holders,
            candidates,
            rents,
            access,
            seed,
            now,
        };
        let tokens = Tokens::new(keys.reader_key(), self.network.identity());
        let mut reader = ProvenReader::new(&self.network, &tokens, placement);
        let completed = self.complete(&mut task, &mut reader).await;
        self.note_lost(&task, reader.lost()).await?;
        completed
    }

    /// Asks those that could take a fragment what they want for it, where they are paid, and closes whoever asks too much, is
    /// not to be believed or does not fit the budget: what they took, nobody could sign for. Says what the others want a month.
    async fn affordable(
        &self,
        candidates: &mut [Candidate],
        placement: &SegmentPlacement,
    ) -> Result<BTreeMap<PublicKey, Amount>, CompleteError> {
        let mut rents = BTreeMap::new();
        let Some(payer) = self.network.payer() else { return Ok(rents) };
        let mut asked = JoinSet::new();
        let holders: Vec<PublicKey> = placement.holders().collect();
        let may_take = |candidate: &&Candidate| {
            candidate.intake == Intake::Open && !holders.contains(&candidate.provider)
        };
        for candidate in candidates.iter().filter(may_take) {
            let (payer, network, provider) =
                (Arc::clone(payer), Arc::clone(&self.network), candidate.provider);
            asked.spawn(async move { (provider, payer.payee(&network, &provider).await) });
        }
        let known = self.ask::<_, CompleteError>(|books| books.agreements()).await?;
        let rates: Vec<Rate> = rates(&known, payer).into_values().collect();
        let (own, now) = (Arc::clone(payer), wall_clock());
        let spending = tokio::task::spawn_blocking(move || own.spending(rates, now)).await;
        let mut spending = spending.map_err(|_ended| CompleteError::Stopped)??;
        let unsigned = *self.unsigned_rent.lock().unwrap_or_else(PoisonError::into_inner);
        spending.rent = spending.rent.saturating_add(unsigned);
        let missing = placement.fragments.len() - holders.len();
        while let Some(answer) = asked.join_next().await {
            let (provider, answer) = answer.map_err(|_ended| CompleteError::Stopped)?;
            let reason = match answer {
                Ok(Paid::Free) => continue,
                Ok(Paid::By(payee)) => {
                    match rent_within(payer, &payee, fragment_len(placement), missing, &spending) {
                        Ok(rent) => {
                            rents.insert(provider, rent);
                            continue;
                        }
                        Err(reason) => reason,
                    }
                }
                Err(error) => error.to_string(),
            };
            tracing::info!(%provider, %reason, "provider gets no fragment");
            self.network.refused(&provider, reason);
            for candidate in candidates.iter_mut().filter(|candidate| candidate.provider == provider) {
                candidate.intake = Intake::Closed;
            }
        }
        Ok(rents)
    }

    async fn complete(&self, task: &mut Task, reader: &mut ProvenReader) -> Result<Completed, CompleteError> {
        let missing: Vec<usize> =
            (0..task.holders.len()).filter(|index| task.holders[*index].is_none()).collect();
        let at_once = REBUILT_BYTES_MAX / fragment_len(&task.placement).max(1);
        let at_once = usize::try_from(at_once).expect("at most 64 Mi fragments of a byte").max(1);
        let mut completed = Completed::default();
        for some in missing.chunks(at_once) {
            let fragments = reader.fragments(some).await?;
            for (index, bytes) in some.iter().copied().zip(fragments) {
                let bytes = self.check(task, index, bytes).await?;
                match self.place(task, index, bytes).await? {
                    Ok(provider) => {
                        task.holders[index] = Some(provider);
                        completed.fragments += 1;
                    }
                    Err(reason) => {
                        tracing::info!(segment = %task.placement.number, index, %reason, "fragment found no holder");
                        completed.still_missing += 1;
                    }
                }
            }
        }
        Ok(completed)
    }

    /// The rebuilt bytes, if they are the fragment's.
    async fn check(&self, task: &Task, index: usize, bytes: Vec<u8>) -> Result<Bytes, CompleteError> {
        let (segment, wanted) = (task.placement.number, task.placement.fragments[index].id);
        let checked = tokio::task::spawn_blocking(move || {
            (FragmentId::of(&bytes) == wanted).then(|| Bytes::from(bytes))
        });
        checked
            .await
            .map_err(|_ended| CompleteError::Stopped)?
            .ok_or(CompleteError::Inconsistent { segment, index })
    }

    /// Gives one fragment to a provider and tells the books.
    async fn place(
        &self,
        task: &Task,
        index: usize,
        bytes: Bytes,
    ) -> Result<Result<PublicKey, Unplaced>, CompleteError> {
        let spares = match task.takers() {
            Ok(takers) => takers,
            Err(unmet) => return Ok(Err(unmet.into())),
        };
        let until = task.now.plus_seconds(PENDING_SECONDS_MAX);
        let id = task.placement.fragments[index].id;
        let placed =
            upload::place(&self.network, &task.coded(bytes), task.plan(index, spares), task.access, until)
                .await;
        for orphan in placed.orphans {
            self.release_later(orphan.provider, orphan.fragment, task.now).await?;
        }
        let provider = match placed.result.map(|outcome| outcome.holders[index]) {
            Ok(provider) => provider.expect("the plan asked for every fragment"),
            Err(failed) => return Ok(Err(failed.into())),
        };
        if let Some(rent) = task.rents.get(&provider) {
            let mut unsigned = self.unsigned_rent.lock().unwrap_or_else(PoisonError::into_inner);
            *unsigned = unsigned.saturating_add(*rent);
        }
        let until = self.confirm(provider, id, task.now).await.unwrap_or(until);
        let key = task.key(index);
        let holding = Holding { provider, until };
        let told = self.ask::<_, CompleteError>(move |books| books.set_holder(key, Some(holding))).await;
        match told {
            // Somebody else was faster.
            Ok(Some(before)) if before != provider => self.release_later(before, id, task.now).await?,
            Ok(_) => {}
            Err(error) => {
                // It was collected meanwhile: nobody needs the fragment.
                self.release_later(provider, id, task.now).await?;
                return Err(error);
            }
        }
        Ok(Ok(provider))
    }

    /// Makes a pending claim a lasting one. If that fails, the renewal of claims does it.
    async fn confirm(&self, provider: PublicKey, fragment: FragmentId, now: Timestamp) -> Option<Timestamp> {
        let action = ClaimAction::Renew(now.plus_seconds(CLAIM_SECONDS));
        match self.network.claims(&provider, &[ClaimRequest { fragment, action }]).await.ok()?.pop()? {
            ClaimOutcome::Renewed(receipt) => Some(receipt.until),
            ClaimOutcome::Released | ClaimOutcome::Kept | ClaimOutcome::Absent | ClaimOutcome::Rotten => None,
        }
    }

    async fn release_later(
        &self,
        provider: PublicKey,
        fragment: FragmentId,
        now: Timestamp,
    ) -> Result<(), CompleteError> {
        let work = Work::ReleaseClaims { provider, fragments: vec![fragment], asked: asked_now() };
        self.ask::<_, CompleteError>(move |books| books.add_job(work, now).map(drop)).await
    }

    /// Fragments that their holders say, signed, not to have.
    async fn note_lost(&self, task: &Task, lost: &[(usize, PublicKey)]) -> Result<(), CompleteError> {
        let keys: Vec<FragmentKey> = lost.iter().map(|(index, _)| task.key(*index)).collect();
        if keys.is_empty() {
            return Ok(());
        }
        tracing::warn!(segment = %task.placement.number, fragments = keys.len(), "holders lost fragments");
        self.ask::<_, CompleteError>(move |books| {
            keys.into_iter().try_for_each(|key| books.set_holder(key, None).map(drop))
        })
        .await
    }
}

/// What a fragment costs a month there, if the budget has room for all that are missing.
fn rent_within(
    payer: &Payer,
    payee: &Payee,
    bytes: u64,
    missing: usize,
    spending: &Spending,
) -> Result<Amount, String> {
    let epoch_seconds = payer.chain().place().clock.epoch_seconds;
    let rate = rate_per_epoch(bytes, payee.prices.rent_per_gib_month, epoch_seconds);
    let rent = monthly(rate.map_err(|error| error.to_string())?, epoch_seconds);
    let missing = u32::try_from(missing).unwrap_or(u32::MAX);
    let more = rent.checked_mul(missing).unwrap_or(Amount::MAX);
    payer.limits().allow(spending, more).map_err(|error| error.to_string())?;
    Ok(rent)
}

impl Task {
    fn key(&self, index: usize) -> FragmentKey {
        let index = u8::try_from(index).expect("a scheme has at most 255 fragments");
        FragmentKey { dataset: self.dataset, segment: self.placement.number, index }
    }

    /// The segment as the upload takes it. Only the one fragment is ever sent, since the plan has the others held.
    fn coded(&self, bytes: Bytes) -> CodedSegment {
        let placement = &self.placement;
        CodedSegment {
            number: placement.number,
            epoch: placement.epoch,
            scheme: placement.scheme,
            sealed_len: placement.sealed_len,
            footer_len: placement.footer_len,
            fragments: placement.fragments.iter().map(|fragment| (fragment.id, bytes.clone())).collect(),
        }
    }

    /// A plan that places this fragment on one of `spares`, and no other.
    fn plan(&self, index: usize, spares: Vec<PublicKey>) -> StorePlan {
        let slots = (0u8..).zip(&self.holders).map(|(other, holder)| match holder {
            Some(holder) => Slot::Held(*holder),
            None if usize::from(other) == index => Slot::Vacant,
            None => Slot::Held(nobody(other)),
        });
        let scheme = self.placement.scheme;
        StorePlan::new(scheme, slots.collect(), spares, scheme.total())
            .expect("holders are distinct, spares are no holders, and all fragments are the most that a minimum can be")
    }

    /// Providers that may take one more fragment beside those that have one, the preferred first.
    fn takers(&self) -> Result<Vec<PublicKey>, Unmet> {
        let scheme = self.placement.scheme;
        let fragment_bytes = fragment_len(&self.placement);
        let strict = rules(&self.policy, &self.candidates, scheme, fragment_bytes);
        let loose = rules(&required_only(&self.policy), &self.candidates, scheme, fragment_bytes);
        let place_by = |rules: &Rules| {
            let fitting: Vec<Candidate> =
                self.candidates.iter().filter(|candidate| self.adds(candidate, rules)).cloned().collect();
            let rules = Rules {
                needed: 1,
                spares: SPARES,
                providers_excluded: self.holders.iter().flatten().copied().collect(),
                ..rules.clone()
            };
            place(&fitting, &rules, self.placement.number, self.seed).map(|placement| placement.candidates())
        };
        place_by(&strict).or_else(|_unmet| place_by(&loose))
    }

    /// Whether a provider makes the holders more by one, as the rules count distinct ones.
    fn adds(&self, candidate: &Candidate, rules: &Rules) -> bool {
        // What they have free, and whether they take new fragments, is not asked of those that hold one already.
        let unlimited =
            |candidate: &Candidate| Candidate { free: u64::MAX, intake: Intake::Open, ..candidate.clone() };
        let holds = |candidate: &&Candidate| self.holders.contains(&Some(candidate.provider));
        let mut group: Vec<Candidate> = self.candidates.iter().filter(holds).map(unlimited).collect();
        let count = |group: &[Candidate]| {
            // An error says that nobody counts at all.
            count_distinct(group, &Rules { needed: group.len(), ..rules.clone() }).unwrap_or(0)
        };
        let before = count(&group);
        group.push(unlimited(candidate));
        count(&group) > before
    }
}

/// The policy without what is only preferred.
fn required_only(policy: &Policy) -> Policy {
    let required = |wish: Wish| if wish == Wish::Prefer { Wish::Ignore } else { wish };
    let Distinct { operators, networks, regions } = policy.distinct;
    let distinct =
        Distinct { operators: required(operators), networks: required(networks), regions: required(regions) };
    Policy { distinct, ..policy.clone() }
}

/// Stands for the holder of a fragment that is left for later. Nobody can have made up a secret to this key.
fn nobody(index: u8) -> PublicKey {
    let mut key = [0xff; 32];
    key[0] = index;
    PublicKey(key)
}

/// The first `count` from a position that moves with time.
fn rotated<T>(mut items: Vec<T>, now: Timestamp, count: usize) -> Vec<T> {
    if !items.is_empty() {
        let start = usize::try_from(now.0 % items.len() as u64).expect("below a length");
        items.rotate_left(start);
    }
    items.truncate(count);
    items
}

#[cfg(test)]
mod tests {
    use super::{Task, nobody, rotated};
    use seedbank_erasure::Scheme;
    use seedbank_formats::keys::KeyEpoch;
    use seedbank_formats::placement::{FragmentPlacement, SegmentPlacement};
    use seedbank_formats::policy::{Distinct, Policy, Spread as Wish};
    use seedbank_formats::{DatasetId, FragmentId, PublicKey, SegmentNumber, Timestamp};
    use seedbank_protocol::routes::Access;
    use seedbank_protocol::store_exchange::{StoreExchange, StoreOutput, StorePolicy};
    use seedbank_stewardship::placement::{Candidate, Intake};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn key(provider: u8) -> PublicKey {
        PublicKey([provider; 32])
    }

    fn candidate(provider: u8, operator: &str) -> Candidate {
        Candidate {
            provider: key(provider),
            operator: operator.to_owned(),
            address: "127.0.0.1".parse().unwrap(),
            region: "here".to_owned(),
            free: 1 << 40,
            latency: None,
            intake: Intake::Open,
        }
    }

    /// A segment of 2 + 2 fragments.
    fn task(holders: [Option<u8>; 4], candidates: Vec<Candidate>, policy: Policy) -> Task {
        let holders: Vec<_> = holders.into_iter().map(|holder| holder.map(key)).collect();
        let fragment =
            |holder: &Option<PublicKey>| FragmentPlacement { id: FragmentId([1; 32]), holder: *holder };
        let placement = SegmentPlacement {
            number: SegmentNumber(3),
            epoch: KeyEpoch(0),
            scheme: Scheme::new(2, 4).unwrap(),
            sealed_len: 1000,
            footer_len: 10,
            fragments: holders.iter().map(fragment).collect(),
        };
        Task {
            dataset: DatasetId([1; 32]),
            policy,
            placement: Arc::new(placement),
            holders,
            candidates,
            rents: BTreeMap::new(),
            access: Access::Public,
            seed: 1,
            now: Timestamp(7),
        }
    }

    fn policy(operators: Wish) -> Policy {
        let distinct = Distinct { operators, networks: Wish::Ignore, regions: Wish::Ignore };
        Policy { distinct, ..Policy::default() }
    }

    fn providers() -> Vec<Candidate> {
        vec![
            candidate(1, "ada"),
            candidate(2, "bob"),
            candidate(3, "cy"),
            candidate(4, "ada"),
            candidate(5, "dan"),
        ]
    }

    #[test]
    fn takers_differ_from_the_holders_as_the_policy_asks() {
        let required = task([Some(1), Some(2), Some(3), None], providers(), policy(Wish::Require));
        assert_eq!(required.takers().unwrap(), [key(5)]);
        let ignored = task([Some(1), Some(2), Some(3), None], providers(), policy(Wish::Ignore));
        let mut takers = ignored.takers().unwrap();
        takers.sort();
        assert_eq!(takers, [key(4), key(5)]);
    }

    #[test]
    fn what_is_only_preferred_gives_way_when_nobody_is_left() {
        let holders = [Some(1), Some(2), Some(5), None];
        let candidates =
            vec![candidate(1, "ada"), candidate(2, "bob"), candidate(4, "ada"), candidate(5, "dan")];
        assert_eq!(task(holders, candidates.clone(), policy(Wish::Prefer)).takers().unwrap(), [key(4)]);
        assert!(task(holders, candidates, policy(Wish::Require)).takers().is_err());
    }

    #[test]
    fn holders_that_break_the_policy_already_don_t_keep_others_out() {
        let task = task([Some(1), Some(4), None, None], providers(), policy(Wish::Require));
        let mut takers = task.takers().unwrap();
        takers.sort();
        assert_eq!(takers, [key(2), key(3), key(5)]);
    }

    #[test]
    fn one_fragment_is_sent_and_the_rest_is_left_alone() {
        let task = task([Some(1), None, None, Some(4)], providers(), policy(Wish::Require));
        let plan = task.plan(1, vec![key(5), key(2)]);
        let mut exchange = StoreExchange::new(plan, StorePolicy::for_fragment(64), Default::default());
        let send = StoreOutput::Send { index: 1, provider: key(5), attempt: 0 };
        assert_eq!(exchange.poll_output(), Some(send));
        assert_eq!(exchange.poll_output(), None);
        exchange.handle_receipt(1, key(5), Default::default());
        match exchange.poll_output() {
            Some(StoreOutput::Done(outcome)) => assert_eq!(outcome.holders[1], Some(key(5))),
            other => panic!("{other:?}"),
        }
        assert_ne!(nobody(1), nobody(2));
    }

    #[test]
    fn every_segment_gets_its_turn() {
        let first: Vec<_> = (0..5).map(|now| rotated(vec![0, 1, 2, 3, 4], Timestamp(now), 1)[0]).collect();
        assert_eq!(first, [0, 1, 2, 3, 4]);
        assert!(rotated(Vec::<u8>::new(), Timestamp(3), 5).is_empty());
        assert_eq!(rotated(vec![1, 2], Timestamp(3), 5), [2, 1]);
    }
}

//! One segment's placement on simulated providers, against what a naive model says must come out.

use super::{
    Slot, StoreExchange, StoreFailed, StoreFailure, StoreOutcome, StoreOutput, StorePlan, StorePlanError,
    StorePolicy,
};
use crate::moment::Moment;
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use seedbank_erasure::Scheme;
use seedbank_formats::PublicKey;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Debug, Clone, Copy)]
enum Conduct {
    Stores { millis: u64 },
    Fails { millis: u64, failure: StoreFailure },
    Stalls,
}

#[derive(Debug, Clone, Copy)]
struct Provider {
    conduct: Conduct,
    /// Its answer comes although the request was cancelled.
    deaf: bool,
    /// Its answer comes twice.
    twice: bool,
}

const GOOD: Provider = Provider { conduct: Conduct::Stores { millis: 10 }, deaf: false, twice: false };
const STALLED: Provider = Provider { conduct: Conduct::Stalls, deaf: false, twice: false };

fn failing(failure: StoreFailure) -> Provider {
    Provider { conduct: Conduct::Fails { millis: 5, failure }, deaf: false, twice: false }
}

fn key(number: usize) -> PublicKey {
    PublicKey([u8::try_from(number).unwrap(); 32])
}

fn number(key: PublicKey) -> usize {
    usize::from(key.0[0])
}

fn policy() -> StorePolicy {
    StorePolicy { hedge_cap: Duration::from_secs(2), ..StorePolicy::for_fragment(64 * 1024) }
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Receipt { index: usize, provider: PublicKey },
    Failure { index: usize, provider: PublicKey, failure: StoreFailure },
}

/// Carries out outputs on simulated providers. A provider counts as holding a fragment from the moment it is sent,
/// unless it said no: bytes on their way are an orphan if nobody releases them.
struct World {
    providers: Vec<Provider>,
    exchange: StoreExchange,
    now: Moment,
    events: BTreeMap<(Moment, usize), Event>,
    events_made: usize,
    cancelled: BTreeSet<(usize, PublicKey)>,
    sent: BTreeSet<(usize, PublicKey)>,
    claims: BTreeSet<(usize, PublicKey)>,
    result: Option<Result<StoreOutcome, StoreFailed>>,
    decided_at: Moment,
}

impl World {
    fn run(plan: StorePlan, providers: &[Provider]) -> World {
        let mut world = World {
            providers: providers.to_vec(),
            exchange: StoreExchange::new(plan, policy(), Moment::START),
            now: Moment::START,
            events: BTreeMap::new(),
            events_made: 0,
            cancelled: BTreeSet::new(),
            sent: BTreeSet::new(),
            claims: BTreeSet::new(),
            result: None,
            decided_at: Moment::START,
        };
        world.apply_outputs();
        while let Some(at) = world.next_moment() {
            assert!(at >= world.now, "a timeout lies in the past");
            world.now = at;
            world.step();
            world.apply_outputs();
        }
        world
    }

    fn next_moment(&self) -> Option<Moment> {
        let event = self.events.keys().next().map(|(at, _)| *at);
        event.into_iter().chain(self.exchange.poll_timeout()).min()
    }

    fn step(&mut self) {
        let due = self.events.first_entry().filter(|entry| entry.key().0 <= self.now);
        match due.map(|entry| entry.remove()) {
            None => self.exchange.handle_timeout(self.now),
            Some(Event::Receipt { index, provider }) => {
                let deaf = self.providers[number(provider)].deaf;
                if deaf || !self.cancelled.contains(&(index, provider)) {
                    self.claims.insert((index, provider));
                    self.exchange.handle_receipt(index, provider, self.now);
                }
            }
            Some(Event::Failure { index, provider, failure }) => {
                if matches!(failure, StoreFailure::Refused | StoreFailure::Unreachable) {
                    self.claims.remove(&(index, provider));
                }
                self.exchange.handle_failure(index, provider, failure, self.now);
            }
        }
    }

    fn schedule(&mut self, millis: u64, event: Event) {
        self.events_made += 1;
        self.events.insert((self.now.plus(Duration::from_millis(millis)), self.events_made), event);
    }

    fn apply_outputs(&mut self) {
        while let Some(output) = self.exchange.poll_output() {
            match output {
                StoreOutput::Send { index, provider, .. } => self.send(index, provider),
                StoreOutput::Cancel { index, provider } => {
                    assert!(self.sent.contains(&(index, provider)));
                    self.cancelled.insert((index, provider));
                }
                StoreOutput::Release { index, provider } => {
                    assert!(self.sent.contains(&(index, provider)));
                    self.claims.remove(&(index, provider));
                }
                StoreOutput::Done(outcome) => self.decide(Ok(outcome)),
                StoreOutput::Failed(failed) => self.decide(Err(failed)),
            }
        }
    }

    fn decide(&mut self, result: Result<StoreOutcome, StoreFailed>) {
        assert!(self.result.is_none(), "two results");
        self.result = Some(result);
        self.decided_at = self.now;
    }

    fn send(&mut self, index: usize, provider: PublicKey) {
        assert!(self.result.is_none(), "sent after the end");
        assert!(self.sent.insert((index, provider)), "sent twice");
        self.claims.insert((index, provider));
        let Provider { conduct, twice, .. } = self.providers[number(provider)];
        let receipt = Event::Receipt { index, provider };
        match conduct {
            Conduct::Stores { millis } => {
                self.schedule(millis, receipt);
                if twice {
                    self.schedule(millis + 700, receipt);
                }
            }
            Conduct::Fails { millis, failure } => {
                self.schedule(millis, Event::Failure { index, provider, failure });
                if twice && failure == StoreFailure::Slow {
                    self.schedule(millis + 300, receipt);
                }
            }
            Conduct::Stalls => {}
        }
    }

    /// What must hold whatever the providers did.
    fn check(&self, scheme: Scheme, minimum: usize) {
        match self.result.as_ref().expect("no result") {
            Ok(outcome) => {
                let holders = &outcome.holders;
                let held: BTreeSet<(usize, PublicKey)> = holders
                    .iter()
                    .enumerate()
                    .filter_map(|(index, holder)| Some((index, (*holder)?)))
                    .collect();
                assert_eq!(self.claims, held, "an orphan, or a holder without a claim");
                let distinct: BTreeSet<PublicKey> = held.iter().map(|(_, holder)| *holder).collect();
                assert_eq!(distinct.len(), held.len(), "one provider holds two");
                assert!(held.len() >= minimum);
                if !scheme.is_copies() {
                    assert!(holders[..scheme.data()].iter().all(Option::is_some));
                }
                let missing: Vec<usize> =
                    (0..holders.len()).filter(|index| holders[*index].is_none()).collect();
                assert_eq!(outcome.missing, missing);
            }
            Err(_) => assert!(self.claims.is_empty(), "an orphan of a failed segment"),
        }
    }

    fn outcome(&self) -> &StoreOutcome {
        self.result.as_ref().unwrap().as_ref().unwrap()
    }
}

fn run(data: usize, total: usize, minimum: usize, providers: &[Provider]) -> World {
    let scheme = Scheme::new(data, total).unwrap();
    let candidates: Vec<PublicKey> = (0..providers.len()).map(key).collect();
    let world = World::run(StorePlan::fresh(scheme, &candidates, minimum).unwrap(), providers);
    world.check(scheme, minimum);
    world
}

#[test]
fn healthy_providers_get_one_fragment_each_and_spares_none() {
    let world = run(4, 8, 6, &[GOOD; 10]);
    let expected: Vec<_> = (0..8).map(|index| Some(key(index))).collect();
    assert_eq!(world.outcome().holders, expected);
    assert_eq!((world.sent.len(), world.outcome().failures.len()), (8, 0));
}

#[test]
fn ten_providers_with_one_stalled_hold_all_eight_indices_and_no_orphan() {
    for stalled in 0..10 {
        let mut providers = [GOOD; 10];
        providers[stalled] = STALLED;
        let world = run(4, 8, 6, &providers);
        assert!(world.outcome().missing.is_empty());
        assert!(world.decided_at <= Moment(Duration::from_millis(220)), "hedged after the floor");
        let slow: Vec<_> = (stalled < 8).then(|| (key(stalled), StoreFailure::Slow)).into_iter().collect();
        assert_eq!(world.outcome().failures, slow);
    }
}

#[test]
fn late_receipt_of_a_hedged_provider_is_released() {
    let mut providers = [GOOD; 9];
    providers[2] = Provider { conduct: Conduct::Stores { millis: 900 }, deaf: true, twice: true };
    let world = run(4, 8, 8, &providers);
    assert_eq!(world.outcome().holders[2], Some(key(8)));
}

#[test]
fn connection_that_breaks_after_its_receipt_takes_nothing_back() {
    let candidates: Vec<PublicKey> = (0..4).map(key).collect();
    let plan = StorePlan::fresh(Scheme::new(2, 4).unwrap(), &candidates, 4).unwrap();
    let mut exchange = StoreExchange::new(plan, policy(), Moment::START);
    for (index, provider) in candidates.iter().enumerate() {
        exchange.handle_receipt(index, *provider, Moment::START);
        exchange.handle_failure(index, *provider, StoreFailure::Interrupted, Moment::START);
    }
    let outputs: Vec<StoreOutput> = std::iter::from_fn(|| exchange.poll_output()).collect();
    let done = outputs.iter().find_map(|output| match output {
        StoreOutput::Done(outcome) => Some(outcome),
        _ => None,
    });
    let done = done.expect("all of them hold");
    assert_eq!(done.holders, candidates.into_iter().map(Some).collect::<Vec<_>>());
    assert!(done.failures.is_empty());
    assert!(!outputs.iter().any(|output| matches!(output, StoreOutput::Release { .. })), "{outputs:?}");
}

#[test]
fn slow_provider_that_beats_its_hedge_keeps_the_index() {
    let mut providers = [GOOD; 9];
    providers[2] = Provider { conduct: Conduct::Stores { millis: 250 }, deaf: false, twice: false };
    providers[8] = Provider { conduct: Conduct::Stores { millis: 400 }, deaf: true, twice: false };
    let world = run(4, 8, 8, &providers);
    assert_eq!(world.outcome().holders[2], Some(key(2)));
    assert!(world.outcome().failures.is_empty(), "the spare came too late, but was not slow");
}

#[test]
fn without_spares_a_data_index_takes_the_holder_of_a_parity_index() {
    for bad in [STALLED, failing(StoreFailure::Unreachable), failing(StoreFailure::Interrupted)] {
        let mut providers = [GOOD; 8];
        providers[1] = bad;
        let world = run(4, 8, 6, &providers);
        let outcome = world.outcome();
        let [parity] = outcome.missing[..] else { panic!("one index is missing") };
        assert!(parity >= 4);
        assert_eq!(outcome.holders[1], Some(key(parity)));
        assert!(world.decided_at < Moment(Duration::from_secs(1)), "nothing is left to wait for");
    }
}

#[test]
fn stalled_parity_without_spares_is_given_up_once_there_is_enough() {
    let mut providers = [GOOD; 8];
    providers[6] = STALLED;
    let world = run(4, 8, 6, &providers);
    assert_eq!(world.outcome().missing, [6]);
    assert_eq!(world.decided_at, Moment(policy().straggler_floor));
}

/// The time that a slow link would need for a large fragment is half a minute: too long to wait for one that hangs
/// beside others that are quick.
#[test]
fn a_straggler_beside_quick_providers_is_given_up_soon_however_large_the_fragment() {
    let policy = StorePolicy::for_fragment(16 << 20);
    assert_eq!(policy.straggler_delay(Some(Duration::from_millis(100))), Duration::from_secs(2));
    assert_eq!(policy.straggler_delay(Some(Duration::from_secs(5))), Duration::from_secs(50));
    assert_eq!(policy.straggler_delay(None), policy.deadline);
}

#[test]
fn too_few_providers_fail_at_once_when_they_refuse_and_at_the_deadline_when_they_stall() {
    let mut providers = [failing(StoreFailure::Refused); 8];
    providers[..5].fill(GOOD);
    let world = run(4, 8, 6, &providers);
    let failed = world.result.as_ref().unwrap().as_ref().unwrap_err();
    assert_eq!((failed.minimum, failed.failures.len()), (6, 3), "those cut off were not slow");
    assert_eq!(world.decided_at, Moment(Duration::from_millis(5)));

    providers[5..].fill(STALLED);
    let world = run(4, 8, 6, &providers);
    assert!(world.result.as_ref().unwrap().is_err());
    assert_eq!(world.decided_at, Moment(policy().deadline));
}

#[test]
fn copies_have_no_special_index() {
    let world =
        run(1, 5, 3, &[failing(StoreFailure::Refused), GOOD, GOOD, GOOD, failing(StoreFailure::Liar)]);
    assert_eq!(world.outcome().missing, [0, 4]);
}

#[test]
fn completion_takes_spares_and_leaves_old_holders_alone() {
    let scheme = Scheme::new(2, 4).unwrap();
    let holders = [Some(key(0)), Some(key(1)), None, None];
    let plan = StorePlan::completing(scheme, &holders, &[key(2), key(3), key(4)], 3).unwrap();
    let mut providers = [GOOD; 5];
    providers[2] = failing(StoreFailure::Refused);
    let world = World::run(plan, &providers);
    assert_eq!(world.outcome().holders, [Some(key(0)), Some(key(1)), Some(key(4)), Some(key(3))]);
    assert_eq!(world.claims, BTreeSet::from([(2, key(4)), (3, key(3))]));
    assert!(world.sent.iter().all(|(index, _)| *index >= 2));
}

#[test]
fn plans_that_break_the_rules_are_refused() {
    let scheme = Scheme::new(2, 3).unwrap();
    let keys: Vec<PublicKey> = (0..3).map(key).collect();
    assert_eq!(
        StorePlan::fresh(scheme, &keys[..2], 2),
        Err(StorePlanError::TooFewProviders { given: 2, needed: 3 })
    );
    assert_eq!(
        StorePlan::fresh(scheme, &[key(0), key(1), key(2), key(1)], 2),
        Err(StorePlanError::Repeated(key(1)))
    );
    for minimum in [1, 4] {
        assert_eq!(
            StorePlan::fresh(scheme, &keys, minimum),
            Err(StorePlanError::Minimum { minimum, data: 2, total: 3 })
        );
    }
    let slots = vec![Slot::Held(key(0)), Slot::Vacant, Slot::Candidate(key(1))];
    assert!(StorePlan::new(scheme, slots, vec![key(2)], 3).is_ok());
}

fn schemes() -> impl Strategy<Value = (usize, usize)> {
    prop_oneof![Just((1, 2)), Just((1, 5)), Just((2, 4)), Just((2, 5)), Just((4, 8)), Just((10, 20))]
}

fn failures() -> impl Strategy<Value = StoreFailure> {
    prop_oneof![
        Just(StoreFailure::Refused),
        Just(StoreFailure::Unreachable),
        Just(StoreFailure::Interrupted),
        Just(StoreFailure::Slow),
        Just(StoreFailure::Liar),
    ]
}

fn any_provider() -> impl Strategy<Value = Provider> {
    let conduct = prop_oneof![
        4 => (1_u64..50).prop_map(|millis| Conduct::Stores { millis }),
        2 => (1_u64..20_000).prop_map(|millis| Conduct::Stores { millis }),
        2 => (1_u64..2_000, failures()).prop_map(|(millis, failure)| Conduct::Fails { millis, failure }),
        1 => Just(Conduct::Stalls),
    ];
    (conduct, any::<bool>(), any::<bool>()).prop_map(|(conduct, deaf, twice)| Provider {
        conduct,
        deaf,
        twice,
    })
}

/// Providers that are either good at once or no good at all: for these the naive model knows the result.
fn plain_provider() -> impl Strategy<Value = Provider> {
    let quick = (1_u64..60).prop_map(|millis| Conduct::Stores { millis });
    let bad = (1_u64..60, failures()).prop_map(|(millis, failure)| Conduct::Fails { millis, failure });
    let conduct = prop_oneof![4 => quick, 1 => bad, 1 => Just(Conduct::Stalls)];
    conduct.prop_map(|conduct| Provider { conduct, deaf: false, twice: false })
}

fn cases(
    provider: impl Strategy<Value = Provider> + Clone,
) -> impl Strategy<Value = (usize, usize, usize, Vec<Provider>)> {
    schemes().prop_flat_map(move |(data, total)| {
        let providers = prop::collection::vec(provider.clone(), total..total + 5);
        (Just(data), Just(total), data..=total, providers)
    })
}

proptest! {
    #[test]
    fn whatever_providers_do_nobody_holds_two_and_nothing_is_orphaned(
        (data, total, minimum, providers) in cases(any_provider().boxed()),
    ) {
        run(data, total, minimum, &providers);
    }

    #[test]
    fn as_many_indices_are_held_as_there_are_good_providers(
        (data, total, minimum, providers) in cases(plain_provider().boxed()),
    ) {
        let good = providers.iter().filter(|provider| matches!(provider.conduct, Conduct::Stores { .. })).count();
        let world = run(data, total, minimum, &providers);
        match world.result.as_ref().unwrap() {
            Ok(outcome) => assert_eq!(total - outcome.missing.len(), good.min(total)),
            Err(_) => assert!(good < minimum),
        }
    }
}

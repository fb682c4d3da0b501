//! Reads from simulated holders that are slow, gone, rotten or lying, against what a naive model says must come out.

use super::{
    Answer, Check, Mode, ReadExchange, ReadFailed, ReadFailure, ReadHedge, ReadOutcome, ReadOutput, ReadPlan,
    ReadPlanError, Reason, RequestId, Source, Verdict,
};
use crate::moment::Moment;
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use seedbank_erasure::Scheme;
use seedbank_formats::PublicKey;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a holder does when it is asked plainly, and what with proof. `None` lets the transport's deadline pass.
#[derive(Debug, Clone, Copy)]
struct Holder {
    plain: Option<Result<Answer, ReadFailure>>,
    proven: Option<Result<Answer, ReadFailure>>,
    millis: u64,
}

const fn holder(plain: Result<Answer, ReadFailure>, proven: Result<Answer, ReadFailure>) -> Holder {
    Holder { plain: Some(plain), proven: Some(proven), millis: 10 }
}

const HONEST: Holder = holder(Ok(Answer::Right), Ok(Answer::Right));
const LIAR: Holder = holder(Ok(Answer::Unopened), Ok(Answer::Contradicted));
const ROTTEN: Holder = holder(Err(ReadFailure::Missing), Ok(Answer::Rotten));
const EMPTY: Holder = holder(Err(ReadFailure::Missing), Ok(Answer::Absent));
const FLAKY: Holder = holder(Ok(Answer::Unopened), Ok(Answer::Right));
const EVASIVE: Holder = holder(Ok(Answer::Unopened), Err(ReadFailure::Refused));
const GONE: Holder = holder(Err(ReadFailure::Unreachable), Err(ReadFailure::Unreachable));
const STALLED: Holder = Holder { plain: None, proven: None, millis: 0 };

const HEDGE: ReadHedge = ReadHedge { first: Duration::from_millis(50), next: Duration::from_millis(50) };
const TRANSPORT_DEADLINE: Duration = Duration::from_secs(30);

fn key(index: usize) -> PublicKey {
    PublicKey([u8::try_from(index).unwrap(); 32])
}

struct World {
    exchange: ReadExchange,
    holders: Vec<Option<Holder>>,
    now: Moment,
    events: BTreeMap<(Moment, RequestId), Result<Answer, ReadFailure>>,
    asked: BTreeMap<RequestId, (usize, Mode)>,
    answered: BTreeMap<RequestId, Answer>,
    verdicts: Vec<(usize, Verdict)>,
    result: Option<Result<ReadOutcome, ReadFailed>>,
    decided_at: Moment,
}

impl World {
    fn run(plan: ReadPlan, holders: &[Option<Holder>]) -> World {
        let mut world = World {
            exchange: ReadExchange::new(plan, Moment::START),
            holders: holders.to_vec(),
            now: Moment::START,
            events: BTreeMap::new(),
            asked: BTreeMap::new(),
            answered: BTreeMap::new(),
            verdicts: Vec::new(),
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
        assert!(world.exchange.is_over());
        world
    }

    fn next_moment(&self) -> Option<Moment> {
        let event = self.events.keys().next().map(|(at, _)| *at);
        event.into_iter().chain(self.exchange.poll_timeout()).min()
    }

    fn step(&mut self) {
        let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= self.now) else {
            return self.exchange.handle_timeout(self.now);
        };
        let ((_, request), result) = entry.remove_entry();
        match result {
            Ok(answer) => {
                self.answered.insert(request, answer);
                self.exchange.handle_answer(request, answer, self.now);
                self.exchange.handle_answer(request, answer, self.now); // Twice: the second changes nothing.
            }
            Err(failure) => self.exchange.handle_failure(request, failure, self.now),
        }
    }

    fn apply_outputs(&mut self) {
        while let Some(output) = self.exchange.poll_output() {
            match output {
                ReadOutput::Ask { request, provider, index, mode } => {
                    assert_eq!(provider, key(index));
                    assert!(self.result.is_none(), "asked after the end");
                    assert!(self.asked.insert(request, (index, mode)).is_none());
                    let holder = self.holders[index].expect("asked a missing holder");
                    let answer = match mode {
                        Mode::Plain => holder.plain,
                        Mode::Proven => holder.proven,
                    };
                    let (answer, after) = answer
                        .map_or((Err(ReadFailure::Slow), TRANSPORT_DEADLINE), |answer| {
                            (answer, Duration::from_millis(holder.millis))
                        });
                    self.events.insert((self.now.plus(after), request), answer);
                }
                ReadOutput::Cancel { request } => self.events.retain(|(_, open), _| *open != request),
                ReadOutput::Verdict { provider, verdict } => {
                    self.verdicts.push((usize::from(provider.0[0]), verdict));
                }
                ReadOutput::Done(outcome) => self.decide(Ok(outcome)),
                ReadOutput::Failed(failed) => self.decide(Err(failed)),
            }
        }
    }

    fn decide(&mut self, result: Result<ReadOutcome, ReadFailed>) {
        assert!(self.result.is_none(), "two results");
        self.result = Some(result);
        self.decided_at = self.now;
    }

    /// What must hold whatever the holders did.
    fn check(&self, scheme: Scheme) {
        match self.result.as_ref().expect("no result") {
            Ok(ReadOutcome::Direct { request }) => assert_eq!(self.answered[request], Answer::Right),
            Ok(ReadOutcome::Decode { sources }) => {
                assert_eq!(sources.len(), scheme.data());
                assert!(sources.is_sorted_by(|left, right| left.0 < right.0), "distinct and in order");
                for (index, request) in sources {
                    assert_eq!(
                        (self.answered[request], self.asked[request]),
                        (Answer::Right, (*index, Mode::Proven))
                    );
                }
            }
            Err(failed) => assert!(failed.usable < failed.needed),
        }
        let distinct: BTreeSet<(usize, bool)> =
            self.asked.values().map(|(index, mode)| (*index, *mode == Mode::Plain)).collect();
        assert_eq!(distinct.len(), self.asked.len(), "nobody is asked the same twice");
        for (request, answer) in &self.answered {
            let (index, mode) = self.asked[request];
            let condemned = match answer {
                Answer::Contradicted => Some(Verdict::Liar { evidence: *request }),
                Answer::Rotten => Some(Verdict::Rotten),
                Answer::Absent => Some(Verdict::Absent),
                Answer::Right | Answer::Unopened => None,
            };
            let of_provider = || self.verdicts.iter().filter(|(provider, _)| *provider == index);
            if let Some(verdict) = condemned {
                assert!(of_provider().any(|(_, other)| *other == verdict));
            }
            if mode == Mode::Plain && *answer == Answer::Unopened {
                assert_eq!(of_provider().count(), 1, "wrong bytes always lead to one verdict");
            }
        }
    }

    fn plain_requests(&self) -> usize {
        self.asked.values().filter(|(_, mode)| *mode == Mode::Plain).count()
    }

    fn failed(&self) -> &ReadFailed {
        self.result.as_ref().unwrap().as_ref().unwrap_err()
    }

    fn decoded_from(&self) -> Vec<usize> {
        match self.result.as_ref().unwrap().as_ref().unwrap() {
            ReadOutcome::Decode { sources } => sources.iter().map(|(index, _)| *index).collect(),
            ReadOutcome::Direct { .. } => panic!("not decoded"),
        }
    }
}

fn sources(holders: &[Option<Holder>]) -> Vec<Source> {
    let held = (0..holders.len()).filter(|index| holders[*index].is_some());
    held.map(|index| Source { index, provider: key(index) }).collect()
}

/// Reads from fragment 0 unless said otherwise by `wanted`.
fn read(data: usize, wanted: usize, check: Check, holders: &[Option<Holder>]) -> World {
    let scheme = Scheme::new(data, holders.len()).unwrap();
    let plan = ReadPlan::new(scheme, wanted, &sources(holders), check, HEDGE).unwrap();
    let world = World::run(plan, holders);
    world.check(scheme);
    world
}

fn eight(first: Option<Holder>) -> [Option<Holder>; 8] {
    let mut holders = [Some(HONEST); 8];
    holders[0] = first;
    holders
}

#[test]
fn healthy_read_is_one_plain_request() {
    let world = read(4, 0, Check::Seal, &eight(Some(HONEST)));
    assert_eq!(world.result, Some(Ok(ReadOutcome::Direct { request: RequestId(0) })));
    assert_eq!((world.asked.len(), world.plain_requests()), (1, 1));
}

#[test]
fn without_the_key_the_holder_is_asked_for_proof() {
    let world = read(4, 0, Check::Proof, &eight(Some(HONEST)));
    assert_eq!((world.asked.len(), world.plain_requests()), (1, 0));
    let world = read(4, 0, Check::Proof, &eight(Some(LIAR)));
    assert_eq!(world.verdicts, [(0, Verdict::Liar { evidence: RequestId(0) })]);
    assert_eq!(world.decoded_from(), [1, 2, 3, 4]);
}

#[test]
fn stalled_holder_is_hedged_and_decoded_around() {
    let world = read(4, 0, Check::Seal, &eight(Some(STALLED)));
    assert_eq!(world.decoded_from(), [1, 2, 3, 4]);
    assert_eq!(world.decided_at, Moment(Duration::from_millis(60)));
    assert!(world.verdicts.is_empty(), "slow is not guilty");
}

#[test]
fn stalled_source_of_a_decode_is_hedged_too() {
    let mut holders = eight(Some(GONE));
    holders[2] = Some(STALLED);
    let world = read(4, 0, Check::Seal, &holders);
    assert_eq!(world.decoded_from(), [1, 3, 4, 5]);
    assert!(world.decided_at <= Moment(Duration::from_millis(100)));
}

#[test]
fn sources_that_stall_together_are_replaced_together() {
    let mut holders = eight(Some(STALLED));
    holders[1..4].fill(Some(STALLED));
    let world = read(4, 0, Check::Seal, &holders);
    assert_eq!(world.decoded_from(), [4, 5, 6, 7]);
    assert_eq!(
        world.decided_at,
        Moment(Duration::from_millis(110)),
        "the holder, its substitutes, an answer"
    );
}

#[test]
fn of_any_fragments_exactly_k_suffice_whichever_they_are() {
    for gone in [STALLED, GONE, ROTTEN, LIAR] {
        let mut holders = eight(Some(HONEST));
        holders[1..5].fill(Some(gone));
        let plan = ReadPlan::of_any(Scheme::new(4, 8).unwrap(), &sources(&holders), HEDGE).unwrap();
        let world = World::run(plan, &holders);
        assert_eq!(world.decoded_from(), [0, 5, 6, 7]);
        assert!(world.decided_at <= Moment(Duration::from_millis(110)), "{:?}", world.decided_at);
    }
}

#[test]
fn slow_holder_that_answers_first_wins() {
    let slow = Holder { millis: 55, ..HONEST };
    let world = read(4, 0, Check::Seal, &eight(Some(slow)));
    assert_eq!(world.result, Some(Ok(ReadOutcome::Direct { request: RequestId(0) })));
}

#[test]
fn missing_or_unreachable_holder_is_decoded_around_at_once() {
    for (first, millis) in [(None, 10), (Some(GONE), 20), (Some(EMPTY), 20)] {
        let world = read(4, 0, Check::Seal, &eight(first));
        assert_eq!(world.decoded_from(), [1, 2, 3, 4]);
        assert_eq!(world.decided_at, Moment(Duration::from_millis(millis)));
    }
}

#[test]
fn holder_believed_to_be_down_races_with_the_alternative() {
    let scheme = Scheme::new(4, 8).unwrap();
    let hedge = ReadHedge { first: Duration::ZERO, ..HEDGE };
    let plan = ReadPlan::new(scheme, 0, &sources(&eight(Some(STALLED))), Check::Seal, hedge).unwrap();
    let world = World::run(plan, &eight(Some(STALLED)));
    assert_eq!(world.decided_at, Moment(Duration::from_millis(10)));
}

#[test]
fn wrong_bytes_lead_to_the_verdict_that_the_signed_word_deserves() {
    let evidence = RequestId(1);
    for (conduct, verdict) in [
        (LIAR, Verdict::Liar { evidence }),
        (holder(Ok(Answer::Unopened), Ok(Answer::Rotten)), Verdict::Rotten),
        (ROTTEN, Verdict::Rotten),
        (EMPTY, Verdict::Absent),
        (FLAKY, Verdict::Suspect),
        (EVASIVE, Verdict::Evasive),
        (holder(Ok(Answer::Unopened), Ok(Answer::Unopened)), Verdict::WriterFault),
    ] {
        let world = read(4, 0, Check::Seal, &eight(Some(conduct)));
        assert_eq!(world.verdicts, [(0, verdict)]);
        assert!(world.result.as_ref().unwrap().is_ok());
    }
}

#[test]
fn verdict_comes_even_when_the_bytes_were_found_before_it() {
    let slow_to_sign = Holder { millis: 500, ..LIAR };
    let world = read(4, 0, Check::Seal, &eight(Some(slow_to_sign)));
    // The hedge fired long before the wrong bytes came: the decode won, and nobody was blamed.
    assert!(world.verdicts.is_empty());

    let mut holders = eight(Some(Holder { millis: 40, ..LIAR }));
    holders[1] = Some(Holder { millis: 20, ..HONEST });
    let world = read(4, 0, Check::Seal, &holders);
    assert_eq!(world.decided_at, Moment(Duration::from_millis(60)));
    assert_eq!((world.now, world.verdicts.len()), (Moment(Duration::from_millis(80)), 1));
}

#[test]
fn bytes_that_are_proven_after_the_end_are_no_second_result() {
    let holders = eight(Some(Holder { millis: 40, ..FLAKY }));
    let world = read(4, 0, Check::Seal, &holders);
    assert_eq!(world.decided_at, Moment(Duration::from_millis(50)), "decoded before the signed word came");
    assert_eq!(world.verdicts, [(0, Verdict::Suspect)]);
}

#[test]
fn lying_source_of_a_decode_is_named_and_replaced() {
    let mut holders = eight(Some(GONE));
    holders[1] = Some(LIAR);
    holders[3] = Some(ROTTEN);
    let world = read(4, 0, Check::Seal, &holders);
    assert_eq!(world.decoded_from(), [2, 4, 5, 6]);
    assert_eq!(world.verdicts.len(), 2);
}

#[test]
fn exactly_k_sources_suffice_and_one_fewer_fails_without_waiting() {
    let mut holders = [Some(GONE); 8];
    holders[4..].fill(Some(HONEST));
    assert_eq!(read(4, 0, Check::Seal, &holders).decoded_from(), [4, 5, 6, 7]);
    holders[4] = Some(GONE);
    let world = read(4, 0, Check::Seal, &holders);
    assert_eq!((world.failed().usable, world.failed().needed, world.failed().reasons.len()), (3, 4, 5));
    assert!(world.decided_at <= Moment(Duration::from_millis(50)));
}

#[test]
fn copies_are_read_one_after_another_and_never_decoded() {
    let world = read(1, 0, Check::Seal, &[Some(LIAR), None, Some(GONE), Some(STALLED), Some(HONEST)]);
    assert!(matches!(world.result, Some(Ok(ReadOutcome::Direct { .. }))));
    assert_eq!(world.verdicts, [(0, Verdict::Liar { evidence: RequestId(1) })]);
    let world = read(1, 0, Check::Seal, &[Some(LIAR), Some(GONE)]);
    let gone = (key(1), Reason::Failure(ReadFailure::Unreachable));
    assert!(world.failed().reasons.contains(&gone));
}

#[test]
fn failed_copy_is_replaced_at_once_while_a_slow_one_is_still_awaited() {
    let world = read(1, 0, Check::Seal, &[Some(STALLED), Some(GONE), Some(HONEST)]);
    assert_eq!(world.decided_at, Moment(Duration::from_millis(70)));
}

#[test]
fn copy_that_was_written_wrong_is_not_tried_elsewhere() {
    let unopened = holder(Ok(Answer::Unopened), Ok(Answer::Unopened));
    let world = read(1, 0, Check::Seal, &[Some(unopened), Some(STALLED), Some(unopened)]);
    assert_eq!(world.failed().reasons, [(key(0), Reason::Verdict(Verdict::WriterFault))]);
    assert_eq!(world.decided_at, Moment(Duration::from_millis(20)));
}

#[test]
fn reading_around_a_holder_never_asks_it() {
    let holders = eight(Some(HONEST));
    let plan =
        ReadPlan::around(Scheme::new(4, 8).unwrap(), 0, &sources(&holders), Check::Seal, HEDGE).unwrap();
    let world = World::run(plan, &holders);
    assert_eq!(world.decoded_from(), [1, 2, 3, 4]);
    assert_eq!(world.asked.len(), 4);
}

#[test]
fn broken_placements_make_no_plan() {
    let scheme = Scheme::new(2, 3).unwrap();
    let source = |index| Source { index, provider: key(index) };
    let plan = |wanted, sources: &[Source]| ReadPlan::new(scheme, wanted, sources, Check::Seal, HEDGE);
    assert_eq!(plan(0, &[source(3)]), Err(ReadPlanError::NoSuchIndex { index: 3, total: 3 }));
    assert_eq!(plan(3, &[source(1)]), Err(ReadPlanError::NoSuchIndex { index: 3, total: 3 }));
    assert_eq!(plan(0, &[source(1), source(1)]), Err(ReadPlanError::Repeated(1)));
}

fn any_holder() -> impl Strategy<Value = Option<Holder>> {
    let conduct = prop_oneof![
        5 => Just(HONEST), 1 => Just(LIAR), 1 => Just(ROTTEN), 1 => Just(EMPTY), 1 => Just(FLAKY),
        1 => Just(EVASIVE), 1 => Just(GONE), 1 => Just(STALLED),
        1 => Just(holder(Err(ReadFailure::Garbled), Err(ReadFailure::Garbled))),
        1 => Just(holder(Err(ReadFailure::Refused), Ok(Answer::Right))),
    ];
    (conduct, 1_u64..200, prop::bool::weighted(0.9))
        .prop_map(|(conduct, millis, held)| held.then_some(Holder { millis, ..conduct }))
}

proptest! {
    #[test]
    fn bytes_are_found_exactly_when_a_naive_reader_could_find_them(
        (data, holders) in prop_oneof![Just((1, 2)), Just((1, 5)), Just((2, 4)), Just((4, 8)), Just((10, 20))]
            .prop_flat_map(|(data, total)| (Just(data), prop::collection::vec(any_holder(), total))),
        wanted in any::<prop::sample::Index>(),
        keyless in any::<bool>(),
    ) {
        let wanted = wanted.index(holders.len());
        let check = if keyless { Check::Proof } else { Check::Seal };
        let world = read(data, wanted, check, &holders);
        let right = |answer: Option<Result<Answer, ReadFailure>>| answer == Some(Ok(Answer::Right));
        let proves = |holder: &Holder| right(holder.proven);
        // A plain answer that is wrong or missing is followed by a request for proof, a refusal is not.
        let accused = |holder: &Holder| {
            matches!(
                holder.plain,
                Some(Ok(Answer::Unopened) | Err(ReadFailure::Missing | ReadFailure::Garbled))
            )
        };
        let gives = |holder: &Holder| match check {
            Check::Proof => proves(holder),
            Check::Seal => right(holder.plain) || (accused(holder) && proves(holder)),
        };
        let others = (0..holders.len()).filter(|index| *index != wanted);
        let readable = if data == 1 {
            holders.iter().flatten().any(gives)
        } else {
            let sources = others.filter(|index| holders[*index].as_ref().is_some_and(proves)).count();
            holders[wanted].as_ref().is_some_and(gives) || sources >= data
        };
        assert_eq!(world.result.as_ref().unwrap().is_ok(), readable);
        assert!(world.asked.len() <= if data == 1 { 2 * holders.len() } else { holders.len() + 1 });
    }
}

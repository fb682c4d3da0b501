//! Answers and silences in any order, for the exchange that reads a range.

use crate::exchange::{STEPS_MAX, delay, later, provider, scheme};
use crate::input::Input;
use seedbank_formats::PublicKey;
use seedbank_protocol::moment::Moment;
use seedbank_protocol::read_exchange::{
    Answer, Check, Mode, ReadExchange, ReadFailure, ReadHedge, ReadOutcome, ReadOutput, ReadPlan, RequestId,
    Source, Verdict,
};
use std::collections::{BTreeMap, BTreeSet};

const FAILURES: [ReadFailure; 6] = [
    ReadFailure::Refused,
    ReadFailure::Missing,
    ReadFailure::Unreachable,
    ReadFailure::Interrupted,
    ReadFailure::Slow,
    ReadFailure::Garbled,
];

struct Asked {
    provider: PublicKey,
    index: usize,
    mode: Mode,
    answer: Option<Answer>,
}

/// What a shell has seen of one exchange.
struct Shell {
    data: usize,
    sources: usize,
    asked: BTreeMap<RequestId, Asked>,
    open: BTreeSet<RequestId>,
    ended: bool,
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let Some((mut shell, mut exchange)) = begin(&mut input) else { return };
    let mut now = Moment::START;
    shell.take(&mut exchange);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        shell.one_event(&mut exchange, &mut input, &mut now);
        shell.take(&mut exchange);
    }
    // Every request ends: the rest of them fails, and time passes.
    for _ in 0..STEPS_MAX {
        if let Some(request) = shell.open.pop_first() {
            exchange.handle_failure(request, ReadFailure::Slow, now);
        } else if let Some(next) = exchange.poll_timeout() {
            now = now.max(next);
            exchange.handle_timeout(now);
        } else {
            break;
        }
        shell.take(&mut exchange);
    }
    assert!(shell.ended && exchange.is_over(), "a read ends when its requests end");
    assert_eq!(exchange.poll_timeout(), None, "nothing is waited for after the end");
}

fn begin(input: &mut Input<'_>) -> Option<(Shell, ReadExchange)> {
    let scheme = scheme(input)?;
    let wanted = input.below(scheme.total());
    let left_out = input.byte();
    let sources: Vec<Source> = (0..scheme.total())
        .filter(|index| left_out & (1 << index) == 0)
        .map(|index| Source { index, provider: provider(index) })
        .collect();
    let check = [Check::Seal, Check::Proof][input.below(2)];
    let hedge = ReadHedge { first: delay(input), next: delay(input) };
    let plan = match input.below(2) {
        0 => ReadPlan::new(scheme, wanted, &sources, check, hedge),
        _ => ReadPlan::around(scheme, wanted, &sources, check, hedge),
    };
    let plan = plan.expect("indices are those of the scheme, each once");
    let shell = Shell {
        data: scheme.data(),
        sources: sources.len(),
        asked: BTreeMap::new(),
        open: BTreeSet::new(),
        ended: false,
    };
    Some((shell, ReadExchange::new(plan, Moment::START)))
}

impl Shell {
    fn one_event(&mut self, exchange: &mut ReadExchange, input: &mut Input<'_>, now: &mut Moment) {
        // Requests that are over are answered as well: answers cross cancellations.
        let request = RequestId(u64::from(input.byte()) % (self.asked.len() as u64 + 1));
        match input.below(3) {
            0 => {
                let proven = self.asked.get(&request).is_some_and(|asked| asked.mode == Mode::Proven);
                let answers: &[Answer] = if proven {
                    &[Answer::Right, Answer::Unopened, Answer::Contradicted, Answer::Rotten, Answer::Absent]
                } else {
                    &[Answer::Right, Answer::Unopened]
                };
                let answer = answers[input.below(answers.len())];
                if self.open.remove(&request) {
                    self.asked.entry(request).and_modify(|asked| asked.answer = Some(answer));
                }
                exchange.handle_answer(request, answer, *now);
            }
            1 => {
                self.open.remove(&request);
                exchange.handle_failure(request, FAILURES[input.below(FAILURES.len())], *now);
            }
            _ => {
                later(now, input);
                exchange.handle_timeout(*now);
            }
        }
    }

    fn answer(&self, request: RequestId) -> Option<Answer> {
        self.asked.get(&request)?.answer
    }

    fn take(&mut self, exchange: &mut ReadExchange) {
        while let Some(output) = exchange.poll_output() {
            match output {
                ReadOutput::Ask { request, provider, index, mode } => {
                    let asked = Asked { provider, index, mode, answer: None };
                    assert!(self.asked.insert(request, asked).is_none(), "a request has its own name");
                    self.open.insert(request);
                }
                ReadOutput::Cancel { request } => {
                    assert!(self.open.remove(&request), "only what is open is cancelled");
                }
                ReadOutput::Verdict { provider, verdict } => self.check_verdict(provider, verdict),
                ReadOutput::Done(outcome) => {
                    self.end();
                    self.check_outcome(&outcome);
                }
                ReadOutput::Failed(_) => self.end(),
            }
        }
        // Once for its bytes and once more for its word.
        assert!(self.asked.len() <= 2 * self.sources, "requests are bounded");
    }

    fn end(&mut self) {
        assert!(!self.ended, "there is one result");
        self.ended = true;
    }

    fn check_outcome(&self, outcome: &ReadOutcome) {
        match outcome {
            ReadOutcome::Direct { request } => {
                assert_eq!(self.answer(*request), Some(Answer::Right), "bytes that opened");
            }
            ReadOutcome::Decode { sources } => {
                let indices: BTreeSet<usize> = sources.iter().map(|(index, _)| *index).collect();
                assert_eq!(indices.len(), self.data, "a decode has as many sources as it needs");
                for (index, request) in sources {
                    let asked = &self.asked[request];
                    assert_eq!((asked.index, asked.mode), (*index, Mode::Proven));
                    let proven = matches!(asked.answer, Some(Answer::Right | Answer::Unopened));
                    assert!(proven, "every source of a decode proved itself");
                }
            }
        }
    }

    /// Nobody is accused of more than an answer showed.
    fn check_verdict(&self, provider: PublicKey, verdict: Verdict) {
        let gave = |answer| {
            self.asked.values().any(|asked| asked.provider == provider && asked.answer == Some(answer))
        };
        match verdict {
            Verdict::Liar { evidence } => {
                assert_eq!(self.asked[&evidence].provider, provider);
                assert_eq!(self.answer(evidence), Some(Answer::Contradicted), "evidence contradicts");
            }
            Verdict::Rotten => assert!(gave(Answer::Rotten)),
            Verdict::Absent => assert!(gave(Answer::Absent)),
            Verdict::WriterFault => assert!(gave(Answer::Unopened)),
            Verdict::Suspect | Verdict::Evasive => {}
        }
    }
}

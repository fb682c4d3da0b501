//! Events in any order, for the exchange that places a segment.

use crate::exchange::{STEPS_MAX, delay, later, provider, scheme};
use crate::input::Input;
use seedbank_erasure::Scheme;
use seedbank_formats::PublicKey;
use seedbank_protocol::moment::Moment;
use seedbank_protocol::store_exchange::{
    Slot, StoreExchange, StoreFailure, StoreOutcome, StoreOutput, StorePlan, StorePolicy,
};
use std::collections::BTreeSet;

const FAILURES: [StoreFailure; 5] = [
    StoreFailure::Refused,
    StoreFailure::Unreachable,
    StoreFailure::Interrupted,
    StoreFailure::Slow,
    StoreFailure::Liar,
];

type Pair = (usize, PublicKey);

/// What a shell has seen of one exchange.
struct Shell {
    scheme: Scheme,
    minimum: usize,
    held_before: BTreeSet<Pair>,
    spares: usize,
    sent: Vec<Pair>,
    open: BTreeSet<Pair>,
    receipts: BTreeSet<Pair>,
    released: BTreeSet<Pair>,
    outcome: Option<Result<StoreOutcome, ()>>,
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
        match input.below(4) {
            0 => {
                let Some((index, provider)) = shell.any_sent(&mut input) else { continue };
                shell.open.remove(&(index, provider));
                shell.receipts.insert((index, provider));
                // A receipt that comes again after its release needs another one.
                shell.released.remove(&(index, provider));
                exchange.handle_receipt(index, provider, now);
            }
            1 => {
                let Some((index, provider)) = shell.any_sent(&mut input) else { continue };
                shell.open.remove(&(index, provider));
                exchange.handle_failure(index, provider, FAILURES[input.below(FAILURES.len())], now);
            }
            2 => {
                later(&mut now, &mut input);
                exchange.handle_timeout(now);
            }
            _ => {
                let nobody = provider(200);
                let index = input.below(12);
                exchange.handle_receipt(index, nobody, now);
                exchange.handle_failure(index, nobody, StoreFailure::Liar, now);
            }
        }
        shell.take(&mut exchange);
    }
    for _ in 0..STEPS_MAX {
        let Some(next) = exchange.poll_timeout() else { break };
        now = now.max(next);
        exchange.handle_timeout(now);
        shell.take(&mut exchange);
    }
    shell.check_end(&exchange);
}

fn begin(input: &mut Input<'_>) -> Option<(Shell, StoreExchange)> {
    let scheme = scheme(input)?;
    let minimum = scheme.data() + input.below(scheme.total() - scheme.data() + 1);
    let slot = |number| match input.below(4) {
        0 => Slot::Vacant,
        1 => Slot::Held(provider(number)),
        _ => Slot::Candidate(provider(number)),
    };
    let slots: Vec<Slot> = (0..scheme.total()).map(slot).collect();
    let spares: Vec<PublicKey> = (0..input.below(5)).map(|number| provider(100 + number)).collect();
    let held = |(index, slot): (usize, &Slot)| match slot {
        Slot::Held(provider) => Some((index, *provider)),
        Slot::Candidate(_) | Slot::Vacant => None,
    };
    let shell = Shell {
        scheme,
        minimum,
        held_before: slots.iter().enumerate().filter_map(held).collect(),
        spares: spares.len(),
        sent: Vec::new(),
        open: BTreeSet::new(),
        receipts: BTreeSet::new(),
        released: BTreeSet::new(),
        outcome: None,
    };
    let policy = StorePolicy {
        hedge_percent: u32::from(input.byte()) * 4,
        hedge_floor: delay(input),
        hedge_cap: delay(input),
        straggler_percent: u32::from(input.byte()) * 8,
        straggler_floor: delay(input),
        deadline: delay(input),
    };
    let plan = StorePlan::new(scheme, slots, spares, minimum).expect("each is named once");
    Some((shell, StoreExchange::new(plan, policy, Moment::START)))
}

impl Shell {
    /// A request that was made, open or not.
    fn any_sent(&self, input: &mut Input<'_>) -> Option<Pair> {
        self.sent.get(input.below(self.sent.len())).copied()
    }

    fn take(&mut self, exchange: &mut StoreExchange) {
        while let Some(output) = exchange.poll_output() {
            match output {
                StoreOutput::Send { index, provider, attempt } => {
                    let before = self.sent.iter().filter(|(other, _)| *other == index).count();
                    assert_eq!(attempt, before, "attempts are counted");
                    assert!(!self.sent.contains(&(index, provider)), "nobody is asked twice");
                    assert!(self.outcome.is_none(), "nothing is sent after the end");
                    self.sent.push((index, provider));
                    self.open.insert((index, provider));
                }
                StoreOutput::Cancel { index, provider } => {
                    assert!(self.open.remove(&(index, provider)), "only what is open is cancelled");
                }
                StoreOutput::Release { index, provider } => {
                    assert!(self.sent.contains(&(index, provider)), "only what was sent is released");
                    self.released.insert((index, provider));
                }
                StoreOutput::Done(outcome) => self.end(Ok(outcome)),
                StoreOutput::Failed(_) => self.end(Err(())),
            }
        }
        let (data, total) = (self.scheme.data(), self.scheme.total());
        assert!(self.sent.len() <= total + self.spares + data * (total - data), "requests are bounded");
        if let Some(Ok(outcome)) = &self.outcome {
            for (index, holder) in outcome.holders.iter().enumerate() {
                let kept = holder.is_none_or(|holder| !self.released.contains(&(index, holder)));
                assert!(kept, "no holder is told to forget");
            }
        }
    }

    fn end(&mut self, outcome: Result<StoreOutcome, ()>) {
        assert!(self.outcome.is_none(), "there is one result");
        self.outcome = Some(outcome);
    }

    fn check_end(&self, exchange: &StoreExchange) {
        assert_eq!(exchange.poll_timeout(), None, "nothing is waited for after the end");
        assert_eq!(self.open, BTreeSet::new(), "nothing is open after the end");
        let Some(outcome) = &self.outcome else { panic!("an exchange ends by its deadline") };
        let mut kept = self.held_before.clone();
        if let Ok(outcome) = outcome {
            let held = |(index, holder): (usize, &Option<PublicKey>)| holder.map(|holder| (index, holder));
            let holders: BTreeSet<Pair> = outcome.holders.iter().enumerate().filter_map(held).collect();
            let providers: BTreeSet<PublicKey> = holders.iter().map(|(_, holder)| *holder).collect();
            assert_eq!(providers.len(), holders.len(), "nobody holds two indices");
            assert!(holders.len() >= self.minimum, "the minimum is held");
            let is_data = |index: usize| !self.scheme.is_copies() && index < self.scheme.data();
            assert!(!outcome.missing.iter().any(|index| is_data(*index)), "all data is held");
            for holder in &holders {
                let signed = self.receipts.contains(holder) || self.held_before.contains(holder);
                assert!(signed, "every holder signed");
            }
            kept = holders;
        }
        let loose: Vec<&Pair> = self
            .receipts
            .iter()
            .filter(|pair| !kept.contains(pair) && !self.released.contains(pair))
            .collect();
        assert!(loose.is_empty(), "claims that nobody knows: {loose:?}");
    }
}

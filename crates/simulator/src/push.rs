//! Drives one segment onto its providers with the real store exchange, as the real client does.

use crate::calls::{CallFailure, Purpose};
use crate::client::{Holding, Record, Task};
use crate::content::Segment;
use crate::options::Bug;
use crate::provider::{Request, Response};
use crate::world::{World, note};
use seedbank_formats::receipt::Receipt;
use seedbank_formats::{Asked, FragmentId, PublicKey, SegmentNumber};
use seedbank_protocol::answers::{ReceiptQuestion, check_receipt};
use seedbank_protocol::store_exchange::{
    StoreExchange, StoreFailed, StoreFailure, StoreOutcome, StoreOutput, StorePlan, StorePolicy,
};
use seedbank_stewardship::placement::{Candidate, Intake, Rules, place};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

/// Seconds for which a claim is asked when a fragment is sent.
const PENDING_S: u64 = 86_400;

/// How long a finished push is remembered, so that receipts that come late are given back.
const LINGERING: Duration = Duration::from_secs(30);

/// A segment on its way.
pub(crate) struct Push {
    pub(crate) number: SegmentNumber,
    /// The source that it is made of; `None` when it is recorded already and only completed.
    task: Option<usize>,
    segment: Arc<Segment>,
    /// Who held which index when it began.
    held: Vec<Option<PublicKey>>,
    pub(crate) exchange: StoreExchange,
    /// What is under way: index, whom, by which call.
    sends: BTreeMap<(usize, PublicKey), u64>,
    /// When it was asked for.
    asked: BTreeMap<(usize, PublicKey), Asked>,
    /// Who signed for what, as anybody would see it.
    signed: BTreeSet<(FragmentId, PublicKey)>,
    /// What was given back since.
    released: BTreeSet<(FragmentId, PublicKey)>,
    pub(crate) is_finished: bool,
    ended: Duration,
}

impl Push {
    pub(crate) fn is_over(&self, now: Duration) -> bool {
        self.is_finished && now > self.ended + LINGERING
    }

    fn id(&self, index: usize) -> FragmentId {
        self.segment.fragments[index].0
    }
}

fn failure(failure: CallFailure) -> StoreFailure {
    match failure {
        CallFailure::Unreachable => StoreFailure::Unreachable,
        CallFailure::Interrupted => StoreFailure::Interrupted,
        CallFailure::Slow => StoreFailure::Slow,
    }
}

/// Whether a receipt is one, by a check of this file's own.
fn is_receipt(bytes: &[u8], asked: &ReceiptQuestion) -> bool {
    Receipt::check(bytes).is_ok_and(|receipt| {
        (receipt.provider, receipt.client, receipt.fragment) == (asked.provider, asked.client, asked.fragment)
            && Some(receipt.length) == asked.length
    })
}

impl World {
    fn segment(&mut self, client: usize, task: usize, number: SegmentNumber) -> Arc<Segment> {
        let one = &self.clients[client];
        let segment = self
            .truth
            .segments
            .entry((client, number))
            .or_insert_with(|| Arc::new(Segment::new(&one.keys, number, one.scheme, &one.sources[task])));
        Arc::clone(segment)
    }

    /// The providers for a segment, the first for its indices and then spares. With too few it tries those again that
    /// it would rather avoid.
    fn candidates(
        &self,
        client: usize,
        number: SegmentNumber,
        needed: usize,
        bytes: u64,
        holders: &BTreeSet<PublicKey>,
    ) -> Vec<PublicKey> {
        let one = &self.clients[client];
        let candidates: Vec<Candidate> = self
            .providers
            .iter()
            .zip(0u8..)
            .map(|(provider, number)| Candidate {
                provider: provider.public,
                operator: format!("operator {number}"),
                address: IpAddr::V4(Ipv4Addr::new(10, 0, number, 1)),
                region: "everywhere".to_owned(),
                free: 1 << 30,
                latency: one.latency.estimate(&provider.public).map(|estimate| estimate.first_byte),
                intake: Intake::Open,
            })
            .collect();
        let mut rules = Rules::new(needed.max(1), bytes);
        rules.providers_excluded = holders.iter().chain(one.avoided.keys()).copied().collect();
        let placed = place(&candidates, &rules, number, 7).or_else(|_| {
            rules.providers_excluded = holders.clone();
            place(&candidates, &rules, number, 7)
        });
        placed.map(|placed| [placed.first, placed.spares].concat()).unwrap_or_default()
    }

    pub(crate) fn start_push(&mut self, client: usize, task: usize, number: SegmentNumber) {
        let segment = self.segment(client, task, number);
        let scheme = segment.scheme;
        let candidates = self.candidates(client, number, scheme.total(), segment.length, &BTreeSet::new());
        let Ok(plan) = StorePlan::fresh(scheme, &candidates, self.options.minimum) else { return };
        if self.clients[client].boot > 0 {
            self.truth.counts.resumed += 1;
        }
        note!(self, format_args!("c{client}"), "pushes s{number}");
        self.begin(client, number, Some(task), segment, plan);
    }

    /// Finds holders for the indices that have none.
    pub(crate) fn start_completion(&mut self, client: usize, number: SegmentNumber) {
        let record = &self.clients[client].books.records[&number];
        let segment = Arc::clone(&record.segment);
        let holders: Vec<Option<PublicKey>> = record.holdings.iter().map(|holding| holding.holder).collect();
        let held: BTreeSet<PublicKey> = holders.iter().flatten().copied().collect();
        let missing = holders.len() - held.len();
        let mut candidates = self.candidates(client, number, missing, segment.length, &held);
        if candidates.is_empty() {
            candidates = self.candidates(client, number, 1, segment.length, &held);
        }
        let minimum = self.options.minimum.min(held.len() + 1).max(segment.scheme.data());
        let plan = StorePlan::completing(segment.scheme, &holders, &candidates, minimum);
        let Ok(plan) = plan else { return };
        if candidates.is_empty() {
            return;
        }
        note!(self, format_args!("c{client}"), "completes s{number}: {missing} missing");
        self.begin(client, number, None, segment, plan);
    }

    fn begin(
        &mut self,
        client: usize,
        number: SegmentNumber,
        task: Option<usize>,
        segment: Arc<Segment>,
        plan: StorePlan,
    ) {
        let record = self.clients[client].books.records.get(&number);
        let held = match record {
            Some(record) => record.holdings.iter().map(|holding| holding.holder).collect(),
            None => vec![None; segment.fragments.len()],
        };
        let exchange = StoreExchange::new(plan, StorePolicy::for_fragment(segment.length), self.moment());
        let push = Push {
            number,
            task,
            held,
            segment,
            exchange,
            sends: BTreeMap::new(),
            asked: BTreeMap::new(),
            signed: BTreeSet::new(),
            released: BTreeSet::new(),
            is_finished: false,
            ended: Duration::ZERO,
        };
        let name = self.clients[client].name_next();
        self.clients[client].pushes.insert(name, push);
        self.drive_push(client, name);
    }

    pub(crate) fn push_timeout(&mut self, client: usize, name: u64) {
        let now = self.moment();
        let Some(push) = self.clients[client].pushes.get_mut(&name) else { return };
        if push.exchange.poll_timeout().is_some_and(|at| at <= now) {
            push.exchange.handle_timeout(now);
            self.drive_push(client, name);
        }
    }

    /// Carries out what the exchange wants.
    fn drive_push(&mut self, client: usize, name: u64) {
        while let Some(push) = self.clients[client].pushes.get_mut(&name) {
            let Some(output) = push.exchange.poll_output() else { break };
            match output {
                StoreOutput::Send { index, provider, attempt } => {
                    self.send(client, name, index, provider, attempt)
                }
                StoreOutput::Cancel { index, provider } => {
                    if let Some(call) = push.sends.remove(&(index, provider)) {
                        self.hang_up(call);
                    }
                }
                StoreOutput::Release { index, provider } => self.give_back(client, name, index, provider),
                StoreOutput::Done(outcome) => self.placed(client, name, &outcome),
                StoreOutput::Failed(failed) => self.not_placed(client, name, &failed),
            }
        }
        let Some(push) = self.clients[client].pushes.get(&name) else { return };
        let scheme = push.segment.scheme;
        // Each index with its first choice and all stand-ins is more than any exchange may have open at once.
        let most = scheme.total() + scheme.data() + self.providers.len();
        if push.sends.len() > most {
            let open = push.sends.len();
            self.truth
                .violated(format!("c{client} has {open} requests open for one segment, {most} are enough"));
        }
    }

    fn send(&mut self, client: usize, name: u64, index: usize, provider: PublicKey, attempt: usize) {
        if attempt > 0 {
            self.truth.counts.hedges += 1;
        }
        let shift = usize::from(attempt > 0 && self.has(Bug::HedgeLosesIndex));
        let push = &self.clients[client].pushes[&name];
        let (fragment, bytes) =
            push.segment.fragments[(index + shift) % push.segment.fragments.len()].clone();
        let until = self.client_wall(client).plus_seconds(PENDING_S);
        let access = self.clients[client].access;
        let asked = self.ask_now(client);
        let request = Request::Put { fragment, bytes, until, access, asked };
        let call = self.call(client, self.by_key[&provider], Purpose::Store { push: name, index }, request);
        let push = self.clients[client].pushes.get_mut(&name).expect("it is being driven");
        push.released.remove(&(fragment, provider));
        push.sends.insert((index, provider), call);
        push.asked.insert((index, provider), asked);
    }

    fn give_back(&mut self, client: usize, name: u64, index: usize, provider: PublicKey) {
        let one = &mut self.clients[client];
        let Some(push) = one.pushes.get_mut(&name) else { return };
        let fragment = push.id(index);
        // What this push asked for: another one may have asked the same provider since, and count on it.
        let asked = push.asked[&(index, provider)];
        push.released.insert((fragment, provider));
        one.books.release_later(provider, fragment, asked);
        note!(self, format_args!("c{client}"), "will give #{index} back to p{}", self.by_key[&provider]);
    }

    /// An answer to a PUT, or a late one.
    pub(crate) fn stored(
        &mut self,
        client: usize,
        (name, index): (u64, usize),
        provider: usize,
        response: &Response,
    ) {
        let (now, holder) = (self.moment(), self.providers[provider].public);
        let asker = self.clients[client].key.public();
        let takes_anything = self.has(Bug::ReceiptNotVerified) || self.has(Bug::HedgeLosesIndex);
        let releases_winner = self.has(Bug::WinnerReleased);
        let one = &mut self.clients[client];
        let Some(push) = one.pushes.get_mut(&name) else { return };
        push.sends.remove(&(index, holder));
        let fragment = push.id(index);
        let asked =
            ReceiptQuestion { provider: holder, client: asker, fragment, length: Some(push.segment.length) };
        match response {
            Response::Receipt(bytes) => {
                if is_receipt(bytes, &asked) {
                    push.signed.insert((fragment, holder));
                    one.books.receipts.insert((holder, fragment), bytes.clone());
                }
                if takes_anything || check_receipt(bytes, &asked).is_ok() {
                    push.exchange.handle_receipt(index, holder, now);
                    if releases_winner {
                        self.give_back(client, name, index, holder);
                    }
                } else {
                    push.exchange.handle_failure(index, holder, StoreFailure::Liar, now);
                    one.avoided.insert(holder, self.now + Duration::from_secs(120));
                    if self.providers[provider].lie.is_none() && self.options.bug.is_none() {
                        self.truth
                            .violated(format!("c{client} takes an honest receipt of p{provider} for a lie"));
                    }
                }
            }
            Response::Problem(_) => push.exchange.handle_failure(index, holder, StoreFailure::Refused, now),
            Response::Bytes(_) | Response::Proof(_) | Response::Claims(_) => {
                push.exchange.handle_failure(index, holder, StoreFailure::Liar, now);
            }
        }
        self.drive_push(client, name);
    }

    pub(crate) fn not_stored(
        &mut self,
        client: usize,
        (name, index): (u64, usize),
        provider: usize,
        why: CallFailure,
    ) {
        let (now, holder) = (self.moment(), self.providers[provider].public);
        let Some(push) = self.clients[client].pushes.get_mut(&name) else { return };
        push.sends.remove(&(index, holder));
        push.exchange.handle_failure(index, holder, failure(why), now);
        self.drive_push(client, name);
    }

    /// The exchange is done. What it says must be so: each index with a holder that signed for it, none of whom was told
    /// to forget it, no holder twice, all data held.
    fn placed(&mut self, client: usize, name: u64, outcome: &StoreOutcome) {
        let now = self.now;
        let minimum = self.options.minimum;
        let push = self.clients[client].pushes.get_mut(&name).expect("it is being driven");
        (push.is_finished, push.ended) = (true, now);
        let (number, task, segment) = (push.number, push.task, Arc::clone(&push.segment));
        let push = &self.clients[client].pushes[&name];
        let mut wrong = None;
        for (index, holder) in outcome.holders.iter().enumerate() {
            let Some(holder) = holder else { continue };
            let (fragment, provider) = (push.id(index), self.by_key[holder]);
            if push.held[index] != Some(*holder) && !push.signed.contains(&(fragment, *holder)) {
                wrong = Some(format!(
                    "s{number}#{index} counts as held by p{provider}, which did not sign for it"
                ));
            } else if push.released.contains(&(fragment, *holder)) {
                wrong = Some(format!("s{number}#{index} is held by p{provider}, which is told to forget it"));
            }
        }
        let holders: BTreeSet<&PublicKey> = outcome.holders.iter().flatten().collect();
        let held = outcome.holders.iter().flatten().count();
        let scheme = segment.scheme;
        let data = if scheme.is_copies() { 0 } else { scheme.data() };
        if holders.len() < held {
            wrong = Some(format!("s{number} has a holder of two fragments"));
        } else if held < minimum && task.is_some() {
            wrong = Some(format!("s{number} counts as placed with {held} of {minimum} receipts"));
        } else if outcome.holders[..data].iter().any(Option::is_none) {
            wrong = Some(format!("s{number} counts as placed without all its data fragments"));
        }
        if let Some(wrong) = wrong {
            return self.truth.violated(format!("c{client}: {wrong}"));
        }
        note!(self, format_args!("c{client}"), "s{number} is placed: {held} held");
        let held = push.held.clone();
        let holdings = outcome.holders.iter().map(|holder| Holding { holder: *holder, ..Holding::default() });
        let books = &mut self.clients[client].books;
        match (task, books.records.get_mut(&number)) {
            (Some(task), _) => {
                books.records.insert(number, Record { segment, holdings: holdings.collect() });
                books.tasks[task] = Task::Stored(number);
            }
            // A holder that was given up while the completion ran is not taken back.
            (None, Some(record)) => {
                for ((mine, new), held) in record.holdings.iter_mut().zip(holdings).zip(held) {
                    if mine.holder.is_none() && held.is_none() {
                        *mine = new;
                    }
                }
            }
            (None, None) => {}
        }
    }

    fn not_placed(&mut self, client: usize, name: u64, failed: &StoreFailed) {
        let (now, random) = (self.now, self.random.millis(500, 5000));
        let one = &mut self.clients[client];
        let push = one.pushes.get_mut(&name).expect("it is being driven");
        (push.is_finished, push.ended) = (true, now);
        let number = push.number;
        for (provider, _) in &failed.failures {
            one.avoided.insert(*provider, now + Duration::from_secs(15) + random);
        }
        note!(self, format_args!("c{client}"), "s{number} is not placed: {} held", failed.held);
    }
}

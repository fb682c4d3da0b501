//! A simulated client: what it has to store, the books that outlive it, and what it is doing.
//!
//! It does what the real client does with the exchanges, and keeps the same things on disk: which segments are recorded
//! with whom, which claims are still to be given back. All else is gone when it crashes, and is begun again.

use crate::calls::Purpose;
use crate::content::{Segment, Source};
use crate::hedges::Hedges;
use crate::options::{Bug, Options};
use crate::push::Push;
use crate::random::Random;
use crate::reading::Reading;
use crate::world::{Event, Phase, World, note};
use seedbank_erasure::Scheme;
use seedbank_formats::keys::{DatasetSecret, KeyEpoch, SealKeys, SigningKey, dataset_id};
use seedbank_formats::{Asked, FragmentId, PublicKey, SegmentNumber};
use seedbank_protocol::latency::{LatencyPolicy, LatencyTable};
use seedbank_store::Access;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Segments that a client pushes at once.
const PUSHES_MAX: usize = 2;

/// Ranges that a client reads at once.
const READS_MAX: usize = 3;

/// How long after the last fault questions may still be on their way.
const SETTLING: Duration = Duration::from_secs(45);

/// How long a client that can't find enough providers keeps trying once faults have stopped.
const HOPELESS: Duration = Duration::from_secs(60);

/// What became of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Not recorded yet; a number may have been given out for it.
    Todo(Option<SegmentNumber>),
    /// Recorded.
    Stored(SegmentNumber),
    /// Not wanted any more.
    Deleted,
}

/// One index of a recorded segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Holding {
    pub(crate) holder: Option<PublicKey>,
    pub(crate) is_confirmed: bool,
    pub(crate) strikes: u8,
}

/// A recorded segment.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) segment: Arc<Segment>,
    pub(crate) holdings: Vec<Holding>,
}

impl Record {
    pub(crate) fn is_complete(&self) -> bool {
        self.holdings.iter().all(|holding| holding.holder.is_some())
    }

    fn is_confirmed(&self) -> bool {
        self.holdings.iter().all(|holding| holding.holder.is_none() || holding.is_confirmed)
    }

    /// Whether the segment is as safe as the plan asked for.
    pub(crate) fn is_safe(&self, minimum: usize) -> bool {
        let scheme = self.segment.scheme;
        let held = |holding: &&Holding| holding.holder.is_some() && holding.is_confirmed;
        let data = if scheme.is_copies() { 0 } else { scheme.data() };
        self.holdings.iter().filter(held).count() >= minimum
            && self.holdings[..data].iter().all(|holding| held(&holding))
    }
}

/// What is on the client's disk.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) tasks: Vec<Task>,
    pub(crate) records: BTreeMap<SegmentNumber, Record>,
    /// Claims to give back, and when that was decided.
    pub(crate) releases: BTreeMap<(PublicKey, FragmentId), Asked>,
    /// Receipts, as evidence.
    pub(crate) receipts: BTreeMap<(PublicKey, FragmentId), Vec<u8>>,
    next_number: u64,
    /// When something was last asked about claims.
    pub(crate) asked: Asked,
}

impl Books {
    /// The fragments that a provider is believed to hold.
    pub(crate) fn holdings(&self, provider: &PublicKey) -> BTreeSet<FragmentId> {
        let all = self.records.values().flat_map(|record| {
            record
                .holdings
                .iter()
                .zip(&record.segment.fragments)
                .map(|(holding, (id, _))| (holding.holder, *id))
        });
        all.filter(|(holder, _)| holder.as_ref() == Some(provider)).map(|(_, id)| id).collect()
    }

    /// Notes that a claim is to be given back.
    pub(crate) fn release_later(&mut self, provider: PublicKey, fragment: FragmentId, asked: Asked) {
        let decided = self.releases.entry((provider, fragment)).or_insert(asked);
        *decided = asked.max(*decided);
    }

    /// A release is done, unless it was decided once more since.
    pub(crate) fn released(&mut self, provider: PublicKey, fragment: FragmentId, asked: Asked) {
        if self.releases.get(&(provider, fragment)) == Some(&asked) {
            self.releases.remove(&(provider, fragment));
        }
    }
}

/// One client.
pub(crate) struct Client {
    pub(crate) number: usize,
    pub(crate) key: SigningKey,
    pub(crate) keys: SealKeys,
    pub(crate) access: Access,
    pub(crate) scheme: Scheme,
    pub(crate) minimum: usize,
    pub(crate) sources: Vec<Source>,
    pub(crate) books: Books,
    pub(crate) ahead_s: i64,
    /// Which life this is.
    pub(crate) boot: u64,
    pub(crate) is_up: bool,
    pub(crate) pushes: BTreeMap<u64, Push>,
    pub(crate) reads: BTreeMap<u64, Reading>,
    pub(crate) named: u64,
    pub(crate) latency: LatencyTable,
    pub(crate) hedges: Hedges,
    /// Providers that are not to be asked to store, until when.
    pub(crate) avoided: BTreeMap<PublicKey, Duration>,
    /// Claims that are being asked about.
    pub(crate) asking: BTreeMap<(PublicKey, FragmentId), u64>,
    wakes: Option<Duration>,
    /// What is still to be read at the end.
    pub(crate) final_reads: Option<BTreeSet<(SegmentNumber, usize)>>,
    pub(crate) may_rest_undone: bool,
    /// Whether claims and books were compared since faults have stopped.
    pub(crate) is_reconciled: bool,
}

impl Client {
    pub(crate) fn new(number: usize, options: &Options, random: &mut Random) -> Client {
        let key = SigningKey::from_seed(random.key());
        let dataset = dataset_id(&key.public(), &random.key());
        let keys = SealKeys::new(dataset, KeyEpoch(0), &DatasetSecret::new(random.key()));
        let sources: Vec<Source> = (0..options.segments)
            .map(|_| Source::new(random, options.chunk_bytes_max, options.writer_damage))
            .collect();
        Client {
            number,
            key,
            keys,
            access: if random.chance(700) { Access::Public } else { Access::Owner },
            scheme: Scheme::new(options.data, options.total).expect("options have valid schemes"),
            minimum: options.minimum,
            books: Books {
                tasks: sources.iter().map(|_| Task::Todo(None)).collect(),
                records: BTreeMap::new(),
                releases: BTreeMap::new(),
                receipts: BTreeMap::new(),
                next_number: 0,
                asked: Asked(0),
            },
            sources,
            ahead_s: 0,
            boot: 0,
            is_up: true,
            pushes: BTreeMap::new(),
            reads: BTreeMap::new(),
            named: 0,
            latency: LatencyTable::new(LatencyPolicy::default()),
            hedges: Hedges::default(),
            avoided: BTreeMap::new(),
            asking: BTreeMap::new(),
            wakes: None,
            final_reads: None,
            may_rest_undone: false,
            is_reconciled: false,
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("c{}", self.number)
    }

    pub(crate) fn name_next(&mut self) -> u64 {
        self.named += 1;
        self.named
    }

    fn pushing(&self, number: SegmentNumber) -> bool {
        self.pushes.values().any(|push| push.number == number && !push.is_finished)
    }

    fn running(&self) -> usize {
        self.pushes.values().filter(|push| !push.is_finished).count()
    }

    fn is_done(&self) -> bool {
        let stored = self.books.tasks.iter().all(|task| !matches!(task, Task::Todo(_)));
        stored && self.books.records.values().all(Record::is_complete)
    }

    /// Whether there is nothing left to do.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.is_up
            && (self.is_done() || self.may_rest_undone)
            && self.running() == 0
            && self.reads.is_empty()
            && self.books.releases.is_empty()
            && self.books.records.values().all(Record::is_confirmed)
            && self.final_reads.as_ref().is_some_and(BTreeSet::is_empty)
    }

    /// What it is busy with, for people.
    pub(crate) fn describe(&self) -> String {
        let missing = self.books.records.values().filter(|record| !record.is_complete()).count();
        let unconfirmed = self.books.records.values().filter(|record| !record.is_confirmed()).count();
        format!(
            "c{} up={} tasks={:?} incomplete={missing} unconfirmed={unconfirmed} pushes={} reads={} releases={} final reads={:?}",
            self.number,
            self.is_up,
            self.books.tasks,
            self.running(),
            self.reads.len(),
            self.books.releases.len(),
            self.final_reads,
        )
    }

    /// When one of its exchanges wants to look at the clock.
    fn next_wake(&self) -> Option<Duration> {
        let pushes = self.pushes.values().filter_map(|push| push.exchange.poll_timeout());
        let reads = self.reads.values().flat_map(Reading::timeouts);
        pushes.chain(reads).map(|moment| moment.0).min()
    }
}

impl World {
    /// After anything that happened to a client: sees to it that it is woken in time.
    pub(crate) fn after(&mut self, client: usize) {
        let one = &mut self.clients[client];
        let Some(at) = one.next_wake() else { return };
        if one.wakes.is_none_or(|wakes| wakes > at || wakes <= self.now) {
            one.wakes = Some(at);
            let boot = one.boot;
            self.schedule(at.saturating_sub(self.now), Event::Wake { client, boot });
        }
    }

    pub(crate) fn wake(&mut self, client: usize, boot: u64) {
        let one = &mut self.clients[client];
        if one.boot != boot || !one.is_up {
            return;
        }
        one.wakes = None;
        let pushes: Vec<u64> = one.pushes.keys().copied().collect();
        let reads: Vec<u64> = one.reads.keys().copied().collect();
        for push in pushes {
            self.push_timeout(client, push);
        }
        for read in reads {
            self.read_timeout(client, read);
        }
        self.after(client);
    }

    /// Loses everything that is not in the books.
    pub(crate) fn crash_client(&mut self, client: usize) {
        let one = &mut self.clients[client];
        one.is_up = false;
        one.pushes.clear();
        one.reads.clear();
        one.asking.clear();
        one.avoided.clear();
        one.wakes = None;
        one.latency = LatencyTable::new(LatencyPolicy::default());
        one.hedges = Hedges::default();
        self.truth.counts.client_crashes += 1;
        note!(self, format_args!("c{client}"), "crashes");
        let open = self.calls.iter().filter(|(_, call)| call.client == client && call.is_open);
        let open: Vec<u64> = open.map(|(call, _)| *call).collect();
        for call in open {
            self.hang_up(call);
        }
        let after = self.random.millis(100, 10_000);
        self.schedule(after, Event::StartClient { client });
    }

    pub(crate) fn start_client(&mut self, client: usize) {
        let skips = self.has(Bug::ResumeSkips);
        let one = &mut self.clients[client];
        one.is_up = true;
        one.boot += 1;
        let boot = one.boot;
        note!(self, format_args!("c{client}"), "starts again");
        // A client numbers its segments anew or goes on where it was, as its books have it.
        let renumbers = self.random.chance(500);
        for task in 0..self.clients[client].books.tasks.len() {
            let Task::Todo(Some(number)) = self.clients[client].books.tasks[task] else { continue };
            if skips {
                self.believe_stored(client, task, number);
            } else if renumbers {
                self.clients[client].books.tasks[task] = Task::Todo(None);
            }
        }
        self.schedule(Duration::ZERO, Event::Tick { client, boot });
    }

    /// The planted bug of a resume that takes begun for done.
    fn believe_stored(&mut self, client: usize, task: usize, number: SegmentNumber) {
        let Some(segment) = self.truth.segments.get(&(client, number)).cloned() else { return };
        let holdings = (0..segment.fragments.len()).map(|index| Holding {
            holder: self.providers.get(index).map(|provider| provider.public),
            is_confirmed: true,
            strikes: 0,
        });
        let record = Record { holdings: holdings.collect(), segment };
        let books = &mut self.clients[client].books;
        books.records.insert(number, record);
        books.tasks[task] = Task::Stored(number);
        self.acknowledge(client, number);
    }

    /// A client looks for something to do.
    pub(crate) fn tick(&mut self, client: usize, boot: u64) {
        if self.clients[client].boot != boot || !self.clients[client].is_up {
            return;
        }
        let now = self.now;
        let one = &mut self.clients[client];
        one.avoided.retain(|_, until| *until > now);
        one.pushes.retain(|_, push| !push.is_over(now));
        self.start_pushes(client);
        self.confirm_claims(client);
        self.release_claims(client);
        match self.phase {
            Phase::Chaos => self.make_life_hard(client),
            Phase::Calm => self.read_everything(client),
        }
        self.after(client);
        let next = self.random.millis(100, 1000);
        self.schedule(next, Event::Tick { client, boot });
    }

    fn start_pushes(&mut self, client: usize) {
        let calm_for = self.now.saturating_sub(self.options.chaos);
        if self.options.honest() < self.options.total && self.phase == Phase::Calm && calm_for > HOPELESS {
            self.clients[client].may_rest_undone = true;
            return;
        }
        for task in 0..self.clients[client].books.tasks.len() {
            if self.clients[client].running() >= PUSHES_MAX {
                return;
            }
            let number = match self.clients[client].books.tasks[task] {
                Task::Todo(Some(number)) if self.clients[client].pushing(number) => continue,
                Task::Todo(Some(number)) => number,
                Task::Todo(None) => {
                    let books = &mut self.clients[client].books;
                    let number = SegmentNumber(books.next_number);
                    books.next_number += 1;
                    books.tasks[task] = Task::Todo(Some(number));
                    number
                }
                Task::Stored(_) | Task::Deleted => continue,
            };
            self.start_push(client, task, number);
        }
        let records = &self.clients[client].books.records;
        let incomplete = records.iter().filter(|(_, record)| !record.is_complete());
        let incomplete: Vec<SegmentNumber> = incomplete.map(|(number, _)| *number).collect();
        for number in incomplete {
            if self.clients[client].running() < PUSHES_MAX && !self.clients[client].pushing(number) {
                self.start_completion(client, number);
            }
        }
    }

    /// The client tells its user that a segment is safe: then every holder that it counts has signed for it.
    pub(crate) fn acknowledge(&mut self, client: usize, number: SegmentNumber) {
        if !self.truth.acknowledged.insert((client, number)) {
            return;
        }
        self.truth.counts.acknowledged += 1;
        note!(self, format_args!("c{client}"), "s{number} is safe");
        let books = &self.clients[client].books;
        let record = &books.records[&number];
        let holdings = record.holdings.iter().zip(&record.segment.fragments);
        let mut counted = holdings.filter_map(|(holding, (id, _))| Some((holding.holder?, *id)));
        if let Some((holder, _)) = counted.find(|holding| !books.receipts.contains_key(holding)) {
            let provider = self.by_key[&holder];
            self.truth
                .violated(format!("c{client} calls s{number} safe, for which p{provider} never signed"));
        }
    }

    /// While faults strike: reads anybody's data, deletes, renews.
    fn make_life_hard(&mut self, client: usize) {
        if self.random.chance(700) && self.clients[client].reads.len() < READS_MAX {
            let known: Vec<_> = self.truth.acknowledged.iter().copied().collect();
            if !known.is_empty() {
                let (owner, number) = *self.random.pick(&known);
                self.start_some_read(client, owner, number);
            }
        }
        let mine: Vec<_> =
            self.truth.acknowledged.iter().filter(|(owner, _)| *owner == client).copied().collect();
        if mine.is_empty() {
            return;
        }
        let (_, number) = *self.random.pick(&mine);
        if self.random.chance(10) {
            self.delete(client, number);
        } else if self.random.chance(100) {
            let record =
                self.clients[client].books.records.get_mut(&number).expect("what is safe is recorded");
            let index = self.random.index(record.holdings.len());
            record.holdings[index].is_confirmed = false;
        }
    }

    fn delete(&mut self, client: usize, number: SegmentNumber) {
        note!(self, format_args!("c{client}"), "deletes s{number}");
        self.truth.acknowledged.remove(&(client, number));
        let asked = self.ask_now(client);
        let one = &mut self.clients[client];
        // Its completion, if one is under way, is none any more.
        one.pushes.retain(|_, push| push.number != number);
        let Some(record) = one.books.records.remove(&number) else { return };
        for (holding, (fragment, _)) in record.holdings.iter().zip(&record.segment.fragments) {
            if let Some(holder) = holding.holder {
                one.books.release_later(holder, *fragment, asked);
            }
        }
        for task in &mut one.books.tasks {
            if *task == Task::Stored(number) {
                *task = Task::Deleted;
            }
        }
    }

    /// Once faults have stopped: everything that is safe is read, item by item.
    fn read_everything(&mut self, client: usize) {
        if self.now < self.options.chaos + SETTLING {
            return;
        }
        if !self.clients[client].is_reconciled {
            return self.reconcile(client);
        }
        if !self.clients[client].books.records.values().all(Record::is_confirmed) {
            return;
        }
        if self.clients[client].final_reads.is_none() {
            let mine = self.truth.acknowledged.iter().filter(|(owner, _)| *owner == client);
            let items = mine.flat_map(|(_, number)| {
                let items = self.truth.segments[&(client, *number)].items.len();
                (0..items).map(|item| (*number, item))
            });
            let items = items.collect();
            self.clients[client].final_reads = Some(items);
        }
        let one = &self.clients[client];
        let wanted: Vec<(SegmentNumber, usize)> = one.final_reads.iter().flatten().copied().collect();
        for (number, item) in wanted {
            if self.clients[client].reads.len() >= READS_MAX {
                return;
            }
            if !self.clients[client].reads.values().any(|read| read.is_of(client, number, item)) {
                self.start_final_read(client, number, item);
            }
        }
    }
}

impl World {
    /// Sends an answer to whatever asked.
    pub(crate) fn answered(
        &mut self,
        call: u64,
        purpose: Purpose,
        response: crate::provider::Response,
        in_time: bool,
    ) {
        let (client, provider) = (self.calls[&call].client, self.calls[&call].provider);
        match purpose {
            Purpose::Store { push, index } => self.stored(client, (push, index), provider, &response),
            Purpose::Read { .. } | Purpose::Confirm { .. } | Purpose::Release { .. } if !in_time => {}
            Purpose::Read { read, part, request } => {
                self.read_answered(client, (read, part, request), call, &response)
            }
            Purpose::Confirm { .. } | Purpose::Release { .. } => {
                self.claim_answered(client, purpose, provider, &response);
            }
        }
    }

    /// Tells whatever asked that there is no answer.
    pub(crate) fn failed(&mut self, call: u64, purpose: Purpose, failure: crate::calls::CallFailure) {
        let (client, provider) = (self.calls[&call].client, self.calls[&call].provider);
        match purpose {
            Purpose::Store { push, index } => self.not_stored(client, (push, index), provider, failure),
            Purpose::Read { read, part, request } => {
                self.read_unanswered(client, (read, part, request), failure)
            }
            Purpose::Confirm { .. } | Purpose::Release { .. } => {
                self.claim_unanswered(client, purpose, provider)
            }
        }
    }
}

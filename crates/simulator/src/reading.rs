//! Reads one range with the real read exchanges, checks every answer as the real client does, and compares what is
//! delivered with what was written.

use crate::calls::{CallFailure, Purpose};
use crate::content::Segment;
use crate::options::Bug;
use crate::provider::{Request, Response};
use crate::truth::Truth;
use crate::world::{Phase, World, note};
use seedbank_erasure::Decoder;
use seedbank_formats::keys::SealKeys;
use seedbank_formats::receipt::{Receipt, Statement};
use seedbank_formats::{FragmentId, PublicKey, SegmentNumber, seal};
use seedbank_protocol::answers::{check_statement, judge};
use seedbank_protocol::hedging::{Leave, Wish};
use seedbank_protocol::latency::Sample;
use seedbank_protocol::messages::ProblemCode;
use seedbank_protocol::moment::Moment;
use seedbank_protocol::read_exchange::{
    Answer, Check, Mode, ReadExchange, ReadFailure, ReadHedge, ReadOutcome, ReadOutput, ReadPlan, RequestId,
    Source, Verdict,
};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Why somebody reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// While faults strike: it may fail.
    Usual,
    /// At the end: it must succeed if enough honest providers hold the segment.
    Final,
}

/// A range that is being read.
pub(crate) struct Reading {
    owner: usize,
    number: SegmentNumber,
    /// The item that the range is, for readers with the key; else any bytes.
    item: Option<usize>,
    range: Range<u64>,
    segment: Arc<Segment>,
    parts: Vec<Part>,
    why: Why,
    /// How many fragments honest holders had when it began.
    live: usize,
    is_delivered: bool,
    is_decoded: bool,
}

/// A range of one fragment.
struct Part {
    index: usize,
    range: Range<u64>,
    exchange: ReadExchange,
    sources: usize,
    /// How long its first source may take.
    patience: Duration,
    open: BTreeMap<RequestId, (Source, Mode, u64)>,
    /// What was found right, by the path on which it was.
    verified: BTreeMap<RequestId, Vec<u8>>,
    /// Signed answers that speak against their provider.
    evidence: BTreeMap<RequestId, (Source, Vec<u8>)>,
    result: Option<Vec<u8>>,
    is_failed: bool,
}

/// What an answer is worth.
enum Worth {
    Bytes(Answer, Vec<u8>),
    Signed(Answer, Vec<u8>),
    Nothing(ReadFailure),
}

impl Reading {
    pub(crate) fn timeouts(&self) -> impl Iterator<Item = Moment> + '_ {
        self.parts.iter().filter_map(|part| part.exchange.poll_timeout())
    }

    /// Whether it is the last read of this item.
    pub(crate) fn is_of(&self, owner: usize, number: SegmentNumber, item: usize) -> bool {
        (self.owner, self.number, self.item) == (owner, number, Some(item))
    }

    fn is_over(&self) -> bool {
        self.parts.iter().all(|part| part.exchange.is_over() || (self.is_delivered && part.result.is_none()))
    }

    /// Whether one seal checks all bytes of a part: the range is one item, in one fragment.
    fn is_sealed(&self) -> bool {
        self.item.is_some() && self.parts.len() == 1
    }

    fn opens(&self, keys: &SealKeys, sealed: &[u8]) -> Result<Vec<u8>, seal::OpenError> {
        let item = self.item.expect("asked only of an item");
        seal::open(keys, &self.segment.items[item], sealed)
    }
}

impl World {
    /// Reads something of a segment, as its owner or as a stranger.
    pub(crate) fn start_some_read(&mut self, client: usize, owner: usize, number: SegmentNumber) {
        let is_open = self.clients[owner].access == seedbank_store::Access::Public;
        if client != owner && !is_open {
            return;
        }
        let segment = Arc::clone(&self.truth.segments[&(owner, number)]);
        let has_key = client == owner || self.random.chance(300);
        let item = self.random.index(segment.items.len());
        let (item, range) = if has_key && self.random.chance(800) {
            (Some(item), segment.range_of(item))
        } else {
            let whole = segment.length * segment.scheme.data() as u64;
            let start = self.random.below(whole);
            (None, start..start + self.random.between(1, (whole - start).min(3000)))
        };
        self.start_read(client, (owner, number), item, range, Why::Usual);
    }

    pub(crate) fn start_final_read(&mut self, client: usize, number: SegmentNumber, item: usize) {
        let range = self.truth.segments[&(client, number)].range_of(item);
        self.start_read(client, (client, number), Some(item), range, Why::Final);
    }

    fn start_read(
        &mut self,
        client: usize,
        (owner, number): (usize, SegmentNumber),
        item: Option<usize>,
        range: Range<u64>,
        why: Why,
    ) {
        let segment = Arc::clone(&self.truth.segments[&(owner, number)]);
        let record = self.clients[owner].books.records.get(&number);
        let holders: Vec<Option<PublicKey>> = record
            .map_or(Vec::new(), |record| record.holdings.iter().map(|holding| holding.holder).collect());
        let live = if why == Why::Final { self.live(owner, number) } else { 0 };
        let ranges = segment.split(&range);
        let check = if item.is_some() && ranges.len() == 1 { Check::Seal } else { Check::Proof };
        let now = self.moment();
        let name = self.clients[client].name_next();
        note!(self, format_args!("c{client}"), "read {name}: {range:?} of s{number} of c{owner}, {check:?}");
        let mut parts = Vec::new();
        for (index, range) in ranges {
            let plan = self.read_plan(client, &segment, &holders, index, &range, check);
            parts.push(Part {
                index,
                range,
                patience: plan.hedge().first,
                exchange: ReadExchange::new(plan, now),
                sources: holders.iter().flatten().count(),
                open: BTreeMap::new(),
                verified: BTreeMap::new(),
                evidence: BTreeMap::new(),
                result: None,
                is_failed: false,
            });
        }
        let reading = Reading {
            owner,
            number,
            item,
            range,
            segment,
            parts,
            why,
            live,
            is_delivered: false,
            is_decoded: false,
        };
        self.clients[client].reads.insert(name, reading);
        self.drive_read(client, name);
    }

    fn read_plan(
        &self,
        client: usize,
        segment: &Segment,
        holders: &[Option<PublicKey>],
        index: usize,
        range: &Range<u64>,
        check: Check,
    ) -> ReadPlan {
        let (latency, now, bytes) = (&self.clients[client].latency, self.moment(), range.end - range.start);
        let sources = holders.iter().enumerate();
        let mut sources: Vec<Source> =
            sources.filter_map(|(index, holder)| Some(Source { index, provider: (*holder)? })).collect();
        latency.rank(&mut sources, |source| source.provider, bytes, now);
        let direct = sources.iter().find(|source| segment.scheme.is_copies() || source.index == index);
        let direct = direct.map(|source| source.provider);
        let others: Vec<PublicKey> =
            sources.iter().map(|source| source.provider).filter(|one| Some(*one) != direct).collect();
        let delay = |one: &PublicKey| latency.hedge_delay(one, &others, bytes, now);
        let first = direct.as_ref().map_or(Duration::ZERO, delay);
        let hedge = ReadHedge { first, next: others.first().map_or(first, delay) };
        ReadPlan::new(segment.scheme, index, &sources, check, hedge).expect("records name each index once")
    }

    pub(crate) fn read_timeout(&mut self, client: usize, name: u64) {
        let now = self.moment();
        let one = &mut self.clients[client];
        let Some(reading) = one.reads.get_mut(&name) else { return };
        for part in &mut reading.parts {
            let Some(due) = part.exchange.poll_timeout().filter(|at| *at <= now) else { continue };
            let copies = reading.segment.scheme.is_copies();
            let mut asked = part.open.values().map(|(source, _, _)| source);
            let against = asked.find(|source| copies || source.index == part.index);
            let against = against.map(|source| source.provider);
            let leave = match part.exchange.hedge_requests() {
                0 => Leave::Given,
                requests => one.hedges.leave(&Wish { against, patience: part.patience, requests, due }, now),
            };
            match leave {
                Leave::Given => part.exchange.handle_timeout(now),
                Leave::Later(then) => part.exchange.postpone(then),
            }
        }
        if let Some(excess) = one.hedges.excess() {
            self.truth.violated(format!("c{client} {excess}"));
        }
        self.drive_read(client, name);
    }

    /// Carries out what the exchanges of a read want, and delivers the bytes when all are there.
    fn drive_read(&mut self, client: usize, name: u64) {
        let Some(parts) = self.clients[client].reads.get(&name).map(|reading| reading.parts.len()) else {
            return;
        };
        for part in 0..parts {
            loop {
                let reading = self.clients[client].reads.get_mut(&name).expect("it is being driven");
                let Some(output) = reading.parts[part].exchange.poll_output() else { break };
                match output {
                    ReadOutput::Ask { request, provider, index, mode } => {
                        self.ask(client, (name, part), request, Source { index, provider }, mode);
                    }
                    ReadOutput::Cancel { request } => {
                        if let Some((source, _, call)) = reading.parts[part].open.remove(&request) {
                            let waited = self.now - self.calls[&call].made;
                            let now = self.moment();
                            let one = &mut self.clients[client];
                            one.latency.record_silence(source.provider, waited, now);
                            one.hedges.budget.taken_back(&source.provider, now);
                            self.hang_up(call);
                        }
                    }
                    ReadOutput::Verdict { provider, verdict } => {
                        self.check_verdict(client, (name, part), provider, verdict);
                    }
                    ReadOutput::Done(outcome) => self.part_is_there(client, (name, part), &outcome),
                    ReadOutput::Failed(_) => reading.parts[part].is_failed = true,
                }
            }
        }
        self.deliver_read(client, name);
    }

    fn ask(
        &mut self,
        client: usize,
        (name, part): (u64, usize),
        request: RequestId,
        source: Source,
        mode: Mode,
    ) {
        let reading = &self.clients[client].reads[&name];
        let fragment = reading.segment.fragments[source.index].0;
        let range = reading.parts[part].range.clone();
        let question = match mode {
            Mode::Plain => Request::Get { fragment, range },
            Mode::Proven => Request::Proof { fragment, range },
        };
        let now = self.moment();
        self.clients[client].hedges.asked(source.provider, now);
        let provider = self.by_key[&source.provider];
        let call = self.call(client, provider, Purpose::Read { read: name, part, request }, question);
        let reading = self.clients[client].reads.get_mut(&name).expect("it is being driven");
        let part = &mut reading.parts[part];
        part.open.insert(request, (source, mode, call));
        // Each source once, and once more to answer for itself.
        let (open, most) = (part.open.len(), 2 * part.sources);
        if open > most {
            self.truth
                .violated(format!("c{client} has {open} requests open for one range, {most} are enough"));
        }
    }

    /// An answer to a question of a read.
    pub(crate) fn read_answered(
        &mut self,
        client: usize,
        (name, part, request): (u64, usize, RequestId),
        call: u64,
        response: &Response,
    ) {
        let now = self.moment();
        let Some(reading) = self.clients[client].reads.get_mut(&name) else { return };
        let Some((source, mode, _)) = reading.parts[part].open.remove(&request) else { return };
        let worth = self.weigh(client, name, part, source, mode, response);
        let took = self.now - self.calls[&call].made;
        let one = &mut self.clients[client];
        one.hedges.budget.heard(&source.provider, now);
        let part = &mut one.reads.get_mut(&name).expect("it was there before").parts[part];
        match worth {
            Worth::Bytes(answer, bytes) => {
                let sample = Sample { first_byte: took, total: took, bytes: bytes.len() as u64 };
                one.latency.record(source.provider, sample, now);
                if answer == Answer::Right {
                    part.verified.insert(request, bytes);
                }
                part.exchange.handle_answer(request, answer, now);
            }
            Worth::Signed(answer, proof) => {
                part.evidence.insert(request, (source, proof));
                part.exchange.handle_answer(request, answer, now);
            }
            Worth::Nothing(failure) => part.exchange.handle_failure(request, failure, now),
        }
        self.drive_read(client, name);
    }

    pub(crate) fn read_unanswered(
        &mut self,
        client: usize,
        (name, part, request): (u64, usize, RequestId),
        why: CallFailure,
    ) {
        let now = self.moment();
        let one = &mut self.clients[client];
        let Some(reading) = one.reads.get_mut(&name) else { return };
        let Some((source, _, _)) = reading.parts[part].open.remove(&request) else { return };
        one.latency.record_failure(source.provider, now);
        match why {
            CallFailure::Unreachable | CallFailure::Interrupted => {
                one.hedges.budget.heard(&source.provider, now)
            }
            CallFailure::Slow => one.hedges.budget.taken_back(&source.provider, now),
        }
        let failure = match why {
            CallFailure::Unreachable => ReadFailure::Unreachable,
            CallFailure::Interrupted => ReadFailure::Interrupted,
            CallFailure::Slow => ReadFailure::Slow,
        };
        reading.parts[part].exchange.handle_failure(request, failure, now);
        self.drive_read(client, name);
    }

    /// What an answer is worth, by seal, signature and proof.
    fn weigh(
        &self,
        client: usize,
        name: u64,
        part: usize,
        source: Source,
        mode: Mode,
        response: &Response,
    ) -> Worth {
        let reading = &self.clients[client].reads[&name];
        let (range, wanted) = (&reading.parts[part].range, reading.parts[part].index);
        let is_wanted = reading.segment.scheme.is_copies() || source.index == wanted;
        let keys = &self.clients[reading.owner].keys;
        let bytes = match (mode, response) {
            (_, Response::Problem(ProblemCode::NotFound | ProblemCode::Rotten)) => {
                return Worth::Nothing(ReadFailure::Missing);
            }
            (_, Response::Problem(_)) => return Worth::Nothing(ReadFailure::Refused),
            (Mode::Plain, Response::Bytes(bytes)) if bytes.len() as u64 == range.end - range.start => {
                bytes.clone()
            }
            (Mode::Proven, Response::Proof(proof)) => {
                let Some((signed, slice)) = proof.split_at_checked(Statement::ENCODED_LEN) else {
                    return Worth::Nothing(ReadFailure::Garbled);
                };
                let fragment = reading.segment.fragments[source.index].0;
                let statement = match check_statement(signed, slice, &source.provider, &fragment, range) {
                    Ok(statement) => statement,
                    Err(_) => return Worth::Nothing(ReadFailure::Garbled),
                };
                match judge(&statement, slice, reading.segment.length) {
                    Ok(bytes) => bytes,
                    Err(Answer::Contradicted) if self.has(Bug::ProofNotChecked) => {
                        let length = usize::try_from(range.end - range.start).expect("a range is short");
                        slice[slice.len() - length..].to_vec()
                    }
                    Err(answer) => return Worth::Signed(answer, proof.clone()),
                }
            }
            (Mode::Plain | Mode::Proven, _) => return Worth::Nothing(ReadFailure::Garbled),
        };
        let must_open =
            is_wanted && reading.is_sealed() && !(mode == Mode::Plain && self.has(Bug::SealNotChecked));
        let answer =
            if must_open && reading.opens(keys, &bytes).is_err() { Answer::Unopened } else { Answer::Right };
        Worth::Bytes(answer, bytes)
    }

    /// A verdict must be just: nobody honest is called a liar, and who is called one can be shown to anybody.
    fn check_verdict(
        &mut self,
        client: usize,
        (name, part): (u64, usize),
        provider: PublicKey,
        verdict: Verdict,
    ) {
        let number = self.by_key[&provider];
        let now = self.moment();
        note!(self, format_args!("c{client}"), "finds p{number} {verdict:?}");
        let reading = &self.clients[client].reads[&name];
        let part = &reading.parts[part];
        let is_honest = self.providers[number].lie.is_none();
        let segment = &reading.segment;
        let its = part.evidence.values().rev().find(|(source, _)| source.provider == provider);
        let fragment =
            its.map_or(segment.fragments[part.index].0, |(source, _)| segment.fragments[source.index].0);
        let mut lost = false;
        match verdict {
            Verdict::Liar { evidence } => {
                lost = true;
                let shown = part.evidence.get(&evidence);
                let is_shown = shown.is_some_and(|(source, proof)| {
                    let fragment = segment.fragments[source.index].0;
                    Truth::is_evidence(&provider, (&fragment, segment.length), &part.range, proof)
                });
                if is_honest {
                    return self.truth.violated(format!("honest p{number} is named a liar"));
                }
                if !is_shown {
                    return self.truth.violated(format!("p{number} is named a liar without evidence"));
                }
                self.truth.counts.liars_proven += 1;
            }
            Verdict::Rotten => {
                lost = true;
                if is_honest && !self.truth.was_damaged(number, &fragment) {
                    return self
                        .truth
                        .violated(format!("honest p{number} is said to have let sound bytes rot"));
                }
            }
            Verdict::Absent => {
                lost = true;
                if is_honest && its.is_none() {
                    return self
                        .truth
                        .violated(format!("honest p{number} is said to lack a fragment without its word"));
                }
                if !is_honest && self.denies_its_receipt(client, &provider, &fragment, its) {
                    self.truth.counts.liars_proven += 1;
                }
            }
            Verdict::WriterFault => {
                let is_damaged = reading.item.is_some_and(|item| segment.source.damaged.contains(&item));
                if !is_damaged {
                    return self.truth.violated(format!("c{client} blames the writer of sound data"));
                }
            }
            Verdict::Suspect | Verdict::Evasive => {}
        }
        let (owner, segment_number) = (reading.owner, reading.number);
        if verdict != Verdict::WriterFault {
            self.clients[client].latency.doubt(provider, now);
        }
        if lost && owner == client {
            self.replace(client, segment_number, provider);
        }
    }

    /// Whether a provider's receipt and its denial contradict each other, to anybody who has both.
    fn denies_its_receipt(
        &self,
        client: usize,
        provider: &PublicKey,
        fragment: &FragmentId,
        its: Option<&(Source, Vec<u8>)>,
    ) -> bool {
        let receipt = self.clients[client].books.receipts.get(&(*provider, *fragment));
        let signed = its.and_then(|(_, proof)| proof.get(..Statement::ENCODED_LEN));
        let (Some(receipt), Some(signed)) = (receipt, signed) else { return false };
        let receipt = Receipt::check(receipt).expect("only checked receipts are kept");
        let statement = Statement::check(signed).expect("only checked statements are kept");
        receipt.provider == statement.provider
            && receipt.fragment == statement.fragment
            && receipt.until >= statement.time
    }

    /// The owner looks for another holder in the place of one that lost its fragment.
    fn replace(&mut self, client: usize, number: SegmentNumber, provider: PublicKey) {
        let Some(record) = self.clients[client].books.records.get(&number) else { return };
        let index = record.holdings.iter().position(|holding| holding.holder == Some(provider));
        index.into_iter().for_each(|index| self.lose_holder(client, number, index));
    }

    /// A part of a read has its bytes: they must have been verified.
    fn part_is_there(&mut self, client: usize, (name, part): (u64, usize), outcome: &ReadOutcome) {
        let reading = self.clients[client].reads.get_mut(&name).expect("it is being driven");
        let (scheme, one) = (reading.segment.scheme, &reading.parts[part]);
        let bytes = match outcome {
            ReadOutcome::Direct { request } => one.verified.get(request).cloned(),
            ReadOutcome::Decode { sources } => {
                reading.is_decoded = true;
                let indices: Vec<usize> = sources.iter().map(|(index, _)| *index).collect();
                let bytes: Option<Vec<&[u8]>> =
                    sources.iter().map(|(_, request)| one.verified.get(request).map(Vec::as_slice)).collect();
                bytes.map(|bytes| {
                    let mut decoded = vec![0; bytes.first().map_or(0, |first| first.len())];
                    Decoder::new(scheme, &indices, &[one.index])
                        .expect("the exchange gives k distinct other fragments")
                        .decode(&bytes, &mut [&mut decoded])
                        .expect("all are as long as the range");
                    decoded
                })
            }
        };
        if bytes.is_none() {
            self.truth
                .violated(format!("read {name} of c{client} is told to take bytes that nobody verified"));
        }
        let reading = self.clients[client].reads.get_mut(&name).expect("it is being driven");
        reading.parts[part].result = bytes;
    }

    /// Hands the bytes out once all parts have theirs, or gives the read up.
    fn deliver_read(&mut self, client: usize, name: u64) {
        let Some(reading) = self.clients[client].reads.get(&name) else { return };
        if !reading.is_delivered {
            if reading.parts.iter().any(|part| part.is_failed) {
                self.read_failed(client, name);
            } else if reading.parts.iter().all(|part| part.result.is_some()) {
                self.check_delivery(client, name);
            }
        }
        let Some(reading) = self.clients[client].reads.get(&name) else { return };
        if reading.is_delivered && reading.is_over() {
            self.clients[client].reads.remove(&name);
        }
    }

    fn check_delivery(&mut self, client: usize, name: u64) {
        let reading = self.clients[client].reads.get_mut(&name).expect("it is being driven");
        reading.is_delivered = true;
        let reading = &self.clients[client].reads[&name];
        let bytes: Vec<u8> =
            reading.parts.iter().filter_map(|part| part.result.as_deref()).collect::<Vec<_>>().concat();
        let truth = &reading.segment;
        let is_exact = match reading.item {
            Some(item) => {
                let opened = reading.opens(&self.clients[reading.owner].keys, &bytes);
                match opened {
                    // Also of a damaged item: a liar may flip the very bit that the writer had flipped.
                    Ok(plain) => plain == truth.source.chunks[item],
                    Err(_) => truth.source.damaged.contains(&item),
                }
            }
            None => {
                let whole: Vec<u8> = truth.fragments[..truth.scheme.data()]
                    .iter()
                    .flat_map(|(_, bytes)| bytes.iter().copied())
                    .collect();
                let at = |offset: u64| usize::try_from(offset).expect("a segment is short");
                bytes == whole[at(reading.range.start)..at(reading.range.end)]
            }
        };
        let (is_decoded, item, number) = (reading.is_decoded, reading.item, reading.number);
        if !is_exact {
            return self.truth.violated(format!("read {name} of c{client} delivers wrong bytes"));
        }
        note!(self, format_args!("c{client}"), "read {name} is exact");
        self.truth.counts.reads += 1;
        self.truth.counts.decoded += u64::from(is_decoded);
        self.read_ended(client, name, number, item);
    }

    fn read_ended(&mut self, client: usize, name: u64, number: SegmentNumber, item: Option<usize>) {
        if self.clients[client].reads[&name].why == Why::Final
            && let (Some(reads), Some(item)) = (&mut self.clients[client].final_reads, item)
        {
            reads.remove(&(number, item));
        }
    }

    fn read_failed(&mut self, client: usize, name: u64) {
        let reading = self.clients[client].reads.get_mut(&name).expect("it is being driven");
        reading.is_delivered = true;
        for call in reading
            .parts
            .iter_mut()
            .filter(|part| part.result.is_none())
            .flat_map(|part| std::mem::take(&mut part.open))
            .map(|(_, (_, _, call))| call)
            .collect::<Vec<_>>()
        {
            self.hang_up(call);
        }
        let reading = &self.clients[client].reads[&name];
        let (number, item, why) = (reading.number, reading.item, reading.why);
        let is_damaged = item.is_some_and(|item| reading.segment.source.damaged.contains(&item));
        note!(self, format_args!("c{client}"), "read {name} fails");
        self.truth.counts.reads_failed += 1;
        if why == Why::Final && !is_damaged && self.phase == Phase::Calm {
            let live = self.live(client, number).min(reading.live);
            let needed = self.clients[client].scheme.data();
            if live >= needed {
                return self.truth.violated(format!(
                    "s{number} of c{client} can't be read although {live} of {needed} needed fragments live"
                ));
            }
        }
        self.read_ended(client, name, number, item);
    }

    /// Fragments of a recorded segment that honest holders have.
    fn live(&self, client: usize, number: SegmentNumber) -> usize {
        let Some(record) = self.clients[client].books.records.get(&number) else { return 0 };
        let holdings = record.holdings.iter().zip(&record.segment.fragments);
        holdings
            .filter(|(holding, (fragment, _))| {
                holding.is_confirmed
                    && holding.holder.is_some_and(|holder| {
                        let provider = &self.providers[self.by_key[&holder]];
                        provider.lie.is_none() && provider.has(fragment)
                    })
            })
            .count()
    }
}

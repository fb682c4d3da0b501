//! Reads a range of a segment: one part of each fragment it touches, all at once, verified before it is returned.
//!
//! Each part is driven by its own read exchange ([`part`]). What this file adds is what only the holder of all parts can
//! do: open what lies across them, and say which part is to blame when something does not open. Only parts that touch
//! it come into question; where it lies across several, all of them are asked for proof, and whoever's bytes turn out
//! to have been right hears no more of it.
//!
//! Dropping a read ends its requests. What a read leaves behind on purpose are questions of blame, which the network
//! keeps, bounded.

mod in_flight;
mod part;
mod pieces;

use crate::columns::Columns;
use crate::network::{Network, Tokens};
use bytes::Bytes;
use in_flight::InFlight;
use part::{Answered, Held, Part, Rejected};
use seedbank_formats::SegmentNumber;
use seedbank_formats::placement::SegmentPlacement;
use seedbank_protocol::moment::Moment;
use seedbank_protocol::read_exchange::{Check, Mode, ReadFailed, ReadOutput, RequestId};
use seedbank_transport::CallError;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

pub(crate) use pieces::Pieces;

/// Why a range of a segment could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// Too few holders gave bytes. Try again later, or repair.
    #[error("segment {segment} can't be read: {failed}")]
    Unavailable {
        /// Which segment.
        segment: SegmentNumber,
        /// Who failed and how.
        #[source]
        failed: ReadFailed,
    },
    /// The fragments are what their ids say, and what is in them does not open: whoever wrote the segment, or the
    /// layout that led here, is at fault.
    #[error("segment {segment} is stored as it was written, and what was written does not open: {why}")]
    WriterFault {
        /// Which segment.
        segment: SegmentNumber,
        /// What did not open.
        why: String,
    },
    /// The placement is broken: a fragment that does not exist, a range outside the segment.
    #[error("the placement of segment {segment} is broken: {why}")]
    BrokenPlacement {
        /// Which segment.
        segment: SegmentNumber,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Something in a range that did not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unopened {
    /// Which bytes, counted from the range's first.
    pub(crate) at: Range<u64>,
    /// What is wrong with them.
    pub(crate) why: String,
}

/// Reads bytes `range` of a segment and gives what `open` makes of them. With [`Check::Seal`], `open` must refuse bytes
/// that are not exactly what was sealed: it is the check that lets a healthy read do without a proof.
///
/// A bulk read passes the `columns` that it shares with others: what has to be decoded is then decoded there.
pub(crate) async fn read<T>(
    (network, tokens): (&Arc<Network>, &Arc<Tokens>),
    placement: &Arc<SegmentPlacement>,
    range: Range<u64>,
    check: Check,
    columns: Option<&Arc<Columns>>,
    mut open: impl FnMut(&Pieces) -> Result<T, Unopened>,
) -> Result<T, RangeError> {
    let columns = columns.filter(|_| !placement.scheme.is_copies());
    let reading = Reading::new(network, tokens, placement, &range, check, columns)?;
    match reading.run(&mut open).await {
        // What others have brought was proven, but so may be what a holder has: it is asked itself.
        Err(RangeError::WriterFault { .. }) if columns.is_some() => {
            Reading::new(network, tokens, placement, &range, check, None)?.run(&mut open).await
        }
        read => read,
    }
}

/// Reads `columns` of all data fragments from any `k` holders, because fragment `index` is late or lost: as many of them as
/// can be had from their holders, and the rest decoded.
///
/// Others wait for the same columns, whatever fragment they want. So the late holder is a source like any other: without
/// it, and with exactly `k` holders left, all of them would wait for holders that are gone.
pub(crate) async fn decode(
    network: &Arc<Network>,
    tokens: &Arc<Tokens>,
    placement: &Arc<SegmentPlacement>,
    index: usize,
    columns: Range<u64>,
) -> Result<BTreeMap<usize, Bytes>, ReadFailed> {
    let part = Part::of_all(network, placement, index, columns);
    let broken = || ReadFailed { usable: 0, needed: placement.scheme.data(), reasons: Vec::new() };
    let mut reading = Reading::of_parts(network, tokens, placement, vec![part.ok_or_else(broken)?]);
    reading.act(0);
    loop {
        if let Some(failed) = reading.parts[0].failed() {
            return Err(failed.clone());
        }
        if let Some(columns) = reading.parts[0].take_columns() {
            return Ok(columns);
        }
        reading.step().await;
    }
}

/// The parts of a segment's range, by fragment.
pub(crate) fn split(placement: &SegmentPlacement, range: &Range<u64>) -> Vec<(usize, Range<u64>)> {
    let len = fragment_len(placement);
    if placement.scheme.is_copies() {
        return vec![(0, range.clone())];
    }
    let mut parts = Vec::new();
    let mut start = range.start;
    while start < range.end {
        let index = start / len;
        let end = range.end.min((index + 1) * len);
        let index_usize = usize::try_from(index).expect("a segment has at most 255 fragments");
        parts.push((index_usize, start - index * len..end - index * len));
        start = end;
    }
    parts
}

/// Bytes of each fragment of a segment.
pub(crate) fn fragment_len(placement: &SegmentPlacement) -> u64 {
    let sealed = usize::try_from(placement.sealed_len).expect("32 bits fit an index");
    placement.scheme.fragment_len(sealed) as u64
}

/// What happens while parts are read.
enum Event {
    Answer {
        part: usize,
        request: RequestId,
        result: Result<Answered, CallError>,
    },
    /// There is room for the sources of a part's decode.
    Room {
        part: usize,
        room: OwnedSemaphorePermit,
    },
    /// A part's bytes were decoded together with those of others, or can't be.
    Columns {
        part: usize,
        result: Result<Bytes, ReadFailed>,
    },
}

/// A range that is being read.
struct Reading {
    network: Arc<Network>,
    tokens: Arc<Tokens>,
    placement: Arc<SegmentPlacement>,
    /// By position in the range.
    parts: Vec<Part>,
    columns: Option<Arc<Columns>>,
    events: InFlight<Event>,
}

impl Reading {
    fn new(
        network: &Arc<Network>,
        tokens: &Arc<Tokens>,
        placement: &Arc<SegmentPlacement>,
        range: &Range<u64>,
        check: Check,
        columns: Option<&Arc<Columns>>,
    ) -> Result<Reading, RangeError> {
        let broken = |why| RangeError::BrokenPlacement { segment: placement.number, why };
        if range.start >= range.end || range.end > u64::from(placement.sealed_len) {
            return Err(broken("a range outside the segment"));
        }
        if placement.fragments.len() != placement.scheme.total() {
            return Err(broken("it has not as many fragments as its scheme"));
        }
        let mut parts = Vec::new();
        for (index, range) in split(placement, range) {
            let known = columns.and_then(|columns| columns.known(placement, index, &range));
            let part = Part::new(network, placement, index, range, check);
            let mut part = part.ok_or_else(|| broken("no such fragment"))?;
            if let Some(bytes) = known {
                part.give(bytes);
            }
            parts.push(part);
        }
        let mut reading = Reading::of_parts(network, tokens, placement, parts);
        reading.columns = columns.map(Arc::clone);
        Ok(reading)
    }

    fn of_parts(
        network: &Arc<Network>,
        tokens: &Arc<Tokens>,
        placement: &Arc<SegmentPlacement>,
        parts: Vec<Part>,
    ) -> Reading {
        Reading {
            network: Arc::clone(network),
            tokens: Arc::clone(tokens),
            placement: Arc::clone(placement),
            parts,
            columns: None,
            events: InFlight::new(),
        }
    }

    async fn run<T>(
        mut self,
        open: &mut impl FnMut(&Pieces) -> Result<T, Unopened>,
    ) -> Result<T, RangeError> {
        (0..self.parts.len()).for_each(|part| self.act(part));
        loop {
            if let Some(error) = self.failed() {
                self.give_up();
                return Err(error);
            }
            if let Some(pieces) = self.offered() {
                match open(&pieces) {
                    Ok(value) => {
                        self.accept();
                        return Ok(value);
                    }
                    Err(unopened) => {
                        if let Some(error) = self.reject(unopened) {
                            self.give_up();
                            return Err(error);
                        }
                    }
                }
            } else {
                self.step().await;
            }
        }
    }

    /// The bytes to try, once every part has some.
    fn offered(&self) -> Option<Pieces> {
        let pieces = self.parts.iter().map(|part| part.offered().cloned()).collect::<Option<_>>()?;
        Some(Pieces::new(pieces))
    }

    fn failed(&self) -> Option<RangeError> {
        let segment = self.placement.number;
        self.parts.iter().find_map(|part| {
            let failed = part.failed()?.clone();
            Some(match part.written_wrong() {
                Some(why) => RangeError::WriterFault { segment, why: why.to_owned() },
                None => RangeError::Unavailable { segment, failed },
            })
        })
    }

    /// Something did not open. Plain bytes are doubted first, in every part that it touches; when all of those are
    /// proven, they are what was written. Gives an error when nothing better can come.
    fn reject(&mut self, unopened: Unopened) -> Option<RangeError> {
        let Unopened { at, why } = unopened;
        let (mut touched, mut start) = (Vec::new(), 0);
        for (nth, part) in self.parts.iter().enumerate() {
            let end = start + part.len();
            if start < at.end && at.start < end {
                touched.push(nth);
            }
            start = end;
        }
        let plain: Vec<usize> = touched.iter().copied().filter(|part| self.parts[*part].is_plain()).collect();
        let doubted = if plain.is_empty() { touched } else { plain };
        let (now, alone) = (self.network.now(), doubted.len() == 1);
        let mut anything_left = false;
        for part in doubted {
            match self.parts[part].reject(alone, &why, now) {
                Rejected::More => {
                    anything_left = true;
                    self.act(part);
                }
                Rejected::Final => {}
            }
        }
        (!anything_left).then_some(RangeError::WriterFault { segment: self.placement.number, why })
    }

    /// The range opened: what is still to be asked is for blame only.
    fn accept(mut self) {
        let now = self.network.now();
        for part in 0..self.parts.len() {
            self.parts[part].accept(now);
            self.act(part);
        }
        self.blame_on();
    }

    /// The read failed: what was found out of parts that were read counts all the same.
    fn give_up(mut self) {
        for part in &mut self.parts {
            for finding in part.give_up() {
                self.network.found(finding);
            }
        }
        self.parts.iter_mut().for_each(Part::drop_unfinished);
        self.blame_on();
    }

    fn blame_on(mut self) {
        let is_over = |reading: &Reading| reading.parts.iter().all(Part::is_over);
        if is_over(&self) {
            return;
        }
        let network = Arc::clone(&self.network);
        network.settle_later(async move {
            while !is_over(&self) {
                self.step().await;
            }
        });
    }

    /// Waits for one event and carries out what follows from it.
    async fn step(&mut self) {
        let wake: Option<Moment> = self.parts.iter().filter_map(Part::wake).min();
        if self.events.is_empty() && wake.is_none() {
            // Every request ends with an event, so an exchange that wants something has one on its way.
            self.parts.iter_mut().for_each(Part::stall);
            return;
        }
        let timer = self.network.sleep_until(wake);
        tokio::select! {
            // An answer that is here makes a hedge needless.
            biased;
            event = self.events.next() => self.happened(event),
            () = timer => {
                let now = self.network.now();
                for part in 0..self.parts.len() {
                    self.parts[part].handle_timeout(now, |wish| self.network.leave(wish, now));
                    self.act(part);
                }
            }
        }
    }

    fn happened(&mut self, event: Event) {
        let now = self.network.now();
        match event {
            Event::Answer { part, request, result } => {
                let evidence = self.parts[part].answered(request, result, now);
                self.act_on(part, evidence.as_ref());
            }
            Event::Room { part, room } => {
                for request in self.parts[part].has_room(room, now) {
                    self.send(part, request);
                }
            }
            Event::Columns { part, result } => {
                self.parts[part].has_columns(result, now);
                self.act(part);
            }
        }
    }

    fn act(&mut self, part: usize) {
        self.act_on(part, None);
    }

    /// Carries out what a part's exchange wants. `evidence` is what a verdict of now rests on.
    fn act_on(&mut self, part: usize, evidence: Option<&part::Evidence>) {
        let now = self.network.now();
        while let Some(output) = self.parts[part].poll_output() {
            match output {
                ReadOutput::Ask { request, provider, index, mode } => {
                    self.parts[part].asked(request, provider, index, mode);
                    if self.parts[part].is_source(request) {
                        self.ask_source(part, request, now);
                    } else {
                        self.send(part, request);
                    }
                }
                ReadOutput::Cancel { request } => {
                    if let Some((provider, waited)) = self.parts[part].cancel(request, now) {
                        self.network.outrun(&provider, waited);
                    }
                }
                ReadOutput::Verdict { provider, verdict } => {
                    let finding = self.parts[part].verdict(provider, verdict, evidence);
                    finding.into_iter().for_each(|finding| self.network.found(finding));
                }
                ReadOutput::Done(outcome) => {
                    if self.parts[part].done(&outcome) {
                        self.network.traffic.decoded();
                    }
                }
                ReadOutput::Failed(failed) => self.parts[part].fail(failed),
            }
        }
        let found = self.parts[part].settle(now);
        found.into_iter().for_each(|finding| self.network.found(finding));
    }

    /// Asks one of the sources of a decode as soon as there is room for them, or leaves it to the shared columns.
    fn ask_source(&mut self, part: usize, request: RequestId, now: Moment) {
        match self.parts[part].hold(request, now) {
            Held::First(bytes) => {
                let waiting = match &self.columns {
                    None => {
                        let room = self.network.decode_room(bytes);
                        self.events.start(async move { Event::Room { part, room: room.await } })
                    }
                    Some(columns) => {
                        let (network, tokens) = (Arc::clone(&self.network), Arc::clone(&self.tokens));
                        let (index, range) = (self.parts[part].index(), self.parts[part].range());
                        let placement = Arc::clone(&self.placement);
                        let decoding = Arc::clone(columns).range(network, tokens, placement, index, range);
                        self.events.start(async move { Event::Columns { part, result: decoding.await } })
                    }
                };
                self.parts[part].waits_for(waiting);
            }
            Held::Another => {}
            Held::No => self.send(part, request),
        }
    }

    fn send(&mut self, part: usize, request: RequestId) {
        let Some((source, mode)) = self.parts[part].question(request) else { return };
        let (network, token) = (Arc::clone(&self.network), self.tokens.get());
        let (id, range) = (self.placement.fragments[source.index].id, self.parts[part].range());
        let sent = self.events.start(async move {
            let (provider, token) = (&source.provider, token.as_deref());
            let result = match mode {
                Mode::Plain => network.get_range(provider, &id, range, token).await.map(Answered::Plain),
                Mode::Proven => network.get_proof(provider, &id, range, token).await.map(Answered::Proven),
            };
            Event::Answer { part, request, result }
        });
        let now = self.network.now();
        self.parts[part].sent(request, sent, now);
    }
}

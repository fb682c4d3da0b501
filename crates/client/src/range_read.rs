//! Reads a range of a segment: one part of each fragment it touches, verified before it is returned.
//!
//! Each part is driven by its own read exchange. What this file adds is what only the holder of the bytes can do:
//! open seals over the joined parts, check proofs, decode, and keep the evidence.

use crate::network::{Finding, Network, Tokens};
use bytes::Bytes;
use seedbank_erasure::Decoder;
use seedbank_formats::placement::SegmentPlacement;
use seedbank_formats::receipt::Answer as Signed;
use seedbank_formats::slice;
use seedbank_formats::{FragmentId, PublicKey, SegmentNumber};
use seedbank_protocol::messages::ProblemCode;
use seedbank_protocol::read_exchange::{
    Answer, Check, Mode, ReadExchange, ReadFailed, ReadFailure, ReadHedge, ReadOutcome, ReadOutput, ReadPlan,
    RequestId, Source, Verdict,
};
use seedbank_transport::{CallError, Proof};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::task::{AbortHandle, JoinSet};

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

/// Reads bytes `range` of a segment and gives what `open` makes of them. `open` must refuse bytes that are not exactly
/// what was sealed: it is the check that lets a healthy read do without a proof.
pub(crate) async fn read<T, E: std::fmt::Display>(
    network: &Arc<Network>,
    tokens: &Tokens,
    placement: &Arc<SegmentPlacement>,
    range: Range<u64>,
    open: impl Fn(&[u8]) -> Result<T, E>,
) -> Result<T, RangeError> {
    let segment = placement.number;
    let broken = |why| RangeError::BrokenPlacement { segment, why };
    if range.start >= range.end || range.end > u64::from(placement.sealed_len) {
        return Err(broken("a range outside the segment"));
    }
    let mut parts = Vec::new();
    for (index, range) in split(placement, &range) {
        let part =
            Part::new(network, tokens, placement, index, range).ok_or_else(|| broken("no such fragment"))?;
        parts.push(part);
    }
    loop {
        let mut joined = JoinedBytes::default();
        for part in &mut parts {
            let failed = |failed| RangeError::Unavailable { segment, failed };
            joined.push(part.bytes().await.map_err(failed)?);
        }
        match open(joined.as_slice()) {
            Ok(value) => {
                for part in parts {
                    part.accept();
                }
                return Ok(value);
            }
            Err(why) => {
                let mut anything_changed = false;
                for part in &mut parts {
                    anything_changed |= part.reject();
                }
                if !anything_changed {
                    return Err(RangeError::WriterFault { segment, why: why.to_string() });
                }
            }
        }
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

/// Parts one after another, copied only when there is more than one.
#[derive(Default)]
struct JoinedBytes {
    one: Option<Bytes>,
    many: Vec<u8>,
}

impl JoinedBytes {
    fn push(&mut self, bytes: Bytes) {
        match self.one.take() {
            None if self.many.is_empty() => self.one = Some(bytes),
            None => self.many.extend_from_slice(&bytes),
            Some(first) => self.many = [first, bytes].concat(),
        }
    }

    fn as_slice(&self) -> &[u8] {
        self.one.as_deref().unwrap_or(&self.many)
    }
}

/// What the shell keeps of one answer.
enum Kept {
    Plain(Bytes),
    /// Bytes that prove themselves.
    Proven(Bytes),
}

/// What one request came to.
enum Answered {
    Plain(Bytes),
    Proven(Proof),
}

/// Bytes that the exchange does not know of yet: the caller judges them by opening the seal.
enum Candidate {
    /// From this request, which waits for its judgement.
    Asked { request: RequestId, bytes: Bytes, mode: Mode },
    /// Already judged by proof: decoded, or the exchange's own final word.
    Final(Bytes),
}

/// One range of one fragment.
struct Part {
    network: Arc<Network>,
    token: Option<Bytes>,
    placement: Arc<SegmentPlacement>,
    index: usize,
    range: Range<u64>,
    exchange: ReadExchange,
    requests: JoinSet<(RequestId, Result<Answered, CallError>)>,
    aborts: HashMap<RequestId, AbortHandle>,
    asked: BTreeMap<RequestId, (Source, Mode)>,
    kept: HashMap<RequestId, Kept>,
    evidence: HashMap<RequestId, (Bytes, Bytes)>,
    /// Bytes to try, the first first.
    candidates: VecDeque<Candidate>,
    /// Plain bytes that did not open, and whose they were.
    refused: Vec<(PublicKey, Bytes)>,
}

impl Part {
    fn new(
        network: &Arc<Network>,
        tokens: &Tokens,
        placement: &Arc<SegmentPlacement>,
        index: usize,
        range: Range<u64>,
    ) -> Option<Part> {
        let bytes = range.end - range.start;
        let mut sources: Vec<Source> = placement
            .fragments
            .iter()
            .enumerate()
            .filter_map(|(index, fragment)| Some(Source { index, provider: fragment.holder? }))
            .collect();
        let now = network.now();
        let hedge = {
            let latency = network.latency();
            latency.rank(&mut sources, |source| source.provider, bytes, now);
            let direct = sources.iter().find(|source| placement.scheme.is_copies() || source.index == index);
            let peers: Vec<PublicKey> = sources.iter().map(|source| source.provider).collect();
            let first = direct.map_or_else(Default::default, |direct| {
                latency.hedge_delay(&direct.provider, &peers, bytes, now)
            });
            let next = peers.first().map_or(first, |peer| latency.hedge_delay(peer, &peers, bytes, now));
            ReadHedge { first, next }
        };
        let plan = ReadPlan::new(placement.scheme, index, &sources, Check::Seal, hedge).ok()?;
        Some(Part {
            network: Arc::clone(network),
            token: tokens.get(),
            placement: Arc::clone(placement),
            index,
            range,
            exchange: ReadExchange::new(plan, now),
            requests: JoinSet::new(),
            aborts: HashMap::new(),
            asked: BTreeMap::new(),
            kept: HashMap::new(),
            evidence: HashMap::new(),
            candidates: VecDeque::new(),
            refused: Vec::new(),
        })
    }

    fn fragment_id(&self, index: usize) -> FragmentId {
        self.placement.fragments[index].id
    }

    /// The bytes to try next. They stay the same until they are rejected.
    async fn bytes(&mut self) -> Result<Bytes, ReadFailed> {
        loop {
            match self.candidates.front() {
                Some(Candidate::Asked { bytes, .. } | Candidate::Final(bytes)) => return Ok(bytes.clone()),
                None if self.exchange.is_over() => {
                    let needed = self.placement.scheme.data();
                    return Err(ReadFailed { usable: 0, needed, reasons: Vec::new() });
                }
                None => self.step().await?,
            }
        }
    }

    /// The caller opened the joined bytes: tells the exchange, and leaves open blame to the background.
    fn accept(mut self) {
        if let Some(Candidate::Asked { request, .. }) = self.candidates.pop_front() {
            self.exchange.handle_answer(request, Answer::Right, self.network.now());
        }
        if self.drain_after_success().is_err() || self.exchange.is_over() {
            return;
        }
        let network = Arc::clone(&self.network);
        network.settle_later(async move {
            while !self.exchange.is_over() {
                if self.step().await.is_err() || self.drain_after_success().is_err() {
                    return;
                }
            }
        });
    }

    /// The caller has its bytes: what comes with a proof that fits is right, and nothing else matters any more.
    fn drain_after_success(&mut self) -> Result<(), ReadFailed> {
        self.act()?;
        while let Some(candidate) = self.candidates.pop_front() {
            if let Candidate::Asked { request, mode: Mode::Proven, .. } = candidate {
                self.exchange.handle_answer(request, Answer::Right, self.network.now());
            }
            self.act()?;
        }
        Ok(())
    }

    /// The joined bytes did not open. False when this part has nothing better to offer.
    fn reject(&mut self) -> bool {
        let now = self.network.now();
        match self.candidates.pop_front() {
            Some(Candidate::Asked { request, bytes, mode: Mode::Plain }) => {
                self.refused.push((self.asked[&request].0.provider, bytes));
                self.exchange.handle_answer(request, Answer::Unopened, now);
                true
            }
            Some(Candidate::Asked { request, bytes, mode: Mode::Proven }) => {
                // The proof fits, so these are the fragment's bytes: another part may be the wrong one.
                self.candidates.push_front(Candidate::Final(bytes));
                self.exchange.handle_answer(request, Answer::Right, now);
                true
            }
            Some(proven @ Candidate::Final(_)) => {
                let another = !self.candidates.is_empty();
                self.candidates.push_back(proven);
                another && !matches!(self.candidates.front(), Some(Candidate::Final(_)))
            }
            None => false,
        }
    }

    /// Carries out what the exchange wants, then waits for one event.
    async fn step(&mut self) -> Result<(), ReadFailed> {
        self.act()?;
        if !self.candidates.is_empty() || self.exchange.is_over() {
            return Ok(());
        }
        let timer = self.network.sleep_until(self.exchange.poll_timeout());
        tokio::select! {
            Some(answered) = self.requests.join_next() => {
                // A cancelled request has no answer, and the exchange does not wait for one.
                if let Ok((request, result)) = answered {
                    self.aborts.remove(&request);
                    self.answered(request, result);
                }
            }
            () = timer => self.exchange.handle_timeout(self.network.now()),
        }
        self.act()
    }

    fn act(&mut self) -> Result<(), ReadFailed> {
        while let Some(output) = self.exchange.poll_output() {
            match output {
                ReadOutput::Ask { request, provider, index, mode } => {
                    self.ask(request, provider, index, mode)
                }
                ReadOutput::Cancel { request } => {
                    if let Some(abort) = self.aborts.remove(&request) {
                        abort.abort();
                    }
                }
                ReadOutput::Verdict { provider, verdict } => self.verdict(provider, verdict),
                ReadOutput::Done(ReadOutcome::Direct { request }) => {
                    if let Some(Kept::Plain(bytes) | Kept::Proven(bytes)) = self.kept.remove(&request) {
                        self.candidates.push_back(Candidate::Final(bytes));
                    }
                }
                ReadOutput::Done(ReadOutcome::Decode { sources }) => {
                    let bytes = self.decode(&sources);
                    self.candidates.push_front(Candidate::Final(bytes));
                }
                ReadOutput::Failed(failed) => return Err(failed),
            }
        }
        Ok(())
    }

    fn ask(&mut self, request: RequestId, provider: PublicKey, index: usize, mode: Mode) {
        self.asked.insert(request, (Source { index, provider }, mode));
        let (network, token) = (Arc::clone(&self.network), self.token.clone());
        let (id, range) = (self.fragment_id(index), self.range.clone());
        let abort = self.requests.spawn(async move {
            let result = match mode {
                Mode::Plain => {
                    network.get_range(&provider, &id, range, token.as_deref()).await.map(Answered::Plain)
                }
                Mode::Proven => {
                    network.get_proof(&provider, &id, range, token.as_deref()).await.map(Answered::Proven)
                }
            };
            (request, result)
        });
        self.aborts.insert(request, abort);
    }

    fn answered(&mut self, request: RequestId, result: Result<Answered, CallError>) {
        let now = self.network.now();
        let (source, _) = self.asked[&request];
        match result {
            Ok(Answered::Plain(bytes)) => {
                self.kept.insert(request, Kept::Plain(bytes.clone()));
                self.candidates.push_back(Candidate::Asked { request, bytes, mode: Mode::Plain });
            }
            Ok(Answered::Proven(proof)) => {
                let answer = self.check_proof(source, &proof);
                self.evidence.insert(request, (proof.statement.bytes, proof.slice));
                match answer {
                    Ok(bytes) => {
                        self.kept.insert(request, Kept::Proven(bytes.clone()));
                        let wanted = self.placement.scheme.is_copies() || source.index == self.index;
                        if wanted {
                            self.candidates.push_back(Candidate::Asked {
                                request,
                                bytes,
                                mode: Mode::Proven,
                            });
                        } else {
                            self.exchange.handle_answer(request, Answer::Right, now);
                        }
                    }
                    Err(answer) => self.exchange.handle_answer(request, answer, now),
                }
            }
            Err(error) => self.exchange.handle_failure(request, failure(&error), now),
        }
    }

    /// The proven bytes, or what the answer amounts to.
    fn check_proof(&self, source: Source, proof: &Proof) -> Result<Bytes, Answer> {
        match proof.statement.answer {
            Signed::Rotten => Err(Answer::Rotten),
            Signed::Absent => Err(Answer::Absent),
            Signed::Slice(_) => {
                let id = self.fragment_id(source.index);
                slice::verify(&id, fragment_len(&self.placement), &self.range, &proof.slice)
                    .map(Bytes::from)
                    .map_err(|_wrong| Answer::Contradicted)
            }
        }
    }

    fn verdict(&mut self, provider: PublicKey, verdict: Verdict) {
        let refused = self.refused.iter().find(|(who, _)| *who == provider);
        let asked = |(_, (source, mode)): &(&RequestId, &(Source, Mode))| {
            source.provider == provider && *mode == Mode::Proven
        };
        let proven = self.asked.iter().find(asked).map(|(request, (source, _))| (*request, *source));
        if let (Verdict::Suspect, Some((_, plain)), Some((request, _))) = (verdict, refused, proven) {
            // Its plain bytes were right all along; another part of the range was not.
            if matches!(self.kept.get(&request), Some(Kept::Proven(bytes)) if bytes == plain) {
                return;
            }
        }
        let index = proven.map_or(self.index, |(_, source)| source.index);
        let evidence = proven.and_then(|(request, _)| self.evidence.get(&request));
        self.network.found(Finding {
            provider,
            fragment: self.fragment_id(index),
            range: self.range.clone(),
            verdict,
            statement: evidence.map(|(statement, _)| statement.clone()),
            slice: evidence.map(|(_, slice)| slice.clone()),
        });
    }

    fn decode(&mut self, sources: &[(usize, RequestId)]) -> Bytes {
        self.network.traffic.decodes.fetch_add(1, Ordering::Relaxed);
        let indices: Vec<usize> = sources.iter().map(|(index, _)| *index).collect();
        let bytes: Vec<&[u8]> = sources
            .iter()
            .map(|(_, request)| match &self.kept[request] {
                Kept::Plain(bytes) | Kept::Proven(bytes) => &bytes[..],
            })
            .collect();
        let len = bytes.first().map_or(0, |bytes| bytes.len());
        let mut decoded = vec![0; len];
        Decoder::new(self.placement.scheme, &indices, &[self.index])
            .expect("the exchange gives k distinct sources, and the wanted one is not among them")
            .decode(&bytes, &mut [&mut decoded])
            .expect("proven ranges have the length that was asked for");
        Bytes::from(decoded)
    }
}

/// What a failed call means for the exchange.
fn failure(error: &CallError) -> ReadFailure {
    match error {
        CallError::Unreachable { .. } | CallError::WrongPeer { .. } | CallError::WrongVersion { .. } => {
            ReadFailure::Unreachable
        }
        CallError::Refused { problem, .. } => match problem.code {
            ProblemCode::NotFound | ProblemCode::Rotten => ReadFailure::Missing,
            _ => ReadFailure::Refused,
        },
        CallError::Slow { .. } => ReadFailure::Slow,
        CallError::Malformed { .. } => ReadFailure::Garbled,
    }
}

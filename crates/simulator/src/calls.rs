//! Requests and answers on the way between nodes, and what a network does to them.
//!
//! A call is a connection with one question. It can be cut before or after the question arrives, held up for seconds,
//! delivered twice, and lost in a partition. A late question is still a question: the provider carries it out, however
//! long nobody waits for the answer.

use crate::options::{Bug, Lie};
use crate::provider::{Begun, Request, Response, SLOTS_PER_CLIENT, Word};
use crate::world::{Event, Phase, World, note};
use seedbank_formats::{Asked, FragmentId};
use seedbank_protocol::messages::{ClaimAction, ProblemCode, decode_claim_requests};
use seedbank_protocol::read_exchange::RequestId;
use std::time::Duration;

/// How long the transport waits for an answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Bytes of a second of a usual link.
const BYTES_PER_SECOND: u64 = 2 * 1024 * 1024;

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallFailure {
    /// No connection was made.
    Unreachable,
    /// It broke.
    Interrupted,
    /// The deadline passed.
    Slow,
}

/// What a client wants with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A fragment of a push.
    Store { push: u64, index: usize },
    /// A range of a read.
    Read { read: u64, part: usize, request: RequestId },
    /// To make a claim last.
    Confirm { segment: seedbank_formats::SegmentNumber, index: usize },
    /// To give a claim back.
    Release { fragment: FragmentId, asked: Asked },
}

impl Purpose {
    /// What it says in a trace.
    fn what(self) -> String {
        match self {
            Purpose::Store { push, index } => format!("fragment {index} of push {push}"),
            Purpose::Read { read, part, request } => {
                format!("read {read}, part {part}, request {}", request.0)
            }
            Purpose::Confirm { segment, index } => format!("renew s{segment}#{index}"),
            Purpose::Release { .. } => "release".to_owned(),
        }
    }
}

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) client: usize,
    /// Which life of the client it belongs to.
    pub(crate) boot: u64,
    pub(crate) provider: usize,
    pub(crate) purpose: Purpose,
    pub(crate) request: Request,
    pub(crate) made: Duration,
    /// Whether the client still waits.
    pub(crate) is_open: bool,
}

impl World {
    /// Asks a provider something; gives the call's name.
    pub(crate) fn call(&mut self, client: usize, provider: usize, purpose: Purpose, request: Request) -> u64 {
        let call = self.calls_made;
        self.calls_made += 1;
        let boot = self.clients[client].boot;
        note!(
            self,
            self.clients[client].name(),
            "{} #{call} to p{provider}: {}",
            request.verb(),
            purpose.what()
        );
        let made = self.now;
        self.calls.insert(call, Call { client, boot, provider, purpose, request, made, is_open: true });
        self.schedule(DEADLINE, Event::Fail { call, failure: CallFailure::Slow });
        let way = self.one_way();
        if self.random.chance(self.options.cuts) {
            if self.random.chance(500) {
                self.schedule(way, Event::Fail { call, failure: CallFailure::Unreachable });
                return call;
            }
            let until = self.random.millis(0, 2 * self.options.latency_ms_max);
            self.schedule(way + until, Event::Fail { call, failure: CallFailure::Interrupted });
        }
        let held_up = self.held_up();
        self.schedule(way + held_up, Event::Arrive { call });
        if self.random.chance(self.options.duplicates) {
            let later = self.random.millis(1, 20_000);
            self.schedule(way + later, Event::Arrive { call });
        }
        call
    }

    fn one_way(&mut self) -> Duration {
        self.random.millis(1, self.options.latency_ms_max)
    }

    fn held_up(&mut self) -> Duration {
        if self.random.chance(self.options.stalls) {
            self.random.millis(1000, 30_000)
        } else {
            Duration::ZERO
        }
    }

    /// The client does not wait any more.
    pub(crate) fn hang_up(&mut self, call: u64) {
        let Some(open) = self.calls.get_mut(&call).filter(|open| open.is_open) else { return };
        open.is_open = false;
        let way = self.one_way();
        self.schedule(way, Event::Abandon { call });
    }

    /// Whether a partition stops what is on its way; if it does, tells when to try again, if at all.
    fn is_stopped(&mut self, call: u64, towards_provider: bool) -> Option<Option<Duration>> {
        let (client, provider) = (self.calls[&call].client, self.calls[&call].provider);
        let ends =
            self.partitions.iter().filter(|partition| partition.stops(client, provider, towards_provider));
        let end = ends.map(|partition| partition.until).max().filter(|end| *end > self.now)?;
        // A kernel keeps sending what it took, until the connection is given up.
        Some(self.random.chance(600).then(|| end - self.now + Duration::from_millis(1)))
    }

    /// A request comes to its provider.
    pub(crate) fn arrive(&mut self, call: u64) {
        if let Some(again) = self.is_stopped(call, true) {
            return again.into_iter().for_each(|after| self.schedule(after, Event::Arrive { call }));
        }
        let Call { client, provider, request, .. } = &self.calls[&call];
        let (client, provider, request) = (*client, *provider, request.clone());
        if !self.providers[provider].is_up() {
            let way = self.one_way();
            return self.schedule(way, Event::Fail { call, failure: CallFailure::Unreachable });
        }
        let busy = self.providers[provider].slots.get(&client).copied().unwrap_or(0);
        if busy >= SLOTS_PER_CLIENT {
            return self.answer(call, Response::Problem(ProblemCode::Busy), Vec::new());
        }
        if self.providers[provider].lie == Some(Lie::Silent) && self.random.chance(900) {
            return;
        }
        let now = self.provider_wall(provider);
        let asker = self.clients[client].key.public();
        note!(self, format_args!("p{provider}"), "{} #{call} of c{client} arrives", request.verb());
        match request {
            Request::Put { fragment, bytes, until, access, asked } => {
                let length = bytes.len() as u64;
                self.arm(provider);
                let one = &self.providers[provider];
                match one.begin_put(asker, (fragment, length), (until, access, asked), now) {
                    Begun::Answered(response, words) => self.worked(call, response, words),
                    Begun::Arriving(put) => {
                        self.disarm(provider);
                        if !self.providers[provider].is_up() {
                            return;
                        }
                        let arrival = self.arrivals;
                        self.arrivals += 1;
                        self.providers[provider].arriving.insert((call, arrival), put);
                        *self.providers[provider].slots.entry(client).or_default() += 1;
                        let slowness = self.providers[provider].slowness;
                        let transfer =
                            Duration::from_micros(length * 1_000_000 / BYTES_PER_SECOND * slowness);
                        if self.has(Bug::AcknowledgedBeforeSync) && self.providers[provider].lie.is_none() {
                            let stored = seedbank_store::Stored { id: fragment, length, until };
                            let (response, _) =
                                self.providers[provider].acknowledge(asker, &stored, asked, now);
                            self.answer(call, response, Vec::new());
                            self.truth.promised_too_soon(provider, fragment, client, (until, asked));
                        }
                        self.schedule(transfer, Event::Body { call, arrival });
                        self.check_load(provider);
                    }
                }
            }
            Request::Get { fragment, range } => {
                let (response, words) = self.providers[provider].get(&asker, fragment, &range, now);
                self.worked(call, response, words);
            }
            Request::Proof { fragment, range } => {
                let (response, words) = self.providers[provider].prove(&asker, fragment, &range, now);
                self.worked(call, response, words);
            }
            Request::Claims { requests, asked } => {
                for request in decode_claim_requests(&requests).unwrap_or_default() {
                    if request.action == ClaimAction::Release {
                        self.truth.forgotten(provider, request.fragment, client, asked);
                    }
                }
                self.arm(provider);
                let (response, words) = self.providers[provider].claims(asker, &requests, asked, now);
                self.check_releases(client, provider, &words);
                self.worked(call, response, words);
            }
        }
    }

    /// The rest of a fragment comes to its provider.
    pub(crate) fn body_arrives(&mut self, call: u64, arrival: u64) {
        let Call { client, provider, request, .. } = &self.calls[&call];
        let (client, provider, request) = (*client, *provider, request.clone());
        let Some(put) = self.providers[provider].arriving.remove(&(call, arrival)) else { return };
        self.free_slot(provider, client);
        let Request::Put { bytes, fragment, asked, .. } = request else { return };
        let asker = self.clients[client].key.public();
        if self.providers[provider].lie == Some(Lie::UndurableReceipt) {
            drop(put);
            let now = self.provider_wall(provider);
            let stored = seedbank_store::Stored {
                id: fragment,
                length: bytes.len() as u64,
                until: now.plus_seconds(86_400),
            };
            let (response, _) = self.providers[provider].acknowledge(asker, &stored, asked, now);
            return self.answer(call, response, Vec::new());
        }
        let now = self.provider_wall(provider);
        self.arm(provider);
        let (response, words) = self.providers[provider].finish_put(asker, put, (&bytes, asked), now);
        if self.providers[provider].has_power() {
            self.check_load(provider);
        }
        if self.has(Bug::AcknowledgedBeforeSync) {
            return self.disarm(provider);
        }
        self.worked(call, response, words);
    }

    /// What a provider has under way stays within its bounds.
    fn check_load(&mut self, provider: usize) {
        let calls = &self.calls;
        let length = |call: u64| match &calls[&call].request {
            Request::Put { bytes, .. } => bytes.len() as u64,
            Request::Get { .. } | Request::Proof { .. } | Request::Claims { .. } => 0,
        };
        if let Some(overload) = self.providers[provider].overload(length) {
            self.truth.violated(format!("p{provider} {overload}"));
        }
    }

    fn free_slot(&mut self, provider: usize, client: usize) {
        if let Some(slots) = self.providers[provider].slots.get_mut(&client) {
            *slots -= 1;
        }
    }

    /// The client's end is closed: a fragment that has not come completely is given up.
    pub(crate) fn abandoned(&mut self, call: u64) {
        let (client, provider) = (self.calls[&call].client, self.calls[&call].provider);
        let given_up = self.providers[provider].arriving.range((call, 0)..=(call, u64::MAX));
        let given_up: Vec<(u64, u64)> = given_up.map(|(arrival, _)| *arrival).collect();
        for arrival in given_up {
            self.providers[provider].arriving.remove(&arrival);
            self.free_slot(provider, client);
        }
        self.check_load(provider);
    }

    /// Perhaps the power goes off during what the store does next.
    fn arm(&mut self, provider: usize) {
        if self.phase == Phase::Chaos && self.random.chance(self.options.crashes_in_calls) {
            let disk = &self.providers[provider].disk;
            disk.power_off_at(disk.steps() + self.random.below(8));
        }
    }

    fn disarm(&mut self, provider: usize) {
        self.providers[provider].disk.power_off_at(u64::MAX);
        if !self.providers[provider].has_power() {
            self.crash_provider(provider);
        }
    }

    /// The store has done what was asked. If the power went off meanwhile, nobody hears of it.
    fn worked(&mut self, call: u64, response: Response, words: Vec<Word>) {
        let provider = self.calls[&call].provider;
        if !self.providers[provider].has_power() {
            note!(self, format_args!("p{provider}"), "power fails during #{call}");
            return self.crash_provider(provider);
        }
        self.providers[provider].disk.power_off_at(u64::MAX);
        self.answer(call, response, words);
    }

    /// Sends an answer on its way, or what a liar makes of it.
    fn answer(&mut self, call: u64, response: Response, words: Vec<Word>) {
        let (client, provider) = (self.calls[&call].client, self.calls[&call].provider);
        let response = match self.providers[provider].lie {
            Some(lie) => self.lie(call, lie, response),
            None => {
                for word in &words {
                    self.truth.heard((provider, &self.providers[provider]), client, word);
                }
                response
            }
        };
        let bytes = match &response {
            Response::Bytes(bytes) | Response::Proof(bytes) => bytes.len() as u64,
            Response::Receipt(_) | Response::Claims(_) | Response::Problem(_) => 0,
        };
        let slowness = self.providers[provider].slowness;
        let work = Duration::from_micros(
            (bytes * 1_000_000 / BYTES_PER_SECOND + self.random.between(50, 3000)) * slowness,
        );
        let way = self.one_way() + self.held_up() + work;
        note!(self, format_args!("p{provider}"), "answers #{call}: {}", describe(&response));
        if self.random.chance(self.options.duplicates) {
            let later = self.random.millis(1, 5000);
            self.schedule(way + later, Event::Deliver { call, response: response.clone() });
        }
        self.schedule(way, Event::Deliver { call, response });
        // What is acknowledged must survive what comes right after.
        if self.phase == Phase::Chaos && self.random.chance(self.options.crashes_in_calls) {
            self.crash_provider(provider);
        }
    }

    /// An answer comes to its client.
    pub(crate) fn deliver(&mut self, call: u64, response: Response) {
        if let Some(again) = self.is_stopped(call, false) {
            return again
                .into_iter()
                .for_each(|after| self.schedule(after, Event::Deliver { call, response: response.clone() }));
        }
        let open = self.calls.get_mut(&call).expect("calls are kept");
        let (client, purpose, in_time) = (open.client, open.purpose, open.is_open);
        if open.boot != self.clients[client].boot || !self.clients[client].is_up {
            return;
        }
        open.is_open = false;
        self.answered(call, purpose, response, in_time);
        self.after(client);
    }

    /// A client hears that there will be no answer.
    pub(crate) fn fail(&mut self, call: u64, failure: CallFailure) {
        let open = self.calls.get_mut(&call).expect("calls are kept");
        let (client, purpose) = (open.client, open.purpose);
        if !open.is_open || open.boot != self.clients[client].boot || !self.clients[client].is_up {
            return;
        }
        open.is_open = false;
        note!(self, format_args!("c{client}"), "#{call} fails: {failure:?}");
        self.schedule(Duration::from_millis(1), Event::Abandon { call });
        self.failed(call, purpose, failure);
        self.after(client);
    }
}

fn describe(response: &Response) -> String {
    match response {
        Response::Receipt(_) => "a receipt".to_owned(),
        Response::Bytes(bytes) => format!("{} bytes", bytes.len()),
        Response::Proof(bytes) => format!("a proof of {} bytes", bytes.len()),
        Response::Claims(_) => "about claims".to_owned(),
        Response::Problem(code) => format!("{code:?}"),
    }
}

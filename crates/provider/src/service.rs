//! Answers the protocol's routes from the store.
//!
//! Each request passes the same doors in the same order: the table of routes, the caller's right to call that row, the
//! row's bound on the body, the caller's share of requests. Only then is anything read or written. What may be read of
//! one fragment is decided by `authority`; here it is only carried out.

mod claims;
mod fragments;
mod heads;
mod money;

use crate::authority;
use crate::bounds::{Buffers, DiskThreads, HeadShares, RequestSlot, RequestSlots};
use crate::config::{Config, Strangers};
use crate::gate::Gate;
use crate::metrics::{Metrics, Outcome};
use crate::money::Money;
use crate::tokens::CheckedTokens;
use http::{HeaderMap, Response, StatusCode};
use seedbank_formats::keys::SigningKey;
use seedbank_formats::receipt::Receipt;
use seedbank_formats::{Asked, FragmentId, PublicKey, Timestamp};
use seedbank_protocol::messages::{Accepting, FEATURE_PAYMENTS, FEATURES, Hello, Problem, ProblemCode};
use seedbank_protocol::routes::{ALPN, HEADER_ASKED, Route, RouteName, RouteSpec, parse_asked};
use seedbank_store::Store;
use seedbank_transport::{Body, Call, Handler, Incoming, IncomingError, answer_json, answer_problem};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, mpsc};

/// The time by this machine's clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| since.as_secs()))
}

/// What all requests share.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) config: Arc<Config>,
    pub(crate) key: Arc<SigningKey>,
    pub(crate) store: Arc<Store>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tokens: Arc<CheckedTokens>,
    pub(crate) buffers: Buffers,
    pub(crate) disk: DiskThreads,
    pub(crate) slots: Arc<RequestSlots>,
    pub(crate) heads: Arc<HeadShares>,
    /// Told when somebody is refused for want of room.
    pub(crate) room_wanted: Arc<Notify>,
    /// How it is paid, if it is.
    pub(crate) money: Option<Arc<Money>>,
    /// Held by every task that feeds an answer, so that the shutdown can wait for them.
    pub(crate) feeding: mpsc::Sender<()>,
}

/// A request that may be answered.
struct Admitted {
    peer: PublicKey,
    remote: IpAddr,
    headers: HeaderMap,
    body: Incoming,
    slot: RequestSlot,
}

type Answer = Result<Response<Body>, Problem>;

impl Handler for Service {
    async fn handle(&self, call: Call) -> Response<Body> {
        let started = Instant::now();
        let (peer, remote) = (call.peer, call.remote);
        let uri = call.request.uri();
        let route = Route::parse(call.request.method().as_str(), uri.path(), uri.query());
        let name = route.as_ref().ok().map(Route::name);
        let answer = match route {
            Ok(route) => self.answer(route, call).await,
            Err(problem) => Err(problem),
        };
        let (response, outcome) = match answer {
            // A stale head is refused with the newer one instead of a problem.
            Ok(response) if response.status() == StatusCode::CONFLICT => {
                (response, Outcome::Refused(ProblemCode::StaleHead))
            }
            Ok(response) => (response, Outcome::Done),
            Err(problem) => {
                let route = name.map_or("none", RouteName::as_str);
                tracing::debug!(route, %peer, %remote, code = ?problem.code, %problem, "request refused");
                (answer_problem(&problem), Outcome::Refused(problem.code))
            }
        };
        self.metrics.answered(name, outcome, started.elapsed());
        response
    }
}

impl Service {
    async fn answer(&self, route: Route, call: Call) -> Answer {
        let spec = route.spec();
        let admitted = self.admit(spec, call)?;
        match route {
            Route::Hello => self.hello(admitted).await,
            Route::PutFragment(id) => self.put_fragment(id, admitted).await,
            Route::GetFragment(id) => self.get_fragment(id, admitted).await,
            Route::GetProof { fragment, range } => self.get_proof(fragment, range, admitted).await,
            Route::PostClaims => self.post_claims(admitted).await,
            Route::ListClaims { after, limit } => self.list_claims(after, limit, admitted).await,
            Route::PutHead(dataset) => self.put_head(dataset, admitted).await,
            Route::GetHead(dataset) => self.get_head(dataset, admitted).await,
            Route::GetQuote => self.get_quote().await,
            Route::PostProposal => self.post_proposal(admitted).await,
            Route::PostRevision => self.post_revision(admitted).await,
            Route::ListSet { after, limit } => self.list_set(after, limit, admitted).await,
            Route::PostVoucher => self.post_voucher(admitted).await,
        }
    }

    fn admit(&self, spec: &RouteSpec, call: Call) -> Result<Admitted, Problem> {
        authority::may_call(spec.caller, self.config.quota_of(&call.peer).0)?;
        let slot = self.slots.enter(call.peer)?;
        let (head, body) = call.request.into_parts();
        match body.length() {
            None => return Err(Problem::new(ProblemCode::LengthRequired, "a body needs a content-length")),
            Some(length) if length > spec.body_bytes_max => {
                let message = format!("the body has {length} bytes, {} are allowed", spec.body_bytes_max);
                return Err(Problem::new(ProblemCode::TooLarge, message));
            }
            Some(_) => {}
        }
        Ok(Admitted { peer: call.peer, remote: call.remote.ip(), headers: head.headers, body, slot })
    }

    async fn hello(&self, admitted: Admitted) -> Answer {
        let (service, peer) = (self.clone(), admitted.peer);
        // What is free is asked of the file system, which may block.
        let hello = self.disk.run(move || service.hello_to(&peer)).await?;
        Ok(self.json(RouteName::Hello, hello.encode()))
    }

    fn hello_to(&self, peer: &PublicKey) -> Hello {
        let client = self.store.client_usage(peer);
        let quota_left = client.quota_bytes.saturating_sub(client.charged_bytes);
        let room = self.store.usage().map_or(0, |usage| usage.free_bytes);
        let takes_changes = self.gate.closed_because(&self.store).is_none();
        let accepting = match self.config.strangers {
            _ if !takes_changes || room == 0 => Accepting::Nobody,
            Strangers::Welcome { .. } => Accepting::Anyone,
            Strangers::Refused => Accepting::KnownClients,
        };
        let paid = self.money.as_ref().map(|_| FEATURE_PAYMENTS);
        let features = FEATURES.into_iter().chain(paid).map(str::to_owned).collect();
        Hello {
            protocol: ALPN.to_owned(),
            features,
            provider: self.key.public(),
            operator: self.config.operator.clone(),
            region: self.config.region.clone(),
            capacity_bytes: self.config.capacity.0,
            free_bytes: if takes_changes { quota_left.min(room) } else { 0 },
            prices: self.config.prices,
            accepting,
        }
    }

    fn json(&self, route: RouteName, json: Vec<u8>) -> Response<Body> {
        self.metrics.sent(route, json.len());
        answer_json(StatusCode::OK, json)
    }

    /// The refusal of what has no room; trash goes before its time then.
    fn full(&self) -> Problem {
        self.room_wanted.notify_one();
        Problem::new(ProblemCode::DiskFull, "this provider has no room")
    }

    /// The provider's signed promise. Only for what the store says is durable.
    fn receipt(&self, client: PublicKey, fragment: FragmentId, length: u64, until: Timestamp) -> Vec<u8> {
        let receipt = Receipt { provider: self.key.public(), client, fragment, length, until, time: now() };
        receipt.sign(&self.key)
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Problem::new(ProblemCode::BadRequest, format!("header {name} stands twice")));
    }
    value
        .to_str()
        .map(Some)
        .map_err(|_| Problem::new(ProblemCode::BadRequest, format!("header {name} is not plain text")))
}

/// When the client asked, if it says so.
fn asked(headers: &HeaderMap) -> Result<Option<Asked>, Problem> {
    Ok(header(headers, HEADER_ASKED)?.map(parse_asked).transpose()?)
}

/// What a body that can't be had means. The connection is of no more use, so hardly anybody reads this.
fn body_problem(error: &IncomingError) -> Problem {
    let code = match error {
        IncomingError::TooLong { .. } => ProblemCode::TooLarge,
        IncomingError::TooSlow | IncomingError::Broken(_) => ProblemCode::BadRequest,
    };
    Problem::new(code, error.to_string())
}

fn failed(what: &'static str, error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::error!(error, what, "request failed");
    Problem::new(ProblemCode::Internal, "the provider failed: its log says how")
}

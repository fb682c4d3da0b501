//! A provider that keeps everything in memory, and misbehaves as it is told.

use crate::paid::till::Till;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_RANGE, RANGE};
use http::{HeaderMap, Response, StatusCode};
use seedbank_formats::keys::SigningKey;
use seedbank_formats::receipt::{Answer, ReaderToken, Receipt, Statement};
use seedbank_formats::slice::{self, FragmentHasher};
use seedbank_formats::{DatasetId, FragmentId, PublicKey, Timestamp};
use seedbank_protocol::messages::{
    Accepting, ClaimAction, ClaimAnswer, ClaimResult, Hello, Prices, Problem, ProblemCode, SignedBytes,
    decode_claim_requests, encode_claim_answers,
};
use seedbank_protocol::payment::{ProposalRequest, RevisionRequest, VoucherRequest};
use seedbank_protocol::routes::{
    ALPN, Access, HEADER_ACCESS, HEADER_UNTIL, Route, format_content_range, parse_authorization, parse_range,
    parse_until,
};
use seedbank_transport::{
    Body, Call, Handler, Identity, Server, ServerLimits, answer_bytes, answer_json, answer_problem,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// How a provider treats those who read from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conduct {
    Honest,
    /// Wrong bytes, and a signed word for them.
    Lies,
    /// Wrong bytes at first; the right ones with proof.
    WrongAtFirst,
    /// Wrong bytes, and no signed word.
    Evades,
    /// The right bytes, and no signed word for them.
    HonestUntilAsked,
    /// Says that its bytes rotted, plainly and signed.
    Rotten,
    /// Says that it has nothing, plainly and signed.
    Absent,
    /// Something that is no answer to anything.
    Garbage,
    /// Half of each answer.
    Half,
    /// Takes requests and never answers.
    Stalls,
    /// Stalls for whoever asks plainly, and proves at once.
    ProvesOnly,
    /// One byte after another.
    Drips,
    /// Says no.
    Refuses,
}

impl Conduct {
    /// Every kind of misconduct.
    pub(crate) const ALL: [Conduct; 11] = [
        Conduct::Lies,
        Conduct::WrongAtFirst,
        Conduct::Evades,
        Conduct::HonestUntilAsked,
        Conduct::Rotten,
        Conduct::Absent,
        Conduct::Garbage,
        Conduct::Half,
        Conduct::Stalls,
        Conduct::Drips,
        Conduct::Refuses,
    ];
}

#[derive(Default)]
struct Kept {
    fragments: BTreeMap<FragmentId, (Bytes, Access, PublicKey)>,
    heads: BTreeMap<DatasetId, Bytes>,
}

/// What a provider keeps and does.
pub(crate) struct Shelf {
    key: SigningKey,
    operator: String,
    kept: Mutex<Kept>,
    conduct: Mutex<(Conduct, BTreeSet<FragmentId>)>,
    /// Requests for ranges that are being answered.
    reading: watch::Sender<usize>,
    /// Where it is paid; without one it takes no money.
    till: OnceLock<Arc<Till>>,
}

/// One provider.
pub(crate) struct Provider {
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) address: String,
    server: Option<Server>,
}

impl Provider {
    pub(crate) async fn start(nth: u8) -> Provider {
        let shelf = Arc::new(Shelf {
            key: SigningKey::from_seed([100 + nth; 32]),
            operator: format!("operator-{nth}"),
            kept: Mutex::default(),
            conduct: Mutex::new((Conduct::Honest, BTreeSet::new())),
            reading: watch::Sender::new(0),
            till: OnceLock::new(),
        });
        let identity = Identity::new(&shelf.key);
        let (address, limits) = ("127.0.0.1:0".parse().unwrap(), ServerLimits::default());
        let server = Server::bind(address, &identity, limits, OnShelf(Arc::clone(&shelf))).await.unwrap();
        Provider { shelf, address: server.local_address().to_string(), server: Some(server) }
    }

    pub(crate) fn key(&self) -> PublicKey {
        self.shelf.key.public()
    }

    /// Ends it at once: nobody listens any more.
    pub(crate) async fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown(Duration::ZERO).await;
        }
    }
}

impl Shelf {
    /// Wants to be paid from now on.
    pub(crate) fn open_till(&self, till: impl FnOnce(&SigningKey) -> Till) -> Arc<Till> {
        Arc::clone(self.till.get_or_init(|| Arc::new(till(&self.key))))
    }

    fn till(&self) -> Result<&Arc<Till>, Problem> {
        self.till.get().ok_or(Problem::new(ProblemCode::NotFound, "this provider is not paid"))
    }

    /// Counts what is about to be sent to whoever must pay for it.
    fn charge(&self, bytes: u64) -> Result<(), Problem> {
        let Some(till) = self.till.get() else { return Ok(()) };
        till.serve(bytes).map_err(|due| Problem::payment_required("pay first", due))
    }

    fn money(&self, route: Route, body: &[u8], peer: PublicKey) -> Answered {
        let till = self.till()?;
        let holds = |id: &FragmentId| self.fragment(id).is_some();
        let lost = || Problem::new(ProblemCode::Busy, "the answer is lost");
        let encoded = match route {
            Route::GetQuote => till.quote().encode(),
            Route::PostProposal => {
                let request = ProposalRequest::decode(body).unwrap();
                till.propose(&request, peer, holds).ok_or_else(lost)?.encode()
            }
            Route::PostRevision => {
                let request = RevisionRequest::decode(body).unwrap();
                till.revise(&request, holds).ok_or_else(lost)?.encode()
            }
            Route::ListSet { after, limit } => till.page(after, limit).encode(),
            Route::PostVoucher => {
                let request = VoucherRequest::decode(body).unwrap();
                till.voucher(request).ok_or_else(lost)?.encode()
            }
            other => unreachable!("{other:?} is not about money"),
        };
        Ok(answer_json(StatusCode::OK, encoded))
    }

    pub(crate) fn behave(&self, conduct: Conduct) {
        *self.conduct.lock().unwrap() = (conduct, BTreeSet::new());
    }

    /// Misbehaves about these fragments only.
    pub(crate) fn behave_about(&self, conduct: Conduct, fragments: impl IntoIterator<Item = FragmentId>) {
        *self.conduct.lock().unwrap() = (conduct, fragments.into_iter().collect());
    }

    /// Keeps a fragment that nobody has pushed.
    pub(crate) fn keep(&self, bytes: Bytes, access: Access) -> FragmentId {
        let id = FragmentId::of(&bytes);
        self.kept.lock().unwrap().fragments.insert(id, (bytes, access, PublicKey([0; 32])));
        id
    }

    /// Keeps other bytes under a fragment's id, if it keeps that at all.
    pub(crate) fn forge(&self, id: FragmentId, forge: impl FnOnce(&[u8]) -> Vec<u8>) {
        if let Some((bytes, _, _)) = self.kept.lock().unwrap().fragments.get_mut(&id) {
            *bytes = forge(bytes).into();
        }
    }

    pub(crate) fn fragment(&self, id: &FragmentId) -> Option<Bytes> {
        self.kept.lock().unwrap().fragments.get(id).map(|(bytes, _, _)| bytes.clone())
    }

    pub(crate) fn head(&self, dataset: &DatasetId) -> Option<Bytes> {
        self.kept.lock().unwrap().heads.get(dataset).cloned()
    }

    pub(crate) fn keep_head(&self, dataset: DatasetId, head: Bytes) {
        self.kept.lock().unwrap().heads.insert(dataset, head);
    }

    /// Requests for ranges that are being answered.
    pub(crate) fn reading(&self) -> watch::Receiver<usize> {
        self.reading.subscribe()
    }

    fn conduct(&self, id: &FragmentId) -> Conduct {
        let (conduct, about) = &*self.conduct.lock().unwrap();
        if about.is_empty() || about.contains(id) { *conduct } else { Conduct::Honest }
    }

    fn readable(&self, id: &FragmentId, peer: PublicKey, headers: &HeaderMap) -> Result<Bytes, Problem> {
        let kept = self.kept.lock().unwrap();
        let not_found = || Problem::new(ProblemCode::NotFound, "not held");
        let (bytes, access, owner) = kept.fragments.get(id).ok_or_else(not_found)?;
        let refused = || Problem::new(ProblemCode::TokenRefused, "no token");
        match access {
            Access::Public => {}
            _ if peer == *owner => {}
            Access::Owner => return Err(refused()),
            Access::Reader(reader) => {
                let shown = headers.get(AUTHORIZATION).ok_or_else(refused)?.to_str().unwrap();
                let token = ReaderToken::check(&parse_authorization(shown)?).map_err(|_| refused())?;
                if token.reader != *reader || token.bearer != peer {
                    return Err(refused());
                }
            }
        }
        Ok(bytes.clone())
    }

    fn put(&self, id: FragmentId, body: Bytes, peer: PublicKey, headers: &HeaderMap) -> Answered {
        let header = |name: &str| headers.get(name).unwrap().to_str().unwrap();
        let until = parse_until(header(HEADER_UNTIL))?;
        let access: Access = header(HEADER_ACCESS).parse()?;
        if FragmentId::of(&body) != id {
            return Err(Problem::new(ProblemCode::HashMismatch, "other bytes"));
        }
        let receipt = self.receipt(id, body.len(), peer, until);
        self.kept.lock().unwrap().fragments.insert(id, (body, access, peer));
        Ok(answer_bytes(StatusCode::CREATED, receipt))
    }

    fn receipt(&self, fragment: FragmentId, length: usize, client: PublicKey, until: Timestamp) -> Vec<u8> {
        let (provider, time) = (self.key.public(), Timestamp(1_000));
        Receipt { provider, client, fragment, length: length as u64, until, time }.sign(&self.key)
    }

    fn claims(&self, body: &[u8], peer: PublicKey) -> Answered {
        let requests = decode_claim_requests(body).unwrap();
        let answers: Vec<ClaimAnswer> = requests
            .iter()
            .map(|request| {
                let fragment = request.fragment;
                let result = match (request.action, self.fragment(&fragment)) {
                    (ClaimAction::Release, _) => ClaimResult::Released,
                    (ClaimAction::Renew(_), None) => ClaimResult::Absent,
                    (ClaimAction::Renew(until), Some(bytes)) => {
                        let receipt = self.receipt(fragment, bytes.len(), peer, until);
                        ClaimResult::Receipt(SignedBytes(receipt))
                    }
                };
                ClaimAnswer { fragment, result }
            })
            .collect();
        Ok(answer_json(StatusCode::OK, encode_claim_answers(&answers)))
    }

    fn statement(&self, fragment: FragmentId, range: &Range<u64>, answer: Answer) -> Vec<u8> {
        let (provider, time) = (self.key.public(), Timestamp(1_000));
        Statement { provider, fragment, start: range.start, end: range.end, answer, time }.sign(&self.key)
    }

    fn signed(&self, id: FragmentId, range: &Range<u64>, slice: Vec<u8>) -> Response<Body> {
        let statement = self.statement(id, range, Answer::Slice(FragmentId::of(&slice).0));
        answer_bytes(StatusCode::OK, [statement, slice].concat())
    }

    async fn range(&self, id: FragmentId, peer: PublicKey, headers: &HeaderMap) -> Answered {
        let bytes = self.readable(&id, peer, headers)?;
        let range = parse_range(headers.get(RANGE).unwrap().to_str().unwrap())?;
        let piece = part(&bytes, &range).ok_or(Problem::new(ProblemCode::RangeOutside, "outside"))?;
        self.charge(range.end - range.start)?;
        let conduct = self.conduct(&id);
        let body = match conduct {
            Conduct::Honest | Conduct::HonestUntilAsked => Body::from(piece),
            Conduct::Lies | Conduct::WrongAtFirst | Conduct::Evades => Body::from(spoilt(&piece)),
            Conduct::Garbage => return Ok(answer_bytes(StatusCode::OK, b"lorem ipsum".as_slice())),
            conduct => incomplete(conduct, piece).await?,
        };
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let named = format_content_range(&range, bytes.len() as u64).parse().unwrap();
        response.headers_mut().insert(CONTENT_RANGE, named);
        Ok(response)
    }

    async fn proof(
        &self,
        id: FragmentId,
        range: Range<u64>,
        peer: PublicKey,
        headers: &HeaderMap,
    ) -> Answered {
        let bytes = match self.readable(&id, peer, headers) {
            Ok(bytes) => bytes,
            Err(problem) if problem.code == ProblemCode::NotFound => {
                return Ok(answer_bytes(StatusCode::OK, self.statement(id, &range, Answer::Absent)));
            }
            Err(problem) => return Err(problem),
        };
        let mut hasher = FragmentHasher::default();
        hasher.update(&bytes);
        let (_, outboard) = hasher.finish();
        let length = bytes.len() as u64;
        let outside = |_| Problem::new(ProblemCode::RangeOutside, "outside");
        let covered = slice::covered(length, &range).map_err(outside)?;
        self.charge(range.end - range.start)?;
        let slice = slice::encode(length, &outboard, &range, &part(&bytes, &covered).unwrap()).unwrap();
        match self.conduct(&id) {
            Conduct::Honest | Conduct::WrongAtFirst | Conduct::ProvesOnly => {
                Ok(self.signed(id, &range, slice))
            }
            Conduct::Lies => Ok(self.signed(id, &range, spoilt(&slice))),
            Conduct::Evades | Conduct::HonestUntilAsked => {
                Err(Problem::new(ProblemCode::Busy, "ask me later"))
            }
            Conduct::Garbage => Ok(answer_bytes(StatusCode::OK, spoilt(&slice))),
            Conduct::Rotten => Ok(answer_bytes(StatusCode::OK, self.statement(id, &range, Answer::Rotten))),
            Conduct::Absent => Ok(answer_bytes(StatusCode::OK, self.statement(id, &range, Answer::Absent))),
            conduct => Ok(Response::new(incomplete(conduct, slice.into()).await?)),
        }
    }

    async fn answer(&self, mut call: Call) -> Answered {
        let uri = call.request.uri().clone();
        let route = Route::parse(call.request.method().as_str(), uri.path(), uri.query())?;
        let (headers, peer) = (call.request.headers().clone(), call.peer);
        let limit = usize::try_from(route.spec().body_bytes_max).unwrap();
        let body = call.request.body_mut().read_all(limit).await.unwrap();
        match route {
            Route::Hello => Ok(answer_json(StatusCode::OK, self.hello().encode())),
            Route::PutFragment(id) => self.put(id, body, peer, &headers),
            Route::GetFragment(id) => {
                let _reading = Busy::new(&self.reading);
                self.range(id, peer, &headers).await
            }
            Route::GetProof { fragment, range } => {
                let _reading = Busy::new(&self.reading);
                self.proof(fragment, range, peer, &headers).await
            }
            Route::PostClaims => self.claims(&body, peer),
            Route::PutHead(dataset) => {
                self.keep_head(dataset, body);
                Ok(answer_bytes(StatusCode::CREATED, Bytes::new()))
            }
            Route::GetHead(dataset) => {
                let head = self.head(&dataset).ok_or(Problem::new(ProblemCode::NotFound, "no head"))?;
                Ok(answer_bytes(StatusCode::OK, head))
            }
            Route::ListClaims { .. } => Err(Problem::new(ProblemCode::BadRequest, "not here")),
            Route::GetQuote
            | Route::PostProposal
            | Route::PostRevision
            | Route::ListSet { .. }
            | Route::PostVoucher => self.money(route, &body, peer),
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            protocol: ALPN.to_owned(),
            features: Vec::new(),
            provider: self.key.public(),
            operator: self.operator.clone(),
            region: "here".to_owned(),
            capacity_bytes: 1 << 30,
            free_bytes: 1 << 30,
            prices: Prices::default(),
            accepting: Accepting::Anyone,
        }
    }
}

type Answered = Result<Response<Body>, Problem>;

struct OnShelf(Arc<Shelf>);

impl Handler for OnShelf {
    async fn handle(&self, call: Call) -> Response<Body> {
        self.0.answer(call).await.unwrap_or_else(|problem| answer_problem(&problem))
    }
}

/// Counts a request as long as it is answered; a client that goes away ends it.
struct Busy<'a>(&'a watch::Sender<usize>);

impl Busy<'_> {
    fn new(counter: &watch::Sender<usize>) -> Busy<'_> {
        counter.send_modify(|count| *count += 1);
        Busy(counter)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// What those answer who give no whole answer.
async fn incomplete(conduct: Conduct, bytes: Bytes) -> Result<Body, Problem> {
    match conduct {
        Conduct::Stalls | Conduct::ProvesOnly => std::future::pending().await,
        Conduct::Rotten => Err(Problem::new(ProblemCode::Rotten, "rotten")),
        Conduct::Absent => Err(Problem::new(ProblemCode::NotFound, "not held")),
        Conduct::Refuses => Err(Problem::new(ProblemCode::TokenRefused, "no")),
        Conduct::Half => {
            let (sender, body) = Body::produced(bytes.len() as u64);
            tokio::spawn(async move { sender.send(bytes.slice(..bytes.len() / 2)).await });
            Ok(body)
        }
        Conduct::Drips => {
            let (sender, body) = Body::produced(bytes.len() as u64);
            tokio::spawn(async move {
                for at in 0..bytes.len() {
                    // The slowness itself, not something to wait for.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    if sender.send(bytes.slice(at..=at)).await.is_err() {
                        return;
                    }
                }
            });
            Ok(body)
        }
        conduct => unreachable!("{conduct:?} gives whole answers"),
    }
}

/// With one bit flipped, somewhere in the middle.
pub(crate) fn spoilt(bytes: &[u8]) -> Vec<u8> {
    let mut spoilt = bytes.to_vec();
    let middle = spoilt.len() / 2;
    spoilt[middle] ^= 1;
    spoilt
}

fn part(bytes: &Bytes, range: &Range<u64>) -> Option<Bytes> {
    let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
    (start < end && end <= bytes.len()).then(|| bytes.slice(start..end))
}

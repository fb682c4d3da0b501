//! The provider's routes as typed calls. Every answer is checked as far as its bytes alone allow: lengths, signatures,
//! and that it answers what was asked. Whether plain bytes are the right ones shows when they are opened or verified.

use crate::asked::asked_now;
use crate::client::{AnswerMax, Client, ClientLimits};
use crate::dial::{Dial, PeerAddress};
use crate::error::{CallError, MalformedAnswer};
use crate::identity::Identity;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use seedbank_formats::receipt::{Receipt, Statement};
use seedbank_formats::{Asked, DatasetId, FragmentId, PublicKey, Timestamp};
use seedbank_protocol::answers::{ReceiptQuestion, check_receipt, check_statement};
use seedbank_protocol::messages::{
    ClaimAction, ClaimAnswer, ClaimRequest, ClaimResult, ClaimRow, Hello, Problem, decode_claim_answers,
    decode_claims_page, encode_claim_requests,
};
use seedbank_protocol::routes::{
    Access, CLAIMS_BATCH_MAX, HEAD_BYTES_MAX, HEADER_ACCESS, HEADER_ASKED, HEADER_UNTIL, JSON_BYTES_MAX,
    PROBLEM_BYTES_MAX, PROOF_SLICE_BYTES_MAX, Route, format_asked, format_authorization, format_range,
    format_until, parse_content_range,
};
use std::ops::{Deref, Range};

mod payments;

/// A value whose signature was checked, with the bytes that were signed: evidence that can be shown to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<T> {
    /// What was signed.
    pub value: T,
    /// As it came, signature included.
    pub bytes: Bytes,
}

impl<T> Deref for Signed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// A provider's word for a range, and the slice it answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The checked statement: this provider, this fragment, this range, and this slice's hash.
    pub statement: Signed<Statement>,
    /// Proof and data together, not yet held against the fragment's id. Empty when the provider admits rot or absence.
    pub slice: Bytes,
}

/// What became of one claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// Renewed. Until when, the receipt says: it may be sooner than was asked.
    Renewed(Signed<Receipt>),
    /// Released, or there was nothing to release.
    Released,
    /// Not released: we have asked for the claim again since we asked for the release.
    Kept,
    /// The provider does not hold the fragment for this client.
    Absent,
    /// The provider's bytes no longer match the id.
    Rotten,
}

/// What became of a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadPut {
    /// The provider keeps it.
    Stored,
    /// The provider holds this newer one, whose signature is not checked here.
    Newer(Bytes),
}

/// Calls providers. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct ProviderClient {
    client: Client,
}

impl ProviderClient {
    /// A client that proves `identity` and opens streams with `dial`.
    #[must_use]
    pub fn new(identity: &Identity, dial: impl Dial, limits: ClientLimits) -> ProviderClient {
        ProviderClient { client: Client::new(identity, dial, limits) }
    }

    /// The key that this client proves: claims are made for it and reader tokens must name it as their bearer.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.client.public()
    }

    /// Asks a provider who it is and what it offers to this client.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn hello(&self, peer: &PeerAddress) -> Result<Hello, CallError> {
        let ask = Ask { peer, client: &self.client };
        let response = ask.send(&Route::Hello, HeaderMap::new(), Bytes::new(), json_max()).await?;
        let body = ask.expect(response, StatusCode::OK)?;
        let hello = Hello::decode(&body).map_err(|error| ask.malformed(error))?;
        if hello.provider != peer.key {
            return Err(ask.malformed(MalformedAnswer::Mismatch("provider key")));
        }
        Ok(hello)
    }

    /// Stores a fragment and claims it until `until`, at most 24 hours ahead: the commit renews it. A fragment that the
    /// provider holds already is not sent again.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn put_fragment(
        &self,
        peer: &PeerAddress,
        id: FragmentId,
        bytes: Bytes,
        until: Timestamp,
        access: Access,
    ) -> Result<Signed<Receipt>, CallError> {
        let ask = Ask { peer, client: &self.client };
        let length = u64::try_from(bytes.len()).expect("usize has at most 64 bits");
        let mut headers = HeaderMap::new();
        put_header(&mut headers, HeaderName::from_static(HEADER_UNTIL), &format_until(until));
        put_header(&mut headers, HeaderName::from_static(HEADER_ACCESS), &access.to_string());
        put_asked(&mut headers, asked_now());
        put_header(&mut headers, CONTENT_TYPE, "application/octet-stream");
        let response = ask.send(&Route::PutFragment(id), headers, bytes, json_max()).await?;
        let body = ask.expect(response, StatusCode::CREATED)?;
        ask.check_receipt(body, &id, Some(length))
    }

    /// Reads exactly these bytes of a fragment; the range must not be empty. They are what the provider sent, not yet
    /// proven.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn get_range(
        &self,
        peer: &PeerAddress,
        id: FragmentId,
        range: Range<u64>,
        token: Option<&[u8]>,
    ) -> Result<Bytes, CallError> {
        let ask = Ask { peer, client: &self.client };
        let expected = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let mut headers = token_header(token);
        put_header(&mut headers, RANGE, &format_range(&range));
        let answer_max = AnswerMax { success: expected, refusal: PROBLEM_BYTES_MAX };
        let response = ask.send(&Route::GetFragment(id), headers, Bytes::new(), answer_max).await?;
        let named = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let named = named.and_then(|value| parse_content_range(value).ok()).map(|(range, _length)| range);
        let body = ask.expect(response, StatusCode::PARTIAL_CONTENT)?;
        if named != Some(range) {
            return Err(ask.malformed(MalformedAnswer::Mismatch("content-range")));
        }
        if body.len() != expected {
            return Err(ask.malformed(MalformedAnswer::WrongLength { expected, actual: body.len() }));
        }
        Ok(body)
    }

    /// Reads a range with its proof, and with the provider's signed word for it. The range must not be empty nor above
    /// [`PROOF_RANGE_BYTES_MAX`](seedbank_protocol::routes::PROOF_RANGE_BYTES_MAX).
    ///
    /// # Errors
    /// [`CallError`]. That the provider is wrong, or admits it, is no error here: it is what the proof says.
    pub async fn get_proof(
        &self,
        peer: &PeerAddress,
        id: FragmentId,
        range: Range<u64>,
        token: Option<&[u8]>,
    ) -> Result<Proof, CallError> {
        let ask = Ask { peer, client: &self.client };
        let answer_max =
            AnswerMax { success: Statement::ENCODED_LEN + PROOF_SLICE_BYTES_MAX, refusal: PROBLEM_BYTES_MAX };
        let route = Route::GetProof { fragment: id, range: range.clone() };
        let response = ask.send(&route, token_header(token), Bytes::new(), answer_max).await?;
        let mut body = ask.expect(response, StatusCode::OK)?;
        if body.len() < Statement::ENCODED_LEN {
            let reason =
                MalformedAnswer::WrongLength { expected: Statement::ENCODED_LEN, actual: body.len() };
            return Err(ask.malformed(reason));
        }
        let signed = body.split_to(Statement::ENCODED_LEN);
        let statement = check_statement(&signed, &body, &peer.key, &id, &range);
        let statement = statement.map_err(|error| ask.malformed(error))?;
        Ok(Proof { statement: Signed { value: statement, bytes: signed }, slice: body })
    }

    /// Renews and releases claims, in batches. The outcomes stand in the order of the requests. A batch that fails
    /// leaves those before it done; repeating all is harmless.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn claims(
        &self,
        peer: &PeerAddress,
        requests: &[ClaimRequest],
    ) -> Result<Vec<ClaimOutcome>, CallError> {
        self.claims_as_of(peer, requests, asked_now()).await
    }

    /// The same for what was decided at an earlier moment: it does not undo what was asked for since.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn claims_as_of(
        &self,
        peer: &PeerAddress,
        requests: &[ClaimRequest],
        asked: Asked,
    ) -> Result<Vec<ClaimOutcome>, CallError> {
        let ask = Ask { peer, client: &self.client };
        let mut outcomes = Vec::with_capacity(requests.len());
        for batch in requests.chunks(CLAIMS_BATCH_MAX) {
            let body = Bytes::from(encode_claim_requests(batch));
            let mut headers = json_header();
            put_asked(&mut headers, asked);
            let response = ask.send(&Route::PostClaims, headers, body, json_max()).await?;
            let body = ask.expect(response, StatusCode::OK)?;
            let answers = decode_claim_answers(&body).map_err(|error| ask.malformed(error))?;
            if answers.len() != batch.len() {
                return Err(ask.malformed(MalformedAnswer::Mismatch("number of claims")));
            }
            for (request, answer) in batch.iter().zip(answers) {
                outcomes.push(ask.check_claim(request, answer)?);
            }
        }
        Ok(outcomes)
    }

    /// A page of this client's claims, in rising order of fragment ids, after `after`. An empty page is the end.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn list_claims(
        &self,
        peer: &PeerAddress,
        after: Option<FragmentId>,
        limit: usize,
    ) -> Result<Vec<ClaimRow>, CallError> {
        let ask = Ask { peer, client: &self.client };
        let route = Route::ListClaims { after, limit };
        let response = ask.send(&route, HeaderMap::new(), Bytes::new(), json_max()).await?;
        let body = ask.expect(response, StatusCode::OK)?;
        let rows = decode_claims_page(&body).map_err(|error| ask.malformed(error))?;
        let begins_after = rows.first().is_none_or(|row| after.is_none_or(|after| row.fragment > after));
        if rows.len() > limit || !begins_after {
            return Err(ask.malformed(MalformedAnswer::Mismatch("page of claims")));
        }
        Ok(rows)
    }

    /// Asks a provider to keep a head.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn put_head(
        &self,
        peer: &PeerAddress,
        dataset: DatasetId,
        head: Bytes,
    ) -> Result<HeadPut, CallError> {
        let ask = Ask { peer, client: &self.client };
        let answer_max = AnswerMax { success: JSON_BYTES_MAX, refusal: HEAD_BYTES_MAX };
        let response = ask.send(&Route::PutHead(dataset), HeaderMap::new(), head, answer_max).await?;
        if response.status() == StatusCode::CONFLICT {
            return Ok(HeadPut::Newer(response.into_body()));
        }
        ask.expect(response, StatusCode::CREATED).map(|_| HeadPut::Stored)
    }

    /// The head of a dataset as the provider keeps it; its signature is not checked here.
    ///
    /// # Errors
    /// [`CallError`]; a provider without it refuses with
    /// [`ProblemCode::NotFound`](seedbank_protocol::messages::ProblemCode::NotFound).
    pub async fn get_head(&self, peer: &PeerAddress, dataset: DatasetId) -> Result<Bytes, CallError> {
        let ask = Ask { peer, client: &self.client };
        let answer_max = AnswerMax { success: HEAD_BYTES_MAX, refusal: PROBLEM_BYTES_MAX };
        let response = ask.send(&Route::GetHead(dataset), HeaderMap::new(), Bytes::new(), answer_max).await?;
        ask.expect(response, StatusCode::OK)
    }
}

fn json_max() -> AnswerMax {
    AnswerMax { success: JSON_BYTES_MAX, refusal: PROBLEM_BYTES_MAX }
}

fn put_header(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("numbers, hex and fixed words are header values");
    headers.insert(name, value);
}

fn put_asked(headers: &mut HeaderMap, asked: Asked) {
    put_header(headers, HeaderName::from_static(HEADER_ASKED), &format_asked(asked));
}

fn json_header() -> HeaderMap {
    let mut headers = HeaderMap::new();
    put_header(&mut headers, CONTENT_TYPE, "application/json");
    headers
}

fn token_header(token: Option<&[u8]>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        put_header(&mut headers, AUTHORIZATION, &format_authorization(token));
    }
    headers
}

/// One question to one peer.
#[derive(Clone, Copy)]
struct Ask<'a> {
    peer: &'a PeerAddress,
    client: &'a Client,
}

impl Ask<'_> {
    async fn send(
        &self,
        route: &Route,
        headers: HeaderMap,
        body: Bytes,
        answer_max: AnswerMax,
    ) -> Result<Response<Bytes>, CallError> {
        let mut request = Request::new(body);
        *request.method_mut() = route.spec().method.as_str().parse().expect("the table's methods are HTTP's");
        *request.uri_mut() = route.target().parse().expect("targets are plain ASCII paths");
        *request.headers_mut() = headers;
        self.client.call(self.peer, &request, answer_max).await
    }

    /// The body of an answer with this status; a refusal as the problem that it carries.
    fn expect(&self, response: Response<Bytes>, status: StatusCode) -> Result<Bytes, CallError> {
        if response.status() == status {
            return Ok(response.into_body());
        }
        if !(response.status().is_client_error() || response.status().is_server_error()) {
            return Err(self.malformed(MalformedAnswer::Status(response.status().as_u16())));
        }
        let problem = Problem::decode(response.body()).map_err(|error| self.malformed(error))?;
        Err(CallError::Refused { peer: self.peer.key, problem })
    }

    fn malformed(&self, reason: impl Into<MalformedAnswer>) -> CallError {
        CallError::Malformed { peer: self.peer.key, reason: reason.into() }
    }

    fn check_receipt(
        &self,
        bytes: Bytes,
        id: &FragmentId,
        length: Option<u64>,
    ) -> Result<Signed<Receipt>, CallError> {
        let (provider, client) = (self.peer.key, self.client.public());
        let asked = ReceiptQuestion { provider, client, fragment: *id, length };
        let receipt = check_receipt(&bytes, &asked).map_err(|error| self.malformed(error))?;
        Ok(Signed { value: receipt, bytes })
    }

    fn check_claim(&self, request: &ClaimRequest, answer: ClaimAnswer) -> Result<ClaimOutcome, CallError> {
        if answer.fragment != request.fragment {
            return Err(self.malformed(MalformedAnswer::Mismatch("order of claims")));
        }
        match (request.action, answer.result) {
            (ClaimAction::Renew(_), ClaimResult::Receipt(signed)) => {
                self.check_receipt(Bytes::from(signed.0), &request.fragment, None).map(ClaimOutcome::Renewed)
            }
            (ClaimAction::Release, ClaimResult::Released) => Ok(ClaimOutcome::Released),
            (ClaimAction::Release, ClaimResult::Kept) => Ok(ClaimOutcome::Kept),
            (ClaimAction::Renew(_), ClaimResult::Absent) => Ok(ClaimOutcome::Absent),
            (ClaimAction::Renew(_), ClaimResult::Rotten) => Ok(ClaimOutcome::Rotten),
            (ClaimAction::Renew(_), ClaimResult::Released | ClaimResult::Kept)
            | (ClaimAction::Release, ClaimResult::Receipt(_) | ClaimResult::Absent | ClaimResult::Rotten) => {
                Err(self.malformed(MalformedAnswer::Mismatch("claim's result")))
            }
        }
    }
}

//! The few shapes of answers that handlers give.

use crate::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use seedbank_protocol::messages::Problem;

/// An answer with a JSON body, already encoded.
#[must_use]
pub fn answer_json(status: StatusCode, json: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer with a binary body.
#[must_use]
pub fn answer_bytes(status: StatusCode, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response
}

/// A refusal.
#[must_use]
pub fn answer_problem(problem: &Problem) -> Response<Body> {
    let status = StatusCode::from_u16(problem.code.status()).expect("every code has a valid status");
    let mut response = answer_json(status, problem.encode());
    if let Some(seconds) = problem.retry_after_s {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

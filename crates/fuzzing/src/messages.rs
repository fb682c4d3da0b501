//! What peers say in JSON, and the lines and headers of their requests and answers.

use crate::input::Input;
use seedbank_protocol::messages::{
    Hello, MessageError, Problem, decode_claim_answers, decode_claim_requests, decode_claims_page,
    encode_claim_answers, encode_claim_requests, encode_claims_page,
};
use seedbank_protocol::routes::{
    Access, Route, format_asked, format_authorization, format_content_range, format_range, format_until,
    parse_asked, parse_authorization, parse_content_range, parse_range, parse_until,
};

/// JSON has many spellings; what was understood is the same when it is written and read again.
pub(crate) fn reads_back<T: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, MessageError>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Option<T> {
    let message = decode(bytes).ok()?;
    assert_eq!(decode(&encode(&message)).expect("what was read can be written"), message);
    Some(message)
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = input.below(5);
    let bytes = input.rest();
    match kind {
        0 => drop(reads_back(bytes, Hello::decode, Hello::encode)),
        1 => {
            if let Some(problem) = reads_back(bytes, Problem::decode, Problem::encode) {
                assert!(!problem.to_string().chars().any(char::is_control), "it can be shown");
                assert!((400..600).contains(&problem.code.status()));
            }
        }
        2 => {
            reads_back(bytes, decode_claim_requests, |list: &Vec<_>| encode_claim_requests(list));
        }
        3 => {
            reads_back(bytes, decode_claim_answers, |list: &Vec<_>| encode_claim_answers(list));
        }
        _ => {
            reads_back(bytes, decode_claims_page, |list: &Vec<_>| encode_claims_page(list));
        }
    }
}

pub(crate) fn run_requests(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = input.below(7);
    let Ok(text) = str::from_utf8(input.rest()) else { return };
    match kind {
        0 => {
            let mut lines = text.splitn(3, '\n');
            let (method, path) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
            if let Ok(route) = Route::parse(method, path, lines.next()) {
                let target = route.target();
                let (path, query) =
                    target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
                assert_eq!(Route::parse(method, path, query).ok(), Some(route), "a route reads back");
            }
        }
        1 => {
            if let Ok(range) = parse_range(text) {
                assert_eq!(parse_range(&format_range(&range)), Ok(range));
            }
        }
        2 => {
            if let Ok((range, length)) = parse_content_range(text) {
                assert!(range.start < range.end && range.end <= length);
                assert_eq!(parse_content_range(&format_content_range(&range, length)), Ok((range, length)));
            }
        }
        3 => {
            if let Ok(until) = parse_until(text) {
                assert_eq!(parse_until(&format_until(until)), Ok(until));
            }
        }
        4 => {
            if let Ok(token) = parse_authorization(text) {
                assert_eq!(parse_authorization(&format_authorization(&token)), Ok(token));
            }
        }
        5 => {
            if let Ok(asked) = parse_asked(text) {
                assert_eq!(parse_asked(&format_asked(asked)), Ok(asked));
            }
        }
        _ => {
            if let Ok(access) = text.parse::<Access>() {
                assert_eq!(access.to_string().parse(), Ok(access));
            }
        }
    }
}

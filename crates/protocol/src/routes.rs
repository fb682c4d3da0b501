//! The routes between a client and a provider, as data: their paths, who may call each, what each may carry.
//!
//! The provider's dispatcher, the client and `docs/protocol.md` all follow [`ROUTES`]; a request that is not in the
//! table has no meaning. Header values, paths and queries are parsed and formatted here, strictly: a value has one
//! spelling. Nothing here opens a socket or knows an HTTP library.

use crate::messages::{Problem, ProblemCode, decode_hex, encode_hex};
use seedbank_formats::{Asked, DatasetId, FragmentId, PublicKey, Timestamp};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// The application protocol that both ends must negotiate by TLS ALPN. Its number is the major version: a peer that
/// can't speak it is refused by name.
pub const ALPN: &str = "seedbank/1";

/// Request: until when a claim shall last, in Unix seconds.
pub const HEADER_UNTIL: &str = "seedbank-until";
/// Request: who may read the fragment, an [`Access`].
pub const HEADER_ACCESS: &str = "seedbank-access";

/// Request: when the client asked for a claim or its end, an [`Asked`]. A release does not end what was asked for later,
/// so that one which comes late or twice does no harm.
pub const HEADER_ASKED: &str = "seedbank-asked";

/// A fragment is at most one whole segment: a policy of plain copies (k = 1) stores segments uncut.
pub const FRAGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A pending claim outlives the longest reasonable upload, and not a writer that died.
pub const PENDING_SECONDS_MAX: u64 = 24 * 60 * 60;
/// One batch of claims is answered from one database transaction of a provider: some ten milliseconds.
pub const CLAIMS_BATCH_MAX: usize = 1_000;
/// One page of claims fits well into [`JSON_BYTES_MAX`].
pub const CLAIMS_PAGE_MAX: usize = 1_000;
/// A thousand claims with their receipts in hex take half of this.
pub const JSON_BYTES_MAX: usize = 1024 * 1024;
/// A head names the holders of a few segments with up to 255 fragments each, at some 80 bytes a holder.
pub const HEAD_BYTES_MAX: usize = seedbank_formats::head::HEAD_BYTES_MAX;
/// Fragments that one proposal or revision may add, and as many that it may remove: a set of any size is reached in steps.
pub const SET_CHANGE_MAX: usize = 5_000;
/// The largest change of a set takes half of this.
pub const SET_CHANGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// One page of a set fits well into [`JSON_BYTES_MAX`].
pub const SET_PAGE_MAX: usize = 5_000;
/// Fragments of one set. Both sides hold a set in memory while they make its root: 110 MB then.
pub const SET_FRAGMENTS_MAX: usize = 1_000_000;
/// A voucher is three addresses, an amount and a signature.
pub const VOUCHER_BYTES_MAX: usize = 4 * 1024;
/// A proof is built and checked in memory on both sides; longer ranges are asked for in pieces.
pub const PROOF_RANGE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The longest slice that a provider may answer a proof with: the range rounded out to groups and its tree nodes,
/// which are far fewer than one node of 64 bytes for each group of 16 KiB and two walks down from the root.
pub const PROOF_SLICE_BYTES_MAX: usize = 5 * 1024 * 1024;
/// A problem is a code and a sentence.
pub const PROBLEM_BYTES_MAX: usize = 16 * 1024;
/// A reader token has some 140 bytes; room for more fields in its next version.
pub const TOKEN_BYTES_MAX: usize = 1024;
/// All header lines of a message with its first line: ours take under 1 KiB.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// A request body above this is sent with `expect: 100-continue`, and only after the provider has said so: a refusal
/// then costs no transfer. It is also the most that either end reads of a body that nobody wants before it closes the
/// connection.
pub const UNASKED_BODY_BYTES_MAX: u64 = 256 * 1024;

/// The methods that our routes use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Stores under a name that the request chose; may be repeated.
    Put,
    /// Changes many things at once; ours may be repeated as well.
    Post,
}

impl Method {
    /// As HTTP spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Put => "PUT",
            Method::Post => "POST",
        }
    }
}

/// Who may call a route. Every caller has proven a key by TLS; nobody is anonymous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Any key.
    AnyKey,
    /// A key to which the operator grants a quota. Unknown keys have none, unless the provider is open.
    Customer,
    /// Any key, which sees and changes its own claims and no others.
    Claimant,
    /// Any key, which sees and changes its own wallet's agreement and no other.
    Party,
    /// Who holds the claim; anyone, if a claim says public; or the bearer of a reader token that a claim names.
    Reader,
}

impl Caller {
    /// As the documentation says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Caller::AnyKey => "any key",
            Caller::Customer => "a key with quota",
            Caller::Claimant => "any key, for its own claims",
            Caller::Party => "any key, for its own agreement",
            Caller::Reader => "the claim's owner, a token's bearer, or anyone if public",
        }
    }
}

/// A route's name, for tables, logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteName {
    /// Who are you, what do you speak, take and cost?
    Hello,
    /// Store a fragment and claim it.
    PutFragment,
    /// Read a fragment or a range of it.
    GetFragment,
    /// Read a range with a proof and the provider's signed word.
    GetProof,
    /// Renew or release claims.
    PostClaims,
    /// List the caller's claims.
    ListClaims,
    /// Store a dataset's head.
    PutHead,
    /// Read a dataset's head.
    GetHead,
    /// What do you ask for, signed?
    GetQuote,
    /// Offer a first agreement.
    PostProposal,
    /// Agree on new terms.
    PostRevision,
    /// List the set that is kept for the caller.
    ListSet,
    /// Pay for reads.
    PostVoucher,
}

impl RouteName {
    /// As logs and metrics label it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            RouteName::Hello => "hello",
            RouteName::PutFragment => "put_fragment",
            RouteName::GetFragment => "get_fragment",
            RouteName::GetProof => "get_proof",
            RouteName::PostClaims => "post_claims",
            RouteName::ListClaims => "list_claims",
            RouteName::PutHead => "put_head",
            RouteName::GetHead => "get_head",
            RouteName::GetQuote => "get_quote",
            RouteName::PostProposal => "post_proposal",
            RouteName::PostRevision => "post_revision",
            RouteName::ListSet => "list_set",
            RouteName::PostVoucher => "post_voucher",
        }
    }

    /// The row of [`ROUTES`].
    #[must_use]
    pub const fn spec(self) -> &'static RouteSpec {
        match self {
            RouteName::Hello => &ROUTES[0],
            RouteName::PutFragment => &ROUTES[1],
            RouteName::GetFragment => &ROUTES[2],
            RouteName::GetProof => &ROUTES[3],
            RouteName::PostClaims => &ROUTES[4],
            RouteName::ListClaims => &ROUTES[5],
            RouteName::PutHead => &ROUTES[6],
            RouteName::GetHead => &ROUTES[7],
            RouteName::GetQuote => &ROUTES[8],
            RouteName::PostProposal => &ROUTES[9],
            RouteName::PostRevision => &ROUTES[10],
            RouteName::ListSet => &ROUTES[11],
            RouteName::PostVoucher => &ROUTES[12],
        }
    }
}

/// One row of the table of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteSpec {
    /// Its name.
    pub name: RouteName,
    /// Its method.
    pub method: Method,
    /// Its path, with `{}` around what varies.
    pub path: &'static str,
    /// Who may call it.
    pub caller: Caller,
    /// The longest request body, in bytes.
    pub body_bytes_max: u64,
}

/// Every route of version 1, and who may call it.
pub const ROUTES: [RouteSpec; 13] = [
    RouteSpec {
        name: RouteName::Hello,
        method: Method::Get,
        path: "/v1/hello",
        caller: Caller::AnyKey,
        body_bytes_max: 0,
    },
    RouteSpec {
        name: RouteName::PutFragment,
        method: Method::Put,
        path: "/v1/fragments/{id}",
        caller: Caller::Customer,
        body_bytes_max: FRAGMENT_BYTES_MAX,
    },
    RouteSpec {
        name: RouteName::GetFragment,
        method: Method::Get,
        path: "/v1/fragments/{id}",
        caller: Caller::Reader,
        body_bytes_max: 0,
    },
    RouteSpec {
        name: RouteName::GetProof,
        method: Method::Get,
        path: "/v1/fragments/{id}/proof",
        caller: Caller::Reader,
        body_bytes_max: 0,
    },
    RouteSpec {
        name: RouteName::PostClaims,
        method: Method::Post,
        path: "/v1/claims",
        caller: Caller::Claimant,
        body_bytes_max: JSON_BYTES_MAX as u64,
    },
    RouteSpec {
        name: RouteName::ListClaims,
        method: Method::Get,
        path: "/v1/claims",
        caller: Caller::Claimant,
        body_bytes_max: 0,
    },
    RouteSpec {
        name: RouteName::PutHead,
        method: Method::Put,
        path: "/v1/heads/{dataset}",
        caller: Caller::Customer,
        body_bytes_max: HEAD_BYTES_MAX as u64,
    },
    RouteSpec {
        name: RouteName::GetHead,
        method: Method::Get,
        path: "/v1/heads/{dataset}",
        caller: Caller::AnyKey,
        body_bytes_max: 0,
    },
    RouteSpec {
        name: RouteName::GetQuote,
        method: Method::Get,
        path: "/v1/quote",
        caller: Caller::AnyKey,
        body_bytes_max: 0,
    },
    RouteSpec {
        name: RouteName::PostProposal,
        method: Method::Post,
        path: "/v1/proposal",
        caller: Caller::Customer,
        body_bytes_max: SET_CHANGE_BYTES_MAX as u64,
    },
    RouteSpec {
        name: RouteName::PostRevision,
        method: Method::Post,
        path: "/v1/revision",
        caller: Caller::Party,
        body_bytes_max: SET_CHANGE_BYTES_MAX as u64,
    },
    RouteSpec {
        name: RouteName::ListSet,
        method: Method::Get,
        path: "/v1/set",
        caller: Caller::Party,
        body_bytes_max: 0,
    },
    RouteSpec {
        name: RouteName::PostVoucher,
        method: Method::Post,
        path: "/v1/voucher",
        caller: Caller::AnyKey,
        body_bytes_max: VOUCHER_BYTES_MAX as u64,
    },
];

/// What a request asks for: method, path and query, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// See [`RouteName::Hello`].
    Hello,
    /// See [`RouteName::PutFragment`].
    PutFragment(FragmentId),
    /// See [`RouteName::GetFragment`].
    GetFragment(FragmentId),
    /// See [`RouteName::GetProof`].
    GetProof {
        /// Of which fragment.
        fragment: FragmentId,
        /// Which bytes: not empty, at most [`PROOF_RANGE_BYTES_MAX`].
        range: Range<u64>,
    },
    /// See [`RouteName::PostClaims`].
    PostClaims,
    /// See [`RouteName::ListClaims`].
    ListClaims {
        /// Only fragments above this one.
        after: Option<FragmentId>,
        /// At most so many: 1 to [`CLAIMS_PAGE_MAX`].
        limit: usize,
    },
    /// See [`RouteName::PutHead`].
    PutHead(DatasetId),
    /// See [`RouteName::GetHead`].
    GetHead(DatasetId),
    /// See [`RouteName::GetQuote`].
    GetQuote,
    /// See [`RouteName::PostProposal`].
    PostProposal,
    /// See [`RouteName::PostRevision`].
    PostRevision,
    /// See [`RouteName::ListSet`].
    ListSet {
        /// Only fragments above this one.
        after: Option<FragmentId>,
        /// At most so many: 1 to [`SET_PAGE_MAX`].
        limit: usize,
    },
    /// See [`RouteName::PostVoucher`].
    PostVoucher,
}

impl Route {
    /// Understands a request's method, path and query.
    ///
    /// # Errors
    /// The [`Problem`] to answer with: an unknown version, path or method, or a malformed id or query.
    pub fn parse(method: &str, path: &str, query: Option<&str>) -> Result<Route, Problem> {
        let mut segments = path.strip_prefix('/').unwrap_or(path).split('/');
        match segments.next() {
            Some("v1") => {}
            Some(other) if is_version(other) => {
                return Err(Problem::new(
                    ProblemCode::UnknownVersion,
                    format!("this provider speaks v1 ({ALPN}), not {other}"),
                ));
            }
            _ => return Err(no_such_path()),
        }
        let rest: Vec<&str> = segments.take(4).collect();
        let route = match (method, rest.as_slice()) {
            ("GET", ["hello"]) => Route::Hello,
            ("PUT", ["fragments", id]) => Route::PutFragment(parse_id(id)?),
            ("GET", ["fragments", id]) => Route::GetFragment(parse_id(id)?),
            ("GET", ["fragments", id, "proof"]) => {
                let [start, end] = parse_query(query, ["start", "end"])?;
                let (Some(start), Some(end)) = (start, end) else {
                    return Err(bad("a proof needs start and end"));
                };
                let range = parse_number(start)?..parse_number(end)?;
                return Ok(Route::GetProof { fragment: parse_id(id)?, range: check_proof_range(range)? });
            }
            ("POST", ["claims"]) => Route::PostClaims,
            ("GET", ["claims"]) => {
                let (after, limit) = parse_page(query, CLAIMS_PAGE_MAX)?;
                return Ok(Route::ListClaims { after, limit });
            }
            ("GET", ["set"]) => {
                let (after, limit) = parse_page(query, SET_PAGE_MAX)?;
                return Ok(Route::ListSet { after, limit });
            }
            ("GET", ["quote"]) => Route::GetQuote,
            ("POST", ["proposal"]) => Route::PostProposal,
            ("POST", ["revision"]) => Route::PostRevision,
            ("POST", ["voucher"]) => Route::PostVoucher,
            ("PUT", ["heads", id]) => Route::PutHead(parse_id(id)?),
            ("GET", ["heads", id]) => Route::GetHead(parse_id(id)?),
            (
                _,
                ["hello" | "claims" | "quote" | "proposal" | "revision" | "set" | "voucher"]
                | ["fragments" | "heads", _]
                | ["fragments", _, "proof"],
            ) => {
                return Err(Problem::new(ProblemCode::MethodNotAllowed, "this path has no such method"));
            }
            _ => return Err(no_such_path()),
        };
        match query {
            None => Ok(route),
            Some(_) => Err(bad("this path takes no query")),
        }
    }

    /// The path and query that [`Route::parse`] understands as this route.
    #[must_use]
    pub fn target(&self) -> String {
        match self {
            Route::Hello => "/v1/hello".to_owned(),
            Route::PutFragment(id) | Route::GetFragment(id) => format!("/v1/fragments/{id}"),
            Route::GetProof { fragment, range } => {
                format!("/v1/fragments/{fragment}/proof?start={}&end={}", range.start, range.end)
            }
            Route::PostClaims => "/v1/claims".to_owned(),
            Route::ListClaims { after, limit } => format_page("/v1/claims", after.as_ref(), *limit),
            Route::ListSet { after, limit } => format_page("/v1/set", after.as_ref(), *limit),
            Route::GetQuote => "/v1/quote".to_owned(),
            Route::PostProposal => "/v1/proposal".to_owned(),
            Route::PostRevision => "/v1/revision".to_owned(),
            Route::PostVoucher => "/v1/voucher".to_owned(),
            Route::PutHead(id) | Route::GetHead(id) => format!("/v1/heads/{id}"),
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> RouteName {
        match self {
            Route::Hello => RouteName::Hello,
            Route::PutFragment(_) => RouteName::PutFragment,
            Route::GetFragment(_) => RouteName::GetFragment,
            Route::GetProof { .. } => RouteName::GetProof,
            Route::PostClaims => RouteName::PostClaims,
            Route::ListClaims { .. } => RouteName::ListClaims,
            Route::PutHead(_) => RouteName::PutHead,
            Route::GetHead(_) => RouteName::GetHead,
            Route::GetQuote => RouteName::GetQuote,
            Route::PostProposal => RouteName::PostProposal,
            Route::PostRevision => RouteName::PostRevision,
            Route::ListSet { .. } => RouteName::ListSet,
            Route::PostVoucher => RouteName::PostVoucher,
        }
    }

    /// Its row in [`ROUTES`].
    #[must_use]
    pub const fn spec(&self) -> &'static RouteSpec {
        self.name().spec()
    }
}

fn is_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(|digits| {
        !digits.is_empty() && digits.len() <= 9 && digits.bytes().all(|b| b.is_ascii_digit())
    })
}

fn no_such_path() -> Problem {
    Problem::new(ProblemCode::NotFound, "no such path")
}

fn bad(message: &str) -> Problem {
    Problem::new(ProblemCode::BadRequest, message)
}

fn parse_id<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error: T::Err| bad(&error.to_string()))
}

fn parse_number(text: &str) -> Result<u64, Problem> {
    decimal(text).ok_or_else(|| bad("a number is not decimal digits"))
}

/// Digits and nothing else: `u64::from_str` would also take a plus sign.
fn decimal(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn check_proof_range(range: Range<u64>) -> Result<Range<u64>, Problem> {
    match range.end.checked_sub(range.start) {
        None | Some(0) => Err(Problem::new(ProblemCode::RangeOutside, "the range is empty or reversed")),
        Some(length) if length > PROOF_RANGE_BYTES_MAX => Err(Problem::new(
            ProblemCode::TooLarge,
            format!("a proof covers at most {PROOF_RANGE_BYTES_MAX} bytes: ask in pieces"),
        )),
        Some(_) => Ok(range),
    }
}

/// Where a page begins and how long it is. One above the limit is cut to it.
fn parse_page(query: Option<&str>, page_max: usize) -> Result<(Option<FragmentId>, usize), Problem> {
    let [after, limit] = parse_query(query, ["after", "limit"])?;
    let after = after.map(parse_id).transpose()?;
    let limit = limit.map_or(Ok(page_max as u64), parse_number)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if limit == 0 {
        return Err(bad("limit is 0"));
    }
    Ok((after, limit.min(page_max)))
}

fn format_page(path: &str, after: Option<&FragmentId>, limit: usize) -> String {
    match after {
        None => format!("{path}?limit={limit}"),
        Some(after) => format!("{path}?after={after}&limit={limit}"),
    }
}

/// The values of these keys, each at most once, and no other key.
fn parse_query<'a, const N: usize>(
    query: Option<&'a str>,
    keys: [&str; N],
) -> Result<[Option<&'a str>; N], Problem> {
    let mut values = [None; N];
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| bad("a query field has no value"))?;
        let at = keys.iter().position(|known| *known == key).ok_or_else(|| bad("an unknown query field"))?;
        if values[at].replace(value).is_some() {
            return Err(bad("a query field stands twice"));
        }
    }
    Ok(values)
}

/// Who may read a claimed fragment besides its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Nobody else.
    Owner,
    /// Anyone.
    Public,
    /// Whoever shows a token signed by this reader key.
    Reader(PublicKey),
}

impl fmt::Display for Access {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Access::Owner => out.write_str("owner"),
            Access::Public => out.write_str("public"),
            Access::Reader(key) => write!(out, "{key}"),
        }
    }
}

impl FromStr for Access {
    type Err = HeaderError;

    fn from_str(text: &str) -> Result<Access, HeaderError> {
        match text {
            "owner" => Ok(Access::Owner),
            "public" => Ok(Access::Public),
            key => key.parse().map(Access::Reader).map_err(|_| HeaderError { header: HEADER_ACCESS }),
        }
    }
}

/// A header's value is not one that the protocol knows. The request is refused as malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the value of header {header} is malformed")]
pub struct HeaderError {
    header: &'static str,
}

impl From<HeaderError> for Problem {
    fn from(error: HeaderError) -> Problem {
        bad(&error.to_string())
    }
}

/// The value of [`HEADER_UNTIL`].
#[must_use]
pub fn format_until(until: Timestamp) -> String {
    until.0.to_string()
}

/// Reads the value of [`HEADER_UNTIL`].
///
/// # Errors
/// [`HeaderError`] when it is not a decimal number.
pub fn parse_until(value: &str) -> Result<Timestamp, HeaderError> {
    decimal(value).map(Timestamp).ok_or(HeaderError { header: HEADER_UNTIL })
}

/// The value of [`HEADER_ASKED`].
#[must_use]
pub fn format_asked(asked: Asked) -> String {
    asked.0.to_string()
}

/// Reads the value of [`HEADER_ASKED`].
///
/// # Errors
/// [`HeaderError`] when it is not a decimal number.
pub fn parse_asked(value: &str) -> Result<Asked, HeaderError> {
    decimal(value).map(Asked).ok_or(HeaderError { header: HEADER_ASKED })
}

const AUTHORIZATION_SCHEME: &str = "Seedbank ";

/// The value of an `authorization` header that shows a signed reader token.
#[must_use]
pub fn format_authorization(token: &[u8]) -> String {
    format!("{AUTHORIZATION_SCHEME}{}", encode_hex(token))
}

/// The bytes of the reader token in an `authorization` header; its signature is not checked here.
///
/// # Errors
/// [`HeaderError`] when it is another scheme, not hex, or above [`TOKEN_BYTES_MAX`].
pub fn parse_authorization(value: &str) -> Result<Vec<u8>, HeaderError> {
    value
        .strip_prefix(AUTHORIZATION_SCHEME)
        .and_then(|hex| decode_hex(hex, TOKEN_BYTES_MAX))
        .ok_or(HeaderError { header: "authorization" })
}

/// The value of a `range` header for these bytes. The range must not be empty.
#[must_use]
pub fn format_range(range: &Range<u64>) -> String {
    debug_assert!(range.start < range.end, "HTTP can't ask for an empty range");
    format!("bytes={}-{}", range.start, range.end.saturating_sub(1))
}

/// The bytes that a `range` header asks for: one range with both ends, never empty. Readers know how long a fragment
/// is, so open ends and lists of ranges have no use here.
///
/// # Errors
/// [`HeaderError`] for anything else.
pub fn parse_range(value: &str) -> Result<Range<u64>, HeaderError> {
    value.strip_prefix("bytes=").and_then(parse_first_last).ok_or(HeaderError { header: "range" })
}

/// The value of a `content-range` header for these bytes of a fragment of `length` bytes.
#[must_use]
pub fn format_content_range(range: &Range<u64>, length: u64) -> String {
    debug_assert!(range.start < range.end, "HTTP can't name an empty range");
    format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1))
}

/// The bytes that an answer holds and the fragment's length, from a `content-range` header.
///
/// # Errors
/// [`HeaderError`] when it is not of that form, or the range does not lie inside the length.
pub fn parse_content_range(value: &str) -> Result<(Range<u64>, u64), HeaderError> {
    value
        .strip_prefix("bytes ")
        .and_then(|rest| rest.split_once('/'))
        .and_then(|(range, length)| Some((parse_first_last(range)?, decimal(length)?)))
        .filter(|(range, length)| range.end <= *length)
        .ok_or(HeaderError { header: "content-range" })
}

fn parse_first_last(text: &str) -> Option<Range<u64>> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (decimal(first)?, decimal(last)?);
    let end = last.checked_add(1)?;
    (first < end).then_some(first..end)
}

#[cfg(test)]
mod tests {
    use super::{
        Access, PROOF_RANGE_BYTES_MAX, ROUTES, Route, decimal, format_asked, format_authorization,
        format_content_range, format_range, parse_asked, parse_authorization, parse_content_range,
        parse_range, parse_until,
    };
    use crate::messages::ProblemCode;
    use proptest::prelude::{any, proptest};
    use seedbank_formats::{Asked, DatasetId, FragmentId, PublicKey};

    fn parse(method: &str, target: &str) -> Result<Route, ProblemCode> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        Route::parse(method, path, query).map_err(|problem| problem.code)
    }

    fn every_route() -> Vec<Route> {
        let fragment = FragmentId([0xab; 32]);
        vec![
            Route::Hello,
            Route::PutFragment(fragment),
            Route::GetFragment(fragment),
            Route::GetProof { fragment, range: 5..900 },
            Route::PostClaims,
            Route::ListClaims { after: Some(fragment), limit: 10 },
            Route::ListClaims { after: None, limit: 1_000 },
            Route::PutHead(DatasetId([1; 32])),
            Route::GetHead(DatasetId([1; 32])),
            Route::GetQuote,
            Route::PostProposal,
            Route::PostRevision,
            Route::ListSet { after: Some(fragment), limit: 10 },
            Route::ListSet { after: None, limit: 5_000 },
            Route::PostVoucher,
        ]
    }

    #[test]
    fn every_route_reads_back_and_stands_in_the_table() {
        for route in every_route() {
            let spec = route.spec();
            assert_eq!(spec.name, route.name());
            assert_eq!(parse(spec.method.as_str(), &route.target()), Ok(route));
        }
        for spec in &ROUTES {
            assert_eq!(spec.name.spec(), spec);
        }
    }

    #[test]
    fn documentation_shows_every_route_and_who_may_call_it() {
        let page = include_str!("../../../docs/protocol.md");
        for spec in &ROUTES {
            let row = format!("| `{} {}` | {} |", spec.method.as_str(), spec.path, spec.caller.as_str());
            assert!(page.contains(&row), "{row}");
        }
    }

    #[test]
    fn requests_outside_the_table_are_refused_by_name() {
        let id = FragmentId([1; 32]);
        assert_eq!(parse("GET", "/v2/hello"), Err(ProblemCode::UnknownVersion));
        assert_eq!(parse("GET", "/"), Err(ProblemCode::NotFound));
        assert_eq!(parse("GET", "/v1/hello/"), Err(ProblemCode::NotFound));
        assert_eq!(parse("GET", "/v1/fragments/zz"), Err(ProblemCode::BadRequest));
        assert_eq!(parse("GET", &format!("/v1/fragments/{id}/proof/x/y/z")), Err(ProblemCode::NotFound));
        assert_eq!(parse("DELETE", &format!("/v1/fragments/{id}")), Err(ProblemCode::MethodNotAllowed));
        assert_eq!(parse("GET", "/v1/hello?x=1"), Err(ProblemCode::BadRequest));
        assert_eq!(parse("GET", "/v1/claims?limit=1&limit=2"), Err(ProblemCode::BadRequest));
        assert_eq!(parse("GET", "/v1/claims?limit=0"), Err(ProblemCode::BadRequest));
        let proof =
            |start: u64, end: u64| parse("GET", &format!("/v1/fragments/{id}/proof?start={start}&end={end}"));
        assert_eq!(proof(5, 5), Err(ProblemCode::RangeOutside));
        assert_eq!(proof(0, PROOF_RANGE_BYTES_MAX + 1), Err(ProblemCode::TooLarge));
    }

    #[test]
    fn page_above_the_limit_is_cut_to_it() {
        assert_eq!(
            parse("GET", "/v1/claims?limit=999999"),
            Ok(Route::ListClaims { after: None, limit: 1_000 })
        );
    }

    #[test]
    fn ranges_read_back_and_have_one_spelling() {
        assert_eq!(format_range(&(0..1)), "bytes=0-0");
        assert_eq!(parse_range(&format_range(&(7..99))), Ok(7..99));
        for refused in
            ["bytes=5-", "bytes=-5", "bytes=5-4", "bytes=0-1,3-4", "bytes=+0-1", "0-1", "bytes= 0-1"]
        {
            assert!(parse_range(refused).is_err(), "{refused}");
        }
        assert!(parse_range(&format!("bytes=0-{}", u64::MAX)).is_err());
        assert_eq!(parse_content_range(&format_content_range(&(7..99), 100)), Ok((7..99, 100)));
        assert!(parse_content_range("bytes 7-100/100").is_err());
    }

    #[test]
    fn header_values_read_back() {
        assert_eq!(parse_authorization(&format_authorization(&[0, 255, 16])), Ok(vec![0, 255, 16]));
        assert!(parse_authorization("Bearer 00").is_err());
        assert!(parse_authorization(&format_authorization(&[0; 1025])).is_err());
        for access in [Access::Owner, Access::Public, Access::Reader(PublicKey([9; 32]))] {
            assert_eq!(access.to_string().parse(), Ok(access));
        }
        assert!("everyone".parse::<Access>().is_err());
        assert!(parse_until("-1").is_err() && parse_until("").is_err());
        assert_eq!(parse_asked(&format_asked(Asked(1_900_000_000_123))), Ok(Asked(1_900_000_000_123)));
        assert!(parse_asked("+1").is_err() && parse_asked("now").is_err());
        assert_eq!(decimal("18446744073709551616"), None);
    }

    proptest! {
        #[test]
        fn hostile_requests_never_panic(method in ".{0,8}", path in ".{0,90}", query in any::<Option<String>>()) {
            let _ = Route::parse(&method, &path, query.as_deref());
            let _ = (parse_range(&path), parse_content_range(&path), parse_authorization(&path), parse_until(&path));
            let _ = parse_asked(&path);
        }
    }
}

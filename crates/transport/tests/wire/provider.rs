//! The typed calls, against a provider that keeps everything in one map, and against liars.

use crate::support::{CLIENT_SEED, SERVER_SEED, client_key, key, serve};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_RANGE, RANGE};
use http::{Response, StatusCode};
use seedbank_formats::receipt::{Answer, ReaderToken, Receipt, Statement};
use seedbank_formats::slice::{self, FragmentHasher};
use seedbank_formats::{DatasetId, FragmentId, Timestamp};
use seedbank_protocol::messages::{
    Accepting, ClaimAction, ClaimAnswer, ClaimRequest, ClaimResult, ClaimRow, ClaimState, Hello, Prices,
    Problem, ProblemCode, SignedBytes, decode_claim_requests, encode_claim_answers, encode_claims_page,
};
use seedbank_protocol::routes::{
    ALPN, Access, FRAGMENT_BYTES_MAX, HEADER_ACCESS, HEADER_UNTIL, Route, format_content_range,
    parse_authorization, parse_range, parse_until,
};
use seedbank_transport::{
    Body, Call, CallError, ClaimOutcome, ClientLimits, HeadPut, Identity, MalformedAnswer, PeerAddress,
    ProviderClient, Server, ServerLimits, TcpDial, answer_bytes, answer_json, answer_problem,
};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Kept {
    fragments: BTreeMap<FragmentId, Bytes>,
    heads: BTreeMap<DatasetId, Bytes>,
}

fn receipt(fragment: FragmentId, length: usize, until: Timestamp) -> Receipt {
    Receipt {
        provider: key(SERVER_SEED).public(),
        client: client_key(),
        fragment,
        length: length as u64,
        until,
        time: Timestamp(1_000),
    }
}

fn part(bytes: &Bytes, range: &Range<u64>) -> Option<Bytes> {
    let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
    (start < end && end <= bytes.len()).then(|| bytes.slice(start..end))
}

async fn answer(kept: Arc<Mutex<Kept>>, mut call: Call) -> Result<Response<Body>, Problem> {
    let uri = call.request.uri().clone();
    let route = Route::parse(call.request.method().as_str(), uri.path(), uri.query())?;
    let headers = call.request.headers().clone();
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
    let limit = usize::try_from(route.spec().body_bytes_max).unwrap();
    let body = call.request.body_mut().read_all(limit).await.unwrap();
    let signer = key(SERVER_SEED);
    let mut kept = kept.lock().unwrap();
    let held = |kept: &Kept, id: &FragmentId| {
        kept.fragments.get(id).cloned().ok_or(Problem::new(ProblemCode::NotFound, "not held"))
    };
    Ok(match route {
        Route::Hello => {
            let hello = Hello {
                protocol: ALPN.to_owned(),
                features: vec![],
                provider: signer.public(),
                operator: "tests".to_owned(),
                region: "here".to_owned(),
                capacity_bytes: 10,
                free_bytes: 5,
                prices: Prices::default(),
                accepting: Accepting::Anyone,
            };
            answer_json(StatusCode::OK, hello.encode())
        }
        Route::PutFragment(id) => {
            let until = parse_until(header(HEADER_UNTIL).unwrap())?;
            let access: Access = header(HEADER_ACCESS).unwrap().parse()?;
            assert_eq!(access, Access::Reader(key(5).public()));
            if FragmentId::of(&body) != id {
                return Err(Problem::new(ProblemCode::HashMismatch, "other bytes"));
            }
            let signed = receipt(id, body.len(), until).sign(&signer);
            kept.fragments.insert(id, body);
            answer_bytes(StatusCode::CREATED, signed)
        }
        Route::GetFragment(id) => {
            let token = parse_authorization(header(AUTHORIZATION.as_str()).unwrap())?;
            assert_eq!(ReaderToken::check(&token).unwrap().bearer, call.peer);
            let bytes = held(&kept, &id)?;
            let range = parse_range(header(RANGE.as_str()).unwrap())?;
            let piece = part(&bytes, &range).ok_or(Problem::new(ProblemCode::RangeOutside, "outside"))?;
            let mut response = answer_bytes(StatusCode::PARTIAL_CONTENT, piece);
            let named = format_content_range(&range, bytes.len() as u64).parse().unwrap();
            response.headers_mut().insert(CONTENT_RANGE, named);
            response
        }
        Route::GetProof { fragment, range } => {
            let bytes = held(&kept, &fragment)?;
            let mut hasher = FragmentHasher::default();
            hasher.update(&bytes);
            let (_, outboard) = hasher.finish();
            let length = bytes.len() as u64;
            let covered = slice::covered(length, &range).unwrap();
            let slice = slice::encode(length, &outboard, &range, &part(&bytes, &covered).unwrap()).unwrap();
            let statement = Statement {
                provider: signer.public(),
                fragment,
                start: range.start,
                end: range.end,
                answer: Answer::Slice(FragmentId::of(&slice).0),
                time: Timestamp(1_000),
            };
            answer_bytes(StatusCode::OK, [statement.sign(&signer), slice].concat())
        }
        Route::PostClaims => {
            let answers: Vec<_> = decode_claim_requests(&body)
                .unwrap()
                .iter()
                .map(|request| {
                    let result = match (request.action, kept.fragments.get(&request.fragment)) {
                        (ClaimAction::Renew(until), Some(bytes)) => ClaimResult::Receipt(SignedBytes(
                            receipt(request.fragment, bytes.len(), until).sign(&signer),
                        )),
                        (ClaimAction::Renew(_), None) => ClaimResult::Absent,
                        (ClaimAction::Release, _) => ClaimResult::Released,
                    };
                    ClaimAnswer { fragment: request.fragment, result }
                })
                .collect();
            answer_json(StatusCode::OK, encode_claim_answers(&answers))
        }
        Route::ListClaims { after, limit } => {
            let rows: Vec<_> = kept
                .fragments
                .iter()
                .filter(|(id, _)| after.is_none_or(|after| **id > after))
                .take(limit)
                .map(|(id, bytes)| ClaimRow {
                    fragment: *id,
                    length: bytes.len() as u64,
                    until: Timestamp(9),
                    state: ClaimState::Pending,
                })
                .collect();
            answer_json(StatusCode::OK, encode_claims_page(&rows))
        }
        Route::PutHead(dataset) => match kept.heads.get(&dataset) {
            Some(newer) if *newer > body => answer_bytes(StatusCode::CONFLICT, newer.clone()),
            _ => {
                kept.heads.insert(dataset, body);
                answer_bytes(StatusCode::CREATED, Bytes::new())
            }
        },
        Route::GetHead(dataset) => {
            let head =
                kept.heads.get(&dataset).cloned().ok_or(Problem::new(ProblemCode::NotFound, "none"))?;
            answer_bytes(StatusCode::OK, head)
        }
        Route::GetQuote
        | Route::PostProposal
        | Route::PostRevision
        | Route::ListSet { .. }
        | Route::PostVoucher => return Err(Problem::new(ProblemCode::NotFound, "not paid")),
    })
}

async fn provider() -> (Server, PeerAddress) {
    let kept = Arc::new(Mutex::new(Kept::default()));
    serve(ServerLimits::default(), move |call| {
        let kept = Arc::clone(&kept);
        async move { answer(kept, call).await.unwrap_or_else(|problem| answer_problem(&problem)) }
    })
    .await
}

fn provider_client() -> ProviderClient {
    ProviderClient::new(&Identity::new(&key(CLIENT_SEED)), TcpDial, ClientLimits::default())
}

fn fragment(seed: u8, length: usize) -> (FragmentId, Bytes) {
    let bytes: Vec<u8> = (0..length).map(|at| seed ^ at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
    (FragmentId::of(&bytes), Bytes::from(bytes))
}

fn problem_code<T: std::fmt::Debug>(outcome: Result<T, CallError>) -> ProblemCode {
    match outcome {
        Err(CallError::Refused { problem, .. }) => problem.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn fragment_is_stored_read_proven_claimed_and_listed() {
    let (_server, peer) = provider().await;
    let client = provider_client();
    assert_eq!(client.hello(&peer).await.unwrap().operator, "tests");

    let access = Access::Reader(key(5).public());
    let (id, bytes) = fragment(1, 2_000_000);
    let receipt = client.put_fragment(&peer, id, bytes.clone(), Timestamp(77), access).await.unwrap();
    assert_eq!((receipt.until, receipt.length), (Timestamp(77), 2_000_000));
    assert_eq!(Receipt::check(&receipt.bytes), Ok(receipt.value));

    let token = ReaderToken { reader: key(5).public(), bearer: client.public(), until: Timestamp(77) };
    let token = token.sign(&key(5));
    let read = client.get_range(&peer, id, 1_000..900_000, Some(&token)).await.unwrap();
    assert!(read == bytes.slice(1_000..900_000));
    let proof = client.get_proof(&peer, id, 70_000..70_001, Some(&token)).await.unwrap();
    let proven = slice::verify(&id, 2_000_000, &(70_000..70_001), &proof.slice).unwrap();
    assert_eq!(proven, bytes[70_000..70_001]);

    let absent = FragmentId([0; 32]);
    let renew = |fragment| ClaimRequest { fragment, action: ClaimAction::Renew(Timestamp(99)) };
    let release = ClaimRequest { fragment: id, action: ClaimAction::Release };
    let many: Vec<_> = (0..1_001).map(|_| renew(absent)).chain([renew(id), release]).collect();
    let outcomes = client.claims(&peer, &many).await.unwrap();
    assert!(outcomes[..1_001].iter().all(|outcome| *outcome == ClaimOutcome::Absent));
    assert!(matches!(&outcomes[1_001], ClaimOutcome::Renewed(receipt) if receipt.until == Timestamp(99)));
    assert_eq!(outcomes[1_002], ClaimOutcome::Released);

    let rows = client.list_claims(&peer, None, 10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.fragment).collect::<Vec<_>>(), [id]);
    assert!(client.list_claims(&peer, Some(id), 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn heads_are_stored_and_lower_ones_answered_with_the_newer() {
    let (_server, peer) = provider().await;
    let client = provider_client();
    let dataset = DatasetId([4; 32]);
    assert_eq!(problem_code(client.get_head(&peer, dataset).await), ProblemCode::NotFound);
    let (old, new) = (Bytes::from_static(b"1"), Bytes::from_static(b"2"));
    assert_eq!(client.put_head(&peer, dataset, new.clone()).await.unwrap(), HeadPut::Stored);
    assert_eq!(client.put_head(&peer, dataset, old).await.unwrap(), HeadPut::Newer(new.clone()));
    assert_eq!(client.get_head(&peer, dataset).await.unwrap(), new);
}

#[tokio::test]
async fn refusals_carry_their_code() {
    let (_server, peer) = provider().await;
    let client = provider_client();
    let access = Access::Reader(key(5).public());
    let (id, bytes) = fragment(1, 1_000);
    let other = client.put_fragment(&peer, FragmentId([8; 32]), bytes.clone(), Timestamp(7), access).await;
    assert_eq!(problem_code(other), ProblemCode::HashMismatch);
    client.put_fragment(&peer, id, bytes, Timestamp(7), access).await.unwrap();
    let token = ReaderToken { reader: key(5).public(), bearer: client.public(), until: Timestamp(7) };
    let token = token.sign(&key(5));
    let outside = client.get_range(&peer, id, 999..1_001, Some(&token)).await;
    assert_eq!(problem_code(outside), ProblemCode::RangeOutside);
    let too_long = client.get_proof(&peer, id, 0..FRAGMENT_BYTES_MAX, None).await;
    assert_eq!(problem_code(too_long), ProblemCode::TooLarge);
}

/// What a client makes of one fixed answer.
async fn lied_to(answer: impl Fn() -> Response<Body> + Send + Sync + 'static) -> (Server, PeerAddress) {
    serve(ServerLimits::default(), move |_| std::future::ready(answer())).await
}

fn assert_malformed<T: std::fmt::Debug>(outcome: Result<T, CallError>) {
    assert!(matches!(outcome, Err(CallError::Malformed { .. })), "{outcome:?}");
}

#[tokio::test]
async fn receipts_for_something_else_are_refused() {
    let (id, bytes) = fragment(1, 1_000);
    let good = receipt(id, 1_000, Timestamp(7));
    let lies = [
        Receipt { client: key(9).public(), ..good.clone() }.sign(&key(SERVER_SEED)),
        Receipt { fragment: FragmentId([9; 32]), ..good.clone() }.sign(&key(SERVER_SEED)),
        Receipt { length: 999, ..good.clone() }.sign(&key(SERVER_SEED)),
        Receipt { provider: key(9).public(), ..good.clone() }.sign(&key(9)),
        good.sign(&key(9)),
        b"trust me".to_vec(),
    ];
    for lie in lies {
        let (_server, peer) = lied_to(move || answer_bytes(StatusCode::CREATED, lie.clone())).await;
        let client = provider_client();
        assert_malformed(client.put_fragment(&peer, id, bytes.clone(), Timestamp(7), Access::Public).await);
    }
}

#[tokio::test]
async fn ranges_of_another_length_or_place_are_refused() {
    let range = |named: &'static str, length: usize| {
        move || {
            let mut response = answer_bytes(StatusCode::PARTIAL_CONTENT, vec![0; length]);
            response.headers_mut().insert(CONTENT_RANGE, named.parse().unwrap());
            response
        }
    };
    for (named, length) in
        [("bytes 0-9/100", 9), ("bytes 0-9/100", 11), ("bytes 1-10/100", 10), ("nonsense", 10)]
    {
        let (_server, peer) = lied_to(range(named, length)).await;
        assert_malformed(provider_client().get_range(&peer, FragmentId([1; 32]), 0..10, None).await);
    }
    let (_server, peer) = lied_to(range("bytes 0-9/100", 10)).await;
    let read = provider_client().get_range(&peer, FragmentId([1; 32]), 0..10, None).await.unwrap();
    assert_eq!(read, vec![0; 10]);
    let (_server, peer) = lied_to(|| answer_bytes(StatusCode::OK, vec![0; 10])).await;
    assert_malformed(provider_client().get_range(&peer, FragmentId([1; 32]), 0..10, None).await);
}

#[tokio::test]
async fn statements_that_cover_something_else_are_refused() {
    let good = Statement {
        provider: key(SERVER_SEED).public(),
        fragment: FragmentId([1; 32]),
        start: 0,
        end: 10,
        answer: Answer::Slice(FragmentId::of(b"slice").0),
        time: Timestamp(7),
    };
    let statements = [
        (good.clone(), &b"other"[..]),
        (Statement { answer: Answer::Rotten, ..good.clone() }, b"slice"),
        (Statement { end: 11, ..good.clone() }, b"slice"),
        (Statement { fragment: FragmentId([2; 32]), ..good.clone() }, b"slice"),
    ];
    for (statement, slice) in statements {
        let body = [&statement.sign(&key(SERVER_SEED)), slice].concat();
        let (_server, peer) = lied_to(move || answer_bytes(StatusCode::OK, body.clone())).await;
        assert_malformed(provider_client().get_proof(&peer, FragmentId([1; 32]), 0..10, None).await);
    }
    let rotten = Statement { answer: Answer::Rotten, ..good }.sign(&key(SERVER_SEED));
    let (_server, peer) = lied_to(move || answer_bytes(StatusCode::OK, rotten.clone())).await;
    let proof = provider_client().get_proof(&peer, FragmentId([1; 32]), 0..10, None).await.unwrap();
    assert_eq!((proof.statement.answer, proof.slice.len()), (Answer::Rotten, 0));
}

#[tokio::test]
async fn refusal_that_is_no_problem_and_odd_statuses_are_malformed() {
    for status in [StatusCode::FORBIDDEN, StatusCode::NO_CONTENT, StatusCode::FOUND] {
        let (_server, peer) = lied_to(move || {
            let mut response = answer_bytes(status, Bytes::new());
            *response.status_mut() = status;
            response
        })
        .await;
        assert_malformed(provider_client().hello(&peer).await);
    }
    let (_server, peer) = lied_to(|| answer_json(StatusCode::OK, vec![b' '; 2_000_000])).await;
    let outcome = provider_client().hello(&peer).await;
    assert!(
        matches!(outcome, Err(CallError::Malformed { reason: MalformedAnswer::TooLong { .. }, .. })),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn claim_answers_out_of_order_are_refused() {
    let answers = [ClaimAnswer { fragment: FragmentId([2; 32]), result: ClaimResult::Released }];
    let (_server, peer) = lied_to(move || answer_json(StatusCode::OK, encode_claim_answers(&answers))).await;
    let request = |byte, action| ClaimRequest { fragment: FragmentId([byte; 32]), action };
    let client = provider_client();
    assert_malformed(client.claims(&peer, &[request(1, ClaimAction::Release)]).await);
    assert_malformed(client.claims(&peer, &[request(2, ClaimAction::Renew(Timestamp(7)))]).await);
    assert_malformed(
        client
            .claims(&peer, &[])
            .await
            .and(client.claims(&peer, &[request(2, ClaimAction::Release); 2]).await),
    );
    assert_eq!(
        client.claims(&peer, &[request(2, ClaimAction::Release)]).await.unwrap(),
        [ClaimOutcome::Released]
    );
}

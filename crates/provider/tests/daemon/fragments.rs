//! Storing and reading.

use crate::support::{MIB, fragment, key, now, options, refusal, start, start_with, tomorrow};
use bytes::Bytes;
use http::{Request, StatusCode};
use seedbank_formats::FragmentId;
use seedbank_formats::receipt::Answer;
use seedbank_formats::slice;
use seedbank_protocol::messages::{Accepting, Problem, ProblemCode};
use seedbank_protocol::routes::{Access, HEADER_ACCESS, HEADER_UNTIL};
use seedbank_provider::{ByteSize, Strangers};
use seedbank_transport::{AnswerMax, Client, ClientLimits, Identity, TcpDial};

#[tokio::test]
async fn provider_says_who_it_is_and_what_the_caller_may_store() {
    let provider = start().await;
    let hello = provider.client().client.hello(&provider.peer()).await.unwrap();
    assert_eq!(hello.provider, provider.serving.key);
    assert_eq!((hello.operator.as_str(), hello.region.as_str()), ("tester", "test"));
    assert_eq!((hello.capacity_bytes, hello.free_bytes), (1 << 30, 256 << 20));
    assert_eq!(hello.accepting, Accepting::KnownClients);
    let stranger = provider.caller(&key(9));
    assert_eq!(stranger.client.hello(&stranger.peer).await.unwrap().free_bytes, 0);
}

/// Packed ones and files of their own, at the edges of blocks and frames.
#[tokio::test]
async fn fragments_of_every_size_come_back_whole_in_part_and_with_proof() {
    let provider = start().await;
    let client = provider.client();
    for length in [1, 1_000, 16 * 1024 + 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 5] {
        let stored = fragment(u64::try_from(length).unwrap(), length);
        let receipt = client.put(&stored, Access::Owner).await.unwrap();
        assert_eq!(receipt.length, u64::try_from(length).unwrap());
        assert!(receipt.until > now() && receipt.until <= tomorrow());
        assert_eq!(client.get(&stored, None).await.unwrap(), stored.1, "{length}");

        let (start, end) = (length / 3, length - length / 7);
        let range = u64::try_from(start).unwrap()..u64::try_from(end).unwrap();
        if range.is_empty() {
            continue;
        }
        let part = client.client.get_range(&client.peer, stored.0, range.clone(), None).await.unwrap();
        assert_eq!(part, stored.1.slice(start..end));
        let proof = client.client.get_proof(&client.peer, stored.0, range.clone(), None).await.unwrap();
        assert!(matches!(proof.statement.answer, Answer::Slice(_)));
        let proven = slice::verify(&stored.0, receipt.length, &range, &proof.slice).unwrap();
        assert_eq!(proven, stored.1.slice(start..end));
    }
    assert!(provider.metric("seedbank_provider_store_fragments").await >= 7.0);
}

#[tokio::test]
async fn fragment_that_is_held_is_not_taken_twice() {
    let provider = start().await;
    let client = provider.client();
    let stored = fragment(1, 2 * MIB);
    let first = client.put(&stored, Access::Owner).await.unwrap();
    let received = provider.metric("seedbank_provider_received_bytes_total{route=\"put_fragment\"}").await;
    let second = client.put(&stored, Access::Owner).await.unwrap();
    assert!(second.until >= first.until);
    let again = provider.metric("seedbank_provider_received_bytes_total{route=\"put_fragment\"}").await;
    assert_eq!(received.to_bits(), again.to_bits());
}

#[tokio::test]
async fn bytes_of_another_id_are_refused_and_not_kept() {
    let provider = start().await;
    let client = provider.client();
    for length in [1_000, 2 * MIB] {
        let (_, bytes) = fragment(1, length);
        let lie = (FragmentId([7; 32]), bytes);
        assert_eq!(refusal(client.put(&lie, Access::Owner).await), ProblemCode::HashMismatch);
        assert_eq!(refusal(client.get(&lie, None).await), ProblemCode::NotFound);
    }
    assert_eq!(provider.metric("seedbank_provider_store_claims").await.to_bits(), 0f64.to_bits());
}

#[tokio::test]
async fn absence_is_said_and_signed() {
    let provider = start().await;
    let client = provider.client();
    let id = FragmentId([3; 32]);
    assert_eq!(refusal(client.client.get_range(&client.peer, id, 0..5, None).await), ProblemCode::NotFound);
    let proof = client.client.get_proof(&client.peer, id, 0..5, None).await.unwrap();
    assert_eq!(proof.statement.answer, Answer::Absent);
}

#[tokio::test]
async fn ranges_outside_the_fragment_are_refused() {
    let provider = start().await;
    let client = provider.client();
    let stored = fragment(1, 1_000);
    client.put(&stored, Access::Owner).await.unwrap();
    for range in [0..1_001, 1_000..1_001, 5_000..6_000] {
        let plain = client.client.get_range(&client.peer, stored.0, range.clone(), None).await;
        assert_eq!(refusal(plain), ProblemCode::RangeOutside);
        let proof = client.client.get_proof(&client.peer, stored.0, range, None).await;
        assert_eq!(refusal(proof), ProblemCode::RangeOutside);
    }
}

#[tokio::test]
async fn quota_is_what_the_operator_grants() {
    let mut options = options();
    options.clients[0].1 = ByteSize(3 << 20);
    let provider = start_with(&options, "").await;
    let client = provider.client();
    client.put(&fragment(1, 2 * MIB), Access::Owner).await.unwrap();
    assert_eq!(refusal(client.put(&fragment(2, 2 * MIB), Access::Owner).await), ProblemCode::OverQuota);
    client.put(&fragment(3, MIB / 2), Access::Owner).await.unwrap();

    let stranger = provider.caller(&key(9));
    let refused = stranger.put(&fragment(4, 100), Access::Owner).await;
    assert_eq!(refusal(refused), ProblemCode::UnknownClient);
}

#[tokio::test]
async fn open_provider_grants_every_key_its_share() {
    let mut options = options();
    options.strangers = Strangers::Welcome { quota: ByteSize(1 << 20) };
    let provider = start_with(&options, "").await;
    let stranger = provider.caller(&key(9));
    stranger.put(&fragment(1, MIB / 2), Access::Owner).await.unwrap();
    assert_eq!(refusal(stranger.put(&fragment(2, MIB), Access::Owner).await), ProblemCode::OverQuota);
    let hello = stranger.client.hello(&stranger.peer).await.unwrap();
    assert_eq!(hello.accepting, Accepting::Anyone);
    assert_eq!(hello.free_bytes, 1 << 19);
}

/// What our own client never sends.
#[tokio::test]
async fn malformed_requests_are_refused_by_name() {
    let provider = start().await;
    let client = Client::new(&Identity::new(&key(1)), TcpDial, ClientLimits::default());
    let (id, bytes) = fragment(1, 100);
    let path = format!("/v1/fragments/{id}");
    let put = |until: Option<&str>, access: Option<&str>, body: &Bytes| {
        let mut request = Request::put(&path);
        for (name, value) in [(HEADER_UNTIL, until), (HEADER_ACCESS, access)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        request.body(body.clone()).unwrap()
    };
    let get = |path: &str| Request::get(path).body(Bytes::new()).unwrap();
    let until = tomorrow().0.to_string();
    let bad = ProblemCode::BadRequest;
    for (request, expected) in [
        (put(None, Some("owner"), &bytes), bad),
        (put(Some(&until), None, &bytes), bad),
        (put(Some("soon"), Some("owner"), &bytes), bad),
        (put(Some(&until), Some("everybody"), &bytes), bad),
        (put(Some("1000"), Some("owner"), &bytes), bad),
        (put(Some(&until), Some("owner"), &Bytes::new()), bad),
        (Request::delete(&path).body(Bytes::new()).unwrap(), ProblemCode::MethodNotAllowed),
        (Request::get("/v1/hello").body(bytes.clone()).unwrap(), ProblemCode::TooLarge),
        (get("/v1/nothing"), ProblemCode::NotFound),
        (get("/v2/hello"), ProblemCode::UnknownVersion),
        (get(&format!("{path}/proof?start=0&end=99999999")), ProblemCode::TooLarge),
        (Request::post("/v1/claims").body(bytes.clone()).unwrap(), bad),
    ] {
        let answer_max = AnswerMax { success: 1_000, refusal: 20_000 };
        let answer = client.call(&provider.peer(), &request, answer_max).await.unwrap();
        let problem = Problem::decode(answer.body()).unwrap();
        assert_eq!(problem.code, expected, "{request:?}: {problem}");
        assert_eq!(answer.status().as_u16(), expected.status());
    }
}

#[tokio::test]
async fn whole_fragment_is_answered_without_a_range() {
    let provider = start().await;
    let stored = fragment(1, 2 * MIB);
    provider.client().put(&stored, Access::Public).await.unwrap();
    let client = Client::new(&Identity::new(&key(9)), TcpDial, ClientLimits::default());
    let request = Request::get(format!("/v1/fragments/{}", stored.0)).body(Bytes::new()).unwrap();
    let answer_max = AnswerMax { success: 2 * MIB, refusal: 20_000 };
    let answer = client.call(&provider.peer(), &request, answer_max).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(*answer.body(), stored.1);
}

/// More at once than fits into the daemon's buffers: they wait for each other, and all are served.
#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_share_little_memory() {
    let provider = start_with(&options(), "limits = { buffers = \"16MiB\" }").await;
    let client = std::sync::Arc::new(provider.client());
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 0..24 {
        let client = std::sync::Arc::clone(&client);
        tasks.spawn(async move {
            let stored = fragment(seed, 4 * MIB);
            client.put(&stored, Access::Owner).await.unwrap();
            assert_eq!(client.get(&stored, None).await.unwrap(), stored.1);
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn one_key_can_not_take_every_place() {
    let provider = start_with(&options(), "limits = { requests_per_client = 1 }").await;
    let (client, other) = (provider.client(), provider.caller(&key(9)));
    let stored = fragment(1, 8 * MIB);
    client.put(&stored, Access::Public).await.unwrap();
    // Of two at once of one key one may be sent away; another key's is not.
    let (first, second, third) =
        tokio::join!(client.get(&stored, None), client.get(&stored, None), other.get(&stored, None));
    let refused = [&first, &second].into_iter().filter(|answer| answer.is_err()).count();
    assert!(refused <= 1 && third.is_ok());
    for answer in [first, second] {
        if answer.is_err() {
            assert_eq!(refusal(answer), ProblemCode::Busy);
        }
    }
}

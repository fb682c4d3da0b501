//! Who may read what.

use crate::support::{Provider, fragment, key, now, refusal, start};
use bytes::Bytes;
use seedbank_formats::receipt::{Answer, ReaderToken};
use seedbank_formats::{FragmentId, PublicKey, Timestamp};
use seedbank_protocol::messages::{ClaimAction, ClaimRequest, ProblemCode};
use seedbank_protocol::routes::Access;

const READER_SEED: u8 = 40;
const BEARER_SEED: u8 = 41;

fn token(bearer: PublicKey, until: Timestamp) -> Vec<u8> {
    let reader = key(READER_SEED);
    ReaderToken { reader: reader.public(), bearer, until }.sign(&reader)
}

async fn stored(provider: &Provider, access: Access) -> (FragmentId, Bytes) {
    let stored = fragment(1, 5_000);
    provider.client().put(&stored, access).await.unwrap();
    stored
}

#[tokio::test]
async fn token_of_the_datasets_reader_key_opens_to_its_bearer() {
    let provider = start().await;
    let stored = stored(&provider, Access::Reader(key(READER_SEED).public())).await;
    let bearer = provider.caller(&key(BEARER_SEED));
    let good = token(bearer.key(), now().plus_seconds(600));
    for _ in 0..2 {
        assert_eq!(bearer.get(&stored, Some(&good)).await.unwrap(), stored.1);
    }
    let proof = bearer.client.get_proof(&bearer.peer, stored.0, 0..10, Some(&good)).await.unwrap();
    assert!(matches!(proof.statement.answer, Answer::Slice(_)));
    // The owner needs none.
    assert_eq!(provider.client().get(&stored, None).await.unwrap(), stored.1);
}

#[tokio::test]
async fn every_other_token_is_refused() {
    let provider = start().await;
    let stored = stored(&provider, Access::Reader(key(READER_SEED).public())).await;
    let bearer = provider.caller(&key(BEARER_SEED));
    let later = now().plus_seconds(600);
    let mut forged = token(bearer.key(), later);
    *forged.last_mut().unwrap() ^= 1;
    let other_dataset = {
        let reader = key(50);
        ReaderToken { reader: reader.public(), bearer: bearer.key(), until: later }.sign(&reader)
    };
    for shown in [
        None,
        Some(forged),
        Some(token(provider.client().key(), later)),
        Some(token(bearer.key(), Timestamp(now().0 - 10))),
        Some(other_dataset),
        Some(b"not a token".to_vec()),
    ] {
        let plain = bearer.get(&stored, shown.as_deref()).await;
        assert_eq!(refusal(plain), ProblemCode::TokenRefused);
        let proof = bearer.client.get_proof(&bearer.peer, stored.0, 0..10, shown.as_deref()).await;
        assert_eq!(refusal(proof), ProblemCode::TokenRefused);
    }
    assert!(
        provider.metric("seedbank_provider_requests_total{route=\"get_proof\",code=\"token_refused\"}").await
            > 5.0
    );
}

#[tokio::test]
async fn claim_for_its_owner_opens_to_no_token() {
    let provider = start().await;
    let stored = stored(&provider, Access::Owner).await;
    let bearer = provider.caller(&key(BEARER_SEED));
    let shown = token(bearer.key(), now().plus_seconds(600));
    assert_eq!(refusal(bearer.get(&stored, Some(&shown)).await), ProblemCode::TokenRefused);
}

#[tokio::test]
async fn public_claim_opens_to_anyone_until_it_is_released() {
    let provider = start().await;
    let stored = stored(&provider, Access::Public).await;
    let anyone = provider.caller(&key(BEARER_SEED));
    assert_eq!(anyone.get(&stored, None).await.unwrap(), stored.1);

    let client = provider.client();
    let release = [ClaimRequest { fragment: stored.0, action: ClaimAction::Release }];
    client.client.claims(&client.peer, &release).await.unwrap();
    // Still on the disk, in trash; readable by nobody.
    for caller in [&anyone, &client] {
        assert_eq!(refusal(caller.get(&stored, None).await), ProblemCode::NotFound);
        let proof = caller.client.get_proof(&caller.peer, stored.0, 0..10, None).await.unwrap();
        assert_eq!(proof.statement.answer, Answer::Absent);
    }
    client.put(&stored, Access::Owner).await.unwrap();
    assert_eq!(client.get(&stored, None).await.unwrap(), stored.1);
    assert_eq!(refusal(anyone.get(&stored, None).await), ProblemCode::TokenRefused);
}

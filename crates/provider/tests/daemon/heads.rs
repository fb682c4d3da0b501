//! Keeping heads.

use crate::support::{key, now, refusal, start};
use bytes::Bytes;
use seedbank_formats::head::{Head, HeadBody};
use seedbank_formats::keys::{DatasetSecret, KeyEpoch, SealKeys, dataset_id};
use seedbank_formats::place::{Link, Place};
use seedbank_formats::placement::Hints;
use seedbank_formats::{DatasetId, SegmentNumber};
use seedbank_protocol::messages::ProblemCode;
use seedbank_transport::HeadPut;

const SALT: [u8; 32] = [6; 32];
const OWNER_SEED: u8 = 60;

fn dataset() -> DatasetId {
    dataset_id(&key(OWNER_SEED).public(), &SALT)
}

fn head(sequence: u64) -> Bytes {
    let place = Place { segment: SegmentNumber(0), index: 0 };
    let body = HeadBody {
        version: None,
        map: None,
        checkpoint: Link::new(place, b"checkpoint"),
        locator: Vec::new(),
        hints: Hints::default(),
    };
    let keys = SealKeys::new(dataset(), KeyEpoch(0), &DatasetSecret::new([2; 32]));
    Bytes::from(Head::sign(&body, &keys, &key(OWNER_SEED), &SALT, sequence, now()).unwrap())
}

#[tokio::test]
async fn newest_head_is_kept_for_anyone() {
    let provider = start().await;
    let (client, reader) = (provider.client(), provider.caller(&key(9)));
    let absent = reader.client.get_head(&reader.peer, dataset()).await;
    assert_eq!(refusal(absent), ProblemCode::NotFound);

    let (old, new) = (head(3), head(7));
    let put = |bytes: &Bytes| client.client.put_head(&client.peer, dataset(), bytes.clone());
    assert_eq!(put(&old).await.unwrap(), HeadPut::Stored);
    assert_eq!(put(&new).await.unwrap(), HeadPut::Stored);
    assert_eq!(put(&new).await.unwrap(), HeadPut::Stored);
    assert_eq!(put(&old).await.unwrap(), HeadPut::Newer(new.clone()));
    assert_eq!(reader.client.get_head(&reader.peer, dataset()).await.unwrap(), new);
    let stale = "seedbank_provider_requests_total{route=\"put_head\",code=\"stale_head\"}";
    assert_eq!(provider.metric(stale).await.to_bits(), 1f64.to_bits());
}

#[tokio::test]
async fn head_that_its_owner_did_not_sign_for_this_dataset_is_refused() {
    let provider = start().await;
    let client = provider.client();
    let mut forged = head(3).to_vec();
    *forged.last_mut().unwrap() ^= 1;
    for (dataset, bytes) in [
        (dataset(), Bytes::from(forged)),
        (DatasetId([1; 32]), head(3)),
        (dataset(), Bytes::from_static(b"head")),
        (dataset(), Bytes::new()),
    ] {
        let refused = client.client.put_head(&client.peer, dataset, bytes).await;
        assert_eq!(refusal(refused), ProblemCode::BadRequest);
    }
    let stranger = provider.caller(&key(9));
    let refused = stranger.client.put_head(&stranger.peer, dataset(), head(3)).await;
    assert_eq!(refusal(refused), ProblemCode::UnknownClient);
}

//! Renewing, releasing and listing.

use crate::support::{fragment, key, now, refusal, start, start_in};
use seedbank_formats::FragmentId;
use seedbank_protocol::messages::{ClaimAction, ClaimRequest, ClaimState, ProblemCode};
use seedbank_protocol::routes::Access;
use seedbank_provider::CONFIG_FILE;
use seedbank_transport::{ClaimOutcome, asked_now};

fn renew(fragment: FragmentId, days: u64) -> ClaimRequest {
    ClaimRequest { fragment, action: ClaimAction::Renew(now().plus_seconds(days * 86_400)) }
}

fn release(fragment: FragmentId) -> ClaimRequest {
    ClaimRequest { fragment, action: ClaimAction::Release }
}

#[tokio::test]
async fn claims_are_renewed_released_and_listed_in_pages() {
    let provider = start().await;
    let client = provider.client();
    let mut ids = Vec::new();
    for seed in 0..5 {
        let stored = fragment(seed, 100);
        client.put(&stored, Access::Owner).await.unwrap();
        ids.push(stored.0);
    }
    ids.sort_unstable();
    let unknown = FragmentId([0; 32]);
    let requests =
        [renew(ids[1], 90), release(ids[3]), renew(unknown, 90), release(unknown), renew(ids[0], 30)];
    let outcomes = client.client.claims(&client.peer, &requests).await.unwrap();
    let [
        ClaimOutcome::Renewed(long),
        ClaimOutcome::Released,
        ClaimOutcome::Absent,
        ClaimOutcome::Released,
        ClaimOutcome::Renewed(short),
    ] = outcomes.as_slice()
    else {
        panic!("{outcomes:?}");
    };
    assert!(long.until > short.until && short.until > now().plus_seconds(29 * 86_400));

    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = client.client.list_claims(&client.peer, after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.fragment);
        listed.extend(page);
    }
    let found: Vec<_> = listed.iter().map(|row| (row.fragment, row.state)).collect();
    let (pending, confirmed) = (ClaimState::Pending, ClaimState::Confirmed);
    let expected = [(ids[0], confirmed), (ids[1], confirmed), (ids[2], pending), (ids[4], pending)];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn claims_are_everybodys_own_affair() {
    let provider = start().await;
    let stored = fragment(1, 100);
    provider.client().put(&stored, Access::Owner).await.unwrap();
    let other = provider.caller(&key(9));
    assert!(other.client.list_claims(&other.peer, None, 10).await.unwrap().is_empty());
    other.client.claims(&other.peer, &[release(stored.0)]).await.unwrap();
    assert!(provider.client().get(&stored, None).await.is_ok());
}

#[tokio::test]
async fn claim_beyond_all_reason_is_refused() {
    let provider = start().await;
    let client = provider.client();
    let stored = fragment(1, 100);
    client.put(&stored, Access::Owner).await.unwrap();
    let refused = client.client.claims(&client.peer, &[renew(stored.0, 401)]).await;
    assert_eq!(refusal(refused), ProblemCode::BadRequest);
    assert!(client.client.claims(&client.peer, &[renew(stored.0, 399)]).await.is_ok());
}

#[tokio::test]
async fn client_off_the_list_reads_and_releases_but_renews_no_more() {
    let provider = start().await;
    let stored = fragment(1, 100);
    provider.client().put(&stored, Access::Owner).await.unwrap();
    let (dir, _folder) = provider.stop().await;
    let path = dir.join(CONFIG_FILE);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &text[..text.find("[[clients]]").unwrap()]).unwrap();

    let provider = start_in(&dir).await.unwrap();
    let client = provider.client();
    assert_eq!(client.get(&stored, None).await.unwrap(), stored.1);
    let renewed = client.client.claims(&client.peer, &[renew(stored.0, 30)]).await;
    assert_eq!(refusal(renewed), ProblemCode::UnknownClient);
    client.client.claims(&client.peer, &[release(stored.0)]).await.unwrap();
    assert_eq!(refusal(client.get(&stored, None).await), ProblemCode::NotFound);
}

#[tokio::test]
async fn release_that_was_decided_before_a_claim_was_made_keeps_it() {
    let provider = start().await;
    let client = provider.client();
    let (put, renewed) = (fragment(1, 100), fragment(2, 100));
    client.put(&put, Access::Owner).await.unwrap();
    client.put(&renewed, Access::Owner).await.unwrap();
    let decided = asked_now();
    client.put(&put, Access::Owner).await.unwrap();
    client.client.claims(&client.peer, &[renew(renewed.0, 60)]).await.unwrap();
    let releases = [release(put.0), release(renewed.0), release(FragmentId([9; 32]))];
    let outcomes = client.client.claims_as_of(&client.peer, &releases, decided).await.unwrap();
    assert_eq!(outcomes, [ClaimOutcome::Kept, ClaimOutcome::Kept, ClaimOutcome::Released]);
    let outcomes = client.client.claims(&client.peer, &releases).await.unwrap();
    assert_eq!(outcomes, [ClaimOutcome::Released, ClaimOutcome::Released, ClaimOutcome::Released]);
}

//! Starting, being watched, stopping, starting again.

use crate::support::{MIB, fragment, refusal, start, start_in};
use seedbank_protocol::messages::ProblemCode;
use seedbank_protocol::routes::Access;
use seedbank_provider::{CONFIG_FILE, ConfigError, Liveness, Mode, RunError, status};

#[tokio::test]
async fn second_daemon_on_one_folder_is_refused() {
    let provider = start().await;
    let second = start_in(&provider.dir).await;
    assert!(matches!(second, Err(RunError::InUse(dir)) if dir == provider.dir));
    // The first one noticed nothing.
    provider.client().put(&fragment(1, 100), Access::Owner).await.unwrap();
    let (dir, _folder) = provider.stop().await;
    start_in(&dir).await.unwrap();
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let provider = start().await;
    let client = provider.client();
    let fragments = [fragment(1, 100), fragment(2, 300_000), fragment(3, 2 * MIB)];
    for stored in &fragments {
        client.put(stored, Access::Owner).await.unwrap();
    }
    let claims = client.client.list_claims(&client.peer, None, 10).await.unwrap();
    let key = provider.serving.key;
    let (dir, _folder) = provider.stop().await;

    let provider = start_in(&dir).await.unwrap();
    assert_eq!(provider.serving.key, key);
    let client = provider.client();
    assert_eq!(client.client.list_claims(&client.peer, None, 10).await.unwrap(), claims);
    for stored in &fragments {
        assert_eq!(client.get(stored, None).await.unwrap(), stored.1);
    }
}

#[tokio::test]
async fn status_tells_a_running_daemon_from_a_stopped_one() {
    let provider = start().await;
    let report = status(&provider.dir).unwrap();
    assert_eq!((report.liveness, report.status.mode), (Liveness::Running, Mode::ReadWrite));
    assert_eq!(report.status.address, provider.serving.address);
    assert_eq!(report.status.metrics, provider.serving.metrics);
    assert_eq!(report.status.key, provider.serving.key);
    provider.client().put(&fragment(1, 5_000), Access::Owner).await.unwrap();
    let (dir, _folder) = provider.stop().await;
    let report = status(&dir).unwrap();
    assert_eq!((report.liveness, report.status.mode), (Liveness::Stopped, Mode::Stopped));
    assert_eq!(report.status.usage.unwrap().fragments, 1);
    assert_eq!((report.status.counters.requests, report.status.counters.bytes_in), (1, 5_000));
}

#[tokio::test]
async fn metrics_are_well_formed_and_follow_what_happens() {
    let provider = start().await;
    let client = provider.client();
    let stored = fragment(1, 5_000);
    client.put(&stored, Access::Owner).await.unwrap();
    client.get(&stored, None).await.unwrap();
    assert_eq!(refusal(client.get(&fragment(2, 10), None).await), ProblemCode::NotFound);

    let (status, text) = provider.page("/metrics").await;
    assert_eq!(status, 200);
    assert!(text.ends_with("# EOF\n"));
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("seedbank_provider_") && value.parse::<f64>().is_ok(), "{line}");
    }
    for expected in [
        "seedbank_provider_requests_total{route=\"put_fragment\",code=\"ok\"} 1",
        "seedbank_provider_requests_total{route=\"get_fragment\",code=\"ok\"} 1",
        "seedbank_provider_requests_total{route=\"get_fragment\",code=\"not_found\"} 1",
        "seedbank_provider_received_bytes_total{route=\"put_fragment\"} 5000",
        "seedbank_provider_sent_bytes_total{route=\"get_fragment\"} 5000",
        "seedbank_provider_request_duration_seconds_count{route=\"put_fragment\"} 1",
        "seedbank_provider_store_fragments 1",
        "seedbank_provider_store_claims 1",
        "seedbank_provider_read_only 0",
    ] {
        assert!(text.lines().any(|line| line == expected), "{expected} in\n{text}");
    }
    assert_eq!(provider.page("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(provider.page("/").await.0, 404);
}

#[tokio::test]
async fn nonsense_in_the_folder_is_told_before_anything_is_served() {
    let provider = start().await;
    let (dir, _folder) = provider.stop().await;
    let path = dir.join(CONFIG_FILE);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("capasity = 5\n{text}")).unwrap();
    assert!(matches!(start_in(&dir).await, Err(RunError::Config(ConfigError::Syntax { .. }))));
    std::fs::write(&path, &text).unwrap();
    // Another identity than the store was made for.
    let key = dir.join("identity.key");
    std::fs::write(&key, "07".repeat(32)).unwrap();
    assert!(matches!(start_in(&dir).await, Err(RunError::Store(seedbank_store::OpenError::WrongStore(_)))));
}

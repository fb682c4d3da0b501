//! Asks providers that the books don't know yet who they are.

use crate::network::Network;
use seedbank_catalog::records::ProviderProfile;
use seedbank_formats::PublicKey;
use seedbank_protocol::messages::{Accepting, Hello};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinError, JoinSet};

/// Whoever does not greet in this time is not added to the books; the steward or a person may add it later.
const PATIENCE: Duration = Duration::from_secs(5);

/// Providers greeted at once.
const AT_ONCE: usize = 64;

/// What those say of themselves that answer under their key where the network knows them.
pub(crate) async fn greet(
    network: &Arc<Network>,
    providers: &[PublicKey],
) -> Result<Vec<ProviderProfile>, JoinError> {
    let mut profiles = Vec::new();
    for some in providers.chunks(AT_ONCE) {
        let mut hellos = JoinSet::new();
        for provider in some.iter().copied() {
            let network = Arc::clone(network);
            hellos.spawn(async move {
                let hello = tokio::time::timeout(PATIENCE, network.hello(&provider)).await;
                hello.ok().and_then(Result::ok).map(|hello| profile(&network, provider, hello))
            });
        }
        while let Some(hello) = hellos.join_next().await {
            profiles.extend(hello?);
        }
    }
    Ok(profiles)
}

/// What a provider says of itself, as the books keep it.
fn profile(network: &Network, key: PublicKey, hello: Hello) -> ProviderProfile {
    ProviderProfile {
        key,
        address: network.peer(&key).address,
        operator: hello.operator,
        region: hello.region,
        capacity_bytes: hello.capacity_bytes,
        free_bytes: hello.free_bytes,
        accepting: hello.accepting != Accepting::Nobody,
    }
}

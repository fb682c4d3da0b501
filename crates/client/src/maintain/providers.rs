//! Asks providers how they are, so that placement and people know.

use super::{Maintenance, StepError};
use seedbank_catalog::Books;
use seedbank_catalog::records::{Contact, Outcome, ProviderProfile};
use seedbank_protocol::messages::Accepting;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// A provider that does not greet in this time counts as away.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who answered a greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Greeted {
    /// Providers that the books know.
    pub known: u64,
    /// Those that answered.
    pub answered: u64,
    /// Those of them that take new fragments.
    pub accepting: u64,
}

impl Maintenance {
    /// Greets every provider at once, and notes what it says of itself and whether it answered.
    ///
    /// # Errors
    /// [`StepError`]. A provider that does not answer is no error.
    pub async fn greet_providers(&self) -> Result<Greeted, StepError> {
        self.learn_addresses::<StepError>().await?;
        let providers = self.ask::<_, StepError>(|books| books.providers()).await?;
        let mut greeted = Greeted { known: providers.len() as u64, ..Greeted::default() };
        let mut hellos = JoinSet::new();
        for profile in providers.into_iter().map(|provider| provider.profile) {
            let network = Arc::clone(&self.network);
            hellos.spawn(async move {
                let began = Instant::now();
                let hello = tokio::time::timeout(PATIENCE, network.hello(&profile.key)).await;
                (profile, hello.ok().and_then(Result::ok), began.elapsed())
            });
        }
        let (mut contacts, mut changed) = (Vec::new(), Vec::new());
        while let Some(hello) = hellos.join_next().await {
            let (profile, hello, took) = hello.map_err(|_ended| StepError::Stopped)?;
            let outcome = match hello {
                Some(hello) => {
                    let said = ProviderProfile {
                        key: profile.key,
                        address: profile.address.clone(),
                        operator: hello.operator,
                        region: hello.region,
                        capacity_bytes: hello.capacity_bytes,
                        free_bytes: hello.free_bytes,
                        accepting: hello.accepting != Accepting::Nobody,
                    };
                    greeted.answered += 1;
                    greeted.accepting += u64::from(said.accepting);
                    if said != profile {
                        changed.push(said);
                    }
                    Outcome::Answered { latency_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX) }
                }
                None => Outcome::Failed,
            };
            contacts.push(Contact { provider: profile.key, outcome });
        }
        self.ask::<_, StepError>(move |books| {
            changed.into_iter().try_for_each(|profile| books.hear_provider(profile))?;
            books.record_contacts(contacts)
        })
        .await?;
        Ok(greeted)
    }
}

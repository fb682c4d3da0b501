//! Drives one segment onto its providers: carries out what the store exchange decides, and nothing else.

use crate::coding::CodedSegment;
use crate::network::Network;
use bytes::Bytes;
use seedbank_formats::{FragmentId, PublicKey, Timestamp};
use seedbank_protocol::routes::Access;
use seedbank_protocol::store_exchange::{
    StoreExchange, StoreFailed, StoreFailure, StoreOutcome, StoreOutput, StorePlan, StorePolicy,
};
use seedbank_transport::CallError;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::task::{JoinHandle, JoinSet};

/// A claim that a provider may hold and that nobody wants. It ends by itself after a day; releasing it frees the
/// provider's disk at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Orphan {
    pub(crate) provider: PublicKey,
    pub(crate) fragment: FragmentId,
}

/// A segment's placement, and the claims that could not be released on the way.
pub(crate) struct Placed {
    pub(crate) result: Result<StoreOutcome, StoreFailed>,
    pub(crate) orphans: Vec<Orphan>,
}

/// Places the fragments of `coded` as `plan` says; pending claims last until `until`.
pub(crate) async fn place(
    network: &Arc<Network>,
    coded: &CodedSegment,
    plan: StorePlan,
    access: Access,
    until: Timestamp,
) -> Placed {
    let fragment_bytes = coded.fragments.first().map_or(0, |(_, bytes)| bytes.len() as u64);
    let exchange = StoreExchange::new(plan, StorePolicy::for_fragment(fragment_bytes), network.now());
    let mut drive = Drive {
        network: Arc::clone(network),
        access,
        until,
        exchange,
        sends: HashMap::new(),
        answers: JoinSet::new(),
        releases: JoinSet::new(),
    };
    let result = drive.run(&coded.fragments).await;
    Placed { result, orphans: drive.settle().await }
}

/// What one send came to: the index, the provider, and why it failed if it did.
type Answer = (usize, PublicKey, Result<(), CallError>);

struct Drive {
    network: Arc<Network>,
    access: Access,
    until: Timestamp,
    exchange: StoreExchange,
    /// Sends under way, so that one can be ended before its release is sent.
    sends: HashMap<(usize, PublicKey), JoinHandle<()>>,
    answers: JoinSet<Answer>,
    releases: JoinSet<Option<Orphan>>,
}

impl Drive {
    async fn run(&mut self, fragments: &[(FragmentId, Bytes)]) -> Result<StoreOutcome, StoreFailed> {
        loop {
            while let Some(output) = self.exchange.poll_output() {
                match output {
                    StoreOutput::Send { index, provider, attempt: _ } => {
                        self.send(index, provider, fragments)
                    }
                    StoreOutput::Cancel { index, provider } => {
                        if let Some(send) = self.sends.get(&(index, provider)) {
                            send.abort();
                        }
                    }
                    StoreOutput::Release { index, provider } => {
                        self.release(index, provider, fragments[index].0);
                    }
                    StoreOutput::Done(outcome) => return Ok(outcome),
                    StoreOutput::Failed(failed) => return Err(failed),
                }
            }
            let wake = self.exchange.poll_timeout();
            let timer = self.network.sleep_until(wake);
            tokio::select! {
                Some(answer) = self.answers.join_next() => {
                    // An aborted send has no answer: the exchange gave it up itself.
                    if let Ok((index, provider, result)) = answer {
                        let now = self.network.now();
                        match result {
                            Ok(()) => self.exchange.handle_receipt(index, provider, now),
                            Err(error) => {
                                self.exchange.handle_failure(index, provider, failure(&error), now);
                            }
                        }
                    }
                }
                () = timer => self.exchange.handle_timeout(self.network.now()),
            }
        }
    }

    fn send(&mut self, index: usize, provider: PublicKey, fragments: &[(FragmentId, Bytes)]) {
        let (id, bytes) = fragments[index].clone();
        let (network, access, until) = (Arc::clone(&self.network), self.access, self.until);
        let (done, answer) = tokio::sync::oneshot::channel();
        let send = tokio::spawn(async move {
            let result = network.put_fragment(&provider, id, bytes, until, access).await;
            // Nobody listens once the send was given up.
            let _unheard = done.send(result);
        });
        self.sends.insert((index, provider), send);
        self.answers.spawn(async move {
            match answer.await {
                Ok(result) => (index, provider, result),
                Err(_given_up) => std::future::pending().await,
            }
        });
    }

    fn release(&mut self, index: usize, provider: PublicKey, fragment: FragmentId) {
        let send = self.sends.remove(&(index, provider));
        let network = Arc::clone(&self.network);
        self.releases.spawn(async move {
            if let Some(send) = send {
                send.abort();
                // An aborted task's end is an error by design; what counts is that it has ended.
                let _ended = send.await;
            }
            match network.release(&provider, &[fragment]).await {
                Ok(()) => None,
                Err(_) => Some(Orphan { provider, fragment }),
            }
        });
    }

    /// Waits for the releases; what could not be released is for the caller to remember.
    async fn settle(mut self) -> Vec<Orphan> {
        self.answers.abort_all();
        let mut orphans = Vec::new();
        while let Some(released) = self.releases.join_next().await {
            orphans.extend(released.ok().flatten());
        }
        orphans
    }
}

/// What a failed call says about the provider.
fn failure(error: &CallError) -> StoreFailure {
    match error {
        CallError::WrongPeer { .. } | CallError::WrongVersion { .. } => StoreFailure::Unreachable,
        // The connection may have broken after bytes were sent.
        CallError::Unreachable { .. } => StoreFailure::Interrupted,
        CallError::Refused { .. } => StoreFailure::Refused,
        CallError::Slow { .. } => StoreFailure::Slow,
        CallError::Malformed { .. } => StoreFailure::Liar,
    }
}

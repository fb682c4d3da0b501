//! Drives one segment onto its providers: carries out what the store exchange decides, and nothing else.
//!
//! Releases are given back to the caller, who leaves them to be done as jobs: a provider that is slow enough to lose a
//! race would hold the next segment up as well, and only the books know whether the same fragment is wanted elsewhere.

use crate::coding::CodedSegment;
use crate::network::Network;
use bytes::Bytes;
use seedbank_formats::{FragmentId, PublicKey, Timestamp};
use seedbank_protocol::messages::ProblemCode;
use seedbank_protocol::routes::Access;
use seedbank_protocol::store_exchange::{
    StoreExchange, StoreFailed, StoreFailure, StoreOutcome, StoreOutput, StorePlan, StorePolicy,
};
use seedbank_transport::CallError;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use tokio::task::{AbortHandle, JoinError, JoinSet};

/// A claim that a provider may hold and that nobody wants. It ends by itself after a day; releasing it frees the
/// provider's disk at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Orphan {
    pub(crate) provider: PublicKey,
    pub(crate) fragment: FragmentId,
}

/// A segment's placement, and the claims that are to be released. Every request that could still make one has ended.
pub(crate) struct Placed {
    pub(crate) result: Result<StoreOutcome, StoreFailed>,
    pub(crate) orphans: Vec<Orphan>,
    /// Providers that take nothing from us any more, by their own word.
    pub(crate) closed: BTreeSet<PublicKey>,
}

/// Places the fragments of `coded` as `plan` says; pending claims last until `until`. Dropping the future ends all
/// requests.
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
        fragments: &coded.fragments,
        sends: JoinSet::new(),
        handles: HashMap::new(),
        orphans: BTreeSet::new(),
        closed: BTreeSet::new(),
    };
    let result = drive.run().await;
    drive.settle().await;
    Placed { result, orphans: drive.orphans.into_iter().collect(), closed: drive.closed }
}

/// What one send came to: the index, the provider, and why it failed if it did.
type Answer = (usize, PublicKey, Result<(), CallError>);

struct Drive<'a> {
    network: Arc<Network>,
    access: Access,
    until: Timestamp,
    exchange: StoreExchange,
    fragments: &'a [(FragmentId, Bytes)],
    sends: JoinSet<Answer>,
    handles: HashMap<(usize, PublicKey), AbortHandle>,
    orphans: BTreeSet<Orphan>,
    closed: BTreeSet<PublicKey>,
}

impl Drive<'_> {
    async fn run(&mut self) -> Result<StoreOutcome, StoreFailed> {
        loop {
            if let Some(result) = self.carry_out() {
                return result;
            }
            let timer = self.network.sleep_until(self.exchange.poll_timeout());
            tokio::select! {
                Some(answer) = self.sends.join_next() => self.take(answer),
                () = timer => self.exchange.handle_timeout(self.network.now()),
            }
        }
    }

    /// Does what the exchange wants, all of it; gives its result when it is out.
    fn carry_out(&mut self) -> Option<Result<StoreOutcome, StoreFailed>> {
        let mut result = None;
        while let Some(output) = self.exchange.poll_output() {
            match output {
                StoreOutput::Send { index, provider, attempt: _ } => self.send(index, provider),
                StoreOutput::Cancel { index, provider } => {
                    if let Some(send) = self.handles.remove(&(index, provider)) {
                        send.abort();
                    }
                }
                StoreOutput::Release { index, provider } => {
                    self.orphans.insert(Orphan { provider, fragment: self.fragments[index].0 });
                }
                StoreOutput::Done(outcome) => result = Some(Ok(outcome)),
                StoreOutput::Failed(failed) => result = Some(Err(failed)),
            }
        }
        result
    }

    fn take(&mut self, answer: Result<Answer, JoinError>) {
        // A send that was ended has no answer: the exchange gave it up itself.
        let Ok((index, provider, result)) = answer else { return };
        let now = self.network.now();
        match result {
            Ok(()) => self.exchange.handle_receipt(index, provider, now),
            Err(error) => {
                if takes_nothing_more(&error) {
                    self.closed.insert(provider);
                }
                self.exchange.handle_failure(index, provider, failure(&error), now);
            }
        }
    }

    fn send(&mut self, index: usize, provider: PublicKey) {
        let (id, bytes) = self.fragments[index].clone();
        let (network, access, until) = (Arc::clone(&self.network), self.access, self.until);
        let send = self.sends.spawn(async move {
            (index, provider, network.put_fragment(&provider, id, bytes, until, access).await)
        });
        self.handles.insert((index, provider), send);
    }

    /// Waits until every send has ended, and takes the receipts that came too late to be of use.
    async fn settle(&mut self) {
        self.sends.abort_all();
        while let Some(answer) = self.sends.join_next().await {
            self.take(answer);
            let ended = self.carry_out();
            assert!(ended.is_none(), "an exchange ends once");
        }
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

/// Whether the same answer is to be expected to the next fragment.
fn takes_nothing_more(error: &CallError) -> bool {
    let CallError::Refused { problem, .. } = error else { return false };
    matches!(
        problem.code,
        ProblemCode::UnknownClient | ProblemCode::OverQuota | ProblemCode::ReadOnly | ProblemCode::DiskFull
    )
}

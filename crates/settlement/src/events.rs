//! What happened in a deployment's contracts, in order, from some block on.
//!
//! The caller stores the [`Cursor`] together with whatever it made of the items, so a crash repeats items and loses none. Where the chain
//! reorganises, an item says from which block on everything is taken back; what replaced it follows.

mod cursor;
mod event;

pub use cursor::Cursor;
pub use event::{ChannelEvent, DatasetEvent, Event, MarketEvent, RegistryEvent};

use crate::chain::Chain;
use crate::convert::to_abi;
use crate::endpoints::{Endpoints, Unanswered};
use crate::rpc::{Block, EndpointFault, Log};
use alloy_primitives::{Address as AbiAddress, U64};
use cursor::{Fork, Known};
use serde_json::json;
use std::sync::Arc;
use tracing::{debug, warn};

/// One thing to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "almost all are of the large one")]
pub enum EventItem {
    /// Something happened.
    Happened(Happened),
    /// Everything of this block and later ones did not happen after all: the chain has other blocks there.
    Retracted {
        /// The first block that is gone.
        from_block: u64,
    },
}

/// An event and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// Its block.
    pub block: u64,
    /// Its transaction.
    pub transaction: [u8; 32],
    /// Its number among the block's events.
    pub index: u64,
    /// What it says.
    pub event: Event,
}

/// What one look brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventBatch {
    /// In order.
    pub items: Vec<EventItem>,
    /// There is nothing more for now.
    pub caught_up: bool,
}

/// How events are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventPolicy {
    /// How many blocks must hold an event, with its own, until it is told. Above 1, most reorganisations go unnoticed.
    pub confirmations: u64,
    /// Blocks asked for at once at most; endpoints that refuse so many are asked for fewer.
    pub range_max: u64,
}

impl Default for EventPolicy {
    fn default() -> Self {
        Self { confirmations: 1, range_max: 5_000 }
    }
}

/// Why there are no events.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// Try again later.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// The chain has other blocks further back than the cursor remembers. Forget everything and begin with a new cursor.
    #[error("the chain has replaced block {oldest} and more before it: read everything again")]
    TooDeep {
        /// The oldest block that was remembered.
        oldest: u64,
    },
}

/// Follows a deployment's events.
pub struct Events {
    endpoints: Arc<Endpoints>,
    contracts: Contracts,
    policy: EventPolicy,
    cursor: Cursor,
    range: u64,
}

/// Which contract an event is of.
pub(crate) struct Contracts {
    pub(crate) market: AbiAddress,
    pub(crate) registry: AbiAddress,
    pub(crate) channels: AbiAddress,
    pub(crate) datasets: AbiAddress,
    pub(crate) anchor: AbiAddress,
    pub(crate) randomness: AbiAddress,
}

impl Events {
    /// Goes on from a cursor.
    #[must_use]
    pub fn new(chain: &Chain, cursor: Cursor, policy: EventPolicy) -> Self {
        let deployment = chain.deployment();
        let contracts = Contracts {
            market: to_abi(deployment.market),
            registry: to_abi(deployment.registry),
            channels: to_abi(deployment.channels),
            datasets: to_abi(deployment.datasets),
            anchor: to_abi(deployment.anchor),
            randomness: to_abi(deployment.randomness),
        };
        let range = policy.range_max.max(1);
        Self { endpoints: chain.endpoints_arc(), contracts, policy, cursor, range }
    }

    /// Where it is: store it with what was made of the items so far.
    #[must_use]
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Looks once, at a bounded number of blocks. Nothing new is an empty batch; wait a block's time then.
    ///
    /// # Errors
    /// [`EventsError`]. The cursor is then where it was.
    pub async fn poll(&mut self) -> Result<EventBatch, EventsError> {
        let head: U64 = self.endpoints.ask("eth_blockNumber", json!([])).await?;
        let head: u64 = head.to();
        if let Some(from_block) = self.retracted(head).await? {
            warn!(from_block, "the chain was reorganised");
            return Ok(EventBatch { items: vec![EventItem::Retracted { from_block }], caught_up: false });
        }
        let Some(target) = head.checked_sub(self.policy.confirmations.saturating_sub(1)) else {
            return Ok(EventBatch { items: Vec::new(), caught_up: true });
        };
        let from = self.cursor.next();
        if from > target {
            return Ok(EventBatch { items: Vec::new(), caught_up: true });
        }
        let again = EventBatch { items: Vec::new(), caught_up: false };
        let to = target.min(from.saturating_add(self.range - 1));
        // The same last block before and after: then the events in between are of its chain.
        let Some(before) = self.block(to).await? else { return Ok(again) };
        let logs = match self.logs(from, to).await {
            Ok(logs) => logs,
            Err(unanswered) if self.range > 1 && may_be_too_much(&unanswered) => {
                self.range = (to - from + 1).div_ceil(2).max(1);
                debug!(range = self.range, %unanswered, "asking for the events of fewer blocks");
                return Ok(again);
            }
            Err(unanswered) => return Err(unanswered.into()),
        };
        let consistent = self.block(to).await?.is_some_and(|after| after.hash == before.hash)
            && logs.iter().all(|log| {
                !log.removed
                    && (from..=to).contains(&log.block_number)
                    && (log.block_number != to || log.block_hash == before.hash)
            });
        // What the new blocks stand on is still what the cursor remembers.
        if !consistent || self.fork(head).await? != Fork::None {
            return Ok(again);
        }
        self.range = self.range.saturating_mul(2).min(self.policy.range_max.max(1));
        self.cursor.advance(to, before.hash.0);
        let items = logs.iter().filter_map(|log| self.contracts.read(log)).map(EventItem::Happened).collect();
        Ok(EventBatch { items, caught_up: to == target })
    }

    /// Takes the cursor back to where the chain still is what it remembers. The first block that is gone.
    async fn retracted(&mut self, head: u64) -> Result<Option<u64>, EventsError> {
        match self.fork(head).await? {
            Fork::None => Ok(None),
            Fork::After(block) => Ok(Some(self.cursor.back_to(block))),
            Fork::TooDeep { oldest } => Err(EventsError::TooDeep { oldest }),
        }
    }

    async fn fork(&self, head: u64) -> Result<Fork, Unanswered> {
        let mut search = self.cursor.search(head);
        while let Some(number) = search.wanted() {
            let known = match self.block(number).await? {
                Some(block) => Known::Hash(block.hash.0),
                None => Known::Nothing,
            };
            search.answer(known);
        }
        Ok(search.result())
    }

    async fn block(&self, number: u64) -> Result<Option<Block>, Unanswered> {
        self.endpoints.ask("eth_getBlockByNumber", json!([format!("{number:#x}"), false])).await
    }

    async fn logs(&self, from: u64, to: u64) -> Result<Vec<Log>, Unanswered> {
        let filter = json!({
            "fromBlock": format!("{from:#x}"),
            "toBlock": format!("{to:#x}"),
            "address": self.contracts.all(),
        });
        self.endpoints.ask("eth_getLogs", json!([filter])).await
    }
}

/// Endpoints have no common word for "too many": whatever isn't a lost connection may be it.
fn may_be_too_much(unanswered: &Unanswered) -> bool {
    unanswered.faults.iter().any(|(_, fault)| match fault {
        EndpointFault::Refused(_) | EndpointFault::Garbled(_) | EndpointFault::Silent(_) => true,
        EndpointFault::Unreachable(_) | EndpointFault::Behind { .. } | EndpointFault::WrongChain(_) => false,
    })
}

impl Contracts {
    fn all(&self) -> [AbiAddress; 6] {
        [self.market, self.registry, self.channels, self.datasets, self.anchor, self.randomness]
    }
}

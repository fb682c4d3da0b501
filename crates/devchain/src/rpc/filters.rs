//! Filters that are asked for what is new since they were asked last: `eth_newFilter` and its like.
//!
//! Nothing is ever pushed. A filter is a place in the chain and what is looked for from there; one that nobody asks is forgotten, and
//! with the process all are, as clients expect of a node.

use super::error::{Answer, RpcError};
use super::logs::{self, Filter, Overflow};
use super::params::{BlockSelector, Params};
use super::render::quantity;
use crate::node::Inner;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A filter that is not asked for so long is forgotten; clients ask every few seconds.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// Filters at once: some for each of the connections that there may be.
const FILTERS_MAX: usize = 1_024;

/// Hashes of blocks in one answer.
const BLOCKS_MAX: u64 = 1_024;

/// The filters that were asked for.
#[derive(Default)]
pub(crate) struct Filters(Mutex<HashMap<u64, Arc<Mutex<Installed>>>>);

struct Installed {
    looks_for: LooksFor,
    /// The first block that was not looked at.
    next: u64,
    asked: Instant,
}

enum LooksFor {
    Logs {
        filter: Filter,
        /// As it was given: for whoever wants everything.
        given: Value,
        /// The last block that is of interest.
        last: u64,
    },
    Blocks,
    /// Nothing is ever pending here.
    Pending,
}

impl Filters {
    fn all(&self) -> MutexGuard<'_, HashMap<u64, Arc<Mutex<Installed>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn install(&self, looks_for: LooksFor, next: u64) -> Result<u64, RpcError> {
        let mut all = self.all();
        if all.len() >= FILTERS_MAX {
            all.retain(|_, filter| !is_stale(filter));
        }
        if all.len() >= FILTERS_MAX {
            return Err(RpcError::limit(format!("{FILTERS_MAX} filters at once")));
        }
        // Not one after the other: whoever guesses another's would take what is new from it.
        let id = getrandom::u64().map_err(|_| RpcError::internal("no randomness"))?;
        all.insert(id, Arc::new(Mutex::new(Installed { looks_for, next, asked: Instant::now() })));
        Ok(id)
    }

    fn find(&self, params: &Params) -> Result<Arc<Mutex<Installed>>, RpcError> {
        let id = params.number(0)?;
        let mut all = self.all();
        if all.get(&id).is_some_and(|filter| is_stale(filter)) {
            all.remove(&id);
        }
        all.get(&id).cloned().ok_or_else(|| RpcError::refused("filter not found"))
    }
}

/// One that is being asked is not; waiting for it would hold up all others.
fn is_stale(filter: &Mutex<Installed>) -> bool {
    filter.try_lock().is_ok_and(|filter| filter.asked.elapsed() >= FORGOTTEN_AFTER)
}

fn lock(filter: &Mutex<Installed>) -> MutexGuard<'_, Installed> {
    filter.lock().unwrap_or_else(PoisonError::into_inner)
}

fn head(node: &Inner) -> Result<u64, RpcError> {
    Ok(BlockSelector::Latest.number(node)?.unwrap_or_default())
}

pub(super) fn new_logs(node: &Inner, params: &Params) -> Answer {
    let fields = params.object(0)?;
    if fields.get("blockHash").is_some_and(|hash| !hash.is_null()) {
        return Err(RpcError::params("one block has nothing new: use eth_getLogs"));
    }
    let (first, last) = logs::bounds(fields)?;
    let looks_for = LooksFor::Logs {
        filter: Filter::parse(fields)?,
        given: Value::Object(fields.clone()),
        last: last.unwrap_or(u64::MAX),
    };
    let next = (head(node)? + 1).max(first.unwrap_or_default());
    Ok(quantity(node.filters.install(looks_for, next)?))
}

pub(super) fn new_blocks(node: &Inner, _params: &Params) -> Answer {
    Ok(quantity(node.filters.install(LooksFor::Blocks, head(node)? + 1)?))
}

pub(super) fn new_pending(node: &Inner, _params: &Params) -> Answer {
    Ok(quantity(node.filters.install(LooksFor::Pending, 0)?))
}

/// What is new. Of very much, the oldest; the next question goes on from there.
pub(super) fn changes(node: &Inner, params: &Params) -> Answer {
    let filter = node.filters.find(params)?;
    // Held while it is looked for: two that ask at once get each thing once.
    let mut filter = lock(&filter);
    filter.asked = Instant::now();
    let (head, first) = (head(node)?, filter.next);
    let (found, next) = match &filter.looks_for {
        LooksFor::Pending => (Vec::new(), first),
        LooksFor::Logs { filter, last, .. } => {
            let last = head.min(*last).min(first.saturating_add(node.limits.log_blocks_max - 1));
            if first > last {
                return Ok(json!([]));
            }
            let (found, last) = logs::search(node, filter, first, last, Overflow::Stop)?;
            (found, last + 1)
        }
        LooksFor::Blocks => {
            let last = head.min(first.saturating_add(BLOCKS_MAX - 1));
            let snapshot = node.shared.store.snapshot()?;
            let mut hashes = Vec::new();
            for number in first..=last {
                let block = snapshot.block(number)?;
                hashes
                    .push(json!(block.ok_or_else(|| RpcError::not_found("there is no such block"))?.hash()));
            }
            (hashes, first.max(last + 1))
        }
    };
    filter.next = next;
    Ok(Value::Array(found))
}

/// Everything that a filter of logs fits, from its own first block on.
pub(super) fn all(node: &Inner, params: &Params) -> Answer {
    let filter = node.filters.find(params)?;
    let mut filter = lock(&filter);
    filter.asked = Instant::now();
    match &filter.looks_for {
        LooksFor::Logs { given, .. } => logs::get(node, &Params(vec![given.clone()])),
        LooksFor::Blocks | LooksFor::Pending => Err(RpcError::refused("filter not found")),
    }
}

pub(super) fn uninstall(node: &Inner, params: &Params) -> Answer {
    let id = params.number(0)?;
    Ok(json!(node.filters.all().remove(&id).is_some()))
}

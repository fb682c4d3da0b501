//! `eth_getLogs`: a search by block range, address and topics.

use super::error::{Answer, RpcError};
use super::params::{self, BlockSelector, Params};
use super::render;
use crate::node::Inner;
use crate::store::StoreError;
use alloy_primitives::{Address, B256, Bloom, BloomInput, Log};
use serde_json::{Map, Value};

/// Alternatives in one place of a filter; the bloom of every block is tried against each.
const ALTERNATIVES_MAX: usize = 1_000;

/// Topics of a log.
const TOPICS_MAX: usize = 4;

/// What is searched for. An empty list of alternatives means that anything will do.
pub(super) struct Filter {
    addresses: Vec<Address>,
    topics: Vec<Vec<B256>>,
}

/// What to do when there are more logs than one answer may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overflow {
    Refuse,
    /// Give those of the first blocks.
    Stop,
}

pub(super) fn get(node: &Inner, params: &Params) -> Answer {
    let fields = params.object(0)?;
    let filter = Filter::parse(fields)?;
    let Some((first, last)) = range(node, fields)? else { return Ok(Value::Array(Vec::new())) };
    let blocks_max = node.limits.log_blocks_max;
    if last - first >= blocks_max {
        let asked = last - first + 1;
        return Err(RpcError::limit(format!(
            "a range of {asked} blocks; at most {blocks_max} are searched at once"
        )));
    }
    search(node, &filter, first, last, Overflow::Refuse).map(|(found, _)| Value::Array(found))
}

/// The logs that fit in these blocks, and the last block that was searched.
pub(super) fn search(
    node: &Inner,
    filter: &Filter,
    first: u64,
    last: u64,
    overflow: Overflow,
) -> Result<(Vec<Value>, u64), RpcError> {
    let logs_max = node.limits.logs_max;
    let snapshot = node.shared.store.snapshot()?;
    let mut found = Vec::new();
    for number in snapshot.blocks_with_logs(first, last, |bloom| filter.may_be_in(bloom))? {
        let missing = || StoreError::Damaged(format!("block {number} is not whole"));
        let receipt = snapshot.receipt(number)?.ok_or_else(missing)?;
        let matching: Vec<(&Log, u64)> =
            receipt.logs.iter().zip(0..).filter(|(log, _)| filter.matches(log)).collect();
        if matching.is_empty() {
            continue;
        }
        if found.len() + matching.len() > logs_max {
            match overflow {
                Overflow::Refuse => {
                    return Err(RpcError::limit(format!(
                        "more than {logs_max} logs: ask for fewer blocks at once"
                    )));
                }
                // A single block's are given whatever their number, or nothing would ever come after them.
                Overflow::Stop if found.is_empty() => {}
                Overflow::Stop => return Ok((found, number - 1)),
            }
        }
        let block = snapshot.block(number)?.ok_or_else(missing)?;
        let transaction = render::transaction_of(&block, &node.shared.genesis)?.ok_or_else(missing)?;
        found.extend(
            matching.into_iter().map(|(log, index)| render::log(log, index, &block, transaction.hash())),
        );
    }
    Ok((found, last))
}

/// The blocks to search; `None` if there are none.
fn range(node: &Inner, fields: &Map<String, Value>) -> Result<Option<(u64, u64)>, RpcError> {
    let field = |name: &str| fields.get(name).filter(|value| !value.is_null());
    if let Some(hash) = field("blockHash") {
        if field("fromBlock").or(field("toBlock")).is_some() {
            return Err(RpcError::params("blockHash stands alone"));
        }
        let number = BlockSelector::Hash(params::hash(hash)?).number(node)?;
        let number = number.ok_or_else(|| RpcError::not_found("there is no such block"))?;
        return Ok(Some((number, number)));
    }
    let head = BlockSelector::Latest.number(node)?.unwrap_or_default();
    let (first, last) = bounds(fields)?;
    let (first, last) = (first.unwrap_or(head), last.unwrap_or(head).min(head));
    Ok((first <= last).then_some((first, last)))
}

/// First and last block; `None` is the latest.
pub(super) fn bounds(fields: &Map<String, Value>) -> Result<(Option<u64>, Option<u64>), RpcError> {
    let end = |name| -> Result<Option<u64>, RpcError> {
        let given = fields.get(name).filter(|value| !value.is_null());
        match given.map(params::block_selector).transpose()?.unwrap_or(BlockSelector::Latest) {
            BlockSelector::Latest => Ok(None),
            BlockSelector::Number(number) => Ok(Some(number)),
            BlockSelector::Hash(_) => Err(RpcError::params("a range is given by numbers")),
        }
    };
    Ok((end("fromBlock")?, end("toBlock")?))
}

impl Filter {
    pub(super) fn parse(fields: &Map<String, Value>) -> Result<Filter, RpcError> {
        let addresses = alternatives(fields.get("address"), params::address)?;
        let topics = match fields.get("topics") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(places)) if places.len() <= TOPICS_MAX => places
                .iter()
                .map(|place| alternatives(Some(place), params::hash))
                .collect::<Result<_, _>>()?,
            Some(_) => return Err(RpcError::params("topics are a list of at most four")),
        };
        Ok(Filter { addresses, topics })
    }

    fn may_be_in(&self, bloom: &Bloom) -> bool {
        let any_address = self.addresses.iter().map(|address| address.as_slice());
        let may_hold = |bytes: &[u8]| bloom.contains_input(BloomInput::Raw(bytes));
        (self.addresses.is_empty() || any_address.into_iter().any(may_hold))
            && self
                .topics
                .iter()
                .all(|place| place.is_empty() || place.iter().any(|topic| may_hold(topic.as_slice())))
    }

    fn matches(&self, log: &Log) -> bool {
        let topics = log.topics();
        (self.addresses.is_empty() || self.addresses.contains(&log.address))
            && topics.len() >= self.topics.len()
            && self.topics.iter().zip(topics).all(|(place, topic)| place.is_empty() || place.contains(topic))
    }
}

/// Nothing, one, or a list of several.
fn alternatives<T>(
    value: Option<&Value>,
    parse: impl Fn(&Value) -> Result<T, RpcError>,
) -> Result<Vec<T>, RpcError> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(values)) if values.len() > ALTERNATIVES_MAX => {
            Err(RpcError::limit(format!("more than {ALTERNATIVES_MAX} alternatives")))
        }
        Some(Value::Array(values)) => values.iter().map(parse).collect(),
        Some(value) => Ok(vec![parse(value)?]),
    }
}

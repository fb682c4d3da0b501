//! What came with a call, as what it stands for.

use super::error::RpcError;
use crate::node::Inner;
use crate::recent::Past;
use alloy_primitives::{Address, B256, Bytes, U256};
use serde_json::{Map, Value};
use std::str::FromStr;

/// The list of a call's parameters.
pub(super) struct Params(pub(super) Vec<Value>);

/// Which block a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockSelector {
    /// The last one, as it is now.
    Latest,
    Number(u64),
    Hash(B256),
}

impl Params {
    /// The parameter at this place; `None` if it was left out.
    pub(super) fn get(&self, index: usize) -> Option<&Value> {
        self.0.get(index).filter(|value| !value.is_null())
    }

    fn required(&self, index: usize, what: &str) -> Result<&Value, RpcError> {
        self.get(index).ok_or_else(|| RpcError::params(format!("parameter {index} is missing: {what}")))
    }

    pub(super) fn address(&self, index: usize) -> Result<Address, RpcError> {
        address(self.required(index, "an address")?)
    }

    pub(super) fn hash(&self, index: usize) -> Result<B256, RpcError> {
        hash(self.required(index, "a hash")?)
    }

    pub(super) fn bytes(&self, index: usize) -> Result<Bytes, RpcError> {
        bytes(self.required(index, "bytes")?)
    }

    pub(super) fn slot(&self, index: usize) -> Result<U256, RpcError> {
        quantity(self.required(index, "a storage slot")?)
    }

    pub(super) fn number(&self, index: usize) -> Result<u64, RpcError> {
        number(self.required(index, "a number")?)
    }

    pub(super) fn object(&self, index: usize) -> Result<&Map<String, Value>, RpcError> {
        let value = self.required(index, "an object")?;
        value.as_object().ok_or_else(|| RpcError::params(format!("parameter {index} is no object")))
    }

    pub(super) fn flag(&self, index: usize) -> Result<bool, RpcError> {
        match self.get(index) {
            None => Ok(false),
            Some(value) => {
                value.as_bool().ok_or_else(|| RpcError::params(format!("parameter {index} is no flag")))
            }
        }
    }

    pub(super) fn block(&self, index: usize) -> Result<BlockSelector, RpcError> {
        self.get(index).map_or(Ok(BlockSelector::Latest), block_selector)
    }
}

pub(super) fn block_selector(value: &Value) -> Result<BlockSelector, RpcError> {
    match value {
        Value::String(text) => match text.as_str() {
            // Nothing is pending here, and what is written is final.
            "latest" | "pending" | "safe" | "finalized" => Ok(BlockSelector::Latest),
            "earliest" => Ok(BlockSelector::Number(0)),
            _ if text.len() == 66 => hash(value).map(BlockSelector::Hash),
            _ => number(value).map(BlockSelector::Number),
        },
        Value::Object(fields) => match (fields.get("blockHash"), fields.get("blockNumber")) {
            (Some(value), None) => hash(value).map(BlockSelector::Hash),
            (None, Some(value)) => number(value).map(BlockSelector::Number),
            _ => Err(RpcError::params("a block is named by blockHash or by blockNumber")),
        },
        _ => Err(RpcError::params("a block is named by a tag, a number or a hash")),
    }
}

impl BlockSelector {
    /// The block's number; `None` if there is none.
    pub(super) fn number(self, node: &Inner) -> Result<Option<u64>, RpcError> {
        let snapshot = node.shared.store.snapshot()?;
        let head = snapshot.head()?.map_or(0, |block| block.number());
        match self {
            BlockSelector::Latest => Ok(Some(head)),
            BlockSelector::Number(number) => Ok((number <= head).then_some(number)),
            BlockSelector::Hash(hash) => Ok(snapshot.block_number(hash)?),
        }
    }

    /// The state after the block, and its number.
    pub(super) fn state(self, node: &Inner) -> Result<(Past, u64), RpcError> {
        if self == BlockSelector::Latest {
            let newest = node.shared.store.snapshot()?;
            let head = newest.head()?.map_or(0, |block| block.number());
            return Ok((Past { newest, undos: Vec::new() }, head));
        }
        let number = self.number(node)?.ok_or_else(|| RpcError::not_found("there is no such block"))?;
        let state = node.shared.state_after(number)?;
        let state = state.ok_or_else(|| {
            RpcError::not_found(format!(
                "the state after block {number} is no longer kept: ask for the latest"
            ))
        })?;
        Ok((state, number))
    }
}

fn text<'a>(value: &'a Value, what: &str) -> Result<&'a str, RpcError> {
    value.as_str().ok_or_else(|| RpcError::params(format!("{what} is a text that begins with 0x")))
}

fn parsed<T: FromStr>(text: &str, what: &str) -> Result<T, RpcError> {
    let digits = text.strip_prefix("0x").filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let parsed = digits.and_then(|_| text.parse().ok());
    parsed.ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        RpcError::params(format!("{shown:?} is no {what}"))
    })
}

pub(super) fn address(value: &Value) -> Result<Address, RpcError> {
    parsed(text(value, "an address")?, "address")
}

pub(super) fn hash(value: &Value) -> Result<B256, RpcError> {
    parsed(text(value, "a hash")?, "hash of 32 bytes")
}

pub(super) fn bytes(value: &Value) -> Result<Bytes, RpcError> {
    parsed(text(value, "data")?, "data")
}

pub(super) fn quantity(value: &Value) -> Result<U256, RpcError> {
    let text = text(value, "a quantity")?;
    if text == "0x" {
        return Err(RpcError::params("\"0x\" is no quantity"));
    }
    parsed(text, "quantity")
}

/// A number that fits 64 bits, as a quantity or as a plain number.
pub(super) fn number(value: &Value) -> Result<u64, RpcError> {
    if let Some(number) = value.as_u64() {
        return Ok(number);
    }
    u64::try_from(quantity(value)?).map_err(|_| RpcError::params("a number of more than 64 bits"))
}

#[cfg(test)]
mod tests {
    use super::{BlockSelector, address, block_selector, bytes, hash, number, quantity};
    use alloy_primitives::U256;
    use serde_json::json;

    #[test]
    fn hex_is_taken_and_everything_else_refused() {
        assert_eq!(quantity(&json!("0x1f")).unwrap(), U256::from(31));
        assert_eq!(number(&json!("0x1f")).unwrap(), 31);
        assert_eq!(number(&json!(31)).unwrap(), 31);
        assert_eq!(bytes(&json!("0x")).unwrap().len(), 0);
        for wrong in [
            json!(""),
            json!("0x"),
            json!("31"),
            json!("0xg"),
            json!("0x-1"),
            json!(-1),
            json!(1.5),
            json!([]),
        ] {
            assert!(quantity(&wrong).is_err() && number(&wrong).is_err(), "{wrong}");
        }
        assert!(quantity(&json!(format!("0x1{}", "0".repeat(64)))).is_err());
        assert!(number(&json!("0x10000000000000000")).is_err());
        assert!(bytes(&json!("0x123")).is_err() && bytes(&json!("1234")).is_err());
        assert!(address(&json!("0x12")).is_err() && hash(&json!("0x12")).is_err());
    }

    #[test]
    fn blocks_are_named_in_every_usual_way() {
        let hash = format!("0x{}", "1".repeat(64));
        assert_eq!(block_selector(&json!("latest")).unwrap(), BlockSelector::Latest);
        assert_eq!(block_selector(&json!("earliest")).unwrap(), BlockSelector::Number(0));
        assert_eq!(block_selector(&json!("0x2")).unwrap(), BlockSelector::Number(2));
        assert!(matches!(block_selector(&json!(hash)).unwrap(), BlockSelector::Hash(_)));
        assert!(matches!(block_selector(&json!({"blockHash": hash})).unwrap(), BlockSelector::Hash(_)));
        assert_eq!(block_selector(&json!({"blockNumber": "0x2"})).unwrap(), BlockSelector::Number(2));
        for wrong in [json!({}), json!("soon"), json!([]), json!(true)] {
            assert!(block_selector(&wrong).is_err(), "{wrong}");
        }
    }
}

//! What a call that failed is answered, by the codes that tools know.

use crate::execution::ExecutionError;
use crate::store::StoreError;
use alloy_primitives::Bytes;
use serde_json::{Value, json};
use std::fmt::Display;

/// A call's result.
pub(super) type Answer = Result<Value, RpcError>;

const PARSE: i64 = -32_700;
const INVALID_REQUEST: i64 = -32_600;
const NO_METHOD: i64 = -32_601;
const INVALID_PARAMS: i64 = -32_602;
const INTERNAL: i64 = -32_603;
const REFUSED: i64 = -32_000;
const NOT_FOUND: i64 = -32_001;
const LIMIT: i64 = -32_005;
const REVERTED: i64 = 3;

/// Why there is no result.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RpcError {
    pub(super) code: i64,
    pub(super) message: String,
    data: Option<Value>,
}

impl RpcError {
    fn new(code: i64, message: impl Into<String>) -> RpcError {
        RpcError { code, message: message.into(), data: None }
    }

    pub(super) fn parse(error: &serde_json::Error) -> RpcError {
        RpcError::new(PARSE, format!("no JSON: {error}"))
    }

    pub(super) fn invalid(why: &str) -> RpcError {
        RpcError::new(INVALID_REQUEST, format!("no JSON-RPC call: {why}"))
    }

    pub(super) fn no_method(method: &str) -> RpcError {
        let method: String = method.chars().take(64).collect();
        RpcError::new(NO_METHOD, format!("there is no method {method:?}"))
    }

    pub(super) fn params(why: impl Display) -> RpcError {
        RpcError::new(INVALID_PARAMS, format!("invalid params: {why}"))
    }

    pub(super) fn limit(why: impl Into<String>) -> RpcError {
        RpcError::new(LIMIT, why)
    }

    pub(super) fn internal(why: impl Into<String>) -> RpcError {
        RpcError::new(INTERNAL, why)
    }

    /// The chain does not take it as things stand.
    pub(super) fn refused(why: impl Display) -> RpcError {
        RpcError::new(REFUSED, why.to_string())
    }

    pub(super) fn not_found(what: impl Into<String>) -> RpcError {
        RpcError::new(NOT_FOUND, what)
    }

    /// The contract said no, with these bytes.
    pub(super) fn reverted(output: &Bytes) -> RpcError {
        let reason = revert_reason(output).map_or(String::new(), |reason| format!(": {reason}"));
        RpcError { code: REVERTED, message: format!("execution reverted{reason}"), data: Some(json!(output)) }
    }

    pub(super) fn to_json(&self) -> Value {
        match &self.data {
            Some(data) => json!({"code": self.code, "message": self.message, "data": data}),
            None => json!({"code": self.code, "message": self.message}),
        }
    }
}

impl From<StoreError> for RpcError {
    fn from(error: StoreError) -> RpcError {
        tracing::error!(%error, "read failed");
        RpcError::internal(error.to_string())
    }
}

impl From<ExecutionError> for RpcError {
    fn from(error: ExecutionError) -> RpcError {
        match error {
            ExecutionError::Refused(why) => RpcError::refused(why),
            ExecutionError::Store(error) => error.into(),
            ExecutionError::Evm(why) => RpcError::internal(why),
        }
    }
}

/// The text of `Error(string)`, which is what `require` with a message gives.
fn revert_reason(output: &[u8]) -> Option<String> {
    const ERROR_STRING: [u8; 4] = [0x08, 0xc3, 0x79, 0xa0];
    let words = output.strip_prefix(&ERROR_STRING)?;
    let length = words.get(32..64)?;
    let (high, low) = length.split_at(24);
    if high.iter().any(|byte| *byte != 0) {
        return None;
    }
    let length = usize::try_from(u64::from_be_bytes(low.try_into().ok()?)).ok()?;
    let text = words.get(64..)?.get(..length)?;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::revert_reason;

    #[test]
    fn reason_is_read_from_whole_answers_only() {
        let mut output = vec![0x08, 0xc3, 0x79, 0xa0];
        output.extend([&[0; 31][..], &[32], &[0; 31], &[2], b"no"].concat());
        assert_eq!(revert_reason(&output), Some("no".to_owned()));
        let cut = output.len() - 1;
        assert_eq!(revert_reason(&output[..cut]), None);
        output[4 + 32] = 0xff;
        assert_eq!(revert_reason(&output), None);
        assert_eq!(revert_reason(&[]), None);
    }
}

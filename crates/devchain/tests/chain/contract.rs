//! Contracts by hand, so that these tests need no compiler.

use alloy_primitives::{Bytes, U256};

/// Wraps code that is to run later into code that deploys it.
fn deploying(runtime: &[u8]) -> Bytes {
    let length = u8::try_from(runtime.len()).unwrap();
    // PUSH1 length, DUP1, PUSH1 where it begins, PUSH1 0, CODECOPY, PUSH1 0, RETURN.
    let mut code = vec![0x60, length, 0x80, 0x60, 11, 0x60, 0, 0x39, 0x60, 0, 0xf3];
    code.extend(runtime);
    code.into()
}

/// A call with 32 bytes adds that number to slot 0 and logs the sum under topic 7; a call without gives slot 0.
pub(crate) fn counter() -> Bytes {
    deploying(&[
        0x36, 0x60, 0x0f, 0x57, // CALLDATASIZE, PUSH1 15, JUMPI
        0x60, 0x00, 0x54, 0x60, 0x00, 0x52, // SLOAD(0) to memory
        0x60, 0x20, 0x60, 0x00, 0xf3, // RETURN(0, 32)
        0x5b, 0x60, 0x00, 0x54, 0x60, 0x00, 0x35, 0x01, // 15: JUMPDEST, SLOAD(0) + CALLDATALOAD(0)
        0x80, 0x60, 0x00, 0x55, // DUP1, SSTORE(0)
        0x60, 0x00, 0x52, // to memory
        0x60, 0x07, 0x60, 0x20, 0x60, 0x00, 0xa1, 0x00, // LOG1(0, 32, 7), STOP
    ])
}

/// Says no, with the bytes that it was called with.
pub(crate) fn reverter() -> Bytes {
    // CALLDATASIZE, PUSH1 0, PUSH1 0, CALLDATACOPY, CALLDATASIZE, PUSH1 0, REVERT
    deploying(&[0x36, 0x60, 0x00, 0x60, 0x00, 0x37, 0x36, 0x60, 0x00, 0xfd])
}

/// Gives the hash of the block whose number it is called with.
pub(crate) fn block_hash() -> Bytes {
    // CALLDATALOAD(0), BLOCKHASH, to memory, return 32 bytes
    deploying(&[0x60, 0x00, 0x35, 0x40, 0x60, 0x00, 0x52, 0x60, 0x20, 0x60, 0x00, 0xf3])
}

/// Gives block number, timestamp and difficulty.
pub(crate) fn environment() -> Bytes {
    deploying(&[
        0x43, 0x60, 0x00, 0x52, 0x42, 0x60, 0x20, 0x52, 0x44, 0x60, 0x40, 0x52, 0x60, 0x60, 0x60, 0x00, 0xf3,
    ])
}

/// Uses all gas that it gets.
pub(crate) fn endless() -> Bytes {
    deploying(&[0x5b, 0x60, 0x00, 0x56])
}

/// Stores 1 in slot 0 when it is made; destroys itself when it is called.
pub(crate) fn mortal() -> Bytes {
    // PUSH1 1, PUSH1 0, SSTORE, then deploys CALLER SELFDESTRUCT.
    let mut code = vec![0x60, 0x01, 0x60, 0x00, 0x55];
    code.extend([0x60, 2, 0x80, 0x60, 16, 0x60, 0, 0x39, 0x60, 0, 0xf3, 0x33, 0xff]);
    code.into()
}

pub(crate) fn word(number: u64) -> Bytes {
    U256::from(number).to_be_bytes::<32>().into()
}

//! Seals what no honest writer seals, so that tests and the fuzzer reach what lies behind a seal.

use crate::keys::SealKeys;
use crate::seal::{self, Item};

/// Seals any payload as a part of a stored format, under its name. Appends it to `out`.
pub fn seal_part(keys: &SealKeys, name: &[u8], payload: &[u8], out: &mut Vec<u8>) {
    seal::seal_part(keys, name, payload, out);
}

/// Seals any payload as that of `item`, whatever its codec and length say. Appends it to `out` and gives its length.
///
/// # Panics
/// With a payload of more than 4 GiB.
#[must_use]
pub fn seal_item(keys: &SealKeys, item: &Item, payload: &[u8], out: &mut Vec<u8>) -> u32 {
    seal::seal_payload(keys, item.kind, &item.id, item.codec, item.plain_len, payload, out)
}

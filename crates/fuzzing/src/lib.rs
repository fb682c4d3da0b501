//! What the fuzzer runs: every decoder of bytes that come from others or from a disk, and the two exchanges.
//!
//! A target takes any bytes and panics when something that must hold does not: nothing panics, what is decoded has no
//! other encoding, what is encoded reads back, limits are checked before memory is taken, exchanges end. The first byte
//! chooses among the decoders of a target. `fuzz/` drives the targets by coverage; `tests/corpus.rs` runs them over the
//! inputs that were kept, as a part of the ordinary tests.
//!
//! Some decoders are private to a program or a shell. Their files are compiled in here as they stand, so that they stay
//! private there, and a fuzzer need not build SQLite, TLS and a runtime.
//!
//! Signatures, seals and checksums would stop a fuzzer at once. So a target also signs, seals or sums what it is given,
//! as a hostile owner, provider or disk could, and what lies behind is reached.

mod agreement;
#[path = "../../provider/src/byte_size.rs"]
#[allow(dead_code, unreachable_pub, reason = "the provider's own file")]
mod byte_size;
#[path = "../../provider/src/chain_config.rs"]
#[allow(dead_code, unreachable_pub, reason = "the provider's own file")]
mod chain_config;
mod exchange;
mod home;
mod index;
mod input;
mod keystore;
mod messages;
mod names;
mod pages;
mod payments;
#[path = "../../provider/src/config.rs"]
#[allow(dead_code, unreachable_pub, reason = "the provider's own file")]
mod provider_config;
mod read_exchange;
mod sealed;
mod signed;
mod slices;
mod store;
mod store_exchange;

/// One thing to fuzz.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// What it is called, on the command line and as the folder of its corpus.
    pub name: &'static str,
    /// Runs it over some bytes. Panics when something that must hold does not.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 14] = [
    Target { name: "sealed", run: sealed::run },
    Target { name: "signed", run: signed::run },
    Target { name: "tree", run: pages::run_tree },
    Target { name: "pages", run: pages::run },
    Target { name: "names", run: names::run },
    Target { name: "slices", run: slices::run },
    Target { name: "messages", run: messages::run },
    Target { name: "requests", run: messages::run_requests },
    Target { name: "payments", run: payments::run },
    Target { name: "agreement", run: agreement::run },
    Target { name: "store", run: store::run },
    Target { name: "home", run: home::run },
    Target { name: "store-exchange", run: store_exchange::run },
    Target { name: "read-exchange", run: read_exchange::run },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// Decodes, and checks that what was decoded is encoded in these bytes and no others.
fn canonical<T, E>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, E>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Option<T> {
    let value = decode(bytes).ok()?;
    assert!(encode(&value) == bytes, "a value has one encoding");
    Some(value)
}

//! The whole network on one thread under a seed: real exchanges and real stores, a simulated network, and rules that must
//! hold whatever happens.
//!
//! What is real: the store and read exchanges and the latency table of `protocol`, its checks of answers, its messages
//! about claims; the receipts, statements, slices, seals and segments of `formats`; `erasure`; the placement of
//! `stewardship`; and each provider's `store`, on a disk in memory that loses what was not synced. What is simulated: the
//! clock, the connections, and the thin shells that carry out what the exchanges decide. A seed draws how many nodes
//! there are, how they code, who lies how, and which faults strike how often ([`Options`]). Then clients push, confirm,
//! renew, complete, read, delete and give back, crash and go on, and after every step the rules are checked
//! (`truth`). The first one that is broken ends the run with a trace.
//!
//! What this does not show: concurrency inside a process, real disks and sockets, speed. `docs/testing.md` says where
//! those are tested.

mod calls;
mod claims;
mod client;
mod content;
mod hedges;
mod lies;
mod nemesis;
mod options;
mod provider;
mod push;
mod random;
mod reading;
mod trace;
mod truth;
mod world;

pub use options::{BUGS, Bug, Fault, Lie, Options};
pub use trace::Keep;
pub use truth::{Counts, Violation};

use world::World;

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What the seed stood for.
    pub options: Options,
    /// The first rule that was broken.
    pub violation: Option<Violation>,
    /// What happened, in numbers.
    pub counts: Counts,
    /// The hash of everything that happened: the same for the same seed.
    pub trace_hash: String,
    /// What happened, line by line, if it was to be kept.
    pub trace: Vec<String>,
}

/// Runs the exchanges under these options until they come to rest or a rule is broken.
#[must_use]
pub fn run(options: Options, keep: Keep) -> Outcome {
    let mut world = World::new(options.clone(), keep);
    world.run();
    let violation = world.truth.violation().cloned();
    let counts = world.truth.counts.clone();
    let (trace_hash, trace) = world.trace.finish();
    Outcome { options, violation, counts, trace_hash, trace }
}

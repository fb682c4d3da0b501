//! What happened, in words, and its hash: two runs of one seed must give the same.

use std::fmt::{self, Display, Write};
use std::time::Duration;

/// Whether lines are kept to be read, or only hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Only the hash.
    Hash,
    /// Every line.
    Lines,
}

/// The record of one run.
#[derive(Debug)]
pub(crate) struct Trace {
    keep: Keep,
    hasher: blake3::Hasher,
    line: String,
    lines: Vec<String>,
    events: u64,
}

impl Trace {
    pub(crate) fn new(keep: Keep) -> Trace {
        Trace { keep, hasher: blake3::Hasher::new(), line: String::new(), lines: Vec::new(), events: 0 }
    }

    /// One line: when, who, what.
    pub(crate) fn note(&mut self, at: Duration, who: impl Display, what: fmt::Arguments<'_>) {
        self.line.clear();
        let (seconds, micros) = (at.as_secs(), at.subsec_micros());
        writeln!(self.line, "{seconds:>6}.{micros:06} {who:<4} {what}").expect("a string takes every line");
        self.hasher.update(self.line.as_bytes());
        self.events += 1;
        if self.keep == Keep::Lines {
            self.lines.push(self.line.clone());
        }
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn finish(self) -> (String, Vec<String>) {
        (self.hasher.finalize().to_hex().to_string(), self.lines)
    }
}

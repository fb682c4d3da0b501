//! What a read starts from: which fragments are where, how bytes are checked, and how long to wait before hedging.

use seedbank_erasure::Scheme;
use seedbank_formats::PublicKey;
use std::collections::BTreeSet;
use std::time::Duration;

/// One fragment and its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// Which fragment of the segment.
    pub index: usize,
    /// Who holds it.
    pub provider: PublicKey,
}

/// How the shell knows that bytes from the wanted fragment itself are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// It has the key: plain bytes are asked for, and right when their seal opens.
    Seal,
    /// It has no key, or no whole seal lies in the range: everything is asked for with proof.
    Proof,
}

/// When to stop waiting for one provider and ask others as well. See [`crate::latency`] for where delays come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadHedge {
    /// After the first request. Zero for a holder that is believed to be down: it and the alternative race at once.
    pub first: Duration,
    /// After each further one.
    pub next: Duration,
}

/// One range of one fragment to read, checked: the indices exist, and none is named twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPlan {
    pub(super) scheme: Scheme,
    pub(super) direct: Vec<Source>,
    pub(super) parts: Vec<Source>,
    pub(super) check: Check,
    pub(super) hedge: ReadHedge,
}

/// Why sources make no plan: the placement that they come from is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadPlanError {
    /// The scheme has no such fragment.
    #[error("no such fragment in a scheme of {total}: index={index}")]
    NoSuchIndex {
        /// The fragment's index.
        index: usize,
        /// All fragments of the scheme.
        total: usize,
    },
    /// A fragment is named twice.
    #[error("fragment has two sources: index={0}")]
    Repeated(usize),
}

impl ReadPlan {
    /// Reads a range of fragment `wanted` from its holder, or else from the same range of the others. `sources` are
    /// all known holders, the preferred first; fragments without a holder are left out. Of copies any is as good, so
    /// the first source is asked first, whatever `wanted` says.
    ///
    /// # Errors
    /// [`ReadPlanError`] when an index is not in the scheme or is repeated.
    pub fn new(
        scheme: Scheme,
        wanted: usize,
        sources: &[Source],
        check: Check,
        hedge: ReadHedge,
    ) -> Result<ReadPlan, ReadPlanError> {
        check_indices(scheme, sources, Some(wanted))?;
        let (direct, parts) = sources.iter().partition(|source| scheme.is_copies() || source.index == wanted);
        Ok(ReadPlan { scheme, direct, parts, check, hedge })
    }

    /// Decodes a range of fragment `wanted` from `k` others without asking its holder: for a holder known to be gone,
    /// of which many ranges or the whole fragment are needed. Copies are read from any other copy.
    ///
    /// # Errors
    /// As [`ReadPlan::new`].
    pub fn around(
        scheme: Scheme,
        wanted: usize,
        sources: &[Source],
        check: Check,
        hedge: ReadHedge,
    ) -> Result<ReadPlan, ReadPlanError> {
        let mut plan = ReadPlan::new(scheme, wanted, sources, check, hedge)?;
        plan.direct.retain(|source| source.index != wanted);
        Ok(plan)
    }

    /// Decodes a range from any `k` fragments, none of which is wanted more than another: for whoever needs that range of
    /// all of them. Every holder is a source, also one that somebody is waiting for: when exactly `k` are left, none of
    /// them can be spared. Not for copies.
    ///
    /// # Errors
    /// As [`ReadPlan::new`].
    pub fn of_any(scheme: Scheme, sources: &[Source], hedge: ReadHedge) -> Result<ReadPlan, ReadPlanError> {
        check_indices(scheme, sources, None)?;
        Ok(ReadPlan { scheme, direct: Vec::new(), parts: sources.to_vec(), check: Check::Proof, hedge })
    }

    /// When to stop waiting for one provider.
    #[must_use]
    pub fn hedge(&self) -> ReadHedge {
        self.hedge
    }
}

fn check_indices(scheme: Scheme, sources: &[Source], wanted: Option<usize>) -> Result<(), ReadPlanError> {
    let total = scheme.total();
    let indices = || sources.iter().map(|source| source.index);
    if let Some(index) = indices().chain(wanted).find(|index| *index >= total) {
        return Err(ReadPlanError::NoSuchIndex { index, total });
    }
    let mut seen = BTreeSet::new();
    match indices().find(|index| !seen.insert(*index)) {
        Some(index) => Err(ReadPlanError::Repeated(index)),
        None => Ok(()),
    }
}

//! What is really so, and the rules that must hold at every moment.
//!
//! Nodes see messages; this sees everything. It keeps what honest providers promised, which of their bytes were damaged
//! on purpose, and what clients were told is safe. Breaking a rule ends the run: the first violation is what matters.

use crate::content::Segment;
use crate::provider::{Provider, Word};
use seedbank_formats::receipt::{Answer, Statement};
use seedbank_formats::{Asked, FragmentId, PublicKey, SegmentNumber, Timestamp, slice};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// A segment: whose, and which of its.
pub(crate) type SegmentName = (usize, SegmentNumber);

/// A rule that was broken, in a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub String);

/// What happened in a run, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Segments that a client was told are safe.
    pub acknowledged: u64,
    /// Ranges that were read and found exact.
    pub reads: u64,
    /// Of those, decoded from others.
    pub decoded: u64,
    /// Reads that failed while faults struck.
    pub reads_failed: u64,
    /// Times that a provider lost power.
    pub provider_crashes: u64,
    /// Times that a client ended and started again.
    pub client_crashes: u64,
    /// Placements that were completed after a client had started again.
    pub resumed: u64,
    /// Providers named liars with evidence that anyone can check.
    pub liars_proven: u64,
    /// Fragments sent to a stand-in.
    pub hedges: u64,
    /// Claims given back.
    pub released: u64,
    /// Releases that came so late that the claim had been made again, and were ignored.
    pub releases_late: u64,
}

/// What a client was last promised about a fragment.
#[derive(Debug, Clone, Copy)]
struct Promise {
    until: Timestamp,
    /// When the client asked for it.
    asked: Asked,
}

/// Everything that the rules are checked against.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) segments: BTreeMap<SegmentName, Arc<Segment>>,
    /// By provider and fragment: what it promised to which client.
    promises: BTreeMap<(usize, FragmentId), BTreeMap<usize, Promise>>,
    /// What rots where, by our own hand.
    damaged: BTreeSet<(usize, FragmentId)>,
    /// What was ever damaged, whatever came anew since.
    damaged_once: BTreeSet<(usize, FragmentId)>,
    /// What clients were told is safe.
    pub(crate) acknowledged: BTreeSet<SegmentName>,
    pub(crate) counts: Counts,
    violation: Option<Violation>,
}

impl Truth {
    /// A rule is broken. Only the first one counts: others follow from it.
    pub(crate) fn violated(&mut self, what: String) {
        self.violation.get_or_insert(Violation(what));
    }

    pub(crate) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// The client wants it forgotten: from now on it may be gone or not, unless the client has asked for it since.
    pub(crate) fn forgotten(&mut self, provider: usize, fragment: FragmentId, client: usize, asked: Asked) {
        if let Some(clients) = self.promises.get_mut(&(provider, fragment)) {
            clients.retain(|of, promise| *of != client || promise.asked > asked);
        }
    }

    /// What an honest provider is about to say to a client.
    pub(crate) fn heard(&mut self, provider: (usize, &Provider), client: usize, word: &Word) {
        let (number, honest) = provider;
        match word {
            Word::Stored { fragment, until, asked } => {
                self.promised(number, *fragment, client, Promise { until: *until, asked: *asked });
                if honest.has(fragment) {
                    self.damaged.remove(&(number, *fragment));
                } else {
                    self.violated(format!("p{number} signed for a fragment that it does not hold"));
                }
            }
            Word::Renewed { fragment, until, asked } => {
                self.promised(number, *fragment, client, Promise { until: *until, asked: *asked });
                if !honest.has(fragment) && !self.is_damaged(number, fragment) {
                    self.violated(format!("p{number} signed for a fragment that it has lost"));
                }
            }
            Word::Released { .. } => {}
            Word::Kept => self.counts.releases_late += 1,
            Word::Denied { fragment } => {
                if self.is_promised_to(number, honest, fragment, client) {
                    self.violated(format!("p{number} denies to c{client} what it promised to it"));
                }
            }
            Word::Rotten { fragment } => {
                if !self.is_damaged(number, fragment) {
                    self.violated(format!("p{number} signs that sound bytes rotted"));
                }
            }
        }
    }

    pub(crate) fn is_damaged(&self, provider: usize, fragment: &FragmentId) -> bool {
        self.damaged.contains(&(provider, *fragment))
    }

    /// Whether a provider may have said with right that a fragment rotted.
    pub(crate) fn was_damaged(&self, provider: usize, fragment: &FragmentId) -> bool {
        self.damaged_once.contains(&(provider, *fragment))
    }

    /// A provider with a planted bug has signed for what it does not hold yet.
    pub(crate) fn promised_too_soon(
        &mut self,
        number: usize,
        fragment: FragmentId,
        client: usize,
        (until, asked): (Timestamp, Asked),
    ) {
        self.promised(number, fragment, client, Promise { until, asked });
    }

    fn promised(&mut self, number: usize, fragment: FragmentId, client: usize, new: Promise) {
        let clients = self.promises.entry((number, fragment)).or_default();
        let promise = clients.entry(client).or_insert(new);
        *promise = Promise { until: promise.until.max(new.until), asked: promise.asked.max(new.asked) };
    }

    /// Whether a promise to one client binds the provider now. One whose end its clock has ever passed does not.
    fn is_promised_to(
        &self,
        number: usize,
        provider: &Provider,
        fragment: &FragmentId,
        client: usize,
    ) -> bool {
        let clients = self.promises.get(&(number, *fragment));
        clients
            .and_then(|clients| clients.get(&client))
            .is_some_and(|promise| promise.until >= provider.latest)
    }

    /// After a provider has started again, and at the end: all that it signed for is there.
    pub(crate) fn check_promises(&mut self, number: usize, provider: &Provider) {
        let of_it = (number, FragmentId([0; 32]))..=(number, FragmentId([255; 32]));
        let bound = self.promises.range(of_it).filter(|((_, fragment), clients)| {
            clients.values().any(|promise| promise.until >= provider.latest)
                && !self.damaged.contains(&(number, *fragment))
        });
        let lost = bound.filter(|((_, fragment), _)| !provider.has(fragment)).count();
        if lost > 0 {
            self.violated(format!("p{number} lost {lost} fragments that it had acknowledged"));
        }
    }

    /// Notes which fragments of a provider are not what they were, after a bit of its disk was flipped.
    pub(crate) fn note_damage(&mut self, number: usize, provider: &Provider) {
        let of_it = (number, FragmentId([0; 32]))..=(number, FragmentId([255; 32]));
        let wrong = self.promises.range(of_it).map(|(key, _)| *key);
        let wrong: Vec<_> = wrong.filter(|(_, fragment)| !provider.has(fragment)).collect();
        wrong.into_iter().for_each(|(number, fragment)| self.damage(number, fragment));
    }

    fn damage(&mut self, number: usize, fragment: FragmentId) {
        self.damaged.insert((number, fragment));
        self.damaged_once.insert((number, fragment));
    }

    /// Whether these bytes are evidence to somebody who has nothing else: signed by the provider, covering the slice, and
    /// not the fragment that it names.
    pub(crate) fn is_evidence(
        provider: &PublicKey,
        (fragment, length): (&FragmentId, u64),
        range: &Range<u64>,
        proof: &[u8],
    ) -> bool {
        let Some((signed, slice)) = proof.split_at_checked(Statement::ENCODED_LEN) else { return false };
        let Ok(statement) = Statement::check(signed) else { return false };
        statement.provider == *provider
            && statement.fragment == *fragment
            && (statement.start..statement.end) == *range
            && statement.answer == Answer::Slice(FragmentId::of(slice).0)
            && slice::verify(fragment, length, range, slice).is_err()
    }
}

impl Counts {
    /// Every count with its name, for people.
    #[must_use]
    pub fn rows(&self) -> [(&'static str, u64); 11] {
        [
            ("segments acknowledged", self.acknowledged),
            ("reads exact", self.reads),
            ("reads decoded", self.decoded),
            ("reads failed under faults", self.reads_failed),
            ("provider crashes", self.provider_crashes),
            ("client crashes", self.client_crashes),
            ("pushes after a restart", self.resumed),
            ("lies proven", self.liars_proven),
            ("hedges", self.hedges),
            ("claims released", self.released),
            ("late releases ignored", self.releases_late),
        ]
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Counts) {
        self.acknowledged += other.acknowledged;
        self.reads += other.reads;
        self.decoded += other.decoded;
        self.reads_failed += other.reads_failed;
        self.provider_crashes += other.provider_crashes;
        self.client_crashes += other.client_crashes;
        self.resumed += other.resumed;
        self.liars_proven += other.liars_proven;
        self.hedges += other.hedges;
        self.released += other.released;
        self.releases_late += other.releases_late;
    }
}

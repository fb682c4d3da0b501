//! Which providers get the fragments of one segment.
//!
//! Rules come first: a provider that breaks one is never chosen, and when too few are left the error names the rule.
//! Among the rest, weighted rendezvous hashing orders the choice: each provider draws a number from (seed, segment,
//! its key), scaled by its free space and latency, and the best numbers win (Thaler and Ravishankar, "Using
//! name-based mappings to increase hit rates", 1998; weights as in Schindelhauer and Schomaker, "Weighted distributed
//! hash tables", 2005). So free space fills evenly, near providers are preferred but not alone, and the same arguments
//! give the same placement on any machine. The first chosen get the data fragments, which are the ones that healthy
//! reads ask for.
//!
//! **Who is distinct.** Operators are compared by the name that they declare, networks by /24 (IPv4) or /48 (IPv6) of
//! the address. An operator's name costs nothing, so it is the network rule that stops a thousand identities on one
//! line. Loopback addresses (127.0.0.0/8 and ::1) say nothing about networks: there, providers are distinct by operator
//! only, so that a local network obeys the same rules by declaring distinct operators.
//!
//! This does not know who is up: the caller passes only providers it has heard of, and excludes those it distrusts.

mod matching;
mod rendezvous;
#[cfg(test)]
mod tests;

use matching::Groups;
use seedbank_formats::{PublicKey, SegmentNumber};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

/// Whether a provider takes new fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intake {
    /// It does.
    Open,
    /// It serves what it has, and takes nothing new.
    Closed,
}

/// One provider as it describes itself, and as it was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its key.
    pub provider: PublicKey,
    /// Who runs it, by its own word; compared exactly.
    pub operator: String,
    /// Where it was reached.
    pub address: IpAddr,
    /// Where it stands, by its own word; compared exactly.
    pub region: String,
    /// Bytes that it has left for us.
    pub free: u64,
    /// The usual time to its first byte, if it was measured.
    pub latency: Option<Duration>,
    /// Whether it takes new fragments.
    pub intake: Intake,
}

/// How many fragments of one segment may go to one operator, network or region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// All of them.
    Any,
    /// At most this many. One means that all are distinct.
    AtMost(NonZeroUsize),
}

impl Spread {
    /// All distinct.
    pub const DISTINCT: Spread = Spread::AtMost(NonZeroUsize::MIN);

    /// The loosest limit for which `needed` fragments always lie in at least `groups` groups.
    #[must_use]
    pub fn over(groups: usize, needed: usize) -> Spread {
        let others = match groups {
            0 | 1 => return Spread::Any,
            groups => groups - 1,
        };
        // With m in each, more than m * (groups - 1) fragments need one more group.
        let limit = needed.saturating_sub(1) / others;
        Spread::AtMost(NonZeroUsize::new(limit).unwrap_or(NonZeroUsize::MIN))
    }

    fn limit(self) -> usize {
        match self {
            Spread::Any => usize::MAX,
            Spread::AtMost(limit) => limit.get(),
        }
    }
}

/// What a placement must obey. They hold for the first choice and the spares together, so any spare may stand in for
/// any first choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Providers that must be found: one per fragment.
    pub needed: usize,
    /// Providers to have in reserve, as far as there are any.
    pub spares: usize,
    /// Bytes of one fragment: what a provider must have free.
    pub fragment_bytes: u64,
    /// How many fragments one operator may hold.
    pub operators: Spread,
    /// How many fragments one network may hold.
    pub networks: Spread,
    /// How many fragments may lie in one region.
    pub regions: Spread,
    /// The only regions to use; `None` for all.
    pub regions_allowed: Option<BTreeSet<String>>,
    /// Regions not to use.
    pub regions_denied: BTreeSet<String>,
    /// The only providers to use; `None` for all.
    pub providers_allowed: Option<BTreeSet<PublicKey>>,
    /// Providers not to use: distrusted, or holding a fragment of this segment already.
    pub providers_excluded: BTreeSet<PublicKey>,
}

impl Rules {
    /// `needed` fragments on distinct operators and networks, in any regions, with a quarter as many spares and at least
    /// two.
    #[must_use]
    pub fn new(needed: usize, fragment_bytes: u64) -> Rules {
        Rules {
            needed,
            spares: (needed / 4).max(2),
            fragment_bytes,
            operators: Spread::DISTINCT,
            networks: Spread::DISTINCT,
            regions: Spread::Any,
            regions_allowed: None,
            regions_denied: BTreeSet::new(),
            providers_allowed: None,
            providers_excluded: BTreeSet::new(),
        }
    }
}

/// One rule, for saying which could not be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// There must be providers at all.
    Known,
    /// They must be on the list, if there is one, and not excluded.
    Permitted,
    /// Their region must be allowed and not denied.
    Region,
    /// They must take new fragments.
    Accepting,
    /// They must have room for a fragment.
    Space,
    /// They must be of different operators.
    Operators,
    /// They must be in different networks.
    Networks,
    /// They must be spread over regions.
    Regions,
    /// Each rule could be met alone, but not all at once.
    Together,
}

impl fmt::Display for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Rule::Known => "known",
            Rule::Permitted => "on the allow-list and not excluded",
            Rule::Region => "in an allowed region",
            Rule::Accepting => "accepting new data",
            Rule::Space => "with enough free space",
            Rule::Operators => "of distinct operators",
            Rule::Networks => "in distinct networks",
            Rule::Regions => "spread over regions as asked",
            Rule::Together => "satisfying all spread rules together",
        })
    }
}

/// Too few providers satisfy the rules. Find more, or change the rule that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("need {needed} providers {rule}: only {satisfied} of {known} known ones are")]
pub struct Unmet {
    /// The first rule that leaves too few.
    pub rule: Rule,
    /// Providers that could be used at once under this rule, among those that the rules about single providers leave.
    pub satisfied: usize,
    /// Providers that are needed.
    pub needed: usize,
    /// Providers that were given.
    pub known: usize,
}

/// The choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// One provider per fragment, by index.
    pub first: Vec<PublicKey>,
    /// Stand-ins, the preferred first; as many as were asked for or could be found.
    pub spares: Vec<PublicKey>,
}

impl Placement {
    /// First choice and spares in one list, as a store exchange takes them.
    #[must_use]
    pub fn candidates(&self) -> Vec<PublicKey> {
        self.first.iter().chain(&self.spares).copied().collect()
    }
}

/// Chooses providers for the fragments of `segment`. The order of `candidates` does not matter, except that of two
/// with the same key the later counts. The seed should be secret, or providers could grind keys that win for given segments.
///
/// # Errors
/// [`Unmet`] exactly when no choice of providers satisfies the rules — except where providers of one network declare
/// several regions while both are limited: then a choice may be missed, and never a wrong one made.
pub fn place(
    candidates: &[Candidate],
    rules: &Rules,
    segment: SegmentNumber,
    seed: u64,
) -> Result<Placement, Unmet> {
    let distinct: BTreeMap<PublicKey, &Candidate> =
        candidates.iter().map(|candidate| (candidate.provider, candidate)).collect();
    let known = distinct.len();
    let mut usable = eligible(distinct.into_values().collect(), rules)?;
    usable.sort_by_cached_key(|candidate| (rendezvous::score(candidate, segment, seed), candidate.provider));

    let groups = Groups::new(&usable, rules);
    let mut chosen = groups.greedy(rules.needed);
    if chosen.len() < rules.needed {
        for (rule, satisfied) in groups.satisfied_alone() {
            demand(rule, satisfied, rules.needed, known)?;
        }
        chosen = groups.rearranged(chosen, rules.needed);
        demand(Rule::Together, chosen.len(), rules.needed, known)?;
    }
    let spares = groups.more(&chosen, rules.spares);
    let keys =
        |positions: Vec<usize>| positions.into_iter().map(|position| usable[position].provider).collect();
    Ok(Placement { first: keys(chosen), spares: keys(spares) })
}

/// Providers that can be used at once under the spread rules, up to `rules.needed`: what a default scheme may count on.
///
/// # Errors
/// [`Unmet`] when not even one provider passes the other rules.
pub fn count_distinct(candidates: &[Candidate], rules: &Rules) -> Result<usize, Unmet> {
    let single = Rules { needed: 1, ..rules.clone() };
    let distinct: BTreeMap<PublicKey, &Candidate> =
        candidates.iter().map(|candidate| (candidate.provider, candidate)).collect();
    let usable = eligible(distinct.into_values().collect(), &single)?;
    let groups = Groups::new(&usable, rules);
    Ok(groups.rearranged(groups.greedy(rules.needed), rules.needed).len())
}

fn demand(rule: Rule, satisfied: usize, needed: usize, known: usize) -> Result<(), Unmet> {
    if satisfied < needed { Err(Unmet { rule, satisfied, needed, known }) } else { Ok(()) }
}

/// Those that satisfy the rules about single providers.
fn eligible<'a>(mut candidates: Vec<&'a Candidate>, rules: &Rules) -> Result<Vec<&'a Candidate>, Unmet> {
    let known = candidates.len();
    for rule in [Rule::Known, Rule::Permitted, Rule::Region, Rule::Accepting, Rule::Space] {
        candidates.retain(|candidate| obeys(candidate, rule, rules));
        demand(rule, candidates.len(), rules.needed, known)?;
    }
    Ok(candidates)
}

fn obeys(candidate: &Candidate, rule: Rule, rules: &Rules) -> bool {
    let Candidate { provider, region, .. } = candidate;
    match rule {
        Rule::Permitted => {
            let listed = rules.providers_allowed.as_ref().is_none_or(|allowed| allowed.contains(provider));
            listed && !rules.providers_excluded.contains(provider)
        }
        Rule::Region => {
            let listed = rules.regions_allowed.as_ref().is_none_or(|allowed| allowed.contains(region));
            listed && !rules.regions_denied.contains(region)
        }
        Rule::Accepting => candidate.intake == Intake::Open,
        Rule::Space => candidate.free >= rules.fragment_bytes,
        // These are about providers together.
        Rule::Known | Rule::Operators | Rule::Networks | Rule::Regions | Rule::Together => true,
    }
}

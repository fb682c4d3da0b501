//! Picks as many providers as the spread rules allow, the best first.
//!
//! Taking the best that still fits is right almost always. It can get stuck: operator A in networks 1 and 2 and operator
//! B in network 1 only, and A was taken in 1. Then a maximum flow helps: operators -> providers -> networks -> regions, with
//! the limits as capacities and the greedy choice as the flow to begin with; each augmenting path (Ford and Fulkerson,
//! 1956) exchanges providers and gains one. That is exact while every network lies in one region.

use super::{Candidate, Rule, Rules};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

/// Whose addresses are one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Network<'a> {
    V4([u8; 3]),
    V6([u8; 6]),
    Loopback { operator: &'a str },
}

impl<'a> Network<'a> {
    fn of(candidate: &'a Candidate) -> Network<'a> {
        match candidate.address.to_canonical() {
            address if address.is_loopback() => Network::Loopback { operator: &candidate.operator },
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Network::V4([a, b, c])
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, ..] = address.octets();
                Network::V6([a, b, c, d, e, f])
            }
        }
    }
}

/// The groups of one candidate, by number.
#[derive(Debug, Clone, Copy)]
struct Membership {
    operator: usize,
    network: usize,
    region: usize,
}

/// Candidates, the best first, with the groups that limit them. Candidates are named by their position.
pub(super) struct Groups {
    members: Vec<Membership>,
    /// The region of each network, which is that of its best candidate.
    network_region: Vec<usize>,
    operators: Limit,
    networks: Limit,
    regions: Limit,
}

struct Limit {
    count: usize,
    each: usize,
}

/// How many of each group are taken.
struct Taken {
    operators: Vec<usize>,
    networks: Vec<usize>,
    regions: Vec<usize>,
}

/// Gives each distinct key a number, in the order in which they come.
fn numbered<K: Ord>(keys: impl Iterator<Item = K>) -> Vec<usize> {
    let mut numbers = BTreeMap::new();
    keys.map(|key| {
        let next = numbers.len();
        *numbers.entry(key).or_insert(next)
    })
    .collect()
}

fn count(numbers: &[usize]) -> usize {
    numbers.iter().max().map_or(0, |last| last + 1)
}

impl Groups {
    pub(super) fn new(candidates: &[&Candidate], rules: &Rules) -> Groups {
        let operators = numbered(candidates.iter().map(|candidate| &candidate.operator));
        let networks = numbered(candidates.iter().map(|candidate| Network::of(candidate)));
        let regions = numbered(candidates.iter().map(|candidate| &candidate.region));
        let mut network_region = Vec::new();
        for (network, region) in networks.iter().zip(&regions) {
            if *network == network_region.len() {
                network_region.push(*region);
            }
        }
        let limit = |numbers: &[usize], each| Limit { count: count(numbers), each };
        Groups {
            operators: limit(&operators, rules.operators.limit()),
            networks: limit(&networks, rules.networks.limit()),
            regions: limit(&regions, rules.regions.limit()),
            members: (operators.into_iter().zip(networks).zip(regions))
                .map(|((operator, network), region)| Membership { operator, network, region })
                .collect(),
            network_region,
        }
    }

    fn taken(&self, chosen: &[usize]) -> Taken {
        let mut taken = Taken {
            operators: vec![0; self.operators.count],
            networks: vec![0; self.networks.count],
            regions: vec![0; self.regions.count],
        };
        for position in chosen {
            taken.add(self.members[*position]);
        }
        taken
    }

    fn fits(&self, member: Membership, taken: &Taken) -> bool {
        taken.operators[member.operator] < self.operators.each
            && taken.networks[member.network] < self.networks.each
            && taken.regions[member.region] < self.regions.each
    }

    /// Up to `wanted` candidates, each the best that fits beside those before it.
    pub(super) fn greedy(&self, wanted: usize) -> Vec<usize> {
        self.more(&[], wanted)
    }

    /// Up to `wanted` further candidates that fit beside those `chosen`.
    pub(super) fn more(&self, chosen: &[usize], wanted: usize) -> Vec<usize> {
        let mut taken = self.taken(chosen);
        let chosen: BTreeSet<usize> = chosen.iter().copied().collect();
        let mut more = Vec::new();
        for (position, member) in self.members.iter().enumerate() {
            if more.len() == wanted {
                break;
            }
            if !chosen.contains(&position) && self.fits(*member, &taken) {
                taken.add(*member);
                more.push(position);
            }
        }
        more
    }

    /// How many candidates each spread rule would allow if it were the only one.
    pub(super) fn satisfied_alone(&self) -> [(Rule, usize); 3] {
        let all: Vec<usize> = (0..self.members.len()).collect();
        let sizes = self.taken(&all);
        let allowed = |sizes: &[usize], limit: &Limit| sizes.iter().map(|size| (*size).min(limit.each)).sum();
        [
            (Rule::Operators, allowed(&sizes.operators, &self.operators)),
            (Rule::Networks, allowed(&sizes.networks, &self.networks)),
            (Rule::Regions, allowed(&sizes.regions, &self.regions)),
        ]
    }

    /// Exchanges candidates until there are `wanted` or no exchange gains one. In order, the best first.
    pub(super) fn rearranged(&self, chosen: Vec<usize>, wanted: usize) -> Vec<usize> {
        let consistent = |position: &usize| {
            let member = self.members[*position];
            self.regions.each == usize::MAX || self.network_region[member.network] == member.region
        };
        let usable: Vec<usize> = (0..self.members.len()).filter(consistent).collect();
        let kept = chosen.iter().copied().filter(consistent).collect();
        let mut flow = Flow::new(self, &usable, kept);
        while flow.chosen.len() < wanted && flow.augment() {}
        if flow.chosen.len() < chosen.len() { chosen } else { flow.chosen.into_iter().collect() }
    }
}

impl Taken {
    fn add(&mut self, member: Membership) {
        self.operators[member.operator] += 1;
        self.networks[member.network] += 1;
        self.regions[member.region] += 1;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Operator(usize),
    Network(usize),
    Region(usize),
}

/// A flow of one unit per chosen candidate.
struct Flow<'a> {
    groups: &'a Groups,
    by_operator: BTreeMap<usize, Vec<usize>>,
    by_network: BTreeMap<usize, Vec<usize>>,
    networks_by_region: BTreeMap<usize, BTreeSet<usize>>,
    chosen: BTreeSet<usize>,
    taken: Taken,
}

/// How the search came to a node: from where, and over which candidate, if over one.
type Step = (Option<Node>, Option<usize>);

impl<'a> Flow<'a> {
    fn new(groups: &'a Groups, usable: &[usize], chosen: BTreeSet<usize>) -> Flow<'a> {
        let mut by_operator: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut by_network: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut networks_by_region: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for position in usable {
            let Membership { operator, network, region } = groups.members[*position];
            by_operator.entry(operator).or_default().push(*position);
            by_network.entry(network).or_default().push(*position);
            networks_by_region.entry(region).or_default().insert(network);
        }
        let taken = groups.taken(&chosen.iter().copied().collect::<Vec<_>>());
        Flow { groups, by_operator, by_network, networks_by_region, chosen, taken }
    }

    /// Finds a path from an operator with room to a region with room, breadth first, and takes it.
    fn augment(&mut self) -> bool {
        let room = |operator: &usize| self.taken.operators[*operator] < self.groups.operators.each;
        let mut queue: VecDeque<Node> =
            self.by_operator.keys().copied().filter(room).map(Node::Operator).collect();
        let mut steps: BTreeMap<Node, Step> = queue.iter().map(|node| (*node, (None, None))).collect();
        while let Some(node) = queue.pop_front() {
            if let Node::Region(region) = node
                && self.taken.regions[region] < self.groups.regions.each
            {
                self.take(node, &steps);
                return true;
            }
            for (next, over) in self.neighbours(node) {
                steps.entry(next).or_insert_with(|| {
                    queue.push_back(next);
                    (Some(node), over)
                });
            }
        }
        false
    }

    /// Where one more unit at `node` could go: forwards over what is free, backwards over what is taken.
    fn neighbours(&self, node: Node) -> Vec<(Node, Option<usize>)> {
        let members = &self.groups.members;
        match node {
            Node::Operator(operator) => {
                let free =
                    self.by_operator[&operator].iter().filter(|position| !self.chosen.contains(position));
                free.map(|position| (Node::Network(members[*position].network), Some(*position))).collect()
            }
            Node::Network(network) => {
                let back = self.by_network[&network].iter().filter(|position| self.chosen.contains(position));
                let back =
                    back.map(|position| (Node::Operator(members[*position].operator), Some(*position)));
                let room = self.taken.networks[network] < self.groups.networks.each;
                let region = Node::Region(self.groups.network_region[network]);
                back.chain(room.then_some((region, None))).collect()
            }
            Node::Region(region) => {
                let used = self.networks_by_region[&region].iter();
                let used = used.filter(|network| self.taken.networks[**network] > 0);
                used.map(|network| (Node::Network(*network), None)).collect()
            }
        }
    }

    fn take(&mut self, end: Node, steps: &BTreeMap<Node, Step>) {
        let mut node = Some(end);
        while let Some((from, over)) = node.map(|node| steps[&node]) {
            if let Some(position) = over
                && !self.chosen.remove(&position)
            {
                self.chosen.insert(position);
            }
            node = from;
        }
        let chosen: Vec<usize> = self.chosen.iter().copied().collect();
        self.taken = self.groups.taken(&chosen);
    }
}

//! Placements against a naive checker and, for few candidates, against every possible choice.

use super::{Candidate, Intake, Placement, Rule, Rules, Spread, Unmet, count_distinct, place, rendezvous};
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use seedbank_formats::{PublicKey, SegmentNumber};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::time::Duration;

const FRAGMENT: u64 = 16 << 20;
const SEGMENT: SegmentNumber = SegmentNumber(7);
const SEED: u64 = 42;

fn key(number: u32) -> PublicKey {
    let mut bytes = [0; 32];
    bytes[28..].copy_from_slice(&number.to_be_bytes());
    PublicKey(bytes)
}

/// A provider that differs from all others in everything.
fn candidate(number: u32) -> Candidate {
    Candidate {
        provider: key(number),
        operator: format!("operator {number}"),
        address: IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0001 + (number << 8))),
        region: format!("region {}", number % 4),
        free: 100 << 30,
        latency: Some(Duration::from_millis(20)),
        intake: Intake::Open,
    }
}

fn candidates(count: u32) -> Vec<Candidate> {
    (0..count).map(candidate).collect()
}

fn at_most(limit: usize) -> Spread {
    Spread::AtMost(NonZeroUsize::new(limit).unwrap())
}

fn chosen(candidates: &[Candidate], rules: &Rules) -> Result<Placement, Unmet> {
    place(candidates, rules, SEGMENT, SEED)
}

/// What distinguishes networks, written another way than the code under test does.
fn network(candidate: &Candidate) -> String {
    match candidate.address {
        IpAddr::V4(address) if address.octets()[0] == 127 => candidate.operator.clone(),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => candidate.operator.clone(),
        IpAddr::V4(address) => address.to_string().rsplit_once('.').unwrap().0.to_owned(),
        IpAddr::V6(address) => format!("{:x}", address.to_bits() >> 80),
    }
}

fn within(spread: Spread, names: impl Iterator<Item = String>) -> bool {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    match spread {
        Spread::Any => true,
        Spread::AtMost(limit) => counts.values().all(|count| *count <= limit.get()),
    }
}

/// Whether these providers may hold a segment together.
fn allowed_together(chosen: &[&Candidate], rules: &Rules) -> bool {
    chosen.iter().all(|candidate| {
        rules.providers_allowed.as_ref().is_none_or(|allowed| allowed.contains(&candidate.provider))
            && !rules.providers_excluded.contains(&candidate.provider)
            && rules.regions_allowed.as_ref().is_none_or(|allowed| allowed.contains(&candidate.region))
            && !rules.regions_denied.contains(&candidate.region)
            && candidate.intake == Intake::Open
            && candidate.free >= rules.fragment_bytes
    }) && within(rules.operators, chosen.iter().map(|candidate| candidate.operator.clone()))
        && within(rules.networks, chosen.iter().map(|candidate| network(candidate)))
        && within(rules.regions, chosen.iter().map(|candidate| candidate.region.clone()))
}

fn check(placement: &Placement, candidates: &[Candidate], rules: &Rules) {
    let find = |provider| candidates.iter().find(|candidate| candidate.provider == provider).unwrap();
    let all: Vec<&Candidate> = placement.candidates().into_iter().map(find).collect();
    let distinct: BTreeSet<PublicKey> = all.iter().map(|candidate| candidate.provider).collect();
    assert_eq!(distinct.len(), all.len(), "a provider is chosen twice");
    assert_eq!(placement.first.len(), rules.needed);
    assert!(placement.spares.len() <= rules.spares);
    assert!(allowed_together(&all, rules));
}

#[test]
fn thousand_identities_in_one_network_get_at_most_one_fragment() {
    let mut all = candidates(8);
    for number in 0..1_000 {
        let address = IpAddr::V4(Ipv4Addr::new(203, 0, 113, u8::try_from(number % 256).unwrap()));
        all.push(Candidate { address, free: 1 << 50, latency: None, ..candidate(1_000 + number) });
    }
    for segment in 0..50 {
        let placement = place(&all, &Rules::new(8, FRAGMENT), SegmentNumber(segment), SEED).unwrap();
        let identities = placement.candidates().into_iter().filter(|provider| *provider >= key(1_000));
        assert!(identities.count() <= 1);
    }
    let unmet = chosen(&all[8..], &Rules::new(2, FRAGMENT)).unwrap_err();
    assert_eq!(unmet, Unmet { rule: Rule::Networks, satisfied: 1, needed: 2, known: 1_000 });
}

#[test]
fn one_ipv6_site_is_one_network_and_a_mapped_address_is_the_one_it_maps() {
    let at = |number, address: &str| Candidate { address: address.parse().unwrap(), ..candidate(number) };
    let rules = Rules::new(2, FRAGMENT);
    for (left, right, distinct) in [
        ("2001:db8:1:1::1", "2001:db8:1:2::1", false),
        ("2001:db8:1::1", "2001:db8:2::1", true),
        ("::ffff:192.0.2.1", "192.0.2.9", false),
        ("192.0.2.1", "192.0.3.1", true),
    ] {
        assert_eq!(chosen(&[at(1, left), at(2, right)], &rules).is_ok(), distinct, "{left} {right}");
    }
}

#[test]
fn loopback_providers_are_distinct_by_operator_only() {
    let mut all = candidates(8);
    for (number, candidate) in all.iter_mut().enumerate() {
        candidate.address =
            if number % 2 == 0 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    }
    let rules = Rules::new(8, FRAGMENT);
    assert!(chosen(&all, &rules).is_ok());
    all[3].operator = "operator 4".to_owned();
    let unmet = chosen(&all, &rules).unwrap_err();
    assert_eq!((unmet.rule, unmet.satisfied), (Rule::Operators, 7));
}

#[test]
fn error_names_the_first_rule_that_leaves_too_few() {
    let all = candidates(10);
    let unmet = |change: &dyn Fn(&mut Vec<Candidate>, &mut Rules)| {
        let (mut all, mut rules) = (all.clone(), Rules::new(8, FRAGMENT));
        change(&mut all, &mut rules);
        let unmet = chosen(&all, &rules).unwrap_err();
        (unmet.rule, unmet.satisfied)
    };
    assert_eq!(unmet(&|all, _| all.truncate(5)), (Rule::Known, 5));
    assert_eq!(unmet(&|_, rules| rules.providers_excluded = (0..3).map(key).collect()), (Rule::Permitted, 7));
    assert_eq!(
        unmet(&|_, rules| rules.providers_allowed = Some((0..4).map(key).collect())),
        (Rule::Permitted, 4)
    );
    let region = || BTreeSet::from(["region 1".to_owned()]);
    assert_eq!(unmet(&|_, rules| rules.regions_allowed = Some(region())), (Rule::Region, 3));
    assert_eq!(unmet(&|_, rules| rules.regions_denied = region()), (Rule::Region, 7));
    assert_eq!(
        unmet(&|all, _| all[..4].iter_mut().for_each(|one| one.intake = Intake::Closed)),
        (Rule::Accepting, 6)
    );
    assert_eq!(
        unmet(&|all, _| all[..4].iter_mut().for_each(|one| one.free = FRAGMENT - 1)),
        (Rule::Space, 6)
    );
    assert_eq!(unmet(&|_, rules| rules.regions = at_most(1)), (Rule::Regions, 4));
    let error = chosen(&all[..5], &Rules::new(8, FRAGMENT)).unwrap_err();
    assert_eq!(error.to_string(), "need 8 providers known: only 5 of 5 known ones are");
}

#[test]
fn greedy_choice_that_gets_stuck_is_rearranged() {
    let one = |number, operator: &str, third| Candidate {
        operator: operator.to_owned(),
        address: Ipv4Addr::new(192, 0, third, 1).into(),
        ..candidate(number)
    };
    // B fits only in network 1 and C only in network 2, so A must take network 3, which it likes least.
    let mut all = vec![one(1, "a", 1), one(2, "a", 2), one(3, "a", 3), one(4, "b", 1), one(5, "c", 2)];
    all[2].free = FRAGMENT;
    for seed in 0..100 {
        let placement = place(&all, &Rules::new(3, FRAGMENT), SEGMENT, seed).unwrap();
        assert_eq!(placement.first.iter().copied().collect::<BTreeSet<_>>(), (3..6).map(key).collect());
    }
    assert_eq!(count_distinct(&all, &Rules::new(200, FRAGMENT)), Ok(3));
    // Both could be spread over operators and over networks, but not at once.
    let all = [one(1, "a", 1), one(2, "a", 2), one(3, "b", 3), one(4, "c", 3)];
    let unmet = chosen(&all, &Rules::new(3, FRAGMENT)).unwrap_err();
    assert_eq!((unmet.rule, unmet.satisfied), (Rule::Together, 2));
}

#[test]
fn fragments_follow_free_space_and_nearness() {
    let mut all = candidates(12);
    all[0].free = 400 << 30;
    all[1].latency = Some(Duration::from_millis(500));
    let rules = Rules { spares: 0, ..Rules::new(1, FRAGMENT) };
    let mut counts = [0_u32; 12];
    for segment in 0..6_000 {
        let placement = place(&all, &rules, SegmentNumber(segment), SEED).unwrap();
        let number = all.iter().position(|candidate| candidate.provider == placement.first[0]).unwrap();
        counts[number] += 1;
    }
    // Weights: 4 : 0.2 : ten times 1, of 6,000 draws.
    assert!((1_580..1_800).contains(&counts[0]), "{counts:?}");
    assert!((50..130).contains(&counts[1]), "{counts:?}");
    assert!(counts[2..].iter().all(|count| (350..500).contains(count)), "{counts:?}");
}

#[test]
fn weights_are_positive_whatever_is_claimed() {
    for free in [0, FRAGMENT, u64::MAX] {
        for latency in [None, Some(Duration::ZERO), Some(Duration::MAX)] {
            assert!(rendezvous::weight(&Candidate { free, latency, ..candidate(1) }) >= 1);
        }
    }
}

#[test]
fn spread_over_groups_is_as_loose_as_it_may_be() {
    for needed in 1..40 {
        for groups in 2..=needed {
            let Spread::AtMost(limit) = Spread::over(groups, needed) else { panic!("no limit") };
            assert!(needed.div_ceil(limit.get()) >= groups);
            assert!(needed.div_ceil(limit.get() + 1) < groups);
        }
        assert_eq!(Spread::over(1, needed), Spread::Any);
    }
}

/// Few operators, networks and regions, so that rules bite.
fn any_candidates(count: usize) -> impl Strategy<Value = Vec<Candidate>> {
    let address = prop_oneof![
        4 => (0_u8..5, 1_u8..9).prop_map(|(third, last)| IpAddr::V4(Ipv4Addr::new(192, 0, third, last))),
        1 => Just(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        1 => (0_u16..2, 0_u16..3).prop_map(|(site, subnet)| Ipv6Addr::new(0x2001, 0xdb8, site, subnet, 0, 0, 0, 1).into()),
    ];
    let latency = prop::option::of((0_u64..1_000).prop_map(Duration::from_millis));
    let intake = prop_oneof![9 => Just(Intake::Open), 1 => Just(Intake::Closed)];
    let one = (0_u8..6, address, 0_u8..3, FRAGMENT - 1..1 << 40, latency, intake);
    prop::collection::vec(one, 0..count).prop_map(|all| {
        let numbered = (0_u32..).zip(all);
        numbered
            .map(|(number, (operator, address, region, free, latency, intake))| Candidate {
                provider: key(number),
                operator: format!("operator {operator}"),
                address,
                region: format!("region {region}"),
                free,
                latency,
                intake,
            })
            .collect()
    })
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let spread = || prop_oneof![Just(Spread::Any), (1_usize..4).prop_map(at_most)];
    let regions =
        || prop::collection::btree_set((0_u8..3).prop_map(|region| format!("region {region}")), 0..2);
    let excluded = prop::collection::btree_set((0_u32..9).prop_map(key), 0..3);
    let allowed = prop::option::weighted(0.2, prop::collection::btree_set((0_u32..9).prop_map(key), 5..9));
    (1_usize..6, 0_usize..3, spread(), spread(), spread(), regions(), allowed, excluded).prop_map(
        |(needed, spares, operators, networks, regions, denied, allowed, excluded)| Rules {
            spares,
            operators,
            networks,
            regions,
            regions_denied: denied,
            providers_allowed: allowed,
            providers_excluded: excluded,
            ..Rules::new(needed, FRAGMENT)
        },
    )
}

/// The most providers that satisfy the rules together, by trying every choice.
fn most_possible(candidates: &[Candidate], rules: &Rules) -> usize {
    let choices = (0_u32..1 << candidates.len()).map(|subset| {
        let within = candidates.iter().enumerate().filter(|(number, _)| (subset >> number) & 1 == 1);
        within.map(|(_, candidate)| candidate).collect::<Vec<_>>()
    });
    let allowed = choices.filter(|within| allowed_together(within, rules));
    allowed.map(|within| within.len()).max().unwrap_or(0)
}

proptest! {
    #[test]
    fn every_placement_obeys_every_rule(all in any_candidates(40), rules in any_rules(), segment in any::<u64>()) {
        if let Ok(placement) = place(&all, &rules, SegmentNumber(segment), SEED) {
            check(&placement, &all, &rules);
        }
    }

    #[test]
    fn placement_fails_exactly_when_no_choice_exists(mut all in any_candidates(10), rules in any_rules()) {
        // Each network in one region, as networks are.
        let mut regions: BTreeMap<String, String> = BTreeMap::new();
        for candidate in &mut all {
            candidate.region = regions.entry(network(candidate)).or_insert(candidate.region.clone()).clone();
        }
        let most = most_possible(&all, &rules);
        let everything = Rules { needed: 10, ..rules.clone() };
        assert_eq!(count_distinct(&all, &everything).unwrap_or(0), most);
        let placement = chosen(&all, &rules);
        assert_eq!(placement.is_ok(), most >= rules.needed, "{placement:?}");
        if let Err(unmet) = placement {
            assert!(unmet.satisfied < unmet.needed);
        }
    }

    #[test]
    fn order_of_candidates_and_losers_do_not_matter(mut all in any_candidates(30), rotation in any::<prop::sample::Index>()) {
        let rules = Rules { operators: at_most(2), networks: at_most(2), ..Rules::new(4, FRAGMENT) };
        let Ok(placement) = chosen(&all, &rules) else { return Ok(()) };
        let by = rotation.index(all.len());
        all.rotate_left(by);
        all.push(all[0].clone());
        assert_eq!(chosen(&all, &rules), Ok(placement.clone()));
        let winners = placement.candidates();
        all.retain(|candidate| winners.contains(&candidate.provider));
        assert_eq!(chosen(&all, &rules), Ok(placement));
    }
}

//! Seeds that must break no rule, and planted bugs that must.

use simulator::{BUGS, Keep, Options, Outcome, run};

fn failure(outcome: &Outcome) -> Option<String> {
    let (violation, seed) = (outcome.violation.as_ref()?, outcome.options.seed);
    let again = format!("cargo run --release -p simulator -- exchanges --seed {seed} --trace");
    Some(format!("seed {seed}: {}\n{:?}\n{again}", violation.0, outcome.options))
}

fn all_hold(seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        let outcome = run(Options::from_seed(seed), Keep::Hash);
        assert!(outcome.violation.is_none(), "{}", failure(&outcome).unwrap_or_default());
    }
}

// Two halves, because there are two cores.
#[test]
fn no_rule_is_broken_under_a_thousand_even_seeds() {
    all_hold((0..2000).step_by(2));
}

#[test]
fn no_rule_is_broken_under_a_thousand_odd_seeds() {
    all_hold((1..2000).step_by(2));
}

#[test]
fn what_rotted_in_trash_is_right_again_when_it_is_signed_for() {
    all_hold([2408].into_iter());
}

#[test]
fn late_repeats_of_old_requests_do_no_lasting_harm() {
    // A release that waited while a new push had its receipt; a receipt that comes so late that another push counts on
    // the same claim; a late PUT and renewal; a read that began before its fragment was placed again.
    all_hold([52, 378, 2608, 93, 186, 699].into_iter());
}

#[test]
fn liar_that_undoes_the_writers_damage_delivers_what_was_meant() {
    all_hold([101_917].into_iter());
}

#[test]
fn second_run_of_a_seed_has_the_same_trace() {
    for seed in 0..40 {
        let (first, second) =
            (run(Options::from_seed(seed), Keep::Hash), run(Options::from_seed(seed), Keep::Lines));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert_eq!(first.counts, second.counts);
        assert_ne!(first.trace_hash, run(Options::from_seed(seed + 1), Keep::Hash).trace_hash);
    }
}

#[test]
fn every_planted_bug_is_found() {
    for bug in BUGS {
        let found = (0..400).find_map(|seed| {
            let options = Options { bug: Some(bug), ..Options::from_seed(seed) };
            failure(&run(options, Keep::Hash))
        });
        let found = found.unwrap_or_else(|| panic!("{bug:?} breaks no rule under 400 seeds"));
        println!("{bug:?}: {found}");
    }
}

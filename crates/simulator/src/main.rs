//! Runs simulations for many seeds, or one seed again with its trace.
//!
//! Progress and failures go to stderr, the result to stdout. It fails when any seed does.

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use serde_json::json;
use simulator::{Counts, Keep, Options, Outcome, run};
use std::time::{Duration, Instant};

/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(10);

/// Lines of a failure's trace that are shown unasked: what led to it is near its end.
const TAIL_LINES: usize = 40;

/// Simulates the network under seeds.
#[derive(Debug, Parser)]
#[command(name = "simulator")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Clients and providers, their exchanges and stores.
    Exchanges(Exchanges),
}

#[derive(Debug, clap::Args)]
struct Exchanges {
    /// How many seeds to run.
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Run this seed only.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Print everything that happens, line by line: seconds, who, what.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default)]
struct Sums {
    counts: Counts,
    failed: Vec<u64>,
}

impl Sums {
    fn add(&mut self, outcome: &Outcome) {
        self.counts.add(&outcome.counts);
        if outcome.violation.is_some() {
            self.failed.push(outcome.options.seed);
        }
    }
}

fn main() -> Result<()> {
    let What::Exchanges(arguments) = Arguments::parse().what;
    if let Some(seed) = arguments.seed {
        return run_one(seed, &arguments);
    }
    let started = Instant::now();
    let (mut sums, mut told) = (Sums::default(), started);
    for done in 0..arguments.seeds {
        let outcome = run(Options::from_seed(arguments.first + done), Keep::Hash);
        sums.add(&outcome);
        if outcome.violation.is_some() {
            explain(&run(outcome.options, Keep::Lines));
        }
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            let (seconds, failed) = (started.elapsed().as_secs(), sums.failed.len());
            eprintln!("{} of {} seeds in {seconds} s, {failed} failed", done + 1, arguments.seeds);
        }
    }
    report(&arguments, &sums, started.elapsed());
    ensure!(sums.failed.is_empty(), "a rule was broken under {} seeds", sums.failed.len());
    Ok(())
}

fn run_one(seed: u64, arguments: &Exchanges) -> Result<()> {
    let outcome = run(Options::from_seed(seed), Keep::Lines);
    if let Some(violation) = &outcome.violation {
        println!("seed {seed}: {}", violation.0);
    }
    println!("{:#?}", outcome.options);
    if arguments.trace {
        outcome.trace.iter().for_each(|line| print!("{line}"));
    }
    println!("{:#?}", outcome.counts);
    println!("trace {}", outcome.trace_hash);
    ensure!(outcome.violation.is_none(), "a rule was broken");
    Ok(())
}

/// Tells what was broken, under which options, and what happened last.
fn explain(outcome: &Outcome) {
    let seed = outcome.options.seed;
    let what =
        outcome.violation.as_ref().map_or("the second run of this seed went well", |violation| &violation.0);
    eprintln!("seed {seed}: {what}");
    eprintln!("  {:?}", outcome.options);
    let skipped = outcome.trace.len().saturating_sub(TAIL_LINES);
    outcome.trace.iter().skip(skipped).for_each(|line| eprint!("  {line}"));
    eprintln!("  all of it: cargo run --release -p simulator -- exchanges --seed {seed} --trace");
}

fn report(arguments: &Exchanges, sums: &Sums, took: Duration) {
    let (first, seeds, failed) = (arguments.first, arguments.seeds, &sums.failed);
    if arguments.json {
        let counts: serde_json::Map<_, _> = sums
            .counts
            .rows()
            .into_iter()
            .map(|(name, count)| (name.replace(' ', "_"), json!(count)))
            .collect();
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        println!(
            "{}",
            json!({ "first": first, "seeds": seeds, "failed": failed, "millis": millis, "counts": counts })
        );
        return;
    }
    println!("{seeds} seeds from {first} in {:.1} s, {} failed", took.as_secs_f64(), failed.len());
    for (name, count) in sums.counts.rows() {
        println!("{count:>12} {name}");
    }
}

//! Every benchmark runs, with sizes that tell nothing about speed, and prints the shape that scripts read.

use crate::sandbox::Sandbox;
use serde_json::Value;

fn number(value: &Value, pointer: &str) -> f64 {
    let found = value.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is missing in {value}"));
    found.as_f64().unwrap_or_else(|| panic!("{pointer} is no number: {found}"))
}

fn array<'a>(value: &'a Value, pointer: &str) -> &'a Vec<Value> {
    let found = value.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is missing in {value}"));
    found.as_array().unwrap_or_else(|| panic!("{pointer} is no list: {found}"))
}

/// What every measured stretch of work says.
fn is_cost(value: &Value, at: &str) {
    for key in ["seconds", "bytes_per_second", "cpu_seconds/client", "cpu_seconds/providers"] {
        assert!(number(value, &format!("{at}/{key}")) >= 0.0, "{at}/{key}");
    }
    for key in ["resident_peak_bytes/client", "high_water_bytes/client", "written_bytes/providers"] {
        assert!(number(value, &format!("{at}/{key}")) >= 0.0, "{at}/{key}");
    }
}

/// A limit's parts and its whole agree.
fn is_limit(value: &Value, at: &str) {
    let terms = array(value, &format!("{at}/terms"));
    let sum: f64 = terms.iter().map(|term| number(term, "/cpu_seconds_per_gib")).sum();
    let limit = number(value, &format!("{at}/cpu_seconds_per_gib"));
    assert!((sum - limit).abs() < 1e-6, "{sum} {limit}");
    let used = number(value, &format!("{at}/used/total"));
    let overhead = number(value, &format!("{at}/overhead_cpu_seconds_per_gib"));
    assert!((limit + overhead - used).abs() < 1e-6, "{limit} {overhead} {used}");
    for key in ["achieved", "cores", "limit_gigabytes_per_second", "measured_gigabytes_per_second"] {
        assert!(number(value, &format!("{at}/{key}")) > 0.0, "{key}");
    }
    assert!(terms.iter().all(|term| number(term, "/share") > 0.0 && term["reference"].is_string()));
}

#[test]
fn local_tells_costs_limits_reads_and_what_was_written() {
    let sandbox = Sandbox::new();
    let printed = sandbox
        .home("home")
        .seedbank("bench local --size 1MiB --providers 3 --rounds 2 --reads 4 --read-rounds 2")
        .env("TMPDIR", sandbox.root())
        .json();
    let rounds = array(&printed, "/rounds");
    assert_eq!(rounds.len(), 2);
    for round in rounds {
        ["/push", "/pull", "/small_push", "/small_pull"].iter().for_each(|at| is_cost(round, at));
        assert!(number(round, "/push/stored_bytes") > 0.0);
        assert!(number(round, "/push/written_per_stored") >= 0.0);
    }
    is_limit(&printed, "/limits/push");
    is_limit(&printed, "/limits/pull");
    let beside = array(&printed, "/reads")[0].pointer("/runs/0/beside_raw").unwrap();
    assert_eq!(beside["rounds"], 2);
    assert!(number(beside, "/ratio_p99/min") <= number(beside, "/ratio_p99/median"));
    assert!(number(&printed, "/references/sha256") > 0.0);
    assert!(number(&printed, "/disk/ratio") > 0.0);
    assert!(
        std::fs::read_dir(sandbox.root())
            .unwrap()
            .all(|entry| { !entry.unwrap().file_name().to_string_lossy().starts_with("seedbank-bench") })
    );
}

#[test]
fn stages_stand_beside_what_they_are_made_of() {
    let sandbox = Sandbox::new();
    let printed =
        sandbox.home("home").seedbank("bench stages --scheme 2/4").env("TMPDIR", sandbox.root()).json();
    let stages = array(&printed, "/stages");
    assert!(stages.len() >= 16, "{stages:?}");
    for stage in stages {
        assert!(number(stage, "/gigabytes_per_second") > 0.0, "{stage}");
        assert!(number(stage, "/ratio") > 0.0, "{stage}");
    }
}

#[test]
fn transport_goes_both_ways_on_one_connection_and_on_eight() {
    let sandbox = Sandbox::new();
    let printed = sandbox.home("home").seedbank("bench transport --size 1MiB").json();
    let rows = array(&printed, "/transports");
    assert_eq!(rows.iter().map(|row| &row["transport"]).collect::<Vec<_>>(), ["tcp", "tls", "http"]);
    for row in rows {
        for way in ["download", "upload", "download_8", "upload_8"] {
            assert!(number(row, &format!("/{way}/gigabytes_per_second")) > 0.0);
        }
        assert!(number(row, "/latency_256_kib/p99_us") > 0.0);
    }
}

#[test]
fn memory_compares_streams_of_two_lengths() {
    let sandbox = Sandbox::new();
    let printed = sandbox
        .home("home")
        .seedbank("bench memory --sizes 1MiB,2MiB --providers 2")
        .env("TMPDIR", sandbox.root())
        .json();
    let runs = array(&printed, "/runs");
    assert_eq!(runs.len(), 2);
    for run in runs {
        is_cost(run, "/push");
        is_cost(run, "/cat");
    }
    assert!(number(&printed, "/growth/push_provider") > 0.0);
}

#[test]
fn metadata_tells_each_command_of_each_tree() {
    let sandbox = Sandbox::new();
    let printed = sandbox
        .home("home")
        .seedbank("bench metadata --small-files 30 --tiny-files 40 --names 50 --providers 2")
        .env("TMPDIR", sandbox.root())
        .json();
    let trees = array(&printed, "/trees");
    assert_eq!(trees.iter().map(|tree| &tree["files"]).collect::<Vec<_>>(), [30, 40, 50]);
    for tree in trees {
        for step in ["/push", "/push_unchanged", "/push_of_one_change", "/ls", "/log"] {
            is_cost(tree, step);
        }
        assert!(number(tree, "/push/metadata_bytes") > 0.0);
        assert_eq!(tree["push_unchanged"]["new_bytes"], 0);
    }
    is_cost(&trees[0], "/pull");
}

#[test]
fn network_is_measured_by_provider_and_left_as_it_was() {
    let sandbox = Sandbox::new();
    let home = sandbox.home("home");
    home.seedbank("up --no-chain --detach --providers 4").succeeds();
    let data = sandbox.path("data");
    std::fs::write(&data, vec![7; 100_000]).unwrap();
    home.seedbank("dataset push mine").arg(&data).succeeds();
    let before = home.seedbank("dataset log mine").json();
    let printed = home.seedbank("bench network --size 1MiB --reads 3").env("TMPDIR", sandbox.root()).json();
    is_cost(&printed, "/push");
    is_cost(&printed, "/pull");
    let providers = array(&printed, "/providers");
    assert_eq!(providers.len(), 4);
    for provider in providers {
        assert_eq!(provider["succeeded"], 1.0, "{provider}");
        assert!(number(provider, "/p99_ms") >= number(provider, "/p50_ms"));
        assert!(provider["region"].is_string() && provider["prices"].is_object());
    }
    assert_eq!(array(&printed, "/regions").len(), 4);
    assert_eq!(printed["fragments"], printed["fragments_placed"]);
    assert_eq!(printed["storage_per_gib_month"], 0.0);
    let names: Vec<String> = array(&home.seedbank("dataset ls").json(), "")
        .iter()
        .map(|dataset| dataset["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["mine"]);
    assert_eq!(home.seedbank("dataset log mine").json(), before);
    home.seedbank("down").succeeds();
}

#[test]
fn stream_comes_back_as_the_file_that_it_was_named() {
    let sandbox = Sandbox::new();
    let home = sandbox.home("home");
    home.seedbank("up --no-chain --detach --providers 4").succeeds();
    let data: Vec<u8> = (0..3_000_000u64).map(|index| u8::try_from(index * index % 251).unwrap()).collect();
    let file = sandbox.path("data");
    std::fs::write(&file, &data).unwrap();
    let pushed = home.seedbank("dataset push piped - --name logs/today.txt").input(&file).json();
    assert_eq!(pushed["bytes"], data.len());
    let read = home.seedbank("dataset cat piped:logs/today.txt").succeeds();
    assert!(read.stdout == data);
    let again = home.seedbank("dataset push piped - --name logs/today.txt").input(&file).json();
    assert_eq!(again["changed"], false);
    home.seedbank("dataset push piped . --name x").fails(1, "goes with -");
    home.seedbank("down").succeeds();
}

#[test]
fn payments_stand_beside_the_same_reads_for_nothing() {
    let sandbox = Sandbox::new();
    let printed = sandbox
        .home("home")
        .seedbank("bench payments --size 1MiB --reads 2 --pairs 2 --providers 3 --credit 64KiB")
        .env("TMPDIR", sandbox.root())
        .json();
    let pairs = array(&printed, "/pairs");
    assert_eq!(pairs.len(), 2);
    for pair in pairs {
        for side in ["/with", "/without"] {
            is_cost(pair, side);
            assert!(
                number(pair, &format!("{side}/fetched_bytes")) >= 2.0 * 1_048_576.0,
                "all of it is fetched"
            );
        }
        assert!(number(pair, "/with/vouchers") >= 2.0, "{pair}");
        assert_eq!(pair["without"]["vouchers"], 0);
    }
    assert!(number(&printed, "/ratio/min") <= number(&printed, "/ratio/median"));
    assert!(number(&printed, "/vouchers_per_gib") > 1000.0);
    assert!(printed["cpu_ms_per_voucher"].is_object());
}

#[test]
fn chain_tells_round_trips_and_rates() {
    let sandbox = Sandbox::new();
    let printed = sandbox
        .home("home")
        .seedbank("bench chain --round-trips 3 --senders 2 --each 3")
        .env("TMPDIR", sandbox.root())
        .json();
    let nodes = array(&printed, "/nodes");
    assert_eq!(nodes[0]["node"], "seedbank");
    for node in nodes {
        for key in
            ["round_trip_ms/median", "send_ms/min", "transactions_per_second", "cpu_ms_per_transaction"]
        {
            assert!(number(node, &format!("/{key}")) >= 0.0, "{key}");
        }
    }
}

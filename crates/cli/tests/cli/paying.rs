//! A home that pays: many of its processes at once, and pushes that are killed between signatures and commit.

use crate::network::Network;
use crate::program::{list_of, number_of, text_of};
use crate::sandbox::{Home, Sandbox, wait_until};
use rustix::process::Signal;
use seedbank_testkit::ByteStream;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(100);

fn units(value: &Value) -> u128 {
    text_of(value).parse().expect("an amount")
}

/// What each lane of this home has promised each provider.
fn promises(home: &Home) -> BTreeMap<(u64, String), u128> {
    let wallet = home.seedbank("wallet show").json();
    let mut promises = BTreeMap::new();
    for deposit in list_of(&wallet["deposits"]) {
        for lane in list_of(&deposit["lanes"]) {
            let provider = text_of(&deposit["provider"]).to_owned();
            promises.insert((number_of(&lane["lane"]), provider), units(&lane["promised"]));
        }
    }
    promises
}

/// Vouchers that a provider holds: what each signer promised.
fn vouchers(provider: &Path) -> Vec<(String, u128)> {
    let books = rusqlite::Connection::open(provider.join("money.db")).expect("opened");
    let mut rows = books.prepare("SELECT lane FROM lanes").expect("the table is there");
    let lanes = rows.query_map([], |row| row.get::<_, String>(0)).expect("asked");
    lanes
        .map(|lane| serde_json::from_str::<Value>(&lane.expect("a text")).expect("JSON"))
        .filter(|lane| !lane["newest"].is_null())
        .map(|lane| {
            let message = &lane["newest"]["message"];
            (text_of(&message["signer"]).to_owned(), units(&message["cumulative"]))
        })
        .collect()
}

#[test]
fn sixteen_processes_of_one_home_read_at_once_each_in_a_lane_of_its_own() {
    const READERS: usize = 16;
    let sandbox = Sandbox::new();
    let home = sandbox.home("home");
    home.seedbank("up --providers 4 --credit 128KiB --detach --quiet").succeeds();
    let (tree, back) = (sandbox.path("tree"), sandbox.path("back"));
    let bytes = ByteStream::bytes(16, 3_000_000);
    std::fs::create_dir(&tree).expect("made");
    crate::files::write(&tree, "data", &bytes);
    home.seedbank("dataset push notes").arg(&tree).succeeds();
    // Nobody takes what they print, so each stays, with its lane, when its pipe is full.
    let readers: Vec<_> = (0..READERS).map(|_| home.seedbank("dataset cat notes:data").start()).collect();
    let lanes =
        || promises(&home).into_iter().filter(|(_, promised)| *promised > 0).map(|((lane, _), _)| lane);
    wait_until("each reader to have a lane", SOON, || lanes().collect::<BTreeSet<_>>().len() == READERS);
    let pulling = home.seedbank("dataset pull notes").arg(&back).start();
    for reader in readers {
        let outcome = reader.wait().succeeded();
        assert!(outcome.stdout == bytes, "what it read is exact");
    }
    pulling.wait().succeeded();
    seedbank_testkit::assert_same_folder(&tree, &back);

    let wallet = home.seedbank("wallet show").json();
    let status = home.seedbank("status").json();
    let mut signers = BTreeSet::new();
    let mut read = 0;
    for deposit in list_of(&wallet["deposits"]) {
        let covered: u128 =
            list_of(&deposit["lanes"]).iter().map(|lane| units(&lane["cap"]) - units(&lane["cashed"])).sum();
        assert_eq!(units(&deposit["covered"]), covered, "{deposit}");
        assert!(units(&deposit["promised"]) <= covered && covered <= units(&deposit["deposit"]), "{deposit}");
        for lane in list_of(&deposit["lanes"]) {
            assert!(units(&lane["promised"]) <= units(&lane["cap"]), "{deposit}");
        }
        let process =
            list_of(&status["network"]).iter().find(|process| process["key"] == deposit["provider"]);
        let name = text_of(&process.expect("it is one of these")["name"]).to_owned();
        let held = vouchers(&home.root().join("network").join(name));
        let counted: u128 = list_of(&deposit["lanes"]).iter().map(|lane| units(&lane["promised"])).sum();
        let promised: u128 = held.iter().map(|(_, cumulative)| *cumulative).sum();
        assert!(promised <= counted, "a provider holds nothing that its client does not know of: {deposit}");
        read += promised;
        signers.extend(held.into_iter().map(|(signer, _)| signer));
    }
    assert!(signers.len() >= READERS, "each process signs with a key of its own: {signers:?}");
    assert!(read > 0 && read <= units(&wallet["reads_this_month"]), "{wallet}");
    assert!(units(&wallet["reads_this_month"]) <= units(&wallet["budget_per_month"]));
    home.seedbank("down").succeeds();
}

#[test]
fn sixteen_homes_read_from_the_same_providers_at_once_each_with_a_channel_of_its_own() {
    const HOMES: usize = 16;
    let sandbox = Sandbox::new();
    let home = sandbox.home("home");
    let up = home.seedbank("up --providers 4 --credit 128KiB --detach --quiet").json();
    let (providers, _steward) = Network::processes_of(&up);
    let tree = sandbox.path("tree");
    let bytes = ByteStream::bytes(17, 1_500_000);
    std::fs::create_dir(&tree).expect("made");
    crate::files::write(&tree, "data", &bytes);
    home.seedbank("dataset push notes --public").arg(&tree).succeeds();
    let own = home.seedbank("chain show").json();
    let (url, directory) = (text_of(&own["rpc"][0]), text_of(&own["directory"]));
    let name = format!("{}/notes:data", text_of(&home.seedbank("key show").json()["wallet"]));
    let others: Vec<Home> = (0..HOMES).map(|number| sandbox.home(&format!("other-{number}"))).collect();
    let all = |start: &dyn Fn(usize, &Home) -> crate::program::Started| -> Vec<crate::program::Outcome> {
        let started: Vec<_> = others.iter().enumerate().map(|(number, home)| start(number, home)).collect();
        started.into_iter().map(|command| command.wait().succeeded()).collect()
    };
    all(&|number, home| {
        let phrase = sandbox.path(&format!("phrase-{number}"));
        home.seedbank("key init --insecure-no-passphrase --quiet --phrase-out").arg(phrase).start()
    });
    let limits = ["--rent-max", "0", "--egress-max", "100000000000000000", "--budget", "1000000000000000000"];
    all(&|_, home| {
        home.seedbank("chain use").args(["--rpc", url, "--directory", directory]).args(limits).start()
    });
    for outcome in all(&|_, home| home.seedbank("dataset cat").arg(&name).start()) {
        assert!(outcome.stdout == bytes, "what it read is exact");
    }
    let mut held: BTreeMap<String, u128> = BTreeMap::new();
    for (signer, promised) in providers.iter().flat_map(|provider| vouchers(&provider.dir)) {
        *held.entry(signer).or_default() += promised;
    }
    assert_eq!(held.len(), HOMES, "each home signs with a key of its own");
    for other in &others {
        let wallet = other.seedbank("wallet show").json();
        for deposit in list_of(&wallet["deposits"]) {
            assert!(units(&deposit["promised"]) <= units(&deposit["deposit"]), "{deposit}");
        }
        assert!(units(&wallet["reads_this_month"]) > 0, "{wallet}");
    }
    home.seedbank("down").succeeds();
}

/// The open agreement in a provider's books: its number, sequence, fragments and bytes.
fn agreed(provider: &Path) -> (u64, u64, u64, u64) {
    let books = rusqlite::Connection::open(provider.join("money.db")).expect("opened");
    let sql = "SELECT a.id, a.sequence, count(*), sum(l.length) FROM agreements a JOIN leaves l ON l.agreement = a.id
               WHERE a.closed IS NULL AND l.gone IS NULL GROUP BY a.id";
    let mut rows = books.prepare(sql).expect("the tables are there");
    let found: Vec<_> = rows
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .expect("asked")
        .map(|row| row.expect("read"))
        .collect();
    assert_eq!(found.len(), 1, "one agreement with one client");
    found[0]
}

/// Books, providers and chain agree, and no money is anywhere else than where it should be.
fn assert_settled(home: &Home, network: &Network) {
    let agreements = home.seedbank("agreement ls").json();
    let agreements = list_of(&agreements);
    assert_eq!(agreements.len(), network.providers.len(), "{agreements:?}");
    let mut ids = BTreeSet::new();
    for agreement in agreements {
        assert_eq!(
            (&agreement["state"], &agreement["waits_for_answer"]),
            (&"open".into(), &false.into()),
            "{agreement}"
        );
        assert!(
            number_of(&agreement["sequence_on_chain"]) <= number_of(&agreement["sequence"]),
            "{agreement}"
        );
        let provider = network.providers.iter().find(|provider| agreement["provider"] == provider.key);
        let (id, sequence, fragments, bytes) = agreed(&provider.expect("it is one of these").dir);
        let books = ["agreement", "sequence", "fragments", "bytes"].map(|key| number_of(&agreement[key]));
        assert_eq!(books, [id, sequence, fragments, bytes], "{agreement}");
        ids.insert(id);
    }
    // Numbers are given one after the other: no agreement was opened beside these.
    assert_eq!(ids.into_iter().collect::<Vec<_>>(), (1..=network.providers.len() as u64).collect::<Vec<_>>());
    let wallet = home.seedbank("wallet show").json();
    let locked: Vec<u128> =
        list_of(&wallet["agreements"]).iter().map(|line| units(&line["locked"])).collect();
    assert_eq!(units(&wallet["locked"]), locked.iter().sum::<u128>(), "{wallet}");
    // What was laid in for an agreement that was cut short is used by the next.
    assert!(units(&wallet["free"]) <= locked.iter().sum(), "{wallet}");
}

#[test]
fn a_push_that_is_killed_around_its_signatures_signs_nothing_twice_and_loses_no_money() {
    let sandbox = Sandbox::new();
    let home = sandbox.home("home");
    let up = home.seedbank("up --providers 4 --credit 64KiB --detach --quiet").json();
    let (providers, steward) = Network::processes_of(&up);
    let network = Network { providers, steward, sandbox, home: home.clone(), client: Default::default() };
    let (tree, back) = (network.path("tree"), network.path("back"));
    crate::files::write_specimen(&tree, 44);
    let mut promised = BTreeMap::new();
    // The first push makes agreements, the others revise them. Each is killed when so many providers have signed; after the
    // last of them comes the commit.
    for (round, signatures) in [1, 4, 2, 4, 3, 4].into_iter().enumerate() {
        crate::files::write(&tree, "changing", &ByteStream::bytes(round as u64, 700_000));
        let mut push = home.seedbank("dataset push notes --json --log debug").arg(&tree).start();
        wait_until("providers to sign", SOON, || {
            push.has_said("provider has signed") >= signatures || !push.is_running()
        });
        push.signal(Signal::KILL);
        let cut = push.wait();
        assert!(cut.signal == Some(9) || cut.code == Some(0), "{cut}");
        let again = home.seedbank("dataset push notes --json --log info").arg(&tree).succeeds();
        assert!(!again.stderr.contains("took over the provider's set"), "both know one set: {again}");
        assert_settled(&home, &network);
        if back.exists() {
            std::fs::remove_dir_all(&back).expect("removed");
        }
        home.seedbank("dataset pull notes").arg(&back).succeeds();
        seedbank_testkit::assert_same_folder(&tree, &back);
        let now = promises(&home);
        for (lane, before) in &promised {
            assert!(now[lane] >= *before, "no voucher is below one before it: {lane:?}");
        }
        promised = now;
    }
    assert!(!promised.is_empty(), "reads were paid");
    // What is not locked is this home's to take.
    let wallet = home.seedbank("wallet show").json();
    let (free, tokens) = (units(&wallet["free"]), units(&wallet["tokens"]));
    if free > 0 {
        home.seedbank("wallet withdraw").arg(free.to_string()).succeeds();
    }
    let wallet = home.seedbank("wallet show").json();
    assert_eq!((units(&wallet["free"]), units(&wallet["tokens"])), (0, tokens + free));
    home.seedbank("down").succeeds();
}

#[test]
fn a_home_that_is_recovered_where_providers_are_paid_is_told_what_to_allow_and_reads_beside_what_the_lost_one_promised()
 {
    let sandbox = Sandbox::new();
    let (home, phrase) = (sandbox.home("home"), sandbox.path("phrase"));
    home.make_keys(&phrase);
    home.seedbank("up --providers 4 --credit 64KiB --detach --quiet").succeeds();
    let (tree, back) = (sandbox.path("tree"), sandbox.path("back"));
    crate::files::write_specimen(&tree, 45);
    home.seedbank("dataset push notes").arg(&tree).succeeds();
    home.seedbank("dataset pull notes").arg(&back).succeeds();
    let promised: u128 = promises(&home).into_values().sum();
    assert!(promised > 0, "vouchers that nobody has cashed");
    let chain = home.seedbank("chain show").json();
    let recovered = sandbox.home("recovered");
    let recover = |limits: &[&str]| {
        let command = recovered.seedbank("key recover --insecure-no-passphrase --phrase-file").arg(&phrase);
        let (url, directory) = (text_of(&chain["rpc"][0]), text_of(&chain["directory"]));
        command.args(["--rpc", url, "--directory", directory]).args(limits).run()
    };
    let told = recover(&[]);
    let advice =
        "seedbank chain use --rent-max 1000000000000000000 --egress-max 100000000000000000 --budget UNITS";
    assert!(told.stderr.contains(advice), "{told}");
    let limits = ["--rent-max", "1000000000000000000", "--egress-max", "100000000000000000"];
    let told = recover(&[&limits[..], &["--budget", "1000000000000000000000"]].concat()).succeeded();
    assert!(!told.stderr.contains("chain use"), "{told}");
    let again = sandbox.path("again");
    recovered.seedbank("dataset pull notes").arg(&again).succeeds();
    seedbank_testkit::assert_same_folder(&tree, &again);
    crate::files::write(&tree, "after", b"the loss");
    recovered.seedbank("dataset push notes").arg(&tree).succeeds();
    let numbers = |home: &Home| -> BTreeSet<(String, u64)> {
        let known = home.seedbank("agreement ls").json();
        let number = |known: &Value| (text_of(&known["provider"]).to_owned(), number_of(&known["agreement"]));
        list_of(&known).iter().map(number).collect()
    };
    assert_eq!(numbers(&recovered), numbers(&home), "it goes on with the agreements that there are");
    let lanes: BTreeSet<u64> = promises(&recovered).into_keys().map(|(lane, _)| lane).collect();
    assert!(lanes.into_iter().any(|lane| lane > 0), "the lost home's lane is left alone");
    home.seedbank("down").succeeds();
}

//! Networks that lose packets, are slow, carry one way only, stall and cut: pushes and pulls complete, or say so and
//! complete once the network is well again; nobody is called a liar for it.

use crate::aftermath::{assert_no_orphans, assert_reads_back};
use crate::faults::seed;
use crate::files::{write, write_specimen};
use crate::network::Network;
use crate::program::{Outcome, Surroundings, list_of};
use crate::sandbox::wait_until;
use seedbank_testkit::tools::or_skip;
use seedbank_testkit::{ByteStream, Internet, Loss, Relay, Weather, assert_same_folder};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PROVIDERS: usize = 8;
const SOON: Duration = Duration::from_secs(60);

/// A network with a relay before each provider; the home knows the relays' addresses only.
fn behind_relays(seed: u64) -> (Network, Vec<Relay>) {
    let network = Network::up(PROVIDERS);
    let relays: Vec<Relay> = (0..PROVIDERS)
        .map(|at| {
            let address = network.providers[at].address.parse().expect("an address");
            let relay = Relay::start(address, seed + at as u64).expect("there is a port");
            network.tell_address(at, &relay.address().to_string());
            relay
        })
        .collect();
    (network, relays)
}

fn tree_of(network: &Network, seed: u64, large_bytes: usize) -> PathBuf {
    let tree = network.path("tree");
    write_specimen(&tree, seed);
    write(&tree, "large.bin", &ByteStream::bytes(seed, large_bytes));
    tree
}

fn set_all(relays: &[Relay], weather: &Weather) {
    relays.iter().for_each(|relay| relay.set(weather.clone()));
}

/// Pushes and pulls, which must succeed, and prints how long they took.
fn push_and_pull(network: &Network, tree: &Path, under: &str) {
    let started = Instant::now();
    network.push("notes", tree);
    let pushed = started.elapsed();
    let started = Instant::now();
    let back = network.path("back");
    let pulled = network.pull("notes", &back);
    eprintln!("{under}: push {pushed:?}, pull {:?}", started.elapsed());
    assert_same_folder(tree, &back);
    assert_eq!(
        list_of(&pulled["findings"]).len(),
        0,
        "{under}: the network's faults are nobody's lies: {pulled}"
    );
    fs::remove_dir_all(back).expect("removed");
}

/// A command that may fail while the fault lasts must say something that helps.
fn assert_done_or_told(outcome: &Outcome) {
    let helps = ["can't be read", "could not be placed", "can't be reached", "could not be"];
    let told = helps.iter().any(|words| outcome.stderr.contains(words));
    assert!(outcome.code == Some(0) || (outcome.code == Some(1) && told), "{outcome}");
}

#[test]
fn delayed_and_throttled_providers_are_waited_for_or_gone_around() {
    let (mut network, relays) = behind_relays(1);
    let tree = tree_of(&network, 100, 4_000_000);
    set_all(&relays, &Weather::Delay(Duration::from_millis(200)));
    push_and_pull(&network, &tree, "every provider 200 ms away in each direction");
    set_all(&relays, &Weather::Calm);
    for relay in &relays[..2] {
        relay.set(Weather::Throttle { bytes_per_s: 100_000 });
    }
    write(&tree, "large.bin", &ByteStream::bytes(101, 8_000_000));
    push_and_pull(&network, &tree, "two of eight at 100 KB/s");
    set_all(&relays, &Weather::Calm);
    assert_reads_back(&network, "notes", &tree);
    assert_no_orphans(&mut network, "notes", &tree);
}

#[test]
fn connections_that_are_cut_in_the_middle_of_bodies_cost_time_and_no_byte() {
    let seed = seed();
    let (mut network, relays) = behind_relays(seed);
    let tree = tree_of(&network, 102, 12_000_000);
    for relay in &relays[..2] {
        relay.set(Weather::Cut(20_000..2_000_000));
    }
    push_and_pull(&network, &tree, "two of eight cut");
    set_all(&relays, &Weather::Cut(200_000..6_000_000));
    write(&tree, "more.bin", &ByteStream::bytes(103, 12_000_000));
    let outcome = network.command("dataset push notes").arg(&tree).run();
    assert_done_or_told(&outcome);
    let back = network.path("back-cut");
    let outcome = network.command("dataset pull notes").arg(&back).run();
    assert_done_or_told(&outcome);
    assert!(relays.iter().map(Relay::cuts).sum::<u64>() > 5, "connections were cut");
    set_all(&relays, &Weather::Calm);
    push_and_pull(&network, &tree, "calm again");
    assert_no_orphans(&mut network, "notes", &tree);
}

#[test]
fn stalls_of_some_are_gone_around_and_stalls_of_all_are_waited_out() {
    let (mut network, relays) = behind_relays(2);
    let tree = tree_of(&network, 104, 12_000_000);
    relays[1].set(Weather::Stall);
    relays[6].set(Weather::Stall);
    push_and_pull(&network, &tree, "two of eight stalled");
    set_all(&relays, &Weather::Calm);
    write(&tree, "more.bin", &ByteStream::bytes(105, 12_000_000));
    let carried = || relays.iter().map(Relay::carried).sum::<u64>();
    let before = carried();
    let mut push = network.command("dataset push notes").arg(&tree).start();
    wait_until("the push to send", SOON, || carried() > before + 3_000_000 || !push.is_running());
    set_all(&relays, &Weather::Stall);
    let stopped = carried();
    assert!(push.is_running() && stopped == carried(), "nothing moves");
    set_all(&relays, &Weather::Calm);
    push.wait().succeeded();
    assert_reads_back(&network, "notes", &tree);
    assert_no_orphans(&mut network, "notes", &tree);
}

/// A network whose providers are hosts of an own internet; steward and commands are on its hub.
fn on_internet() -> Option<(Network, Internet)> {
    let hosts = u8::try_from(PROVIDERS).expect("a few");
    let internet = or_skip("packet loss", Internet::with_hosts(hosts))?;
    let mut network = Network::up(PROVIDERS);
    network.kill_steward();
    let hub = Surroundings::through(&internet.on_hub());
    network.client = hub.clone();
    network.steward.as_mut().expect("there is one").surroundings = hub;
    for host in 0..hosts {
        let at = usize::from(host);
        network.providers[at].kill();
        network.providers[at].address = format!("{}:7410", internet.address(host));
        network.providers[at].surroundings = Surroundings::through(&internet.on_host(host));
        network.restart_provider(at);
    }
    network.restart_steward();
    for at in 0..PROVIDERS {
        let address = network.providers[at].address.clone();
        network.tell_address(at, &address);
    }
    Some((network, internet))
}

fn lose(internet: &Internet, hosts: impl IntoIterator<Item = u8>, loss: Loss) {
    hosts.into_iter().for_each(|host| internet.lose(host, loss).expect("the firewall takes it"));
}

#[test]
fn packet_loss_and_partitions_cost_time_and_no_byte() {
    let Some((mut network, internet)) = on_internet() else { return };
    let tree = tree_of(&network, 106, 4_000_000);
    lose(&internet, 0..8, Loss::Percent(1));
    push_and_pull(&network, &tree, "1 % of packets lost each way");

    lose(&internet, 0..8, Loss::Nothing);
    lose(&internet, [2], Loss::TowardsHost);
    lose(&internet, [5], Loss::FromHost);
    write(&tree, "large.bin", &ByteStream::bytes(107, 4_000_000));
    push_and_pull(&network, &tree, "two of eight cut off one way, one each way");
    lose(&internet, [2, 5], Loss::Nothing);

    // More than are allowed to be away: a refusal that says so, and all is well when they are back.
    lose(&internet, 0..5, Loss::Everything);
    let started = Instant::now();
    let refused = network.command("dataset pull notes").arg(network.path("none")).fails(1, "can't be read");
    eprintln!("five of eight cut off: refused after {:?}", started.elapsed());
    assert!(started.elapsed() < SOON, "{refused}");
    lose(&internet, 0..5, Loss::Nothing);
    push_and_pull(&network, &tree, "healed");
    assert_no_orphans(&mut network, "notes", &tree);
}

#[test]
#[ignore = "takes minutes"]
fn heavy_packet_loss_and_slow_links_cost_time_and_no_byte() {
    let Some((mut network, internet)) = on_internet() else { return };
    let tree = tree_of(&network, 110, 60_000_000);
    for percent in [1, 10] {
        write(&tree, "large.bin", &ByteStream::bytes(110 + u64::from(percent), 60_000_000));
        lose(&internet, 0..8, Loss::Percent(percent));
        push_and_pull(&network, &tree, &format!("64 MB, {percent} % of packets lost each way"));
    }
    lose(&internet, 0..8, Loss::Nothing);
    (0..8).for_each(|host| internet.limit_rate(host, 20_000_000).expect("the kernel takes it"));
    write(&tree, "large.bin", &ByteStream::bytes(130, 60_000_000));
    push_and_pull(&network, &tree, "64 MB, 20 Mbit/s to each provider");

    // Partitions that come and go while a push and a pull run.
    let mut draw = ByteStream::new(seed());
    for round in 0..10 {
        write(&tree, "large.bin", &ByteStream::bytes(200 + round, 20_000_000));
        let mut push = network.command("dataset push notes").arg(&tree).start();
        while push.is_running() {
            let host = u8::try_from(draw.below(8)).expect("a small number");
            let losses = [Loss::TowardsHost, Loss::FromHost, Loss::Everything, Loss::Percent(30)];
            lose(&internet, [host], losses[usize::try_from(draw.below(4)).expect("a small number")]);
            // How long a partition lasts is what is tested, not a wait for something.
            std::thread::sleep(Duration::from_millis(200 + draw.below(2000)));
            lose(&internet, [host], Loss::Nothing);
        }
        assert_done_or_told(&push.wait());
        push_and_pull(&network, &tree, &format!("round {round}, healed"));
    }
    assert_no_orphans(&mut network, "notes", &tree);
}

//! Processes that are stopped for a while and then go on: their connections stay, and nobody answers.

use crate::aftermath::{assert_no_orphans, assert_reads_back};
use crate::files::{write, write_specimen};
use crate::network::Network;
use crate::program::{Started, is_alive, list_of};
use crate::sandbox::wait_until;
use seedbank_testkit::{ByteStream, assert_same_folder};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

/// How long somebody stays frozen.
#[derive(Debug, Clone, Copy)]
enum Freeze {
    /// Until the test has seen what it is there to see.
    UntilSeen,
    /// At least so long.
    For(Duration),
}

impl Freeze {
    fn wait_out(self, since: Instant) {
        if let Freeze::For(time) = self {
            // How long it is frozen is what is tested, not a wait for something.
            std::thread::sleep(time.saturating_sub(since.elapsed()));
        }
    }
}

/// A network with a version, and a changed tree that is not pushed yet.
fn network_with_work(seed: u64) -> (Network, PathBuf, PathBuf) {
    let network = Network::up(8);
    let (old, new) = (network.path("old"), network.path("new"));
    write_specimen(&old, seed);
    write(&old, "large.bin", &ByteStream::bytes(seed, 24_000_000));
    network.push("notes", &old);
    write_specimen(&new, seed);
    write(&new, "large.bin", &ByteStream::bytes(seed + 7, 30_000_000));
    (network, old, new)
}

/// Clock ticks that a process has computed.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// Waits until a process has computed nothing for many looks, or has ended.
pub(crate) fn wait_until_idle(process: &mut Started) {
    const LOOKS: u32 = 100;
    let (mut seen, mut same) = (0, 0);
    wait_until("the command to wait for somebody", SOON, || {
        let now = ticks(process.pid());
        same = if now == seen { same + 1 } else { 0 };
        seen = now;
        same > LOOKS || !process.is_running()
    });
}

fn freeze_a_provider(freeze: Freeze, seed: u64) {
    let (mut network, old, new) = network_with_work(seed);
    let back = network.path("back");
    let before = network.fragment_bytes();
    let pull = network.command("dataset pull notes --json").arg(&back).start();
    let mut push = network.command("dataset push notes --json").arg(&new).start();
    wait_until("the push to send", SOON, || network.fragment_bytes() > before || !push.is_running());
    let frozen = Instant::now();
    network.providers[3].freeze();
    // Both do without it: they end while it is still frozen.
    let pulled = pull.wait().succeeded().json();
    let pushed = push.wait().succeeded().json();
    eprintln!("push and pull ended {:?} after the freeze", frozen.elapsed());
    assert!(
        frozen.elapsed() < Duration::from_secs(20),
        "nobody waits for it for long: {:?}",
        frozen.elapsed()
    );
    assert_same_folder(&old, &back);
    assert_eq!(list_of(&pulled["findings"]).len(), 0, "who is silent is no liar: {pulled}");
    assert_eq!(pushed["changed"], true, "{pushed}");
    freeze.wait_out(frozen);
    network.providers[3].thaw();
    assert_reads_back(&network, "notes", &new);
    let verified = network.command("dataset verify notes").json();
    assert_eq!(list_of(&verified["findings"]).len(), 0, "{verified}");
    assert_no_orphans(&mut network, "notes", &new);
}

fn freeze_the_steward(freeze: Freeze, seed: u64) {
    let (mut network, old, new) = network_with_work(seed);
    let back = network.path("back");
    let steward = network.steward.as_ref().expect("it runs").pid;
    let before = network.fragment_bytes();
    let mut push = network.command("dataset push notes --json").arg(&new).start();
    wait_until("the push to send", SOON, || network.fragment_bytes() > before || !push.is_running());
    let frozen = Instant::now();
    network.steward.as_ref().expect("it runs").freeze();
    let mut pull = network.command("dataset pull notes --json").arg(&back).start();
    // The books can't be asked, so both wait for them; neither fails.
    wait_until_idle(&mut push);
    wait_until_idle(&mut pull);
    assert!(pull.is_running(), "nobody could tell it where the data is: {}", pull.wait());
    freeze.wait_out(frozen);
    network.steward.as_ref().expect("it runs").thaw();
    push.wait().succeeded();
    let version = network.command("dataset log notes").json();
    assert_eq!(list_of(&version).len(), 2, "{version}");
    // The branch may have moved before or after the pull asked.
    let pulled = pull.wait().succeeded();
    let older = seedbank_testkit::compare_folders(&old, &back).expect("compared").is_empty();
    if !older {
        assert_same_folder(&new, &back);
    }
    assert!(is_alive(steward), "{pulled}");
    assert_reads_back(&network, "notes", &new);
    assert_no_orphans(&mut network, "notes", &new);
}

#[test]
fn a_provider_that_freezes_under_push_and_pull_delays_neither() {
    freeze_a_provider(Freeze::UntilSeen, 50);
}

#[test]
fn a_steward_that_freezes_under_push_and_pull_is_waited_for() {
    freeze_the_steward(Freeze::UntilSeen, 51);
}

#[test]
#[ignore = "takes two minutes"]
fn freezes_of_thirty_seconds_end_well() {
    freeze_a_provider(Freeze::For(Duration::from_secs(30)), 52);
    freeze_the_steward(Freeze::For(Duration::from_secs(30)), 53);
}

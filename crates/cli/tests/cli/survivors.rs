//! Exactly n-k holders gone at once, in the middle of reading and writing: the k that are left serve, without an error
//! and without a long silence.

use crate::aftermath::{assert_no_orphans, assert_reads_back};
use crate::files::write;
use crate::network::Network;
use crate::program::list_of;
use crate::sandbox::Sandbox;
use seedbank_testkit::ByteStream;
use std::fs;
use std::io::Read;
use std::time::{Duration, Instant};

/// Of four of eight.
const LOST: usize = 4;

/// How holders are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    Dead,
    Frozen,
}

/// What a reader saw.
#[derive(Debug)]
struct Delivery {
    /// The longest time without a byte after the holders were gone.
    longest_gap: Duration,
    total: Duration,
}

/// Reads a file to its end, and takes `LOST` holders away at once when a third has come.
fn read_while_holders_go(network: &mut Network, bytes: &[u8], gone: Gone) -> Delivery {
    let mut cat = network.command("dataset cat notes:large.bin").start();
    let mut output = cat.output();
    let mut buffer = vec![0; 64 * 1024];
    let (mut at, mut longest_gap, mut are_gone) = (0, Duration::ZERO, false);
    let started = Instant::now();
    let mut last = started;
    loop {
        let read = output.read(&mut buffer).expect("the pipe can be read");
        if are_gone {
            longest_gap = longest_gap.max(last.elapsed());
        }
        if read == 0 {
            break;
        }
        assert!(buffer[..read] == bytes[at..at + read], "wrong bytes after {at}");
        at += read;
        last = Instant::now();
        if !are_gone && at > bytes.len() / 3 {
            for provider in &mut network.providers[..LOST] {
                match gone {
                    Gone::Dead => provider.kill(),
                    Gone::Frozen => provider.freeze(),
                }
            }
            are_gone = true;
            last = Instant::now();
        }
    }
    let outcome = cat.wait().succeeded();
    assert_eq!(at, bytes.len(), "{outcome}");
    Delivery { longest_gap, total: started.elapsed() }
}

/// Reads again and again while holders go; prints the longest gap of each read, and gives the longest of all.
fn look_at_gaps(gone: Gone, rounds: usize, large_bytes: usize) -> Duration {
    let mut network = Network::up(2 * LOST);
    let tree = network.path("tree");
    fs::create_dir(&tree).expect("made");
    let bytes = ByteStream::bytes(80, large_bytes);
    write(&tree, "large.bin", &bytes);
    network.push("notes", &tree);
    let mut gaps = Vec::new();
    for _ in 0..rounds {
        let delivery = read_while_holders_go(&mut network, &bytes, gone);
        eprintln!("{gone:?}: longest gap {:?} of {:?}", delivery.longest_gap, delivery.total);
        gaps.push(delivery.longest_gap);
        for at in 0..LOST {
            match gone {
                Gone::Dead => network.restart_provider(at),
                Gone::Frozen => network.providers[at].thaw(),
            }
        }
    }
    gaps.sort_unstable();
    let (half, most) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    eprintln!("{gone:?}: longest gap of {rounds} reads: p50 {half:?}, max {most:?}");
    assert_no_orphans(&mut network, "notes", &tree);
    most
}

/// What is aimed at is a second. On a machine of two cores with eight times as much to do, the longest of forty was three;
/// whoever waits for this long waits for somebody who is gone.
const BUSY: Duration = Duration::from_secs(10);

#[test]
fn a_reader_loses_exactly_as_many_holders_as_it_may_and_hardly_notices() {
    let gaps = [Gone::Dead, Gone::Frozen].map(|gone| look_at_gaps(gone, 1, 150_000_000));
    assert!(gaps.iter().all(|gap| *gap <= BUSY), "{gaps:?}");
}

#[test]
#[ignore = "takes minutes, and measures"]
fn the_longest_gap_of_a_reader_that_loses_half_of_its_holders_is_a_second_at_most() {
    let gaps = [Gone::Dead, Gone::Frozen].map(|gone| look_at_gaps(gone, 20, 400_000_000));
    assert!(gaps.iter().all(|gap| *gap <= Duration::from_secs(1)), "{gaps:?}");
}

/// Twelve providers, so that a writer that needs eight has them left.
#[test]
fn a_writer_that_loses_four_of_twelve_holders_at_once_completes() {
    for gone in [Gone::Dead, Gone::Frozen] {
        let mut network = Network::up_in(Sandbox::new(), 12);
        let tree = network.path("tree");
        fs::create_dir(&tree).expect("made");
        write(&tree, "large.bin", &ByteStream::bytes(81, 40_000_000));
        let mut push = network.command("dataset push notes --json").arg(&tree).start();
        crate::sandbox::wait_until("the push to send", Duration::from_secs(60), || {
            network.fragment_bytes() > 1_000_000 || !push.is_running()
        });
        for provider in &mut network.providers[..LOST] {
            match gone {
                Gone::Dead => provider.kill(),
                Gone::Frozen => provider.freeze(),
            }
        }
        let since = Instant::now();
        let pushed = push.wait().succeeded();
        eprintln!("{gone:?}: the push ended {:?} after four of twelve were gone", since.elapsed());
        assert_eq!(pushed.json()["changed"], true, "{pushed}");
        assert_reads_back(&network, "notes", &tree);
        for at in 0..LOST {
            match gone {
                Gone::Dead => network.restart_provider(at),
                Gone::Frozen => network.providers[at].thaw(),
            }
        }
        assert_no_orphans(&mut network, "notes", &tree);
    }
}

#[test]
fn a_reader_with_too_few_holders_left_is_told_soon_whether_they_are_dead_or_frozen() {
    for gone in [Gone::Dead, Gone::Frozen] {
        let mut network = Network::up(2 * LOST);
        let tree = network.path("tree");
        fs::create_dir(&tree).expect("made");
        write(&tree, "large.bin", &ByteStream::bytes(82, 6_000_000));
        network.push("notes", &tree);
        for provider in &mut network.providers[..=LOST] {
            match gone {
                Gone::Dead => provider.kill(),
                Gone::Frozen => provider.freeze(),
            }
        }
        let started = Instant::now();
        let refused =
            network.command("dataset pull notes").arg(network.path("back")).fails(1, "can't be read");
        eprintln!("{gone:?}: refused after {:?}: {}", started.elapsed(), refused.stderr);
        assert!(refused.stderr.contains("usable=3 needed=4"), "it says how many are missing: {refused}");
        assert!(refused.stderr.contains("try again when"), "and what to do: {refused}");
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
        for at in 0..=LOST {
            match gone {
                Gone::Dead => network.restart_provider(at),
                Gone::Frozen => network.providers[at].thaw(),
            }
        }
        let verified = network.command("dataset verify notes").json();
        assert_eq!(list_of(&verified["findings"]).len(), 0, "{verified}");
        assert_reads_back(&network, "notes", &tree);
    }
}

//! Crashes at random moments: providers, the steward and the pushing client are killed while they work, alone or two at
//! once, again and again.
//!
//! After each round every push that was acknowledged reads back exact, and the push that was cut short completes when it is
//! run again. `SEEDBANK_SEED` replays a run's choices; how far each process had come when it died is the machine's.

use crate::aftermath::assert_no_orphans;
use crate::network::Network;
use crate::program::{Outcome, Started, text_of};
use rustix::process::Signal;
use seedbank_testkit::{ByteStream, assert_same_folder};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const PROVIDERS: u64 = 8;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Provider(usize),
    Steward,
    Client,
}

/// Who is killed at once, in turn.
#[derive(Debug, Clone, Copy)]
enum Blow {
    Provider,
    Steward,
    Client,
    ProviderAndSteward,
    ProviderAndClient,
    TwoProviders,
}

const BLOWS: [Blow; 6] = [
    Blow::Provider,
    Blow::Steward,
    Blow::Client,
    Blow::ProviderAndSteward,
    Blow::ProviderAndClient,
    Blow::TwoProviders,
];

/// The seed of this run: given, or the time.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("SEEDBANK_SEED").ok();
    let now =
        || u64::from(SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").subsec_nanos());
    let seed = given.map_or_else(now, |seed| seed.parse().expect("SEEDBANK_SEED is a number"));
    // Shown when the test fails, and with --nocapture.
    eprintln!("SEEDBANK_SEED={seed}");
    seed
}

/// A network under attack, and what it has acknowledged.
struct Siege {
    network: Network,
    draw: ByteStream,
    tree: PathBuf,
    /// Version -> a copy of the folder as it was pushed.
    acknowledged: BTreeMap<String, PathBuf>,
    /// About how long a push takes, for each change.
    push_times: BTreeMap<Change, Duration>,
}

/// How much is changed before a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    /// A few MB: one segment.
    Small,
    /// Several segments.
    Large,
}

impl Siege {
    /// Starts a network, and pushes once for each kind of change, in peace.
    fn begin(seed: u64, changes: &[Change]) -> Siege {
        let network = Network::up(usize::try_from(PROVIDERS).expect("a few"));
        let tree = network.path("tree");
        fs::create_dir(&tree).expect("made");
        let mut siege = Siege {
            network,
            draw: ByteStream::new(seed),
            tree,
            acknowledged: BTreeMap::new(),
            push_times: BTreeMap::new(),
        };
        for change in changes {
            siege.change(*change);
            let started = Instant::now();
            let outcome = siege.push().wait().succeeded();
            siege.push_times.insert(*change, started.elapsed());
            siege.acknowledge(&outcome);
        }
        siege
    }

    /// Adds files, large and small, changes one and removes one. Files are replaced, so that copies may be hard links.
    fn change(&mut self, change: Change) {
        for _ in 0..3 + self.draw.below(20) {
            let len = self.draw.below(3000);
            self.write(len);
        }
        let len = match change {
            Change::Small => 500_000 + self.draw.below(8_000_000),
            Change::Large => 70_000_000 + self.draw.below(40_000_000),
        };
        self.write(len);
        let files = crate::network::files_below(&self.tree);
        if files.len() > 60 {
            for _ in 0..20 {
                let at = usize::try_from(self.draw.below(files.len() as u64)).expect("an index");
                // Drawn twice is removed once.
                let _gone = fs::remove_file(&files[at]);
            }
        }
    }

    fn write(&mut self, len: u64) {
        let (name, seed) = (self.draw.below(100), self.draw.below(u64::MAX));
        let (path, staged) = (self.tree.join(format!("{name:02}.bin")), self.network.path("staged"));
        fs::write(&staged, ByteStream::bytes(seed, usize::try_from(len).expect("a few MB")))
            .expect("written");
        fs::rename(staged, path).expect("renamed");
    }

    fn push(&self) -> Started {
        self.network.home.seedbank("dataset push notes --json").arg(&self.tree).start()
    }

    fn acknowledge(&mut self, outcome: &Outcome) -> String {
        let version = text_of(&outcome.json()["version"]).to_owned();
        let copy = self.network.path(&format!("copy-{version}"));
        if !copy.exists() {
            fs::create_dir(&copy).expect("made");
            for file in crate::network::files_below(&self.tree) {
                let name = file.file_name().expect("a file has a name");
                fs::hard_link(&file, copy.join(name)).expect("linked");
            }
        }
        self.acknowledged.insert(version.clone(), copy);
        version
    }

    fn check(&self, version: &str) {
        let back = self.network.path("back");
        self.network.pull(&format!("notes@{version}"), &back);
        assert_same_folder(&self.acknowledged[version], &back);
        fs::remove_dir_all(back).expect("removed");
    }

    fn draw_victims(&mut self, round: u64) -> Vec<Victim> {
        let first = self.draw.below(PROVIDERS);
        let second = (first + 1 + self.draw.below(PROVIDERS - 1)) % PROVIDERS;
        let provider = |at: u64| Victim::Provider(usize::try_from(at).expect("a few"));
        match BLOWS[usize::try_from(round).expect("a few") % BLOWS.len()] {
            Blow::Provider => vec![provider(first)],
            Blow::Steward => vec![Victim::Steward],
            Blow::Client => vec![Victim::Client],
            Blow::ProviderAndSteward => vec![provider(first), Victim::Steward],
            Blow::ProviderAndClient => vec![provider(first), Victim::Client],
            Blow::TwoProviders => vec![provider(first), provider(second)],
        }
    }

    /// One round: change, push, kill somebody at a random moment while somebody else reads; then mend, and look.
    fn round(&mut self, round: u64, change: Change) {
        self.change(change);
        let victims = self.draw_victims(round);
        let permille = u32::try_from(self.draw.below(1200)).expect("a small number");
        let moment = self.push_times[&change] * permille / 1000;
        eprintln!("round {round}: {change:?} change, {victims:?} die after {moment:?}");
        let known: Vec<String> = self.acknowledged.keys().cloned().collect();
        let read = &known[usize::try_from(self.draw.below(known.len() as u64)).expect("an index")];
        let read_dest = self.network.path("reading");
        let reading =
            self.network.home.seedbank("dataset pull").arg(format!("notes@{read}")).arg(&read_dest).start();

        let mut push = self.push();
        // The random moment is what is tested, not a wait for something.
        std::thread::sleep(moment);
        for victim in &victims {
            match victim {
                Victim::Provider(at) => self.network.providers[*at].kill(),
                Victim::Steward => self.network.kill_steward(),
                Victim::Client => push.signal(Signal::KILL),
            }
        }
        let outcome = push.wait();
        let read_outcome = reading.wait();
        self.check_reading(&victims, read, &read_outcome, &read_dest);
        for victim in &victims {
            match victim {
                Victim::Provider(at) => self.network.restart_provider(*at),
                Victim::Steward => self.network.restart_steward(),
                Victim::Client => {}
            }
        }
        let may_be_killed = victims.contains(&Victim::Client) && outcome.signal == Some(9);
        assert!(may_be_killed || matches!(outcome.code, Some(0 | 1)), "{outcome}");
        let completed = if outcome.code == Some(0) { outcome } else { self.push().wait().succeeded() };
        let version = self.acknowledge(&completed);
        self.check(&version);
        let older = known[usize::try_from(self.draw.below(known.len() as u64)).expect("an index")].clone();
        self.check(&older);
    }

    /// A reader never gets wrong bytes. It may fail only where nobody could be asked for the books.
    fn check_reading(&self, victims: &[Victim], version: &str, outcome: &Outcome, dest: &Path) {
        match outcome.code {
            Some(0) => assert_same_folder(&self.acknowledged[version], dest),
            code => assert!(code == Some(1) && victims.contains(&Victim::Steward), "{outcome}"),
        }
        // It may not even have begun.
        let _absent = fs::remove_dir_all(dest);
    }
}

fn besiege(rounds: u64, changes: &[Change]) {
    let mut siege = Siege::begin(seed(), changes);
    for round in 0..rounds {
        // One in seven is large, so that each blow falls under both.
        let change = if round % 7 == 6 { changes[changes.len() - 1] } else { changes[0] };
        siege.round(round, change);
    }
    for version in siege.acknowledged.keys() {
        siege.check(version);
    }
    siege.network.home.seedbank("dataset verify notes").succeeds();
    assert_no_orphans(&mut siege.network, "notes", &siege.tree);
    eprintln!("{rounds} rounds, {} versions acknowledged, all exact", siege.acknowledged.len());
}

#[test]
fn nothing_acknowledged_is_lost_by_a_few_crashes() {
    besiege(6, &[Change::Small]);
}

#[test]
#[ignore = "needs 20 GB of disk and many minutes"]
fn nothing_acknowledged_is_lost_by_two_hundred_crashes() {
    besiege(200, &[Change::Small, Change::Large]);
}

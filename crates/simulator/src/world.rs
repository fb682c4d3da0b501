//! The whole network on one thread: nodes, a queue of events, and the clock that they move.
//!
//! Time passes only from event to event. A run has three parts. While *chaos* lasts, faults strike. Then they stop, and
//! everything must come to an end within [`CALM`]: that is a different question from whether anything breaks meanwhile,
//! and asked apart. At last the clocks move past every grace, and what is still on the disks must be what somebody wants.

use crate::calls::{Call, CallFailure};
use crate::client::Client;
use crate::nemesis::Partition;
use crate::options::{Bug, Options};
use crate::provider::{GRACE_S, Provider, Response, STORE};
use crate::random::Random;
use crate::trace::{Keep, Trace};
use crate::truth::Truth;
use seedbank_formats::keys::SigningKey;
use seedbank_formats::{PublicKey, Timestamp};
use seedbank_protocol::moment::Moment;
use seedbank_store::Store;
use seedbank_store::testing::{MemDisk, lost};
use std::collections::BTreeMap;
use std::time::Duration;

/// When the wall clocks start, in seconds since 1970.
const EPOCH: u64 = 1_900_000_000;

/// How long everything may take to come to rest once faults have stopped.
pub(crate) const CALM: Duration = Duration::from_secs(400);

/// No run of these sizes has nearly as many events: one that has goes round in circles.
const EVENTS_MAX: u64 = 200_000;

/// How long after the end a claim may still last that nobody confirmed, with clocks that jump.
const AFTERMATH_S: i64 = 30 * 86_400;

/// Something that happens at a time.
#[derive(Debug)]
pub(crate) enum Event {
    /// A request reaches its provider.
    Arrive { call: u64 },
    /// The rest of a fragment reaches its provider.
    Body { call: u64, arrival: u64 },
    /// The client's end of a connection is closed.
    Abandon { call: u64 },
    /// An answer reaches its client.
    Deliver { call: u64, response: Response },
    /// A client hears that there will be no answer.
    Fail { call: u64, failure: CallFailure },
    /// A client looks at its clock.
    Wake { client: usize, boot: u64 },
    /// A client looks for something to do.
    Tick { client: usize, boot: u64 },
    /// A client starts again.
    StartClient { client: usize },
    /// A provider starts again.
    StartProvider { provider: usize },
    /// A provider looks after its store.
    Upkeep { provider: usize },
    /// A fault strikes.
    Strike,
    /// A provider's disk, speed or clock is right again.
    Heal { provider: usize },
    /// No more faults.
    Calm,
}

/// Which part of the run it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Chaos,
    Calm,
}

/// Everything.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) random: Random,
    pub(crate) now: Duration,
    pub(crate) phase: Phase,
    queue: BTreeMap<(Duration, u64), Event>,
    queued: u64,
    pub(crate) clients: Vec<Client>,
    pub(crate) providers: Vec<Provider>,
    pub(crate) by_key: BTreeMap<PublicKey, usize>,
    pub(crate) calls: BTreeMap<u64, Call>,
    pub(crate) calls_made: u64,
    pub(crate) arrivals: u64,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) truth: Truth,
    pub(crate) trace: Trace,
}

/// Writes a line of the trace.
macro_rules! note {
    ($world:expr, $who:expr, $($what:tt)*) => {
        $world.trace.note($world.now, $who, format_args!($($what)*))
    };
}
pub(crate) use note;

impl World {
    pub(crate) fn new(options: Options, keep: Keep) -> World {
        let mut keys = Random::new(options.seed, 2);
        let created = MemDisk::default();
        Store::create(&created, STORE).expect("an empty disk takes a store");
        let volume_bytes = *keys.pick(&[1 << 14, 1 << 16, 1 << 24]);
        let providers: Vec<Provider> = (0..options.providers)
            .map(|number| {
                let key = SigningKey::from_seed(keys.key());
                // All of it is synced, so nothing is left to choose.
                let disk = created.crash(&mut lost);
                Provider::new(key, options.liars.get(number).copied(), disk, volume_bytes)
            })
            .collect();
        let clients = (0..options.clients).map(|number| Client::new(number, &options, &mut keys)).collect();
        let by_key = providers.iter().enumerate().map(|(number, one)| (one.public, number)).collect();
        World {
            random: Random::new(options.seed, 3),
            options,
            now: Duration::ZERO,
            phase: Phase::Chaos,
            queue: BTreeMap::new(),
            queued: 0,
            clients,
            providers,
            by_key,
            calls: BTreeMap::new(),
            calls_made: 0,
            arrivals: 0,
            partitions: Vec::new(),
            truth: Truth::default(),
            trace: Trace::new(keep),
        }
    }

    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.options.bug == Some(bug)
    }

    pub(crate) fn moment(&self) -> Moment {
        Moment(self.now)
    }

    /// What a wall clock says that is so far ahead.
    fn wall(&self, ahead_s: i64) -> Timestamp {
        Timestamp((EPOCH + self.now.as_secs()).saturating_add_signed(ahead_s))
    }

    pub(crate) fn client_wall(&self, client: usize) -> Timestamp {
        self.wall(self.clients[client].ahead_s)
    }

    pub(crate) fn provider_wall(&mut self, provider: usize) -> Timestamp {
        let now = self.wall(self.providers[provider].ahead_s);
        let latest = &mut self.providers[provider].latest;
        *latest = (*latest).max(now);
        now
    }

    pub(crate) fn schedule(&mut self, after: Duration, event: Event) {
        self.queue.insert((self.now + after, self.queued), event);
        self.queued += 1;
    }

    /// Runs until the end or the first violation.
    pub(crate) fn run(&mut self) {
        for client in 0..self.clients.len() {
            let after = self.random.millis(0, 500);
            self.schedule(after, Event::Tick { client, boot: 0 });
        }
        for provider in 0..self.providers.len() {
            let after = self.random.millis(1000, 30_000);
            self.schedule(after, Event::Upkeep { provider });
        }
        let first = self.random.millis(100, self.options.fault_every_ms);
        self.schedule(first, Event::Strike);
        self.schedule(self.options.chaos, Event::Calm);
        let end = self.options.chaos + CALM;
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            self.handle(event);
            if self.truth.violation().is_some() {
                return;
            }
            if self.phase == Phase::Calm && self.clients.iter().all(Client::is_at_rest) {
                return self.finish();
            }
            if at > end {
                let busy: Vec<String> =
                    self.clients.iter().filter(|client| !client.is_at_rest()).map(Client::describe).collect();
                let busy = busy.join("; ");
                return self.truth.violated(format!("not at rest {CALM:?} after the last fault: {busy}"));
            }
            if self.trace.events() > EVENTS_MAX {
                return self.truth.violated("the run goes round in circles".to_owned());
            }
        }
        self.truth.violated("nothing is left to happen, and clients are not at rest".to_owned());
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrive { call } => self.arrive(call),
            Event::Body { call, arrival } => self.body_arrives(call, arrival),
            Event::Abandon { call } => self.abandoned(call),
            Event::Deliver { call, response } => self.deliver(call, response),
            Event::Fail { call, failure } => self.fail(call, failure),
            Event::Wake { client, boot } => self.wake(client, boot),
            Event::Tick { client, boot } => self.tick(client, boot),
            Event::StartClient { client } => self.start_client(client),
            Event::StartProvider { provider } => self.start_provider(provider),
            Event::Upkeep { provider } => {
                let now = self.provider_wall(provider);
                self.providers[provider].upkeep(now);
                let after = self.random.millis(5000, 60_000);
                self.schedule(after, Event::Upkeep { provider });
            }
            Event::Strike => self.strike(),
            Event::Heal { provider } => self.heal(provider),
            Event::Calm => self.calm_down(),
        }
    }

    /// All is quiet: what was promised is there, and nothing else stays on a disk for good.
    fn finish(&mut self) {
        for provider in 0..self.providers.len() {
            if self.providers[provider].lie.is_none() {
                self.truth.check_promises(provider, &self.providers[provider]);
                self.check_leftovers(provider);
            }
        }
    }

    /// Moves a provider's clock past every grace, and compares its claims with the clients' books.
    fn check_leftovers(&mut self, provider: usize) {
        let later = self.providers[provider].latest.plus_seconds(AFTERMATH_S.unsigned_abs());
        self.providers[provider].upkeep(later);
        self.providers[provider].upkeep(later.plus_seconds(GRACE_S));
        let one = &self.providers[provider];
        let Some(store) = &one.store else {
            return self.truth.violated(format!("p{provider} is down at the end"));
        };
        let mut wanted_in_all = std::collections::BTreeSet::new();
        for client in &self.clients {
            let wanted = client.books.holdings(&one.public);
            let page = store.claims(&client.key.public(), None, 10_000);
            let held: std::collections::BTreeSet<_> =
                page.claims.iter().map(|claim| claim.fragment).collect();
            let (orphans, lost) = (held.difference(&wanted).count(), wanted.difference(&held).count());
            if orphans > 0 {
                let number = client.number;
                return self.truth.violated(format!(
                    "p{provider} keeps {orphans} claims of c{number} that it does not know"
                ));
            }
            if lost > 0 {
                let number = client.number;
                return self
                    .truth
                    .violated(format!("c{number} believes in {lost} claims that p{provider} does not have"));
            }
            wanted_in_all.extend(wanted);
        }
        let Ok(usage) = store.usage() else {
            return self.truth.violated(format!("p{provider} does not know how full it is"));
        };
        if usage.fragments != wanted_in_all.len() as u64 || usage.trash_fragments != 0 {
            let (fragments, trash) = (usage.fragments, usage.trash_fragments);
            let wanted = wanted_in_all.len();
            self.truth.violated(format!(
                "p{provider} keeps {fragments} fragments and {trash} in trash, {wanted} are wanted"
            ));
        }
    }
}

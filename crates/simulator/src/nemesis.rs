//! What strikes nodes and links, and how it is made good again.

use crate::calls::CallFailure;
use crate::options::Fault;
use crate::world::{Event, Phase, World, note};
use std::time::Duration;

/// The furthest that a wall clock is off, in seconds.
const SKEW_MAX_S: i64 = 3 * 86_400;

/// Which way nothing passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Both,
    ToProvider,
    ToClient,
}

/// A link that passes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Partition {
    /// `None` is every client.
    client: Option<usize>,
    provider: usize,
    way: Way,
    pub(crate) until: Duration,
}

impl Partition {
    pub(crate) fn stops(&self, client: usize, provider: usize, towards_provider: bool) -> bool {
        let way = match self.way {
            Way::Both => true,
            Way::ToProvider => towards_provider,
            Way::ToClient => !towards_provider,
        };
        way && self.provider == provider && self.client.is_none_or(|one| one == client)
    }
}

impl World {
    /// One fault, and the time of the next.
    pub(crate) fn strike(&mut self) {
        if self.phase == Phase::Calm || self.options.faults.is_empty() {
            return;
        }
        let next = self.random.millis(1, 2 * self.options.fault_every_ms);
        self.schedule(next, Event::Strike);
        let fault = *self.random.pick(&self.options.faults);
        let provider = self.random.index(self.providers.len());
        let client = self.random.index(self.clients.len());
        let lasts = self.random.millis(500, 20_000);
        match fault {
            Fault::Partition => {
                let way = *self.random.pick(&[Way::Both, Way::ToProvider, Way::ToClient]);
                let client = self.random.chance(500).then_some(client);
                note!(self, format_args!("p{provider}"), "is cut off: {way:?}, {lasts:?}");
                let until = self.now + lasts;
                self.partitions.retain(|partition| partition.until > self.now);
                self.partitions.push(Partition { client, provider, way, until });
            }
            Fault::ProviderCrash => self.crash_provider(provider),
            Fault::ClientCrash if self.clients[client].is_up => self.crash_client(client),
            Fault::ClientCrash => {}
            Fault::Slow => {
                self.providers[provider].slowness = self.random.between(5, 300);
                note!(self, format_args!("p{provider}"), "is slow");
                self.schedule(lasts, Event::Heal { provider });
            }
            Fault::FullDisk => {
                self.providers[provider].fill_disk();
                note!(self, format_args!("p{provider}"), "has a full disk");
                self.schedule(lasts, Event::Heal { provider });
            }
            Fault::FailedSync => {
                self.providers[provider].fail_sync();
                note!(self, format_args!("p{provider}"), "has a disk that fails to sync");
                self.schedule(lasts, Event::Heal { provider });
            }
            Fault::BitRot => self.rot(provider),
            Fault::ClockJump => {
                let by = i64::try_from(self.random.below(4 * 86_400)).expect("a few days") - 2 * 86_400;
                let ahead_s = if self.random.chance(500) {
                    note!(self, format_args!("c{client}"), "clock jumps by {by} s");
                    &mut self.clients[client].ahead_s
                } else {
                    note!(self, format_args!("p{provider}"), "clock jumps by {by} s");
                    &mut self.providers[provider].ahead_s
                };
                *ahead_s = (*ahead_s + by).clamp(-SKEW_MAX_S, SKEW_MAX_S);
            }
        }
    }

    /// Flips a bit somewhere in a provider's volumes.
    fn rot(&mut self, provider: usize) {
        if !self.providers[provider].is_up() {
            return;
        }
        let one = &self.providers[provider];
        let files: Vec<String> =
            one.disk.files().into_iter().filter(|file| file.starts_with("volumes/")).collect();
        if files.is_empty() {
            return;
        }
        let file = self.random.pick(&files);
        let length = one.disk.bytes(file).len();
        if length > 0 {
            let at = self.random.index(length);
            self.providers[provider].disk.flip_bit(file, at, 3);
            note!(self, format_args!("p{provider}"), "a bit flips in {file}");
            self.truth.note_damage(provider, &self.providers[provider]);
        }
    }

    /// A provider loses power, and comes back later.
    pub(crate) fn crash_provider(&mut self, provider: usize) {
        if !self.providers[provider].is_up() {
            return;
        }
        self.truth.counts.provider_crashes += 1;
        note!(self, format_args!("p{provider}"), "loses power");
        let random = &mut self.random;
        self.providers[provider].lose_power(&mut |options| random.index(options));
        let open = self.calls.iter().filter(|(_, call)| call.provider == provider && call.is_open);
        let open: Vec<u64> = open.map(|(call, _)| *call).collect();
        for call in open {
            // Either its kernel still says so, or nobody does and the deadline tells.
            if self.random.chance(500) {
                let way = self.random.millis(1, 500);
                self.schedule(way, Event::Fail { call, failure: CallFailure::Interrupted });
            }
        }
        let after = self.random.millis(200, 15_000);
        self.schedule(after, Event::StartProvider { provider });
    }

    pub(crate) fn start_provider(&mut self, provider: usize) {
        if let Err(error) = self.providers[provider].boot() {
            return self.truth.violated(format!("p{provider} can't open its store after a crash: {error:?}"));
        }
        note!(self, format_args!("p{provider}"), "starts again");
        if self.providers[provider].lie.is_none() {
            self.truth.check_promises(provider, &self.providers[provider]);
        }
    }

    /// Speed and disk are as they should be. A store that turned read-only is opened anew.
    pub(crate) fn heal(&mut self, provider: usize) {
        let one = &mut self.providers[provider];
        one.disk.heal();
        one.slowness = 1;
        if one.is_up() && !one.is_writable() {
            self.crash_provider(provider);
        }
    }

    /// No more faults: what has struck is made good, and nothing new does.
    pub(crate) fn calm_down(&mut self) {
        note!(self, "all", "faults end");
        self.phase = Phase::Calm;
        self.partitions.clear();
        let options = &mut self.options;
        (options.cuts, options.duplicates, options.stalls, options.crashes_in_calls) = (0, 0, 0, 0);
        for provider in 0..self.providers.len() {
            self.providers[provider].ahead_s = 0;
            self.heal(provider);
        }
        for client in &mut self.clients {
            client.ahead_s = 0;
        }
    }
}
